/*
 * random.c - random calls of every function, with right and wrong arguments, on many threads and
 * in handlers, on handles that are live, stale, invented or of another type, against plain peers
 * that write anything. Every result is one that the function may give, nothing hangs, and in the
 * end nothing is held. Meant to be run under the sanitizers as well.
 *
 * Environment: RANDOM_CALLS=n makes so many calls; RANDOM_SEED=n seeds all of them (a failure tells
 * its own); RANDOM_TALLY=1 prints how often each function gave each code.
 */
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "alone.h"
#include "footprint.h"
#include "scratch.h"

enum {
    WORKERS = 12, SLOTS = 20, PLACES = 4, CALLS = 2000000, MOST_PORTS = 64, CODES = 15,
    BYTES = 200000, TICK_MS = 5, STALL_SECONDS = 40, DEEPEST = 3, CHILD_CALLS = 40
};

enum {
    FINE = MAY(QNET_OK), INVALID = MAY(QNET_ERR_INVALID), HANDLE = MAY(QNET_ERR_HANDLE),
    CLOSED = MAY(QNET_ERR_CLOSED), TIMEOUT = MAY(QNET_ERR_TIMEOUT), AGAIN = MAY(QNET_ERR_AGAIN),
    SIZE = MAY(QNET_ERR_FRAME_SIZE), PROTOCOL = MAY(QNET_ERR_PROTOCOL), SYSTEM = MAY(QNET_ERR_OS),
    BUSY = MAY(QNET_ERR_BUSY), SIGNAL = MAY(QNET_ERR_INTERRUPTED),
    UNSUPPORTED = MAY(QNET_ERR_UNSUPPORTED), REFUSED = MAY(QNET_ERR_REFUSED),
    RESOLVE = MAY(QNET_ERR_RESOLVE),
    ENDED = CLOSED | PROTOCOL | SYSTEM, WAITED = AGAIN | TIMEOUT | SIGNAL
};

enum kind { CONN, LISTENER, HUB, KINDS };

/* Handles that any thread may use, some of them stale; and descriptors, each with one owner. */
static void *handles[KINDS][SLOTS];
static int fds[SLOTS];

static unsigned seed;
static int calls_made, calls_wanted, seeded, playing, over, namespaced, is_child;
static char places[2 * PLACES][128];
static const uint8_t *bytes, *zeroes;
static const size_t huge = (size_t)5 << 30;

/* This thread's: the generator, how deep calls are in handlers in calls, and so on. */
static __thread unsigned state;
static __thread int depth;
static __thread unsigned plays;
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

/* For a wait; one without an end only where all that it can wait for is ended by the others. */
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
    return one_in(16) ? (int)any_number() : 1 + (int)below(23);
}

/* Any value that the option can take, or any; those that are times are short. */
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
        return (int64_t)below(4) - 1;
    default:
        return any_number();
    }
}

/* A length for which there are bytes, or, where `nothing` is set to 1, none and any length. */
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

static void close_handle(enum kind kind, void *handle)
{
    int result = kind == CONN ? qnet_close(handle)
                 : kind == LISTENER ? qnet_listener_close(handle)
                                    : qnet_hub_close(handle);

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

/* A descriptor becomes the caller's, who gives it back or closes it; -1: there is none. */
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

/* After a call that makes a handle, which it gives on success alone. */
static int made(enum kind kind, int result, void *handle)
{
    CHECK((result == QNET_OK) == (handle != NULL));
    if (handle)
        keep(kind, handle);
    return result;
}

/* The place for a handle, which must not be left as it was; or NULL. */
#define OUT(type, out) type *out = (void *)1, **to_##out = one_in(32) ? NULL : &out
#define MADE(kind, result, out) made(kind, result, to_##out ? (void *)out : NULL)

static const char *any_network(void)
{
    static const char *const networks[] = {
        "tcp", "tcp4", "tcp6", "unix", "unixpacket", "udp", "udp4", "udp6", "unixgram", "mcast", "", "ip"
    };
    return one_in(32) ? NULL : networks[below(sizeof networks / sizeof *networks)];
}

/* Addresses of this host alone. */
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
        /* Another thread of the parent's may have been in the look-up at the fork. */
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

/* The caller's own on failure. */
static void after_adoption(int fd, int result)
{
    if (result != QNET_OK && fd >= 0 && fd < 1 << 24)
        CHECK_INT(close(fd), 0);
}

/* ---- Handlers ---- */

static void play_some(unsigned most);

/* A handler's: calls, on its own connection more than on others. `user` is mostly that. */
static void react(void *user)
{
    void *before = own;

    own = user;
    if (one_in(4))
        play_some(2);
    own = before;
}

static void maybe_exit(void)
{
    if (depth == 0 && one_in(500))
        pthread_exit(NULL);
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    CHECK(frame && len >= QNET_FRAME_MIN && len <= QNET_FRAME_MAX);
    react(user);
    maybe_exit();
}

static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    CHECK(count >= 1 && frames[count - 1].len >= QNET_FRAME_MIN);
    react(user);
    maybe_exit();
}

