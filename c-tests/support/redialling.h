/*
 * redialling.h - what tests of connections that outlive their peers share: a peer that
 * comes and goes, in every way, and the state handler that is told of it.
 */
#ifndef REDIALLING_H
#define REDIALLING_H

#include "forwarding.h"
#include "scratch.h"

enum { SOON_MS = 10, NEVER_MS = 1000 * 1000, HUNDRED = 100 };

/* ---- A peer that comes and goes ---- */

static const struct link_kind peer_kinds[] = {
    { "unix path", NULL, "unix", AF_UNIX, 0, 0, 0 },
    { "unix abstract", NULL, "unix", AF_UNIX, 1, 0, 0 },
    { "tcp4", NULL, "tcp4", AF_INET, 0, 0, 0 },
    { "tcp6", NULL, "tcp6", AF_INET6, 0, 0, 0 },
};

/* The kind that the running test is about. */
static const struct link_kind *kind_now = &peer_kinds[0];

static inline void run_kinds(const char *name, void (*test)(void))
{
    size_t i;

    for (i = 0; i < sizeof peer_kinds / sizeof *peer_kinds; i++) {
        kind_now = &peer_kinds[i];
        run_with(name, kind_now->name, test);
    }
    kind_now = &peer_kinds[0];
}
#define RUN_KINDS(test) run_kinds(#test, test)

/* A program that listens at a place for one peer at a time, as QEMU does. */
struct peer {
    struct place place;
    int listener, fd;
};

