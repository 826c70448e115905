/*
 * port_handler.c - what a hub tells its port handler of the peers that it serves, and what the
 * handler does with them: refuse, prepare, wait, end its thread, fork, close the hub.
 */
#include "porter.h"

/* ---- Coming and leaving ---- */

static int is_porters_thread(const char *number)
{
    return is_thread_named(number, "qnet-port");
}

static void still_there(struct porter *porter, qnet_conn *conn, int attached)
{
    if (attached)
        return;
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
    CHECK_INT(ports_of(porter->hub), 1);
    put(&porter->result, 1);
}

/* Until the first call returns, nothing is read from the peer and nothing goes to it. */
static void told_before_it_is_attached_and_after_it_left(void)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peer;
    qnet_conn *conn;

    porter_open(&porter, &service);
    porter.act = still_there;
    put(&porter.shut, 1);
    peer_join(&peer, service.place, 10);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    told(&porter, 0, 1);
    conn = porter.conns[0];
    device_says(&service.own, EVERYBODY, MAC_FRAME);
    EVENTUALLY(hub_stats_of(service.hub).flooded == 1);
    CHECK_INT(qnet_hub_ports(service.hub, &conn, 1), 1);
    CHECK(conn == service.own.conn);
    conn = porter.conns[0];
    CHECK_INT(stats_of(conn).rx_reads, 0);
    CHECK_INT(qnet_hub_detach(service.hub, conn), QNET_ERR_INVALID);
    CHECK(!raw_has(service.own.fd));
    CHECK_INT(count_threads_that(is_porters_thread), 1);
    put(&porter.shut, 0);
    device_hears(&service.own, &peer, EVERYBODY);
    CHECK_INT(ports_of(service.hub), 2);
    CHECK(!raw_has(peer.fd));
    device_says(&service.own, peer.n, MAC_FRAME);
    CHECK_INT(raw_hear(peer.fd).number, 1);
    EVENTUALLY(count_threads_that(is_porters_thread) == 0);
    leaves(&peer);
    told(&porter, 1, 0);
    CHECK(porter.conns[1] == conn);
    EVENTUALLY(qnet_close_reason(conn) == QNET_ERR_HANDLE);
    CHECK_INT(get(&porter.result), 1);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 2);
    footprint_again(before);
}

static void refuse(struct porter *porter, qnet_conn *conn, int attached)
{
    CHECK_INT(attached, 1);
    (void)porter;
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void a_peer_is_refused(void)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peer;
    int i;

    porter_open(&porter, &service);
    porter.act = refuse;
    for (i = 0; i < 20; i++) {
        peer_join(&peer, service.place, 10);
        hung_up_on(&peer);
    }
    CHECK_INT(ports_of(service.hub), 1);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 20);
    footprint_again(before);
}

static void shut_down(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)porter;
    if (attached)
        CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_ERR_CLOSED);
}

/* One that is only shut down is the library's to close, and has left. */
static void a_peer_is_shut_down(void)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peer;

    porter_open(&porter, &service);
    porter.act = shut_down;
    peer_join(&peer, service.place, 10);
    told(&porter, 1, 0);
    hung_up_on(&peer);
    EVENTUALLY(qnet_close_reason(porter.conns[0]) == QNET_ERR_HANDLE);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 2);
    footprint_again(before);
}

static void take(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)porter;
    if (attached)
        CHECK_INT(qnet_set_batch_handler(conn, ignore_batch, NULL), QNET_OK);
}

/* One that the handler uses otherwise is the program's, and has left. */
static void a_peer_is_taken(void)
{
    struct service service;
    struct porter porter;
    struct device peer;

    porter_open(&porter, &service);
    porter.act = take;
    peer_join(&peer, service.place, 10);
    told(&porter, 1, 0);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 2);
    CHECK_INT(make_send(porter.conns[0]), QNET_OK);
    CHECK_INT(qnet_close(porter.conns[0]), QNET_OK);
    leaves(&peer);
}

