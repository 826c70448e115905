/*
 * dgram.c - connections whose messages are frames: datagrams over UDP, Unix
 * sockets and multicast, and descriptors of such sockets that are adopted.
 */
#include <sys/epoll.h>

#include "far.h"

/* ---- Statistics ---- */

/* Every frame taken ends in one of two counts. */
static void check_sent(qnet_conn *conn, uint64_t frames, uint64_t bytes, uint64_t dropped)
{
    qnet_stats stats = stats_of(conn);

    CHECK_INT(stats.tx_frames, frames);
    CHECK_INT(stats.tx_bytes, bytes);
    CHECK_INT(stats.tx_dropped, dropped);
}

static uint64_t taken_by(qnet_conn *conn)
{
    qnet_stats stats = stats_of(conn);

    return stats.tx_frames + stats.tx_dropped;
}

/* ---- Frames of every size ---- */

static void sizes_sent(void)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;
    struct far far;
    qnet_conn *conn = far_open(&far);
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(flow_send(&sent, conn, way, ALL_SIZES), ALL_SIZES);
        far_take_until(&far, &seen, sent.next);
        check_sent(conn, sent.next, flow_bytes(&sent, 0, sent.next), 0);
    }
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK(stats_of(conn).tx_writes > 0);
    far_close(conn, &far);
}

static void sizes_received(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_kind(far_now), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        far_send_flow(&far, &sent, ALL_SIZES);
        taker_start(&taker, conn, way, flow_each, &seen);
        taker_want(&taker, ALL_SIZES);
        far_send_flow(&far, &sent, ALL_SIZES);
        taker_want(&taker, 2 * ALL_SIZES);
        CHECK_INT(stats_of(conn).rx_frames, 2 * ALL_SIZES);
        CHECK_INT(stats_of(conn).rx_bytes, flow_bytes(&sent, 0, 2 * ALL_SIZES));
        CHECK_INT(stats_of(conn).rx_runts, 0);
        taker_close(&taker);
        far_leaves(&far);
    }
}

/* Between two connections of the library. */
static void sizes_between_two(void)
{
    struct flow sent = flow_of_kind(&far_kinds[0]), seen = sent;
    char a_text[160], b_text[160];
    struct taker taker;
    qnet_conn *a, *b;
    int way;

    close(far_udp_at(AF_INET, 0, a_text, sizeof a_text));
    close(far_udp_at(AF_INET, 0, b_text, sizeof b_text));
    a = far_dgram("udp4", a_text, b_text);
    b = far_dgram("udp4", b_text, a_text);
    taker_start(&taker, b, BY_BATCH_HANDLER, flow_each, &seen);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(flow_send(&sent, a, way, ALL_SIZES), ALL_SIZES);
        taker_want(&taker, sent.next);
    }
    CHECK_INT(qnet_close(a), QNET_OK);
    taker_close(&taker);
}

/* Nothing is on the wire of a frame that cannot be sent, a batch stops there. */
static void sizes_refused(void)
{
    size_t lengths[] = { 0, 1, 13, 0, QNET_FRAME_MAX + 1, 100000 };
    static uint8_t frame[100000];
    uint8_t got[100];
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_frame frames[3];
    size_t i;

    lengths[3] = far_now->longest + 1;
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t packed[60 + RAW_PREFIX + RAW_PREFIX];

        CHECK_INT(qnet_send(conn, frame, lengths[i]), QNET_ERR_FRAME_SIZE);
        frames[0].data = frames[1].data = frames[2].data = frame;
        frames[0].len = frames[2].len = 60;
        frames[1].len = lengths[i];
        CHECK_INT(qnet_send_batch(conn, frames + 1, 2), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_send_batch(conn, frames, 3), 1);
        CHECK_INT(far_recv(&far, got, sizeof got), 60);
        memset(packed, 0, sizeof packed);
        raw_put_length(packed, 60);
        raw_put_length(packed + RAW_PREFIX + 60, lengths[i]);
        CHECK_INT(qnet_send_packed(conn, packed, sizeof packed), 1);
        CHECK_INT(far_recv(&far, got, sizeof got), 60);
    }
    CHECK(far_recv_now(&far, got, sizeof got) < 0);
    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, 100), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, 101), QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_send(conn, frame, 100), QNET_OK);
    CHECK_INT(far_recv(&far, got, sizeof got), 100);
    check_sent(conn, 2 * i + 1, 120 * i + 100, 0);
    far_close(conn, &far);
}

static void padded(void)
{
    static const size_t sizes[] = { 14, 59, 60, 61, 2100, 14, 15 };
    struct flow sent = { sizes, 7, 0 };
    struct far far;
    qnet_conn *conn = far_open(&far);
    uint64_t bytes = 0;
    int way;

    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 1), QNET_OK);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        unsigned i, from = sent.next;

        CHECK_INT(flow_send(&sent, conn, way, 7), 7);
        for (i = from; i < sent.next; i++) {
            uint8_t frame[3000];
            size_t len = flow_size(&sent, i), at, longer = len < 60 ? 60 : len;

            CHECK_INT(far_recv(&far, frame, sizeof frame), longer);
            CHECK_INT(frame_number(frame, len), i);
            for (at = len; at < longer; at++)
                CHECK_INT(frame[at], 0);
            bytes += longer;
        }
    }
    check_sent(conn, sent.next, bytes, 0);
    far_close(conn, &far);
}

/* ---- Many frames at once ---- */

/* Sends all of them without ever waiting, the far socket reading what comes meanwhile. */
static void pass_all(qnet_conn *conn, const struct far *far, struct flow flow, int way, unsigned count)
{
    struct flow sent = flow, seen = flow;
    qnet_stats before = stats_of(conn);

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (seen.next < count) {
        unsigned left = count - sent.next;

        if (left > 0)
            CHECK(flow_send(&sent, conn, way, left < 300 ? left : 300) != QNET_ERR_TIMEOUT);
        while (seen.next < sent.next && far_take_now(far, &seen))
            ;
        CHECK(seen.next < count || far_recv_now(far, &count, 0) < 0);
    }
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
    check_sent(conn, before.tx_frames + count, before.tx_bytes + flow_bytes(&flow, 0, count),
               before.tx_dropped);
}

/*
 * Frames of one length in a row, which UDP lets the kernel make datagrams of:
 * rows that end in a shorter frame, in a longer one, that are as long as may
 * be, and one more, and none at all.
 */
static void rows_of_every_length(void)
{
    static const size_t equal[] = { 1400 }, short_ones[] = { 14 };
    static const size_t ends[] = { 60, 60, 59, 60, 60, 60, 61, 61, 14, 14, 15 };
    static const size_t falling[] = { 1514, 1513, 1512, 1511, 1510, 1509, 1508, 14 };
    static const size_t rising[] = { 14, 15, 16, 17, 18, 19, 20, 1514 };
    static const size_t large[] = { 30000, 30000, 30000, 16000, 16000, 16000, 16000, 16000 };
    static const size_t half[] = { 32753, 32753, 32754, 32754, 32753 };
    static const struct { const size_t *sizes; size_t kinds; } rows[] = {
        { equal, 1 }, { short_ones, 1 }, { ends, 11 }, { falling, 8 }, { rising, 8 }, { large, 8 },
        { half, 5 },
    };
    static const unsigned counts[] = { 1, 2, 63, 64, 65, 128, 129, 300, 513, 1500 };
    struct far far;
    qnet_conn *conn = far_open(&far);
    size_t i, j;
    int way;

    for (i = 0; i < sizeof rows / sizeof *rows; i++)
        for (j = 0; j < sizeof counts / sizeof *counts; j++)
            for (way = 1; way < WAYS_TO_SEND; way++) {
                struct flow flow = { rows[i].sizes, rows[i].kinds, 0 };

                if (rows[i].sizes[0] < 16000 || counts[j] <= 65)
                    pass_all(conn, &far, flow, way, counts[j]);
            }
    far_close(conn, &far);
}

/* Frames of a row that ends in a shorter one: 63 and then that, again and again. */
static void rows_with_a_shorter_end(void)
{
    size_t sizes[64], i;
    struct flow flow = { sizes, 64, 0 };
    struct far far;
    qnet_conn *conn = far_open(&far);

    for (i = 0; i < 64; i++)
        sizes[i] = i % 64 == 63 ? 20 : 700;
    pass_all(conn, &far, flow, 1, 640);
    pass_all(conn, &far, flow, 2, 640);
    far_close(conn, &far);
}

