/*
 * impaired_link.c - what each word of an impairment does to the frames of a link, in both
 * directions; changes in the middle of traffic; and a link that holds as much as it may.
 */
#include "../forward/cable.h"
#include "impairing.h"

enum { COUNT = 1000 };

/* A cable of which one direction is impaired: the side where frames go in, and where they come out. */
struct course {
    struct cable cable;
    qnet_conn *conn;
    int direction, from, to;
};

static struct course course_open(int direction, const char *spec)
{
    struct course course;

    course.cable = cable_plugged();
    course.conn = course.cable.a;
    course.direction = direction;
    course.from = direction == QNET_IN ? course.cable.fa : course.cable.fb;
    course.to = direction == QNET_IN ? course.cable.fb : course.cable.fa;
    impair(course.conn, direction, spec);
    return course;
}

static void course_close(const struct course *course)
{
    check_counts(course->conn, course->direction);
    cable_close(&course->cable);
}

static int direction_now;

static void run_directions(const char *name, void (*test)(void))
{
    for (direction_now = QNET_IN; direction_now <= QNET_OUT; direction_now++)
        run_with(name, direction_now == QNET_IN ? "in" : "out", test);
}
#define RUN_DIRECTIONS(test) run_directions(#test, test)

/* The number of the next frame that comes out, which is whole. */
static unsigned hear(int fd)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long len = raw_recv(fd, frame, sizeof frame);

    CHECK(len > 0);
    return frame_number(frame, (size_t)len);
}

/* ---- Words ---- */

static void every_nth_is_lost(void)
{
    struct course course = course_open(direction_now, "loss every 3");
    struct flow flow = flow_of_small_frames();
    qnet_impair_stats stats;
    unsigned i;

    raw_send_flow(course.from, &flow, COUNT, 0);
    for (i = 0; i < COUNT; i++)
        if (i % 3 != 2)
            CHECK_INT(hear(course.to), i);
    check_silent(course.to);
    stats = check_counts(course.conn, course.direction);
    CHECK_INT(stats.frames, COUNT);
    CHECK_INT(stats.lost, COUNT / 3);
    CHECK_INT(stats.passed, COUNT - COUNT / 3);
    CHECK(stats.bytes > stats.passed_bytes && stats.passed_bytes > 0);
    course_close(&course);
}

static void frames_of_a_list_are_lost(void)
{
    struct course course = course_open(direction_now, "loss frames 1,3-5,10");
    struct flow flow = flow_of_small_frames();
    unsigned i;

    raw_send_flow(course.from, &flow, COUNT, 0);
    for (i = 1; i <= COUNT; i++)
        if (i != 1 && !(i >= 3 && i <= 5) && i != 10)
            CHECK_INT(hear(course.to), i - 1);
    check_silent(course.to);
    CHECK_INT(check_counts(course.conn, course.direction).lost, 5);
    course_close(&course);
}

/* The same seed gives the same result, and another one another. */
static void seeds_decide(void)
{
    unsigned heard[3][COUNT], counts[3], i;
    static const char *const texts[] = { "loss 20% seed 5", "loss 20% seed 5", "loss 20% seed 6" };

    for (i = 0; i < 3; i++) {
        struct course course = course_open(direction_now, texts[i]);
        struct flow flow = flow_of_one_size(&short_frame);
        unsigned n;

        raw_send_flow(course.from, &flow, COUNT, 0);
        EVENTUALLY(check_counts(course.conn, direction_now).frames == COUNT);
        counts[i] = (unsigned)check_counts(course.conn, direction_now).passed;
        for (n = 0; n < counts[i]; n++)
            heard[i][n] = hear(course.to);
        check_silent(course.to);
        course_close(&course);
    }
    CHECK(counts[0] > COUNT / 2 && counts[0] < COUNT);
    CHECK_INT(counts[0], counts[1]);
    CHECK(memcmp(heard[0], heard[1], counts[0] * sizeof heard[0][0]) == 0);
    CHECK(counts[0] != counts[2] ||
          memcmp(heard[0], heard[2], counts[0] * sizeof heard[0][0]) != 0);
}

