/*
 * redial.c - connections that outlive their peers: however the peer leaves and
 * however frames are received, the same handle goes on with the next peer, also
 * as a port of a hub or a link; and what becomes of frames that are sent
 * meanwhile.
 */
#include "macs.h"
#include "redialling.h"

/* ---- Helpers ---- */

/* The peer resets its connection and goes on listening. */
static void peer_resets(struct peer *peer)
{
    raw_reset_at_close(peer->fd);
    CHECK(close(peer->fd) == 0);
    peer->fd = -1;
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

/* Checks that every frame that was taken is counted as sent or as dropped. */
static void check_sent(qnet_conn *conn, unsigned sent)
{
    qnet_stats stats;

    CHECK_INT(qnet_flush(conn), QNET_OK);
    stats = stats_of(conn);
    CHECK_INT(stats.tx_frames + stats.tx_dropped, sent);
}

/* ---- However frames are received ---- */

/* Only the state handler is called, and the frames of every peer arrive in order. */
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

/* Where nobody receives, a send that fails makes the library notice that the peer is gone. */
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

/*
 * Whole frames from before the peer went are received first, and no part of
 * one; the next peer's stream begins afresh.
 */
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

/* A reset does not end the connection either, whether a read or a write finds it. */
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
    /*
     * The last frame sent to bring the connection down may have been written
     * when it was up again.
     */
    len = raw_recv(scene.peer.fd, first, sizeof first);
    CHECK(len > 0);
    if (frame_number(first, (size_t)len) < seen.next)
        seen.next--;
    flow_take(&seen, first, (size_t)len);
    raw_take_until(scene.peer.fd, &seen, out.next);
    check_sent(scene.conn, out.next);
    scene_close(&scene);
}

/*
 * Received frames can still be taken after sends have found the peer gone, and
 * lent ones outlive it.
 */
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

/* While a handler that was removed is still in a call, the connection does not go down. */
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

/*
 * A thread that sends without a pause until told to stop; `flow` counts the
 * frames that were taken.
 */
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

/* Peers come and go while several threads send all the time; the last peer gets whole frames. */
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
    goes(&scene.peer); /* senders that are blocked must be woken */
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

/* A send that waits for a peer that does not read succeeds when that peer leaves. */
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

/* A handler that answers each frame; what it sends inside its call is corked. */
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

/* A hub has two devices and, as its third port, a connection that is dialled again. */
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

/* A connection is attached to a hub, detached and linked while it is down. */
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

/*
 * The link stays while a side of it is down; the other side is still read, and
 * its frames are dropped.
 */
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

/*
 * A link does not read one side while the other's peer does not read, and goes
 * on when that leaves.
 */
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

/*
 * The link is taken away after a write has found the peer gone and before any
 * read has: the connection goes down all the same.
 */
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
    /* The other side is full, so that the link does not read this one. */
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

/*
 * A descriptor that was first asked for while the connection was down becomes
 * readable at its end.
 */
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

/* Once qnet_fd has given out the socket itself, dialling again can no longer be turned on. */
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
    RUN_KINDS(a_descriptor_that_follows);
    RUN(a_descriptor_while_down);
    RUN(too_late_for_a_descriptor);
    scratch_remove();
    return check_done();
}