/* One message of the far socket's of which the kernel makes `count` datagrams of `len` bytes. */
static int send_segmented(const struct far *far, uint8_t *bytes, size_t all, size_t len)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(uint16_t))];
    } control;
    uint16_t segment = (uint16_t)len;
    struct msghdr message;
    struct iovec piece;

    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    piece.iov_base = bytes;
    piece.iov_len = all;
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_name = (void *)&far->to;
    message.msg_namelen = far->to_len;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_level = SOL_UDP;
    control.header.cmsg_type = UDP_SEGMENT;
    control.header.cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(&control.header), &segment, sizeof segment);
    return sendmsg(far->out, &message, 0) == (ssize_t)all ? 0 : -1;
}

/* What comes put together by the kernel is taken apart, however many there are. */
static void segmented_received(void)
{
    static const unsigned counts[] = { 1, 2, 63, 64, 65, 100, 127, 128 };
    static const size_t lens[] = { 14, 60, 500 };
    struct far far;
    qnet_conn *conn = far_open(&far);
    size_t i, j, at;
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (i = 0; i < sizeof counts / sizeof *counts; i++)
            for (j = 0; j < 3; j++) {
                struct flow flow = flow_of_one_size(&lens[j]), seen = flow;
                size_t len = lens[j], all = counts[i] * len;
                uint8_t *bytes = allocate(all);
                struct taker taker;
                unsigned n;

                for (n = 0, at = 0; n < counts[i]; n++, at += len)
                    frame_make(bytes + at, len, n);
                if (send_segmented(&far, bytes, all, len) != 0) {
                    CHECK(errno == EINVAL && counts[i] > 64); /* not by this kernel */
                    free(bytes);
                    continue;
                }
                taker_start(&taker, conn, way, flow_each, &seen);
                taker_want(&taker, counts[i]);
                CHECK_INT(qnet_set_close_handler(conn, NULL, NULL), QNET_OK);
                CHECK_INT(qnet_set_handler(conn, NULL, NULL), QNET_OK);
                free(bytes);
            }
    CHECK_INT(stats_of(conn).rx_runts, 0);
    far_close(conn, &far);
}

/* A last one that is shorter is a frame too, or a runt. */
static void segmented_with_a_shorter_end(void)
{
    uint8_t bytes[10 * 100 + 20], got[200];
    struct far far;
    qnet_conn *conn = far_open(&far);
    size_t end;
    unsigned n;

    for (end = 1; end <= 20; end++) {
        memset(bytes, (int)end, sizeof bytes);
        CHECK(send_segmented(&far, bytes, 1000 + end, 100) == 0);
        for (n = 0; n < 10; n++)
            CHECK_INT(qnet_recv(conn, got, sizeof got, patience_ms()), 100);
        if (end >= 14)
            CHECK_INT(qnet_recv(conn, got, sizeof got, patience_ms()), end);
        CHECK_INT(qnet_recv(conn, got, sizeof got, 0), QNET_ERR_AGAIN);
        CHECK_INT(got[0], end);
    }
    CHECK_INT(stats_of(conn).rx_runts, 13);
    far_close(conn, &far);
}

/* Many come at once: each receive goes on where the last ended. */
static void many_received(void)
{
    unsigned total = (unsigned)rounds(600) + 100;
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        taker_start(&taker, conn, way, flow_each, &seen);
        while (sent.next < total) {
            /* Never more than a Unix socket's queue has room for. */
            far_send_flow(&far, &sent, 10);
            taker_want(&taker, sent.next);
        }
        taker_close(&taker);
        far_leaves(&far);
    }
}

/* ---- Sends that are held back ---- */

static void coalesced(void)
{
    struct flow sent = flow_of_small_frames(), seen = sent;
    struct far far;
    qnet_conn *conn = far_open(&far);
    int round;

    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 2000), QNET_OK);
    for (round = 0; round < 20; round++) {
        CHECK_INT(flow_send(&sent, conn, 0, 7), 7);
        if (round % 2)
            CHECK_INT(qnet_flush(conn), QNET_OK);
        far_take_until(&far, &seen, sent.next);
    }
    CHECK_INT(qnet_flush(conn), QNET_OK);
    check_sent(conn, sent.next, flow_bytes(&sent, 0, sent.next), 0);
    far_close(conn, &far);
}

static void echo(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

static void echo_batch(void *conn, const qnet_frame *frames, size_t count)
{
    CHECK_INT(qnet_send_batch(conn, frames, count), count);
}

static void echo_singly(void *conn, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        echo(conn, frames[i].data, frames[i].len);
}

/* What a handler sends while more waits for it may be held back, and comes all the same. */
static void echoed_by_handlers(void)
{
    int way;

    for (way = 0; way < 6; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct far far;
        qnet_conn *conn = far_open(&far);
        int round;

        CHECK_INT(qnet_set(conn, QNET_OPT_CORK, way % 2), QNET_OK);
        far_send_flow(&far, &sent, 7);
        if (way < 2)
            CHECK_INT(qnet_set_handler(conn, echo, conn), QNET_OK);
        else
            CHECK_INT(qnet_set_batch_handler(conn, way < 4 ? echo_batch : echo_singly, conn), QNET_OK);
        for (round = 0; round < 50; round++) {
            far_take_until(&far, &seen, sent.next);
            far_send_flow(&far, &sent, 7);
        }
        far_take_until(&far, &seen, sent.next);
        EVENTUALLY(stats_of(conn).tx_frames == sent.next);
        check_sent(conn, sent.next, flow_bytes(&sent, 0, sent.next), 0);
        far_close(conn, &far);
    }
}

/* ---- Waiting ---- */

static void waits_end(void)
{
    uint8_t buffer[100] = { 0 }, ready = 7;
    qnet_frame frames[2];
    struct far far;
    qnet_conn *conn = far_open(&far);
    long before = cpu_ms();

    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv_batch(conn, frames, 2, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_poll(&conn, &ready, 1, 20), 0);
    CHECK_INT(ready, 0);
    CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_wait(conn, 80), QNET_ERR_TIMEOUT);
    CHECK(cpu_ms() - before < 60);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);

    far_send(&far, buffer, 60);
    CHECK_INT(qnet_poll(&conn, &ready, 1, patience_ms()), 1);
    CHECK_INT(ready, 1);
    before = cpu_ms();
    CHECK_INT(qnet_wait(conn, 80), QNET_ERR_TIMEOUT);
    CHECK(cpu_ms() - before < 40);
    CHECK_INT(qnet_recv(conn, buffer, 10, 0), QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_recv(conn, NULL, 0, 0), 60);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), 60);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    far_close(conn, &far);
}

/* By its descriptor, as an event loop does: read until there is nothing, then wait for it. */
static void epolled(void)
{
    struct flow sent = flow_of_small_frames(), seen = sent;
    struct epoll_event event;
    struct far far;
    qnet_conn *conn = far_open(&far);
    int set = epoll_create1(EPOLL_CLOEXEC), round, result;

    memset(&event, 0, sizeof event);
    event.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, qnet_fd(conn), &event) == 0);
    for (round = 0; round < 200; round++) {
        far_send_flow(&far, &sent, 1 + (unsigned)round % 10);
        while (seen.next < sent.next) {
            CHECK_INT(epoll_wait(set, &event, 1, patience_ms()), 1);
            do {
                uint8_t frame[2000];

                result = qnet_recv(conn, frame, sizeof frame, 0);
                if (result >= 0)
                    flow_take(&seen, frame, (size_t)result);
            } while (result >= 0);
            CHECK_INT(result, QNET_ERR_AGAIN);
        }
    }
    CHECK(close(set) == 0);
    far_close(conn, &far);
}

/* The same in batches: one that is fewer than asked for was all that there is. */
static void epolled_in_batches(void)
{
    struct flow sent = flow_of_small_frames(), seen = sent;
    enum { MOST = 5 };
    struct epoll_event event;
    qnet_frame frames[MOST];
    struct far far;
    qnet_conn *conn = far_open(&far);
    int set = epoll_create1(EPOLL_CLOEXEC), round, result, i;

    memset(&event, 0, sizeof event);
    event.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, qnet_fd(conn), &event) == 0);
    for (round = 0; round < 200; round++) {
        far_send_flow(&far, &sent, 1 + (unsigned)round % 10);
        while (seen.next < sent.next) {
            CHECK_INT(epoll_wait(set, &event, 1, patience_ms()), 1);
            do {
                result = qnet_recv_batch(conn, frames, MOST, 0);
                for (i = 0; i < result; i++)
                    flow_take(&seen, frames[i].data, frames[i].len);
            } while (result == MOST);
            CHECK(result > 0 || result == QNET_ERR_AGAIN);
        }
    }
    CHECK(close(set) == 0);
    far_close(conn, &far);
}

