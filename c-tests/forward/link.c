/*
 * link.c - two connections cabled together: what one receives the other sends,
 * whole, in order and without a loss, however slow a side is, whatever came
 * before and whoever unlinks, ends or closes them meanwhile.
 */
#include "forwarding.h"

static const size_t short_frame = 60, middle_frame = 1514, long_frame = 9000;

/* More long frames than two sockets hold. */
enum { MANY = 2000, LINGER_SHORT_MS = 50 };

/* Two linked connections, and the plain socket at the other end of each. */
struct cable {
    qnet_conn *a, *b;
    int fa, fb;
};

static struct cable cable_unplugged(void)
{
    struct cable cable;

    cable.a = raw_pair(&cable.fa);
    cable.b = raw_pair(&cable.fb);
    return cable;
}

static struct cable cable_plugged(void)
{
    struct cable cable = cable_unplugged();

    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    return cable;
}

static void cable_close(const struct cable *cable)
{
    CHECK_INT(qnet_close(cable->a), QNET_OK);
    CHECK_INT(qnet_close(cable->b), QNET_OK);
    CHECK(close(cable->fa) == 0);
    CHECK(close(cable->fb) == 0);
}

/* One frame written at one side comes out at the other. */
static void passes(int from, int to)
{
    struct flow sent = flow_of_one_size(&short_frame), received = sent;

    raw_send_flow(from, &sent, 1, 0);
    raw_take(to, &received);
}

/* ---- Forwarding ---- */

/* All sizes go through in both directions at once, for a link between two of that kind. */
static void both_ways(void)
{
    struct flow flow = flow_of_all_sizes();
    struct raw_job jobs[4];
    unsigned count = (unsigned)(ALL_SIZES * (1 + rounds(20)));
    struct cable cable;
    size_t i;

    cable.a = link_open(&cable.fa);
    cable.b = link_open(&cable.fb);
    CHECK_INT(qnet_set(cable.a, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_start(&jobs[0], raw_writing, cable.fa, flow, count);
    raw_start(&jobs[1], raw_reading, cable.fa, flow, count);
    raw_start(&jobs[2], raw_writing, cable.fb, flow, count);
    raw_start(&jobs[3], raw_reading, cable.fb, flow, count);
    for (i = 0; i < 4; i++)
        join_thread(jobs[i].thread);
    CHECK_INT(stats_of(cable.a).rx_frames, count);
    CHECK_INT(stats_of(cable.a).tx_frames, count);
    CHECK_INT(stats_of(cable.b).rx_bytes, stats_of(cable.a).tx_bytes);
    CHECK_INT(stats_of(cable.b).tx_dropped, 0);
    cable_close(&cable);
}

/* A frame is sent on when it is whole, however its bytes come. */
static void byte_by_byte(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct cable cable = cable_plugged();

    raw_send_flow(cable.fa, &sent, 7, 1);
    raw_take_until(cable.fb, &received, 7);
    cable_close(&cable);
}

/* Waits in nobody's way: a link between sockets of which one is slow at first. */
static void many_short_frames(void)
{
    struct flow flow = flow_of_small_frames();
    unsigned count = (unsigned)rounds(50000);
    struct cable cable = cable_plugged();
    struct raw_job writer, reader;

    raw_start(&writer, raw_writing, cable.fa, flow, count);
    raw_start(&reader, raw_reading, cable.fb, flow, count);
    join_thread(writer.thread);
    join_thread(reader.thread);
    CHECK_INT(stats_of(cable.b).tx_frames, count);
    cable_close(&cable);
}

/* ---- What came before the link ---- */

static void early_frames_in_the_socket(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct cable cable = cable_unplugged();

    raw_send_flow(cable.fa, &sent, 100, 0);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_take_until(cable.fb, &received, 100);
    cable_close(&cable);
}

/* A receive has read more than it gave, half a frame at the end of it. */
static void early_frames_in_the_library(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), received = flow;
        struct bundle bundle = bundle_make(&flow, 60);
        struct cable cable = cable_unplugged();
        struct taker taker;
        size_t cut = bundle.len - 30;

        taker_start(&taker, cable.a, way, flow_each, &received);
        raw_write(cable.fa, bundle.wire, cut);
        CHECK(taker_pull(&taker, patience_ms()) > 0);
        CHECK(received.next < 59 || way == BY_RECV_PACKED);
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        raw_take_until(cable.fb, &received, 59);
        raw_write(cable.fa, bundle.wire + cut, bundle.len - cut);
        raw_take_until(cable.fb, &received, 60);
        cable_close(&cable);
        CHECK_INT(taker_ends(&taker), 1);
        pthread_mutex_destroy(&taker.lock);
        bundle_free(&bundle);
    }
}

/* What a peer sent before it left goes through, then the end. */
static void early_frames_and_the_end(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct cable cable = cable_unplugged();

    raw_send_flow(cable.fa, &sent, 100, 0);
    CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_take_until(cable.fb, &received, 100);
    raw_take_end(cable.fb);
    CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(cable.a), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
    cable_close(&cable);
}

/* A frame that was lent is not sent on, and the one after it is. */
static void a_loan_ends_with_the_link(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct cable cable = cable_unplugged();
    qnet_frame lent[3];
    size_t i;

    raw_send_flow(cable.fa, &sent, 10, 0);
    CHECK_INT(qnet_recv_batch(cable.a, lent, 3, patience_ms()), 3);
    for (i = 0; i < 3; i++)
        flow_take(&received, lent[i].data, lent[i].len);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_take_until(cable.fb, &received, 10);
    cable_close(&cable);
}

