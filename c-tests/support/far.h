/*
 * far.h - every kind of connection whose messages are frames, with a plain
 * socket at its other end, the far one.
 */
#ifndef FAR_H
#define FAR_H

#include <netinet/udp.h>

#include "macs.h"
#include "scratch.h"

enum { UDP_V4_MAX = 65507, UDP_V6_MAX = 65527, FAR_BUFFER = 4 << 20 };

/* The properties of a kind. A test runs for every kind that has one of a set of them. */
enum {
    UDP = 1,        /* the host reports that nobody is at the peer's port */
    NAMED = 2,      /* a Unix socket with a name: peers come and go under it */
    GROUP = 4,      /* multicast */
    PAIR = 8,       /* one end of a datagram pair */
    SEQUENCED = 16, /* SEQPACKET: the peer's leaving is seen */
    OF_UNIX = NAMED | PAIR | SEQUENCED,
    DATAGRAMS = UDP | NAMED | GROUP | PAIR,
    EVERY_KIND = DATAGRAMS | SEQUENCED,
};

struct far {
    int fd, out;                /* it receives on one, and sends on the other: mostly the same */
    struct sockaddr_storage to; /* the library's address; without a length, it is connected */
    socklen_t to_len;
    struct sockaddr_storage own; /* its own address, if its own frames are echoed to it */
    socklen_t own_len;
    char near_text[160], far_text[160]; /* both addresses, as the library writes them */
};

struct far_kind {
    const char *name;
    int set;
    qnet_conn *(*open)(const struct far_kind *kind, struct far *far);
    const char *network;
    int family;
    int type; /* a pair's type of socket; otherwise whether the name is abstract */
    size_t longest;
};

/* ---- Plain sockets ---- */

static inline int far_socket(int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    return fd;
}

static inline void far_buffers(int fd)
{
    int bytes = FAR_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0)
        CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
}

/* Binds to *address, which becomes the whole address that the socket has then. */
static inline void far_bind(int fd, struct sockaddr_storage *address, socklen_t *len)
{
    CHECK(bind(fd, (struct sockaddr *)address, *len) == 0);
    *len = sizeof *address;
    CHECK(getsockname(fd, (struct sockaddr *)address, len) == 0);
}

static inline void far_loopback(struct sockaddr_storage *address, socklen_t *len, int family, int port)
{
    struct place place;

    memset(&place, 0, sizeof place);
    place_tcp(&place, family, port);
    *address = place.address;
    *len = place.len;
}

static inline int port_in(const char *text)
{
    return atoi(strrchr(text, ':') + 1);
}

/* A UDP socket at a port of this host, or at any if it is 0. Writes its address to `text`. */
static inline int far_udp_at(int family, int port, char *text, size_t cap)
{
    struct sockaddr_storage address;
    socklen_t len;
    int fd;

    if (family == AF_INET6 && !ipv6_here())
        check_skip("this machine has no IPv6");
    fd = far_socket(family);
    far_buffers(fd);
    far_loopback(&address, &len, family, port);
    far_bind(fd, &address, &len);
    address_text(&address, len, text, cap);
    return fd;
}

static inline int far_unix_at(const char *name)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(name, &address);
    int fd = far_socket(AF_UNIX);

    far_buffers(fd);
    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0);
    return fd;
}

/* ---- Every kind ---- */

static inline void far_init(struct far *far, int fd)
{
    memset(far, 0, sizeof *far);
    far->fd = far->out = fd;
}

static inline qnet_conn *far_dgram(const char *network, const char *local, const char *remote)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dgram(network, local, remote, &conn), QNET_OK);
    CHECK(conn != NULL);
    return conn;
}

/* Notes the address of a connection that has a UDP port of this host. */
static inline void far_finds(struct far *far, qnet_conn *conn, int family)
{
    CHECK(qnet_local_addr(conn, far->near_text, sizeof far->near_text) > 0);
    far_loopback(&far->to, &far->to_len, family, port_in(far->near_text));
}

static inline qnet_conn *far_open_udp(const struct far_kind *kind, struct far *far)
{
    const char *local = kind->family == AF_INET ? "127.0.0.1:0" : "[::1]:0";
    char text[160];
    qnet_conn *conn;
    int fd = far_udp_at(kind->family, 0, text, sizeof text);

    far_init(far, fd);
    snprintf(far->far_text, sizeof far->far_text, "%s", text);
    conn = far_dgram(kind->network, local, text);
    far_finds(far, conn, kind->family);
    return conn;
}

