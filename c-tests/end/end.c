/*
 * end.c - how a connection ends: in every way to receive and for every way to
 * leave, what is told, when, how often and on which thread; what waiting,
 * shutting down and closing do, also inside handlers and against calls that
 * are blocked; and what closing writes and drains first.
 */
#include <sys/syscall.h>

#include "calls.h"

/* The ways to receive of ways.h, and one more: not at all. */
enum { UNREAD = WAYS_TO_RECEIVE, MODES };

enum { LINGER_SHORT_MS = 300 };

/* Which row of a table is being tested, for whom it fails: CHECK_SCENES=1 prints it. */
static void scene(const char *what, const char *how, int mode)
{
    static const char *const modes[MODES] = {
        "recv", "recv_batch", "recv_packed", "handler", "batch handler", "unread",
    };

    if (getenv("CHECK_SCENES"))
        fprintf(stderr, "%s, %s, %s\n", what, how, modes[mode]);
}

static int handled(int mode)
{
    return mode == BY_HANDLER || mode == BY_BATCH_HANDLER;
}

static int pulled(int mode)
{
    return mode < WAYS_TO_PULL;
}

/* A taker that also notes where it was called, and holds calls while its gate is shut. */
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

static void watch_each(void *argument, const uint8_t *frame, size_t len)
{
    struct watch *watch = argument;

    CHECK_INT(watch->taker.ends, 0);
    flow_take(&watch->flow, frame, len);
}

static void watch_gate(struct watch *watch)
{
    while (get(&watch->shut))
        raw_sleep_ms(1);
}

static void watch_frame(void *user, const uint8_t *frame, size_t len)
{
    struct watch *watch = user;

    put(&watch->frame_thread, this_thread());
    taker_frame(&watch->taker, frame, len);
    count_up(&watch->calls);
    watch_gate(watch);
    count_up(&watch->returned);
}

static void watch_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct watch *watch = user;

    put(&watch->frame_thread, this_thread());
    taker_batch(&watch->taker, frames, count);
    count_up(&watch->calls);
    watch_gate(watch);
    count_up(&watch->returned);
}

static void watch_end(void *user, int reason)
{
    struct watch *watch = user;

    CHECK_INT(get(&watch->returned), get(&watch->calls));
    put(&watch->end_thread, this_thread());
    watch->frames_at_end = taker_count(&watch->taker);
    taker_ended(&watch->taker, reason);
}

static int set_mode_handler(qnet_conn *conn, int mode, struct watch *watch)
{
    if (mode == BY_HANDLER)
        return qnet_set_handler(conn, watch_frame, watch);
    if (mode == BY_BATCH_HANDLER)
        return qnet_set_batch_handler(conn, watch_batch, watch);
    return QNET_OK;
}

/* A watch without any handler set yet. */
static void watch_init(struct watch *watch, qnet_conn *conn, int mode)
{
    memset(watch, 0, sizeof *watch);
    watch->flow = flow_of_small_frames();
    watch->taker.conn = conn;
    watch->taker.way = mode;
    watch->taker.each = watch_each;
    watch->taker.argument = watch;
    CHECK_INT(pthread_mutex_init(&watch->taker.lock, NULL), 0);
}

static void watch_start(struct watch *watch, qnet_conn *conn, int mode)
{
    watch_init(watch, conn, mode);
    CHECK_INT(qnet_set_close_handler(conn, watch_end, watch), QNET_OK);
    CHECK_INT(set_mode_handler(conn, mode, watch), QNET_OK);
}

/* The same, and until a handler call stands before the gate. */
static void watch_start_stuck(struct watch *watch, qnet_conn *conn, int mode)
{
    watch_init(watch, conn, mode);
    put(&watch->shut, 1);
    CHECK_INT(qnet_set_close_handler(conn, watch_end, watch), QNET_OK);
    CHECK_INT(set_mode_handler(conn, mode, watch), QNET_OK);
    EVENTUALLY(get(&watch->calls) == 1);
}

/* The close handler has run, once, after `frames` frames, with `reason`. */
static void watch_told(struct watch *watch, unsigned frames, int reason)
{
    CHECK_INT(taker_ends(&watch->taker), 1);
    CHECK_INT(watch->taker.reason, reason);
    CHECK_INT(watch->frames_at_end, frames);
    CHECK_INT(taker_count(&watch->taker), frames);
}

/* It ran where it has to in that mode, in a call of this thread or on the handler's own. */
static void watch_told_where(struct watch *watch, int mode)
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

/* ---- After the end: every call, every time ---- */

static void sends_give(qnet_conn *conn, int reason)
{
    struct flow flow = flow_of_small_frames();
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++)
        CHECK_INT(flow_send(&flow, conn, way, 2), reason);
    CHECK_INT(qnet_flush(conn), reason);
}

static void receives_give(qnet_conn *conn, int reason)
{
    uint8_t buffer[2048];
    qnet_frame frames[4];

    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), reason);
    CHECK_INT(qnet_recv_batch(conn, frames, 4, -1), reason);
    CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, -1), reason);
}

/* That an ended connection is as before but for sending and receiving. */
static void stays_ended(qnet_conn *conn, int mode, int reason)
{
    uint8_t ready = 0;
    struct watch late;
    int64_t value = -1;
    int time;

    watch_init(&late, conn, mode);
    for (time = 0; time < 2; time++) {
        CHECK_INT(qnet_close_reason(conn), reason);
        sends_give(conn, reason);
        if (!handled(mode))
            receives_give(conn, reason);
        CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
        CHECK_INT(ready, 1);
        CHECK_INT(qnet_wait(conn, 0), QNET_OK);
        CHECK_INT(qnet_set_handler(conn, watch_frame, &late), reason);
        CHECK_INT(qnet_set_batch_handler(conn, watch_batch, &late), reason);
        CHECK_INT(qnet_get(conn, QNET_OPT_LINGER_MS, &value), QNET_OK);
        CHECK(qnet_fd(conn) >= 0);
        (void)stats_of(conn);
    }
    CHECK_INT(get(&late.calls), 0);
}

/* Read with the frames before it, it is known when those are taken, though nobody receives again. */
static void a_broken_length_behind_what_was_pulled(void)
{
    static const uint8_t frame[60];
    int way, fd;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        qnet_conn *conn = raw_pair(&fd);
        struct taker taker;

        taker_start(&taker, conn, way, ignore_frame, NULL);
        raw_send(fd, frame, sizeof frame);
        send_one_and_break(fd);
        taker_want(&taker, 2);
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
        CHECK_INT(qnet_close_reason(conn), QNET_ERR_PROTOCOL);
        taker_close(&taker);
        CHECK(close(fd) == 0);
    }
}

