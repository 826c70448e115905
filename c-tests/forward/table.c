/*
 * table.c - what a hub knows of addresses: how it is listed, added to and removed from,
 * and how it ages; and a hub that learns nothing.
 */
#include <limits.h>

#include "lab.h"

static void hub_remove(const struct lab *lab, int n, int vlan, int want)
{
    uint8_t mac[MAC_LEN];

    mac_make(mac, n);
    CHECK_INT(qnet_hub_fdb_remove(lab->hub, mac, vlan), want);
}

static void entries_tell_all(void)
{
    qnet_fdb_entry entry;
    struct lab lab;

    lab_open(&lab, 3);
    CHECK_INT(lab_known(&lab), 0);
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_fix(&lab, 2, 0, 1), QNET_OK);
    CHECK_INT(lab_known(&lab), 2);
    advance(lab.clock, 1500 * ms);
    entry = lab_find(&lab, 1, 0);
    CHECK(entry.conn == lab.conns[0]);
    CHECK_INT(entry.flags, 0);
    CHECK_INT(entry.moves, 0);
    CHECK_INT(entry.age_ms, 1500);
    entry = lab_find(&lab, 2, 0);
    CHECK(entry.conn == lab.conns[1]);
    CHECK_INT(entry.flags, QNET_FDB_STATIC);
    CHECK_INT(entry.age_ms, 0);
    advance(lab.clock, 1500 * ms + 999999);
    CHECK_INT(lab_find(&lab, 1, 0).age_ms, 1500);
    lab_says(&lab, 2, 1, EVERYBODY);
    entry = lab_find(&lab, 1, 0);
    CHECK(entry.conn == lab.conns[2]);
    CHECK_INT(entry.moves, 1);
    CHECK_INT(entry.age_ms, 0);
    lab_set(&lab, 2, QNET_OPT_SECURE, 1);
    CHECK_INT(lab_find(&lab, 1, 0).flags, QNET_FDB_SECURE);
    CHECK_INT(lab_counts(&lab).macs, 2);
    /* It goes with its port. */
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[1]), QNET_OK);
    CHECK_INT(lab_known(&lab), 1);
    CHECK(lab_find(&lab, 2, 0).conn == NULL);
    CHECK_INT(qnet_hub_attach(lab.hub, lab.conns[1]), QNET_OK);
    lab_drain(&lab);
    lab_close(&lab);
}

/* A program's header may be newer than the library, and its array shorter than the table. */
static void entries_fill_what_fits(void)
{
    struct { qnet_fdb_entry entry; uint64_t more; } large[3];
    qnet_fdb_entry entries[3];
    struct lab lab;
    int i;

    CHECK_INT(sizeof(qnet_fdb_entry), 32);
    lab_open(&lab, 1);
    for (i = 1; i <= 3; i++)
        lab_says(&lab, 0, i, EVERYBODY);
    memset(large, 0xff, sizeof large);
    CHECK_INT(qnet_hub_fdb(lab.hub, &large[0].entry, sizeof *large, 2), 3);
    for (i = 0; i < 2; i++) {
        CHECK(large[i].entry.conn == lab.conns[0]);
        CHECK_INT(large[i].more, 0);
    }
    CHECK(large[2].more == UINT64_MAX && large[2].entry.age_ms == UINT64_MAX);
    memset(entries, 0xff, sizeof entries);
    CHECK_INT(qnet_hub_fdb(lab.hub, entries, sizeof *entries, 0), 3);
    CHECK_INT(qnet_hub_fdb(lab.hub, NULL, sizeof *entries, 0), 3);
    CHECK(entries[0].age_ms == UINT64_MAX);
    CHECK_INT(qnet_hub_fdb(lab.hub, entries, sizeof *entries, 3), 3);
    CHECK(memcmp(entries[0].mac, entries[1].mac, MAC_LEN) != 0);
    CHECK_INT(qnet_hub_fdb(lab.hub, entries, sizeof *entries - 1, 3), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb(lab.hub, NULL, 0, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb(lab.hub, NULL, sizeof *entries, 1), QNET_ERR_INVALID);
    lab_close(&lab);
}

static void what_is_old_is_not_known(void)
{
    struct lab lab;

    lab_open(&lab, 2);
    lab_set_hub(&lab, QNET_OPT_MAC_AGE_S, 10);
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_fix(&lab, 2, 0, 0), QNET_OK);
    advance(lab.clock, 10000 * ms - 1);
    CHECK_INT(lab_find(&lab, 1, 0).age_ms, 9999);
    advance(lab.clock, 10000 * ms);
    CHECK_INT(lab_known(&lab), 1);
    hub_remove(&lab, 1, -1, 0);
    advance(lab.clock, 1000000000 * ms);
    CHECK(lab_find(&lab, 2, 0).conn == lab.conns[0]);
    CHECK_INT(lab_find(&lab, 2, 0).age_ms, 0);
    /* Another place is no move then. */
    lab_says(&lab, 0, 1, EVERYBODY);
    advance(lab.clock, now_of(lab.clock) + 10000 * ms);
    lab_says(&lab, 1, 1, EVERYBODY);
    CHECK_INT(lab_find(&lab, 1, 0).moves, 0);
    CHECK_INT(lab_counts(&lab).moves, 0);
    lab_drain(&lab);
    lab_close(&lab);
}

