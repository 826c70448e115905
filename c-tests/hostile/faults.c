/*
 * faults.c - what the library makes of a system that fails, or does less than
 * it was asked, at any call. (SQLite is tested so.) Each scenario below runs
 * once undisturbed, with the library's system calls counted (faults/shim.c);
 * then again for every one of those calls and every fault that it can have,
 * each in a process of its own. Interrupted calls, short ones and ones that are
 * to be repeated are never seen by the caller. All others end in success or in
 * a clear error, lose no frame that is not counted or of a connection that has
 * ended, and leave nothing behind; and after that the same process can do the
 * same undisturbed.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <netdb.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "faults/shim.h"
#include "macs.h"

/* A wait for a busy thread may be a thousand calls, all alike: these many of each function count. */
enum { FEW = 5, MANY = 12, AT_ONCE = 8, MOST_SITES = 40 };

/* ---- What can go wrong ---- */

struct fault {
    const char *name;
    int what, times;
    int is_seen; /* whether the caller may be told */
    enum shim_call calls[32];
    size_t kinds;
};

#define OF(...) { __VA_ARGS__ }, sizeof((enum shim_call[]){ __VA_ARGS__ }) / sizeof(enum shim_call)
#define WRITES CALL_send, CALL_sendmsg, CALL_sendmmsg
#define READS CALL_recv, CALL_recvmmsg, CALL_recvmsg
#define INTERRUPTIBLE WRITES, READS, CALL_accept4, CALL_clock_nanosleep, CALL_close,           \
    CALL_connect, CALL_epoll_wait, CALL_flock, CALL_getrandom, CALL_open64, CALL_ppoll,        \
    CALL_read, CALL_write
#define OPENING CALL_accept4, CALL_epoll_create1, CALL_eventfd, CALL_getaddrinfo, CALL_open64, \
    CALL_socket, CALL_socketpair

static const struct fault faults[] = {
    { "EINTR", EINTR, 1, 0, OF(INTERRUPTIBLE) },
    { "EINTR five times", EINTR, 5, 0, OF(INTERRUPTIBLE) },
    { "EAGAIN once", EAGAIN, 1, 0, OF(WRITES, READS, CALL_accept4) },
    { "one byte or message", DO_ONE, 1, 0, OF(WRITES, READS) },
    { "half of it", DO_HALF, 1, 0, OF(WRITES, READS) },
    { "all but one", DO_ALL_BUT_ONE, 1, 0, OF(WRITES, READS) },
    { "ECONNABORTED", ECONNABORTED, 1, 0, OF(CALL_accept4) },
    { "ENOMEM", ENOMEM, 1, 1,
      OF(WRITES, READS, OPENING, CALL_bind, CALL_chmod, CALL_connect, CALL_epoll_ctl,
         CALL_fchmod, CALL_fstatat64, CALL_getcwd, CALL_getpeername, CALL_getsockname,
         CALL_getsockopt, CALL_ioctl, CALL_listen, CALL_madvise, CALL_mmap64, CALL_ppoll,
         CALL_rename, CALL_renameat2, CALL_setsockopt, CALL_unlink) },
    { "ENOBUFS", ENOBUFS, 1, 1,
      OF(WRITES, READS, CALL_accept4, CALL_connect, CALL_getpeername, CALL_getsockname,
         CALL_setsockopt, CALL_socket, CALL_socketpair) },
    { "EMFILE", EMFILE, 1, 1, OF(OPENING) },
    { "ENFILE", ENFILE, 1, 1, OF(OPENING) },
    { "EAGAIN for a thread or port", EAGAIN, 1, 1, OF(CALL_connect, CALL_pthread_create) },
    { "EAGAIN for a lock", EAGAIN, 1, 1, OF(CALL_flock) },
    { "ECONNRESET", ECONNRESET, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "ECONNREFUSED", ECONNREFUSED, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "EPIPE", EPIPE, 1, 1, OF(WRITES) },
    { "EIO", EIO, 1, 1, OF(WRITES, READS, CALL_fstatat64, CALL_open64, CALL_read, CALL_rename, CALL_unlink) },
    { "ETIMEDOUT", ETIMEDOUT, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "EACCES", EACCES, 1, 1,
      OF(CALL_bind, CALL_chmod, CALL_connect, CALL_fchmod, CALL_fstatat64, CALL_getcwd,
         CALL_open64, CALL_rename, CALL_socket, CALL_unlink) },
    { "EPERM", EPERM, 1, 1,
      OF(CALL_accept4, CALL_chmod, CALL_fchmod, CALL_fcntl, CALL_getrandom, CALL_ioctl,
         CALL_madvise, CALL_sched_getaffinity, CALL_setsockopt, CALL_socketpair) },
    { "EADDRINUSE", EADDRINUSE, 1, 1, OF(CALL_bind, CALL_connect, CALL_listen) },
    { "ENOTCONN", ENOTCONN, 1, 1, OF(CALL_shutdown) },
    { "ENOSPC", ENOSPC, 1, 1, OF(CALL_epoll_ctl) },
    { "EAI_AGAIN", EAI_AGAIN, 1, 1, OF(CALL_getaddrinfo) },
    { "EAI_MEMORY", EAI_MEMORY, 1, 1, OF(CALL_getaddrinfo) },
};

/* The fault of this run, if there is one, and where it comes; only then anything may go wrong. */
static const struct fault *fault_now;
static enum shim_call call_now;

