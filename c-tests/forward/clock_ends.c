/*
 * clock_ends.c - what holds up a clock that the program moves, and what ends on it: full
 * sockets, signals, peers that leave, close handlers, other threads and forks.
 */
#include <signal.h>

#include "clocks.h"
#include "places.h"

/* ---- Full sockets ---- */

static void send_timeout(qnet_conn *conn, int timeout)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, timeout), QNET_OK);
}

/* More frames than the socket takes that nobody reads, which are due one each ms. */
enum { TOO_MANY = 1500 };
static void fill(struct cable *cable, qnet_clock *clock)
{
    unsigned i;

    impair(cable->b, QNET_OUT, "rate 72mbit limit 2000");
    for (i = 0; i < TOO_MANY; i++) {
        raw_send_numbered(cable->fa, i, 9000);
        CHECK_INT(advance(clock, 0), 0);
    }
    CHECK_INT(in_flight(cable->b, QNET_OUT), TOO_MANY);
}

/* The clock stops at the frame for which there is no room, and goes on from there. */
static void a_full_socket(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    unsigned taken = 0;
    int64_t stopped;

    send_timeout(cable.b, 0);
    fill(&cable, clock);
    CHECK_INT(qnet_clock_advance(clock, TOO_MANY * ms), QNET_ERR_AGAIN);
    stopped = now_of(clock);
    CHECK(stopped > 0 && stopped < TOO_MANY * ms && stopped % ms == 0);
    CHECK_INT(next_of(clock), stopped);
    CHECK_INT(qnet_clock_advance(clock, TOO_MANY * ms), QNET_ERR_AGAIN);
    CHECK_INT(now_of(clock), stopped);
    send_timeout(cable.b, 30);
    CHECK_INT(qnet_clock_advance(clock, stopped), QNET_ERR_TIMEOUT);
    CHECK_INT(now_of(clock), stopped);
    send_timeout(cable.b, 0);
    CHECK_INT(qnet_clock_advance(clock, stopped - 1), QNET_ERR_INVALID);
    while (now_of(clock) < TOO_MANY * ms) {
        int result = qnet_clock_advance(clock, TOO_MANY * ms);

        CHECK(result >= 0 || result == QNET_ERR_AGAIN);
        while (raw_has(cable.fb))
            CHECK_INT(raw_take_numbered(cable.fb), taken++);
    }
    CHECK_INT(taken, TOO_MANY);
    CHECK_INT(stats_of(cable.b).tx_frames, TOO_MANY);
    CHECK_INT(stats_of(cable.b).tx_dropped, 0);
    CHECK(next_of(clock) == INT64_MAX);
    cable_close(&cable);
    clock_close(clock);
}

/* By default it waits for the reader, whether there are impairments or not. */
static void a_slow_reader(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct raw_job reader, writer;

    raw_start(&writer, raw_writing, cable.fa, flow_of_one_size(&long_frame), MANY);
    raw_start(&reader, raw_reading, cable.fb, flow_of_one_size(&long_frame), MANY);
    while (stats_of(cable.b).tx_frames < MANY)
        advance(clock, now_of(clock) + 1);
    CHECK_INT(pthread_join(writer.thread, NULL), 0);
    CHECK_INT(pthread_join(reader.thread, NULL), 0);
    cable_close(&cable);
    clock_close(clock);
}

/* A hub queues, and drops what is too much. */
static void a_full_port(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_unplugged();
    qnet_hub *hub = hub_on(clock);
    struct raw_job reader;
    unsigned i;

    CHECK_INT(qnet_hub_set(hub, QNET_OPT_QUEUE_BYTES, 64 << 20), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, cable.b), QNET_OK);
    for (i = 0; i < TOO_MANY; i++) {
        raw_send_numbered(cable.fa, i, 9000);
        advance(clock, (i + 1) * ms);
    }
    CHECK(stats_of(cable.b).tx_dropped == 0);
    CHECK(stats_of(cable.b).tx_frames < TOO_MANY);
    raw_start(&reader, raw_reading, cable.fb, flow_of_one_size(&long_frame), TOO_MANY);
    while (stats_of(cable.b).tx_frames < TOO_MANY)
        CHECK_INT(advance(clock, now_of(clock)), 0);
    CHECK_INT(pthread_join(reader.thread, NULL), 0);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    cable_close(&cable);
    clock_close(clock);
}

