/* Loading "model" (vocabulary and merges) and "added_tokens". */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/tok_internal.h"
#include "text/tok_json_model.h"

bool mq_tok_is_bpe(const cJSON *model) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(model, "type");
    return !type || (cJSON_IsString(type) && strcmp(type->valuestring, "BPE") == 0);
}

/* The fields that are not the tables. */
static mq_status load_settings(mq_tok_loader *loader, const cJSON *model) {
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges",
                                        NULL};
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    mq_tokenizer *t = loader->tokenizer;
    if (!mq_tok_is_bpe(model)) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(model, "type");
        return mq_tok_refuse(loader, "model", "the type \"%.64s\" is not supported (known: BPE)",
                             cJSON_IsString(type) ? type->valuestring : "?");
    }
    mq_status status = mq_tok_check_fields(loader, model, "model", known);
    const cJSON *dropout = cJSON_GetObjectItemCaseSensitive(model, "dropout");
    bool no_dropout = !dropout || cJSON_IsNull(dropout) ||
                      (cJSON_IsNumber(dropout) && fpclassify(dropout->valuedouble) == FP_ZERO);
    if (!status && !no_dropout) {
        status = mq_tok_refuse(loader, "model", "dropout is not supported: it makes tokens random");
    }
    for (size_t i = 0; i < 2 && !status; i++) {
        const cJSON *affix = cJSON_GetObjectItemCaseSensitive(model, affixes[i]);
        if (affix && !cJSON_IsNull(affix) && !(cJSON_IsString(affix) && !*affix->valuestring)) {
            status = mq_tok_refuse(loader, "model", "%s is not supported", affixes[i]);
        }
    }
    const cJSON *unknown = cJSON_GetObjectItemCaseSensitive(model, "unk_token");
    if (!status && unknown && !cJSON_IsNull(unknown)) {
        const char *text = NULL;
        size_t size;
        status = mq_tok_string(&text, loader, model, "model", "unk_token");
        status = status ? status : mq_tok_copy(&t->unk_token, &size, loader, text);
    }
    if (!status) {
        status = mq_tok_bool(&t->byte_fallback, loader, model, "model", "byte_fallback", false);
    }
    if (!status) {
        status = mq_tok_bool(&t->fuse_unk, loader, model, "model", "fuse_unk", false);
    }
    return status ? status
                  : mq_tok_bool(&t->ignore_merges, loader, model, "model", "ignore_merges", false);
}

/* --- vocabulary ------------------------------------------------------------------------------- */

static mq_status measure_vocab(mq_tok_loader *loader, const cJSON *vocab, size_t *count,
                               size_t *text_size, size_t *max_id) {
    *count = *text_size = *max_id = 0;
    for (const cJSON *item = vocab->child; item; item = item->next) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id <= MQ_MAX_TOKEN_ID) || floor(id) != id) {
            return mq_tok_refuse(loader, "model.vocab",
                                 "the id of \"%.64s\" is not a whole number from 0 to %d",
                                 item->string, MQ_MAX_TOKEN_ID);
        }
        *max_id = (size_t)id > *max_id ? (size_t)id : *max_id;
        *text_size +=
            strlen(item->string) + 1; /* all of it came out of the file, so it cannot overflow */
        *count += 1;
    }
    return MQ_OK;
}

static mq_status load_vocab(mq_tok_loader *loader, const cJSON *vocab) {
    mq_tokenizer *t = loader->tokenizer;
    if (!cJSON_IsObject(vocab)) {
        return mq_tok_refuse(loader, "model.vocab", vocab ? "not an object" : "missing");
    }
    size_t count, text_size, max_id;
    mq_error inner = {0};
    mq_status status = measure_vocab(loader, vocab, &count, &text_size, &max_id);
    if (status) {
        return status;
    }
    status = mq_vocab_init(&t->vocab, count, text_size, max_id, &inner);
    for (const cJSON *item = vocab->child; item && !status; item = item->next) {
        status = mq_vocab_add(&t->vocab, item->string, strlen(item->string),
                              (int32_t)item->valuedouble, &inner);
    }
    if (!status) {
        status = mq_vocab_finish(&t->vocab, &inner);
    }
    if (status) {
        return mq_tok_in_field(loader, status, "model.vocab", &inner);
    }
    t->unk_id = t->unk_token ? mq_vocab_find(&t->vocab, t->unk_token, strlen(t->unk_token)) : -1;
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        t->byte_ids[byte] = mq_vocab_find(&t->vocab, name, 6);
    }
    return MQ_OK;
}

/* --- merges ----------------------------------------------------------------------------------- */

