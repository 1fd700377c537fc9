/* The code behind kernels.h. Included by one .c file an instruction set, which defines
 * MQ_KERNEL_SYMBOL (the table) and MQ_KERNEL_NAME. `omp simd` because many of these
 * work in place, which a compiler could not rule out to be an overlap, and for sums, whose order it
 * fixes for an instruction set. */
#include <math.h>

#include "model/kernels.h"
#include "tensor/turn.h"
#include "tensor/vexp.h"

static float sum_squares(const float *x, size_t n) {
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sum;
}

static float inverse_rms(const float *x, size_t n, float eps) {
    return 1.0F / sqrtf(sum_squares(x, n) / (float)n + eps);
}

static void scale_by_weight(float *y, const float *x, float inv, const float *weight, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] * inv * weight[i];
    }
}

static void rmsnorm(float *y, float *inv_rms, const float *x, const float *weight, size_t rows,
                    size_t n, float eps) {
    for (size_t r = 0; r < rows; r++) {
        inv_rms[r] = inverse_rms(x + r * n, n, eps);
        scale_by_weight(y + r * n, x + r * n, inv_rms[r], weight, n);
    }
}

static void add(float *y, const float *a, const float *b, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        y[i] = a[i] + b[i];
    }
}

static void add_rmsnorm(float *sum, float *y, float *inv_rms, const float *a, const float *b,
                        const float *weight, size_t rows, size_t n, float eps) {
    for (size_t r = 0; r < rows; r++) {
        add(sum + r * n, a + r * n, b + r * n, n);
        inv_rms[r] = inverse_rms(sum + r * n, n, eps);
        scale_by_weight(y + r * n, sum + r * n, inv_rms[r], weight, n);
    }
}

static void rmsnorm_add(float *sum, float *inv_rms, const float *a, const float *x,
                        const float *weight, size_t rows, size_t n, float eps) {
    for (size_t r = 0; r < rows; r++) {
        const float *base = a + r * n, *row = x + r * n;
        float *out = sum + r * n;
        const float inv = inv_rms[r] = inverse_rms(row, n, eps);
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            out[i] = base[i] + row[i] * inv * weight[i];
        }
    }
}

/* With g = dy · weight: dx = inv · (g - x · inv² · mean(g · x)); dweight += dy · x · inv. */
static void rmsnorm_backward(float *dx, float *dweight, const float *base, const float *dy,
                             const float *x, const float *inv_rms, const float *weight, size_t rows,
                             size_t n) {
    for (size_t r = 0; r < rows; r++) {
        const float *dy_row = dy + r * n, *x_row = x + r * n;
        const float inv = inv_rms[r];
        if (dweight) {
#pragma omp simd
            for (size_t i = 0; i < n; i++) {
                dweight[i] += dy_row[i] * x_row[i] * inv;
            }
        }
        if (!dx) {
            continue;
        }
        float dot = 0.0F;
#pragma omp simd reduction(+ : dot)
        for (size_t i = 0; i < n; i++) {
            dot += dy_row[i] * weight[i] * x_row[i];
        }
        const float along = dot * inv * inv / (float)n;
        float *dx_row = dx + r * n;
        if (base) {
            const float *base_row = base + r * n;
#pragma omp simd
            for (size_t i = 0; i < n; i++) {
                dx_row[i] = base_row[i] + inv * (dy_row[i] * weight[i] - x_row[i] * along);
            }
        } else {
#pragma omp simd
            for (size_t i = 0; i < n; i++) {
                dx_row[i] = inv * (dy_row[i] * weight[i] - x_row[i] * along);
            }
        }
    }
}

static void add_bias(float *y, const float *bias, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        add(y + r * n, y + r * n, bias, n);
    }
}

static void column_sum(float *sum, const float *x, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        add(sum, sum, x + r * n, n);
    }
}

static float dot(const float *a, const float *b, size_t count) {
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void scale(float *y, float factor, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        y[i] *= factor;
    }
}

/* Pairs of rows, a pair of whose numbers is a word (little endian): 16 pairs and 16 columns are a
 * square that is turned. pairs and columns: at most that many. */
