/*
 * receive.c - what a program receives of the bytes that a plain socket wrote:
 * however the stream is cut, ends or lies, and by every way to receive.
 */
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "ways.h"

static const size_t short_frame = 64, long_frame = 65535;

/* The same random numbers at every run. */
static unsigned random_below(unsigned *state, unsigned limit)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % limit;
}

/* Writes only the beginning of a frame: its prefix, and `part` bytes of it. */
static void raw_send_part(int fd, size_t len, size_t part)
{
    uint8_t *bytes = allocate(RAW_PREFIX + part);

    raw_put_length(bytes, len);
    memset(bytes + RAW_PREFIX, 'p', part);
    raw_write(fd, bytes, RAW_PREFIX + part);
    free(bytes);
}

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

/* Pulls until nothing is left. */
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

static void *random_writes(void *argument)
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

/* The peer still reads, but that is leaving all the same. */
static void leave_half(int fd)
{
    CHECK(shutdown(fd, SHUT_WR) == 0);
}

/* Once reported, the end is what every receive and send gives. */
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

/* Three frames, then `tail` bytes, then nothing more: all frames first, then the end. */
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

/* Ends after the first `tail` bytes of another frame; 0: after whole frames. */
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

/* The same in the middle of the longest frame, and of one that is too short to count. */
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

/* A length that no frame has ends it at once; the peer neither leaves nor says more. */
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

/* After such a length whatever follows is no frame. */
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

/* Nor is such a length waited behind, where it comes alone, or before more than any frame has. */
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

/* Frames of every length from 0 to 13, with a whole frame after each. */
static size_t put_runts(uint8_t *wire, const struct flow *flow)
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

/* Thousands of empty frames are no frame, and only runts make a receive wait. */
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

/* Sockets that can hold very much unread. */
struct deep {
    int family, kind;
};

/* Two sockets that are each other's peer. */
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

/* A connection of one of them, and the other. */
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

/* Fills it with more runts than a few reads give, and a frame of 64 bytes behind them. */
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

/* One edge, and one receive or a poll before it. */
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
 * An edge tells of all that came before it: a receive that gives AGAIN has left
 * nothing of that behind, however many runts there were; nor has a poll.
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

/* A buffer too small keeps the frame; asking for its length does too. */
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

/* Half a frame is as good as nothing. */
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

/* A receive waits its turn no longer than it may wait at all. */
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

/* ---- Batches and what they lend ---- */

static void check_loans(const qnet_frame *frames, int count, unsigned first)
{
    int i;

    for (i = 0; i < count; i++)
        CHECK_INT(frame_number(frames[i].data, frames[i].len), first + (unsigned)i);
}

/* Frames lent by the last receive, which began with frame `first`. */
struct loan {
    qnet_conn *conn;
    qnet_frame frames[16];
    unsigned first;
    int count;
};

static void check_loan(const struct loan *loan)
{
    check_loans(loan->frames, loan->count, loan->first);
}

/* A new loan, of at most `count` frames, ends the one before. */
static void borrow(struct loan *loan, size_t count)
{
    loan->first += (unsigned)loan->count;
    loan->count = qnet_recv_batch(loan->conn, loan->frames, count, -1);
    CHECK(loan->count >= 1 && loan->count <= (int)count);
    check_loan(loan);
}

static void check_poll(const struct loan *loan, int timeout_ms, int want)
{
    uint8_t ready = 77;

    CHECK_INT(qnet_poll(&loan->conn, &ready, 1, timeout_ms), want);
    CHECK_INT(ready, want);
    check_loan(loan);
}

/* Lent bytes stay as they are until the next receive, whatever else happens. */
static void loans_last(struct flow flow, unsigned count)
{
    struct loan loan = { NULL, { { NULL, 0 } }, 0, 0 };
    struct raw_job writer;
    int fd;

    loan.conn = link_open(&fd);
    raw_start(&writer, raw_writing, fd, flow, count);
    while (loan.first + (unsigned)loan.count < count) {
        check_poll(&loan, -1, 1);
        borrow(&loan, loan.first % 2 ? 16 : 3);
    }
    join_thread(writer.thread);
    CHECK_INT(loan.first + (unsigned)loan.count, count);

    CHECK_INT(qnet_send(loan.conn, "fourteen bytes", 14), QNET_OK);
    raw_send_part(fd, 1000, 500);
    check_poll(&loan, 20, 0);
    close(fd);
    check_poll(&loan, -1, 1);
    CHECK_INT(qnet_shutdown(loan.conn), QNET_OK);
    CHECK_INT(qnet_wait(loan.conn, -1), 0);
    check_poll(&loan, 0, 1);
    CHECK_INT(qnet_close(loan.conn), QNET_OK);
}

static void loans_of_short_frames(void)
{
    loans_last(flow_of_small_frames(), 200);
}

static void loans_of_long_frames(void)
{
    loans_last(flow_of_one_size(&long_frame), 30);
}

/* Writes to memory that nobody has, of a buffer's size. */
static void use_free_memory(void)
{
    enum { PIECES = 64, PIECE = 4096 };
    void *pieces[PIECES];
    int i;

    for (i = 0; i < PIECES; i++) {
        pieces[i] = allocate(PIECE);
        memset(pieces[i], 0xee, PIECE);
    }
    for (i = 0; i < PIECES; i++)
        free(pieces[i]);
}