/* Makes the peer listen, with room for `backlog` connections that are not accepted yet. */
static inline void peer_listens(struct peer *peer, int backlog)
{
    int one = 1;

    peer->listener = socket(peer->place.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(peer->listener >= 0);
    CHECK(setsockopt(peer->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(bind(peer->listener, (struct sockaddr *)&peer->place.address, peer->place.len) == 0);
    CHECK(listen(peer->listener, backlog) == 0);
    if (kind_now->family == AF_UNIX)
        return;
    peer->place.len = sizeof peer->place.address;
    CHECK(getsockname(peer->listener, (struct sockaddr *)&peer->place.address,
                      &peer->place.len) == 0);
    address_text(&peer->place.address, peer->place.len, peer->place.text,
                 sizeof peer->place.text);
}

static inline void peer_accepts(struct peer *peer)
{
    CHECK(raw_readable(peer->listener, patience_ms()));
    peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(peer->fd >= 0);
}

/* Stops listening. A connection that was accepted stays open. */
static inline void peer_goes_deaf(struct peer *peer)
{
    CHECK(close(peer->listener) == 0);
    if (peer->place.directory[0])
        CHECK(unlink(peer->place.text) == 0);
    peer->listener = -1;
}

/* Closes all that the peer has, as when its program ends. */
static inline void peer_leaves(struct peer *peer)
{
    if (peer->listener >= 0)
        peer_goes_deaf(peer);
    if (peer->fd >= 0)
        CHECK(close(peer->fd) == 0);
    peer->fd = -1;
}

static inline void peer_returns(struct peer *peer)
{
    peer_listens(peer, 8);
    peer_accepts(peer);
}

static inline void peer_make(struct peer *peer)
{
    place_make(&peer->place, kind_now);
    peer->listener = peer->fd = -1;
}

static inline void peer_remove(struct peer *peer)
{
    peer_leaves(peer);
    place_remove(&peer->place);
}

/* ---- The connection and its state handler ---- */

struct carrier {
    int next;    /* what the next call has to be told: 1 for up */
    int running; /* 1 while a call runs */
    int told;    /* how many have returned */
    int shut;    /* the gate: while 1, a call does not return */
};

static inline void carrier_told(void *user, int up)
{
    struct carrier *carrier = user;

    CHECK_INT(count_up(&carrier->running), 1);
    CHECK_INT(up, get(&carrier->next));
    put(&carrier->next, !up);
    while (get(&carrier->shut))
        raw_sleep_ms(1);
    put(&carrier->running, 0);
    count_up(&carrier->told);
}

struct scene {
    struct peer peer;
    struct carrier carrier;
    qnet_conn *conn;
};

static inline int dial(const struct peer *peer, int64_t ms, qnet_conn **conn)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, ms };

    return qnet_dial_with(kind_now->network, peer->place.text, options, 1, conn);
}

static inline void scene_open(struct scene *scene, int64_t ms)
{
    memset(scene, 0, sizeof *scene);
    peer_make(&scene->peer);
    peer_listens(&scene->peer, 8);
    CHECK_INT(dial(&scene->peer, ms, &scene->conn), QNET_OK);
    peer_accepts(&scene->peer);
    CHECK_INT(qnet_set(scene->conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set_state_handler(scene->conn, carrier_told, &scene->carrier), QNET_OK);
}

static inline void scene_close(struct scene *scene)
{
    CHECK_INT(qnet_close(scene->conn), QNET_OK);
    peer_remove(&scene->peer);
}

static inline void is_told(struct scene *scene, int times)
{
    EVENTUALLY(get(&scene->carrier.told) >= times);
    CHECK_INT(get(&scene->carrier.told), times);
}

/* Checks that a receive finds no frame. A receive also notices it if the peer has left. */
static inline void finds_nothing(qnet_conn *conn)
{
    CHECK_INT(recv_now(conn), QNET_ERR_AGAIN);
}

/* Makes the peer leave. A wait on the connection notices it, and the state handler is told. */
static inline void scene_down(struct scene *scene)
{
    int told = get(&scene->carrier.told);

    peer_leaves(&scene->peer);
    CHECK_INT(qnet_wait(scene->conn, 1), QNET_ERR_TIMEOUT);
    is_told(scene, told + 1);
}

static inline void scene_up(struct scene *scene)
{
    int told = get(&scene->carrier.told);

    peer_returns(&scene->peer);
    is_told(scene, told + 1);
}

/* ---- How frames come ---- */

enum { LIVES = 3, FRAMES_EACH = 7 };

static inline void taker_looks(struct taker *taker)
{
    if (taker->way < WAYS_TO_PULL)
        CHECK_INT(taker_pull(taker, SOON_MS), QNET_ERR_TIMEOUT);
}

/* Reads whole frames until the end. Returns how many. */
static inline unsigned frames_until_the_end(int fd)
{
    static uint8_t frame[QNET_FRAME_MAX];
    unsigned count = 0;
    long len;

    while ((len = raw_recv(fd, frame, sizeof frame)) >= 0) {
        frame_number(frame, (size_t)len);
        count++;
    }
    return count;
}

/* ---- Every way for the peer to leave ---- */

static inline void goes(struct peer *peer)
{
    CHECK(close(peer->fd) == 0);
    peer->fd = -1;
}

static inline void goes_half(struct peer *peer)
{
    CHECK(shutdown(peer->fd, SHUT_WR) == 0);
}

static inline void goes_inside_length(struct peer *peer)
{
    raw_write(peer->fd, "\0\0", 2);
    goes(peer);
}

static inline void goes_inside_frame(struct peer *peer)
{
    raw_write(peer->fd, "\0\0\0\074 only a part of the sixty bytes", 20);
    goes(peer);
}

static inline void breaks_protocol(struct peer *peer)
{
    raw_write(peer->fd, "\377\377\377\377", 4);
}

static const struct departure {
    void (*go)(struct peer *peer);
    int reason;
} departures[] = {
    { goes, QNET_ERR_CLOSED },
    { goes_half, QNET_ERR_CLOSED },
    { goes_inside_length, QNET_ERR_PROTOCOL },
    { goes_inside_frame, QNET_ERR_PROTOCOL },
    { breaks_protocol, QNET_ERR_PROTOCOL },
};
enum { DEPARTURES = sizeof departures / sizeof *departures };

#endif
