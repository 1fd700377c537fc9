/* layer: store */
/* logits FOLDER IDS OUT [BITS [PATTERN=R...]]: writes the logits of one sequence of token ids (raw
 * int32) as raw float32 [length, vocab_size], of a plain model, a slice, or a master at a width,
 * with layers of other widths as of slice --layer-bits;
 * scripts/check-logits.py and scripts/test-readers.sh compare them with those of other programs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "model/block.h"
#include "store/master.h"

static int fail(const mq_error *err) {
    char line[1400];
    mq_error_format(line, sizeof line, err);
    fprintf(stderr, "%s\n", line);
    return (int)err->status;
}

enum { MOST_PATTERNS = 8 };

/* What of the folder is run. */
typedef struct run_widths {
    unsigned width;
    mq_layer_bits layer_bits[MOST_PATTERNS];
    size_t count;
} run_widths;

static run_widths read_widths(int argc, char **argv) {
    run_widths widths = {0};
    if (argc > 4) {
        widths.width = (unsigned)strtoul(argv[4], NULL, 10);
    }
    for (int i = 5; i < argc; i++) {
        const char *equals = strrchr(argv[i], '=');
        const size_t length = equals == NULL ? 0 : (size_t)(equals - argv[i]);
        const unsigned width = equals == NULL ? 0 : (unsigned)strtoul(equals + 1, NULL, 10);
        widths.layer_bits[widths.count++] = (mq_layer_bits){argv[i], length, width};
    }
    return widths;
}

static mq_status run(const char *folder, const run_widths *widths, const int32_t *ids,
                     size_t length, FILE *out, mq_error *err) {
    mq_context *context = NULL;
    mq_model *model = NULL;
    float *hidden = NULL, *logits = NULL;
    mq_status status = mq_context_new(&context, NULL, err);
    if (status == MQ_OK) {
        status = mq_model_open_mixed(&model, folder, widths->width, widths->layer_bits,
                                     widths->count, err);
    }
    if (status == MQ_OK) {
        status = mq_new(&hidden, length, model->config.hidden_size * sizeof *hidden,
                        "hidden states", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&logits, length, model->config.vocab_size * sizeof *logits, "logits", err);
    }
    const double begin = mq_seconds();
    if (status == MQ_OK) {
        const mq_forward_run pass = {.model = model,
                                     .ids = ids,
                                     .sequences = 1,
                                     .length = length,
                                     .batch = 1,
                                     .phase = "logits"};
        status = mq_model_forward(hidden, &pass, context, err);
    }
    const double middle = mq_seconds();
    if (status == MQ_OK) {
        status = mq_head_logits(logits, model, hidden, length, context, err);
    }
    if (status == MQ_OK) {
        fprintf(stderr, "%zu tokens: blocks %.2f s, head %.2f s\n", length, middle - begin,
                mq_seconds() - middle);
        if (fwrite(logits, model->config.vocab_size * sizeof *logits, length, out) != length) {
            status = mq_fail(err, MQ_ERR_MACHINE, "cannot write the logits");
        }
    }
    mq_free(logits);
    mq_free(hidden);
    mq_model_free(model);
    mq_context_free(context);
    return status;
}

int main(int argc, char **argv) {
    mq_error err = {0};
    if (argc < 4 || argc > 5 + MOST_PATTERNS) {
        fprintf(stderr,
                "usage: logits FOLDER IDS OUT [BITS [PATTERN=R...]] (raw int32 in, raw float32 "
                "out)\n");
        return MQ_ERR_USAGE;
    }
    char *ids;
    size_t size;
    if (mq_read_file(&ids, &size, argv[2], (size_t)1 << 30, &err) != MQ_OK) {
        return fail(&err);
    }
    FILE *out = fopen(argv[3], "wb");
    mq_status status = out == NULL ? mq_fail_errno(&err, errno, argv[3], "write") : MQ_OK;
    if (status == MQ_OK) {
        const run_widths widths = read_widths(argc, argv);
        status = run(argv[1], &widths, (const int32_t *)(const void *)ids, size / sizeof(int32_t),
                     out, &err);
    }
    if (out != NULL && fclose(out) != 0 && status == MQ_OK) {
        status = mq_fail(&err, MQ_ERR_MACHINE, "cannot write %s", argv[3]);
    }
    mq_free(ids);
    return status == MQ_OK ? 0 : fail(&err);
}