static inline qnet_conn *far_open_udp_adopted(const struct far_kind *kind, struct far *far)
{
    char text[160], near[160];
    struct sockaddr_storage address;
    socklen_t len;
    qnet_conn *conn = NULL;
    int fd = far_udp_at(kind->family, 0, text, sizeof text);
    int adopted = far_udp_at(kind->family, 0, near, sizeof near);

    far_init(far, fd);
    snprintf(far->far_text, sizeof far->far_text, "%s", text);
    far_loopback(&address, &len, kind->family, port_in(text));
    CHECK(connect(adopted, (struct sockaddr *)&address, len) == 0);
    CHECK_INT(qnet_from_fd(adopted, &conn), QNET_OK);
    far_finds(far, conn, kind->family);
    return conn;
}

/* Makes up a name for each end, which no test has used before. */
static inline void far_names(const struct far_kind *kind, struct far *far)
{
    static unsigned short count;
    unsigned short pid = (unsigned short)getpid();
    char name[20];

    snprintf(name, sizeof name, "near%hu-%hu", pid, ++count);
    snprintf(far->near_text, sizeof far->near_text, "%s",
             kind->type ? scratch_abstract(name) : scratch_path(name));
    snprintf(name, sizeof name, "far%hu-%hu", pid, count);
    snprintf(far->far_text, sizeof far->far_text, "%s",
             kind->type ? scratch_abstract(name) : scratch_path(name));
}

static inline qnet_conn *far_open_unixgram(const struct far_kind *kind, struct far *far)
{
    qnet_conn *conn;

    far_init(far, -1);
    far_names(kind, far);
    far->fd = far->out = far_unix_at(far->far_text);
    conn = far_dgram("unixgram", far->near_text, far->far_text);
    far->to_len = raw_unix_address(far->near_text, (struct sockaddr_un *)&far->to);
    return conn;
}

/*
 * Makes the far side a member of the group in far->to, on this host. It sends on a second
 * socket, by whose address it knows its own frames when they are echoed.
 */
static inline void far_join(struct far *far)
{
    struct sockaddr_in *group = (struct sockaddr_in *)&far->to;
    struct ip_mreq membership;
    int yes = 1, no = 0;

    far->fd = far_socket(AF_INET);
    far->out = far_socket(AF_INET);
    far_buffers(far->fd);
    far_buffers(far->out);
    membership.imr_multiaddr = group->sin_addr;
    membership.imr_interface.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(setsockopt(far->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    CHECK(setsockopt(far->fd, IPPROTO_IP, IP_MULTICAST_ALL, &no, sizeof no) == 0);
    CHECK(bind(far->fd, (struct sockaddr *)group, sizeof *group) == 0);
    CHECK(setsockopt(far->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership) == 0);
    CHECK(setsockopt(far->out, IPPROTO_IP, IP_MULTICAST_IF, &membership.imr_interface,
                     sizeof membership.imr_interface) == 0);
    far_loopback(&far->own, &far->own_len, AF_INET, 0);
    far_bind(far->out, &far->own, &far->own_len);
}

static inline qnet_conn *far_open_group(const struct far_kind *kind, struct far *far)
{
    struct sockaddr_in *group = (struct sockaddr_in *)&far->to;
    char text[160];
    qnet_conn *conn;

    (void)kind;
    far_init(far, -1);
    close(far_udp_at(AF_INET, 0, text, sizeof text)); /* a free port */
    group->sin_family = AF_INET;
    group->sin_addr.s_addr = htonl(0xefff4d01);
    group->sin_port = htons((unsigned short)port_in(text));
    far->to_len = sizeof *group;
    address_text(&far->to, far->to_len, far->far_text, sizeof far->far_text);
    far_join(far);
    conn = far_dgram("mcast", "127.0.0.1", far->far_text);
    CHECK(qnet_local_addr(conn, far->near_text, sizeof far->near_text) > 0);
    return conn;
}

static inline qnet_conn *far_open_pair(const struct far_kind *kind, struct far *far)
{
    qnet_conn *conn = NULL;
    int pair[2];

    CHECK(socketpair(AF_UNIX, kind->type | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
    far_init(far, pair[1]);
    far_buffers(far->fd);
    return conn;
}

/* A plain SEQPACKET socket that listens at a path or name. */
static inline int far_listens(const char *name)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(name, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0);
    CHECK(listen(fd, 8) == 0);
    return fd;
}

static inline int far_accepts(int listener)
{
    int fd;

    CHECK(raw_readable(listener, patience_ms()));
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd >= 0);
    far_buffers(fd);
    return fd;
}

static inline int far_connects(const char *name)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(name, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&address, len) == 0);
    far_buffers(fd);
    return fd;
}

