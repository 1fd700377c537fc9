#include "store/slice_size.h"

#include "store/names.h"

static const size_t mlx_group_sizes[] = {128, 64, 32};

size_t mq_mlx_group_size(const mq_master_view *view) {
    size_t group_size = view->in / view->groups;
    for (size_t i = 0; i < sizeof mlx_group_sizes / sizeof *mlx_group_sizes; i++) {
        if (group_size % mlx_group_sizes[i] == 0) {
            return mlx_group_sizes[i];
        }
    }
    return 0;
}

unsigned mq_mlx_bits(unsigned width, mq_slice_rule rule) {
    const unsigned bits = mq_slice_bits(width, rule);
    return bits == 7 ? 0 : bits;
}

bool mq_mlx_has(const mq_config *config, const char *name) {
    return mq_config_has_tensor(config, name) && !mq_config_is_unused_head(config, name);
}

static bool mlx_holds(const mq_master *master, const mq_config *config, unsigned width) {
    bool holds = mq_mlx_bits(width, mq_master_slice_rule(master)) != 0;
    for (size_t i = 0; holds && i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        holds = mq_config_is_unused_head(config, view->prefix) ||
                (mq_mlx_bits(mq_view_width(view, width), mq_master_slice_rule(master)) != 0 &&
                 mq_mlx_group_size(view) != 0);
    }
    return holds;
}

mq_slice_size mq_slice_size_of(const mq_master *master, const mq_config *config, unsigned width) {
    mq_slice_size size = {0};
    const bool mlx = mlx_holds(master, config, width);
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        if (mlx && mq_config_is_unused_head(config, view->prefix)) {
            continue; /* export/mlx.c leaves it out */
        }
        const unsigned bits = mq_mlx_bits(mq_view_width(view, width), mq_master_slice_rule(master));
        const size_t weights = view->out * view->in;
        const size_t groups = mlx ? view->in / mq_mlx_group_size(view) : view->groups;
        size.quantized_weights += weights;
        size.quantized_bytes += mlx ? view->in / 32 * bits * sizeof(uint32_t) * view->out : weights;
        size.quantized_bytes += 2 * sizeof(uint16_t) * view->out * groups;
    }
    size.bytes = size.quantized_bytes;
    const mq_tensors *tensors = mq_master_tensors(master);
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        if (mq_master_role(NULL, master, info) == MQ_ROLE_PLAIN &&
            (!mlx || mq_mlx_has(config, info->name))) {
            size.bytes += info->bytes; /* that of a width's own tensor in its place is the same */
        }
    }
    return size;
}
