/*
 * state.c - the state handler, which is told that a connection is down or up
 * again: what it may do, and who waits for it; and connections that go down
 * often, and many at once.
 */
#include "redialling.h"

/* ---- The state handler ---- */

/* A state handler that makes one call, once, when the connection goes down or comes up. */
struct act {
    qnet_conn *conn;
    int (*call)(struct act *act);
    int when, result, done, shut, ends;
    int told; /* how many calls of the handler have begun */
};

static void act_told(void *user, int up)
{
    struct act *act = user;

    count_up(&act->told);
    if (up != act->when || get(&act->done))
        return;
    put(&act->result, act->call(act));
    count_up(&act->done);
}

static void act_ended(void *user, int reason)
{
    struct act *act = user;

    (void)reason;
    count_up(&act->ends);
}

static int act_close(struct act *act)
{
    return qnet_close(act->conn);
}

static int act_shut_down(struct act *act)
{
    return qnet_shutdown(act->conn);
}

static int act_exit(struct act *act)
{
    count_up(&act->done);
    pthread_exit(NULL);
    return 0;
}

static int act_unset(struct act *act)
{
    return qnet_set_state_handler(act->conn, NULL, NULL);
}

static int act_send_and_wait(struct act *act)
{
    CHECK_INT(make_send(act->conn), QNET_OK);
    CHECK_INT(qnet_wait(act->conn, 0), QNET_ERR_BUSY);
    return qnet_close_reason(act->conn);
}

/* How the connection is received from while its state handler acts. */
enum { PULLED, HANDLED, ATTACHED, WAYS };

struct stage {
    struct scene scene;
    struct act act;
    qnet_hub *hub;
    int way;
};

static void stage_open(struct stage *stage, int way, int when, int (*call)(struct act *act))
{
    qnet_conn *conn;

    memset(stage, 0, sizeof *stage);
    scene_open(&stage->scene, SOON_MS);
    conn = stage->scene.conn;
    stage->way = way;
    stage->act.conn = conn;
    stage->act.call = call;
    stage->act.when = when;
    CHECK_INT(qnet_set_state_handler(conn, act_told, &stage->act), QNET_OK);
    CHECK_INT(qnet_set_close_handler(conn, act_ended, &stage->act), QNET_OK);
    CHECK_INT(qnet_hub_new(&stage->hub), QNET_OK);
    if (way == HANDLED)
        CHECK_INT(qnet_set_handler(conn, ignore_frame, NULL), QNET_OK);
    if (way == ATTACHED)
        CHECK_INT(qnet_hub_attach(stage->hub, conn), QNET_OK);
}

/* The peer leaves and goes on listening. */
static void stage_blink(struct stage *stage)
{
    goes(&stage->scene.peer);
    if (stage->way == PULLED)
        finds_nothing(stage->scene.conn);
}

static void stage_close(struct stage *stage)
{
    CHECK_INT(qnet_hub_close(stage->hub), QNET_OK);
    peer_remove(&stage->scene.peer);
}

static void acts_that_end_it(int (*call)(struct act *act), int closes)
{
    int way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct footprint before = footprint_now();
            struct stage stage;

            stage_open(&stage, way, when, call);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(get(&stage.act.result), QNET_OK);
            EVENTUALLY(get(&stage.act.ends) == 1);
            if (closes)
                CHECK_INT(qnet_fd(stage.scene.conn), QNET_ERR_HANDLE);
            else
                CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            raw_sleep_ms(2 * SOON_MS);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
            footprint_again(before);
        }
}

static void closes_inside_it(void)
{
    acts_that_end_it(act_close, 1);
}

static void shuts_down_inside_it(void)
{
    acts_that_end_it(act_shut_down, 0);
}

/* The connection goes on after the act, with its handler or without, and takes another handler. */
static void acts_that_leave_it(int (*call)(struct act *act), int result)
{
    int unsets = call == act_exit || call == act_unset, way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct stage stage;

            stage_open(&stage, way, when, call);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(get(&stage.act.result), result);
            peer_accepts(&stage.scene.peer);
            EVENTUALLY(stats_of(stage.scene.conn).reconnects == 1);
            EVENTUALLY(get(&stage.act.told) == (unsets && when == 0 ? 1 : 2));
            raw_sleep_ms(2 * SOON_MS);
            CHECK_INT(qnet_set_state_handler(stage.scene.conn, carrier_told,
                                             &stage.scene.carrier), QNET_OK);
            stage_blink(&stage);
            peer_accepts(&stage.scene.peer);
            is_told(&stage.scene, 2);
            CHECK_INT(get(&stage.act.done), 1);
            CHECK_INT(get(&stage.act.ends), 0);
            CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
        }
}