static void on_close(void *user, int reason)
{
    CHECK(reason < 0 && MAY(reason) & ENDED);
    react(user);
}

static void on_state(void *user, int up)
{
    CHECK(up == 0 || up == 1);
    react(user);
    maybe_exit();
}

/* ---- One call of each function ---- */

static int play_dial(void)
{
    char text[256];
    const char *address = any_address(text, sizeof text);
    OUT(qnet_conn, out);
    int result;

    result = qnet_dial(network_for(address, 0), address, to_out);
    return MADE(CONN, result, out);
}

static int play_dial_with(void)
{
    char text[256];
    const char *address = any_address(text, sizeof text);
    int64_t options[8];
    size_t pairs = below(5), i;
    OUT(qnet_conn, out);
    int result, none = one_in(16);

    for (i = 0; i < pairs; i++) {
        options[2 * i] = one_in(4) ? any_option() : 1 + (int)below(10);
        options[2 * i + 1] = any_value(options[2 * i]);
    }
    result = qnet_dial_with(network_for(address, 0), address, none ? NULL : options,
                            none ? (size_t)any_number() : pairs, to_out);
    return MADE(CONN, result, out);
}

static int play_socketpair(void)
{
    OUT(qnet_conn, a);
    OUT(qnet_conn, b);
    int result = qnet_socketpair(to_a, to_b);

    CHECK(!to_a || (result == QNET_OK) == (a != NULL));
    CHECK(!to_b || (result == QNET_OK) == (b != NULL));
    if (result == QNET_OK) {
        keep(CONN, a);
        keep(CONN, b);
    }
    return result;
}

static int play_socketpair_fd(void)
{
    int fd = -2, *to_fd = one_in(32) ? NULL : &fd;
    OUT(qnet_conn, out);
    int result = qnet_socketpair_fd(to_out, to_fd);

    CHECK(!to_fd || (result == QNET_OK ? fd >= 0 : fd == -1));
    if (result == QNET_OK)
        give_fd(fd);
    return MADE(CONN, result, out);
}

static int play_from_fd(void)
{
    int fd = any_fd();
    OUT(qnet_conn, out);
    int result = qnet_from_fd(fd, to_out);

    after_adoption(fd, result);
    return MADE(CONN, result, out);
}

static int play_dgram(void)
{
    char text[256], other[256];
    const char *local = any_address(text, sizeof text), *remote = any_address(other, sizeof other);
    OUT(qnet_conn, out);
    int result, group = one_in(16);

    result = group ? qnet_dgram("mcast", "127.0.0.1", "230.0.0.1:1234", to_out)
                   : qnet_dgram(network_for(local, 1), local, one_in(4) ? NULL : remote, to_out);
    return MADE(CONN, result, out);
}

static int play_tap(void)
{
    static const char *const bad[] = { "sixteen-bytes-it", "a/b", ".", "a b", "lo" };
    const char *name = bad[below(4 + (unsigned)namespaced)];
    OUT(qnet_conn, out);
    int result;

    if (namespaced && one_in(50))
        name = one_in(2) ? NULL : "vm%d";
    result = qnet_tap(name, to_out);
    return MADE(CONN, result, out);
}

static const char *any_id(void)
{
    static const char *const ids[] = { "net0", "", "0", "a,b", "a-b.c_d" };

    return one_in(16) ? NULL : ids[below(5)];
}

