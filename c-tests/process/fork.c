/*
 * fork.c - children that are forked inside a callback, of every kind and on
 * every kind of thread, and that end there or return from it. The parent's
 * connections go on as if nothing had happened, however its other threads were
 * waiting, and a child that returns has a library of its own.
 */
#include <semaphore.h>
#include <sys/syscall.h>

#include "ways.h"
#include "scratch.h"

enum { SETTLED_MS = 50, HELD_MS = 400, BURNT_MS = 100 };

/* A callback that forks, on a connection that another thread closes meanwhile. */
struct scene {
    qnet_conn *conn;
    int fd;
    int child_returns;
    int closes;              /* whether another thread closes */
    sem_t begun;
    pthread_t closer;
    int held_ms;             /* how long the parent stays in the callback */
    long long burnt_ms;      /* the processor time of the other thread's close */
    int calls;
    int listener;            /* from here on: what only some kinds need */
    qnet_hub *hub;
    struct place place;
};

/* Whether this process is a child that has returned from its callback. */
static int is_child;

static long long thread_ms(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void *close_meanwhile(void *argument)
{
    struct scene *scene = argument;
    long long before;

    CHECK(sem_wait(&scene->begun) == 0);
    before = thread_ms();
    CHECK_INT(qnet_close(scene->conn), QNET_OK);
    scene->burnt_ms = thread_ms() - before;
    return NULL;
}

/* Ends a child without a sanitizer's report, which would be of its parent's threads and memory. */
static void end_child(void)
{
    syscall(SYS_exit_group, 0);
}

/* Sets a limit to a child that hangs, and avoids the search for leaks in one that returns. */
static void begin_child(void)
{
    alarm((unsigned)(10 * check_slow()));
#ifdef __SANITIZE_ADDRESS__
    CHECK_INT(atexit(end_child), 0);
#endif
}

static void await_child(pid_t pid)
{
    int status;

    CHECK(pid > 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
}

static void fork_inside(struct scene *scene)
{
    pid_t pid;

    scene->calls++;
    CHECK(sem_post(&scene->begun) == 0);
    if (scene->held_ms > 0)
        raw_sleep_ms(SETTLED_MS); /* the other thread is waiting */
    pid = fork();
    if (pid == 0) {
        begin_child();
        if (!scene->child_returns)
            end_child();
        is_child = 1;
        return;
    }
    await_child(pid);
    if (scene->held_ms > 0)
        raw_sleep_ms(scene->held_ms);
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    fork_inside(user);
}

static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    fork_inside(user);
}

static void on_end(void *user, int reason)
{
    (void)reason;
    fork_inside(user);
}

static void on_state(void *user, int up)
{
    (void)up;
    fork_inside(user);
}

static void send_back(void *user, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(*(qnet_conn **)user, frame, len), QNET_OK);
}

/*
 * Ends a child that has returned from its callback, after checking that it has
 * nothing of its parent's and that the library works there.
 */
