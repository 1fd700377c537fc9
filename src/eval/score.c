#include "eval/score.h"

#include <string.h>

#include "eval/perplexity.h"

double mq_block_weight_count(const mq_config *config) {
    double count = 0;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        count += (double)out * (double)in;
    }
    return count;
}

/* Arithmetic of the forward passes as a share of everything, for progress: both parts are matrix
 * products, so their parameters say it. */
static double forward_share(const mq_config *config) {
    double blocks = mq_block_weight_count(config) * (double)config->num_hidden_layers;
    return blocks / (blocks + (double)config->vocab_size * (double)config->hidden_size);
}

typedef struct scorer {
    const mq_window_scores *scores;
    const mq_model *model, *reference;
    const mq_sequences *windows;
    size_t batch;
    size_t group; /* windows that pass the blocks together: a multiple of batch */
    float *hidden, *reference_hidden; /* [group·length, hidden_size] */
    float *nll, *kl;                  /* [batch·(length - 1)] */
    unsigned char *same_top;          /* likewise */
    int32_t *targets;                 /* likewise */
    const mq_context *context;        /* the caller's */

    mq_context inner; /* context for the library below, whose progress is translated */
    size_t group_first, group_count;
    double share_done,
        share_now; /* of a group's work: in finished passes, in the pass that is running */
    double start;
} scorer;

static void report(const scorer *self, double done) {
    mq_progress progress = {.phase = "evaluate",
                            .unit = "window",
                            .done = done,
                            .total = (double)self->windows->count,
                            .elapsed_seconds = mq_seconds() - self->start};
    mq_report(self->context, &progress);
}

/* A forward pass reports blocks; to the user a pass is some share of the windows that it carries.
 */
static void forward_progress(void *user, const mq_progress *progress) {
    const scorer *self = user;
    double share = self->share_done + self->share_now * progress->done / progress->total;
    report(self, (double)self->group_first + (double)self->group_count * share);
}

static void pass_message(void *user, mq_log_level level, const char *text) {
    const scorer *self = user;
    mq_log(self->context, level, "%s", text);
}

/* Moves the rows [rows, length, hidden_size] that predict something to the front: the last of each
 * window does not. */
static void drop_last_rows(float *hidden, size_t windows, size_t length, size_t hidden_size) {
    size_t kept = (length - 1) * hidden_size;
    for (size_t w = 1; w < windows; w++) {
        memmove(hidden + w * kept, hidden + w * length * hidden_size, kept * sizeof *hidden);
    }
}

static void drop_first_ids(int32_t *targets, const int32_t *ids, size_t windows, size_t length) {
    for (size_t w = 0; w < windows; w++) {
        memcpy(targets + w * (length - 1), ids + w * length + 1, (length - 1) * sizeof *targets);
    }
}

static double share_of_ones(const unsigned char *flags, size_t count) {
    size_t ones = 0;
    for (size_t i = 0; i < count; i++) {
        ones += flags[i] != 0;
    }
    return (double)ones / (double)count;
}

/* Windows [first, first + count) of the text, whose hidden states begin at row `row` of the
 * group's. */
static mq_status score_batch(scorer *self, size_t first, size_t count, size_t row, mq_error *err) {
    const mq_window_scores *scores = self->scores;
    size_t length = self->windows->length, predictions = length - 1, rows = count * predictions;
    size_t hidden_size = self->model->config.hidden_size;
    float *hidden = self->hidden + row * hidden_size;
    drop_first_ids(self->targets, self->windows->ids + first * length, count, length);
    drop_last_rows(hidden, count, length, hidden_size);
    const mq_head_side side = {self->model, hidden};
    mq_head_side reference = {.model = self->reference};
    mq_head_scores out = {.nll = self->nll};
    if (self->reference) {
        size_t reference_size = self->reference->config.hidden_size;
        float *reference_hidden = self->reference_hidden + row * reference_size;
        drop_last_rows(reference_hidden, count, length, reference_size);
        reference.hidden = reference_hidden;
        mq_status status =
            mq_head_score(&out, &reference, NULL, self->targets, rows, &self->inner, err);
        if (status != MQ_OK) {
            return status;
        }
        for (size_t w = 0; w < count; w++) {
            scores->reference_nll[first + w] = mq_mean(self->nll + w * predictions, predictions);
        }
        out.kl = self->kl;
        out.same_top = self->same_top;
    }
    mq_status status = mq_head_score(&out, &side, self->reference ? &reference : NULL,
                                     self->targets, rows, &self->inner, err);
    for (size_t w = 0; status == MQ_OK && w < count; w++) {
        size_t at = w * predictions;
        scores->nll[first + w] = mq_mean(self->nll + at, predictions);
        if (self->reference) {
            scores->kl[first + w] = mq_mean(self->kl + at, predictions);
            scores->agreement[first + w] = share_of_ones(self->same_top + at, predictions);
        }
    }
    return status;
}

