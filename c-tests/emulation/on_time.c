/*
 * on_time.c - the system's clock: no frame leaves before its time. How late they are is
 * printed, beside how late a thread is that does nothing but sleep until such times, and
 * not asserted: that is the system's to say. Environment: ON_TIME_FRAMES=n.
 */
#include <sys/prctl.h>

#include "../forward/cable.h"
#include "impairing.h"

enum { FRAMES_EACH = 40 };

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_lateness(const char *what, int64_t *late, int count)
{
    qsort(late, (size_t)count, sizeof *late, compare);
    printf("%-28s late by %6.1f us in the median, %6.1f in 9 of 10, %6.1f at most\n", what,
           (double)late[count / 2] / 1000, (double)late[count * 9 / 10] / 1000,
           (double)late[count - 1] / 1000);
}

static void sleep_until(int64_t ns)
{
    struct timespec time;

    time.tv_sec = ns / 1000000000;
    time.tv_nsec = ns % 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

/* One frame after another, and a control between them. */
static void check_delay(const char *spec, int64_t delay_ns, int direction)
{
    int count = rounds(check_number("ON_TIME_FRAMES", FRAMES_EACH)), i;
    int64_t *late = allocate((size_t)count * sizeof *late);
    int64_t *control = allocate((size_t)count * sizeof *control);
    struct cable cable = cable_plugged();
    int from = direction == QNET_IN ? cable.fa : cable.fb;
    int to = direction == QNET_IN ? cable.fb : cable.fa;
    struct flow sent = flow_of_one_size(&short_frame), received = sent;

    CHECK(prctl(PR_SET_TIMERSLACK, 1) == 0);
    impair(cable.a, direction, spec);
    for (i = 0; i < count; i++) {
        int64_t begun = now_ns();

        raw_send_flow(from, &sent, 1, 0);
        raw_take(to, &received);
        late[i] = now_ns() - begun - delay_ns;
        CHECK(late[i] >= 0);
        begun = now_ns();
        sleep_until(begun + delay_ns);
        control[i] = now_ns() - begun - delay_ns;
    }
    print_lateness(spec, late, count);
    print_lateness("  a thread that sleeps", control, count);
    cable_close(&cable);
    free(late);
    free(control);
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

/*
 * A frame of 60 bytes at 4.8 Mbit/s takes 100 us: none leaves before all before it were sent. Here
 * lateness includes how long it took to write them all.
 */
static void no_rate_is_exceeded(void)
{
    enum { COUNT = 2000 };
    int d, i;

    for (d = QNET_IN; d <= QNET_OUT; d++) {
        struct cable cable = cable_plugged();
        int from = d == QNET_IN ? cable.fa : cable.fb, to = d == QNET_IN ? cable.fb : cable.fa;
        struct flow sent = flow_of_one_size(&short_frame), received = sent;
        static int64_t late[COUNT];
        int64_t begun;

        impair(cable.a, d, "rate 4.8mbit limit 10000");
        begun = now_ns();
        raw_send_flow(from, &sent, COUNT, 0);
        for (i = 0; i < COUNT; i++) {
            raw_take(to, &received);
            late[i] = now_ns() - begun - 100000 * (int64_t)(i + 1);
            CHECK(late[i] >= 0);
        }
        print_lateness("rate 4.8mbit", late, COUNT);
        cable_close(&cable);
    }
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
    RUN(no_rate_is_exceeded);
    RUN(delays_add_up);
    RUN(waiting_takes_no_time);
    return check_done();
}