/* A pair on the clock holds less than comes, and nothing waits for anybody. */
static void through_a_pair(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_unplugged();
    struct raw_job reader;
    qnet_conn *pair[2];
    unsigned i;

    CHECK_INT(qnet_socketpair(&pair[0], &pair[1]), QNET_OK);
    CHECK_INT(qnet_link_on(clock, cable.a, pair[0]), QNET_OK);
    CHECK_INT(qnet_link_on(clock, pair[1], cable.b), QNET_OK);
    impair(cable.a, QNET_IN, "delay 1s");
    for (i = 0; i < TOO_MANY; i++) {
        raw_send_numbered(cable.fa, i, 9000);
        CHECK_INT(advance(clock, 0), 0);
    }
    send_timeout(cable.b, 0);
    CHECK_INT(qnet_clock_advance(clock, 2000 * ms), QNET_ERR_AGAIN);
    CHECK_INT(now_of(clock), 1000 * ms);
    send_timeout(cable.b, -1);
    raw_start(&reader, raw_reading, cable.fb, flow_of_one_size(&long_frame), TOO_MANY);
    CHECK_INT(advance(clock, 1000 * ms), 2 * TOO_MANY);
    CHECK_INT(pthread_join(reader.thread, NULL), 0);
    CHECK_INT(qnet_close(pair[0]), QNET_OK);
    CHECK_INT(qnet_close(pair[1]), QNET_OK);
    cable_close(&cable);
    clock_close(clock);
}

static void ignore_signal(int number)
{
    (void)number;
}

static void a_signal(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct sigaction action;
    int64_t stopped;
    unsigned taken = 0;

    memset(&action, 0, sizeof action);
    action.sa_handler = ignore_signal;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    fill(&cable, clock);
    alarm(1);
    CHECK_INT(qnet_clock_advance(clock, TOO_MANY * ms), QNET_ERR_INTERRUPTED);
    stopped = now_of(clock);
    CHECK(stopped > 0 && stopped < TOO_MANY * ms);
    CHECK_INT(next_of(clock), stopped);
    send_timeout(cable.b, 0);
    while (now_of(clock) < TOO_MANY * ms) {
        int result = qnet_clock_advance(clock, TOO_MANY * ms);

        CHECK(result >= 0 || result == QNET_ERR_AGAIN);
        while (raw_has(cable.fb))
            CHECK_INT(raw_take_numbered(cable.fb), taken++);
    }
    CHECK_INT(taken, TOO_MANY);
    cable_close(&cable);
    clock_close(clock);
}

/* ---- Ends ---- */

/* What a close handler sees of the clock, and may do with it. */
struct witness {
    qnet_clock *clock;
    int ends, reason, thread, advanced;
    int64_t now;
};

static void see_the_end(void *user, int reason)
{
    struct witness *witness = user;

    witness->ends++;
    witness->reason = reason;
    witness->thread = this_thread();
    witness->now = now_of(witness->clock);
    witness->advanced = qnet_clock_advance(witness->clock, witness->now);
}

static void watch_end(qnet_conn *conn, struct witness *witness, qnet_clock *clock)
{
    memset(witness, 0, sizeof *witness);
    witness->clock = clock;
    CHECK_INT(qnet_set_close_handler(conn, see_the_end, witness), QNET_OK);
}

static void check_seen(const struct witness *witness, int reason, int64_t now)
{
    CHECK_INT(witness->ends, 1);
    CHECK_INT(witness->reason, reason);
    CHECK_INT(witness->thread, this_thread());
    CHECK_INT(witness->now, now);
    CHECK_INT(witness->advanced, QNET_ERR_BUSY);
}

