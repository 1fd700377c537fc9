#include "signals.h"

#include <string.h>

static volatile sig_atomic_t interrupted;

const volatile sig_atomic_t *cli_interrupted(void) { return &interrupted; }

/* The first signal asks the library to stop and clean up; the second one kills. */
static void on_signal(int number) {
    if (interrupted) {
        signal(number, SIG_DFL);
        raise(number);
    }
    interrupted = 1;
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
    signal(SIGPIPE, SIG_IGN); /* these become errors of write, with a message and exit status 4 */
    signal(SIGXFSZ, SIG_IGN);
}
