/*
 * loops.c - a loop, which all of a hub's ports share, never yields the
 * processor, and never waits for a lock that a caller holds during a system
 * call; and it copes with what others do meanwhile. A caller in this program
 * can be held at a gate inside a system call: send(), with the connection's
 * sending part locked, setsockopt(), with its state locked, epoll_ctl(), and
 * pthread_create().
 */
#include <dlfcn.h>
#include <sys/epoll.h>

#include "macs.h"
#include "scratch.h"

enum { SAID = 100 };

/* ---- Between the library and the C library ---- */

/* The gates before a system call and after it. */
enum gate { ENTRY, EXIT, GATES };

static int yields, threads_refused, gate_shut[GATES], gate_reached[GATES];
static __thread int is_for_the_gate;

static void shut_gate(enum gate gate)
{
    put(&gate_reached[gate], 0);
    put(&gate_shut[gate], 1);
}

static void wait_at(enum gate gate)
{
    put(&gate_reached[gate], 1);
    while (get(&gate_shut[gate]))
        raw_sleep_ms(1);
}

/* Whether the calling thread is to wait at the gate in this call; it does so only once. */
static int is_gates_turn(void)
{
    int is_turn = is_for_the_gate;

    is_for_the_gate = 0;
    return is_turn;
}

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    CHECK(found != NULL);
    return found;
}

int sched_yield(void)
{
    count_up(&yields);
    return (int)syscall(SYS_sched_yield);
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*body)(void *), void *restrict argument)
{
    static __typeof__(&pthread_create) next;

    if (get(&threads_refused) > 0) {
        put(&threads_refused, get(&threads_refused) - 1);
        return EAGAIN;
    }
    if (is_gates_turn())
        wait_at(ENTRY);
    if (!next)
        *(void **)&next = real("pthread_create");
    return next(thread, attributes, body, argument);
}

/* A thread whose turn it is waits here, before its frame goes into the socket. */
ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    if (is_gates_turn())
        wait_at(ENTRY);
    return sendto(fd, bytes, len, flags, NULL, 0);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (is_gates_turn())
        wait_at(ENTRY);
    return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

int epoll_ctl(int set, int what, int fd, struct epoll_event *event)
{
    int is_turn = what == EPOLL_CTL_DEL && is_gates_turn(), result;

    if (is_turn)
        wait_at(ENTRY);
    result = (int)syscall(SYS_epoll_ctl, set, what, fd, event);
    if (is_turn)
        wait_at(EXIT);
    return result;
}

/* ---- A caller that is inside a system call of a send ---- */

struct sender {
    qnet_conn *conn;
    pthread_t thread;
    int result;
};

static const struct word senders_word = { 1, 500, 77, MAC_FRAME };

static void *sending_at_the_gate(void *argument)
{
    struct sender *sender = argument;
    uint8_t frame[MAC_FRAME];

    word_make(frame, senders_word);
    is_for_the_gate = 1;
    sender->result = qnet_send(sender->conn, frame, sizeof frame);
    return NULL;
}

static void sender_start(struct sender *sender, qnet_conn *conn)
{
    sender->conn = conn;
    shut_gate(ENTRY);
    start_thread(&sender->thread, sending_at_the_gate, sender);
    EVENTUALLY(get(&gate_reached[ENTRY]));
}

static int sender_end(struct sender *sender)
{
    put(&gate_shut[ENTRY], 0);
    join_thread(sender->thread);
    return sender->result;
}

static void *asking_for_stats(void *argument)
{
    stats_of(argument);
    return NULL;
}

static void *setting(void *argument)
{
    CHECK_INT(qnet_set(argument, QNET_OPT_LINGER_MS, 1000), QNET_OK);
    return NULL;
}

static void *shutting_down(void *argument)
{
    CHECK_INT(qnet_shutdown(argument), QNET_OK);
    return NULL;
}

static void *closing(void *argument)
{
    CHECK_INT(qnet_close(argument), QNET_OK);
    return NULL;
}

