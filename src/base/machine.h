/* What the machine has left, and where threads run. */
#ifndef MQ_BASE_MACHINE_H
#define MQ_BASE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that the kernel says new work could use without swapping (MemAvailable, and at most a
 * container's memory.max); false where it
 * does not say. */
bool mq_memory_available(size_t *out);

/* Moves the calling thread to number `number` (modulo their count) of the processors that it may
 * run on, and leaves it free to be moved on. For threads that wait without sleeping, as OpenMP's
 * do: the kernel may leave two of them on one processor, and another idle, for longer than a slice
 * takes to write (measured: 20 to 50 % on two processors). Does nothing where it cannot. */
void mq_take_processor(size_t number);

#endif
