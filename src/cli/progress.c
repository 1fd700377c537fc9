#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REWRITE_SECONDS 0.1
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

void cli_progress_text(char *out, size_t size, const mq_progress *report) {
    double share = report->total > 0 ? report->done / report->total : 0;
    double percent = floor(share * 1000) / 10;
    if (report->done < report->total && percent > 99.9) {
        percent = 99.9;
    }
    char eta[48] = "";
    if (report->done < report->total && report->elapsed_seconds >= ETA_SECONDS &&
        share >= ETA_SHARE) {
        double left = ceil(report->elapsed_seconds * (1 - share) / share);
        snprintf(eta, sizeof eta, ", ETA %.0f:%02.0f", floor(left / 60), fmod(left, 60));
    }
    snprintf(out, size, "%s: %s %.0f/%.0f, %.1f %%%s", report->phase, report->unit,
             floor(report->done), report->total, percent, eta);
}

static size_t terminal_columns(void) {
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
        return window.ws_col;
    }
    return 80;
}

static void rewrite_line(cli_progress *self, const mq_progress *report, const char *text) {
    char line[512];
    if (report->detail) {
        snprintf(self->detail, sizeof self->detail, "%s", report->detail);
    }
    snprintf(line, sizeof line, "%s%s%s", text, self->detail[0] ? ": " : "", self->detail);
    size_t columns = terminal_columns();
    fprintf(stderr, "\r%.*s\033[K", (int)(columns < sizeof line ? columns - 1 : sizeof line), line);
    fflush(stderr);
    self->line_shown = true;
}

static void on_progress(void *user, const mq_progress *report) {
    cli_progress *self = user;
    if (self->quiet) {
        return;
    }
    if (self->phase != report->phase) {
        cli_progress_clear(self);
        self->phase = report->phase;
        self->detail[0] = 0;
        self->last_done = 0;
        self->last_elapsed = -REWRITE_SECONDS;
    }
    bool finished_unit = report->detail || floor(report->done) > floor(self->last_done);
    self->last_done = report->done;
    char text[160];
    cli_progress_text(text, sizeof text, report);
    if (!self->rewrite || (self->verbose && report->detail)) {
        if (finished_unit) {
            cli_progress_clear(self);
            fprintf(stderr, "%s%s%s\n", text, report->detail ? ": " : "",
                    report->detail ? report->detail : "");
        }
    } else if (report->detail || report->elapsed_seconds - self->last_elapsed >= REWRITE_SECONDS) {
        self->last_elapsed = report->elapsed_seconds;
        rewrite_line(self, report, text);
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
