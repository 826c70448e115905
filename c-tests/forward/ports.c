/*
 * ports.c - links and hubs with ports that carry messages: all kinds together,
 * a frame that is too long for a port, a slow port, and one whose peer is not
 * there.
 */
#include "dgrams.h"

/* A link to a stream: frames of every size go both ways, and the stream's end ends the other. */
static void linked_to_a_stream(void)
{
    struct flow sent = flow_of_kind(far_now), seen = sent, back = sent, back_seen = sent;
    struct far far;
    int fd, round;
    qnet_conn *conn = far_open(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_set(stream, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    for (round = 0; round < 20; round++) {
        raw_send_flow(fd, &sent, ALL_SIZES, round % 2 ? 0 : 5000);
        far_take_until(&far, &seen, sent.next);
        far_send_flow(&far, &back, ALL_SIZES);
        raw_take_until(fd, &back_seen, back.next);
    }
    EVENTUALLY(stats_of(conn).tx_frames == sent.next);
    check_sent(conn, sent.next, flow_bytes(&sent, 0, sent.next), 0);
    check_sent(stream, back.next, flow_bytes(&back, 0, back.next), 0);
    CHECK_INT(stats_of(conn).rx_frames, back.next);
    CHECK(close(fd) == 0);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(stream), QNET_OK);
    far_close(conn, &far);
}

/* A link of two connections of the same kind. */
static void linked_to_its_like(void)
{
    struct flow sent = flow_of_kind(far_now), seen = sent;
    struct far a_far, b_far;
    qnet_conn *a = far_open(&a_far), *b = far_open(&b_far);
    int round;

    CHECK_INT(qnet_link(a, b), QNET_OK);
    for (round = 0; round < 20; round++) {
        const struct far *from = round % 2 ? &a_far : &b_far, *to = round % 2 ? &b_far : &a_far;

        far_send_flow(from, &sent, ALL_SIZES);
        far_take_until(to, &seen, sent.next);
    }
    CHECK_INT(qnet_unlink(a), QNET_OK);
    next_is_a_frame(a, &a_far);
    far_close(a, &a_far);
    far_close(b, &b_far);
}

/* A hub with a port of each kind and a stream: everybody hears everybody, at every size. */
static void all_kinds_on_a_hub(void)
{
    static const size_t sizes[] = { 16, 60, 1514, 9000, UDP_V4_MAX };
    struct far fars[FAR_KINDS];
    qnet_conn *conns[FAR_KINDS];
    struct device device;
    struct word word;
    qnet_hub *hub;
    size_t i, j, s;

    if (!ipv6_here())
        check_skip("this machine has no IPv6");
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1000);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    for (i = 0; i < FAR_KINDS; i++) {
        conns[i] = far_open_kind(&far_kinds[i], &fars[i]);
        CHECK_INT(qnet_hub_attach(hub, conns[i]), QNET_OK);
    }
    word.number = 0;
    for (s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (i = 0; i < FAR_KINDS; i++) {
            word.from = (int)i;
            word.to = EVERYBODY;
            word.len = sizes[s];
            word.number++;
            far_says(&fars[i], word);
            for (j = 0; j < FAR_KINDS; j++)
                if (j != i)
                    CHECK_INT(far_hears(&fars[j]).number, word.number);
            CHECK_INT(raw_hear(device.fd).number, word.number);
            device_says(&device, (int)i, sizes[s]);
            CHECK_INT(far_hears(&fars[i]).from, device.n);
            word.number++;
            word.to = (int)((i + 1) % FAR_KINDS);
            far_says(&fars[i], word);
            if (s > 0)
                CHECK_INT(far_hears(&fars[word.to]).number, word.number);
            else if (i + 1 < FAR_KINDS) /* flooded: its place is not known yet */
                for (j = 0; j < FAR_KINDS; j++)
                    CHECK(j == i || far_hears(&fars[j]).number == word.number);
            else
                CHECK_INT(far_hears(&fars[word.to]).number, word.number);
            if (s == 0 && i + 1 < FAR_KINDS)
                CHECK_INT(raw_hear(device.fd).number, word.number);
        }
    CHECK_INT(hub_stats_of(hub).dropped, 0);
    for (i = 0; i < FAR_KINDS; i++)
        CHECK_INT(stats_of(conns[i]).tx_dropped, 0);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    for (i = 0; i < FAR_KINDS; i++)
        far_close(conns[i], &fars[i]);
    device_close(&device);
}

/* A frame that is too long for a port is dropped and counted, and the next one arrives. */
static void too_long_for_a_port(void)
{
    struct device device;
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    device_says(&device, EVERYBODY, far_now->longest + 1);
    device_says(&device, EVERYBODY, 60);
    CHECK_INT(far_hears(&far).len, 60);
    EVENTUALLY(stats_of(conn).tx_frames == 1);
    check_sent(conn, 1, 60, 1);
    CHECK_INT(hub_stats_of(hub).dropped, 1);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    far_close(conn, &far);
}

/* A hub, two streams on it, and a port of the kind whose far socket does not read. */
static void slow_port_of_a_hub(void)
{
    struct device a, b;
    struct far far;
    qnet_conn *conn = far_open(&far);
    uint64_t said = 0, heard = 0;
    qnet_hub *hub;
    int round, i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_set(hub, QNET_OPT_QUEUE_BYTES, 30000), QNET_OK);
    have_little_room(conn);
    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (round = 0; round < 3; round++) {
        for (i = 0; i < 200; i++) { /* the others notice nothing */
            device_says(&a, EVERYBODY, 600);
            device_hears(&b, &a, EVERYBODY);
            said++;
        }
        EVENTUALLY(taken_by(conn) == said);
        CHECK(stats_of(conn).tx_dropped > 0);
        if (round == 1)
            is_idle();
        while (heard < stats_of(conn).tx_frames) {
            CHECK_INT(far_hears(&far).from, a.n);
            heard++;
        }
        device_says(&a, EVERYBODY, 60);
        device_hears(&b, &a, EVERYBODY);
        CHECK_INT(far_hears(&far).number, a.said - 1);
        said++;
        heard++;
    }
    EVENTUALLY(taken_by(conn) == said);
    CHECK_INT(stats_of(conn).tx_frames, heard);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&a);
    device_close(&b);
    far_close(conn, &far);
}

