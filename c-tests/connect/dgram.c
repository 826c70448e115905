/*
 * dgram.c - datagram connections over UDP, Unix sockets and multicast: how they are made,
 * their addresses and socket files, and descriptors that are adopted.
 */
#include <sys/epoll.h>

#include "dgrams.h"

/* ---- Multicast ---- */

static void a_group_of_three(void)
{
    struct far far;
    qnet_conn *a = far_open(&far), *b = far_dgram("mcast", "127.0.0.1", far.far_text);
    uint8_t frame[60], got[100];
    unsigned i;

    for (i = 0; i < 20; i++) {
        qnet_conn *from = i % 2 ? a : b, *to = i % 2 ? b : a;

        frame_make(frame, sizeof frame, i);
        CHECK_INT(qnet_send(from, frame, sizeof frame), QNET_OK);
        CHECK_INT(qnet_recv(to, got, sizeof got, patience_ms()), sizeof frame);
        CHECK_INT(frame_number(got, sizeof frame), i);
        CHECK_INT(far_recv(&far, got, sizeof got), sizeof frame);
        CHECK_INT(frame_number(got, sizeof frame), i);
        CHECK_INT(qnet_recv(from, got, sizeof got, 0), QNET_ERR_AGAIN);
        frame_make(frame, sizeof frame, 1000 + i);
        far_send(&far, frame, sizeof frame);
        CHECK_INT(qnet_recv(a, got, sizeof got, patience_ms()), sizeof frame);
        CHECK_INT(qnet_recv(b, got, sizeof got, patience_ms()), sizeof frame);
    }
    CHECK_INT(stats_of(a).rx_frames, 30);
    CHECK_INT(stats_of(a).rx_runts, 0);
    CHECK_INT(qnet_close(b), QNET_OK);
    far_close(a, &far);
}

/* Other groups at the same port are not heard. */
static void another_group_is_not_heard(void)
{
    char other[160];
    struct far far;
    qnet_conn *conn = far_open(&far), *second;
    uint8_t frame[60] = { 0 };

    snprintf(other, sizeof other, "239.255.77.2%s", strchr(far.far_text, ':'));
    second = far_dgram("mcast", "127.0.0.1", other);
    CHECK_INT(qnet_send(second, frame, sizeof frame), QNET_OK);
    next_is_a_frame(conn, &far);
    CHECK_INT(qnet_recv(second, frame, sizeof frame, 50), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_close(second), QNET_OK);
    far_close(conn, &far);
}

/* ---- Addresses and files ---- */

static void check_address(int (*ask)(qnet_conn *, char *, size_t), qnet_conn *conn, const char *want)
{
    char text[200];
    int len = ask(conn, text, sizeof text);

    if (!same_text(text, len, want))
        fprintf(stderr, "got '%s' (%d), want '%s'\n", len >= 0 ? text : "", len, want);
    CHECK(same_text(text, len, want));
}

static void addresses(void)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    struct far far;
    qnet_conn *conn = far_open(&far);
    char text[160];

    check_address(qnet_peer_addr, conn, far.far_text);
    if (far_now->set & UDP) {
        CHECK(getsockname(qnet_fd(conn), (struct sockaddr *)&address, &len) == 0);
        address_text(&address, len, text, sizeof text);
        check_address(qnet_local_addr, conn, text);
    } else {
        check_address(qnet_local_addr, conn, far.near_text);
    }
    CHECK(fcntl(qnet_fd(conn), F_GETFD) & FD_CLOEXEC);
    far_close(conn, &far);
}

static void options(void)
{
    struct far far;
    qnet_conn *conn = far_open(&far);
    int64_t value;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 30000), QNET_OK);
    CHECK_INT(qnet_get(conn, QNET_OPT_SNDBUF, &value), QNET_OK);
    CHECK_INT(value, 30000);
    CHECK_INT(qnet_set(conn, QNET_OPT_RCVBUF, 40000), QNET_OK);
    CHECK_INT(qnet_get(conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 300000), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_UNIX_MODE, 0600), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX + 1), QNET_ERR_INVALID);
    works(conn, &far);
    far_close(conn, &far);
}

