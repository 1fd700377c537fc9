/* The one JSON object that a verb prints with --json. */
#ifndef MATQUANT_CLI_JSON_H
#define MATQUANT_CLI_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* Adds members to objects; once memory was lacking it is remembered, and the functions do nothing.
 * object may be NULL then. */
typedef struct cli_json {
    cJSON *root;
    bool failed;
} cli_json;

void cli_json_begin(cli_json *json);
void cli_json_free(cli_json *json);

void cli_json_size(cli_json *json, cJSON *object, const char *key, size_t value);
void cli_json_number(cli_json *json, cJSON *object, const char *key,
                     double value); /* not finite: null */
void cli_json_bool(cli_json *json, cJSON *object, const char *key, bool value);
/* Bytes that are not UTF-8 (a path may hold some) become U+FFFD; NULL: null. */
void cli_json_text(cli_json *json, cJSON *object, const char *key, const char *value);
void cli_json_null(cli_json *json, cJSON *object, const char *key);
cJSON *cli_json_object(cli_json *json, cJSON *object, const char *key);
cJSON *cli_json_array(cli_json *json, cJSON *object, const char *key);
/* A new object at the end of an array. */
cJSON *cli_json_element(cli_json *json, cJSON *array);
/* A member that is JSON text already. */
void cli_json_raw(cli_json *json, cJSON *object, const char *key, const char *text);

#endif
