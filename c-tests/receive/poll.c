/*
 * poll.c - waiting for several connections, with qnet_poll() or in a loop of the
 * program's own around qnet_fd(), also while other threads receive.
 */
#include <sys/epoll.h>
#include <sys/resource.h>

#include "receiving.h"

/* ---- qnet_poll ---- */

static void send_whole(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 20);
}

static void prepare_nothing(qnet_conn *conn, int fd)
{
    (void)conn;
    (void)fd;
}

static void prepare_held_frame(qnet_conn *conn, int fd)
{
    uint8_t buffer[100], wire[2 * (RAW_PREFIX + 20)];
    int i;

    for (i = 0; i < 2; i++) {
        memset(wire + 24 * i, 0, 24);
        raw_put_length(wire + 24 * i, 20);
    }
    raw_write(fd, wire, sizeof wire);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 20);
}

static void prepare_kept_frame(qnet_conn *conn, int fd)
{
    raw_send_part(fd, 20, 20);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), 20);
}

static void prepare_half_header(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "\0\0", 2);
}

static void prepare_header(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 20, 0);
}

static void prepare_half_after_whole(qnet_conn *conn, int fd)
{
    uint8_t buffer[100];

    raw_send_part(fd, 20, 20);
    raw_send_part(fd, 20, 19);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 20);
}

static void prepare_runts(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_send_part(fd, 0, 0);
    raw_send_part(fd, 13, 13);
}

static void prepare_runts_and_half(qnet_conn *conn, int fd)
{
    prepare_runts(conn, fd);
    prepare_half_frame(conn, fd);
}

static void prepare_runts_and_whole(qnet_conn *conn, int fd)
{
    prepare_runts(conn, fd);
    send_whole(conn, fd);
}

static void prepare_reported_end(qnet_conn *conn, int fd)
{
    leave_half(fd);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), QNET_ERR_CLOSED);
}

static void prepare_handled(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
}

