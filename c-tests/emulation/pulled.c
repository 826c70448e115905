/*
 * pulled.c - cables that are pulled (QNET_OPT_LINK), and connections that outlive the other
 * side of their link (QNET_OPT_OUTLIVE).
 */
#include "../forward/cable.h"
#include "impairing.h"
#include "macs.h"

static void pull(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 0), QNET_OK);
}

static void plug(qnet_conn *conn)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_LINK, 1), QNET_OK);
}

/* ---- Pulled ---- */

/* What either side sends goes nowhere, is counted, and does not hold up whoever sends. */
static void nothing_goes_through_a_link(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&long_frame);
    int by_b, i;

    for (by_b = 0; by_b < 2; by_b++) {
        qnet_conn *conn = by_b ? cable.b : cable.a, *other = by_b ? cable.a : cable.b;
        int fd = by_b ? cable.fb : cable.fa, far = by_b ? cable.fa : cable.fb;
        uint64_t refused = stats_of(conn).rx_refused, dropped = stats_of(conn).tx_dropped;

        for (i = 0; i < 2; i++) {
            pull(conn);
            raw_send_flow(fd, &flow, MANY / 4, 0);
            raw_send_flow(far, &flow, MANY / 4, 0);
            refused += MANY / 4;
            dropped += MANY / 4;
            EVENTUALLY(stats_of(conn).rx_refused == refused);
            EVENTUALLY(stats_of(conn).tx_dropped == dropped);
            check_silent(fd);
            check_silent(far);
            CHECK_INT(stats_of(other).rx_refused, by_b * MANY / 2);
            plug(conn);
            passes(fd, far);
            passes(far, fd);
        }
        CHECK_INT(stats_of(conn).rx_frames, stats_of(other).tx_frames + stats_of(conn).rx_refused
                                                + stats_of(other).tx_dropped);
    }
    cable_close(&cable);
}

/* It may be pulled before it is plugged in, and matters to nobody who receives. */
static void pulled_before(void)
{
    struct cable cable = cable_unplugged();
    struct flow sent = flow_of_one_size(&short_frame), received = sent;

    pull(cable.a);
    raw_send_flow(cable.fa, &sent, 2, 0);
    take_by_recv(cable.a, &received);
    CHECK_INT(make_send(cable.a), QNET_OK);
    CHECK(raw_readable(cable.fa, patience_ms()));
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    EVENTUALLY(stats_of(cable.a).rx_refused == 1);
    check_silent(cable.fb);
    CHECK_INT(stats_of(cable.a).rx_frames, 2);
    CHECK_INT(qnet_unlink(cable.a), QNET_OK);
    raw_send_flow(cable.fa, &sent, 1, 0);
    received.next = 2;
    take_by_recv(cable.a, &received);
    cable_close(&cable);
}

/* The program's own sends pass. */
static void sends_pass(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_small_frames(), received = flow;

    pull(cable.a);
    CHECK_INT(flow_send(&flow, cable.a, 1, 7), 7);
    raw_take_until(cable.fa, &received, 7);
    cable_close(&cable);
}

/* What is in flight in its own directions is discarded, and nothing else. */
static void what_flies_is_discarded(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&short_frame);

    impair(cable.a, QNET_BOTH, "delay 1000s");
    impair(cable.b, QNET_BOTH, "delay 1000s");
    raw_send_flow(cable.fa, &flow, 10, 0);
    raw_send_flow(cable.fb, &flow, 20, 0);
    EVENTUALLY(in_flight(cable.a, QNET_IN) == 10);
    EVENTUALLY(in_flight(cable.b, QNET_IN) == 20);
    pull(cable.a);
    CHECK_INT(check_counts(cable.a, QNET_IN).discarded, 10);
    CHECK_INT(in_flight(cable.a, QNET_IN), 0);
    CHECK_INT(in_flight(cable.b, QNET_IN), 20);
    raw_send_flow(cable.fa, &flow, 5, 0);
    EVENTUALLY(stats_of(cable.a).rx_refused == 5);
    CHECK_INT(check_counts(cable.a, QNET_IN).frames, 10);
    impair(cable.b, QNET_BOTH, "");
    plug(cable.a);
    impair(cable.a, QNET_BOTH, "");
    passes(cable.fa, cable.fb);
    cable_close(&cable);
}

/* A slow reader that holds up the other side does not when its cable is pulled. */
static void a_pulled_cable_holds_nobody_up(void)
{
    struct cable cable = cable_plugged();
    struct raw_job writer;

    hold_back(&writer, cable.fa);
    pull(cable.b);
    join_thread(writer.thread);
    EVENTUALLY(stats_of(cable.a).rx_frames == MANY);
    CHECK(stats_of(cable.b).tx_dropped > 0);
    cable_close(&cable);
}

