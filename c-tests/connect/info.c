/*
 * info.c - what can be asked for and set: versions, errors, options, hardware addresses,
 * socket addresses and counters.
 */
#include <limits.h>
#include <pthread.h>

#include "traffic.h"
#include "scratch.h"

enum { LONG_MS = 10000 };

/* ---- versions and errors ---- */

/* The preprocessor silently takes a name that it does not know as 0. */
#if QNET_VERSION_MAJOR == 0 && QNET_VERSION_MINOR == 0 && QNET_VERSION_PATCH == 0
#error "the preprocessor knows no version"
#endif
#if QNET_VERSION != QNET_VERSION_MAJOR * 10000 + QNET_VERSION_MINOR * 100 + QNET_VERSION_PATCH
#error "QNET_VERSION does not order the versions"
#endif

static void versions(void)
{
    char version[40];

    snprintf(version, sizeof version, "%d.%d.%d", QNET_VERSION_MAJOR, QNET_VERSION_MINOR,
             QNET_VERSION_PATCH);
    CHECK(strcmp(version, HEADER_VERSION) == 0);
    CHECK(strcmp(qnet_version(), CARGO_VERSION) == 0);
    CHECK_INT(qnet_abi_version(), 0);
}

static void constants(void)
{
    static const struct {
        int got, want;
    } table[] = {
        { QNET_OK, 0 },                   { QNET_ERR_INVALID, -1 },
        { QNET_ERR_HANDLE, -2 },          { QNET_ERR_CLOSED, -3 },
        { QNET_ERR_TIMEOUT, -4 },         { QNET_ERR_AGAIN, -5 },
        { QNET_ERR_FRAME_SIZE, -6 },      { QNET_ERR_PROTOCOL, -7 },
        { QNET_ERR_OS, -8 },              { QNET_ERR_BUSY, -9 },
        { QNET_ERR_INTERRUPTED, -10 },    { QNET_ERR_UNSUPPORTED, -11 },
        { QNET_ERR_INTERNAL, -12 },       { QNET_ERR_REFUSED, -13 },
        { QNET_ERR_RESOLVE, -14 },        { QNET_OPT_SEND_TIMEOUT_MS, 1 },
        { QNET_OPT_TX_USECS, 2 },         { QNET_OPT_CORK, 3 },
        { QNET_OPT_MAX_FRAME, 4 },        { QNET_OPT_PAD, 5 },
        { QNET_OPT_LINGER_MS, 6 },        { QNET_OPT_SNDBUF, 7 },
        { QNET_OPT_RCVBUF, 8 },           { QNET_OPT_RECONNECT_MS, 9 },
        { QNET_OPT_DIAL_TIMEOUT_MS, 10 }, { QNET_OPT_MAX_CONNS, 11 },
        { QNET_OPT_WAIT, 12 },            { QNET_OPT_UNIX_MODE, 13 },
        { QNET_OPT_LINK, 14 },            { QNET_OPT_FLIGHT_BYTES, 15 },
        { QNET_OPT_OUTLIVE, 16 },         { QNET_OPT_RELEARN, 17 },
        { QNET_IN, 1 },                   { QNET_OUT, 2 },
        { QNET_BOTH, 3 },
        { QNET_FRAME_MAX, 69632 },
    };
    size_t i;

    for (i = 0; i < sizeof table / sizeof *table; i++)
        CHECK_INT(table[i].got, table[i].want);
    CHECK_INT(sizeof(qnet_stats), 11 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_stats, rx_frames), 0);
    CHECK_INT(offsetof(qnet_stats, tx_frames), 4 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_stats, reconnects), 8 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_stats, rx_foreign), 9 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_stats, rx_refused), 10 * sizeof(uint64_t));
    CHECK_INT(sizeof(qnet_impair_stats), 15 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_impair_stats, bypassed), 2 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_impair_stats, dropped), 7 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_impair_stats, passed), 10 * sizeof(uint64_t));
    CHECK_INT(offsetof(qnet_impair_stats, held_bytes), 14 * sizeof(uint64_t));
    CHECK_INT(sizeof(qnet_frame), 2 * sizeof(void *));
}

