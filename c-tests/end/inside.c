/*
 * inside.c - what a handler may do to connections, its own and others: end
 * them, close them, and wait for them.
 */
#include "watch.h"

/* A handled connection whose first handler call does something. */
struct actor {
    qnet_conn *own;
    qnet_conn *other;
    int other_fd;
    struct watch *watch; /* watches the other connection */
    int (*act)(struct actor *actor);
    int *arrived;
    int calls;
    int ends;
    int result;
    int acted;
    int thread;
};

static void actor_acts(struct actor *actor)
{
    CHECK_INT(get(&actor->ends), 0);
    if (count_up(&actor->calls) > 1)
        return;
    put(&actor->thread, this_thread());
    put(&actor->result, actor->act(actor));
    put(&actor->acted, 1);
}

static void actor_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    actor_acts(user);
}

static void actor_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    actor_acts(user);
}

static void actor_end(void *user, int reason)
{
    struct actor *actor = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(this_thread(), get(&actor->thread));
    CHECK(get(&actor->acted));
    count_up(&actor->ends);
}

/* Sets the handlers; if frames are waiting already, the actor acts at once. */
static void actor_start(struct actor *actor, int mode)
{
    CHECK_INT(qnet_set_close_handler(actor->own, actor_end, actor), QNET_OK);
    if (mode == BY_HANDLER)
        CHECK_INT(qnet_set_handler(actor->own, actor_frame, actor), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(actor->own, actor_batch, actor), QNET_OK);
}

static int close_own(struct actor *actor)
{
    return qnet_close(actor->own);
}

static int shutdown_own(struct actor *actor)
{
    return qnet_shutdown(actor->own);
}

static int wait_own(struct actor *actor)
{
    return qnet_wait(actor->own, -1);
}

static int send_own(struct actor *actor)
{
    uint8_t frame[60];

    frame_make(frame, sizeof frame, 0);
    return qnet_send(actor->own, frame, sizeof frame);
}

static int close_other(struct actor *actor)
{
    return qnet_close(actor->other);
}

static int shutdown_other(struct actor *actor)
{
    return qnet_shutdown(actor->other);
}

/* Waits for the other connection's end and its close handler: returns how often that ran. */
static int wait_other(struct actor *actor)
{
    int result = qnet_wait(actor->other, 20);

    if (result != QNET_ERR_TIMEOUT)
        return result;
    go_half(actor->other_fd, actor->other);
    result = qnet_wait(actor->other, -1);
    return result == QNET_OK ? taker_ends(&actor->watch->taker) : result;
}

static const struct {
    const char *name;
    int (*act)(struct actor *actor);
    int result;
    int ends;
    int closes;
} own_acts[] = {
    { "close", close_own, QNET_OK, 1, 1 },
    { "shutdown", shutdown_own, QNET_OK, 1, 0 },
    { "send", send_own, QNET_OK, 0, 0 },
    { "wait", wait_own, QNET_ERR_BUSY, 0, 0 },
};
enum { OWN_ACTS = sizeof own_acts / sizeof *own_acts };

/* After the act no further handler call begins, and the close handler comes last. */
static void own_act_ended(struct actor *actor, int fd)
{
    EVENTUALLY(get(&actor->ends) == 1);
    CHECK(raw_ended(fd));
    CHECK_INT(get(&actor->calls), 1);
    CHECK_INT(get(&actor->ends), 1);
}

static void own_act_goes_on(struct actor *actor, int fd, int answers)
{
    struct flow flow = flow_of_small_frames();
    size_t size = 60;
    struct flow answer = flow_of_one_size(&size);
    int calls = get(&actor->calls);

    if (answers)
        raw_take(fd, &answer);
    raw_send_flow(fd, &flow, 1, 0);
    EVENTUALLY(get(&actor->calls) > calls);
    CHECK_INT(get(&actor->ends), 0);
}

static void handler_acts_on_its_own(void)
{
    struct footprint before = footprint_now();
    int fd, i, mode;

    for (i = 0; i < OWN_ACTS; i++) {
        for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
            struct actor actor;
            qnet_conn *conn = raw_pair(&fd);

            scene("handler's own connection", own_acts[i].name, mode);
            memset(&actor, 0, sizeof actor);
            actor.own = conn;
            actor.act = own_acts[i].act;
            send_some(fd);
            actor_start(&actor, mode);
            EVENTUALLY(get(&actor.acted));
            CHECK_INT(get(&actor.result), own_acts[i].result);
            if (own_acts[i].ends)
                own_act_ended(&actor, fd);
            else
                own_act_goes_on(&actor, fd, own_acts[i].act == send_own);
            CHECK_INT(qnet_close(conn), own_acts[i].closes ? QNET_ERR_HANDLE : QNET_OK);
            CHECK_INT(get(&actor.ends), 1);
            close(fd);
        }
    }
    footprint_again(before);
}

/* An actor that acts on another connection, which is received from in `mode`. */
struct two {
    struct actor actor;
    struct watch other;
    int fd;
    int other_fd;
};

static void two_start(struct two *two, int (*act)(struct actor *), int mode, int stuck)
{
    memset(&two->actor, 0, sizeof two->actor);
    two->actor.own = raw_pair(&two->fd);
    two->actor.other = raw_pair(&two->other_fd);
    two->actor.other_fd = two->other_fd;
    two->actor.watch = &two->other;
    two->actor.act = act;
    if (stuck) {
        send_some(two->other_fd);
        watch_start_stuck(&two->other, two->actor.other, mode);
    } else {
        watch_start(&two->other, two->actor.other, mode);
    }
    send_some(two->fd);
    actor_start(&two->actor, BY_HANDLER);
    EVENTUALLY(get(&two->actor.acted));
}

