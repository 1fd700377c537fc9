/* cJSON's memory, counted, and as little of it as a test allows. One thread. */
#ifndef MQ_TEST_JSON_MEMORY_H
#define MQ_TEST_JSON_MEMORY_H

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>

static size_t json_pieces; /* that were given out and not yet taken back */
static size_t json_left;   /* that there still are */

static void *json_give(size_t size) {
    if (json_left == 0) {
        errno = ENOMEM;
        return NULL;
    }
    json_left--;
    json_pieces++;
    return malloc(size);
}

static void json_take_back(void *memory) {
    json_pieces -= memory != NULL ? 1 : 0;
    free(memory);
}

/* So many pieces, and no more. */
static void json_memory_begin(size_t left) {
    cJSON_Hooks hooks = {.malloc_fn = json_give, .free_fn = json_take_back};
    json_pieces = 0;
    json_left = left;
    cJSON_InitHooks(&hooks);
}

/* As much as there is; returns how many pieces were not taken back. */
static size_t json_memory_end(void) {
    cJSON_InitHooks(NULL);
    return json_pieces;
}

#endif
