/* Running the pre-tokenizer: from a piece of normalized text to words. */
#include "text/tok_internal.h"

/* What splitting works with: the events (ranges that match or lie between matches, in order) come
 * one by one, and one range is held back until it is known whether the next joins it. */
typedef struct mq_splitter {
    mq_encoder *encoder;
    const mq_step *step;
    size_t next_step;
    const char *text;
    bool first;        /* the text is the beginning of all text */
    size_t start, end; /* the range held back; empty: none */
    bool last_matched;
} mq_splitter;

static mq_status run_steps(mq_encoder *encoder, size_t index, const char *text, size_t size,
                           bool first);

static mq_status flush(mq_splitter *s) {
    size_t start = s->start, end = s->end;
    s->start = s->end;
    return run_steps(s->encoder, s->next_step, s->text + start, end - start,
                     s->first && start == 0);
}

/* Whether [start, ...) goes on with the range held back. Events that are empty never come, so that
 * the held range is empty only before the first. */
static bool joins(const mq_splitter *s, bool matched) {
    switch (s->step->behavior) {
    case MQ_SPLIT_MERGED_WITH_PREVIOUS:
        return matched && !s->last_matched;
    case MQ_SPLIT_MERGED_WITH_NEXT:
        return !matched && s->last_matched;
    case MQ_SPLIT_CONTIGUOUS:
        return matched == s->last_matched;
    case MQ_SPLIT_REMOVED:
    case MQ_SPLIT_ISOLATED:
        break;
    }
    return false;
}

static mq_status event(mq_splitter *s, size_t start, size_t end, bool found) {
    bool matched = found != s->step->invert;
    if (s->start < s->end && joins(s, matched)) {
        s->end = end;
        s->last_matched = matched;
        return MQ_OK;
    }
    mq_status status = flush(s);
    s->last_matched = matched;
    if (!(matched && s->step->behavior == MQ_SPLIT_REMOVED)) {
        s->start = start;
        s->end = end;
    }
    return status;
}

static mq_status split(mq_encoder *encoder, size_t index, const char *text, size_t size,
                       bool first) {
    const mq_step *step = &encoder->tokenizer->pre_tokenizer.items[index];
    mq_splitter s = {
        .encoder = encoder, .step = step, .next_step = index + 1, .text = text, .first = first};
    mq_find find = mq_find_begin(&step->pattern, &encoder->matcher, text, size);
    size_t done = 0, start, end;
    bool found = true;
    while (found) {
        mq_status status = mq_find_next(&find, &found, &start, &end, encoder->err);
        if (!status && found && done < start) {
            status = event(&s, done, start, false);
        }
        if (!status && found) {
            status = event(&s, start, end, true);
            done = end;
        }
        if (status) {
            return status;
        }
    }
    mq_status status = done < size ? event(&s, done, size, false) : MQ_OK;
    return status ? status : flush(&s);
}

static mq_status run_steps(mq_encoder *encoder, size_t index, const char *text, size_t size,
                           bool first) {
    const mq_steps *steps = &encoder->tokenizer->pre_tokenizer;
    if (size == 0) {
        return MQ_OK;
    }
    if (index == steps->count) {
        return mq_bpe_encode(encoder, text, size);
    }
    if (steps->items[index].kind == MQ_STEP_SPLIT) {
        return split(encoder, index, text, size, first);
    }
    mq_bytes *piece = &encoder->pieces[index];
    mq_status status = mq_step_transform(piece, &steps->items[index], &encoder->matcher, text, size,
                                         first, encoder->err);
    return status ? status : run_steps(encoder, index + 1, piece->data, piece->size, first);
}

mq_status mq_encode_piece(mq_encoder *encoder, const char *text, size_t size, bool first) {
    return run_steps(encoder, 0, text, size, first);
}
