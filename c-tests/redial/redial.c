/*
 * redial.c - connections that outlive their peers: however the peer leaves
 * and however frames are received, the same handle goes on with the next one;
 * what is sent meanwhile, who is told, what waits, and how it ends for good.
 */
#include "forwarding.h"
#include "macs.h"
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

static void run_kinds(const char *name, void (*test)(void))
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

/* Is there, with room for `backlog` who are not accepted yet. */
static void peer_listens(struct peer *peer, int backlog)
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

static void peer_accepts(struct peer *peer)
{
    CHECK(raw_readable(peer->listener, patience_ms()));
    peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(peer->fd >= 0);
}

/* Nobody listens any more. */
static void peer_goes_deaf(struct peer *peer)
{
    CHECK(close(peer->listener) == 0);
    if (peer->place.directory[0])
        CHECK(unlink(peer->place.text) == 0);
    peer->listener = -1;
}

/* Its program ends. */
static void peer_leaves(struct peer *peer)
{
    if (peer->listener >= 0)
        peer_goes_deaf(peer);
    if (peer->fd >= 0)
        CHECK(close(peer->fd) == 0);
    peer->fd = -1;
}

static void peer_returns(struct peer *peer)
{
    peer_listens(peer, 8);
    peer_accepts(peer);
}

static void peer_make(struct peer *peer)
{
    place_make(&peer->place, kind_now);
    peer->listener = peer->fd = -1;
}

static void peer_remove(struct peer *peer)
{
    peer_leaves(peer);
    place_remove(&peer->place);
}

/* Its connection ends by a reset; it listens on. */
static void peer_resets(struct peer *peer)
{
    raw_reset_at_close(peer->fd);
    CHECK(close(peer->fd) == 0);
    peer->fd = -1;
}

/* ---- Who is told of it ---- */

struct carrier {
    int next;    /* what has to be told next */
    int running; /* how many calls run */
    int told;    /* how many have returned */
    int shut;    /* the gate: while 1, a call does not return */
};

static void carrier_told(void *user, int up)
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

/* A frame handler that does not return while its gate is shut. */
struct gate {
    int shut, calls;
};

static void stand_at_the_gate(void *user, const uint8_t *frame, size_t len)
{
    struct gate *gate = user;

    (void)frame;
    (void)len;
    count_up(&gate->calls);
    while (get(&gate->shut))
        raw_sleep_ms(1);
}

/* ---- Both ---- */

struct scene {
    struct peer peer;
    struct carrier carrier;
    qnet_conn *conn;
};

static int dial(const struct peer *peer, int64_t ms, qnet_conn **conn)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, ms };

    return qnet_dial_with(kind_now->network, peer->place.text, options, 1, conn);
}

static void scene_open(struct scene *scene, int64_t ms)
{
    memset(scene, 0, sizeof *scene);
    peer_make(&scene->peer);
    peer_listens(&scene->peer, 8);
    CHECK_INT(dial(&scene->peer, ms, &scene->conn), QNET_OK);
    peer_accepts(&scene->peer);
    CHECK_INT(qnet_set(scene->conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_set_state_handler(scene->conn, carrier_told, &scene->carrier), QNET_OK);
}

static void scene_close(struct scene *scene)
{
    CHECK_INT(qnet_close(scene->conn), QNET_OK);
    peer_remove(&scene->peer);
}

static void is_told(struct scene *scene, int times)
{
    EVENTUALLY(get(&scene->carrier.told) >= times);
    CHECK_INT(get(&scene->carrier.told), times);
}

/* A receive that finds the end of what was, if there is one. */
static void finds_nothing(qnet_conn *conn)
{
    CHECK_INT(recv_now(conn), QNET_ERR_AGAIN);
}

/* The peer leaves, which the connection's caller notices. */
static void scene_down(struct scene *scene)
{
    int told = get(&scene->carrier.told);

    peer_leaves(&scene->peer);
    CHECK_INT(qnet_wait(scene->conn, 1), QNET_ERR_TIMEOUT);
    is_told(scene, told + 1);
}

static void scene_up(struct scene *scene)
{
    int told = get(&scene->carrier.told);

    peer_returns(&scene->peer);
    is_told(scene, told + 1);
}

/* Every frame that was taken ends in one of both counts. */
static void check_sent(qnet_conn *conn, unsigned sent)
{
    qnet_stats stats;

    CHECK_INT(qnet_flush(conn), QNET_OK);
    stats = stats_of(conn);
    CHECK_INT(stats.tx_frames + stats.tx_dropped, sent);
}

/* ---- However frames are received ---- */

enum { LIVES = 3, FRAMES_EACH = 7 };

static void taker_looks(struct taker *taker)
{
    if (taker->way < WAYS_TO_PULL)
        CHECK_INT(taker_pull(taker, SOON_MS), QNET_ERR_TIMEOUT);
}

/* Nothing but the state handler is told, and frames of every peer come, in order. */
static void lives_of(int way)
{
    struct flow in = flow_of_all_sizes(), got = in, out = in, seen;
    struct taker taker;
    struct scene scene;
    int life;

    scene_open(&scene, SOON_MS);
    taker_start(&taker, scene.conn, way, flow_each, &got);
    for (life = 1; life <= LIVES; life++) {
        raw_send_flow(scene.peer.fd, &in, FRAMES_EACH, 0);
        taker_want(&taker, in.next);
        seen = out;
        CHECK_INT(flow_send(&out, scene.conn, life % WAYS_TO_SEND, FRAMES_EACH), FRAMES_EACH);
        raw_take_until(scene.peer.fd, &seen, out.next);
        raw_send_flow(scene.peer.fd, &in, FRAMES_EACH, 0);
        peer_leaves(&scene.peer);
        taker_want(&taker, in.next);
        taker_looks(&taker);
        is_told(&scene, 2 * life - 1);
        CHECK_INT(qnet_close_reason(scene.conn), QNET_OK);
        CHECK_INT(taker_ends(&taker), 0);
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
        CHECK_INT(stats_of(scene.conn).reconnects, life);
    }
    check_sent(scene.conn, out.next);
    CHECK_INT(stats_of(scene.conn).tx_dropped, 0);
    CHECK_INT(stats_of(scene.conn).rx_frames, in.next);
    taker_close(&taker);
    CHECK_INT(taker.reason, QNET_ERR_CLOSED);
    peer_remove(&scene.peer);
    CHECK_INT(get(&scene.carrier.told), 2 * LIVES);
}

static void every_way_to_receive(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++)
        lives_of(way);
}

/* Where nobody receives, a send that meets the end has somebody look. */
static void unread(void)
{
    struct flow out = flow_of_small_frames(), seen;
    struct scene scene;
    int life;

    scene_open(&scene, SOON_MS);
    for (life = 1; life <= LIVES; life++) {
        peer_leaves(&scene.peer);
        while (get(&scene.carrier.told) < 2 * life - 1) {
            CHECK_INT(flow_send(&out, scene.conn, life % WAYS_TO_SEND, 3), 3);
            raw_sleep_ms(1);
        }
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
        seen = out;
        CHECK_INT(flow_send(&out, scene.conn, 0, FRAMES_EACH), FRAMES_EACH);
        raw_take_until(scene.peer.fd, &seen, out.next);
    }
    check_sent(scene.conn, out.next);
    CHECK(stats_of(scene.conn).tx_dropped > 0);
    scene_close(&scene);
}

/* ---- However the peer leaves ---- */

static void goes(struct peer *peer)
{
    CHECK(close(peer->fd) == 0);
    peer->fd = -1;
}

static void goes_half(struct peer *peer)
{
    CHECK(shutdown(peer->fd, SHUT_WR) == 0);
}

static void goes_inside_length(struct peer *peer)
{
    raw_write(peer->fd, "\0\0", 2);
    goes(peer);
}

