/*
 * ways.h - every way to send and every way to receive, so that a test can go
 * through all of them; and the counters.
 */
#ifndef WAYS_H
#define WAYS_H

#include <sys/ioctl.h>

#include "links.h"

/* ---- Every way to send ---- */

/* Sends one by one. Like qnet_send_batch(), returns an error only if the first is not taken. */
static inline int send_singly(qnet_conn *conn, const struct bundle *bundle)
{
    size_t i;

    for (i = 0; i < bundle->count; i++) {
        int result = qnet_send(conn, bundle->frames[i].data, bundle->frames[i].len);
        if (result < 0)
            return i > 0 ? (int)i : result;
    }
    return (int)bundle->count;
}

static inline int send_batch(qnet_conn *conn, const struct bundle *bundle)
{
    return qnet_send_batch(conn, bundle->frames, bundle->count);
}

static inline int send_packed(qnet_conn *conn, const struct bundle *bundle)
{
    return qnet_send_packed(conn, bundle->wire, bundle->len);
}

enum { WAYS_TO_SEND = 3 };

static inline int send_by(int way, qnet_conn *conn, const struct bundle *bundle)
{
    static int (*const ways[WAYS_TO_SEND])(qnet_conn *, const struct bundle *) = {
        send_singly, send_batch, send_packed,
    };

    return ways[way](conn, bundle);
}

/* Sends the next `count` frames in one call. `flow` advances by those taken. */
static inline int flow_send(struct flow *flow, qnet_conn *conn, int way, size_t count)
{
    struct bundle bundle = bundle_make(flow, count);
    int taken = send_by(way, conn, &bundle);

    if (taken > 0)
        flow->next += (unsigned)taken;
    bundle_free(&bundle);
    return taken;
}

/* ---- Every way to receive ---- */

enum { BY_RECV, BY_RECV_BATCH, BY_RECV_PACKED, WAYS_TO_PULL,
       BY_HANDLER = WAYS_TO_PULL, BY_BATCH_HANDLER, WAYS_TO_RECEIVE };

/* Receives in one of these ways, and gives every frame to `each`. */
struct taker {
    qnet_conn *conn;
    int way;
    void (*each)(void *argument, const uint8_t *frame, size_t len);
    void *argument;
    pthread_mutex_t lock;
    unsigned frames; /* how many it has given */
    int ends;        /* how often the close handler ran */
    int reason;      /* what it was told */
};

static inline void ignore_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
}

static inline void taker_frame(void *user, const uint8_t *frame, size_t len)
{
    struct taker *taker = user;

    pthread_mutex_lock(&taker->lock);
    taker->each(taker->argument, frame, len);
    taker->frames++;
    pthread_mutex_unlock(&taker->lock);
}

static inline void taker_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    CHECK(count > 0);
    for (i = 0; i < count; i++)
        taker_frame(user, frames[i].data, frames[i].len);
}

static inline void taker_ended(void *user, int reason)
{
    struct taker *taker = user;

    pthread_mutex_lock(&taker->lock);
    taker->ends++;
    taker->reason = reason;
    pthread_mutex_unlock(&taker->lock);
}

static inline unsigned taker_count(struct taker *taker)
{
    unsigned frames;

    pthread_mutex_lock(&taker->lock);
    frames = taker->frames;
    pthread_mutex_unlock(&taker->lock);
    return frames;
}

static inline int taker_ends(struct taker *taker)
{
    int ends;

    pthread_mutex_lock(&taker->lock);
    ends = taker->ends;
    pthread_mutex_unlock(&taker->lock);
    return ends;
}

