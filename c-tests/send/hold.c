/*
 * hold.c - frames that are held back to be written together: corked in a
 * handler, or coalesced for a time. Whatever is done meanwhile, all of them
 * arrive, whole, in order and without a further call.
 */
#include <dirent.h>
#include <semaphore.h>
#include <sys/resource.h>

#include "ways.h"
#include "scratch.h"

enum { QUEUED = 50, WHEN = 10, NEVER = -1, HURRIED = 300 };

static const size_t short_frame = 64, long_frame = 1000, too_long_to_hold = 65535;

/* ---- A source whose handler sends everything on to a target ---- */

struct scene {
    qnet_conn *source, *target;
    int source_fd, target_fd;
    int when;                    /* in which call `act` runs, after that call's send */
    void (*act)(struct scene *);
    int may_fail;                /* whether sends after that may */
    int calls;                   /* that have returned */
    int failed;                  /* sends */
    size_t sent;                 /* bytes on the wire that were taken */
    qnet_conn *other;            /* what `act` needs */
    int other_fd;
    qnet_listener *listener;
    struct place place;
    struct flow other_flow;
    pthread_t thread;
    int is_acting, may_go_on;    /* shared by two threads, as `calls` is */
};

static int peek(const int *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static void poke(int *number, int value)
{
    __atomic_store_n(number, value, __ATOMIC_RELEASE);
}

static void send_on(struct scene *scene, const uint8_t *frame, size_t len)
{
    int result = qnet_send(scene->target, frame, len);

    if (result == QNET_OK)
        scene->sent += RAW_PREFIX + len;
    else
        CHECK(scene->may_fail);
    scene->failed += result != QNET_OK;
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    if (scene->calls == scene->when) {
        poke(&scene->is_acting, 1);
        scene->act(scene);
        poke(&scene->is_acting, 0);
    }
    poke(&scene->calls, scene->calls + 1);
}

/* One after another and never again: a handler may be about to return when its test is done. */
static struct scene *scene_make(void)
{
    static struct scene scenes[16];
    static size_t made;
    struct scene *scene = &scenes[made++];

    CHECK(made <= sizeof scenes / sizeof *scenes);
    scene->when = NEVER;
    scene->source = raw_pair(&scene->source_fd);
    scene->target = raw_pair(&scene->target_fd);
    scene->other = raw_pair(&scene->other_fd);
    CHECK_INT(qnet_set(scene->target, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    return scene;
}

/* `count` frames lie ready when the handler comes. */
static void scene_start(struct scene *scene, qnet_handler handler, unsigned count,
                        const size_t *size)
{
    struct flow flow = flow_of_one_size(size);

    raw_send_flow(scene->source_fd, &flow, count, 0);
    CHECK_INT(qnet_set_handler(scene->source, handler, scene), QNET_OK);
}

/* Reads the frames with the numbers from `flow->next` to `end`, waiting for each with patience. */
static void take(int fd, struct flow *flow, unsigned end)
{
    while (flow->next != end) {
        CHECK(raw_readable(fd, patience_ms()));
        raw_take(fd, flow);
    }
}

/* Exactly `count` frames come and nothing after them; `ended`: then the end. */
static void take_all(int fd, const size_t *size, unsigned count, int ended)
{
    struct flow flow = flow_of_one_size(size);

    take(fd, &flow, count);
    if (ended)
        CHECK(raw_ended(fd));
    else
        CHECK(!raw_readable(fd, 10));
}

/* Every taken frame was sent, in the end. */
static void check_sent(qnet_conn *conn, unsigned taken)
{
    EVENTUALLY(stats_of(conn).tx_frames + stats_of(conn).tx_dropped == taken);
    CHECK_INT(stats_of(conn).tx_frames, taken);
}

/* Many frames to a write when corked, one each when not. */
static void corked_writes(void)
{
    unsigned count = (unsigned)rounds(1000);
    int cork;

    for (cork = 0; cork < 2; cork++) {
        struct scene *scene = scene_make();

        CHECK_INT(qnet_set(scene->target, QNET_OPT_CORK, cork), QNET_OK);
        scene_start(scene, on_frame, count, &short_frame);
        take_all(scene->target_fd, &short_frame, count, 0);
        check_sent(scene->target, count);
        if (cork)
            CHECK(stats_of(scene->target).tx_writes < count / 4);
        else
            CHECK_INT(stats_of(scene->target).tx_writes, count);
    }
}

/* A long stream through the handler, every size, read as it comes and written in odd pieces. */
static void corked_stream(void)
{
    static const size_t steps[] = { 0, 7919 };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct scene *scene = scene_make();
        struct raw_job reader;
        unsigned count = (unsigned)rounds(2000);
        struct flow flow = flow_of_all_sizes();
        unsigned at;

        raw_start(&reader, raw_reading, scene->target_fd, flow, count);
        CHECK_INT(qnet_set_handler(scene->source, on_frame, scene), QNET_OK);
        for (at = 0; at < count; at += 20)
            raw_send_flow(scene->source_fd, &flow, count - at < 20 ? count - at : 20, steps[i]);
        join_thread(reader.thread);
        check_sent(scene->target, count);
        CHECK(!raw_readable(scene->target_fd, 10));
    }
}

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

/* Nothing is read before the flush, so that what it wrote can be counted. */
static void flush_inside(void)
{
    struct scene *scene = scene_make();

    scene->when = WHEN;
    scene->act = act_flush;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(peek(&scene->calls) == QUEUED);
    take_all(scene->target_fd, &short_frame, QUEUED, 0);
}

/* ---- What another thread does while the handler is in the middle ---- */

static void act_pause(struct scene *scene)
{
    EVENTUALLY(peek(&scene->may_go_on));
}

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
        EVENTUALLY(peek(&scene->is_acting));
        cases[i].act(scene);
        if (cases[i].ends)
            take(scene->target_fd, &flow, WHEN + 1);
        if (cases[i].ends)
            CHECK(raw_ended(scene->target_fd));
        poke(&scene->may_go_on, 1);
        if (!cases[i].ends)
            take_all(scene->target_fd, &short_frame, cases[i].arrive, 0);
        EVENTUALLY(!peek(&scene->is_acting));
    }
}

