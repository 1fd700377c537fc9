/* tokenizer.json as GGUF's metadata.
 *
 * llama.cpp has two kinds of byte-pair encoding. "gpt2" is byte-level, with merges, and splits the
 * text before by one of its own regular expressions, which a name chooses: known here are those
 * whose pre_tokenizer we can compare. "llama" is SentencePiece's: no merges but a score for each
 * token, and what makes the token of the best score is merged first. In a tokenizer.json of that
 * kind the merges stand in the order of the scores, so the rank of the first merge that makes a
 * token, negative, is one. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "export/gguf_model.h"
#include "export/gguf_split.h"
#include "store/folder.h"
#include "text/tok_json_model.h"
#include "text/tok_vocab.h"

/* Token types of GGUF. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

enum { PAD_SIZE = 48 }; /* bytes, at most, of such a token's name and its final 0 */

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */

typedef struct token {
    const char *text; /* in the JSON; NULL: no token has this id */
    int32_t type;
    float score;
} token;

typedef struct converter {
    mq_gguf_meta *meta;
    const mq_plan *plan;
    mq_error *err;
    cJSON *root;                                 /* tokenizer.json */
    cJSON *config;                               /* tokenizer_config.json, or NULL */
    const cJSON *generation;                     /* generation_config.json, or NULL */
    const cJSON *model, *vocab, *merges, *added; /* of root */
    bool sentencepiece;
    token *tokens;    /* [count] */
    size_t count;     /* rows of the embeddings */
    mq_vocab spelled; /* their ids by the spelling in the JSON */
    mq_vocab written; /* by the spelling in GGUF, which every row has */
} converter;

