/*
 * link.c - two connections cabled together: what one receives the other sends,
 * whole, in order and without a loss, however slow a side is and whatever came
 * before; and after they are unlinked both go on.
 */
#include "cable.h"

static const size_t middle_frame = 1514;

/* ---- Forwarding ---- */

/* All sizes go through in both directions at once, between two connections of every kind. */
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

/* Many frames that come faster than they are read all go through. */
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

/*
 * A receive may have read more than it gave, half a frame at its end: all of that goes
 * over the link.
 */
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

/* Frames that a batch has lent are not sent on; those after them are. */
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

/* The socket may take only a few bytes of a frame at a time. */
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

/* The beginning of a frame that a link has read is not lost, whenever the rest comes. */
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

/* All that was taken from one side is written to the other; the rest can be received from the first. */
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

/*
 * Unlinked and linked over and over in the middle of traffic, and received from in
 * between: no frame is lost.
 */
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

/* Runts and frames come in one piece, and only the frames go through. */
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

/* ---- Many links ---- */

enum { LINKS = 8 };

static void *writing_and_leaving(void *argument)
{
    struct raw_job *job = argument;

    raw_writing(job);
    CHECK(shutdown(job->fd, SHUT_WR) == 0);
    return NULL;
}

/* Through many links one after another all frames come in order, and then the end. */
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

/* Frames go round a ring, whole and in order, until it is opened. (The library refuses a ring of pairs
   that it made; of these sockets it does not know that they are pairs.) */
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

/* A few threads serve any number of links, and none is left when they are closed. */
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
    RUN(runts_are_skipped);
    RUN(runts_between_frames);
    RUN(long_frames_are_dropped);
    RUN(forwarded_frames_are_padded);
    RUN(a_chain);
    RUN(a_ring);
    RUN(many_links_need_few_threads);
    RUN(no_thread_without_a_link);
    return check_done();
}
