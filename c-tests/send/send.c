/*
 * send.c - what the peer's plain socket reads when frames are sent: each one
 * whole or absent, in order, however slowly, late or never the peer reads.
 */
#include "ways.h"

static const size_t short_frame = 64, jumbo_frame = 9000, long_frame = 65535;

/* A prefix and a frame of `len` bytes that all are `byte`; returns what follows. */
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

/*
 * Small buffers on both sides, so that little is enough to fill them; but not
 * so small that TCP crawls, which wants room for a segment.
 */
static void squeeze(qnet_conn *conn, int fd, int bytes)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, bytes), QNET_OK);
    if (bytes < 65536)
        bytes = 65536;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
}

static void send_timeout(qnet_conn *conn, int ms)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, ms), QNET_OK);
}

/* Sends, five at a time, until that fails; returns the error. */
static int fill(qnet_conn *conn, int way, struct flow *flow)
{
    int result;

    do {
        CHECK(flow->next < 4000000);
        result = flow_send(flow, conn, way, 5);
    } while (result > 0);
    return result;
}

/*
 * Fills until nothing moves any more, not in the kernel either (TCP takes its
 * time to acknowledge), and the library holds a part of the last frame.
 */
static void fill_up(qnet_conn *conn, int way, struct flow *flow)
{
    long pause_ms = link_now && link_now->family != AF_UNIX ? 120 : 2;
    unsigned before;

    send_timeout(conn, 0);
    do {
        before = flow->next;
        CHECK_INT(fill(conn, way, flow), QNET_ERR_AGAIN);
        raw_sleep_ms(pause_ms);
    } while (flow->next != before || qnet_flush(conn) != QNET_ERR_AGAIN);
}

/* Every taken frame ends in exactly one of two counters. */
static void check_counted(qnet_conn *conn, unsigned taken)
{
    EVENTUALLY(stats_of(conn).tx_frames + stats_of(conn).tx_dropped == taken);
    raw_sleep_ms(5);
    CHECK_INT(stats_of(conn).tx_frames + stats_of(conn).tx_dropped, taken);
}

static void check_all_sent(qnet_conn *conn, unsigned taken)
{
    check_counted(conn, taken);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
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

/* One frame of `len` bytes by every way; each must fail so. */
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

/* Frames out of range write nothing: the next frame is the first that the peer reads. */
static void frame_sizes(void)
{
    static const struct {
        int64_t limit; /* 0: as it is by default */
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

/* Packed bytes that end too early: at every byte of the third frame. */
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

/* A length that no frame may have, with as many bytes as it says. */
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

/* ---- A peer that stops reading ---- */

/* Buffers of `buffer` bytes (0: as they are) and frames of these lengths. */
struct jam {
    int buffer;
    struct flow (*flow)(void);
};

static struct flow flow_of_long_frames(void)
{
    return flow_of_one_size(&long_frame);
}

static struct flow flow_of_jumbo_frames(void)
{
    return flow_of_one_size(&jumbo_frame);
}

static const struct jam jams[] = {
    { 0, flow_of_long_frames },
    { 65536, flow_of_jumbo_frames },
    { 4096, flow_of_long_frames },
    { 4096, flow_of_small_frames },
};
enum { JAMS = sizeof jams / sizeof *jams };

static qnet_conn *open_jammed(const struct jam *jam, int *fd)
{
    qnet_conn *conn = link_open(fd);

    if (jam->buffer)
        squeeze(conn, *fd, jam->buffer);
    return conn;
}

/*
 * From frame `read` on, what was taken arrives, without a further call, and no
 * byte more; then everything goes on as before.
 */
static void check_recovery(qnet_conn *conn, int fd, int way, struct flow *flow, unsigned read)
{
    struct flow expected = *flow;
    unsigned taken = flow->next;
    struct raw_job reader;

    expected.next = read;
    raw_take_until(fd, &expected, taken);
    CHECK(!raw_readable(fd, 10));
    check_all_sent(conn, taken);
    send_timeout(conn, -1);
    raw_start(&reader, raw_reading, fd, expected, 1);
    CHECK_INT(flow_send(flow, conn, way, 1), 1);
    join_thread(reader.thread);
    check_all_sent(conn, taken + 1);
}

static void jam_and_recover(int timeout_ms, int want)
{
    int i, way;

    for (i = 0; i < JAMS; i++)
        for (way = 0; way < WAYS_TO_SEND; way++) {
            struct flow flow = jams[i].flow();
            long long before;
            int fd;
            qnet_conn *conn = open_jammed(&jams[i], &fd);

            send_timeout(conn, timeout_ms);
            before = raw_now_ms();
            CHECK_INT(fill(conn, way, &flow), want);
            CHECK(raw_now_ms() - before >= timeout_ms);
            check_recovery(conn, fd, way, &flow, 0);
            CHECK_INT(qnet_close(conn), QNET_OK);
            CHECK(raw_ended(fd));
            close(fd);
        }
}

static void peer_stops_reading_no_timeout(void)
{
    jam_and_recover(0, QNET_ERR_AGAIN);
}

static void peer_stops_reading_some_timeout(void)
{
    jam_and_recover(20, QNET_ERR_TIMEOUT);
}

/* A thread that sends a number of frames, and says how it went. */
struct sender {
    pthread_t thread;
    qnet_conn *conn;
    int way;
    struct flow flow;
    size_t count;
    int result;
    pthread_mutex_t lock;
    int done;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;

    sender->result = flow_send(&sender->flow, sender->conn, sender->way, sender->count);
    pthread_mutex_lock(&sender->lock);
    sender->done = 1;
    pthread_mutex_unlock(&sender->lock);
    return NULL;
}

static void sender_start(struct sender *sender, qnet_conn *conn, int way, struct flow flow,
                         size_t count)
{
    memset(sender, 0, sizeof *sender);
    sender->conn = conn;
    sender->way = way;
    sender->flow = flow;
    sender->count = count;
    CHECK_INT(pthread_mutex_init(&sender->lock, NULL), 0);
    start_thread(&sender->thread, sending, sender);
}

static int sender_done(struct sender *sender)
{
    int done;

    pthread_mutex_lock(&sender->lock);
    done = sender->done;
    pthread_mutex_unlock(&sender->lock);
    return done;
}

/* Without a limit, which is the default, a send waits until the peer reads again. */
static void peer_stops_reading_endless(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&jumbo_frame), expected = flow;
        struct sender sender;
        int fd;
        qnet_conn *conn = link_open(&fd);

        squeeze(conn, fd, 16384);
        sender_start(&sender, conn, way, flow, 300);
        CHECK(raw_readable(fd, patience_ms()));
        raw_sleep_ms(100);
        CHECK(!sender_done(&sender));
        raw_take_until(fd, &expected, 300);
        join_thread(sender.thread);
        CHECK_INT(sender.result, 300);
        check_all_sent(conn, 300);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));
        close(fd);
    }
}