/* ---- What is not delivered ---- */

/* A marker comes next, and nothing before it. */
static void next_is_a_frame(qnet_conn *conn, const struct far *far)
{
    static unsigned number = 5000;
    uint8_t frame[77], got[100];

    frame_make(frame, sizeof frame, ++number);
    far_send(far, frame, sizeof frame);
    CHECK_INT(qnet_recv(conn, got, sizeof got, patience_ms()), sizeof frame);
    CHECK_INT(frame_number(got, sizeof frame), number);
}

static void too_short_or_too_long(void)
{
    static uint8_t bytes[QNET_FRAME_MAX + 1000];
    static const size_t lengths[] = { 0, 1, 4, 13, QNET_FRAME_MAX + 1, QNET_FRAME_MAX + 1000 };
    struct far far;
    qnet_conn *conn = far_open(&far);
    unsigned runts = 0, frames = 0;
    size_t i;

    next_is_a_frame(conn, &far);
    frames++;
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (lengths[i] > QNET_FRAME_MAX && !(far_now->set & OF_UNIX))
            continue;
        far_send(&far, bytes, lengths[i]);
        runts++;
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
        next_is_a_frame(conn, &far);
        frames++;
        CHECK_INT(stats_of(conn).rx_runts, runts);
    }
    CHECK_INT(stats_of(conn).rx_frames, frames);
    CHECK_INT(stats_of(conn).rx_bytes, 77 * frames);
    far_close(conn, &far);
}

/* What vfkit begins with is no frame, and no runt either; nor is it a secret to other peers. */
static void vfkits_greeting(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);

    far_send(&far, "VFKT", 4);
    next_is_a_frame(conn, &far);
    CHECK_INT(stats_of(conn).rx_runts, 0);
    far_send(&far, "VFKU", 4);
    far_send(&far, "VFKTV", 5);
    next_is_a_frame(conn, &far);
    CHECK_INT(stats_of(conn).rx_runts, 2);
    far_close(conn, &far);
}

static void check_stranger(qnet_conn *conn, const struct far *far, int stranger)
{
    uint8_t frame[60] = { 0 };
    int i;

    for (i = 0; i < 3; i++)
        CHECK_INT(sendto(stranger, frame, sizeof frame, MSG_NOSIGNAL,
                         (const struct sockaddr *)&far->to, far->to_len), sizeof frame);
    next_is_a_frame(conn, far);
    CHECK_INT(stats_of(conn).rx_runts, 0);
    CHECK(close(stranger) == 0);
}

static void strangers_are_not_heard(void)
{
    char text[170];
    struct far far;
    qnet_conn *conn = far_open(&far);

    if (far_now->set & UDP) {
        int stranger = socket(far_now->family, SOCK_DGRAM, 0);

        /* The system lets only the remote reach a connected socket. */
        CHECK(stranger >= 0);
        check_stranger(conn, &far, stranger);
        check_stranger(conn, &far, far_udp_at(far_now->family, 0, text, sizeof text));
    } else {
        snprintf(text, sizeof text, "%s+", far.far_text);
        check_stranger(conn, &far, far_socket(AF_UNIX));
        check_stranger(conn, &far, far_unix_at(text));
        if (text[0] == '/')
            CHECK(unlink(text) == 0);
        text[strlen(text) - 2] = '\0';
        check_stranger(conn, &far, far_unix_at(text));
        if (text[0] == '/')
            CHECK(unlink(text) == 0);
    }
    CHECK_INT(stats_of(conn).rx_frames, far_now->set & UDP ? 2 : 3);
    far_close(conn, &far);
}

/* The same file by another name is the same remote. */
static void the_remote_by_another_name(void)
{
    char name[160], near[160];
    struct far far;
    qnet_conn *conn;

    CHECK(chdir(scratch_directory) == 0);
    far_init(&far, far_unix_at("relative"));
    snprintf(near, sizeof near, "%s", scratch_path("other-name-near"));
    snprintf(name, sizeof name, "%s/./relative", scratch_directory);
    conn = far_dgram("unixgram", near, name);
    far.to_len = raw_unix_address(near, (struct sockaddr_un *)&far.to);
    next_is_a_frame(conn, &far);
    far_close(conn, &far);
    CHECK(unlink("relative") == 0);
}

/* ---- A remote that is not there ---- */

/* Sends to nobody, in every way. */
static uint64_t send_to_nobody(qnet_conn *conn)
{
    static const size_t small = 60, longer = 1400;
    struct flow flows[3] = { flow_of_all_sizes(), flow_of_one_size(&small), flow_of_one_size(&longer) };
    uint64_t sent = 0;
    int way, i;

    flows[0] = flow_of_kind(far_now);
    for (way = 0; way < WAYS_TO_SEND; way++)
        for (i = 0; i < 3; i++) {
            CHECK_INT(flow_send(&flows[i], conn, way, 140), 140);
            sent += 140;
        }
    return sent;
}

static void check_all_dropped(qnet_conn *conn, uint64_t sent, qnet_stats before)
{
    CHECK_INT(qnet_flush(conn), QNET_OK);
    EVENTUALLY(stats_of(conn).tx_dropped == before.tx_dropped + sent);
    check_sent(conn, before.tx_frames, before.tx_bytes, before.tx_dropped + sent);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
}

/* Frames go both ways. */
static void works(qnet_conn *conn, const struct far *far)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;

    CHECK_INT(flow_send(&sent, conn, 1, ALL_SIZES), ALL_SIZES);
    far_take_until(far, &seen, sent.next);
    next_is_a_frame(conn, far);
}

static void the_remote_comes_and_goes(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_stats none;
    int round;

    memset(&none, 0, sizeof none);
    far_leaves(&far);
    check_all_dropped(conn, send_to_nobody(conn), none);
    for (round = 0; round < 6; round++) {
        qnet_stats before;

        far_comes(&far);
        if (round % 3 == 1) { /* it sends first */
            next_is_a_frame(conn, &far);
        } else if (round % 3 == 2) { /* it hears first */
            uint8_t frame[60] = { 0 };

            CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
            CHECK_INT(far_recv(&far, frame, sizeof frame), sizeof frame);
        }
        works(conn, &far);
        before = stats_of(conn);
        far_leaves(&far);
        check_all_dropped(conn, send_to_nobody(conn), before);
    }
    far_close(conn, &far);
}

/* A refusal that was not yet told hides no frame from who does not wait. */
static void a_frame_behind_a_refusal(void)
{
    uint8_t frame[77], got[100];
    struct far far;
    qnet_conn *conn = far_open(&far);
    unsigned round;

    for (round = 1; round <= 5; round++) {
        struct pollfd refused = { qnet_fd(conn), 0, 0 };

        far_leaves(&far);
        frame_make(frame, sizeof frame, round);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK_INT(poll(&refused, 1, patience_ms()), 1);
        far_comes(&far);
        far_send(&far, frame, sizeof frame);
        CHECK(raw_readable(qnet_fd(conn), patience_ms()));
        CHECK_INT(qnet_recv(conn, got, sizeof got, 0), sizeof frame);
        CHECK_INT(frame_number(got, sizeof frame), round);
    }
    far_close(conn, &far);
}

static int errors_only(qnet_conn *conn)
{
    uint8_t buffer[100];

    return qnet_recv(conn, buffer, sizeof buffer, 20);
}

/* Whoever receives meanwhile is told nothing, is not busy, and takes nothing from the counts. */
static void nobody_there_while_receiving(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_small_frames();
        struct taker taker;
        qnet_stats none;
        struct far far;
        qnet_conn *conn = far_open(&far);
        uint64_t sent = 0;
        int round;

        memset(&none, 0, sizeof none);
        far_leaves(&far);
        taker_start(&taker, conn, way, flow_each, &flow);
        for (round = 0; round < rounds(5); round++) {
            sent += send_to_nobody(conn);
            if (way < WAYS_TO_PULL && round == 0)
                CHECK_INT(errors_only(conn), QNET_ERR_TIMEOUT);
        }
        check_all_dropped(conn, sent, none);
        if (way == BY_HANDLER)
            is_idle();
        taker_close(&taker);
    }
}

