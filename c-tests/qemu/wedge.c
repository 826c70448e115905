/*
 * wedge.c - when the peer of a QEMU `stream` netdev leaves while a write to it
 * is blocked, the netdev is deaf from then on: no later peer gets a frame.
 * Plain sockets show it; connections of the library, in whatever way they are
 * closed, never leave a netdev so.
 *
 * Skipped without QEMU, or failed if QNET_REQUIRE_QEMU=1.
 */
#include "qemu.h"

enum {
    TIMES = 10,
    STILL_MS = 40,   /* for so long nothing comes: QEMU's write is blocked */
    SILENT_MS = 1000 /* for so long nothing comes: the netdev is deaf */
};

struct setting {
    const char *name;
    const char *network;
    const char *netdev;
    size_t size; /* of the frames */
    int wedges;  /* whether a plain close leaves the netdev deaf */
};

/*
 * A frame that goes into the socket whole or not at all does no harm where QEMU
 * has accepted the connection: that socket is a blocking one, so that a blocked
 * write fails when the peer leaves, and nothing of it is kept to be written
 * later.
 */
static const struct setting settings[] = {
    { "unix, 1514", "unix", "stream,server=on,addr.type=unix,addr.path=%s", 1514, 0 },
    { "unix, 60000", "unix", "stream,server=on,addr.type=unix,addr.path=%s", 60000, 1 },
    { "tcp, 1514", "tcp", "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 1514,
      1 },
    { "tcp, 60000", "tcp", "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%s",
      60000, 1 },
};
enum { SETTINGS = sizeof settings / sizeof *settings };