static void goes_inside_frame(struct peer *peer)
{
    raw_write(peer->fd, "\0\0\0\074 only a part of the sixty bytes", 20);
    goes(peer);
}

static void breaks_protocol(struct peer *peer)
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

/* Frames from before it went come first, and nothing of a part; the stream begins afresh. */
static void leaves_by(const struct departure *departure, int way)
{
    struct flow in = flow_of_small_frames(), got = in;
    struct taker taker;
    struct scene scene;
    int old;

    scene_open(&scene, SOON_MS);
    raw_send_flow(scene.peer.fd, &in, FRAMES_EACH, 0);
    departure->go(&scene.peer);
    taker_start(&taker, scene.conn, way, flow_each, &got);
    taker_want(&taker, in.next);
    taker_looks(&taker);
    old = scene.peer.fd;
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    if (old >= 0) {
        CHECK(raw_ended(old));
        close(old);
    }
    raw_send_flow(scene.peer.fd, &in, FRAMES_EACH, 50);
    taker_want(&taker, in.next);
    taker_close(&taker);
    peer_remove(&scene.peer);
}

static void every_way_to_leave(void)
{
    int i, way;

    for (i = 0; i < DEPARTURES; i++)
        for (way = 0; way < WAYS_TO_RECEIVE; way++)
            leaves_by(&departures[i], way);
}

/* A reset is no end either, whether reading or writing meets it. */
static void resets(void)
{
    struct flow out = flow_of_small_frames(), seen;
    uint8_t first[1514];
    struct scene scene;
    long len;
    int life;

    scene_open(&scene, SOON_MS);
    for (life = 1; life <= 2; life++) {
        CHECK_INT(flow_send(&out, scene.conn, 0, 1), 1);
        peer_resets(&scene.peer);
        if (life == 1)
            CHECK_INT(qnet_wait(scene.conn, SOON_MS), QNET_ERR_TIMEOUT);
        while (get(&scene.carrier.told) < 2 * life - 1)
            CHECK_INT(flow_send(&out, scene.conn, 0, 1), 1);
        peer_accepts(&scene.peer);
        is_told(&scene, 2 * life);
    }
    seen = out;
    CHECK_INT(flow_send(&out, scene.conn, 1, FRAMES_EACH), FRAMES_EACH);
    /* The last frame that was sent to bring it down may have come when it was up again. */
    len = raw_recv(scene.peer.fd, first, sizeof first);
    CHECK(len > 0);
    if (frame_number(first, (size_t)len) < seen.next)
        seen.next--;
    flow_take(&seen, first, (size_t)len);
    raw_take_until(scene.peer.fd, &seen, out.next);
    check_sent(scene.conn, out.next);
    scene_close(&scene);
}

/* What was received is the caller's though sends have met the end, and loans outlive it. */
static void frames_wait_for_who_pulls(void)
{
    struct flow in = flow_of_small_frames(), got = in, out = in;
    struct scene scene;
    qnet_frame lent[2];
    uint8_t copy[2048];
    int i;

    scene_open(&scene, SOON_MS);
    raw_send_flow(scene.peer.fd, &in, FRAMES_EACH, 0);
    goes(&scene.peer);
    for (i = 0; i < 10; i++) {
        CHECK_INT(flow_send(&out, scene.conn, i % WAYS_TO_SEND, 3), 3);
        raw_sleep_ms(5);
    }
    CHECK_INT(get(&scene.carrier.told), 0);
    CHECK_INT(qnet_wait(scene.conn, SOON_MS), QNET_ERR_TIMEOUT);
    for (i = 0; i < FRAMES_EACH - 2; i++)
        take_by_recv(scene.conn, &got);
    CHECK_INT(qnet_recv_batch(scene.conn, lent, 2, 0), 2);
    memcpy(copy, lent[1].data, lent[1].len);
    CHECK_INT(qnet_close_reason(scene.conn), QNET_OK);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    CHECK(memcmp(copy, lent[1].data, lent[1].len) == 0);
    flow_take(&got, lent[0].data, lent[0].len);
    flow_take(&got, lent[1].data, lent[1].len);
    check_sent(scene.conn, out.next);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    take_by_recv(scene.conn, &got);
    scene_close(&scene);
}

/* A handler that was taken away still has the frames; when it returns, it goes down. */
static void a_handler_was_taken_away(void)
{
    struct flow in = flow_of_small_frames(), out = in;
    struct gate gate = { 1, 0 };
    struct scene scene;

    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_WAIT, 0), QNET_OK);
    CHECK_INT(qnet_set_handler(scene.conn, stand_at_the_gate, &gate), QNET_OK);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    EVENTUALLY(get(&gate.calls) == 1);
    CHECK_INT(qnet_set_handler(scene.conn, NULL, NULL), QNET_OK);
    peer_leaves(&scene.peer);
    CHECK_INT(flow_send(&out, scene.conn, 0, 5), 5);
    raw_sleep_ms(50);
    CHECK_INT(flow_send(&out, scene.conn, 0, 5), 5);
    CHECK_INT(get(&scene.carrier.told), 0);
    put(&gate.shut, 0);
    is_told(&scene, 1);
    scene_up(&scene);
    check_sent(scene.conn, out.next);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_WAIT, 1), QNET_OK);
    scene_close(&scene);
}

/* ---- Sending ---- */

static void sends_while_down_are_counted(void)
{
    struct flow out = flow_of_all_sizes(), seen;
    qnet_stats up, down;
    struct scene scene;
    int way;

    scene_open(&scene, SOON_MS);
    CHECK_INT(flow_send(&out, scene.conn, 0, 1), 1);
    up = stats_of(scene.conn);
    scene_down(&scene);
    for (way = 0; way < WAYS_TO_SEND; way++)
        CHECK_INT(flow_send(&out, scene.conn, way, HUNDRED), HUNDRED);
    CHECK_INT(qnet_flush(scene.conn), QNET_OK);
    down = stats_of(scene.conn);
    CHECK_INT(down.tx_dropped, WAYS_TO_SEND * HUNDRED);
    CHECK_INT(down.tx_frames, up.tx_frames);
    CHECK_INT(down.tx_bytes, up.tx_bytes);
    CHECK_INT(down.tx_writes, up.tx_writes);
    CHECK_INT(qnet_send(scene.conn, "too short", 9), QNET_ERR_FRAME_SIZE);
    scene_up(&scene);
    seen = out;
    CHECK_INT(flow_send(&out, scene.conn, 2, FRAMES_EACH), FRAMES_EACH);
    raw_take_until(scene.peer.fd, &seen, out.next);
    CHECK_INT(stats_of(scene.conn).tx_dropped, down.tx_dropped);
    check_sent(scene.conn, out.next);
    scene_close(&scene);
}

/* Sends without a pause, until told to stop; what was taken is in the flow. */
struct sender {
    pthread_t thread;
    qnet_conn *conn;
    struct flow flow;
    int way, stop;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;

    while (!get(&sender->stop))
        CHECK_INT(flow_send(&sender->flow, sender->conn, sender->way, 16), 16);
    return NULL;
}

/* Reads whole frames until the end; how many. */
static unsigned frames_until_the_end(int fd)
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

