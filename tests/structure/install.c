/* What a program that uses the installed library needs: the public headers, and what pkg-config
 * says. Each verb is asked for something with a folder that is not there, which is MQ_ERR_INPUT and
 * names it. */
#include <matquant/context.h>
#include <matquant/error.h>
#include <matquant/eval.h>
#include <matquant/format.h>
#include <matquant/inspect.h>
#include <matquant/mixture.h>
#include <matquant/names.h>
#include <matquant/quantize.h>
#include <matquant/slice.h>
#include <matquant/tokenizer.h>
#include <matquant/verify.h>
#include <matquant/version.h>
#include <stdio.h>
#include <string.h>

#define NOWHERE "nowhere"
#define OUTPUT "output" /* install.cmake looks whether it appears */

static mq_status quantize(mq_error *err) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_RTN);
    options.model = NOWHERE;
    options.output = OUTPUT;
    mq_quantize_report report;
    return mq_quantize(&report, &options, NULL, err);
}

static mq_status slice(mq_error *err) {
    mq_slice_options options = mq_slice_defaults();
    options.master = NOWHERE;
    options.output = OUTPUT;
    options.width = 4;
    mq_slice_report report;
    const mq_status status = mq_slice(&report, &options, NULL, err);
    mq_slice_report_free(&report);
    return status;
}

static mq_status evaluate(mq_error *err) {
    mq_eval_options options = mq_eval_defaults();
    options.model = NOWHERE;
    options.text = NOWHERE "/text.txt";
    mq_eval_result result;
    return mq_evaluate(&result, &options, NULL, err);
}

static mq_status verify(mq_error *err) {
    mq_verify_report report;
    return mq_verify(&report, NOWHERE, NULL, NULL, err);
}

static mq_status inspect(mq_error *err) {
    mq_inspection inspection;
    return mq_inspect(&inspection, NOWHERE, err);
}

int main(void) {
    static const struct {
        const char *name;
        mq_status (*ask)(mq_error *err);
    } verbs[] = {{"quantize", quantize},
                 {"slice", slice},
                 {"evaluate", evaluate},
                 {"verify", verify},
                 {"inspect", inspect}};
    int failed = strcmp(mq_version(), MQ_VERSION) != 0;
    printf("%s\n", mq_version());
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        mq_error err = {0};
        const mq_status status = verbs[i].ask(&err);
        if (status != MQ_ERR_INPUT || err.status != status ||
            strncmp(err.file, NOWHERE, strlen(NOWHERE)) != 0) {
            fprintf(stderr, "%s: status %d, file \"%s\": %s\n", verbs[i].name, (int)status,
                    err.file, err.message);
            failed = 1;
        }
    }
    return failed;
}
