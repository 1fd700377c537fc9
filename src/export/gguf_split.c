/* How text is cut before bytes are paired: which of llama.cpp's own ways a tokenizer.json asks for.
 */
#include "export/gguf_split.h"

#include <string.h>

mq_status mq_gguf_refuse_tokenizer(mq_error *err, const char *what) {
    return mq_fail_file(err, MQ_ERR_USAGE, "tokenizer.json",
                        "%s has no counterpart in GGUF; use --format safetensors or mlx", what);
}

static const cJSON *member(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* What decides how text is cut, without fields that have no influence on ids. */
typedef struct known_split {
    const char *name; /* tokenizer.ggml.pre */
    bool ignore_merges;
    bool nfc; /* may be normalized so, which llama.cpp leaves out: what it is given should be */
    const char *pre_tokenizer;
} known_split;

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":" regex "}"
#define SPLIT_THEN_BYTES(pattern)                                                                  \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" pattern              \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"     \
    "\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("false") "]}"

static const known_split splits[] = {
    {"gpt-2", false, false, BYTE_LEVEL("true")},
    {"smollm", false, false,
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}"
     "," BYTE_LEVEL("true") "]}"},
    {"llama-bpe", true, false, SPLIT_THEN_BYTES("\\\\p{N}{1,3}")},
    {"smaug-bpe", false, false, SPLIT_THEN_BYTES("\\\\p{N}{1,3}")},
    {"qwen2", false, true, SPLIT_THEN_BYTES("\\\\p{N}")},
};

static bool is_text(const cJSON *item, const char *text) {
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* What splits alike in one spelling: without offsets, which have no influence on ids, and with
 * matches isolated where all but them is removed, as OLMo 2's and Phi-4's files have it. The
 * patterns that such a split is compared with match all of a text. False: no memory. */
static bool respell(cJSON *item) {
    bool whole = true;
    cJSON_DeleteItemFromObjectCaseSensitive(item, "trim_offsets");
    if (is_text(member(item, "behavior"), "Removed") && cJSON_IsTrue(member(item, "invert"))) {
        whole = cJSON_ReplaceItemInObjectCaseSensitive(item, "behavior",
                                                       cJSON_CreateString("Isolated")) &&
                cJSON_ReplaceItemInObjectCaseSensitive(item, "invert", cJSON_CreateFalse());
    }
    for (cJSON *child = item == NULL ? NULL : item->child; child != NULL; child = child->next) {
        if (cJSON_IsObject(child) || cJSON_IsArray(child)) {
            whole = respell(child) && whole;
        }
    }
    return whole;
}

static mq_status same_json(bool *out, const cJSON *item, const char *text, mq_error *err) {
    cJSON *copy = cJSON_Duplicate(item, true), *known = cJSON_Parse(text);
    const bool whole = copy != NULL && known != NULL && respell(copy);
    *out = whole && cJSON_Compare(copy, known, true);
    cJSON_Delete(copy);
    cJSON_Delete(known);
    return whole ? MQ_OK : mq_fail_memory(err, "the tokenizer", 0);
}

static bool is_absent(const cJSON *item) { return item == NULL || cJSON_IsNull(item); }

/* No normalizer, or NFC where it may be left out. */
static mq_status check_normalizer(const cJSON *tokenizer, const known_split *split, mq_error *err) {
    const cJSON *normalizer = member(tokenizer, "normalizer");
    bool fits = is_absent(normalizer);
    const mq_status status =
        fits || !split->nfc ? MQ_OK : same_json(&fits, normalizer, "{\"type\":\"NFC\"}", err);
    return status == MQ_OK && !fits ? mq_gguf_refuse_tokenizer(err, "this normalizer") : status;
}

static mq_status put_byte_level(mq_gguf_meta *meta, const cJSON *tokenizer, mq_error *err) {
    const cJSON *pre = member(tokenizer, "pre_tokenizer"), *model = member(tokenizer, "model");
    if (is_absent(pre)) {
        return mq_gguf_refuse_tokenizer(err, "no pre_tokenizer");
    }
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        bool same = false;
        mq_status status = same_json(&same, pre, splits[i].pre_tokenizer, err);
        if (status == MQ_OK && same &&
            cJSON_IsTrue(member(model, "ignore_merges")) == splits[i].ignore_merges) {
            mq_gguf_string(meta, "tokenizer.ggml.model", "gpt2");
            mq_gguf_string(meta, "tokenizer.ggml.pre", splits[i].name);
            return check_normalizer(tokenizer, &splits[i], err);
        }
        if (status != MQ_OK) {
            return status;
        }
    }
    return mq_gguf_refuse_tokenizer(err, "this pre_tokenizer");
}

