/* Being asked to stop. */
#ifndef MATQUANT_CLI_SIGNALS_H
#define MATQUANT_CLI_SIGNALS_H

#include <signal.h>

/* SIGINT, SIGTERM and SIGHUP set the flag, and a second one of them kills, unless it is the same
 * one within half a second; writing to a closed pipe or past the limit on the size of files becomes
 * an error of the write; a mapped file that cannot be read ends the program with status 4. */
void cli_set_up_signals(void);

/* The flag; the library looks at it. */
const volatile sig_atomic_t *cli_interrupted(void);

#endif
