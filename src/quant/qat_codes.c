/* Offsets to codes, and their step. */
#include "quant/qat_codes.h"

#include <math.h>
#include <string.h>

#include "quant/lanes.h"

mq_qat_rule mq_qat_rule_of(const unsigned *widths, const double *lambda, size_t width_count,
                           mq_slice_rule slice_rule, mq_zero_point zero_point) {
    mq_qat_rule rule = {.nested = slice_rule == MQ_SLICE_TOP,
                        .symmetric = zero_point == MQ_ZERO_SYMMETRIC};
    for (size_t i = 0; i < width_count; i++) {
        if (lambda[i] > 0.0) {
            rule.widths[rule.width_count] = widths[i];
            rule.lambda[rule.width_count++] = lambda[i];
            rule.offset_count += rule.nested && widths[i] < MQ_MAX_WIDTH ? 1 : 0;
        }
    }
    if (!rule.nested) {
        rule.offset_count = 1;
    }
    return rule;
}

void mq_qat_codes_carve(mq_qat_codes *self, const mq_qat_rule *rule, size_t out, size_t in,
                        size_t groups, mq_slab *slab) {
    *self = (mq_qat_codes){.rule = rule, .out = out, .in = in, .groups = groups};
    if (groups == 0) {
        return;
    }
    self->start = mq_carve(slab, out, in);
    self->now = mq_carve(slab, out, in);
    for (size_t j = 0; j < rule->offset_count; j++) {
        self->offset[j] = mq_carve(slab, out, in * sizeof(float));
        self->square[j] = mq_carve(slab, out, groups * sizeof(float));
    }
}

void mq_qat_codes_begin(mq_qat_codes *self) {
    memcpy(self->now, self->start, self->out * self->in);
    for (size_t j = 0; j < self->rule->offset_count; j++) {
        memset(self->offset[j], 0, self->out * self->in * sizeof(float));
        memset(self->square[j], 0, self->out * self->groups * sizeof(float));
    }
}

/* --- codes ------------------------------------------------------------------------------------ */

/* Number in widths of offset j's width: they descend, offsets rise. */
static size_t width_at(const mq_qat_rule *rule, size_t j) { return rule->width_count - 1 - j; }

/* The levels of a chunk: offsets' widths from the narrowest on, then 8 bits. */
typedef struct chunk_levels {
    float code[MQ_CHUNK];                 /* of 8 bits */
    float bound[MQ_MAX_WIDTHS][MQ_CHUNK]; /* 1 where the level's clamp binds, else 0 */
} chunk_levels;

static void nested_chunk(chunk_levels *levels, const mq_qat_codes *self, size_t at, size_t n) {
    const mq_qat_rule *rule = self->rule;
    float *code = levels->code;
    unsigned parent = 0;
    memset(code, 0, n * sizeof *code);
    for (size_t j = 0; j <= rule->offset_count; j++) {
        const bool last = j == rule->offset_count;
        const unsigned width = last ? MQ_MAX_WIDTH : rule->widths[width_at(rule, j)];
        const float room = (float)(1u << (width - parent));
        const float shrink = 1.0f / (float)(1u << (MQ_MAX_WIDTH - width));
        float soft[MQ_CHUNK];
        for (size_t i = 0; i < n; i++) {
            soft[i] = ((float)self->start[at + i] + 0.5f) * shrink;
        }
        for (size_t i = 0; !last && i < n; i++) {
            soft[i] += self->offset[j][at + i];
        }
        for (size_t i = 0; i < n; i++) {
            const float begin = code[i] * room, end = begin + room;
            levels->bound[j][i] = soft[i] > begin && soft[i] < end ? 0.0f : 1.0f;
            float s = soft[i] > begin ? soft[i] : begin;
            s = s < end - 1.0f ? s : end - 1.0f;
            code[i] = (float)(int)s;
        }
        parent = width;
    }
}

/* Steps of 8 bits in one of the offset's. */
static float plain_unit(const mq_qat_rule *rule) {
    return (float)(1u << (MQ_MAX_WIDTH - rule->widths[rule->width_count - 1]));
}

static void plain_chunk(chunk_levels *levels, const mq_qat_codes *self, size_t at, size_t n) {
    const float unit = plain_unit(self->rule), first = self->rule->symmetric ? 1.0f : 0.0f;
    for (size_t i = 0; i < n; i++) {
        float u = (float)self->start[at + i] + 0.5f + self->offset[0][at + i] * unit;
        u = u > first ? u : first;
        u = u < 255.0f ? u : 255.0f;
        levels->code[i] = (float)(int)u;
    }
}

static void make_codes(mq_qat_codes *self, size_t at, size_t n) {
    chunk_levels levels;
    if (self->rule->nested) {
        nested_chunk(&levels, self, at, n);
    } else {
        plain_chunk(&levels, self, at, n);
    }
    for (size_t i = 0; i < n; i++) {
        self->now[at + i] = (uint8_t)levels.code[i];
    }
}

/* --- gradients -------------------------------------------------------------------------------- */

