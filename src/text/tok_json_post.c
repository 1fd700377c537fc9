/* Loading "post_processor" and "decoder". */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "text/tok_internal.h"

/* --- templates -------------------------------------------------------------------------------- */

typedef struct id_list {
    int32_t *ids; /* mq_free */
    size_t count;
} id_list;

static mq_status append_id(id_list *list, int32_t id, mq_error *err) {
    int32_t *ids = mq_realloc(list->ids, list->count + 1, sizeof *ids);
    if (!ids) {
        return mq_fail_memory(err, "the template", (list->count + 1) * sizeof *ids);
    }
    list->ids = ids;
    list->ids[list->count++] = id;
    return MQ_OK;
}

static mq_status append_list(id_list *list, const int32_t *ids, size_t count, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < count && !status; i++) {
        status = append_id(list, ids[i], err);
    }
    return status;
}

/* The ids that special_tokens gives for a name. */
static mq_status append_special(mq_tok_loader *loader, id_list *list, const cJSON *specials,
                                const char *name, const char *where) {
    const cJSON *entry = NULL, *ids = NULL;
    mq_status status = mq_tok_member(&entry, loader, specials, where, name);
    status = status ? status : mq_tok_member(&ids, loader, entry, where, "ids");
    if (!status && (!cJSON_IsArray(ids) || !ids->child)) {
        status = mq_tok_refuse(loader, where, "special_tokens gives no ids for \"%.64s\"", name);
    }
    if (status) {
        return status;
    }
    for (const cJSON *item = ids->child; item && !status; item = item->next) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id < (double)loader->tokenizer->vocab_size) || floor(id) != id) {
            return mq_tok_refuse(loader, where, "the id of \"%.64s\" is not one of the vocabulary",
                                 name);
        }
        status = append_id(list, (int32_t)id, loader->err);
    }
    return status;
}

static mq_status load_template_items(mq_tok_loader *loader, const cJSON *single,
                                     const cJSON *specials, const char *where, id_list *before,
                                     id_list *after) {
    bool seen = false;
    mq_status status = MQ_OK;
    for (const cJSON *item = single->child; item && !status; item = item->next) {
        const cJSON *special = NULL, *sequence = NULL;
        const char *name = NULL;
        status = mq_tok_member(&special, loader, item, where, "SpecialToken");
        status = status ? status : mq_tok_member(&sequence, loader, item, where, "Sequence");
        if (status) {
            break;
        }
        if (special) {
            status = mq_tok_string(&name, loader, special, where, "id");
            status = status ? status
                            : append_special(loader, seen ? after : before, specials, name, where);
            continue;
        }
        status = sequence
                     ? mq_tok_string(&name, loader, sequence, where, "id")
                     : mq_tok_refuse(loader, where, "\"single\" has an item that is not known");
        if (!status && (seen || strcmp(name, "A") != 0)) {
            status = mq_tok_refuse(loader, where, "\"single\" has another sequence than A, once");
        }
        seen = true;
    }
    return !status && !seen ? mq_tok_refuse(loader, where, "\"single\" has no sequence A") : status;
}

/* A later template wraps what an earlier one made. */
static mq_status load_template(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "single", "pair", "special_tokens", NULL};
    mq_tokenizer *t = loader->tokenizer;
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(value, "single");
    const cJSON *specials = cJSON_GetObjectItemCaseSensitive(value, "special_tokens");
    id_list before = {0}, after = {0};
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    if (!status && !cJSON_IsArray(single)) {
        status = mq_tok_refuse(loader, where, "\"single\" is not a list");
    }
    status = status ? status : append_list(&after, t->after, t->after_count, loader->err);
    status =
        status ? status : load_template_items(loader, single, specials, where, &before, &after);
    status = status ? status : append_list(&before, t->before, t->before_count, loader->err);
    if (status) {
        mq_free(before.ids);
        mq_free(after.ids);
        return status;
    }
    mq_free(t->before);
    mq_free(t->after);
    t->before = before.ids;
    t->before_count = before.count;
    t->after = after.ids;
    t->after_count = after.count;
    return MQ_OK;
}

