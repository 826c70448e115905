/*
 * switch.c - a virtual Ethernet switch for QEMU: whoever connects to one of its
 * addresses, or is connected to, is on the same network as everybody else, or in the
 * same VLAN.
 *
 * A hub does all the work. What is left is to wait for the end and to print the
 * counters; on a terminal a table of the ports is drawn every second.
 */
#define _DEFAULT_SOURCE

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peers.h"
#include "qnet.h"

static const char usage[] =
    "usage: switch [--capture FILE] [--fdb] [--move N] [--age N] [--table N] [--queue N]\n"
    "              [--groups MASK] [[--mode MODE] [--in TEXT] [--out TEXT] [--seed N]\n"
    "              ADDRESS|dial=ADDRESS [WORD]...]...\n\n"
    "Switches Ethernet frames between the peers that connect to it and those that it connects to\n"
    "(dial=, repeated whenever the peer is not there), until Ctrl-C or SIGTERM. On a terminal it\n"
    "shows each port, and what it sends, gets, drops and has refused.\n\n" ADDRESS_USAGE
    "\n" OPTIONS_USAGE "\n" PORT_USAGE
    "\nThe options of the switch itself come first:\n\n"
    "    --capture FILE each frame goes to that file, for Wireshark; or live to a FIFO\n"
    "    --fdb          SIGUSR1 prints which addresses are behind which port\n" SWITCH_USAGE
    "\nAfter\n\n"
    "    switch unix:/run/sw.sock vlan='access 10' tcp:127.0.0.1:7000 vlan=trunk name=router\n\n"
    "a guest connects with either of\n\n"
    "    -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/run/sw.sock   (QEMU 7.2+)\n"
    "    -netdev socket,id=n0,connect=127.0.0.1:7000                             (any QEMU)\n\n"
    "and -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01, each with its own mac.\n";

/* What the switch itself is told. */
struct own {
    const char *capture; /* a file, or NULL */
    int fdb;
};

