/*
 * link.c - connects two sockets like a cable: frames from one go to the other.
 * When one side has ended, they are linked again as soon as both are there.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "qnet.h"

static const char usage[] =
    "usage: link [--once] [OPTIONS] ADDRESS|listen=ADDRESS [OPTIONS] ADDRESS|listen=ADDRESS\n"
    "       with OPTIONS [--mode MODE] [--in TEXT] [--out TEXT] [--seed N]\n\n"
    "Connects to each address, or waits for a peer to connect to it (listen=), and links the two\n"
    "like a cable, until Ctrl-C or SIGTERM. When a side has left, link waits for it and links the\n"
    "two again. With --once it exits then, and also if a side is not there.\n\n" ADDRESS_USAGE
    "\n" OPTIONS_USAGE
    "\nA frame goes through --in of the side that it comes from, and --out of the other. link\n"
    "prints both with the seed that they have, and at the end what became of the frames.\n\n"
    "This connects two QEMUs that were started with\n\n"
    "    -netdev stream,id=n0,server=on,addr.type=unix,addr.path=/tmp/a.sock     (QEMU 7.2+)\n"
    "    -netdev socket,id=n0,listen=127.0.0.1:7000                              (any QEMU)\n\n"
    "and -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01, each with its own mac:\n\n"
    "    link unix:/tmp/a.sock tcp:127.0.0.1:7000\n";

struct side {
    struct address address;
    struct options options;
    qnet_listener *listener; /* only with listen= */
    qnet_conn *conn;
};

static volatile sig_atomic_t stopping;
static int once;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Prints what is wrong. Returns the exit status. */
static int complain(const char *what, int status)
{
    fprintf(stderr, "link: %s\n", what);
    return status;
}

/* Waits for the other end of a side that listens. Returns 0, or the exit status. */
static int accept_one(struct side *side)
{
    int code = QNET_ERR_TIMEOUT;

    /* Not -1, because a signal between the test and the wait would go unnoticed. */
    while (!stopping && (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED))
        code = qnet_accept(side->listener, 1000, &side->conn);
    return stopping || code == QNET_OK ? 0 : failed(code);
}

/* Opens the connection of a side. Returns 0, or the exit status. */
static int open_side(struct side *side)
{
    switch (side->address.how) {
    case LISTEN:
        return accept_one(side);
    case DATAGRAMS:
        return open_datagrams(&side->address, &side->options, &side->conn);
    default:
        return once ? dial(&side->address, &side->options, &side->conn)
                    : dial_again(&side->address, &side->options, &side->conn);
    }
}

/* Waits until a connection ends, or for a signal. Returns 0, or the exit status. */
static int wait_for(qnet_conn *conn)
{
    int code = QNET_ERR_TIMEOUT;

    while (!stopping && (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED))
        code = qnet_wait(conn, 1000);
    return stopping || code == QNET_OK ? 0 : failed(code);
}

/* Prints the impairment of a side, with its seed: given again, it does the same again. */
static int print_impairment(const struct side *side, int direction, const char *name)
{
    char text[1000]; /* a longer one is cut; its seed stands before the long part */
    int len = qnet_impairment(side->conn, direction, text, sizeof text);

    if (len < 0)
        return complain(qnet_last_error(), 1);
    if (len > 0)
        printf("%s: %s %s\n", side->address.argument, name, text);
    return 0;
}

