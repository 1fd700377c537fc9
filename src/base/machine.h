/* What the machine has left. */
#ifndef MQ_BASE_MACHINE_H
#define MQ_BASE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that the kernel says new work could use without swapping (MemAvailable, and at most a
 * container's memory.max); false where it
 * does not say. */
bool mq_memory_available(size_t *out);

#endif
