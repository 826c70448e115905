/*
 * plays.h - one random call of each function, and handlers that make such calls.
 */
#ifndef PLAYS_H
#define PLAYS_H

#include "pool.h"

enum { ENDED = MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_PROTOCOL) | MAY(QNET_ERR_OS) };

/*
 * How deep this thread is in calls in handlers in calls. The test's own threads begin at 1, the library's
 * at 0.
 */
static __thread int depth;

/* ---- Handlers ---- */

static void play_some(unsigned most);

/* Makes calls in a handler, more of them on its own connection, which `user` mostly is. */
static void react(void *user)
{
    void *before = own;

    own = user;
    if (one_in(4))
        play_some(2);
    own = before;
}

/* Ends a thread of the library's now and then: in advances, handlers run on the test's, which are to go on. */
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

/* It may refuse a peer or take it for the pool, and do anything to its hub, or to one that has left. */
static void on_port(void *user, qnet_conn *conn, int attached)
{
    CHECK(attached == 0 || attached == 1);
    if (one_in(8))
        qnet_close(conn);
    else if (attached && one_in(8) && qnet_set_handler(conn, on_frame, conn) == QNET_OK)
        keep(CONN, conn);
    react(attached || one_in(2) ? user : conn);
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

/* A buffer of exactly `cap` bytes for text; NULL where that is 0, and sometimes elsewhere. */
#define TEXT(buf, cap)                                                         \
    size_t cap = one_in(4) ? below(4) : below(300);                            \
    char *buf = cap == 0 || one_in(16) ? NULL : allocate(cap)

/* Checks that a text ends where the result says, and frees the buffer. */
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

/* Fills a buffer with frames in wire format, some with wrong lengths; how many bytes that are. */
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

/* A buffer of exactly *cap bytes; or now and then NULL, with any *cap. */
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

/* In handlers no wait is endless: two that wait for each other's connections may wait for ever. */
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

/* Some words one behind another, which seldom make sense. */
static const char *any_words(char *text, size_t cap)
{
    static const char *const words[] = {
        "delay 1ms", "1ms", "loss", "10%", "state", "gemodel 1%", "rate 1mbit", "24", "reorder",
        "gap 2", "limit", "10kb", "mark 0", "match", "1,6 0 0 1", "seed 0", "ecn", "\377", "0",
    };
    size_t at = 0;

    text[0] = '\0';
    do
        at += (size_t)snprintf(text + at, cap - at, "%s ", words[below(sizeof words / sizeof *words)]);
    while (at + 20 < cap && !one_in(4));
    return text;
}

/* Some text, mostly one that can be understood. */
static const char *any_impairment(void)
{
    static const char *const texts[] = {
        NULL, "", "delay 1ms", "delay 2ms 1ms reorder", "loss 10%", "duplicate 50% corrupt 50%",
        "rate 10mbit limit 20", "delay 1ms rate 100mbit", "loss every 3", "limit 3",
        "delay 10", "trace /nowhere", "seed 7 delay 1us", "delay 20ms duplicate 100% seed 1",
        "delay 1000s", "rate 1kbit limit 10kb mark 1ms", "loss gemodel 10% 50% ecn delay 100us",
        "delay 3ms 1ms 20% distribution pareto reorder 50% gap 2", "loss state 5% 50% delay 1ns",
        "delay 1ms match 4,40 0 0 12,21 0 1 2048,6 0 0 1,6 0 0 0", "trace trace 500 limit 100",
    };
    static __thread char text[200];

    if (one_in(4))
        return any_words(text, sizeof text);
    return texts[below(sizeof texts / sizeof *texts)];
}

static int any_direction(void)
{
    return one_in(16) ? (int)below(100) - 50 : 1 + (int)below(3);
}

static int play_impair(void)
{
    return qnet_impair(any_handle(CONN), any_direction(), any_impairment());
}

static int play_impairment(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_impairment(any_handle(CONN), any_direction(), buf, cap));
}

static int play_listener_impair(void)
{
    return qnet_listener_impair(any_handle(LISTENER), any_direction(), any_impairment());
}

static int play_listener_impairment(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_listener_impairment(any_handle(LISTENER), any_direction(), buf, cap));
}