/* ---- One side is slow ---- */

/* Writes more than fits until that is held back; to be joined when somebody reads again. */
static void hold_back(struct raw_job *writer, int fd)
{
    raw_start(writer, raw_writing, fd, flow_of_one_size(&long_frame), MANY);
    EVENTUALLY(raw_is_held(fd));
}

static void slow_side_holds_back_the_fast_one(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer;

    hold_back(&writer, cable.fa);
    CHECK(stats_of(cable.a).rx_frames < MANY);
    passes(cable.fb, cable.fa);
    raw_take_until(cable.fb, &expected, MANY);
    join_thread(writer.thread);
    CHECK_INT(stats_of(cable.b).tx_frames, MANY);
    CHECK_INT(stats_of(cable.b).tx_dropped, 0);
    passes(cable.fa, cable.fb);
    cable_close(&cable);
}

static void both_sides_are_slow(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    struct raw_job writers[2], reader;

    hold_back(&writers[0], cable.fa);
    hold_back(&writers[1], cable.fb);
    raw_start(&reader, raw_reading, cable.fa, expected, MANY);
    raw_take_until(cable.fb, &expected, MANY);
    join_thread(reader.thread);
    join_thread(writers[0].thread);
    join_thread(writers[1].thread);
    cable_close(&cable);
}

/* What the socket takes of a frame may be a few bytes. */
static void tiny_buffers(void)
{
    struct flow flow = flow_of_all_sizes();
    unsigned count = (unsigned)(ALL_SIZES * (1 + rounds(8)));
    struct cable cable = cable_unplugged();
    struct raw_job writer;

    CHECK_INT(qnet_set(cable.b, QNET_OPT_SNDBUF, 1), QNET_OK);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_start(&writer, raw_writing, cable.fa, flow, count);
    raw_take_until(cable.fb, &flow, count);
    join_thread(writer.thread);
    cable_close(&cable);
}

/* ---- Unlinking ---- */

static void usable_after_unlink(void)
{
    int by_b;

    for (by_b = 0; by_b < 2; by_b++) {
        struct flow sent = flow_of_small_frames(), from_a = sent, from_b = sent;
        struct cable cable = cable_plugged();
        int i;

        passes(cable.fa, cable.fb);
        CHECK_INT(qnet_unlink(by_b ? cable.b : cable.a), QNET_OK);
        CHECK_INT(qnet_unlink(cable.a), QNET_ERR_INVALID);
        CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
        raw_send_flow(cable.fa, &sent, 7, 0);
        sent.next = 0;
        raw_send_flow(cable.fb, &sent, 7, 0);
        for (i = 0; i < 7; i++) {
            take_by_recv(cable.a, &from_a);
            take_by_recv(cable.b, &from_b);
        }
        CHECK_INT(make_send(cable.a), QNET_OK);
        CHECK(raw_readable(cable.fa, patience_ms()));
        CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
        CHECK_INT(qnet_link(cable.b, cable.a), QNET_OK);
        passes(cable.fa, cable.fb);
        cable_close(&cable);
    }
}

/* The beginning of a frame that a link has read is not lost; the rest comes when it likes. */
static void half_a_frame_survives_unlink(void)
{
    struct flow flow = flow_of_one_size(&middle_frame), expected = flow;
    struct bundle bundle = bundle_make(&flow, 3);
    size_t cut;

    for (cut = 1; cut < RAW_PREFIX + middle_frame; cut += 300) {
        struct cable cable = cable_plugged();

        expected.next = 0;
        raw_write(cable.fa, bundle.wire, cut);
        EVENTUALLY(all_is_read(cable.a));
        CHECK_INT(qnet_unlink(cable.b), QNET_OK);
        CHECK_INT(recv_now(cable.a), QNET_ERR_AGAIN);
        raw_write(cable.fa, bundle.wire + cut, bundle.len - cut);
        take_by_recv(cable.a, &expected);
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        raw_take_until(cable.fb, &expected, 3);
        cable_close(&cable);
    }
    bundle_free(&bundle);
}

/* What was taken of the one is written to the other, in whole, and the rest waits in the one. */
static void nothing_is_lost_at_unlink(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer;
    unsigned passed;
    uint8_t last[14] = { 0 };

    hold_back(&writer, cable.fa);
    CHECK_INT(qnet_unlink(cable.a), QNET_OK);
    passed = (unsigned)stats_of(cable.a).rx_frames;
    CHECK(passed > 0 && passed < MANY);
    raw_take_until(cable.fb, &expected, passed);
    CHECK_INT(qnet_flush(cable.b), QNET_OK);
    CHECK_INT(stats_of(cable.b).tx_frames, passed);
    while (expected.next < MANY)
        take_by_recv(cable.a, &expected);
    join_thread(writer.thread);
    CHECK_INT(qnet_send(cable.b, last, sizeof last), QNET_OK);
    CHECK_INT(raw_recv(cable.fb, last, sizeof last), sizeof last);
    cable_close(&cable);
}

