#include "store/layer_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static const char *const WHAT = "the list of layers";

static void *view_at(const mq_layer_list *list, size_t index) {
    return (unsigned char *)list->views + index * list->view_size;
}

/* A view begins with its prefix. */
static const char *prefix_of(const void *view) { return *(const char *const *)view; }

static int compare_prefixes(const void *a, const void *b) {
    return strcmp(prefix_of(*(const void *const *)a), prefix_of(*(const void *const *)b));
}

/* The layer whose prefix is the first `length` characters of the tensor's name. */
static mq_status add(mq_layer_list *list, const mq_layer_reader *reader, const mq_tensor_info *info,
                     size_t length, mq_problems *problems, mq_error *err) {
    char *prefix = mq_strdup(info->name);
    if (prefix == NULL) {
        return mq_fail_memory(err, WHAT, length);
    }
    prefix[length] = '\0';
    mq_error problem = {.status = MQ_OK};
    if (reader->read(view_at(list, list->count), prefix, info, reader->user, &problem) == MQ_OK) {
        list->count++;
        return MQ_OK;
    }
    mq_free(prefix);
    return mq_problem(problems, &problem, err);
}

mq_status mq_layer_list_read(mq_layer_list *list, const mq_layer_reader *reader,
                             const mq_tensors *tensors, mq_problems *problems, mq_error *err) {
    const size_t count = mq_tensors_count(tensors);
    size_t upper = 0;
    for (size_t i = 0; i < count; i++) {
        upper += reader->stem(mq_tensors_at(tensors, i)->name) != 0;
    }
    list->view_size = reader->view_size;
    mq_status status = mq_new(&list->views, upper, list->view_size, WHAT, err);
    if (status == MQ_OK) {
        status = mq_new(&list->sorted, upper, sizeof *list->sorted, WHAT, err);
    }
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        const size_t length = reader->stem(info->name);
        if (length != 0) {
            status = add(list, reader, info, length, problems, err);
        }
    }
    for (size_t i = 0; status == MQ_OK && i < list->count; i++) {
        list->sorted[i] = view_at(list, i);
    }
    if (status == MQ_OK && list->count > 0) {
        qsort(list->sorted, list->count, sizeof *list->sorted, compare_prefixes);
    }
    return status;
}

void mq_layer_list_free(mq_layer_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        mq_free((void *)prefix_of(view_at(list, i)));
    }
    mq_free(list->views);
    mq_free(list->sorted);
}

const void *mq_layer_list_at(const mq_layer_list *list, size_t index) {
    return view_at(list, index);
}

const void *mq_layer_list_find(const mq_layer_list *list, const char *prefix) {
    const void *key = &prefix; /* as much of a view as is compared */
    if (list->count == 0) {
        return NULL;
    }
    const void **found =
        bsearch(&key, list->sorted, list->count, sizeof *list->sorted, compare_prefixes);
    return found == NULL ? NULL : *found;
}
