/*
 * peers.c - crowds of hostile peers, at a listener that a hub serves and at one
 * whose connections the program pulls from or handles. Whatever they do, two
 * good peers go on through the same hub or listener and lose nothing; what the
 * process holds is bounded meanwhile, and is afterwards what it was before.
 */
#include <sys/prctl.h>

#include "far.h"

enum {
    NEAR = 1, FAR = 2, FIRST_PEER = 10, /* whose addresses they are */
    WINDOW = 8,                         /* frames that the good peers have on their way */
    PEERS_MOST = 5000, A_FEW = 32,
    LINGER_SHORT_MS = 50,
    QUEUE = 64 << 10, MACS_MOST = 64,   /* what a hub is allowed to hold */
    /* How much the resident set may grow for no reason of any peer's. */
    SLACK = 1 << 20,
    /* What a peer may cost; a handler's thread has a stack, too. */
    PEER_COST = 16 << 10, HANDLER_COST = 64 << 10
};

/* ---- Where peers come to ---- */

enum { BY_HUB, BY_PULLS, BY_HANDLERS };

struct site_kind {
    const char *name;
    int way;
    int is_tcp;
};

/* The kind that the running test is about, and the one site that its process has; see RUN_SITES. */
static const struct site_kind *site_kind;

static struct {
    qnet_listener *listener;
    qnet_hub *hub;
    char place[100];
    pthread_t keeper;      /* accepts, and pulls, where there is no hub */
    int is_over;
    int guests;            /* that are connected, where there is no hub */
    int ends[16];          /* how many connections ended, by their reasons */
    int runts;             /* what those had received that had ended */
} site;

static void raise_by(int *number, int by)
{
    __atomic_add_fetch(number, by, __ATOMIC_SEQ_CST);
}

static void guest_ended(void *conn, int reason)
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

/* What comes is sent back. */
static void give_back(void *conn, const uint8_t *frame, size_t len)
{
    qnet_send(conn, frame, len); /* failing, the peer has left */
}

static void guest_comes(qnet_conn *conn)
{
    count_up(&site.guests);
    CHECK_INT(qnet_set_close_handler(conn, guest_ended, conn), QNET_OK);
    if (site_kind->way == BY_HANDLERS)
        CHECK_INT(qnet_set_handler(conn, give_back, conn), QNET_OK);
}

/* Pulls what is there, and gives it back to who reads. Returns whether the connection has ended. */
static int guest_is_served(qnet_conn *conn)
{
    static uint8_t wire[QNET_FRAME_MAX + RAW_PREFIX];
    int len = qnet_recv_packed(conn, wire, sizeof wire, 0);

    if (len > 0)
        qnet_send_packed(conn, wire, (size_t)len);
    return len < 0 && len != QNET_ERR_AGAIN;
}

/* Gives each guest that has something its turn, waiting a little for the first. */
static int guests_are_served(qnet_conn **guests, int count)
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

