/*
 * listener.c - listening and accepting against plain sockets, and every way
 * in which dialling and listening can fail.
 */
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "raw.h"
#include "scratch.h"

enum { LONG_MS = 10000, FRAME = 60 };

/* ---- helpers ---- */

static qnet_listener *listen_on(const char *network, const char *address)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen(network, address, &listener), QNET_OK);
    CHECK(listener != NULL);
    return listener;
}

static qnet_conn *accept_from(qnet_listener *listener)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_accept(listener, LONG_MS, &conn), QNET_OK);
    CHECK(conn != NULL);
    return conn;
}

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

static int have_ipv6(void)
{
    struct sockaddr_in6 address;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int bound;

    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return bound;
}

/* A frame from the raw socket to the connection and another back. */
static void check_traffic(qnet_conn *conn, int fd)
{
    unsigned char frame[FRAME], got[FRAME];

    raw_fill(frame, sizeof frame, 1);
    raw_send(fd, frame, sizeof frame);
    CHECK_INT(qnet_recv(conn, got, sizeof got, LONG_MS), FRAME);
    CHECK(raw_is(got, sizeof got, 1));
    raw_fill(frame, sizeof frame, 2);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_recv(fd, got, sizeof got), FRAME);
    CHECK(raw_is(got, sizeof got, 2));
}

/* The listener works for a client that is connected as `fd`, which this closes. */
static void check_serves(qnet_listener *listener, int fd)
{
    qnet_conn *conn;

    CHECK(fd >= 0);
    conn = accept_from(listener);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    close(fd);
}

static int exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static unsigned mode_of(const char *path)
{
    struct stat status;

    CHECK(lstat(path, &status) == 0);
    return status.st_mode & 07777;
}

static ino_t inode_of(const char *path)
{
    struct stat status;

    CHECK(lstat(path, &status) == 0);
    return status.st_ino;
}

static void set_nonblocking(int fd)
{
    CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Nobody has connected to this raw listener. */
static void check_noticed_nothing(int fd)
{
    CHECK(!raw_readable(fd, 100));
    set_nonblocking(fd);
    CHECK_INT(accept(fd, NULL, NULL), -1);
    CHECK_INT(errno, EAGAIN);
}

static void check_listen_fails(const char *network, const char *address, int code)
{
    qnet_listener *listener = (qnet_listener *)1;

    CHECK_INT(qnet_listen(network, address, &listener), code);
    CHECK(listener == NULL);
}

static void check_dial_fails(const char *network, const char *address, int code)
{
    qnet_conn *conn = (qnet_conn *)1;

    CHECK_INT(qnet_dial(network, address, &conn), code);
    CHECK(conn == NULL);
}

/* ---- listening and accepting ---- */

/* Every TCP way to listen, the address that it prints and the hosts that then get in. */
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

        if (table[i].ipv6 && !have_ipv6())
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

/* The port that the caller names is the one that is listened at. */
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

/* A server that ended connections itself can be started again at once on its port. */
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

    /* A wait below -1 is wrong, also when somebody is there to accept. */
    fd = raw_unix_connect(path);
    conn = (qnet_conn *)1;
    CHECK_INT(qnet_accept(listener, -2, &conn), QNET_ERR_INVALID);
    CHECK(conn == NULL);
    CHECK_INT(qnet_accept(listener, INT_MIN, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_accept(listener, 0, &conn), QNET_OK);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);

    CHECK_INT(pthread_create(&thread, NULL, connect_later, (void *)path), 0);
    CHECK_INT(qnet_accept(listener, -1, &conn), QNET_OK);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* Without a place for the handle nothing is accepted, opened, adopted or dialled. */
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
    CHECK(raw_readable(listening, LONG_MS));
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
    __atomic_add_fetch(&acceptors_begun, 1, __ATOMIC_SEQ_CST);
    while ((code = qnet_accept(shared, -1, &conn)) == QNET_OK) {
        CHECK_INT(qnet_close(conn), QNET_OK);
        count++;
    }
    CHECK(conn == NULL);
    CHECK_INT(code, QNET_ERR_CLOSED);
    return (void *)count;
}

/* A client of a listener, at whatever address that has. */
static int connect_to_listener(qnet_listener *listener)
{
    const char *address = address_of(listener), *colon = strrchr(address, ':');

    return colon ? raw_tcp_connect(atoi(colon + 1)) : raw_unix_connect(address);
}

/* Threads that accept from one listener get every client once and all learn of its end. */
static void check_sharing(qnet_listener *listener)
{
    pthread_t threads[ACCEPTORS];
    size_t sum = 0;
    int i;

    shared = listener;
    __atomic_store_n(&acceptors_begun, 0, __ATOMIC_SEQ_CST);
    for (i = 0; i < ACCEPTORS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, accept_all, NULL), 0);
    for (i = 0; i < CLIENTS; i++) {
        int fd = connect_to_listener(shared);

        CHECK(fd >= 0);
        CHECK(raw_ended(fd));
        close(fd);
    }
    while (__atomic_load_n(&acceptors_begun, __ATOMIC_SEQ_CST) < ACCEPTORS)
        raw_sleep_ms(1);
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

