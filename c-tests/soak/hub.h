/*
 * hub.h - a hub that lives as long as the soak, and is captured: one of its devices sends to
 * another, a third floods it from ever new addresses and never reads, the program has a port
 * of its own, and visitors come and go, for each of which something else is set. All are in
 * one VLAN, without tags.
 */
#ifndef HUB_H
#define HUB_H

#include "recorded.h"

enum { SPEAKER = 1, HEARER, OWN, VISITORS = 10, FLOOD = 1 << 19, FLOODS = 1 << 12, MOST = 1 << 20,
       WINDOW = 32 };

static struct {
    qnet_hub *hub;
    qnet_conn *own;
    qnet_capture *capture;
    char path[120];
    int stop, visitors, own_said;
    int said, heard, came; /* frames of the speaker: sent, the last one heard, and received */
    struct device speaker, hearer, flooder;
    unsigned *own_heard;
    int joined, left;      /* visitors, as the port handler was told */
    pthread_t threads[3];
} town;

/*
 * Checks that a frame is whole, and comes in the order in which its device sent them.
 * Returns the device.
 */
static int hear_in_order(unsigned *heard, const uint8_t *frame, size_t len)
{
    struct word word = word_of(frame, len);

    CHECK(word.from > 0 && word.from < MOST);
    CHECK(word.number >= heard[word.from]);
    heard[word.from] = word.number + 1;
    return word.from;
}

static unsigned *heard_nothing(void)
{
    unsigned *heard = calloc(MOST, sizeof *heard);

    CHECK(heard != NULL);
    return heard;
}

/* Writes a frame to a plain socket. Returns whether all of it was taken. */
static int say(int fd, const int *stop, int from, int to, unsigned number)
{
    uint8_t bytes[RAW_PREFIX + 1514];
    struct word word = { to, from, number, 60 + pick(4) * 480 };

    raw_put_length(bytes, word.len);
    word_make(bytes + RAW_PREFIX, word);
    return plain_write(fd, stop, bytes, RAW_PREFIX + word.len) == RAW_PREFIX + word.len;
}

/* Looks at the table, or changes it and what is learned. */
static void look_and_change(void)
{
    qnet_fdb_entry entries[8];
    uint8_t mac[MAC_LEN];
    int count;

    mac_make(mac, FLOOD + (int)pick(FLOODS));
    switch (pick(400)) {
    case 0:
        CHECK_INT(qnet_hub_set(town.hub, QNET_OPT_QUEUE_BYTES, (1 + pick(16)) << 16), QNET_OK);
        break;
    case 1:
        CHECK_INT(qnet_hub_set(town.hub, QNET_OPT_MAC_MAX, 16 << pick(10)), QNET_OK);
        break;
    case 2:
        CHECK_INT(qnet_hub_set(town.hub, QNET_OPT_MOVE_MS, pick(2) * 200), QNET_OK);
        break;
    case 3:
        count = qnet_hub_fdb(town.hub, entries, sizeof *entries, 8);
        for (count = count < 8 ? count : 8; count > 0; count--)
            CHECK(entries[count - 1].conn != NULL && entries[count - 1].vlan == 1);
        break;
    case 4:
        check_among(qnet_hub_fdb_add(town.hub, mac, 1, town.flooder.conn), MAY(QNET_OK) | MAY(QNET_ERR_OS));
        break;
    case 5:
        CHECK(qnet_hub_fdb_remove(town.hub, pick(4) ? mac : NULL, pick(2) ? 1 : -1) >= 0);
        break;
    default:
        break;
    }
}

static void *speaking(void *unused)
{
    int patience;

    (void)unused;
    chance = 1;
    while (!get(&town.stop)) {
        CHECK(say(town.speaker.fd, &town.stop, SPEAKER, HEARER, (unsigned)town.said) ||
              get(&town.stop));
        count_up(&town.said);
        for (patience = 100; patience > 0 && town.said - get(&town.heard) > WINDOW; patience--)
            raw_sleep_ms(1);
        look_and_change();
    }
    return NULL;
}

static void *hearing(void *unused)
{
    unsigned *heard = heard_nothing();
    uint8_t *frame = allocate(QNET_FRAME_MAX);
    size_t len;

    (void)unused;
    say(town.hearer.fd, &town.stop, HEARER, SPEAKER, 0); /* so that the hub learns its address */
    while ((len = plain_frame(town.hearer.fd, &town.stop, frame)) > 0) {
        if (hear_in_order(heard, frame, len) != SPEAKER)
            continue;
        put(&town.heard, (int)heard[SPEAKER]);
        count_up(&town.came);
    }
    free(frame);
    free(heard);
    return NULL;
}

static void *flooding(void *unused)
{
    unsigned number = 0;

    (void)unused;
    chance = 2;
    while (!get(&town.stop)) {
        say(town.flooder.fd, &town.stop, FLOOD + (int)pick(FLOODS),
            pick(4) ? EVERYBODY : NOBODY_KNOWN, number++);
        if (number % 40 == 0)
            raw_sleep_ms(1);
    }
    return NULL;
}

/* The handler of the program's own port: checks every frame, and answers some. */
static void hear_and_answer(void *unused, const uint8_t *frame, size_t len)
{
    int from = hear_in_order(town.own_heard, frame, len);
    uint8_t answer[60];
    struct word word = { from, OWN, (unsigned)town.own_said, sizeof answer };

    (void)unused;
    if (from >= FLOOD || from % 2)
        return;
    word_make(answer, word);
    if (qnet_send(town.own, answer, sizeof answer) == QNET_OK)
        count_up(&town.own_said);
}

