/* layer: store */
/* The end-to-end refit of one width alone, on a master that is there: for trials of its settings.
 * Nothing is written. scripts/bench-refit.sh makes a table of several.
 *
 *   bench_refit MODEL MASTER CALIB WIDTH [TRAIN [EPOCHS [RATE [GEMM [BATCH [KEPT [THREADS]]]]]]]
 *
 * TRAIN sequences of 512 tokens (default 192), 8 more to measure on; RATE below 0: that of the
 * width; GEMM float32 (the default) or bf16; BATCH sequences a step (default 4); KEPT MiB for
 * blocks' insides between forward and backward (default 0: they are made again); THREADS
 * (default 0: one a processor). One row of a table:
 *
 *   | bits | sequences | epochs | rate | GEMM | batch | KL before | KL after | seconds | MiB
 * (predicted) |
 */
#include "master_trial.h"

static mq_status run(const mq_refit_setup *setup, trial *self, unsigned width, mq_error *err) {
    const mq_refit_store store = {self, codes, pairs, put_pairs, put_norm, put_codes};
    size_t predicted;
    mq_refit *refit = NULL;
    mq_refit_result result;
    mq_status status = mq_refit_prepare(setup, err);
    if (status == MQ_OK) {
        status = mq_refit_memory(&predicted, setup, self->context, err);
    }
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    if (status == MQ_OK) {
        status = mq_refit_open(&refit, setup, self->context, err);
    }
    if (status == MQ_OK) {
        status = mq_refit_width(&result, refit, width, &store, 0, 0, err);
    }
    if (status == MQ_OK) {
        const double rate = setup->rate < 0.0 ? mq_refit_rate(width) : setup->rate;
        printf("| %u | %zu | %zu | %g | %s | %zu | %.5f | %.5f | %.2f | %.0f (%.0f) |\n", width,
               setup->train, setup->epochs, rate, setup->gemm != NULL ? "bf16" : "float32",
               setup->batch, result.kl_before, result.kl_after, result.seconds,
               (double)(mq_alloc_peak() - before) / 1048576.0, (double)predicted / 1048576.0);
    }
    mq_refit_close(refit);
    return status;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    if (argc < 5) {
        fprintf(stderr, "usage: bench_refit MODEL MASTER CALIB WIDTH [TRAIN [EPOCHS [RATE "
                        "[GEMM [BATCH [KEPT [THREADS]]]]]]]\n");
        return 2;
    }
    const unsigned width = (unsigned)strtoul(argv[4], NULL, 10);
    const size_t train = argc > 5 ? strtoul(argv[5], NULL, 10) : 192;
    trial self = {0};
    mq_error err = {0};
    mq_status status = open_trial(&self, argv, train, argc > 8 && strcmp(argv[8], "bf16") == 0,
                                  argc > 11 ? strtoul(argv[11], NULL, 10) : 0, &err);
    if (status == MQ_OK) {
        const mq_refit_setup setup = {.model = self.model,
                                      .source = self.source,
                                      .selection = &self.selection,
                                      .slice_rule = mq_master_slice_rule(self.master),
                                      .ids = self.text.ids,
                                      .train = train,
                                      .validation = VALIDATION,
                                      .length = LENGTH,
                                      .pass_batch = 4,
                                      .batch = argc > 9 ? strtoul(argv[9], NULL, 10) : 4,
                                      .epochs = argc > 6 ? strtoul(argv[6], NULL, 10) : 1,
                                      .rate = argc > 7 ? strtod(argv[7], NULL) : -1.0,
                                      .kept_bytes =
                                          argc > 10 ? strtoul(argv[10], NULL, 10) << 20 : 0,
                                      .gemm = self.gemm};
        status = run(&setup, &self, width, &err);
    }
    close_trial(&self);
    if (status != MQ_OK) {
        char line[1024];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "bench_refit: %s\n", line);
    }
    return status == MQ_OK ? 0 : 1;
}