/* A send after unlinking comes behind all that the link had taken. */
static void sends_after_unlink_come_behind(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_plugged();
    uint8_t last[14] = { 0 };
    struct raw_job writer;
    unsigned passed;

    hold_back(&writer, cable.fa);
    CHECK_INT(qnet_unlink(cable.b), QNET_OK);
    passed = (unsigned)stats_of(cable.a).rx_frames;
    CHECK_INT(qnet_set(cable.b, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_send(cable.b, last, sizeof last), QNET_ERR_AGAIN);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
    raw_take_until(cable.fb, &expected, passed);
    CHECK_INT(qnet_send(cable.b, last, sizeof last), QNET_OK);
    CHECK_INT(raw_recv(cable.fb, last, sizeof last), sizeof last);
    while (expected.next < MANY)
        take_by_recv(cable.a, &expected);
    join_thread(writer.thread);
    cable_close(&cable);
}

/* In the middle of traffic, over and over, and pulled a little in between: no frame goes astray. */
static void unlinked_and_linked_again(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    unsigned count = 500 + (unsigned)rounds(20000), pulled = 0;
    struct cable cable = cable_unplugged();
    struct raw_job writer;

    raw_start(&writer, raw_writing, cable.fa, flow, count);
    while (expected.next < count) {
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        raw_sleep_ms(1);
        CHECK_INT(qnet_unlink(cable.a), QNET_OK);
        raw_take_until(cable.fb, &expected, (unsigned)stats_of(cable.a).rx_frames);
        if (expected.next < count) {
            take_by_recv(cable.a, &expected);
            pulled++;
        }
    }
    join_thread(writer.thread);
    CHECK_INT(stats_of(cable.b).tx_frames, count - pulled);
    cable_close(&cable);
}

/* ---- The end of a side ---- */

/* How many frames a slow side reads slowly: the last ones. */
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

/* One side sends and leaves; the other reads it all, in its own time, then the end. */
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

/* The same where it stops reading for longer than lingering takes, with frames in the library. */
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

/* Breaks the framing of its connection, after the frames. */
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

/* Neither a wait nor a close returns before the close handler does; others go on meanwhile. */
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

/* With QNET_OPT_WAIT 0 a close does not; the handler runs all the same. */
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

/* Frees its user and closes both connections: what close handlers are for. */
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

/* ---- What a linked connection refuses, and what not ---- */

static void no_other_way_to_receive(void)
{
    struct cable cable = cable_plugged(), spare = cable_unplugged();
    qnet_conn *both[2];
    qnet_hub *hub;
    uint8_t ready[2] = { 7, 7 };
    int i;

    both[0] = cable.a;
    both[1] = cable.b;
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_poll(both, ready, 2, 0), 2);
    for (i = 0; i < 2; i++) {
        CHECK_INT(ready[i], 1);
        CHECK_INT(make_recv(both[i]), QNET_ERR_BUSY);
        CHECK_INT(make_recv_batch(both[i]), QNET_ERR_BUSY);
        CHECK_INT(make_recv_packed(both[i]), QNET_ERR_BUSY);
        CHECK_INT(qnet_set_handler(both[i], ignore_frame, NULL), QNET_ERR_BUSY);
        CHECK_INT(qnet_set_batch_handler(both[i], ignore_batch, NULL), QNET_ERR_BUSY);
        CHECK_INT(qnet_link(both[i], both[1 - i]), QNET_ERR_BUSY);
        CHECK_INT(qnet_link(both[i], spare.a), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": a (") != NULL);
        CHECK_INT(qnet_link(spare.a, both[i]), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": b (") != NULL);
        CHECK_INT(qnet_unlink(spare.a), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_attach(hub, both[i]), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": conn (") != NULL);
        CHECK(strstr(qnet_last_error(), "the connection is attached or linked") != NULL);
        CHECK_INT(qnet_hub_detach(hub, both[i]), QNET_ERR_INVALID);
    }
    passes(cable.fa, cable.fb);
    CHECK_INT(recv_now(spare.a), QNET_ERR_AGAIN);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    cable_close(&cable);
    cable_close(&spare);
}

/* A call that waits on its own thread, and what it gave. */
struct waiter {
    pthread_t thread;
    int (*call)(qnet_conn *conn);
    qnet_conn *conn;
    int result;
};

static void *waiting(void *argument)
{
    struct waiter *waiter = argument;

    waiter->result = waiter->call(waiter->conn);
    return NULL;
}

/* Who waits for a frame when the link comes is told; who waits for the end goes on waiting. */
static void waiting_calls_are_told_of_a_link(void)
{
    static int (*const calls[])(qnet_conn *) = {
        make_recv, make_recv_batch, make_recv_packed, make_poll, make_wait,
    };
    static const int results[] = {
        QNET_ERR_BUSY, QNET_ERR_BUSY, QNET_ERR_BUSY, 1, QNET_OK,
    };
    struct cable cable = cable_unplugged();
    struct waiter waiters[5];
    int i;

    for (i = 0; i < 5; i++) {
        waiters[i].call = calls[i];
        waiters[i].conn = cable.a;
        start_thread(&waiters[i].thread, waiting, &waiters[i]);
    }
    raw_sleep_ms(20);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_OK);
    for (i = 0; i < 5; i++) {
        if (calls[i] == make_wait)
            CHECK(shutdown(cable.fa, SHUT_WR) == 0);
        join_thread(waiters[i].thread);
        CHECK_INT(waiters[i].result, results[i]);
    }
    cable_close(&cable);
}