static int may_fail(void)
{
    return fault_now && fault_now->is_seen && shim_fired() > 0;
}

/* Whether what fails is how socket files are looked at and removed. */
static int is_of_files(void)
{
    return call_now == CALL_flock || call_now == CALL_fstatat64 || call_now == CALL_rename ||
           call_now == CALL_renameat2 || call_now == CALL_unlink;
}

/* A wait that a signal ended is the caller's to repeat. */
static int was_interrupted(int result)
{
    return result == QNET_ERR_INTERRUPTED && fault_now && fault_now->what == EINTR &&
           shim_fired() > 0;
}

/* Whether a call went well. If not, it has to say so clearly; `attempt` is how its text begins. */
static int went(int result, const char *attempt)
{
    const char *text = qnet_last_error();

    if (result >= 0)
        return 1;
    CHECK(may_fail());
    check_among(result, MAY(QNET_ERR_OS) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_PROTOCOL)
                            | MAY(QNET_ERR_BUSY) | MAY(QNET_ERR_REFUSED)
                            | MAY(QNET_ERR_RESOLVE) | MAY(QNET_ERR_UNSUPPORTED));
    if (strncmp(text, attempt, strlen(attempt)) != 0 || !strstr(text, ": "))
        check_fail(__FILE__, __LINE__, attempt);
    if (result == QNET_ERR_BUSY)
        CHECK(fault_now->what == EADDRINUSE || call_now == CALL_connect || is_of_files());
    if (result == QNET_ERR_RESOLVE)
        CHECK(fault_now->what < 0);
    if (result == QNET_ERR_OS || result == QNET_ERR_REFUSED) {
        /* What closes with bytes unread resets its peer. */
        if (qnet_last_errno() != ECONNRESET)
            CHECK_INT(qnet_last_errno(), fault_now->what);
        CHECK(strstr(text, strerror(qnet_last_errno())) != NULL);
    } else {
        CHECK_INT(qnet_last_errno(), 0);
    }
    return 0;
}

#define TRY(result, call)                                                                      \
    do                                                                                         \
        (result) = (call);                                                                     \
    while (was_interrupted(result))

/* The same for a call that makes something, which is NULL where it fails. */
static int made(int result, const void *handle, const char *attempt)
{
    CHECK((handle != NULL) == (result == QNET_OK));
    return went(result, attempt);
}