static void a_hub_forgets_what_is_behind_it(void)
{
    struct room room;

    room_open(&room, 3);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    pull(room.devices[1].conn);
    CHECK_INT(hub_stats_of(room.hub).macs, 2);
    device_says(&room.devices[1], EVERYBODY, MAC_FRAME);
    EVENTUALLY(stats_of(room.devices[1].conn).rx_refused == 1);
    device_says(&room.devices[0], room.devices[1].n, MAC_FRAME);
    device_hears(&room.devices[2], &room.devices[0], room.devices[1].n);
    check_silent(room.devices[1].fd);
    CHECK_INT(stats_of(room.devices[1].conn).tx_dropped, 1);
    CHECK_INT(hub_stats_of(room.hub).dropped, 1);
    CHECK_INT(hub_stats_of(room.hub).macs, 2);
    plug(room.devices[1].conn);
    room_is_quiet(&room);
    CHECK_INT(hub_stats_of(room.hub).macs, 3);
    room_close(&room);
}

/* ---- Outliving ---- */

static void outlive(qnet_conn *conn, int whether)
{
    CHECK_INT(qnet_set(conn, QNET_OPT_OUTLIVE, whether), QNET_OK);
}

/* How the other side ends. */
static void end_other_side(struct cable *cable, int how)
{
    switch (how) {
    case 0:
        CHECK_INT(qnet_close(cable->a), QNET_OK);
        CHECK(close(cable->fa) == 0);
        return;
    case 1:
        CHECK_INT(qnet_shutdown(cable->a), QNET_OK);
        CHECK_INT(qnet_close(cable->a), QNET_OK);
        CHECK(close(cable->fa) == 0);
        return;
    default:
        CHECK(close(cable->fa) == 0);
        CHECK_INT(qnet_wait(cable->a, patience_ms()), QNET_OK);
        CHECK_INT(qnet_close(cable->a), QNET_OK);
    }
}

/* It is linked to nothing, as by a pulled cable, until it is linked again, as either argument. */
static void linked_to_nothing_and_again(void)
{
    int how;

    for (how = 0; how < 6; how++) {
        struct footprint before = footprint_now();
        struct cable cable = cable_unplugged();
        struct flow flow = flow_of_one_size(&long_frame);
        uint64_t dropped = 0;

        outlive(cable.b, 1);
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        passes(cable.fa, cable.fb);
        end_other_side(&cable, how % 3);
        raw_send_flow(cable.fb, &flow, MANY, 0);
        EVENTUALLY(stats_of(cable.b).rx_refused + dropped > 0);
        EVENTUALLY(stats_of(cable.b).rx_frames == MANY);
        CHECK_INT(qnet_close_reason(cable.b), QNET_OK);
        CHECK_INT(recv_now(cable.b), QNET_ERR_BUSY);
        cable.a = raw_pair(&cable.fa);
        if (how < 3)
            CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        else
            CHECK_INT(qnet_link(cable.b, cable.a), QNET_OK);
        CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_BUSY);
        passes(cable.fa, cable.fb);
        passes(cable.fb, cable.fa);
        /* Nothing that had been refused comes later. */
        check_silent(cable.fa);
        cable_close(&cable);
        footprint_again(before);
    }
}

static void unlinked_from_nothing(void)
{
    struct cable cable = cable_unplugged();
    struct flow sent = flow_of_one_size(&short_frame), received = sent;

    outlive(cable.b, 1);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    end_other_side(&cable, 0);
    CHECK_INT(qnet_unlink(cable.b), QNET_OK);
    CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
    raw_send_flow(cable.fb, &sent, 1, 0);
    take_by_recv(cable.b, &received);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fb) == 0);
}

/* Two that have both outlived their links are linked to each other. */
static void two_survivors(void)
{
    struct footprint before = footprint_now();
    struct cable one = cable_unplugged(), two = cable_unplugged();

    outlive(one.b, 1);
    outlive(two.b, 1);
    CHECK_INT(qnet_link(one.a, one.b), QNET_OK);
    CHECK_INT(qnet_link(two.a, two.b), QNET_OK);
    end_other_side(&one, 2);
    end_other_side(&two, 1);
    CHECK_INT(qnet_link(one.b, two.b), QNET_OK);
    passes(one.fb, two.fb);
    passes(two.fb, one.fb);
    CHECK_INT(qnet_close(one.b), QNET_OK);
    CHECK_INT(qnet_close_reason(two.b), QNET_OK);
    CHECK_INT(qnet_close(two.b), QNET_OK);
    CHECK(close(one.fb) == 0 && close(two.fb) == 0);
    footprint_again(before);
}

