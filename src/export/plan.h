/* What a slice will hold, tensor for tensor: the plan that every format makes before anything is
 * written, and writes by. */
#ifndef MQ_EXPORT_PLAN_H
#define MQ_EXPORT_PLAN_H

#include "matquant/slice.h"
#include "model/weights.h"
#include "store/mixture.h"
#include "store/readers.h"

typedef struct mq_export_job {
    const mq_slice_options *options;
    const mq_master *master;
    const mq_mixture *mixture; /* the widths of its layers */
    const mq_weights *weights; /* the model of these widths, as eval reads it */
    const mq_config *config;
    const char *master_name; /* of its path, without folders */
    unsigned width;          /* the mixture's */
    size_t block_bytes;      /* of a tensor that are made and put at once, unless a row is longer */
    mq_output *output;       /* NULL while planning */
    const mq_context *context;
} mq_export_job;

typedef struct mq_plan mq_plan;
typedef struct mq_piece mq_piece;

/* Rows [first, first + count) of a piece as the format stores them: [count, row_bytes]. Rows come
 * in rising order, each once. */
typedef mq_status mq_fill_rows(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                               size_t count, mq_error *err);

/* One tensor of the output. */
struct mq_piece {
    mq_tensor_spec spec;    /* its name belongs to the plan; in GGUF its dtype means nothing */
    unsigned type;          /* GGUF's element type */
    size_t rows, row_bytes; /* what fill is asked for; rows · row_bytes are all bytes */
    mq_fill_rows *fill;     /* NULL: the bytes of the one source */
    const mq_tensor_info *sources[3]; /* of the master, what it is made from; NULL from the end */
    const mq_master_view *linear;     /* NULL: not a part of a quantized linear */
    bool is_private;                  /* made from NAME.wR, shipped as NAME */
    size_t repeat;                    /* for fill */
    bool takes_values; /* a quantized linear is encoded from its numbers, not from codes alone */
    size_t heads; /* rows are taken in the order of interleaved rotary pairs, in so many heads; 0:
                     as they are */
    /* What the format cost, when it cannot hold the slice's numbers: added up by fill. */
    bool is_inexact;
    double error, power; /* Σ (w - slice's w)², Σ (slice's w)² */
};

struct mq_plan {
    const mq_export_job *job;
    mq_piece *pieces; /* [count], in the order of the output */
    size_t count, capacity;
    size_t group_size;        /* what config.json says of most layers */
    size_t quantized_weights; /* elements */
    size_t quantized_bytes;   /* of pieces with a linear */
    size_t bytes;             /* of all pieces, headers not counted */
    size_t bytes_read;        /* of their sources, each time one is read */
    /* Which of the master's tensors mq_plan_walk takes, a quantized layer by the name of its
     * weight; NULL: all. */
    bool (*has)(const mq_config *config, const char *name);
    mq_layout_kind layout; /* of the output's names: the master's, unless the format sets another */
    void *own;             /* the format's */
    void (*free_own)(void *own);
};

/* job must outlive the plan. */
void mq_plan_begin(mq_plan *plan, const mq_export_job *job);
void mq_plan_free(mq_plan *plan);

/* Appends a piece; name, the master's, is copied as plan->layout has it, sources are counted. */
mq_status mq_plan_add(mq_plan *plan, const char *name, const mq_piece *piece, mq_error *err);

/* A tensor that is not quantized, under its name: the one that is private to the width in place of
 * NAME where there is one. */
mq_status mq_plan_add_copy(mq_plan *plan, const mq_tensor_info *info, mq_error *err);
/* The tensor whose numbers the slice has under this name. */
const mq_tensor_info *mq_plan_source(bool *is_private, const mq_plan *plan,
                                     const mq_tensor_info *info);

/* Calls add_linear for every quantized linear and add_unquantized for every tensor that is not
 * quantized, in the order of the master's files. */
mq_status
mq_plan_walk(mq_plan *plan,
             mq_status (*add_linear)(mq_plan *plan, const mq_master_view *view, mq_error *err),
             mq_status (*add_unquantized)(mq_plan *plan, const mq_tensor_info *info, mq_error *err),
             mq_error *err);

/* The element type of the source: that of its embeddings, or of its final norm where those are
 * quantized. */
mq_dtype mq_plan_source_dtype(const mq_plan *plan);
/* The element type of plain weights, and of numbers beside packed ones that follow it: --dtype, or
 * that of the source. */
mq_dtype mq_plan_dtype(const mq_plan *plan);

/* The layer's width in this slice. */
static inline unsigned mq_plan_width(const mq_plan *plan, const mq_master_view *view) {
    return mq_mixture_width(plan->job->mixture, view);
}

/* Codes, scales and biases of that width as sources. */
void mq_piece_reads_all(mq_piece *piece, const mq_plan *plan, const mq_master_view *view);

/* Σ error / Σ power over the pieces that are quantized in the master and inexact; 0 when none is.
 * What is not quantized and only converted would make a fitted format look better than it is. */
double mq_plan_relative_error(const mq_plan *plan);
double mq_plan_bits_per_weight(const mq_plan *plan);
/* Whether the master's zero point is symmetric, so that grids without an offset hold its slices. */
bool mq_plan_is_symmetric(const mq_plan *plan);

/* Tokens up to which a program computes the model as it is: those of its windows, if it has some
 * and the program knows none of its family; else SIZE_MAX, any number. With fewer than the model
 * was made for, mq_plan_warn_windows says so of `program`, and what follows from it. */
size_t mq_plan_window(const mq_plan *plan, bool knows_windows);
void mq_plan_warn_windows(const mq_plan *plan, const char *program, bool knows_windows,
                          const char *follows);

/* Whether the slice has other parts than the language model, such as a vision tower. */
bool mq_plan_has_other_parts(const mq_plan *plan);
/* Of a format for language models alone: warns of other parts that the master has, such as a vision
 * tower, and says why they are left out. */
void mq_plan_warn_parts(const mq_plan *plan, const char *why);

#endif
