/*
 * link_end.c - the end of a linked connection: it ends the other one as well,
 * after all that was taken has been written, and each close handler runs once.
 */
#include "cable.h"

enum { LINGER_SHORT_MS = 50 };

/* ---- The end of a side ---- */

/* How many frames, the last ones, a slow side reads slowly. */
enum { SLOWLY = 100 };

/* Reads all, and pauses at the last ones for longer than anything lingers. */
static void *reading_slowly(void *argument)
{
    struct raw_job *job = argument;

    raw_take_until(job->fd, &job->flow, MANY - SLOWLY);
    while (job->flow.next < MANY) {
        raw_sleep_ms(2 * LINGER_SHORT_MS);
        raw_take_until(job->fd, &job->flow, job->flow.next + 10);
    }
    return NULL;
}

static void linger_shortly(const struct cable *cable)
{
    CHECK_INT(qnet_set(cable->a, QNET_OPT_LINGER_MS, LINGER_SHORT_MS), QNET_OK);
    CHECK_INT(qnet_set(cable->b, QNET_OPT_LINGER_MS, LINGER_SHORT_MS), QNET_OK);
}

/* One side sends and leaves; the other reads all of it, in its own time, and then the end. */
static void the_slow_side_gets_all(int half)
{
    struct flow flow = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer, reader;

    linger_shortly(&cable);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_SNDBUF, 20000), QNET_OK);
    hold_back(&writer, cable.fa);
    raw_start(&reader, reading_slowly, cable.fb, flow, MANY);
    join_thread(writer.thread);
    if (half)
        CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    else
        CHECK(close(cable.fa) == 0);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    join_thread(reader.thread);
    raw_take_end(cable.fb);
    CHECK_INT(qnet_close_reason(cable.a), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
    CHECK_INT(stats_of(cable.b).tx_frames, MANY);
    CHECK_INT(stats_of(cable.b).tx_dropped, 0);
    if (half)
        CHECK(raw_ended(cable.fa));
    else
        cable.fa = dup(cable.fb);
    cable_close(&cable);
}

static void a_peer_leaves_and_the_slow_side_gets_all(void)
{
    the_slow_side_gets_all(0);
}

static void a_peer_half_closes_and_the_slow_side_gets_all(void)
{
    the_slow_side_gets_all(1);
}

/*
 * The end waits for a reader that stops for longer than anything lingers, with frames in
 * the library.
 */
static void an_end_waits_for_a_reader_that_pauses(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer;
    unsigned passed;

    linger_shortly(&cable);
    raw_start(&writer, writing_until_the_end, cable.fa, expected, MANY);
    EVENTUALLY(raw_is_held(cable.fa));
    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    passed = (unsigned)stats_of(cable.a).rx_frames;
    CHECK_INT(qnet_wait(cable.b, 6 * LINGER_SHORT_MS), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_close_reason(cable.b), QNET_OK);
    raw_take_until(cable.fb, &expected, passed);
    raw_take_end(cable.fb);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    CHECK_INT(stats_of(cable.b).tx_frames, passed);
    join_thread(writer.thread);
    cable_close(&cable);
}

/* A side sends some frames and then breaks the framing; both sides end. */
static void one_side_breaks(const void *tail, size_t len, int leaves)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct cable cable = cable_plugged();

    raw_send_flow(cable.fa, &sent, 3, 0);
    raw_write(cable.fa, tail, len);
    if (leaves)
        CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    raw_take_until(cable.fb, &received, 3);
    raw_take_end(cable.fb);
    CHECK(raw_ended(cable.fa));
    CHECK_INT(qnet_wait(cable.a, patience_ms()), QNET_OK);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(cable.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
    cable_close(&cable);
}

static void a_broken_length_ends_both(void)
{
    one_side_breaks("\0\1\020\1", 4, 0); /* 69633 */
    one_side_breaks("\377\377\377\377", 4, 0);
}

static void an_end_inside_a_frame_ends_both(void)
{
    one_side_breaks("\0", 1, 1);
    one_side_breaks("\0\0\0\074 a part of sixty bytes", 20, 1);
}

/* ---- Close handlers ---- */

static int end_by_peer(void *argument)
{
    const struct cable *cable = argument;

    return shutdown(cable->fa, SHUT_WR);
}

static int end_by_shutdown(void *argument)
{
    const struct cable *cable = argument;

    return qnet_shutdown(cable->a);
}

static int end_by_close(void *argument)
{
    const struct cable *cable = argument;

    return qnet_close(cable->a);
}

static void close_handlers_run_once_on_a_library_thread(void)
{
    static int (*const ends[])(void *) = { end_by_peer, end_by_shutdown, end_by_close };
    size_t i;

    for (i = 0; i < 3; i++) {
        struct ending a = { 0, 0, 0, 0 }, b = a;
        struct cable cable = cable_plugged();

        CHECK_INT(qnet_set_close_handler(cable.a, ending_told, &a), QNET_OK);
        CHECK_INT(qnet_set_close_handler(cable.b, ending_told, &b), QNET_OK);
        CHECK_INT(ends[i](&cable), 0);
        if (i < 2)
            CHECK_INT(qnet_wait(cable.a, patience_ms()), QNET_OK);
        check_told(&a, QNET_ERR_CLOSED);
        CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
        check_told(&b, QNET_ERR_CLOSED);
        CHECK_INT(qnet_close(cable.a), i < 2 ? QNET_OK : QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(cable.b), QNET_OK);
        check_told(&a, QNET_ERR_CLOSED);
        check_told(&b, QNET_ERR_CLOSED);
        CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
    }
}

