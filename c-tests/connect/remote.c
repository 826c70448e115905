/*
 * remote.c - the remote of a datagram connection: what strangers send is counted, not
 * delivered; and a connection that is made without a remote learns it from the first
 * sender.
 */
#include "far.h"

static void check_peer(qnet_conn *conn, const char *want)
{
    char text[200];
    int len = qnet_peer_addr(conn, text, sizeof text);

    if (!same_text(text, len, want))
        fprintf(stderr, "got '%s' (%d), want '%s'\n", len >= 0 ? text : "", len, want);
    CHECK(same_text(text, len, want));
}

/* Sends the frame of that number from a plain socket to the library. */
static void plain_sends(int fd, const struct far *far, unsigned number)
{
    uint8_t frame[77];

    frame_make(frame, sizeof frame, number);
    CHECK_INT(sendto(fd, frame, sizeof frame, MSG_NOSIGNAL, (const struct sockaddr *)&far->to,
                     far->to_len), sizeof frame);
}

static void conn_hears(qnet_conn *conn, unsigned number)
{
    uint8_t frame[100];

    CHECK_INT(qnet_recv(conn, frame, sizeof frame, patience_ms()), 77);
    CHECK_INT(frame_number(frame, 77), number);
}

static void conn_hears_nothing(qnet_conn *conn)
{
    uint8_t frame[100];

    CHECK_INT(qnet_recv(conn, frame, sizeof frame, 0), QNET_ERR_AGAIN);
}

static void conn_sends(qnet_conn *conn, unsigned number)
{
    uint8_t frame[77];

    frame_make(frame, sizeof frame, number);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
}

static void plain_hears(int fd, unsigned number)
{
    uint8_t frame[100];

    CHECK(raw_readable(fd, patience_ms()));
    CHECK_INT(recv(fd, frame, sizeof frame, MSG_DONTWAIT), 77);
    CHECK_INT(frame_number(frame, 77), number);
}

static void plain_hears_nothing(int fd)
{
    uint8_t byte;

    CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

/* ---- Strangers ---- */

/* Makes another plain socket of the kind, which is not the remote. */
static int a_stranger(struct far *far)
{
    char text[200];

    if (far_now->set & UDP)
        return far_udp_at(far_now->family, 0, text, sizeof text);
    snprintf(text, sizeof text, "%s+", far->far_text);
    if (text[0] == '/')
        unlink(text);
    return far_unix_at(text);
}

/* Strangers' frames are counted and the remote's delivered, whichever way frames are received. */
static void strangers_are_counted(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);
        int stranger = a_stranger(&far);
        unsigned i;

        taker_start(&taker, conn, way, flow_each, &seen);
        for (i = 1; i <= 20; i++) {
            plain_sends(stranger, &far, i);
            plain_sends(stranger, &far, i);
            far_send_flow(&far, &sent, 3);
            taker_want(&taker, 3 * i);
            EVENTUALLY(stats_of(conn).rx_foreign == 2 * i);
        }
        CHECK_INT(stats_of(conn).rx_frames, 60);
        CHECK_INT(stats_of(conn).rx_runts, 0);
        taker_close(&taker);
        CHECK(close(stranger) == 0);
        far_leaves(&far);
    }
}

static void strangers_of_a_port_are_counted(void)
{
    struct device device;
    struct far far;
    qnet_conn *conn = far_open(&far);
    int stranger = a_stranger(&far), i;
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (i = 0; i < 10; i++)
        plain_sends(stranger, &far, (unsigned)i);
    EVENTUALLY(stats_of(conn).rx_foreign == 10);
    CHECK_INT(stats_of(conn).rx_frames, 0);
    CHECK(!raw_readable(device.fd, 0));
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    CHECK(close(stranger) == 0);
    far_close(conn, &far);
}

