/*
 * down.c - many connections that are down at once: one thread dials for all of
 * them, none holds up another, and an attempt ends with its connection.
 */
#include <sys/prctl.h>
#include <sys/resource.h>

#include "forwarding.h"
#include "scratch.h"

enum { MANY = 250, SOON_MS = 10, NEVER_MS = 1000 * 1000 };

/* ---- Where nobody answers ---- */

static qnet_conn *dial(const char *network, const char *address, int64_t ms)
{
    /* With the default timeout, attempts would end too soon for these tests. */
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, ms, QNET_OPT_DIAL_TIMEOUT_MS, NEVER_MS };
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with(network, address, options, 2, &conn), QNET_OK);
    return conn;
}

static void close_all(qnet_conn **conns, int count)
{
    int i;

    for (i = 0; i < count; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
}

/* Finds a local TCP port that refuses connections until somebody listens there. */
static int closed_port(char *address, size_t size)
{
    int port, listener = raw_tcp_listen(&port);

    CHECK(close(listener) == 0);
    snprintf(address, size, "127.0.0.1:%d", port);
    return port;
}

static int try_port(int port)
{
    struct sockaddr_in there = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    there.sin_port = htons((uint16_t)port);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&there, sizeof there) == 0 || errno == EINPROGRESS);
    return fd;
}

/* A TCP port that answers nothing, because its listener's backlog is full. */
struct silence {
    int listener, fillers[3];
};

