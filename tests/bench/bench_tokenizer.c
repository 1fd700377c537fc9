/* layer: text */
/* bench_tokenizer MODEL TEXT [IDS]: tokenizes a file as one text and prints how fast that went.
 * With IDS, the ids (int32, little-endian) are written there and the decoded text beside it, as
 * IDS.txt, for scripts/check-tokenizer.py to compare. */
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/file.h"
#include "matquant/tokenizer.h"

static int fail(const mq_error *err) {
    char line[1024];
    mq_error_format(line, sizeof line, err);
    fprintf(stderr, "bench_tokenizer: %s\n", line);
    return (int)err->status;
}

static bool write_all(const char *path, const char *suffix, const void *data, size_t size) {
    char *name = mq_asprintf("%s%s", path, suffix);
    FILE *file = name ? fopen(name, "wb") : NULL;
    bool good = file && fwrite(data, 1, size, file) == size;
    mq_free(name);
    return (file ? fclose(file) == 0 : false) && good;
}

static int write_results(const char *path, const mq_tokenizer *tokenizer, const int32_t *ids,
                         size_t count) {
    mq_error err = {0};
    char *text = NULL;
    size_t size = 0;
    if (mq_tokenizer_decode(&text, &size, tokenizer, ids, count, false, &err)) {
        return fail(&err);
    }
    bool good =
        write_all(path, "", ids, count * sizeof *ids) && write_all(path, ".txt", text, size);
    mq_tokenizer_free_text(text);
    if (!good) {
        perror(path);
    }
    return good ? 0 : MQ_ERR_MACHINE;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: bench_tokenizer MODEL TEXT [IDS]\n");
        return MQ_ERR_USAGE;
    }
    mq_error err = {0};
    mq_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t size = 0, count = 0;
    int32_t *ids = NULL;
    double start = mq_seconds();
    mq_status status = mq_tokenizer_open(&tokenizer, argv[1], &err);
    double opened = mq_seconds();
    if (!status) {
        status = mq_read_file(&text, &size, argv[2], (size_t)1 << 30, &err);
    }
    double read = mq_seconds();
    if (!status) {
        status = mq_tokenizer_encode(&ids, &count, tokenizer, text, size, false, &err);
    }
    double encoded = mq_seconds();
    int result = status ? fail(&err) : 0;
    if (!status) {
        printf("open %.2f s; %zu bytes, %zu tokens in %.3f s: %.1f MB/s\n", opened - start, size,
               count, encoded - read, (double)size / 1e6 / (encoded - read));
        result = argc > 3 ? write_results(argv[3], tokenizer, ids, count) : 0;
    }
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free(tokenizer);
    mq_free(text);
    return result;
}
