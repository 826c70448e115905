/*
 * onward.c - frames that a handler sends on as it was given them, which are written from where they
 * lie. What arrives is what arrives of copies, whatever else the handler sends, and whatever
 * other threads do meanwhile.
 */
#include <fcntl.h>

#include "calls.h"
#include "scene.h"

enum { SPACE = 1 << 23, INNER = 24, SHORT = 14 };

/* ---- Copies, and the frames themselves ---- */

/* What arrives at a plain socket, until its end. */
struct sink {
    qnet_conn *conn;
    int fd;
    uint8_t *bytes;
    size_t len;
    pthread_t thread;
};

static void *fill(void *argument)
{
    struct sink *sink = argument;
    ssize_t n;

    while ((n = recv(sink->fd, sink->bytes + sink->len, SPACE - sink->len, 0)) != 0) {
        CHECK(n > 0 || errno == EINTR);
        sink->len += n > 0 ? (size_t)n : 0;
        CHECK(sink->len < SPACE);
    }
    return NULL;
}

static void sink_open(struct sink *sink)
{
    sink->conn = raw_pair(&sink->fd);
    sink->bytes = allocate(SPACE);
    sink->len = 0;
    start_thread(&sink->thread, fill, sink);
}

enum { NEAR, FAR, TARGETS };

struct twice {
    struct sink as_they_are[TARGETS], copied[TARGETS];
    unsigned state, acts;
    int calls;
};

static unsigned draw(struct twice *twice, unsigned below)
{
    return next_random(&twice->state) % below;
}

/* Sends a part of what the handler was given, and to the other target a copy of it. */
static void send_twice(struct twice *twice, int target, const uint8_t *frame, size_t len)
{
    static uint8_t copy[QNET_FRAME_MAX];
    int result;

    memcpy(copy, frame, len);
    result = qnet_send(twice->copied[target].conn, copy, len);
    CHECK_INT(qnet_send(twice->as_they_are[target].conn, frame, len), result);
    CHECK(result == QNET_OK || result == QNET_ERR_FRAME_SIZE);
}

static void set_twice(struct twice *twice, int option, long value)
{
    CHECK_INT(qnet_set(twice->as_they_are[NEAR].conn, option, value), QNET_OK);
    CHECK_INT(qnet_set(twice->copied[NEAR].conn, option, value), QNET_OK);
}

static void set_by_chance(struct twice *twice)
{
    static const long most[] = { 65535, 100, QNET_FRAME_MAX, 65535 };

    switch (draw(twice, 4)) {
    case 0:
        set_twice(twice, QNET_OPT_PAD, draw(twice, 2));
        break;
    case 1:
        set_twice(twice, QNET_OPT_CORK, draw(twice, 4) > 0);
        break;
    case 2:
        set_twice(twice, QNET_OPT_TX_USECS, draw(twice, 2) * 1000);
        break;
    default:
        set_twice(twice, QNET_OPT_MAX_FRAME, most[draw(twice, 4)]);
    }
}

static void act_by_chance(struct twice *twice, const uint8_t *frame, size_t len)
{
    switch (draw(twice, 16)) {
    case 0:
        break;
    case 1:
        send_twice(twice, FAR, frame, len);
        break;
    case 2:
        send_twice(twice, NEAR, frame, len);
        send_twice(twice, NEAR, frame, len);
        break;
    case 3:
        send_twice(twice, NEAR, frame, draw(twice, (unsigned)len));
        break;
    case 4:
        if (len > INNER)
            send_twice(twice, (int)draw(twice, TARGETS), frame + INNER, len - INNER);
        break;
    case 5:
        CHECK_INT(qnet_flush(twice->as_they_are[NEAR].conn), QNET_OK);
        break;
    case 6:
        stats_of(twice->as_they_are[NEAR].conn);
        break;
    case 7:
        set_by_chance(twice);
        break;
    default:
        send_twice(twice, NEAR, frame, len);
    }
}

static void on_frame_twice(void *user, const uint8_t *frame, size_t len)
{
    struct twice *twice = user;

    if (twice->acts)
        act_by_chance(twice, frame, len);
    else
        send_twice(twice, NEAR, frame, len);
    count_up(&twice->calls);
}

static void on_frames_twice(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        on_frame_twice(user, frames[i].data, frames[i].len);
}

/* Writes frames of all kinds of lengths. In many of them a shorter one lies behind its length. */
static void write_frames(int fd, unsigned state, unsigned count, size_t longest)
{
    static uint8_t frame[QNET_FRAME_MAX];
    unsigned i;

    for (i = 0; i < count; i++) {
        size_t len = SHORT + next_random(&state) % (longest - SHORT);

        if (next_random(&state) % 3 == 0)
            len = SHORT + next_random(&state) % 50;
        raw_fill(frame, len, i);
        if (len > INNER)
            raw_put_length(frame + INNER - RAW_PREFIX, len - INNER - (next_random(&state) % 4 == 0));
        raw_send(fd, frame, len);
    }
}