/*
 * A port with send timeout 0 loses no frame by waiting: it gets all of them,
 * however full it is now and then, and nothing spins while it is full.
 */
static void patient_port(struct flow flow, int sndbuf)
{
    unsigned total = (unsigned)rounds(2000) / 4 * 4 + 40;
    struct raw_job writer;
    struct far far;
    int fd;
    qnet_conn *conn = far_open(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, sndbuf), QNET_OK);
    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow, total);
    is_idle();
    while (flow.next < total) {
        far_take(&far, &flow);
        if (flow.next % 1000 == 500)
            raw_sleep_ms(20);
    }
    join_thread(writer.thread);
    EVENTUALLY(taken_by(conn) == total);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
    CHECK_INT(qnet_close(stream), QNET_OK);
    CHECK(close(fd) == 0);
    far_close(conn, &far);
}

/* First the far socket's queue fills up, and then the own socket's send buffer. */
static void patient_port_of_a_link(void)
{
    static const size_t small[] = { 60, 14, 600, 1514 }, large[] = { 600, 60, 60000, 1514 };
    struct flow flow = { small, 4, 0 };

    patient_port(flow, 1 << 20);
    flow.sizes = large;
    patient_port(flow, 100000);
}

/* An absent remote does not make a hub spin, and its frames are counted as dropped. */
static void absent_port_of_a_hub(void)
{
    struct device a, b;
    struct far far;
    qnet_conn *conn = far_open(&far);
    qnet_hub *hub;
    int i;

    far_leaves(&far);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (i = 0; i < 200; i++) {
        device_says(&a, EVERYBODY, (size_t)(60 + i));
        device_hears(&b, &a, EVERYBODY);
    }
    EVENTUALLY(stats_of(conn).tx_dropped == 200);
    check_sent(conn, 0, 0, 200);
    is_idle();
    if (!(far_now->set & (PAIR | SEQUENCED))) {
        far_comes(&far);
        device_says(&a, EVERYBODY, 60);
        CHECK_INT(far_hears(&far).number, a.said - 1);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&a);
    device_close(&b);
    far_close(conn, &far);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(linked_to_a_stream, EVERY_KIND);
    RUN_KINDS(linked_to_its_like, EVERY_KIND);
    RUN(all_kinds_on_a_hub);
    RUN_KINDS(too_long_for_a_port, UDP | GROUP);
    RUN_KINDS(slow_port_of_a_hub, NAMED | PAIR);
    RUN_KINDS(patient_port_of_a_link, OF_UNIX);
    RUN_KINDS(absent_port_of_a_hub, UDP | NAMED | PAIR);
    scratch_remove();
    return check_done();
}
