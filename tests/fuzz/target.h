/* What a fuzz target defines; libFuzzer calls it, or driver.c. */
#ifndef TARGET_H
#define TARGET_H

#include <stddef.h>
#include <stdint.h>

/* Aborts if these bytes, which stay the caller's, show a fault. Returns 0. The name is libFuzzer's.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
