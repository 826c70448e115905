/*
 * at_hand.c - qnet_recv() of a frame that has been read already takes a short path. The
 * other ways to receive never do, so that all of them together have to give the same as
 * a model of the stream says.
 */
#include "receiving.h"

/* ---- A model of what was written and not received ---- */

enum { WAITING_MOST = 4096, GUARD = 64 };

struct item {
    size_t len;
    unsigned seed;
};

/* A connection, the frames and runts that it has not given yet, and what it has given. */
struct model {
    qnet_conn *conn;
    int fd;
    int way;                        /* BY_RECV, or one of the other ways to pull */
    struct item waiting[WAITING_MOST];
    size_t first, end;
    uint64_t frames, bytes, runts;
};

static int is_runt(const struct item *item)
{
    return item->len < QNET_FRAME_MIN;
}

/* The next frame, behind runts; NULL if there is none. */
static const struct item *next_frame(struct model *model)
{
    while (model->first < model->end && is_runt(&model->waiting[model->first])) {
        model->runts++;
        model->first++;
    }
    return model->first < model->end ? &model->waiting[model->first] : NULL;
}

static void received(struct model *model)
{
    model->frames++;
    model->bytes += model->waiting[model->first++].len;
}

/* A pseudo-random length: mostly short, sometimes no frame's. */
static size_t random_len(unsigned *state)
{
    static const size_t edges[] = {
        0, 0, 1, 4, 13, 14, 15, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 130, 1514, 4092, 9000, 65535,
        QNET_FRAME_MAX,
    };

    if (random_below(state, 3) > 0)
        return random_below(state, 8) ? 14 + random_below(state, 130) : random_below(state, 14);
    return edges[random_below(state, random_below(state, 12) ? 19 : sizeof edges / sizeof *edges)];
}

/* Writes some frames and runts at once. */
static void write_some(struct model *model, unsigned *state)
{
    enum { MOST = 100000 };
    size_t count = random_below(state, random_below(state, 4) ? 12 : 400), at = 0;
    size_t one_len = random_below(state, 2) ? random_len(state) : SIZE_MAX;
    uint8_t *wire = allocate(MOST);

    if (model->first == model->end)
        model->first = model->end = 0;
    while (count-- > 0 && model->end < WAITING_MOST) {
        struct item item = { one_len, 0 };

        item.seed = random_below(state, 1000);
        if (one_len == SIZE_MAX || random_below(state, 50) == 0)
            item.len = random_len(state);
        if (at + RAW_PREFIX + item.len > MOST)
            break;
        raw_put_length(wire + at, item.len);
        raw_fill(wire + at + RAW_PREFIX, item.len, item.seed);
        at += RAW_PREFIX + item.len;
        model->waiting[model->end++] = item;
    }
    raw_write(model->fd, wire, at);
    free(wire);
}

/* ---- One random call ---- */

static void check_frame(const struct item *item, const uint8_t *frame, size_t len)
{
    CHECK_INT(len, item->len);
    CHECK(raw_is(frame, len, item->seed));
}

/* A receive whose arguments are wrong, or which finds no room: nothing is used up. */
static void call_in_vain(struct model *model, unsigned *state)
{
    static const int bad_times[] = { -2, -3, -1000, -2147483647 - 1 };
    const struct item *next = next_frame(model);
    uint8_t small[GUARD + 200];
    size_t i, cap = next ? next->len - 1 : 0;
    char words[80];

    memset(small, 0xa5, sizeof small);
    switch (random_below(state, 6)) {
    case 0:
        CHECK_INT(qnet_recv(model->conn, small, 200, bad_times[random_below(state, 4)]), QNET_ERR_INVALID);
        break;
    case 1:
        CHECK_INT(qnet_recv(model->conn, NULL, 1 + random_below(state, 200), 0), QNET_ERR_INVALID);
        break;
    case 2:
        CHECK_INT(qnet_recv(model->conn, NULL, 0, 0), next ? (int)next->len : QNET_ERR_AGAIN);
        break;
    case 3:
        CHECK_INT(qnet_recv(model->conn, small, 0, 0), next ? (int)next->len : QNET_ERR_AGAIN);
        break;
    case 4:
        CHECK_INT(qnet_recv(model->conn, NULL, 0, -2), QNET_ERR_INVALID);
        break;
    default:
        cap = cap > 200 ? 200 : cap;
        if (cap > 0) {
            CHECK_INT(qnet_recv(model->conn, small, cap, random_below(state, 2) ? 0 : -1), QNET_ERR_FRAME_SIZE);
            snprintf(words, sizeof words, "a buffer of %zu bytes for %zu", cap, next->len);
            CHECK(strstr(qnet_last_error(), words) != NULL);
        }
    }
    for (i = 0; i < sizeof small; i++)
        CHECK_INT(small[i], 0xa5);
}

