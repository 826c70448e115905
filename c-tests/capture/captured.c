/*
 * captured.c - captures of connections: whatever receives their frames, each frame that comes in
 * or goes out stands in the file once, with its direction.
 */
#include "../forward/cable.h"
#include "macs.h"
#include "redialling.h"
#include "shown.h"

/* ---- Programs that receive and send ---- */

enum { EACH = 3 * ALL_SIZES };

/* Every way to receive and to send, with whole frames of all lengths. */
static void by_program(void)
{
    const char *path = scratch_path("program.pcapng");
    int way, fd;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow sent = flow_of_all_sizes(), came = sent, out = sent, raw = sent;
        struct flow shown_came = sent, shown_out = sent;
        qnet_conn *conn = link_open(&fd);
        qnet_capture *capture = capture_to(path);
        uint64_t begun = time_of_day(), before;
        struct taker taker;
        struct shown shown;
        struct raw_job job;
        char peer[256];
        size_t i;
        int by;

        CHECK_INT(qnet_set(conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
        CHECK(qnet_peer_addr(conn, peer, sizeof peer) >= 0);
        capture_add(capture, conn, NULL);
        raw_start(&job, raw_writing, fd, sent, EACH);
        taker_start(&taker, conn, way, flow_each, &came);
        while (way < WAYS_TO_PULL && taker_count(&taker) < EACH)
            CHECK(taker_pull(&taker, patience_ms()) > 0);
        taker_want(&taker, EACH);
        join_thread(job.thread);
        raw_start(&job, raw_reading, fd, raw, WAYS_TO_SEND * ALL_SIZES);
        for (by = 0; by < WAYS_TO_SEND; by++)
            CHECK_INT(flow_send(&out, conn, by, ALL_SIZES), ALL_SIZES);
        join_thread(job.thread);
        CHECK_INT(capture_stats_of(capture).frames, EACH + WAYS_TO_SEND * ALL_SIZES);
        CHECK_INT(capture_stats_of(capture).bytes, stats_of(conn).rx_bytes + stats_of(conn).tx_bytes);
        CHECK_INT(capture_stats_of(capture).dropped, 0);
        capture_close(capture);
        shown = shown_whole(path);
        CHECK_INT(shown.interface_count, 1);
        shown_name(&shown, 0, peer[0] ? peer : "conn1", EACH + WAYS_TO_SEND * ALL_SIZES);
        CHECK(strcmp(shown.interfaces[0].description, peer) == 0);
        shown_flow(&shown, 0, SHOWN_IN, &shown_came, EACH);
        shown_flow(&shown, 0, SHOWN_OUT, &shown_out, WAYS_TO_SEND * ALL_SIZES);
        for (i = 0, before = begun; i < shown.count; i++) {
            CHECK(shown.frames[i].time >= before);
            before = shown.frames[i].time;
        }
        CHECK(before <= time_of_day());
        shown_free(&shown);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(close(fd) == 0);
    }
}

/* Looking at a frame's length, or having no room for it, takes no frame. */
static void what_is_not_taken(void)
{
    const char *path = scratch_path("refused.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), first = flow;
    uint8_t buffer[100] = { 0 }, wire[20 * (RAW_PREFIX + 60)];
    size_t runt;
    qnet_capture *capture;
    struct shown shown;
    qnet_conn *conn;
    int fd;

    conn = raw_pair(&fd);
    capture = capture_to(path);
    capture_add(capture, conn, "runts");
    for (runt = 0; runt < 14; runt++) {
        raw_send(fd, buffer, runt);
        raw_send_flow(fd, &flow, 1, 0);
    }
    CHECK_INT(qnet_recv(conn, NULL, 0, patience_ms()), 60);
    CHECK_INT(qnet_recv(conn, buffer, 59, 0), QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_recv_packed(conn, buffer, 63, 0), QNET_ERR_FRAME_SIZE);
    CHECK_INT(qnet_send(conn, buffer, 13), QNET_ERR_FRAME_SIZE);
    CHECK_INT(capture_stats_of(capture).frames, 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), 60);
    CHECK_INT(capture_stats_of(capture).frames, 1);
    CHECK_INT(qnet_recv_packed(conn, wire, sizeof wire, 0), 13 * (RAW_PREFIX + 60));
    capture_close(capture);
    shown = shown_whole(path);
    shown_flow(&shown, 0, SHOWN_IN, &first, 14);
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* Frames that are held back for others stand there when they are taken, once; padded ones as they go out. */
static void held_back_and_padded(void)
{
    const char *path = scratch_path("held.pcapng");
    static const size_t least = 14;
    struct flow flow = flow_of_one_size(&least);
    qnet_capture *capture;
    struct shown shown;
    qnet_conn *conn;
    uint8_t frame[100];
    size_t i;
    int fd, n;

    conn = raw_pair(&fd);
    capture = capture_to(path);
    capture_add(capture, conn, "held");
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 1000000), QNET_OK);
    for (n = 0; n < 50; n++)
        CHECK_INT(flow_send(&flow, conn, n % WAYS_TO_SEND, 1), 1);
    CHECK_INT(capture_stats_of(capture).frames, 50);
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 1), QNET_OK);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    CHECK_INT(flow_send(&flow, conn, 1, 10), 10);
    CHECK_INT(qnet_flush(conn), QNET_OK);
    for (n = 0; n < 61; n++)
        CHECK_INT(raw_recv(fd, frame, sizeof frame), n < 50 ? 14 : 60);
    CHECK_INT(capture_stats_of(capture).bytes, 50 * 14 + 11 * 60);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 61);
    for (i = 0; i < shown.count; i++) {
        CHECK_INT(shown.frames[i].len, i < 50 ? 14 : 60);
        CHECK_INT(frame_number(shown.frames[i].data, 14), i);
        for (n = 14; n < (int)shown.frames[i].kept; n++)
            CHECK_INT(shown.frames[i].data[n], 0);
    }
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void echo_frame(void *user, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(user, frame, len), QNET_OK);
}

