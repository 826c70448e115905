/*
 * coalesce.c - frames that are coalesced: held back for a time, to be written
 * together. All of them arrive, whole, in order and without a further call, and
 * next to nothing runs while they are held, or corked.
 */
#include <dirent.h>
#include <sys/resource.h>

#include "scene.h"

static const size_t too_long_to_hold = 65535;

/* ---- Coalescing ---- */

static qnet_conn *coalescing(int *fd, int64_t usecs)
{
    qnet_conn *conn = raw_pair(fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, usecs), QNET_OK);
    return conn;
}

static void range_of_time(void)
{
    static const int64_t good[] = { 0, 1, 50, 1000000 };
    static const int64_t bad[] = { -1, 1000001, INT64_MAX, INT64_MIN };
    int fd;
    size_t i;
    int64_t value;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_get(conn, QNET_OPT_TX_USECS, &value), QNET_OK);
    CHECK_INT(value, 0);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, good[i]), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, bad[i]), QNET_ERR_INVALID);
        CHECK_INT(qnet_get(conn, QNET_OPT_TX_USECS, &value), QNET_OK);
        CHECK_INT(value, good[i]);
    }
    CHECK_INT(qnet_get(conn, QNET_OPT_CORK, &value), QNET_OK);
    CHECK_INT(value, 1);
    CHECK_INT(qnet_set(conn, QNET_OPT_CORK, 2), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(conn, QNET_OPT_CORK, -1), QNET_ERR_INVALID);
}

/* Frames arrive without a further call, however few they are. */
static void nothing_is_left(void)
{
    static const int times[] = { 1, 50, 20000, 300000 };
    size_t i;
    unsigned count;

    for (i = 0; i < sizeof times / sizeof *times; i++) {
        for (count = 1; count <= 4; count++) {
            struct flow flow = flow_of_one_size(&short_frame);
            int fd;
            qnet_conn *conn = coalescing(&fd, times[i]);

            CHECK_INT(flow_send(&flow, conn, 0, count), count);
            take_all(fd, &short_frame, count, 0);
            check_sent(conn, count);
        }
    }
}

/* Many frames of all sizes, by every way to send, on every kind of connection. */
static void coalesced_stream(void)
{
    unsigned count = (unsigned)rounds(2000);
    struct flow flow = flow_of_all_sizes();
    struct raw_job reader;
    int fd;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 200), QNET_OK);
    raw_start(&reader, raw_reading, fd, flow, count);
    while (flow.next < count) {
        unsigned some = flow.next % 7 + 1;

        some = some < count - flow.next ? some : count - flow.next;
        CHECK_INT(flow_send(&flow, conn, (int)(flow.next % WAYS_TO_SEND), some), some);
    }
    join_thread(reader.thread);
    check_sent(conn, count);
}

/* There are far fewer writes than frames. */
static void coalesced_writes(void)
{
    unsigned count = (unsigned)rounds(20000);
    struct flow flow = flow_of_one_size(&short_frame);
    struct raw_job reader;
    int fd;
    qnet_conn *conn = coalescing(&fd, 20000);

    raw_start(&reader, raw_reading, fd, flow, count);
    CHECK_INT(flow_send(&flow, conn, 0, count), count);
    join_thread(reader.thread);
    check_sent(conn, count);
    CHECK(stats_of(conn).tx_writes < count / 10);
}

enum { HELD = 100 };

static void end_by_close(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void end_by_shutdown(qnet_conn *conn)
{
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
}

static void end_by_flush(qnet_conn *conn)
{
    CHECK_INT(qnet_flush(conn), QNET_OK);
}

static void end_by_option(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 0), QNET_OK);
}

/* What writes frames before their time is over, a second; turning the option off does not. */
static void ends_of_holding(void)
{
    static const struct {
        void (*act)(qnet_conn *conn);
        int at_once, ends;
    } cases[] = {
        { end_by_flush, 1, 0 },
        { end_by_close, 1, 1 },
        { end_by_shutdown, 0, 1 },
        { end_by_option, 0, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct flow flow = flow_of_one_size(&short_frame);
        int fd;
        qnet_conn *conn = coalescing(&fd, 1000000);

        CHECK_INT(flow_send(&flow, conn, 0, HELD), HELD);
        cases[i].act(conn);
        if (cases[i].at_once)
            CHECK_INT(bytes_waiting(fd), HELD * (RAW_PREFIX + short_frame));
        take_all(fd, &short_frame, HELD, cases[i].ends);
    }
}

/* With the option off, a send is in the socket when it returns, behind what was held. */
static void off_again(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);

    CHECK_INT(flow_send(&flow, conn, 0, HELD), HELD);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 0), QNET_OK);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    CHECK_INT(bytes_waiting(fd), (HELD + 1) * (RAW_PREFIX + short_frame));
    take_all(fd, &short_frame, HELD + 1, 0);
}

