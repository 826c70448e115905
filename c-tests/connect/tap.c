/*
 * tap.c - the kernel's TAP interfaces, with packet sockets at their other end. Each test
 * has a network namespace of its own. Without the right to make these a test is skipped,
 * or fails if QNET_REQUIRE_TAP=1.
 */
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>

#include "far.h"

enum { MTU = 1500, MTU_MOST = 65521 };

/* ---- Interfaces ---- */

static void without(const char *what)
{
    const char *require = getenv("QNET_REQUIRE_TAP");

    if (require && strcmp(require, "1") == 0)
        check_fail(__FILE__, __LINE__, what);
    check_skip(what);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return; /* this kernel has no such setting */
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* Enters a namespace with only the loopback interface, where the kernel sends nothing unasked. */
static void enter_namespace(void)
{
    if (access("/dev/net/tun", R_OK | W_OK) != 0)
        without("no right to /dev/net/tun");
    if (unshare(CLONE_NEWNET) != 0)
        without("no right to make a network namespace");
    write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

static struct ifreq request_of(const char *name)
{
    struct ifreq request;

    memset(&request, 0, sizeof request);
    CHECK(strlen(name) < sizeof request.ifr_name);
    memcpy(request.ifr_name, name, strlen(name));
    return request;
}

static void control(unsigned long call, struct ifreq *request)
{
    int fd = far_socket(AF_INET);

    CHECK(ioctl(fd, call, request) == 0);
    close(fd);
}

static void set_up(const char *name, int is_up)
{
    struct ifreq request = request_of(name);

    control(SIOCGIFFLAGS, &request);
    request.ifr_flags = (short)(is_up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    control(SIOCSIFFLAGS, &request);
}

static void set_mtu(const char *name, int mtu)
{
    struct ifreq request = request_of(name);

    request.ifr_mtu = mtu;
    control(SIOCSIFMTU, &request);
}

/* Deletes an interface, whoever has it open. */
static void delete_interface(const char *name)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg interface;
    } message;
    char answer[1000];
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    CHECK(fd >= 0);
    memset(&message, 0, sizeof message);
    message.header.nlmsg_len = sizeof message;
    message.header.nlmsg_type = RTM_DELLINK;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message.interface.ifi_index = (int)if_nametoindex(name);
    CHECK(message.interface.ifi_index > 0);
    CHECK(send(fd, &message, sizeof message, 0) == sizeof message);
    CHECK(recv(fd, answer, sizeof answer, 0) > 0);
    CHECK_INT(if_nametoindex(name), 0);
    close(fd);
}

/* Opens a TUN or TAP of that name, or of one that the system chooses and `named` gets. */
static int plain_tun(const char *name, int flags, char *named)
{
    struct ifreq request = request_of(name);
    int fd = open("/dev/net/tun", O_RDWR);

    CHECK(fd >= 0);
    request.ifr_flags = (short)flags;
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0);
    if (named)
        memcpy(named, request.ifr_name, IFNAMSIZ);
    return fd;
}

/* A packet socket that receives what comes in on an interface, and not what goes out. */
static void far_on(struct far *far, const char *name)
{
    struct sockaddr_ll address;
    int yes = 1;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    memset(&address, 0, sizeof address);
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = (int)if_nametoindex(name);
    CHECK(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    far_init(far, fd);
    far_buffers(fd);
}

static qnet_conn *tap_named(const char *name)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_tap(name, &conn), QNET_OK);
    CHECK(conn != NULL);
    return conn;
}

/* Opens a TAP of that name, brings it up and opens a packet socket on it. */
static qnet_conn *tap_open(const char *name, struct far *far, int mtu)
{
    qnet_conn *conn = tap_named(name);

    set_mtu(name, mtu);
    set_up(name, 1);
    far_on(far, name);
    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    return conn;
}

/* The lengths that matter to an interface with that MTU. */
static struct flow flow_of_mtu(size_t mtu)
{
    static size_t sizes[5];
    struct flow flow = { sizes, 5, 0 };

