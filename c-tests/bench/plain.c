/*
 * plain.c - the obvious C program: one write for each frame, under a mutex if threads
 * share the socket, and one read each for header and body. Where a message is a frame,
 * one call for each message.
 */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "work.h"

enum { LONGEST = 69632 };

/* The socket, what is written to it, and how. */
struct socket {
    int fd;
    const unsigned char *frame;
    size_t len;
    pthread_mutex_t mutex;
};

static void write_each(void *user, uint64_t frames)
{
    struct socket *socket = user;

    while (frames-- > 0)
        work_write(socket->fd, socket->frame, socket->len);
}

static void write_locked(void *user, uint64_t frames)
{
    struct socket *socket = user;

    while (frames-- > 0) {
        pthread_mutex_lock(&socket->mutex);
        work_write(socket->fd, socket->frame, socket->len);
        pthread_mutex_unlock(&socket->mutex);
    }
}

static void send_by(const struct work *work, void (*send)(void *user, uint64_t frames))
{
    struct socket socket = {-1, NULL, 0, PTHREAD_MUTEX_INITIALIZER};

    socket.fd = work_dial(work->network, work->address);
    socket.frame = work_packed(work->size, 1);
    socket.len = work->size + WORK_PREFIX;
    work_send(work, send, &socket);
    work_stay();
}

/* One write for each frame, by a single thread. */
static void run_write(const struct work *work)
{
    send_by(work, write_each);
}

/* One write for each frame, under a mutex. */
static void run_lock(const struct work *work)
{
    send_by(work, write_locked);
}

/* Reads one frame with its prefix; returns its length on the wire, or 0 at the end. */
static size_t read_frame(int fd, unsigned char *frame)
{
    size_t len;

    if (work_read(fd, frame, WORK_PREFIX, WORK_PREFIX) == 0)
        return 0;
    len = work_length(frame);
    if (len > LONGEST || work_read(fd, frame + WORK_PREFIX, len, len) == 0)
        return 0;
    return len + WORK_PREFIX;
}

static void run_receive(const struct work *work)
{
    unsigned char *frame = work_memory(LONGEST + WORK_PREFIX);
    int fd = work_accept(work);
    uint64_t got = 0;

    while (got < work->frames && read_frame(fd, frame) > 0)
        got++;
    work_say("end", work_now());
    work_say("frames", got);
}

static void run_relay(const struct work *work)
{
    unsigned char *frame = work_memory(LONGEST + WORK_PREFIX);
    int to = work_dial(work->network, work->to), from = work_accept(work);
    size_t len;

    while ((len = read_frame(from, frame)) > 0)
        work_write(to, frame, len);
}

/* ---- Round trips: a blocking write and a blocking read ---- */

static void run_ping(const struct work *work)
{
    int fd = work_dial(work->network, work->address);
    size_t len = work->size + WORK_PREFIX;
    unsigned char *frame = work_packed(work->size, 1);
    struct work_times times;
    uint64_t before, after = work_now();

    work_times_begin(&times, work->frames);
    work_say("begin", work_now());
    do {
        before = after;
        work_write(fd, frame, len);
        if (work_read(fd, frame, len, len) == 0)
            work_fail("ping", "no answer");
        after = work_now();
    } while (!work_times_add(&times, after - before));
}

static void run_pong(const struct work *work)
{
    int fd = work_accept(work);
    size_t len = work->size + WORK_PREFIX;
    unsigned char *frame = work_memory(len);

    while (work_read(fd, frame, len, len) > 0)
        work_write(fd, frame, len);
}

/* ---- Messages ---- */

/* If the system has no room at the moment, the frame is lost. */
static void write_messages(void *user, uint64_t frames)
{
    struct socket *socket = user;

    while (frames-- > 0)
        work_check(write(socket->fd, socket->frame, socket->len) >= 0 || errno == ENOBUFS, "write");
}

static void run_send_messages(const struct work *work)
{
    struct socket socket = {-1, NULL, 0, PTHREAD_MUTEX_INITIALIZER};

    socket.fd = work_open_messages(work, 1);
    socket.frame = work_packed(work->size, 1) + WORK_PREFIX;
    socket.len = work->size;
    work_send(work, write_messages, &socket);
    work_stay();
}

static void run_receive_messages(const struct work *work)
{
    unsigned char *frame = work_memory(LONGEST);
    struct work_arrivals arrivals = {work->frames, 0, 0, 0, 0};
    int fd = work_open_messages(work, 0), goes_on = 1;

    work_ready();
    work_interrupt_silence();
    while (goes_on) {
        if (read(fd, frame, LONGEST) >= 0) {
            goes_on = work_arrived(&arrivals, 1);
        } else {
            work_check(errno == EINTR, "read");
            goes_on = !work_is_silent(&arrivals);
        }
    }
    work_say_arrivals(&arrivals);
}

const struct work_role work_roles[] = {
    {"send-messages", run_send_messages},
    {"receive-messages", run_receive_messages},
    {"write", run_write},
    {"lock", run_lock},
    {"receive", run_receive},
    {"relay", run_relay},
    {"ping", run_ping},
    {"pong", run_pong},
    {NULL, NULL},
};
