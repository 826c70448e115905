/*
 * forwarding.h - what tests of links and hubs share: plain sockets that may be held up or
 * cut off, what handlers do and are told, and limits on what the process may use.
 */
#ifndef FORWARDING_H
#define FORWARDING_H

#include <sys/resource.h>

#include "calls.h"

enum { MOST_LOOPS = 4 };

/* Whether a plain socket's peer does not read: it has no room, and none comes for a while. */
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

/* Checks that the stream's end comes next, and that it is no failure. */
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

/* Writes a job's frames, or as many as are taken before the connection ends. */
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

/* Receives a frame with qnet_recv(), which must be the flow's next one. */
static inline void take_by_recv(qnet_conn *conn, struct flow *flow)
{
    static __thread uint8_t buffer[QNET_FRAME_MAX];
    int len = qnet_recv(conn, buffer, sizeof buffer, patience_ms());

    CHECK(len > 0);
    flow_take(flow, buffer, (size_t)len);
}

/* What a close handler was told, and on which thread. It does not return while `shut` is set. */
struct ending {
    int ends, reason, thread, shut;
};

static inline void ending_told(void *user, int reason)
{
    struct ending *ending = user;

    put(&ending->reason, reason);
    put(&ending->thread, this_thread());
    while (get(&ending->shut))
        raw_sleep_ms(1);
    count_up(&ending->ends);
}

static inline void check_told(const struct ending *ending, int reason)
{
    CHECK_INT(get(&ending->ends), 1);
    CHECK_INT(get(&ending->reason), reason);
    CHECK(get(&ending->thread) != this_thread());
}

static inline void ignore_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)user;
    (void)frames;
    (void)count;
}

/* A call for a handler to make, and its result once it is done. */
struct deed {
    int (*call)(void *argument);
    void *argument;
    int result;
    int done;
};

static inline void do_deed(void *user, const uint8_t *frame, size_t len)
{
    struct deed *deed = user;

    (void)frame;
    (void)len;
    put(&deed->result, deed->call(deed->argument));
    put(&deed->done, 1);
}

/* Makes a call in the handler of a connection of its own. The call must succeed. */
static inline void inside_a_handler(int (*call)(void *argument), void *argument)
{
    struct deed deed = { call, argument, 1, 0 };
    struct flow flow = flow_of_small_frames();
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set_handler(conn, do_deed, &deed), QNET_OK);
    raw_send_flow(fd, &flow, 1, 0);
    EVENTUALLY(get(&deed.done));
    CHECK_INT(get(&deed.result), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static inline void check_among(int result, unsigned codes)
{
    CHECK(result <= 0 && (MAY(result) & codes) != 0);
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

/* Leaves no address space for another thread's stack. Returns the limit that was in force. */
static inline struct rlimit allow_no_stack(void)
{
    struct rlimit before, tight;
    FILE *file = fopen("/proc/self/statm", "r");
    long pages;

    CHECK(file && fscanf(file, "%ld", &pages) == 1);
    fclose(file);
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    tight = before;
    tight.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (1 << 20);
    CHECK(setrlimit(RLIMIT_AS, &tight) == 0);
    return before;
}

#endif
