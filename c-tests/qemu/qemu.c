/*
 * qemu.c - against a real QEMU, which runs here without a machine: what goes
 * into one of its netdevs comes out of the other, as a hub inside QEMU joins
 * the two.
 *
 * Skipped without QEMU, or failed if QNET_REQUIRE_QEMU=1.
 */
#include "qemu.h"

/* ---- Its netdevs ---- */

enum how { DIALLED, ACCEPTED, INHERITED, DATAGRAMS, GROUP, MESSAGES };
enum part { WHOLE, PORT, NAME }; /* which part of an address QEMU is told */
enum { THIS = 0, BEFORE_STREAM = 701 };

struct netdev_kind {
    const char *name;
    const char *format; /* takes QEMU's address, then ours; NULL: the library's text */
    int version;        /* for the library's text; THIS: the one that runs */
    enum how how;
    const char *network;
    enum part part;
    int type; /* the socket type, for messages */
};

static const struct netdev_kind netdev_kinds[] = {
    { "socket listen, tcp", "socket,listen=%s", 0, DIALLED, "tcp", WHOLE, 0 },
    { "socket connect, tcp", "socket,connect=%s", 0, ACCEPTED, "tcp", WHOLE, 0 },
    { "socket fd", "socket,fd=%s", 0, INHERITED, NULL, WHOLE, 0 },
    { "stream server, unix", "stream,server=on,addr.type=unix,addr.path=%s", 0, DIALLED, "unix",
      WHOLE, 0 },
    { "stream client, unix", "stream,server=off,addr.type=unix,addr.path=%s", 0, ACCEPTED, "unix",
      WHOLE, 0 },
    { "stream server, unix abstract",
      "stream,server=on,addr.type=unix,addr.abstract=on,addr.tight=on,addr.path=%s", 0, DIALLED,
      "unix", NAME, 0 },
    { "stream client, unix abstract",
      "stream,server=off,addr.type=unix,addr.abstract=on,addr.tight=on,addr.path=%s", 0, ACCEPTED,
      "unix", NAME, 0 },
    { "stream server, tcp", "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 0,
      DIALLED, "tcp", PORT, 0 },
    { "stream client, tcp", "stream,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 0,
      ACCEPTED, "tcp", PORT, 0 },
    { "stream fd", "stream,addr.type=fd,addr.str=%s", 0, INHERITED, NULL, WHOLE, 0 },
    { "as the library says, tcp", NULL, THIS, ACCEPTED, "tcp", WHOLE, 0 },
    { "as the library says, tcp, before 7.2", NULL, BEFORE_STREAM, ACCEPTED, "tcp", WHOLE, 0 },
    { "as the library says, unix", NULL, THIS, ACCEPTED, "unix", WHOLE, 0 },
    { "as the library says, unix abstract", NULL, THIS, ACCEPTED, "unix", NAME, 0 },
    { "dgram, udp",
      "dgram,local.type=inet,local.host=127.0.0.1,local.port=%s,"
      "remote.type=inet,remote.host=127.0.0.1,remote.port=%s",
      0, DATAGRAMS, "udp4", PORT, 0 },
    { "dgram, unix", "dgram,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", 0,
      DATAGRAMS, "unixgram", WHOLE, 0 },
    { "socket udp", "socket,localaddr=127.0.0.1:%s,udp=127.0.0.1:%s", 0, DATAGRAMS, "udp4", PORT,
      0 },
    { "dgram fd", "dgram,local.type=fd,local.str=%s", 0, MESSAGES, NULL, WHOLE, SOCK_DGRAM },
    { "dgram fd, seqpacket", "dgram,local.type=fd,local.str=%s", 0, MESSAGES, NULL, WHOLE,
      SOCK_SEQPACKET },
    { "socket fd, datagrams", "socket,fd=%s", 0, MESSAGES, NULL, WHOLE, SOCK_DGRAM },
    { "as the library says, udp", NULL, THIS, DATAGRAMS, "udp4", PORT, 0 },
    { "as the library says, udp, before 7.2", NULL, BEFORE_STREAM, DATAGRAMS, "udp4", PORT, 0 },
    { "as the library says, unixgram", NULL, THIS, DATAGRAMS, "unixgram", WHOLE, 0 },
    { "dgram, multicast",
      "dgram,local.type=inet,local.host=127.0.0.1,local.port=0,"
      "remote.type=inet,remote.host=239.255.77.4,remote.port=%s",
      0, GROUP, "mcast", PORT, 0 },
    { "socket mcast", "socket,localaddr=127.0.0.1,mcast=239.255.77.4:%s", 0, GROUP, "mcast", PORT,
      0 },
    { "as the library says, multicast", NULL, THIS, GROUP, "mcast", PORT, 0 },
    { "as the library says, multicast, before 7.2", NULL, BEFORE_STREAM, GROUP, "mcast", PORT, 0 },
};
enum { NETDEV_KINDS = sizeof netdev_kinds / sizeof *netdev_kinds, INHERITED_KIND = 2 };

