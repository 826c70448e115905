/*
 * check.h - the little that every test here shares.
 *
 * A test is a function without arguments. run() runs it in a process of its
 * own, so that a crash or a hang fails that test alone; CHECK ends the process
 * at the first thing that is not so. Environment: CHECK_ONLY=word runs only
 * the tests whose name contains word, CHECK_SLOW=n multiplies the time allowed
 * (for valgrind and the sanitizers) and divides repetitions (see rounds());
 * CHECK_SAMPLE=n divides them as well, and runs one in n of the tests that
 * differ only in what they are run with (for a check that is to be short).
 * CHECK_EMULATED=1 says that the program runs under qemu-user.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qnet.h"

enum { CHECK_SECONDS = 60, CHECK_SKIP = 77 };

static int check_passed, check_failed, check_skipped;

/* Prints what was expected and where, and ends this test. */
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition))                                                      \
            check_fail(__FILE__, __LINE__, #condition);                        \
    } while (0)

/* Ends this test, printing both, unless two integers are equal. */
#define CHECK_INT(got, want)                                                   \
    check_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))

/* A set of codes: the union of MAY() of each. */
#define MAY(code) (1u << -(code))

static inline void check_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: not so: %s (errno %s; qnet: %s)\n", file, line,
            what, strerror(errno), qnet_last_error());
    fflush(NULL);
    _exit(1);
}

static inline void check_int(const char *file, int line, const char *what,
                             long long got, long long want)
{
    if (got == want)
        return;
    fprintf(stderr, "%s:%d: %s is %lld, not %lld (qnet: %s)\n", file, line,
            what, got, want, qnet_last_error());
    fflush(NULL);
    _exit(1);
}

/* Ends this test as skipped. */
static inline void check_skip(const char *why)
{
    fprintf(stderr, "skipped: %s\n", why);
    fflush(NULL);
    _exit(CHECK_SKIP);
}

/* The positive number in the environment variable `name`, or `otherwise`. */
static inline int check_number(const char *name, int otherwise)
{
    const char *text = getenv(name);

    return text && atoi(text) > 0 ? atoi(text) : otherwise;
}

static inline int check_slow(void)
{
    return check_number("CHECK_SLOW", 1);
}

static inline int check_sample(void)
{
    return check_number("CHECK_SAMPLE", 1);
}

/* How often to repeat what is repeated `n` times at full speed. */
static inline int rounds(int n)
{
    int some = n / check_slow() / check_sample();
    return some > 0 ? some : 1;
}

static inline int check_wants(const char *name)
{
    const char *only = getenv("CHECK_ONLY");

    return !only || strstr(name, only) != NULL;
}

static inline void run(const char *name, void (*test)(void))
{
    int status;
    pid_t pid;

    if (!check_wants(name))
        return;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm((unsigned)(CHECK_SECONDS * check_slow()));
        test();
        exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("check: fork");
        exit(2);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        check_passed++;
        printf("ok      %s\n", name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIP) {
        check_skipped++;
        printf("skipped %s\n", name);
    } else {
        check_failed++;
        if (WIFSIGNALED(status))
            printf("FAILED  %s (%s)\n", name,
                   WTERMSIG(status) == SIGALRM ? "hung" : strsignal(WTERMSIG(status)));
        else
            printf("FAILED  %s\n", name);
    }
}
#define RUN(test) run(#test, test)

/*
 * Runs a test that is told apart by what it is run with. Of these, CHECK_SAMPLE=n runs
 * one in n, counted across tests, so that different tests are run with different things.
 */
static inline void run_with(const char *name, const char *with, void (*test)(void))
{
    static int turn;
    char full[120];

    if (turn++ % check_sample() != 0)
        return;
    snprintf(full, sizeof full, "%s (%s)", name, with);
    run(full, test);
}

/* What main returns, after the counts that the runner adds up. */
static inline int check_done(void)
{
    printf("%d passed, %d failed, %d skipped\n", check_passed, check_failed, check_skipped);
    return check_failed != 0;
}

#endif
