/* layer: store */
/* --qat on a master that is there, and the refit of its trained widths after it: for trials of its
 * settings. Nothing is written. scripts/bench-qat.sh makes a table of several.
 *
 *   bench_qat MODEL MASTER CALIB TRAIN RATE [REFIT [LAMBDA8 LAMBDA4 LAMBDA2 [PAIRS [GEMM]]]]
 *
 * TRAIN sequences of 512 tokens, 8 more to measure on; RATE of the codes, or "none" for the refit
 * alone; REFIT sequences of the refit, the last of TRAIN, all of them for every width, where
 * quantize gives some a part (default 0: none); PAIRS: rate of the pairs, below 0 that of the
 * refit; GEMM bf16 (the default) or float32. Widths 8, 4 and 2 are trained. One row of a table:
 *
 *   | lambda | sequences | rate | products | codes moved | int8: KL before, after | int7 | ... |
 * int2 | refitted: int8 | int4 | int2 | trained: codes; refit of int8, int4, int2 | seconds | MiB
 * (predicted) |
 *
 * trained: sequences that steps saw. Seconds and MiB are of training the codes.
 */
#include "master_trial.h"
#include "quant/qat.h"
#include "quant/recipe.h"

static const unsigned widths[] = {8, 4, 2};

static mq_status refit_all(mq_refit_result results[3], const mq_refit_setup *setup,
                           const mq_refit_store *store, trial *self, mq_error *err) {
    mq_refit *refit = NULL;
    mq_status status = mq_refit_prepare(setup, err);
    if (status == MQ_OK) {
        status = mq_refit_open(&refit, setup, self->context, err);
    }
    for (size_t k = 0; status == MQ_OK && k < 3; k++) {
        status = mq_refit_width(&results[k], refit, widths[k], store, 0, 0, err);
        if (status == MQ_OK) {
            status = check_trained(setup, &results[k], err);
        }
    }
    mq_refit_close(refit);
    return status;
}

static mq_status run(const mq_qat_setup *setup, size_t refit, bool none, trial *self,
                     mq_error *err) {
    const mq_refit_store store = {self, codes, pairs, put_pairs, put_norm, put_codes};
    const double started = mq_seconds();
    mq_qat_result result = {.kept_epoch = 0};
    mq_status status = MQ_OK;
    size_t predicted = 0, held = 0;
    if (!none) {
        status = mq_qat_prepare(setup, err);
        if (status == MQ_OK) {
            status = mq_qat_memory(&predicted, setup, self->context, err);
        }
        const size_t before = mq_alloc_current();
        mq_alloc_reset_peak();
        if (status == MQ_OK) {
            status = mq_qat_run(&result, setup, &store, self->context, err);
        }
        held = mq_alloc_peak() - before;
    }
    const double seconds = mq_seconds() - started;
    mq_refit_result refitted[3] = {{.tokens = 0}};
    if (status == MQ_OK && refit > 0) {
        mq_refit_setup after = setup->refit;
        after.ids += (setup->refit.train - refit) * LENGTH; /* those before the validation's */
        after.train = refit;
        after.least = ALL_OF(refit);
        after.rate = -1.0;
        status = refit_all(refitted, &after, &store, self, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    const char *const products = setup->refit.gemm != NULL ? "bf16" : "float32";
    if (none) {
        printf("| none |  |  | %s |  |", products);
    } else {
        printf("| %g, %g, %g | %zu | %g | %s | %zu |", setup->lambda[0], setup->lambda[1],
               setup->lambda[2], setup->refit.train, setup->rate, products, result.moved);
    }
    for (unsigned width = MQ_MAX_WIDTH; width >= MQ_MIN_WIDTH; width--) {
        printf(none ? "  |" : " %.4f, %.4f |", result.kl_before[width], result.kl_after[width]);
    }
    for (size_t k = 0; k < 3; k++) {
        printf(refit > 0 ? " %.4f |" : "  |", refitted[k].kl_after);
    }
    printf(" %zu; %zu, %zu, %zu |", result.tokens / LENGTH, refitted[0].tokens / LENGTH,
           refitted[1].tokens / LENGTH, refitted[2].tokens / LENGTH);
    printf(" %.0f | %.0f (%.0f) |\n", seconds, (double)held / 1048576.0,
           (double)predicted / 1048576.0);
    return MQ_OK;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    if (argc < 6) {
        fprintf(stderr, "usage: bench_qat MODEL MASTER CALIB TRAIN RATE [REFIT [LAMBDA8 LAMBDA4 "
                        "LAMBDA2 [PAIRS [GEMM]]]]\n");
        return 2;
    }
    const size_t train = strtoul(argv[4], NULL, 10);
    const size_t refit = argc > 6 ? strtoul(argv[6], NULL, 10) : 0;
    if (refit > train) {
        fprintf(stderr, "bench_qat: REFIT is more than TRAIN\n");
        return 2;
    }
    const mq_quantize_options best = mq_quantize_defaults(MQ_RECIPE_BEST);
    trial self = {0};
    mq_error err = {0};
    mq_status status =
        open_trial(&self, argv, train, argc <= 11 || strcmp(argv[11], "float32") != 0, 0, &err);
    if (status == MQ_OK) {
        mq_qat_setup setup = {
            .refit = {.model = self.model,
                      .source = self.source,
                      .selection = &self.selection,
                      .slice_rule = mq_master_slice_rule(self.master),
                      .zero_point = mq_master_zero_point(self.master),
                      .ids = self.text.ids,
                      .train = train,
                      .validation = VALIDATION,
                      .codes_move = true,
                      .length = LENGTH,
                      .pass_batch = 4,
                      .batch = 1,
                      .epochs = 1,
                      .rate = argc > 10 ? strtod(argv[10], NULL) : -1.0,
                      .gemm = self.gemm},
            .width_count = 3,
            .int8_period = mq_recipe_period(&best, 0),
            .rate = strtod(argv[5], NULL),
        };
        memcpy(setup.widths, widths, sizeof widths);
        for (size_t k = 0; k < 3; k++) {
            static const double lambda[] = {10.0, 3.0, 1.0};
            setup.lambda[k] = argc > 9 ? strtod(argv[7 + k], NULL) : lambda[k];
        }
        status = run(&setup, refit, strcmp(argv[5], "none") == 0, &self, &err);
    }
    close_trial(&self);
    if (status != MQ_OK) {
        char line[1024];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "bench_qat: %s\n", line);
    }
    return status == MQ_OK ? 0 : 1;
}
