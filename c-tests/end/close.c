/*
 * close.c - when a close has returned, the object is closed: the number of its
 * descriptor is free, its address can be bound again and its file is gone. This
 * holds whoever was waiting on it, in any call or on a thread of the library's,
 * and whether or not closing waits for callbacks.
 */
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "calls.h"
#include "scratch.h"

enum { TURNS = 200 };

/* The file behind a descriptor, to tell it from another file that gets the same number. */
struct identity {
    int fd;
    dev_t device;
    ino_t inode;
};

static struct identity identity_of(int fd)
{
    struct identity identity;
    struct stat stat;

    CHECK(fd >= 0);
    CHECK(fstat(fd, &stat) == 0);
    identity.fd = fd;
    identity.device = stat.st_dev;
    identity.inode = stat.st_ino;
    return identity;
}

static void check_closed(struct identity identity)
{
    struct stat stat;

    CHECK(fstat(identity.fd, &stat) != 0 || stat.st_dev != identity.device ||
          stat.st_ino != identity.inode);
}

/* Whether the descriptor of that number is a socket or an epoll set. */
static int is_sockets(const char *number)
{
    char path[300], target[64] = "";

    snprintf(path, sizeof path, "/proc/self/fd/%s", number);
    return readlink(path, target, sizeof target - 1) > 0 &&
           (strncmp(target, "socket:", 7) == 0 || strstr(target, "eventpoll"));
}

static int sockets_now(void)
{
    return count_entries("/proc/self/fd", is_sockets);
}

/* A thread that makes one call on each connection or listener that it is given. */
struct guest {
    pthread_t thread;
    pthread_barrier_t barrier;
    int (*call)(struct guest *);
    int (*on_conn)(qnet_conn *);
    qnet_conn *conn;
    qnet_listener *listener;
    int tid, in_call, result;
};

static int call_on_conn(struct guest *guest)
{
    return guest->on_conn(guest->conn);
}

static int call_accept(struct guest *guest)
{
    qnet_conn *conn;

    return qnet_accept(guest->listener, -1, &conn);
}

static void *be_guest(void *argument)
{
    struct guest *guest = argument;

    put(&guest->tid, (int)syscall(SYS_gettid));
    for (;;) {
        pthread_barrier_wait(&guest->barrier);
        if (!guest->conn && !guest->listener)
            return NULL;
        put(&guest->in_call, 1);
        guest->result = guest->call(guest);
        put(&guest->in_call, 0);
        pthread_barrier_wait(&guest->barrier);
    }
}

static void guest_start(struct guest *guest, int (*call)(struct guest *), int (*on_conn)(qnet_conn *))
{
    memset(guest, 0, sizeof *guest);
    guest->call = call;
    guest->on_conn = on_conn;
    CHECK_INT(pthread_barrier_init(&guest->barrier, NULL, 2), 0);
    start_thread(&guest->thread, be_guest, guest);
}

/* Has the guest make its call, and returns once the guest sleeps inside it. */
static void guest_enter(struct guest *guest, qnet_conn *conn, qnet_listener *listener)
{
    guest->conn = conn;
    guest->listener = listener;
    pthread_barrier_wait(&guest->barrier);
    EVENTUALLY(get(&guest->in_call) && is_asleep(get(&guest->tid)));
}

static void guest_leaves(struct guest *guest, int want)
{
    pthread_barrier_wait(&guest->barrier);
    CHECK_INT(guest->result, want);
}

static void guest_ends(struct guest *guest)
{
    guest->conn = NULL;
    guest->listener = NULL;
    pthread_barrier_wait(&guest->barrier);
    join_thread(guest->thread);
    CHECK_INT(pthread_barrier_destroy(&guest->barrier), 0);
}

/* ---- Datagram sockets ---- */

/* A local address to bind again and again, and a remote one where nobody is. */
struct address {
    const char *network;
    char local[200], remote[200];
};

enum { ADDRESSES = 3 };

static void make_addresses(struct address addresses[ADDRESSES])
{
    qnet_conn *conn;

    memset(addresses, 0, ADDRESSES * sizeof *addresses);
    addresses[0].network = "udp";
    snprintf(addresses[0].remote, sizeof addresses[0].remote, "127.0.0.1:9");
    CHECK_INT(qnet_dgram("udp", "127.0.0.1:0", "127.0.0.1:9", &conn), QNET_OK);
    CHECK(qnet_local_addr(conn, addresses[0].local, sizeof addresses[0].local) > 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    addresses[1].network = "unixgram";
    snprintf(addresses[1].local, sizeof addresses[1].local, "%s", scratch_path("local"));
    snprintf(addresses[1].remote, sizeof addresses[1].remote, "%s", scratch_path("remote"));
    addresses[2].network = "unixgram";
    snprintf(addresses[2].local, sizeof addresses[2].local, "%s", scratch_abstract("local"));
    snprintf(addresses[2].remote, sizeof addresses[2].remote, "%s", scratch_abstract("remote"));
}

static qnet_conn *open_at(const struct address *address, int waits)
{
    qnet_conn *conn = NULL;

    CHECK_INT(qnet_dgram(address->network, address->local, address->remote, &conn), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, waits), QNET_OK);
    return conn;
}