static void attach_and_detach(struct porter *porter, qnet_conn *conn, int attached)
{
    if (!attached)
        return;
    CHECK_INT(qnet_hub_attach(porter->hub, conn), QNET_OK);
    CHECK_INT(qnet_hub_detach(porter->hub, conn), QNET_OK);
}

/* One that the handler attaches and detaches is attached behind it all the same, and leaves once. */
static void a_peer_is_attached_and_detached(void)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peer;

    porter_open(&porter, &service);
    porter.act = attach_and_detach;
    peer_join(&peer, service.place, 10);
    speaks(&service, &peer);
    leaves(&peer);
    told(&porter, 1, 0);
    CHECK(porter.conns[1] == porter.conns[0]);
    EVENTUALLY(qnet_close_reason(porter.conns[0]) == QNET_ERR_HANDLE);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 2);
    footprint_again(before);
}

static void prepare(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)porter;
    if (!attached)
        return;
    CHECK_INT(qnet_set(conn, QNET_OPT_PAD, 1), QNET_OK);
    CHECK_INT(qnet_impair(conn, QNET_IN, "loss frames 1"), QNET_OK);
}

/* What the handler sets is in force for the first frame. */
static void a_peer_is_prepared(void)
{
    struct service service;
    struct porter porter;
    struct device peer;
    int64_t value = 0;

    porter_open(&porter, &service);
    porter.act = prepare;
    peer_join(&peer, service.place, 10);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    CHECK_INT(raw_hear(service.own.fd).number, 1);
    CHECK_INT(impair_stats_of(porter.conns[0], QNET_IN).lost, 1);
    CHECK_INT(qnet_get(porter.conns[0], QNET_OPT_PAD, &value), QNET_OK);
    CHECK_INT(value, 1);
    service_close(&service);
    leaves(&peer);
}

static void close_the_one_before(struct porter *porter, qnet_conn *conn, int attached)
{
    int call = get(&porter->calls) - 1;

    (void)conn;
    if (attached && call > 0)
        CHECK_INT(qnet_close(porter->conns[0]), QNET_OK);
}

/* Whatever takes a peer out is told once, with its handle; here from inside the handler. */
static void the_handler_closes_another_peer(void)
{
    struct service service;
    struct porter porter;
    struct device peers[2];

    porter_open(&porter, &service);
    porter.act = close_the_one_before;
    peer_join(&peers[0], service.place, 10);
    speaks(&service, &peers[0]);
    peer_join(&peers[1], service.place, 11);
    told(&porter, 1, 1);
    hung_up_on(&peers[0]);
    told(&porter, 2, 0);
    CHECK(porter.conns[2] == porter.conns[0]);
    speaks(&service, &peers[1]);
    CHECK_INT(get(&porter.calls), 3);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 4);
    CHECK(porter.conns[3] == porter.conns[1] && porter.attached[3] == 0);
    hung_up_on(&peers[1]);
}

static void the_program_detaches_and_closes(void)
{
    struct service service;
    struct porter porter;
    struct device peers[2];

    porter_open(&porter, &service);
    peer_join(&peers[0], service.place, 10);
    speaks(&service, &peers[0]);
    CHECK_INT(qnet_hub_detach(service.hub, porter.conns[0]), QNET_OK);
    told(&porter, 1, 0);
    CHECK(porter.conns[1] == porter.conns[0]);
    CHECK_INT(qnet_hub_attach(service.hub, porter.conns[0]), QNET_OK);
    speaks(&service, &peers[0]);
    CHECK_INT(qnet_close(porter.conns[0]), QNET_OK);
    peer_join(&peers[1], service.place, 11);
    speaks(&service, &peers[1]);
    CHECK_INT(qnet_close(porter.conns[2]), QNET_OK);
    told(&porter, 3, 0);
    CHECK(porter.conns[3] == porter.conns[2]);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 4);
    hung_up_on(&peers[0]);
    hung_up_on(&peers[1]);
}

