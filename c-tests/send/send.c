/*
 * send.c - what the peer's plain socket reads when frames are sent: each one
 * whole, in order and nothing else, by every way to send and by many threads.
 */
#include "sending.h"

static const size_t short_frame = 64;

/* Writes a prefix and a frame of `len` bytes that all are `byte`; returns where it ends. */
static uint8_t *put_frame(uint8_t *wire, size_t len, int byte)
{
    raw_put_length(wire, len);
    memset(wire + RAW_PREFIX, byte, len);
    return wire + RAW_PREFIX + len;
}

/* Reads a frame that must have `len` bytes, all of them `byte`. */
static void check_frame(int fd, size_t len, int byte)
{
    static uint8_t frame[QNET_FRAME_MAX];
    size_t i;

    CHECK_INT(raw_recv(fd, frame, sizeof frame), len);
    for (i = 0; i < len; i++)
        CHECK_INT(frame[i], byte);
}

/* ---- What is on the wire ---- */

static void exact_bytes(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_small_frames();
        struct bundle bundle = bundle_make(&flow, 7);
        uint8_t *got = allocate(bundle.len);
        int fd;
        qnet_conn *conn = link_open(&fd);

        CHECK_INT(send_by(way, conn, &bundle), 7);
        CHECK_INT(raw_read(fd, got, bundle.len), 0);
        CHECK(memcmp(got, bundle.wire, bundle.len) == 0);
        CHECK_INT(stats_of(conn).tx_bytes, bundle.len - 7 * RAW_PREFIX);
        check_all_sent(conn, 7);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));
        free(got);
        bundle_free(&bundle);
        close(fd);
    }
}

/* Sends a frame of `len` bytes by every way; each must fail with `want`. */
static void check_refused(qnet_conn *conn, size_t len, int want)
{
    struct bundle bundle;
    int way;

    bundle.len = RAW_PREFIX + len;
    bundle.wire = allocate(bundle.len);
    put_frame(bundle.wire, len, 'r');
    bundle.count = 1;
    bundle.frames = allocate(sizeof *bundle.frames);
    bundle.frames[0].data = bundle.wire + RAW_PREFIX;
    bundle.frames[0].len = len;
    for (way = 0; way < WAYS_TO_SEND; way++)
        CHECK_INT(send_by(way, conn, &bundle), want);
    bundle_free(&bundle);
}

static void check_taken(qnet_conn *conn, int fd, size_t len)
{
    uint8_t *frame = allocate(len);

    memset(frame, 't', len);
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
    check_frame(fd, len, 't');
    free(frame);
}

/* Of frames out of range nothing is written: the next frame is the first that the peer reads. */
static void frame_sizes(void)
{
    static const struct {
        int64_t limit; /* 0: the default */
        size_t longest;
    } cases[] = { { 0, 65535 }, { 14, 14 }, { 100, 100 }, { 69632, 69632 } };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        if (cases[i].limit)
            CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, cases[i].limit), QNET_OK);
        check_refused(conn, 0, QNET_ERR_FRAME_SIZE);
        check_refused(conn, 13, QNET_ERR_FRAME_SIZE);
        check_refused(conn, cases[i].longest + 1, QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_send(conn, "fourteen bytes", (size_t)-1), QNET_ERR_FRAME_SIZE);
        CHECK(!raw_readable(fd, 20));
        check_taken(conn, fd, cases[i].longest);
        check_taken(conn, fd, 14);
        check_all_sent(conn, 2);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));
    }
}

