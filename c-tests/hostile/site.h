/*
 * site.h - a site that crowds of hostile peers connect to: a listener that a
 * hub serves, or one whose connections the program pulls from or handles.
 * Whatever they do, two good peers go on through the same hub or listener and
 * lose nothing; what the process holds is bounded meanwhile, and is afterwards
 * what it was before.
 */
#ifndef SITE_H
#define SITE_H

#include <sys/prctl.h>

#include "far.h"

enum {
    NEAR = 1, FAR = 2, HERALD = 3,      /* the addresses of the good peers, and that of who tells of them */
    FIRST_PEER = 10,                    /* and of the first of a crowd */
    WINDOW = 8,                         /* how many frames the good peers have on their way */
    PEERS_MOST = 5000, A_FEW = 32,
    LINGER_SHORT_MS = 50,
    QUEUE = 64 << 10, MACS_MOST = 64,   /* what a hub is allowed to hold */
    /* How many bytes the process may take that are not any peer's. */
    SLACK = 1 << 20,
    /* How many bytes a peer may cost, and how many more its handler's thread. */
    PEER_COST = 16 << 10, HANDLER_COST = 64 << 10
};

/* ---- The site ---- */

enum { BY_HUB, BY_PULLS, BY_HANDLERS };

struct site_kind {
    const char *name;
    int way;
    int is_tcp;
};

/* The kind that the running test is about, and the one site of its process; see RUN_SITES. */
static const struct site_kind *site_kind;

static struct {
    qnet_listener *listener;
    qnet_hub *hub;
    char place[100];
    pthread_t keeper;      /* accepts, and pulls, where there is no hub */
    int is_over;
    int guests;            /* how many are connected, where there is no hub */
    int ends[16];          /* how many connections ended, by their reasons */
    int runts;             /* how many runts the ended connections had received */
} site;

static inline void raise_by(int *number, int by)
{
    __atomic_add_fetch(number, by, __ATOMIC_SEQ_CST);
}

static inline void guest_ended(void *conn, int reason)
{
    qnet_stats stats;

    if (qnet_get_stats(conn, &stats, sizeof stats) > 0)
        raise_by(&site.runts, (int)stats.rx_runts);
    count_up(&site.ends[-reason]);
    if (site_kind->way == BY_HANDLERS) {
        raise_by(&site.guests, -1);
        qnet_close(conn);
    }
}

/* A handler that sends each frame back. */
static inline void give_back(void *conn, const uint8_t *frame, size_t len)
{
    qnet_send(conn, frame, len); /* it fails where the peer has left */
}

static inline void guest_comes(qnet_conn *conn)
{
    count_up(&site.guests);
    CHECK_INT(qnet_set_close_handler(conn, guest_ended, conn), QNET_OK);
    if (site_kind->way == BY_HANDLERS)
        CHECK_INT(qnet_set_handler(conn, give_back, conn), QNET_OK);
}

/* Pulls what is there, and sends it back. Returns whether the connection has ended. */
static inline int guest_is_served(qnet_conn *conn)
{
    static uint8_t wire[QNET_FRAME_MAX + RAW_PREFIX];
    int len = qnet_recv_packed(conn, wire, sizeof wire, 0);

    if (len > 0)
        qnet_send_packed(conn, wire, (size_t)len);
    return len < 0 && len != QNET_ERR_AGAIN;
}

/* Serves each guest that has something, after waiting for one a little. Returns how many are left. */
static inline int guests_are_served(qnet_conn **guests, int count)
{
    static uint8_t ready[PEERS_MOST];
    int at, left = 0;

    CHECK(qnet_poll(guests, ready, (size_t)count, 1) >= 0);
    for (at = 0; at < count; at++) {
        if (ready[at] && guest_is_served(guests[at])) {
            CHECK_INT(qnet_close(guests[at]), QNET_OK);
            raise_by(&site.guests, -1);
        } else {
            guests[left++] = guests[at];
        }
    }
    return left;
}

