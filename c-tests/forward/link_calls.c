/*
 * link_calls.c - what may be called on a linked connection and what not, linking
 * and unlinking inside handlers, and by several threads at once.
 */
#include "cable.h"

static const size_t middle_frame = 1514;

/* ---- What a linked connection refuses, and what not ---- */

static void no_other_way_to_receive(void)
{
    struct cable cable = cable_plugged(), spare = cable_unplugged();
    qnet_conn *both[2];
    qnet_hub *hub;
    uint8_t ready[2] = { 7, 7 };
    int i;

    both[0] = cable.a;
    both[1] = cable.b;
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_poll(both, ready, 2, 0), 2);
    for (i = 0; i < 2; i++) {
        CHECK_INT(ready[i], 1);
        CHECK_INT(make_recv(both[i]), QNET_ERR_BUSY);
        CHECK_INT(make_recv_batch(both[i]), QNET_ERR_BUSY);
        CHECK_INT(make_recv_packed(both[i]), QNET_ERR_BUSY);
        CHECK_INT(qnet_set_handler(both[i], ignore_frame, NULL), QNET_ERR_BUSY);
        CHECK_INT(qnet_set_batch_handler(both[i], ignore_batch, NULL), QNET_ERR_BUSY);
        CHECK_INT(qnet_link(both[i], both[1 - i]), QNET_ERR_BUSY);
        CHECK_INT(qnet_link(both[i], spare.a), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": a (") != NULL);
        CHECK_INT(qnet_link(spare.a, both[i]), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": b (") != NULL);
        CHECK_INT(qnet_unlink(spare.a), QNET_ERR_INVALID);
        CHECK_INT(qnet_hub_attach(hub, both[i]), QNET_ERR_BUSY);
        CHECK(strstr(qnet_last_error(), ": conn (") != NULL);
        CHECK(strstr(qnet_last_error(), "the connection is attached or linked") != NULL);
        CHECK_INT(qnet_hub_detach(hub, both[i]), QNET_ERR_INVALID);
    }
    passes(cable.fa, cable.fb);
    CHECK_INT(recv_now(spare.a), QNET_ERR_AGAIN);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    cable_close(&cable);
    cable_close(&spare);
}

/* A call that waits on its own thread, and what it gave. */
struct waiter {
    pthread_t thread;
    int (*call)(qnet_conn *conn);
    qnet_conn *conn;
    int result;
};

static void *waiting(void *argument)
{
    struct waiter *waiter = argument;

    waiter->result = waiter->call(waiter->conn);
    return NULL;
}

/*
 * A call that waits for a frame when the link comes returns; one that waits for the end
 * goes on waiting.
 */
static void waiting_calls_are_told_of_a_link(void)
{
    static int (*const calls[])(qnet_conn *) = {
        make_recv, make_recv_batch, make_recv_packed, make_poll, make_wait,
    };
    static const int results[] = {
        QNET_ERR_BUSY, QNET_ERR_BUSY, QNET_ERR_BUSY, 1, QNET_OK,
    };
    struct cable cable = cable_unplugged();
    struct waiter waiters[5];
    int i;

    for (i = 0; i < 5; i++) {
        waiters[i].call = calls[i];
        waiters[i].conn = cable.a;
        start_thread(&waiters[i].thread, waiting, &waiters[i]);
    }
    raw_sleep_ms(20);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_OK);
    for (i = 0; i < 5; i++) {
        if (calls[i] == make_wait)
            CHECK(shutdown(cable.fa, SHUT_WR) == 0);
        join_thread(waiters[i].thread);
        CHECK_INT(waiters[i].result, results[i]);
    }
    cable_close(&cable);
}

/*
 * A connection that has a handler, or is attached to a hub, is not linked, and the other
 * one stays as it was.
 */
