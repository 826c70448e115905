/*
 * children.c - fork, exec, and calls that are made while a thread or the process
 * ends: a child has a library of its own, and its parent notices nothing.
 */
#include <sys/prctl.h>

#include "forked.h"
#include "host.h"

/* ---- fork ---- */

/* The library works as in a process that has just begun. */
static void check_fresh_library(void)
{
    unsigned char got[FRAME];
    int fd, count = 0;
    qnet_conn *conn = raw_pair(&fd), *a, *b;

    check_traffic(conn, fd);
    CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    EVENTUALLY(get(&count));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    close(fd);
    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    CHECK_INT(qnet_send(a, frame_bytes, FRAME), QNET_OK);
    CHECK_INT(qnet_recv(b, got, sizeof got, patience_ms()), FRAME);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
}

/* What a parent has when it forks. */
struct family {
    qnet_conn *pulled, *handled;
    qnet_listener *listener;
    int pulled_fd, handled_fd, handled_count;
    char path[100];
};

static void make_family(struct family *family)
{
    char name[20];

    snprintf(name, sizeof name, "family-%ld", (long)getpid());
    memset(family, 0, sizeof *family);
    snprintf(family->path, sizeof family->path, "%s", scratch_path(name));
    family->listener = listen_on("unix", family->path);
    family->pulled = raw_pair(&family->pulled_fd);
    family->handled = raw_pair(&family->handled_fd);
    CHECK_INT(qnet_set_handler(family->handled, count_frame, &family->handled_count), QNET_OK);
}

/* Checks that the child has touched none of the family's objects, which work and end in order. */
static void check_family(struct family *family)
{
    qnet_conn *conn;
    int fd;

    CHECK(!raw_readable(family->pulled_fd, 50));
    CHECK(!raw_readable(family->handled_fd, 50));
    check_traffic(family->pulled, family->pulled_fd);
    raw_send(family->handled_fd, frame_bytes, FRAME);
    EVENTUALLY(get(&family->handled_count));
    fd = raw_unix_connect(family->path);
    CHECK(fd >= 0);
    CHECK_INT(qnet_accept(family->listener, patience_ms(), &conn), QNET_OK);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(family->pulled), QNET_OK);
    CHECK_INT(qnet_close(family->handled), QNET_OK);
    CHECK_INT(qnet_listener_close(family->listener), QNET_OK);
    CHECK(raw_ended(family->pulled_fd));
    CHECK(raw_ended(family->handled_fd));
}