static void sink_close(struct sink *sink)
{
    CHECK_INT(qnet_close(sink->conn), QNET_OK);
    join_thread(sink->thread);
    close(sink->fd);
}

static void compare(struct sink *as_they_are, struct sink *copied)
{
    qnet_stats here, there;

    CHECK_INT(qnet_flush(as_they_are->conn), QNET_OK);
    CHECK_INT(qnet_flush(copied->conn), QNET_OK);
    here = stats_of(as_they_are->conn);
    there = stats_of(copied->conn);
    CHECK_INT(here.tx_frames, there.tx_frames);
    CHECK_INT(here.tx_bytes, there.tx_bytes);
    CHECK_INT(here.tx_dropped, 0);
    sink_close(as_they_are);
    sink_close(copied);
    CHECK_INT(as_they_are->len, copied->len);
    CHECK_INT(as_they_are->len, here.tx_bytes + RAW_PREFIX * here.tx_frames);
    CHECK(memcmp(as_they_are->bytes, copied->bytes, copied->len) == 0);
    free(as_they_are->bytes);
    free(copied->bytes);
}

static void the_same_as_copies(void)
{
    static const size_t longest[] = { 64, 300, 1514, 40000 };
    unsigned seed;

    for (seed = 0; seed < (unsigned)rounds(48); seed++) {
        static struct twice twice;
        unsigned count = seed % 4 == 3 ? 150 : 1500;
        qnet_conn *source;
        int fd, i;

        memset(&twice, 0, sizeof twice);
        twice.state = seed;
        twice.acts = seed / 4 % 4;
        for (i = 0; i < TARGETS; i++) {
            sink_open(&twice.as_they_are[i]);
            sink_open(&twice.copied[i]);
        }
        source = raw_pair(&fd);
        if (seed / 16 % 2)
            CHECK_INT(qnet_set_batch_handler(source, on_frames_twice, &twice), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(source, on_frame_twice, &twice), QNET_OK);
        write_frames(fd, seed, count, longest[seed % 4]);
        EVENTUALLY(get(&twice.calls) == (int)count);
        CHECK_INT(qnet_close(source), QNET_OK);
        close(fd);
        for (i = 0; i < TARGETS; i++)
            compare(&twice.as_they_are[i], &twice.copied[i]);
    }
}

/* ---- Other threads meanwhile ---- */

enum { OTHERS = 3, OWN_LEN = 64 };

struct crowd {
    struct scene *scene;
    int is_over;
    unsigned sent[OTHERS];
    unsigned heard[OTHERS + 1]; /* of these, and first of the handler's own */
};

struct one_of_crowd {
    struct crowd *crowd;
    int number;
    pthread_t thread;
};

/* Frames of a length of their own, each with its number. */
static void *send_own(void *argument)
{
    struct one_of_crowd *one = argument;
    struct crowd *crowd = one->crowd;
    uint8_t frame[OWN_LEN + OTHERS + 1];
    size_t len = OWN_LEN + 1 + (size_t)one->number;

    while (!get(&crowd->is_over)) {
        raw_fill(frame, len, crowd->sent[one->number]);
        CHECK_INT(qnet_send(crowd->scene->target, frame, len), QNET_OK);
        crowd->sent[one->number]++;
        raw_sleep_ms(one->number);
    }
    return NULL;
}

/* Calls that take what was sent on from the thread that sends it. */
static void *look_on(void *argument)
{
    struct one_of_crowd *one = argument;
    qnet_conn *target = one->crowd->scene->target;
    long n;

    for (n = 0; !get(&one->crowd->is_over); n++) {
        stats_of(target);
        CHECK_INT(qnet_flush(target), QNET_OK);
        CHECK_INT(qnet_set(target, QNET_OPT_MAX_FRAME, 65535 + n % 2), QNET_OK);
    }
    return NULL;
}

static void *read_crowd(void *argument)
{
    struct crowd *crowd = argument;
    static uint8_t frame[QNET_FRAME_MAX];
    long len;

    while ((len = raw_recv(crowd->scene->target_fd, frame, sizeof frame)) > 0) {
        CHECK(len >= OWN_LEN && len <= OWN_LEN + OTHERS);
        CHECK(raw_is(frame, (size_t)len, crowd->heard[len - OWN_LEN]++));
    }
    return NULL;
}