/* The peer takes its time with every frame; none waits too long, but all together would. */
static void each_frame_has_its_own_time(void)
{
    enum { COUNT = 12, PAUSE_MS = 50 };
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&long_frame), expected = flow;
        struct sender sender;
        int fd, pause = PAUSE_MS * check_slow();
        qnet_conn *conn = raw_pair(&fd);

        squeeze(conn, fd, 4096);
        send_timeout(conn, COUNT / 2 * pause);
        sender_start(&sender, conn, way, flow, COUNT);
        while (expected.next < COUNT) {
            raw_sleep_ms(pause);
            raw_take(fd, &expected);
        }
        join_thread(sender.thread);
        CHECK_INT(sender.result, COUNT);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));
        close(fd);
    }
}

/* When POLLOUT comes after AGAIN the send may be tried again, and in the end succeeds. */
static void retry_on_pollout(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&long_frame), expected = flow;
        struct raw_job reader;
        long long until;
        int fd, result;
        qnet_conn *conn = link_open(&fd);

        squeeze(conn, fd, 4096);
        fill_up(conn, way, &flow);
        raw_start(&reader, raw_reading, fd, expected, flow.next + 20);
        for (until = flow.next + 20; flow.next < until;) {
            struct pollfd writable = { qnet_fd(conn), POLLOUT, 0 };

            CHECK_INT(poll(&writable, 1, patience_ms()), 1);
            result = flow_send(&flow, conn, way, 1);
            CHECK(result == 1 || result == QNET_ERR_AGAIN);
            if (result != 1)
                raw_sleep_ms(1);
        }
        join_thread(reader.thread);
        check_all_sent(conn, flow.next);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* qnet_flush waits as a send does, and is done when nothing is held. */
static void flush_results(void)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    struct raw_job reader;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    CHECK_INT(qnet_flush(conn), 0);
    fill_up(conn, 1, &flow);
    CHECK_INT(qnet_flush(conn), QNET_ERR_AGAIN);
    send_timeout(conn, 20);
    CHECK_INT(qnet_flush(conn), QNET_ERR_TIMEOUT);
    send_timeout(conn, -1);
    raw_start(&reader, raw_reading, fd, expected, flow.next);
    CHECK_INT(qnet_flush(conn), 0);
    CHECK_INT(stats_of(conn).tx_frames, flow.next);
    join_thread(reader.thread);
    CHECK(!raw_readable(fd, 10));
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_flush(conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
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

/* ---- Closing with something unwritten ---- */

/* Closing writes what was taken, when the peer reads in time. */
static void close_writes_the_rest(void)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    struct raw_job reader;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    fill_up(conn, 1, &flow);
    memset(&reader, 0, sizeof reader);
    reader.fd = fd;
    reader.flow = expected;
    reader.count = flow.next;
    reader.delay_ms = 100;
    start_thread(&reader.thread, raw_reading, &reader);
    CHECK_INT(qnet_close(conn), QNET_OK);
    join_thread(reader.thread);
    CHECK(raw_ended(fd));
}

