/* A state before the first block: whether it can be used, and what it holds. */
#include <stdio.h>
#include <string.h>

#include "base/keep.h"
#include "job/state_file.h"
#include "matquant/names.h"

/* Beside what its specification and name take: a tensor's entry in the lists of whoever writes or
 * reads the file, its name there, and its part of the header. */
#define BYTES_PER_TENSOR 1024
#define BYTES_PER_FILE 8192
/* What a tensor takes in the header, its name apart. */
#define DESCRIPTION 128

/* Neither can be in the other: the output appears whole, in the place of what was there, and what a
 * killed run leaves beside it would be foreign to the state. */
static mq_status check_place(const char *state, const char *output, mq_error *err) {
    char *around_state = mq_path_parent(state), *around_output = mq_path_parent(output);
    mq_status status = MQ_OK;
    if (around_state == NULL || around_output == NULL) {
        status = mq_fail_memory(err, "a path", strlen(state));
    }
    const struct {
        const char *state, *output, *why;
    } pairs[] = {{state, output, "--state and the output are the same folder"},
                 {around_state, output, "--state is inside the output"},
                 {state, around_output, "the output is inside the folder of --state"}};
    for (size_t i = 0; status == MQ_OK && i < sizeof pairs / sizeof *pairs; i++) {
        bool same = false;
        status = mq_same_place(&same, pairs[i].state, pairs[i].output, err);
        if (status == MQ_OK && same) {
            status = mq_fail_file(err, MQ_ERR_USAGE, state, "%s", pairs[i].why);
        }
    }
    mq_free(around_state);
    mq_free(around_output);
    return status;
}

mq_status mq_state_check_folder(const mq_quantize_options *options, mq_error *err) {
    if (options->state == NULL) {
        return MQ_OK;
    }
    mq_status status = check_place(options->state, options->output, err);
    if (status == MQ_OK) {
        status = mq_keep_check(options->state, mq_state_knows, err);
    }
    if (status == MQ_OK && mq_path_exists(options->state)) {
        cJSON *job = NULL;
        status = mq_state_read_job(&job, options->state, err);
        cJSON_Delete(job);
    }
    return status;
}

static bool is_there(const char *folder, const char *name, bool *no_memory) {
    char *path = mq_path_join(folder, name);
    const bool there = path != NULL && mq_path_exists(path);
    *no_memory = *no_memory || path == NULL;
    mq_free(path);
    return there;
}

static void survey_file(mq_quantize_kept *kept, const mq_quantize_plan *plan, size_t layer,
                        unsigned width, bool there) {
    mq_state_listing l = {0};
    mq_state_list(&l, plan, layer, width);
    const size_t each = sizeof *l.specs + sizeof *l.names + BYTES_PER_TENSOR;
    const size_t memory = l.count * each + BYTES_PER_FILE;
    kept->memory = memory > kept->memory ? memory : kept->memory;
    if (!there) {
        kept->bytes += l.bytes + l.count * (sizeof *l.names + DESCRIPTION);
    }
}

static mq_status survey(mq_quantize_kept *kept, const mq_quantize_plan *plan, mq_error *err) {
    const char *folder = plan->options->state;
    const mq_status status = mq_new(&kept->block, plan->selection.blocks, sizeof *kept->block,
                                    "the list of finished blocks", err);
    if (status != MQ_OK) {
        return status;
    }
    char name[MQ_STATE_NAME_SIZE];
    bool no_memory = false;
    for (size_t layer = 0; layer < plan->selection.blocks; layer++) {
        kept->block[layer] = is_there(folder, mq_state_block_name(name, layer), &no_memory);
        kept->block_count += kept->block[layer] ? 1 : 0;
        survey_file(kept, plan, layer, 0, kept->block[layer]);
    }
    for (size_t i = 0; i < plan->refit_width_count; i++) {
        const unsigned width = plan->refit_widths[i];
        kept->width[width] = is_there(folder, mq_state_width_name(name, width), &no_memory);
        kept->width_count += kept->width[width] ? 1 : 0;
        survey_file(kept, plan, 0, width, kept->width[width]);
    }
    kept->text = is_there(folder, MQ_STATE_TEXT, &no_memory);
    return no_memory ? mq_fail_memory(err, "a path", strlen(folder)) : MQ_OK;
}

