/*
 * serve.h - attaches a hub to the addresses in a program's arguments.
 */
#ifndef SERVE_H
#define SERVE_H

#include "address.h"

/*
 * Has a hub serve those who connect to an address; or dials it or opens a datagram connection, and
 * attaches that: the caller then closes *out, after the hub. Returns 0, or the exit status.
 */
static inline int join(qnet_hub *hub, const char *argument, const struct options *how,
                       qnet_conn **out)
{
    struct address address;
    qnet_listener *listener = NULL;
    int status = parse_address(argument, LISTEN, &address);

    if (status != 0)
        return status;
    if (address.how == LISTEN) {
        status = listen_at(&address, how, &listener);
        if (status == 0 && qnet_hub_serve(hub, listener) == QNET_OK)
            return 0; /* qnet_hub_close() closes it */
        if (status == 0)
            status = complain(qnet_last_error(), 1);
        (void)qnet_listener_close(listener);
        return status;
    }
    status = address.how == DIAL ? dial_again(&address, how, out)
                                 : open_datagrams(&address, how, out);
    if (status == 0 && qnet_hub_attach(hub, *out) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    return status;
}

/*
 * Attaches a hub to addresses; each may be preceded by options. The caller closes what is in out[],
 * after the hub. Returns 0, or the exit status.
 */
static inline int join_all(qnet_hub *hub, char **arguments, qnet_conn **out)
{
    struct options options = default_options;
    int addresses = 0, status = 0;

    while (status == 0 && *arguments != NULL)
        if (strncmp(*arguments, "--", 2) == 0)
            status = parse_option(&arguments, &options);
        else
            status = join(hub, *arguments++, &options, &out[addresses++]);
    if (status == 0 && addresses == 0)
        return complain("no ADDRESS (see --help)", 2);
    return status;
}

#endif
