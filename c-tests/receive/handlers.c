/*
 * handlers.c - frames that come to a handler: which ones it gets when it is set and
 * removed, on which thread it runs, and what it may do itself.
 */
#include <sched.h>

#include "receiving.h"

/* While a handler is set, every other receive fails with BUSY. */
static void handled_is_busy(void)
{
    uint8_t buffer[100], ready = 0;
    qnet_frame frame;
    int batch, fd;

    for (batch = 0; batch < 2; batch++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, BY_HANDLER + batch, flow_each, &expected);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv_batch(conn, &frame, 1, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv_packed(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
        CHECK_INT(ready, 1);
        raw_send_flow(fd, &flow, 2, 0);
        taker_want(&taker, 2);
        remove_handler(conn);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
        raw_send_flow(fd, &flow, 1, 0);
        taker.way = BY_RECV;
        taker_want(&taker, 3);
        taker_close(&taker);
        close(fd);
    }
}

/* A receive that waits when a handler is set returns BUSY. */
static void handler_takes_over(void)
{
    static int (*const calls[])(qnet_conn *) = { call_recv, call_recv_batch, call_recv_packed };
    int i, fd;

    for (i = 0; i < 3; i++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct caller caller;
        struct taker taker;
        qnet_conn *conn = link_open(&fd);

        caller_start(&caller, calls[i], conn);
        raw_sleep_ms(20);
        CHECK(!caller_done(&caller));
        taker_start(&taker, conn, BY_HANDLER, flow_each, &expected);
        CHECK_INT(caller_result(&caller), QNET_ERR_BUSY);
        raw_send_flow(fd, &flow, 3, 0);
        taker_want(&taker, 3);
        taker_close(&taker);
        close(fd);
    }
}

/* Removing a handler where there is none changes nothing. */
static void no_handler_to_remove(void)
{
    struct flow flow = flow_of_small_frames(), expected = flow;
    struct taker taker;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    remove_handler(conn);
    CHECK_INT(qnet_set_batch_handler(conn, NULL, NULL), QNET_OK);
    raw_send_flow(fd, &flow, 3, 0);
    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    taker_want(&taker, 3);
    taker_close(&taker);
}

/* A handler first gets the frames that the library has read for a pull and still holds. */
static void handler_after_a_pull(void)
{
    int way;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct taker taker;
        uint8_t buffer[100];
        int fd, len;
        qnet_conn *conn = raw_pair(&fd);

        raw_send_flow(fd, &flow, 5, 0);
        len = qnet_recv(conn, buffer, sizeof buffer, -1);
        CHECK_INT(len, flow_size(&flow, 0));
        flow_take(&expected, buffer, (size_t)len);
        taker_start(&taker, conn, way, flow_each, &expected);
        taker_want(&taker, 4);
        taker_close(&taker);
        close(fd);
    }
}

/* A handler that is set after the peer has left gets the frames that wait, then the end. */
static void handler_after_the_peer_left(void)
{
    int held, batch;

    for (held = 0; held < 2; held++)
        for (batch = 0; batch < 2; batch++) {
            struct flow flow = flow_of_small_frames(), expected = flow;
            uint8_t buffer[100];
            struct taker taker;
            int fd;
            qnet_conn *conn = link_open(&fd);

            raw_send_flow(fd, &flow, 5, 0);
            close(fd);
            CHECK_INT(qnet_wait(conn, -1), 0);
            if (held) {
                CHECK(qnet_recv(conn, buffer, sizeof buffer, -1) > 0);
                expected.next++;
            }
            taker_start(&taker, conn, BY_HANDLER + batch, flow_each, &expected);
            CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
            CHECK_INT(taker_count(&taker), 5 - held);
            taker_close(&taker);
        }
}

