/*
 * hub.c - a hub as a learning switch: who gets which frame, what a slow port
 * loses and nobody else does, ports that come and go, and what is served in
 * the background.
 */
#include "macs.h"
#include "scratch.h"

static const size_t short_frame = 60, middle_frame = 1514;

enum { LINGER_SHORT_MS = 50 };

/* ---- Learning ---- */

static void unicast_goes_to_its_port_alone(void)
{
    struct room room;
    int i, j;

    room_open(&room, 4);
    for (i = 0; i < 4; i++)
        for (j = 0; j < 4; j++) {
            struct device *from = &room.devices[i], *to = &room.devices[j];

            if (i == j)
                continue;
            device_says(from, to->n, MAC_FRAME);
            device_hears(to, from, to->n);
        }
    CHECK_INT(hub_stats_of(room.hub).forwarded, 12);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).macs, 4);
    CHECK_INT(hub_stats_of(room.hub).ports, 4);
    CHECK_INT(hub_stats_of(room.hub).flooded, 8);
    CHECK_INT(hub_stats_of(room.hub).forwarded, 12);
    CHECK_INT(hub_stats_of(room.hub).dropped, 0);
    room_close(&room);
}

/* Writes one frame with that destination, from that source. */
static void send_addressed(int fd, const uint8_t *to, const uint8_t *from)
{
    uint8_t frame[MAC_FRAME] = { 0 };

    memcpy(frame, to, MAC_LEN);
    memcpy(frame + MAC_LEN, from, MAC_LEN);
    raw_send(fd, frame, sizeof frame);
}

/* The next frame has that destination. */
static void recv_addressed(int fd, const uint8_t *to)
{
    uint8_t frame[MAC_FRAME];

    CHECK_INT(raw_recv(fd, frame, sizeof frame), sizeof frame);
    CHECK(memcmp(frame, to, MAC_LEN) == 0);
}

static void groups_and_unknown_are_flooded(void)
{
    static const uint8_t flooded[][MAC_LEN] = {
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, { 0x33, 0x33, 0, 0, 0, 1 }, { 1, 0, 0x5e, 0, 0, 1 },
        { 1, 0x80, 0xc2, 0, 0, 0 }, { 2, 0, 0, 0, 0x27, 0x0f }, { 0, 0, 0, 0, 0, 0 },
    };
    struct room room;
    uint8_t source[MAC_LEN];
    size_t i;
    int j;

    room_open(&room, 4);
    mac_make(source, room.devices[1].n);
    for (i = 0; i < 6; i++) {
        send_addressed(room.devices[1].fd, flooded[i], source);
        for (j = 0; j < 4; j++)
            if (j != 1)
                recv_addressed(room.devices[j].fd, flooded[i]);
    }
    CHECK_INT(hub_stats_of(room.hub).flooded, 4 + 6);
    CHECK_INT(hub_stats_of(room.hub).forwarded, 0);
    room_is_quiet(&room);
    room_close(&room);
}

/* Not even where the destination is at the port that the frame comes from. */
static void nothing_goes_back(void)
{
    struct room room;
    struct word word = { 2, 77, 0, MAC_FRAME };

    room_open(&room, 3);
    device_says(&room.devices[1], room.devices[1].n, MAC_FRAME);
    raw_say(room.devices[1].fd, word);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).dropped, 2);
    CHECK_INT(hub_stats_of(room.hub).forwarded, 0);
    CHECK_INT(hub_stats_of(room.hub).macs, 4);
    CHECK_INT(stats_of(room.devices[1].conn).tx_dropped, 0);
    room_close(&room);
}

/* Many devices behind one port, as behind another switch. */
static void many_devices_behind_a_port(void)
{
    struct room room;
    int n;

    room_open(&room, 3);
    for (n = 100; n < 200; n++) {
        struct word said = { EVERYBODY, 0, 0, MAC_FRAME };

        said.from = n;
        raw_say(room.devices[1].fd, said);
        CHECK_INT(raw_hear(room.devices[0].fd).from, n);
        CHECK_INT(raw_hear(room.devices[2].fd).from, n);
    }
    CHECK_INT(hub_stats_of(room.hub).macs, 103);
    for (n = 100; n < 200; n++) {
        device_says(&room.devices[0], n, MAC_FRAME);
        device_hears(&room.devices[1], &room.devices[0], n);
    }
    room_is_quiet(&room);
    room_close(&room);
}

/* Unheard for long enough, a device is as unknown as at first. */
static void addresses_age(void)
{
    struct room room;

    room_open(&room, 3);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_MAC_AGE_S, 1), QNET_OK);
    raw_sleep_ms(1200);
    device_says(&room.devices[0], room.devices[1].n, MAC_FRAME);
    device_hears(&room.devices[1], &room.devices[0], room.devices[1].n);
    device_hears(&room.devices[2], &room.devices[0], room.devices[1].n);
    EVENTUALLY(hub_stats_of(room.hub).macs == 0);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_MAC_AGE_S, 300), QNET_OK);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_close(&room);
}

/* Heard at another port, a device is there from then on. */
static void a_device_moves(void)
{
    struct room room;
    int at;

    room_open(&room, 4);
    for (at = 1; at < 4; at++) {
        struct word moved = { 1, 50, 0, MAC_FRAME };

        raw_say(room.devices[at].fd, moved);
        CHECK_INT(raw_hear(room.devices[0].fd).from, 50);
        device_says(&room.devices[0], 50, MAC_FRAME);
        device_hears(&room.devices[at], &room.devices[0], 50);
    }
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).macs, 5);
    room_close(&room);
}

/* However many sources there are, the table stays within its bound, and who talks is known. */
static void the_table_is_bounded(void)
{
    enum { MOST = 16 };
    unsigned count = 1000 + (unsigned)rounds(20000), i;
    struct room room;

    room_open(&room, 4);
    room_is_quiet(&room);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_MAC_MAX, MOST), QNET_OK);
    for (i = 0; i < count; i++) {
        struct word word = { 1, 0, 0, MAC_FRAME };

        word.from = (int)(1000000 + i * 7919);
        raw_say(room.devices[3].fd, word);
        CHECK_INT(raw_hear(room.devices[0].fd).from, word.from);
        if (i % 100 == 0)
            CHECK(hub_stats_of(room.hub).macs <= MOST);
    }
    CHECK_INT(hub_stats_of(room.hub).macs, MOST);
    for (i = 0; i < 3; i++) {
        struct device *from = &room.devices[i], *to = &room.devices[(i + 1) % 3];

        device_says(from, to->n, MAC_FRAME);
        device_hears(to, from, to->n);
    }
    room_is_quiet(&room);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_MAC_MAX, 1), QNET_OK);
    CHECK(hub_stats_of(room.hub).macs <= 1);
    room_is_quiet(&room);
    CHECK(hub_stats_of(room.hub).macs <= 1);
    room_close(&room);
}

/* A group's address is no device's, though a frame says that it is from there. */
static void a_group_is_not_learned(void)
{
    static const uint8_t groups[][MAC_LEN] = {
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, { 0x33, 0x33, 0, 0, 0, 9 }, { 3, 0, 0, 0, 0, 1 },
    };
    struct room room;
    uint8_t known[MAC_LEN], speaker[MAC_LEN];
    size_t i;

    room_open(&room, 3);
    mac_make(known, room.devices[0].n);
    mac_make(speaker, room.devices[2].n);
    for (i = 0; i < 3; i++) {
        send_addressed(room.devices[1].fd, known, groups[i]);
        recv_addressed(room.devices[0].fd, known);
        send_addressed(room.devices[2].fd, groups[i], speaker);
        recv_addressed(room.devices[0].fd, groups[i]);
        recv_addressed(room.devices[1].fd, groups[i]);
    }
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_is_quiet(&room);
    room_close(&room);
}

/* ---- Attaching and detaching ---- */

static void early_frames_are_forwarded(void)
{
    struct flow sent = flow_of_small_frames(), received = sent;
    struct room room;
    int fd, i;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &sent, 50, 0);
    take_by_recv(conn, &received);
    room_open(&room, 2);
    CHECK_INT(qnet_hub_attach(room.hub, conn), QNET_OK);
    for (i = 0; i < 2; i++) {
        struct flow heard = received;

        raw_take_until(room.devices[i].fd, &heard, 50);
    }
    room_close(&room);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void detached_is_forgotten(void)
{
    struct room room;
    struct device *out = &room.devices[1];

    room_open(&room, 3);
    CHECK_INT(qnet_hub_detach(room.hub, out->conn), QNET_OK);
    CHECK_INT(qnet_hub_detach(room.hub, out->conn), QNET_ERR_INVALID);
    CHECK_INT(hub_stats_of(room.hub).macs, 2);
    CHECK_INT(ports_of(room.hub), 2);
    device_says(out, room.devices[2].n, MAC_FRAME);
    device_says(&room.devices[0], out->n, MAC_FRAME);
    device_hears(&room.devices[2], &room.devices[0], out->n);
    out->is_away = 1;
    room_is_quiet(&room);
    CHECK_INT(make_recv(out->conn), MAC_FRAME);
    CHECK_INT(bytes_waiting(out->fd), 0);
    device_says(out, room.devices[2].n, MAC_FRAME);
    out->is_away = 0;
    CHECK_INT(qnet_hub_attach(room.hub, out->conn), QNET_OK);
    device_hears(&room.devices[2], out, room.devices[2].n);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_close(&room);
}

/* In the middle of traffic: when detaching has returned, not a frame more is forwarded. */
static void detached_in_the_middle_of_traffic(void)
{
    enum { TURNS = 20 };
    struct flow flow = flow_of_small_frames(), expected = flow;
    unsigned count = 2000 + (unsigned)rounds(20000), passed = 0;
    struct raw_job writer;
    struct room room;
    int turn, fd;
    qnet_conn *conn = raw_pair(&fd);

    room_open(&room, 1);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_QUEUE_BYTES, 1 << 30), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow, count);
    for (turn = 0; turn < TURNS && expected.next < count; turn++) {
        CHECK_INT(qnet_hub_attach(room.hub, conn), QNET_OK);
        raw_sleep_ms(1);
        CHECK_INT(qnet_hub_detach(room.hub, conn), QNET_OK);
        passed = (unsigned)stats_of(conn).rx_frames;
        raw_take_until(room.devices[0].fd, &expected, passed);
        CHECK_INT(bytes_waiting(room.devices[0].fd), 0);
        if (passed < count)
            take_by_recv(conn, &expected);
    }
    while (expected.next < count)
        take_by_recv(conn, &expected);
    join_thread(writer.thread);
    room_close(&room);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* What was to be sent to a port is still written after it was detached. */
