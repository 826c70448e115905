/*
 * refusals.c - every way in which dialling and listening can fail.
 */
#include "listening.h"

static void check_dial_fails(const char *network, const char *address, int code)
{
    qnet_conn *conn = (qnet_conn *)1;

    CHECK_INT(qnet_dial(network, address, &conn), code);
    CHECK(conn == NULL);
}

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

/* If an option is invalid, no connection is made. */
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

/* A plain Unix listener whose backlog is full, as happens to a server that hangs. */
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
    const int64_t patient[] = { QNET_OPT_DIAL_TIMEOUT_MS, patience_ms() };
    int filler[8], fd = full_backlog(path, filler);
    qnet_conn *conn = (qnet_conn *)1;
    qnet_listener *listener = (qnet_listener *)1;
    pthread_t thread;
    long long begin = raw_now_ms();

    CHECK_INT(qnet_dial_with("unix", path, brief, 1, &conn), QNET_ERR_TIMEOUT);
    CHECK(conn == NULL);
    CHECK(raw_now_ms() - begin >= 99);

    /* Somebody listens there, though nobody can connect. */
    CHECK_INT(qnet_listen("unix", path, &listener), QNET_ERR_BUSY);
    CHECK(listener == NULL);

    start_thread(&thread, make_room_later, &fd);
    CHECK_INT(qnet_dial_with("unix", path, patient, 1, &conn), QNET_OK);
    join_thread(thread);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

int main(void)
{
    scratch_make();
    RUN(tcp_address_in_use);
    RUN(malformed_addresses);
    RUN(nobody_listens);
    RUN(unresolvable_name);
    RUN(dial_with_bad_options);
    RUN(dial_timeout);
    scratch_remove();
    return check_done();
}
