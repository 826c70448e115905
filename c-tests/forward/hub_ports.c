/*
 * hub_ports.c - ports that come, go, end or are made by the hub, and what
 * becomes of all of them when the hub is closed.
 */
#include "macs.h"

static const size_t middle_frame = 1514;

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

/* When detaching has returned, in the middle of traffic, not one more frame is forwarded. */
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

/*
 * A port that ends is detached, and its close handler runs once, on a library thread; the
 * others go on.
 */
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

/* A port that breaks the framing ends, and no other does; what came before is forwarded. */
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

/* A connection with a broken length in front of it ends when it is attached. */
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

/* The broken length was read with the frame before it, which was pulled. */
static void a_broken_length_from_before(void)
{
    int fd;
    qnet_conn *liar = raw_pair(&fd);

    send_one_and_break(fd);
    CHECK_INT(make_recv(liar), 60);
    attached_it_ends(liar, fd);
}

/* More bytes follow the broken length than the longest frame has. */
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

/* ---- The program's own devices ---- */

/* The frames received must be those that device 1 sends to everybody, in order. */
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

/* A port that sends each frame back to its sender, as device `n`. */
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

/* A port that the hub made can be linked, and ends with the hub. */
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

/* What the caller attached stays usable when the hub is closed; what the hub made ends. */
/* ---- A port's inner end ---- */

/* Handles are numbers: in the same slot the next is this much more. */
static const uintptr_t next_handle = (uintptr_t)1 << 21;

struct guesser {
    uintptr_t guess;
    int over;
};

static void not_to_be_called(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
    CHECK(0);
}

/* Receives from what nobody has given it, if it can. (It may be the outer end, in the inner one's slot.) */
static void *guessing(void *argument)
{
    struct guesser *guesser = argument;

    while (!get(&guesser->over)) {
        uintptr_t guess = __atomic_load_n(&guesser->guess, __ATOMIC_SEQ_CST);

        (void)qnet_set_handler((qnet_conn *)guess, not_to_be_called, NULL);
    }
    return NULL;
}

/* It is plugged in before anybody who guesses its handle can do something else with it. */
static void an_inner_end_is_attached_from_its_beginning(void)
{
    struct guesser guesser = { 1, 0 };
    pthread_t thread;
    qnet_hub *hub;
    qnet_conn *inner, *outer;
    int i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    start_thread(&thread, guessing, &guesser);
    for (i = 0; i < rounds(1000); i++) {
        CHECK_INT(qnet_hub_port(hub, &outer), QNET_OK);
        CHECK_INT(qnet_hub_ports(hub, &inner, 1), 1);
        __atomic_store_n(&guesser.guess, (uintptr_t)inner + next_handle, __ATOMIC_SEQ_CST);
        CHECK_INT(qnet_close(outer), QNET_OK);
        EVENTUALLY(qnet_close_reason(inner) == QNET_ERR_HANDLE);
    }
    put(&guesser.over, 1);
    join_thread(thread);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

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

/* A few threads serve many hubs and ports. */
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

int main(void)
{
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
    RUN(a_port_is_received_from_by_every_way);
    RUN(a_port_answers);
    RUN(a_port_is_linked);
    RUN(an_inner_end_is_attached_from_its_beginning);
    RUN(hub_close_detaches);
    RUN(no_thread_without_ports);
    RUN(many_hubs_need_few_threads);
    return check_done();
}