/*
 * A pair's other end that has gone is nobody, and no end. (The system throws
 * away what it has sent with the first frame that finds it gone.)
 */
static void a_pairs_end_goes(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        qnet_stats none;
        struct far far;
        qnet_conn *conn = far_open(&far);

        memset(&none, 0, sizeof none);
        far_send_flow(&far, &sent, 7);
        far_leaves(&far);
        taker_start(&taker, conn, way, flow_each, &seen);
        taker_want(&taker, 7);
        check_all_dropped(conn, send_to_nobody(conn), none);
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        CHECK_INT(taker_ends(&taker), 0);
        if (way == BY_RECV || way == BY_HANDLER)
            is_idle();
        taker_close(&taker);
    }
}

/* ---- A remote that does not read ---- */

/* Few frames find room, though pairs have no limit but their own buffer. */
static void have_little_room(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 20000), QNET_OK);
}

/* Sends until the far socket's queue is full, without waiting: how many it took. */
static unsigned fill(qnet_conn *conn, struct flow *flow)
{
    unsigned before = flow->next;
    int result;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do
        result = flow_send(flow, conn, 0, 1);
    while (result == 1);
    CHECK_INT(result, QNET_ERR_AGAIN);
    return flow->next - before;
}

static void nobody_reads(void)
{
    static const size_t size = 1514;
    struct flow sent = flow_of_one_size(&size), seen = sent;
    struct far far;
    qnet_conn *conn = far_open(&far);
    unsigned taken = fill(conn, &sent), i;
    uint8_t frame[1514];

    /* Told not to wait it refuses, for as long as it is asked. */
    CHECK(taken > 0);
    for (i = 0; i < 20; i++) {
        raw_sleep_ms(5);
        CHECK_INT(flow_send(&sent, conn, (int)i % WAYS_TO_SEND, 3), QNET_ERR_AGAIN);
    }
    check_sent(conn, taken, taken * size, 0);
    far_take(&far, &seen);
    CHECK_INT(flow_send(&sent, conn, 0, 1), 1);
    taken++;
    far_take_until(&far, &seen, sent.next);

    /* For a little while: refused, and taken when there is room. */
    taken += fill(conn, &sent);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 1), QNET_OK);
    far_take_until(&far, &seen, sent.next);
    CHECK_INT(flow_send(&sent, conn, 0, 1), 1);
    far_take_until(&far, &seen, sent.next);
    taken++;
    check_sent(conn, taken, taken * size, 0);

    /* For longer: taken, and lost, and the sender is not held up for ever. */
    taken += fill(conn, &sent);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
    memset(frame, 0, sizeof frame);
    for (i = 0; i < 300; i++)
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    check_sent(conn, taken, taken * size, 300);

    /* When it reads it hears again. */
    far_take_until(&far, &seen, sent.next);
    CHECK_INT(flow_send(&sent, conn, 1, 5), 5);
    far_take_until(&far, &seen, sent.next);
    check_sent(conn, taken + 5, (taken + 5) * size, 300);
    far_close(conn, &far);
}

/* A time shorter than that after which frames are lost passes first. */
static void small_timeouts(void)
{
    uint8_t frame[60] = { 0 };
    uint64_t taken = 0;
    struct far far;
    qnet_conn *conn = far_open(&far);
    int result;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 1), QNET_OK);
    while ((result = qnet_send(conn, frame, sizeof frame)) == QNET_OK)
        taken++;
    CHECK_INT(result, QNET_ERR_TIMEOUT);
    CHECK(taken > 0);
    CHECK_INT(taken_by(conn), taken);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    far_close(conn, &far);
}

/* What was taken for later does not wait for ever either, whoever writes it. */
static void nobody_reads_what_is_held_back(void)
{
    static const size_t size = 60;
    int by_flush;

    for (by_flush = 0; by_flush < 2; by_flush++) {
        struct flow sent = flow_of_one_size(&size), seen = sent;
        struct far far;
        qnet_conn *conn = far_open(&far);
        qnet_stats stats;

        have_little_room(conn);
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 100000), QNET_OK);
        CHECK_INT(flow_send(&sent, conn, 0, 100), 100);
        if (by_flush)
            CHECK_INT(qnet_flush(conn), QNET_OK);
        EVENTUALLY(taken_by(conn) == 100);
        stats = stats_of(conn);
        CHECK(stats.tx_frames > 0 && stats.tx_dropped > 0);
        far_take_until(&far, &seen, (unsigned)stats.tx_frames);
        if (!by_flush)
            is_idle();
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 0), QNET_OK);
        sent.next = seen.next;
        CHECK_INT(flow_send(&sent, conn, 0, 5), 5);
        far_take_until(&far, &seen, sent.next);
        far_close(conn, &far);
    }
}

/* A buffer of the library's own that is full. */
static void own_buffer_is_full(void)
{
    static const size_t size = 60000;
    struct flow flow = flow_of_one_size(&size);
    struct far far;
    qnet_conn *conn = far_open(&far);
    int way;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 40000), QNET_OK);
    for (way = 0; way < WAYS_TO_SEND; way++)
        pass_all(conn, &far, flow, way, (unsigned)rounds(100) + 10);
    far_close(conn, &far);
}

/* One whose own buffer is too small for a frame loses it, and goes on. */
static void own_buffer_is_too_small(void)
{
    static uint8_t frame[60000], got[100];
    struct far far;
    qnet_conn *conn = far_open(&far);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 1), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, 60), QNET_OK);
    CHECK_INT(far_recv(&far, got, sizeof got), 60);
    check_sent(conn, 1, 60, 1);
    far_close(conn, &far);
}

/* ---- Many threads ---- */

enum { SENDERS = 4 };

struct sender {
    pthread_t thread;
    qnet_conn *conn;
    int id, result;
    unsigned count, taken;
};

/* Sends numbered frames until one is refused for good. */
static void *sending(void *argument)
{
    struct sender *sender = argument;
    uint8_t frame[200];

    while (sender->taken < sender->count) {
        unsigned number = (unsigned)sender->id << 24 | sender->taken;

        frame_make(frame, 14 + number % 180, number);
        sender->result = qnet_send(sender->conn, frame, 14 + number % 180);
        if (sender->result == QNET_OK)
            sender->taken++;
        else if (sender->result != QNET_ERR_AGAIN)
            break;
        else
            sched_yield();
    }
    return NULL;
}

static void senders_start(struct sender *senders, qnet_conn *conn, unsigned count)
{
    int i;

    for (i = 0; i < SENDERS; i++) {
        memset(&senders[i], 0, sizeof senders[i]);
        senders[i].conn = conn;
        senders[i].id = i;
        senders[i].count = count;
        start_thread(&senders[i].thread, sending, &senders[i]);
    }
}

/* Frames of each thread come in its order, and all of them. */
static void threads_send(void)
{
    unsigned each = 500 + (unsigned)rounds(2000), next[SENDERS] = { 0 }, all;
    struct sender senders[SENDERS];
    struct far far;
    qnet_conn *conn = far_open(&far);
    int i;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    senders_start(senders, conn, each);
    for (all = 0; all < SENDERS * each; all++) {
        uint8_t frame[200];
        long len = far_recv(&far, frame, sizeof frame);
        unsigned number;

        CHECK(len > 0);
        number = frame_number(frame, (size_t)len);
        CHECK(number >> 24 < SENDERS);
        CHECK_INT(number & 0xffffff, next[number >> 24]);
        next[number >> 24]++;
    }
    for (i = 0; i < SENDERS; i++)
        join_thread(senders[i].thread);
    CHECK_INT(stats_of(conn).tx_frames, SENDERS * each);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    far_close(conn, &far);
}

