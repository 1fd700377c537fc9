#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/context.h"
#include "export/export.h"
#include "matquant/inspect.h"
#include "matquant/names.h"
#include "store/folder.h"
#include "store/quantized_weights.h"
#include "store/slice_size.h"
#include "text/shown_name.h"

static const mq_export_format *const formats[] = {
    [MQ_SLICE_FORMAT_MLX] = &mq_export_mlx,
    [MQ_SLICE_FORMAT_GGUF] = &mq_export_gguf,
    [MQ_SLICE_FORMAT_COMPRESSED_TENSORS] = &mq_export_compressed_tensors,
    [MQ_SLICE_FORMAT_GPTQ] = &mq_export_gptq,
    [MQ_SLICE_FORMAT_SAFETENSORS] = &mq_export_safetensors,
    [MQ_SLICE_FORMAT_MATQUANT] = &mq_export_matquant};
enum { FORMATS = sizeof formats / sizeof *formats };

const mq_format_info *mq_format_at(size_t format) {
    return format < FORMATS ? &formats[format]->info : NULL;
}

mq_slice_options mq_slice_defaults(void) {
    return (mq_slice_options){.format = MQ_SLICE_FORMAT_MLX, .dtype = MQ_SLICE_DTYPE_SOURCE};
}

/* Of callers in C: the command line has names for these. */
static mq_status check_enums(const mq_slice_options *options, mq_error *err) {
    if (mq_format_at(options->format) == NULL) {
        return mq_fail(err, MQ_ERR_USAGE, "format is %u, which is none of its values",
                       options->format);
    }
    return mq_name_at(mq_slice_dtype_names(), options->dtype) != NULL
               ? MQ_OK
               : mq_fail(err, MQ_ERR_USAGE, "dtype is %u, which is none of its values",
                         options->dtype);
}

/* Whether a file of the format may have this name, whatever slashes follow it; false: the format is
 * a folder. */
static bool is_file_of(const mq_export_format *format, const char *output) {
    const size_t end = format->suffix == NULL ? 0 : strlen(format->suffix);
    size_t past = strlen(output);
    while (past > 0 && output[past - 1] == '/') {
        past--;
    }
    size_t length = 0; /* of the last name */
    while (length < past && output[past - length - 1] != '/') {
        length++;
    }
    return end > 0 && length > end && strncasecmp(output + past - end, format->suffix, end) == 0;
}

mq_slice_format mq_slice_format_of(const char *output) {
    for (size_t i = 0; i < FORMATS; i++) {
        if (is_file_of(formats[i], output)) {
            return (mq_slice_format)i;
        }
    }
    return mq_slice_defaults().format;
}

/* A format that is one file says so by its name: a folder is expected elsewhere, and nowhere else
 * is one named like a file. */
static mq_status check_name(const mq_export_format *format, const char *output, mq_error *err) {
    if (format->suffix != NULL) {
        return is_file_of(format, output)
                   ? MQ_OK
                   : mq_fail_file(err, MQ_ERR_USAGE, output,
                                  "the format %s is one file; its name must end in %s",
                                  format->info.name, format->suffix);
    }
    for (size_t i = 0; i < FORMATS; i++) {
        if (is_file_of(formats[i], output)) {
            return mq_fail_file(err, MQ_ERR_USAGE, output,
                                "is the name of a file, but the format %s is a folder; give it "
                                "another name, or use --format %s",
                                format->info.name, formats[i]->info.name);
        }
    }
    return MQ_OK;
}

