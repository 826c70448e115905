/*
 * capture_readers.c - captures that go to who reads them: FIFOs, whose readers come and go, and
 * pipes and sockets, whose reader is the only one. None of them is felt by the frames.
 */
#include <sys/socket.h>
#include <termios.h>

#include "../forward/cable.h"
#include "shown.h"

/* A link whose frames a capture shows at both sides. */
struct seen_link {
    struct cable cable;
    qnet_capture *capture;
    struct flow sent, received;
};

static struct seen_link seen_link(qnet_capture *capture)
{
    struct seen_link link;

    link.cable = cable_plugged();
    link.capture = capture;
    link.sent = link.received = flow_of_one_size(&short_frame);
    capture_add(capture, link.cable.a, "left");
    capture_add(capture, link.cable.b, "right");
    return link;
}

/* Frames that pass the link, each at once: none waits for a reader. */
static void pass_frames(struct seen_link *link, unsigned count)
{
    while (count-- > 0) {
        raw_send_flow(link->cable.fa, &link->sent, 1, 0);
        raw_take(link->cable.fb, &link->received);
    }
}

static int open_reader(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    return fd;
}

static const char *fifo_make(const char *name)
{
    const char *path = scratch_path(name);

    CHECK(mkfifo(path, 0600) == 0);
    return path;
}

/* A pipe of one page, which holds little. */
static void make_small(int fd)
{
    CHECK(fcntl(fd, F_SETPIPE_SZ, 4096) == 4096);
}

/* ---- FIFOs ---- */

/* While nobody reads, nothing is recorded or counted; a reader gets a whole file from then on. */
static void a_reader_comes_later(void)
{
    const char *path = fifo_make("later");
    struct seen_link link = seen_link(capture_to(path));
    struct shown shown;
    struct flow in;
    int fd;

    pass_frames(&link, 100);
    CHECK_INT(qnet_capture_note(link.capture, "first"), QNET_OK);
    CHECK_INT(capture_stats_of(link.capture).frames, 0);
    CHECK_INT(capture_stats_of(link.capture).dropped, 0);
    fd = open_reader(path);
    EVENTUALLY(capture_stats_of(link.capture).readers == 1);
    in = link.sent;
    pass_frames(&link, 100);
    EVENTUALLY(capture_stats_of(link.capture).frames == 200);
    CHECK_INT(capture_stats_of(link.capture).files, 0);
    capture_close(link.capture);
    shown = shown_from(fd, 0);
    CHECK(strcmp(shown.frames[0].comments, "first;") == 0);
    shown_name(&shown, 0, "left", 100);
    shown_name(&shown, 1, "right", 100);
    shown_flow(&shown, 0, SHOWN_IN, &in, 100);
    shown_free(&shown);
    CHECK(close(fd) == 0);
    cable_close(&link.cable);
}

/* One who waits already when the capture is opened misses no frame. */
static void *waiting_reader(void *path)
{
    struct shown *shown = allocate(sizeof *shown);
    int fd = open_reader(path);

    *shown = shown_from(fd, 0);
    CHECK(close(fd) == 0);
    return shown;
}

static void a_reader_is_there_before(void)
{
    const char *path = fifo_make("before");
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct seen_link link = seen_link(capture_to(path));
    struct shown shown;

    CHECK(fd >= 0 && fcntl(fd, F_SETFL, 0) == 0);
    CHECK_INT(capture_stats_of(link.capture).readers, 1);
    pass_frames(&link, 50);
    EVENTUALLY(capture_stats_of(link.capture).frames == 100);
    capture_close(link.capture);
    shown = shown_from(fd, 0);
    CHECK_INT(shown.count, 100);
    shown_free(&shown);
    CHECK(close(fd) == 0);
    cable_close(&link.cable);
}

/* One who opens it while nobody writes waits until the capture has noticed. */
static void a_reader_who_waits(void)
{
    const char *path = fifo_make("waits");
    struct seen_link link = seen_link(capture_to(path));
    struct shown *shown;
    pthread_t thread;
    void *result;

    start_thread(&thread, waiting_reader, (void *)(uintptr_t)path);
    EVENTUALLY(capture_stats_of(link.capture).readers == 1);
    pass_frames(&link, 10);
    capture_close(link.capture);
    CHECK_INT(pthread_join(thread, &result), 0);
    shown = result;
    CHECK_INT(shown->count, 20);
    shown_free(shown);
    free(shown);
    cable_close(&link.cable);
}

/* Whether the library has noticed that the reader has left: nothing is recorded any more. */
static int is_alone(struct seen_link *link)
{
    uint64_t before = capture_stats_of(link->capture).frames;

    pass_frames(link, 1);
    raw_sleep_ms(1);
    return capture_stats_of(link->capture).frames == before;
}

