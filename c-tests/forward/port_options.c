/*
 * port_options.c - what is set for the ports of a hub, and what becomes of each frame then:
 * isolation, floods, groups, limits, security, moves, storms and mirrors, by exact count.
 */
#include "lab.h"

enum { STRANGER = 77 };

static void check_refused(const struct lab *lab, int port, uint64_t want)
{
    CHECK_INT(stats_of(lab->conns[port]).rx_refused, want);
}

/* Sends a frame to the group of those first five bytes and that last one. */
static void says_to_group(const struct lab *lab, int port, uint8_t last)
{
    uint8_t frame[LAB_FRAME] = { 0x01, 0x80, 0xc2, 0, 0, last, 2, 0, 0, 0, 0, 9, 0x88, 0xcc };

    lab_send(lab, port, frame, sizeof frame);
}

/* ---- Where frames go ---- */

static void isolated_ports(void)
{
    struct lab lab;

    lab_open(&lab, 4);
    lab_set(&lab, 0, QNET_OPT_ISOLATED, 1);
    lab_set(&lab, 1, QNET_OPT_ISOLATED, 1);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "0011");
    lab_says(&lab, 2, 3, EVERYBODY);
    lab_got(&lab, "1101");
    lab_says(&lab, 1, 2, STRANGER);
    lab_got(&lab, "0011");
    lab_says(&lab, 1, 2, 1);
    lab_got(&lab, "0000");
    lab_says(&lab, 1, 2, 3);
    lab_says(&lab, 2, 3, 2);
    lab_got(&lab, "0110");
    CHECK_INT(lab_counts(&lab).refused_isolated, 1);
    check_refused(&lab, 1, 1);
    lab_set(&lab, 1, QNET_OPT_ISOLATED, 0);
    lab_says(&lab, 1, 2, 1);
    lab_says(&lab, 0, 1, 2);
    lab_got(&lab, "1100");
    CHECK_INT(lab_counts(&lab).refused_isolated, 1);
    lab_close(&lab);
}

static void floods_by_class(void)
{
    uint8_t multicast[LAB_FRAME] = { 0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9 };
    struct lab lab;
    int bits;
    char digits[] = "000000000";

    lab_open(&lab, 9);
    for (bits = 0; bits < 8; bits++)
        lab_set(&lab, bits + 1, QNET_OPT_FLOOD, bits);
    lab_says(&lab, 0, 1, STRANGER);
    lab_got(&lab, "001010101");
    lab_send(&lab, 0, multicast, sizeof multicast);
    lab_got(&lab, "000110011");
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "000001111");
    /* What is known is no flood, and a flood that no port takes is one. */
    for (bits = 0; bits < 8; bits++) {
        lab_says(&lab, bits + 1, 10 + bits, 1);
        lab_set(&lab, bits + 1, QNET_OPT_FLOOD, 0);
    }
    digits[0] = '8';
    lab_got(&lab, digits);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "000000000");
    CHECK_INT(lab_counts(&lab).flooded, 4);
    lab_close(&lab);
}

/* A hub forwards what a switch of the standard keeps to itself, unless told otherwise. */
static void groups_of_switches(void)
{
    static const uint8_t neighbours[][6] = {
        { 0x01, 0x80, 0xc2, 0, 0, 0x10 }, { 0x01, 0x80, 0xc2, 0, 1, 0 }, { 0x01, 0, 0x5e, 0, 0, 1 },
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, { 0x02, 0x80, 0xc2, 0, 0, 0 },
    };
    uint8_t frame[LAB_FRAME] = { 0 };
    struct lab lab;
    int last;
    size_t i;

    lab_open(&lab, 2);
    for (last = 0; last < 16; last++) {
        lab_set_hub(&lab, QNET_OPT_GROUP_FWD_MASK, 65535);
        says_to_group(&lab, 0, (uint8_t)last);
        lab_got(&lab, "01");
        lab_set_hub(&lab, QNET_OPT_GROUP_FWD_MASK, 1 << last);
        says_to_group(&lab, 0, (uint8_t)last);
        lab_got(&lab, "01");
        lab_set_hub(&lab, QNET_OPT_GROUP_FWD_MASK, 65535 - (1 << last));
        says_to_group(&lab, 0, (uint8_t)last);
        lab_got(&lab, "00");
        lab_set_hub(&lab, QNET_OPT_GROUP_FWD_MASK, 0);
        says_to_group(&lab, 1, (uint8_t)last);
        lab_got(&lab, "00");
    }
    CHECK_INT(lab_counts(&lab).refused_group, 32);
    check_refused(&lab, 0, 16);
    check_refused(&lab, 1, 16);
    /* A refused frame teaches nothing: the device was heard where its frames passed. */
    CHECK(lab_find(&lab, 9, 0).conn == lab.conns[0]);
    for (i = 0; i < sizeof neighbours / sizeof *neighbours; i++) {
        memcpy(frame, neighbours[i], MAC_LEN);
        lab_send(&lab, 0, frame, sizeof frame);
        lab_got(&lab, "01");
    }
    lab_close(&lab);
}

