/*
 * qemu.c - against a real QEMU, which runs here without a machine: what goes
 * into one of its netdevs comes out of the other, which a hub joins to it.
 *
 * Skipped without QEMU, or failed if QNET_REQUIRE_QEMU=1.
 */
#include "qemu.h"

/* ---- Its netdevs ---- */

enum how { DIALLED, ACCEPTED, INHERITED };
enum part { WHOLE, PORT, NAME }; /* of an address, for QEMU */

struct netdev_kind {
    const char *name;
    const char *format; /* NULL: what qnet_listener_netdev() says, */
    int version;        /* for this version */
    enum how how;
    const char *network;
    enum part part;
};

static const struct netdev_kind netdev_kinds[] = {
    { "socket listen, tcp", "socket,listen=%s", 0, DIALLED, "tcp", WHOLE },
    { "socket connect, tcp", "socket,connect=%s", 0, ACCEPTED, "tcp", WHOLE },
    { "socket fd", "socket,fd=%s", 0, INHERITED, NULL, WHOLE },
    { "stream server, unix", "stream,server=on,addr.type=unix,addr.path=%s", 0, DIALLED, "unix",
      WHOLE },
    { "stream client, unix", "stream,server=off,addr.type=unix,addr.path=%s", 0, ACCEPTED, "unix",
      WHOLE },
    { "stream server, unix abstract",
      "stream,server=on,addr.type=unix,addr.abstract=on,addr.tight=on,addr.path=%s", 0, DIALLED,
      "unix", NAME },
    { "stream client, unix abstract",
      "stream,server=off,addr.type=unix,addr.abstract=on,addr.tight=on,addr.path=%s", 0, ACCEPTED,
      "unix", NAME },
    { "stream server, tcp", "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 0,
      DIALLED, "tcp", PORT },
    { "stream client, tcp", "stream,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 0,
      ACCEPTED, "tcp", PORT },
    { "stream fd", "stream,addr.type=fd,addr.str=%s", 0, INHERITED, NULL, WHOLE },
    { "as the library says, tcp", NULL, 702, ACCEPTED, "tcp", WHOLE },
    { "as the library says, tcp, before 7.2", NULL, 701, ACCEPTED, "tcp", WHOLE },
    { "as the library says, unix", NULL, 702, ACCEPTED, "unix", WHOLE },
    { "as the library says, unix abstract", NULL, 702, ACCEPTED, "unix", NAME },
};
enum { NETDEV_KINDS = sizeof netdev_kinds / sizeof *netdev_kinds };

/* The kind that the running test is about. */
static const struct netdev_kind *kind_now;

/* A netdev of a QEMU and this side of it. */
struct port {
    const struct netdev_kind *kind;
    char address[TEXT];
    qnet_listener *listener;
    qnet_conn *conn;
    int fd;
};

static void choose_address(struct port *port)
{
    static int chosen;
    char name[16];

    chosen++;
    snprintf(name, sizeof name, "n%d", chosen);
    if (strcmp(port->kind->network, "tcp") == 0)
        free_tcp_address(port->address, sizeof port->address);
    else
        snprintf(port->address, sizeof port->address, "%s",
                 port->kind->part == NAME ? scratch_abstract(name) : scratch_path(name));
}

static const char *address_for_qemu(const struct port *port)
{
    if (port->kind->part == PORT)
        return strrchr(port->address, ':') + 1;
    return port->kind->part == NAME ? port->address + 1 : port->address;
}