    sizes[0] = 14;
    sizes[1] = 15;
    sizes[2] = 60;
    sizes[3] = mtu + 13;
    sizes[4] = mtu + 14;
    return flow;
}

static void works(qnet_conn *conn, const struct far *far)
{
    struct flow sent = flow_of_mtu(MTU), seen = sent, back = sent;
    uint8_t frame[2000];

    CHECK_INT(flow_send(&sent, conn, 1, 5), 5);
    far_take_until(far, &seen, 5);
    far_send_flow(far, &seen, 5);
    back.next = 5;
    while (back.next < 10) {
        int len = qnet_recv(conn, frame, sizeof frame, patience_ms());

        CHECK(len > 0);
        flow_take(&back, frame, (size_t)len);
    }
}

static void check_name(qnet_conn *conn, const char *want)
{
    char text[100];
    int len = qnet_local_addr(conn, text, sizeof text);

    CHECK(same_text(text, len, want));
    CHECK(if_nametoindex(want) > 0);
}

/* ---- Opening ---- */

static void by_name(void)
{
    struct far far;
    qnet_conn *conn;
    int round;

    enter_namespace();
    for (round = 0; round < 2; round++) {
        conn = tap_open("qnet-named0", &far, MTU);
        check_name(conn, "qnet-named0");
        CHECK(fcntl(qnet_fd(conn), F_GETFD) & FD_CLOEXEC);
        works(conn, &far);
        far_close(conn, &far);
        CHECK_INT(if_nametoindex("qnet-named0"), 0);
    }
}

static void by_the_systems_choice(void)
{
    char first[100], second[100];
    qnet_conn *a, *b, *c;

    enter_namespace();
    a = tap_named(NULL);
    b = tap_named("");
    c = tap_named("vm%d");
    CHECK(qnet_local_addr(a, first, sizeof first) > 0);
    CHECK(qnet_local_addr(b, second, sizeof second) > 0);
    CHECK(strcmp(first, second) != 0);
    check_name(a, first);
    check_name(b, second);
    check_name(c, "vm0");
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
    CHECK_INT(qnet_close(c), QNET_OK);
    CHECK_INT(if_nametoindex(first), 0);
}

static void one_that_stays(void)
{
    struct far far;
    qnet_conn *conn = NULL;
    int fd, round;

    enter_namespace();
    fd = plain_tun("stays", IFF_TAP | IFF_NO_PI, NULL);
    CHECK(ioctl(fd, TUNSETPERSIST, 1) == 0);
    CHECK_INT(qnet_tap("stays", &conn), QNET_ERR_OS); /* it is in use */
    CHECK_INT(qnet_last_errno(), EBUSY);
    CHECK(conn == NULL);
    close(fd);
    for (round = 0; round < 2; round++) {
        conn = tap_open("stays", &far, MTU);
        check_name(conn, "stays");
        works(conn, &far);
        far_close(conn, &far);
        CHECK(if_nametoindex("stays") > 0);
    }
}

/* Whether the kernel leaves checksums to the program that reads from an interface. */
static unsigned leaves_checksums(const char *name)
{
    struct ethtool_value value = { ETHTOOL_GTXCSUM, 0 };
    struct ifreq request = request_of(name);

    request.ifr_data = (char *)&value;
    control(SIOCETHTOOL, &request);
    return value.data;
}

/*
 * Another program has made the kernel leave checksums to it. That is undone, as the next
 * program cannot know of it.
 */