/* A program that accepts, and handles or pulls. */
static void *keeping(void *unused)
{
    static qnet_conn *guests[PEERS_MOST]; /* with handlers they close themselves, and stay in here */
    int count = 0, pulls = site_kind->way == BY_PULLS, few;

    (void)unused;
    while (!get(&site.is_over)) {
        int timeout_ms = pulls && count > 0 ? 0 : 1; /* polling waits, too */

        for (few = 0; few < A_FEW; few++) {
            CHECK(count < PEERS_MOST);
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

static void site_listen(void)
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

static void site_serve(void)
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

static void site_close(void)
{
    if (site_kind->way == BY_HUB) {
        CHECK_INT(qnet_hub_close(site.hub), QNET_OK);
    } else {
        put(&site.is_over, 1);
        join_thread(site.keeper);
        CHECK_INT(qnet_listener_close(site.listener), QNET_OK);
    }
}

/* A peer's socket. What it writes goes out at once. */
static int site_connect(void)
{
    int yes = 1, is_tcp = site_kind->is_tcp;
    int fd = is_tcp ? raw_tcp_connect(port_in(site.place)) : raw_unix_connect(site.place);

    CHECK(fd >= 0);
    if (is_tcp)
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    return fd;
}

static int guests_now(void)
{
    return site_kind->way == BY_HUB ? ports_of(site.hub) : get(&site.guests);
}

static int ends_by(int reason)
{
    return get(&site.ends[-reason]);
}

/* ---- Two good peers ---- */

static struct {
    int near, far;
    pthread_t near_thread, far_thread;
    int tells_all; /* one frame of each round goes to everybody */
    int rounds, is_over;
} pair;

/* The next frame from one of two devices, whatever others say; returns 0 if the end comes first. */
static int hear_from(int fd, int one, int other, struct word *word)
{
    /* Not __thread: each of the library's threads would have that, too. */
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

/* Answers what it is told, as a site without a hub does by itself. */
static void *far_talking(void *unused)
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

/* Says some numbered frames and hears as many answers, until it is told to stop. */
static void *near_talking(void *unused)
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

/* How many peers a hub has, or a program, when there are `more`. */
static int good_and(int more)
{
    return more + (site_kind->way == BY_HUB ? 2 : 1);
}

static void pair_goes_on(void)
{
    int before = get(&pair.rounds);

    EVENTUALLY(get(&pair.rounds) >= before + 5);
}

static void pair_start(void)
{
    put(&pair.is_over, 0);
    pair.near = site_connect();
    if (site_kind->way == BY_HUB) {
        pair.far = site_connect();
        start_thread(&pair.far_thread, far_talking, NULL);
    }
    start_thread(&pair.near_thread, near_talking, NULL);
    pair_goes_on();
}

static void pair_end(void)
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

/* Those who are no good. */
static struct {
    int fds[PEERS_MOST];
    int count;
} crowd;

/* ---- What the process holds ---- */

/* Before the storm. */
static struct {
    struct footprint footprint;
    long resident;
} held;

static int footprint_is_within(struct footprint most)
{
    struct footprint now = footprint_now();

    return now.descriptors <= most.descriptors && now.threads <= most.threads;
}

/* While `peers` of the crowd are connected, for which the library may hold `each` bytes. */
static void check_held(int peers, long each)
{
    int threads = site_kind->way == BY_HANDLERS ? peers : 0;
    long grown, most = SLACK + peers * (PEER_COST + each) + threads * HANDLER_COST;
    struct footprint bound = held.footprint;

    /* The crowd's own, the library's, what handlers wait on, and some for what waits just now. */
    bound.descriptors += crowd.count + peers + threads + 4;
    bound.threads += threads + 1; /* and qnet-service */
    EVENTUALLY(footprint_is_within(bound)); /* who has just ended is gone then, too */
    grown = resident_bytes() - held.resident;
    if (HAS_ROOM_FOR_ITSELF && grown > most) /* a sanitizer's memory is its own affair */
        CHECK_INT(grown, most);
}

/* A storm beside two good peers, after which nothing is left of either. */
static void storm_passes(void (*storm)(void), struct footprint calm)
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

/* The second storm leaves no memory behind that the first has not. */
static void storms(void (*storm)(void))
{
    struct footprint before = footprint_now(), calm;
    long after_first;

    site_listen();
    site_serve();
    pair_start();
    pair_end();
    EVENTUALLY(guests_now() == 0);
    calm = footprint_now();
    storm_passes(storm, calm);
    after_first = resident_bytes();
    storm_passes(storm, calm);
    if (HAS_ROOM_FOR_ITSELF)
        EVENTUALLY(resident_bytes() <= after_first + SLACK);
    site_close();
    footprint_again(before);
}

/* ---- A crowd ---- */

static const uint8_t nothing[2 * QNET_FRAME_MAX];

/* Has the reasons counted by which a hub's ports end. */
static void count_ends(void)
{
    qnet_conn *ports[PEERS_MOST];
    int count, i;

    if (site_kind->way != BY_HUB)
        return;
    count = qnet_hub_ports(site.hub, ports, PEERS_MOST);
    for (i = 0; i < count; i++)
        CHECK_INT(qnet_set_close_handler(ports[i], guest_ended, ports[i]), QNET_OK);
}

static void crowd_comes(int count)
{
    for (crowd.count = 0; crowd.count < count; crowd.count++)
        crowd.fds[crowd.count] = site_connect();
    EVENTUALLY(guests_now() == good_and(count));
    count_ends();
}

static void crowd_leaves(void)
{
    while (crowd.count > 0)
        CHECK(close(crowd.fds[--crowd.count]) == 0);
}

/* Writes a prefix and the first bytes of what it promises, all at once. */
static void promise(int fd, size_t len, size_t sent)
{
    uint8_t *wire = allocate(RAW_PREFIX + sent);

    memset(wire, 0, RAW_PREFIX + sent);
    raw_put_length(wire, len);
    raw_write(fd, wire, RAW_PREFIX + sent);
    free(wire);
}

/* To whom peer `i` of the crowd speaks, and where what it says is heard: without a hub, by itself. */
static struct word crowd_word(int i, unsigned number)
{
    struct word word = { 0, 0, 0, MAC_FRAME };

    word.to = FIRST_PEER + (i ^ 1);
    word.from = FIRST_PEER + i;
    word.number = number;
    return word;
}

static int crowd_ear(int i)
{
    return crowd.fds[site_kind->way == BY_HUB ? i ^ 1 : i];
}

/* Two who come now are served, and all who came before them have had their turn. */
static void newcomers_are_served(void)
{
    struct word word;

    for (crowd.count = 0; crowd.count < 2; crowd.count++)
        crowd.fds[crowd.count] = site_connect();
    raw_say(crowd.fds[1], crowd_word(1, 0));
    CHECK(hear_from(crowd_ear(1), FIRST_PEER + 1, FIRST_PEER + 1, &word));
    crowd_leaves();
}

/* ---- Parts of frames ---- */

static void lorises(void)
{
    int count = rounds(300), before = ends_by(QNET_ERR_PROTOCOL), i;

    crowd_comes(count);
    for (i = 0; i < count; i++) {
        if (i % 3 == 0)
            raw_write(crowd.fds[i], "\0\0\0", 1 + (size_t)i % 9 / 3);
        else
            promise(crowd.fds[i], i % 3 == 1 ? 60 : QNET_FRAME_MAX, i % 3 == 1 ? 30 : 20000);
    }
    pair_goes_on();
    check_held(count, 20000 / 3);
    CHECK_INT(guests_now(), good_and(count));
    CHECK_INT(ends_by(QNET_ERR_PROTOCOL), before);
    crowd_leaves();
    EVENTUALLY(ends_by(QNET_ERR_PROTOCOL) == before + count);
}

static void half_a_frame_and_then_nothing(void)
{
    storms(lorises);
}

/* Nobody waits for them when all is closed. */
static void closed_among_lorises(void)
{
    struct footprint before = footprint_now();
    int i;

    site_listen();
    site_serve();
    pair_start();
    pair_end();
    EVENTUALLY(guests_now() == 0);
    for (i = 0; i < (site_kind->way == BY_HUB ? rounds(300) : 4); i++) {
        crowd.fds[crowd.count++] = site_connect();
        promise(crowd.fds[i], 60, 30);
    }
    EVENTUALLY(guests_now() == crowd.count);
    site_close();
    for (i = 0; i < crowd.count; i++)
        CHECK(raw_ended(crowd.fds[i]));
    crowd_leaves();
    footprint_again(before);
}

/* Frames that are written one byte at a time, and read so, are whole in between. */
static void dribblers(void)
{
    enum { DRIBBLERS = 20, WIRE = RAW_PREFIX + MAC_FRAME };
    unsigned number;
    int i, at;

    crowd_comes(DRIBBLERS);
    for (number = 0; number < 3; number++) {
        uint8_t wire[WIRE], heard[WIRE];

        raw_put_length(wire, MAC_FRAME);
        for (at = 0; at < WIRE; at++)
            for (i = 0; i < DRIBBLERS; i++) {
                word_make(wire + RAW_PREFIX, crowd_word(i, number));
                raw_write(crowd.fds[i], wire + at, 1);
            }
        for (i = 0; i < DRIBBLERS; i++) {
            word_make(wire + RAW_PREFIX, crowd_word(i, number));
            do { /* of what the hub has given to all */
                for (at = 0; at < WIRE; at++)
                    CHECK(raw_read(crowd_ear(i), heard + at, 1) == 0);
            } while (get_number(heard + RAW_PREFIX + MAC_LEN + 2) != get_number(wire + RAW_PREFIX + MAC_LEN + 2));
            CHECK(memcmp(heard, wire, WIRE) == 0);
        }
    }
    pair_goes_on();
    check_held(DRIBBLERS, 0);
    crowd_leaves();
}

static void one_byte_at_a_time(void)
{
    storms(dribblers);
}

/* ---- Lengths that are not so ---- */

static const struct lie {
    size_t len, sent;
    int at_once; /* whether the connection ends though the peer stays */
} lies[] = {
    { QNET_FRAME_MAX + 1, 0, 1 },  { QNET_FRAME_MAX + 1, 20000, 1 }, { (size_t)1 << 31, 0, 1 },
    { UINT32_MAX, 0, 1 },          { UINT32_MAX, 20000, 1 },         { QNET_FRAME_MAX, 1, 0 },
    { 1000, RAW_PREFIX + 60, 0 },  { QNET_FRAME_MAX, 2000, 0 },
};
enum { LIES = sizeof lies / sizeof *lies };

static void liars(void)
{
    int count = rounds(400), before = ends_by(QNET_ERR_PROTOCOL), at_once = 0, i;

    crowd_comes(count);
    for (i = 0; i < count; i++) {
        promise(crowd.fds[i], lies[i % LIES].len, lies[i % LIES].sent);
        at_once += lies[i % LIES].at_once;
    }
    EVENTUALLY(ends_by(QNET_ERR_PROTOCOL) == before + at_once);
    for (i = 0; i < count; i++)
        CHECK(!lies[i % LIES].at_once || raw_ended(crowd.fds[i]));
    pair_goes_on();
    CHECK_INT(guests_now(), good_and(count - at_once));
    CHECK_INT(ends_by(QNET_ERR_PROTOCOL), before + at_once);
    check_held(count - at_once, 0);
    crowd_leaves();
    EVENTUALLY(ends_by(QNET_ERR_PROTOCOL) == before + count);
}

static void lying_lengths(void)
{
    storms(liars);
}

/* Lengths that no frame has are skipped and counted, and the stream goes on. */
static void runt_senders(void)
{
    enum { SENDERS = 20, TURNS = 10 };
    int before = get(&site.runts), i, turn;
    struct word word;
    size_t len;

    crowd_comes(SENDERS);
    for (i = 0; i < SENDERS; i++) {
        for (turn = 0; turn < TURNS; turn++)
            for (len = 0; len < QNET_FRAME_MIN; len++)
                promise(crowd.fds[i], len, len);
        raw_say(crowd.fds[i], crowd_word(i, 7));
    }
    for (i = 0; i < SENDERS; i++) {
        CHECK(hear_from(crowd_ear(i), FIRST_PEER + i, FIRST_PEER + i, &word));
        CHECK_INT(word.number, 7);
    }
    crowd_leaves();
    EVENTUALLY(get(&site.runts) == before + SENDERS * TURNS * QNET_FRAME_MIN);
}

static void nothing_but_runts(void)
{
    storms(runt_senders);
}

/* ---- Floods ---- */

enum { FLOODERS = 4 };

/* Sends to the next flooder and reads nothing. All but the first frame of each write come from an
 * address that is new each time; that one comes from its own, which the hub forgets otherwise, and
 * frames for it would go to the good peers and crowd out their own. */
static void *flooding(void *peer)
{
    enum { FLOOD = 100, SAYS = RAW_PREFIX + 1000 };
    uint8_t *wire = allocate(FLOOD * SAYS);
    int i = (int)(intptr_t)peer, next = FIRST_PEER + (i + 1) % FLOODERS, at;
    unsigned random = (unsigned)i;

    memset(wire, 0, FLOOD * SAYS);
    for (at = 0; at < FLOOD; at++) {
        raw_put_length(wire + at * SAYS, SAYS - RAW_PREFIX);
        mac_make(wire + at * SAYS + RAW_PREFIX, next);
    }
    mac_make(wire + RAW_PREFIX + MAC_LEN, FIRST_PEER + i);
    do {
        for (at = 1; at < FLOOD; at++) {
            int from = 1000 + (int)(next_random(&random) << 8 | (unsigned)at);

            mac_make(wire + at * SAYS + RAW_PREFIX + MAC_LEN, from);
        }
    } while (send(crowd.fds[i], wire, FLOOD * SAYS, MSG_NOSIGNAL) > 0);
    free(wire);
    return NULL;
}

/* The flooders are known, so that what is for them goes to nobody else. */
static void flooders_are_heard(void)
{
    struct word word;
    unsigned number;
    int i;

    for (number = 0; number < 2; number++)
        for (i = 0; i < FLOODERS; i++) {
            word = crowd_word(i, number);
            raw_say(crowd.fds[i], word);
            CHECK(hear_from(crowd_ear(i), word.from, word.from, &word));
        }
}

/* How many ports have lost frames. */
static int ports_that_lose(void)
{
    qnet_conn *ports[10];
    int count = qnet_hub_ports(site.hub, ports, 10), i, losing = 0;

    for (i = 0; i < count; i++)
        losing += stats_of(ports[i]).tx_dropped > 0;
    return losing;
}

static void flooders(void)
{
    pthread_t threads[FLOODERS];
    int i;

    crowd_comes(FLOODERS);
    flooders_are_heard();
    put(&pair.tells_all, 1);
    for (i = 0; i < FLOODERS; i++)
        start_thread(&threads[i], flooding, (void *)(intptr_t)i);
    for (i = 0; i < 20; i++) {
        pair_goes_on();
        check_held(FLOODERS, QUEUE + (256 << 10)); /* and what it has to write */
        if (site_kind->way == BY_HUB)
            CHECK(hub_stats_of(site.hub).macs <= MACS_MOST);
    }
    if (site_kind->way == BY_HUB) {
        EVENTUALLY(hub_stats_of(site.hub).macs == MACS_MOST);
        EVENTUALLY(ports_that_lose() == FLOODERS);
    }
    pair_goes_on();
    put(&pair.tells_all, 0);
    for (i = 0; i < FLOODERS; i++) {
        CHECK(shutdown(crowd.fds[i], SHUT_RDWR) == 0);
        join_thread(threads[i]);
    }
    crowd_leaves();
}

static void floods_of_new_addresses(void)
{
    storms(flooders);
}

/* ---- Coming and going ---- */

enum { VANISHERS = 3 };

static void vanish(int n)
{
    int fd = site_connect();

    if (n % 3 == 1)
        send(fd, "\0\0", 2, MSG_NOSIGNAL); /* it may be hung up on by now */
    if (n % 3 == 2)
        send(fd, "\0\0\0\16abcdefghijklmn", 18, MSG_NOSIGNAL);
    if (n % 2)
        raw_reset_at_close(fd);
    if (n % 5 == 4)
        shutdown(fd, SHUT_RDWR);
    CHECK(close(fd) == 0);
}

static void *vanishing(void *unused)
{
    int i;

    (void)unused;
    for (i = 0; i < rounds(500); i++)
        vanish(i);
    return NULL;
}

static void vanishers(void)
{
    pthread_t threads[VANISHERS];
    int i;

    for (i = 0; i < VANISHERS; i++)
        start_thread(&threads[i], vanishing, NULL);
    for (i = 0; i < VANISHERS; i++)
        join_thread(threads[i]);
    newcomers_are_served();
    EVENTUALLY(guests_now() == good_and(0));
    check_held(VANISHERS * rounds(500), 0); /* who accepts may be that far behind */
}

static void thousands_come_and_vanish(void)
{
    storms(vanishers);
}

/* Who was there before anybody accepted, and is there no more. */
static void gone_before_they_were_accepted(void)
{
    struct footprint before = footprint_now();
    int i;

    site_listen();
    for (i = 0; i < rounds(600); i++)
        vanish(i);
    site_serve();
    pair_start();
    EVENTUALLY(guests_now() == good_and(0));
    pair_goes_on();
    pair_end();
    site_close();
    footprint_again(before);
}

static int crowd_hung_up_on(void)
{
    int count = 0, i;

    for (i = 0; i < crowd.count; i++)
        count += raw_readable(crowd.fds[i], 0);
    return count;
}

static void surplus(void)
{
    enum { MOST = 20 };

    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, MOST), QNET_OK);
    while (crowd.count < MOST + rounds(300))
        crowd.fds[crowd.count++] = site_connect();
    EVENTUALLY(crowd_hung_up_on() == crowd.count - (MOST - good_and(0)));
    CHECK_INT(guests_now(), MOST);
    pair_goes_on();
    check_held(MOST, 0);
    crowd_leaves();
    EVENTUALLY(guests_now() == good_and(0));
    crowd_comes(MOST - good_and(0)); /* there is room for as many as before */
    crowd_leaves();
    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, PEERS_MOST), QNET_OK);
}

