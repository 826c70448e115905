/*
 * runs.c - handlers that are called with many frames of one length behind each other, and
 * what happens where such a run is interrupted in the middle: no call comes that must
 * not, no frame is lost or given twice, and each is counted.
 */
#include "receiving.h"

/* ---- Every run arrives ---- */

enum { FRAMES_MOST = 6000, BATCH_MOST = 256 };

struct sequence {
    size_t lens[FRAMES_MOST]; /* of all frames, and of runts */
    unsigned count, next;     /* how many there are, and which is to come */
    uint64_t frames, bytes, runts;
};

/* Runs of all lengths, around those at which the library begins anew, with runts between. */
static void make_sequence(struct sequence *sequence, unsigned seed)
{
    static const unsigned runs[] = { 1, 2, 3, 127, 128, 129, 255, 256, 257, 300 };
    static const size_t lens[] = { 0, 1, 13, 14, 15, 60, 64, 64, 64, 128, 129, 1514 };
    size_t total = 0;

    memset(sequence, 0, sizeof *sequence);
    while (total < 120000) {
        unsigned left = runs[random_below(&seed, 10)];
        size_t len = lens[random_below(&seed, 12)];

        if (len > 1000)
            left = 1 + left % 4;
        while (left-- > 0 && sequence->count < FRAMES_MOST) {
            sequence->lens[sequence->count++] = len;
            total += RAW_PREFIX + len;
            sequence->frames += len >= QNET_FRAME_MIN;
            sequence->bytes += len >= QNET_FRAME_MIN ? len : 0;
            sequence->runts += len < QNET_FRAME_MIN;
        }
        if (sequence->count == FRAMES_MOST)
            return;
    }
}

static void write_sequence(int fd, const struct sequence *sequence)
{
    size_t total = 0, at = 0;
    uint8_t *wire;
    unsigned i;

    for (i = 0; i < sequence->count; i++)
        total += RAW_PREFIX + sequence->lens[i];
    wire = allocate(total);
    for (i = 0; i < sequence->count; i++) {
        raw_put_length(wire + at, sequence->lens[i]);
        raw_fill(wire + at + RAW_PREFIX, sequence->lens[i], i);
        at += RAW_PREFIX + sequence->lens[i];
    }
    raw_write(fd, wire, total);
    free(wire);
}

static void sequence_takes(struct sequence *sequence, const uint8_t *frame, size_t len)
{
    while (sequence->lens[sequence->next] < QNET_FRAME_MIN)
        sequence->next++;
    CHECK(sequence->next < sequence->count);
    CHECK_INT(len, sequence->lens[sequence->next]);
    CHECK(raw_is(frame, len, sequence->next));
    sequence->next++;
}

static void take_frame(void *user, const uint8_t *frame, size_t len)
{
    sequence_takes(user, frame, len);
}

static void take_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    CHECK(count > 0 && count <= BATCH_MOST);
    for (i = 0; i < count; i++)
        sequence_takes(user, frames[i].data, frames[i].len);
}

static void check_received(qnet_conn *conn, const struct sequence *sequence)
{
    qnet_stats stats;

    EVENTUALLY(stats_of(conn).rx_frames + stats_of(conn).rx_runts == sequence->count);
    stats = stats_of(conn);
    CHECK_INT(stats.rx_frames, sequence->frames);
    CHECK_INT(stats.rx_bytes, sequence->bytes);
    CHECK_INT(stats.rx_runts, sequence->runts);
}

static void every_run_arrives(void)
{
    static struct sequence sequence;
    unsigned seed;
    int way;

    for (seed = 1; seed <= (unsigned)rounds(40); seed++)
        for (way = BY_HANDLER; way <= BY_BATCH_HANDLER; way++) {
            int fd;
            qnet_conn *conn = raw_pair(&fd);

            make_sequence(&sequence, seed);
            if (seed % 2)
                write_sequence(fd, &sequence);
            if (way == BY_HANDLER)
                CHECK_INT(qnet_set_handler(conn, take_frame, &sequence), QNET_OK);
            else
                CHECK_INT(qnet_set_batch_handler(conn, take_batch, &sequence), QNET_OK);
            if (seed % 2 == 0)
                write_sequence(fd, &sequence);
            check_received(conn, &sequence);
            CHECK_INT(qnet_close(conn), QNET_OK);
            close(fd);
        }
}