static void call_recv_once(struct model *model, unsigned *state)
{
    static uint8_t buffer[QNET_FRAME_MAX + GUARD];
    const struct item *next = next_frame(model);
    size_t cap = QNET_FRAME_MAX, i;
    int is_exact = random_below(state, 2) && next, timeout_ms = next && random_below(state, 2) ? -1 : 0;

    if (is_exact) {
        cap = next->len;
        memset(buffer + cap, 0xa5, GUARD);
    }
    if (!next) {
        CHECK_INT(qnet_recv(model->conn, buffer, cap, timeout_ms), QNET_ERR_AGAIN);
        return;
    }
    CHECK_INT(qnet_recv(model->conn, buffer, cap, timeout_ms), next->len);
    check_frame(next, buffer, next->len);
    for (i = 0; is_exact && i < GUARD; i++)
        CHECK_INT(buffer[cap + i], 0xa5);
    received(model);
}

/* Several frames at a time are lent; a receive in any way may follow. */
static void call_recv_batch_once(struct model *model, unsigned *state)
{
    qnet_frame frames[20];
    size_t count = 1 + random_below(state, 20);
    int got = qnet_recv_batch(model->conn, frames, count, 0), i;

    if (!next_frame(model)) {
        CHECK_INT(got, QNET_ERR_AGAIN);
        return;
    }
    CHECK(got > 0 && got <= (int)count);
    for (i = 0; i < got; i++) {
        const struct item *next = next_frame(model);

        CHECK(next != NULL);
        check_frame(next, frames[i].data, frames[i].len);
        received(model);
    }
}

static void call_recv_packed_once(struct model *model, unsigned *state)
{
    static uint8_t wire[QNET_FRAME_MAX + RAW_PREFIX];
    const struct item *next = next_frame(model);
    size_t cap = next && random_below(state, 2) ? RAW_PREFIX + next->len : sizeof wire, at;
    int got = qnet_recv_packed(model->conn, wire, cap, 0);

    if (!next) {
        CHECK_INT(got, QNET_ERR_AGAIN);
        return;
    }
    CHECK(got > 0);
    for (at = 0; at < (size_t)got; at += RAW_PREFIX + next->len, received(model)) {
        next = next_frame(model);
        CHECK(next != NULL);
        check_frame(next, wire + at + RAW_PREFIX, next->len);
    }
    CHECK_INT(at, got);
}

static void call_poll(struct model *model)
{
    uint8_t ready = 7;
    int is_there = next_frame(model) != NULL;

    CHECK_INT(qnet_poll(&model->conn, &ready, 1, 0), is_there);
    CHECK_INT(ready, is_there);
}

static void receive_once(struct model *model, unsigned *state)
{
    unsigned what = random_below(state, 24);
    int way = what < 2 ? (int)(what + 1) : model->way;

    if (what == 2)
        call_poll(model);
    else if (what < 6)
        call_in_vain(model, state);
    else if (way == BY_RECV)
        call_recv_once(model, state);
    else if (way == BY_RECV_BATCH)
        call_recv_batch_once(model, state);
    else
        call_recv_packed_once(model, state);
}

/* Receives everything that is left, and compares the counters. */
static void settle(struct model *model, unsigned *state)
{
    qnet_stats stats;

    while (next_frame(model))
        receive_once(model, state);
    CHECK_INT(qnet_recv(model->conn, NULL, 0, 0), QNET_ERR_AGAIN);
    stats = stats_of(model->conn);
    CHECK_INT(stats.rx_frames, model->frames);
    CHECK_INT(stats.rx_bytes, model->bytes);
    CHECK_INT(stats.rx_runts, model->runts);
}