static void put_llama(mq_gguf_meta *meta, bool prefix) {
    mq_gguf_string(meta, "tokenizer.ggml.model", "llama");
    mq_gguf_string(meta, "tokenizer.ggml.pre", "default");
    mq_gguf_bool(meta, "tokenizer.ggml.add_space_prefix", prefix);
}

/* A Metaspace that leaves the text whole, as transformers writes it from version 5 on: what it puts
 * the prefix before, or NULL for anything else. */
static const char *scheme_of(const cJSON *pre) {
    static const char *const schemes[] = {"always", "first", "never"};
    if (!is_text(member(pre, "type"), "Metaspace") ||
        !is_text(member(pre, "replacement"), "\xe2\x96\x81") ||
        !cJSON_IsFalse(member(pre, "split"))) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (is_text(member(pre, "prepend_scheme"), schemes[i])) {
            return schemes[i];
        }
    }
    return NULL;
}

/* llama.cpp puts a space before all text and, again, after each special token, without a look at
 * what the text begins with. */
static void put_metaspace(mq_gguf_meta *meta, const char *scheme, const mq_plan *plan) {
    const bool prefix = strcmp(scheme, "never") != 0, first = strcmp(scheme, "first") == 0;
    put_llama(meta, prefix);
    if (prefix) {
        mq_log(
            plan->job->context, MQ_LOG_WARNING,
            "tokenizer.json: llama.cpp puts a space %s, which this tokenizer does not: such text "
            "is other tokens there",
            first ? "after every special token and before text that begins with one"
                  : "before text that begins with one, also after a special token");
    }
}

/* Spaces become marks; a prefix is put before the text in Llama 2's kind, not in Gemma's. */
static mq_status put_sentencepiece(mq_gguf_meta *meta, const cJSON *tokenizer, const mq_plan *plan,
                                   mq_error *err) {
    static const struct {
        const char *normalizer;
        bool prefix;
    } known[] = {
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}",
         false},
        {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
         "\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
         "\"\xe2\x96\x81\"}]}",
         true},
    };
    static const char split[] = "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":"
                                "\"MergedWithPrevious\",\"invert\":false}";
    const cJSON *pre = member(tokenizer, "pre_tokenizer");
    const cJSON *normalizer = member(tokenizer, "normalizer");
    const char *scheme = scheme_of(pre);
    if (scheme != NULL && is_absent(normalizer)) {
        put_metaspace(meta, scheme, plan);
        return MQ_OK;
    }
    bool same = is_absent(pre); /* the split finds nothing: no space is left */
    mq_status status = same ? MQ_OK : same_json(&same, pre, split, err);
    if (status == MQ_OK && !same) {
        return mq_gguf_refuse_tokenizer(err,
                                        scheme == NULL ? "this pre_tokenizer" : "this normalizer");
    }
    for (size_t i = 0; status == MQ_OK && i < sizeof known / sizeof *known; i++) {
        status = same_json(&same, normalizer, known[i].normalizer, err);
        if (status == MQ_OK && same) {
            put_llama(meta, known[i].prefix);
            return MQ_OK;
        }
    }
    return status == MQ_OK ? mq_gguf_refuse_tokenizer(err, "this normalizer") : status;
}

mq_status mq_gguf_put_split(mq_gguf_meta *meta, const cJSON *tokenizer, bool sentencepiece,
                            const mq_plan *plan, mq_error *err) {
    return sentencepiece ? put_sentencepiece(meta, tokenizer, plan, err)
                         : put_byte_level(meta, tokenizer, err);
}
