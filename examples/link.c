/*
 * link.c - a cable between two sockets: what comes out of one goes into the
 * other, until either ends.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "address.h"
#include "qnet.h"

static const char usage[] =
    "usage: link ADDRESS ADDRESS\n\n"
    "Connects to both and cables them together, until one side ends, Ctrl-C or SIGTERM. An\n"
    "ADDRESS is unix:PATH or tcp:HOST:PORT. It joins two QEMUs that were started with\n\n"
    "    -netdev stream,id=n0,server=on,addr.type=unix,addr.path=/tmp/a.sock     (QEMU 7.2+)\n"
    "    -netdev socket,id=n0,listen=127.0.0.1:7000                              (any QEMU)\n\n"
    "and -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01, each with a mac of its own:\n\n"
    "    link unix:/tmp/a.sock tcp:127.0.0.1:7000\n";

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Says what is wrong; returns the exit status for it. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "link: %s\n", what);
    return status;
}

/* Connects to an address. Returns 0, or the exit status. */
static int dial(const char *argument, qnet_conn **out)
{
    char network[NETWORK_LEN];
    const char *address = split_address(argument, network);
    int code;

    if (address == NULL)
        return complain("an ADDRESS is unix:PATH or tcp:HOST:PORT (see --help)", 2);
    code = qnet_dial(network, address, out);
    if (code == QNET_OK)
        return 0;
    return complain(stopping ? "interrupted" : qnet_last_error(), code == QNET_ERR_INVALID ? 2 : 1);
}

/* Waits until a connection ends, or for a signal. Returns 0, or the exit status. */
static int wait_for(qnet_conn *conn)
{
    int code = QNET_ERR_TIMEOUT;

    /* Not -1: a signal between the test and the wait would go unnoticed. */
    while (!stopping && (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED))
        code = qnet_wait(conn, 1000);
    return stopping || code == QNET_OK ? 0 : complain(qnet_last_error(), 1);
}

/* Tells what came from a side and went to it, and how it ended. Returns 0, or the exit status. */
static int print_stats(const char *name, qnet_conn *conn)
{
    int reason = qnet_close_reason(conn);
    qnet_stats stats;

    if (qnet_get_stats(conn, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    printf("%s: %" PRIu64 " frames (%" PRIu64 " bytes) from it, %" PRIu64 " (%" PRIu64
           " bytes) to it, %" PRIu64 " lost; %s\n",
           name, stats.rx_frames, stats.rx_bytes, stats.tx_frames, stats.tx_bytes,
           stats.tx_dropped, reason == QNET_OK ? "still open" : qnet_strerror(reason));
    return 0;
}

/* Cables the two together until the end. Returns 0, or the exit status. */
static int cable(char **names, qnet_conn *a, qnet_conn *b)
{
    int status;

    if (qnet_link(a, b) != QNET_OK)
        return complain(qnet_last_error(), 1);
    printf("linked %s and %s\n", names[0], names[1]);
    status = wait_for(a);
    if (status == 0)
        status = wait_for(b); /* ends with it, once all is written */
    if (status == 0)
        status = print_stats(names[0], a);
    return status == 0 ? print_stats(names[1], b) : status;
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    qnet_conn *a = NULL, *b = NULL;
    int status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc != 3) {
        fputs(usage, stderr);
        return 2;
    }
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        setvbuf(stdout, NULL, _IOLBF, BUFSIZ) != 0)
        return complain("cannot start", 1);
    status = dial(argv[1], &a);
    if (status == 0)
        status = dial(argv[2], &b);
    if (status == 0)
        status = cable(argv + 1, a, b);
    (void)qnet_close(a); /* NULL, where there is none: does nothing */
    (void)qnet_close(b);
    return status;
}
