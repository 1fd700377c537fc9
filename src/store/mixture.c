#include "store/mixture.h"

#include <stdio.h>
#include <string.h>

#include "quant/patterns.h"
#include "store/master_config.h"

static const char *const OPTION = "--layer-bits";

/* --- making ----------------------------------------------------------------------------------- */

static mq_status check_served(const mq_master *master, unsigned width, mq_error *err) {
    if (mq_master_serves(master, width)) {
        return MQ_OK;
    }
    unsigned widths[MQ_MAX_WIDTHS];
    char text[32];
    mq_widths_text(text, sizeof text, widths, mq_master_widths(widths, master));
    return mq_fail(err, MQ_ERR_USAGE,
                   "a width of %u bits is not in this checkpoint, which serves %s", width, text);
}

static mq_status add_pattern(mq_patterns *list, const mq_master *master, const mq_layer_bits *item,
                             mq_error *err) {
    if (item->length == 0) { /* forgotten, or one that every name matches */
        return mq_fail(err, MQ_ERR_USAGE, "an empty pattern for %u bits", item->width);
    }
    const mq_status status = check_served(master, item->width, err);
    return status == MQ_OK ? mq_patterns_add(list, item->pattern, item->length, err) : status;
}

static mq_status check_used(const mq_patterns *list, const mq_master *master, mq_error *err) {
    size_t length = 0;
    const char *unused = mq_patterns_unused(&length, list);
    if (unused == NULL) {
        return MQ_OK;
    }
    const bool any = mq_master_linear_count(master) > 0;
    return mq_fail(err, MQ_ERR_USAGE, "%s '%.*s' matches no quantized layer%s%s", list->option,
                   (int)length, unused, any ? ", such as " : "",
                   any ? mq_master_linear_at(master, 0)->prefix : "");
}

/* The widths that patterns give, each in its layer's place. */
static mq_status give_widths(mq_mixture *self, mq_patterns *list, const mq_layer_bits *layer_bits,
                             mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_master_linear_count(self->master); i++) {
        const mq_master_view *view = mq_master_linear_at(self->master, i);
        size_t last = 0;
        status = mq_patterns_match(&last, list, view->prefix, err);
        if (status == MQ_OK && last > 0) {
            self->layers[i] = (mq_layer_width){
                .width = mq_view_width(view, layer_bits[last - 1].width), .given = true};
        }
    }
    return status == MQ_OK ? check_used(list, self->master, err) : status;
}

mq_status mq_mixture_make(mq_mixture *out, const mq_master *master, unsigned width,
                          const mq_layer_bits *layer_bits, size_t count, mq_error *err) {
    *out = (mq_mixture){.master = master, .width = width};
    mq_status status = check_served(master, width, err);
    const size_t layers = mq_master_linear_count(master);
    if (status == MQ_OK) {
        status = mq_new(&out->layers, layers, sizeof *out->layers, "the widths of layers", err);
    }
    for (size_t i = 0; status == MQ_OK && i < layers; i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        out->layers[i] = (mq_layer_width){.width = mq_view_width(view, width)};
    }
    if (status != MQ_OK || count == 0) {
        return status;
    }
    mq_patterns list = {0};
    status = mq_patterns_begin(&list, count, OPTION, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = add_pattern(&list, master, &layer_bits[i], err);
    }
    if (status == MQ_OK) {
        status = give_widths(out, &list, layer_bits, err);
    }
    mq_patterns_free(&list);
    return status;
}

void mq_mixture_free(mq_mixture *mixture) {
    mq_free(mixture->layers);
    *mixture = (mq_mixture){0};
}

/* --- questions -------------------------------------------------------------------------------- */

bool mq_mixture_is_uniform(const mq_mixture *mixture) {
    for (size_t i = 0; i < mq_master_linear_count(mixture->master); i++) {
        const mq_master_view *view = mq_master_linear_at(mixture->master, i);
        if (mq_mixture_width(mixture, view) != mq_view_width(view, mixture->width)) {
            return false;
        }
    }
    return true;
}

unsigned mq_mixture_narrowest(const mq_mixture *mixture) {
    unsigned narrowest = MQ_MAX_WIDTH;
    for (size_t i = 0; i < mq_master_linear_count(mixture->master); i++) {
        const unsigned width = mixture->layers[i].width;
        narrowest = width < narrowest ? width : narrowest;
    }
    return narrowest;
}

/* Of a name such as model.layers.3.input_layernorm.weight what all names of its block begin with,
 * up to the point after the number; 0, which all names begin with: it is of no block. */
static size_t block_of(const char *name) {
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        const size_t digits = strspn(dot + 1, "0123456789");
        if (digits > 0 && dot[1 + digits] == '.') {
            return (size_t)(dot - name) + digits + 2;
        }
    }
    return 0;
}

const mq_tensor_info *mq_mixture_private(const mq_mixture *mixture, const char *name) {
    const size_t block = block_of(name);
    unsigned common = 0; /* 0: no layer was found yet */
    for (size_t i = 0; i < mq_master_linear_count(mixture->master); i++) {
        const mq_master_view *view = mq_master_linear_at(mixture->master, i);
        const bool is_of_block = view->min_width == 0; /* no embedding, and no head */
        if (is_of_block && strncmp(view->prefix, name, block) == 0) {
            const unsigned width = mixture->layers[i].width;
            common = common == 0 || common == width ? width : mixture->width;
        }
    }
    return mq_master_private(mixture->master, name, common == 0 ? mixture->width : common);
}

/* --- counts ----------------------------------------------------------------------------------- */

mq_width_counts mq_mixture_counts(const mq_mixture *mixture, const mq_config *config) {
    mq_width_counts counts = {{0}, {0}};
    for (size_t i = 0; i < mq_master_linear_count(mixture->master); i++) {
        const mq_master_view *view = mq_master_linear_at(mixture->master, i);
        if (!mq_config_is_unused_head(config, view->prefix)) {
            mq_width_counts_add(&counts, mixture->layers[i].width, view->out * view->in);
        }
    }
    return counts;
}

void mq_width_counts_add(mq_width_counts *counts, unsigned width, size_t weights) {
    counts->layers[width]++;
    counts->weights[width] += weights;
}

double mq_mean_bits(const mq_width_counts *counts) {
    double bits = 0, weights = 0;
    for (unsigned width = 0; width <= MQ_MAX_WIDTH; width++) {
        bits += (double)width * (double)counts->weights[width];
        weights += (double)counts->weights[width];
    }
    return weights > 0 ? bits / weights : 0.0;
}

size_t mq_width_counts_size(const mq_width_counts *counts) {
    size_t size = 0;
    for (unsigned width = 0; width <= MQ_MAX_WIDTH; width++) {
        size += counts->layers[width] > 0;
    }
    return size;
}

const char *mq_width_counts_text(char *out, size_t size, const mq_width_counts *counts) {
    size_t used = 0;
    if (size > 0) {
        out[0] = '\0';
    }
    for (unsigned width = MQ_MAX_WIDTH; width > 0; width--) {
        const size_t layers = counts->layers[width];
        if (layers > 0 && used < size) {
            const bool first = used == 0;
            const int length =
                snprintf(out + used, size - used, "%s%zu%s of %u%s", first ? "" : ", ", layers,
                         !first        ? ""
                         : layers == 1 ? " layer"
                                       : " layers",
                         width, first ? " bits" : "");
            used += length > 0 ? (size_t)length : 0;
        }
    }
    return out;
}