/* Removes a place. Where the library was refused that, what it made there is left over. */
static void place_leave(const struct place *place)
{
    DIR *directory = may_fail() && is_of_files() ? opendir(place->directory) : NULL;
    struct dirent *entry;

    while (directory && (entry = readdir(directory)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            CHECK(unlinkat(dirfd(directory), entry->d_name, 0) == 0);
    if (directory)
        closedir(directory);
    place_remove(place);
}

/* ---- Frames both ways ---- */

/* A connection of the library's, the plain socket at its other end, and what went through. */
struct end {
    qnet_conn *conn;
    int fd;
    int has_messages, redials;
    struct flow taken, arrived;   /* from the library */
    struct flow written, received; /* to it */
    unsigned arrivals;
};

static struct end end_of(qnet_conn *conn, int fd)
{
    struct flow flow = flow_of_small_frames();
    struct end end = { conn, fd, 0, 0, flow, flow, flow, flow, 0 };

    return end;
}

/* One frame from the plain socket; its length, or -1 at the stream's end. */
static long plain_recv(const struct end *end, uint8_t *frame, size_t cap)
{
    ssize_t n;

    if (!end->has_messages)
        return raw_recv(end->fd, frame, cap);
    n = recv(end->fd, frame, cap, 0);
    return n > 0 ? (long)n : -1;
}

/* Frames to the library, unless it has hung up. */
static void plain_send(struct end *end, size_t count)
{
    struct bundle bundle = bundle_make(&end->written, count);
    size_t i;

    if (!end->has_messages)
        (void)!send(end->fd, bundle.wire, bundle.len, MSG_NOSIGNAL);
    for (i = 0; end->has_messages && i < count; i++)
        (void)!send(end->fd, bundle.frames[i].data, bundle.frames[i].len, MSG_NOSIGNAL);
    end->written.next += (unsigned)count;
    bundle_free(&bundle);
}

/* Whether each frame that was taken has been written or is counted as lost. */
static int is_settled(const struct end *end)
{
    qnet_stats stats = stats_of(end->conn);

    return stats.tx_frames + stats.tx_dropped == end->taken.next;
}

/* What was taken arrives, once and in order, or is counted as lost; that only after a fault. */
static void check_arrived(struct end *end)
{
    static uint8_t frame[QNET_FRAME_MAX];
    qnet_stats stats;
    unsigned number;
    long len;

    EVENTUALLY(is_settled(end));
    stats = stats_of(end->conn);
    CHECK(stats.tx_dropped == 0 || may_fail());
    for (; end->arrivals < stats.tx_frames; end->arrivals++) {
        CHECK(raw_readable(end->fd, patience_ms()));
        len = plain_recv(end, frame, sizeof frame);
        CHECK(len > 0);
        number = frame_number(frame, (size_t)len);
        CHECK(number >= end->arrived.next);
        CHECK(number == end->arrived.next || stats.tx_dropped > 0);
        end->arrived.next = number;
        flow_take(&end->arrived, frame, (size_t)len);
    }
}

/* Sends frames, again where it failed once; whether that went well. */
static int says(struct end *end, int way)
{
    unsigned until = end->taken.next + FEW;
    int result, failures = 0;

    while (end->taken.next != until && failures < 2) {
        TRY(result, flow_send(&end->taken, end->conn, way, until - end->taken.next));
        if (!went(result, "send"))
            failures++;
    }
    if (failures < 2) {
        TRY(result, qnet_flush(end->conn));
        went(result, "flush");
    }
    check_arrived(end);
    return failures < 2;
}

/* One receive; QNET_ERR_TIMEOUT where a fault may have lost what was to come. */
static int pull(struct taker *taker, int may_be_lost)
{
    long long until_ms = raw_now_ms() + patience_ms();
    int result;

    do
        TRY(result, taker_pull(taker, 50));
    while (result == QNET_ERR_TIMEOUT && !(may_be_lost && may_fail()) &&
           raw_now_ms() < until_ms);
    return result;
}

/* Receives what the plain socket sends. A failure that is not the end has taken nothing. */
static int hears(struct end *end, int way)
{
    struct taker taker;
    int result, failures = 0;

    taker_start(&taker, end->conn, way, flow_each, &end->received);
    plain_send(end, FEW);
    while (end->received.next != end->written.next && failures < 2) {
        result = pull(&taker, end->redials);
        if (result == QNET_ERR_TIMEOUT && end->redials)
            break; /* it has another peer by now */
        failures += !went(result, "receive");
    }
    CHECK_INT(qnet_set_close_handler(end->conn, NULL, NULL), QNET_OK);
    CHECK(failures < 2 || qnet_close_reason(end->conn) != QNET_OK);
    return end->received.next == end->written.next;
}

/* Closes. A part of a frame may be all that a failed connection has left to come. */
static void finish(struct end *end)
{
    uint8_t byte;

    CHECK_INT(qnet_close(end->conn), QNET_OK);
    if (!end->has_messages) {
        CHECK(raw_readable(end->fd, patience_ms()));
        CHECK_INT(plain_recv(end, &byte, 1), -1);
    }
    CHECK(close(end->fd) == 0);
}

/* All ways to send and to pull. */
static void talk(struct end *end)
{
    int way, goes_on = 1;

    for (way = 0; goes_on && way < WAYS_TO_SEND; way++)
        goes_on = says(end, way);
    for (way = 0; goes_on && way < WAYS_TO_PULL; way++)
        goes_on = hears(end, way);
    finish(end);
}

static void talk_briefly(qnet_conn *conn, int fd)
{
    struct end end = end_of(conn, fd);

    if (says(&end, 1))
        hears(&end, BY_RECV);
    finish(&end);
}

/* A connection that was made without faults. */
static qnet_conn *sound_pair(int *fd)
{
    qnet_conn *conn;

    shim_pause(1);
    conn = raw_pair(fd);
    shim_pause(0);
    return conn;
}

/* ---- The scenarios ---- */

static void pair_fd(void)
{
    qnet_conn *conn = NULL;
    int fd = -1, result;
    struct end end;

    TRY(result, qnet_socketpair_fd(&conn, &fd));
    CHECK((fd >= 0) == (conn != NULL));
    if (!made(result, conn, "make a socket pair"))
        return;
    end = end_of(conn, fd);
    talk(&end);
}

static void pair(void)
{
    uint8_t frame[60000];
    qnet_conn *a = NULL, *b = NULL;
    int result;

    TRY(result, qnet_socketpair(&a, &b));
    CHECK((a != NULL) == (b != NULL));
    if (!made(result, a, "make a socket pair"))
        return;
    frame_make(frame, sizeof frame, 7);
    TRY(result, qnet_send(a, frame, sizeof frame));
    if (went(result, "send")) {
        TRY(result, qnet_recv(b, frame, sizeof frame, patience_ms()));
        if (went(result, "receive"))
            CHECK_INT(frame_number(frame, (size_t)result), 7);
    }
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
}

static void adopted(const struct link_kind *kind)
{
    qnet_conn *conn = NULL;
    int plain[2], result;

    plain_pair(kind, plain);
    TRY(result, qnet_from_fd(plain[0], &conn));
    if (made(result, conn, "make a connection")) {
        talk_briefly(conn, plain[1]);
        return;
    }
    CHECK(close(plain[0]) == 0); /* the caller's still */
    CHECK(close(plain[1]) == 0);
}

static void adopted_unix(void)
{
    static const struct link_kind kind = { .family = AF_UNIX };

    adopted(&kind);
}

static void adopted_tcp(void)
{
    static const struct link_kind kind = { .family = AF_INET };

    adopted(&kind);
}

static void dials(const char *network, int family, int abstract, const char *host)
{
    struct link_kind kind = { .family = family, .abstract = abstract };
    qnet_conn *conn = NULL;
    struct place place;
    char address[200];
    int listener, result;

    place_make(&place, &kind);
    listener = place_listen(&place);
    snprintf(address, sizeof address, "%s%s", host,
             host[0] ? strrchr(place.text, ':') : place.text);
    while (was_interrupted(result = qnet_dial(network, address, &conn)))
        if (raw_readable(listener, family == AF_INET && call_now == CALL_ppoll ? 100 : 0))
            close(accept4(listener, NULL, NULL, SOCK_CLOEXEC)); /* that had been enough */
    if (made(result, conn, "dial"))
        talk_briefly(conn, accept_only(listener));
    else
        close(listener);
    if (place.directory[0])
        CHECK(unlink(place.text) == 0);
    place_remove(&place);
}

static void dial_path(void)
{
    dials("unix", AF_UNIX, 0, "");
}

static void dial_abstract(void)
{
    dials("unix", AF_UNIX, 1, "");
}

static void dial_tcp(void)
{
    dials("tcp", AF_INET, 0, "");
}

static void dial_name(void)
{
    dials("tcp4", AF_INET, 0, "localhost");
}

static void listens_at(struct place *place, const char *network, int family)
{
    qnet_listener *listener = NULL;
    qnet_conn *conn = NULL;
    char text[160];
    int fd, result;

    TRY(result, qnet_listen(network, place->text, &listener));
    if (!made(result, listener, "listen"))
        return;
    CHECK(qnet_listener_addr(listener, text, sizeof text) > 0);
    if (family == AF_INET)
        place_tcp(place, family, atoi(strrchr(text, ':') + 1));
    fd = place_connect(place);
    TRY(result, qnet_accept(listener, patience_ms(), &conn));
    if (made(result, conn, "accept"))
        talk_briefly(conn, fd);
    else
        close(fd);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void listens(const char *network, int family, int abstract)
{
    struct link_kind kind = { .family = family, .abstract = abstract };
    struct place place;

    place_make(&place, &kind);
    listens_at(&place, network, family);
    place_leave(&place);
}

static void listen_path(void)
{
    listens("unix", AF_UNIX, 0);
}

/* The dead file stays where nothing can be put in its place. */
static void listen_dead_path(void)
{
    static const struct link_kind kind = { .family = AF_UNIX };
    struct place place;

    place_make(&place, &kind);
    close(place_listen(&place));
    umask(0777);
    listens_at(&place, "unix", AF_UNIX);
    if (may_fail())
        unlink(place.text);
    place_leave(&place);
}

static void listen_abstract(void)
{
    listens("unix", AF_UNIX, 1);
}

static void listen_tcp(void)
{
    listens("tcp", AF_INET, 0);
}

/* A handler that answers each frame with one of its own. */
struct responder {
    struct end end;
    struct taker taker;
};

static void respond(void *user, const uint8_t *frame, size_t len)
{
    struct responder *responder = user;
    int result;

    flow_take(&responder->end.received, frame, len);
    TRY(result, flow_send(&responder->end.taken, responder->end.conn, 0, 1));
    went(result, "send");
}

static int is_over(struct responder *responder, unsigned frames)
{
    return taker_count(&responder->taker) >= frames || taker_ends(&responder->taker) > 0;
}

static void handles(int way)
{
    struct responder responder;
    qnet_conn *conn;
    int fd, result;

    conn = sound_pair(&fd);
    responder.end = end_of(conn, fd);
    taker_start(&responder.taker, conn, BY_RECV, respond, &responder);
    plain_send(&responder.end, MANY);
    if (way == BY_HANDLER)
        TRY(result, qnet_set_handler(conn, taker_frame, &responder.taker));
    else
        TRY(result, qnet_set_batch_handler(conn, taker_batch, &responder.taker));
    if (went(result, "set a")) {
        EVENTUALLY(is_over(&responder, MANY));
        CHECK(taker_ends(&responder.taker) == 0 || may_fail());
        CHECK_INT(qnet_set_handler(conn, NULL, NULL), qnet_close_reason(conn));
        check_arrived(&responder.end);
    }
    finish(&responder.end);
    CHECK_INT(taker_ends(&responder.taker), 1);
}

static void handler(void)
{
    handles(BY_HANDLER);
}

static void batch_handler(void)
{
    handles(BY_BATCH_HANDLER);
}

/* Sends that wait for others to join them, and closing while some do. */
static void coalesced(void)
{
    struct end end;
    int fd, i, result = 0;
    qnet_conn *conn = sound_pair(&fd);

    end = end_of(conn, fd);
    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 20000), QNET_OK);
    if (!says(&end, 0)) {
        finish(&end);
        return;
    }
    for (i = 0; i < FEW && result >= 0; i++) {
        TRY(result, flow_send(&end.taken, conn, 0, 1));
        went(result, "send");
    }
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    check_arrived(&end);
    finish(&end);
}

/* Reads on a thread of its own, while the library ends, until it has; what comes is in order. */
static void *reading_in_order(void *argument)
{
    struct end *end = argument;
    static uint8_t frame[QNET_FRAME_MAX];
    long len;

    while ((len = plain_recv(end, frame, sizeof frame)) >= 0) {
        flow_take(&end->arrived, frame, (size_t)len);
        end->arrivals++;
    }
    return NULL;
}

/* Ends with more taken than the socket holds, while the peer is about to write as much. */
static void ends_busy(int (*finally)(qnet_conn *conn))
{
    static const size_t size = 60000;
    struct raw_job writer;
    pthread_t reader;
    struct end end;
    int fd, result;
    qnet_conn *conn = sound_pair(&fd);

    end = end_of(conn, fd);
    end.taken = end.arrived = flow_of_one_size(&size);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do
        TRY(result, flow_send(&end.taken, conn, 0, 1));
    while (result > 0);
    if (result != QNET_ERR_AGAIN)
        went(result, "send");
    raw_start(&writer, writing_until_the_end, fd, flow_of_one_size(&size), 20);
    start_thread(&reader, reading_in_order, &end);
    CHECK_INT(finally(conn), QNET_OK);
    join_thread(reader);
    join_thread(writer.thread);
    CHECK(end.arrivals == end.taken.next || may_fail());
    CHECK(end.arrivals <= end.taken.next);
    if (finally != qnet_close)
        CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void close_busy(void)
{
    ends_busy(qnet_close);
}

static void shutdown_busy(void)
{
    ends_busy(qnet_shutdown);
}

/* Whether something comes to be read; where a fault may have lost it, that is not waited for long. */
static int comes(const struct end *end, int may_be_lost)
{
    long long until_ms = raw_now_ms() + patience_ms();

    while (!raw_readable(end->fd, 50)) {
        if (may_be_lost && may_fail())
            return 0;
        CHECK(raw_now_ms() < until_ms);
    }
    return 1;
}

/* Takes what comes through to there, until the end, which comes early only after a fault. */
static void plain_takes(struct end *end, unsigned until, int may_be_lost)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long len = 0;

    while (len >= 0 && end->arrived.next != until && comes(end, may_be_lost)) {
        len = plain_recv(end, frame, sizeof frame);
        if (len >= 0)
            flow_take(&end->arrived, frame, (size_t)len);
    }
    CHECK(end->arrived.next == until || may_fail());
}

static void cable(void)
{
    struct end a, b;
    int fds[2], result;
    qnet_conn *conns[2];

    conns[0] = sound_pair(&fds[0]);
    conns[1] = sound_pair(&fds[1]);
    a = end_of(conns[0], fds[0]);
    b = end_of(conns[1], fds[1]);
    TRY(result, qnet_link(a.conn, b.conn));
    if (went(result, "link")) {
        plain_send(&a, MANY);
        plain_takes(&b, MANY, 0);
        plain_send(&b, MANY);
        plain_takes(&a, MANY, 0);
    }
    finish(&a);
    finish(&b);
}

/* A switch with two ports of the program's own, and somebody who comes by a listener. */
static void hub(void)
{
    static const struct link_kind kind = { .family = AF_UNIX };
    qnet_conn *ports[2] = { NULL, NULL };
    qnet_listener *listener = NULL;
    struct flow sent = flow_of_small_frames();
    struct end outside = end_of(NULL, -1);
    qnet_hub *hub = NULL;
    struct place place;
    int i, result, is_up = 1;

    place_make(&place, &kind);
    shim_pause(1);
    CHECK_INT(qnet_listen("unix", place.text, &listener), QNET_OK);
    shim_pause(0);
    TRY(result, qnet_hub_new(&hub));
    CHECK_INT(result, QNET_OK);
    for (i = 0; i < 2 && is_up; i++) {
        TRY(result, qnet_hub_port(hub, &ports[i]));
        is_up = made(result, ports[i], "make a port");
    }
    TRY(result, qnet_hub_serve(hub, listener));
    is_up = went(result, "serve") && is_up;
    if (is_up) {
        outside.fd = place_connect(&place);
        EVENTUALLY(qnet_hub_ports(hub, NULL, 0) == 3 || may_fail());
        is_up = !may_fail();
    }
    if (is_up) {
        struct end end = end_of(ports[1], -1);
        struct taker taker;
        int failures = 0;

        while (sent.next != FEW && failures < 2) {
            TRY(result, flow_send(&sent, ports[0], 0, FEW - sent.next));
            failures += !went(result, "send");
        }
        if (failures == 0)
            plain_takes(&outside, FEW, 1);
        taker_start(&taker, ports[1], BY_RECV, flow_each, &end.received);
        while (failures == 0 && end.received.next != FEW) {
            result = pull(&taker, 1);
            failures += result == QNET_ERR_TIMEOUT && may_fail() ? 1 : !went(result, "receive");
        }
        CHECK_INT(qnet_set_close_handler(ports[1], NULL, NULL), QNET_OK);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    if (qnet_listener_close(listener) != QNET_OK)
        CHECK(is_up || may_fail());
    for (i = 0; i < 2; i++)
        if (ports[i])
            CHECK_INT(qnet_close(ports[i]), QNET_OK);
    if (outside.fd >= 0)
        CHECK(close(outside.fd) == 0);
    place_leave(&place);
}

/* A connection that is dialled again after its peer has left. */
static void reconnecting(void)
{
    static const struct link_kind kind = { .family = AF_UNIX };
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1 };
    qnet_conn *conn = NULL;
    struct place place;
    int listener, result, round, heard = 0;

    place_make(&place, &kind);
    listener = place_listen(&place);
    TRY(result, qnet_dial_with("unix", place.text, options, 1, &conn));
    if (made(result, conn, "dial")) {
        result = qnet_fd(conn);
        if (went(result, "tell the descriptor"))
            CHECK(result >= 0);
        for (round = 0; heard < 2 && round < 10; round++) {
            struct end end;

            EVENTUALLY(raw_readable(listener, 0) || qnet_close_reason(conn) != QNET_OK);
            if (qnet_close_reason(conn) != QNET_OK)
                break;
            end = end_of(conn, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
            end.redials = 1;
            heard += hears(&end, BY_RECV);
            close(end.fd);
        }
        CHECK(heard == 2 || (may_fail() && qnet_close_reason(conn) != QNET_OK));
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
    close(listener);
    CHECK(unlink(place.text) == 0);
    place_leave(&place);
}

/* Frames as messages, both ways. */
static void talk_in_messages(qnet_conn *conn, int fd)
{
    struct end end = end_of(conn, fd);

    end.has_messages = 1;
    talk(&end);
}

static void adopted_messages(int type)
{
    qnet_conn *conn = NULL;
    int plain[2], result;

    CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, plain) == 0);
    TRY(result, qnet_from_fd(plain[0], &conn));
    if (made(result, conn, "make a connection")) {
        talk_in_messages(conn, plain[1]);
        return;
    }
    CHECK(close(plain[0]) == 0);
    CHECK(close(plain[1]) == 0);
}

static void datagram_pair(void)
{
    adopted_messages(SOCK_DGRAM);
}

static void seqpacket(void)
{
    adopted_messages(SOCK_SEQPACKET);
}

static void udp(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;
    qnet_conn *conn = NULL;
    char remote[40], local[40];

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    snprintf(remote, sizeof remote, "127.0.0.1:%d", ntohs(address.sin_port));
    TRY(result, qnet_dgram("udp", "127.0.0.1:0", remote, &conn));
    if (!made(result, conn, "open")) {
        close(fd);
        return;
    }
    result = qnet_local_addr(conn, local, sizeof local);
    if (result == 0) { /* the socket would not tell its name */
        CHECK(may_fail());
        CHECK_INT(qnet_close(conn), QNET_OK);
        close(fd);
        return;
    }
    address.sin_port = htons((unsigned short)atoi(strrchr(local, ':') + 1));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    talk_in_messages(conn, fd);
}

static void unixgram(void)
{
    static const struct link_kind kind = { .family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;
    struct place here, there;
    qnet_conn *conn = NULL;

    place_make(&here, &kind);
    place_make(&there, &kind);
    CHECK(bind(fd, (struct sockaddr *)&there.address, there.len) == 0);
    TRY(result, qnet_dgram("unixgram", here.text, there.text, &conn));
    if (made(result, conn, "open")) {
        CHECK(connect(fd, (struct sockaddr *)&here.address, here.len) == 0);
        talk_in_messages(conn, fd);
    } else {
        close(fd);
    }
    CHECK(unlink(there.text) == 0);
    place_leave(&here);
    place_remove(&there);
}

/* What else asks the system: options, and waits. */
static void asks(void)
{
    static const int options[] = { QNET_OPT_SNDBUF, QNET_OPT_RCVBUF };
    int fd, i, result;
    qnet_conn *conn = sound_pair(&fd);
    struct end end = end_of(conn, fd);
    uint8_t ready = 0;
    int64_t value;

    for (i = 0; i < 2; i++) {
        TRY(result, qnet_set(conn, options[i], 100000));
        if (went(result, "set an option")) {
            TRY(result, qnet_get(conn, options[i], &value));
            if (went(result, "get an option"))
                CHECK_INT(value, 100000);
        }
    }
    TRY(result, qnet_poll(&conn, &ready, 1, 1));
    if (went(result, "poll") && !may_fail())
        CHECK_INT(result, 0);
    TRY(result, qnet_wait(conn, 1));
    if (result != QNET_ERR_TIMEOUT)
        CHECK(!went(result, "wait") || may_fail());
    plain_send(&end, 1);
    TRY(result, qnet_poll(&conn, &ready, 1, patience_ms()));
    if (went(result, "poll"))
        CHECK_INT(ready, 1);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    TRY(result, qnet_wait(conn, patience_ms()));
    went(result, "wait");
    finish(&end);
}

/* ---- Running them ---- */

struct scenario {
    const char *name;
    void (*play)(void);
};

#define SCENARIO(function) { #function, function }
static const struct scenario scenarios[] = {
    SCENARIO(pair), SCENARIO(pair_fd), SCENARIO(adopted_unix), SCENARIO(adopted_tcp),
    SCENARIO(dial_path), SCENARIO(dial_abstract), SCENARIO(dial_tcp), SCENARIO(dial_name),
    SCENARIO(listen_path), SCENARIO(listen_dead_path), SCENARIO(listen_abstract),
    SCENARIO(listen_tcp), SCENARIO(handler), SCENARIO(batch_handler), SCENARIO(coalesced),
    SCENARIO(close_busy), SCENARIO(shutdown_busy), SCENARIO(cable), SCENARIO(hub), SCENARIO(reconnecting),
    SCENARIO(datagram_pair), SCENARIO(seqpacket), SCENARIO(udp), SCENARIO(unixgram),
    SCENARIO(asks),
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios, KINDS = sizeof faults / sizeof *faults };

static const struct scenario *scenario_now;
static const struct fault *fault_next;

/* What the undisturbed run's process tells the others: how many calls of each function there were. */
static int (*calls)[SHIM_KINDS];

static void play(const struct fault *fault, const struct shim_plan *plan)
{
    fault_now = fault;
    call_now = plan ? plan->call : SHIM_KINDS;
    shim_begin(plan);
    scenario_now->play();
    fault_now = NULL;
}

/* The scenario with one fault, and without; what is then held of memory. */
static long suffer(const struct shim_plan *plan, struct footprint before)
{
    play(fault_next, plan);
    play(NULL, NULL);
    footprint_again(before);
    return shim_memory();
}

/* What is lost each time is a leak; what is not is kept for later. */
static void suffer_often(const struct shim_plan *plan)
{
    struct footprint before = footprint_now();
    long memory = suffer(plan, before), now;
    int more;

    for (more = 0; more < 4; more++) {
        now = suffer(plan, before);
        if (now <= memory)
            return;
        memory = now;
    }
    CHECK(!"memory is lost each time");
}

static void undisturbed(void)
{
    play(NULL, NULL);
}

/* Whichever tests run, in a process of its own; one that fails is the next test. */
static void count_calls(void)
{
    pid_t pid;
    int call;

    memset(calls, 0, sizeof *calls);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm((unsigned)(CHECK_SECONDS * check_slow()));
        undisturbed();
        for (call = 0; call < SHIM_KINDS; call++)
            (*calls)[call] = shim_count((enum shim_call)call);
        exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* A process in which the fault of this test comes at one call. */
struct job {
    pid_t pid;
    struct shim_plan plan;
};

static void job_start(struct job *job, enum shim_call call, int n)
{
    struct shim_plan plan = { call, n, fault_next->times, fault_next->what };

    job->plan = plan;
    job->pid = fork();
    CHECK(job->pid >= 0);
    if (job->pid > 0)
        return;
    alarm((unsigned)(20 * check_slow()));
    suffer_often(&plan);
    exit(0);
}

/* Waits for one of them, which leaves the array; whether all was well. */
static int job_end(struct job *jobs, int *running)
{
    int status, i = 0;
    pid_t pid = wait(&status);

    while (jobs[i].pid != pid)
        i++;
    if (status != 0)
        fprintf(stderr, "^ %s: %s at call %d of %s%s\n", scenario_now->name, fault_next->name,
                jobs[i].plan.first, shim_name(jobs[i].plan.call),
                !WIFSIGNALED(status) ? "" : WTERMSIG(status) == SIGALRM ? " (hung)" : " (crashed)");
    jobs[i] = jobs[--*running];
    return status == 0;
}

static void each_call_suffers(void)
{
    struct job jobs[AT_ONCE];
    int running = 0, failures = 0, n;
    size_t i;

    alarm(0); /* each job has its own */
    for (i = 0; i < fault_next->kinds; i++)
        for (n = 0; n < (*calls)[fault_next->calls[i]] && n < MOST_SITES; n++) {
            if (running == AT_ONCE)
                failures += !job_end(jobs, &running);
            job_start(&jobs[running++], fault_next->calls[i], n);
        }
    while (running > 0)
        failures += !job_end(jobs, &running);
    CHECK_INT(failures, 0);
}

/* ---- A few tests more ---- */

/* The system has no memory for any write for a while, though sockets have room: that is waited out, by
 * nobody that is busy with it. */
enum { SHORT_MS = 300, SHORT_MOST = 1000, LONG_ROW = 1000 };

static void shortage_begins(enum shim_call call)
{
    struct shim_plan plan = { call, 0, INT_MAX, ENOBUFS };

    shim_begin(&plan);
}

static void shortage_ends(enum shim_call call)
{
    int tried = shim_count(call);

    shim_begin(NULL);
    CHECK(tried > 0 && tried < SHORT_MOST);
}

/* A connection that has written a part of a frame, of which the peer has read what came. */
static qnet_conn *with_half_a_frame(int *fd, uint8_t *wire, size_t *begun)
{
    static uint8_t frame[60000];
    qnet_conn *conn = raw_pair(fd);
    ssize_t n;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 10000), QNET_OK);
    frame_make(frame, sizeof frame, 1);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    shortage_begins(CALL_send);
    for (*begun = 0; (n = recv(*fd, wire + *begun, 70000, MSG_DONTWAIT)) > 0;)
        *begun += (size_t)n;
    return conn;
}

static void the_rest_comes(int fd, uint8_t *wire, size_t begun)
{
    CHECK(recv(fd, wire + begun, RAW_PREFIX + 60000 - begun, MSG_WAITALL) ==
          (ssize_t)(RAW_PREFIX + 60000 - begun));
    CHECK_INT(frame_number(wire + RAW_PREFIX, 60000), 1);
}

static void short_of_memory_to_flush(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, SHORT_MS), QNET_OK);
    CHECK_INT(qnet_flush(conn), QNET_ERR_TIMEOUT);
    shortage_ends(CALL_send);
    the_rest_comes(fd, wire, begun);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* The library's own thread has nothing else to do. */
