/*
 * paths.c - sends take short paths where they can: a frame that joins what is held back,
 * one that is written at once, many that are copied together. Whatever is sent, and
 * whatever happens meanwhile, nobody can tell by which path it went.
 */
#include "twins.h"

/* The lengths at which something changes, in either path. */
static const size_t edges[] = {
    0, 1, 7, 8, 13, 14, 15, 16, 17, 31, 32, 33, 59, 60, 61, 63, 64, 65, 127, 128, 129, 130, 1000, 1514,
    2043, 2044, 2045, 2047, 2048, 2049, 4096, 65535, 65536, QNET_FRAME_MAX, QNET_FRAME_MAX + 1, 1 << 20,
    SIZE_MAX,
};

static uint8_t content[2 * QNET_FRAME_MAX];

static void fill_content(void)
{
    unsigned state = 7;
    size_t i;

    for (i = 0; i < sizeof content; i++)
        content[i] = (uint8_t)random_below(&state, 256);
}

static size_t random_len(unsigned *state)
{
    if (random_below(state, 3) > 0)
        return 14 + random_below(state, 160);
    return edges[random_below(state, sizeof edges / sizeof *edges)];
}

/* Somewhere in the content, where as many bytes as any frame has follow. */
static const uint8_t *random_bytes(unsigned *state)
{
    return content + random_below(state, QNET_FRAME_MAX);
}

/* The code that a frame is answered with where there is room. */
static int code_of(const struct twins *twins, const uint8_t *frame, size_t len)
{
    if (!frame)
        return QNET_ERR_INVALID;
    return len >= QNET_FRAME_MIN && len <= twins->max ? QNET_OK : QNET_ERR_FRAME_SIZE;
}

/* ---- One random call ---- */

static void play_send(struct twins *twins, unsigned *state)
{
    size_t len = random_len(state);
    const uint8_t *frame = random_below(state, 40) ? random_bytes(state) : NULL;
    int code = code_of(twins, frame, len);

    CHECK_INT(twins_send(twins, frame, len), code);
    if (code == QNET_OK)
        twins_owe(twins, frame, len);
}

static void play_batch(struct twins *twins, unsigned *state)
{
    enum { MOST = 300 };
    qnet_frame frames[MOST];
    size_t count = random_below(state, random_below(state, 4) ? 20 : MOST), total = 0, good = 0, i;
    size_t one_len = random_below(state, 2) ? 14 + random_below(state, 100) : 0;
    int code = 0;

    for (i = 0; i < count; i++) {
        size_t len = one_len > 0 && random_below(state, 100) ? one_len : random_len(state);

        if (len <= QNET_FRAME_MAX && (total += len) > 100000)
            len = 20;
        frames[i].data = random_below(state, 400) ? random_bytes(state) : NULL;
        frames[i].len = len;
    }
    while (good < count && (code = code_of(twins, frames[good].data, frames[good].len)) == QNET_OK)
        good++;
    CHECK_INT(twins_send_batch(twins, frames, count), good > 0 ? (int)good : code);
    for (i = 0; i < good; i++)
        twins_owe(twins, frames[i].data, frames[i].len);
}

static void play_packed(struct twins *twins, unsigned *state)
{
    uint8_t wire[10 * (RAW_PREFIX + 200)];
    size_t at = 0, lens[10], i, count = 1 + random_below(state, 10);
    struct answers answers;
    int taken = (int)count, way;

    for (i = 0; i < count; i++) {
        lens[i] = 14 + random_below(state, 186);
        raw_put_length(wire + at, lens[i]);
        memcpy(wire + at + RAW_PREFIX, random_bytes(state), lens[i]);
        if (taken == (int)count && lens[i] > twins->max)
            taken = i > 0 ? (int)i : QNET_ERR_FRAME_SIZE;
        at += RAW_PREFIX + lens[i];
    }
    for (way = 0; way < TWINS; way++)
        note_answer(&answers, way, qnet_send_packed(twins->of[way].conn, wire, at));
    CHECK_INT(same_answer(twins, &answers), taken);
    for (i = 0, at = 0; (int)i < taken; at += RAW_PREFIX + lens[i++])
        twins_owe(twins, wire + at + RAW_PREFIX, lens[i]);
}

