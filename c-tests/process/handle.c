/*
 * handle.c - handles that are not live, or are of the other kind, given to
 * every function that takes one.
 */
#include <pthread.h>

#include "raw.h"

/* What the functions get beside the handle: either all arguments are right, or none is. */
struct arguments {
    unsigned char *bytes;
    size_t len;
    qnet_frame *frames;
    size_t count;
    int timeout;
    int option;
    int64_t *value;
    qnet_stats *stats;
    size_t stats_size;
    qnet_conn **out;
    qnet_handler handler;
    qnet_batch_handler batch_handler;
    qnet_close_handler close_handler;
    qnet_state_handler state_handler;
};

static struct arguments with;

typedef int call_function(void *handle);

#define CALL(name, ...)                                                        \
    static int call_##name(void *handle)                                       \
    {                                                                          \
        return qnet_##name(handle, __VA_ARGS__);                               \
    }
#define CALL_ALONE(name)                                                       \
    static int call_##name(void *handle)                                       \
    {                                                                          \
        return qnet_##name(handle);                                            \
    }

CALL(send, with.bytes, with.len)
CALL(send_batch, with.frames, with.count)
CALL(send_packed, with.bytes, with.len)
CALL_ALONE(flush)
CALL(set_handler, with.handler, NULL)
CALL(set_batch_handler, with.batch_handler, NULL)
CALL(set_close_handler, with.close_handler, NULL)
CALL(set_state_handler, with.state_handler, NULL)
CALL(recv, with.bytes, with.len, with.timeout)
CALL(recv_batch, with.frames, with.count, with.timeout)
CALL(recv_packed, with.bytes, with.len, with.timeout)
CALL_ALONE(fd)
CALL(wait, with.timeout)
CALL_ALONE(close_reason)
CALL_ALONE(shutdown)
CALL_ALONE(close)
CALL(hwaddr, with.bytes)
CALL(set_hwaddr, with.bytes)
CALL(local_addr, (char *)with.bytes, with.len)
CALL(peer_addr, (char *)with.bytes, with.len)
CALL(get_stats, with.stats, with.stats_size)
CALL(set, with.option, 1)
CALL(get, with.option, with.value)
CALL(accept, with.timeout, with.out)
CALL(listener_addr, (char *)with.bytes, with.len)
CALL_ALONE(listener_fd)
CALL_ALONE(listener_close)
CALL(listener_set, with.option, 1)
CALL(listener_get, with.option, with.value)

enum { CONN, LISTENER };

#define ENTRY(kind, name) { kind, #name, call_##name }

static const struct {
    int kind;
    const char *name;
    call_function *call;
} functions[] = {
    ENTRY(CONN, send),
    ENTRY(CONN, send_batch),
    ENTRY(CONN, send_packed),
    ENTRY(CONN, flush),
    ENTRY(CONN, set_handler),
    ENTRY(CONN, set_batch_handler),
    ENTRY(CONN, set_close_handler),
    ENTRY(CONN, set_state_handler),
    ENTRY(CONN, recv),
    ENTRY(CONN, recv_batch),
    ENTRY(CONN, recv_packed),
    ENTRY(CONN, fd),
    ENTRY(CONN, wait),
    ENTRY(CONN, close_reason),
    ENTRY(CONN, shutdown),
    ENTRY(CONN, close),
    ENTRY(CONN, hwaddr),
    ENTRY(CONN, set_hwaddr),
    ENTRY(CONN, local_addr),
    ENTRY(CONN, peer_addr),
    ENTRY(CONN, get_stats),
    ENTRY(CONN, set),
    ENTRY(CONN, get),
    ENTRY(LISTENER, accept),
    ENTRY(LISTENER, listener_addr),
    ENTRY(LISTENER, listener_fd),
    ENTRY(LISTENER, listener_close),
    ENTRY(LISTENER, listener_set),
    ENTRY(LISTENER, listener_get),
};

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
}

static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)user;
    (void)frames;
    (void)count;
}

static void on_close(void *user, int reason)
{
    (void)user;
    (void)reason;
}

static void on_state(void *user, int up)
{
    (void)user;
    (void)up;
}