/* Senders that are in the middle of it all the time; the last peer gets whole frames. */
static void senders_outlive_peers(int64_t option, int64_t value)
{
    enum { SENDERS = 3 };
    struct sender senders[SENDERS];
    unsigned sent = 0, heard;
    struct scene scene;
    uint64_t before;
    int life, i;

    scene_open(&scene, 1);
    CHECK_INT(qnet_set(scene.conn, (int)option, value), QNET_OK);
    for (i = 0; i < SENDERS; i++) {
        memset(&senders[i], 0, sizeof senders[i]);
        senders[i].conn = scene.conn;
        senders[i].flow = flow_of_small_frames();
        senders[i].way = i;
        start_thread(&senders[i].thread, sending, &senders[i]);
    }
    for (life = 1; life <= rounds(20); life++) {
        raw_sleep_ms(life % 3);
        goes(&scene.peer);
        peer_accepts(&scene.peer);
        is_told(&scene, 2 * life);
    }
    for (i = 0; i < SENDERS; i++)
        put(&senders[i].stop, 1);
    before = stats_of(scene.conn).tx_frames;
    peer_goes_deaf(&scene.peer);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, NEVER_MS), QNET_OK);
    goes(&scene.peer); /* those who wait must be woken */
    for (i = 0; i < SENDERS; i++) {
        join_thread(senders[i].thread);
        sent += senders[i].flow.next;
    }
    CHECK_INT(qnet_wait(scene.conn, 1), QNET_ERR_TIMEOUT);
    check_sent(scene.conn, sent);
    CHECK(stats_of(scene.conn).tx_frames >= before);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1), QNET_OK);
    peer_returns(&scene.peer);
    EVENTUALLY(stats_of(scene.conn).reconnects == (uint64_t)rounds(20) + 1);
    before = stats_of(scene.conn).tx_frames;
    senders[0].flow.next = 0;
    CHECK_INT(flow_send(&senders[0].flow, scene.conn, 1, FRAMES_EACH), FRAMES_EACH);
    check_sent(scene.conn, sent + FRAMES_EACH);
    CHECK_INT(qnet_close(scene.conn), QNET_OK);
    heard = frames_until_the_end(scene.peer.fd);
    CHECK_INT(heard, FRAMES_EACH);
    peer_remove(&scene.peer);
}

static void senders_at_work(void)
{
    senders_outlive_peers(QNET_OPT_PAD, 0);
}

static void senders_at_work_coalescing(void)
{
    senders_outlive_peers(QNET_OPT_TX_USECS, 2000);
}

static void senders_at_work_in_parts(void)
{
    senders_outlive_peers(QNET_OPT_SNDBUF, 1);
}

/* A send that waits for a peer who does not read succeeds when that one leaves. */
static void a_stuck_send_goes_on(void)
{
    struct sender sender;
    struct scene scene;

    scene_open(&scene, NEVER_MS);
    CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
    memset(&sender, 0, sizeof sender);
    sender.conn = scene.conn;
    sender.flow = flow_of_all_sizes();
    start_thread(&sender.thread, sending, &sender);
    CHECK(raw_readable(scene.peer.fd, patience_ms()));
    raw_sleep_ms(100);
    put(&sender.stop, 1);
    peer_leaves(&scene.peer);
    join_thread(sender.thread);
    is_told(&scene, 1);
    check_sent(scene.conn, sender.flow.next);
    CHECK(stats_of(scene.conn).tx_dropped > 0);
    scene_close(&scene);
}

/* Answers each frame; what it sends is corked. */
struct echo {
    qnet_conn *conn;
    int taken;
};

static void echo_frame(void *user, const uint8_t *frame, size_t len)
{
    struct echo *echo = user;

    CHECK_INT(qnet_send(echo->conn, frame, len), QNET_OK);
    count_up(&echo->taken);
}

static void corked_sends_are_counted(void)
{
    struct flow in = flow_of_small_frames();
    struct echo echo = { NULL, 0 };
    struct scene scene;
    int life;

    scene_open(&scene, 1);
    echo.conn = scene.conn;
    CHECK_INT(qnet_set_handler(scene.conn, echo_frame, &echo), QNET_OK);
    for (life = 1; life <= rounds(50); life++) {
        raw_send_flow(scene.peer.fd, &in, 64, 0);
        goes(&scene.peer);
        peer_accepts(&scene.peer);
        is_told(&scene, 2 * life);
        CHECK_INT(get(&echo.taken), in.next);
    }
    check_sent(scene.conn, in.next);
    scene_close(&scene);
}

/* ---- Plugged in ---- */

/* A hub with two devices and a connection that is dialled again, which is the third. */
static void a_hub_port_survives(void)
{
    struct device *device;
    struct room room;
    struct scene scene;
    int life, i;

    room_open(&room, 2);
    scene_open(&scene, SOON_MS);
    device = &room.devices[2];
    device->conn = scene.conn;
    device->n = 3;
    device->said = 0;
    device->is_away = 0;
    CHECK_INT(qnet_hub_attach(room.hub, scene.conn), QNET_OK);
    room.count = 3;
    for (life = 1; life <= LIVES; life++) {
        uint64_t dropped = hub_stats_of(room.hub).dropped;

        device->fd = scene.peer.fd;
        room_is_quiet(&room);
        peer_leaves(&scene.peer);
        is_told(&scene, 2 * life - 1);
        device->is_away = 1;
        room_is_quiet(&room);
        for (i = 0; i < 5; i++)
            device_says(&room.devices[0], 3, MAC_FRAME);
        EVENTUALLY(hub_stats_of(room.hub).dropped == dropped + 7);
        CHECK_INT(stats_of(scene.conn).tx_dropped, 7 * life);
        CHECK_INT(hub_stats_of(room.hub).ports, 3);
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
        device->is_away = 0;
    }
    device->fd = scene.peer.fd;
    room_is_quiet(&room);
    CHECK_INT(qnet_hub_detach(room.hub, scene.conn), QNET_OK);
    room.count = 2;
    room_is_quiet(&room);
    room_close(&room);
    scene_close(&scene);
}

/* Attached, detached and linked while it is down. */
static void plugged_in_while_down(void)
{
    struct flow flow = flow_of_small_frames(), got = flow;
    struct room room;
    struct scene scene;
    qnet_conn *other;
    int fd;

    room_open(&room, 1);
    scene_open(&scene, SOON_MS);
    scene_down(&scene);
    CHECK_INT(qnet_hub_attach(room.hub, scene.conn), QNET_OK);
    CHECK_INT(qnet_hub_detach(room.hub, scene.conn), QNET_OK);
    other = raw_pair(&fd);
    CHECK_INT(qnet_link(scene.conn, other), QNET_OK);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &flow, FRAMES_EACH, 0);
    raw_take_until(fd, &got, flow.next);
    peer_leaves(&scene.peer);
    is_told(&scene, 3);
    CHECK_INT(qnet_unlink(scene.conn), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
    close(fd);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &flow, 1, 0);
    take_by_recv(scene.conn, &got);
    room_close(&room);
    scene_close(&scene);
}

/* The cable stays; what the other side sends meanwhile is lost, and it is read on. */
static void a_link_survives(void)
{
    struct flow there = flow_of_small_frames(), back = there, seen;
    struct scene scene;
    qnet_conn *other;
    int fd, life;

    other = raw_pair(&fd);
    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_link(other, scene.conn), QNET_OK);
    for (life = 1; life <= LIVES; life++) {
        seen = there;
        raw_send_flow(fd, &there, FRAMES_EACH, 0);
        raw_take_until(scene.peer.fd, &seen, there.next);
        seen = back;
        raw_send_flow(scene.peer.fd, &back, FRAMES_EACH, 0);
        raw_take_until(fd, &seen, back.next);
        peer_leaves(&scene.peer);
        is_told(&scene, 2 * life - 1);
        raw_send_flow(fd, &there, 1000, 0);
        EVENTUALLY(stats_of(scene.conn).tx_dropped == 1000 * (uint64_t)life);
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
    }
    CHECK_INT(qnet_wait(other, 0), QNET_ERR_AGAIN);
    close(fd);
    CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
    CHECK(raw_ended(scene.peer.fd));
    CHECK_INT(qnet_close(other), QNET_OK);
    scene_close(&scene);
}

