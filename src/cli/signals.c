#include "signals.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "matquant/error.h"

#define SAME_REQUEST_MS 500

static volatile sig_atomic_t interrupted; /* by the signal of this number; 0: not */

/* The first signal and when it came, in one number, since two threads may each have one in hand at
 * the same time, and both would be the first: now() << NUMBER_BITS | number; 0: none came. */
#define NUMBER_BITS 5
static atomic_uint first_signal;

const volatile sig_atomic_t *cli_interrupted(void) { return &interrupted; }

/* Milliseconds of a clock that wraps after half a day. */
static int now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int)(time.tv_sec % 43200) * 1000 + (int)(time.tv_nsec / 1000000);
}

/* The first signal asks the library to stop and clean up; the second one kills. The same signal at
 * the same time is the first one still: timeout(1) sends it to its child and to the group. */
static void on_signal(int number) {
    unsigned first = 0;
    const unsigned mine = (unsigned)now() << NUMBER_BITS | (unsigned)number;
    if (atomic_compare_exchange_strong(&first_signal, &first, mine)) {
        interrupted = number;
        return;
    }
    const bool same = (first ^ mine) % (1u << NUMBER_BITS) == 0;
    const int later = (int)(mine >> NUMBER_BITS) - (int)(first >> NUMBER_BITS);
    if (!same || later < 0 || later > SAME_REQUEST_MS) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

/* Weights are mapped, and what cannot be read of a mapping is no error of a call. The text is made
 * beforehand: little may be called here. */
static void on_unreadable(int number) {
    static const char text[] = "matquant: a file that is mapped into memory cannot be read: a disk "
                               "error, or it was cut short meanwhile\n";
    const ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written; /* there is nothing left to do about it */
    (void)number;
    _exit(MQ_ERR_MACHINE);
}

void cli_set_up_signals(void) {
    static const int asking[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof asking / sizeof asking[0]; i++) {
        struct sigaction action;
        if (sigaction(asking[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN) {
            continue; /* nohup, or a shell's background job: it was not meant for us */
        }
        memset(&action, 0, sizeof action);
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        sigaction(asking[i], &action, NULL);
    }
    signal(SIGBUS, on_unreadable);
    signal(SIGPIPE, SIG_IGN); /* these become errors of write, with a message and exit status 4 */
    signal(SIGXFSZ, SIG_IGN);
}
