/*
 * links.h - every kind of connection with a plain socket at its other end,
 * every way to send and every way to receive, so that a test can go through
 * all of them.
 */
#ifndef LINKS_H
#define LINKS_H

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "raw.h"

/* How long something that must happen may take before it counts as never. */
static inline int patience_ms(void)
{
    return 10000 * check_slow();
}

/* Waits until `condition` is true; fails if it stays false. It must be free to be evaluated again. */
#define EVENTUALLY(condition)                                                  \
    do {                                                                       \
        long long now_ms_, until_ms_ = raw_now_ms() + patience_ms();           \
        while (now_ms_ = raw_now_ms(), !(condition)) {                         \
            if (now_ms_ >= until_ms_)                                          \
                check_fail(__FILE__, __LINE__, #condition);                    \
            raw_sleep_ms(1);                                                   \
        }                                                                      \
    } while (0)

static inline void *allocate(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);

    CHECK(memory != NULL);
    return memory;
}

static inline void start_thread(pthread_t *thread, void *(*body)(void *), void *argument)
{
    CHECK_INT(pthread_create(thread, NULL, body, argument), 0);
}

static inline void join_thread(pthread_t thread)
{
    CHECK_INT(pthread_join(thread, NULL), 0);
}

/* ---- Frames that say which they are ---- */

/* Fills a frame of 14 bytes or more, the first four of which are its number. */
static inline void frame_make(uint8_t *frame, size_t len, unsigned number)
{
    raw_put_length(frame, number);
    raw_fill(frame + 4, len - 4, number);
}

/* The number of a frame every byte of which is as frame_make() left it. */
static inline unsigned frame_number(const uint8_t *frame, size_t len)
{
    unsigned number;

    CHECK(len >= 14);
    number = (unsigned)frame[0] << 24 | (unsigned)frame[1] << 16
             | (unsigned)frame[2] << 8 | frame[3];
    CHECK(raw_is(frame + 4, len - 4, number));
    return number;
}

/* An endless row of numbered frames whose lengths go round `sizes`. */
struct flow {
    const size_t *sizes;
    size_t kinds;
    unsigned next;
};

/* The lengths that matter: the shortest, Ethernet's, a jumbo frame and both maxima. */
enum { ALL_SIZES = 7 };
static inline struct flow flow_of_all_sizes(void)
{
    static const size_t sizes[ALL_SIZES] = { 14, 15, 60, 1514, 9000, 65535, QNET_FRAME_MAX };
    struct flow flow = { sizes, ALL_SIZES, 0 };

    return flow;
}

/* Many short frames with an ordinary one among them. */
static inline struct flow flow_of_small_frames(void)
{
    static const size_t sizes[] = { 14, 60, 15, 64, 342, 1514, 61 };
    struct flow flow = { sizes, sizeof sizes / sizeof *sizes, 0 };

    return flow;
}

static inline struct flow flow_of_one_size(const size_t *size)
{
    struct flow flow = { size, 1, 0 };

    return flow;
}

static inline size_t flow_size(const struct flow *flow, unsigned number)
{
    return flow->sizes[number % flow->kinds];
}

/* Receives the frame that has to come next. */
static inline void flow_take(struct flow *flow, const uint8_t *frame, size_t len)
{
    CHECK_INT(frame_number(frame, len), flow->next);
    CHECK_INT(len, flow_size(flow, flow->next));
    flow->next++;
}

/* The same for a taker. */
static inline void flow_each(void *flow, const uint8_t *frame, size_t len)
{
    flow_take(flow, frame, len);
}

/* The next frames of a flow, both in wire format and as an array that points into it. */
struct bundle {
    uint8_t *wire;
    size_t len;
    qnet_frame *frames;
    size_t count;
};

static inline struct bundle bundle_make(const struct flow *flow, size_t count)
{
    struct bundle bundle = { NULL, 0, NULL, 0 };
    size_t at = 0, i;

    for (i = 0; i < count; i++)
        bundle.len += RAW_PREFIX + flow_size(flow, flow->next + (unsigned)i);
    bundle.wire = allocate(bundle.len);
    bundle.frames = allocate(count * sizeof *bundle.frames);
    bundle.count = count;
    for (i = 0; i < count; i++) {
        unsigned number = flow->next + (unsigned)i;
        size_t len = flow_size(flow, number);

        raw_put_length(bundle.wire + at, len);
        frame_make(bundle.wire + at + RAW_PREFIX, len, number);
        bundle.frames[i].data = bundle.wire + at + RAW_PREFIX;
        bundle.frames[i].len = len;
        at += RAW_PREFIX + len;
    }
    return bundle;
}