/* One that has a handler, or is a hub's, is not linked; nor is the other one then. */
static void handled_and_attached_are_not_linked(void)
{
    struct cable cable = cable_unplugged();
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_set_handler(cable.a, ignore_frame, NULL), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_BUSY);
    CHECK_INT(qnet_set_handler(cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_BUSY);
    CHECK_INT(qnet_unlink(cable.a), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    CHECK_INT(qnet_hub_detach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    passes(cable.fa, cable.fb);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    passes(cable.fb, cable.fa);
    cable_close(&cable);
}

static void ended_connections_are_not_linked(void)
{
    struct cable cable = cable_unplugged(), broken = cable_unplugged();

    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_CLOSED);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_CLOSED);
    raw_write(broken.fa, "\377\377\377\377", 4);
    CHECK_INT(make_recv(broken.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_link(broken.a, cable.b), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_link(cable.b, broken.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    cable_close(&cable);
    cable_close(&broken);
}

static void handles_are_judged(void)
{
    struct cable cable = cable_unplugged();
    qnet_listener *listener;
    qnet_conn *wrong[3];
    int i;

    CHECK_INT(qnet_listen("tcp4", "127.0.0.1:0", &listener), QNET_OK);
    wrong[0] = NULL;
    wrong[1] = (qnet_conn *)(uintptr_t)4099;
    wrong[2] = (qnet_conn *)listener;
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_link(wrong[i], cable.b), QNET_ERR_HANDLE);
        CHECK_INT(qnet_link(cable.b, wrong[i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_link(wrong[i], wrong[i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_unlink(wrong[i]), QNET_ERR_HANDLE);
    }
    CHECK_INT(qnet_link(cable.b, cable.b), QNET_ERR_INVALID);
    CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    cable_close(&cable);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_HANDLE);
    CHECK_INT(qnet_unlink(cable.a), QNET_ERR_HANDLE);
}

/* Handles are judged before other arguments: a stale one is none, though both are the same. */
static void stale_handles_that_are_the_same(void)
{
    struct cable cable = cable_unplugged();

    cable_close(&cable);
    CHECK_INT(qnet_link(cable.a, cable.a), QNET_ERR_HANDLE);
}

/* Sends by all ways, on a thread of its own. */
struct sender {
    pthread_t thread;
    qnet_conn *conn;
    struct flow flow;
    unsigned count;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    unsigned end = sender->flow.next + sender->count;
    int way = 0;

    while (sender->flow.next != end)
        CHECK_INT(flow_send(&sender->flow, sender->conn, way++ % WAYS_TO_SEND, 10), 10);
    return NULL;
}

/* Frames of the own flow tell themselves by this bit of their numbers. */
enum { OWN = 1 << 30 };

/* Reads `left` frames, of both flows in any order, each flow in its own. */
static void take_both(int fd, struct flow *linked, struct flow *own, unsigned left)
{
    static uint8_t frame[QNET_FRAME_MAX];

    for (; left > 0; left--) {
        long len = raw_recv(fd, frame, sizeof frame);

        CHECK(len >= 14);
        flow_take(frame[0] & OWN >> 24 ? own : linked, frame, (size_t)len);
    }
}

/* A linked connection's sends go to its own peer, whole between the link's frames. */
static void sends_go_to_the_own_peer(void)
{
    unsigned count = 100 + (unsigned)rounds(3000), left = 2 * (count - count % 10);
    struct flow linked = flow_of_one_size(&long_frame), own = flow_of_one_size(&middle_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer;
    struct sender sender;

    own.next = OWN;
    raw_start(&writer, raw_writing, cable.fa, linked, left / 2);
    sender.conn = cable.b;
    sender.flow = own;
    sender.count = left / 2;
    start_thread(&sender.thread, sending, &sender);
    take_both(cable.fb, &linked, &own, left);
    join_thread(writer.thread);
    join_thread(sender.thread);
    CHECK_INT(own.next - OWN, linked.next);
    CHECK_INT(bytes_waiting(cable.fa), 0);
    cable_close(&cable);
}

static void send_on(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

/* So do sends that another connection's handler makes, which are corked, where the socket cuts frames. */
static void corked_sends_go_to_the_own_peer(void)
{
    unsigned count = 1000 + (unsigned)rounds(60000);
    struct flow linked = flow_of_one_size(&long_frame), own = flow_of_small_frames();
    struct cable cable = cable_plugged();
    struct raw_job writer, other;
    int fd;
    qnet_conn *handled = raw_pair(&fd);

    own.next = OWN;
    CHECK_INT(qnet_set(cable.b, QNET_OPT_SNDBUF, 20000), QNET_OK);
    CHECK_INT(qnet_set_handler(handled, send_on, cable.b), QNET_OK);
    raw_start(&writer, raw_writing, cable.fa, linked, count);
    raw_start(&other, raw_writing, fd, own, count);
    take_both(cable.fb, &linked, &own, 2 * count);
    join_thread(writer.thread);
    join_thread(other.thread);
    CHECK_INT(own.next - OWN, linked.next);
    CHECK_INT(qnet_close(handled), QNET_OK);
    CHECK(close(fd) == 0);
    cable_close(&cable);
}

/* ---- Frames that do not go through as they are ---- */

static void runts_are_skipped(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    uint8_t runt[13] = { 0 };
    struct cable cable = cable_plugged();
    size_t len;

    for (len = 0; len < 14; len++) {
        raw_send(cable.fa, runt, len);
        raw_send_flow(cable.fa, &sent, 1, 0);
    }
    raw_take_until(cable.fb, &received, 14);
    CHECK_INT(stats_of(cable.a).rx_runts, 14);
    CHECK_INT(stats_of(cable.a).rx_frames, 14);
    CHECK_INT(stats_of(cable.b).tx_frames, 14);
    CHECK_INT(stats_of(cable.b).tx_bytes, stats_of(cable.a).rx_bytes);
    cable_close(&cable);
}

/* Runts among frames of one write. */
static void runts_between_frames(void)
{
    static const size_t sizes[] = { 14, 14, 14, 60 };
    struct flow flow = { sizes, 4, 0 }, received = flow;
    struct bundle bundle = bundle_make(&flow, 100);
    static const uint8_t runts[RAW_PREFIX * 3];
    struct cable cable = cable_plugged();
    int i;

    for (i = 0; i < 3; i++) {
        raw_write(cable.fa, runts, sizeof runts);
        raw_write(cable.fa, bundle.wire, bundle.len);
        received.next = 0;
        raw_take_until(cable.fb, &received, 100);
    }
    CHECK_INT(stats_of(cable.a).rx_runts, 9);
    cable_close(&cable);
    bundle_free(&bundle);
}

/* Frames that the other side may not send are dropped there, and counted. */
static void long_frames_are_dropped(void)
{
    static const size_t sizes[] = { 60, 101, 100, 1514, 61 }, rest[] = { 60, 100, 61 };
    struct flow sent = { sizes, 5, 0 };
    struct bundle bundle = bundle_make(&sent, 5);
    struct cable cable = cable_unplugged();
    uint8_t frame[2048];
    size_t i;

    CHECK_INT(qnet_set(cable.b, QNET_OPT_MAX_FRAME, 100), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_write(cable.fa, bundle.wire, bundle.len);
    for (i = 0; i < 3; i++) {
        CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), rest[i]);
        CHECK_INT(frame_number(frame, rest[i]), 2 * i);
    }
    CHECK_INT(stats_of(cable.a).rx_frames, 5);
    CHECK_INT(stats_of(cable.b).tx_frames, 3);
    CHECK_INT(stats_of(cable.b).tx_dropped, 2);
    CHECK_INT(stats_of(cable.a).tx_dropped, 0);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_MAX_FRAME, 1514), QNET_OK);
    raw_write(cable.fa, bundle.wire, bundle.len);
    for (i = 0; i < 5; i++)
        CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), sizes[i]);
    cable_close(&cable);
    bundle_free(&bundle);
}

static void forwarded_frames_are_padded(void)
{
    static const uint8_t zeroes[60];
    struct flow sent = flow_of_small_frames();
    struct cable cable = cable_unplugged();
    uint8_t frame[2048];
    unsigned i;

    CHECK_INT(qnet_set(cable.b, QNET_OPT_PAD, 1), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_send_flow(cable.fa, &sent, 70, 0);
    for (i = 0; i < 70; i++) {
        size_t len = flow_size(&sent, i), padded = len < 60 ? 60 : len;

        CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), padded);
        CHECK_INT(frame_number(frame, len), i);
        CHECK(memcmp(frame + len, zeroes, padded - len) == 0);
    }
    CHECK(stats_of(cable.b).tx_bytes > stats_of(cable.a).rx_bytes);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_PAD, 0), QNET_OK);
    passes(cable.fa, cable.fb);
    cable_close(&cable);
}

