/*
 * peers.h - who is at the ports of a hub: their names, a table of what they send and get, and the
 * addresses that the hub has learned.
 */
#ifndef PEERS_H
#define PEERS_H

#include <inttypes.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "serve.h"

struct peer {
    struct peer *next;
    qnet_conn *conn;
    const struct entrance *at; /* the address that it came by */
    int number;                /* 1 for the first one there, whose name has no number */
    qnet_stats last;           /* when it was last drawn */
};

/* The port handler adds and removes peers, on a thread of the library's. Who uses any of this, or fills
 * the entrances, holds the lock. */
struct peers {
    pthread_mutex_t lock;
    struct peer *first;
    const struct entrance *entrances;
    int rows; /* how many lines are on the screen */
};

/* The lowest number that no peer of that address has. */
static inline int free_number(const struct peers *peers, const struct entrance *at)
{
    const struct peer *peer = peers->first;
    int number = 1;

    while (peer != NULL)
        if (peer->at == at && peer->number == number) {
            number++;
            peer = peers->first;
        } else {
            peer = peer->next;
        }
    return number;
}

/* Returns 0 if there is no memory for it, in which case it remains without a name. */
static inline int add_peer(struct peers *peers, qnet_conn *conn, const struct entrance *at)
{
    struct peer *peer = calloc(1, sizeof *peer), **end = &peers->first;

    if (peer == NULL)
        return 0;
    peer->conn = conn;
    peer->at = at;
    peer->number = free_number(peers, at);
    while (*end != NULL)
        end = &(*end)->next;
    *end = peer;
    return 1;
}

static inline void remove_peer(struct peers *peers, const qnet_conn *conn)
{
    struct peer **place, *gone;

    for (place = &peers->first; *place != NULL && (*place)->conn != conn;)
        place = &(*place)->next;
    gone = *place;
    if (gone != NULL)
        *place = gone->next;
    free(gone);
}

/* The address that a peer came by, or NULL. */
static inline const struct entrance *entrance_of(const struct peers *peers, qnet_conn *conn)
{
    const struct entrance *at, *best = NULL;
    int how, surest = 0;

    for (at = peers->entrances; at->address.argument != NULL; at++) {
        how = at->listener ? came_by(conn, at->listener) : 0;
        if (how > surest) {
            surest = how;
            best = at;
        }
    }
    return best;
}

/* Called for each peer that comes and leaves. */
static void on_port(void *user, qnet_conn *conn, int attached)
{
    struct peers *peers = user;
    const struct entrance *at;

    pthread_mutex_lock(&peers->lock);
    at = attached ? entrance_of(peers, conn) : NULL;
    if (at != NULL)
        (void)add_peer(peers, conn, at);
    else if (!attached)
        remove_peer(peers, conn);
    pthread_mutex_unlock(&peers->lock);
}

static inline void write_name(const struct peer *peer, char *buf, size_t cap)
{
    const char *name = peer->at->port.name ? peer->at->port.name : peer->at->address.argument;

    if (peer->number == 1)
        snprintf(buf, cap, "%s", name);
    else
        snprintf(buf, cap, "%s-%d", name, peer->number);
}

/* Writes who a peer is: its process, where the system knows that, or its address. */
static inline void write_peer(const struct peer *peer, char *buf, size_t cap)
{
    qnet_cred cred;

    if (qnet_peer_cred(peer->conn, &cred, sizeof cred) >= 0)
        snprintf(buf, cap, "pid %" PRId64, cred.pid);
    else if (qnet_peer_addr(peer->conn, buf, cap) <= 0)
        snprintf(buf, cap, "-");
}

/* Writes a number in four characters: 999, 1.2k, 34M. */
static inline const char *brief(uint64_t number, char buf[8])
{
    const char *unit = " kMGTPE";
    double rest = (double)number;

    while (rest >= 999.5 && unit[1] != '\0') {
        rest /= 1000;
        unit++;
    }
    if (*unit == ' ')
        snprintf(buf, 8, "%.0f", rest);
    else
        snprintf(buf, 8, rest < 9.95 ? "%.1f%c" : "%.0f%c", rest, *unit);
    return buf;
}

/* Prints a line of the table: what a peer has sent and got since the last time. Returns how many lines
 * that are. */
