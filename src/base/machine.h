/* What the machine can do, what it has left, and where threads run. */
#ifndef MQ_BASE_MACHINE_H
#define MQ_BASE_MACHINE_H

#include "base/error.h"

/* Which of the files that are compiled for an instruction set (matquant_simd_sources of
 * cmake/MatquantFlags.cmake) this process runs: the best that the processor has, or that the
 * environment variable MATQUANT_KERNELS names, which is read once. Each includes those before it.
 * AVX2 is with FMA and F16C, AVX-512 with F, BW, DQ and VL. */
typedef enum mq_simd { MQ_SIMD_NONE, MQ_SIMD_AVX2, MQ_SIMD_AVX512 } mq_simd;
mq_simd mq_simd_best(void);
mq_simd mq_simd_of_processor(void); /* whatever the environment says */

/* MQ_ERR_USAGE where MATQUANT_KERNELS says what mq_simd_best cannot heed. */
mq_status mq_simd_check(mq_error *err);

/* The one that `named` (base, avx2 or avx512, as tables call themselves) names; NULL or "": most.
 * MQ_ERR_USAGE: it is none of these, or more than `most`, which the processor has. */
mq_status mq_simd_capped(mq_simd *out, mq_simd most, const char *named, mq_error *err);

/* A table of loops is compiled once for each of them: TABLE_base for any processor, and for x86-64
 * TABLE_avx2 and TABLE_avx512. This initializes an array of all that there are, in that order:
 *   static const mq_kernels *const all[] = MQ_KERNELS_OF(mq_kernels);
 * of which this process runs those up to mq_simd_best(). */
#if defined(__x86_64__)
#define MQ_KERNELS_OF(table)                                                                       \
    { &table##_base, &table##_avx2, &table##_avx512 }
#else
#define MQ_KERNELS_OF(table)                                                                       \
    { &table##_base }
#endif

/* Bytes that this process may still map by its own limits (RLIMIT_AS and RLIMIT_DATA, as ulimit -v
 * and -d set them), whether the machine has them or not; SIZE_MAX: it has no such limit, or the
 * system does not say how much is mapped. */
size_t mq_memory_mappable(void);

/* Bytes that the kernel says new work could use without swapping (MemAvailable), and at most the
 * limits of the control groups that the process is in, versions 1 and 2, and what it may still map
 * beside `beside` bytes, which others are going to map; false where the kernel does not say. */
bool mq_memory_available(size_t *out, size_t beside);

/* Lowers *available to the limits of the control groups that the file `process`
 * (/proc/self/cgroup) names, which may be below what the machine has, and of those that they are
 * in: of version 2 (the line "0::/a/b") and of version 1 ("4:memory:/a/b") under root
 * (/sys/fs/cgroup). What a group uses already is not subtracted: most of that is cached files,
 * which make room. */
void mq_memory_bound_by_groups(size_t *available, const char *process, const char *root);

/* MQ_ERR_MACHINE if not so many threads (at least 1), this one among them, can be at work at once:
 * they are started, and end when all are there. For libraries that end the program, or crash, where
 * a thread of theirs cannot be started. */
mq_status mq_check_threads(size_t threads, mq_error *err);

/* Moves the calling thread to number `number` (modulo their count) of the processors that it may
 * run on, and leaves it free to be moved on. For threads that wait without sleeping, as OpenMP's
 * do: the kernel may leave two of them on one processor, and another idle, for longer than a slice
 * takes to write (measured: 20 to 50 % on two processors). Does nothing where it cannot. */
void mq_take_processor(size_t number);

#endif
