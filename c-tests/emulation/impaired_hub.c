/*
 * impaired_hub.c - impaired ports of a hub: each has its own, both ways; what a hub learns and
 * counts; and a port that holds as much as it may, which loses frames and nobody else does.
 */
#include "impairing.h"
#include "macs.h"

/* Broadcasts from one device are heard by the others, but for those that a port loses. */
static void each_port_loses_its_own(void)
{
    struct room room;
    qnet_impair_stats stats;
    int i;

    room_open(&room, 3);
    impair(room.devices[0].conn, QNET_IN, "loss every 2");
    impair(room.devices[1].conn, QNET_OUT, "loss every 3");
    for (i = 1; i <= 60; i++) {
        device_says(&room.devices[0], EVERYBODY, MAC_FRAME);
        if (i % 2 == 0)
            continue;
        device_hears(&room.devices[2], &room.devices[0], EVERYBODY);
        if ((i + 1) / 2 % 3 != 0)
            device_hears(&room.devices[1], &room.devices[0], EVERYBODY);
    }
    check_silent(room.devices[1].fd);
    check_silent(room.devices[2].fd);
    stats = check_counts(room.devices[0].conn, QNET_IN);
    CHECK(stats.frames == 60 && stats.lost == 30);
    stats = check_counts(room.devices[1].conn, QNET_OUT);
    CHECK(stats.frames == 30 && stats.lost == 10);
    CHECK_INT(check_counts(room.devices[2].conn, QNET_OUT).frames, 0);
    /* The hub's counts are of what came out of IN. */
    CHECK_INT(hub_stats_of(room.hub).flooded, 3 + 30);
    CHECK_INT(hub_stats_of(room.hub).dropped, 0);
    room_close(&room);
}

/* Everybody is delayed both ways, and everybody hears everything, in order and unharmed. */
static void all_are_delayed(void)
{
    static const char *const texts[] = {
        "delay 3ms", "delay 1ms 1ms", "rate 50mbit limit 100000", "delay 1ms corrupt 0%",
    };
    struct room room;
    int i, j, n;

    room_open(&room, 4);
    for (i = 0; i < 4; i++)
        impair(room.devices[i].conn, QNET_BOTH, texts[i]);
    for (n = 0; n < 20; n++)
        for (i = 0; i < 4; i++)
            for (j = 0; j < 4; j++)
                if (i != j) {
                    device_says(&room.devices[i], room.devices[j].n, 60 + (size_t)(n * 50));
                    device_hears(&room.devices[j], &room.devices[i], room.devices[j].n);
                }
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).forwarded, 20 * 12);
    for (i = 0; i < 4; i++) {
        CHECK_INT(check_counts(room.devices[i].conn, QNET_IN).passed, 61);
        CHECK_INT(check_counts(room.devices[i].conn, QNET_OUT).passed, 63);
    }
    room_close(&room);
}

/* A hub learns an address when its frame comes out of IN, and never a corrupted one. */
static void addresses_are_learned_behind_it(void)
{
    struct room room;
    struct word word = { EVERYBODY, 500, 0, MAC_FRAME };
    uint8_t frame[MAC_FRAME];
    int i;

    room_open(&room, 2);
    impair(room.devices[0].conn, QNET_IN, "delay 1000s");
    raw_say(room.devices[0].fd, word);
    EVENTUALLY(in_flight(room.devices[0].conn, QNET_IN) == 1);
    CHECK_INT(hub_stats_of(room.hub).macs, 2);
    CHECK_INT(qnet_hub_detach(room.hub, room.devices[0].conn), QNET_OK);
    CHECK_INT(check_counts(room.devices[0].conn, QNET_IN).discarded, 1);
    impair(room.devices[0].conn, QNET_IN, "corrupt 100%");
    CHECK_INT(qnet_hub_attach(room.hub, room.devices[0].conn), QNET_OK);
    for (i = 0; i < 50; i++) {
        raw_say(room.devices[0].fd, word);
        CHECK_INT(raw_recv(room.devices[1].fd, frame, sizeof frame), MAC_FRAME);
    }
    CHECK_INT(hub_stats_of(room.hub).macs, 2);
    room_close(&room);
}

/* OUT, what finds no room is dropped there, and nobody else notices. */
static void a_full_port_drops(void)
{
    enum { SENT = 500, LEN = 1000 };
    struct room room;
    qnet_impair_stats stats;
    int i;

    room_open(&room, 3);
    CHECK_INT(qnet_set(room.devices[1].conn, QNET_OPT_FLIGHT_BYTES, 131072), QNET_OK);
    impair(room.devices[1].conn, QNET_OUT, "delay 1000s");
    for (i = 0; i < SENT; i++) {
        device_says(&room.devices[0], EVERYBODY, LEN);
        device_hears(&room.devices[2], &room.devices[0], EVERYBODY);
    }
    stats = check_counts(room.devices[1].conn, QNET_OUT);
    CHECK_INT(stats.frames, SENT);
    CHECK_INT(stats.flying, 131072 / LEN);
    CHECK_INT(stats.dropped, SENT - 131072 / LEN);
    CHECK_INT(hub_stats_of(room.hub).dropped, 0);
    CHECK_INT(stats_of(room.devices[1].conn).tx_dropped, 0);
    /* Where all are treated alike they are taken in together, and cut off at the same place. */
    impair(room.devices[1].conn, QNET_OUT, "delay 1000s 1ns");
    device_says(&room.devices[0], EVERYBODY, LEN);
    EVENTUALLY(check_counts(room.devices[1].conn, QNET_OUT).dropped == stats.dropped + 1);
    room_close(&room);
}