/* Static ones neither move nor make room, and replace what was there. */
static void static_entries_stay(void)
{
    struct lab lab;
    int i;

    lab_open(&lab, 3);
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(lab_fix(&lab, 1, 0, 1), QNET_OK);
    CHECK_INT(lab_known(&lab), 1);
    CHECK_INT(lab_find(&lab, 1, 0).flags, QNET_FDB_STATIC);
    lab_drain(&lab);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 2, 2, 1);
    lab_got(&lab, "021");
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[1]);
    CHECK_INT(lab_fix(&lab, 1, 0, 2), QNET_OK);
    CHECK(lab_find(&lab, 1, 0).conn == lab.conns[2]);
    CHECK_INT(lab_counts(&lab).moves, 0);
    /* The table has three places: the oldest of those that were learned gives way. */
    lab_set_hub(&lab, QNET_OPT_MAC_MAX, 3);
    advance(lab.clock, ms);
    lab_says(&lab, 0, 3, EVERYBODY);
    CHECK_INT(lab_known(&lab), 3);
    CHECK_INT(lab_fix(&lab, 4, 0, 1), QNET_OK);
    CHECK(lab_find(&lab, 2, 0).conn == NULL && lab_find(&lab, 3, 0).conn == lab.conns[0]);
    CHECK_INT(lab_fix(&lab, 5, 0, 1), QNET_OK);
    CHECK(lab_find(&lab, 3, 0).conn == NULL);
    CHECK_INT(lab_fix(&lab, 6, 0, 1), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOSPC);
    CHECK_INT(lab_fix(&lab, 5, 0, 0), QNET_OK);
    for (i = 10; i < 40; i++)
        lab_says(&lab, 0, i, EVERYBODY);
    CHECK_INT(lab_known(&lab), 3);
    lab_set_hub(&lab, QNET_OPT_MAC_MAX, 1);
    CHECK_INT(lab_known(&lab), 3);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, -1), 0);
    hub_remove(&lab, 5, 0, 1);
    lab_drain(&lab);
    lab_close(&lab);
}

/* A port's static entries go when what was known behind it is forgotten. */
static void what_is_forgotten_with_a_port(void)
{
    struct lab lab;
    int i;

    lab_open(&lab, 2);
    for (i = 0; i < 4; i++) {
        CHECK_INT(lab_fix(&lab, 1, i == 3 ? 5 : 0, 0), QNET_OK);
        CHECK_INT(lab_fix(&lab, 2, 0, 1), QNET_OK);
        if (i == 0)
            lab_set(&lab, 0, QNET_OPT_LINK, 0);
        else if (i == 1)
            lab_set(&lab, 0, QNET_OPT_MIRROR, 1);
        else
            set_vlan(lab.conns[0], i == 2 ? "access 5" : "access 6");
        CHECK_INT(lab_known(&lab), 1);
        CHECK(lab_find(&lab, 2, 0).conn == lab.conns[1]);
        lab_set(&lab, 0, QNET_OPT_LINK, 1);
        lab_set(&lab, 0, QNET_OPT_MIRROR, 0);
    }
    lab_close(&lab);
}

static void entries_are_removed(void)
{
    struct lab lab;
    int i;

    lab_open(&lab, 2);
    set_vlan(lab.conns[0], "trunk");
    set_vlan(lab.conns[1], "access 10");
    lab_says(&lab, 1, 1, EVERYBODY);
    set_vlan(lab.conns[1], "access 20");
    lab_says(&lab, 1, 1, EVERYBODY);
    CHECK_INT(lab_known(&lab), 1);
    for (i = 10; i <= 30; i += 10)
        CHECK_INT(lab_fix(&lab, 2, i, 0), QNET_OK);
    lab_says(&lab, 1, 3, EVERYBODY);
    CHECK_INT(lab_known(&lab), 5);
    hub_remove(&lab, 2, 40, 0);
    hub_remove(&lab, 9, -1, 0);
    hub_remove(&lab, 2, 10, 1);
    hub_remove(&lab, 2, -1, 2);
    CHECK_INT(lab_fix(&lab, 2, 20, 0), QNET_OK);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, 10), 0);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, 20), 2);
    CHECK_INT(lab_known(&lab), 1);
    lab_says(&lab, 1, 3, EVERYBODY);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, -1), 1);
    CHECK_INT(lab_find(&lab, 2, 20).flags, QNET_FDB_STATIC);
    lab_drain(&lab);
    lab_close(&lab);
}

