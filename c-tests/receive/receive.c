/*
 * receive.c - what a program receives of the bytes that a plain socket writes: however
 * the stream is cut or ends, whatever lengths it states, and however long a receive
 * waits.
 */
#include <sys/epoll.h>

#include "receiving.h"

/* ---- The stream cut at every byte ---- */

/* After each byte, a receive gives the frame that is now whole, and otherwise nothing. */
static void byte_by_byte(void)
{
    struct flow flow = flow_of_small_frames();
    struct bundle bundle = bundle_make(&flow, 7);
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow expected = flow;
        size_t at, end = 0, frame = 0;
        struct taker taker;
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        for (at = 0; at < bundle.len; at++) {
            if (at == end)
                end += RAW_PREFIX + bundle.frames[frame++].len;
            raw_write(fd, bundle.wire + at, 1);
            CHECK_INT(taker_pull(&taker, 0), at + 1 == end ? 1 : QNET_ERR_AGAIN);
        }
        CHECK_INT(expected.next, 7);
        taker_close(&taker);
        close(fd);
    }
    bundle_free(&bundle);
}

/* Pulls until no frame is left. */
static void pull_all(struct taker *taker)
{
    int result;

    do
        result = taker_pull(taker, 0);
    while (result > 0);
    CHECK_INT(result, QNET_ERR_AGAIN);
}

/* Three frames in three writes, cut at every pair of places. */
static void cut_twice(void)
{
    static const size_t sizes[] = { 14, 15, 16 };
    struct flow flow = { sizes, 3, 0 };
    struct bundle bundle = bundle_make(&flow, 3);
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow expected = flow;
        struct taker taker;
        size_t i, j;
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        for (i = 1; i < bundle.len; i++)
            for (j = i + 1; j < bundle.len; j++) {
                expected.next = 0;
                raw_write(fd, bundle.wire, i);
                pull_all(&taker);
                raw_write(fd, bundle.wire + i, j - i);
                pull_all(&taker);
                raw_write(fd, bundle.wire + j, bundle.len - j);
                pull_all(&taker);
                CHECK_INT(expected.next, 3);
            }
        taker_close(&taker);
        close(fd);
    }
    bundle_free(&bundle);
}

/* Single bytes, one after another without a pause, by every way to receive. */
static void single_bytes(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow expected = flow_of_small_frames();
        struct raw_job writer;
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        memset(&writer, 0, sizeof writer);
        writer.fd = fd;
        writer.flow = expected;
        writer.count = 7;
        writer.step = 1;
        start_thread(&writer.thread, raw_writing, &writer);
        taker_want(&taker, 7);
        join_thread(writer.thread);
        close(fd);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

static void *one_write(void *argument)
{
    struct raw_job *job = argument;

    raw_send_flow(job->fd, &job->flow, job->count, 0);
    return NULL;
}

static void receive_written(void *(*writing)(void *), struct flow flow, unsigned count)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow expected = flow;
        struct raw_job writer;
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        raw_start(&writer, writing, fd, flow, count);
        taker_start(&taker, conn, way, flow_each, &expected);
        taker_want(&taker, count);
        join_thread(writer.thread);
        CHECK_INT(stats_of(conn).rx_frames, count);
        close(fd);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

static void many_frames_in_one_write(void)
{
    receive_written(one_write, flow_of_small_frames(), 500 + (unsigned)rounds(1500));
}

static void random_cuts(void)
{
    receive_written(random_writes, flow_of_all_sizes(), ALL_SIZES + (unsigned)rounds(140));
}

/* ---- The end of the stream ---- */

static void leave(int fd)
{
    CHECK(close(fd) == 0);
}

/* Once the end was reported, every receive and send returns its reason. */
static void check_ended(qnet_conn *conn, int reason)
{
    uint8_t buffer[100] = { 0 };
    qnet_frame frame;

    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), reason);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), reason);
    CHECK_INT(qnet_recv_batch(conn, &frame, 1, -1), reason);
    CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, 10), reason);
    CHECK_INT(qnet_send(conn, buffer, 14), reason);
    CHECK_INT(qnet_close_reason(conn), reason);
}

/* Writes three frames and `tail`, and ends the stream: the frames are received, then the end. */
static void check_end(qnet_conn *conn, int fd, int way, void (*end)(int), int want,
                      const void *tail, size_t tail_len)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;

    raw_send_flow(fd, &flow, 3, 0);
    if (tail_len > 0)
        raw_write(fd, tail, tail_len);
    if (end)
        end(fd);
    taker_start(&taker, conn, way, flow_each, &expected);
    CHECK_INT(taker_end(&taker), want);
    CHECK_INT(expected.next, 3);
    CHECK_INT(taker_count(&taker), 3);
    if (way < WAYS_TO_PULL)
        check_ended(conn, want);
    taker_close(&taker);
    if (end != leave)
        close(fd);
}