/* Closing a connection releases all that it holds, however it was used. */
static void nothing_is_left(void)
{
    struct footprint before = footprint_now();
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_kind(far_now), seen = flow;
        struct taker taker;
        struct far far;
        qnet_conn *conn = far_open(&far);

        taker_start(&taker, conn, way, flow_each, &seen);
        far_send_flow(&far, &flow, ALL_SIZES);
        taker_want(&taker, ALL_SIZES);
        flow.next = 0;
        CHECK_INT(flow_send(&flow, conn, 1, ALL_SIZES), ALL_SIZES);
        taker_close(&taker);
        far_leaves(&far);
        if (far_now->set & NAMED)
            CHECK(far.near_text[0] != '/' || access(far.near_text, F_OK) != 0);
    }
    footprint_again(before);
}

/* A port that another socket has is refused, and is available once that socket is closed. */
static void the_address_is_taken(void)
{
    char taken[160], remote[160];
    qnet_conn *conn = (qnet_conn *)taken;
    int fd = far_udp_at(AF_INET, 0, taken, sizeof taken);

    close(far_udp_at(AF_INET, 0, remote, sizeof remote));
    CHECK_INT(qnet_dgram("udp4", taken, remote, &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    conn = (qnet_conn *)taken;
    CHECK_INT(qnet_dgram("udp", strchr(taken, ':'), strchr(remote, ':'), &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    close(fd);
    CHECK_INT(qnet_dgram("udp4", taken, remote, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void live_names_are_kept(void)
{
    const char *remote = scratch_path("remote");
    const char *names[3];
    size_t i;

    names[0] = scratch_path("live-datagrams");
    names[1] = scratch_path("live-stream");
    names[2] = scratch_abstract("live");
    for (i = 0; i < 3; i++) {
        int fd = i == 1 ? raw_unix_listen(names[i]) : far_unix_at(names[i]);
        struct stat before, after;
        qnet_conn *conn = (qnet_conn *)&i;

        memset(&before, 0, sizeof before);
        memset(&after, 0, sizeof after);
        stat(names[i], &before);
        CHECK_INT(qnet_dgram("unixgram", names[i], remote, &conn), QNET_ERR_BUSY);
        CHECK(conn == NULL);
        stat(names[i], &after);
        CHECK(before.st_ino == after.st_ino);
        close(fd);
        /* The socket is closed, so its name can be taken. */
        conn = far_dgram("unixgram", names[i], remote);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(stat(names[i], &after) != 0);
    }
}

/* A socket that is connected to a peer is alive as well, though it takes nothing from others. */
static void a_connected_name_is_kept(void)
{
    const char *live = scratch_path("live-connected"), *other = scratch_path("its-peer");
    int fd = far_unix_at(live), peer = far_unix_at(other);
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(other, &address);
    qnet_conn *conn = NULL;
    char byte;

    CHECK(connect(fd, (struct sockaddr *)&address, len) == 0);
    CHECK_INT(qnet_dgram("unixgram", live, scratch_path("remote"), &conn), QNET_ERR_BUSY);
    len = raw_unix_address(live, &address);
    CHECK_INT(sendto(peer, "x", 1, 0, (struct sockaddr *)&address, len), 1);
    CHECK_INT(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
    close(fd);
    close(peer);
}

static void other_files_are_kept(void)
{
    const char *path = scratch_path("precious");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    qnet_conn *conn = (qnet_conn *)path;
    struct stat file;

    CHECK(write(fd, "x", 1) == 1);
    CHECK_INT(qnet_dgram("unixgram", path, scratch_path("remote"), &conn), QNET_ERR_BUSY);
    CHECK(conn == NULL);
    CHECK(stat(path, &file) == 0);
    CHECK_INT(file.st_size, 1);
    CHECK(S_ISREG(file.st_mode));
    close(fd);
    CHECK(unlink(path) == 0);
}

static void the_file_has_its_mode_and_goes(void)
{
    static const mode_t umasks[] = { 0, 022, 077, 0777 };
    const char *path = scratch_path("own-file");
    size_t i;

    for (i = 0; i < 4; i++) {
        qnet_conn *conn;
        struct stat file;

        umask(umasks[i]);
        conn = far_dgram("unixgram", path, scratch_path("remote"));
        CHECK(stat(path, &file) == 0);
        CHECK_INT(file.st_mode & 0777, 0600);
        CHECK(S_ISSOCK(file.st_mode));
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(stat(path, &file) != 0);
    }
}

/* A file that has replaced the connection's own is somebody else's, and is not removed. */
static void anothers_file_is_left(void)
{
    const char *path = scratch_path("replaced");
    qnet_conn *conn = far_dgram("unixgram", path, scratch_path("remote"));
    int fd;

    CHECK(unlink(path) == 0);
    fd = far_unix_at(path);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(access(path, F_OK) == 0);
    close(fd);
    CHECK(unlink(path) == 0);
}

/* ---- Invalid arguments ---- */

static void malformed(void)
{
    static const struct {
        const char *network, *local, *remote;
    } cases[] = {
        { NULL, "127.0.0.1:0", "127.0.0.1:1" },
        { "udp", NULL, "127.0.0.1:1" },
        { "", "127.0.0.1:0", "127.0.0.1:1" },
        { "tcp", "127.0.0.1:0", "127.0.0.1:1" },
        { "unix", "/tmp/a", "/tmp/b" },
        { "UDP", "127.0.0.1:0", "127.0.0.1:1" },
        { "udp", "", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "" },
        { "udp", "127.0.0.1", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "127.0.0.1" },
        { "udp", "127.0.0.1:0", "127.0.0.1:0" },
        { "udp", "127.0.0.1:0", "127.0.0.1:65536" },
        { "udp", "127.0.0.1:-1", "127.0.0.1:1" },
        { "udp", "127.0.0.1:0", "[::1:1" },
        { "udp", "127.0.0.1:0", "[::1]:1" },
        { "udp", "[::1]:0", "127.0.0.1:1" },
        { "udp4", "[::1]:0", "[::1]:1" },
        { "udp6", "127.0.0.1:0", "127.0.0.1:1" },
        { "unixgram", "", "/tmp/b" },
        { "unixgram", "/tmp/a", "" },
        { "unixgram", "@", "@b" },
        { "unixgram", "/tmp/a", "/tmp/a" },
        { "unixgram", NULL, "/tmp/a" },
        { "mcast", "127.0.0.1", NULL },
        { "mcast", NULL, NULL },
        { "mcast", NULL, "127.0.0.1:1234" },
        { "mcast", NULL, "230.0.0.1" },
        { "mcast", NULL, "230.0.0.1:0" },
        { "mcast", NULL, "240.0.0.1:1234" },
        { "mcast", NULL, "223.255.255.255:1234" },
        { "mcast", NULL, "[ff02::1]:1234" },
        { "mcast", NULL, "localhost:1234" },
        { "mcast", NULL, ":1234" },
        { "mcast", "127.0.0.1:1", "230.0.0.1:1234" },
        { "mcast", "::1", "230.0.0.1:1234" },
        { "mcast", "lo", "230.0.0.1:1234" },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conn = (qnet_conn *)&i;
        int result = qnet_dgram(cases[i].network, cases[i].local, cases[i].remote, &conn);

        if (result != QNET_ERR_INVALID)
            fprintf(stderr, "case %d\n", (int)i);
        CHECK_INT(result, QNET_ERR_INVALID);
        CHECK(conn == NULL);
        CHECK(qnet_last_error()[0] != '\0');
    }
    CHECK_INT(qnet_dgram("udp", "127.0.0.1:0", "127.0.0.1:1", NULL), QNET_ERR_INVALID);
}

/* A call that fails makes no socket file and leaves nothing open. */
static void nothing_is_made_of_what_fails(void)
{
    struct footprint before = footprint_now();
    const char *path = scratch_path("not-made");
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dgram("unixgram", path, "@", &conn), QNET_ERR_INVALID);
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(qnet_dgram("unixgram", path, "@x", NULL), QNET_ERR_INVALID);
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(qnet_dgram("unixgram", scratch_path("no/such/place"), "@x", &conn), QNET_ERR_OS);
    CHECK_INT(qnet_dgram("mcast", "192.0.2.7", "239.255.77.9:1234", &conn), QNET_ERR_OS);
    CHECK_INT(qnet_dgram("udp4", "192.0.2.7:0", "127.0.0.1:1", &conn), QNET_ERR_OS);
    footprint_again(before);
}

/* A host that may be IPv4 or IPv6 is taken as IPv4, the only one that QEMU uses. */
static void this_host_by_other_names(void)
{
    static const char *const hosts[] = { "", "localhost", "127.0.0.1" };
    size_t i;

    for (i = 0; i < 3; i++) {
        char text[160], remote[160];
        uint8_t frame[60] = { 0 }, got[100];
        qnet_conn *conn;
        int fd = far_udp_at(AF_INET, 0, text, sizeof text);

        snprintf(remote, sizeof remote, "%s%s", hosts[i], strchr(text, ':'));
        conn = far_dgram("udp", ":0", remote);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK(raw_readable(fd, patience_ms()));
        CHECK_INT(recv(fd, got, sizeof got, 0), sizeof frame);
        check_address(qnet_peer_addr, conn, text);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Descriptors that cannot be adopted ---- */

static int make_unconnected_udp(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int make_bound_udp(void)
{
    char text[160];

    return far_udp_at(AF_INET, 0, text, sizeof text);
}

static int make_unconnected_unixgram(void)
{
    return socket(AF_UNIX, SOCK_DGRAM, 0);
}

static int make_unconnected_sequenced(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET, 0);
}

static int make_listening_sequenced(void)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(scratch_abstract("sequenced"), &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1) == 0);
    return fd;
}

static int make_tun_without_interface(void)
{
    int fd = open("/dev/net/tun", O_RDWR);

    return fd >= 0 ? fd : open("/dev/null", O_RDWR);
}

static int make_epoll(void)
{
    return epoll_create1(0);
}

static int make_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW, 0);
}

static void from_fd_refuses(void)
{
    static const struct {
        int (*make)(void);
        int code; /* or 0 for any error */
    } cases[] = {
        { make_unconnected_udp, QNET_ERR_INVALID },
        { make_bound_udp, QNET_ERR_INVALID },
        { make_unconnected_unixgram, QNET_ERR_INVALID },
        { make_unconnected_sequenced, QNET_ERR_INVALID },
        { make_listening_sequenced, QNET_ERR_INVALID },
        { make_tun_without_interface, QNET_ERR_INVALID },
        { make_epoll, QNET_ERR_INVALID },
        { make_netlink, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conn = (qnet_conn *)&i;
        int fd = cases[i].make(), flags, status, result;

        CHECK(fd >= 0);
        flags = fcntl(fd, F_GETFD);
        status = fcntl(fd, F_GETFL);
        result = qnet_from_fd(fd, &conn);
        CHECK(result < 0);
        if (cases[i].code != 0)
            CHECK_INT(result, cases[i].code);
        CHECK(conn == NULL);
        CHECK_INT(fcntl(fd, F_GETFD), flags);
        CHECK_INT(fcntl(fd, F_GETFL), status);
        CHECK(close(fd) == 0);
    }
}

/* An adopted socket stays blocking or nonblocking, as it was, and the library closes it. */
static void an_adopted_descriptor(void)
{
    int nonblocking;

    for (nonblocking = 0; nonblocking < 2; nonblocking++) {
        struct far far;
        qnet_conn *conn;
        int pair[2];

        CHECK(socketpair(AF_UNIX, far_now->set & PAIR ? SOCK_DGRAM : SOCK_SEQPACKET, 0, pair) == 0);
        CHECK(fcntl(pair[0], F_SETFL, nonblocking ? O_NONBLOCK : 0) == 0);
        CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
        CHECK_INT(qnet_fd(conn), pair[0]);
        CHECK_INT((fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0, nonblocking);
        CHECK(fcntl(pair[0], F_GETFD) & FD_CLOEXEC);
        far_init(&far, pair[1]);
        next_is_a_frame(conn, &far);
        CHECK_INT((fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0, nonblocking);
        far_close(conn, &far);
        CHECK(fcntl(pair[0], F_GETFD) < 0);
    }
}

int main(void)
{
    scratch_make();
    RUN_KINDS(a_group_of_three, GROUP);
    RUN_KINDS(another_group_is_not_heard, GROUP);
    RUN_KINDS(addresses, UDP | NAMED | GROUP);
    RUN_KINDS(options, EVERY_KIND);
    RUN_KINDS(nothing_is_left, EVERY_KIND);
    RUN(the_address_is_taken);
    RUN(live_names_are_kept);
    RUN(a_connected_name_is_kept);
    RUN(other_files_are_kept);
    RUN(the_file_has_its_mode_and_goes);
    RUN(anothers_file_is_left);
    RUN(malformed);
    RUN(nothing_is_made_of_what_fails);
    RUN(this_host_by_other_names);
    RUN(from_fd_refuses);
    RUN_KINDS(an_adopted_descriptor, PAIR | SEQUENCED);
    scratch_remove();
    return check_done();
}