/* The other side of a link is not read while the peer does not read; when that leaves it is. */
static void a_full_link_goes_on(void)
{
    struct raw_job writer;
    struct scene scene;
    qnet_conn *other;
    int fd;

    other = raw_pair(&fd);
    scene_open(&scene, NEVER_MS);
    CHECK_INT(qnet_link(scene.conn, other), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow_of_all_sizes(), 2000);
    EVENTUALLY(raw_is_held(fd));
    peer_leaves(&scene.peer);
    join_thread(writer.thread);
    EVENTUALLY(stats_of(scene.conn).tx_frames + stats_of(scene.conn).tx_dropped == 2000);
    CHECK_INT(qnet_close(other), QNET_OK);
    close(fd);
    CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
    scene_close(&scene);
}

/* A write of the link's has met the peer's leaving, and nobody has read that when the cable is out. */
static void unlinked_when_a_write_has_met_the_end(void)
{
    static const size_t size = 60000;
    struct flow back = flow_of_one_size(&size), there = flow_of_small_frames();
    struct scene scene;
    qnet_conn *other;
    int fd;

    other = raw_pair(&fd);
    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_set(other, QNET_OPT_SNDBUF, 10000), QNET_OK);
    CHECK_INT(qnet_link(scene.conn, other), QNET_OK);
    do {
        raw_send_flow(scene.peer.fd, &back, 1, 0);
        EVENTUALLY(stats_of(scene.conn).rx_frames == back.next);
    } while (stats_of(other).tx_frames == back.next);
    /* The other side is full, so that this one is not read. */
    peer_leaves(&scene.peer);
    raw_send_flow(fd, &there, 1, 0);
    EVENTUALLY(stats_of(scene.conn).tx_dropped == 1);
    CHECK_INT(get(&scene.carrier.told), 0);
    CHECK_INT(qnet_unlink(scene.conn), QNET_OK);
    is_told(&scene, 1);
    scene_up(&scene);
    CHECK_INT(qnet_close(other), QNET_OK);
    CHECK(close(fd) == 0);
    scene_close(&scene);
}

/* ---- At the beginning ---- */

static void starts_before_its_peer(void)
{
    struct flow out = flow_of_small_frames(), seen, in = out, got = out;
    struct scene scene;
    char text[160];

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    peer_goes_deaf(&scene.peer);
    CHECK_INT(qnet_dial(kind_now->network, scene.peer.place.text, &scene.conn),
              QNET_ERR_REFUSED);
    CHECK_INT(dial(&scene.peer, 0, &scene.conn), QNET_ERR_REFUSED);
    CHECK(scene.conn == NULL);
    CHECK_INT(dial(&scene.peer, SOON_MS, &scene.conn), QNET_OK);
    put(&scene.carrier.next, 1);
    CHECK_INT(qnet_set_state_handler(scene.conn, carrier_told, &scene.carrier), QNET_OK);
    CHECK(same_text(text, qnet_peer_addr(scene.conn, text, sizeof text), scene.peer.place.text));
    CHECK(same_text(text, qnet_local_addr(scene.conn, text, sizeof text), ""));
    CHECK_INT(qnet_close_reason(scene.conn), QNET_OK);
    finds_nothing(scene.conn);
    CHECK_INT(flow_send(&out, scene.conn, 0, 5), 5);
    raw_sleep_ms(5 * SOON_MS);
    CHECK_INT(get(&scene.carrier.told), 0);
    CHECK_INT(stats_of(scene.conn).reconnects, 0);
    CHECK_INT(stats_of(scene.conn).tx_dropped, 5);
    peer_returns(&scene.peer);
    is_told(&scene, 1);
    CHECK_INT(stats_of(scene.conn).reconnects, 1);
    CHECK(same_text(text, qnet_peer_addr(scene.conn, text, sizeof text), scene.peer.place.text));
    seen = out;
    CHECK_INT(flow_send(&out, scene.conn, 1, FRAMES_EACH), FRAMES_EACH);
    raw_take_until(scene.peer.fd, &seen, out.next);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    take_by_recv(scene.conn, &got);
    scene_down(&scene);
    scene_up(&scene);
    scene_close(&scene);
}

/* The peer listens, but its program hangs: there is no room for anybody. */
static void fill_backlog(struct peer *peer, int fillers[4])
{
    int i;

    peer_listens(peer, 0);
    for (i = 0; i < 4; i++) {
        fillers[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(fillers[i], (struct sockaddr *)&peer->place.address, peer->place.len) != 0)
            break;
    }
    CHECK(i < 4);
    CHECK_INT(errno, EAGAIN);
    close(fillers[i]);
    fillers[i] = -1;
}

static void starts_before_anybody_answers(void)
{
    int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS, QNET_OPT_DIAL_TIMEOUT_MS, 0 };
    int fillers[4], i, j;
    struct scene scene;

    for (i = 0; i < 2; i++) {
        memset(&scene, 0, sizeof scene);
        peer_make(&scene.peer);
        fill_backlog(&scene.peer, fillers);
        options[3] = 20 * i;
        CHECK_INT(qnet_dial_with("unix", scene.peer.place.text, options, 2, &scene.conn),
                  QNET_OK);
        finds_nothing(scene.conn);
        peer_goes_deaf(&scene.peer);
        peer_returns(&scene.peer);
        EVENTUALLY(stats_of(scene.conn).reconnects == 1);
        for (j = 0; fillers[j] >= 0; j++)
            close(fillers[j]);
        scene_close(&scene);
    }
}