static inline void turn_tile(mq_bf16 *y, size_t ld, const float *x, size_t pairs, size_t columns,
                             size_t n) {
    mq_turn_row square[MQ_TURN];
    memset(square + pairs, 0, (MQ_TURN - pairs) * sizeof *square);
    for (size_t p = 0; p < pairs; p++) {
        const float *even = x + 2 * p * n, *odd = even + n;
        uint32_t words[MQ_TURN] = {0};
#pragma omp simd
        for (size_t c = 0; c < columns; c++) {
            words[c] = (uint32_t)mq_bf16_round(even[c]) | (uint32_t)mq_bf16_round(odd[c]) << 16;
        }
        memcpy(&square[p], words, sizeof words);
    }
    mq_turn_square(square);
    for (size_t c = 0; c < columns; c++) {
        memcpy(y + c * ld, &square[c], pairs * sizeof(uint32_t));
    }
}

static void to_bf16_turned(mq_bf16 *y, size_t ld, const float *x, size_t rows, size_t n) {
    for (size_t row = 0; row < rows; row += 2 * MQ_TURN) {
        const size_t rest = rows - row, pairs = rest / 2 < MQ_TURN ? rest / 2 : MQ_TURN;
        for (size_t column = 0; column < n; column += MQ_TURN) {
            const size_t columns = n - column < MQ_TURN ? n - column : MQ_TURN;
            const float *from = x + row * n + column;
            mq_bf16 *to = y + column * ld + row;
            if (pairs == MQ_TURN && columns == MQ_TURN) { /* sizes that the compiler knows */
                turn_tile(to, ld, from, MQ_TURN, MQ_TURN, n);
            } else {
                turn_tile(to, ld, from, pairs, columns, n);
            }
            for (size_t c = 0; rest == 2 * pairs + 1 && c < columns; c++) { /* an odd last row */
                to[c * ld + rest - 1] = mq_bf16_round(from[(rest - 1) * n + c]);
            }
        }
    }
}

static void rope(float *x, const float *cos_row, const float *sin_row, size_t heads,
                 size_t head_dim, size_t half, bool inverse) {
    const float sign = inverse ? -1.0F : 1.0F;
    for (size_t h = 0; h < heads; h++) {
        float *first = x + h * head_dim, *second = first + half;
#pragma omp simd
        for (size_t i = 0; i < half; i++) {
            const float a = first[i], b = second[i], c = cos_row[i], s = sign * sin_row[i];
            first[i] = a * c - b * s;
            second[i] = b * c + a * s;
        }
    }
}

/* silu(x) = x·σ(x); silu'(x) = σ(x)·(1 + x·(1 - σ(x))). */
static inline float silu(float x) { return x * mq_sigmoid_inline(x); }

static inline void silu_gradient(float *dgate, float *dup, float d, float x, float u) {
    const float sigmoid = mq_sigmoid_inline(x);
    *dup = d * x * sigmoid;
    *dgate = d * u * sigmoid * (1.0F + x * (1.0F - sigmoid));
}

/* gelu(x) = x/2·(1 + tanh(z)), z = sqrt(2/π)·(x + 0.044715·x³) (Hendrycks & Gimpel 2016), which is
 * x·σ(2z): no difference of nearly equal numbers for negative x. gelu'(x) = σ + x·σ·(1 - σ)·2z'. */
#define MQ_GELU_FACTOR 1.5957691216F /* 2·sqrt(2/π) */
#define MQ_GELU_CUBE 0.044715F

static inline float gelu_sigmoid(float x) {
    return mq_sigmoid_inline(MQ_GELU_FACTOR * (x + MQ_GELU_CUBE * x * x * x));
}

static inline float gelu(float x) { return x * gelu_sigmoid(x); }

static inline void gelu_gradient(float *dgate, float *dup, float d, float x, float u) {
    const float sigmoid = gelu_sigmoid(x);
    const float slope = MQ_GELU_FACTOR * (1.0F + 3.0F * MQ_GELU_CUBE * x * x);
    *dup = d * x * sigmoid;
    *dgate = d * u * sigmoid * (1.0F + x * (1.0F - sigmoid) * slope);
}

