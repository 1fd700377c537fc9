#include "store/master_plan.h"

#include <stdlib.h>
#include <string.h>

#include "store/folder.h"
#include "store/master_config.h"

void mq_master_plan_free(mq_master_plan *plan) {
    mq_free(plan->specs);
    mq_free(plan->names);
    mq_free(plan->copied);
    mq_free(plan->first);
    *plan = (mq_master_plan){0};
}

static mq_status plan_allocate(mq_master_plan *plan, const mq_master_layout *layout,
                               const mq_tensors *source, mq_error *err) {
    static const char what[] = "the list of tensors";
    size_t per_linear = 1 + 2 * layout->width_count, added = 0, all = 0;
    size_t private_count = layout->private_width_count * layout->private_name_count;
    if (!mq_mul_size(&added, layout->linear_count, per_linear) ||
        !mq_add_size(&added, added, private_count) ||
        !mq_add_size(&all, added, mq_tensors_count(source))) {
        return mq_fail_memory(err, what, SIZE_MAX);
    }
    mq_status status = mq_new(&plan->specs, all, sizeof *plan->specs, what, err);
    if (status == MQ_OK) {
        status = mq_new(&plan->names, added, sizeof *plan->names, what, err);
    }
    if (status == MQ_OK) {
        status = mq_new(&plan->copied, all, sizeof *plan->copied, what, err);
    }
    if (status == MQ_OK) {
        status = mq_new(&plan->first, layout->linear_count, sizeof *plan->first, what, err);
    }
    return status;
}

static char *name_room(mq_master_plan *plan) { return plan->names[plan->name_count++]; }

static void plan_add(mq_master_plan *plan, const char *name, mq_dtype dtype, size_t rows,
                     size_t columns) {
    plan->copied[plan->count] = NULL;
    plan->specs[plan->count++] =
        (mq_tensor_spec){.name = name, .dtype = dtype, .dims = 2, .shape = {rows, columns}};
}

static void plan_add_linear(mq_master_plan *plan, size_t index, const mq_master_layout *layout) {
    const mq_master_linear *linear = &layout->linears[index];
    plan->first[index] = plan->count;
    plan_add(plan, mq_name_make(name_room(plan), linear->prefix, "codes", 0), MQ_U8, linear->out,
             linear->in);
    unsigned widths[7];
    const size_t count =
        mq_layer_widths(widths, layout->widths, layout->width_count, linear->min_width);
    for (size_t i = 0; i < count; i++) {
        const unsigned width = widths[i];
        plan_add(plan, mq_name_make(name_room(plan), linear->prefix, "scales", width), MQ_F16,
                 linear->out, linear->groups);
        plan_add(plan, mq_name_make(name_room(plan), linear->prefix, "biases", width), MQ_F16,
                 linear->out, linear->groups);
    }
}

static int compare_name_to(const void *name, const void *other) {
    return strcmp(name, *(const char *const *)other);
}

/* The source's tensor, and behind it the copies that are private to a width. */
static void plan_add_copied(mq_master_plan *plan, const mq_tensor_info *info,
                            const mq_master_layout *layout) {
    mq_tensor_spec spec = {.name = info->name, .dtype = info->dtype, .dims = info->dims};
    memcpy(spec.shape, info->shape, sizeof spec.shape);
    plan->copied[plan->count] = info;
    plan->specs[plan->count++] = spec;
    if (layout->private_name_count == 0 || layout->private_width_count == 0 ||
        bsearch(info->name, layout->private_names, layout->private_name_count,
                sizeof *layout->private_names, compare_name_to) == NULL) {
        return;
    }
    for (size_t i = 0; i < layout->private_width_count; i++) {
        spec.name = mq_name_private(name_room(plan), info->name, layout->private_widths[i]);
        plan->copied[plan->count] = NULL;
        plan->specs[plan->count++] = spec;
    }
}

static mq_status check_linear(const mq_master_linear *linear, const mq_tensors *source,
                              mq_error *err) {
    char name[MQ_STORED_NAME_SIZE], shape[128];
    const mq_tensor_info *weight =
        mq_tensors_find(source, mq_name_make(name, linear->prefix, "weight", 0));
    if (weight == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, mq_tensors_where(source, name), name,
                              "is missing");
    }
    if (!mq_dtype_is_weight(weight->dtype) || weight->dims != 2 ||
        weight->shape[0] != linear->out || weight->shape[1] != linear->in) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, weight->file, name,
                              "is %s %s instead of [%zu, %zu]", mq_dtype_name(weight->dtype),
                              mq_shape_text(shape, sizeof shape, weight->shape, weight->dims),
                              linear->out, linear->in);
    }
    if (linear->groups == 0 || linear->in % linear->groups != 0) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, weight->file, name,
                              "%zu groups do not divide rows of %zu", linear->groups, linear->in);
    }
    return MQ_OK;
}

