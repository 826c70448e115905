/*
 * watch.h - what tests of how connections end share: a receiver, of any way or none, that
 * records what its handlers are told.
 */
#ifndef WATCH_H
#define WATCH_H

#include "calls.h"

/* The modes: the ways to receive in ways.h, and not receiving at all. */
enum { UNREAD = WAYS_TO_RECEIVE, MODES };

/* Prints which row of a table is being tested, if CHECK_SCENES=1 asks for it. */
static inline void scene(const char *what, const char *how, int mode)
{
    static const char *const modes[MODES] = {
        "recv", "recv_batch", "recv_packed", "handler", "batch handler", "unread",
    };

    if (getenv("CHECK_SCENES"))
        fprintf(stderr, "%s, %s, %s\n", what, how, modes[mode]);
}

static inline int handled(int mode)
{
    return mode == BY_HANDLER || mode == BY_BATCH_HANDLER;
}

/* A taker that also notes on which thread it is called, and whose calls wait at a gate. */
struct watch {
    struct taker taker;
    struct flow flow;
    int frame_thread;
    int end_thread;
    unsigned frames_at_end;
    int calls;    /* handler calls that began */
    int returned; /* handler calls that are over */
    int shut;     /* the gate: while 1, a handler call does not return */
};

static inline void watch_each(void *argument, const uint8_t *frame, size_t len)
{
    struct watch *watch = argument;

    CHECK_INT(watch->taker.ends, 0);
    flow_take(&watch->flow, frame, len);
}

static inline void watch_gate(struct watch *watch)
{
    while (get(&watch->shut))
        raw_sleep_ms(1);
}

static inline void watch_frame(void *user, const uint8_t *frame, size_t len)
{
    struct watch *watch = user;

    put(&watch->frame_thread, this_thread());
    taker_frame(&watch->taker, frame, len);
    count_up(&watch->calls);
    watch_gate(watch);
    count_up(&watch->returned);
}

static inline void watch_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct watch *watch = user;

    put(&watch->frame_thread, this_thread());
    taker_batch(&watch->taker, frames, count);
    count_up(&watch->calls);
    watch_gate(watch);
    count_up(&watch->returned);
}

static inline void watch_end(void *user, int reason)
{
    struct watch *watch = user;

    CHECK_INT(get(&watch->returned), get(&watch->calls));
    put(&watch->end_thread, this_thread());
    watch->frames_at_end = taker_count(&watch->taker);
    taker_ended(&watch->taker, reason);
}

static inline int set_mode_handler(qnet_conn *conn, int mode, struct watch *watch)
{
    if (mode == BY_HANDLER)
        return qnet_set_handler(conn, watch_frame, watch);
    if (mode == BY_BATCH_HANDLER)
        return qnet_set_batch_handler(conn, watch_batch, watch);
    return QNET_OK;
}

/* Prepares a watch, without setting any handler. */
static inline void watch_init(struct watch *watch, qnet_conn *conn, int mode)
{
    memset(watch, 0, sizeof *watch);
    watch->flow = flow_of_small_frames();
    watch->taker.conn = conn;
    watch->taker.way = mode;
    watch->taker.each = watch_each;
    watch->taker.argument = watch;
    CHECK_INT(pthread_mutex_init(&watch->taker.lock, NULL), 0);
}

static inline void watch_start(struct watch *watch, qnet_conn *conn, int mode)
{
    watch_init(watch, conn, mode);
    CHECK_INT(qnet_set_close_handler(conn, watch_end, watch), QNET_OK);
    CHECK_INT(set_mode_handler(conn, mode, watch), QNET_OK);
}

/* Sets the handlers with the gate shut, and waits until a call stands at it. */
static inline void watch_start_stuck(struct watch *watch, qnet_conn *conn, int mode)
{
    watch_init(watch, conn, mode);
    put(&watch->shut, 1);
    CHECK_INT(qnet_set_close_handler(conn, watch_end, watch), QNET_OK);
    CHECK_INT(set_mode_handler(conn, mode, watch), QNET_OK);
    EVENTUALLY(get(&watch->calls) == 1);
}

/* Checks that the close handler has run once, after `frames` frames, with `reason`. */
static inline void watch_told(struct watch *watch, unsigned frames, int reason)
{
    CHECK_INT(taker_ends(&watch->taker), 1);
    CHECK_INT(watch->taker.reason, reason);
    CHECK_INT(watch->frames_at_end, frames);
    CHECK_INT(taker_count(&watch->taker), frames);
}

/*
 * Checks that the close handler ran on the right thread: that of the frame handler if one
 * was set, and this one otherwise.
 */
static inline void watch_told_where(struct watch *watch, int mode)
{
    int where = get(&watch->end_thread);

    if (!handled(mode)) {
        CHECK_INT(where, this_thread());
        return;
    }
    CHECK(where != this_thread());
    if (get(&watch->frame_thread) != 0)
        CHECK_INT(where, get(&watch->frame_thread));
}

/* ---- Ends ---- */

static inline void is_stale(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_shutdown(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_wait(conn, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_fd(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_flush(conn), QNET_ERR_HANDLE);
}

static inline int go_half(int fd, qnet_conn *conn)
{
    (void)conn;
    CHECK(shutdown(fd, SHUT_WR) == 0);
    return fd;
}

/*
 * Sends until the socket stays full, as TCP's buffers grow for a while. A Unix socket has
 * then taken only a part of a frame. Returns how many frames were taken. From then on
 * sends do not wait.
 */
static inline unsigned stuff(qnet_conn *conn)
{
    static const size_t sizes[] = { 60000, 1514, 9000 };
    struct flow flow = { sizes, 3, 0 };
    unsigned before;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do {
        before = flow.next;
        while (flow_send(&flow, conn, 0, 1) > 0)
            ;
        raw_sleep_ms(20);
    } while (flow.next != before);
    return flow.next;
}

#endif
