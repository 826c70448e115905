/*
 * port_crowd.c - port handlers of hubs that are closed, of peers by the thousand, and of hubs on a
 * clock that the program moves.
 */
#include "porter.h"

static void *closing_hub(void *hub)
{
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    return NULL;
}

/* ---- Closing, and many ---- */

/* It waits for a call under way, ends those that wait untold, and tells of all others. */
static void hub_close_tells_of_all(void)
{
    enum { THERE = 3, PEERS = 6 };
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peers[PEERS];
    pthread_t closer;
    int i, k, left = 0;

    porter_open(&porter, &service);
    for (i = 0; i < PEERS; i++) {
        put(&porter.shut, i >= THERE);
        peer_join(&peers[i], service.place, 10 + i);
        if (i < THERE)
            speaks(&service, &peers[i]);
    }
    told(&porter, THERE, 1);
    start_thread(&closer, closing_hub, service.hub);
    EVENTUALLY(ports_of(service.hub) == QNET_ERR_HANDLE);
    raw_sleep_ms(20);
    CHECK_INT(pthread_tryjoin_np(closer, NULL), EBUSY);
    put(&porter.shut, 0);
    join_thread(closer);
    CHECK_INT(get(&porter.calls), 2 * (THERE + 1));
    CHECK_INT(get(&porter.returned), 2 * (THERE + 1));
    for (i = 0; i <= THERE; i++)
        for (k = THERE + 1; k < 2 * (THERE + 1); k++)
            left += porter.conns[k] == porter.conns[i] && porter.attached[k] == 0;
    CHECK_INT(left, THERE + 1);
    for (i = 0; i < PEERS; i++)
        hung_up_on(&peers[i]);
    device_close(&service.own);
    footprint_again(before);
}

/* What a handler makes of thousands: each comes once, and leaves once if it was not refused. */
struct census {
    qnet_conn *there[2048];
    int present, came, left, refused, running;
    unsigned state;
};

static void counted(void *user, qnet_conn *conn, int attached)
{
    struct census *census = user;
    int at = 0;

    CHECK_INT(count_up(&census->running), 1);
    while (at < census->present && census->there[at] != conn)
        at++;
    CHECK_INT(at < census->present, !attached);
    if (!attached) {
        census->there[at] = census->there[--census->present];
        count_up(&census->left);
    } else if (next_random(&census->state) % 4 == 0) {
        CHECK_INT(qnet_close(conn), QNET_OK);
        count_up(&census->refused);
    } else {
        CHECK(census->present < 2048);
        census->there[census->present++] = conn;
    }
    put(&census->running, 0);
    if (attached)
        count_up(&census->came);
}

struct crowd {
    const char *place;
    struct census *census;
    pthread_t thread;
    int peers, n;
};

enum { CROWDS = 4 };

/* Peers that speak or not, and leave at once, of whom no more are left to be noticed than MAX_CONNS allows. */
static void *crowding(void *argument)
{
    struct crowd *crowd = argument;
    struct census *census = crowd->census;
    unsigned state = (unsigned)crowd->n;
    int i;

    for (i = 0; i < crowd->peers; i++) {
        struct device peer;

        peer_join(&peer, crowd->place, crowd->n);
        if (next_random(&state) & 1)
            (void)!send(peer.fd, "\0\0\0\074 half a frame", 12, MSG_NOSIGNAL);
        leaves(&peer);
        EVENTUALLY(get(&census->left) + get(&census->refused) >= CROWDS * (i - 50));
    }
    return NULL;
}

static void each_comes_once_and_leaves_once(void)
{
    struct footprint before = footprint_now();
    static struct census census;
    struct crowd crowds[CROWDS];
    struct service service;
    int i, peers = 10 + rounds(1500);

    service_open(&service);
    CHECK_INT(qnet_hub_set_port_handler(service.hub, counted, &census), QNET_OK);
    for (i = 0; i < CROWDS; i++) {
        crowds[i].place = service.place;
        crowds[i].census = &census;
        crowds[i].peers = peers;
        crowds[i].n = 10 + i;
        start_thread(&crowds[i].thread, crowding, &crowds[i]);
    }
    for (i = 0; i < CROWDS; i++)
        join_thread(crowds[i].thread);
    EVENTUALLY(get(&census.came) == CROWDS * peers);
    EVENTUALLY(get(&census.left) + get(&census.refused) == CROWDS * peers);
    CHECK(get(&census.refused) > 0 && get(&census.left) > 0);
    CHECK_INT(ports_of(service.hub), 1);
    service_close(&service);
    CHECK_INT(census.came, CROWDS * peers);
    CHECK_INT(census.left + census.refused, CROWDS * peers);
    footprint_again(before);
}

/* A hub is closed, or its handler taken away, while peers come and go: nobody is told of after that. */
static void closed_in_a_crowd(void)
{
    struct footprint before = footprint_now();
    int round, i;

    for (round = 0; round < rounds(100); round++) {
        static struct census census;
        struct device peers[8];
        struct service service;
        int calls;

        memset(&census, 0, sizeof census);
        census.state = (unsigned)round;
        service_open(&service);
        CHECK_INT(qnet_hub_set_port_handler(service.hub, counted, &census), QNET_OK);
        for (i = 0; i < 8; i++) {
            peer_join(&peers[i], service.place, 10 + i);
            if (i % 2)
                leaves(&peers[i]);
        }
        if (round % 2) {
            raw_sleep_ms(round % 4);
            CHECK_INT(unset(service.hub), QNET_OK);
            calls = get(&census.came) + get(&census.left);
            service_close(&service);
            CHECK_INT(census.came + census.left, calls);
        } else {
            service_close(&service);
            CHECK_INT(census.came, census.left + census.refused);
        }
        CHECK_INT(census.running, 0);
        for (i = 0; i < 8; i += 2)
            hung_up_on(&peers[i]);
    }
    footprint_again(before);
}