static int play_get_impair_stats(void)
{
    size_t size = below(2 * sizeof(qnet_impair_stats));
    qnet_impair_stats *stats = one_in(16) ? NULL : allocate(size);
    int result = qnet_get_impair_stats(any_handle(CONN), any_direction(), stats, size);

    if (result > 0 && stats && size >= sizeof *stats)
        CHECK_INT(stats->frames + stats->duplicated,
                  stats->lost + stats->dropped + stats->discarded + stats->passed +
                      stats->waiting + stats->flying);
    free(stats);
    return result;
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

/* One of a hub's connections, which the hub may own; or any connection. */
static void *any_port(void *hub)
{
    qnet_conn *ports[MOST_PORTS];
    int count = qnet_hub_ports(hub, ports, MOST_PORTS);

    if (count <= 0 || one_in(4))
        return any_handle(CONN);
    return ports[below((unsigned)(count < MOST_PORTS ? count : MOST_PORTS))];
}

/* A connection that the hub owned is the caller's to close once it is detached. */
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

static int play_hub_set_port_handler(void)
{
    void *hub = any_handle(HUB);

    return qnet_hub_set_port_handler(hub, one_in(3) ? NULL : on_port, hub);
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
    int option = one_in(2) ? any_option() : 20 + (int)below(5);

    return qnet_hub_set(any_handle(HUB), option, any_value(option));
}

static int play_hub_get(void)
{
    int64_t value;

    return qnet_hub_get(any_handle(HUB), any_option(), one_in(16) ? NULL : &value);
}

static int play_peer_cred(void)
{
    size_t size = below(2 * sizeof(qnet_cred));
    qnet_cred *cred = one_in(16) ? NULL : allocate(size);
    int result = qnet_peer_cred(any_handle(CONN), cred, size);

    free(cred);
    return result;
}

static int play_hub_get_stats(void)
{
    size_t size = below(2 * sizeof(qnet_hub_stats));
    qnet_hub_stats *stats = one_in(16) ? NULL : allocate(size);
    int result = qnet_hub_get_stats(any_handle(HUB), stats, size);

    free(stats);
    return result;
}

static const char *any_vlan(void)
{
    static const char *const texts[] = {
        NULL, "", "access 10", "trunk", "trunk 10,20 native 5", "tunnel 10 tpid 88a8", "trunk 7-3",
        "access 4095", "native 5",
    };

    return texts[below(sizeof texts / sizeof *texts)];
}

static int play_set_vlan(void)
{
    return qnet_set_vlan(any_port(any_handle(HUB)), any_vlan());
}

static int play_vlan(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_vlan(any_handle(CONN), buf, cap));
}

static int play_listener_set_vlan(void)
{
    return qnet_listener_set_vlan(any_handle(LISTENER), any_vlan());
}

static int play_listener_vlan(void)
{
    TEXT(buf, cap);
    return told(buf, cap, qnet_listener_vlan(any_handle(LISTENER), buf, cap));
}

static int play_hub_fdb(void)
{
    size_t size = below(2 * sizeof(qnet_fdb_entry)), cap = below(8);
    qnet_fdb_entry *entries = one_in(16) ? NULL : allocate(size * cap + 1);
    int result = qnet_hub_fdb(any_handle(HUB), entries, size, cap);

    free(entries);
    return result;
}

/* Some address, mostly a device's, or none. */
static const uint8_t *any_mac(void)
{
    static const uint8_t macs[][6] = {
        { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 }, { 0 }, { 1, 0, 0x5e, 0, 0, 1 },
    };

    return one_in(8) ? NULL : macs[below(4)];
}

static int any_vid(void)
{
    return one_in(8) ? (int)any_number() : 10 * (int)below(3);
}

static int play_hub_fdb_add(void)
{
    void *hub = any_handle(HUB);

    return qnet_hub_fdb_add(hub, any_mac(), any_vid(), any_port(hub));
}

static int play_hub_fdb_remove(void)
{
    return qnet_hub_fdb_remove(any_handle(HUB), any_mac(), one_in(2) ? -1 : any_vid());
}

static int play_hub_close(void)
{
    return qnet_hub_close(any_handle(HUB));
}

static int play_clock_new(void)
{
    OUT(qnet_clock, out);
    int result;

    result = qnet_clock_new(to_out);
    return MADE(CLOCK, result, out);
}

static int play_clock_advance(void)
{
    qnet_clock *clock = any_handle(CLOCK);
    int64_t now = 0, next = 0;

    qnet_clock_next(clock, &now, &next);
    if (one_in(4) && next - now < 1000000000)
        return qnet_clock_advance(clock, next);
    return qnet_clock_advance(clock, one_in(16) ? any_number() : now + (int64_t)below(5000000));
}

static int play_clock_next(void)
{
    int64_t now, next;

    return qnet_clock_next(any_handle(CLOCK), one_in(4) ? NULL : &now, one_in(4) ? NULL : &next);
}

static int play_clock_close(void)
{
    return qnet_clock_close(any_handle(CLOCK));
}

static int play_hub_set_clock(void)
{
    return qnet_hub_set_clock(any_handle(HUB), one_in(4) ? NULL : any_handle(CLOCK));
}

static int play_link_on(void)
{
    return qnet_link_on(any_handle(CLOCK), any_handle(CONN), any_handle(CONN));
}

#endif
