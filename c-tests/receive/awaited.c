/*
 * awaited.c - qnet_recv() of a frame that comes while it waits takes a short path, if the
 * last read has left nothing. The other ways to receive never do, so that all of them have
 * to give the same.
 */
#include "receiving.h"

/* ---- A thread that receives until something fails ---- */

struct waiter {
    struct taker taker;
    struct flow expected;
    pthread_t thread;
    int tid, timeout_ms, result, over;
};

static void *waiting(void *argument)
{
    struct waiter *waiter = argument;
    int result;

    put(&waiter->tid, this_thread());
    do
        result = taker_pull(&waiter->taker, waiter->timeout_ms);
    while (result > 0);
    waiter->result = result;
    put(&waiter->over, 1);
    return NULL;
}

/* Starts one that has found nothing left before it waits. */
static void waiter_start(struct waiter *waiter, qnet_conn *conn, int way, int timeout_ms, struct flow expected)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->expected = expected;
    waiter->timeout_ms = timeout_ms;
    taker_start(&waiter->taker, conn, way, flow_each, &waiter->expected);
    CHECK_INT(taker_pull(&waiter->taker, 0), QNET_ERR_AGAIN);
    start_thread(&waiter->thread, waiting, waiter);
}

/* Returns once it sleeps in its call, or is over. */
static void waiter_sleeps(struct waiter *waiter)
{
    EVENTUALLY(get(&waiter->over) || (get(&waiter->tid) && is_asleep(get(&waiter->tid))));
}

/* The thread has to end by that code. */
static void waiter_ends(struct waiter *waiter, int code)
{
    join_thread(waiter->thread);
    CHECK_INT(waiter->result, code);
}

/* ---- What comes while it waits ---- */

/* A frame as a whole, several at once, in parts with a pause between, and behind runts. */
static void write_some(int fd, struct waiter *waiter, struct flow *flow, unsigned *state)
{
    size_t count = random_below(state, 4) ? 1 : 1 + random_below(state, 40), cut;
    struct bundle bundle = bundle_make(flow, count);

    if (random_below(state, 8) == 0)
        raw_send(fd, "a runt", random_below(state, 7));
    cut = random_below(state, 3) ? 0 : 1 + random_below(state, (unsigned)bundle.len - 1);
    if (cut) {
        raw_write(fd, bundle.wire, cut);
        waiter_sleeps(waiter);
    }
    raw_write(fd, bundle.wire + cut, bundle.len - cut);
    flow->next += (unsigned)count;
    bundle_free(&bundle);
}

static void the_same_frames_in_every_way(void)
{
    static const size_t small = 64, long_size = 9000;
    int way, which, i, runts[WAYS_TO_PULL];

    for (which = 0; which < 3; which++)
        for (way = 0; way < WAYS_TO_PULL; way++) {
            struct flow flow = which == 0   ? flow_of_one_size(&small)
                               : which == 1 ? flow_of_one_size(&long_size)
                                            : flow_of_small_frames();
            struct waiter waiter;
            unsigned state = 1 + (unsigned)which;
            int fd;
            qnet_conn *conn = raw_pair(&fd);

            waiter_start(&waiter, conn, way, random_below(&state, 2) ? -1 : patience_ms(), flow);
            for (i = 0; i < rounds(1500); i++) {
                if (random_below(&state, 4))
                    waiter_sleeps(&waiter);
                write_some(fd, &waiter, &flow, &state);
            }
            CHECK(shutdown(fd, SHUT_WR) == 0);
            waiter_ends(&waiter, QNET_ERR_CLOSED);
            CHECK_INT(waiter.expected.next, flow.next);
            CHECK_INT(stats_of(conn).rx_frames, flow.next);
            runts[way] = (int)stats_of(conn).rx_runts;
            CHECK(runts[way] > 0);
            CHECK_INT(runts[way], runts[BY_RECV]);
            taker_close(&waiter.taker);
            close(fd);
        }
}

/* ---- How a wait ends without a frame ---- */

static qnet_hub *hub;

static void by_peer(qnet_conn *conn, int fd)
{
    (void)conn;
    CHECK(shutdown(fd, SHUT_RDWR) == 0);
}

static void by_peer_inside(qnet_conn *conn, int fd)
{
    raw_send_part(fd, 64, 63);
    by_peer(conn, fd);
}

static void by_peer_behind_runts(qnet_conn *conn, int fd)
{
    raw_send(fd, "13 bytes long", 13);
    by_peer(conn, fd);
}

