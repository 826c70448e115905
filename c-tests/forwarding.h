/*
 * forwarding.h - what tests of links and hubs share: the plain socket's side
 * without waiting, the library's forwarding threads, and how much of the
 * machine the tests may use.
 */
#ifndef FORWARDING_H
#define FORWARDING_H

#include <sys/resource.h>

#include "calls.h"

enum { MOST_LOOPS = 4 };

/* Whether nobody takes what is written there: there is no room, and none comes for a while. */
static inline int raw_is_held(int fd)
{
    struct pollfd poll_fd;

    poll_fd.fd = fd;
    poll_fd.events = POLLOUT;
    poll_fd.revents = 0;
    return poll(&poll_fd, 1, 100) == 0;
}

/* Whether the library has read all that was written to the connection. */
static inline int all_is_read(qnet_conn *conn)
{
    return bytes_waiting(qnet_fd(conn)) == 0;
}

/* The socket's end comes next, and not as a failure. */
static inline void raw_take_end(int fd)
{
    char byte;

    CHECK(raw_readable(fd, patience_ms()));
    CHECK_INT(recv(fd, &byte, 1, 0), 0);
}

static inline int recv_now(qnet_conn *conn)
{
    uint8_t buffer[2048];

    return qnet_recv(conn, buffer, sizeof buffer, 0);
}

/* Writes a job's frames, or as many as somebody takes before the end. */
static inline void *writing_until_the_end(void *argument)
{
    struct raw_job *job = argument;
    struct bundle bundle = bundle_make(&job->flow, job->count);
    size_t at = 0;
    ssize_t n = 1;

    while (at < bundle.len && n > 0) {
        n = send(job->fd, bundle.wire + at, bundle.len - at, MSG_NOSIGNAL);
        at += n > 0 ? (size_t)n : 0;
    }
    bundle_free(&bundle);
    return NULL;
}

/* Reads whatever comes until the end. */
static inline void *reading_until_the_end(void *argument)
{
    struct raw_job *job = argument;
    char bytes[8192];

    while (recv(job->fd, bytes, sizeof bytes, 0) > 0)
        ;
    return NULL;
}

static inline int is_forwarding_thread(const char *number)
{
    char path[300], name[32] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", number);
    file = fopen(path, "r");
    if (!file)
        return 0; /* it has just ended */
    if (!fgets(name, sizeof name, file))
        name[0] = '\0';
    fclose(file);
    return strcmp(name, "qnet-forward\n") == 0;
}

static inline int forwarding_threads(void)
{
    return count_entries("/proc/self/task", is_forwarding_thread);
}

/* Allows this process `count` descriptors, or skips the test. */
static inline void allow_descriptors(unsigned count)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur >= count)
        return;
    limit.rlim_cur = count;
    if (limit.rlim_max < count)
        limit.rlim_max = count;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        check_skip("not so many descriptors are allowed here");
}

#endif
