/*
 * race.c - calls on connections and listeners that other threads are ending.
 * Every call returns one of its codes, none hangs, every connection's close
 * handler runs once, and no descriptor or thread is left. Meant to be run under
 * AddressSanitizer, valgrind and ThreadSanitizer as well.
 */
#include "calls.h"

enum { WORKERS = 4, LONGEST_SPIN = 3000, MOST_CALLS = 50 };

/* In a set of codes QNET_OK stands for every result that is no error. */
enum {
    NO_ERROR = MAY(QNET_OK),
    STALE = MAY(QNET_ERR_HANDLE),
    CLOSED = MAY(QNET_ERR_CLOSED),
    AGAIN = MAY(QNET_ERR_AGAIN),
    TIMEOUT = MAY(QNET_ERR_TIMEOUT),
    BUSY = MAY(QNET_ERR_BUSY),
    SYSTEM = MAY(QNET_ERR_OS)
};

static unsigned as_set(int result)
{
    return MAY(result > 0 ? QNET_OK : result);
}

/* Lets a little time pass, less than a time slice and not always the same. */
static void spin(unsigned *state)
{
    static int nothing;
    unsigned left;

    for (left = next_random(state) % LONGEST_SPIN; left > 0; left--)
        (void)get(&nothing);
}

/* The handlers' user pointer: counts the frames, none of which may come after the end. */
struct counts {
    int frames;
    int ends;
};

static void count_frame(void *user, const uint8_t *frame, size_t len)
{
    struct counts *counts = user;

    CHECK(len >= 14);
    (void)frame;
    CHECK_INT(get(&counts->ends), 0);
    count_up(&counts->frames);
}

static void count_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        count_frame(user, frames[i].data, frames[i].len);
}

static void count_end(void *user, int reason)
{
    struct counts *counts = user;

    CHECK(reason == QNET_ERR_CLOSED || reason == QNET_ERR_OS);
    count_up(&counts->ends);
}

static void set_counting(qnet_conn *conn, unsigned kind, struct counts *counts)
{
    if (kind % 2 == 0)
        CHECK_INT(qnet_set_handler(conn, count_frame, counts), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(conn, count_batch, counts), QNET_OK);
}

/* A connection that closes without lingering, with frames waiting. */
static qnet_conn *open_fed(int *fd)
{
    qnet_conn *conn = raw_pair(fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 0), QNET_OK);
    send_some(*fd);
    return conn;
}

/* ---- The calls ---- */

/* Counts of the handlers that the racing calls themselves set. */
static struct counts set_counts;

static void racing_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    count_up(&((struct counts *)user)->frames);
}

static void racing_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)frames;
    (void)count;
    count_up(&((struct counts *)user)->frames);
}

static int make_recv_now(qnet_conn *conn)
{
    uint8_t buffer[2048];

    return qnet_recv(conn, buffer, sizeof buffer, 0);
}

static int make_poll_now(qnet_conn *conn)
{
    uint8_t ready;

    return qnet_poll(&conn, &ready, 1, 0);
}

static int make_wait_briefly(qnet_conn *conn)
{
    return qnet_wait(conn, 1);
}

static int make_set_handler(qnet_conn *conn)
{
    return qnet_set_handler(conn, racing_frame, &set_counts);
}

static int make_set_batch_handler(qnet_conn *conn)
{
    return qnet_set_batch_handler(conn, racing_batch, &set_counts);
}

static int make_set_no_handler(qnet_conn *conn)
{
    return qnet_set_handler(conn, NULL, NULL);
}

static int make_stats(qnet_conn *conn)
{
    qnet_stats stats;

    return qnet_get_stats(conn, &stats, sizeof stats);
}

static int make_set(qnet_conn *conn)
{
    return qnet_set(conn, QNET_OPT_PAD, 1);
}

static int make_set_size(qnet_conn *conn)
{
    return qnet_set(conn, QNET_OPT_RCVBUF, 100000);
}

