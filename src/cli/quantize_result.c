#include "quantize_result.h"

#include <string.h>

#include "command.h"
#include "matquant/names.h"
#include "table.h"

/* Of all blocks in which something is quantized, at the width of that index. (Those before the
 * first of them have no loss.) */
static void mean_losses(double *before, double *after, const mq_quantize_report *report,
                        size_t width) {
    size_t blocks = 0;
    *before = *after = 0;
    for (size_t b = 0; b < report->blocks; b++) {
        if (report->block[b].epochs > 0) {
            *before += report->block[b].before[width];
            *after += report->block[b].after[width];
            blocks++;
        }
    }
    *before /= (double)blocks;
    *after /= (double)blocks;
}

/* --- for people ------------------------------------------------------------------------------- */

static void print_losses(const mq_quantize_report *report, const mq_quantize_options *options) {
    for (size_t i = 0; i < options->codistill_count; i++) {
        const mq_codistill *term = &options->codistill[i];
        printf("int%u also learns from int%u's output (lambda %g)\n", term->student, term->teacher,
               term->lambda);
    }
    puts(options->loss == MQ_LOSS_RELATIVE ? "Mean loss over the blocks in dB (10: a tenth of the "
                                             "output's squares; 20: a hundredth)"
                                           : "Mean loss over the blocks in dB below 1");
    cli_table table = {0};
    cli_table_row(&table);
    cli_table_cell(&table, "bits");
    cli_table_cell(&table, "lambda");
    cli_table_cell(&table, "before");
    cli_table_cell(&table, "after");
    cli_table_cell(&table, "gain");
    for (size_t i = 0; i < options->width_count; i++) {
        double before, after;
        mean_losses(&before, &after, report, i);
        before = cli_decibels(before);
        after = cli_decibels(after);
        cli_table_row(&table);
        cli_table_cell(&table, "%u", options->widths[i]);
        cli_table_cell(&table, "%g", options->lambda[i]);
        cli_table_cell(&table, "%.2f dB", before);
        cli_table_cell(&table, "%.2f dB", after);
        cli_table_cell(&table, "%+.2f dB", after - before);
    }
    cli_table_print(stdout, &table);
    putchar('\n');
}

static void print_refits(const mq_quantize_report *report) {
    puts("Refit: KL from full precision, nats a token, on text kept back from it");
    cli_table table = {0};
    cli_table_row(&table);
    cli_table_cell(&table, "bits");
    cli_table_cell(&table, "before");
    cli_table_cell(&table, "after");
    cli_table_cell(&table, "epoch");
    for (size_t i = 0; i < report->refit_count; i++) {
        const mq_refit_report *refit = &report->refit[i];
        cli_table_row(&table);
        cli_table_cell(&table, "%u", refit->width);
        cli_table_cell(&table, "%.5f", refit->kl_before);
        cli_table_cell(&table, "%.5f", refit->kl_after);
        cli_table_cell(&table, "%zu", refit->kept_epoch);
    }
    cli_table_print(stdout, &table);
    putchar('\n');
}

static void print_qat(const mq_quantize_report *report) {
    const mq_qat_report *qat = &report->qat;
    puts("Codes trained end to end: KL from full precision, nats a token, on text kept back from "
         "it");
    cli_table table = {0};
    cli_table_row(&table);
    cli_table_cell(&table, "bits");
    cli_table_cell(&table, "before");
    cli_table_cell(&table, "after");
    for (unsigned bits = 8; bits >= 2; bits--) {
        cli_table_row(&table);
        cli_table_cell(&table, "%u", bits);
        cli_table_cell(&table, "%.5f", qat->kl_before[bits]);
        cli_table_cell(&table, "%.5f", qat->kl_after[bits]);
    }
    cli_table_print(stdout, &table);
    if (qat->kept_epoch > 0) {
        printf("%zu codes moved\n\n", qat->moved);
    } else {
        puts("no better in sum: codes are as they were\n");
    }
}

static void print_calibration(const mq_quantize_report *report,
                              const mq_quantize_options *options) {
    const char *wrote = options->dry_run ? "would write" : "wrote";
    char more[CLI_CELL_SIZE] = "";
    if (options->calib != NULL && strcmp(options->calib, "self") == 0) {
        snprintf(more, sizeof more, " that the model %s", wrote);
    } else if (report->written_tokens > 0) {
        snprintf(more, sizeof more, ", and %zu that the model %s", report->written_tokens, wrote);
    }
    cli_print_field(stdout, "calibration", "%zu tokens%s", report->calibration_tokens, more);
}