static void play_options(struct twins *twins, unsigned *state, int may_hold)
{
    static const int64_t longest[] = { 14, 60, 64, 128, 129, 1514, 2048, 65535, QNET_FRAME_MAX };

    switch (random_below(state, 4)) {
    case 0:
        twins->max = (size_t)longest[random_below(state, sizeof longest / sizeof *longest)];
        twins_set(twins, QNET_OPT_MAX_FRAME, (int64_t)twins->max);
        break;
    case 1:
        twins_set(twins, QNET_OPT_CORK, random_below(state, 2));
        break;
    case 2:
        if (may_hold) {
            twins_set(twins, QNET_OPT_TX_USECS, random_below(state, 3) ? 1000000 : 0);
            twins->are_held = 1;
        }
        break;
    default:
        twins_set(twins, QNET_OPT_SEND_TIMEOUT_MS, (int64_t)random_below(state, 3) * 20000 - 1);
    }
}

/* Reads now and then, so that there is always room for the next call. */
static void keep_room(struct twins *twins)
{
    int i;

    if (twins->of[SHORT_PATH].owed - twins->of[SHORT_PATH].seen < 30000)
        return;
    for (i = 0; i < TWINS; i++) {
        CHECK_INT(qnet_flush(twins->of[i].conn), QNET_OK);
        twin_hears(&twins->of[i], twins->of[i].owed - twins->of[i].seen);
    }
}

static void play(struct twins *twins, unsigned *state, int may_hold)
{
    unsigned what = random_below(state, 40);

    if (what < 34)
        play_send(twins, state);
    else if (what == 34)
        play_batch(twins, state);
    else if (what == 35)
        play_packed(twins, state);
    else if (what == 36)
        play_options(twins, state, may_hold);
    else if (what == 37)
        CHECK_INT(qnet_flush(twins->of[random_below(state, TWINS)].conn), QNET_OK);
    keep_room(twins);
}

/* ---- Whatever is sent ---- */

