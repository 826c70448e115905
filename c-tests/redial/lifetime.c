/*
 * lifetime.c - how a connection that outlives its peers begins, perhaps before
 * it has one, how it ends for good, and what calls that wait on it do
 * meanwhile.
 */
#include "redialling.h"

/* ---- At the beginning ---- */

static void starts_before_its_peer(void)
{
    struct flow out = flow_of_small_frames(), seen, in = out, got = out;
    struct scene scene;
    char text[160];

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    peer_goes_deaf(&scene.peer);
    CHECK_INT(qnet_dial(kind_now->network, scene.peer.place.text, &scene.conn),
              QNET_ERR_REFUSED);
    CHECK_INT(dial(&scene.peer, 0, &scene.conn), QNET_ERR_REFUSED);
    CHECK(scene.conn == NULL);
    CHECK_INT(dial(&scene.peer, SOON_MS, &scene.conn), QNET_OK);
    put(&scene.carrier.next, 1);
    CHECK_INT(qnet_set_state_handler(scene.conn, carrier_told, &scene.carrier), QNET_OK);
    CHECK(same_text(text, qnet_peer_addr(scene.conn, text, sizeof text), scene.peer.place.text));
    CHECK(same_text(text, qnet_local_addr(scene.conn, text, sizeof text), ""));
    CHECK_INT(qnet_close_reason(scene.conn), QNET_OK);
    finds_nothing(scene.conn);
    CHECK_INT(flow_send(&out, scene.conn, 0, 5), 5);
    raw_sleep_ms(5 * SOON_MS);
    CHECK_INT(get(&scene.carrier.told), 0);
    CHECK_INT(stats_of(scene.conn).reconnects, 0);
    CHECK_INT(stats_of(scene.conn).tx_dropped, 5);
    peer_returns(&scene.peer);
    is_told(&scene, 1);
    CHECK_INT(stats_of(scene.conn).reconnects, 1);
    CHECK(same_text(text, qnet_peer_addr(scene.conn, text, sizeof text), scene.peer.place.text));
    seen = out;
    CHECK_INT(flow_send(&out, scene.conn, 1, FRAMES_EACH), FRAMES_EACH);
    raw_take_until(scene.peer.fd, &seen, out.next);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    take_by_recv(scene.conn, &got);
    scene_down(&scene);
    scene_up(&scene);
    scene_close(&scene);
}

/* Makes the peer listen with a full backlog, as if its program hung. */
static void fill_backlog(struct peer *peer, int fillers[4])
{
    int i;

    peer_listens(peer, 0);
    for (i = 0; i < 4; i++) {
        fillers[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(fillers[i], (struct sockaddr *)&peer->place.address, peer->place.len) != 0)
            break;
    }
    CHECK(i < 4);
    CHECK_INT(errno, EAGAIN);
    close(fillers[i]);
    fillers[i] = -1;
}

static void starts_before_anybody_answers(void)
{
    int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS, QNET_OPT_DIAL_TIMEOUT_MS, 0 };
    int fillers[4], i, j;
    struct scene scene;

    for (i = 0; i < 2; i++) {
        memset(&scene, 0, sizeof scene);
        peer_make(&scene.peer);
        fill_backlog(&scene.peer, fillers);
        options[3] = 20 * i;
        CHECK_INT(qnet_dial_with("unix", scene.peer.place.text, options, 2, &scene.conn),
                  QNET_OK);
        finds_nothing(scene.conn);
        peer_goes_deaf(&scene.peer);
        peer_returns(&scene.peer);
        EVENTUALLY(stats_of(scene.conn).reconnects == 1);
        for (j = 0; fillers[j] >= 0; j++)
            close(fillers[j]);
        scene_close(&scene);
    }
}