static void close_now(qnet_conn *conn)
{
    struct identity identity = identity_of(qnet_fd(conn));

    CHECK_INT(qnet_close(conn), QNET_OK);
    check_closed(identity);
}

static const struct {
    int (*call)(qnet_conn *);
    int woken_with;
} calls[] = {
    { make_recv, QNET_ERR_CLOSED },
    { make_recv_batch, QNET_ERR_CLOSED },
    { make_poll, 1 },
    { make_wait, QNET_OK },
};
enum { CALLS = sizeof calls / sizeof *calls };

/* Another thread is blocked in a call on the connection that is closed. */
static void reopened_beside_a_call(void)
{
    struct address addresses[ADDRESSES];
    int i, turn, call, waits;

    make_addresses(addresses);
    for (i = 0; i < ADDRESSES; i++)
        for (call = 0; call < CALLS; call++) {
            struct guest guest;

            guest_start(&guest, call_on_conn, calls[call].call);
            for (turn = 0; turn < rounds(TURNS); turn++)
                for (waits = 0; waits < 2; waits++) {
                    qnet_conn *conn = open_at(&addresses[i], waits);

                    guest_enter(&guest, conn, NULL);
                    close_now(conn);
                    conn = open_at(&addresses[i], waits);
                    close_now(conn);
                    guest_leaves(&guest, calls[call].woken_with);
                }
            guest_ends(&guest);
        }
}

/* The service thread holds frames of the connection, which it would write much later. */
static void reopened_behind_the_service_thread(void)
{
    struct address addresses[ADDRESSES];
    uint8_t frame[60] = { 0 };
    int i, turn, sends;

    make_addresses(addresses);
    for (i = 0; i < ADDRESSES; i++)
        for (turn = 0; turn < rounds(TURNS); turn++) {
            qnet_conn *conn = open_at(&addresses[i], turn % 2);

            CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 1000000), QNET_OK);
            for (sends = 0; sends < 3; sends++)
                CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
            if (turn % 4 < 2)
                raw_sleep_ms(1);
            close_now(conn);
        }
}

static void never_called(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    (void)frame;
    (void)len;
    CHECK(0);
}

/* A handler's or a hub's thread waits for the connection to become readable. */
static void reopened_behind_library_threads(void)
{
    struct address addresses[ADDRESSES];
    qnet_hub *hub;
    int i, turn;

    make_addresses(addresses);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    for (i = 0; i < ADDRESSES; i++)
        for (turn = 0; turn < rounds(TURNS); turn++) {
            qnet_conn *conn = open_at(&addresses[i], turn % 2);

            if (turn % 4 < 2)
                CHECK_INT(qnet_set_handler(conn, never_called, NULL), QNET_OK);
            else
                CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
            if (turn % 8 < 4)
                raw_sleep_ms(1);
            close_now(conn);
        }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/* ---- Streams ---- */

static int make_flush(qnet_conn *conn)
{
    return qnet_flush(conn);
}

/* Threads wait on both directions of a stream, whose peer does not read. */
static void closed_beside_a_sender_and_a_flush(void)
{
    static int (*const writing[])(qnet_conn *) = { make_send, make_flush };
    int i, turn, fd;

    for (i = 0; i < 2; i++) {
        struct guest reader, writer;

        guest_start(&reader, call_on_conn, make_recv);
        guest_start(&writer, call_on_conn, writing[i]);
        for (turn = 0; turn < rounds(TURNS); turn++) {
            qnet_conn *conn = raw_pair(&fd);

            CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, turn % 2), QNET_OK);
            CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 4608), QNET_OK);
            CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, 0), QNET_OK);
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
            CHECK_INT(qnet_set(conn, QNET_OPT_TX_USECS, 1000000), QNET_OK);
            while (make_send(conn) == QNET_OK)
                ;
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, -1), QNET_OK);
            guest_enter(&reader, conn, NULL);
            guest_enter(&writer, conn, NULL);
            close_now(conn);
            guest_leaves(&reader, QNET_ERR_CLOSED);
            guest_leaves(&writer, QNET_ERR_CLOSED);
            close(fd);
        }
        guest_ends(&reader);
        guest_ends(&writer);
    }
}

/*
 * A connection that is down has a stand-in socket, a descriptor for qnet_fd
 * that follows its sockets, and a thread that waits to dial.
 */
