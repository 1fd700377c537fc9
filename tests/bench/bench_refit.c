/* layer: store */
/* The end-to-end refit of one width alone, on a master that is there: for trials of its settings.
 * Nothing is written. scripts/bench-refit.sh makes a table of several.
 *
 *   bench_refit MODEL MASTER CALIB WIDTH [TRAIN [EPOCHS [RATE [GEMM [BATCH [KEPT [THREADS]]]]]]]
 *
 * TRAIN sequences of 512 tokens (default 192), all of them for every width, where quantize gives
 * some a part; 8 more to measure on; RATE below 0: that of the width; GEMM float32 (the default) or
 * bf16; BATCH sequences a step (default 4); KEPT MiB for blocks' insides between forward and
 * backward (default 0: they are made again); THREADS (default 0: one a processor). One row of a
 * table:
 *
 *   | bits | sequences | epochs | trained | rate | GEMM | batch | KL before | KL after | seconds
 *   | teacher, measuring, loading, head, blocks: % | MiB (predicted) |
 *
 * trained: the sequences that steps saw, each as often as they did (whole steps only). Seconds are
 * without the teacher's, which the shares that follow are of, too: the teacher's pass over all
 * sequences; measuring before and after each epoch; in steps, loading the blocks' numbers; the
 * head, of teacher and student, and back; and the rest, blocks forward and back and Adam.
 */
#include "master_trial.h"
#include "model/head_gradient.h"
#include "quant/distill.h"

/* --- phases -------------------------------------------------------------------------------------
 */

typedef enum phase { TEACHER, MEASURING, LOADING, HEAD, PHASES } phase;

static double spent[PHASES]; /* seconds */

/* The refit has no timers: the linker sends the calls that cross its files through here (--wrap,
 * cmake/MatquantTests.cmake). __real_NAME is the function, __wrap_NAME what its callers in other
 * files reach. */
#define REAL(name) extern __typeof__(name) __real_##name, __wrap_##name

#define TIMED(phase, call)                                                                         \
    do {                                                                                           \
        const double begin = mq_seconds();                                                         \
        const mq_status status = call;                                                             \
        spent[phase] += mq_seconds() - begin;                                                      \
        return status;                                                                             \
    } while (0)

REAL(mq_distill_teach);
REAL(mq_distill_measure);
REAL(mq_student_load);
REAL(mq_head_kl_gradient);

mq_status __wrap_mq_distill_teach(mq_distill *distill, mq_error *err) {
    TIMED(TEACHER, __real_mq_distill_teach(distill, err));
}

mq_status __wrap_mq_distill_measure(double *kl, mq_distill *distill, mq_student *student,
                                    mq_error *err) {
    const double head = spent[HEAD]; /* of steps alone */
    const double begin = mq_seconds();
    const mq_status status = __real_mq_distill_measure(kl, distill, student, err);
    spent[MEASURING] += mq_seconds() - begin;
    spent[HEAD] = head;
    return status;
}

mq_status __wrap_mq_student_load(mq_block_params *params, bool bf16,
                                 uint8_t *const block_codes[MQ_LINEAR_COUNT],
                                 const mq_student *student, size_t layer, mq_error *err) {
    TIMED(LOADING, __real_mq_student_load(params, bf16, block_codes, student, layer, err));
}

mq_status __wrap_mq_head_kl_gradient(const mq_head_kl *of, mq_head_gradient *memory,
                                     mq_error *err) {
    TIMED(HEAD, __real_mq_head_kl_gradient(of, memory, err));
}

/* A function that was renamed or moved is no longer timed, and the linker says nothing. */
static mq_status check_phases(mq_error *err) {
    static const char *const names[PHASES] = {"teacher", "measuring", "loading", "head"};
    for (phase which = 0; which < PHASES; which++) {
        if (spent[which] <= 0.0) {
            return mq_fail(err, MQ_ERR_CHECK,
                           "bench_refit's timers do not fit the refit: %s took no time",
                           names[which]);
        }
    }
    return MQ_OK;
}

/* --- a trial ------------------------------------------------------------------------------------
 */

static void print_row(const mq_refit_setup *setup, unsigned width, const mq_refit_result *result,
                      double held, double predicted) {
    const double rate = setup->rate < 0.0 ? mq_refit_rate(width) : setup->rate;
    printf("| %u | %zu | %zu | %zu | %g | %s | %zu | %.5f | %.5f | %.2f |", width, setup->train,
           setup->epochs, result->tokens / LENGTH, rate, setup->gemm != NULL ? "bf16" : "float32",
           mq_refit_batch(setup), result->kl_before, result->kl_after, result->seconds);
    const double all = spent[TEACHER] + result->seconds;
    double rest = all;
    for (phase which = 0; which < PHASES; which++) {
        printf(" %.0f,", 100.0 * spent[which] / all);
        rest -= spent[which];
    }
    printf(" %.0f | %.0f (%.0f) |\n", 100.0 * rest / all, held / 1048576.0, predicted / 1048576.0);
}

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
        status = check_trained(setup, &result, err);
    }
    if (status == MQ_OK) {
        status = check_phases(err);
    }
    if (status == MQ_OK) {
        print_row(setup, width, &result, (double)(mq_alloc_peak() - before), (double)predicted);
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
                                      .zero_point = mq_master_zero_point(self.master),
                                      .ids = self.text.ids,
                                      .train = train,
                                      .least = mq_refit_is_wide(width) ? ALL_OF(train) : train,
                                      .validation = VALIDATION,
                                      .length = LENGTH,
                                      .pass_batch = 4,
                                      .batch = argc > 9 ? strtoul(argv[9], NULL, 10) : 4,
                                      .epochs = argc > 6 ? strtoul(argv[6], NULL, 10) : 1,
                                      .rate = argc > 7 ? strtod(argv[7], NULL) : -1.0,
                                      .widths = &width,
                                      .width_count = 1,
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