static int knocks;

/* Comes and goes again and again where there is no room, until it is told to stop. */
static void *knocking(void *is_over)
{
    while (!get(is_over)) {
        vanish(0);
        count_up(&knocks);
    }
    return NULL;
}

static void knockers(void)
{
    int count = rounds(site_kind->is_tcp ? 5000 : 30000), before = get(&knocks), is_over = 0, i;
    pthread_t threads[VANISHERS];

    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, good_and(0)), QNET_OK);
    for (i = 0; i < VANISHERS; i++)
        start_thread(&threads[i], knocking, &is_over);
    EVENTUALLY(get(&knocks) >= before + count);
    pair_goes_on(); /* it has its turns among all that knock */
    put(&is_over, 1);
    for (i = 0; i < VANISHERS; i++)
        join_thread(threads[i]);
    crowd.fds[0] = site_connect();
    CHECK(raw_ended(crowd.fds[0])); /* and all who came before are gone, too */
    CHECK(close(crowd.fds[0]) == 0);
    check_held(0, 0);
    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, PEERS_MOST), QNET_OK);
    newcomers_are_served();
}

static void no_room_for_those_who_knock(void)
{
    storms(knockers);
}

static void more_than_may_be(void)
{
    storms(surplus);
}

/* Who says no more has left, whether it goes on reading or not. */
static void half_closers(void)
{
    int count = rounds(100) / 2 * 2 + 2, before = ends_by(QNET_ERR_CLOSED), i;
    char bytes[4096];

    crowd_comes(count);
    for (i = 0; i < count; i++) {
        raw_say(crowd.fds[i], crowd_word(i, 0));
        CHECK(shutdown(crowd.fds[i], SHUT_WR) == 0);
    }
    EVENTUALLY(guests_now() == good_and(0));
    EVENTUALLY(ends_by(QNET_ERR_CLOSED) == before + count);
    for (i = 0; i < count; i += 2)
        while (recv(crowd.fds[i], bytes, sizeof bytes, 0) > 0)
            ;
    pair_goes_on();
    check_held(0, 0);
    crowd_leaves();
}

