/*
 * work.c - see work.h.
 */
#include "work.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_AT = 14, LOOK_US = 1000, SETTLE_US = 20000 };

void work_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

void work_check(int good, const char *what)
{
    if (!good)
        work_fail(what, strerror(errno));
}

void *work_memory(size_t bytes)
{
    void *memory = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);

    work_check(memory != NULL, "memory");
    memset(memory, 0, bytes);
    return memory;
}

uint64_t work_now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

void work_sleep_us(long us)
{
    struct timespec time;

    time.tv_sec = us / 1000000;
    time.tv_nsec = us % 1000000 * 1000;
    nanosleep(&time, NULL);
}

void work_say(const char *name, uint64_t value)
{
    printf("%s=%llu\n", name, (unsigned long long)value);
    fflush(stdout);
}

void work_ready(void)
{
    puts("ready");
    fflush(stdout);
}

void work_stay(void)
{
    char byte;

    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
}

/* ---- Sending threads ---- */

struct sender {
    void (*send)(void *user, uint64_t frames);
    void *user;
    uint64_t frames;
};

static void *sender_run(void *user)
{
    struct sender *sender = user;

    sender->send(sender->user, sender->frames);
    return NULL;
}

void work_send(const struct work *work, void (*send)(void *user, uint64_t frames), void *user)
{
    pthread_t threads[WORK_MOST_THREADS];
    struct sender first = {send, user, work->frames - work->frames / work->threads *
                                                          (work->threads - 1)};
    struct sender other = {send, user, work->frames / work->threads};
    unsigned i;

    work_say("begin", work_now());
    for (i = 1; i < work->threads; i++)
        work_check(pthread_create(&threads[i], NULL, sender_run, &other) == 0, "thread");
    sender_run(&first);
    for (i = 1; i < work->threads; i++)
        pthread_join(threads[i], NULL);
}

/* ---- Times of single frames ---- */

void work_times_begin(struct work_times *times, uint64_t room)
{
    times->ns = work_memory(room * sizeof *times->ns);
    times->count = 0;
    times->room = room;
}

static int compare(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

    return first < second ? -1 : first > second;
}

int work_times_add(struct work_times *times, uint64_t ns)
{
    times->ns[times->count++] = ns;
    if (times->count < times->room)
        return 0;
    work_say("end", work_now());
    work_say("frames", times->count);
    qsort(times->ns, times->count, sizeof *times->ns, compare);
    work_say("median", times->ns[times->count / 2]);
    work_say("p99", times->ns[times->count * 99 / 100]);
    return 1;
}

/* ---- Frames ---- */

size_t work_batch(size_t size)
{
    return WORK_PIECE / (size + WORK_PREFIX);
}

unsigned char *work_packed(size_t size, size_t count)
{
    size_t step = size + WORK_PREFIX, i, j;
    unsigned char *packed = work_memory(step * count);

    for (i = 0; i < count; i++) {
        unsigned char *frame = packed + i * step;

        for (j = 0; j < WORK_PREFIX; j++)
            frame[j] = (unsigned char)(size >> (24 - 8 * j));
        for (j = 0; j < size; j++)
            frame[WORK_PREFIX + j] = (unsigned char)(2 + i * 6 + j * 4);
        work_device(frame + WORK_PREFIX, 2);
        work_device(frame + WORK_PREFIX + 6, 1);
    }
    return packed;
}

void work_device(unsigned char *mac, unsigned device)
{
    memset(mac, 0, 6);
    mac[0] = 2;
    mac[4] = (unsigned char)(device >> 8);
    mac[5] = (unsigned char)device;
}

void work_announce(int fd, unsigned device)
{
    unsigned char frame[WORK_PREFIX + 60] = {0, 0, 0, 60};

    memset(frame + WORK_PREFIX, 0xff, 6);
    work_device(frame + WORK_PREFIX + 6, device);
    work_write(fd, frame, sizeof frame);
}

void work_stamp(unsigned char *frame)
{
    uint64_t now = work_now();

    memcpy(frame + STAMP_AT, &now, sizeof now);
}

uint64_t work_age(const unsigned char *frame)
{
    uint64_t then;

    memcpy(&then, frame + STAMP_AT, sizeof then);
    return work_now() - then;
}

/* ---- Plain sockets ---- */

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
};

static int is_unix(const char *network)
{
    return strncmp(network, "unix", 4) == 0;
}

/* Writes an address as bind() and connect() take it. Returns its length. */
static socklen_t parse_address(const char *network, const char *text, union address *address)
{
    const char *port = strrchr(text, ':');

    memset(address, 0, sizeof *address);
    if (is_unix(network)) {
        address->un.sun_family = AF_UNIX;
        snprintf(address->un.sun_path, sizeof address->un.sun_path, "%s", text);
        return sizeof address->un;
    }
    address->in.sin_family = AF_INET;
    address->in.sin_port = htons((uint16_t)atoi(port ? port + 1 : text));
    address->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof address->in;
}