/* ---- the socket file ---- */

static void unix_mode(void)
{
    static const mode_t masks[] = { 0, 022, 0777 };
    const char *path = scratch_path("mode.sock");
    qnet_listener *listener;
    int64_t value = 0;
    size_t i;

    for (i = 0; i < sizeof masks / sizeof *masks; i++) {
        mode_t before = umask(masks[i]);

        listener = listen_on("unix", path);
        CHECK_INT(umask(before), masks[i]);
        CHECK_INT(mode_of(path), 0600);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0666), QNET_OK);
        CHECK_INT(mode_of(path), 0666);
        CHECK_INT(qnet_listener_get(listener, QNET_OPT_UNIX_MODE, &value), QNET_OK);
        CHECK_INT(value, 0666);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, -1), QNET_ERR_INVALID);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0200000), QNET_ERR_INVALID);
        CHECK(strstr(qnet_last_error(), "QNET_OPT_UNIX_MODE, option 13, cannot be 0200000: it is "
                                        "from 0 to 0777") != NULL);
        CHECK_INT(mode_of(path), 0666);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
        CHECK(!exists(path));
    }
    listener = listen_on("tcp", "127.0.0.1:0");
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0666), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    CHECK(fd >= 0);
    CHECK(write(fd, "kept", 4) == 4);
    close(fd);
}