static void open_with_room(struct twins *twins, qnet_conn *(*open)(int *fd))
{
    int i, bytes = 400000;

    twins_open(twins, open);
    twins_set(twins, QNET_OPT_SNDBUF, bytes);
    for (i = 0; i < TWINS; i++)
        CHECK(setsockopt(twins->of[i].fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
}

static void play_alone(qnet_conn *(*open)(int *fd), int may_hold)
{
    unsigned state, i;

    fill_content();
    for (state = 1; state <= 4; state++) {
        unsigned seed = state * 1000;
        struct twins twins;

        open_with_room(&twins, open);
        twins.told_by_address = open == link_open;
        for (i = 0; i < (unsigned)rounds(4000); i++)
            play(&twins, &seed, may_hold);
        twins_set(&twins, QNET_OPT_TX_USECS, 0);
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, -1);
        twins_settle(&twins);
        twins_close(&twins);
    }
}

static void the_same_frames_written_at_once(void)
{
    play_alone(raw_pair, 0);
}

static void the_same_frames_held_back(void)
{
    play_alone(raw_pair, 1);
}

static void the_same_frames_over_tcp(void)
{
    link_now = &link_kinds[4];
    CHECK_INT(link_now->family, AF_INET);
    play_alone(link_open, 1);
}

/* ---- In a handler, which corks ---- */

enum { CALLS = 60 };

struct scene {
    struct twins twins;
    unsigned state;
    unsigned runs_of;     /* how many calls of the twins it makes in each */
    int calls;
};

static void play_inside(void *user, const uint8_t *frame, size_t len)
{
    struct scene *scene = user;
    unsigned i;

    (void)frame;
    (void)len;
    for (i = 0; i < scene->runs_of; i++)
        play(&scene->twins, &scene->state, 1);
    count_up(&scene->calls);
}

/* A handler that has more frames to come sends, and sets options that decide how, meanwhile. */
static void the_same_frames_in_a_handler(void)
{
    size_t len = 64;
    unsigned seed;

    fill_content();
    for (seed = 1; seed <= (unsigned)rounds(24); seed++) {
        struct flow flow = flow_of_one_size(&len);
        struct scene scene;
        qnet_conn *source;
        int fd;

        memset(&scene, 0, sizeof scene);
        open_with_room(&scene.twins, raw_pair);
        scene.twins.are_held = 1;
        scene.state = seed;
        scene.runs_of = seed % 3 * 10 + 1;
        source = raw_pair(&fd);
        raw_send_flow(fd, &flow, CALLS, 0);
        CHECK_INT(qnet_set_handler(source, play_inside, &scene), QNET_OK);
        EVENTUALLY(get(&scene.calls) == CALLS);
        CHECK_INT(qnet_close(source), QNET_OK);
        close(fd);
        twins_set(&scene.twins, QNET_OPT_SEND_TIMEOUT_MS, -1);
        twins_settle(&scene.twins);
        twins_close(&scene.twins);
    }
}

/* A target whose sends are to be written at once from now on, though its handler has more frames to come. */
struct uncorked {
    qnet_conn *target;
    int fd, calls;
    size_t owed;
};

static void uncork_in_the_middle(void *user, const uint8_t *frame, size_t len)
{
    struct uncorked *uncorked = user;

    (void)frame;
    if (uncorked->calls == 10)
        CHECK_INT(qnet_set(uncorked->target, QNET_OPT_CORK, 0), QNET_OK);
    if (uncorked->calls == 20)
        CHECK_INT(qnet_set(uncorked->target, QNET_OPT_TX_USECS, 1000000), QNET_OK);
    if (uncorked->calls == 30)
        CHECK_INT(qnet_set(uncorked->target, QNET_OPT_TX_USECS, 0), QNET_OK);
    CHECK_INT(qnet_send(uncorked->target, content, len), QNET_OK);
    uncorked->owed += RAW_PREFIX + len;
    if ((uncorked->calls >= 10 && uncorked->calls < 20) || uncorked->calls >= 30)
        CHECK_INT(bytes_waiting(uncorked->fd), uncorked->owed);
    count_up(&uncorked->calls);
}

/* With the option off, a send is in the socket when it returns, behind what was held back. */
static void a_handler_turns_corking_off(void)
{
    static const size_t sizes[] = { 64, 128, 129 };
    size_t i;

    fill_content();
    for (i = 0; i < 3; i++) {
        struct flow flow = flow_of_one_size(&sizes[i]);
        struct uncorked uncorked = { NULL, -1, 0, 0 };
        qnet_conn *source;
        int fd;

        uncorked.target = raw_pair(&uncorked.fd);
        source = raw_pair(&fd);
        raw_send_flow(fd, &flow, CALLS, 0);
        CHECK_INT(qnet_set_handler(source, uncork_in_the_middle, &uncorked), QNET_OK);
        EVENTUALLY(get(&uncorked.calls) == CALLS);
        CHECK_INT(qnet_close(source), QNET_OK);
        CHECK_INT(stats_of(uncorked.target).tx_frames, CALLS);
        CHECK_INT(qnet_close(uncorked.target), QNET_OK);
        close(fd);
        close(uncorked.fd);
    }
}

/* ---- Messages ---- */

/* A connection whose messages are frames takes one short path, and not the other. */
static void messages_are_whole_frames(void)
{
    uint8_t got[QNET_FRAME_MAX];
    unsigned state = 3, i;
    int pair[2], held;

    fill_content();
    for (held = 0; held < 2; held++) {
        qnet_conn *conn = NULL;
        uint64_t bytes = 0;

        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, held ? 1000000 : 0), QNET_OK);
        for (i = 0; i < 400; i++) {
            size_t lens[4], k;
            const uint8_t *frames[4];

            for (k = 0; k < 4; k++) {
                lens[k] = 14 + random_below(&state, 300);
                frames[k] = random_bytes(&state);
                bytes += lens[k];
                CHECK_INT(qnet_send(conn, frames[k], lens[k]), QNET_OK);
            }
            CHECK_INT(qnet_flush(conn), QNET_OK);
            for (k = 0; k < 4; k++) {
                CHECK_INT(recv(pair[1], got, sizeof got, MSG_DONTWAIT), lens[k]);
                CHECK(memcmp(got, frames[k], lens[k]) == 0);
            }
        }
        CHECK_INT(stats_of(conn).tx_frames, 1600);
        CHECK_INT(stats_of(conn).tx_bytes, bytes);
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(pair[1]);
    }
}

