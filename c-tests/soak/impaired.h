/*
 * impaired.h - lives of two connections that are linked, or are on a hub of their own, and of
 * which each is impaired, pulled and plugged in while both sides send: on the system's clock, or
 * on one that the program moves. On a hub they have rules that change, too, and some are captured.
 * Every frame is counted by what became of it.
 */
#ifndef IMPAIRED_H
#define IMPAIRED_H

#include "recorded.h"
#include "streams.h"

struct house {
    struct plain sides[2];
    qnet_conn *conns[2];
    qnet_hub *hub;     /* NULL: they are linked */
    qnet_clock *clock; /* NULL: the system's */
    struct recorded recorded;
};

static inline void house_open(struct house *house, int has_clock)
{
    int i, fd;

    memset(house, 0, sizeof *house);
    recorded_open(&house->recorded);
    if (has_clock)
        CHECK_INT(qnet_clock_new(&house->clock), QNET_OK);
    if (pick(3) == 0) {
        CHECK_INT(qnet_hub_new(&house->hub), QNET_OK);
        CHECK_INT(qnet_hub_set_clock(house->hub, house->clock), QNET_OK);
        recorded_add_hub(&house->recorded, house->hub);
    }
    for (i = 0; i < 2; i++) {
        house->conns[i] = open_any(&fd);
        CHECK_INT(qnet_impair(house->conns[i], QNET_BOTH, "delay 1ms"), QNET_OK);
        if (house->hub)
            CHECK_INT(qnet_hub_attach(house->hub, house->conns[i]), QNET_OK);
        plain_start(&house->sides[i], fd, IN_ANY_ORDER, (int)pick(2000));
    }
    if (!house->hub && has_clock)
        CHECK_INT(qnet_link_on(house->clock, house->conns[0], house->conns[1]), QNET_OK);
    else if (!house->hub)
        CHECK_INT(qnet_link(house->conns[0], house->conns[1]), QNET_OK);
}

/* Something else is set for one of them on the hub, or for that. */
static inline void house_rule(struct house *house)
{
    static const char *const texts[] = { NULL, "access 10", "trunk 20 native 10", "trunk native 20", "tunnel 10" };
    static const int options[] = { QNET_OPT_ISOLATED, QNET_OPT_FLOOD, QNET_OPT_MAC_LIMIT, QNET_OPT_SECURE,
                                   QNET_OPT_STORM_FPS, QNET_OPT_MIRROR, QNET_OPT_MIRRORED };
    static const unsigned limits[] = { 2, 8, 100, 2, 2000, 2, 4 };
    size_t which = pick(sizeof options / sizeof *options);
    qnet_conn *conn = house->conns[pick(2)];
    uint8_t frame[14];

    frame_make(frame, sizeof frame, pick(2000));
    switch (pick(8)) {
    case 0:
        CHECK_INT(qnet_set_vlan(conn, texts[pick(sizeof texts / sizeof *texts)]), QNET_OK);
        break;
    case 1:
        CHECK_INT(qnet_hub_set(house->hub, QNET_OPT_MOVE_MS, pick(2) * 5), QNET_OK);
        break;
    case 2:
        CHECK_INT(qnet_hub_set(house->hub, QNET_OPT_MAC_MAX, pick(2) * 100), QNET_OK);
        break;
    case 3:
        CHECK_INT(qnet_hub_fdb_add(house->hub, frame, (int)pick(3) * 10, conn), QNET_OK);
        break;
    case 4:
        CHECK(qnet_hub_fdb_remove(house->hub, pick(4) ? frame : NULL, -1) >= 0);
        break;
    default:
        CHECK_INT(qnet_set(conn, options[which], pick(2) * pick(limits[which])), QNET_OK);
    }
}

/* Something else is set on one of them. There is always a text, so that all frames are counted. */
static inline void house_change(struct house *house)
{
    static const char *const texts[] = {
        "delay 1ms", "loss 10% 25%", "delay 5ms 5ms distribution pareto reorder", "limit 5 seed 1",
        "duplicate 20% loss gemodel 1% 10%", "rate 200mbit limit 100 delay 2ms", "loss 0%",
        "rate 500mbit limit 100kb mark 1ms", "delay 20ms 1ms 50% reorder 25% gap 3 duplicate 5%",
        "loss every 7 delay 100us match 4,128 0 0 0,21 0 1 60,6 0 0 1,6 0 0 0",
    };
    qnet_conn *conn = house->conns[pick(2)];

    recorded_change(&house->recorded, conn);
    if (house->hub)
        house_rule(house);
    switch (pick(8)) {
    case 0:
        CHECK_INT(qnet_set(conn, QNET_OPT_LINK, pick(3) > 0), QNET_OK);
        break;
    case 1:
        CHECK_INT(qnet_set(conn, QNET_OPT_FLIGHT_BYTES, 131072 << pick(10)), QNET_OK);
        break;
    case 2:
        CHECK_INT(qnet_set(conn, QNET_OPT_OUTLIVE, pick(2)), QNET_OK);
        break;
    default:
        CHECK_INT(qnet_impair(conn, 1 + (int)pick(3), texts[pick(sizeof texts / sizeof *texts)]),
                  QNET_OK);
    }
}

/* The counts of a direction, in which every frame is by what became of it. */
static inline qnet_impair_stats house_counts(qnet_conn *conn, int direction)
{
    qnet_impair_stats stats;

    CHECK_INT(qnet_get_impair_stats(conn, direction, &stats, sizeof stats), sizeof stats);
    CHECK_INT(stats.frames + stats.duplicated, stats.lost + stats.dropped + stats.discarded +
                                                   stats.passed + stats.waiting + stats.flying);
    return stats;
}

