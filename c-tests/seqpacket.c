/*
 * seqpacket.c - SEQPACKET: messages as of datagrams, and waiting as on a stream. Whoever
 * sends waits for a peer that does not read, however long, and nothing is lost.
 */
#include "far.h"

/* Longer than datagrams wait. */
enum { LONG_MS = 120, MANY = 600 };

static const size_t frame_size = 600;

/* Has a thread do something meanwhile. */
struct errand {
    pthread_t thread;
    qnet_conn *conn;
    const struct far *far;
    struct flow flow;
    int way, result;
};

static void errand_start(struct errand *errand, void *(*body)(void *), qnet_conn *conn, int way)
{
    memset(errand, 0, sizeof *errand);
    errand->conn = conn;
    errand->flow = flow_of_one_size(&frame_size);
    errand->way = way;
    start_thread(&errand->thread, body, errand);
}

/* Sends all frames, in one of the ways. */
static void *sends(void *argument)
{
    struct errand *errand = argument;

    while (errand->flow.next < MANY)
        CHECK(flow_send(&errand->flow, errand->conn, errand->way, MANY - errand->flow.next) > 0);
    return NULL;
}

static void *flushes(void *argument)
{
    struct errand *errand = argument;

    errand->result = qnet_flush(errand->conn);
    return NULL;
}

static void *closes(void *argument)
{
    struct errand *errand = argument;

    errand->result = qnet_close(errand->conn);
    return NULL;
}

static void *far_sends(void *argument)
{
    struct errand *errand = argument;

    far_send_flow(errand->far, &errand->flow, MANY);
    return NULL;
}

/* Few frames find room. */
static qnet_conn *open_with_little_room(struct far *far)
{
    qnet_conn *conn = far_open(far);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 20000), QNET_OK);
    return conn;
}

/* The peer reads after a long while, and again after that: all frames come. */
static void far_takes_late(const struct far *far, unsigned count)
{
    struct flow seen = flow_of_one_size(&frame_size);

    raw_sleep_ms(LONG_MS);
    far_take_until(far, &seen, count / 2);
    raw_sleep_ms(LONG_MS);
    far_take_until(far, &seen, count);
}

static void check_all_sent(qnet_conn *conn, unsigned count)
{
    EVENTUALLY(stats_of(conn).tx_frames == count);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
}

static void senders_wait(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct errand sender;
        struct far far;
        qnet_conn *conn = open_with_little_room(&far);

        errand_start(&sender, sends, conn, way);
        far_takes_late(&far, MANY);
        join_thread(sender.thread);
        check_all_sent(conn, MANY);
        far_close(conn, &far);
    }
}

/* A time that was given passes, and nothing was lost in it. */
static void a_time_passes(void)
{
    struct flow sent = flow_of_one_size(&frame_size), seen = sent;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);
    int result;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, LONG_MS), QNET_OK);
    while ((result = flow_send(&sent, conn, 0, 1)) == 1)
        ;
    CHECK_INT(result, QNET_ERR_TIMEOUT);
    CHECK_INT(flow_send(&sent, conn, 0, 1), QNET_ERR_TIMEOUT);
    far_take_until(&far, &seen, sent.next);
    check_all_sent(conn, sent.next);
    far_close(conn, &far);
}

/* What was held back for others to join it is written by a flush, by the service thread, or a close. */
static void what_is_held_waits(void *(*body)(void *))
{
    enum { HELD = 50 };
    struct flow sent = flow_of_one_size(&frame_size);
    struct errand errand;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);

    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, body ? 1000000 : 10000), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    CHECK_INT(flow_send(&sent, conn, 0, HELD), HELD);
    if (body)
        errand_start(&errand, body, conn, 0);
    far_takes_late(&far, HELD);
    if (body) {
        join_thread(errand.thread);
        CHECK_INT(errand.result, QNET_OK);
    }
    if (body != closes) {
        check_all_sent(conn, HELD);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
    far_leaves(&far);
}

static void a_flush_waits(void)
{
    what_is_held_waits(flushes);
}

static void the_service_thread_waits(void)
{
    what_is_held_waits(NULL);
}

static void a_close_waits(void)
{
    what_is_held_waits(closes);
}

static void send_back(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

/* What a handler sends is corked, while more waits for it. */
static void a_handler_waits(void)
{
    struct errand writer;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);

    CHECK_INT(qnet_set_handler(conn, send_back, conn), QNET_OK);
    memset(&writer, 0, sizeof writer);
    writer.far = &far;
    writer.flow = flow_of_one_size(&frame_size);
    start_thread(&writer.thread, far_sends, &writer);
    far_takes_late(&far, MANY);
    join_thread(writer.thread);
    check_all_sent(conn, MANY);
    far_close(conn, &far);
}

/* Of a link the other side is not read meanwhile. */
static void a_link_waits(void)
{
    struct flow flow = flow_of_one_size(&frame_size);
    struct raw_job writer;
    struct far far;
    int fd;
    qnet_conn *conn = open_with_little_room(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow, 10 * MANY);
    far_takes_late(&far, 10 * MANY);
    join_thread(writer.thread);
    check_all_sent(conn, 10 * MANY);
    CHECK_INT(stats_of(stream).rx_frames, 10 * MANY);
    CHECK_INT(qnet_close(stream), QNET_OK);
    CHECK(close(fd) == 0);
    far_close(conn, &far);
}

/* In a hub as many wait as its queue has room for; no time takes them away. */
static void a_hubs_queue_waits(void)
{
    struct device device;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);
    qnet_hub *hub;
    unsigned i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (i = 0; i < MANY; i++)
        device_says(&device, EVERYBODY, frame_size);
    EVENTUALLY(stats_of(device.conn).rx_frames == MANY);
    is_idle();
    for (i = 0; i < MANY; i++)
        CHECK_INT(far_hears(&far).number, i);
    check_all_sent(conn, MANY);
    CHECK_INT(hub_stats_of(hub).dropped, 0);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    far_close(conn, &far);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(senders_wait, SEQUENCED);
    RUN_KINDS(a_time_passes, SEQUENCED);
    RUN_KINDS(a_flush_waits, SEQUENCED);
    RUN_KINDS(the_service_thread_waits, SEQUENCED);
    RUN_KINDS(a_close_waits, SEQUENCED);
    RUN_KINDS(a_handler_waits, SEQUENCED);
    RUN_KINDS(a_link_waits, SEQUENCED);
    RUN_KINDS(a_hubs_queue_waits, SEQUENCED);
    scratch_remove();
    return check_done();
}