/* Frames that fill the library's buffer to the last byte, and nothing behind them. */
static void loans_that_fill_a_buffer(void)
{
    static const size_t size = 60;
    static const unsigned counts[] = { 64, 128, 256, 512, 1024, 2048, 64 };
    struct flow flow = flow_of_one_size(&size);
    qnet_frame frames[3000];
    int fd;
    qnet_conn *conn = raw_pair(&fd);
    size_t i;

    for (i = 0; i < sizeof counts / sizeof *counts; i++) {
        unsigned first = flow.next;

        raw_send_flow(fd, &flow, counts[i], 0);
        while (first < flow.next) {
            int n = qnet_recv_batch(conn, frames, 3000, patience_ms());

            CHECK(n > 0);
            use_free_memory();
            check_loans(frames, n, first);
            first += (unsigned)n;
        }
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

static void batch_arguments(void)
{
    struct flow flow = flow_of_small_frames();
    qnet_frame frame;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &flow, 1, 0);
    CHECK_INT(qnet_recv_batch(conn, &frame, 0, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_recv_batch(conn, NULL, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_recv_packed(conn, NULL, 100, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_recv_batch(conn, &frame, 1, 0), 1);
    check_loans(&frame, 1, 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* After AGAIN, or fewer frames than asked for, the descriptor tells of the next. */
static void descriptor_after_a_batch(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    qnet_frame frames[8];
    uint8_t ready = 0, buffer[2000];
    int fd, len;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_recv_batch(conn, frames, 8, 0), 3);
    CHECK(!raw_readable(qnet_fd(conn), 20));
    raw_send_flow(fd, &flow, 1, 0);
    CHECK(raw_readable(qnet_fd(conn), patience_ms()));
    CHECK_INT(qnet_recv_batch(conn, frames, 8, 0), 1);
    check_loans(frames, 1, 3);
    CHECK_INT(qnet_recv_batch(conn, frames, 8, 0), QNET_ERR_AGAIN);

    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_recv_batch(conn, frames, 2, 0), 2);
    CHECK_INT(qnet_poll(&conn, &ready, 1, 0), 1);
    check_loans(frames, 2, 4);
    len = qnet_recv(conn, buffer, sizeof buffer, 0);
    CHECK_INT(len, flow_size(&flow, 6));
    expected.next = 6;
    flow_take(&expected, buffer, (size_t)len);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    CHECK(!raw_readable(qnet_fd(conn), 20));
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Whole frames in wire format, byte for byte, as many as fit and without the runts. */
static void packed_bytes(void)
{
    static uint8_t wire[32768], got[32768];
    enum { ONE = RAW_PREFIX + 64, COUNT = 14 };
    struct flow flow = flow_of_one_size(&short_frame);
    struct bundle bundle = bundle_make(&flow, COUNT);
    size_t len = put_runts(wire, &flow), cap;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    for (cap = ONE; cap < ONE * (COUNT + 2); cap += 17) {
        size_t fit = cap / ONE < COUNT ? cap / ONE * ONE : ONE * COUNT, at = fit;

        raw_write(fd, wire, len);
        memset(got, 0xaa, sizeof got);
        CHECK_INT(qnet_recv_packed(conn, got, ONE - 1, 0), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv_packed(conn, got, cap, 0), fit);
        CHECK(memcmp(got, bundle.wire, fit) == 0);
        CHECK_INT(got[cap], 0xaa);
        while (at < bundle.len) {
            int more = qnet_recv_packed(conn, got, sizeof got, 0);

            CHECK(more > 0 && more % ONE == 0);
            CHECK(memcmp(got, bundle.wire + at, (size_t)more) == 0);
            at += (size_t)more;
        }
        CHECK_INT(qnet_recv_packed(conn, got, sizeof got, 0), QNET_ERR_AGAIN);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    bundle_free(&bundle);
}

/* ---- Many threads that receive ---- */

struct crowd {
    pthread_mutex_t lock;
    qnet_conn *conn;
    uint8_t *seen;
    unsigned count;
    unsigned long long frames, bytes;
};

static void crowd_mark(void *argument, const uint8_t *frame, size_t len)
{
    struct crowd *crowd = argument;
    unsigned number = frame_number(frame, len);

    CHECK(number < crowd->count);
    pthread_mutex_lock(&crowd->lock);
    CHECK(!crowd->seen[number]);
    crowd->seen[number] = 1;
    crowd->frames++;
    crowd->bytes += len;
    pthread_mutex_unlock(&crowd->lock);
}

static void *crowd_pull(struct crowd *crowd, int way)
{
    struct taker taker;
    int result;

    memset(&taker, 0, sizeof taker);
    taker.conn = crowd->conn;
    taker.way = way;
    taker.each = crowd_mark;
    taker.argument = crowd;
    CHECK_INT(pthread_mutex_init(&taker.lock, NULL), 0);
    do
        result = taker_pull(&taker, -1);
    while (result > 0);
    CHECK_INT(result, QNET_ERR_CLOSED);
    return NULL;
}

static void *crowd_recv(void *argument)
{
    return crowd_pull(argument, BY_RECV);
}

static void *crowd_packed(void *argument)
{
    return crowd_pull(argument, BY_RECV_PACKED);
}

/* Others' receives end its loans at once, so it only counts. */
static void *crowd_batch(void *argument)
{
    struct crowd *crowd = argument;
    qnet_frame frames[5];
    int result, i;

    while ((result = qnet_recv_batch(crowd->conn, frames, 5, -1)) > 0) {
        pthread_mutex_lock(&crowd->lock);
        for (i = 0; i < result; i++)
            crowd->bytes += frames[i].len;
        crowd->frames += (unsigned)result;
        pthread_mutex_unlock(&crowd->lock);
    }
    CHECK_INT(result, QNET_ERR_CLOSED);
    return NULL;
}

/* Several threads receive on one connection: each frame is given once. */
static void many_receivers(void)
{
    static void *(*const bodies[])(void *) = { crowd_recv, crowd_packed, crowd_recv, crowd_batch };
    pthread_t threads[4];
    struct flow flow = flow_of_small_frames();
    struct raw_job writer;
    struct crowd crowd;
    unsigned long long bytes = 0;
    unsigned i;
    int fd;

    memset(&crowd, 0, sizeof crowd);
    CHECK_INT(pthread_mutex_init(&crowd.lock, NULL), 0);
    crowd.conn = link_open(&fd);
    crowd.count = 500 + (unsigned)rounds(4000);
    crowd.seen = allocate(crowd.count);
    memset(crowd.seen, 0, crowd.count);
    for (i = 0; i < crowd.count; i++)
        bytes += flow_size(&flow, i);
    for (i = 0; i < 4; i++)
        start_thread(&threads[i], bodies[i], &crowd);
    raw_start(&writer, random_writes, fd, flow, crowd.count);
    join_thread(writer.thread);
    close(fd);
    for (i = 0; i < 4; i++)
        join_thread(threads[i]);
    CHECK_INT(crowd.frames, crowd.count);
    CHECK_INT(crowd.bytes, bytes);
    CHECK_INT(qnet_close(crowd.conn), QNET_OK);
    free(crowd.seen);
}

/* ---- qnet_poll ---- */

static void send_whole(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 20);
}

static void prepare_nothing(qnet_conn *conn, int fd)
{
    (void)conn;
    (void)fd;
}

static void prepare_held_frame(qnet_conn *conn, int fd)
{
    uint8_t buffer[100], wire[2 * (RAW_PREFIX + 20)];
    int i;

    for (i = 0; i < 2; i++) {
        memset(wire + 24 * i, 0, 24);
        raw_put_length(wire + 24 * i, 20);
    }
    raw_write(fd, wire, sizeof wire);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 20);
}

static void prepare_kept_frame(qnet_conn *conn, int fd)
{
    raw_send_part(fd, 20, 20);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), 20);
}

static void prepare_half_header(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\0\0", 2);
}

static void prepare_header(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 0);
}

static void prepare_half_frame(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 10);
}

