/*
 * impaired_end.c - frames in flight where something ends: unlinking, closing, shutting down,
 * a peer that leaves, one that comes back, a fork. All are counted, none is left, and the end
 * comes behind what was sent before it.
 */
#include "../forward/cable.h"
#include "forked.h"
#include "impairing.h"
#include "macs.h"
#include "redialling.h"

enum { FLYING = 1000 };

/* A cable with frames in flight in every direction: 1000 s away. */
static struct cable cable_in_flight(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_small_frames();
    int i;

    for (i = 0; i < 2; i++) {
        impair(cable.a, i ? QNET_OUT : QNET_IN, "delay 1000s");
        impair(cable.b, i ? QNET_OUT : QNET_IN, i ? "rate 1bit limit 2000" : "delay 1000s duplicate 0%");
        raw_send_flow(cable.fa, &flow, FLYING, 0);
        raw_send_flow(cable.fb, &flow, FLYING, 0);
        EVENTUALLY(in_flight(cable.a, i ? QNET_OUT : QNET_IN) == FLYING);
        EVENTUALLY(in_flight(cable.b, i ? QNET_OUT : QNET_IN) == FLYING);
        /* What comes now flies OUT, on the other side. */
        impair(cable.a, QNET_IN, "loss 0%");
        impair(cable.b, QNET_IN, "loss 0%");
        if (i == 0) {
            CHECK_INT(qnet_unlink(cable.a), QNET_OK);
            CHECK_INT(check_counts(cable.a, QNET_IN).discarded, FLYING);
            CHECK_INT(check_counts(cable.b, QNET_IN).discarded, FLYING);
            CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        }
    }
    return cable;
}

static void flights_are_discarded(void)
{
    int how;

    for (how = 0; how < 4; how++) {
        struct footprint before = footprint_now();
        struct cable cable = cable_in_flight();
        qnet_impair_stats stats;

        if (how == 0)
            CHECK_INT(qnet_unlink(cable.b), QNET_OK);
        else if (how == 1)
            CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
        if (how < 2) {
            stats = check_counts(cable.a, QNET_OUT);
            CHECK_INT(stats.discarded, FLYING);
            CHECK_INT(stats.passed + stats.flying + stats.waiting, 0);
        }
        if (how == 0)
            CHECK_INT(check_counts(cable.b, QNET_OUT).discarded, FLYING);
        if (how == 1)
            /* The end is the last thing on the cable. */
            CHECK_INT(qnet_wait(cable.b, 20), QNET_ERR_TIMEOUT);
        cable_close(&cable);
        footprint_again(before);
    }
}

/* The other side is ended when what was sent has arrived there. */
static void the_end_comes_last(void)
{
    static const char *const texts[] = { "delay 30ms", "rate 10mbit limit 2000", "delay 20ms 10ms" };
    static const int directions[] = { QNET_IN, QNET_OUT, 0 };
    int i, d, how;

    for (i = 0; i < 3; i++)
        for (d = 0; d < 3; d++)
            for (how = 0; how < 3; how++) {
                struct cable cable = cable_plugged();
                struct flow flow = flow_of_one_size(&short_frame), received = flow;
                int locally = how < 2;

                if (directions[d] != QNET_OUT)
                    impair(cable.a, QNET_IN, texts[i]);
                if (directions[d] != QNET_IN)
                    impair(cable.b, QNET_OUT, texts[i]);
                raw_send_flow(cable.fa, &flow, 200, 0);
                if (locally) {
                    /* What has come out of its own IN arrives; the rest is discarded. */
                    EVENTUALLY(check_counts(cable.a, QNET_IN).frames == 200 || d == 1);
                    EVENTUALLY(in_flight(cable.a, QNET_IN) == 0);
                    EVENTUALLY(stats_of(cable.a).rx_frames == 200);
                    CHECK_INT(how ? qnet_shutdown(cable.a) : qnet_close(cable.a), QNET_OK);
                } else {
                    CHECK(shutdown(cable.fa, SHUT_WR) == 0);
                }
                raw_take_until(cable.fb, &received, 200);
                raw_take_end(cable.fb);
                CHECK_INT(qnet_wait(cable.b, patience_ms()), QNET_OK);
                CHECK_INT(qnet_close_reason(cable.b), QNET_ERR_CLOSED);
                if (how > 0)
                    CHECK_INT(qnet_close(cable.a), QNET_OK);
                CHECK_INT(qnet_close(cable.b), QNET_OK);
                CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
            }
}

