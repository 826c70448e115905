/*
 * hub_served.c - listeners that a hub serves in the background: peers join and
 * leave by themselves, by the thousand, and nothing of them stays.
 */
#include "service.h"

static const size_t middle_frame = 1514;

/* ---- Served listeners ---- */

/* The connection of the one peer that has joined. */
static qnet_conn *served_one(const struct service *service)
{
    qnet_conn *conns[2];

    EVENTUALLY(ports_of(service->hub) == 2);
    CHECK_INT(qnet_hub_ports(service->hub, conns, 2), 2);
    return conns[0] == service->own.conn ? conns[1] : conns[0];
}

static void peers_join_and_leave(void)
{
    struct footprint before = footprint_now();
    struct service service;
    int turn;

    service_open(&service);
    for (turn = 0; turn < 20; turn++) {
        struct device peer;
        qnet_conn *served;

        peer_join(&peer, service.place, 10 + turn);
        device_says(&peer, EVERYBODY, MAC_FRAME);
        device_hears(&service.own, &peer, EVERYBODY);
        device_says(&service.own, peer.n, MAC_FRAME);
        device_hears(&peer, &service.own, peer.n);
        served = served_one(&service);
        CHECK_INT(qnet_close_reason(served), QNET_OK);
        CHECK_INT(make_recv(served), QNET_ERR_BUSY);
        CHECK_INT(stats_of(served).rx_frames, 1);
        CHECK(close(peer.fd) == 0);
        EVENTUALLY(ports_of(service.hub) == 1);
        EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
        CHECK_INT(qnet_close(served), QNET_ERR_HANDLE);
        CHECK_INT(qnet_hub_detach(service.hub, served), QNET_ERR_HANDLE);
        CHECK_INT(hub_stats_of(service.hub).macs, 1);
    }
    service_close(&service);
    footprint_again(before);
}

/* What was written before joining was noticed, and before leaving, is forwarded. */
static void a_peer_speaks_and_leaves_at_once(void)
{
    struct service service;
    struct device peer;
    unsigned i;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    for (i = 0; i < 20; i++)
        device_says(&peer, EVERYBODY, MAC_FRAME);
    CHECK(close(peer.fd) == 0);
    for (i = 0; i < 20; i++)
        CHECK_INT(raw_hear(service.own.fd).number, i);
    EVENTUALLY(ports_of(service.hub) == 1);
    service_close(&service);
}