static void prepare_half_after_whole(qnet_conn *conn, int fd)
{
    uint8_t buffer[100];

    raw_send_part(fd, 20, 20);
    raw_send_part(fd, 20, 19);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 20);
}

static void prepare_runts(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 0, 0);
    raw_send_part(fd, 13, 13);
}

static void prepare_runts_and_half(qnet_conn *conn, int fd)
{
    prepare_runts(conn, fd);
    prepare_half_frame(conn, fd);
}

static void prepare_runts_and_whole(qnet_conn *conn, int fd)
{
    prepare_runts(conn, fd);
    send_whole(conn, fd);
}

static void prepare_leaving(qnet_conn *conn, int fd)
{
    (void)conn;
    leave_half(fd);
}

static void prepare_leaving_inside(qnet_conn *conn, int fd)
{
    prepare_half_frame(conn, fd);
    leave_half(fd);
}

static void prepare_broken_length(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\xff\xff\xff\xff", 4);
}

static void prepare_reported_end(qnet_conn *conn, int fd)
{
    leave_half(fd);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), QNET_ERR_CLOSED);
}

static void prepare_shutdown(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
}

static void prepare_handled(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
}

static void prepare_closed(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static const struct {
    void (*prepare)(qnet_conn *conn, int fd);
    int receive; /* what a receive that does not wait gives; AGAIN is not ready */
} readiness[] = {
    { prepare_nothing, QNET_ERR_AGAIN },
    { send_whole, 20 },
    { prepare_held_frame, 20 },
    { prepare_kept_frame, 20 },
    { prepare_half_header, QNET_ERR_AGAIN },
    { prepare_header, QNET_ERR_AGAIN },
    { prepare_half_frame, QNET_ERR_AGAIN },
    { prepare_half_after_whole, QNET_ERR_AGAIN },
    { prepare_runts, QNET_ERR_AGAIN },
    { prepare_runts_and_half, QNET_ERR_AGAIN },
    { prepare_runts_and_whole, 20 },
    { prepare_leaving, QNET_ERR_CLOSED },
    { prepare_leaving_inside, QNET_ERR_PROTOCOL },
    { prepare_broken_length, QNET_ERR_PROTOCOL },
    { prepare_reported_end, QNET_ERR_CLOSED },
    { prepare_shutdown, QNET_ERR_CLOSED },
    { prepare_handled, QNET_ERR_BUSY },
    { prepare_closed, QNET_ERR_HANDLE },
};
enum { READINESS = sizeof readiness / sizeof *readiness };

/* Each entry is ready when a receive would give anything but AGAIN; twice asked, the same. */
static void poll_tells_what_is_ready(void)
{
    qnet_conn *conns[READINESS + 1];
    uint8_t ready[READINESS + 1];
    int i, again, want = 1;

    for (i = 0; i < READINESS; i++) {
        int fd;

        conns[i] = raw_pair(&fd);
        readiness[i].prepare(conns[i], fd);
        want += readiness[i].receive != QNET_ERR_AGAIN;
    }
    conns[READINESS] = NULL;
    for (again = 0; again < 2; again++) {
        memset(ready, 77, sizeof ready);
        CHECK_INT(qnet_poll(conns, ready, READINESS + 1, again ? -1 : 0), want);
        for (i = 0; i < READINESS; i++) {
            if (ready[i] != (readiness[i].receive != QNET_ERR_AGAIN))
                fprintf(stderr, "entry %d:\n", i);
            CHECK_INT(ready[i], readiness[i].receive != QNET_ERR_AGAIN);
        }
        CHECK_INT(ready[READINESS], 1);
    }
    for (i = 0; i < READINESS; i++)
        CHECK_INT(qnet_recv(conns[i], NULL, 0, 0), readiness[i].receive);
}

/* Where nothing is ready, poll takes its time and says 0. */
static void poll_times_out(void)
{
    qnet_conn *conns[READINESS];
    uint8_t ready[READINESS];
    size_t count = 0, i;
    long long before;
    int fd;

    for (i = 0; i < READINESS; i++) {
        if (readiness[i].receive != QNET_ERR_AGAIN)
            continue;
        conns[count] = raw_pair(&fd);
        readiness[i].prepare(conns[count++], fd);
    }
    CHECK(count > 0);
    memset(ready, 77, sizeof ready);
    CHECK_INT(qnet_poll(conns, ready, count, 0), 0);
    for (i = 0; i < count; i++)
        CHECK_INT(ready[i], 0);
    memset(ready, 77, sizeof ready);
    before = raw_now_ms();
    CHECK_INT(qnet_poll(conns, ready, count, 50), 0);
    CHECK(raw_now_ms() - before >= 49);
    for (i = 0; i < count; i++)
        CHECK_INT(ready[i], 0);
}

static void poll_arguments(void)
{
    uint8_t ready = 0;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    send_whole(conn, fd);
    CHECK_INT(qnet_poll(NULL, &ready, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, NULL, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 0, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -2), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* What another thread does to a connection that is polled without a limit. */
struct waker {
    pthread_t thread;
    void (*act)(qnet_conn *conn, int fd);
    qnet_conn *conn;
    int fd;
};

static void *waking(void *argument)
{
    struct waker *waker = argument;

    raw_sleep_ms(30);
    waker->act(waker->conn, waker->fd);
    return NULL;
}

static void send_rest(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "ten bytes.", 10);
}

static void poll_is_woken(void)
{
    static const struct {
        void (*prepare)(qnet_conn *conn, int fd);
        void (*act)(qnet_conn *conn, int fd);
    } cases[] = {
        { prepare_nothing, send_whole },
        { prepare_half_frame, send_rest },
        { prepare_runts_and_half, send_rest },
        { prepare_nothing, prepare_runts_and_whole },
        { prepare_nothing, prepare_leaving },
        { prepare_half_frame, prepare_leaving },
        { prepare_nothing, prepare_broken_length },
        { prepare_nothing, prepare_shutdown },
        { prepare_nothing, prepare_closed },
        { prepare_nothing, prepare_handled },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conns[3];
        uint8_t ready[3] = { 77, 77, 77 };
        struct waker waker;
        int fd;

        conns[0] = raw_pair(&fd);
        conns[1] = link_open(&waker.fd);
        conns[2] = raw_pair(&fd);
        cases[i].prepare(conns[1], waker.fd);
        waker.conn = conns[1];
        waker.act = cases[i].act;
        start_thread(&waker.thread, waking, &waker);
        CHECK_INT(qnet_poll(conns, ready, 3, -1), 1);
        CHECK(ready[0] == 0 && ready[1] == 1 && ready[2] == 0);
        join_thread(waker.thread);
    }
}

/* A call that waits on a thread of its own. */
struct caller {
    pthread_t thread;
    int (*call)(qnet_conn *conn);
    qnet_conn *conn;
    pthread_mutex_t lock;
    int done;
    int result;
};

static void *calling(void *argument)
{
    struct caller *caller = argument;
    int result = caller->call(caller->conn);

    pthread_mutex_lock(&caller->lock);
    caller->done = 1;
    caller->result = result;
    pthread_mutex_unlock(&caller->lock);
    return NULL;
}

static void caller_start(struct caller *caller, int (*call)(qnet_conn *), qnet_conn *conn)
{
    memset(caller, 0, sizeof *caller);
    caller->call = call;
    caller->conn = conn;
    CHECK_INT(pthread_mutex_init(&caller->lock, NULL), 0);
    start_thread(&caller->thread, calling, caller);
}

static int caller_done(struct caller *caller)
{
    int done;

    pthread_mutex_lock(&caller->lock);
    done = caller->done;
    pthread_mutex_unlock(&caller->lock);
    return done;
}

/* The call's result, once it has returned as it must. */
static int caller_result(struct caller *caller)
{
    EVENTUALLY(caller_done(caller));
    join_thread(caller->thread);
    pthread_mutex_destroy(&caller->lock);
    return caller->result;
}

static int call_recv(qnet_conn *conn)
{
    uint8_t buffer[100];

    return qnet_recv(conn, buffer, sizeof buffer, -1);
}

static int call_recv_batch(qnet_conn *conn)
{
    qnet_frame frame;

    return qnet_recv_batch(conn, &frame, 1, -1);
}

static int call_recv_packed(qnet_conn *conn)
{
    uint8_t buffer[RAW_PREFIX + 20];

    return qnet_recv_packed(conn, buffer, sizeof buffer, -1);
}

static int call_poll(qnet_conn *conn)
{
    uint8_t ready = 0;
    int result = qnet_poll(&conn, &ready, 1, -1);

    CHECK_INT(ready, result == 1);
    return result;
}

/*
 * What a poll has read into the library is there for everybody who waits, in
 * a receive or in another poll, though the descriptor says nothing of it.
 */
static void check_beside_a_poll(int (*call)(qnet_conn *), int want, unsigned frames)
{
    int turn, turns = 5 + rounds(400), fd;
    qnet_conn *conn = raw_pair(&fd);

    for (turn = 0; turn < turns; turn++) {
        struct caller poller, caller;

        caller_start(&caller, call, conn);
        caller_start(&poller, call_poll, conn);
        if (turn % 2)
            raw_sleep_ms(1);
        raw_send_part(fd, 20, 20);
        CHECK_INT(caller_result(&caller), want);
        if (frames > 0)
            raw_send_part(fd, 20, 20);
        CHECK_INT(caller_result(&poller), 1);
        CHECK_INT(call_recv(conn), 20);
        CHECK_INT(qnet_recv(conn, NULL, 0, 0), QNET_ERR_AGAIN);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void receive_beside_a_poll(void)
{
    check_beside_a_poll(call_recv, 20, 1);
    check_beside_a_poll(call_recv_batch, 1, 1);
    check_beside_a_poll(call_recv_packed, RAW_PREFIX + 20, 1);
}

static void poll_beside_a_poll(void)
{
    check_beside_a_poll(call_poll, 1, 0);
}

/* Frames that come at once are enough for as many who wait, whoever reads them. */
static void receive_beside_a_receive(void)
{
    static int (*const calls[])(qnet_conn *) = { call_recv, call_recv_batch, call_recv_packed };
    static const int results[] = { 20, 1, RAW_PREFIX + 20 };
    int turn, turns = 5 + rounds(300), fd, i;
    uint8_t wire[3 * (RAW_PREFIX + 20)];
    qnet_conn *conn = raw_pair(&fd);

    memset(wire, 0, sizeof wire);
    for (i = 0; i < 3; i++)
        raw_put_length(wire + i * (RAW_PREFIX + 20), 20);
    for (turn = 0; turn < turns; turn++) {
        struct caller callers[3];

        for (i = 0; i < 3; i++)
            caller_start(&callers[i], calls[i], conn);
        if (turn % 2)
            raw_sleep_ms(1);
        raw_write(fd, wire, sizeof wire);
        for (i = 0; i < 3; i++)
            CHECK_INT(caller_result(&callers[i]), results[i]);
    }
    CHECK_INT(qnet_recv(conn, NULL, 0, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void poll_many(void)
{
    enum { MANY = 60 };
    qnet_conn *conns[MANY];
    uint8_t ready[MANY];
    int i, fd;

    for (i = 0; i < MANY; i++) {
        conns[i] = raw_pair(&fd);
        if (i % 3 == 0)
            send_whole(conns[i], fd);
    }
    CHECK_INT(qnet_poll(conns, ready, MANY, -1), MANY / 3);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(ready[i], i % 3 == 0);
        CHECK_INT(qnet_recv(conns[i], NULL, 0, 0), ready[i] ? 20 : QNET_ERR_AGAIN);
    }
}

/* One who polls, and how often it was woken meanwhile. */
struct sleeper {
    qnet_conn **conns;
    int count, asleep;
    long wakings;
};

static long wakings_of_this_thread(void)
{
    struct rusage usage;

    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_nvcsw;
}

static void *sleep_until_ready(void *argument)
{
    struct sleeper *sleeper = argument;
    uint8_t *ready = allocate((size_t)sleeper->count);
    long before = wakings_of_this_thread();

    __atomic_store_n(&sleeper->asleep, 1, __ATOMIC_SEQ_CST);
    CHECK_INT(qnet_poll(sleeper->conns, ready, (size_t)sleeper->count, -1), 1);
    sleeper->wakings = wakings_of_this_thread() - before;
    free(ready);
    return NULL;
}

/* Two frames in one write: to receive the first tells those who wait of the other. */
static void pull_two(qnet_conn *conn, int fd)
{
    uint8_t two[2 * (RAW_PREFIX + 20)] = { 0 };
    int i;

    for (i = 0; i < 2; i++)
        raw_put_length(two + i * (RAW_PREFIX + 20), 20);
    raw_write(fd, two, sizeof two);
    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_recv(conn, two, sizeof two, -1), 20);
}

/* A poll sleeps while other connections than its own have traffic. */
static void poll_sleeps_beside_others(void)
{
    enum { IDLE = 500 };
    static qnet_conn *conns[IDLE];
    static int fds[IDLE];
    struct rlimit limit = { 4096, 4096 };
    struct sleeper sleeper = { conns, IDLE, 0, 0 };
    int busy_fd, i, turns = rounds(30000);
    pthread_t thread;
    qnet_conn *busy;

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        check_skip("4096 descriptors are not to be had");
    busy = raw_pair(&busy_fd);
    for (i = 0; i < IDLE; i++)
        conns[i] = raw_pair(&fds[i]);
    start_thread(&thread, sleep_until_ready, &sleeper);
    EVENTUALLY(__atomic_load_n(&sleeper.asleep, __ATOMIC_SEQ_CST));
    for (i = 0; i < turns; i++)
        pull_two(busy, busy_fd);
    send_whole(conns[IDLE / 2], fds[IDLE / 2]);
    join_thread(thread);
    CHECK(sleeper.wakings <= 20);
    CHECK_INT(qnet_close(busy), QNET_OK);
    close(busy_fd);
    for (i = 0; i < IDLE; i++) {
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        close(fds[i]);
    }
}

/* ---- Handlers ---- */

static void remove_handler(qnet_conn *conn)
{
    CHECK_INT(qnet_set_handler(conn, NULL, NULL), QNET_OK);
}

/* Where a handler is set, nothing else receives. */
static void handled_is_busy(void)
{
    uint8_t buffer[100], ready = 0;
    qnet_frame frame;
    int batch, fd;

    for (batch = 0; batch < 2; batch++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, BY_HANDLER + batch, flow_each, &expected);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv_batch(conn, &frame, 1, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
        CHECK_INT(ready, 1);
        raw_send_flow(fd, &flow, 2, 0);
        taker_want(&taker, 2);
        remove_handler(conn);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        raw_send_flow(fd, &flow, 1, 0);
        taker.way = BY_RECV;
        taker_want(&taker, 3);
        taker_close(&taker);
        close(fd);
    }
}

/* A receive that waits when a handler is set is told so. */
static void handler_takes_over(void)
{
    static int (*const calls[])(qnet_conn *) = { call_recv, call_recv_batch, call_recv_packed };
    int i, fd;

    for (i = 0; i < 3; i++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct caller caller;
        struct taker taker;
        qnet_conn *conn = link_open(&fd);

        caller_start(&caller, calls[i], conn);
        raw_sleep_ms(20);
        CHECK(!caller_done(&caller));
        taker_start(&taker, conn, BY_HANDLER, flow_each, &expected);
        CHECK_INT(caller_result(&caller), QNET_ERR_BUSY);
        raw_send_flow(fd, &flow, 3, 0);
        taker_want(&taker, 3);
        taker_close(&taker);
        close(fd);
    }
}

/* Removing what is not there changes nothing. */
static void no_handler_to_remove(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    remove_handler(conn);
    CHECK_INT(qnet_set_batch_handler(conn, NULL, NULL), QNET_OK);
    raw_send_flow(fd, &flow, 3, 0);
    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    taker_want(&taker, 3);
    taker_close(&taker);
}

/* Frames that the library holds from a pull are the handler's first. */
static void handler_after_a_pull(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        uint8_t buffer[100];
        int fd, len;
        qnet_conn *conn = raw_pair(&fd);

        raw_send_flow(fd, &flow, 5, 0);
        len = qnet_recv(conn, buffer, sizeof buffer, -1);
        CHECK_INT(len, flow_size(&flow, 0));
        flow_take(&expected, buffer, (size_t)len);
        taker_start(&taker, conn, way, flow_each, &expected);
        taker_want(&taker, 4);
        taker_close(&taker);
        close(fd);
    }
}

/* A handler set when the peer is gone gets what waits, then the end. */
static void handler_after_the_peer_left(void)
{
    int held, batch;

    for (held = 0; held < 2; held++)
        for (batch = 0; batch < 2; batch++) {
            struct flow flow = flow_of_small_frames(), expected = flow;
            uint8_t buffer[100];
            struct taker taker;
            int fd;
            qnet_conn *conn = link_open(&fd);

            raw_send_flow(fd, &flow, 5, 0);
            close(fd);
            CHECK_INT(qnet_wait(conn, -1), 0);
            if (held) {
                CHECK(qnet_recv(conn, buffer, sizeof buffer, -1) > 0);
                expected.next++;
            }
            taker_start(&taker, conn, BY_HANDLER + batch, flow_each, &expected);
            CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
            CHECK_INT(taker_count(&taker), 5 - held);
            taker_close(&taker);
        }
}

/* After the end has been reported, or made, a handler comes too late. */
static void handler_after_the_end(void)
{
    static const struct {
        void (*prepare)(qnet_conn *conn, int fd);
        int reason;
    } cases[] = {
        { prepare_shutdown, QNET_ERR_CLOSED },
        { prepare_leaving, QNET_ERR_CLOSED },
        { prepare_leaving_inside, QNET_ERR_PROTOCOL },
        { prepare_broken_length, QNET_ERR_PROTOCOL },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, BY_RECV, flow_each, NULL);
        cases[i].prepare(conn, fd);
        CHECK_INT(qnet_recv(conn, NULL, 0, -1), cases[i].reason);
        CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), cases[i].reason);
        CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), cases[i].reason);
        taker_close(&taker);
        close(fd);
    }
}

