/*
 * host.c - the library as a guest in somebody's process: its descriptors and
 * its threads.
 */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/prctl.h>

#include "host.h"

/* ---- what the process has ---- */

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

/* What /proc says of a thread of this process. */
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

/*
 * Lists the threads after a first one has come and gone, because a sanitizer
 * starts a thread of its own with that.
 */
static int list_threads_before(struct thread threads[THREADS])
{
    pthread_t thread;

    start_thread(&thread, do_nothing, NULL);
    join_thread(thread);
    return list_threads(threads);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/*
 * How many descriptors are open that were not before. What they are is written to `out`,
 * unless that is NULL.
 */
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
        /* A sanitizer keeps pipes to its symbolizer. */
        if (SANITIZED && len > 5 && memcmp(target, "pipe:", 5) == 0)
            continue;
        if (out)
            fprintf(out, "descriptor %d: %.*s\n", fd, len > 0 ? (int)len : 0, target);
        count++;
    }
    return count;
}

/* ---- one of everything ---- */

/* Connections and listeners of many kinds, and with them every kind of thread of the library. */
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
    CHECK_INT(qnet_accept(all->tcp, patience_ms(), next_conn(all)), QNET_OK);
    CHECK_INT(qnet_dial("unix", path, next_conn(all)), QNET_OK);
    CHECK_INT(qnet_accept(all->path, patience_ms(), next_conn(all)), QNET_OK);
    CHECK_INT(qnet_socketpair(next_conn(all), next_conn(all)), QNET_OK);
    *next_conn(all) = raw_pair(&all->fds[0]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    all->fds[1] = pair[0];
    CHECK_INT(qnet_from_fd(pair[1], next_conn(all)), QNET_OK);

    /* The threads: one runs a handler, one writes what a full socket did not take. */
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

/* Waits in every way; the library may need descriptors of its own for that. */
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

/* Adopts descriptors without FD_CLOEXEC, as those of another program may be. */
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
    int threads = list_threads_before(list), tries;
    struct everything all;

    make_everything(&all);
    wait_everywhere(&all);
    CHECK(count_threads() > threads);
    close_everything(&all);
    EVENTUALLY(count_threads() <= threads);
    for (tries = patience_ms() / 5; tries > 0 && count_new_descriptors(&before, NULL) > 0; tries--)
        raw_sleep_ms(5);
    CHECK_INT(count_new_descriptors(&before, stderr), 0);
}

/* ---- a host without standard descriptors ---- */

static int is_standard_free(void)
{
    int fd;

    for (fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            return 0;
    return 1;
}

/* Waits, because a library thread may be about to move a descriptor to a higher number. */
static void check_standard_free(void)
{
    EVENTUALLY(is_standard_free());
}

/* In a daemon that has closed descriptors 0 to 2 the library takes none of them, so that nothing
   that it prints reaches a network. */
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
    CHECK_INT(qnet_accept(listener, patience_ms(), &conns[4]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    check_standard_free();
    listener = listen_on("tcp", "127.0.0.1:0");
    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    CHECK_INT(qnet_dial("tcp", address, &conns[5]), QNET_OK);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conns[6]), QNET_OK);
    CHECK_INT(qnet_dgram("unixgram", scratch_path("daemon.dgram"), path, &conns[7]), QNET_OK);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &conns[8]), QNET_OK);
    check_standard_free();

    /* Waiting, running handlers and redialling open descriptors as well. */
    CHECK(qnet_fd(conns[3]) > STDERR_FILENO);
    CHECK_INT(qnet_recv(conns[0], frame, sizeof frame, 1), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_set_handler(conns[1], count_frame, &count), QNET_OK);
    CHECK_INT(qnet_send(conns[0], frame_bytes, FRAME), QNET_OK);
    EVENTUALLY(get(&count));
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

/* ---- the library's threads ---- */

/* Whether the library's threads block a signal. glibc keeps 32 and 33 to itself. */
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
    put(&sight->done, 1);
}

