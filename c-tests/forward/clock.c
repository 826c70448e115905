/*
 * clock.c - clocks that the program moves: nothing happens by itself, and what happens in
 * an advance happens at its nanosecond, in its order, and the same each time.
 */
#include "clocks.h"
#include "macs.h"

/* ---- The time ---- */

static void the_time(void)
{
    qnet_clock *clock = clock_open(), *other = clock_open();
    int64_t now = -1, next = -1;

    CHECK(clock != other);
    CHECK_INT(qnet_clock_next(clock, &now, &next), QNET_OK);
    CHECK_INT(now, 0);
    CHECK(next == INT64_MAX);
    CHECK_INT(qnet_clock_next(clock, NULL, NULL), QNET_OK);
    CHECK_INT(advance(clock, 0), 0);
    CHECK_INT(advance(clock, 5), 0);
    CHECK_INT(advance(clock, 5), 0);
    CHECK_INT(qnet_clock_advance(clock, 4), QNET_ERR_INVALID);
    CHECK_INT(qnet_clock_advance(clock, -1), QNET_ERR_INVALID);
    CHECK_INT(qnet_clock_advance(clock, INT64_MIN), QNET_ERR_INVALID);
    CHECK_INT(now_of(clock), 5);
    CHECK_INT(now_of(other), 0);
    CHECK_INT(advance(clock, INT64_MAX), 0);
    CHECK_INT(qnet_clock_advance(clock, INT64_MAX - 1), QNET_ERR_INVALID);
    clock_close(clock);
    clock_close(other);
    /* A new one begins at 0, whichever was there before. */
    clock = clock_open();
    CHECK_INT(now_of(clock), 0);
    clock_close(clock);
}