static void check_file(const char *path)
{
    char text[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK(read(fd, text, sizeof text) == 4);
    CHECK(memcmp(text, "kept", 4) == 0);
    close(fd);
}

/* What took the place of the library's socket file is not the library's to remove. */
static void replaced_file_stays(void)
{
    const char *path = scratch_path("replaced.sock");
    qnet_listener *listener = listen_on("unix", path);
    int fd;

    CHECK(unlink(path) == 0);
    make_file(path);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    check_file(path);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    CHECK(rename(path, scratch_path("aside.sock")) == 0);
    fd = raw_unix_listen(path);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(raw_unix_connect(path) >= 0);
    close(fd);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    CHECK(unlink(path) == 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void stale_file_replaced(void)
{
    const char *path = scratch_path("stale.sock");
    qnet_listener *listener;

    close(raw_unix_listen(path));
    CHECK(exists(path));
    listener = listen_on("unix", path);
    CHECK_INT(mode_of(path), 0600);
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(!exists(path));
}

/* A socket file where somebody accepts, whether or not there is room in the backlog. */
static void live_file_busy(void)
{
    const char *path = scratch_path("live.sock");
    int fd = raw_unix_listen(path);
    ino_t inode = inode_of(path);
    qnet_listener *listener;

    check_listen_fails("unix", path, QNET_ERR_BUSY);
    check_noticed_nothing(fd);
    CHECK_INT(inode_of(path), inode);
    close(fd);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    check_listen_fails("unix", path, QNET_ERR_BUSY);
    CHECK(!raw_readable(qnet_listener_fd(listener), 50));
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(!exists(path));

    fd = raw_unix_listen(scratch_abstract("live"));
    check_listen_fails("unix", scratch_abstract("live"), QNET_ERR_BUSY);
    check_noticed_nothing(fd);
    close(fd);
}

static void other_files_left_alone(void)
{
    const char *file = scratch_path("file"), *directory = scratch_path("directory");
    const char *link = scratch_path("link"), *fifo = scratch_path("fifo");
    qnet_listener *listener = (qnet_listener *)1;

    make_file(file);
    CHECK(qnet_listen("unix", file, &listener) < 0);
    CHECK(listener == NULL);
    check_file(file);

    CHECK(mkdir(directory, 0700) == 0);
    CHECK(qnet_listen("unix", directory, &listener) < 0);
    CHECK(rmdir(directory) == 0);

    CHECK(symlink(file, link) == 0);
    CHECK(qnet_listen("unix", link, &listener) < 0);
    CHECK(strstr(qnet_last_error(), "a symbolic link is in the way") != NULL);
    CHECK(exists(link));
    check_file(file);

    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK(qnet_listen("unix", fifo, &listener) < 0);
    CHECK(strstr(qnet_last_error(), "a file that is no socket is in the way") != NULL);
    CHECK(exists(fifo));

    check_listen_fails("unix", scratch_path("no-directory/socket"), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOENT);
}

/* ---- what must not end a listener ---- */

static void tcp_address_in_use(void)
{
    char address[40];
    int port, fd = raw_tcp_listen(&port);

    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    check_listen_fails("tcp", address, QNET_ERR_BUSY);
    check_listen_fails("tcp4", address, QNET_ERR_BUSY);
    check_noticed_nothing(fd);
    close(fd);
    check_listen_fails("tcp", "192.0.2.1:0", QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EADDRNOTAVAIL);
}

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

/* Resets instead of ending in order, as a process that was killed may. */
static void reset(int fd)
{
    raw_reset_at_close(fd);
    close(fd);
}

/* The vanished client may be handed out as an ended connection, or not at all. */
static void check_vanished(qnet_listener *listener, int vanishing, int client)
{
    unsigned char frame[FRAME], got[FRAME];
    qnet_conn *conn;
    int len;

    raw_fill(frame, sizeof frame, 9);
    raw_send(client, frame, sizeof frame);
    reset(vanishing);
    conn = accept_from(listener);
    len = qnet_recv(conn, got, sizeof got, LONG_MS);
    if (len < 0) {
        CHECK_INT(qnet_close(conn), QNET_OK);
        conn = accept_from(listener);
        len = qnet_recv(conn, got, sizeof got, LONG_MS);
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

    /* The two that are in go on; the place of one that is closed is free again. */
    check_traffic(conns[0], fds[0]);
    check_traffic(conns[1], fds[1]);
    CHECK_INT(qnet_close(conns[0]), QNET_OK);
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_close(conns[1]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* A connection begins with the options that its listener has at that time. */
static void inherited_options(void)
{
    static const struct {
        int option;
        int64_t value;
    } table[] = {
        { QNET_OPT_SEND_TIMEOUT_MS, 1234 }, { QNET_OPT_MAX_FRAME, 1000 }, { QNET_OPT_PAD, 1 },
        { QNET_OPT_LINGER_MS, 77 },         { QNET_OPT_WAIT, 0 },
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

/* Whether the adopted socket itself waits or not makes no difference. */
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

/* ---- failures of dialling and listening ---- */

static const struct {
    const char *network, *address;
} malformed[] = {
    { NULL, "127.0.0.1:1" },
    { "tcp", NULL },
    { NULL, NULL },
    { "", "127.0.0.1:1" },
    { "TCP", "127.0.0.1:1" },
    { "tcp5", "127.0.0.1:1" },
    { "tcp ", "127.0.0.1:1" },
    { "serial", "/dev/ttyS0" },
    { "tcp", "" },
    { "tcp", "127.0.0.1" },
    { "tcp", "127.0.0.1:" },
    { "tcp", "127.0.0.1:65536" },
    { "tcp", "127.0.0.1:99999999999999999999" },
    { "tcp", "127.0.0.1:-1" },
    { "tcp", "127.0.0.1:+1" },
    { "tcp", "127.0.0.1:1x" },
    { "tcp", "127.0.0.1:1 " },
    { "tcp", ":" },
    { "tcp", "::1:80" },
    { "tcp", "[::1]" },
    { "tcp", "[::1]:" },
    { "tcp", "[::1]80" },
    { "tcp", "[::1:80" },
    { "tcp6", "[::1]x:80" },
    { "unix", NULL },
    { "unix", "" },
};

static void malformed_addresses(void)
{
    char path[300];
    size_t i;

    for (i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        fprintf(stderr, "%s %s\n", malformed[i].network ? malformed[i].network : "NULL",
                malformed[i].address ? malformed[i].address : "NULL");
        check_dial_fails(malformed[i].network, malformed[i].address, QNET_ERR_INVALID);
        check_listen_fails(malformed[i].network, malformed[i].address, QNET_ERR_INVALID);
        CHECK_INT(qnet_last_errno(), 0);
    }
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    path[0] = '/';
    check_dial_fails("unix", path, QNET_ERR_INVALID);
    check_listen_fails("unix", path, QNET_ERR_INVALID);
    path[0] = '@';
    check_dial_fails("unix", path, QNET_ERR_INVALID);
    check_listen_fails("unix", path, QNET_ERR_INVALID);
}

static void nobody_listens(void)
{
    const char *stale = scratch_path("dead.sock");
    char address[40];
    int port, fd = raw_tcp_listen(&port);

    close(fd);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    check_dial_fails("tcp", address, QNET_ERR_REFUSED);
    CHECK_INT(qnet_last_errno(), ECONNREFUSED);
    check_dial_fails("tcp4", address, QNET_ERR_REFUSED);
    close(raw_unix_listen(stale));
    check_dial_fails("unix", stale, QNET_ERR_REFUSED);
    CHECK_INT(qnet_last_errno(), ECONNREFUSED);
    CHECK(exists(stale));
    check_dial_fails("unix", scratch_path("absent.sock"), QNET_ERR_REFUSED);
    CHECK_INT(qnet_last_errno(), ENOENT);
    check_dial_fails("unix", scratch_abstract("absent"), QNET_ERR_REFUSED);
}

static void unresolvable_name(void)
{
    check_dial_fails("tcp", "no-such-host.invalid:1", QNET_ERR_RESOLVE);
    check_dial_fails("tcp6", "no-such-host.invalid:1", QNET_ERR_RESOLVE);
    check_listen_fails("tcp", "no-such-host.invalid:0", QNET_ERR_RESOLVE);
}

/* Options that cannot be right: no connection is made. */
static void dial_with_bad_options(void)
{
    static const struct {
        int64_t options[4];
        size_t pairs;
        int code;
    } table[] = {
        { { 99, 1 }, 1, QNET_ERR_INVALID },
        { { 0, 1 }, 1, QNET_ERR_INVALID },
        { { -1, 1 }, 1, QNET_ERR_INVALID },
        { { (int64_t)1 << 32 | QNET_OPT_PAD, 1 }, 1, QNET_ERR_INVALID },
        { { QNET_OPT_MAX_FRAME, 13 }, 1, QNET_ERR_INVALID },
        { { QNET_OPT_DIAL_TIMEOUT_MS, -2 }, 1, QNET_ERR_INVALID },
        { { QNET_OPT_UNIX_MODE, 0600 }, 1, QNET_ERR_UNSUPPORTED },
        { { QNET_OPT_MAX_CONNS, 1 }, 1, QNET_ERR_UNSUPPORTED },
        { { QNET_OPT_PAD, 1, QNET_OPT_PAD, 2 }, 2, QNET_ERR_INVALID },
        { { QNET_OPT_PAD, 1, 99, 1 }, 2, QNET_ERR_INVALID },
    };
    const char *path = scratch_path("bad-options.sock");
    int fd = raw_unix_listen(path);
    qnet_conn *conn;
    size_t i;

    for (i = 0; i < sizeof table / sizeof *table; i++) {
        conn = (qnet_conn *)1;
        CHECK_INT(qnet_dial_with("unix", path, table[i].options, table[i].pairs, &conn),
                  table[i].code);
        CHECK(conn == NULL);
    }
    CHECK_INT(qnet_dial_with("unix", path, NULL, 1, &conn), QNET_ERR_INVALID);
    check_noticed_nothing(fd);
    CHECK_INT(qnet_dial_with("unix", path, NULL, 0, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* A Unix listener whose backlog is full, as is that of a server that hangs. */
static int full_backlog(const char *path, int *filler)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(path, &address);
    int fd = raw_unix_listen(path), i;

    CHECK(listen(fd, 0) == 0);
    for (i = 0; i < 8; i++) {
        filler[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(filler[i], (struct sockaddr *)&address, len) != 0)
            break;
    }
    CHECK(i < 8);
    CHECK_INT(errno, EAGAIN);
    close(filler[i]);
    return fd;
}

static void *make_room_later(void *fd)
{
    raw_sleep_ms(100);
    CHECK(accept(*(int *)fd, NULL, NULL) >= 0);
    return NULL;
}

static void dial_timeout(void)
{
    const char *path = scratch_path("full.sock");
    const int64_t brief[] = { QNET_OPT_DIAL_TIMEOUT_MS, 100 };
    const int64_t patient[] = { QNET_OPT_DIAL_TIMEOUT_MS, LONG_MS };
    int filler[8], fd = full_backlog(path, filler);
    qnet_conn *conn = (qnet_conn *)1;
    qnet_listener *listener = (qnet_listener *)1;
    pthread_t thread;
    long long begin = raw_now_ms();

    CHECK_INT(qnet_dial_with("unix", path, brief, 1, &conn), QNET_ERR_TIMEOUT);
    CHECK(conn == NULL);
    CHECK(raw_now_ms() - begin >= 99);

    /* It is live, though nobody can get in. */
    CHECK_INT(qnet_listen("unix", path, &listener), QNET_ERR_BUSY);
    CHECK(listener == NULL);

    CHECK_INT(pthread_create(&thread, NULL, make_room_later, &fd), 0);
    CHECK_INT(qnet_dial_with("unix", path, patient, 1, &conn), QNET_OK);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
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
    RUN(unix_mode);
    RUN(replaced_file_stays);
    RUN(stale_file_replaced);
    RUN(live_file_busy);
    RUN(other_files_left_alone);
    RUN(tcp_address_in_use);
    RUN(full_descriptor_table);
    RUN(vanished_client);
    RUN(too_many_connections);
    RUN(inherited_options);
    RUN(connections_outlive_listener);
    RUN(adopted_listener);
    RUN(adopted_listener_shared_by_threads);
    RUN(not_a_listener);
    RUN(malformed_addresses);
    RUN(nobody_listens);
    RUN(unresolvable_name);
    RUN(dial_with_bad_options);
    RUN(dial_timeout);
    scratch_remove();
    return check_done();
}