static void *closing(void *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
    return NULL;
}

/* Neither a wait nor a close returns before the close handler does; other links go on meanwhile. */
static void wait_and_close_wait_for_the_close_handler(void)
{
    struct ending a = { 0, 0, 0, 1 };
    struct cable cable = cable_plugged(), other = cable_plugged();
    pthread_t closer;

    CHECK_INT(qnet_set_close_handler(cable.a, ending_told, &a), QNET_OK);
    CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    EVENTUALLY(get(&a.thread) != 0);
    CHECK_INT(qnet_wait(cable.a, 50), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    passes(other.fa, other.fb);
    start_thread(&closer, closing, cable.a);
    raw_sleep_ms(20);
    CHECK_INT(get(&a.ends), 0);
    CHECK_INT(qnet_close_reason(cable.a), QNET_ERR_CLOSED);
    put(&a.shut, 0);
    join_thread(closer);
    check_told(&a, QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
    cable_close(&other);
}

/* With QNET_OPT_WAIT 0 a close does not wait for the close handler, which runs all the same. */
static void a_close_need_not_wait(void)
{
    struct ending a = { 0, 0, 0, 1 };
    struct cable cable = cable_plugged();

    CHECK_INT(qnet_set_close_handler(cable.a, ending_told, &a), QNET_OK);
    CHECK_INT(qnet_set(cable.a, QNET_OPT_WAIT, 0), QNET_OK);
    CHECK_INT(qnet_close(cable.a), QNET_OK);
    CHECK_INT(get(&a.ends), 0);
    put(&a.shut, 0);
    EVENTUALLY(get(&a.ends) == 1);
    check_told(&a, QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
}

static void end_this_thread(void *user, int reason)
{
    (void)reason;
    put(user, 1);
    pthread_exit(NULL);
}

/* A close handler may end the thread that it runs on; forwarding goes on, and so does closing. */
static void a_close_handler_ends_its_thread(void)
{
    struct footprint before = footprint_now();
    struct cable cable = cable_plugged(), other = cable_plugged();
    int called = 0;

    CHECK_INT(qnet_set_close_handler(cable.a, end_this_thread, &called), QNET_OK);
    CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    CHECK_INT(qnet_wait(cable.a, patience_ms()), QNET_OK);
    CHECK_INT(get(&called), 1);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    passes(other.fa, other.fb);
    cable_close(&cable);
    cable_close(&other);
    footprint_again(before);
}

/* What belongs to both connections, which a close handler closes and frees. */
struct owner {
    struct cable cable;
    int *freed;
};

static void free_and_close(void *user, int reason)
{
    struct owner *owner = user;
    int *freed = owner->freed;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(owner->cable.a), QNET_OK);
    CHECK_INT(qnet_close(owner->cable.b), QNET_OK);
    free(owner);
    put(freed, 1);
}

static void a_close_handler_closes_both(void)
{
    struct footprint before = footprint_now();
    int freed = 0;
    struct owner *owner = allocate(sizeof *owner);
    struct cable cable = cable_plugged();

    owner->cable = cable;
    owner->freed = &freed;
    CHECK_INT(qnet_set_close_handler(cable.a, free_and_close, owner), QNET_OK);
    CHECK(close(cable.fa) == 0);
    EVENTUALLY(get(&freed));
    CHECK(raw_ended(cable.fb));
    CHECK(close(cable.fb) == 0);
    CHECK_INT(qnet_close(cable.a), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(cable.b), QNET_ERR_HANDLE);
    footprint_again(before);
}

static void ended_inside_a_handler(void)
{
    static int (*const ends[])(void *) = { end_by_shutdown, end_by_close };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct flow flow = flow_of_one_size(&long_frame);
        struct cable cable = cable_plugged();
        struct raw_job writer, reader;

        linger_shortly(&cable);
        raw_start(&writer, writing_until_the_end, cable.fa, flow, MANY);
        EVENTUALLY(raw_is_held(cable.fa));
        inside_a_handler(ends[i], &cable);
        raw_start(&reader, reading_until_the_end, cable.fb, flow, 0);
        CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
        join_thread(reader.thread);
        join_thread(writer.thread);
        CHECK_INT(qnet_close(cable.a), i == 0 ? QNET_OK : QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(cable.b), QNET_OK);
        CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
    }
}

int main(void)
{
    RUN(a_peer_leaves_and_the_slow_side_gets_all);
    RUN(a_peer_half_closes_and_the_slow_side_gets_all);
    RUN(an_end_waits_for_a_reader_that_pauses);
    RUN(a_broken_length_ends_both);
    RUN(an_end_inside_a_frame_ends_both);
    RUN(close_handlers_run_once_on_a_library_thread);
    RUN(wait_and_close_wait_for_the_close_handler);
    RUN(a_close_need_not_wait);
    RUN(a_close_handler_ends_its_thread);
    RUN(a_close_handler_closes_both);
    RUN(ended_inside_a_handler);
    return check_done();
}
