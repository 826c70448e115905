/*
 * receiving.h - what tests of receiving share: streams that are cut in some way, what a
 * receive may meet other than a frame, and receives on other threads.
 */
#ifndef RECEIVING_H
#define RECEIVING_H

#include <sched.h>

#include "ways.h"

static const size_t short_frame = 64, long_frame = 65535;

/* A pseudo-random number below `limit`: the same ones in every run. */
static inline unsigned random_below(unsigned *state, unsigned limit)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % limit;
}

/* Writes only the beginning of a frame: its length prefix, and `part` bytes of it. */
static inline void raw_send_part(int fd, size_t len, size_t part)
{
    uint8_t *bytes = allocate(RAW_PREFIX + part);

    raw_put_length(bytes, len);
    memset(bytes + RAW_PREFIX, 'p', part);
    raw_write(fd, bytes, RAW_PREFIX + part);
    free(bytes);
}

/* ---- What a peer writes ---- */

static inline void *random_writes(void *argument)
{
    struct raw_job *job = argument;
    struct bundle bundle = bundle_make(&job->flow, job->count);
    unsigned state = 1;
    size_t at = 0;

    while (at < bundle.len) {
        size_t part = 1 + random_below(&state, random_below(&state, 4) ? 3000 : 90000);

        if (part > bundle.len - at)
            part = bundle.len - at;
        raw_write(job->fd, bundle.wire + at, part);
        if (random_below(&state, 8) == 0)
            sched_yield();
        at += part;
    }
    bundle_free(&bundle);
    return NULL;
}

/* Ends the stream while the peer still reads, which counts as leaving. */
static inline void leave_half(int fd)
{
    CHECK(shutdown(fd, SHUT_WR) == 0);
}

/* Frames of every length from 0 to 13, with a whole frame after each. */
static inline size_t put_runts(uint8_t *wire, const struct flow *flow)
{
    struct bundle bundle = bundle_make(flow, 14);
    size_t at = 0, len;

    for (len = 0; len < 14; len++) {
        raw_put_length(wire + at, len);
        memset(wire + at + RAW_PREFIX, 0xee, len);
        at += RAW_PREFIX + len;
        raw_put_length(wire + at, bundle.frames[len].len);
        memcpy(wire + at + RAW_PREFIX, bundle.frames[len].data, bundle.frames[len].len);
        at += RAW_PREFIX + bundle.frames[len].len;
    }
    bundle_free(&bundle);
    return at;
}

static inline void check_loans(const qnet_frame *frames, int count, unsigned first)
{
    int i;

    for (i = 0; i < count; i++)
        CHECK_INT(frame_number(frames[i].data, frames[i].len), first + (unsigned)i);
}

/* ---- What a receive may meet ---- */

static inline void prepare_half_frame(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 10);
}

static inline void prepare_leaving(qnet_conn *conn, int fd)
{
    (void)conn;
    leave_half(fd);
}

static inline void prepare_leaving_inside(qnet_conn *conn, int fd)
{
    prepare_half_frame(conn, fd);
    leave_half(fd);
}

static inline void prepare_broken_length(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\xff\xff\xff\xff", 4);
}

static inline void prepare_shutdown(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
}

/* ---- Receives on other threads ---- */

/* A call that waits on a thread of its own. */
struct caller {
    pthread_t thread;
    int (*call)(qnet_conn *conn);
    qnet_conn *conn;
    pthread_mutex_t lock;
    int done;
    int result;
};

static inline void *calling(void *argument)
{
    struct caller *caller = argument;
    int result = caller->call(caller->conn);

    pthread_mutex_lock(&caller->lock);
    caller->done = 1;
    caller->result = result;
    pthread_mutex_unlock(&caller->lock);
    return NULL;
}

static inline void caller_start(struct caller *caller, int (*call)(qnet_conn *), qnet_conn *conn)
{
    memset(caller, 0, sizeof *caller);
    caller->call = call;
    caller->conn = conn;
    CHECK_INT(pthread_mutex_init(&caller->lock, NULL), 0);
    start_thread(&caller->thread, calling, caller);
}

static inline int caller_done(struct caller *caller)
{
    int done;

    pthread_mutex_lock(&caller->lock);
    done = caller->done;
    pthread_mutex_unlock(&caller->lock);
    return done;
}

/* Waits for the call, which must return. Returns its result. */
static inline int caller_result(struct caller *caller)
{
    EVENTUALLY(caller_done(caller));
    join_thread(caller->thread);
    pthread_mutex_destroy(&caller->lock);
    return caller->result;
}

static inline int call_recv(qnet_conn *conn)
{
    uint8_t buffer[100];

    return qnet_recv(conn, buffer, sizeof buffer, -1);
}

static inline int call_recv_batch(qnet_conn *conn)
{
    qnet_frame frame;

    return qnet_recv_batch(conn, &frame, 1, -1);
}

static inline int call_recv_packed(qnet_conn *conn)
{
    uint8_t buffer[RAW_PREFIX + 20];

    return qnet_recv_packed(conn, buffer, sizeof buffer, -1);
}

static inline void remove_handler(qnet_conn *conn)
{
    CHECK_INT(qnet_set_handler(conn, NULL, NULL), QNET_OK);
}

#endif