static void is_stale(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_shutdown(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_wait(conn, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_fd(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_flush(conn), QNET_ERR_HANDLE);
}

/* ---- The peer leaves ---- */

/* A way for the peer to go; returns the plain socket, or -1 when that is closed. */
struct departure {
    const char *name;
    int (*go)(int fd, qnet_conn *conn);
    int reason;
    int stays; /* the peer does not leave: only reading what it sent tells the end */
};

static int go(int fd, qnet_conn *conn)
{
    (void)conn;
    close(fd);
    return -1;
}

static int go_half(int fd, qnet_conn *conn)
{
    (void)conn;
    CHECK(shutdown(fd, SHUT_WR) == 0);
    return fd;
}

static int go_inside_header(int fd, qnet_conn *conn)
{
    raw_write(fd, "\0\0", 2);
    return go(fd, conn);
}

static int go_inside_frame(int fd, qnet_conn *conn)
{
    raw_write(fd, "\0\0\0\074 only a part of the sixty bytes", 20);
    return go(fd, conn);
}

static int go_half_inside_frame(int fd, qnet_conn *conn)
{
    raw_write(fd, "\0\0\0\074", 4);
    return go_half(fd, conn);
}

/* A close with something unread is a reset, over TCP and over Unix sockets. */
static int go_resetting(int fd, qnet_conn *conn)
{
    uint8_t frame[60] = { 0 };

    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK(raw_readable(fd, patience_ms()));
    raw_reset_at_close(fd);
    return go(fd, conn);
}

static int lie_a_little(int fd, qnet_conn *conn)
{
    (void)conn;
    raw_write(fd, "\0\1\020\1", 4); /* 69633 */
    return fd;
}

static int lie_a_lot(int fd, qnet_conn *conn)
{
    (void)conn;
    raw_write(fd, "\377\377\377\377", 4);
    return fd;
}

static const struct departure departures[] = {
    { "closes", go, QNET_ERR_CLOSED, 0 },
    { "half-closes", go_half, QNET_ERR_CLOSED, 0 },
    { "leaves inside a header", go_inside_header, QNET_ERR_PROTOCOL, 0 },
    { "leaves inside a frame", go_inside_frame, QNET_ERR_PROTOCOL, 0 },
    { "half-closes inside a frame", go_half_inside_frame, QNET_ERR_PROTOCOL, 0 },
    { "resets", go_resetting, QNET_ERR_OS, 0 },
    { "announces 69633 bytes", lie_a_little, QNET_ERR_PROTOCOL, 1 },
    { "announces 4294967295 bytes", lie_a_lot, QNET_ERR_PROTOCOL, 1 },
};
enum { DEPARTURES = sizeof departures / sizeof *departures };

/* Neither waiting nor polling tells the close handler, and frames still wait. */
static void ended_untold(struct watch *watch, const struct departure *departure)
{
    uint8_t ready = 0;

    if (!departure->stays)
        CHECK_INT(qnet_wait(watch->taker.conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_poll(&watch->taker.conn, &ready, 1, patience_ms()), 1);
    CHECK_INT(ready, 1);
    CHECK_INT(qnet_close_reason(watch->taker.conn), QNET_OK);
    CHECK_INT(taker_ends(&watch->taker), 0);
}

static void one_departure(const struct departure *departure, int mode)
{
    struct watch watch;
    qnet_conn *conn;
    int fd;

    scene("peer", departure->name, mode);
    conn = link_open(&fd);
    watch_start(&watch, conn, mode);
    send_some(fd);
    fd = departure->go(fd, conn);
    if (!handled(mode))
        ended_untold(&watch, departure);
    else
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    if (pulled(mode))
        CHECK_INT(taker_end(&watch.taker), departure->reason);
    if (mode != UNREAD) {
        watch_told(&watch, FRAMES, departure->reason);
        watch_told_where(&watch, mode);
        stays_ended(conn, mode, departure->reason);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(taker_ends(&watch.taker), 1);
    watch_told_where(&watch, mode);
    is_stale(conn);
    if (fd >= 0) {
        CHECK(raw_ended(fd));
        close(fd);
    }
}

static void peer_ends(void)
{
    struct footprint before = footprint_now();
    int i, mode;

    for (i = 0; i < DEPARTURES; i++)
        for (mode = 0; mode < MODES; mode++)
            one_departure(&departures[i], mode);
    footprint_again(before);
}

/* A send that finds the peer gone loses no frame, and is not what reports the end. */
static void frames_come_after_a_failed_send(void)
{
    struct watch watch;
    struct flow flow = flow_of_small_frames();
    int fd, mode;

    for (mode = 0; mode < WAYS_TO_PULL; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        watch_start(&watch, conn, mode);
        send_some(fd);
        go_inside_frame(fd, conn);
        CHECK_INT(flow_send(&flow, conn, 0, 1), QNET_ERR_CLOSED);
        CHECK_INT(taker_ends(&watch.taker), 0);
        CHECK_INT(taker_end(&watch.taker), QNET_ERR_PROTOCOL);
        watch_told(&watch, FRAMES, QNET_ERR_PROTOCOL);
        sends_give(conn, QNET_ERR_PROTOCOL);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

/* ---- This side ends ---- */

/* What only a shutdown leaves: a handle that goes on telling how it ended. */
static void is_shut_down(qnet_conn *conn, int mode, int fd)
{
    stays_ended(conn, mode, QNET_ERR_CLOSED);
    CHECK(raw_ended(fd));
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void one_end_here(int mode, int by_close)
{
    struct watch watch;
    qnet_conn *conn;
    unsigned frames = mode == UNREAD ? 0 : FRAMES;
    int fd;

    scene(by_close ? "close" : "shutdown", "here", mode);
    conn = link_open(&fd);
    watch_start(&watch, conn, mode);
    send_some(fd);
    taker_want(&watch.taker, frames);
    CHECK_INT(by_close ? qnet_close(conn) : qnet_shutdown(conn), QNET_OK);
    if (!by_close && handled(mode))
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    watch_told(&watch, frames, QNET_ERR_CLOSED);
    watch_told_where(&watch, mode);
    if (!by_close)
        is_shut_down(conn, mode, fd);
    CHECK_INT(taker_ends(&watch.taker), 1);
    is_stale(conn);
    CHECK(raw_ended(fd));
    close(fd);
}

static void this_side_ends(void)
{
    struct footprint before = footprint_now();
    int mode;

    for (mode = 0; mode < MODES; mode++) {
        one_end_here(mode, 0);
        one_end_here(mode, 1);
    }
    footprint_again(before);
}

/* More than the peer's socket holds; it speaks when this side has ended, and only then reads. */
static void what_was_sent_arrives_though_the_peer_speaks(void)
{
    static const size_t size = 1514;
    struct flow got = flow_of_one_size(&size);
    uint8_t frame[1514];
    unsigned sent = 0;
    int fd;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do
        frame_make(frame, size, sent);
    while (sent < 300 && qnet_send(conn, frame, size) == QNET_OK && ++sent);
    CHECK(sent > 0);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    /* Refused where all was sent, and this side has closed already. */
    CHECK(send(fd, "\0\0\0\0", 4, MSG_NOSIGNAL) == 4 || errno == EPIPE);
    raw_take_until(fd, &got, sent);
    EVENTUALLY(stats_of(conn).tx_frames == sent);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* The descriptor's number is not given to another one while the handle lives. */
static void number_stays_after_shutdown(void)
{
    int fd, number, others[16], i;
    qnet_conn *conn = raw_pair(&fd);

    number = qnet_fd(conn);
    CHECK(number >= 0);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK(raw_ended(fd));
    for (i = 0; i < 16; i++) {
        others[i] = dup(fd);
        CHECK(others[i] >= 0 && others[i] != number);
    }
    CHECK_INT(qnet_fd(conn), number);
    CHECK_INT(qnet_close(conn), QNET_OK);
    EVENTUALLY(fcntl(number, F_GETFD) < 0);
}

/* Lent bytes outlive the connection's end, whoever ends it. */
static void loan_outlives_the_end(void)
{
    qnet_frame frames[FRAMES];
    int fd, here, i;

    for (here = 0; here < 2; here++) {
        struct flow flow = flow_of_small_frames();
        qnet_conn *conn = raw_pair(&fd);

        send_some(fd);
        CHECK_INT(qnet_recv_batch(conn, frames, FRAMES, -1), FRAMES);
        if (here)
            CHECK_INT(qnet_shutdown(conn), QNET_OK);
        else
            go_half(fd, conn);
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
        CHECK(!here || raw_ended(fd));
        for (i = 0; i < FRAMES; i++)
            flow_take(&flow, frames[i].data, frames[i].len);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Setting the close handler ---- */

/* Ends a connection so that the end is reported, without a close handler. */
static void end_untold(struct watch *watch, int mode, int here, int fd)
{
    qnet_conn *conn = watch->taker.conn;
    uint8_t buffer[64];

    if (here)
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
    else
        go_half(fd, conn);
    if (handled(mode) || here)
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    else
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, patience_ms()), QNET_ERR_CLOSED);
}

static void close_handler_set_after_the_end(void)
{
    struct watch watch;
    int fd, mode, here;

    for (mode = 0; mode < MODES; mode++) {
        for (here = mode == UNREAD; here < 2; here++) {
            qnet_conn *conn = raw_pair(&fd);

            scene("close handler set late", here ? "shutdown" : "peer left", mode);
            watch_init(&watch, conn, mode);
            CHECK_INT(set_mode_handler(conn, mode, &watch), QNET_OK);
            end_untold(&watch, mode, here, fd);
            CHECK_INT(qnet_set_close_handler(conn, watch_end, &watch), QNET_OK);
            watch_told(&watch, 0, QNET_ERR_CLOSED);
            CHECK_INT(qnet_close(conn), QNET_OK);
            CHECK_INT(taker_ends(&watch.taker), 1);
            close(fd);
        }
    }
}

/* A close handler replaced or removed before the end is never called. */
static void close_handler_replaced(void)
{
    struct watch first, second;
    int fd, mode, removed;

    for (mode = 0; mode < MODES; mode++) {
        for (removed = 0; removed < 2; removed++) {
            qnet_conn *conn = raw_pair(&fd);

            scene("close handler", removed ? "removed" : "replaced", mode);
            watch_start(&first, conn, mode);
            watch_init(&second, conn, mode);
            CHECK_INT(qnet_set_close_handler(conn, removed ? NULL : watch_end, &second), QNET_OK);
            CHECK_INT(qnet_close(conn), QNET_OK);
            CHECK_INT(taker_ends(&first.taker), 0);
            CHECK_INT(taker_ends(&second.taker), !removed);
            close(fd);
        }
    }
}

struct self_closer {
    qnet_conn *conn;
    int ends;
    int result;
};

static void close_in_close_handler(void *user, int reason)
{
    struct self_closer *closer = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    put(&closer->result, qnet_close(closer->conn));
    count_up(&closer->ends);
}

/* Ends it by a shutdown, by a close or by the peer, then sees that the end is reported. */
static void end_by(int way, qnet_conn *conn, int mode, int fd)
{
    uint8_t buffer[64];

    if (way == 0) {
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
    } else if (way == 1) {
        CHECK_INT(qnet_close(conn), QNET_OK);
    } else {
        go_half(fd, conn);
        if (!handled(mode))
            CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_CLOSED);
    }
}

static void close_handler_closes_its_connection(void)
{
    static const char *const ways[] = { "shutdown", "close", "peer left" };
    struct footprint before = footprint_now();
    struct watch watch;
    int fd, mode, way;

    for (mode = 0; mode < MODES; mode++) {
        for (way = 0; way < 3; way++) {
            struct self_closer closer = { NULL, 0, 1 };
            qnet_conn *conn = raw_pair(&fd);

            scene("close handler that closes", ways[way], mode);
            closer.conn = conn;
            watch_init(&watch, conn, mode);
            CHECK_INT(qnet_set_close_handler(conn, close_in_close_handler, &closer), QNET_OK);
            CHECK_INT(set_mode_handler(conn, mode, &watch), QNET_OK);
            end_by(way, conn, mode, fd);
            EVENTUALLY(get(&closer.ends) == 1);
            CHECK_INT(get(&closer.result), way == 1 ? QNET_ERR_HANDLE : QNET_OK);
            is_stale(conn);
            CHECK(raw_ended(fd));
            CHECK_INT(get(&closer.ends), 1);
            close(fd);
        }
    }
    footprint_again(before);
}

/* ---- Inside a handler ---- */

/* A handled connection whose first handler call does something. */
struct actor {
    qnet_conn *own;
    qnet_conn *other;
    int other_fd;
    struct watch *watch; /* the other's */
    int (*act)(struct actor *actor);
    int *arrived;
    int calls;
    int ends;
    int result;
    int acted;
    int thread;
};

static void actor_acts(struct actor *actor)
{
    CHECK_INT(get(&actor->ends), 0);
    if (count_up(&actor->calls) > 1)
        return;
    put(&actor->thread, this_thread());
    put(&actor->result, actor->act(actor));
    put(&actor->acted, 1);
}

static void actor_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    actor_acts(user);
}

static void actor_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    actor_acts(user);
}

static void actor_end(void *user, int reason)
{
    struct actor *actor = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(this_thread(), get(&actor->thread));
    CHECK(get(&actor->acted));
    count_up(&actor->ends);
}

/* Frames may wait already: then it acts at once. */
static void actor_start(struct actor *actor, int mode)
{
    CHECK_INT(qnet_set_close_handler(actor->own, actor_end, actor), QNET_OK);
    if (mode == BY_HANDLER)
        CHECK_INT(qnet_set_handler(actor->own, actor_frame, actor), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(actor->own, actor_batch, actor), QNET_OK);
}

static int close_own(struct actor *actor)
{
    return qnet_close(actor->own);
}

static int shutdown_own(struct actor *actor)
{
    return qnet_shutdown(actor->own);
}

static int wait_own(struct actor *actor)
{
    return qnet_wait(actor->own, -1);
}

static int send_own(struct actor *actor)
{
    uint8_t frame[60];

    frame_make(frame, sizeof frame, 0);
    return qnet_send(actor->own, frame, sizeof frame);
}

static int close_other(struct actor *actor)
{
    return qnet_close(actor->other);
}

static int shutdown_other(struct actor *actor)
{
    return qnet_shutdown(actor->other);
}

/* Waits for the other's end, which includes its close handler: how often that ran. */
static int wait_other(struct actor *actor)
{
    int result = qnet_wait(actor->other, 20);

    if (result != QNET_ERR_TIMEOUT)
        return result;
    go_half(actor->other_fd, actor->other);
    result = qnet_wait(actor->other, -1);
    return result == QNET_OK ? taker_ends(&actor->watch->taker) : result;
}

static const struct {
    const char *name;
    int (*act)(struct actor *actor);
    int result;
    int ends;
    int closes;
} own_acts[] = {
    { "close", close_own, QNET_OK, 1, 1 },
    { "shutdown", shutdown_own, QNET_OK, 1, 0 },
    { "send", send_own, QNET_OK, 0, 0 },
    { "wait", wait_own, QNET_ERR_BUSY, 0, 0 },
};
enum { OWN_ACTS = sizeof own_acts / sizeof *own_acts };

/* After the act no further handler call begins, and the close handler comes last. */
static void own_act_ended(struct actor *actor, int fd)
{
    EVENTUALLY(get(&actor->ends) == 1);
    CHECK(raw_ended(fd));
    CHECK_INT(get(&actor->calls), 1);
    CHECK_INT(get(&actor->ends), 1);
}

static void own_act_goes_on(struct actor *actor, int fd, int answers)
{
    struct flow flow = flow_of_small_frames();
    size_t size = 60;
    struct flow answer = flow_of_one_size(&size);
    int calls = get(&actor->calls);

    if (answers)
        raw_take(fd, &answer);
    raw_send_flow(fd, &flow, 1, 0);
    EVENTUALLY(get(&actor->calls) > calls);
    CHECK_INT(get(&actor->ends), 0);
}

static void handler_acts_on_its_own(void)
{
    struct footprint before = footprint_now();
    int fd, i, mode;

    for (i = 0; i < OWN_ACTS; i++) {
        for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
            struct actor actor;
            qnet_conn *conn = raw_pair(&fd);

            scene("handler's own connection", own_acts[i].name, mode);
            memset(&actor, 0, sizeof actor);
            actor.own = conn;
            actor.act = own_acts[i].act;
            send_some(fd);
            actor_start(&actor, mode);
            EVENTUALLY(get(&actor.acted));
            CHECK_INT(get(&actor.result), own_acts[i].result);
            if (own_acts[i].ends)
                own_act_ended(&actor, fd);
            else
                own_act_goes_on(&actor, fd, own_acts[i].act == send_own);
            CHECK_INT(qnet_close(conn), own_acts[i].closes ? QNET_ERR_HANDLE : QNET_OK);
            CHECK_INT(get(&actor.ends), 1);
            close(fd);
        }
    }
    footprint_again(before);
}

/* An actor that acts on another connection, which is received from in `mode`. */
struct two {
    struct actor actor;
    struct watch other;
    int fd;
    int other_fd;
};

static void two_start(struct two *two, int (*act)(struct actor *), int mode, int stuck)
{
    memset(&two->actor, 0, sizeof two->actor);
    two->actor.own = raw_pair(&two->fd);
    two->actor.other = raw_pair(&two->other_fd);
    two->actor.other_fd = two->other_fd;
    two->actor.watch = &two->other;
    two->actor.act = act;
    if (stuck) {
        send_some(two->other_fd);
        watch_start_stuck(&two->other, two->actor.other, mode);
    } else {
        watch_start(&two->other, two->actor.other, mode);
    }
    send_some(two->fd);
    actor_start(&two->actor, BY_HANDLER);
    EVENTUALLY(get(&two->actor.acted));
}

static void two_end(struct two *two)
{
    CHECK_INT(qnet_close(two->actor.own), QNET_OK);
    qnet_close(two->actor.other);
    close(two->fd);
    close(two->other_fd);
}

/* The other's close handler: in the call, but for a handled connection on its own thread. */
static void handler_ends_another(void)
{
    static const struct {
        const char *name;
        int (*act)(struct actor *actor);
    } acts[] = { { "close", close_other }, { "shutdown", shutdown_other } };
    struct footprint before = footprint_now();
    struct two two;
    int i, mode, where;

    for (i = 0; i < 2; i++) {
        for (mode = 0; mode < MODES; mode++) {
            scene("handler ends another", acts[i].name, mode);
            two_start(&two, acts[i].act, mode, 0);
            CHECK_INT(get(&two.actor.result), QNET_OK);
            EVENTUALLY(taker_ends(&two.other.taker) == 1);
            where = get(&two.other.end_thread);
            CHECK((where == get(&two.actor.thread)) == !handled(mode));
            CHECK(raw_ended(two.other_fd));
            CHECK_INT(qnet_close(two.actor.other), i == 0 ? QNET_ERR_HANDLE : QNET_OK);
            two_end(&two);
            CHECK_INT(taker_ends(&two.other.taker), 1);
        }
    }
    footprint_again(before);
}

/* Inside a handler closing does not wait for the other's handler, which is in a call. */
static void handler_closes_another_in_a_call(void)
{
    struct footprint before = footprint_now();
    struct two two;
    int mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        two_start(&two, close_other, mode, 1);
        CHECK_INT(get(&two.actor.result), QNET_OK);
        CHECK_INT(get(&two.other.returned), 0);
        CHECK_INT(taker_ends(&two.other.taker), 0);
        put(&two.other.shut, 0);
        EVENTUALLY(taker_ends(&two.other.taker) == 1);
        CHECK_INT(get(&two.other.calls), 1);
        two_end(&two);
    }
    footprint_again(before);
}

static void handler_waits_for_another(void)
{
    struct footprint before = footprint_now();
    struct two two;
    int mode;

    for (mode = 0; mode < MODES; mode++) {
        scene("handler waits", "for another", mode);
        two_start(&two, wait_other, mode, 0);
        CHECK_INT(get(&two.actor.result), handled(mode) ? 1 : 0);
        two_end(&two);
    }
    footprint_again(before);
}

/* Closes the other once the other's handler is in its call too. */
static int meet_and_close(struct actor *actor)
{
    count_up(actor->arrived);
    EVENTUALLY(get(actor->arrived) == 2);
    return qnet_close(actor->other);
}

static void two_handlers_close_each_other(void)
{
    struct footprint before = footprint_now();
    struct actor actors[2];
    int fds[2], arrived, i, round;

    for (round = rounds(100); round > 0; round--) {
        memset(actors, 0, sizeof actors);
        put(&arrived, 0);
        for (i = 0; i < 2; i++)
            actors[i].own = actors[1 - i].other = raw_pair(&fds[i]);
        for (i = 0; i < 2; i++) {
            actors[i].act = meet_and_close;
            actors[i].arrived = &arrived;
            send_some(fds[i]);
            actor_start(&actors[i], i == 0 ? BY_HANDLER : BY_BATCH_HANDLER);
        }
        for (i = 0; i < 2; i++) {
            EVENTUALLY(get(&actors[i].ends) == 1);
            CHECK_INT(get(&actors[i].result), QNET_OK);
            /* The other's call does not wait for this handler, nor this one for that call. */
            EVENTUALLY(qnet_close_reason(actors[i].own) == QNET_ERR_HANDLE);
            is_stale(actors[i].own);
            close(fds[i]);
        }
    }
    footprint_again(before);
}

/* ---- Waiting ---- */

static void wait_keeps_to_its_time(void)
{
    struct watch watch;
    long long began;
    int fd, mode;

    for (mode = 0; mode < MODES; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        scene("wait", "open", mode);
        watch_start(&watch, conn, mode);
        CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
        began = raw_now_ms();
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        CHECK(raw_now_ms() - began >= 49);
        CHECK_INT(qnet_wait(conn, -2), QNET_ERR_INVALID);
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* Of a handled connection it waits for the close handler as well. */
static int release_close_handler;

static void slow_close_handler(void *user, int reason)
{
    (void)reason;
    while (!get(&release_close_handler))
        raw_sleep_ms(1);
    count_up(user);
}

static void wait_includes_the_close_handler(void)
{
    struct watch watch;
    int fd, mode, ends;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        ends = 0;
        put(&release_close_handler, 0);
        watch_init(&watch, conn, mode);
        CHECK_INT(qnet_set_close_handler(conn, slow_close_handler, &ends), QNET_OK);
        CHECK_INT(set_mode_handler(conn, mode, &watch), QNET_OK);
        go_half(fd, conn);
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        put(&release_close_handler, 1);
        CHECK_INT(qnet_wait(conn, -1), QNET_OK);
        CHECK_INT(get(&ends), 1);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Calls that are blocked ---- */

/* One call of the library on a thread of its own. */
struct call {
    pthread_t thread;
    qnet_conn *conn;
    int (*make)(qnet_conn *conn);
    int began;
    int done;
    int result;
};

static void *call_body(void *argument)
{
    struct call *call = argument;

    put(&call->began, 1);
    call->result = call->make(call->conn);
    put(&call->done, 1);
    return NULL;
}

static void call_start(struct call *call, qnet_conn *conn, int (*make)(qnet_conn *))
{
    memset(call, 0, sizeof *call);
    call->conn = conn;
    call->make = make;
    start_thread(&call->thread, call_body, call);
    EVENTUALLY(get(&call->began));
}

/* That it has not returned, after a time in which it would have. */
static void call_waits(struct call *call)
{
    raw_sleep_ms(50 * check_slow());
    CHECK(!get(&call->done));
}

static int call_result(struct call *call)
{
    EVENTUALLY(get(&call->done));
    join_thread(call->thread);
    return call->result;
}

/*
 * Sends until the socket stays full (TCP's buffers grow for a while) and has
 * taken, over a Unix socket, only a part of a frame; how many frames were
 * taken. From then on sends do not wait.
 */
static unsigned stuff(qnet_conn *conn)
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

static const struct {
    const char *name;
    int (*make)(qnet_conn *conn);
    int result;
    int stuffed;
} blocked_calls[] = {
    { "send", make_send, QNET_ERR_CLOSED, 1 },
    { "send_batch", make_send_batch, QNET_ERR_CLOSED, 1 },
    { "send_packed", make_send_packed, QNET_ERR_CLOSED, 1 },
    { "flush", qnet_flush, QNET_ERR_CLOSED, 1 },
    { "recv", make_recv, QNET_ERR_CLOSED, 0 },
    { "recv_batch", make_recv_batch, QNET_ERR_CLOSED, 0 },
    { "recv_packed", make_recv_packed, QNET_ERR_CLOSED, 0 },
    { "wait", make_wait, QNET_OK, 0 },
    { "poll", make_poll, 1, 0 },
};
enum { BLOCKED_CALLS = sizeof blocked_calls / sizeof *blocked_calls };

static void wake_blocked_calls(int (*end)(qnet_conn *conn), int half_close)
{
    struct call call;
    int fd, i;

    for (i = 0; i < BLOCKED_CALLS; i++) {
        qnet_conn *conn = raw_pair(&fd);

        if (half_close && blocked_calls[i].stuffed)
            continue;
        scene("blocked", blocked_calls[i].name, UNREAD);
        CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 20), QNET_OK);
        if (blocked_calls[i].stuffed) {
            stuff(conn);
            CHECK_INT(qnet_flush(conn), QNET_ERR_AGAIN);
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
        }
        call_start(&call, conn, blocked_calls[i].make);
        call_waits(&call);
        if (half_close)
            go_half(fd, conn);
        else
            CHECK_INT(end(conn), QNET_OK);
        CHECK_INT(call_result(&call), blocked_calls[i].result);
        qnet_close(conn);
        close(fd);
    }
}

static void close_wakes_blocked_calls(void)
{
    wake_blocked_calls(qnet_close, 0);
}

static void shutdown_wakes_blocked_calls(void)
{
    wake_blocked_calls(qnet_shutdown, 0);
}

static void leaving_peer_wakes_blocked_calls(void)
{
    wake_blocked_calls(NULL, 1);
}

struct accepting {
    pthread_t thread;
    qnet_listener *listener;
    int began;
    int result;
};

static void *accepting_body(void *argument)
{
    struct accepting *accepting = argument;
    qnet_conn *conn = NULL;

    put(&accepting->began, 1);
    accepting->result = qnet_accept(accepting->listener, -1, &conn);
    CHECK(conn == NULL);
    return NULL;
}

static void listener_close_wakes_every_accept(void)
{
    struct accepting accepting[3];
    qnet_listener *listener = NULL;
    int i;

    CHECK_INT(qnet_listen("tcp", "127.0.0.1:0", &listener), QNET_OK);
    for (i = 0; i < 3; i++) {
        accepting[i].listener = listener;
        accepting[i].began = 0;
        start_thread(&accepting[i].thread, accepting_body, &accepting[i]);
        EVENTUALLY(get(&accepting[i].began));
    }
    raw_sleep_ms(50 * check_slow());
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    for (i = 0; i < 3; i++) {
        join_thread(accepting[i].thread);
        CHECK_INT(accepting[i].result, QNET_ERR_CLOSED);
    }
}

/* ---- Waiting for handlers, or not ---- */

static int stop_handler(qnet_conn *conn)
{
    return qnet_set_handler(conn, NULL, NULL);
}

static int stop_batch_handler(qnet_conn *conn)
{
    return qnet_set_batch_handler(conn, NULL, NULL);
}

static const struct {
    const char *name;
    int (*make)(qnet_conn *conn);
    int ends;
} waiting_calls[] = {
    { "close", qnet_close, 1 },
    { "set_handler", stop_handler, 0 },
    { "set_batch_handler", stop_batch_handler, 0 },
};
enum { WAITING_CALLS = sizeof waiting_calls / sizeof *waiting_calls };

/* With `waits` 1 they return when the handler call is over, with 0 while it goes on. */
static void calls_against_a_handler_call(int waits)
{
    struct watch watch;
    struct call call;
    int fd, i, mode;

    for (i = 0; i < WAITING_CALLS; i++) {
        for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
            qnet_conn *conn = raw_pair(&fd);

            scene(waits ? "waits" : "does not wait", waiting_calls[i].name, mode);
            CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, waits), QNET_OK);
            send_some(fd);
            watch_start_stuck(&watch, conn, mode);
            call_start(&call, conn, waiting_calls[i].make);
            if (waits) {
                call_waits(&call);
                CHECK_INT(taker_ends(&watch.taker), 0);
                put(&watch.shut, 0);
                CHECK_INT(call_result(&call), QNET_OK);
                CHECK_INT(get(&watch.returned), 1);
                CHECK_INT(taker_ends(&watch.taker), waiting_calls[i].ends);
            } else {
                CHECK_INT(call_result(&call), QNET_OK);
                CHECK_INT(get(&watch.returned), 0);
                CHECK_INT(taker_ends(&watch.taker), 0);
                put(&watch.shut, 0);
            }
            EVENTUALLY(taker_ends(&watch.taker) == waiting_calls[i].ends);
            CHECK_INT(get(&watch.calls), 1);
            if (waiting_calls[i].ends)
                watch_told_where(&watch, mode);
            else
                CHECK_INT(qnet_close(conn), QNET_OK);
            EVENTUALLY(taker_ends(&watch.taker) == 1);
            CHECK_INT(get(&watch.calls), 1);
            close(fd);
        }
    }
}

static void calls_wait_for_the_handler(void)
{
    struct footprint before = footprint_now();

    calls_against_a_handler_call(1);
    footprint_again(before);
}

static void calls_do_not_wait_if_told_so(void)
{
    struct footprint before = footprint_now();

    calls_against_a_handler_call(0);
    footprint_again(before);
}

/* Shutdown does not wait for the handler; no call begins after it, though frames wait. */
static void no_handler_call_after_shutdown(void)
{
    struct watch watch;
    unsigned frames;
    int fd, mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        scene("shutdown", "handler in a call", mode);
        send_some(fd);
        watch_start_stuck(&watch, conn, mode);
        frames = taker_count(&watch.taker);
        send_some(fd);
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
        CHECK_INT(get(&watch.returned), 0);
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        put(&watch.shut, 0);
        CHECK_INT(qnet_wait(conn, -1), QNET_OK);
        watch_told(&watch, frames, QNET_ERR_CLOSED);
        CHECK_INT(get(&watch.calls), 1);
        CHECK(raw_ended(fd));
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* A wait that is going on then comes to its end. */
static void wait_outlasts_a_close_that_does_not(void)
{
    struct watch watch;
    struct call call;
    int fd, mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 0), QNET_OK);
        send_some(fd);
        watch_start_stuck(&watch, conn, mode);
        call_start(&call, conn, make_wait);
        call_waits(&call);
        CHECK_INT(qnet_close(conn), QNET_OK);
        put(&watch.shut, 0);
        CHECK_INT(call_result(&call), QNET_OK);
        EVENTUALLY(taker_ends(&watch.taker) == 1);
        close(fd);
    }
}

