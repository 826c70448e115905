/*
 * places.h - the address of a listener of some kind, as text for the library and as a
 * socket address for the system; and plain sockets there.
 */
#ifndef PLACES_H
#define PLACES_H

#include <fcntl.h>
#include <netinet/tcp.h>

#include "flow.h"

struct link_kind {
    const char *name;
    int (*open)(const struct link_kind *kind, qnet_conn **conn); /* returns the plain socket */
    const char *network;
    int family;
    int abstract;
    int adopted;
    int nonblocking;
};

/* A listener's address, as the library and as the system takes it. */
struct place {
    char text[160];
    char directory[80];
    struct sockaddr_storage address;
    socklen_t len;
};

static inline int ipv6_here(void)
{
    struct sockaddr_in6 address;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int here;

    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    here = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return here;
}

/* A new directory for temporary files. */
static inline void make_directory(char *directory, size_t cap)
{
    const char *parent = getenv("TMPDIR");

    if (!parent || strlen(parent) > 50)
        parent = "/tmp";
    snprintf(directory, cap, "%s/qnet-XXXXXX", parent);
    CHECK(mkdtemp(directory) != NULL);
}

/* Whether `text` is what it should be, and `len` is its length. */
static inline int same_text(const char *text, int len, const char *want)
{
    return len == (int)strlen(want) && strcmp(text, want) == 0;
}

/* Writes a socket address as the library does; a Unix one without a name is empty. */
static inline void address_text(const struct sockaddr_storage *address, socklen_t len,
                                char *text, size_t cap)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    size_t name = offsetof(struct sockaddr_un, sun_path);
    char host[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, cap, "%s:%d", host, ntohs(v4->sin_port));
    } else if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, cap, "[%s]:%d", host, ntohs(v6->sin6_port));
    } else if (len <= name) {
        text[0] = '\0';
    } else if (local->sun_path[0] == '\0') {
        snprintf(text, cap, "@%.*s", (int)(len - name - 1), local->sun_path + 1);
    } else {
        snprintf(text, cap, "%.*s", (int)(len - name), local->sun_path);
    }
}

static inline void place_tcp(struct place *place, int family, int port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&place->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&place->address;

    place->address.ss_family = (sa_family_t)family;
    if (family == AF_INET) {
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        v4->sin_port = htons((unsigned short)port);
        place->len = sizeof *v4;
    } else {
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = htons((unsigned short)port);
        place->len = sizeof *v6;
    }
    address_text(&place->address, place->len, place->text, sizeof place->text);
}

static inline void place_make(struct place *place, const struct link_kind *kind)
{
    static int made;

    memset(place, 0, sizeof *place);
    if (kind->family == AF_INET6 && !ipv6_here())
        check_skip("this machine has no IPv6");
    if (kind->family != AF_UNIX) {
        place_tcp(place, kind->family, 0);
        return;
    }
    if (kind->abstract) {
        snprintf(place->text, sizeof place->text, "@qnet-links-%ld-%d", (long)getpid(), made++);
    } else {
        make_directory(place->directory, sizeof place->directory);
        snprintf(place->text, sizeof place->text, "%s/socket", place->directory);
    }
    place->len = raw_unix_address(place->text, (struct sockaddr_un *)&place->address);
}

/* Removes what place_make() made; the socket file must be gone. */
static inline void place_remove(const struct place *place)
{
    if (place->directory[0])
        CHECK(rmdir(place->directory) == 0);
}

/* A plain listening socket; a TCP port is chosen and noted in *place. */
static inline int place_listen(struct place *place)
{
    int family = place->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&place->address, place->len) == 0);
    CHECK(listen(fd, 64) == 0);
    if (family != AF_UNIX) {
        place->len = sizeof place->address;
        CHECK(getsockname(fd, (struct sockaddr *)&place->address, &place->len) == 0);
        address_text(&place->address, place->len, place->text, sizeof place->text);
    }
    return fd;
}

static inline int place_connect(const struct place *place)
{
    int fd = socket(place->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)&place->address, place->len) == 0);
    return fd;
}

/* Accepts one connection, and closes the listening socket. */
static inline int accept_only(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    CHECK(fd >= 0);
    close(listener);
    return fd;
}

/* Two connected plain sockets of the kind's family, without FD_CLOEXEC on the first. */
static inline void plain_pair(const struct link_kind *kind, int pair[2])
{
    struct place place;
    int listener;

    if (kind->family == AF_UNIX) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    } else {
        place_make(&place, kind);
        listener = place_listen(&place);
        pair[0] = place_connect(&place);
        pair[1] = accept_only(listener);
    }
    CHECK(fcntl(pair[0], F_SETFD, 0) == 0);
}

#endif
