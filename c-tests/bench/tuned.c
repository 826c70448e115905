/*
 * tuned.c - plain C at the socket's limit: frames that lie ready in wire
 * format, written in 128 KiB pieces and read in 256 KiB ones, with 1 MiB
 * socket buffers.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "work.h"

struct pieces {
    int fd;
    const unsigned char *packed;
    size_t size;
};

static void write_pieces(void *user, uint64_t frames)
{
    const struct pieces *pieces = user;
    size_t batch = work_batch(pieces->size);

    while (frames > 0) {
        size_t count = frames < batch ? (size_t)frames : batch;

        work_write(pieces->fd, pieces->packed, count * (pieces->size + WORK_PREFIX));
        frames -= count;
    }
}

static void run_send(const struct work *work)
{
    struct pieces pieces = {-1, NULL, 0};

    pieces.size = work->size;
    pieces.packed = work_packed(work->size, work_batch(work->size));
    pieces.fd = work_dial(work->network, work->address);
    work_enlarge(pieces.fd);
    work_send(work, write_pieces, &pieces);
    work_stay();
}

/* A relay that loses frames must not hold up the benchmark: silence is an end too. */
static void limit_silence(int fd)
{
    struct timeval limit = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static void receive(const struct work *work, int fd)
{
    unsigned char *bytes = work_memory(WORK_READ);
    size_t held = 0, len;
    uint64_t got = 0, end = 0;

    work_enlarge(fd);
    while (got < work->frames) {
        len = work_read(fd, bytes + held, 1, WORK_READ - held);
        if (len == 0)
            break;
        if (end == 0)
            limit_silence(fd);
        len += held;
        got += work_walk(bytes, len, &held);
        memmove(bytes, bytes + len - held, held);
        end = work_now();
    }
    work_say("end", end);
    work_say("frames", got);
}

static void run_receive(const struct work *work)
{
    receive(work, work_accept(work));
}

/* As the device that the frames are for, known to the hub. (A QEMU 7.2 that is still starting
 * crashes when it gets a frame.) */
static void run_receive_known(const struct work *work)
{
    int fd = work_accept(work);

    work_announce(fd, 2);
    receive(work, fd);
}

/* Passes bytes on, whatever they are. */
static void run_relay(const struct work *work)
{
    unsigned char *bytes = work_memory(WORK_PIECE);
    int to = work_dial(work->network, work->to), from = work_accept(work);
    size_t len;

    work_enlarge(to);
    work_enlarge(from);
    while ((len = work_read(from, bytes, 1, WORK_PIECE)) > 0)
        work_write(to, bytes, len);
}

const struct work_role work_roles[] = {
    {"send", run_send},
    {"receive", run_receive},
    {"receive-known", run_receive_known},
    {"relay", run_relay},
    {NULL, NULL},
};