/* Whether what came out of one side is all written at the other, or counted there. */
static inline int house_has_written(struct house *house, int to)
{
    qnet_impair_stats in = house_counts(house->conns[!to], QNET_IN);
    qnet_impair_stats out = house_counts(house->conns[to], QNET_OUT);
    qnet_stats stats = stats_of(house->conns[to]);
    uint64_t past = house->hub ? 0 : in.passed - out.frames; /* dropped at a pulled cable */

    return stats.tx_frames + stats.tx_dropped >= past + out.passed &&
           (uint64_t)get(&house->sides[to].in.came) >= stats.tx_frames;
}

/* Whether all that the plain sides have to write has gone as far as it will. */
static inline int house_is_at_rest(struct house *house)
{
    int direction, i;

    for (i = 0; i < 2; i++)
        if (get(&house->sides[i].wrote) < house->sides[i].goal ||
            stats_of(house->conns[i]).rx_frames < (uint64_t)house->sides[i].goal)
            return 0;
    for (direction = QNET_IN; direction <= QNET_OUT; direction++)
        for (i = 0; i < 2; i++) {
            qnet_impair_stats stats = house_counts(house->conns[i], direction);

            if (stats.waiting + stats.flying > 0)
                return 0;
        }
    return house_has_written(house, 0) && house_has_written(house, 1);
}

/* How many frames a hub has taken in and refused. Each is counted once, but for what a full queue loses later. */
static inline uint64_t refused_in(qnet_hub *hub)
{
    qnet_hub_stats stats = hub_stats_of(hub);
    uint64_t refused = stats.refused_vlan + stats.refused_group + stats.refused_storm + stats.refused_secure +
                       stats.refused_move + stats.refused_isolated;
    uint64_t sum = stats.forwarded + stats.flooded + refused;

    CHECK(stats.received >= sum && stats.received <= sum + stats.dropped);
    return refused;
}

/* Nothing more has come out, and gone further, than has come in. */
static inline void house_check(struct house *house)
{
    uint64_t refused = 0, passed = 0;
    int i;

    for (i = 0; i < 2; i++) {
        qnet_impair_stats in = house_counts(house->conns[i], QNET_IN);
        qnet_impair_stats out = house_counts(house->conns[!i], QNET_OUT);
        qnet_stats from = stats_of(house->conns[i]), to = stats_of(house->conns[!i]);

        CHECK_INT(from.rx_frames, house->sides[i].goal);
        passed += in.passed;
        refused += in.frames + from.rx_refused - from.rx_frames;
        CHECK(in.frames + from.rx_refused >= from.rx_frames);
        CHECK_INT(get(&house->sides[!i].in.came), to.tx_frames);
        if (!house->hub)
            CHECK_INT(in.passed - out.frames + out.passed, to.tx_frames + to.tx_dropped);
    }
    CHECK_INT(refused, house->hub ? refused_in(house->hub) : 0);
    CHECK_INT(passed, house->hub ? hub_stats_of(house->hub).received : passed);
}

/* Lets time pass, and a clock's by as much. */
static inline void house_wait(struct house *house)
{
    int64_t now;
    int result;

    raw_sleep_ms(1);
    if (!house->clock)
        return;
    CHECK_INT(qnet_clock_next(house->clock, &now, NULL), QNET_OK);
    result = qnet_clock_advance(house->clock, now + pick(3000000));
    CHECK(result >= 0 || not_now(result));
}

/* One side's peer leaves, which ends the other side as well, unless it is on a hub or outlives that. */
static inline void house_ends(struct house *house)
{
    int stays = house->hub || pick(2);

    CHECK_INT(qnet_set(house->conns[1], QNET_OPT_OUTLIVE, stays), QNET_OK);
    plain_join(&house->sides[0], 1);
    reset_and_close(house->sides[0].fd);
    while (qnet_wait(house->conns[0], 0) != QNET_OK)
        house_wait(house);
    while (!stays && qnet_wait(house->conns[1], 0) != QNET_OK)
        house_wait(house);
    CHECK(!stays || qnet_close_reason(house->conns[1]) == QNET_OK);
}

static inline void house_close(struct house *house)
{
    uint64_t taken_in = 0;
    int direction, i;

    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet_shutdown(house->conns[i]), QNET_OK);
        for (direction = QNET_IN; direction <= QNET_OUT; direction++)
            CHECK_INT(house_counts(house->conns[i], direction).held_bytes, 0);
        taken_in += house_counts(house->conns[i], QNET_IN).frames;
        CHECK_INT(qnet_close(house->conns[i]), QNET_OK);
    }
    recorded_close(&house->recorded, house->hub ? &taken_in : NULL);
    if (house->hub)
        CHECK_INT(qnet_hub_close(house->hub), QNET_OK);
    if (house->clock)
        CHECK_INT(qnet_clock_close(house->clock), QNET_OK);
    plain_join(&house->sides[1], 1);
    CHECK(close(house->sides[1].fd) == 0);
}

static void house_lives(struct sort *sort, int has_clock)
{
    int is_cut_short = pick(3) == 0, left = (int)pick(100), i;
    struct house house;

    house_open(&house, has_clock);
    while (is_cut_short ? left-- > 0 : !house_is_at_rest(&house)) {
        house_change(&house);
        house_wait(&house);
    }
    if (!is_cut_short)
        house_check(&house);
    house_ends(&house);
    house_close(&house);
    for (i = 0; i < 2; i++) {
        __atomic_add_fetch(&sort->sent, house.sides[i].wrote, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&sort->received, house.sides[i].in.came, __ATOMIC_SEQ_CST);
    }
}

static void impaired_lives(struct sort *sort)
{
    house_lives(sort, 0);
}

static void clock_lives(struct sort *sort)
{
    house_lives(sort, 1);
}

#endif