/* A handler that is set after the end was reported, or after a shutdown, is refused. */
static void handler_after_the_end(void)
{
    static const struct {
        void (*prepare)(qnet_conn *conn, int fd);
        int reason;
    } cases[] = {
        { prepare_shutdown, QNET_ERR_CLOSED },
        { prepare_leaving, QNET_ERR_CLOSED },
        { prepare_leaving_inside, QNET_ERR_PROTOCOL },
        { prepare_broken_length, QNET_ERR_PROTOCOL },
    };
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&taker, conn, BY_RECV, flow_each, NULL);
        cases[i].prepare(conn, fd);
        CHECK_INT(qnet_recv(conn, NULL, 0, -1), cases[i].reason);
        CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), cases[i].reason);
        CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), cases[i].reason);
        taker_close(&taker);
        close(fd);
    }
}

static void handler_after_shutdown(void)
{
    struct flow flow = flow_of_small_frames();
    struct taker taker;
    int fd;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, NULL);
    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_ERR_CLOSED);
    CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), QNET_ERR_CLOSED);
    CHECK_INT(taker_count(&taker), 0);
    taker_close(&taker);
}

/* The way to receive changes all the time: no frame is lost, repeated or out of order. */
static void ways_change_under_load(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000), seen;
    struct flow expected = flow_of_small_frames();
    struct raw_job writer;
    struct taker taker;
    int fd, turn, result;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    raw_start(&writer, random_writes, fd, expected, count);
    for (turn = 0; (seen = taker_count(&taker)) < count; turn++) {
        long long until = raw_now_ms() + 3;

        if (turn % 4 == 0 || turn % 4 == 2)
            CHECK_INT(qnet_set_handler(conn, taker_frame, &taker), QNET_OK);
        if (turn % 4 == 1 || turn % 4 == 2)
            CHECK_INT(qnet_set_batch_handler(conn, taker_batch, &taker), QNET_OK);
        while (turn % 4 != 3 && taker_count(&taker) == seen && raw_now_ms() < until)
            sched_yield();
        remove_handler(conn);
        seen = taker_count(&taker);
        taker.way = turn / 4 % WAYS_TO_PULL;
        result = taker_pull(&taker, 1);
        CHECK(result > 0 || result == QNET_ERR_TIMEOUT);
        CHECK_INT(taker_count(&taker), seen + (result > 0 ? (unsigned)result : 0));
    }
    CHECK_INT(expected.next, count);
    CHECK_INT(stats_of(conn).rx_frames, count);
    join_thread(writer.thread);
    close(fd);
    taker.way = BY_RECV;
    CHECK_INT(taker_end(&taker), QNET_ERR_CLOSED);
    taker_close(&taker);
}

/* The user of a handler, which is alive only while that is the connection's handler. */
struct owner {
    struct taker *taker; /* where all the owners' frames go */
    char room[64];
    int alive;
};

static struct owner *new_owner(struct taker *taker)
{
    struct owner *owner = allocate(sizeof *owner);

    owner->taker = taker;
    owner->alive = 1;
    return owner;
}

static void free_owner(struct owner *owner)
{
    if (owner)
        owner->alive = 0;
    free(owner);
}

static void owner_frame(void *user, const uint8_t *frame, size_t len)
{
    struct owner *owner = user;

    CHECK(owner->alive == 1);
    taker_frame(owner->taker, frame, len);
    CHECK(owner->alive == 1);
}

static void owner_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        owner_frame(user, frames[i].data, frames[i].len);
}

/* Once qnet_set_handler() has returned, the handler before does not use its user any more. */
static void user_freed_under_load(void)
{
    unsigned count = 1000 + (unsigned)rounds(20000);
    struct flow expected = flow_of_small_frames();
    struct owner *owner = NULL, *next;
    struct raw_job writer;
    struct taker taker;
    int fd, turn;
    qnet_conn *conn = link_open(&fd);

    taker_start(&taker, conn, BY_RECV, flow_each, &expected);
    raw_start(&writer, random_writes, fd, expected, count);
    for (turn = 0; taker_count(&taker) < count; turn++) {
        next = turn % 5 == 4 ? NULL : new_owner(&taker);
        if (turn % 5 == 4)
            remove_handler(conn);
        else if (turn % 5 == 2)
            CHECK_INT(qnet_set_batch_handler(conn, owner_batch, next), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(conn, owner_frame, next), QNET_OK);
        free_owner(owner);
        owner = next;
        sched_yield();
    }
    remove_handler(conn);
    free_owner(owner);
    CHECK_INT(expected.next, count);
    join_thread(writer.thread);
    taker_close(&taker);
}

