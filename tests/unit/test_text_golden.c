/* layer: text */
/* Against the `tokenizers` package: the goldens that scripts/make-tokenizer-goldens.py makes. Each
 * variant is one of two tokenizer.json files with fields replaced; ids and decoded text of over 1
 * MB have to be the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "matquant/tokenizer.h"
#include "text/utf8.h"

#define GOLDEN MATQUANT_GOLDEN_DIR "/tokenizer/"
#define LONG_SIZE ((size_t)1 << 20)

static cJSON *read_json(const char *name) {
    cJSON *value = NULL;
    char *path = mq_path_join(GOLDEN, name);
    assert_int_equal(mq_json_read(&value, path, NULL), MQ_OK);
    mq_free(path);
    return value;
}

/* --- the long text ---------------------------------------------------------------------------- */

typedef struct line {
    const char *text;
    size_t size;
} line;

static size_t split_lines(line *lines, const char *text, size_t size) {
    size_t count = 0;
    for (size_t at = 0; at <= size; count++) {
        const char *newline = at < size ? memchr(text + at, '\n', size - at) : NULL;
        size_t length = newline ? (size_t)(newline - (text + at)) : size - at;
        if (lines) {
            lines[count] = (line){text + at, length};
        }
        at += length + 1;
    }
    return count;
}

/* long_text() of the script. */
static mq_bytes make_long_text(const char *text, size_t size) {
    static const char *const separators[] = {"\n", " ", ""};
    mq_bytes out = {0};
    size_t count = split_lines(NULL, text, size);
    line *lines = mq_alloc(count, sizeof *lines);
    assert_non_null(lines);
    split_lines(lines, text, size);
    for (size_t round = 0; out.size < LONG_SIZE; round++) {
        for (size_t i = 0; i < count; i++) {
            const line *chosen = &lines[(i * 7919 + round * 31) % count];
            const char *separator = separators[round % 3];
            assert_int_equal(mq_bytes_append(&out, chosen->text, chosen->size, NULL), MQ_OK);
            assert_int_equal(mq_bytes_append(&out, separator, strlen(separator), NULL), MQ_OK);
        }
    }
    mq_free(lines);
    return out;
}

/* --- variants --------------------------------------------------------------------------------- */

/* Sets each member of `changes`. */
static void replace_members(cJSON *object, const cJSON *changes) {
    for (const cJSON *item = changes->child; item; item = item->next) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, item->string);
        assert_true(cJSON_AddItemToObject(object, item->string, cJSON_Duplicate(item, true)));
    }
}

static void drop_merges(cJSON *model, int every) {
    cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    cJSON *kept = cJSON_CreateArray();
    int index = 0;
    while (merges->child) {
        cJSON *merge = cJSON_DetachItemViaPointer(merges, merges->child);
        if (index++ % every == every - 1) {
            cJSON_Delete(merge);
        } else {
            cJSON_AddItemToArray(kept, merge);
        }
    }
    cJSON_ReplaceItemInObjectCaseSensitive(model, "merges", kept);
}

static void join_merges(cJSON *model) {
    cJSON *joined = cJSON_CreateArray();
    const cJSON *merge;
    cJSON_ArrayForEach(merge, cJSON_GetObjectItemCaseSensitive(model, "merges")) {
        char *text =
            mq_asprintf("%s %s", merge->child->valuestring, merge->child->next->valuestring);
        cJSON_AddItemToArray(joined, cJSON_CreateString(text));
        mq_free(text);
    }
    cJSON_ReplaceItemInObjectCaseSensitive(model, "merges", joined);
}

static void drop_bytes(cJSON *model) {
    for (unsigned byte = 0x90; byte < 0xa0; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(model, "vocab"),
                                                name);
    }
}

/* build_variant() of the script. */
static cJSON *build_variant(const cJSON *base, const cJSON *variant) {
    cJSON *whole = cJSON_Duplicate(base, true);
    cJSON *model = cJSON_GetObjectItemCaseSensitive(whole, "model");
    const cJSON *edits = cJSON_GetObjectItemCaseSensitive(variant, "edits");
    const cJSON *every = cJSON_GetObjectItemCaseSensitive(edits, "drop_merges_every");
    replace_members(whole, cJSON_GetObjectItemCaseSensitive(variant, "top"));
    replace_members(model, cJSON_GetObjectItemCaseSensitive(variant, "model"));
    if (every) {
        drop_merges(model, every->valueint);
    }
    if (cJSON_GetObjectItemCaseSensitive(edits, "string_merges")) {
        join_merges(model);
    }
    if (cJSON_GetObjectItemCaseSensitive(edits, "drop_bytes")) {
        drop_bytes(model);
    }
    return whole;
}

