/*
 * turns.c - frames that go to and fro, one at a time: the peer does not write the next
 * one before it has the answer to the last.
 *
 *     turns [WAY ROUNDS]
 *
 * With arguments it makes that many turns in one way, for scripts/syscalls.sh to count the
 * system calls of each. The plain sockets are read and written with read() and write(),
 * with which the library does not use sockets, so that its calls can be told from these.
 */
#include "macs.h"

enum { SIZE = 64, WIRE = RAW_PREFIX + SIZE };

static unsigned turns; /* how many are to be made */

static void make_wire(uint8_t wire[WIRE], unsigned number, int to, int from)
{
    struct word word = { to, from, number, SIZE };

    raw_put_length(wire, SIZE);
    word_make(wire + RAW_PREFIX, word);
}

static void plain_write(int fd, unsigned number, int to, int from)
{
    uint8_t wire[WIRE];

    make_wire(wire, number, to, from);
    CHECK_INT(write(fd, wire, WIRE), WIRE);
}

static void plain_read(int fd, unsigned number, int to, int from)
{
    uint8_t wire[WIRE], got[WIRE];

    make_wire(wire, number, to, from);
    CHECK_INT(read(fd, got, WIRE), WIRE);
    CHECK(memcmp(got, wire, WIRE) == 0);
}

/* Writes frames, and awaits the answer to each, which is the same. */
static void *asking(void *argument)
{
    int fd = *(const int *)argument;
    unsigned i;

    for (i = 0; i < turns; i++) {
        plain_write(fd, i, 1, 2);
        plain_read(fd, i, 1, 2);
    }
    return NULL;
}

static void by_pull(void)
{
    uint8_t frame[SIZE];
    pthread_t peer;
    unsigned i;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    start_thread(&peer, asking, &fd);
    for (i = 0; i < turns; i++) {
        CHECK_INT(qnet_recv(conn, frame, sizeof frame, -1), SIZE);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    }
    join_thread(peer);
    CHECK_INT(stats_of(conn).rx_frames, turns);
    CHECK_INT(stats_of(conn).tx_frames, turns);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void answer(void *user, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(user, frame, len), QNET_OK);
}

static void by_handler(void)
{
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set_handler(conn, answer, conn), QNET_OK);
    asking(&fd);
    CHECK_INT(stats_of(conn).rx_frames, turns);
    CHECK_INT(stats_of(conn).tx_frames, turns);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Each turn is a frame in one direction. */
static void by_hub(void)
{
    unsigned i;
    int fds[2];
    qnet_conn *a = raw_pair(&fds[0]), *b = raw_pair(&fds[1]);
    qnet_hub *hub = NULL;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, a), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, b), QNET_OK);
    for (i = 0; i < turns; i++) {
        int from = (int)(i % 2), to = 1 - from;

        plain_write(fds[from], i, to + 1, from + 1);
        plain_read(fds[to], i, to + 1, from + 1);
    }
    CHECK_INT(hub_stats_of(hub).forwarded + hub_stats_of(hub).flooded, turns);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = { { "pull", by_pull }, { "handler", by_handler }, { "hub", by_hub } };

int main(int count, char **arguments)
{
    size_t i;

    turns = count == 3 ? (unsigned)atoi(arguments[2]) : (unsigned)rounds(2000);
    for (i = 0; count == 3 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, arguments[1]) == 0) {
            ways[i].run();
            return 0;
        }
    CHECK_INT(count, 1);
    RUN(by_pull);
    RUN(by_handler);
    RUN(by_hub);
    return check_done();
}