/* Ends the stream after every `step`th byte of a frame, and before its first. */
static void end_everywhere(qnet_conn *(*open)(int *fd), size_t step)
{
    static void (*const ends[])(int) = { leave, leave_half };
    uint8_t frame[RAW_PREFIX + 20] = { 0, 0, 0, 20, 'f' };
    size_t tail, i;
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (i = 0; i < 2; i++)
            for (tail = 0; tail < sizeof frame; tail += step) {
                int fd;
                qnet_conn *conn = open(&fd);

                check_end(conn, fd, way, ends[i],
                          tail > 0 ? QNET_ERR_PROTOCOL : QNET_ERR_CLOSED, frame, tail);
            }
}

static void end_at_every_byte(void)
{
    end_everywhere(raw_pair, 1);
}

static void end_in_header_and_body(void)
{
    end_everywhere(link_open, 3);
}

/* The stream ends in the middle of the longest frame, and of one that is too short. */
static void end_inside_other_frames(void)
{
    static const size_t cuts[][2] = {
        { QNET_FRAME_MAX, 1 }, { QNET_FRAME_MAX, 40000 }, { QNET_FRAME_MAX, QNET_FRAME_MAX - 1 },
        { 13, 12 }, { 5, 0 },
    };
    static uint8_t tail[RAW_PREFIX + QNET_FRAME_MAX];
    size_t i;
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            int fd;
            qnet_conn *conn = raw_pair(&fd);

            raw_put_length(tail, cuts[i][0]);
            check_end(conn, fd, way, leave, QNET_ERR_PROTOCOL, tail, RAW_PREFIX + cuts[i][1]);
        }
}

/* A length that is too large for any frame ends the connection, though the peer stays. */
static void lengths_too_long(void)
{
    static const unsigned lengths[] = {
        QNET_FRAME_MAX + 1, 0x00020000, 0x01000000, 0x7fffffff, 0x80000000, 0xffffffff,
    };
    uint8_t tail[RAW_PREFIX];
    size_t i;
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            int fd;
            qnet_conn *conn = link_open(&fd);

            raw_put_length(tail, lengths[i]);
            check_end(conn, fd, way, NULL, QNET_ERR_PROTOCOL, tail, sizeof tail);
        }
}

/* Nothing that follows a length that is too large is taken as a frame. */
static void nothing_after_a_broken_length(void)
{
    uint8_t tail[RAW_PREFIX + RAW_PREFIX + 14] = { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 14 };
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        check_end(conn, fd, way, leave, QNET_ERR_PROTOCOL, tail, sizeof tail);
    }
}

/*
 * A receive does not wait after a length that is too large, whether nothing follows it or
 * more bytes than any frame has.
 */
static void a_broken_length_is_found_at_once(void)
{
    static uint8_t lie[140000] = { 0xff, 0xff, 0xff, 0xff }, buffer[sizeof lie];
    static const size_t lens[] = { RAW_PREFIX, sizeof lie };
    size_t i;

    for (i = 0; i < sizeof lens / sizeof *lens; i++) {
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        raw_write(fd, lie, lens[i]);
        CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, 0), QNET_ERR_PROTOCOL);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Frames that are too short ---- */

static void runts_are_skipped(void)
{
    static uint8_t wire[32768];
    struct flow flow = flow_of_one_size(&short_frame);
    size_t len = put_runts(wire, &flow), at, i;
    const size_t steps[] = { 1, 5, len };
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (i = 0; i < 3; i++) {
            struct flow expected = flow;
            struct taker taker;
            int fd;
            qnet_conn *conn = raw_pair(&fd);

            taker_start(&taker, conn, way, flow_each, &expected);
            for (at = 0; at < len; at += steps[i])
                raw_write(fd, wire + at, steps[i] < len - at ? steps[i] : len - at);
            taker_want(&taker, 14);
            CHECK_INT(stats_of(conn).rx_runts, 14);
            CHECK_INT(stats_of(conn).rx_frames, 14);
            CHECK_INT(stats_of(conn).rx_bytes, 14 * short_frame);
            close(fd);
            CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
            taker_close(&taker);
        }
}

/* Thousands of empty frames give a receive nothing: it waits. */
static void nothing_but_runts(void)
{
    static uint8_t zeroes[RAW_PREFIX * 5000];
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        raw_write(fd, zeroes, sizeof zeroes);
        CHECK_INT(taker_pull(&taker, 0), QNET_ERR_AGAIN);
        CHECK_INT(stats_of(conn).rx_runts, 5000);
        raw_write(fd, zeroes, sizeof zeroes);
        CHECK_INT(taker_pull(&taker, 20), QNET_ERR_TIMEOUT);
        raw_write(fd, zeroes, sizeof zeroes);
        raw_send_flow(fd, &flow, 1, 0);
        CHECK_INT(taker_pull(&taker, patience_ms()), 1);
        CHECK_INT(stats_of(conn).rx_runts, 15000);
        taker_close(&taker);
        close(fd);
    }
}