/* Ended while threads wait to send, or lose what they send, everybody returns. */
static void ends_while_threads_send(void)
{
    int by_close;

    for (by_close = 0; by_close < 4; by_close++) {
        struct sender senders[SENDERS];
        struct far far;
        qnet_conn *conn = far_open(&far);
        int i;

        if (by_close >= 2)
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 1000000), QNET_OK);
        senders_start(senders, conn, 0x7fffffff);
        raw_sleep_ms(by_close % 2 ? 20 : 80);
        CHECK_INT(by_close % 2 ? qnet_close(conn) : qnet_shutdown(conn), QNET_OK);
        for (i = 0; i < SENDERS; i++) {
            join_thread(senders[i].thread);
            CHECK(senders[i].result == QNET_ERR_CLOSED ||
                  (by_close % 2 && senders[i].result == QNET_ERR_HANDLE));
        }
        if (by_close % 2 == 0) {
            uint64_t taken = 0;

            for (i = 0; i < SENDERS; i++)
                taken += senders[i].taken;
            EVENTUALLY(taken_by(conn) == taken);
            CHECK_INT(qnet_close(conn), QNET_OK);
        }
        far_leaves(&far);
    }
}

static void *receiving(void *argument)
{
    return (void *)(long)make_recv(argument);
}

static void *waiting(void *argument)
{
    return (void *)(long)make_wait(argument);
}

/* Ended by this side, who receives and waits is woken. */
static void ends_while_threads_receive(void)
{
    int by_close;

    for (by_close = 0; by_close < 2; by_close++) {
        pthread_t receiver, waiter;
        void *received, *waited;
        struct far far;
        qnet_conn *conn = far_open(&far);
        uint8_t buffer[20];

        start_thread(&receiver, receiving, conn);
        start_thread(&waiter, waiting, conn);
        raw_sleep_ms(50);
        CHECK_INT(by_close ? qnet_close(conn) : qnet_shutdown(conn), QNET_OK);
        CHECK_INT(pthread_join(receiver, &received), 0);
        CHECK_INT(pthread_join(waiter, &waited), 0);
        CHECK_INT((long)received, QNET_ERR_CLOSED);
        CHECK_INT((long)waited, QNET_OK);
        if (!by_close) {
            CHECK_INT(qnet_send(conn, buffer, 14), QNET_ERR_CLOSED);
            CHECK_INT(qnet_recv(conn, buffer, 20, -1), QNET_ERR_CLOSED);
            CHECK_INT(qnet_wait(conn, -1), QNET_OK);
            CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
            CHECK_INT(qnet_close(conn), QNET_OK);
        }
        far_leaves(&far);
    }
}

/* ---- Links and hubs ---- */

/* A kind's connection cabled to a stream: every size both ways, and one's end is the other's. */
static void linked_to_a_stream(void)
{
    struct flow sent = flow_of_kind(far_now), seen = sent, back = sent, back_seen = sent;
    struct far far;
    int fd, round;
    qnet_conn *conn = far_open(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_set(stream, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    for (round = 0; round < 20; round++) {
        raw_send_flow(fd, &sent, ALL_SIZES, round % 2 ? 0 : 5000);
        far_take_until(&far, &seen, sent.next);
        far_send_flow(&far, &back, ALL_SIZES);
        raw_take_until(fd, &back_seen, back.next);
    }
    EVENTUALLY(stats_of(conn).tx_frames == sent.next);
    check_sent(conn, sent.next, flow_bytes(&sent, 0, sent.next), 0);
    check_sent(stream, back.next, flow_bytes(&back, 0, back.next), 0);
    CHECK_INT(stats_of(conn).rx_frames, back.next);
    CHECK(close(fd) == 0);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(stream), QNET_OK);
    far_close(conn, &far);
}

/* Two of a kind. */
static void linked_to_its_like(void)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;
    struct far a_far, b_far;
    qnet_conn *a = far_open(&a_far), *b = far_open(&b_far);
    int round;

    CHECK_INT(qnet_link(a, b), QNET_OK);
    for (round = 0; round < 20; round++) {
        const struct far *from = round % 2 ? &a_far : &b_far, *to = round % 2 ? &b_far : &a_far;

        far_send_flow(from, &sent, ALL_SIZES);
        far_take_until(to, &seen, sent.next);
    }
    CHECK_INT(qnet_unlink(a), QNET_OK);
    next_is_a_frame(a, &a_far);
    far_close(a, &a_far);
    far_close(b, &b_far);
}

/* A port of each kind on one hub, and a stream's: everybody hears everybody, of every size. */
static void all_kinds_on_a_hub(void)
{
    static const size_t sizes[] = { 16, 60, 1514, 9000, UDP_V4_MAX };
    struct far fars[FAR_KINDS];
    qnet_conn *conns[FAR_KINDS];
    struct device device;
    struct word word;
    qnet_hub *hub;
    size_t i, j, s;

    if (!ipv6_here())
        check_skip("this machine has no IPv6");
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1000);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    for (i = 0; i < FAR_KINDS; i++) {
        conns[i] = far_open_kind(&far_kinds[i], &fars[i]);
        CHECK_INT(qnet_hub_attach(hub, conns[i]), QNET_OK);
    }
    word.number = 0;
    for (s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (i = 0; i < FAR_KINDS; i++) {
            word.from = (int)i;
            word.to = EVERYBODY;
            word.len = sizes[s];
            word.number++;
            far_says(&fars[i], word);
            for (j = 0; j < FAR_KINDS; j++)
                if (j != i)
                    CHECK_INT(far_hears(&fars[j]).number, word.number);
            CHECK_INT(raw_hear(device.fd).number, word.number);
            device_says(&device, (int)i, sizes[s]);
            CHECK_INT(far_hears(&fars[i]).from, device.n);
            word.number++;
            word.to = (int)((i + 1) % FAR_KINDS);
            far_says(&fars[i], word);
            if (s > 0)
                CHECK_INT(far_hears(&fars[word.to]).number, word.number);
            else if (i + 1 < FAR_KINDS) /* nobody has heard of it yet */
                for (j = 0; j < FAR_KINDS; j++)
                    CHECK(j == i || far_hears(&fars[j]).number == word.number);
            else
                CHECK_INT(far_hears(&fars[word.to]).number, word.number);
            if (s == 0 && i + 1 < FAR_KINDS)
                CHECK_INT(raw_hear(device.fd).number, word.number);
        }
    CHECK_INT(hub_stats_of(hub).dropped, 0);
    for (i = 0; i < FAR_KINDS; i++)
        CHECK_INT(stats_of(conns[i]).tx_dropped, 0);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    for (i = 0; i < FAR_KINDS; i++)
        far_close(conns[i], &fars[i]);
    device_close(&device);
}

/* What is too long for a port is dropped and counted, and what comes next arrives. */
static void too_long_for_a_port(void)
{
    struct device device;
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    device_says(&device, EVERYBODY, far_now->longest + 1);
    device_says(&device, EVERYBODY, 60);
    CHECK_INT(far_hears(&far).len, 60);
    EVENTUALLY(stats_of(conn).tx_frames == 1);
    check_sent(conn, 1, 60, 1);
    CHECK_INT(hub_stats_of(hub).dropped, 1);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    far_close(conn, &far);
}

/* A hub, two streams on it, and a port of the kind whose far socket does not read. */
static void slow_port_of_a_hub(void)
{
    struct device a, b;
    struct far far;
    qnet_conn *conn = far_open(&far);
    uint64_t said = 0, heard = 0;
    qnet_hub *hub;
    int round, i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_set(hub, QNET_OPT_QUEUE_BYTES, 30000), QNET_OK);
    have_little_room(conn);
    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (round = 0; round < 3; round++) {
        for (i = 0; i < 200; i++) { /* the others notice nothing */
            device_says(&a, EVERYBODY, 600);
            device_hears(&b, &a, EVERYBODY);
            said++;
        }
        EVENTUALLY(taken_by(conn) == said);
        CHECK(stats_of(conn).tx_dropped > 0);
        if (round == 1)
            is_idle();
        while (heard < stats_of(conn).tx_frames) {
            CHECK_INT(far_hears(&far).from, a.n);
            heard++;
        }
        device_says(&a, EVERYBODY, 60);
        device_hears(&b, &a, EVERYBODY);
        CHECK_INT(far_hears(&far).number, a.said - 1);
        said++;
        heard++;
    }
    EVENTUALLY(taken_by(conn) == said);
    CHECK_INT(stats_of(conn).tx_frames, heard);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&a);
    device_close(&b);
    far_close(conn, &far);
}

/*
 * Told never to lose frames by time, a port gets all, however full it is now
 * and then; and nobody is busy with waiting for it.
 */