static void handler_after_shutdown(void)
{
    struct flow flow = flow_of_small_frames();
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, NULL);
    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_ERR_CLOSED);
    CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), QNET_ERR_CLOSED);
    CHECK_INT(taker_count(&taker), 0);
    taker_close(&taker);
}

/* Changes the way to receive all the time: no frame is lost, doubled or out of order. */
static void ways_change_under_load(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000), seen;
    struct flow expected = flow_of_small_frames();
    struct raw_job writer;
    struct taker taker;
    int fd, turn, result;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    raw_start(&writer, random_writes, fd, expected, count);
    for (turn = 0; (seen = taker_count(&taker)) < count; turn++) {
        long long until = raw_now_ms() + 3;

        if (turn % 4 == 0 || turn % 4 == 2)
            CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_OK);
        if (turn % 4 == 1 || turn % 4 == 2)
            CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), QNET_OK);
        while (turn % 4 != 3 && taker_count(&taker) == seen && raw_now_ms() < until)
            sched_yield();
        remove_handler(conn);
        seen = taker_count(&taker);
        taker.way = turn / 4 % WAYS_TO_PULL;
        result = taker_pull(&taker, 1);
        CHECK(result > 0 || result == QNET_ERR_TIMEOUT);
        CHECK_INT(taker_count(&taker), seen + (result > 0 ? (unsigned)result : 0));
    }
    CHECK_INT(expected.next, count);
    CHECK_INT(stats_of(conn).rx_frames, count);
    join_thread(writer.thread);
    close(fd);
    taker.way = BY_RECV;
    CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
    taker_close(&taker);
}