/* While one close waits for the handler, the other one is told that it comes second. */
static void second_close_is_told_at_once(void)
{
    struct watch watch;
    struct call calls[2];
    int fd, first;
    qnet_conn *conn = raw_pair(&fd);

    send_some(fd);
    watch_start_stuck(&watch, conn, BY_HANDLER);
    call_start(&calls[0], conn, qnet_close);
    call_start(&calls[1], conn, qnet_close);
    EVENTUALLY(get(&calls[0].done) || get(&calls[1].done));
    first = get(&calls[0].done);
    CHECK_INT(call_result(&calls[1 - first]), QNET_ERR_HANDLE);
    call_waits(&calls[first]);
    put(&watch.shut, 0);
    CHECK_INT(call_result(&calls[first]), QNET_OK);
    CHECK_INT(taker_ends(&watch.taker), 1);
    close(fd);
}

/* ---- What closing drains and writes ---- */

/* A connection over TCP or a Unix socket, for tests that need not be run over every kind. */
static qnet_conn *open_over(int tcp, int *fd)
{
    qnet_conn *conn = NULL;
    char address[40];
    int port, listener;

    if (!tcp)
        return raw_pair(fd);
    listener = raw_tcp_listen(&port);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    CHECK_INT(qnet_dial("tcp", address, &conn), QNET_OK);
    *fd = accept_only(listener);
    return conn;
}

