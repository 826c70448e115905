/*
 * poll_loop.c - a listener and many connections in one epoll loop and one
 * thread: sends each frame back with its MAC addresses swapped.
 *
 * The library reads ahead, and the descriptor does not show the frames that it
 * holds already. So the loop waits for EPOLLIN only after a receive returned
 * QNET_ERR_AGAIN, or fewer frames than there was room for. Otherwise there may
 * be something to send, and the loop waits for EPOLLOUT, which comes at once
 * if the socket has room. In this way each peer gets one batch in its turn.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "qnet.h"

enum { BATCH = 32, EVENTS = 64 };

struct peer {
    struct peer *next;
    qnet_conn *conn;
    qnet_frame frames[BATCH]; /* the last batch; its bytes are lent until the next receive */
    int count, sent;          /* frames in the batch, and how many of them were sent back */
    uint32_t events;          /* what epoll watches for */
};

static volatile sig_atomic_t stopping;
static int epoll_fd = -1;
static qnet_listener *listener;
static struct peer *peers;
static uint8_t swapped[BATCH][QNET_FRAME_MAX];

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void complain(const char *what)
{
    fprintf(stderr, "poll_loop: %s\n", what);
}

/* Sets what epoll watches a descriptor for (peer is NULL for the listener). Returns 0, or -1. */
static int watch(int operation, int fd, uint32_t events, struct peer *peer)
{
    struct epoll_event event = {.events = events, .data.ptr = peer};
    int code = epoll_ctl(epoll_fd, operation, fd, &event);

    if (code != 0)
        complain(strerror(errno));
    return code;
}

/*
 * Sends what is left of the batch. Returns how many frames were taken, or an
 * error. While a peer does not read its answers, nothing more is received from
 * it: nothing is lost, no queue is needed, and no other peer is affected. (A
 * program that sends to others, as a switch does, should drop the frame and
 * count it instead. Otherwise one slow reader stops all who send to it.)
 */
static int send_back(const struct peer *peer)
{
    qnet_frame out[BATCH];
    int i, taken, left = peer->count - peer->sent;

    for (i = 0; i < left; i++) {
        const qnet_frame *in = &peer->frames[peer->sent + i]; /* at least 14 bytes */

        memcpy(swapped[i], in->data + 6, 6);
        memcpy(swapped[i] + 6, in->data, 6);
        memcpy(swapped[i] + 12, in->data + 12, in->len - 12);
        out[i].data = swapped[i];
        out[i].len = in->len;
    }
    taken = qnet_send_batch(peer->conn, out, (size_t)left);
    return taken == QNET_ERR_AGAIN ? 0 : taken;
}

/* Serves one batch of a connection. Returns less than 0 when the connection is over. */
static int serve(struct peer *peer)
{
    int n;

    if (peer->sent == peer->count) {
        n = qnet_recv_batch(peer->conn, peer->frames, BATCH, 0);
        if (n < 0 && n != QNET_ERR_AGAIN)
            return n;
        peer->count = n < 0 ? 0 : n;
        peer->sent = 0;
    }
    n = send_back(peer);
    if (n < 0)
        return n;
    peer->sent += n;
    n = peer->sent == peer->count && peer->count < BATCH ? EPOLLIN : EPOLLOUT;
    if ((uint32_t)n == peer->events)
        return 0;
    peer->events = (uint32_t)n;
    return watch(EPOLL_CTL_MOD, qnet_fd(peer->conn), peer->events, peer);
}

static void remove_peer(struct peer *peer)
{
    struct peer **at = &peers;

    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    watch(EPOLL_CTL_DEL, qnet_fd(peer->conn), 0, NULL); /* always before closing */
    (void)qnet_close(peer->conn);
    free(peer);
    watch(EPOLL_CTL_MOD, qnet_listener_fd(listener), EPOLLIN, NULL); /* see add_peer */
}

/* Accepts one connection. Returns less than 0 when none can be accepted any more. */
static int add_peer(void)
{
    struct peer *peer;
    qnet_conn *conn;
    int code = qnet_accept(listener, 0, &conn);

    if (code == QNET_ERR_AGAIN)
        return 0;
    if (code != QNET_OK) { /* mostly too many open files: tried again when a peer has left */
        complain(qnet_last_error());
        return peers ? watch(EPOLL_CTL_MOD, qnet_listener_fd(listener), 0, NULL) : code;
    }
    peer = calloc(1, sizeof *peer);
    if (peer == NULL || watch(EPOLL_CTL_ADD, qnet_fd(conn), EPOLLOUT, peer) != 0) {
        free(peer);
        return qnet_close(conn);
    }
    peer->conn = conn;
    peer->events = EPOLLOUT;
    peer->next = peers;
    peers = peer;
    return 0;
}

/* Waits, for at most a second (a signal just before goes unnoticed), and serves what is ready. */
static int turn(void)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll_fd, events, EVENTS, 1000);
    int i, code = 0;

    for (i = 0; i < n && code == 0; i++) {
        struct peer *peer = events[i].data.ptr;

        if (peer == NULL) {
            code = add_peer();
        } else if (serve(peer) < 0) {
            qnet_set(peer->conn, QNET_OPT_LINGER_MS, 0); /* it is gone or broken: no waiting */
            remove_peer(peer);
        }
    }
    return n < 0 && errno != EINTR ? -1 : code;
}

static int start(const char *network, const char *address)
{
    struct sigaction action = {.sa_handler = on_signal};

    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 || sigaction(SIGINT, &action, NULL) != 0 ||
        sigaction(SIGTERM, &action, NULL) != 0) {
        complain(strerror(errno));
        return -1;
    }
    /* Connections start with the options of their listener. */
    if (qnet_listen(network, address, &listener) != QNET_OK ||
        qnet_listener_set(listener, QNET_OPT_SEND_TIMEOUT_MS, 0) != QNET_OK ||
        qnet_listener_set(listener, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX) != QNET_OK) {
        complain(qnet_last_error());
        return -1;
    }
    return watch(EPOLL_CTL_ADD, qnet_listener_fd(listener), EPOLLIN, NULL);
}

int main(int argc, char **argv)
{
    int code;

    if (argc != 3) {
        fputs("usage: poll_loop NETWORK ADDRESS    (such as tcp 127.0.0.1:5555)\n", stderr);
        return 2;
    }
    code = start(argv[1], argv[2]);
    while (code == 0 && !stopping)
        code = turn();
    while (peers)
        remove_peer(peers);
    (void)qnet_listener_close(listener); /* does nothing if it is NULL */
    (void)close(epoll_fd);
    return code == 0 ? 0 : 1;
}
