/* Sources that can be quantized, but are hardly what was meant. */
#include <string.h>

#include "job/job.h"
#include "store/folder.h"

/* --- files ------------------------------------------------------------------------------------ */

/* What is said of a source where a file (or folder) is there, or is missing. The text goes on from
 * the source's path. */
typedef struct file_warning {
    const char *name;
    bool there;
    const char *text;
} file_warning;

static const file_warning file_warnings[] = {
    {"tokenizer.json", false,
     " has no tokenizer.json: eval will take no text but token ids (.npy) with the master, and it "
     "has no slices in GGUF"},
    {MQ_PROVENANCE_FILE, true,
     " is a slice (it has a " MQ_PROVENANCE_FILE "): weights that were rounded once are rounded "
     "again"},
    /* Where transformers 5 saves a tokenizer's chat templates apart from the default one. */
    {"additional_chat_templates", true,
     "/additional_chat_templates is not copied: the master is without the chat templates in it"},
    {MQ_ADAPTER_FILE, true,
     " has an adapter (" MQ_ADAPTER_FILE "), which is not applied: merge it into the weights "
     "first, unless they have it already"},
};

static mq_status warn_of_file(const mq_quantize_plan *plan, const file_warning *warning,
                              mq_error *err) {
    const char *folder = plan->options->model;
    char *path = mq_path_join(folder, warning->name);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    if (mq_path_exists(path) == warning->there) {
        mq_log(plan->context, MQ_LOG_WARNING, "%s%s", folder, warning->text);
    }
    mq_free(path);
    return MQ_OK;
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* Rotary frequencies, which old checkpoints of Llama store and nobody reads, are no loss. */
static bool is_foreign(const mq_quantize_plan *plan, const char *name) {
    return !mq_config_has_tensor(&plan->model->config, name) &&
           !mq_config_is_of_other_part(&plan->model->config, name) &&
           !mq_ends_with(name, ".rotary_emb.inv_freq");
}

static bool is_of_adapter(const char *name) {
    return strstr(name, "lora_A") != NULL || strstr(name, "lora_B") != NULL ||
           strstr(name, "base_layer") != NULL;
}

static void warn_of_foreign_tensors(const mq_quantize_plan *plan) {
    enum { NAMED = 3 };
    const char *names[NAMED] = {"", "", ""};
    size_t count = 0;
    bool adapter = false;
    for (size_t i = 0; i < mq_tensors_count(plan->source); i++) {
        const char *name = mq_tensors_at(plan->source, i)->name;
        if (is_foreign(plan, name)) {
            if (count < NAMED) {
                names[count] = name;
            }
            count++;
            adapter = adapter || is_of_adapter(name);
        }
    }
    if (count > 0) {
        mq_log(plan->context, MQ_LOG_WARNING,
               "%s: %zu %s not part of %s, copied as %s (slices in MLX and GGUF leave %s out): "
               "%.150s%s%.150s%s%.150s%s%s",
               plan->options->model, count, count > 1 ? "tensors are" : "tensor is",
               plan->model->config.arch->architecture, count > 1 ? "they are" : "it is",
               count > 1 ? "them" : "it", names[0], count > 1 ? ", " : "", names[1],
               count > 2 ? ", " : "", names[2], count > NAMED ? ", ..." : "",
               adapter ? "; lora_A, lora_B and base_layer are names of an adapter that was not "
                         "merged: merge it into the weights first"
                       : "");
    }
}

mq_status mq_quantize_warn_of_source(const mq_quantize_plan *plan, mq_error *err) {
    mq_status status = MQ_OK;
    warn_of_foreign_tensors(plan);
    for (size_t i = 0; status == MQ_OK && i < sizeof file_warnings / sizeof *file_warnings; i++) {
        status = warn_of_file(plan, &file_warnings[i], err);
    }
    return status;
}