bool mq_tok_is_version_line(const cJSON *item) {
    return cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0;
}

bool mq_tok_read_halves(mq_tok_halves *out, const cJSON *item) {
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (!space || strchr(space + 1, ' ')) {
            return false;
        }
        *out = (mq_tok_halves){item->valuestring, space + 1, (size_t)(space - item->valuestring),
                               strlen(space + 1)};
        return true;
    }
    const cJSON *left = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *right = left ? left->next : NULL;
    if (!cJSON_IsString(left) || !cJSON_IsString(right) || right->next) {
        return false;
    }
    *out = (mq_tok_halves){left->valuestring, right->valuestring, strlen(left->valuestring),
                           strlen(right->valuestring)};
    return true;
}

static mq_status add_merge(mq_tok_loader *loader, const mq_tok_halves *h, size_t index,
                           mq_bytes *whole) {
    mq_tokenizer *t = loader->tokenizer;
    char where[48];
    snprintf(where, sizeof where, "model.merges[%zu]", index);
    whole->size = 0;
    mq_status status = mq_bytes_append(whole, h->left, h->left_size, loader->err);
    status = status ? status : mq_bytes_append(whole, h->right, h->right_size, loader->err);
    if (status) {
        return status;
    }
    int32_t left = mq_vocab_find(&t->vocab, h->left, h->left_size);
    int32_t right = mq_vocab_find(&t->vocab, h->right, h->right_size);
    int32_t merged = whole->size ? mq_vocab_find(&t->vocab, whole->data, whole->size) : -1;
    if (left < 0 || right < 0 || merged < 0) {
        const char *text = left < 0 ? h->left : right < 0 ? h->right : whole->data;
        size_t size = left < 0 ? h->left_size : right < 0 ? h->right_size : whole->size;
        return mq_tok_refuse(loader, where, "\"%.*s\" is not in the vocabulary",
                             size < 64 ? (int)size : 64, text ? text : "");
    }
    bool duplicate;
    mq_merges_add(&t->merges, &duplicate, &t->vocab, left, right, merged);
    if (duplicate) {
        return mq_tok_refuse(loader, where, "the pair is there twice");
    }
    return MQ_OK;
}

static mq_status load_merges(mq_tok_loader *loader, const cJSON *merges) {
    if (!cJSON_IsArray(merges)) {
        return mq_tok_refuse(loader, "model.merges", merges ? "not a list" : "missing");
    }
    mq_status status =
        mq_merges_init(&loader->tokenizer->merges, (size_t)cJSON_GetArraySize(merges), loader->err);
    mq_bytes whole = {0};
    size_t index = 0;
    for (const cJSON *item = merges->child; item && !status; item = item->next, index++) {
        mq_tok_halves h;
        if (mq_tok_is_version_line(item)) {
            continue;
        }
        if (mq_tok_read_halves(&h, item)) {
            status = add_merge(loader, &h, index, &whole);
        } else {
            char where[48];
            snprintf(where, sizeof where, "model.merges[%zu]", index);
            status = mq_tok_refuse(loader, where, "not two tokens");
        }
    }
    mq_bytes_free(&whole);
    return status;
}

mq_status mq_tok_load_model(mq_tok_loader *loader, const cJSON *model) {
    if (!cJSON_IsObject(model)) {
        return mq_tok_refuse(loader, "model", model ? "not an object" : "missing");
    }
    mq_status status = load_settings(loader, model);
    if (!status) {
        status = load_vocab(loader, cJSON_GetObjectItemCaseSensitive(model, "vocab"));
    }
    return status ? status : load_merges(loader, cJSON_GetObjectItemCaseSensitive(model, "merges"));
}

/* --- added tokens ----------------------------------------------------------------------------- */

/* *next_id: what the tokenizers package calls the next token that is not in the vocabulary,
 * whatever its id here: the number of the vocabulary's tokens, or the first above all added ones.
 */