/* Makes the time shorter, and sends three frames: how long the last of them takes. */
static long long last_one_ms(void)
{
    struct flow flow = flow_of_one_size(&short_frame), got = flow;
    long long began;
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);

    CHECK_INT(flow_send(&flow, conn, 0, 3), 3);
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 10000), QNET_OK);
    began = raw_now_ms();
    CHECK_INT(flow_send(&flow, conn, 0, 3), 3);
    take(fd, &got, 6);
    return raw_now_ms() - began;
}

/* A shorter time counts from then on; on a busy machine that is seen in one of three tries. */
static void shorter_time(void)
{
    CHECK(last_one_ms() < 500 || last_one_ms() < 500 || last_one_ms() < 500);
}

static void at_most_64_kib_coalesced(void)
{
    const size_t *sizes[] = { &short_frame, &long_frame, &too_long_to_hold };
    size_t i;
    int fd;

    for (i = 0; i < 3; i++) {
        qnet_conn *conn = coalescing(&fd, 1000000);

        send_bounded(conn, fd, sizes[i], sizes[i] == &short_frame ? 2500 : 300);
    }
}

enum { SENDERS = 4 };

struct sender {
    pthread_t thread;
    qnet_conn *conn;
    unsigned id, count;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    uint8_t frame[64];
    unsigned i;

    for (i = 0; i < sender->count; i++) {
        frame_make(frame, sizeof frame, sender->id << 24 | i);
        CHECK_INT(qnet_send(sender->conn, frame, sizeof frame), QNET_OK);
    }
    return NULL;
}

static void four_threads(void)
{
    struct sender senders[SENDERS];
    unsigned next[SENDERS] = { 0 }, count = (unsigned)rounds(5000), i;
    uint8_t frame[64];
    int fd;
    qnet_conn *conn = coalescing(&fd, 100);

    for (i = 0; i < SENDERS; i++) {
        senders[i].conn = conn;
        senders[i].id = i;
        senders[i].count = count;
        start_thread(&senders[i].thread, sending, &senders[i]);
    }
    for (i = 0; i < SENDERS * count; i++) {
        unsigned number;

        CHECK(raw_readable(fd, patience_ms()));
        number = frame_number(frame, (size_t)raw_recv(fd, frame, sizeof frame));
        CHECK(number >> 24 < SENDERS);
        CHECK_INT(number & 0xffffff, next[number >> 24]++);
    }
    for (i = 0; i < SENDERS; i++)
        join_thread(senders[i].thread);
    check_sent(conn, SENDERS * count);
}

/*
 * Sends that do not wait, to a peer that does not read at first: what was taken arrives,
 * through any buffer.
 */
static void coalescing_peer_does_not_read(void)
{
    static const int buffers[] = { 1, 4096, 65536 };
    size_t i;

    for (i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        struct flow flow = flow_of_one_size(&long_frame);
        int fd, result;
        unsigned round, end = 0;
        qnet_conn *conn = coalescing(&fd, 1000);

        CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, buffers[i]), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
        for (round = 0; round < 3; round++) {
            struct flow got = flow_of_one_size(&long_frame);

            got.next = end;
            while ((result = flow_send(&flow, conn, (int)round % WAYS_TO_SEND, 1)) == 1)
                CHECK(flow.next < 4000000);
            CHECK_INT(result, QNET_ERR_AGAIN);
            end = flow.next;
            take(fd, &got, end);
            CHECK(!raw_readable(fd, 10));
            check_sent(conn, end);
        }
    }
}

/* With sends that wait everything arrives through the smallest buffer. */
static void coalescing_small_buffer(void)
{
    unsigned count = (unsigned)rounds(1000);
    struct flow flow = flow_of_all_sizes();
    struct raw_job reader;
    int fd;
    qnet_conn *conn = coalescing(&fd, 100);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 1), QNET_OK);
    raw_start(&reader, raw_reading, fd, flow, count);
    while (flow.next < count)
        CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    join_thread(reader.thread);
    check_sent(conn, count);
}