static int any_version(void)
{
    static const int versions[] = { 702, 800, 902, 1000, 402, 401, 0, -1, INT32_MAX, INT32_MIN };

    return versions[below(10)];
}

/* Room of exactly so many bytes for text, NULL for 0 and sometimes else. */
#define TEXT(buf, cap)                                                         \
    size_t cap = one_in(4) ? below(4) : below(300);                            \
    char *buf = cap == 0 || one_in(16) ? NULL : allocate(cap)

/* A text that was given ends where it should. Frees the buffer. */
static int told(char *buf, size_t cap, int result)
{
    if (buf && result >= 0)
        CHECK_INT(strnlen(buf, cap), (size_t)result < cap ? (size_t)result : cap - 1);
    free(buf);
    return result;
}

static int play_netdev(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_netdev(any_handle(CONN), any_id(), any_version(), buf, cap));
}

static int play_listen(void)
{
    char text[256];
    const char *address = any_address(text, sizeof text);
    OUT(qnet_listener, out);
    int result;

    result = qnet_listen(network_for(address, 0), address, to_out);
    return MADE(LISTENER, result, out);
}

static int play_accept(void)
{
    OUT(qnet_conn, out);
    int result;

    result = qnet_accept(any_handle(LISTENER), any_timeout(1), to_out);
    return MADE(CONN, result, out);
}

static int play_listener_from_fd(void)
{
    int fd = any_listening_fd();
    OUT(qnet_listener, out);
    int result = qnet_listener_from_fd(fd, to_out);

    after_adoption(fd, result);
    return MADE(LISTENER, result, out);
}

static int play_listener_addr(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_listener_addr(any_handle(LISTENER), buf, cap));
}

static int play_listener_netdev(void)
{
    TEXT(buf, cap);
    return told(buf, cap,
                qnet_listener_netdev(any_handle(LISTENER), any_id(), any_version(), buf, cap));
}

static int play_listener_fd(void)
{
    return qnet_listener_fd(any_handle(LISTENER));
}

static int play_listener_close(void)
{
    return qnet_listener_close(any_handle(LISTENER));
}

static int play_listener_set(void)
{
    int option = any_option();

    return qnet_listener_set(any_handle(LISTENER), option, any_value(option));
}

static int play_listener_get(void)
{
    int64_t value;

    return qnet_listener_get(any_handle(LISTENER), any_option(), one_in(16) ? NULL : &value);
}

static int play_send(void)
{
    int nothing;
    size_t len = any_length(&nothing);

    return qnet_send(any_handle(CONN), nothing ? NULL : bytes + BYTES - len, len);
}

static int play_send_batch(void)
{
    qnet_frame frames[40];
    size_t count = one_in(8) ? below(41) : below(4), i;

    for (i = 0; i < count; i++) {
        int nothing;

        frames[i].len = any_length(&nothing);
        frames[i].data = nothing ? NULL : bytes + BYTES - frames[i].len;
    }
    if (one_in(16))
        return qnet_send_batch(any_handle(CONN), NULL, (size_t)any_number());
    return qnet_send_batch(any_handle(CONN), frames, count);
}

/* Frames in wire format, the last of which may be anything. */
static size_t fill_packed(uint8_t *wire, size_t cap)
{
    size_t at = 0, len;

    do {
        len = 14 + below(200);
        raw_put_length(wire + at, one_in(16) ? (size_t)any_number() : len);
        raw_fill(wire + at + RAW_PREFIX, len, 0);
        at += RAW_PREFIX + len;
    } while (at + 300 < cap && !one_in(4));
    return one_in(8) ? at - below(20) : at;
}

static int play_send_packed(void)
{
    uint8_t wire[4000];

    if (one_in(16))
        return qnet_send_packed(any_handle(CONN), NULL, (size_t)any_number());
    if (one_in(16))
        return qnet_send_packed(any_handle(CONN), zeroes, huge);
    return qnet_send_packed(any_handle(CONN), wire, fill_packed(wire, sizeof wire));
}

static int play_flush(void)
{
    return qnet_flush(any_handle(CONN));
}

static int play_set_handler(void)
{
    void *conn = any_handle(CONN);

    return qnet_set_handler(conn, one_in(3) ? NULL : on_frame, conn);
}

