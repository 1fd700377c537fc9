/* kernels.h for every processor of the architecture that we are built for, and the choice between
 * them. */
#include "model/kernels.h"

#include "base/machine.h"
#include "tensor/panels.h"

extern const mq_kernels mq_kernels_baseline;
#define MQ_KERNELS_TABLE mq_kernels_baseline
#define MQ_KERNELS_NAME "baseline"
#include "model/kernels_body.h"

#if defined(__x86_64__)
extern const mq_kernels mq_kernels_avx2, mq_kernels_avx512;

const mq_kernels *mq_kernels_at(size_t index) {
    const mq_kernels *const all[] = {&mq_kernels_baseline, &mq_kernels_avx2, &mq_kernels_avx512};
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}
#else
const mq_kernels *mq_kernels_at(size_t index) { return index == 0 ? &mq_kernels_baseline : NULL; }
#endif

const mq_kernels *mq_kernels_get(void) {
    const mq_kernels *best = mq_kernels_at(0);
    for (size_t i = 1; mq_kernels_at(i); i++) {
        best = mq_kernels_at(i);
    }
    return best;
}

void mq_round_panels(mq_bf16 *y, size_t y_rows, size_t first, const float *x, size_t rows,
                     size_t columns) {
    const mq_kernels *kernels = mq_kernels_get();
    const mq_panels panels = mq_panels_of(columns);
    if (panels.count == 1) {
        kernels->to_bf16(y + first * columns, x, rows * columns);
        return;
    }
    for (size_t j = 0; j < panels.count; j++) {
        const size_t width = mq_panel_width(&panels, j);
        mq_bf16 *panel = y + mq_panel_at(&panels, j, y_rows, first);
        for (size_t r = 0; r < rows; r++) {
            kernels->to_bf16(panel + r * width, x + r * columns + j * panels.width, width);
        }
    }
}