static const cJSON *member(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool is_true(const cJSON *object, const char *name) {
    return cJSON_IsTrue(member(object, name));
}

static const char *text_of(const cJSON *item) {
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static mq_status refuse(const converter *self, const char *what) {
    return mq_gguf_refuse_tokenizer(self->err, what);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static mq_status set_token(converter *self, const cJSON *id, const char *text, int32_t type) {
    const char *folder = self->plan->job->options->master;
    const double at = cJSON_IsNumber(id) ? id->valuedouble : -1;
    if (text == NULL || !(at >= 0 && at < (double)self->count) || at != floor(at)) {
        return mq_fail_file_in(self->err, MQ_ERR_INPUT, folder, "tokenizer.json",
                               "the token \"%.64s\" has an id that is none of the %zu rows of the "
                               "embeddings",
                               text == NULL ? "" : text, self->count);
    }
    token *t = &self->tokens[(size_t)at];
    if (t->text != NULL && strcmp(t->text, text) != 0) {
        return mq_fail_file_in(self->err, MQ_ERR_INPUT, folder, "tokenizer.json",
                               "two tokens, \"%.64s\" and \"%.64s\", have the id %.0f", t->text,
                               text, at);
    }
    *t = (token){text, type, -1e9f};
    return MQ_OK;
}

static bool is_byte_token(const char *text) {
    static const char digits[] = "0123456789ABCDEF";
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && strchr(digits, text[3]) != NULL &&
           strchr(digits, text[4]) != NULL && text[5] == '>';
}

/* A token that was added but has no row of the embeddings, as the one for images has none in Gemma
 * 3's checkpoints without vision. llama.cpp's own converter leaves such out, too. */
static bool is_beyond(const converter *self, const cJSON *id, const char *text) {
    if (!cJSON_IsNumber(id) || text == NULL || !(id->valuedouble >= (double)self->count)) {
        return false;
    }
    mq_log(self->plan->job->context, MQ_LOG_WARNING,
           "tokenizer.json: the added token \"%.64s\" (id %.0f) is left out: the embeddings have "
           "%zu rows",
           text, id->valuedouble, self->count);
    return true;
}

static mq_status read_vocab(converter *self) {
    mq_status status =
        mq_new(&self->tokens, self->count, sizeof *self->tokens, "the vocabulary", self->err);
    for (size_t i = 0; status == MQ_OK && i < self->count; i++) {
        self->tokens[i] = (token){NULL, UNUSED, -1e9f};
    }
    const char *unknown = text_of(member(self->model, "unk_token"));
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, self->vocab) {
        if (status == MQ_OK) {
            const bool byte = self->sentencepiece && is_byte_token(item->string);
            const bool is_unknown = unknown != NULL && strcmp(item->string, unknown) == 0;
            status = set_token(self, item, item->string,
                               is_unknown ? UNKNOWN
                               : byte     ? BYTE
                                          : NORMAL);
        }
    }
    return status;
}

/* Whether an added token's flags ask for something that llama.cpp does not do: GGUF has no place
 * for them. */
static bool is_unheeded(const cJSON *item, const char *text, bool phi3) {
    const bool drops = phi3 && text != NULL && mq_gguf_phi3_strips(text);
    return is_true(item, "lstrip") || is_true(item, "single_word") ||
           is_true(item, "rstrip") != drops;
}

static mq_status read_added(converter *self) {
    const char *unknown = text_of(member(self->model, "unk_token")), *unheeded = NULL;
    const bool phi3 = mq_gguf_named_phi3(self->plan, self->root);
    size_t count = 0;
    mq_status status = MQ_OK;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, self->added) {
        const char *text = text_of(member(item, "content"));
        const bool is_unknown = unknown != NULL && text != NULL && strcmp(text, unknown) == 0;
        if (status != MQ_OK || is_beyond(self, member(item, "id"), text)) {
            continue;
        }
        status = set_token(self, member(item, "id"), text,
                           is_unknown                 ? UNKNOWN
                           : is_true(item, "special") ? CONTROL
                                                      : USER_DEFINED);
        if (is_unheeded(item, text, phi3)) {
            unheeded = count++ == 0 ? text : unheeded;
        }
    }
    if (status == MQ_OK && count > 0) {
        mq_log(self->plan->job->context, MQ_LOG_WARNING,
               "tokenizer.json: llama.cpp does not heed lstrip, rstrip and single_word of added "
               "tokens (%zu, such as \"%.64s\"): text with white space beside them, or a word "
               "around them, is other tokens there",
               count, unheeded);
    }
    return status;
}

/* --- spellings -------------------------------------------------------------------------------- */

/* llama.cpp matches user-defined tokens before it marks spaces. */
static void put_plain_spaces(mq_buffer *text, const char *marked) {
    const char *mark;
    while ((mark = strstr(marked, space_mark)) != NULL) {
        mq_buffer_put(text, marked, (size_t)(mark - marked));
        mq_buffer_put_text(text, " ");
        marked = mark + sizeof space_mark - 1;
    }
    mq_buffer_put_text(text, marked);
}

static mq_status add_spelling(converter *self, mq_vocab *index, const char *text, size_t size,
                              size_t id) {
    const int32_t other = mq_vocab_find(index, text, size);
    if (other < 0) {
        return mq_vocab_add(index, text, size, (int32_t)id, self->err);
    }
    const char *folder = self->plan->job->options->master, *spelled = self->tokens[id].text;
    if (strcmp(self->tokens[other].text, spelled) == 0) {
        return mq_fail_file_in(self->err, MQ_ERR_INPUT, folder, "tokenizer.json",
                               "the token \"%.64s\" is there twice, with the ids %d and %zu, which "
                               "llama.cpp does not load",
                               spelled, (int)other, id);
    }
    return mq_fail_file_in(
        self->err, MQ_ERR_INPUT, folder, "tokenizer.json",
        "the tokens \"%.64s\" (id %d) and \"%.64s\" (id %zu) are both \"%.64s\" "
        "in GGUF, which llama.cpp does not load; use --format safetensors or mlx",
        self->tokens[other].text, (int)other, spelled, id, text);
}

/* A name for a row of the embeddings that has no token: one that no token has. */
static mq_status add_pad(converter *self, size_t id) {
    char name[PAD_SIZE];
    snprintf(name, sizeof name, "[PAD%zu]", id);
    for (size_t i = 2; mq_vocab_find(&self->written, name, strlen(name)) >= 0; i++) {
        snprintf(name, sizeof name, "[PAD%zu_%zu]", id, i);
    }
    return mq_vocab_add(&self->written, name, strlen(name), (int32_t)id, self->err);
}

/* What GGUF has of a token. */
static mq_status add_written(converter *self, size_t id) {
    const token *t = &self->tokens[id];
    if (!self->sentencepiece || t->type != USER_DEFINED) {
        return add_spelling(self, &self->written, t->text, strlen(t->text), id);
    }
    mq_buffer text = {0};
    put_plain_spaces(&text, t->text);
    const mq_status status = text.failed
                                 ? mq_fail_memory(self->err, "a token", text.capacity)
                                 : add_spelling(self, &self->written, text.text, text.length, id);
    mq_free(text.text);
    return status;
}

/* Both indexes. llama.cpp ends the program over a file in which two rows have one spelling. */
static mq_status index_tokens(converter *self) {
    size_t bytes = 0;
    for (size_t i = 0; i < self->count; i++) {
        bytes += self->tokens[i].text == NULL ? PAD_SIZE : strlen(self->tokens[i].text) + 1;
    }
    mq_status status =
        mq_vocab_init(&self->spelled, self->count, bytes, self->count - 1, self->err);
    if (status == MQ_OK) {
        status = mq_vocab_init(&self->written, self->count, bytes, self->count - 1, self->err);
    }
    for (size_t i = 0; status == MQ_OK && i < self->count; i++) {
        const char *text = self->tokens[i].text;
        if (text != NULL) {
            status = add_spelling(self, &self->spelled, text, strlen(text), i);
            status = status == MQ_OK ? add_written(self, i) : status;
        }
    }
    for (size_t i = 0; status == MQ_OK && i < self->count; i++) {
        status = self->tokens[i].text == NULL ? add_pad(self, i) : status;
    }
    return status;
}

/* --- writing them ----------------------------------------------------------------------------- */

static void put_tokens(converter *self) {
    mq_gguf_array(self->meta, "tokenizer.ggml.tokens", MQ_GGUF_STRING, self->count);
    for (size_t i = 0; i < self->count; i++) {
        const mq_vocab_entry *entry = &self->written.entries[i];
        mq_gguf_put_string(&self->meta->bytes, entry->text, entry->size);
    }
    mq_gguf_array(self->meta, "tokenizer.ggml.token_type", MQ_GGUF_I32, self->count);
    for (size_t i = 0; i < self->count; i++) {
        mq_gguf_put_u32(&self->meta->bytes, (uint32_t)self->tokens[i].type);
    }
}

static mq_status put_merges(converter *self) {
    const size_t count = (size_t)cJSON_GetArraySize(self->merges);
    mq_gguf_array(self->meta, "tokenizer.ggml.merges", MQ_GGUF_STRING, count);
    const cJSON *merge = NULL;
    cJSON_ArrayForEach(merge, self->merges) {
        mq_tok_halves halves;
        if (!mq_tok_read_halves(&halves, merge)) {
            return refuse(self, "a merge that is not two tokens");
        }
        mq_buffer *bytes = &self->meta->bytes;
        mq_gguf_put_u64(bytes, halves.left_size + 1 + halves.right_size);
        mq_buffer_put(bytes, halves.left, halves.left_size);
        mq_buffer_put_text(bytes, " ");
        mq_buffer_put(bytes, halves.right, halves.right_size);
    }
    return MQ_OK;
}

/* --- scores ----------------------------------------------------------------------------------- */

/* The rank of the first merge that makes a token. A token that none makes keeps the least score. */
static mq_status score_tokens(converter *self) {
    mq_buffer merged = {0};
    const cJSON *merge = NULL;
    float rank = 0;
    mq_status status = MQ_OK;
    cJSON_ArrayForEach(merge, self->merges) {
        mq_tok_halves halves;
        if (!mq_tok_read_halves(&halves, merge)) {
            status = refuse(self, "a merge that is not two tokens");
            break;
        }
        merged.length = 0;
        mq_buffer_put(&merged, halves.left, halves.left_size);
        mq_buffer_put(&merged, halves.right, halves.right_size);
        if (merged.failed) {
            status = mq_fail_memory(self->err, "a merge", merged.capacity);
            break;
        }
        const int32_t id = mq_vocab_find(&self->spelled, merged.text, merged.length);
        if (id >= 0 && self->tokens[id].score <= -1e9f) {
            self->tokens[id].score = -rank;
        }
        rank += 1; /* exact: there are fewer than 2^24 */
    }
    mq_free(merged.text);
    return status;
}

static mq_status put_scores(converter *self) {
    const mq_status status = score_tokens(self);
    mq_gguf_array(self->meta, "tokenizer.ggml.scores", MQ_GGUF_F32, self->count);
    for (size_t i = 0; status == MQ_OK && i < self->count; i++) {
        mq_gguf_put_f32(&self->meta->bytes, self->tokens[i].score);
    }
    return status;
}

/* --- special tokens --------------------------------------------------------------------------- */

/* A number, or the first of a list, if it is the id of a row; else count. */
static size_t id_of(const converter *self, const cJSON *id) {
    id = cJSON_IsArray(id) ? id->child : id;
    const double at = cJSON_IsNumber(id) ? id->valuedouble : -1;
    return at >= 0 && at < (double)self->count ? (size_t)at : self->count;
}

/* The id of a token's text, or the one that config.json or generation_config.json has under these
 * names (NULL: none), or count. */
static size_t special_id(const converter *self, const cJSON *named, const char *config_key,
                         const char *generation_key) {
    const char *text = cJSON_IsObject(named) ? text_of(member(named, "content")) : text_of(named);
    for (size_t i = 0; text != NULL && i < self->count; i++) {
        if (self->tokens[i].text != NULL && strcmp(self->tokens[i].text, text) == 0) {
            return i;
        }
    }
    const size_t id = id_of(self, member(mq_master_config(self->plan->job->master), config_key));
    return id < self->count ? id : id_of(self, member(self->generation, generation_key));
}

/* The token that the template puts before (or after) a sequence; NULL: none. */
static const cJSON *template_token(const cJSON *post, bool before) {
    const char *type = text_of(member(post, "type"));
    const cJSON *found = NULL;
    if (type != NULL && strcmp(type, "Sequence") == 0) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach(item, member(post, "processors")) {
            const cJSON *inner = template_token(item, before);
            found = inner != NULL ? inner : found;
        }
    } else if (type != NULL && strcmp(type, "TemplateProcessing") == 0) {
        const cJSON *single = member(post, "single");
        const int count = cJSON_GetArraySize(single);
        const cJSON *piece = cJSON_GetArrayItem(single, before ? 0 : count - 1);
        found = member(member(piece, "SpecialToken"), "id");
    }
    return found;
}