/* A plain thread's send while a handler holds frames: it is there when the send returns. */
static void send_beside_a_handler(void)
{
    struct scene *scene = scene_make();
    uint8_t frame[64];
    int i, seen = 0;

    scene->when = WHEN;
    scene->act = act_pause;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(peek(&scene->is_acting));
    other_send(scene);
    CHECK_INT(bytes_waiting(scene->target_fd), (WHEN + 2) * (RAW_PREFIX + short_frame));
    poke(&scene->may_go_on, 1);
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

/* A buffer far shorter than a frame, so that a part of one is pending. */
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
    EVENTUALLY(!peek(&scene->is_acting));
}

static void release_by_reading(struct scene *scene)
{
    read_other(scene, 0);
}

static void release_by_reading_more(struct scene *scene)
{
    read_other(scene, 1);
}

/* While a handler waits, the peer already has what was sent before; nothing is lost after. */
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
        CHECK(peek(&scene->calls) <= WHEN);
        cases[i].release(scene);
        take(scene->target_fd, &flow, QUEUED);
        CHECK(!raw_readable(scene->target_fd, 5));
    }
}

/* ---- A slow handler ---- */

/* In each call what was sent in it, or in the one before, goes out, however long that takes. */
static void send_and_wait(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    poke(&scene->calls, scene->calls + 1);
}

static void wait_and_send(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    send_on(scene, frame, len);
    poke(&scene->calls, scene->calls + 1);
}

/* Fast at first, for many frames that are written together, then slow. */
static void hurry_then_wait(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    if (scene->calls >= HURRIED)
        EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    poke(&scene->calls, scene->calls + 1);
}

static void fast_handler_that_gets_slow(void)
{
    struct scene *scene = scene_make();
    unsigned count = HURRIED + 20;

    scene_start(scene, hurry_then_wait, count, &short_frame);
    EVENTUALLY(peek(&scene->calls) == (int)count);
    take_all(scene->target_fd, &short_frame, count, 0);
}

static void slow_handlers(void)
{
    static const qnet_handler handlers[] = { send_and_wait, wait_and_send };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct scene *scene = scene_make();

        scene_start(scene, handlers[i], QUEUED, &short_frame);
        EVENTUALLY(peek(&scene->calls) == QUEUED);
        take_all(scene->target_fd, &short_frame, QUEUED, 0);
    }
}

/* ---- A reply that the next call waits for ---- */

struct dialogue {
    qnet_conn *conn;
    int fd;
    int calls;
    sem_t heard;
};

static void reply_then_wait(struct dialogue *dialogue, const uint8_t *frame, size_t len)
{
    if (dialogue->calls++ % 2 == 0)
        CHECK_INT(qnet_send(dialogue->conn, frame, len), QNET_OK);
    else
        while (sem_wait(&dialogue->heard) != 0)
            CHECK(errno == EINTR);
}

