/*
 * uncork.c - what ends the holding of frames that a handler has sent: whatever
 * the handler or another thread does meanwhile, they are written at the right
 * time, whole and in order.
 */
#include "scene.h"

static const size_t too_long_to_hold = 65535;

/* ---- What ends the holding from inside the handler ---- */

static void act_flush(struct scene *scene)
{
    CHECK_INT(qnet_flush(scene->target), QNET_OK);
    CHECK_INT(bytes_waiting(scene->target_fd), scene->sent);
}

static void act_close_target(struct scene *scene)
{
    scene->may_fail = 1;
    CHECK_INT(qnet_close(scene->target), QNET_OK);
}

static void act_shutdown_target(struct scene *scene)
{
    scene->may_fail = 1;
    CHECK_INT(qnet_shutdown(scene->target), QNET_OK);
}

static void act_close_source(struct scene *scene)
{
    CHECK_INT(qnet_close(scene->source), QNET_OK);
}

static void act_shutdown_source(struct scene *scene)
{
    CHECK_INT(qnet_shutdown(scene->source), QNET_OK);
}

static void act_remove_handler(struct scene *scene)
{
    CHECK_INT(qnet_set_handler(scene->source, NULL, NULL), QNET_OK);
}

static void act_exit(struct scene *scene)
{
    (void)scene;
    pthread_exit(NULL);
}

static void act_uncork(struct scene *scene)
{
    CHECK_INT(qnet_set(scene->target, QNET_OPT_CORK, 0), QNET_OK);
}

static void act_coalesce(struct scene *scene)
{
    CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, 1000), QNET_OK);
}

static void act_nothing(struct scene *scene)
{
    (void)scene;
}