/* A sender at the remote's port is a stranger if its address is another. */
static void another_address_of_the_same_port(void)
{
    char port_text[160], remote[40];
    struct far far;
    qnet_conn *conn;
    int i;

    far_init(&far, far_udp_at(AF_INET, 0, port_text, sizeof port_text));
    snprintf(remote, sizeof remote, "127.0.0.2:%d", port_in(port_text));
    conn = far_dgram("udp", "0.0.0.0:0", remote);
    far_finds(&far, conn, AF_INET);
    for (i = 0; i < 10; i++)
        plain_sends(far.fd, &far, (unsigned)i);
    EVENTUALLY(stats_of(conn).rx_foreign == 10);
    conn_hears_nothing(conn);
    CHECK_INT(stats_of(conn).rx_frames, 0);
    far_close(conn, &far);
}

/* An adopted socket is connected already: the system keeps strangers out, and none is counted. */
static void none_reach_an_adopted_socket(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);
    int stranger = a_stranger(&far);

    plain_sends(stranger, &far, 1);
    plain_sends(far.fd, &far, 2);
    conn_hears(conn, 2);
    CHECK_INT(stats_of(conn).rx_foreign, 0);
    CHECK(close(stranger) == 0);
    far_close(conn, &far);
}

/* No other socket gets the address, neither through the library nor by offering to share it. */
static void the_address_stays_taken(void)
{
    struct sockaddr_storage address;
    int fd, yes = 1, round;
    socklen_t len;
    struct far far;
    qnet_conn *conn = far_open(&far), *other;

    far_loopback(&address, &len, far_now->family, port_in(far.near_text));
    fd = far_socket(far_now->family);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, len) < 0 && errno == EADDRINUSE);
    CHECK(close(fd) == 0);
    CHECK_INT(qnet_dgram(far_now->network, far.near_text, far.far_text, &other), QNET_ERR_BUSY);
    for (round = 0; round < 50; round++) { /* the address is free again at once after a close */
        CHECK_INT(qnet_close(conn), QNET_OK);
        conn = far_dgram(far_now->network, far.near_text, far.far_text);
    }
    plain_sends(far.fd, &far, 3);
    conn_hears(conn, 3);
    far_close(conn, &far);
}

/* ---- A remote that is learned ---- */

/* A connection that is made without a remote, and two plain sockets that know its address. */
struct two {
    qnet_conn *conn;
    struct far one, other;
};

static void two_open(struct two *two)
{
    const char *local = far_now->family == AF_INET ? "127.0.0.1:0" : "[::1]:0";

    memset(two, 0, sizeof *two);
    if (far_now->set & UDP) {
        two->one.fd = far_udp_at(far_now->family, 0, two->one.far_text, sizeof two->one.far_text);
        two->other.fd = far_udp_at(far_now->family, 0, two->other.far_text, sizeof two->other.far_text);
        two->conn = far_dgram(far_now->network, local, NULL);
        far_finds(&two->one, two->conn, far_now->family);
    } else {
        far_names(far_now, &two->other);
        far_names(far_now, &two->one);
        two->one.fd = far_unix_at(two->one.far_text);
        two->other.fd = far_unix_at(two->other.far_text);
        two->conn = far_dgram("unixgram", two->one.near_text, NULL);
        two->one.to_len = raw_unix_address(two->one.near_text, (struct sockaddr_un *)&two->one.to);
    }
    two->one.out = two->one.fd;
    two->other.out = two->other.fd;
    two->other.to = two->one.to;
    two->other.to_len = two->one.to_len;
}

static void two_close(struct two *two)
{
    far_close(two->conn, &two->one);
    far_leaves(&two->other);
}

/* Frames that are sent before there is a remote are taken, dropped and counted. */
static void sends_before_the_first_sender(void)
{
    static const size_t size = 60;
    struct two two;
    int way;

    two_open(&two);
    check_peer(two.conn, "");
    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct flow flow = flow_of_one_size(&size);

        CHECK_INT(flow_send(&flow, two.conn, way, 70), 70);
    }
    CHECK_INT(qnet_flush(two.conn), QNET_OK);
    CHECK_INT(stats_of(two.conn).tx_dropped, 70 * WAYS_TO_SEND);
    CHECK_INT(stats_of(two.conn).tx_frames, 0);
    plain_hears_nothing(two.one.fd);
    two_close(&two);
}