static inline void bundle_free(struct bundle *bundle)
{
    free(bundle->wire);
    free(bundle->frames);
}

/* ---- The plain socket's side ---- */

/* Writes the next `count` frames in writes of `step` bytes; 0: all in one. */
static inline void raw_send_flow(int fd, struct flow *flow, size_t count, size_t step)
{
    struct bundle bundle = bundle_make(flow, count);
    size_t at, part;

    for (at = 0; at < bundle.len; at += part) {
        part = step > 0 && step < bundle.len - at ? step : bundle.len - at;
        raw_write(fd, bundle.wire + at, part);
    }
    flow->next += (unsigned)count;
    bundle_free(&bundle);
}

/* Reads one frame, which must be the next. */
static inline void raw_take(int fd, struct flow *flow)
{
    static __thread uint8_t frame[QNET_FRAME_MAX];
    long len = raw_recv(fd, frame, sizeof frame);

    CHECK(len >= 0);
    flow_take(flow, frame, (size_t)len);
}

static inline void raw_take_until(int fd, struct flow *flow, unsigned end)
{
    while (flow->next != end)
        raw_take(fd, flow);
}

/* Work for the plain socket on a thread of its own. */
struct raw_job {
    pthread_t thread;
    int fd;
    struct flow flow;
    unsigned count;
    size_t step;
    long delay_ms;
};

static inline void *raw_reading(void *argument)
{
    struct raw_job *job = argument;

    raw_sleep_ms(job->delay_ms);
    raw_take_until(job->fd, &job->flow, job->flow.next + job->count);
    return NULL;
}

static inline void *raw_writing(void *argument)
{
    struct raw_job *job = argument;
    unsigned at;

    raw_sleep_ms(job->delay_ms);
    for (at = 0; at < job->count; at += 64) {
        unsigned left = job->count - at;
        raw_send_flow(job->fd, &job->flow, left < 64 ? left : 64, job->step);
    }
    return NULL;
}

static inline void raw_start(struct raw_job *job, void *(*work)(void *), int fd,
                             struct flow flow, unsigned count)
{
    memset(job, 0, sizeof *job);
    job->fd = fd;
    job->flow = flow;
    job->count = count;
    start_thread(&job->thread, work, job);
}

/* ---- Every kind of connection ---- */

struct link_kind {
    const char *name;
    int (*open)(const struct link_kind *kind, qnet_conn **conn); /* the plain socket */
    const char *network;
    int family;
    int abstract;
    int adopted;
    int nonblocking;
};

/* Where a listener of some kind is, for the library and for the system. */
struct place {
    char text[160];
    char directory[80];
    struct sockaddr_storage address;
    socklen_t len;
};

static inline int ipv6_here(void)
{
    struct sockaddr_in6 address;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int here;

    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    here = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return here;
}

/* A new directory for temporary files. */
static inline void make_directory(char *directory, size_t cap)
{
    const char *parent = getenv("TMPDIR");

    if (!parent || strlen(parent) > 50)
        parent = "/tmp";
    snprintf(directory, cap, "%s/qnet-XXXXXX", parent);
    CHECK(mkdtemp(directory) != NULL);
}

/* Whether two text buffers hold the same and `len` is its length. */
static inline int same_text(const char *text, int len, const char *want)
{
    return len == (int)strlen(want) && strcmp(text, want) == 0;
}

/* Writes a socket address as the library does; a Unix one without a name is empty. */
static inline void address_text(const struct sockaddr_storage *address, socklen_t len,
                                char *text, size_t cap)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    size_t name = offsetof(struct sockaddr_un, sun_path);
    char host[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, cap, "%s:%d", host, ntohs(v4->sin_port));
    } else if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, cap, "[%s]:%d", host, ntohs(v6->sin6_port));
    } else if (len <= name) {
        text[0] = '\0';
    } else if (local->sun_path[0] == '\0') {
        snprintf(text, cap, "@%.*s", (int)(len - name - 1), local->sun_path + 1);
    } else {
        snprintf(text, cap, "%.*s", (int)(len - name), local->sun_path);
    }
}

static inline void place_tcp(struct place *place, int family, int port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&place->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&place->address;

    place->address.ss_family = (sa_family_t)family;
    if (family == AF_INET) {
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        v4->sin_port = htons((unsigned short)port);
        place->len = sizeof *v4;
    } else {
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = htons((unsigned short)port);
        place->len = sizeof *v6;
    }
    address_text(&place->address, place->len, place->text, sizeof place->text);
}