/* The loops of an activation `act` with act_gradient. */
#define MQ_GLU_LOOPS(act)                                                                          \
    static void act##_glu(float *h, const float *gate, const float *up, size_t count) {            \
        _Pragma("omp simd") for (size_t i = 0; i < count; i++) { h[i] = act(gate[i]) * up[i]; }    \
    }                                                                                              \
                                                                                                   \
    static void act##_glu_backward(float *dgate, float *dup, const float *dh, const float *gate,   \
                                   const float *up, size_t count) {                                \
        _Pragma("omp simd") for (size_t i = 0; i < count; i++) {                                   \
            act##_gradient(&dgate[i], &dup[i], dh[i], gate[i], up[i]);                             \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static void act##_glu_bf16(mq_bf16 *h, mq_bf16 *gate_kept, mq_bf16 *up_kept,                   \
                               const float *gate, const float *up, size_t count) {                 \
        if (gate_kept == NULL) {                                                                   \
            _Pragma("omp simd") for (size_t i = 0; i < count; i++) {                               \
                h[i] = mq_bf16_round(act(gate[i]) * up[i]);                                        \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        _Pragma("omp simd") for (size_t i = 0; i < count; i++) {                                   \
            h[i] = mq_bf16_round(act(gate[i]) * up[i]);                                            \
            gate_kept[i] = mq_bf16_round(gate[i]);                                                 \
            up_kept[i] = mq_bf16_round(up[i]);                                                     \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static void act##_glu_backward_bf16(float *dgate, float *dup, const float *dh,                 \
                                        const mq_bf16 *gate, const mq_bf16 *up, size_t count) {    \
        _Pragma("omp simd") for (size_t i = 0; i < count; i++) {                                   \
            act##_gradient(&dgate[i], &dup[i], dh[i], mq_bf16_value(gate[i]),                      \
                           mq_bf16_value(up[i]));                                                  \
        }                                                                                          \
    }

MQ_GLU_LOOPS(silu)
MQ_GLU_LOOPS(gelu)

static void cap(float *s, size_t count, float softcap) {
    const float inverse = 1.0F / softcap;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        s[i] = softcap * mq_tanh_inline(s[i] * inverse);
    }
}

static void softmax(float *s, float *max, float *sum, size_t count, float softcap) {
    if (softcap > 0.0F) {
        cap(s, count, softcap);
    }
    const float largest = mq_largest_inline(s, count);
    float total = 0.0F;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < count; i++) {
        const float e = mq_exp_inline(s[i] - largest);
        s[i] = e;
        total += e;
    }
    *max = largest;
    *sum = total;
}

static void softmax_backward(float *s, float *ds, size_t count, float lse, float delta,
                             float factor, float softcap) {
    if (softcap > 0.0F) {
        const float inverse = 1.0F / softcap;
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            const float t = mq_tanh_inline(s[i] * inverse);
            const float p = mq_exp_inline(softcap * t - lse);
            s[i] = p;
            ds[i] = factor * p * (ds[i] - delta) * (1.0F - t * t);
        }
        return;
    }
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        const float p = mq_exp_inline(s[i] - lse);
        s[i] = p;
        ds[i] = factor * p * (ds[i] - delta);
    }
}

static void to_bf16(mq_bf16 *y, const float *x, size_t count) { mq_bf16_round_all(y, x, count); }

const mq_kernels MQ_KERNEL_SYMBOL = {
    .name = MQ_KERNEL_NAME,
    .rmsnorm = rmsnorm,
    .add_rmsnorm = add_rmsnorm,
    .rmsnorm_add = rmsnorm_add,
    .rmsnorm_backward = rmsnorm_backward,
    .add = add,
    .add_bias = add_bias,
    .column_sum = column_sum,
    .dot = dot,
    .scale = scale,
    .to_bf16 = to_bf16,
    .rope = rope,
    .to_bf16_turned = to_bf16_turned,
    .glu = {[MQ_SILU] = silu_glu, [MQ_GELU_TANH] = gelu_glu},
    .glu_backward = {[MQ_SILU] = silu_glu_backward, [MQ_GELU_TANH] = gelu_glu_backward},
    .glu_bf16 = {[MQ_SILU] = silu_glu_bf16, [MQ_GELU_TANH] = gelu_glu_bf16},
    .glu_backward_bf16 =
        {[MQ_SILU] = silu_glu_backward_bf16, [MQ_GELU_TANH] = gelu_glu_backward_bf16},
    .softmax = softmax,
    .softmax_backward = softmax_backward,
};