/*
 * A connection that ends while its peer does not read and frames are held counts them, and
 * does not hang.
 */
static void coalescing_closed_unread(void)
{
    struct flow flow = flow_of_one_size(&long_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);
    qnet_stats stats;

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 50), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(&flow, conn, 0, 1) == 1)
        CHECK(flow.next < 4000000);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    EVENTUALLY((stats = stats_of(conn), stats.tx_frames + stats.tx_dropped) == flow.next);
    CHECK(stats.tx_dropped > 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* A handler's sends on a connection that coalesces are corked and coalesced at once. */
static void corked_and_coalesced(void)
{
    static const int times[] = { 1, 100, 200000 };
    size_t i;

    for (i = 0; i < 3; i++) {
        unsigned count = (unsigned)rounds(1000);
        struct scene *scene = scene_make();

        CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, times[i]), QNET_OK);
        scene_start(scene, on_frame, count, &short_frame);
        take_all(scene->target_fd, &short_frame, count, 0);
        check_sent(scene->target, count);
    }
}

/* Sends three frames, corked and not in turn. */
static void on_frame_switching(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    uint8_t copy[64];
    int i;

    (void)frame;
    CHECK(len == sizeof copy);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_set(scene->target, QNET_OPT_CORK, i % 2), QNET_OK);
        frame_make(copy, sizeof copy, (unsigned)(3 * scene->calls + i));
        CHECK_INT(qnet_send(scene->target, copy, sizeof copy), QNET_OK);
    }
    put(&scene->calls, scene->calls + 1);
}

static void cork_switched_while_coalescing(void)
{
    struct scene *scene = scene_make();

    CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, 1000), QNET_OK);
    scene_start(scene, on_frame_switching, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, 3 * QUEUED, 0);
    check_sent(scene->target, 3 * QUEUED);
}

/* ---- What rests meanwhile ---- */

enum { RESTING_MS = 400, STUCK = 100, STUCK_LIMIT = 40 };

/* How often the library's own thread has gone to sleep; 0 where there is none. */
static long service_wakings(void)
{
    char path[300], line[100];
    struct dirent *entry;
    long wakings = 0, some;
    DIR *tasks = opendir("/proc/self/task");

    CHECK(tasks != NULL);
    while ((entry = readdir(tasks)) != NULL) {
        FILE *status;
        int is_service = 0;

        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        status = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
        while (status && fgets(line, sizeof line, status)) {
            is_service |= strcmp(line, "Name:\tqnet-service\n") == 0;
            if (is_service && sscanf(line, "voluntary_ctxt_switches: %ld", &some) == 1)
                wakings += some;
        }
        if (status)
            fclose(status);
    }
    closedir(tasks);
    return wakings;
}

/* Nothing in this process takes processor time for a while, next to. */
static void rests(void)
{
    long before = cpu_ms();

    raw_sleep_ms(RESTING_MS);
    CHECK(cpu_ms() - before < RESTING_MS / 5);
}

/* Frames that are held for a second for a peer that has left are lost then, and nothing runs before. */
static void coalescing_peer_leaves(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);
    qnet_stats stats;

    CHECK_INT(flow_send(&flow, conn, 0, 5), 5);
    close(fd);
    rests();
    EVENTUALLY((stats = stats_of(conn), stats.tx_frames + stats.tx_dropped) == 5);
    CHECK_INT(flow_send(&flow, conn, 0, 1), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/*
 * A handler goes on for long after many sends, to a peer that is there or has left:
 * nothing runs meanwhile.
 */
static void handler_that_blocks(void)
{
    int leaves;

    for (leaves = 0; leaves < 2; leaves++) {
        struct scene *scene = scene_make();
        long wakings;

        scene->may_fail = leaves;
        scene->when = QUEUED - 2;
        scene->act = act_pause;
        scene_start(scene, on_frame, QUEUED, &short_frame);
        EVENTUALLY(get(&scene->is_acting));
        if (leaves)
            close(scene->target_fd);
        else
            EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
        wakings = service_wakings();
        rests();
        CHECK(service_wakings() - wakings < RESTING_MS / 20);
        put(&scene->may_go_on, 1);
        EVENTUALLY(get(&scene->calls) == QUEUED);
        if (!leaves)
            take_all(scene->target_fd, &short_frame, QUEUED, 0);
    }
}

/* What a handler sends is written when it returns, also where its connection holds frames for a second. */
static void handler_sends_what_is_coalesced(void)
{
    struct scene *scene = scene_make();
    struct flow flow = flow_of_one_size(&short_frame), sent = flow;
    qnet_stats stats;

    CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, 1000000), QNET_OK);
    CHECK_INT(flow_send(&sent, scene->target, 0, 3), 3);
    raw_send_flow(scene->source_fd, &flow, 8, 0);
    CHECK_INT(qnet_set_handler(scene->source, on_frame, scene), QNET_OK);
    EVENTUALLY(__atomic_load_n(&scene->calls, __ATOMIC_SEQ_CST) == 8);
    CHECK_INT(qnet_set_handler(scene->source, NULL, NULL), QNET_OK);
    CHECK(qnet_get_stats(scene->target, &stats, sizeof stats) >= (int)sizeof stats);
    CHECK_INT(stats.tx_frames, 3 + 8);
}

