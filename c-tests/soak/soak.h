/*
 * soak.h - what all lives of the soak share: random numbers, sums, rows of numbered
 * frames, and the plain socket at the other end.
 */
#ifndef SOAK_H
#define SOAK_H

#include "far.h"

/*
 * One sort of life, which is that of one or more connections from opening to closing; and
 * what became of its frames.
 */
struct sort {
    const char *name;
    void (*live)(struct sort *sort);
    int workers;
    long long lives, sent, received, dropped, lost;
};

/*
 * Adds up frames. One that is sent is then received, dropped and counted by the library,
 * or lost with its connection.
 */
static inline void add_up(struct sort *sort, long long sent, long long received, long long dropped)
{
    CHECK(received >= 0 && dropped >= 0 && received + dropped <= sent);
    __atomic_add_fetch(&sort->sent, sent, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&sort->received, received, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&sort->dropped, dropped, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&sort->lost, sent - received - dropped, __ATOMIC_SEQ_CST);
}

/* The state of this thread's random numbers. */
static __thread unsigned chance;

static inline unsigned pick(unsigned n)
{
    return (unsigned)rand_r(&chance) % n;
}

/*
 * Held while something is opened or named: scratch.h and far.h make names with state that
 * all threads share.
 */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

/* Whether a call failed only for now. */
static inline int not_now(int result)
{
    return result == QNET_ERR_AGAIN || result == QNET_ERR_TIMEOUT || result == QNET_ERR_INTERRUPTED;
}

static inline struct flow flow_of_soak(void)
{
    static const size_t sizes[] = { 14, 60, 15, 64, 342, 1514, 61, 4000, 66, 9000 };
    struct flow flow = { sizes, sizeof sizes / sizeof *sizes, 0 };

    return flow;
}

/*
 * The frames that have come: in order, each whole and once, and all of them unless gaps
 * are allowed; or whole but for a tag that a hub has added, and no more than that.
 */
enum { IN_ANY_ORDER = 2 };
struct row {
    struct flow flow;
    int has_gaps; /* or IN_ANY_ORDER */
    int came; /* atomic: other threads read it */
};

static inline struct row row_new(int has_gaps)
{
    struct row row = { flow_of_soak(), has_gaps, 0 };

    return row;
}

static inline void row_take(void *argument, const uint8_t *frame, size_t len)
{
    struct row *row = argument;
    unsigned number = frame_number(frame, len);

    if (row->has_gaps == IN_ANY_ORDER || (row->has_gaps && number > row->flow.next))
        row->flow.next = number;
    flow_take(&row->flow, frame, len);
    count_up(&row->came);
}

/* Takes off the tag of a frame, if it has one. No flow has a frame that begins like one. Returns the length. */
static inline size_t take_off_tag(uint8_t *frame, size_t len)
{
    if (len < 18 || frame[12] != 0x81 || frame[13] != 0)
        return len;
    memmove(frame + 12, frame + 16, len - 16);
    return len - 4;
}

/* ---- The plain side of a stream ---- */

struct plain {
    int fd, stop;
    struct row in;
    int goal, wrote; /* how many frames to write, and how many are written */
    pthread_t reader, writer;
};

/* Limits waiting in the socket, so that a thread that waits sees when it is to stop. */
static inline void set_plain_patience(int fd)
{
    struct timeval time = { 0, 20000 };

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
}

static inline int goes_on(const int *stop, ssize_t moved)
{
    return moved > 0 || (moved < 0 && (errno == EAGAIN || errno == EINTR) && !get(stop));
}

/* Returns how many bytes were read: fewer than `len` at the end, or if it is to stop. */
static inline size_t plain_read(int fd, const int *stop, uint8_t *bytes, size_t len)
{
    size_t at = 0;
    ssize_t n = 1;

    while (at < len && goes_on(stop, n)) {
        n = recv(fd, bytes + at, len - at, 0);
        at += n > 0 ? (size_t)n : 0;
    }
    return at;
}

static inline size_t plain_write(int fd, const int *stop, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    ssize_t n = 1;

    while (at < len && goes_on(stop, n)) {
        n = send(fd, bytes + at, len - at, MSG_NOSIGNAL);
        at += n > 0 ? (size_t)n : 0;
    }
    return at;
}

/* Reads a frame. Returns its length, or 0 if there is no more. */
static inline size_t plain_frame(int fd, const int *stop, uint8_t frame[QNET_FRAME_MAX])
{
    uint8_t prefix[RAW_PREFIX];
    size_t len;

    if (plain_read(fd, stop, prefix, sizeof prefix) < sizeof prefix)
        return 0;
    len = get_number(prefix);
    CHECK(len >= 14 && len <= QNET_FRAME_MAX);
    return plain_read(fd, stop, frame, len) == len ? len : 0;
}

static inline void *plain_reading(void *argument)
{
    static __thread uint8_t frame[QNET_FRAME_MAX];
    struct plain *plain = argument;
    size_t len;

    while ((len = plain_frame(plain->fd, &plain->stop, frame)) > 0) {
        if (plain->in.has_gaps == IN_ANY_ORDER)
            len = take_off_tag(frame, len);
        row_take(&plain->in, frame, len);
    }
    return NULL;
}

