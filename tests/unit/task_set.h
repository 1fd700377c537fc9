/* A set of items with room for some. */
#ifndef TASK_SET_H
#define TASK_SET_H

#include "temporary.h"

#include "eval/tasks.h"

enum { MAX_ITEMS = 16, MAX_CHOICES = 64, MAX_IDS = 4096 };

static inline mq_task_set new_set(void) {
    mq_task_set set = {.tasks = mq_calloc(1, sizeof(mq_task)),
                       .items = mq_calloc(MAX_ITEMS, sizeof(mq_task_item)),
                       .choices = mq_calloc(MAX_CHOICES, sizeof(mq_task_choice)),
                       .ids = mq_calloc(MAX_IDS, sizeof(int32_t)),
                       .task_count = 1};
    set.tasks[0].path = "tasks/random.jsonl";
    return set;
}

#endif