/* The kind that the running test is about. */
static const struct netdev_kind *kind_now;

static int is_of_messages(const struct netdev_kind *kind)
{
    return kind->how >= DATAGRAMS;
}

/* A netdev of a QEMU and this side of it. */
struct port {
    const struct netdev_kind *kind;
    char address[TEXT]; /* where this side is, or the group */
    char remote[TEXT];  /* where QEMU is, if that is another address */
    qnet_listener *listener;
    qnet_conn *conn;
    int fd;
};

static void choose_address(const struct netdev_kind *kind, char *address, size_t cap)
{
    static int chosen;
    char name[16];

    chosen++;
    snprintf(name, sizeof name, "n%d", chosen);
    if (strcmp(kind->network, "tcp") == 0)
        free_address(SOCK_STREAM, address, cap);
    else if (kind->part == PORT)
        free_address(SOCK_DGRAM, address, cap);
    else
        snprintf(address, cap, "%s",
                 kind->part == NAME ? scratch_abstract(name) : scratch_path(name));
}

static const char *address_for_qemu(const struct port *port, const char *address)
{
    if (port->kind->part == PORT)
        return strrchr(address, ':') + 1;
    return port->kind->part == NAME ? address + 1 : address;
}

static void open_datagrams(struct port *port)
{
    const struct netdev_kind *kind = port->kind;

    choose_address(kind, port->address, sizeof port->address);
    choose_address(kind, port->remote, sizeof port->remote);
    CHECK_INT(qnet_dgram(kind->network, port->address, port->remote, &port->conn), QNET_OK);
}

static void open_group(struct port *port)
{
    char free[TEXT];

    choose_address(port->kind, free, sizeof free);
    snprintf(port->remote, sizeof port->remote, "239.255.77.4%s", strchr(free, ':'));
    CHECK_INT(qnet_dgram("mcast", "127.0.0.1", port->remote, &port->conn), QNET_OK);
}