static inline int print_peer(struct peer *peer)
{
    const qnet_stats *last = &peer->last;
    char name[64], who[64], vlan[64] = "", n[6][8];
    qnet_stats now;

    if (qnet_get_stats(peer->conn, &now, sizeof now) < 0 ||
        qnet_vlan(peer->conn, vlan, sizeof vlan) < 0)
        return 0; /* it has left */
    write_name(peer, name, sizeof name);
    write_peer(peer, who, sizeof who);
    printf("%-14.14s %-15.15s %-12.12s %5s %5s %5s %5s %5s %5s\n", name, who, vlan,
           brief(now.rx_frames - last->rx_frames, n[0]), brief(now.rx_bytes - last->rx_bytes, n[1]),
           brief(now.tx_frames - last->tx_frames, n[2]), brief(now.tx_bytes - last->tx_bytes, n[3]),
           brief(now.tx_dropped, n[4]), brief(now.rx_refused, n[5]));
    peer->last = now;
    return 1;
}

/* How many lines the terminal has. */
static inline int lines_of_terminal(void)
{
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

/* Draws the table in place of the one before, to be called each second; a line is to follow. */
static inline void draw_peers(struct peers *peers)
{
    int most = lines_of_terminal() - 3; /* without the first and the last line, and `and more` */
    struct peer *peer;
    int more = 0, rows = 0;

    if (peers->rows > 0)
        printf("\033[%dA", peers->rows);
    printf("\r\033[J%-14s %-15s %-12s %5s %5s %5s %5s %5s %5s\n", "PORT", "PEER", "VLAN", "IN/s",
           "B/s", "OUT/s", "B/s", "DROP", "REFUS");
    pthread_mutex_lock(&peers->lock);
    for (peer = peers->first; peer != NULL; peer = peer->next)
        if (rows < most)
            rows += print_peer(peer);
        else
            more++;
    pthread_mutex_unlock(&peers->lock);
    if (more > 0)
        printf("and %d more\n", more);
    peers->rows = 1 + rows + (more > 0);
}

static int compare_entries(const void *a, const void *b)
{
    const qnet_fdb_entry *one = a, *other = b;

    return one->vlan != other->vlan ? one->vlan - other->vlan : memcmp(one->mac, other->mac, 6);
}

static inline void print_entry(struct peers *peers, const qnet_fdb_entry *entry)
{
    const uint8_t *mac = entry->mac;
    const struct peer *peer = peers->first;
    char name[64] = "-";

    while (peer != NULL && peer->conn != entry->conn)
        peer = peer->next;
    if (peer != NULL)
        write_name(peer, name, sizeof name);
    printf("%02x:%02x:%02x:%02x:%02x:%02x %4d %7" PRIu64 " %5" PRIu32 " %-6s %s\n", mac[0], mac[1],
           mac[2], mac[3], mac[4], mac[5], entry->vlan, entry->age_ms / 1000, entry->moves,
           entry->flags & QNET_FDB_SECURE ? "secure" : "", name);
}

/* Prints the addresses that a hub knows. Returns 0, or the exit status. */
static inline int print_fdb(qnet_hub *hub, struct peers *peers)
{
    int i, room, count = qnet_hub_fdb(hub, NULL, sizeof(qnet_fdb_entry), 0);
    qnet_fdb_entry *entries;

    if (count < 0)
        return complain(qnet_last_error(), 1);
    room = count + 1; /* a calloc() of nothing may be NULL; more addresses may come meanwhile */
    entries = calloc((size_t)room, sizeof *entries);
    if (entries == NULL)
        return complain("no memory", 1);
    count = qnet_hub_fdb(hub, entries, sizeof *entries, (size_t)room);
    count = count < room ? count : room;
    if (count > 0)
        qsort(entries, (size_t)count, sizeof *entries, compare_entries);
    printf("%-17s VLAN SECONDS MOVES FLAGS  PORT\n", "ADDRESS");
    pthread_mutex_lock(&peers->lock);
    for (i = 0; i < count; i++)
        print_entry(peers, &entries[i]);
    pthread_mutex_unlock(&peers->lock);
    printf("%d addresses\n", count > 0 ? count : 0);
    free(entries);
    peers->rows = 0; /* what is on the screen stays there */
    return 0;
}

#endif
