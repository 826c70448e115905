/*
 * scenarios.h - what a program may do with the library, in which every system
 * call is made to fail once.
 */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include <sys/stat.h>

#include "../../capture/shown.h"
#include "hubs.h"

enum { MANY = 12 };

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
    CHECK(close(plain[0]) == 0); /* what was not adopted is still the caller's */
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
            close(accept4(listener, NULL, NULL, SOCK_CLOEXEC)); /* it had connected already */
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

/* A file that a dead listener left stays where no other can be put in its place. */
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
    int result;

    responder.end = sound_end();
    conn = responder.end.conn;
    taker_start(&responder.taker, conn, BY_RECV, respond, &responder);
    plain_send(&responder.end, MANY);
    if (way == BY_HANDLER)
        TRY(result, qnet_set_handler(conn, taker_frame, &responder.taker));
    else
        TRY(result, qnet_set_batch_handler(conn, taker_batch, &responder.taker));
    if (went(result, "set a")) {
        EVENTUALLY(is_over(&responder, MANY));
        CHECK(taker_ends(&responder.taker) == 0 || may_fail());
        /* After a failed send the connection may end at any time. */
        result = qnet_set_handler(conn, NULL, NULL);
        CHECK(result == QNET_OK || result == qnet_close_reason(conn));
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

/* Sends that are held for others to join them, and a shutdown while some are. */
static void coalesced(void)
{
    struct end end = sound_end();
    qnet_conn *conn = end.conn;
    int i, result = 0;

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

/* Reads until the end, on a thread of its own; the frames are in order. */
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
    struct end end = sound_end();
    qnet_conn *conn = end.conn;
    int result;

    end.taken = end.arrived = flow_of_one_size(&size);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    do
        TRY(result, flow_send(&end.taken, conn, 0, 1));
    while (result > 0);
    if (result != QNET_ERR_AGAIN)
        went(result, "send");
    raw_start(&writer, writing_until_the_end, end.fd, flow_of_one_size(&size), 20);
    start_thread(&reader, reading_in_order, &end);
    CHECK_INT(finally(conn), QNET_OK);
    join_thread(reader);
    join_thread(writer.thread);
    CHECK(end.arrivals == end.taken.next || may_fail());
    CHECK(end.arrivals <= end.taken.next);
    if (finally != qnet_close)
        CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(end.fd) == 0);
}

static void close_busy(void)
{
    ends_busy(qnet_close);
}

static void shutdown_busy(void)
{
    ends_busy(qnet_shutdown);
}

/* All frames have gone through both directions that are impaired, unless a fault has ended that. */
static void all_have_passed(qnet_conn *conn, unsigned count)
{
    qnet_impair_stats stats;
    int direction;

    for (direction = QNET_IN; direction <= QNET_OUT; direction++) {
        CHECK_INT(qnet_get_impair_stats(conn, direction, &stats, sizeof stats), sizeof stats);
        CHECK((stats.frames == count && stats.passed == count) || may_fail());
        CHECK(stats.passed <= stats.frames);
    }
}

/* A link with frames of one size both ways, of which one end is impaired. */
static void cable_with(const char *spec, const size_t *size, unsigned count)
{
    struct end a = sound_end(), b = sound_end();
    int result;

    if (size)
        a.written = a.arrived = b.written = b.arrived = flow_of_one_size(size);
    TRY(result, qnet_impair(a.conn, QNET_BOTH, spec));
    if (went(result, "impair")) {
        TRY(result, qnet_link(a.conn, b.conn));
        if (went(result, "link")) {
            plain_send(&a, count);
            plain_takes(&b, count, 0);
            plain_send(&b, count);
            plain_takes(&a, count, 0);
        }
    }
    if (spec[0])
        all_have_passed(a.conn, count);
    finish(&a);
    finish(&b);
}

static void cable(void)
{
    cable_with("", NULL, MANY);
}

static void delayed_cable(void)
{
    cable_with("delay 1ms", NULL, MANY);
}

/* What is held at once takes several pieces of memory. */
static void filled_cable(void)
{
    static const size_t size = 9000;

    cable_with("delay 2ms", &size, 16);
}

/* Frames of which each leaves at a time of its own. */
static void spread_cable(void)
{
    cable_with("rate 50mbit limit 1000 delay 300us 300us duplicate 0% corrupt 0%", NULL, MANY);
}