/* What no waiting helps against is a failure still. */
static void failures_at_the_beginning(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS };
    const int64_t timely[] = { QNET_OPT_RECONNECT_MS, NEVER_MS, QNET_OPT_DIAL_TIMEOUT_MS, 1000 };
    struct footprint before = footprint_now();
    struct rlimit limit, none;
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with("tcp", "nowhere", options, 1, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial_with("tcq", "127.0.0.1:1", options, 1, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial_with("unix", "/dev/null/socket", options, 1, &conn), QNET_ERR_OS);
    /* With a timeout, for who looks names up may be far away, or slow. */
    CHECK_INT(qnet_dial_with("tcp", "nobody.invalid:1", timely, 2, &conn), QNET_OK);
    CHECK_INT(qnet_peer_addr(conn, NULL, 0), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK_INT(qnet_dial_with("tcp", "127.0.0.1:1", options, 1, &conn), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(conn == NULL);
    footprint_again(before);
    CHECK_INT(qnet_dial_with("tcp", "127.0.0.1:1", options, 1, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    footprint_again(before);
}

/* Without a descriptor to be had it is tried again, as without a peer. */
static void no_descriptor_for_now(void)
{
    struct rlimit limit, none;
    struct scene scene;
    int spare;

    scene_open(&scene, SOON_MS);
    spare = dup(0);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    is_told(&scene, 1);
    raw_sleep_ms(5 * SOON_MS);
    CHECK_INT(get(&scene.carrier.told), 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    close(spare);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    scene_close(&scene);
}

/* ---- The state handler ---- */

/* One that does something, once, when it is told that the connection is down, or up. */
struct act {
    qnet_conn *conn;
    int (*call)(struct act *act);
    int when, result, done, shut, ends;
};

static void act_told(void *user, int up)
{
    struct act *act = user;

    if (up != act->when || get(&act->done))
        return;
    put(&act->result, act->call(act));
    count_up(&act->done);
}

static void act_ended(void *user, int reason)
{
    struct act *act = user;

    (void)reason;
    count_up(&act->ends);
}

static int act_close(struct act *act)
{
    return qnet_close(act->conn);
}

static int act_shut_down(struct act *act)
{
    return qnet_shutdown(act->conn);
}

static int act_exit(struct act *act)
{
    count_up(&act->done);
    pthread_exit(NULL);
    return 0;
}

static int act_unset(struct act *act)
{
    return qnet_set_state_handler(act->conn, NULL, NULL);
}

static int act_send_and_wait(struct act *act)
{
    CHECK_INT(make_send(act->conn), QNET_OK);
    CHECK_INT(qnet_wait(act->conn, 0), QNET_ERR_BUSY);
    return qnet_close_reason(act->conn);
}

/* How the connection is received from while its state handler acts. */
enum { PULLED, HANDLED, ATTACHED, WAYS };

struct stage {
    struct scene scene;
    struct act act;
    qnet_hub *hub;
    int way;
};

static void stage_open(struct stage *stage, int way, int when, int (*call)(struct act *act))
{
    qnet_conn *conn;

    memset(stage, 0, sizeof *stage);
    scene_open(&stage->scene, SOON_MS);
    conn = stage->scene.conn;
    stage->way = way;
    stage->act.conn = conn;
    stage->act.call = call;
    stage->act.when = when;
    CHECK_INT(qnet_set_state_handler(conn, act_told, &stage->act), QNET_OK);
    CHECK_INT(qnet_set_close_handler(conn, act_ended, &stage->act), QNET_OK);
    CHECK_INT(qnet_hub_new(&stage->hub), QNET_OK);
    if (way == HANDLED)
        CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
    if (way == ATTACHED)
        CHECK_INT(qnet_hub_attach(stage->hub, conn), QNET_OK);
}

/* The peer leaves, and listens on. */
static void stage_blink(struct stage *stage)
{
    goes(&stage->scene.peer);
    if (stage->way == PULLED)
        finds_nothing(stage->scene.conn);
}

static void stage_close(struct stage *stage)
{
    CHECK_INT(qnet_hub_close(stage->hub), QNET_OK);
    peer_remove(&stage->scene.peer);
}

static void acts_that_end_it(int (*call)(struct act *act), int closes)
{
    int way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct footprint before = footprint_now();
            struct stage stage;

            stage_open(&stage, way, when, call);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(get(&stage.act.result), QNET_OK);
            EVENTUALLY(get(&stage.act.ends) == 1);
            if (closes)
                CHECK_INT(qnet_fd(stage.scene.conn), QNET_ERR_HANDLE);
            else
                CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            raw_sleep_ms(2 * SOON_MS);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
            footprint_again(before);
        }
}

static void closes_inside_it(void)
{
    acts_that_end_it(act_close, 1);
}

static void shuts_down_inside_it(void)
{
    acts_that_end_it(act_shut_down, 0);
}

/* It goes on without that handler, and takes another. */
static void acts_that_leave_it(int (*call)(struct act *act), int result)
{
    int way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct stage stage;

            stage_open(&stage, way, when, call);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(get(&stage.act.result), result);
            peer_accepts(&stage.scene.peer);
            EVENTUALLY(stats_of(stage.scene.conn).reconnects == 1);
            raw_sleep_ms(2 * SOON_MS);
            CHECK_INT(qnet_set_state_handler(stage.scene.conn, carrier_told,
                                             &stage.scene.carrier), QNET_OK);
            stage_blink(&stage);
            peer_accepts(&stage.scene.peer);
            is_told(&stage.scene, 2);
            CHECK_INT(get(&stage.act.done), 1);
            CHECK_INT(get(&stage.act.ends), 0);
            CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
        }
}

static void its_thread_ends_inside_it(void)
{
    acts_that_leave_it(act_exit, 0);
}

static void is_unset_inside_it(void)
{
    acts_that_leave_it(act_unset, QNET_OK);
}

static void calls_inside_it(void)
{
    acts_that_leave_it(act_send_and_wait, QNET_OK);
}

/* Shut down or closed by another thread, its own ends while it runs. */
static int act_exit_at_the_gate(struct act *act)
{
    count_up(&act->done);
    while (get(&act->shut))
        raw_sleep_ms(1);
    pthread_exit(NULL);
    return 0;
}

static int act_stand_at_the_gate(struct act *act)
{
    count_up(&act->done);
    while (get(&act->shut))
        raw_sleep_ms(1);
    return 0;
}

static void *closing(void *argument)
{
    CHECK_INT(qnet_close(argument), QNET_OK);
    return NULL;
}

/* The close handler comes after the state handler, and a close waits for both. */
static void close_waits_for_it(void)
{
    static int (*const calls[])(struct act *act) = { act_stand_at_the_gate,
                                                     act_exit_at_the_gate };
    int way, i, shuts_down;
    pthread_t thread;

    for (way = 0; way < WAYS; way++)
        for (i = 0; i < 4; i++) {
            struct stage stage;

            shuts_down = i / 2;
            stage_open(&stage, way, i % 2, calls[(way + i) % 2]);
            put(&stage.act.shut, 1);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            if (shuts_down)
                CHECK_INT(qnet_shutdown(stage.scene.conn), QNET_OK);
            start_thread(&thread, closing, stage.scene.conn);
            raw_sleep_ms(30);
            CHECK_INT(get(&stage.act.ends), 0);
            CHECK(qnet_fd(stage.scene.conn) >= 0);
            put(&stage.act.shut, 0);
            join_thread(thread);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
        }
}

/* With QNET_OPT_WAIT 0 it does not, and the close handler still comes, once and last. */
static void close_need_not_wait_for_it(void)
{
    int way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct footprint before = footprint_now();
            struct stage stage;

            stage_open(&stage, way, when, act_stand_at_the_gate);
            CHECK_INT(qnet_set(stage.scene.conn, QNET_OPT_WAIT, 0), QNET_OK);
            put(&stage.act.shut, 1);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(qnet_set_state_handler(stage.scene.conn, act_told, &stage.act), QNET_OK);
            CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            raw_sleep_ms(10);
            CHECK_INT(get(&stage.act.ends), 0);
            put(&stage.act.shut, 0);
            EVENTUALLY(get(&stage.act.ends) == 1);
            stage_close(&stage);
            footprint_again(before);
            CHECK_INT(get(&stage.act.ends), 1);
        }
}

static void *unsetting(void *argument)
{
    CHECK_INT(qnet_set_state_handler(argument, NULL, NULL), QNET_OK);
    return NULL;
}

static void setting_waits_for_it(void)
{
    struct scene scene;
    pthread_t thread;

    scene_open(&scene, SOON_MS);
    put(&scene.carrier.shut, 1);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    EVENTUALLY(get(&scene.carrier.running));
    start_thread(&thread, unsetting, scene.conn);
    raw_sleep_ms(30);
    CHECK_INT(get(&scene.carrier.told), 0);
    put(&scene.carrier.shut, 0);
    join_thread(thread);
    CHECK_INT(get(&scene.carrier.running), 0);
    peer_accepts(&scene.peer);
    EVENTUALLY(stats_of(scene.conn).reconnects == 1);
    raw_sleep_ms(2 * SOON_MS);
    CHECK(get(&scene.carrier.told) <= 1);
    scene_close(&scene);
}

/* It goes down again before it was told that it is up: all is told, one by one. */
static void a_slow_one_is_told_everything(void)
{
    struct scene scene;
    int told;

    scene_open(&scene, 1);
    put(&scene.carrier.shut, 1);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    EVENTUALLY(get(&scene.carrier.running));
    raw_sleep_ms(20);
    CHECK_INT(stats_of(scene.conn).reconnects, 0);
    put(&scene.carrier.shut, 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    for (told = 2; told < 20; told += 2) {
        put(&scene.carrier.shut, 1);
        goes(&scene.peer);
        EVENTUALLY(recv_now(scene.conn) == QNET_ERR_AGAIN && get(&scene.carrier.running));
        put(&scene.carrier.shut, 0);
        peer_accepts(&scene.peer);
        is_told(&scene, told + 2);
    }
    CHECK_INT(stats_of(scene.conn).reconnects, 10);
    scene_close(&scene);
}

/* Up is told behind a closed gate, and meanwhile the peer leaves again. */
static void down_again_while_told(void)
{
    struct scene scene;

    scene_open(&scene, 1);
    scene_down(&scene);
    put(&scene.carrier.shut, 1);
    peer_returns(&scene.peer);
    EVENTUALLY(get(&scene.carrier.running));
    goes(&scene.peer);
    finds_nothing(scene.conn);
    raw_sleep_ms(20);
    CHECK_INT(make_send(scene.conn), QNET_OK);
    CHECK_INT(stats_of(scene.conn).tx_dropped, 1);
    CHECK_INT(get(&scene.carrier.told), 1);
    put(&scene.carrier.shut, 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 4);
    scene_close(&scene);
}

/* ---- For good ---- */

static void quickly(int (*call)(qnet_conn *), qnet_conn *conn)
{
    long long begin = raw_now_ms();

    CHECK_INT(call(conn), QNET_OK);
    CHECK(raw_now_ms() - begin < 1000 * check_slow());
}

static void closed_while_down(void)
{
    struct footprint before = footprint_now();
    struct ending ending = { 0, 0, 0, 0 };
    struct scene scene;
    int by_shutdown;

    for (by_shutdown = 0; by_shutdown < 2; by_shutdown++) {
        memset(&ending, 0, sizeof ending);
        scene_open(&scene, NEVER_MS);
        CHECK_INT(qnet_set_close_handler(scene.conn, ending_told, &ending), QNET_OK);
        scene_down(&scene);
        CHECK_INT(get(&ending.ends), 0);
        if (by_shutdown) {
            quickly(qnet_shutdown, scene.conn);
            CHECK_INT(get(&ending.ends), 1);
            CHECK_INT(qnet_close_reason(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(make_send(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(qnet_wait(scene.conn, 0), QNET_OK);
        }
        quickly(qnet_close, scene.conn);
        CHECK_INT(get(&ending.ends), 1);
        CHECK_INT(get(&ending.reason), QNET_ERR_CLOSED);
        CHECK_INT(get(&scene.carrier.told), 1);
        peer_remove(&scene.peer);
        footprint_again(before);
    }
}

/* Its attempt goes on for a while, and comes to nothing. */
static void closed_while_dialling(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1, QNET_OPT_DIAL_TIMEOUT_MS, 500 };
    struct footprint before = footprint_now();
    struct scene scene;
    int fillers[4], i;

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    CHECK_INT(qnet_dial_with("unix", scene.peer.place.text, options, 2, &scene.conn), QNET_OK);
    peer_accepts(&scene.peer);
    peer_goes_deaf(&scene.peer);
    fill_backlog(&scene.peer, fillers);
    CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
    goes(&scene.peer);
    raw_sleep_ms(100);
    quickly(qnet_close, scene.conn);
    for (i = 0; fillers[i] >= 0; i++)
        close(fillers[i]);
    peer_remove(&scene.peer);
    footprint_again(before);
}

/* One of two who close at once. */
struct closer {
    pthread_t thread;
    qnet_conn *conn;
    int result;
};

static void *closing_either(void *argument)
{
    struct closer *closer = argument;

    closer->result = qnet_close(closer->conn);
    return NULL;
}

/* While it is just coming up, or down. */
static void closed_at_any_time(void)
{
    struct footprint before = footprint_now();
    struct closer closers[2];
    struct scene scene;
    int round, told, i;

    for (round = 0; round < rounds(100); round++) {
        scene_open(&scene, 1);
        if (round % 2)
            CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
        goes(&scene.peer);
        if (round % 2 == 0)
            finds_nothing(scene.conn);
        if (round % 3)
            raw_sleep_ms(round % 3);
        closers[0].conn = closers[1].conn = scene.conn;
        for (i = 0; i < 2; i++)
            start_thread(&closers[i].thread, closing_either, &closers[i]);
        for (i = 0; i < 50; i++)
            check_among(make_send(scene.conn),
                        MAY(QNET_OK) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_HANDLE));
        for (i = 0; i < 2; i++)
            join_thread(closers[i].thread);
        CHECK_INT(closers[0].result + closers[1].result, QNET_ERR_HANDLE);
        told = get(&scene.carrier.told);
        CHECK_INT(get(&scene.carrier.running), 0);
        peer_remove(&scene.peer);
        CHECK_INT(get(&scene.carrier.running), 0);
        CHECK_INT(get(&scene.carrier.told), told);
    }
    footprint_again(before);
}

/* Set to 0 while it is down, it ends with the reason for which it went down. */
static void switched_off_while_down(void)
{
    int i, way;

    for (i = 0; i < DEPARTURES; i++)
        for (way = 0; way < WAYS_TO_RECEIVE; way++) {
            struct flow got = flow_of_small_frames();
            struct taker taker;
            struct scene scene;
            int64_t value = 1;

            scene_open(&scene, NEVER_MS);
            taker_start(&taker, scene.conn, way, flow_each, &got);
            departures[i].go(&scene.peer);
            taker_looks(&taker);
            is_told(&scene, 1);
            CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
            CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
            CHECK_INT(value, 0);
            CHECK_INT(taker_end(&taker), departures[i].reason);
            CHECK_INT(make_send(scene.conn), departures[i].reason);
            CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
            CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1), QNET_OK);
            CHECK_INT(qnet_close_reason(scene.conn), departures[i].reason);
            taker_close(&taker);
            CHECK_INT(get(&scene.carrier.told), 1);
            peer_remove(&scene.peer);
        }
}

/* Set to 0 while it is up, the next end is one; set while it is open, the next is none. */
static void switched_while_up(void)
{
    struct scene scene;

    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_OK);
    scene_down(&scene);
    scene_up(&scene);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    peer_leaves(&scene.peer);
    CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
    CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
    CHECK_INT(get(&scene.carrier.told), 2);
    scene_close(&scene);

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    CHECK_INT(qnet_dial(kind_now->network, scene.peer.place.text, &scene.conn), QNET_OK);
    peer_accepts(&scene.peer);
    CHECK_INT(qnet_set_state_handler(scene.conn, carrier_told, &scene.carrier), QNET_OK);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_OK);
    scene_down(&scene);
    scene_up(&scene);
    scene_close(&scene);
}

/* The time is read anew when it is set. */
static void another_time_while_down(void)
{
    struct scene scene;

    scene_open(&scene, NEVER_MS);
    scene_down(&scene);
    peer_listens(&scene.peer, 8);
    raw_sleep_ms(50);
    CHECK_INT(get(&scene.carrier.told), 1);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1), QNET_OK);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    scene_close(&scene);
}

