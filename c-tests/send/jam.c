/*
 * jam.c - sends to a peer that reads late, slowly or never, leaves meanwhile, or
 * is gone: each frame arrives whole or not at all, and is counted.
 */
#include "sending.h"

static const size_t short_frame = 64, jumbo_frame = 9000, long_frame = 65535;

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
 * Fills until nothing moves any more, not in the kernel either, where TCP takes
 * its time to acknowledge, and the library holds a part of the last frame.
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

/* ---- A peer that stops reading ---- */

/* Buffers of `buffer` bytes, or of the usual size where that is 0, and frames of these lengths. */
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
 * What was taken arrives from frame number `read` on, without a further call, and
 * nothing behind it; then sending goes on as before.
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

/* A thread that sends a number of frames, and what that gave. */
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

/* The peer takes its time with every frame: none of them waits too long, but all together would. */
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

/* After QNET_ERR_AGAIN a send may be tried again when poll() says POLLOUT, and succeeds in the end. */
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

/* After a shutdown the library writes what was taken by itself. */
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

/* Reads whole frames until the end, which may come inside a frame; how many there were. */
static unsigned whole_frames(int fd, struct flow *expected)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long len;

    while ((len = raw_recv(fd, frame, sizeof frame)) >= 0)
        flow_take(expected, frame, (size_t)len);
    return expected->next;
}

/* What could not be written in the time to linger is counted as lost. */
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

/* Closing does not wait for the peer to read where there is no time to linger. */
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

/* Sending to nobody raises no signal, gives QNET_ERR_CLOSED, and loses nothing that was received. */
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

/* Fills the socket, and starts a thread that waits for room for one more frame. */
static void sender_waits(struct sender *sender, qnet_conn *conn, int way, struct flow *flow)
{
    fill_up(conn, way, flow);
    send_timeout(conn, -1);
    sender_start(sender, conn, way, *flow, 1);
    raw_sleep_ms(20);
    CHECK(!sender_done(sender));
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
        sender_waits(&sender, conn, way, &flow);
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

/* A Unix peer says that it will not read any more, while a send waits for it; no descriptor tells that. */
static void peer_stops_reading_for_good(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&long_frame);
        struct sender sender;
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        sender_waits(&sender, conn, way, &flow);
        CHECK(shutdown(fd, SHUT_RD) == 0);
        join_thread(sender.thread);
        CHECK_INT(sender.result, QNET_ERR_CLOSED);
        CHECK_INT(qnet_flush(conn), QNET_ERR_CLOSED);
        check_counted(conn, flow.next);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/*
 * The peer ends its direction, but goes on reading: what it reads whole counts as
 * sent, and the rest as lost.
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

/* After the connection was ended here, every send gives the reason and takes nothing. */
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

/* Signals the thread until its call returns, as the first signal may come too early. */
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
 * A signal while the socket has a part of the frame: the send succeeds at once, and
 * the library writes the rest by itself. (Not over TCP, whose buffers have room
 * for the whole frame.)
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

/* A signal in the middle of a batch: the send gives how many frames were taken, and those arrive. */
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

/* A signal while the socket has nothing of the frame: it is not sent. */
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
    RUN_EACH(peer_stops_reading_no_timeout);
    RUN_EACH(peer_stops_reading_some_timeout);
    RUN_EACH(peer_stops_reading_endless);
    RUN(each_frame_has_its_own_time);
    RUN_EACH(retry_on_pollout);
    RUN_EACH(flush_results);
    RUN_EACH(close_writes_the_rest);
    RUN_EACH(shutdown_writes_the_rest);
    RUN_EACH(no_linger_loses_and_counts);
    RUN_EACH(short_linger_loses_and_counts);
    RUN_EACH(close_without_linger);
    RUN_EACH(peer_gone);
    RUN_EACH(peer_leaves_a_blocked_send);
    RUN(peer_stops_reading_for_good);
    RUN_EACH(peer_half_closes);
    RUN_EACH_TCP(peer_resets);
    RUN_EACH(sends_after_the_own_end);
    RUN_EACH(signals_during_a_send);
    return check_done();
}