/* ---- Limits and security ---- */

static void limits_of_addresses(void)
{
    struct lab lab;
    int i;

    lab_open(&lab, 3);
    lab_set_hub(&lab, QNET_OPT_MAC_AGE_S, 10);
    lab_set(&lab, 0, QNET_OPT_MAC_LIMIT, 2);
    CHECK_INT(lab_fix(&lab, 9, 0, 0), QNET_OK);
    /* Further frames pass, and their sources are not learned. */
    for (i = 1; i <= 3; i++)
        lab_says(&lab, 0, i, EVERYBODY);
    lab_got(&lab, "033");
    CHECK_INT(lab_known(&lab), 2);
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[0]);
    /* Nor do they move here; what is known here may leave. */
    lab_says(&lab, 1, 2, EVERYBODY);
    lab_says(&lab, 0, 2, EVERYBODY);
    lab_got(&lab, "112");
    CHECK(lab_find(&lab, 2, 0).conn == lab.conns[1]);
    lab_says(&lab, 1, 1, EVERYBODY);
    CHECK_INT(lab_counts(&lab).moves, 1);
    lab_says(&lab, 0, 2, EVERYBODY);
    CHECK(lab_find(&lab, 2, 0).conn == lab.conns[0]);
    CHECK_INT(lab_counts(&lab).moves, 2);
    lab_got(&lab, "112");
    /* Each VLAN's counts. A lower limit forgets nothing, and aged ones count no more. */
    lab_set(&lab, 0, QNET_OPT_MAC_LIMIT, 1);
    CHECK_INT(lab_known(&lab), 3);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, -1), 2);
    set_vlan(lab.conns[0], "tunnel 5");
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK(lab_find(&lab, 1, 5).conn == lab.conns[0]);
    set_vlan(lab.conns[1], "tunnel 5");
    advance(lab.clock, 9999 * ms);
    lab_says(&lab, 0, 2, EVERYBODY);
    CHECK_INT(lab_known(&lab), 1);
    advance(lab.clock, 10000 * ms);
    lab_says(&lab, 0, 2, EVERYBODY);
    CHECK(lab_find(&lab, 2, 5).conn == lab.conns[0]);
    CHECK_INT(lab_known(&lab), 1);
    lab_drain(&lab);
    lab_close(&lab);
}

static void secure_ports(void)
{
    static const uint8_t from_group[LAB_FRAME] = { 2, 0, 0, 0, 0, 9, 3, 0, 0, 0, 0, 9 };
    struct lab lab;

    lab_open(&lab, 3);
    lab_set_hub(&lab, QNET_OPT_MAC_AGE_S, 10);
    lab_set(&lab, 0, QNET_OPT_SECURE, 1);
    lab_set(&lab, 0, QNET_OPT_MAC_LIMIT, 1);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    /* One that has no place, and one that no device has. */
    lab_says(&lab, 0, 2, EVERYBODY);
    lab_send(&lab, 0, from_group, sizeof from_group);
    lab_got(&lab, "000");
    CHECK_INT(lab_counts(&lab).refused_secure, 2);
    check_refused(&lab, 0, 2);
    /* One that is known there does not leave until it has aged. */
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_counts(&lab).refused_secure, 3);
    check_refused(&lab, 1, 1);
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[0]);
    CHECK_INT(lab_find(&lab, 1, 0).flags, QNET_FDB_SECURE);
    advance(lab.clock, 10000 * ms);
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "101");
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[1]);
    CHECK_INT(lab_counts(&lab).moves, 0);
    /* One may come from a port that is not. */
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[0]);
    /* A static one elsewhere cannot be learned here. Its frames pass at other ports. */
    CHECK_INT(lab_fix(&lab, 5, 0, 1), QNET_OK);
    lab_set(&lab, 0, QNET_OPT_MAC_LIMIT, 0);
    lab_says(&lab, 0, 5, EVERYBODY);
    lab_got(&lab, "000");
    lab_says(&lab, 2, 5, EVERYBODY);
    lab_got(&lab, "110");
    CHECK_INT(lab_fix(&lab, 6, 0, 0), QNET_OK);
    lab_says(&lab, 2, 6, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_find(&lab, 6, 0).flags, QNET_FDB_STATIC);
    CHECK_INT(lab_counts(&lab).refused_secure, 5);
    /* A table in which nothing is learned. */
    lab_set_hub(&lab, QNET_OPT_MAC_MAX, 0);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "000");
    lab_set(&lab, 0, QNET_OPT_SECURE, 0);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    CHECK_INT(lab_counts(&lab).refused_secure, 6);
    lab_close(&lab);
}