static inline qnet_conn *far_open_dialled(const struct far_kind *kind, struct far *far)
{
    qnet_conn *conn = NULL;
    int listener;

    far_init(far, -1);
    far_names(kind, far);
    listener = far_listens(far->far_text);
    CHECK_INT(qnet_dial("unixpacket", far->far_text, &conn), QNET_OK);
    far->fd = far->out = far_accepts(listener);
    CHECK(close(listener) == 0);
    return conn;
}

static inline qnet_conn *far_open_accepted(const struct far_kind *kind, struct far *far)
{
    qnet_listener *listener;
    qnet_conn *conn = NULL;

    far_init(far, -1);
    far_names(kind, far);
    far->far_text[0] = '\0';
    CHECK_INT(qnet_listen("unixpacket", far->near_text, &listener), QNET_OK);
    far->fd = far->out = far_connects(far->near_text);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    return conn;
}

static const struct far_kind far_kinds[] = {
    { "udp", UDP, far_open_udp, "udp", AF_INET, 0, UDP_V4_MAX },
    { "udp6", UDP, far_open_udp, "udp6", AF_INET6, 0, UDP_V6_MAX },
    { "udp adopted", UDP, far_open_udp_adopted, NULL, AF_INET, 0, UDP_V4_MAX },
    { "unixgram path", NAMED, far_open_unixgram, NULL, AF_UNIX, 0, QNET_FRAME_MAX },
    { "unixgram abstract", NAMED, far_open_unixgram, NULL, AF_UNIX, 1, QNET_FRAME_MAX },
    { "mcast", GROUP, far_open_group, NULL, AF_INET, 0, UDP_V4_MAX },
    { "pair", PAIR, far_open_pair, NULL, AF_UNIX, SOCK_DGRAM, QNET_FRAME_MAX },
    { "seqpacket", SEQUENCED, far_open_pair, NULL, AF_UNIX, SOCK_SEQPACKET, QNET_FRAME_MAX },
    { "unixpacket dialled", SEQUENCED, far_open_dialled, NULL, AF_UNIX, 0, QNET_FRAME_MAX },
    { "unixpacket accepted", SEQUENCED, far_open_accepted, NULL, AF_UNIX, 1, QNET_FRAME_MAX },
};
enum { FAR_KINDS = sizeof far_kinds / sizeof *far_kinds };

/* The kind that the running test is about; see RUN_KINDS. */
static const struct far_kind *far_now;

static inline qnet_conn *far_open_kind(const struct far_kind *kind, struct far *far)
{
    qnet_conn *conn = kind->open(kind, far);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    set_link_options(conn);
    return conn;
}

static inline qnet_conn *far_open(struct far *far)
{
    return far_open_kind(far_now, far);
}

/* Closes the far socket and removes its file. */
static inline void far_leaves(struct far *far)
{
    if (far->out != far->fd)
        CHECK(close(far->out) == 0);
    CHECK(close(far->fd) == 0);
    if (far->far_text[0] == '/')
        CHECK(unlink(far->far_text) == 0);
    far->fd = far->out = -1;
}

/* Opens another far socket at the same address. */
static inline void far_comes(struct far *far)
{
    char text[160];

    if (far->own_len > 0)
        far_join(far);
    else if (far->to.ss_family == AF_UNIX)
        far->fd = far->out = far_unix_at(far->far_text);
    else
        far->fd = far->out = far_udp_at(far->to.ss_family, port_in(far->far_text), text, sizeof text);
}

static inline void far_close(qnet_conn *conn, struct far *far)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
    if (far->fd >= 0)
        far_leaves(far);
}