static int make_get(qnet_conn *conn)
{
    int64_t value;

    return qnet_get(conn, QNET_OPT_SNDBUF, &value);
}

static int make_hwaddr(qnet_conn *conn)
{
    uint8_t mac[6];

    return qnet_hwaddr(conn, mac);
}

static int make_set_hwaddr(qnet_conn *conn)
{
    static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };

    return qnet_set_hwaddr(conn, mac);
}

static int make_local_addr(qnet_conn *conn)
{
    char text[128];

    return qnet_local_addr(conn, text, sizeof text);
}

static int make_peer_addr(qnet_conn *conn)
{
    char text[128];

    return qnet_peer_addr(conn, text, sizeof text);
}

/* A call, the codes it `may` give, BUSY too if it `receives`, and the one for a `stale` handle. */
struct op {
    int (*make)(qnet_conn *conn);
    unsigned may;
    int receives;
    int stale;
};

#define SENDING(make) { make, NO_ERROR | CLOSED | STALE, 0, QNET_ERR_HANDLE }
#define RECEIVING(make, more) { make, NO_ERROR | CLOSED | STALE | (more), 1, QNET_ERR_HANDLE }
#define KNOWING(make) { make, NO_ERROR | STALE, 0, QNET_ERR_HANDLE }

static const struct op sending[] = {
    SENDING(make_send), SENDING(make_send_batch), SENDING(make_send_packed), SENDING(qnet_flush),
};
static const struct op receiving[] = {
    RECEIVING(make_recv, 0), RECEIVING(make_recv_now, AGAIN),
    RECEIVING(make_recv_batch, 0), RECEIVING(make_recv_packed, 0),
};
static const struct op waiting[] = {
    { make_poll, NO_ERROR, 0, 1 },
    { make_poll_now, NO_ERROR, 0, 1 },
    { make_wait, NO_ERROR | STALE, 0, QNET_ERR_HANDLE },
    { make_wait_briefly, NO_ERROR | TIMEOUT | STALE, 0, QNET_ERR_HANDLE },
};
static const struct op handling[] = {
    SENDING(make_set_handler), SENDING(make_set_batch_handler), SENDING(make_set_no_handler),
};
static const struct op knowing[] = {
    KNOWING(make_stats), KNOWING(make_set), KNOWING(make_set_size), KNOWING(make_get),
    KNOWING(make_hwaddr), KNOWING(make_set_hwaddr), KNOWING(qnet_fd),
    { qnet_close_reason, NO_ERROR | CLOSED | STALE, 0, QNET_ERR_HANDLE },
    { make_local_addr, NO_ERROR | CLOSED | SYSTEM | STALE, 0, QNET_ERR_HANDLE },
    { make_peer_addr, NO_ERROR | CLOSED | SYSTEM | STALE, 0, QNET_ERR_HANDLE },
};
static const struct op ending[] = {
    { qnet_shutdown, NO_ERROR | CLOSED | STALE, 0, QNET_ERR_HANDLE },
};

struct op_set {
    const struct op *ops;
    size_t count;
};
#define SET(ops) { ops, sizeof ops / sizeof *ops }

/* ---- The race ---- */

