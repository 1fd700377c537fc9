/* Names of the tensors of a master (matquant/format.h), taken apart and put together. */
#ifndef MQ_STORE_NAMES_H
#define MQ_STORE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Room for the longest name that is taken for one of ours, and the longest stem P or NAME in it. */
#define MQ_STORED_NAME_SIZE 288
#define MQ_STORED_STEM_MAX 256

typedef enum mq_name_form {
    MQ_NAME_OTHER,
    MQ_NAME_CODES,  /* P.codes */
    MQ_NAME_SCALES, /* P.scales.wR */
    MQ_NAME_BIASES, /* P.biases.wR */
    MQ_NAME_WIDTH,  /* NAME.wR: private to a width if NAME is there as well */
    MQ_NAME_WEIGHT  /* P.weight */
} mq_name_form;

typedef struct mq_name {
    mq_name_form form;
    unsigned width;                /* R of the forms that have one, else 0 */
    char stem[MQ_STORED_STEM_MAX]; /* P or NAME; "" of MQ_NAME_OTHER, which every name with a longer
                                      stem is */
} mq_name;

mq_name mq_name_parse(const char *name);

/* "P.weight", "P.codes", "P.scales" for width 0; "P.scales.wR" for another. stem must be shorter
 * than MQ_STORED_STEM_MAX and part no longer than "weight". Returns out. */
const char *mq_name_make(char out[MQ_STORED_NAME_SIZE], const char *stem, const char *part,
                         unsigned width);
/* "NAME.wR" */
const char *mq_name_private(char out[MQ_STORED_NAME_SIZE], const char *name, unsigned width);

#endif