static void wrong_arguments(void)
{
    qnet_clock *clock = clock_open(), *stale = clock_open();
    struct cable cable = cable_unplugged();
    qnet_hub *hub = NULL;
    int64_t now = 7;

    clock_close(stale);
    CHECK_INT(qnet_clock_new(NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_clock_close(stale), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_close(NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_advance(stale, -1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_advance((qnet_clock *)cable.a, 1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_next(stale, &now, &now), QNET_ERR_HANDLE);
    CHECK_INT(now, 7);
    CHECK_INT(qnet_send((qnet_conn *)clock, "", 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_close((qnet_hub *)clock), QNET_ERR_HANDLE);
    CHECK_INT(qnet_link_on(stale, cable.a, cable.b), QNET_ERR_HANDLE);
    CHECK_INT(qnet_link_on(NULL, cable.a, cable.b), QNET_ERR_HANDLE);
    CHECK_INT(qnet_link_on(clock, cable.a, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_link_on(clock, NULL, cable.b), QNET_ERR_HANDLE);
    CHECK_INT(qnet_link_on(clock, cable.a, cable.a), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_set_clock(NULL, clock), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, stale), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    cable_close(&cable);
    clock_close(clock);
}

/* What is on a clock keeps it, and what is plugged in keeps a hub on it. */
static void busy(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    struct cable cable = cable_on(clock);
    qnet_listener *listener = NULL;
    qnet_conn *port = NULL;

    CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
    CHECK_INT(qnet_link_on(clock, cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_unlink(cable.a), QNET_OK);
    CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_OK);
    clock_close(clock);
    clock = clock_open();
    CHECK_INT(qnet_hub_set_clock(hub, clock), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_detach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &port), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, clock), QNET_ERR_BUSY);
    CHECK_INT(qnet_close(port), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_ERR_BUSY);
    /* The hub's own end is met in an advance. */
    CHECK_INT(advance(clock, 1), 0);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, clock), QNET_OK);
    CHECK_INT(qnet_listen("tcp", "127.0.0.1:0", &listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_ERR_BUSY);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, NULL), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(hub, clock), QNET_OK);
    CHECK_INT(qnet_clock_close(clock), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    clock_close(clock);
    cable_close(&cable);
}

/* Nothing happens until the clock is advanced, and no thread is there. */
static void nothing_by_itself(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);

    raw_send_numbered(cable.fa, 0, 60);
    check_silent(cable.fb);
    CHECK_INT(footprint_now().threads, 0);
    CHECK(next_of(clock) == INT64_MAX);
    CHECK_INT(advance(clock, 0), 1);
    CHECK(raw_has(cable.fb));
    CHECK_INT(raw_take_numbered(cable.fb), 0);
    raw_send_numbered(cable.fb, 1, 60);
    raw_send_numbered(cable.fb, 2, 9000);
    raw_send_numbered(cable.fa, 3, 14);
    CHECK_INT(advance(clock, 10), 3);
    CHECK_INT(raw_take_numbered(cable.fa), 1);
    CHECK_INT(raw_take_numbered(cable.fa), 2);
    (void)raw_take_numbered(cable.fb);
    CHECK_INT(qnet_unlink(cable.b), QNET_OK);
    /* Back on the system's clock. */
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    passes(cable.fa, cable.fb);
    cable_close(&cable);
    clock_close(clock);
}

static void to_the_nanosecond(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_unplugged();

    impair(cable.a, QNET_IN, "delay 10ms");
    advance(clock, 3);
    CHECK_INT(qnet_link_on(clock, cable.a, cable.b), QNET_OK);
    impair(cable.b, QNET_OUT, "delay 5ms");
    raw_send_numbered(cable.fa, 0, 60);
    CHECK_INT(advance(clock, 3), 0);
    CHECK_INT(next_of(clock), 3 + 10 * ms);
    CHECK_INT(in_flight(cable.a, QNET_IN), 1);
    CHECK_INT(advance(clock, 2 + 10 * ms), 0);
    CHECK_INT(in_flight(cable.b, QNET_OUT), 0);
    CHECK_INT(advance(clock, 3 + 10 * ms), 0);
    CHECK_INT(in_flight(cable.b, QNET_OUT), 1);
    CHECK_INT(next_of(clock), 3 + 15 * ms);
    CHECK_INT(advance(clock, 2 + 15 * ms), 0);
    CHECK(!raw_has(cable.fb));
    CHECK_INT(advance(clock, 3 + 15 * ms), 1);
    CHECK_INT(raw_take_numbered(cable.fb), 0);
    CHECK(next_of(clock) == INT64_MAX);
    cable_close(&cable);
    clock_close(clock);
}

/* Addresses age by the clock. */
static void ages(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    qnet_conn *conns[3];
    uint8_t frame[60];
    int fds[3], i;

    CHECK_INT(qnet_hub_set(hub, QNET_OPT_MAC_AGE_S, 300), QNET_OK);
    for (i = 0; i < 3; i++) {
        conns[i] = raw_pair(&fds[i]);
        CHECK_INT(qnet_hub_attach(hub, conns[i]), QNET_OK);
    }
    memset(frame, 0, sizeof frame);
    mac_make(frame + 6, 1);
    mac_make(frame, 2);
    raw_send(fds[1], frame, sizeof frame);
    CHECK_INT(advance(clock, 1000 * ms), 2);
    CHECK_INT(hub_stats_of(hub).macs, 1);
    mac_make(frame, 1);
    mac_make(frame + 6, 2);
    raw_send(fds[2], frame, sizeof frame);
    CHECK_INT(advance(clock, 299 * 1000 * ms), 1);
    CHECK_INT(hub_stats_of(hub).macs, 2);
    CHECK_INT(advance(clock, 302 * 1000 * ms), 0);
    CHECK_INT(hub_stats_of(hub).macs, 0);
    raw_send(fds[2], frame, sizeof frame);
    CHECK_INT(advance(clock, 303 * 1000 * ms), 2);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        CHECK(close(fds[i]) == 0);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    clock_close(clock);
}

/* ---- The model's schedules ---- */

static FILE *vectors_open(void)
{
    FILE *file = fopen("../src/emulation/tests/vectors.txt", "r");

    file = file ? file : fopen("src/emulation/tests/vectors.txt", "r");
    CHECK(file != NULL);
    return file;
}

/* Whatever has come, with the time. */
static int note_arrivals(qnet_clock *clock, int fd, char *log, int at)
{
    while (raw_has(fd)) {
        unsigned number = raw_take_numbered(fd);

        at += sprintf(log + at, " %u@%lld", number, (long long)now_of(clock));
    }
    return at;
}

/* Goes from one thing that is due to the next until that time. */
static int walk(qnet_clock *clock, int64_t to, int fd, char *log, int at)
{
    for (;;) {
        int64_t next = next_of(clock);

        CHECK(next >= now_of(clock));
        if (next > to || next == INT64_MAX)
            break;
        CHECK(qnet_clock_advance(clock, next) >= 0);
        at = note_arrivals(clock, fd, log, at);
    }
    if (to != INT64_MAX)
        CHECK(qnet_clock_advance(clock, to) >= 0);
    return note_arrivals(clock, fd, log, at);
}

static void play(const char *text, size_t len, char *arrivals, const char *want, const char *counts)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    char log[4000] = "", told[400];
    unsigned number = 0;
    char *rest = arrivals, *word;
    qnet_impair_stats stats;
    int at = 0;

    impair(cable.b, QNET_OUT, text);
    while ((word = strtok_r(rest, ", ]\n", &rest)) != NULL) {
        at = walk(clock, atoll(word), cable.fb, log, at);
        raw_send_numbered(cable.fa, number++, len);
        CHECK(qnet_clock_advance(clock, atoll(word)) >= 0);
        at = note_arrivals(clock, cable.fb, log, at);
    }
    walk(clock, INT64_MAX, cable.fb, log, at);
    stats = check_counts(cable.b, QNET_OUT);
    snprintf(told, sizeof told,
             "{'frames': %d, 'lost': %d, 'duplicated': %d, 'corrupted': %d, 'dropped': %d, "
             "'passed': %d, 'reordered': %d}",
             (int)stats.frames, (int)stats.lost, (int)stats.duplicated, (int)stats.corrupted,
             (int)stats.dropped, (int)stats.passed, (int)stats.reordered);
    if (strcmp(log, want) != 0 || strcmp(told, counts) != 0)
        fprintf(stderr, "%s:\n%s\n%s\n%s\n%s\n", text, log, want, told, counts);
    CHECK(strcmp(log, want) == 0 && strcmp(told, counts) == 0);
    cable_close(&cable);
    clock_close(clock);
}