static void the_same_frames_in_every_way(void)
{
    static struct model model;
    unsigned seed;

    for (seed = 1; seed <= 6; seed++) {
        unsigned state = seed, i;
        int way;

        for (way = 0; way < WAYS_TO_PULL; way++) {
            memset(&model, 0, sizeof model);
            model.conn = raw_pair(&model.fd);
            model.way = way;
            for (i = 0; i < (unsigned)rounds(8000); i++)
                if (!next_frame(&model) && random_below(&state, 4) > 0)
                    write_some(&model, &state);
                else
                    receive_once(&model, &state);
            settle(&model, &state);
            CHECK_INT(qnet_close(model.conn), QNET_OK);
            close(model.fd);
        }
    }
}

/* ---- The end behind frames ---- */

/* A length that no frame has, and many bytes behind it. */
static void break_with_bytes(int fd, size_t len, size_t behind)
{
    uint8_t *wire = allocate(RAW_PREFIX + behind);

    raw_put_length(wire, len);
    memset(wire + RAW_PREFIX, 0, behind);
    raw_write(fd, wire, RAW_PREFIX + behind);
    free(wire);
}

static void break_by_one(int fd)
{
    break_with_bytes(fd, QNET_FRAME_MAX + 1, 0);
}

static void break_by_one_with_bytes(int fd)
{
    break_with_bytes(fd, QNET_FRAME_MAX + 1, QNET_FRAME_MAX + 1);
}

static void break_by_more_with_bytes(int fd)
{
    break_with_bytes(fd, 100000, 100020);
}

static void break_by_all(int fd)
{
    break_with_bytes(fd, 0xffffffff, 3000);
}

static void leave(int fd)
{
    CHECK(shutdown(fd, SHUT_RDWR) == 0);
}

static void leave_inside(int fd)
{
    raw_send_part(fd, 64, 63);
    leave(fd);
}

static void leave_inside_a_prefix(int fd)
{
    raw_write(fd, "\0\0\0", 3);
    leave(fd);
}

/* A runt is no frame, so only the end follows. */
static void leave_behind_runts(int fd)
{
    raw_send(fd, "13 bytes long", 13);
    raw_send(fd, "", 0);
    leave(fd);
}

/* All frames before the end are received, whatever is behind them, and then the reason again and again. */
static void the_end_is_behind_the_frames(void)
{
    static const struct {
        void (*end)(int fd);
        int code, runts;
    } ends[] = {
        { break_by_one, QNET_ERR_PROTOCOL, 0 },
        { break_by_one_with_bytes, QNET_ERR_PROTOCOL, 0 },
        { break_by_more_with_bytes, QNET_ERR_PROTOCOL, 0 },
        { break_by_all, QNET_ERR_PROTOCOL, 0 },
        { leave, QNET_ERR_CLOSED, 0 },
        { leave_inside, QNET_ERR_PROTOCOL, 0 },
        { leave_inside_a_prefix, QNET_ERR_PROTOCOL, 0 },
        { leave_behind_runts, QNET_ERR_CLOSED, 2 },
    };
    static const size_t sizes[] = { 64, 14, 129, 1514 };
    static uint8_t buffer[200000];
    size_t e, s;
    unsigned count, i;

    for (e = 0; e < sizeof ends / sizeof *ends; e++)
        for (s = 0; s < 4; s++)
            for (count = 0; count < 5; count++) {
                struct flow flow = flow_of_one_size(&sizes[s]), expected = flow;
                int fd, len;
                qnet_conn *conn = raw_pair(&fd);

                raw_send_flow(fd, &flow, count, 0);
                ends[e].end(fd);
                for (i = 0; i < count; i++) {
                    len = qnet_recv(conn, buffer, sizeof buffer, -1);
                    CHECK_INT(len, sizes[s]);
                    flow_take(&expected, buffer, (size_t)len);
                }
                for (i = 0; i < 3; i++)
                    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, i == 1 ? -1 : 0), ends[e].code);
                CHECK_INT(qnet_recv(conn, NULL, 0, 0), ends[e].code);
                CHECK_INT(stats_of(conn).rx_frames, count);
                CHECK_INT(stats_of(conn).rx_runts, ends[e].runts);
                CHECK_INT(qnet_close_reason(conn), ends[e].code);
                CHECK_INT(qnet_close(conn), QNET_OK);
                close(fd);
            }
}

