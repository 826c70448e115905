/*
 * host.c - the library as a guest in somebody's process: SIGPIPE, signals,
 * fork, exec, descriptors and threads.
 */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "raw.h"
#include "scratch.h"

enum { LONG_MS = 10000, FRAME = 60, BIG = 60000 };

/* ---- helpers ---- */

static unsigned char frame_bytes[BIG];

static qnet_listener *listen_on(const char *network, const char *address)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen(network, address, &listener), QNET_OK);
    return listener;
}

/* Calls `done` until it says yes, for ten seconds of an unhurried machine. */
static int eventually(int (*done)(void *), void *argument)
{
    long long end = raw_now_ms() + LONG_MS * check_slow();

    while (!done(argument)) {
        if (raw_now_ms() > end)
            return 0;
        raw_sleep_ms(5);
    }
    return 1;
}

static int is_set(void *flag)
{
    return __atomic_load_n((int *)flag, __ATOMIC_SEQ_CST);
}

static void count_frame(void *counter, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST);
}

/* A frame to the connection and another from it, while no handler is set. */
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

/* Sends without waiting until the socket is full and the library holds the rest of a frame. */
static void fill_socket(qnet_conn *conn)
{
    int code;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 8192), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do {
        code = qnet_send(conn, frame_bytes, BIG);
    } while (code == QNET_OK);
    CHECK_INT(code, QNET_ERR_AGAIN);
    while (qnet_send(conn, frame_bytes, FRAME) == QNET_OK)
        continue;
}

/* Which descriptors of this process are open, and which of those outlive exec. */
enum { DESCRIPTORS = 1024 };

struct descriptors {
    unsigned char open[DESCRIPTORS], outlives[DESCRIPTORS];
    int count;
};

static struct descriptors open_descriptors(void)
{
    struct descriptors found;
    int fd, flags;

    memset(&found, 0, sizeof found);
    for (fd = 0; fd < DESCRIPTORS; fd++) {
        flags = fcntl(fd, F_GETFD);
        if (flags < 0)
            continue;
        found.open[fd] = 1;
        found.outlives[fd] = !(flags & FD_CLOEXEC);
        found.count++;
    }
    return found;
}

/* What /proc tells of one thread. */
struct thread {
    long id;
    char name[32];
    unsigned long long blocked;
};

enum { THREADS = 64 };

static int read_thread(const char *id, struct thread *thread)
{
    char path[80], line[200];
    FILE *status;

    snprintf(path, sizeof path, "/proc/self/task/%.16s/status", id);
    status = fopen(path, "re");
    if (!status)
        return 0;
    memset(thread, 0, sizeof *thread);
    thread->id = atol(id);
    while (fgets(line, sizeof line, status)) {
        sscanf(line, "Name: %31s", thread->name);
        sscanf(line, "SigBlk: %llx", &thread->blocked);
    }
    fclose(status);
    return 1;
}

static int list_threads(struct thread threads[THREADS])
{
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    CHECK(directory != NULL);
    while ((entry = readdir(directory)))
        if (isdigit((unsigned char)entry->d_name[0]) && count < THREADS)
            count += read_thread(entry->d_name, &threads[count]);
    closedir(directory);
    return count;
}

static int count_threads(void)
{
    struct thread threads[THREADS];

    return list_threads(threads);
}

static void *do_nothing(void *argument)
{
    return argument;
}