/* Readers come, stop reading, leave and return, a hundred times: each gets a file from its beginning. */
static void a_hundred_readers(void)
{
    const char *path = fifo_make("hundred");
    struct seen_link link = seen_link(capture_to(path));
    int i, count = rounds(100);

    signal(SIGPIPE, SIG_DFL);
    for (i = 0; i < count; i++) {
        unsigned char bytes[12];
        int fd = open_reader(path);

        EVENTUALLY(capture_stats_of(link.capture).readers == (uint64_t)i + 1);
        make_small(fd);
        pass_frames(&link, 50);
        if (i % 2)
            CHECK(read(fd, bytes, sizeof bytes) == sizeof bytes && shown_u32(bytes) == 0x0a0d0d0a);
        pass_frames(&link, 50);
        if (i % 3)
            raw_sleep_ms(5);
        CHECK(close(fd) == 0);
        pass_frames(&link, 50);
        EVENTUALLY(is_alone(&link));
    }
    CHECK_INT(capture_stats_of(link.capture).dropped, 0);
    CHECK_INT(stats_of(link.cable.b).tx_dropped, 0);
    capture_close(link.capture);
    cable_close(&link.cable);
}

/* One who does not read makes the buffer full: what finds no room is counted, and shown later. */
static void a_reader_who_stops(void)
{
    int64_t options[] = { QNET_OPT_CAPTURE_BYTES, 128 << 10 };
    const char *path = fifo_make("stops");
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct seen_link link = seen_link(capture_with(path, options, 1));
    uint64_t lost[2] = { 0, 0 }, dropped;
    struct shown *shown;
    pthread_t thread;
    void *result;
    unsigned n;
    size_t i;

    CHECK(fd >= 0);
    make_small(fd);
    for (n = 0; capture_stats_of(link.capture).dropped < 1000; n += 100)
        pass_frames(&link, 100);
    EVENTUALLY(has_had(link.capture, 2 * n));
    dropped = capture_stats_of(link.capture).dropped;
    start_thread(&thread, waiting_reader, (void *)(uintptr_t)path);
    /* What waits is a megabyte at most, and goes at once. */
    EVENTUALLY(!raw_readable(fd, 10));
    pass_frames(&link, 10);
    EVENTUALLY(has_had(link.capture, 2 * (n + 10)));
    CHECK_INT(capture_stats_of(link.capture).dropped, dropped);
    capture_close(link.capture);
    CHECK(close(fd) == 0);
    CHECK_INT(pthread_join(thread, &result), 0);
    shown = result;
    for (i = 0; i < shown->count; i++)
        lost[shown->frames[i].interface] += shown->frames[i].lost;
    CHECK_INT(lost[0] + lost[1], dropped);
    CHECK_INT(shown->interfaces[0].dropped, lost[0]);
    CHECK_INT(shown->interfaces[1].dropped, lost[1]);
    CHECK_INT(shown->count + dropped, 2 * (n + 10));
    shown_free(shown);
    free(shown);
    cable_close(&link.cable);
}

/* Closing does not wait for one who does not read for longer than a second. */
static void closing_with_a_reader_who_stops(void)
{
    const char *path = fifo_make("closing");
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct seen_link link = seen_link(capture_to(path));
    long long before;

    CHECK(fd >= 0);
    make_small(fd);
    pass_frames(&link, 1000);
    before = raw_now_ms();
    capture_close(link.capture);
    CHECK(raw_now_ms() - before < 1000 + patience_ms());
    CHECK_INT(qnet_capture_close(link.capture), QNET_ERR_HANDLE);
    pass_frames(&link, 10);
    CHECK(close(fd) == 0);
    cable_close(&link.cable);
}

/* Nor for a terminal on which nothing moves. */
static void closing_with_a_terminal_that_stands_still(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), fd;
    struct seen_link link;
    qnet_capture *capture;
    struct termios raw;
    long long before;

    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    fd = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(fd >= 0 && tcgetattr(fd, &raw) == 0);
    cfmakeraw(&raw);
    CHECK(tcsetattr(fd, TCSANOW, &raw) == 0);
    CHECK_INT(qnet_capture_open_fd(fd, NULL, 0, &capture), QNET_OK);
    link = seen_link(capture);
    pass_frames(&link, 1000);
    before = raw_now_ms();
    capture_close(link.capture);
    CHECK(raw_now_ms() - before < 1000 + patience_ms());
    CHECK(close(master) == 0);
    cable_close(&link.cable);
}

/* Whether this process has a FIFO open. */
static int has_open(const char *path)
{
    char name[64];
    struct stat fifo, other;
    int fd, found = 0;

    CHECK(stat(path, &fifo) == 0);
    for (fd = 0; fd < 1024; fd++) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        found |= stat(name, &other) == 0 && other.st_ino == fifo.st_ino && other.st_dev == fifo.st_dev;
    }
    return found;
}

