/* Log-likelihoods of all choices: batches through the blocks in groups, then the rows that predict
 * a continuation through the head. */
#include <string.h>

#include "eval/score.h"
#include "eval/tasks_pack.h"

typedef struct scorer {
    mq_task_set *set;
    const mq_model *model;
    mq_task_packing packing;
    size_t group_rows;         /* rows that the hidden states have room for */
    float *hidden;             /* [group_rows, hidden_size] */
    float *predicting;         /* [most_predictions, hidden_size] */
    float *nll;                /* [most_predictions] */
    int32_t *targets;          /* [most_predictions] */
    const mq_context *context; /* the caller's */

    mq_context inner; /* for the library below, whose progress is translated */
    double row_work, prediction_work, total_work; /* weights that a product goes through */
    double work_done;                             /* of what is finished */
    double group_work;                            /* of the blocks' pass that is running */
    double start;
} scorer;

/* --- progress --------------------------------------------------------------------------------- */

/* Work is counted in multiply-adds; the user is told items, as if each were as much work. */
static void report(const scorer *self, double work) {
    const double items = (double)self->set->item_count;
    const mq_progress progress = {.phase = "tasks",
                                  .unit = "item",
                                  .done = work < self->total_work ? items * work / self->total_work
                                                                  : items,
                                  .total = items,
                                  .elapsed_seconds = mq_seconds() - self->start};
    mq_report(self->context, &progress);
}

static void forward_progress(void *user, const mq_progress *progress) {
    const scorer *self = user;
    report(self, self->work_done + self->group_work * progress->done / progress->total);
}

static void pass_message(void *user, mq_log_level level, const char *text) {
    const scorer *self = user;
    mq_log(self->context, level, "%s", text);
}

static void set_work(scorer *self) {
    const mq_config *config = &self->model->config;
    self->row_work = mq_block_weight_count(config) * (double)config->num_hidden_layers;
    self->prediction_work = (double)config->vocab_size * (double)config->hidden_size;
    self->total_work = (double)self->packing.rows * self->row_work +
                       (double)self->packing.prediction_count * self->prediction_work;
}

/* --- scoring ---------------------------------------------------------------------------------- */

/* Batch b, whose rows are hidden[rows, hidden_size]. */
static mq_status score_batch(scorer *self, size_t b, const float *hidden, mq_error *err) {
    const mq_task_packing *packing = &self->packing;
    const size_t width = self->model->config.hidden_size;
    const mq_task_prediction *predictions = packing->predictions + packing->first_prediction[b];
    const size_t count = packing->first_prediction[b + 1] - packing->first_prediction[b];
    for (size_t i = 0; i < count; i++) {
        memcpy(self->predicting + i * width, hidden + predictions[i].row * width,
               width * sizeof *hidden);
        self->targets[i] = predictions[i].target;
    }
    const mq_head_side side = {self->model, self->predicting};
    const mq_head_scores scores = {.nll = self->nll};
    mq_status status = mq_head_score(&scores, &side, NULL, self->targets, count, &self->inner, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        self->set->choices[predictions[i].choice].loglikelihood -= (double)self->nll[i];
    }
    return status;
}

/* Batches [first, first + count). */
static mq_status score_group(scorer *self, size_t first, size_t count, mq_error *err) {
    const mq_packed *batches = self->packing.batches + first;
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        rows += batches[i].rows;
    }
    self->group_work = (double)rows * self->row_work;
    mq_status status =
        mq_packed_forward(self->hidden, self->model, batches, count, "tasks", &self->inner, err);
    self->work_done += self->group_work;
    const float *hidden = self->hidden;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const size_t *predictions = self->packing.first_prediction + first + i;
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            status = score_batch(self, first + i, hidden, err);
        }
        hidden += batches[i].rows * self->model->config.hidden_size;
        self->work_done += (double)(predictions[1] - predictions[0]) * self->prediction_work;
        if (status == MQ_OK) {
            report(self, self->work_done);
        }
    }
    return status;
}

/* How many batches from `first` on go into the hidden states; at least one. */
static size_t group_at(const scorer *self, size_t first) {
    size_t rows = self->packing.batches[first].rows, end = first + 1;
    while (end < self->packing.batch_count &&
           self->packing.batches[end].rows <= self->group_rows - rows) {
        rows += self->packing.batches[end++].rows;
    }
    return end - first;
}

static mq_status allocate(scorer *self, size_t hidden_bytes, mq_error *err) {
    const mq_task_packing *packing = &self->packing;
    const size_t row = self->model->config.hidden_size * sizeof(float);
    self->group_rows = hidden_bytes / row;
    if (self->group_rows > packing->rows) {
        self->group_rows = packing->rows;
    }
    if (self->group_rows < packing->most_rows) {
        self->group_rows = packing->most_rows;
    }
    mq_status status = mq_new(&self->hidden, self->group_rows, row, "hidden states", err);
    if (status == MQ_OK) {
        status = mq_new(&self->predicting, packing->most_predictions, row,
                        "hidden states that predict", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&self->nll, packing->most_predictions, sizeof *self->nll,
                        "losses of the tokens", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&self->targets, packing->most_predictions, sizeof *self->targets,
                        "target tokens", err);
    }
    return status;
}

mq_status mq_task_score(mq_task_set *set, size_t *rows, const mq_model *model, size_t batch_rows,
                        size_t hidden_bytes, const mq_context *context, mq_error *err) {
    scorer self = {.set = set, .model = model, .context = context, .start = mq_seconds()};
    self.inner = mq_context_inner(context, &(mq_sink){&self, pass_message, forward_progress});
    for (size_t c = 0; c < set->choice_count; c++) {
        set->choices[c].loglikelihood = 0;
    }
    mq_status status = mq_task_pack(&self.packing, set, batch_rows, err);
    if (status == MQ_OK) {
        set_work(&self);
        *rows = self.packing.rows;
        status = allocate(&self, hidden_bytes, err);
    }
    for (size_t first = 0; status == MQ_OK && first < self.packing.batch_count;) {
        const size_t count = group_at(&self, first);
        status = score_group(&self, first, count, err);
        first += count;
    }
    mq_free(self.hidden);
    mq_free(self.predicting);
    mq_free(self.nll);
    mq_free(self.targets);
    mq_slab_free(&self.packing.memory);
    return status;
}