/* A port tells of far more addresses than the table has room for. */
static void flood_table(struct lab *lab, int port)
{
    unsigned i;

    for (i = 0; i < 40; i++)
        lab_says(lab, port, 10 + i, EVERYBODY);
    lab_drain(lab);
}

/* A flood of new addresses does not have the table forget what is to stay where it is. */
static void full_tables(void)
{
    const unsigned known = 1;
    struct lab lab;

    lab_open(&lab, 3);
    lab_set_hub(&lab, QNET_OPT_MAC_MAX, 4);
    lab_set(&lab, 0, QNET_OPT_SECURE, 1);
    lab_says(&lab, 0, known, EVERYBODY);
    flood_table(&lab, 1);
    lab_says(&lab, 1, known, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_counts(&lab).refused_secure, 1);
    CHECK(lab_find(&lab, known, 0).conn == lab.conns[0]);
    CHECK_INT(lab_known(&lab), 4);
    lab_set(&lab, 0, QNET_OPT_SECURE, 0);
    lab_set_hub(&lab, QNET_OPT_MOVE_MS, 200);
    lab_says(&lab, 0, known, EVERYBODY);
    flood_table(&lab, 1);
    lab_says(&lab, 1, known, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_counts(&lab).refused_move, 1);
    /* Without either, it makes place for others. */
    lab_set_hub(&lab, QNET_OPT_MOVE_MS, 0);
    advance(lab.clock, 11000 * ms);
    flood_table(&lab, 1);
    lab_says(&lab, 1, known, EVERYBODY);
    lab_got(&lab, "101");
    lab_close(&lab);
}

/* ---- Moves and loops ---- */

static void moves_wait(void)
{
    struct lab lab;

    lab_open(&lab, 3);
    lab_set_hub(&lab, QNET_OPT_MOVE_MS, 200);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    advance(lab.clock, 200 * ms - 1);
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "000");
    check_refused(&lab, 1, 1);
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[0]);
    /* Each frame at its port makes it stay. */
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    advance(lab.clock, 200 * ms);
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_counts(&lab).refused_move, 2);
    advance(lab.clock, 400 * ms - 1);
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "101");
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[1]);
    CHECK_INT(lab_find(&lab, 1, 0).moves, 1);
    lab_set_hub(&lab, QNET_OPT_MOVE_MS, 0);
    lab_says(&lab, 2, 1, EVERYBODY);
    lab_got(&lab, "110");
    CHECK_INT(lab_counts(&lab).moves, 2);
    CHECK_INT(lab_find(&lab, 1, 0).moves, 2);
    lab_close(&lab);
}

/* Has the frames that two cables carry between two hubs go on, each cable a pair of sockets. */
static int carry(const struct lab *one, const struct lab *other, int most)
{
    int carried = 0, cable, way;
    uint8_t frame[200];

    while (carried < most) {
        int before = carried;

        for (cable = 1; cable <= 2; cable++)
            for (way = 0; way < 2; way++) {
                const struct lab *from = way ? other : one, *to = way ? one : other;

                while (carried < most && raw_has(from->fds[cable])) {
                    long len = raw_recv(from->fds[cable], frame, sizeof frame);

                    lab_send(to, cable, frame, (size_t)len);
                    carried++;
                }
            }
        if (carried == before)
            break;
    }
    return carried;
}