static void give_right_arguments(void)
{
    static unsigned char bytes[QNET_FRAME_MAX + 4];
    static qnet_frame frames[2];
    static int64_t value;
    static qnet_stats stats;
    static qnet_conn *out;
    static const struct arguments right = {
        bytes, 60, frames, 1, 0, QNET_OPT_PAD, &value, &stats, sizeof stats, &out,
        on_frame, on_batch, on_close, on_state,
    };

    raw_fill(bytes, 60, 1);
    frames[0].data = bytes;
    frames[0].len = 60;
    out = (qnet_conn *)1;
    with = right;
}

static void give_wrong_arguments(void)
{
    memset(&with, 0, sizeof with);
    with.len = 1;
    with.timeout = -2;
    with.option = 99;
    with.stats_size = 8;
}

/*
 * Checks that every function for handles of that kind refuses this one,
 * whatever else it is given.
 */
static void check_refused(int kind, void *handle)
{
    size_t i;

    for (i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (functions[i].kind != kind)
            continue;
        fprintf(stderr, "%s of %p\n", functions[i].name, handle);
        give_right_arguments();
        CHECK_INT(functions[i].call(handle), QNET_ERR_HANDLE);
        if (functions[i].call == call_accept)
            CHECK(*with.out == NULL);
        give_wrong_arguments();
        CHECK_INT(functions[i].call(handle), QNET_ERR_HANDLE);
    }
}

static qnet_conn *make_conn(void)
{
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    close(fd);
    return conn;
}

static qnet_listener *make_listener(void)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen("tcp4", "127.0.0.1:0", &listener), QNET_OK);
    return listener;
}

/* ---- tests ---- */

static void invented(void)
{
    static const uintptr_t values[] = {
        0, 1, 2, 3, 8, 4095, 4096, 4097, 4098, 4099, 65537, 0x55550001,
        ((uintptr_t)1 << 47) - 1, (uintptr_t)1 << 47, ((uintptr_t)1 << 47) + 1,
        ((uintptr_t)1 << 63) + 1, ~(uintptr_t)0 - 1, ~(uintptr_t)0,
    };
    int local;
    size_t i;

    for (i = 0; i < sizeof values / sizeof *values; i++) {
        check_refused(CONN, (void *)values[i]);
        check_refused(LISTENER, (void *)values[i]);
    }
    check_refused(CONN, &local);
    check_refused(LISTENER, &local);
}

