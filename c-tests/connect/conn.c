/*
 * conn.c - every kind of connection: how it is opened, what can be adopted as one, and
 * frames of every size over it, by every way to send and to receive.
 */
#include "alone.h"
#include "footprint.h"
#include "ways.h"

/* ---- Opening ---- */

static void check_descriptor(int fd)
{
    int flags, nodelay = 0;
    socklen_t len = sizeof nodelay;

    CHECK(fd >= 0);
    flags = fcntl(fd, F_GETFD);
    CHECK(flags >= 0 && (flags & FD_CLOEXEC));
    if (link_now->family == AF_UNIX)
        return;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len) == 0);
    CHECK(nodelay);
}

/* An adopted socket stays blocking or nonblocking, as it was: others may share it. */
static void check_nonblocking(int fd)
{
    if (link_now->adopted)
        CHECK_INT((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, link_now->nonblocking);
}

static void opens(void)
{
    struct flow there = flow_of_small_frames(), back = flow_of_small_frames();
    struct flow expected = flow_of_small_frames();
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    check_descriptor(qnet_fd(conn));
    check_nonblocking(qnet_fd(conn));

    CHECK_INT(flow_send(&there, conn, 0, 1), 1);
    raw_take(fd, &expected);
    expected.next = 0;
    raw_send_flow(fd, &back, 1, 0);
    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    taker_want(&taker, 1);
    check_nonblocking(qnet_fd(conn));

    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    taker_close(&taker);
    CHECK(raw_ended(fd));
}

/* A handler, which runs on a thread of the library's own, changes no flag either. */
static void handled_descriptor(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_HANDLER, flow_each, &expected);
    raw_send_flow(fd, &flow, 3, 0);
    taker_want(&taker, 3);
    check_descriptor(qnet_fd(conn));
    check_nonblocking(qnet_fd(conn));
    taker_close(&taker);
}

/* ---- Addresses ---- */

/* Text is written to a buffer as by snprintf(): cut if that is too small. */
static void check_text(int (*ask)(qnet_conn *, char *, size_t), qnet_conn *conn, const char *want)
{
    char text[200], cut[6];
    int len = ask(conn, text, sizeof text);

    if (!same_text(text, len, want))
        fprintf(stderr, "got '%s' (%d), want '%s'\n", len >= 0 ? text : "", len, want);
    CHECK(same_text(text, len, want));
    CHECK_INT(ask(conn, NULL, 0), len);
    CHECK_INT(ask(conn, text, (size_t)len + 1), len);
    CHECK(strcmp(text, want) == 0);
    memset(cut, 'x', sizeof cut);
    CHECK_INT(ask(conn, cut, 4), len);
    CHECK(strncmp(cut, want, 3) == 0 && cut[3] == '\0' && cut[4] == 'x');
    cut[0] = 'x';
    CHECK_INT(ask(conn, cut, 1), len);
    CHECK(cut[0] == '\0');
}

/* The local address of one end is the peer's address of the other. */
static void addresses(void)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char text[160];
    int fd;
    qnet_conn *conn = link_open(&fd);

    memset(&address, 0, sizeof address);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    address_text(&address, len, text, sizeof text);
    if (text[0])
        check_text(qnet_peer_addr, conn, text);

    len = sizeof address;
    memset(&address, 0, sizeof address);
    CHECK(getpeername(fd, (struct sockaddr *)&address, &len) == 0);
    address_text(&address, len, text, sizeof text);
    if (text[0])
        check_text(qnet_local_addr, conn, text);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* ---- Before anything is received ---- */

/* Nothing is read until a way to receive is chosen. Then all that was sent is received. */
static void early_frames_wait(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct bundle bundle = bundle_make(&flow, 5);
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        raw_write(fd, bundle.wire, bundle.len);
        EVENTUALLY(bytes_waiting(qnet_fd(conn)) == (int)bundle.len);
        raw_sleep_ms(10);
        CHECK_INT(bytes_waiting(qnet_fd(conn)), bundle.len);
        CHECK_INT(stats_of(conn).rx_reads, 0);
        taker_start(&taker, conn, way, flow_each, &expected);
        taker_want(&taker, 5);
        taker_close(&taker);
        bundle_free(&bundle);
        close(fd);
    }
}