/* The text names a file, which is read in the call. */
static void traced_cable(void)
{
    char path[] = "/tmp/qnet-trace-XXXXXX", spec[100];
    int fd = mkstemp(path);

    CHECK(fd >= 0 && write(fd, "1\n", 2) == 2 && close(fd) == 0);
    snprintf(spec, sizeof spec, "trace %s 100000", path);
    cable_with(spec, NULL, MANY);
    CHECK(unlink(path) == 0);
}

/* Takes frames as plain_takes() does, while the clock moves. */
static void takes_by_clock(struct end *end, unsigned until, qnet_clock *clock)
{
    static uint8_t frame[QNET_FRAME_MAX];
    long long until_ms = raw_now_ms() + patience_ms();
    int64_t now = 0;
    int result;
    long len = 0;

    while (len >= 0 && end->arrived.next != until) {
        CHECK_INT(qnet_clock_next(clock, &now, NULL), QNET_OK);
        TRY(result, qnet_clock_advance(clock, now + 1000000));
        went(result, "advance");
        CHECK(raw_now_ms() < until_ms);
        while (len >= 0 && end->arrived.next != until && raw_readable(end->fd, 0)) {
            len = plain_recv(end, frame, sizeof frame);
            if (len >= 0)
                flow_take(&end->arrived, frame, (size_t)len);
        }
    }
    CHECK(end->arrived.next == until || may_fail());
}