/* The kind of a socket that can hold very much unread. */
struct deep {
    int family, kind;
};

/* Two sockets of that kind that are each other's peer. */
static void deep_pair(struct deep deep, int pair[2])
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int i;

    if (deep.family == AF_UNIX) {
        CHECK(socketpair(AF_UNIX, deep.kind | SOCK_CLOEXEC, 0, pair) == 0);
        return;
    }
    for (i = 0; i < 2; i++) {
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        pair[i] = socket(AF_INET, deep.kind | SOCK_CLOEXEC, 0);
        CHECK(bind(pair[i], (struct sockaddr *)&address, sizeof address) == 0);
    }
    for (i = 0; i < 2; i++) {
        CHECK(getsockname(pair[!i], (struct sockaddr *)&address, &len) == 0);
        CHECK(connect(pair[i], (struct sockaddr *)&address, len) == 0);
    }
}

/* Opens a connection on one of the sockets. The other is the plain one. */
static qnet_conn *deep_open(struct deep deep, int *fd)
{
    int pair[2], bytes = 32 << 20;
    qnet_conn *conn = NULL;

    deep_pair(deep, pair);
    CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
    if (setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0)
        CHECK(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
    *fd = pair[1];
    return conn;
}

enum { DEEP_BYTES = 4 << 20, DEEP_MESSAGES = 4000 };

/* Sends more runts than a few reads can take, and after them a frame of 64 bytes. */
static void deep_fill(struct deep deep, int fd)
{
    static uint8_t runts[DEEP_BYTES];
    struct flow flow = flow_of_one_size(&short_frame);
    uint8_t frame[64];
    int i;

    if (deep.kind == SOCK_STREAM) {
        if (send(fd, runts, sizeof runts, MSG_DONTWAIT) != sizeof runts)
            check_skip("no socket may hold so many bytes here");
        raw_send_flow(fd, &flow, 1, 0);
        return;
    }
    for (i = 0; i < DEEP_MESSAGES; i++)
        if (send(fd, runts, 1, MSG_DONTWAIT) != 1)
            check_skip("no socket may hold so many messages here");
    frame_make(frame, sizeof frame, 0);
    raw_write(fd, frame, sizeof frame);
}

/* Waits for one edge. Then one receive, or a poll and a receive, must find the frame. */
static void check_one_edge(struct deep deep, int way)
{
    struct flow expected = flow_of_one_size(&short_frame);
    struct epoll_event event = { EPOLLIN | EPOLLET, { NULL } };
    int fd, set = epoll_create1(EPOLL_CLOEXEC);
    qnet_conn *conn = deep_open(deep, &fd);
    struct taker taker;
    uint8_t ready;

    taker_start(&taker, conn, way % WAYS_TO_PULL, flow_each, &expected);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, qnet_fd(conn), &event) == 0);
    CHECK_INT(epoll_wait(set, &event, 1, 0), 0);
    deep_fill(deep, fd);
    CHECK_INT(epoll_wait(set, &event, 1, 0), 1);
    if (way == WAYS_TO_PULL)
        CHECK_INT(qnet_poll(&conn, &ready, 1, 0), 1);
    if (taker_pull(&taker, 0) != 1) {
        if (deep.family == AF_INET && stats_of(conn).rx_runts < DEEP_MESSAGES && !bytes_waiting(qnet_fd(conn)))
            check_skip("UDP has lost some");
        CHECK_INT(taker_count(&taker), 1);
    }
    CHECK_INT(taker_pull(&taker, 0), QNET_ERR_AGAIN);
    taker_close(&taker);
    close(fd);
    close(set);
}

/*
 * An edge reports all that came before it. So a receive that returns AGAIN, or a poll
 * that finds nothing, must have read all of that, however many runts there were.
 */
static void one_edge_before_many_runts(void)
{
    static const struct deep deep[] = {
        { AF_UNIX, SOCK_STREAM }, { AF_UNIX, SOCK_SEQPACKET }, { AF_INET, SOCK_DGRAM },
    };
    int i, way;

    for (i = 0; i < 3; i++)
        for (way = 0; way <= WAYS_TO_PULL; way++)
            check_one_edge(deep[i], way);
}

/* ---- One frame at a time ---- */

