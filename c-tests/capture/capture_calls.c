/*
 * capture_calls.c - the functions of captures: what they accept and refuse, what an interface
 * is called, notes, lengths and counts, and whose a capture is.
 */
#include <limits.h>
#include <sys/socket.h>

#include "../forward/cable.h"
#include "forked.h"
#include "shown.h"

#define NO_CAPTURE ((qnet_capture *)(uintptr_t)0x1001)

/* ---- What is refused ---- */

static void refuses(int code, const char *path, int64_t option, int64_t value, size_t pairs)
{
    int64_t options[2];
    qnet_capture *capture = NO_CAPTURE;

    options[0] = option;
    options[1] = value;
    CHECK_INT(qnet_capture_open(path, options, pairs, &capture), code);
    CHECK(capture == NULL);
    capture = NO_CAPTURE;
    CHECK_INT(qnet_capture_open_fd(STDERR_FILENO, options, pairs, &capture), code);
    CHECK(capture == NULL);
}

static void options_out_of_range(void)
{
    static const int64_t bad[][2] = {
        { QNET_OPT_SNAPLEN, -1 }, { QNET_OPT_SNAPLEN, INT64_MAX }, { QNET_OPT_CAPTURE_BYTES, 131071 },
        { QNET_OPT_CAPTURE_BYTES, 0 }, { QNET_OPT_FILE_BYTES, 65535 }, { QNET_OPT_FILE_BYTES, -1 },
        { QNET_OPT_FILES, -1 }, { QNET_OPT_FILES, (int64_t)INT_MAX + 1 }, { 39, 1 }, { 44, 1 }, { 0, 0 },
        { INT64_MIN, 0 }, { (int64_t)UINT32_MAX + 1 + QNET_OPT_FILES, 1 }, { QNET_OPT_SEND_TIMEOUT_MS, 0 },
        { QNET_OPT_MAX_FRAME, 1514 }, { QNET_OPT_MAC_MAX, 1 }, { QNET_OPT_MAX_CONNS, 1 },
    };
    const char *path = scratch_path("never.pcapng");
    qnet_capture *capture = NULL;
    int64_t zero[] = { QNET_OPT_FILE_BYTES, 0, QNET_OPT_SNAPLEN, 0, QNET_OPT_FILES, 0 };
    qnet_conn *conn;
    size_t i;
    int fd;

    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses(QNET_ERR_INVALID, path, bad[i][0], bad[i][1], 1);
    CHECK_INT(qnet_capture_open(path, NULL, 1, &capture), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_open(path, zero, SIZE_MAX, &capture), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_open(NULL, NULL, 0, &capture), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_open(path, NULL, 0, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_open_fd(2, NULL, 0, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_open_fd(-1, NULL, 0, &capture), QNET_ERR_INVALID);
    CHECK_INT(access(path, F_OK), -1);
    conn = raw_pair(&fd);
    CHECK_INT(qnet_set(conn, QNET_OPT_SNAPLEN, 0), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_set(conn, QNET_OPT_FILES, 0), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
    capture_close(capture_with(path, zero, 3));
    CHECK_INT(access(path, F_OK), 0);
}

static void refused_path(const char *path, int want)
{
    qnet_capture *capture = NO_CAPTURE;

    CHECK_INT(qnet_capture_open(path, NULL, 0, &capture), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), want);
    CHECK(capture == NULL);
}

static void paths_that_cannot_be(void)
{
    char longest[PATH_MAX + 10];
    struct footprint before = footprint_now();
    int socket;

    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    longest[0] = '/';
    refused_path("", ENOENT);
    refused_path(scratch_directory, EISDIR);
    refused_path(scratch_path("no/such"), ENOENT);
    refused_path(longest, ENAMETOOLONG);
    socket = raw_unix_listen(scratch_path("socket"));
    refused_path(scratch_path("socket"), ENXIO);
    CHECK(close(socket) == 0);
    footprint_again(before);
}

static void descriptors_that_cannot_be(void)
{
    int64_t series[] = { QNET_OPT_FILE_BYTES, 65536 };
    qnet_capture *capture = NO_CAPTURE;
    int pipe_ends[2];

    CHECK(pipe(pipe_ends) == 0);
    CHECK_INT(qnet_capture_open_fd(pipe_ends[0], NULL, 0, &capture), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EBADF);
    CHECK_INT(qnet_capture_open_fd(1000000, NULL, 0, &capture), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EBADF);
    CHECK_INT(qnet_capture_open_fd(pipe_ends[1], series, 1, &capture), QNET_ERR_UNSUPPORTED);
    CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
    CHECK_INT(qnet_capture_open(scratch_path("fifo"), series, 1, &capture), QNET_ERR_UNSUPPORTED);
    CHECK(capture == NULL);
    /* It is still the caller's. */
    CHECK(fcntl(pipe_ends[1], F_GETFL) == O_WRONLY);
    CHECK(close(pipe_ends[0]) == 0);
    CHECK(close(pipe_ends[1]) == 0);
}

static void handles_of_others(void)
{
    qnet_capture *capture = capture_to(scratch_path("handles.pcapng")), *stale = capture_to("/dev/null");
    qnet_capture *bad[6];
    qnet_capture_stats stats;
    qnet_clock *clock = NULL;
    qnet_hub *hub = NULL;
    qnet_conn *conn;
    size_t i;
    int fd;

    conn = raw_pair(&fd);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_clock_new(&clock), QNET_OK);
    capture_close(stale);
    bad[0] = NULL;
    bad[1] = stale;
    bad[2] = (qnet_capture *)conn;
    bad[3] = (qnet_capture *)hub;
    bad[4] = (qnet_capture *)clock;
    bad[5] = NO_CAPTURE;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(qnet_capture_add(bad[i], NULL, "\xff"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_add(bad[i], conn, NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_add_hub(bad[i], hub, NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_remove(bad[i], conn), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_note(bad[i], NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_get_stats(bad[i], &stats, sizeof stats), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_close(bad[i]), QNET_ERR_HANDLE);
        if (bad[i] == (qnet_capture *)conn)
            continue;
        CHECK_INT(qnet_capture_add(capture, (qnet_conn *)bad[i], NULL), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_remove(capture, (qnet_conn *)bad[i]), QNET_ERR_HANDLE);
        if (bad[i] != (qnet_capture *)hub)
            CHECK_INT(qnet_capture_add_hub(capture, (qnet_hub *)bad[i], "\xff"), QNET_ERR_HANDLE);
    }
    CHECK_INT(qnet_clock_close((qnet_clock *)capture), QNET_ERR_HANDLE);
    CHECK_INT(qnet_clock_next((qnet_clock *)capture, NULL, NULL), QNET_ERR_HANDLE);
    CHECK_INT(qnet_close((qnet_conn *)capture), QNET_ERR_HANDLE);
    CHECK_INT(qnet_capture_note(capture, NULL), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_get_stats(capture, NULL, 0), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_remove(capture, conn), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_add_hub(capture, hub, "\xff"), QNET_ERR_INVALID);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_capture_add_hub(capture, hub, NULL), QNET_ERR_HANDLE);
    capture_close(capture);
    CHECK_INT(qnet_clock_close(clock), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void counts_as_far_as_there_is_room(void)
{
    qnet_capture *capture = capture_to(scratch_path("counts.pcapng"));
    uint8_t room[sizeof(qnet_capture_stats) + 8];
    size_t i;

    memset(room, 7, sizeof room);
    CHECK_INT(qnet_capture_get_stats(capture, (qnet_capture_stats *)(void *)room, 8), sizeof room - 8);
    CHECK_INT(room[7], 0);
    CHECK_INT(room[8], 7);
    CHECK_INT(qnet_capture_get_stats(capture, (qnet_capture_stats *)(void *)room, sizeof room), sizeof room - 8);
    for (i = sizeof room - 8; i < sizeof room; i++)
        CHECK_INT(room[i], 0);
    EVENTUALLY(capture_stats_of(capture).files == 1);
    CHECK_INT(capture_stats_of(capture).readers, 0);
    CHECK_INT(capture_stats_of(capture).error, 0);
    capture_close(capture);
}

/* ---- Names ---- */

static void names(void)
{
    const char *path = scratch_path("names.pcapng");
    qnet_capture *capture = capture_to(path);
    char longest[257], peer[256];
    struct shown shown;
    qnet_conn *conns[4];
    int fds[4];
    size_t i;

    memset(longest, 'n', sizeof longest - 1);
    longest[256] = '\0';
    for (i = 0; i < 4; i++)
        conns[i] = raw_pair(&fds[i]);
    CHECK_INT(qnet_capture_add(capture, conns[0], longest), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_add(capture, conns[0], "\xc3("), QNET_ERR_INVALID);
    longest[255] = '\0';
    capture_add(capture, conns[0], longest);
    CHECK_INT(qnet_capture_add(capture, conns[0], "again"), QNET_ERR_BUSY);
    CHECK_INT(qnet_capture_add(capture, conns[0], "\xff"), QNET_ERR_INVALID);
    capture_add(capture, conns[1], NULL);
    capture_add(capture, conns[2], "gr\xc3\xbc\xc3\x9f""e, \xe4\xb8\x96");
    capture_add(capture, conns[3], NULL);
    CHECK(qnet_peer_addr(conns[1], peer, sizeof peer) >= 0);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.interface_count, 4);
    shown_name(&shown, 0, longest, 0);
    shown_name(&shown, 1, peer[0] ? peer : "conn1", 0);
    shown_name(&shown, 2, "gr\xc3\xbc\xc3\x9f""e, \xe4\xb8\x96", 0);
    shown_name(&shown, 3, peer[0] ? peer : "conn2", 0);
    shown_free(&shown);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        CHECK(close(fds[i]) == 0);
    }
}

/* ---- Notes ---- */

static void notes_go_with_the_next_frame(void)
{
    const char *path = scratch_path("notes.pcapng");
    static const char *const want[] = { "one;", "", "two;three;", "" };
    qnet_capture *capture = capture_to(path);
    char *longest = allocate(65537);
    struct shown shown;
    qnet_conn *conn;
    size_t i;
    int fd;

    conn = raw_pair(&fd);
    capture_add(capture, conn, "noted");
    CHECK_INT(qnet_capture_note(capture, "\x80"), QNET_ERR_INVALID);
    CHECK_INT(qnet_capture_note(capture, "one"), QNET_OK);
    CHECK_INT(make_send(conn), QNET_OK);
    CHECK_INT(make_send(conn), QNET_OK);
    CHECK_INT(qnet_capture_note(capture, "two"), QNET_OK);
    CHECK_INT(qnet_capture_note(capture, "three"), QNET_OK);
    CHECK_INT(make_send(conn), QNET_OK);
    CHECK_INT(make_send(conn), QNET_OK);
    memset(longest, 'l', 65536);
    longest[65536] = '\0';
    CHECK_INT(qnet_capture_note(capture, longest), QNET_ERR_INVALID);
    longest[65535] = '\0';
    for (i = 0; i < 16; i++)
        CHECK_INT(qnet_capture_note(capture, longest), QNET_OK);
    CHECK_INT(qnet_capture_note(capture, longest), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOBUFS);
    CHECK_INT(make_send(conn), QNET_OK);
    EVENTUALLY(shown_count(path) == 5);
    CHECK_INT(qnet_capture_note(capture, longest), QNET_OK);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK(shown.len > 16 * 65535 && shown.len < 17 * 65535 + 10000);
    for (i = 0; i < 4; i++)
        CHECK(strcmp(shown.frames[i].comments, want[i]) == 0);
    CHECK(strncmp(shown.frames[4].comments, "lll", 3) == 0);
    shown_free(&shown);
    free(longest);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* Each takes memory, as long as no frame comes. */
static void empty_notes_are_limited(void)
{
    const char *path = scratch_path("empty.pcapng");
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    qnet_conn *conn;
    int fd, i;

    conn = raw_pair(&fd);
    capture_add(capture, conn, "noted");
    for (i = 0; i < 1 << 16; i++)
        CHECK_INT(qnet_capture_note(capture, ""), QNET_OK);
    CHECK_INT(qnet_capture_note(capture, ""), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOBUFS);
    CHECK_INT(make_send(conn), QNET_OK);
    EVENTUALLY(shown_count(path) == 1);
    CHECK_INT(qnet_capture_note(capture, ""), QNET_OK);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 1);
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* ---- Lengths ---- */

static void the_beginnings_of_frames(void)
{
    static const int64_t lengths[] = { 1, 14, 60, 1000, 69631, 69632, INT_MAX };
    const char *path = scratch_path("short.pcapng");
    size_t n, i;

    for (n = 0; n < sizeof lengths / sizeof *lengths; n++) {
        int64_t options[] = { QNET_OPT_SNAPLEN, lengths[n], QNET_OPT_CAPTURE_BYTES, 1 << 20 };
        struct flow flow = flow_of_all_sizes();
        qnet_capture *capture = capture_with(path, options, 2);
        struct bundle bundle = bundle_make(&flow, ALL_SIZES - 1);
        struct raw_job job;
        struct shown shown;
        qnet_conn *conn;
        int fd;

        conn = raw_pair(&fd);
        capture_add(capture, conn, "short");
        raw_start(&job, raw_reading, fd, flow, ALL_SIZES - 1);
        CHECK_INT(flow_send(&flow, conn, 1, ALL_SIZES - 1), ALL_SIZES - 1);
        join_thread(job.thread);
        CHECK_INT(capture_stats_of(capture).bytes, stats_of(conn).tx_bytes);
        capture_close(capture);
        shown = shown_whole(path);
        CHECK_INT(shown.interfaces[0].snaplen, lengths[n]);
        CHECK_INT(shown.count, ALL_SIZES - 1);
        for (i = 0; i < shown.count; i++) {
            size_t len = bundle.frames[i].len, most = (size_t)lengths[n];

            CHECK_INT(shown.frames[i].len, len);
            CHECK_INT(shown.frames[i].kept, len < most ? len : most);
            CHECK(memcmp(shown.frames[i].data, bundle.frames[i].data, shown.frames[i].kept) == 0);
        }
        shown_free(&shown);
        bundle_free(&bundle);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(close(fd) == 0);
    }
}

#ifndef __SANITIZE_THREAD__
/* Frames whose lengths a careless program changes while they are sent. */
struct changing {
    qnet_frame frames[64];
    int is_over;
};

static void *change_lengths(void *argument)
{
    struct changing *changing = argument;
    volatile qnet_frame *frames = changing->frames;
    unsigned state = 1;

    while (!get(&changing->is_over))
        frames[next_random(&state) % 64].len = 60 + next_random(&state) % 1000;
    return NULL;
}

/* What is sent then is anybody's guess, but a capture has as many frames as it says, and goes on. */
static void lengths_that_change_meanwhile(void)
{
    static struct changing changing;
    static uint8_t bytes[1060];
    const char *path = scratch_path("changing.pcapng");
    qnet_capture *capture = capture_to(path);
    uint64_t before, frames;
    struct shown shown;
    qnet_conn *a, *b;
    pthread_t thread;
    int i;

    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    CHECK_INT(qnet_set_batch_handler(b, ignore_batch, NULL), QNET_OK);
    capture_add(capture, a, "changing");
    for (i = 0; i < 64; i++) {
        changing.frames[i].data = bytes;
        changing.frames[i].len = 100;
    }
    start_thread(&thread, change_lengths, &changing);
    for (i = 0; i < rounds(4000); i++)
        CHECK(qnet_send_batch(a, changing.frames, 64) != QNET_ERR_INTERNAL);
    put(&changing.is_over, 1);
    join_thread(thread);
    before = capture_stats_of(capture).frames;
    EVENTUALLY(make_send(a) == QNET_OK && capture_stats_of(capture).frames > before);
    frames = capture_stats_of(capture).frames;
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, frames);
    shown_free(&shown);
    CHECK_INT(qnet_close(a), QNET_OK);
    CHECK_INT(qnet_close(b), QNET_OK);
}
#endif

/* ---- Life ---- */

static void as_many_as_there_can_be(void)
{
    static qnet_capture *captures[300];
    struct footprint before = footprint_now();
    int i;

    for (i = 0; i < 300; i++)
        captures[i] = capture_to("/dev/null");
    EVENTUALLY(count_threads_that(is_library_thread) - before.threads == 300);
    for (i = 0; i < 300; i++)
        capture_close(captures[i]);
    footprint_again(before);
}

/* A child has no captures, and its own leave its parent's file alone. */
static void a_child_has_none(void)
{
    const char *path = scratch_path("parent.pcapng"), *other = scratch_path("child.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), shown_flows = flow;
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    qnet_conn *conn;
    pid_t pid;
    int fd;

    conn = raw_pair(&fd);
    capture_add(capture, conn, "parent");
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        qnet_capture_stats stats;

        CHECK_INT(qnet_capture_get_stats(capture, &stats, sizeof stats), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_note(capture, "x"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_capture_close(capture), QNET_ERR_HANDLE);
        capture = capture_to(other);
        conn = raw_pair(&fd);
        capture_add(capture, conn, "child");
        CHECK_INT(make_send(conn), QNET_OK);
        capture_close(capture);
        end_child();
    }
    wait_for_child(pid);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    capture_close(capture);
    shown = shown_whole(path);
    shown_name(&shown, 0, "parent", 2);
    shown_flow(&shown, 0, SHOWN_OUT, &shown_flows, 2);
    shown_free(&shown);
    shown = shown_whole(other);
    shown_name(&shown, 0, "child", 1);
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void fork_once(void *user, const uint8_t *frame, size_t len)
{
    int *child = user;

    (void)frame;
    (void)len;
    if (*child == 0) {
        *child = (int)fork();
        if (*child == 0)
            *child = -1; /* goes on inside the library, which hands over nothing more */
    }
}

/* A fork in a handler whose frames are captured: the child records nothing. */
static void a_fork_in_a_handler(void)
{
    const char *path = scratch_path("forked.pcapng");
    struct flow flow = flow_of_one_size(&short_frame), in = flow;
    qnet_capture *capture = capture_to(path);
    struct shown shown;
    qnet_conn *conn;
    int fd, child = 0, status;

    conn = raw_pair(&fd);
    capture_add(capture, conn, "forking");
    raw_send_flow(fd, &flow, 50, 0);
    CHECK_INT(qnet_set_handler(conn, fork_once, &child), QNET_OK);
    EVENTUALLY(capture_stats_of(capture).frames == 50);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_INT(qnet_close(conn), QNET_OK);
    capture_close(capture);
    shown = shown_whole(path);
    shown_flow(&shown, 0, SHOWN_IN, &in, 50);
    shown_free(&shown);
    CHECK(close(fd) == 0);
}

struct inside {
    qnet_capture *capture;
    qnet_conn *conn;
    int done;
};

static void capture_inside(void *user, const uint8_t *frame, size_t len)
{
    struct inside *inside = user;

    (void)frame;
    (void)len;
    if (get(&inside->done) == 0)
        capture_add(inside->capture, inside->conn, "inside");
    if (get(&inside->done) == 1) {
        CHECK_INT(qnet_capture_note(inside->capture, "last"), QNET_OK);
        CHECK_INT(qnet_send(inside->conn, frame, len), QNET_OK);
        capture_close(inside->capture);
    }
    count_up(&inside->done);
}

/* All of it may be done inside a handler whose frames are captured. */
static void inside_its_own_handler(void)
{
    const char *path = scratch_path("inside.pcapng");
    struct inside inside = { NULL, NULL, 0 };
    struct flow flow = flow_of_one_size(&short_frame);
    struct shown shown;
    int fd;

    inside.capture = capture_to(path);
    inside.conn = raw_pair(&fd);
    raw_send_flow(fd, &flow, 3, 0);
    CHECK_INT(qnet_set_handler(inside.conn, capture_inside, &inside), QNET_OK);
    EVENTUALLY(get(&inside.done) == 3);
    CHECK_INT(qnet_close(inside.conn), QNET_OK);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 2);
    CHECK_INT(shown.frames[0].way, SHOWN_IN);
    CHECK_INT(shown.frames[1].way, SHOWN_OUT);
    CHECK(strcmp(shown.frames[1].comments, "last;") == 0);
    shown_free(&shown);
    CHECK(close(fd) == 0);
}

int main(void)
{
    scratch_make();
    RUN(options_out_of_range);
    RUN(paths_that_cannot_be);
    RUN(descriptors_that_cannot_be);
    RUN(handles_of_others);
    RUN(counts_as_far_as_there_is_room);
    RUN(names);
    RUN(notes_go_with_the_next_frame);
    RUN(empty_notes_are_limited);
    RUN(the_beginnings_of_frames);
#ifndef __SANITIZE_THREAD__
    RUN(lengths_that_change_meanwhile);
#endif
    RUN(as_many_as_there_can_be);
    RUN(a_child_has_none);
    RUN(a_fork_in_a_handler);
    RUN(inside_its_own_handler);
    scratch_remove();
    return check_done();
}