/* Two hubs joined twice are a loop. */
static void a_loop_carries_each_broadcast_once(void)
{
    struct lab one, other;
    int i;

    lab_open(&one, 4);
    lab_open(&other, 4);
    lab_set_hub(&one, QNET_OPT_MOVE_MS, 200);
    lab_set_hub(&other, QNET_OPT_MOVE_MS, 200);
    for (i = 0; i < 10; i++) {
        lab_says(&one, 0, 1, EVERYBODY);
        /* Two cables carry it there, and the first of them has it carried back. */
        CHECK_INT(carry(&one, &other, 1000), 3);
        CHECK_INT(lab_take(&one, 3), 1);
        CHECK_INT(lab_take(&other, 0), 1);
        CHECK_INT(lab_take(&other, 3), 1);
    }
    CHECK_INT(lab_counts(&one).refused_move, 10);
    CHECK_INT(lab_counts(&other).refused_move, 10);
    CHECK_INT(lab_counts(&one).flooded, 10);
    CHECK_INT(lab_counts(&other).flooded, 10);
    /* A device at the other side is found, whichever way its frames took. */
    lab_says(&other, 0, 2, EVERYBODY);
    carry(&other, &one, 1000);
    lab_drain(&one);
    lab_drain(&other);
    lab_says(&one, 0, 1, 2);
    CHECK_INT(carry(&one, &other, 1000), 1);
    CHECK_INT(lab_take(&other, 0), 1);
    lab_close(&one);
    lab_close(&other);
}

/* Without that it goes round for ever, and no faster than the storm limits of the cables. */
static void a_loop_is_held_by_storm_limits(void)
{
    struct lab one, other;
    int i;

    lab_open(&one, 3);
    lab_open(&other, 3);
    for (i = 1; i <= 2; i++) {
        lab_set(&one, i, QNET_OPT_STORM_FPS, 100);
        lab_set(&other, i, QNET_OPT_STORM_FPS, 100);
    }
    for (i = 0; i < 5; i++)
        lab_says(&one, 0, 1, EVERYBODY);
    CHECK(carry(&one, &other, 1000) < 1000);
    /* All four buckets of ten are empty, and each broadcast has been refused in both directions. */
    CHECK_INT(lab_counts(&one).flooded, 5 + 20);
    CHECK_INT(lab_counts(&other).flooded, 20);
    CHECK_INT(lab_counts(&one).refused_storm + lab_counts(&other).refused_storm, 10);
    lab_drain(&one);
    lab_drain(&other);
    lab_close(&one);
    lab_close(&other);
}

/* ---- Storms ---- */

static void storms_are_limited_to_the_frame(void)
{
    struct flow flow = flow_of_one_size(&short_frame);
    struct lab lab;
    int i;

    lab_open(&lab, 2);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 30);
    /* Full at first: a tenth of a second's. One more comes each 33,333,333 and a third ns. */
    raw_send_flow(lab.fds[0], &flow, 100, 0);
    lab_settle(&lab);
    CHECK_INT(lab_take(&lab, 1), 3);
    CHECK_INT(lab_counts(&lab).refused_storm, 97);
    check_refused(&lab, 0, 97);
    advance(lab.clock, 33333333);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "00");
    advance(lab.clock, 33333334);
    lab_says(&lab, 0, 1, STRANGER);
    lab_says(&lab, 0, 1, STRANGER);
    lab_got(&lab, "01");
    advance(lab.clock, 66666667);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "01");
    /* Known destinations are no flood. Another option changes nothing about it. */
    lab_says(&lab, 1, 2, EVERYBODY);
    for (i = 0; i < 20; i++)
        lab_says(&lab, 0, 1, 2);
    CHECK_INT(lab_take(&lab, 1), 20);
    lab_set(&lab, 0, QNET_OPT_ISOLATED, 1);
    set_vlan(lab.conns[0], "trunk native 1");
    set_vlan(lab.conns[1], "trunk native 1");
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "10");
    /* Ten seconds bring 300, of which three have room. Another limit begins with as much as it holds. */
    advance(lab.clock, 10000 * ms);
    for (i = 0; i < 5; i++)
        lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_take(&lab, 1), 3);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 1);
    for (i = 0; i < 5; i++)
        lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_take(&lab, 1), 1);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 0);
    for (i = 0; i < 50; i++)
        lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_take(&lab, 1), 50);
    lab_close(&lab);
}