static void after_another_user(void)
{
    qnet_conn *conn;
    int fd;

    enter_namespace();
    fd = plain_tun("again", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, NULL);
    CHECK(ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0);
    CHECK(ioctl(fd, TUNSETPERSIST, 1) == 0);
    CHECK_INT(leaves_checksums("again"), 1);
    close(fd);
    conn = tap_named("again");
    CHECK_INT(leaves_checksums("again"), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void what_is_no_name(void)
{
    static const char *const names[] = {
        "sixteen-letters-", "a/b", "/", "lo", ".", "..", "a b", "a:b",
    };
    qnet_conn *conn;
    size_t i;
    int fd;

    enter_namespace();
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        conn = (qnet_conn *)&i;
        CHECK_INT(qnet_tap(names[i], &conn), QNET_ERR_INVALID);
        CHECK(conn == NULL);
        CHECK(strstr(qnet_last_error(), names[i]) != NULL);
    }
    fd = plain_tun("layer3", IFF_TUN | IFF_NO_PI, NULL);
    CHECK(ioctl(fd, TUNSETPERSIST, 1) == 0);
    close(fd);
    CHECK_INT(qnet_tap("layer3", &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_tap("not-made", NULL), QNET_ERR_INVALID);
    CHECK_INT(if_nametoindex("not-made"), 0);
}

/* ---- Adopting ---- */

static void adopted(void)
{
    int nonblocking;

    enter_namespace();
    for (nonblocking = 0; nonblocking < 2; nonblocking++) {
        char name[IFNAMSIZ];
        uint8_t buffer[100];
        struct far far;
        qnet_conn *conn;
        int fd = plain_tun("", IFF_TAP | IFF_NO_PI, name);

        CHECK(fcntl(fd, F_SETFL, nonblocking ? O_NONBLOCK : 0) == 0);
        CHECK_INT(qnet_from_fd(fd, &conn), QNET_OK);
        CHECK_INT(qnet_fd(conn), fd);
        check_name(conn, name);
        set_up(name, 1);
        far_on(&far, name);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 20), QNET_ERR_TIMEOUT);
        works(conn, &far);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        CHECK_INT((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, nonblocking);
        CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        far_close(conn, &far);
        CHECK(fcntl(fd, F_GETFD) < 0);
        CHECK_INT(if_nametoindex(name), 0);
    }
}

static void refused(void)
{
    static const int flags[] = { IFF_TUN | IFF_NO_PI, IFF_TUN, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    char name[IFNAMSIZ];
    qnet_conn *conn;
    size_t i;
    int fd;

    enter_namespace();
    for (i = 0; i < sizeof flags / sizeof *flags; i++) {
        conn = (qnet_conn *)&i;
        fd = plain_tun("", flags[i], name);
        CHECK(fcntl(fd, F_SETFD, 0) == 0);
        CHECK_INT(qnet_from_fd(fd, &conn), QNET_ERR_UNSUPPORTED);
        CHECK(conn == NULL);
        CHECK_INT(fcntl(fd, F_GETFD), 0);
        CHECK(close(fd) == 0);
        CHECK_INT(if_nametoindex(name), 0);
    }
    fd = open("/dev/net/tun", O_RDWR);
    CHECK_INT(qnet_from_fd(fd, &conn), QNET_ERR_INVALID);
    CHECK(close(fd) == 0);
}

/* ---- Frames ---- */

static void sizes_of(int mtu)
{
    struct flow sent = flow_of_mtu((size_t)mtu), seen = sent;
    struct far far;
    qnet_conn *conn;
    int way;

    enter_namespace();
    conn = tap_open("sizes", &far, mtu);
    for (way = 0; way < WAYS_TO_SEND; way++) {
        CHECK_INT(flow_send(&sent, conn, way, 5), 5);
        far_take_until(&far, &seen, sent.next);
    }
    CHECK_INT(stats_of(conn).tx_frames, 15);
    CHECK_INT(stats_of(conn).tx_bytes, flow_bytes(&sent, 0, 15));
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    sent.next = seen.next = 0;
    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct taker taker;

        far_send_flow(&far, &sent, 5);
        taker_start(&taker, conn, way, flow_each, &seen);
        taker_want(&taker, 5);
        far_send_flow(&far, &sent, 5);
        taker_want(&taker, 10);
        CHECK_INT(qnet_set_close_handler(conn, NULL, NULL), QNET_OK);
        CHECK_INT(qnet_set_handler(conn, NULL, NULL), QNET_OK);
    }
    CHECK_INT(stats_of(conn).rx_frames, sent.next);
    CHECK_INT(stats_of(conn).rx_bytes, flow_bytes(&sent, 0, sent.next));
    CHECK_INT(stats_of(conn).rx_runts, 0);
    far_close(conn, &far);
}

static void sizes_of_ethernet(void)
{
    sizes_of(MTU);
}

static void sizes_of_jumbo_frames(void)
{
    sizes_of(9000);
}

static void sizes_as_large_as_may_be(void)
{
    sizes_of(MTU_MOST);
}

/* Many frames wait in the interface's queue. All come, however many a receive takes. */
static void many_at_once(void)
{
    int way;

    enter_namespace();
    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = tap_open("many", &far, MTU);
        int round;

        taker_start(&taker, conn, way, flow_each, &seen);
        for (round = 0; round < 5; round++) {
            far_send_flow(&far, &sent, 300);
            taker_want(&taker, sent.next);
        }
        taker_close(&taker);
        far_leaves(&far);
    }
}