/* The thread of a site without a hub: accepts, and sets handlers or pulls. */
static inline void *keeping(void *unused)
{
    static qnet_conn *guests[2 * PEERS_MOST]; /* those with handlers close themselves, and stay */
    int count = 0, pulls = site_kind->way == BY_PULLS, few;

    (void)unused;
    while (!get(&site.is_over)) {
        int timeout_ms = pulls && count > 0 ? 0 : 1; /* polling waits, too */

        for (few = 0; few < A_FEW; few++) {
            CHECK(count < (pulls ? PEERS_MOST : 2 * PEERS_MOST));
            if (qnet_accept(site.listener, timeout_ms, &guests[count]) != QNET_OK)
                break;
            guest_comes(guests[count++]);
        }
        if (pulls && count > 0)
            count = guests_are_served(guests, count);
    }
    while (count > 0)
        qnet_close(guests[--count]);
    return NULL;
}

static inline void site_listen(void)
{
    const char *network = site_kind->is_tcp ? "tcp" : "unix";
    const char *address = site_kind->is_tcp ? "127.0.0.1:0" : scratch_abstract("site");

    CHECK_INT(qnet_listen(network, address, &site.listener), QNET_OK);
    CHECK(qnet_listener_addr(site.listener, site.place, sizeof site.place) > 0);
    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_LINGER_MS, LINGER_SHORT_MS), QNET_OK);
    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, PEERS_MOST), QNET_OK);
    if (site_kind->way == BY_PULLS)
        CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
}

static inline void site_serve(void)
{
    if (site_kind->way == BY_HUB) {
        CHECK_INT(qnet_hub_new(&site.hub), QNET_OK);
        CHECK_INT(qnet_hub_set(site.hub, QNET_OPT_QUEUE_BYTES, QUEUE), QNET_OK);
        CHECK_INT(qnet_hub_set(site.hub, QNET_OPT_MAC_MAX, MACS_MOST), QNET_OK);
        CHECK_INT(qnet_hub_serve(site.hub, site.listener), QNET_OK);
    } else {
        start_thread(&site.keeper, keeping, NULL);
    }
}

static inline void site_close(void)
{
    if (site_kind->way == BY_HUB) {
        CHECK_INT(qnet_hub_close(site.hub), QNET_OK);
    } else {
        put(&site.is_over, 1);
        join_thread(site.keeper);
        CHECK_INT(qnet_listener_close(site.listener), QNET_OK);
    }
}

/* A peer's plain socket, which sends at once what is written to it. */
static inline int site_connect(void)
{
    int yes = 1, is_tcp = site_kind->is_tcp;
    int fd = is_tcp ? raw_tcp_connect(port_in(site.place)) : raw_unix_connect(site.place);

    CHECK(fd >= 0);
    if (is_tcp)
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    return fd;
}

static inline int guests_now(void)
{
    return site_kind->way == BY_HUB ? ports_of(site.hub) : get(&site.guests);
}

static inline int ends_by(int reason)
{
    return get(&site.ends[-reason]);
}

/* ---- Two good peers ---- */

static struct {
    int near, far;
    pthread_t near_thread, far_thread;
    int tells_all; /* whether one frame of each round goes to everybody */
    int rounds, is_over;
} pair;

/* Reads the next frame from one of two devices, and skips those of others. Returns 0 at the end. */
static inline int hear_from(int fd, int one, int other, struct word *word)
{
    /* Not __thread, as each of the library's threads would have that memory, too. */
    uint8_t *frame = allocate(QNET_FRAME_MAX);
    int from = 0;
    long len;

    do {
        len = raw_recv(fd, frame, QNET_FRAME_MAX);
        if (len >= MAC_FRAME)
            from = (int)get_number(frame + MAC_LEN + 2);
    } while (len >= 0 && from != one && from != other);
    if (len >= 0)
        *word = word_of(frame, (size_t)len);
    free(frame);
    return len >= 0;
}