/* Returns how many frames of a bundle are whole in its first bytes. */
static inline int frames_within(const struct bundle *bundle, size_t bytes)
{
    size_t at = 0, i;

    for (i = 0; i < bundle->count; i++) {
        at += RAW_PREFIX + bundle->frames[i].len;
        if (at > bytes)
            break;
    }
    return (int)i;
}

static inline void *plain_writing(void *argument)
{
    struct plain *plain = argument;
    struct flow flow = flow_of_soak();
    size_t written = 1, len = 1;

    while (get(&plain->wrote) < plain->goal && written == len) {
        int left = plain->goal - get(&plain->wrote);
        struct bundle bundle = bundle_make(&flow, left < 40 ? (size_t)left : 40);

        len = bundle.len;
        written = plain_write(plain->fd, &plain->stop, bundle.wire, len);
        put(&plain->wrote, get(&plain->wrote) + frames_within(&bundle, written));
        flow.next += (unsigned)bundle.count;
        bundle_free(&bundle);
    }
    return NULL;
}

static inline void plain_start(struct plain *plain, int fd, int has_gaps, int goal)
{
    memset(plain, 0, sizeof *plain);
    plain->fd = fd;
    plain->in = row_new(has_gaps);
    plain->goal = goal;
    set_plain_patience(fd);
    start_thread(&plain->reader, plain_reading, plain);
    start_thread(&plain->writer, plain_writing, plain);
}

/* Waits for the threads to meet the end of the stream. With `stop`, makes them stop at once. */
static inline void plain_join(struct plain *plain, int stop)
{
    put(&plain->stop, stop);
    join_thread(plain->reader);
    join_thread(plain->writer);
}

static inline void reset_and_close(int fd)
{
    raw_reset_at_close(fd);
    CHECK(close(fd) == 0);
}

/* ---- The library's side ---- */

/* Receives on a thread of its own until the end, and changes the way every now and then. */
struct receiver {
    struct taker taker;
    struct row in;
    pthread_t thread;
    unsigned chance;
};

static inline int receive_by_handler(struct taker *taker)
{
    int result = taker->way == BY_HANDLER
                     ? qnet_set_handler(taker->conn, taker_frame, taker)
                     : qnet_set_batch_handler(taker->conn, taker_batch, taker);

    if (result != QNET_OK)
        return result;
    raw_sleep_ms(pick(8));
    return qnet_set_handler(taker->conn, NULL, NULL);
}

static inline int receive_by_pulls(struct taker *taker)
{
    int pulls = 1 + (int)pick(200), result = 1;

    while (result > 0 && pulls-- > 0)
        result = taker_pull(taker, (int)pick(3) * 10);
    return result;
}

static inline void *receiving(void *argument)
{
    struct receiver *receiver = argument;
    struct taker *taker = &receiver->taker;
    int result;

    chance = receiver->chance;
    do {
        taker->way = (int)pick(WAYS_TO_RECEIVE);
        result = taker->way < WAYS_TO_PULL ? receive_by_pulls(taker) : receive_by_handler(taker);
    } while (result >= 0 || not_now(result));
    CHECK(result == QNET_ERR_CLOSED || result == QNET_ERR_OS || result == QNET_ERR_PROTOCOL ||
          result == QNET_ERR_HANDLE);
    return NULL;
}

static inline void receiver_start(struct receiver *receiver, qnet_conn *conn, int has_gaps)
{
    receiver->in = row_new(has_gaps);
    receiver->chance = pick(1 << 20);
    taker_start(&receiver->taker, conn, BY_RECV, row_take, &receiver->in);
    start_thread(&receiver->thread, receiving, receiver);
}

/*
 * Sends frames in random ways until `count` are taken or the connection ends. Returns how
 * many were taken.
 */
static inline int send_any_way(qnet_conn *conn, struct flow *flow, int count)
{
    unsigned begin = flow->next, end = begin + (unsigned)count;

    while (flow->next != end) {
        unsigned some = 1 + pick(64), left = end - flow->next;
        int taken = flow_send(flow, conn, (int)pick(WAYS_TO_SEND), some < left ? some : left);

        if (taken < 0 && !not_now(taken))
            break;
        if (taken < 0)
            raw_sleep_ms(1);
        if (pick(50) == 0)
            qnet_set(conn, QNET_OPT_TX_USECS, pick(2) * 100);
    }
    return (int)(flow->next - begin);
}

static inline void set_any_options(qnet_conn *conn)
{
    static const int64_t patience[] = { -1, -1, 0, 5 };

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, patience[pick(4)]), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, pick(3) * 60), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_CORK, pick(2)), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 6 * patience_ms()), QNET_OK);
    if (pick(4) == 0)
        CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 8192), QNET_OK);
}

/*
 * Waits until every frame that was taken is counted as sent or as dropped, as it is once
 * the connection has ended.
 */
static inline qnet_stats stats_at_the_end(qnet_conn *conn, int taken)
{
    qnet_stats stats;

    EVENTUALLY((stats = stats_of(conn), stats.tx_frames + stats.tx_dropped == (uint64_t)taken));
    return stats;
}

#endif