/* IN, a port that holds as much as it may is not read, and the others are. */
static void a_full_port_is_not_read(void)
{
    static const size_t size = 9000;
    struct room room;
    struct raw_job writer;
    struct flow flow = flow_of_one_size(&size);
    qnet_impair_stats stats;

    room_open(&room, 3);
    CHECK_INT(qnet_set(room.devices[1].conn, QNET_OPT_FLIGHT_BYTES, 131072), QNET_OK);
    impair(room.devices[1].conn, QNET_IN, "delay 1000s");
    raw_start(&writer, writing_until_the_end, room.devices[1].fd, flow, 1000);
    EVENTUALLY(raw_is_held(room.devices[1].fd));
    stats = check_counts(room.devices[1].conn, QNET_IN);
    CHECK(stats.held_bytes >= 131072 && stats.held_bytes <= 3 * 131072);
    CHECK_INT(stats.dropped, 0);
    device_says(&room.devices[0], room.devices[2].n, MAC_FRAME);
    device_hears(&room.devices[2], &room.devices[0], room.devices[2].n);
    CHECK_INT(qnet_close(room.devices[1].conn), QNET_OK);
    join_thread(writer.thread);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    device_close(&room.devices[0]);
    device_close(&room.devices[2]);
    CHECK(close(room.devices[1].fd) == 0);
}

/* A port that does not read loses what its queue has no room for, behind OUT. */
static void a_queue_behind_it_overflows(void)
{
    enum { SENT = 1000, LEN = 9000 };
    struct room room;
    qnet_stats stats;
    int i;

    room_open(&room, 3);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_QUEUE_BYTES, 100000), QNET_OK);
    impair(room.devices[1].conn, QNET_OUT, "delay 1ms");
    for (i = 0; i < SENT; i++) {
        device_says(&room.devices[0], EVERYBODY, LEN);
        device_hears(&room.devices[2], &room.devices[0], EVERYBODY);
    }
    EVENTUALLY(check_counts(room.devices[1].conn, QNET_OUT).passed == SENT);
    stats = stats_of(room.devices[1].conn);
    CHECK(stats.tx_dropped > 0);
    CHECK_INT(hub_stats_of(room.hub).dropped, stats.tx_dropped);
    room_close(&room);
}

/* Fanned out by one piece or by many, frames that are impaired and frames that are not stay whole. */
static void many_ports_many_texts(void)
{
    static const char *const texts[] = {
        "", "delay 2ms", "loss 10%", "duplicate 20% delay 1ms", "rate 100mbit limit 100000",
        "delay 2ms 1ms reorder", "corrupt 0%", "delay 1ms loss every 7",
    };
    enum { PORTS = 8 };
    int count = 200 + rounds(5000), i, n;
    struct room room;

    room_open(&room, PORTS);
    for (i = 0; i < PORTS; i++)
        impair(room.devices[i].conn, QNET_BOTH, texts[i]);
    for (n = 0; n < count; n++) {
        struct device *from = &room.devices[n % PORTS];

        device_says(from, n % 5 ? room.devices[(n / 5) % PORTS].n : EVERYBODY, 60 + (size_t)n % 1400);
        for (i = 0; i < PORTS; i++)
            while (raw_readable(room.devices[i].fd, 0))
                raw_hear(room.devices[i].fd);
    }
    for (i = 0; i < PORTS; i++)
        EVENTUALLY(in_flight(room.devices[i].conn, QNET_IN) == 0);
    for (i = 0; i < PORTS; i++)
        EVENTUALLY(in_flight(room.devices[i].conn, QNET_OUT) == 0);
    for (i = 0; i < PORTS; i++)
        while (raw_readable(room.devices[i].fd, 20))
            raw_hear(room.devices[i].fd);
    for (i = 0; i < PORTS; i++) {
        qnet_impair_stats in = check_counts(room.devices[i].conn, QNET_IN);
        qnet_impair_stats out = check_counts(room.devices[i].conn, QNET_OUT);

        CHECK(in.discarded == 0 && out.discarded == 0 && in.dropped == 0 && out.dropped == 0);
        CHECK_INT(out.reordered > 0 && i != 5, 0);
    }
    room_close(&room);
}

int main(void)
{
    RUN(each_port_loses_its_own);
    RUN(all_are_delayed);
    RUN(addresses_are_learned_behind_it);
    RUN(a_full_port_drops);
    RUN(a_full_port_is_not_read);
    RUN(a_queue_behind_it_overflows);
    RUN(many_ports_many_texts);
    return check_done();
}
