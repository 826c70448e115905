/*
 * mesh.c - many devices on one hub, which is in another process and is dialled once for
 * each device. Either each of them sends every frame to a random one of the others: in
 * every wave each device sends a batch, and the next wave begins when all frames have
 * come, or no more come. Or each has a partner, sends it a frame and waits for the echo,
 * and then sends the next. Or nobody receives, so that the hub has to drop frames.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "work.h"

enum {
    MOST_PORTS = 64,
    FIRST_DEVICE = 3, /* 1 and 2 are other processes' */
    BATCH_BYTES = 64 << 10,
    SILENCE_MS = 200,
    FULL_BYTES = 4 << 20, /* more than is queued for a port on its way and in the hub */
    TRICKLE_US = 1300     /* no multiple of the pause of those who send lone frames meanwhile */
};

struct mesh {
    unsigned ports;
    size_t batch; /* frames of a device in a wave */
    struct pollfd polled[MOST_PORTS];
    size_t held[MOST_PORTS]; /* bytes of a frame that has come in part, */
    unsigned char *bytes[MOST_PORTS]; /* and room for them and what follows */
    unsigned char *packed[MOST_PORTS];
    uint32_t random;
};

/* Writes the hardware address of the device at a port. */
static void address(unsigned char *mac, unsigned port)
{
    work_device(mac, FIRST_DEVICE + port);
}

static unsigned next_random(struct mesh *mesh)
{
    mesh->random ^= mesh->random << 13;
    mesh->random ^= mesh->random >> 17;
    mesh->random ^= mesh->random << 5;
    return mesh->random;
}

/* Reads what is there. Returns how many frames were completed, or 0 if nothing comes any more. */
static uint64_t take(struct mesh *mesh)
{
    uint64_t got = 0;
    unsigned i;

    if (poll(mesh->polled, mesh->ports, SILENCE_MS) == 0)
        return 0;
    for (i = 0; i < mesh->ports; i++) {
        unsigned char *bytes = mesh->bytes[i];
        size_t *held = &mesh->held[i], len;
        ssize_t n;

        if (!mesh->polled[i].revents)
            continue;
        n = recv(mesh->polled[i].fd, bytes + *held, WORK_READ - *held, MSG_DONTWAIT);
        work_check(n > 0, "recv");
        len = *held + (size_t)n;
        got += work_walk(bytes, len, held);
        memmove(bytes, bytes + len - *held, *held);
    }
    return got;
}

/* Attaches the devices, each of which has a batch of frames to send. */
static void open_ports(struct mesh *mesh, const struct work *work, size_t batch)
{
    unsigned i;
    size_t j;

    memset(mesh, 0, sizeof *mesh);
    mesh->random = 1;
    mesh->ports = work->ports;
    mesh->batch = batch;
    work_check(mesh->ports >= 2 && mesh->ports <= MOST_PORTS, "ports");
    for (i = 0; i < mesh->ports; i++) {
        mesh->polled[i].fd = work_dial(work->network, work->address);
        mesh->polled[i].events = POLLIN;
        work_enlarge(mesh->polled[i].fd);
        mesh->bytes[i] = work_memory(WORK_READ);
        mesh->packed[i] = work_packed(work->size, mesh->batch);
        for (j = 0; j < mesh->batch; j++)
            address(mesh->packed[i] + j * (work->size + WORK_PREFIX) + WORK_PREFIX + 6, i);
        work_announce(mesh->polled[i].fd, FIRST_DEVICE + i);
    }
    while (take(mesh) > 0)
        continue;
}

/* Sends a batch of one device, each frame to a random other. */
static void send_batch(struct mesh *mesh, unsigned from, size_t size, size_t count)
{
    unsigned char *at = mesh->packed[from] + WORK_PREFIX;
    size_t i;

    for (i = 0; i < count; i++, at += size + WORK_PREFIX)
        address(at, (from + 1 + next_random(mesh) % (mesh->ports - 1)) % mesh->ports);
    work_write(mesh->polled[from].fd, mesh->packed[from], count * (size + WORK_PREFIX));
}

