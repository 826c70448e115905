/*
 * traffic.h - a listener, and a frame each way between a connection and the
 * plain socket at its other end.
 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include "raw.h"

enum { FRAME = 60 };

static inline qnet_listener *listen_on(const char *network, const char *address)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen(network, address, &listener), QNET_OK);
    CHECK(listener != NULL);
    return listener;
}

/* Checks a frame to the connection and one from it. It must have no handler. */
static inline void check_traffic(qnet_conn *conn, int fd)
{
    unsigned char frame[FRAME], got[FRAME];

    raw_fill(frame, sizeof frame, 1);
    raw_send(fd, frame, sizeof frame);
    CHECK_INT(qnet_recv(conn, got, sizeof got, patience_ms()), FRAME);
    CHECK(raw_is(got, sizeof got, 1));
    raw_fill(frame, sizeof frame, 2);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_recv(fd, got, sizeof got), FRAME);
    CHECK(raw_is(got, sizeof got, 2));
}

#endif
