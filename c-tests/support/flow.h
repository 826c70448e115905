/*
 * flow.h - numbered frames in endless flows, and a plain socket that writes or reads such
 * a flow.
 */
#ifndef FLOW_H
#define FLOW_H

#include "raw.h"

static inline void *allocate(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);

    CHECK(memory != NULL);
    return memory;
}

/* ---- Numbered frames ---- */

/* Fills a frame of at least 14 bytes. The first four are its number. */
static inline void frame_make(uint8_t *frame, size_t len, unsigned number)
{
    raw_put_length(frame, number);
    raw_fill(frame + 4, len - 4, number);
}

/* Returns a frame's number, and checks that every byte is as frame_make() left it. */
static inline unsigned frame_number(const uint8_t *frame, size_t len)
{
    unsigned number;

    CHECK(len >= 14);
    number = (unsigned)frame[0] << 24 | (unsigned)frame[1] << 16
             | (unsigned)frame[2] << 8 | frame[3];
    CHECK(raw_is(frame + 4, len - 4, number));
    return number;
}

/* An endless sequence of numbered frames, whose lengths are those in `sizes` over and over. */
struct flow {
    const size_t *sizes;
    size_t kinds;
    unsigned next;
};

/* The lengths that matter: the shortest, Ethernet's, a jumbo frame and both maxima. */
enum { ALL_SIZES = 7 };
static inline struct flow flow_of_all_sizes(void)
{
    static const size_t sizes[ALL_SIZES] = { 14, 15, 60, 1514, 9000, 65535, QNET_FRAME_MAX };
    struct flow flow = { sizes, ALL_SIZES, 0 };

    return flow;
}

/* Many short frames with an ordinary one among them. */
static inline struct flow flow_of_small_frames(void)
{
    static const size_t sizes[] = { 14, 60, 15, 64, 342, 1514, 61 };
    struct flow flow = { sizes, sizeof sizes / sizeof *sizes, 0 };

    return flow;
}

static inline struct flow flow_of_one_size(const size_t *size)
{
    struct flow flow = { size, 1, 0 };

    return flow;
}

static inline size_t flow_size(const struct flow *flow, unsigned number)
{
    return flow->sizes[number % flow->kinds];
}

/* Checks that a received frame is the flow's next one. */
static inline void flow_take(struct flow *flow, const uint8_t *frame, size_t len)
{
    CHECK_INT(frame_number(frame, len), flow->next);
    CHECK_INT(len, flow_size(flow, flow->next));
    flow->next++;
}

/* Does the same as a taker's `each`; see ways.h. */
static inline void flow_each(void *flow, const uint8_t *frame, size_t len)
{
    flow_take(flow, frame, len);
}

/* The next frames of a flow, both in wire format and as an array that points into it. */
struct bundle {
    uint8_t *wire;
    size_t len;
    qnet_frame *frames;
    size_t count;
};

static inline struct bundle bundle_make(const struct flow *flow, size_t count)
{
    struct bundle bundle = { NULL, 0, NULL, 0 };
    size_t at = 0, i;

    for (i = 0; i < count; i++)
        bundle.len += RAW_PREFIX + flow_size(flow, flow->next + (unsigned)i);
    bundle.wire = allocate(bundle.len);
    bundle.frames = allocate(count * sizeof *bundle.frames);
    bundle.count = count;
    for (i = 0; i < count; i++) {
        unsigned number = flow->next + (unsigned)i;
        size_t len = flow_size(flow, number);

        raw_put_length(bundle.wire + at, len);
        frame_make(bundle.wire + at + RAW_PREFIX, len, number);
        bundle.frames[i].data = bundle.wire + at + RAW_PREFIX;
        bundle.frames[i].len = len;
        at += RAW_PREFIX + len;
    }
    return bundle;
}

static inline void bundle_free(struct bundle *bundle)
{
    free(bundle->wire);
    free(bundle->frames);
}

/* ---- The plain socket's side ---- */

/* Writes the next `count` frames in pieces of `step` bytes, or in one piece if that is 0. */
static inline void raw_send_flow(int fd, struct flow *flow, size_t count, size_t step)
{
    struct bundle bundle = bundle_make(flow, count);
    size_t at, part;

    for (at = 0; at < bundle.len; at += part) {
        part = step > 0 && step < bundle.len - at ? step : bundle.len - at;
        raw_write(fd, bundle.wire + at, part);
    }
    flow->next += (unsigned)count;
    bundle_free(&bundle);
}

/* Reads one frame, which must be the flow's next one. */
static inline void raw_take(int fd, struct flow *flow)
{
    static __thread uint8_t frame[QNET_FRAME_MAX];
    long len = raw_recv(fd, frame, sizeof frame);

    CHECK(len >= 0);
    flow_take(flow, frame, (size_t)len);
}

static inline void raw_take_until(int fd, struct flow *flow, unsigned end)
{
    while (flow->next != end)
        raw_take(fd, flow);
}

/* A flow that a thread writes to, or reads from, the plain socket. */
struct raw_job {
    pthread_t thread;
    int fd;
    struct flow flow;
    unsigned count;
    size_t step;
    long delay_ms;
};

static inline void *raw_reading(void *argument)
{
    struct raw_job *job = argument;

    raw_sleep_ms(job->delay_ms);
    raw_take_until(job->fd, &job->flow, job->flow.next + job->count);
    return NULL;
}

static inline void *raw_writing(void *argument)
{
    struct raw_job *job = argument;
    unsigned at;

    raw_sleep_ms(job->delay_ms);
    for (at = 0; at < job->count; at += 64) {
        unsigned left = job->count - at;
        raw_send_flow(job->fd, &job->flow, left < 64 ? left : 64, job->step);
    }
    return NULL;
}

static inline void raw_start(struct raw_job *job, void *(*work)(void *), int fd,
                             struct flow flow, unsigned count)
{
    memset(job, 0, sizeof *job);
    job->fd = fd;
    job->flow = flow;
    job->count = count;
    start_thread(&job->thread, work, job);
}

#endif
