/*
 * instructions.c - moves frames of 64 bytes in one way, for instructions.py to count the
 * instructions of each under callgrind.
 *
 *     instructions WORK ROUNDS
 *
 * A round is a batch of frames that its socket holds, so that nobody waits for room, and the number
 * of system calls is the same in each run. The other side is a plain socket in the same process,
 * which is written and read with one call a round. So nearly every instruction that a further round
 * takes is the library's, or the C library's for it.
 */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qnet.h"
#include "work.h"

enum {
    SIZE = 64,
    WIRE = WORK_PREFIX + SIZE,
    BATCH = 512,
    ROUND = 3 * BATCH,
    PAIRS = 35,       /* of addresses that take turns */
    HOLD_US = 100000, /* longer than a round takes, even under callgrind */
    BUFFER = 4 << 20  /* of a socket: room for a round of frames that are written one by one */
};

static unsigned char *frames;            /* a round of them, in wire format */
static qnet_frame scattered[BATCH];      /* where each of them lies */
static unsigned char room[ROUND * WIRE]; /* for what comes out */
static sem_t done;

static void check(int result, const char *what)
{
    if (result < 0)
        work_fail(what, qnet_last_error());
}

/* A connection, and the plain socket at its other end. */
static qnet_conn *pair(int *fd)
{
    qnet_conn *conn;

    check(qnet_socketpair_fd(&conn, fd), "pair");
    check(qnet_set(conn, QNET_OPT_SNDBUF, BUFFER), "send buffer");
    work_enlarge(*fd);
    return conn;
}

static void write_round(int fd)
{
    work_write(fd, frames, ROUND * WIRE);
}

static void read_frames(int fd, size_t count)
{
    work_check(work_read(fd, room, count * WIRE, sizeof room) == count * WIRE, "read");
}

/* ---- Sending ---- */

static void send_each(qnet_conn *conn, int fd, unsigned rounds)
{
    unsigned batches, i;
    int result = 0;

    for (batches = rounds * (ROUND / BATCH); batches > 0; batches--) {
        for (i = 0; i < BATCH; i++)
            result |= qnet_send(conn, frames + WORK_PREFIX, SIZE);
        check(result, "send");
        check(qnet_flush(conn), "flush");
        read_frames(fd, BATCH);
    }
}

static void run_send(unsigned rounds)
{
    int fd;
    qnet_conn *conn = pair(&fd);

    send_each(conn, fd, rounds);
}

static void run_coalesce(unsigned rounds)
{
    int fd;
    qnet_conn *conn = pair(&fd);

    check(qnet_set(conn, QNET_OPT_TX_USECS, HOLD_US), "coalesce");
    send_each(conn, fd, rounds);
}

static void run_send_batch(unsigned rounds)
{
    int fd;
    unsigned batches;
    qnet_conn *conn = pair(&fd);

    for (batches = rounds * (ROUND / BATCH); batches > 0; batches--) {
        work_check(qnet_send_batch(conn, scattered, BATCH) == BATCH, "send a batch");
        read_frames(fd, BATCH);
    }
}

/* ---- Receiving ---- */

static void run_recv(unsigned rounds)
{
    int fd;
    unsigned i;
    qnet_conn *conn = pair(&fd);

    while (rounds-- > 0) {
        write_round(fd);
        for (i = 0; i < ROUND; i++)
            check(qnet_recv(conn, room, sizeof room, -1), "receive");
    }
}

static void run_recv_batch(unsigned rounds)
{
    qnet_frame lent[BATCH];
    int fd;
    unsigned left;
    qnet_conn *conn = pair(&fd);

    while (rounds-- > 0) {
        write_round(fd);
        for (left = ROUND; left > 0;) {
            int count = qnet_recv_batch(conn, lent, BATCH, -1);

            check(count, "receive a batch");
            left -= (unsigned)count;
        }
    }
}

/* ---- Handlers ---- */

static qnet_conn *onward;
static unsigned awaited = ROUND; /* before the round is over */

static void end_round(void)
{
    awaited = ROUND;
    sem_post(&done);
}

static void count_handled(unsigned count)
{
    awaited -= count;
    if (awaited == 0)
        end_round();
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
    count_handled(1);
}

static void on_batch(void *user, const qnet_frame *batch, size_t count)
{
    (void)user;
    (void)batch;
    count_handled((unsigned)count);
}

static void send_on(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    check(qnet_send(onward, frame, len), "send on");
    count_handled(1);
}

static void write_rounds(int fd, unsigned rounds)
{
    while (rounds-- > 0) {
        write_round(fd);
        while (sem_wait(&done) != 0)
            continue;
    }
}

static void run_handler(unsigned rounds)
{
    int fd;
    qnet_conn *conn = pair(&fd);

    check(qnet_set_handler(conn, on_frame, NULL), "handler");
    write_rounds(fd, rounds);
}

static void run_batch_handler(unsigned rounds)
{
    int fd;
    qnet_conn *conn = pair(&fd);

    check(qnet_set_batch_handler(conn, on_batch, NULL), "batch handler");
    write_rounds(fd, rounds);
}

static void run_relay(unsigned rounds)
{
    int in, out;
    qnet_conn *conn = pair(&in);

    onward = pair(&out);
    check(qnet_set_handler(conn, send_on, NULL), "handler");
    while (rounds-- > 0) {
        write_round(in);
        while (sem_wait(&done) != 0)
            continue;
        read_frames(out, ROUND);
    }
}

/* ---- Forwarding ---- */

static void forward_rounds(int in, int out, unsigned rounds)
{
    while (rounds-- > 0) {
        write_round(in);
        read_frames(out, ROUND);
    }
}

