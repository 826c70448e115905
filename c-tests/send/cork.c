/*
 * cork.c - what handlers send is corked: held back to be written together. All
 * of it arrives, whole, in order and without a further call, whatever handlers
 * and targets there are.
 */
#include <semaphore.h>

#include "scene.h"

enum { HURRIED = 300 };

/* A write has many frames when they are corked, and one when not. */
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

/* A long stream of all sizes goes through the handler, read as it comes, and written in odd pieces. */
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

/* ---- A slow handler ---- */

/* Sends, and stays until that has been written. */
static void send_and_wait(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    put(&scene->calls, scene->calls + 1);
}

/* Stays until what the calls before have sent is written, and sends. */
static void wait_and_send(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    send_on(scene, frame, len);
    put(&scene->calls, scene->calls + 1);
}

/* Is fast at first, for many frames that are written together, and then slow. */
static void hurry_then_wait(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    if (scene->calls >= HURRIED)
        EVENTUALLY(bytes_waiting(scene->target_fd) >= (int)scene->sent);
    put(&scene->calls, scene->calls + 1);
}

static void fast_handler_that_gets_slow(void)
{
    struct scene *scene = scene_make();
    unsigned count = HURRIED + 20;

    scene_start(scene, hurry_then_wait, count, &short_frame);
    EVENTUALLY(get(&scene->calls) == (int)count);
    take_all(scene->target_fd, &short_frame, count, 0);
}

/* What a call has sent is written while it, or the next one, goes on, however long that takes. */
static void slow_handlers(void)
{
    static const qnet_handler handlers[] = { send_and_wait, wait_and_send };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct scene *scene = scene_make();

        scene_start(scene, handlers[i], QUEUED, &short_frame);
        EVENTUALLY(get(&scene->calls) == QUEUED);
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

/* What one call sends arrives before the next one is over, which may wait for the answer. */
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

/* More targets than those for which a thread holds frames at a time. */
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

/* A handler that sends on its own connection. */
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

/* Sends what it is given in pieces, by each of the three ways in turn. */
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
    put(&scene->calls, scene->calls + 1);
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

/* What was taken arrives once the target reads, and what was not never does. */
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
        EVENTUALLY(get(&scene->calls) == MANY);
        CHECK(scene->failed > 0 && scene->failed < MANY);
        take_numbers(scene->target_fd, (unsigned)(MANY - scene->failed));
        check_sent(scene->target, (unsigned)(MANY - scene->failed));
    }
}

/* Where sends may wait, everything arrives through the smallest buffer. */
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

/* The target leaves while frames are held for it; each of them is counted once. */
static void target_that_leaves(void)
{
    struct scene *scene = scene_make();
    qnet_stats stats;

    scene->may_fail = 1;
    scene->when = WHEN;
    scene->act = act_pause;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    EVENTUALLY(get(&scene->is_acting));
    close(scene->target_fd);
    put(&scene->may_go_on, 1);
    EVENTUALLY(get(&scene->calls) == QUEUED);
    EVENTUALLY((stats = stats_of(scene->target), stats.tx_frames + stats.tx_dropped)
               == (uint64_t)(QUEUED - scene->failed));
}

/* ---- One call that sends much ---- */

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

int main(void)
{
    RUN(corked_writes);
    RUN(corked_stream);
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
    return check_done();
}