static int play_set_batch_handler(void)
{
    void *conn = any_handle(CONN);

    return qnet_set_batch_handler(conn, one_in(3) ? NULL : on_batch, conn);
}

static int play_set_close_handler(void)
{
    void *conn = any_handle(CONN);

    return qnet_set_close_handler(conn, one_in(3) ? NULL : on_close, conn);
}

static int play_set_state_handler(void)
{
    void *conn = any_handle(CONN);

    return qnet_set_state_handler(conn, one_in(3) ? NULL : on_state, conn);
}

/* A buffer of exactly so many bytes; NULL, then of any length, now and then. */
static void *any_buffer(size_t *cap)
{
    int nothing;

    *cap = any_length(&nothing);
    return nothing ? NULL : allocate(*cap);
}

static int play_recv(void)
{
    size_t cap;
    void *buf = any_buffer(&cap);
    int result = qnet_recv(any_handle(CONN), buf, cap, any_timeout(1));

    CHECK(result <= QNET_FRAME_MAX && (result <= 0 || result >= QNET_FRAME_MIN));
    CHECK(result <= 0 || cap == 0 || (size_t)result <= cap);
    free(buf);
    return result;
}

static int play_recv_batch(void)
{
    qnet_frame frames[16];
    size_t count = below(17);
    int result;

    if (one_in(16))
        return qnet_recv_batch(any_handle(CONN), NULL, (size_t)any_number(), any_timeout(1));
    result = qnet_recv_batch(any_handle(CONN), frames, count, any_timeout(1));
    CHECK(result != 0 && result <= (int)count);
    return result;
}

static int play_recv_packed(void)
{
    size_t cap;
    void *buf = any_buffer(&cap);
    int result = qnet_recv_packed(any_handle(CONN), buf, cap, any_timeout(1));

    CHECK(result != 0 && (result < 0 || (size_t)result <= cap));
    free(buf);
    return result;
}

static int play_poll(void)
{
    qnet_conn *conns[10];
    uint8_t ready[10];
    size_t count = below(11), i;
    int result, sum = 0;

    for (i = 0; i < count; i++)
        conns[i] = any_handle(CONN);
    if (one_in(16))
        return qnet_poll(NULL, NULL, (size_t)any_number(), 0);
    if (one_in(16))
        return qnet_poll(conns, NULL, count, 0);
    if (one_in(16))
        return qnet_poll(NULL, ready, count, 0);
    result = qnet_poll(conns, ready, count, any_timeout(1));
    for (i = 0; result >= 0 && i < count; i++) {
        CHECK(ready[i] <= 1);
        sum += ready[i];
    }
    if (result >= 0)
        CHECK_INT(result, sum);
    return result;
}

static int play_fd(void)
{
    return qnet_fd(any_handle(CONN));
}

/* Two handlers that wait for each other's connection would wait for ever, as they may. */
static int play_wait(void)
{
    return qnet_wait(any_handle(CONN), any_timeout(own == NULL));
}

static int play_close_reason(void)
{
    return qnet_close_reason(any_handle(CONN));
}

static int play_shutdown(void)
{
    return qnet_shutdown(any_handle(CONN));
}

static int play_close(void)
{
    return qnet_close(any_handle(CONN));
}

static int play_hwaddr(void)
{
    uint8_t mac[6];

    return qnet_hwaddr(any_handle(CONN), one_in(16) ? NULL : mac);
}

static int play_set_hwaddr(void)
{
    return qnet_set_hwaddr(any_handle(CONN), one_in(16) ? NULL : bytes + BYTES - 6);
}

static int play_local_addr(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_local_addr(any_handle(CONN), buf, cap));
}

static int play_peer_addr(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_peer_addr(any_handle(CONN), buf, cap));
}

static int play_get_stats(void)
{
    size_t size = below(2 * sizeof(qnet_stats));
    qnet_stats *stats = one_in(16) ? NULL : allocate(size);
    int result = qnet_get_stats(any_handle(CONN), stats, size);

    free(stats);
    return result;
}

static int play_set(void)
{
    int option = any_option();

    return qnet_set(any_handle(CONN), option, any_value(option));
}

static int play_get(void)
{
    int64_t value;

    return qnet_get(any_handle(CONN), any_option(), one_in(16) ? NULL : &value);
}