static void if_child(struct scene *scene, int result, int had)
{
    struct flow flow = flow_of_small_frames(), got = flow;
    static qnet_conn *conn;
    int fd;

    if (!is_child)
        return;
    CHECK(result == had || result == QNET_ERR_HANDLE);
    CHECK_INT(qnet_recv(scene->conn, NULL, 0, -1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(scene->conn), QNET_ERR_HANDLE);
    conn = raw_pair(&fd);
    CHECK_INT(qnet_set_handler(conn, send_back, &conn), QNET_OK);
    raw_send_flow(fd, &flow, 10, 0);
    raw_take_until(fd, &got, 10);
    CHECK_INT(qnet_close(conn), QNET_OK);
    end_child();
}

/* ---- The kinds of callback ---- */

static void in_frame_handler(struct scene *scene)
{
    struct flow flow = flow_of_small_frames();

    CHECK_INT(qnet_set_handler(scene->conn, on_frame, scene), QNET_OK);
    raw_send_flow(scene->fd, &flow, 1, 0);
}

static void in_batch_handler(struct scene *scene)
{
    struct flow flow = flow_of_small_frames();

    CHECK_INT(qnet_set_batch_handler(scene->conn, on_batch, scene), QNET_OK);
    raw_send_flow(scene->fd, &flow, 1, 0);
}

static void in_close_handler_of_its_own(struct scene *scene)
{
    CHECK_INT(qnet_set_handler(scene->conn, on_frame, scene), QNET_OK);
    CHECK_INT(qnet_set_close_handler(scene->conn, on_end, scene), QNET_OK);
    CHECK(shutdown(scene->fd, SHUT_RDWR) == 0);
}

static void in_close_handler_of_a_port(struct scene *scene)
{
    CHECK_INT(qnet_hub_new(&scene->hub), QNET_OK);
    CHECK_INT(qnet_set_close_handler(scene->conn, on_end, scene), QNET_OK);
    CHECK_INT(qnet_hub_attach(scene->hub, scene->conn), QNET_OK);
    CHECK(shutdown(scene->fd, SHUT_RDWR) == 0);
}

static void in_receive(struct scene *scene)
{
    uint8_t frame[64];
    int result;

    CHECK_INT(qnet_set_close_handler(scene->conn, on_end, scene), QNET_OK);
    CHECK(shutdown(scene->fd, SHUT_RDWR) == 0);
    result = qnet_recv(scene->conn, frame, sizeof frame, -1);
    if_child(scene, result, QNET_ERR_CLOSED);
    CHECK_INT(result, QNET_ERR_CLOSED);
}

static void in_shutdown(struct scene *scene)
{
    int result;

    CHECK_INT(qnet_set_close_handler(scene->conn, on_end, scene), QNET_OK);
    result = qnet_shutdown(scene->conn);
    if_child(scene, result, QNET_OK);
    CHECK_INT(result, QNET_OK);
}

static void in_close(struct scene *scene)
{
    int result;

    CHECK_INT(qnet_set_close_handler(scene->conn, on_end, scene), QNET_OK);
    scene->closes = 0;
    result = qnet_close(scene->conn);
    if_child(scene, result, QNET_OK);
    CHECK_INT(result, QNET_OK);
}

static void in_setting_a_late_one(struct scene *scene)
{
    int result;

    CHECK_INT(qnet_shutdown(scene->conn), QNET_OK);
    result = qnet_set_close_handler(scene->conn, on_end, scene);
    if_child(scene, result, QNET_OK);
    CHECK_INT(result, QNET_OK);
}

/* Replaces the scene's connection with one that is dialled again. */
static void dial_again(struct scene *scene)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1 };

    snprintf(scene->place.text, sizeof scene->place.text, "@qnet-fork-%ld", (long)getpid());
    scene->listener = raw_unix_listen(scene->place.text);
    CHECK_INT(qnet_close(scene->conn), QNET_OK);
    close(scene->fd);
    CHECK_INT(qnet_dial_with("unix", scene->place.text, options, 1, &scene->conn), QNET_OK);
    scene->fd = accept(scene->listener, NULL, NULL);
    CHECK(scene->fd >= 0);
}

static void in_state_handler(struct scene *scene)
{
    dial_again(scene);
    CHECK_INT(qnet_set_state_handler(scene->conn, on_state, scene), QNET_OK);
    CHECK(shutdown(scene->fd, SHUT_RDWR) == 0);
    CHECK_INT(qnet_recv(scene->conn, NULL, 0, 0), QNET_ERR_AGAIN);
}

static const struct kind {
    const char *name;
    void (*play)(struct scene *scene);
} kinds[] = {
    { "frame handler", in_frame_handler },
    { "batch handler", in_batch_handler },
    { "close handler, handled", in_close_handler_of_its_own },
    { "close handler, attached", in_close_handler_of_a_port },
    { "close handler, receive", in_receive },
    { "close handler, shutdown", in_shutdown },
    { "close handler, close", in_close },
    { "close handler, set late", in_setting_a_late_one },
    { "state handler", in_state_handler },
};

enum { KINDS = sizeof kinds / sizeof *kinds };
static const struct kind *kind;