static void open_messages(struct port *port)
{
    int pair[2];

    CHECK(socketpair(AF_UNIX, port->kind->type | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_INT(qnet_from_fd(pair[0], &port->conn), QNET_OK);
    port->fd = pair[1];
}

/* Opens what this side has before QEMU starts. */
static void port_open(struct port *port)
{
    const struct netdev_kind *kind = port->kind;

    if (kind->how == DATAGRAMS)
        open_datagrams(port);
    else if (kind->how == GROUP)
        open_group(port);
    else if (kind->how == MESSAGES)
        open_messages(port);
    else if (kind->how == INHERITED)
        port->conn = raw_pair(&port->fd);
    else
        choose_address(kind, port->address, sizeof port->address);
    if (kind->how == ACCEPTED)
        CHECK_INT(qnet_listen(kind->network, port->address, &port->listener), QNET_OK);
    if (port->fd >= 0) {
        CHECK(fcntl(port->fd, F_SETFD, 0) == 0);
        snprintf(port->address, sizeof port->address, "%d", port->fd);
    }
}

/* Adds the netdev of a port to QEMU's arguments. */
static void port_netdev(const struct port *port, struct qemu *qemu)
{
    const char *near, *far;
    char netdev[3 * TEXT];

    near = port->address[0] ? address_for_qemu(port, port->address) : "";
    far = port->remote[0] ? address_for_qemu(port, port->remote) : near;
    snprintf(netdev, sizeof netdev, port->kind->format, far, near);
    qemu_netdev(qemu, netdev);
}

/* Prepares a port of a kind, and QEMU's netdev for it, before QEMU starts. */
static void port_prepare(struct port *port, const struct netdev_kind *kind, struct qemu *qemu)
{
    int version = kind->version == THIS ? qemu_version : kind->version;

    memset(port, 0, sizeof *port);
    port->kind = kind;
    port->fd = -1;
    port_open(port);
    if (kind->format == NULL && is_of_messages(kind))
        qemu_netdev_of_conn(qemu, port->conn, version);
    else if (kind->format == NULL)
        qemu_netdev_of(qemu, port->listener, version);
    else
        port_netdev(port, qemu);
}

/* Dials as soon as QEMU listens. */
static void port_dial(struct port *port, struct qemu *qemu)
{
    long long until_ms = raw_now_ms() + patience_ms();
    int result = qnet_dial(port->kind->network, port->address, &port->conn);

    while (result == QNET_ERR_REFUSED && raw_now_ms() < until_ms) {
        qemu_runs(qemu);
        raw_sleep_ms(10);
        result = qnet_dial(port->kind->network, port->address, &port->conn);
    }
    CHECK_INT(result, QNET_OK);
}

/* Connects a port with its netdev, after QEMU was started. */
static void port_join(struct port *port, struct qemu *qemu)
{
    if (port->kind->how == DIALLED)
        port_dial(port, qemu);
    if (port->kind->how == ACCEPTED) {
        CHECK_INT(qnet_accept(port->listener, patience_ms(), &port->conn), QNET_OK);
        CHECK_INT(qnet_listener_close(port->listener), QNET_OK);
    }
    if (port->fd >= 0)
        close(port->fd);
    CHECK_INT(qnet_set(port->conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    /*
     * Messages that wait for long would be dropped; with timeout 0 they are
     * refused and sent again.
     */
    CHECK_INT(qnet_set(port->conn, QNET_OPT_SEND_TIMEOUT_MS,
                       is_of_messages(port->kind) ? 0 : patience_ms()), QNET_OK);
}

/* Sends the next frames, and tries again while the socket has no room. */
static void send_surely(const struct port *port, struct flow *flow, int way, unsigned count)
{
    long long until_ms = raw_now_ms() + patience_ms();
    unsigned end = flow->next + count;

    while (flow->next != end) {
        int taken = flow_send(flow, port->conn, way, end - flow->next);

        CHECK(taken > 0 || (taken == QNET_ERR_AGAIN && is_of_messages(port->kind)));
        CHECK(raw_now_ms() < until_ms);
        if (taken < 0)
            raw_sleep_ms(1);
    }
}

/* A marker has a length of its own, and a number that tells it from earlier markers. */
enum { MARKER = 777 };

static void send_marker(qnet_conn *conn, unsigned number)
{
    uint8_t frame[MARKER];

    frame_make(frame, sizeof frame, number);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
}

static int receive_marker(qnet_conn *conn, unsigned number)
{
    static uint8_t buffer[QNET_FRAME_MAX];
    int len;

    do {
        len = qnet_recv(conn, buffer, sizeof buffer, 100);
        CHECK(len >= 0 || len == QNET_ERR_TIMEOUT);
    } while (len >= 0 && (len != MARKER || frame_number(buffer, MARKER) != number));
    return len >= 0;
}

/* Sends markers until one arrives, because a netdev that has no peer yet drops frames. */
static void pass_marker(struct qemu *qemu, qnet_conn *from, qnet_conn *to)
{
    static unsigned number = 1000000;
    long long until_ms = raw_now_ms() + patience_ms();

    do {
        qemu_runs(qemu);
        CHECK(raw_now_ms() < until_ms);
        send_marker(from, ++number);
    } while (!receive_marker(to, number));
}

/*
 * A QEMU with two netdevs of a kind. Only one of them is in a group, because
 * QEMU hears itself there and frames would go round.
 */
struct bridge {
    struct qemu qemu;
    struct port port[2];
};

/* The type of netdev that a kind needs in QEMU. */
static const char *type_of(const struct netdev_kind *kind)
{
    static char type[16];

    if (kind->format == NULL && kind->version == BEFORE_STREAM)
        return "socket";
    if (kind->format == NULL)
        return is_of_messages(kind) ? "dgram" : "stream";
    snprintf(type, sizeof type, "%.*s", (int)strcspn(kind->format, ","), kind->format);
    return type;
}

static int sockets_of(const struct qemu *qemu)
{
    int sockets = 0, fd;

    for (fd = 0; fd < 64; fd++) {
        char path[40], target[16] = "";

        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)qemu->pid, fd);
        sockets += readlink(path, target, sizeof target) > 0 && strncmp(target, "socket:", 7) == 0;
    }
    return sockets;
}

/*
 * Waits until both listening netdevs have accepted. Before that, though the
 * kernel has connected us, a frame forwarded from one to the other would end a
 * QEMU of version 7.
 */
static void await_both_accepted(const struct qemu *qemu)
{
    EVENTUALLY(sockets_of(qemu) >= 4);
}

/* Starts a QEMU and joins both netdevs; frames pass both ways when this returns. */
static void bridge_start(struct bridge *bridge, const struct netdev_kind *kind)
{
    int i;

    need(type_of(kind));
    qemu_init(&bridge->qemu);
    port_prepare(&bridge->port[0], kind, &bridge->qemu);
    port_prepare(&bridge->port[1], kind->how == GROUP ? &netdev_kinds[INHERITED_KIND] : kind,
                 &bridge->qemu);
    qemu_start(&bridge->qemu);
    for (i = 0; i < 2; i++)
        port_join(&bridge->port[i], &bridge->qemu);
    if (kind->how == DIALLED)
        await_both_accepted(&bridge->qemu);
    for (i = 0; i < 2; i++)
        pass_marker(&bridge->qemu, bridge->port[i].conn, bridge->port[1 - i].conn);
}

static void bridge_end(struct bridge *bridge)
{
    int i;

    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_close(bridge->port[i].conn), QNET_OK);
    qemu_end(&bridge->qemu, SIGTERM);
}

static void receiving_stop(struct taker *taker)
{
    CHECK_INT(qnet_set_handler(taker->conn, NULL, NULL), QNET_OK);
}

/* ---- The tests, each for every kind of netdev ---- */

/* Frames of the lengths that matter, up to the longest that the kind carries. */
static struct flow flow_of_kind(const struct netdev_kind *kind)
{
    static size_t sizes[ALL_SIZES];
    struct flow flow = flow_of_all_sizes();
    int is_inet = is_of_messages(kind) && kind->part == PORT, i;

    for (i = 0; i < ALL_SIZES; i++)
        sizes[i] = is_inet && flow.sizes[i] > 65507 ? 65507 - (size_t)i % 2 : flow.sizes[i];
    flow.sizes = sizes;
    return flow;
}

/* Frames of every size, sent in every way, come out of the other netdev as they went in. */
static void exchange(struct bridge *bridge, int back, int receive_way)
{
    const struct port *from = &bridge->port[back], *to = &bridge->port[1 - back];
    unsigned at_once = is_of_messages(from->kind) ? 1 : ALL_SIZES; /* or QEMU's buffer overflows */
    struct flow sent = flow_of_kind(kind_now), seen = sent;
    struct taker taker;
    int way;

    taker_start(&taker, to->conn, receive_way, flow_each, &seen);
    for (way = 0; way < WAYS_TO_SEND; way++)
        do {
            send_surely(from, &sent, way, at_once);
            taker_want(&taker, sent.next);
        } while (sent.next % ALL_SIZES != 0);
    CHECK_INT(taker_ends(&taker), 0);
    receiving_stop(&taker);
}

static void frames_of_every_size(void)
{
    struct bridge bridge;
    int way, back;

    bridge_start(&bridge, kind_now);
    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        for (back = 0; back < 2; back++)
            exchange(&bridge, back, way);
    qnet_set_close_handler(bridge.port[0].conn, NULL, NULL);
    qnet_set_close_handler(bridge.port[1].conn, NULL, NULL);
    bridge_end(&bridge);
}

/* Receives the flow's next frame and skips others, such as QEMU's own that it hears in a group. */
static void receive_among_echoes(qnet_conn *conn, struct flow *flow)
{
    static uint8_t buffer[QNET_FRAME_MAX];
    int len;

    do {
        len = qnet_recv(conn, buffer, sizeof buffer, patience_ms());
        CHECK(len > 0);
    } while (frame_number(buffer, (size_t)len) != flow->next);
    flow_take(flow, buffer, (size_t)len);
}

/* Frames of every size go into a group and come out of it; QEMU and the library are members. */
static void frames_of_every_size_in_a_group(void)
{
    enum { BACK = 70000 };
    struct bridge bridge;
    struct flow sent[2], seen[2];
    int round, i;

    bridge_start(&bridge, kind_now);
    sent[0] = sent[1] = flow_of_kind(kind_now);
    sent[1].next = BACK;
    seen[0] = sent[0];
    seen[1] = sent[1];
    for (round = 0; round < 3 * ALL_SIZES; round++)
        for (i = 0; i < 2; i++) {
            send_surely(&bridge.port[i], &sent[i], round % WAYS_TO_SEND, 1);
            receive_among_echoes(bridge.port[1 - i].conn, &seen[i]);
        }
    CHECK_INT(stats_of(bridge.port[0].conn).rx_runts, 0);
    bridge_end(&bridge);
}

/*
 * Frames go both ways at once, and all arrive in order. There are never so many
 * on their way that a socket is full: after that, QEMU's hub lets frames
 * overtake each other.
 */
static void many_frames_both_ways(void)
{
    int is_short = is_of_messages(kind_now) && kind_now->part == WHOLE; /* a queue of 10 messages */
    unsigned at_once = is_short ? 4 : 70, total = at_once * (unsigned)rounds(is_short ? 50 : 200);
    struct bridge bridge;
    struct flow sent[2], seen[2];
    struct taker takers[2];
    int i;

    bridge_start(&bridge, kind_now);
    for (i = 0; i < 2; i++) {
        sent[i] = seen[i] = flow_of_small_frames();
        taker_start(&takers[i], bridge.port[i].conn, BY_HANDLER + i, flow_each, &seen[i]);
    }
    while (sent[1].next < total) {
        for (i = 0; i < 2; i++)
            send_surely(&bridge.port[i], &sent[i], 1 + i, at_once);
        for (i = 0; i < 2; i++)
            EVENTUALLY(taker_count(&takers[i]) + at_once >= sent[1 - i].next);
    }
    for (i = 0; i < 2; i++)
        taker_want(&takers[i], total);
    bridge_end(&bridge);
}

/*
 * When QEMU ends, its connections end, whether pulled or handled: in order, or
 * by a reset if QEMU was killed before it had read everything.
 */
static void leaving_qemu_is_seen(void)
{
    static const int signals[] = { SIGTERM, SIGKILL };
    struct bridge bridge;
    struct flow sent, seen[2];
    struct taker takers[2];
    int i, s, end;

    for (s = 0; s < 2; s++) {
        bridge_start(&bridge, kind_now);
        sent = seen[0] = seen[1] = flow_of_small_frames();
        taker_start(&takers[0], bridge.port[0].conn, BY_RECV, flow_each, &seen[0]);
        taker_start(&takers[1], bridge.port[1].conn, BY_HANDLER, flow_each, &seen[1]);
        CHECK_INT(flow_send(&sent, bridge.port[0].conn, 0, 7), 7);
        taker_want(&takers[1], 7);
        qemu_end(&bridge.qemu, signals[s]);
        for (i = 0; i < 2; i++) {
            CHECK_INT(qnet_wait(bridge.port[i].conn, patience_ms()), QNET_OK);
            end = taker_end(&takers[i]);
            if (signals[s] != SIGKILL || end != QNET_ERR_OS)
                CHECK_INT(end, QNET_ERR_CLOSED);
            taker_close(&takers[i]);
        }
    }
}

/*
 * Connections that are dialled before QEMU runs come up when it starts, and
 * again when it was killed and restarted.
 */
static void a_restarted_qemu_is_found(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, 20 };
    struct bridge bridge;
    struct port *ports = bridge.port;
    int life, i;

    need(type_of(kind_now));
    qemu_init(&bridge.qemu);
    for (i = 0; i < 2; i++) {
        port_prepare(&ports[i], kind_now, &bridge.qemu);
        CHECK_INT(qnet_dial_with(kind_now->network, ports[i].address, options, 1, &ports[i].conn),
                  QNET_OK);
    }
    for (life = 1; life <= 3; life++) {
        if (life > 1) {
            qemu_init(&bridge.qemu);
            for (i = 0; i < 2; i++)
                port_netdev(&ports[i], &bridge.qemu);
        }
        qemu_start(&bridge.qemu);
        for (i = 0; i < 2; i++)
            EVENTUALLY(qnet_wait(ports[i].conn, 1) == QNET_ERR_TIMEOUT &&
                       stats_of(ports[i].conn).reconnects == (uint64_t)life);
        await_both_accepted(&bridge.qemu);
        pass_marker(&bridge.qemu, ports[0].conn, ports[1].conn);
        pass_marker(&bridge.qemu, ports[1].conn, ports[0].conn);
        for (i = 0; i < 2; i++)
            CHECK_INT(stats_of(ports[i].conn).reconnects, life);
        qemu_end(&bridge.qemu, SIGKILL);
    }
    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_close(ports[i].conn), QNET_OK);
}