/* When the hub is closed, the peers that it served see the end, and nobody can join any more. */
static void hub_close_ends_what_it_served(void)
{
    enum { PEERS = 5 };
    struct footprint before = footprint_now();
    struct ending endings[PEERS + 1];
    struct device peers[PEERS];
    qnet_conn *conns[PEERS + 1];
    struct service service;
    int i;

    memset(endings, 0, sizeof endings);
    service_open(&service);
    for (i = 0; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    EVENTUALLY(ports_of(service.hub) == PEERS + 1);
    CHECK_INT(qnet_hub_ports(service.hub, conns, PEERS + 1), PEERS + 1);
    for (i = 0; i <= PEERS; i++)
        CHECK_INT(qnet_set_close_handler(conns[i], ending_told, &endings[i]), QNET_OK);
    CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
    for (i = 0; i <= PEERS; i++) {
        int is_own = conns[i] == service.own.conn;

        CHECK_INT(get(&endings[i].ends), is_own ? 0 : 1);
        CHECK_INT(qnet_close_reason(conns[i]), is_own ? QNET_OK : QNET_ERR_HANDLE);
    }
    for (i = 0; i < PEERS; i++) {
        raw_take_end(peers[i].fd);
        CHECK(close(peers[i].fd) == 0);
    }
    CHECK(raw_unix_connect(service.place) < 0);
    CHECK_INT(qnet_listener_close(service.listener), QNET_ERR_HANDLE);
    CHECK_INT(recv_now(service.own.conn), QNET_ERR_AGAIN);
    device_close(&service.own);
    footprint_again(before);
}

static void *closing_hub(void *hub)
{
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    return NULL;
}

/*
 * Closing the hub waits for the close handlers of served connections, also of one that had
 * ended before.
 */
static void check_hub_close_waits(int peer_leaves_before)
{
    struct ending ending = { 0, 0, 0, 1 };
    struct service service;
    struct device peer;
    pthread_t closer;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    if (peer_leaves_before) {
        CHECK(close(peer.fd) == 0);
        EVENTUALLY(get(&ending.thread) != 0);
    }
    start_thread(&closer, closing_hub, service.hub);
    EVENTUALLY(get(&ending.thread) != 0);
    EVENTUALLY(ports_of(service.hub) == QNET_ERR_HANDLE);
    raw_sleep_ms(20);
    CHECK_INT(pthread_tryjoin_np(closer, NULL), EBUSY);
    put(&ending.shut, 0);
    join_thread(closer);
    check_told(&ending, QNET_ERR_CLOSED);
    if (!peer_leaves_before)
        CHECK(close(peer.fd) == 0);
    device_close(&service.own);
}

static void hub_close_waits_for_close_handlers(void)
{
    check_hub_close_waits(0);
}

static void hub_close_waits_for_who_left_before(void)
{
    check_hub_close_waits(1);
}

/*
 * While the system refuses a thread for it, a close handler waits; it is called when there
 * is one again.
 */
static void a_close_handler_waits_for_a_thread(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct rlimit before;
    struct service service;
    struct device peer;

    if (!HAS_ROOM_FOR_ITSELF || is_under_valgrind())
        check_skip("a limit of the address space would stop more than threads");
    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    before = allow_no_stack();
    CHECK(close(peer.fd) == 0);
    EVENTUALLY(ports_of(service.hub) == 1);
    raw_sleep_ms(100);
    CHECK_INT(get(&ending.ends), 0);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    EVENTUALLY(get(&ending.ends) == 1);
    check_told(&ending, QNET_ERR_CLOSED);
    service_close(&service);
}

static void end_this_thread(void *user, int reason)
{
    ending_told(user, reason);
    pthread_exit(NULL);
}

/* A close handler that ends its own thread counts as returned: the connection is given back. */
static void a_close_handler_ends_its_thread(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct service service;
    struct device peer;
    qnet_conn *served;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_set_close_handler(served, end_this_thread, &ending), QNET_OK);
    CHECK(close(peer.fd) == 0);
    EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
    check_told(&ending, QNET_ERR_CLOSED);
    service_close(&service);
}

/* A served connection that is detached becomes the caller's. */
static void a_detached_peer_is_the_callers(void)
{
    uint8_t frame[2048];
    struct service service;
    struct device peer;
    qnet_conn *served;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_hub_detach(service.hub, served), QNET_OK);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    CHECK_INT(make_recv(served), MAC_FRAME);
    service_close(&service);
    CHECK_INT(make_send(served), QNET_OK);
    CHECK_INT(raw_recv(peer.fd, frame, sizeof frame), 1514);
    CHECK(close(peer.fd) == 0);
    CHECK_INT(make_recv(served), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(served), QNET_OK);
}

/* The caller may close a served connection, or only end it, after which the hub gives it back. */
static void the_caller_ends_served_connections(void)
{
    struct service service;
    int by_close;

    service_open(&service);
    for (by_close = 0; by_close < 2; by_close++) {
        struct device peer;
        qnet_conn *served;

        peer_join(&peer, service.place, 10);
        served = served_one(&service);
        CHECK_INT(by_close ? qnet_close(served) : qnet_shutdown(served), QNET_OK);
        raw_take_end(peer.fd);
        EVENTUALLY(qnet_close_reason(served) == QNET_ERR_HANDLE);
        CHECK_INT(ports_of(service.hub), 1);
        CHECK(close(peer.fd) == 0);
    }
    service_close(&service);
}

/* A hub's peers stay when its listener is closed; and only one hub may serve a listener. */
static void a_listener_closed_before_its_hub(void)
{
    struct service service;
    struct device peer;
    qnet_listener *next;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    EVENTUALLY(ports_of(service.hub) == 2);
    CHECK_INT(qnet_hub_serve(service.hub, service.listener), QNET_ERR_BUSY);
    CHECK_INT(qnet_listener_close(service.listener), QNET_OK);
    CHECK(raw_unix_connect(service.place) < 0);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peer, EVERYBODY);
    CHECK_INT(qnet_listen("unix", service.place, &next), QNET_OK);
    CHECK_INT(qnet_hub_serve(service.hub, next), QNET_OK);
    CHECK(close(peer.fd) == 0);
    peer_join(&peer, service.place, 11);
    device_says(&peer, EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peer, EVERYBODY);
    service_close(&service);
    raw_take_end(peer.fd);
    CHECK(close(peer.fd) == 0);
    CHECK_INT(qnet_listener_close(next), QNET_ERR_HANDLE);
}

