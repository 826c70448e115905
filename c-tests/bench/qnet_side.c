/*
 * qnet_side.c - the same work with libqnet: every way to send, every way to receive, a
 * relay, round trips and the delay of a lone frame. Every side also prints how often it
 * allocated memory while the last three quarters of its frames went through.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "allocations.h"
#include "qnet.h"
#include "work.h"

/* An earlier library, beside which this one is measured, may lack it. */
#pragma weak qnet_impair

enum { MOST_LENT = 2048, PAUSE_US = 500, QUEUE_BYTES = 64 << 20 };

static void check(int result, const char *what)
{
    if (result < 0)
        work_fail(what, qnet_last_error());
}

/* Sets an option. If this library does not have it, prints `missing`. */
static void set_option(qnet_conn *conn, int option, long value, const char *missing)
{
    int result = qnet_set(conn, option, value);

    if (result == QNET_ERR_UNSUPPORTED)
        work_say(missing, 1);
    else
        check(result, "set");
}

/* Opens a connection whose messages are frames, which may be lost. */
static qnet_conn *join(const struct work *work)
{
    qnet_conn *conn;

    if (strcmp(work->network, "tap") == 0) {
        check(qnet_tap(work->address, &conn), "tap");
        work_wait_running(work->address);
    } else {
        check(qnet_dgram(work->network, work->address, work->to, &conn), "datagrams");
    }
    return conn;
}

static qnet_conn *dial(const struct work *work, const char *address)
{
    qnet_conn *conn;

    if (work_has_messages(work->network))
        return join(work);
    check(qnet_dial(work->network, address, &conn), "dial");
    if (work->usecs > 0)
        set_option(conn, QNET_OPT_TX_USECS, work->usecs, "missing_tx_usecs");
    return conn;
}

static qnet_conn *accept_one(const struct work *work)
{
    qnet_listener *listener;
    qnet_conn *conn;

    check(qnet_listen(work->network, work->address, &listener), "listen");
    work_ready();
    check(qnet_accept(listener, -1, &conn), "accept");
    check(qnet_listener_close(listener), "close listener");
    return conn;
}

/* ---- Sending ---- */

struct sending {
    qnet_conn *conn;
    size_t size;
    const unsigned char *packed; /* a batch of frames in wire format, */
    qnet_frame *frames;          /* and where each of them lies */
    size_t batch;
};

static void send_singles(void *user, uint64_t frames)
{
    struct sending *sending = user;

    while (frames-- > 0)
        check(qnet_send(sending->conn, sending->frames[0].data, sending->size), "send");
}

static void send_batches(void *user, uint64_t frames)
{
    struct sending *sending = user;

    while (frames > 0) {
        size_t count = frames < sending->batch ? (size_t)frames : sending->batch;

        check(qnet_send_batch(sending->conn, sending->frames, count), "send batch");
        frames -= count;
    }
}

static void send_packed(void *user, uint64_t frames)
{
    struct sending *sending = user;

    while (frames > 0) {
        size_t count = frames < sending->batch ? (size_t)frames : sending->batch;

        check(qnet_send_packed(sending->conn, sending->packed,
                               count * (sending->size + WORK_PREFIX)), "send packed");
        frames -= count;
    }
}

static void prepare(struct sending *sending, size_t size)
{
    size_t i;

    sending->size = size;
    sending->batch = work_batch(size);
    sending->packed = work_packed(size, sending->batch);
    sending->frames = work_memory(sending->batch * sizeof *sending->frames);
    for (i = 0; i < sending->batch; i++) {
        sending->frames[i].data = sending->packed + i * (size + WORK_PREFIX) + WORK_PREFIX;
        sending->frames[i].len = size;
    }
}

static void send_by(const struct work *work, void (*send)(void *user, uint64_t frames))
{
    struct work part = *work;
    struct sending sending;
    qnet_stats stats;
    uint64_t before;

    prepare(&sending, work->size);
    sending.conn = dial(work, work->address);
    part.frames = work->frames / 4;
    work_send(&part, send, &sending);
    part.frames = work->frames - part.frames;
    before = allocations();
    work_send(&part, send, &sending);
    check(qnet_flush(sending.conn), "flush");
    work_say("allocations", allocations() - before);
    work_stay();
    check(qnet_get_stats(sending.conn, &stats, sizeof stats), "stats");
    work_say("tx_dropped", stats.tx_dropped);
    check(qnet_close(sending.conn), "close");
}

