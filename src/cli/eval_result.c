#include "eval_result.h"

#include <math.h>

#include "command.h"
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

void cli_print_eval_table(const mq_eval_result *result, const mq_eval_options *options) {
    char time[CLI_CELL_SIZE];
    if (result->width > 0) {
        cli_print_field(stdout, "model", "%s at %u bits", options->model, result->width);
    } else {
        cli_print_field(stdout, "model", "%s", options->model);
    }
    if (options->text) {
        print_text(result, options);
    }
    if (result->task_count > 0) {
        print_tasks(result);
    }
    cli_print_field(stdout, "time", "%s", cli_show_seconds(time, result->seconds));
}

/* --- for programs ----------------------------------------------------------------------------- */

static void add_text(cli_json *json, const mq_eval_result *result, const mq_eval_options *options) {
    cli_json_text(json, json->root, "text", options->text);
    cli_json_size(json, json->root, "windows", result->windows);
    cli_json_size(json, json->root, "seq_len", options->seq_len);
    cli_json_size(json, json->root, "tokens", result->tokens);
    cli_json_number(json, json->root, "perplexity", result->perplexity);
    cli_json_number(json, json->root, "nll", result->nll);
    cli_json_number(json, json->root, "nll_stderr", result->nll_stderr);
    if (result->has_reference) {
        cli_json_text(json, json->root, "reference", options->reference);
        cli_json_number(json, json->root, "reference_perplexity", result->reference_perplexity);
        cli_json_number(json, json->root, "kl", result->kl);
        cli_json_number(json, json->root, "kl_stderr", result->kl_stderr);
        cli_json_number(json, json->root, "top1_agreement", result->top1_agreement);
    }
}

static void add_accuracies(cli_json *json, cJSON *object, const mq_accuracy *accuracy) {
    cli_json_number(json, object, "acc", accuracy->acc);
    cli_json_number(json, object, "acc_stderr", accuracy->acc_stderr);
    cli_json_number(json, object, "acc_norm", accuracy->acc_norm);
    cli_json_number(json, object, "acc_norm_stderr", accuracy->acc_norm_stderr);
}

static void add_tasks(cli_json *json, const mq_eval_result *result,
                      const mq_eval_options *options) {
    cJSON *tasks = cli_json_array(json, json->root, "tasks");
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
    add_accuracies(json, cli_json_object(json, json->root, "mean"), &result->mean);
    cli_json_size(json, json->root, "task_tokens", result->task_tokens);
    cli_json_number(json, json->root, "task_seconds", result->task_seconds);
}

mq_status cli_print_eval_json(const mq_eval_result *result, const mq_eval_options *options) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "model", options->model);
    if (result->width > 0) {
        cli_json_size(&json, json.root, "bits", result->width);
    } else {
        cli_json_null(&json, json.root, "bits");
    }
    if (options->text) {
        add_text(&json, result, options);
    }
    if (result->task_count > 0) {
        add_tasks(&json, result, options);
    }
    cli_json_number(&json, json.root, "seconds", result->seconds);
    return cli_print_json(&json);
}