/* After the program has ended the connection, frames at hand are not given any more. */
static void nothing_is_given_after_a_shutdown(void)
{
    struct flow flow = flow_of_small_frames();
    uint8_t buffer[2048];
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &flow, 5, 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 14);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), 60);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_CLOSED);
    CHECK_INT(stats_of(conn).rx_frames, 2);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_HANDLE);
    close(fd);
}

/* ---- Frames at hand that somebody else is to have ---- */

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    flow_take(user, frame, len);
}

/* With a handler, a receive is refused, though frames are at hand; the handler gets these. */
static void a_handler_gets_what_is_at_hand(void)
{
    enum { ROUNDS = 20 };
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size), expected = flow;
    uint8_t buffer[100];
    int fd, i;
    qnet_conn *conn = raw_pair(&fd);

    for (i = 0; i < ROUNDS; i++) {
        raw_send_flow(fd, &flow, 10, 0);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
        flow_take(&expected, buffer, size);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
        flow_take(&expected, buffer, size);
        CHECK_INT(qnet_set_handler(conn, on_frame, &expected), QNET_OK);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_BUSY);
        EVENTUALLY(stats_of(conn).rx_frames == flow.next);
        remove_handler(conn);
        CHECK_INT(expected.next, flow.next);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* The same for a hub. */
static void a_hub_gets_what_is_at_hand(void)
{
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size), expected = flow;
    uint8_t buffer[100];
    int fd, other_fd;
    qnet_conn *conn = raw_pair(&fd), *other = raw_pair(&other_fd);
    qnet_hub *hub = NULL;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, other), QNET_OK);
    raw_send_flow(fd, &flow, 10, 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), QNET_ERR_BUSY);
    expected.next = 2;
    raw_take_until(other_fd, &expected, flow.next);
    CHECK_INT(qnet_hub_detach(hub, conn), QNET_OK);
    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
    flow_take(&expected, buffer, size);
    CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
    flow_take(&expected, buffer, size);
    CHECK_INT(stats_of(conn).rx_frames, 12);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(other), QNET_OK);
}

/* What was lent stays until the next receive, and that gives the next frame. */
static void a_receive_follows_a_loan(void)
{
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size), expected = flow;
    qnet_frame lent[3];
    uint8_t buffer[100];
    int fd, i;
    qnet_conn *conn = raw_pair(&fd);

    raw_send_flow(fd, &flow, 12, 0);
    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet_recv_batch(conn, lent, 3, -1), 3);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -2), QNET_ERR_INVALID);
        CHECK_INT(qnet_recv(conn, NULL, 8, -1), QNET_ERR_INVALID);
        check_loans(lent, 3, expected.next);
        expected.next += 3;
        CHECK_INT(qnet_recv(conn, buffer, 63, 0), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv(conn, buffer, 64, -1), size);
        flow_take(&expected, buffer, size);
        CHECK_INT(qnet_recv(conn, buffer, 63, 0), QNET_ERR_FRAME_SIZE);
        CHECK_INT(qnet_recv(conn, NULL, 0, 0), size);
        CHECK_INT(qnet_recv(conn, buffer, 64, 0), size);
        flow_take(&expected, buffer, size);
    }
    CHECK_INT(stats_of(conn).rx_frames, 10);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* ---- Several threads at once ---- */

enum { PULLERS = 4 };

struct puller {
    pthread_t thread;
    qnet_conn *conn;
    int is_packed;
    unsigned took;
    uint8_t *seen;   /* by number, shared by all */
};

static void puller_takes(struct puller *puller, const uint8_t *frame, size_t len, unsigned *last)
{
    unsigned number = frame_number(frame, len);

    CHECK(puller->took == 0 || number > *last);
    CHECK_INT(puller->seen[number]++, 0);
    *last = number;
    puller->took++;
}