/* ---- Peers that do not read ---- */

/* Sends that do not wait are refused at the same frame, and nothing of a refused frame is written. */
static void a_full_socket_refuses_the_same_frames(void)
{
    struct twins twins;
    unsigned state = 5, i, refused = 0;

    fill_content();
    twins_open(&twins, raw_pair);
    twins_set(&twins, QNET_OPT_SNDBUF, 1);
    twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, 0);
    for (i = 0; i < (unsigned)rounds(6000); i++) {
        size_t len = 60 + random_below(&state, random_below(&state, 2) ? 70 : 1989);
        const uint8_t *frame = random_bytes(&state);
        int result = twins_send(&twins, frame, len), k;

        if (result == QNET_OK)
            twins_owe(&twins, frame, len);
        else
            CHECK_INT(result, QNET_ERR_AGAIN);
        refused += result != QNET_OK;
        for (k = 0; k < TWINS && result != QNET_OK && i % 3 == 0; k++)
            twin_hears(&twins.of[k], (twins.of[k].owed - twins.of[k].seen) / 2);
    }
    CHECK(refused > 0);
    twins_settle(&twins);
    twins_close(&twins);
}

struct reader {
    pthread_t thread;
    struct twin *twin;
    size_t total;
    uint8_t *bytes;
    unsigned seed;
};

/* Reads a number of bytes, and stops in the middle, again and again. */
static void *reading_in_fits(void *argument)
{
    struct reader *reader = argument;
    size_t at = 0, part;

    while (at < reader->total) {
        part = 1 + random_below(&reader->seed, 30000);
        part = part < reader->total - at ? part : reader->total - at;
        CHECK_INT(raw_read(reader->twin->fd, reader->bytes + at, part), 0);
        if (random_below(&reader->seed, 4) == 0)
            raw_sleep_ms(2);
        at += part;
    }
    return NULL;
}

static void peer_stops_in_the_middle(int64_t usecs, int timeout_ms, qnet_conn *(*open)(int *fd))
{
    unsigned count = (unsigned)rounds(6000), state = 11, i;
    size_t total = 0, *lens = allocate(count * sizeof *lens);
    const uint8_t **frames = allocate(count * sizeof *frames);
    struct twins twins;
    int k;

    for (i = 0; i < count; i++) {
        lens[i] = 60 + random_below(&state, random_below(&state, 5) ? 100 : 3000);
        frames[i] = random_bytes(&state);
        total += RAW_PREFIX + lens[i];
    }
    twins_open(&twins, open);
    twins.are_held = 1;
    for (k = 0; k < TWINS; k++) {
        struct reader reader = { .twin = &twins.of[k], .total = total, .seed = 1 };

        reader.bytes = allocate(total);
        squeeze(twins.of[k].conn, twins.of[k].fd, 4096);
        send_timeout(twins.of[k].conn, timeout_ms);
        CHECK_INT(qnet_set(twins.of[k].conn, QNET_OPT_TX_USECS, usecs), QNET_OK);
        start_thread(&reader.thread, reading_in_fits, &reader);
        for (i = 0; i < count; i++) {
            int result;

            while ((result = qnet_send(twins.of[k].conn, frames[i], lens[i])) != QNET_OK) {
                CHECK_INT(result, timeout_ms == 0 ? QNET_ERR_AGAIN : QNET_ERR_TIMEOUT);
                CHECK(timeout_ms >= 0);
            }
            twin_owes(&twins.of[k], 0, frames[i], lens[i]);
        }
        send_timeout(twins.of[k].conn, -1);
        CHECK_INT(qnet_flush(twins.of[k].conn), QNET_OK);
        join_thread(reader.thread);
        CHECK(memcmp(reader.bytes, twins.of[k].wire, total) == 0);
        twins.of[k].seen = total;
        free(reader.bytes);
    }
    twins_settle(&twins);
    twins_close(&twins);
    free(lens);
    free(frames);
}