static void half_closed(void)
{
    storms(half_closers);
}

/* ---- What is not of the stream ---- */

/* Writes a frame in two parts, and between them what `between` writes. */
static void say_around(int fd, struct word word, size_t first, void (*between)(int fd))
{
    uint8_t wire[RAW_PREFIX + MAC_FRAME];

    raw_put_length(wire, MAC_FRAME);
    word_make(wire + RAW_PREFIX, word);
    raw_write(fd, wire, first);
    between(fd);
    raw_write(fd, wire + first, sizeof wire - first);
}

static void say_urgently(int fd)
{
    if (send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL) < 0)
        CHECK(errno == EOPNOTSUPP); /* by Unix sockets of some systems */
}

/* What peers say around something else is heard whole. */
static void crowd_says_around(void (*between)(int fd))
{
    enum { SPEAKERS = 20 };
    struct word word;
    unsigned number;
    int i;

    crowd_comes(SPEAKERS);
    for (number = 0; number < 8; number++)
        for (i = 0; i < SPEAKERS; i++) {
            say_around(crowd.fds[i], crowd_word(i, number), number * 9, between);
            CHECK(hear_from(crowd_ear(i), FIRST_PEER + i, FIRST_PEER + i, &word));
            CHECK_INT(word.number, number);
        }
    pair_goes_on();
    check_held(SPEAKERS, 0);
    crowd_leaves();
}