/* Dialling still fails for reasons that waiting cannot mend. */
static void failures_at_the_beginning(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS };
    const int64_t timely[] = { QNET_OPT_RECONNECT_MS, NEVER_MS, QNET_OPT_DIAL_TIMEOUT_MS, 1000 };
    struct footprint before = footprint_now();
    struct rlimit limit, none;
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with("tcp", "nowhere", options, 1, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial_with("tcq", "127.0.0.1:1", options, 1, &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial_with("unix", "/dev/null/socket", options, 1, &conn), QNET_ERR_OS);
    /* A timeout is given because the name server may be far away or slow. */
    CHECK_INT(qnet_dial_with("tcp", "nobody.invalid:1", timely, 2, &conn), QNET_OK);
    CHECK_INT(qnet_peer_addr(conn, NULL, 0), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK_INT(qnet_dial_with("tcp", "127.0.0.1:1", options, 1, &conn), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(conn == NULL);
    footprint_again(before);
    CHECK_INT(qnet_dial_with("tcp", "127.0.0.1:1", options, 1, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    footprint_again(before);
}

/* When no descriptor is available the connection is dialled again later, as without a peer. */
static void no_descriptor_for_now(void)
{
    struct rlimit limit, none;
    struct scene scene;
    int spare;

    scene_open(&scene, SOON_MS);
    spare = dup(0);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    goes(&scene.peer);
    finds_nothing(scene.conn);
    is_told(&scene, 1);
    raw_sleep_ms(5 * SOON_MS);
    CHECK_INT(get(&scene.carrier.told), 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    close(spare);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    scene_close(&scene);
}

/* ---- Ending for good ---- */

static void quickly(int (*call)(qnet_conn *), qnet_conn *conn)
{
    long long begin = raw_now_ms();

    CHECK_INT(call(conn), QNET_OK);
    CHECK(raw_now_ms() - begin < 5000 * check_slow());
}

static void closed_while_down(void)
{
    struct footprint before = footprint_now();
    struct ending ending = { 0, 0, 0, 0 };
    struct scene scene;
    int by_shutdown;

    for (by_shutdown = 0; by_shutdown < 2; by_shutdown++) {
        memset(&ending, 0, sizeof ending);
        scene_open(&scene, NEVER_MS);
        CHECK_INT(qnet_set_close_handler(scene.conn, ending_told, &ending), QNET_OK);
        scene_down(&scene);
        CHECK_INT(get(&ending.ends), 0);
        if (by_shutdown) {
            quickly(qnet_shutdown, scene.conn);
            CHECK_INT(get(&ending.ends), 1);
            CHECK_INT(qnet_close_reason(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(make_send(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
            CHECK_INT(qnet_wait(scene.conn, 0), QNET_OK);
        }
        quickly(qnet_close, scene.conn);
        CHECK_INT(get(&ending.ends), 1);
        CHECK_INT(get(&ending.reason), QNET_ERR_CLOSED);
        CHECK_INT(get(&scene.carrier.told), 1);
        peer_remove(&scene.peer);
        footprint_again(before);
    }
}

/* The connection is closed during an attempt that nobody answers. */
static void closed_while_dialling(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1, QNET_OPT_DIAL_TIMEOUT_MS, 500 };
    struct footprint before = footprint_now();
    struct scene scene;
    int fillers[4], i;

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    CHECK_INT(qnet_dial_with("unix", scene.peer.place.text, options, 2, &scene.conn), QNET_OK);
    peer_accepts(&scene.peer);
    peer_goes_deaf(&scene.peer);
    fill_backlog(&scene.peer, fillers);
    CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
    goes(&scene.peer);
    raw_sleep_ms(100);
    quickly(qnet_close, scene.conn);
    for (i = 0; fillers[i] >= 0; i++)
        close(fillers[i]);
    peer_remove(&scene.peer);
    footprint_again(before);
}

/* One of two threads that close the same connection at once. */
struct closer {
    pthread_t thread;
    qnet_conn *conn;
    int result;
};

static void *closing_either(void *argument)
{
    struct closer *closer = argument;

    closer->result = qnet_close(closer->conn);
    return NULL;
}

/* The connection is closed while it is just coming up or going down. */
static void closed_at_any_time(void)
{
    struct footprint before = footprint_now();
    struct closer closers[2];
    struct scene scene;
    int round, told, i;

    for (round = 0; round < rounds(100); round++) {
        scene_open(&scene, 1);
        if (round % 2)
            CHECK_INT(qnet_set_handler(scene.conn, ignore_frame, NULL), QNET_OK);
        goes(&scene.peer);
        if (round % 2 == 0)
            finds_nothing(scene.conn);
        if (round % 3)
            raw_sleep_ms(round % 3);
        closers[0].conn = closers[1].conn = scene.conn;
        for (i = 0; i < 2; i++)
            start_thread(&closers[i].thread, closing_either, &closers[i]);
        for (i = 0; i < 50; i++)
            check_among(make_send(scene.conn),
                        MAY(QNET_OK) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_HANDLE));
        for (i = 0; i < 2; i++)
            join_thread(closers[i].thread);
        CHECK_INT(closers[0].result + closers[1].result, QNET_ERR_HANDLE);
        told = get(&scene.carrier.told);
        CHECK_INT(get(&scene.carrier.running), 0);
        peer_remove(&scene.peer);
        CHECK_INT(get(&scene.carrier.running), 0);
        CHECK_INT(get(&scene.carrier.told), told);
    }
    footprint_again(before);
}

/*
 * If QNET_OPT_RECONNECT_MS is set to 0 while the connection is down, it ends
 * with the reason for which it went down.
 */
static void switched_off_while_down(void)
{
    int i, way;

    for (i = 0; i < DEPARTURES; i++)
        for (way = 0; way < WAYS_TO_RECEIVE; way++) {
            struct flow got = flow_of_small_frames();
            struct taker taker;
            struct scene scene;
            int64_t value = 1;

            scene_open(&scene, NEVER_MS);
            taker_start(&taker, scene.conn, way, flow_each, &got);
            departures[i].go(&scene.peer);
            taker_looks(&taker);
            is_told(&scene, 1);
            CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
            CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
            CHECK_INT(value, 0);
            CHECK_INT(taker_end(&taker), departures[i].reason);
            CHECK_INT(make_send(scene.conn), departures[i].reason);
            CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
            CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1), QNET_OK);
            CHECK_INT(qnet_close_reason(scene.conn), departures[i].reason);
            taker_close(&taker);
            CHECK_INT(get(&scene.carrier.told), 1);
            peer_remove(&scene.peer);
        }
}

/*
 * If QNET_OPT_RECONNECT_MS is set to 0 while the connection is up, it ends when
 * its peer leaves; a connection that was dialled without the option outlives
 * its peer once it is set.
 */
static void switched_while_up(void)
{
    struct scene scene;

    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_OK);
    scene_down(&scene);
    scene_up(&scene);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    peer_leaves(&scene.peer);
    CHECK_INT(qnet_wait(scene.conn, patience_ms()), QNET_OK);
    CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
    CHECK_INT(get(&scene.carrier.told), 2);
    scene_close(&scene);

    memset(&scene, 0, sizeof scene);
    peer_make(&scene.peer);
    peer_listens(&scene.peer, 8);
    CHECK_INT(qnet_dial(kind_now->network, scene.peer.place.text, &scene.conn), QNET_OK);
    peer_accepts(&scene.peer);
    CHECK_INT(qnet_set_state_handler(scene.conn, carrier_told, &scene.carrier), QNET_OK);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, SOON_MS), QNET_OK);
    scene_down(&scene);
    scene_up(&scene);
    scene_close(&scene);
}

/* A new QNET_OPT_RECONNECT_MS takes effect at once, even while the connection is down. */
static void another_time_while_down(void)
{
    struct scene scene;

    scene_open(&scene, NEVER_MS);
    scene_down(&scene);
    peer_listens(&scene.peer, 8);
    raw_sleep_ms(50);
    CHECK_INT(get(&scene.carrier.told), 1);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1), QNET_OK);
    peer_accepts(&scene.peer);
    is_told(&scene, 2);
    scene_close(&scene);
}