static void handled_and_attached_are_not_linked(void)
{
    struct cable cable = cable_unplugged();
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_set_handler(cable.a, ignore_frame, NULL), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_BUSY);
    CHECK_INT(qnet_set_handler(cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_BUSY);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_BUSY);
    CHECK_INT(qnet_unlink(cable.a), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    CHECK_INT(qnet_hub_detach(hub, cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    passes(cable.fa, cable.fb);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    passes(cable.fb, cable.fa);
    cable_close(&cable);
}

static void ended_connections_are_not_linked(void)
{
    struct cable cable = cable_unplugged(), broken = cable_unplugged();

    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_CLOSED);
    CHECK_INT(qnet_link(cable.b, cable.a), QNET_ERR_CLOSED);
    raw_write(broken.fa, "\377\377\377\377", 4);
    CHECK_INT(make_recv(broken.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_link(broken.a, cable.b), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_link(cable.b, broken.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    cable_close(&cable);
    cable_close(&broken);
}

static void handles_are_judged(void)
{
    struct cable cable = cable_unplugged();
    qnet_listener *listener;
    qnet_conn *wrong[3];
    int i;

    CHECK_INT(qnet_listen("tcp4", "127.0.0.1:0", &listener), QNET_OK);
    wrong[0] = NULL;
    wrong[1] = (qnet_conn *)(uintptr_t)4099;
    wrong[2] = (qnet_conn *)listener;
    for (i = 0; i < 3; i++) {
        CHECK_INT(qnet_link(wrong[i], cable.b), QNET_ERR_HANDLE);
        CHECK_INT(qnet_link(cable.b, wrong[i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_link(wrong[i], wrong[i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_unlink(wrong[i]), QNET_ERR_HANDLE);
    }
    CHECK_INT(qnet_link(cable.b, cable.b), QNET_ERR_INVALID);
    CHECK_INT(qnet_unlink(cable.b), QNET_ERR_INVALID);
    CHECK_INT(recv_now(cable.b), QNET_ERR_AGAIN);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    cable_close(&cable);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_ERR_HANDLE);
    CHECK_INT(qnet_unlink(cable.a), QNET_ERR_HANDLE);
}

/*
 * Handles are judged before other arguments: a stale one given twice is no handle, before
 * it is the same twice.
 */
static void stale_handles_that_are_the_same(void)
{
    struct cable cable = cable_unplugged();

    cable_close(&cable);
    CHECK_INT(qnet_link(cable.a, cable.a), QNET_ERR_HANDLE);
}

/* Sends by all ways, on a thread of its own. */
struct sender {
    pthread_t thread;
    qnet_conn *conn;
    struct flow flow;
    unsigned count;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    unsigned end = sender->flow.next + sender->count;
    int way = 0;

    while (sender->flow.next != end)
        CHECK_INT(flow_send(&sender->flow, sender->conn, way++ % WAYS_TO_SEND, 10), 10);
    return NULL;
}

/* The numbers of frames that are sent, not forwarded, have this bit. */
enum { OWN = 1 << 30 };

/* Reads `left` frames: the two flows are mixed, and each is in its own order. */
static void take_both(int fd, struct flow *linked, struct flow *own, unsigned left)
{
    static uint8_t frame[QNET_FRAME_MAX];

    for (; left > 0; left--) {
        long len = raw_recv(fd, frame, sizeof frame);

        CHECK(len >= 14);
        flow_take(frame[0] & OWN >> 24 ? own : linked, frame, (size_t)len);
    }
}

/*
 * What is sent on a linked connection goes to its own peer, each frame whole, between the
 * link's frames.
 */
static void sends_go_to_the_own_peer(void)
{
    unsigned count = 100 + (unsigned)rounds(3000), left = 2 * (count - count % 10);
    struct flow linked = flow_of_one_size(&long_frame), own = flow_of_one_size(&middle_frame);
    struct cable cable = cable_plugged();
    struct raw_job writer;
    struct sender sender;

    own.next = OWN;
    raw_start(&writer, raw_writing, cable.fa, linked, left / 2);
    sender.conn = cable.b;
    sender.flow = own;
    sender.count = left / 2;
    start_thread(&sender.thread, sending, &sender);
    take_both(cable.fb, &linked, &own, left);
    join_thread(writer.thread);
    join_thread(sender.thread);
    CHECK_INT(own.next - OWN, linked.next);
    CHECK_INT(bytes_waiting(cable.fa), 0);
    cable_close(&cable);
}

static void send_on(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

/*
 * So does what another connection's handler sends, which is corked, while the socket takes
 * parts of frames.
 */
static void corked_sends_go_to_the_own_peer(void)
{
    unsigned count = 1000 + (unsigned)rounds(60000);
    struct flow linked = flow_of_one_size(&long_frame), own = flow_of_small_frames();
    struct cable cable = cable_plugged();
    struct raw_job writer, other;
    int fd;
    qnet_conn *handled = raw_pair(&fd);

    own.next = OWN;
    CHECK_INT(qnet_set(cable.b, QNET_OPT_SNDBUF, 20000), QNET_OK);
    CHECK_INT(qnet_set_handler(handled, send_on, cable.b), QNET_OK);
    raw_start(&writer, raw_writing, cable.fa, linked, count);
    raw_start(&other, raw_writing, fd, own, count);
    take_both(cable.fb, &linked, &own, 2 * count);
    join_thread(writer.thread);
    join_thread(other.thread);
    CHECK_INT(own.next - OWN, linked.next);
    CHECK_INT(qnet_close(handled), QNET_OK);
    CHECK(close(fd) == 0);
    cable_close(&cable);
}

/* ---- Inside handlers ---- */

static int do_link(void *argument)
{
    const struct cable *cable = argument;

    return qnet_link(cable->a, cable->b);
}

static int do_unlink(void *argument)
{
    const struct cable *cable = argument;

    return qnet_unlink(cable->a);
}

static int do_link_twice(void *argument)
{
    const struct cable *cable = argument;

    CHECK_INT(qnet_link(cable->a, cable->b), QNET_OK);
    CHECK_INT(qnet_unlink(cable->b), QNET_OK);
    return qnet_link(cable->b, cable->a);
}

static void linked_and_unlinked_inside_a_handler(void)
{
    struct flow expected = flow_of_one_size(&long_frame);
    struct cable cable = cable_unplugged();
    struct raw_job writer;
    unsigned passed;

    inside_a_handler(do_link_twice, &cable);
    passes(cable.fa, cable.fb);
    hold_back(&writer, cable.fa);
    inside_a_handler(do_unlink, &cable);
    passed = (unsigned)stats_of(cable.a).rx_frames - 1;
    raw_take_until(cable.fb, &expected, passed);
    inside_a_handler(do_link, &cable);
    raw_take_until(cable.fb, &expected, MANY);
    join_thread(writer.thread);
    cable_close(&cable);
}

/* A handler that takes itself away after some frames, and links its connection. */
struct quitter {
    struct cable cable;
    struct flow flow;
    unsigned stay;   /* how many frames it takes */
    int dwell_ms;    /* how long it stays when it has linked */
    int back;        /* whether it unlinks then, and becomes the handler again */
    int done;
};

static void quitter_links(struct quitter *quitter)
{
    CHECK_INT(qnet_set_handler(quitter->cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_link(quitter->cable.a, quitter->cable.b), QNET_OK);
    raw_sleep_ms(quitter->dwell_ms);
    put(&quitter->done, 1);
}

static void quitter_frame(void *user, const uint8_t *frame, size_t len)
{
    struct quitter *quitter = user;

    flow_take(&quitter->flow, frame, len);
    if (quitter->flow.next != quitter->stay)
        return;
    quitter_links(quitter);
    if (quitter->back) {
        CHECK_INT(qnet_unlink(quitter->cable.b), QNET_OK);
        CHECK_INT(qnet_set_handler(quitter->cable.a, quitter_frame, user), QNET_OK);
    }
}

static void quitter_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct quitter *quitter = user;
    size_t i;

    for (i = 0; i < count; i++)
        flow_take(&quitter->flow, frames[i].data, frames[i].len);
    quitter_links(quitter);
}

static void quitter_init(struct quitter *quitter, unsigned stay, int dwell_ms)
{
    memset(quitter, 0, sizeof *quitter);
    quitter->cable = cable_unplugged();
    quitter->flow = flow_of_small_frames();
    quitter->stay = stay;
    quitter->dwell_ms = dwell_ms;
}

/*
 * The frames that the handler did not take go over the link, in order, also those that the
 * library holds.
 */
static void a_handler_gives_way_to_a_link(void)
{
    unsigned stay;
    int dwell_ms;

    for (stay = 1; stay < 30; stay += 7)
        for (dwell_ms = 0; dwell_ms <= 20; dwell_ms += 20) {
            struct flow sent = flow_of_small_frames();
            struct quitter quitter;

            quitter_init(&quitter, stay, dwell_ms);
            raw_send_flow(quitter.cable.fa, &sent, 200, 0);
            CHECK_INT(qnet_set_handler(quitter.cable.a, quitter_frame, &quitter), QNET_OK);
            EVENTUALLY(get(&quitter.done));
            raw_send_flow(quitter.cable.fa, &sent, 200, 0);
            CHECK_INT(quitter.flow.next, stay);
            raw_take_until(quitter.cable.fb, &quitter.flow, 400);
            cable_close(&quitter.cable);
        }
}

static void a_batch_handler_gives_way_to_a_link(void)
{
    struct flow sent = flow_of_small_frames();
    struct quitter quitter;

    quitter_init(&quitter, 0, 20);
    raw_send_flow(quitter.cable.fa, &sent, 20, 0);
    CHECK_INT(qnet_set_batch_handler(quitter.cable.a, quitter_batch, &quitter), QNET_OK);
    EVENTUALLY(get(&quitter.done));
    raw_send_flow(quitter.cable.fa, &sent, 200, 0);
    raw_take_until(quitter.cable.fb, &quitter.flow, 220);
    cable_close(&quitter.cable);
}

/*
 * A handler that links, unlinks and sets itself again before it returns gets all frames;
 * none was forwarded.
 */
static void a_handler_comes_back_from_a_link(void)
{
    struct flow sent = flow_of_small_frames();
    struct quitter quitter;

    quitter_init(&quitter, 5, 20);
    quitter.back = 1;
    raw_send_flow(quitter.cable.fa, &sent, 200, 0);
    CHECK_INT(qnet_set_handler(quitter.cable.a, quitter_frame, &quitter), QNET_OK);
    EVENTUALLY(stats_of(quitter.cable.a).rx_frames == 200);
    CHECK_INT(qnet_set_handler(quitter.cable.a, NULL, NULL), QNET_OK);
    CHECK_INT(quitter.flow.next, 200);
    CHECK_INT(stats_of(quitter.cable.b).tx_frames, 0);
    cable_close(&quitter.cable);
}

/* A connection is linked and has a handler in turn; every frame goes to the one that it has then. */
static void handlers_and_links_take_turns(void)
{
    struct flow sent = flow_of_small_frames(), expected = sent;
    struct cable cable = cable_unplugged();
    struct taker taker;
    int turn;

    for (turn = 0; turn < 20; turn++) {
        CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
        raw_send_flow(cable.fa, &sent, 10, 0);
        raw_take_until(cable.fb, &expected, sent.next);
        CHECK_INT(qnet_unlink(cable.a), QNET_OK);
        taker_start(&taker, cable.a, turn % 2 ? BY_HANDLER : BY_BATCH_HANDLER, flow_each,
                    &expected);
        raw_send_flow(cable.fa, &sent, 10, 0);
        taker_want(&taker, 10);
        CHECK_INT(qnet_set_handler(cable.a, NULL, NULL), QNET_OK);
        CHECK_INT(qnet_set_close_handler(cable.a, NULL, NULL), QNET_OK);
        pthread_mutex_destroy(&taker.lock);
    }
    cable_close(&cable);
}

/* ---- Several threads ---- */

enum { WORKERS = 4, CALLS = 30 };

enum {
    FINE = MAY(QNET_OK) | MAY(QNET_ERR_HANDLE),
    UNDONE = FINE | MAY(QNET_ERR_INVALID),
    REFUSED = FINE | MAY(QNET_ERR_BUSY) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_OS)
};

struct meddler {
    pthread_t thread;
    struct cable cable;
    unsigned state;
    int may_end;
};

/* Makes one call that changes the cable. */
static void meddle(struct meddler *meddler)
{
    const struct cable *cable = &meddler->cable;

    switch (next_random(&meddler->state) % (meddler->may_end ? 7 : 4)) {
    case 0:
        check_among(qnet_link(cable->a, cable->b), REFUSED);
        return;
    case 1:
        check_among(qnet_link(cable->b, cable->a), REFUSED);
        return;
    case 2:
        check_among(qnet_unlink(cable->a), UNDONE);
        return;
    case 3:
        check_among(qnet_unlink(cable->b), UNDONE);
        return;
    case 4:
        check_among(qnet_shutdown(cable->a), FINE);
        return;
    case 5:
        check_among(qnet_close(cable->b), FINE);
        return;
    default:
        check_among(qnet_close(cable->a), FINE);
    }
}

static void *meddling(void *argument)
{
    struct meddler *meddler = argument;
    int calls;

    for (calls = 0; calls < CALLS; calls++) {
        meddle(meddler);
        if (next_random(&meddler->state) % 4 == 0)
            raw_sleep_ms(1);
    }
    return NULL;
}

static void start_meddlers(struct meddler *meddlers, const struct cable *cable, unsigned seed,
                           int may_end)
{
    unsigned i;

    for (i = 0; i < WORKERS; i++) {
        meddlers[i].cable = *cable;
        meddlers[i].state = seed * WORKERS + i;
        meddlers[i].may_end = may_end;
        start_thread(&meddlers[i].thread, meddling, &meddlers[i]);
    }
}

static void join_meddlers(struct meddler *meddlers)
{
    int i;

    for (i = 0; i < WORKERS; i++)
        join_thread(meddlers[i].thread);
}

/* While several threads link and unlink, what goes through is whole and in order. */
static void several_threads_link_and_unlink(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000);
    struct flow flow = flow_of_small_frames();
    struct cable cable = cable_plugged();
    struct meddler meddlers[WORKERS];
    struct raw_job writers[2], readers[2];
    int i;

    for (i = 0; i < 2; i++) {
        raw_start(&writers[i], raw_writing, i ? cable.fb : cable.fa, flow, count);
        raw_start(&readers[i], raw_reading, i ? cable.fa : cable.fb, flow, count);
    }
    start_meddlers(meddlers, &cable, 1, 0);
    join_meddlers(meddlers);
    check_among(qnet_link(cable.a, cable.b), REFUSED);
    for (i = 0; i < 2; i++) {
        join_thread(writers[i].thread);
        join_thread(readers[i].thread);
    }
    cable_close(&cable);
}

/* Several threads end both sides in the middle of traffic: each close handler runs once. */
static void one_end_by_several_threads(unsigned seed)
{
    struct flow flow = flow_of_one_size(&middle_frame);
    struct ending a = { 0, 0, 0, 0 }, b = a;
    struct meddler meddlers[WORKERS];
    struct raw_job jobs[4];
    struct cable cable = cable_plugged();
    int i;

    CHECK_INT(qnet_set(cable.a, QNET_OPT_LINGER_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(cable.b, QNET_OPT_LINGER_MS, 0), QNET_OK);
    CHECK_INT(qnet_set_close_handler(cable.a, ending_told, &a), QNET_OK);
    CHECK_INT(qnet_set_close_handler(cable.b, ending_told, &b), QNET_OK);
    raw_start(&jobs[0], writing_until_the_end, cable.fa, flow, MANY);
    raw_start(&jobs[1], writing_until_the_end, cable.fb, flow, MANY);
    raw_start(&jobs[2], reading_until_the_end, cable.fa, flow, 0);
    raw_start(&jobs[3], reading_until_the_end, cable.fb, flow, 0);
    start_meddlers(meddlers, &cable, seed, 1);
    join_meddlers(meddlers);
    check_among(qnet_close(cable.a), FINE);
    check_among(qnet_close(cable.b), FINE);
    for (i = 0; i < 4; i++)
        join_thread(jobs[i].thread);
    EVENTUALLY(get(&a.ends) == 1);
    EVENTUALLY(get(&b.ends) == 1);
    CHECK(close(cable.fa) == 0 && close(cable.fb) == 0);
}

static void several_threads_end_links(void)
{
    struct footprint before = footprint_now();
    int round;

    for (round = 0; round < rounds(100); round++)
        one_end_by_several_threads((unsigned)round);
    footprint_again(before);
}

int main(void)
{
    RUN(no_other_way_to_receive);
    RUN(waiting_calls_are_told_of_a_link);
    RUN(handled_and_attached_are_not_linked);
    RUN(ended_connections_are_not_linked);
    RUN(handles_are_judged);
    RUN(stale_handles_that_are_the_same);
    RUN(sends_go_to_the_own_peer);
    RUN(corked_sends_go_to_the_own_peer);
    RUN(linked_and_unlinked_inside_a_handler);
    RUN(a_handler_gives_way_to_a_link);
    RUN(a_batch_handler_gives_way_to_a_link);
    RUN(a_handler_comes_back_from_a_link);
    RUN(handlers_and_links_take_turns);
    RUN(several_threads_link_and_unlink);
    RUN(several_threads_end_links);
    return check_done();
}