static void error_strings(void)
{
    static const int unknown[] = { 1, 2, -15, -100, 1000, INT_MAX, INT_MIN };
    int code, other;
    size_t i;

    for (code = QNET_OK; code >= QNET_ERR_RESOLVE; code--) {
        CHECK(qnet_strerror(code) != NULL && qnet_strerror(code)[0] != '\0');
        CHECK(qnet_strerror(code) == qnet_strerror(code));
        for (other = QNET_OK; other > code; other--)
            CHECK(strcmp(qnet_strerror(code), qnet_strerror(other)) != 0);
    }
    for (i = 0; i < sizeof unknown / sizeof *unknown; i++)
        CHECK(qnet_strerror(unknown[i]) != NULL && qnet_strerror(unknown[i])[0] != '\0');
}

static void fail_to_dial(const char *path)
{
    qnet_conn *conn;

    CHECK_INT(qnet_dial("unix", path, &conn), QNET_ERR_REFUSED);
}

static void last_error(void)
{
    const char *dead = scratch_path("dead.sock");
    char want[300];

    CHECK(qnet_last_error() != NULL);
    CHECK_INT(qnet_last_errno(), 0);

    close(raw_unix_listen(dead));
    fail_to_dial(dead);
    snprintf(want, sizeof want, "dial unix %s: Connection refused (os error 111)", dead);
    CHECK(strcmp(qnet_last_error(), want) == 0);
    CHECK_INT(qnet_last_errno(), ECONNREFUSED);

    fail_to_dial(scratch_path("absent.sock"));
    CHECK(strstr(qnet_last_error(), "dial unix") != NULL);
    CHECK(strstr(qnet_last_error(), scratch_path("absent.sock")) != NULL);
    CHECK(strstr(qnet_last_error(), "No such file or directory (os error 2)") != NULL);
    CHECK_INT(qnet_last_errno(), ENOENT);

    /* An error that did not come from the system has no errno. */
    CHECK_INT(qnet_close(NULL), QNET_ERR_HANDLE);
    CHECK(strstr(qnet_last_error(), "before a fork") != NULL);
    CHECK(strstr(qnet_last_error(), "dial") == NULL);
    CHECK_INT(qnet_last_errno(), 0);
}

static void *fail_on_another_thread(void *unused)
{
    (void)unused;
    CHECK(strstr(qnet_last_error(), "absent.sock") == NULL);
    CHECK_INT(qnet_last_errno(), 0);
    CHECK_INT(qnet_close(NULL), QNET_ERR_HANDLE);
    return NULL;
}

static void last_error_of_each_thread(void)
{
    const char *text;
    pthread_t thread;

    fail_to_dial(scratch_path("absent.sock"));
    text = qnet_last_error();
    CHECK_INT(pthread_create(&thread, NULL, fail_on_another_thread, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(strstr(text, "absent.sock") != NULL);
    CHECK(qnet_last_error() == text);
    CHECK_INT(qnet_last_errno(), ENOENT);
}

/* Successes, and answers that are no failures, leave the text and the errno alone. */
static void last_error_stays(void)
{
    unsigned char frame[60] = { 0 };
    qnet_listener *listener = listen_on("tcp4", "127.0.0.1:0");
    qnet_frame frames[1];
    qnet_conn *conn, *none;
    const char *text;
    int fd;

    fail_to_dial(scratch_path("absent.sock"));
    text = qnet_last_error();
    conn = raw_pair(&fd);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, 10), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_recv_batch(conn, frames, 1, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_recv_packed(conn, frame, sizeof frame, 10), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_wait(conn, 0), QNET_ERR_AGAIN);
    CHECK_INT(qnet_wait(conn, 10), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_accept(listener, 0, &none), QNET_ERR_AGAIN);
    CHECK_INT(qnet_accept(listener, 10, &none), QNET_ERR_TIMEOUT);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    while (qnet_send(conn, frame, sizeof frame) == QNET_OK)
        continue;
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_ERR_AGAIN);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 10), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_ERR_TIMEOUT);
    close(fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(qnet_last_error() == text);
    CHECK(strstr(text, "absent.sock") != NULL);
    CHECK_INT(qnet_last_errno(), ENOENT);
}