/* Frames shorter than Ethernet allows are filled up with zeroes, on the wire only. */
static void padding(void)
{
    static const size_t sizes[] = { 14, 15, 42, 59, 60, 61, 1514 };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    struct flow flow = { sizes, COUNT, 0 };
    struct bundle bundle = bundle_make(&flow, COUNT);
    uint8_t want[1514], got[1514];
    int way, fd;
    size_t i;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 1), QNET_OK);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(send_by(way, conn, &bundle), COUNT);
        for (i = 0; i < COUNT; i++) {
            size_t len = sizes[i] < 60 ? 60 : sizes[i];

            memset(want, 0, sizeof want);
            memcpy(want, bundle.frames[i].data, sizes[i]);
            CHECK_INT(raw_recv(fd, got, sizeof got), len);
            CHECK(memcmp(got, want, len) == 0);
        }
    }
    check_refused(conn, 13, QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 0), QNET_OK);
    check_taken(conn, fd, 14);
    bundle_free(&bundle);
}

/* ---- Batches ---- */

static qnet_frame frame_at(const void *data, size_t len)
{
    qnet_frame frame;

    frame.data = data;
    frame.len = len;
    return frame;
}

/* The first bad frame stops a batch, and is an error only when it is the first of all. */
static void batch_stops_at_a_bad_frame(void)
{
    static uint8_t data[65536];
    const struct {
        qnet_frame bad;
        int error;
    } cases[] = {
        { frame_at(data, 13), QNET_ERR_FRAME_SIZE },
        { frame_at(data, 0), QNET_ERR_FRAME_SIZE },
        { frame_at(data, 65536), QNET_ERR_FRAME_SIZE },
        { frame_at(NULL, 14), QNET_ERR_INVALID },
    };
    qnet_frame frames[4];
    size_t i, place;

    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        for (place = 0; place < 4; place++) {
            size_t k;
            int fd;
            qnet_conn *conn = raw_pair(&fd);

            for (k = 0; k < 4; k++)
                frames[k] = frame_at("twenty bytes or more", 14 + k);
            frames[place] = cases[i].bad;
            CHECK_INT(qnet_send_batch(conn, frames, 4), place > 0 ? (int)place : cases[i].error);
            CHECK_INT(qnet_close(conn), QNET_OK);
            for (k = 0; k < place; k++)
                CHECK_INT(raw_recv(fd, data, sizeof data), 14 + k);
            CHECK(raw_ended(fd));
            close(fd);
        }
}

static void sends_of_nothing(void)
{
    qnet_frame frame = frame_at("fourteen bytes", 14);
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_send_batch(conn, &frame, 0), 0);
    CHECK_INT(qnet_send_packed(conn, "", 0), 0);
    CHECK_INT(qnet_flush(conn), 0);
    CHECK_INT(qnet_send(conn, NULL, 14), QNET_ERR_INVALID);
    CHECK_INT(qnet_send_batch(conn, NULL, 1), QNET_ERR_INVALID);
    CHECK_INT(qnet_send_packed(conn, NULL, 18), QNET_ERR_INVALID);
    CHECK(!raw_readable(fd, 20));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

/* Packed bytes that end inside a frame: it is not sent, and those before it are. */
static void packed_cut_short(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    struct bundle bundle = bundle_make(&flow, 3);
    size_t whole = RAW_PREFIX + short_frame, cut;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    for (cut = 1; cut < whole; cut++) {
        CHECK_INT(qnet_send_packed(conn, bundle.wire, cut), QNET_ERR_INVALID);
        flow.next = 0;
        CHECK_INT(qnet_send_packed(conn, bundle.wire, 2 * whole + cut), 2);
        raw_take_until(fd, &flow, 2);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    bundle_free(&bundle);
}

/* A length that no frame may have, with so many bytes behind it: those before it are sent. */
static void packed_out_of_range(void)
{
    static const size_t lengths[] = { 0, 1, 13, 65536, QNET_FRAME_MAX + 1 };
    uint8_t *wire = allocate(2 * (RAW_PREFIX + QNET_FRAME_MAX + 1));
    int fd, result;
    qnet_conn *conn = raw_pair(&fd);
    size_t i;

    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t *end = put_frame(wire, lengths[i], 'x');
        CHECK_INT(qnet_send_packed(conn, wire, (size_t)(end - wire)), QNET_ERR_FRAME_SIZE);
        end = put_frame(put_frame(wire, 20, 'g'), lengths[i], 'x');
        CHECK_INT(qnet_send_packed(conn, wire, (size_t)(end - wire)), 1);
        check_frame(fd, 20, 'g');
    }
    memset(wire, 0xff, RAW_PREFIX + 100);
    result = qnet_send_packed(conn, wire, RAW_PREFIX + 100);
    CHECK(result == QNET_ERR_FRAME_SIZE || result == QNET_ERR_INVALID);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    free(wire);
}