/* A QEMU that connects does so again when a program has closed its side and listens anew. */
static void a_restarted_program_is_found(void)
{
    struct bridge bridge;
    int life, i;

    if (kind_now->format || kind_now->version == BEFORE_STREAM || qemu_version < 800)
        check_skip("no QEMU that connects again");
    bridge_start(&bridge, kind_now);
    for (life = 1; life <= 3; life++) {
        for (i = 0; i < 2; i++) {
            struct port *port = &bridge.port[i];

            CHECK_INT(qnet_close(port->conn), QNET_OK);
            CHECK_INT(qnet_listen(kind_now->network, port->address, &port->listener), QNET_OK);
            port_join(port, &bridge.qemu);
        }
        pass_marker(&bridge.qemu, bridge.port[0].conn, bridge.port[1].conn);
        pass_marker(&bridge.qemu, bridge.port[1].conn, bridge.port[0].conn);
    }
    bridge_end(&bridge);
}

/* How the receiver of a stuck write behaves before it leaves. */
enum before_leaving { READS_NOTHING, READS_ONE, READS_SLOWLY, LEAVES_IN_HANDLER };

static void handler_is_slow(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
    raw_sleep_ms(300);
}

static void handler_leaves(void *user, const uint8_t *frame, size_t len)
{
    handler_is_slow(user, frame, len);
    qnet_close(user);
}