static void prepare_closed(qnet_conn *conn, int fd)
{
    (void)fd;
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static const struct {
    void (*prepare)(qnet_conn *conn, int fd);
    int receive; /* what a receive without waiting returns; AGAIN means not ready */
} readiness[] = {
    { prepare_nothing, QNET_ERR_AGAIN },
    { send_whole, 20 },
    { prepare_held_frame, 20 },
    { prepare_kept_frame, 20 },
    { prepare_half_header, QNET_ERR_AGAIN },
    { prepare_header, QNET_ERR_AGAIN },
    { prepare_half_frame, QNET_ERR_AGAIN },
    { prepare_half_after_whole, QNET_ERR_AGAIN },
    { prepare_runts, QNET_ERR_AGAIN },
    { prepare_runts_and_half, QNET_ERR_AGAIN },
    { prepare_runts_and_whole, 20 },
    { prepare_leaving, QNET_ERR_CLOSED },
    { prepare_leaving_inside, QNET_ERR_PROTOCOL },
    { prepare_broken_length, QNET_ERR_PROTOCOL },
    { prepare_reported_end, QNET_ERR_CLOSED },
    { prepare_shutdown, QNET_ERR_CLOSED },
    { prepare_handled, QNET_ERR_BUSY },
    { prepare_closed, QNET_ERR_HANDLE },
};
enum { READINESS = sizeof readiness / sizeof *readiness };

/* An entry is ready if a receive would return anything but AGAIN. A second poll says the same. */
static void poll_tells_what_is_ready(void)
{
    qnet_conn *conns[READINESS + 1];
    uint8_t ready[READINESS + 1];
    int i, again, want = 1;

    for (i = 0; i < READINESS; i++) {
        int fd;

        conns[i] = raw_pair(&fd);
        readiness[i].prepare(conns[i], fd);
        want += readiness[i].receive != QNET_ERR_AGAIN;
    }
    conns[READINESS] = NULL;
    for (again = 0; again < 2; again++) {
        memset(ready, 77, sizeof ready);
        CHECK_INT(qnet_poll(conns, ready, READINESS + 1, again ? -1 : 0), want);
        for (i = 0; i < READINESS; i++) {
            if (ready[i] != (readiness[i].receive != QNET_ERR_AGAIN))
                fprintf(stderr, "entry %d:\n", i);
            CHECK_INT(ready[i], readiness[i].receive != QNET_ERR_AGAIN);
        }
        CHECK_INT(ready[READINESS], 1);
    }
    for (i = 0; i < READINESS; i++)
        CHECK_INT(qnet_recv(conns[i], NULL, 0, 0), readiness[i].receive);
}

/* If nothing is ready, a poll waits as long as it may and returns 0. */
static void poll_times_out(void)
{
    qnet_conn *conns[READINESS];
    uint8_t ready[READINESS];
    size_t count = 0, i;
    long long before;
    int fd;

    for (i = 0; i < READINESS; i++) {
        if (readiness[i].receive != QNET_ERR_AGAIN)
            continue;
        conns[count] = raw_pair(&fd);
        readiness[i].prepare(conns[count++], fd);
    }
    CHECK(count > 0);
    memset(ready, 77, sizeof ready);
    CHECK_INT(qnet_poll(conns, ready, count, 0), 0);
    for (i = 0; i < count; i++)
        CHECK_INT(ready[i], 0);
    memset(ready, 77, sizeof ready);
    before = raw_now_ms();
    CHECK_INT(qnet_poll(conns, ready, count, 50), 0);
    CHECK(raw_now_ms() - before >= 49);
    for (i = 0; i < count; i++)
        CHECK_INT(ready[i], 0);
}

static void poll_arguments(void)
{
    uint8_t ready = 0;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    send_whole(conn, fd);
    CHECK_INT(qnet_poll(NULL, &ready, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, NULL, 1, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 0, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -2), QNET_ERR_INVALID);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* What another thread does to a connection that is polled without a limit. */
struct waker {
    pthread_t thread;
    void (*act)(qnet_conn *conn, int fd);
    qnet_conn *conn;
    int fd;
};

static void *waking(void *argument)
{
    struct waker *waker = argument;

    raw_sleep_ms(30);
    waker->act(waker->conn, waker->fd);
    return NULL;
}

static void send_rest(qnet_conn *conn, int fd)
{
    (void)conn;
    raw_write(fd, "ten bytes.", 10);
}

static void poll_is_woken(void)
{
    static const struct {
        void (*prepare)(qnet_conn *conn, int fd);
        void (*act)(qnet_conn *conn, int fd);
    } cases[] = {
        { prepare_nothing, send_whole },
        { prepare_half_frame, send_rest },
        { prepare_runts_and_half, send_rest },
        { prepare_nothing, prepare_runts_and_whole },
        { prepare_nothing, prepare_leaving },
        { prepare_half_frame, prepare_leaving },
        { prepare_nothing, prepare_broken_length },
        { prepare_nothing, prepare_shutdown },
        { prepare_nothing, prepare_closed },
        { prepare_nothing, prepare_handled },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_conn *conns[3];
        uint8_t ready[3] = { 77, 77, 77 };
        struct waker waker;
        int fd;

        conns[0] = raw_pair(&fd);
        conns[1] = link_open(&waker.fd);
        conns[2] = raw_pair(&fd);
        cases[i].prepare(conns[1], waker.fd);
        waker.conn = conns[1];
        waker.act = cases[i].act;
        start_thread(&waker.thread, waking, &waker);
        CHECK_INT(qnet_poll(conns, ready, 3, -1), 1);
        CHECK(ready[0] == 0 && ready[1] == 1 && ready[2] == 0);
        join_thread(waker.thread);
    }
}

static int call_poll(qnet_conn *conn)
{
    uint8_t ready = 0;
    int result = qnet_poll(&conn, &ready, 1, -1);

    CHECK_INT(ready, result == 1);
    return result;
}

/*
 * What a poll has read into the library wakes every thread that waits, in a receive or in
 * another poll, though the descriptor is not readable any more.
 */
static void check_beside_a_poll(int (*call)(qnet_conn *), int want, unsigned frames)
{
    int turn, turns = 5 + rounds(400), fd;
    qnet_conn *conn = raw_pair(&fd);

    for (turn = 0; turn < turns; turn++) {
        struct caller poller, caller;

        caller_start(&caller, call, conn);
        caller_start(&poller, call_poll, conn);
        if (turn % 2)
            raw_sleep_ms(1);
        raw_send_part(fd, 20, 20);
        CHECK_INT(caller_result(&caller), want);
        if (frames > 0)
            raw_send_part(fd, 20, 20);
        CHECK_INT(caller_result(&poller), 1);
        CHECK_INT(call_recv(conn), 20);
        CHECK_INT(qnet_recv(conn, NULL, 0, 0), QNET_ERR_AGAIN);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void receive_beside_a_poll(void)
{
    check_beside_a_poll(call_recv, 20, 1);
    check_beside_a_poll(call_recv_batch, 1, 1);
    check_beside_a_poll(call_recv_packed, RAW_PREFIX + 20, 1);
}

static void poll_beside_a_poll(void)
{
    check_beside_a_poll(call_poll, 1, 0);
}

/* Frames that come at once serve as many receives that wait, whichever thread reads them. */
static void receive_beside_a_receive(void)
{
    static int (*const calls[])(qnet_conn *) = { call_recv, call_recv_batch, call_recv_packed };
    static const int results[] = { 20, 1, RAW_PREFIX + 20 };
    int turn, turns = 5 + rounds(300), fd, i;
    uint8_t wire[3 * (RAW_PREFIX + 20)];
    qnet_conn *conn = raw_pair(&fd);

    memset(wire, 0, sizeof wire);
    for (i = 0; i < 3; i++)
        raw_put_length(wire + i * (RAW_PREFIX + 20), 20);
    for (turn = 0; turn < turns; turn++) {
        struct caller callers[3];

        for (i = 0; i < 3; i++)
            caller_start(&callers[i], calls[i], conn);
        if (turn % 2)
            raw_sleep_ms(1);
        raw_write(fd, wire, sizeof wire);
        for (i = 0; i < 3; i++)
            CHECK_INT(caller_result(&callers[i]), results[i]);
    }
    CHECK_INT(qnet_recv(conn, NULL, 0, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void poll_many(void)
{
    enum { MANY = 60 };
    qnet_conn *conns[MANY];
    uint8_t ready[MANY];
    int i, fd;

    for (i = 0; i < MANY; i++) {
        conns[i] = raw_pair(&fd);
        if (i % 3 == 0)
            send_whole(conns[i], fd);
    }
    CHECK_INT(qnet_poll(conns, ready, MANY, -1), MANY / 3);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(ready[i], i % 3 == 0);
        CHECK_INT(qnet_recv(conns[i], NULL, 0, 0), ready[i] ? 20 : QNET_ERR_AGAIN);
    }
}

/* A thread that polls, and how often it was woken. */
struct sleeper {
    qnet_conn **conns;
    int count, asleep;
    long wakings;
};

static long wakings_of_this_thread(void)
{
    struct rusage usage;

    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_nvcsw;
}

static void *sleep_until_ready(void *argument)
{
    struct sleeper *sleeper = argument;
    uint8_t *ready = allocate((size_t)sleeper->count);
    long before = wakings_of_this_thread();

    __atomic_store_n(&sleeper->asleep, 1, __ATOMIC_SEQ_CST);
    CHECK_INT(qnet_poll(sleeper->conns, ready, (size_t)sleeper->count, -1), 1);
    sleeper->wakings = wakings_of_this_thread() - before;
    free(ready);
    return NULL;
}

/* Writes two frames at once. Receiving the first wakes the threads that wait for the other. */
static void pull_two(qnet_conn *conn, int fd)
{
    uint8_t two[2 * (RAW_PREFIX + 20)] = { 0 };
    int i;

    for (i = 0; i < 2; i++)
        raw_put_length(two + i * (RAW_PREFIX + 20), 20);
    raw_write(fd, two, sizeof two);
    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_recv(conn, two, sizeof two, -1), 20);
}

/* A poll is not woken by traffic on connections that it does not wait for. */
static void poll_sleeps_beside_others(void)
{
    enum { IDLE = 500 };
    static qnet_conn *conns[IDLE];
    static int fds[IDLE];
    struct rlimit limit = { 4096, 4096 };
    struct sleeper sleeper = { conns, IDLE, 0, 0 };
    int busy_fd, i, turns = rounds(30000);
    pthread_t thread;
    qnet_conn *busy;

    if (getenv("CHECK_EMULATED"))
        check_skip("what the emulator itself waits for would count as wakings");
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        check_skip("4096 descriptors are not to be had");
    busy = raw_pair(&busy_fd);
    for (i = 0; i < IDLE; i++)
        conns[i] = raw_pair(&fds[i]);
    start_thread(&thread, sleep_until_ready, &sleeper);
    EVENTUALLY(__atomic_load_n(&sleeper.asleep, __ATOMIC_SEQ_CST));
    for (i = 0; i < turns; i++)
        pull_two(busy, busy_fd);
    send_whole(conns[IDLE / 2], fds[IDLE / 2]);
    join_thread(thread);
    CHECK(sleeper.wakings <= 20);
    CHECK_INT(qnet_close(busy), QNET_OK);
    close(busy_fd);
    for (i = 0; i < IDLE; i++) {
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        close(fds[i]);
    }
}

/* ---- qnet_fd ---- */

/* The descriptor stays the same for as long as the handle, whatever happens to the connection. */
static void descriptor_stays(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);
    int number = qnet_fd(conn);

    CHECK(number >= 0);
    raw_send_flow(fd, &flow, 2, 0);
    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    taker_want(&taker, 2);
    CHECK_INT(qnet_fd(conn), number);
    CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_OK);
    CHECK_INT(qnet_fd(conn), number);
    remove_handler(conn);
    CHECK_INT(qnet_fd(conn), number);
    close(fd);
    CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
    CHECK_INT(qnet_fd(conn), number);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_wait(conn, -1), 0);
    CHECK_INT(qnet_fd(conn), number);
    CHECK(fcntl(number, F_GETFD) >= 0);
    taker_close(&taker);
    CHECK_INT(qnet_fd(conn), QNET_ERR_HANDLE);
}

/* One connection of an epoll loop. */
struct member {
    struct taker taker;
    struct flow expected;
    struct raw_job writer;
    int ended;
};

/* Takes what is there. Returns 1 at the end. */
static int member_ready(struct member *member)
{
    int result;

    do
        result = taker_pull(&member->taker, 0);
    while (result > 0 && (member->taker.way != BY_RECV_BATCH || result == 8));
    if (result > 0 || result == QNET_ERR_AGAIN)
        return 0;
    CHECK_INT(result, QNET_ERR_CLOSED);
    return 1;
}

static void *write_and_leave(void *argument)
{
    struct raw_job *job = argument;

    random_writes(job);
    close(job->fd);
    return NULL;
}

/* Many connections in one epoll loop, without any thread of the library's. */
static void epoll_loop(void)
{
    enum { MEMBERS = 12 };
    unsigned count = 50 + (unsigned)rounds(300);
    struct member *members = allocate(MEMBERS * sizeof *members);
    struct epoll_event event;
    int set = epoll_create1(EPOLL_CLOEXEC), left = MEMBERS, i;

    for (i = 0; i < MEMBERS; i++) {
        int fd;
        qnet_conn *conn = link_open(&fd);

        members[i].expected = flow_of_small_frames();
        taker_start(&members[i].taker, conn, i % WAYS_TO_PULL, flow_each, &members[i].expected);
        raw_start(&members[i].writer, write_and_leave, fd, members[i].expected, count);
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.ptr = &members[i];
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, qnet_fd(conn), &event) == 0);
    }
    while (left > 0) {
        struct member *member;

        CHECK_INT(epoll_wait(set, &event, 1, patience_ms()), 1);
        member = event.data.ptr;
        if (!member_ready(member))
            continue;
        CHECK_INT(member->expected.next, count);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, qnet_fd(member->taker.conn), NULL) == 0);
        join_thread(member->writer.thread);
        taker_close(&member->taker);
        left--;
    }
    close(set);
    free(members);
}

int main(void)
{
    RUN(poll_tells_what_is_ready);
    RUN(poll_times_out);
    RUN(poll_arguments);
    RUN_EACH(poll_is_woken);
    RUN(receive_beside_a_poll);
    RUN(poll_beside_a_poll);
    RUN(receive_beside_a_receive);
    RUN(poll_many);
    RUN(poll_sleeps_beside_others);
    RUN_EACH(descriptor_stays);
    RUN_EACH(epoll_loop);
    return check_done();
}