static void on_question(void *user, const uint8_t *frame, size_t len)
{
    reply_then_wait(user, frame, len);
}

static void on_questions(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        reply_then_wait(user, frames[i].data, frames[i].len);
}

/* What one call sends arrives while the next call, which may wait for that, is not over. */
static void reply_before_the_next_call_is_over(void)
{
    int batch, i, count = rounds(200);

    for (batch = 0; batch < 2; batch++) {
        struct dialogue *dialogue = allocate(sizeof *dialogue);
        struct flow flow = flow_of_one_size(&short_frame), got = flow;

        dialogue->conn = raw_pair(&dialogue->fd);
        dialogue->calls = 0;
        CHECK(sem_init(&dialogue->heard, 0, 0) == 0);
        raw_send_flow(dialogue->fd, &flow, 2 * (unsigned)count + 1, 0);
        if (batch)
            CHECK_INT(qnet_set_batch_handler(dialogue->conn, on_questions, dialogue), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(dialogue->conn, on_question, dialogue), QNET_OK);
        for (i = 0; i < count; i++) {
            take(dialogue->fd, &got, 2 * (unsigned)i + 1);
            CHECK_INT(sem_post(&dialogue->heard), 0);
            got.next++;
        }
        take(dialogue->fd, &got, 2 * (unsigned)count + 1);
        CHECK_INT(qnet_close(dialogue->conn), QNET_OK);
        close(dialogue->fd);
        CHECK(sem_destroy(&dialogue->heard) == 0);
        free(dialogue);
    }
}

/* ---- Other targets and other ways to send ---- */

/* More than a thread holds something for at a time. */
enum { TARGETS = 40 };

struct fan {
    qnet_conn *targets[TARGETS];
    int fds[TARGETS];
    unsigned calls;
};

static void on_frame_for_all(void *user, const uint8_t *frame, size_t len)
{
    struct fan *fan = user;
    int i;

    for (i = 0; i < TARGETS; i++)
        CHECK_INT(qnet_send(fan->targets[i], frame, len), QNET_OK);
}

static void several_targets(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    unsigned count = (unsigned)rounds(500);
    struct fan fan;
    int i, fd;
    qnet_conn *source = raw_pair(&fd);

    for (i = 0; i < TARGETS; i++)
        fan.targets[i] = raw_pair(&fan.fds[i]);
    raw_send_flow(fd, &flow, count, 0);
    CHECK_INT(qnet_set_handler(source, on_frame_for_all, &fan), QNET_OK);
    for (i = 0; i < TARGETS; i++) {
        take_all(fan.fds[i], &short_frame, count, 0);
        check_sent(fan.targets[i], count);
    }
}

/* The handler's own connection is its target. */
static void echo(void)
{
    unsigned count = (unsigned)rounds(500);
    struct scene *scene = scene_make();

    scene->target = scene->source;
    scene_start(scene, on_frame, count, &short_frame);
    take_all(scene->source_fd, &short_frame, count, 0);
    check_sent(scene->source, count);
}

/* Sends `count` frames in wire format as one packed buffer. */
static int pack_and_send(qnet_conn *conn, const qnet_frame *frames, size_t count)
{
    uint8_t *wire;
    size_t len = 0, i;
    int taken;

    for (i = 0; i < count; i++)
        len += RAW_PREFIX + frames[i].len;
    wire = allocate(len);
    for (i = len = 0; i < count; i++) {
        raw_put_length(wire + len, frames[i].len);
        memcpy(wire + len + RAW_PREFIX, frames[i].data, frames[i].len);
        len += RAW_PREFIX + frames[i].len;
    }
    taken = qnet_send_packed(conn, wire, len);
    free(wire);
    return taken;
}

/* All that is given, in turn by each way and in pieces by all three. */
static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct scene *scene = user;
    size_t at = 0, some;

    while (at < count) {
        some = count - at < 9 ? count - at : 9;
        switch (scene->calls++ % 3) {
        case 0:
            some = 1;
            CHECK_INT(qnet_send(scene->target, frames[at].data, frames[at].len), QNET_OK);
            break;
        case 1:
            CHECK_INT(qnet_send_batch(scene->target, frames + at, some), some);
            break;
        default:
            CHECK_INT(pack_and_send(scene->target, frames + at, some), some);
        }
        at += some;
    }
}