/* ---- options ---- */

static int set_of_conn(void *conn, int option, int64_t value)
{
    return qnet_set(conn, option, value);
}

static int get_of_conn(void *conn, int option, int64_t *value)
{
    return qnet_get(conn, option, value);
}

static int set_of_listener(void *listener, int option, int64_t value)
{
    return qnet_listener_set(listener, option, value);
}

static int get_of_listener(void *listener, int option, int64_t *value)
{
    return qnet_listener_get(listener, option, value);
}

/* An object that has options. */
struct object {
    void *handle;
    int (*set)(void *handle, int option, int64_t value);
    int (*get)(void *handle, int option, int64_t *value);
    int is_listener;
};

struct option {
    int option, of_conn, maybe_unsupported;
    int64_t begin;      /* its default */
    int64_t good[3];    /* values that it takes, among them its bounds */
    int64_t bad[3];     /* values that it refuses, among them those next to its bounds */
};

static const struct option options[] = {
    { QNET_OPT_SEND_TIMEOUT_MS, 1, 0, -1, { 0, 60000, -1 }, { -2, -1000, INT64_MIN } },
    { QNET_OPT_TX_USECS, 1, 1, 0, { 50, 1, 0 }, { -1, -2, INT64_MIN } },
    { QNET_OPT_CORK, 1, 1, 1, { 0, 1, 1 }, { -1, 2, INT64_MIN } },
    { QNET_OPT_MAX_FRAME, 1, 0, 65535, { 14, 1514, 69632 }, { 13, 69633, INT64_MIN } },
    { QNET_OPT_PAD, 1, 0, 0, { 1, 0, 1 }, { -1, 2, INT64_MIN } },
    { QNET_OPT_LINGER_MS, 1, 0, 1000, { 0, 1, 60000 }, { -1, -2, INT64_MIN } },
    { QNET_OPT_WAIT, 1, 0, 1, { 0, 1, 0 }, { -1, 2, INT64_MIN } },
    { QNET_OPT_LINK, 1, 0, 1, { 0, 1, 0 }, { -1, 2, INT64_MIN } },
    { QNET_OPT_FLIGHT_BYTES, 1, 0, 67108864, { 131072, INT_MAX, 1000000 },
      { 131071, 0, (int64_t)INT_MAX + 1 } },
    { QNET_OPT_OUTLIVE, 1, 0, 0, { 1, 0, 1 }, { -1, 2, INT64_MIN } },
    { QNET_OPT_MAX_CONNS, 0, 0, 1024, { 1, 2, 5000 }, { -1, -2, INT64_MIN } },
    { QNET_OPT_UNIX_MODE, 0, 0, 0600, { 0777, 0600, 0 }, { -1, 0200000, INT64_MIN } },
};

static int64_t value_of(const struct object *object, int option)
{
    int64_t value = INT64_MIN;

    CHECK_INT(object->get(object->handle, option, &value), QNET_OK);
    return value;
}

static void check_values(const struct object *object, const struct option *option)
{
    size_t i, k;

    CHECK_INT(value_of(object, option->option), option->begin);
    for (i = 0; i < 3; i++) {
        CHECK_INT(object->set(object->handle, option->option, option->good[i]), QNET_OK);
        CHECK_INT(value_of(object, option->option), option->good[i]);
        for (k = 0; k < 3; k++)
            CHECK_INT(object->set(object->handle, option->option, option->bad[k]),
                      QNET_ERR_INVALID);
        CHECK_INT(value_of(object, option->option), option->good[i]);
    }
    CHECK_INT(object->get(object->handle, option->option, NULL), QNET_ERR_INVALID);
}

static void check_unsupported(const struct object *object, int option, int64_t value)
{
    char want[40];

    snprintf(want, sizeof want, ", option %d, is not for", option);
    CHECK_INT(object->set(object->handle, option, value), QNET_ERR_UNSUPPORTED);
    CHECK(strstr(qnet_last_error(), "QNET_OPT_") != NULL);
    CHECK(strstr(qnet_last_error(), want) != NULL);
    CHECK_INT(object->get(object->handle, option, &value), QNET_ERR_UNSUPPORTED);
}

