/*
 * messages.c - connections whose messages are frames, of every kind of socket: each frame
 * arrives as it was sent or is counted as dropped, be it sent alone, in a batch or by one
 * of many threads.
 */
#include <sys/epoll.h>

#include "dgrams.h"

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

/* Nothing is sent of a frame whose length is not allowed, and a batch stops there. */
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

/*
 * Runs of frames of one length, which over UDP are one message for the kernel to split:
 * runs that end in a shorter frame or a longer one, that are as long as is allowed or one
 * more, and no runs at all.
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

/* Runs of 63 frames of one length and a shorter one at the end, again and again. */
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

/*
 * Sends one message from the far socket, which the kernel splits into datagrams of `len`
 * bytes.
 */
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

/* Datagrams that the kernel delivers as one message are taken apart, however many they are. */
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
                    CHECK(errno == EINVAL && counts[i] > 64); /* not so many by this kernel */
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

/* A last datagram that is shorter is a frame as well, or a runt. */
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

/* Many frames arrive at once: each receive continues where the last one ended. */
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
            /* A Unix socket's queue may have room for no more. */
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

/*
 * What a handler sends may be held back while more frames wait for it, and arrives all
 * the same.
 */
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

/* Waits as an event loop does: pulls until there is nothing, then waits for the descriptor. */
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

/* Does the same with batches: one of fewer frames than asked for is all that there is. */
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

/* vfkit's first message is no frame, and no runt either, whatever the peer is. */
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

/* A remote given by another name for the same file is the same remote. */
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

/* ---- Many threads ---- */

enum { SENDERS = 4 };

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

/* All frames arrive, and those of each thread in the order in which it sent them. */
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

/*
 * A connection ends while threads wait to send, or their frames are dropped: all of them
 * return.
 */
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

/* A thread that receives and one that waits are woken when this side ends the connection. */
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
    RUN_KINDS(threads_send, EVERY_KIND);
    RUN_KINDS(ends_while_threads_send, OF_UNIX);
    RUN_KINDS(ends_while_threads_receive, EVERY_KIND);
    scratch_remove();
    return check_done();
}