static void schedules(void)
{
    FILE *file = vectors_open();
    char line[4000], want[4000], counts[4000];
    int played = 0;

    while (fgets(line, sizeof line, file) != NULL) {
        char *frames = strstr(line, " ; frames of "), *list;
        static const char leave[] = "   leave (frame@ns):";

        if (frames == NULL)
            continue;
        *frames = '\0';
        list = strchr(frames + 1, '[') + 1;
        CHECK(fgets(want, sizeof want, file) != NULL && fgets(counts, sizeof counts, file) != NULL);
        CHECK(strncmp(want, leave, strlen(leave)) == 0);
        want[strcspn(want, "\n")] = counts[strcspn(counts, "\n")] = '\0';
        play(line, (size_t)atoi(frames + strlen(" ; frames of ")), list, want + strlen(leave),
             counts + strspn(counts, " "));
        played++;
    }
    CHECK_INT(played, 10);
    CHECK(fclose(file) == 0);
}

/* ---- A network on one clock ---- */

/*
 * Devices on two hubs that are joined by a pair, and a link between a pair and a plain
 * socket; each on the way is impaired in some way.
 */
struct network {
    qnet_clock *clock;
    qnet_hub *hubs[2];
    qnet_conn *pair[2], *far[2], *devices[3], *ours;
    int fd;
};

