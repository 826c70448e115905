/*
 * ends.h - frames both ways between a connection of the library and a plain
 * socket, where anything may fail.
 */
#ifndef ENDS_H
#define ENDS_H

#include "faults.h"

/* How many frames are sent, one way, at a time. */
enum { FEW = 5 };

/* A connection, the plain socket at its other end, and what went through. */
struct end {
    qnet_conn *conn;
    int fd;
    int has_messages;             /* whether frames are messages, not a stream's */
    int redials;                  /* whether the connection dials again when its peer leaves */
    struct flow taken, arrived;   /* from the library */
    struct flow written, received; /* to it */
    unsigned arrivals;
};

static struct end end_of(qnet_conn *conn, int fd)
{
    struct flow flow = flow_of_small_frames();
    struct end end = { conn, fd, 0, 0, flow, flow, flow, flow, 0 };

    return end;
}

/* One frame from the plain socket; its length, or -1 at the stream's end. */
static long plain_recv(const struct end *end, uint8_t *frame, size_t cap)
{
    ssize_t n;

    if (!end->has_messages)
        return raw_recv(end->fd, frame, cap);
    n = recv(end->fd, frame, cap, 0);
    return n > 0 ? (long)n : -1;
}

/* Frames to the library, unless it has hung up. */
static void plain_send(struct end *end, size_t count)
{
    struct bundle bundle = bundle_make(&end->written, count);
    size_t i;

    if (!end->has_messages)
        (void)!send(end->fd, bundle.wire, bundle.len, MSG_NOSIGNAL);
    for (i = 0; end->has_messages && i < count; i++)
        (void)!send(end->fd, bundle.frames[i].data, bundle.frames[i].len, MSG_NOSIGNAL);
    end->written.next += (unsigned)count;
    bundle_free(&bundle);
}

/* Whether each frame that was taken has been written or is counted as lost. */
static int is_settled(const struct end *end)
{
    qnet_stats stats = stats_of(end->conn);

    return stats.tx_frames + stats.tx_dropped == end->taken.next;
}

/* What was taken arrives, once and in order, or after a fault is counted as lost. */
static void check_arrived(struct end *end)
{
    static uint8_t frame[QNET_FRAME_MAX];
    qnet_stats stats;
    unsigned number;
    long len;

    EVENTUALLY(is_settled(end));
    stats = stats_of(end->conn);
    CHECK(stats.tx_dropped == 0 || may_fail());
    for (; end->arrivals < stats.tx_frames; end->arrivals++) {
        CHECK(raw_readable(end->fd, patience_ms()));
        len = plain_recv(end, frame, sizeof frame);
        CHECK(len > 0);
        number = frame_number(frame, (size_t)len);
        CHECK(number >= end->arrived.next);
        CHECK(number == end->arrived.next || stats.tx_dropped > 0);
        end->arrived.next = number;
        flow_take(&end->arrived, frame, (size_t)len);
    }
}

/* Sends frames, and again where that failed once; whether it went well. */
static int says(struct end *end, int way)
{
    unsigned until = end->taken.next + FEW;
    int result, failures = 0;

    while (end->taken.next != until && failures < 2) {
        TRY(result, flow_send(&end->taken, end->conn, way, until - end->taken.next));
        if (!went(result, "send"))
            failures++;
    }
    if (failures < 2) {
        TRY(result, qnet_flush(end->conn));
        went(result, "flush");
    }
    check_arrived(end);
    return failures < 2;
}

/* One receive, which gives QNET_ERR_TIMEOUT only where a fault may have lost what was to come. */
static int pull(struct taker *taker, int may_be_lost)
{
    long long until_ms = raw_now_ms() + patience_ms();
    int result;

    do
        TRY(result, taker_pull(taker, 50));
    while (result == QNET_ERR_TIMEOUT && !(may_be_lost && may_fail()) &&
           raw_now_ms() < until_ms);
    return result;
}

/* Receives what the plain socket sends. A failure that is not the end has taken nothing. */
static int hears(struct end *end, int way)
{
    struct taker taker;
    int result, failures = 0;

    taker_start(&taker, end->conn, way, flow_each, &end->received);
    plain_send(end, FEW);
    while (end->received.next != end->written.next && failures < 2) {
        result = pull(&taker, end->redials);
        if (result == QNET_ERR_TIMEOUT && end->redials)
            break; /* the connection has another peer by now */
        failures += !went(result, "receive");
    }
    CHECK_INT(qnet_set_close_handler(end->conn, NULL, NULL), QNET_OK);
    CHECK(failures < 2 || qnet_close_reason(end->conn) != QNET_OK);
    return end->received.next == end->written.next;
}

/* Closes. Of a connection that failed, a part of a frame may still come. */
static void finish(struct end *end)
{
    uint8_t byte;

    CHECK_INT(qnet_close(end->conn), QNET_OK);
    if (!end->has_messages) {
        CHECK(raw_readable(end->fd, patience_ms()));
        CHECK_INT(plain_recv(end, &byte, 1), -1);
    }
    CHECK(close(end->fd) == 0);
}

/* All ways to send and to pull. */
static void talk(struct end *end)
{
    int way, goes_on = 1;

    for (way = 0; goes_on && way < WAYS_TO_SEND; way++)
        goes_on = says(end, way);
    for (way = 0; goes_on && way < WAYS_TO_PULL; way++)
        goes_on = hears(end, way);
    finish(end);
}

static void talk_briefly(qnet_conn *conn, int fd)
{
    struct end end = end_of(conn, fd);

    if (says(&end, 1))
        hears(&end, BY_RECV);
    finish(&end);
}

/* A connection that was made without faults. */
static struct end sound_end(void)
{
    qnet_conn *conn;
    int fd;

    shim_pause(1);
    conn = raw_pair(&fd);
    shim_pause(0);
    return end_of(conn, fd);
}

/* Whether something comes to be read. Where a fault may have lost it, this does not wait long. */
static int comes(const struct end *end, int may_be_lost)
{
    long long until_ms = raw_now_ms() + patience_ms();

    while (!raw_readable(end->fd, 50)) {
        if (may_be_lost && may_fail())
            return 0;
        CHECK(raw_now_ms() < until_ms);
    }
    return 1;
}

/* Reads frames up to number `until`, or to the end, which comes earlier only after a fault. */
static void plain_takes(struct end *end, unsigned until, int may_be_lost)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long len = 0;

    while (len >= 0 && end->arrived.next != until && comes(end, may_be_lost)) {
        len = plain_recv(end, frame, sizeof frame);
        if (len >= 0)
            flow_take(&end->arrived, frame, (size_t)len);
    }
    CHECK(end->arrived.next == until || may_fail());
}

#endif