/* ---- Messages ---- */

static inline ssize_t far_try(const struct far *far, const void *frame, size_t len, int flags)
{
    const struct sockaddr *to = far->to_len > 0 ? (const struct sockaddr *)&far->to : NULL;

    return sendto(far->out, frame, len, flags | MSG_NOSIGNAL, to, far->to_len);
}

static inline void far_send(const struct far *far, const void *frame, size_t len)
{
    CHECK_INT(far_try(far, frame, len, 0), len);
}

/*
 * Receives the next message that is not an echo of the far side's own. Returns its
 * length, or -1 if there is none now.
 */
static inline long far_recv_now(const struct far *far, void *frame, size_t cap)
{
    struct sockaddr_storage from;
    socklen_t len;
    ssize_t n;

    do {
        len = sizeof from;
        memset(&from, 0, sizeof from);
        n = recvfrom(far->fd, frame, cap, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from, &len);
    } while (n >= 0 && far->own_len > 0 && len == far->own_len && memcmp(&from, &far->own, len) == 0);
    CHECK(n <= (ssize_t)cap);
    return n;
}

static inline long far_recv(const struct far *far, void *frame, size_t cap)
{
    long long until_ms = raw_now_ms() + patience_ms();
    long n = far_recv_now(far, frame, cap);

    while (n < 0 && errno == EAGAIN && raw_now_ms() < until_ms) {
        raw_readable(far->fd, 1000);
        n = far_recv_now(far, frame, cap);
    }
    return n;
}

/* Receives a message, which must be the flow's next frame. */
static inline void far_take(const struct far *far, struct flow *flow)
{
    static __thread uint8_t frame[QNET_FRAME_MAX + 1];
    long len = far_recv(far, frame, sizeof frame);

    CHECK(len >= 0);
    flow_take(flow, frame, (size_t)len);
}

static inline void far_take_until(const struct far *far, struct flow *flow, unsigned end)
{
    while (flow->next != end)
        far_take(far, flow);
}

/* Does the same if a message is there now. Returns whether one was. */
static inline int far_take_now(const struct far *far, struct flow *flow)
{
    static __thread uint8_t frame[QNET_FRAME_MAX + 1];
    long len = far_recv_now(far, frame, sizeof frame);

    if (len >= 0)
        flow_take(flow, frame, (size_t)len);
    return len >= 0;
}

static inline void far_send_flow(const struct far *far, struct flow *flow, unsigned count)
{
    struct bundle bundle = bundle_make(flow, count);
    size_t i;

    for (i = 0; i < count; i++)
        far_send(far, bundle.frames[i].data, bundle.frames[i].len);
    flow->next += count;
    bundle_free(&bundle);
}

static inline void far_says(const struct far *far, struct word word)
{
    uint8_t *frame = allocate(word.len);

    word_make(frame, word);
    far_send(far, frame, word.len);
    free(frame);
}

static inline struct word far_hears(const struct far *far)
{
    static __thread uint8_t frame[QNET_FRAME_MAX + 1];
    long len = far_recv(far, frame, sizeof frame);

    CHECK(len >= 0);
    return word_of(frame, (size_t)len);
}

/* The lengths that matter to a kind, among them the longest that it takes. */
static inline struct flow flow_of_kind(const struct far_kind *kind)
{
    static __thread size_t sizes[ALL_SIZES] = { 14, 15, 60, 1514, 9000, 0, 0 };
    struct flow flow = { sizes, ALL_SIZES, 0 };

    sizes[5] = kind->longest - 1;
    sizes[6] = kind->longest;
    return flow;
}

static inline uint64_t flow_bytes(const struct flow *flow, unsigned from, unsigned to)
{
    uint64_t bytes = 0;

    for (; from != to; from++)
        bytes += flow_size(flow, from);
    return bytes;
}

/* Runs a test once for each kind that has one of the properties in `set`. */
static inline void run_kinds(const char *name, void (*test)(void), int set)
{
    size_t i;

    for (i = 0; i < FAR_KINDS; i++) {
        if (!(far_kinds[i].set & set))
            continue;
        far_now = &far_kinds[i];
        run_with(name, far_now->name, test);
    }
}
#define RUN_KINDS(test, set) run_kinds(#test, test, set)

#endif