/* What a handler sends is corked: each answer stands behind what it answers. */
static void answers_of_a_handler(void)
{
    const char *path = scratch_path("echo.pcapng");
    struct flow flow = flow_of_small_frames(), back = flow, in = flow, out = flow;
    struct shown shown;
    qnet_conn *conn;
    qnet_capture *capture;
    size_t i;
    int fd;

    conn = raw_pair(&fd);
    capture = capture_to(path);
    capture_add(capture, conn, "echo");
    CHECK_INT(qnet_set_handler(conn, echo_frame, conn), QNET_OK);
    raw_send_flow(fd, &flow, 70, 0);
    raw_take_until(fd, &back, 70);
    CHECK_INT(qnet_set_handler(conn, NULL, NULL), QNET_OK);
    capture_close(capture);
    shown = shown_whole(path);
    shown_flow(&shown, 0, SHOWN_IN, &in, 70);
    shown_flow(&shown, 0, SHOWN_OUT, &out, 70);
    for (i = 0; i < 70; i++) {
        CHECK_INT(shown.frames[2 * i].way, SHOWN_IN);
        CHECK_INT(shown.frames[2 * i + 1].way, SHOWN_OUT);
    }
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* ---- Links and hubs ---- */

/* A frame that is forwarded stands at both sides, unless it is lost on the way. */
static void both_sides_of_a_link(void)
{
    const char *path = scratch_path("link.pcapng");
    struct flow flow = flow_of_small_frames(), in = flow, out = flow, back = flow, lost = flow, from = flow;
    struct cable cable = cable_plugged();
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    size_t i;
    int passed = 0;

    capture_add(capture, cable.a, "left");
    capture_add(capture, cable.b, "right");
    raw_send_flow(cable.fa, &flow, 70, 0);
    raw_take_until(cable.fb, &back, 70);
    impair(cable.a, QNET_IN, "loss 100%");
    raw_send_flow(cable.fa, &flow, 10, 0);
    EVENTUALLY(check_counts(cable.a, QNET_IN).lost == 10);
    impair(cable.a, QNET_IN, "");
    impair(cable.b, QNET_OUT, "loss 100%");
    raw_send_flow(cable.fa, &flow, 10, 0);
    EVENTUALLY(check_counts(cable.b, QNET_OUT).lost == 10);
    impair(cable.b, QNET_OUT, "");
    CHECK_INT(qnet_set(cable.a, QNET_OPT_LINK, 0), QNET_OK);
    raw_send_flow(cable.fa, &flow, 10, 0);
    EVENTUALLY(stats_of(cable.a).rx_refused == 10);
    raw_send_flow(cable.fb, &lost, 10, 0);
    EVENTUALLY(stats_of(cable.a).tx_dropped == 10);
    CHECK_INT(qnet_set(cable.a, QNET_OPT_LINK, 1), QNET_OK);
    /* A send of the program's goes past the link, and stands there. */
    CHECK_INT(flow_send(&from, cable.a, 1, 7), 7);
    from.next = 0;
    raw_take_until(cable.fa, &from, 7);
    capture_close(capture);
    shown = shown_whole(path);
    shown_name(&shown, 0, "left", 107);
    shown_name(&shown, 1, "right", 80);
    shown_flow(&shown, 0, SHOWN_IN, &in, 100);
    shown_flow(&shown, 1, SHOWN_OUT, &out, 70);
    lost.next = from.next = 0;
    shown_flow(&shown, 1, SHOWN_IN, &lost, 10);
    shown_flow(&shown, 0, SHOWN_OUT, &from, 7);
    /* No frame leaves before it has come. */
    for (i = 0; i < 140; i++) {
        passed += shown.frames[i].way == SHOWN_IN ? 1 : -1;
        CHECK(passed >= 0);
    }
    shown_free(&shown);
    cable_close(&cable);
}

/* What is delayed stands at the two times: when it came, and when it went. */
static void delays_are_seen(void)
{
    const char *path = scratch_path("delay.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), back = flow;
    struct cable cable = cable_plugged();
    qnet_capture *capture = capture_to(path);
    struct shown shown;

    capture_add(capture, cable.a, "a");
    capture_add(capture, cable.b, "b");
    impair(cable.a, QNET_IN, "delay 30ms");
    impair(cable.b, QNET_OUT, "delay 20ms");
    raw_send_flow(cable.fa, &flow, 1, 0);
    raw_take_until(cable.fb, &back, 1);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 2);
    CHECK(shown.frames[1].time - shown.frames[0].time >= 50000000);
    shown_free(&shown);
    cable_close(&cable);
}

/* A hub shows every frame that it takes in, once; a port what is its own. */
static void a_hub_and_its_port(void)
{
    const char *path = scratch_path("hub.pcapng");
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    struct room room;
    uint64_t ports[2];
    size_t i;

    room_open(&room, 4);
    ports[0] = stats_of(room.devices[1].conn).rx_frames;
    ports[1] = stats_of(room.devices[1].conn).tx_frames;
    CHECK_INT(qnet_capture_add_hub(capture, room.hub, NULL), QNET_OK);
    CHECK_INT(qnet_capture_add_hub(capture, room.hub, "again"), QNET_ERR_BUSY);
    capture_add(capture, room.devices[1].conn, "port");
    for (i = 0; i < 4; i++)
        room_hears(&room, (int)i);
    device_says(&room.devices[0], room.devices[2].n, MAC_FRAME);
    device_hears(&room.devices[2], &room.devices[0], room.devices[2].n);
    CHECK_INT(qnet_set(room.devices[3].conn, QNET_OPT_LINK, 0), QNET_OK);
    device_says(&room.devices[3], EVERYBODY, MAC_FRAME);
    EVENTUALLY(stats_of(room.devices[3].conn).rx_refused == 1);
    impair(room.devices[0].conn, QNET_IN, "loss 100%");
    device_says(&room.devices[0], EVERYBODY, MAC_FRAME);
    EVENTUALLY(check_counts(room.devices[0].conn, QNET_IN).lost == 1);
    ports[0] = stats_of(room.devices[1].conn).rx_frames - ports[0];
    ports[1] = stats_of(room.devices[1].conn).tx_frames - ports[1];
    room_close(&room);
    capture_close(capture);
    shown = shown_whole(path);
    shown_name(&shown, 0, "hub1", 6);
    CHECK(strcmp(shown.interfaces[0].description, "") == 0);
    shown_name(&shown, 1, "port", ports[0] + ports[1]);
    CHECK_INT(ports[0], 1);
    CHECK_INT(ports[1], 3);
    for (i = 0; i < shown.count; i++)
        CHECK(shown.frames[i].interface == 1 || shown.frames[i].way == SHOWN_IN);
    shown_free(&shown);
}

static size_t number_in(const struct shown *shown, size_t i)
{
    return word_of(shown->frames[i].data, shown->frames[i].kept).number;
}

/* What a port's queue has no room for does not stand there, and nothing else is missing. */
static void what_a_queue_drops(void)
{
    const char *path = scratch_path("queue.pcapng");
    qnet_capture *capture = capture_to(path);
    static unsigned heard[10000];
    uint64_t sent;
    struct shown shown;
    struct room room;
    size_t i, before;

    room_open(&room, 2);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_QUEUE_BYTES, 100000), QNET_OK);
    sent = stats_of(room.devices[1].conn).tx_frames;
    capture_add(capture, room.devices[1].conn, "slow");
    for (i = 0; stats_of(room.devices[1].conn).tx_dropped < 10; i++)
        device_says(&room.devices[0], EVERYBODY, 1514);
    EVENTUALLY(all_is_read(room.devices[0].conn));
    raw_sleep_ms(10);
    before = (size_t)capture_stats_of(capture).frames;
    CHECK(before > 0 && before <= i - 10);
    CHECK(before <= sizeof heard / sizeof *heard);
    for (i = 0; i < before; i++)
        heard[i] = raw_hear(room.devices[1].fd).number;
    CHECK(!raw_readable(room.devices[1].fd, 10));
    CHECK_INT(capture_stats_of(capture).frames, stats_of(room.devices[1].conn).tx_frames - sent);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, before);
    for (i = 0; i < shown.count; i++)
        CHECK_INT(number_in(&shown, i), heard[i]);
    shown_free(&shown);
    room_close(&room);
}