/* llama.cpp would put a token of its own choice there, such as 11. */
static mq_status refuse_unnamed(const converter *self, const cJSON *of_template) {
    const char *folder = self->plan->job->options->master, *text = text_of(of_template);
    return of_template == NULL
               ? mq_fail_file_in(self->err, MQ_ERR_INPUT, folder, "tokenizer_config.json",
                                 MQ_TOK_NO_BOS)
               : mq_fail_file_in(self->err, MQ_ERR_INPUT, folder, "tokenizer.json",
                                 "post_processor: \"%.64s\" is not in the vocabulary",
                                 text == NULL ? "" : text);
}

/* Where the file names no token that ends a text, llama.cpp takes the one that Llama 2 or GPT-2 has
 * there: for the former's vocabulary only this is right. */
static void warn_of_end(const converter *self) {
    const size_t taken = self->sentencepiece ? 2 : 11;
    const char *text = taken < self->count ? self->tokens[taken].text : NULL;
    text = text == NULL ? "" : text;
    if (strcmp(text, "</s>") != 0) {
        mq_log(self->plan->job->context, MQ_LOG_WARNING,
               "nothing names the token that ends a text (eos_token in tokenizer_config.json, "
               "eos_token_id in config.json or generation_config.json): llama.cpp takes token %zu "
               "for it, \"%.64s\"",
               taken, text);
    }
}