static void arguments_are_judged(void)
{
    static const int vlans[] = { -2, 4095, 65536, INT_MAX, INT_MIN };
    static const uint8_t mac[MAC_LEN] = { 2 }, group[MAC_LEN] = { 3 };
    qnet_conn *away, *ended, *port;
    qnet_fdb_entry entry;
    struct lab lab, closed;
    int fd, end;
    size_t i;

    lab_open(&lab, 1);
    lab_open(&closed, 1);
    lab_close(&closed);
    away = raw_pair(&fd);
    ended = raw_pair(&end);
    CHECK_INT(qnet_shutdown(ended), QNET_OK);
    CHECK_INT(qnet_hub_fdb(closed.hub, NULL, 0, 1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb((qnet_hub *)away, &entry, sizeof entry, 1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb_add(closed.hub, NULL, -1, lab.conns[0]), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, NULL, -1, closed.conns[0]), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 0, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb_remove(closed.hub, group, 7777), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, NULL, 0, lab.conns[0]), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, group, 0, lab.conns[0]), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, -1, lab.conns[0]), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 0, away), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, group, 0, ended), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 0, ended), QNET_ERR_CLOSED);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, group, 0), QNET_ERR_INVALID);
    for (i = 0; i < sizeof vlans / sizeof *vlans; i++) {
        CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, vlans[i], lab.conns[0]), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_fdb_remove(lab.hub, mac, vlans[i]), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_fdb_remove(lab.hub, NULL, vlans[i]), QNET_ERR_INVALID);
    }
    CHECK_INT(lab_known(&lab), 0);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 4094, lab.conns[0]), QNET_OK);
    CHECK_INT(qnet_hub_fdb_remove(lab.hub, mac, 4094), 1);
    /* Attached to another hub. */
    lab_open(&closed, 1);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 0, closed.conns[0]), QNET_ERR_INVALID);
    lab_close(&closed);
    CHECK_INT(qnet_hub_port(lab.hub, &port), QNET_OK);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, mac, 0, port), QNET_OK);
    CHECK_INT(qnet_close(port), QNET_OK);
    CHECK_INT(qnet_close(away), QNET_OK);
    CHECK_INT(qnet_close(ended), QNET_OK);
    CHECK(close(fd) == 0 && close(end) == 0);
    lab_close(&lab);
}

/* With no place in its table a hub is a repeater, but for what was added. */
static void a_hub_that_learns_nothing(void)
{
    struct lab lab;

    lab_open(&lab, 3);
    lab_says(&lab, 1, 2, EVERYBODY);
    lab_drain(&lab);
    lab_set_hub(&lab, QNET_OPT_MAC_MAX, 0);
    CHECK_INT(lab_known(&lab), 0);
    lab_says(&lab, 1, 2, 1);
    lab_says(&lab, 0, 1, 2);
    lab_got(&lab, "112");
    CHECK_INT(lab_fix(&lab, 2, 0, 1), QNET_OK);
    CHECK_INT(lab_fix(&lab, 3, 0, 2), QNET_OK);
    lab_says(&lab, 0, 1, 2);
    lab_says(&lab, 1, 2, 1);
    lab_got(&lab, "111");
    CHECK_INT(lab_known(&lab), 2);
    CHECK_INT(lab_counts(&lab).macs, 2);
    CHECK_INT(lab_counts(&lab).forwarded, 1);
    lab_close(&lab);
}

/* Without any rule, too, every frame is counted once, and moves are. */
static void a_plain_hub_counts(void)
{
    struct lab lab;

    lab_open(&lab, 3);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 1, 2, 1);
    lab_says(&lab, 0, 3, 1);
    lab_says(&lab, 2, 1, EVERYBODY);
    lab_says(&lab, 1, 2, 1);
    CHECK_INT(lab_counts(&lab).received, 5);
    CHECK_INT(lab_counts(&lab).dropped, 1);
    CHECK_INT(lab_counts(&lab).moves, 1);
    CHECK_INT(lab_counts(&lab).mirrored, 0);
    CHECK_INT(stats_of(lab.conns[0]).rx_refused, 0);
    lab_drain(&lab);
    lab_close(&lab);
}

int main(void)
{
    RUN(entries_tell_all);
    RUN(entries_fill_what_fits);
    RUN(what_is_old_is_not_known);
    RUN(static_entries_stay);
    RUN(what_is_forgotten_with_a_port);
    RUN(entries_are_removed);
    RUN(arguments_are_judged);
    RUN(a_hub_that_learns_nothing);
    RUN(a_plain_hub_counts);
    return check_done();
}