static void its_thread_ends_inside_it(void)
{
    acts_that_leave_it(act_exit, 0);
}

static void is_unset_inside_it(void)
{
    acts_that_leave_it(act_unset, QNET_OK);
}

static void calls_inside_it(void)
{
    acts_that_leave_it(act_send_and_wait, QNET_OK);
}

/*
 * Waits while another thread shuts down or closes the connection, then ends the
 * handler's thread.
 */
static int act_exit_at_the_gate(struct act *act)
{
    count_up(&act->done);
    while (get(&act->shut))
        raw_sleep_ms(1);
    pthread_exit(NULL);
    return 0;
}

static int act_stand_at_the_gate(struct act *act)
{
    count_up(&act->done);
    while (get(&act->shut))
        raw_sleep_ms(1);
    return 0;
}

static void *closing(void *argument)
{
    CHECK_INT(qnet_close(argument), QNET_OK);
    return NULL;
}

/* The close handler comes after the state handler, and a close waits for both. */
static void close_waits_for_it(void)
{
    static int (*const calls[])(struct act *act) = { act_stand_at_the_gate,
                                                     act_exit_at_the_gate };
    int way, i, shuts_down;
    pthread_t thread;

    for (way = 0; way < WAYS; way++)
        for (i = 0; i < 4; i++) {
            struct stage stage;

            shuts_down = i / 2;
            stage_open(&stage, way, i % 2, calls[(way + i) % 2]);
            put(&stage.act.shut, 1);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            if (shuts_down)
                CHECK_INT(qnet_shutdown(stage.scene.conn), QNET_OK);
            start_thread(&thread, closing, stage.scene.conn);
            raw_sleep_ms(30);
            CHECK_INT(get(&stage.act.ends), 0);
            CHECK(qnet_fd(stage.scene.conn) >= 0);
            put(&stage.act.shut, 0);
            join_thread(thread);
            CHECK_INT(get(&stage.act.ends), 1);
            stage_close(&stage);
        }
}

/* With QNET_OPT_WAIT 0 a close does not wait, and the close handler still runs, once and last. */
static void close_need_not_wait_for_it(void)
{
    int way, when;

    for (way = 0; way < WAYS; way++)
        for (when = 0; when < 2; when++) {
            struct footprint before = footprint_now();
            struct stage stage;

            stage_open(&stage, way, when, act_stand_at_the_gate);
            CHECK_INT(qnet_set(stage.scene.conn, QNET_OPT_WAIT, 0), QNET_OK);
            put(&stage.act.shut, 1);
            stage_blink(&stage);
            EVENTUALLY(get(&stage.act.done) == 1);
            CHECK_INT(qnet_set_state_handler(stage.scene.conn, act_told, &stage.act), QNET_OK);
            CHECK_INT(qnet_close(stage.scene.conn), QNET_OK);
            raw_sleep_ms(10);
            CHECK_INT(get(&stage.act.ends), 0);
            put(&stage.act.shut, 0);
            EVENTUALLY(get(&stage.act.ends) == 1);
            stage_close(&stage);
            footprint_again(before);
            CHECK_INT(get(&stage.act.ends), 1);
        }
}

static void *unsetting(void *argument)
{
    CHECK_INT(qnet_set_state_handler(argument, NULL, NULL), QNET_OK);
    return NULL;
}

static void setting_waits_for_it(void)
{
    struct scene scene;
    pthread_t thread;

    scene_open(&scene, SOON_MS);
    put(&scene.carrier.shut, 1);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    EVENTUALLY(get(&scene.carrier.running));
    start_thread(&thread, unsetting, scene.conn);
    raw_sleep_ms(30);
    CHECK_INT(get(&scene.carrier.told), 0);
    put(&scene.carrier.shut, 0);
    join_thread(thread);
    CHECK_INT(get(&scene.carrier.running), 0);
    peer_accepts(&scene.peer);
    EVENTUALLY(stats_of(scene.conn).reconnects == 1);
    raw_sleep_ms(2 * SOON_MS);
    CHECK(get(&scene.carrier.told) <= 1);
    scene_close(&scene);
}

