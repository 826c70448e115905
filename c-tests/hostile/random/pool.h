/*
 * pool.h - random numbers, and the handles, descriptors and addresses that
 * random calls are made with: live, stale, invented or of another type.
 */
#ifndef POOL_H
#define POOL_H

#include <stdint.h>

#include "footprint.h"
#include "scratch.h"

enum { SLOTS = 20, PLACES = 4, MOST_PORTS = 64, BYTES = 200000 };

enum kind { CONN, LISTENER, HUB, CLOCK, CAPTURE, KINDS };

/* Handles that any thread may use, some of them stale; and descriptors, each with one owner. */
static void *handles[KINDS][SLOTS];
static int fds[SLOTS];

static unsigned seed;
static int seeded;              /* how many threads have a generator */
static int namespaced;          /* whether this process has a network of its own */
static int is_child;
static char places[2 * PLACES][128];
static const uint8_t *bytes;    /* BYTES of them */
static const uint8_t *zeroes;   /* `huge` bytes, which take no memory */
static const size_t huge = (size_t)5 << 30;

/* This thread's generator. */
static __thread unsigned state;

/* The connection whose handler this thread is in, if that is known. */
static __thread void *own;

/* ---- Numbers ---- */

static unsigned below(unsigned limit)
{
    if (state == 0)
        state = seed * 1000u + (unsigned)count_up(&seeded);
    return (unsigned)rand_r(&state) % limit;
}

static int one_in(unsigned n)
{
    return below(n) == 0;
}

static int64_t any_number(void)
{
    static const int64_t edges[] = {
        0, 1, -1, 2, 13, 14, 59, 60, 1500, 65535, 65536, QNET_FRAME_MAX, QNET_FRAME_MAX + 1,
        INT32_MAX, INT32_MIN, (int64_t)INT32_MAX + 1, INT64_MAX, INT64_MIN
    };

    return one_in(2) ? edges[below(sizeof edges / sizeof *edges)] : (int64_t)below(2000);
}

/* A timeout; an endless one only where the others end all that such a wait can be for. */
static int any_timeout(int may_be_endless)
{
    switch (below(16)) {
    case 0:
        return may_be_endless ? -1 : 1;
    case 1:
        return -2 - (int)below(1000);
    case 2:
    case 3:
        return 1 + (int)below(2);
    default:
        return 0;
    }
}

static int any_option(void)
{
    return one_in(16) ? (int)any_number() : 1 + (int)below(37);
}

/* A value for the option, which it may be able to take or not; times are short. */
static int64_t any_value(int64_t option)
{
    switch (option) {
    case QNET_OPT_LINGER_MS:
    case QNET_OPT_RECONNECT_MS:
        return (int64_t)below(5) - 1;
    case QNET_OPT_DIAL_TIMEOUT_MS:
    case QNET_OPT_SEND_TIMEOUT_MS:
        return (int64_t)below(6) - 2;
    case QNET_OPT_CORK:
    case QNET_OPT_PAD:
    case QNET_OPT_WAIT:
    case QNET_OPT_LINK:
    case QNET_OPT_OUTLIVE:
    case QNET_OPT_ISOLATED:
    case QNET_OPT_SECURE:
    case QNET_OPT_MIRROR:
    case QNET_OPT_MIRRORED:
        return (int64_t)below(4) - 1;
    case QNET_OPT_FLIGHT_BYTES:
        return one_in(2) ? 131072 + (int64_t)below(100000) : any_number();
    default:
        return any_number();
    }
}

/* A length for which there are bytes; or any length, and *nothing is set to 1, where there are none. */
static size_t any_length(int *nothing)
{
    *nothing = one_in(16);
    if (*nothing)
        return (size_t)any_number();
    switch (below(8)) {
    case 0:
        return below(15);
    case 1:
        return below(BYTES);
    default:
        return 14 + below(2000);
    }
}

/* ---- Things that there are ---- */

static void *pooled(enum kind kind)
{
    return __atomic_load_n(&handles[kind][below(SLOTS)], __ATOMIC_SEQ_CST);
}

static void *any_handle(enum kind kind)
{
    switch (below(20)) {
    case 0:
        return NULL;
    case 1:
        return (void *)(((uintptr_t)below(1u << 30) << 30) ^ below(1u << 30));
    case 2:
        return pooled((enum kind)below(KINDS));
    case 3:
        return (void *)((uintptr_t)pooled(kind) ^ (uintptr_t)1 << below(64));
    case 4:
    case 5:
    case 6:
        return kind == CONN && own ? own : pooled(kind);
    default:
        return pooled(kind);
    }
}

/* Clocks that were kept by what was on them. */
static void *busy_clocks[1 << 16];
static int busy_count;