/* Frames of several lengths in one read: those before the limit pass, in order. */
static void a_storm_in_one_read(void)
{
    static const size_t lens[] = { 60, 61, 60, 60, 100, 80, 60, 60 };
    uint8_t wire[1000], frame[100];
    size_t i, at = 0;
    struct lab lab;

    lab_open(&lab, 2);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 50);
    for (i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct word word = { EVERYBODY, 1, 0, 0 };

        word.number = (unsigned)i;
        word.len = lens[i];
        word_make(frame, word);
        raw_put_length(wire + at, word.len);
        memcpy(wire + at + 4, frame, word.len);
        at += 4 + word.len;
    }
    raw_write(lab.fds[0], wire, at);
    lab_settle(&lab);
    for (i = 0; i < 5; i++) {
        struct word word = raw_hear(lab.fds[1]);

        CHECK_INT(word.number, i);
        CHECK_INT(word.len, lens[i]);
    }
    CHECK_INT(lab_counts(&lab).refused_storm, 3);
    lab_close(&lab);
}

/* ---- Mirrors ---- */

static void mirrors_get_copies(void)
{
    static const char *const got[] = { "010", "011", "011", "012" };
    struct lab lab;
    int what;

    lab_open(&lab, 3);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 1, 2, EVERYBODY);
    lab_says(&lab, 2, 3, EVERYBODY);
    lab_drain(&lab);
    lab_set(&lab, 2, QNET_OPT_MIRROR, 1);
    CHECK_INT(lab_known(&lab), 2);
    /* By default what comes in. What is to go there goes nowhere, and what it sends is refused. */
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    lab_says(&lab, 0, 1, 3);
    lab_got(&lab, "011");
    lab_says(&lab, 2, 3, 1);
    lab_says(&lab, 2, 3, EVERYBODY);
    lab_got(&lab, "000");
    CHECK_INT(lab_fix(&lab, 4, 0, 2), QNET_OK);
    lab_says(&lab, 0, 1, 4);
    lab_got(&lab, "001");
    CHECK_INT(lab_counts(&lab).refused_isolated, 3);
    check_refused(&lab, 2, 2);
    check_refused(&lab, 0, 1);
    CHECK_INT(lab_counts(&lab).mirrored, 3);
    /* Of the sender what comes, of the receiver what goes. */
    for (what = 0; what < 4; what++) {
        lab_set(&lab, 0, QNET_OPT_MIRRORED, what & 1);
        lab_set(&lab, 1, QNET_OPT_MIRRORED, what & 2);
        lab_says(&lab, 0, 1, 2);
        lab_got(&lab, got[what]);
        lab_says(&lab, 0, 1, EVERYBODY);
        lab_got(&lab, got[what]);
    }
    CHECK_INT(lab_counts(&lab).mirrored, 3 + 2 * (0 + 1 + 1 + 2));
    CHECK_INT(lab_counts(&lab).forwarded, 4);
    lab_set(&lab, 2, QNET_OPT_MIRROR, 0);
    lab_says(&lab, 2, 3, 1);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "111");
    lab_close(&lab);
}

/* Two mirrors get a copy each; one gets none of what it sends itself. */
static void several_mirrors(void)
{
    struct lab lab;

    lab_open(&lab, 4);
    lab_set(&lab, 2, QNET_OPT_MIRROR, 1);
    lab_set(&lab, 3, QNET_OPT_MIRROR, 1);
    lab_set(&lab, 2, QNET_OPT_MIRRORED, 3);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "0111");
    lab_says(&lab, 2, 3, EVERYBODY);
    lab_got(&lab, "0001");
    CHECK_INT(lab_counts(&lab).mirrored, 3);
    lab_close(&lab);
}