/* While frames are held again and again, the library's thread wakes up about once in a millisecond. */
static void steady_relay(void)
{
    struct scene *scene = scene_make();
    struct flow flow = flow_of_one_size(&short_frame), got = flow;
    long wakings;
    long long began;

    CHECK_INT(qnet_set_handler(scene->source, on_frame, scene), QNET_OK);
    began = raw_now_ms();
    wakings = service_wakings();
    while (raw_now_ms() - began < RESTING_MS) {
        raw_send_flow(scene->source_fd, &flow, 10, 0);
        take(scene->target_fd, &got, flow.next);
    }
    CHECK(service_wakings() - wakings < 4 * (raw_now_ms() - began));
    wakings = service_wakings();
    rests();
    CHECK(service_wakings() - wakings < RESTING_MS / 20);
}

/* Fills a connection until something of it is the library's to write. */
static void stick(qnet_conn *conn, struct flow *flow)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 1), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(flow, conn, 0, 1) == 1)
        CHECK(flow->next < 1000);
}

/*
 * Many connections wait for room, with descriptors above the limit: all is written, and
 * nothing spins.
 */
static void stuck_above(int is_limited_first)
{
    struct rlimit low;
    struct flow flows[STUCK], got;
    qnet_conn *conns[STUCK];
    int fds[STUCK], i;

    for (i = 0; i < STUCK; i++)
        conns[i] = raw_pair(&fds[i]);
    CHECK(getrlimit(RLIMIT_NOFILE, &low) == 0);
    low.rlim_cur = STUCK_LIMIT;
    if (is_limited_first)
        CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (i = 0; i < STUCK; i++) {
        flows[i] = flow_of_one_size(&too_long_to_hold);
        stick(conns[i], &flows[i]);
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (i = 0; i < STUCK; i++) {
        got = flow_of_one_size(&too_long_to_hold);
        raw_take_until(fds[i], &got, flows[i].next);
        if (i == 0)
            rests();
    }
    for (i = 0; i < STUCK; i++) {
        check_sent(conns[i], flows[i].next);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    }
}

static void stuck_above_the_limit(void)
{
    stuck_above(0);
}

/* Limited first, the library's thread has no descriptor to be woken by, either. */
static void stuck_above_the_limit_from_the_first(void)
{
    if (is_under_valgrind())
        check_skip("without that descriptor all are looked at again and again, which is slow there");
    stuck_above(1);
}

int main(void)
{
    RUN(range_of_time);
    RUN(nothing_is_left);
    RUN_EACH(coalesced_stream);
    RUN(coalesced_writes);
    RUN(ends_of_holding);
    RUN(off_again);
    RUN(shorter_time);
    RUN(at_most_64_kib_coalesced);
    RUN(four_threads);
    RUN(coalescing_peer_does_not_read);
    RUN(coalescing_small_buffer);
    RUN(coalescing_closed_unread);
    RUN(corked_and_coalesced);
    RUN(cork_switched_while_coalescing);
    RUN(handler_that_blocks);
    RUN(steady_relay);
    RUN(handler_sends_what_is_coalesced);
    RUN(coalescing_peer_leaves);
    RUN(stuck_above_the_limit);
    RUN(stuck_above_the_limit_from_the_first);
    return check_done();
}
