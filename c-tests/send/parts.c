/*
 * parts.c - what becomes of a frame of which the socket takes nothing, a part, or all but
 * one byte, or whose write fails, or that changes meanwhile. This program defines the functions
 * with which the library writes, and decides in them how much is taken.
 */
#include <sys/syscall.h>

#include "twins.h"

/* What the first write of a call does, and the others: a number of bytes, or one of these. */
enum { ALL = -1, NOTHING = -2, ALL_BUT_ONE = -3, HALF = -4, FAILS = -1000 /* less an errno */ };

struct script {
    int fd;           /* the socket that it is for; -1 for none */
    int first, rest;
    int writes;       /* how many there were */
};

static struct script scripts[TWINS] = { { -1, ALL, ALL, 0 }, { -1, ALL, ALL, 0 } };

/* What a careless program changes while it is sent: the next write of this thread calls this, once. */
static __thread void (*change)(void);

static void change_now(void)
{
    void (*now)(void) = change;

    change = NULL;
    if (now)
        now();
}

/* How many of `len` bytes are to be written, or a negative errno. */
static long allowed(int fd, size_t len)
{
    int i, what = ALL;

    for (i = 0; i < TWINS; i++)
        if (get(&scripts[i].fd) == fd)
            what = count_up(&scripts[i].writes) == 1 ? get(&scripts[i].first) : get(&scripts[i].rest);
    if (what <= FAILS)
        return what - FAILS;
    switch (what) {
    case ALL:
        return (long)len;
    case NOTHING:
        return -EAGAIN;
    case ALL_BUT_ONE:
        return (long)len - 1;
    case HALF:
        return (long)len / 2;
    default:
        return what < (long)len ? what : (long)len;
    }
}

/* Instead of the C library's. */
ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    long most = allowed(fd, len);

    change_now();
    if (most < 0) {
        errno = (int)-most;
        return -1;
    }
    return syscall(SYS_sendto, fd, bytes, (size_t)most, flags, NULL, 0);
}

/* Instead of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec pieces[2];
    struct msghdr less = *message;
    size_t len = 0, left, i;
    long most;

    CHECK(message->msg_iovlen <= 2);
    for (i = 0; i < message->msg_iovlen; i++)
        len += message->msg_iov[i].iov_len;
    most = allowed(fd, len);
    if (most < 0) {
        errno = (int)-most;
        return -1;
    }
    for (left = (size_t)most, i = 0; i < message->msg_iovlen; i++) {
        pieces[i] = message->msg_iov[i];
        if (pieces[i].iov_len > left)
            pieces[i].iov_len = left;
        left -= pieces[i].iov_len;
    }
    less.msg_iov = pieces;
    return syscall(SYS_sendmsg, fd, &less, flags);
}

/* Instead of the C library's. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    change_now();
    return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}

static void begin_one(struct script *script, qnet_conn *conn, int first, int rest)
{
    put(&script->writes, 0);
    put(&script->first, first);
    put(&script->rest, rest);
    put(&script->fd, qnet_fd(conn));
}

static void begin(const struct twins *twins, int first, int rest)
{
    int i;

    for (i = 0; i < TWINS; i++)
        begin_one(&scripts[i], twins->of[i].conn, first, rest);
}

/* From now on the socket takes all that it is given. */
static void end(void)
{
    int i;

    for (i = 0; i < TWINS; i++)
        put(&scripts[i].fd, -1);
}

static const size_t lens[] = { 60, 64, 65, 127, 128, 129, 1000, 2043, 2044, 2045, 2047, 2048, 2049, 5000 };
enum { LENS = sizeof lens / sizeof *lens };

static uint8_t content[5000];

static void open_twins(struct twins *twins)
{
    raw_fill(content, sizeof content, 4);
    twins_open(twins, raw_pair);
}

/* ---- A part ---- */

static const int parts[] = { 1, 2, 3, 4, 5, HALF, ALL_BUT_ONE, ALL };
enum { PARTS = sizeof parts / sizeof *parts };