/* Prints what is wrong. Returns the exit status. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "switch: %s\n", what);
    return status;
}

/* Prints the counters. Returns 0, or the exit status. */
static int print_counters(qnet_hub *hub)
{
    qnet_hub_stats stats;

    if (qnet_hub_get_stats(hub, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    if (printf("%" PRIu64 " ports, %" PRIu64 " devices, frames: %" PRIu64 " forwarded, %" PRIu64
               " flooded, %" PRIu64 " dropped, %" PRIu64 " refused",
               stats.ports, stats.macs, stats.forwarded, stats.flooded, stats.dropped,
               stats.refused_vlan + stats.refused_group + stats.refused_storm +
                   stats.refused_secure + stats.refused_move + stats.refused_isolated) < 0 ||
        fflush(stdout) != 0)
        return complain("cannot write to standard output", 1);
    return 0;
}

/* Waits for one of the signals, which are blocked, or on a terminal for a second. Returns which came,
 * or -1. */
static int wait_a_while(const sigset_t *signals, int terminal)
{
    const struct timespec second = {1, 0};

    return terminal ? sigtimedwait(signals, NULL, &second) : sigwaitinfo(signals, NULL);
}

/* Shows what is asked for until one of the signals ends the program. Returns 0, or the exit status. */
static int show(const sigset_t *signals, qnet_hub *hub, struct peers *peers)
{
    int number, status = 0, terminal = isatty(STDOUT_FILENO);

    do {
        if (terminal) {
            draw_peers(peers);
            status = print_counters(hub);
        }
        number = status == 0 ? wait_a_while(signals, terminal) : SIGTERM;
        if (number == SIGUSR1) {
            if (terminal)
                putchar('\n');
            status = print_fdb(hub, peers);
            if (status == 0 && fflush(stdout) != 0)
                status = complain("cannot write to standard output", 1);
        }
    } while (status == 0 && (number < 0 || number == SIGUSR1));
    if (status == 0 && !terminal)
        status = print_counters(hub);
    putchar('\n');
    return status;
}

/* Reads the options of the switch itself, and steps over them. Returns 0, or the exit status. */
static int parse_own(char ***arguments, qnet_hub *hub, struct own *out)
{
    int64_t value;

    for (; **arguments != NULL && strncmp(**arguments, "--", 2) == 0; ++*arguments) {
        int found = find_word(switch_words, **arguments + 2);

        if (strcmp(**arguments, "--fdb") == 0) {
            out->fdb = 1;
            continue;
        }
        if (found < 0 && strcmp(**arguments, "--capture") != 0)
            return 0; /* one of those that each address has */
        if ((*arguments)[1] == NULL)
            return complain_of(**arguments, "an argument has to follow (see --help)", 2);
        ++*arguments;
        if (found < 0)
            out->capture = **arguments;
        else if (parse_number(**arguments, &value) != 0)
            return 2;
        else if (qnet_hub_set(hub, switch_words[found].option, value) != QNET_OK)
            return failed(QNET_ERR_INVALID);
    }
    return 0;
}

/* Blocked signals stay pending until sigwaitinfo() takes them, so nothing is interrupted. SIGPIPE must
 * not end the program before the socket files are removed. Returns 0, or the exit status. */
static int block(sigset_t *signals, int fdb)
{
    if (sigemptyset(signals) != 0 || sigaddset(signals, SIGINT) != 0 ||
        sigaddset(signals, SIGTERM) != 0 || sigaddset(signals, SIGPIPE) != 0 ||
        (fdb && sigaddset(signals, SIGUSR1) != 0) || sigprocmask(SIG_BLOCK, signals, NULL) != 0)
        return complain("cannot block signals", 1);
    return 0;
}

/* Records what the hub takes in. Returns 0, or the exit status. */
static int record(qnet_hub *hub, const char *path, qnet_capture **out)
{
    if (path == NULL)
        return 0;
    if (qnet_capture_open(path, NULL, 0, out) != QNET_OK ||
        qnet_capture_add_hub(*out, hub, "switch") != QNET_OK)
        return complain(qnet_last_error(), 1);
    return 0;
}

/* Attaches the hub to all addresses, and names those ports of which the port handler is told nothing:
 * those that were dialled, and datagrams. Returns 0, or the exit status. */
static int open_all(qnet_hub *hub, char **arguments, struct entrance *entrances,
                    struct peers *peers)
{
    const struct entrance *at;
    int status;

    pthread_mutex_lock(&peers->lock);
    status = join_all(hub, arguments, entrances);
    for (at = entrances; at->address.argument != NULL && status == 0; at++)
        if (at->conn != NULL && !add_peer(peers, at->conn, at))
            status = complain("no memory", 1);
    pthread_mutex_unlock(&peers->lock);
    return status;
}

/* Does everything with a hub. Returns the exit status. */
static int run(qnet_hub *hub, char **arguments, struct entrance *entrances, struct peers *peers)
{
    struct own own = {NULL, 0};
    qnet_capture *capture = NULL;
    sigset_t signals;
    int status = parse_own(&arguments, hub, &own);

    if (status == 0)
        status = block(&signals, own.fdb);
    if (status == 0)
        status = record(hub, own.capture, &capture);
    if (status == 0 && qnet_hub_set_port_handler(hub, on_port, peers) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    if (status == 0)
        status = open_all(hub, arguments, entrances, peers);
    if (status == 0)
        status = show(&signals, hub, peers);
    (void)qnet_capture_close(capture); /* does nothing if it is NULL */
    return status;
}

int main(int argc, char **argv)
{
    struct peers peers = {PTHREAD_MUTEX_INITIALIZER, NULL, NULL, 0};
    struct entrance *entrances;
    qnet_hub *hub = NULL;
    int i, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 2) {
        fputs(usage, stderr);
        return 2;
    }
    entrances = calloc((size_t)argc, sizeof *entrances);
    if (entrances == NULL)
        return complain("no memory", 1);
    peers.entrances = entrances;
    status = qnet_hub_new(&hub) == QNET_OK ? 0 : complain(qnet_last_error(), 1);
    if (status == 0)
        status = run(hub, argv + 1, entrances, &peers);
    (void)qnet_hub_close(hub); /* closes the listeners and their peers too */
    for (i = 0; i < argc; i++)
        (void)qnet_close(entrances[i].conn);
    while (peers.first != NULL)
        remove_peer(&peers, peers.first->conn);
    free(entrances);
    return status;
}