static void close_handle(enum kind kind, void *handle)
{
    int result = kind == CONN ? qnet_close(handle)
                 : kind == LISTENER ? qnet_listener_close(handle)
                 : kind == HUB      ? qnet_hub_close(handle)
                 : kind == CLOCK    ? qnet_clock_close(handle)
                                    : qnet_capture_close(handle);

    /* What is on a clock keeps it. */
    if (kind == CLOCK && result == QNET_ERR_BUSY)
        busy_clocks[count_up(&busy_count) - 1] = handle;
    else
        CHECK(result == QNET_OK || result == QNET_ERR_HANDLE);
}

/* Puts a new handle among the others, and closes the one that it takes the place of. */
static void keep(enum kind kind, void *handle)
{
    void *old;

    if (kind == CONN && !one_in(200))
        qnet_set(handle, QNET_OPT_LINGER_MS, below(3));
    if (kind == LISTENER && !one_in(200))
        qnet_listener_set(handle, QNET_OPT_LINGER_MS, below(3));
    old = __atomic_exchange_n(&handles[kind][below(SLOTS)], handle, __ATOMIC_SEQ_CST);
    if (old)
        close_handle(kind, old);
}

/* Takes a descriptor, which the caller gives back or closes; -1: there was none. */
static int take_fd(void)
{
    return __atomic_exchange_n(&fds[below(SLOTS)], -1, __ATOMIC_SEQ_CST);
}

static void give_fd(int fd)
{
    int old = __atomic_exchange_n(&fds[below(SLOTS)], fd, __ATOMIC_SEQ_CST);

    if (old >= 0)
        close(old);
}

/* After a call that makes a handle, which must be there if and only if the call succeeded. */
static int made(enum kind kind, int result, void *handle)
{
    CHECK((result == QNET_OK) == (handle != NULL));
    if (handle)
        keep(kind, handle);
    return result;
}

/* The place for a handle, which the call must not leave as it was; or NULL instead of a place. */
#define OUT(type, out) type *out = (void *)1, **to_##out = one_in(32) ? NULL : &out
#define MADE(kind, result, out) made(kind, result, to_##out ? (void *)out : NULL)

static const char *any_network(void)
{
    static const char *const networks[] = {
        "tcp", "tcp4", "tcp6", "unix", "unixpacket", "udp", "udp4", "udp6", "unixgram", "mcast", "", "ip"
    };
    return one_in(32) ? NULL : networks[below(sizeof networks / sizeof *networks)];
}

/* An address, if it is one, of this host. */
static const char *any_address(char *text, size_t cap)
{
    static const char *const addresses[] = {
        "127.0.0.1:0", "[::1]:0", "localhost:0", "127.0.0.1:1", "[::1]:1", "127.0.0.1:65536",
        "127.0.0.1", "[::1", "", ":", "@", "/", "/nowhere/at/all", "%", "127.0.0.1:x"
    };
    const char *address;

    text[0] = '\0';
    switch (below(8)) {
    case 0:
        return one_in(4) ? NULL : "127.0.0.1:0";
    case 1:
    case 2:
        return places[below(2 * PLACES)];
    case 3:
        qnet_local_addr(pooled(CONN), text, cap);
        return text;
    case 4:
    case 5:
        qnet_listener_addr(pooled(LISTENER), text, cap);
        return text;
    default:
        address = addresses[below(sizeof addresses / sizeof *addresses)];
        /* A child looks up nothing: a thread of its parent's may have been doing so at the fork. */
        return is_child && address[0] == 'l' ? "" : address;
    }
}

static const char *network_for(const char *address, int datagrams)
{
    if (!address || one_in(8))
        return any_network();
    if (address[0] == '@' || address[0] == '/')
        return datagrams ? "unixgram" : one_in(2) ? "unix" : "unixpacket";
    return datagrams ? "udp" : "tcp";
}

static int any_fd(void)
{
    static const int never[] = { -1, INT32_MIN, INT32_MAX, 1 << 24 };
    int pair[2] = { -1, -1 };

    switch (below(8)) {
    case 0:
        return never[below(4)];
    case 1:
        return open("/", O_RDONLY | O_CLOEXEC);
    case 2:
        return socket(one_in(2) ? AF_UNIX : AF_INET, SOCK_CLOEXEC | SOCK_STREAM, 0);
    case 3:
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0)
            give_fd(pair[1]);
        return pair[0];
    case 4:
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0)
            give_fd(pair[1]);
        return pair[0];
    case 5:
        return take_fd();
    default:
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0)
            give_fd(pair[1]);
        return pair[0];
    }
}

static int any_listening_fd(void)
{
    struct sockaddr_in address;
    int fd;

    if (one_in(4))
        return any_fd();
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
        listen(fd, 8);
    return fd;
}

/* A descriptor that was not adopted is still the caller's, who closes it. */
static void after_adoption(int fd, int result)
{
    if (result != QNET_OK && fd >= 0 && fd < 1 << 24)
        CHECK_INT(close(fd), 0);
}

#endif
