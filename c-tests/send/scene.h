/*
 * scene.h - a source whose handler sends everything on to a target, so that its
 * frames are held back to be written together, and what one handler may do
 * meanwhile.
 */
#ifndef SCENE_H
#define SCENE_H

#include "ways.h"
#include "scratch.h"

/* How many frames lie ready for the handler, and in which call it acts, or that it never does. */
enum { QUEUED = 50, WHEN = 10, NEVER = -1 };

static const size_t short_frame = 64, long_frame = 1000;

struct scene {
    qnet_conn *source, *target;
    int source_fd, target_fd;
    int when;                    /* in which call `act` runs, after that call's send */
    void (*act)(struct scene *);
    int may_fail;                /* whether sends after that may fail */
    int calls;                   /* how many have returned */
    int failed;                  /* how many sends have */
    size_t sent;                 /* how many bytes were taken, with their prefixes */
    qnet_conn *other;            /* what `act` needs */
    int other_fd;
    qnet_listener *listener;
    struct place place;
    struct flow other_flow;
    pthread_t thread;
    int is_acting, may_go_on;    /* shared by two threads, as `calls` is */
};

static inline void send_on(struct scene *scene, const uint8_t *frame, size_t len)
{
    int result = qnet_send(scene->target, frame, len);

    if (result == QNET_OK)
        scene->sent += RAW_PREFIX + len;
    else
        CHECK(scene->may_fail);
    scene->failed += result != QNET_OK;
}

static inline void on_frame(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;

    send_on(scene, frame, len);
    if (scene->calls == scene->when) {
        put(&scene->is_acting, 1);
        scene->act(scene);
        put(&scene->is_acting, 0);
    }
    put(&scene->calls, scene->calls + 1);
}

/* None is used again: a handler may be about to return when its test is done. */
static inline struct scene *scene_make(void)
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

/* Sets the handler when `count` frames lie ready for it. */
static inline void scene_start(struct scene *scene, qnet_handler handler, unsigned count,
                               const size_t *size)
{
    struct flow flow = flow_of_one_size(size);

    raw_send_flow(scene->source_fd, &flow, count, 0);
    CHECK_INT(qnet_set_handler(scene->source, handler, scene), QNET_OK);
}

/* Reads the frames with the numbers from `flow->next` to `end`, waiting for each with patience. */
static inline void take(int fd, struct flow *flow, unsigned end)
{
    while (flow->next != end) {
        CHECK(raw_readable(fd, patience_ms()));
        raw_take(fd, flow);
    }
}

/* Exactly `count` frames come, and nothing after them, but the end where `ended`. */
static inline void take_all(int fd, const size_t *size, unsigned count, int ended)
{
    struct flow flow = flow_of_one_size(size);

    take(fd, &flow, count);
    if (ended)
        CHECK(raw_ended(fd));
    else
        CHECK(!raw_readable(fd, 10));
}

/* In the end every frame that was taken has been sent. */
static inline void check_sent(qnet_conn *conn, unsigned taken)
{
    EVENTUALLY(stats_of(conn).tx_frames + stats_of(conn).tx_dropped == taken);
    CHECK_INT(stats_of(conn).tx_frames, taken);
}

static inline void act_pause(struct scene *scene)
{
    EVENTUALLY(get(&scene->may_go_on));
}

/* Sends `count` frames. Never more than 64 KiB and a frame of them are held, not in the socket. */
static inline void send_bounded(qnet_conn *conn, int fd, const size_t *size, unsigned count)
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

#endif