/* A peer that leaves ends its side in the next advance, and the other when all has arrived. */
static void a_peer_leaves(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct witness a, b;

    watch_end(cable.a, &a, clock);
    watch_end(cable.b, &b, clock);
    impair(cable.a, QNET_IN, "delay 10ms");
    impair(cable.b, QNET_OUT, "delay 20ms");
    raw_send_numbered(cable.fa, 0, 60);
    CHECK(shutdown(cable.fa, SHUT_RDWR) == 0);
    raw_sleep_ms(20);
    CHECK_INT(a.ends, 0);
    CHECK_INT(advance(clock, 5 * ms), 0);
    CHECK_INT(a.ends, 0);
    CHECK_INT(qnet_close_reason(cable.a), QNET_OK);
    CHECK_INT(advance(clock, 29 * ms), 0);
    check_seen(&a, QNET_ERR_CLOSED, 10 * ms);
    CHECK_INT(b.ends, 0);
    CHECK_INT(advance(clock, 100 * ms), 1);
    check_seen(&b, QNET_ERR_CLOSED, 30 * ms);
    CHECK_INT(raw_take_numbered(cable.fb), 0);
    raw_take_end(cable.fb);
    CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
    CHECK_INT(a.ends + b.ends, 2);
    CHECK_INT(footprint_now().threads, 0);
    clock_close(clock);
    cable_close(&cable);
}

/* What a program sends itself is written later by another thread, which ends nothing of the clock's. */
static void held_sends_end_nobody(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    uint8_t frame[60];
    struct witness b;
    unsigned i;

    watch_end(cable.b, &b, clock);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_TX_USECS, 50000), QNET_OK);
    CHECK_INT(advance(clock, 5), 0);
    for (i = 0; i < 2; i++) {
        frame_make(frame, sizeof frame, i);
        CHECK_INT(qnet_send(cable.b, frame, sizeof frame), QNET_OK);
    }
    CHECK_INT(qnet_close(cable.a), QNET_OK);
    for (i = 0; i < 2; i++)
        CHECK_INT(raw_take_numbered(cable.fb), i);
    check_silent(cable.fb);
    CHECK_INT(qnet_close_reason(cable.b), QNET_OK);
    CHECK_INT(b.ends, 0);
    CHECK_INT(advance(clock, 5), 0);
    check_seen(&b, QNET_ERR_CLOSED, 5);
    raw_take_end(cable.fb);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
    clock_close(clock);
}

/* What this side ends calls its handler in the call; the other side ends in an advance. */
static void this_side_ends(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct witness a, b;

    watch_end(cable.a, &a, clock);
    watch_end(cable.b, &b, clock);
    advance(clock, 7);
    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    check_seen(&a, QNET_ERR_CLOSED, 7);
    raw_sleep_ms(20);
    CHECK_INT(b.ends, 0);
    CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
    advance(clock, 8);
    check_seen(&b, QNET_ERR_CLOSED, 7);
    clock_close(clock);
    cable_close(&cable);
    CHECK_INT(a.ends + b.ends, 2);

    clock = clock_open();
    cable = cable_on(clock);
    watch_end(cable.a, &a, clock);
    CHECK_INT(qnet_close(cable.a), QNET_OK);
    check_seen(&a, QNET_ERR_CLOSED, 0);
    advance(clock, 1);
    CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
    clock_close(clock);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
}

static void a_broken_peer(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct witness a;

    watch_end(cable.a, &a, clock);
    send_one_and_break(cable.fa);
    CHECK_INT(advance(clock, 4), 1);
    check_seen(&a, QNET_ERR_PROTOCOL, 0);
    cable_close(&cable);
    clock_close(clock);
}