/* ---- Interruptions ---- */

enum { QUEUED = 700 };

static const size_t run_len = 64;

/* In which call something happens: around the places where the library begins anew. */
static const unsigned moments[] = { 0, 1, 2, 63, 126, 127, 128, 129, 255, 256, 300, QUEUED - 2, QUEUED - 1 };
enum { MOMENTS = sizeof moments / sizeof *moments };

struct interruption {
    qnet_conn *conn;
    int fd;
    int way;
    struct flow flow;            /* what is expected next, by whatever receives */
    unsigned when;               /* at which frame `act` is called */
    int (*act)(struct interruption *);
    unsigned frames_at_end;      /* how many had been taken when it was */
    int acted, result;
    int pipe[2];                 /* what only some need */
    int child;
};

static void after_the_act(const struct interruption *in)
{
    CHECK(!get(&in->acted));
}

static void acting(struct interruption *in)
{
    in->frames_at_end = in->flow.next;
    put(&in->result, in->act(in));
    put(&in->acted, 1);
}

static void interrupted_frame(void *user, const uint8_t *frame, size_t len)
{
    struct interruption *in = user;

    after_the_act(in);
    flow_take(&in->flow, frame, len);
    if (in->flow.next == in->when + 1)
        acting(in);
}

static void interrupted_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct interruption *in = user;
    size_t i;

    after_the_act(in);
    for (i = 0; i < count; i++)
        flow_take(&in->flow, frames[i].data, frames[i].len);
    if (in->flow.next > in->when)
        acting(in);
}

static void later_frame(void *user, const uint8_t *frame, size_t len)
{
    struct interruption *in = user;

    flow_take(&in->flow, frame, len);
}

static void later_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        later_frame(user, frames[i].data, frames[i].len);
}

static int set_handler_of(struct interruption *in, int way)
{
    if (way == BY_HANDLER)
        return qnet_set_handler(in->conn, interrupted_frame, in);
    return qnet_set_batch_handler(in->conn, interrupted_batch, in);
}

/* QUEUED frames of one length lie ready when the handler is set. */
static void interrupt(struct interruption *in, int way, unsigned when, int (*act)(struct interruption *))
{
    struct flow flow = flow_of_one_size(&run_len);

    memset(in, 0, sizeof *in);
    in->conn = raw_pair(&in->fd);
    in->way = way;
    in->flow = flow;
    in->when = when;
    in->act = act;
    raw_send_flow(in->fd, &flow, QUEUED, 0);
    CHECK_INT(set_handler_of(in, way), QNET_OK);
}

/* Waits until the handler has acted, and will not be called any more. */
static void await_the_act(struct interruption *in)
{
    EVENTUALLY(get(&in->acted));
    CHECK_INT(in->result, QNET_OK);
}

/* Checks that all frames were received, in whichever ways, and counted once. */
static void check_all_came(struct interruption *in)
{
    EVENTUALLY(stats_of(in->conn).rx_frames == QUEUED);
    remove_handler(in->conn);
    CHECK_INT(in->flow.next, QUEUED);
    CHECK_INT(stats_of(in->conn).rx_frames, QUEUED);
    CHECK_INT(stats_of(in->conn).rx_bytes, QUEUED * run_len);
    CHECK_INT(qnet_close(in->conn), QNET_OK);
    close(in->fd);
}

static void at_each_moment(void (*test)(int way, unsigned when))
{
    size_t i;

    for (i = 0; i < MOMENTS; i++) {
        test(BY_HANDLER, moments[i]);
        test(BY_BATCH_HANDLER, moments[i]);
    }
}