/* A frame is kept if the buffer is too small for it, or if only its length is asked for. */
static void buffer_too_small(void)
{
    struct flow flow = flow_of_all_sizes(), expected = flow;
    struct raw_job writer;
    uint8_t *buffer = allocate(QNET_FRAME_MAX);
    unsigned i;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    raw_start(&writer, raw_writing, fd, flow, ALL_SIZES);
    for (i = 0; i < ALL_SIZES; i++) {
        size_t len = flow_size(&flow, i);

        CHECK_INT(qnet_recv(conn, NULL, 0, -1), len);
        CHECK_INT(qnet_recv(conn, buffer, 0, 0), len);
        CHECK_INT(qnet_recv(conn, buffer, 1, -1), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv(conn, buffer, len - 1, 0), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv_packed(conn, buffer, len + 3, 0), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv(conn, buffer, len, 0), len);
        flow_take(&expected, buffer, len);
    }
    CHECK_INT(qnet_recv(conn, NULL, 0, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_recv(conn, NULL, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(stats_of(conn).rx_frames, ALL_SIZES);
    join_thread(writer.thread);
    CHECK_INT(qnet_close(conn), QNET_OK);
    free(buffer);
}

/* Not a byte beyond the frame is touched, however large the buffer. */
static void buffer_beyond_the_frame(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    uint8_t buffer[2000];
    int fd, i;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &flow, 7, 0);
    for (i = 0; i < 7; i++) {
        size_t len = flow_size(&flow, (unsigned)i), at;

        memset(buffer, 0xaa, sizeof buffer);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), len);
        flow_take(&expected, buffer, len);
        for (at = len; at < sizeof buffer; at++)
            CHECK_INT(buffer[at], 0xaa);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* ---- Time ---- */

static void timeouts(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct raw_job writer;
        struct taker taker;
        long long before;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        CHECK_INT(taker_pull(&taker, 0), QNET_ERR_AGAIN);
        CHECK_INT(taker_pull(&taker, -2), QNET_ERR_INVALID);
        CHECK_INT(taker_pull(&taker, -2147483647 - 1), QNET_ERR_INVALID);
        before = raw_now_ms();
        CHECK_INT(taker_pull(&taker, 50), QNET_ERR_TIMEOUT);
        CHECK(raw_now_ms() - before >= 49);

        memset(&writer, 0, sizeof writer);
        writer.fd = fd;
        writer.flow = flow;
        writer.count = 1;
        writer.delay_ms = 50;
        start_thread(&writer.thread, raw_writing, &writer);
        CHECK_INT(taker_pull(&taker, way == BY_RECV ? -1 : 2147483647), 1);
        join_thread(writer.thread);
        CHECK_INT(taker_pull(&taker, 0), QNET_ERR_AGAIN);
        taker_close(&taker);
        close(fd);
    }
}

/* A receive times out if only a part of a frame has come. */
static void timeout_with_half_a_frame(void)
{
    struct flow flow = flow_of_one_size(&short_frame), expected = flow;
    struct bundle bundle = bundle_make(&flow, 1);
    size_t cut;
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct taker taker;
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        taker_start(&taker, conn, way, flow_each, &expected);
        for (cut = 1; cut < bundle.len; cut += 22) {
            expected.next = 0;
            raw_write(fd, bundle.wire, cut);
            CHECK_INT(taker_pull(&taker, 10), QNET_ERR_TIMEOUT);
            CHECK_INT(taker_pull(&taker, 0), QNET_ERR_AGAIN);
            raw_write(fd, bundle.wire + cut, bundle.len - cut);
            CHECK_INT(taker_pull(&taker, 0), 1);
        }
        taker_close(&taker);
        close(fd);
    }
    bundle_free(&bundle);
}

static void *receive_forever(void *argument)
{
    CHECK_INT(qnet_recv(argument, NULL, 0, -1), QNET_ERR_CLOSED);
    return NULL;
}

/* The time that a receive waits for another thread's receive counts towards its timeout. */
static void waiting_for_a_turn_counts(void)
{
    pthread_t other;
    qnet_frame frame;
    uint8_t buffer[100];
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    start_thread(&other, receive_forever, conn);
    raw_sleep_ms(50);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_recv_batch(conn, &frame, 1, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
    close(fd);
    join_thread(other);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(void)
{
    RUN(byte_by_byte);
    RUN(cut_twice);
    RUN_EACH(single_bytes);
    RUN_EACH(many_frames_in_one_write);
    RUN_EACH(random_cuts);
    RUN(end_at_every_byte);
    RUN_EACH(end_in_header_and_body);
    RUN(end_inside_other_frames);
    RUN_EACH(lengths_too_long);
    RUN(nothing_after_a_broken_length);
    RUN(a_broken_length_is_found_at_once);
    RUN(runts_are_skipped);
    RUN(nothing_but_runts);
    RUN(one_edge_before_many_runts);
    RUN(buffer_too_small);
    RUN(buffer_beyond_the_frame);
    RUN_EACH(timeouts);
    RUN(timeout_with_half_a_frame);
    RUN(waiting_for_a_turn_counts);
    return check_done();
}
