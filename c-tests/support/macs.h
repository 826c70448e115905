/*
 * macs.h - devices on a hub, each with a hardware address and a plain socket, and frames
 * that carry their source, destination and number.
 */
#ifndef MACS_H
#define MACS_H

#include "forwarding.h"

enum { MAC_LEN = 6, MAC_FRAME = 60, MAC_FRAME_LEAST = 16, EVERYBODY = -1, NOBODY_KNOWN = 9999 };

/* The hardware address of device `n`, or the broadcast address for EVERYBODY. */
static inline void mac_make(uint8_t mac[MAC_LEN], int n)
{
    memset(mac, 0xff, MAC_LEN);
    if (n == EVERYBODY)
        return;
    mac[0] = 2;
    mac[1] = 0;
    raw_put_length(mac + 2, (size_t)n);
}

/*
 * What a frame says: its destination, its source and the source's count of frames; and
 * its length.
 */
struct word {
    int to, from;
    unsigned number;
    size_t len;
};

static inline void word_make(uint8_t *frame, struct word word)
{
    CHECK(word.len >= MAC_FRAME_LEAST);
    mac_make(frame, word.to);
    mac_make(frame + MAC_LEN, word.from);
    raw_put_length(frame + 2 * MAC_LEN, word.number);
    raw_fill(frame + MAC_FRAME_LEAST, word.len - MAC_FRAME_LEAST, word.number);
}

static inline unsigned get_number(const uint8_t *at)
{
    return (unsigned)at[0] << 24 | (unsigned)at[1] << 16 | (unsigned)at[2] << 8 | at[3];
}

/* Returns what a frame says, and checks that every byte is as word_make() left it. */
static inline struct word word_of(const uint8_t *frame, size_t len)
{
    static const uint8_t everybody[MAC_LEN] = { 255, 255, 255, 255, 255, 255 };
    struct word word;
    uint8_t *same;

    CHECK(len >= MAC_FRAME_LEAST);
    word.to = memcmp(frame, everybody, MAC_LEN) == 0 ? EVERYBODY : (int)get_number(frame + 2);
    word.from = (int)get_number(frame + MAC_LEN + 2);
    word.number = get_number(frame + 2 * MAC_LEN);
    word.len = len;
    same = allocate(len);
    word_make(same, word);
    CHECK(memcmp(frame, same, len) == 0);
    free(same);
    return word;
}

/* ---- Devices ---- */

/* A port of a hub, and the plain socket of the device behind it. */
struct device {
    qnet_conn *conn;
    int fd;
    int n;            /* the device's number, which is in its address */
    unsigned said;    /* how many frames it has sent */
    int is_away;      /* nothing is forwarded from or to it now */
};

static inline void device_open(struct device *device, int n)
{
    device->conn = raw_pair(&device->fd);
    device->n = n;
    device->said = 0;
    device->is_away = 0;
}

static inline void device_close(const struct device *device)
{
    CHECK_INT(qnet_close(device->conn), QNET_OK);
    CHECK(close(device->fd) == 0);
}

static inline void raw_say(int fd, struct word word)
{
    uint8_t *frame = allocate(word.len);

    word_make(frame, word);
    raw_send(fd, frame, word.len);
    free(frame);
}

static inline void device_says(struct device *device, int to, size_t len)
{
    struct word word;

    word.to = to;
    word.from = device->n;
    word.number = device->said++;
    word.len = len;
    raw_say(device->fd, word);
}

/* Receives the next frame on a plain socket. */
static inline struct word raw_hear(int fd)
{
    static __thread uint8_t frame[QNET_FRAME_MAX];
    long len = raw_recv(fd, frame, sizeof frame);

    CHECK(len >= 0);
    return word_of(frame, (size_t)len);
}

/*
 * Receives a device's next frame, which must be the last one that `from` sent, and be for
 * `to`.
 */
static inline void device_hears(const struct device *device, const struct device *from, int to)
{
    struct word word = raw_hear(device->fd);

    CHECK_INT(word.from, from->n);
    CHECK_INT(word.number, from->said - 1);
    CHECK_INT(word.to, to);
}

/* ---- Some devices on one hub ---- */

enum { ROOM_MOST = 16 };

struct room {
    qnet_hub *hub;
    struct device devices[ROOM_MOST];
    int count;
};

/*
 * Sends a broadcast from one device, and checks that it is the next frame that each other
 * gets.
 */
static inline void room_hears(struct room *room, int speaker)
{
    int i;

    device_says(&room->devices[speaker], EVERYBODY, MAC_FRAME);
    for (i = 0; i < room->count; i++)
        if (i != speaker && !room->devices[i].is_away)
            device_hears(&room->devices[i], &room->devices[speaker], EVERYBODY);
}

/* Checks that no frame is still on its way. Afterwards the hub has learned every address. */
static inline void room_is_quiet(struct room *room)
{
    int i;

    for (i = 0; i < room->count; i++)
        if (!room->devices[i].is_away)
            room_hears(room, i);
}

/* Makes a hub with `count` devices, whose addresses it has learned. */
static inline void room_open(struct room *room, int count)
{
    int i;

    CHECK_INT(qnet_hub_new(&room->hub), QNET_OK);
    room->count = count;
    for (i = 0; i < count; i++) {
        device_open(&room->devices[i], i + 1);
        CHECK_INT(qnet_hub_attach(room->hub, room->devices[i].conn), QNET_OK);
    }
    room_is_quiet(room);
}

static inline void room_close(const struct room *room)
{
    int i;

    CHECK_INT(qnet_hub_close(room->hub), QNET_OK);
    for (i = 0; i < room->count; i++)
        device_close(&room->devices[i]);
}

static inline qnet_hub_stats hub_stats_of(qnet_hub *hub)
{
    qnet_hub_stats stats;

    CHECK(qnet_hub_get_stats(hub, &stats, sizeof stats) >= (int)sizeof stats);
    return stats;
}

static inline int ports_of(qnet_hub *hub)
{
    return qnet_hub_ports(hub, NULL, 0);
}

#endif
