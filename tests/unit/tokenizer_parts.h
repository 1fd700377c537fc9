/* A small tokenizer.json by hand, any part of which may be another. */
#ifndef TOKENIZER_PARTS_H
#define TOKENIZER_PARTS_H

#include "temporary.h"

#include "base/alloc.h"
#include "matquant/tokenizer.h"

/* The parts of a tokenizer.json; NULL: the default. */
typedef struct parts {
    const char *added, *normalizer, *pre_tokenizer, *post_processor, *decoder, *model;
} parts;

#define VOCAB                                                                                      \
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"<unk>\":5,\"<s>\":6,"                 \
    "\"\xef\xbf\xbd\":7,\" \":8}"
#define MERGES "\"merges\":[\"a b\",[\"ab\",\"c\"]]"
#define MODEL "{\"type\":\"BPE\"," VOCAB "," MERGES "}"
#define FLAGS                                                                                      \
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":"    \
    "true"
#define ADDED "[{\"id\":6,\"content\":\"<s>\"," FLAGS "},{\"id\":9,\"content\":\"<x>\"," FLAGS "}]"
#define TEMPLATE                                                                                   \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":"  \
    "0}},"                                                                                         \
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"                                    \
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[6],\"tokens\":[\"<s>\"]}}}"

static inline const char *or_default(const char *text, const char *fallback) {
    return text ? text : fallback;
}

static inline void write_tokenizer(temporary *folder, const parts *p) {
    char *text = mq_asprintf(
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":%s,"
        "\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,\"model\":%s}",
        or_default(p->added, ADDED), or_default(p->normalizer, "null"),
        or_default(p->pre_tokenizer, "null"), or_default(p->post_processor, "null"),
        or_default(p->decoder, "null"), or_default(p->model, MODEL));
    assert_non_null(text);
    temporary_write(folder, "tokenizer.json", text, strlen(text));
    mq_free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

#endif
