/* The clip of a group by error search (docs/method.md, 2: "Starting values"): of the clips
 * t·(min, max), the one whose codes, each level with the scale and the middle that fit it best,
 * leave the least
 *
 *   Σ_r lambda_r · Σ_i h_i · (scale_r·level_r,i + middle_r - w_i)²
 *
 * What a code and a level are is the grid's; the search (search_kernel.h) is one for all. */
#ifndef MQ_QUANT_SEARCH_H
#define MQ_QUANT_SEARCH_H

#include <stddef.h>

#define MQ_MAX_LEVELS 7
#define MQ_SHRINKS 14 /* t = 1.00, 0.95, … 0.35 */

/* With z = (w - lo)/(hi - lo), and levels counted from their middle. */
typedef enum mq_search_codes {
    MQ_SEARCH_TOP,   /* q = ⌊256·z⌋; slices are its top bits */
    MQ_SEARCH_ROUND, /* q = ⌊255·z + ½⌋; slices are rounded, the last for all above it */
    MQ_SEARCH_ROUND_EXTRA, /* the same with a level more */
    MQ_SEARCH_SYMMETRIC /* lo = -hi, q = ⌊256·z + ½⌋ from 1 on; slices are rounded, the middle is 0.
                           Either end may be the one with a level more: hi may be negative */
} mq_search_codes;

typedef struct mq_search {
    mq_search_codes codes;
    size_t level_count;
    unsigned level[MQ_MAX_LEVELS];
    float lambda[MQ_MAX_LEVELS];
    size_t shrink_count;
    float shrink[MQ_SHRINKS]; /* t; SYMMETRIC, unless there is but one: and then -t */
} mq_search;

typedef struct mq_search_fit {
    float lo, hi, error;
    size_t candidate; /* which t, the negative ones counted from shrink_count on */
    float scale[MQ_MAX_LEVELS], middle[MQ_MAX_LEVELS];
    float mean_level[MQ_MAX_LEVELS]; /* weighed by h: where another scale leaves the mean as it is;
                                        0 with SYMMETRIC, whose middle stays 0 */
} mq_search_fit;

/* The k-th t. */
static inline float mq_search_shrink(size_t k) { return 1.0f - 0.05f * (float)k; }

#endif