/* The other way round: QEMU connects, and soon does so again after an end. */
#define CLIENT "stream,server=off,reconnect-ms=50,"
static const struct setting clients[] = {
    { "unix, 1514", "unix", CLIENT "addr.type=unix,addr.path=%s", 1514, 1 },
    { "unix, 60000", "unix", CLIENT "addr.type=unix,addr.path=%s", 60000, 1 },
    { "tcp, 1514", "tcp", CLIENT "addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 1514, 1 },
    { "tcp, 60000", "tcp", CLIENT "addr.type=inet,addr.host=127.0.0.1,addr.port=%s", 60000, 1 },
};
enum { CLIENTS = sizeof clients / sizeof *clients };

/* The setting that the running test is about. */
static const struct setting *setting_now;

/* ---- A QEMU that always has something to write ---- */

struct rig {
    struct qemu qemu;
    char address[TEXT]; /* of the netdev under test */
    int fed;            /* what is written here, QEMU writes to that netdev's peer */
    uint8_t *wire;      /* the frame that is written there, again and again */
    size_t len;
    pthread_t feeder;
};

static int is_client(void)
{
    return strncmp(setting_now->netdev, CLIENT, strlen(CLIENT)) == 0;
}

static int is_tcp(void)
{
    return strcmp(setting_now->network, "tcp") == 0;
}

/* Writes the frame again and again, until QEMU has gone. */
static void *feeding(void *argument)
{
    const struct rig *rig = argument;

    while (send(rig->fed, rig->wire, rig->len, MSG_NOSIGNAL) == (ssize_t)rig->len)
        ;
    return NULL;
}

static int connect_once(const struct rig *rig)
{
    if (is_tcp())
        return raw_tcp_connect(atoi(strrchr(rig->address, ':') + 1));
    return raw_unix_connect(rig->address);
}

/* Connects a plain socket to the netdev, as soon as QEMU listens. */
static int connect_plain(struct rig *rig)
{
    long long until_ms = raw_now_ms() + patience_ms();
    int fd = connect_once(rig);

    while (fd < 0 && raw_now_ms() < until_ms) {
        qemu_runs(&rig->qemu);
        raw_sleep_ms(5);
        fd = connect_once(rig);
    }
    CHECK(fd >= 0);
    return fd;
}

/*
 * A frame for a netdev that does not listen yet would end QEMU, so this waits
 * until one has come through it.
 */
static void wait_until_it_listens(struct rig *rig)
{
    uint8_t frame[60] = { 0 };
    int fd = connect_plain(rig);

    raw_send(fd, frame, sizeof frame);
    CHECK_INT(raw_recv(rig->fed, frame, sizeof frame), sizeof frame);
    close(fd);
}

static void choose_address(struct rig *rig)
{
    if (is_tcp()) {
        free_address(SOCK_STREAM, rig->address, sizeof rig->address);
        return;
    }
    snprintf(rig->address, sizeof rig->address, "%s", scratch_path("netdev"));
    unlink(rig->address);
}

static void add_netdevs(struct rig *rig, int inherited)
{
    const char *address = is_tcp() ? strrchr(rig->address, ':') + 1 : rig->address;
    char netdev[TEXT + 100];

    snprintf(netdev, sizeof netdev, setting_now->netdev, address);
    qemu_netdev(&rig->qemu, netdev);
    snprintf(netdev, sizeof netdev, "socket,fd=%d", inherited);
    qemu_netdev(&rig->qemu, netdev);
}

static void rig_start(struct rig *rig)
{
    struct flow flow = flow_of_one_size(&setting_now->size);
    struct bundle bundle = bundle_make(&flow, 1);
    int pair[2];

    need("stream");
    need("socket");
    memset(rig, 0, sizeof *rig);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(fcntl(pair[0], F_SETFD, FD_CLOEXEC) == 0);
    rig->fed = pair[0];
    rig->wire = bundle.wire;
    rig->len = bundle.len;
    free(bundle.frames);
    qemu_init(&rig->qemu);
    choose_address(rig);
    add_netdevs(rig, pair[1]);
    qemu_start(&rig->qemu);
    close(pair[1]);
    if (!is_client())
        wait_until_it_listens(rig);
    start_thread(&rig->feeder, feeding, rig);
}

static void rig_end(struct rig *rig)
{
    qemu_runs(&rig->qemu);
    qemu_end(&rig->qemu, SIGKILL);
    join_thread(rig->feeder);
    close(rig->fed);
    free(rig->wire);
}

/* Waits until QEMU's write to this socket is blocked: no more bytes arrive in it. */
static void wait_until_full(struct rig *rig, int fd)
{
    long long since_ms = raw_now_ms();
    int before = 0, now;

    do {
        qemu_runs(&rig->qemu);
        raw_sleep_ms(1);
        now = bytes_waiting(fd);
        if (now == 0 || now != before)
            since_ms = raw_now_ms();
        before = now;
    } while (raw_now_ms() - since_ms < STILL_MS);
}

/* ---- With plain sockets ---- */

/*
 * A plain close leaves the netdev deaf, as a rule at the first try. If it never
 * did, the tests of the library's connections would show nothing.
 */
static void plain_close_leaves_it_deaf(void)
{
    struct rig rig;
    int fd, times = 0;

    rig_start(&rig);
    fd = connect_plain(&rig);
    do {
        CHECK(times++ < TIMES);
        wait_until_full(&rig, fd);
        close(fd);
        fd = connect_plain(&rig);
    } while (raw_readable(fd, SILENT_MS));
    close(fd);
    rig_end(&rig);
}

/* ---- With the library's connections ---- */

static void by_close(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void by_shutdown(qnet_conn *conn)
{
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static void by_hub(qnet_conn *conn)
{
    qnet_hub *hub = NULL;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

static const struct way {
    const char *name;
    void (*leave)(qnet_conn *conn);
} ways[] = {
    { "close", by_close },
    { "shutdown_and_close", by_shutdown },
    { "hub_close_and_close", by_hub },
};
enum { WAYS = sizeof ways / sizeof *ways };

static const struct way *way_now;

static qnet_conn *dial(const struct rig *rig)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dial(setting_now->network, rig->address, &conn), QNET_OK);
    return conn;
}

/* Checks that a frame that goes into QEMU comes out here whole. */
static void check_hears(const struct rig *rig, qnet_conn *conn)
{
    static uint8_t frame[QNET_FRAME_MAX];

    CHECK_INT(qnet_recv(conn, frame, sizeof frame, patience_ms()), setting_now->size);
    CHECK(memcmp(frame, rig->wire + RAW_PREFIX, setting_now->size) == 0);
}

static void leaves_no_netdev_deaf(void)
{
    struct rig rig;
    qnet_conn *conn;
    int times;

    rig_start(&rig);
    conn = dial(&rig);
    for (times = 0; times < TIMES; times++) {
        wait_until_full(&rig, qnet_fd(conn));
        way_now->leave(conn);
        conn = dial(&rig);
        check_hears(&rig, conn);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    rig_end(&rig);
}

/* A QEMU that was writing when the hub that served it closed is heard by the next hub. */
static void hub_teardown_leaves_no_client_deaf(void)
{
    struct rig rig;
    int times;

    rig_start(&rig);
    for (times = 0; times < TIMES; times++) {
        qnet_listener *listener = NULL;
        qnet_conn *port = NULL;
        qnet_hub *hub = NULL;

        CHECK_INT(qnet_hub_new(&hub), QNET_OK);
        CHECK_INT(qnet_hub_port(hub, &port), QNET_OK);
        CHECK_INT(qnet_listen(setting_now->network, rig.address, &listener), QNET_OK);
        CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
        check_hears(&rig, port);
        CHECK_INT(qnet_hub_close(hub), QNET_OK);
        CHECK_INT(qnet_close(port), QNET_OK);
    }
    rig_end(&rig);
}

static void run_setting(void)
{
    char name[120];
    int i;

    snprintf(name, sizeof name, "plain_close_leaves_it_deaf (%s)", setting_now->name);
    if (setting_now->wedges)
        run(name, plain_close_leaves_it_deaf);
    for (i = 0; i < WAYS; i++) {
        way_now = &ways[i];
        snprintf(name, sizeof name, "%s_leaves_no_netdev_deaf (%s)", way_now->name,
                 setting_now->name);
        run(name, leaves_no_netdev_deaf);
    }
}

int main(void)
{
    int i;

    learn_about_qemu();
    scratch_make();
    for (i = 0; i < SETTINGS; i++) {
        setting_now = &settings[i];
        run_setting();
    }
    for (i = 0; i < CLIENTS && qemu_version >= 902; i++) {
        char name[120];

        setting_now = &clients[i];
        snprintf(name, sizeof name, "hub_teardown_leaves_no_client_deaf (%s)", setting_now->name);
        run(name, hub_teardown_leaves_no_client_deaf);
    }
    scratch_remove();
    return check_done();
}
