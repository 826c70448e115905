/*
 * host.h - what the tests of the library as a guest in a process share: a
 * handler that counts, every way to send, and a socket that is full.
 */
#ifndef HOST_H
#define HOST_H

#include "traffic.h"
#include "scratch.h"

enum { BIG = 60000 };

static unsigned char frame_bytes[BIG];

static inline void count_frame(void *counter, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    count_up(counter);
}

/* Sends without waiting until the socket is full and the library holds the rest of a frame. */
static inline void fill_socket(qnet_conn *conn)
{
    int code;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 8192), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do {
        code = qnet_send(conn, frame_bytes, BIG);
    } while (code == QNET_OK);
    CHECK_INT(code, QNET_ERR_AGAIN);
    while (qnet_send(conn, frame_bytes, FRAME) == QNET_OK)
        continue;
}

static inline int send_one(qnet_conn *conn)
{
    return qnet_send(conn, frame_bytes, FRAME);
}

static inline int send_big(qnet_conn *conn)
{
    return qnet_send(conn, frame_bytes, BIG);
}

static inline int send_batch(qnet_conn *conn)
{
    qnet_frame frames[3];
    int i;

    for (i = 0; i < 3; i++) {
        frames[i].data = frame_bytes;
        frames[i].len = FRAME;
    }
    return qnet_send_batch(conn, frames, 3);
}

static inline int send_packed(qnet_conn *conn)
{
    unsigned char packed[2 * (RAW_PREFIX + FRAME)] = { 0 };

    raw_put_length(packed, FRAME);
    raw_put_length(packed + RAW_PREFIX + FRAME, FRAME);
    return qnet_send_packed(conn, packed, sizeof packed);
}

static inline int send_and_flush(qnet_conn *conn)
{
    int code = qnet_send(conn, frame_bytes, FRAME);

    return code < 0 ? code : qnet_flush(conn);
}

typedef int send_function(qnet_conn *conn);

static send_function *const send_paths[] = {
    send_one, send_big, send_batch, send_packed, send_and_flush,
};

enum { SEND_PATHS = sizeof send_paths / sizeof *send_paths };

#endif