static inline void place_make(struct place *place, const struct link_kind *kind)
{
    static int made;

    memset(place, 0, sizeof *place);
    if (kind->family == AF_INET6 && !ipv6_here())
        check_skip("this machine has no IPv6");
    if (kind->family != AF_UNIX) {
        place_tcp(place, kind->family, 0);
        return;
    }
    if (kind->abstract) {
        snprintf(place->text, sizeof place->text, "@qnet-links-%ld-%d", (long)getpid(), made++);
    } else {
        make_directory(place->directory, sizeof place->directory);
        snprintf(place->text, sizeof place->text, "%s/socket", place->directory);
    }
    place->len = raw_unix_address(place->text, (struct sockaddr_un *)&place->address);
}

/* Removes what place_make() made; the socket file must be gone. */
static inline void place_remove(const struct place *place)
{
    if (place->directory[0])
        CHECK(rmdir(place->directory) == 0);
}

/* A plain listening socket; a TCP port is chosen and noted in *place. */
static inline int place_listen(struct place *place)
{
    int family = place->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&place->address, place->len) == 0);
    CHECK(listen(fd, 64) == 0);
    if (family != AF_UNIX) {
        place->len = sizeof place->address;
        CHECK(getsockname(fd, (struct sockaddr *)&place->address, &place->len) == 0);
        address_text(&place->address, place->len, place->text, sizeof place->text);
    }
    return fd;
}

static inline int place_connect(const struct place *place)
{
    int fd = socket(place->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)&place->address, place->len) == 0);
    return fd;
}

/* Accepts one connection, and closes the listening socket. */
static inline int accept_only(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    CHECK(fd >= 0);
    close(listener);
    return fd;
}

static inline int open_dialled(const struct link_kind *kind, qnet_conn **conn)
{
    struct place place;
    int fd;

    place_make(&place, kind);
    fd = place_listen(&place);
    CHECK_INT(qnet_dial(kind->network, place.text, conn), QNET_OK);
    if (place.directory[0])
        CHECK(unlink(place.text) == 0);
    place_remove(&place);
    return accept_only(fd);
}