/* The sender writes the rest itself, and later frames follow whole. */
static void a_part_and_then_the_rest(void)
{
    size_t i, j;
    struct twins twins;

    open_twins(&twins);
    for (i = 0; i < LENS; i++)
        for (j = 0; j < PARTS; j++) {
            begin(&twins, parts[j], ALL);
            CHECK_INT(twins_send(&twins, content, lens[i]), QNET_OK);
            CHECK_INT(get(&scripts[SHORT_PATH].writes), parts[j] == ALL ? 1 : 2);
            CHECK_INT(get(&scripts[GENERAL_PATH].writes), get(&scripts[SHORT_PATH].writes));
            end();
            twins_owe(&twins, content, lens[i]);
            CHECK_INT(bytes_waiting(twins.of[SHORT_PATH].fd), RAW_PREFIX + lens[i]);
            CHECK_INT(twins_send(&twins, content + 9, 99), QNET_OK);
            twins_owe(&twins, content + 9, 99);
            twins_settle(&twins);
        }
    twins_close(&twins);
}

/* A send that does not wait succeeds all the same, and the library writes the rest later. */
static void a_part_and_nothing_more(void)
{
    static const int timeouts[] = { 0, 5 };
    size_t i, j, t;
    struct twins twins;

    open_twins(&twins);
    twins.are_held = 1;
    for (t = 0; t < 2; t++)
        for (i = 0; i < LENS; i += 2)
            for (j = 0; j < PARTS - 1; j++) {
                twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, timeouts[t]);
                begin(&twins, parts[j], NOTHING);
                CHECK_INT(twins_send(&twins, content, lens[i]), QNET_OK);
                twins_owe(&twins, content, lens[i]);
                CHECK_INT(stats_of(twins.of[SHORT_PATH].conn).tx_frames, twins.of[0].frames - 1);
                CHECK_INT(stats_of(twins.of[GENERAL_PATH].conn).tx_frames, twins.of[1].frames - 1);
                CHECK_INT(twins_send(&twins, content, 64), timeouts[t] ? QNET_ERR_TIMEOUT : QNET_ERR_AGAIN);
                CHECK_INT(twins_send(&twins, content, 13), timeouts[t] ? QNET_ERR_TIMEOUT : QNET_ERR_AGAIN);
                end();
                twin_hears(&twins.of[SHORT_PATH], RAW_PREFIX + lens[i]);
                twin_hears(&twins.of[GENERAL_PATH], RAW_PREFIX + lens[i]);
                twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, -1);
                twins_settle(&twins);
            }
    twins_close(&twins);
}

/* ---- Nothing ---- */