/* Of a dry run: what each disk has to hold. */
static void print_disks(const mq_quantize_report *report, const mq_quantize_options *options) {
    char a[CLI_CELL_SIZE], b[CLI_CELL_SIZE];
    const size_t beside = report->state_same_disk ? report->state_bytes : 0;
    cli_print_field(stdout, "disk", "%s needed, %s free",
                    cli_show_bytes(a, report->output_bytes + beside),
                    cli_show_bytes(b, report->disk_free));
    if (options->state != NULL && !report->state_same_disk) {
        cli_print_field(stdout, "disk of the state", "%s needed, %s free",
                        cli_show_bytes(a, report->state_bytes),
                        cli_show_bytes(b, report->state_disk_free));
    }
}

void cli_print_quantize_table(const mq_quantize_report *report,
                              const mq_quantize_options *options) {
    char a[CLI_CELL_SIZE], b[CLI_CELL_SIZE];
    if (report->block && report->blocks > 0) {
        print_losses(report, options);
    }
    if (report->qat.tokens > 0) {
        print_qat(report);
    }
    if (report->refit_count > 0) {
        print_refits(report);
    }
    cli_print_field(stdout, "output", "%s%s", options->output,
                    options->dry_run ? " (dry run: not made)" : "");
    char groups[CLI_CELL_SIZE] = "a row a group";
    if (report->group_size > 0) {
        snprintf(groups, sizeof groups, "groups of %zu", report->group_size);
    }
    cli_print_field(stdout, "quantized", "%zu tensors, %zu weights, %s", report->quantized_tensors,
                    report->quantized_weights, groups);
    cli_print_field(stdout, "other tensors", "%zu", report->other_tensors);
    print_calibration(report, options);
    if (report->gemm[0] != '\0') {
        cli_print_field(stdout, "products", "%s", report->gemm);
    }
    if (options->state != NULL) {
        cli_print_field(stdout, "state", "%zu of %zu blocks and %zu widths of the refit %s",
                        report->state_blocks, report->blocks, report->state_widths,
                        options->dry_run ? "are there" : "were there");
    }
    if (options->dry_run) {
        print_disks(report, options);
        cli_print_field(stdout, "memory", "%s predicted",
                        cli_show_bytes(a, report->memory_predicted));
        if (report->operations > 0.0 && report->gflops > 0.0) {
            cli_print_field(stdout, "time", "at least %s (products alone, at %.0f GFLOP/s)",
                            cli_show_seconds(a, report->operations / (1e9 * report->gflops)),
                            report->gflops);
        }
        return;
    }
    cli_print_field(stdout, "disk", "%s", cli_show_bytes(a, report->output_bytes));
    cli_print_field(stdout, "memory", "%s predicted, %s at the peak",
                    cli_show_bytes(a, report->memory_predicted),
                    cli_show_bytes(b, report->memory_peak));
    cli_print_field(stdout, "time", "%s", cli_show_seconds(a, report->seconds));
}

/* --- for programs ----------------------------------------------------------------------------- */

static void add_widths(cli_json *json, const mq_quantize_report *report,
                       const mq_quantize_options *options) {
    cJSON *widths = cli_json_array(json, json->root, "widths");
    for (size_t i = 0; i < options->width_count; i++) {
        cJSON *width = cli_json_element(json, widths);
        cli_json_size(json, width, "bits", options->widths[i]);
        cli_json_number(json, width, "lambda", options->lambda[i]);
        if (report->block && report->blocks > 0) {
            double before, after;
            mean_losses(&before, &after, report, i);
            cli_json_number(json, width, "mean_loss_before", before);
            cli_json_number(json, width, "mean_loss_after", after);
        }
    }
}

static void add_codistill(cli_json *json, const mq_quantize_options *options) {
    cJSON *terms = cli_json_array(json, json->root, "codistill");
    for (size_t i = 0; i < options->codistill_count; i++) {
        cJSON *term = cli_json_element(json, terms);
        cli_json_size(json, term, "teacher", options->codistill[i].teacher);
        cli_json_size(json, term, "student", options->codistill[i].student);
        cli_json_number(json, term, "lambda", options->codistill[i].lambda);
    }
}

static void add_blocks(cli_json *json, const mq_quantize_report *report,
                       const mq_quantize_options *options) {
    cJSON *blocks = cli_json_array(json, json->root, "blocks");
    for (size_t b = 0; report->block && b < report->blocks; b++) {
        const mq_block_loss *loss = &report->block[b];
        cJSON *block = cli_json_element(json, blocks);
        cli_json_size(json, block, "block", b);
        cli_json_size(json, block, "epochs", loss->epochs);
        cli_json_number(json, block, "seconds", loss->seconds);
        cJSON *widths = cli_json_array(json, block, "losses");
        for (size_t i = 0; i < options->width_count; i++) {
            cJSON *width = cli_json_element(json, widths);
            cli_json_size(json, width, "bits", options->widths[i]);
            cli_json_number(json, width, "before", loss->before[i]);
            cli_json_number(json, width, "after", loss->after[i]);
        }
    }
}