/* However often the peer stops reading, and however long a send waits, nothing is lost or torn. */
static void a_peer_stops_in_the_middle(void)
{
    static const int timeouts[] = { -1, 0, 1 };
    size_t i;

    fill_content();
    for (i = 0; i < 3; i++) {
        peer_stops_in_the_middle(0, timeouts[i], raw_pair);
        peer_stops_in_the_middle(100, timeouts[i], raw_pair);
    }
    link_now = &link_kinds[4];
    peer_stops_in_the_middle(0, -1, link_open);
    peer_stops_in_the_middle(0, 1, link_open);
}

/* ---- Peers that leave ---- */

static void leave(int fd)
{
    CHECK(close(fd) == 0);
}

static void leave_with_unread(int fd)
{
    CHECK(bytes_waiting(fd) > 0);
    leave(fd);
}

static void leave_by_reset(int fd)
{
    raw_reset_at_close(fd);
    leave(fd);
}

static void stop_reading_for_good(int fd)
{
    CHECK(shutdown(fd, SHUT_RD) == 0);
}

static void await_the_news(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = 0 };

    CHECK(poll(&poll_fd, 1, patience_ms()) == 1);
}

/* Every call gives the same code on both, before the peer has left and after; and all is counted. */
static void after_a_peer_has_left(void)
{
    static const struct {
        void (*leave)(int fd);
        int is_tcp, reads, is_seen;
    } cases[] = {
        { leave, 0, 1, 1 },
        { leave_with_unread, 0, 0, 1 },
        { stop_reading_for_good, 0, 1, 0 },
        { leave_by_reset, 1, 0, 1 },
        { leave_with_unread, 1, 0, 1 },
    };
    size_t i, first;
    int k, j;

    fill_content();
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        for (first = 0; first < 5; first++) {
            const size_t lens[] = { 64, 1000, 2048, 5000, 13 };
            qnet_frame frames[2] = { { content, 64 }, { content + 5, 70 } };
            qnet_stats stats[TWINS];
            struct twins twins;

            link_now = &link_kinds[4];
            twins_open(&twins, cases[i].is_tcp ? link_open : raw_pair);
            twins.told_by_address = cases[i].is_tcp;
            CHECK_INT(twins_send(&twins, content, 100), QNET_OK);
            twins_owe(&twins, content, 100);
            for (k = 0; k < TWINS; k++) {
                if (cases[i].is_tcp)
                    CHECK(raw_readable(twins.of[k].fd, patience_ms()));
                if (cases[i].reads)
                    twin_hears(&twins.of[k], twins.of[k].owed);
                cases[i].leave(twins.of[k].fd);
                if (cases[i].is_seen)
                    await_the_news(qnet_fd(twins.of[k].conn));
            }
            for (j = 0; j < 5; j++) {
                size_t len = lens[(first + (size_t)j) % 5];
                int result = twins_send(&twins, content, len);

                CHECK(result < 0 && (len != 13 || j > 0 || result == QNET_ERR_FRAME_SIZE));
            }
            CHECK(twins_send(&twins, NULL, 64) < 0);
            CHECK(twins_send_batch(&twins, frames, 2) < 0);
            CHECK(twins_send(&twins, content, 64) < 0);
            for (k = 0; k < TWINS; k++) {
                stats[k] = stats_of(twins.of[k].conn);
                CHECK_INT(stats[k].tx_frames, 1);
                CHECK_INT(stats[k].tx_bytes, 100);
                CHECK_INT(stats[k].tx_dropped, 0);
                CHECK_INT(stats[k].tx_writes, 1);
                CHECK_INT(qnet_close(twins.of[k].conn), QNET_OK);
                free(twins.of[k].wire);
            }
        }
}