/* Counts after a first thread has come and gone, for with it a sanitizer begins one of its own. */
static int list_threads_before(struct thread threads[THREADS])
{
    pthread_t thread;

    CHECK_INT(pthread_create(&thread, NULL, do_nothing, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    return list_threads(threads);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* How many descriptors are open that were not before; what they are goes to `out`, or nowhere. */
static int count_new_descriptors(const struct descriptors *before, FILE *out)
{
    struct descriptors after = open_descriptors();
    char path[40], target[200];
    int fd, count = 0;

    for (fd = 0; fd < DESCRIPTORS; fd++) {
        ssize_t len;

        if (!after.open[fd] || before->open[fd])
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        len = readlink(path, target, sizeof target);
        /* A sanitizer keeps pipes to a program that reads symbols. */
        if (SANITIZED && len > 5 && memcmp(target, "pipe:", 5) == 0)
            continue;
        if (out)
            fprintf(out, "descriptor %d: %.*s\n", fd, len > 0 ? (int)len : 0, target);
        count++;
    }
    return count;
}

static int has_no_new_descriptors(void *before)
{
    return count_new_descriptors(before, NULL) == 0;
}

static int has_few_threads(void *most)
{
    return count_threads() <= *(int *)most;
}

/* ---- SIGPIPE ---- */

static int send_one(qnet_conn *conn)
{
    return qnet_send(conn, frame_bytes, FRAME);
}

static int send_big(qnet_conn *conn)
{
    return qnet_send(conn, frame_bytes, BIG);
}

static int send_batch(qnet_conn *conn)
{
    qnet_frame frames[3];
    int i;

    for (i = 0; i < 3; i++) {
        frames[i].data = frame_bytes;
        frames[i].len = FRAME;
    }
    return qnet_send_batch(conn, frames, 3);
}

static int send_packed(qnet_conn *conn)
{
    unsigned char packed[2 * (RAW_PREFIX + FRAME)] = { 0 };

    raw_put_length(packed, FRAME);
    raw_put_length(packed + RAW_PREFIX + FRAME, FRAME);
    return qnet_send_packed(conn, packed, sizeof packed);
}

static int send_and_flush(qnet_conn *conn)
{
    int code = qnet_send(conn, frame_bytes, FRAME);

    return code < 0 ? code : qnet_flush(conn);
}

typedef int send_function(qnet_conn *conn);

static send_function *const send_paths[] = {
    send_one, send_big, send_batch, send_packed, send_and_flush,
};

enum { SEND_PATHS = sizeof send_paths / sizeof *send_paths };

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

/* Sends until the peer's absence is noticed, and then twice more. */
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
        CHECK_INT(pthread_create(&thread, NULL, close_later, &fd), 0);
        code = send_paths[i](conn);
        CHECK(code == QNET_ERR_CLOSED || code == QNET_ERR_OS);
        CHECK_INT(pthread_join(thread, NULL), 0);
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
    __atomic_store_n(&((struct echo *)user)->ended, 1, __ATOMIC_SEQ_CST);
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
    CHECK(eventually(is_set, &echo.ended));
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
    CHECK_INT(pthread_create(&thread, NULL, close_later, &fd), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(pthread_join(thread, NULL), 0);
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

/* Sends a signal to `target` again and again, for one that came before the wait ends none. */
struct poker {
    pthread_t thread, target;
    int stop;
};

static int signals_handled;

static void on_signal(int number)
{
    (void)number;
    __atomic_add_fetch(&signals_handled, 1, __ATOMIC_SEQ_CST);
}

static void *poke(void *argument)
{
    struct poker *poker = argument;

    while (!is_set(&poker->stop)) {
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
    CHECK_INT(pthread_create(&poker.thread, NULL, poke, &poker), 0);
    code = call();
    __atomic_store_n(&poker.stop, 1, __ATOMIC_SEQ_CST);
    CHECK_INT(pthread_join(poker.thread, NULL), 0);
    CHECK_INT(code, QNET_ERR_INTERRUPTED);
    CHECK(is_set(&signals_handled));
    CHECK(raw_now_ms() - begin < LONG_MS);
}

/* A raw Unix listener that has no room for anybody. */
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

    /* Nothing came to harm. */
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

/* ---- fork ---- */

/*
 * Ends a forked child that found all in order. To the child, what its parent's
 * other threads had on their stacks is lost memory; valgrind is not to look.
 */
static void end_child(void)
{
    if (is_under_valgrind())
        kill(getpid(), SIGKILL);
    _exit(0);
}

static void wait_for_child(pid_t child)
{
    int status;

    CHECK(waitpid(child, &status, 0) == child);
    if (!is_under_valgrind() || status != SIGKILL)
        CHECK_INT(status, 0);
}

/* The library as a process that has just begun would find it. */
static void check_fresh_library(void)
{
    unsigned char got[FRAME];
    int fd, count = 0;
    qnet_conn *conn = raw_pair(&fd), *a, *b;

    check_traffic(conn, fd);
    CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &count));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
    close(fd);
    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    CHECK_INT(qnet_send(a, frame_bytes, FRAME), QNET_OK);
    CHECK_INT(qnet_recv(b, got, sizeof got, LONG_MS), FRAME);
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

/* Nothing of it was touched; and it ends in order. */
static void check_family(struct family *family)
{
    qnet_conn *conn;
    int fd;

    CHECK(!raw_readable(family->pulled_fd, 50));
    CHECK(!raw_readable(family->handled_fd, 50));
    check_traffic(family->pulled, family->pulled_fd);
    raw_send(family->handled_fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &family->handled_count));
    fd = raw_unix_connect(family->path);
    CHECK(fd >= 0);
    CHECK_INT(qnet_accept(family->listener, LONG_MS, &conn), QNET_OK);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(family->pulled), QNET_OK);
    CHECK_INT(qnet_close(family->handled), QNET_OK);
    CHECK_INT(qnet_listener_close(family->listener), QNET_OK);
    CHECK(raw_ended(family->pulled_fd));
    CHECK(raw_ended(family->handled_fd));
}

/* None of the parent's handles means anything to the child. */
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

/* The child has handles of its own before it tries the parent's, or only after that. */
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

/* A child that lives on and does nothing must not keep open what the parent closes. */
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

/* Forks; the child is the one thread that called this. */
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
    __atomic_store_n(&forker->done, 1, __ATOMIC_SEQ_CST);
}

/* The child begins its life inside a handler of its parent. */
static void fork_in_handler(void)
{
    struct forker forker;
    int fd;

    memset(&forker, 0, sizeof forker);
    forker.conn = raw_pair(&fd);
    CHECK_INT(qnet_set_handler(forker.conn, fork_here, &forker), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &forker.done));
    CHECK(forker.child > 0);
    wait_for_child(forker.child);
    CHECK_INT(qnet_set_handler(forker.conn, NULL, NULL), QNET_OK);
    check_traffic(forker.conn, fd);
    CHECK_INT(qnet_close(forker.conn), QNET_OK);
    CHECK(raw_ended(fd));
}