static void on_frame_mixed(void *user, const uint8_t *frame, size_t len)
{
    qnet_frame one;

    one.data = frame;
    one.len = len;
    on_batch(user, &one, 1);
}

static void mixed_ways(void)
{
    int batch;

    for (batch = 0; batch < 2; batch++) {
        unsigned count = (unsigned)rounds(2000);
        struct flow flow = flow_of_all_sizes();
        struct raw_job reader;
        struct scene *scene = scene_make();

        raw_start(&reader, raw_reading, scene->target_fd, flow, count);
        if (batch)
            CHECK_INT(qnet_set_batch_handler(scene->source, on_batch, scene), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(scene->source, on_frame_mixed, scene), QNET_OK);
        raw_send_flow(scene->source_fd, &flow, count, 0);
        join_thread(reader.thread);
        check_sent(scene->target, count);
        CHECK(!raw_readable(scene->target_fd, 10));
    }
}

/* ---- A target that does not read ---- */

enum { MANY = 2000 };
static unsigned taken_numbers[MANY];

static void send_on_or_not(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    int result = qnet_send(scene->target, frame, len);

    if (result == QNET_OK)
        taken_numbers[scene->calls - scene->failed] = frame_number(frame, len);
    else
        CHECK_INT(result, QNET_ERR_AGAIN);
    scene->failed += result != QNET_OK;
    poke(&scene->calls, scene->calls + 1);
}

static void take_numbers(int fd, unsigned count)
{
    static uint8_t frame[QNET_FRAME_MAX];
    unsigned i;

    for (i = 0; i < count; i++) {
        CHECK(raw_readable(fd, patience_ms()));
        CHECK_INT(frame_number(frame, (size_t)raw_recv(fd, frame, sizeof frame)), taken_numbers[i]);
    }
    CHECK(!raw_readable(fd, 10));
}

/* What is taken arrives once it reads, and what is not never does. */
static void target_that_does_not_read(void)
{
    static const int buffers[] = { 1, 4096, 65536 };
    size_t i;

    for (i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        struct flow flow = flow_of_one_size(&long_frame);
        struct scene *scene = scene_make();

        CHECK_INT(qnet_set(scene->target, QNET_OPT_SNDBUF, buffers[i]), QNET_OK);
        CHECK_INT(qnet_set(scene->target, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
        CHECK_INT(qnet_set_handler(scene->source, send_on_or_not, scene), QNET_OK);
        raw_send_flow(scene->source_fd, &flow, MANY, 0);
        EVENTUALLY(peek(&scene->calls) == MANY);
        CHECK(scene->failed > 0 && scene->failed < MANY);
        take_numbers(scene->target_fd, (unsigned)(MANY - scene->failed));
        check_sent(scene->target, (unsigned)(MANY - scene->failed));
    }
}

/* With a send that waits, everything arrives through the smallest buffer. */
static void target_with_a_small_buffer(void)
{
    unsigned count = (unsigned)rounds(1000);
    struct flow flow = flow_of_all_sizes();
    struct raw_job reader;
    struct scene *scene = scene_make();

    CHECK_INT(qnet_set(scene->target, QNET_OPT_SNDBUF, 1), QNET_OK);
    raw_start(&reader, raw_reading, scene->target_fd, flow, count);
    CHECK_INT(qnet_set_handler(scene->source, on_frame, scene), QNET_OK);
    raw_send_flow(scene->source_fd, &flow, count, 0);
    join_thread(reader.thread);
    check_sent(scene->target, count);
}

/* The target goes while frames are held for it: each is in one counter. */
static void target_that_leaves(void)
{
    struct scene *scene = scene_make();
    qnet_stats stats;

    scene->may_fail = 1;
    scene->when = WHEN;
    scene->act = act_pause;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(peek(&scene->is_acting));
    close(scene->target_fd);
    poke(&scene->may_go_on, 1);
    EVENTUALLY(peek(&scene->calls) == QUEUED);
    EVENTUALLY((stats = stats_of(scene->target), stats.tx_frames + stats.tx_dropped)
               == (uint64_t)(QUEUED - scene->failed));
}

/* ---- One call that sends much ---- */

/* Sends `count` frames and keeps account of how much of them is not in the socket. */
static void send_bounded(qnet_conn *conn, int fd, const size_t *size, unsigned count)
{
    struct flow flow = flow_of_one_size(size), got = flow;
    size_t wire = RAW_PREFIX + *size, seen;

    while (flow.next < count) {
        CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
        seen = got.next * wire + (size_t)bytes_waiting(fd);
        CHECK(flow.next * wire - seen <= 65536 + wire);
        while (bytes_waiting(fd) >= (int)wire)
            raw_take(fd, &got);
    }
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(bytes_waiting(fd), (count - got.next) * wire);
    take(fd, &got, count);
}

static const size_t *bounded_size;

static void act_bounded(struct scene *scene)
{
    send_bounded(scene->other, scene->other_fd, bounded_size, 300);
}

static void at_most_64_kib_corked(void)
{
    const size_t *sizes[] = { &short_frame, &long_frame };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct scene *scene = scene_make();

        bounded_size = sizes[i];
        scene->when = 0;
        scene->act = act_bounded;
        scene_start(scene, on_frame, QUEUED, &short_frame);
        take_all(scene->target_fd, &short_frame, QUEUED, 0);
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

/* A send by what runs when the thread ends is the handler's no more. */
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
    poke(&scene->may_go_on, WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : -1);
}

/* A child forked inside a handler sends as if nothing had been. */
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
    CHECK_INT(peek(&scene->may_go_on), 1);
}

/* ---- Coalescing ---- */

static qnet_conn *coalescing(int *fd, int64_t usecs)
{
    qnet_conn *conn = raw_pair(fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, usecs), QNET_OK);
    return conn;
}

