/*
 * service.h - a hub that serves a listener.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include "macs.h"
#include "scratch.h"

/* A hub, a listener that it serves, the listener's address, and a device of the program's own. */
struct service {
    qnet_hub *hub;
    qnet_listener *listener;
    const char *place;
    struct device own;
};

static inline void service_open_at(struct service *service, const char *name)
{
    CHECK_INT(qnet_hub_new(&service->hub), QNET_OK);
    service->place = scratch_abstract(name);
    CHECK_INT(qnet_listen("unix", service->place, &service->listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(service->hub, service->listener), QNET_OK);
    device_open(&service->own, 1);
    CHECK_INT(qnet_hub_attach(service->hub, service->own.conn), QNET_OK);
}

static inline void service_open(struct service *service)
{
    service_open_at(service, "served");
}

/* A peer joins: of it there is only a plain socket, no connection. */
static inline void peer_join(struct device *peer, const char *place, int n)
{
    memset(peer, 0, sizeof *peer);
    peer->n = n;
    peer->fd = raw_unix_connect(place);
    CHECK(peer->fd >= 0);
}

static inline void service_close(const struct service *service)
{
    CHECK_INT(qnet_hub_close(service->hub), QNET_OK);
    CHECK_INT(qnet_listener_close(service->listener), QNET_ERR_HANDLE);
    device_close(&service->own);
}

#endif