/* How the main thread ends the connection under the others' calls. */
static void end_by_close(qnet_conn *conn, int *fd)
{
    (void)fd;
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void end_by_shutdown(qnet_conn *conn, int *fd)
{
    (void)fd;
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
}

static void end_by_peer(qnet_conn *conn, int *fd)
{
    (void)conn;
    close(*fd);
    *fd = -1;
}

struct race {
    pthread_barrier_t line;
    const struct op_set *sets;
    size_t count;
    qnet_conn *conn;
    unsigned more; /* further codes that this way of ending allows */
    int handled;
    int gone;
    int over;
};

static void line_up(struct race *race)
{
    int result = pthread_barrier_wait(&race->line);

    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
}

static const struct op *pick(const struct race *race, unsigned *state)
{
    const struct op_set *set = &race->sets[next_random(state) % race->count];

    return &set->ops[next_random(state) % set->count];
}

static void race_once(struct race *race, const struct op *op)
{
    unsigned may = op->may | race->more;
    int result = op->make(race->conn);

    if (race->handled && op->receives)
        may |= BUSY;
    if (!(as_set(result) & may))
        fprintf(stderr, "%s\n", qnet_strerror(result));
    CHECK(as_set(result) & may);
}

/* Makes calls until the handle is gone, but only so many that the closing thread gets a turn. */
static void race_until_gone(struct race *race, unsigned *state)
{
    int calls;

    for (calls = 0; calls < MOST_CALLS && !get(&race->gone); calls++) {
        race_once(race, pick(race, state));
        spin(state);
    }
    while (!get(&race->gone))
        raw_sleep_ms(1);
}

/* Races in every round, and then makes one more call on the stale handle. */
static void *racer(void *argument)
{
    static int racers;
    struct race *race = argument;
    unsigned state = (unsigned)count_up(&racers);
    const struct op *op;

    for (line_up(race); !race->over; line_up(race)) {
        race_until_gone(race, &state);
        op = pick(race, &state);
        CHECK_INT(op->make(race->conn), op->stale);
        line_up(race);
    }
    return NULL;
}

/* Ends one connection under the others' calls; its close handler has run when closing returns. */
static void race_round(struct race *race, void (*end)(qnet_conn *, int *), unsigned *state)
{
    struct counts counts = { 0, 0 };
    int fd;

    race->conn = open_fed(&fd);
    CHECK_INT(qnet_set_close_handler(race->conn, count_end, &counts), QNET_OK);
    if (race->handled)
        set_counting(race->conn, next_random(state), &counts);
    put(&race->gone, 0);
    line_up(race);
    spin(state);
    end(race->conn, &fd);
    if (end != end_by_close) {
        spin(state);
        CHECK_INT(qnet_close(race->conn), QNET_OK);
    }
    CHECK_INT(get(&counts.ends), 1);
    put(&race->gone, 1);
    line_up(race);
    if (fd >= 0)
        close(fd);
}

static void race_all(const struct op_set *sets, size_t count, int workers, int handled, int times,
                     void (*end)(qnet_conn *, int *))
{
    struct race race;
    pthread_t threads[WORKERS];
    unsigned state = 1;
    int i;

    memset(&race, 0, sizeof race);
    race.sets = sets;
    race.count = count;
    race.handled = handled;
    race.more = end == end_by_peer ? CLOSED | SYSTEM : 0;
    CHECK_INT(pthread_barrier_init(&race.line, NULL, (unsigned)workers + 1), 0);
    for (i = 0; i < workers; i++)
        start_thread(&threads[i], racer, &race);
    for (i = 0; i < times; i++)
        race_round(&race, end, &state);
    race.over = 1;
    line_up(&race);
    for (i = 0; i < workers; i++)
        join_thread(threads[i]);
    pthread_barrier_destroy(&race.line);
}

/* One call at a time against a close, on a connection that is pulled and on one with a handler. */
static void race_each(struct op_set set)
{
    struct footprint before = footprint_now();
    int times = rounds(8000 / (int)set.count / 2), handled;
    size_t i;

    for (i = 0; i < set.count; i++) {
        struct op_set one = { &set.ops[i], 1 };
        for (handled = 0; handled < 2; handled++)
            race_all(&one, 1, 1, handled, times, end_by_close);
    }
    footprint_again(before);
}

static void close_against_sending(void)
{
    struct op_set set = SET(sending);

    race_each(set);
}

static void close_against_receiving(void)
{
    struct op_set set = SET(receiving);

    race_each(set);
}

static void close_against_waiting(void)
{
    struct op_set set = SET(waiting);

    race_each(set);
}

static void *receiving_one(void *conn)
{
    return (void *)(intptr_t)make_recv(conn);
}

/* Of two receives one gets the frame, the other the broken length behind it, and neither hangs. */
static void a_broken_length_against_receiving(void)
{
    int i, fd;

    for (i = 0; i < rounds(4000); i++) {
        qnet_conn *conn = raw_pair(&fd);
        pthread_t threads[2];
        void *results[2];

        start_thread(&threads[0], receiving_one, conn);
        start_thread(&threads[1], receiving_one, conn);
        send_one_and_break(fd);
        CHECK_INT(pthread_join(threads[0], &results[0]), 0);
        CHECK_INT(pthread_join(threads[1], &results[1]), 0);
        CHECK_INT((intptr_t)results[0] + (intptr_t)results[1], 60 + QNET_ERR_PROTOCOL);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(close(fd) == 0);
    }
}

static void close_against_set_handler(void)
{
    struct op_set set = SET(handling);

    race_each(set);
}

static void close_against_knowing(void)
{
    struct op_set set = SET(knowing);

    race_each(set);
}

static void close_against_shutdown(void)
{
    struct op_set set = SET(ending);

    race_each(set);
}

/* Several threads make calls of all kinds; a receive is BUSY while one has set a handler. */
static void race_everything(void (*end)(qnet_conn *, int *), int ending_too)
{
    static const struct op_set sets[] = {
        SET(ending), SET(sending), SET(receiving), SET(waiting), SET(handling), SET(knowing),
    };
    struct footprint before = footprint_now();
    int left_out = !ending_too;

    race_all(sets + left_out, sizeof sets / sizeof *sets - (size_t)left_out, WORKERS, 1,
             rounds(500), end);
    footprint_again(before);
}

static void close_against_everything(void)
{
    race_everything(end_by_close, 1);
}

static void shutdown_against_everything(void)
{
    race_everything(end_by_shutdown, 0);
}

static void leaving_peer_against_everything(void)
{
    race_everything(end_by_peer, 0);
}

/* ---- Setting the close handler ---- */

struct late_setter {
    pthread_barrier_t line;
    qnet_conn *conn;
    struct counts counts;
    int result;
    int times;
};

static void *late_setting(void *argument)
{
    struct late_setter *setter = argument;
    unsigned state = 7;
    int i;

    for (i = 0; i < setter->times; i++) {
        pthread_barrier_wait(&setter->line);
        spin(&state);
        setter->result = qnet_set_close_handler(setter->conn, count_end, &setter->counts);
        pthread_barrier_wait(&setter->line);
    }
    return NULL;
}

/* A close handler set while the connection ends has run once when the close has returned. */
static void close_handler_set_while_ending(void)
{
    struct footprint before = footprint_now();
    struct late_setter setter;
    pthread_t thread;
    unsigned state = 3;
    int fd, i;

    memset(&setter, 0, sizeof setter);
    setter.times = rounds(3000);
    CHECK_INT(pthread_barrier_init(&setter.line, NULL, 2), 0);
    start_thread(&thread, late_setting, &setter);
    for (i = 0; i < setter.times; i++) {
        put(&setter.counts.ends, 0);
        setter.conn = open_fed(&fd);
        if (i % 2)
            set_counting(setter.conn, next_random(&state), &setter.counts);
        pthread_barrier_wait(&setter.line);
        spin(&state);
        CHECK_INT(qnet_shutdown(setter.conn), QNET_OK);
        pthread_barrier_wait(&setter.line);
        CHECK_INT(setter.result, QNET_OK);
        CHECK_INT(qnet_close(setter.conn), QNET_OK);
        CHECK_INT(get(&setter.counts.ends), 1);
        close(fd);
    }
    join_thread(thread);
    footprint_again(before);
}

/* ---- Several that close ---- */

struct closer {
    pthread_barrier_t *line;
    qnet_conn **conn;
    int times;
    int result;
};

static void *closing(void *argument)
{
    struct closer *closer = argument;
    int i;

    for (i = 0; i < closer->times; i++) {
        pthread_barrier_wait(closer->line);
        closer->result = qnet_close(*closer->conn);
        pthread_barrier_wait(closer->line);
    }
    return NULL;
}

/* Of two closes one succeeds, after the close handler has run; the other finds no handle. */
static void two_threads_close(void)
{
    struct footprint before = footprint_now();
    pthread_barrier_t line;
    struct closer closers[2];
    pthread_t threads[2];
    qnet_conn *conn;
    int times = rounds(4000), fd, i, one;

    CHECK_INT(pthread_barrier_init(&line, NULL, 3), 0);
    for (one = 0; one < 2; one++) {
        closers[one].line = &line;
        closers[one].conn = &conn;
        closers[one].times = times;
        start_thread(&threads[one], closing, &closers[one]);
    }
    for (i = 0; i < times; i++) {
        struct counts counts = { 0, 0 };

        conn = open_fed(&fd);
        CHECK_INT(qnet_set_close_handler(conn, count_end, &counts), QNET_OK);
        if (i % 3)
            set_counting(conn, (unsigned)i, &counts);
        pthread_barrier_wait(&line);
        pthread_barrier_wait(&line);
        CHECK_INT(closers[0].result + closers[1].result, QNET_OK + QNET_ERR_HANDLE);
        CHECK_INT(get(&counts.ends), 1);
        close(fd);
    }
    join_thread(threads[0]);
    join_thread(threads[1]);
    footprint_again(before);
}

/* A handler that closes `target`, its own connection or another, at frame number `at`. */
struct handler_closer {
    struct counts counts;
    qnet_conn *target;
    int at;
    int result;
};

static void closing_frame(void *user, const uint8_t *frame, size_t len)
{
    struct handler_closer *closer = user;

    (void)frame;
    (void)len;
    CHECK_INT(get(&closer->counts.ends), 0);
    if (count_up(&closer->counts.frames) == closer->at)
        put(&closer->result, qnet_close(closer->target));
}

static void handler_closer_prepare(struct handler_closer *closer, qnet_conn *own,
                                   qnet_conn *target, unsigned *state)
{
    memset(closer, 0, sizeof *closer);
    closer->target = target;
    closer->at = 1 + (int)(next_random(state) % FRAMES);
    closer->result = 1;
    CHECK_INT(qnet_set_close_handler(own, count_end, &closer->counts), QNET_OK);
}

/* The handler closes its own connection while this thread closes it too. */
static void handler_and_thread_close(void)
{
    struct footprint before = footprint_now();
    struct handler_closer closer;
    unsigned state = 5;
    int fd, i, result;

    for (i = rounds(4000); i > 0; i--) {
        qnet_conn *conn = open_fed(&fd);

        handler_closer_prepare(&closer, conn, conn, &state);
        CHECK_INT(qnet_set_handler(conn, closing_frame, &closer), QNET_OK);
        spin(&state);
        result = qnet_close(conn);
        CHECK(result == QNET_OK || result == QNET_ERR_HANDLE);
        EVENTUALLY(get(&closer.counts.ends) == 1);
        if (result == QNET_ERR_HANDLE)
            CHECK_INT(get(&closer.result), QNET_OK);
        else
            CHECK(get(&closer.result) != QNET_OK);
        close(fd);
    }
    footprint_again(before);
}

/* Two handlers, each with frames waiting, close each other's connection. */
static void handlers_close_each_other(void)
{
    struct footprint before = footprint_now();
    struct handler_closer closers[2];
    qnet_conn *conns[2];
    unsigned state = 9;
    int fds[2], i, one, result;

    for (i = rounds(1000); i > 0; i--) {
        for (one = 0; one < 2; one++)
            conns[one] = open_fed(&fds[one]);
        for (one = 0; one < 2; one++)
            handler_closer_prepare(&closers[one], conns[one], conns[1 - one], &state);
        CHECK_INT(qnet_set_handler(conns[0], closing_frame, &closers[0]), QNET_OK);
        result = qnet_set_handler(conns[1], closing_frame, &closers[1]);
        CHECK(as_set(result) & (NO_ERROR | CLOSED | STALE));
        EVENTUALLY(get(&closers[0].result) != 1 || get(&closers[1].result) != 1);
        for (one = 0; one < 2; one++) {
            result = qnet_close(conns[one]);
            CHECK(result == QNET_OK || result == QNET_ERR_HANDLE);
        }
        for (one = 0; one < 2; one++) {
            EVENTUALLY(get(&closers[one].counts.ends) == 1);
            CHECK(get(&closers[one].counts.frames) <= FRAMES);
            close(fds[one]);
        }
    }
    footprint_again(before);
}

/* Turns lingering off in most rounds, because draining takes time. */
static void linger_seldom(qnet_conn *conn, int round)
{
    if (round % 50)
        CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 0), QNET_OK);
}