/* Who receives for a while: what a handler uses, alive for as long as it is the one. */
struct owner {
    struct taker *taker; /* where all the owners' frames go */
    char room[64];
    int alive;
};

static struct owner *new_owner(struct taker *taker)
{
    struct owner *owner = allocate(sizeof *owner);

    owner->taker = taker;
    owner->alive = 1;
    return owner;
}

static void free_owner(struct owner *owner)
{
    if (owner)
        owner->alive = 0;
    free(owner);
}

static void owner_frame(void *user, const uint8_t *frame, size_t len)
{
    struct owner *owner = user;

    CHECK(owner->alive == 1);
    taker_frame(owner->taker, frame, len);
    CHECK(owner->alive == 1);
}

static void owner_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        owner_frame(user, frames[i].data, frames[i].len);
}

/* Once qnet_set_handler has returned, the handler before is done with its user. */
static void user_freed_under_load(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000);
    struct flow expected = flow_of_small_frames();
    struct owner *owner = NULL, *next;
    struct raw_job writer;
    struct taker taker;
    int fd, turn;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    raw_start(&writer, random_writes, fd, expected, count);
    for (turn = 0; taker_count(&taker) < count; turn++) {
        next = turn % 5 == 4 ? NULL : new_owner(&taker);
        if (turn % 5 == 4)
            remove_handler(conn);
        else if (turn % 5 == 2)
            CHECK_INT(qnet_set_batch_handler(conn, owner_batch, next), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(conn, owner_frame, next), QNET_OK);
        free_owner(owner);
        owner = next;
        sched_yield();
    }
    remove_handler(conn);
    free_owner(owner);
    CHECK_INT(expected.next, count);
    join_thread(writer.thread);
    taker_close(&taker);
}

