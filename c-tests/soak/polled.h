/*
 * polled.h - lives of several connections on one thread, which waits for all of
 * them at once, by qnet_poll() or by poll() on their descriptors.
 */
#ifndef POLLED_H
#define POLLED_H

#include "streams.h"

enum { POLLED = 4 };

struct polled {
    struct taker taker;
    struct row in;
    struct flow out;
    struct plain plain;
    int has_left; /* whether the peer has */
};

/*
 * Waits for the descriptors. That suffices, as every open connection was pulled until
 * nothing was left.
 */
static void wait_by_poll(qnet_conn *const *conns, int count, uint8_t *ready)
{
    struct pollfd fds[POLLED];
    int i;

    for (i = 0; i < count; i++) {
        fds[i].fd = qnet_fd(conns[i]);
        fds[i].events = POLLIN;
        CHECK(fds[i].fd >= 0);
    }
    CHECK(poll(fds, (nfds_t)count, 10) >= 0);
    for (i = 0; i < count; i++)
        ready[i] = fds[i].revents != 0;
}

/* Pulls until no frame is left. Returns whether the connection is still open. */
static int pull_all(struct polled *one)
{
    int result;

    one->taker.way = (int)pick(WAYS_TO_PULL);
    do
        result = taker_pull(&one->taker, 0);
    while (result > 0);
    if (result != QNET_ERR_AGAIN)
        CHECK_INT(result, QNET_ERR_CLOSED);
    return result == QNET_ERR_AGAIN;
}

/* Makes the peer leave once it has received and sent everything. */
static void leave_if_done(struct polled *one)
{
    if (one->has_left || one->in.came < one->plain.goal ||
        get(&one->plain.in.came) < (int)one->out.next)
        return;
    plain_join(&one->plain, 1);
    CHECK(close(one->plain.fd) == 0);
    one->has_left = 1;
}

static void polled_open(struct polled *one)
{
    int fd;

    one->in = row_new(0);
    one->out = flow_of_soak();
    one->has_left = 0;
    taker_start(&one->taker, open_any(&fd), BY_RECV, row_take, &one->in);
    plain_start(&one->plain, fd, 0, (int)pick(2000));
}

static void polled_lives(struct sort *sort)
{
    struct polled all[POLLED], *live[POLLED];
    int count = POLLED, i;

    for (i = 0; i < POLLED; i++) {
        polled_open(&all[i]);
        live[i] = &all[i];
    }
    while (count > 0) {
        qnet_conn *conns[POLLED];
        uint8_t ready[POLLED];

        for (i = 0; i < count; i++) {
            leave_if_done(live[i]);
            conns[i] = live[i]->taker.conn;
        }
        if (pick(2))
            wait_by_poll(conns, count, ready);
        else
            CHECK(qnet_poll(conns, ready, (size_t)count, 10) >= 0);
        for (i = count - 1; i >= 0; i--) {
            if (ready[i] && !pull_all(live[i]))
                live[i] = live[--count];
            else if (!live[i]->has_left)
                send_any_way(live[i]->taker.conn, &live[i]->out, (int)pick(4));
        }
    }
    for (i = 0; i < POLLED; i++) {
        struct polled *one = &all[i];

        CHECK_INT(stats_at_the_end(one->taker.conn, (int)one->out.next).tx_dropped, 0);
        taker_close(&one->taker);
        CHECK_INT(one->in.came, one->plain.wrote);
        CHECK_INT(one->plain.in.came, one->out.next);
        add_up(sort, one->plain.wrote + (int)one->out.next, one->in.came + one->plain.in.came, 0);
    }
}

#endif
