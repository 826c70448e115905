/* clock.h - the time, waiting for a condition, and how busy this process is. */
#ifndef CLOCK_H
#define CLOCK_H

#include <time.h>

#include "check.h"

static inline void raw_sleep_ms(long ms)
{
    struct timespec time;

    time.tv_sec = ms / 1000;
    time.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&time, NULL);
}

static inline long long raw_now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* How long to wait for something that must happen before the test fails. */
static inline int patience_ms(void)
{
    return 10000 * check_slow();
}

/* Waits until `condition`, which is evaluated repeatedly, is true. Fails if it stays false. */
#define EVENTUALLY(condition)                                                  \
    do {                                                                       \
        long long now_ms_, until_ms_ = raw_now_ms() + patience_ms();           \
        while (now_ms_ = raw_now_ms(), !(condition)) {                         \
            if (now_ms_ >= until_ms_)                                          \
                check_fail(__FILE__, __LINE__, #condition);                    \
            raw_sleep_ms(1);                                                   \
        }                                                                      \
    } while (0)

/* ---- Processor time ---- */

/* How much this process has used, in all its threads. */
static inline long long cpu_ns(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
    return (long long)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline long cpu_ms(void)
{
    return (long)(cpu_ns() / 1000000);
}

/* How much processor time this process takes within 200 ms. */
static inline long busy_ms(void)
{
    long before = cpu_ms();

    raw_sleep_ms(200);
    return cpu_ms() - before;
}

/*
 * Checks that no thread spins while it seems to wait. Work that is being finished may
 * take its time, but it ends; a thread that spins never stops, and always gets its share
 * of the processor.
 */
static inline void is_idle(void)
{
    EVENTUALLY(busy_ms() < 40);
}

#endif