/* ---- Inside handlers ---- */

static int do_link(void *argument)
{
    const struct cable *cable = argument;

    return qnet_link(cable->a, cable->b);
}

static int do_unlink(void *argument)
{
    const struct cable *cable = argument;

    return qnet_unlink(cable->a);
}

static int do_link_twice(void *argument)
{
    const struct cable *cable = argument;

    CHECK_INT(qnet_link(cable->a, cable->b), QNET_OK);
    CHECK_INT(qnet_unlink(cable->b), QNET_OK);
    return qnet_link(cable->b, cable->a);
}

static void linked_and_unlinked_inside_a_handler(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_unplugged();
    struct raw_job writer;
    unsigned passed;

    inside_a_handler(do_link_twice, &cable);
    passes(cable.fa, cable.fb);
    hold_back(&writer, cable.fa);
    inside_a_handler(do_unlink, &cable);
    passed = (unsigned)stats_of(cable.a).rx_frames - 1;
    raw_take_until(cable.fb, &expected, passed);
    inside_a_handler(do_link, &cable);
    raw_take_until(cable.fb, &expected, MANY);
    join_thread(writer.thread);
    cable_close(&cable);
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

/* A handler that takes itself away after some frames, and links its connection. */
struct quitter {
    struct cable cable;
    struct flow flow;
    unsigned stay;   /* how many frames it takes */
    int dwell_ms;    /* how long it stays when it has linked */
    int back;        /* whether it unlinks then, and becomes the handler again */
    int done;
};

static void quitter_links(struct quitter *quitter)
{
    CHECK_INT(qnet_set_handler(quitter->cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_link(quitter->cable.a, quitter->cable.b), QNET_OK);
    raw_sleep_ms(quitter->dwell_ms);
    put(&quitter->done, 1);
}

static void quitter_frame(void *user, const uint8_t *frame, size_t len)
{
    struct quitter *quitter = user;

    flow_take(&quitter->flow, frame, len);
    if (quitter->flow.next != quitter->stay)
        return;
    quitter_links(quitter);
    if (quitter->back) {
        CHECK_INT(qnet_unlink(quitter->cable.b), QNET_OK);
        CHECK_INT(qnet_set_handler(quitter->cable.a, quitter_frame, user), QNET_OK);
    }
}

static void quitter_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct quitter *quitter = user;
    size_t i;

    for (i = 0; i < count; i++)
        flow_take(&quitter->flow, frames[i].data, frames[i].len);
    quitter_links(quitter);
}

static void quitter_init(struct quitter *quitter, unsigned stay, int dwell_ms)
{
    memset(quitter, 0, sizeof *quitter);
    quitter->cable = cable_unplugged();
    quitter->flow = flow_of_small_frames();
    quitter->stay = stay;
    quitter->dwell_ms = dwell_ms;
}

/* The frames that it did not take go over the link, in order: those the library holds, too. */
static void a_handler_gives_way_to_a_link(void)
{
    unsigned stay;
    int dwell_ms;

    for (stay = 1; stay < 30; stay += 7)
        for (dwell_ms = 0; dwell_ms <= 20; dwell_ms += 20) {
            struct flow sent = flow_of_small_frames();
            struct quitter quitter;

            quitter_init(&quitter, stay, dwell_ms);
            raw_send_flow(quitter.cable.fa, &sent, 200, 0);
            CHECK_INT(qnet_set_handler(quitter.cable.a, quitter_frame, &quitter), QNET_OK);
            EVENTUALLY(get(&quitter.done));
            raw_send_flow(quitter.cable.fa, &sent, 200, 0);
            CHECK_INT(quitter.flow.next, stay);
            raw_take_until(quitter.cable.fb, &quitter.flow, 400);
            cable_close(&quitter.cable);
        }
}

static void a_batch_handler_gives_way_to_a_link(void)
{
    struct flow sent = flow_of_small_frames();
    struct quitter quitter;

    quitter_init(&quitter, 0, 20);
    raw_send_flow(quitter.cable.fa, &sent, 20, 0);
    CHECK_INT(qnet_set_batch_handler(quitter.cable.a, quitter_batch, &quitter), QNET_OK);
    EVENTUALLY(get(&quitter.done));
    raw_send_flow(quitter.cable.fa, &sent, 200, 0);
    raw_take_until(quitter.cable.fb, &quitter.flow, 220);
    cable_close(&quitter.cable);
}

/* Linked and unlinked before it returns, it goes on where it was: nothing was forwarded. */
static void a_handler_comes_back_from_a_link(void)
{
    struct flow sent = flow_of_small_frames();
    struct quitter quitter;

    quitter_init(&quitter, 5, 20);
    quitter.back = 1;
    raw_send_flow(quitter.cable.fa, &sent, 200, 0);
    CHECK_INT(qnet_set_handler(quitter.cable.a, quitter_frame, &quitter), QNET_OK);
    EVENTUALLY(stats_of(quitter.cable.a).rx_frames == 200);
    CHECK_INT(qnet_set_handler(quitter.cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(quitter.flow.next, 200);
    CHECK_INT(stats_of(quitter.cable.b).tx_frames, 0);
    cable_close(&quitter.cable);
}

/* A handler set on a connection that was linked takes over, and so on. */
static void handlers_and_links_take_turns(void)
{
    struct flow sent = flow_of_small_frames(), expected = sent;
    struct cable cable = cable_unplugged();
    struct taker taker;
    int turn;

    for (turn = 0; turn < 20; turn++) {
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        raw_send_flow(cable.fa, &sent, 10, 0);
        raw_take_until(cable.fb, &expected, sent.next);
        CHECK_INT(qnet_unlink(cable.a), QNET_OK);
        taker_start(&taker, cable.a, turn % 2 ? BY_HANDLER : BY_BATCH_HANDLER, flow_each,
                    &expected);
        raw_send_flow(cable.fa, &sent, 10, 0);
        taker_want(&taker, 10);
        CHECK_INT(qnet_set_handler(cable.a, NULL, NULL), QNET_OK);
        CHECK_INT(qnet_set_close_handler(cable.a, NULL, NULL), QNET_OK);
        pthread_mutex_destroy(&taker.lock);
    }
    cable_close(&cable);
}

/* ---- Several threads ---- */

enum { WORKERS = 4, CALLS = 30 };

enum {
    FINE = MAY(QNET_OK) | MAY(QNET_ERR_HANDLE),
    UNDONE = FINE | MAY(QNET_ERR_INVALID),
    REFUSED = FINE | MAY(QNET_ERR_BUSY) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_OS)
};

struct meddler {
    pthread_t thread;
    struct cable cable;
    unsigned state;
    int may_end;
};

/* One call that changes the cable. */
static void meddle(struct meddler *meddler)
{
    const struct cable *cable = &meddler->cable;

    switch (next_random(&meddler->state) % (meddler->may_end ? 7 : 4)) {
    case 0:
        check_among(qnet_link(cable->a, cable->b), REFUSED);
        return;
    case 1:
        check_among(qnet_link(cable->b, cable->a), REFUSED);
        return;
    case 2:
        check_among(qnet_unlink(cable->a), UNDONE);
        return;
    case 3:
        check_among(qnet_unlink(cable->b), UNDONE);
        return;
    case 4:
        check_among(qnet_shutdown(cable->a), FINE);
        return;
    case 5:
        check_among(qnet_close(cable->b), FINE);
        return;
    default:
        check_among(qnet_close(cable->a), FINE);
    }
}

static void *meddling(void *argument)
{
    struct meddler *meddler = argument;
    int calls;

    for (calls = 0; calls < CALLS; calls++) {
        meddle(meddler);
        if (next_random(&meddler->state) % 4 == 0)
            raw_sleep_ms(1);
    }
    return NULL;
}

static void start_meddlers(struct meddler *meddlers, const struct cable *cable, unsigned seed,
                           int may_end)
{
    unsigned i;

    for (i = 0; i < WORKERS; i++) {
        meddlers[i].cable = *cable;
        meddlers[i].state = seed * WORKERS + i;
        meddlers[i].may_end = may_end;
        start_thread(&meddlers[i].thread, meddling, &meddlers[i]);
    }
}

static void join_meddlers(struct meddler *meddlers)
{
    int i;

    for (i = 0; i < WORKERS; i++)
        join_thread(meddlers[i].thread);
}

/* Linked and unlinked by several threads at once: whatever goes through is whole and in order. */
static void several_threads_link_and_unlink(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000);
    struct flow flow = flow_of_small_frames();
    struct cable cable = cable_plugged();
    struct meddler meddlers[WORKERS];
    struct raw_job writers[2], readers[2];
    int i;

    for (i = 0; i < 2; i++) {
        raw_start(&writers[i], raw_writing, i ? cable.fb : cable.fa, flow, count);
        raw_start(&readers[i], raw_reading, i ? cable.fa : cable.fb, flow, count);
    }
    start_meddlers(meddlers, &cable, 1, 0);
    join_meddlers(meddlers);
    check_among(qnet_link(cable.a, cable.b), REFUSED);
    for (i = 0; i < 2; i++) {
        join_thread(writers[i].thread);
        join_thread(readers[i].thread);
    }
    cable_close(&cable);
}

/* Ended by several threads in the middle of traffic: each close handler runs once. */
static void one_end_by_several_threads(unsigned seed)
{
    struct flow flow = flow_of_one_size(&middle_frame);
    struct ending a = { 0, 0, 0, 0 }, b = a;
    struct meddler meddlers[WORKERS];
    struct raw_job jobs[4];
    struct cable cable = cable_plugged();
    int i;

    CHECK_INT(qnet_set(cable.a, QNET_OPT_LINGER_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_LINGER_MS, 0), QNET_OK);
    CHECK_INT(qnet_set_close_handler(cable.a, ending_told, &a), QNET_OK);
    CHECK_INT(qnet_set_close_handler(cable.b, ending_told, &b), QNET_OK);
    raw_start(&jobs[0], writing_until_the_end, cable.fa, flow, MANY);
    raw_start(&jobs[1], writing_until_the_end, cable.fb, flow, MANY);
    raw_start(&jobs[2], reading_until_the_end, cable.fa, flow, 0);
    raw_start(&jobs[3], reading_until_the_end, cable.fb, flow, 0);
    start_meddlers(meddlers, &cable, seed, 1);
    join_meddlers(meddlers);
    check_among(qnet_close(cable.a), FINE);
    check_among(qnet_close(cable.b), FINE);
    for (i = 0; i < 4; i++)
        join_thread(jobs[i].thread);
    EVENTUALLY(get(&a.ends) == 1);
    EVENTUALLY(get(&b.ends) == 1);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
}

static void several_threads_end_links(void)
{
    struct footprint before = footprint_now();
    int round;

    for (round = 0; round < rounds(100); round++)
        one_end_by_several_threads((unsigned)round);
    footprint_again(before);
}

/* ---- Many links ---- */

enum { LINKS = 8 };

static void *writing_and_leaving(void *argument)
{
    struct raw_job *job = argument;

    raw_writing(job);
    CHECK(shutdown(job->fd, SHUT_WR) == 0);
    return NULL;
}

/* One after another: what goes in at one end comes out at the other, and then the end does. */
static void a_chain(void)
{
    struct footprint before = footprint_now();
    struct flow flow = flow_of_small_frames(), expected = flow;
    unsigned count = 100 + (unsigned)rounds(5000);
    qnet_conn *conns[2 * LINKS];
    struct raw_job writer;
    int first, last, i;

    conns[0] = raw_pair(&first);
    for (i = 1; i < 2 * LINKS - 1; i += 2)
        CHECK_INT(qnet_socketpair(&conns[i], &conns[i + 1]), QNET_OK);
    conns[2 * LINKS - 1] = raw_pair(&last);
    for (i = 0; i < 2 * LINKS; i += 2)
        CHECK_INT(qnet_link(conns[i], conns[i + 1]), QNET_OK);
    passes(last, first);
    raw_start(&writer, writing_and_leaving, first, flow, count);
    raw_take_until(last, &expected, count);
    raw_take_end(last);
    join_thread(writer.thread);
    for (i = 0; i < 2 * LINKS; i++) {
        CHECK_INT(qnet_wait(conns[i], patience_ms()), QNET_OK);
        CHECK_INT(qnet_close_reason(conns[i]), QNET_ERR_CLOSED);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    }
    CHECK(close(first) == 0 && close(last) == 0);
    footprint_again(before);
}

/* Frames go round a ring, whole and in order, until it is opened. (Of sockets that it has not paired
   itself the library does not know that they make one.) */
static void a_ring(void)
{
    struct footprint before = footprint_now();
    struct flow sent = flow_of_small_frames(), expected = sent;
    qnet_conn *left[LINKS], *right[LINKS];
    int i, fds[2];

    for (i = 0; i < LINKS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        CHECK_INT(qnet_from_fd(fds[0], &left[i]), QNET_OK);
        CHECK_INT(qnet_from_fd(fds[1], &right[i]), QNET_OK);
    }
    for (i = 0; i < LINKS; i++)
        CHECK_INT(qnet_link(right[i], left[(i + 1) % LINKS]), QNET_OK);
    CHECK_INT(flow_send(&sent, left[0], 0, 1), 1);
    EVENTUALLY(stats_of(right[0]).rx_frames >= 20);
    CHECK_INT(qnet_unlink(right[0]), QNET_OK);
    take_by_recv(right[0], &expected);
    CHECK_INT(flow_send(&sent, left[1], 1, 5), 5);
    for (i = 0; i < 5; i++)
        take_by_recv(right[0], &expected);
    for (i = 0; i < LINKS; i++) {
        CHECK_INT(qnet_close(left[i]), QNET_OK);
        CHECK_INT(qnet_close(right[i]), QNET_OK);
    }
    footprint_again(before);
}

/* However many there are, few threads serve them, and none is left after them. */
static void many_links_need_few_threads(void)
{
    enum { CABLES = 200 };
    static struct cable cables[CABLES];
    struct flow sent = flow_of_small_frames(), there = sent, back = sent;
    struct footprint before;
    int i;

    allow_descriptors(4 * CABLES + 100);
    before = footprint_now();
    for (i = 0; i < CABLES; i++)
        cables[i] = cable_plugged();
    for (i = 0; i < CABLES; i++) {
        sent.next = 0;
        raw_send_flow(cables[i].fa, &sent, 20, 0);
        sent.next = 0;
        raw_send_flow(cables[i].fb, &sent, 20, 0);
    }
    CHECK(footprint_now().threads >= 1);
    CHECK(footprint_now().threads <= MOST_LOOPS);
    for (i = 0; i < CABLES; i++) {
        there.next = back.next = 0;
        raw_take_until(cables[i].fb, &there, 20);
        raw_take_until(cables[i].fa, &back, 20);
    }
    CHECK(footprint_now().threads <= MOST_LOOPS);
    for (i = 0; i < CABLES; i += 2)
        CHECK_INT(qnet_unlink(i % 4 ? cables[i].a : cables[i].b), QNET_OK);
    for (i = 0; i < CABLES; i++)
        cable_close(&cables[i]);
    footprint_again(before);
}

/* An unlinked connection needs no thread, and the next link starts one again. */
static void no_thread_without_a_link(void)
{
    struct cable cable = cable_unplugged();
    struct footprint before = footprint_now();
    int i;

    CHECK_INT(footprint_now().threads, 0);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        passes(cable.fa, cable.fb);
        CHECK_INT(footprint_now().threads, 1);
        CHECK_INT(qnet_unlink(cable.a), QNET_OK);
        footprint_again(before);
    }
    cable_close(&cable);
}

