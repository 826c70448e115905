/*
 * calls.h - functions that each make one call to send, receive or wait, for threads of
 * their own; and frames for them to receive.
 */
#ifndef CALLS_H
#define CALLS_H

#include "footprint.h"

/* A pseudo-random number. The same initial state gives the same numbers in every run. */
static inline unsigned next_random(unsigned *state)
{
    *state = *state * 1103515245u + 12345u;
    return *state >> 16;
}

enum { FRAMES = 7 };

/* Writes FRAMES frames from the plain socket's side. */
static inline void send_some(int fd)
{
    struct flow flow = flow_of_small_frames();

    raw_send_flow(fd, &flow, FRAMES, 0);
}

/* Writes a frame of 60 bytes, and after it a length that is too large for any frame. */
static inline void send_one_and_break(int fd)
{
    static const uint8_t wire[4 + 60 + 4] = { 0, 0, 0, 60, [64] = 0xff };

    raw_write(fd, wire, sizeof wire);
}

static inline int make_send(qnet_conn *conn)
{
    uint8_t frame[1514] = { 0 };

    return qnet_send(conn, frame, sizeof frame);
}

static inline int make_send_batch(qnet_conn *conn)
{
    struct flow flow = flow_of_small_frames();

    return flow_send(&flow, conn, 1, FRAMES);
}

static inline int make_send_packed(qnet_conn *conn)
{
    struct flow flow = flow_of_small_frames();

    return flow_send(&flow, conn, 2, FRAMES);
}

static inline int make_recv(qnet_conn *conn)
{
    uint8_t buffer[2048];

    return qnet_recv(conn, buffer, sizeof buffer, -1);
}

static inline int make_recv_batch(qnet_conn *conn)
{
    qnet_frame frames[4];

    return qnet_recv_batch(conn, frames, 4, -1);
}

static inline int make_recv_packed(qnet_conn *conn)
{
    uint8_t buffer[2048];

    return qnet_recv_packed(conn, buffer, sizeof buffer, -1);
}

static inline int make_wait(qnet_conn *conn)
{
    return qnet_wait(conn, -1);
}

static inline int make_poll(qnet_conn *conn)
{
    uint8_t ready = 7;
    int result = qnet_poll(&conn, &ready, 1, -1);

    CHECK_INT(ready, 1);
    return result;
}

#endif