/* ---- Frames of every size ---- */

static qnet_conn *open_for_long_frames(int *fd)
{
    qnet_conn *conn = link_open(fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    return conn;
}

static void sizes_sent(void)
{
    struct flow flow = flow_of_all_sizes();
    int way, fd;
    qnet_conn *conn = open_for_long_frames(&fd);

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct raw_job reader;

        raw_start(&reader, raw_reading, fd, flow, ALL_SIZES);
        CHECK_INT(flow_send(&flow, conn, way, ALL_SIZES), ALL_SIZES);
        join_thread(reader.thread);
    }
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(stats_of(conn).tx_frames, ALL_SIZES * WAYS_TO_SEND);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

static void sizes_received(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow expected = flow_of_all_sizes();
        struct raw_job writer;
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        raw_start(&writer, raw_writing, fd, expected, 3 * ALL_SIZES);
        taker_start(&taker, conn, way, flow_each, &expected);
        taker_want(&taker, 3 * ALL_SIZES);
        join_thread(writer.thread);
        CHECK_INT(stats_of(conn).rx_frames, 3 * ALL_SIZES);
        close(fd);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
    }
}

/* A thread that sends every size once. */
struct sender {
    pthread_t thread;
    qnet_conn *conn;
    int way;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    struct flow flow = flow_of_all_sizes();

    CHECK_INT(flow_send(&flow, sender->conn, sender->way, ALL_SIZES), ALL_SIZES);
    return NULL;
}

/* Sends every size from `a` to `b`, with one way to send and one to receive. */
static void exchange(qnet_conn *a, qnet_conn *b, int send_way, int receive_way)
{
    struct flow expected = flow_of_all_sizes();
    struct sender sender;
    struct taker taker;

    sender.conn = a;
    sender.way = send_way;
    taker_start(&taker, b, receive_way, flow_each, &expected);
    start_thread(&sender.thread, sending, &sender);
    taker_want(&taker, ALL_SIZES);
    join_thread(sender.thread);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
    taker_close(&taker);
}

