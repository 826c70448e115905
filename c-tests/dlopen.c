/*
 * dlopen.c - a program that is not linked with the library but loads it, uses
 * it through dlsym and unloads it while connections live.
 */
#include <dlfcn.h>

#include "raw.h"

enum { FRAME = 60, LONG_MS = 10000 };

/* What this program uses of the library. */
static struct {
    void *library;
    int (*socketpair_fd)(qnet_conn **, int *);
    int (*set_handler)(qnet_conn *, qnet_handler, void *);
    int (*set_close_handler)(qnet_conn *, qnet_close_handler, void *);
    int (*send)(qnet_conn *, const void *, size_t);
    int (*close)(qnet_conn *);
    const char *(*last_error)(void);
} qnet;

/* For check.h; the program is not linked with the library's. */
const char *qnet_last_error(void)
{
    return qnet.last_error ? qnet.last_error() : "not loaded";
}

static void find(void *function, const char *name)
{
    void *symbol = dlsym(qnet.library, name);

    CHECK(symbol != NULL);
    memcpy(function, &symbol, sizeof symbol);
}

static void load(void)
{
    qnet.library = dlopen(QNET_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!qnet.library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(qnet.library != NULL);
    find(&qnet.socketpair_fd, "qnet_socketpair_fd");
    find(&qnet.set_handler, "qnet_set_handler");
    find(&qnet.set_close_handler, "qnet_set_close_handler");
    find(&qnet.send, "qnet_send");
    find(&qnet.close, "qnet_close");
    find(&qnet.last_error, "qnet_last_error");
}

static void count_frame(void *counter, const uint8_t *frame, size_t len)
{
    CHECK_INT(len, FRAME);
    CHECK(raw_is(frame, len, 5));
    __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST);
}

static void count_end(void *counter, int reason)
{
    (void)reason;
    __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST);
}

static void wait_for_count(int *counter, int count)
{
    long long end = raw_now_ms() + LONG_MS * check_slow();

    while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < count) {
        CHECK(raw_now_ms() < end);
        raw_sleep_ms(1);
    }
}

static void send_frames(int fd, int count)
{
    unsigned char frame[FRAME];

    raw_fill(frame, sizeof frame, 5);
    while (count-- > 0)
        raw_send(fd, frame, sizeof frame);
}

/* Nothing unmaps the library, not even before its first use. */
static void stays_mapped(void)
{
    int (*close_it)(qnet_conn *);

    load();
    close_it = qnet.close;
    CHECK_INT(dlclose(qnet.library), 0);
    qnet.last_error = NULL;
    CHECK(dlopen(QNET_LIBRARY, RTLD_NOW | RTLD_NOLOAD) != NULL);
    CHECK_INT(close_it(NULL), QNET_ERR_HANDLE);
}

/* A handler goes on with the library unloaded, and its connection is there when it is back. */
static void unload_with_live_connections(void)
{
    unsigned char frame[FRAME];
    int fd, frames = 0, ends = 0;
    qnet_conn *conn = NULL;

    load();
    CHECK_INT(qnet.socketpair_fd(&conn, &fd), QNET_OK);
    CHECK_INT(qnet.set_close_handler(conn, count_end, &ends), QNET_OK);
    CHECK_INT(qnet.set_handler(conn, count_frame, &frames), QNET_OK);
    send_frames(fd, 10);
    wait_for_count(&frames, 10);

    CHECK_INT(dlclose(qnet.library), 0);
    send_frames(fd, 10);
    wait_for_count(&frames, 20);

    load();
    raw_fill(frame, sizeof frame, 6);
    CHECK_INT(qnet.send(conn, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_recv(fd, frame, sizeof frame), FRAME);
    CHECK(raw_is(frame, sizeof frame, 6));
    CHECK_INT(qnet.close(conn), QNET_OK);
    CHECK_INT(ends, 1);
    CHECK_INT(qnet.close(conn), QNET_ERR_HANDLE);
    CHECK_INT(dlclose(qnet.library), 0);
}

/* The peer leaves, and the program ends, with the library unloaded. */
static void end_while_unloaded(void)
{
    int fds[2], frames = 0, ends = 0;
    qnet_conn *conns[2];
    int i;

    load();
    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet.socketpair_fd(&conns[i], &fds[i]), QNET_OK);
        CHECK_INT(qnet.set_close_handler(conns[i], count_end, &ends), QNET_OK);
        CHECK_INT(qnet.set_handler(conns[i], count_frame, &frames), QNET_OK);
    }
    CHECK_INT(dlclose(qnet.library), 0);
    close(fds[0]);
    wait_for_count(&ends, 1);
    send_frames(fds[1], 1);
    wait_for_count(&frames, 1);
}

static void load_and_unload_often(void)
{
    int i;

    for (i = rounds(50); i > 0; i--) {
        qnet_conn *conn = NULL;
        int fd, frames = 0;

        load();
        CHECK_INT(qnet.socketpair_fd(&conn, &fd), QNET_OK);
        CHECK_INT(qnet.set_handler(conn, count_frame, &frames), QNET_OK);
        send_frames(fd, 1);
        wait_for_count(&frames, 1);
        CHECK_INT(qnet.close(conn), QNET_OK);
        CHECK_INT(dlclose(qnet.library), 0);
        close(fd);
    }
}

int main(void)
{
    RUN(stays_mapped);
    RUN(unload_with_live_connections);
    RUN(end_while_unloaded);
    RUN(load_and_unload_often);
    return check_done();
}
