/*
 * many_in_flight.c - a million frames in flight: whoever shares their loop is as quick as who does
 * not, and their memory is little more than their own bytes, and given back.
 */
#include "../forward/cable.h"
#include "impairing.h"
#include "macs.h"

enum { MILLION = 1000000, AT_A_TIME = 1000, LEN = 64, WIRE = RAW_PREFIX + LEN, TRIPS = 1000 };

static const int64_t most_more_ns = 300000;
static const long most_bytes = 128l << 20, most_kept = 8l << 20;

/* Two ports of which one is impaired, and the side where frames go in. */
struct load {
    struct cable cable;
    qnet_hub *hub;
    qnet_conn *impaired;
    int direction, fd;
    uint8_t wire[AT_A_TIME * WIRE];
};

static void load_open(struct load *load, int has_hub, int direction)
{
    struct word word = { EVERYBODY, 1, 0, LEN };
    int i;

    memset(load, 0, sizeof *load);
    load->cable = cable_unplugged();
    load->fd = load->cable.fa;
    load->direction = direction;
    load->impaired = direction == QNET_IN ? load->cable.a : load->cable.b;
    for (i = 0; i < AT_A_TIME; i++) {
        raw_put_length(load->wire + i * WIRE, LEN);
        word_make(load->wire + i * WIRE + RAW_PREFIX, word);
    }
    if (!has_hub) {
        CHECK_INT(qnet_link(load->cable.a, load->cable.b), QNET_OK);
        return;
    }
    CHECK_INT(qnet_hub_new(&load->hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(load->hub, load->cable.a), QNET_OK);
    CHECK_INT(qnet_hub_attach(load->hub, load->cable.b), QNET_OK);
}

static void load_fly(struct load *load, const char *spec)
{
    int i;

    impair(load->impaired, load->direction, spec);
    for (i = 0; i < MILLION / AT_A_TIME; i++)
        raw_write(load->fd, load->wire, sizeof load->wire);
    EVENTUALLY(check_counts(load->impaired, load->direction).frames == MILLION);
}

static void load_close(struct load *load)
{
    if (load->hub)
        CHECK_INT(qnet_hub_close(load->hub), QNET_OK);
    cable_close(&load->cable);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/*
 * How much processor time a round trip costs. Unlike how long it takes, that is the same whichever
 * processors the loops are on, and whatever else runs there.
 */
static int64_t round_trip(const struct cable *cable)
{
    int64_t begun = cpu_ns();

    passes(cable->fa, cable->fb);
    passes(cable->fb, cable->fa);
    return cpu_ns() - begun;
}

/*
 * Round trips through two links, each on the loop of a load that a frame joins meanwhile. The
 * processor time that they cost is printed: one look at each of a million would be seen.
 */
static void check_trips(const struct load loads[2], const struct cable links[2])
{
    static int64_t here[TRIPS], there[TRIPS];
    int i;

    for (i = 0; i < TRIPS; i++) {
        raw_write(loads[0].fd, loads[0].wire, WIRE);
        here[i] = round_trip(&links[0]);
        raw_write(loads[1].fd, loads[1].wire, WIRE);
        there[i] = round_trip(&links[1]);
    }
    qsort(here, TRIPS, sizeof *here, compare);
    qsort(there, TRIPS, sizeof *there, compare);
    printf("a round trip costs %.1f us in the median and %.1f in 99 of 100; elsewhere %.1f and %.1f\n",
           (double)here[TRIPS / 2] / 1e3, (double)here[TRIPS * 99 / 100] / 1e3,
           (double)there[TRIPS / 2] / 1e3, (double)there[TRIPS * 99 / 100] / 1e3);
    CHECK(here[TRIPS / 2] <= there[TRIPS / 2] + most_more_ns * check_slow());
}

static int is_loop(const char *number)
{
    return is_thread_named(number, "qnet-forward");
}

/*
 * Links and hubs take the loops in turn, of which there are a few: the first has a million in
 * flight, and the second only those that join them meanwhile.
 */
static void fly(int has_hub, int direction, const char *spec)
{
    static struct load loads[2];
    struct cable links[MOST_LOOPS];
    qnet_conn *conn;
    long before, taken;
    int i, loops;

    load_open(&loads[0], has_hub, direction);
    load_open(&loads[1], has_hub, direction);
    for (i = 0; i < MOST_LOOPS; i++)
        links[i] = cable_plugged();
    for (i = 0; i < MOST_LOOPS; i++)
        round_trip(&links[i]);
    loops = count_threads_that(is_loop);
    if (loops < 2)
        check_skip("there is one loop, for one processor");
    conn = loads[0].impaired;
    impair(loads[1].impaired, direction, spec);
    before = resident_bytes();
    load_fly(&loads[0], spec);
    taken = resident_bytes() - before;
    check_trips(loads, &links[loops - 2]);
    EVENTUALLY(in_flight(conn, direction) == MILLION + TRIPS);
    CHECK_INT(has_hub ? qnet_hub_detach(loads[0].hub, conn) : qnet_unlink(conn), QNET_OK);
    CHECK_INT(check_counts(conn, direction).discarded, MILLION + TRIPS);
    printf("they take %ld KiB, of which %ld are left afterwards\n", taken >> 10,
           (resident_bytes() - before) >> 10);
    if (HAS_ROOM_FOR_ITSELF) {
        CHECK(taken > 60l << 20 && taken < most_bytes);
        CHECK(resident_bytes() - before < most_kept);
    }
    for (i = 0; i < MOST_LOOPS; i++)
        cable_close(&links[i]);
    load_close(&loads[0]);
    load_close(&loads[1]);
}

static void in_order(void)
{
    fly(0, QNET_IN, "delay 1000s");
}

static void on_the_way_out(void)
{
    fly(0, QNET_OUT, "delay 1000s");
}

static void overtaking(void)
{
    fly(0, QNET_IN, "delay 1000s 500s reorder");
}

static void waiting(void)
{
    fly(0, QNET_IN, "rate 1bit limit 2000000");
}

static void at_a_hub(void)
{
    fly(1, QNET_IN, "delay 1000s 500s reorder");
}

static void out_of_a_hub(void)
{
    fly(1, QNET_OUT, "delay 1000s 500s");
}

/* Memory is given back by those that leave, too: the first when it is sent, a second after it came. */
static void leaving(void)
{
    static struct load load;
    static uint8_t wire[AT_A_TIME * WIRE];
    long before;
    int i;

    load_open(&load, 0, QNET_IN);
    passes(load.cable.fa, load.cable.fb);
    before = resident_bytes();
    load_fly(&load, "rate 512bit limit 2000000");
    impair(load.impaired, load.direction, "");
    for (i = 0; i < MILLION / AT_A_TIME; i++) {
        CHECK_INT(raw_read(load.cable.fb, wire, sizeof wire), 0);
        CHECK(memcmp(wire, load.wire, sizeof wire) == 0);
    }
    check_silent(load.cable.fb);
    CHECK_INT(in_flight(load.impaired, load.direction), 0);
    printf("%ld KiB are left afterwards\n", (resident_bytes() - before) >> 10);
    if (HAS_ROOM_FOR_ITSELF)
        CHECK(resident_bytes() - before < most_kept);
    load_close(&load);
}

static void *reading_on(void *fd)
{
    static uint8_t bytes[1 << 20];

    while (recv(*(int *)fd, bytes, sizeof bytes, 0) > 0)
        ;
    return NULL;
}

/* How many round trips another link on the loop makes while a million leave that are due together. */
static int trips_meanwhile(int direction)
{
    static struct load load;
    struct cable links[MOST_LOOPS];
    pthread_t reader;
    int i, loops, trips = 0;

    load_open(&load, 1, direction);
    for (i = 0; i < MOST_LOOPS; i++)
        links[i] = cable_plugged();
    for (i = 0; i < MOST_LOOPS; i++)
        round_trip(&links[i]);
    loops = count_threads_that(is_loop);
    load_fly(&load, "rate 512bit limit 2000000");
    start_thread(&reader, reading_on, &load.cable.fb);
    impair(load.impaired, direction, "");
    EVENTUALLY(in_flight(load.impaired, direction) < MILLION - 10);
    while (in_flight(load.impaired, direction) > 0) {
        round_trip(&links[loops - 1]);
        trips++;
    }
    CHECK_INT(check_counts(load.impaired, direction).passed, MILLION);
    for (i = 0; i < MOST_LOOPS; i++)
        cable_close(&links[i]);
    CHECK(shutdown(load.cable.fb, SHUT_RDWR) == 0);
    join_thread(reader);
    load_close(&load);
    return trips;
}

/* Others have their turns meanwhile. Of a few tries, as this thread may lack a processor. */
static void due_together(void)
{
    int direction, tries, trips;

    for (direction = QNET_IN; direction <= QNET_OUT; direction++) {
        for (tries = trips = 0; tries < 5 && trips <= 10; tries++)
            trips = trips_meanwhile(direction);
        printf("%d round trips while they leave\n", trips);
        CHECK(trips > 10);
    }
}

int main(void)
{
    RUN(in_order);
    RUN(on_the_way_out);
    RUN(overtaking);
    RUN(waiting);
    RUN(at_a_hub);
    RUN(out_of_a_hub);
    RUN(leaving);
    RUN(due_together);
    return check_done();
}