mq_status mq_state_survey(mq_quantize_plan *plan, mq_error *err) {
    return plan->options->state != NULL ? survey(&plan->kept, plan, err) : MQ_OK;
}

mq_status mq_state_survey_again(const mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_kept *then = &plan->kept;
    mq_quantize_kept now = {.block = NULL};
    mq_status status = survey(&now, plan, err);
    if (status == MQ_OK &&
        (memcmp(now.block, then->block, plan->selection.blocks * sizeof *now.block) != 0 ||
         memcmp(now.width, then->width, sizeof now.width) != 0 || now.text != then->text)) {
        status = mq_state_fail_changed(plan->options->state, err);
    }
    mq_free(now.block);
    return status;
}

mq_status mq_state_backend(mq_gemm_choice *gemm, const mq_quantize_options *options,
                           mq_error *err) {
    *gemm = options->gemm;
    if (options->state == NULL || options->gemm != MQ_GEMM_AUTO) {
        return MQ_OK;
    }
    cJSON *job = NULL;
    const mq_status status = mq_state_read_job(&job, options->state, err);
    const char *name = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(job, "gemm"), "backend"));
    unsigned made = MQ_GEMM_AUTO;
    if (name != NULL && mq_name_find(&made, mq_gemm_names(), name) &&
        (made != MQ_GEMM_ONEDNN_BF16 || mq_gemm_bf16_usable())) {
        *gemm = (mq_gemm_choice)made;
    }
    cJSON_Delete(job);
    return status;
}

mq_status mq_state_check_job(mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_options *options = plan->options;
    if (options->state == NULL) {
        return MQ_OK;
    }
    cJSON *there = NULL, *here = NULL;
    mq_status status = mq_state_read_job(&there, options->state, err);
    if (status == MQ_OK && there != NULL) {
        status = mq_quantize_digests(plan, err);
        if (status == MQ_OK) {
            status = mq_quantize_job(&here, plan, err);
        }
        if (status == MQ_OK) {
            status = mq_state_compare_jobs(there, here, plan->calibration.ids != NULL,
                                           options->state, err);
        }
    } else if (status == MQ_OK &&
               (plan->kept.text || plan->kept.block_count + plan->kept.width_count > 0)) {
        status = mq_fail_file(err, MQ_ERR_USAGE, options->state,
                              "has no " MQ_STATE_JOB ", which would say whose state it is; remove "
                              "the folder or name another");
    }
    cJSON_Delete(here);
    cJSON_Delete(there);
    return status;
}

mq_status mq_state_take_text(bool *taken, mq_quantize_plan *plan, mq_error *err) {
    const char *folder = plan->options->state;
    bool no_memory = false;
    *taken = folder != NULL && is_there(folder, MQ_STATE_TEXT, &no_memory);
    if (no_memory) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    plan->kept.text = *taken; /* that it has come since the survey is no harm: it is taken */
    if (!*taken) {
        plan->kept.bytes += folder != NULL ? plan->calibration.count * plan->calibration.length *
                                                     sizeof *plan->calibration.ids +
                                                 DESCRIPTION
                                           : 0;
        return MQ_OK;
    }
    mq_tensors *file = NULL;
    const mq_status status = mq_state_open_text(&file, plan, err);
    if (status == MQ_OK) {
        const mq_tensor_info *info = mq_tensors_find(file, mq_state_text_spec(plan).name);
        memcpy(plan->calibration.ids, info->data, info->bytes);
    }
    mq_tensors_close(file);
    return status;
}

mq_status mq_state_check_files(const mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_kept *kept = &plan->kept;
    mq_status status = MQ_OK;
    for (size_t layer = 0; kept->block_count > 0 && layer < plan->selection.blocks; layer++) {
        mq_tensors *file = NULL;
        if (status == MQ_OK && kept->block[layer]) {
            status = mq_state_open_file(&file, plan, layer, 0, err);
        }
        mq_tensors_close(file);
    }
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        mq_tensors *file = NULL;
        if (status == MQ_OK && kept->width[width]) {
            status = mq_state_open_file(&file, plan, 0, width, err);
        }
        mq_tensors_close(file);
    }
    return status;
}
