/* A tokenizer whose results a test can write down. */
#ifndef MQ_TEST_BYTE_TOKENIZER_H
#define MQ_TEST_BYTE_TOKENIZER_H

#include "base/file.h"
#include "matquant/tokenizer.h"
#include "temporary.h"

/* Its ids are the bytes: 'a' is 97. Id 256 is the beginning-of-sequence token of the template, if
 * bos. With `pair`, x, y and xy are tokens by themselves (257, 258, 259) and x y is merged. The
 * caller's; its tokenizer.json stays in the folder. */
static inline mq_tokenizer *byte_tokenizer(temporary *folder, bool bos, bool pair) {
    char vocab[8192] = "";
    for (unsigned byte = 0; byte < 256; byte++) {
        size_t used = strlen(vocab);
        snprintf(vocab + used, sizeof vocab - used, "%s\"<0x%02X>\":%u", byte ? "," : "", byte,
                 byte);
    }
    char *text = mq_asprintf(
        "{\"added_tokens\":[{\"id\":256,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,"
        "\"normalized\":false,\"special\":true}],\"post_processor\":%s,"
        "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{%s%s},\"merges\":[%s]}}",
        bos ? "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
              "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":["
              "256]}}}"
            : "null",
        vocab, pair ? ",\"<s>\":256,\"x\":257,\"y\":258,\"xy\":259" : "", pair ? "\"x y\"" : "");
    assert_non_null(text);
    temporary_write(folder, "tokenizer.json", text, strlen(text));
    mq_free(text);
    mq_tokenizer *tokenizer = NULL;
    mq_error err = {0};
    if (mq_tokenizer_open(&tokenizer, folder->path, &err)) {
        fail_msg("%s", err.message);
    }
    return tokenizer;
}

#endif
