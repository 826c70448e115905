/*
 * seqpacket.c - SEQPACKET sockets. A message is a frame, as with datagrams; a sender
 * waits for a peer that does not read, however long, and nothing is lost, as on a stream.
 * Listening and dialling (network unixpacket) are as for streams.
 */
#include "far.h"

/* Longer than a datagram connection waits for its peer. */
enum { LONG_MS = 120, MANY = 600 };

static const size_t frame_size = 600;

/* Something that a thread does meanwhile. */
struct errand {
    pthread_t thread;
    qnet_conn *conn;
    const struct far *far;
    struct flow flow;
    int way, result;
};

static void errand_start(struct errand *errand, void *(*body)(void *), qnet_conn *conn, int way)
{
    memset(errand, 0, sizeof *errand);
    errand->conn = conn;
    errand->flow = flow_of_one_size(&frame_size);
    errand->way = way;
    start_thread(&errand->thread, body, errand);
}

/* Sends all frames, in one of the ways. */
static void *sends(void *argument)
{
    struct errand *errand = argument;

    while (errand->flow.next < MANY)
        CHECK(flow_send(&errand->flow, errand->conn, errand->way, MANY - errand->flow.next) > 0);
    return NULL;
}

static void *flushes(void *argument)
{
    struct errand *errand = argument;

    errand->result = qnet_flush(errand->conn);
    return NULL;
}

static void *closes(void *argument)
{
    struct errand *errand = argument;

    errand->result = qnet_close(errand->conn);
    return NULL;
}

static void *far_sends(void *argument)
{
    struct errand *errand = argument;

    far_send_flow(errand->far, &errand->flow, MANY);
    return NULL;
}

/* Opens a connection that has room for few frames only. */
static qnet_conn *open_with_little_room(struct far *far)
{
    qnet_conn *conn = far_open(far);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 20000), QNET_OK);
    return conn;
}

/* Reads after a long while, and the rest after another: all frames come. */
static void far_takes_late(const struct far *far, unsigned count)
{
    struct flow seen = flow_of_one_size(&frame_size);

    raw_sleep_ms(LONG_MS);
    far_take_until(far, &seen, count / 2);
    raw_sleep_ms(LONG_MS);
    far_take_until(far, &seen, count);
}

static void check_all_sent(qnet_conn *conn, unsigned count)
{
    EVENTUALLY(stats_of(conn).tx_frames == count);
    CHECK_INT(stats_of(conn).tx_dropped, 0);
}

static void senders_wait(void)
{
    int way;

    for (way = 0; way < WAYS_TO_SEND; way++) {
        struct errand sender;
        struct far far;
        qnet_conn *conn = open_with_little_room(&far);

        errand_start(&sender, sends, conn, way);
        far_takes_late(&far, MANY);
        join_thread(sender.thread);
        check_all_sent(conn, MANY);
        far_close(conn, &far);
    }
}

/* A send times out after the time that was set, and no frame that was taken is lost. */
static void a_time_passes(void)
{
    struct flow sent = flow_of_one_size(&frame_size), seen = sent;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);
    int result;

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, LONG_MS), QNET_OK);
    while ((result = flow_send(&sent, conn, 0, 1)) == 1)
        ;
    CHECK_INT(result, QNET_ERR_TIMEOUT);
    CHECK_INT(flow_send(&sent, conn, 0, 1), QNET_ERR_TIMEOUT);
    far_take_until(&far, &seen, sent.next);
    check_all_sent(conn, sent.next);
    far_close(conn, &far);
}

/*
 * Frames held back for others to join them are written by a flush, the service thread or
 * a close, each of which waits for room.
 */
static void what_is_held_waits(void *(*body)(void *))
{
    enum { HELD = 50 };
    struct flow sent = flow_of_one_size(&frame_size);
    struct errand errand;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);

    CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, body ? 1000000 : 10000), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    CHECK_INT(flow_send(&sent, conn, 0, HELD), HELD);
    if (body)
        errand_start(&errand, body, conn, 0);
    far_takes_late(&far, HELD);
    if (body) {
        join_thread(errand.thread);
        CHECK_INT(errand.result, QNET_OK);
    }
    if (body != closes) {
        check_all_sent(conn, HELD);
        CHECK_INT(qnet_close(conn), QNET_OK);
    }
    far_leaves(&far);
}