/* A handler that removes or replaces itself at its third frame. */
struct changer {
    struct taker *taker;
    void (*change)(struct changer *changer);
    unsigned seen;
    int changed;
};

static void change_to_none(struct changer *changer)
{
    remove_handler(changer->taker->conn);
}

static void change_to_handler(struct changer *changer)
{
    CHECK_INT(qnet_set_handler(changer->taker->conn, taker_frame, changer->taker), QNET_OK);
}

static void change_to_batch_handler(struct changer *changer)
{
    CHECK_INT(qnet_set_batch_handler(changer->taker->conn, taker_batch, changer->taker), QNET_OK);
}

static void changer_take(struct changer *changer, const uint8_t *frame, size_t len)
{
    pthread_mutex_lock(&changer->taker->lock);
    flow_take(changer->taker->argument, frame, len);
    changer->seen++;
    pthread_mutex_unlock(&changer->taker->lock);
}

static void changer_note(struct changer *changer)
{
    changer->change(changer);
    pthread_mutex_lock(&changer->taker->lock);
    changer->changed = 1;
    pthread_mutex_unlock(&changer->taker->lock);
}

static int changer_changed(struct changer *changer)
{
    int changed;

    pthread_mutex_lock(&changer->taker->lock);
    changed = changer->changed;
    pthread_mutex_unlock(&changer->taker->lock);
    return changed;
}

static void changer_frame(void *user, const uint8_t *frame, size_t len)
{
    struct changer *changer = user;

    CHECK(!changer_changed(changer));
    changer_take(changer, frame, len);
    if (changer->seen == 3)
        changer_note(changer);
}

static void changer_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct changer *changer = user;
    size_t i;

    CHECK(!changer_changed(changer));
    for (i = 0; i < count; i++)
        changer_take(changer, frames[i].data, frames[i].len);
    changer_note(changer);
}

/*
 * A handler that removes or replaces itself is not called again. Whatever receives after
 * it begins with the next frame, though the library had read that already.
 */
static void handler_changes_itself(void)
{
    static const struct {
        void (*change)(struct changer *);
        int way;
    } cases[] = {
        { change_to_none, BY_RECV },
        { change_to_none, BY_RECV_BATCH },
        { change_to_none, BY_RECV_PACKED },
        { change_to_handler, BY_HANDLER },
        { change_to_batch_handler, BY_BATCH_HANDLER },
    };
    int i, batch;

    for (i = 0; i < 2 * (int)(sizeof cases / sizeof *cases); i++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct changer changer;
        struct taker taker;
        int fd;
        qnet_conn *conn = link_open(&fd);

        batch = i % 2;
        taker_start(&taker, conn, BY_RECV, flow_each, &expected);
        memset(&changer, 0, sizeof changer);
        changer.taker = &taker;
        changer.change = cases[i / 2].change;
        raw_send_flow(fd, &flow, 10, 0);
        if (batch)
            CHECK_INT(qnet_set_batch_handler(conn, changer_batch, &changer), QNET_OK);
        else
            CHECK_INT(qnet_set_handler(conn, changer_frame, &changer), QNET_OK);
        EVENTUALLY(changer_changed(&changer));
        raw_send_flow(fd, &flow, 10, 0);
        taker.way = cases[i / 2].way;
        taker_want(&taker, 20 - changer.seen);
        CHECK(batch || changer.seen == 3);
        taker_close(&taker);
        close(fd);
    }
}

/* A handler that pulls from its own connection. */
struct puller {
    struct taker taker;
    int running;
};

static void pulling_frame(void *user, const uint8_t *frame, size_t len);
static void pulling_batch(void *user, const qnet_frame *frames, size_t count);