/* Also where the socket is full when they are due. */
static void the_end_waits_for_a_slow_reader(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&long_frame), received = flow;
    struct raw_job writer;

    impair(cable.a, QNET_IN, "delay 1ms");
    impair(cable.b, QNET_OUT, "delay 1ms");
    CHECK_INT(qnet_set(cable.a, QNET_OPT_FLIGHT_BYTES, 200000), QNET_OK);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_FLIGHT_BYTES, 200000), QNET_OK);
    raw_start(&writer, writing_until_the_end, cable.fa, flow, MANY);
    EVENTUALLY(raw_is_held(cable.fa));
    raw_take_until(cable.fb, &received, MANY - 20);
    join_thread(writer.thread);
    CHECK(shutdown(cable.fa, SHUT_WR) == 0);
    raw_sleep_ms(20);
    raw_take_until(cable.fb, &received, MANY);
    raw_take_end(cable.fb);
    cable_close(&cable);
}

/* What a peer of a hub had sent before it left is still forwarded. */
static void a_hubs_peer_leaves(void)
{
    struct room room;
    struct ending ending = { 0, 0, 0, 0 };
    int i;

    room_open(&room, 2);
    CHECK_INT(qnet_set_close_handler(room.devices[0].conn, ending_told, &ending), QNET_OK);
    impair(room.devices[0].conn, QNET_IN, "delay 50ms");
    for (i = 0; i < 10; i++)
        device_says(&room.devices[0], EVERYBODY, MAC_FRAME);
    CHECK(shutdown(room.devices[0].fd, SHUT_WR) == 0);
    for (i = 0; i < 10; i++)
        CHECK_INT(raw_hear(room.devices[1].fd).number, 1 + i);
    EVENTUALLY(get(&ending.ends) == 1);
    check_told(&ending, QNET_ERR_CLOSED);
    CHECK_INT(check_counts(room.devices[0].conn, QNET_IN).passed, 10);
    room_close(&room);
}

/* A hub that is closed discards what its ports hold. */
static void a_hub_is_closed(void)
{
    struct footprint before = footprint_now();
    struct room room;
    int i;

    room_open(&room, 3);
    impair(room.devices[0].conn, QNET_IN, "delay 1000s");
    impair(room.devices[1].conn, QNET_OUT, "delay 1000s");
    for (i = 0; i < 10; i++) {
        device_says(&room.devices[0], EVERYBODY, MAC_FRAME);
        device_says(&room.devices[2], room.devices[1].n, MAC_FRAME);
    }
    EVENTUALLY(in_flight(room.devices[0].conn, QNET_IN) == 10);
    EVENTUALLY(in_flight(room.devices[1].conn, QNET_OUT) == 10);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    CHECK_INT(check_counts(room.devices[0].conn, QNET_IN).discarded, 10);
    CHECK_INT(check_counts(room.devices[1].conn, QNET_OUT).discarded, 10);
    for (i = 0; i < 3; i++)
        device_close(&room.devices[i]);
    footprint_again(before);
}