static void all_are_doubled(void)
{
    struct course course = course_open(direction_now, "duplicate 100%");
    struct flow flow = flow_of_small_frames();
    qnet_impair_stats stats;
    unsigned i;

    raw_send_flow(course.from, &flow, COUNT, 0);
    for (i = 0; i < 2 * COUNT; i++)
        CHECK_INT(hear(course.to), i / 2);
    check_silent(course.to);
    stats = check_counts(course.conn, course.direction);
    CHECK_INT(stats.duplicated, COUNT);
    CHECK_INT(stats.passed, 2 * COUNT);
    CHECK_INT(stats.passed_bytes, 2 * stats.bytes);
    course_close(&course);
}

static void all_are_corrupted(void)
{
    struct course course = course_open(direction_now, "corrupt 100%");
    struct flow flow = flow_of_small_frames();
    uint8_t frame[2000], sent[2000];
    unsigned i;

    raw_send_flow(course.from, &flow, COUNT, 0);
    for (i = 0; i < COUNT; i++) {
        size_t len = flow_size(&flow, i), at;
        int bits = 0;

        frame_make(sent, len, i);
        CHECK_INT(raw_recv(course.to, frame, sizeof frame), len);
        CHECK(memcmp(frame, sent, 12) == 0);
        for (at = 12; at < len; at++)
            bits += __builtin_popcount((unsigned)(frame[at] ^ sent[at]));
        CHECK_INT(bits, 1);
    }
    CHECK_INT(check_counts(course.conn, course.direction).corrupted, COUNT);
    course_close(&course);
}