static void puller_runs(struct puller *puller, int running)
{
    pthread_mutex_lock(&puller->taker.lock);
    puller->running = running;
    pthread_mutex_unlock(&puller->taker.lock);
}

/* Whether all frames have come and the last call has returned. */
static int puller_is_done(struct puller *puller, unsigned count)
{
    int done;

    pthread_mutex_lock(&puller->taker.lock);
    done = puller->taker.frames == count && !puller->running;
    pthread_mutex_unlock(&puller->taker.lock);
    return done;
}

/*
 * Called in the handler: removes it, pulls what comes next, and sets the other kind of
 * handler.
 */
static void pull_inside(struct puller *puller, int batch)
{
    qnet_conn *conn = puller->taker.conn;
    int result;

    CHECK_INT(qnet_recv(conn, NULL, 0, -1), QNET_ERR_BUSY);
    remove_handler(conn);
    result = taker_pull(&puller->taker, 0);
    CHECK(result > 0 || result == QNET_ERR_AGAIN);
    if (batch)
        CHECK_INT(qnet_set_handler(conn, pulling_frame, puller), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(conn, pulling_batch, puller), QNET_OK);
}

static void pulling_frame(void *user, const uint8_t *frame, size_t len)
{
    struct puller *puller = user;
    unsigned number = frame_number(frame, len);

    puller_runs(puller, 1);
    taker_frame(&puller->taker, frame, len);
    pull_inside(puller, 0);
    CHECK_INT(frame_number(frame, len), number);
    puller_runs(puller, 0);
}

static void pulling_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct puller *puller = user;
    unsigned number = frame_number(frames[0].data, frames[0].len);

    puller_runs(puller, 1);
    taker_batch(&puller->taker, frames, count);
    pull_inside(puller, 1);
    check_loans(frames, (int)count, number);
    puller_runs(puller, 0);
}

/* A handler that has removed itself may pull, and its own frames stay valid meanwhile. */
static void handler_pulls_on_its_own(void)
{
    unsigned count = 20 + (unsigned)rounds(2000);
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow expected = flow_of_small_frames();
        struct raw_job writer;
        struct puller puller;
        int fd;
        qnet_conn *conn = link_open(&fd);

        taker_start(&puller.taker, conn, way, flow_each, &expected);
        puller.running = 0;
        CHECK_INT(qnet_set_handler(conn, pulling_frame, &puller), QNET_OK);
        raw_start(&writer, random_writes, fd, expected, count);
        EVENTUALLY(puller_is_done(&puller, count));
        join_thread(writer.thread);
        taker_close(&puller.taker);
        close(fd);
    }
}

/* The thread that a handler runs on, and a gate to hold it up. */
struct place_of_work {
    pthread_mutex_t lock;
    pthread_t thread;
    unsigned calls;
    int running;
    int let_go; /* a handler call waits until it is set */
};

static int work_field(struct place_of_work *work, int *field)
{
    int value;

    pthread_mutex_lock(&work->lock);
    value = *field;
    pthread_mutex_unlock(&work->lock);
    return value;
}

static void work_frame(void *user, const uint8_t *frame, size_t len)
{
    struct place_of_work *work = user;

    (void)frame;
    (void)len;
    pthread_mutex_lock(&work->lock);
    CHECK(!work->running);
    CHECK(work->calls == 0 || pthread_equal(work->thread, pthread_self()));
    work->thread = pthread_self();
    work->calls++;
    work->running = 1;
    pthread_mutex_unlock(&work->lock);
    EVENTUALLY(work_field(work, &work->let_go));
    pthread_mutex_lock(&work->lock);
    work->running = 0;
    pthread_mutex_unlock(&work->lock);
}

static void let_go(struct place_of_work *work)
{
    pthread_mutex_lock(&work->lock);
    work->let_go = 1;
    pthread_mutex_unlock(&work->lock);
}

static unsigned work_calls(struct place_of_work *work)
{
    unsigned calls;

    pthread_mutex_lock(&work->lock);
    calls = work->calls;
    pthread_mutex_unlock(&work->lock);
    return calls;
}

