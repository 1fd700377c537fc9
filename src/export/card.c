/* The model card: what README.md of a slice says to whoever finds the folder. Nothing stands in it
 * that the master's files do not say, nor where the folder lies: the same slice has the same bytes.
 */
#include <string.h>

#include "base/buffer.h"
#include "export/export.h"
#include "matquant/names.h"

static const char *text_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* Text between backticks, on one line: what would end either is left out of it. */
static void put_code(mq_buffer *card, const char *text) {
    mq_buffer_put_text(card, "`");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c != '`' && (unsigned char)*c >= 0x20) {
            const char one[2] = {*c, '\0'};
            mq_buffer_put_text(card, one);
        }
    }
    mq_buffer_put_text(card, "`");
}

/* "FILE (SHA-256 ...)", one a line of a list. */
static void put_files(mq_buffer *card, const cJSON *files) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, files) {
        const char *file = text_of(item, "file"), *digest = text_of(item, "sha256");
        if (file != NULL && digest != NULL) {
            mq_buffer_put_text(card, "  - ");
            put_code(card, file);
            mq_buffer_put_text(card, ", SHA-256 ");
            put_code(card, digest);
            mq_buffer_put_text(card, "\n");
        }
    }
}

static void put_source(mq_buffer *card, const mq_plan *plan, const cJSON *slice) {
    const char *name = text_of(mq_master_config(plan->job->master), "_name_or_path");
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(slice, "source");
    char *last = name == NULL ? NULL : mq_path_name(name);
    card->failed = card->failed || (name != NULL && last == NULL);
    const bool has_name = last != NULL && last[0] != '\0', has_files = cJSON_IsArray(files);
    mq_buffer_put_text(card, "- architecture: ");
    mq_buffer_put_text(card, plan->job->config->arch->architecture);
    mq_buffer_put_text(card, has_name || has_files ? ", quantized from" : "");
    if (has_name) {
        mq_buffer_put_text(card, " ");
        put_code(card, last);
    }
    mq_free(last);
    mq_buffer_put_text(card, has_files ? ":\n" : "\n");
    put_files(card, files);
}

static const cJSON *number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item : NULL;
}

/* Of layers whose rows groups of that size do not divide. */
static void put_fallback(mq_buffer *card, const cJSON *fallback) {
    if (fallback != NULL && fallback->valuedouble > 0) {
        mq_buffer_printf(card, " (of %.0f where those divide no row)", fallback->valuedouble);
    } else if (fallback != NULL) {
        mq_buffer_put_text(card, " (a row where those divide none)");
    }
}

/* What of the recipe changes how good the slice is. */
static void put_settings(mq_buffer *card, const cJSON *recipe, const cJSON *refit) {
    const cJSON *group_size = number_of(recipe, "group_size");
    const char *preset = text_of(recipe, "preset"), *zero_point = text_of(recipe, "zero_point");
    if (group_size != NULL && group_size->valuedouble > 0) {
        mq_buffer_printf(card, ", groups of %.0f", group_size->valuedouble);
        put_fallback(card, number_of(recipe, "group_fallback"));
    } else if (group_size != NULL) {
        mq_buffer_put_text(card, ", one group a row");
    }
    if (preset != NULL) {
        mq_buffer_put_text(card, ", preset ");
        put_code(card, preset);
    }
    if (zero_point != NULL &&
        strcmp(zero_point, mq_name_at(mq_zero_point_names(), MQ_ZERO_SYMMETRIC)) == 0) {
        mq_buffer_put_text(card, ", symmetric zero points");
    }
    const cJSON *tokens = number_of(refit, "trained_tokens");
    const cJSON *kept = number_of(refit, "kept_epoch"); /* 0: what it made was not better */
    if (tokens != NULL && kept != NULL && kept->valuedouble > 0) {
        mq_buffer_printf(card, ", refitted end to end on %.0f tokens", tokens->valuedouble);
    }
}