/* Starts a thread that is about to wait for the one at the gate. */
static pthread_t start_waiting(void *(*body)(void *), qnet_conn *conn)
{
    pthread_t thread;

    start_thread(&thread, body, conn);
    raw_sleep_ms(20);
    return thread;
}

/* Device 0 says something to everybody `count` times, and device 1 hears it each time. */
static void others_go_on(struct room *room, int count)
{
    int i;

    for (i = 0; i < count; i++) {
        device_says(&room->devices[0], EVERYBODY, MAC_FRAME);
        device_hears(&room->devices[1], &room->devices[0], EVERYBODY);
    }
}

/* What `device` hears next is the sender's frame, and then the last `count` that `from` said. */
static void hears_sender_then(const struct device *device, const struct device *from, unsigned count)
{
    unsigned i;

    CHECK_INT(raw_hear(device->fd).from, senders_word.from);
    for (i = count; i > 0; i--) {
        struct word word = raw_hear(device->fd);

        CHECK_INT(word.from, from->n);
        CHECK_INT(word.number, from->said - i);
    }
}

static void a_held_port_holds_nobody_up(void)
{
    struct room room;
    struct device *held = &room.devices[2];
    struct sender sender;
    pthread_t waiting[2];
    uint64_t before;

    room_open(&room, 3);
    before = stats_of(held->conn).tx_frames;
    sender_start(&sender, held->conn);
    waiting[0] = start_waiting(asking_for_stats, held->conn);
    waiting[1] = start_waiting(setting, held->conn);
    others_go_on(&room, SAID);
    /* What the held port's device says is forwarded, too. */
    device_says(held, EVERYBODY, MAC_FRAME);
    device_hears(&room.devices[0], held, EVERYBODY);
    device_hears(&room.devices[1], held, EVERYBODY);
    CHECK_INT(bytes_waiting(held->fd), 0);
    CHECK_INT(sender_end(&sender), QNET_OK);
    hears_sender_then(held, &room.devices[0], SAID);
    join_thread(waiting[0]);
    join_thread(waiting[1]);
    EVENTUALLY(stats_of(held->conn).tx_frames == before + 1 + SAID);
    CHECK_INT(stats_of(held->conn).tx_dropped, 0);
    CHECK_INT(hub_stats_of(room.hub).dropped, 0);
    room_is_quiet(&room);
    room_close(&room);
}

/* The frames left for a held port are bounded as its queue is. */
static void a_held_port_has_a_bounded_queue(void)
{
    enum { ROOM_FOR = 20, WIRE = RAW_PREFIX + MAC_FRAME };
    struct room room;
    struct device *held = &room.devices[2];
    struct sender sender;
    int i;

    room_open(&room, 3);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_QUEUE_BYTES, ROOM_FOR * WIRE + WIRE / 2), QNET_OK);
    sender_start(&sender, held->conn);
    others_go_on(&room, SAID);
    CHECK_INT(hub_stats_of(room.hub).dropped, SAID - ROOM_FOR);
    CHECK_INT(sender_end(&sender), QNET_OK);
    CHECK_INT(raw_hear(held->fd).from, senders_word.from);
    for (i = SAID; i > SAID - ROOM_FOR; i--)
        CHECK_INT(raw_hear(held->fd).number, room.devices[0].said - (unsigned)i);
    EVENTUALLY(stats_of(held->conn).tx_dropped == SAID - ROOM_FOR);
    CHECK_INT(hub_stats_of(room.hub).dropped, SAID - ROOM_FOR);
    room_is_quiet(&room);
    room_close(&room);
}

/*
 * A frame that is too long for a held port is dropped at once, and one that is
 * too short is padded.
 */