static void by_a_length(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\377\0\0\0 and more", 13);
}

static void by_handler(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
}

static void by_hub(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
}

static void by_close(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void by_time(qnet_conn *conn, int fd)
{
    (void)conn;
    (void)fd;
}

static void the_same_code_in_every_way(void)
{
    static const struct {
        void (*end)(qnet_conn *conn, int fd);
        int code, timeout_ms;
    } ends[] = {
        { by_peer, QNET_ERR_CLOSED, -1 },
        { by_peer_inside, QNET_ERR_PROTOCOL, -1 },
        { by_peer_behind_runts, QNET_ERR_CLOSED, 60000 },
        { by_a_length, QNET_ERR_PROTOCOL, -1 },
        { prepare_shutdown, QNET_ERR_CLOSED, -1 },
        { by_handler, QNET_ERR_BUSY, 60000 },
        { by_hub, QNET_ERR_BUSY, -1 },
        { by_close, QNET_ERR_CLOSED, -1 },
        { by_time, QNET_ERR_TIMEOUT, 20 },
    };
    size_t e;
    int way, round;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    for (e = 0; e < sizeof ends / sizeof *ends; e++)
        for (way = 0; way < WAYS_TO_PULL; way++)
            for (round = 0; round < rounds(10); round++) {
                struct flow flow = flow_of_small_frames(), expected = flow;
                struct waiter waiter;
                int fd;
                qnet_conn *conn = raw_pair(&fd);

                waiter_start(&waiter, conn, way, ends[e].timeout_ms, expected);
                raw_send_flow(fd, &flow, (size_t)round % 3, 0);
                if (round % 2)
                    waiter_sleeps(&waiter);
                EVENTUALLY(taker_count(&waiter.taker) == flow.next);
                if (round % 2 || ends[e].end == by_close) /* a handle that is closed before the call is none */
                    waiter_sleeps(&waiter);
                ends[e].end(conn, fd);
                waiter_ends(&waiter, ends[e].code);
                if (ends[e].end != by_close)
                    CHECK_INT(qnet_close(conn), QNET_OK);
                CHECK_INT(qnet_close(conn), QNET_ERR_HANDLE);
                close(fd);
            }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/* A frame that has no room stays, is told of by its length, and is received then. */
static void a_frame_without_room_stays(void)
{
    static const size_t size = 300;
    struct flow flow = flow_of_one_size(&size), expected = flow;
    uint8_t buffer[300];
    char words[80];
    int fd;
    struct raw_job writer;
    qnet_conn *conn = raw_pair(&fd);

    while (flow.next < (unsigned)rounds(200)) {
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        raw_start(&writer, raw_writing, fd, flow, 1);
        flow.next++;
        CHECK_INT(qnet_recv(conn, buffer, size - 1, -1), QNET_ERR_FRAME_SIZE);
        snprintf(words, sizeof words, "a buffer of %zu bytes for %zu", size - 1, size);
        CHECK(strstr(qnet_last_error(), words) != NULL);
        CHECK_INT(qnet_recv(conn, buffer, size, -1), size);
        flow_take(&expected, buffer, size);
        join_thread(writer.thread);
    }
    CHECK_INT(stats_of(conn).rx_frames, flow.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* ---- Others ---- */

/* Many threads wait, and as many frames come in one write: each gets one, though one thread reads all. */
static void what_one_reads_is_for_all(void)
{
    enum { WAITERS = 4 };
    struct caller callers[WAITERS];
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size);
    int round, i, fd;
    qnet_conn *conn = raw_pair(&fd);
    uint8_t buffer[64];

    for (round = 0; round < rounds(300); round++) {
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        for (i = 0; i < WAITERS; i++)
            caller_start(&callers[i], call_recv, conn);
        raw_send_flow(fd, &flow, WAITERS, 0);
        for (i = 0; i < WAITERS; i++)
            CHECK_INT(caller_result(&callers[i]), size);
    }
    CHECK_INT(stats_of(conn).rx_frames, flow.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* A frame that one thread reads and has no room for is for one that waits, which cannot see it in the socket. */
static void what_one_has_no_room_for_is_for_all(void)
{
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size);
    struct caller caller;
    uint8_t small[20];
    int round, fd, got;
    qnet_conn *conn = raw_pair(&fd);

    for (round = 0; round < rounds(300); round++) {
        caller_start(&caller, call_recv, conn);
        raw_sleep_ms(round % 3);
        raw_send_flow(fd, &flow, 1, 0);
        got = round % 2 ? qnet_recv(conn, small, sizeof small, 0) : qnet_recv_packed(conn, small, sizeof small, 0);
        CHECK(got == QNET_ERR_FRAME_SIZE || got == QNET_ERR_AGAIN);
        CHECK_INT(caller_result(&caller), size);
    }
    CHECK_INT(stats_of(conn).rx_frames, flow.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* A capture that begins during the wait has the frame that ends it. */
static void a_capture_begins_during_the_wait(void)
{
    static const size_t size = 64;
    int way, round, fd, pipe_fds[2];

    for (way = 0; way < WAYS_TO_PULL; way++)
        for (round = 0; round < rounds(20); round++) {
            struct flow flow = flow_of_one_size(&size);
            struct waiter waiter;
            qnet_capture *capture;
            qnet_capture_stats stats;
            qnet_conn *conn = raw_pair(&fd);

            CHECK(pipe(pipe_fds) == 0);
            CHECK_INT(qnet_capture_open_fd(pipe_fds[1], NULL, 0, &capture), QNET_OK);
            waiter_start(&waiter, conn, way, -1, flow);
            waiter_sleeps(&waiter);
            CHECK_INT(qnet_capture_add(capture, conn, NULL), QNET_OK);
            raw_send_flow(fd, &flow, 1, 0);
            EVENTUALLY(taker_count(&waiter.taker) == 1);
            CHECK(qnet_capture_get_stats(capture, &stats, sizeof stats) > 0);
            CHECK_INT(stats.frames, 1);
            by_peer(conn, fd);
            waiter_ends(&waiter, QNET_ERR_CLOSED);
            taker_close(&waiter.taker);
            CHECK_INT(qnet_capture_close(capture), QNET_OK);
            close(pipe_fds[0]);
            close(fd);
        }
}

/* ---- Frames that another thread leaves ---- */

struct asker {
    qnet_conn *conn;
    int by_poll;
    pthread_t thread;
};

/* Reads, so that it knows whether there is a frame, and takes none. */
static void *asking(void *argument)
{
    struct asker *asker = argument;
    uint8_t ready;
    int result;

    do
        result = asker->by_poll ? qnet_poll(&asker->conn, &ready, 1, -1) : qnet_recv(asker->conn, NULL, 0, -1);
    while (result > 0 && qnet_close_reason(asker->conn) == QNET_OK);
    return NULL;
}

struct writer {
    int fd;
    struct flow flow;
    pthread_t thread;
};

/* Writes many frames, many at a time, and leaves. */
static void *writing(void *argument)
{
    struct writer *writer = argument;
    int i, times = rounds(20000);

    for (i = 0; i < times; i++) {
        unsigned count = 1 + (unsigned)i % 200;
        struct bundle bundle = bundle_make(&writer->flow, count);

        raw_write(writer->fd, bundle.wire, bundle.len);
        writer->flow.next += count;
        bundle_free(&bundle);
    }
    CHECK(shutdown(writer->fd, SHUT_WR) == 0);
    return NULL;
}

/* What it has read fills the buffer, and the next receive has to begin with that. */
static void what_another_thread_asks_for(void)
{
    int by_poll, i, result;

    for (by_poll = 0; by_poll < 2; by_poll++) {
        struct writer writer = { 0, flow_of_small_frames(), 0 };
        struct flow seen = writer.flow;
        struct asker asker;
        struct taker taker;

        asker.conn = raw_pair(&writer.fd);
        asker.by_poll = by_poll;
        taker_start(&taker, asker.conn, BY_RECV, flow_each, &seen);
        start_thread(&asker.thread, asking, &asker);
        start_thread(&writer.thread, writing, &writer);
        i = 0;
        do
            result = taker_pull(&taker, i++ % 2 ? 0 : -1);
        while (result > 0 || result == QNET_ERR_AGAIN);
        CHECK_INT(result, QNET_ERR_CLOSED);
        join_thread(writer.thread);
        join_thread(asker.thread);
        CHECK_INT(seen.next, writer.flow.next);
        taker_close(&taker);
        close(writer.fd);
    }
}

int main(void)
{
    RUN(the_same_frames_in_every_way);
    RUN(the_same_code_in_every_way);
    RUN(a_frame_without_room_stays);
    RUN(what_one_reads_is_for_all);
    RUN(what_one_has_no_room_for_is_for_all);
    RUN(a_capture_begins_during_the_wait);
    RUN(what_another_thread_asks_for);
    return check_done();
}