static void run_send(const struct work *work)
{
    send_by(work, send_singles);
}

static void run_send_batch(const struct work *work)
{
    send_by(work, send_batches);
}

static void run_send_packed(const struct work *work)
{
    send_by(work, send_packed);
}

/* ---- Receiving ---- */

/*
 * Counts what has come. At the first milestone allocations begin to count; at the second
 * all frames have come.
 */
struct receiving {
    uint64_t got;
    uint64_t milestone;
    uint64_t frames;
    uint64_t allocated;
    sem_t done;
};

static void receiving_begin(struct receiving *receiving, uint64_t frames)
{
    receiving->got = 0;
    receiving->milestone = (frames + 3) / 4;
    receiving->frames = frames;
    receiving->allocated = allocations();
    sem_init(&receiving->done, 0, 0);
}

static void reach_milestone(struct receiving *receiving)
{
    if (receiving->milestone < receiving->frames) {
        receiving->milestone = receiving->frames;
        receiving->allocated = allocations();
    }
    if (receiving->got < receiving->frames)
        return;
    receiving->milestone = UINT64_MAX;
    work_say("end", work_now());
    work_say("frames", receiving->got);
    work_say("allocations", allocations() - receiving->allocated);
    sem_post(&receiving->done);
}

static inline int receiving_add(struct receiving *receiving, uint64_t frames)
{
    receiving->got += frames;
    if (receiving->got >= receiving->milestone)
        reach_milestone(receiving);
    return receiving->got < receiving->frames;
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)frame;
    (void)len;
    receiving_add(user, 1);
}

static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)frames;
    receiving_add(user, count);
}

static void receive_by_handler(const struct work *work, qnet_handler handler,
                               qnet_batch_handler batch_handler)
{
    struct receiving receiving;
    qnet_conn *conn = accept_one(work);

    receiving_begin(&receiving, work->frames);
    if (handler)
        check(qnet_set_handler(conn, handler, &receiving), "set handler");
    else
        check(qnet_set_batch_handler(conn, batch_handler, &receiving), "set batch handler");
    while (sem_wait(&receiving.done) != 0)
        continue;
    check(qnet_close(conn), "close");
}

/* ---- Receiving messages ---- */

struct receiving_messages {
    struct work_arrivals arrivals;
    uint64_t milestone; /* frames after which allocations count */
    uint64_t allocated;
    sem_t done;
};

static void on_messages(void *user, const qnet_frame *frames, size_t count)
{
    struct receiving_messages *receiving = user;

    (void)frames;
    if (!work_arrived(&receiving->arrivals, count))
        sem_post(&receiving->done);
    if (receiving->arrivals.got >= receiving->milestone) {
        receiving->milestone = UINT64_MAX;
        receiving->allocated = allocations();
    }
}

/* Waits until all messages have come, or no more come. */
static void wait_for_messages(struct receiving_messages *receiving)
{
    struct timespec until;

    do {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += WORK_SILENCE_S;
        if (sem_timedwait(&receiving->done, &until) == 0)
            return;
    } while (!work_is_silent(&receiving->arrivals));
}

static void run_receive_messages(const struct work *work)
{
    struct receiving_messages receiving;
    qnet_conn *conn = join(work);

    memset(&receiving, 0, sizeof receiving);
    receiving.arrivals.expected = work->frames;
    receiving.milestone = (work->frames + 3) / 4;
    sem_init(&receiving.done, 0, 0);
    check(qnet_set_batch_handler(conn, on_messages, &receiving), "set batch handler");
    work_ready();
    wait_for_messages(&receiving);
    check(qnet_set_batch_handler(conn, NULL, NULL), "remove batch handler");
    work_say_arrivals(&receiving.arrivals);
    work_say("allocations", allocations() - receiving.allocated);
    check(qnet_close(conn), "close");
}

static void run_handler(const struct work *work)
{
    receive_by_handler(work, on_frame, NULL);
}