static void a_held_port_has_its_own_lengths(void)
{
    struct room room;
    struct device *held = &room.devices[2];
    uint8_t frame[MAC_FRAME];
    struct sender sender;

    room_open(&room, 3);
    CHECK_INT(qnet_set(held->conn, QNET_OPT_PAD, 1), QNET_OK);
    CHECK_INT(qnet_set(held->conn, QNET_OPT_MAX_FRAME, MAC_FRAME), QNET_OK);
    sender_start(&sender, held->conn);
    device_says(&room.devices[0], EVERYBODY, MAC_FRAME + 1);
    device_hears(&room.devices[1], &room.devices[0], EVERYBODY);
    CHECK_INT(hub_stats_of(room.hub).dropped, 1);
    device_says(&room.devices[0], EVERYBODY, MAC_FRAME_LEAST);
    device_hears(&room.devices[1], &room.devices[0], EVERYBODY);
    CHECK_INT(sender_end(&sender), QNET_OK);
    CHECK_INT(raw_hear(held->fd).from, senders_word.from);
    CHECK_INT(raw_recv(held->fd, frame, sizeof frame), MAC_FRAME);
    EVENTUALLY(stats_of(held->conn).tx_dropped == 1);
    CHECK_INT(hub_stats_of(room.hub).dropped, 1);
    room_is_quiet(&room);
    room_close(&room);
}

