#include "quant/compensate.h"

#include <f77blas.h>
#include <limits.h>
#include <math.h>

#include "tensor/gemm.h"

void mq_compensation_carve(mq_compensation *self, size_t in, mq_slab *slab) {
    self->in = in;
    self->order = mq_carve(slab, in, sizeof *self->order);
    self->factor = mq_carve(slab, in, in * sizeof *self->factor);
}

/* Sorts inputs by descending diagonal; equal ones stay in their order. An insertion sort, which
 * needs no extra memory and takes negligible time compared with the factor. */
static void sort_inputs(uint32_t *order, const float *gram, size_t in) {
    for (size_t i = 0; i < in; i++) {
        const float key = gram[i * in + i];
        size_t at = i;
        while (at > 0 && gram[(size_t)order[at - 1] * in + order[at - 1]] < key) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = (uint32_t)i;
    }
}

/* factor = H reversed in `order`, so that LAPACK's lower factor L of it, inverted and reversed
 * again, is U: with J the reversal, JHJ = LLᵀ gives H⁻¹ = (J·L⁻¹·J)ᵀ(J·L⁻¹·J). */
static void gather(mq_compensation *self, const float *gram, float damping,
                   const mq_context *context) {
    const size_t n = self->in;
#pragma omp parallel for num_threads((int)mq_context_threads(context))
    for (size_t i = 0; i < n; i++) {
        const size_t row = self->order[n - 1 - i];
        float *to = self->factor + i * n;
        for (size_t j = 0; j < n; j++) {
            const size_t column = self->order[n - 1 - j];
            to[j] = row < column ? gram[row * n + column] : gram[column * n + row];
        }
        to[i] += damping;
    }
}

static void reverse(float *values, size_t count) {
    for (size_t i = 0, j = count - 1; i < j; i++, j--) {
        const float value = values[i];
        values[i] = values[j];
        values[j] = value;
    }
}

/* A row-major lower triangle is LAPACK's upper one. On one thread, for the same result on any
 * number of them. */
static bool invert(mq_compensation *self) {
    char uplo = 'U', diag = 'N';
    blasint n = (blasint)self->in, info = 0;
    BLASFUNC(spotrf)(&uplo, &n, self->factor, &n, &info);
    if (info == 0) {
        BLASFUNC(strtri)(&uplo, &diag, &n, self->factor, &n, &info);
    }
    return info == 0;
}

bool mq_compensation_set(mq_compensation *self, const float *gram, const mq_context *context) {
    const size_t n = self->in;
    double mean = 0.0;
    for (size_t i = 0; i < n; i++) {
        mean += (double)gram[i * n + i] / (double)n;
    }
    if (!isfinite(mean) || !(mean > 0.0) || n > INT_MAX) {
        return false;
    }
    sort_inputs(self->order, gram, n);
    bool good = false;
    mq_gemm_enter_single();
    /* A hundredth of the mean diagonal, as GPTQ has it, is enough for all but odd inputs. */
    for (double damping = 0.01; !good && damping < 100.0; damping *= 10.0) {
        gather(self, gram, (float)(damping * mean), context);
        good = invert(self);
    }
    mq_gemm_leave_single(context);
    reverse(self->factor, n * n);
    return good;
}