/* A visitor comes, for which something is set, or has left. */
static void meet(void *user, qnet_conn *conn, int attached)
{
    static const int64_t rules[][2] = {
        { QNET_OPT_ISOLATED, 1 }, { QNET_OPT_SECURE, 1 }, { QNET_OPT_STORM_FPS, 100 }, { QNET_OPT_MIRROR, 1 },
        { QNET_OPT_FLOOD, 0 }, { QNET_OPT_MIRRORED, 0 }, { QNET_OPT_MAC_LIMIT, 1 },
    };
    const int64_t *rule = rules[town.joined % (int)(sizeof rules / sizeof *rules)];
    qnet_cred cred;

    (void)user;
    if (!attached) {
        count_up(&town.left);
        return;
    }
    count_up(&town.joined);
    CHECK_INT(qnet_peer_cred(conn, &cred, sizeof cred), sizeof cred);
    CHECK_INT(cred.pid, getpid());
    CHECK_INT(qnet_set(conn, (int)rule[0], rule[1]), QNET_OK);
    if (town.joined % 3 == 0)
        CHECK_INT(qnet_set_vlan(conn, "tunnel 1"), QNET_OK);
}

static void town_open(void)
{
    void *(*const lives[])(void *) = { speaking, hearing, flooding };
    struct device *const devices[] = { &town.speaker, &town.hearer, &town.flooder };
    const int64_t options[] = { QNET_OPT_FILE_BYTES, 1 << 20, QNET_OPT_FILES, 2 };
    qnet_listener *listener;
    int i;

    memset(&town, 0, sizeof town);
    town.visitors = VISITORS;
    town.own_heard = heard_nothing();
    snprintf(town.path, sizeof town.path, "%s", scratch_path("hub"));
    CHECK_INT(qnet_hub_new(&town.hub), QNET_OK);
    town.capture = capture_with(scratch_path("town"), options, 2);
    CHECK_INT(qnet_capture_add_hub(town.capture, town.hub, "town"), QNET_OK);
    CHECK_INT(qnet_listen("unix", town.path, &listener), QNET_OK);
    CHECK_INT(qnet_listener_set_vlan(listener, "access 1"), QNET_OK);
    CHECK_INT(qnet_hub_serve(town.hub, listener), QNET_OK);
    CHECK_INT(qnet_hub_set_port_handler(town.hub, meet, NULL), QNET_OK);
    CHECK_INT(qnet_hub_port(town.hub, &town.own), QNET_OK);
    CHECK_INT(qnet_set_vlan(town.own, "access 1"), QNET_OK);
    CHECK_INT(qnet_set(town.own, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_set_handler(town.own, hear_and_answer, NULL), QNET_OK);
    for (i = 0; i < 3; i++) {
        device_open(devices[i], 1 + i);
        set_plain_patience(devices[i]->fd);
        CHECK_INT(qnet_set_vlan(devices[i]->conn, "trunk 1 native 1"), QNET_OK);
        CHECK_INT(qnet_hub_attach(town.hub, devices[i]->conn), QNET_OK);
    }
    for (i = 0; i < 3; i++)
        start_thread(&town.threads[i], lives[i], NULL);
}

/* Ends the hub. What the hearer has missed must be counted as dropped. */
static void town_close(struct sort *sort)
{
    qnet_hub_stats stats = hub_stats_of(town.hub);
    qnet_stats hearers;
    int i;

    put(&town.stop, 1);
    for (i = 0; i < 3; i++)
        join_thread(town.threads[i]);
    CHECK_INT(qnet_hub_detach(town.hub, town.hearer.conn), QNET_OK);
    hearers = stats_of(town.hearer.conn);
    CHECK(town.came > 0 && stats.forwarded > 0 && stats.flooded > 0);
    CHECK(town.heard - town.came <= (int)hearers.tx_dropped);
    CHECK_INT(qnet_hub_detach(town.hub, town.speaker.conn), QNET_OK);
    CHECK_INT(qnet_hub_detach(town.hub, town.flooder.conn), QNET_OK);
    EVENTUALLY(has_had(town.capture, hub_stats_of(town.hub).received));
    CHECK_INT(capture_stats_of(town.capture).error, 0);
    capture_close(town.capture);
    CHECK_INT(qnet_hub_close(town.hub), QNET_OK);
    CHECK_INT(town.joined, town.left);
    CHECK_INT(qnet_close(town.own), QNET_OK);
    device_close(&town.speaker);
    device_close(&town.hearer);
    device_close(&town.flooder);
    free(town.own_heard);
    add_up(sort, town.said, town.came, town.heard - town.came);
    sort->lives++;
}

/* A visitor connects, sends and receives some frames, and leaves. */
static void visitor_lives(struct sort *sort)
{
    static const int never;
    unsigned *heard = heard_nothing();
    uint8_t *frame = allocate(QNET_FRAME_MAX);
    int name = count_up(&town.visitors), fd = raw_unix_connect(town.path), words = 0, came = 0;
    int rounds = (int)pick(100);

    CHECK(fd >= 0 && name < FLOOD);
    set_plain_patience(fd);
    while (rounds-- > 0) {
        int to = pick(3) ? (int)pick((unsigned)name) + 1 : EVERYBODY;
        size_t len = 1;

        CHECK(say(fd, &never, name, to, (unsigned)words));
        words++;
        while (len > 0 && raw_readable(fd, (int)pick(2))) {
            len = plain_frame(fd, &never, frame);
            CHECK(len > 0);
            hear_in_order(heard, frame, len);
            came++;
        }
    }
    if (pick(3) == 0)
        CHECK(plain_write(fd, &never, (const uint8_t *)"\0\0\0\74half", 8) == 8);
    CHECK(close(fd) == 0);
    free(frame);
    free(heard);
    __atomic_add_fetch(&sort->sent, words, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&sort->received, came, __ATOMIC_SEQ_CST);
}

#endif