static inline int open_accepted(const struct link_kind *kind, qnet_conn **conn)
{
    qnet_listener *listener = NULL;
    struct place place;
    char text[160];
    int fd;

    place_make(&place, kind);
    CHECK_INT(qnet_listen(kind->network, place.text, &listener), QNET_OK);
    CHECK(qnet_listener_addr(listener, text, sizeof text) > 0);
    if (kind->family != AF_UNIX)
        place_tcp(&place, kind->family, atoi(strrchr(text, ':') + 1));
    CHECK(strcmp(text, place.text) == 0);
    fd = place_connect(&place);
    CHECK_INT(qnet_accept(listener, patience_ms(), conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    place_remove(&place);
    return fd;
}

static inline int open_socketpair_fd(const struct link_kind *kind, qnet_conn **conn)
{
    int fd = -1;

    (void)kind;
    CHECK_INT(qnet_socketpair_fd(conn, &fd), QNET_OK);
    return fd;
}

/* Two connected plain sockets of the kind's family, without FD_CLOEXEC on the first. */
static inline void plain_pair(const struct link_kind *kind, int pair[2])
{
    struct place place;
    int listener;

    if (kind->family == AF_UNIX) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    } else {
        place_make(&place, kind);
        listener = place_listen(&place);
        pair[0] = place_connect(&place);
        pair[1] = accept_only(listener);
    }
    CHECK(fcntl(pair[0], F_SETFD, 0) == 0);
}

static inline int open_adopted(const struct link_kind *kind, qnet_conn **conn)
{
    int pair[2];

    plain_pair(kind, pair);
    CHECK(fcntl(pair[0], F_SETFL, kind->nonblocking ? O_NONBLOCK : 0) == 0);
    CHECK_INT(qnet_from_fd(pair[0], conn), QNET_OK);
    return pair[1];
}

static const struct link_kind link_kinds[] = {
    { "tcp4 dialled", open_dialled, "tcp4", AF_INET, 0, 0, 0 },
    { "tcp4 accepted", open_accepted, "tcp4", AF_INET, 0, 0, 0 },
    { "tcp6 dialled", open_dialled, "tcp6", AF_INET6, 0, 0, 0 },
    { "tcp6 accepted", open_accepted, "tcp6", AF_INET6, 0, 0, 0 },
    { "tcp adopted", open_adopted, NULL, AF_INET, 0, 1, 0 },
    { "tcp adopted, O_NONBLOCK", open_adopted, NULL, AF_INET, 0, 1, 1 },
    { "unix path dialled", open_dialled, "unix", AF_UNIX, 0, 0, 0 },
    { "unix path accepted", open_accepted, "unix", AF_UNIX, 0, 0, 0 },
    { "unix abstract dialled", open_dialled, "unix", AF_UNIX, 1, 0, 0 },
    { "unix abstract accepted", open_accepted, "unix", AF_UNIX, 1, 0, 0 },
    { "socketpair_fd", open_socketpair_fd, NULL, AF_UNIX, 0, 0, 0 },
    { "socketpair adopted", open_adopted, NULL, AF_UNIX, 0, 1, 0 },
    { "socketpair adopted, O_NONBLOCK", open_adopted, NULL, AF_UNIX, 0, 1, 1 },
};
enum { LINK_KINDS = sizeof link_kinds / sizeof *link_kinds };

/* The kind that the running test is about; see RUN_EACH. */
static const struct link_kind *link_now;

/* A connection of that kind and the plain socket at its other end. */
static inline qnet_conn *link_open(int *fd)
{
    qnet_conn *conn = NULL;

    *fd = link_now->open(link_now, &conn);
    CHECK(conn != NULL);
    CHECK(*fd >= 0);
    set_link_options(conn);
    return conn;
}

/* Runs a test once for every kind of connection, or only for those over TCP. */
static inline void run_each(const char *name, void (*test)(void), int only_tcp)
{
    size_t i;

    for (i = 0; i < LINK_KINDS; i++) {
        if (only_tcp && link_kinds[i].family == AF_UNIX)
            continue;
        link_now = &link_kinds[i];
        run_with(name, link_now->name, test);
    }
}
#define RUN_EACH(test) run_each(#test, test, 0)
#define RUN_EACH_TCP(test) run_each(#test, test, 1)

/* ---- Every way to send ---- */

/* Like qnet_send_batch: how many were taken, an error only if the first was not. */
static inline int send_singly(qnet_conn *conn, const struct bundle *bundle)
{
    size_t i;

    for (i = 0; i < bundle->count; i++) {
        int result = qnet_send(conn, bundle->frames[i].data, bundle->frames[i].len);
        if (result < 0)
            return i > 0 ? (int)i : result;
    }
    return (int)bundle->count;
}

static inline int send_batch(qnet_conn *conn, const struct bundle *bundle)
{
    return qnet_send_batch(conn, bundle->frames, bundle->count);
}

static inline int send_packed(qnet_conn *conn, const struct bundle *bundle)
{
    return qnet_send_packed(conn, bundle->wire, bundle->len);
}

enum { WAYS_TO_SEND = 3 };

static inline int send_by(int way, qnet_conn *conn, const struct bundle *bundle)
{
    static int (*const ways[WAYS_TO_SEND])(qnet_conn *, const struct bundle *) = {
        send_singly, send_batch, send_packed,
    };

    return ways[way](conn, bundle);
}

/* Sends the next `count` frames in one go; `flow` advances by those taken. */
static inline int flow_send(struct flow *flow, qnet_conn *conn, int way, size_t count)
{
    struct bundle bundle = bundle_make(flow, count);
    int taken = send_by(way, conn, &bundle);

    if (taken > 0)
        flow->next += (unsigned)taken;
    bundle_free(&bundle);
    return taken;
}

/* ---- Every way to receive ---- */

enum { BY_RECV, BY_RECV_BATCH, BY_RECV_PACKED, WAYS_TO_PULL,
       BY_HANDLER = WAYS_TO_PULL, BY_BATCH_HANDLER, WAYS_TO_RECEIVE };

/* Receives in one of these ways, and gives every frame to `each`. */
struct taker {
    qnet_conn *conn;
    int way;
    void (*each)(void *argument, const uint8_t *frame, size_t len);
    void *argument;
    pthread_mutex_t lock;
    unsigned frames; /* given so far */
    int ends;        /* how often the close handler ran */
    int reason;      /* what it was told */
};

static inline void ignore_frame(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
}

static inline void taker_frame(void *user, const uint8_t *frame, size_t len)
{
    struct taker *taker = user;

    pthread_mutex_lock(&taker->lock);
    taker->each(taker->argument, frame, len);
    taker->frames++;
    pthread_mutex_unlock(&taker->lock);
}

static inline void taker_batch(void *user, const qnet_frame *frames, size_t count)
{
    size_t i;

    CHECK(count > 0);
    for (i = 0; i < count; i++)
        taker_frame(user, frames[i].data, frames[i].len);
}

static inline void taker_ended(void *user, int reason)
{
    struct taker *taker = user;

    pthread_mutex_lock(&taker->lock);
    taker->ends++;
    taker->reason = reason;
    pthread_mutex_unlock(&taker->lock);
}

static inline unsigned taker_count(struct taker *taker)
{
    unsigned frames;

    pthread_mutex_lock(&taker->lock);
    frames = taker->frames;
    pthread_mutex_unlock(&taker->lock);
    return frames;
}

static inline int taker_ends(struct taker *taker)
{
    int ends;

    pthread_mutex_lock(&taker->lock);
    ends = taker->ends;
    pthread_mutex_unlock(&taker->lock);
    return ends;
}

/* Begins to receive; with a handler, frames come from now on. */
static inline void taker_start(struct taker *taker, qnet_conn *conn, int way,
                               void (*each)(void *, const uint8_t *, size_t), void *argument)
{
    memset(taker, 0, sizeof *taker);
    taker->conn = conn;
    taker->way = way;
    taker->each = each;
    taker->argument = argument;
    CHECK_INT(pthread_mutex_init(&taker->lock, NULL), 0);
    CHECK_INT(qnet_set_close_handler(conn, taker_ended, taker), QNET_OK);
    if (way == BY_HANDLER)
        CHECK_INT(qnet_set_handler(conn, taker_frame, taker), QNET_OK);
    if (way == BY_BATCH_HANDLER)
        CHECK_INT(qnet_set_batch_handler(conn, taker_batch, taker), QNET_OK);
}

/* Gives the frames of a packed buffer to the taker; how many there were. */
static inline int taker_unpack(struct taker *taker, const uint8_t *wire, size_t bytes)
{
    size_t at = 0, len;
    int count = 0;

    while (at < bytes) {
        CHECK(bytes - at >= RAW_PREFIX);
        len = (size_t)wire[at] << 24 | (size_t)wire[at + 1] << 16
              | (size_t)wire[at + 2] << 8 | wire[at + 3];
        at += RAW_PREFIX;
        CHECK(len >= 14 && len <= bytes - at);
        taker_frame(taker, wire + at, len);
        at += len;
        count++;
    }
    return count;
}

/* One receive of a way that pulls: how many frames it gave, or its error. */
static inline int taker_pull(struct taker *taker, int timeout_ms)
{
    static __thread uint8_t buffer[QNET_FRAME_MAX + RAW_PREFIX];
    qnet_frame frames[8];
    int result;

    switch (taker->way) {
    case BY_RECV:
        result = qnet_recv(taker->conn, buffer, sizeof buffer, timeout_ms);
        if (result < 0)
            return result;
        taker_frame(taker, buffer, (size_t)result);
        return 1;
    case BY_RECV_BATCH:
        result = qnet_recv_batch(taker->conn, frames, 8, timeout_ms);
        CHECK(result != 0 && result <= 8);
        if (result > 0)
            taker_batch(taker, frames, (size_t)result);
        return result;
    default:
        result = qnet_recv_packed(taker->conn, buffer, sizeof buffer, timeout_ms);
        CHECK(result != 0 && result <= (int)sizeof buffer);
        return result < 0 ? result : taker_unpack(taker, buffer, (size_t)result);
    }
}

/* Receives until `count` frames in all have come. */
static inline void taker_want(struct taker *taker, unsigned count)
{
    if (taker->way >= WAYS_TO_PULL)
        EVENTUALLY(taker_count(taker) >= count);
    while (taker_count(taker) < count)
        CHECK(taker_pull(taker, patience_ms()) > 0);
    CHECK_INT(taker_count(taker), count);
}

/* Receives until the end: how it was reported, which must be in one voice. */
static inline int taker_end(struct taker *taker)
{
    int result = 1;

    if (taker->way < WAYS_TO_PULL) {
        while (result > 0)
            result = taker_pull(taker, patience_ms());
        CHECK_INT(taker_ends(taker), 1);
        CHECK_INT(taker->reason, result);
    }
    EVENTUALLY(taker_ends(taker) > 0);
    CHECK_INT(qnet_close_reason(taker->conn), taker->reason);
    return taker->reason;
}

/* Closes the connection; by now the close handler has run exactly once. */
static inline void taker_close(struct taker *taker)
{
    CHECK_INT(qnet_close(taker->conn), QNET_OK);
    CHECK_INT(taker_ends(taker), 1);
    pthread_mutex_destroy(&taker->lock);
}

/* ---- Statistics ---- */

static inline qnet_stats stats_of(qnet_conn *conn)
{
    qnet_stats stats;

    CHECK(qnet_get_stats(conn, &stats, sizeof stats) >= (int)sizeof stats);
    return stats;
}

/* How many bytes wait in a socket to be read. */
static inline int bytes_waiting(int fd)
{
    int bytes = -1;

    CHECK(ioctl(fd, FIONREAD, &bytes) == 0);
    return bytes;
}

#endif
