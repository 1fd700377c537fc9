/* kernels.h for every processor of the architecture that we are built for, and the choice between
 * them. */
#include "model/kernels.h"

#include "base/machine.h"
#include "tensor/panels.h"

#define MQ_KERNEL_SYMBOL mq_kernels_base
#define MQ_KERNEL_NAME "base"
#include "model/kernels_body.h"

const mq_kernels *mq_kernels_at(size_t index) {
    static const mq_kernels *const all[] = MQ_KERNELS_OF(mq_kernels);
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}

const mq_kernels *mq_kernels_best(void) { return mq_kernels_at((size_t)mq_simd_best()); }

void mq_round_panels(mq_bf16 *y, size_t y_rows, size_t first, const float *x, size_t rows,
                     size_t columns) {
    const mq_kernels *kernels = mq_kernels_best();
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