/* A reader leaves, and another comes, while nothing passes: it gets a whole file, too. */
static void a_reader_leaves_quietly(void)
{
    const char *path = fifo_make("quietly");
    struct seen_link link = seen_link(capture_to(path));
    unsigned char bytes[12];
    struct shown shown;
    int fd = open_reader(path);

    CHECK(read(fd, bytes, sizeof bytes) == sizeof bytes && shown_u32(bytes) == 0x0a0d0d0a);
    CHECK_INT(capture_stats_of(link.capture).readers, 1);
    CHECK(close(fd) == 0);
    EVENTUALLY(!has_open(path));
    fd = open_reader(path);
    EVENTUALLY(capture_stats_of(link.capture).readers == 2);
    pass_frames(&link, 10);
    capture_close(link.capture);
    shown = shown_from(fd, 0);
    CHECK_INT(shown.count, 20);
    shown_free(&shown);
    CHECK(close(fd) == 0);
    cable_close(&link.cable);
}

/* A FIFO that is gone ends the capture when its reader leaves. */
static void a_fifo_that_is_gone(void)
{
    const char *path = fifo_make("gone");
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct seen_link link = seen_link(capture_to(path));

    CHECK(unlink(path) == 0);
    pass_frames(&link, 10);
    CHECK(close(fd) == 0);
    pass_frames(&link, 10);
    EVENTUALLY(capture_stats_of(link.capture).error == ENOENT);
    capture_close(link.capture);
    cable_close(&link.cable);
}

/* ---- Descriptors ---- */

static qnet_capture *capture_to_fd(int fd)
{
    qnet_capture *capture = NULL;

    CHECK_INT(qnet_capture_open_fd(fd, NULL, 0, &capture), QNET_OK);
    return capture;
}

/* Both ends of what a capture may be given: the reader's, and the capture's. */
static void ends_of(int kind, int ends[2])
{
    if (kind == 0) {
        CHECK(pipe(ends) == 0);
        return;
    }
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
}

enum { KINDS = 2 };

static void the_reader_of_a_descriptor(void)
{
    int kind, ends[2];

    for (kind = 0; kind < KINDS; kind++) {
        struct footprint before = footprint_now();
        struct seen_link link;
        struct shown shown;
        struct flow in, out;
        int own;

        ends_of(kind, ends);
        own = fcntl(ends[1], F_DUPFD_CLOEXEC, 0);
        link = seen_link(capture_to_fd(ends[1]));
        in = out = link.sent;
        /* Others who have the same pipe or socket are not made to find it non-blocking. */
        CHECK_INT(fcntl(own, F_GETFL) & O_NONBLOCK, 0);
        CHECK(close(own) == 0);
        pass_frames(&link, 100);
        capture_close(link.capture);
        shown = shown_from(ends[0], 0);
        shown_flow(&shown, 0, SHOWN_IN, &in, 100);
        shown_flow(&shown, 1, SHOWN_OUT, &out, 100);
        shown_free(&shown);
        CHECK(close(ends[0]) == 0);
        cable_close(&link.cable);
        footprint_again(before);
    }
}

static void the_reader_of_a_descriptor_leaves(void)
{
    int kind, ends[2];

    signal(SIGPIPE, SIG_DFL);
    for (kind = 0; kind < KINDS; kind++) {
        struct seen_link link;
        uint64_t frames;

        ends_of(kind, ends);
        link = seen_link(capture_to_fd(ends[1]));
        pass_frames(&link, 100);
        CHECK(raw_readable(ends[0], patience_ms()));
        CHECK(close(ends[0]) == 0);
        pass_frames(&link, 100);
        EVENTUALLY(capture_stats_of(link.capture).error == EPIPE);
        EVENTUALLY(has_had(link.capture, 400));
        frames = capture_stats_of(link.capture).frames;
        pass_frames(&link, 100);
        EVENTUALLY(has_had(link.capture, 600));
        /* Fewer, if some that were never written have only now been given up. */
        CHECK(capture_stats_of(link.capture).frames <= frames);
        capture_close(link.capture);
        cable_close(&link.cable);
    }
}

int main(void)
{
    scratch_make();
    RUN(a_reader_comes_later);
    RUN(a_reader_is_there_before);
    RUN(a_reader_who_waits);
    RUN(a_hundred_readers);
    RUN(a_reader_leaves_quietly);
    RUN(a_reader_who_stops);
    RUN(closing_with_a_reader_who_stops);
    RUN(closing_with_a_terminal_that_stands_still);
    RUN(a_fifo_that_is_gone);
    RUN(the_reader_of_a_descriptor);
    RUN(the_reader_of_a_descriptor_leaves);
    scratch_remove();
    return check_done();
}
