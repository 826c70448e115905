/*
 * vlans.c - VLANs of a hub's ports: which frames come in, where they go, and with which
 * tags; whose they are, and how they are set.
 */
#include "lab.h"
#include "scratch.h"

enum { MODES = 9, KINDS = 10, WORDS_MOST = 6 };

static const char *const modes[MODES] = {
    "access 10", "trunk", "trunk 10,20-29", "trunk 10 native 20", "trunk native 10", "tunnel 10",
    "", "access 10 tpid 88a8", "trunk 10 native 30 tpid 88a8",
};

/* The VLAN of what comes in at each without a tag, and the kind of its tags. */
static const uint16_t own_vlans[MODES] = { 10, 0, 0, 20, 10, 10, 0, 10, 30 };
static const uint16_t tpids[MODES] = { 0x8100, 0x8100, 0x8100, 0x8100, 0x8100, 0x8100, 0x8100,
                                       0x88a8, 0x88a8 };

/* The types and tags of frames from their addresses on, each behind how many they are. */
static const uint16_t kinds[KINDS][WORDS_MOST] = {
    { 1, 0x0800 },
    { 3, 0x8100, 0xa000, 0x0800 },
    { 3, 0x8100, 0x700a, 0x0800 },
    { 3, 0x8100, 20, 0x0800 },
    { 3, 0x8100, 4095, 0x0800 },
    { 3, 0x88a8, 10, 0x0800 },
    { 5, 0x8100, 10, 0x8100, 20, 0x0800 },
    { 5, 0x88a8, 10, 0x8100, 20, 0x0800 },
    { 5, 0x8100, 0, 0x8100, 20, 0x0800 },
    { 2, 0x8100, 10 },
};

/*
 * What becomes of each kind of frame that comes in at a port of a row's mode, and goes to one
 * of a column's: - nothing, = it goes as it is, + a tag is added, x taken off, ~ changed.
 */
static const char *const outcomes[MODES][MODES] = {
    { "=x---=-=--", "+~---+-+~-", "+~---+-+~-", "+~---+-+~-", "=x---=-=--", "=x---=-=x-",
      "+~---+-+~-", "=x------x-", "+~---+-+~-" },
    { "--x-------", "--==--=---", "--==--=---", "--=x--=---", "--x=------", "--x---x---",
      "--==--=---", "--x---x---", "--~---~---" },
    { "--x-------", "--==--=---", "--==--=---", "--=x--=---", "--x=------", "--x---x---",
      "--==--=---", "--x---x---", "--~---~---" },
    { "--x-------", "+~==-+=+~-", "+~==-+=+~-", "=x=x-===--", "+~x=-+-+~-", "--x---x---",
      "+~==-+=+~-", "--x---x---", "--~---~---" },
    { "=xx--=-=--", "+~==-+=+~-", "+~==-+=+~-", "+~=x-+=+~-", "=xx=-=-=--", "=xx--=x=x-",
      "+~==-+=+~-", "=xx---x-x-", "+~~--+~+~-" },
    { "=----=-=--", "++++++++++", "++++++++++", "++++++++++", "=----=-=--", "==========",
      "++++++++++", "=====-=-==", "++++++++++" },
    { "--x-------", "--==--=---", "--==--=---", "--=x--=---", "--x=------", "--x---x---",
      "====-====-", "--x---x---", "--~---~---" },
    { "=---------", "+++++-+-++", "+++++-+-++", "+++++-+-++", "=---------", "=====-=-==",
      "+++++-+-++", "=====-=-==", "+++++-+-++" },
    { "-----x----", "+++++~+~++", "-----~-~--", "-----~-~--", "+++++x+-++", "-----x-x--",
      "+++++~+~++", "-----x-x--", "==========" },
};

static size_t put_word(uint8_t *frame, size_t at, unsigned word)
{
    frame[at] = (uint8_t)(word >> 8);
    frame[at + 1] = (uint8_t)word;
    return at + 2;
}