static void run_batch_handler(const struct work *work)
{
    receive_by_handler(work, NULL, on_batch);
}

/* Pulls once. Returns how many frames came. */
typedef uint64_t (*pull)(qnet_conn *conn, void *room);

static uint64_t pull_one(qnet_conn *conn, void *room)
{
    check(qnet_recv(conn, room, QNET_FRAME_MAX, -1), "receive");
    return 1;
}

static uint64_t pull_batch(qnet_conn *conn, void *room)
{
    int count = qnet_recv_batch(conn, room, MOST_LENT, -1);

    check(count, "receive batch");
    return (uint64_t)count;
}

static uint64_t pull_packed(qnet_conn *conn, void *room)
{
    int len = qnet_recv_packed(conn, room, WORK_READ, -1);
    size_t rest;

    check(len, "receive packed");
    return work_walk(room, (size_t)len, &rest);
}

static void receive_by_pulling(const struct work *work, pull pull)
{
    struct receiving receiving;
    void *room = work_memory(WORK_READ);
    qnet_conn *conn = accept_one(work);

    receiving_begin(&receiving, work->frames);
    while (receiving_add(&receiving, pull(conn, room)))
        continue;
    check(qnet_close(conn), "close");
}

static void run_receive(const struct work *work)
{
    receive_by_pulling(work, pull_one);
}

static void run_receive_batch(const struct work *work)
{
    receive_by_pulling(work, pull_batch);
}

static void run_receive_packed(const struct work *work)
{
    receive_by_pulling(work, pull_packed);
}

/* ---- A relay: the handler sends each frame on ---- */

struct relay {
    struct receiving receiving;
    qnet_conn *to;
};

static void send_on(void *user, const uint8_t *frame, size_t len)
{
    struct relay *relay = user;

    check(qnet_send(relay->to, frame, len), "send on");
    receiving_add(&relay->receiving, 1);
}

static void run_relay(const struct work *work)
{
    struct relay relay;
    qnet_conn *from;
    int64_t cork;

    relay.to = dial(work, work->to);
    if (qnet_get(relay.to, QNET_OPT_CORK, &cork) == QNET_ERR_UNSUPPORTED)
        work_say("missing_cork", 1);
    from = accept_one(work);
    receiving_begin(&relay.receiving, work->frames);
    check(qnet_set_handler(from, send_on, &relay), "set handler");
    check(qnet_wait(from, -1), "wait");
    check(qnet_close(from), "close");
    check(qnet_close(relay.to), "close");
}

/* ---- Forwarding without the program ---- */

static void wait_counting(qnet_conn *conn)
{
    uint64_t before = allocations();

    check(qnet_wait(conn, -1), "wait");
    work_say("allocations", allocations() - before);
}

/* Sets what is to become of the frames that come in. */
static void impair(const struct work *work, qnet_conn *from)
{
    char text[100];
    int len = 0;

    if (work->loss)
        len = snprintf(text, sizeof text, "loss %s%% ", work->loss);
    if (work->delay)
        len += snprintf(text + len, sizeof text - (size_t)len, "delay %sus", work->delay);
    if (len > 0)
        check(qnet_impair(from, QNET_IN, text), "impair");
}

/* A pipe that a process of its own reads. */
static int pipe_that_is_read(void)
{
    char *bytes = work_memory(WORK_READ);
    int ends[2];
    pid_t reader;

    work_check(pipe(ends) == 0, "pipe");
    reader = fork();
    work_check(reader >= 0, "fork");
    if (reader > 0) {
        close(ends[0]);
        return ends[1];
    }
    close(ends[1]);
    while (read(ends[0], bytes, WORK_READ) > 0)
        continue;
    _exit(0);
}

/* The FIFO of a capture that nobody reads. */
static char *unread;

