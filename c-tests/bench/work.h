/*
 * work.h - what every measured program here shares: its command line, its
 * clock, its frames and its sockets.
 *
 * A program is one side of a measurement, a process of its own:
 *
 *     PROGRAM ROLE NETWORK ADDRESS SIZE FRAMES [threads=N] [usecs=N] [ports=N]
 *             [vlan=ID] [loss=PERCENT] [delay=US] [to=ADDRESS] [capture=HOW]
 *
 * On the networks "udp", "unixgram" and "tap" a message is a frame; ADDRESS is
 * the side's own there, and `to` the other's.
 *
 * A side that listens prints "ready" when it does. What it has measured it
 * prints as name=value: `begin` and `end` in ns of CLOCK_MONOTONIC, which all
 * processes share, `frames`, `median` and `p99` in ns, and more.
 */
#ifndef WORK_H
#define WORK_H

#include <stddef.h>
#include <stdint.h>

enum {
    WORK_PREFIX = 4,              /* a frame's length on the wire */
    WORK_PIECE = 128 << 10,       /* size of tuned writes and of a batch, in bytes */
    WORK_READ = 256 << 10,        /* size of tuned reads */
    WORK_SOCKET_BUFFER = 1 << 20, /* size of tuned socket buffers, and */
    WORK_UDP_BUFFER = 4 << 20,    /* where a frame that finds one full is lost */
    WORK_SILENCE_S = 1,           /* silence that is the end where frames may be lost */
    WORK_STAMP_EVERY = 64,        /* frames after which the time is noted */
    WORK_MOST_THREADS = 64
};

struct work {
    const char *network; /* "unix" or "tcp"; "udp", "unixgram" or "tap" */
    const char *address; /* a path, or the port on 127.0.0.1; an interface */
    const char *to;      /* a relay's other side, or where messages go */
    size_t size;         /* of a frame */
    uint64_t frames;     /* to send, or to expect */
    unsigned threads;
    unsigned ports;      /* of a hub */
    const char *vlan;    /* which a hub's ports give access to, or NULL */
    long usecs;          /* what QNET_OPT_TX_USECS is set to */
    const char *loss;    /* what a link does to the frames that are sent, */
    const char *delay;   /* or NULL */
    const char *capture; /* "read": all frames are captured to a pipe that is read; "unread": to a
                            FIFO that is not; NULL: none are */
};

/* What a program can be; the table ends with a NULL name. */
struct work_role {
    const char *name;
    void (*run)(const struct work *work);
};

extern const struct work_role work_roles[];

/* Ends the process, saying why. */
void work_fail(const char *what, const char *why);
void work_check(int good, const char *what);
void *work_memory(size_t bytes);

uint64_t work_now(void);
void work_sleep_us(long us);
void work_say(const char *name, uint64_t value);
void work_ready(void);

/* Waits until the runner closes standard input: a sender stays until its frames have arrived. */
void work_stay(void);

/* Runs `send` in as many threads as asked for, each for its share of the frames, and prints when
 * they began. */
void work_send(const struct work *work, void (*send)(void *user, uint64_t frames), void *user);

/* Keeps the times of single frames, and prints with the last one their median and what 99 of 100 of
 * them keep within. */
struct work_times {
    uint64_t *ns;
    uint64_t count;
    uint64_t room;
};

void work_times_begin(struct work_times *times, uint64_t room);
int work_times_add(struct work_times *times, uint64_t ns);

/* How many frames make a batch: as many as one tuned write has. */
size_t work_batch(size_t size);

/* Makes `count` frames in wire format, one after another, from device 1 to device 2. */
unsigned char *work_packed(size_t size, size_t count);

/* Writes a device's hardware address, 6 bytes. */
void work_device(unsigned char *mac, unsigned device);

/* Sends a broadcast from a device, so that a hub knows where it is. */
void work_announce(int fd, unsigned device);

/* The time a frame was sent, in the frame itself, behind its Ethernet header. */
void work_stamp(unsigned char *frame);
uint64_t work_age(const unsigned char *frame);

static inline size_t work_length(const unsigned char *prefix)
{
    return (size_t)prefix[0] << 24 | (size_t)prefix[1] << 16 | (size_t)prefix[2] << 8 | prefix[3];
}

/* Counts the whole frames in `len` bytes. `*rest` is how many bytes follow them. */
static inline uint64_t work_walk(const unsigned char *bytes, size_t len, size_t *rest)
{
    const unsigned char *end = bytes + len;
    uint64_t count = 0;

    while (end - bytes >= WORK_PREFIX) {
        size_t frame = work_length(bytes) + WORK_PREFIX;

        if ((size_t)(end - bytes) < frame)
            break;
        bytes += frame;
        count++;
    }
    *rest = (size_t)(end - bytes);
    return count;
}

/* The messages that have come on a network that may lose some. It is over once all have come, or
 * none has come for a while. */
struct work_arrivals {
    uint64_t expected;
    uint64_t got;
    uint64_t stamped; /* how many had come by `end` */
    uint64_t end;
    uint64_t seen; /* how many had come when silence was last looked for */
};

/* Counts frames that have come. Returns whether more are expected. */
static inline int work_arrived(struct work_arrivals *arrivals, uint64_t frames)
{
    uint64_t got = arrivals->got + frames;

    __atomic_store_n(&arrivals->got, got, __ATOMIC_RELAXED);
    if (arrivals->end == 0 || got - arrivals->stamped >= WORK_STAMP_EVERY ||
        got >= arrivals->expected) {
        arrivals->stamped = got;
        arrivals->end = work_now();
    }
    return got < arrivals->expected;
}

/* Whether some have come, but none since the last time that this was called. */
int work_is_silent(struct work_arrivals *arrivals);

void work_say_arrivals(const struct work_arrivals *arrivals);

/* Has a signal interrupt the calls that wait for a message, again and again. */
void work_interrupt_silence(void);

/* Whether a message is a frame on this network. */
int work_has_messages(const char *network);

/* A socket or a TAP whose messages are frames, to send to the other side or to receive from it. */
int work_open_messages(const struct work *work, int sends);

/* Waits until a TAP, which somebody has just opened, passes frames. */
void work_wait_running(const char *interface);

/* Plain sockets. */
int work_dial(const char *network, const char *address);
int work_listen(const struct work *work, int backlog);
int work_accept(const struct work *work);
void work_enlarge(int fd);
void work_write(int fd, const void *bytes, size_t len);

/* Does as read(2), but reads at least `least` bytes. Returns 0 at the end. */
size_t work_read(int fd, void *bytes, size_t least, size_t most);

#endif