/* What is still in flight to one of them stays ahead of what the other one's peer sends. */
static void survivors_keep_order(void)
{
    struct cable one = cable_unplugged(), two = cable_unplugged();
    struct flow flow = flow_of_one_size(&short_frame), received = flow;
    unsigned i;

    outlive(one.b, 1);
    outlive(two.b, 1);
    impair(two.b, QNET_OUT, "delay 300ms");
    CHECK_INT(qnet_link(one.a, one.b), QNET_OK);
    CHECK_INT(qnet_link(two.a, two.b), QNET_OK);
    for (i = 1; i <= 3; i++) {
        raw_send_flow(two.fa, &flow, 10, 0);
        EVENTUALLY(check_counts(two.b, QNET_OUT).frames == 10 * i);
    }
    end_other_side(&one, 1);
    end_other_side(&two, 1);
    impair(two.b, QNET_OUT, "delay 0");
    CHECK_INT(qnet_link(one.b, two.b), QNET_OK);
    raw_send_flow(one.fb, &flow, 10, 0);
    raw_take_until(two.fb, &received, 40);
    EVENTUALLY(check_counts(two.b, QNET_OUT).passed == 40);
    CHECK_INT(check_counts(two.b, QNET_OUT).reordered, 0);
    CHECK_INT(qnet_close(one.b), QNET_OK);
    CHECK_INT(qnet_close(two.b), QNET_OK);
    CHECK(close(one.fb) == 0 && close(two.fb) == 0);
}

/* A survivor that is not to be one any more ends, and so does one whose own peer leaves. */
static void survivors_end(void)
{
    int by_peer;

    for (by_peer = 0; by_peer < 2; by_peer++) {
        struct cable cable = cable_unplugged();
        struct ending ending = { 0, 0, 0, 0 };

        CHECK_INT(qnet_set_close_handler(cable.b, ending_told, &ending), QNET_OK);
        outlive(cable.b, 1);
        CHECK_INT(qnet_link(cable.b, cable.a), QNET_OK);
        end_other_side(&cable, 2);
        CHECK_INT(qnet_close_reason(cable.b), QNET_OK);
        if (by_peer)
            CHECK(shutdown(cable.fb, SHUT_WR) == 0);
        else
            outlive(cable.b, 0);
        EVENTUALLY(get(&ending.ends) == 1);
        check_told(&ending, QNET_ERR_CLOSED);
        CHECK_INT(qnet_close(cable.b), QNET_OK);
        CHECK(close(cable.fb) == 0);
    }
}

/* What the side that ended had sent still arrives; what was for it is discarded. */
static void what_was_sent_arrives(void)
{
    struct cable cable = cable_unplugged(), next = cable_unplugged();
    struct flow flow = flow_of_one_size(&short_frame), received = flow;

    outlive(cable.b, 1);
    impair(cable.b, QNET_OUT, "delay 200ms");
    impair(cable.b, QNET_IN, "delay 1000s");
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    raw_send_flow(cable.fa, &flow, 10, 0);
    raw_send_flow(cable.fb, &flow, 5, 0);
    EVENTUALLY(check_counts(cable.b, QNET_OUT).frames == 10);
    EVENTUALLY(check_counts(cable.b, QNET_IN).frames == 5);
    end_other_side(&cable, 0);
    EVENTUALLY(check_counts(cable.b, QNET_IN).discarded == 5);
    CHECK_INT(qnet_link(next.a, cable.b), QNET_OK);
    raw_take_until(cable.fb, &received, 10);
    passes(next.fa, cable.fb);
    CHECK_INT(check_counts(cable.b, QNET_OUT).discarded, 0);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fb) == 0);
    cable_close(&next);
}

/* A ring cannot be closed through a survivor. */
static void no_ring_through_a_survivor(void)
{
    struct cable cable = cable_unplugged();
    qnet_conn *x, *y;

    CHECK_INT(qnet_socketpair(&x, &y), QNET_OK);
    outlive(x, 1);
    CHECK_INT(qnet_link(cable.a, x), QNET_OK);
    end_other_side(&cable, 0);
    CHECK_INT(qnet_link(x, y), QNET_ERR_INVALID);
    CHECK_INT(qnet_link(y, x), QNET_ERR_INVALID);
    CHECK_INT(qnet_link(y, cable.b), QNET_OK);
    CHECK_INT(qnet_link(x, x), QNET_ERR_INVALID);
    CHECK_INT(qnet_close(x), QNET_OK);
    CHECK_INT(qnet_close(y), QNET_OK);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    CHECK(close(cable.fb) == 0);
}

int main(void)
{
    RUN(nothing_goes_through_a_link);
    RUN(pulled_before);
    RUN(sends_pass);
    RUN(what_flies_is_discarded);
    RUN(a_pulled_cable_holds_nobody_up);
    RUN(a_hub_forgets_what_is_behind_it);
    RUN(linked_to_nothing_and_again);
    RUN(unlinked_from_nothing);
    RUN(two_survivors);
    RUN(survivors_keep_order);
    RUN(survivors_end);
    RUN(what_was_sent_arrives);
    RUN(no_ring_through_a_survivor);
    return check_done();
}