/* Prints what became of the frames that were impaired. Returns 0, or the exit status. */
static int print_impaired(const struct side *side, int direction, const char *name)
{
    qnet_impair_stats stats;

    if (qnet_get_impair_stats(side->conn, direction, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    if (stats.frames > 0)
        printf("%s: %s: %" PRIu64 " frames and %" PRIu64 " duplicates: %" PRIu64 " lost, %" PRIu64
               " dropped, %" PRIu64 " discarded, %" PRIu64 " passed\n",
               side->address.argument, name, stats.frames, stats.duplicated, stats.lost,
               stats.dropped, stats.discarded, stats.passed);
    return 0;
}

/* Prints what came from a side and went to it, and how it ended. Returns 0, or the exit status. */
static int print_stats(const struct side *side)
{
    int reason = qnet_close_reason(side->conn);
    qnet_stats stats;

    if (qnet_get_stats(side->conn, &stats, sizeof stats) < 0)
        return complain(qnet_last_error(), 1);
    printf("%s: %" PRIu64 " frames (%" PRIu64 " bytes) from it, %" PRIu64 " (%" PRIu64
           " bytes) to it, %" PRIu64 " lost; %s\n",
           side->address.argument, stats.rx_frames, stats.rx_bytes, stats.tx_frames,
           stats.tx_bytes, stats.tx_dropped,
           reason == QNET_OK ? "still open" : qnet_strerror(reason));
    return print_impaired(side, QNET_IN, "--in") || print_impaired(side, QNET_OUT, "--out");
}

/* Prints what a side's frames go through. Returns 0, or the exit status. */
static int print_impairments(const struct side *side)
{
    return print_impairment(side, QNET_IN, "--in") || print_impairment(side, QNET_OUT, "--out");
}

/* Links the two until one of them ends. Returns 0, or the exit status. */
static int cable(struct side *a, struct side *b)
{
    int status, code = qnet_link(a->conn, b->conn);

    if (code == QNET_ERR_CLOSED || code == QNET_ERR_PROTOCOL)
        return once ? failed(code) : 0; /* one side has already left */
    if (code != QNET_OK)
        return failed(code);
    printf("linked %s and %s\n", a->address.argument, b->address.argument);
    status = print_impairments(a) || print_impairments(b);
    if (status == 0)
        status = wait_for(a->conn);
    if (status == 0)
        status = wait_for(b->conn); /* ends too, once everything is written */
    if (status == 0)
        status = print_stats(a);
    return status == 0 ? print_stats(b) : status;
}

/* Opens both sides, those that listen first, and links them. Returns 0, or the exit status. */
static int run_once(struct side *sides)
{
    int first = sides[1].address.how == LISTEN;
    int i, status = open_side(&sides[first]);

    if (status == 0 && !stopping)
        status = open_side(&sides[!first]);
    if (status == 0 && !stopping)
        status = cable(&sides[0], &sides[1]);
    for (i = 0; i < 2; i++) {
        (void)qnet_close(sides[i].conn); /* does nothing if it is NULL */
        sides[i].conn = NULL;
    }
    return status;
}

/* Reads the arguments. Returns 0, or the exit status. */
static int parse(char **arguments, struct side *sides)
{
    struct options options = default_options;
    int i, count = 0, status = 0;

    while (*arguments != NULL && status == 0) {
        if (strcmp(*arguments, "--once") == 0) {
            once = 1;
            arguments++;
        } else if (strncmp(*arguments, "--", 2) == 0) {
            status = parse_option(&arguments, &options);
        } else if (count < 2) {
            sides[count].options = options;
            status = parse_address(*arguments++, DIAL, &sides[count++].address);
        } else {
            return complain("a link has two ADDRESSes (see --help)", 2);
        }
    }
    if (status == 0 && count < 2)
        return complain("a link has two ADDRESSes (see --help)", 2);
    for (i = 0; i < 2 && status == 0; i++)
        if (sides[i].address.how == LISTEN)
            status = listen_at(&sides[i].address, &sides[i].options, &sides[i].listener);
    return status;
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    struct side sides[2] = {0};
    int i, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        setvbuf(stdout, NULL, _IOLBF, BUFSIZ) != 0)
        return complain("cannot start", 1);
    status = parse(argv + 1, sides);
    while (status == 0 && !stopping) {
        status = run_once(sides);
        if (once)
            break;
    }
    for (i = 0; i < 2; i++)
        (void)qnet_listener_close(sides[i].listener);
    return status;
}
