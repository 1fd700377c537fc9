/* The search for grids with a whole zero point: a part of fit_kernel.h. */
#ifndef MQ_EXPORT_FIT_INTEGER_H
#define MQ_EXPORT_FIT_INTEGER_H

#include "export/fit_lanes.h"

enum { STARTS_MAX = 16, TURNS_MAX = 7, TOGETHER = 2 };

/* A grid that is tried; better: the scale that is best for its codes. */
typedef struct trial {
    float scale, error, better;
    unsigned zero;
} trial;

static inline float integer_code(float value, float inverse, float zero, float last) {
    return (float)(int)between(value * inverse + zero + 0.5f, 0, last);
}

/* scale: as it will be stored. */
static inline trial try_integer(const mq_fit_levels *levels, unsigned zero, float scale) {
    const float inverse = scale > 0 ? 1 / scale : 0, z = (float)zero, last = (float)levels->last;
    float sum[LANES] = {0}, tt[LANES] = {0}, tw[LANES] = {0};
    for (size_t i = 0; i < levels->padded; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            const float value = levels->values[i + l];
            const float t = integer_code(value, inverse, z, last) - z;
            const float error = scale * t - value, weighted = levels->times[i + l] * t;
            sum[l] += levels->times[i + l] * error * error;
            tt[l] += weighted * t;
            tw[l] += weighted * value;
        }
    }
    const float squares = sum_lanes(tt);
    return (trial){.scale = scale,
                   .error = sum_lanes(sum),
                   .better = squares > 0 ? sum_lanes(tw) / squares : 0,
                   .zero = zero};
}

/* Several trials, one a lane. */
typedef struct trials {
    side_f scale, error, better, zero;
} trials;

/* What try_integer adds up, of each trial, over the levels i, i + LANES, ... */
static inline side_sums add_levels(const mq_fit_levels *levels, size_t i, const trials *at,
                                   side_f inverse) {
    const side_f none = {0}, zero = at->zero, scale = at->scale;
    const side_f last = (float)levels->last - none;
    side_sums sums = {none, none, none};
    for (; i < levels->count; i += LANES) {
        const side_f value = levels->values[i] - none, times = levels->times[i] - none;
        const side_f near = side_between(value * inverse + zero + 0.5f, none, last);
        const side_f from_zero = side_whole(near) - zero, weighted = times * from_zero;
        const side_f error = scale * from_zero - value;
        sums.error += times * error * error;
        sums.squares += weighted * from_zero;
        sums.products += weighted * value;
    }
    return sums;
}

/* try_integer of each lane; its sums are taken in the same order, so that results are the same. */
static inline void try_integers(trials *now, const mq_fit_levels *levels) {
    const side_f none = {0};
    const side_f inverse = side_pick(now->scale > none, 1 / now->scale, none);
    side_sums half[2];
    for (size_t k = 0; k < 2; k++) {
        side_sums quarter[2];
        for (size_t j = 0; j < 2; j++) {
            const size_t i = k + 2 * j;
            quarter[j] = side_sum(side_sum(add_levels(levels, i, now, inverse),
                                           add_levels(levels, i + 8, now, inverse)),
                                  side_sum(add_levels(levels, i + 4, now, inverse),
                                           add_levels(levels, i + 12, now, inverse)));
        }
        half[k] = side_sum(quarter[0], quarter[1]);
    }
    const side_sums all = side_sum(half[0], half[1]);
    now->error = all.error;
    now->better = side_pick(all.squares > none, all.products / all.squares, none);
}

/* Scale by least squares, and codes to the nearest level once more, in each lane where that makes
 * something better still. */
static inline void take_turn(trials *now, side_i *active, const mq_fit_levels *levels,
                             mq_dtype dtype) {
    trials next = {.scale = side_rounded(now->better, dtype), .zero = now->zero};
    *active &= next.scale != now->scale;
    try_integers(&next, levels);
    *active &= next.error < now->error;
    now->scale = side_pick(*active, next.scale, now->scale);
    now->error = side_pick(*active, next.error, now->error);
    now->better = side_pick(*active, next.better, now->better);
}

/* Such turns of one trial, so many at most. */
static trial improve(trial now, const mq_fit_levels *levels, size_t turns, mq_dtype dtype) {
    for (size_t k = 0; k < turns; k++) {
        const float scale = fit_rounded(now.better, dtype);
        if (scale == now.scale) { /* nothing would change any more */
            break;
        }
        const trial next = try_integer(levels, now.zero, scale);
        if (!(next.error < now.error)) {
            break;
        }
        now = next;
    }
    return now;
}

/* Zero points near the slice's own, which need not be within reach; from its own step, and from the
 * least one that reaches both ends. */
typedef struct start_list {
    size_t count;
    float scales[STARTS_MAX], zeros[STARTS_MAX], errors[STARTS_MAX], better[STARTS_MAX];
} start_list;