/* A batch of fewer frames than asked for is all that there is. */
static void batches_are_whole(void)
{
    enum { MOST = 200 };
    struct flow sent = flow_of_small_frames(), seen = sent;
    qnet_frame frames[MOST];
    struct far far;
    qnet_conn *conn;
    int round, i;

    enter_namespace();
    conn = tap_open("batches", &far, MTU);
    for (round = 1; round < 20; round++) {
        unsigned count = (unsigned)round * 10;

        far_send_flow(&far, &sent, count);
        CHECK_INT(qnet_recv_batch(conn, frames, MOST, patience_ms()), count);
        for (i = 0; i < (int)count; i++)
            flow_take(&seen, frames[i].data, frames[i].len);
        CHECK_INT(qnet_recv_batch(conn, frames, MOST, 0), QNET_ERR_AGAIN);
    }
    far_close(conn, &far);
}

static void echo(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

static void echoed_by_a_handler(void)
{
    struct flow sent = flow_of_small_frames(), seen = sent;
    struct far far;
    qnet_conn *conn;
    int round;

    enter_namespace();
    conn = tap_open("echo", &far, MTU);
    CHECK_INT(qnet_set_handler(conn, echo, conn), QNET_OK);
    for (round = 0; round < 50; round++) {
        far_send_flow(&far, &sent, 20);
        far_take_until(&far, &seen, sent.next);
    }
    EVENTUALLY(stats_of(conn).tx_frames == sent.next);
    CHECK_INT(stats_of(conn).tx_bytes, flow_bytes(&sent, 0, sent.next));
    far_close(conn, &far);
}

static void padded_and_coalesced(void)
{
    static const size_t size = 20;
    struct flow sent = flow_of_one_size(&size);
    uint8_t frame[100];
    struct far far;
    qnet_conn *conn;
    unsigned i;

    enter_namespace();
    conn = tap_open("padded", &far, MTU);
    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 1), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 2000), QNET_OK);
    CHECK_INT(flow_send(&sent, conn, 0, 50), 50);
    for (i = 0; i < 50; i++) {
        CHECK_INT(far_recv(&far, frame, sizeof frame), 60);
        CHECK_INT(frame_number(frame, size), i);
    }
    CHECK_INT(stats_of(conn).tx_bytes, 50 * 60);
    far_close(conn, &far);
}

/* ---- Hubs ---- */