/* Each connection's handler has a thread of its own: one does not hold up the other. */
static void handlers_have_their_own_threads(void)
{
    struct place_of_work work[2];
    struct flow flow = flow_of_small_frames();
    qnet_conn *conns[2];
    int i, fd;

    memset(work, 0, sizeof work);
    for (i = 0; i < 2; i++) {
        CHECK_INT(pthread_mutex_init(&work[i].lock, NULL), 0);
        conns[i] = link_open(&fd);
        CHECK_INT(qnet_set_handler(conns[i], work_frame, &work[i]), QNET_OK);
        raw_send_flow(fd, &flow, 5, 0);
        EVENTUALLY(work_field(&work[i], &work[i].running));
    }
    CHECK(work_field(&work[0], &work[0].running));
    CHECK(!pthread_equal(work[0].thread, work[1].thread));
    CHECK(!pthread_equal(work[0].thread, pthread_self()));
    for (i = 1; i >= 0; i--) {
        let_go(&work[i]);
        EVENTUALLY(work_calls(&work[i]) == 5);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        CHECK(!work[i].running);
    }
}

static void work_then_take(void *user, const uint8_t *frame, size_t len)
{
    struct taker *taker = user;

    taker_frame(taker, frame, len);
    work_frame(taker->argument, frame, len);
}

/*
 * Without QNET_OPT_WAIT, a handler is removed while its last call still runs. The frames
 * that the library holds after that call's frame are the next to be pulled all the same.
 */
static void pull_beside_a_removed_handler(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct place_of_work work;
        struct taker taker, puller;
        int fd, result;
        qnet_conn *conn = link_open(&fd);

        memset(&work, 0, sizeof work);
        CHECK_INT(pthread_mutex_init(&work.lock, NULL), 0);
        taker_start(&taker, conn, BY_RECV, ignore_frame, &work);
        taker_start(&puller, conn, way, flow_each, &expected);
        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 0), QNET_OK);
        raw_send_flow(fd, &flow, 10, 0);
        CHECK_INT(qnet_set_handler(conn, work_then_take, &taker), QNET_OK);
        EVENTUALLY(work_field(&work, &work.running));
        remove_handler(conn);
        CHECK(work_field(&work, &work.running));
        CHECK_INT(taker_count(&taker), 1);

        expected.next = 1;
        result = taker_pull(&puller, 0);
        CHECK(result > 0 || result == QNET_ERR_AGAIN);
        let_go(&work);
        taker_want(&puller, 9);
        CHECK_INT(taker_pull(&puller, 0), QNET_ERR_AGAIN);
        CHECK_INT(taker_count(&taker), 1);
        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, 1), QNET_OK);
        taker_close(&puller);
        close(fd);
    }
}

/*
 * A handler that pulls what comes after its first frame, and the plain socket at the
 * other end.
 */
struct heir {
    struct taker taker;
    int fd, done;
};

static void *write_later(void *argument)
{
    struct heir *heir = argument;
    struct flow flow = flow_of_small_frames();

    raw_sleep_ms(30);
    flow.next = 3;
    raw_send_flow(heir->fd, &flow, 1, 0);
    return NULL;
}