/* Without a thread there is no dialling again: it ends as it would have. */
static void ends_without_a_thread(void)
{
    struct rlimit before;
    struct scene scene;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    scene_open(&scene, SOON_MS);
    before = allow_no_stack();
    goes(&scene.peer);
    CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close_reason(scene.conn), QNET_ERR_CLOSED);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK_INT(get(&scene.carrier.told), 0);
    scene_close(&scene);
}

static void not_for_others(void)
{
    struct peer peer;
    qnet_conn *conns[4];
    qnet_listener *listener;
    int64_t value = -1;
    int fds[2], plain[2], i;

    peer_make(&peer);
    CHECK_INT(qnet_socketpair(&conns[0], &conns[1]), QNET_OK);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, plain) == 0);
    CHECK_INT(qnet_from_fd(plain[0], &conns[2]), QNET_OK);
    CHECK_INT(qnet_listen(kind_now->network, peer.place.text, &listener), QNET_OK);
    fds[0] = place_connect(&peer.place);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conns[3]), QNET_OK);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_set(conns[i], QNET_OPT_RECONNECT_MS, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set(conns[i], QNET_OPT_RECONNECT_MS, 0), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_get(conns[i], QNET_OPT_RECONNECT_MS, &value), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set_state_handler(conns[i], carrier_told, NULL), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set_state_handler(conns[i], NULL, NULL), QNET_ERR_UNSUPPORTED);
    }
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_RECONNECT_MS, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_set_state_handler(NULL, NULL, NULL), QNET_ERR_HANDLE);
    for (i = 0; i < 4; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    close(fds[0]);
    close(plain[1]);
    place_remove(&peer.place);
}

