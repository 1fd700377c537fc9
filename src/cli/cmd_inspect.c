#include <math.h>
#include <string.h>

#include "command.h"
#include "matquant/inspect.h"
#include "matquant/names.h"
#include "table.h"

static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

/* "evaluations" of the provenance (matquant/format.h). */
static void print_evaluations(const cJSON *list) {
    puts("\nEvaluations");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(item, "text");
        const cJSON *file = cJSON_GetObjectItemCaseSensitive(text, "file");
        char label[CLI_CELL_SIZE], kl[CLI_CELL_SIZE] = "";
        snprintf(label, sizeof label, "%.0f bits", number_of(item, "bits"));
        if (isfinite(number_of(item, "kl"))) {
            snprintf(kl, sizeof kl, ", KL %.4f", number_of(item, "kl"));
        }
        cli_print_field(stdout, label, "perplexity %.4f%s, %.0f windows of %.0f tokens of %s",
                        number_of(item, "perplexity"), kl, number_of(item, "windows"),
                        number_of(item, "seq_len"), cJSON_IsString(file) ? file->valuestring : "?");
    }
}

static void print_value(const char *name, const cJSON *item) {
    char *text = cJSON_PrintUnformatted(item);
    cli_print_field(stdout, name, " %s", text ? text : "(out of memory)");
    cJSON_free(text);
}

/* Prints every number, text and list of the provenance under its path, "recipe.seed"; a list on one
 * line, or, of objects, a line each. */
static void print_provenance(const cJSON *object, const char *path) {
    for (const cJSON *item = object->child; item; item = item->next) {
        char name[128];
        snprintf(name, sizeof name, "%s%s%s", path, path[0] ? "." : "",
                 item->string ? item->string : "");
        if (cJSON_IsObject(item)) {
            print_provenance(item, name);
        } else if (cJSON_IsString(item)) {
            cli_print_field(stdout, name, " %s", item->valuestring);
        } else if (cJSON_IsArray(item) && cJSON_IsObject(item->child)) {
            const cJSON *element = NULL;
            cJSON_ArrayForEach(element, item) { print_value(name, element); }
        } else {
            print_value(name, item);
        }
    }
}

static void print_widths(const mq_inspection *inspection) {
    cli_table table = {0};
    char bytes[CLI_CELL_SIZE];
    bool refitted = false;
    for (size_t i = 0; i < inspection->width_count; i++) {
        refitted = refitted || isfinite(inspection->widths[i].refit_kl);
    }
    cli_table_row(&table);
    cli_table_cell(&table, "bits");
    cli_table_cell(&table, "trained");
    cli_table_cell(&table, "bits a weight");
    cli_table_cell(&table, "bytes");
    cli_table_cell(&table, "size");
    if (refitted) {
        cli_table_cell(&table, "KL held out");
    }
    for (size_t i = 0; i < inspection->width_count; i++) {
        const mq_width_size *width = &inspection->widths[i];
        cli_table_row(&table);
        cli_table_cell(&table, "%u", width->width);
        cli_table_cell(&table, "%s", width->trained ? "yes" : "-");
        cli_table_cell(&table, "%.3f", width->bits_per_weight);
        cli_table_cell(&table, "%zu", width->bytes);
        cli_table_cell(&table, "%s", cli_show_bytes(bytes, width->bytes));
        if (isfinite(width->refit_kl)) {
            cli_table_cell(&table, "%.4f", width->refit_kl);
        } else if (refitted) {
            cli_table_cell(&table, "-");
        }
    }
    puts(inspection->width_count > 1
             ? "\nSlices, in MLX's format where that holds the width, else in matquant's"
             : "");
    cli_table_print(stdout, &table);
}

static void print_group_size(const mq_inspection *inspection) {
    char size[CLI_CELL_SIZE] = "a row", other[CLI_CELL_SIZE] = "a row";
    if (inspection->group_size > 0) {
        snprintf(size, sizeof size, "%zu", inspection->group_size);
    }
    if (inspection->other_group_size > 0) {
        snprintf(other, sizeof other, "%zu", inspection->other_group_size);
    }
    if (inspection->other_tensors == 0) {
        cli_print_field(stdout, "group size", "%s", size);
    } else {
        cli_print_field(stdout, "group size", "%s; of %zu tensors %s", size,
                        inspection->other_tensors, other);
    }
}

