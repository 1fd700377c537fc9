/* What the source's model card says for the hub, so that slices' cards can say it, too. */
#include <string.h>

#include "job/job.h"
#include "text/front_matter.h"

/* Of README.md no more is looked at. */
#define CARD_BYTES ((size_t)64 << 10)

/* A card that cannot be read is as good as none. The size of what is no file is 0, or is an error.
 */
static mq_status read_card(cJSON **out, const char *path, mq_error *err) {
    size_t size = 0;
    mq_mapping file = {0};
    if (mq_file_size(&size, path, NULL) != MQ_OK || size == 0) {
        return MQ_OK;
    }
    mq_status status = mq_map_file(&file, path, err);
    if (status != MQ_OK) {
        return status == MQ_ERR_INPUT ? MQ_OK : status;
    }
    status = mq_front_matter_read(out, (const char *)file.data,
                                  file.size < CARD_BYTES ? file.size : CARD_BYTES, err);
    mq_unmap_file(&file);
    return status;
}

mq_status mq_quantize_read_card(mq_quantize_plan *plan, mq_error *err) {
    const char *folder = plan->options->model;
    char *path = mq_path_join(folder, "README.md");
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    const mq_status status = read_card(&plan->card, path, err);
    mq_free(path);
    return status;
}
