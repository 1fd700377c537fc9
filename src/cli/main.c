/* matquant: the table of verbs, and what holds for all of them: the standard streams, the exit
 * status. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "matquant/context.h"
#include "matquant/version.h"
#include "signals.h"

static const cli_verb verbs[] = {
    {"quantize", "make one int8 checkpoint whose top bits are the lower precisions", cmd_quantize},
    {"slice", "cut the model of one width out of a master checkpoint", cmd_slice},
    {"eval", "measure perplexity and zero-shot accuracy of a model, master or slice", cmd_eval},
    {"inspect", "print what a folder is", cmd_inspect},
    {"verify", "check that a master or a slice is whole", cmd_verify},
};

#define VERB_COUNT (sizeof verbs / sizeof verbs[0])

/* --- standard streams ------------------------------------------------------------------------- */

/* With a standard stream closed, the first file that we open would take its number and get what is
 * printed. */
static void fill_standard_streams(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDONLY);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

/* A result that did not get through is no success, and no result of a check either. */
static mq_status finish_stdout(mq_status status) {
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout) != 0 || failed) {
        fprintf(stderr, "matquant: standard output: cannot write: %s\n",
                errno ? strerror(errno) : "an earlier write failed");
        return status == MQ_OK || status == MQ_ERR_CHECK ? MQ_ERR_MACHINE : status;
    }
    return status;
}

/* --- verbs ------------------------------------------------------------------------------------ */

static void print_overview(FILE *out) {
    fputs("Usage: matquant COMMAND [OPTION...]\n"
          "\n"
          "One int8 checkpoint of a language model whose top bits are its lower precisions.\n"
          "\n"
          "Commands:\n",
          out);
    for (size_t i = 0; i < VERB_COUNT; i++) {
        fprintf(out, "  %-10s%s\n", verbs[i].name, verbs[i].summary);
    }
    fputs("\n"
          "matquant COMMAND --help (or matquant help COMMAND) prints a command's options,\n"
          "matquant --version the version.\n"
          "\n"
          "Exit status: 0 done, 1 a check that was asked for failed, 2 wrong usage, 3 bad\n"
          "input, 4 the machine (disk, memory), 5 interrupted.\n",
          out);
}

static const cli_verb *find_verb(const char *name) {
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    const char *names[VERB_COUNT];
    for (size_t i = 0; i < VERB_COUNT; i++) {
        names[i] = verbs[i].name;
    }
    const char *close = cli_closest(name, names, VERB_COUNT);
    fprintf(stderr, "matquant: unknown %s '%s'%s%s%s (see matquant --help)\n",
            name[0] == '-' ? "option" : "command", name, close ? ", did you mean '" : "",
            close ? close : "", close ? "'?" : "");
    return NULL;
}

static mq_status run_help(int count, char *const *argv) {
    if (count == 0) {
        print_overview(stdout);
        return MQ_OK;
    }
    const cli_verb *verb = find_verb(argv[0]);
    char help[] = "--help";
    return verb ? verb->run(1, (char *const[]){help}) : MQ_ERR_USAGE;
}

static mq_status run(int count, char *const *argv) {
    if (count == 0) {
        print_overview(stderr);
        return MQ_ERR_USAGE;
    }
    const char *name = argv[0];
    if (strcmp(name, "--version") == 0) {
        printf("matquant %s\n", mq_version());
        return MQ_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return run_help(count - 1, argv + 1);
    }
    const cli_verb *verb = find_verb(name);
    return verb ? verb->run(count - 1, argv + 1) : MQ_ERR_USAGE;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    fill_standard_streams();
    const char *kernel = mq_blas_better_kernel();
    if (kernel != NULL) {
        fprintf(stderr, "matquant: products will be slow: set OPENBLAS_CORETYPE=%s\n", kernel);
    }
    cli_set_up_signals();
    return (int)finish_stdout(run(argc > 0 ? argc - 1 : 0, argv + 1));
}