/* ", trained widths 8, 4, 2"; nothing if there are none. */
static void put_trained(mq_buffer *card, const cJSON *recipe) {
    const cJSON *bits = cJSON_GetObjectItemCaseSensitive(recipe, "bits"), *item = NULL;
    const char *before = ", trained widths ";
    cJSON_ArrayForEach(item, bits) {
        if (cJSON_IsNumber(item) && mq_provenance_recipe_trained(recipe, item->valuedouble)) {
            mq_buffer_printf(card, "%s%g", before, item->valuedouble);
            before = ", ";
        }
    }
}

static void put_making(mq_buffer *card, const cJSON *slice) {
    const cJSON *recipe = cJSON_GetObjectItemCaseSensitive(slice, "recipe");
    const char *name = text_of(recipe, "name"), *master = text_of(slice, "master");
    mq_buffer_put_text(card, "- cut out of the master checkpoint ");
    put_code(card, master == NULL ? "" : master);
    if (name != NULL) {
        mq_buffer_put_text(card, ", recipe ");
        put_code(card, name);
        put_trained(card, recipe);
        put_settings(card, recipe, cJSON_GetObjectItemCaseSensitive(slice, "refit"));
    }
    mq_buffer_put_text(card, "\n");
    const cJSON *calibration = cJSON_GetObjectItemCaseSensitive(slice, "calibration");
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(calibration, "tokens");
    if (cJSON_IsNumber(tokens)) {
        mq_buffer_printf(card, "- calibrated on %.0f tokens%s\n", tokens->valuedouble,
                         cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(calibration, "self"))
                             ? " that the model wrote itself"
                             : " of");
        put_files(card, cJSON_GetObjectItemCaseSensitive(calibration, "files"));
    }
    const cJSON *written = cJSON_GetObjectItemCaseSensitive(calibration, "written_tokens");
    if (cJSON_IsNumber(written)) {
        mq_buffer_printf(card,
                         "- of the text for training end to end %.0f tokens are the model's own, "
                         "which went on from pieces of that\n",
                         written->valuedouble);
    }
}

/* How the slice has other numbers than the master's: it has none, has them in the element type that
 * --dtype names, or as the format can hold them. */
typedef enum rounding { NOT_ROUNDED, ROUNDED_TO_DTYPE, ROUNDED_BY_FORMAT } rounding;

/* Of what is quantized in the master, or of all; before anything is written, how it may have. */
static rounding rounding_of(const mq_plan *plan, bool quantized) {
    rounding found = NOT_ROUNDED;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        const bool differs = plan->job->output == NULL ? piece->is_inexact : piece->error > 0;
        if (differs && (piece->linear != NULL || !quantized)) {
            /* With --dtype, a piece of plain numbers is of that type, in GGUF as well. */
            const bool is_plain = plan->job->options->dtype != MQ_SLICE_DTYPE_SOURCE &&
                                  mq_dtype_is_weight(piece->spec.dtype);
            const rounding how = is_plain ? ROUNDED_TO_DTYPE : ROUNDED_BY_FORMAT;
            found = how > found ? how : found;
        }
    }
    return found;
}

static const char *dtype_name(const mq_plan *plan) {
    return mq_name_at(mq_slice_dtype_names(), plan->job->options->dtype);
}

/* One measurement of the master at this width (matquant/format.h); what is not whole is left out.
 */
