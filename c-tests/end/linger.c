/*
 * linger.c - what a close or a shutdown does first, and for how long: it writes
 * the frames that were taken, and drains what the peer is in the middle of
 * writing.
 */
#include "watch.h"

enum { LINGER_SHORT_MS = 300 };

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

/* A peer that is blocked in the middle of writing a frame, as QEMU is when nobody reads. */
struct writer {
    pthread_t thread;
    int fd;
    size_t left; /* bytes of the frame that are not written yet */
};

/* Writes frames until the socket is full: returns how many bytes of the last one are left. */
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

/* Finishes the blocked write, and then sees an orderly end of the stream. */
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

/* With nothing unread and nothing unwritten, a close uses none of its linger time. */
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

/* Frames that were taken are written before the stream ends, if the peer reads in time. */
static void closing_writes_what_was_taken(void)
{
    static int (*const ends[])(qnet_conn *) = { qnet_close, qnet_shutdown };
    static const size_t sizes[] = { 60000, 1514, 9000 }; /* the sizes that stuff() sends */
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

/* Ways in which a peer keeps a close from finishing at once. */
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

/* A close that is held up takes the linger time, and not much longer. */
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

/*
 * After a shutdown a library thread gives up when the linger time is over, and
 * counts what it did not write as dropped.
 */
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

/* When the linger time is over, the peer sees the end, though it has not finished its frame. */
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

/*
 * A peer that never stops writing does not use up the linger time: it is left
 * between two frames.
 */
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
