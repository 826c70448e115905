/*
 * batch.c - frames received several at a time: what a batch lends and for how long; and
 * many threads that receive from one connection.
 */
#include "receiving.h"

/* ---- Batches and what they lend ---- */

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

/* Receives at most `count` frames on loan, which ends the loan before. */
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

/*
 * Allocates, overwrites and frees memory, so that lent bytes that were freed do not stay
 * as they were.
 */
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

/* Frames fill the library's buffer to the last byte, with nothing after them. */
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

/*
 * After AGAIN, or fewer frames than asked for, the descriptor becomes readable with the
 * next frame.
 */
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

/* Receives of other threads may end its loans at once, so it only adds up the lengths. */
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

int main(void)
{
    RUN_EACH(loans_of_short_frames);
    RUN_EACH(loans_of_long_frames);
    RUN(loans_that_fill_a_buffer);
    RUN(batch_arguments);
    RUN(descriptor_after_a_batch);
    RUN(packed_bytes);
    RUN_EACH(many_receivers);
    return check_done();
}