static void closed_while_down(void)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 60000 };
    struct guest guest;
    qnet_conn *other;
    int turn, before;

    guest_start(&guest, call_on_conn, make_recv);
    /* The dialling thread has an epoll set of its own, which `other` keeps open throughout. */
    CHECK_INT(qnet_dial_with("unix", scratch_path("nobody"), options, 1, &other), QNET_OK);
    before = sockets_now();
    for (turn = 0; turn < rounds(TURNS); turn++) {
        qnet_conn *conn;

        CHECK_INT(qnet_dial_with("unix", scratch_path("nobody"), options, 1, &conn), QNET_OK);
        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, turn % 2), QNET_OK);
        CHECK(qnet_fd(conn) >= 0);
        guest_enter(&guest, conn, NULL);
        CHECK(sockets_now() > before);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK_INT(sockets_now(), before);
        guest_leaves(&guest, QNET_ERR_CLOSED);
    }
    CHECK_INT(qnet_close(other), QNET_OK);
    guest_ends(&guest);
}

/* A close handler inside a receive closes its connection, without waiting for that receive. */
static void close_inside(void *user, int reason)
{
    struct identity identity = identity_of(qnet_fd(user));

    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(qnet_close(user), QNET_OK);
    check_closed(identity);
}

static void closed_inside_a_receive(void)
{
    int turn, fd;

    for (turn = 0; turn < rounds(TURNS); turn++) {
        qnet_conn *conn = raw_pair(&fd);

        CHECK_INT(qnet_set(conn, QNET_OPT_WAIT, turn % 2), QNET_OK);
        CHECK_INT(qnet_set_close_handler(conn, close_inside, conn), QNET_OK);
        close(fd);
        CHECK_INT(make_recv(conn), QNET_ERR_CLOSED);
        CHECK_INT(qnet_fd(conn), QNET_ERR_HANDLE);
    }
}

/* ---- Listeners and hubs ---- */

static void reopened_beside_an_accept(void)
{
    char tcp[64];
    const char *addresses[3][2] = { { "tcp", NULL }, { "unix", NULL }, { "unix", NULL } };
    qnet_listener *listener;
    int i, turn;

    CHECK_INT(qnet_listen("tcp", "127.0.0.1:0", &listener), QNET_OK);
    CHECK(qnet_listener_addr(listener, tcp, sizeof tcp) > 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    addresses[0][1] = tcp;
    addresses[1][1] = scratch_path("listener");
    addresses[2][1] = scratch_abstract("listener");
    for (i = 0; i < 3; i++) {
        struct guest guest;

        guest_start(&guest, call_accept, NULL);
        for (turn = 0; turn < rounds(TURNS); turn++) {
            struct identity identity;

            CHECK_INT(qnet_listen(addresses[i][0], addresses[i][1], &listener), QNET_OK);
            identity = identity_of(qnet_listener_fd(listener));
            guest_enter(&guest, NULL, listener);
            CHECK_INT(qnet_listener_close(listener), QNET_OK);
            check_closed(identity);
            CHECK_INT(qnet_listen(addresses[i][0], addresses[i][1], &listener), QNET_OK);
            CHECK_INT(qnet_listener_close(listener), QNET_OK);
            guest_leaves(&guest, QNET_ERR_CLOSED);
        }
        guest_ends(&guest);
    }
}

/* The close handler of a served connection, which may be running when its hub is closed. */
struct served {
    int waits, ended, may_go;
};

static void served_ends(void *user, int reason)
{
    struct served *served = user;

    CHECK_INT(reason, QNET_ERR_CLOSED);
    if (!served->waits)
        EVENTUALLY(get(&served->may_go));
    put(&served->ended, 1);
}

/*
 * Closing a hub closes its listener and the served connections; with
 * QNET_OPT_WAIT 0 it does not wait for their close handlers.
 */
static void hub_closes_what_it_served(void)
{
    const char *path = scratch_path("hub");
    int turn;

    for (turn = 0; turn < rounds(TURNS); turn++) {
        struct served served = { turn % 2, 0, 0 };
        struct identity listening, connected;
        qnet_listener *listener;
        qnet_conn *conn;
        qnet_hub *hub;
        int fd;

        CHECK_INT(qnet_hub_new(&hub), QNET_OK);
        CHECK_INT(qnet_listen("unix", path, &listener), QNET_OK);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_WAIT, served.waits), QNET_OK);
        listening = identity_of(qnet_listener_fd(listener));
        CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
        fd = raw_unix_connect(path);
        EVENTUALLY(qnet_hub_ports(hub, &conn, 1) == 1);
        connected = identity_of(qnet_fd(conn));
        CHECK_INT(qnet_set_close_handler(conn, served_ends, &served), QNET_OK);
        CHECK_INT(qnet_hub_close(hub), QNET_OK);
        check_closed(listening);
        check_closed(connected);
        CHECK_INT(get(&served.ended), served.waits);
        put(&served.may_go, 1);
        EVENTUALLY(get(&served.ended));
        close(fd);
    }
}

int main(void)
{
    scratch_make();
    RUN(reopened_beside_a_call);
    RUN(reopened_behind_the_service_thread);
    RUN(reopened_behind_library_threads);
    RUN(closed_beside_a_sender_and_a_flush);
    RUN(closed_while_down);
    RUN(closed_inside_a_receive);
    RUN(reopened_beside_an_accept);
    RUN(hub_closes_what_it_served);
    scratch_remove();
    return check_done();
}