/* A link still loses nothing: while one side is held, the other is not read. */
static void a_held_side_stops_the_other(void)
{
    struct flow flow = flow_of_all_sizes(), received = flow;
    unsigned count = 1000 + (unsigned)rounds(2000);
    struct device one, other;
    struct raw_job writer;
    struct sender sender;
    struct room room;
    uint64_t read;

    room_open(&room, 2);
    device_open(&one, 1);
    device_open(&other, 2);
    CHECK_INT(qnet_set(other.conn, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    CHECK_INT(qnet_link(one.conn, other.conn), QNET_OK);
    sender_start(&sender, other.conn);
    raw_start(&writer, raw_writing, one.fd, flow, count);
    EVENTUALLY(raw_is_held(one.fd));
    read = stats_of(one.conn).rx_frames;
    CHECK(read < count);
    room_is_quiet(&room);
    CHECK_INT(stats_of(one.conn).rx_frames, read);
    CHECK_INT(sender_end(&sender), QNET_OK);
    CHECK_INT(raw_hear(other.fd).from, senders_word.from);
    raw_take_until(other.fd, &received, count);
    join_thread(writer.thread);
    EVENTUALLY(stats_of(other.conn).tx_frames == count + 1);
    CHECK_INT(stats_of(other.conn).tx_dropped, 0);
    device_close(&one);
    device_close(&other);
    room_close(&room);
}

/* Frames left for a held port are written after it was detached, and counted once. */
static void what_is_left_is_written_after_detaching(void)
{
    struct room room;
    struct device *held = &room.devices[2];
    struct sender sender;
    pthread_t waiting;
    uint64_t before;

    room_open(&room, 3);
    before = stats_of(held->conn).tx_frames;
    sender_start(&sender, held->conn);
    others_go_on(&room, SAID);
    waiting = start_waiting(asking_for_stats, held->conn);
    put(&gate_shut[ENTRY], 0);
    CHECK_INT(qnet_hub_detach(room.hub, held->conn), QNET_OK);
    CHECK_INT(sender_end(&sender), QNET_OK);
    join_thread(waiting);
    hears_sender_then(held, &room.devices[0], SAID);
    CHECK_INT(qnet_flush(held->conn), QNET_OK);
    CHECK_INT(stats_of(held->conn).tx_frames, before + 1 + SAID);
    CHECK_INT(stats_of(held->conn).tx_dropped, 0);
    room_close(&room);
}

/* Frames left for a held port are written before its connection ends. */
static void left_and_ended(void *(*ending)(void *))
{
    struct room room;
    struct device *held = &room.devices[2];
    struct sender sender;
    pthread_t waiting;

    room_open(&room, 3);
    sender_start(&sender, held->conn);
    others_go_on(&room, SAID);
    waiting = start_waiting(ending, held->conn);
    others_go_on(&room, 1);
    CHECK_INT(sender_end(&sender), QNET_OK);
    join_thread(waiting);
    hears_sender_then(held, &room.devices[0], SAID + 1);
    raw_take_end(held->fd);
    held->is_away = 1;
    room_is_quiet(&room);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    device_close(&room.devices[0]);
    device_close(&room.devices[1]);
    if (ending == shutting_down)
        CHECK_INT(qnet_close(held->conn), QNET_OK);
    CHECK(close(held->fd) == 0);
}

static void what_is_left_is_written_before_a_shutdown(void)
{
    left_and_ended(shutting_down);
}

static void what_is_left_is_written_before_a_close(void)
{
    left_and_ended(closing);
}

/* Frames left for a port whose peer has left are counted as dropped, and once. */
static void what_is_left_for_nobody_is_counted(void)
{
    struct room room;
    struct device *held = &room.devices[2];
    struct sender sender;
    uint64_t before;

    room_open(&room, 3);
    before = stats_of(held->conn).tx_frames;
    sender_start(&sender, held->conn);
    others_go_on(&room, SAID);
    CHECK(close(held->fd) == 0);
    others_go_on(&room, SAID);
    CHECK(sender_end(&sender) != QNET_OK);
    EVENTUALLY(ports_of(room.hub) == 2);
    CHECK_INT(stats_of(held->conn).tx_frames, before);
    CHECK(stats_of(held->conn).tx_dropped >= SAID);
    CHECK(stats_of(held->conn).tx_dropped <= 2 * SAID);
    CHECK_INT(qnet_hub_close(room.hub), QNET_OK);
    CHECK_INT(qnet_close(held->conn), QNET_OK);
    device_close(&room.devices[0]);
    device_close(&room.devices[1]);
}

/* A port that goes down and comes up while a sender is at the gate disturbs no other port. */
static void a_held_port_is_dialled_again(void)
{
    static const int64_t options[][2] = { { QNET_OPT_RECONNECT_MS, 10 } };
    const char *place = scratch_abstract("again");
    int listener = raw_unix_listen(place);
    struct device held = { NULL, -1, 3, 0, 0 };
    struct sender sender;
    struct room room;
    qnet_stats stats;

    room_open(&room, 2);
    CHECK_INT(qnet_dial_with("unix", place, options[0], 1, &held.conn), QNET_OK);
    held.fd = accept(listener, NULL, NULL);
    CHECK(held.fd >= 0);
    CHECK_INT(qnet_hub_attach(room.hub, held.conn), QNET_OK);
    others_go_on(&room, 1);
    device_hears(&held, &room.devices[0], EVERYBODY);
    sender_start(&sender, held.conn);
    others_go_on(&room, SAID);
    CHECK(close(held.fd) == 0);
    others_go_on(&room, SAID);
    CHECK_INT(sender_end(&sender), QNET_OK);
    held.fd = accept(listener, NULL, NULL);
    CHECK(held.fd >= 0);
    device_says(&held, EVERYBODY, MAC_FRAME);
    device_hears(&room.devices[0], &held, EVERYBODY);
    device_hears(&room.devices[1], &held, EVERYBODY);
    EVENTUALLY(stats_of(held.conn).reconnects == 1);
    device_says(&room.devices[0], held.n, MAC_FRAME);
    CHECK_INT(raw_hear(held.fd).from, room.devices[0].n);
    stats = stats_of(held.conn);
    CHECK_INT(stats.tx_frames + stats.tx_dropped, 1 + SAID + 1 + SAID + 1);
    room_close(&room);
    device_close(&held);
    CHECK(close(listener) == 0);
}

/* ---- A link that changes while others use it ---- */

static void *unlinking_at_the_gate(void *conn)
{
    is_for_the_gate = 1;
    CHECK_INT(qnet_unlink(conn), QNET_OK);
    return NULL;
}

/*
 * A loop takes a socket out of its epoll set and puts it in again, while an
 * unlink takes it out, too: afterwards it is not in the set.
 */
static void nothing_of_a_link_stays_in_the_set(void)
{
    enum { MANY = 1000 };
    static const size_t size = 9000;
    struct flow flow = flow_of_one_size(&size), received = flow;
    struct device one, other;
    struct raw_job writer;
    pthread_t thread;
    int i;

    device_open(&one, 1);
    device_open(&other, 2);
    CHECK_INT(qnet_link(one.conn, other.conn), QNET_OK);
    raw_send_flow(one.fd, &flow, 1, 0);
    raw_take(other.fd, &received);
    shut_gate(ENTRY);
    shut_gate(EXIT);
    /* This takes the other side out first. */
    start_thread(&thread, unlinking_at_the_gate, other.conn);
    EVENTUALLY(get(&gate_reached[ENTRY]));
    raw_start(&writer, raw_writing, one.fd, flow, MANY);
    EVENTUALLY(raw_is_held(one.fd));
    put(&gate_shut[ENTRY], 0);
    EVENTUALLY(get(&gate_reached[EXIT]));
    raw_take_until(other.fd, &received, 1 + MANY);
    join_thread(writer.thread);
    raw_send_flow(one.fd, &writer.flow, 1, 0);
    raw_take(other.fd, &received);
    put(&gate_shut[EXIT], 0);
    join_thread(thread);
    for (i = 0; i < MOST_LOOPS; i++) {
        CHECK_INT(qnet_link(one.conn, other.conn), QNET_OK);
        raw_send_flow(one.fd, &writer.flow, 1, 0);
        raw_take(other.fd, &received);
        CHECK_INT(qnet_unlink(one.conn), QNET_OK);
    }
    device_close(&one);
    device_close(&other);
}

static void *setting_a_buffer_at_the_gate(void *conn)
{
    is_for_the_gate = 1;
    CHECK_INT(qnet_set(conn, QNET_OPT_RCVBUF, 100000), QNET_OK);
    return NULL;
}

/*
 * One side of a link has ended, and a caller sends on the other side before
 * that ends as well: the frame is written first, and then the other side ends
 * all the same.
 */
static void a_late_send_delays_an_end_and_no_more(void)
{
    static uint8_t frame[60000], heard[60000];
    struct device one, other;
    pthread_t thread;

    device_open(&one, 1);
    device_open(&other, 2);
    CHECK_INT(qnet_set(other.conn, QNET_OPT_SNDBUF, 10000), QNET_OK);
    CHECK_INT(qnet_set(other.conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_link(one.conn, other.conn), QNET_OK);
    shut_gate(ENTRY);
    start_thread(&thread, setting_a_buffer_at_the_gate, other.conn);
    EVENTUALLY(get(&gate_reached[ENTRY]));
    CHECK(shutdown(one.fd, SHUT_WR) == 0);
    EVENTUALLY(qnet_close_reason(one.conn) == QNET_ERR_CLOSED);
    raw_sleep_ms(50);
    frame_make(frame, sizeof frame, 1);
    CHECK_INT(qnet_send(other.conn, frame, sizeof frame), QNET_OK);
    put(&gate_shut[ENTRY], 0);
    join_thread(thread);
    raw_sleep_ms(50);
    CHECK_INT(raw_recv(other.fd, heard, sizeof heard), sizeof heard);
    CHECK_INT(qnet_wait(other.conn, patience_ms()), QNET_OK);
    raw_take_end(other.fd);
    CHECK_INT(stats_of(other.conn).tx_frames, 1);
    device_close(&one);
    device_close(&other);
}

/* ---- Ports that do not read ---- */

static void full_ports_are_no_reason_to_yield(void)
{
    enum { FULL = 100, SMALL_BUFFER = 4608 };
    static struct device full[FULL];
    struct room room;
    int i;

    room_open(&room, 2);
    CHECK_INT(qnet_hub_set(room.hub, QNET_OPT_QUEUE_BYTES, 1024), QNET_OK);
    for (i = 0; i < FULL; i++) {
        device_open(&full[i], 10 + i);
        CHECK_INT(qnet_set(full[i].conn, QNET_OPT_SNDBUF, SMALL_BUFFER), QNET_OK);
        CHECK_INT(qnet_set(full[i].conn, QNET_OPT_LINGER_MS, 0), QNET_OK);
        CHECK_INT(qnet_hub_attach(room.hub, full[i].conn), QNET_OK);
    }
    for (i = 0; i < FULL; i++)
        while (stats_of(full[i].conn).tx_dropped == 0)
            others_go_on(&room, 1);
    put(&yields, 0);
    others_go_on(&room, SAID);
    CHECK_INT(get(&yields), 0);
    room_close(&room);
    for (i = 0; i < FULL; i++)
        device_close(&full[i]);
}

/*
 * Threads that ask the hub again and again, as long as this is set, are no
 * reason to yield either.
 */
static int is_asked;

static void *asking(void *hub)
{
    while (get(&is_asked)) {
        hub_stats_of(hub);
        ports_of(hub);
    }
    return NULL;
}

static void questions_are_no_reason_to_yield(void)
{
    struct room room;
    pthread_t threads[3];
    int i;

    room_open(&room, 3);
    put(&yields, 0);
    put(&is_asked, 1);
    for (i = 0; i < 3; i++)
        start_thread(&threads[i], asking, room.hub);
    for (i = 0; i < rounds(1000); i++)
        room_is_quiet(&room);
    put(&is_asked, 0);
    for (i = 0; i < 3; i++)
        join_thread(threads[i]);
    CHECK_INT(get(&yields), 0);
    room_close(&room);
}

/* ---- Trying again what the system refused ---- */

/* A loop that was refused a thread tries again by itself, although no traffic wakes it. */
static void without_threads_closing_a_hub_only_takes_longer(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    qnet_hub *quiet[MOST_LOOPS], *hub;
    struct device idle[MOST_LOOPS];
    qnet_conn *conns[1], *port;
    int i;

    for (i = 0; i < MOST_LOOPS; i++) {
        CHECK_INT(qnet_hub_new(&quiet[i]), QNET_OK);
        device_open(&idle[i], i);
        CHECK_INT(qnet_hub_attach(quiet[i], idle[i].conn), QNET_OK);
    }
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &port), QNET_OK);
    CHECK_INT(qnet_hub_ports(hub, conns, 1), 1);
    CHECK_INT(qnet_set_close_handler(conns[0], ending_told, &ending), QNET_OK);
    raw_sleep_ms(50);
    put(&threads_refused, 6);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    check_told(&ending, QNET_ERR_CLOSED);
    CHECK_INT(get(&threads_refused), 0);
    CHECK_INT(qnet_close(port), QNET_OK);
    for (i = 0; i < MOST_LOOPS; i++) {
        CHECK_INT(qnet_hub_close(quiet[i]), QNET_OK);
        device_close(&idle[i]);
    }
}

/* A handler that removes itself, links its connection, and ends its thread when told to. */
struct leaver {
    struct device one, other;
    int has_linked, may_leave;
};

static void links_and_leaves(void *user, const uint8_t *frame, size_t len)
{
    struct leaver *leaver = user;

    (void)frame;
    (void)len;
    CHECK_INT(qnet_set_handler(leaver->one.conn, NULL, NULL), QNET_OK);
    CHECK_INT(qnet_link(leaver->one.conn, leaver->other.conn), QNET_OK);
    put(&leaver->has_linked, 1);
    while (!get(&leaver->may_leave))
        raw_sleep_ms(1);
    put(&threads_refused, 1);
    pthread_exit(NULL);
}

/*
 * If a handler ends its thread, the close handler that was to run there runs on
 * another thread, even if the system refuses that once.
 */
static void a_close_handler_survives_its_thread(void)
{
    struct ending ending = { 0, 0, 0, 0 };
    struct leaver leaver;

    memset(&leaver, 0, sizeof leaver);
    device_open(&leaver.one, 1);
    device_open(&leaver.other, 2);
    CHECK_INT(qnet_set_close_handler(leaver.one.conn, ending_told, &ending), QNET_OK);
    CHECK_INT(qnet_set_handler(leaver.one.conn, links_and_leaves, &leaver), QNET_OK);
    device_says(&leaver.one, EVERYBODY, MAC_FRAME);
    EVENTUALLY(get(&leaver.has_linked));
    CHECK_INT(qnet_shutdown(leaver.one.conn), QNET_OK);
    raw_take_end(leaver.one.fd);
    CHECK_INT(qnet_wait(leaver.other.conn, patience_ms()), QNET_OK);
    raw_sleep_ms(50);
    CHECK_INT(get(&ending.ends), 0);
    put(&leaver.may_leave, 1);
    CHECK_INT(qnet_wait(leaver.one.conn, patience_ms()), QNET_OK);
    check_told(&ending, QNET_ERR_CLOSED);
    CHECK_INT(get(&threads_refused), 0);
    device_close(&leaver.one);
    device_close(&leaver.other);
}

static int may_read;

static void *reads_later(void *job)
{
    while (!get(&may_read))
        raw_sleep_ms(1);
    raw_sleep_ms(100);
    return raw_reading(job);
}

/* Without threads, the close itself writes what was taken, to a peer that reads only then. */
static void without_threads_closing_writes_what_was_taken(void)
{
    static const size_t size = 60000;
    struct flow flow = flow_of_one_size(&size);
    struct raw_job reader;
    uint8_t frame[60000];
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 4608), QNET_OK);
    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, patience_ms()), QNET_OK);
    raw_start(&reader, reads_later, fd, flow, 1);
    put(&threads_refused, 1000);
    frame_make(frame, size, 0);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 10), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, size), QNET_OK);
    put(&may_read, 1);
    CHECK_INT(qnet_close(conn), QNET_OK);
    put(&threads_refused, 0);
    join_thread(reader.thread);
    close(fd);
}