static mq_status load_added_token(mq_tok_loader *loader, mq_added_token *token, size_t *next_id,
                                  const cJSON *item, const char *where) {
    static const char *const known[] = {"id",     "content",    "single_word", "lstrip",
                                        "rstrip", "normalized", "special",     NULL};
    const mq_vocab *vocab = &loader->tokenizer->vocab;
    const char *content = NULL;
    size_t id = 0;
    mq_status status = mq_tok_check_fields(loader, item, where, known);
    status = status ? status : mq_tok_size(&id, loader, item, where, "id");
    status = status ? status : mq_tok_string(&content, loader, item, where, "content");
    status = status ? status
                    : mq_tok_bool(&token->single_word, loader, item, where, "single_word", true);
    status = status ? status : mq_tok_bool(&token->lstrip, loader, item, where, "lstrip", true);
    status = status ? status : mq_tok_bool(&token->rstrip, loader, item, where, "rstrip", true);
    status =
        status ? status : mq_tok_bool(&token->normalized, loader, item, where, "normalized", true);
    status = status ? status : mq_tok_bool(&token->special, loader, item, where, "special", true);
    status = status ? status : mq_tok_copy(&token->content, &token->content_size, loader, content);
    if (status) {
        return status;
    }
    if (token->content_size == 0) {
        return mq_tok_refuse(loader, where, "the content is empty");
    }
    if (id > MQ_MAX_TOKEN_ID) {
        return mq_tok_refuse(loader, where, "the id %zu is above %d", id, MQ_MAX_TOKEN_ID);
    }
    token->id = (int32_t)id;
    int32_t known_id = mq_vocab_find(vocab, content, token->content_size);
    bool taken = known_id < 0 && id < vocab->size && vocab->entries[id].text;
    if (taken || (known_id >= 0 && known_id != token->id)) {
        return mq_tok_refuse(
            loader, where, "\"%.64s\" has the id %zu, which contradicts model.vocab", content, id);
    }
    if (known_id < 0 && id != *next_id) {
        return mq_tok_refuse(loader, where,
                             "\"%.64s\" has the id %zu, but the tokenizers package would give it "
                             "%zu, the next after those before it",
                             content, id, *next_id);
    }
    *next_id = id + 1 > *next_id ? id + 1 : *next_id;
    return MQ_OK;
}

/* Whether two added tokens share an id or a spelling: a throw-away vocabulary of them finds out. */
static mq_status check_distinct(mq_tok_loader *loader) {
    const mq_added *added = &loader->tokenizer->added;
    size_t text_size = 0, max_id = 0;
    for (size_t i = 0; i < added->count; i++) {
        text_size += added->tokens[i].content_size + 1;
        size_t id = (size_t)added->tokens[i].id;
        max_id = id > max_id ? id : max_id;
    }
    mq_vocab vocab = {0};
    mq_error inner = {0};
    mq_status status = mq_vocab_init(&vocab, added->count, text_size, max_id, &inner);
    for (size_t i = 0; i < added->count && !status; i++) {
        const mq_added_token *token = &added->tokens[i];
        status = mq_vocab_add(&vocab, token->content, token->content_size, token->id, &inner);
    }
    mq_vocab_free(&vocab);
    return mq_tok_in_field(loader, status, "added_tokens", &inner);
}

static mq_status index_added(mq_tokenizer *t, mq_error *err) {
    t->vocab_size = t->vocab.size;
    for (size_t i = 0; i < t->added.count; i++) {
        size_t id = (size_t)t->added.tokens[i].id;
        t->vocab_size = id >= t->vocab_size ? id + 1 : t->vocab_size;
    }
    mq_status status =
        mq_new(&t->added_index, t->vocab_size, sizeof *t->added_index, "the added tokens", err);
    if (status) {
        return status;
    }
    for (size_t id = 0; id < t->vocab_size; id++) {
        t->added_index[id] = -1;
    }
    for (size_t i = 0; i < t->added.count; i++) {
        t->added_index[t->added.tokens[i].id] = (int32_t)i;
    }
    return MQ_OK;
}

mq_status mq_tok_load_added(mq_tok_loader *loader, const cJSON *list) {
    mq_added *added = &loader->tokenizer->added;
    if (list && !cJSON_IsArray(list) && !cJSON_IsNull(list)) {
        return mq_tok_refuse(loader, "added_tokens", "not a list");
    }
    size_t count = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0;
    added->tokens = mq_calloc(count, sizeof *added->tokens);
    if (!added->tokens) {
        return mq_fail_memory(loader->err, "the added tokens", count * sizeof *added->tokens);
    }
    mq_status status = MQ_OK;
    size_t next_id = loader->tokenizer->vocab.count;
    for (const cJSON *item = count ? list->child : NULL; item && !status; item = item->next) {
        char where[48];
        snprintf(where, sizeof where, "added_tokens[%zu]", added->count);
        status = load_added_token(loader, &added->tokens[added->count++], &next_id, item, where);
    }
    status = status ? status : check_distinct(loader);
    status = status ? status : index_added(loader->tokenizer, loader->err);
    if (!status) {
        mq_error inner = {0};
        status = mq_tok_in_field(loader, mq_added_build(loader->tokenizer, &inner), "added_tokens",
                                 &inner);
    }
    return status;
}
