/*
 * absent.c - messages to a peer that is not there, does not read, or leaves:
 * over SEQPACKET, a socket pair and datagrams.
 */
#include "dgrams.h"

/* ---- A remote that is not there ---- */

/* Sends frames to the absent remote in every way to send: returns how many. */
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
        if (round % 3 == 1) { /* the remote sends first */
            next_is_a_frame(conn, &far);
        } else if (round % 3 == 2) { /* the remote receives first */
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

/*
 * A refusal that is still pending on the socket hides no frame from a receive
 * that does not wait.
 */
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

/* A receiver meanwhile gets no error and does not spin, and every frame is counted as dropped. */
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
 * When the other end of a datagram pair has gone, frames to it are dropped and
 * the connection does not end. (The first frame sent after that makes the
 * system discard what the other end had sent.)
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

/* Sends without waiting until the far socket's queue is full: returns how many frames it took. */
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

    /* With a timeout of 0, every send is refused with QNET_ERR_AGAIN. */
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

    /* With a short timeout, a send is taken again as soon as there is room. */
    taken += fill(conn, &sent);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 1), QNET_OK);
    far_take_until(&far, &seen, sent.next);
    CHECK_INT(flow_send(&sent, conn, 0, 1), 1);
    far_take_until(&far, &seen, sent.next);
    taken++;
    check_sent(conn, taken, taken * size, 0);

    /* Without a timeout, frames are taken and dropped: the sender is not held up for ever. */
    taken += fill(conn, &sent);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
    memset(frame, 0, sizeof frame);
    for (i = 0; i < 300; i++)
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    check_sent(conn, taken, taken * size, 300);

    /* Once the far side reads, it receives frames again. */
    far_take_until(&far, &seen, sent.next);
    CHECK_INT(flow_send(&sent, conn, 1, 5), 5);
    far_take_until(&far, &seen, sent.next);
    check_sent(conn, taken + 5, (taken + 5) * size, 300);
    far_close(conn, &far);
}

/* A timeout shorter than the time after which frames are dropped expires first: none is dropped. */
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

/*
 * Frames held back for coalescing do not wait for ever either: they are
 * dropped, whether a flush or the service thread writes them.
 */
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

/* When the socket's own send buffer is full, frames wait and none is dropped. */
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

/* A frame larger than the socket's own send buffer is dropped, and the connection goes on. */
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

/* ---- SEQPACKET: a peer that leaves is noticed ---- */

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

/*
 * A peer that leaves with a frame unread resets the socket; the frames that it
 * sent are still received.
 */
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

/* Asking for the end, by a wait or by qnet_close_reason, discards none of those frames either. */
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

/* A hub's port over SEQPACKET ends when its peer leaves. */
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

/* An empty message does not end the connection, though receiving it returns 0 as an end does. */
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

int main(void)
{
    scratch_make();
    RUN_KINDS(the_remote_comes_and_goes, UDP | NAMED);
    RUN_KINDS(a_frame_behind_a_refusal, UDP);
    RUN_KINDS(nobody_there_while_receiving, UDP | NAMED);
    RUN_KINDS(a_pairs_end_goes, PAIR);
    RUN_KINDS(nobody_reads, NAMED | PAIR);
    RUN_KINDS(small_timeouts, OF_UNIX);
    RUN_KINDS(nobody_reads_what_is_held_back, NAMED | PAIR);
    RUN_KINDS(own_buffer_is_full, OF_UNIX);
    RUN_KINDS(own_buffer_is_too_small, OF_UNIX);
    RUN_KINDS(a_sequenced_peer_leaves, SEQUENCED);
    RUN_KINDS(a_sequenced_peer_leaves_frames_unread, SEQUENCED);
    RUN_KINDS(a_sequenced_end_is_looked_for, SEQUENCED);
    RUN_KINDS(a_sequenced_port_leaves, SEQUENCED);
    RUN_KINDS(a_sequenced_peer_leaves_a_sender, SEQUENCED);
    RUN_KINDS(an_empty_message_is_no_end, SEQUENCED);
    scratch_remove();
    return check_done();
}