static void two_end(struct two *two)
{
    CHECK_INT(qnet_close(two->actor.own), QNET_OK);
    qnet_close(two->actor.other);
    close(two->fd);
    close(two->other_fd);
}

/*
 * The other's close handler runs inside the call, but on the other's own thread
 * if it has a handler.
 */
static void handler_ends_another(void)
{
    static const struct {
        const char *name;
        int (*act)(struct actor *actor);
    } acts[] = { { "close", close_other }, { "shutdown", shutdown_other } };
    struct footprint before = footprint_now();
    struct two two;
    int i, mode, where;

    for (i = 0; i < 2; i++) {
        for (mode = 0; mode < MODES; mode++) {
            scene("handler ends another", acts[i].name, mode);
            two_start(&two, acts[i].act, mode, 0);
            CHECK_INT(get(&two.actor.result), QNET_OK);
            EVENTUALLY(taker_ends(&two.other.taker) == 1);
            where = get(&two.other.end_thread);
            CHECK((where == get(&two.actor.thread)) == !handled(mode));
            CHECK(raw_ended(two.other_fd));
            CHECK_INT(qnet_close(two.actor.other), i == 0 ? QNET_ERR_HANDLE : QNET_OK);
            two_end(&two);
            CHECK_INT(taker_ends(&two.other.taker), 1);
        }
    }
    footprint_again(before);
}

/* A close inside a handler does not wait for the other connection's handler, which is in a call. */
static void handler_closes_another_in_a_call(void)
{
    struct footprint before = footprint_now();
    struct two two;
    int mode;

    for (mode = BY_HANDLER; mode <= BY_BATCH_HANDLER; mode++) {
        two_start(&two, close_other, mode, 1);
        CHECK_INT(get(&two.actor.result), QNET_OK);
        CHECK_INT(get(&two.other.returned), 0);
        CHECK_INT(taker_ends(&two.other.taker), 0);
        put(&two.other.shut, 0);
        EVENTUALLY(taker_ends(&two.other.taker) == 1);
        CHECK_INT(get(&two.other.calls), 1);
        two_end(&two);
    }
    footprint_again(before);
}

static void handler_waits_for_another(void)
{
    struct footprint before = footprint_now();
    struct two two;
    int mode;

    for (mode = 0; mode < MODES; mode++) {
        scene("handler waits", "for another", mode);
        two_start(&two, wait_other, mode, 0);
        CHECK_INT(get(&two.actor.result), handled(mode) ? 1 : 0);
        two_end(&two);
    }
    footprint_again(before);
}

/* Closes the other connection once both handlers are in a call. */
static int meet_and_close(struct actor *actor)
{
    count_up(actor->arrived);
    EVENTUALLY(get(actor->arrived) == 2);
    return qnet_close(actor->other);
}

static void two_handlers_close_each_other(void)
{
    struct footprint before = footprint_now();
    struct actor actors[2];
    int fds[2], arrived, i, round;

    for (round = rounds(100); round > 0; round--) {
        memset(actors, 0, sizeof actors);
        put(&arrived, 0);
        for (i = 0; i < 2; i++)
            actors[i].own = actors[1 - i].other = raw_pair(&fds[i]);
        for (i = 0; i < 2; i++) {
            actors[i].act = meet_and_close;
            actors[i].arrived = &arrived;
            send_some(fds[i]);
            actor_start(&actors[i], i == 0 ? BY_HANDLER : BY_BATCH_HANDLER);
        }
        for (i = 0; i < 2; i++) {
            EVENTUALLY(get(&actors[i].ends) == 1);
            CHECK_INT(get(&actors[i].result), QNET_OK);
            /* The other handler's close frees this handle, perhaps after this close handler ran. */
            EVENTUALLY(qnet_close_reason(actors[i].own) == QNET_ERR_HANDLE);
            is_stale(actors[i].own);
            close(fds[i]);
        }
    }
    footprint_again(before);
}

/* ---- A thread that ends beside a close ---- */

static void end_the_thread(void *ends, int reason)
{
    (void)reason;
    count_up(ends);
    pthread_exit(NULL);
}

static void *closing(void *conn)
{
    return (void *)(intptr_t)qnet_close(conn);
}

static void *receiving(void *conn)
{
    (void)make_recv(conn);
    return NULL;
}

/*
 * While a close waits for the rest of a frame, a receive runs the close
 * handler, which ends its thread; the close still comes to its end.
 */
static void a_call_ends_its_thread_beside_a_close(void)
{
    static const uint8_t part[20] = { 0, 0, 1, 0 };
    pthread_t closer, receiver;
    int fd, ends = 0;
    void *result;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 1000 * 1000), QNET_OK);
    CHECK_INT(qnet_set_close_handler(conn, end_the_thread, &ends), QNET_OK);
    raw_write(fd, part, sizeof part);
    start_thread(&closer, closing, conn);
    EVENTUALLY(qnet_close_reason(conn) == QNET_ERR_CLOSED);
    start_thread(&receiver, receiving, conn);
    join_thread(receiver);
    CHECK_INT(get(&ends), 1);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
    CHECK(close(fd) == 0);
    CHECK_INT(pthread_join(closer, &result), 0);
    CHECK_INT((intptr_t)result, QNET_OK);
    CHECK_INT(get(&ends), 1);
}

int main(void)
{
    RUN(handler_acts_on_its_own);
    RUN(handler_ends_another);
    RUN(handler_closes_another_in_a_call);
    RUN(handler_waits_for_another);
    RUN(two_handlers_close_each_other);
    RUN(a_call_ends_its_thread_beside_a_close);
    return check_done();
}