/* The far peer answers each frame, as a site without a hub does by itself. */
static inline void *far_talking(void *unused)
{
    struct word word;

    (void)unused;
    while (hear_from(pair.far, NEAR, NEAR, &word)) {
        word.to = NEAR;
        word.from = FAR;
        raw_say(pair.far, word);
    }
    return NULL;
}

/* The near peer sends some numbered frames and reads as many answers, until it is told to stop. */
static inline void *near_talking(void *unused)
{
    static const size_t lengths[] = { 60, 1514, 9000 };
    unsigned said = 0, heard = 0;

    (void)unused;
    while (!get(&pair.is_over)) {
        do {
            struct word word = { FAR, NEAR, 0, 0 };

            if (get(&pair.tells_all) && said % WINDOW == 0)
                word.to = EVERYBODY;
            word.len = lengths[said % 3];
            word.number = said++;
            raw_say(pair.near, word);
        } while (said % WINDOW != 0);
        for (; heard < said; heard++) {
            struct word word;

            CHECK(hear_from(pair.near, NEAR, FAR, &word));
            CHECK_INT(word.number, heard);
            CHECK_INT(word.len, lengths[heard % 3]);
        }
        count_up(&pair.rounds);
    }
    return NULL;
}

/* How many peers are connected when there are `more` than the good ones. */
static inline int good_and(int more)
{
    return more + (site_kind->way == BY_HUB ? 2 : 1);
}

static inline void pair_goes_on(void)
{
    int before = get(&pair.rounds);

    EVENTUALLY(get(&pair.rounds) >= before + 5);
}

/*
 * Returns when both are ports, as what the near one says to nobody is lost. With TCP the hub may read from a
 * peer before it can accept another one that has connected earlier.
 */
static inline void pair_meets(void)
{
    struct word here = { NEAR, HERALD, 0, MAC_FRAME };

    do {
        raw_say(pair.far, here);
    } while (!raw_readable(pair.near, 100));
}

static inline void pair_start(void)
{
    put(&pair.is_over, 0);
    pair.near = site_connect();
    if (site_kind->way == BY_HUB) {
        pair.far = site_connect();
        pair_meets();
        start_thread(&pair.far_thread, far_talking, NULL);
    }
    start_thread(&pair.near_thread, near_talking, NULL);
    pair_goes_on();
}

static inline void pair_end(void)
{
    put(&pair.is_over, 1);
    join_thread(pair.near_thread);
    if (site_kind->way == BY_HUB) {
        CHECK(shutdown(pair.far, SHUT_RDWR) == 0);
        join_thread(pair.far_thread);
        CHECK(close(pair.far) == 0);
    }
    CHECK(close(pair.near) == 0);
}

/* The hostile peers. */
static struct {
    int fds[PEERS_MOST];
    int count;
} crowd;

/* ---- What the process holds ---- */

/* What the process held before the storm. */
static struct {
    struct footprint footprint;
    long resident;
} held;

static inline int footprint_is_within(struct footprint most)
{
    struct footprint now = footprint_now();

    return now.descriptors <= most.descriptors && now.threads <= most.threads;
}

/*
 * Checks that the process holds no more than it may while `peers` of the crowd
 * are connected, each of which may cost `each` further bytes.
 */
static inline void check_held(int peers, long each)
{
    int threads = site_kind->way == BY_HANDLERS ? peers : 0;
    long grown, most = SLACK + peers * (PEER_COST + each) + threads * HANDLER_COST;
    struct footprint bound = held.footprint;

    /*
     * The crowd's own descriptors, the library's, those that handlers' threads
     * wait on, and some that calls which wait have just now.
     */
    bound.descriptors += crowd.count + peers + threads + 4;
    bound.threads += threads + 1; /* and qnet-service */
    EVENTUALLY(footprint_is_within(bound)); /* what has just ended takes its time to go */
    grown = resident_bytes() - held.resident;
    if (HAS_ROOM_FOR_ITSELF && grown > most) /* a sanitizer's memory is its own affair */
        CHECK_INT(grown, most);
}

