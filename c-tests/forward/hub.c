/*
 * hub.c - a hub as a learning switch: who gets which frame, and what a slow
 * port loses and nobody else does.
 */
#include "macs.h"

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

/* A frame does not go back to the port that it came from, even if its destination is there. */
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

/* A device that has been silent for long enough is as unknown as at first. */
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

/* A device that speaks at another port is there from then on. */
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

/* However many sources there are, the table stays within its bound, and knows those who talk now. */
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

/* A frame may say that it comes from a group's address; no device has that, so it is not learned. */
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

/* ---- Slow ports ---- */

/* A room with a port whose device does not read. */
struct slow_room {
    struct room room;
    struct device *speaker, *reader, *slow;
    unsigned said;    /* how many frames the speaker had sent when the port became slow */
    uint64_t flooded; /* how many frames the hub had flooded by then */
};

/* Opens it: from here on one port does not read. A queue_bytes below 0 leaves the default. */
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

/* Sends frames to everybody; the reader hears each of them. */
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
    /* What one port has heard may still be on its way to another. */
    EVENTUALLY(hub_stats_of(slow->room.hub).flooded == slow->flooded + heard - slow->said);
}

/* Speaks until the slow port has lost some. */
static void slow_room_speaks_until_dropping(struct slow_room *slow)
{
    while (stats_of(slow->slow->conn).tx_dropped == 0)
        slow_room_speaks(slow, 512);
    slow_room_speaks(slow, 512);
}

/* Reads all that the port did not lose: whole frames, in order, none twice. */
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

/* The frames that a port got and those that it lost are all that there were. */
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
 * Nobody waits for a device that does not read: the others get everything, and its losses are
 * counted. When it reads again, it gets whole frames, and nothing more is lost.
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

/* Only the rest of a frame that the socket has taken a part of waits then. */
static void a_slow_port_without_a_queue(void)
{
    slow_port(0, 0);
    slow_port(0, 1);
}

/* A longer queue holds more, and none holds more than its length. */
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

/* Of frames to a slow port alone the hub forwards some and drops the others, and counts all. */
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

/* A frame that is longer than a port may send is dropped at that port alone. */
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

/* Reads the next frame, whoever it is from; the frames of each device come in order. */
static void talker_hears(struct talker *talker)
{
    struct word word = raw_hear(talker->device->fd);

    CHECK(word.from > 0 && word.from <= ROOM_MOST && word.from != talker->device->n);
    CHECK(word.to == talker->device->n || word.to == EVERYBODY);
    CHECK_INT(word.number, talker->heard[word.from]);
    CHECK_INT(word.to == EVERYBODY, word.number % 2);
    talker->heard[word.from]++;
}

/*
 * In each round it sends a frame to each device and one to all, then reads as many as the
 * others send.
 */
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

/* Since nobody is far ahead of the readers, no queue gets full, and not a frame is missing. */
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

/* Two hubs with a cable between them are like one hub. */
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
    return check_done();
}
