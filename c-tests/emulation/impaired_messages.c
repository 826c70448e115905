/*
 * impaired_messages.c - what an impairment and a pulled cable do where each frame is a message: UDP,
 * Unix datagrams and SEQPACKET, linked to a stream. No message is torn or joined to another.
 */
#include "dgrams.h"
#include "impairing.h"

enum { SOME = 21 };

/* A connection of messages that is linked to one over a stream, and the far ends of both. */
struct bench {
    struct far far;
    qnet_conn *conn, *side;
    int fd;
};

static void bench_open(struct bench *bench)
{
    bench->conn = far_open(&bench->far);
    bench->side = raw_pair(&bench->fd);
    CHECK_INT(qnet_set(bench->side, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(bench->conn, bench->side), QNET_OK);
}

static void bench_close(struct bench *bench)
{
    check_counts(bench->conn, QNET_IN);
    check_counts(bench->conn, QNET_OUT);
    far_close(bench->conn, &bench->far);
    CHECK_INT(qnet_close(bench->side), QNET_OK);
    CHECK(close(bench->fd) == 0);
}

/* Sends the next frame of a flow from where it goes in. */
static void say(struct bench *bench, int direction, struct flow *flow)
{
    if (direction == QNET_IN)
        far_send_flow(&bench->far, flow, 1);
    else
        raw_send_flow(bench->fd, flow, 1, 0);
}

/* Receives a frame where it comes out. Returns its length. */
static size_t hear(struct bench *bench, int direction, uint8_t frame[QNET_FRAME_MAX])
{
    long len = direction == QNET_IN ? raw_recv(bench->fd, frame, QNET_FRAME_MAX)
                                    : far_recv(&bench->far, frame, QNET_FRAME_MAX);

    CHECK(len > 0);
    return (size_t)len;
}

/* The next frame to come out is that of a flow. */
static void take(struct bench *bench, int direction, struct flow *flow)
{
    static uint8_t frame[QNET_FRAME_MAX];
    size_t len = hear(bench, direction, frame);

    flow_take(flow, frame, len);
}

static void check_passes(struct bench *bench, int direction)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;

    say(bench, direction, &sent);
    take(bench, direction, &seen);
}

/* Nothing comes that should not; a group's far end hears itself. */
static void check_quiet(const struct bench *bench)
{
    static uint8_t frame[QNET_FRAME_MAX];

    check_silent(bench->fd);
    raw_readable(bench->far.fd, 20);
    CHECK(far_recv_now(&bench->far, frame, sizeof frame) < 0);
}

/* Messages of every length, each of which comes twice or not at all. */
static void lost_and_doubled(void)
{
    struct bench bench;
    int d, i, copy;

    bench_open(&bench);
    impair(bench.conn, QNET_BOTH, "loss every 3 duplicate 100% seed 1");
    for (d = QNET_IN; d <= QNET_OUT; d++) {
        struct flow sent = flow_of_kind(far_now), seen = sent;
        qnet_impair_stats stats;

        for (i = 0; i < SOME; i++) {
            say(&bench, d, &sent);
            for (copy = 0; i % 3 != 2 && copy < 2; copy++) {
                seen.next = (unsigned)i;
                take(&bench, d, &seen);
            }
        }
        EVENTUALLY(check_counts(bench.conn, d).frames == SOME);
        stats = check_counts(bench.conn, d);
        CHECK_INT(stats.lost, SOME / 3);
        CHECK_INT(stats.passed, 2 * (SOME - SOME / 3));
        CHECK_INT(stats.bytes, flow_bytes(&sent, 0, SOME));
    }
    CHECK_INT(stats_of(bench.conn).rx_frames, SOME);
    CHECK_INT(stats_of(bench.conn).tx_frames, 2 * (SOME - SOME / 3));
    check_quiet(&bench);
    bench_close(&bench);
}

/* Many that are due together leave together, each as a message of its own. */
static void late_but_whole(void)
{
    static const char *const texts[] = {
        "delay 20ms", "delay 5ms 5ms distribution normal", "rate 10mbit limit 1000 delay 1ms",
    };
    struct bench bench;
    size_t t;
    int d, i;

    bench_open(&bench);
    for (t = 0; t < sizeof texts / sizeof *texts; t++)
        for (d = QNET_IN; d <= QNET_OUT; d++) {
            struct flow sent = flow_of_small_frames(), seen = sent;

            impair(bench.conn, d, texts[t]);
            for (i = 0; i < SOME; i++)
                say(&bench, d, &sent);
            while (seen.next < SOME)
                take(&bench, d, &seen);
            CHECK_INT(in_flight(bench.conn, d), 0);
            CHECK_INT(check_counts(bench.conn, d).passed, (t + 1) * SOME);
        }
    check_quiet(&bench);
    bench_close(&bench);
}