static void check_options(const struct object *object)
{
    size_t i;

    for (i = 0; i < sizeof options / sizeof *options; i++) {
        const struct option *option = &options[i];
        int64_t value;

        fprintf(stderr, "option %d of a %s\n", option->option,
                object->is_listener ? "listener" : "connection");
        if (!option->of_conn && !object->is_listener)
            check_unsupported(object, option->option, option->good[0]);
        else if (option->maybe_unsupported && object->get(object->handle, option->option,
                                                          &value) == QNET_ERR_UNSUPPORTED)
            check_unsupported(object, option->option, option->good[0]);
        else
            check_values(object, option);
    }
}

static void check_unknown_options(const struct object *object)
{
    static const int unknown[] = { 0, -1, 18, 19, 99, 65536 + QNET_OPT_PAD, INT_MAX, INT_MIN };
    int64_t value;
    size_t i;

    for (i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        CHECK_INT(object->set(object->handle, unknown[i], 1), QNET_ERR_INVALID);
        CHECK_INT(object->get(object->handle, unknown[i], &value), QNET_ERR_INVALID);
    }
}

static void check_buffer_sizes(const struct object *object)
{
    static const int both[] = { QNET_OPT_SNDBUF, QNET_OPT_RCVBUF };
    size_t i;

    for (i = 0; i < 2; i++) {
        int64_t before = value_of(object, both[i]);

        CHECK_INT(object->set(object->handle, both[i], -1), QNET_ERR_INVALID);
        CHECK_INT(object->set(object->handle, both[i], INT64_MIN), QNET_ERR_INVALID);
        CHECK_INT(value_of(object, both[i]), before);
        CHECK_INT(object->set(object->handle, both[i], 32768), QNET_OK);
        CHECK(value_of(object, both[i]) >= 32768);
    }
}

static struct object conn_object(qnet_conn *conn)
{
    struct object object = { conn, set_of_conn, get_of_conn, 0 };

    return object;
}

static struct object listener_object(qnet_listener *listener)
{
    struct object object = { listener, set_of_listener, get_of_listener, 1 };

    return object;
}