/* ---- A hub that is about to serve a listener ---- */

struct server {
    qnet_hub *hub;
    qnet_listener *listener;
    pthread_t thread;
};

static void *serving(void *argument)
{
    struct server *server = argument;

    is_for_the_gate = 1;
    CHECK_INT(qnet_hub_serve(server->hub, server->listener), QNET_OK);
    return NULL;
}

/* Who accepts has been chosen by then: the hub does not get another clock meanwhile. */
static void a_hub_that_begins_to_serve_keeps_its_clock(void)
{
    struct server server;
    qnet_clock *clock;

    CHECK_INT(qnet_clock_new(&clock), QNET_OK);
    CHECK_INT(qnet_hub_new(&server.hub), QNET_OK);
    CHECK_INT(qnet_listen("tcp4", "127.0.0.1:0", &server.listener), QNET_OK);
    shut_gate(ENTRY);
    start_thread(&server.thread, serving, &server);
    EVENTUALLY(get(&gate_reached[ENTRY]));
    CHECK_INT(qnet_hub_set_clock(server.hub, clock), QNET_ERR_BUSY);
    put(&gate_shut[ENTRY], 0);
    join_thread(server.thread);
    CHECK_INT(qnet_hub_serve(server.hub, server.listener), QNET_ERR_BUSY);
    CHECK_INT(qnet_listener_close(server.listener), QNET_OK);
    CHECK_INT(qnet_hub_set_clock(server.hub, clock), QNET_OK);
    CHECK_INT(qnet_hub_close(server.hub), QNET_OK);
    CHECK_INT(qnet_clock_close(clock), QNET_OK);
}

int main(void)
{
    RUN(a_held_port_holds_nobody_up);
    RUN(a_held_port_has_a_bounded_queue);
    RUN(a_held_port_has_its_own_lengths);
    RUN(a_held_side_stops_the_other);
    RUN(what_is_left_is_written_after_detaching);
    RUN(what_is_left_is_written_before_a_shutdown);
    RUN(what_is_left_is_written_before_a_close);
    RUN(what_is_left_for_nobody_is_counted);
    RUN(a_held_port_is_dialled_again);
    RUN(nothing_of_a_link_stays_in_the_set);
    RUN(a_late_send_delays_an_end_and_no_more);
    RUN(full_ports_are_no_reason_to_yield);
    RUN(questions_are_no_reason_to_yield);
    RUN(without_threads_closing_a_hub_only_takes_longer);
    RUN(a_close_handler_survives_its_thread);
    RUN(without_threads_closing_writes_what_was_taken);
    RUN(a_hub_that_begins_to_serve_keeps_its_clock);
    return check_done();
}
