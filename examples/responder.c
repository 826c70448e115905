/*
 * responder.c - an emulated host on the other side of a VM's NIC: answers ARP
 * and ping at one IPv4 address, for any number of QEMUs at once.
 *
 * Each connection is a separate wire and has a handler, which the library calls
 * on a thread for that connection; the main thread only accepts.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "packet.h"
#include "qnet.h"

struct peer {
    struct peer *next;
    qnet_conn *conn;
    uint8_t mac[6];                /* ours, as this peer sees it */
    uint8_t answer[QNET_FRAME_MAX]; /* one is enough, because calls of the handler never overlap */
};

static const char usage[] =
    "usage: responder [NETWORK ADDRESS [IP]]\n\n"
    "Listens at ADDRESS (tcp 127.0.0.1:5555) and answers ARP and ping at IP (10.0.2.1)\n"
    "for every QEMU that connects. NETWORK is tcp, tcp4, tcp6 or unix. A guest connects with\n"
    "    -netdev socket,id=net0,connect=127.0.0.1:5555 -device virtio-net-pci,netdev=net0\n";

static volatile sig_atomic_t stopping;
static uint8_t own_ip[4];
static pthread_mutex_t peers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct peer *peers;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static int complain(const char *what)
{
    fprintf(stderr, "responder: %s\n", what);
    return 1;
}

static void on_frame(void *user, const uint8_t *frame, size_t len)
{
    struct peer *peer = user;
    size_t answer_len = answer_arp(peer->answer, frame, len, peer->mac, own_ip);
    int code;

    if (answer_len == 0)
        answer_len = answer_echo(peer->answer, frame, len, peer->mac, own_ip);
    if (answer_len == 0)
        return;
    code = qnet_send(peer->conn, peer->answer, answer_len);
    if (code != QNET_OK && code != QNET_ERR_CLOSED) /* on_close reports the end */
        complain(qnet_last_error());
}

/*
 * Called once for each connection, last, whoever ended it: the place to free
 * what belongs to it. Calls made inside a handler never wait for a handler, so
 * a connection may close itself. If main is already closing it, this close
 * only returns QNET_ERR_HANDLE.
 */
static void on_close(void *user, int reason)
{
    struct peer *peer = user, **at = &peers;

    pthread_mutex_lock(&peers_lock);
    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    pthread_mutex_unlock(&peers_lock);
    printf("peer left: %s\n", qnet_strerror(reason));
    (void)qnet_close(peer->conn);
    free(peer);
}

/* Starts answering on a new connection. Until it has a handler, frames wait in the socket. */
static void add_peer(qnet_conn *conn)
{
    struct peer *peer = calloc(1, sizeof *peer);

    if (peer == NULL || qnet_hwaddr(conn, peer->mac) != QNET_OK ||
        qnet_set_close_handler(conn, on_close, peer) != QNET_OK) {
        complain(peer ? qnet_last_error() : "out of memory");
        free(peer);
        (void)qnet_close(conn);
        return;
    }
    peer->conn = conn;
    pthread_mutex_lock(&peers_lock);
    peer->next = peers;
    peers = peer;
    pthread_mutex_unlock(&peers_lock);
    printf("peer joined\n");
    if (qnet_set_handler(conn, on_frame, peer) != QNET_OK) {
        complain(qnet_last_error());
        (void)qnet_close(conn); /* calls on_close */
    }
}

/* Closing waits for on_close, which takes the lock, so the lock is released meanwhile. */
static void close_peers(void)
{
    qnet_conn *conn;

    do {
        pthread_mutex_lock(&peers_lock);
        conn = peers ? peers->conn : NULL;
        pthread_mutex_unlock(&peers_lock);
        if (conn)
            (void)qnet_close(conn); /* QNET_ERR_HANDLE if it has just closed itself */
    } while (conn);
}

int main(int argc, char **argv)
{
    const char *network = argc > 2 ? argv[1] : "tcp";
    const char *address = argc > 2 ? argv[2] : "127.0.0.1:5555";
    const char *ip = argc > 3 ? argv[3] : "10.0.2.1";
    struct sigaction action = {0};
    qnet_listener *listener;
    qnet_conn *conn;
    char where[256]; /* with the port that the system chose, if the port was 0 */

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc == 2 || argc > 4 || inet_pton(AF_INET, ip, own_ip) != 1) {
        fputs(usage, stderr);
        return 2;
    }
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        setvbuf(stdout, NULL, _IOLBF, BUFSIZ) != 0)
        return complain("cannot start");
    if (qnet_listen(network, address, &listener) != QNET_OK)
        return complain(qnet_last_error());
    if (qnet_listener_addr(listener, where, sizeof where) >= 0)
        printf("listening at %s %s, answering at %s\n", network, where, ip);
    while (!stopping) {
        /* Not -1, because a signal between the test and the wait would go unnoticed. */
        int code = qnet_accept(listener, 1000, &conn);

        if (code == QNET_OK) {
            add_peer(conn);
        } else if (code != QNET_ERR_TIMEOUT && code != QNET_ERR_INTERRUPTED) {
            complain(qnet_last_error()); /* mostly too many open files, which passes */
            sleep(1);
        }
    }
    close_peers();
    return qnet_listener_close(listener) == QNET_OK ? 0 : complain(qnet_last_error());
}
