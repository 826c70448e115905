/*
 * end.c - how a connection ends. For every way to receive and every way in
 * which the peer leaves: what is reported, when, how often and on which thread.
 */
#include "watch.h"

static int pulled(int mode)
{
    return mode < WAYS_TO_PULL;
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

/* Checks, twice, that every call on an ended connection gives `reason` or still answers. */
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

/*
 * A broken length that was read together with frames ends the connection once
 * those frames are taken, without another receive.
 */
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

/* ---- The peer leaves ---- */

/*
 * A way in which the peer ends the connection; `go` returns the plain socket,
 * or -1 if it closed it.
 */
struct departure {
    const char *name;
    int (*go)(int fd, qnet_conn *conn);
    int reason;
    int stays; /* the peer stays: the end shows only when its bytes are read */
};

static int go(int fd, qnet_conn *conn)
{
    (void)conn;
    close(fd);
    return -1;
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

/* Checks that neither waiting nor polling runs the close handler while frames are waiting. */
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

/*
 * A send that fails because the peer is gone loses no received frame and does
 * not report the end.
 */
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

/* After a shutdown, unlike after a close, the handle stays and goes on giving the reason. */
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

/*
 * This side sends more than the peer's socket holds and shuts down; only then
 * does the peer write, and read after that.
 */
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
    /* Fails with EPIPE if everything was sent and this side has closed already. */
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

/* Ends a connection that has no close handler, so that its end is reported. */
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

/* Ends the connection by a shutdown, by a close or by the peer, so that its end is reported. */
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
    return check_done();
}
