/*
 * hubs.h - scenarios of a hub: plain, impaired, with a port handler, and with rules for its ports.
 */
#ifndef HUBS_H
#define HUBS_H

#include "macs.h"
#include "ends.h"

static void count_a_port(void *user, qnet_conn *conn, int attached)
{
    int *counts = user;

    (void)conn;
    count_up(&counts[attached]);
}

/* Puts a peer of this process into a VLAN, and refuses it where its process is not to be known. */
static void rule_a_port(void *user, qnet_conn *conn, int attached)
{
    qnet_cred cred;
    int result;

    if (attached) {
        TRY(result, qnet_peer_cred(conn, &cred, sizeof cred));
        if (!went(result, "tell who the peer")) {
            CHECK_INT(qnet_close(conn), QNET_OK);
            return;
        }
        CHECK_INT(cred.pid, getpid());
        CHECK_INT(qnet_set_vlan(conn, "tunnel 10"), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_MAC_LIMIT, 1), QNET_OK);
    }
    count_a_port(user, conn, attached);
}

/*
 * A hub with two ports of the program's own, and a peer that joins by a listener, all impaired; perhaps
 * with a handler, which is told of the peer.
 */
static void hub_with(const char *spec, const char *vlan, qnet_port_handler handler)
{
    static const struct link_kind kind = { .family = AF_UNIX };
    qnet_conn *ports[2] = { NULL, NULL };
    qnet_listener *listener = NULL;
    struct flow sent = flow_of_small_frames();
    struct end outside = end_of(NULL, -1);
    qnet_hub *hub = NULL;
    struct place place;
    int i, result, is_up = 1, told[2] = { 0, 0 };

    place_make(&place, &kind);
    shim_pause(1);
    CHECK_INT(qnet_listen("unix", place.text, &listener), QNET_OK);
    shim_pause(0);
    CHECK_INT(qnet_listener_impair(listener, QNET_BOTH, spec), QNET_OK);
    TRY(result, qnet_hub_new(&hub));
    CHECK_INT(result, QNET_OK);
    for (i = 0; i < 2 && is_up; i++) {
        TRY(result, qnet_hub_port(hub, &ports[i]));
        is_up = made(result, ports[i], "make a port");
        if (is_up) {
            CHECK_INT(qnet_set_vlan(ports[i], vlan), QNET_OK);
            TRY(result, qnet_impair(ports[i], QNET_BOTH, spec));
            is_up = went(result, "impair");
        }
    }
    CHECK_INT(qnet_hub_set_port_handler(hub, handler, told), QNET_OK);
    TRY(result, qnet_hub_serve(hub, listener));
    is_up = went(result, "serve") && is_up;
    if (is_up) {
        outside.fd = place_connect(&place);
        EVENTUALLY(qnet_hub_ports(hub, NULL, 0) == 3 || may_fail());
        is_up = !may_fail();
    }
    if (is_up) {
        struct end end = end_of(ports[1], -1);
        struct taker taker;
        int failures = 0;

        while (sent.next != FEW && failures < 2) {
            TRY(result, flow_send(&sent, ports[0], 0, FEW - sent.next));
            failures += !went(result, "send");
        }
        if (failures == 0)
            plain_takes(&outside, FEW, 1);
        taker_start(&taker, ports[1], BY_RECV, flow_each, &end.received);
        while (failures == 0 && end.received.next != FEW) {
            result = pull(&taker, 1);
            failures += result == QNET_ERR_TIMEOUT && may_fail() ? 1 : !went(result, "receive");
        }
        CHECK_INT(qnet_set_close_handler(ports[1], NULL, NULL), QNET_OK);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(told[0], told[1]);
    CHECK(told[1] == (handler != NULL) || may_fail());
    if (qnet_listener_close(listener) != QNET_OK)
        CHECK(is_up || may_fail());
    for (i = 0; i < 2; i++)
        if (ports[i])
            CHECK_INT(qnet_close(ports[i]), QNET_OK);
    if (outside.fd >= 0)
        CHECK(close(outside.fd) == 0);
    place_leave(&place);
}

static void hub(void)
{
    hub_with("", NULL, NULL);
}

static void impaired_hub(void)
{
    hub_with("delay 1ms 1us duplicate 0%", NULL, NULL);
}

static void hub_that_tells(void)
{
    hub_with("", NULL, count_a_port);
}

static void hub_that_rules(void)
{
    hub_with("", "trunk native 10", rule_a_port);
}

/* Frames of one device, in one write, unless the library has hung up. */
static void talks(const struct end *end)
{
    uint8_t wire[FEW * (RAW_PREFIX + MAC_FRAME)], *at = wire;
    unsigned i;

    for (i = 0; i < FEW; i++, at += RAW_PREFIX + MAC_FRAME) {
        struct word word = { EVERYBODY, 1, i, MAC_FRAME };

        raw_put_length(at, word.len);
        word_make(at + RAW_PREFIX, word);
    }
    (void)!send(end->fd, wire, sizeof wire, MSG_NOSIGNAL);
}

/* Takes that device's frames, each of which has this tag, if any. After a fault some may be missing. */
static void hears_talk(const struct end *end, const uint8_t *tag, size_t tag_len)
{
    uint8_t frame[QNET_FRAME_MAX], *rest = frame + 2 * MAC_LEN;
    unsigned next = 0;
    struct word word;
    long len = 0;

    while (len >= 0 && next < FEW && comes(end, 1)) {
        len = raw_recv(end->fd, frame, sizeof frame);
        if (len < 0)
            break;
        CHECK_INT(len, MAC_FRAME + tag_len);
        CHECK(memcmp(rest, tag, tag_len) == 0);
        memmove(rest, rest + tag_len, MAC_FRAME - 2 * MAC_LEN);
        word = word_of(frame, MAC_FRAME);
        CHECK(word.number >= next);
        next = word.number + 1;
    }
    CHECK(next == FEW || may_fail());
}

/* What a hub has learned, and what it is told of its table. */
static void table_is_changed(qnet_hub *hub, qnet_conn *talker, qnet_conn *trunk)
{
    qnet_fdb_entry entry;
    uint8_t mac[MAC_LEN];
    int result;

    mac_make(mac, 1);
    memset(&entry, 0, sizeof entry);
    CHECK(qnet_hub_fdb(hub, &entry, sizeof entry, 1) == 1 || may_fail());
    CHECK((entry.conn == talker && entry.vlan == 10 && memcmp(entry.mac, mac, MAC_LEN) == 0) || may_fail());
    mac_make(mac, 2);
    TRY(result, qnet_hub_fdb_add(hub, mac, 10, trunk));
    went(result, "add an address");
    CHECK(qnet_hub_fdb_remove(hub, mac, -1) == 1 || may_fail());
    CHECK(qnet_hub_fdb_remove(hub, NULL, -1) == 1 || may_fail());
}

/* A hub whose ports each have rules: a frame goes to a trunk with a tag, and to a mirror as it came. */
static void ruled_hub(void)
{
    static const int64_t rules[][2] = {
        { QNET_OPT_SECURE, 1 }, { QNET_OPT_MAC_LIMIT, 2 }, { QNET_OPT_STORM_FPS, 100000 }, { QNET_OPT_ISOLATED, 1 },
    };
    static const uint8_t tag[] = { 0x81, 0, 0, 10 };
    static const char *const vlans[] = { "access 10", "trunk 10", NULL };
    struct end ends[] = { sound_end(), sound_end(), sound_end() };
    qnet_hub *hub = NULL;
    int i, result, is_up = 1;
    size_t j;

    TRY(result, qnet_hub_new(&hub));
    CHECK_INT(result, QNET_OK);
    CHECK_INT(qnet_hub_set(hub, QNET_OPT_MOVE_MS, 200), QNET_OK);
    for (j = 0; j < sizeof rules / sizeof *rules; j++)
        CHECK_INT(qnet_set(ends[0].conn, (int)rules[j][0], rules[j][1]), QNET_OK);
    for (i = 0; i < 3 && is_up; i++) {
        CHECK_INT(qnet_set(ends[i].conn, QNET_OPT_MIRROR, i == 2), QNET_OK);
        CHECK_INT(qnet_set_vlan(ends[i].conn, vlans[i]), QNET_OK);
        TRY(result, qnet_hub_attach(hub, ends[i].conn));
        is_up = went(result, "attach");
    }
    if (is_up) {
        talks(&ends[0]);
        hears_talk(&ends[1], tag, sizeof tag);
        hears_talk(&ends[2], tag, 0);
        table_is_changed(hub, ends[0].conn, ends[1].conn);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_close(ends[i].conn), QNET_OK);
        CHECK(close(ends[i].fd) == 0);
    }
}

#endif