static void run_mesh(const struct work *work)
{
    struct mesh mesh;
    uint64_t sent = 0, got = 0, end = 0, wave, n;
    unsigned i;

    open_ports(&mesh, work, BATCH_BYTES / (work->size + WORK_PREFIX) + 1);
    work_say("begin", end = work_now());
    while (sent < work->frames) {
        for (i = 0; i < mesh.ports; i++)
            send_batch(&mesh, i, work->size, mesh.batch);
        wave = mesh.batch * mesh.ports;
        sent += wave;
        while (wave > 0 && (n = take(&mesh)) > 0) {
            wave -= n;
            got += n;
            end = work_now();
        }
    }
    work_say("end", end);
    work_say("frames", got);
    work_say("sent", sent);
}

/*
 * Sends a frame of every device, then receives all. The one that was sent last is waited
 * for first, so that this process sleeps once. If it took them in order, it would wake for
 * each frame or for few, as the scheduler likes, and that would be measured instead.
 */
static void exchange(struct mesh *mesh, size_t len)
{
    unsigned half = mesh->ports / 2, i;

    for (i = 0; i < mesh->ports; i++)
        work_write(mesh->polled[i].fd, mesh->packed[i], len);
    for (i = mesh->ports; i-- > 0;) {
        unsigned to = (i + half) % mesh->ports;

        work_check(work_read(mesh->polled[to].fd, mesh->bytes[to], len, len) > 0, "read");
    }
}

/*
 * Counts round trips. A device's own frame and its echo of the partner's are the same
 * bytes, so both ways of a round trip are one exchange each.
 */
static void run_echo(const struct work *work)
{
    size_t len = work->size + WORK_PREFIX;
    struct mesh mesh;
    uint64_t got;
    unsigned i;

    open_ports(&mesh, work, 1);
    for (i = 0; i < mesh.ports; i++)
        address(mesh.packed[i] + WORK_PREFIX, (i + mesh.ports / 2) % mesh.ports);
    work_say("begin", work_now());
    for (got = 0; got < work->frames; got += mesh.ports) {
        exchange(&mesh, len);
        exchange(&mesh, len);
    }
    work_say("end", work_now());
    work_say("frames", got);
    work_say("sent", got);
}

/* ---- Devices that read nothing ---- */

/* Sends until the hub has no room left for any of them. */
static void fill(struct mesh *mesh, const struct work *work)
{
    unsigned waves, i;

    open_ports(mesh, work, BATCH_BYTES / (work->size + WORK_PREFIX) + 1);
    for (waves = 0; waves < FULL_BYTES / BATCH_BYTES; waves++) {
        for (i = 0; i < mesh->ports; i++)
            send_batch(mesh, i, work->size, mesh->batch);
    }
}

/* Goes on sending as fast as it can. */
static void run_flood(const struct work *work)
{
    struct mesh mesh;
    unsigned i;

    fill(&mesh, work);
    work_ready();
    for (i = 0;; i = (i + 1) % mesh.ports)
        send_batch(&mesh, i, work->size, mesh.batch);
}

/* Goes on sending a frame of each device now and then, once the hub has read all before. */
static void run_trickle(const struct work *work)
{
    struct mesh mesh;
    unsigned i;
    int unread;

    fill(&mesh, work);
    for (i = 0; i < mesh.ports; i++) {
        do {
            work_sleep_us(TRICKLE_US);
            work_check(ioctl(mesh.polled[i].fd, SIOCOUTQ, &unread) == 0, "unread");
        } while (unread > 0);
    }
    work_ready();
    for (;;) {
        work_sleep_us(TRICKLE_US);
        for (i = 0; i < mesh.ports; i++)
            send_batch(&mesh, i, work->size, 1);
    }
}

const struct work_role work_roles[] = {
    {"mesh", run_mesh},
    {"echo", run_echo},
    {"flood", run_flood},
    {"trickle", run_trickle},
    {NULL, NULL},
};