static void those_there_before_are_not_told(void)
{
    struct service service;
    struct porter porter, other;
    struct device peers[2];

    memset(&porter, 0, sizeof porter);
    memset(&other, 0, sizeof other);
    service_open(&service);
    peer_join(&peers[0], service.place, 10);
    speaks(&service, &peers[0]);
    porter_set(&porter, service.hub);
    peer_join(&peers[1], service.place, 11);
    speaks(&service, &peers[1]);
    leaves(&peers[0]);
    EVENTUALLY(ports_of(service.hub) == 2);
    porter_set(&other, service.hub);
    leaves(&peers[1]);
    EVENTUALLY(qnet_close_reason(porter.conns[0]) == QNET_ERR_HANDLE);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 1);
    CHECK_INT(get(&other.calls), 0);
}

/* ---- Slow handlers, and handlers that are replaced ---- */

/* Frames of others pass, other hubs accept, and peers wait in order, within MAX_CONNS. */
static void a_slow_handler_delays_nobody_else(void)
{
    enum { PEERS = 5, OTHERS = 5 };
    struct footprint before = footprint_now();
    struct service service, other;
    struct device here, peers[PEERS + 1], there;
    struct porter porter;
    int i;

    porter_open(&porter, &service);
    CHECK_INT(qnet_listener_set(service.listener, QNET_OPT_MAX_CONNS, PEERS + 1), QNET_OK);
    peer_join(&here, service.place, 10);
    speaks(&service, &here);
    put(&porter.shut, 1);
    for (i = 0; i <= PEERS; i++) {
        peer_join(&peers[i], service.place, 11 + i);
        if (i < PEERS)
            device_says(&peers[i], service.own.n, MAC_FRAME);
    }
    CHECK(raw_ended(peers[PEERS].fd));
    leaves(&peers[PEERS]);
    told(&porter, 1, 1);
    speaks(&service, &here);
    for (i = 0; i < OTHERS; i++) {
        service_open_at(&other, "other");
        peer_join(&there, other.place, 10);
        speaks(&other, &there);
        service_close(&other);
        hung_up_on(&there);
    }
    CHECK_INT(get(&porter.calls), 2);
    CHECK_INT(ports_of(service.hub), 2);
    put(&porter.shut, 0);
    EVENTUALLY(ports_of(service.hub) == PEERS + 2);
    for (i = 0; i < PEERS; i++)
        (void)raw_hear(service.own.fd);
    for (i = 0; i < PEERS; i++) {
        told(&porter, 1 + i, 1);
        leaves(&peers[i]);
        told(&porter, 1 + PEERS + i, 0);
        CHECK(porter.conns[1 + PEERS + i] == porter.conns[1 + i]);
    }
    service_close(&service);
    leaves(&here);
    footprint_again(before);
}

static void *unsetting(void *hub)
{
    CHECK_INT(qnet_hub_set_port_handler(hub, NULL, NULL), QNET_OK);
    return NULL;
}

/* Taking the handler away waits for its call, but not inside a handler; who waits is attached. */
static void a_handler_is_taken_away(void)
{
    struct service service;
    struct porter porter;
    struct device peers[3];
    pthread_t thread;
    int i;

    porter_open(&porter, &service);
    put(&porter.shut, 1);
    for (i = 0; i < 3; i++)
        peer_join(&peers[i], service.place, 10 + i);
    told(&porter, 0, 1);
    inside_a_handler(unset, service.hub);
    CHECK_INT(get(&porter.returned), 0);
    start_thread(&thread, unsetting, service.hub);
    raw_sleep_ms(20);
    CHECK_INT(pthread_tryjoin_np(thread, NULL), EBUSY);
    CHECK_INT(ports_of(service.hub), 1);
    put(&porter.shut, 0);
    join_thread(thread);
    CHECK_INT(get(&porter.returned), 1);
    EVENTUALLY(ports_of(service.hub) == 4);
    for (i = 0; i < 3; i++)
        speaks(&service, &peers[i]);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 1);
    for (i = 0; i < 3; i++)
        hung_up_on(&peers[i]);
}

static void set_the_next(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)conn;
    (void)attached;
    if (porter->next)
        porter_set(porter->next, porter->hub);
    else
        CHECK_INT(unset(porter->hub), QNET_OK);
}