/* A peer that stands in the middle of writing a frame, as QEMU does, because nobody reads. */
struct writer {
    pthread_t thread;
    int fd;
    size_t left; /* of the frame */
};

/* Writes frames as far as the socket takes them; how much of the last one it did not. */
static size_t fill_until_blocked(int fd)
{
    static const uint8_t piece[1000];
    size_t size = 65535, left = 0;
    struct flow flow = flow_of_one_size(&size);
    struct bundle bundle = bundle_make(&flow, 1);
    struct pollfd writable = { 0, POLLOUT, 0 };

    writable.fd = fd;
    while (poll(&writable, 1, 100) == 1) {
        size_t part;
        ssize_t n;

        if (left == 0)
            left = bundle.len;
        part = left < sizeof piece ? left : sizeof piece;
        n = send(fd, bundle.wire + bundle.len - left, part, MSG_NOSIGNAL | MSG_DONTWAIT);
        CHECK(n > 0 || errno == EAGAIN);
        if (n > 0)
            left -= (size_t)n;
    }
    bundle_free(&bundle);
    CHECK(left > 0 && left < size);
    return left;
}

/* The write that was blocked comes to its end, and then the peer sees an orderly one. */
static void *writer_body(void *argument)
{
    struct writer *writer = argument;
    uint8_t *rest = allocate(writer->left);
    char byte;

    memset(rest, 0, writer->left);
    raw_write(writer->fd, rest, writer->left);
    CHECK(raw_readable(writer->fd, patience_ms()));
    CHECK_INT(recv(writer->fd, &byte, 1, 0), 0);
    free(rest);
    return NULL;
}