static void forward_by_link(const char *impairment, unsigned rounds)
{
    int in, out;
    qnet_conn *a = pair(&in), *b = pair(&out);

    check(qnet_impair(a, QNET_IN, impairment), "impair");
    check(qnet_link(a, b), "link");
    forward_rounds(in, out, rounds);
}

static void run_link(unsigned rounds)
{
    forward_by_link(NULL, rounds);
}

/* A round has to come out whole. Nothing is lost, but every frame might be. */
static void run_link_loss(unsigned rounds)
{
    forward_by_link("loss 0%", rounds);
}

/* A hub whose two ports are in those VLANs, and which is captured, if there is a capture. */
static void forward_by_hub(unsigned pairs, const char *vlan, qnet_capture *capture, unsigned rounds)
{
    int in, out;
    unsigned i;
    qnet_conn *a = pair(&in), *b = pair(&out);
    qnet_hub *hub;

    check(qnet_hub_new(&hub), "hub");
    if (capture)
        check(qnet_capture_add_hub(capture, hub, NULL), "capture");
    check(qnet_set_vlan(a, vlan), "VLAN");
    check(qnet_set_vlan(b, vlan), "VLAN");
    check(qnet_hub_attach(hub, a), "attach");
    check(qnet_hub_attach(hub, b), "attach");
    for (i = 0; i < pairs; i++) {
        work_announce(out, PAIRS + 1 + i);
        work_check(work_read(in, room, 1, sizeof room) > 0, "announce");
    }
    for (i = 0; i < ROUND; i++) {
        work_device(frames + i * WIRE + WORK_PREFIX, PAIRS + 1 + i % pairs);
        work_device(frames + i * WIRE + WORK_PREFIX + 6, 1 + i % pairs);
    }
    forward_rounds(in, out, rounds);
}

/* Frames of VLAN 10 from a trunk to a port of that, of the pairs of addresses that a mixed hub has. */
static void forward_tagged(const char *to, unsigned rounds)
{
    static const unsigned char tag[] = {0x81, 0x00, 0x00, 0x0a, 0x08, 0x00};
    int in, out;
    unsigned i;
    qnet_conn *a = pair(&in), *b = pair(&out);
    qnet_hub *hub;

    check(qnet_hub_new(&hub), "hub");
    check(qnet_set_vlan(a, "trunk 10,20"), "VLANs");
    check(qnet_set_vlan(b, to), "VLANs");
    check(qnet_hub_attach(hub, a), "attach");
    check(qnet_hub_attach(hub, b), "attach");
    for (i = 0; i < ROUND; i++) {
        unsigned char *frame = frames + i * WIRE + WORK_PREFIX;

        work_device(frame, PAIRS + 1 + i % PAIRS);
        work_device(frame + 6, 1 + i % PAIRS);
        memcpy(frame + 12, tag, sizeof tag);
        check(qnet_hub_fdb_add(hub, frame, 10, b), "address");
    }
    forward_rounds(in, out, rounds);
}

static void run_hub_vlans(unsigned rounds)
{
    forward_tagged("trunk 10", rounds);
}

static void run_hub_tags(unsigned rounds)
{
    forward_tagged("trunk 10 tpid 88a8", rounds);
}

static void run_hub(unsigned rounds)
{
    forward_by_hub(1, NULL, NULL, rounds);
}

static void run_hub_mixed(unsigned rounds)
{
    forward_by_hub(PAIRS, NULL, NULL, rounds);
}

static void run_hub_access(unsigned rounds)
{
    forward_by_hub(1, "access 10", NULL, rounds);
}

/* The buffer has room for all, so that each frame is recorded, encoded and written. */
static void run_hub_captured(unsigned rounds)
{
    const int64_t options[] = {QNET_OPT_CAPTURE_BYTES, 64 << 20};
    qnet_capture_stats stats;
    qnet_capture *capture;

    check(qnet_capture_open("/dev/null", options, 1, &capture), "open a capture");
    forward_by_hub(1, NULL, capture, rounds);
    check(qnet_capture_get_stats(capture, &stats, sizeof stats), "stats");
    work_check(stats.frames == (uint64_t)rounds * ROUND + 1 && stats.dropped == 0, "captured");
    check(qnet_capture_close(capture), "close the capture");
}

static const struct {
    const char *name;
    void (*run)(unsigned rounds);
} works[] = {
    {"send", run_send},
    {"coalesce", run_coalesce},
    {"relay", run_relay},
    {"recv", run_recv},
    {"send-batch", run_send_batch},
    {"recv-batch", run_recv_batch},
    {"handler", run_handler},
    {"batch-handler", run_batch_handler},
    {"hub", run_hub},
    {"hub-mixed", run_hub_mixed},
    {"hub-access", run_hub_access},
    {"hub-captured", run_hub_captured},
    {"hub-vlans", run_hub_vlans},
    {"hub-tags", run_hub_tags},
    {"link", run_link},
    {"link-loss", run_link_loss},
};

int main(int count, char **arguments)
{
    size_t i;

    if (count != 3)
        work_fail("instructions", "WORK ROUNDS");
    frames = work_packed(SIZE, ROUND);
    for (i = 0; i < BATCH; i++) {
        scattered[i].data = frames + i * WIRE + WORK_PREFIX;
        scattered[i].len = SIZE;
    }
    sem_init(&done, 0, 0);
    for (i = 0; i < sizeof works / sizeof *works; i++)
        if (strcmp(works[i].name, arguments[1]) == 0) {
            works[i].run((unsigned)atoi(arguments[2]));
            return 0;
        }
    work_fail(arguments[1], "no such work");
    return 1;
}