/* If no thread can be started to dial again, the connection ends when its peer leaves. */
static void ends_without_a_thread(void)
{
    struct rlimit before;
    struct scene scene;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    scene_open(&scene, SOON_MS);
    before = allow_no_stack();
    goes(&scene.peer);
    CHECK_INT(recv_now(scene.conn), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close_reason(scene.conn), QNET_ERR_CLOSED);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK_INT(get(&scene.carrier.told), 0);
    scene_close(&scene);
}

static void not_for_others(void)
{
    struct peer peer;
    qnet_conn *conns[4];
    qnet_listener *listener;
    int64_t value = -1;
    int fds[2], plain[2], i;

    peer_make(&peer);
    CHECK_INT(qnet_socketpair(&conns[0], &conns[1]), QNET_OK);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, plain) == 0);
    CHECK_INT(qnet_from_fd(plain[0], &conns[2]), QNET_OK);
    CHECK_INT(qnet_listen(kind_now->network, peer.place.text, &listener), QNET_OK);
    fds[0] = place_connect(&peer.place);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conns[3]), QNET_OK);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_set(conns[i], QNET_OPT_RECONNECT_MS, 1), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set(conns[i], QNET_OPT_RECONNECT_MS, 0), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_get(conns[i], QNET_OPT_RECONNECT_MS, &value), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set_state_handler(conns[i], carrier_told, NULL), QNET_ERR_UNSUPPORTED);
        CHECK_INT(qnet_set_state_handler(conns[i], NULL, NULL), QNET_ERR_UNSUPPORTED);
    }
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_RECONNECT_MS, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_set_state_handler(NULL, NULL, NULL), QNET_ERR_HANDLE);
    for (i = 0; i < 4; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    close(fds[0]);
    close(plain[1]);
    place_remove(&peer.place);
}