static void urgent_ones(void)
{
    crowd_says_around(say_urgently);
}

static void urgent_bytes(void)
{
    storms(urgent_ones);
}

/* Nor does an urgent byte that waits keep anybody busy. */
static void an_urgent_byte_alone(void)
{
    site_listen();
    site_serve();
    crowd.fds[0] = site_connect();
    EVENTUALLY(guests_now() == 1);
    say_urgently(crowd.fds[0]);
    is_idle();
    CHECK_INT(guests_now(), 1);
    CHECK(close(crowd.fds[0]) == 0);
    site_close();
}

/* Sends bytes with a descriptor, some times over, of a socket's end whose other end is returned. */
static int send_with_socket(int fd, const void *bytes, size_t len, const struct far *far)
{
    enum { TIMES = 3 };
    union {
        struct cmsghdr header; /* for its alignment */
        char room[CMSG_SPACE(TIMES * sizeof(int))];
    } control;
    struct iovec piece;
    struct msghdr message;
    int ends[2], passed[TIMES], i;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    for (i = 0; i < TIMES; i++)
        passed[i] = ends[0];
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    piece.iov_base = (void *)(intptr_t)bytes;
    piece.iov_len = len;
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    if (far && far->to_len > 0) {
        message.msg_name = (void *)(intptr_t)&far->to;
        message.msg_namelen = far->to_len;
    }
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(&control.header), passed, sizeof passed);
    CHECK_INT(sendmsg(fd, &message, MSG_NOSIGNAL), len);
    CHECK(close(ends[0]) == 0);
    return ends[1];
}

