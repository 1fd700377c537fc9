#include "store/symmetric.h"

#include <string.h>

#include "base/error.h"
#include "tensor/dtype.h"

static bool is_symmetric(uint16_t scale_bits, uint16_t bias_bits, unsigned width) {
    const float scale = mq_f16_to_f32(scale_bits), bias = mq_f16_to_f32(bias_bits);
    return bias == -(float)(1u << (width - 1)) * scale &&
           mq_bf16_to_f32(mq_f32_to_bf16(scale)) == scale;
}

mq_status mq_check_symmetric_pairs(const mq_master_view *view, unsigned width, mq_error *err) {
    const mq_tensor_info *scales = view->scales[width], *biases = view->biases[width];
    for (size_t g = 0; g < view->out * view->groups; g++) {
        uint16_t scale, bias;
        memcpy(&scale, scales->data + g * sizeof scale, sizeof scale);
        memcpy(&bias, biases->data + g * sizeof bias, sizeof bias);
        if (!is_symmetric(scale, bias, width)) {
            return mq_fail_tensor(
                err, MQ_ERR_INPUT, biases->file, biases->name,
                "row %zu, group %zu: the zero point is symmetric, but the bias is not -%u times a "
                "scale of 8 significant bits",
                g / view->groups, g % view->groups, 1u << (width - 1));
        }
    }
    return MQ_OK;
}

mq_status mq_check_symmetric_codes(const mq_master_view *view, mq_error *err) {
    const unsigned char *zero = memchr(view->codes->data, 0, view->codes->bytes);
    return zero == NULL
               ? MQ_OK
               : mq_fail_offset(err, MQ_ERR_INPUT, view->codes->file, view->codes->name,
                                view->codes->file_offset + (size_t)(zero - view->codes->data),
                                "a code is 0, which a symmetric zero point leaves out");
}