static void what_waits_for_a_port_is_written_after_it(void)
{
    struct room room;
    struct device *slow = &room.devices[1];
    unsigned said = 0, i;
    qnet_stats stats;

    room_open(&room, 2);
    while (stats_of(slow->conn).tx_dropped == 0) {
        for (i = 0; i < 100; i++, said++)
            device_says(&room.devices[0], slow->n, middle_frame);
    }
    EVENTUALLY(stats_of(room.devices[0].conn).rx_frames == said + 1);
    CHECK_INT(qnet_hub_detach(room.hub, slow->conn), QNET_OK);
    stats = stats_of(slow->conn);
    CHECK_INT(hub_stats_of(room.hub).dropped, stats.tx_dropped);
    said -= (unsigned)stats.tx_dropped;
    for (i = 0; i < said; i++)
        CHECK_INT(raw_hear(slow->fd).len, middle_frame);
    CHECK_INT(qnet_flush(slow->conn), QNET_OK);
    CHECK_INT(stats_of(slow->conn).tx_frames, said + 1);
    CHECK_INT(stats_of(slow->conn).tx_dropped, stats.tx_dropped);
    CHECK_INT(bytes_waiting(slow->fd), 0);
    room_close(&room);
}

static void attached_to_another_hub(void)
{
    struct room one, other;
    struct device mover;
    int turn;

    room_open(&one, 2);
    room_open(&other, 2);
    device_open(&mover, 40);
    for (turn = 0; turn < 6; turn++) {
        struct room *here = turn % 2 ? &one : &other, *there = turn % 2 ? &other : &one;

        CHECK_INT(qnet_hub_attach(here->hub, mover.conn), QNET_OK);
        CHECK_INT(qnet_hub_attach(there->hub, mover.conn), QNET_ERR_BUSY);
        CHECK_INT(qnet_hub_detach(there->hub, mover.conn), QNET_ERR_INVALID);
        device_says(&mover, EVERYBODY, MAC_FRAME);
        device_hears(&here->devices[0], &mover, EVERYBODY);
        device_hears(&here->devices[1], &mover, EVERYBODY);
        room_hears(there, 0);
        CHECK_INT(qnet_hub_detach(here->hub, mover.conn), QNET_OK);
    }
    CHECK_INT(bytes_waiting(mover.fd), 0);
    room_close(&one);
    room_close(&other);
    device_close(&mover);
}

