#include <assert.h>

#include "command.h"
#include "matquant/names.h"
#include "matquant/slice.h"
#include "mixture.h"
#include "table.h"

/* The parser writes a choice as an unsigned, into the options' enumerations as well. */
static_assert(sizeof(mq_slice_format) == sizeof(unsigned) &&
                  sizeof(mq_slice_dtype) == sizeof(unsigned),
              "enumerations are as wide as unsigned");

#define FORMATS_SIZE 16

static const char *format_name(const mq_slice_options *options) {
    return mq_format_at(options->format)->name;
}

static void print_formats(FILE *out) {
    fputs("\nFormats:\n", out);
    const mq_format_info *format;
    for (size_t i = 0; (format = mq_format_at(i)) != NULL; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s; widths %s", format->summary, format->widths);
        fprintf(out, "  %-20s", format->name);
        cli_print_wrapped(out, text, 22, 22);
    }
}

/* Every tensor whose numbers are not quite the slice's. */
static void add_costs(cli_json *json, const mq_slice_report *report) {
    cli_json_number(json, json->root, "relative_error", report->relative_error);
    cJSON *costs = cli_json_array(json, json->root, "inexact");
    for (size_t i = 0; i < report->cost_count; i++) {
        cJSON *entry = cli_json_element(json, costs);
        cli_json_text(json, entry, "tensor", report->costs[i].tensor);
        cli_json_number(json, entry, "relative_error", report->costs[i].relative_error);
    }
}

static mq_status print_json(const mq_slice_report *report, const mq_slice_options *options) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "master", options->master);
    cli_json_text(&json, json.root, "output", options->output);
    cli_json_size(&json, json.root, "bits", options->width);
    cli_json_text(&json, json.root, "format", format_name(options));
    cli_json_size(&json, json.root, "tensors", report->tensors);
    cli_json_size(&json, json.root, "bytes_read", report->bytes_read);
    cli_json_size(&json, json.root, "bytes_written", report->bytes_written);
    cli_json_number(&json, json.root, "bits_per_weight", report->bits_per_weight);
    cli_json_widths(&json, json.root, &report->widths);
    add_costs(&json, report);
    cli_json_number(&json, json.root, "seconds", report->seconds);
    return cli_print_json(&json);
}

static void print_cost(const mq_slice_cost *cost) {
    cli_print_line(stdout, "  %-58s %.2g %%", cost->tensor, 100.0 * cost->relative_error);
}

/* Whether a costs more than b; of equal ones the first in the file. */
static bool is_worse(const mq_slice_cost *a, const mq_slice_cost *b) {
    return a->relative_error > b->relative_error ||
           (!(a->relative_error < b->relative_error) && a < b);
}

/* The tensors that the format changes most, so many of them. */
static void print_worst(const mq_slice_report *report, size_t count) {
    const mq_slice_cost *last = NULL;
    for (size_t n = 0; n < count; n++) {
        const mq_slice_cost *worst = NULL;
        for (size_t i = 0; i < report->cost_count; i++) {
            const mq_slice_cost *cost = &report->costs[i];
            if ((last == NULL || is_worse(last, cost)) &&
                (worst == NULL || is_worse(cost, worst))) {
                worst = cost;
            }
        }
        print_cost(worst);
        last = worst;
    }
}

#define SHOWN 3

static void print_costs(const mq_slice_report *report, bool all) {
    if (all || report->cost_count <= SHOWN) {
        for (size_t i = 0; i < report->cost_count; i++) {
            print_cost(&report->costs[i]);
        }
        return;
    }
    print_worst(report, SHOWN);
    printf("  and %zu tensors less; --verbose lists all\n", report->cost_count - SHOWN);
}

