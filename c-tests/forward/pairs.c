/*
 * pairs.c - where frames go that come in together. A hub remembers for as long as one
 * turn lasts where each pair of addresses went. So what it does with many frames of one
 * write has to be what it does with the same frames one by one, and what a model of a
 * learning switch says.
 */
#include "macs.h"

enum { PORTS = 4, FRAMES_MOST = 2000, LONGEST = 200, HOSTS = 3000 };

/* A frame's addresses, by number, and its length. Groups and runts have no number. */
enum { BROADCAST = -1, MULTICAST = -2, RUNT = -3 };

struct script {
    int to[FRAMES_MOST], from[FRAMES_MOST];
    size_t len[FRAMES_MOST];
    unsigned count;
};

static void say(struct script *script, int to, int from, size_t len)
{
    CHECK(script->count < FRAMES_MOST);
    script->to[script->count] = to;
    script->from[script->count] = from;
    script->len[script->count++] = len;
}

static void put_address(uint8_t *mac, int n)
{
    mac_make(mac, n < 0 ? EVERYBODY : n);
    if (n == MULTICAST)
        memcpy(mac, "\x33\x33\0\0\0\x09", MAC_LEN);
}

/* Puts a frame in wire format, whose number follows its addresses. Returns its length there. */
static size_t put_frame(uint8_t *wire, const struct script *script, unsigned i, unsigned number)
{
    size_t len = script->len[i];

    raw_put_length(wire, len);
    wire += RAW_PREFIX;
    memset(wire, 0xee, len);
    if (script->to[i] == RUNT)
        return RAW_PREFIX + len;
    put_address(wire, script->to[i]);
    put_address(wire + MAC_LEN, script->from[i]);
    if (len >= MAC_FRAME_LEAST)
        raw_put_length(wire + 2 * MAC_LEN, number);
    return RAW_PREFIX + len;
}

/* ---- A model of a learning switch ---- */

struct heap {
    uint8_t *bytes;
    size_t len, room;
};

static void heap_add(struct heap *heap, const uint8_t *bytes, size_t len)
{
    if (heap->len + len > heap->room) {
        heap->room = 2 * heap->room + len;
        heap->bytes = realloc(heap->bytes, heap->room);
        CHECK(heap->bytes != NULL);
    }
    memcpy(heap->bytes + heap->len, bytes, len);
    heap->len += len;
}

/* Where each host is, counted from 1; what each port is to be sent; and what is to be counted. */
struct model {
    int at[HOSTS];
    struct heap port[PORTS];
    uint64_t macs, forwarded, flooded, dropped, frames[PORTS], runts[PORTS];
};

static void model_takes(struct model *model, int port, const struct script *script, unsigned i,
                        const uint8_t *wire, size_t len)
{
    int from = script->from[i], to = script->to[i], p, at;

    if (to == RUNT) {
        model->runts[port]++;
        return;
    }
    model->frames[port]++;
    if (from >= 0) {
        model->macs += model->at[from] == 0;
        model->at[from] = port + 1;
    }
    at = to >= 0 ? model->at[to] : 0;
    if (at == port + 1) {
        model->dropped++;
    } else if (at > 0) {
        model->forwarded++;
        heap_add(&model->port[at - 1], wire, len);
    } else {
        model->flooded++;
        for (p = 0; p < PORTS; p++)
            if (p != port)
                heap_add(&model->port[p], wire, len);
    }
}

/* ---- A hub, and its model ---- */

struct bench {
    qnet_hub *hub;
    qnet_conn *conn[PORTS];
    int fd[PORTS];
    size_t seen[PORTS];
    int one_by_one;
    unsigned number;
    struct model model;
};