/* Both ends are connections of the library. Which one sends makes no difference. */
static void sizes_between_two_connections(void)
{
    int send_way, receive_way;

    for (send_way = 0; send_way < WAYS_TO_SEND; send_way++)
        for (receive_way = 0; receive_way < WAYS_TO_RECEIVE; receive_way++) {
            qnet_conn *a = NULL, *b = NULL;

            CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
            CHECK(a != b);
            CHECK_INT(qnet_set(a, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
            CHECK_INT(qnet_set(b, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
            if (receive_way % 2)
                exchange(a, b, send_way, receive_way);
            else
                exchange(b, a, send_way, receive_way);
        }
}

/* ---- Descriptors that cannot be adopted ---- */

static int regular_file(void)
{
    char directory[80], path[120];
    int fd;

    make_directory(directory, sizeof directory);
    snprintf(path, sizeof path, "%s/file", directory);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
    return fd;
}

static int use_file(int fd)
{
    char byte = 0;

    return write(fd, "x", 1) == 1 && pread(fd, &byte, 1, 0) == 1 && byte == 'x';
}

static int tcp_listening(void)
{
    int port;

    return raw_tcp_listen(&port);
}

static int unix_listening(void)
{
    char name[60];

    snprintf(name, sizeof name, "@qnet-refused-%ld", (long)getpid());
    return raw_unix_listen(name);
}

/* Connects to a listening socket, whatever its family, and accepts there. */
static int use_listening(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    int client, accepted;

    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    client = socket(address.ss_family, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, len) == 0);
    accepted = accept(fd, NULL, NULL);
    close(client);
    close(accepted);
    return accepted >= 0;
}

static int tcp_unconnected(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int unix_unconnected(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

/* Whether a socket that is not connected can still be bound and listened on. */
static int use_unconnected(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;

    memset(&address, 0, sizeof address);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    len = address.ss_family == AF_UNIX ? sizeof(sa_family_t) : sizeof(struct sockaddr_in);
    return bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1) == 0;
}

static int pipe_reading(void)
{
    int ends[2];

    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    close(ends[1]);
    return ends[0];
}

static int use_pipe(int fd)
{
    char byte = 0;

    return read(fd, &byte, 1) == 1 && byte == 'x';
}

static void from_fd_refuses(void)
{
    static const struct {
        int (*make)(void);
        int (*use)(int fd);
    } cases[] = {
        { regular_file, use_file },
        { tcp_listening, use_listening },
        { unix_listening, use_listening },
        { tcp_unconnected, use_unconnected },
        { unix_unconnected, use_unconnected },
        { pipe_reading, use_pipe },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conn = (qnet_conn *)&i;
        int fd = cases[i].make(), flags, status;

        CHECK(fd >= 0);
        flags = fcntl(fd, F_GETFD);
        status = fcntl(fd, F_GETFL);
        CHECK(qnet_from_fd(fd, &conn) < 0);
        CHECK(conn == NULL);
        CHECK(qnet_last_error()[0] != '\0');
        CHECK_INT(fcntl(fd, F_GETFD), flags);
        CHECK_INT(fcntl(fd, F_GETFL), status);
        CHECK(cases[i].use(fd));
        close(fd);
    }
}

static void from_fd_without_a_descriptor(void)
{
    static const int numbers[] = { -1, -1000, 9999, 0x7fffffff };
    size_t i;

    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        qnet_conn *conn = (qnet_conn *)&i;

        CHECK(qnet_from_fd(numbers[i], &conn) < 0);
        CHECK(conn == NULL);
    }
}

/* If the place for the handle is NULL, nothing is adopted. */
static void from_fd_without_out(void)
{
    char byte = 0;
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK_INT(qnet_from_fd(pair[0], NULL), QNET_ERR_INVALID);
    CHECK(send(pair[0], "x", 1, 0) == 1);
    CHECK(recv(pair[1], &byte, 1, 0) == 1 && byte == 'x');
}

/* On success the library owns the descriptor: closing the connection closes it. */
static void from_fd_takes_the_descriptor(void)
{
    qnet_conn *conn = NULL;
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
    CHECK_INT(qnet_fd(conn), pair[0]);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(pair[1]));
    EVENTUALLY(fcntl(pair[0], F_GETFD) < 0);
}

/* ---- Pairs ---- */

static void pairs_without_out(void)
{
    qnet_conn *conn = (qnet_conn *)&conn;
    int fd = 5;

    CHECK_INT(qnet_socketpair(NULL, &conn), QNET_ERR_INVALID);
    CHECK(conn == NULL);
    conn = (qnet_conn *)&conn;
    CHECK_INT(qnet_socketpair(&conn, NULL), QNET_ERR_INVALID);
    CHECK(conn == NULL);
    CHECK_INT(qnet_socketpair(NULL, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_socketpair(&conn, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_socketpair_fd(NULL, &fd), QNET_ERR_INVALID);
    CHECK_INT(fd, -1);
    conn = (qnet_conn *)&conn;
    CHECK_INT(qnet_socketpair_fd(&conn, NULL), QNET_ERR_INVALID);
    CHECK(conn == NULL);
}

/* The descriptor of a pair is close-on-exec, and stays open when the connection closes. */
static void pair_descriptor_is_the_callers(void)
{
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    CHECK(fcntl(fd, F_GETFD) >= 0);
}

/* ---- Dialling ---- */

/* Dials where a plain socket listens and exchanges a frame. */
static void check_dial(const char *network, const char *host, int family)
{
    struct link_kind kind = { "", NULL, NULL, AF_UNSPEC, 0, 0, 0 };
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct place place;
    qnet_conn *conn = NULL;
    char address[100];
    int listener, fd;

    kind.family = family;
    place_make(&place, &kind);
    listener = place_listen(&place);
    snprintf(address, sizeof address, "%s%s", host, strrchr(place.text, ':'));
    CHECK_INT(qnet_dial(network, address, &conn), QNET_OK);
    fd = accept_only(listener);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    raw_take(fd, &expected);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

static void dials_by_name(void)
{
    check_dial("tcp", "localhost", AF_INET);
    check_dial("tcp4", "localhost", AF_INET);
    /* The thread that resolves ends, and so frees what the resolver has allocated. */
    EVENTUALLY(footprint_now().threads == 0);
}

static void dials_this_host(void)
{
    check_dial("tcp", "", AF_INET);
    check_dial("tcp4", "", AF_INET);
}

static void dials_this_host_by_ipv6(void)
{
    check_dial("tcp6", "", AF_INET6);
    check_dial("tcp", "[::1]", AF_INET6);
}

/* A port of 127.0.0.1 where nobody listens. */
static int deaf_port(void)
{
    int port, fd = raw_tcp_listen(&port);

    close(fd);
    return port;
}

static void dial_failures(void)
{
    static const struct {
        const char *network, *address;
        int want;
    } cases[] = {
        { NULL, "127.0.0.1:1", QNET_ERR_INVALID },
        { "tcp", NULL, QNET_ERR_INVALID },
        { "", "127.0.0.1:1", QNET_ERR_INVALID },
        { "carrier-pigeon", "127.0.0.1:1", QNET_ERR_INVALID },
        { "tcp", "", QNET_ERR_INVALID },
        { "tcp", "127.0.0.1", QNET_ERR_INVALID },
        { "tcp", "127.0.0.1:65536", QNET_ERR_INVALID },
        { "tcp", "[::1:80", QNET_ERR_INVALID },
        { "unix", "", QNET_ERR_INVALID },
        { "unix", "@qnet-nobody-listens-here", QNET_ERR_REFUSED },
    };
    char address[40];
    qnet_conn *conn;
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        conn = (qnet_conn *)&i;
        CHECK_INT(qnet_dial(cases[i].network, cases[i].address, &conn), cases[i].want);
        CHECK(conn == NULL);
    }
    snprintf(address, sizeof address, "127.0.0.1:%d", deaf_port());
    conn = (qnet_conn *)&i;
    CHECK_INT(qnet_dial("tcp", address, &conn), QNET_ERR_REFUSED);
    CHECK(conn == NULL);
    CHECK_INT(qnet_last_errno(), ECONNREFUSED);
    CHECK(strstr(qnet_last_error(), address) != NULL);
}

/*
 * If the system assigns a socket the very port that it dials, TCP connects it to itself.
 * The library must report that nobody listens.
 */
static void a_dial_does_not_meet_itself(void)
{
    FILE *range;
    qnet_conn *conn;
    int round;

    if (!be_alone())
        check_skip("no right to make a network namespace");
    range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "w");
    if (!range || fputs("40001 40001", range) < 0 || fclose(range) != 0)
        check_skip("no right to say which ports are given out");
    for (round = 0; round < 20; round++) { /* a refused dial does not keep the port */
        CHECK_INT(qnet_dial("tcp", "127.0.0.1:40001", &conn), QNET_ERR_REFUSED);
        CHECK_INT(qnet_last_errno(), ECONNREFUSED);
    }
}

/* If the place for the handle is NULL, nobody is dialled. */
static void dial_without_out(void)
{
    char address[40];
    int port, listener = raw_tcp_listen(&port);

    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    CHECK_INT(qnet_dial("tcp", address, NULL), QNET_ERR_INVALID);
    CHECK(!raw_readable(listener, 50));
}

int main(void)
{
    RUN_EACH(opens);
    RUN_EACH(handled_descriptor);
    RUN_EACH(addresses);
    RUN_EACH(early_frames_wait);
    RUN_EACH(sizes_sent);
    RUN_EACH(sizes_received);
    RUN(sizes_between_two_connections);
    RUN(from_fd_refuses);
    RUN(from_fd_without_a_descriptor);
    RUN(from_fd_without_out);
    RUN(from_fd_takes_the_descriptor);
    RUN(pairs_without_out);
    RUN(pair_descriptor_is_the_callers);
    RUN(dials_by_name);
    RUN(dials_this_host);
    RUN(dials_this_host_by_ipv6);
    RUN(dial_failures);
    RUN(a_dial_does_not_meet_itself);
    RUN(dial_without_out);
    return check_done();
}