/* After a shutdown the library does so by itself. */
static void shutdown_writes_the_rest(void)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    fill_up(conn, 1, &flow);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    raw_sleep_ms(50);
    raw_take_until(fd, &expected, flow.next);
    CHECK(raw_ended(fd));
    check_all_sent(conn, flow.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Reads whole frames until the end, which may come inside one; how many there were. */
static unsigned whole_frames(int fd, struct flow *expected)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long len;

    while ((len = raw_recv(fd, frame, sizeof frame)) >= 0)
        flow_take(expected, frame, (size_t)len);
    return expected->next;
}

/* What could not be written in the time to linger is lost, and counted as such. */
static void lost_at_the_end(int linger_ms)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    qnet_stats stats;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, linger_ms), QNET_OK);
    fill_up(conn, 1, &flow);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    check_counted(conn, flow.next);
    stats = stats_of(conn);
    CHECK(stats.tx_dropped > 0);
    CHECK_INT(whole_frames(fd, &expected), stats.tx_frames);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void no_linger_loses_and_counts(void)
{
    lost_at_the_end(0);
}

static void short_linger_loses_and_counts(void)
{
    lost_at_the_end(50);
}

/* However little the peer reads, closing ends; here after no time at all. */
static void close_without_linger(void)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 0), QNET_OK);
    fill_up(conn, 0, &flow);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(whole_frames(fd, &expected) < flow.next);
}

/* ---- A peer that is gone ---- */

/* Sends until that fails, which it must; returns the error. */
static int send_until_failure(qnet_conn *conn, int way, unsigned *taken)
{
    struct flow flow = flow_of_one_size(&short_frame);
    long long until = raw_now_ms() + patience_ms();
    int result;

    do {
        CHECK(raw_now_ms() < until);
        result = flow_send(&flow, conn, way, 2);
        raw_sleep_ms(1);
    } while (result > 0);
    *taken = flow.next;
    return result;
}

