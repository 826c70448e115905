/*
 * statistics.c - what a million frames on a clock that the program moves make of words that leave
 * something to chance, compared with the theory; and rates, to the nanosecond. Seeds are fixed, so
 * that the outcome is the same each time.
 */
#include <math.h>

#include "../forward/clocks.h"
#include "macs.h"

enum { MILLION = 1000000, TIMED = 100000, CHUNK = 1000, LEN = 60, WIRE = RAW_PREFIX + LEN };

/* A link on a clock that is impaired where frames come in, and what is done with those that arrive. */
struct course {
    qnet_clock *clock;
    struct cable cable;
    uint8_t wire[CHUNK * WIRE];
    unsigned sent, arrived;
    void (*each)(struct course *course, unsigned number, const uint8_t *frame);
    uint8_t *came;   /* of losses: whether each frame did */
    double *delays;  /* of times: how long each frame took, in units of the jitter */
    unsigned *hits;  /* of bits: how often each was flipped */
};

static void course_open(struct course *course, const char *spec)
{
    int i;

    memset(course, 0, sizeof *course);
    course->clock = clock_open();
    course->cable = cable_on(course->clock);
    CHECK_INT(qnet_set(course->cable.b, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    impair(course->cable.a, QNET_IN, spec);
    for (i = 0; i < CHUNK; i++) {
        raw_put_length(course->wire + i * WIRE, LEN);
        raw_fill(course->wire + i * WIRE + RAW_PREFIX + 4, LEN - 4, 0);
    }
}

static void course_close(struct course *course)
{
    check_counts(course->cable.a, QNET_IN);
    cable_close(&course->cable);
    clock_close(course->clock);
    free(course->came);
    free(course->delays);
    free(course->hits);
}

/* Sends so many frames. The first four bytes of each are its number. */
static void course_send(struct course *course, unsigned count)
{
    unsigned i;

    for (i = 0; i < count; i++)
        raw_put_length(course->wire + i * WIRE + RAW_PREFIX, course->sent++);
    raw_write(course->cable.fa, course->wire, (size_t)count * WIRE);
}

/* Takes in all that has arrived. */
static void course_hear(struct course *course)
{
    static uint8_t wire[CHUNK * WIRE];
    size_t len, at;

    while (bytes_waiting(course->cable.fb) > 0) {
        len = (size_t)bytes_waiting(course->cable.fb);
        len = len < sizeof wire ? len / WIRE * WIRE : sizeof wire;
        CHECK_INT(raw_read(course->cable.fb, wire, len), 0);
        for (at = 0; at < len; at += WIRE) {
            CHECK_INT(get_number(wire + at), LEN);
            course->arrived++;
            if (course->each)
                course->each(course, get_number(wire + at + RAW_PREFIX), wire + at + RAW_PREFIX);
        }
    }
}

/* Moves the clock; where the socket is full meanwhile, what has arrived makes room. */
static void course_advance(struct course *course, int64_t to)
{
    int result;

    while ((result = qnet_clock_advance(course->clock, to)) == QNET_ERR_AGAIN)
        course_hear(course);
    CHECK(result >= 0);
    course_hear(course);
}

static void course_run(struct course *course, unsigned count)
{
    int64_t now = now_of(course->clock);

    while (course->sent < count) {
        course_send(course, CHUNK);
        course_advance(course, now);
    }
}

static void check_near(double value, double expected, double most)
{
    if (fabs(value - expected) > most)
        fprintf(stderr, "%f instead of %f\n", value, expected);
    CHECK(fabs(value - expected) <= most);
}

/* ---- Loss ---- */

static void note(struct course *course, unsigned number, const uint8_t *frame)
{
    CHECK(number < MILLION && !course->came[number]);
    CHECK(raw_is(frame + 4, LEN - 4, 0));
    course->came[number] = 1;
}

/* How many frames are lost of a hundred, and in a row; each may differ by `most` and `most_run`. */
static void check_loss(const char *spec, double percent, double most, double run, double most_run)
{
    static struct course course;
    qnet_impair_stats stats;
    unsigned lost = 0, runs = 0, i;

    course_open(&course, spec);
    course.each = note;
    course.came = calloc(MILLION, 1);
    CHECK(course.came != NULL);
    course_run(&course, MILLION);
    for (i = 0; i < MILLION; i++) {
        lost += !course.came[i];
        runs += !course.came[i] && (i == 0 || course.came[i - 1]);
    }
    stats = check_counts(course.cable.a, QNET_IN);
    CHECK_INT(stats.frames, MILLION);
    CHECK_INT(stats.lost, lost);
    CHECK_INT(stats.passed, course.arrived);
    CHECK_INT(stats.passed_bytes, (uint64_t)LEN * course.arrived);
    check_near(lost / (MILLION / 100.0), percent, most);
    if (run > 0)
        check_near((double)lost / runs, run, most_run);
    course_close(&course);
}

static void at_random(void)
{
    check_loss("loss 0% seed 1", 0, 0, 0, 0);
    check_loss("loss 100% seed 1", 100, 0, 0, 0);
    check_loss("loss 1% seed 1", 1, 0.0398, 0, 0);
    check_loss("loss 10% 50% seed 1", 10, 0.21, 2.222, 0.02 * 2.222);
}

static void by_models(void)
{
    check_loss("loss gemodel 1% 25% seed 1", 3.846, 0.21, 4, 0.04 * 4);
    check_loss("loss gemodel 1% 10% 70% 0.1% seed 1", 6.455, 0.33, 0, 0);
    check_loss("loss state 2% 20% 10% 30% 1% seed 1", 9.62, 0.25, 0, 0);
}

/* ---- Bits ---- */

static void note_bit(struct course *course, unsigned number, const uint8_t *frame)
{
    const uint8_t *sent = course->wire + number % CHUNK * WIRE + RAW_PREFIX;
    int flipped = 0, at;

    CHECK(memcmp(frame, sent, 12) == 0);
    for (at = 12; at < LEN; at++)
        if (frame[at] != sent[at]) {
            flipped += __builtin_popcount((unsigned)(frame[at] ^ sent[at]));
            course->hits[8 * (at - 12) + __builtin_ctz((unsigned)(frame[at] ^ sent[at]))]++;
        }
    CHECK_INT(flipped, 1);
}

/* One bit of each frame, none in the addresses, and all others alike. */
static void one_bit_each(void)
{
    enum { BITS = 8 * (LEN - 12) };
    static struct course course;
    double mean = (double)MILLION / BITS, chi_square = 0;
    int i;

    course_open(&course, "corrupt 100% seed 1");
    course.each = note_bit;
    course.hits = calloc(BITS, sizeof *course.hits);
    CHECK(course.hits != NULL);
    course_run(&course, MILLION);
    CHECK_INT(course.arrived, MILLION);
    CHECK_INT(check_counts(course.cable.a, QNET_IN).corrupted, MILLION);
    for (i = 0; i < BITS; i++)
        chi_square += (course.hits[i] - mean) * (course.hits[i] - mean) / mean;
    /* Within four standard deviations. */
    check_near(chi_square, BITS - 1, 4 * sqrt(2 * (BITS - 1)));
    course_close(&course);
}

/* ---- Jitter ---- */

static const double jitter_ns = 1048576000, delay_ns = 1e10;

static void note_delay(struct course *course, unsigned number, const uint8_t *frame)
{
    (void)frame;
    course->delays[number] = ((double)now_of(course->clock) - delay_ns) / jitter_ns;
}

/* How long each of many frames takes, all of which come at one time and may overtake. */
static void course_time(struct course *course, const char *words)
{
    char spec[200];
    int64_t next;

    snprintf(spec, sizeof spec, "delay 10s 1048576us %s reorder seed 1", words);
    course_open(course, spec);
    course->each = note_delay;
    course->delays = allocate(TIMED * sizeof *course->delays);
    course_run(course, TIMED);
    CHECK_INT(in_flight(course->cable.a, QNET_IN), TIMED);
    while ((next = next_of(course->clock)) != INT64_MAX)
        course_advance(course, next);
    CHECK_INT(course->arrived, TIMED);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Checks how values are spread, by the test of Kolmogorov and Smirnov. */
static void check_spread(double *values, int count, double (*expected)(double value))
{
    double largest = 0;
    int i;

    qsort(values, (size_t)count, sizeof *values, compare);
    for (i = 0; i < count; i++) {
        double at = expected(values[i]);

        largest = fmax(largest, fmax(fabs(at - (double)i / count), fabs(at - (i + 1.0) / count)));
    }
    if (largest >= 1.95 / sqrt(count))
        fprintf(stderr, "a distance of %f\n", largest);
    CHECK(largest < 1.95 / sqrt(count));
}

static double uniform(double x)
{
    return (x + 1) / 2;
}

static double normal(double x)
{
    return 0.5 * erfc(-x * sqrt(0.5));
}

static double pareto(double x)
{
    return 1 - pow(0.75 * x + 1.5, -3);
}

/* The same among those below the end, at which many are that were cut. */
static double pareto_below(double x)
{
    return pareto(x) / pareto(4);
}

/* Of a quarter of one and three of the other, at each probability. */
static double mixed(double x)
{
    double low = -4, high = 4;
    int i;

    for (i = 0; i < 40; i++) {
        double z = (low + high) / 2;
        double other = fmin(4, 4.0 / 3 * (pow(0.5 * erfc(z * sqrt(0.5)), -1.0 / 3) - 1.5));

        if (0.25 * z + 0.75 * other < x)
            low = z;
        else
            high = z;
    }
    return normal(low);
}

static void spread(void)
{
    static const struct {
        const char *words;
        double (*expected)(double value);
        double end;
    } kinds[] = {
        { "", uniform, 9 },
        { "distribution normal", normal, 9 },
        { "distribution pareto", pareto_below, 4 },
        { "distribution paretonormal", mixed, 9 },
    };
    static struct course course;
    size_t i;

    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int count = 0, n;

        course_time(&course, kinds[i].words);
        /* A delay is cut to whole nanoseconds. */
        for (n = 0; n < TIMED; n++)
            if (course.delays[n] < kinds[i].end - 1e-8)
                course.delays[count++] = course.delays[n];
        if (kinds[i].end < 9)
            check_near((double)count / TIMED, pareto(4), 0.002);
        check_spread(course.delays, count, kinds[i].expected);
        course_close(&course);
    }
}

static void correlated(void)
{
    static struct course course;
    double mean = 0, square = 0, pairs = 0;
    int i;

    course_time(&course, "25%");
    for (i = 0; i < TIMED; i++)
        mean += course.delays[i] / TIMED;
    for (i = 0; i < TIMED; i++) {
        square += (course.delays[i] - mean) * (course.delays[i] - mean);
        if (i > 0)
            pairs += (course.delays[i] - mean) * (course.delays[i - 1] - mean);
    }
    check_near(pairs / square, 0.25, 0.01);
    course_close(&course);
}

/* ---- Rates ---- */

/* When so many frames are sent that come at one time, on Ethernet's wire, in whole ns. */
static int64_t end_of(int64_t begin, unsigned frames, double rate)
{
    unsigned long long bits = 8ull * (LEN + 24) * frames, per_second = (unsigned long long)rate;
    unsigned long long whole = bits / per_second, rest = bits % per_second;

    /* The rest is less than a second's, of which 10^9 times as much has room where the rate is low. */
    if (per_second > 1000000000)
        return begin + (int64_t)((bits + per_second / 1000000000 - 1) / (per_second / 1000000000));
    return begin + (int64_t)(whole * 1000000000 + (rest * 1000000000 + per_second - 1) / per_second);
}

/* The last of many frames leaves at the nanosecond that the rate says, and the one before it too. */
static void to_the_nanosecond(void)
{
    static const struct {
        const char *text;
        double rate;
    } rates[] = {
        { "56kbit", 56e3 }, { "1mbit", 1e6 }, { "33333333bit", 33333333 }, { "1gbit", 1e9 },
        { "10gbit", 1e10 }, { "100gbit", 1e11 },
    };
    static struct course course;
    char spec[100];
    size_t i;

    for (i = 0; i < sizeof rates / sizeof *rates; i++) {
        int64_t end = end_of(7, TIMED, rates[i].rate);

        snprintf(spec, sizeof spec, "rate %s 24 limit %d", rates[i].text, TIMED);
        course_open(&course, spec);
        course_advance(&course, 7);
        course_run(&course, TIMED);
        CHECK_INT(check_counts(course.cable.a, QNET_IN).dropped, 0);
        course_advance(&course, end_of(7, TIMED / 2, rates[i].rate) - 1);
        CHECK_INT(course.arrived, TIMED / 2 - 1);
        course_advance(&course, end - 1);
        CHECK_INT(course.arrived, TIMED - 1);
        CHECK_INT(next_of(course.clock), end);
        course_advance(&course, end);
        CHECK_INT(course.arrived, TIMED);
        course_close(&course);
    }
}

int main(void)
{
    RUN(at_random);
    RUN(by_models);
    RUN(one_bit_each);
    RUN(spread);
    RUN(correlated);
    RUN(to_the_nanosecond);
    return check_done();
}