static void no_other_way_to_receive(void)
{
    struct room room;
    qnet_conn *conn;
    qnet_hub *other;
    uint8_t ready = 7;

    CHECK_INT(qnet_hub_new(&other), QNET_OK);
    room_open(&room, 2);
    conn = room.devices[0].conn;
    CHECK_INT(make_recv(conn), QNET_ERR_BUSY);
    CHECK_INT(make_recv_batch(conn), QNET_ERR_BUSY);
    CHECK_INT(make_recv_packed(conn), QNET_ERR_BUSY);
    CHECK_INT(qnet_poll(&conn, &ready, 1, 0), 1);
    CHECK_INT(ready, 1);
    CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_ERR_BUSY);
    CHECK_INT(qnet_set_batch_handler(conn, ignore_batch, NULL), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(conn, room.devices[1].conn), QNET_ERR_BUSY);
    CHECK_INT(qnet_unlink(conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_attach(room.hub, conn), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_attach(other, conn), QNET_ERR_BUSY);
    CHECK_INT(qnet_hub_detach(other, conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    room_is_quiet(&room);
    room_close(&room);
    CHECK_INT(qnet_hub_close(other), QNET_OK);
}

static void handled_and_ended_are_not_attached(void)
{
    struct room room;
    struct device device, ended;

    room_open(&room, 2);
    device_open(&device, 30);
    device_open(&ended, 31);
    CHECK_INT(qnet_set_handler(device.conn, ignore_frame, NULL), QNET_OK);
    CHECK_INT(qnet_hub_attach(room.hub, device.conn), QNET_ERR_BUSY);
    CHECK_INT(qnet_set_handler(device.conn, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_hub_attach(room.hub, device.conn), QNET_OK);
    raw_write(ended.fd, "\377\377\377\377", 4);
    CHECK_INT(make_recv(ended.conn), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_hub_attach(room.hub, ended.conn), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_shutdown(room.devices[1].conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(room.hub, room.devices[1].conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_hub_detach(room.hub, room.devices[1].conn), QNET_ERR_INVALID);
    CHECK_INT(ports_of(room.hub), 2);
    room_close(&room);
    device_close(&device);
    device_close(&ended);
}

/* A send on an attached connection goes to its own peer, past the hub. */
static void sends_go_past_the_hub(void)
{
    uint8_t frame[MAC_FRAME];
    struct word word = { 2, 90, 5, MAC_FRAME };
    struct room room;

    room_open(&room, 3);
    word_make(frame, word);
    CHECK_INT(qnet_send(room.devices[0].conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_hear(room.devices[0].fd).from, 90);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_is_quiet(&room);
    room_close(&room);
}

/* ---- The end of a port ---- */

static int end_by_peer(void *argument)
{
    struct device *device = argument;

    return shutdown(device->fd, SHUT_WR);
}

static int end_by_shutdown(void *argument)
{
    struct device *device = argument;

    return qnet_shutdown(device->conn);
}

static int end_by_close(void *argument)
{
    struct device *device = argument;

    return qnet_close(device->conn);
}

/* It is detached, and its close handler runs once, on a library thread; the others go on. */
static void an_ended_connection_is_detached(void)
{
    static int (*const ends[])(void *) = { end_by_peer, end_by_shutdown, end_by_close };
    size_t i;

    for (i = 0; i < 3; i++) {
        struct ending ending = { 0, 0, 0, 0 };
        struct room room;
        struct device *gone;

        room_open(&room, 4);
        gone = &room.devices[3];
        CHECK_INT(qnet_set_close_handler(gone->conn, ending_told, &ending), QNET_OK);
        CHECK_INT(ends[i](gone), 0);
        CHECK_INT(qnet_wait(gone->conn, patience_ms()), i < 2 ? QNET_OK : QNET_ERR_HANDLE);
        check_told(&ending, QNET_ERR_CLOSED);
        CHECK_INT(ports_of(room.hub), 3);
        CHECK_INT(hub_stats_of(room.hub).macs, 3);
        CHECK(raw_ended(gone->fd));
        CHECK_INT(qnet_close_reason(gone->conn), i < 2 ? QNET_ERR_CLOSED : QNET_ERR_HANDLE);
        room.count = 3;
        room_is_quiet(&room);
        room_close(&room);
        CHECK_INT(qnet_close(gone->conn), i < 2 ? QNET_OK : QNET_ERR_HANDLE);
        check_told(&ending, QNET_ERR_CLOSED);
        CHECK(close(gone->fd) == 0);
    }
}

/* One that breaks the framing ends, and it alone; what came before is forwarded. */
static void a_broken_length_ends_its_port_alone(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct room room;
    struct device *liar;

    room_open(&room, 3);
    liar = &room.devices[2];
    CHECK_INT(qnet_set_close_handler(liar->conn, ending_told, &ending), QNET_OK);
    device_says(liar, EVERYBODY, MAC_FRAME);
    raw_write(liar->fd, "\0\1\020\1", 4); /* 69633 */
    device_hears(&room.devices[0], liar, EVERYBODY);
    device_hears(&room.devices[1], liar, EVERYBODY);
    CHECK_INT(qnet_wait(liar->conn, patience_ms()), QNET_OK);
    check_told(&ending, QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_close_reason(liar->conn), QNET_ERR_PROTOCOL);
    CHECK(raw_ended(liar->fd));
    device_close(liar);
    room.count = 2;
    room_is_quiet(&room);
    room_close(&room);
}

static void attached_it_ends(qnet_conn *liar, int fd)
{
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, liar), QNET_OK);
    CHECK_INT(qnet_wait(liar, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(liar), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(liar), QNET_OK);
    close(fd);
}

/* So it does where it was read before, behind a frame that was pulled. */
static void a_broken_length_from_before(void)
{
    int fd;
    qnet_conn *liar = raw_pair(&fd);

    send_one_and_break(fd);
    CHECK_INT(make_recv(liar), 60);
    attached_it_ends(liar, fd);
}

/* So it does with more behind it than any frame has. */
static void much_behind_a_broken_length(void)
{
    static uint8_t lie[140000] = { 0xff, 0xff, 0xff, 0xff };
    int fd;
    qnet_conn *liar = raw_pair(&fd);

    raw_write(fd, lie, sizeof lie);
    attached_it_ends(liar, fd);
}

static void runts_are_skipped(void)
{
    uint8_t runt[13] = { 0 };
    struct room room;
    size_t len;

    room_open(&room, 3);
    for (len = 0; len < 14; len++) {
        raw_send(room.devices[0].fd, runt, len);
        room_hears(&room, 0);
    }
    CHECK_INT(stats_of(room.devices[0].conn).rx_runts, 14);
    CHECK_INT(stats_of(room.devices[0].conn).rx_frames, 15);
    CHECK_INT(hub_stats_of(room.hub).flooded, 3 + 14);
    room_close(&room);
}

/* ---- Slow ports ---- */

/* A room with a port whose device does not read. */
struct slow_room {
    struct room room;
    struct device *speaker, *reader, *slow;
    unsigned said;    /* what the speaker had said by then, */
    uint64_t flooded; /* and all of them */
};

/* A reader, and a port that is slow from here on. */
static void slow_room_open(struct slow_room *slow, int64_t queue_bytes)
{
    room_open(&slow->room, 3);
    slow->speaker = &slow->room.devices[0];
    slow->reader = &slow->room.devices[1];
    slow->slow = &slow->room.devices[2];
    slow->slow->is_away = 1;
    slow->said = slow->speaker->said;
    slow->flooded = hub_stats_of(slow->room.hub).flooded;
    if (queue_bytes >= 0)
        CHECK_INT(qnet_hub_set(slow->room.hub, QNET_OPT_QUEUE_BYTES, queue_bytes), QNET_OK);
}

/* Says frames to everybody, which the reader hears at once, all of them. */
static void slow_room_speaks(struct slow_room *slow, int frames)
{
    static const size_t sizes[] = { 60, 1514, 16, 600 };
    unsigned heard = slow->speaker->said;
    int i, at;

    for (i = 0; i < frames; i += at) {
        for (at = 0; at < 16 && i + at < frames; at++)
            device_says(slow->speaker, EVERYBODY, sizes[(i + at) % 4]);
        while (heard < slow->speaker->said) {
            struct word word = raw_hear(slow->reader->fd);

            CHECK_INT(word.number, heard);
            heard++;
        }
    }
    /* Heard by one, it may still be on its way to another. */
    EVENTUALLY(hub_stats_of(slow->room.hub).flooded == slow->flooded + heard - slow->said);
}

/* Speaks until the slow port has lost some. */
static void slow_room_speaks_until_dropping(struct slow_room *slow)
{
    while (stats_of(slow->slow->conn).tx_dropped == 0)
        slow_room_speaks(slow, 512);
    slow_room_speaks(slow, 512);
}

/* Reads all that the port was not refused: whole frames, in order, none twice. */
static void slow_port_catches_up(struct slow_room *slow)
{
    unsigned said = slow->speaker->said - slow->said, frames, next = slow->said;
    unsigned dropped = (unsigned)stats_of(slow->slow->conn).tx_dropped;

    for (frames = 0; frames < said - dropped; frames++) {
        struct word word = raw_hear(slow->slow->fd);

        CHECK_INT(word.from, slow->speaker->n);
        CHECK(word.number >= next && word.number < slow->speaker->said);
        next = word.number + 1;
    }
}

/* The frames that a port got and those that it lost are all there were. */
static void slow_port_adds_up(struct slow_room *slow, unsigned before)
{
    unsigned said = slow->speaker->said - slow->said;
    unsigned dropped = (unsigned)stats_of(slow->slow->conn).tx_dropped;

    EVENTUALLY(stats_of(slow->slow->conn).tx_frames == before + said - dropped);
    CHECK_INT(stats_of(slow->slow->conn).tx_dropped, dropped);
    CHECK_INT(hub_stats_of(slow->room.hub).dropped, dropped);
    CHECK_INT(stats_of(slow->reader->conn).tx_dropped, 0);
}

/*
 * Nobody waits for who does not read: the others get everything, and the losses are counted. When
 * it reads again, what comes is in step, and nothing more is lost.
 */
static void slow_port(int64_t queue_bytes, int sndbuf)
{
    struct slow_room slow;
    unsigned before;

    slow_room_open(&slow, queue_bytes);
    if (sndbuf > 0)
        CHECK_INT(qnet_set(slow.slow->conn, QNET_OPT_SNDBUF, sndbuf), QNET_OK);
    before = (unsigned)stats_of(slow.slow->conn).tx_frames;
    slow_room_speaks_until_dropping(&slow);
    slow_port_catches_up(&slow);
    slow_port_adds_up(&slow, before);
    slow.slow->is_away = 0;
    room_is_quiet(&slow.room);
    CHECK_INT(hub_stats_of(slow.room.hub).dropped, stats_of(slow.slow->conn).tx_dropped);
    room_close(&slow.room);
}

static void a_slow_port_harms_nobody_else(void)
{
    slow_port(-1, 0);
}

static void a_slow_port_with_a_short_queue(void)
{
    slow_port(5000, 0);
    slow_port(5000, 1);
}

/* Nothing waits but the rest of a frame that the socket has taken a part of. */
static void a_slow_port_without_a_queue(void)
{
    slow_port(0, 0);
    slow_port(0, 1);
}

/* A queue of that length holds so much, and no more. */
static void a_queue_is_bounded(void)
{
    static const int64_t queues[] = { 0, 20000, 200000 };
    uint64_t held[3];
    int i;

    for (i = 0; i < 3; i++) {
        struct slow_room slow;
        uint64_t before;
        qnet_stats stats;

        slow_room_open(&slow, queues[i]);
        before = stats_of(slow.slow->conn).tx_frames;
        slow_room_speaks_until_dropping(&slow);
        stats = stats_of(slow.slow->conn);
        held[i] = before + slow.speaker->said - slow.said - stats.tx_dropped - stats.tx_frames;
        CHECK(held[i] * (16 + RAW_PREFIX) <= (uint64_t)queues[i] + 2000);
        room_close(&slow.room);
    }
    CHECK(held[0] < held[1]);
    CHECK(held[1] < held[2]);
}

/* Frames to a slow port alone: the hub forwarded some and dropped the others. */
static void unicast_to_a_slow_port_adds_up(void)
{
    struct slow_room slow;
    unsigned count = 0, before, hellos;
    qnet_hub_stats stats;
    int i;

    slow_room_open(&slow, 100000);
    hellos = (unsigned)stats_of(slow.slow->conn).tx_frames;
    before = (unsigned)stats_of(slow.speaker->conn).rx_frames;
    while (hub_stats_of(slow.room.hub).dropped == 0)
        for (i = 0; i < 200; i++, count++)
            device_says(slow.speaker, slow.slow->n, middle_frame);
    EVENTUALLY(stats_of(slow.speaker->conn).rx_frames == before + count);
    stats = hub_stats_of(slow.room.hub);
    CHECK_INT(stats.forwarded + stats.dropped, count);
    CHECK_INT(stats_of(slow.slow->conn).tx_dropped, stats.dropped);
    slow_port_catches_up(&slow);
    slow_port_adds_up(&slow, hellos);
    slow.slow->is_away = 0;
    room_is_quiet(&slow.room);
    room_close(&slow.room);
}

/* A port that ends with frames waiting loses them, and they are counted. */
static void a_slow_port_that_ends_adds_up(void)
{
    struct slow_room slow;
    unsigned before;
    qnet_stats stats;

    slow_room_open(&slow, -1);
    before = (unsigned)stats_of(slow.slow->conn).tx_frames;
    CHECK_INT(qnet_set(slow.slow->conn, QNET_OPT_LINGER_MS, LINGER_SHORT_MS), QNET_OK);
    slow_room_speaks_until_dropping(&slow);
    CHECK_INT(qnet_shutdown(slow.slow->conn), QNET_OK);
    CHECK_INT(qnet_wait(slow.slow->conn, patience_ms()), QNET_OK);
    EVENTUALLY(stats_of(slow.slow->conn).tx_frames + stats_of(slow.slow->conn).tx_dropped
               == before + slow.speaker->said - slow.said);
    stats = stats_of(slow.slow->conn);
    CHECK(stats.tx_dropped > hub_stats_of(slow.room.hub).dropped);
    slow_room_speaks(&slow, 10);
    CHECK_INT(stats_of(slow.slow->conn).tx_dropped, stats.tx_dropped);
    room_close(&slow.room);
}

/* ---- Options of a port ---- */

/* What is longer than a port may send is dropped there alone. */
static void long_frames_are_dropped_at_their_port(void)
{
    static const size_t sizes[] = { 60, 1514, 100, 101, 9000, 65535, QNET_FRAME_MAX, 16 };
    struct room room;
    unsigned i;

    room_open(&room, 3);
    CHECK_INT(qnet_set(room.devices[1].conn, QNET_OPT_MAX_FRAME, 100), QNET_OK);
    CHECK_INT(qnet_set(room.devices[2].conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    for (i = 0; i < 8; i++) {
        device_says(&room.devices[0], EVERYBODY, sizes[i]);
        device_hears(&room.devices[2], &room.devices[0], EVERYBODY);
        if (sizes[i] <= 100)
            device_hears(&room.devices[1], &room.devices[0], EVERYBODY);
    }
    CHECK_INT(stats_of(room.devices[1].conn).tx_dropped, 5);
    CHECK_INT(stats_of(room.devices[2].conn).tx_dropped, 0);
    CHECK_INT(hub_stats_of(room.hub).dropped, 5);
    device_says(&room.devices[0], room.devices[1].n, 101);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).dropped, 6);
    CHECK_INT(hub_stats_of(room.hub).forwarded, 0);
    room_close(&room);
}

static void a_port_pads(void)
{
    static const uint8_t zeroes[MAC_FRAME];
    struct room room;
    uint8_t frame[2048];
    size_t len;

    room_open(&room, 3);
    CHECK_INT(qnet_set(room.devices[1].conn, QNET_OPT_PAD, 1), QNET_OK);
    for (len = MAC_FRAME_LEAST; len < MAC_FRAME + 4; len++) {
        size_t padded = len < MAC_FRAME ? MAC_FRAME : len;

        device_says(&room.devices[0], EVERYBODY, len);
        CHECK_INT(raw_recv(room.devices[1].fd, frame, sizeof frame), padded);
        CHECK_INT(word_of(frame, len).number, room.devices[0].said - 1);
        CHECK(memcmp(frame + len, zeroes, padded - len) == 0);
        CHECK_INT(raw_hear(room.devices[2].fd).len, len);
    }
    room_is_quiet(&room);
    room_close(&room);
}

/* ---- Everybody to everybody ---- */

/* A device on a thread of its own. */
struct talker {
    pthread_t thread;
    struct device *device;
    unsigned rounds;
    unsigned heard[ROOM_MOST + 1]; /* of each device, how many frames */
};

/* The next frame of whoever it is from: frames of one are never out of order. */
static void talker_hears(struct talker *talker)
{
    struct word word = raw_hear(talker->device->fd);

    CHECK(word.from > 0 && word.from <= ROOM_MOST && word.from != talker->device->n);
    CHECK(word.to == talker->device->n || word.to == EVERYBODY);
    CHECK_INT(word.number, talker->heard[word.from]);
    CHECK_INT(word.to == EVERYBODY, word.number % 2);
    talker->heard[word.from]++;
}

/* Round for round a frame to each, and one to all; then as many are read as have been said. */
static void *talking(void *argument)
{
    struct talker *talker = argument;
    unsigned round, i;
    int to;

    for (round = 0; round < talker->rounds; round++) {
        struct word word = { 0, 0, 0, 0 };

        word.from = talker->device->n;
        word.len = round % 2 ? middle_frame : short_frame;
        word.number = 2 * round;
        for (to = 1; to <= ROOM_MOST; to++)
            if (to != word.from) {
                word.to = to;
                raw_say(talker->device->fd, word);
            }
        word.number++;
        word.to = EVERYBODY;
        raw_say(talker->device->fd, word);
        for (i = 0; i < 2 * (ROOM_MOST - 1); i++)
            talker_hears(talker);
    }
    return NULL;
}

/* Since nobody is far ahead of what was read, no queue gets full, and not a frame is missing. */
static void everybody_to_everybody(void)
{
    static struct talker talkers[ROOM_MOST];
    unsigned times = 10 + (unsigned)rounds(200), others = ROOM_MOST - 1;
    struct room room;
    qnet_hub_stats stats;
    int i;

    room_open(&room, ROOM_MOST);
    for (i = 0; i < ROOM_MOST; i++) {
        talkers[i].device = &room.devices[i];
        talkers[i].rounds = times;
        start_thread(&talkers[i].thread, talking, &talkers[i]);
    }
    for (i = 0; i < ROOM_MOST; i++)
        join_thread(talkers[i].thread);
    stats = hub_stats_of(room.hub);
    CHECK_INT(stats.forwarded, ROOM_MOST * others * times);
    CHECK_INT(stats.flooded, ROOM_MOST + ROOM_MOST * times);
    CHECK_INT(stats.dropped, 0);
    for (i = 0; i < ROOM_MOST; i++) {
        qnet_stats port = stats_of(room.devices[i].conn);

        CHECK_INT(port.rx_frames, 1 + times * (others + 1));
        CHECK_INT(port.tx_frames, others + times * 2 * others);
        CHECK_INT(port.tx_dropped, 0);
    }
    CHECK(footprint_now().threads <= MOST_LOOPS);
    room_is_quiet(&room);
    room_close(&room);
}

/* Two hubs, and a cable between them: like one. */
static void two_hubs_joined(void)
{
    struct room one, other;
    qnet_conn *a, *b;
    int i, j;

    room_open(&one, 2);
    room_open(&other, 2);
    for (i = 0; i < 2; i++)
        other.devices[i].n = 11 + i;
    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    CHECK_INT(qnet_hub_attach(one.hub, a), QNET_OK);
    CHECK_INT(qnet_hub_attach(other.hub, b), QNET_OK);
    for (i = 0; i < 2; i++)
        for (j = 0; j < 2; j++) {
            struct room *here = j ? &other : &one, *there = j ? &one : &other;

            device_says(&here->devices[i], EVERYBODY, MAC_FRAME);
            device_hears(&here->devices[1 - i], &here->devices[i], EVERYBODY);
            device_hears(&there->devices[0], &here->devices[i], EVERYBODY);
            device_hears(&there->devices[1], &here->devices[i], EVERYBODY);
        }
    for (i = 0; i < 2; i++)
        for (j = 0; j < 2; j++) {
            device_says(&one.devices[i], other.devices[j].n, MAC_FRAME);
            device_hears(&other.devices[j], &one.devices[i], other.devices[j].n);
            device_says(&other.devices[j], one.devices[i].n, MAC_FRAME);
            device_hears(&one.devices[i], &other.devices[j], one.devices[i].n);
        }
    CHECK_INT(hub_stats_of(one.hub).forwarded, 8);
    device_says(&one.devices[0], one.devices[1].n, MAC_FRAME);
    device_hears(&one.devices[1], &one.devices[0], one.devices[1].n);
    CHECK_INT(stats_of(a).tx_frames, 2 + 4);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_wait(b, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
    room_is_quiet(&one);
    room_is_quiet(&other);
    room_close(&one);
    room_close(&other);
}

/* ---- The program's own devices ---- */

/* Receives by any way; the frames must be those that device 1 says to everybody, in order. */
static void hear_in_order(void *argument, const uint8_t *frame, size_t len)
{
    unsigned *next = argument;
    struct word word = word_of(frame, len);

    CHECK_INT(word.from, 1);
    CHECK_INT(word.number, *next);
    (*next)++;
}

static void a_port_is_received_from_by_every_way(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct room room;
        struct taker taker;
        unsigned next, i;
        qnet_conn *port = NULL;

        room_open(&room, 2);
        next = room.devices[0].said;
        CHECK_INT(qnet_hub_port(room.hub, &port), QNET_OK);
        CHECK_INT(ports_of(room.hub), 3);
        taker_start(&taker, port, way, hear_in_order, &next);
        for (i = 0; i < 100; i++)
            device_says(&room.devices[0], EVERYBODY, MAC_FRAME + i);
        taker_want(&taker, 100);
        for (i = 0; i < 100; i++)
            CHECK_INT(raw_hear(room.devices[1].fd).len, MAC_FRAME + i);
        CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
        CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
        taker_close(&taker);
        device_close(&room.devices[0]);
        device_close(&room.devices[1]);
    }
}

/* Answers a frame: to its sender, from itself. */
struct echo {
    qnet_conn *port;
    int n;
};

static void echo_frame(void *user, const uint8_t *frame, size_t len)
{
    struct echo *echo = user;
    struct word word = word_of(frame, len);
    uint8_t answer[2048];

    CHECK(len <= sizeof answer);
    word.to = word.from;
    word.from = echo->n;
    word_make(answer, word);
    CHECK_INT(qnet_send(echo->port, answer, len), QNET_OK);
}

static void a_port_answers(void)
{
    struct echo echo = { NULL, 20 };
    struct room room;
    int i;

    room_open(&room, 3);
    CHECK_INT(qnet_hub_port(room.hub, &echo.port), QNET_OK);
    CHECK_INT(qnet_set_handler(echo.port, echo_frame, &echo), QNET_OK);
    for (i = 0; i < 100; i++) {
        struct device *device = &room.devices[i % 3];
        struct word word;

        device_says(device, i < 3 ? EVERYBODY : echo.n, MAC_FRAME);
        if (i < 3) {
            device_hears(&room.devices[(i + 1) % 3], device, EVERYBODY);
            device_hears(&room.devices[(i + 2) % 3], device, EVERYBODY);
        }
        word = raw_hear(device->fd);
        CHECK_INT(word.from, echo.n);
        CHECK_INT(word.to, device->n);
        CHECK_INT(word.number, device->said - 1);
    }
    CHECK_INT(hub_stats_of(room.hub).macs, 4);
    CHECK_INT(qnet_close(echo.port), QNET_OK);
    EVENTUALLY(ports_of(room.hub) == 3);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_is_quiet(&room);
    room_close(&room);
}

/* A port that is linked: the hub goes on behind it. */
static void a_port_is_linked(void)
{
    struct room room;
    struct device far;
    qnet_conn *port;

    room_open(&room, 2);
    device_open(&far, 60);
    CHECK_INT(qnet_hub_port(room.hub, &port), QNET_OK);
    CHECK_INT(qnet_link(port, far.conn), QNET_OK);
    device_says(&far, EVERYBODY, MAC_FRAME);
    device_hears(&room.devices[0], &far, EVERYBODY);
    device_hears(&room.devices[1], &far, EVERYBODY);
    device_says(&room.devices[0], far.n, MAC_FRAME);
    device_hears(&far, &room.devices[0], far.n);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    raw_take_end(far.fd);
    CHECK_INT(qnet_wait(port, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close(port), QNET_OK);
    device_close(&far);
    device_close(&room.devices[0]);
    device_close(&room.devices[1]);
}

/* ---- Closing a hub ---- */

/* What the caller attached stays usable; what the hub made ends. */
static void hub_close_detaches(void)
{
    struct footprint before = footprint_now();
    struct ending attached = { 0, 0, 0, 0 }, made = attached;
    struct room room;
    qnet_conn *port;
    int i;

    room_open(&room, 3);
    CHECK_INT(qnet_hub_port(room.hub, &port), QNET_OK);
    CHECK_INT(qnet_set_close_handler(room.devices[0].conn, ending_told, &attached), QNET_OK);
    CHECK_INT(qnet_set_close_handler(port, ending_told, &made), QNET_OK);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    CHECK_INT(qnet_hub_close(room.hub), QNET_ERR_HANDLE);
    for (i = 0; i < 3; i++) {
        CHECK_INT(recv_now(room.devices[i].conn), QNET_ERR_AGAIN);
        device_says(&room.devices[i], EVERYBODY, MAC_FRAME);
        CHECK_INT(make_recv(room.devices[i].conn), MAC_FRAME);
        CHECK_INT(make_send(room.devices[i].conn), QNET_OK);
        CHECK_INT(qnet_hub_detach(room.hub, room.devices[i].conn), QNET_ERR_HANDLE);
    }
    CHECK_INT(get(&attached.ends), 0);
    CHECK_INT(qnet_wait(port, patience_ms()), QNET_OK);
    CHECK_INT(make_recv(port), QNET_ERR_CLOSED);
    CHECK_INT(get(&made.ends), 1);
    CHECK_INT(get(&made.reason), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(port), QNET_OK);
    for (i = 0; i < 3; i++)
        device_close(&room.devices[i]);
    footprint_again(before);
}

static void no_thread_without_ports(void)
{
    struct footprint before = footprint_now(), none;
    struct device device;
    qnet_hub *hub;
    int i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    none = footprint_now();
    CHECK_INT(none.threads, before.threads);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
        EVENTUALLY(footprint_now().threads == 1);
        CHECK_INT(qnet_hub_detach(hub, device.conn), QNET_OK);
        footprint_again(none);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    footprint_again(before);
}

/* Many hubs and ports, and few threads for them all. */
static void many_hubs_need_few_threads(void)
{
    enum { HUBS = 40 };
    static struct room rooms[HUBS];
    struct footprint before;
    int i;

    allow_descriptors(HUBS * 8 + 100);
    before = footprint_now();
    for (i = 0; i < HUBS; i++)
        room_open(&rooms[i], 4);
    CHECK(footprint_now().threads <= MOST_LOOPS);
    for (i = 0; i < HUBS; i++)
        room_is_quiet(&rooms[i]);
    for (i = 0; i < HUBS; i++)
        room_close(&rooms[i]);
    footprint_again(before);
}

/* ---- Served listeners ---- */

/* A hub, a listener that it serves, where that is, and a device of the program's own. */
struct service {
    qnet_hub *hub;
    qnet_listener *listener;
    const char *place;
    struct device own;
};

static void service_open(struct service *service)
{
    CHECK_INT(qnet_hub_new(&service->hub), QNET_OK);
    service->place = scratch_abstract("served");
    CHECK_INT(qnet_listen("unix", service->place, &service->listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(service->hub, service->listener), QNET_OK);
    device_open(&service->own, 1);
    CHECK_INT(qnet_hub_attach(service->hub, service->own.conn), QNET_OK);
}

static void service_close(const struct service *service)
{
    CHECK_INT(qnet_hub_close(service->hub), QNET_OK);
    CHECK_INT(qnet_listener_close(service->listener), QNET_ERR_HANDLE);
    device_close(&service->own);
}

/* A peer that has joined: only its plain socket is known. */
static void peer_join(struct device *peer, const char *place, int n)
{
    memset(peer, 0, sizeof *peer);
    peer->n = n;
    peer->fd = raw_unix_connect(place);
    CHECK(peer->fd >= 0);
}

/* The served connection that is not the program's own. */
static qnet_conn *served_one(const struct service *service)
{
    qnet_conn *conns[2];

    EVENTUALLY(ports_of(service->hub) == 2);
    CHECK_INT(qnet_hub_ports(service->hub, conns, 2), 2);
    return conns[0] == service->own.conn ? conns[1] : conns[0];
}

static void peers_join_and_leave(void)
{
    struct footprint before = footprint_now();
    struct service service;
    int turn;

    service_open(&service);
    for (turn = 0; turn < 20; turn++) {
        struct device peer;
        qnet_conn *served;

        peer_join(&peer, service.place, 10 + turn);
        device_says(&peer, EVERYBODY, MAC_FRAME);
        device_hears(&service.own, &peer, EVERYBODY);
        device_says(&service.own, peer.n, MAC_FRAME);
        device_hears(&peer, &service.own, peer.n);
        served = served_one(&service);
        CHECK_INT(qnet_close_reason(served), QNET_OK);
        CHECK_INT(make_recv(served), QNET_ERR_BUSY);
        CHECK_INT(stats_of(served).rx_frames, 1);
        CHECK(close(peer.fd) == 0);
        EVENTUALLY(ports_of(service.hub) == 1);
        EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(served), QNET_ERR_HANDLE);
        CHECK_INT(qnet_hub_detach(service.hub, served), QNET_ERR_HANDLE);
        CHECK_INT(hub_stats_of(service.hub).macs, 1);
    }
    service_close(&service);
    footprint_again(before);
}

/* What was written before joining was noticed, and before leaving, is forwarded. */
static void a_peer_speaks_and_leaves_at_once(void)
{
    struct service service;
    struct device peer;
    unsigned i;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    for (i = 0; i < 20; i++)
        device_says(&peer, EVERYBODY, MAC_FRAME);
    CHECK(close(peer.fd) == 0);
    for (i = 0; i < 20; i++)
        CHECK_INT(raw_hear(service.own.fd).number, i);
    EVENTUALLY(ports_of(service.hub) == 1);
    service_close(&service);
}

/* Served peers see the end when the hub is closed, and so does who tries to join. */
static void hub_close_ends_what_it_served(void)
{
    enum { PEERS = 5 };
    struct footprint before = footprint_now();
    struct ending endings[PEERS + 1];
    struct device peers[PEERS];
    qnet_conn *conns[PEERS + 1];
    struct service service;
    int i;

    memset(endings, 0, sizeof endings);
    service_open(&service);
    for (i = 0; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    EVENTUALLY(ports_of(service.hub) == PEERS + 1);
    CHECK_INT(qnet_hub_ports(service.hub, conns, PEERS + 1), PEERS + 1);
    for (i = 0; i <= PEERS; i++)
        CHECK_INT(qnet_set_close_handler(conns[i], ending_told, &endings[i]), QNET_OK);
    CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
    for (i = 0; i <= PEERS; i++) {
        int is_own = conns[i] == service.own.conn;

        CHECK_INT(get(&endings[i].ends), is_own ? 0 : 1);
        CHECK_INT(qnet_close_reason(conns[i]), is_own ? QNET_OK : QNET_ERR_HANDLE);
    }
    for (i = 0; i < PEERS; i++) {
        raw_take_end(peers[i].fd);
        CHECK(close(peers[i].fd) == 0);
    }
    CHECK(raw_unix_connect(service.place) < 0);
    CHECK_INT(qnet_listener_close(service.listener), QNET_ERR_HANDLE);
    CHECK_INT(recv_now(service.own.conn), QNET_ERR_AGAIN);
    device_close(&service.own);
    footprint_again(before);
}

/* Closing the hub waits for served connections' close handlers, wherever they have got to. */
static void *closing_hub(void *hub)
{
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    return NULL;
}

static void check_hub_close_waits(int peer_leaves_before)
{
    struct ending ending = { 0, 0, 0, 1 };
    struct service service;
    struct device peer;
    pthread_t closer;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    if (peer_leaves_before) {
        CHECK(close(peer.fd) == 0);
        EVENTUALLY(get(&ending.thread) != 0);
    }
    start_thread(&closer, closing_hub, service.hub);
    EVENTUALLY(get(&ending.thread) != 0);
    EVENTUALLY(ports_of(service.hub) == QNET_ERR_HANDLE);
    raw_sleep_ms(20);
    CHECK_INT(pthread_tryjoin_np(closer, NULL), EBUSY);
    put(&ending.shut, 0);
    join_thread(closer);
    check_told(&ending, QNET_ERR_CLOSED);
    if (!peer_leaves_before)
        CHECK(close(peer.fd) == 0);
    device_close(&service.own);
}

static void hub_close_waits_for_close_handlers(void)
{
    check_hub_close_waits(0);
}

static void hub_close_waits_for_who_left_before(void)
{
    check_hub_close_waits(1);
}

/* Where the system refuses a thread, the close handler is called when it has one to spare. */
static void a_close_handler_waits_for_a_thread(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct rlimit before;
    struct service service;
    struct device peer;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    before = allow_no_stack();
    CHECK(close(peer.fd) == 0);
    EVENTUALLY(ports_of(service.hub) == 1);
    raw_sleep_ms(100);
    CHECK_INT(get(&ending.ends), 0);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    EVENTUALLY(get(&ending.ends) == 1);
    check_told(&ending, QNET_ERR_CLOSED);
    service_close(&service);
}

static void end_this_thread(void *user, int reason)
{
    ending_told(user, reason);
    pthread_exit(NULL);
}

/* A close handler that ends its thread is over, too: the connection is given back. */
static void a_close_handler_ends_its_thread(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct service service;
    struct device peer;
    qnet_conn *served;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_set_close_handler(served, end_this_thread, &ending), QNET_OK);
    CHECK(close(peer.fd) == 0);
    EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
    check_told(&ending, QNET_ERR_CLOSED);
    service_close(&service);
}

/* Detached, a served connection is the caller's. */
static void a_detached_peer_is_the_callers(void)
{
    uint8_t frame[2048];
    struct service service;
    struct device peer;
    qnet_conn *served;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_hub_detach(service.hub, served), QNET_OK);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    CHECK_INT(make_recv(served), MAC_FRAME);
    service_close(&service);
    CHECK_INT(make_send(served), QNET_OK);
    CHECK_INT(raw_recv(peer.fd, frame, sizeof frame), 1514);
    CHECK(close(peer.fd) == 0);
    CHECK_INT(make_recv(served), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(served), QNET_OK);
}

/* The caller may close a served connection, too, or only end it: then it is still given back. */
static void the_caller_ends_served_connections(void)
{
    struct service service;
    int by_close;

    service_open(&service);
    for (by_close = 0; by_close < 2; by_close++) {
        struct device peer;
        qnet_conn *served;

        peer_join(&peer, service.place, 10);
        served = served_one(&service);
        CHECK_INT(by_close ? qnet_close(served) : qnet_shutdown(served), QNET_OK);
        raw_take_end(peer.fd);
        EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
        CHECK_INT(ports_of(service.hub), 1);
        CHECK(close(peer.fd) == 0);
    }
    service_close(&service);
}

/* Without its listener a hub's peers stay; and a listener is one hub's alone. */
static void a_listener_closed_before_its_hub(void)
{
    struct service service;
    struct device peer;
    qnet_listener *next;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    EVENTUALLY(ports_of(service.hub) == 2);
    CHECK_INT(qnet_hub_serve(service.hub, service.listener), QNET_ERR_BUSY);
    CHECK_INT(qnet_listener_close(service.listener), QNET_OK);
    CHECK(raw_unix_connect(service.place) < 0);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peer, EVERYBODY);
    CHECK_INT(qnet_listen("unix", service.place, &next), QNET_OK);
    CHECK_INT(qnet_hub_serve(service.hub, next), QNET_OK);
    CHECK(close(peer.fd) == 0);
    peer_join(&peer, service.place, 11);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peer, EVERYBODY);
    service_close(&service);
    raw_take_end(peer.fd);
    CHECK(close(peer.fd) == 0);
    CHECK_INT(qnet_listener_close(next), QNET_ERR_HANDLE);
}

/* Served peers start with their listener's options. */
static void peers_have_their_listeners_options(void)
{
    struct service service;
    struct device peer;
    int64_t value = 0;
    qnet_conn *served;

    service_open(&service);
    CHECK_INT(qnet_listener_set(service.listener, QNET_OPT_PAD, 1), QNET_OK);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_get(served, QNET_OPT_PAD, &value), QNET_OK);
    CHECK_INT(value, 1);
    service_close(&service);
    CHECK(close(peer.fd) == 0);
}

static void no_more_peers_than_max_conns(void)
{
    enum { MOST = 3, PEERS = 6 };
    struct device peers[PEERS];
    struct service service;
    int i;

    service_open(&service);
    CHECK_INT(qnet_listener_set(service.listener, QNET_OPT_MAX_CONNS, MOST), QNET_OK);
    for (i = 0; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    for (i = MOST; i < PEERS; i++)
        CHECK(raw_ended(peers[i].fd));
    CHECK_INT(ports_of(service.hub), MOST + 1);
    for (i = 0; i < MOST; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        device_hears(&service.own, &peers[i], service.own.n);
    }
    CHECK(close(peers[0].fd) == 0);
    EVENTUALLY(ports_of(service.hub) == MOST);
    peer_join(&peers[0], service.place, 10);
    EVENTUALLY(ports_of(service.hub) == MOST + 1);
    service_close(&service);
    for (i = 0; i < PEERS; i++)
        CHECK(close(peers[i].fd) == 0);
}

/* Lets this process open `count` descriptors more than it has; the limit before. */
static struct rlimit leave_descriptors(unsigned count)
{
    struct rlimit before, now;
    int next = dup(0);

    CHECK(next >= 0);
    CHECK(close(next) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    now = before;
    now.rlim_cur = (rlim_t)next + count;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    return before;
}

static long long processor_ms(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Out of descriptors accepting waits, without being busy about it, and goes on. */
static void without_descriptors_serving_waits(void)
{
    enum { PEERS = 12, ALLOWED = 4 };
    struct sockaddr_un address;
    struct device peers[PEERS];
    struct service service;
    struct rlimit before;
    long long wall, busy;
    socklen_t len;
    int i;

    if (is_under_valgrind())
        check_skip("valgrind accepts and hangs up where the system refuses a descriptor");
    service_open(&service);
    len = raw_unix_address(service.place, &address);
    memset(peers, 0, sizeof peers);
    for (i = 0; i < PEERS; i++) {
        peers[i].n = 10 + i;
        peers[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(peers[i].fd >= 0);
    }
    before = leave_descriptors(ALLOWED);
    for (i = 0; i < PEERS; i++)
        CHECK(connect(peers[i].fd, (struct sockaddr *)&address, len) == 0);
    EVENTUALLY(ports_of(service.hub) == ALLOWED + 1);
    wall = raw_now_ms();
    busy = processor_ms();
    raw_sleep_ms(300);
    busy = processor_ms() - busy;
    wall = raw_now_ms() - wall;
    CHECK(busy < wall / 2);
    CHECK_INT(ports_of(service.hub), ALLOWED + 1);
    device_says(&peers[0], EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peers[0], EVERYBODY);
    device_hears(&peers[ALLOWED - 1], &peers[0], EVERYBODY);
    for (i = 0; i < ALLOWED; i++)
        CHECK(shutdown(peers[i].fd, SHUT_RDWR) == 0);
    device_says(&peers[ALLOWED], EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peers[ALLOWED], EVERYBODY);
    EVENTUALLY(ports_of(service.hub) == ALLOWED + 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    EVENTUALLY(ports_of(service.hub) == PEERS - ALLOWED + 1);
    for (i = ALLOWED; i < PEERS; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        CHECK_INT(raw_hear(service.own.fd).from, peers[i].n);
    }
    service_close(&service);
    for (i = 0; i < PEERS; i++)
        CHECK(close(peers[i].fd) == 0);
}

static void a_thousand_peers(void)
{
    enum { PEERS = 1000 };
    static struct device peers[PEERS];
    struct footprint before;
    struct service service;
    int i;

    allow_descriptors(2 * PEERS + 100);
    before = footprint_now();
    service_open(&service);
    for (i = 0; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    EVENTUALLY(ports_of(service.hub) == PEERS + 1);
    for (i = 0; i < PEERS; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        if (i > 0)
            continue;
        CHECK_INT(raw_hear(service.own.fd).from, peers[i].n);
        device_says(&service.own, EVERYBODY, MAC_FRAME);
    }
    for (i = 1; i < PEERS; i++)
        CHECK_INT(raw_hear(service.own.fd).to, service.own.n);
    for (i = 0; i < PEERS; i++) {
        struct word word;

        do
            word = raw_hear(peers[i].fd);
        while (word.from != service.own.n);
        CHECK_INT(word.to, EVERYBODY);
    }
    CHECK(footprint_now().threads <= MOST_LOOPS);
    CHECK_INT(hub_stats_of(service.hub).dropped, 0);
    for (i = 0; i < PEERS; i += 2)
        CHECK(close(peers[i].fd) == 0);
    EVENTUALLY(ports_of(service.hub) == PEERS / 2 + 1);
    service_close(&service);
    for (i = 1; i < PEERS; i += 2)
        CHECK(close(peers[i].fd) == 0);
    footprint_again(before);
}

/* Peers that join, perhaps speak, perhaps listen, and leave, one after another. */
struct storm {
    pthread_t thread;
    const char *place;
    int n;
    int peers;
    unsigned state;
};

static void *storming(void *argument)
{
    struct storm *storm = argument;
    int i;

    for (i = 0; i < storm->peers; i++) {
        struct device peer;
        unsigned what = next_random(&storm->state);

        peer_join(&peer, storm->place, storm->n);
        if (what & 1)
            device_says(&peer, EVERYBODY, MAC_FRAME);
        if (what & 2)
            device_says(&peer, 1, middle_frame);
        if ((what & 12) == 12)
            raw_write(peer.fd, "\0\0\0\074 half a frame", 12);
        if ((what & 48) == 48)
            (void)raw_readable(peer.fd, 1);
        CHECK(close(peer.fd) == 0);
    }
    return NULL;
}

/* Whoever connected before has been accepted when this one's turn to be hung up on has come. */
static void last_in_line(const char *place)
{
    char scratch[4096];
    struct device last;

    peer_join(&last, place, 9);
    CHECK(shutdown(last.fd, SHUT_WR) == 0);
    while (recv(last.fd, scratch, sizeof scratch, 0) > 0)
        continue;
    CHECK(close(last.fd) == 0);
}

static void storm_once(const struct service *service, int peers)
{
    struct storm storms[4];
    int i;

    for (i = 0; i < 4; i++) {
        storms[i].place = service->place;
        storms[i].n = 10 + i;
        storms[i].peers = peers;
        storms[i].state = (unsigned)i;
        start_thread(&storms[i].thread, storming, &storms[i]);
    }
    for (i = 0; i < 4; i++)
        join_thread(storms[i].thread);
    last_in_line(service->place);
    EVENTUALLY(ports_of(service->hub) == 1);
}

/* Thousands come and go, and nothing of them stays: no port, no descriptor, no memory. */
static void a_storm_of_peers(void)
{
    int peers = 10 + rounds(1000);
    struct footprint before = footprint_now();
    struct service service;
    struct raw_job reader;
    long memory;

    service_open(&service);
    raw_start(&reader, reading_until_the_end, service.own.fd, flow_of_small_frames(), 0);
    storm_once(&service, peers);
    memory = resident_bytes();
    storm_once(&service, 2 * peers);
    if (check_slow() == 1)
        CHECK(resident_bytes() - memory < 2000 << 10);
    CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
    CHECK_INT(qnet_close(service.own.conn), QNET_OK);
    join_thread(reader.thread);
    CHECK(close(service.own.fd) == 0);
    footprint_again(before);
}

/* A hub that is closed while peers join and leave. */
static void a_hub_closes_in_a_storm(void)
{
    struct footprint before = footprint_now();
    int round;

    for (round = 0; round < rounds(50); round++) {
        struct device peers[8];
        struct service service;
        int i;

        service_open(&service);
        for (i = 0; i < 8; i++) {
            peer_join(&peers[i], service.place, 10 + i);
            device_says(&peers[i], EVERYBODY, MAC_FRAME);
            if (i % 2)
                CHECK(close(peers[i].fd) == 0);
        }
        if (round % 2)
            raw_sleep_ms(1);
        CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
        for (i = 0; i < 8; i += 2) {
            CHECK(raw_readable(peers[i].fd, patience_ms()));
            CHECK(close(peers[i].fd) == 0);
        }
        device_close(&service.own);
    }
    footprint_again(before);
}

/* ---- Inside handlers ---- */

static int do_detach_and_attach(void *argument)
{
    struct room *room = argument;

    CHECK_INT(qnet_hub_detach(room->hub, room->devices[1].conn), QNET_OK);
    return qnet_hub_attach(room->hub, room->devices[1].conn);
}

static int do_close_a_port(void *argument)
{
    struct room *room = argument;

    return qnet_close(room->devices[2].conn);
}

static int do_make_a_port(void *argument)
{
    struct room *room = argument;
    qnet_conn *port;

    CHECK_INT(qnet_hub_port(room->hub, &port), QNET_OK);
    return qnet_close(port);
}

static int do_close_the_hub(void *argument)
{
    struct room *room = argument;

    return qnet_hub_close(room->hub);
}

static void hubs_change_inside_handlers(void)
{
    struct room room;

    room_open(&room, 3);
    inside_a_handler(do_detach_and_attach, &room);
    room_is_quiet(&room);
    inside_a_handler(do_make_a_port, &room);
    room_is_quiet(&room);
    inside_a_handler(do_close_a_port, &room);
    CHECK(raw_ended(room.devices[2].fd));
    CHECK(close(room.devices[2].fd) == 0);
    room.count = 2;
    room_is_quiet(&room);
    inside_a_handler(do_close_the_hub, &room);
    CHECK_INT(recv_now(room.devices[0].conn), QNET_ERR_AGAIN);
    device_close(&room.devices[0]);
    device_close(&room.devices[1]);
}

/* Inside a handler closing a hub waits for no close handler of what it served. */
static int do_close_the_served(void *argument)
{
    struct service *service = argument;

    return qnet_hub_close(service->hub);
}

static void a_served_hub_closes_inside_a_handler(void)
{
    struct ending ending = { 0, 0, 0, 1 };
    struct service service;
    struct device peer;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    inside_a_handler(do_close_the_served, &service);
    CHECK_INT(get(&ending.ends), 0);
    put(&ending.shut, 0);
    EVENTUALLY(get(&ending.ends) == 1);
    check_told(&ending, QNET_ERR_CLOSED);
    raw_take_end(peer.fd);
    CHECK(close(peer.fd) == 0);
    device_close(&service.own);
}

/* Closes its hub, from a close handler of one of its ports. */
struct last_one {
    qnet_hub *hub;
    qnet_conn *conn;
    int done;
};

static void close_all(void *user, int reason)
{
    struct last_one *last = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(qnet_hub_close(last->hub), QNET_OK);
    CHECK_INT(qnet_close(last->conn), QNET_OK);
    put(&last->done, 1);
}

static void a_close_handler_closes_the_hub(void)
{
    struct footprint before = footprint_now();
    struct room room;
    struct last_one last;

    room_open(&room, 2);
    memset(&last, 0, sizeof last);
    last.hub = room.hub;
    last.conn = room.devices[1].conn;
    CHECK_INT(qnet_set_close_handler(last.conn, close_all, &last), QNET_OK);
    CHECK(close(room.devices[1].fd) == 0);
    EVENTUALLY(get(&last.done));
    CHECK_INT(qnet_close(last.conn), QNET_ERR_HANDLE);
    CHECK_INT(recv_now(room.devices[0].conn), QNET_ERR_AGAIN);
    device_close(&room.devices[0]);
    footprint_again(before);
}

/* A handler that gives its connection to a hub: the frames that it did not take are forwarded. */
struct giver {
    qnet_hub *hub;
    qnet_conn *conn;
    struct flow flow;
    int done;
};

static void give_to_hub(void *user, const uint8_t *frame, size_t len)
{
    struct giver *giver = user;

    flow_take(&giver->flow, frame, len);
    if (giver->flow.next != 10)
        return;
    CHECK_INT(qnet_set_handler(giver->conn, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_hub_attach(giver->hub, giver->conn), QNET_OK);
    raw_sleep_ms(20);
    put(&giver->done, 1);
}

static void a_handler_gives_way_to_a_hub(void)
{
    struct flow sent = flow_of_small_frames();
    struct giver giver;
    struct room room;
    int fd;

    room_open(&room, 1);
    memset(&giver, 0, sizeof giver);
    giver.hub = room.hub;
    giver.conn = raw_pair(&fd);
    giver.flow = sent;
    raw_send_flow(fd, &sent, 200, 0);
    CHECK_INT(qnet_set_handler(giver.conn, give_to_hub, &giver), QNET_OK);
    EVENTUALLY(get(&giver.done));
    raw_send_flow(fd, &sent, 200, 0);
    raw_take_until(room.devices[0].fd, &giver.flow, 400);
    room_close(&room);
    CHECK_INT(qnet_close(giver.conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* ---- Several threads ---- */

enum { WORKERS = 4, CALLS = 20, CROWD = 6 };

struct meddler {
    pthread_t thread;
    qnet_hub *hub;
    qnet_conn *conns[CROWD];
    unsigned state;
};

enum {
    FINE = MAY(QNET_OK) | MAY(QNET_ERR_HANDLE),
    REFUSED = FINE | MAY(QNET_ERR_BUSY) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_OS)
};

/* One call that changes the hub, or what is attached to it; seldom one that ends something. */
static void meddle(struct meddler *meddler)
{
    qnet_conn *conn = meddler->conns[next_random(&meddler->state) % CROWD], *port;
    qnet_hub *hub = meddler->hub;
    int result;

    switch (next_random(&meddler->state) % 20) {
    default:
        check_among(qnet_hub_attach(hub, conn), REFUSED);
        return;
    case 7: case 8: case 9: case 10: case 11:
        check_among(qnet_hub_detach(hub, conn), FINE | MAY(QNET_ERR_INVALID));
        return;
    case 12: case 13:
        result = qnet_hub_port(hub, &port);
        check_among(result, FINE);
        if (result == QNET_OK)
            check_among(qnet_close(port), FINE);
        return;
    case 14:
        check_among(qnet_hub_set(hub, QNET_OPT_QUEUE_BYTES, 100), FINE);
        return;
    case 15:
        CHECK(ports_of(hub) >= 0 || ports_of(hub) == QNET_ERR_HANDLE);
        return;
    case 16:
        check_among(qnet_shutdown(conn), FINE);
        return;
    case 17:
        check_among(qnet_close(conn), FINE);
        return;
    case 18:
        check_among(qnet_link(conn, meddler->conns[0]), REFUSED | MAY(QNET_ERR_INVALID));
        return;
    case 19:
        if (next_random(&meddler->state) % 8 == 0)
            check_among(qnet_hub_close(hub), FINE);
    }
}

static void *meddling(void *argument)
{
    struct meddler *meddler = argument;
    int calls;

    for (calls = 0; calls < CALLS; calls++) {
        meddle(meddler);
        if (next_random(&meddler->state) % 4 == 0)
            raw_sleep_ms(1);
    }
    return NULL;
}

/* A crowd whose plain sockets write and read until their ends. */
struct crowd {
    qnet_conn *conns[CROWD];
    struct ending endings[CROWD];
    struct raw_job writers[CROWD], readers[CROWD];
    int fds[CROWD];
};

static void crowd_open(struct crowd *crowd, qnet_hub *hub)
{
    struct flow flow = flow_of_one_size(&middle_frame);
    int i;

    memset(crowd, 0, sizeof *crowd);
    for (i = 0; i < CROWD; i++) {
        crowd->conns[i] = raw_pair(&crowd->fds[i]);
        CHECK_INT(qnet_set(crowd->conns[i], QNET_OPT_LINGER_MS, 0), QNET_OK);
        CHECK_INT(qnet_set_close_handler(crowd->conns[i], ending_told, &crowd->endings[i]),
                  QNET_OK);
        CHECK_INT(qnet_hub_attach(hub, crowd->conns[i]), QNET_OK);
        raw_start(&crowd->writers[i], writing_until_the_end, crowd->fds[i], flow, 500);
        raw_start(&crowd->readers[i], reading_until_the_end, crowd->fds[i], flow, 0);
    }
}

static void crowd_close(struct crowd *crowd)
{
    int i;

    for (i = 0; i < CROWD; i++)
        check_among(qnet_close(crowd->conns[i]), FINE);
    for (i = 0; i < CROWD; i++) {
        join_thread(crowd->writers[i].thread);
        join_thread(crowd->readers[i].thread);
        EVENTUALLY(get(&crowd->endings[i].ends) == 1);
        CHECK(close(crowd->fds[i]) == 0);
    }
}

static void several_threads_meddle(void)
{
    struct footprint before = footprint_now();
    struct meddler meddlers[WORKERS];
    struct crowd crowd;
    qnet_hub *hub;
    int round, i;

    for (round = 0; round < rounds(60); round++) {
        CHECK_INT(qnet_hub_new(&hub), QNET_OK);
        crowd_open(&crowd, hub);
        for (i = 0; i < WORKERS; i++) {
            meddlers[i].hub = hub;
            meddlers[i].state = (unsigned)(round * WORKERS + i);
            memcpy(meddlers[i].conns, crowd.conns, sizeof crowd.conns);
            start_thread(&meddlers[i].thread, meddling, &meddlers[i]);
        }
        for (i = 0; i < WORKERS; i++)
            join_thread(meddlers[i].thread);
        check_among(qnet_hub_close(hub), FINE);
        crowd_close(&crowd);
    }
    footprint_again(before);
}

/* ---- Arguments ---- */

struct option_range {
    int option;
    int64_t normal, least, most;
};

static void options_have_ranges(void)
{
    static const struct option_range ranges[] = {
        { QNET_OPT_MAC_AGE_S, 300, 1, 2147483647 },
        { QNET_OPT_MAC_MAX, 8192, 1, 1048576 },
        { QNET_OPT_QUEUE_BYTES, 1048576, 0, 2147483647 },
    };
    int64_t value = -1;
    qnet_hub *hub;
    int i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    for (i = 0; i < 3; i++) {
        const struct option_range *range = &ranges[i];

        CHECK_INT(qnet_hub_get(hub, range->option, &value), QNET_OK);
        CHECK_INT(value, range->normal);
        CHECK_INT(qnet_hub_set(hub, range->option, range->least), QNET_OK);
        CHECK_INT(qnet_hub_set(hub, range->option, range->least - 1), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_get(hub, range->option, &value), QNET_OK);
        CHECK_INT(value, range->least);
        CHECK_INT(qnet_hub_set(hub, range->option, range->most), QNET_OK);
        CHECK_INT(qnet_hub_set(hub, range->option, range->most + 1), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_set(hub, range->option, INT64_MIN), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_get(hub, range->option, &value), QNET_OK);
        CHECK_INT(value, range->most);
        CHECK_INT(qnet_hub_get(hub, range->option, NULL), QNET_ERR_INVALID);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

static void options_belong_to_their_objects(void)
{
    static const int unknown[] = { -1, 0, 14, 19, 23, 1000 };
    struct service service;
    int64_t value = 7;
    int option, i;

    service_open(&service);
    for (option = QNET_OPT_SEND_TIMEOUT_MS; option <= QNET_OPT_UNIX_MODE; option++) {
        CHECK_INT(qnet_hub_set(service.hub, option, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_hub_get(service.hub, option, &value), QNET_ERR_UNSUPPORTED);
    }
    for (option = QNET_OPT_MAC_AGE_S; option <= QNET_OPT_QUEUE_BYTES; option++) {
        int64_t pair[2] = { 0, 1 };
        qnet_conn *dialled = service.own.conn;

        pair[0] = option;
        CHECK_INT(qnet_set(service.own.conn, option, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_get(service.own.conn, option, &value), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_listener_set(service.listener, option, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_listener_get(service.listener, option, &value), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_dial_with("unix", service.place, pair, 1, &dialled), QNET_ERR_UNSUPPORTED);
        CHECK(dialled == NULL);
    }
    for (i = 0; i < 6; i++) {
        CHECK_INT(qnet_hub_set(service.hub, unknown[i], 1), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_get(service.hub, unknown[i], &value), QNET_ERR_INVALID);
    }
    CHECK_INT(value, 7);
    service_close(&service);
}

/* A program's header may be older or newer than the library. */
static void stats_fill_what_fits(void)
{
    struct { qnet_hub_stats stats; uint64_t more[2]; } large;
    uint64_t small[3] = { 77, 77, 77 };
    unsigned char odd[12];
    struct room room;
    int known;

    room_open(&room, 2);
    memset(&large, 0xee, sizeof large);
    known = qnet_hub_get_stats(room.hub, &large.stats, sizeof large);
    CHECK_INT(known, sizeof(qnet_hub_stats));
    CHECK_INT(large.stats.ports, 2);
    CHECK_INT(large.stats.macs, 2);
    CHECK_INT(large.stats.flooded, 2);
    CHECK_INT(large.more[0], 0);
    CHECK_INT(large.more[1], 0);
    CHECK_INT(qnet_hub_get_stats(room.hub, (qnet_hub_stats *)small, 2 * sizeof *small), known);
    CHECK_INT(small[0], 2);
    CHECK_INT(small[1], 2);
    CHECK_INT(small[2], 77);
    memset(odd, 0xee, sizeof odd);
    CHECK_INT(qnet_hub_get_stats(room.hub, (qnet_hub_stats *)(void *)small, 0), known);
    CHECK_INT(small[0], 2);
    CHECK_INT(qnet_hub_get_stats(room.hub, (qnet_hub_stats *)(void *)odd, 9), known);
    CHECK(memcmp(odd, small, 9) == 0);
    CHECK_INT(odd[9], 0xee);
    CHECK_INT(qnet_hub_get_stats(room.hub, NULL, sizeof large), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_get_stats(room.hub, NULL, 0), QNET_ERR_INVALID);
    room_close(&room);
}

static void ports_fill_what_fits(void)
{
    struct room room;
    qnet_conn *conns[6];
    int i, j, found = 0;

    room_open(&room, 4);
    memset(conns, 0, sizeof conns);
    CHECK_INT(qnet_hub_ports(room.hub, NULL, 0), 4);
    CHECK_INT(qnet_hub_ports(room.hub, NULL, 1), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_ports(room.hub, conns, 2), 4);
    CHECK(conns[1] != NULL && conns[2] == NULL);
    CHECK_INT(qnet_hub_ports(room.hub, conns, 6), 4);
    CHECK(conns[4] == NULL);
    for (i = 0; i < 4; i++)
        for (j = 0; j < 4; j++)
            found += conns[i] == room.devices[j].conn;
    CHECK_INT(found, 4);
    room_close(&room);
}

/* Every function of hubs, with something that is no hub; the rest would not be right either. */
static void all_give_handle(qnet_hub *wrong, qnet_conn *conn, qnet_listener *listener)
{
    qnet_conn *port = conn, *conns[2];
    qnet_hub_stats stats;
    int64_t value;

    CHECK_INT(qnet_hub_attach(wrong, conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_attach(wrong, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_detach(wrong, conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_port(wrong, &port), QNET_ERR_HANDLE);
    CHECK(port == NULL);
    CHECK_INT(qnet_hub_port(wrong, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_serve(wrong, listener), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_ports(wrong, conns, 2), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_ports(wrong, NULL, 2), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_set(wrong, QNET_OPT_MAC_MAX, 10), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_set(wrong, 1000, -1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_get(wrong, QNET_OPT_MAC_MAX, &value), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_get(wrong, 1000, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_get_stats(wrong, &stats, sizeof stats), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_get_stats(wrong, NULL, 0), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_close(wrong), QNET_ERR_HANDLE);
}

static void handles_are_judged_first(void)
{
    struct device device;
    qnet_listener *listener;
    qnet_hub *hub, *stale;

    device_open(&device, 1);
    CHECK_INT(qnet_listen("tcp4", "127.0.0.1:0", &listener), QNET_OK);
    CHECK_INT(qnet_hub_new(&stale), QNET_OK);
    CHECK_INT(qnet_hub_close(stale), QNET_OK);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK(hub != stale);
    all_give_handle(NULL, device.conn, listener);
    all_give_handle(stale, device.conn, listener);
    all_give_handle((qnet_hub *)device.conn, device.conn, listener);
    all_give_handle((qnet_hub *)listener, device.conn, listener);
    all_give_handle((qnet_hub *)(uintptr_t)4099, device.conn, listener);
    CHECK_INT(qnet_hub_attach(hub, (qnet_conn *)hub), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_attach(hub, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_detach(hub, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_serve(hub, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_serve(hub, (qnet_listener *)device.conn), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close((qnet_conn *)hub), QNET_ERR_HANDLE);
    CHECK_INT(qnet_listener_close((qnet_listener *)hub), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_new(NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_port(hub, NULL), QNET_ERR_INVALID);
    CHECK_INT(ports_of(hub), 0);
    CHECK_INT(recv_now(device.conn), QNET_ERR_AGAIN);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    device_close(&device);
}

/* Closes a hub, if nobody else does. */
struct closer {
    qnet_hub *hub;
    int closed;
};

static void *closing_if_open(void *argument)
{
    struct closer *closer = argument;
    int result = qnet_hub_close(closer->hub);

    CHECK(result == QNET_OK || result == QNET_ERR_HANDLE);
    if (result == QNET_OK)
        count_up(&closer->closed);
    return NULL;
}

static void of_two_closes_one_closes(void)
{
    int round;

    for (round = 0; round < rounds(100); round++) {
        struct closer shared = { NULL, 0 };
        pthread_t one, other;

        CHECK_INT(qnet_hub_new(&shared.hub), QNET_OK);
        start_thread(&one, closing_if_open, &shared);
        start_thread(&other, closing_if_open, &shared);
        join_thread(one);
        join_thread(other);
        CHECK_INT(shared.closed, 1);
    }
}

/* ---- A forked child ---- */

static void child_has_its_own(struct room *parents)
{
    struct room room;

    all_give_handle(parents->hub, parents->devices[0].conn, NULL);
    CHECK_INT(qnet_close(parents->devices[0].conn), QNET_ERR_HANDLE);
    room_open(&room, 3);
    CHECK_INT(qnet_hub_close(parents->hub), QNET_ERR_HANDLE);
    room_is_quiet(&room);
    room_close(&room);
}

static void a_forked_child_starts_afresh(void)
{
    struct room room;
    int status;
    pid_t child;

    room_open(&room, 3);
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm((unsigned)(CHECK_SECONDS * check_slow()));
        child_has_its_own(&room);
        if (is_under_valgrind())
            kill(getpid(), SIGKILL); /* the stacks of the parent's threads are lost here */
        _exit(0);
    }
    room_is_quiet(&room);
    CHECK(waitpid(child, &status, 0) == child);
    if (!is_under_valgrind() || status != SIGKILL)
        CHECK_INT(status, 0);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).ports, 3);
    room_close(&room);
}

int main(void)
{
    RUN(unicast_goes_to_its_port_alone);
    RUN(groups_and_unknown_are_flooded);
    RUN(nothing_goes_back);
    RUN(many_devices_behind_a_port);
    RUN(addresses_age);
    RUN(a_device_moves);
    RUN(the_table_is_bounded);
    RUN(a_group_is_not_learned);
    RUN(early_frames_are_forwarded);
    RUN(detached_is_forgotten);
    RUN(detached_in_the_middle_of_traffic);
    RUN(what_waits_for_a_port_is_written_after_it);
    RUN(attached_to_another_hub);
    RUN(no_other_way_to_receive);
    RUN(handled_and_ended_are_not_attached);
    RUN(sends_go_past_the_hub);
    RUN(an_ended_connection_is_detached);
    RUN(a_broken_length_ends_its_port_alone);
    RUN(a_broken_length_from_before);
    RUN(much_behind_a_broken_length);
    RUN(runts_are_skipped);
    RUN(a_slow_port_harms_nobody_else);
    RUN(a_slow_port_with_a_short_queue);
    RUN(a_slow_port_without_a_queue);
    RUN(a_queue_is_bounded);
    RUN(unicast_to_a_slow_port_adds_up);
    RUN(a_slow_port_that_ends_adds_up);
    RUN(long_frames_are_dropped_at_their_port);
    RUN(a_port_pads);
    RUN(everybody_to_everybody);
    RUN(two_hubs_joined);
    RUN(a_port_is_received_from_by_every_way);
    RUN(a_port_answers);
    RUN(a_port_is_linked);
    RUN(hub_close_detaches);
    RUN(no_thread_without_ports);
    RUN(many_hubs_need_few_threads);
    RUN(peers_join_and_leave);
    RUN(a_peer_speaks_and_leaves_at_once);
    RUN(hub_close_ends_what_it_served);
    RUN(hub_close_waits_for_close_handlers);
    RUN(hub_close_waits_for_who_left_before);
    RUN(a_close_handler_waits_for_a_thread);
    RUN(a_close_handler_ends_its_thread);
    RUN(a_detached_peer_is_the_callers);
    RUN(the_caller_ends_served_connections);
    RUN(a_listener_closed_before_its_hub);
    RUN(peers_have_their_listeners_options);
    RUN(no_more_peers_than_max_conns);
    RUN(without_descriptors_serving_waits);
    RUN(a_thousand_peers);
    RUN(a_storm_of_peers);
    RUN(a_hub_closes_in_a_storm);
    RUN(hubs_change_inside_handlers);
    RUN(a_served_hub_closes_inside_a_handler);
    RUN(a_close_handler_closes_the_hub);
    RUN(a_handler_gives_way_to_a_hub);
    RUN(several_threads_meddle);
    RUN(options_have_ranges);
    RUN(options_belong_to_their_objects);
    RUN(stats_fill_what_fits);
    RUN(ports_fill_what_fits);
    RUN(handles_are_judged_first);
    RUN(of_two_closes_one_closes);
    RUN(a_forked_child_starts_afresh);
    return check_done();
}