/* A frame of a kind, to `to` from `from`. One whose tag is cut short ends with that. */
static size_t kind_make(uint8_t *frame, int kind, int to, int from)
{
    size_t at = TYPE_AT;
    int i;

    mac_make(frame, to);
    mac_make(frame + MAC_LEN, from);
    for (i = 1; i <= kinds[kind][0]; i++)
        at = put_word(frame, at, kinds[kind][i]);
    if (kinds[kind][0] == 2)
        return at;
    raw_fill(frame + at, LAB_FRAME - at, (unsigned)kind);
    return LAB_FRAME;
}

/* Changes a frame that came in at one mode's port as it leaves at another's. */
static size_t change_as(char outcome, int in, int out, uint8_t *frame, size_t len)
{
    uint8_t *tag = frame + TYPE_AT;
    unsigned named = (unsigned)(tag[2] << 8 | tag[3]);

    if (outcome == '+') {
        memmove(tag + 4, tag, len - TYPE_AT);
        put_word(tag, put_word(tag, 0, tpids[out]), own_vlans[in]);
        return len + 4;
    }
    if (outcome == 'x') {
        memmove(tag, tag + 4, len - TYPE_AT - 4);
        return len - 4;
    }
    if (outcome == '~')
        put_word(tag, put_word(tag, 0, tpids[out]), named & 0xfff ? named : named | own_vlans[in]);
    return len;
}

static void check_outcome(const struct lab *lab, int port, int in, int out, int kind, int to)
{
    uint8_t frame[LAB_FRAME + 4];
    char outcome = outcomes[in][out][kind];
    size_t len = kind_make(frame, kind, to, 1);

    if ((outcome != '-') != raw_has(lab->fds[port]))
        fprintf(stderr, "kind %d from \"%s\" to \"%s\"\n", kind, modes[in], modes[out]);
    if (outcome != '-')
        lab_take_same(lab, port, frame, change_as(outcome, in, out, frame, len));
    CHECK(!raw_has(lab->fds[port]));
}

static int comes_in(int in, int kind)
{
    int out;

    for (out = 0; out < MODES; out++)
        if (outcomes[in][out][kind] != '-')
            return 1;
    return 0;
}

/* Broadcasts go to all ports of their VLAN, with the tags of each. */
static void floods_follow_the_table(void)
{
    uint8_t frame[LAB_FRAME];
    uint64_t flooded = 0, refused = 0;
    struct lab lab;
    int in, out, kind;

    lab_open(&lab, MODES + 1);
    for (out = 0; out < MODES; out++)
        set_vlan(lab.conns[out], modes[out]);
    for (in = 0; in < MODES; in++) {
        set_vlan(lab.conns[MODES], modes[in]);
        for (kind = 0; kind < KINDS; kind++) {
            lab_send(&lab, MODES, frame, kind_make(frame, kind, EVERYBODY, 1));
            for (out = 0; out < MODES; out++)
                check_outcome(&lab, out, in, out, kind, EVERYBODY);
            flooded += comes_in(in, kind);
            refused += !comes_in(in, kind);
        }
    }
    CHECK_INT(lab_counts(&lab).flooded, flooded);
    CHECK_INT(lab_counts(&lab).refused_vlan, refused);
    CHECK_INT(stats_of(lab.conns[MODES]).rx_refused, refused);
    lab_close(&lab);
}

/* Unicast to one port goes there as a flood would, and where it may not it is refused. */
static void unicast_follows_the_table(void)
{
    static const int vlans[] = { 0, 10, 20, 30 };
    uint8_t frame[LAB_FRAME];
    uint64_t forwarded = 0, refused = 0;
    struct lab lab;
    int in, out, kind;
    size_t i;

    lab_open(&lab, 2);
    for (in = 0; in < MODES; in++)
        for (out = 0; out < MODES; out++) {
            set_vlan(lab.conns[0], modes[in]);
            set_vlan(lab.conns[1], modes[out]);
            if (in == 6 && out == 6)
                continue; /* a hub without VLANs looks at no tags */
            for (i = 0; i < sizeof vlans / sizeof *vlans; i++)
                CHECK_INT(lab_fix(&lab, 2, vlans[i], 1), QNET_OK);
            for (kind = 0; kind < KINDS; kind++) {
                lab_send(&lab, 0, frame, kind_make(frame, kind, 2, 1));
                check_outcome(&lab, 1, in, out, kind, 2);
                forwarded += outcomes[in][out][kind] != '-';
                refused += outcomes[in][out][kind] == '-';
            }
        }
    CHECK_INT(lab_counts(&lab).forwarded, forwarded);
    CHECK_INT(lab_counts(&lab).refused_vlan, refused);
    CHECK_INT(lab_counts(&lab).flooded, 0);
    lab_close(&lab);
}