static void writer_start(struct writer *writer, int fd)
{
    writer->fd = fd;
    writer->left = fill_until_blocked(fd);
    start_thread(&writer->thread, writer_body, writer);
}

static int linger(qnet_conn *conn, int ms)
{
    return qnet_set(conn, QNET_OPT_LINGER_MS, ms);
}

/* The frame handler that ends its connection while the peer is in the middle of a write. */
struct drainer {
    qnet_conn *conn;
    int (*end)(qnet_conn *conn);
    int fd;
    struct writer writer;
    int result;
    int done;
};

static void drainer_frame(void *user, const uint8_t *frame, size_t len)
{
    struct drainer *drainer = user;

    (void)frame;
    (void)len;
    writer_start(&drainer->writer, drainer->fd);
    put(&drainer->result, drainer->end(drainer->conn));
    put(&drainer->done, 1);
}

static void drain_from_handler(int (*end)(qnet_conn *conn), int tcp)
{
    struct drainer drainer;

    memset(&drainer, 0, sizeof drainer);
    drainer.conn = open_over(tcp, &drainer.fd);
    drainer.end = end;
    CHECK_INT(linger(drainer.conn, patience_ms()), QNET_OK);
    send_some(drainer.fd);
    CHECK_INT(qnet_set_handler(drainer.conn, drainer_frame, &drainer), QNET_OK);
    EVENTUALLY(get(&drainer.done));
    CHECK_INT(drainer.result, QNET_OK);
    join_thread(drainer.writer.thread);
    CHECK_INT(qnet_close(drainer.conn), end == qnet_close ? QNET_ERR_HANDLE : QNET_OK);
    close(drainer.fd);
}

