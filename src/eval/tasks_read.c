/* Task files: JSON lines to items. */
#include <stdio.h>
#include <string.h>

#include "eval/tasks.h"
#include "text/lines.h"

#define MAX_TASK_FILE ((size_t)4 << 30) /* bytes, unpacked */

void mq_task_set_free(mq_task_set *set) {
    for (size_t i = 0; i < set->item_count; i++) {
        mq_free(set->items[i].id);
    }
    mq_free(set->tasks);
    mq_free(set->items);
    mq_free(set->choices);
    mq_free(set->ids);
    *set = (mq_task_set){0};
}

/* Room for one more element: the array, or one that took its place; NULL: no memory, and the array
 * is as it was. */
static void *with_room(void *array, size_t *capacity, size_t count, size_t size) {
    if (count < *capacity) {
        return array;
    }
    const size_t grown = *capacity < 16 ? 16 : *capacity + *capacity / 2;
    void *larger = mq_realloc(array, grown, size);
    *capacity = larger ? grown : *capacity;
    return larger;
}

static mq_status add_task(mq_task_set *set, const char *path, mq_error *err) {
    mq_task *tasks = with_room(set->tasks, &set->task_capacity, set->task_count, sizeof *tasks);
    if (!tasks) {
        return mq_fail_memory(err, "the tasks", (set->task_count + 1) * sizeof *tasks);
    }
    set->tasks = tasks;
    set->tasks[set->task_count++] = (mq_task){.path = path, .first = set->item_count};
    return MQ_OK;
}

static mq_status add_choice(mq_task_set *set, const mq_task_choice *choice, mq_error *err) {
    mq_task_choice *choices =
        with_room(set->choices, &set->choice_capacity, set->choice_count, sizeof *choices);
    if (!choices) {
        return mq_fail_memory(err, "the choices", (set->choice_count + 1) * sizeof *choices);
    }
    set->choices = choices;
    set->choices[set->choice_count++] = *choice;
    return MQ_OK;
}

static mq_status add_item(mq_task_set *set, const mq_task_item *item, const char *id,
                          mq_error *err) {
    mq_task_item *items =
        with_room(set->items, &set->item_capacity, set->item_count, sizeof *items);
    if (!items) {
        return mq_fail_memory(err, "the items", (set->item_count + 1) * sizeof *items);
    }
    set->items = items;
    char *copy = mq_strdup(id);
    if (!copy) {
        return mq_fail_memory(err, "an item's id", strlen(id) + 1);
    }
    set->items[set->item_count] = *item;
    set->items[set->item_count++].id = copy;
    return MQ_OK;
}

/* --- one line --------------------------------------------------------------------------------- */

static mq_status read_choice(mq_task_set *set, mq_task_item *item, const cJSON *json,
                             const mq_task_encoding *encoding, mq_error *err) {
    const cJSON *context = cJSON_GetObjectItemCaseSensitive(json, "context");
    const cJSON *continuation = cJSON_GetObjectItemCaseSensitive(json, "continuation");
    if (!cJSON_IsString(context) || !cJSON_IsString(continuation)) {
        return mq_fail(err, MQ_ERR_INPUT, "choice %zu is without a string \"%s\"", item->count,
                       cJSON_IsString(context) ? "continuation" : "context");
    }
    if (continuation->valuestring[0] == '\0') {
        return mq_fail(err, MQ_ERR_INPUT, "choice %zu has an empty continuation", item->count);
    }
    mq_task_choice choice;
    mq_status status = mq_task_encode(&choice, &item->truncated, set, context->valuestring,
                                      continuation->valuestring, encoding, err);
    if (!status) {
        status = add_choice(set, &choice, err);
    }
    item->count++;
    return status;
}

/* gold as an index of count choices. */
static mq_status read_gold(size_t *out, const cJSON *object, size_t count, mq_error *err) {
    const cJSON *gold = cJSON_GetObjectItemCaseSensitive(object, "gold");
    if (!cJSON_IsNumber(gold)) {
        return mq_fail(err, MQ_ERR_INPUT, "no number \"gold\"");
    }
    for (size_t i = 0; i < count; i++) {
        if (gold->valuedouble == (double)i) {
            *out = i;
            return MQ_OK;
        }
    }
    return mq_fail(err, MQ_ERR_INPUT, "\"gold\" is %g, but there are choices 0 to %zu",
                   gold->valuedouble, count - 1);
}

static mq_status read_item(mq_task_set *set, const cJSON *object, const mq_task_encoding *encoding,
                           mq_error *err) {
    if (!cJSON_IsObject(object)) {
        return mq_fail(err, MQ_ERR_INPUT, "not an object");
    }
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(object, "id");
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(object, "choices");
    if (!cJSON_IsString(id)) {
        return mq_fail(err, MQ_ERR_INPUT, "no string \"id\"");
    }
    if (!cJSON_IsArray(choices) || !choices->child) {
        return mq_fail(err, MQ_ERR_INPUT,
                       choices ? "\"choices\" is no array of at least one" : "no \"choices\"");
    }
    mq_task_item item = {.first = set->choice_count};
    mq_status status = MQ_OK;
    for (const cJSON *choice = choices->child; choice && !status; choice = choice->next) {
        status = read_choice(set, &item, choice, encoding, err);
    }
    if (!status) {
        status = read_gold(&item.gold, object, item.count, err);
    }
    if (!status) {
        mq_task_share(set, &item);
        status = add_item(set, &item, id->valuestring, err);
    }
    return status;
}

/* The error says which line of which file it was. */
static mq_status in_line(mq_error *err, mq_status status, const mq_line *line, const char *path) {
    if (!err || status != MQ_ERR_INPUT) {
        return mq_error_in_file(err, status, path);
    }
    char message[sizeof err->message];
    snprintf(message, sizeof message, "%s", err->message);
    return mq_fail_file(err, status, path, "line %zu: %s", line->number, message);
}

static mq_status read_line(mq_task_set *set, const mq_line *line, const char *path,
                           const mq_task_encoding *encoding, mq_error *err) {
    cJSON *object = NULL;
    mq_status status = mq_line_parse(&object, line, path, err);
    if (status) {
        return status;
    }
    status = in_line(err, read_item(set, object, encoding, err), line, path);
    cJSON_Delete(object);
    return status;
}

mq_status mq_task_set_read(mq_task_set *set, const char *path, size_t max_items,
                           const mq_task_encoding *encoding, const mq_context *context,
                           mq_error *err) {
    char *text = NULL;
    size_t size = 0;
    mq_status status = mq_read_file_digest(&text, &size, NULL, path, MAX_TASK_FILE, context, err);
    if (!status) {
        status = mq_error_in_file(err, add_task(set, path, err), path);
    }
    if (!status) {
        mq_task *task = &set->tasks[set->task_count - 1];
        for (mq_line line = {0}; !status && (max_items == 0 || task->count < max_items) &&
                                 mq_next_line(&line, text, size);) {
            status = mq_check_interrupt(context, err);
            if (!status) {
                status = read_line(set, &line, path, encoding, err);
            }
            task->count += !status;
        }
        if (!status && task->count == 0) {
            status = mq_fail_file(err, MQ_ERR_INPUT, path, "there is no item in it");
        }
    }
    mq_free(text);
    return status;
}