/* A handler that does something at its third frame, from inside. */
struct changer {
    struct taker *taker;
    void (*change)(struct changer *changer);
    unsigned seen;
    int changed;
};

static void change_to_none(struct changer *changer)
{
    remove_handler(changer->taker->conn);
}

static void change_to_handler(struct changer *changer)
{
    CHECK_INT(qnet_set_handler(changer->taker->conn, taker_frame, changer->taker), QNET_OK);
}

static void change_to_batch_handler(struct changer *changer)
{
    CHECK_INT(qnet_set_batch_handler(changer->taker->conn, taker_batch, changer->taker), QNET_OK);
}

static void changer_take(struct changer *changer, const uint8_t *frame, size_t len)
{
    pthread_mutex_lock(&changer->taker->lock);
    flow_take(changer->taker->argument, frame, len);
    changer->seen++;
    pthread_mutex_unlock(&changer->taker->lock);
}

static void changer_note(struct changer *changer)
{
    changer->change(changer);
    pthread_mutex_lock(&changer->taker->lock);
    changer->changed = 1;
    pthread_mutex_unlock(&changer->taker->lock);
}

static int changer_changed(struct changer *changer)
{
    int changed;

    pthread_mutex_lock(&changer->taker->lock);
    changed = changer->changed;
    pthread_mutex_unlock(&changer->taker->lock);
    return changed;
}

static void changer_frame(void *user, const uint8_t *frame, size_t len)
{
    struct changer *changer = user;

    CHECK(!changer_changed(changer));
    changer_take(changer, frame, len);
    if (changer->seen == 3)
        changer_note(changer);
}

static void changer_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct changer *changer = user;
    size_t i;

    CHECK(!changer_changed(changer));
    for (i = 0; i < count; i++)
        changer_take(changer, frames[i].data, frames[i].len);
    changer_note(changer);
}

/*
 * A handler that removes or replaces itself is not called again, and those who
 * come after it begin with the next frame, though the library held it already.
 */
static void handler_changes_itself(void)
{
    static const struct {
        void (*change)(struct changer *);
        int way;
    } cases[] = {
        { change_to_none, BY_RECV },
        { change_to_none, BY_RECV_BATCH },
        { change_to_none, BY_RECV_PACKED },
        { change_to_handler, BY_HANDLER },
        { change_to_batch_handler, BY_BATCH_HANDLER },
    };
    int i, batch;

    for (i = 0; i < 2 * (int)(sizeof cases / sizeof *cases); i++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct changer changer;
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        batch = i % 2;
        taker_start(&taker, conn, BY_RECV, flow_each, &expected);
        memset(&changer, 0, sizeof changer);
        changer.taker = &taker;
        changer.change = cases[i / 2].change;
        raw_send_flow(fd, &flow, 10, 0);
        if (batch)
            CHECK_INT(qnet_set_batch_handler(conn, changer_batch, &changer), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(conn, changer_frame, &changer), QNET_OK);
        EVENTUALLY(changer_changed(&changer));
        raw_send_flow(fd, &flow, 10, 0);
        taker.way = cases[i / 2].way;
        taker_want(&taker, 20 - changer.seen);
        CHECK(batch || changer.seen == 3);
        taker_close(&taker);
        close(fd);
    }
}

/* A handler that pulls on its own connection. */
struct puller {
    struct taker taker;
    int running;
};

static void pulling_frame(void *user, const uint8_t *frame, size_t len);
static void pulling_batch(void *user, const qnet_frame *frames, size_t count);

static void puller_runs(struct puller *puller, int running)
{
    pthread_mutex_lock(&puller->taker.lock);
    puller->running = running;
    pthread_mutex_unlock(&puller->taker.lock);
}

/* Whether all frames have come and the last call has returned. */
static int puller_is_done(struct puller *puller, unsigned count)
{
    int done;

    pthread_mutex_lock(&puller->taker.lock);
    done = puller->taker.frames == count && !puller->running;
    pthread_mutex_unlock(&puller->taker.lock);
    return done;
}

/* From inside the handler: removes it, pulls what is next, and sets the other kind. */
static void pull_inside(struct puller *puller, int batch)
{
    qnet_conn *conn = puller->taker.conn;
    int result;

    CHECK_INT(qnet_recv(conn, NULL, 0, -1), QNET_ERR_BUSY);
    remove_handler(conn);
    result = taker_pull(&puller->taker, 0);
    CHECK(result > 0 || result == QNET_ERR_AGAIN);
    if (batch)
        CHECK_INT(qnet_set_handler(conn, pulling_frame, puller), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(conn, pulling_batch, puller), QNET_OK);
}

static void pulling_frame(void *user, const uint8_t *frame, size_t len)
{
    struct puller *puller = user;
    unsigned number = frame_number(frame, len);

    puller_runs(puller, 1);
    taker_frame(&puller->taker, frame, len);
    pull_inside(puller, 0);
    CHECK_INT(frame_number(frame, len), number);
    puller_runs(puller, 0);
}

static void pulling_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct puller *puller = user;
    unsigned number = frame_number(frames[0].data, frames[0].len);

    puller_runs(puller, 1);
    taker_batch(&puller->taker, frames, count);
    pull_inside(puller, 1);
    check_loans(frames, (int)count, number);
    puller_runs(puller, 0);
}