/* Each thread's frames arrive in order and once. */
static void other_threads_send_and_look(void)
{
    struct crowd crowd = { NULL, 0, { 0 }, { 0 } };
    struct one_of_crowd others[OTHERS], watcher = { &crowd, 0, 0 };
    unsigned count = (unsigned)rounds(100000), i;
    uint8_t frame[OWN_LEN];
    pthread_t reader;

    crowd.scene = scene_make();
    start_thread(&reader, read_crowd, &crowd);
    CHECK_INT(qnet_set_handler(crowd.scene->source, on_frame, crowd.scene), QNET_OK);
    start_thread(&watcher.thread, look_on, &watcher);
    for (i = 0; i < OTHERS; i++) {
        others[i].crowd = &crowd;
        others[i].number = (int)i;
        start_thread(&others[i].thread, send_own, &others[i]);
    }
    for (i = 0; i < count; i++) {
        raw_fill(frame, sizeof frame, i);
        raw_send(crowd.scene->source_fd, frame, sizeof frame);
    }
    EVENTUALLY(get(&crowd.scene->calls) == (int)count);
    put(&crowd.is_over, 1);
    join_thread(watcher.thread);
    for (i = 0; i < OTHERS; i++)
        join_thread(others[i].thread);
    CHECK_INT(qnet_close(crowd.scene->source), QNET_OK);
    CHECK_INT(qnet_close(crowd.scene->target), QNET_OK);
    join_thread(reader);
    CHECK_INT(crowd.heard[0], count);
    for (i = 0; i < OTHERS; i++)
        CHECK_INT(crowd.heard[i + 1], crowd.sent[i]);
}

/* A handler has another thread send every other frame, and waits for that. */
struct helped {
    struct scene *scene;
    const uint8_t *frame;
    size_t len;
};

static void *send_for(void *argument)
{
    struct helped *helped = argument;

    CHECK_INT(qnet_send(helped->scene->target, helped->frame, helped->len), QNET_OK);
    return NULL;
}

static void on_frame_helped(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    struct helped helped;
    pthread_t thread;

    helped.scene = scene;
    helped.frame = frame;
    helped.len = len;
    if (scene->calls % 2) {
        start_thread(&thread, send_for, &helped);
        join_thread(thread);
    } else {
        send_for(&helped);
    }
    put(&scene->calls, scene->calls + 1);
}

static void another_thread_sends_some(void)
{
    struct scene *scene = scene_make();

    scene_start(scene, on_frame_helped, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, QUEUED, 0);
    check_sent(scene->target, QUEUED);
}

/* ---- Targets that go ---- */

static void *close_target(void *argument)
{
    struct scene *scene = argument;

    EVENTUALLY(get(&scene->calls) > 0);
    CHECK_INT(qnet_close(scene->target), QNET_OK);
    put(&scene->may_go_on, 1);
    return NULL;
}

static void on_frame_until_closed(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    int result = qnet_send(scene->target, frame, len);

    CHECK(result == QNET_OK || result == QNET_ERR_HANDLE || result == QNET_ERR_CLOSED);
    put(&scene->calls, scene->calls + 1);
}

/* The target is closed by another thread, and its place taken by another connection, while frames go there:
 * what arrives is whole and in order, and the new connection gets none of it. */
static void target_closed_meanwhile(void)
{
    unsigned n, count = 5000;

    for (n = 0; n < (unsigned)rounds(60); n++) {
        struct flow flow = flow_of_one_size(&short_frame), got = flow;
        struct scene scene;
        qnet_conn *next;
        int next_fd;

        memset(&scene, 0, sizeof scene);
        scene.source = raw_pair(&scene.source_fd);
        scene.target = raw_pair(&scene.target_fd);
        CHECK_INT(qnet_set(scene.target, QNET_OPT_WAIT, n % 2), QNET_OK);
        start_thread(&scene.thread, close_target, &scene);
        CHECK_INT(qnet_set_handler(scene.source, on_frame_until_closed, &scene), QNET_OK);
        raw_send_flow(scene.source_fd, &flow, count / 2, 0);
        EVENTUALLY(get(&scene.may_go_on));
        next = raw_pair(&next_fd);
        raw_send_flow(scene.source_fd, &flow, count / 2, 0);
        join_thread(scene.thread);
        EVENTUALLY(get(&scene.calls) == (int)count);
        while (bytes_waiting(scene.target_fd) > 0)
            raw_take(scene.target_fd, &got);
        CHECK(raw_ended(scene.target_fd));
        CHECK_INT(bytes_waiting(next_fd), 0);
        CHECK_INT(stats_of(next).tx_frames, 0);
        CHECK_INT(qnet_close(next), QNET_OK);
        CHECK_INT(qnet_close(scene.source), QNET_OK);
        close(next_fd);
        close(scene.source_fd);
        close(scene.target_fd);
    }
}

/* The handler closes its target, and another connection takes its place: frames go there, and none by
 * the old handle. */