/* Frames stay in order behind any delay, but where they may overtake. */
static void delayed_frames_keep_their_order(void)
{
    static const char *const texts[] = { "delay 20ms", "delay 5ms 5ms distribution normal" };
    size_t i;

    for (i = 0; i < 2; i++) {
        struct course course = course_open(direction_now, texts[i]);
        struct flow sent = flow_of_all_sizes(), received = sent;
        struct raw_job writer;

        CHECK_INT(qnet_set(course.cable.a, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
        CHECK_INT(qnet_set(course.cable.b, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
        raw_start(&writer, raw_writing, course.from, sent, COUNT);
        raw_take_until(course.to, &received, COUNT);
        join_thread(writer.thread);
        CHECK_INT(check_counts(course.conn, course.direction).passed, COUNT);
        CHECK_INT(check_counts(course.conn, course.direction).reordered, 0);
        course_close(&course);
    }
}

static void frames_overtake_where_they_may(void)
{
    struct course course = course_open(direction_now, "delay 10ms 10ms reorder seed 1");
    struct flow flow = flow_of_one_size(&short_frame);
    static char came[COUNT];
    unsigned i, last = 0, early = 0;

    memset(came, 0, sizeof came);
    raw_send_flow(course.from, &flow, COUNT, 0);
    for (i = 0; i < COUNT; i++) {
        unsigned number = hear(course.to);

        CHECK(number < COUNT && !came[number]++);
        early += number < last;
        last = number > last ? number : last;
    }
    CHECK(early > COUNT / 10);
    CHECK_INT(check_counts(course.conn, course.direction).reordered, early);
    course_close(&course);
}

/* What is not sent within a time at a rate is counted, not what the clock says. */
static void a_rate_sends_one_after_another(void)
{
    /* A frame takes 1 s: the first is being sent, 10 wait, and the others are dropped. */
    struct course course = course_open(direction_now, "rate 480bit limit 10");
    struct flow flow = flow_of_one_size(&short_frame);
    qnet_impair_stats stats;

    raw_send_flow(course.from, &flow, COUNT, 0);
    EVENTUALLY(check_counts(course.conn, course.direction).frames == COUNT);
    stats = check_counts(course.conn, course.direction);
    CHECK_INT(stats.dropped, COUNT - 11 - stats.passed);
    /* The new rate is for what waits, and what is being sent ends by the old one. */
    impair(course.conn, course.direction, "rate 1gbit");
    flow.next = 0;
    raw_take_until(course.to, &flow, 11);
    check_silent(course.to);
    CHECK_INT(check_counts(course.conn, course.direction).passed, 11);
    course_close(&course);
}

/* The others pass at once, ahead of those that are delayed. */
static void what_does_not_match_passes(void)
{
    /* Frames of 60 bytes match. */
    struct course course =
        course_open(direction_now, "delay 100ms match 4,128 0 0 0,21 0 1 60,6 0 0 1,6 0 0 0");
    static const size_t sizes[] = { 60, 61 };
    struct flow flow = { sizes, 2, 0 };
    unsigned i;

    raw_send_flow(course.from, &flow, 20, 0);
    for (i = 1; i < 20; i += 2)
        CHECK_INT(hear(course.to), i);
    for (i = 0; i < 20; i += 2)
        CHECK_INT(hear(course.to), i);
    CHECK_INT(check_counts(course.conn, course.direction).bypassed, 10);
    course_close(&course);
}

static void both_sides_add_up(void)
{
    struct course course = course_open(QNET_IN, "loss every 2");
    struct flow flow = flow_of_one_size(&short_frame);
    unsigned i;

    impair(course.cable.b, QNET_OUT, "loss every 3 delay 1ms");
    raw_send_flow(course.from, &flow, 60, 0);
    for (i = 0; i < 60; i += 2)
        if (i / 2 % 3 != 2)
            CHECK_INT(hear(course.to), i);
    check_silent(course.to);
    CHECK_INT(check_counts(course.cable.b, QNET_OUT).frames, 30);
    CHECK_INT(stats_of(course.cable.a).rx_frames, 60);
    CHECK_INT(stats_of(course.cable.b).tx_frames, 20);
    course_close(&course);
}

static void runts_are_skipped(void)
{
    static const char *const texts[] = { "delay 1ms", "loss 0%", "delay 1ms duplicate 0%" };
    size_t i;

    for (i = 0; i < 3; i++) {
        struct course course = course_open(direction_now, texts[i]);
        struct flow flow = flow_of_one_size(&short_frame), received = flow;
        struct bundle bundle = bundle_make(&flow, 2);
        uint8_t wire[3 * (4 + 13) + 4 * 64];
        size_t len = 0, n;

        memset(wire, 0, sizeof wire);
        for (n = 0; n < 2; n++) {
            raw_put_length(wire + len, 13);
            memcpy(wire + len + 17, bundle.wire + n * 64, 64);
            len += 17 + 64;
        }
        raw_write(course.from, wire, len);
        raw_take_until(course.to, &received, 2);
        CHECK_INT(check_counts(course.conn, course.direction).frames, 2);
        bundle_free(&bundle);
        course_close(&course);
    }
}

/* ---- Changes ---- */

static const char *const changing[] = {
    "delay 3ms", "delay 1ms", "rate 200mbit limit 1000000", "delay 2ms 1ms", "",
    "rate 50mbit delay 1ms limit 1000000", "loss 0%", "delay 500us corrupt 0%",
};

/* However the texts change while frames are in flight, none is lost and none overtakes. */
static void texts_change_in_flight(void)
{
    unsigned count = 1000 + (unsigned)rounds(100000), change = 0;
    struct course course = course_open(direction_now, changing[0]);
    struct flow flow = flow_of_one_size(&short_frame);
    struct raw_job writer, reader;

    raw_start(&writer, raw_writing, course.from, flow, count);
    raw_start(&reader, raw_reading, course.to, flow, count);
    while (stats_of(direction_now == QNET_IN ? course.cable.b : course.cable.a).tx_frames < count) {
        impair(course.conn, course.direction, changing[++change % 8]);
        check_counts(course.conn, course.direction);
        raw_sleep_ms(1);
    }
    join_thread(writer.thread);
    join_thread(reader.thread);
    CHECK_INT(in_flight(course.conn, course.direction), 0);
    CHECK_INT(check_counts(course.conn, course.direction).discarded, 0);
    course_close(&course);
}

static void many_frames_fly_at_once(void)
{
    unsigned count = 1000 + (unsigned)rounds(100000);
    struct course course = course_open(direction_now, "delay 1000s");
    struct flow flow = flow_of_one_size(&short_frame);

    raw_send_flow(course.from, &flow, count, 0);
    EVENTUALLY(in_flight(course.conn, course.direction) == count);
    CHECK_INT(check_counts(course.conn, course.direction).held_bytes, 60 * (uint64_t)count);
    check_silent(course.to);
    /* What is in flight keeps its time. */
    impair(course.conn, course.direction, "delay 1ms");
    check_silent(course.to);
    CHECK_INT(in_flight(course.conn, course.direction), count);
    CHECK_INT(qnet_unlink(course.conn), QNET_OK);
    CHECK_INT(check_counts(course.conn, course.direction).discarded, count);
    CHECK_INT(in_flight(course.conn, course.direction), 0);
    CHECK_INT(qnet_link(course.cable.a, course.cable.b), QNET_OK);
    passes(course.from, course.to);
    course_close(&course);
}

/* Removing an impairment sends what waits. */
static void removing_sends_what_waits(void)
{
    struct course course = course_open(direction_now, "rate 480bit limit 2000");
    struct flow flow = flow_of_one_size(&short_frame), received = flow;

    raw_send_flow(course.from, &flow, 100, 0);
    EVENTUALLY(check_counts(course.conn, course.direction).frames == 100);
    impair(course.conn, course.direction, "");
    raw_take_until(course.to, &received, 100);
    check_text(course.conn, course.direction, "");
    passes(course.from, course.to);
    course_close(&course);
}

/* ---- As much as it may hold ---- */

/* A link loses nothing: when the direction is full, nothing more is read. */
static void a_full_flight_holds_back(void)
{
    struct course course = course_open(direction_now, "delay 1000s");
    struct flow flow = flow_of_one_size(&long_frame), expected = flow;
    struct raw_job writer;
    qnet_impair_stats stats;

    CHECK_INT(qnet_set(course.conn, QNET_OPT_FLIGHT_BYTES, 131072), QNET_OK);
    raw_start(&writer, raw_writing, course.from, flow, MANY);
    EVENTUALLY(raw_is_held(course.from));
    stats = check_counts(course.conn, course.direction);
    /* One read more than that may be taken in. */
    CHECK(stats.held_bytes >= 131072 && stats.held_bytes <= 3 * 131072);
    CHECK_INT(stats.flying, stats.frames);
    /* At a rate it goes on, and everything comes. */
    CHECK_INT(qnet_unlink(course.conn), QNET_OK);
    expected.next = (unsigned)stats.frames;
    impair(course.conn, course.direction, "rate 10gbit limit 1000000");
    CHECK_INT(qnet_link(course.cable.a, course.cable.b), QNET_OK);
    raw_take_until(course.to, &expected, MANY);
    join_thread(writer.thread);
    stats = check_counts(course.conn, course.direction);
    CHECK_INT(stats.discarded + stats.passed, MANY);
    CHECK_INT(stats.dropped, 0);
    course_close(&course);
}

/* What is due and finds the socket full waits, and none is lost. */
static void a_slow_reader_loses_nothing(void)
{
    static const char *const texts[] = { "delay 1ms", "rate 10gbit limit 1000000", "loss 0%" };
    size_t i;

    for (i = 0; i < 3; i++) {
        struct course course = course_open(direction_now, texts[i]);
        struct flow flow = flow_of_one_size(&long_frame), expected = flow;
        struct raw_job writer;

        CHECK_INT(qnet_set(course.conn, QNET_OPT_FLIGHT_BYTES, 131072), QNET_OK);
        raw_start(&writer, raw_writing, course.from, flow, MANY);
        EVENTUALLY(raw_is_held(course.from));
        raw_take_until(course.to, &expected, MANY);
        join_thread(writer.thread);
        CHECK_INT(check_counts(course.conn, course.direction).passed, MANY);
        course_close(&course);
    }
}

int main(void)
{
    RUN_DIRECTIONS(every_nth_is_lost);
    RUN_DIRECTIONS(frames_of_a_list_are_lost);
    RUN_DIRECTIONS(seeds_decide);
    RUN_DIRECTIONS(all_are_doubled);
    RUN_DIRECTIONS(all_are_corrupted);
    RUN_DIRECTIONS(delayed_frames_keep_their_order);
    RUN_DIRECTIONS(frames_overtake_where_they_may);
    RUN_DIRECTIONS(a_rate_sends_one_after_another);
    RUN_DIRECTIONS(what_does_not_match_passes);
    RUN(both_sides_add_up);
    RUN_DIRECTIONS(runts_are_skipped);
    RUN_DIRECTIONS(texts_change_in_flight);
    RUN_DIRECTIONS(many_frames_fly_at_once);
    RUN_DIRECTIONS(removing_sends_what_waits);
    RUN_DIRECTIONS(a_full_flight_holds_back);
    RUN_DIRECTIONS(a_slow_reader_loses_nothing);
    return check_done();
}