static mq_status check_options(const mq_export_format **format, const mq_slice_options *options,
                               mq_error *err) {
    if (options->master == NULL || options->output == NULL || options->output[0] == '\0') {
        return mq_fail(err, MQ_ERR_USAGE, "a master and an output are needed");
    }
    if (options->width < MQ_MIN_WIDTH || options->width > MQ_MAX_WIDTH) {
        return mq_fail(err, MQ_ERR_USAGE, "a slice has %d to %d bits, not %u", MQ_MIN_WIDTH,
                       MQ_MAX_WIDTH, options->width);
    }
    mq_status status = check_enums(options, err);
    if (status != MQ_OK) {
        return status;
    }
    *format = formats[options->format];
    status = check_name(*format, options->output, err);
    if (status != MQ_OK) {
        return status;
    }
    if (options->plain_embeddings && !(*format)->may_unpack) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--plain-embeddings is for --format compressed-tensors and gptq");
    }
    if (options->dtype != MQ_SLICE_DTYPE_SOURCE && !(*format)->takes_dtype) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--dtype is not for --format %s, which keeps the source's element types",
                       (*format)->info.name);
    }
    if (mq_same_file(options->master, options->output)) {
        return mq_fail_file(err, MQ_ERR_USAGE, options->output,
                            "is the master itself; name another output folder");
    }
    mq_kind kind = MQ_KIND_PLAIN;
    status = mq_folder_kind(&kind, options->master, err);
    if (status == MQ_OK && kind != MQ_KIND_MASTER) {
        status = mq_fail_file_in(
            err, MQ_ERR_INPUT, options->master, MQ_CONFIG_FILE,
            kind == MQ_KIND_SLICE
                ? "is of a slice already; slices are cut from a master checkpoint"
                : "has no quantization_config: the model is not quantized; slices are cut from a "
                  "master checkpoint, which matquant quantize makes");
    }
    return status;
}

/* What killed runs have left there is removed before anything is written. */
static mq_status check_disk(const char *output, size_t bytes, mq_error *err) {
    size_t available = 0;
    mq_status status = mq_disk_free(&available, output, err);
    available = mq_sum_capped(available, mq_output_leftover(output));
    if (status == MQ_OK && available < bytes) {
        status = mq_fail_file(err, MQ_ERR_MACHINE, output, "needs %zu bytes, the disk has %zu",
                              bytes, available);
    }
    return status;
}

static mq_status report_costs(mq_slice_report *report, const mq_plan *plan, mq_error *err) {
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        count += plan->pieces[i].error > 0;
    }
    mq_status status = MQ_OK;
    if (count > 0) {
        status = mq_new(&report->costs, count, sizeof *report->costs, "the report", err);
    }
    for (size_t i = 0; status == MQ_OK && i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        if (piece->error > 0) {
            mq_slice_cost *cost = &report->costs[report->cost_count];
            cost->relative_error = piece->power > 0 ? piece->error / piece->power : INFINITY;
            cost->tensor = mq_strdup(piece->spec.name);
            status = cost->tensor == NULL ? mq_fail_memory(err, "the report", 0) : MQ_OK;
            report->cost_count += cost->tensor != NULL;
        }
    }
    return status;
}

/* Of the weights' squares. SmolLM2's default master, fitted to whole zero points, pays 0.006 at 4
 * bits with a fifth of its perplexity, and 0.09 at 2 with everything (tests/bench/READERS.md); at 8
 * bits, 0.00002 is nothing. */
#define WORTH_A_WARNING 1e-3

static void warn_of_cost(const mq_plan *plan, const mq_export_format *format) {
    const double cost = mq_plan_relative_error(plan);
    if (format->exact_with == NULL && cost > WORTH_A_WARNING) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "%s adds %.2g %% of the weights' squares at %u bits, which may cost much",
               format->info.name, 100.0 * cost, plan->job->width);
    } else if (cost > WORTH_A_WARNING) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "%s adds %.2g %% of the weights' squares at %u bits, which may cost much; a master "
               "made "
               "with %s loses nothing",
               format->info.name, 100.0 * cost, plan->job->width, format->exact_with);
    }
}

/* The last width that is worth having by rounding alone, as a rule. */
#define NARROWEST_ROUNDED 4

/* Narrower than all that the master was trained for, a slice is rarely of use. Of a master that
 * does not say how it was made, nothing can be said. */
