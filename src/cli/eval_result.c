#include "eval_result.h"

#include <math.h>

#include "command.h"
#include "mixture.h"
#include "table.h"

/* --- for people ------------------------------------------------------------------------------- */

static void print_with_error(const char *label, double mean, double std_error, const char *unit) {
    if (isfinite(std_error)) {
        cli_print_field(stdout, label, "%.4f ± %.4f%s", mean, std_error, unit);
    } else {
        cli_print_field(stdout, label, "%.4f%s", mean, unit);
    }
}

static void print_text(const mq_eval_result *result, const mq_eval_options *options) {
    cli_print_field(stdout, "text", "%s", options->text);
    cli_print_field(stdout, "windows", "%zu of %zu tokens", result->windows, options->seq_len);
    print_with_error("perplexity", result->perplexity, result->perplexity * result->nll_stderr, "");
    print_with_error("negative log-lik.", result->nll, result->nll_stderr, " nats a token");
    if (result->has_reference) {
        cli_print_field(stdout, "reference", "%s", options->reference);
        cli_print_field(stdout, "its perplexity", "%.4f", result->reference_perplexity);
        print_with_error("KL divergence", result->kl, result->kl_stderr, " nats a token");
        cli_print_field(stdout, "top-1 agreement", "%.2f %%", 100 * result->top1_agreement);
    }
}

static void add_number(cli_table *table, double value) {
    if (isfinite(value)) {
        cli_table_cell(table, "%.4f", value);
    } else {
        cli_table_cell(table, "-");
    }
}

static void add_accuracy(cli_table *table, const mq_accuracy *accuracy) {
    add_number(table, accuracy->acc);
    add_number(table, accuracy->acc_stderr);
    add_number(table, accuracy->acc_norm);
    add_number(table, accuracy->acc_norm_stderr);
}

static void print_tasks(const mq_eval_result *result) {
    cli_table table = {0};
    size_t items = 0, truncated = 0;
    cli_table_row(&table);
    static const char *const heads[] = {"task", "items", "acc", "stderr", "acc_norm", "stderr"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        cli_table_cell(&table, "%s", heads[i]);
    }
    for (size_t i = 0; i < result->task_count; i++) {
        const mq_task_result *task = &result->tasks[i];
        items += task->items;
        truncated += task->truncated;
        cli_table_row(&table);
        cli_table_cell(&table, "%s", task->name);
        cli_table_cell(&table, "%zu", task->items);
        add_accuracy(&table, &task->accuracy);
    }
    cli_table_row(&table);
    cli_table_cell(&table, "mean");
    cli_table_cell(&table, "%zu", items);
    add_accuracy(&table, &result->mean);
    fputc('\n', stdout);
    cli_table_print(stdout, &table);
    fputc('\n', stdout);
    if (truncated > 0) {
        cli_print_field(stdout, "truncated", "%zu items", truncated);
    }
}

static void print_one(const mq_eval_result *result, const mq_eval_options *options) {
    if (result->width > 0) {
        cli_print_field(stdout, "model", "%s at %u bits", options->model, result->width);
    } else {
        cli_print_field(stdout, "model", "%s", options->model);
    }
    cli_print_widths(&result->widths, result->width, options->layer_bits_count > 0);
    if (options->text) {
        print_text(result, options);
    }
    if (result->task_count > 0) {
        print_tasks(result);
    }
}

static void print_heads(cli_table *table, const mq_eval_result *result,
                        const mq_eval_options *options) {
    cli_table_row(table);
    cli_table_cell(table, "bits");
    if (options->layer_bits_count > 0) {
        cli_table_cell(table, "mean bits");
    }
    if (options->text) {
        cli_table_cell(table, "perplexity");
        cli_table_cell(table, "stderr");
    }
    if (result->has_reference) {
        cli_table_cell(table, "KL divergence");
        cli_table_cell(table, "top-1 agreement");
    }
    if (result->task_count > 0) {
        cli_table_cell(table, "mean acc");
        cli_table_cell(table, "stderr");
        cli_table_cell(table, "mean acc_norm");
        cli_table_cell(table, "stderr");
    }
}

static void print_row(cli_table *table, const mq_eval_result *result,
                      const mq_eval_options *options) {
    cli_table_row(table);
    cli_table_cell(table, "%u", result->width);
    if (options->layer_bits_count > 0) {
        cli_table_cell(table, "%.3f", mq_mean_bits(&result->widths));
    }
    if (options->text) {
        add_number(table, result->perplexity);
        add_number(table, result->perplexity * result->nll_stderr);
    }
    if (result->has_reference) {
        add_number(table, result->kl);
        cli_table_cell(table, "%.2f %%", 100 * result->top1_agreement);
    }
    if (result->task_count > 0) {
        add_accuracy(table, &result->mean);
    }
}