/* Many frames in one read keep their order, whatever becomes of their tags. */
static void a_read_of_all_kinds_stays_in_order(void)
{
    static const int tried[] = { 3, 4, 5, 8 };
    uint8_t frame[LAB_FRAME + 4], wire[KINDS * 8 * (4 + LAB_FRAME)];
    size_t i, len, at = 0;
    struct lab lab;
    int kind, turn;

    lab_open(&lab, 5);
    set_vlan(lab.conns[0], modes[4]);
    for (i = 0; i < 4; i++)
        set_vlan(lab.conns[1 + i], modes[tried[i]]);
    for (i = 0; i < 4; i++) {
        CHECK_INT(lab_fix(&lab, 10 + (int)i, 10, 1 + (int)i), QNET_OK);
        CHECK_INT(lab_fix(&lab, 10 + (int)i, 20, 1 + (int)i), QNET_OK);
    }
    for (turn = 0; turn < 8; turn++)
        for (kind = 0; kind < KINDS; kind++) {
            len = kind_make(frame, kind, turn % 5 == 4 ? EVERYBODY : 10 + turn % 5, 1);
            raw_put_length(wire + at, len);
            memcpy(wire + at + 4, frame, len);
            at += 4 + len;
        }
    raw_write(lab.fds[0], wire, at);
    lab_settle(&lab);
    for (i = 0; i < 4; i++)
        for (turn = 0; turn < 8; turn++)
            for (kind = 0; kind < KINDS; kind++) {
                char outcome = outcomes[4][tried[i]][kind];
                int to = turn % 5 == 4 ? EVERYBODY : 10 + turn % 5;

                if (outcome == '-' || (to != EVERYBODY && to != 10 + (int)i))
                    continue;
                len = kind_make(frame, kind, to, 1);
                len = change_as(outcome, 4, tried[i], frame, len);
                lab_take_same(&lab, 1 + (int)i, frame, len);
            }
    lab_close(&lab);
}

/* ---- Learning ---- */

/* An address may be in several VLANs, at a port of each. */
static void addresses_are_learned_a_vlan_apart(void)
{
    struct lab lab;

    lab_open(&lab, 4);
    set_vlan(lab.conns[0], "access 10");
    set_vlan(lab.conns[1], "access 20");
    set_vlan(lab.conns[2], "access 10");
    set_vlan(lab.conns[3], "access 20");
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "0010");
    lab_says(&lab, 1, 1, EVERYBODY);
    lab_got(&lab, "0001");
    CHECK(lab_find(&lab, 1, 10).conn == lab.conns[0]);
    CHECK(lab_find(&lab, 1, 20).conn == lab.conns[1]);
    lab_says(&lab, 2, 2, 1);
    lab_got(&lab, "1000");
    lab_says(&lab, 3, 3, 1);
    lab_got(&lab, "0100");
    /* Who is known in another VLAN alone is not known. */
    lab_says(&lab, 3, 3, 2);
    lab_got(&lab, "0100");
    CHECK_INT(lab_counts(&lab).forwarded, 2);
    CHECK_INT(lab_counts(&lab).moves, 0);
    lab_close(&lab);
}