/* A link on a clock that the program moves, and one side that leaves in the end. */
static void cable_on_a_clock(void)
{
    qnet_clock *clock = NULL;
    struct end a = sound_end(), b = sound_end();
    int result;

    TRY(result, qnet_clock_new(&clock));
    CHECK_INT(result, QNET_OK);
    CHECK_INT(qnet_impair(a.conn, QNET_BOTH, "rate 10mbit limit 1000 delay 5ms 1ms"), QNET_OK);
    TRY(result, qnet_link_on(clock, a.conn, b.conn));
    if (went(result, "link")) {
        plain_send(&a, MANY);
        takes_by_clock(&b, MANY, clock);
        plain_send(&b, MANY);
        takes_by_clock(&a, MANY, clock);
    }
    all_have_passed(a.conn, MANY);
    finish(&a);
    finish(&b);
    CHECK_INT(qnet_clock_close(clock), QNET_OK);
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
    if (result == 0) { /* the socket's address could not be asked for */
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

/* Options and waits make system calls as well. */
static void asks(void)
{
    static const int options[] = { QNET_OPT_SNDBUF, QNET_OPT_RCVBUF };
    struct end end = sound_end();
    qnet_conn *conn = end.conn;
    int i, result;
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
    CHECK(shutdown(end.fd, SHUT_WR) == 0);
    TRY(result, qnet_wait(conn, patience_ms()));
    went(result, "wait");
    finish(&end);
}

/* ---- Captures ---- */

enum { CAPTURED = 600 };

/* Whether recording went well, or has failed for the reason of this run. */
static int is_recorded(qnet_capture *capture)
{
    qnet_capture_stats stats = capture_stats_of(capture);

    if (stats.error != 0)
        CHECK(may_fail() && stats.error == (uint64_t)fault_now->what);
    return stats.error == 0;
}

/*
 * Sends frames that a capture records: that goes well, whatever becomes of the capture. Returns how many.
 * (None where it is the sending that is to fail, of which other scenarios are.)
 */
static unsigned talk_captured(qnet_capture *capture)
{
    static const size_t size = 200;
    struct flow flow = flow_of_one_size(&size), received = flow;
    unsigned count = fault_now && call_now == CALL_send ? 0 : CAPTURED;
    qnet_conn *conn;
    int fd;

    shim_pause(1);
    conn = raw_pair(&fd);
    shim_pause(0);
    capture_add(capture, conn, "captured");
    while (flow.next < count) {
        CHECK_INT(flow_send(&flow, conn, 1, 10), 10);
        raw_take_until(fd, &received, flow.next);
    }
    EVENTUALLY(has_had(capture, count));
    CHECK(!is_recorded(capture) || capture_stats_of(capture).dropped == 0);
    shim_pause(1);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
    shim_pause(0);
    return count;
}

/* Returns how many frames stand in a file, whole blocks only. */
static size_t count_shown(const char *path)
{
    struct shown shown = shown_uncut(path);
    size_t count = shown.count;

    shown_free(&shown);
    CHECK(unlink(path) == 0);
    return count;
}

/* Many files, of which two are kept: each block in them is whole. */
static void captured_to_files(void)
{
    int64_t options[] = { QNET_OPT_FILE_BYTES, 65536, QNET_OPT_FILES, 2 };
    qnet_capture *capture = NULL;
    size_t count = 0;
    unsigned sent;
    int result, i, recorded;

    scratch_make();
    TRY(result, qnet_capture_open(scratch_path("faulty.pcapng"), options, 2, &capture));
    if (made(result, capture, "capture to")) {
        sent = talk_captured(capture);
        recorded = is_recorded(capture);
        capture_close(capture);
        for (i = 1; i < 9; i++) {
            char name[24];

            snprintf(name, sizeof name, "faulty_%05d.pcapng", i);
            if (access(scratch_path(name), F_OK) == 0)
                count += count_shown(scratch_path(name));
        }
        CHECK(!recorded || may_fail() || sent == 0 || (count > 0 && count < sent));
    }
    scratch_remove();
}

static void captured_to_a_file(void)
{
    qnet_capture *capture = NULL;
    qnet_capture_stats stats;
    unsigned sent;
    int result;

    scratch_make();
    TRY(result, qnet_capture_open(scratch_path("faulty.pcapng"), NULL, 0, &capture));
    if (made(result, capture, "capture to")) {
        sent = talk_captured(capture);
        EVENTUALLY(!is_recorded(capture) || shown_count(scratch_path("faulty.pcapng")) == sent);
        /* What was put in the buffer as writing failed is given up in the thread's next turn. */
        EVENTUALLY(shown_count(scratch_path("faulty.pcapng")) == capture_stats_of(capture).frames);
        EVENTUALLY(has_had(capture, sent));
        stats = capture_stats_of(capture);
        capture_close(capture);
        CHECK_INT(count_shown(scratch_path("faulty.pcapng")), stats.frames);
    }
    scratch_remove();
}

static void *read_captured(void *fd)
{
    struct shown shown = shown_from(*(int *)fd, 1);

    shown_free(&shown);
    return NULL;
}

/* A FIFO's reader that is there, and a pipe's. */
static void captured_to_readers(void)
{
    pthread_t reader;
    int kind, ends[2], result;

    scratch_make();
    for (kind = 0; kind < 2; kind++) {
        qnet_capture *capture = NULL;

        if (kind == 0) {
            CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
            ends[0] = open(scratch_path("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
            TRY(result, qnet_capture_open(scratch_path("fifo"), NULL, 0, &capture));
        } else {
            CHECK(pipe2(ends, O_CLOEXEC) == 0);
            TRY(result, qnet_capture_open_fd(ends[1], NULL, 0, &capture));
            if (result != QNET_OK)
                CHECK(close(ends[1]) == 0);
        }
        CHECK(ends[0] >= 0 && fcntl(ends[0], F_SETFL, 0) == 0);
        if (made(result, capture, "capture to")) {
            start_thread(&reader, read_captured, &ends[0]);
            talk_captured(capture);
            capture_close(capture);
            join_thread(reader);
        }
        CHECK(close(ends[0]) == 0);
    }
    scratch_remove();
}

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
    SCENARIO(close_busy), SCENARIO(shutdown_busy), SCENARIO(cable), SCENARIO(delayed_cable),
    SCENARIO(filled_cable), SCENARIO(spread_cable), SCENARIO(traced_cable), SCENARIO(cable_on_a_clock),
    SCENARIO(hub), SCENARIO(impaired_hub), SCENARIO(hub_that_tells), SCENARIO(hub_that_rules),
    SCENARIO(ruled_hub), SCENARIO(reconnecting),
    SCENARIO(datagram_pair), SCENARIO(seqpacket), SCENARIO(udp), SCENARIO(unixgram),
    SCENARIO(asks), SCENARIO(captured_to_files), SCENARIO(captured_to_a_file), SCENARIO(captured_to_readers),
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios, KINDS = sizeof faults / sizeof *faults };

#endif