/* Once the connection has ended, by the program or for what the peer wrote, nothing is sent. */
static void after_the_end(void)
{
    size_t i, way;
    int k;

    fill_content();
    for (way = 0; way < 2; way++) {
        int code = way == 0 ? QNET_ERR_CLOSED : QNET_ERR_PROTOCOL;
        struct twins twins;

        twins_open(&twins, raw_pair);
        CHECK_INT(twins_send(&twins, content, 64), QNET_OK);
        twins_owe(&twins, content, 64);
        for (k = 0; k < TWINS; k++) {
            twin_hears(&twins.of[k], twins.of[k].owed);
            raw_write(twins.of[k].fd, "\xff\xff\xff\xff", 4);
            if (way == 0)
                CHECK_INT(qnet_shutdown(twins.of[k].conn), QNET_OK);
            else
                CHECK_INT(qnet_recv(twins.of[k].conn, NULL, 0, -1), code);
        }
        for (i = 0; i < sizeof edges / sizeof *edges; i++)
            CHECK_INT(twins_send(&twins, content, edges[i]), code);
        CHECK(twins_send(&twins, NULL, 64) < 0);
        for (k = 0; k < TWINS; k++) {
            CHECK_INT(stats_of(twins.of[k].conn).tx_frames, 1);
            CHECK_INT(stats_of(twins.of[k].conn).tx_dropped, 0);
            CHECK_INT(qnet_close(twins.of[k].conn), QNET_OK);
            CHECK(raw_ended(twins.of[k].fd));
            free(twins.of[k].wire);
        }
    }
}

static qnet_conn *open_reconnecting(int *fd)
{
    qnet_conn *conn;

    link_now = &link_kinds[8];
    CHECK(link_now->open == open_dialled && link_now->abstract);
    conn = link_open(fd);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, 1000000), QNET_OK);
    return conn;
}

/* Where the peer may come back, sends succeed without it, and each is counted as dropped. */
static void after_a_peer_that_may_return_has_left(void)
{
    static const size_t lens[] = { 64, 1000, 5000, 13, 100, 65536, 2048, 64 };
    size_t first, i;
    int k;

    fill_content();
    for (first = 0; first < 8; first++) {
        qnet_frame frames[2] = { { content, 64 }, { content + 5, 70 } };
        unsigned dropped = 2;
        struct twins twins;

        twins_open(&twins, open_reconnecting);
        twins.told_by_address = 1;
        CHECK_INT(twins_send(&twins, content, 100), QNET_OK);
        twins_owe(&twins, content, 100);
        for (k = 0; k < TWINS; k++) {
            twin_hears(&twins.of[k], twins.of[k].owed);
            leave(twins.of[k].fd);
        }
        for (i = 0; i < 8; i++) {
            size_t len = lens[(first + i) % 8];
            int code = code_of(&twins, content, len);

            CHECK_INT(twins_send(&twins, content, len), code);
            dropped += code == QNET_OK;
        }
        CHECK_INT(twins_send(&twins, NULL, 64), QNET_ERR_INVALID);
        CHECK_INT(twins_send_batch(&twins, frames, 2), 2);
        for (k = 0; k < TWINS; k++) {
            CHECK_INT(stats_of(twins.of[k].conn).tx_frames, 1);
            CHECK_INT(stats_of(twins.of[k].conn).tx_dropped, dropped);
            CHECK_INT(stats_of(twins.of[k].conn).tx_writes, 1);
            CHECK_INT(qnet_close_reason(twins.of[k].conn), QNET_OK);
            CHECK_INT(qnet_close(twins.of[k].conn), QNET_OK);
            free(twins.of[k].wire);
        }
    }
}