/* A slow state handler is told of every change, one after the other. */
static void a_slow_one_is_told_everything(void)
{
    struct scene scene;
    int told;

    scene_open(&scene, 1);
    put(&scene.carrier.shut, 1);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    EVENTUALLY(get(&scene.carrier.running));
    raw_sleep_ms(20);
    CHECK_INT(stats_of(scene.conn).reconnects, 0);
    put(&scene.carrier.shut, 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    for (told = 2; told < 20; told += 2) {
        put(&scene.carrier.shut, 1);
        goes(&scene.peer);
        EVENTUALLY(recv_now(scene.conn) == QNET_ERR_AGAIN && get(&scene.carrier.running));
        put(&scene.carrier.shut, 0);
        peer_accepts(&scene.peer);
        is_told(&scene, told + 2);
    }
    CHECK_INT(stats_of(scene.conn).reconnects, 10);
    scene_close(&scene);
}

/* The peer leaves again while the state handler is still in its call about being up. */
static void down_again_while_told(void)
{
    struct scene scene;

    scene_open(&scene, 1);
    scene_down(&scene);
    put(&scene.carrier.shut, 1);
    peer_returns(&scene.peer);
    EVENTUALLY(get(&scene.carrier.running));
    goes(&scene.peer);
    finds_nothing(scene.conn);
    raw_sleep_ms(20);
    CHECK_INT(make_send(scene.conn), QNET_OK);
    CHECK_INT(stats_of(scene.conn).tx_dropped, 1);
    CHECK_INT(get(&scene.carrier.told), 1);
    put(&scene.carrier.shut, 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 4);
    scene_close(&scene);
}

/* ---- Often, and many ---- */

static void a_hundred_restarts_leave_nothing(void)
{
    struct footprint before = footprint_now(), open = before;
    struct flow out = flow_of_small_frames(), seen;
    struct scene scene;
    int life;

    scene_open(&scene, 1);
    CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
    CHECK(qnet_fd(scene.conn) >= 0);
    for (life = 1; life <= rounds(HUNDRED); life++) {
        peer_leaves(&scene.peer);
        peer_returns(&scene.peer);
        is_told(&scene, 2 * life);
        seen = out;
        CHECK_INT(flow_send(&out, scene.conn, 0, 2), 2);
        raw_take_until(scene.peer.fd, &seen, out.next);
        if (life == 1)
            open = footprint_now();
    }
    CHECK_INT(stats_of(scene.conn).reconnects, rounds(HUNDRED));
    /* Calls that waited may have made an event descriptor or two. */
    EVENTUALLY(footprint_now().descriptors <= open.descriptors + 2);
    scene_close(&scene);
    footprint_again(before);
}

static void many_at_once(void)
{
    enum { MANY = 50 };
    struct footprint before = footprint_now();
    struct flow flow = flow_of_small_frames();
    struct carrier carriers[MANY];
    qnet_conn *conns[MANY];
    struct peer peer;
    int fds[MANY], life, i;

    memset(carriers, 0, sizeof carriers);
    peer_make(&peer);
    peer_listens(&peer, MANY);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(dial(&peer, SOON_MS, &conns[i]), QNET_OK);
        peer_accepts(&peer);
        fds[i] = peer.fd;
        CHECK_INT(qnet_set_state_handler(conns[i], carrier_told, &carriers[i]), QNET_OK);
        CHECK_INT(qnet_set_handler(conns[i], ignore_frame, NULL), QNET_OK);
    }
    for (life = 1; life <= LIVES; life++) {
        peer.fd = -1;
        peer_goes_deaf(&peer);
        for (i = 0; i < MANY; i++)
            CHECK(close(fds[i]) == 0);
        for (i = 0; i < MANY; i++)
            EVENTUALLY(get(&carriers[i].told) == 2 * life - 1);
        peer_listens(&peer, MANY);
        for (i = 0; i < MANY; i++) {
            peer_accepts(&peer);
            fds[i] = peer.fd;
        }
        for (i = 0; i < MANY; i++) {
            EVENTUALLY(get(&carriers[i].told) == 2 * life);
            CHECK_INT(flow_send(&flow, conns[i], 0, 1), 1);
        }
    }
    for (i = 0; i < MANY; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    for (i = 0; i < MANY; i++) {
        CHECK_INT(frames_until_the_end(fds[i]), 1);
        CHECK(close(fds[i]) == 0);
    }
    peer.fd = -1;
    peer_remove(&peer);
    footprint_again(before);
}

/* Threads that make every call on one connection whose peer comes and goes, until it is closed. */
struct storm {
    qnet_conn *conn;
    struct carrier carriers[2];
    int stop;
    unsigned seed;
};

static void other_told(void *user, int up)
{
    (void)up;
    count_up(user);
}

static void *storming(void *argument)
{
    struct storm *storm = argument;
    unsigned state = (unsigned)count_up((int *)&storm->seed);
    qnet_conn *conn = storm->conn;
    uint8_t buffer[2048], ready;
    static int calls;
    char text[160];

    while (!get(&storm->stop)) {
        int result = QNET_OK;

        switch (next_random(&state) % 12) {
        case 0: result = make_send(conn); break;
        case 1: result = make_send_batch(conn) > 0 ? 0 : QNET_ERR_INTERNAL; break;
        case 2: result = qnet_recv(conn, buffer, sizeof buffer, 1);
            result = result > 0 || result == QNET_ERR_TIMEOUT || result == QNET_ERR_BUSY ? 0 : result;
            break;
        case 3: result = qnet_wait(conn, 1) == QNET_ERR_TIMEOUT ? 0 : QNET_ERR_INTERNAL; break;
        case 4: result = qnet_poll(&conn, &ready, 1, 1) >= 0 ? 0 : QNET_ERR_INTERNAL; break;
        case 5: result = qnet_set_handler(conn, ignore_frame, NULL); break;
        case 6: result = qnet_set_handler(conn, NULL, NULL); break;
        case 7: result = qnet_set_state_handler(conn, other_told, &calls); break;
        case 8: result = qnet_set_state_handler(conn, NULL, NULL); break;
        case 9: result = qnet_set(conn, QNET_OPT_RECONNECT_MS, 1 + state % 3); break;
        case 10: result = qnet_peer_addr(conn, text, sizeof text) < 0; break;
        default: result = qnet_close_reason(conn); break;
        }
        CHECK_INT(result, QNET_OK);
    }
    return NULL;
}

static void a_storm(void)
{
    enum { THREADS = 4 };
    struct footprint before = footprint_now();
    struct flow in = flow_of_small_frames();
    pthread_t threads[THREADS];
    struct storm storm;
    struct scene scene;
    int life, i;

    memset(&storm, 0, sizeof storm);
    scene_open(&scene, 1);
    storm.conn = scene.conn;
    CHECK_INT(qnet_set_state_handler(scene.conn, NULL, NULL), QNET_OK);
    for (i = 0; i < THREADS; i++)
        start_thread(&threads[i], storming, &storm);
    for (life = 0; life < rounds(100); life++) {
        raw_send_flow(scene.peer.fd, &in, 3, 0);
        raw_sleep_ms(life % 4);
        goes(&scene.peer);
        peer_accepts(&scene.peer);
    }
    put(&storm.stop, 1);
    for (i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    scene_close(&scene);
    footprint_again(before);
}

/*
 * Skips a test that forks under valgrind: in the child, the memory of the
 * parent's threads would count as leaked.
 */
static void not_where_leaks_are_counted(void)
{
    if (is_under_valgrind())
        check_skip("the child's report would tell of its parent's threads");
}

/* A child that is forked while the connection is down has neither the connection nor its calls. */
static void forked_meanwhile(void)
{
    struct scene scene;
    int status;
    pid_t pid;

    not_where_leaks_are_counted();
    scene_open(&scene, SOON_MS);
    scene_down(&scene);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_INT(qnet_set_state_handler(scene.conn, NULL, NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(scene.conn), QNET_ERR_HANDLE);
        raw_sleep_ms(5 * SOON_MS);
        CHECK_INT(get(&scene.carrier.told), 1);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    scene_up(&scene);
    scene_close(&scene);
}

static int act_fork(struct act *act)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(qnet_close(act->conn) == QNET_ERR_HANDLE ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void forks_inside_it(void)
{
    not_where_leaks_are_counted();
    acts_that_leave_it(act_fork, 0);
}

int main(void)
{
    scratch_make();
    RUN(closes_inside_it);
    RUN(shuts_down_inside_it);
    RUN(its_thread_ends_inside_it);
    RUN(is_unset_inside_it);
    RUN(calls_inside_it);
    RUN(forks_inside_it);
    RUN(close_waits_for_it);
    RUN(close_need_not_wait_for_it);
    RUN(setting_waits_for_it);
    RUN(a_slow_one_is_told_everything);
    RUN(down_again_while_told);
    RUN_KINDS(a_hundred_restarts_leave_nothing);
    RUN_KINDS(many_at_once);
    RUN(a_storm);
    RUN(forked_meanwhile);
    scratch_remove();
    return check_done();
}