static void nothing_and_then_all(void)
{
    size_t i;
    struct twins twins;

    open_twins(&twins);
    for (i = 0; i < LENS; i++) {
        begin(&twins, NOTHING, ALL);
        CHECK_INT(twins_send(&twins, content, lens[i]), QNET_OK);
        end();
        twins_owe(&twins, content, lens[i]);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* The frame was not taken, and nothing of it arrives. */
static void nothing_at_all(void)
{
    size_t i;
    struct twins twins;

    open_twins(&twins);
    for (i = 0; i < LENS; i++) {
        begin(&twins, NOTHING, NOTHING);
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, 0);
        CHECK_INT(twins_send(&twins, content, lens[i]), QNET_ERR_AGAIN);
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, 3);
        CHECK_INT(twins_send(&twins, content, lens[i]), QNET_ERR_TIMEOUT);
        end();
        CHECK_INT(twins_send(&twins, content + 1, 70), QNET_OK);
        twins_owe(&twins, content + 1, 70);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* ---- Failures ---- */

static void interrupted(void)
{
    struct twins twins;

    open_twins(&twins);
    begin(&twins, FAILS - EINTR, ALL);
    CHECK_INT(twins_send(&twins, content, 64), QNET_OK);
    end();
    twins_owe(&twins, content, 64);
    twins_settle(&twins);
    twins_close(&twins);
}

/* A shortage of memory refuses a frame, and ends nothing. */
static void no_memory(void)
{
    static const int errors[] = { ENOMEM, ENOBUFS };
    struct twins twins;
    size_t i;

    open_twins(&twins);
    for (i = 0; i < 2; i++) {
        begin(&twins, FAILS - errors[i], FAILS - errors[i]);
        CHECK_INT(twins_send(&twins, content, 64), QNET_ERR_OS);
        CHECK_INT(qnet_last_errno(), errors[i]);
        end();
        CHECK_INT(twins_send(&twins, content, 128), QNET_OK);
        twins_owe(&twins, content, 128);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* Checks that all calls from now on give the same code, and how many frames were sent and lost. */
static void check_over(struct twins *twins, int code, unsigned sent, unsigned dropped)
{
    qnet_frame frames[2] = { { content, 64 }, { content, 64 } };
    int i;

    CHECK_INT(twins_send(twins, content, 64), code);
    CHECK_INT(twins_send(twins, content, 1000), code);
    CHECK_INT(twins_send(twins, content, 5000), code);
    CHECK_INT(twins_send_batch(twins, frames, 2), code);
    for (i = 0; i < TWINS; i++) {
        CHECK_INT(stats_of(twins->of[i].conn).tx_frames, sent);
        CHECK_INT(stats_of(twins->of[i].conn).tx_dropped, dropped);
        CHECK_INT(qnet_flush(twins->of[i].conn), code);
    }
}

/* The first failure refuses its frame, and ends sending. */
static void a_write_fails(void)
{
    static const int errors[] = { EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH };
    size_t i, j;

    for (i = 0; i < sizeof errors / sizeof *errors; i++)
        for (j = 0; j < LENS; j++) {
            int code = errors[i] == EPIPE ? QNET_ERR_CLOSED : QNET_ERR_OS;
            struct twins twins;

            open_twins(&twins);
            CHECK_INT(twins_send(&twins, content, 100), QNET_OK);
            begin(&twins, FAILS - errors[i], ALL);
            CHECK_INT(twins_send(&twins, content, lens[j]), code);
            check_over(&twins, code, 1, 0);
            CHECK_INT(get(&scripts[SHORT_PATH].writes), 1);
            CHECK_INT(get(&scripts[GENERAL_PATH].writes), 1);
            end();
            twins_close(&twins);
        }
}

/* A frame of which a part was written has been taken, and is lost with the connection. */
static void the_rest_fails(void)
{
    size_t i, j;

    for (i = 0; i < PARTS - 1; i++)
        for (j = 0; j < LENS; j += 3) {
            struct twins twins;

            open_twins(&twins);
            begin(&twins, parts[i], FAILS - EPIPE);
            CHECK_INT(twins_send(&twins, content, lens[j]), QNET_OK);
            check_over(&twins, QNET_ERR_CLOSED, 0, 1);
            end();
            twins_close(&twins);
        }
}

/* ---- Batches ---- */

/* A batch of which the socket takes any number of bytes at first. */
static void any_part_of_a_batch(void)
{
    enum { COUNT = 7 };
    qnet_frame frames[COUNT];
    size_t total = 0, i, k;
    struct twins twins;

    open_twins(&twins);
    for (i = 0; i < COUNT; i++) {
        frames[i].data = content + i;
        frames[i].len = 60 + (i > 2 ? 13 * i : 0);
        total += RAW_PREFIX + frames[i].len;
    }
    for (i = 1; i < total; i++) {
        begin(&twins, (int)i, ALL);
        CHECK_INT(twins_send_batch(&twins, frames, COUNT), COUNT);
        end();
        for (k = 0; k < COUNT; k++)
            twins_owe(&twins, frames[k].data, frames[k].len);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* How many of a batch are taken where the socket takes a part, and then nothing. */
static void a_part_of_a_batch_and_nothing_more(void)
{
    enum { COUNT = 5, LEN = 61, WIRE = RAW_PREFIX + LEN };
    qnet_frame frames[COUNT];
    size_t i, k;
    struct twins twins;

    open_twins(&twins);
    twins.are_held = 1;
    for (i = 0; i < COUNT; i++) {
        frames[i].data = content + i;
        frames[i].len = LEN;
    }
    for (i = 1; i < COUNT * WIRE; i++) {
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, 0);
        begin(&twins, (int)i, NOTHING);
        CHECK_INT(twins_send_batch(&twins, frames, COUNT), (i + WIRE - 1) / WIRE);
        end();
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, -1);
        for (k = 0; k < (i + WIRE - 1) / WIRE; k++)
            twins_owe(&twins, frames[k].data, LEN);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* ---- Frames that change ---- */

enum { CHANGING = 5, LEN_BEFORE = 61, WIRE_BEFORE = RAW_PREFIX + LEN_BEFORE, LEN_AFTER = 100 };

static qnet_frame changing[CHANGING];

static void get_longer(void)
{
    int i;

    for (i = 0; i < CHANGING; i++)
        changing[i].len = LEN_AFTER;
}

/* Sends them, and they get longer while they are written. Returns how many were taken. */
static int send_changing(qnet_conn *conn)
{
    int i, taken;

    for (i = 0; i < CHANGING; i++) {
        changing[i].data = content + i;
        changing[i].len = LEN_BEFORE;
    }
    change = get_longer;
    taken = qnet_send_batch(conn, changing, CHANGING);
    CHECK_INT(changing[0].len, LEN_AFTER);
    return taken;
}

/* What was begun of a frame is followed by its rest, as long as it was. */
static void a_cut_batch_that_changes(void)
{
    struct twins twins;
    int i, j, taken;

    open_twins(&twins);
    twins.are_held = 1;
    for (i = 1; i < CHANGING * WIRE_BEFORE; i++) {
        taken = (i + WIRE_BEFORE - 1) / WIRE_BEFORE;
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, 0);
        begin(&twins, i, NOTHING);
        for (j = 0; j < TWINS; j++)
            CHECK_INT(send_changing(twins.of[j].conn), taken);
        end();
        twins_set(&twins, QNET_OPT_SEND_TIMEOUT_MS, -1);
        for (j = 0; j < taken; j++)
            twins_owe(&twins, content + j, LEN_BEFORE);
        twins_settle(&twins);
    }
    twins_close(&twins);
}

/* Of messages those are counted that were sent. */
static void messages_that_change(void)
{
    uint8_t got[LEN_AFTER];
    qnet_conn *conn;
    int ends[2], i;

    raw_fill(content, sizeof content, 4);
    CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_INT(qnet_from_fd(ends[0], &conn), QNET_OK);
    CHECK_INT(send_changing(conn), CHANGING);
    for (i = 0; i < CHANGING; i++) {
        CHECK_INT(recv(ends[1], got, sizeof got, 0), LEN_BEFORE);
        CHECK(memcmp(got, content + i, LEN_BEFORE) == 0);
    }
    CHECK_INT(stats_of(conn).tx_frames, CHANGING);
    CHECK_INT(stats_of(conn).tx_bytes, CHANGING * LEN_BEFORE);
    CHECK_INT(qnet_flush(conn), QNET_OK);
    CHECK_INT(bytes_waiting(ends[1]), 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(ends[1]);
}

static uint8_t packed[CHANGING * WIRE_BEFORE];
static size_t new_length;

static void get_new_prefixes(void)
{
    int i;

    for (i = 0; i < CHANGING; i++)
        raw_put_length(packed + i * WIRE_BEFORE, new_length);
}

/*
 * Packed frames have their lengths in the program's memory alone. Where they do not tell any more how a frame that
 * was begun goes on, nothing more can be sent, and all else works.
 */
static void a_cut_packed_buffer_that_changes(void)
{
    static const size_t lengths[] = { 0, 14, 60, 62, 100, 1000, 60000, 70000, 0xffffffff };
    uint8_t got[sizeof packed];
    size_t i, part;

    raw_fill(content, sizeof content, 4);
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (part = 1; part < sizeof packed; part += 7) {
            qnet_conn *conn;
            int result, fd, j;

            conn = raw_pair(&fd);
            CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
            for (j = 0; j < CHANGING; j++) {
                raw_put_length(packed + j * WIRE_BEFORE, LEN_BEFORE);
                memcpy(packed + j * WIRE_BEFORE + RAW_PREFIX, content, LEN_BEFORE);
            }
            new_length = lengths[i];
            begin_one(&scripts[0], conn, (int)part, NOTHING);
            change = get_new_prefixes;
            result = qnet_send_packed(conn, packed, sizeof packed);
            CHECK(result > 0 || result == QNET_ERR_OS);
            CHECK(result > 0 || qnet_last_errno() == EBADMSG);
            result = qnet_send(conn, content, 60);
            CHECK(result == QNET_ERR_AGAIN || result == QNET_ERR_OS);
            end();
            CHECK(qnet_flush(conn) != QNET_ERR_INTERNAL);
            CHECK_INT(qnet_close(conn), QNET_OK);
            CHECK_INT(qnet_flush(conn), QNET_ERR_HANDLE);
            while (recv(fd, got, sizeof got, 0) > 0)
                ;
            close(fd);
        }
}

int main(void)
{
    RUN(a_part_and_then_the_rest);
    RUN(a_part_and_nothing_more);
    RUN(nothing_and_then_all);
    RUN(nothing_at_all);
    RUN(interrupted);
    RUN(no_memory);
    RUN(a_write_fails);
    RUN(the_rest_fails);
    RUN(any_part_of_a_batch);
    RUN(a_part_of_a_batch_and_nothing_more);
    RUN(a_cut_batch_that_changes);
    RUN(messages_that_change);
    RUN(a_cut_packed_buffer_that_changes);
    return check_done();
}