/* Both ends of a pair are the library's, and each is closed by a thread of its own. */
static void both_ends_close(void)
{
    struct footprint before = footprint_now();
    pthread_barrier_t line;
    struct closer closers[2];
    pthread_t threads[2];
    qnet_conn *conns[2];
    struct flow flow = flow_of_small_frames();
    int times = rounds(3000), i, one;

    CHECK_INT(pthread_barrier_init(&line, NULL, 3), 0);
    for (one = 0; one < 2; one++) {
        closers[one].line = &line;
        closers[one].conn = &conns[one];
        closers[one].times = times;
        start_thread(&threads[one], closing, &closers[one]);
    }
    for (i = 0; i < times; i++) {
        struct counts counts = { 0, 0 };

        CHECK_INT(qnet_socketpair(&conns[0], &conns[1]), QNET_OK);
        for (one = 0; one < 2; one++) {
            CHECK_INT(flow_send(&flow, conns[one], one, FRAMES), FRAMES);
            linger_seldom(conns[one], i);
        }
        CHECK_INT(qnet_set_close_handler(conns[0], count_end, &counts), QNET_OK);
        if (i % 2)
            set_counting(conns[0], (unsigned)i / 2, &counts);
        pthread_barrier_wait(&line);
        pthread_barrier_wait(&line);
        CHECK_INT(closers[0].result, QNET_OK);
        CHECK_INT(closers[1].result, QNET_OK);
        CHECK_INT(get(&counts.ends), 1);
    }
    join_thread(threads[0]);
    join_thread(threads[1]);
    footprint_again(before);
}