static void the_first_sender_is_the_remote(void)
{
    struct two two;

    two_open(&two);
    conn_sends(two.conn, 1);
    plain_sends(two.one.fd, &two.one, 2);
    conn_hears(two.conn, 2);
    check_peer(two.conn, two.one.far_text);
    conn_sends(two.conn, 3);
    plain_hears(two.one.fd, 3);
    plain_sends(two.other.fd, &two.other, 4);
    conn_hears_nothing(two.conn);
    CHECK_INT(stats_of(two.conn).rx_foreign, 1);
    check_peer(two.conn, two.one.far_text);
    plain_sends(two.one.fd, &two.one, 5);
    conn_hears(two.conn, 5);
    conn_sends(two.conn, 6);
    plain_hears(two.one.fd, 6);
    plain_hears_nothing(two.other.fd);
    CHECK_INT(stats_of(two.conn).tx_dropped, 1);
    two_close(&two);
}

/* Frames of two senders arrive at once, those of a stranger among those of the remote. */
static void two_send_at_once(void)
{
    struct two two;

    two_open(&two);
    plain_sends(two.one.fd, &two.one, 1);
    plain_sends(two.other.fd, &two.other, 2);
    plain_sends(two.one.fd, &two.one, 3);
    conn_hears(two.conn, 1);
    conn_hears(two.conn, 3);
    CHECK_INT(stats_of(two.conn).rx_foreign, 1);
    CHECK_INT(qnet_set(two.conn, QNET_OPT_RELEARN, 1), QNET_OK);
    plain_sends(two.one.fd, &two.one, 4);
    plain_sends(two.other.fd, &two.other, 5);
    conn_hears(two.conn, 4);
    conn_hears(two.conn, 5);
    CHECK_INT(stats_of(two.conn).rx_foreign, 1);
    check_peer(two.conn, two.other.far_text);
    two_close(&two);
}

/* Strangers that send without end, each on a thread. */
enum { FLOODERS = 8, FLOOD = 64 };

struct flooder {
    pthread_t thread;
    struct two *two;
    int fd, *is_over;
};