/* A hub joins two interfaces and a stream like a bridge. */
static void on_a_hub(void)
{
    static const size_t sizes[] = { 16, 60, MTU + 14 };
    struct far fars[2];
    qnet_conn *conns[2];
    struct device device;
    struct word word;
    qnet_hub *hub;
    size_t s;
    int i;

    enter_namespace();
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 7);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    conns[0] = tap_open("left", &fars[0], MTU);
    conns[1] = tap_open("right", &fars[1], MTU);
    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_hub_attach(hub, conns[i]), QNET_OK);
    word.number = 0;
    for (s = 0; s < 3; s++)
        for (i = 0; i < 2; i++) {
            word.from = i + 1;
            word.to = EVERYBODY;
            word.len = sizes[s];
            word.number++;
            far_says(&fars[i], word);
            CHECK_INT(far_hears(&fars[1 - i]).number, word.number);
            CHECK_INT(raw_hear(device.fd).number, word.number);
            device_says(&device, i + 1, sizes[s]);
            CHECK_INT(far_hears(&fars[i]).from, 7);
            word.to = 7;
            word.number++;
            far_says(&fars[i], word);
            CHECK_INT(raw_hear(device.fd).number, word.number);
        }
    CHECK_INT(hub_stats_of(hub).macs, 3);
    CHECK_INT(hub_stats_of(hub).dropped, 0);
    is_idle();
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    for (i = 0; i < 2; i++)
        far_close(conns[i], &fars[i]);
    device_close(&device);
}

/* ---- Interfaces that are down, or gone ---- */

static void down(void)
{
    struct flow flow = flow_of_small_frames();
    struct far far;
    qnet_conn *conn;
    int round, way;

    enter_namespace();
    conn = tap_open("down", &far, MTU);
    for (round = 0; round < 3; round++) {
        qnet_stats before = stats_of(conn);
        uint8_t buffer[100];

        set_up("down", 0);
        for (way = 0; way < WAYS_TO_SEND; way++)
            CHECK_INT(flow_send(&flow, conn, way, 100), 100);
        CHECK_INT(stats_of(conn).tx_dropped, before.tx_dropped + 300);
        CHECK_INT(stats_of(conn).tx_frames, before.tx_frames);
        CHECK_INT(stats_of(conn).tx_bytes, before.tx_bytes);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 10), QNET_ERR_TIMEOUT);
        CHECK_INT(qnet_wait(conn, 10), QNET_ERR_TIMEOUT);
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        set_up("down", 1);
        close(far.fd); /* it has an error to report since the interface was down */
        far_on(&far, "down");
        works(conn, &far);
    }
    set_up("down", 0);
    CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
    is_idle();
    far_close(conn, &far);
}

/* If its interface is deleted, a connection ends, whichever way it is received from. */
static void taken_away(void)
{
    int way;

    enter_namespace();
    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = tap_open("gone", &far, MTU);
        uint8_t frame[60] = { 0 };

        taker_start(&taker, conn, way, flow_each, &seen);
        far_send_flow(&far, &sent, 3);
        taker_want(&taker, 3);
        delete_interface("gone");
        CHECK_INT(taker_end(&taker), QNET_ERR_OS);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_ERR_OS);
        CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
        CHECK_INT(stats_of(conn).tx_dropped, 0);
        taker_close(&taker);
        close(far.fd);
    }
}

static void *receiving(void *argument)
{
    return (void *)(long)make_recv(argument);
}

/* A receive that waits when the interface is deleted is woken. */
static void taken_away_from_who_waits(void)
{
    pthread_t receiver;
    void *result;
    struct far far;
    qnet_conn *conn;

    enter_namespace();
    conn = tap_open("gone", &far, MTU);
    start_thread(&receiver, receiving, conn);
    raw_sleep_ms(30);
    delete_interface("gone");
    CHECK_INT(pthread_join(receiver, &result), 0);
    CHECK_INT((long)result, QNET_ERR_OS);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(far.fd);
}

/* A send is the first to find that the interface is deleted. */
static void taken_away_from_a_sender(void)
{
    struct flow flow = flow_of_small_frames();
    struct far far;
    qnet_conn *conn;
    uint8_t buffer[100];
    int way;

    enter_namespace();
    for (way = 0; way < WAYS_TO_SEND; way++) {
        conn = tap_open("gone", &far, MTU);
        delete_interface("gone");
        CHECK_INT(flow_send(&flow, conn, way, 10), QNET_ERR_OS);
        CHECK_INT(flow_send(&flow, conn, way, 10), QNET_ERR_OS);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, patience_ms()), QNET_ERR_OS);
        CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
        CHECK_INT(stats_of(conn).tx_frames + stats_of(conn).tx_dropped, 0);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(far.fd);
    }
}

