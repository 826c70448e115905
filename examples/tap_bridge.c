/*
 * tap_bridge.c - puts VMs on the host's own network: those who connect to one of
 * its addresses reach a TAP interface, and through it whatever the kernel
 * connects to that: a bridge, a VXLAN, a route.
 *
 * The TAP is a port of a hub that has all the others.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qnet.h"
#include "serve.h"

static const char usage[] =
    "usage: tap_bridge TAP [[--mode MODE] [--in TEXT] [--out TEXT] [--seed N]\n"
    "                  ADDRESS|dial=ADDRESS [WORD]...]...\n\n"
    "Switches Ethernet frames between the interface TAP, the peers that connect, and those that\n"
    "it connects to (dial=, repeated whenever the peer is not there), until Ctrl-C, SIGTERM or\n"
    "the end of the interface.\n\n" ADDRESS_USAGE
    "\n" OPTIONS_USAGE "\n" PORT_USAGE
    "\nIf there is no TAP of that name, one is created, which needs root and is\n"
    "deleted with this program. One created before, for the user alice, needs no root then:\n\n"
    "    ip tuntap add tap0 mode tap user alice      # as root\n"
    "    ip addr add 10.0.5.1/24 dev tap0\n"
    "    ip link set tap0 up\n\n"
    "    tap_bridge tap0 unix:/tmp/sw.sock           # as alice\n\n"
    "Guests connect as to switch, and then reach the host at 10.0.5.1.\n";

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Prints what is wrong. Returns the exit status. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "tap_bridge: %s\n", what);
    return status;
}

/* Waits for a signal, or for the end of the interface, a failure. Returns the exit status. */
static int wait_for(qnet_conn *tap)
{
    int code = QNET_ERR_TIMEOUT;

    /* Not -1, because a signal between the test and the wait would go unnoticed. */
    while (!stopping && (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED))
        code = qnet_wait(tap, 1000);
    if (stopping)
        return 0;
    return complain(code == QNET_OK ? "the interface is gone" : qnet_last_error(), 1);
}

/* Prints what came from the interface and went to it. Returns 0, or the exit status. */
static int print_stats(qnet_conn *tap, const char *name)
{
    qnet_stats stats;

    if (qnet_get_stats(tap, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    printf("%s: %" PRIu64 " frames (%" PRIu64 " bytes) from it, %" PRIu64 " (%" PRIu64
           " bytes) to it, %" PRIu64 " lost\n",
           name, stats.rx_frames, stats.rx_bytes, stats.tx_frames, stats.tx_bytes,
           stats.tx_dropped);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    qnet_hub *hub = NULL;
    qnet_conn *tap = NULL;
    struct entrance *entrances;
    int i, status = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 3) {
        fputs(usage, stderr);
        return 2;
    }
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0)
        return complain("cannot start", 1);
    entrances = calloc((size_t)argc, sizeof *entrances);
    if (entrances == NULL)
        return complain("no memory", 1);
    if (qnet_tap(argv[1], &tap) != QNET_OK || qnet_hub_new(&hub) != QNET_OK ||
        qnet_hub_attach(hub, tap) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    if (status == 0)
        status = join_all(hub, argv + 2, entrances);
    if (status == 0)
        status = wait_for(tap);
    if (status == 0)
        status = print_stats(tap, argv[1]);
    (void)qnet_hub_close(hub); /* closes the listeners and their peers too */
    (void)qnet_close(tap);     /* does nothing if it is NULL */
    for (i = 0; i < argc; i++)
        (void)qnet_close(entrances[i].conn);
    free(entrances);
    return status;
}
