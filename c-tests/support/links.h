/*
 * links.h - every kind of connection with a plain socket at its other end, so
 * that a test can go through all of them.
 */
#ifndef LINKS_H
#define LINKS_H

#include "places.h"

static inline int open_dialled(const struct link_kind *kind, qnet_conn **conn)
{
    struct place place;
    int fd;

    place_make(&place, kind);
    fd = place_listen(&place);
    CHECK_INT(qnet_dial(kind->network, place.text, conn), QNET_OK);
    if (place.directory[0])
        CHECK(unlink(place.text) == 0);
    place_remove(&place);
    return accept_only(fd);
}

static inline int open_accepted(const struct link_kind *kind, qnet_conn **conn)
{
    qnet_listener *listener = NULL;
    struct place place;
    char text[160];
    int fd;

    place_make(&place, kind);
    CHECK_INT(qnet_listen(kind->network, place.text, &listener), QNET_OK);
    CHECK(qnet_listener_addr(listener, text, sizeof text) > 0);
    if (kind->family != AF_UNIX)
        place_tcp(&place, kind->family, atoi(strrchr(text, ':') + 1));
    CHECK(strcmp(text, place.text) == 0);
    fd = place_connect(&place);
    CHECK_INT(qnet_accept(listener, patience_ms(), conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    place_remove(&place);
    return fd;
}

static inline int open_socketpair_fd(const struct link_kind *kind, qnet_conn **conn)
{
    int fd = -1;

    (void)kind;
    CHECK_INT(qnet_socketpair_fd(conn, &fd), QNET_OK);
    return fd;
}

static inline int open_adopted(const struct link_kind *kind, qnet_conn **conn)
{
    int pair[2];

    plain_pair(kind, pair);
    CHECK(fcntl(pair[0], F_SETFL, kind->nonblocking ? O_NONBLOCK : 0) == 0);
    CHECK_INT(qnet_from_fd(pair[0], conn), QNET_OK);
    return pair[1];
}

static const struct link_kind link_kinds[] = {
    { "tcp4 dialled", open_dialled, "tcp4", AF_INET, 0, 0, 0 },
    { "tcp4 accepted", open_accepted, "tcp4", AF_INET, 0, 0, 0 },
    { "tcp6 dialled", open_dialled, "tcp6", AF_INET6, 0, 0, 0 },
    { "tcp6 accepted", open_accepted, "tcp6", AF_INET6, 0, 0, 0 },
    { "tcp adopted", open_adopted, NULL, AF_INET, 0, 1, 0 },
    { "tcp adopted, O_NONBLOCK", open_adopted, NULL, AF_INET, 0, 1, 1 },
    { "unix path dialled", open_dialled, "unix", AF_UNIX, 0, 0, 0 },
    { "unix path accepted", open_accepted, "unix", AF_UNIX, 0, 0, 0 },
    { "unix abstract dialled", open_dialled, "unix", AF_UNIX, 1, 0, 0 },
    { "unix abstract accepted", open_accepted, "unix", AF_UNIX, 1, 0, 0 },
    { "socketpair_fd", open_socketpair_fd, NULL, AF_UNIX, 0, 0, 0 },
    { "socketpair adopted", open_adopted, NULL, AF_UNIX, 0, 1, 0 },
    { "socketpair adopted, O_NONBLOCK", open_adopted, NULL, AF_UNIX, 0, 1, 1 },
};
enum { LINK_KINDS = sizeof link_kinds / sizeof *link_kinds };

/* The kind that the running test is about; see RUN_EACH. */
static const struct link_kind *link_now;

/* A connection of that kind and the plain socket at its other end. */
static inline qnet_conn *link_open(int *fd)
{
    qnet_conn *conn = NULL;

    *fd = link_now->open(link_now, &conn);
    CHECK(conn != NULL);
    CHECK(*fd >= 0);
    set_link_options(conn);
    return conn;
}

/* Runs a test once for every kind of connection, or only for those over TCP. */
static inline void run_each(const char *name, void (*test)(void), int only_tcp)
{
    size_t i;

    for (i = 0; i < LINK_KINDS; i++) {
        if (only_tcp && link_kinds[i].family == AF_UNIX)
            continue;
        link_now = &link_kinds[i];
        run_with(name, link_now->name, test);
    }
}
#define RUN_EACH(test) run_each(#test, test, 0)
#define RUN_EACH_TCP(test) run_each(#test, test, 1)

#endif