/* Checks that the parent's handles are not valid in the child. */
static void check_orphan(const struct family *family)
{
    unsigned char frame[FRAME];
    qnet_conn *conn = (qnet_conn *)1;

    CHECK_INT(qnet_send(family->pulled, frame_bytes, FRAME), QNET_ERR_HANDLE);
    CHECK_INT(qnet_recv(family->pulled, frame, sizeof frame, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close_reason(family->pulled), QNET_ERR_HANDLE);
    CHECK_INT(qnet_fd(family->pulled), QNET_ERR_HANDLE);
    CHECK_INT(qnet_shutdown(family->pulled), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(family->pulled), QNET_ERR_HANDLE);
    CHECK_INT(qnet_set_handler(family->handled, NULL, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_wait(family->handled, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(family->handled), QNET_ERR_HANDLE);
    CHECK_INT(qnet_accept(family->listener, 0, &conn), QNET_ERR_HANDLE);
    CHECK(conn == NULL);
    CHECK_INT(qnet_listener_close(family->listener), QNET_ERR_HANDLE);
}

enum { FRESH = 8 };

/* The child makes handles of its own before it tries the parent's, or only afterwards. */
static void check_fork(int fresh_first)
{
    struct family family;
    qnet_conn *conns[FRESH];
    int fds[FRESH], i;
    pid_t child;

    make_family(&family);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (i = 0; fresh_first && i < FRESH; i++)
            conns[i] = raw_pair(&fds[i]);
        check_orphan(&family);
        check_fresh_library();
        check_orphan(&family);
        for (i = 0; fresh_first && i < FRESH; i++)
            check_traffic(conns[i], fds[i]);
        end_child();
    }
    wait_for_child(child);
    check_family(&family);
}

static void fork_and_stale_handles(void)
{
    check_fork(0);
}

static void fork_and_fresh_library(void)
{
    check_fork(1);
}

static void fork_of_a_fork(void)
{
    struct family family;
    pid_t child;

    make_family(&family);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        check_fork(1);
        end_child();
    }
    wait_for_child(child);
    check_family(&family);
}

/* A child that lives on and does nothing does not keep open what the parent closes. */
static void fork_and_close(void)
{
    struct family family;
    qnet_listener *listener = listen_on("tcp4", "127.0.0.1:0");
    char address[40];
    pid_t child;
    int status;

    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    make_family(&family);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    check_family(&family);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(raw_tcp_connect(atoi(strrchr(address, ':') + 1)), -1);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
}

/* Parent and child do not choose the same hardware addresses. */
static void fork_and_hardware_address(void)
{
    uint8_t ours[6], theirs[6];
    int ends[2], fd;
    qnet_conn *conn = raw_pair(&fd);
    pid_t child;

    CHECK(pipe(ends) == 0);
    CHECK_INT(qnet_hwaddr(conn, ours), QNET_OK);
    child = fork();
    CHECK(child >= 0);
    conn = raw_pair(&fd);
    CHECK_INT(qnet_hwaddr(conn, ours), QNET_OK);
    if (child == 0) {
        CHECK(write(ends[1], ours, sizeof ours) == sizeof ours);
        end_child();
    }
    wait_for_child(child);
    CHECK(read(ends[0], theirs, sizeof theirs) == sizeof theirs);
    CHECK(memcmp(ours, theirs, sizeof ours) != 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

struct forker {
    qnet_conn *conn;
    pid_t child;
    int done;
};

/* A handler that forks; its own thread is the only one in the child. */
static void fork_here(void *user, const uint8_t *frame, size_t len)
{
    struct forker *forker = user;

    (void)frame;
    (void)len;
    forker->child = fork();
    if (forker->child == 0) {
        CHECK_INT(qnet_close_reason(forker->conn), QNET_ERR_HANDLE);
        CHECK_INT(qnet_send(forker->conn, frame_bytes, FRAME), QNET_ERR_HANDLE);
        check_fresh_library();
        end_child();
    }
    put(&forker->done, 1);
}

/* A child that is forked inside a handler has a library of its own. */
static void fork_in_handler(void)
{
    struct forker forker;
    int fd;

    memset(&forker, 0, sizeof forker);
    forker.conn = raw_pair(&fd);
    CHECK_INT(qnet_set_handler(forker.conn, fork_here, &forker), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    EVENTUALLY(get(&forker.done));
    CHECK(forker.child > 0);
    wait_for_child(forker.child);
    CHECK_INT(qnet_set_handler(forker.conn, NULL, NULL), QNET_OK);
    check_traffic(forker.conn, fd);
    CHECK_INT(qnet_close(forker.conn), QNET_OK);
    CHECK(raw_ended(fd));
}

static int busy_stop;

/* Uses the library all the time, so that forks find its locks and tables in use. */
static void *keep_busy(void *unused)
{
    unsigned char frame[FRAME];
    qnet_conn *a, *b;
    int count = 0;

    (void)unused;
    while (!get(&busy_stop)) {
        CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
        CHECK_INT(qnet_set_handler(b, count_frame, &count), QNET_OK);
        CHECK_INT(qnet_send(a, frame_bytes, FRAME), QNET_OK);
        CHECK_INT(qnet_recv(a, frame, sizeof frame, 0), QNET_ERR_AGAIN);
        CHECK_INT(qnet_close(a), QNET_OK);
        CHECK_INT(qnet_close(b), QNET_OK);
    }
    return NULL;
}

/* A child works, whatever other threads were doing in the library when one of them forked. */
static void fork_while_busy(void)
{
    pthread_t threads[2];
    int i;

    for (i = 0; i < 2; i++)
        start_thread(&threads[i], keep_busy, NULL);
    for (i = rounds(100); i > 0; i--) {
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            alarm((unsigned)(20 * check_slow()));
            check_fresh_library();
            end_child();
        }
        wait_for_child(child);
    }
    put(&busy_stop, 1);
    for (i = 0; i < 2; i++)
        join_thread(threads[i]);
}

static void fork_and_exec(void)
{
    struct family family;
    pid_t child;

    make_family(&family);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", ":", (char *)NULL);
        _exit(127);
    }
    wait_for_child(child);
    check_family(&family);
}

/* ---- calls made while a thread or the process ends ---- */

static qnet_conn *last_conn;
static int last_fd, last_report;

/*
 * Makes a failing call, which leaves this thread an error text, and uses old
 * and new connections.
 */
static void call_at_the_end(void)
{
    qnet_conn *conn;

    CHECK_INT(qnet_dial("unix", "/nowhere/at/all", &conn), QNET_ERR_REFUSED);
    CHECK_INT(qnet_last_errno(), ENOENT);
    check_traffic(last_conn, last_fd);
    check_fresh_library();
    CHECK_INT(qnet_close(last_conn), QNET_OK);
    CHECK_INT(qnet_close(last_conn), QNET_ERR_HANDLE);
    CHECK(write(last_report, "", 1) == 1);
}

/* Leaves this thread an error text, and a connection that it has used. */
static void call_before_the_end(void)
{
    CHECK_INT(qnet_close(NULL), QNET_ERR_HANDLE);
    last_conn = raw_pair(&last_fd);
    check_traffic(last_conn, last_fd);
}

static void calls_from_atexit(void)
{
    int ends[2];
    pid_t child;
    char byte;

    CHECK(pipe(ends) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        last_report = ends[1];
        call_before_the_end();
        CHECK(atexit(call_at_the_end) == 0);
        exit(0);
    }
    wait_for_child(child);
    close(ends[1]);
    CHECK_INT(read(ends[0], &byte, 1), 1);
}

static pthread_key_t last_key;

static void call_in_destructor(void *unused)
{
    (void)unused;
    call_at_the_end();
}

static void *end_with_calls(void *unused)
{
    (void)unused;
    call_before_the_end();
    CHECK_INT(pthread_setspecific(last_key, &last_key), 0);
    return NULL;
}

static void end_handler_with_calls(void *begun, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    end_with_calls(NULL);
    put(begun, 1);
}

/*
 * Destructors of thread-specific data call the library, on a thread of the
 * program and on one of the library.
 */
static void calls_from_thread_exit(void)
{
    int ends[2], fd, begun = 0;
    pthread_t thread;
    qnet_conn *conn;
    char byte;

    CHECK(pipe(ends) == 0);
    last_report = ends[1];
    CHECK_INT(pthread_key_create(&last_key, call_in_destructor), 0);
    start_thread(&thread, end_with_calls, NULL);
    join_thread(thread);
    CHECK_INT(read(ends[0], &byte, 1), 1);

    conn = raw_pair(&fd);
    CHECK_INT(qnet_set_handler(conn, end_handler_with_calls, &begun), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    EVENTUALLY(get(&begun));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(read(ends[0], &byte, 1), 1);
}

int main(void)
{
    scratch_make();
    RUN(fork_and_stale_handles);
    RUN(fork_and_fresh_library);
    RUN(fork_of_a_fork);
    RUN(fork_and_close);
    RUN(fork_and_hardware_address);
    RUN(fork_in_handler);
    RUN(fork_while_busy);
    RUN(fork_and_exec);
    RUN(calls_from_atexit);
    RUN(calls_from_thread_exit);
    scratch_remove();
    return check_done();
}
