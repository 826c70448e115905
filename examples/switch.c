/*
 * switch.c - a virtual Ethernet switch for QEMU: whoever connects to one of its
 * addresses, or is connected to, is on the same network as everybody else.
 *
 * A hub does all the work. What is left is to wait for the end and to print the
 * counters; on a terminal they are printed every second.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qnet.h"
#include "serve.h"

static const char usage[] =
    "usage: switch [[--mode MODE] [--in TEXT] [--out TEXT] [--seed N] ADDRESS|dial=ADDRESS]...\n\n"
    "Switches Ethernet frames between the peers that connect to it and those that it connects to\n"
    "(dial=, repeated whenever the peer is not there), until Ctrl-C or SIGTERM.\n\n" ADDRESS_USAGE
    "\n" OPTIONS_USAGE
    "\nAfter\n\n"
    "    switch unix:/run/sw.sock tcp:127.0.0.1:7000\n\n"
    "a guest connects with either of\n\n"
    "    -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/run/sw.sock   (QEMU 7.2+)\n"
    "    -netdev socket,id=n0,connect=127.0.0.1:7000                             (any QEMU)\n\n"
    "and -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01, each with its own mac.\n";

/* Prints what is wrong. Returns the exit status. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "switch: %s\n", what);
    return status;
}

/* Prints the counters after the given beginning of the line. Returns 0, or the exit status. */
static int print_counters(qnet_hub *hub, const char *begin)
{
    qnet_hub_stats stats;

    if (qnet_hub_get_stats(hub, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    if (printf("%s%" PRIu64 " ports, %" PRIu64 " devices, frames: %" PRIu64 " forwarded, %" PRIu64
               " flooded, %" PRIu64 " dropped",
               begin, stats.ports, stats.macs, stats.forwarded, stats.flooded, stats.dropped) < 0 ||
        fflush(stdout) != 0)
        return complain("cannot write to standard output", 1);
    return 0;
}

/* Waits for one of the signals, which are blocked. Returns 0, or the exit status. */
static int wait_for(const sigset_t *signals, qnet_hub *hub)
{
    const struct timespec second = {1, 0};
    int status;

    if (!isatty(STDOUT_FILENO)) {
        while (sigwaitinfo(signals, NULL) < 0) /* the process was stopped and continued */
            continue;
        status = print_counters(hub, "");
    } else {
        do {
            status = print_counters(hub, "\r\033[K"); /* replaces the previous line */
        } while (status == 0 && sigtimedwait(signals, NULL, &second) < 0);
    }
    putchar('\n');
    return status;
}

int main(int argc, char **argv)
{
    qnet_hub *hub = NULL;
    qnet_conn **own; /* connections that the hub does not close */
    sigset_t signals;
    int i, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 2) {
        fputs(usage, stderr);
        return 2;
    }
    /*
     * Blocked signals stay pending until sigwaitinfo() takes them, so nothing is interrupted.
     * SIGPIPE must not end the program before the socket files are removed.
     */
    if (sigemptyset(&signals) != 0 || sigaddset(&signals, SIGINT) != 0 ||
        sigaddset(&signals, SIGTERM) != 0 || sigaddset(&signals, SIGPIPE) != 0 ||
        sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
        return complain("cannot block signals", 1);
    own = calloc((size_t)argc, sizeof *own);
    if (own == NULL)
        return complain("no memory", 1);
    status = qnet_hub_new(&hub) == QNET_OK ? 0 : complain(qnet_last_error(), 1);
    if (status == 0)
        status = join_all(hub, argv + 1, own);
    if (status == 0)
        status = wait_for(&signals, hub);
    (void)qnet_hub_close(hub); /* closes the listeners and their peers too */
    for (i = 0; i < argc; i++)
        (void)qnet_close(own[i]); /* does nothing if it is NULL */
    free(own);
    return status;
}
