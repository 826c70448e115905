/*
 * messages.h - lives of connections whose messages are frames: UDP, Unix datagrams,
 * SEQPACKET. What a Unix socket takes arrives, or is counted as dropped; UDP may lose
 * frames, but keeps their order.
 */
#ifndef MESSAGES_H
#define MESSAGES_H

#include "soak.h"

struct far_side {
    struct far far;
    int stop, goal, wrote;
    struct row in;
    pthread_t reader, writer;
};

static void *far_reading(void *argument)
{
    static __thread uint8_t frame[QNET_FRAME_MAX + 1];
    struct far_side *side = argument;
    int is_stopped;
    long len;

    do {
        is_stopped = get(&side->stop);
        len = far_recv_now(&side->far, frame, sizeof frame);
        if (len > 0)
            row_take(&side->in, frame, (size_t)len);
        else if (!is_stopped)
            raw_readable(side->far.fd, 10);
    } while (len > 0 || !is_stopped);
    return NULL;
}

static void *far_writing(void *argument)
{
    struct far_side *side = argument;
    struct flow flow = flow_of_soak();
    uint8_t frame[9000];

    while (get(&side->wrote) < side->goal) {
        size_t len = flow_size(&flow, flow.next);

        frame_make(frame, len, flow.next);
        if (far_try(&side->far, frame, len, MSG_DONTWAIT) < 0) {
            CHECK(errno == EAGAIN || errno == ENOBUFS);
            raw_sleep_ms(1);
            continue;
        }
        flow.next++;
        count_up(&side->wrote);
        if (flow.next % 64 == 0)
            raw_sleep_ms(1); /* nothing else keeps a sender over UDP from running ahead */
    }
    return NULL;
}

static void message_lives(struct sort *sort)
{
    struct flow flow = flow_of_soak();
    const struct far_kind *kind;
    struct receiver receiver;
    struct far_side side;
    qnet_stats stats;
    qnet_conn *conn;
    int taken = 0, goal = (int)pick(3000), has_gaps;

    do
        kind = &far_kinds[pick(FAR_KINDS)];
    while (kind->set & GROUP || (kind->family == AF_INET6 && !ipv6_here()));
    has_gaps = kind->set & UDP;
    memset(&side, 0, sizeof side);
    pthread_mutex_lock(&opening);
    conn = far_open_kind(kind, &side.far);
    pthread_mutex_unlock(&opening);
    side.in = row_new(1);
    side.goal = (int)pick(3000);
    receiver_start(&receiver, conn, has_gaps);
    start_thread(&side.reader, far_reading, &side);
    start_thread(&side.writer, far_writing, &side);
    while (taken < goal) {
        taken += send_any_way(conn, &flow, goal - taken < 64 ? goal - taken : 64);
        if (has_gaps)
            raw_sleep_ms(1);
    }
    join_thread(side.writer);
    while (!has_gaps && get(&receiver.in.came) < side.goal)
        raw_sleep_ms(1);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    join_thread(receiver.thread);
    stats = stats_at_the_end(conn, taken);
    put(&side.stop, 1);
    join_thread(side.reader);
    if (!has_gaps)
        CHECK_INT(side.in.came, stats.tx_frames);
    taker_close(&receiver.taker);
    far_leaves(&side.far);
    add_up(sort, taken + side.goal, side.in.came + receiver.in.came, (long long)stats.tx_dropped);
}

#endif
