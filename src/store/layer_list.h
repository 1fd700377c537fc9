/* The quantized layers of a folder that is being read: a view of each, which is the reader's own
 * struct of whatever it knows about a layer, in the order of the files, and found by prefix. */
#ifndef MQ_STORE_LAYER_LIST_H
#define MQ_STORE_LAYER_LIST_H

#include "store/problems.h"
#include "tensor/safetensors.h"

/* All zero: an empty list. */
typedef struct mq_layer_list {
    void *views;         /* [count] of view_size bytes each, in the order of the files */
    const void **sorted; /* [count] pointers into views, by prefix */
    size_t view_size, count;
} mq_layer_list;

/* How a reader knows its layers. */
typedef struct mq_layer_reader {
    size_t view_size; /* of its struct, whose first member is `const char *prefix` */
    /* The length of P when a tensor's name says that there is a layer P, else 0. One tensor of each
     * layer has such a name. */
    size_t (*stem)(const char *name);
    /* Fills in *view, which is not cleared, of the layer that this tensor is of; its prefix is the
     * one given, which stays the list's. Where that fails, what is in *view is not used. */
    mq_status (*read)(void *view, const char *prefix, const mq_tensor_info *info, const void *user,
                      mq_error *err);
    const void *user;
} mq_layer_reader;

/* Fills an empty list, which is to be freed whatever comes back. A layer that read rejects is a
 * problem (problems.h) and left out. */
mq_status mq_layer_list_read(mq_layer_list *list, const mq_layer_reader *reader,
                             const mq_tensors *tensors, mq_problems *problems, mq_error *err);
void mq_layer_list_free(mq_layer_list *list);

const void *mq_layer_list_at(const mq_layer_list *list, size_t index); /* index < list->count */
const void *mq_layer_list_find(const mq_layer_list *list, const char *prefix); /* NULL: none */

#endif