static void a_flush_waits(void)
{
    what_is_held_waits(flushes);
}

static void the_service_thread_waits(void)
{
    what_is_held_waits(NULL);
}

static void a_close_waits(void)
{
    what_is_held_waits(closes);
}

static void send_back(void *conn, const uint8_t *frame, size_t len)
{
    CHECK_INT(qnet_send(conn, frame, len), QNET_OK);
}

/* A handler's frames are held back while more frames wait to be handled. */
static void a_handler_waits(void)
{
    struct errand writer;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);

    CHECK_INT(qnet_set_handler(conn, send_back, conn), QNET_OK);
    memset(&writer, 0, sizeof writer);
    writer.far = &far;
    writer.flow = flow_of_one_size(&frame_size);
    start_thread(&writer.thread, far_sends, &writer);
    far_takes_late(&far, MANY);
    join_thread(writer.thread);
    check_all_sent(conn, MANY);
    far_close(conn, &far);
}

/* While one side of a link has no room, the other is not read. */
static void a_link_waits(void)
{
    struct flow flow = flow_of_one_size(&frame_size);
    struct raw_job writer;
    struct far far;
    int fd;
    qnet_conn *conn = open_with_little_room(&far), *stream = raw_pair(&fd);

    CHECK_INT(qnet_link(conn, stream), QNET_OK);
    raw_start(&writer, raw_writing, fd, flow, 10 * MANY);
    far_takes_late(&far, 10 * MANY);
    join_thread(writer.thread);
    check_all_sent(conn, 10 * MANY);
    CHECK_INT(stats_of(stream).rx_frames, 10 * MANY);
    CHECK_INT(qnet_close(stream), QNET_OK);
    CHECK(close(fd) == 0);
    far_close(conn, &far);
}

/* Frames wait in a hub's queue as long as it has room, and are never dropped for their age. */
static void a_hubs_queue_waits(void)
{
    struct device device;
    struct far far;
    qnet_conn *conn = open_with_little_room(&far);
    qnet_hub *hub;
    unsigned i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    device_open(&device, 1);
    CHECK_INT(qnet_hub_attach(hub, device.conn), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    for (i = 0; i < MANY; i++)
        device_says(&device, EVERYBODY, frame_size);
    EVENTUALLY(stats_of(device.conn).rx_frames == MANY);
    is_idle();
    for (i = 0; i < MANY; i++)
        CHECK_INT(far_hears(&far).number, i);
    check_all_sent(conn, MANY);
    CHECK_INT(hub_stats_of(hub).dropped, 0);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&device);
    far_close(conn, &far);
}

/* ---- By path ---- */

static qnet_listener *listens_at(const char *name)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen("unixpacket", name, &listener), QNET_OK);
    CHECK(listener != NULL);
    return listener;
}

