#include "store/slice_layout.h"

#include <stdio.h>
#include <string.h>

#include "store/master_config.h"
#include "store/names.h"

static const size_t mlx_group_sizes[] = {128, 64, 32};
enum { MLX_GROUP_SIZES = sizeof mlx_group_sizes / sizeof *mlx_group_sizes };

size_t mq_mlx_group_size(const mq_master_view *view) {
    size_t group_size = view->in / view->groups;
    for (size_t i = 0; i < MLX_GROUP_SIZES; i++) {
        if (group_size % mlx_group_sizes[i] == 0) {
            return mlx_group_sizes[i];
        }
    }
    return 0;
}

/* --- what can be refused ---------------------------------------------------------------------- */

static mq_status check_width(const mq_master *master, unsigned width, mq_slice_form form,
                             mq_error *err) {
    if (!mq_master_serves(master, width)) {
        unsigned widths[7];
        char text[32];
        mq_widths_text(text, sizeof text, widths, mq_master_widths(widths, master));
        return mq_fail(err, MQ_ERR_USAGE, "%u bits are not served by this master; it serves %s",
                       width, text);
    }
    if (form == MQ_SLICE_MLX && width == 7) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "MLX's format has no 7 bits; --format matquant writes them as codes of the "
                       "master's format");
    }
    return MQ_OK;
}

static mq_status check_mlx_linear(const mq_master *master, const mq_master_view *view,
                                  mq_error *err) {
    char name[MQ_STORED_NAME_SIZE];
    if (mq_mlx_group_size(view) == 0) {
        return mq_fail_tensor(
            err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
            "groups of %zu are no multiple of 32, 64 or 128, the only ones in MLX's format; use "
            "--format matquant",
            view->in / view->groups);
    }
    static const char *const parts[] = {"scales", "biases"};
    for (size_t i = 0; i < 2; i++) {
        const mq_tensor_info *other = mq_tensors_find(
            mq_master_tensors(master), mq_name_make(name, view->prefix, parts[i], 0));
        if (other != NULL) {
            return mq_fail_tensor(err, MQ_ERR_USAGE, other->file, other->name,
                                  "has a name that MLX's format needs; use --format matquant");
        }
    }
    return MQ_OK;
}

/* --- the list --------------------------------------------------------------------------------- */

static mq_status allocate(mq_slice_layout *layout, const mq_master *master, mq_error *err) {
    static const char what[] = "the list of tensors";
    size_t count =
        mq_tensors_count(mq_master_tensors(master)); /* a slice has fewer tensors, never more */
    mq_status status = mq_new(&layout->specs, count, sizeof *layout->specs, what, err);
    if (status == MQ_OK) {
        status = mq_new(&layout->pieces, count, sizeof *layout->pieces, what, err);
    }
    if (status == MQ_OK) {
        status = mq_new(&layout->names, count, MQ_STORED_NAME_SIZE, what, err);
    }
    return status;
}

static void add(mq_slice_layout *layout, const char *name, mq_dtype dtype, size_t dims,
                const size_t *shape, mq_slice_piece piece) {
    mq_tensor_spec *spec = &layout->specs[layout->count];
    *spec = (mq_tensor_spec){.name = name, .dtype = dtype, .dims = dims};
    size_t bytes = mq_dtype_size(dtype); /* fits: the master holds at least as many */
    for (size_t i = 0; i < dims; i++) {
        spec->shape[i] = shape[i];
        bytes *= shape[i];
    }
    layout->pieces[layout->count++] = piece;
    layout->bytes += bytes;
    if (piece.linear != NULL) {
        layout->quantized_bytes += bytes;
    }
}

static char *name_room(mq_slice_layout *layout) {
    return layout->names + layout->count * MQ_STORED_NAME_SIZE;
}

static void add_linear(mq_slice_layout *layout, const mq_master_view *view) {
    bool mlx = layout->form == MQ_SLICE_MLX;
    unsigned width = layout->width, suffix = mlx ? 0 : width;
    size_t packed[2] = {view->out, mlx ? view->in / 32 * width : view->in};
    const char *name = mq_name_make(name_room(layout), view->prefix, mlx ? "weight" : "codes", 0);
    add(layout, name, mlx ? MQ_U32 : MQ_U8, 2, packed,
        (mq_slice_piece){.kind = MQ_PIECE_CODES, .source = view->codes, .linear = view});

    size_t groups = mlx ? view->in / mq_mlx_group_size(view) : view->groups;
    size_t affine[2] = {view->out, groups};
    static const char *const parts[] = {"scales", "biases"};
    for (size_t i = 0; i < 2; i++) {
        name = mq_name_make(name_room(layout), view->prefix, parts[i], suffix);
        add(layout, name, MQ_F16, 2, affine,
            (mq_slice_piece){.kind = MQ_PIECE_AFFINE,
                             .source = i == 0 ? view->scales[width] : view->biases[width],
                             .linear = view,
                             .repeat = groups / view->groups});
    }
    layout->quantized_weights += view->out * view->in;
}

static mq_status add_tensor(mq_slice_layout *layout, const mq_master *master,
                            const mq_tensor_info *info, mq_error *err) {
    mq_role role = mq_master_role(NULL, master, info);
    if (role == MQ_ROLE_PLAIN) {
        const mq_tensor_info *own = mq_master_private(master, info->name, layout->width);
        add(layout, info->name, info->dtype, info->dims, info->shape,
            (mq_slice_piece){.kind = MQ_PIECE_COPY,
                             .source = own != NULL ? own : info,
                             .is_private = own != NULL});
    } else if (role == MQ_ROLE_LINEAR) {
        mq_name name = mq_name_parse(info->name);
        const mq_master_view *view =
            name.form == MQ_NAME_CODES ? mq_master_find(master, name.stem) : NULL;
        if (view != NULL) { /* its scales and biases come with it */
            mq_status status =
                layout->form == MQ_SLICE_MLX ? check_mlx_linear(master, view, err) : MQ_OK;
            if (status != MQ_OK) {
                return status;
            }
            add_linear(layout, view);
        }
    }
    return MQ_OK;
}

static size_t common_group_size(const mq_master *master) {
    size_t best = 0, best_count = 0;
    for (size_t i = 0; i < MLX_GROUP_SIZES; i++) {
        size_t count = 0;
        for (size_t k = 0; k < mq_master_linear_count(master); k++) {
            count += mq_mlx_group_size(mq_master_linear_at(master, k)) == mlx_group_sizes[i];
        }
        if (i == 0 || count > best_count) {
            best = mlx_group_sizes[i];
            best_count = count;
        }
    }
    return best;
}

mq_status mq_slice_layout_make(mq_slice_layout *out, const mq_master *master, unsigned width,
                               mq_slice_form form, mq_error *err) {
    mq_slice_layout layout = {.form = form, .width = width};
    mq_status status = check_width(master, width, form, err);
    if (status == MQ_OK) {
        status = allocate(&layout, master, err);
    }
    const mq_tensors *tensors = mq_master_tensors(master);
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(tensors); i++) {
        status = add_tensor(&layout, master, mq_tensors_at(tensors, i), err);
    }
    if (status != MQ_OK) {
        mq_slice_layout_free(&layout);
        return status;
    }
    layout.group_size =
        form == MQ_SLICE_MLX ? common_group_size(master) : mq_master_group_size(master);
    *out = layout;
    return MQ_OK;
}

void mq_slice_layout_free(mq_slice_layout *layout) {
    mq_free(layout->specs);
    mq_free(layout->pieces);
    mq_free(layout->names);
    *layout = (mq_slice_layout){0};
}