/* Prepares a scene; `finish` checks that its callback was called and that the close returns. */
static void begin(struct scene *scene, int child_returns)
{
    memset(scene, 0, sizeof *scene);
    scene->child_returns = child_returns;
    scene->closes = 1;
    scene->listener = -1;
    scene->conn = raw_pair(&scene->fd);
    CHECK(sem_init(&scene->begun, 0, 0) == 0);
}

static void finish(struct scene *scene)
{
    if (scene->closes)
        join_thread(scene->closer);
    CHECK(scene->calls >= 1);
    if (scene->hub)
        CHECK_INT(qnet_hub_close(scene->hub), QNET_OK);
    if (scene->listener >= 0)
        close(scene->listener);
    close(scene->fd);
    CHECK(sem_destroy(&scene->begun) == 0);
}

static void children(void)
{
    int i;

    for (i = 0; i < rounds(300); i++) {
        struct scene scene;

        begin(&scene, i % 3 != 0);
        if (kind->play != in_close)
            start_thread(&scene.closer, close_meanwhile, &scene);
        kind->play(&scene);
        finish(&scene);
    }
}

/*
 * A child shares descriptors with its parent: if it signalled one, the parent's
 * waiting close would spin.
 */
static void a_waiting_close_rests(void)
{
    struct scene scene;

    begin(&scene, 1);
    scene.held_ms = HELD_MS;
    start_thread(&scene.closer, close_meanwhile, &scene);
    kind->play(&scene);
    finish(&scene);
    CHECK(scene.burnt_ms < BURNT_MS);
}

/* ---- Frames that the parent holds ---- */

enum { QUEUED = 80 };

struct relay {
    qnet_conn *source, *target;
    int source_fd, target_fd;
    int when, child_returns;
    int calls;
};

/*
 * Has a child send on a connection of its own, for long enough that frames
 * which it wrongly kept from its parent would be written.
 */
static void send_and_stay(void)
{
    struct flow flow = flow_of_small_frames(), got = flow;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(flow_send(&flow, conn, 0, 5), 5);
    raw_take_until(fd, &got, 5);
    raw_sleep_ms(5);
}

static void relay_frame(void *user, const uint8_t *frame, size_t len)
{
    struct relay *relay = user;
    pid_t pid;

    CHECK_INT(qnet_send(relay->target, frame, len), QNET_OK);
    if (relay->calls++ != relay->when)
        return;
    pid = fork();
    if (pid != 0) {
        await_child(pid);
        return;
    }
    begin_child();
    if (relay->child_returns)
        return;
    send_and_stay();
    end_child();
}

static void held_frames_are_the_parents(void)
{
    int i;

    for (i = 0; i < rounds(300); i++) {
        struct flow flow = flow_of_small_frames(), got = flow;
        struct relay relay;

        memset(&relay, 0, sizeof relay);
        relay.source = raw_pair(&relay.source_fd);
        relay.target = raw_pair(&relay.target_fd);
        relay.when = QUEUED / 3 + i % (QUEUED / 6);
        relay.child_returns = i % 5 != 0;
        raw_send_flow(relay.source_fd, &flow, QUEUED, 0);
        CHECK_INT(qnet_set_handler(relay.source, relay_frame, &relay), QNET_OK);
        raw_take_until(relay.target_fd, &got, QUEUED);
        CHECK_INT(qnet_close(relay.source), QNET_OK);
        CHECK_INT(qnet_close(relay.target), QNET_OK);
        CHECK(raw_ended(relay.target_fd));
        close(relay.source_fd);
        close(relay.target_fd);
    }
}

int main(void)
{
    size_t i;

    if (is_under_valgrind()) {
        puts("skipped all: a child has the memory of its parent's threads, but not the threads");
        check_skipped++;
        return check_done();
    }
    for (i = 0; i < KINDS; i++) {
        kind = &kinds[i];
        run_with("children", kind->name, children);
    }
    for (i = 0; i < KINDS; i++) {
        kind = &kinds[i];
        if (kind->play != in_close && kind->play != in_setting_a_late_one)
            run_with("a_waiting_close_rests", kind->name, a_waiting_close_rests);
    }
    RUN(held_frames_are_the_parents);
    return check_done();
}
