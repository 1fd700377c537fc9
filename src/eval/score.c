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
    const mq_window_scores *scores; /* [scored->count] */
    const mq_scored *scored;
    const mq_config *config; /* of all models but the reference */
    const mq_sequences *windows;
    size_t batch;
    size_t group;              /* windows that pass the blocks together: a multiple of batch */
    float *hidden;             /* [scored->count, group·length, hidden_size] */
    float *reference_hidden;   /* [group·length, hidden_size] */
    float *nll, *kl;           /* [batch·(length - 1)] */
    unsigned char *same_top;   /* likewise */
    int32_t *targets;          /* likewise */
    const mq_context *context; /* the caller's */

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
typedef struct batch_place {
    size_t first, count, row;
    size_t predictions; /* of a window */
} batch_place;

/* The reference by itself; its side of the comparisons is left in *side. */
static mq_status score_reference(scorer *self, mq_head_side *side, const batch_place *at,
                                 mq_error *err) {
    const mq_model *reference = self->scored->reference;
    const size_t hidden_size = reference->config.hidden_size;
    float *hidden = self->reference_hidden + at->row * hidden_size;
    drop_last_rows(hidden, at->count, self->windows->length, hidden_size);
    *side = (mq_head_side){reference, hidden};
    const mq_head_scores out = {.nll = self->nll};
    const mq_status status = mq_head_score(&out, side, NULL, self->targets,
                                           at->count * at->predictions, &self->inner, err);
    for (size_t w = 0; status == MQ_OK && w < at->count; w++) {
        const double nll = mq_mean(self->nll + w * at->predictions, at->predictions);
        for (size_t i = 0; i < self->scored->count; i++) {
            self->scores[i].reference_nll[at->first + w] = nll;
        }
    }
    return status;
}

/* reference: its side, or NULL. */
static mq_status score_model(scorer *self, size_t index, const mq_head_side *reference,
                             const batch_place *at, mq_error *err) {
    const size_t length = self->windows->length, hidden_size = self->config->hidden_size;
    float *hidden = self->hidden + (index * self->group * length + at->row) * hidden_size;
    drop_last_rows(hidden, at->count, length, hidden_size);
    const mq_head_side side = {self->scored->models[index], hidden};
    mq_head_scores out = {.nll = self->nll};
    if (reference != NULL) {
        out.kl = self->kl;
        out.same_top = self->same_top;
    }
    const mq_status status = mq_head_score(&out, &side, reference, self->targets,
                                           at->count * at->predictions, &self->inner, err);
    const mq_window_scores *scores = &self->scores[index];
    for (size_t w = 0; status == MQ_OK && w < at->count; w++) {
        const size_t from = w * at->predictions;
        scores->nll[at->first + w] = mq_mean(self->nll + from, at->predictions);
        if (reference != NULL) {
            scores->kl[at->first + w] = mq_mean(self->kl + from, at->predictions);
            scores->agreement[at->first + w] =
                share_of_ones(self->same_top + from, at->predictions);
        }
    }
    return status;
}

static mq_status score_batch(scorer *self, const batch_place *at, mq_error *err) {
    const size_t length = self->windows->length;
    mq_head_side reference;
    mq_status status = MQ_OK;
    drop_first_ids(self->targets, self->windows->ids + at->first * length, at->count, length);
    if (self->scored->reference) {
        status = score_reference(self, &reference, at, err);
    }
    for (size_t i = 0; status == MQ_OK && i < self->scored->count; i++) {
        status = score_model(self, i, self->scored->reference ? &reference : NULL, at, err);
    }
    return status;
}

static mq_status forward(scorer *self, float *hidden, const mq_model *model, double share,
                         mq_error *err) {
    self->share_now = share;
    const size_t length = self->windows->length;
    const mq_forward_run run = {.model = model,
                                .ids = self->windows->ids + self->group_first * length,
                                .sequences = self->group_count,
                                .length = length,
                                .batch = self->batch,
                                .phase = "evaluate"};
    mq_status status = mq_model_forward(hidden, &run, &self->inner, err);
    self->share_done += share;
    self->share_now = 0;
    return status;
}

/* All models' passes through the blocks. share: of the group's work that they are together. */
static mq_status forward_all(scorer *self, double share, mq_error *err) {
    const mq_scored *scored = self->scored;
    const size_t stride = self->group * self->windows->length * self->config->hidden_size;
    const double one = share / (double)(scored->count + (scored->reference ? 1 : 0));
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < scored->count; i++) {
        status = forward(self, self->hidden + i * stride, scored->models[i], one, err);
    }
    if (status == MQ_OK && scored->reference) {
        status = forward(self, self->reference_hidden, scored->reference, one, err);
    }
    return status;
}

static mq_status score_group(scorer *self, mq_error *err) {
    const double share = forward_share(self->config);
    self->share_done = 0;
    mq_status status = forward_all(self, share, err);
    for (size_t done = 0; status == MQ_OK && done < self->group_count; done += self->batch) {
        size_t left = self->group_count - done;
        size_t count = left < self->batch ? left : self->batch;
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            const size_t length = self->windows->length;
            status = score_batch(
                self, &(batch_place){self->group_first + done, count, done * length, length - 1},
                err);
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
    const mq_model *reference = self->scored->reference;
    const size_t of_reference = reference ? reference->config.hidden_size : 0;
    size_t row, bytes;
    if (!mq_mul_size(&row, self->scored->count, self->config->hidden_size) ||
        !mq_add_size(&row, row, of_reference) ||
        !mq_mul3_size(&bytes, row, sizeof(float), self->windows->length) ||
        !mq_mul_size(&bytes, bytes, self->batch) || bytes >= hidden_bytes) {
        return self->batch;
    }
    size_t group = hidden_bytes / bytes * self->batch;
    return group < self->windows->count ? group : self->windows->count;
}

static mq_status allocate(scorer *self, mq_error *err) {
    const mq_model *reference = self->scored->reference;
    size_t length = self->windows->length;
    size_t rows, all_rows, predictions = self->batch * (length - 1);
    if (!mq_mul_size(&rows, self->group, length) ||
        !mq_mul_size(&all_rows, rows, self->scored->count)) {
        return mq_fail_memory(err, "hidden states", SIZE_MAX);
    }
    mq_status status =
        mq_new(&self->nll, predictions, sizeof *self->nll, "losses of the tokens", err);
    if (status == MQ_OK) {
        status = mq_new(&self->targets, predictions, sizeof *self->targets, "target tokens", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&self->hidden, all_rows, self->config->hidden_size * sizeof *self->hidden,
                        "hidden states", err);
    }
    if (status == MQ_OK && reference) {
        status = mq_new(&self->reference_hidden, rows,
                        reference->config.hidden_size * sizeof *self->reference_hidden,
                        "hidden states of the reference", err);
    }
    if (status == MQ_OK && reference) {
        status = mq_new(&self->kl, predictions, sizeof *self->kl, "divergences of the tokens", err);
    }
    if (status == MQ_OK && reference) {
        status = mq_new(&self->same_top, predictions, 1, "agreement of the tokens", err);
    }
    return status;
}

mq_status mq_score_windows(const mq_window_scores *scores, const mq_scored *scored,
                           const mq_sequences *windows, size_t batch, size_t hidden_bytes,
                           const mq_context *context, mq_error *err) {
    scorer self = {.scores = scores,
                   .scored = scored,
                   .config = &scored->models[0]->config,
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