/* What was learned is forgotten where it may be wrong. */
static void setting_vlans_forgets(void)
{
    struct lab lab;

    lab_open(&lab, 3);
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_says(&lab, 1, 2, EVERYBODY);
    CHECK_INT(lab_fix(&lab, 9, 0, 2), QNET_OK);
    CHECK_INT(lab_known(&lab), 3);
    set_vlan(lab.conns[0], "");
    CHECK_INT(lab_known(&lab), 3);
    /* The first spec, and taking away the last. */
    set_vlan(lab.conns[0], "trunk native 5");
    CHECK_INT(lab_known(&lab), 1);
    lab_says(&lab, 0, 1, EVERYBODY);
    set_vlan(lab.conns[1], "trunk native 5");
    lab_says(&lab, 1, 2, EVERYBODY);
    CHECK_INT(lab_known(&lab), 3);
    set_vlan(lab.conns[1], "access 5");
    CHECK(lab_find(&lab, 1, 5).conn == lab.conns[0]);
    CHECK_INT(lab_known(&lab), 2);
    lab_says(&lab, 1, 2, 1);
    set_vlan(lab.conns[1], NULL);
    CHECK_INT(lab_known(&lab), 2);
    set_vlan(lab.conns[0], NULL);
    CHECK_INT(lab_known(&lab), 1);
    CHECK(lab_find(&lab, 9, 0).conn == lab.conns[2]);
    /* So do the first port with one that comes, and the last that goes. */
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[1]), QNET_OK);
    set_vlan(lab.conns[1], "access 7");
    CHECK_INT(lab_known(&lab), 2);
    CHECK_INT(qnet_hub_attach(lab.hub, lab.conns[1]), QNET_OK);
    CHECK_INT(lab_known(&lab), 1);
    lab_says(&lab, 0, 1, EVERYBODY);
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[1]), QNET_OK);
    CHECK_INT(lab_known(&lab), 1);
    CHECK_INT(qnet_hub_attach(lab.hub, lab.conns[1]), QNET_OK);
    lab_drain(&lab);
    lab_close(&lab);
}

/* ---- Settings ---- */

static void texts_are_given_back(void)
{
    static const char *const texts[][2] = {
        { "ACCESS 10", "access 10" },
        { " trunk  all native 1 ", "trunk native 1" },
        { "trunk 20-29,10,11 tpid 88A8", "trunk 10-11,20-29 tpid 88a8" },
        { "tunnel 4094 tpid 8100", "tunnel 4094" },
    };
    struct cable cable = cable_unplugged();
    char buf[8] = "xxxxxxx";
    size_t i;

    for (i = 0; i < sizeof texts / sizeof *texts; i++) {
        set_vlan(cable.a, texts[i][0]);
        check_vlan(cable.a, texts[i][1]);
        set_vlan(cable.a, texts[i][1]);
        check_vlan(cable.a, texts[i][1]);
        check_vlan(cable.b, "");
    }
    CHECK_INT(qnet_vlan(cable.a, NULL, 0), 11);
    CHECK_INT(qnet_vlan(cable.a, buf, 7), 11);
    CHECK(strcmp(buf, "tunnel") == 0);
    CHECK_INT(qnet_vlan(cable.a, NULL, 7), QNET_ERR_INVALID);
    CHECK_INT(qnet_set_vlan(cable.a, "access 10 20"), QNET_ERR_INVALID);
    CHECK(strncmp(qnet_last_error(), "set the VLANs of ", 17) == 0);
    CHECK(strstr(qnet_last_error(), "\"20\" at 11: ") != NULL);
    check_vlan(cable.a, "tunnel 4094");
    /* A link has no VLANs. */
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    set_vlan(cable.a, "access 10");
    set_vlan(cable.b, "trunk 20");
    passes(cable.fa, cable.fb);
    set_vlan(cable.a, NULL);
    check_vlan(cable.a, "");
    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    CHECK_INT(qnet_set_vlan(cable.a, "access"), QNET_ERR_INVALID);
    CHECK_INT(qnet_set_vlan(cable.a, "access 10"), QNET_ERR_CLOSED);
    check_vlan(cable.a, "");
    cable_close(&cable);
}