/* Served peers start with their listener's options. */
static void peers_have_their_listeners_options(void)
{
    struct service service;
    struct device peer;
    int64_t value = 0;
    qnet_conn *served;

    service_open(&service);
    CHECK_INT(qnet_listener_set(service.listener, QNET_OPT_PAD, 1), QNET_OK);
    peer_join(&peer, service.place, 10);
    served = served_one(&service);
    CHECK_INT(qnet_get(served, QNET_OPT_PAD, &value), QNET_OK);
    CHECK_INT(value, 1);
    service_close(&service);
    CHECK(close(peer.fd) == 0);
}

static void no_more_peers_than_max_conns(void)
{
    enum { MOST = 3, PEERS = 6 };
    struct device peers[PEERS];
    struct service service;
    qnet_conn *first;
    int i;

    service_open(&service);
    CHECK_INT(qnet_listener_set(service.listener, QNET_OPT_MAX_CONNS, MOST), QNET_OK);
    peer_join(&peers[0], service.place, 10);
    first = served_one(&service);
    for (i = 1; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    for (i = MOST; i < PEERS; i++)
        CHECK(raw_ended(peers[i].fd));
    CHECK_INT(ports_of(service.hub), MOST + 1);
    for (i = 0; i < MOST; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        device_hears(&service.own, &peers[i], service.own.n);
    }
    CHECK(close(peers[0].fd) == 0);
    EVENTUALLY(qnet_close_reason(first) == QNET_ERR_HANDLE);
    CHECK_INT(ports_of(service.hub), MOST);
    peer_join(&peers[0], service.place, 10);
    EVENTUALLY(ports_of(service.hub) == MOST + 1);
    service_close(&service);
    for (i = 0; i < PEERS; i++)
        CHECK(close(peers[i].fd) == 0);
}

/* Lets this process open `count` descriptors more than it has; the limit before. */
static struct rlimit leave_descriptors(unsigned count)
{
    struct rlimit before, now;
    int next = dup(0);

    CHECK(next >= 0);
    CHECK(close(next) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    now = before;
    now.rlim_cur = (rlim_t)next + count;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    return before;
}

/* Without a free descriptor accepting waits, without being busy, and goes on when there is one. */
static void without_descriptors_serving_waits(void)
{
    enum { PEERS = 12, ALLOWED = 4 };
    struct sockaddr_un address;
    struct device peers[PEERS];
    struct service service;
    struct rlimit before;
    long long wall;
    long busy;
    socklen_t len;
    int i;

    if (is_under_valgrind())
        check_skip("valgrind accepts and hangs up where the system refuses a descriptor");
    service_open(&service);
    len = raw_unix_address(service.place, &address);
    memset(peers, 0, sizeof peers);
    /* While the hub looks for peers, it holds a descriptor for the next. Who is heard came in the last look. */
    peer_join(&peers[0], service.place, 10);
    device_says(&peers[0], EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peers[0], EVERYBODY);
    for (i = 1; i < PEERS; i++) {
        peers[i].n = 10 + i;
        peers[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(peers[i].fd >= 0);
    }
    before = leave_descriptors(ALLOWED - 1);
    for (i = 1; i < PEERS; i++)
        CHECK(connect(peers[i].fd, (struct sockaddr *)&address, len) == 0);
    EVENTUALLY(ports_of(service.hub) == ALLOWED + 1);
    wall = raw_now_ms();
    busy = cpu_ms();
    raw_sleep_ms(300);
    busy = cpu_ms() - busy;
    wall = raw_now_ms() - wall;
    CHECK(busy < wall / 2);
    CHECK_INT(ports_of(service.hub), ALLOWED + 1);
    device_says(&peers[0], EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peers[0], EVERYBODY);
    device_hears(&peers[ALLOWED - 1], &peers[0], EVERYBODY);
    for (i = 0; i < ALLOWED; i++)
        CHECK(shutdown(peers[i].fd, SHUT_RDWR) == 0);
    device_says(&peers[ALLOWED], EVERYBODY, MAC_FRAME);
    device_hears(&service.own, &peers[ALLOWED], EVERYBODY);
    EVENTUALLY(ports_of(service.hub) == ALLOWED + 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    EVENTUALLY(ports_of(service.hub) == PEERS - ALLOWED + 1);
    for (i = ALLOWED; i < PEERS; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        CHECK_INT(raw_hear(service.own.fd).from, peers[i].n);
    }
    service_close(&service);
    for (i = 0; i < PEERS; i++)
        CHECK(close(peers[i].fd) == 0);
}

static void a_thousand_peers(void)
{
    enum { PEERS = 1000 };
    static struct device peers[PEERS];
    struct footprint before;
    struct service service;
    int i;

    allow_descriptors(2 * PEERS + 100);
    before = footprint_now();
    service_open(&service);
    for (i = 0; i < PEERS; i++)
        peer_join(&peers[i], service.place, 10 + i);
    EVENTUALLY(ports_of(service.hub) == PEERS + 1);
    for (i = 0; i < PEERS; i++) {
        device_says(&peers[i], service.own.n, MAC_FRAME);
        if (i > 0)
            continue;
        CHECK_INT(raw_hear(service.own.fd).from, peers[i].n);
        device_says(&service.own, EVERYBODY, MAC_FRAME);
    }
    for (i = 1; i < PEERS; i++)
        CHECK_INT(raw_hear(service.own.fd).to, service.own.n);
    for (i = 0; i < PEERS; i++) {
        struct word word;

        do
            word = raw_hear(peers[i].fd);
        while (word.from != service.own.n);
        CHECK_INT(word.to, EVERYBODY);
    }
    CHECK(footprint_now().threads <= MOST_LOOPS);
    CHECK_INT(hub_stats_of(service.hub).dropped, 0);
    for (i = 0; i < PEERS; i += 2)
        CHECK(close(peers[i].fd) == 0);
    EVENTUALLY(ports_of(service.hub) == PEERS / 2 + 1);
    service_close(&service);
    for (i = 1; i < PEERS; i += 2)
        CHECK(close(peers[i].fd) == 0);
    footprint_again(before);
}

/* Peers that join, perhaps speak, perhaps listen, and leave, one after another. */
struct storm {
    pthread_t thread;
    const char *place;
    int n;
    int peers;
    unsigned state;
};

static void *storming(void *argument)
{
    struct storm *storm = argument;
    int i;

    for (i = 0; i < storm->peers; i++) {
        struct device peer;
        unsigned what = next_random(&storm->state);

        peer_join(&peer, storm->place, storm->n);
        if (what & 1)
            device_says(&peer, EVERYBODY, MAC_FRAME);
        if (what & 2)
            device_says(&peer, 1, middle_frame);
        if ((what & 12) == 12)
            raw_write(peer.fd, "\0\0\0\074 half a frame", 12);
        if ((what & 48) == 48)
            (void)raw_readable(peer.fd, 1);
        CHECK(close(peer.fd) == 0);
    }
    return NULL;
}

/* Joins, says the end, and waits to be hung up on: all who connected before have been accepted then. */
static void last_in_line(const char *place)
{
    char scratch[4096];
    struct device last;

    peer_join(&last, place, 9);
    CHECK(shutdown(last.fd, SHUT_WR) == 0);
    while (recv(last.fd, scratch, sizeof scratch, 0) > 0)
        continue;
    CHECK(close(last.fd) == 0);
}

/*
 * A peer that has left counts for MAX_CONNS until the hub has closed its connection, and nothing says
 * how soon it does. So there are fewer peers in a wave, of which all may count at once, and the next
 * wave waits until they have left: the hub hangs up on none of them.
 */
static void storm_once(const struct service *service, int peers)
{
    enum { WAVE = 100 };
    struct storm storms[4];
    int i;

    for (i = 0; i < 4; i++) {
        storms[i].place = service->place;
        storms[i].n = 10 + i;
        storms[i].state = (unsigned)i;
    }
    for (; peers > 0; peers -= WAVE) {
        for (i = 0; i < 4; i++) {
            storms[i].peers = peers < WAVE ? peers : WAVE;
            start_thread(&storms[i].thread, storming, &storms[i]);
        }
        for (i = 0; i < 4; i++)
            join_thread(storms[i].thread);
        last_in_line(service->place);
        EVENTUALLY(ports_of(service->hub) == 1);
    }
}

/*
 * Thousands of peers come and go, and leave nothing behind: no port, no descriptor, no memory.
 * Memory that grows with every storm is lost; what grows once may be kept for the
 * next.
 */
static void a_storm_of_peers(void)
{
    int peers = 10 + rounds(1000), times = 0;
    struct footprint before = footprint_now();
    struct service service;
    struct raw_job reader;
    long memory;

    service_open(&service);
    raw_start(&reader, reading_until_the_end, service.own.fd, flow_of_small_frames(), 0);
    storm_once(&service, peers);
    do {
        CHECK(times++ < 4);
        memory = resident_bytes();
        storm_once(&service, 2 * peers);
    } while (check_slow() == 1 && resident_bytes() - memory >= 2000 << 10);
    CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
    CHECK_INT(qnet_close(service.own.conn), QNET_OK);
    join_thread(reader.thread);
    CHECK(close(service.own.fd) == 0);
    footprint_again(before);
}

/* A hub is closed while peers join and leave. */
static void a_hub_closes_in_a_storm(void)
{
    struct footprint before = footprint_now();
    int round;

    for (round = 0; round < rounds(50); round++) {
        struct device peers[8];
        struct service service;
        int i;

        service_open(&service);
        for (i = 0; i < 8; i++) {
            peer_join(&peers[i], service.place, 10 + i);
            device_says(&peers[i], EVERYBODY, MAC_FRAME);
            if (i % 2)
                CHECK(close(peers[i].fd) == 0);
        }
        if (round % 2)
            raw_sleep_ms(1);
        CHECK_INT(qnet_hub_close(service.hub), QNET_OK);
        for (i = 0; i < 8; i += 2) {
            CHECK(raw_readable(peers[i].fd, patience_ms()));
            CHECK(close(peers[i].fd) == 0);
        }
        device_close(&service.own);
    }
    footprint_again(before);
}

static int do_close_the_served(void *argument)
{
    struct service *service = argument;

    return qnet_hub_close(service->hub);
}

/* Inside a handler closing a hub does not wait for the close handlers of what it served. */
static void a_served_hub_closes_inside_a_handler(void)
{
    struct ending ending = { 0, 0, 0, 1 };
    struct service service;
    struct device peer;

    service_open(&service);
    peer_join(&peer, service.place, 10);
    CHECK_INT(qnet_set_close_handler(served_one(&service), ending_told, &ending), QNET_OK);
    inside_a_handler(do_close_the_served, &service);
    CHECK_INT(get(&ending.ends), 0);
    put(&ending.shut, 0);
    EVENTUALLY(get(&ending.ends) == 1);
    check_told(&ending, QNET_ERR_CLOSED);
    raw_take_end(peer.fd);
    CHECK(close(peer.fd) == 0);
    device_close(&service.own);
}

int main(void)
{
    RUN(peers_join_and_leave);
    RUN(a_peer_speaks_and_leaves_at_once);
    RUN(hub_close_ends_what_it_served);
    RUN(hub_close_waits_for_close_handlers);
    RUN(hub_close_waits_for_who_left_before);
    RUN(a_close_handler_waits_for_a_thread);
    RUN(a_close_handler_ends_its_thread);
    RUN(a_detached_peer_is_the_callers);
    RUN(the_caller_ends_served_connections);
    RUN(a_listener_closed_before_its_hub);
    RUN(peers_have_their_listeners_options);
    RUN(no_more_peers_than_max_conns);
    RUN(without_descriptors_serving_waits);
    RUN(a_thousand_peers);
    RUN(a_storm_of_peers);
    RUN(a_hub_closes_in_a_storm);
    RUN(a_served_hub_closes_inside_a_handler);
    return check_done();
}