/* Passes a frame from one to the other. */
static void passes(qnet_conn *from, qnet_conn *to)
{
    uint8_t frame[77], got[100];
    static unsigned number;

    frame_make(frame, sizeof frame, ++number);
    CHECK_INT(qnet_send(from, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_recv(to, got, sizeof got, patience_ms()), sizeof frame);
    CHECK_INT(frame_number(got, sizeof frame), number);
}

static void check_text(const char *text, int len, const char *want)
{
    CHECK_INT(len, strlen(want));
    CHECK(strcmp(text, want) == 0);
}

/* Both ends are the library's, at a path and at an abstract name. The dial is given options. */
static void dialled_and_accepted(void)
{
    static const int64_t options[] = { QNET_OPT_SNDBUF, 100000, QNET_OPT_DIAL_TIMEOUT_MS, 10000 };
    int abstract;

    for (abstract = 0; abstract < 2; abstract++) {
        const char *name = abstract ? scratch_abstract("two") : scratch_path("two.sock");
        qnet_listener *listener = listens_at(name);
        qnet_conn *dialled = NULL, *accepted = NULL;
        char text[160];

        CHECK_INT(qnet_dial_with("unixpacket", name, options, 2, &dialled), QNET_OK);
        CHECK_INT(qnet_accept(listener, patience_ms(), &accepted), QNET_OK);
        passes(dialled, accepted);
        passes(accepted, dialled);
        check_text(text, qnet_listener_addr(listener, text, sizeof text), name);
        check_text(text, qnet_peer_addr(dialled, text, sizeof text), name);
        check_text(text, qnet_local_addr(accepted, text, sizeof text), name);
        CHECK_INT(qnet_close(dialled), QNET_OK);
        CHECK_INT(qnet_wait(accepted, patience_ms()), QNET_OK);
        CHECK_INT(qnet_close(accepted), QNET_OK);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
}

static void check_mode(const char *path, mode_t mode)
{
    struct stat stat;

    CHECK(lstat(path, &stat) == 0);
    CHECK(S_ISSOCK(stat.st_mode));
    CHECK_INT(stat.st_mode & 07777, mode);
}

static void the_file_has_its_mode_and_goes(void)
{
    const char *path = scratch_path("mode.sock");
    qnet_listener *listener = listens_at(path);
    struct stat stat;
    int64_t mode = 0;

    check_mode(path, 0600);
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0660), QNET_OK);
    check_mode(path, 0660);
    CHECK_INT(qnet_listener_get(listener, QNET_OPT_UNIX_MODE, &mode), QNET_OK);
    CHECK_INT(mode, 0660);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(lstat(path, &stat) < 0 && errno == ENOENT);
}

/*
 * The file of a dead socket of either type is replaced. A living one is kept, and notices
 * nothing.
 */
static void dead_files_are_replaced(void)
{
    static const int types[] = { SOCK_SEQPACKET, SOCK_STREAM };
    const char *path = scratch_path("dead.sock");
    struct sockaddr_un address;
    socklen_t len = raw_unix_address(path, &address);
    qnet_listener *listener = NULL;
    int i, fd;

    for (i = 0; i < 2; i++) {
        fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);
        CHECK(bind(fd, (struct sockaddr *)&address, len) == 0);
        CHECK(listen(fd, 8) == 0);
        CHECK_INT(qnet_listen("unixpacket", path, &listener), QNET_ERR_BUSY);
        CHECK(listener == NULL);
        CHECK(!raw_readable(fd, 0));
        CHECK(close(fd) == 0);
        listener = listens_at(path);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
    listener = listens_at(path);
    CHECK_INT(qnet_listen("unixpacket", path, &listener), QNET_ERR_BUSY);
    CHECK_INT(qnet_listen("unix", path, &listener), QNET_ERR_BUSY);
}

/* Dials a path without a file, the file of a dead socket, and a stream listener. */
static void dials_in_vain(void)
{
    const char *path = scratch_path("vain.sock");
    qnet_listener *stream;
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dial("unixpacket", path, &conn), QNET_ERR_REFUSED);
    CHECK(strstr(qnet_last_error(), "dial unixpacket /") == qnet_last_error());
    CHECK(close(far_listens(path)) == 0);
    CHECK_INT(qnet_dial("unixpacket", path, &conn), QNET_ERR_REFUSED);
    CHECK(unlink(path) == 0);
    CHECK_INT(qnet_dial("unixpacket", "", &conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_dial("unixpackets", path, &conn), QNET_ERR_INVALID);
    CHECK(strstr(qnet_last_error(), "unixpacket)") != NULL);
    CHECK_INT(qnet_listen("unix", path, &stream), QNET_OK);
    CHECK_INT(qnet_dial("unixpacket", path, &conn), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EPROTOTYPE);
    CHECK(conn == NULL);
    CHECK_INT(qnet_listener_close(stream), QNET_OK);
}

