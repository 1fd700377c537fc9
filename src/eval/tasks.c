/* What the choices' log-likelihoods come to: answers, accuracies, a line an item. */
#include <math.h>
#include <string.h>

#include "base/buffer.h"
#include "base/utf8.h"
#include "eval/perplexity.h"
#include "eval/tasks.h"

static double worth(const mq_task_choice *choice, bool normalized) {
    return normalized ? choice->loglikelihood / (double)choice->bytes : choice->loglikelihood;
}

size_t mq_task_answer(const mq_task_set *set, const mq_task_item *item, bool normalized) {
    const mq_task_choice *choices = set->choices + item->first;
    size_t best = 0;
    for (size_t c = 0; c < item->count; c++) {
        if (isnan(choices[c].loglikelihood)) {
            return SIZE_MAX;
        }
        if (worth(&choices[c], normalized) > worth(&choices[best], normalized)) {
            best = c;
        }
    }
    return best;
}

/* The length of a file's name without what says how it is stored, unless that is all of it. */
static size_t stem_length(const char *base) {
    static const char *const ends[] = {".jsonl.gz", ".jsonl", ".gz"};
    const size_t length = strlen(base);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t end_length = strlen(ends[i]);
        if (length > end_length && mq_ends_with(base, ends[i])) {
            return length - end_length;
        }
    }
    return length;
}

void mq_task_name(char *name, size_t size, const char *path) {
    const char *base = mq_path_base(path);
    const size_t length = stem_length(base);
    size_t used = 0;
    for (size_t at = 0; at < length;) {
        uint32_t code_point;
        char bytes[4];
        at += mq_utf8_decode(&code_point, base + at, length - at);
        const size_t count =
            mq_utf8_encode(bytes, code_point == MQ_UTF8_BAD ? MQ_UTF8_REPLACEMENT : code_point);
        if (used + count >= size) {
            break;
        }
        memcpy(name + used, bytes, count);
        used += count;
    }
    name[used] = '\0';
}

/* --- accuracies ------------------------------------------------------------------------------- */

/* Share of the task's items that are answered right; right[count] is scratch. */
static mq_estimate accuracy(double *right, const mq_task_set *set, const mq_task *task,
                            bool normalized) {
    for (size_t i = 0; i < task->count; i++) {
        const mq_task_item *item = &set->items[task->first + i];
        const size_t answer = mq_task_answer(set, item, normalized);
        right[i] = answer == SIZE_MAX ? NAN : answer == item->gold ? 1 : 0;
    }
    return mq_estimate_of(right, task->count);
}

static void summarize_task(mq_task_result *out, double *right, const mq_task_set *set,
                           const mq_task *task) {
    *out = (mq_task_result){.items = task->count};
    mq_task_name(out->name, sizeof out->name, task->path);
    for (size_t i = task->first; i < task->first + task->count; i++) {
        const mq_task_item *item = &set->items[i];
        out->truncated += item->truncated;
        out->choices += item->count;
        for (size_t c = item->first; c < item->first + item->count; c++) {
            out->tokens += set->choices[c].length - set->choices[c].context;
        }
    }
    const mq_estimate acc = accuracy(right, set, task, false);
    const mq_estimate acc_norm = accuracy(right, set, task, true);
    out->accuracy = (mq_accuracy){acc.mean, acc.std_error, acc_norm.mean, acc_norm.std_error};
}

static mq_accuracy mean_of(const mq_task_result *tasks, size_t count) {
    mq_accuracy sum = {0};
    for (size_t i = 0; i < count; i++) {
        const mq_accuracy *a = &tasks[i].accuracy;
        sum.acc += a->acc;
        sum.acc_norm += a->acc_norm;
        sum.acc_stderr += a->acc_stderr * a->acc_stderr;
        sum.acc_norm_stderr += a->acc_norm_stderr * a->acc_norm_stderr;
    }
    const double n = (double)count;
    return (mq_accuracy){sum.acc / n, sqrt(sum.acc_stderr) / n, sum.acc_norm / n,
                         sqrt(sum.acc_norm_stderr) / n};
}

mq_status mq_task_summarize(mq_eval_result *result, const mq_task_set *set, mq_error *err) {
    double *right = NULL;
    mq_status status =
        mq_new(&result->tasks, set->task_count, sizeof *result->tasks, "the tasks' results", err);
    if (status == MQ_OK) {
        status = mq_new(&right, set->item_count, sizeof *right, "the items' results", err);
    }
    if (status == MQ_OK) {
        result->task_count = set->task_count;
        for (size_t t = 0; t < set->task_count; t++) {
            summarize_task(&result->tasks[t], right, set, &set->tasks[t]);
        }
        result->mean = mean_of(result->tasks, result->task_count);
    }
    mq_free(right);
    return status;
}

/* --- a line an item --------------------------------------------------------------------------- */

static void put_answer(mq_buffer *out, const char *key, size_t answer) {
    if (answer == SIZE_MAX) {
        mq_buffer_printf(out, ", \"%s\": null", key);
    } else {
        mq_buffer_printf(out, ", \"%s\": %zu", key, answer);
    }
}

static void put_item(mq_buffer *out, const char *task, const mq_task_set *set,
                     const mq_task_item *item) {
    const mq_task_choice *choices = set->choices + item->first;
    mq_buffer_put_text(out, "{\"task\": ");
    mq_buffer_put_json_string(out, task);
    mq_buffer_put_text(out, ", \"id\": ");
    mq_buffer_put_json_string(out, item->id);
    mq_buffer_printf(out, ", \"gold\": %zu", item->gold);
    put_answer(out, "answer", mq_task_answer(set, item, false));
    put_answer(out, "answer_norm", mq_task_answer(set, item, true));
    mq_buffer_printf(out, ", \"truncated\": %s, \"loglikelihood\": [",
                     item->truncated ? "true" : "false");
    for (size_t c = 0; c < item->count; c++) {
        mq_buffer_put_text(out, c == 0 ? "" : ", ");
        mq_buffer_put_json_number(out, choices[c].loglikelihood);
    }
    mq_buffer_put_text(out, "], \"tokens\": [");
    for (size_t c = 0; c < item->count; c++) {
        mq_buffer_printf(out, "%s%zu", c == 0 ? "" : ", ", choices[c].length - choices[c].context);
    }
    mq_buffer_put_text(out, "], \"bytes\": [");
    for (size_t c = 0; c < item->count; c++) {
        mq_buffer_printf(out, "%s%zu", c == 0 ? "" : ", ", choices[c].bytes);
    }
    mq_buffer_put_text(out, "]}\n");
}

mq_status mq_task_write_items(const char *path, bool replace, const mq_task_set *set,
                              mq_error *err) {
    mq_buffer out = {0};
    for (size_t t = 0; t < set->task_count; t++) {
        const mq_task *task = &set->tasks[t];
        char name[sizeof((mq_task_result *)0)->name]; /* as in the results */
        mq_task_name(name, sizeof name, task->path);
        for (size_t i = task->first; i < task->first + task->count; i++) {
            put_item(&out, name, set, &set->items[i]);
        }
    }
    const mq_status status = out.failed ? mq_fail_memory(err, "the items' lines", out.capacity)
                                        : mq_output_file(path, out.text, out.length, replace, err);
    mq_free(out.text);
    return status;
}