/* What joins frames that are held back, while the peer leaves, is counted too. */
static void a_peer_leaves_while_frames_are_held(void)
{
    unsigned count, i, taken;
    int fd;

    fill_content();
    for (count = 1; count < 40; count++) {
        qnet_conn *conn = raw_pair(&fd);
        int result = QNET_OK;

        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 1000000), QNET_OK);
        for (taken = 0, i = 0; i < count; i++) {
            if (i == count / 2)
                close(fd);
            result = qnet_send(conn, content + i, 14 + 5 * i);
            CHECK(result == QNET_OK || (i >= count / 2 && result == QNET_ERR_CLOSED));
            taken += result == QNET_OK;
        }
        result = qnet_flush(conn);
        CHECK(result == QNET_ERR_CLOSED || result == QNET_ERR_OS);
        CHECK_INT(qnet_send(conn, content, 64), result);
        check_counted(conn, taken);
        CHECK(stats_of(conn).tx_frames <= count / 2);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
}

/* ---- Several threads at once ---- */

enum { SENDERS = 4, HEADER = 14 };

struct sender {
    pthread_t thread;
    qnet_conn *conn;
    unsigned id, count;
};

static void *sending(void *argument)
{
    struct sender *sender = argument;
    unsigned seed = sender->id, i;
    uint8_t frame[4000];

    for (i = 0; i < sender->count; i++) {
        size_t len = HEADER + random_below(&seed, random_below(&seed, 9) ? 150 : 3900);

        raw_put_length(frame, sender->id << 24 | i);
        raw_put_length(frame + 4, len);
        raw_fill(frame + 8, len - 8, i);
        CHECK_INT(qnet_send(sender->conn, frame, len), QNET_OK);
    }
    return NULL;
}

struct changer {
    pthread_t thread;
    qnet_conn *conn;
    int is_over;
};

/* Sets, again and again, the options that decide which path a send takes. */
static void *changing(void *argument)
{
    static const int64_t usecs[] = { 0, 20, 1000 };
    struct changer *changer = argument;
    unsigned seed = 1;

    while (!get(&changer->is_over)) {
        CHECK_INT(qnet_set(changer->conn, QNET_OPT_TX_USECS, usecs[random_below(&seed, 3)]), QNET_OK);
        CHECK_INT(qnet_set(changer->conn, QNET_OPT_CORK, random_below(&seed, 2)), QNET_OK);
        CHECK_INT(qnet_set(changer->conn, QNET_OPT_PAD, random_below(&seed, 2)), QNET_OK);
        CHECK_INT(qnet_set(changer->conn, QNET_OPT_MAX_FRAME, 4000 + random_below(&seed, 9)), QNET_OK);
        sched_yield();
    }
    return NULL;
}

static unsigned number_at(const uint8_t *at)
{
    return (unsigned)at[0] << 24 | (unsigned)at[1] << 16 | (unsigned)at[2] << 8 | at[3];
}

/* Takes a frame of any sender, which must be that one's next. It may have been padded. */
static void take_any(int fd, unsigned next[SENDERS])
{
    uint8_t frame[4000];
    long len = raw_recv(fd, frame, sizeof frame);
    unsigned number, stated;

    CHECK(len >= HEADER);
    number = number_at(frame);
    stated = number_at(frame + 4);
    CHECK(number >> 24 < SENDERS);
    CHECK_INT(number & 0xffffff, next[number >> 24]++);
    CHECK(stated == (unsigned)len || (stated < PADDED && len == PADDED));
    CHECK(raw_is(frame + 8, stated - 8, number & 0xffffff));
    while (stated < (unsigned)len)
        CHECK_INT(frame[stated++], 0);
}

static void send_by_threads(int changes, int64_t usecs)
{
    struct sender senders[SENDERS];
    struct changer changer;
    unsigned next[SENDERS] = { 0 }, count = (unsigned)rounds(4000), i;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, usecs), QNET_OK);
    memset(&changer, 0, sizeof changer);
    changer.conn = conn;
    if (changes)
        start_thread(&changer.thread, changing, &changer);
    for (i = 0; i < SENDERS; i++) {
        senders[i].conn = conn;
        senders[i].id = i;
        senders[i].count = count;
        start_thread(&senders[i].thread, sending, &senders[i]);
    }
    for (i = 0; i < SENDERS * count; i++)
        take_any(fd, next);
    for (i = 0; i < SENDERS; i++)
        join_thread(senders[i].thread);
    put(&changer.is_over, 1);
    if (changes)
        join_thread(changer.thread);
    check_all_sent(conn, SENDERS * count);
    CHECK(!raw_readable(fd, 10));
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

