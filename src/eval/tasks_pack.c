/* Items to packed batches: every choice's rows follow those of the choices before it, and what it
 * shares with one of them stays there. */
#include "eval/tasks_pack.h"

/* Rows that are the choice's own: its input tokens without the shared ones. */
static size_t own_rows(const mq_task_choice *choice) { return choice->length - 1 - choice->shared; }

static size_t item_rows(const mq_task_set *set, const mq_task_item *item) {
    size_t rows = 0;
    for (size_t c = item->first; c < item->first + item->count; c++) {
        rows += own_rows(&set->choices[c]);
    }
    return rows;
}

/* On the way through the runs of rows before a choice's own, from the last to the first: all of
 * them are the beginnings of own rows of earlier choices. Begins as {choice->parent,
 * choice->shared}. */
typedef struct run_walk {
    size_t holder; /* whose tokens the choice has ... */
    size_t end;    /* ... before this position */
} run_walk;

/* The next run: count own rows of choice *holder; false when there is none left. */
static bool next_run(size_t *holder, size_t *count, run_walk *walk, const mq_task_set *set) {
    while (walk->end > 0) {
        const size_t first_own = set->choices[walk->holder].shared;
        *holder = walk->holder;
        walk->holder = set->choices[walk->holder].parent;
        if (walk->end > first_own) {
            *count = walk->end - first_own;
            walk->end = first_own;
            return true;
        }
    }
    return false;
}