static void values(void)
{
    struct scene scene;
    int64_t value = -1;

    scene_open(&scene, SOON_MS);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
    CHECK_INT(value, SOON_MS);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, -1), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RECONNECT_MS, 1LL << 31), QNET_ERR_INVALID);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_DIAL_TIMEOUT_MS, 1), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RECONNECT_MS, &value), QNET_OK);
    CHECK_INT(value, SOON_MS);
    /* Buffer sizes are set again on the socket of each new peer. */
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_RCVBUF, 40000), QNET_OK);
    scene_down(&scene);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_set(scene.conn, QNET_OPT_SNDBUF, 50000), QNET_OK);
    scene_up(&scene);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_RCVBUF, &value), QNET_OK);
    CHECK_INT(value, 40000);
    CHECK_INT(qnet_get(scene.conn, QNET_OPT_SNDBUF, &value), QNET_OK);
    CHECK_INT(value, 50000);
    scene_close(&scene);
}

/* ---- Waiting ---- */

static void *receiving(void *argument)
{
    static struct flow got;

    got = flow_of_small_frames();
    take_by_recv(argument, &got);
    return NULL;
}

static void *polling(void *argument)
{
    CHECK_INT(make_poll(argument), 1);
    return NULL;
}

static void *waiting(void *argument)
{
    CHECK_INT(make_wait(argument), QNET_OK);
    return NULL;
}

/* A connection that is down is neither ready nor ended, and calls that wait on it go on waiting. */
static void waits_go_on(void)
{
    struct flow in = flow_of_small_frames(), got = in;
    pthread_t receiver, poller, waiter;
    struct scene scene;
    uint8_t ready = 7;

    scene_open(&scene, SOON_MS);
    start_thread(&waiter, waiting, scene.conn);
    start_thread(&poller, polling, scene.conn);
    raw_sleep_ms(20);
    peer_leaves(&scene.peer);
    is_told(&scene, 1);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    CHECK_INT(ready, 0);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 30), 0);
    CHECK_INT(qnet_wait(scene.conn, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_wait(scene.conn, 30), QNET_ERR_TIMEOUT);
    finds_nothing(scene.conn);
    CHECK_INT(qnet_recv(scene.conn, NULL, 0, 30), QNET_ERR_TIMEOUT);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    join_thread(poller);
    take_by_recv(scene.conn, &got);
    in = got = flow_of_small_frames();
    start_thread(&receiver, receiving, scene.conn);
    raw_sleep_ms(20);
    peer_leaves(&scene.peer);
    is_told(&scene, 3);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    join_thread(receiver);
    scene_close(&scene);
    join_thread(waiter);
}

/* A poll that finds the peer gone takes the connection down, and does not report it as ready. */
static void poll_is_enough(void)
{
    struct flow in = flow_of_small_frames(), got = in;
    struct scene scene;
    uint8_t ready = 7;

    scene_open(&scene, SOON_MS);
    peer_leaves(&scene.peer);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    CHECK_INT(ready, 0);
    is_told(&scene, 1);
    scene_up(&scene);
    raw_send_flow(scene.peer.fd, &in, 1, 0);
    goes(&scene.peer);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, patience_ms()), 1);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 1);
    CHECK_INT(get(&scene.carrier.told), 2);
    take_by_recv(scene.conn, &got);
    CHECK_INT(qnet_poll(&scene.conn, &ready, 1, 0), 0);
    peer_accepts(&scene.peer);
    is_told(&scene, 4);
    scene_close(&scene);
}

/* ---- Ending before it was up ---- */

/* A connection that never came up ends with QNET_ERR_OS when it is no longer dialled. */
static void ended_before_it_was_up(void)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 60000 };
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with("unix", "@qnet-test-nobody", options, 1, &conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, 0), QNET_OK);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_OS);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(starts_before_its_peer);
    RUN(starts_before_anybody_answers);
    RUN(failures_at_the_beginning);
    RUN(ended_before_it_was_up);
    RUN(no_descriptor_for_now);
    RUN_KINDS(closed_while_down);
    RUN(closed_while_dialling);
    RUN(closed_at_any_time);
    RUN_KINDS(switched_off_while_down);
    RUN(switched_while_up);
    RUN(another_time_while_down);
    RUN(ends_without_a_thread);
    RUN(not_for_others);
    RUN_KINDS(values);
    RUN_KINDS(waits_go_on);
    RUN_KINDS(poll_is_enough);
    scratch_remove();
    return check_done();
}