static int act_remove(struct interruption *in)
{
    return qnet_set_handler(in->conn, NULL, NULL);
}

/* The frames that follow are received by who pulls. */
static void remove_then_pull(int way, unsigned when)
{
    static struct interruption in;
    uint8_t buffer[100];
    int len;

    interrupt(&in, way, when, act_remove);
    await_the_act(&in);
    while (in.flow.next < QUEUED) {
        len = qnet_recv(in.conn, buffer, sizeof buffer, patience_ms());
        CHECK(len > 0);
        flow_take(&in.flow, buffer, (size_t)len);
        CHECK_INT(stats_of(in.conn).rx_frames, in.flow.next);
    }
    CHECK_INT(qnet_recv(in.conn, buffer, sizeof buffer, 0), QNET_ERR_AGAIN);
    check_all_came(&in);
}

static void a_handler_removes_itself_in_a_run(void)
{
    at_each_moment(remove_then_pull);
}

static int act_replace(struct interruption *in)
{
    if (in->way == BY_HANDLER)
        return qnet_set_batch_handler(in->conn, later_batch, in);
    return qnet_set_handler(in->conn, later_frame, in);
}

/* The frames that follow go to the next handler. */
static void replace(int way, unsigned when)
{
    static struct interruption in;

    interrupt(&in, way, when, act_replace);
    await_the_act(&in);
    check_all_came(&in);
}

static void a_handler_replaces_itself_in_a_run(void)
{
    at_each_moment(replace);
}

/* Another thread takes the handler away while it is called. */
static void remove_from_outside(int way, unsigned when)
{
    static struct interruption in;
    uint8_t buffer[100];
    unsigned seen;

    interrupt(&in, way, QUEUED, act_remove);
    while (stats_of(in.conn).rx_frames < when)
        sched_yield();
    remove_handler(in.conn);
    seen = in.flow.next;
    CHECK_INT(stats_of(in.conn).rx_frames, seen);
    while (in.flow.next < QUEUED) {
        CHECK_INT(qnet_recv(in.conn, buffer, sizeof buffer, patience_ms()), run_len);
        flow_take(&in.flow, buffer, run_len);
    }
    check_all_came(&in);
}

static void a_handler_is_removed_in_a_run(void)
{
    at_each_moment(remove_from_outside);
}

static int act_close(struct interruption *in)
{
    return qnet_close(in->conn);
}

static int act_shutdown(struct interruption *in)
{
    return qnet_shutdown(in->conn);
}

/* No further call is made, and the peer sees the end. */
static void close_inside(int way, unsigned when)
{
    static struct interruption in;

    interrupt(&in, way, when, act_close);
    await_the_act(&in);
    CHECK(raw_ended(in.fd));
    raw_sleep_ms(2);
    CHECK_INT(in.flow.next, in.frames_at_end);
    CHECK(in.frames_at_end == when + 1 || way == BY_BATCH_HANDLER);
    CHECK_INT(qnet_close_reason(in.conn), QNET_ERR_HANDLE);
    close(in.fd);
}

static void a_handler_closes_its_connection_in_a_run(void)
{
    at_each_moment(close_inside);
}

static void shut_down_inside(int way, unsigned when)
{
    static struct interruption in;

    interrupt(&in, way, when, act_shutdown);
    await_the_act(&in);
    CHECK(raw_ended(in.fd));
    CHECK_INT(qnet_wait(in.conn, patience_ms()), QNET_OK);
    CHECK_INT(qnet_close(in.conn), QNET_OK);
    CHECK_INT(in.flow.next, in.frames_at_end);
    close(in.fd);
}

static void a_handler_shuts_down_in_a_run(void)
{
    at_each_moment(shut_down_inside);
}

static int act_exit(struct interruption *in)
{
    put(&in->result, QNET_OK);
    put(&in->acted, 1);
    pthread_exit(NULL);
    return QNET_OK;
}

