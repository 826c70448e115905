/*
 * impairing.h - what tests of impairments share: their texts and counts, and how both are
 * checked.
 */
#ifndef IMPAIRING_H
#define IMPAIRING_H

#include <time.h>

#include "forwarding.h"

static inline qnet_impair_stats impair_stats_of(qnet_conn *conn, int direction)
{
    qnet_impair_stats stats;

    CHECK_INT(qnet_get_impair_stats(conn, direction, &stats, sizeof stats), sizeof stats);
    return stats;
}

/* Checks that every frame is counted by what became of it. Returns the counts. */
static inline qnet_impair_stats check_counts(qnet_conn *conn, int direction)
{
    qnet_impair_stats stats = impair_stats_of(conn, direction);

    CHECK_INT(stats.frames + stats.duplicated, stats.lost + stats.dropped + stats.discarded +
                                                   stats.passed + stats.waiting + stats.flying);
    CHECK_INT(stats.held_bytes > 0, stats.waiting + stats.flying > 0);
    return stats;
}

static inline uint64_t in_flight(qnet_conn *conn, int direction)
{
    qnet_impair_stats stats = check_counts(conn, direction);

    return stats.waiting + stats.flying;
}

static inline void impair(qnet_conn *conn, int direction, const char *spec)
{
    CHECK_INT(qnet_impair(conn, direction, spec), QNET_OK);
}

/* Checks the text that is in force. */
static inline void check_text(qnet_conn *conn, int direction, const char *want)
{
    char text[1000];
    int len = qnet_impairment(conn, direction, text, sizeof text);

    if (len != (int)strlen(want) || strcmp(text, want) != 0)
        fprintf(stderr, "it is \"%s\", not \"%s\"\n", text, want);
    CHECK_INT(len, strlen(want));
    CHECK(strcmp(text, want) == 0);
}

/* The seed of the text that is in force. */
static inline unsigned long long seed_of(qnet_conn *conn, int direction)
{
    char text[1000], *seed;

    CHECK(qnet_impairment(conn, direction, text, sizeof text) > 0);
    seed = strstr(text, "seed ");
    CHECK(seed != NULL);
    return strtoull(seed + 5, NULL, 10);
}

static inline int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Checks that nothing comes to a plain socket that should not. */
static inline void check_silent(int fd)
{
    CHECK(!raw_readable(fd, 20));
}

#endif