static void short_of_memory_afterwards(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    raw_sleep_ms(SHORT_MS);
    shortage_ends(CALL_send);
    the_rest_comes(fd, wire, begun);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void short_of_memory_to_close(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, SHORT_MS), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    shortage_ends(CALL_send);
    CHECK(close(fd) == 0);
}

/* On a hub, and with a link, where the loop waits. */
static void short_of_memory_to_forward(void)
{
    struct device a, b;
    qnet_hub *hub;
    int round;

    for (round = 0; round < 2; round++) {
        device_open(&a, 1);
        device_open(&b, 2);
        if (round == 0) {
            CHECK_INT(qnet_hub_new(&hub), QNET_OK);
            CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
            CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
        } else {
            CHECK_INT(qnet_link(a.conn, b.conn), QNET_OK);
        }
        shortage_begins(CALL_send);
        device_says(&a, EVERYBODY, 600);
        raw_sleep_ms(SHORT_MS);
        CHECK(shim_count(CALL_epoll_wait) < SHORT_MOST);
        shortage_ends(CALL_send);
        device_hears(&b, &a, EVERYBODY);
        if (round == 0)
            CHECK_INT(qnet_hub_close(hub), QNET_OK);
        device_close(&a);
        device_close(&b);
    }
}

/* A side of a link that is to be read again, and cannot be put into the loop's set for a while. */
static void short_of_memory_to_read_on(void)
{
    static const size_t size = 9000;
    struct flow flow = flow_of_one_size(&size), received = flow;
    struct device a, b;
    struct raw_job writer;

    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_link(a.conn, b.conn), QNET_OK);
    raw_start(&writer, raw_writing, a.fd, flow, LONG_ROW);
    EVENTUALLY(raw_is_held(a.fd));
    shortage_begins(CALL_epoll_ctl);
    while (raw_readable(b.fd, SHORT_MS))
        raw_take(b.fd, &received);
    CHECK(shim_count(CALL_epoll_wait) < SHORT_MOST);
    CHECK(shim_fired() > 0);
    shortage_ends(CALL_epoll_ctl);
    raw_take_until(b.fd, &received, LONG_ROW);
    join_thread(writer.thread);
    device_close(&a);
    device_close(&b);
}