/* Writing to nobody raises no signal, says CLOSED, and loses nothing that was received. */
static void peer_gone(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        unsigned taken;
        int fd;
        qnet_conn *conn = link_open(&fd);

        raw_send_flow(fd, &flow, 7, 0);
        close(fd);
        CHECK_INT(send_until_failure(conn, way, &taken), QNET_ERR_CLOSED);
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        taker_start(&taker, conn, BY_RECV + way, flow_each, &expected);
        taker_want(&taker, 7);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        CHECK_INT(send_until_failure(conn, way, &taken), QNET_ERR_CLOSED);
        CHECK_INT(taken, 0);
        CHECK_INT(qnet_flush(conn), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

/* The peer leaves while a send waits for it, with frames underway. */
static void peer_leaves_a_blocked_send(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&long_frame);
        struct sender sender;
        unsigned taken;
        int fd, ended;
        qnet_conn *conn = link_open(&fd);

        squeeze(conn, fd, 4096);
        fill_up(conn, way, &flow);
        send_timeout(conn, -1);
        sender_start(&sender, conn, way, flow, 1);
        raw_sleep_ms(20);
        CHECK(!sender_done(&sender));
        close(fd);
        join_thread(sender.thread);
        CHECK(sender.result == QNET_ERR_CLOSED || sender.result == QNET_ERR_OS);
        ended = qnet_recv(conn, NULL, 0, patience_ms());
        CHECK(ended == QNET_ERR_CLOSED || ended == QNET_ERR_OS);
        taken = flow.next;
        check_counted(conn, taken);
        CHECK(stats_of(conn).tx_dropped > 0);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

/*
 * The peer says nothing more, but reads: what it reads whole counts as sent,
 * and the rest as lost.
 */
static void peer_half_closes(void)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    fill_up(conn, 1, &flow);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    CHECK_INT(qnet_recv(conn, NULL, 0, patience_ms()), QNET_ERR_CLOSED);
    CHECK_INT(qnet_flush(conn), QNET_ERR_CLOSED);
    whole_frames(fd, &expected);
    check_counted(conn, flow.next);
    CHECK_INT(stats_of(conn).tx_frames, expected.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void reset_by_closing(int fd)
{
    raw_reset_at_close(fd);
    close(fd);
}

static void peer_resets(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        unsigned taken;
        int fd;
        qnet_conn *conn = link_open(&fd);

        reset_by_closing(fd);
        CHECK_INT(send_until_failure(conn, way, &taken), QNET_ERR_OS);
        CHECK_INT(qnet_last_errno(), ECONNRESET);
        CHECK(qnet_last_error()[0] != '\0');
        CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
        CHECK_INT(qnet_recv(conn, NULL, 0, patience_ms()), QNET_ERR_OS);
        CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
        CHECK_INT(send_until_failure(conn, way, &taken), QNET_ERR_OS);
        CHECK_INT(taken, 0);
        CHECK_INT(qnet_flush(conn), QNET_ERR_OS);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

/* Sends after the own end gives the reason, every time, and take nothing. */
static void sends_after_the_own_end(void)
{
    int way, fd;
    unsigned taken;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(send_until_failure(conn, way, &taken), QNET_ERR_CLOSED);
        CHECK_INT(taken, 0);
    }
    CHECK_INT(qnet_flush(conn), QNET_ERR_CLOSED);
    CHECK(raw_ended(fd));
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* ---- Signals ---- */

static void on_signal(int number)
{
    (void)number;
}

static void catch_signal(int flags)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
}

/* Signals the thread until its call returns: the first may have come too early. */
static void interrupt(struct sender *sender)
{
    long long until = raw_now_ms() + patience_ms();

    raw_sleep_ms(20);
    CHECK(!sender_done(sender));
    while (!sender_done(sender)) {
        CHECK(raw_now_ms() < until);
        pthread_kill(sender->thread, SIGUSR1);
        raw_sleep_ms(10);
    }
    join_thread(sender->thread);
}

/*
 * A frame that the socket has a part of is sent: success at once, the rest by
 * itself. (TCP's buffers have room for one frame.)
 */
static void interrupt_begun(int way)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    struct sender sender;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    fill_up(conn, way, &flow);
    raw_take_until(fd, &expected, flow.next);
    send_timeout(conn, -1);
    sender_start(&sender, conn, way, flow, 1);
    CHECK(raw_readable(fd, patience_ms()));
    interrupt(&sender);
    CHECK_INT(sender.result, 1);
    check_recovery(conn, fd, way, &sender.flow, flow.next);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* The same when it is not the first frame. */
static void interrupt_batch(int way)
{
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    struct sender sender;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    sender_start(&sender, conn, way, flow, 200);
    raw_take(fd, &expected);
    interrupt(&sender);
    CHECK(sender.result > 0 && sender.result < 200);
    raw_take_until(fd, &expected, (unsigned)sender.result);
    CHECK(!raw_readable(fd, 20));
    check_all_sent(conn, (unsigned)sender.result);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* A frame that the socket has nothing of is not sent. */
static void interrupt_not_begun(int way)
{
    struct flow flow = flow_of_one_size(&long_frame);
    struct sender sender;
    int fd;
    qnet_conn *conn = link_open(&fd);

    squeeze(conn, fd, 4096);
    fill_up(conn, way, &flow);
    send_timeout(conn, -1);
    sender_start(&sender, conn, way, flow, 1);
    interrupt(&sender);
    CHECK_INT(sender.result, QNET_ERR_INTERRUPTED);
    check_recovery(conn, fd, way, &flow, 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

static void signals_during_a_send(void)
{
    static const int flags[WAYS_TO_SEND] = { 0, SA_RESTART, 0 };
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        catch_signal(flags[way]);
        if (link_now->family == AF_UNIX)
            interrupt_begun(way);
        interrupt_batch(way);
        interrupt_not_begun(way);
    }
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
    RUN_EACH(peer_stops_reading_no_timeout);
    RUN_EACH(peer_stops_reading_some_timeout);
    RUN_EACH(peer_stops_reading_endless);
    RUN(each_frame_has_its_own_time);
    RUN_EACH(retry_on_pollout);
    RUN_EACH(flush_results);
    RUN_EACH(many_threads_waiting);
    RUN_EACH(many_threads_not_waiting);
    RUN_EACH(close_writes_the_rest);
    RUN_EACH(shutdown_writes_the_rest);
    RUN_EACH(no_linger_loses_and_counts);
    RUN_EACH(short_linger_loses_and_counts);
    RUN_EACH(close_without_linger);
    RUN_EACH(peer_gone);
    RUN_EACH(peer_leaves_a_blocked_send);
    RUN_EACH(peer_half_closes);
    RUN_EACH_TCP(peer_resets);
    RUN_EACH(sends_after_the_own_end);
    RUN_EACH(signals_during_a_send);
    return check_done();
}
