#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "export/export.h"
#include "matquant/inspect.h"
#include "store/folder.h"

/* The first is what `slice` writes unless --format says otherwise. */
static const mq_export_format *const formats[] = {&mq_export_mlx, &mq_export_matquant};
enum { FORMATS = sizeof formats / sizeof *formats };

const mq_format_info *mq_format_at(size_t index) {
    return index < FORMATS ? &formats[index]->info : NULL;
}

static mq_status find_format(const mq_export_format **out, const char *name, mq_error *err) {
    char known[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < FORMATS; i++) {
        if (name == NULL || strcmp(name, formats[i]->info.name) == 0) {
            *out = formats[i];
            return MQ_OK;
        }
        int length = snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ",
                              formats[i]->info.name);
        used += length > 0 ? (size_t)length : 0;
    }
    return mq_fail(err, MQ_ERR_USAGE, "no format is called \"%s\"; known are %s", name, known);
}

static mq_status check_options(const mq_export_format **format, const mq_slice_options *options,
                               mq_error *err) {
    if (options->width < MQ_MIN_WIDTH || options->width > MQ_MAX_WIDTH) {
        return mq_fail(err, MQ_ERR_USAGE, "a slice has %d to %d bits, not %u", MQ_MIN_WIDTH,
                       MQ_MAX_WIDTH, options->width);
    }
    mq_status status = find_format(format, options->format, err);
    if (status != MQ_OK) {
        return status;
    }
    if (mq_same_file(options->master, options->output)) {
        return mq_fail_file(err, MQ_ERR_USAGE, options->output,
                            "is the master itself; name another output folder");
    }
    int kind = MQ_KIND_PLAIN;
    status = mq_folder_kind(&kind, options->master, err);
    if (status == MQ_OK && kind != MQ_KIND_MASTER) {
        status = mq_fail_file(err, MQ_ERR_INPUT, options->master, "is %s, not a master checkpoint",
                              kind == MQ_KIND_SLICE ? "a slice already" : "not quantized");
    }
    return status;
}

static mq_status check_disk(const char *output, size_t bytes, mq_error *err) {
    size_t available = 0;
    mq_status status = mq_disk_free(&available, output, err);
    if (status == MQ_OK && available < bytes) {
        status = mq_fail_file(err, MQ_ERR_MACHINE, output, "needs %zu bytes, the disk has %zu",
                              bytes, available);
    }
    return status;
}

/* All files of a folder together. */
static mq_status folder_size(size_t *out, const char *folder, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_folder(&names, &count, folder, err);
    *out = 0;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        size_t size = 0;
        char *path = mq_path_join(folder, names[i]);
        status = path == NULL ? mq_fail_memory(err, "a path", strlen(folder))
                              : mq_file_size(&size, path, err);
        *out += size;
        mq_free(path);
    }
    mq_free_list(names, count);
    return status;
}

static mq_status write_output(mq_slice_report *report, const mq_export_format *format,
                              mq_export_job *job, const mq_slice_options *options, mq_error *err) {
    mq_status status = mq_output_begin(&job->output, options->output, options->force, err);
    if (status != MQ_OK) {
        return status;
    }
    status = format->write(job, report, err);
    if (status == MQ_OK) {
        status = folder_size(&report->bytes_written, mq_output_folder(job->output), err);
    }
    if (status == MQ_OK) {
        status = mq_check_interrupt(job->context, err);
    }
    if (status == MQ_OK) {
        status = mq_output_commit(job->output, err);
    }
    mq_output_discard(job->output);
    return status;
}

mq_status mq_slice(mq_slice_report *report, const mq_slice_options *options,
                   const mq_context *context, mq_error *err) {
    double start = mq_seconds();
    *report = (mq_slice_report){0};
    const mq_export_format *format = NULL;
    mq_status status = check_options(&format, options, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_master *master = NULL;
    status = mq_master_open(&master, options->master, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_export_job job = {.master = master,
                         .folder = options->master,
                         .width = options->width,
                         .max_shard_size = options->max_shard_size,
                         .context = context};
    size_t bytes = 0;
    status = format->check(&bytes, &job, err);
    if (status == MQ_OK) {
        status = check_disk(options->output, bytes, err);
    }
    if (status == MQ_OK) {
        status = write_output(report, format, &job, options, err);
    }
    mq_master_close(master);
    report->seconds = mq_seconds() - start;
    return status;
}
