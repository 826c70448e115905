/*
 * listening.h - what tests of listeners share: checks that one works, that one cannot be
 * made, and that an existing one has noticed nothing.
 */
#ifndef LISTENING_H
#define LISTENING_H

#include <fcntl.h>
#include <sys/stat.h>

#include "traffic.h"
#include "scratch.h"

static inline qnet_conn *accept_from(qnet_listener *listener)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_accept(listener, patience_ms(), &conn), QNET_OK);
    CHECK(conn != NULL);
    return conn;
}

/* Checks that a listener serves the client that is connected as `fd`. Closes `fd`. */
static inline void check_serves(qnet_listener *listener, int fd)
{
    qnet_conn *conn;

    CHECK(fd >= 0);
    conn = accept_from(listener);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    close(fd);
}

static inline int exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static inline void set_nonblocking(int fd)
{
    CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Checks that nobody has connected to a plain listener. */
static inline void check_noticed_nothing(int fd)
{
    CHECK(!raw_readable(fd, 100));
    set_nonblocking(fd);
    CHECK_INT(accept(fd, NULL, NULL), -1);
    CHECK_INT(errno, EAGAIN);
}

static inline void check_listen_fails(const char *network, const char *address, int code)
{
    qnet_listener *listener = (qnet_listener *)1;

    CHECK_INT(qnet_listen(network, address, &listener), code);
    CHECK(listener == NULL);
}

#endif
