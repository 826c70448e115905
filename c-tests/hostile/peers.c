/*
 * peers.c - crowds of hostile peers who send parts of frames and lengths that
 * are lies, flood, and come and go.
 */
#include <linux/sockios.h>

#include "site.h"

/* Writes a prefix and the first bytes of what it promises, all at once. */
static void promise(int fd, size_t len, size_t sent)
{
    uint8_t *wire = allocate(RAW_PREFIX + sent);

    memset(wire, 0, RAW_PREFIX + sent);
    raw_put_length(wire, len);
    raw_write(fd, wire, RAW_PREFIX + sent);
    free(wire);
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

/* Closing waits for none of those who have sent a part of a frame. */
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

/* Frames that are written and read one byte at a time arrive whole. */
static void dribblers(void)
{
    enum { DRIBBLERS = 20, WIRE = RAW_PREFIX + MAC_FRAME, SOURCE = RAW_PREFIX + MAC_LEN };
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
            do { /* until it is not another one, which the hub has given to all */
                for (at = 0; at < WIRE; at++)
                    CHECK(raw_read(crowd_ear(i), heard + at, 1) == 0);
            } while (memcmp(heard + SOURCE, wire + SOURCE, MAC_LEN) != 0);
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

/* ---- Lengths that are lies ---- */

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

static int floods_are_over;

/*
 * Sends to the next flooder and reads nothing. The first frame of each write comes from its own address,
 * which the hub would forget otherwise; then frames for it would go to the good peers as well, and crowd
 * out theirs. All others come from an address that is new each time.
 */
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
    } while (send(crowd.fds[i], wire, FLOOD * SAYS, MSG_NOSIGNAL) > 0 && !get(&floods_are_over));
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

/* All that the crowd has written, which it does no more, has been read by the hub. */
static void crowd_is_read(void)
{
    qnet_conn *ports[10];
    int count, left, i;

    for (i = 0; i < crowd.count; i++)
        EVENTUALLY(ioctl(crowd.fds[i], SIOCOUTQ, &left) == 0 && left == 0);
    count = qnet_hub_ports(site.hub, ports, 10);
    for (i = 0; i < count; i++)
        EVENTUALLY(all_is_read(ports[i]));
}

/*
 * Ends the threads. On a hub nobody leaves before all has been forwarded: frames for
 * one that has left would go to the good peers, and crowd out their own. Elsewhere
 * a flooder is read no more, as it does not read what it gets back, and has to be
 * ended.
 */
static void flooders_stop(const pthread_t *threads)
{
    int i;

    put(&floods_are_over, 1);
    for (i = 0; i < FLOODERS; i++) {
        if (site_kind->way != BY_HUB)
            CHECK(shutdown(crowd.fds[i], SHUT_RDWR) == 0);
        join_thread(threads[i]);
    }
    if (site_kind->way == BY_HUB)
        crowd_is_read();
}

static void flooders(void)
{
    pthread_t threads[FLOODERS];
    int i;

    crowd_comes(FLOODERS);
    flooders_are_heard();
    put(&pair.tells_all, 1);
    put(&floods_are_over, 0);
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
    flooders_stop(threads);
    crowd_leaves();
}

static void floods_of_new_addresses(void)
{
    storms(flooders);
}

/* ---- Coming and going ---- */

/* Two who come now are served; so all who came before them have had their turn. */
static void newcomers_are_served(void)
{
    struct word word;

    for (crowd.count = 0; crowd.count < 2; crowd.count++)
        crowd.fds[crowd.count] = site_connect();
    raw_say(crowd.fds[1], crowd_word(1, 0));
    CHECK(hear_from(crowd_ear(1), FIRST_PEER + 1, FIRST_PEER + 1, &word));
    crowd_leaves();
}

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
    check_held(VANISHERS * rounds(500), 0); /* all of them may have been there at once */
}

static void thousands_come_and_vanish(void)
{
    storms(vanishers);
}

/* Peers who came before anybody accepted, and have left, harm nobody. */
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

/*
 * Whether another peer is let in, or there is still no room. A connection counts until it is closed,
 * which may be later than its peer is no guest any more.
 */
static int another_is_let_in(void)
{
    int fd = site_connect();

    EVENTUALLY(guests_now() == good_and(crowd.count + 1) || raw_readable(fd, 0));
    if (raw_readable(fd, 0)) {
        CHECK(close(fd) == 0);
        return 0;
    }
    crowd.fds[crowd.count++] = fd;
    return 1;
}

static void surplus(void)
{
    enum { MOST = 20 };

    CHECK_INT(qnet_listener_set(site.listener, QNET_OPT_MAX_CONNS, MOST), QNET_OK);
    while (crowd.count < MOST - good_and(0))
        EVENTUALLY(another_is_let_in());
    while (crowd.count < MOST + rounds(300))
        crowd.fds[crowd.count++] = site_connect();
    EVENTUALLY(crowd_hung_up_on() == crowd.count - (MOST - good_and(0)));
    CHECK_INT(guests_now(), MOST);
    pair_goes_on();
    check_held(MOST, 0);
    crowd_leaves();
    EVENTUALLY(guests_now() == good_and(0));
    while (crowd.count < MOST - good_and(0)) /* there is room for as many as before */
        EVENTUALLY(another_is_let_in());
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

/* A peer that has ended its direction has left, whether it goes on reading or not. */
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

int main(void)
{
    site_prepare();
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
    scratch_remove();
    return check_done();
}
