/*
 * idle.c - what an idle connection costs: the memory that a burst of frames
 * needed is given back, however the burst was received.
 */
#include "footprint.h"

enum { CONNS = 256, AT_ONCE = 32, FRAME_MOST = 60000 };

/* Bytes that the library may keep for each connection, and for all of them to share. */
enum { EACH = 16 << 10, SHARED = 1 << 20 };

/* A burst of frames that one connection receives, and that no small buffer holds. */
struct burst {
    const char *name;
    int kind, frames;
    size_t len;
};

static const struct burst bursts[] = {
    { "a stream", SOCK_STREAM, 100, 1000 },
    { "long frames in a stream", SOCK_STREAM, 2, FRAME_MOST },
    { "messages", SOCK_SEQPACKET, 70, 1000 },
    { "long messages", SOCK_SEQPACKET, 2, FRAME_MOST },
};
enum { BURSTS = sizeof bursts / sizeof *bursts };

static const struct burst *burst_now;

struct pair {
    qnet_conn *conn;
    int fd;
};

static struct pair pair_open(void)
{
    int fds[2], bytes = 400000;
    struct pair pair;

    CHECK(socketpair(AF_UNIX, burst_now->kind | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK_INT(qnet_from_fd(fds[0], &pair.conn), QNET_OK);
    CHECK(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
    pair.fd = fds[1];
    return pair;
}

static void burst_send(int fd)
{
    static uint8_t frame[FRAME_MOST];
    int i;

    for (i = 0; i < burst_now->frames; i++)
        if (burst_now->kind == SOCK_STREAM)
            raw_send(fd, frame, burst_now->len);
        else
            raw_write(fd, frame, burst_now->len);
}

/* ---- Ways to receive in an event loop; each returns when it would wait ---- */

static int by_recv(qnet_conn *conn, int timeout_ms)
{
    static uint8_t frame[QNET_FRAME_MAX];
    int result, frames = 0;

    while ((result = qnet_recv(conn, frame, sizeof frame, timeout_ms)) > 0)
        frames++;
    CHECK_INT(result, timeout_ms == 0 ? QNET_ERR_AGAIN : QNET_ERR_TIMEOUT);
    return frames;
}

static int recv_at_once(qnet_conn *conn)
{
    return by_recv(conn, 0);
}

static int recv_for_a_moment(qnet_conn *conn)
{
    return by_recv(conn, 1);
}

static int poll_and_recv(qnet_conn *conn)
{
    static uint8_t frame[QNET_FRAME_MAX];
    uint8_t ready;
    int frames;

    for (frames = 0; qnet_poll(&conn, &ready, 1, 0) == 1; frames++)
        CHECK_INT(qnet_recv(conn, frame, sizeof frame, -1), burst_now->len);
    return frames;
}

static int recv_packed(qnet_conn *conn)
{
    static uint8_t wire[256 << 10];
    int bytes, sum = 0;

    while ((bytes = qnet_recv_packed(conn, wire, sizeof wire, 0)) > 0)
        sum += bytes;
    CHECK_INT(bytes, QNET_ERR_AGAIN);
    return sum / (int)(RAW_PREFIX + burst_now->len);
}

static int recv_batch_until_again(qnet_conn *conn)
{
    qnet_frame frames[AT_ONCE];
    int count, sum = 0;

    while ((count = qnet_recv_batch(conn, frames, AT_ONCE, 0)) > 0)
        sum += count;
    CHECK_INT(count, QNET_ERR_AGAIN);
    return sum;
}

/* The frames of the last batch stay lent, and only their own memory may be kept. */
static int recv_batch_until_fewer(qnet_conn *conn)
{
    qnet_frame frames[AT_ONCE];
    int count, sum = 0;

    do {
        count = qnet_recv_batch(conn, frames, AT_ONCE, 0);
        CHECK(count > 0);
        sum += count;
    } while (count == AT_ONCE);
    return sum;
}

static int (*way_now)(qnet_conn *conn);

static void a_burst_leaves_little_behind(void)
{
    static struct pair pairs[CONNS];
    long before, grown;
    int i, turn;

    if (!HAS_ROOM_FOR_ITSELF)
        check_skip("a sanitizer's memory is its own affair");
    for (i = 0; i < CONNS; i++)
        pairs[i] = pair_open();
    before = resident_bytes();
    for (turn = 0; turn < 2; turn++)
        for (i = 0; i < CONNS; i++) {
            burst_send(pairs[i].fd);
            CHECK_INT(way_now(pairs[i].conn), burst_now->frames);
        }
    raw_sleep_ms(100);
    grown = resident_bytes() - before;
    if (grown > (long)CONNS * EACH + SHARED)
        CHECK_INT(grown, (long)CONNS * EACH + SHARED);
    for (i = 0; i < CONNS; i++) {
        CHECK_INT(qnet_close(pairs[i].conn), QNET_OK);
        close(pairs[i].fd);
    }
}

static const struct {
    const char *name;
    int (*way)(qnet_conn *conn);
} ways[] = {
    { "qnet_recv", recv_at_once },
    { "qnet_recv for 1 ms", recv_for_a_moment },
    { "qnet_poll", poll_and_recv },
    { "qnet_recv_packed", recv_packed },
    { "qnet_recv_batch until AGAIN", recv_batch_until_again },
    { "qnet_recv_batch until fewer", recv_batch_until_fewer },
};
enum { WAYS = sizeof ways / sizeof *ways };

int main(void)
{
    int burst, way;
    char with[80];

    for (burst = 0; burst < BURSTS; burst++)
        for (way = 0; way < WAYS; way++) {
            burst_now = &bursts[burst];
            way_now = ways[way].way;
            /* The frames that stay lent take more memory than this test allows. */
            if (way_now == recv_batch_until_fewer && burst_now->len == FRAME_MOST)
                continue;
            snprintf(with, sizeof with, "%s, %s", burst_now->name, ways[way].name);
            run_with("a_burst_leaves_little_behind", with, a_burst_leaves_little_behind);
        }
    return check_done();
}
