#include "base/alloc.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Just before every block: what mq_free needs to give it back and to count it off. */
typedef struct block_header {
    size_t size;   /* bytes that the caller asked for */
    size_t offset; /* from the start of the memory of malloc to the caller's */
} block_header;

#define SMALL_OFFSET sizeof(block_header) /* keeps malloc's own alignment of 16 */

/* Process-wide counters: the one mutable state here that is not a caller's. They measure, nothing
 * reads them to decide anything. */
static atomic_size_t current_bytes;
static atomic_size_t peak_bytes;

static _Thread_local size_t fail_countdown; /* 0: off; 1: every allocation fails */

void mq_alloc_fail_after(size_t countdown) { fail_countdown = countdown; }

static bool must_fail(void) {
    if (fail_countdown > 1) {
        fail_countdown--;
        return false;
    }
    return fail_countdown == 1;
}

static void count_added(size_t size) {
    size_t now = atomic_fetch_add_explicit(&current_bytes, size, memory_order_relaxed) + size;
    size_t peak = atomic_load_explicit(&peak_bytes, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(
                             &peak_bytes, &peak, now, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void count_removed(size_t size) {
    atomic_fetch_sub_explicit(&current_bytes, size, memory_order_relaxed);
}

size_t mq_alloc_current(void) { return atomic_load_explicit(&current_bytes, memory_order_relaxed); }

size_t mq_alloc_peak(void) { return atomic_load_explicit(&peak_bytes, memory_order_relaxed); }

void mq_alloc_reset_peak(void) {
    atomic_store_explicit(&peak_bytes, mq_alloc_current(), memory_order_relaxed);
}

size_t mq_sum_capped(size_t a, size_t b) {
    size_t sum;
    return mq_add_size(&sum, a, b) ? sum : SIZE_MAX;
}

bool mq_mul_size(size_t *out, size_t a, size_t b) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

bool mq_mul3_size(size_t *out, size_t a, size_t b, size_t c) {
    /* 0 · anything fits, also where the product of the other two does not. */
    if (a == 0 || b == 0 || c == 0) {
        *out = 0;
        return true;
    }
    size_t product;
    return mq_mul_size(&product, a, b) && mq_mul_size(out, product, c);
}

bool mq_add_size(size_t *out, size_t a, size_t b) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

static block_header *header_of(void *memory) { return (block_header *)memory - 1; }

static void *place(void *start, size_t offset, size_t size) {
    void *memory = (char *)start + offset;
    *header_of(memory) = (block_header){.size = size, .offset = offset};
    count_added(size);
    return memory;
}

void *mq_alloc(size_t count, size_t size) {
    size_t bytes;
    size_t total;
    if (!mq_mul_size(&bytes, count, size) || !mq_add_size(&total, bytes, 2 * MQ_ALIGNMENT) ||
        must_fail()) {
        return NULL;
    }
    total -= total % MQ_ALIGNMENT; /* one unit for the header, and bytes rounded up */
    void *start = aligned_alloc(MQ_ALIGNMENT, total);
    return start == NULL ? NULL : place(start, MQ_ALIGNMENT, bytes);
}

void *mq_calloc(size_t count, size_t size) {
    void *memory = mq_alloc(count, size);
    if (memory != NULL) {
        memset(memory, 0, header_of(memory)->size);
    }
    return memory;
}

void mq_free(void *memory) {
    if (memory != NULL) {
        const block_header *header = header_of(memory);
        count_removed(header->size);
        free((char *)memory - header->offset);
    }
}

void *mq_realloc(void *memory, size_t count, size_t size) {
    size_t bytes;
    size_t total;
    if (!mq_mul_size(&bytes, count, size) || !mq_add_size(&total, bytes, SMALL_OFFSET) ||
        must_fail()) {
        return NULL;
    }
    void *start = NULL;
    size_t old_bytes = 0;
    if (memory != NULL) {
        assert(header_of(memory)->offset == SMALL_OFFSET);
        old_bytes = header_of(memory)->size;
        start = header_of(memory);
    }
    start = realloc(start, total);
    if (start == NULL) {
        return NULL;
    }
    count_removed(old_bytes);
    return place(start, SMALL_OFFSET, bytes);
}

char *mq_strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = mq_realloc(NULL, size, 1);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

char *mq_asprintf(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    char *text = NULL;
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length >= 0) {
        text = mq_realloc(NULL, (size_t)length + 1, 1);
        if (text != NULL) {
            vsnprintf(text, (size_t)length + 1, format, again);
        }
    }
    va_end(again);
    va_end(arguments);
    return text;
}

mq_status mq_new(void *out, size_t count, size_t size, const char *what, mq_error *err) {
    void *memory = mq_alloc(count, size);
    if (memory == NULL) {
        size_t bytes = SIZE_MAX;
        mq_mul_size(&bytes, count, size);
        return mq_fail_memory(err, what, bytes);
    }
    memcpy(out, &memory, sizeof memory); /* *out is a pointer of the caller's type */
    return MQ_OK;
}

void *mq_carve(mq_slab *slab, size_t count, size_t size) {
    size_t bytes;
    size_t rounded;
    size_t end;
    if (!mq_mul_size(&bytes, count, size) || !mq_add_size(&rounded, bytes, MQ_ALIGNMENT - 1)) {
        slab->overflow = true;
        return NULL;
    }
    rounded -= rounded % MQ_ALIGNMENT;
    if (!mq_add_size(&end, slab->used, rounded) || (slab->base != NULL && end > slab->size)) {
        slab->overflow = true;
        return NULL;
    }
    void *memory = slab->base == NULL ? NULL : slab->base + slab->used;
    slab->used = end;
    return memory;
}

mq_status mq_slab_allocate(mq_slab *slab, const char *what, mq_error *err) {
    if (slab->overflow) {
        return mq_fail_memory(err, what, SIZE_MAX);
    }
    size_t size = slab->used;
    unsigned char *base = NULL;
    mq_status status = mq_new(&base, size, 1, what, err);
    if (status != MQ_OK) {
        return status;
    }
    *slab = (mq_slab){.base = base, .size = size};
    return MQ_OK;
}

void mq_slab_free(mq_slab *slab) {
    mq_free(slab->base);
    *slab = (mq_slab){0};
}