static void fall_silent(struct silence *silence, int port)
{
    struct sockaddr_in here = { .sin_family = AF_INET };
    int one = 1, i;

    here.sin_port = htons((uint16_t)port);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    silence->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(setsockopt(silence->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(bind(silence->listener, (struct sockaddr *)&here, sizeof here) == 0);
    CHECK(listen(silence->listener, 0) == 0);
    for (i = 0; i < 3; i++)
        silence->fillers[i] = try_port(port);
    CHECK(raw_readable(silence->listener, patience_ms()));
}

static void end_silence(struct silence *silence)
{
    int i;

    for (i = 0; i < 3; i++)
        CHECK(close(silence->fillers[i]) == 0);
    CHECK(close(silence->listener) == 0);
}

/* Many connections that are being dialled, none of which is answered. */
struct crowd {
    qnet_conn *conns[MANY];
    struct silence silence;
    struct footprint before;
};

static void crowd_open(struct crowd *crowd)
{
    char address[40];
    int i, port;

    crowd->before = footprint_now();
    port = closed_port(address, sizeof address);
    for (i = 0; i < MANY; i++)
        crowd->conns[i] = dial("tcp", address, NEVER_MS);
    fall_silent(&crowd->silence, port);
    for (i = 0; i < MANY; i++)
        CHECK_INT(qnet_set(crowd->conns[i], QNET_OPT_RECONNECT_MS, 1), QNET_OK);
    /* Each connection has a stand-in socket, and one that is being connected. */
    EVENTUALLY(footprint_now().descriptors - crowd->before.descriptors >= 2 * MANY);
}

/* Ends the silence: makes room for every connection that waits, and accepts it. */
static void crowd_accept(struct crowd *crowd, int fds[3 + MANY])
{
    int i;

    CHECK(listen(crowd->silence.listener, 3 + MANY) == 0);
    for (i = 0; i < 3 + MANY; i++) {
        CHECK(raw_readable(crowd->silence.listener, patience_ms()));
        fds[i] = accept4(crowd->silence.listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fds[i] >= 0);
    }
}

/* Closes the connections, whose attempts end with them, though nobody answers. */
static void crowd_close(struct crowd *crowd)
{
    close_all(crowd->conns, MANY);
    EVENTUALLY(count_threads_that(is_library_thread) == 0);
    end_silence(&crowd->silence);
    footprint_again(crowd->before);
}

/* ---- One thread for all ---- */

/* Checks for a while that one dialling thread is the library's only thread. */
static void one_thread_dials(void)
{
    int i;

    EVENTUALLY(count_threads_that(is_dialling_thread) == 1);
    for (i = 0; i < 20; i++) {
        CHECK_INT(count_threads_that(is_library_thread), 1);
        raw_sleep_ms(10);
    }
}

static void refused_by(const char *network, const char *address)
{
    struct footprint before = footprint_now();
    qnet_conn *conns[MANY];
    int i;

    for (i = 0; i < MANY; i++)
        conns[i] = dial(network, address, 1 + i % SOON_MS);
    one_thread_dials();
    close_all(conns, MANY);
    footprint_again(before);
}

static void refused_at_a_path(void)
{
    const char *path = scratch_path("refuses.sock");

    close(raw_unix_listen(path));
    refused_by("unix", path);
    CHECK(unlink(path) == 0);
}

static void refused_without_a_file(void)
{
    refused_by("unix", scratch_path("absent.sock"));
}

static void refused_at_a_port(void)
{
    char address[40];

    closed_port(address, sizeof address);
    refused_by("tcp", address);
}

static void answered_by_nobody(void)
{
    static struct crowd crowd;

    crowd_open(&crowd);
    one_thread_dials();
    crowd_close(&crowd);
}

/* While many attempts go unanswered, another connection comes up again and again, and works. */
static void none_holds_up_another(void)
{
    static struct crowd crowd;
    const char *path = scratch_path("there.sock");
    struct flow out = flow_of_small_frames(), seen = out;
    qnet_conn *conn;
    int fd, listener, life;

    crowd_open(&crowd);
    conn = dial("unix", path, 1);
    for (life = 1; life <= 3; life++) {
        listener = raw_unix_listen(path);
        CHECK(raw_readable(listener, patience_ms()));
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0);
        EVENTUALLY(stats_of(conn).reconnects == (uint64_t)life);
        CHECK_INT(flow_send(&out, conn, 0, 3), 3);
        raw_take_until(fd, &seen, out.next);
        CHECK(close(listener) == 0 && unlink(path) == 0 && close(fd) == 0);
        CHECK_INT(qnet_wait(conn, 1), QNET_ERR_TIMEOUT);
    }
    one_thread_dials();
    CHECK_INT(qnet_close(conn), QNET_OK);
    crowd_close(&crowd);
}

/* The connections come up when they are answered, and then the dialling thread ends. */
static void all_come_up(void)
{
    static struct crowd crowd;
    int fds[3 + MANY], i;

    crowd_open(&crowd);
    crowd_accept(&crowd, fds);
    for (i = 0; i < MANY; i++)
        EVENTUALLY(stats_of(crowd.conns[i]).reconnects == 1);
    EVENTUALLY(count_threads_that(is_library_thread) == 0);
    for (i = 0; i < 3 + MANY; i++)
        CHECK(close(fds[i]) == 0);
    crowd_close(&crowd);
}

/*
 * Waiting for answers takes no processor time, even if the limit of descriptors
 * is lowered meanwhile.
 */
static void waiting_takes_no_time(void)
{
    static struct crowd crowd;
    struct rlimit limit, few;
    long busy;

    crowd_open(&crowd);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    few = limit;
    few.rlim_cur = 8;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    busy = cpu_ms();
    raw_sleep_ms(1000);
    busy = cpu_ms() - busy;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(busy < 300);
    crowd_close(&crowd);
}

/* A forked child keeps the sockets open: attempts that the parent has given up must not wake it. */
static void forked_while_dialling(void)
{
    static struct crowd crowd;
    int fds[3 + MANY], status, i;
    qnet_conn *another;
    long busy;
    pid_t pid;

    if (is_under_valgrind())
        check_skip("the child's report would tell of its parent's threads");
    crowd_open(&crowd);
    another = dial("unix", scratch_path("absent.sock"), NEVER_MS);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK_INT(qnet_close(crowd.conns[0]), QNET_ERR_HANDLE);
        for (;;)
            pause();
    }
    close_all(crowd.conns, MANY);
    crowd_accept(&crowd, fds); /* the sockets that only the child has are connected */
    busy = cpu_ms();
    raw_sleep_ms(1000);
    CHECK(cpu_ms() - busy < 300);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    CHECK_INT(qnet_close(another), QNET_OK);
    for (i = 0; i < 3 + MANY; i++)
        CHECK(close(fds[i]) == 0);
    end_silence(&crowd.silence);
    footprint_again(crowd.before);
}

/* ---- Calling state handlers ---- */

/* Connections to one path, and the sockets of their peers. */
struct ward {
    qnet_conn *conns[MANY];
    int fds[MANY], count;
    const char *path;
};

struct watch {
    int downs, ups, shut;
};