/* The program's own end of a port of a hub, and not the hub's. */
static void a_port_of_the_programs(void)
{
    const char *path = scratch_path("port.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), in = flow, out = flow;
    qnet_capture *capture = capture_to(path);
    qnet_conn *one = NULL, *other = NULL;
    qnet_hub *hub = NULL;
    struct shown shown;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &one), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &other), QNET_OK);
    capture_add(capture, one, NULL);
    capture_add(capture, other, NULL);
    CHECK_INT(flow_send(&flow, one, 0, 1), 1);
    flow.next = 0;
    take_by_recv(other, &flow);
    capture_close(capture);
    shown = shown_whole(path);
    shown_name(&shown, 0, "conn1", 1);
    shown_name(&shown, 1, "conn2", 1);
    shown_flow(&shown, 0, SHOWN_OUT, &out, 1);
    shown_flow(&shown, 1, SHOWN_IN, &in, 1);
    shown_free(&shown);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(one), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
}

/* ---- Beginning and ending ---- */

static void from_then_on_until_then(void)
{
    const char *path = scratch_path("some.pcapng"), *other = scratch_path("other.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), back = flow, some = flow, all = flow;
    struct cable cable = cable_plugged();
    qnet_capture *capture = capture_to(path), *second = capture_to(other);
    struct shown shown;
    unsigned n;

    capture_add(second, cable.a, "all");
    for (n = 0; n < 60; n++) {
        if (n == 20)
            capture_add(capture, cable.a, "some");
        if (n == 40)
            CHECK_INT(qnet_capture_remove(capture, cable.a), QNET_OK);
        raw_send_flow(cable.fa, &flow, 1, 0);
        raw_take(cable.fb, &back);
    }
    CHECK_INT(qnet_capture_remove(capture, cable.a), QNET_ERR_INVALID);
    capture_add(capture, cable.a, "again");
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.interface_count, 2);
    some.next = 20;
    shown_name(&shown, 0, "some", 20);
    shown_name(&shown, 1, "again", 0);
    shown_flow(&shown, 0, SHOWN_IN, &some, 20);
    shown_free(&shown);
    capture_close(second);
    shown = shown_whole(other);
    shown_flow(&shown, 0, SHOWN_IN, &all, 60);
    shown_free(&shown);
    cable_close(&cable);
}

