/*
 * switch.c - a virtual Ethernet switch for QEMU: whoever connects to one of its
 * addresses, or is connected to, is on the same network as everybody else.
 *
 * One hub has all of them; nothing is left to do here but to wait for the end
 * and to tell how it went; on a terminal, every second, how it goes.
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
    "usage: switch [--mode MODE] ADDRESS|dial=ADDRESS...\n\n"
    "Switches Ethernet frames between the QEMUs that connect, and what it connects to itself\n"
    "(dial=; again, whenever that is not there), until Ctrl-C or SIGTERM.\n\n" ADDRESS_USAGE
    "\nSocket files have the mode 0600, for nobody but the same user, unless --mode says 0660 or\n"
    "another. After\n\n"
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

/* Tells how it goes, after what begins the line. Returns 0, or the exit status. */
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
        while (sigwaitinfo(signals, NULL) < 0) /* stopped, and continued */
            continue;
        status = print_counters(hub, "");
    } else {
        do {
            status = print_counters(hub, "\r\033[K"); /* in place of what was told last */
        } while (status == 0 && sigtimedwait(signals, NULL, &second) < 0);
    }
    putchar('\n');
    return status;
}

int main(int argc, char **argv)
{
    qnet_hub *hub = NULL;
    qnet_conn **own; /* what the hub does not close */
    sigset_t signals;
    int i, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 2) {
        fputs(usage, stderr);
        return 2;
    }
    /*
     * Blocked, they wait to be waited for: no handler, and nothing that it could interrupt. And
     * nobody who reads what is told any more ends it before the socket files are removed.
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
    (void)qnet_hub_close(hub); /* the listeners and who connected to them as well */
    for (i = 0; i < argc; i++)
        (void)qnet_close(own[i]); /* NULL, where there is none: does nothing */
    free(own);
    return status;
}
