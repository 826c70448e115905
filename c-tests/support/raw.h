/*
 * raw.h - the other side of a connection without libqnet: plain sockets and
 * the wire format written out by hand, so that the library is never tested
 * against itself.
 */
#ifndef RAW_H
#define RAW_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "threads.h"

enum { RAW_PREFIX = 4 };

/* Fills a frame with bytes that depend on its length and on `seed`. */
static inline void raw_fill(unsigned char *frame, size_t len, unsigned seed)
{
    size_t i;

    for (i = 0; i < len; i++)
        frame[i] = (unsigned char)(i * 7 + seed * 31 + len);
}

static inline int raw_is(const unsigned char *frame, size_t len, unsigned seed)
{
    size_t i;

    for (i = 0; i < len; i++)
        if (frame[i] != (unsigned char)(i * 7 + seed * 31 + len))
            return 0;
    return 1;
}

/* Writes all `len` bytes, in as many parts as the socket takes. */
static inline void raw_write(int fd, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

/* Reads exactly `len` bytes; returns 0, or -1 if the stream ended or failed first. */
static inline int raw_read(int fd, void *bytes, size_t len)
{
    unsigned char *at = bytes;

    while (len > 0) {
        ssize_t n = recv(fd, at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static inline void raw_put_length(unsigned char prefix[RAW_PREFIX], size_t len)
{
    prefix[0] = (unsigned char)(len >> 24);
    prefix[1] = (unsigned char)(len >> 16);
    prefix[2] = (unsigned char)(len >> 8);
    prefix[3] = (unsigned char)len;
}

/* Writes one frame as QEMU does. */
static inline void raw_send(int fd, const void *frame, size_t len)
{
    unsigned char prefix[RAW_PREFIX];

    raw_put_length(prefix, len);
    raw_write(fd, prefix, sizeof prefix);
    raw_write(fd, frame, len);
}

/* Reads one frame of at most `cap` bytes; returns its length, or -1 at the end. */
static inline long raw_recv(int fd, void *frame, size_t cap)
{
    unsigned char prefix[RAW_PREFIX];
    size_t len;

    if (raw_read(fd, prefix, sizeof prefix) != 0)
        return -1;
    len = (size_t)prefix[0] << 24 | (size_t)prefix[1] << 16 | (size_t)prefix[2] << 8 | prefix[3];
    CHECK(len <= cap);
    return raw_read(fd, frame, len) == 0 ? (long)len : -1;
}

/* A Unix address: a path, or @name. */
static inline socklen_t raw_unix_address(const char *path, struct sockaddr_un *address)
{
    size_t len = strlen(path);

    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    CHECK(len < sizeof address->sun_path);
    memcpy(address->sun_path, path, len);
    if (path[0] != '@')
        return sizeof *address;
    address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

static inline int raw_unix_listen(const char *path)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(path, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0);
    CHECK(listen(fd, 64) == 0);
    return fd;
}

/* A connected socket, or -1 with errno. */
static inline int raw_unix_connect(const char *path)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(path, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, len) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Listens on a free port of 127.0.0.1, which is written to *port. */
static inline int raw_tcp_listen(int *port)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(fd, 64) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* A socket connected to 127.0.0.1, or -1 with errno. */
static inline int raw_tcp_connect(int port)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Sets the options in the environment variable LINK_OPTIONS: "option=value ...", in numbers. */
static inline void set_link_options(qnet_conn *conn)
{
    const char *at = getenv("LINK_OPTIONS");
    int option, len;
    long value;

    while (at && sscanf(at, " %d=%ld%n", &option, &value, &len) == 2) {
        CHECK_INT(qnet_set(conn, option, value), QNET_OK);
        at += len;
    }
}

/* A connection of the library and the plain socket at its other end. */
static inline qnet_conn *raw_pair(int *fd)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_socketpair_fd(&conn, fd), QNET_OK);
    set_link_options(conn);
    return conn;
}

/* Whether anything (data or the end) comes to be read within `ms`. */
static inline int raw_readable(int fd, int ms)
{
    struct pollfd poll_fd;

    poll_fd.fd = fd;
    poll_fd.events = POLLIN;
    poll_fd.revents = 0;
    return poll(&poll_fd, 1, ms) == 1;
}

/* Makes closing the socket a reset, as when a process is killed with bytes unread. */
static inline void raw_reset_at_close(int fd)
{
    static const struct linger at_once = { 1, 0 };

    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
}

/* Whether the stream has ended, waiting up to ten seconds for it. */
static inline int raw_ended(int fd)
{
    char byte;

    return raw_readable(fd, 10000) && recv(fd, &byte, 1, 0) <= 0;
}

#endif