/* A value that differs from a live handle in one bit is not a handle. */
static void near_a_live_one(void)
{
    int fd, bit;
    qnet_conn *conn = raw_pair(&fd);
    qnet_listener *listener = make_listener();

    for (bit = 0; bit < 64; bit++) {
        check_refused(CONN, (void *)((uintptr_t)conn ^ (uintptr_t)1 << bit));
        check_refused(LISTENER, (void *)((uintptr_t)listener ^ (uintptr_t)1 << bit));
    }
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* qnet_link() refuses a value that differs from a live handle in one bit, in either place. */
static void linked_to_one_near(void)
{
    qnet_conn *conn, *other;
    int bit;

    CHECK_INT(qnet_socketpair(&conn, &other), QNET_OK);
    for (bit = 0; bit < 64; bit++) {
        qnet_conn *near = (void *)((uintptr_t)conn ^ (uintptr_t)1 << bit);

        if (near == other)
            continue;
        CHECK_INT(qnet_link(conn, near), QNET_ERR_HANDLE);
        CHECK_INT(qnet_link(near, conn), QNET_ERR_HANDLE);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
}

static void stale(void)
{
    qnet_conn *conn = make_conn(), *next;
    qnet_listener *listener = make_listener(), *next_listener;

    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_ERR_HANDLE);
    check_refused(CONN, conn);
    check_refused(LISTENER, listener);

    /* Stale handles stay stale when new ones are made. */
    next = make_conn();
    next_listener = make_listener();
    check_refused(CONN, conn);
    check_refused(LISTENER, listener);
    CHECK_INT(qnet_close(next), QNET_OK);
    CHECK_INT(qnet_listener_close(next_listener), QNET_OK);
}

static void wrong_type(void)
{
    unsigned char frame[60], got[60];
    qnet_listener *listener = make_listener();
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    check_refused(CONN, listener);
    check_refused(LISTENER, conn);

    /* Both objects still work. */
    raw_fill(frame, sizeof frame, 3);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_recv(fd, got, sizeof got), sizeof got);
    CHECK(raw_is(got, sizeof got, 3));
    CHECK(qnet_listener_fd(listener) >= 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/*
 * qnet_poll() reports an entry that is not a live connection as ready:
 * receiving from it says why.
 */
static void polled(void)
{
    qnet_conn *conns[4] = { NULL, NULL, (qnet_conn *)12345, NULL };
    uint8_t ready[4] = { 9, 9, 9, 9 };
    qnet_listener *listener = make_listener();
    int fd;

    conns[0] = make_conn();
    CHECK_INT(qnet_close(conns[0]), QNET_OK);
    conns[1] = raw_pair(&fd);
    conns[3] = (qnet_conn *)listener;
    CHECK_INT(qnet_poll(conns, ready, 4, -1), 3);
    CHECK_INT(ready[0], 1);
    CHECK_INT(ready[1], 0);
    CHECK_INT(ready[2], 1);
    CHECK_INT(ready[3], 1);
    CHECK_INT(qnet_close(conns[1]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static int compare_tokens(const void *a, const void *b)
{
    uintptr_t left = *(const uintptr_t *)a, right = *(const uintptr_t *)b;

    return (left > right) - (left < right);
}

static void check_tokens(uintptr_t *tokens, size_t count)
{
    size_t i;

    qsort(tokens, count, sizeof *tokens, compare_tokens);
    for (i = 0; i < count; i++) {
        CHECK(tokens[i] % 2 == 1);
        CHECK(tokens[i] >= 4097);
        CHECK(tokens[i] < (uintptr_t)1 << 47);
        CHECK(i == 0 || tokens[i] != tokens[i - 1]);
    }
}

enum { MANY = 100, CYCLES = 10000 };

static void tokens(void)
{
    uintptr_t values[2 * MANY];
    size_t i;

    for (i = 0; i < MANY; i++) {
        values[2 * i] = (uintptr_t)make_conn();
        values[2 * i + 1] = (uintptr_t)make_listener();
    }
    check_tokens(values, 2 * MANY);
}

/* No handle is given out twice, and none that was closed works again. */
static void never_again(void)
{
    static uintptr_t values[2 * CYCLES];
    size_t i, count = 2 * (size_t)rounds(CYCLES);

    for (i = 0; i < count; i += 2) {
        qnet_conn *a, *b;

        CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
        CHECK_INT(qnet_close(a), QNET_OK);
        CHECK_INT(qnet_close(b), QNET_OK);
        values[i] = (uintptr_t)a;
        values[i + 1] = (uintptr_t)b;
    }
    check_tokens(values, count);
    for (i = 0; i < count; i++)
        CHECK_INT(qnet_close_reason((qnet_conn *)values[i]), QNET_ERR_HANDLE);
}

struct closing {
    pthread_barrier_t *barrier;
    call_function *close;
    void *handle;
    int code;
};

static void *close_with_others(void *argument)
{
    struct closing *closing = argument;

    pthread_barrier_wait(closing->barrier);
    closing->code = closing->close(closing->handle);
    return NULL;
}

/* Of two closes at once one succeeds, and the other returns QNET_ERR_HANDLE. */
static void check_two_closes(call_function *close, void *handle)
{
    pthread_barrier_t barrier;
    struct closing closing[2];
    pthread_t thread;

    CHECK_INT(pthread_barrier_init(&barrier, NULL, 2), 0);
    closing[0].barrier = &barrier;
    closing[0].close = close;
    closing[0].handle = handle;
    closing[0].code = 99;
    closing[1] = closing[0];
    CHECK_INT(pthread_create(&thread, NULL, close_with_others, &closing[1]), 0);
    close_with_others(&closing[0]);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(closing[0].code + closing[1].code, QNET_ERR_HANDLE);
    CHECK(closing[0].code == QNET_OK || closing[1].code == QNET_OK);
    CHECK_INT(pthread_barrier_destroy(&barrier), 0);
}

static void two_closes_at_once(void)
{
    int i;

    for (i = rounds(1000); i > 0; i--) {
        check_two_closes(call_close, make_conn());
        check_two_closes(call_listener_close, make_listener());
    }
}

int main(void)
{
    RUN(invented);
    RUN(near_a_live_one);
    RUN(linked_to_one_near);
    RUN(stale);
    RUN(wrong_type);
    RUN(polled);
    RUN(tokens);
    RUN(never_again);
    RUN(two_closes_at_once);
    return check_done();
}
