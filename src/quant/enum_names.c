#include "matquant/names.h"

#include <stddef.h>
#include <string.h>

#include "matquant/inspect.h"
#include "matquant/quantize.h"
#include "matquant/slice.h"

const char *const *mq_recipe_names(void) {
    static const char *const names[] = {
        [MQ_RECIPE_BEST] = "best", [MQ_RECIPE_PAPER] = "paper", [MQ_RECIPE_RTN] = "rtn", NULL};
    return names;
}

const char *const *mq_preset_names(void) {
    static const char *const names[] = {[MQ_PRESET_NONE] = "none",
                                        [MQ_PRESET_BALANCED] = "balanced",
                                        [MQ_PRESET_NARROW] = "narrow",
                                        [MQ_PRESET_WIDE] = "wide",
                                        NULL};
    return names;
}

const char *const *mq_loss_names(void) {
    static const char *const names[] = {[MQ_LOSS_RELATIVE] = "relative", [MQ_LOSS_L2] = "l2", NULL};
    return names;
}

const char *const *mq_slice_rule_names(void) {
    static const char *const names[] = {[MQ_SLICE_TOP] = "top",
                                        [MQ_SLICE_ROUND] = "round",
                                        [MQ_SLICE_ROUND_EXTRA] = "round-extra",
                                        NULL};
    return names;
}

const char *const *mq_zero_point_names(void) {
    static const char *const names[] = {
        [MQ_ZERO_FLOAT] = "float", [MQ_ZERO_SYMMETRIC] = "symmetric", NULL};
    return names;
}

const char *const *mq_scope_names(void) {
    static const char *const names[] = {[MQ_SCOPE_ALL] = "all", [MQ_SCOPE_FFN] = "ffn", NULL};
    return names;
}

const char *const *mq_embeddings_names(void) {
    static const char *const names[] = {[MQ_EMBEDDINGS_KEEP] = "keep",
                                        [MQ_EMBEDDINGS_8] = "8",
                                        [MQ_EMBEDDINGS_NESTED] = "nested",
                                        NULL};
    return names;
}

const char *const *mq_gemm_names(void) {
    static const char *const names[] = {[MQ_GEMM_AUTO] = "auto",
                                        [MQ_GEMM_OPENBLAS] = "openblas",
                                        [MQ_GEMM_ONEDNN_BF16] = "onednn-bf16",
                                        NULL};
    return names;
}

const char *const *mq_slice_dtype_names(void) {
    static const char *const names[] = {[MQ_SLICE_DTYPE_SOURCE] = "source",
                                        [MQ_SLICE_DTYPE_BF16] = "bf16",
                                        [MQ_SLICE_DTYPE_F16] = "f16",
                                        [MQ_SLICE_DTYPE_F32] = "f32",
                                        NULL};
    return names;
}

const char *const *mq_kind_names(void) {
    static const char *const names[] = {
        [MQ_KIND_PLAIN] = "plain", [MQ_KIND_MASTER] = "master", [MQ_KIND_SLICE] = "slice", NULL};
    return names;
}

const char *mq_name_at(const char *const *names, unsigned value) {
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (i == value) {
            return names[i];
        }
    }
    return NULL;
}

bool mq_name_find(unsigned *value, const char *const *names, const char *name) {
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}