/* Far more frames in one call than the system takes pieces in one. */
static void thousands_at_once(void)
{
    unsigned count = 1500 + (unsigned)rounds(4500);
    int way, fd;
    struct flow flow = flow_of_small_frames();
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 65536);
    for (way = 1; way < WAYS_TO_SEND; way++) {
        struct raw_job reader;

        raw_start(&reader, raw_reading, fd, flow, count);
        CHECK_INT(flow_send(&flow, conn, way, count), count);
        join_thread(reader.thread);
    }
    check_all_sent(conn, 2 * count);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

/* ---- Many threads ---- */

enum { THREADS = 4 };

struct crowd {
    pthread_t thread;
    qnet_conn *conn;
    int way;
    struct flow flow;
    unsigned end;
};

/* Sends its frames, three at a time; told not to wait, it waits by poll. */
static void *crowding(void *argument)
{
    struct crowd *crowd = argument;

    while (crowd->flow.next < crowd->end) {
        unsigned left = crowd->end - crowd->flow.next;
        struct pollfd writable = { -1, POLLOUT, 0 };
        int result = flow_send(&crowd->flow, crowd->conn, crowd->way, left < 3 ? left : 3);

        CHECK(result > 0 || result == QNET_ERR_AGAIN);
        if (result > 0)
            continue;
        writable.fd = qnet_fd(crowd->conn);
        CHECK(poll(&writable, 1, patience_ms()) == 1);
        raw_sleep_ms(1);
    }
    return NULL;
}

/* Every thread's frames arrive in its own order, and no two are mixed. */
static void crowd_sends(int timeout_ms)
{
    static uint8_t frame[QNET_FRAME_MAX];
    unsigned each = 6 + (unsigned)rounds(200), count;
    struct crowd crowds[THREADS];
    struct flow expected[THREADS];
    int i, fd;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    squeeze(conn, fd, 16384);
    send_timeout(conn, timeout_ms);
    for (i = 0; i < THREADS; i++) {
        crowds[i].conn = conn;
        crowds[i].way = i % WAYS_TO_SEND;
        crowds[i].flow = i % 2 ? flow_of_all_sizes() : flow_of_small_frames();
        crowds[i].flow.next = (unsigned)i << 24;
        crowds[i].end = crowds[i].flow.next + each;
        expected[i] = crowds[i].flow;
        start_thread(&crowds[i].thread, crowding, &crowds[i]);
    }
    for (count = 0; count < THREADS * each; count++) {
        long len = raw_recv(fd, frame, sizeof frame);

        CHECK(len >= 14);
        CHECK(frame[0] < THREADS);
        flow_take(&expected[frame[0]], frame, (size_t)len);
    }
    for (i = 0; i < THREADS; i++)
        join_thread(crowds[i].thread);
    check_all_sent(conn, THREADS * each);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

static void many_threads_waiting(void)
{
    crowd_sends(-1);
}

static void many_threads_not_waiting(void)
{
    crowd_sends(0);
}

int main(void)
{
    RUN_EACH(exact_bytes);
    RUN(frame_sizes);
    RUN(padding);
    RUN(batch_stops_at_a_bad_frame);
    RUN(sends_of_nothing);
    RUN(packed_cut_short);
    RUN(packed_out_of_range);
    RUN_EACH(thousands_at_once);
    RUN_EACH(many_threads_waiting);
    RUN_EACH(many_threads_not_waiting);
    return check_done();
}