static void make_starts(start_list *out, const mq_fit_levels *levels) {
    const double own = levels->step > 0 ? -levels->low / levels->step : 0;
    const double near = own < 0 ? 0 : own > levels->last ? levels->last : nearbyint(own);
    const unsigned reach = levels->last <= 7 ? levels->last : 2;
    const unsigned middle = (unsigned)near, first = middle > reach ? middle - reach : 0;
    memset(out, 0, sizeof *out);
    for (unsigned zero = first; zero <= middle + reach && zero <= levels->last; zero++) {
        const double up =
            levels->high > 0 && zero < levels->last ? levels->high / (levels->last - zero) : 0;
        const double down = levels->low < 0 && zero > 0 ? -levels->low / zero : 0;
        out->scales[out->count] = (float)levels->step;
        out->scales[out->count + 1] = (float)(up > down ? up : down);
        out->zeros[out->count] = out->zeros[out->count + 1] = (float)zero;
        out->count += 2;
    }
}

/* SIDES of the starts of a group. */
typedef struct job {
    start_list *at;
    const mq_fit_levels *levels;
    size_t first;
} job;

static inline void load_starts(trials *now, side_i *active, const job *from, mq_dtype dtype) {
    memcpy(&now->scale, from->at->scales + from->first, sizeof now->scale);
    memcpy(&now->zero, from->at->zeros + from->first, sizeof now->zero);
    now->scale = side_rounded(now->scale, dtype);
    for (size_t l = 0; l < SIDES; l++) {
        (*active)[l] = from->first + l < from->at->count ? -1 : 0;
    }
    try_integers(now, from->levels);
}

static inline void store_starts(const trials *now, const job *to) {
    memcpy(to->at->scales + to->first, &now->scale, sizeof now->scale);
    memcpy(to->at->errors + to->first, &now->error, sizeof now->error);
    memcpy(to->at->better + to->first, &now->better, sizeof now->better);
}

/* Each start as far as so many turns take it. Jobs go on together, so that a processor has
 * something to do while one of them waits for its sums. */
static void run_jobs(const job jobs[TOGETHER], size_t turns, mq_dtype dtype) {
    trials now[TOGETHER];
    side_i active[TOGETHER];
    for (size_t i = 0; i < TOGETHER; i++) {
        load_starts(&now[i], &active[i], &jobs[i], dtype);
    }
    for (size_t k = 0; k < turns; k++) {
        side_i any = {0};
        for (size_t i = 0; i < TOGETHER; i++) {
            take_turn(&now[i], &active[i], jobs[i].levels, dtype);
            any |= active[i];
        }
        if (!side_any(any)) {
            break;
        }
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        store_starts(&now[i], &jobs[i]);
    }
}

static void run_starts(start_list *at, const mq_fit_levels *levels, size_t count, size_t turns,
                       mq_dtype dtype) {
    job jobs[TOGETHER];
    size_t waiting = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t first = 0; first < at[i].count; first += SIDES) {
            jobs[waiting++] = (job){&at[i], &levels[i], first};
            if (waiting == TOGETHER) {
                run_jobs(jobs, turns, dtype);
                waiting = 0;
            }
        }
    }
    if (waiting > 0) { /* the last one again, to fill up: it stays what it is */
        for (size_t i = waiting; i < TOGETHER; i++) {
            jobs[i] = jobs[waiting - 1];
        }
        run_jobs(jobs, turns, dtype);
    }
}

static trial trial_at(const start_list *from, size_t i) {
    return (trial){from->scales[i], from->errors[i], from->better[i], (unsigned)from->zeros[i]};
}

/* With many levels, a turn from each start told which two are worth more; with few, starts end too
 * far from where a turn takes them. */
static void choose_start(mq_fit_grid *out, const start_list *at, const mq_fit_levels *levels,
                         bool goes_on, mq_dtype dtype) {
    size_t first = 0, second = at->count;
    for (size_t i = 1; i < at->count; i++) {
        if (at->errors[i] < at->errors[first]) {
            second = first;
            first = i;
        } else if (second == at->count || at->errors[i] < at->errors[second]) {
            second = i;
        }
    }
    trial best = trial_at(at, first);
    if (goes_on) {
        const trial other = improve(trial_at(at, second), levels, TURNS_MAX, dtype);
        best = improve(best, levels, TURNS_MAX, dtype);
        best = other.error < best.error ? other : best;
    }
    const float inverse = best.scale > 0 ? 1 / best.scale : 0;
    out->scale = best.scale;
    out->zero = best.zero;
    for (size_t i = 0; i < levels->count; i++) {
        out->codes[i] =
            integer_code(levels->values[i], inverse, (float)best.zero, (float)levels->last);
    }
}

static void fit_integer(mq_fit_grid *out, const mq_fit_levels *levels, size_t count,
                        mq_dtype dtype) {
    start_list at[MQ_FIT_GROUPS];
    const bool goes_on = levels[0].last > 127;
    for (size_t i = 0; i < count; i++) {
        make_starts(&at[i], &levels[i]);
    }
    run_starts(at, levels, count, goes_on ? 1 : TURNS_MAX, dtype);
    for (size_t i = 0; i < count; i++) {
        choose_start(&out[i], &at[i], &levels[i], goes_on, dtype);
    }
}

#endif