mq_status mq_tok_load_post_processor(mq_tok_loader *loader, const cJSON *value, const char *where) {
    if (!value || cJSON_IsNull(value)) {
        return MQ_OK;
    }
    const char *type = NULL;
    mq_status status = mq_tok_type(&type, loader, value, where);
    if (status || strcmp(type, "ByteLevel") == 0) {
        return status; /* ByteLevel trims offsets, which are not kept here */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return load_template(loader, value, where);
    }
    if (strcmp(type, "Sequence") == 0) {
        return mq_tok_load_list(loader, value, where, "processors", mq_tok_load_post_processor);
    }
    return mq_tok_refuse(
        loader, where,
        "the type \"%.64s\" is not supported (known: Sequence, TemplateProcessing, ByteLevel)",
        type);
}

/* --- decoders --------------------------------------------------------------------------------- */

static mq_status load_replace(mq_tok_loader *loader, mq_decoder *decoder, const cJSON *value,
                              const char *where) {
    static const char *const known[] = {"type", "pattern", "content", NULL};
    const char *content = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_string(&content, loader, value, where, "content");
    status = status ? status : mq_tok_pattern(&decoder->pattern, loader, value, where);
    return status ? status
                  : mq_tok_copy(&decoder->content, &decoder->content_size, loader, content);
}

static mq_status load_strip(mq_tok_loader *loader, mq_decoder *decoder, const cJSON *value,
                            const char *where) {
    static const char *const known[] = {"type", "content", "start", "stop", NULL};
    const char *content = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_char(&content, loader, value, where, "content");
    status =
        status ? status : mq_tok_copy(&decoder->content, &decoder->content_size, loader, content);
    status = status ? status : mq_tok_size(&decoder->start, loader, value, where, "start");
    return status ? status : mq_tok_size(&decoder->stop, loader, value, where, "stop");
}

static mq_status load_metaspace(mq_tok_loader *loader, mq_decoder *decoder, const cJSON *value,
                                const char *where) {
    static const char *const known[] = {
        "type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep", NULL};
    const char *scheme = NULL, *replacement = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_char(&replacement, loader, value, where, "replacement");
    status = status ? status
                    : mq_tok_copy(&decoder->content, &decoder->content_size, loader, replacement);
    status = status ? status : mq_tok_scheme(&scheme, loader, value, where);
    decoder->drop_first_space = !status && strcmp(scheme, "never") != 0;
    return status;
}

static mq_status load_one_decoder(mq_tok_loader *loader, mq_decoder *decoder, const char *type,
                                  const cJSON *value, const char *where) {
    if (strcmp(type, "ByteLevel") == 0) {
        decoder->kind = MQ_DECODE_BYTE_LEVEL;
        return MQ_OK;
    }
    if (strcmp(type, "ByteFallback") == 0) {
        decoder->kind = MQ_DECODE_BYTE_FALLBACK;
        return MQ_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        decoder->kind = MQ_DECODE_FUSE;
        return MQ_OK;
    }
    if (strcmp(type, "Replace") == 0) {
        decoder->kind = MQ_DECODE_REPLACE;
        return load_replace(loader, decoder, value, where);
    }
    if (strcmp(type, "Strip") == 0) {
        decoder->kind = MQ_DECODE_STRIP;
        return load_strip(loader, decoder, value, where);
    }
    if (strcmp(type, "Metaspace") == 0) {
        decoder->kind = MQ_DECODE_METASPACE;
        return load_metaspace(loader, decoder, value, where);
    }
    return mq_tok_refuse(
        loader, where,
        "the type \"%.64s\" is not supported (known: Sequence, ByteLevel, Replace, ByteFallback, "
        "Fuse, Strip, Metaspace)",
        type);
}

mq_status mq_tok_load_decoder(mq_tok_loader *loader, const cJSON *value, const char *where) {
    mq_tokenizer *t = loader->tokenizer;
    if (!value || cJSON_IsNull(value)) {
        return MQ_OK;
    }
    const char *type = NULL;
    mq_status status = mq_tok_type(&type, loader, value, where);
    if (status) {
        return status;
    }
    if (strcmp(type, "Sequence") == 0) {
        return mq_tok_load_list(loader, value, where, "decoders", mq_tok_load_decoder);
    }
    if (t->decoder_count == MQ_MAX_STEPS) {
        return mq_tok_refuse(loader, where, "more than %d decoders", MQ_MAX_STEPS);
    }
    return load_one_decoder(loader, &t->decoders[t->decoder_count++], type, value, where);
}