/* No version of QEMU can connect to a SEQPACKET listener, so there is no netdev for it. */
static void no_netdev(void)
{
    qnet_listener *listener = listens_at(scratch_path("netdev.sock"));
    char text[300] = "";

    CHECK_INT(qnet_listener_netdev(listener, "n", 1000, text, sizeof text), QNET_ERR_UNSUPPORTED);
    CHECK(strstr(qnet_last_error(), "SEQPACKET") != NULL);
    CHECK_INT(qnet_listener_netdev(listener, "1", 1000, text, sizeof text), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void an_adopted_listener(void)
{
    const char *path = scratch_path("adopted.sock");
    int fd = far_listens(path), far;
    qnet_listener *listener = NULL;
    qnet_conn *conn = NULL;
    uint8_t frame[60] = { 0 };

    CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
    far = far_connects(path);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conn), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(recv(far, frame, sizeof frame, 0), sizeof frame); /* without a length prefix */
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(far) == 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(unlink(path) == 0); /* the file was not made by the library, and is left */
}

/* A hub serves a listener's clients. */
static void served_by_a_hub(void)
{
    const char *path = scratch_path("hub.sock");
    qnet_listener *listener = listens_at(path);
    struct far a, b;
    struct word word = { 0 };
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    far_init(&a, far_connects(path));
    far_init(&b, far_connects(path));
    EVENTUALLY(ports_of(hub) == 2);
    word.from = 1;
    word.to = EVERYBODY;
    word.len = 600;
    for (word.number = 0; word.number < 100; word.number++) {
        far_says(word.number % 2 ? &a : &b, word);
        CHECK_INT(far_hears(word.number % 2 ? &b : &a).number, word.number);
    }
    far_leaves(&a);
    EVENTUALLY(ports_of(hub) == 1);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    far_leaves(&b);
}

/* Dials, with reconnecting, a peer that is not there yet, comes, leaves, and comes again. */
static void dialled_again(void)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX };
    const char *path = scratch_path("again.sock");
    qnet_conn *conn = NULL;
    uint64_t before = 0;
    int round, way;

    CHECK_INT(qnet_dial_with("unixpacket", path, options, 2, &conn), QNET_OK);
    for (round = 0; round < 6; round++) {
        struct flow sent = flow_of_all_sizes(), seen = sent, back = sent, heard = sent;
        struct taker taker;
        struct far far;
        int listener;

        /* The send that first meets the end does not wait for anything either. */
        CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
        CHECK_INT(flow_send(&sent, conn, round % WAYS_TO_SEND, ALL_SIZES), ALL_SIZES);
        CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
        EVENTUALLY(stats_of(conn).tx_dropped == before + ALL_SIZES);
        listener = far_listens(path);
        far_init(&far, far_accepts(listener));
        EVENTUALLY(stats_of(conn).reconnects == (uint64_t)round + 1);
        CHECK(close(listener) == 0);
        CHECK(unlink(path) == 0);
        before = stats_of(conn).tx_dropped;
        for (seen = sent, way = 0; way < WAYS_TO_SEND; way++) {
            CHECK_INT(flow_send(&sent, conn, way, ALL_SIZES), ALL_SIZES);
            far_take_until(&far, &seen, sent.next);
        }
        far_send_flow(&far, &back, ALL_SIZES);
        taker_start(&taker, conn, BY_RECV, flow_each, &heard);
        taker_want(&taker, ALL_SIZES);
        CHECK_INT(qnet_set_close_handler(conn, NULL, NULL), QNET_OK);
        CHECK_INT(stats_of(conn).tx_dropped, before);
        far_leaves(&far);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(senders_wait, SEQUENCED);
    RUN_KINDS(a_time_passes, SEQUENCED);
    RUN_KINDS(a_flush_waits, SEQUENCED);
    RUN_KINDS(the_service_thread_waits, SEQUENCED);
    RUN_KINDS(a_close_waits, SEQUENCED);
    RUN_KINDS(a_handler_waits, SEQUENCED);
    RUN_KINDS(a_link_waits, SEQUENCED);
    RUN_KINDS(a_hubs_queue_waits, SEQUENCED);
    RUN(dialled_and_accepted);
    RUN(the_file_has_its_mode_and_goes);
    RUN(dead_files_are_replaced);
    RUN(dials_in_vain);
    RUN(no_netdev);
    RUN(an_adopted_listener);
    RUN(served_by_a_hub);
    RUN(dialled_again);
    scratch_remove();
    return check_done();
}