static mq_status put_special(converter *self) {
    enum { BOS, EOS, UNK, PAD, COUNT };
    static const struct {
        const char *name, *config_key, *generation_key, *key;
    } ids[COUNT] = {
        [BOS] = {"bos_token", "bos_token_id", NULL, "tokenizer.ggml.bos_token_id"},
        [EOS] = {"eos_token", "eos_token_id", "eos_token_id", "tokenizer.ggml.eos_token_id"},
        [UNK] = {"unk_token", NULL, NULL, "tokenizer.ggml.unknown_token_id"},
        [PAD] = {"pad_token", "pad_token_id", NULL, "tokenizer.ggml.padding_token_id"}};
    const cJSON *post = member(self->root, "post_processor");
    const cJSON *around[COUNT] = {template_token(post, true), template_token(post, false)};
    /* As eval does: the template's, or where there is none tokenizer_config.json's. */
    const bool added[COUNT] = {around[BOS] != NULL || is_true(self->config, "add_bos_token"),
                               around[EOS] != NULL};
    for (size_t i = 0; i < COUNT; i++) {
        const cJSON *named = around[i] != NULL ? around[i]
                             : i == UNK        ? member(self->model, "unk_token")
                                               : member(self->config, ids[i].name);
        const size_t id = special_id(self, named, ids[i].config_key, ids[i].generation_key);
        if (id < self->count) {
            mq_gguf_u32(self->meta, ids[i].key, id);
        } else if (added[i]) {
            return refuse_unnamed(self, around[i]);
        } else if (i == EOS) {
            warn_of_end(self);
        }
    }
    mq_gguf_bool(self->meta, "tokenizer.ggml.add_bos_token", added[BOS]);
    mq_gguf_bool(self->meta, "tokenizer.ggml.add_eos_token", added[EOS]);
    return MQ_OK;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void drop_version_lines(cJSON *merges) {
    cJSON *next = NULL;
    for (cJSON *item = cJSON_IsArray(merges) ? merges->child : NULL; item != NULL; item = next) {
        next = item->next;
        if (mq_tok_is_version_line(item)) {
            cJSON_Delete(cJSON_DetachItemViaPointer(merges, item));
        }
    }
}

static mq_status read_files(converter *self) {
    const char *folder = self->plan->job->options->master;
    mq_status status = mq_read_folder_json(&self->root, folder, "tokenizer.json", false, self->err);
    if (status == MQ_OK) {
        status =
            mq_read_folder_json(&self->config, folder, "tokenizer_config.json", true, self->err);
    }
    if (status != MQ_OK) {
        return status;
    }
    self->model = member(self->root, "model");
    self->vocab = member(self->model, "vocab");
    cJSON *merges = cJSON_GetObjectItemCaseSensitive(self->model, "merges");
    drop_version_lines(merges);
    self->merges = merges;
    self->added = member(self->root, "added_tokens");
    self->sentencepiece = is_true(self->model, "byte_fallback");
    if (!mq_tok_is_bpe(self->model) || !cJSON_IsObject(self->vocab) ||
        !cJSON_IsArray(self->merges)) {
        return refuse(self, "a model that is no byte-pair encoding");
    }
    return MQ_OK;
}

static mq_status convert(converter *self) {
    mq_status status = read_files(self);
    if (status == MQ_OK) {
        status = read_vocab(self);
    }
    if (status == MQ_OK) {
        status = read_added(self);
    }
    if (status == MQ_OK) {
        status = index_tokens(self);
    }
    if (status == MQ_OK) {
        status =
            mq_gguf_put_split(self->meta, self->root, self->sentencepiece, self->plan, self->err);
    }
    if (status == MQ_OK) {
        put_tokens(self);
        status = self->sentencepiece ? put_scores(self) : put_merges(self);
    }
    if (status == MQ_OK) {
        status = put_special(self);
    }
    if (status == MQ_OK) {
        status = mq_gguf_put_chat(self->meta, self->plan, self->config, self->err);
    }
    return status;
}

mq_status mq_gguf_put_tokenizer(mq_gguf_meta *meta, const mq_plan *plan, const cJSON *generation,
                                mq_error *err) {
    converter self = {.meta = meta,
                      .plan = plan,
                      .err = err,
                      .generation = generation,
                      .count = plan->job->config->vocab_size};
    mq_status status = convert(&self);
    mq_free(self.tokens);
    mq_vocab_free(&self.spelled);
    mq_vocab_free(&self.written);
    cJSON_Delete(self.root);
    cJSON_Delete(self.config);
    return status;
}