/* A capture as it is asked for, or NULL. */
static qnet_capture *capture_for(const struct work *work)
{
    qnet_capture *capture = NULL;
    char path[] = "/tmp/qnet-bench.XXXXXX";

    if (work->capture && strcmp(work->capture, "read") == 0)
        check(qnet_capture_open_fd(pipe_that_is_read(), NULL, 0, &capture), "capture");
    if (work->capture && strcmp(work->capture, "unread") == 0) {
        work_check(mkdtemp(path) != NULL && rmdir(path) == 0 && mkfifo(path, 0600) == 0, "FIFO");
        check(qnet_capture_open(path, NULL, 0, &capture), "capture");
        unread = strdup(path);
    }
    return capture;
}

/* Waits while frames come from a connection, and tells what became of them in a capture, if there is one. */
static void wait_captured(qnet_capture *capture, qnet_conn *from)
{
    qnet_capture_stats stats;

    wait_counting(from);
    if (!capture)
        return;
    check(qnet_capture_get_stats(capture, &stats, sizeof stats), "stats");
    work_say("captured", stats.frames);
    work_say("uncaptured", stats.dropped);
    check(qnet_capture_close(capture), "close capture");
    if (unread)
        work_check(unlink(unread) == 0, "FIFO");
    free(unread);
}

static void run_link(const struct work *work)
{
    qnet_capture *capture = capture_for(work);
    qnet_conn *to = dial(work, work->to), *from = accept_one(work);

    impair(work, from);
    check(qnet_link(from, to), "link");
    if (capture) {
        check(qnet_capture_add(capture, from, "from"), "capture");
        check(qnet_capture_add(capture, to, "to"), "capture");
    }
    wait_captured(capture, from);
    check(qnet_close(from), "close");
    check(qnet_close(to), "close");
}

/*
 * Opens a hub with queues so long that it drops nothing while the receiver waits for a
 * processor.
 */
static qnet_hub *open_hub(void)
{
    qnet_hub *hub;

    check(qnet_hub_new(&hub), "hub");
    check(qnet_hub_set(hub, QNET_OPT_QUEUE_BYTES, QUEUE_BYTES), "set queue");
    return hub;
}

/* Attaches a connection to a hub, with access to the VLAN that is asked for, if one is. */
static void attach(const struct work *work, qnet_hub *hub, qnet_conn *conn)
{
    char access[32];

    /* Before it is attached: what the hub learns of it is in its VLAN. */
    if (work->vlan) {
        snprintf(access, sizeof access, "access %s", work->vlan);
        check(qnet_set_vlan(conn, access), "VLAN");
    }
    check(qnet_hub_attach(hub, conn), "attach");
}

static void close_hub(qnet_hub *hub)
{
    qnet_hub_stats stats;

    check(qnet_hub_get_stats(hub, &stats, sizeof stats), "stats");
    work_say("dropped", stats.dropped);
    check(qnet_hub_close(hub), "close hub");
}

/* Frames pass between two ports. All others are attached and idle. */
static void run_hub(const struct work *work)
{
    qnet_capture *capture = capture_for(work);
    qnet_hub *hub = open_hub();
    qnet_conn *to = dial(work, work->to), *from, *idle;
    unsigned i;

    attach(work, hub, to);
    for (i = 2; i < work->ports; i++)
        check(qnet_hub_port(hub, &idle), "port");
    from = accept_one(work);
    attach(work, hub, from);
    if (capture)
        check(qnet_capture_add_hub(capture, hub, "hub"), "capture");
    wait_captured(capture, from);
    close_hub(hub);
    check(qnet_close(from), "close");
    check(qnet_close(to), "close");
}

static void run_serve(const struct work *work)
{
    qnet_hub *hub = open_hub();
    qnet_listener *listener;

    check(qnet_listen(work->network, work->address, &listener), "listen");
    check(qnet_hub_serve(hub, listener), "serve");
    work_ready();
    work_stay();
    close_hub(hub);
}

/*
 * A hub as it is by default: it drops what its full ports have no room for. Who listens
 * at the one side is attached, and whoever dials the other.
 */
static void run_crowd(const struct work *work)
{
    qnet_listener *listener;
    qnet_conn *to = dial(work, work->to);
    qnet_hub *hub;

    check(qnet_hub_new(&hub), "hub");
    check(qnet_hub_attach(hub, to), "attach");
    check(qnet_listen(work->network, work->address, &listener), "listen");
    check(qnet_hub_serve(hub, listener), "serve");
    work_ready();
    work_stay();
    close_hub(hub);
    check(qnet_close(to), "close");
}

