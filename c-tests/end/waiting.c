/*
 * waiting.c - who waits for a connection's end: qnet_wait, blocked calls, which
 * the end wakes, and closing, which waits for handlers unless QNET_OPT_WAIT is
 * 0.
 */
#include "watch.h"

/* ---- Waiting ---- */

static void wait_keeps_to_its_time(void)
{
    struct watch watch;
    long long began;
    int fd, mode;

    for (mode = 0; mode < MODES; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        scene("wait", "open", mode);
        watch_start(&watch, conn, mode);
        CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
        began = raw_now_ms();
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        CHECK(raw_now_ms() - began >= 49);
        CHECK_INT(qnet_wait(conn, -2), QNET_ERR_INVALID);
        CHECK_INT(qnet_close_reason(conn), QNET_OK);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* Lets slow_close_handler return: on a handled connection, qnet_wait waits for it as well. */
static int release_close_handler;

static void slow_close_handler(void *user, int reason)
{
    (void)reason;
    while (!get(&release_close_handler))
        raw_sleep_ms(1);
    count_up(user);
}

static void wait_includes_the_close_handler(void)
{
    struct watch watch;
    int fd, mode, ends;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        ends = 0;
        put(&release_close_handler, 0);
        watch_init(&watch, conn, mode);
        CHECK_INT(qnet_set_close_handler(conn, slow_close_handler, &ends), QNET_OK);
        CHECK_INT(set_mode_handler(conn, mode, &watch), QNET_OK);
        go_half(fd, conn);
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        put(&release_close_handler, 1);
        CHECK_INT(qnet_wait(conn, -1), QNET_OK);
        CHECK_INT(get(&ends), 1);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* ---- Calls that are blocked ---- */

/* One call of the library on a thread of its own. */
struct call {
    pthread_t thread;
    qnet_conn *conn;
    int (*make)(qnet_conn *conn);
    int began;
    int done;
    int result;
};

static void *call_body(void *argument)
{
    struct call *call = argument;

    put(&call->began, 1);
    call->result = call->make(call->conn);
    put(&call->done, 1);
    return NULL;
}

static void call_start(struct call *call, qnet_conn *conn, int (*make)(qnet_conn *))
{
    memset(call, 0, sizeof *call);
    call->conn = conn;
    call->make = make;
    start_thread(&call->thread, call_body, call);
    EVENTUALLY(get(&call->began));
}

/* Checks that the call is still blocked after a time in which it would have returned. */
static void call_waits(struct call *call)
{
    raw_sleep_ms(50 * check_slow());
    CHECK(!get(&call->done));
}

static int call_result(struct call *call)
{
    EVENTUALLY(get(&call->done));
    join_thread(call->thread);
    return call->result;
}

static const struct {
    const char *name;
    int (*make)(qnet_conn *conn);
    int result;
    int stuffed;
} blocked_calls[] = {
    { "send", make_send, QNET_ERR_CLOSED, 1 },
    { "send_batch", make_send_batch, QNET_ERR_CLOSED, 1 },
    { "send_packed", make_send_packed, QNET_ERR_CLOSED, 1 },
    { "flush", qnet_flush, QNET_ERR_CLOSED, 1 },
    { "recv", make_recv, QNET_ERR_CLOSED, 0 },
    { "recv_batch", make_recv_batch, QNET_ERR_CLOSED, 0 },
    { "recv_packed", make_recv_packed, QNET_ERR_CLOSED, 0 },
    { "wait", make_wait, QNET_OK, 0 },
    { "poll", make_poll, 1, 0 },
};
enum { BLOCKED_CALLS = sizeof blocked_calls / sizeof *blocked_calls };

static void wake_blocked_calls(int (*end)(qnet_conn *conn), int half_close)
{
    struct call call;
    int fd, i;

    for (i = 0; i < BLOCKED_CALLS; i++) {
        qnet_conn *conn = raw_pair(&fd);

        if (half_close && blocked_calls[i].stuffed)
            continue;
        scene("blocked", blocked_calls[i].name, UNREAD);
        CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 20), QNET_OK);
        if (blocked_calls[i].stuffed) {
            stuff(conn);
            CHECK_INT(qnet_flush(conn), QNET_ERR_AGAIN);
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
        }
        call_start(&call, conn, blocked_calls[i].make);
        call_waits(&call);
        if (half_close)
            go_half(fd, conn);
        else
            CHECK_INT(end(conn), QNET_OK);
        CHECK_INT(call_result(&call), blocked_calls[i].result);
        qnet_close(conn);
        close(fd);
    }
}

static void close_wakes_blocked_calls(void)
{
    wake_blocked_calls(qnet_close, 0);
}

static void shutdown_wakes_blocked_calls(void)
{
    wake_blocked_calls(qnet_shutdown, 0);
}

static void leaving_peer_wakes_blocked_calls(void)
{
    wake_blocked_calls(NULL, 1);
}

struct accepting {
    pthread_t thread;
    qnet_listener *listener;
    int began;
    int result;
};

static void *accepting_body(void *argument)
{
    struct accepting *accepting = argument;
    qnet_conn *conn = NULL;

    put(&accepting->began, 1);
    accepting->result = qnet_accept(accepting->listener, -1, &conn);
    CHECK(conn == NULL);
    return NULL;
}

static void listener_close_wakes_every_accept(void)
{
    struct accepting accepting[3];
    qnet_listener *listener = NULL;
    int i;

    CHECK_INT(qnet_listen("tcp", "127.0.0.1:0", &listener), QNET_OK);
    for (i = 0; i < 3; i++) {
        accepting[i].listener = listener;
        accepting[i].began = 0;
        start_thread(&accepting[i].thread, accepting_body, &accepting[i]);
        EVENTUALLY(get(&accepting[i].began));
    }
    raw_sleep_ms(50 * check_slow());
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    for (i = 0; i < 3; i++) {
        join_thread(accepting[i].thread);
        CHECK_INT(accepting[i].result, QNET_ERR_CLOSED);
    }
}

/* ---- Waiting for handlers, or not ---- */

static int stop_handler(qnet_conn *conn)
{
    return qnet_set_handler(conn, NULL, NULL);
}

static int stop_batch_handler(qnet_conn *conn)
{
    return qnet_set_batch_handler(conn, NULL, NULL);
}

static const struct {
    const char *name;
    int (*make)(qnet_conn *conn);
    int ends;
} waiting_calls[] = {
    { "close", qnet_close, 1 },
    { "set_handler", stop_handler, 0 },
    { "set_batch_handler", stop_batch_handler, 0 },
};
enum { WAITING_CALLS = sizeof waiting_calls / sizeof *waiting_calls };

/* With `waits` 1 the calls return once the handler call is over, with 0 while it goes on. */
static void calls_against_a_handler_call(int waits)
{
    struct watch watch;
    struct call call;
    int fd, i, mode;

    for (i = 0; i < WAITING_CALLS; i++) {
        for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
            qnet_conn *conn = raw_pair(&fd);

            scene(waits ? "waits" : "does not wait", waiting_calls[i].name, mode);
            CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, waits), QNET_OK);
            send_some(fd);
            watch_start_stuck(&watch, conn, mode);
            call_start(&call, conn, waiting_calls[i].make);
            if (waits) {
                call_waits(&call);
                CHECK_INT(taker_ends(&watch.taker), 0);
                put(&watch.shut, 0);
                CHECK_INT(call_result(&call), QNET_OK);
                CHECK_INT(get(&watch.returned), 1);
                CHECK_INT(taker_ends(&watch.taker), waiting_calls[i].ends);
            } else {
                CHECK_INT(call_result(&call), QNET_OK);
                CHECK_INT(get(&watch.returned), 0);
                CHECK_INT(taker_ends(&watch.taker), 0);
                put(&watch.shut, 0);
            }
            EVENTUALLY(taker_ends(&watch.taker) == waiting_calls[i].ends);
            CHECK_INT(get(&watch.calls), 1);
            if (waiting_calls[i].ends)
                watch_told_where(&watch, mode);
            else
                CHECK_INT(qnet_close(conn), QNET_OK);
            EVENTUALLY(taker_ends(&watch.taker) == 1);
            CHECK_INT(get(&watch.calls), 1);
            close(fd);
        }
    }
}