static void poll_and_pull_inside(void *user, const uint8_t *frame, size_t len)
{
    struct heir *heir = user;
    qnet_conn *conn = heir->taker.conn;
    uint8_t buffer[2000], ready = 0;
    pthread_t writer;

    taker_frame(&heir->taker, frame, len);
    remove_handler(conn);
    CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
    CHECK_INT(ready, 1);
    taker_want(&heir->taker, 3);
    CHECK_INT(qnet_poll(&conn, &ready, 1, 0), 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    start_thread(&writer, write_later, heir);
    if (heir->taker.way == BY_RECV) {
        CHECK_INT(qnet_poll(&conn, &ready, 1, -1), 1);
        CHECK_INT(ready, 1);
    }
    taker_want(&heir->taker, 4);
    join_thread(writer);
    __atomic_store_n(&heir->done, 1, __ATOMIC_SEQ_CST);
}

/* In a handler that has removed itself, polls and receives find what is there and what comes. */
static void handler_polls_on_its_own(void)
{
    int way;

    for (way = 0; way < WAYS_TO_PULL; way++) {
        struct flow flow = flow_of_small_frames(), expected = flow;
        struct heir heir;
        qnet_conn *conn = link_open(&heir.fd);

        heir.done = 0;
        taker_start(&heir.taker, conn, way, flow_each, &expected);
        raw_send_flow(heir.fd, &flow, 3, 0);
        CHECK_INT(qnet_set_handler(conn, poll_and_pull_inside, &heir), QNET_OK);
        EVENTUALLY(__atomic_load_n(&heir.done, __ATOMIC_SEQ_CST));
        taker_close(&heir.taker);
        close(heir.fd);
    }
}

/*
 * A frame handler and a close handler that wait to be let go, and whether the first is
 * removed.
 */
struct held_up {
    qnet_conn *conn;
    int in_frame, frame_may_go, in_close, close_may_go, is_removed;
};

static int held_field(int *field)
{
    return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

static void set_held(int *field)
{
    __atomic_store_n(field, 1, __ATOMIC_SEQ_CST);
}

static void held_frame(void *user, const uint8_t *frame, size_t len)
{
    struct held_up *held = user;

    (void)frame;
    (void)len;
    set_held(&held->in_frame);
    EVENTUALLY(held_field(&held->frame_may_go));
}

static void held_close(void *user, int reason)
{
    struct held_up *held = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    set_held(&held->in_close);
    EVENTUALLY(held_field(&held->close_may_go));
}

static void *remove_held(void *argument)
{
    struct held_up *held = argument;

    CHECK_INT(qnet_set_handler(held->conn, NULL, NULL), QNET_OK);
    set_held(&held->is_removed);
    return NULL;
}

/* Removing a frame handler waits for its call, and not for the close handler's after it. */
static void removing_waits_for_frames_alone(void)
{
    struct flow flow = flow_of_small_frames();
    struct held_up held;
    pthread_t remover;
    int fd;

    memset(&held, 0, sizeof held);
    held.conn = raw_pair(&fd);
    CHECK_INT(qnet_set_close_handler(held.conn, held_close, &held), QNET_OK);
    CHECK_INT(qnet_set_handler(held.conn, held_frame, &held), QNET_OK);
    raw_send_flow(fd, &flow, 1, 0);
    EVENTUALLY(held_field(&held.in_frame));
    start_thread(&remover, remove_held, &held);
    /* The handler is removed, while its call still runs. */
    EVENTUALLY(qnet_recv(held.conn, NULL, 0, 0) == QNET_ERR_AGAIN);
    CHECK_INT(qnet_shutdown(held.conn), QNET_OK);
    CHECK(!held_field(&held.is_removed));
    set_held(&held.frame_may_go);
    EVENTUALLY(held_field(&held.in_close));
    EVENTUALLY(held_field(&held.is_removed));
    set_held(&held.close_may_go);
    join_thread(remover);
    CHECK_INT(qnet_close(held.conn), QNET_OK);
    close(fd);
}

int main(void)
{
    RUN_EACH(handled_is_busy);
    RUN_EACH(handler_takes_over);
    RUN(no_handler_to_remove);
    RUN(handler_after_a_pull);
    RUN_EACH(handler_after_the_peer_left);
    RUN_EACH(handler_after_the_end);
    RUN_EACH(handler_after_shutdown);
    RUN_EACH(ways_change_under_load);
    RUN_EACH(user_freed_under_load);
    RUN_EACH(handler_changes_itself);
    RUN_EACH(handler_pulls_on_its_own);
    RUN_EACH(handlers_have_their_own_threads);
    RUN_EACH(pull_beside_a_removed_handler);
    RUN_EACH(handler_polls_on_its_own);
    RUN(removing_waits_for_frames_alone);
    return check_done();
}