static int busy_stop;

/* Keeps the library's locks and tables moving. */
static void *keep_busy(void *unused)
{
    unsigned char frame[FRAME];
    qnet_conn *a, *b;
    int count = 0;

    (void)unused;
    while (!is_set(&busy_stop)) {
        CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
        CHECK_INT(qnet_set_handler(b, count_frame, &count), QNET_OK);
        CHECK_INT(qnet_send(a, frame_bytes, FRAME), QNET_OK);
        CHECK_INT(qnet_recv(a, frame, sizeof frame, 0), QNET_ERR_AGAIN);
        CHECK_INT(qnet_close(a), QNET_OK);
        CHECK_INT(qnet_close(b), QNET_OK);
    }
    return NULL;
}

/* Whatever other threads were doing in the library when one of them forked. */
static void fork_while_busy(void)
{
    pthread_t threads[2];
    int i;

    for (i = 0; i < 2; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, keep_busy, NULL), 0);
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
    __atomic_store_n(&busy_stop, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < 2; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
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

/* One connection or listener of every kind, with every sort of thread. */
struct everything {
    qnet_listener *tcp, *path, *abstract;
    qnet_conn *conns[10];
    int fds[4], count;
};

static qnet_conn **next_conn(struct everything *all)
{
    CHECK(all->count < 10);
    return &all->conns[all->count++];
}

static void make_everything(struct everything *all)
{
    static int frames;
    const char *path = scratch_path("everything.sock");
    char address[200];
    int pair[2];

    memset(all, 0, sizeof *all);
    all->tcp = listen_on("tcp4", "127.0.0.1:0");
    all->path = listen_on("unix", path);
    all->abstract = listen_on("unix", scratch_abstract("everything"));
    CHECK(qnet_listener_addr(all->tcp, address, sizeof address) > 0);
    CHECK_INT(qnet_dial("tcp", address, next_conn(all)), QNET_OK);
    CHECK_INT(qnet_accept(all->tcp, LONG_MS, next_conn(all)), QNET_OK);
    CHECK_INT(qnet_dial("unix", path, next_conn(all)), QNET_OK);
    CHECK_INT(qnet_accept(all->path, LONG_MS, next_conn(all)), QNET_OK);
    CHECK_INT(qnet_socketpair(next_conn(all), next_conn(all)), QNET_OK);
    *next_conn(all) = raw_pair(&all->fds[0]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    all->fds[1] = pair[0];
    CHECK_INT(qnet_from_fd(pair[1], next_conn(all)), QNET_OK);

    /* Threads: one with a handler, one that writes what a full socket did not take. */
    *next_conn(all) = raw_pair(&all->fds[2]);
    CHECK_INT(qnet_set_handler(all->conns[all->count - 1], count_frame, &frames), QNET_OK);
    *next_conn(all) = raw_pair(&all->fds[3]);
    fill_socket(all->conns[all->count - 1]);
}

static void close_everything(struct everything *all)
{
    int i;

    for (i = 0; i < 4; i++)
        close(all->fds[i]);
    for (i = 0; i < all->count; i++)
        CHECK_INT(qnet_close(all->conns[i]), QNET_OK);
    CHECK_INT(qnet_listener_close(all->tcp), QNET_OK);
    CHECK_INT(qnet_listener_close(all->path), QNET_OK);
    CHECK_INT(qnet_listener_close(all->abstract), QNET_OK);
}

/* Waits everywhere, for which the library may need descriptors of its own. */
static void wait_everywhere(const struct everything *all)
{
    unsigned char frame[FRAME];
    uint8_t ready[10];
    qnet_conn *conn;

    CHECK_INT(qnet_accept(all->tcp, 1, &conn), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_accept(all->path, 1, &conn), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv(all->conns[0], frame, sizeof frame, 1), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_wait(all->conns[1], 1), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_poll(all->conns, ready, 2, 1), 0);
}

/* Descriptors made without FD_CLOEXEC, as those of another program may be. */
static void adopt_inherited(qnet_conn **conn, qnet_listener **listener)
{
    int pair[2], port, listening = raw_tcp_listen(&port);

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(fcntl(pair[1], F_SETFD, FD_CLOEXEC) == 0);
    CHECK(fcntl(listening, F_SETFD, 0) == 0);
    CHECK_INT(qnet_from_fd(pair[0], conn), QNET_OK);
    CHECK_INT(qnet_listener_from_fd(listening, listener), QNET_OK);
}

static void close_on_exec(void)
{
    struct descriptors before = open_descriptors(), after;
    struct everything all;
    qnet_listener *listener;
    qnet_conn *conn;
    int fd;

    make_everything(&all);
    wait_everywhere(&all);
    adopt_inherited(&conn, &listener);
    after = open_descriptors();
    CHECK(after.count > before.count);
    for (fd = 0; fd < DESCRIPTORS; fd++)
        if (after.outlives[fd] && !before.open[fd])
            CHECK_INT(fd, -1);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    close_everything(&all);
}

static void nothing_is_left(void)
{
    struct descriptors before = open_descriptors();
    struct thread list[THREADS];
    int threads = list_threads_before(list);
    struct everything all;

    make_everything(&all);
    wait_everywhere(&all);
    CHECK(count_threads() > threads);
    close_everything(&all);
    CHECK(eventually(has_few_threads, &threads));
    if (!eventually(has_no_new_descriptors, &before))
        CHECK_INT(count_new_descriptors(&before, stderr), 0);
}

/* ---- a host without standard descriptors ---- */

static int is_standard_free(void *unused)
{
    int fd;

    (void)unused;
    for (fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            return 0;
    return 1;
}

/* What a thread of the library has just opened may be on its way to a higher number. */
static void check_standard_free(void)
{
    CHECK(eventually(is_standard_free, NULL));
}

/* A daemon has closed 0 to 2. What it prints then does not reach a network. */
static void standard_descriptors_stay_free(void)
{
    static const int64_t reconnect[] = { QNET_OPT_RECONNECT_MS, 1 };
    const char *path = scratch_path("daemon.sock");
    unsigned char frame[FRAME];
    qnet_conn *conns[9];
    qnet_listener *listener;
    char address[200];
    qnet_hub *hub;
    int count = 0, peer, i;

    stderr = fdopen(fcntl(STDERR_FILENO, F_DUPFD, 10), "w");
    CHECK(stderr != NULL);
    for (i = 0; i <= STDERR_FILENO; i++)
        close(i);
    CHECK_INT(qnet_socketpair(&conns[0], &conns[1]), QNET_OK);
    CHECK_INT(qnet_socketpair_fd(&conns[2], &peer), QNET_OK);
    listener = listen_on("unix", path);
    CHECK_INT(qnet_dial_with("unix", path, reconnect, 1, &conns[3]), QNET_OK);
    CHECK_INT(qnet_accept(listener, LONG_MS, &conns[4]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    check_standard_free();
    listener = listen_on("tcp", "127.0.0.1:0");
    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    CHECK_INT(qnet_dial("tcp", address, &conns[5]), QNET_OK);
    CHECK_INT(qnet_accept(listener, LONG_MS, &conns[6]), QNET_OK);
    CHECK_INT(qnet_dgram("unixgram", scratch_path("daemon.dgram"), path, &conns[7]), QNET_OK);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &conns[8]), QNET_OK);
    check_standard_free();

    /* What waits, runs handlers and follows others. */
    CHECK(qnet_fd(conns[3]) > STDERR_FILENO);
    CHECK_INT(qnet_recv(conns[0], frame, sizeof frame, 1), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_set_handler(conns[1], count_frame, &count), QNET_OK);
    CHECK_INT(qnet_send(conns[0], frame_bytes, FRAME), QNET_OK);
    CHECK(eventually(is_set, &count));
    CHECK_INT(qnet_close(conns[4]), QNET_OK);
    check_standard_free();
    for (i = 0; i < 9; i++)
        if (i != 4)
            CHECK_INT(qnet_close(conns[i]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    close(peer);
    check_standard_free();
}

/* ---- calls made while a thread or the process ends ---- */

static qnet_conn *last_conn;
static int last_fd, last_report;

/* A failure, whose text belongs to this thread; traffic; and all from the beginning. */
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

/* Before its end a thread has a text of the library's, and has sent. */
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
    __atomic_store_n((int *)begun, 1, __ATOMIC_SEQ_CST);
}

/* A thread of the host's, and one of the library's that the host has left something in. */
static void calls_from_thread_exit(void)
{
    int ends[2], fd, begun = 0;
    pthread_t thread;
    qnet_conn *conn;
    char byte;

    CHECK(pipe(ends) == 0);
    last_report = ends[1];
    CHECK_INT(pthread_key_create(&last_key, call_in_destructor), 0);
    CHECK_INT(pthread_create(&thread, NULL, end_with_calls, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(read(ends[0], &byte, 1), 1);

    conn = raw_pair(&fd);
    CHECK_INT(qnet_set_handler(conn, end_handler_with_calls, &begun), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &begun));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(read(ends[0], &byte, 1), 1);
}

/* ---- the library's threads ---- */

/* Signals that a thread can block and the library's block; glibc keeps 32 and 33 to itself. */
static int is_blocked_signal(int number)
{
    static const int open[] = {
        SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGKILL, SIGSTOP, 32, 33,
    };
    size_t i;

    for (i = 0; i < sizeof open / sizeof *open; i++)
        if (number == open[i])
            return 0;
    return 1;
}

static unsigned long long blocked_signals(void)
{
    unsigned long long mask = 0;
    int number;

    for (number = 1; number <= 64; number++)
        if (is_blocked_signal(number))
            mask |= 1ULL << (number - 1);
    return mask;
}

struct sight {
    char name[32];
    sigset_t blocked;
    int done;
};

static void look_around(void *user, const uint8_t *frame, size_t len)
{
    struct sight *sight = user;

    (void)frame;
    (void)len;
    prctl(PR_GET_NAME, sight->name);
    pthread_sigmask(SIG_SETMASK, NULL, &sight->blocked);
    __atomic_store_n(&sight->done, 1, __ATOMIC_SEQ_CST);
}

/* What a handler finds where it runs. */
static void thread_of_a_handler(void)
{
    struct sight sight;
    int fd, number;
    qnet_conn *conn = raw_pair(&fd);

    memset(&sight, 0, sizeof sight);
    CHECK_INT(qnet_set_handler(conn, look_around, &sight), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &sight.done));
    CHECK(strncmp(sight.name, "qnet-", 5) == 0);
    for (number = 1; number <= 64; number++) {
        if (number == 32 || number == 33)
            continue;
        CHECK_INT(sigismember(&sight.blocked, number), is_blocked_signal(number));
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
}

struct threads {
    struct thread list[THREADS];
    int count;
};

static int is_known(const struct threads *known, long id)
{
    int i;

    for (i = 0; i < known->count; i++)
        if (known->list[i].id == id)
            return 1;
    return 0;
}

/* At least two threads have begun since, and all that have are named. */
static int are_new_ones_named(void *known)
{
    struct thread threads[THREADS];
    int count = list_threads(threads), named = 0, i;

    for (i = 0; i < count; i++) {
        if (is_known(known, threads[i].id))
            continue;
        if (strncmp(threads[i].name, "qnet-", 5) != 0)
            return 0;
        named++;
    }
    return named >= 2;
}

/* All of the library's threads, those that no handler runs on included. */
static void every_thread(void)
{
    struct threads before;
    struct thread threads[THREADS];
    struct everything all;
    int count, i;

    if (is_under_valgrind())
        check_skip("valgrind keeps the signals of every thread blocked");
    before.count = list_threads_before(before.list);
    make_everything(&all);
    CHECK_INT(qnet_shutdown(all.conns[all.count - 1]), QNET_OK);
    CHECK(eventually(are_new_ones_named, &before));
    count = list_threads(threads);
    for (i = 0; i < count; i++) {
        if (is_known(&before, threads[i].id))
            continue;
        fprintf(stderr, "thread %s blocks %llx\n", threads[i].name, threads[i].blocked);
        CHECK(threads[i].blocked == blocked_signals());
    }
    close_everything(&all);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

/* A sanitizer has a pthread_create of its own: only threads that live on are seen. */
static int threads_begun(void)
{
    return count_threads();
}

#else

static int threads_created;

/* Takes the place of the C library's, to see every thread that is begun. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run_it)(void *),
                   void *argument)
{
    typedef int create_function(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create_function *create = NULL;
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");

    memcpy(&create, &symbol, sizeof create);
    __atomic_add_fetch(&threads_created, 1, __ATOMIC_SEQ_CST);
    return create(thread, attributes, run_it, argument);
}

static int threads_begun(void)
{
    return __atomic_load_n(&threads_created, __ATOMIC_SEQ_CST);
}

#endif

/* Connecting, sending, pulling and closing begin no thread. */
static void no_needless_threads(void)
{
    int before = threads_begun(), fd, i;
    qnet_listener *listener = listen_on("tcp4", "127.0.0.1:0");
    qnet_conn *conns[4];
    char address[200];
    uint8_t ready[4];

    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    CHECK_INT(qnet_dial("tcp", address, &conns[0]), QNET_OK);
    CHECK_INT(qnet_accept(listener, LONG_MS, &conns[1]), QNET_OK);
    CHECK_INT(qnet_socketpair(&conns[2], &conns[3]), QNET_OK);
    CHECK_INT(threads_begun(), before);
    for (i = 0; i < SEND_PATHS; i++)
        CHECK(send_paths[i](conns[2 + i % 2]) >= 0);
    CHECK_INT(send_one(conns[0]), QNET_OK);
    CHECK_INT(send_one(conns[1]), QNET_OK);
    CHECK_INT(qnet_poll(conns, ready, 4, LONG_MS) > 0, 1);
    for (i = 0; i < 4; i++) {
        CHECK(qnet_recv(conns[i], frame_bytes, sizeof frame_bytes, LONG_MS) > 0);
        CHECK_INT(qnet_wait(conns[i], 1), QNET_ERR_TIMEOUT);
    }
    CHECK_INT(threads_begun(), before);

    /* The peer has left and all is read, or nothing is unwritten and unread. */
    conns[2] = raw_pair(&fd);
    check_traffic(conns[2], fd);
    CHECK_INT(qnet_close(conns[2]), QNET_OK);
    conns[2] = raw_pair(&fd);
    CHECK_INT(qnet_shutdown(conns[2]), QNET_OK);
    CHECK_INT(qnet_close(conns[2]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(threads_begun(), before);
}

/* ---- a handler whose thread ends ---- */

static void end_thread(void *begun, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    __atomic_store_n((int *)begun, 1, __ATOMIC_SEQ_CST);
    pthread_exit(NULL);
}

static void end_thread_in_batch(void *begun, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    __atomic_store_n((int *)begun, 1, __ATOMIC_SEQ_CST);
    pthread_exit(NULL);
}

static void end_thread_at_close(void *begun, int reason)
{
    (void)reason;
    __atomic_store_n((int *)begun, 1, __ATOMIC_SEQ_CST);
    pthread_exit(NULL);
}

static int has_no_handler(void *conn)
{
    unsigned char frame[FRAME];
    int code = qnet_recv(conn, frame, sizeof frame, 0);

    CHECK(code == QNET_ERR_BUSY || code == QNET_ERR_AGAIN);
    return code == QNET_ERR_AGAIN;
}

/* A connection whose handler has ended its own thread; the handler is one of two kinds. */
static qnet_conn *make_orphaned(int *fd, int batch)
{
    static int begun;
    qnet_conn *conn = raw_pair(fd);

    begun = 0;
    if (batch)
        CHECK_INT(qnet_set_batch_handler(conn, end_thread_in_batch, &begun), QNET_OK);
    else
        CHECK_INT(qnet_set_handler(conn, end_thread, &begun), QNET_OK);
    raw_send(*fd, frame_bytes, FRAME);
    CHECK(eventually(is_set, &begun));
    return conn;
}

static void exit_in_handler(void)
{
    int batch, fd, count = 0;
    qnet_conn *conn;

    for (batch = 0; batch < 2; batch++) {
        /* Closing at once, while the thread may still be on its way out. */
        conn = make_orphaned(&fd, batch);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));

        /* It can be received from, and another handler can be set. */
        conn = make_orphaned(&fd, batch);
        CHECK(eventually(has_no_handler, conn));
        check_traffic(conn, fd);
        count = 0;
        CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
        raw_send(fd, frame_bytes, FRAME);
        CHECK(eventually(is_set, &count));
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));

        /* Setting a handler in its place at once. */
        conn = make_orphaned(&fd, batch);
        CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
        count = 0;
        raw_send(fd, frame_bytes, FRAME);
        CHECK(eventually(is_set, &count));
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

static void exit_in_close_handler(void)
{
    int fd, begun = 0, count = 0;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set_close_handler(conn, end_thread_at_close, &begun), QNET_OK);
    CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
    close(fd);
    CHECK(eventually(is_set, &begun));
    CHECK_INT(qnet_wait(conn, LONG_MS), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);

    /* Close itself is what makes the handler run. */
    begun = 0;
    conn = raw_pair(&fd);
    CHECK_INT(qnet_set_close_handler(conn, end_thread_at_close, &begun), QNET_OK);
    CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(is_set(&begun));
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
    RUN(fork_and_stale_handles);
    RUN(fork_and_fresh_library);
    RUN(fork_of_a_fork);
    RUN(fork_and_close);
    RUN(fork_and_hardware_address);
    RUN(fork_in_handler);
    RUN(fork_while_busy);
    RUN(fork_and_exec);
    RUN(close_on_exec);
    RUN(nothing_is_left);
    RUN(standard_descriptors_stay_free);
    RUN(calls_from_atexit);
    RUN(calls_from_thread_exit);
    RUN(thread_of_a_handler);
    RUN(every_thread);
    RUN(no_needless_threads);
    RUN(exit_in_handler);
    RUN(exit_in_close_handler);
    scratch_remove();
    return check_done();
}