static size_t run_count(const mq_task_set *set, const mq_task_choice *choice) {
    run_walk walk = {choice->parent, choice->shared};
    size_t holder, rows, count = 0;
    while (next_run(&holder, &rows, &walk, set)) {
        count++;
    }
    return count;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* What has to be stored, and where the storing stands. */
typedef struct store {
    int32_t *ids;
    size_t *positions;
    mq_packed_sequence *sequences;
    mq_row_run *runs;
    size_t *first_row; /* [choices]: of each choice's own rows, in its batch */
    size_t rows, sequence_count, run_count;
} store;

static void carve(mq_task_packing *out, store *s, const mq_task_set *set, const store *sizes) {
    mq_slab *slab = &out->memory;
    s->ids = mq_carve(slab, sizes->rows, sizeof *s->ids);
    s->positions = mq_carve(slab, sizes->rows, sizeof *s->positions);
    s->sequences = mq_carve(slab, sizes->sequence_count, sizeof *s->sequences);
    s->runs = mq_carve(slab, sizes->run_count, sizeof *s->runs);
    s->first_row = mq_carve(slab, set->choice_count, sizeof *s->first_row);
    out->batches = mq_carve(slab, out->batch_count, sizeof *out->batches);
    out->first_item = mq_carve(slab, out->batch_count + 1, sizeof *out->first_item);
    out->first_prediction = mq_carve(slab, out->batch_count + 1, sizeof *out->first_prediction);
    out->predictions = mq_carve(slab, out->prediction_count, sizeof *out->predictions);
}

/* Where a batch that begins with item `first` ends. */
static size_t batch_end(const mq_task_set *set, size_t first, size_t batch_rows) {
    size_t rows = item_rows(set, &set->items[first]), end = first + 1;
    while (end < set->item_count) {
        const size_t more = item_rows(set, &set->items[end]);
        if (more > batch_rows || rows > batch_rows - more) {
            break;
        }
        rows += more;
        end++;
    }
    return end;
}

static void count_all(mq_task_packing *out, store *sizes, const mq_task_set *set,
                      size_t batch_rows) {
    for (size_t i = 0; i < set->item_count; i = batch_end(set, i, batch_rows)) {
        out->batch_count++;
    }
    for (size_t c = 0; c < set->choice_count; c++) {
        const mq_task_choice *choice = &set->choices[c];
        sizes->rows += own_rows(choice);
        sizes->sequence_count += own_rows(choice) > 0;
        sizes->run_count += run_count(set, choice);
        out->prediction_count += choice->length - choice->context;
    }
    out->rows = sizes->rows;
}

/* --- filling ---------------------------------------------------------------------------------- */

/* The row of a choice's input token at `position`, in its batch. */
static size_t row_of(const store *s, const mq_task_set *set, size_t c, size_t position) {
    while (position < set->choices[c].shared) {
        c = set->choices[c].parent;
    }
    return s->first_row[c] + position - set->choices[c].shared;
}

/* The choice's own rows as a sequence of the batch. */
static void put_sequence(store *s, mq_packed *batch, const mq_task_set *set, size_t c) {
    const mq_task_choice *choice = &set->choices[c];
    const size_t own = own_rows(choice), count = run_count(set, choice);
    s->first_row[c] = batch->rows;
    if (own == 0) {
        return;
    }
    run_walk walk = {choice->parent, choice->shared};
    for (size_t i = count, holder, rows; next_run(&holder, &rows, &walk, set);) {
        s->runs[s->run_count + --i] = (mq_row_run){s->first_row[holder], rows};
    }
    for (size_t i = 0; i < own; i++) {
        s->ids[s->rows + i] = set->ids[choice->first + choice->shared + i];
        s->positions[s->rows + i] = choice->shared + i;
    }
    s->sequences[s->sequence_count++] = (mq_packed_sequence){.own = {batch->rows, own},
                                                             .position = choice->shared,
                                                             .before = s->runs + s->run_count,
                                                             .before_count = count};
    s->run_count += count;
    s->rows += own;
    batch->rows += own;
    batch->sequence_count++;
    batch->longest = choice->length - 1 > batch->longest ? choice->length - 1 : batch->longest;
}

static size_t put_predictions(mq_task_prediction *to, const store *s, const mq_task_set *set,
                              size_t c) {
    const mq_task_choice *choice = &set->choices[c];
    size_t count = 0;
    for (size_t i = choice->context; i < choice->length; i++) {
        to[count++] = (mq_task_prediction){
            .row = row_of(s, set, c, i - 1), .choice = c, .target = set->ids[choice->first + i]};
    }
    return count;
}

static void fill(mq_task_packing *out, store *s, const mq_task_set *set, size_t batch_rows) {
    size_t item = 0, predictions = 0;
    for (size_t b = 0; b < out->batch_count; b++) {
        mq_packed *batch = &out->batches[b];
        *batch = (mq_packed){.ids = s->ids + s->rows,
                             .positions = s->positions + s->rows,
                             .sequences = s->sequences + s->sequence_count};
        out->first_item[b] = item;
        out->first_prediction[b] = predictions;
        for (const size_t end = batch_end(set, item, batch_rows); item < end; item++) {
            const mq_task_item *at = &set->items[item];
            for (size_t c = at->first; c < at->first + at->count; c++) {
                put_sequence(s, batch, set, c);
                predictions += put_predictions(out->predictions + predictions, s, set, c);
            }
        }
        const size_t made = predictions - out->first_prediction[b];
        out->most_rows = batch->rows > out->most_rows ? batch->rows : out->most_rows;
        out->most_predictions = made > out->most_predictions ? made : out->most_predictions;
    }
    out->first_item[out->batch_count] = item;
    out->first_prediction[out->batch_count] = predictions;
}

mq_status mq_task_pack(mq_task_packing *out, const mq_task_set *set, size_t batch_rows,
                       mq_error *err) {
    store sizes = {0}, s = {0};
    *out = (mq_task_packing){0};
    count_all(out, &sizes, set, batch_rows);
    carve(out, &s, set, &sizes);
    mq_status status = mq_slab_allocate(&out->memory, "the packed items", err);
    if (status == MQ_OK) {
        carve(out, &s, set, &sizes);
        fill(out, &s, set, batch_rows);
    }
    return status;
}