static void on_frame_replaced(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    if (scene->calls == WHEN) {
        CHECK_INT(qnet_close(scene->target), QNET_OK);
        scene->other = raw_pair(&scene->other_fd);
    }
    if (scene->calls < WHEN) {
        CHECK_INT(qnet_send(scene->target, frame, len), QNET_OK);
    } else {
        if (scene->calls % 2)
            CHECK_INT(qnet_send(scene->target, frame, len), QNET_ERR_HANDLE);
        CHECK_INT(qnet_send(scene->other, frame, len), QNET_OK);
    }
    put(&scene->calls, scene->calls + 1);
}

static void target_replaced_in_the_handler(void)
{
    struct scene *scene = scene_make();
    struct flow flow = flow_of_one_size(&short_frame);

    scene_start(scene, on_frame_replaced, QUEUED, &short_frame);
    EVENTUALLY(get(&scene->calls) == QUEUED);
    take_all(scene->target_fd, &short_frame, WHEN, 1);
    flow.next = WHEN;
    take(scene->other_fd, &flow, QUEUED);
    CHECK_INT(bytes_waiting(scene->other_fd), 0);
}

/* ---- What else is to see the frames ---- */

static qnet_hub *hub;
static qnet_capture *capture;

static void act_attach(struct scene *scene)
{
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, scene->target), QNET_OK);
}

static void act_capture(struct scene *scene)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK_INT(qnet_capture_open_fd(fd, NULL, 0, &capture), QNET_OK);
    CHECK_INT(qnet_capture_add(capture, scene->target, NULL), QNET_OK);
}

/* The target is attached or captured in the middle. */
static void play_until(void (*act)(struct scene *))
{
    struct scene *scene = scene_make();

    scene->when = WHEN;
    scene->act = act;
    scene_start(scene, on_frame, QUEUED, &short_frame);
    take_all(scene->target_fd, &short_frame, QUEUED, 0);
    check_sent(scene->target, QUEUED);
}

static void target_attached_meanwhile(void)
{
    play_until(act_attach);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/* A capture has all that is sent after it was told of the connection. */
static void target_captured_meanwhile(void)
{
    qnet_capture_stats stats;

    play_until(act_capture);
    CHECK_INT(qnet_capture_get_stats(capture, &stats, sizeof stats), sizeof stats);
    CHECK_INT(stats.frames + stats.dropped, QUEUED - WHEN - 1);
    CHECK_INT(qnet_capture_close(capture), QNET_OK);
}

/* ---- Frames within a frame ---- */

/* What lies behind a length, within what the handler was given, and is a frame or none. */
static const size_t nested[] = { 100, 20, 5, 13, 14, 60 };

enum { NESTED = sizeof nested / sizeof *nested, OUTER = 400 };

static void on_outer(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    size_t at = INNER, i;

    CHECK_INT(len, OUTER);
    for (i = 0; i < NESTED; i++) {
        at += RAW_PREFIX;
        CHECK_INT(qnet_send(scene->target, frame + at, nested[i]),
                  nested[i] < SHORT ? QNET_ERR_FRAME_SIZE : QNET_OK);
        at += nested[i];
    }
    put(&scene->calls, scene->calls + 1);
}

static void frames_within_a_frame(void)
{
    struct scene *scene = scene_make();
    uint8_t frame[OUTER], got[OUTER];
    size_t at = INNER, i, round;

    raw_fill(frame, sizeof frame, 0);
    for (i = 0; i < NESTED; i++) {
        raw_put_length(frame + at, nested[i]);
        raw_fill(frame + at + RAW_PREFIX, nested[i], 0);
        at += RAW_PREFIX + nested[i];
    }
    for (round = 0; round < QUEUED; round++)
        raw_send(scene->source_fd, frame, sizeof frame);
    CHECK_INT(qnet_set_handler(scene->source, on_outer, scene), QNET_OK);
    for (round = 0; round < QUEUED; round++) {
        for (i = 0; i < NESTED; i++) {
            if (nested[i] < SHORT)
                continue;
            CHECK_INT(raw_recv(scene->target_fd, got, sizeof got), nested[i]);
            CHECK(raw_is(got, nested[i], 0));
        }
    }
    EVENTUALLY(get(&scene->calls) == QUEUED);
    CHECK_INT(bytes_waiting(scene->target_fd), 0);
}

int main(void)
{
    RUN(the_same_as_copies);
    RUN(other_threads_send_and_look);
    RUN(another_thread_sends_some);
    RUN(target_closed_meanwhile);
    RUN(target_replaced_in_the_handler);
    RUN(target_attached_meanwhile);
    RUN(target_captured_meanwhile);
    RUN(frames_within_a_frame);
    return check_done();
}
