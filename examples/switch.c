/*
 * switch.c - a virtual Ethernet switch for QEMU: whoever connects to one of its
 * addresses is on the same network as everybody else.
 *
 * One hub serves all the listeners; nothing is left to do here but to wait for
 * the end and, on a terminal, to tell every second how it goes.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qnet.h"
#include "serve.h"

static const char usage[] =
    "usage: switch ADDRESS...\n\n"
    "Switches Ethernet frames between the QEMUs that connect, until Ctrl-C or SIGTERM. An ADDRESS\n"
    "is unix:PATH or tcp:HOST:PORT; port 0 is chosen by the system, and told. After\n\n"
    "    switch unix:/run/sw.sock tcp:127.0.0.1:7000\n\n"
    "a guest joins with either of\n\n"
    "    -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/run/sw.sock   (QEMU 7.2+)\n"
    "    -netdev socket,id=n0,connect=127.0.0.1:7000                             (any QEMU)\n\n"
    "and -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01, each with a mac of its own.\n";

/* Says what is wrong; returns the exit status for it. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "switch: %s\n", what);
    return status;
}

/* Tells how it goes, in the line where it was told last. Returns 0, or the exit status. */
static int print_counters(qnet_hub *hub)
{
    qnet_hub_stats stats;

    if (qnet_hub_get_stats(hub, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    if (printf("\r%" PRIu64 " ports, %" PRIu64 " devices, frames: %" PRIu64 " forwarded, %" PRIu64
               " flooded, %" PRIu64 " dropped    ",
               stats.ports, stats.macs, stats.forwarded, stats.flooded, stats.dropped) < 0 ||
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
        while (sigwaitinfo(signals, NULL) < 0) /* stopped, and continued */
            continue;
        return 0;
    }
    do {
        status = print_counters(hub);
    } while (status == 0 && sigtimedwait(signals, NULL, &second) < 0);
    putchar('\n');
    return status;
}

int main(int argc, char **argv)
{
    qnet_hub *hub;
    sigset_t signals;
    int i, status = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 2) {
        fputs(usage, stderr);
        return 2;
    }
    /* Blocked, they wait to be waited for: no handler, and nothing that it could interrupt. */
    if (sigemptyset(&signals) != 0 || sigaddset(&signals, SIGINT) != 0 ||
        sigaddset(&signals, SIGTERM) != 0 || sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
        return complain("cannot block signals", 1);
    if (qnet_hub_new(&hub) != QNET_OK)
        return complain(qnet_last_error(), 1);
    for (i = 1; i < argc && status == 0; i++)
        status = serve(hub, argv[i]);
    if (status == 0)
        status = wait_for(&signals, hub);
    if (qnet_hub_close(hub) != QNET_OK) /* the listeners and who connected to them as well */
        status = complain(qnet_last_error(), 1);
    return status;
}