static void read_before_leaving(qnet_conn *conn, enum before_leaving before)
{
    static uint8_t buffer[QNET_FRAME_MAX];

    if (before == READS_ONE)
        CHECK(qnet_recv(conn, buffer, sizeof buffer, patience_ms()) > 0);
    if (before == READS_SLOWLY)
        CHECK_INT(qnet_set_handler(conn, handler_is_slow, NULL), QNET_OK);
    if (before == LEAVES_IN_HANDLER)
        CHECK_INT(qnet_set_handler(conn, handler_leaves, conn), QNET_OK);
}

static void leave(qnet_conn *conn, enum before_leaving before, int by_shutdown)
{
    if (before == LEAVES_IN_HANDLER) {
        EVENTUALLY(qnet_close_reason(conn) == QNET_ERR_HANDLE);
        return;
    }
    if (by_shutdown)
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Sends until nothing moves any more, since nobody reads what comes out of the other netdev. */
static void block_qemu(qnet_conn *conn, struct flow *flow)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 200), QNET_OK);
    while (flow_send(flow, conn, 0, 1) == 1)
        ;
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, patience_ms()), QNET_OK);
}

/*
 * A peer that leaves while QEMU is in the middle of a write to it: the next
 * connection to that netdev must work. (It would not, with a stream netdev, if
 * leaving did not let QEMU finish its write.)
 */
