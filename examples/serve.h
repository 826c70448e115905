/*
 * serve.h - has a hub serve whoever connects to an address.
 */
#ifndef SERVE_H
#define SERVE_H

#include <stdio.h>

#include "address.h"
#include "qnet.h"

/* The program's own: says what is wrong; returns the exit status for it. */
static int complain(const char *what, int status);

/* Listens at unix:PATH or tcp:HOST:PORT, and tells where. Returns 0, or the exit status. */
static inline int serve(qnet_hub *hub, const char *argument)
{
    char network[NETWORK_LEN];
    const char *address = split_address(argument, network);
    qnet_listener *listener;
    char where[256]; /* the address with the port that the system chose, if that was 0 */
    int code;

    if (address == NULL)
        return complain("an ADDRESS is unix:PATH or tcp:HOST:PORT (see --help)", 2);
    code = qnet_listen(network, address, &listener);
    if (code != QNET_OK)
        return complain(qnet_last_error(), code == QNET_ERR_INVALID ? 2 : 1);
    if (qnet_hub_serve(hub, listener) != QNET_OK) {
        complain(qnet_last_error(), 1);
        (void)qnet_listener_close(listener); /* from now on this is up to qnet_hub_close() */
        return 1;
    }
    if (qnet_listener_addr(listener, where, sizeof where) < 0)
        return complain(qnet_last_error(), 1);
    if (printf("listening at %s:%s\n", network, where) < 0 || fflush(stdout) != 0)
        return complain("cannot write to standard output", 1);
    return 0;
}

#endif
