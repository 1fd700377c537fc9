/* Names of the values of enumerations, as they appear in the program's options and results, in
 * config.json and in the provenance. Those of mq_slice_format are mq_format_at's (slice.h). */
#ifndef MATQUANT_NAMES_H
#define MATQUANT_NAMES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The names of an enumeration's values, in the order of the values, with NULL at the end; static.
 */
const char *const *mq_recipe_names(void);     /* mq_recipe: "best", "paper", "rtn" */
const char *const *mq_preset_names(void);     /* mq_preset: "none", "balanced", "narrow", "wide" */
const char *const *mq_loss_names(void);       /* mq_loss: "relative", "l2" */
const char *const *mq_slice_rule_names(void); /* mq_slice_rule: "top", "round", "round-extra" */
const char *const *mq_zero_point_names(void); /* mq_zero_point: "float", "symmetric" */
const char *const *mq_scope_names(void);      /* mq_scope: "all", "ffn" */
const char *const *mq_embeddings_names(void); /* mq_embeddings: "keep", "8", "nested" */
const char *const *mq_gemm_names(void); /* mq_gemm_choice: "auto", "openblas", "onednn-bf16" */
const char *const *mq_slice_dtype_names(void); /* mq_slice_dtype: "source", "bf16", "f16", "f32" */
const char *const *mq_kind_names(void);        /* mq_kind: "plain", "master", "slice" */

/* The name of a value, which may be any number; NULL: there is no such value. */
const char *mq_name_at(const char *const *names, unsigned value);

/* The value with this name. False if there is none; *value then stays as it was. */
bool mq_name_find(unsigned *value, const char *const *names, const char *name);

#ifdef __cplusplus
}
#endif
#endif
