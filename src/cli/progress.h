/* What the library says while it works, on stderr: one line that is rewritten on a terminal, a line
 * for each finished unit otherwise (units that come without a word of their own, every few
 * seconds). */
#ifndef MATQUANT_CLI_PROGRESS_H
#define MATQUANT_CLI_PROGRESS_H

#include "matquant/context.h"

typedef struct cli_progress {
    bool quiet, verbose;
    bool rewrite;    /* stderr is a terminal that can */
    bool line_shown; /* the cursor stands in a progress line */
    /* What a command does after each phase, in pairs: a phase, and the words for what follows it
     * (NULL: nothing). Ends with NULL; NULL: nothing follows any. An ETA is the phase's own, so it
     * is said there. */
    const char *const *follows;
    const char *phase; /* of the last report */
    double last_done;  /* of the last report */
    double last_shown; /* elapsed_seconds when something was printed */
    char detail[160];  /* of the unit that was finished last, or empty */
} cli_progress;

void cli_progress_begin(cli_progress *progress, bool quiet, bool verbose);
/* progress must outlive the sink. */
mq_sink cli_progress_sink(cli_progress *progress);
/* Takes the rewritten line away, so that something else can be printed. */
void cli_progress_clear(cli_progress *progress);

/* A report in one line, "learn 25.0 %, ETA 1:30, then refit: block 7/30", into out[size], with
 * detail (NULL: none) in place of the unit and `next` (NULL: nothing) for what follows the phase:
 * the percentage is cut, not rounded, and 100 only at the phase's end; the time that the phase
 * still takes stands there once enough is done to tell. */
void cli_progress_text(char *out, size_t size, const mq_progress *report, const char *detail,
                       const char *next);

#endif