/* ---- Many that open and close ---- */

/* Frees what the handlers use as soon as closing has returned. */
static void *opening_and_closing(void *argument)
{
    unsigned state = *(unsigned *)argument;
    int fd, i;

    for (i = rounds(1000); i > 0; i--) {
        struct counts *counts = allocate(sizeof *counts);
        qnet_conn *conn = raw_pair(&fd);

        linger_seldom(conn, i);
        put(&counts->frames, 0);
        put(&counts->ends, 0);
        CHECK_INT(qnet_set_close_handler(conn, count_end, counts), QNET_OK);
        send_some(fd);
        set_counting(conn, next_random(&state), counts);
        send_some(fd);
        spin(&state);
        if (i % 4 == 0)
            CHECK_INT(qnet_shutdown(conn), QNET_OK);
        if (i % 4 == 1)
            set_counting(conn, next_random(&state), counts);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK_INT(get(&counts->ends), 1);
        CHECK(get(&counts->frames) <= 2 * FRAMES);
        free(counts);
        close(fd);
    }
    return NULL;
}

static void many_open_and_close(void)
{
    struct footprint before = footprint_now();
    pthread_t threads[WORKERS];
    unsigned states[WORKERS], i;

    for (i = 0; i < WORKERS; i++) {
        states[i] = 100 + i;
        start_thread(&threads[i], opening_and_closing, &states[i]);
    }
    for (i = 0; i < WORKERS; i++)
        join_thread(threads[i]);
    footprint_again(before);
}