/* Nobody holds the other end of a socket. */
static void check_abandoned(int fd)
{
    CHECK(raw_readable(fd, patience_ms()));
    CHECK(raw_ended(fd));
    CHECK(close(fd) == 0);
}

/* Descriptors that peers send with a prefix, a body or the whole are nobody's. */
static void givers(void)
{
    enum { GIVERS = 20, WIRE = RAW_PREFIX + MAC_FRAME };
    static const size_t cuts[] = { 0, 2, RAW_PREFIX, 30, WIRE };
    int ends[5 * 2];
    struct word word;
    uint8_t wire[WIRE];
    int i, at, count;

    crowd_comes(GIVERS);
    raw_put_length(wire, MAC_FRAME);
    for (i = 0; i < GIVERS; i++) {
        for (at = count = 0; at < 5; at++) {
            word_make(wire + RAW_PREFIX, crowd_word(i, (unsigned)at));
            if (cuts[at] > 0)
                ends[count++] = send_with_socket(crowd.fds[i], wire, cuts[at], NULL);
            if (cuts[at] < WIRE)
                ends[count++] = send_with_socket(crowd.fds[i], wire + cuts[at], WIRE - cuts[at], NULL);
        }
        for (at = 0; at < 5; at++) {
            CHECK(hear_from(crowd_ear(i), FIRST_PEER + i, FIRST_PEER + i, &word));
            CHECK_INT(word.number, at);
        }
        while (count > 0)
            check_abandoned(ends[--count]);
    }
    pair_goes_on();
    check_held(GIVERS, 0);
    crowd_leaves();
}

