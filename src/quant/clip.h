/* The inside of the clip grid: shared with its tests. */
#ifndef MQ_QUANT_CLIP_H
#define MQ_QUANT_CLIP_H

#include "quant/grid.h"

typedef struct mq_clip {
    float *smallest, *largest; /* [out·groups]: min and max of the group's weights */
    float *params, *m, *v; /* [out·groups, 2]: β (low end), γ (high end), and Adam's moments */
} mq_clip;

#endif