/* Begins to receive. If by a handler, frames come from now on. */
static inline void taker_start(struct taker *taker, qnet_conn *conn, int way,
                               void (*each)(void *, const uint8_t *, size_t), void *argument)
{
    memset(taker, 0, sizeof *taker);
    taker->conn = conn;
    taker->way = way;
    taker->each = each;
    taker->argument = argument;
    CHECK_INT(pthread_mutex_init(&taker->lock, NULL), 0);
    CHECK_INT(qnet_set_close_handler(conn, taker_ended, taker), QNET_OK);
    if (way == BY_HANDLER)
        CHECK_INT(qnet_set_handler(conn, taker_frame, taker), QNET_OK);
    if (way == BY_BATCH_HANDLER)
        CHECK_INT(qnet_set_batch_handler(conn, taker_batch, taker), QNET_OK);
}

/* Gives the frames of a packed buffer to the taker. Returns how many there were. */
static inline int taker_unpack(struct taker *taker, const uint8_t *wire, size_t bytes)
{
    size_t at = 0, len;
    int count = 0;

    while (at < bytes) {
        CHECK(bytes - at >= RAW_PREFIX);
        len = (size_t)wire[at] << 24 | (size_t)wire[at + 1] << 16
              | (size_t)wire[at + 2] << 8 | wire[at + 3];
        at += RAW_PREFIX;
        CHECK(len >= 14 && len <= bytes - at);
        taker_frame(taker, wire + at, len);
        at += len;
        count++;
    }
    return count;
}

/* Makes one receive of a way that pulls. Returns how many frames it gave, or its error. */
static inline int taker_pull(struct taker *taker, int timeout_ms)
{
    static __thread uint8_t buffer[QNET_FRAME_MAX + RAW_PREFIX];
    qnet_frame frames[8];
    int result;

    switch (taker->way) {
    case BY_RECV:
        result = qnet_recv(taker->conn, buffer, sizeof buffer, timeout_ms);
        if (result < 0)
            return result;
        taker_frame(taker, buffer, (size_t)result);
        return 1;
    case BY_RECV_BATCH:
        result = qnet_recv_batch(taker->conn, frames, 8, timeout_ms);
        CHECK(result != 0 && result <= 8);
        if (result > 0)
            taker_batch(taker, frames, (size_t)result);
        return result;
    default:
        result = qnet_recv_packed(taker->conn, buffer, sizeof buffer, timeout_ms);
        CHECK(result != 0 && result <= (int)sizeof buffer);
        return result < 0 ? result : taker_unpack(taker, buffer, (size_t)result);
    }
}

/* Receives until `count` frames in all have come. */
static inline void taker_want(struct taker *taker, unsigned count)
{
    if (taker->way >= WAYS_TO_PULL)
        EVENTUALLY(taker_count(taker) >= count);
    while (taker_count(taker) < count)
        CHECK(taker_pull(taker, patience_ms()) > 0);
    CHECK_INT(taker_count(taker), count);
}

/* Receives until the end. Returns its reason, which must be the same wherever it is reported. */
static inline int taker_end(struct taker *taker)
{
    int result = 1;

    if (taker->way < WAYS_TO_PULL) {
        while (result > 0)
            result = taker_pull(taker, patience_ms());
        CHECK_INT(taker_ends(taker), 1);
        CHECK_INT(taker->reason, result);
    }
    EVENTUALLY(taker_ends(taker) > 0);
    CHECK_INT(qnet_close_reason(taker->conn), taker->reason);
    return taker->reason;
}

/* Closes the connection, after which the close handler must have run exactly once. */
static inline void taker_close(struct taker *taker)
{
    CHECK_INT(qnet_close(taker->conn), QNET_OK);
    CHECK_INT(taker_ends(taker), 1);
    pthread_mutex_destroy(&taker->lock);
}

/* ---- Statistics ---- */

static inline qnet_stats stats_of(qnet_conn *conn)
{
    qnet_stats stats;

    CHECK(qnet_get_stats(conn, &stats, sizeof stats) >= (int)sizeof stats);
    return stats;
}

/* How many bytes wait in a socket to be read. */
static inline int bytes_waiting(int fd)
{
    int bytes = -1;

    CHECK(ioctl(fd, FIONREAD, &bytes) == 0);
    return bytes;
}

#endif