static void range_of_time(void)
{
    static const int64_t good[] = { 0, 1, 50, 1000000 };
    static const int64_t bad[] = { -1, 1000001, INT64_MAX, INT64_MIN };
    int fd;
    size_t i;
    int64_t value;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_get(conn, QNET_OPT_TX_USECS, &value), QNET_OK);
    CHECK_INT(value, 0);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, good[i]), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, bad[i]), QNET_ERR_INVALID);
        CHECK_INT(qnet_get(conn, QNET_OPT_TX_USECS, &value), QNET_OK);
        CHECK_INT(value, good[i]);
    }
    CHECK_INT(qnet_get(conn, QNET_OPT_CORK, &value), QNET_OK);
    CHECK_INT(value, 1);
    CHECK_INT(qnet_set(conn, QNET_OPT_CORK, 2), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(conn, QNET_OPT_CORK, -1), QNET_ERR_INVALID);
}

/* The last ones arrive with no further call, however few they are. */
static void nothing_is_left(void)
{
    static const int times[] = { 1, 50, 20000, 300000 };
    size_t i;
    unsigned count;

    for (i = 0; i < sizeof times / sizeof *times; i++) {
        for (count = 1; count <= 4; count++) {
            struct flow flow = flow_of_one_size(&short_frame);
            int fd;
            qnet_conn *conn = coalescing(&fd, times[i]);

            CHECK_INT(flow_send(&flow, conn, 0, count), count);
            take_all(fd, &short_frame, count, 0);
            check_sent(conn, count);
        }
    }
}

/* Many on one link, all sizes, by every way to send, on every kind of connection. */
static void coalesced_stream(void)
{
    unsigned count = (unsigned)rounds(2000);
    struct flow flow = flow_of_all_sizes();
    struct raw_job reader;
    int fd;
    qnet_conn *conn = link_open(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 200), QNET_OK);
    raw_start(&reader, raw_reading, fd, flow, count);
    while (flow.next < count) {
        unsigned some = flow.next % 7 + 1;

        some = some < count - flow.next ? some : count - flow.next;
        CHECK_INT(flow_send(&flow, conn, (int)(flow.next % WAYS_TO_SEND), some), some);
    }
    join_thread(reader.thread);
    check_sent(conn, count);
}

/* Far fewer writes than frames. */
static void coalesced_writes(void)
{
    unsigned count = (unsigned)rounds(20000);
    struct flow flow = flow_of_one_size(&short_frame);
    struct raw_job reader;
    int fd;
    qnet_conn *conn = coalescing(&fd, 20000);

    raw_start(&reader, raw_reading, fd, flow, count);
    CHECK_INT(flow_send(&flow, conn, 0, count), count);
    join_thread(reader.thread);
    check_sent(conn, count);
    CHECK(stats_of(conn).tx_writes < count / 10);
}

enum { HELD = 100 };

static void end_by_close(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void end_by_shutdown(qnet_conn *conn)
{
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
}

static void end_by_flush(qnet_conn *conn)
{
    CHECK_INT(qnet_flush(conn), QNET_OK);
}

static void end_by_option(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 0), QNET_OK);
}

