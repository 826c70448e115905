/*
 * on_time.c - the system's clock: no frame leaves before its time, and none much later than a
 * thread of the test that does nothing but sleep until such times and write then. How late that is
 * depends on what else the machine does, so it is measured in the same seconds.
 */
#include <sys/prctl.h>

#include "../forward/cable.h"
#include "impairing.h"

static void sleep_until(int64_t ns)
{
    struct timespec time;

    time.tv_sec = ns / 1000000000;
    time.tv_nsec = ns % 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

/* One frame after another. */
static void check_delay(const char *spec, int64_t delay_ns, int direction)
{
    struct cable cable = cable_plugged();
    int from = direction == QNET_IN ? cable.fa : cable.fb;
    int to = direction == QNET_IN ? cable.fb : cable.fa;
    struct flow sent = flow_of_one_size(&short_frame), received = sent;
    int i;

    impair(cable.a, direction, spec);
    for (i = 0; i < rounds(40); i++) {
        int64_t begun = now_ns();

        raw_send_flow(from, &sent, 1, 0);
        raw_take(to, &received);
        CHECK(now_ns() - begun >= delay_ns);
    }
    cable_close(&cable);
}

static void no_delay_ends_early(void)
{
    int d;

    for (d = QNET_IN; d <= QNET_OUT; d++) {
        check_delay("delay 100us", 100000, d);
        check_delay("delay 1ms", 1000000, d);
        check_delay("delay 1.5ms", 1500000, d);
        check_delay("delay 20ms", 20000000, d);
    }
}

/* ---- Beside a control ---- */

enum { TRAIN = 10000, DELAY_NS = 10000000, LATER_NS = 100000 };

/* A delay takes ten and a half of these: none is sent when another one leaves. */
static const int64_t INTERVAL_NS = DELAY_NS * 2 / 21;

/*
 * Frames that are written to a socket, one each interval, and come out of another. Where they take no
 * time between, they are due when they are to be written, however late that is done.
 */
struct train {
    int in, out, count;
    int64_t begin_ns, takes_ns;
    int64_t due_ns[TRAIN], came_ns[TRAIN];
};

static void *write_in_time(void *argument)
{
    struct train *train = argument;
    struct flow flow = flow_of_one_size(&short_frame);
    int i;

    CHECK(prctl(PR_SET_TIMERSLACK, 1) == 0);
    for (i = 0; i < train->count; i++) {
        int64_t time = train->begin_ns + i * INTERVAL_NS;

        sleep_until(time);
        train->due_ns[i] = train->takes_ns > 0 ? now_ns() + train->takes_ns : time;
        raw_send_flow(train->in, &flow, 1, 0);
    }
    return NULL;
}

static void *note_arrivals(void *argument)
{
    struct train *train = argument;
    struct flow flow = flow_of_one_size(&short_frame);
    int i;

    for (i = 0; i < train->count; i++) {
        raw_take(train->out, &flow);
        train->came_ns[i] = now_ns();
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Checks that no frame came early, and prints how late they came. Returns the median of that. */
static int64_t lateness(const char *what, const struct train *train)
{
    static int64_t late[TRAIN];
    int count = train->count, i;

    for (i = 0; i < count; i++) {
        late[i] = train->came_ns[i] - train->due_ns[i];
        CHECK(late[i] >= 0);
    }
    qsort(late, (size_t)count, sizeof *late, compare);
    printf("%-20s late by %6.1f us in the median, %6.1f in 99 of 100, %6.1f at most\n", what,
           (double)late[count / 2] / 1000, (double)late[count * 99 / 100] / 1000,
           (double)late[count - 1] / 1000);
    return late[count / 2];
}

/*
 * Frames that are delayed leave as soon as those that a thread writes at these times. Beside that one,
 * two threads more have to wake for each of them: the library's, to read it, and the test's. Returns by
 * how much the median is later.
 */
static int64_t train_of_delay(int direction)
{
    static struct train train, control;
    struct cable cable = cable_plugged();
    pthread_t threads[4];
    int64_t late, control_late;
    int pair[2], i;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    impair(cable.a, direction, "delay 10ms");
    train.in = direction == QNET_IN ? cable.fa : cable.fb;
    train.out = direction == QNET_IN ? cable.fb : cable.fa;
    train.count = control.count = rounds(direction == QNET_IN ? TRAIN : TRAIN / 5);
    train.takes_ns = DELAY_NS;
    train.begin_ns = now_ns() + DELAY_NS;
    control.in = pair[0];
    control.out = pair[1];
    control.begin_ns = train.begin_ns + DELAY_NS;
    start_thread(&threads[0], note_arrivals, &train);
    start_thread(&threads[1], note_arrivals, &control);
    start_thread(&threads[2], write_in_time, &train);
    start_thread(&threads[3], write_in_time, &control);
    for (i = 0; i < 4; i++)
        join_thread(threads[i]);
    late = lateness("delay 10ms", &train);
    control_late = lateness("  a thread's writes", &control);
    CHECK(close(pair[0]) == 0 && close(pair[1]) == 0);
    cable_close(&cable);
    return late > control_late ? late - control_late : 0;
}

/*
 * Tries until something takes at most so many nanoseconds too much. Where the machine has no time, that
 * fails for a while; what is wrong fails each time. Programs that are slowed down are not judged.
 */
static void is_in_time(int64_t (*attempt)(int direction), int direction, int64_t most_ns)
{
    enum { ATTEMPTS = 5 };
    int left = ATTEMPTS;

    while (llabs(attempt(direction)) > most_ns && check_slow() == 1)
        CHECK(--left > 0);
}

static void no_delay_in_lasts_longer(void)
{
    is_in_time(train_of_delay, QNET_IN, LATER_NS);
}

static void no_delay_out_lasts_longer(void)
{
    is_in_time(train_of_delay, QNET_OUT, LATER_NS);
}

/* Makes all frames first, so that it does not fall behind the rate. */
static void *write_all(void *argument)
{
    struct raw_job *job = argument;

    raw_send_flow(job->fd, &job->flow, job->count, 0);
    return NULL;
}

/*
 * One second's frames, which are all there soon after its begin. None leaves before all before it were
 * sent. Returns how much longer than a second it takes from the first to the last hundred; a single one may
 * be late, so the least late of a hundred counts.
 */
static int64_t second_of_rate(int direction)
{
    enum { FRAME_NS = 121120, FEW = 100, COUNT = 1000000000 / FRAME_NS + FEW };
    static const size_t ordinary_frame = 1514;
    struct cable cable = cable_plugged();
    int from = direction == QNET_IN ? cable.fa : cable.fb;
    int to = direction == QNET_IN ? cable.fb : cable.fa;
    struct flow received = flow_of_one_size(&ordinary_frame);
    struct raw_job writer;
    int64_t first = INT64_MAX, last = INT64_MAX, begun;
    int i;

    impair(cable.a, direction, "rate 100mbit limit 10000");
    begun = now_ns();
    raw_start(&writer, write_all, from, received, COUNT);
    for (i = 0; i < COUNT; i++) {
        int64_t late;

        raw_take(to, &received);
        late = now_ns() - begun - FRAME_NS * (int64_t)(i + 1);
        CHECK(late >= 0);
        if (i < FEW && late < first)
            first = late;
        if (i >= COUNT - FEW && late < last)
            last = late;
    }
    join_thread(writer.thread);
    cable_close(&cable);
    printf("rate 100mbit: %.1f us longer than a second\n", (double)(last - first) / 1000);
    return last - first;
}

/* Within half a percent. */
static void rate_is_exact(void)
{
    is_in_time(second_of_rate, QNET_IN, 5000000);
    is_in_time(second_of_rate, QNET_OUT, 5000000);
}

/* Both ends of a cable, and both directions of each, add up. */
static void delays_add_up(void)
{
    struct cable cable = cable_plugged();
    struct flow sent = flow_of_one_size(&short_frame), received = sent;
    int i;

    impair(cable.a, QNET_BOTH, "delay 2ms");
    impair(cable.b, QNET_BOTH, "delay 3ms");
    for (i = 0; i < rounds(100); i++) {
        int64_t begun = now_ns();

        raw_send_flow(i % 2 ? cable.fa : cable.fb, &sent, 1, 0);
        raw_take(i % 2 ? cable.fb : cable.fa, &received);
        CHECK(now_ns() - begun >= 5000000);
    }
    cable_close(&cable);
}

/* Nothing spins while frames are in flight. */
static void waiting_takes_no_time(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&short_frame);

    impair(cable.a, QNET_BOTH, "delay 1000s");
    impair(cable.b, QNET_BOTH, "rate 1bit");
    raw_send_flow(cable.fa, &flow, 100, 0);
    raw_send_flow(cable.fb, &flow, 100, 0);
    EVENTUALLY(in_flight(cable.a, QNET_IN) == 100);
    EVENTUALLY(in_flight(cable.b, QNET_IN) == 100);
    is_idle();
    cable_close(&cable);
}

int main(void)
{
    RUN(no_delay_ends_early);
    RUN(no_delay_in_lasts_longer);
    RUN(no_delay_out_lasts_longer);
    RUN(rate_is_exact);
    RUN(delays_add_up);
    RUN(waiting_takes_no_time);
    return check_done();
}
