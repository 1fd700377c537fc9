/* Allocation that can be made to fail, overflow-checked sizes, and slabs.
 *
 * Arrays of numbers are aligned to MQ_ALIGNMENT so that vector kernels may assume it. */
#ifndef MQ_BASE_ALLOC_H
#define MQ_BASE_ALLOC_H

#include "base/error.h"

#define MQ_ALIGNMENT 64

/* *out = a·b, a·b·c, a + b: false when it does not fit in size_t (then *out is untouched). */
bool mq_mul_size(size_t *out, size_t a, size_t b);
bool mq_mul3_size(size_t *out, size_t a, size_t b, size_t c);
bool mq_add_size(size_t *out, size_t a, size_t b);

/* a + b, SIZE_MAX where that is too large: for predictions of memory, in which SIZE_MAX stands for
 * more than there can be. */
size_t mq_sum_capped(size_t a, size_t b);

static inline size_t mq_smaller(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t mq_larger(size_t a, size_t b) { return a > b ? a : b; }

/* count elements of size bytes each, MQ_ALIGNMENT-aligned, NULL on overflow or lack of memory;
 * count 0 gives a valid pointer. mq_calloc clears. `mq_free` frees either, NULL allowed. */
void *mq_alloc(size_t count, size_t size);
void *mq_calloc(size_t count, size_t size);
void mq_free(void *memory);

/* For small growing things (lists of names): as realloc, without alignment; free with mq_free. On
 * NULL the old memory is still there. Must only be given what it returned itself, or NULL. */
void *mq_realloc(void *memory, size_t count, size_t size);
char *mq_strdup(const char *text);
char *mq_asprintf(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* NULL: no memory */

/* Allocates into *out or returns MQ_ERR_MACHINE naming `what`. */
mq_status mq_new(void *out, size_t count, size_t size, const char *what, mq_error *err);

/* Tests: the allocation number `countdown` from now (1 = the next) and all that follow in this
 * thread fail; 0 turns it off. */
void mq_alloc_fail_after(size_t countdown);

/* Bytes now and at most allocated through this file, for holding predictions to account. */
size_t mq_alloc_current(void);
size_t mq_alloc_peak(void);
void mq_alloc_reset_peak(void);

/* A slab is one allocation that arrays are carved from. The same carving code runs twice: first on
 * a slab with base == NULL, which only adds up (that is the memory estimate), then on the real one:
 * estimate and allocator cannot disagree. */
typedef struct mq_slab {
    unsigned char *base; /* NULL while measuring */
    size_t size;         /* bytes at base */
    size_t used;         /* bytes carved so far, each piece rounded up to MQ_ALIGNMENT */
    bool overflow;       /* a carve did not fit, or a size overflowed: the results are not usable */
} mq_slab;

/* The next count·size bytes; while measuring, NULL. Does not clear. */
void *mq_carve(mq_slab *slab, size_t count, size_t size);
/* Allocates slab->size bytes for a slab that has been measured (size = used, used = 0). */
mq_status mq_slab_allocate(mq_slab *slab, const char *what, mq_error *err);
void mq_slab_free(mq_slab *slab);

#endif
