/*
 * cred.c - who the peer is, for every kind of connection.
 */
#include "redialling.h"

/* Checks that the peer is a process of this user. */
static void is_of(qnet_conn *conn, pid_t pid)
{
    qnet_cred cred;

    memset(&cred, 0xff, sizeof cred);
    CHECK_INT(qnet_peer_cred(conn, &cred, sizeof cred), sizeof cred);
    CHECK_INT(cred.uid, getuid());
    CHECK_INT(cred.gid, getgid());
    CHECK_INT(cred.pid, pid);
}

static void is_unknown(qnet_conn *conn)
{
    qnet_cred cred;

    CHECK_INT(qnet_peer_cred(conn, &cred, sizeof cred), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_peer_cred(conn, NULL, 0), QNET_ERR_INVALID);
}

/* A child that does something, and then waits to be ended. */
static pid_t child_that(void (*does)(const char *place), const char *place)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child > 0)
        return child;
    does(place);
    for (;;)
        pause();
}

static void end_child(pid_t child)
{
    int status;

    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
}

static void connects(const char *place)
{
    CHECK(raw_unix_connect(place) >= 0);
}

/* Of an accepted connection it is who dialled, also when that has ended, and the connection too. */
static void accepted(void)
{
    const char *place = scratch_abstract("accepted");
    qnet_listener *listener = NULL;
    qnet_conn *conn = NULL;
    pid_t child;

    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    child = child_that(connects, place);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conn), QNET_OK);
    is_of(conn, child);
    end_child(child);
    CHECK_INT(make_recv(conn), QNET_ERR_CLOSED);
    is_of(conn, child);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void listens(const char *place)
{
    CHECK(raw_unix_listen(place) >= 0);
}

/* Of a dialled one it is who listened. While it is down there is nobody, and then there is another. */
static void dialled_again(void)
{
    const char *place = scratch_abstract("dialled");
    qnet_conn *conn = NULL;
    pid_t child = child_that(listens, place);

    EVENTUALLY(qnet_dial("unix", place, &conn) == QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_OK);
    is_of(conn, child);
    end_child(child);
    finds_nothing(conn);
    is_unknown(conn);
    child = child_that(listens, place);
    EVENTUALLY(stats_of(conn).reconnects == 1);
    is_of(conn, child);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    is_of(conn, child);
    CHECK_INT(qnet_close(conn), QNET_OK);
    end_child(child);
}

static void sequenced(void)
{
    const char *place = scratch_abstract("sequenced");
    qnet_listener *listener = NULL;
    qnet_conn *a = NULL, *b = NULL;

    CHECK_INT(qnet_listen("unixpacket", place, &listener), QNET_OK);
    CHECK_INT(qnet_dial("unixpacket", place, &a), QNET_OK);
    CHECK_INT(qnet_accept(listener, patience_ms(), &b), QNET_OK);
    is_of(a, getpid());
    is_of(b, getpid());
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* The ends of pairs, which are this process's own, and sockets that are adopted. */
static void pairs(void)
{
    static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM };
    qnet_conn *a, *b;
    qnet_hub *hub;
    size_t i;
    int fds[2];

    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    is_of(a, getpid());
    CHECK_INT(qnet_close(a), QNET_OK);
    is_of(b, getpid());
    CHECK_INT(qnet_close(b), QNET_OK);
    a = raw_pair(&fds[0]);
    is_of(a, getpid());
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK(close(fds[0]) == 0);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &a), QNET_OK);
    is_of(a, getpid());
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(a), QNET_OK);
    for (i = 0; i < sizeof types / sizeof *types; i++) {
        CHECK(socketpair(AF_UNIX, types[i], 0, fds) == 0);
        CHECK_INT(qnet_from_fd(fds[0], &a), QNET_OK);
        is_of(a, getpid());
        CHECK_INT(qnet_close(a), QNET_OK);
        CHECK(close(fds[1]) == 0);
    }
}

static void unknown_over_tcp(void)
{
    int port, listener = raw_tcp_listen(&port);
    char address[40];
    qnet_conn *conn = NULL;

    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    CHECK_INT(qnet_dial("tcp", address, &conn), QNET_OK);
    is_unknown(conn);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(listener) == 0);
}

static void unknown_of_datagrams(void)
{
    const char *local = scratch_abstract("here"), *remote = scratch_abstract("there");
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dgram("udp", "127.0.0.1:0", NULL, &conn), QNET_OK);
    is_unknown(conn);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_dgram("unixgram", local, remote, &conn), QNET_OK);
    is_unknown(conn);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void of_a_tap(void)
{
    qnet_conn *conn = NULL;

    if (qnet_tap(NULL, &conn) != QNET_OK)
        check_skip("no right to make a TAP");
    is_unknown(conn);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* The struct may be another than the library's, and what is judged first is the handle. */
static void sizes_and_arguments(void)
{
    struct {
        qnet_cred cred;
        int64_t more;
    } larger;
    int64_t uid[2] = { -1, -1 };
    qnet_conn *a, *b;

    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    memset(&larger, 0xff, sizeof larger);
    CHECK_INT(qnet_peer_cred(a, &larger.cred, sizeof larger), sizeof larger.cred);
    CHECK_INT(larger.cred.pid, getpid());
    CHECK_INT(larger.more, 0);
    CHECK_INT(qnet_peer_cred(a, (qnet_cred *)uid, sizeof uid[0]), sizeof larger.cred);
    CHECK_INT(uid[0], getuid());
    CHECK_INT(uid[1], -1);
    CHECK_INT(qnet_peer_cred(a, NULL, sizeof larger), QNET_ERR_INVALID);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_peer_cred(a, NULL, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_peer_cred(NULL, &larger.cred, sizeof larger.cred), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(b), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN(accepted);
    RUN(dialled_again);
    RUN(sequenced);
    RUN(pairs);
    RUN(unknown_over_tcp);
    RUN(unknown_of_datagrams);
    RUN(of_a_tap);
    RUN(sizes_and_arguments);
    scratch_remove();
    return check_done();
}