/* What writes the frames held for a second; with the option off they come in their time. */
static void ends_of_holding(void)
{
    static const struct {
        void (*act)(qnet_conn *conn);
        int at_once, ends;
    } cases[] = {
        { end_by_flush, 1, 0 },
        { end_by_close, 1, 1 },
        { end_by_shutdown, 0, 1 },
        { end_by_option, 0, 0 },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct flow flow = flow_of_one_size(&short_frame);
        int fd;
        qnet_conn *conn = coalescing(&fd, 1000000);

        CHECK_INT(flow_send(&flow, conn, 0, HELD), HELD);
        cases[i].act(conn);
        if (cases[i].at_once)
            CHECK_INT(bytes_waiting(fd), HELD * (RAW_PREFIX + short_frame));
        take_all(fd, &short_frame, HELD, cases[i].ends);
    }
}

/* With the option off, a send is in the socket when it returns, behind what was held. */
static void off_again(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);

    CHECK_INT(flow_send(&flow, conn, 0, HELD), HELD);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 0), QNET_OK);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    CHECK_INT(bytes_waiting(fd), (HELD + 1) * (RAW_PREFIX + short_frame));
    take_all(fd, &short_frame, HELD + 1, 0);
}

/* How long the last of three frames took that were sent after the time was made short. */
static long long last_one_ms(void)
{
    struct flow flow = flow_of_one_size(&short_frame), got = flow;
    long long began;
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);

    CHECK_INT(flow_send(&flow, conn, 0, 3), 3);
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 10000), QNET_OK);
    began = raw_now_ms();
    CHECK_INT(flow_send(&flow, conn, 0, 3), 3);
    take(fd, &got, 6);
    return raw_now_ms() - began;
}

/* A shorter time holds from now on; a busy machine has three tries. */
static void shorter_time(void)
{
    CHECK(last_one_ms() < 500 || last_one_ms() < 500 || last_one_ms() < 500);
}

static void at_most_64_kib_coalesced(void)
{
    const size_t *sizes[] = { &short_frame, &long_frame, &too_long_to_hold };
    size_t i;
    int fd;

    for (i = 0; i < 3; i++) {
        qnet_conn *conn = coalescing(&fd, 1000000);

        send_bounded(conn, fd, sizes[i], sizes[i] == &short_frame ? 2500 : 300);
    }
}

enum { SENDERS = 4 };

struct sender {
    pthread_t thread;
    qnet_conn *conn;
    unsigned id, count;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    uint8_t frame[64];
    unsigned i;

    for (i = 0; i < sender->count; i++) {
        frame_make(frame, sizeof frame, sender->id << 24 | i);
        CHECK_INT(qnet_send(sender->conn, frame, sizeof frame), QNET_OK);
    }
    return NULL;
}

static void four_threads(void)
{
    struct sender senders[SENDERS];
    unsigned next[SENDERS] = { 0 }, count = (unsigned)rounds(5000), i;
    uint8_t frame[64];
    int fd;
    qnet_conn *conn = coalescing(&fd, 100);

    for (i = 0; i < SENDERS; i++) {
        senders[i].conn = conn;
        senders[i].id = i;
        senders[i].count = count;
        start_thread(&senders[i].thread, sending, &senders[i]);
    }
    for (i = 0; i < SENDERS * count; i++) {
        unsigned number;

        CHECK(raw_readable(fd, patience_ms()));
        number = frame_number(frame, (size_t)raw_recv(fd, frame, sizeof frame));
        CHECK(number >> 24 < SENDERS);
        CHECK_INT(number & 0xffffff, next[number >> 24]++);
    }
    for (i = 0; i < SENDERS; i++)
        join_thread(senders[i].thread);
    check_sent(conn, SENDERS * count);
}

/* Singles that wait for nothing, to a peer that does not read at first; through any buffer. */
static void coalescing_peer_does_not_read(void)
{
    static const int buffers[] = { 1, 4096, 65536 };
    size_t i;

    for (i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        struct flow flow = flow_of_one_size(&long_frame);
        int fd, result;
        unsigned round, end = 0;
        qnet_conn *conn = coalescing(&fd, 1000);

        CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, buffers[i]), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
        for (round = 0; round < 3; round++) {
            struct flow got = flow_of_one_size(&long_frame);

            got.next = end;
            while ((result = flow_send(&flow, conn, (int)round % WAYS_TO_SEND, 1)) == 1)
                CHECK(flow.next < 4000000);
            CHECK_INT(result, QNET_ERR_AGAIN);
            end = flow.next;
            take(fd, &got, end);
            CHECK(!raw_readable(fd, 10));
            check_sent(conn, end);
        }
    }
}