static void descriptors_in_a_stream(void)
{
    storms(givers);
}

/* ---- Datagrams ---- */

/* What hears the datagrams of a peer: a handler, or a device on a hub with it. */
struct ear {
    qnet_hub *hub;
    struct device device;
    unsigned heard; /* how many frames, in order and nothing else */
};

static void ear_frame(void *user, const uint8_t *frame, size_t len)
{
    struct ear *ear = user;

    CHECK_INT(word_of(frame, len).number, ear->heard);
    __atomic_add_fetch(&ear->heard, 1, __ATOMIC_SEQ_CST);
}

static void ear_open(struct ear *ear, qnet_conn *conn, int is_hub)
{
    memset(ear, 0, sizeof *ear);
    if (is_hub) {
        CHECK_INT(qnet_hub_new(&ear->hub), QNET_OK);
        device_open(&ear->device, NEAR);
        CHECK_INT(qnet_hub_attach(ear->hub, ear->device.conn), QNET_OK);
        CHECK_INT(qnet_hub_attach(ear->hub, conn), QNET_OK);
    } else {
        CHECK_INT(qnet_set_handler(conn, ear_frame, ear), QNET_OK);
    }
}

static void ear_close(const struct ear *ear)
{
    if (ear->hub) {
        CHECK_INT(qnet_hub_close(ear->hub), QNET_OK);
        device_close(&ear->device);
    }
}

/* The next frame is heard. */
static void ear_hears(struct ear *ear, unsigned number)
{
    struct word word;

    if (ear->hub) {
        CHECK(hear_from(ear->device.fd, FAR, FAR, &word));
        CHECK_INT(word.number, number);
    } else {
        EVENTUALLY(__atomic_load_n(&ear->heard, __ATOMIC_SEQ_CST) == number + 1);
    }
}

static struct {
    const struct far *far;
    int is_over;
} strangers;

