/* What stands behind mq_master_open (store/master.h), what matquant.json says, and the reader of
 * slices in MLX's format. */
#ifndef MQ_STORE_READERS_H
#define MQ_STORE_READERS_H

#include "base/json_build.h"
#include "store/master.h"
#include "store/problems.h"

/* As mq_master_open; with problems, linear layers that a reader must reject are counted there and
 * left out, and so are their tensors in what follows. A folder that cannot be read at all, or whose
 * config.json does not say what the codes mean, fails all the same. */
mq_status mq_master_scan(mq_master **out, const char *folder, mq_problems *problems, mq_error *err);

/* What a tensor of a master or a slice is. */
typedef enum mq_role {
    MQ_ROLE_PLAIN,   /* the source's */
    MQ_ROLE_LINEAR,  /* codes or weight, scales or biases of a quantized linear */
    MQ_ROLE_PRIVATE, /* NAME.wR of a served width, NAME being there */
    MQ_ROLE_REJECTED /* one that a reader must reject */
} mq_role;

/* For MQ_ROLE_PRIVATE *width is its width, else untouched; width may be NULL. */
mq_role mq_master_role(unsigned *width, const mq_master *master, const mq_tensor_info *info);
/* The tensor that the model of this width uses in place of NAME, or NULL when it uses NAME. */
const mq_tensor_info *mq_master_private(const mq_master *master, const char *name, unsigned width);

/* --- matquant.json ---------------------------------------------------------------------------- */

/* `provenance` is what matquant.json says; NULL, where there is none: nothing. Results point into
 * it. */

/* What a slice says of itself; NULL: it is no slice. */
const cJSON *mq_provenance_slice(const cJSON *provenance);
/* The width of its master that a slice is; 0: it does not say. */
unsigned mq_provenance_width(const cJSON *provenance);
/* What a master says under `key` ("recipe", "source", "refit"...). What a slice has of that from
 * its master stands one level deeper, in what it says of itself: for `key` it is looked up there.
 * NULL: nothing. */
const cJSON *mq_provenance_item(const cJSON *provenance, const char *key);
/* Whether a recipe, as matquant.json has it, trained a width: it is one of its bits, and its loss
 * had a weight, its own (lambda) or that of a co-distillation which it is the student of. Of recipe
 * rtn none. */
bool mq_provenance_recipe_trained(const cJSON *recipe, double width);
/* Whether a width was trained, by the recipe or by the refit, if that was of use. Of a slice, it is
 * the width that it says it is. */
bool mq_provenance_trained(const cJSON *provenance, unsigned width);
/* What the end-to-end refit did to a width ("bits", "kl_before", "kl_after"...); NULL: it had none.
 * A slice has but its own. */
const cJSON *mq_provenance_refit(const cJSON *provenance, unsigned width);
/* KL(full precision ‖ the width) in nats a token, as the refit measured it at its end; NAN: it had
 * none, or layers of the slice have other widths. */
double mq_provenance_refit_kl(const cJSON *provenance, unsigned width);

/* SHA-256 of its text (mq_json_print) without what `eval --record` adds: the same of one master,
 * whatever is measured of it, and since it has the checksums of all tensors, another one of any
 * other. That of the file as it was first written. */
mq_status mq_provenance_sha256(char out[65], const cJSON *provenance, mq_error *err);
/* Puts an evaluation ("evaluations", matquant/format.h) into what a master or a slice says of
 * itself: a copy, in place of an earlier one of the same width on the same windows. */
void mq_provenance_put_evaluation(mq_json *json, cJSON *at, const cJSON *evaluation);

/* --- slices ----------------------------------------------------------------------------------- */

/* A folder in MLX's affine format: what `matquant slice` writes, and as much of what mlx-lm writes
 * as means the same (scales in any of F16, BF16, F32; widths and group sizes that differ by layer).
 * Rejected: another mode, a width other than 2, 3, 4, 5, 6, 8, shapes that contradict one another
 * or config.json. */
typedef struct mq_slice_reader mq_slice_reader;

/* A quantized linear (or embedding) P; pointers into the mapped file. */
typedef struct mq_slice_view {
    const char *prefix;
    unsigned width;
    size_t out, in, groups;
    const mq_tensor_info *weight, *scales, *biases; /* U32 [out, in·width/32]; [out, groups] */
} mq_slice_view;

mq_status mq_slice_reader_open(mq_slice_reader **out, const char *folder, mq_problems *problems,
                               mq_error *err);
void mq_slice_reader_close(mq_slice_reader *slice);
const mq_tensors *mq_slice_reader_tensors(const mq_slice_reader *slice);
const cJSON *mq_slice_reader_config(const mq_slice_reader *slice);
const cJSON *mq_slice_reader_provenance(const mq_slice_reader *slice); /* NULL: none */
/* The width of its master that it is, where matquant.json says so, else the global one of its
 * layers: with an extra level these have one bit more. */
unsigned mq_slice_reader_width(const mq_slice_reader *slice);
/* The same of a layer: its bits, unless these are the global ones. */
unsigned mq_slice_reader_width_of(const mq_slice_reader *slice, const mq_slice_view *view);
size_t mq_slice_reader_group_size(const mq_slice_reader *slice); /* the global one */
size_t mq_slice_reader_count(const mq_slice_reader *slice);
const mq_slice_view *mq_slice_reader_at(const mq_slice_reader *slice, size_t index);
const mq_slice_view *mq_slice_reader_find(const mq_slice_reader *slice, const char *prefix);
/* MQ_ROLE_LINEAR: the weight, the scales or the biases of a quantized layer. */
mq_role mq_slice_reader_role(const mq_slice_reader *slice, const mq_tensor_info *info);

#endif
