/* layer: export */
/* Parts of an output arrive whole, in their order, whoever puts them; and the first failure counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "base/alloc.h"
#include "export/put_ahead.h"

enum { BATCH = 1024, PIECES = 700, ROW = 48 };

/* What was put: piece after piece, each row filled with its number. */
typedef struct taker {
    size_t index, offset, calls, fails_at; /* fails_at: the call that fails, from 1; 0: none */
} taker;

static size_t rows_of(size_t index) { return index % 60 == 59 ? 50 : index % 7; }
static unsigned char byte_of(size_t index, size_t row) {
    return (unsigned char)(index * 31 + row * 7);
}

static mq_status put(void *user, size_t index, size_t offset, const void *data, size_t bytes,
                     mq_error *err) {
    taker *self = user;
    if (++self->calls == self->fails_at) {
        return mq_fail(err, MQ_ERR_MACHINE, "part %zu", self->calls);
    }
    if (index != self->index) {
        assert_true(index > self->index);
        self->index = index;
        self->offset = 0;
    }
    assert_int_equal(offset, self->offset);
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(((const unsigned char *)data)[i], byte_of(index, (offset + i) / ROW));
    }
    self->offset += bytes;
    return MQ_OK;
}

/* All pieces up to one that cannot be made (PIECES: there is none); every tenth stands elsewhere
 * already. */
static mq_status make_all(mq_put_ahead *ahead, unsigned char *elsewhere, size_t bad,
                          mq_error *err) {
    for (size_t index = 0; index < PIECES; index++) {
        if (index == bad) {
            return mq_fail(err, MQ_ERR_INPUT, "piece %zu", index);
        }
        for (size_t first = 0, count; first < rows_of(index); first += count) {
            unsigned char *room = NULL;
            count = rows_of(index) - first;
            mq_status status = MQ_OK;
            if (index % 10 == 3) {
                room = elsewhere + index * 7 * ROW;
            } else {
                status = mq_put_ahead_room(ahead, &room, &count, count, ROW, err);
                assert_true(status != MQ_OK || (uintptr_t)room % MQ_ALIGNMENT == 0);
            }
            assert_true(count > 0 && first + count <= rows_of(index));
            for (size_t i = 0; status == MQ_OK && i < count * ROW; i++) {
                room[i] = byte_of(index, first + i / ROW);
            }
            if (status == MQ_OK) {
                status = mq_put_ahead_give(ahead, index, first * ROW, room, count * ROW, err);
            }
            if (status != MQ_OK) {
                return status;
            }
        }
    }
    return MQ_OK;
}

/* threads: of the team; 0: without one, and one batch only. */
static mq_status run(taker *self, size_t bad, int threads, mq_error *err) {
    mq_put_ahead *ahead = NULL;
    unsigned char *elsewhere = mq_alloc(PIECES * 7, ROW);
    assert_non_null(elsewhere);
    mq_status status = mq_put_ahead_begin(&ahead, BATCH, put, self, threads > 0, err);
    assert_int_equal(status, MQ_OK);
#pragma omp parallel num_threads(threads > 0 ? threads : 1)
    if (omp_get_thread_num() == 0) {
        status = mq_put_ahead_end(ahead, make_all(ahead, elsewhere, bad, err), err);
    }
    mq_free(elsewhere);
    return status;
}

static void parts_arrive_in_their_order(void **state) {
    (void)state;
    for (int threads = 0; threads < 4; threads++) {
        taker self = {0};
        mq_error err;
        const size_t allocated = mq_alloc_current();
        assert_int_equal(run(&self, PIECES, threads, &err), MQ_OK);
        assert_int_equal(self.index, PIECES - 1 - (rows_of(PIECES - 1) == 0));
        assert_int_equal(self.offset, rows_of(self.index) * ROW);
        assert_int_equal(mq_alloc_current(), allocated);
    }
}

/* Piece 300 cannot be made; a part that is put before it may fail, too, and then that counts. */
static void the_first_failure_counts(void **state) {
    (void)state;
    for (int threads = 0; threads < 4; threads++) {
        taker self = {0};
        mq_error err;
        assert_int_equal(run(&self, 300, threads, &err), MQ_ERR_INPUT);
        assert_string_equal(err.message, "piece 300");
        assert_true(self.index < 300);
        const size_t parts = self.calls;
        for (size_t at = 1; at <= parts + 1; at += 1 + at / 20) {
            taker other = {.fails_at = at};
            char expected[32];
            snprintf(expected, sizeof expected, "part %zu", at);
            assert_int_equal(run(&other, 300, threads, &err),
                             at <= parts ? MQ_ERR_MACHINE : MQ_ERR_INPUT);
            assert_string_equal(err.message, at <= parts ? expected : "piece 300");
            assert_int_equal(other.calls, at <= parts ? at : parts);
        }
    }
}

static void without_memory(void **state) {
    (void)state;
    for (size_t at = 1; at <= 3; at++) {
        mq_put_ahead *ahead = NULL;
        mq_error err;
        taker self = {0};
        const size_t allocated = mq_alloc_current();
        mq_alloc_fail_after(at);
        const mq_status status = mq_put_ahead_begin(&ahead, BATCH, put, &self, true, &err);
        mq_alloc_fail_after(0);
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), allocated);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_arrive_in_their_order),
        cmocka_unit_test(the_first_failure_counts),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
