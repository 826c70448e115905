/* clocks.h - clocks that the program moves, and what is on them. */
#ifndef CLOCKS_H
#define CLOCKS_H

#include "../emulation/impairing.h"
#include "cable.h"

static const int64_t ms = 1000000;

static inline qnet_clock *clock_open(void)
{
    qnet_clock *clock = NULL;

    CHECK_INT(qnet_clock_new(&clock), QNET_OK);
    CHECK(clock != NULL);
    return clock;
}

static inline void clock_close(qnet_clock *clock)
{
    CHECK_INT(qnet_clock_close(clock), QNET_OK);
}

static inline int64_t now_of(qnet_clock *clock)
{
    int64_t now = -1;

    CHECK_INT(qnet_clock_next(clock, &now, NULL), QNET_OK);
    return now;
}

static inline int64_t next_of(qnet_clock *clock)
{
    int64_t next = -1;

    CHECK_INT(qnet_clock_next(clock, NULL, &next), QNET_OK);
    return next;
}

static inline int advance(qnet_clock *clock, int64_t to)
{
    int frames = qnet_clock_advance(clock, to);

    CHECK(frames >= 0);
    CHECK_INT(now_of(clock), to);
    return frames;
}

/* Two connections that are linked on a clock, and the plain sockets at their other ends. */
static inline struct cable cable_on(qnet_clock *clock)
{
    struct cable cable = cable_unplugged();

    CHECK_INT(qnet_link_on(clock, cable.a, cable.b), QNET_OK);
    return cable;
}

static inline qnet_hub *hub_on(qnet_clock *clock)
{
    qnet_hub *hub = NULL;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, clock), QNET_OK);
    return hub;
}

static inline void raw_send_numbered(int fd, unsigned number, size_t len)
{
    uint8_t frame[QNET_FRAME_MAX];

    frame_make(frame, len, number);
    raw_send(fd, frame, len);
}

static inline int raw_has(int fd)
{
    return raw_readable(fd, 0);
}

static inline unsigned raw_take_numbered(int fd)
{
    uint8_t frame[QNET_FRAME_MAX];
    long len = raw_recv(fd, frame, sizeof frame);

    CHECK(len > 0);
    return frame_number(frame, (size_t)len);
}

#endif