/* A handler may pull from its own connection, and keeps its own frames meanwhile. */
static void handler_pulls_on_its_own(void)
{
    unsigned count = 20 + (unsigned)rounds(2000);
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow expected = flow_of_small_frames();
        struct raw_job writer;
        struct puller puller;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&puller.taker, conn, way, flow_each, &expected);
        puller.running = 0;
        CHECK_INT(qnet_set_handler(conn, pulling_frame, &puller), QNET_OK);
        raw_start(&writer, random_writes, fd, expected, count);
        EVENTUALLY(puller_is_done(&puller, count));
        join_thread(writer.thread);
        taker_close(&puller.taker);
        close(fd);
    }
}

/* Where a handler runs. */
struct place_of_work {
    pthread_mutex_t lock;
    pthread_t thread;
    unsigned calls;
    int running;
    int let_go; /* a frame's call waits for it */
};

static int work_field(struct place_of_work *work, int *field)
{
    int value;

    pthread_mutex_lock(&work->lock);
    value = *field;
    pthread_mutex_unlock(&work->lock);
    return value;
}

static void work_frame(void *user, const uint8_t *frame, size_t len)
{
    struct place_of_work *work = user;

    (void)frame;
    (void)len;
    pthread_mutex_lock(&work->lock);
    CHECK(!work->running);
    CHECK(work->calls == 0 || pthread_equal(work->thread, pthread_self()));
    work->thread = pthread_self();
    work->calls++;
    work->running = 1;
    pthread_mutex_unlock(&work->lock);
    EVENTUALLY(work_field(work, &work->let_go));
    pthread_mutex_lock(&work->lock);
    work->running = 0;
    pthread_mutex_unlock(&work->lock);
}

static void let_go(struct place_of_work *work)
{
    pthread_mutex_lock(&work->lock);
    work->let_go = 1;
    pthread_mutex_unlock(&work->lock);
}

static unsigned work_calls(struct place_of_work *work)
{
    unsigned calls;

    pthread_mutex_lock(&work->lock);
    calls = work->calls;
    pthread_mutex_unlock(&work->lock);
    return calls;
}

/* Each connection's handler has a thread of its own: the one does not hold up the other. */
static void handlers_have_their_own_threads(void)
{
    struct place_of_work work[2];
    struct flow flow = flow_of_small_frames();
    qnet_conn *conns[2];
    int i, fd;

    memset(work, 0, sizeof work);
    for (i = 0; i < 2; i++) {
        CHECK_INT(pthread_mutex_init(&work[i].lock, NULL), 0);
        conns[i] = link_open(&fd);
        CHECK_INT(qnet_set_handler(conns[i], work_frame, &work[i]), QNET_OK);
        raw_send_flow(fd, &flow, 5, 0);
        EVENTUALLY(work_field(&work[i], &work[i].running));
    }
    CHECK(work_field(&work[0], &work[0].running));
    CHECK(!pthread_equal(work[0].thread, work[1].thread));
    CHECK(!pthread_equal(work[0].thread, pthread_self()));
    for (i = 1; i >= 0; i--) {
        let_go(&work[i]);
        EVENTUALLY(work_calls(&work[i]) == 5);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        CHECK(!work[i].running);
    }
}

static void work_then_take(void *user, const uint8_t *frame, size_t len)
{
    struct taker *taker = user;

    taker_frame(taker, frame, len);
    work_frame(taker->argument, frame, len);
}

/*
 * Told not to wait, removing a handler leaves its last call running: what the
 * library holds behind that call's frame is the next to be pulled all the same.
 */
static void pull_beside_a_removed_handler(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct place_of_work work;
        struct taker taker, puller;
        int fd, result;
        qnet_conn *conn = link_open(&fd);

        memset(&work, 0, sizeof work);
        CHECK_INT(pthread_mutex_init(&work.lock, NULL), 0);
        taker_start(&taker, conn, BY_RECV, ignore_frame, &work);
        taker_start(&puller, conn, way, flow_each, &expected);
        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 0), QNET_OK);
        raw_send_flow(fd, &flow, 10, 0);
        CHECK_INT(qnet_set_handler(conn, work_then_take, &taker), QNET_OK);
        EVENTUALLY(work_field(&work, &work.running));
        remove_handler(conn);
        CHECK(work_field(&work, &work.running));
        CHECK_INT(taker_count(&taker), 1);

        expected.next = 1;
        result = taker_pull(&puller, 0);
        CHECK(result > 0 || result == QNET_ERR_AGAIN);
        let_go(&work);
        taker_want(&puller, 9);
        CHECK_INT(taker_pull(&puller, 0), QNET_ERR_AGAIN);
        CHECK_INT(taker_count(&taker), 1);
        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 1), QNET_OK);
        taker_close(&puller);
        close(fd);
    }
}

/* A handler that is to pull what comes behind its first frame, and the plain socket at the other end. */
struct heir {
    struct taker taker;
    int fd, done;
};

static void *write_later(void *argument)
{
    struct heir *heir = argument;
    struct flow flow = flow_of_small_frames();

    raw_sleep_ms(30);
    flow.next = 3;
    raw_send_flow(heir->fd, &flow, 1, 0);
    return NULL;
}

static void poll_and_pull_inside(void *user, const uint8_t *frame, size_t len)
{
    struct heir *heir = user;
    qnet_conn *conn = heir->taker.conn;
    uint8_t buffer[2000], ready = 0;
    pthread_t writer;

    taker_frame(&heir->taker, frame, len);
    remove_handler(conn);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
    CHECK_INT(ready, 1);
    taker_want(&heir->taker, 3);
    CHECK_INT(qnet_poll(&conn, &ready, 1, 0), 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    start_thread(&writer, write_later, heir);
    if (heir->taker.way == BY_RECV) {
        CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
        CHECK_INT(ready, 1);
    }
    taker_want(&heir->taker, 4);
    join_thread(writer);
    __atomic_store_n(&heir->done, 1, __ATOMIC_SEQ_CST);
}

/* In a handler that has taken itself away, polls and receives see what is there, and what comes. */
static void handler_polls_on_its_own(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct heir heir;
        qnet_conn *conn = link_open(&heir.fd);

        heir.done = 0;
        taker_start(&heir.taker, conn, way, flow_each, &expected);
        raw_send_flow(heir.fd, &flow, 3, 0);
        CHECK_INT(qnet_set_handler(conn, poll_and_pull_inside, &heir), QNET_OK);
        EVENTUALLY(__atomic_load_n(&heir.done, __ATOMIC_SEQ_CST));
        taker_close(&heir.taker);
        close(heir.fd);
    }
}