static void calls_wait_for_the_handler(void)
{
    struct footprint before = footprint_now();

    calls_against_a_handler_call(1);
    footprint_again(before);
}

static void calls_do_not_wait_if_told_so(void)
{
    struct footprint before = footprint_now();

    calls_against_a_handler_call(0);
    footprint_again(before);
}

/* A shutdown does not wait for the handler; no handler call begins after it, though frames wait. */
static void no_handler_call_after_shutdown(void)
{
    struct watch watch;
    unsigned frames;
    int fd, mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        scene("shutdown", "handler in a call", mode);
        send_some(fd);
        watch_start_stuck(&watch, conn, mode);
        frames = taker_count(&watch.taker);
        send_some(fd);
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
        CHECK_INT(get(&watch.returned), 0);
        CHECK_INT(qnet_wait(conn, 50), QNET_ERR_TIMEOUT);
        put(&watch.shut, 0);
        CHECK_INT(qnet_wait(conn, -1), QNET_OK);
        watch_told(&watch, frames, QNET_ERR_CLOSED);
        CHECK_INT(get(&watch.calls), 1);
        CHECK(raw_ended(fd));
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
    }
}

/* A qnet_wait that is blocked during a close that does not wait still comes to its end. */
static void wait_outlasts_a_close_that_does_not(void)
{
    struct watch watch;
    struct call call;
    int fd, mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        qnet_conn *conn = raw_pair(&fd);

        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 0), QNET_OK);
        send_some(fd);
        watch_start_stuck(&watch, conn, mode);
        call_start(&call, conn, make_wait);
        call_waits(&call);
        CHECK_INT(qnet_close(conn), QNET_OK);
        put(&watch.shut, 0);
        CHECK_INT(call_result(&call), QNET_OK);
        EVENTUALLY(taker_ends(&watch.taker) == 1);
        close(fd);
    }
}