/* A handler runs on a thread with a name of the library, which blocks signals. */
static void thread_of_a_handler(void)
{
    struct sight sight;
    int fd, number;
    qnet_conn *conn = raw_pair(&fd);

    memset(&sight, 0, sizeof sight);
    CHECK_INT(qnet_set_handler(conn, look_around, &sight), QNET_OK);
    raw_send(fd, frame_bytes, FRAME);
    EVENTUALLY(get(&sight.done));
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

/* Whether at least two threads have begun since, and all of those have names of the library. */
static int are_new_ones_named(const struct threads *known)
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

/*
 * All of the library's threads have names of the library and block signals,
 * also those that run no handler.
 */
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
    EVENTUALLY(are_new_ones_named(&before));
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

/*
 * A sanitizer has a pthread_create of its own, so this counts only threads that
 * are still running.
 */
static int threads_begun(void)
{
    return count_threads();
}

#else

static int threads_created;

/* Takes the place of the C library's function, to count every thread that is started. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run_it)(void *),
                   void *argument)
{
    typedef int create_function(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create_function *create = NULL;
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");

    memcpy(&create, &symbol, sizeof create);
    count_up(&threads_created);
    return create(thread, attributes, run_it, argument);
}

static int threads_begun(void)
{
    return get(&threads_created);
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
    CHECK_INT(qnet_accept(listener, patience_ms(), &conns[1]), QNET_OK);
    CHECK_INT(qnet_socketpair(&conns[2], &conns[3]), QNET_OK);
    CHECK_INT(threads_begun(), before);
    for (i = 0; i < SEND_PATHS; i++)
        CHECK(send_paths[i](conns[2 + i % 2]) >= 0);
    CHECK_INT(send_one(conns[0]), QNET_OK);
    CHECK_INT(send_one(conns[1]), QNET_OK);
    CHECK_INT(qnet_poll(conns, ready, 4, patience_ms()) > 0, 1);
    for (i = 0; i < 4; i++) {
        CHECK(qnet_recv(conns[i], frame_bytes, sizeof frame_bytes, patience_ms()) > 0);
        CHECK_INT(qnet_wait(conns[i], 1), QNET_ERR_TIMEOUT);
    }
    CHECK_INT(threads_begun(), before);

    /* Closing begins no thread either if nothing is unwritten or unread. */
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
    put(begun, 1);
    pthread_exit(NULL);
}

static void end_thread_in_batch(void *begun, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    put(begun, 1);
    pthread_exit(NULL);
}

static void end_thread_at_close(void *begun, int reason)
{
    (void)reason;
    put(begun, 1);
    pthread_exit(NULL);
}

static int has_no_handler(qnet_conn *conn)
{
    unsigned char frame[FRAME];
    int code = qnet_recv(conn, frame, sizeof frame, 0);

    CHECK(code == QNET_ERR_BUSY || code == QNET_ERR_AGAIN);
    return code == QNET_ERR_AGAIN;
}

/* A connection whose handler, of one of two kinds, has ended its own thread. */
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
    EVENTUALLY(get(&begun));
    return conn;
}

static void exit_in_handler(void)
{
    int batch, fd, count = 0;
    qnet_conn *conn;

    for (batch = 0; batch < 2; batch++) {
        /* It can be closed at once, while the thread may still be ending. */
        conn = make_orphaned(&fd, batch);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));

        /* It can be received from, and another handler can be set. */
        conn = make_orphaned(&fd, batch);
        EVENTUALLY(has_no_handler(conn));
        check_traffic(conn, fd);
        count = 0;
        CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
        raw_send(fd, frame_bytes, FRAME);
        EVENTUALLY(get(&count));
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(raw_ended(fd));

        /* Another handler can be set at once. */
        conn = make_orphaned(&fd, batch);
        CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
        count = 0;
        raw_send(fd, frame_bytes, FRAME);
        EVENTUALLY(get(&count));
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
    EVENTUALLY(get(&begun));
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);

    /* Closing makes the handler run. */
    begun = 0;
    conn = raw_pair(&fd);
    CHECK_INT(qnet_set_close_handler(conn, end_thread_at_close, &begun), QNET_OK);
    CHECK_INT(qnet_set_handler(conn, count_frame, &count), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(get(&begun));
}

int main(void)
{
    scratch_make();
    RUN(close_on_exec);
    RUN(nothing_is_left);
    RUN(standard_descriptors_stay_free);
    RUN(thread_of_a_handler);
    RUN(every_thread);
    RUN(no_needless_threads);
    RUN(exit_in_handler);
    RUN(exit_in_close_handler);
    scratch_remove();
    return check_done();
}