static void warn_of_width(const mq_mixture *mixture, const mq_context *context) {
    const mq_master *master = mixture->master;
    const unsigned width = mq_mixture_narrowest(mixture);
    const cJSON *provenance = mq_master_provenance(master);
    unsigned narrowest = MQ_MIN_WIDTH;
    while (narrowest <= MQ_MAX_WIDTH && !mq_provenance_trained(provenance, narrowest)) {
        narrowest++;
    }
    const bool trained = narrowest <= MQ_MAX_WIDTH;
    if (provenance != NULL && width < (trained ? narrowest : NARROWEST_ROUNDED)) {
        mq_log(context, MQ_LOG_WARNING,
               "the master was not trained for %u bits%s; measure them (matquant eval --bits %u) "
               "before you use them",
               width, trained ? ", nor for fewer" : "", width);
    }
}

static mq_status fill_report(mq_slice_report *report, const mq_plan *plan, mq_error *err) {
    report->tensors = plan->count;
    report->bytes_read = plan->bytes_read;
    report->bits_per_weight = mq_plan_bits_per_weight(plan);
    report->widths = mq_mixture_counts(plan->job->mixture, plan->job->config);
    report->relative_error = mq_plan_relative_error(plan);
    return report_costs(report, plan, err);
}

void mq_slice_report_free(mq_slice_report *report) {
    for (size_t i = 0; i < report->cost_count; i++) {
        mq_free(report->costs[i].tensor);
    }
    mq_free(report->costs);
    *report = (mq_slice_report){0};
}

static mq_status write_output(mq_slice_report *report, mq_plan *plan,
                              const mq_export_format *format, mq_export_job *job, mq_error *err) {
    const mq_slice_options *options = job->options;
    mq_status status = format->suffix == NULL
                           ? mq_output_begin(&job->output, options->output, options->force, err)
                           : mq_output_begin_file(&job->output, options->output, format->magic,
                                                  options->force, err);
    if (status != MQ_OK) {
        return status;
    }
    status = format->write(plan, format, err);
    if (status == MQ_OK) {
        status = mq_folder_size(&report->bytes_written, mq_output_folder(job->output), err);
    }
    if (status == MQ_OK) { /* before the output is there: nothing may fail after that */
        status = fill_report(report, plan, err);
    }
    if (status == MQ_OK) {
        warn_of_width(job->mixture, job->context);
        warn_of_cost(plan, format);
        status = mq_check_interrupt(job->context, err);
    }
    if (status == MQ_OK) {
        status = mq_output_commit(job->output, err);
    }
    mq_output_discard(job->output);
    job->output = NULL;
    return status;
}

/* --- all of it -------------------------------------------------------------------------------- */

static mq_status plan_and_write(mq_slice_report *report, const mq_export_format *format,
                                mq_export_job *job, mq_error *err) {
    mq_plan plan;
    mq_plan_begin(&plan, job);
    mq_status status = format->plan(&plan, err);
    if (status == MQ_OK) {
        status = check_disk(job->options->output, plan.bytes, err);
    }
    if (status == MQ_OK) {
        status = write_output(report, &plan, format, job, err);
    }
    mq_plan_free(&plan);
    return status;
}