static mq_status forward(scorer *self, float *hidden, const mq_model *model, double share,
                         mq_error *err) {
    self->share_now = share;
    mq_status status = mq_model_forward(
        hidden, model, self->windows->ids + self->group_first * self->windows->length,
        self->group_count, self->windows->length, self->batch, "evaluate", &self->inner, err);
    self->share_done += share;
    self->share_now = 0;
    return status;
}

static mq_status score_group(scorer *self, mq_error *err) {
    double share = forward_share(&self->model->config);
    double passes = self->reference ? 2 : 1;
    self->share_done = 0;
    mq_status status = forward(self, self->hidden, self->model, share / passes, err);
    if (status == MQ_OK && self->reference) {
        status = forward(self, self->reference_hidden, self->reference, share / passes, err);
    }
    for (size_t done = 0; status == MQ_OK && done < self->group_count; done += self->batch) {
        size_t left = self->group_count - done;
        size_t count = left < self->batch ? left : self->batch;
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            status = score_batch(self, self->group_first + done, count,
                                 done * self->windows->length, err);
        }
        double of_group = (double)(done + count) / (double)self->group_count;
        if (status == MQ_OK) {
            report(self, (double)self->group_first +
                             (double)self->group_count * (share + (1 - share) * of_group));
        }
    }
    return status;
}

/* The largest multiple of batch windows whose hidden states stay below hidden_bytes: at least one
 * batch, and no more than there are windows. */
static size_t group_size(const scorer *self, size_t hidden_bytes) {
    size_t row = self->model->config.hidden_size;
    if (self->reference) {
        row += self->reference->config.hidden_size;
    }
    size_t bytes;
    if (!mq_mul3_size(&bytes, row, sizeof(float), self->windows->length) ||
        !mq_mul_size(&bytes, bytes, self->batch) || bytes >= hidden_bytes) {
        return self->batch;
    }
    size_t group = hidden_bytes / bytes * self->batch;
    return group < self->windows->count ? group : self->windows->count;
}

static mq_status allocate(scorer *self, mq_error *err) {
    size_t length = self->windows->length;
    size_t rows, predictions = self->batch * (length - 1);
    if (!mq_mul_size(&rows, self->group, length)) {
        return mq_fail_memory(err, "hidden states", SIZE_MAX);
    }
    mq_status status =
        mq_new(&self->nll, predictions, sizeof *self->nll, "losses of the tokens", err);
    if (status == MQ_OK) {
        status = mq_new(&self->targets, predictions, sizeof *self->targets, "target tokens", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&self->hidden, rows, self->model->config.hidden_size * sizeof *self->hidden,
                        "hidden states", err);
    }
    if (status == MQ_OK && self->reference) {
        status = mq_new(&self->reference_hidden, rows,
                        self->reference->config.hidden_size * sizeof *self->reference_hidden,
                        "hidden states of the reference", err);
    }
    if (status == MQ_OK && self->reference) {
        status = mq_new(&self->kl, predictions, sizeof *self->kl, "divergences of the tokens", err);
    }
    if (status == MQ_OK && self->reference) {
        status = mq_new(&self->same_top, predictions, 1, "agreement of the tokens", err);
    }
    return status;
}

mq_status mq_score_windows(const mq_window_scores *scores, const mq_model *model,
                           const mq_model *reference, const mq_sequences *windows, size_t batch,
                           size_t hidden_bytes, const mq_context *context, mq_error *err) {
    scorer self = {.scores = scores,
                   .model = model,
                   .reference = reference,
                   .windows = windows,
                   .batch = batch < windows->count ? batch : windows->count,
                   .context = context,
                   .start = mq_seconds()};
    self.inner = mq_context_inner(context, &(mq_sink){&self, pass_message, forward_progress});
    self.group = group_size(&self, hidden_bytes);
    mq_status status = allocate(&self, err);
    for (size_t first = 0; status == MQ_OK && first < windows->count; first += self.group) {
        size_t left = windows->count - first;
        self.group_first = first;
        self.group_count = left < self.group ? left : self.group;
        status = score_group(&self, err);
    }
    mq_free(self.nll);
    mq_free(self.kl);
    mq_free(self.same_top);
    mq_free(self.targets);
    mq_free(self.hidden);
    mq_free(self.reference_hidden);
    return status;
}