/* Sends frames, and what is none, to where only another may send. */
static void *being_strange(void *unused)
{
    static const size_t lengths[] = { 60, 0, 1, 4, 1514, 13, 9000 };
    struct sockaddr_storage to = strangers.far->to;
    int fd = far_socket(to.ss_family);
    unsigned i;

    (void)unused;
    for (i = 0; !get(&strangers.is_over); i++)
        sendto(fd, nothing, lengths[i % 7], MSG_NOSIGNAL, (struct sockaddr *)&to, strangers.far->to_len);
    close(fd);
    return NULL;
}

/* A peer whose frames come between all kinds of junk, while strangers send as fast as they can. */
static void check_junk(int is_hub)
{
    enum { STRANGERS = 2, BUFFERS = 16 << 20 };
    static const size_t lengths[] = { 0, 1, 13, QNET_FRAME_MAX + 1, 2 * QNET_FRAME_MAX };
    unsigned count = (unsigned)rounds(300), runts = 0, i;
    pthread_t threads[STRANGERS];
    long before = resident_bytes();
    struct far far;
    struct ear ear;
    qnet_conn *conn = far_open(&far);
    size_t at;

    ear_open(&ear, conn, is_hub);
    strangers.far = &far;
    for (i = 0; i < STRANGERS; i++)
        start_thread(&threads[i], being_strange, NULL);
    for (i = 0; i < count; i++) {
        struct word word = { NEAR, FAR, 0, 1514 };

        word.number = i;
        for (at = 0; at < 5; at++)
            if (lengths[at] <= QNET_FRAME_MAX || far_now->set & OF_UNIX) {
                far_send(&far, nothing, lengths[at]);
                runts++;
            }
        far_says(&far, word);
        ear_hears(&ear, i);
    }
    CHECK_INT(stats_of(conn).rx_frames, count);
    CHECK_INT(stats_of(conn).rx_runts, runts);
    CHECK(!HAS_ROOM_FOR_ITSELF || resident_bytes() <= before + BUFFERS);
    put(&strangers.is_over, 1);
    far_close(conn, &far);
    for (i = 0; i < STRANGERS; i++)
        join_thread(threads[i]);
    ear_close(&ear);
}

static void junk_between_datagrams(void)
{
    struct footprint before = footprint_now();

    check_junk(0);
    put(&strangers.is_over, 0);
    check_junk(1);
    footprint_again(before);
}

static void check_descriptors_by_message(int is_hub)
{
    struct word word = { NEAR, FAR, 0, MAC_FRAME };
    uint8_t frame[MAC_FRAME];
    struct far far;
    struct ear ear;
    qnet_conn *conn = far_open(&far);

    ear_open(&ear, conn, is_hub);
    for (; word.number < 20; word.number++) {
        int runt, end;

        word_make(frame, word);
        runt = send_with_socket(far.out, frame, word.number % QNET_FRAME_MIN, &far);
        end = send_with_socket(far.out, frame, sizeof frame, &far);
        ear_hears(&ear, word.number);
        check_abandoned(runt);
        check_abandoned(end);
    }
    far_close(conn, &far);
    ear_close(&ear);
}

static void descriptors_with_messages(void)
{
    struct footprint before = footprint_now();

    check_descriptors_by_message(0);
    check_descriptors_by_message(1);
    footprint_again(before);
}

/* Runs a test once for each kind of site, or only for those of Unix sockets. */
static void run_sites(const char *name, void (*test)(void), int only_unix)
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

int main(void)
{
    allow_descriptors(4096);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* what is not touched costs nothing */
    scratch_make();
    RUN_SITES(half_a_frame_and_then_nothing);
    RUN_SITES(closed_among_lorises);
    RUN_SITES(one_byte_at_a_time);
    RUN_SITES(lying_lengths);
    RUN_SITES(nothing_but_runts);
    RUN_SITES(floods_of_new_addresses);
    RUN_SITES(thousands_come_and_vanish);
    RUN_SITES(gone_before_they_were_accepted);
    RUN_SITES(more_than_may_be);
    RUN_SITES(no_room_for_those_who_knock);
    RUN_SITES(half_closed);
    RUN_SITES(urgent_bytes);
    RUN_SITES(an_urgent_byte_alone);
    RUN_UNIX_SITES(descriptors_in_a_stream);
    RUN_KINDS(junk_between_datagrams, UDP | NAMED);
    RUN_KINDS(descriptors_with_messages, OF_UNIX);
    scratch_remove();
    return check_done();
}
