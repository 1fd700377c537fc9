/* layer: base */
/* Digests and checksums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "temporary.h"

/* All of it, also where its end is that of a piece that is looked at in one go. */
static void a_mapped_file_has_the_digest_of_the_file(void **state) {
    temporary *folder = *state;
    static const size_t sizes[] = {0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1 << 20};
    unsigned char *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    for (size_t i = 0; i < 1 << 20; i++) {
        bytes[i] = (unsigned char)(i * i >> 8);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char expected[65], digest[65];
        const char *path = temporary_write(folder, "mapped", bytes, sizes[i]);
        mq_mapping mapping;
        assert_int_equal(mq_sha256_file(expected, path, NULL, NULL), MQ_OK);
        assert_int_equal(mq_map_file(&mapping, path, NULL), MQ_OK);
        assert_int_equal(mq_sha256_mapping(digest, &mapping, NULL, NULL), MQ_OK);
        assert_string_equal(digest, expected);
        mq_unmap_file(&mapping);
    }
    free(bytes);
}

static void digests_are_the_known_ones(void **state) {
    temporary *folder = *state;
    char digest[65];
    /* FIPS 180-4 examples */
    assert_int_equal(mq_sha256_file(digest, temporary_write(folder, "abc", "abc", 3), NULL, NULL),
                     MQ_OK);
    assert_string_equal(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(mq_sha256_file(digest, temporary_write(folder, "empty", "", 0), NULL, NULL),
                     MQ_OK);
    assert_string_equal(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    assert_int_equal(
        mq_sha256_file(digest, temporary_write(folder, "million", million, 1000000), NULL, NULL),
        MQ_OK);
    assert_string_equal(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
    mq_error err;
    assert_int_equal(mq_sha256_file(digest, temporary_path(folder, "none"), NULL, &err),
                     MQ_ERR_INPUT);
    assert_int_equal(mq_crc32(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(mq_crc32(mq_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
    assert_int_equal(mq_crc32(0, NULL, 0), 0);
    assert_int_equal(mq_crc32(7, NULL, 0), 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(digests_are_the_known_ones),
        TEST(a_mapped_file_has_the_digest_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