static void handles_are_judged_first(void)
{
    struct cable cable = cable_unplugged();
    struct wrong_handles bad[WRONG_HANDLES];
    qnet_listener *listener;
    char buf[10];
    size_t i;

    CHECK_INT(qnet_listen("unix", scratch_abstract("judged"), &listener), QNET_OK);
    wrong_handles_make(bad, cable.a, listener);
    for (i = 0; i < WRONG_HANDLES; i++) {
        CHECK_INT(qnet_set_vlan(bad[i].conn, "nonsense"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_vlan(bad[i].conn, NULL, 1), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_set_vlan(bad[i].listener, "nonsense"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_vlan(bad[i].listener, NULL, 1), QNET_ERR_HANDLE);
    }
    CHECK_INT(qnet_listener_set_vlan(listener, "nonsense"), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_vlan(listener, NULL, 1), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_set_vlan(listener, "Trunk 3,1"), QNET_OK);
    CHECK_INT(qnet_listener_vlan(listener, buf, sizeof buf), 9);
    CHECK(strcmp(buf, "trunk 1,3") == 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    cable_close(&cable);
}

/* What is set stays set, and is in force in whichever hub the connection is. */
static void settings_go_with_the_connection(void)
{
    struct lab lab, other;

    lab_open(&lab, 3);
    lab_open(&other, 2);
    set_vlan(lab.conns[0], "access 10");
    set_vlan(lab.conns[1], "access 10");
    set_vlan(other.conns[1], "access 20");
    set_vlan(other.conns[0], "access 10");
    lab_says(&lab, 0, 1, EVERYBODY);
    lab_got(&lab, "011");
    CHECK_INT(qnet_hub_detach(lab.hub, lab.conns[0]), QNET_OK);
    check_vlan(lab.conns[0], "access 10");
    CHECK_INT(qnet_hub_attach(other.hub, lab.conns[0]), QNET_OK);
    check_vlan(lab.conns[0], "access 10");
    raw_send(lab.fds[0], (const uint8_t[LAB_FRAME]){ 255, 255, 255, 255, 255, 255, 2 }, LAB_FRAME);
    lab_settle(&other);
    lab_got(&other, "10");
    CHECK_INT(lab_take(&lab, 0), 0);
    lab_counts(&other);
    CHECK_INT(qnet_hub_detach(other.hub, lab.conns[0]), QNET_OK);
    CHECK_INT(qnet_hub_attach(lab.hub, lab.conns[0]), QNET_OK);
    lab_close(&lab);
    lab_close(&other);
}

/* The settings of a hub's port belong to the hub's end, by whichever handle they are made. */
static void both_handles_of_a_hubs_port(void)
{
    qnet_conn *port, *ends[3], *inner;
    uint8_t frame[LAB_FRAME], got[LAB_FRAME + 4];
    size_t len = kind_make(frame, 0, EVERYBODY, 7);
    struct lab lab;
    int64_t value;

    lab_open(&lab, 1);
    CHECK_INT(qnet_hub_port(lab.hub, &port), QNET_OK);
    CHECK_INT(qnet_hub_ports(lab.hub, ends, 3), 2);
    inner = ends[0] == lab.conns[0] ? ends[1] : ends[0];
    set_vlan(lab.conns[0], "trunk");
    set_vlan(port, "access 10");
    check_vlan(inner, "access 10");
    CHECK_INT(qnet_send(port, frame, len), QNET_OK);
    lab_settle(&lab);
    lab_take_same(&lab, 0, got, change_as('+', 0, 1, memcpy(got, frame, len), len));
    set_vlan(inner, "tunnel 20");
    check_vlan(port, "tunnel 20");
    CHECK_INT(qnet_set(port, QNET_OPT_STORM_FPS, 3), QNET_OK);
    CHECK_INT(qnet_get(inner, QNET_OPT_STORM_FPS, &value), QNET_OK);
    CHECK_INT(value, 3);
    CHECK_INT(qnet_set(inner, QNET_OPT_STORM_FPS, 0), QNET_OK);
    CHECK_INT(qnet_get(port, QNET_OPT_STORM_FPS, &value), QNET_OK);
    CHECK_INT(value, 0);
    CHECK_INT(qnet_hub_fdb_add(lab.hub, frame + MAC_LEN, 20, port), QNET_OK);
    CHECK(lab_find(&lab, 7, 20).conn == port);
    /* What is not attached any more has its own. */
    CHECK_INT(qnet_hub_detach(lab.hub, inner), QNET_OK);
    check_vlan(port, "");
    check_vlan(inner, "tunnel 20");
    CHECK_INT(qnet_close(inner), QNET_OK);
    CHECK_INT(qnet_set_vlan(port, "access 1"), QNET_OK);
    CHECK_INT(qnet_close(port), QNET_OK);
    lab_close(&lab);
}

/* A served peer is in no other VLAN than its listener's, not for one frame. */
static void served_peers_start_with_it(void)
{
    const char *place = scratch_abstract("vlans");
    uint8_t frame[LAB_FRAME], tagged[LAB_FRAME + 4];
    size_t len = kind_make(frame, 0, EVERYBODY, 7);
    qnet_listener *listener;
    struct lab lab;
    int fds[8], i;

    lab_open(&lab, 2);
    set_vlan(lab.conns[0], "trunk");
    set_vlan(lab.conns[1], "access 20");
    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    CHECK_INT(qnet_listener_set_vlan(listener, "access 10"), QNET_OK);
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_ISOLATED, 1), QNET_OK);
    CHECK_INT(qnet_hub_serve(lab.hub, listener), QNET_OK);
    memcpy(tagged, frame, len);
    change_as('+', 0, 1, tagged, len);
    for (i = 0; i < 8; i++) {
        fds[i] = raw_unix_connect(place);
        raw_send(fds[i], frame, len);
        lab_settle(&lab);
        lab_take_same(&lab, 0, tagged, len + 4);
        CHECK(!raw_has(lab.fds[1]));
    }
    for (i = 0; i < 8; i++)
        CHECK(!raw_has(fds[i]));
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_ISOLATED, 0), QNET_OK);
    CHECK_INT(lab_counts(&lab).flooded, 8);
    lab_close(&lab);
    for (i = 0; i < 8; i++)
        CHECK(close(fds[i]) == 0);
}