/* A handler replaces itself, and the next takes itself away. */
static void handlers_replace_themselves(void)
{
    struct service service;
    struct porter porter, other;
    struct device peers[3];
    int i;

    porter_open(&porter, &service);
    memset(&other, 0, sizeof other);
    porter.act = other.act = set_the_next;
    porter.next = &other;
    for (i = 0; i < 3; i++) {
        peer_join(&peers[i], service.place, 10 + i);
        speaks(&service, &peers[i]);
        CHECK_INT(get(&porter.calls), 1);
        CHECK_INT(get(&other.calls), i > 0);
    }
    service_close(&service);
    for (i = 0; i < 3; i++)
        hung_up_on(&peers[i]);
    CHECK_INT(get(&porter.calls) + get(&other.calls), 2);
}

/* ---- Handlers that do not return, or twice ---- */

static void end_its_thread(struct porter *porter, qnet_conn *conn, int attached)
{
    (void)conn;
    if (attached == porter->result)
        pthread_exit(NULL);
}

/* The hub has no handler then, and goes on. */
static void check_dying(int when)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peers[2];

    porter_open(&porter, &service);
    porter.act = end_its_thread;
    porter.result = when;
    peer_join(&peers[0], service.place, 10);
    speaks(&service, &peers[0]);
    leaves(&peers[0]);
    EVENTUALLY(qnet_close_reason(porter.conns[0]) == QNET_ERR_HANDLE);
    CHECK_INT(get(&porter.calls), when ? 1 : 2);
    peer_join(&peers[1], service.place, 11);
    speaks(&service, &peers[1]);
    CHECK_INT(get(&porter.calls), when ? 1 : 2);
    porter_set(&porter, service.hub);
    service_close(&service);
    CHECK_INT(get(&porter.calls), when ? 1 : 2);
    hung_up_on(&peers[1]);
    footprint_again(before);
}

static void a_handler_dies_when_a_peer_comes(void)
{
    check_dying(1);
}

static void a_handler_dies_when_a_peer_leaves(void)
{
    check_dying(0);
}

static void replace_and_die(struct porter *porter, qnet_conn *conn, int attached)
{
    set_the_next(porter, conn, attached);
    pthread_exit(NULL);
}

/* One that was set meanwhile is told of those who waited. */
static void a_handler_dies_that_was_replaced(void)
{
    struct service service;
    struct porter porter, other;
    struct device peers[2];

    porter_open(&porter, &service);
    memset(&other, 0, sizeof other);
    porter.act = replace_and_die;
    porter.next = &other;
    put(&porter.shut, 1);
    peer_join(&peers[0], service.place, 10);
    peer_join(&peers[1], service.place, 11);
    told(&porter, 0, 1);
    put(&porter.shut, 0);
    told(&other, 0, 1);
    speaks(&service, &peers[0]);
    speaks(&service, &peers[1]);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 1);
    CHECK_INT(get(&other.calls), 2);
    hung_up_on(&peers[0]);
    hung_up_on(&peers[1]);
}

static void close_and_die(struct porter *porter, qnet_conn *conn, int attached)
{
    if (!attached)
        return;
    CHECK_INT(qnet_hub_close(porter->hub), QNET_OK);
    CHECK_INT(qnet_close_reason(conn), QNET_OK);
    if (porter->result)
        pthread_exit(NULL);
}

/* Closing the hub inside its handler does not wait; what is left is told behind it, unless it dies. */
static void check_closing_inside(int dies)
{
    struct footprint before = footprint_now();
    struct service service;
    struct porter porter;
    struct device peers[3];
    int i;

    porter_open(&porter, &service);
    peer_join(&peers[0], service.place, 10);
    speaks(&service, &peers[0]);
    put(&porter.shut, 1);
    for (i = 1; i < 3; i++)
        peer_join(&peers[i], service.place, 10 + i);
    told(&porter, 1, 1);
    porter.act = close_and_die;
    porter.result = dies;
    put(&porter.shut, 0);
    for (i = 0; i < 3; i++)
        hung_up_on(&peers[i]);
    if (!dies) {
        told(&porter, 2, 0);
        told(&porter, 3, 0);
        CHECK(porter.conns[2] == porter.conns[0] && porter.conns[3] == porter.conns[1]);
    }
    device_close(&service.own);
    footprint_again(before);
    CHECK_INT(get(&porter.calls), dies ? 2 : 4);
    CHECK_INT(qnet_hub_close(service.hub), QNET_ERR_HANDLE);
}

