/* The files of a state: names, and which tensors they hold. Private to src/job/state*.c. */
#ifndef MQ_JOB_STATE_FILE_H
#define MQ_JOB_STATE_FILE_H

#include "job/state.h"
#include "store/names.h"

#define MQ_STATE_NAME_SIZE 64

/* Return out. */
const char *mq_state_block_name(char out[MQ_STATE_NAME_SIZE], size_t layer);
const char *mq_state_width_name(char out[MQ_STATE_NAME_SIZE], unsigned width);
#define MQ_STATE_TEXT "text.safetensors"
/* Its only tensor. */
mq_tensor_spec mq_state_text_spec(const mq_quantize_plan *plan);
/* Whether a file of that name is a state's. */
bool mq_state_knows(const char *name);

/* A file's tensors, as they are declared. */
typedef struct mq_state_listing {
    mq_tensor_spec *specs; /* NULL: only counted */
    char (*names)[MQ_STORED_NAME_SIZE];
    size_t count, bytes;
} mq_state_listing;

/* The tensors of a block's file (width 0) or of a width's: appended to *l, or counted. */
void mq_state_list(mq_state_listing *l, const mq_quantize_plan *plan, size_t layer, unsigned width);
/* The same with memory for it; to be freed in every case. */
mq_status mq_state_list_make(mq_state_listing *l, const mq_quantize_plan *plan, size_t layer,
                             unsigned width, mq_error *err);
void mq_state_list_free(mq_state_listing *l);

/* The linear's place in the plan; NULL: it is not quantized. */
const mq_master_linear *mq_state_linear(const mq_quantize_plan *plan, size_t layer,
                                        mq_linear linear);

/* What was found in the folder is not there any more, or more is: MQ_ERR_USAGE. */
mq_status mq_state_fail_changed(const char *folder, mq_error *err);

/* Opens such a file, which is there, and checks that it is whole and holds those tensors:
 * MQ_ERR_INPUT naming it; if it is gone, mq_state_fail_changed. */
mq_status mq_state_open_file(mq_tensors **out, const mq_quantize_plan *plan, size_t layer,
                             unsigned width, mq_error *err);
mq_status mq_state_open_text(mq_tensors **out, const mq_quantize_plan *plan, mq_error *err);

#endif