static void next_connection_works(void)
{
    struct bridge bridge;
    size_t size = 60000;
    struct flow flow = flow_of_one_size(&size);
    struct port *port = &bridge.port[1];
    int before, by_shutdown;

    bridge_start(&bridge, kind_now);
    for (before = READS_NOTHING; before <= LEAVES_IN_HANDLER; before++) {
        for (by_shutdown = 0; by_shutdown < 2; by_shutdown++) {
            CHECK_INT(qnet_set(port->conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
            block_qemu(bridge.port[0].conn, &flow);
            read_before_leaving(port->conn, (enum before_leaving)before);
            leave(port->conn, (enum before_leaving)before, by_shutdown);
            port_dial(port, &bridge.qemu);
            pass_marker(&bridge.qemu, bridge.port[0].conn, port->conn);
            pass_marker(&bridge.qemu, port->conn, bridge.port[0].conn);
        }
    }
    bridge_end(&bridge);
}

/* ---- A router ---- */

static const uint8_t own_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static const uint8_t own_ip[4] = { 10, 0, 2, 15 };
static const uint8_t router_ip[4] = { 10, 0, 2, 2 };

/* "Who has 10.0.2.2? Tell 10.0.2.15." */
static void ask_for_router(qnet_conn *conn)
{
    static const uint8_t kind[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
    uint8_t frame[60] = { 0 };

    memset(frame, 0xff, 6);
    memcpy(frame + 6, own_mac, 6);
    memcpy(frame + 12, kind, sizeof kind);
    memcpy(frame + 22, own_mac, 6);
    memcpy(frame + 28, own_ip, 4);
    memcpy(frame + 38, router_ip, 4);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
}

static int is_routers_answer(const uint8_t *frame, int len)
{
    static const uint8_t kind[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 2 };

    return len >= 42 && memcmp(frame, own_mac, 6) == 0 &&
           memcmp(frame + 12, kind, sizeof kind) == 0 && memcmp(frame + 28, router_ip, 4) == 0 &&
           memcmp(frame + 32, own_mac, 6) == 0 && memcmp(frame + 38, own_ip, 4) == 0;
}

/* Asks until the router answers, because a netdev that QEMU has not made yet drops frames. */
static void find_router(qnet_conn *conn, struct qemu *qemu)
{
    long long until_ms = raw_now_ms() + patience_ms();
    uint8_t frame[2048];
    int len = 0;

    while (!is_routers_answer(frame, len)) {
        qemu_runs(qemu);
        CHECK(raw_now_ms() < until_ms);
        if (len <= 0)
            ask_for_router(conn);
        len = qnet_recv(conn, frame, sizeof frame, 100);
        CHECK(len > 0 || len == QNET_ERR_TIMEOUT);
    }
}

static void router_answers(void)
{
    struct qemu qemu;
    struct port port;

    need("user");
    need(type_of(kind_now));
    qemu_init(&qemu);
    qemu_netdev(&qemu, "user");
    port_prepare(&port, kind_now, &qemu);
    qemu_start(&qemu);
    port_join(&port, &qemu);
    find_router(port.conn, &qemu);
    CHECK_INT(qnet_close(port.conn), QNET_OK);
    qemu_end(&qemu, SIGTERM);
}

/* ---- QEMUs that come and go, and that talk through a hub ---- */

/*
 * A QEMU that is killed and started again at the same addresses is reached
 * again; in between, frames are dropped.
 */
static void qemu_comes_back(void)
{
    struct qemu qemu;
    struct port port;
    int round;

    need("user");
    need(type_of(kind_now));
    qemu_init(&qemu);
    qemu_netdev(&qemu, "user");
    port_prepare(&port, kind_now, &qemu);
    for (round = 0; round < 3; round++) {
        uint64_t taken, dropped;

        qemu_run(&qemu);
        find_router(port.conn, &qemu);
        qemu_end(&qemu, SIGKILL);
        CHECK_INT(qnet_wait(port.conn, 10), QNET_ERR_TIMEOUT);
        CHECK_INT(qnet_close_reason(port.conn), QNET_OK);
        dropped = stats_of(port.conn).tx_dropped;
        taken = dropped + stats_of(port.conn).tx_frames;
        ask_for_router(port.conn);
        CHECK_INT(stats_of(port.conn).tx_frames + stats_of(port.conn).tx_dropped, taken + 1);
        if (kind_now->how == DATAGRAMS)
            EVENTUALLY(stats_of(port.conn).tx_dropped == dropped + 1);
    }
    qemu_forget_arguments(&qemu);
    CHECK_INT(qnet_close(port.conn), QNET_OK);
}

/* Finds a kind by its name. */
static const struct netdev_kind *kind_of(const char *name)
{
    int i;

    for (i = 0; i < NETDEV_KINDS; i++)
        if (strcmp(netdev_kinds[i].name, name) == 0)
            return &netdev_kinds[i];
    CHECK(!"a kind of that name");
    return NULL;
}

/*
 * One QEMU has a router in it, which this side finds through another QEMU and a
 * hub between them.
 */
static void qemus_talk(const struct netdev_kind *near, const struct netdev_kind *far)
{
    struct port asking, left, right;
    struct qemu a, b;
    qnet_hub *hub;

    need("user");
    need(type_of(near));
    need(type_of(far));
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    qemu_init(&a);
    port_prepare(&asking, &netdev_kinds[INHERITED_KIND], &a);
    port_prepare(&left, near, &a);
    qemu_init(&b);
    qemu_netdev(&b, "user");
    port_prepare(&right, far, &b);
    qemu_start(&a);
    qemu_start(&b);
    port_join(&asking, &a);
    port_join(&left, &a);
    port_join(&right, &b);
    CHECK_INT(qnet_hub_attach(hub, left.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, right.conn), QNET_OK);
    find_router(asking.conn, &b);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(asking.conn), QNET_OK);
    CHECK_INT(qnet_close(left.conn), QNET_OK);
    CHECK_INT(qnet_close(right.conn), QNET_OK);
    qemu_end(&a, SIGTERM);
    qemu_end(&b, SIGTERM);
}

static void qemus_talk_through_a_hub(void)
{
    qemus_talk(kind_of("dgram, udp"), kind_of("dgram, unix"));
    qemus_talk(kind_of("as the library says, unixgram"), kind_of("stream client, unix"));
    qemus_talk(kind_of("socket listen, tcp"), kind_of("as the library says, udp, before 7.2"));
    qemus_talk(kind_of("dgram fd, seqpacket"), kind_of("dgram, multicast"));
}

/* This side learns QEMU's address from QEMU's first frame. */
static void qemu_names_itself(void)
{
    static const int versions[] = { THIS, BEFORE_STREAM };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct port asking;
        struct qemu qemu;
        char text[TEXT];
        qnet_conn *conn;

        need(versions[i] == THIS ? "dgram" : "socket");
        CHECK_INT(qnet_dgram("udp", ":0", NULL, &conn), QNET_OK);
        qemu_init(&qemu);
        port_prepare(&asking, &netdev_kinds[INHERITED_KIND], &qemu);
        qemu_netdev_of_conn(&qemu, conn, versions[i] == THIS ? qemu_version : versions[i]);
        qemu_start(&qemu);
        port_join(&asking, &qemu);
        CHECK_INT(qnet_peer_addr(conn, text, sizeof text), 0);
        pass_marker(&qemu, asking.conn, conn);
        CHECK(qnet_peer_addr(conn, text, sizeof text) > 0);
        pass_marker(&qemu, conn, asking.conn);
        CHECK_INT(stats_of(conn).rx_foreign, 0);
        CHECK_INT(qnet_close(asking.conn), QNET_OK);
        CHECK_INT(qnet_close(conn), QNET_OK);
        qemu_end(&qemu, SIGTERM);
    }
}

/* Sets of kinds. */
enum { DIALLED_ONES = 1 << DIALLED, ACCEPTED_ONES = 1 << ACCEPTED,
       DATAGRAM_ONES = 1 << DATAGRAMS, GROUPS = 1 << GROUP,
       THOSE_THAT_END = 1 << DIALLED | 1 << ACCEPTED | 1 << INHERITED,
       BUT_GROUPS = THOSE_THAT_END | DATAGRAM_ONES | 1 << MESSAGES, EVERY_KIND = BUT_GROUPS | GROUPS };

/* Runs a test for every kind of netdev of a set. */
static void run_kinds(const char *name, void (*test)(void), int set)
{
    int i;

    for (i = 0; i < NETDEV_KINDS; i++) {
        kind_now = &netdev_kinds[i];
        if (!(set & 1 << kind_now->how) &&
            !(set == THOSE_THAT_END && kind_now->type == SOCK_SEQPACKET))
            continue;
        run_with(name, kind_now->name, test);
    }
}
#define RUN_KINDS(test, set) run_kinds(#test, test, set)

int main(void)
{
    learn_about_qemu();
    scratch_make();
    RUN_KINDS(frames_of_every_size, BUT_GROUPS);
    RUN_KINDS(frames_of_every_size_in_a_group, GROUPS);
    RUN_KINDS(many_frames_both_ways, BUT_GROUPS);
    RUN_KINDS(leaving_qemu_is_seen, THOSE_THAT_END);
    RUN_KINDS(a_restarted_qemu_is_found, DIALLED_ONES);
    RUN_KINDS(a_restarted_program_is_found, ACCEPTED_ONES);
    RUN_KINDS(next_connection_works, DIALLED_ONES);
    RUN_KINDS(router_answers, EVERY_KIND);
    RUN_KINDS(qemu_comes_back, DATAGRAM_ONES | GROUPS);
    RUN(qemus_talk_through_a_hub);
    RUN(qemu_names_itself);
    scratch_remove();
    return check_done();
}
