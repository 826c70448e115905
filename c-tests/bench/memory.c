/*
 * memory.c - what connections cost in user memory: how much the process's
 * resident set has grown, for each of many connections, when they are idle and
 * not received from, when they have handlers, and after a burst of full load on
 * every one of them, both ways; or when they are attached to a hub and idle.
 * Usage: memory CONNECTIONS [attached]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qnet.h"
#include "work.h"

enum {
    FRAME_IN = 64,
    FRAME_OUT = 1514,
    ROUNDS = 8,          /* in each of which a batch is sent */
    MOST_DESCRIPTORS = 65536,
    STEP_US = 100000,    /* between two looks at the resident set */
    STEADY_STEPS = 10,   /* steps without a change, after which the set is steady */
    MOST_STEPS = 100
};

struct ends {
    qnet_conn *conn;
    int peer;
    size_t unsent; /* of the batch that the peer is writing */
};

static uint64_t arrived;
static unsigned char *drain_room;

static void check(int result, const char *what)
{
    if (result < 0)
        work_fail(what, qnet_last_error());
}

static long resident(void)
{
    char text[128] = "";
    FILE *file = fopen("/proc/self/statm", "r");
    char *second;

    work_check(file && fgets(text, sizeof text, file), "statm");
    fclose(file);
    strtol(text, &second, 10);
    return strtol(second, NULL, 10) * sysconf(_SC_PAGESIZE);
}

/* The resident set once it has stopped falling. */
static long resident_steady(void)
{
    long least = resident();
    int steps, steady = 0;

    for (steps = 0; steps < MOST_STEPS && steady < STEADY_STEPS; steps++) {
        long now;

        work_sleep_us(STEP_US);
        now = resident();
        steady = now < least ? 0 : steady + 1;
        if (now < least)
            least = now;
    }
    return least;
}

static void on_batch(void *user, const qnet_frame *frames, size_t count)
{
    (void)user;
    (void)frames;
    __atomic_fetch_add(&arrived, count, __ATOMIC_RELAXED);
}

static void open_ends(struct ends *ends)
{
    check(qnet_socketpair_fd(&ends->conn, &ends->peer), "socketpair");
    check(qnet_set(ends->conn, QNET_OPT_SEND_TIMEOUT_MS, 0), "set");
}

static void allow_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < MOST_DESCRIPTORS ? limit.rlim_max : MOST_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Makes the library allocate what it needs only once, which is not the connections'. */
static void warm_up(void)
{
    struct ends ends;

    open_ends(&ends);
    check(qnet_set_batch_handler(ends.conn, on_batch, NULL), "set handler");
    check(qnet_close(ends.conn), "close");
    close(ends.peer);
}

/* ---- The burst ---- */

/* All peers write at the same time, each as much as its socket takes. */
static void burst_in(struct ends *ends, size_t count)
{
    size_t batch = work_batch(FRAME_IN), len = batch * (FRAME_IN + WORK_PREFIX), i, open;
    unsigned char *packed = work_packed(FRAME_IN, batch);
    uint64_t expected = arrived + (uint64_t)batch * ROUNDS * count;

    for (i = 0; i < count; i++)
        ends[i].unsent = len * ROUNDS;
    do {
        for (open = i = 0; i < count; i++) {
            size_t at = (len - ends[i].unsent % len) % len;
            ssize_t n = ends[i].unsent == 0 ? 0 : send(ends[i].peer, packed + at, len - at,
                                                       MSG_DONTWAIT | MSG_NOSIGNAL);

            work_check(n >= 0 || errno == EAGAIN, "send");
            ends[i].unsent -= n > 0 ? (size_t)n : 0;
            open += ends[i].unsent > 0;
        }
    } while (open > 0);
    while (__atomic_load_n(&arrived, __ATOMIC_RELAXED) < expected)
        work_sleep_us(1000);
    free(packed);
}

static void drain(int peer)
{
    while (recv(peer, drain_room, WORK_READ, MSG_DONTWAIT) > 0)
        continue;
}

/* Every connection sends more than its socket takes, and its peer reads it. */
static void burst_out(struct ends *ends, size_t count)
{
    size_t batch = work_batch(FRAME_OUT), i;
    unsigned char *packed = work_packed(FRAME_OUT, batch);
    int round;

    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < count; i++) {
            int taken = qnet_send_packed(ends[i].conn, packed, batch * (FRAME_OUT + WORK_PREFIX));

            if (taken != QNET_ERR_AGAIN)
                check(taken, "send packed");
        }
        for (i = 0; i < count; i++)
            drain(ends[i].peer);
    }
    for (i = 0; i < count; i++) {
        int result;

        while ((result = qnet_flush(ends[i].conn)) == QNET_ERR_AGAIN) {
            drain(ends[i].peer);
            work_sleep_us(100);
        }
        check(result, "flush");
    }
    free(packed);
}

static void say(const char *name, long grown, size_t count)
{
    work_say(name, grown > 0 ? (uint64_t)grown / count : 0);
}

/* Measures connections that are idle, then with handlers, then after full load. */
static void measure_handled(struct ends *ends, size_t count)
{
    long before = resident();
    size_t i;

    for (i = 0; i < count; i++)
        open_ends(&ends[i]);
    say("idle", resident_steady() - before, count);
    for (i = 0; i < count; i++)
        check(qnet_set_batch_handler(ends[i].conn, on_batch, NULL), "set handler");
    say("handler", resident_steady() - before, count);
    burst_in(ends, count);
    burst_out(ends, count);
    say("burst", resident_steady() - before, count);
}

/* Measures connections attached to a hub, whose thread and buffers exist before. */
static void measure_attached(struct ends *ends, size_t count)
{
    qnet_hub *hub;
    qnet_conn *first;
    long before;
    size_t i;

    check(qnet_hub_new(&hub), "hub");
    check(qnet_hub_port(hub, &first), "port");
    before = resident_steady();
    for (i = 0; i < count; i++) {
        open_ends(&ends[i]);
        check(qnet_hub_attach(hub, ends[i].conn), "attach");
    }
    say("attached", resident_steady() - before, count);
    check(qnet_hub_close(hub), "close hub");
    check(qnet_close(first), "close");
}

int main(int arguments, char **argument)
{
    size_t count = arguments > 1 ? (size_t)atol(argument[1]) : 0, i;
    struct ends *ends = work_memory(count * sizeof *ends);

    work_check(count > 0, "CONNECTIONS");
    drain_room = work_memory(WORK_READ);
    free(work_memory(WORK_PIECE));
    allow_descriptors();
    warm_up();
    work_say("connections", count);
    if (arguments > 2)
        measure_attached(ends, count);
    else
        measure_handled(ends, count);
    for (i = 0; i < count; i++)
        check(qnet_close(ends[i].conn), "close");
    return 0;
}