static int play_version(void)
{
    CHECK(strcmp(qnet_version(), CARGO_VERSION) == 0);
    return 0;
}

static int play_abi_version(void)
{
    return (int)qnet_abi_version();
}

static int play_strerror(void)
{
    CHECK(qnet_strerror((int)any_number())[0] != '\0');
    return 0;
}

static int play_last_error(void)
{
    CHECK(strlen(qnet_last_error()) < 512);
    return 0;
}

static int play_last_errno(void)
{
    return qnet_last_errno();
}

static int play_link(void)
{
    return qnet_link(any_handle(CONN), any_handle(CONN));
}

static int play_unlink(void)
{
    return qnet_unlink(any_handle(CONN));
}

static int play_hub_new(void)
{
    OUT(qnet_hub, out);
    int result;

    result = qnet_hub_new(to_out);
    return MADE(HUB, result, out);
}

static int play_hub_attach(void)
{
    return qnet_hub_attach(any_handle(HUB), any_handle(CONN));
}

/* One of a hub's connections, which may be no one's but the hub's; or any. */
static void *any_port(void *hub)
{
    qnet_conn *ports[MOST_PORTS];
    int count = qnet_hub_ports(hub, ports, MOST_PORTS);

    if (count <= 0 || one_in(4))
        return any_handle(CONN);
    return ports[below((unsigned)(count < MOST_PORTS ? count : MOST_PORTS))];
}

/* What is detached may have been the hub's; it is this program's to close now. */
static int play_hub_detach(void)
{
    void *hub = any_handle(HUB), *conn = any_port(hub);
    int result = qnet_hub_detach(hub, conn);

    if (result == QNET_OK)
        keep(CONN, conn);
    return result;
}

static int play_hub_port(void)
{
    OUT(qnet_conn, out);
    int result;

    result = qnet_hub_port(any_handle(HUB), to_out);
    return MADE(CONN, result, out);
}

static int play_hub_serve(void)
{
    return qnet_hub_serve(any_handle(HUB), any_handle(LISTENER));
}

static int play_hub_ports(void)
{
    size_t cap = below(8);
    qnet_conn **conns = cap == 0 || one_in(16) ? NULL : allocate(cap * sizeof *conns);
    int result = qnet_hub_ports(any_handle(HUB), conns, cap);

    free(conns);
    return result;
}

static int play_hub_set(void)
{
    int option = one_in(2) ? any_option() : 20 + (int)below(3);

    return qnet_hub_set(any_handle(HUB), option, any_value(option));
}

static int play_hub_get(void)
{
    int64_t value;

    return qnet_hub_get(any_handle(HUB), any_option(), one_in(16) ? NULL : &value);
}

static int play_hub_get_stats(void)
{
    size_t size = below(2 * sizeof(qnet_hub_stats));
    qnet_hub_stats *stats = one_in(16) ? NULL : allocate(size);
    int result = qnet_hub_get_stats(any_handle(HUB), stats, size);

    free(stats);
    return result;
}

static int play_hub_close(void)
{
    return qnet_hub_close(any_handle(HUB));
}

/* ---- The table ---- */

/* The results that a function may have; abi.sh sees that all functions are here. */
#define PLAY(name, may) { "qnet_" #name, play_##name, may }