/* The same with sends that wait, and a reader that is slow to begin. */
static void coalescing_small_buffer(void)
{
    unsigned count = (unsigned)rounds(1000);
    struct flow flow = flow_of_all_sizes();
    struct raw_job reader;
    int fd;
    qnet_conn *conn = coalescing(&fd, 100);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 1), QNET_OK);
    raw_start(&reader, raw_reading, fd, flow, count);
    while (flow.next < count)
        CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    join_thread(reader.thread);
    check_sent(conn, count);
}

/* Closed while a peer does not read and frames are held: counted, and no hang. */
static void coalescing_closed_unread(void)
{
    struct flow flow = flow_of_one_size(&long_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);
    qnet_stats stats;

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 50), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(&flow, conn, 0, 1) == 1)
        CHECK(flow.next < 4000000);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    EVENTUALLY((stats = stats_of(conn), stats.tx_frames + stats.tx_dropped) == flow.next);
    CHECK(stats.tx_dropped > 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Both at once: a handler's sends to a connection that coalesces. */
static void corked_and_coalesced(void)
{
    static const int times[] = { 1, 100, 200000 };
    size_t i;

    for (i = 0; i < 3; i++) {
        unsigned count = (unsigned)rounds(1000);
        struct scene *scene = scene_make();

        CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, times[i]), QNET_OK);
        scene_start(scene, on_frame, count, &short_frame);
        take_all(scene->target_fd, &short_frame, count, 0);
        check_sent(scene->target, count);
    }
}

/* In one call: corked and not in turn, on a connection that coalesces. */
static void on_frame_switching(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    uint8_t copy[64];
    int i;

    (void)frame;
    CHECK(len == sizeof copy);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_set(scene->target, QNET_OPT_CORK, i % 2), QNET_OK);
        frame_make(copy, sizeof copy, (unsigned)(3 * scene->calls + i));
        CHECK_INT(qnet_send(scene->target, copy, sizeof copy), QNET_OK);
    }
    poke(&scene->calls, scene->calls + 1);
}

static void cork_switched_while_coalescing(void)
{
    struct scene *scene = scene_make();

    CHECK_INT(qnet_set(scene->target, QNET_OPT_TX_USECS, 1000), QNET_OK);
    scene_start(scene, on_frame_switching, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, 3 * QUEUED, 0);
    check_sent(scene->target, 3 * QUEUED);
}

/* ---- What rests meanwhile ---- */

enum { RESTING_MS = 400, STUCK = 100, STUCK_LIMIT = 40 };

