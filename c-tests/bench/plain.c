/*
 * plain.c - the obvious C program: one write for each frame, under a mutex if threads
 * share the socket, and one read each for header and body. Where a message is a frame,
 * one call for each message. A switch, which has many peers, waits for all with epoll.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "work.h"

enum { LONGEST = 69632, MOST_PEERS = 64, EVENTS = 64, DEVICES = 256 };

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

/* ---- A switch: one thread, which waits for all peers at once ---- */

struct peer {
    int fd;
    size_t held;          /* bytes of a frame that has come in part, */
    unsigned char *bytes; /* and room for them and what follows */
};

struct hub {
    int epoll;
    int listener;
    struct peer peers[MOST_PEERS];
    unsigned count; /* how many peers have come, */
    unsigned gone;  /* and how many of those have gone */
    struct peer *places[DEVICES]; /* where a device is, by the last byte of its address */
};

/* Waits for what `user` is told of: a peer, or NULL for the listener. */
static void watch(const struct hub *hub, int fd, struct peer *user)
{
    struct epoll_event event;

    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.ptr = user;
    work_check(epoll_ctl(hub->epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void add_peer(struct hub *hub)
{
    struct peer *peer = &hub->peers[hub->count];

    work_check(hub->count++ < MOST_PEERS, "peers");
    peer->fd = accept(hub->listener, NULL, NULL);
    work_check(peer->fd >= 0, "accept");
    peer->bytes = work_memory(WORK_READ);
    watch(hub, peer->fd, peer);
}

/* Writes frames to one peer, or to all others if `to` is NULL. Waits for room: nothing is lost. */
static void pass(struct hub *hub, const struct peer *from, const struct peer *to,
                 const unsigned char *frames, size_t len)
{
    unsigned i;

    if (to)
        work_write(to->fd, frames, len);
    for (i = 0; !to && i < hub->count; i++) {
        if (&hub->peers[i] != from)
            work_write(hub->peers[i].fd, frames, len);
    }
}

/* Reads what is there, and writes each run of frames that go the same way at once. */
static void forward(struct hub *hub, struct peer *from)
{
    unsigned char *at = from->bytes, *run = at, *end;
    struct peer *to = NULL, *next;
    ssize_t n = read(from->fd, at + from->held, WORK_READ - from->held);

    if (n <= 0) {
        close(from->fd);
        hub->gone++;
        return;
    }
    end = at + from->held + n;
    while (end - at >= WORK_PREFIX && (size_t)(end - at) >= WORK_PREFIX + work_length(at)) {
        const unsigned char *destination = at + WORK_PREFIX, *source = destination + 6;

        hub->places[source[5]] = from;
        next = destination[0] & 1 ? NULL : hub->places[destination[5]];
        if (next != to) {
            pass(hub, from, to, run, (size_t)(at - run));
            run = at;
            to = next;
        }
        at += WORK_PREFIX + work_length(at);
    }
    pass(hub, from, to, run, (size_t)(at - run));
    from->held = (size_t)(end - at);
    memmove(from->bytes, at, from->held);
}

/* Serves until the last peer has gone. */
static void run_switch(const struct work *work)
{
    struct epoll_event events[EVENTS];
    struct hub hub;
    int count, i;

    memset(&hub, 0, sizeof hub);
    hub.epoll = epoll_create1(EPOLL_CLOEXEC);
    work_check(hub.epoll >= 0, "epoll");
    hub.listener = work_listen(work, MOST_PEERS);
    watch(&hub, hub.listener, NULL);
    while (hub.count == 0 || hub.gone < hub.count) {
        count = epoll_wait(hub.epoll, events, EVENTS, -1);
        work_check(count >= 0, "epoll_wait");
        for (i = 0; i < count; i++) {
            if (events[i].data.ptr)
                forward(&hub, events[i].data.ptr);
            else
                add_peer(&hub);
        }
    }
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

/* ---- Nothing but work for a processor ---- */

static void run_burn(const struct work *work)
{
    (void)work;
    /* Nothing would end it if the runner were killed. */
    work_check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
    work_ready();
    for (;;)
        continue;
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
    {"switch", run_switch},
    {"ping", run_ping},
    {"pong", run_pong},
    {"burn", run_burn},
    {NULL, NULL},
};