/* ---- On a clock of the program's ---- */

static void see_the_clock(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)conn;
    (void)attached;
    CHECK_INT(qnet_hub_set_clock(porter->hub, NULL), get(&porter->result));
    if (porter->next && attached)
        pthread_exit(NULL);
}

static void called_in_advances(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    qnet_listener *listener = NULL;
    const char *place = scratch_abstract("told");
    struct porter porter;
    struct device own, peers[3];
    int i;

    memset(&porter, 0, sizeof porter);
    porter.act = see_the_clock;
    porter.result = QNET_ERR_BUSY;
    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    porter_set(&porter, hub);
    device_open(&own, 1);
    CHECK_INT(qnet_hub_attach(hub, own.conn), QNET_OK);
    for (i = 0; i < 3; i++) {
        peer_join(&peers[i], place, 10 + i);
        device_says(&peers[i], own.n, MAC_FRAME);
    }
    raw_sleep_ms(20);
    CHECK_INT(porter.calls, 0);
    advance(clock, 0);
    CHECK_INT(porter.calls, 3);
    CHECK_INT(porter.thread, this_thread());
    CHECK_INT(footprint_now().threads, 0);
    for (i = 0; i < 3; i++) {
        CHECK_INT(porter.attached[i], 1);
        CHECK_INT(raw_hear(own.fd).from, 10 + i);
    }
    leaves(&peers[0]);
    CHECK_INT(porter.calls, 3);
    advance(clock, 1);
    CHECK_INT(porter.calls, 4);
    CHECK(porter.conns[3] == porter.conns[0]);
    CHECK_INT(qnet_close_reason(porter.conns[0]), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close(porter.conns[1]), QNET_OK);
    CHECK_INT(porter.calls, 4);
    advance(clock, 1);
    CHECK_INT(porter.calls, 5);
    CHECK(porter.conns[4] == porter.conns[1]);
    porter.result = QNET_ERR_HANDLE;
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(porter.calls, 6);
    CHECK(porter.conns[5] == porter.conns[2] && porter.attached[5] == 0);
    CHECK_INT(qnet_close_reason(porter.conns[2]), QNET_ERR_HANDLE);
    CHECK_INT(porter.thread, this_thread());
    CHECK_INT(footprint_now().threads, 0);
    hung_up_on(&peers[1]);
    hung_up_on(&peers[2]);
    device_close(&own);
    clock_close(clock);
}

static void *advancing(void *clock)
{
    advance(clock, 0);
    return NULL;
}

/* A handler ends the thread that advances the clock, and the next advance goes on without one. */
static void a_handler_dies_in_an_advance(void)
{
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    qnet_listener *listener = NULL;
    const char *place = scratch_abstract("dying");
    struct porter porter;
    struct device peers[2];
    pthread_t thread;

    memset(&porter, 0, sizeof porter);
    porter.act = see_the_clock;
    porter.result = QNET_ERR_BUSY;
    porter.next = &porter;
    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    porter_set(&porter, hub);
    peer_join(&peers[0], place, 10);
    peer_join(&peers[1], place, 11);
    start_thread(&thread, advancing, clock);
    join_thread(thread);
    CHECK_INT(porter.calls, 1);
    advance(clock, 1);
    CHECK_INT(ports_of(hub), 2);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(porter.calls, 1);
    hung_up_on(&peers[0]);
    hung_up_on(&peers[1]);
    clock_close(clock);
}

static void close_inside(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)conn;
    if (attached && get(&porter->calls) == 2)
        CHECK_INT(qnet_hub_close(porter->hub), QNET_OK);
}

static void a_handler_closes_its_hub_in_an_advance(void)
{
    struct footprint before = footprint_now();
    qnet_clock *clock = clock_open();
    qnet_hub *hub = hub_on(clock);
    qnet_listener *listener = NULL;
    const char *place = scratch_abstract("closing");
    struct porter porter;
    struct device peers[3];
    int i;

    memset(&porter, 0, sizeof porter);
    porter.act = close_inside;
    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    porter_set(&porter, hub);
    for (i = 0; i < 3; i++)
        peer_join(&peers[i], place, 10 + i);
    advance(clock, 1);
    CHECK_INT(porter.calls, 4);
    for (i = 0; i < 4; i++) {
        CHECK_INT(porter.attached[i], i < 2);
        CHECK(porter.conns[i] == porter.conns[i % 2]);
    }
    clock_close(clock);
    for (i = 0; i < 3; i++)
        hung_up_on(&peers[i]);
    footprint_again(before);
}

int main(void)
{
    RUN(hub_close_tells_of_all);
    RUN(each_comes_once_and_leaves_once);
    RUN(closed_in_a_crowd);
    RUN(called_in_advances);
    RUN(a_handler_dies_in_an_advance);
    RUN(a_handler_closes_its_hub_in_an_advance);
    return check_done();
}