static void network_open(struct network *net)
{
    int i;

    net->clock = clock_open();
    CHECK_INT(qnet_socketpair(&net->pair[0], &net->pair[1]), QNET_OK);
    CHECK_INT(qnet_socketpair(&net->far[0], &net->far[1]), QNET_OK);
    for (i = 0; i < 2; i++) {
        net->hubs[i] = hub_on(net->clock);
        CHECK_INT(qnet_hub_attach(net->hubs[i], net->pair[i]), QNET_OK);
    }
    for (i = 0; i < 3; i++)
        CHECK_INT(qnet_hub_port(net->hubs[i % 2], &net->devices[i]), QNET_OK);
    CHECK_INT(qnet_hub_attach(net->hubs[1], net->far[0]), QNET_OK);
    net->ours = raw_pair(&net->fd);
    CHECK_INT(qnet_link_on(net->clock, net->far[1], net->ours), QNET_OK);
    impair(net->pair[0], QNET_BOTH, "delay 3ms 1ms loss 5% rate 10mbit limit 20 seed 1");
    impair(net->pair[1], QNET_BOTH, "delay 1ms 1ms reorder duplicate 10% seed 2");
    impair(net->devices[0], QNET_BOTH, "delay 500us 300us distribution normal seed 3");
    impair(net->devices[2], QNET_OUT, "rate 2mbit limit 5 seed 4");
    impair(net->far[1], QNET_IN, "corrupt 20% delay 2ms 2ms reorder seed 5");
}

static void network_close(struct network *net)
{
    int i;

    for (i = 0; i < 3; i++)
        CHECK_INT(qnet_close(net->devices[i]), QNET_OK);
    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet_close(net->pair[i]), QNET_OK);
        CHECK_INT(qnet_close(net->far[i]), QNET_OK);
        CHECK_INT(qnet_hub_close(net->hubs[i]), QNET_OK);
    }
    CHECK_INT(qnet_close(net->ours), QNET_OK);
    CHECK(close(net->fd) == 0);
    clock_close(net->clock);
}

static uint64_t hash_of(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len-- > 0)
        hash = (hash ^ *at++) * 1099511628211u;
    return hash;
}

static uint64_t hear_all(struct network *net, uint64_t hash)
{
    uint8_t frame[2000];
    int i, len;

    for (i = 0; i < 3; i++) {
        while ((len = qnet_recv(net->devices[i], frame, sizeof frame, 0)) > 0)
            hash = hash_of(hash_of(hash, &i, sizeof i), frame, (size_t)len);
        CHECK_INT(len, QNET_ERR_AGAIN);
    }
    while (raw_has(net->fd)) {
        len = (int)raw_recv(net->fd, frame, sizeof frame);
        hash = hash_of(hash_of(hash, &i, sizeof i), frame, (size_t)len);
    }
    return hash;
}

static void advance_by(struct network *net, int64_t to, int64_t step)
{
    int64_t now = now_of(net->clock);

    while (step > 0 && now + step < to)
        advance(net->clock, now += step);
    advance(net->clock, to);
}

/* What comes where in a second, and in which order. Everybody hears every 5 ms. */
static uint64_t second_of(int64_t step)
{
    struct network net;
    uint64_t hash = 14695981039346656037u;
    uint8_t frame[200];
    int i, from;

    network_open(&net);
    for (i = 0; i < 200; i++) {
        for (from = 0; from < 3; from++) {
            memset(frame, 0, sizeof frame);
            frame[20] = (uint8_t)i;
            mac_make(frame + 6, from);
            mac_make(frame, i % 4 == 3 ? 9 : (from + i) % 3);
            CHECK_INT(qnet_send(net.devices[from], frame, sizeof frame - (size_t)from * 20), QNET_OK);
        }
        memset(frame, 0xff, 6);
        mac_make(frame + 6, 9);
        raw_send(net.fd, frame, 100);
        advance_by(&net, (i + 1) * 5 * ms, step);
        hash = hear_all(&net, hash);
    }
    for (i = 0; i < 2; i++) {
        int direction;

        for (direction = 1; direction <= 2; direction++) {
            qnet_impair_stats stats = check_counts(net.pair[i], direction);

            CHECK(stats.frames > 100 && stats.passed > 20);
            hash = hash_of(hash, &stats, sizeof stats);
        }
    }
    network_close(&net);
    return hash;
}