/* What a step has for one group. */
typedef struct group_step {
    float *const *gradient;
    float by_soft[MQ_MAX_WIDTHS]; /* lambda·scale of each width; 0: not visited */
} group_step;

/* Of a chunk: gradients by the offsets in place of those by the weights of the offsets' widths. */
static void nested_gradients(const group_step *step, const mq_qat_codes *self, size_t at,
                             size_t n) {
    const mq_qat_rule *rule = self->rule;
    chunk_levels levels;
    float above[MQ_CHUNK]; /* what the level above passes down */
    nested_chunk(&levels, self, at, n);
    unsigned wider = MQ_MAX_WIDTH;
    for (size_t i = 0; i < n; i++) {
        const bool visited = rule->widths[0] == MQ_MAX_WIDTH && step->gradient[0] != NULL;
        above[i] = visited ? step->by_soft[0] * step->gradient[0][at + i] *
                                 levels.bound[rule->offset_count][i]
                           : 0.0f;
    }
    for (size_t j = rule->offset_count; j-- > 0;) {
        const size_t k = width_at(rule, j);
        const float room = (float)(1u << (wider - rule->widths[k])), by_soft = step->by_soft[k];
        float *gradient = step->gradient[k] + at;
        for (size_t i = 0; i < n; i++) {
            const float by_level = by_soft * gradient[i] + room * above[i];
            const float down = j > 0 ? levels.bound[j][i] : 0.0f; /* the ends stay ends */
            above[i] = down * by_level;
            gradient[i] = (1.0f - down) * by_level;
        }
        wider = rule->widths[k];
    }
}

static void plain_gradients(const group_step *step, const mq_qat_codes *self, size_t at, size_t n) {
    const mq_qat_rule *rule = self->rule;
    const unsigned narrowest = rule->widths[rule->width_count - 1];
    float *sum = step->gradient[rule->width_count - 1] + at;
    for (size_t i = 0; i < n; i++) {
        sum[i] *= step->by_soft[rule->width_count - 1];
    }
    for (size_t k = 0; k + 1 < rule->width_count; k++) {
        if (step->gradient[k] != NULL) {
            const float unit = (float)(1u << (rule->widths[k] - narrowest));
            const float by_offset = step->by_soft[k] * unit;
            for (size_t i = 0; i < n; i++) {
                sum[i] += by_offset * step->gradient[k][at + i];
            }
        }
    }
}

/* --- the step --------------------------------------------------------------------------------- */

/* Beyond the ends of all codes an offset would only have a longer way back. */
static float inside(const mq_qat_codes *self, float offset, size_t at, float unit) {
    const float z = ((float)self->start[at] + 0.5f) / unit, most = 256.0f / unit;
    offset = offset > -z ? offset : -z;
    return offset < most - z ? offset : most - z;
}

static void step_offsets(mq_qat_codes *self, size_t j, const float *gradient, size_t group,
                         const mq_adam *adam) {
    const size_t count = self->in / self->groups, at = group * count;
    mq_lanes squares = {{0}};
    mq_lanes_add_product(&squares, gradient, gradient, count);
    float *square = &self->square[j][group];
    *square = adam->beta2 * *square + (1.0f - adam->beta2) * mq_lanes_sum(&squares) / (float)count;
    const float root = sqrtf(*square * adam->correction2);
    const float rate = root > 0.0f ? adam->rate_rounding / root : 0.0f;
    for (size_t i = 0; i < count; i++) {
        self->offset[j][at + i] -= rate * gradient[i];
    }
    const float unit = plain_unit(self->rule); /* of the narrowest width in either case */
    for (size_t i = 0; j == 0 && i < count; i++) {
        self->offset[j][at + i] = inside(self, self->offset[j][at + i], at + i, unit);
    }
}

void mq_qat_codes_step(mq_qat_codes *self, float *const gradient[], const float *const scale[],
                       const double factor[], const mq_adam *adam) {
    const mq_qat_rule *rule = self->rule;
    const size_t count = self->in / self->groups;
#pragma omp parallel for schedule(static)
    for (size_t group = 0; group < self->out * self->groups; group++) {
        group_step step = {.gradient = gradient};
        for (size_t k = 0; k < rule->width_count; k++) {
            step.by_soft[k] =
                gradient[k] != NULL ? (float)(rule->lambda[k] * factor[k]) * scale[k][group] : 0.0f;
        }
        for (size_t done = 0; done < count; done += MQ_CHUNK) {
            const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
            if (rule->nested) {
                nested_gradients(&step, self, group * count + done, n);
            } else {
                plain_gradients(&step, self, group * count + done, n);
            }
        }
        for (size_t j = 0; j < rule->offset_count; j++) {
            step_offsets(self, j, gradient[width_at(rule, j)] + group * count, group, adam);
        }
        for (size_t done = 0; done < count; done += MQ_CHUNK) {
            make_codes(self, group * count + done,
                       count - done < MQ_CHUNK ? count - done : MQ_CHUNK);
        }
    }
}