/* A datagram is lost when that lasts, and counted; of SEQPACKET nothing was taken. */
static void short_of_memory_for_a_message(void)
{
    static const int types[] = { SOCK_DGRAM, SOCK_SEQPACKET };
    uint8_t frame[60] = { 0 };
    qnet_conn *conn;
    int plain[2], i;

    for (i = 0; i < 2; i++) {
        CHECK(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, plain) == 0);
        CHECK_INT(qnet_from_fd(plain[0], &conn), QNET_OK);
        shortage_begins(CALL_sendmmsg);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), i == 0 ? QNET_OK : QNET_ERR_OS);
        shortage_ends(CALL_sendmmsg);
        CHECK_INT(stats_of(conn).tx_dropped, i == 0);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK_INT(recv(plain[1], frame, sizeof frame, 0), sizeof frame);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(close(plain[1]) == 0);
    }
}

/* Reads and writes that each do a few bytes, whatever was asked, for every number of them. */
static void short_of_every_size(void)
{
    static const enum shim_call moving[] = { CALL_recv, CALL_send };
    static const struct scenario short_frames = SCENARIO(adopted_unix);
    static const struct fault fault = { .name = "short" };
    struct footprint before = footprint_now();
    int most;
    size_t i;

    scenario_now = &short_frames;
    for (most = 1; most <= rounds(200); most++)
        for (i = 0; i < sizeof moving / sizeof *moving; i++) {
            struct shim_plan plan = { moving[i], 0, INT_MAX, DO_AT_MOST - most };

            play(&fault, &plan);
            CHECK(shim_fired() > 0);
        }
    footprint_again(before);
}