/* The frames before are counted; those that follow go to the handler that is set next. */
static void end_the_thread(int way, unsigned when)
{
    static struct interruption in;
    uint8_t buffer[100];

    interrupt(&in, way, when, act_exit);
    await_the_act(&in);
    CHECK_INT(stats_of(in.conn).rx_frames, in.flow.next);
    if (when % 2 == 0) {
        int len;

        /* Until the thread has ended, the connection still has its handler. */
        while ((len = qnet_recv(in.conn, buffer, sizeof buffer, 0)) == QNET_ERR_BUSY)
            sched_yield();
        if (in.flow.next == QUEUED) {
            CHECK_INT(len, QNET_ERR_AGAIN);
        } else {
            CHECK_INT(len, run_len);
            flow_take(&in.flow, buffer, run_len);
        }
    }
    CHECK_INT(qnet_set_handler(in.conn, later_frame, &in), QNET_OK);
    check_all_came(&in);
}

static void a_handler_ends_its_thread_in_a_run(void)
{
    at_each_moment(end_the_thread);
}

static int act_replace_and_exit(struct interruption *in)
{
    CHECK_INT(act_replace(in), QNET_OK);
    return act_exit(in);
}

static void replace_and_end_the_thread(int way, unsigned when)
{
    static struct interruption in;

    interrupt(&in, way, when, act_replace_and_exit);
    await_the_act(&in);
    check_all_came(&in);
}

static void a_handler_leaves_a_run_to_another_thread(void)
{
    at_each_moment(replace_and_end_the_thread);
}

/* ---- Pulling inside ---- */

/* A handler takes the frames that follow by itself, and is called with those that it leaves. */
static void pulls_on(void *user, const uint8_t *frame, size_t len)
{
    struct interruption *in = user;
    uint8_t buffer[100];
    unsigned i;

    flow_take(&in->flow, frame, len);
    if (in->flow.next % 50 != 10)
        return;
    CHECK_INT(qnet_set_handler(in->conn, NULL, NULL), QNET_OK);
    for (i = 0; i < 5 && in->flow.next < QUEUED; i++) {
        CHECK_INT(qnet_recv(in->conn, buffer, sizeof buffer, -1), run_len);
        flow_take(&in->flow, buffer, run_len);
    }
    CHECK(frame_number(frame, len) % 50 == 9); /* its bytes are still there */
    CHECK_INT(qnet_set_handler(in->conn, pulls_on, in), QNET_OK);
}

static void a_handler_pulls_in_a_run(void)
{
    static struct interruption in;
    struct flow flow = flow_of_one_size(&run_len);

    memset(&in, 0, sizeof in);
    in.conn = raw_pair(&in.fd);
    in.flow = flow;
    raw_send_flow(in.fd, &flow, QUEUED, 0);
    CHECK_INT(qnet_set_handler(in.conn, pulls_on, &in), QNET_OK);
    check_all_came(&in);
}

/* ---- Children ---- */

static void end_child(void)
{
    syscall(SYS_exit_group, 0);
}

/* The child writes a byte to the pipe, and returns from the handler. */
static int act_fork(struct interruption *in)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        alarm((unsigned)(10 * check_slow()));
#ifdef __SANITIZE_ADDRESS__
        CHECK_INT(atexit(end_child), 0);
#endif
        close(in->pipe[0]);
        CHECK_INT(qnet_send(in->conn, "a frame to nobody", 17), QNET_ERR_HANDLE);
        CHECK(write(in->pipe[1], "c", 1) == 1);
        return QNET_OK;
    }
    put(&in->child, (int)pid);
    return QNET_OK;
}

static void forking_frame(void *user, const uint8_t *frame, size_t len)
{
    struct interruption *in = user;

    if (in->acted && !in->child)
        CHECK(write(in->pipe[1], "x", 1) == 1); /* a call in the child, which must not come */
    flow_take(&in->flow, frame, len);
    if (in->flow.next == in->when + 1)
        acting(in);
}