/* Whatever a handler does while frames are held, they arrive and nothing waits for another call. */
static void acts_inside(void)
{
    static const struct {
        void (*act)(struct scene *);
        unsigned arrive;
        int ends;
    } cases[] = {
        { act_nothing, QUEUED, 0 },
        { act_close_target, WHEN + 1, 1 },
        { act_shutdown_target, WHEN + 1, 1 },
        { act_close_source, WHEN + 1, 0 },
        { act_shutdown_source, WHEN + 1, 0 },
        { act_remove_handler, WHEN + 1, 0 },
        { act_exit, WHEN + 1, 0 },
        { act_uncork, QUEUED, 0 },
        { act_coalesce, QUEUED, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene *scene = scene_make();

        scene->when = WHEN;
        scene->act = cases[i].act;
        scene_start(scene, on_frame, QUEUED, &short_frame);
        take_all(scene->target_fd, &short_frame, cases[i].arrive, cases[i].ends);
    }
}

/* A flush writes all that is held. Nothing is read before it, so that this can be counted. */
static void flush_inside(void)
{
    struct scene *scene = scene_make();

    scene->when = WHEN;
    scene->act = act_flush;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(get(&scene->calls) == QUEUED);
    take_all(scene->target_fd, &short_frame, QUEUED, 0);
}

/* ---- What another thread does while the handler is in the middle ---- */

static void other_flush(struct scene *scene)
{
    CHECK_INT(qnet_flush(scene->target), QNET_OK);
    CHECK_INT(bytes_waiting(scene->target_fd), (WHEN + 1) * (RAW_PREFIX + short_frame));
}

static void other_send(struct scene *scene)
{
    uint8_t frame[64];

    frame_make(frame, sizeof frame, QUEUED);
    CHECK_INT(qnet_send(scene->target, frame, sizeof frame), QNET_OK);
}

static void acts_outside(void)
{
    static const struct {
        void (*act)(struct scene *);
        unsigned arrive;
        int ends;
    } cases[] = {
        { other_flush, QUEUED, 0 },
        { act_close_target, WHEN + 1, 1 },
        { act_shutdown_target, WHEN + 1, 1 },
        { act_shutdown_source, WHEN + 1, 0 },
        { act_uncork, QUEUED, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene *scene = scene_make();
        struct flow flow = flow_of_one_size(&short_frame);

        scene->when = WHEN;
        scene->act = act_pause;
        scene_start(scene, on_frame, QUEUED, &short_frame);
        EVENTUALLY(get(&scene->is_acting));
        cases[i].act(scene);
        if (cases[i].ends)
            take(scene->target_fd, &flow, WHEN + 1);
        if (cases[i].ends)
            CHECK(raw_ended(scene->target_fd));
        put(&scene->may_go_on, 1);
        if (!cases[i].ends)
            take_all(scene->target_fd, &short_frame, cases[i].arrive, 0);
        EVENTUALLY(!get(&scene->is_acting));
    }
}

/* What another thread sends while a handler holds frames is written when that send returns. */
static void send_beside_a_handler(void)
{
    struct scene *scene = scene_make();
    uint8_t frame[64];
    int i, seen = 0;

    scene->when = WHEN;
    scene->act = act_pause;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(get(&scene->is_acting));
    other_send(scene);
    CHECK_INT(bytes_waiting(scene->target_fd), (WHEN + 2) * (RAW_PREFIX + short_frame));
    put(&scene->may_go_on, 1);
    for (i = 0; i <= QUEUED; i++) {
        CHECK_INT(raw_recv(scene->target_fd, frame, sizeof frame), sizeof frame);
        if (frame_number(frame, sizeof frame) == QUEUED)
            CHECK_INT(seen++, 0);
        else
            CHECK_INT(frame_number(frame, sizeof frame), i - seen);
    }
    CHECK_INT(seen, 1);
}

/* ---- A handler that waits in the library has flushed ---- */

/*
 * Fills the other connection. Its buffer is far shorter than a frame, so that a part of
 * one is pending.
 */
static void fill_other(struct scene *scene)
{
    scene->other_flow = flow_of_one_size(&too_long_to_hold);
    CHECK_INT(qnet_set(scene->other, QNET_OPT_SNDBUF, 4096), QNET_OK);
    CHECK_INT(qnet_set(scene->other, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(&scene->other_flow, scene->other, 0, 1) > 0)
        CHECK(scene->other_flow.next < 1000);
    CHECK_INT(qnet_flush(scene->other), QNET_ERR_AGAIN);
    CHECK_INT(qnet_set(scene->other, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
    CHECK_INT(qnet_set(scene->other, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
}

static void wait_recv(struct scene *scene)
{
    uint8_t frame[64];

    CHECK_INT(qnet_recv(scene->other, frame, sizeof frame, -1), sizeof frame);
}

static void *receive_first(void *scene)
{
    wait_recv(scene);
    return NULL;
}

static void begin_recv(struct scene *scene)
{
    start_thread(&scene->thread, receive_first, scene);
    raw_sleep_ms(20);
}

static void wait_recv_batch(struct scene *scene)
{
    qnet_frame frame;

    CHECK_INT(qnet_recv_batch(scene->other, &frame, 1, -1), 1);
}

static void wait_recv_packed(struct scene *scene)
{
    uint8_t buffer[QNET_FRAME_MAX + RAW_PREFIX];

    CHECK(qnet_recv_packed(scene->other, buffer, sizeof buffer, patience_ms()) > 0);
}

static void wait_poll(struct scene *scene)
{
    uint8_t ready;

    CHECK_INT(qnet_poll(&scene->other, &ready, 1, -1), 1);
}

static void wait_end(struct scene *scene)
{
    CHECK_INT(qnet_wait(scene->other, -1), QNET_OK);
}

static void wait_accept(struct scene *scene)
{
    qnet_conn *conn;

    CHECK_INT(qnet_accept(scene->listener, -1, &conn), QNET_OK);
}

static void wait_send(struct scene *scene)
{
    struct flow flow = scene->other_flow;

    CHECK_INT(flow_send(&flow, scene->other, 0, 1), 1);
}

static void wait_flush(struct scene *scene)
{
    CHECK_INT(qnet_flush(scene->other), QNET_OK);
}

static void wait_close(struct scene *scene)
{
    CHECK_INT(qnet_close(scene->other), QNET_OK);
}

static void begin_listener(struct scene *scene)
{
    snprintf(scene->place.text, sizeof scene->place.text, "@qnet-hold-%ld", (long)getpid());
    CHECK_INT(qnet_listen("unix", scene->place.text, &scene->listener), QNET_OK);
}

static void release_by_frame(struct scene *scene)
{
    struct flow flow = flow_of_one_size(&short_frame);

    raw_send_flow(scene->other_fd, &flow, 1, 0);
}

static void release_two(struct scene *scene)
{
    release_by_frame(scene);
    release_by_frame(scene);
    join_thread(scene->thread);
}

static void release_by_end(struct scene *scene)
{
    close(scene->other_fd);
}

static void release_by_connect(struct scene *scene)
{
    CHECK(raw_unix_connect(scene->place.text) >= 0);
}

static void read_other(struct scene *scene, unsigned more)
{
    struct flow flow = flow_of_one_size(&too_long_to_hold);

    take(scene->other_fd, &flow, scene->other_flow.next + more);
    EVENTUALLY(!get(&scene->is_acting));
}

static void release_by_reading(struct scene *scene)
{
    read_other(scene, 0);
}

static void release_by_reading_more(struct scene *scene)
{
    read_other(scene, 1);
}

/* Before a handler waits in the library, what it has sent is written; nothing is lost afterwards. */
static void waits_inside(void)
{
    static const struct {
        void (*begin)(struct scene *);
        void (*act)(struct scene *);
        void (*release)(struct scene *);
    } cases[] = {
        { act_nothing, wait_recv, release_by_frame },
        { begin_recv, wait_recv, release_two },
        { act_nothing, wait_recv_batch, release_by_frame },
        { act_nothing, wait_recv_packed, release_by_frame },
        { act_nothing, wait_poll, release_by_frame },
        { act_nothing, wait_end, release_by_end },
        { begin_listener, wait_accept, release_by_connect },
        { fill_other, wait_send, release_by_reading_more },
        { fill_other, wait_flush, release_by_reading },
        { fill_other, wait_close, release_by_reading },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct flow flow = flow_of_one_size(&short_frame);
        struct scene *scene = scene_make();

        scene->when = WHEN;
        scene->act = cases[i].act;
        cases[i].begin(scene);
        scene_start(scene, on_frame, QUEUED, &short_frame);
        take(scene->target_fd, &flow, WHEN + 1);
        CHECK(get(&scene->calls) <= WHEN);
        cases[i].release(scene);
        take(scene->target_fd, &flow, QUEUED);
        CHECK(!raw_readable(scene->target_fd, 5));
    }
}

/* ---- A handler's thread that goes on as something else ---- */

static struct scene *last_words_of;

static void last_words(void *unused)
{
    uint8_t frame[64];

    (void)unused;
    frame_make(frame, sizeof frame, WHEN + 1);
    send_on(last_words_of, frame, sizeof frame);
}

static void act_exit_with_last_words(struct scene *scene)
{
    pthread_key_t key;

    last_words_of = scene;
    CHECK_INT(pthread_key_create(&key, last_words), 0);
    CHECK_INT(pthread_setspecific(key, scene), 0);
    pthread_exit(NULL);
}

/* What a destructor sends when the handler's thread ends is not held. */
static void send_at_thread_exit(void)
{
    struct scene *scene = scene_make();

    scene->when = WHEN;
    scene->act = act_exit_with_last_words;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, WHEN + 2, 0);
}

static void act_fork(struct scene *scene)
{
    int fd, status;
    pid_t pid = fork();

    if (pid == 0) {
        uint8_t frame[64] = { 0 };
        qnet_conn *conn = raw_pair(&fd);

        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        _exit(!raw_readable(fd, 1000 * check_slow()));
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    put(&scene->may_go_on, WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : -1);
}

/* A child that is forked inside a handler holds nothing that it sends. */
static void fork_inside(void)
{
    struct scene *scene;

    if (is_under_valgrind())
        check_skip("valgrind takes for lost what a child's other threads had");
    scene = scene_make();
    scene->when = WHEN;
    scene->act = act_fork;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, QUEUED, 0);
    CHECK_INT(get(&scene->may_go_on), 1);
}

int main(void)
{
    RUN(acts_inside);
    RUN(flush_inside);
    RUN(acts_outside);
    RUN(send_beside_a_handler);
    RUN(waits_inside);
    RUN(send_at_thread_exit);
    RUN(fork_inside);
    return check_done();
}