/* While one close waits for the handler, the other fails at once with QNET_ERR_HANDLE. */
static void second_close_is_told_at_once(void)
{
    struct watch watch;
    struct call calls[2];
    int fd, first;
    qnet_conn *conn = raw_pair(&fd);

    send_some(fd);
    watch_start_stuck(&watch, conn, BY_HANDLER);
    call_start(&calls[0], conn, qnet_close);
    call_start(&calls[1], conn, qnet_close);
    EVENTUALLY(get(&calls[0].done) || get(&calls[1].done));
    first = get(&calls[0].done);
    CHECK_INT(call_result(&calls[1 - first]), QNET_ERR_HANDLE);
    call_waits(&calls[first]);
    put(&watch.shut, 0);
    CHECK_INT(call_result(&calls[first]), QNET_OK);
    CHECK_INT(taker_ends(&watch.taker), 1);
    close(fd);
}

int main(void)
{
    RUN(wait_keeps_to_its_time);
    RUN(wait_includes_the_close_handler);
    RUN(close_wakes_blocked_calls);
    RUN(shutdown_wakes_blocked_calls);
    RUN(leaving_peer_wakes_blocked_calls);
    RUN(listener_close_wakes_every_accept);
    RUN(calls_wait_for_the_handler);
    RUN(calls_do_not_wait_if_told_so);
    RUN(wait_outlasts_a_close_that_does_not);
    RUN(no_handler_call_after_shutdown);
    RUN(second_close_is_told_at_once);
    return check_done();
}