static void *floods(void *argument)
{
    struct flooder *flooder = argument;
    struct mmsghdr messages[FLOOD];
    uint8_t frame[60] = { 0 };
    struct iovec piece = { frame, sizeof frame };
    int i;

    memset(messages, 0, sizeof messages);
    for (i = 0; i < FLOOD; i++) {
        messages[i].msg_hdr.msg_name = &flooder->two->one.to;
        messages[i].msg_hdr.msg_namelen = flooder->two->one.to_len;
        messages[i].msg_hdr.msg_iov = &piece;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    while (!__atomic_load_n(flooder->is_over, __ATOMIC_RELAXED))
        sendmmsg(flooder->fd, messages, FLOOD, MSG_NOSIGNAL | MSG_DONTWAIT);
    return NULL;
}

/* Strangers' frames, however many, keep no call longer than its timeout. */
static void a_flood_of_strangers(void)
{
    struct flooder flooders[FLOODERS];
    struct two two;
    uint8_t frame[100];
    int i, is_over = 0;

    two_open(&two);
    plain_sends(two.one.fd, &two.one, 1);
    conn_hears(two.conn, 1);
    for (i = 0; i < FLOODERS; i++) {
        int fd = far_socket(far_now->family);

        if (far_now->set & NAMED)
            CHECK(bind(fd, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        flooders[i].two = &two;
        flooders[i].fd = fd;
        flooders[i].is_over = &is_over;
        start_thread(&flooders[i].thread, floods, &flooders[i]);
    }
    EVENTUALLY(stats_of(two.conn).rx_foreign > 0 ||
               qnet_recv(two.conn, frame, sizeof frame, 0) == QNET_ERR_AGAIN);
    for (i = 0; i < 5; i++) {
        CHECK_INT(qnet_recv(two.conn, frame, sizeof frame, 0), QNET_ERR_AGAIN);
        CHECK_INT(qnet_recv(two.conn, frame, sizeof frame, 1), QNET_ERR_TIMEOUT);
    }
    CHECK_INT(qnet_close(two.conn), QNET_OK);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
    for (i = 0; i < FLOODERS; i++) {
        join_thread(flooders[i].thread);
        CHECK(close(flooders[i].fd) == 0);
    }
    far_leaves(&two.one);
    far_leaves(&two.other);
}

static void a_newer_sender_takes_its_place(void)
{
    int64_t value = -1;
    struct two two;
    unsigned i;

    two_open(&two);
    CHECK_INT(qnet_get(two.conn, QNET_OPT_RELEARN, &value), QNET_OK);
    CHECK_INT(value, 0);
    CHECK_INT(qnet_set(two.conn, QNET_OPT_RELEARN, 2), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(two.conn, QNET_OPT_RELEARN, 1), QNET_OK);
    for (i = 0; i < 10; i++) {
        struct far *far = i % 2 ? &two.other : &two.one;

        plain_sends(far->fd, far, i);
        conn_hears(two.conn, i);
        check_peer(two.conn, far->far_text);
        conn_sends(two.conn, 100 + i);
        plain_hears(far->fd, 100 + i);
    }
    CHECK_INT(qnet_set(two.conn, QNET_OPT_RELEARN, 0), QNET_OK);
    plain_sends(two.one.fd, &two.one, 50); /* the other stays the remote */
    conn_hears_nothing(two.conn);
    check_peer(two.conn, two.other.far_text);
    CHECK_INT(stats_of(two.conn).rx_foreign, 1);
    CHECK_INT(stats_of(two.conn).tx_dropped, 0);
    two_close(&two);
}

/*
 * Once its remote was full, a connection sends through a second socket, connected to that
 * one. After the remote has changed, nothing must go there.
 */
static void a_full_remote_is_replaced(void)
{
    static const size_t size = 60;
    struct flow sent = flow_of_one_size(&size);
    struct two two;

    two_open(&two);
    CHECK_INT(qnet_set(two.conn, QNET_OPT_RELEARN, 1), QNET_OK);
    plain_sends(two.one.fd, &two.one, 1);
    conn_hears(two.conn, 1);
    CHECK_INT(qnet_set(two.conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(&sent, two.conn, 0, 1) == 1 || flow_send(&sent, two.conn, 0, 1) == 1)
        ;
    plain_sends(two.other.fd, &two.other, 2);
    conn_hears(two.conn, 2);
    conn_sends(two.conn, 3);
    plain_hears(two.other.fd, 3);
    two_close(&two);
}

/* A remote is learned from a message that is no frame, too: this is vfkit's first one. */
static void a_greeting_is_enough(void)
{
    struct two two;

    two_open(&two);
    CHECK_INT(far_try(&two.one, "VFKT", 4, 0), 4);
    conn_hears_nothing(two.conn);
    check_peer(two.conn, two.one.far_text);
    conn_sends(two.conn, 1);
    plain_hears(two.one.fd, 1);
    CHECK_INT(stats_of(two.conn).rx_frames, 0);
    CHECK_INT(stats_of(two.conn).rx_foreign, 0);
    two_close(&two);
}

/* A learned remote may leave and come back, as one that was given may. */
static void it_comes_and_goes(void)
{
    struct two two;
    unsigned i;

    two_open(&two);
    plain_sends(two.one.fd, &two.one, 1);
    conn_hears(two.conn, 1);
    far_leaves(&two.one);
    for (i = 0; i < 10; i++)
        conn_sends(two.conn, i);
    EVENTUALLY(stats_of(two.conn).tx_dropped == 10);
    CHECK_INT(stats_of(two.conn).tx_frames, 0);
    far_comes(&two.one);
    conn_sends(two.conn, 20);
    plain_hears(two.one.fd, 20);
    plain_sends(two.one.fd, &two.one, 21);
    conn_hears(two.conn, 21);
    two_close(&two);
}

/* A sender without a name cannot be answered, and does not become the remote. */
static void nobody_can_be_no_remote(void)
{
    struct two two;
    int nameless = far_socket(AF_UNIX);

    two_open(&two);
    plain_sends(nameless, &two.one, 1);
    conn_hears_nothing(two.conn);
    CHECK_INT(stats_of(two.conn).rx_foreign, 1);
    check_peer(two.conn, "");
    plain_sends(two.one.fd, &two.one, 2);
    conn_hears(two.conn, 2);
    CHECK(close(nameless) == 0);
    two_close(&two);
}

/* A hub's port learns its remote, and then passes frames of many sizes both ways. */
static void a_port_learns_its_remote(void)
{
    struct device device;
    struct two two;
    struct word word = { 0 };
    qnet_hub *hub;

    two_open(&two);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, two.conn), QNET_OK);
    device_says(&device, EVERYBODY, 60);
    EVENTUALLY(stats_of(two.conn).tx_dropped == 1);
    word.from = 2;
    word.to = EVERYBODY;
    for (word.len = 60; word.len < 9000; word.len += 800, word.number++) {
        far_says(&two.one, word);
        CHECK_INT(raw_hear(device.fd).number, word.number);
        device_says(&device, 2, word.len);
        CHECK_INT(far_hears(&two.one).number, device.said - 1);
    }
    CHECK_INT(stats_of(two.conn).tx_dropped, 1);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    two_close(&two);
}

static void check_relearn_is_not_for(qnet_conn *conn)
{
    int64_t value;

    CHECK_INT(qnet_set(conn, QNET_OPT_RELEARN, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_get(conn, QNET_OPT_RELEARN, &value), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void not_for_others(void)
{
    static const int64_t options[] = { QNET_OPT_RELEARN, 1 };
    qnet_listener *listener;
    qnet_conn *a, *b;
    qnet_hub *hub;
    size_t i;

    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    check_relearn_is_not_for(a);
    check_relearn_is_not_for(b);
    for (i = 0; i < FAR_KINDS; i++) {
        struct far far;

        if (far_kinds[i].family == AF_INET6 && !ipv6_here())
            continue;
        check_relearn_is_not_for(far_open_kind(&far_kinds[i], &far));
        far_leaves(&far);
    }
    CHECK_INT(qnet_listen("unix", scratch_path("listener"), &listener), QNET_OK);
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_RELEARN, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_dial_with("unix", scratch_path("listener"), options, 1, &a), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_set(hub, QNET_OPT_RELEARN, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_dgram("mcast", "127.0.0.1", NULL, &a), QNET_ERR_INVALID);
    CHECK(a == NULL);
}

/* Runs a test for each kind in `set` that qnet_dgram() makes. */
static void run_made(const char *name, void (*test)(void), int set)
{
    for (far_now = far_kinds; far_now < far_kinds + FAR_KINDS; far_now++)
        if (far_now->set & set && (far_now->network || far_now->set & NAMED))
            run_with(name, far_now->name, test);
}
#define RUN_MADE(test, set) run_made(#test, test, set)

int main(void)
{
    scratch_make();
    RUN_MADE(strangers_are_counted, UDP | NAMED);
    RUN_MADE(strangers_of_a_port_are_counted, UDP | NAMED);
    RUN(another_address_of_the_same_port);
    far_now = &far_kinds[2];
    RUN(none_reach_an_adopted_socket);
    RUN_MADE(the_address_stays_taken, UDP);
    RUN_MADE(sends_before_the_first_sender, UDP | NAMED);
    RUN_MADE(the_first_sender_is_the_remote, UDP | NAMED);
    RUN_MADE(two_send_at_once, UDP | NAMED);
    RUN_MADE(a_flood_of_strangers, UDP | NAMED);
    RUN_MADE(a_newer_sender_takes_its_place, UDP | NAMED);
    RUN_MADE(a_full_remote_is_replaced, NAMED);
    RUN_MADE(a_greeting_is_enough, UDP | NAMED);
    RUN_MADE(it_comes_and_goes, UDP | NAMED);
    RUN_MADE(nobody_can_be_no_remote, NAMED);
    RUN_MADE(a_port_learns_its_remote, UDP | NAMED);
    RUN(not_for_others);
    scratch_remove();
    return check_done();
}