static void print_table(const mq_inspection *inspection, const char *folder) {
    char bytes[CLI_CELL_SIZE];
    cli_print_field(stdout, "folder", "%s", folder);
    cli_print_field(stdout, "kind", "%s", mq_name_at(mq_kind_names(), inspection->kind));
    cli_print_field(stdout, "architecture", "%s", inspection->architecture);
    cli_print_field(stdout, "blocks", "%zu", inspection->num_hidden_layers);
    cli_print_field(stdout, "hidden size", "%zu", inspection->hidden_size);
    cli_print_field(stdout, "vocabulary", "%zu", inspection->vocab_size);
    cli_print_field(stdout, "tensors", "%zu, of which quantized %zu", inspection->tensors,
                    inspection->quantized_tensors);
    cli_print_field(stdout, "weights", "%zu, of which quantized %zu", inspection->weights,
                    inspection->quantized_weights);
    cli_print_field(stdout, "bytes", "%zu (%s)", inspection->bytes,
                    cli_show_bytes(bytes, inspection->bytes));
    if (inspection->kind != MQ_KIND_PLAIN) {
        print_group_size(inspection);
    }
    if (inspection->kind == MQ_KIND_MASTER) {
        cli_print_field(stdout, "slice rule", "%s",
                        mq_name_at(mq_slice_rule_names(), inspection->slice_rule));
        cli_print_field(stdout, "zero point", "%s",
                        mq_name_at(mq_zero_point_names(), inspection->zero_point));
        if (inspection->embedding_bits == 0) {
            cli_print_field(stdout, "embeddings", "as in the source");
        } else {
            cli_print_field(stdout, "embeddings", "quantized, %u bits or more",
                            inspection->embedding_bits);
        }
    }
    if (inspection->width_count > 0) {
        print_widths(inspection);
    }
    cJSON *provenance = inspection->provenance ? cJSON_Parse(inspection->provenance) : NULL;
    if (provenance) {
        cJSON *evaluations = cJSON_DetachItemFromObjectCaseSensitive(provenance, "evaluations");
        if (cJSON_IsArray(evaluations) && evaluations->child) {
            print_evaluations(evaluations);
        }
        cJSON_Delete(evaluations);
        puts("\nProvenance");
        print_provenance(provenance, "");
        cJSON_Delete(provenance);
    }
}

static mq_status print_json(const mq_inspection *inspection, const char *folder) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "folder", folder);
    cli_json_text(&json, json.root, "kind", mq_name_at(mq_kind_names(), inspection->kind));
    cli_json_text(&json, json.root, "architecture", inspection->architecture);
    cli_json_size(&json, json.root, "num_hidden_layers", inspection->num_hidden_layers);
    cli_json_size(&json, json.root, "hidden_size", inspection->hidden_size);
    cli_json_size(&json, json.root, "vocab_size", inspection->vocab_size);
    cli_json_size(&json, json.root, "tensors", inspection->tensors);
    cli_json_size(&json, json.root, "quantized_tensors", inspection->quantized_tensors);
    cli_json_size(&json, json.root, "weights", inspection->weights);
    cli_json_size(&json, json.root, "quantized_weights", inspection->quantized_weights);
    cli_json_size(&json, json.root, "bytes", inspection->bytes);
    if (inspection->kind != MQ_KIND_PLAIN) {
        cli_json_size(&json, json.root, "group_size", inspection->group_size);
        cli_json_size(&json, json.root, "other_tensors", inspection->other_tensors);
        if (inspection->other_tensors > 0) {
            cli_json_size(&json, json.root, "other_group_size", inspection->other_group_size);
        }
    }
    if (inspection->kind == MQ_KIND_MASTER) {
        cli_json_text(&json, json.root, "slice_rule",
                      mq_name_at(mq_slice_rule_names(), inspection->slice_rule));
        cli_json_text(&json, json.root, "zero_point",
                      mq_name_at(mq_zero_point_names(), inspection->zero_point));
        cli_json_size(&json, json.root, "embedding_bits", inspection->embedding_bits);
    }
    cJSON *widths = cli_json_array(&json, json.root, "widths");
    for (size_t i = 0; i < inspection->width_count; i++) {
        cJSON *width = cli_json_element(&json, widths);
        cli_json_size(&json, width, "bits", inspection->widths[i].width);
        cli_json_bool(&json, width, "trained", inspection->widths[i].trained);
        cli_json_number(&json, width, "bits_per_weight", inspection->widths[i].bits_per_weight);
        cli_json_size(&json, width, "bytes", inspection->widths[i].bytes);
        cli_json_number(&json, width, "refit_kl", inspection->widths[i].refit_kl);
    }
    if (inspection->provenance) {
        cli_json_raw(&json, json.root, "provenance", inspection->provenance);
    }
    return cli_print_json(&json);
}

mq_status cmd_inspect(int count, char *const *argv) {
    const char *folder = NULL;
    cli_common common = {0};
    const cli_argument arguments[] = {
        {"FOLDER", "plain model, master, or slice (not gptq, compressed-tensors, GGUF)", &folder},
        {NULL, NULL, NULL}};
    const cli_option specs[] = {CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        .name = "inspect",
        .description = "Prints what a folder is: architecture, tensors, widths, bits per "
                       "weight and bytes at each width, provenance. Of a master, the "
                       "sizes are those of slices in MLX's format, or in matquant's where MLX's "
                       "does not hold the width.",
        .arguments = arguments,
        .options = specs};
    mq_status status;
    if (!cli_read_line(&status, &command, count, argv)) {
        return status;
    }
    mq_inspection inspection = {0};
    mq_error err = {0};
    status = mq_inspect(&inspection, folder, &err);
    if (status != MQ_OK) {
        return cli_print_error(&err);
    }
    if (common.json) {
        status = print_json(&inspection, folder);
    } else {
        print_table(&inspection, folder);
    }
    mq_inspection_free(&inspection);
    return status;
}