static void values(void)
{
    struct scene scene;
    int64_t value = -1;

    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
    CHECK_INT(value, SOON_MS);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, -1), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1LL << 31), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_DIAL_TIMEOUT_MS, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
    CHECK_INT(value, SOON_MS);
    /* Buffers are asked for again at each peer. */
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RCVBUF, 40000), QNET_OK);
    scene_down(&scene);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_SNDBUF, 50000), QNET_OK);
    scene_up(&scene);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_SNDBUF, &value), QNET_OK);
    CHECK_INT(value, 50000);
    scene_close(&scene);
}

/* ---- Waiting ---- */

static void *receiving(void *argument)
{
    static struct flow got;

    got = flow_of_small_frames();
    take_by_recv(argument, &got);
    return NULL;
}

static void *polling(void *argument)
{
    CHECK_INT(make_poll(argument), 1);
    return NULL;
}

static void *waiting(void *argument)
{
    CHECK_INT(make_wait(argument), QNET_OK);
    return NULL;
}

/* While it is down nothing is ready and nothing has ended; who waits, waits on. */
static void waits_go_on(void)
{
    struct flow in = flow_of_small_frames(), got = in;
    pthread_t receiver, poller, waiter;
    struct scene scene;
    uint8_t ready = 7;

    scene_open(&scene, SOON_MS);
    start_thread(&waiter, waiting, scene.conn);
    start_thread(&poller, polling, scene.conn);
    raw_sleep_ms(20);
    peer_leaves(&scene.peer);
    is_told(&scene, 1);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    CHECK_INT(ready, 0);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 30), 0);
    CHECK_INT(qnet_wait(scene.conn, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_wait(scene.conn, 30), QNET_ERR_TIMEOUT);
    finds_nothing(scene.conn);
    CHECK_INT(qnet_recv(scene.conn, NULL, 0, 30), QNET_ERR_TIMEOUT);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    join_thread(poller);
    take_by_recv(scene.conn, &got);
    in = got = flow_of_small_frames();
    start_thread(&receiver, receiving, scene.conn);
    raw_sleep_ms(20);
    peer_leaves(&scene.peer);
    is_told(&scene, 3);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    join_thread(receiver);
    scene_close(&scene);
    join_thread(waiter);
}

/* A poll that finds the end takes it down, and is not woken by it. */
static void poll_is_enough(void)
{
    struct flow in = flow_of_small_frames(), got = in;
    struct scene scene;
    uint8_t ready = 7;

    scene_open(&scene, SOON_MS);
    peer_leaves(&scene.peer);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    CHECK_INT(ready, 0);
    is_told(&scene, 1);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    goes(&scene.peer);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, patience_ms()), 1);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 1);
    CHECK_INT(get(&scene.carrier.told), 2);
    take_by_recv(scene.conn, &got);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 4);
    scene_close(&scene);
}

/* ---- The descriptor ---- */

static void a_descriptor_that_follows(void)
{
    struct flow in = flow_of_small_frames(), got = in;
    struct footprint before = footprint_now();
    struct scene scene;
    int fd, life;

    scene_open(&scene, SOON_MS);
    fd = qnet_fd(scene.conn);
    CHECK(fd >= 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    for (life = 1; life <= LIVES; life++) {
        CHECK(!raw_readable(fd, 0));
        raw_send_flow(scene.peer.fd, &in, 1, 0);
        CHECK(raw_readable(fd, patience_ms()));
        take_by_recv(scene.conn, &got);
        finds_nothing(scene.conn);
        CHECK(!raw_readable(fd, 0));
        peer_leaves(&scene.peer);
        CHECK(raw_readable(fd, patience_ms()));
        finds_nothing(scene.conn);
        CHECK(!raw_readable(fd, 20));
        is_told(&scene, 2 * life - 1);
        CHECK_INT(qnet_fd(scene.conn), fd);
        scene_up(&scene);
        CHECK_INT(qnet_fd(scene.conn), fd);
    }
    scene_down(&scene);
    CHECK(!raw_readable(fd, 0));
    CHECK_INT(qnet_shutdown(scene.conn), QNET_OK);
    CHECK(raw_readable(fd, patience_ms()));
    CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_fd(scene.conn), fd);
    scene_close(&scene);
    footprint_again(before);
}

/* First asked for while it is down, and then switched off: told of the end all the same. */
static void a_descriptor_while_down(void)
{
    struct scene scene;
    int fd;

    scene_open(&scene, SOON_MS);
    scene_down(&scene);
    fd = qnet_fd(scene.conn);
    CHECK(!raw_readable(fd, 0));
    scene_up(&scene);
    CHECK(!raw_readable(fd, 0));
    raw_write(scene.peer.fd, "x", 1);
    CHECK(raw_readable(fd, patience_ms()));
    scene_down(&scene);
    CHECK(!raw_readable(fd, 0));
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK(raw_readable(fd, patience_ms()));
    CHECK_INT(recv_now(scene.conn), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_fd(scene.conn), fd);
    scene_close(&scene);
}

