/*
 * tap_bridge.c - puts VMs on the host's own network: whoever connects to one of
 * its addresses is behind a TAP interface, and so is whatever the kernel joins
 * to that: a bridge, a VXLAN, a route.
 *
 * The TAP is a port of a hub that serves all the listeners.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "qnet.h"
#include "serve.h"

static const char usage[] =
    "usage: tap_bridge TAP ADDRESS...\n\n"
    "Switches Ethernet frames between the interface TAP and the QEMUs that connect, until Ctrl-C,\n"
    "SIGTERM or the end of the interface. An ADDRESS is unix:PATH or tcp:HOST:PORT; port 0 is\n"
    "chosen by the system, and told. Without a TAP of that name one is made, which needs root and\n"
    "goes with this program; one made before, for the user alice, does not need root then:\n\n"
    "    ip tuntap add tap0 mode tap user alice      # as root\n"
    "    ip addr add 10.0.5.1/24 dev tap0\n"
    "    ip link set tap0 up\n\n"
    "    tap_bridge tap0 unix:/tmp/sw.sock           # as alice\n\n"
    "Guests join as with switch, and then reach the host at 10.0.5.1.\n";

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Says what is wrong; returns the exit status for it. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "tap_bridge: %s\n", what);
    return status;
}

/* Waits for a signal, or for the end of the interface, which is none. Returns the exit status. */
static int wait_for(qnet_conn *tap)
{
    int code = QNET_ERR_TIMEOUT;

    /* Not -1: a signal between the test and the wait would go unnoticed. */
    while (!stopping && (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED))
        code = qnet_wait(tap, 1000);
    if (stopping)
        return 0;
    return complain(code == QNET_OK ? "the interface is gone" : qnet_last_error(), 1);
}

/* Tells what came from the interface and went to it. Returns 0, or the exit status. */
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
    if (qnet_tap(argv[1], &tap) != QNET_OK || qnet_hub_new(&hub) != QNET_OK ||
        qnet_hub_attach(hub, tap) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    for (i = 2; i < argc && status == 0; i++)
        status = serve(hub, argv[i]);
    if (status == 0)
        status = wait_for(tap);
    if (status == 0)
        status = print_stats(tap, argv[1]);
    (void)qnet_hub_close(hub); /* the listeners and who connected to them as well */
    (void)qnet_close(tap);     /* NULL, where there is none: does nothing */
    return status;
}