/* Ends a connection that was not received from at all, or only by one call. */
static void drain_from_outside(int (*end)(qnet_conn *conn), int tcp, int mode)
{
    struct writer writer;
    struct watch watch;
    long long began;
    int fd;
    qnet_conn *conn = open_over(tcp, &fd);

    CHECK_INT(linger(conn, patience_ms()), QNET_OK);
    watch_start(&watch, conn, mode);
    send_some(fd);
    if (mode != UNREAD)
        CHECK(taker_pull(&watch.taker, -1) > 0);
    writer_start(&writer, fd);
    began = raw_now_ms();
    CHECK_INT(end(conn), QNET_OK);
    join_thread(writer.thread);
    CHECK(raw_now_ms() - began < patience_ms());
    if (end != qnet_close)
        CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

static void blocked_peer_finishes_its_write(void)
{
    static int (*const ends[])(qnet_conn *) = { qnet_close, qnet_shutdown };
    struct footprint before = footprint_now();
    int i, tcp, mode;

    for (i = 0; i < 2; i++) {
        for (tcp = 0; tcp < 2; tcp++) {
            scene(i ? "shutdown drains" : "close drains", tcp ? "tcp" : "unix", BY_HANDLER);
            drain_from_handler(ends[i], tcp);
            for (mode = 0; mode < WAYS_TO_PULL; mode++)
                drain_from_outside(ends[i], tcp, mode);
            drain_from_outside(ends[i], tcp, UNREAD);
        }
    }
    footprint_again(before);
}

/* With nothing unread and nothing unwritten, closing takes no part of the time it may take. */
static void idle_connection_closes_at_once(void)
{
    int soon_ms = 500 * check_slow();
    struct watch watch;
    long long began;
    int fd, tcp, mode;

    for (tcp = 0; tcp < 2; tcp++) {
        for (mode = 0; mode < MODES; mode++) {
            qnet_conn *conn = open_over(tcp, &fd);

            scene("idle", tcp ? "tcp" : "unix", mode);
            CHECK_INT(linger(conn, 20 * soon_ms), QNET_OK);
            watch_start(&watch, conn, mode);
            if (mode != UNREAD) {
                send_some(fd);
                taker_want(&watch.taker, FRAMES);
            }
            began = raw_now_ms();
            CHECK_INT(qnet_close(conn), QNET_OK);
            CHECK(raw_now_ms() - began < soon_ms);
            CHECK(raw_ended(fd));
            CHECK(raw_now_ms() - began < soon_ms);
            close(fd);
        }
    }
}

/* What was taken is still written, and then comes the end, when the peer reads in time. */
static void closing_writes_what_was_taken(void)
{
    static int (*const ends[])(qnet_conn *) = { qnet_close, qnet_shutdown };
    static const size_t sizes[] = { 60000, 1514, 9000 }; /* as stuff() does */
    struct flow flow = { sizes, 3, 0 };
    struct raw_job reader;
    unsigned taken;
    int fd, i, tcp;

    for (i = 0; i < 2; i++) {
        for (tcp = 0; tcp < 2; tcp++) {
            qnet_conn *conn = open_over(tcp, &fd);

            CHECK_INT(linger(conn, patience_ms()), QNET_OK);
            taken = stuff(conn);
            memset(&reader, 0, sizeof reader);
            reader.fd = fd;
            reader.flow = flow;
            reader.count = taken;
            reader.delay_ms = 50;
            start_thread(&reader.thread, raw_reading, &reader);
            CHECK_INT(ends[i](conn), QNET_OK);
            join_thread(reader.thread);
            CHECK(raw_ended(fd));
            if (i == 1) {
                EVENTUALLY(stats_of(conn).tx_frames == taken);
                CHECK_INT(stats_of(conn).tx_dropped, 0);
                CHECK_INT(qnet_close(conn), QNET_OK);
            }
            close(fd);
        }
    }
}

/* What keeps closing from being done at once. */
static void never_reads(qnet_conn *conn, int fd)
{
    (void)fd;
    stuff(conn);
    CHECK_INT(qnet_flush(conn), QNET_ERR_AGAIN);
}

static void never_finishes_its_frame(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\0\0\0\074 only a part of the sixty bytes", 20);
}

static void never_finishes_its_header(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\0\0", 2);
}

static void stays_blocked(qnet_conn *conn, int fd)
{
    (void)conn;
    fill_until_blocked(fd);
}

static const struct {
    const char *name;
    void (*obstruct)(qnet_conn *conn, int fd);
    int only_unix;
} obstacles[] = {
    { "never reads", never_reads, 1 },
    { "never finishes its frame", never_finishes_its_frame, 0 },
    { "never finishes its header", never_finishes_its_header, 0 },
    { "stops in the middle of a frame", stays_blocked, 0 },
};
enum { OBSTACLES = sizeof obstacles / sizeof *obstacles };

/* The time allowed is used, and bounds it. */
static void linger_bounds_closing(void)
{
    static const int times[] = { 0, LINGER_SHORT_MS };
    struct footprint before = footprint_now();
    long long began, took;
    int fd, i, t, tcp;

    for (i = 0; i < OBSTACLES; i++) {
        for (t = 0; t < 2; t++) {
            for (tcp = 0; tcp + obstacles[i].only_unix < 2; tcp++) {
                qnet_conn *conn = open_over(tcp, &fd);

                scene(obstacles[i].name, tcp ? "tcp" : "unix", UNREAD);
                CHECK_INT(linger(conn, times[t]), QNET_OK);
                obstacles[i].obstruct(conn, fd);
                began = raw_now_ms();
                CHECK_INT(qnet_close(conn), QNET_OK);
                took = raw_now_ms() - began;
                CHECK(took >= times[t] - 1);
                CHECK(took < times[t] + 5000 * check_slow());
                close(fd);
            }
        }
    }
    footprint_again(before);
}

/* After a shutdown a library thread gives up as late: what is not written then is counted. */
static void linger_bounds_shutdown(void)
{
    struct footprint before = footprint_now();
    qnet_stats stats;
    unsigned taken;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(linger(conn, LINGER_SHORT_MS), QNET_OK);
    taken = stuff(conn);
    CHECK_INT(qnet_flush(conn), QNET_ERR_AGAIN);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_wait(conn, 0), QNET_OK);
    EVENTUALLY(stats_of(conn).tx_frames + stats_of(conn).tx_dropped == taken);
    stats = stats_of(conn);
    CHECK(stats.tx_dropped >= 1);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
    footprint_again(before);
}

