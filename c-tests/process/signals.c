/*
 * signals.c - the library raises no SIGPIPE, and signals end its waits, but not
 * its connections.
 */
#include "host.h"

/* ---- SIGPIPE ---- */

static qnet_conn *dial_raw_tcp(int *fd)
{
    char address[40];
    int port, listening = raw_tcp_listen(&port);
    qnet_conn *conn = NULL;

    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    CHECK_INT(qnet_dial("tcp4", address, &conn), QNET_OK);
    *fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    CHECK(*fd >= 0);
    close(listening);
    return conn;
}

/* Sends until that fails, since the peer is gone, and then twice more. */
static void check_send_to_nobody(qnet_conn *conn, send_function *send_path)
{
    int tries, code = 0;

    for (tries = 0; code >= 0 && tries < 1000; tries++) {
        code = send_path(conn);
        if (code >= 0)
            raw_sleep_ms(1);
    }
    CHECK(code == QNET_ERR_CLOSED || code == QNET_ERR_OS);
    CHECK(send_path(conn) < 0);
    CHECK(send_path(conn) < 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void no_sigpipe(void)
{
    int i, fd;
    qnet_conn *conn;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (i = 0; i < SEND_PATHS; i++) {
        conn = raw_pair(&fd);
        close(fd);
        check_send_to_nobody(conn, send_paths[i]);
        conn = dial_raw_tcp(&fd);
        close(fd);
        check_send_to_nobody(conn, send_paths[i]);
    }
}

static void *close_later(void *fd)
{
    raw_sleep_ms(100);
    close(*(int *)fd);
    return NULL;
}

/* The peer leaves while a send waits for it to read. */
static void no_sigpipe_when_blocked(void)
{
    pthread_t thread;
    int i, fd, code;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (i = 0; i < SEND_PATHS; i++) {
        qnet_conn *conn = raw_pair(&fd);

        fill_socket(conn);
        CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
        start_thread(&thread, close_later, &fd);
        code = send_paths[i](conn);
        CHECK(code == QNET_ERR_CLOSED || code == QNET_ERR_OS);
        join_thread(thread);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

struct echo {
    qnet_conn *conn;
    int ended;
};

static void echo_frame(void *user, const uint8_t *frame, size_t len)
{
    qnet_send(((struct echo *)user)->conn, frame, len);
}

static void echo_ended(void *user, int reason)
{
    (void)reason;
    put(&((struct echo *)user)->ended, 1);
}

/* A handler answers a peer that has already left. */
static void no_sigpipe_in_handler(void)
{
    struct echo echo;
    int fd, i;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    memset(&echo, 0, sizeof echo);
    echo.conn = raw_pair(&fd);
    for (i = 0; i < 20; i++)
        raw_send(fd, frame_bytes, FRAME);
    close(fd);
    CHECK_INT(qnet_set_close_handler(echo.conn, echo_ended, &echo), QNET_OK);
    CHECK_INT(qnet_set_handler(echo.conn, echo_frame, &echo), QNET_OK);
    EVENTUALLY(get(&echo.ended));
    CHECK_INT(qnet_close(echo.conn), QNET_OK);
}

/* Closing writes what was taken, to a peer that leaves in the middle of it. */
static void no_sigpipe_in_close(void)
{
    pthread_t thread;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    fill_socket(conn);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 2000), QNET_OK);
    start_thread(&thread, close_later, &fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    join_thread(thread);
}

/* ---- signals end waits ---- */

/* What the waiting calls wait on. */
static struct {
    qnet_conn *conn, *full;
    qnet_listener *listener;
    const char *full_path;
    int timeout;
} waiting;

static int wait_in_dial(void)
{
    const int64_t options[] = { QNET_OPT_DIAL_TIMEOUT_MS, waiting.timeout };
    qnet_conn *conn = (qnet_conn *)1;
    int code = qnet_dial_with("unix", waiting.full_path, options, 1, &conn);

    CHECK(conn == NULL);
    return code;
}

static int wait_in_accept(void)
{
    qnet_conn *conn = (qnet_conn *)1;
    int code = qnet_accept(waiting.listener, waiting.timeout, &conn);

    CHECK(conn == NULL);
    return code;
}

static int wait_in_recv(void)
{
    unsigned char frame[FRAME];

    return qnet_recv(waiting.conn, frame, sizeof frame, waiting.timeout);
}

static int wait_in_recv_batch(void)
{
    qnet_frame frames[4];

    return qnet_recv_batch(waiting.conn, frames, 4, waiting.timeout);
}

static int wait_in_recv_packed(void)
{
    unsigned char packed[200];

    return qnet_recv_packed(waiting.conn, packed, sizeof packed, waiting.timeout);
}

static int wait_in_wait(void)
{
    return qnet_wait(waiting.conn, waiting.timeout);
}

static int wait_in_poll(void)
{
    uint8_t ready;

    return qnet_poll(&waiting.conn, &ready, 1, waiting.timeout);
}

static int wait_in_send(void)
{
    CHECK_INT(qnet_set(waiting.full, QNET_OPT_SEND_TIMEOUT_MS, waiting.timeout), QNET_OK);
    return qnet_send(waiting.full, frame_bytes, FRAME);
}

static int wait_in_send_batch(void)
{
    CHECK_INT(qnet_set(waiting.full, QNET_OPT_SEND_TIMEOUT_MS, waiting.timeout), QNET_OK);
    return send_batch(waiting.full);
}

static const struct {
    const char *name;
    int (*call)(void);
} waits[] = {
    { "dial", wait_in_dial },
    { "accept", wait_in_accept },
    { "recv", wait_in_recv },
    { "recv_batch", wait_in_recv_batch },
    { "recv_packed", wait_in_recv_packed },
    { "wait", wait_in_wait },
    { "poll", wait_in_poll },
    { "send", wait_in_send },
    { "send_batch", wait_in_send_batch },
};

/*
 * A thread that signals another again and again: a signal that comes before the wait does
 * not end it.
 */
struct poker {
    pthread_t thread, target;
    int stop;
};

static int signals_handled;

static void on_signal(int number)
{
    (void)number;
    count_up(&signals_handled);
}

static void *poke(void *argument)
{
    struct poker *poker = argument;

    while (!get(&poker->stop)) {
        raw_sleep_ms(50);
        pthread_kill(poker->target, SIGUSR1);
    }
    return NULL;
}

static void check_interrupted(const char *name, int (*call)(void))
{
    struct poker poker;
    long long begin = raw_now_ms();
    int code;

    fprintf(stderr, "%s with a timeout of %d\n", name, waiting.timeout);
    signals_handled = 0;
    poker.target = pthread_self();
    poker.stop = 0;
    start_thread(&poker.thread, poke, &poker);
    code = call();
    put(&poker.stop, 1);
    join_thread(poker.thread);
    CHECK_INT(code, QNET_ERR_INTERRUPTED);
    CHECK(get(&signals_handled));
    CHECK(raw_now_ms() - begin < patience_ms());
}

/* Opens a plain Unix listener whose backlog is full. */
static void fill_backlog(const char *path)
{
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(path, &address);
    int fd = raw_unix_listen(path), filler;

    CHECK(listen(fd, 0) == 0);
    do {
        filler = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    } while (connect(filler, (struct sockaddr *)&address, len) == 0);
    CHECK_INT(errno, EAGAIN);
}

static void check_signals(int flags, int timeout)
{
    struct sigaction action;
    int fd, full_fd;
    size_t i;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    waiting.conn = raw_pair(&fd);
    waiting.full = raw_pair(&full_fd);
    fill_socket(waiting.full);
    waiting.listener = listen_on("unix", scratch_path("signals.sock"));
    waiting.full_path = scratch_abstract("signals");
    waiting.timeout = timeout;
    fill_backlog(waiting.full_path);
    for (i = 0; i < sizeof waits / sizeof *waits; i++)
        check_interrupted(waits[i].name, waits[i].call);

    /* The connection still works. */
    check_traffic(waiting.conn, fd);
    close(full_fd);
    CHECK_INT(qnet_close(waiting.conn), QNET_OK);
    CHECK_INT(qnet_close(waiting.full), QNET_OK);
    CHECK_INT(qnet_listener_close(waiting.listener), QNET_OK);
}

static void signals_without_restart(void)
{
    check_signals(0, -1);
}

static void signals_without_restart_and_with_timeout(void)
{
    check_signals(0, 60000);
}

static void signals_with_restart(void)
{
    check_signals(SA_RESTART, -1);
}

static void signals_with_restart_and_with_timeout(void)
{
    check_signals(SA_RESTART, 60000);
}

enum { SIGNALS = 20000 };

static void *poke_all_the_time(void *argument)
{
    struct poker *poker = argument;

    while (!get(&poker->stop))
        pthread_kill(poker->target, SIGUSR1);
    return NULL;
}

/* A call that does not wait is not interrupted, even if it looks at a blocking descriptor. */
static void signals_and_no_wait(void)
{
    struct sigaction action;
    struct poker poker = { .target = pthread_self() };
    qnet_conn *conn;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK_INT(qnet_listener_from_fd(raw_unix_listen(scratch_path("blocks.sock")),
                                    &waiting.listener), QNET_OK);
    start_thread(&poker.thread, poke_all_the_time, &poker);
    while (get(&signals_handled) < rounds(SIGNALS))
        CHECK_INT(qnet_accept(waiting.listener, 0, &conn), QNET_ERR_AGAIN);
    put(&poker.stop, 1);
    join_thread(poker.thread);
    CHECK_INT(qnet_listener_close(waiting.listener), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN(no_sigpipe);
    RUN(no_sigpipe_when_blocked);
    RUN(no_sigpipe_in_handler);
    RUN(no_sigpipe_in_close);
    RUN(signals_without_restart);
    RUN(signals_without_restart_and_with_timeout);
    RUN(signals_with_restart);
    RUN(signals_with_restart_and_with_timeout);
    RUN(signals_and_no_wait);
    scratch_remove();
    return check_done();
}
