/*
 * sending.h - small buffers, timeouts, and what the counters say of sends.
 */
#ifndef SENDING_H
#define SENDING_H

#include "ways.h"

/*
 * Makes the buffers of both sides small, so that little fills them; but not so
 * small that TCP crawls, which wants room for a segment.
 */
static inline void squeeze(qnet_conn *conn, int fd, int bytes)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, bytes), QNET_OK);
    if (bytes < 65536)
        bytes = 65536;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
}

static inline void send_timeout(qnet_conn *conn, int ms)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, ms), QNET_OK);
}

/* In the end every frame that was taken is in exactly one of two counters. */
static inline void check_counted(qnet_conn *conn, unsigned taken)
{
    EVENTUALLY(stats_of(conn).tx_frames + stats_of(conn).tx_dropped == taken);
    raw_sleep_ms(5);
    CHECK_INT(stats_of(conn).tx_frames + stats_of(conn).tx_dropped, taken);
}

static inline void check_all_sent(qnet_conn *conn, unsigned taken)
{
    check_counted(conn, taken);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
}

#endif