static void patient_port(struct flow flow, int sndbuf)
{
    unsigned total = (unsigned)rounds(2000) / 4 * 4 + 40;
    struct raw_job writer;
    struct far far;
    int fd;
    qnet_conn *conn = far_open(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, sndbuf), QNET_OK);
    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow, total);
    is_idle();
    while (flow.next < total) {
        far_take(&far, &flow);
        if (flow.next % 1000 == 500)
            raw_sleep_ms(20);
    }
    join_thread(writer.thread);
    EVENTUALLY(taken_by(conn) == total);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    CHECK_INT(qnet_close(stream), QNET_OK);
    CHECK(close(fd) == 0);
    far_close(conn, &far);
}

/* The far socket's queue is full, and then the library's own buffer. */
static void patient_port_of_a_link(void)
{
    static const size_t small[] = { 60, 14, 600, 1514 }, large[] = { 600, 60, 60000, 1514 };
    struct flow flow = { small, 4, 0 };

    patient_port(flow, 1 << 20);
    flow.sizes = large;
    patient_port(flow, 100000);
}

/* A remote that is not there makes no hub busy, and is counted. */
static void absent_port_of_a_hub(void)
{
    struct device a, b;
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_hub *hub;
    int i;

    far_leaves(&far);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (i = 0; i < 200; i++) {
        device_says(&a, EVERYBODY, (size_t)(60 + i));
        device_hears(&b, &a, EVERYBODY);
    }
    EVENTUALLY(stats_of(conn).tx_dropped == 200);
    check_sent(conn, 0, 0, 200);
    is_idle();
    if (!(far_now->set & (PAIR | SEQUENCED))) {
        far_comes(&far);
        device_says(&a, EVERYBODY, 60);
        CHECK_INT(far_hears(&far).number, a.said - 1);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&a);
    device_close(&b);
    far_close(conn, &far);
}

/* ---- SEQPACKET: whose peer's leaving is seen ---- */

static void a_sequenced_peer_leaves(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_kind(far_now), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);
        uint8_t frame[60] = { 0 };

        far_send_flow(&far, &sent, ALL_SIZES);
        far_send(&far, frame, 0);
        far_send_flow(&far, &sent, 1);
        far_leaves(&far);
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
        if (way < WAYS_TO_PULL)
            CHECK_INT(qnet_close_reason(conn), QNET_OK);
        taker_start(&taker, conn, way, flow_each, &seen);
        taker_want(&taker, ALL_SIZES + 1);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        CHECK_INT(stats_of(conn).rx_runts, 1);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

static void far_leaves_a_frame_unread(qnet_conn *conn, struct far *far, struct flow *sent)
{
    uint8_t frame[60] = { 0 };

    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    far_send_flow(far, sent, 3);
    far_leaves(far);
}

/* One that leaves with a frame unread resets the socket; what it has sent is received nevertheless. */
static void a_sequenced_peer_leaves_frames_unread(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_kind(far_now), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        far_leaves_a_frame_unread(conn, &far, &sent);
        taker_start(&taker, conn, way, flow_each, &seen);
        taker_want(&taker, 3);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

/* Nor does looking for the end take anything of it. */
static void a_sequenced_end_is_looked_for(void)
{
    int waits;

    for (waits = 0; waits < 2; waits++) {
        struct flow sent = flow_of_kind(far_now), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        far_leaves_a_frame_unread(conn, &far, &sent);
        if (waits)
            CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        taker_start(&taker, conn, BY_RECV, flow_each, &seen);
        taker_want(&taker, 3);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

/* In a hub and in a link as well. */
static void a_sequenced_port_leaves(void)
{
    struct device device;
    struct ending ending;
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_hub *hub;

    memset(&ending, 0, sizeof ending);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_set_close_handler(conn, ending_told, &ending), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    device_says(&device, EVERYBODY, 60);
    CHECK_INT(far_hears(&far).from, 1);
    far_leaves(&far);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    check_told(&ending, QNET_ERR_CLOSED);
    CHECK_INT(ports_of(hub), 1);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    far_close(conn, &far);
}

/* What a batch had sent before the peer left is counted as that. */
static void a_sequenced_peer_leaves_a_sender(void)
{
    static const size_t size = 60;
    int round;

    for (round = 0; round < rounds(200); round++) {
        struct flow sent = flow_of_one_size(&size);
        struct sender sender;
        struct far far;
        qnet_conn *conn = far_open(&far);
        unsigned heard = 0;
        uint8_t frame[200];

        memset(&sender, 0, sizeof sender);
        sender.conn = conn;
        sender.count = 1000000;
        start_thread(&sender.thread, sending, &sender);
        while (heard < (unsigned)round % 50 && far_recv(&far, frame, sizeof frame) > 0)
            heard++;
        far_leaves(&far);
        join_thread(sender.thread);
        CHECK(sender.result == QNET_ERR_CLOSED || sender.result == QNET_ERR_OS);
        CHECK_INT(flow_send(&sent, conn, 1, 3), sender.result);
        CHECK_INT(taken_by(conn), sender.taken);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

/* A message without bytes is no end, though receiving it looks like one. */
static void an_empty_message_is_no_end(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);
    uint8_t buffer[100];
    int i;

    for (i = 0; i < 5; i++)
        far_send(&far, buffer, 0);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    CHECK_INT(qnet_wait(conn, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
    CHECK_INT(stats_of(conn).rx_runts, 5);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    works(conn, &far);
    far_leaves(&far);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, patience_ms()), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* ---- Multicast ---- */

static void a_group_of_three(void)
{
    struct far far;
    qnet_conn *a = far_open(&far), *b = far_dgram("mcast", "127.0.0.1", far.far_text);
    uint8_t frame[60], got[100];
    unsigned i;

    for (i = 0; i < 20; i++) {
        qnet_conn *from = i % 2 ? a : b, *to = i % 2 ? b : a;

        frame_make(frame, sizeof frame, i);
        CHECK_INT(qnet_send(from, frame, sizeof frame), QNET_OK);
        CHECK_INT(qnet_recv(to, got, sizeof got, patience_ms()), sizeof frame);
        CHECK_INT(frame_number(got, sizeof frame), i);
        CHECK_INT(far_recv(&far, got, sizeof got), sizeof frame);
        CHECK_INT(frame_number(got, sizeof frame), i);
        CHECK_INT(qnet_recv(from, got, sizeof got, 0), QNET_ERR_AGAIN);
        frame_make(frame, sizeof frame, 1000 + i);
        far_send(&far, frame, sizeof frame);
        CHECK_INT(qnet_recv(a, got, sizeof got, patience_ms()), sizeof frame);
        CHECK_INT(qnet_recv(b, got, sizeof got, patience_ms()), sizeof frame);
    }
    CHECK_INT(stats_of(a).rx_frames, 30);
    CHECK_INT(stats_of(a).rx_runts, 0);
    CHECK_INT(qnet_close(b), QNET_OK);
    far_close(a, &far);
}

/* Other groups at the same port are not heard. */
static void another_group_is_not_heard(void)
{
    char other[160];
    struct far far;
    qnet_conn *conn = far_open(&far), *second;
    uint8_t frame[60] = { 0 };

    snprintf(other, sizeof other, "239.255.77.2%s", strchr(far.far_text, ':'));
    second = far_dgram("mcast", "127.0.0.1", other);
    CHECK_INT(qnet_send(second, frame, sizeof frame), QNET_OK);
    next_is_a_frame(conn, &far);
    CHECK_INT(qnet_recv(second, frame, sizeof frame, 50), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_close(second), QNET_OK);
    far_close(conn, &far);
}

/* ---- Addresses and files ---- */

static void check_address(int (*ask)(qnet_conn *, char *, size_t), qnet_conn *conn, const char *want)
{
    char text[200];
    int len = ask(conn, text, sizeof text);

    if (!same_text(text, len, want))
        fprintf(stderr, "got '%s' (%d), want '%s'\n", len >= 0 ? text : "", len, want);
    CHECK(same_text(text, len, want));
}

static void addresses(void)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    struct far far;
    qnet_conn *conn = far_open(&far);
    char text[160];

    check_address(qnet_peer_addr, conn, far.far_text);
    if (far_now->set & UDP) {
        CHECK(getsockname(qnet_fd(conn), (struct sockaddr *)&address, &len) == 0);
        address_text(&address, len, text, sizeof text);
        check_address(qnet_local_addr, conn, text);
    } else {
        check_address(qnet_local_addr, conn, far.near_text);
    }
    CHECK(fcntl(qnet_fd(conn), F_GETFD) & FD_CLOEXEC);
    far_close(conn, &far);
}

static void options(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);
    int64_t value;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 30000), QNET_OK);
    CHECK_INT(qnet_get(conn, QNET_OPT_SNDBUF, &value), QNET_OK);
    CHECK_INT(value, 30000);
    CHECK_INT(qnet_set(conn, QNET_OPT_RCVBUF, 40000), QNET_OK);
    CHECK_INT(qnet_get(conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 300000), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_UNIX_MODE, 0600), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX + 1), QNET_ERR_INVALID);
    works(conn, &far);
    far_close(conn, &far);
}