static void taken_away_from_a_hub(void)
{
    struct ending ending;
    struct device device;
    struct far far;
    qnet_conn *conn;
    qnet_hub *hub;

    memset(&ending, 0, sizeof ending);
    enter_namespace();
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    conn = tap_open("gone", &far, MTU);
    CHECK_INT(qnet_set_close_handler(conn, ending_told, &ending), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    device_says(&device, EVERYBODY, 60);
    CHECK_INT(far_hears(&far).from, 1);
    delete_interface("gone");
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    check_told(&ending, QNET_ERR_OS);
    CHECK_INT(ports_of(hub), 1);
    is_idle();
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    close(far.fd);
}

/* Frames of a TAP are impaired like others, and a pulled cable's go nowhere. */
static void impaired(void)
{
    struct flow sent = flow_of_mtu(MTU), seen = sent;
    struct far far;
    qnet_conn *conn, *other;
    int fd, i;

    enter_namespace();
    conn = tap_open("impaired", &far, MTU);
    other = raw_pair(&fd);
    CHECK_INT(qnet_impair(conn, QNET_BOTH, "delay 5ms 5ms loss every 6"), QNET_OK);
    CHECK_INT(qnet_link(conn, other), QNET_OK);
    far_send_flow(&far, &sent, 5);
    raw_take_until(fd, &seen, 5);
    raw_send_flow(fd, &sent, 6, 0); /* the last of them is lost */
    far_take_until(&far, &seen, 10);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 0), QNET_OK);
    for (i = 0; i < 2; i++)
        raw_send_flow(fd, &sent, 1, 0);
    EVENTUALLY(stats_of(conn).tx_dropped == 2);
    CHECK(!raw_readable(far.fd, 20));
    CHECK_INT(qnet_close(other), QNET_OK);
    CHECK(close(fd) == 0);
    far_close(conn, &far);
}

/* ---- The carrier ---- */

/* Whether the kernel sees a carrier on an interface that is up. */
static int has_carrier(const char *name)
{
    struct ethtool_value value = { ETHTOOL_GLINK, 0 };
    struct ifreq request = request_of(name);

    request.ifr_data = (void *)&value;
    control(SIOCETHTOOL, &request);
    return value.data != 0;
}

/* A pulled cable, and a link to nothing, take the carrier away, as long as the interface is plugged in. */
static void the_carrier_is_that_of_the_cable(void)
{
    struct far far;
    qnet_conn *conn, *other;
    qnet_hub *hub;
    int fd, linked;

    enter_namespace();
    conn = tap_open("carrier", &far, MTU);
    CHECK(has_carrier("carrier"));
    CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 0), QNET_OK);
    CHECK(has_carrier("carrier"));
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    for (linked = 0; linked < 2; linked++) {
        other = raw_pair(&fd);
        CHECK_INT(linked ? qnet_link(conn, other) : qnet_hub_attach(hub, conn), QNET_OK);
        CHECK(!has_carrier("carrier"));
        CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 1), QNET_OK);
        CHECK(has_carrier("carrier"));
        CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 0), QNET_OK);
        CHECK(!has_carrier("carrier"));
        CHECK_INT(linked ? qnet_unlink(conn) : qnet_hub_detach(hub, conn), QNET_OK);
        CHECK(has_carrier("carrier"));
        CHECK_INT(qnet_close(other), QNET_OK);
        CHECK(close(fd) == 0);
    }
    CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 1), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_OUTLIVE, 1), QNET_OK);
    other = raw_pair(&fd);
    CHECK_INT(qnet_link(conn, other), QNET_OK);
    CHECK(has_carrier("carrier"));
    CHECK_INT(qnet_close(other), QNET_OK);
    EVENTUALLY(!has_carrier("carrier"));
    CHECK(close(fd) == 0);
    other = raw_pair(&fd);
    CHECK_INT(qnet_link(other, conn), QNET_OK);
    CHECK(has_carrier("carrier"));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK(close(fd) == 0);
    far_leaves(&far);
}

