/*
 * cable.h - two connections that a link joins, and the plain sockets at their
 * other ends.
 */
#ifndef CABLE_H
#define CABLE_H

#include "forwarding.h"

/* More long frames than two sockets hold. */
enum { MANY = 2000 };

static const size_t short_frame = 60, long_frame = 9000;

/* Two linked connections, and the plain socket at the other end of each. */
struct cable {
    qnet_conn *a, *b;
    int fa, fb;
};

static inline struct cable cable_unplugged(void)
{
    struct cable cable;

    cable.a = raw_pair(&cable.fa);
    cable.b = raw_pair(&cable.fb);
    return cable;
}

static inline struct cable cable_plugged(void)
{
    struct cable cable = cable_unplugged();

    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    return cable;
}

static inline void cable_close(const struct cable *cable)
{
    CHECK_INT(qnet_close(cable->a), QNET_OK);
    CHECK_INT(qnet_close(cable->b), QNET_OK);
    CHECK(close(cable->fa) == 0);
    CHECK(close(cable->fb) == 0);
}

enum { WRONG_HANDLES = 4 };

/* Two handles that are none, one of a connection and one of a listener. */
struct wrong_handles {
    qnet_conn *conn;
    qnet_listener *listener;
};

/* NULL, a stale one, an invented one, and one of the other's type. */
static inline void wrong_handles_make(struct wrong_handles *wrong, qnet_conn *conn,
                                      qnet_listener *listener)
{
    struct cable closed = cable_unplugged();
    qnet_conn *conns[WRONG_HANDLES] = { NULL, NULL, (qnet_conn *)(uintptr_t)4099, NULL };
    int i;

    cable_close(&closed);
    conns[1] = closed.a;
    conns[3] = (qnet_conn *)listener;
    for (i = 0; i < WRONG_HANDLES; i++) {
        wrong[i].conn = conns[i];
        wrong[i].listener = (qnet_listener *)(i == 3 ? conn : conns[i]);
    }
}

/* One frame written at one side comes out at the other. */
static inline void passes(int from, int to)
{
    struct flow sent = flow_of_one_size(&short_frame), received = sent;

    raw_send_flow(from, &sent, 1, 0);
    raw_take(to, &received);
}

/*
 * Starts a thread that writes more than fits, and waits until it is held back. Join it
 * after reading.
 */
static inline void hold_back(struct raw_job *writer, int fd)
{
    raw_start(writer, raw_writing, fd, flow_of_one_size(&long_frame), MANY);
    EVENTUALLY(raw_is_held(fd));
}

#endif
