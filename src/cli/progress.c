#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REWRITE_SECONDS 0.1
/* Units that have nothing to say about themselves; longer in jobs that take long. */
#define LINE_SECONDS 5.0
#define LINE_SHARE 0.05
#define ETA_SECONDS 3.0 /* before that, and before the share below, the rate says little */
#define ETA_SHARE 0.01

void cli_progress_begin(cli_progress *progress, bool quiet, bool verbose) {
    const char *terminal = getenv("TERM");
    *progress = (cli_progress){.quiet = quiet, .verbose = verbose};
    progress->rewrite = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
}

void cli_progress_clear(cli_progress *progress) {
    if (progress->line_shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        progress->line_shown = false;
    }
}

void cli_progress_text(char *out, size_t size, const mq_progress *report, const char *detail,
                       const char *next) {
    double share = report->total > 0 ? report->done / report->total : 0;
    double percent = floor(share * 1000) / 10;
    if (report->done < report->total && percent > 99.9) {
        percent = 99.9;
    }
    char eta[48] = "";
    /* By what this run did itself: what it took over was there at once. */
    double seconds = report->elapsed_seconds - report->taken_seconds;
    double own = report->done - report->taken;
    if (report->done < report->total && seconds >= ETA_SECONDS &&
        own >= ETA_SHARE * (report->total - report->taken)) {
        double left = ceil(seconds * (report->total - report->done) / own);
        snprintf(eta, sizeof eta, ", ETA %.0f:%02.0f", floor(left / 60), fmod(left, 60));
    }
    char unit[64];
    snprintf(unit, sizeof unit, "%s %.0f/%.0f", report->unit, floor(report->done), report->total);
    snprintf(out, size, "%s %.1f %%%s%s%s: %s", report->phase, percent, eta, next ? ", then " : "",
             next ? next : "", detail ? detail : unit);
    mq_make_printable(out);
}

static const char *next_after(const cli_progress *self, const char *phase) {
    for (const char *const *pair = self->follows; pair && pair[0]; pair += 2) {
        if (strcmp(pair[0], phase) == 0) {
            return pair[1];
        }
    }
    return NULL;
}

static size_t terminal_columns(void) {
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
        return window.ws_col;
    }
    return 80;
}

static void rewrite_line(cli_progress *self, const mq_progress *report) {
    char line[512];
    cli_progress_text(line, sizeof line, report, self->detail[0] ? self->detail : NULL,
                      next_after(self, report->phase));
    size_t columns = terminal_columns();
    fprintf(stderr, "\r%.*s\033[K", (int)(columns < sizeof line ? columns - 1 : sizeof line), line);
    fflush(stderr);
    self->line_shown = true;
}

static void print_line(cli_progress *self, const mq_progress *report) {
    char line[512];
    cli_progress_text(line, sizeof line, report, report->detail, next_after(self, report->phase));
    cli_progress_clear(self);
    fprintf(stderr, "%s\n", line);
}

static void begin_phase(cli_progress *self, const mq_progress *report) {
    cli_progress_clear(self);
    self->phase = report->phase;
    self->detail[0] = 0;
    self->last_done = 0;
    self->last_shown = 0;
}

static void on_progress(void *user, const mq_progress *report) {
    cli_progress *self = user;
    if (self->quiet) {
        return;
    }
    /* A phase of that name may come again, as tasks do for each width. */
    if (!self->phase || strcmp(self->phase, report->phase) != 0 || report->done < self->last_done) {
        begin_phase(self, report);
    }
    if (report->detail) {
        snprintf(self->detail, sizeof self->detail, "%s", report->detail);
    }
    bool finished_unit = floor(report->done) > floor(self->last_done);
    double since = report->elapsed_seconds - self->last_shown;
    double pause = LINE_SECONDS + LINE_SHARE * report->elapsed_seconds;
    bool as_line = !self->rewrite || (self->verbose && report->detail);
    self->last_done = report->done;
    if (as_line ? report->detail || (finished_unit && since >= pause)
                : report->detail || since >= REWRITE_SECONDS) {
        self->last_shown = report->elapsed_seconds;
        if (as_line) {
            print_line(self, report);
        } else {
            rewrite_line(self, report);
        }
    }
}

static void on_message(void *user, mq_log_level level, const char *text) {
    cli_progress *self = user;
    if (level == MQ_LOG_WARNING || (level == MQ_LOG_INFO && !self->quiet) || self->verbose) {
        cli_progress_clear(self);
        fprintf(stderr, "matquant: %s%s\n", level == MQ_LOG_WARNING ? "warning: " : "", text);
    }
}

mq_sink cli_progress_sink(cli_progress *progress) {
    return (mq_sink){progress, on_message, on_progress};
}
