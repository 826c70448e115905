/*
 * ping.c - pings an IPv4 address on the other side of a QEMU netdev.
 *
 * Dials, asks for the target's MAC address by ARP, and then does what ping(8)
 * does. It receives by pulling, in its only thread.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "packet.h"
#include "qnet.h"

enum { ECHO_LEN = sizeof(struct icmp_header) + 56 };

static const char usage[] =
    "usage: ping [-c COUNT] [-i INTERVAL] [-W TIMEOUT] [-I SOURCE_IP] NETWORK ADDRESS TARGET_IP\n\n"
    "Pings TARGET_IP from SOURCE_IP (10.0.2.15) through the listener at ADDRESS, COUNT times or\n"
    "until Ctrl-C, every INTERVAL (1) seconds, waiting at most TIMEOUT (1) seconds for each\n"
    "answer. NETWORK is tcp, tcp4, tcp6, unix or unixpacket. The exit status is 0 if there were\n"
    "answers, 1 if there were none, and 2 for an error.\n";

static volatile sig_atomic_t stopping;
static qnet_conn *conn;
static const char *target;
static int resolved; /* target_mac is known */
static uint8_t own_mac[6], own_ip[4] = {10, 0, 2, 15}, target_mac[6], target_ip[4];
static uint8_t frame[QNET_FRAME_MAX];          /* the last one received */
static double interval = 1, timeout = 1;       /* in seconds */
static long count = -1, transmitted, received; /* count -1: until a signal */
static double shortest = 1e9, longest, sum;    /* of the round trips, in ms */

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void print_summary(void)
{
    double lost = transmitted ? 100.0 * (double)(transmitted - received) / (double)transmitted : 0;

    printf("\n--- %s ping statistics ---\n", target);
    printf("%ld packets transmitted, %ld received, %.3g%% packet loss\n", transmitted,
           received, lost);
    if (received > 0)
        printf("rtt min/avg/max = %.3f/%.3f/%.3f ms\n", shortest, sum / (double)received, longest);
}

static void fail(const char *what)
{
    fprintf(stderr, "ping: %s\n", what);
    if (transmitted > 0)
        print_summary();
    (void)qnet_close(conn); /* does nothing if it is NULL */
    exit(2);
}

static double now(void)
{
    struct timespec time;

    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        fail("no clock");
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void transmit(const void *bytes, size_t len)
{
    int code = qnet_send(conn, bytes, len);

    if (code != QNET_OK && code != QNET_ERR_INTERRUPTED) /* a signal: `stopping` is set */
        fail(qnet_last_error());
}

/* Answers requests for our MAC address, and learns the target's. */
static void handle_arp(size_t len)
{
    uint8_t answer[sizeof(struct arp_frame)];
    const struct arp_frame *reply = read_arp(frame, len, ARP_REPLY);

    if (answer_arp(answer, frame, len, own_mac, own_ip))
        transmit(answer, sizeof answer);
    if (reply && memcmp(reply->sender_ip, target_ip, 4) == 0) {
        memcpy(target_mac, reply->sender_mac, 6);
        resolved = 1;
    }
}

/* Receives into `frame`; returns its length, or 0 after the deadline or a signal. */
static size_t receive(double deadline)
{
    double left;

    while (!stopping && (left = deadline - now()) > 0) {
        /* At most a second, because a signal between the test and the wait goes unnoticed. */
        int len = qnet_recv(conn, frame, sizeof frame, left > 1 ? 1000 : (int)(left * 1000) + 1);

        if (len > 0) {
            handle_arp((size_t)len);
            return (size_t)len;
        }
        if (len != QNET_ERR_TIMEOUT && len != QNET_ERR_INTERRUPTED)
            fail(qnet_last_error());
    }
    return 0;
}

static void resolve(void)
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct arp_frame request;
    double deadline = now() + timeout;

    write_arp(&request, ARP_REQUEST, own_mac, own_ip, broadcast, target_ip);
    transmit(&request, sizeof request);
    while (!resolved && receive(deadline) > 0)
        continue;
    if (!resolved && !stopping)
        fprintf(stderr, "ping: %s does not answer ARP\n", target);
}

static void print_reply(const struct icmp_message *reply, double time)
{
    printf("%lu bytes from %s: icmp_seq=%u ttl=%u time=%.3f ms\n", (unsigned long)reply->len,
           target, get16(reply->icmp->sequence), (unsigned)reply->ip->ttl, time);
    received++;
    sum += time;
    shortest = time < shortest ? time : shortest;
    longest = time > longest ? time : longest;
}

/* Sends one request and waits for its reply, and then until the next one is due, if any. */
static void ping(void)
{
    uint8_t request[ICMP_OFFSET + ECHO_LEN] = {0};
    struct icmp_header *icmp = (struct icmp_header *)(request + ICMP_OFFSET);
    struct icmp_message reply;
    double sent = now();
    size_t len;

    icmp->type = ECHO_REQUEST;
    put16(icmp->identifier, (unsigned)getpid());
    put16(icmp->sequence, (unsigned)++transmitted);
    transmit(request, write_icmp(request, ECHO_LEN, own_mac, own_ip, target_mac, target_ip));
    while ((len = receive(sent + timeout)) > 0)
        if (read_icmp(frame, len, own_mac, own_ip, &reply) &&
            is_echo_reply(&reply, target_ip, icmp)) {
            print_reply(&reply, (now() - sent) * 1000);
            break;
        }
    while (transmitted != count && receive(sent + interval) > 0)
        continue;
}

static double number(const char *text, double least)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= least && value <= 1e6))
        fail(usage);
    return value;
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    int option;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0 ? 2 : 0;
    while ((option = getopt(argc, argv, "c:i:W:I:")) != -1) {
        if (option == 'c')
            count = (long)number(optarg, 1);
        else if (option == 'i')
            interval = number(optarg, 0);
        else if (option == 'W')
            timeout = number(optarg, 0.001);
        else if (option != 'I' || inet_pton(AF_INET, optarg, own_ip) != 1)
            fail(usage);
    }
    target = argv[argc - 1];
    if (argc - optind != 3 || inet_pton(AF_INET, target, target_ip) != 1)
        fail(usage);
    action.sa_handler = on_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        setvbuf(stdout, NULL, _IOLBF, BUFSIZ) != 0)
        fail("cannot start");
    if (qnet_dial(argv[optind], argv[optind + 1], &conn) != QNET_OK ||
        qnet_hwaddr(conn, own_mac) != QNET_OK)
        fail(stopping ? "interrupted" : qnet_last_error());
    resolve();
    while (resolved && !stopping && transmitted != count)
        ping();
    print_summary();
    return qnet_close(conn) != QNET_OK ? 2 : received == 0;
}
