/*
 * threads.h - threads, and integers that several of them use.
 */
#ifndef THREADS_H
#define THREADS_H

#include <pthread.h>
#include <sys/syscall.h>

#include "clock.h"

static inline void start_thread(pthread_t *thread, void *(*body)(void *), void *argument)
{
    CHECK_INT(pthread_create(thread, NULL, body, argument), 0);
}

static inline void join_thread(pthread_t thread)
{
    CHECK_INT(pthread_join(thread, NULL), 0);
}

static inline int this_thread(void)
{
    return (int)syscall(SYS_gettid);
}

/* Whether that thread of this process sleeps, for whatever reason. */
static inline int is_asleep(int tid)
{
    char path[64], state = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    file = fopen(path, "r");
    CHECK(file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state == 'S';
}

static inline int get(const int *number)
{
    return __atomic_load_n(number, __ATOMIC_SEQ_CST);
}

static inline void put(int *number, int value)
{
    __atomic_store_n(number, value, __ATOMIC_SEQ_CST);
}

/* Adds one. Returns the sum. */
static inline int count_up(int *number)
{
    return __atomic_add_fetch(number, 1, __ATOMIC_SEQ_CST);
}

#endif