static void forking_batch(void *user, const qnet_frame *frames, size_t count)
{
    struct interruption *in = user;
    size_t i;

    if (in->acted && !in->child)
        CHECK(write(in->pipe[1], "x", 1) == 1);
    for (i = 0; i < count; i++)
        flow_take(&in->flow, frames[i].data, frames[i].len);
    if (!in->acted && in->flow.next > in->when)
        acting(in);
}

/* In the child no further call is made, and its thread ends; in the parent the run goes on. */
static void fork_inside(int way, unsigned when)
{
    static struct interruption in;
    struct flow flow = flow_of_one_size(&run_len);
    char got[10];
    int status;

    (void)end_child;
    memset(&in, 0, sizeof in);
    in.conn = raw_pair(&in.fd);
    in.flow = flow;
    in.when = when;
    in.act = act_fork;
    CHECK(pipe(in.pipe) == 0);
    raw_send_flow(in.fd, &flow, QUEUED, 0);
    if (way == BY_HANDLER)
        CHECK_INT(qnet_set_handler(in.conn, forking_frame, &in), QNET_OK);
    else
        CHECK_INT(qnet_set_batch_handler(in.conn, forking_batch, &in), QNET_OK);
    EVENTUALLY(get(&in.child) != 0);
    CHECK(waitpid(get(&in.child), &status, 0) == get(&in.child));
    CHECK_INT(status, 0);
    CHECK(close(in.pipe[1]) == 0);
    CHECK_INT(read(in.pipe[0], got, sizeof got), 1);
    CHECK_INT(got[0], 'c');
    CHECK(close(in.pipe[0]) == 0);
    check_all_came(&in);
}

static void a_child_stops_in_a_run(void)
{
    at_each_moment(fork_inside);
}

/* ---- Corked sends ---- */

struct relay {
    qnet_conn *target;
    unsigned when, calls;
};

static void relays_then_ends(void *user, const uint8_t *frame, size_t len)
{
    struct relay *relay = user;

    CHECK_INT(qnet_send(relay->target, frame, len), QNET_OK);
    if (relay->calls++ == relay->when)
        pthread_exit(NULL);
}

static void relays(void *user, const uint8_t *frame, size_t len)
{
    struct relay *relay = user;

    CHECK_INT(qnet_send(relay->target, frame, len), QNET_OK);
}

/* What a handler has sent is written, though it ends its thread in the middle of a run. */
static void what_was_corked_is_written(void)
{
    size_t i;

    for (i = 0; i < MOMENTS; i++) {
        struct flow flow = flow_of_one_size(&run_len), expected = flow;
        struct relay relay = { .when = moments[i] };
        int fd, target_fd;
        qnet_conn *source = raw_pair(&fd);

        relay.target = raw_pair(&target_fd);
        raw_send_flow(fd, &flow, QUEUED, 0);
        CHECK_INT(qnet_set_handler(source, relays_then_ends, &relay), QNET_OK);
        raw_take_until(target_fd, &expected, moments[i] + 1);
        CHECK_INT(qnet_set_handler(source, relays, &relay), QNET_OK);
        raw_take_until(target_fd, &expected, QUEUED);
        CHECK_INT(qnet_close(source), QNET_OK);
        CHECK_INT(stats_of(relay.target).tx_frames, QUEUED);
        CHECK_INT(qnet_close(relay.target), QNET_OK);
        close(fd);
        close(target_fd);
    }
}

int main(void)
{
    RUN(every_run_arrives);
    RUN(a_handler_removes_itself_in_a_run);
    RUN(a_handler_replaces_itself_in_a_run);
    RUN(a_handler_is_removed_in_a_run);
    RUN(a_handler_closes_its_connection_in_a_run);
    RUN(a_handler_shuts_down_in_a_run);
    RUN(a_handler_ends_its_thread_in_a_run);
    RUN(a_handler_leaves_a_run_to_another_thread);
    RUN(a_handler_pulls_in_a_run);
    RUN(a_child_stops_in_a_run);
    RUN(what_was_corked_is_written);
    return check_done();
}