static void print_several(const mq_eval_result *results, size_t count,
                          const mq_eval_options *options) {
    cli_print_field(stdout, "model", "%s", options->model);
    if (options->text) {
        cli_print_field(stdout, "text", "%s", options->text);
        cli_print_field(stdout, "windows", "%zu of %zu tokens", results->windows, options->seq_len);
    }
    if (results->has_reference) {
        cli_print_field(stdout, "reference", "%s", options->reference);
        cli_print_field(stdout, "its perplexity", "%.4f", results->reference_perplexity);
    }
    cli_table table = {0};
    print_heads(&table, results, options);
    for (size_t i = 0; i < count; i++) {
        print_row(&table, &results[i], options);
    }
    putchar('\n');
    cli_table_print(stdout, &table);
    putchar('\n');
}

void cli_print_eval_table(const mq_eval_result *results, size_t count,
                          const mq_eval_options *options) {
    char time[CLI_CELL_SIZE];
    if (count == 1) {
        print_one(results, options);
    } else {
        print_several(results, count, options);
    }
    cli_print_field(stdout, "time", "%s", cli_show_seconds(time, results->seconds));
}

/* --- for programs ----------------------------------------------------------------------------- */

static void add_text(cli_json *json, cJSON *object, const mq_eval_result *result,
                     const mq_eval_options *options) {
    cli_json_text(json, object, "text", options->text);
    cli_json_size(json, object, "windows", result->windows);
    cli_json_size(json, object, "seq_len", options->seq_len);
    cli_json_size(json, object, "tokens", result->tokens);
    cli_json_number(json, object, "perplexity", result->perplexity);
    cli_json_number(json, object, "nll", result->nll);
    cli_json_number(json, object, "nll_stderr", result->nll_stderr);
    if (result->has_reference) {
        cli_json_text(json, object, "reference", options->reference);
        cli_json_number(json, object, "reference_perplexity", result->reference_perplexity);
        cli_json_number(json, object, "kl", result->kl);
        cli_json_number(json, object, "kl_stderr", result->kl_stderr);
        cli_json_number(json, object, "top1_agreement", result->top1_agreement);
    }
}

static void add_accuracies(cli_json *json, cJSON *object, const mq_accuracy *accuracy) {
    cli_json_number(json, object, "acc", accuracy->acc);
    cli_json_number(json, object, "acc_stderr", accuracy->acc_stderr);
    cli_json_number(json, object, "acc_norm", accuracy->acc_norm);
    cli_json_number(json, object, "acc_norm_stderr", accuracy->acc_norm_stderr);
}

static void add_tasks(cli_json *json, cJSON *root, const mq_eval_result *result,
                      const mq_eval_options *options) {
    cJSON *tasks = cli_json_array(json, root, "tasks");
    for (size_t i = 0; i < result->task_count; i++) {
        const mq_task_result *task = &result->tasks[i];
        cJSON *object = cli_json_element(json, tasks);
        cli_json_text(json, object, "task", task->name);
        cli_json_text(json, object, "file", options->tasks[i]);
        cli_json_size(json, object, "items", task->items);
        cli_json_size(json, object, "choices", task->choices);
        cli_json_size(json, object, "tokens", task->tokens);
        cli_json_size(json, object, "truncated", task->truncated);
        add_accuracies(json, object, &task->accuracy);
    }
    add_accuracies(json, cli_json_object(json, root, "mean"), &result->mean);
    cli_json_size(json, root, "task_tokens", result->task_tokens);
    cli_json_number(json, root, "task_seconds", result->task_seconds);
}

static void add_result(cli_json *json, cJSON *root, const mq_eval_result *result,
                       const mq_eval_options *options) {
    cli_json_text(json, root, "model", options->model);
    if (result->width > 0) {
        cli_json_size(json, root, "bits", result->width);
    } else {
        cli_json_null(json, root, "bits");
    }
    cli_json_widths(json, root, &result->widths);
    if (options->text) {
        add_text(json, root, result, options);
    }
    if (result->task_count > 0) {
        add_tasks(json, root, result, options);
    }
    cli_json_number(json, root, "seconds", result->seconds);
}

mq_status cli_print_eval_json(const mq_eval_result *results, size_t count,
                              const mq_eval_options *options) {
    cli_json json;
    cli_json_begin(&json);
    if (count == 1) {
        add_result(&json, json.root, results, options);
    } else {
        cJSON *list = cli_json_array(&json, json.root, "results");
        for (size_t i = 0; i < count; i++) {
            add_result(&json, cli_json_element(&json, list), &results[i], options);
        }
    }
    return cli_print_json(&json);
}