static int compare_linears(const void *a, const void *b) {
    return strcmp((*(const mq_master_linear *const *)a)->prefix,
                  (*(const mq_master_linear *const *)b)->prefix);
}

/* A tensor of the source must not have a name that means something in a master. */
static mq_status check_name(const mq_tensor_info *info, const mq_name *name,
                            const mq_tensors *source, mq_error *err) {
    bool is_private = name->form == MQ_NAME_WIDTH && mq_tensors_find(source, name->stem) != NULL;
    if (is_private || name->form == MQ_NAME_CODES || name->form == MQ_NAME_SCALES ||
        name->form == MQ_NAME_BIASES) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, info->file, info->name,
                              "has a name that a master checkpoint uses itself");
    }
    return MQ_OK;
}

static mq_status plan_tensors(mq_master_plan *plan, const mq_master_linear **sorted,
                              const mq_master_layout *layout, const mq_tensors *source,
                              mq_error *err) {
    for (size_t i = 0; i < mq_tensors_count(source); i++) {
        const mq_tensor_info *info = mq_tensors_at(source, i);
        mq_name name = mq_name_parse(info->name);
        mq_status status = check_name(info, &name, source, err);
        if (status != MQ_OK) {
            return status;
        }
        const mq_master_linear **found = NULL;
        if (name.form == MQ_NAME_WEIGHT && strlen(name.stem) < MQ_NAME_SIZE &&
            layout->linear_count > 0) {
            mq_master_linear key, *key_pointer = &key;
            memcpy(key.prefix, name.stem, strlen(name.stem) + 1);
            found = bsearch(&key_pointer, sorted, layout->linear_count, sizeof *sorted,
                            compare_linears);
        }
        if (found != NULL) {
            plan_add_linear(plan, (size_t)(*found - layout->linears), layout);
        } else {
            plan_add_copied(plan, info, layout);
        }
    }
    return MQ_OK;
}

mq_status mq_master_plan_make(mq_master_plan *plan, const mq_master_layout *layout,
                              const mq_tensors *source, mq_error *err) {
    mq_status status = plan_allocate(plan, layout, source, err);
    const mq_master_linear **sorted = NULL;
    if (status == MQ_OK) {
        status = mq_new(&sorted, layout->linear_count, sizeof *sorted, "the list of layers", err);
    }
    for (size_t i = 0; status == MQ_OK && i < layout->linear_count; i++) {
        sorted[i] = &layout->linears[i];
        status = check_linear(sorted[i], source, err);
    }
    if (status == MQ_OK && layout->linear_count > 0) {
        qsort(sorted, layout->linear_count, sizeof *sorted, compare_linears);
    }
    if (status == MQ_OK) {
        status = plan_tensors(plan, sorted, layout, source, err);
    }
    mq_free(sorted);
    if (status != MQ_OK) {
        mq_master_plan_free(plan);
    }
    return status;
}

mq_status mq_master_size(size_t *out, const mq_master_layout *layout, const mq_tensors *source,
                         mq_error *err) {
    /* What a tensor takes in the header, in an index and in matquant.json, its name apart. */
    enum { DESCRIPTION = 256, NAMES = 3, FIXED = 4096 };
    mq_master_plan plan = {0};
    mq_status status = mq_master_plan_make(&plan, layout, source, err);
    if (status != MQ_OK) {
        return status;
    }
    size_t total = 0;
    status = mq_small_files_size(&total, layout->source, err);
    total += FIXED;
    for (size_t i = 0; i < plan.count; i++) {
        const mq_tensor_spec *spec = &plan.specs[i];
        size_t bytes = mq_dtype_size(spec->dtype); /* fits: the source holds as much, or more */
        for (size_t d = 0; d < spec->dims; d++) {
            bytes *= spec->shape[d];
        }
        total += bytes + NAMES * strlen(spec->name) + DESCRIPTION;
    }
    mq_master_plan_free(&plan);
    if (status == MQ_OK) {
        *out = total;
    }
    return status;
}