/* A peer of a listener that a hub serves comes, speaks, and leaves in advances. */
static void a_served_peer(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    qnet_listener *listener = NULL;
    qnet_conn *peers[3], *device = NULL, *attached[5];
    struct witness witness;
    char address[100];
    uint8_t frame[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    int i, more = 0;

    CHECK_INT(qnet_listen("unix", "@qnet-clock-ends", &listener), QNET_OK);
    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    CHECK_INT(qnet_listener_impair(listener, QNET_IN, "delay 3ms"), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &device), QNET_OK);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_dial("unix", address, &peers[i]), QNET_OK);
        CHECK_INT(qnet_send(peers[i], frame, sizeof frame), QNET_OK);
    }
    raw_sleep_ms(20);
    CHECK_INT(qnet_hub_ports(hub, NULL, 0), 1);
    CHECK_INT(advance(clock, 0), 0);
    CHECK_INT(qnet_hub_ports(hub, attached, 5), 4);
    CHECK_INT(next_of(clock), 3 * ms);
    CHECK_INT(advance(clock, 3 * ms), 9);
    for (i = 0; i < 3; i++)
        CHECK_INT(recv_now(device), 60);
    CHECK_INT(recv_now(device), QNET_ERR_AGAIN);
    CHECK_INT(qnet_close(peers[0]), QNET_OK);
    raw_sleep_ms(20);
    CHECK_INT(qnet_hub_ports(hub, NULL, 0), 4);
    advance(clock, 4 * ms);
    CHECK_INT(qnet_hub_ports(hub, attached, 5), 3);
    for (i = 0; i < 3; i++) {
        if (qnet_clock_next(clock, NULL, NULL) == QNET_OK && more == 0)
            watch_end(attached[i], &witness, clock);
        more = 1;
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    check_seen(&witness, QNET_ERR_CLOSED, 4 * ms);
    clock_close(clock);
    CHECK_INT(qnet_close(device), QNET_OK);
    CHECK_INT(qnet_close(peers[1]), QNET_OK);
    CHECK_INT(qnet_close(peers[2]), QNET_OK);
}

/* ---- Threads ---- */

static int advance_inside(void *argument)
{
    return qnet_clock_advance(argument, 1) == QNET_ERR_BUSY ? QNET_OK : QNET_ERR_INTERNAL;
}

/* No handler advances a clock, whatever else it is told. */
static void inside_handlers(void)
{
    qnet_clock *clock = clock_open();

    inside_a_handler(advance_inside, clock);
    CHECK_INT(now_of(clock), 0);
    clock_close(clock);
}

struct driver {
    qnet_clock *clock;
    pthread_t thread;
};

static void *driving(void *argument)
{
    struct driver *driver = argument;
    int i;

    for (i = 0; i < rounds(2000); i++) {
        int result = qnet_clock_advance(driver->clock, now_of(driver->clock) + 1000);

        CHECK(result >= 0 || result == QNET_ERR_INVALID);
    }
    return NULL;
}

/* Two threads that advance one clock take turns; a third takes cables in and out. */
static void taking_turns(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock), other = cable_unplugged();
    struct driver drivers[2];
    struct raw_job writer, reader;
    int i;

    impair(cable.a, QNET_IN, "delay 10us 5us");
    raw_start(&writer, raw_writing, cable.fa, flow_of_small_frames(), MANY);
    raw_start(&reader, raw_reading, cable.fb, flow_of_small_frames(), MANY);
    for (i = 0; i < 2; i++) {
        drivers[i].clock = clock;
        CHECK(pthread_create(&drivers[i].thread, NULL, driving, &drivers[i]) == 0);
    }
    for (i = 0; i < rounds(200); i++) {
        CHECK_INT(qnet_link_on(clock, other.a, other.b), QNET_OK);
        raw_send_numbered(other.fa, 1, 60);
        CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
        impair(other.a, QNET_BOTH, i % 2 ? "delay 3us" : "loss 50%");
        CHECK_INT(qnet_unlink(other.a), QNET_OK);
    }
    for (i = 0; i < 2; i++)
        CHECK_INT(pthread_join(drivers[i].thread, NULL), 0);
    while (stats_of(cable.b).tx_frames < MANY)
        advance(clock, now_of(clock) + 1000);
    CHECK_INT(pthread_join(writer.thread, NULL), 0);
    CHECK_INT(pthread_join(reader.thread, NULL), 0);
    cable_close(&cable);
    cable_close(&other);
    clock_close(clock);
}

/* One that waits for room lets the others look, and wait. */
static void *advancing_to_the_end(void *argument)
{
    CHECK(qnet_clock_advance(argument, TOO_MANY * ms) >= 0);
    return NULL;
}