/* ---- Listeners ---- */

struct listening {
    pthread_barrier_t line;
    qnet_listener *listener;
    int gone;
    int over;
};

static int accept_one(qnet_listener *listener, int timeout_ms)
{
    qnet_conn *conn = NULL;
    int result = qnet_accept(listener, timeout_ms, &conn);

    CHECK((result == QNET_OK) == (conn != NULL));
    if (conn)
        CHECK_INT(qnet_close(conn), QNET_OK);
    return result;
}

static void race_listener_once(qnet_listener *listener, unsigned kind)
{
    char text[128];
    int64_t value;

    switch (kind % 6) {
    case 0:
        CHECK(as_set(qnet_listener_addr(listener, text, sizeof text)) & (NO_ERROR | STALE));
        break;
    case 1:
        CHECK(as_set(qnet_listener_fd(listener)) & (NO_ERROR | STALE));
        break;
    case 2:
        CHECK(as_set(qnet_listener_get(listener, QNET_OPT_MAX_CONNS, &value)) & (NO_ERROR | STALE));
        break;
    case 3:
        CHECK(as_set(qnet_listener_set(listener, QNET_OPT_MAX_CONNS, 99)) & (NO_ERROR | STALE));
        break;
    case 4:
        CHECK(as_set(accept_one(listener, 0)) & (NO_ERROR | AGAIN | CLOSED | STALE));
        break;
    default:
        CHECK(as_set(accept_one(listener, -1)) & (NO_ERROR | CLOSED | STALE));
        break;
    }
}