static const struct {
    const char *name;
    int (*play)(void);
    unsigned may;
} functions[] = {
    PLAY(dial, FINE | INVALID | REFUSED | RESOLVE | SIGNAL | SYSTEM),
    PLAY(dial_with, FINE | INVALID | REFUSED | RESOLVE | WAITED | SYSTEM | UNSUPPORTED),
    PLAY(socketpair, FINE | INVALID | SYSTEM),
    PLAY(socketpair_fd, FINE | INVALID | SYSTEM),
    PLAY(from_fd, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(dgram, FINE | INVALID | BUSY | RESOLVE | SIGNAL | SYSTEM),
    PLAY(tap, FINE | INVALID | SYSTEM),
    PLAY(netdev, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(listen, FINE | INVALID | BUSY | RESOLVE | SIGNAL | SYSTEM),
    PLAY(accept, FINE | HANDLE | INVALID | WAITED | CLOSED | SYSTEM),
    PLAY(listener_from_fd, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(listener_addr, FINE | HANDLE | INVALID),
    PLAY(listener_netdev, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(listener_fd, FINE | HANDLE),
    PLAY(listener_close, FINE | HANDLE),
    PLAY(listener_set, FINE | HANDLE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(listener_get, FINE | HANDLE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(send, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(send_batch, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(send_packed, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(flush, FINE | HANDLE | WAITED | ENDED),
    PLAY(set_handler, FINE | HANDLE | BUSY | ENDED),
    PLAY(set_batch_handler, FINE | HANDLE | BUSY | ENDED),
    PLAY(set_close_handler, FINE | HANDLE),
    PLAY(recv, FINE | HANDLE | INVALID | SIZE | WAITED | BUSY | ENDED),
    PLAY(recv_batch, FINE | HANDLE | INVALID | WAITED | BUSY | ENDED),
    PLAY(recv_packed, FINE | HANDLE | INVALID | SIZE | WAITED | BUSY | ENDED),
    PLAY(poll, FINE | INVALID | SIGNAL | SYSTEM),
    PLAY(fd, FINE | HANDLE | SYSTEM),
    PLAY(wait, FINE | HANDLE | INVALID | WAITED | BUSY | SYSTEM),
    PLAY(close_reason, FINE | HANDLE | ENDED),
    PLAY(shutdown, FINE | HANDLE),
    PLAY(close, FINE | HANDLE),
    PLAY(set_state_handler, FINE | HANDLE | UNSUPPORTED),
    PLAY(hwaddr, FINE | HANDLE | INVALID),
    PLAY(set_hwaddr, FINE | HANDLE | INVALID),
    PLAY(local_addr, FINE | HANDLE | INVALID),
    PLAY(peer_addr, FINE | HANDLE | INVALID),
    PLAY(get_stats, FINE | HANDLE | INVALID),
    PLAY(set, FINE | HANDLE | INVALID | UNSUPPORTED | BUSY | SYSTEM),
    PLAY(get, FINE | HANDLE | INVALID | UNSUPPORTED | BUSY | SYSTEM),
    PLAY(version, FINE),
    PLAY(abi_version, FINE),
    PLAY(strerror, FINE),
    PLAY(last_error, FINE),
    PLAY(last_errno, FINE),
    PLAY(link, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(unlink, FINE | HANDLE | INVALID),
    PLAY(hub_new, FINE | INVALID | SYSTEM),
    PLAY(hub_attach, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(hub_detach, FINE | HANDLE | INVALID),
    PLAY(hub_port, FINE | HANDLE | INVALID | SYSTEM),
    PLAY(hub_serve, FINE | HANDLE | BUSY | SYSTEM),
    PLAY(hub_ports, FINE | HANDLE | INVALID),
    PLAY(hub_set, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(hub_get, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(hub_get_stats, FINE | HANDLE | INVALID),
    PLAY(hub_close, FINE | HANDLE),
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static int tally[FUNCTIONS][CODES];

/* What each thread is in, by its number; 0: nothing. */
enum { THREADS = 1 << 12 };
static int doing[THREADS];

static int *what_i_do(void)
{
    return &doing[syscall(SYS_gettid) % THREADS];
}

/* Says what of the library is where, and ends the test. */
static void hung(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    char path[300], name[32];

    while (tasks && (task = readdir(tasks))) {
        int at = get(&doing[atoi(task->d_name) % THREADS]), fd;
        ssize_t len;

        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        len = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
        name[len > 0 ? len - 1 : 0] = '\0';
        close(fd);
        fprintf(stderr, "thread %s (%s): %s\n", task->d_name, name,
                at > 0 ? functions[at - 1].name : "nothing");
    }
    fprintf(stderr, "nothing moves after %d calls; process %d\n", get(&calls_made), (int)getpid());
    abort();
}

/* ---- Playing ---- */

static void check_result(int which, int result)
{
    unsigned code = MAY(result > 0 ? QNET_OK : result);

    if (result <= -CODES || !(code & functions[which].may)) {
        fprintf(stderr, "%s gave %d: %s\n", functions[which].name, result, qnet_last_error());
        CHECK(!"a result that it may give");
    }
    count_up(&tally[which][result > 0 ? 0 : -result]);
}

/* The record of a failure says why; it has an errno where the system was the reason. */
static void check_record(int result)
{
    if (result >= 0 || MAY(result) & WAITED)
        return;
    CHECK(qnet_last_error()[0] != '\0');
    CHECK_INT(qnet_last_errno() != 0, result == QNET_ERR_OS || result == QNET_ERR_REFUSED);
}

/* A close handler that ran in the call may have left another record; a reason is no failure. */
static void play_one(void)
{
    int which = (int)below(FUNCTIONS), *mine = what_i_do(), before = get(mine), result;
    unsigned so_far = ++plays;

    put(mine, which + 1);
    result = functions[which].play();
    check_result(which, result);
    if (plays == so_far && functions[which].play != play_close_reason)
        check_record(result);
    put(mine, before);
    count_up(&calls_made);
}

static void play_some(unsigned most)
{
    unsigned count = below(most + 1);

    if (depth == DEEPEST)
        return;
    count_up(&playing);
    for (depth++; count > 0 && !get(&over); count--)
        play_one();
    depth--;
    __atomic_sub_fetch(&playing, 1, __ATOMIC_SEQ_CST);
}

/* ---- Plain peers ---- */

static void connect_plainly(void)
{
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in in;
    } address;
    char text[128] = "";
    int local = one_in(2), fd;
    socklen_t len = sizeof address.in;

    memset(&address, 0, sizeof address);
    if (local) {
        len = raw_unix_address(places[below(2 * PLACES)], &address.local);
    } else {
        if (qnet_listener_addr(pooled(LISTENER), text, sizeof text) <= 0 || !strchr(text, ':'))
            return;
        address.in.sin_family = AF_INET;
        address.in.sin_port = htons((unsigned short)atoi(strrchr(text, ':') + 1));
        address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, &address.any, len) != 0 && errno != EINPROGRESS)
        close(fd);
    else if (fd >= 0)
        give_fd(fd);
}

static void write_something(int fd)
{
    uint8_t wire[8000];
    size_t len = one_in(8) ? below(sizeof wire) : fill_packed(wire, sizeof wire);

    if (one_in(64))
        memset(wire, (int)below(256), sizeof wire);
    send(fd, wire, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What a peer with a plain socket does: reads, writes, leaves in several ways. */
static void play_peer(void)
{
    static const struct linger reset = { 1, 0 };
    uint8_t buffer[8000];
    int fd = take_fd(), i;

    if (fd < 0) {
        connect_plainly();
        return;
    }
    for (i = (int)below(20); i > 0; i--)
        recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    for (i = (int)below(3); i > 0; i--)
        write_something(fd);
    if (one_in(8))
        shutdown(fd, (int)below(3));
    if (one_in(32))
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (one_in(16))
        close(fd);
    else
        give_fd(fd);
}

/* ---- What keeps it moving ---- */

static pthread_t workers[WORKERS];
static int finished;

/* Ends all that a call could wait for without an end. */
static void end_everything(void)
{
    qnet_conn *ports[MOST_PORTS];
    int i, j, fd;

    for (i = 0; i < SLOTS; i++) {
        qnet_shutdown(__atomic_load_n(&handles[CONN][i], __ATOMIC_SEQ_CST));
        qnet_listener_close(__atomic_load_n(&handles[LISTENER][i], __ATOMIC_SEQ_CST));
        j = qnet_hub_ports(__atomic_load_n(&handles[HUB][i], __ATOMIC_SEQ_CST), ports, MOST_PORTS);
        for (j = j < MOST_PORTS ? j : MOST_PORTS; j > 0; j--)
            qnet_shutdown(ports[j - 1]);
        fd = __atomic_exchange_n(&fds[i], -1, __ATOMIC_SEQ_CST);
        if (fd >= 0)
            close(fd);
    }
}

/* Ends something now and then; everything where nothing moves; the test where that does not help. */
static void keep_moving(int *done, int until)
{
    int calls = -1, now;
    long long since_ms = 0;

    depth = DEEPEST; /* close handlers that run here play nothing, and do not wait */
    while (get(done) != until) {
        raw_sleep_ms(TICK_MS);
        now = get(&calls_made);
        if (now != calls) {
            calls = now;
            since_ms = raw_now_ms();
            qnet_shutdown(pooled(CONN));
        } else {
            end_everything();
            if (raw_now_ms() - since_ms > STALL_SECONDS * 1000LL * check_slow())
                hung();
        }
        if (!is_child && one_in(8) && get(&finished) == 0)
            pthread_kill(workers[below(WORKERS)], SIGUSR1);
    }
    depth = 0;
}

static void *keep_child_moving(void *argument)
{
    (void)argument;
    keep_moving(&over, 1);
    return NULL;
}

/* ---- A child ---- */

/* The parent's handles are none here, and a library of one's own works; then it is gone. */
static void be_child(void)
{
    pthread_t mover;
    int i, j;

    is_child = 1;
    for (i = 0; i < SLOTS; i++) {
        CHECK_INT(qnet_flush(handles[CONN][i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_fd(handles[LISTENER][i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_hub_ports(handles[HUB][i], NULL, 0), QNET_ERR_HANDLE);
        fds[i] = -1;
        for (j = 0; j < KINDS; j++)
            if (one_in(2))
                handles[j][i] = NULL;
    }
    start_thread(&mover, keep_child_moving, NULL);
    for (i = 0; i < CHILD_CALLS; i++)
        play_one();
    _exit(0);
}

static void play_child(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        be_child();
    while (pid > 0 && waitpid(pid, &status, 0) != pid)
        CHECK_INT(errno, EINTR);
    CHECK(pid < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

/* ---- All of it ---- */

static void *work(void *number)
{
    state = seed * 1000u + 500u + (unsigned)(uintptr_t)number;
    while (get(&calls_made) < calls_wanted) {
        play_one();
        if (one_in(8))
            play_peer();
        if (one_in(20000))
            play_child();
    }
    count_up(&finished);
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
}

static void prepare(void)
{
    struct sigaction action;
    uint8_t *filled = allocate(BYTES);
    char name[8];
    int i;

    seed = (unsigned)check_number("RANDOM_SEED", 1);
    calls_wanted = check_number("RANDOM_CALLS", rounds(CALLS));
    CHECK(chdir(scratch_directory) == 0); /* any address is a Unix socket's path, too */
    fprintf(stderr, "RANDOM_SEED=%u RANDOM_CALLS=%d\n", seed, calls_wanted);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    for (i = 0; i < SLOTS; i++)
        fds[i] = -1;
    for (i = 0; i < PLACES; i++) {
        snprintf(name, sizeof name, "p%d", i);
        strcpy(places[2 * i], scratch_path(name));
        strcpy(places[2 * i + 1], scratch_abstract(name));
    }
    raw_fill(filled, BYTES, 0);
    bytes = filled;
    zeroes = mmap(NULL, huge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(zeroes != MAP_FAILED);
}

static void close_everything(void)
{
    int kind, i;

    for (i = 0; i < SLOTS; i++) {
        for (kind = 0; kind < KINDS; kind++)
            if (handles[kind][i])
                close_handle((enum kind)kind, handles[kind][i]);
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

/* Every function was called, and all that can work did. */
static void check_tally(void)
{
    int which, code;

    for (which = 0; which < FUNCTIONS; which++) {
        if (getenv("RANDOM_TALLY")) {
            fprintf(stderr, "%-22s", functions[which].name);
            for (code = 0; code < CODES; code++)
                fprintf(stderr, " %d", tally[which][code]);
            fprintf(stderr, "\n");
        }
        if (calls_wanted >= CALLS / 10 && functions[which].play != play_tap)
            CHECK(tally[which][0] > 0);
    }
    fprintf(stderr, "%d calls\n", calls_made);
}

static void random_calls(void)
{
    struct footprint before;
    uintptr_t i;

    alarm(0); /* keep_moving() sees whether it hangs */
    prepare();
    namespaced = be_alone(); /* TAPs and ports are nobody else's then */
    before = footprint_now();
    for (i = 0; i < WORKERS; i++)
        start_thread(&workers[i], work, (void *)i);
    keep_moving(&finished, WORKERS);
    for (i = 0; i < WORKERS; i++)
        join_thread(workers[i]);
    put(&over, 1);
    keep_moving(&playing, 0);
    close_everything();
    footprint_again(before);
    check_tally();
    free((void *)(uintptr_t)bytes);
}

int main(void)
{
    scratch_make();
    RUN(random_calls);
    scratch_remove();
    return check_done();
}