int main(void)
{
    RUN_EACH(both_ways);
    RUN(byte_by_byte);
    RUN(many_short_frames);
    RUN(early_frames_in_the_socket);
    RUN(early_frames_in_the_library);
    RUN(early_frames_and_the_end);
    RUN(a_loan_ends_with_the_link);
    RUN(slow_side_holds_back_the_fast_one);
    RUN(both_sides_are_slow);
    RUN(tiny_buffers);
    RUN(usable_after_unlink);
    RUN(half_a_frame_survives_unlink);
    RUN(nothing_is_lost_at_unlink);
    RUN(sends_after_unlink_come_behind);
    RUN(unlinked_and_linked_again);
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
    RUN(no_other_way_to_receive);
    RUN(waiting_calls_are_told_of_a_link);
    RUN(handled_and_attached_are_not_linked);
    RUN(ended_connections_are_not_linked);
    RUN(handles_are_judged);
    RUN(stale_handles_that_are_the_same);
    RUN(sends_go_to_the_own_peer);
    RUN(corked_sends_go_to_the_own_peer);
    RUN(runts_are_skipped);
    RUN(runts_between_frames);
    RUN(long_frames_are_dropped);
    RUN(forwarded_frames_are_padded);
    RUN(linked_and_unlinked_inside_a_handler);
    RUN(ended_inside_a_handler);
    RUN(a_handler_gives_way_to_a_link);
    RUN(a_batch_handler_gives_way_to_a_link);
    RUN(a_handler_comes_back_from_a_link);
    RUN(handlers_and_links_take_turns);
    RUN(several_threads_link_and_unlink);
    RUN(several_threads_end_links);
    RUN(a_chain);
    RUN(a_ring);
    RUN(many_links_need_few_threads);
    RUN(no_thread_without_a_link);
    return check_done();
}