/* ---- Round trips ---- */

static void run_ping(const struct work *work)
{
    qnet_conn *conn = dial(work, work->address);
    const unsigned char *frame = work_packed(work->size, 1) + WORK_PREFIX;
    void *room = work_memory(QNET_FRAME_MAX);
    struct work_times times;
    uint64_t before, after = work_now();

    work_times_begin(&times, work->frames);
    work_say("begin", work_now());
    do {
        before = after;
        check(qnet_send(conn, frame, work->size), "send");
        check(qnet_recv(conn, room, QNET_FRAME_MAX, -1), "receive");
        after = work_now();
    } while (!work_times_add(&times, after - before));
    check(qnet_close(conn), "close");
}

static void run_pong(const struct work *work)
{
    void *room = work_memory(QNET_FRAME_MAX);
    qnet_conn *conn = accept_one(work);
    int len;

    while ((len = qnet_recv(conn, room, QNET_FRAME_MAX, -1)) > 0)
        check(qnet_send(conn, room, (size_t)len), "send");
    check(qnet_close(conn), "close");
}

static void send_back(void *user, const uint8_t *frame, size_t len)
{
    check(qnet_send(user, frame, len), "send back");
}

static void run_pong_handler(const struct work *work)
{
    qnet_conn *conn = accept_one(work);

    check(qnet_set_handler(conn, send_back, conn), "set handler");
    check(qnet_wait(conn, -1), "wait");
    check(qnet_close(conn), "close");
}

/* ---- The delay of frames that are sent one by one, with pauses ---- */

static void run_lone(const struct work *work)
{
    qnet_conn *conn = dial(work, work->address);
    unsigned char *frame = work_packed(work->size, 1) + WORK_PREFIX;
    uint64_t frames;

    work_say("begin", work_now());
    for (frames = work->frames; frames > 0; frames--) {
        work_sleep_us(PAUSE_US);
        work_stamp(frame);
        check(qnet_send(conn, frame, work->size), "send");
    }
    work_stay();
    check(qnet_close(conn), "close");
}

struct delays {
    struct work_times times;
    sem_t done;
};

static void on_stamped(void *user, const uint8_t *frame, size_t len)
{
    struct delays *delays = user;

    (void)len;
    /* A hub's other devices announce themselves. */
    if (frame[0] & 1)
        return;
    if (work_times_add(&delays->times, work_age(frame)))
        sem_post(&delays->done);
}

static void take_delays(const struct work *work, qnet_conn *conn)
{
    struct delays delays;

    work_times_begin(&delays.times, work->frames);
    sem_init(&delays.done, 0, 0);
    check(qnet_set_handler(conn, on_stamped, &delays), "set handler");
    while (sem_wait(&delays.done) != 0)
        continue;
    check(qnet_close(conn), "close");
}

static void run_delay(const struct work *work)
{
    take_delays(work, accept_one(work));
}

/* The same as the device that the frames are for, which a hub knows by a broadcast. */
static void run_delay_known(const struct work *work)
{
    unsigned char *frame = work_packed(work->size, 1) + WORK_PREFIX;
    qnet_conn *conn = accept_one(work);

    memset(frame, 0xff, 6);
    work_device(frame + 6, 2);
    check(qnet_send(conn, frame, work->size), "send");
    take_delays(work, conn);
}

const struct work_role work_roles[] = {
    {"send", run_send},
    {"send-batch", run_send_batch},
    {"send-packed", run_send_packed},
    {"handler", run_handler},
    {"batch-handler", run_batch_handler},
    {"receive", run_receive},
    {"receive-batch", run_receive_batch},
    {"receive-packed", run_receive_packed},
    {"receive-messages", run_receive_messages},
    {"relay", run_relay},
    {"link", run_link},
    {"hub", run_hub},
    {"serve", run_serve},
    {"crowd", run_crowd},
    {"ping", run_ping},
    {"pong", run_pong},
    {"pong-handler", run_pong_handler},
    {"lone", run_lone},
    {"delay", run_delay},
    {"delay-known", run_delay_known},
    {NULL, NULL},
};
