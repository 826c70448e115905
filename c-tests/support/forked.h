/*
 * forked.h - how children that tests have forked end, also under valgrind.
 */
#ifndef FORKED_H
#define FORKED_H

#include <signal.h>
#include <sys/wait.h>

#include "scratch.h"

/*
 * Ends a forked child that found all in order. In a child, what its parent's
 * other threads had on their stacks is lost memory, which valgrind would report.
 */
static inline void end_child(void)
{
    if (is_under_valgrind())
        kill(getpid(), SIGKILL);
    _exit(0);
}

static inline void wait_for_child(pid_t child)
{
    int status;

    CHECK(waitpid(child, &status, 0) == child);
    if (!is_under_valgrind() || status != SIGKILL)
        CHECK_INT(status, 0);
}

#endif
