/*
 * dlopen.c - a program that is not linked with the library but loads it, uses
 * it through dlsym and unloads it while connections live; or loads plugins that
 * have it, each a copy of its own (dlopen/plugin.c).
 */
#include <dlfcn.h>

#include "footprint.h"

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

/*
 * check.h calls this. The program is not linked with the library, and plugins
 * must not find this function instead of the library's.
 */
__attribute__((visibility("hidden"))) const char *qnet_last_error(void)
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

/* dlclose() does not unmap the library, even if that was never used. */
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

/*
 * A handler goes on after dlclose(), and its connection can be used when the
 * library is loaded again.
 */
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

/* ---- Plugins ---- */

struct plugin {
    void *object;
    int fd;
    int (*start)(int *fd);
    int (*stop)(void);
    const char *(*error)(void);
};

static struct plugin plug_in(const char *path, int how)
{
    struct plugin plugin;

    plugin.object = dlopen(path, RTLD_NOW | how);
    if (!plugin.object)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(plugin.object != NULL);
    qnet.library = plugin.object;
    find(&plugin.start, "plugin_start");
    find(&plugin.stop, "plugin_stop");
    find(&plugin.error, "plugin_error");
    CHECK_INT(plugin.start(&plugin.fd), QNET_OK);
    return plugin;
}

static void exchange(struct plugin *plugin)
{
    unsigned char frame[FRAME];

    send_frames(plugin->fd, 1);
    CHECK_INT(raw_recv(plugin->fd, frame, sizeof frame), FRAME);
    CHECK(raw_is(frame, sizeof frame, 5));
}

static void stop(struct plugin *plugin)
{
    CHECK_INT(plugin->stop(), QNET_OK);
    CHECK_INT(plugin->stop(), QNET_ERR_HANDLE);
    CHECK(strstr(plugin->error(), "close") != NULL);
    CHECK(raw_ended(plugin->fd));
    close(plugin->fd);
}

/* Uses two copies at once, and then the second alone; nothing is left of either. */
static void check_two_copies(const char *one, const char *other, int how)
{
    struct footprint before = footprint_now();
    struct plugin first = plug_in(one, how), second = plug_in(other, how);

    exchange(&first);
    exchange(&second);
    CHECK(first.error()[0] == '\0');
    stop(&first);
    CHECK(second.error()[0] == '\0');
    exchange(&second);
    stop(&second);
    footprint_again(before);
}

static void static_and_shared_copy(void)
{
    check_two_copies(STATIC_PLUGIN, SHARED_PLUGIN, RTLD_LOCAL);
}

static void shared_and_static_copy(void)
{
    check_two_copies(SHARED_PLUGIN, STATIC_PLUGIN, RTLD_LOCAL);
}

/* With RTLD_GLOBAL, the users of one copy may be bound to the symbols of the other. */
static void copies_whose_symbols_are_global(void)
{
    struct plugin first = plug_in(STATIC_PLUGIN, RTLD_GLOBAL);
    struct plugin second = plug_in(SHARED_PLUGIN, RTLD_GLOBAL);

    exchange(&first);
    exchange(&second);
    stop(&first);
    exchange(&second);
    stop(&second);
}

/*
 * The plugin with the static copy is linked so that it stays loaded; the one
 * with the shared copy is unloaded, but its library stays.
 */
static void unload_copies(void)
{
    struct plugin with_static = plug_in(STATIC_PLUGIN, RTLD_LOCAL);
    struct plugin with_shared = plug_in(SHARED_PLUGIN, RTLD_LOCAL);

    CHECK_INT(dlclose(with_static.object), 0);
    exchange(&with_static);
    stop(&with_shared);
    CHECK_INT(dlclose(with_shared.object), 0);
    with_shared = plug_in(SHARED_PLUGIN, RTLD_LOCAL);
    exchange(&with_shared);
    exchange(&with_static);
    stop(&with_shared);
}

/* The process ends while both copies have traffic. */
static void exit_with_both_copies(void)
{
    struct plugin first = plug_in(STATIC_PLUGIN, RTLD_LOCAL);
    struct plugin second = plug_in(SHARED_PLUGIN, RTLD_LOCAL);

    send_frames(first.fd, 100);
    send_frames(second.fd, 100);
}

int main(void)
{
    RUN(stays_mapped);
    RUN(unload_with_live_connections);
    RUN(end_while_unloaded);
    RUN(load_and_unload_often);
    RUN(static_and_shared_copy);
    RUN(shared_and_static_copy);
    RUN(copies_whose_symbols_are_global);
    RUN(unload_copies);
    RUN(exit_with_both_copies);
    return check_done();
}