static long long processor_ms(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* How often the library's own thread has gone to sleep; 0 where there is none. */
static long service_wakings(void)
{
    char path[300], line[100];
    struct dirent *entry;
    long wakings = 0, some;
    DIR *tasks = opendir("/proc/self/task");

    CHECK(tasks != NULL);
    while ((entry = readdir(tasks)) != NULL) {
        FILE *status;
        int is_service = 0;

        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        status = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
        while (status && fgets(line, sizeof line, status)) {
            is_service |= strcmp(line, "Name:\tqnet-service\n") == 0;
            if (is_service && sscanf(line, "voluntary_ctxt_switches: %ld", &some) == 1)
                wakings += some;
        }
        if (status)
            fclose(status);
    }
    closedir(tasks);
    return wakings;
}

/* While only the peer or time is waited for, next to nothing runs. */
static void rests(void)
{
    long long before = processor_ms();

    raw_sleep_ms(RESTING_MS);
    CHECK(processor_ms() - before < RESTING_MS / 5);
}

/* What is held for a second, for a peer that has left, meets its end then and not before. */
static void coalescing_peer_leaves(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    int fd;
    qnet_conn *conn = coalescing(&fd, 1000000);
    qnet_stats stats;

    CHECK_INT(flow_send(&flow, conn, 0, 5), 5);
    close(fd);
    rests();
    EVENTUALLY((stats = stats_of(conn), stats.tx_frames + stats.tx_dropped) == 5);
    CHECK_INT(flow_send(&flow, conn, 0, 1), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* A handler that goes on for long after many sends, to a peer that is there or has left. */
static void handler_that_blocks(void)
{
    int leaves;

    for (leaves = 0; leaves < 2; leaves++) {
        struct scene *scene = scene_make();
        long wakings;

        scene->may_fail = leaves;
        scene->when = QUEUED - 2;
        scene->act = act_pause;
        scene_start(scene, on_frame, QUEUED, &short_frame);
        EVENTUALLY(peek(&scene->is_acting));
        if (leaves)
            close(scene->target_fd);
        else
            EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
        wakings = service_wakings();
        rests();
        CHECK(service_wakings() - wakings < RESTING_MS / 20);
        poke(&scene->may_go_on, 1);
        EVENTUALLY(peek(&scene->calls) == QUEUED);
        if (!leaves)
            take_all(scene->target_fd, &short_frame, QUEUED, 0);
    }
}

/* While frames are held again and again, the library's thread looks about once in a millisecond. */
static void steady_relay(void)
{
    struct scene *scene = scene_make();
    struct flow flow = flow_of_one_size(&short_frame), got = flow;
    long wakings;
    long long began;

    CHECK_INT(qnet_set_handler(scene->source, on_frame, scene), QNET_OK);
    began = raw_now_ms();
    wakings = service_wakings();
    while (raw_now_ms() - began < RESTING_MS) {
        raw_send_flow(scene->source_fd, &flow, 10, 0);
        take(scene->target_fd, &got, flow.next);
    }
    CHECK(service_wakings() - wakings < 4 * (raw_now_ms() - began));
    wakings = service_wakings();
    rests();
    CHECK(service_wakings() - wakings < RESTING_MS / 20);
}

/* Fills a connection until something of it is the library's to write. */
static void stick(qnet_conn *conn, struct flow *flow)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 1), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (flow_send(flow, conn, 0, 1) == 1)
        CHECK(flow->next < 1000);
}

/* A limit on descriptors below what is waited for: all is written, and nothing spins. */
static void stuck_above(int is_limited_first)
{
    struct rlimit low;
    struct flow flows[STUCK], got;
    qnet_conn *conns[STUCK];
    int fds[STUCK], i;

    for (i = 0; i < STUCK; i++)
        conns[i] = raw_pair(&fds[i]);
    CHECK(getrlimit(RLIMIT_NOFILE, &low) == 0);
    low.rlim_cur = STUCK_LIMIT;
    if (is_limited_first)
        CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (i = 0; i < STUCK; i++) {
        flows[i] = flow_of_one_size(&too_long_to_hold);
        stick(conns[i], &flows[i]);
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (i = 0; i < STUCK; i++) {
        got = flow_of_one_size(&too_long_to_hold);
        raw_take_until(fds[i], &got, flows[i].next);
        if (i == 0)
            rests();
    }
    for (i = 0; i < STUCK; i++) {
        check_sent(conns[i], flows[i].next);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    }
}

static void stuck_above_the_limit(void)
{
    stuck_above(0);
}

/* There the library's thread has no descriptor to be woken by, either. */
static void stuck_above_the_limit_from_the_first(void)
{
    if (is_under_valgrind())
        check_skip("without an event all are looked at again and again, which is slow there");
    stuck_above(1);
}

int main(void)
{
    RUN(corked_writes);
    RUN(corked_stream);
    RUN(acts_inside);
    RUN(flush_inside);
    RUN(acts_outside);
    RUN(send_beside_a_handler);
    RUN(waits_inside);
    RUN(slow_handlers);
    RUN(fast_handler_that_gets_slow);
    RUN(reply_before_the_next_call_is_over);
    RUN(several_targets);
    RUN(echo);
    RUN(mixed_ways);
    RUN(target_that_does_not_read);
    RUN(target_with_a_small_buffer);
    RUN(target_that_leaves);
    RUN(at_most_64_kib_corked);
    RUN(send_at_thread_exit);
    RUN(fork_inside);
    RUN(range_of_time);
    RUN(nothing_is_left);
    RUN_EACH(coalesced_stream);
    RUN(coalesced_writes);
    RUN(ends_of_holding);
    RUN(off_again);
    RUN(shorter_time);
    RUN(at_most_64_kib_coalesced);
    RUN(four_threads);
    RUN(coalescing_peer_does_not_read);
    RUN(coalescing_small_buffer);
    RUN(coalescing_closed_unread);
    RUN(corked_and_coalesced);
    RUN(cork_switched_while_coalescing);
    RUN(handler_that_blocks);
    RUN(steady_relay);
    RUN(coalescing_peer_leaves);
    RUN(stuck_above_the_limit);
    RUN(stuck_above_the_limit_from_the_first);
    return check_done();
}
