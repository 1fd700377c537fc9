/* The inside of zero-shot tasks: items read and made tokens, packed, scored. */
#ifndef MQ_EVAL_TASKS_H
#define MQ_EVAL_TASKS_H

#include "matquant/eval.h"
#include "matquant/tokenizer.h"
#include "model/packed.h"

/* A choice's tokens are ids[first, first + length) of the set: `context` tokens and those of the
 * continuation. All but the last go through the model; the rows from context - 1 on predict the
 * continuation.
 *
 * The first `shared` of the input tokens (length - 1 of them) are also the first ones of choice
 * `parent`, an earlier one of the item: of those, the one that shares most. Its rows are used. */
typedef struct mq_task_choice {
    size_t first, length, context;
    size_t bytes; /* UTF-8 bytes of the continuation, as the file has it */
    size_t parent, shared;
    double loglikelihood; /* Σ log p(token | tokens before it) over the continuation, in nats */
} mq_task_choice;

typedef struct mq_task_item {
    char *id;            /* mq_free */
    size_t first, count; /* its choices are [first, first + count) of the set */
    size_t gold;         /* below count */
    bool truncated;      /* some choice's context is cut */
} mq_task_item;

/* One file; its items are [first, first + count) of the set. */
typedef struct mq_task {
    const char *path; /* the caller's */
    size_t first, count;
} mq_task;

/* Everything of all files; zero-initialized it is empty. */
typedef struct mq_task_set {
    mq_task *tasks;
    mq_task_item *items;
    mq_task_choice *choices;
    int32_t *ids;
    size_t task_count, item_count, choice_count, id_count;
    size_t task_capacity, item_capacity, choice_capacity, id_capacity;
} mq_task_set;

void mq_task_set_free(mq_task_set *set);

/* What tokens are made with. */
typedef struct mq_task_encoding {
    const mq_tokenizer *tokenizer;
    int32_t bos;             /* before every context; -1: none */
    size_t vocab_size;       /* an id that is not below it is MQ_ERR_INPUT */
    size_t max_input_tokens; /* max_position_embeddings */
} mq_task_encoding;

/* Appends a task file's items, at most max_items (0: all). The format and what is refused stand in
 * matquant/eval.h; errors name file and line. */
mq_status mq_task_set_read(mq_task_set *set, const char *path, size_t max_items,
                           const mq_task_encoding *encoding, const mq_context *context,
                           mq_error *err);

/* Appends a choice's tokens to set->ids and fills all of *choice but parent, shared and
 * loglikelihood. *truncated is set when its context was cut. Errors are without file and line. */
mq_status mq_task_encode(mq_task_choice *choice, bool *truncated, mq_task_set *set,
                         const char *context, const char *continuation,
                         const mq_task_encoding *encoding, mq_error *err);

/* Finds parent and shared of an item's choices. */
void mq_task_share(mq_task_set *set, const mq_task_item *item);

/* Fills loglikelihood of all choices. Items are packed in order into batches of at most batch_rows
 * rows (one item at least), and batches pass the blocks in groups whose hidden states stay below
 * hidden_bytes (one batch at least). *rows: tokens that went through the model. What batch_rows is
 * shows in roundings only; hidden_bytes and threads do not show. Progress: phase "tasks", unit
 * "item". */
mq_status mq_task_score(mq_task_set *set, size_t *rows, const mq_model *model, size_t batch_rows,
                        size_t hidden_bytes, const mq_context *context, mq_error *err);

/* Accuracies of the tasks and their mean, into result (tasks, task_count, mean). */
mq_status mq_task_summarize(mq_eval_result *result, const mq_task_set *set, mq_error *err);

/* The item's choice of the largest log-likelihood, or with `normalized` of the largest a byte; the
 * first of equal ones. SIZE_MAX when one of them is not a number. */
size_t mq_task_answer(const mq_task_set *set, const mq_task_item *item, bool normalized);

/* All items as JSON lines into a file, see mq_eval_options.items. */
mq_status mq_task_write_items(const char *path, bool replace, const mq_task_set *set,
                              mq_error *err);

/* "arc_easy" of "tasks/arc_easy.jsonl.gz": name[size], cut between characters when
 * it is longer, with U+FFFD for what is not UTF-8. */
void mq_task_name(char *name, size_t size, const char *path);

#endif