static void a_handler_closes_its_hub(void)
{
    check_closing_inside(0);
}

static void a_handler_closes_its_hub_and_dies(void)
{
    check_closing_inside(1);
}

static void fork_inside(struct porter *porter, qnet_conn *conn, int attached)
{
    int child, status = 1;

    if (!attached)
        return;
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int is_stale = qnet_close_reason(conn) == QNET_ERR_HANDLE &&
                       ports_of(porter->hub) == QNET_ERR_HANDLE;

        if (!is_stale)
            _exit(1);
        return; /* the thread ends, and the child with it */
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    put(&porter->result, WEXITSTATUS(status) == 0 ? 1 : -1);
}

static void a_handler_forks(void)
{
    struct service service;
    struct porter porter;
    struct device peer;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a sanitizer or valgrind reports what a child has of its parent");
    porter_open(&porter, &service);
    porter.act = fork_inside;
    peer_join(&peer, service.place, 10);
    speaks(&service, &peer);
    CHECK_INT(get(&porter.result), 1);
    leaves(&peer);
    told(&porter, 1, 0);
    service_close(&service);
}

/* While the system refuses the thread, peers wait. */
static void a_handler_waits_for_a_thread(void)
{
    struct rlimit before;
    struct service service;
    struct porter porter;
    struct device peer, first;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    memset(&porter, 0, sizeof porter);
    service_open(&service);
    peer_join(&first, service.place, 9);
    speaks(&service, &first);
    porter_set(&porter, service.hub);
    before = allow_no_stack();
    peer_join(&peer, service.place, 10);
    raw_sleep_ms(100);
    CHECK_INT(get(&porter.calls), 0);
    CHECK_INT(ports_of(service.hub), 2);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    speaks(&service, &peer);
    CHECK_INT(get(&porter.calls), 1);
    service_close(&service);
    CHECK_INT(get(&porter.calls), 2);
    hung_up_on(&peer);
    hung_up_on(&first);
}

static void wrong_arguments(void)
{
    struct service service;
    struct porter porter;

    porter_open(&porter, &service);
    CHECK_INT(qnet_hub_set_port_handler(NULL, porter_told, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_set_port_handler((qnet_hub *)service.listener, porter_told, NULL),
              QNET_ERR_HANDLE);
    CHECK_INT(unset(service.hub), QNET_OK);
    CHECK_INT(unset(service.hub), QNET_OK);
    service_close(&service);
    CHECK_INT(unset(service.hub), QNET_ERR_HANDLE);
}

int main(void)
{
    RUN(told_before_it_is_attached_and_after_it_left);
    RUN(a_peer_is_refused);
    RUN(a_peer_is_shut_down);
    RUN(a_peer_is_taken);
    RUN(a_peer_is_attached_and_detached);
    RUN(a_peer_is_prepared);
    RUN(the_handler_closes_another_peer);
    RUN(the_program_detaches_and_closes);
    RUN(those_there_before_are_not_told);
    RUN(a_slow_handler_delays_nobody_else);
    RUN(a_handler_is_taken_away);
    RUN(handlers_replace_themselves);
    RUN(a_handler_dies_when_a_peer_comes);
    RUN(a_handler_dies_when_a_peer_leaves);
    RUN(a_handler_dies_that_was_replaced);
    RUN(a_handler_closes_its_hub);
    RUN(a_handler_closes_its_hub_and_dies);
    RUN(a_handler_forks);
    RUN(a_handler_waits_for_a_thread);
    RUN(wrong_arguments);
    return check_done();
}