static void threads_send_in_order(void)
{
    send_by_threads(0, 0);
    send_by_threads(0, 50);
}

static void threads_send_while_options_change(void)
{
    send_by_threads(1, 0);
}

/* ---- Handles that are none ---- */

/* No call with such a handle does anything to the connection that it resembles. */
static void refused_handles(qnet_conn *conn, int fd, const uintptr_t *handles, size_t count)
{
    qnet_stats before = stats_of(conn);
    size_t i;
    int waiting = bytes_waiting(fd);

    for (i = 0; i < count; i++) {
        CHECK_INT(qnet_send((qnet_conn *)handles[i], content, 64), QNET_ERR_HANDLE);
        CHECK_INT(qnet_send((qnet_conn *)handles[i], content, 1000), QNET_ERR_HANDLE);
        CHECK_INT(qnet_send((qnet_conn *)handles[i], content, 13), QNET_ERR_HANDLE);
        CHECK_INT(qnet_send((qnet_conn *)handles[i], NULL, 64), QNET_ERR_HANDLE);
    }
    CHECK_INT(bytes_waiting(fd), waiting);
    CHECK_INT(stats_of(conn).tx_frames, before.tx_frames);
    CHECK_INT(qnet_send(conn, content, 64), QNET_OK);
}

static void handles_that_are_none(void)
{
    int fd, stale_fd, held, bit;
    qnet_conn *stale = raw_pair(&stale_fd), *conn;
    qnet_listener *listener = NULL;
    qnet_hub *hub = NULL;
    uintptr_t handles[100], token;
    size_t count = 0;

    fill_content();
    CHECK_INT(qnet_send(stale, content, 64), QNET_OK);
    CHECK_INT(qnet_close(stale), QNET_OK);
    conn = raw_pair(&fd);
    token = (uintptr_t)conn;
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_listen("unix", "@qnet-paths-none", &listener), QNET_OK);
    handles[count++] = 0;
    handles[count++] = 1;
    handles[count++] = 3;
    handles[count++] = 0x1ffff8; /* what the word of a lock may be, and those behind it */
    handles[count++] = 0x1ffff9;
    handles[count++] = 0x1ffffa;
    handles[count++] = 0x1ffffc;
    handles[count++] = 0x1ffffe;
    handles[count++] = UINTPTR_MAX;
    handles[count++] = (uintptr_t)stale;
    handles[count++] = (uintptr_t)hub;
    handles[count++] = (uintptr_t)listener;
    for (bit = 0; bit < 64; bit++)
        handles[count++] = token ^ (uintptr_t)1 << bit;
    for (held = 0; held < 2; held++) {
        CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, held ? 1000000 : 0), QNET_OK);
        CHECK_INT(qnet_send(conn, content, 64), QNET_OK);
        CHECK_INT(qnet_send(conn, content, 64), QNET_OK);
        refused_handles(conn, fd, handles, count);
    }
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(bytes_waiting(fd), 6 * 68);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_send(conn, content, 64), QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_send(conn, content, 64), QNET_ERR_HANDLE);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

int main(void)
{
    RUN(the_same_frames_written_at_once);
    RUN(the_same_frames_held_back);
    RUN(the_same_frames_over_tcp);
    RUN(the_same_frames_in_a_handler);
    RUN(a_handler_turns_corking_off);
    RUN(messages_are_whole_frames);
    RUN(a_full_socket_refuses_the_same_frames);
    RUN(a_peer_stops_in_the_middle);
    RUN(after_a_peer_has_left);
    RUN(after_the_end);
    RUN(after_a_peer_that_may_return_has_left);
    RUN(a_peer_leaves_while_frames_are_held);
    RUN(threads_send_in_order);
    RUN(threads_send_while_options_change);
    RUN(handles_that_are_none);
    return check_done();
}