/* A frame handler and a close handler that wait to be let go, and who takes the first away. */
struct held_up {
    qnet_conn *conn;
    int in_frame, frame_may_go, in_close, close_may_go, is_removed;
};

static int held_field(int *field)
{
    return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

static void set_held(int *field)
{
    __atomic_store_n(field, 1, __ATOMIC_SEQ_CST);
}

static void held_frame(void *user, const uint8_t *frame, size_t len)
{
    struct held_up *held = user;

    (void)frame;
    (void)len;
    set_held(&held->in_frame);
    EVENTUALLY(held_field(&held->frame_may_go));
}

static void held_close(void *user, int reason)
{
    struct held_up *held = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    set_held(&held->in_close);
    EVENTUALLY(held_field(&held->close_may_go));
}

static void *remove_held(void *argument)
{
    struct held_up *held = argument;

    CHECK_INT(qnet_set_handler(held->conn, NULL, NULL), QNET_OK);
    set_held(&held->is_removed);
    return NULL;
}

/* Taking a frame handler away waits for that one, and not for the close handler behind it. */
static void removing_waits_for_frames_alone(void)
{
    struct flow flow = flow_of_small_frames();
    struct held_up held;
    pthread_t remover;
    int fd;

    memset(&held, 0, sizeof held);
    held.conn = raw_pair(&fd);
    CHECK_INT(qnet_set_close_handler(held.conn, held_close, &held), QNET_OK);
    CHECK_INT(qnet_set_handler(held.conn, held_frame, &held), QNET_OK);
    raw_send_flow(fd, &flow, 1, 0);
    EVENTUALLY(held_field(&held.in_frame));
    start_thread(&remover, remove_held, &held);
    /* It is taken away, and its call still runs. */
    EVENTUALLY(qnet_recv(held.conn, NULL, 0, 0) == QNET_ERR_AGAIN);
    CHECK_INT(qnet_shutdown(held.conn), QNET_OK);
    CHECK(!held_field(&held.is_removed));
    set_held(&held.frame_may_go);
    EVENTUALLY(held_field(&held.in_close));
    EVENTUALLY(held_field(&held.is_removed));
    set_held(&held.close_may_go);
    join_thread(remover);
    CHECK_INT(qnet_close(held.conn), QNET_OK);
    close(fd);
}

/* ---- qnet_fd ---- */

/* The same number for as long as the handle lives, whatever happens to the connection. */
static void descriptor_stays(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);
    int number = qnet_fd(conn);

    CHECK(number >= 0);
    raw_send_flow(fd, &flow, 2, 0);
    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    taker_want(&taker, 2);
    CHECK_INT(qnet_fd(conn), number);
    CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_OK);
    CHECK_INT(qnet_fd(conn), number);
    remove_handler(conn);
    CHECK_INT(qnet_fd(conn), number);
    close(fd);
    CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
    CHECK_INT(qnet_fd(conn), number);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_wait(conn, -1), 0);
    CHECK_INT(qnet_fd(conn), number);
    CHECK(fcntl(number, F_GETFD) >= 0);
    taker_close(&taker);
    CHECK_INT(qnet_fd(conn), QNET_ERR_HANDLE);
}

/* One connection of an epoll loop. */
struct member {
    struct taker taker;
    struct flow expected;
    struct raw_job writer;
    int ended;
};

/* Takes what is there; returns 1 at the end. */
static int member_ready(struct member *member)
{
    int result;

    do
        result = taker_pull(&member->taker, 0);
    while (result > 0 && (member->taker.way != BY_RECV_BATCH || result == 8));
    if (result > 0 || result == QNET_ERR_AGAIN)
        return 0;
    CHECK_INT(result, QNET_ERR_CLOSED);
    return 1;
}

static void *write_and_leave(void *argument)
{
    struct raw_job *job = argument;

    random_writes(job);
    close(job->fd);
    return NULL;
}

/* Many connections in one epoll loop, without any thread of the library's. */
static void epoll_loop(void)
{
    enum { MEMBERS = 12 };
    unsigned count = 50 + (unsigned)rounds(300);
    struct member *members = allocate(MEMBERS * sizeof *members);
    struct epoll_event event;
    int set = epoll_create1(EPOLL_CLOEXEC), left = MEMBERS, i;

    for (i = 0; i < MEMBERS; i++) {
        int fd;
        qnet_conn *conn = link_open(&fd);

        members[i].expected = flow_of_small_frames();
        taker_start(&members[i].taker, conn, i % WAYS_TO_PULL, flow_each, &members[i].expected);
        raw_start(&members[i].writer, write_and_leave, fd, members[i].expected, count);
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.ptr = &members[i];
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, qnet_fd(conn), &event) == 0);
    }
    while (left > 0) {
        struct member *member;

        CHECK_INT(epoll_wait(set, &event, 1, patience_ms()), 1);
        member = event.data.ptr;
        if (!member_ready(member))
            continue;
        CHECK_INT(member->expected.next, count);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, qnet_fd(member->taker.conn), NULL) == 0);
        join_thread(member->writer.thread);
        taker_close(&member->taker);
        left--;
    }
    close(set);
    free(members);
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
    RUN_EACH(loans_of_short_frames);
    RUN_EACH(loans_of_long_frames);
    RUN(loans_that_fill_a_buffer);
    RUN(batch_arguments);
    RUN(descriptor_after_a_batch);
    RUN(packed_bytes);
    RUN_EACH(many_receivers);
    RUN(poll_tells_what_is_ready);
    RUN(poll_times_out);
    RUN(poll_arguments);
    RUN_EACH(poll_is_woken);
    RUN(receive_beside_a_poll);
    RUN(poll_beside_a_poll);
    RUN(receive_beside_a_receive);
    RUN(poll_many);
    RUN(poll_sleeps_beside_others);
    RUN_EACH(handled_is_busy);
    RUN_EACH(handler_takes_over);
    RUN(no_handler_to_remove);
    RUN(handler_after_a_pull);
    RUN_EACH(handler_after_the_peer_left);
    RUN_EACH(handler_after_the_end);
    RUN_EACH(handler_after_shutdown);
    RUN_EACH(ways_change_under_load);
    RUN_EACH(user_freed_under_load);
    RUN_EACH(handler_changes_itself);
    RUN_EACH(handler_pulls_on_its_own);
    RUN_EACH(handlers_have_their_own_threads);
    RUN_EACH(pull_beside_a_removed_handler);
    RUN_EACH(handler_polls_on_its_own);
    RUN(removing_waits_for_frames_alone);
    RUN_EACH(descriptor_stays);
    RUN_EACH(epoll_loop);
    return check_done();
}