/* A copy is as the frame came or went, with the tags of that place; refused ones are copied, too. */
static void copies_have_their_tags(void)
{
    static const uint8_t tagged[LAB_FRAME] = { 255, 255, 255, 255, 255, 255, 2,    0, 0,
                                               0,   0,   1,   0x81, 0, 0x60, 10, 8, 0 };
    uint8_t bare[LAB_FRAME - 4], lost[LAB_FRAME];
    struct lab lab;

    lab_open(&lab, 3);
    set_vlan(lab.conns[0], "trunk 10");
    set_vlan(lab.conns[1], "access 10");
    set_vlan(lab.conns[2], "access 99");
    lab_set(&lab, 1, QNET_OPT_MIRRORED, 2);
    lab_set(&lab, 2, QNET_OPT_MIRROR, 1);
    memcpy(bare, tagged, TYPE_AT);
    memcpy(bare + TYPE_AT, tagged + TYPE_AT + 4, sizeof bare - TYPE_AT);
    lab_send(&lab, 0, tagged, sizeof tagged);
    lab_take_same(&lab, 1, bare, sizeof bare);
    CHECK_INT(raw_recv(lab.fds[2], lost, sizeof lost), sizeof tagged);
    CHECK(memcmp(lost, tagged, sizeof tagged) == 0);
    lab_take_same(&lab, 2, bare, sizeof bare);
    memcpy(lost, tagged, sizeof lost);
    lost[15] = 11;
    lab_send(&lab, 0, lost, sizeof lost);
    lab_take_same(&lab, 2, lost, sizeof lost);
    CHECK_INT(lab_counts(&lab).refused_vlan, 1);
    CHECK_INT(lab_counts(&lab).mirrored, 3);
    lab_close(&lab);
}

/* What a storm limit refuses is copied as it came. What no port sends is not. */
static void copies_of_what_is_lost(void)
{
    struct lab lab;
    int i;

    lab_open(&lab, 3);
    lab_set(&lab, 2, QNET_OPT_MIRROR, 1);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 10);
    lab_set(&lab, 1, QNET_OPT_MIRRORED, 3);
    for (i = 0; i < 3; i++)
        lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "014");
    CHECK_INT(lab_counts(&lab).refused_storm, 2);
    lab_set(&lab, 1, QNET_OPT_LINK, 0);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 0);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 1, 2, EVERYBODY);
    lab_got(&lab, "001");
    lab_set(&lab, 1, QNET_OPT_LINK, 1);
    lab_says(&lab, 1, 2, 1);
    lab_says(&lab, 0, 1, 2);
    lab_got(&lab, "113");
    CHECK_INT(hub_stats_of(lab.hub).dropped, 1);
    CHECK_INT(qnet_hub_close(lab.hub), QNET_OK);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_close(lab.conns[i]), QNET_OK);
        CHECK(close(lab.fds[i]) == 0);
    }
    clock_close(lab.clock);
}

/* ---- The order of reasons ---- */

/* A frame for which there are several reasons counts for the first alone. */
static void the_first_reason_counts(void)
{
    uint8_t frame[LAB_FRAME] = { 0x01, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 20, 8, 0 };
    struct lab lab;

    lab_open(&lab, 3);
    lab_set_hub(&lab, QNET_OPT_GROUP_FWD_MASK, 0);
    lab_set_hub(&lab, QNET_OPT_MOVE_MS, 1000);
    set_vlan(lab.conns[0], "access 10");
    set_vlan(lab.conns[1], "access 10");
    set_vlan(lab.conns[2], "access 10");
    lab_set(&lab, 1, QNET_OPT_SECURE, 1);
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_says(&lab, 2, 2, EVERYBODY);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 10);
    lab_set(&lab, 0, QNET_OPT_ISOLATED, 1);
    lab_set(&lab, 0, QNET_OPT_MIRROR, 1);
    lab_send(&lab, 0, frame, sizeof frame);
    CHECK_INT(lab_counts(&lab).refused_isolated, 1);
    lab_set(&lab, 0, QNET_OPT_MIRROR, 0);
    lab_send(&lab, 0, frame, sizeof frame);
    CHECK_INT(lab_counts(&lab).refused_vlan, 1);
    memset(frame + TYPE_AT, 0, 4);
    lab_send(&lab, 0, frame, sizeof frame);
    CHECK_INT(lab_counts(&lab).refused_group, 1);
    memset(frame, 255, MAC_LEN);
    lab_send(&lab, 0, frame, sizeof frame);
    CHECK_INT(lab_counts(&lab).refused_secure, 1);
    lab_set(&lab, 1, QNET_OPT_SECURE, 0);
    lab_send(&lab, 0, frame, sizeof frame);
    CHECK_INT(lab_counts(&lab).refused_move, 1);
    /* What is for where it came from is dropped, isolated or not. */
    lab_says(&lab, 0, 7, EVERYBODY);
    lab_says(&lab, 0, 8, 7);
    CHECK_INT(lab_counts(&lab).dropped, 1);
    lab_says(&lab, 0, 7, EVERYBODY);
    CHECK_INT(lab_counts(&lab).refused_storm, 1);
    CHECK_INT(lab_counts(&lab).received, 10);
    lab_drain(&lab);
    lab_close(&lab);
}

