/*
 * lab.h - a hub on a clock that the program moves, and plain sockets at its ports: what a
 * frame comes to is there when the call that sends it returns, and every count is exact.
 */
#ifndef LAB_H
#define LAB_H

#include "clocks.h"
#include "macs.h"

enum { LAB_MOST = 16, LAB_FRAME = 60, TYPE_AT = 2 * MAC_LEN };

struct lab {
    qnet_clock *clock;
    qnet_hub *hub;
    qnet_conn *conns[LAB_MOST];
    int fds[LAB_MOST], count;
};

static inline void lab_add(struct lab *lab)
{
    CHECK(lab->count < LAB_MOST);
    lab->conns[lab->count] = raw_pair(&lab->fds[lab->count]);
    CHECK_INT(qnet_hub_attach(lab->hub, lab->conns[lab->count]), QNET_OK);
    lab->count++;
}

static inline void lab_open(struct lab *lab, int count)
{
    lab->clock = clock_open();
    lab->hub = hub_on(lab->clock);
    lab->count = 0;
    while (lab->count < count)
        lab_add(lab);
}

static inline void lab_settle(const struct lab *lab)
{
    advance(lab->clock, now_of(lab->clock));
}

/* Checks that every frame is counted once. Returns the counts. */
static inline qnet_hub_stats lab_counts(const struct lab *lab)
{
    qnet_hub_stats stats = hub_stats_of(lab->hub);

    CHECK_INT(stats.received, stats.forwarded + stats.flooded + stats.refused_vlan +
                                  stats.refused_group + stats.refused_storm +
                                  stats.refused_secure + stats.refused_move +
                                  stats.refused_isolated + stats.dropped);
    return stats;
}

static inline void lab_close(const struct lab *lab)
{
    int i;

    lab_counts(lab);
    for (i = 0; i < lab->count; i++)
        CHECK(!raw_has(lab->fds[i]));
    CHECK_INT(qnet_hub_close(lab->hub), QNET_OK);
    for (i = 0; i < lab->count; i++) {
        CHECK_INT(qnet_close(lab->conns[i]), QNET_OK);
        CHECK(close(lab->fds[i]) == 0);
    }
    clock_close(lab->clock);
}

static inline void lab_set(const struct lab *lab, int port, int option, int64_t value)
{
    CHECK_INT(qnet_set(lab->conns[port], option, value), QNET_OK);
}

static inline void lab_set_hub(const struct lab *lab, int option, int64_t value)
{
    CHECK_INT(qnet_hub_set(lab->hub, option, value), QNET_OK);
}

static inline void set_vlan(qnet_conn *conn, const char *spec)
{
    CHECK_INT(qnet_set_vlan(conn, spec), QNET_OK);
}

static inline void check_vlan(qnet_conn *conn, const char *want)
{
    char text[100];

    CHECK_INT(qnet_vlan(conn, text, sizeof text), strlen(want));
    CHECK(strcmp(text, want) == 0);
}

/* Sends a frame in at a port, and has the hub forward it. */
static inline void lab_send(const struct lab *lab, int port, const uint8_t *frame, size_t len)
{
    raw_send(lab->fds[port], frame, len);
    lab_settle(lab);
}

/* Has device `from`, which is anywhere, say something to `to`, from a port. */
static inline void lab_says(const struct lab *lab, int port, int from, int to)
{
    struct word word = { to, from, 0, LAB_FRAME };

    raw_say(lab->fds[port], word);
    lab_settle(lab);
}

/* Takes what has come at a port. Returns how many frames that were. */
static inline int lab_take(const struct lab *lab, int port)
{
    uint8_t frame[QNET_FRAME_MAX];
    int count = 0;

    for (; raw_has(lab->fds[port]); count++)
        CHECK(raw_recv(lab->fds[port], frame, sizeof frame) > 0);
    return count;
}

static inline void lab_drain(const struct lab *lab)
{
    int i;

    for (i = 0; i < lab->count; i++)
        lab_take(lab, i);
}

/* Checks how many frames have come at each port: a digit for each port. */
static inline void lab_got(const struct lab *lab, const char *digits)
{
    char got[LAB_MOST + 1] = "";
    int i;

    for (i = 0; i < lab->count; i++)
        got[i] = (char)('0' + lab_take(lab, i));
    if (strcmp(got, digits) != 0)
        fprintf(stderr, "the ports got %s frames, not %s\n", got, digits);
    CHECK(strcmp(got, digits) == 0);
}

/* Takes the one frame that has come at a port, which must be that one. */
static inline void lab_take_same(const struct lab *lab, int port, const uint8_t *frame, size_t len)
{
    uint8_t got[QNET_FRAME_MAX];

    CHECK(raw_has(lab->fds[port]));
    CHECK_INT(raw_recv(lab->fds[port], got, sizeof got), len);
    CHECK(memcmp(got, frame, len) == 0);
}

/* What the hub knows of a device in a VLAN, or an entry without a connection. */
static inline qnet_fdb_entry lab_find(const struct lab *lab, int n, int vlan)
{
    qnet_fdb_entry entries[64], none;
    uint8_t mac[MAC_LEN];
    int count = qnet_hub_fdb(lab->hub, entries, sizeof *entries, 64), i;

    CHECK(count >= 0 && count <= 64);
    mac_make(mac, n);
    for (i = 0; i < count; i++)
        if (memcmp(entries[i].mac, mac, MAC_LEN) == 0 && entries[i].vlan == vlan)
            return entries[i];
    memset(&none, 0, sizeof none);
    return none;
}

static inline int lab_known(const struct lab *lab)
{
    return qnet_hub_fdb(lab->hub, NULL, sizeof(qnet_fdb_entry), 0);
}

static inline int lab_fix(const struct lab *lab, int n, int vlan, int port)
{
    uint8_t mac[MAC_LEN];

    mac_make(mac, n);
    return qnet_hub_fdb_add(lab->hub, mac, vlan, lab->conns[port]);
}

#endif