static void bench_open(struct bench *bench, int one_by_one)
{
    int p;

    memset(bench, 0, sizeof *bench);
    bench->one_by_one = one_by_one;
    CHECK_INT(qnet_hub_new(&bench->hub), QNET_OK);
    for (p = 0; p < PORTS; p++) {
        int bytes = 400000;

        bench->conn[p] = raw_pair(&bench->fd[p]);
        CHECK(setsockopt(bench->fd[p], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
        CHECK_INT(qnet_hub_attach(bench->hub, bench->conn[p]), QNET_OK);
    }
}

/* Reads what every port is to get, and checks that it is that, and is counted so. */
static void bench_hears(struct bench *bench)
{
    struct model *model = &bench->model;
    qnet_hub_stats stats;
    int p;

    for (p = 0; p < PORTS; p++) {
        size_t len = model->port[p].len - bench->seen[p];
        uint8_t *got = allocate(len);

        CHECK_INT(raw_read(bench->fd[p], got, len), 0);
        CHECK(memcmp(got, model->port[p].bytes + bench->seen[p], len) == 0);
        bench->seen[p] += len;
        free(got);
        EVENTUALLY(stats_of(bench->conn[p]).rx_frames == model->frames[p]);
        CHECK_INT(stats_of(bench->conn[p]).rx_runts, model->runts[p]);
    }
    stats = hub_stats_of(bench->hub);
    CHECK_INT(stats.forwarded, model->forwarded);
    CHECK_INT(stats.flooded, model->flooded);
    CHECK_INT(stats.dropped, model->dropped);
    CHECK_INT(stats.macs, model->macs);
    for (p = 0; p < PORTS; p++)
        CHECK_INT(bytes_waiting(bench->fd[p]), 0);
}

/* All frames come in at one port: in one write, or each when the one before is where it goes. */
static void bench_says(struct bench *bench, int port, const struct script *script)
{
    struct heap wire = { NULL, 0, 0 };
    uint8_t frame[RAW_PREFIX + LONGEST];
    unsigned i;

    for (i = 0; i < script->count; i++) {
        size_t len = put_frame(frame, script, i, bench->number++);

        model_takes(&bench->model, port, script, i, frame, len);
        if (bench->one_by_one) {
            raw_write(bench->fd[port], frame, len);
            EVENTUALLY(stats_of(bench->conn[port]).rx_frames + stats_of(bench->conn[port]).rx_runts ==
                       bench->model.frames[port] + bench->model.runts[port]);
        } else {
            heap_add(&wire, frame, len);
        }
    }
    if (wire.len > 0)
        raw_write(bench->fd[port], wire.bytes, wire.len);
    free(wire.bytes);
    bench_hears(bench);
}

static void bench_close(struct bench *bench)
{
    int p;

    CHECK_INT(qnet_hub_close(bench->hub), QNET_OK);
    for (p = 0; p < PORTS; p++) {
        CHECK_INT(qnet_close(bench->conn[p]), QNET_OK);
        CHECK(close(bench->fd[p]) == 0);
        free(bench->model.port[p].bytes);
    }
}

/* Plays a scene in one write a script, and frame by frame. */
static void play(void (*scene)(struct bench *bench))
{
    static struct bench bench;
    int one_by_one;

    for (one_by_one = 0; one_by_one < 2; one_by_one++) {
        bench_open(&bench, one_by_one);
        scene(&bench);
        bench_close(&bench);
    }
}

static struct script script;

/* Lets a host be heard at a port, with a frame to all. */
static void announce(struct bench *bench, int port, int host)
{
    script.count = 0;
    say(&script, BROADCAST, host, 60);
    bench_says(bench, port, &script);
}

/* ---- Scenes ---- */

/* A host is learned at its port by a frame that is behind frames for it, and before others. */
static void scene_learned_in_the_write(struct bench *bench)
{
    int i;

    announce(bench, 1, 10);
    script.count = 0;
    for (i = 0; i < 5; i++) {
        say(&script, 20, 10, 60); /* 10 comes from another port now, and 20 is nowhere */
        say(&script, 10, 20, 60); /* to 10, which has just moved here */
        say(&script, 20, 10, 60);
        say(&script, 30, 20, 60);
        say(&script, 20, 20, 60);
    }
    bench_says(bench, 0, &script);
    script.count = 0;
    say(&script, 10, 30, 60);
    say(&script, 20, 30, 60);
    say(&script, 30, 10, 60);
    say(&script, 10, 30, 60);
    say(&script, 30, 10, 60);
    bench_says(bench, 2, &script);
}

static void a_source_is_learned_where_it_is_a_destination(void)
{
    play(scene_learned_in_the_write);
}

/* A host moves to the port that the write comes in at, between frames to it that are all alike. */
static void scene_moved_in_the_write(struct bench *bench)
{
    int host, i;

    for (host = 1; host < 40; host++)
        announce(bench, 1 + host % 3, host);
    for (i = 0; i < 12; i++) {
        script.count = 0;
        for (host = 1; host < 40; host++) {
            say(&script, host, 100, 60);
            say(&script, host, 100, 60);
            if (host % 3 == i % 3)
                say(&script, 101, host, 60);
            say(&script, host, 100, 60);
            say(&script, host, 102, 61);
        }
        for (host = 1; host < 40; host++)
            say(&script, host, 100, 60);
        bench_says(bench, i % PORTS, &script);
    }
}

static void a_host_moves_in_the_middle(void)
{
    play(scene_moved_in_the_write);
}

/* Nobody is learned from a group's address, and frames to a group go to all. */
static void scene_groups(struct bench *bench)
{
    int i;

    announce(bench, 1, 1);
    script.count = 0;
    for (i = 0; i < 10; i++) {
        say(&script, 1, BROADCAST, 60);
        say(&script, 1, MULTICAST, 60);
        say(&script, BROADCAST, BROADCAST, 60);
        say(&script, BROADCAST, 2, 60);
        say(&script, MULTICAST, MULTICAST, 14);
        say(&script, 2, BROADCAST, 60);
        say(&script, 1, 2, 60);
        say(&script, MULTICAST, 2, 60);
        say(&script, BROADCAST, BROADCAST, 14);
    }
    bench_says(bench, 0, &script);
    bench_says(bench, 1, &script);
    bench_says(bench, 0, &script);
}

static void groups_are_not_learned(void)
{
    play(scene_groups);
}

/* Runts of any length are skipped, and what is around them goes where it would. */
static void scene_runts(struct bench *bench)
{
    int i, p;

    for (i = 1; i < 4; i++)
        announce(bench, i, i);
    for (p = 0; p < PORTS; p++) {
        script.count = 0;
        for (i = 0; i < 14; i++) {
            say(&script, RUNT, 0, (size_t)i);
            say(&script, 1 + i % 3, 100, 60);
            say(&script, RUNT, 0, (size_t)(13 - i));
            say(&script, RUNT, 0, 13);
            say(&script, 1 + i % 3, 100, 60);
            say(&script, 1 + i % 2, 100, 14);
            say(&script, 50, 100, 15);
        }
        bench_says(bench, p, &script);
    }
}

static void runts_are_skipped(void)
{
    play(scene_runts);
}

/*
 * More pairs than the hub remembers, again and again: many of them share a place. In
 * between, hosts move.
 */
static void scene_many_pairs(struct bench *bench)
{
    unsigned state = 1, i, k, round;
    int p, host;

    for (p = 1; p < PORTS; p++) {
        script.count = 0;
        for (host = 0; host < 300; host++)
            say(&script, BROADCAST, 300 * p + host, 14);
        bench_says(bench, p, &script);
    }
    for (round = 0; round < 3; round++) {
        script.count = 0;
        for (i = 0; i < 600; i++) {
            host = 300 + (int)(i * 7 % 900);
            for (k = 0; k < 2; k++)
                say(&script, host, (int)(i % 299), 40);
            if (next_random(&state) % 40 == 0)
                say(&script, 2000, 300 + (int)(next_random(&state) % 900), 40);
        }
        bench_says(bench, (int)(round * 2 % PORTS), &script);
    }
}

static void more_pairs_than_are_remembered(void)
{
    play(scene_many_pairs);
}

/* Pairs that differ in one byte of either address only, and pairs that are each other reversed. */
static void scene_alike(struct bench *bench)
{
    static const int steps[] = { 1, 256, 257, 2, 512 };
    int i, k;

    announce(bench, 1, 1);
    announce(bench, 2, 2);
    announce(bench, 3, 257);
    for (k = 0; k < 3; k++) {
        script.count = 0;
        for (i = 0; i < 100; i++) {
            say(&script, steps[i % 5], steps[i % 4], 60);
            say(&script, steps[i % 4], steps[i % 5], 60);
            say(&script, steps[(i + 1) % 5], steps[i % 4], 60);
        }
        bench_says(bench, k, &script);
    }
}

static void pairs_that_are_nearly_alike(void)
{
    play(scene_alike);
}

/* Whatever comes from wherever. */
static void scene_anything(struct bench *bench)
{
    unsigned state = 77, round, i;

    for (round = 0; round < 30; round++) {
        unsigned hosts = round % 3 == 0 ? 5 : round % 3 == 1 ? 40 : 700;
        unsigned count = 1 + next_random(&state) % 120, pairs_left = 0;
        int to = 0, from = 0;
        size_t len = 60;

        script.count = 0;
        for (i = 0; i < count; i++) {
            if (pairs_left-- == 0) {
                pairs_left = next_random(&state) % 4;
                to = (int)(next_random(&state) % hosts);
                from = (int)(next_random(&state) % hosts);
                to = next_random(&state) % 12 == 0 ? BROADCAST : to;
                from = next_random(&state) % 20 == 0 ? MULTICAST : from;
                if (next_random(&state) % 4 == 0)
                    len = 14 + next_random(&state) % (LONGEST - 14);
            }
            if (next_random(&state) % 30 == 0)
                say(&script, RUNT, 0, next_random(&state) % 14);
            else
                say(&script, to, from, len);
        }
        bench_says(bench, (int)(next_random(&state) % PORTS), &script);
    }
}

static void anything_from_anywhere(void)
{
    play(scene_anything);
}

/* ---- What changes between turns ---- */

/* What was remembered of a port is of no use once it is gone, or its hosts are forgotten. */
static void a_port_goes_between_two_writes(void)
{
    static struct bench bench;
    int i, p;

    bench_open(&bench, 0);
    for (i = 0; i < 20; i++) {
        announce(&bench, 1, 1);
        script.count = 0;
        say(&script, 1, 2, 60);
        say(&script, 1, 2, 60);
        bench_says(&bench, 0, &script);
        CHECK_INT(qnet_hub_detach(bench.hub, bench.conn[1]), QNET_OK);
        CHECK_INT(qnet_hub_attach(bench.hub, bench.conn[1]), QNET_OK);
        bench.model.at[1] = 0;
        bench.model.macs--;
        bench_says(&bench, 0, &script);
        for (p = 2; p < PORTS; p++) {
            announce(&bench, p, 1);
            script.count = 0;
            say(&script, 1, 2, 60);
            say(&script, 1, 2, 60);
            bench_says(&bench, 0, &script);
        }
    }
    bench_close(&bench);
}

/* A table that has no room does not learn, and what it has forgotten goes to all. */
static void a_full_table_within_a_write(void)
{
    enum { COUNT = 400 };
    static struct bench bench;
    qnet_hub_stats stats;
    uint8_t frame[RAW_PREFIX + LONGEST];
    uint64_t after;
    size_t at = 0;
    uint8_t *wire = allocate(COUNT * sizeof frame);
    int i;

    bench_open(&bench, 0);
    CHECK_INT(qnet_hub_set(bench.hub, QNET_OPT_MAC_MAX, 4), QNET_OK);
    script.count = 0;
    for (i = 0; i < COUNT; i++) {
        say(&script, i % 7, 10 + i % 9, 60);
        at += put_frame(wire + at, &script, (unsigned)i, (unsigned)i);
    }
    raw_write(bench.fd[0], wire, at);
    EVENTUALLY(stats_of(bench.conn[0]).rx_frames == COUNT);
    stats = hub_stats_of(bench.hub);
    after = stats.forwarded + stats.flooded + stats.dropped;
    CHECK_INT(after, COUNT);
    CHECK(stats.macs <= 4);
    /* Nobody was heard anywhere else, so every frame goes to all. */
    CHECK_INT(stats.flooded, COUNT);
    for (i = 1; i < PORTS; i++) {
        uint8_t *got = allocate(at);

        CHECK_INT(raw_read(bench.fd[i], got, at), 0);
        CHECK(memcmp(got, wire, at) == 0);
        free(got);
    }
    free(wire);
    bench_close(&bench);
}

int main(void)
{
    RUN(a_source_is_learned_where_it_is_a_destination);
    RUN(a_host_moves_in_the_middle);
    RUN(groups_are_not_learned);
    RUN(runts_are_skipped);
    RUN(more_pairs_than_are_remembered);
    RUN(pairs_that_are_nearly_alike);
    RUN(anything_from_anywhere);
    RUN(a_port_goes_between_two_writes);
    RUN(a_full_table_within_a_write);
    return check_done();
}