/* Before QEMU starts: listens for it, or makes the socket that it inherits. */
static void port_prepare(struct port *port, const struct netdev_kind *kind, struct qemu *qemu)
{
    char netdev[TEXT + 100];

    memset(port, 0, sizeof *port);
    port->kind = kind;
    port->fd = -1;
    if (kind->how == INHERITED) {
        port->conn = raw_pair(&port->fd);
        CHECK(fcntl(port->fd, F_SETFD, 0) == 0);
        snprintf(port->address, sizeof port->address, "%d", port->fd);
    } else {
        choose_address(port);
    }
    if (kind->how == ACCEPTED)
        CHECK_INT(qnet_listen(kind->network, port->address, &port->listener), QNET_OK);
    if (kind->format == NULL) {
        qemu_netdev_of(qemu, port->listener, kind->version);
        return;
    }
    snprintf(netdev, sizeof netdev, kind->format, address_for_qemu(port));
    qemu_netdev(qemu, netdev);
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

/* Once QEMU was started. */
static void port_join(struct port *port, struct qemu *qemu)
{
    if (port->kind->how == DIALLED)
        port_dial(port, qemu);
    if (port->kind->how == ACCEPTED) {
        CHECK_INT(qnet_accept(port->listener, patience_ms(), &port->conn), QNET_OK);
        CHECK_INT(qnet_listener_close(port->listener), QNET_OK);
    }
    if (port->kind->how == INHERITED)
        close(port->fd);
    CHECK_INT(qnet_set(port->conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(port->conn, QNET_OPT_SEND_TIMEOUT_MS, patience_ms()), QNET_OK);
}

/* A frame that tells itself from those that are still on their way, and from earlier ones. */
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

/* Sends one after another until it arrives, for a netdev that has no peer yet loses frames. */
static void pass_marker(qnet_conn *from, qnet_conn *to)
{
    static unsigned number = 1000000;
    long long until_ms = raw_now_ms() + patience_ms();

    do {
        CHECK(raw_now_ms() < until_ms);
        send_marker(from, ++number);
    } while (!receive_marker(to, number));
}

/* A QEMU with two netdevs of a kind. */
struct bridge {
    struct qemu qemu;
    struct port port[2];
};

static int is_stream(const struct netdev_kind *kind)
{
    return kind->format ? strncmp(kind->format, "stream", 6) == 0 : kind->version >= 702;
}

/* Ready to be used: QEMU has joined both. */
static void bridge_start(struct bridge *bridge, const struct netdev_kind *kind)
{
    int i;

    need(is_stream(kind) ? "stream" : "socket");
    qemu_init(&bridge->qemu);
    for (i = 0; i < 2; i++)
        port_prepare(&bridge->port[i], kind, &bridge->qemu);
    qemu_start(&bridge->qemu);
    for (i = 0; i < 2; i++)
        port_join(&bridge->port[i], &bridge->qemu);
    for (i = 0; i < 2; i++)
        pass_marker(bridge->port[i].conn, bridge->port[1 - i].conn);
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

/* Frames of every size by every way to send, out of the other netdev as they went in. */
static void exchange(qnet_conn *from, qnet_conn *to, int receive_way)
{
    struct flow sent = flow_of_all_sizes(), seen = sent;
    struct taker taker;
    int way;

    taker_start(&taker, to, receive_way, flow_each, &seen);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(flow_send(&sent, from, way, ALL_SIZES), ALL_SIZES);
        taker_want(&taker, sent.next);
    }
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
            exchange(bridge.port[back].conn, bridge.port[1 - back].conn, way);
    qnet_set_close_handler(bridge.port[0].conn, NULL, NULL);
    qnet_set_close_handler(bridge.port[1].conn, NULL, NULL);
    bridge_end(&bridge);
}

/*
 * Both directions at once, nothing lost and all in order. Never so many on
 * their way that a socket is full: after that, QEMU's hub lets frames overtake.
 */
static void many_frames_both_ways(void)
{
    enum { AT_ONCE = 70 };
    struct bridge bridge;
    struct flow sent[2], seen[2];
    struct taker takers[2];
    unsigned total = AT_ONCE * (unsigned)rounds(200);
    int i;

    bridge_start(&bridge, kind_now);
    for (i = 0; i < 2; i++) {
        sent[i] = seen[i] = flow_of_small_frames();
        taker_start(&takers[i], bridge.port[i].conn, BY_HANDLER + i, flow_each, &seen[i]);
    }
    while (sent[1].next < total) {
        for (i = 0; i < 2; i++)
            CHECK_INT(flow_send(&sent[i], bridge.port[i].conn, 1 + i, AT_ONCE), AT_ONCE);
        for (i = 0; i < 2; i++)
            EVENTUALLY(taker_count(&takers[i]) + AT_ONCE >= sent[1 - i].next);
    }
    for (i = 0; i < 2; i++)
        taker_want(&takers[i], total);
    bridge_end(&bridge);
}

/* QEMU's end is an end in order, for the pulled connection and for the handled one. */
static void leaving_qemu_is_seen(void)
{
    static const int signals[] = { SIGTERM, SIGKILL };
    struct bridge bridge;
    struct flow sent, seen[2];
    struct taker takers[2];
    int i, s;

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
            CHECK_INT(taker_end(&takers[i]), QNET_ERR_CLOSED);
            taker_close(&takers[i]);
        }
    }
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
            pass_marker(bridge.port[0].conn, port->conn);
            pass_marker(port->conn, bridge.port[0].conn);
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

static void router_answers(void)
{
    uint8_t frame[2048];
    struct qemu qemu;
    struct port port;
    int len;

    need("user");
    need(is_stream(kind_now) ? "stream" : "socket");
    qemu_init(&qemu);
    qemu_netdev(&qemu, "user");
    port_prepare(&port, kind_now, &qemu);
    qemu_start(&qemu);
    port_join(&port, &qemu);
    ask_for_router(port.conn);
    do {
        len = qnet_recv(port.conn, frame, sizeof frame, patience_ms());
        CHECK(len > 0);
    } while (!is_routers_answer(frame, len));
    CHECK_INT(qnet_close(port.conn), QNET_OK);
    qemu_end(&qemu, SIGTERM);
}

/* Runs a test for every kind of netdev, or only for those that can be dialled again. */
static void run_kinds(const char *name, void (*test)(void), int only_dialled)
{
    int i;

    for (i = 0; i < NETDEV_KINDS; i++) {
        char full[120];

        kind_now = &netdev_kinds[i];
        if (only_dialled && kind_now->how != DIALLED)
            continue;
        snprintf(full, sizeof full, "%s (%s)", name, kind_now->name);
        run(full, test);
    }
}
#define RUN_KINDS(test, only_dialled) run_kinds(#test, test, only_dialled)

int main(void)
{
    learn_netdev_types();
    scratch_make();
    RUN_KINDS(frames_of_every_size, 0);
    RUN_KINDS(many_frames_both_ways, 0);
    RUN_KINDS(leaving_qemu_is_seen, 0);
    RUN_KINDS(next_connection_works, 1);
    RUN_KINDS(router_answers, 0);
    scratch_remove();
    return check_done();
}