/* While a reconnecting connection is down, what becomes due is dropped; the next peer is impaired too. */
static void a_peer_that_comes_back(void)
{
    struct flow flow = flow_of_one_size(&short_frame), received = flow;
    struct scene scene;
    qnet_conn *other;
    int fd, i;

    scene_open(&scene, SOON_MS);
    other = raw_pair(&fd);
    impair(scene.conn, QNET_BOTH, "delay 20ms seed 8");
    CHECK_INT(qnet_link(scene.conn, other), QNET_OK);
    raw_send_flow(scene.peer.fd, &flow, 10, 0);
    peer_leaves(&scene.peer);
    /* It goes down when what it had sent has arrived. */
    raw_take_until(fd, &received, 10);
    is_told(&scene, 1);
    raw_send_flow(fd, &flow, 5, 0);
    EVENTUALLY(stats_of(scene.conn).tx_dropped == 5);
    CHECK_INT(check_counts(scene.conn, QNET_OUT).passed, 5);
    peer_returns(&scene.peer);
    is_told(&scene, 2);
    check_text(scene.conn, QNET_IN, "delay 20ms seed 8");
    for (i = 0; i < 2; i++) {
        passes(scene.peer.fd, fd);
        passes(fd, scene.peer.fd);
    }
    CHECK_INT(check_counts(scene.conn, QNET_IN).passed, 12);
    CHECK_INT(check_counts(scene.conn, QNET_OUT).discarded, 0);
    CHECK_INT(qnet_unlink(scene.conn), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
    CHECK(close(fd) == 0);
    scene_close(&scene);
}

/* A child that is forked has none of it, and the parent goes on. */
static void a_fork_in_flight(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&short_frame), received = flow;
    pid_t pid;

    impair(cable.a, QNET_BOTH, "delay 100ms");
    raw_send_flow(cable.fa, &flow, 100, 0);
    EVENTUALLY(check_counts(cable.a, QNET_IN).frames == 100);
    pid = fork();
    if (pid == 0) {
        struct cable own;
        char text[10];

        CHECK_INT(qnet_impair(cable.a, QNET_IN, ""), QNET_ERR_HANDLE);
        CHECK_INT(qnet_impairment(cable.a, QNET_IN, text, sizeof text), QNET_ERR_HANDLE);
        own = cable_plugged();
        impair(own.a, QNET_BOTH, "delay 5ms");
        passes(own.fa, own.fb);
        passes(own.fb, own.fa);
        cable_close(&own);
        end_child();
    }
    CHECK(pid > 0);
    raw_take_until(cable.fb, &received, 100);
    check_silent(cable.fb);
    wait_for_child(pid);
    cable_close(&cable);
}

/* What another thread changes, in all ways and at any time. */
struct meddler {
    pthread_t thread;
    const struct cable *cable;
    unsigned state;
};

static void *meddling(void *argument)
{
    static const char *const texts[] = {
        "", "delay 1ms", "rate 100mbit", "loss 5%", "delay 500us 400us reorder duplicate 5%",
    };
    struct meddler *meddler = argument;
    int calls;

    for (calls = 0; calls < 400; calls++) {
        unsigned what = next_random(&meddler->state);
        qnet_conn *conn = what & 1 ? meddler->cable->a : meddler->cable->b;

        switch (what / 2 % 8) {
        case 0:
            qnet_link(meddler->cable->a, meddler->cable->b);
            break;
        case 1:
            qnet_unlink(conn);
            break;
        case 2:
            CHECK_INT(qnet_set(conn, QNET_OPT_LINK, what / 16 % 4 != 0), QNET_OK);
            break;
        case 3:
            CHECK_INT(qnet_set(conn, QNET_OPT_FLIGHT_BYTES, 131072 << what / 16 % 4), QNET_OK);
            break;
        default:
            impair(conn, 1 + (int)(what / 16 % 3), texts[what / 64 % 5]);
        }
        raw_sleep_ms(what / 512 % 2);
    }
    return NULL;
}

static void everything_at_once(void)
{
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_small_frames();
    struct meddler meddlers[3];
    struct raw_job jobs[4];
    int i;

    for (i = 0; i < 2; i++) {
        raw_start(&jobs[i], writing_until_the_end, i ? cable.fb : cable.fa, flow, 100000);
        raw_start(&jobs[2 + i], reading_until_the_end, i ? cable.fb : cable.fa, flow, 0);
    }
    for (i = 0; i < 3; i++) {
        meddlers[i].cable = &cable;
        meddlers[i].state = (unsigned)i;
        start_thread(&meddlers[i].thread, meddling, &meddlers[i]);
    }
    for (i = 0; i < 3; i++)
        join_thread(meddlers[i].thread);
    for (i = 0; i < 4; i++)
        check_counts(i & 1 ? cable.a : cable.b, i & 2 ? QNET_IN : QNET_OUT);
    CHECK_INT(qnet_close(cable.a), QNET_OK);
    CHECK_INT(qnet_close(cable.b), QNET_OK);
    for (i = 0; i < 4; i++)
        join_thread(jobs[i].thread);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
}

int main(void)
{
    scratch_make();
    RUN(flights_are_discarded);
    RUN(the_end_comes_last);
    RUN(the_end_waits_for_a_slow_reader);
    RUN(a_hubs_peer_leaves);
    RUN(a_hub_is_closed);
    RUN(a_peer_that_comes_back);
    RUN(a_fork_in_flight);
    RUN(everything_at_once);
    scratch_remove();
    return check_done();
}
