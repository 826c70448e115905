/*
 * porter.h - a hub that serves a listener, and a port handler that writes down what it is told.
 */
#ifndef PORTER_H
#define PORTER_H

#include "clocks.h"
#include "service.h"

enum { MOST_CALLS = 64 };

struct porter {
    qnet_hub *hub;
    qnet_conn *conns[MOST_CALLS]; /* of which it was told */
    int attached[MOST_CALLS];     /* and what */
    int calls;                    /* how many calls have begun */
    int returned;                 /* and are over, or about to be */
    int running;
    int shut;                     /* the gate: while 1, a call does not return */
    int thread;                   /* on which the last call was made */
    void (*act)(struct porter *porter, qnet_conn *conn, int attached);
    int result;                   /* what that has to tell */
    struct porter *next;          /* for an act that sets another handler */
};

static inline void porter_told(void *user, qnet_conn *conn, int attached)
{
    struct porter *porter = user;
    int call = get(&porter->calls);

    CHECK_INT(count_up(&porter->running), 1);
    CHECK(call < MOST_CALLS);
    porter->conns[call] = conn;
    porter->attached[call] = attached;
    put(&porter->thread, this_thread());
    count_up(&porter->calls);
    while (get(&porter->shut))
        raw_sleep_ms(1);
    put(&porter->running, 0);
    count_up(&porter->returned);
    if (porter->act)
        porter->act(porter, conn, attached);
}

static inline void told(struct porter *porter, int call, int attached)
{
    EVENTUALLY(get(&porter->calls) > call);
    CHECK_INT(porter->attached[call], attached);
}

static inline void porter_set(struct porter *porter, qnet_hub *hub)
{
    porter->hub = hub;
    CHECK_INT(qnet_hub_set_port_handler(hub, porter_told, porter), QNET_OK);
}

static inline void porter_open(struct porter *porter, struct service *service)
{
    memset(porter, 0, sizeof *porter);
    service_open(service);
    porter_set(porter, service->hub);
}

static inline void leaves(const struct device *peer)
{
    CHECK(close(peer->fd) == 0);
}

/* Its connection is closed, or reset where it has not read what came, or nobody what it wrote. */
static inline void hung_up_on(const struct device *peer)
{
    char scratch[4096];

    while (recv(peer->fd, scratch, sizeof scratch, 0) > 0)
        continue;
    leaves(peer);
}

static inline void speaks(struct service *service, struct device *peer)
{
    device_says(peer, EVERYBODY, MAC_FRAME);
    device_hears(&service->own, peer, EVERYBODY);
}

static inline int unset(void *hub)
{
    return qnet_hub_set_port_handler(hub, NULL, NULL);
}

#endif
