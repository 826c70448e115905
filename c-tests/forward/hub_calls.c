/*
 * hub_calls.c - the functions of hubs where they are called inside handlers, by
 * several threads at once, with wrong arguments or in a forked child.
 */
#include "forked.h"
#include "service.h"

static const size_t middle_frame = 1514;

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

/* What a close handler of a port needs to close the hub and its own connection. */
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

/* A handler that gives its connection to a hub after some frames. */
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

/* The frames that the handler did not take are forwarded, in order. */
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

/* Makes one call that changes the hub or what is attached to it; few of them end something. */
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

/* Connections whose plain sockets write and read until their ends. */
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
        { QNET_OPT_MAC_MAX, 8192, 0, 1048576 },
        { QNET_OPT_QUEUE_BYTES, 1048576, 0, 2147483647 },
        { QNET_OPT_GROUP_FWD_MASK, 65535, 0, 65535 },
        { QNET_OPT_MOVE_MS, 0, 0, 2147483647 },
    };
    int64_t value = -1;
    qnet_hub *hub;
    int i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    for (i = 0; i < 5; i++) {
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
    static const int unknown[] = { -1, 0, 18, 19, 25, 1000 };
    struct service service;
    int64_t value = 7;
    int option, i;

    service_open(&service);
    for (option = QNET_OPT_SEND_TIMEOUT_MS; option <= QNET_OPT_OUTLIVE; option++) {
        CHECK_INT(qnet_hub_set(service.hub, option, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_hub_get(service.hub, option, &value), QNET_ERR_UNSUPPORTED);
    }
    for (option = QNET_OPT_ISOLATED; option <= QNET_OPT_MIRRORED; option++) {
        CHECK_INT(qnet_hub_set(service.hub, option, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_hub_get(service.hub, option, &value), QNET_ERR_UNSUPPORTED);
    }
    for (option = QNET_OPT_MAC_AGE_S; option <= QNET_OPT_MOVE_MS; option++) {
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

/* Calls every function of hubs with something that is no hub; other arguments are wrong as well. */
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

/* A hub that two threads close, and how many of them did. */
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
    pid_t child;

    room_open(&room, 3);
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm((unsigned)(CHECK_SECONDS * check_slow()));
        child_has_its_own(&room);
        end_child();
    }
    room_is_quiet(&room);
    wait_for_child(child);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).ports, 3);
    room_close(&room);
}

int main(void)
{
    RUN(hubs_change_inside_handlers);
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