static void *pulling(void *argument)
{
    struct puller *puller = argument;
    uint8_t bytes[RAW_PREFIX + 2000];
    unsigned last = 0;
    int got, at;

    do {
        if (!puller->is_packed) {
            got = qnet_recv(puller->conn, bytes, sizeof bytes, -1);
            if (got > 0)
                puller_takes(puller, bytes, (size_t)got, &last);
            continue;
        }
        got = qnet_recv_packed(puller->conn, bytes, sizeof bytes, -1);
        for (at = 0; at < got;) {
            size_t len = (size_t)bytes[at + 2] << 8 | bytes[at + 3];

            puller_takes(puller, bytes + at + RAW_PREFIX, len, &last);
            at += RAW_PREFIX + (int)len;
        }
    } while (got > 0);
    CHECK_INT(got, QNET_ERR_CLOSED);
    return NULL;
}

/* Each frame goes to one thread, and each thread's frames are in order. */
static void threads_share_the_frames(void)
{
    unsigned count = (unsigned)rounds(40000), i, packed, total;

    for (packed = 0; packed < 3; packed++) {
        struct puller pullers[PULLERS];
        struct raw_job writer;
        uint8_t *seen = allocate(count);
        int fd;
        qnet_conn *conn = raw_pair(&fd);

        memset(seen, 0, count);
        memset(pullers, 0, sizeof pullers);
        for (i = 0; i < PULLERS; i++) {
            pullers[i].conn = conn;
            pullers[i].is_packed = i < packed;
            pullers[i].seen = seen;
            start_thread(&pullers[i].thread, pulling, &pullers[i]);
        }
        raw_start(&writer, raw_writing, fd, flow_of_small_frames(), count);
        join_thread(writer.thread);
        close(fd);
        for (i = 0, total = 0; i < PULLERS; i++) {
            join_thread(pullers[i].thread);
            total += pullers[i].took;
        }
        CHECK_INT(total, count);
        CHECK_INT(stats_of(conn).rx_frames, count);
        CHECK_INT(qnet_close(conn), QNET_OK);
        free(seen);
    }
}

/* ---- Handles that are none ---- */

static void handles_that_are_none(void)
{
    static const size_t size = 64;
    struct flow flow = flow_of_one_size(&size), expected = flow;
    int fd, stale_fd, bit, got;
    qnet_conn *stale = raw_pair(&stale_fd), *conn;
    qnet_listener *listener = NULL;
    qnet_hub *hub = NULL;
    uintptr_t handles[100], token;
    uint8_t buffer[100];
    size_t count = 0, i;

    raw_send_flow(stale_fd, &flow, 3, 0);
    CHECK_INT(qnet_recv(stale, buffer, sizeof buffer, -1), size);
    CHECK_INT(qnet_close(stale), QNET_OK);
    conn = raw_pair(&fd);
    token = (uintptr_t)conn;
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_listen("unix", "@qnet-at-hand-none", &listener), QNET_OK);
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
    flow.next = 0;
    raw_send_flow(fd, &flow, 3, 0);
    for (got = 0; got < 3; got++) {
        for (i = 0; i < count; i++) {
            CHECK_INT(qnet_recv((qnet_conn *)handles[i], buffer, sizeof buffer, -1), QNET_ERR_HANDLE);
            CHECK_INT(qnet_recv((qnet_conn *)handles[i], buffer, 5, 0), QNET_ERR_HANDLE);
            CHECK_INT(qnet_recv((qnet_conn *)handles[i], NULL, 0, 0), QNET_ERR_HANDLE);
            CHECK_INT(qnet_recv((qnet_conn *)handles[i], NULL, 9, -2), QNET_ERR_HANDLE);
        }
        CHECK_INT(stats_of(conn).rx_frames, got);
        CHECK_INT(qnet_recv(conn, buffer, sizeof buffer, -1), size);
        flow_take(&expected, buffer, size);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

int main(void)
{
    RUN(the_same_frames_in_every_way);
    RUN(the_end_is_behind_the_frames);
    RUN(nothing_is_given_after_a_shutdown);
    RUN(a_handler_gets_what_is_at_hand);
    RUN(a_hub_gets_what_is_at_hand);
    RUN(a_receive_follows_a_loan);
    RUN(threads_share_the_frames);
    RUN(handles_that_are_none);
    return check_done();
}