static void put_evaluation(mq_buffer *card, const cJSON *item, const mq_plan *plan) {
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(item, "text");
    const cJSON *reference = cJSON_GetObjectItemCaseSensitive(item, "reference");
    const char *file = text_of(text, "file"), *digest = text_of(text, "sha256");
    const cJSON *perplexity = number_of(item, "perplexity"), *kl = number_of(item, "kl");
    const cJSON *windows = number_of(item, "windows"), *length = number_of(item, "seq_len");
    if (file == NULL || digest == NULL || perplexity == NULL || windows == NULL || length == NULL) {
        return;
    }
    mq_buffer_printf(card, "- perplexity %.4f on ", perplexity->valuedouble);
    put_code(card, file);
    mq_buffer_printf(card, " (%.0f windows of %.0f tokens%s; SHA-256 ", windows->valuedouble,
                     length->valuedouble,
                     cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "bos_added"))
                         ? ", each begun with the beginning-of-sequence token"
                         : "");
    put_code(card, digest);
    mq_buffer_put_text(card, ")");
    const cJSON *full = number_of(reference, "perplexity");
    if (full != NULL && kl != NULL) {
        mq_buffer_printf(
            card, "; KL divergence from the reference %.4g nats a token, whose perplexity is %.4f",
            kl->valuedouble, full->valuedouble);
    }
    mq_buffer_put_text(card, ", measured by `matquant eval`");
    const rounding how = rounding_of(plan, false);
    mq_buffer_put_text(card, how == ROUNDED_TO_DTYPE ? " before rounding to " : "");
    mq_buffer_put_text(card, how == ROUNDED_TO_DTYPE ? dtype_name(plan) : "");
    mq_buffer_put_text(card, how == ROUNDED_BY_FORMAT ? " before this format's rounding\n" : "\n");
}

static void put_format(mq_buffer *card, const mq_plan *plan) {
    mq_buffer_printf(card, "- %.3f bits a quantized weight, scales and zero points counted\n",
                     mq_plan_bits_per_weight(plan));
    const rounding how = rounding_of(plan, true);
    if (how == ROUNDED_TO_DTYPE) {
        mq_buffer_printf(card, "- the slice's numbers are rounded (--dtype %s)", dtype_name(plan));
    } else if (how == ROUNDED_BY_FORMAT) {
        mq_buffer_put_text(card, "- this format cannot hold the slice's numbers exactly");
    }
    if (how != NOT_ROUNDED && plan->job->output != NULL) {
        mq_buffer_printf(card, ": relative squared error of the quantized weights %.3g",
                         mq_plan_relative_error(plan));
    }
    mq_buffer_put_text(card, how != NOT_ROUNDED ? "\n" : "");
}

/* The title, and how the first sentence begins. */
static void put_title(mq_buffer *card, const mq_plan *plan) {
    const unsigned width = plan->job->width;
    mq_buffer_put_text(card, "# ");
    mq_buffer_put_text(card, plan->job->master_name);
    if (mq_mixture_is_uniform(plan->job->mixture)) {
        mq_buffer_printf(card, ", %u bits\n\nA slice of %u bits", width, width);
        return;
    }
    char layers[128];
    const mq_width_counts counts = mq_mixture_counts(plan->job->mixture, plan->job->config);
    mq_buffer_printf(
        card,
        ", %.2f bits on average\n\nA slice of mixed widths (%s), with norms of %u bits "
        "where a block has several",
        mq_mean_bits(&counts), mq_width_counts_text(layers, sizeof layers, &counts), width);
}

void mq_export_card_text(mq_buffer *card, const mq_plan *plan, const mq_export_format *format,
                         const cJSON *provenance) {
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    put_title(card, plan);
    mq_buffer_printf(card, ", in the format `%s`, made by %s.\n\n", format->info.name,
                     text_of(provenance, "tool"));
    put_source(card, plan, slice);
    put_making(card, slice);
    put_format(card, plan);
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(slice, "evaluations")) {
        put_evaluation(card, item, plan);
    }
    mq_buffer_put_text(card, "\n## Loading it\n\n");
    mq_buffer_put_text(card, format->usage);
    const char *note = format->note == NULL ? NULL : format->note(plan);
    if (note != NULL) {
        mq_buffer_printf(card, "\n%s\n", note);
    }
}

mq_status mq_export_card(const mq_plan *plan, const mq_export_format *format,
                         const cJSON *provenance, mq_error *err) {
    mq_buffer card = {0};
    mq_export_card_header(&card, plan, format, provenance);
    mq_export_card_text(&card, plan, format, provenance);
    mq_status status =
        card.failed ? mq_fail_memory(err, "the model card", card.capacity)
                    : mq_write_file(plan->job->output, "README.md", card.text, card.length, err);
    mq_free(card.text);
    return status;
}