/* A slice is not made of less than the model that config.json says. */
static mq_status check_model(const mq_config *config, mq_weights *weights, const char *folder,
                             mq_error *err) {
    char *name = mq_strdup(folder);
    if (name == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    const mq_model model = {.config = *config, .weights = weights, .folder = name};
    const mq_status status = mq_model_check(&model, err);
    mq_free(name);
    return status;
}

/* One of the mixture's widths whose slices the format has no room for: they have an extra level.
 * 0: there is none. */
static unsigned width_without_room(const mq_export_format *format, const mq_mixture *mixture) {
    const mq_slice_rule rule = mq_master_slice_rule(mixture->master);
    const size_t count = format->has_extra ? 0 : mq_master_linear_count(mixture->master);
    for (size_t i = 0; i < count; i++) {
        const unsigned width = mixture->layers[i].width;
        if (mq_slice_bits(width, rule) != width) {
            return width;
        }
    }
    return 0;
}

static mq_status check_rule(const mq_export_format *format, const mq_mixture *mixture,
                            mq_error *err) {
    const mq_slice_rule rule = mq_master_slice_rule(mixture->master);
    const unsigned width = width_without_room(format, mixture);
    if (width == 0) {
        return MQ_OK;
    }
    char mlx[32] = "";
    if (mq_mlx_bits(width, rule) != 0) {
        snprintf(mlx, sizeof mlx, "mlx (in %u bits), ", width + 1);
    }
    return mq_fail(err, MQ_ERR_USAGE,
                   "--format %s has no room for the extra level of slice rule round-extra; "
                   "%ssafetensors and matquant hold it",
                   format->info.name, mlx);
}

/* Whether the format may hold layers of different widths. */
static mq_status check_mixture(const mq_export_format *format, const mq_mixture *mixture,
                               mq_error *err) {
    if (format->mixes || mq_mixture_is_uniform(mixture)) {
        return MQ_OK;
    }
    char names[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < FORMATS && used < sizeof names; i++) {
        if (formats[i]->mixes) {
            const int length = snprintf(names + used, sizeof names - used, "%s%s",
                                        used == 0 ? "" : ", ", formats[i]->info.name);
            used += length > 0 ? (size_t)length : 0;
        }
    }
    return mq_fail(err, MQ_ERR_USAGE,
                   "--format %s has one width for all layers; with --layer-bits use one of %s",
                   format->info.name, names);
}

static mq_status make_mixture(mq_mixture *mixture, const mq_export_format *format,
                              const mq_master *master, const mq_slice_options *options,
                              mq_error *err) {
    mq_status status = mq_mixture_make(mixture, master, options->width, options->layer_bits,
                                       options->layer_bits_count, err);
    if (status == MQ_OK) {
        status = check_mixture(format, mixture, err);
    }
    if (status == MQ_OK) {
        status = check_rule(format, mixture, err);
    }
    if (status == MQ_OK && format->choose_widths != NULL) {
        format->choose_widths(mixture, options);
    }
    return status;
}

static mq_status slice_mixture(mq_slice_report *report, const mq_export_format *format,
                               const mq_mixture *mixture, mq_export_job *job, mq_error *err) {
    const mq_master *master = mixture->master;
    mq_weights *weights = NULL;
    mq_config config = {0};
    char *master_name = NULL;
    mq_status status = mq_shown_name(&master_name, job->options->master, err);
    if (status == MQ_OK) {
        status = mq_config_read(&config, job->options->master, err);
    }
    if (status == MQ_OK) {
        mq_config_find_layout(&config, mq_master_tensors(master));
        status = mq_master_weights(&weights, mixture, err);
    }
    if (status == MQ_OK) {
        status = check_model(&config, weights, job->options->master, err);
    }
    if (status == MQ_OK) {
        job->master = master;
        job->mixture = mixture;
        job->weights = weights;
        job->config = &config;
        job->master_name = master_name;
        status = plan_and_write(report, format, job, err);
    }
    mq_weights_free(weights);
    mq_config_free(&config);
    mq_free(master_name);
    return status;
}

mq_status mq_slice_in_blocks(mq_slice_report *report, const mq_slice_options *options,
                             size_t block_bytes, const mq_context *context, mq_error *err) {
    double start = mq_seconds();
    mq_context_use(context);
    *report = (mq_slice_report){0};
    const mq_export_format *format = NULL;
    mq_status status = check_options(&format, options, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_master *master = NULL;
    mq_mixture mixture = {0};
    status = mq_master_open(&master, options->master, err);
    if (status == MQ_OK) {
        status = make_mixture(&mixture, format, master, options, err);
    }
    if (status == MQ_OK) {
        mq_export_job job = {.options = options,
                             .width = options->width,
                             .block_bytes = block_bytes,
                             .context = context};
        status = slice_mixture(report, format, &mixture, &job, err);
    }
    mq_mixture_free(&mixture);
    mq_master_close(master);
    report->seconds = mq_seconds() - start;
    return status;
}

mq_status mq_slice(mq_slice_report *report, const mq_slice_options *options,
                   const mq_context *context, mq_error *err) {
    return mq_slice_in_blocks(report, options, MQ_STREAM_BYTES, context, err);
}
