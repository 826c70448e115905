/*
 * lab.c - a laboratory from a file: switches, their ports, cables and captures. When the file has
 * changed, a signal has what is new made, what is gone closed and what is set otherwise set, while
 * the rest goes on.
 *
 * Hubs forward by themselves, and so do links. A thread of the library's tells of each peer that comes
 * to a port; the ends of cables are accepted here.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "labopen.h"
#include "qnet.h"

static const char usage[] =
    "usage: lab FILE\n\n"
    "Makes what is in the file, one thing a line, until Ctrl-C or SIGTERM. SIGHUP has it read again:\n"
    "what has not changed goes on, and a file with a mistake changes nothing.\n\n"
    "    # a laboratory\n"
    "    switch s1 move 200\n"
    "    port s1 vm1 unix:vm1.sock vlan \"access 10\" out \"delay 10ms loss 1%\"\n"
    "    port s1 up dial=unix:/run/other.sock vlan trunk\n"
    "    cable unix:a.sock unix:b.sock rate 10mbit delay 5ms\n"
    "    capture s1 lab.pcapng bytes 100000000 files 10\n\n"
    "For each address that a QEMU (7.2 or later) is to connect to, the -netdev argument is printed.\n"
    "A cable's text is for both directions.\n\n" ADDRESS_USAGE
    "\nThese may stand behind the ADDRESS of a port, with a blank in place of each =:\n\n" PORT_WORDS
    "\nBehind the NAME of a switch:\n\n" SWITCH_USAGE
    "\nBehind the FILE of a capture:\n\n"
    "    bytes N        another file begins after N bytes, and files N are kept\n"
    "    snap N         so many bytes of each frame are recorded\n"
    "    buffer N       so many bytes may wait to be written (4194304)\n";

static pthread_t main_thread;
static const char *file;
static struct thing *things;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of things, and all in them */
static int wakeup[2];                                    /* a pipe that ends poll() */
static volatile sig_atomic_t stopping, changed = 1;

static void wake(void)
{
    int before = errno;

    if (write(wakeup[1], "", 1) < 0)
        errno = before; /* it is full: poll() will end in any case */
}

static void on_signal(int number)
{
    if (number == SIGHUP)
        changed = 1;
    else
        stopping = 1;
    wake();
}

/* Called when an end of a cable has left. */
static void on_close(void *user, int reason)
{
    (void)user;
    (void)reason;
    wake();
}

/* Prints what is wrong, and, where that is in the file, in which line and from which word on. Returns
 * the exit status. */
static int complain(const char *what, int status)
{
    const char *word = strstr(what, ": \"");

    if (pthread_equal(pthread_self(), main_thread) && line > 0)
        fprintf(stderr, "%s:%d: %s\n", file, line, word ? word + 2 : what);
    else
        fprintf(stderr, "lab: %s\n", what);
    return status;
}

/* The port by whose address a peer has come, or NULL. */
static struct thing *port_of(const qnet_hub *hub, qnet_conn *conn)
{
    struct thing *thing, *best = NULL;
    int how, surest = 0;

    for (thing = things; thing != NULL; thing = thing->next) {
        if (thing->kind != PORT || thing->at->hub != hub || thing->ends[0].listener == NULL)
            continue;
        how = came_by(conn, thing->ends[0].listener);
        if (how > surest) {
            surest = how;
            best = thing;
        }
    }
    return best;
}

/* Notes a peer, and gives it what is set for its port. Returns 0, or the exit status. */
static int add_peer(struct thing *port, qnet_conn *conn)
{
    size_t size = (port->peer_count + 1) * sizeof *port->peers;
    qnet_conn **peers = realloc(port->peers, size);

    if (peers == NULL)
        return complain("no memory", 1);
    port->peers = peers;
    peers[port->peer_count++] = conn;
    return set_port(conn, NULL, &probe.usual, &port->ends[0].port);
}

static void remove_peer(const qnet_conn *conn)
{
    struct thing *thing;
    size_t i;

    for (thing = things; thing != NULL; thing = thing->next)
        for (i = 0; i < thing->peer_count; i++)
            if (thing->peers[i] == conn)
                thing->peers[i] = thing->peers[--thing->peer_count];
}

/* Called for each peer that comes, before a frame of it is read, and that leaves. */
static void on_port(void *hub, qnet_conn *conn, int attached)
{
    struct thing *port;
    int refused = 0;

    pthread_mutex_lock(&lock);
    if (attached) {
        port = port_of(hub, conn); /* NULL if its line has just gone */
        refused = port == NULL || add_peer(port, conn) != 0;
    } else {
        remove_peer(conn);
    }
    pthread_mutex_unlock(&lock);
    if (refused)
        (void)qnet_close(conn);
}

/* Makes the laboratory what the file says. Returns 0, or the exit status. */
static int follow_file(void)
{
    struct thing *next = NULL, *before, *thing, *old;
    int status = parse_file(file, &next), one;

    if (status != 0) {
        close_all(next); /* nothing of them is open */
        return status;
    }
    pthread_mutex_lock(&lock);
    before = things;
    things = next;
    for (thing = next; thing != NULL; thing = thing->next)
        for (old = before; old != NULL; old = old->next)
            if (is_same(thing, old))
                take_over(thing, old);
    pthread_mutex_unlock(&lock);
    close_all(before);
    pthread_mutex_lock(&lock);
    for (thing = things; thing != NULL; thing = thing->next) {
        one = open_thing(thing);
        status = status ? status : one;
    }
    pthread_mutex_unlock(&lock);
    if (status == 0 && (printf("%s is in force\n", file) < 0 || fflush(stdout) != 0))
        status = complain("cannot write to standard output", 1);
    return status;
}