/* Opens a socket for the network, and writes the address as bind() and connect() take it. */
static int socket_for(const char *network, const char *text, union address *address,
                      socklen_t *len)
{
    int type = work_has_messages(network) ? SOCK_DGRAM : SOCK_STREAM, one = 1;
    int fd = socket(is_unix(network) ? AF_UNIX : AF_INET, type | SOCK_CLOEXEC, 0);

    work_check(fd >= 0, "socket");
    *len = parse_address(network, text, address);
    if (!is_unix(network) && type == SOCK_STREAM) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}

int work_dial(const char *network, const char *address)
{
    union address to;
    socklen_t len;
    int fd = socket_for(network, address, &to, &len);

    work_check(connect(fd, &to.any, len) == 0, "connect");
    return fd;
}

int work_listen(const struct work *work, int backlog)
{
    union address at;
    socklen_t len;
    int listener = socket_for(work->network, work->address, &at, &len);

    work_check(bind(listener, &at.any, len) == 0, "bind");
    work_check(listen(listener, backlog) == 0, "listen");
    work_ready();
    return listener;
}

int work_accept(const struct work *work)
{
    int listener = work_listen(work, 1), fd, one = 1;

    fd = accept(listener, NULL, NULL);
    work_check(fd >= 0, "accept");
    if (!is_unix(work->network))
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
    return fd;
}

static void enlarge(int fd, int bytes, int forced, int polite)
{
    if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, polite, &bytes, sizeof bytes);
}

void work_enlarge(int fd)
{
    enlarge(fd, WORK_SOCKET_BUFFER, SO_SNDBUFFORCE, SO_SNDBUF);
    enlarge(fd, WORK_SOCKET_BUFFER, SO_RCVBUFFORCE, SO_RCVBUF);
}

void work_write(int fd, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;

    while (len > 0) {
        ssize_t n = write(fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        work_check(n > 0, "write");
        at += n;
        len -= (size_t)n;
    }
}

size_t work_read(int fd, void *bytes, size_t least, size_t most)
{
    size_t got = 0;

    do {
        ssize_t n = read(fd, (unsigned char *)bytes + got, most - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        got += (size_t)n;
    } while (got < least);
    return got;
}

/* ---- Messages ---- */

int work_has_messages(const char *network)
{
    return strcmp(network, "udp") == 0 || strcmp(network, "unixgram") == 0 ||
           strcmp(network, "tap") == 0;
}

static int open_tap(const char *interface)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq request;

    work_check(fd >= 0, "tun");
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    work_check(ioctl(fd, TUNSETIFF, &request) == 0, "tap");
    work_wait_running(interface);
    return fd;
}

void work_wait_running(const char *interface)
{
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request;

    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    for (;;) {
        work_check(ioctl(any, SIOCGIFFLAGS, &request) == 0, "flags");
        if (request.ifr_flags & IFF_RUNNING)
            break;
        work_sleep_us(LOOK_US);
    }
    close(any);
    /* The bridge that the TAP is a port of learns of it a moment later. */
    work_sleep_us(SETTLE_US);
}

int work_open_messages(const struct work *work, int sends)
{
    union address address;
    socklen_t len;
    int fd;

    if (strcmp(work->network, "tap") == 0)
        return open_tap(work->address);
    fd = socket_for(work->network, work->address, &address, &len);
    work_check(bind(fd, &address.any, len) == 0, "bind");
    enlarge(fd, WORK_UDP_BUFFER, SO_SNDBUFFORCE, SO_SNDBUF);
    enlarge(fd, WORK_UDP_BUFFER, SO_RCVBUFFORCE, SO_RCVBUF);
    /* A receiver's peer has not bound its path yet, so a Unix socket cannot connect to it. */
    if (sends || !is_unix(work->network)) {
        len = parse_address(work->network, work->to, &address);
        work_check(connect(fd, &address.any, len) == 0, "connect");
    }
    return fd;
}

int work_is_silent(struct work_arrivals *arrivals)
{
    uint64_t got = __atomic_load_n(&arrivals->got, __ATOMIC_RELAXED);
    int silent = got > 0 && got == arrivals->seen;

    arrivals->seen = got;
    return silent;
}

void work_say_arrivals(const struct work_arrivals *arrivals)
{
    work_say("end", arrivals->end);
    work_say("frames", arrivals->got);
}

static void on_alarm(int number)
{
    (void)number;
}

void work_interrupt_silence(void)
{
    struct itimerval timer = {{WORK_SILENCE_S, 0}, {WORK_SILENCE_S, 0}};
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}