/* ---- Settings ---- */

struct setting {
    int option;
    int64_t normal, most;
};

static void settings_have_ranges(void)
{
    static const struct setting settings[] = {
        { QNET_OPT_ISOLATED, 0, 1 },         { QNET_OPT_FLOOD, 7, 7 },
        { QNET_OPT_MAC_LIMIT, 0, INT32_MAX }, { QNET_OPT_SECURE, 0, 1 },
        { QNET_OPT_STORM_FPS, 0, INT32_MAX }, { QNET_OPT_MIRROR, 0, 1 },
        { QNET_OPT_MIRRORED, 1, 3 },
    };
    qnet_listener *listener;
    struct lab lab;
    int64_t value;
    size_t i;

    CHECK_INT(qnet_listen("tcp", "127.0.0.1:0", &listener), QNET_OK);
    lab_open(&lab, 2);
    for (i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *it = &settings[i];

        CHECK_INT(it->option, QNET_OPT_ISOLATED + (int)i);
        CHECK_INT(qnet_get(lab.conns[0], it->option, &value), QNET_OK);
        CHECK_INT(value, it->normal);
        lab_set(&lab, 0, it->option, it->most);
        CHECK_INT(qnet_set(lab.conns[0], it->option, -1), QNET_ERR_INVALID);
        CHECK_INT(qnet_set(lab.conns[0], it->option, it->most + 1), QNET_ERR_INVALID);
        CHECK_INT(qnet_get(lab.conns[0], it->option, &value), QNET_OK);
        CHECK_INT(value, it->most);
        CHECK_INT(qnet_get(lab.conns[1], it->option, &value), QNET_OK);
        CHECK_INT(value, it->normal);
        CHECK_INT(qnet_listener_set(listener, it->option, it->most), QNET_OK);
        CHECK_INT(qnet_listener_get(listener, it->option, &value), QNET_OK);
        CHECK_INT(value, it->most);
        lab_set(&lab, 0, it->option, it->normal);
    }
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "01");
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    lab_close(&lab);
}

/* Unplugged and plugged in elsewhere, a connection has what was set. */
static void settings_go_with_the_connection(void)
{
    struct lab lab, other;

    lab_open(&lab, 2);
    lab_open(&other, 2);
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[0]), QNET_OK);
    lab_set(&lab, 0, QNET_OPT_STORM_FPS, 20);
    CHECK_INT(qnet_hub_attach(lab.hub, lab.conns[0]), QNET_OK);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "02");
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[0]), QNET_OK);
    CHECK_INT(qnet_hub_attach(other.hub, lab.conns[0]), QNET_OK);
    other.conns[2] = lab.conns[0];
    other.fds[2] = lab.fds[0];
    other.count = 3;
    lab_says(&other, 2, 1, EVERYBODY);
    lab_says(&other, 2, 1, EVERYBODY);
    lab_says(&other, 2, 1, EVERYBODY);
    lab_got(&other, "220");
    CHECK_INT(lab_counts(&other).refused_storm, 1);
    lab.conns[0] = lab.conns[1];
    lab.fds[0] = lab.fds[1];
    lab.count = 1;
    lab_close(&other);
    lab_close(&lab);
}

int main(void)
{
    RUN(isolated_ports);
    RUN(floods_by_class);
    RUN(groups_of_switches);
    RUN(limits_of_addresses);
    RUN(secure_ports);
    RUN(full_tables);
    RUN(moves_wait);
    RUN(a_loop_carries_each_broadcast_once);
    RUN(a_loop_is_held_by_storm_limits);
    RUN(storms_are_limited_to_the_frame);
    RUN(a_storm_in_one_read);
    RUN(mirrors_get_copies);
    RUN(several_mirrors);
    RUN(copies_have_their_tags);
    RUN(copies_of_what_is_lost);
    RUN(the_first_reason_counts);
    RUN(settings_have_ranges);
    RUN(settings_go_with_the_connection);
    return check_done();
}