/* The socket itself was given out, and stays the descriptor. */
static void too_late_for_a_descriptor(void)
{
    struct peer peer;
    qnet_conn *conn;
    int64_t value = -1;
    int fd;

    peer_make(&peer);
    peer_listens(&peer, 8);
    CHECK_INT(qnet_dial(kind_now->network, peer.place.text, &conn), QNET_OK);
    peer_accepts(&peer);
    fd = qnet_fd(conn);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_ERR_BUSY);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK_INT(qnet_get(conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
    CHECK_INT(value, 0);
    CHECK_INT(qnet_fd(conn), fd);
    peer_leaves(&peer);
    CHECK_INT(qnet_recv(conn, NULL, 0, -1), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
    peer_remove(&peer);
}

/* ---- Often, and many ---- */

static void a_hundred_restarts_leave_nothing(void)
{
    struct footprint before = footprint_now(), open = before;
    struct flow out = flow_of_small_frames(), seen;
    struct scene scene;
    int life;

    scene_open(&scene, 1);
    CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
    CHECK(qnet_fd(scene.conn) >= 0);
    for (life = 1; life <= rounds(HUNDRED); life++) {
        peer_leaves(&scene.peer);
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
        seen = out;
        CHECK_INT(flow_send(&out, scene.conn, 0, 2), 2);
        raw_take_until(scene.peer.fd, &seen, out.next);
        if (life == 1)
            open = footprint_now();
    }
    CHECK_INT(stats_of(scene.conn).reconnects, rounds(HUNDRED));
    /* Who waits has made an event or two. */
    EVENTUALLY(footprint_now().descriptors <= open.descriptors + 2);
    scene_close(&scene);
    footprint_again(before);
}

static void many_at_once(void)
{
    enum { MANY = 50 };
    struct footprint before = footprint_now();
    struct flow flow = flow_of_small_frames();
    struct carrier carriers[MANY];
    qnet_conn *conns[MANY];
    struct peer peer;
    int fds[MANY], life, i;

    memset(carriers, 0, sizeof carriers);
    peer_make(&peer);
    peer_listens(&peer, MANY);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(dial(&peer, SOON_MS, &conns[i]), QNET_OK);
        peer_accepts(&peer);
        fds[i] = peer.fd;
        CHECK_INT(qnet_set_state_handler(conns[i], carrier_told, &carriers[i]), QNET_OK);
        CHECK_INT(qnet_set_handler(conns[i], ignore_frame, NULL), QNET_OK);
    }
    for (life = 1; life <= LIVES; life++) {
        peer.fd = -1;
        peer_goes_deaf(&peer);
        for (i = 0; i < MANY; i++)
            CHECK(close(fds[i]) == 0);
        for (i = 0; i < MANY; i++)
            EVENTUALLY(get(&carriers[i].told) == 2 * life - 1);
        peer_listens(&peer, MANY);
        for (i = 0; i < MANY; i++) {
            peer_accepts(&peer);
            fds[i] = peer.fd;
        }
        for (i = 0; i < MANY; i++) {
            EVENTUALLY(get(&carriers[i].told) == 2 * life);
            CHECK_INT(flow_send(&flow, conns[i], 0, 1), 1);
        }
    }
    for (i = 0; i < MANY; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(frames_until_the_end(fds[i]), 1);
        CHECK(close(fds[i]) == 0);
    }
    peer.fd = -1;
    peer_remove(&peer);
    footprint_again(before);
}

/* Every call at once, on one connection whose peer blinks, then a close. */
struct storm {
    qnet_conn *conn;
    struct carrier carriers[2];
    int stop;
    unsigned seed;
};

static void other_told(void *user, int up)
{
    (void)up;
    count_up(user);
}

static void *storming(void *argument)
{
    struct storm *storm = argument;
    unsigned state = (unsigned)count_up((int *)&storm->seed);
    qnet_conn *conn = storm->conn;
    uint8_t buffer[2048], ready;
    static int calls;
    char text[160];

    while (!get(&storm->stop)) {
        int result = QNET_OK;

        switch (next_random(&state) % 12) {
        case 0: result = make_send(conn); break;
        case 1: result = make_send_batch(conn) > 0 ? 0 : QNET_ERR_INTERNAL; break;
        case 2: result = qnet_recv(conn, buffer, sizeof buffer, 1);
            result = result > 0 || result == QNET_ERR_TIMEOUT || result == QNET_ERR_BUSY ? 0 : result;
            break;
        case 3: result = qnet_wait(conn, 1) == QNET_ERR_TIMEOUT ? 0 : QNET_ERR_INTERNAL; break;
        case 4: result = qnet_poll(&conn, &ready, 1, 1) >= 0 ? 0 : QNET_ERR_INTERNAL; break;
        case 5: result = qnet_set_handler(conn, ignore_frame, NULL); break;
        case 6: result = qnet_set_handler(conn, NULL, NULL); break;
        case 7: result = qnet_set_state_handler(conn, other_told, &calls); break;
        case 8: result = qnet_set_state_handler(conn, NULL, NULL); break;
        case 9: result = qnet_set(conn, QNET_OPT_RECONNECT_MS, 1 + state % 3); break;
        case 10: result = qnet_peer_addr(conn, text, sizeof text) < 0; break;
        default: result = qnet_close_reason(conn); break;
        }
        CHECK_INT(result, QNET_OK);
    }
    return NULL;
}

static void a_storm(void)
{
    enum { THREADS = 4 };
    struct footprint before = footprint_now();
    struct flow in = flow_of_small_frames();
    pthread_t threads[THREADS];
    struct storm storm;
    struct scene scene;
    int life, i;

    memset(&storm, 0, sizeof storm);
    scene_open(&scene, 1);
    storm.conn = scene.conn;
    CHECK_INT(qnet_set_state_handler(scene.conn, NULL, NULL), QNET_OK);
    for (i = 0; i < THREADS; i++)
        start_thread(&threads[i], storming, &storm);
    for (life = 0; life < rounds(100); life++) {
        raw_send_flow(scene.peer.fd, &in, 3, 0);
        raw_sleep_ms(life % 4);
        goes(&scene.peer);
        peer_accepts(&scene.peer);
    }
    put(&storm.stop, 1);
    for (i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    scene_close(&scene);
    footprint_again(before);
}

/* A child has the memory of its parent's threads, but not the threads. */
static void not_where_leaks_are_counted(void)
{
    if (is_under_valgrind())
        check_skip("the child's report would tell of its parent's threads");
}

/* A child that is forked meanwhile has nothing of it. */
static void forked_meanwhile(void)
{
    struct scene scene;
    int status;
    pid_t pid;

    not_where_leaks_are_counted();
    scene_open(&scene, SOON_MS);
    scene_down(&scene);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_INT(qnet_set_state_handler(scene.conn, NULL, NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(scene.conn), QNET_ERR_HANDLE);
        raw_sleep_ms(5 * SOON_MS);
        CHECK_INT(get(&scene.carrier.told), 1);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    scene_up(&scene);
    scene_close(&scene);
}

static int act_fork(struct act *act)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(qnet_close(act->conn) == QNET_ERR_HANDLE ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void forks_inside_it(void)
{
    not_where_leaks_are_counted();
    acts_that_leave_it(act_fork, 0);
}

/* One that never came up has ended as the system's refusal. */
static void ended_before_it_was_up(void)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 60000 };
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with("unix", "@qnet-test-nobody", options, 1, &conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(every_way_to_receive);
    RUN_KINDS(unread);
    RUN_KINDS(every_way_to_leave);
    kind_now = &peer_kinds[2];
    RUN(resets);
    kind_now = &peer_kinds[0];
    RUN_KINDS(frames_wait_for_who_pulls);
    RUN_KINDS(a_handler_was_taken_away);
    RUN_KINDS(sends_while_down_are_counted);
    RUN_KINDS(senders_at_work);
    RUN_KINDS(senders_at_work_coalescing);
    RUN_KINDS(senders_at_work_in_parts);
    RUN_KINDS(a_stuck_send_goes_on);
    RUN_KINDS(corked_sends_are_counted);
    RUN_KINDS(a_hub_port_survives);
    RUN(plugged_in_while_down);
    RUN_KINDS(a_link_survives);
    RUN_KINDS(a_full_link_goes_on);
    RUN(unlinked_when_a_write_has_met_the_end);
    RUN_KINDS(starts_before_its_peer);
    RUN(starts_before_anybody_answers);
    RUN(failures_at_the_beginning);
    RUN(ended_before_it_was_up);
    RUN(no_descriptor_for_now);
    RUN(closes_inside_it);
    RUN(shuts_down_inside_it);
    RUN(its_thread_ends_inside_it);
    RUN(is_unset_inside_it);
    RUN(calls_inside_it);
    RUN(forks_inside_it);
    RUN(close_waits_for_it);
    RUN(close_need_not_wait_for_it);
    RUN(setting_waits_for_it);
    RUN(a_slow_one_is_told_everything);
    RUN(down_again_while_told);
    RUN_KINDS(closed_while_down);
    RUN(closed_while_dialling);
    RUN(closed_at_any_time);
    RUN_KINDS(switched_off_while_down);
    RUN(switched_while_up);
    RUN(another_time_while_down);
    RUN(ends_without_a_thread);
    RUN(not_for_others);
    RUN_KINDS(values);
    RUN_KINDS(waits_go_on);
    RUN_KINDS(poll_is_enough);
    RUN_KINDS(a_descriptor_that_follows);
    RUN(a_descriptor_while_down);
    RUN(too_late_for_a_descriptor);
    RUN_KINDS(a_hundred_restarts_leave_nothing);
    RUN_KINDS(many_at_once);
    RUN(a_storm);
    RUN(forked_meanwhile);
    scratch_remove();
    return check_done();
}