static void one_bit_differs(void)
{
    static uint8_t frame[QNET_FRAME_MAX], same[QNET_FRAME_MAX];
    struct bench bench;
    int d, i;

    bench_open(&bench);
    impair(bench.conn, QNET_BOTH, "corrupt 100%");
    for (d = QNET_IN; d <= QNET_OUT; d++) {
        struct flow sent = flow_of_kind(far_now);

        for (i = 0; i < SOME; i++) {
            size_t want = flow_size(&sent, sent.next), len, at;
            int bits = 0;

            frame_make(same, want, sent.next);
            say(&bench, d, &sent);
            len = hear(&bench, d, frame);
            CHECK_INT(len, want);
            CHECK(memcmp(frame, same, 12) == 0);
            for (at = 12; at < len; at++)
                bits += __builtin_popcount((unsigned)(frame[at] ^ same[at]));
            CHECK_INT(bits, 1);
        }
        CHECK_INT(check_counts(bench.conn, d).corrupted, SOME);
    }
    bench_close(&bench);
}

/* A pulled cable refuses and drops, discards what is in flight, and has its counts apart. */
static void pulled_and_plugged_in(void)
{
    struct bench bench;
    int d, i, round;

    bench_open(&bench);
    for (round = 1; round <= 2; round++) {
        impair(bench.conn, QNET_BOTH, "delay 1000s");
        for (d = QNET_IN; d <= QNET_OUT; d++) {
            struct flow sent = flow_of_small_frames();

            for (i = 0; i < SOME; i++)
                say(&bench, d, &sent);
            EVENTUALLY(in_flight(bench.conn, d) == SOME);
        }
        CHECK_INT(qnet_set(bench.conn, QNET_OPT_LINK, 0), QNET_OK);
        for (d = QNET_IN; d <= QNET_OUT; d++) {
            struct flow sent = flow_of_small_frames();
            uint64_t frames = check_counts(bench.conn, d).frames;

            EVENTUALLY(check_counts(bench.conn, d).discarded == (uint64_t)round * SOME);
            for (i = 0; i < SOME; i++)
                say(&bench, d, &sent);
            EVENTUALLY((d == QNET_IN ? stats_of(bench.conn).rx_refused
                                     : stats_of(bench.conn).tx_dropped) == (uint64_t)round * SOME);
            CHECK_INT(check_counts(bench.conn, d).frames, frames);
        }
        check_quiet(&bench);
        impair(bench.conn, QNET_BOTH, "");
        CHECK_INT(qnet_set(bench.conn, QNET_OPT_LINK, 1), QNET_OK);
        check_passes(&bench, QNET_IN);
        check_passes(&bench, QNET_OUT);
    }
    bench_close(&bench);
}

/* What the peer sent before it left arrives before the end does. */
static void the_end_comes_last(void)
{
    struct bench bench;
    struct flow sent = flow_of_small_frames(), seen = sent;
    int i;

    bench_open(&bench);
    impair(bench.conn, QNET_IN, "delay 50ms");
    for (i = 0; i < SOME; i++)
        say(&bench, QNET_IN, &sent);
    far_leaves(&bench.far);
    while (seen.next < SOME)
        take(&bench, QNET_IN, &seen);
    raw_take_end(bench.fd);
    CHECK_INT(qnet_wait(bench.conn, patience_ms()), QNET_OK);
    CHECK_INT(check_counts(bench.conn, QNET_IN).passed, SOME);
    CHECK_INT(check_counts(bench.conn, QNET_IN).discarded, 0);
    bench_close(&bench);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(lost_and_doubled, EVERY_KIND);
    RUN_KINDS(late_but_whole, EVERY_KIND);
    RUN_KINDS(one_bit_differs, EVERY_KIND);
    RUN_KINDS(pulled_and_plugged_in, EVERY_KIND);
    RUN_KINDS(the_end_comes_last, SEQUENCED);
    scratch_remove();
    return check_done();
}