/* Then the peer sees the end, though it has not finished its frame. */
static void shutdown_gives_up_draining(void)
{
    struct footprint before = footprint_now();
    int fd, tcp;

    for (tcp = 0; tcp < 2; tcp++) {
        qnet_conn *conn = open_over(tcp, &fd);

        CHECK_INT(linger(conn, LINGER_SHORT_MS), QNET_OK);
        never_finishes_its_frame(conn, fd);
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
        CHECK(raw_ended(fd));
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
    footprint_again(before);
}

static void *write_for_ever(void *argument)
{
    static const uint8_t frame[RAW_PREFIX + 60] = { 0, 0, 0, 60 };

    while (send(*(int *)argument, frame, sizeof frame, MSG_NOSIGNAL) > 0)
        ;
    return NULL;
}

/* A peer that never stops writing does not keep a connection from closing. */
static void linger_bounds_a_talkative_peer(void)
{
    static int (*const ends[])(qnet_conn *) = { qnet_close, qnet_shutdown };
    pthread_t thread;
    int fd, i, read;

    for (i = 0; i < 2; i++) {
        for (read = 0; read < 2; read++) {
            qnet_conn *conn = raw_pair(&fd);

            scene("talkative peer", i ? "shutdown" : "close", read ? BY_HANDLER : UNREAD);
            CHECK_INT(linger(conn, 100), QNET_OK);
            if (read)
                CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
            start_thread(&thread, write_for_ever, &fd);
            raw_sleep_ms(10);
            CHECK_INT(ends[i](conn), QNET_OK);
            join_thread(thread);
            if (i == 1)
                CHECK_INT(qnet_close(conn), QNET_OK);
            close(fd);
        }
    }
}

/* Nor for as long as closing may take: it is left between two frames. */
static void talkative_peer_is_left(void)
{
    static int (*const ends[])(qnet_conn *) = { qnet_close, qnet_shutdown };
    struct footprint before = footprint_now();
    pthread_t thread;
    int fd, i, tcp;

    for (i = 0; i < 2; i++) {
        for (tcp = 0; tcp < 2; tcp++) {
            qnet_conn *conn = open_over(tcp, &fd);

            scene("talkative peer", tcp ? "tcp" : "unix", UNREAD);
            CHECK_INT(linger(conn, 3600 * 1000), QNET_OK);
            start_thread(&thread, write_for_ever, &fd);
            CHECK(raw_readable(qnet_fd(conn), patience_ms()));
            CHECK_INT(ends[i](conn), QNET_OK);
            join_thread(thread);
            if (i == 1)
                CHECK_INT(qnet_close(conn), QNET_OK);
            close(fd);
        }
    }
    footprint_again(before);
}

int main(void)
{
    RUN_EACH(peer_ends);
    RUN(frames_come_after_a_failed_send);
    RUN_EACH(this_side_ends);
    RUN_EACH_TCP(what_was_sent_arrives_though_the_peer_speaks);
    RUN(a_broken_length_behind_what_was_pulled);
    RUN(number_stays_after_shutdown);
    RUN(loan_outlives_the_end);
    RUN(close_handler_set_after_the_end);
    RUN(close_handler_replaced);
    RUN(close_handler_closes_its_connection);
    RUN(handler_acts_on_its_own);
    RUN(handler_ends_another);
    RUN(handler_closes_another_in_a_call);
    RUN(handler_waits_for_another);
    RUN(two_handlers_close_each_other);
    RUN(wait_keeps_to_its_time);
    RUN(wait_includes_the_close_handler);
    RUN(close_wakes_blocked_calls);
    RUN(shutdown_wakes_blocked_calls);
    RUN(leaving_peer_wakes_blocked_calls);
    RUN(listener_close_wakes_every_accept);
    RUN(calls_wait_for_the_handler);
    RUN(calls_do_not_wait_if_told_so);
    RUN(wait_outlasts_a_close_that_does_not);
    RUN(no_handler_call_after_shutdown);
    RUN(second_close_is_told_at_once);
    RUN(blocked_peer_finishes_its_write);
    RUN(idle_connection_closes_at_once);
    RUN(closing_writes_what_was_taken);
    RUN(linger_bounds_closing);
    RUN(linger_bounds_shutdown);
    RUN(shutdown_gives_up_draining);
    RUN(linger_bounds_a_talkative_peer);
    RUN(talkative_peer_is_left);
    return check_done();
}