/* ---- The rest ---- */

static void options(void)
{
    static const int buffers[] = { QNET_OPT_SNDBUF, QNET_OPT_RCVBUF };
    char text[100];
    int64_t value;
    qnet_conn *conn;
    int i;

    enter_namespace();
    conn = tap_named(NULL);
    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet_set(conn, buffers[i], 30000), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_get(conn, buffers[i], &value), QNET_ERR_UNSUPPORTED);
    }
    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, 1514), QNET_OK);
    CHECK_INT(qnet_netdev(conn, "n0", 702, text, sizeof text), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_peer_addr(conn, text, sizeof text), qnet_local_addr(conn, text, sizeof text));
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void nothing_is_left(void)
{
    struct footprint before;
    int way;

    enter_namespace();
    before = footprint_now();
    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_small_frames(), seen = sent;
        struct taker taker;
        struct far far;
        qnet_conn *conn = tap_open("left", &far, MTU);

        taker_start(&taker, conn, way, flow_each, &seen);
        far_send_flow(&far, &sent, 7);
        taker_want(&taker, 7);
        taker_close(&taker);
        far_leaves(&far);
    }
    footprint_again(before);
}

/*
 * UDP over an interface whose MTU is too small for the frames: the kernel refuses to
 * split one message into many such datagrams, and each arrives in fragments.
 */
static void datagrams_over_a_narrow_interface(void)
{
    static const size_t too_long[] = { 1514, 1514, 1514, 1514, 1514, 1473 };
    static const size_t mixed[] = { 1400, 1400, 1400, 1600, 1600, 1472, 1472, 1473, 1473, 60 };
    static const size_t fitting[] = { 1472, 1472, 1472, 1000 };
    static const struct { const size_t *sizes; size_t kinds; } rows[] = {
        { fitting, 4 }, { too_long, 6 }, { mixed, 10 }, { fitting, 4 },
    };
    uint64_t frames = 0, bytes = 0;
    struct far far;
    qnet_conn *conn;
    size_t i;
    int way;

    enter_namespace();
    set_mtu("lo", 1500);
    set_up("lo", 1);
    conn = far_open_kind(&far_kinds[0], &far);
    for (i = 0; i < sizeof rows / sizeof *rows; i++)
        for (way = 1; way < WAYS_TO_SEND; way++) {
            struct flow sent = { rows[i].sizes, rows[i].kinds, 0 }, seen = sent;

            CHECK_INT(flow_send(&sent, conn, way, 200), 200);
            far_take_until(&far, &seen, 200);
            frames += 200;
            bytes += flow_bytes(&sent, 0, 200);
        }
    CHECK_INT(stats_of(conn).tx_frames, frames);
    CHECK_INT(stats_of(conn).tx_bytes, bytes);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    far_close(conn, &far);
}

int main(void)
{
    RUN(by_name);
    RUN(by_the_systems_choice);
    RUN(one_that_stays);
    RUN(after_another_user);
    RUN(what_is_no_name);
    RUN(adopted);
    RUN(refused);
    RUN(sizes_of_ethernet);
    RUN(sizes_of_jumbo_frames);
    RUN(sizes_as_large_as_may_be);
    RUN(many_at_once);
    RUN(batches_are_whole);
    RUN(echoed_by_a_handler);
    RUN(padded_and_coalesced);
    RUN(on_a_hub);
    RUN(down);
    RUN(taken_away);
    RUN(taken_away_from_who_waits);
    RUN(taken_away_from_a_sender);
    RUN(taken_away_from_a_hub);
    RUN(impaired);
    RUN(the_carrier_is_that_of_the_cable);
    RUN(options);
    RUN(nothing_is_left);
    RUN(datagrams_over_a_narrow_interface);
    return check_done();
}
