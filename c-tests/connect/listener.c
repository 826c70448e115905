/*
 * listener.c - listening and accepting, with plain sockets as clients, what must not end
 * a listener, and listening sockets that are adopted.
 */
#include <limits.h>
#include <netdb.h>
#include <sys/resource.h>

#include "listening.h"
#include "places.h"

static const char *address_of(qnet_listener *listener)
{
    static char text[200];
    int len = qnet_listener_addr(listener, text, sizeof text);

    CHECK_INT(len, strlen(text));
    return text;
}

static int port_of(qnet_listener *listener)
{
    const char *colon = strrchr(address_of(listener), ':');

    CHECK(colon != NULL);
    CHECK(atoi(colon + 1) > 0);
    return atoi(colon + 1);
}

/* A socket connected to a numeric host, or -1. */
static int connect_to(const char *host, int port)
{
    struct addrinfo hints, *found = NULL;
    char service[12];
    int fd, failed;

    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    snprintf(service, sizeof service, "%d", port);
    CHECK_INT(getaddrinfo(host, service, &hints, &found), 0);
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    failed = fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0;
    freeaddrinfo(found);
    if (!failed)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- listening and accepting ---- */

/* Every way to listen over TCP, the listener's address, and the hosts that can connect to it. */
static void tcp_networks(void)
{
    static const struct {
        const char *network, *address, *prefix, *host, *other_host;
        int ipv6;
    } table[] = {
        { "tcp", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1", NULL, 0 },
        { "tcp4", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1", NULL, 0 },
        { "tcp4", "localhost:0", "127.0.0.1:", "127.0.0.1", NULL, 0 },
        { "tcp4", ":0", "", "127.0.0.1", NULL, 0 },
        { "tcp", "[::1]:0", "[::1]:", "::1", NULL, 1 },
        { "tcp6", "[::1]:0", "[::1]:", "::1", NULL, 1 },
        { "tcp6", ":0", "", "::1", NULL, 1 },
        { "tcp", ":0", "", "127.0.0.1", "::1", 1 },
    };
    size_t i;

    for (i = 0; i < sizeof table / sizeof *table; i++) {
        qnet_listener *listener;
        const char *text;

        if (table[i].ipv6 && !ipv6_here())
            continue;
        listener = listen_on(table[i].network, table[i].address);
        text = address_of(listener);
        CHECK(strncmp(text, table[i].prefix, strlen(table[i].prefix)) == 0);
        check_serves(listener, connect_to(table[i].host, port_of(listener)));
        if (table[i].other_host)
            check_serves(listener, connect_to(table[i].other_host, port_of(listener)));
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
}

/* A listener is at the port that the caller has given. */
static void tcp_port_given(void)
{
    char address[40];
    qnet_listener *listener;
    int port, fd = raw_tcp_listen(&port);

    close(fd);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    listener = listen_on("tcp", address);
    CHECK(strcmp(address_of(listener), address) == 0);
    check_serves(listener, raw_tcp_connect(port));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(raw_tcp_connect(port), -1);
}

/* A server that has closed its connections itself can listen on its port again at once. */
static void tcp_restart(void)
{
    qnet_listener *listener = listen_on("tcp", "127.0.0.1:0");
    char address[200];

    snprintf(address, sizeof address, "%s", address_of(listener));
    check_serves(listener, raw_tcp_connect(port_of(listener)));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    listener = listen_on("tcp", address);
    check_serves(listener, raw_tcp_connect(port_of(listener)));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void unix_networks(void)
{
    const char *addresses[2];
    size_t i;

    addresses[0] = scratch_path("listen.sock");
    addresses[1] = scratch_abstract("listen");
    for (i = 0; i < 2; i++) {
        qnet_listener *listener = listen_on("unix", addresses[i]);

        CHECK(strcmp(address_of(listener), addresses[i]) == 0);
        check_serves(listener, raw_unix_connect(addresses[i]));
        check_serves(listener, raw_unix_connect(addresses[i]));
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
        CHECK(!exists(addresses[i]));
        CHECK_INT(raw_unix_connect(addresses[i]), -1);
    }
}

static void *connect_later(void *path)
{
    raw_sleep_ms(100);
    CHECK(raw_unix_connect(path) >= 0);
    return NULL;
}

static void accept_timeouts(void)
{
    const char *path = scratch_path("timeout.sock");
    qnet_listener *listener = listen_on("unix", path);
    qnet_conn *conn = (qnet_conn *)1;
    pthread_t thread;
    long long begin;
    int fd;

    CHECK_INT(qnet_accept(listener, 0, &conn), QNET_ERR_AGAIN);
    CHECK(conn == NULL);
    begin = raw_now_ms();
    conn = (qnet_conn *)1;
    CHECK_INT(qnet_accept(listener, 100, &conn), QNET_ERR_TIMEOUT);
    CHECK(conn == NULL);
    CHECK(raw_now_ms() - begin >= 99);

    /* A timeout below -1 is refused, even if a client is there to be accepted. */
    fd = raw_unix_connect(path);
    conn = (qnet_conn *)1;
    CHECK_INT(qnet_accept(listener, -2, &conn), QNET_ERR_INVALID);
    CHECK(conn == NULL);
    CHECK_INT(qnet_accept(listener, INT_MIN, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_accept(listener, 0, &conn), QNET_OK);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);

    start_thread(&thread, connect_later, (void *)path);
    CHECK_INT(qnet_accept(listener, -1, &conn), QNET_OK);
    join_thread(thread);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* If the place for the handle is NULL, nothing is accepted, opened, adopted or dialled. */
static void null_out(void)
{
    const char *path = scratch_path("null.sock");
    qnet_listener *listener = listen_on("unix", path);
    int fd = raw_unix_connect(path), other;

    CHECK_INT(qnet_accept(listener, 0, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_accept(listener, -1, NULL), QNET_ERR_INVALID);
    check_serves(listener, fd);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);

    CHECK_INT(qnet_listen("unix", path, NULL), QNET_ERR_INVALID);
    CHECK(!exists(path));

    other = raw_unix_listen(path);
    CHECK_INT(qnet_listener_from_fd(other, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial("unix", path, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial_with("unix", path, NULL, 0, NULL), QNET_ERR_INVALID);
    check_noticed_nothing(other);
    CHECK_INT(qnet_listener_from_fd(other, &listener), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void listener_descriptor(void)
{
    const char *path = scratch_path("fd.sock");
    qnet_listener *listener = listen_on("unix", path);
    int listening = qnet_listener_fd(listener), fd;
    qnet_conn *conn;

    CHECK(listening >= 0);
    CHECK_INT(qnet_listener_fd(listener), listening);
    CHECK(!raw_readable(listening, 0));
    fd = raw_unix_connect(path);
    CHECK(raw_readable(listening, patience_ms()));
    conn = accept_from(listener);
    CHECK(!raw_readable(listening, 0));
    CHECK(!raw_readable(listening, 50));
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(fcntl(listening, F_GETFD), -1);
}

enum { ACCEPTORS = 4, CLIENTS = 40 };

static qnet_listener *shared;
static int acceptors_begun;

/* Accepts until the listener ends; returns how many it accepted. */
static void *accept_all(void *unused)
{
    qnet_conn *conn;
    size_t count = 0;
    int code;

    (void)unused;
    count_up(&acceptors_begun);
    while ((code = qnet_accept(shared, -1, &conn)) == QNET_OK) {
        CHECK_INT(qnet_close(conn), QNET_OK);
        count++;
    }
    CHECK(conn == NULL);
    CHECK_INT(code, QNET_ERR_CLOSED);
    return (void *)count;
}

/* Connects to a listener, be it of TCP or a Unix socket. */
static int connect_to_listener(qnet_listener *listener)
{
    const char *address = address_of(listener), *colon = strrchr(address, ':');

    return colon ? raw_tcp_connect(atoi(colon + 1)) : raw_unix_connect(address);
}

/*
 * Threads that accept from one listener get every client once, and all of them learn of
 * its end.
 */
static void check_sharing(qnet_listener *listener)
{
    pthread_t threads[ACCEPTORS];
    size_t sum = 0;
    int i;

    shared = listener;
    put(&acceptors_begun, 0);
    for (i = 0; i < ACCEPTORS; i++)
        start_thread(&threads[i], accept_all, NULL);
    for (i = 0; i < CLIENTS; i++) {
        int fd = connect_to_listener(shared);

        CHECK(fd >= 0);
        CHECK(raw_ended(fd));
        close(fd);
    }
    EVENTUALLY(get(&acceptors_begun) == ACCEPTORS);
    raw_sleep_ms(100 * check_slow());
    CHECK_INT(qnet_listener_close(shared), QNET_OK);
    for (i = 0; i < ACCEPTORS; i++) {
        void *count;

        CHECK_INT(pthread_join(threads[i], &count), 0);
        sum += (size_t)count;
    }
    CHECK_INT(sum, CLIENTS);
    CHECK_INT(qnet_listener_close(shared), QNET_ERR_HANDLE);
}

static void shared_by_threads(void)
{
    check_sharing(listen_on("unix", scratch_path("shared.sock")));
    check_sharing(listen_on("tcp", "127.0.0.1:0"));
}

/* ---- what must not end a listener ---- */

enum { DESCRIPTORS = 64 };

static void full_descriptor_table(void)
{
    const char *path = scratch_path("emfile.sock");
    qnet_listener *listener = listen_on("unix", path);
    int client = raw_unix_connect(path), fillers[DESCRIPTORS], count = 0, i;
    struct rlimit limit;
    qnet_conn *conn = (qnet_conn *)1;

    if (is_under_valgrind())
        check_skip("valgrind takes the client from a full process and drops it");
    CHECK(client >= 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = DESCRIPTORS;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (count < DESCRIPTORS && (fillers[count] = fcntl(client, F_DUPFD_CLOEXEC, 0)) >= 0)
        count++;
    CHECK(count > 0);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_accept(listener, i == 0 ? -1 : 0, &conn), QNET_ERR_OS);
        CHECK_INT(qnet_last_errno(), EMFILE);
        CHECK(conn == NULL);
    }
    while (count > 0)
        close(fillers[--count]);
    check_serves(listener, client);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* Resets the connection, as may happen when a process is killed. */
static void reset(int fd)
{
    raw_reset_at_close(fd);
    close(fd);
}

/*
 * A client that has vanished may be accepted as an ended connection, or not at all; the
 * next one is served.
 */
static void check_vanished(qnet_listener *listener, int vanishing, int client)
{
    unsigned char frame[FRAME], got[FRAME];
    qnet_conn *conn;
    int len;

    raw_fill(frame, sizeof frame, 9);
    raw_send(client, frame, sizeof frame);
    reset(vanishing);
    conn = accept_from(listener);
    len = qnet_recv(conn, got, sizeof got, patience_ms());
    if (len < 0) {
        CHECK_INT(qnet_close(conn), QNET_OK);
        conn = accept_from(listener);
        len = qnet_recv(conn, got, sizeof got, patience_ms());
    }
    CHECK_INT(len, FRAME);
    CHECK(raw_is(got, sizeof got, 9));
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(client);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void vanished_client(void)
{
    const char *path = scratch_path("vanished.sock");
    qnet_listener *listener = listen_on("tcp", "127.0.0.1:0");
    int port = port_of(listener), vanishing = raw_tcp_connect(port);

    check_vanished(listener, vanishing, raw_tcp_connect(port));
    listener = listen_on("unix", path);
    vanishing = raw_unix_connect(path);
    check_vanished(listener, vanishing, raw_unix_connect(path));
}

static void too_many_connections(void)
{
    const char *path = scratch_path("max.sock");
    qnet_listener *listener = listen_on("unix", path);
    int fds[3];
    qnet_conn *conns[2], *conn = (qnet_conn *)1;

    CHECK_INT(qnet_listener_set(listener, QNET_OPT_MAX_CONNS, 2), QNET_OK);
    fds[0] = raw_unix_connect(path);
    conns[0] = accept_from(listener);
    fds[1] = raw_unix_connect(path);
    conns[1] = accept_from(listener);

    fds[2] = raw_unix_connect(path);
    CHECK_INT(qnet_accept(listener, 100, &conn), QNET_ERR_TIMEOUT);
    CHECK(conn == NULL);
    CHECK(raw_ended(fds[2]));
    close(fds[2]);
    fds[2] = raw_unix_connect(path);
    CHECK_INT(qnet_accept(listener, 0, &conn), QNET_ERR_AGAIN);
    CHECK(raw_ended(fds[2]));
    close(fds[2]);

    /* The two that were accepted go on; when one is closed there is room again. */
    check_traffic(conns[0], fds[0]);
    check_traffic(conns[1], fds[1]);
    CHECK_INT(qnet_close(conns[0]), QNET_OK);
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_close(conns[1]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* A connection starts with the options that its listener has when it is accepted. */
static void inherited_options(void)
{
    static const struct {
        int option;
        int64_t value;
    } table[] = {
        { QNET_OPT_SEND_TIMEOUT_MS, 1234 }, { QNET_OPT_MAX_FRAME, 1000 }, { QNET_OPT_PAD, 1 },
        { QNET_OPT_LINGER_MS, 77 },         { QNET_OPT_WAIT, 0 },
        { QNET_OPT_LINK, 0 },               { QNET_OPT_FLIGHT_BYTES, 1 << 20 },
        { QNET_OPT_OUTLIVE, 1 },
    };
    const char *path = scratch_path("options.sock");
    qnet_listener *listener = listen_on("unix", path);
    unsigned char frame[1001] = { 0 }, got[FRAME];
    int before = raw_unix_connect(path), after;
    qnet_conn *old = accept_from(listener), *conn;
    size_t i;

    for (i = 0; i < sizeof table / sizeof *table; i++)
        CHECK_INT(qnet_listener_set(listener, table[i].option, table[i].value), QNET_OK);
    after = raw_unix_connect(path);
    conn = accept_from(listener);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int64_t value = -99;

        CHECK_INT(qnet_listener_get(listener, table[i].option, &value), QNET_OK);
        CHECK_INT(value, table[i].value);
        CHECK_INT(qnet_get(conn, table[i].option, &value), QNET_OK);
        CHECK_INT(value, table[i].value);
        CHECK_INT(qnet_get(old, table[i].option, &value), QNET_OK);
        CHECK(value != table[i].value);
    }
    CHECK_INT(qnet_send(old, frame, 1001), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, 1001), QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_send(conn, frame, 14), QNET_OK);
    CHECK_INT(raw_recv(after, got, sizeof got), FRAME);
    close(before);
    close(after);
    CHECK_INT(qnet_close(old), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* Connections outlive their listener. */
static void connections_outlive_listener(void)
{
    const char *path = scratch_path("outlive.sock");
    qnet_listener *listener = listen_on("unix", path);
    int fd = raw_unix_connect(path);
    qnet_conn *conn = accept_from(listener);

    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

/* ---- adopting a listening socket ---- */

static void adopted_listener(void)
{
    const char *path = scratch_path("adopted.sock");
    qnet_listener *listener = NULL;
    int fd = raw_unix_listen(path), port;

    CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
    CHECK(strcmp(address_of(listener), path) == 0);
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    CHECK(exists(path));

    fd = raw_tcp_listen(&port);
    CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
    CHECK_INT(port_of(listener), port);
    check_serves(listener, raw_tcp_connect(port));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
}

/* An adopted socket may be shared by threads, whether it is O_NONBLOCK or not. */
static void adopted_listener_shared_by_threads(void)
{
    qnet_listener *listener = NULL;
    int nonblocking, port;

    for (nonblocking = 0; nonblocking < 2; nonblocking++) {
        int fd = raw_tcp_listen(&port);

        if (nonblocking)
            set_nonblocking(fd);
        CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
        CHECK_INT(!!(fcntl(fd, F_GETFL) & O_NONBLOCK), nonblocking);
        check_sharing(listener);
    }
}

/* A descriptor that does not listen is refused and stays open. */
static void not_a_listener(void)
{
    int fds[6], pair[2], ends[2];
    qnet_listener *listener = (qnet_listener *)1;
    size_t i;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(pipe(ends) == 0);
    fds[0] = pair[0];
    fds[1] = ends[0];
    fds[2] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[3] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[4] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    fds[5] = open(scratch_path("regular"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (i = 0; i < sizeof fds / sizeof *fds; i++) {
        CHECK(fds[i] >= 0);
        listener = (qnet_listener *)1;
        CHECK(qnet_listener_from_fd(fds[i], &listener) < 0);
        CHECK(listener == NULL);
        CHECK(fcntl(fds[i], F_GETFD) >= 0);
    }
    CHECK(qnet_listener_from_fd(-1, &listener) < 0);
    CHECK(qnet_listener_from_fd(1000000, &listener) < 0);
}

int main(void)
{
    scratch_make();
    RUN(tcp_networks);
    RUN(tcp_port_given);
    RUN(tcp_restart);
    RUN(unix_networks);
    RUN(accept_timeouts);
    RUN(null_out);
    RUN(listener_descriptor);
    RUN(shared_by_threads);
    RUN(full_descriptor_table);
    RUN(vanished_client);
    RUN(too_many_connections);
    RUN(inherited_options);
    RUN(connections_outlive_listener);
    RUN(adopted_listener);
    RUN(adopted_listener_shared_by_threads);
    RUN(not_a_listener);
    scratch_remove();
    return check_done();
}
