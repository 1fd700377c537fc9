/* Which width each layer of a master has in a model: decided here, once, and asked for by all that
 * read or write the model. */
#ifndef MQ_STORE_MIXTURE_H
#define MQ_STORE_MIXTURE_H

#include "matquant/mixture.h"
#include "store/master.h"
#include "store/readers.h"

/* The width of a layer; `given`: a pattern says so, and nothing else may change it. */
typedef struct mq_layer_width {
    unsigned width;
    bool given;
} mq_layer_width;

typedef struct mq_mixture {
    const mq_master *master; /* must outlive it */
    unsigned width;          /* the model's: of all that has no width of its own */
    mq_layer_width *layers;  /* [mq_master_linear_count], in the master's order */
} mq_mixture;

/* MQ_ERR_USAGE: a width is not served, a pattern is no regular expression, or is found in no
 * quantized layer's name. layer_bits[count] may be NULL if there are none. *out must be freed in
 * every case, and must have been all zero before. */
mq_status mq_mixture_make(mq_mixture *out, const mq_master *master, unsigned width,
                          const mq_layer_bits *layer_bits, size_t count, mq_error *err);
void mq_mixture_free(mq_mixture *mixture);

static inline unsigned mq_mixture_width(const mq_mixture *mixture, const mq_master_view *view) {
    return mixture->layers[view->index].width;
}
/* The width that was asked for: the one given, or that of the layer's slice in the model of one
 * width. */
static inline unsigned mq_mixture_asked(const mq_mixture *mixture, const mq_master_view *view) {
    const mq_layer_width *layer = &mixture->layers[view->index];
    return layer->given ? layer->width : mq_view_width(view, mixture->width);
}

/* Whether every layer has the width that it has in the model of one width. */
bool mq_mixture_is_uniform(const mq_mixture *mixture);
/* The least width of a layer. */
unsigned mq_mixture_narrowest(const mq_mixture *mixture);

/* The tensor that the model has under this plain name and that is private to a width; NULL: the one
 * of that name. It is that of the width that all quantized layers of its block have, or of all
 * blocks, if it is of none; where they have several, that of the model's width. */
const mq_tensor_info *mq_mixture_private(const mq_mixture *mixture, const char *name);

/* Of the layers that the model of the master's configuration uses. */
mq_width_counts mq_mixture_counts(const mq_mixture *mixture, const mq_config *config);
/* Adds a layer. */
void mq_width_counts_add(mq_width_counts *counts, unsigned width, size_t weights);

#endif