/* Accepts who waits for an end of a cable, unless somebody is there. Returns 0, or 1 if it has to be
 * tried again later. */
static int accept_end(struct entrance *at)
{
    int code;

    if (at->conn != NULL && at->listener != NULL && qnet_close_reason(at->conn) != QNET_OK) {
        (void)qnet_close(at->conn);
        at->conn = NULL;
    }
    if (at->conn != NULL || at->listener == NULL)
        return 0;
    code = qnet_accept(at->listener, 0, &at->conn);
    if (code != QNET_OK)
        return code != QNET_ERR_AGAIN;
    if (qnet_set(at->conn, QNET_OPT_OUTLIVE, 1) == QNET_OK &&
        qnet_set_close_handler(at->conn, on_close, NULL) == QNET_OK &&
        set_port(at->conn, NULL, &probe.usual, &at->port) == 0)
        return 0;
    (void)qnet_close(at->conn); /* it has left already */
    at->conn = NULL;
    return 1;
}

/* Plugs in who has come to a cable, and adds what to wait for. Returns how long that may take in ms. */
static int tend(struct thing *cable, struct pollfd *fds, nfds_t *count)
{
    struct entrance *ends = cable->ends;
    int i, code = QNET_OK, later = accept_end(&ends[0]) + accept_end(&ends[1]);

    if (ends[0].conn != NULL && ends[1].conn != NULL)
        code = qnet_link(ends[0].conn, ends[1].conn); /* BUSY if they are linked, as mostly */
    for (i = 0; i < 2; i++)
        if (ends[i].conn == NULL && ends[i].listener != NULL && !later) {
            fds[*count].fd = qnet_listener_fd(ends[i].listener);
            fds[(*count)++].events = POLLIN;
        }
    return later || (code != QNET_OK && code != QNET_ERR_BUSY) ? 1000 : -1;
}

/* Tends the cables, and waits until somebody comes or leaves, or for a signal. Returns 0, or the exit
 * status. */
static int tend_all(void)
{
    struct thing *thing;
    struct pollfd *fds;
    nfds_t count = 1;
    char woken[64];
    int ready, timeout = -1;

    for (thing = things; thing != NULL; thing = thing->next)
        count += thing->kind == CABLE ? 2 : 0;
    fds = calloc(count, sizeof *fds);
    if (fds == NULL)
        return complain("no memory", 1);
    fds[0].fd = wakeup[0];
    fds[0].events = POLLIN;
    count = 1;
    for (thing = things; thing != NULL; thing = thing->next)
        if (thing->kind == CABLE && tend(thing, fds, &count) >= 0)
            timeout = 1000;
    ready = poll(fds, count, timeout);
    free(fds);
    if (ready < 0 && errno != EINTR)
        return complain(strerror(errno), 1);
    while (read(wakeup[0], woken, sizeof woken) > 0)
        continue;
    return 0;
}

/* Prepares what all that follows needs. Returns 0, or the exit status. */
static int prepare(void)
{
    struct sigaction action = {0};
    int i;

    main_thread = pthread_self();
    probe.usual.how = default_options;
    set_usual(port_words, probe.usual.values);
    if (pipe(wakeup) != 0)
        return complain(strerror(errno), 1);
    for (i = 0; i < 2; i++)
        if (fcntl(wakeup[i], F_SETFL, O_NONBLOCK) != 0 ||
            fcntl(wakeup[i], F_SETFD, FD_CLOEXEC) != 0)
            return complain(strerror(errno), 1);
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        sigaction(SIGHUP, &action, NULL) != 0)
        return complain(strerror(errno), 1);
    action.sa_handler = SIG_IGN; /* or the end of who reads the output would leave socket files */
    if (sigaction(SIGPIPE, &action, NULL) != 0)
        return complain(strerror(errno), 1);
    if (qnet_socketpair(&probe.conn, &probe.peer) != QNET_OK || qnet_hub_new(&probe.hub) != QNET_OK)
        return complain(qnet_last_error(), 1);
    return 0;
}

int main(int argc, char **argv)
{
    struct thing *gone;
    int status, first = 1;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc != 2) {
        fputs(usage, stderr);
        return 2;
    }
    file = argv[1];
    status = prepare();
    while (status == 0 && !stopping) {
        if (changed) {
            changed = 0;
            status = follow_file();
            status = first ? status : 0; /* later ones leave what there is */
            first = 0;
        }
        if (status == 0 && !stopping)
            status = tend_all();
    }
    pthread_mutex_lock(&lock);
    gone = things;
    things = NULL;
    pthread_mutex_unlock(&lock);
    close_all(gone);
    (void)qnet_hub_close(probe.hub);
    (void)qnet_close(probe.conn);
    (void)qnet_close(probe.peer);
    return status;
}