static mq_tokenizer *open_variant(const cJSON *base, const cJSON *variant) {
    const char *temporary = getenv("TMPDIR");
    char folder[256], path[300];
    snprintf(folder, sizeof folder, "%s/mq-golden-XXXXXX", temporary ? temporary : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cJSON *whole = build_variant(base, variant);
    char *text = cJSON_PrintUnformatted(whole);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    free(text);
    cJSON_Delete(whole);
    mq_tokenizer *tokenizer = NULL;
    mq_error err = {0};
    if (mq_tokenizer_open(&tokenizer, folder, &err)) {
        print_error("%s\n", err.message);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_non_null(tokenizer);
    return tokenizer;
}

/* --- comparing -------------------------------------------------------------------------------- */

static size_t different(const char *name, const char *what, double expected, double found) {
    if (expected == found) {
        return 0;
    }
    print_error("%s: %s is %.0f, should be %.0f\n", name, what, found, expected);
    return 1;
}

static double number(const cJSON *variant, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(variant, key)->valuedouble;
}

/* The decoded text with U+FFFD for what is ill-formed, as `tokenizers` makes it. */
static size_t check_decoding(const cJSON *variant, const char *key, const mq_tokenizer *tokenizer,
                             const int32_t *ids, size_t count, bool skip_special) {
    if (!cJSON_GetObjectItemCaseSensitive(variant, key)) {
        return 0;
    }
    char *text = NULL;
    size_t size = 0;
    mq_bytes repaired = {0};
    assert_int_equal(mq_tokenizer_decode(&text, &size, tokenizer, ids, count, skip_special, NULL),
                     MQ_OK);
    assert_int_equal(mq_utf8_repair(&repaired, text, size, NULL), MQ_OK);
    uint32_t crc = mq_crc32(0, repaired.data, repaired.size);
    mq_tokenizer_free_text(text);
    mq_bytes_free(&repaired);
    return different(variant->child->valuestring, key, number(variant, key), crc);
}

static size_t check_long(const cJSON *variant, const mq_tokenizer *tokenizer,
                         const mq_bytes *text) {
    const char *name = cJSON_GetObjectItemCaseSensitive(variant, "name")->valuestring;
    int32_t *ids = NULL;
    size_t count = 0;
    mq_error err = {0};
    if (mq_tokenizer_encode(&ids, &count, tokenizer, text->data, text->size, true, &err)) {
        print_error("%s: %s\n", name, err.message);
        return 1;
    }
    size_t bad = different(name, "the number of ids", number(variant, "count"), (double)count);
    bad += different(name, "the CRC of the ids", number(variant, "crc32"),
                     mq_crc32(0, ids, count * sizeof *ids));
    bad += check_decoding(variant, "decoded_crc32", tokenizer, ids, count, false);
    bad += check_decoding(variant, "decoded_skipped_crc32", tokenizer, ids, count, true);
    mq_tokenizer_free_ids(ids);
    return bad;
}

static size_t check_variants(const char *base_name) {
    char *text = NULL;
    size_t size = 0, bad = 0, checked = 0;
    assert_int_equal(mq_read_file(&text, &size, GOLDEN "text.bin", LONG_SIZE, NULL), MQ_OK);
    mq_bytes long_text = make_long_text(text, size);
    char file[64];
    snprintf(file, sizeof file, "%s.json", base_name);
    cJSON *base = read_json(file), *variants = read_json("variants.json");
    const cJSON *variant;
    cJSON_ArrayForEach(variant, variants) {
        if (strcmp(cJSON_GetObjectItemCaseSensitive(variant, "base")->valuestring, base_name) !=
            0) {
            continue;
        }
        mq_tokenizer *tokenizer = open_variant(base, variant);
        bad += check_long(variant, tokenizer, &long_text);
        mq_tokenizer_free(tokenizer);
        checked++;
    }
    assert_true(checked >= 10);
    cJSON_Delete(base);
    cJSON_Delete(variants);
    mq_bytes_free(&long_text);
    mq_free(text);
    return bad;
}

static void test_byte_level(void **state) {
    (void)state;
    assert_int_equal(check_variants("byte-level"), 0);
}

static void test_sentencepiece(void **state) {
    (void)state;
    assert_int_equal(check_variants("sentencepiece"), 0);
}

/* The short text with every id committed: says where, when a CRC only says that. */
static void check_ids(const cJSON *variant, const char *text, size_t size) {
    const char *name = cJSON_GetObjectItemCaseSensitive(variant, "name")->valuestring;
    char file[80], *packed = NULL;
    size_t packed_size = 0, count = 0;
    int32_t *ids = NULL;
    char *path = mq_asprintf("%s%s.ids.gz", GOLDEN, name);
    assert_int_equal(mq_read_file(&packed, &packed_size, path, LONG_SIZE, NULL), MQ_OK);
    mq_free(path);
    snprintf(file, sizeof file, "%.64s.json",
             cJSON_GetObjectItemCaseSensitive(variant, "base")->valuestring);
    cJSON *base = read_json(file);
    mq_tokenizer *tokenizer = open_variant(base, variant);
    assert_int_equal(mq_tokenizer_encode(&ids, &count, tokenizer, text, size, true, NULL), MQ_OK);
    for (size_t i = 0; i < count && 2 * i + 1 < packed_size; i++) {
        int32_t expected = (unsigned char)packed[2 * i] | (unsigned char)packed[2 * i + 1] << 8;
        if (ids[i] != expected) {
            print_error("%s: id %zu is %d, should be %d\n", name, i, ids[i], expected);
        }
        assert_int_equal(ids[i], expected);
    }
    assert_int_equal(2 * count, packed_size);
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free(tokenizer);
    cJSON_Delete(base);
    mq_free(packed);
}

static void test_ids(void **state) {
    (void)state;
    static const char *const names[] = {"smollm2", "llama3", "llama2", "gemma3", "metaspace-first"};
    char *text = NULL;
    size_t size = 0, checked = 0;
    assert_int_equal(mq_read_file(&text, &size, GOLDEN "text.bin", LONG_SIZE, NULL), MQ_OK);
    cJSON *variants = read_json("variants.json");
    const cJSON *variant;
    cJSON_ArrayForEach(variant, variants) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (strcmp(cJSON_GetObjectItemCaseSensitive(variant, "name")->valuestring, names[i]) ==
                0) {
                check_ids(variant, text, size);
                checked++;
            }
        }
    }
    assert_int_equal(checked, sizeof names / sizeof *names);
    cJSON_Delete(variants);
    mq_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_sentencepiece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