static void *listener_racer(void *argument)
{
    static int racers;
    struct listening *listening = argument;
    unsigned state = (unsigned)count_up(&racers);

    for (;;) {
        pthread_barrier_wait(&listening->line);
        if (listening->over)
            return NULL;
        while (!get(&listening->gone))
            race_listener_once(listening->listener, next_random(&state));
        CHECK_INT(accept_one(listening->listener, -1), QNET_ERR_HANDLE);
        pthread_barrier_wait(&listening->line);
    }
}

static void listener_close_against_accept(void)
{
    struct footprint before = footprint_now();
    struct listening listening;
    pthread_t threads[WORKERS];
    char address[64];
    unsigned state = 11;
    int i, times = rounds(3000), fd;

    memset(&listening, 0, sizeof listening);
    CHECK_INT(pthread_barrier_init(&listening.line, NULL, WORKERS + 1), 0);
    for (i = 0; i < WORKERS; i++)
        start_thread(&threads[i], listener_racer, &listening);
    for (i = 0; i < times; i++) {
        snprintf(address, sizeof address, "@qnet-race-%ld-%d", (long)getpid(), i);
        CHECK_INT(qnet_listen("unix", address, &listening.listener), QNET_OK);
        put(&listening.gone, 0);
        pthread_barrier_wait(&listening.line);
        fd = raw_unix_connect(address);
        CHECK(fd >= 0);
        spin(&state);
        CHECK_INT(qnet_listener_close(listening.listener), QNET_OK);
        put(&listening.gone, 1);
        CHECK(raw_ended(fd));
        close(fd);
        pthread_barrier_wait(&listening.line);
    }
    listening.over = 1;
    pthread_barrier_wait(&listening.line);
    for (i = 0; i < WORKERS; i++)
        join_thread(threads[i]);
    footprint_again(before);
}

int main(void)
{
    RUN(close_against_sending);
    RUN(close_against_receiving);
    RUN(close_against_waiting);
    RUN(a_broken_length_against_receiving);
    RUN(close_against_set_handler);
    RUN(close_against_knowing);
    RUN(close_against_shutdown);
    RUN(close_against_everything);
    RUN(shutdown_against_everything);
    RUN(leaving_peer_against_everything);
    RUN(close_handler_set_while_ending);
    RUN(two_threads_close);
    RUN(handler_and_thread_close);
    RUN(handlers_close_each_other);
    RUN(both_ends_close);
    RUN(many_open_and_close);
    RUN(listener_close_against_accept);
    return check_done();
}