static void two_wait(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    pthread_t threads[2];
    unsigned i;

    fill(&cable, clock);
    for (i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, advancing_to_the_end, clock) == 0);
    raw_sleep_ms(50);
    CHECK(now_of(clock) < TOO_MANY * ms);
    CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
    is_idle();
    for (i = 0; i < TOO_MANY; i++)
        CHECK_INT(raw_take_numbered(cable.fb), i);
    for (i = 0; i < 2; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(now_of(clock), TOO_MANY * ms);
    cable_close(&cable);
    clock_close(clock);
}

/* ---- Forks ---- */

static int child_says(qnet_clock *clock, struct cable *cable)
{
    qnet_clock *own = NULL;

    CHECK_INT(qnet_clock_advance(clock, 10 * ms), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_next(clock, NULL, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_close(clock), QNET_ERR_HANDLE);
    CHECK_INT(qnet_unlink(cable->a), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_new(&own), QNET_OK);
    CHECK(own != clock);
    *cable = cable_on(own);
    raw_send_numbered(cable->fa, 3, 60);
    CHECK_INT(advance(own, 1), 1);
    CHECK_INT(raw_take_numbered(cable->fb), 3);
    cable_close(cable);
    clock_close(own);
    return 0;
}

static void the_child_has_none(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    int status;
    pid_t child;

    impair(cable.a, QNET_IN, "delay 10ms");
    raw_send_numbered(cable.fa, 0, 60);
    advance(clock, 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(child_says(clock, &cable));
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT(advance(clock, 10 * ms), 1);
    CHECK_INT(raw_take_numbered(cable.fb), 0);
    cable_close(&cable);
    clock_close(clock);
}

static pid_t forked;

static void fork_at_the_end(void *user, int reason)
{
    (void)user;
    (void)reason;
    forked = fork();
}

/* A child that is forked in a close handler, inside an advance, returns from that. */
static void forked_inside(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    int status, result;

    CHECK_INT(qnet_set_close_handler(cable.a, fork_at_the_end, NULL), QNET_OK);
    CHECK(shutdown(cable.fa, SHUT_RDWR) == 0);
    result = qnet_clock_advance(clock, 1);
    if (forked == 0)
        _exit(result == QNET_ERR_HANDLE ? 0 : 1);
    CHECK(result >= 0);
    CHECK(waitpid(forked, &status, 0) == forked && status == 0);
    cable_close(&cable);
    clock_close(clock);
}

static void leave_at_the_end(void *user, int reason)
{
    (void)user;
    (void)reason;
    pthread_exit(NULL);
}

static void *advancing(void *argument)
{
    qnet_clock_advance(argument, 5);
    return NULL;
}

/* A close handler that ends its thread leaves the clock to others. */
static void a_thread_that_leaves(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct witness b;
    pthread_t thread;

    CHECK_INT(qnet_set_close_handler(cable.a, leave_at_the_end, NULL), QNET_OK);
    watch_end(cable.b, &b, clock);
    CHECK(shutdown(cable.fa, SHUT_RDWR) == 0);
    CHECK(pthread_create(&thread, NULL, advancing, clock) == 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(b.ends, 0);
    CHECK_INT(now_of(clock), 0);
    CHECK_INT(advance(clock, 5), 0);
    check_seen(&b, QNET_ERR_CLOSED, 0);
    clock_close(clock);
    cable_close(&cable);
}

int main(void)
{
    RUN(a_full_socket);
    RUN(a_slow_reader);
    RUN(a_full_port);
    RUN(through_a_pair);
    RUN(a_signal);
    RUN(a_peer_leaves);
    RUN(held_sends_end_nobody);
    RUN(this_side_ends);
    RUN(a_broken_peer);
    RUN(a_served_peer);
    RUN(inside_handlers);
    RUN(taking_turns);
    RUN(two_wait);
    RUN(the_child_has_none);
    RUN(forked_inside);
    RUN(a_thread_that_leaves);
    return check_done();
}