static void the_same_each_time(void)
{
    uint64_t hash = second_of(0);

    CHECK(second_of(0) == hash);
    CHECK(second_of(ms) == hash);
    CHECK(second_of(77777) == hash);
    CHECK(second_of(1234567) == hash);
}

/* A frame goes through two hubs and a link at one instant. */
static void at_one_instant(void)
{
    struct network net;
    uint8_t frame[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    int i;

    network_open(&net);
    for (i = 0; i < 2; i++)
        impair(net.pair[i], QNET_BOTH, NULL);
    for (i = 0; i < 3; i++)
        impair(net.devices[i], QNET_BOTH, NULL);
    impair(net.far[1], QNET_IN, NULL);
    CHECK_INT(qnet_send(net.devices[0], frame, sizeof frame), QNET_OK);
    /* To the pair and a device; to a device, and the link; through that. */
    CHECK_INT(advance(net.clock, 0), 5);
    CHECK(raw_has(net.fd));
    CHECK_INT(recv_now(net.devices[1]), 60);
    CHECK_INT(recv_now(net.devices[2]), 60);
    CHECK_INT(recv_now(net.devices[0]), QNET_ERR_AGAIN);
    network_close(&net);
}

/* Hubs that are joined twice: what goes round at one instant does not for ever. */
static void a_storm_ends(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hubs[2];
    qnet_conn *pairs[4], *device = NULL;
    uint8_t frame[1000] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint64_t refused = 0;
    int i;

    for (i = 0; i < 2; i++)
        hubs[i] = hub_on(clock);
    for (i = 0; i < 4; i += 2) {
        CHECK_INT(qnet_socketpair(&pairs[i], &pairs[i + 1]), QNET_OK);
        CHECK_INT(qnet_hub_attach(hubs[0], pairs[i]), QNET_OK);
        CHECK_INT(qnet_hub_attach(hubs[1], pairs[i + 1]), QNET_OK);
    }
    for (i = 0; i < 4; i++)
        CHECK_INT(qnet_set(pairs[i], QNET_OPT_FLIGHT_BYTES, 128 << 10), QNET_OK);
    CHECK_INT(qnet_hub_port(hubs[0], &device), QNET_OK);
    CHECK_INT(qnet_send(device, frame, sizeof frame), QNET_OK);
    CHECK(advance(clock, 0) > 100);
    for (i = 0; i < 4; i++)
        refused += stats_of(pairs[i]).rx_refused;
    CHECK(refused > 0);
    CHECK_INT(advance(clock, ms), 0);
    for (i = 0; i < 4; i++)
        CHECK_INT(qnet_close(pairs[i]), QNET_OK);
    CHECK_INT(qnet_close(device), QNET_OK);
    for (i = 0; i < 2; i++)
        CHECK_INT(qnet_hub_close(hubs[i]), QNET_OK);
    clock_close(clock);
}

/* When something is due is told anew after each change, without an advance. */
static void the_next_time_follows_changes(void)
{
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);

    impair(cable.b, QNET_OUT, "rate 8bit");
    raw_send_numbered(cable.fa, 0, 100);
    raw_send_numbered(cable.fa, 1, 100);
    CHECK_INT(advance(clock, 0), 0);
    CHECK_INT(next_of(clock), 100000 * ms);
    impair(cable.b, QNET_OUT, "delay 5ms reorder");
    CHECK_INT(next_of(clock), 5 * ms);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_LINK, 0), QNET_OK);
    CHECK(next_of(clock) == INT64_MAX);
    cable_close(&cable);
    clock_close(clock);
}

int main(void)
{
    RUN(the_time);
    RUN(wrong_arguments);
    RUN(busy);
    RUN(nothing_by_itself);
    RUN(to_the_nanosecond);
    RUN(ages);
    RUN(schedules);
    RUN(the_next_time_follows_changes);
    RUN(at_one_instant);
    RUN(the_same_each_time);
    RUN(a_storm_ends);
    return check_done();
}