/* A frame that would grow beyond the longest is dropped, and counted. */
static void the_longest_frame_with_a_tag_more(void)
{
    uint8_t frame[QNET_FRAME_MAX];
    struct lab lab;
    size_t len;

    lab_open(&lab, 3);
    set_vlan(lab.conns[0], "access 10");
    set_vlan(lab.conns[1], "trunk 10");
    set_vlan(lab.conns[2], "access 10");
    lab_set(&lab, 1, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX);
    lab_set(&lab, 2, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX);
    raw_fill(frame, sizeof frame, 1);
    kind_make(frame, 0, EVERYBODY, 1);
    for (len = QNET_FRAME_MAX - 4; len <= QNET_FRAME_MAX; len += 4) {
        lab_send(&lab, 0, frame, len);
        CHECK_INT(lab_take(&lab, 1), len < QNET_FRAME_MAX);
        CHECK_INT(lab_take(&lab, 2), 1);
    }
    CHECK_INT(hub_stats_of(lab.hub).dropped, 1);
    CHECK_INT(stats_of(lab.conns[1]).tx_dropped, 1);
    CHECK_INT(hub_stats_of(lab.hub).flooded, 2);
    set_vlan(lab.conns[0], NULL);
    set_vlan(lab.conns[1], NULL);
    set_vlan(lab.conns[2], NULL);
    CHECK_INT(qnet_hub_close(lab.hub), QNET_OK);
    for (len = 0; len < 3; len++) {
        CHECK_INT(qnet_close(lab.conns[len]), QNET_OK);
        CHECK(close(lab.fds[len]) == 0);
    }
    clock_close(lab.clock);
}

int main(void)
{
    scratch_make();
    RUN(floods_follow_the_table);
    RUN(unicast_follows_the_table);
    RUN(a_read_of_all_kinds_stays_in_order);
    RUN(addresses_are_learned_a_vlan_apart);
    RUN(setting_vlans_forgets);
    RUN(texts_are_given_back);
    RUN(handles_are_judged_first);
    RUN(settings_go_with_the_connection);
    RUN(both_handles_of_a_hubs_port);
    RUN(served_peers_start_with_it);
    RUN(the_longest_frame_with_a_tag_more);
    scratch_remove();
    return check_done();
}
