/*
 * spawn_qemu.c - starts a QEMU as a child process, which inherits one end of a
 * socket pair. There is no path and no port, so nobody else can connect, and
 * nothing is left behind.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "packet.h"
#include "qnet.h"

static const char usage[] =
    "usage: spawn_qemu [TARGET_IP] [-- QEMU_ARGUMENT...]\n\n"
    "Starts qemu-system-x86_64 with a netdev net0, asks there by ARP who has TARGET_IP (10.0.2.2),\n"
    "prints what is received until the answer comes, and ends QEMU. Without any QEMU_ARGUMENT only\n"
    "QEMU's own router is there. To start a guest, and wait until it has its address:\n\n"
    "    spawn_qemu 10.0.2.15 -- -device virtio-net-pci,netdev=net0 -hda guest.qcow2\n";

static char *router[] = {
    "-M", "none", "-nodefaults", "-display", "none",
    "-netdev", "hubport,id=port0,hubid=0,netdev=net0",
    "-netdev", "user,id=router", "-netdev", "hubport,id=port1,hubid=0,netdev=router", NULL};

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Prints what is wrong. Returns the exit status. */
static int complain(const char *what)
{
    fprintf(stderr, "spawn_qemu: %s\n", what);
    return 1;
}

/* In the child: becomes QEMU, which ends at the latest when the parent does. */
static void become_qemu(char **arguments, int fd, pid_t parent)
{
    size_t count = 0;
    char netdev[64], **argv;

    while (arguments[count])
        count++;
    argv = calloc(count + 4, sizeof *argv);
    snprintf(netdev, sizeof netdev, "stream,id=net0,addr.type=fd,addr.str=%d", fd);
    if (argv && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent &&
        fcntl(fd, F_SETFD, 0) == 0) { /* only here, so that no other child inherits it */
        argv[0] = "qemu-system-x86_64";
        argv[1] = "-netdev";
        argv[2] = netdev; /* before QEMU 7.2: "socket,id=net0,fd=%d" */
        memcpy(argv + 3, arguments, count * sizeof *argv);
        execvp(argv[0], argv);
    }
    perror("spawn_qemu: cannot start qemu-system-x86_64");
    _exit(127);
}

/* Ends QEMU, unless it has ended by itself, and waits for it, so that no zombie is left. */
static int reap(pid_t child)
{
    int status;

    if (kill(child, SIGTERM) != 0)
        return complain(strerror(errno));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return complain(strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? complain("QEMU failed") : 0;
}

/* Asks once a second who has the address, until somebody answers. Returns 0, or the exit status. */
static int arping(qnet_conn *conn, const uint8_t target_ip[4])
{
    static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t own_ip[4] = {10, 0, 2, 1};
    static uint8_t frame[QNET_FRAME_MAX];
    const struct arp_frame *reply = NULL;
    struct arp_frame request;
    uint8_t mac[6];
    time_t asked = 0;
    int code = qnet_hwaddr(conn, mac);

    write_arp(&request, ARP_REQUEST, mac, own_ip, everybody, target_ip);
    while (!stopping && reply == NULL && code >= 0) {
        if (time(NULL) != asked)
            code = qnet_send(conn, &request, sizeof request);
        asked = time(NULL);
        if (code >= 0) /* not -1, because a signal between the test and the wait goes unnoticed */
            code = qnet_recv(conn, frame, sizeof frame, 1000);
        if (code > 0) {
            printf("%d bytes from %02x:%02x:%02x:%02x:%02x:%02x, type %04x\n", code, frame[6],
                   frame[7], frame[8], frame[9], frame[10], frame[11], get16(frame + 12));
            reply = read_arp(frame, (size_t)code, ARP_REPLY);
            if (reply && memcmp(reply->sender_ip, target_ip, 4) != 0)
                reply = NULL;
        } else if (code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED) {
            code = QNET_OK;
        }
    }
    if (code < 0)
        complain(qnet_last_error());
    return reply == NULL;
}

int main(int argc, char **argv)
{
    char **next = argv + 1;
    const char *target = *next && strcmp(*next, "--") != 0 ? *next++ : "10.0.2.2";
    char **arguments = *next ? next + 1 : router;
    struct sigaction action = {0};
    pid_t child, parent = getpid();
    uint8_t target_ip[4];
    qnet_conn *conn;
    int fd, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if ((*next && strcmp(*next, "--") != 0) || inet_pton(AF_INET, target, target_ip) != 1) {
        fputs(usage, stderr);
        return 2;
    }
    if (qnet_socketpair_fd(&conn, &fd) != QNET_OK)
        return complain(qnet_last_error());
    child = fork();
    if (child == 0)
        become_qemu(arguments, fd, parent);
    status = child > 0 ? 0 : complain(strerror(errno));
    (void)close(fd); /* only the child has it now, so that the connection ends with the child */
    action.sa_handler = on_signal; /* set after the fork, so that the first signal ends the child */
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        setvbuf(stdout, NULL, _IOLBF, BUFSIZ) != 0)
        status = complain("cannot start");
    if (status == 0)
        status = arping(conn, target_ip);
    if (status == 0)
        printf("%s has answered\n", target);
    (void)qnet_close(conn);
    return child > 0 && reap(child) != 0 ? 1 : status;
}