/* A connection that is not captured any more takes the fast paths again, which gives the same frames. */
static void the_fast_paths_again(void)
{
    struct flow flow = flow_of_small_frames(), came = flow;
    qnet_capture *capture;
    qnet_conn *conn;
    int fd, round;

    conn = raw_pair(&fd);
    for (round = 0; round < 10; round++) {
        capture = capture_to(scratch_path("round.pcapng"));
        raw_send_flow(fd, &flow, 7, 0);
        take_by_recv(conn, &came);
        capture_add(capture, conn, NULL);
        take_by_recv(conn, &came);
        take_by_recv(conn, &came);
        if (round % 2)
            CHECK_INT(qnet_capture_remove(capture, conn), QNET_OK);
        capture_close(capture);
        while (came.next < flow.next)
            take_by_recv(conn, &came);
        CHECK_INT(shown_count(scratch_path("round.pcapng")), 2);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* An end leaves the interface, and the slot's next connection is not captured. */
static void an_end_while_captured(void)
{
    const char *path = scratch_path("ended.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), came = flow, in = flow;
    struct footprint before = footprint_now();
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    qnet_conn *conn, *next;
    int fd, i;

    conn = raw_pair(&fd);
    capture_add(capture, conn, "brief");
    raw_send_flow(fd, &flow, 3, 0);
    CHECK(close(fd) == 0);
    for (i = 0; i < 3; i++)
        take_by_recv(conn, &came);
    CHECK_INT(recv_now(conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_capture_remove(capture, conn), QNET_OK);
    CHECK_INT(qnet_capture_add(capture, conn, "late"), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_capture_add(capture, conn, "stale"), QNET_ERR_HANDLE);
    CHECK_INT(qnet_capture_remove(capture, conn), QNET_ERR_HANDLE);
    for (i = 0; i < 300; i++) {
        next = raw_pair(&fd);
        if (i == 0)
            capture_add(capture, next, "next");
        CHECK_INT(make_send(next), QNET_OK);
        CHECK_INT(qnet_close(next), QNET_OK);
        CHECK(close(fd) == 0);
    }
    capture_close(capture);
    footprint_again(before);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 4);
    shown_name(&shown, 0, "brief", 3);
    shown_name(&shown, 1, "next", 1);
    shown_flow(&shown, 0, SHOWN_IN, &in, 3);
    shown_free(&shown);
}

/* Captures come and go while frames do, at both sides of a link and a handler. */
static void begun_and_ended_at_full_speed(void)
{
    struct flow flow = flow_of_small_frames();
    struct cable cable = cable_plugged();
    struct raw_job jobs[5];
    struct taker taker;
    qnet_conn *conn;
    struct flow came = flow;
    unsigned count = (unsigned)rounds(100000) / 64 * 64 + 64;
    int fd, i;

    conn = raw_pair(&fd);
    taker_start(&taker, conn, BY_HANDLER, flow_each, &came);
    raw_start(&jobs[0], raw_writing, cable.fa, flow, count);
    raw_start(&jobs[1], raw_reading, cable.fb, flow, count);
    raw_start(&jobs[2], raw_writing, cable.fb, flow, count);
    raw_start(&jobs[3], raw_reading, cable.fa, flow, count);
    raw_start(&jobs[4], raw_writing, fd, flow, count);
    for (i = 0; i < 30; i++) {
        qnet_capture *capture = capture_to(scratch_path("speed.pcapng"));
        struct shown shown;
        qnet_capture_stats stats;

        capture_add(capture, cable.a, "a");
        capture_add(capture, conn, "handled");
        raw_sleep_ms(2);
        capture_add(capture, cable.b, "b");
        raw_sleep_ms(2);
        if (i % 2)
            CHECK_INT(qnet_capture_remove(capture, conn), QNET_OK);
        stats = capture_stats_of(capture);
        capture_close(capture);
        shown = shown_whole(scratch_path("speed.pcapng"));
        CHECK(shown.count >= stats.frames);
        shown_free(&shown);
    }
    for (i = 0; i < 5; i++)
        join_thread(jobs[i].thread);
    taker_want(&taker, count);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
    cable_close(&cable);
}

/* ---- Peers that come and go ---- */

/* While the peer is away nothing is shown of what is lost, and what comes after is shown again. */
static void dialled_again(void)
{
    const char *path = scratch_path("again.pcapng");
    int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS };
    struct flow flow = flow_of_one_size(&short_frame), came = flow, out = flow;
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    struct peer peer;
    qnet_conn *conn = NULL;
    uint64_t lost;
    int fd, round;

    place_make(&peer.place, kind_now);
    peer_listens(&peer, 1);
    CHECK_INT(qnet_dial_with(kind_now->network, peer.place.text, options, 1, &conn), QNET_OK);
    capture_add(capture, conn, "again");
    for (round = 0; round < 3; round++) {
        fd = accept_only(peer.listener);
        EVENTUALLY(stats_of(conn).reconnects == (uint64_t)round);
        CHECK_INT(flow_send(&flow, conn, 1, 10), 10);
        raw_take_until(fd, &came, flow.next);
        if (peer.place.directory[0])
            CHECK(unlink(peer.place.text) == 0);
        CHECK(close(fd) == 0);
        lost = stats_of(conn).tx_dropped;
        EVENTUALLY((qnet_wait(conn, 0), make_send(conn) == QNET_OK && stats_of(conn).tx_dropped > lost));
        peer_listens(&peer, 1);
    }
    fd = accept_only(peer.listener);
    CHECK_INT(capture_stats_of(capture).frames, stats_of(conn).tx_frames);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK(shown.count >= 30);
    for (lost = 0; lost < shown.count; lost++)
        if (shown.frames[lost].len == short_frame)
            flow_take(&out, shown.frames[lost].data, short_frame);
    CHECK_INT(out.next, 30);
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
    if (peer.place.directory[0])
        CHECK(unlink(peer.place.text) == 0);
    place_remove(&peer.place);
}

int main(void)
{
    scratch_make();
    RUN_EACH(by_program);
    RUN(what_is_not_taken);
    RUN(held_back_and_padded);
    RUN(answers_of_a_handler);
    RUN(both_sides_of_a_link);
    RUN(delays_are_seen);
    RUN(a_hub_and_its_port);
    RUN(what_a_queue_drops);
    RUN(a_port_of_the_programs);
    RUN(from_then_on_until_then);
    RUN(the_fast_paths_again);
    RUN(an_end_while_captured);
    RUN(begun_and_ended_at_full_speed);
    RUN(dialled_again);
    scratch_remove();
    return check_done();
}