static void options_of_a_connection(void)
{
    int fd;
    qnet_conn *conn = raw_pair(&fd);
    struct object object = conn_object(conn);

    check_options(&object);
    check_unknown_options(&object);
    check_buffer_sizes(&object);
    CHECK(value_of(&object, QNET_OPT_SNDBUF) > 0);
    CHECK_INT(qnet_set(conn, QNET_OPT_RECONNECT_MS, 100), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void options_of_a_listener(void)
{
    qnet_listener *listener = listen_on("unix", scratch_path("options.sock"));
    struct object object = listener_object(listener);

    check_options(&object);
    check_unknown_options(&object);
    check_buffer_sizes(&object);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* ---- addresses ---- */

static void hardware_address(void)
{
    static const uint8_t chosen[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
    uint8_t macs[8][7], again[6];
    qnet_conn *conns[8];
    size_t i, k;

    for (i = 0; i < 8; i += 2)
        CHECK_INT(qnet_socketpair(&conns[i], &conns[i + 1]), QNET_OK);
    for (i = 0; i < 8; i++) {
        macs[i][6] = 0xee;
        CHECK_INT(qnet_hwaddr(conns[i], macs[i]), QNET_OK);
        CHECK_INT(macs[i][0] & 3, 2);
        CHECK_INT(macs[i][6], 0xee);
        CHECK_INT(qnet_hwaddr(conns[i], again), QNET_OK);
        CHECK(memcmp(macs[i], again, 6) == 0);
        for (k = 0; k < i; k++)
            CHECK(memcmp(macs[i], macs[k], 6) != 0);
    }
    CHECK_INT(qnet_set_hwaddr(conns[0], chosen), QNET_OK);
    CHECK_INT(qnet_hwaddr(conns[0], again), QNET_OK);
    CHECK(memcmp(again, chosen, 6) == 0);
    CHECK_INT(qnet_hwaddr(conns[1], again), QNET_OK);
    CHECK(memcmp(again, macs[1], 6) == 0);
    CHECK_INT(qnet_hwaddr(conns[0], NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_set_hwaddr(conns[0], NULL), QNET_ERR_INVALID);
    for (i = 0; i < 8; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
}

typedef int text_function(void *handle, char *buf, size_t cap);

static int local_text(void *conn, char *buf, size_t cap)
{
    return qnet_local_addr(conn, buf, cap);
}

static int peer_text(void *conn, char *buf, size_t cap)
{
    return qnet_peer_addr(conn, buf, cap);
}

static int listener_text(void *listener, char *buf, size_t cap)
{
    return qnet_listener_addr(listener, buf, cap);
}

/* The text is `want`, cut to every size of buffer as snprintf would. */
static void check_text(text_function *text, void *handle, const char *want)
{
    char got[200];
    size_t len = strlen(want), cap, kept;

    for (cap = 0; cap <= len + 2; cap++) {
        memset(got, '#', sizeof got);
        CHECK_INT(text(handle, got, cap), len);
        if (cap == 0) {
            CHECK(got[0] == '#');
            continue;
        }
        kept = len < cap ? len : cap - 1;
        if (memcmp(got, want, kept) != 0)
            fprintf(stderr, "\"%.*s\" instead of \"%s\"\n", (int)kept, got, want);
        CHECK(memcmp(got, want, kept) == 0);
        CHECK(got[kept] == '\0');
        CHECK(got[cap] == '#');
    }
    CHECK_INT(text(handle, NULL, 0), len);
    CHECK_INT(text(handle, NULL, 10), QNET_ERR_INVALID);
}

static void unix_addresses(void)
{
    const char *addresses[2];
    qnet_conn *dialled, *accepted;
    size_t i;

    addresses[0] = scratch_path("addresses.sock");
    addresses[1] = scratch_abstract("addresses");
    for (i = 0; i < 2; i++) {
        qnet_listener *listener = listen_on("unix", addresses[i]);

        CHECK_INT(qnet_dial("unix", addresses[i], &dialled), QNET_OK);
        CHECK_INT(qnet_accept(listener, LONG_MS, &accepted), QNET_OK);
        check_text(listener_text, listener, addresses[i]);
        check_text(peer_text, dialled, addresses[i]);
        check_text(local_text, accepted, addresses[i]);
        CHECK(qnet_local_addr(dialled, NULL, 0) >= 0);
        CHECK(qnet_peer_addr(accepted, NULL, 0) >= 0);
        CHECK_INT(qnet_close(dialled), QNET_OK);
        CHECK_INT(qnet_close(accepted), QNET_OK);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
}

/* A name whose path may fill sun_path. A NUL behind that, which is not the name's, is for valgrind, which looks for it. */
union longest_name {
    struct sockaddr_un name;
    struct sockaddr_storage room;
};

/* A socket whose path fills sun_path, so that no NUL is behind it. The path is written to `text`. */
static int longest_bound(int type, char text[sizeof ((struct sockaddr_un *)0)->sun_path + 1])
{
    union longest_name all;
    struct sockaddr_un *name = &all.name;
    size_t len = strlen(scratch_path(""));
    int fd = socket(AF_UNIX, type, 0);

    memset(&all, 0, sizeof all);
    name->sun_family = AF_UNIX;
    memset(name->sun_path, 'w', sizeof name->sun_path);
    memcpy(name->sun_path, scratch_path(""), len);
    memcpy(text, name->sun_path, sizeof name->sun_path);
    text[sizeof name->sun_path] = '\0';
    CHECK(bind(fd, (const struct sockaddr *)name, sizeof *name) == 0);
    return fd;
}

static void connect_to(int fd, const char *abstract)
{
    struct sockaddr_un name;
    socklen_t len = raw_unix_address(abstract, &name);

    CHECK(connect(fd, (const struct sockaddr *)&name, len) == 0);
}

static void peers_with_the_longest_path(void)
{
    const char *address = scratch_abstract("longest");
    static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM };
    char path[sizeof ((struct sockaddr_un *)0)->sun_path + 1];
    unsigned char frame[60] = { 2 };
    size_t i;

    for (i = 0; i < sizeof types / sizeof *types; i++) {
        int fd = longest_bound(types[i], path), is_datagrams = types[i] == SOCK_DGRAM, round;
        qnet_listener *listener = NULL;
        qnet_conn *conn;

        if (is_datagrams) {
            CHECK_INT(qnet_dgram("unixgram", address, NULL, &conn), QNET_OK);
            connect_to(fd, address);
        } else {
            listener = listen_on(types[i] == SOCK_STREAM ? "unix" : "unixpacket", address);
            connect_to(fd, address);
            CHECK_INT(qnet_accept(listener, LONG_MS, &conn), QNET_OK);
        }
        for (round = 0; round < 2; round++) {
            if (types[i] == SOCK_STREAM)
                raw_send(fd, frame, sizeof frame);
            else
                CHECK(write(fd, frame, sizeof frame) == sizeof frame);
            CHECK_INT(qnet_recv(conn, frame, sizeof frame, LONG_MS), sizeof frame);
        }
        check_text(peer_text, conn, path);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK(read(fd, frame, sizeof frame) > 0);
        CHECK_INT(qnet_close(conn), QNET_OK);
        if (listener)
            CHECK_INT(qnet_listener_close(listener), QNET_OK);
        close(fd);
        CHECK(unlink(path) == 0);
    }
}

static void adopted_with_the_longest_path(void)
{
    char path[sizeof ((struct sockaddr_un *)0)->sun_path + 1];
    int fd = longest_bound(SOCK_STREAM, path), dialled = socket(AF_UNIX, SOCK_STREAM, 0);
    union longest_name all;
    socklen_t len = sizeof all;
    qnet_listener *listener;
    qnet_conn *conn, *accepted;

    memset(&all, 0, sizeof all);
    CHECK(listen(fd, 1) == 0 && getsockname(fd, (struct sockaddr *)&all, &len) == 0);
    CHECK(connect(dialled, (const struct sockaddr *)&all, sizeof all.name) == 0);
    CHECK_INT(qnet_from_fd(dialled, &conn), QNET_OK);
    CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
    CHECK_INT(qnet_accept(listener, LONG_MS, &accepted), QNET_OK);
    check_text(peer_text, conn, path);
    check_text(local_text, accepted, path);
    check_text(listener_text, listener, path);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_close(accepted), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    unlink(path);
}

static void name_tcp4(int (*ask)(int, struct sockaddr *, socklen_t *), int fd, char *text,
                      size_t cap)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;

    CHECK(ask(fd, (struct sockaddr *)&address, &len) == 0);
    snprintf(text, cap, "127.0.0.1:%d", ntohs(address.sin_port));
}

static int ask_local(int fd, struct sockaddr *address, socklen_t *len)
{
    return getsockname(fd, address, len);
}

static int ask_peer(int fd, struct sockaddr *address, socklen_t *len)
{
    return getpeername(fd, address, len);
}

static void tcp_addresses(void)
{
    char near[40], far[40];
    int port, listening = raw_tcp_listen(&port), fd;
    qnet_conn *conn;

    snprintf(far, sizeof far, "127.0.0.1:%d", port);
    CHECK_INT(qnet_dial("tcp", far, &conn), QNET_OK);
    fd = accept(listening, NULL, NULL);
    CHECK(fd >= 0);
    name_tcp4(ask_local, fd, far, sizeof far);
    name_tcp4(ask_peer, fd, near, sizeof near);
    check_text(peer_text, conn, far);
    check_text(local_text, conn, near);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void tcp6_addresses(void)
{
    char text[200];
    qnet_listener *listener = NULL;
    qnet_conn *dialled, *accepted;

    if (qnet_listen("tcp6", "[::1]:0", &listener) != QNET_OK)
        check_skip("there is no IPv6 here");
    CHECK(qnet_listener_addr(listener, text, sizeof text) > 0);
    CHECK(strncmp(text, "[::1]:", 6) == 0);
    check_text(listener_text, listener, text);
    CHECK_INT(qnet_dial("tcp6", text, &dialled), QNET_OK);
    CHECK_INT(qnet_accept(listener, LONG_MS, &accepted), QNET_OK);
    check_text(peer_text, dialled, text);
    check_text(local_text, accepted, text);
    CHECK(qnet_local_addr(dialled, text, sizeof text) > 0);
    check_text(peer_text, accepted, text);
    CHECK_INT(qnet_close(dialled), QNET_OK);
    CHECK_INT(qnet_close(accepted), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* ---- counters ---- */

static void check_stats(qnet_conn *conn, const qnet_stats *want)
{
    qnet_stats got;

    CHECK(qnet_get_stats(conn, &got, sizeof got) >= (int)sizeof got);
    CHECK_INT(got.rx_frames, want->rx_frames);
    CHECK_INT(got.rx_bytes, want->rx_bytes);
    CHECK_INT(got.rx_runts, want->rx_runts);
    CHECK_INT(got.tx_frames, want->tx_frames);
    CHECK_INT(got.tx_bytes, want->tx_bytes);
    CHECK_INT(got.tx_dropped, want->tx_dropped);
    CHECK_INT(got.reconnects, 0);
    CHECK(got.rx_frames == 0 || got.rx_reads > 0);
    CHECK(got.tx_frames == 0 || got.tx_writes > 0);
}

static void counters(void)
{
    static unsigned char packed[2 * (RAW_PREFIX + 100)], frame[2000];
    qnet_frame frames[2];
    qnet_stats want;
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    memset(&want, 0, sizeof want);
    check_stats(conn, &want);

    CHECK_INT(qnet_send(conn, frame, 14), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, 1514), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, 13), QNET_ERR_FRAME_SIZE);
    want.tx_frames = 2;
    want.tx_bytes = 14 + 1514;
    check_stats(conn, &want);

    frames[0].data = frames[1].data = frame;
    frames[0].len = 60;
    frames[1].len = 61;
    CHECK_INT(qnet_send_batch(conn, frames, 2), 2);
    raw_put_length(packed, 100);
    raw_put_length(packed + RAW_PREFIX + 100, 100);
    CHECK_INT(qnet_send_packed(conn, packed, sizeof packed), 2);
    want.tx_frames += 4;
    want.tx_bytes += 60 + 61 + 200;
    check_stats(conn, &want);

    raw_send(fd, frame, 64);
    raw_send(fd, frame, 13);
    raw_send(fd, frame, 0);
    raw_send(fd, frame, 2000);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, LONG_MS), 64);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, LONG_MS), 2000);
    want.rx_frames = 2;
    want.rx_bytes = 64 + 2000;
    want.rx_runts = 2;
    check_stats(conn, &want);
    close(fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* A program that was compiled with a smaller or a larger struct than the library's. */
static void counters_of_another_size(void)
{
    unsigned char frame[60] = { 0 };
    uint64_t words[16], first;
    int fd;
    qnet_conn *conn = raw_pair(&fd);
    size_t count, i;

    raw_send(fd, frame, sizeof frame);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, LONG_MS), sizeof frame);
    for (count = 0; count < 16; count++) {
        memset(words, 0xee, sizeof words);
        memset(&first, 0xee, sizeof first);
        CHECK_INT(qnet_get_stats(conn, (qnet_stats *)words, count * sizeof *words),
                  sizeof(qnet_stats));
        CHECK(count < 1 || words[0] == 1);
        CHECK(count < 2 || words[1] == 60);
        for (i = 4; i < 16; i++)
            CHECK(words[i] == (i < count ? 0 : first));
    }
    CHECK_INT(qnet_get_stats(conn, NULL, sizeof(qnet_stats)), QNET_ERR_INVALID);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(void)
{
    scratch_make();
    RUN(versions);
    RUN(constants);
    RUN(error_strings);
    RUN(last_error);
    RUN(last_error_of_each_thread);
    RUN(last_error_stays);
    RUN(options_of_a_connection);
    RUN(options_of_a_listener);
    RUN(hardware_address);
    RUN(unix_addresses);
    RUN(peers_with_the_longest_path);
    RUN(adopted_with_the_longest_path);
    RUN(tcp_addresses);
    RUN(tcp6_addresses);
    RUN(counters);
    RUN(counters_of_another_size);
    scratch_remove();
    return check_done();
}