/* What cannot fail, or is of no consequence: memory and text, the thread itself, the time, what Rust
 * asks only to print where it panicked, and what glibc's headers make of a name lookup's end. */
static const char *const harmless[] = {
    "_ITM_", "_Unwind_", "__cxa_", "__errno_location", "__gmon_start__", "__res_init",
    "__tls_get_addr", "__xpg_strerror_r", "abort", "bcmp", "clock_gettime", "dl_iterate_phdr",
    "dlsym", "freeaddrinfo", "fstat64", "gai_strerror", "getenv", "geteuid", "gettid",
    "gnu_get_libc_version", "lseek64", "memcmp", "memcpy", "memmove", "memset", "posix_madvise",
    "pthread_detach", "pthread_key_", "pthread_self", "pthread_set", "pthread_sigmask", "readlink",
    "realpath", "sched_yield", "sigdelset", "sigfillset", "stat64", "statx", "strlen", "sysconf",
    "writev",
};

static int is_harmless(const char *name)
{
    size_t i;

    for (i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strncmp(name, harmless[i], strlen(harmless[i])) == 0)
            return 1;
    return 0;
}

/* Whether this program defines the function itself. */
static int is_ours(const char *name)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    Dl_info here, there;

    CHECK(dladdr(scenarios, &here) != 0);
    return found && dladdr(found, &there) != 0 && there.dli_fbase == here.dli_fbase;
}

