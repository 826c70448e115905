/*
 * tuned.c - plain C at the socket's limit: frames that are ready in wire format, written
 * in pieces of 128 KiB and read in pieces of 256 KiB, with socket buffers of 1 MiB. Where
 * a message is a frame, 64 of them in each call, with buffers of 4 MiB.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "work.h"

enum { MESSAGES = 64, SLOT = 2048 };

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

/*
 * Makes reads end after a second of silence, as a relay that loses frames must not hold
 * up the benchmark.
 */
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

/* Receives as the device that the frames are for, which announces itself to the hub first. (A QEMU
 * 7.2 that is still starting crashes when it gets a frame.) */
static void run_receive_known(const struct work *work)
{
    int fd = work_accept(work);

    work_announce(fd, 2);
    receive(work, fd);
}

/* Relays bytes, whatever they are. */
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

/* ---- Messages ---- */

struct messages {
    int fd;
    struct mmsghdr headers[MESSAGES];
    struct iovec pieces[MESSAGES];
};

/* Messages of `size` bytes, which lie `step` apart. */
static void lay_out(struct messages *messages, unsigned char *bytes, size_t size, size_t step)
{
    int i;

    memset(messages, 0, sizeof *messages);
    for (i = 0; i < MESSAGES; i++) {
        messages->pieces[i].iov_base = bytes + i * step;
        messages->pieces[i].iov_len = size;
        messages->headers[i].msg_hdr.msg_iov = &messages->pieces[i];
        messages->headers[i].msg_hdr.msg_iovlen = 1;
    }
}

static void send_messages(void *user, uint64_t frames)
{
    struct messages *messages = user;

    while (frames > 0) {
        unsigned count = frames < MESSAGES ? (unsigned)frames : MESSAGES;
        int sent = sendmmsg(messages->fd, messages->headers, count, 0);

        work_check(sent > 0, "sendmmsg");
        frames -= (uint64_t)sent;
    }
}

static void run_send_messages(const struct work *work)
{
    unsigned char *packed = work_packed(work->size, MESSAGES);
    struct messages messages;

    lay_out(&messages, packed + WORK_PREFIX, work->size, work->size + WORK_PREFIX);
    messages.fd = work_open_messages(work, 1);
    work_send(work, send_messages, &messages);
    work_stay();
}

static void run_receive_messages(const struct work *work)
{
    struct work_arrivals arrivals = {work->frames, 0, 0, 0, 0};
    struct messages messages;
    int goes_on = 1;

    lay_out(&messages, work_memory(MESSAGES * SLOT), SLOT, SLOT);
    messages.fd = work_open_messages(work, 0);
    work_ready();
    work_interrupt_silence();
    while (goes_on) {
        int got = recvmmsg(messages.fd, messages.headers, MESSAGES, MSG_WAITFORONE, NULL);

        work_check(got > 0 || errno == EINTR, "recvmmsg");
        goes_on = got > 0 ? work_arrived(&arrivals, (uint64_t)got) : !work_is_silent(&arrivals);
    }
    work_say_arrivals(&arrivals);
}

const struct work_role work_roles[] = {
    {"send-messages", run_send_messages},
    {"receive-messages", run_receive_messages},
    {"send", run_send},
    {"receive", run_receive},
    {"receive-known", run_receive_known},
    {"relay", run_relay},
    {NULL, NULL},
};