/* All that an open connection holds is given back, however it was used. */
static void nothing_is_left(void)
{
    struct footprint before = footprint_now();
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_kind(far_now), seen = flow;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        taker_start(&taker, conn, way, flow_each, &seen);
        far_send_flow(&far, &flow, ALL_SIZES);
        taker_want(&taker, ALL_SIZES);
        flow.next = 0;
        CHECK_INT(flow_send(&flow, conn, 1, ALL_SIZES), ALL_SIZES);
        taker_close(&taker);
        far_leaves(&far);
        if (far_now->set & NAMED)
            CHECK(far.near_text[0] != '/' || access(far.near_text, F_OK) != 0);
    }
    footprint_again(before);
}

/* A port that somebody has, and where nobody has it any more. */
static void the_address_is_taken(void)
{
    char taken[160], remote[160];
    qnet_conn *conn = (qnet_conn *)taken;
    int fd = far_udp_at(AF_INET, 0, taken, sizeof taken);

    close(far_udp_at(AF_INET, 0, remote, sizeof remote));
    CHECK_INT(qnet_dgram("udp4", taken, remote, &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    conn = (qnet_conn *)taken;
    CHECK_INT(qnet_dgram("udp", strchr(taken, ':'), strchr(remote, ':'), &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    close(fd);
    CHECK_INT(qnet_dgram("udp4", taken, remote, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void live_names_are_kept(void)
{
    const char *remote = scratch_path("remote");
    const char *names[3];
    size_t i;

    names[0] = scratch_path("live-datagrams");
    names[1] = scratch_path("live-stream");
    names[2] = scratch_abstract("live");
    for (i = 0; i < 3; i++) {
        int fd = i == 1 ? raw_unix_listen(names[i]) : far_unix_at(names[i]);
        struct stat before, after;
        qnet_conn *conn = (qnet_conn *)&i;

        memset(&before, 0, sizeof before);
        memset(&after, 0, sizeof after);
        stat(names[i], &before);
        CHECK_INT(qnet_dgram("unixgram", names[i], remote, &conn), QNET_ERR_BUSY);
        CHECK(conn == NULL);
        stat(names[i], &after);
        CHECK(before.st_ino == after.st_ino);
        close(fd);
        /* Dead now. */
        conn = far_dgram("unixgram", names[i], remote);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(stat(names[i], &after) != 0);
    }
}

/* One that is connected to somebody lives as well, though it takes nothing from others. */
static void a_connected_name_is_kept(void)
{
    const char *live = scratch_path("live-connected"), *other = scratch_path("its-peer");
    int fd = far_unix_at(live), peer = far_unix_at(other);
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(other, &address);
    qnet_conn *conn = NULL;
    char byte;

    CHECK(connect(fd, (struct sockaddr *)&address, len) == 0);
    CHECK_INT(qnet_dgram("unixgram", live, scratch_path("remote"), &conn), QNET_ERR_BUSY);
    len = raw_unix_address(live, &address);
    CHECK_INT(sendto(peer, "x", 1, 0, (struct sockaddr *)&address, len), 1);
    CHECK_INT(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
    close(fd);
    close(peer);
}

static void other_files_are_kept(void)
{
    const char *path = scratch_path("precious");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    qnet_conn *conn = (qnet_conn *)path;
    struct stat file;

    CHECK(write(fd, "x", 1) == 1);
    CHECK_INT(qnet_dgram("unixgram", path, scratch_path("remote"), &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    CHECK(stat(path, &file) == 0);
    CHECK_INT(file.st_size, 1);
    CHECK(S_ISREG(file.st_mode));
    close(fd);
    CHECK(unlink(path) == 0);
}

static void the_file_has_its_mode_and_goes(void)
{
    static const mode_t umasks[] = { 0, 022, 077, 0777 };
    const char *path = scratch_path("own-file");
    size_t i;

    for (i = 0; i < 4; i++) {
        qnet_conn *conn;
        struct stat file;

        umask(umasks[i]);
        conn = far_dgram("unixgram", path, scratch_path("remote"));
        CHECK(stat(path, &file) == 0);
        CHECK_INT(file.st_mode & 0777, 0600);
        CHECK(S_ISSOCK(file.st_mode));
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(stat(path, &file) != 0);
    }
}

/* A file that has taken its place is somebody else's. */
static void anothers_file_is_left(void)
{
    const char *path = scratch_path("replaced");
    qnet_conn *conn = far_dgram("unixgram", path, scratch_path("remote"));
    int fd;

    CHECK(unlink(path) == 0);
    fd = far_unix_at(path);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(access(path, F_OK) == 0);
    close(fd);
    CHECK(unlink(path) == 0);
}

/* ---- What cannot be right ---- */

static void malformed(void)
{
    static const struct {
        const char *network, *local, *remote;
    } cases[] = {
        { NULL, "127.0.0.1:0", "127.0.0.1:1" },
        { "udp", NULL, "127.0.0.1:1" },
        { "", "127.0.0.1:0", "127.0.0.1:1" },
        { "tcp", "127.0.0.1:0", "127.0.0.1:1" },
        { "unix", "/tmp/a", "/tmp/b" },
        { "UDP", "127.0.0.1:0", "127.0.0.1:1" },
        { "udp", "", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "" },
        { "udp", "127.0.0.1", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "127.0.0.1" },
        { "udp", "127.0.0.1:0", "127.0.0.1:0" },
        { "udp", "127.0.0.1:0", "127.0.0.1:65536" },
        { "udp", "127.0.0.1:-1", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "[::1:1" },
        { "udp", "127.0.0.1:0", "[::1]:1" },
        { "udp", "[::1]:0", "127.0.0.1:1" },
        { "udp4", "[::1]:0", "[::1]:1" },
        { "udp6", "127.0.0.1:0", "127.0.0.1:1" },
        { "unixgram", "", "/tmp/b" },
        { "unixgram", "/tmp/a", "" },
        { "unixgram", "@", "@b" },
        { "unixgram", "/tmp/a", "/tmp/a" },
        { "unixgram", NULL, "/tmp/a" },
        { "mcast", "127.0.0.1", NULL },
        { "mcast", NULL, NULL },
        { "mcast", NULL, "127.0.0.1:1234" },
        { "mcast", NULL, "230.0.0.1" },
        { "mcast", NULL, "230.0.0.1:0" },
        { "mcast", NULL, "240.0.0.1:1234" },
        { "mcast", NULL, "223.255.255.255:1234" },
        { "mcast", NULL, "[ff02::1]:1234" },
        { "mcast", NULL, "localhost:1234" },
        { "mcast", NULL, ":1234" },
        { "mcast", "127.0.0.1:1", "230.0.0.1:1234" },
        { "mcast", "::1", "230.0.0.1:1234" },
        { "mcast", "lo", "230.0.0.1:1234" },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conn = (qnet_conn *)&i;
        int result = qnet_dgram(cases[i].network, cases[i].local, cases[i].remote, &conn);

        if (result != QNET_ERR_INVALID)
            fprintf(stderr, "case %d\n", (int)i);
        CHECK_INT(result, QNET_ERR_INVALID);
        CHECK(conn == NULL);
        CHECK(qnet_last_error()[0] != '\0');
    }
    CHECK_INT(qnet_dgram("udp", "127.0.0.1:0", "127.0.0.1:1", NULL), QNET_ERR_INVALID);
}

/* Nothing is made where there is no place for the handle, or the remote is malformed. */
static void nothing_is_made_of_what_fails(void)
{
    struct footprint before = footprint_now();
    const char *path = scratch_path("not-made");
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dgram("unixgram", path, "@", &conn), QNET_ERR_INVALID);
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(qnet_dgram("unixgram", path, "@x", NULL), QNET_ERR_INVALID);
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(qnet_dgram("unixgram", scratch_path("no/such/place"), "@x", &conn), QNET_ERR_OS);
    CHECK_INT(qnet_dgram("mcast", "192.0.2.7", "239.255.77.9:1234", &conn), QNET_ERR_OS);
    CHECK_INT(qnet_dgram("udp4", "192.0.2.7:0", "127.0.0.1:1", &conn), QNET_ERR_OS);
    footprint_again(before);
}

/* Hosts that may be both are taken for v4, which QEMU has alone. */
static void this_host_by_other_names(void)
{
    static const char *const hosts[] = { "", "localhost", "127.0.0.1" };
    size_t i;

    for (i = 0; i < 3; i++) {
        char text[160], remote[160];
        uint8_t frame[60] = { 0 }, got[100];
        qnet_conn *conn;
        int fd = far_udp_at(AF_INET, 0, text, sizeof text);

        snprintf(remote, sizeof remote, "%s%s", hosts[i], strchr(text, ':'));
        conn = far_dgram("udp", ":0", remote);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK(raw_readable(fd, patience_ms()));
        CHECK_INT(recv(fd, got, sizeof got, 0), sizeof frame);
        check_address(qnet_peer_addr, conn, text);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Descriptors that cannot be adopted ---- */

static int make_unconnected_udp(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int make_bound_udp(void)
{
    char text[160];

    return far_udp_at(AF_INET, 0, text, sizeof text);
}

static int make_unconnected_unixgram(void)
{
    return socket(AF_UNIX, SOCK_DGRAM, 0);
}

static int make_unconnected_sequenced(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET, 0);
}

static int make_listening_sequenced(void)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(scratch_abstract("sequenced"), &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1) == 0);
    return fd;
}

static int make_tun_without_interface(void)
{
    int fd = open("/dev/net/tun", O_RDWR);

    return fd >= 0 ? fd : open("/dev/null", O_RDWR);
}

static int make_epoll(void)
{
    return epoll_create1(0);
}

static int make_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW, 0);
}

static void from_fd_refuses(void)
{
    static const struct {
        int (*make)(void);
        int code; /* 0: any */
    } cases[] = {
        { make_unconnected_udp, QNET_ERR_INVALID },
        { make_bound_udp, QNET_ERR_INVALID },
        { make_unconnected_unixgram, QNET_ERR_INVALID },
        { make_unconnected_sequenced, QNET_ERR_INVALID },
        { make_listening_sequenced, QNET_ERR_INVALID },
        { make_tun_without_interface, QNET_ERR_INVALID },
        { make_epoll, QNET_ERR_INVALID },
        { make_netlink, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conn = (qnet_conn *)&i;
        int fd = cases[i].make(), flags, status, result;

        CHECK(fd >= 0);
        flags = fcntl(fd, F_GETFD);
        status = fcntl(fd, F_GETFL);
        result = qnet_from_fd(fd, &conn);
        CHECK(result < 0);
        if (cases[i].code != 0)
            CHECK_INT(result, cases[i].code);
        CHECK(conn == NULL);
        CHECK_INT(fcntl(fd, F_GETFD), flags);
        CHECK_INT(fcntl(fd, F_GETFL), status);
        CHECK(close(fd) == 0);
    }
}

/* An adopted socket stays blocking or not, as it came, and is the library's to close. */
static void an_adopted_descriptor(void)
{
    int nonblocking;

    for (nonblocking = 0; nonblocking < 2; nonblocking++) {
        struct far far;
        qnet_conn *conn;
        int pair[2];

        CHECK(socketpair(AF_UNIX, far_now->set & PAIR ? SOCK_DGRAM : SOCK_SEQPACKET, 0, pair) == 0);
        CHECK(fcntl(pair[0], F_SETFL, nonblocking ? O_NONBLOCK : 0) == 0);
        CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
        CHECK_INT(qnet_fd(conn), pair[0]);
        CHECK_INT((fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0, nonblocking);
        CHECK(fcntl(pair[0], F_GETFD) & FD_CLOEXEC);
        far_init(&far, pair[1]);
        next_is_a_frame(conn, &far);
        CHECK_INT((fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0, nonblocking);
        far_close(conn, &far);
        CHECK(fcntl(pair[0], F_GETFD) < 0);
    }
}

int main(void)
{
    scratch_make();
    RUN_KINDS(sizes_sent, EVERY_KIND);
    RUN_KINDS(sizes_received, EVERY_KIND);
    RUN(sizes_between_two);
    RUN_KINDS(sizes_refused, EVERY_KIND);
    RUN_KINDS(padded, EVERY_KIND);
    RUN_KINDS(rows_of_every_length, EVERY_KIND);
    RUN_KINDS(rows_with_a_shorter_end, EVERY_KIND);
    RUN_KINDS(segmented_received, UDP);
    RUN_KINDS(segmented_with_a_shorter_end, UDP);
    RUN_KINDS(many_received, EVERY_KIND);
    RUN_KINDS(coalesced, EVERY_KIND);
    RUN_KINDS(echoed_by_handlers, EVERY_KIND);
    RUN_KINDS(waits_end, EVERY_KIND);
    RUN_KINDS(epolled, EVERY_KIND);
    RUN_KINDS(epolled_in_batches, EVERY_KIND);
    RUN_KINDS(too_short_or_too_long, EVERY_KIND);
    RUN_KINDS(vfkits_greeting, NAMED | PAIR);
    RUN_KINDS(strangers_are_not_heard, UDP | NAMED);
    RUN(the_remote_by_another_name);
    RUN_KINDS(the_remote_comes_and_goes, UDP | NAMED);
    RUN_KINDS(a_frame_behind_a_refusal, UDP);
    RUN_KINDS(nobody_there_while_receiving, UDP | NAMED);
    RUN_KINDS(a_pairs_end_goes, PAIR);
    RUN_KINDS(nobody_reads, NAMED | PAIR);
    RUN_KINDS(small_timeouts, OF_UNIX);
    RUN_KINDS(nobody_reads_what_is_held_back, NAMED | PAIR);
    RUN_KINDS(own_buffer_is_full, OF_UNIX);
    RUN_KINDS(own_buffer_is_too_small, OF_UNIX);
    RUN_KINDS(threads_send, EVERY_KIND);
    RUN_KINDS(ends_while_threads_send, OF_UNIX);
    RUN_KINDS(ends_while_threads_receive, EVERY_KIND);
    RUN_KINDS(linked_to_a_stream, EVERY_KIND);
    RUN_KINDS(linked_to_its_like, EVERY_KIND);
    RUN(all_kinds_on_a_hub);
    RUN_KINDS(too_long_for_a_port, UDP | GROUP);
    RUN_KINDS(slow_port_of_a_hub, NAMED | PAIR);
    RUN_KINDS(patient_port_of_a_link, OF_UNIX);
    RUN_KINDS(absent_port_of_a_hub, UDP | NAMED | PAIR);
    RUN_KINDS(a_sequenced_peer_leaves, SEQUENCED);
    RUN_KINDS(a_sequenced_peer_leaves_frames_unread, SEQUENCED);
    RUN_KINDS(a_sequenced_end_is_looked_for, SEQUENCED);
    RUN_KINDS(a_sequenced_port_leaves, SEQUENCED);
    RUN_KINDS(a_sequenced_peer_leaves_a_sender, SEQUENCED);
    RUN_KINDS(an_empty_message_is_no_end, SEQUENCED);
    RUN_KINDS(a_group_of_three, GROUP);
    RUN_KINDS(another_group_is_not_heard, GROUP);
    RUN_KINDS(addresses, UDP | NAMED | GROUP);
    RUN_KINDS(options, EVERY_KIND);
    RUN_KINDS(nothing_is_left, EVERY_KIND);
    RUN(the_address_is_taken);
    RUN(live_names_are_kept);
    RUN(a_connected_name_is_kept);
    RUN(other_files_are_kept);
    RUN(the_file_has_its_mode_and_goes);
    RUN(anothers_file_is_left);
    RUN(malformed);
    RUN(nothing_is_made_of_what_fails);
    RUN(this_host_by_other_names);
    RUN(from_fd_refuses);
    RUN_KINDS(an_adopted_descriptor, PAIR | SEQUENCED);
    scratch_remove();
    return check_done();
}