static void watched(void *user, int up)
{
    struct watch *watch = user;

    count_up(up ? &watch->ups : &watch->downs);
    while (get(&watch->shut))
        raw_sleep_ms(1);
}

static void ward_open(struct ward *ward, int count, int64_t ms)
{
    int listener, i;

    ward->path = scratch_path("ward.sock");
    ward->count = count;
    listener = raw_unix_listen(ward->path);
    for (i = 0; i < count; i++) {
        ward->conns[i] = dial("unix", ward->path, ms);
        ward->fds[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(ward->fds[i] >= 0);
    }
    CHECK(close(listener) == 0 && unlink(ward->path) == 0);
}

/* The peer of connection `i` leaves, which a receive on the connection notices. */
static void ward_down(struct ward *ward, int i)
{
    CHECK(close(ward->fds[i]) == 0);
    CHECK_INT(recv_now(ward->conns[i]), QNET_ERR_AGAIN);
}

/* A state handler has no thread while there is nothing to tell it. */
static void told_without_threads_that_stay(void)
{
    struct footprint before = footprint_now();
    static struct watch watches[MANY];
    static struct ward ward;
    int i;

    ward_open(&ward, MANY, 1);
    for (i = 0; i < MANY; i++)
        CHECK_INT(qnet_set_state_handler(ward.conns[i], watched, &watches[i]), QNET_OK);
    CHECK_INT(count_threads_that(is_library_thread), 0);
    for (i = 0; i < MANY; i++)
        ward_down(&ward, i);
    for (i = 0; i < MANY; i++)
        EVENTUALLY(get(&watches[i].downs) == 1);
    EVENTUALLY(count_threads_that(is_telling_thread) == 0);
    one_thread_dials();
    close_all(ward.conns, MANY);
    footprint_again(before);
}

/* A state handler that does not return holds up its own connection alone. */
static void a_blocked_handler_holds_up_nobody(void)
{
    struct footprint before = footprint_now();
    static struct watch watches[2];
    static struct ward ward;
    int listener, fd;

    ward_open(&ward, 2, SOON_MS);
    put(&watches[0].shut, 1);
    CHECK_INT(qnet_set_state_handler(ward.conns[0], watched, &watches[0]), QNET_OK);
    CHECK_INT(qnet_set_state_handler(ward.conns[1], watched, &watches[1]), QNET_OK);
    ward_down(&ward, 0);
    EVENTUALLY(get(&watches[0].downs) == 1);
    ward_down(&ward, 1);
    listener = raw_unix_listen(ward.path);
    CHECK(raw_readable(listener, patience_ms()));
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    EVENTUALLY(get(&watches[1].ups) == 1);
    CHECK_INT(stats_of(ward.conns[0]).reconnects, 0);
    put(&watches[0].shut, 0);
    EVENTUALLY(get(&watches[0].ups) == 1);
    close_all(ward.conns, 2);
    CHECK(close(fd) == 0 && close(listener) == 0 && unlink(ward.path) == 0);
    footprint_again(before);
}

/* If no thread can be started for a state handler, it is called later, and dialling begins then. */
static void told_when_there_is_a_thread(void)
{
    static struct watch watch;
    static struct ward ward;
    struct rlimit before;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    ward_open(&ward, 2, NEVER_MS);
    CHECK_INT(qnet_set_state_handler(ward.conns[1], watched, &watch), QNET_OK);
    ward_down(&ward, 0);
    EVENTUALLY(count_threads_that(is_dialling_thread) == 1);
    before = allow_no_stack();
    ward_down(&ward, 1);
    raw_sleep_ms(100);
    CHECK_INT(get(&watch.downs), 0);
    CHECK_INT(qnet_close_reason(ward.conns[1]), QNET_OK);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    EVENTUALLY(get(&watch.downs) == 1);
    close_all(ward.conns, 2);
}

int main(void)
{
    scratch_make();
    RUN(refused_at_a_path);
    RUN(refused_without_a_file);
    RUN(refused_at_a_port);
    RUN(answered_by_nobody);
    RUN(none_holds_up_another);
    RUN(all_come_up);
    RUN(waiting_takes_no_time);
    RUN(forked_while_dialling);
    RUN(told_without_threads_that_stay);
    RUN(a_blocked_handler_holds_up_nobody);
    RUN(told_when_there_is_a_thread);
    scratch_remove();
    return check_done();
}