static void print_table(const mq_slice_report *report, const mq_slice_options *options,
                        bool verbose) {
    char a[CLI_CELL_SIZE], b[CLI_CELL_SIZE];
    cli_print_field(stdout, "output", "%s", options->output);
    cli_print_field(stdout, "format", "%s, %u bits", format_name(options), options->width);
    cli_print_widths(&report->widths, options->width, options->layer_bits_count > 0);
    cli_print_field(stdout, "bits a weight", "%.3f", report->bits_per_weight);
    cli_print_field(stdout, "tensors", "%zu", report->tensors);
    cli_print_field(stdout, "bytes", "%s, out of %s", cli_show_bytes(a, report->bytes_written),
                    cli_show_bytes(b, report->bytes_read));
    cli_print_field(stdout, "time", "%s", cli_show_seconds(a, report->seconds));
    if (report->cost_count == 0) {
        cli_print_field(stdout, "format's error", "none: the weights are exactly the slice's");
        return;
    }
    if (report->relative_error == 0) {
        cli_print_field(stdout, "format's error",
                        "none in what is quantized; other tensors are rounded");
    } else {
        cli_print_field(stdout, "format's error", "%.2g %% of the quantized weights' squares",
                        100.0 * report->relative_error);
    }
    print_costs(report, verbose);
}

static mq_status slice(const mq_slice_options *options, const cli_common *common) {
    cli_progress progress;
    mq_context *context = NULL;
    mq_slice_report report = {0};
    mq_error err = {0};
    mq_status status = cli_open_context(&context, &progress, common, &err);
    if (status == MQ_OK) {
        status = mq_slice(&report, options, context, &err);
    }
    cli_progress_clear(&progress);
    if (status != MQ_OK) {
        cli_print_error(&err);
    } else if (common->json) {
        status = print_json(&report, options);
    } else {
        print_table(&report, options, common->verbose);
    }
    mq_slice_report_free(&report);
    mq_context_free(context);
    return status;
}

mq_status cmd_slice(int count, char *const *argv) {
    const char *formats[FORMATS_SIZE + 1] = {NULL};
    for (size_t i = 0; i < FORMATS_SIZE && mq_format_at(i); i++) {
        formats[i] = mq_format_at(i)->name;
    }
    mq_slice_options options = mq_slice_defaults();
    cli_common common = {0};
    cli_layer_bits layer_bits = {.count = 0};
    size_t bits = 0;
    bool has_format = false;
    const cli_argument arguments[] = {{"MASTER", "master checkpoint", &options.master},
                                      {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 'o', "output", &options.output, "OUT", "the slice to make", .required = true},
        {CLI_COUNT, 0, "bits", &bits, "R", "the width of the slice, 2 to 8", .min = 2, .max = 8,
         .required = true, .hide_default = true},
        CLI_LAYER_BITS_OPTION(layer_bits),
        {CLI_CHOICE, 0, "format", &options.format, "NAME",
         "the format to write, see below (default: gguf if OUT ends in .gguf (upper or lower "
         "case), otherwise mlx)",
         .choices = formats, .hide_default = true, .given = &has_format},
        {CLI_CHOICE, 0, "dtype", &options.dtype, "TYPE",
         "element type of plain weights, bf16, f16 or f32: for --format mlx, gptq and "
         "compressed-tensors that of what is not quantized (default: as in the source), for "
         "safetensors that of everything (default: that of the source's embeddings), for gguf that "
         "of all matrices, in place of its quantized types",
         .min = MQ_SLICE_DTYPE_BF16, .choices = mq_slice_dtype_names() + MQ_SLICE_DTYPE_BF16,
         .hide_default = true},
        {CLI_FLAG, 0, "plain-embeddings", &options.plain_embeddings,
         .help =
             "for compressed-tensors and gptq: store embeddings and head dequantized, for readers "
             "that cannot load packed ones"},
        {CLI_FLAG, 0, "force", &options.force, .help = "replace the output if it exists"},
        CLI_SHARD_OPTION(options.max_shard_size),
        CLI_THREADS_OPTION(common),
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {.name = "slice",
                                 .description =
                                     "Cuts the model of one width out of a master checkpoint, in a "
                                     "format that other programs load. Needs neither "
                                     "the original model nor calibration data.",
                                 .arguments = arguments,
                                 .options = specs,
                                 .epilogue = print_formats};
    mq_status status;
    if (!cli_read_line(&status, &command, count, argv)) {
        return status;
    }
    options.width = (unsigned)bits;
    options.layer_bits = layer_bits.items;
    options.layer_bits_count = layer_bits.count;
    if (!has_format) {
        options.format = mq_slice_format_of(options.output);
    }
    return slice(&options, &common);
}
