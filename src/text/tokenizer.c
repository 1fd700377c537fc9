#include "matquant/tokenizer.h"

#include <string.h>

#include "text/tok_internal.h"

mq_status mq_tokenizer_open(mq_tokenizer **out, const char *folder, mq_error *err) {
    mq_tokenizer *tokenizer = mq_calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        return mq_fail_memory(err, "the tokenizer", sizeof *tokenizer);
    }
    mq_status status = mq_tok_load(tokenizer, folder, err);
    if (status) {
        mq_tokenizer_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return MQ_OK;
}

void mq_tokenizer_free(mq_tokenizer *tokenizer) {
    if (!tokenizer) {
        return;
    }
    mq_vocab_free(&tokenizer->vocab);
    mq_merges_free(&tokenizer->merges);
    mq_free(tokenizer->unk_token);
    mq_steps_free(&tokenizer->normalizer);
    mq_steps_free(&tokenizer->pre_tokenizer);
    mq_added_free(&tokenizer->added);
    mq_free(tokenizer->added_index);
    mq_free(tokenizer->before);
    mq_free(tokenizer->after);
    for (size_t i = 0; i < tokenizer->decoder_count; i++) {
        mq_pattern_free(&tokenizer->decoders[i].pattern);
        mq_free(tokenizer->decoders[i].content);
    }
    mq_free(tokenizer);
}

mq_status mq_encoder_push(mq_encoder *encoder, int32_t id) {
    if (encoder->count == encoder->capacity) {
        size_t capacity = encoder->capacity < 64 ? 64 : encoder->capacity + encoder->capacity / 2;
        int32_t *ids = mq_realloc(encoder->ids, capacity, sizeof *ids);
        if (!ids) {
            return mq_fail_memory(encoder->err, "token ids", capacity * sizeof *ids);
        }
        encoder->ids = ids;
        encoder->capacity = capacity;
    }
    encoder->ids[encoder->count++] = id;
    return MQ_OK;
}

static mq_status push_all(mq_encoder *encoder, const int32_t *ids, size_t count) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < count && !status; i++) {
        status = mq_encoder_push(encoder, ids[i]);
    }
    return status;
}

static void free_encoder(mq_encoder *encoder) {
    mq_matcher_free(&encoder->matcher);
    mq_bytes_free(&encoder->normalized[0]);
    mq_bytes_free(&encoder->normalized[1]);
    for (size_t i = 0; i < MQ_MAX_STEPS; i++) {
        mq_bytes_free(&encoder->pieces[i]);
    }
    mq_bpe_free(encoder->bpe);
    mq_free(encoder->ids);
}

static mq_status encode(mq_encoder *encoder, const char *text, size_t size, bool add_special) {
    const mq_tokenizer *t = encoder->tokenizer;
    mq_status status = mq_matcher_init(&encoder->matcher, encoder->err);
    if (!status) {
        status = mq_bpe_new(&encoder->bpe, size, encoder->err);
    }
    if (!status && add_special) {
        status = push_all(encoder, t->before, t->before_count);
    }
    if (!status && size) {
        status = mq_encode_text(encoder, text, size);
    }
    if (!status && add_special) {
        status = push_all(encoder, t->after, t->after_count);
    }
    return status;
}

mq_status mq_tokenizer_encode(int32_t **ids, size_t *count, const mq_tokenizer *tokenizer,
                              const char *text, size_t size, bool add_special, mq_error *err) {
    return mq_tokenizer_encode_in(ids, count, tokenizer, text, size, add_special, NULL, err);
}

mq_status mq_tok_check_length(size_t size, mq_error *err) {
    return size <= MQ_MAX_TEXT ? MQ_OK
                               : mq_fail(err, MQ_ERR_INPUT,
                                         "%zu bytes of text are more than the tokenizer takes at "
                                         "once (%lu); use a part of it",
                                         size, MQ_MAX_TEXT);
}

mq_status mq_tokenizer_encode_in(int32_t **ids, size_t *count, const mq_tokenizer *tokenizer,
                                 const char *text, size_t size, bool add_special,
                                 const mq_context *context, mq_error *err) {
    mq_encoder encoder = {.tokenizer = tokenizer, .context = context, .err = err};
    mq_bytes repaired = {0};
    mq_status status = mq_tok_check_length(size, err);
    if (!status && !mq_utf8_valid(NULL, text, size)) {
        status = mq_utf8_repair(&repaired, text, size, err);
        text = repaired.data;
        size = repaired.size;
    }
    if (!status) {
        status = encode(&encoder, text, size, add_special);
    }
    if (!status &&
        !encoder.ids) { /* the caller gets something to free even when there are no ids */
        status = mq_new(&encoder.ids, 1, sizeof *encoder.ids, "token ids", err);
    }
    if (!status) {
        *ids = encoder.ids;
        *count = encoder.count;
        encoder.ids = NULL;
    }
    mq_bytes_free(&repaired);
    free_encoder(&encoder);
    return status;
}

void mq_tokenizer_free_ids(int32_t *ids) { mq_free(ids); }

size_t mq_tokenizer_vocab_size(const mq_tokenizer *tokenizer) { return tokenizer->vocab_size; }

int32_t mq_tokenizer_bos(const mq_tokenizer *tokenizer) { return tokenizer->bos; }