/* A storm beside two good peers. Nothing is left of either afterwards. */
static inline void storm_passes(void (*storm)(void), struct footprint calm)
{
    pair_start();
    held.footprint = footprint_now();
    held.resident = resident_bytes();
    storm();
    pair_goes_on();
    pair_end();
    EVENTUALLY(guests_now() == 0);
    EVENTUALLY(footprint_is_within(calm));
}

static inline int storm_leaves_memory(void (*storm)(void), struct footprint calm)
{
    long before = resident_bytes();

    storm_passes(storm, calm);
    return HAS_ROOM_FOR_ITSELF && resident_bytes() > before + SLACK;
}

/* Memory that grows with every storm is leaked; what grows once may be kept for the next one. */
static inline void storms(void (*storm)(void))
{
    struct footprint before = footprint_now(), calm;
    int times;

    site_listen();
    site_serve();
    pair_start();
    pair_end();
    EVENTUALLY(guests_now() == 0);
    calm = footprint_now();
    storm_passes(storm, calm);
    for (times = 0; storm_leaves_memory(storm, calm); times++)
        CHECK(times < 4);
    site_close();
    footprint_again(before);
}

/* ---- A crowd ---- */

/* Sets close handlers that count the reasons for which the ports of a hub end. */
static inline void count_ends(void)
{
    qnet_conn *ports[PEERS_MOST];
    int count, i;

    if (site_kind->way != BY_HUB)
        return;
    count = qnet_hub_ports(site.hub, ports, PEERS_MOST);
    for (i = 0; i < count; i++)
        CHECK_INT(qnet_set_close_handler(ports[i], guest_ended, ports[i]), QNET_OK);
}

static inline void crowd_comes(int count)
{
    for (crowd.count = 0; crowd.count < count; crowd.count++)
        crowd.fds[crowd.count] = site_connect();
    EVENTUALLY(guests_now() == good_and(count));
    count_ends();
}

static inline void crowd_leaves(void)
{
    while (crowd.count > 0)
        CHECK(close(crowd.fds[--crowd.count]) == 0);
}

/*
 * What peer `i` of the crowd says, and which socket hears it: its neighbour's, or without
 * a hub its own.
 */
static inline struct word crowd_word(int i, unsigned number)
{
    struct word word = { 0, 0, 0, MAC_FRAME };

    word.to = FIRST_PEER + (i ^ 1);
    word.from = FIRST_PEER + i;
    word.number = number;
    return word;
}

static inline int crowd_ear(int i)
{
    return crowd.fds[site_kind->way == BY_HUB ? i ^ 1 : i];
}

/* ---- Running them ---- */

/* Runs a test once for each kind of site, or only for those of Unix sockets. */
static inline void run_sites(const char *name, void (*test)(void), int only_unix)
{
    static const struct site_kind kinds[] = {
        { "unix, hub", BY_HUB, 0 },         { "tcp, hub", BY_HUB, 1 },
        { "unix, pulls", BY_PULLS, 0 },     { "tcp, pulls", BY_PULLS, 1 },
        { "unix, handlers", BY_HANDLERS, 0 }, { "tcp, handlers", BY_HANDLERS, 1 },
    };
    size_t i;

    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (only_unix && kinds[i].is_tcp)
            continue;
        site_kind = &kinds[i];
        run_with(name, site_kind->name, test);
    }
}
#define RUN_SITES(test) run_sites(#test, test, 0)
#define RUN_UNIX_SITES(test) run_sites(#test, test, 1)

/* What main does before its first test. */
static inline void site_prepare(void)
{
    allow_descriptors(4096);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* memory that is not touched costs nothing then */
    scratch_make();
}

#endif