static void add_refits(cli_json *json, const mq_quantize_report *report) {
    cJSON *refits = cli_json_array(json, json->root, "refit");
    for (size_t i = 0; i < report->refit_count; i++) {
        cJSON *refit = cli_json_element(json, refits);
        cli_json_size(json, refit, "bits", report->refit[i].width);
        cli_json_number(json, refit, "kl_before", report->refit[i].kl_before);
        cli_json_number(json, refit, "kl_after", report->refit[i].kl_after);
        cli_json_size(json, refit, "kept_epoch", report->refit[i].kept_epoch);
        cli_json_size(json, refit, "trained_tokens", report->refit[i].tokens);
    }
}

/* null: it was not asked for, or not made. */
static void add_qat(cli_json *json, const mq_quantize_report *report) {
    const mq_qat_report *qat = &report->qat;
    if (qat->tokens == 0) {
        cli_json_null(json, json->root, "qat");
        return;
    }
    cJSON *object = cli_json_object(json, json->root, "qat");
    cli_json_number(json, object, "loss_before", qat->loss_before);
    cli_json_number(json, object, "loss_after", qat->loss_after);
    cli_json_size(json, object, "kept_epoch", qat->kept_epoch);
    cli_json_size(json, object, "trained_tokens", qat->tokens);
    cli_json_size(json, object, "moved_codes", qat->moved);
    cJSON *widths = cli_json_array(json, object, "widths");
    for (unsigned bits = 8; bits >= 2; bits--) {
        cJSON *width = cli_json_element(json, widths);
        cli_json_size(json, width, "bits", bits);
        cli_json_number(json, width, "kl_before", qat->kl_before[bits]);
        cli_json_number(json, width, "kl_after", qat->kl_after[bits]);
    }
}

/* null: without --state. */
static void add_state(cli_json *json, const mq_quantize_report *report,
                      const mq_quantize_options *options) {
    if (options->state == NULL) {
        cli_json_null(json, json->root, "state");
        return;
    }
    cJSON *state = cli_json_object(json, json->root, "state");
    cli_json_text(json, state, "folder", options->state);
    cli_json_size(json, state, "blocks", report->state_blocks);
    cli_json_size(json, state, "widths", report->state_widths);
    cli_json_size(json, state, "bytes", report->state_bytes);
    cli_json_size(json, state, "disk_free", report->state_disk_free);
    cli_json_bool(json, state, "same_disk", report->state_same_disk);
}

mq_status cli_print_quantize_json(const mq_quantize_report *report,
                                  const mq_quantize_options *options) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "model", options->model);
    cli_json_text(&json, json.root, "output", options->output);
    cli_json_bool(&json, json.root, "dry_run", options->dry_run);
    cli_json_text(&json, json.root, "recipe", mq_name_at(mq_recipe_names(), options->recipe));
    if (options->preset != MQ_PRESET_NONE) {
        cli_json_text(&json, json.root, "preset", mq_name_at(mq_preset_names(), options->preset));
    } else {
        cli_json_null(&json, json.root, "preset");
    }
    cli_json_text(&json, json.root, "loss", mq_name_at(mq_loss_names(), options->loss));
    cli_json_text(&json, json.root, "slice_rule",
                  mq_name_at(mq_slice_rule_names(), options->slice_rule));
    cli_json_text(&json, json.root, "zero_point",
                  mq_name_at(mq_zero_point_names(), options->zero_point));
    cli_json_size(&json, json.root, "group_size", report->group_size);
    cli_json_bool(&json, json.root, "let", options->let);
    add_widths(&json, report, options);
    add_codistill(&json, options);
    cli_json_size(&json, json.root, "quantized_tensors", report->quantized_tensors);
    cli_json_size(&json, json.root, "quantized_weights", report->quantized_weights);
    cli_json_size(&json, json.root, "other_tensors", report->other_tensors);
    cli_json_size(&json, json.root, "calibration_tokens", report->calibration_tokens);
    cli_json_size(&json, json.root, "written_tokens", report->written_tokens);
    if (report->gemm[0] != '\0') {
        cli_json_text(&json, json.root, "gemm", report->gemm);
    } else {
        cli_json_null(&json, json.root, "gemm");
    }
    add_state(&json, report, options);
    cli_json_size(&json, json.root, "output_bytes", report->output_bytes);
    cli_json_size(&json, json.root, "disk_free", report->disk_free);
    cli_json_size(&json, json.root, "memory_predicted", report->memory_predicted);
    if (options->dry_run) {
        cli_json_null(&json, json.root, "memory_peak");
    } else {
        cli_json_size(&json, json.root, "memory_peak", report->memory_peak);
    }
    cli_json_number(&json, json.root, "operations", report->operations);
    if (report->gflops > 0.0) {
        cli_json_number(&json, json.root, "gflops", report->gflops);
    } else {
        cli_json_null(&json, json.root, "gflops");
    }
    cli_json_number(&json, json.root, "seconds", report->seconds);
    add_blocks(&json, report, options);
    add_qat(&json, report);
    add_refits(&json, report);
    return cli_print_json(&json);
}
