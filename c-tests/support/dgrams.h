/*
 * dgrams.h - what tests of connections whose messages are frames share: checks that
 * frames pass and are counted, and threads that send.
 */
#ifndef DGRAMS_H
#define DGRAMS_H

#include <sched.h>

#include "far.h"

/* ---- Counters ---- */

/* Checks the counters of frames sent and dropped: every frame taken is in one of them. */
static inline void check_sent(qnet_conn *conn, uint64_t frames, uint64_t bytes, uint64_t dropped)
{
    qnet_stats stats = stats_of(conn);

    CHECK_INT(stats.tx_frames, frames);
    CHECK_INT(stats.tx_bytes, bytes);
    CHECK_INT(stats.tx_dropped, dropped);
}

static inline uint64_t taken_by(qnet_conn *conn)
{
    qnet_stats stats = stats_of(conn);

    return stats.tx_frames + stats.tx_dropped;
}

/* ---- Frames ---- */

/* Sends `count` frames without ever waiting, while the far socket reads what comes. */
static inline void pass_all(qnet_conn *conn, const struct far *far, struct flow flow, int way, unsigned count)
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

/* Sends a frame from the far socket, and checks that it is the next one to be received. */
static inline void next_is_a_frame(qnet_conn *conn, const struct far *far)
{
    static unsigned number = 5000;
    uint8_t frame[77], got[100];

    frame_make(frame, sizeof frame, ++number);
    far_send(far, frame, sizeof frame);
    CHECK_INT(qnet_recv(conn, got, sizeof got, patience_ms()), sizeof frame);
    CHECK_INT(frame_number(got, sizeof frame), number);
}

/* Checks that frames go both ways. */
static inline void works(qnet_conn *conn, const struct far *far)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;

    CHECK_INT(flow_send(&sent, conn, 1, ALL_SIZES), ALL_SIZES);
    far_take_until(far, &seen, sent.next);
    next_is_a_frame(conn, far);
}

/* Leaves room for few frames only, on a pair as well, which nothing but its buffer limits. */
static inline void have_little_room(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 20000), QNET_OK);
}

/* ---- Many threads ---- */

struct sender {
    pthread_t thread;
    qnet_conn *conn;
    int id, result;
    unsigned count, taken;
};

/* Sends numbered frames, each again while there is no room. Any other error ends it. */
static inline void *sending(void *argument)
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

#endif