/* No function that the library begins to use is forgotten here. */
static void every_import_is_known(void)
{
    char command[300], name[100];
    int imports = 0, unknown = 0;
    FILE *nm;

    snprintf(command, sizeof command, "nm -D --undefined-only '%s'", QNET_LIBRARY);
    nm = popen(command, "r");
    CHECK(nm != NULL);
    while (fscanf(nm, " %*c %99[^@\n]%*[^\n]", name) == 1) {
        imports++;
        if (!is_ours(name) && !is_harmless(name)) {
            fprintf(stderr, "neither in shim.c nor harmless: %s\n", name);
            unknown++;
        }
    }
    CHECK_INT(pclose(nm), 0);
    CHECK(imports > 50);
    CHECK_INT(unknown, 0);
}

int main(void)
{
    size_t i, kind;
    int sites;

    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED)
        return 2;
    for (i = 0; i < SCENARIOS; i++) {
        char name[80];

        scenario_now = &scenarios[i];
        count_calls();
        run(scenario_now->name, undisturbed);
        for (fault_next = faults; fault_next < faults + KINDS; fault_next++) {
            for (sites = 0, kind = 0; kind < fault_next->kinds; kind++)
                sites += (*calls)[fault_next->calls[kind]];
            snprintf(name, sizeof name, "%s: %s", scenario_now->name, fault_next->name);
            if (sites > 0)
                run(name, each_call_suffers);
        }
    }
    RUN(short_of_memory_to_flush);
    RUN(short_of_memory_afterwards);
    RUN(short_of_memory_to_close);
    RUN(short_of_memory_to_forward);
    RUN(short_of_memory_to_read_on);
    RUN(short_of_memory_for_a_message);
    RUN(short_of_every_size);
    RUN(every_import_is_known);
    return check_done();
}
