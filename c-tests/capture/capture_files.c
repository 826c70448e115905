/*
 * capture_files.c - where captures go: files that are there, one file after another, disks that are
 * full, and how many frames are recorded or counted at full speed.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "../forward/clocks.h"
#include "macs.h"
#include "shown.h"

static mode_t mode_of(const char *path)
{
    struct stat about;

    CHECK(stat(path, &about) == 0);
    return about.st_mode & 07777;
}

static off_t size_of(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 ? about.st_size : -1;
}

static void write_to(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(close(fd) == 0);
}

/* Sends frames that nobody has to read: they are taken from the other end meanwhile. */
struct sender {
    qnet_conn *conn;
    int fd;
    struct raw_job reader;
    struct flow flow;
};

static void sender_open(struct sender *sender, const size_t *size)
{
    sender->conn = raw_pair(&sender->fd);
    sender->flow = flow_of_one_size(size);
}

static void sender_send(struct sender *sender, unsigned count)
{
    raw_start(&sender->reader, raw_reading, sender->fd, sender->flow, count);
    CHECK_INT(flow_send(&sender->flow, sender->conn, 1, count), count);
    join_thread(sender->reader.thread);
}

static void sender_close(const struct sender *sender)
{
    CHECK_INT(qnet_close(sender->conn), QNET_OK);
    CHECK(close(sender->fd) == 0);
}

/* ---- One file ---- */

/* A file that is there is emptied, and keeps its mode; another is made for its owner alone. */
static void a_file_that_is_there(void)
{
    const char *path = scratch_path("there.pcapng"), *made = scratch_path("made.pcapng");
    struct shown shown;

    write_to(path, "what was there before, and is longer than what is to come: "
                   "................................................................................");
    capture_close(capture_to(path));
    shown = shown_whole(path);
    CHECK_INT(shown.count, 0);
    CHECK_INT(shown.interface_count, 0);
    shown_free(&shown);
    CHECK_INT(mode_of(path), 0644);
    umask(0);
    capture_close(capture_to(made));
    CHECK_INT(mode_of(made), 0600);
}

/* What comes stands in the file soon, without further frames. */
static void soon(void)
{
    const char *path = scratch_path("soon.pcapng");
    qnet_capture *capture = capture_to(path);
    struct sender sender;
    int i;

    EVENTUALLY(size_of(path) > 0);
    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, "soon");
    EVENTUALLY(shown_interfaces(path) == 1);
    for (i = 1; i < 4; i++) {
        sender_send(&sender, 1);
        EVENTUALLY((int)shown_count(path) == i);
    }
    capture_close(capture);
    sender_close(&sender);
}

/* Whether a descriptor is one of that file: its number may have become that of another already. */
static int is_open_at(int fd, const char *path)
{
    struct stat open_file, file;

    CHECK(stat(path, &file) == 0);
    return fstat(fd, &open_file) == 0 && open_file.st_dev == file.st_dev && open_file.st_ino == file.st_ino;
}

/* A descriptor's file is written from where it is on. */
static void the_file_of_a_descriptor(void)
{
    const char *path = scratch_path("given.pcapng");
    struct footprint before = footprint_now();
    qnet_capture *capture = NULL;
    struct sender sender;
    struct shown shown;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && write(fd, "four", 4) == 4);
    CHECK_INT(qnet_capture_open_fd(fd, NULL, 0, &capture), QNET_OK);
    CHECK(!is_open_at(fd, path));
    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, NULL);
    sender_send(&sender, 9);
    capture_close(capture);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && lseek(fd, 4, SEEK_SET) == 4);
    shown = shown_from(fd, 0);
    CHECK(close(fd) == 0);
    CHECK_INT(shown.count, 9);
    shown_free(&shown);
    sender_close(&sender);
    footprint_again(before);
}

/* ---- One file after another ---- */

static const char *nth(const char *form, int n)
{
    char name[26];

    snprintf(name, sizeof name, form, n);
    return scratch_path(name);
}

/* Records many frames in files of 64 KiB, and checks that what is kept has no gap. */
static void a_series(const char *name, const char *form, int64_t kept)
{
    int64_t options[] = { QNET_OPT_FILE_BYTES, 65536, QNET_OPT_FILES, kept };
    qnet_capture *capture = capture_with(scratch_path(name), options, 2);
    unsigned count = 3000, files, n, first = 0;
    struct sender sender;
    uint64_t received = 0;

    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, "series");
    for (n = 0; n < count; n += 100)
        sender_send(&sender, 100);
    capture_close(capture);
    for (files = 1; size_of(nth(form, (int)files)) < 0; files++)
        CHECK(files < 100);
    CHECK(kept == 0 ? files == 1 : files > 1);
    for (n = 0, first = files; size_of(nth(form, (int)files)) >= 0; files++) {
        struct shown shown = shown_whole(nth(form, (int)files));
        size_t i;

        CHECK_INT(shown.interface_count, 1);
        CHECK(strcmp(shown.interfaces[0].name, "series") == 0);
        for (i = 0; i < shown.count; i++) {
            unsigned number = frame_number(shown.frames[i].data, shown.frames[i].len);

            CHECK(n == 0 || number == n + 1);
            n = number;
        }
        CHECK(shown.len < 65536 + 1000);
        CHECK(n + 1 == count || shown.len >= 65536);
        CHECK(shown.interfaces[0].received >= received);
        received = shown.interfaces[0].received;
        shown_free(&shown);
    }
    CHECK_INT(n, count - 1);
    CHECK_INT(received, count);
    CHECK(kept == 0 || files - first == kept);
    CHECK_INT(size_of(scratch_path(name)), -1);
    sender_close(&sender);
}

static void all_files_are_kept(void)
{
    a_series("lab.pcapng", "lab_%05d.pcapng", 0);
    CHECK(size_of(nth("lab_%05d.pcapng", 2)) > 0);
    CHECK_INT(mode_of(nth("lab_%05d.pcapng", 1)), 0600);
}

static void the_oldest_are_removed(void)
{
    int n;

    a_series("few.a.pcapng", "few.a_%05d.pcapng", 2);
    a_series("plain", "plain_%05d", 1);
    a_series(".hidden", ".hidden_%05d", 3);
    for (n = 1; n < 100; n++)
        unlink(nth(".hidden_%05d", n));
}

/* The files stay where they were to be, wherever the program goes. */
static void a_program_that_goes_elsewhere(void)
{
    int64_t options[] = { QNET_OPT_FILE_BYTES, 65536 };
    struct sender sender;
    qnet_capture *capture;
    int i;

    CHECK(chdir(scratch_directory) == 0);
    capture = capture_with("moved.pcapng", options, 1);
    CHECK(chdir("/") == 0);
    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, NULL);
    for (i = 0; i < 20; i++)
        sender_send(&sender, 100);
    CHECK(size_of(nth("moved_%05d.pcapng", 1)) >= 0);
    capture_close(capture);
    CHECK(size_of(nth("moved_%05d.pcapng", 2)) > 0);
    sender_close(&sender);
}

/* A next file that cannot be made ends the capture: what stands in the ones before stays. */
static void a_series_that_cannot_go_on(void)
{
    int64_t options[] = { QNET_OPT_FILE_BYTES, 65536 };
    qnet_capture *capture = capture_with(scratch_path("stuck.pcapng"), options, 1);
    struct sender sender;
    struct shown shown;
    unsigned n;

    CHECK(mkdir(nth("stuck_%05d.pcapng", 2), 0700) == 0);
    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, NULL);
    for (n = 0; n < 2000; n += 100)
        sender_send(&sender, 100);
    EVENTUALLY(capture_stats_of(capture).error == EISDIR);
    sender_send(&sender, 100);
    shown = shown_whole(nth("stuck_%05d.pcapng", 1));
    /* What came just before the failure counts as recorded for a moment. */
    EVENTUALLY(capture_stats_of(capture).frames == (uint64_t)shown.count);
    EVENTUALLY(has_had(capture, n + 100));
    CHECK_INT(capture_stats_of(capture).dropped, n + 100 - shown.count);
    capture_close(capture);
    shown_free(&shown);
    sender_close(&sender);
}

/* ---- Full disks ---- */

/* Sends until writing has failed, and checks that no frame is late, lost, or cut in the file. */
static void until_it_is_full(const char *path, int errno_wanted)
{
    static const size_t size = 1514;
    qnet_capture *capture = capture_to(path);
    qnet_capture_stats stats;
    struct sender sender;
    struct shown shown;
    unsigned n;

    sender_open(&sender, &size);
    capture_add(capture, sender.conn, "full");
    for (n = 0; capture_stats_of(capture).error == 0; n += 100)
        sender_send(&sender, 100);
    CHECK_INT(capture_stats_of(capture).error, errno_wanted);
    EVENTUALLY(has_had(capture, n));
    for (; n < 2000; n += 100)
        sender_send(&sender, 100);
    /* What was put in the buffer as writing failed is given up in the thread's next turn. */
    EVENTUALLY(shown_count(path) == capture_stats_of(capture).frames);
    stats = capture_stats_of(capture);
    CHECK_INT(stats.frames + stats.dropped, n);
    CHECK_INT(stats.bytes, stats.frames * size);
    CHECK(stats.frames > 0 && stats.dropped > 0);
    capture_close(capture);
    shown = shown_uncut(path);
    CHECK_INT(shown.count, stats.frames);
    sender.flow.next = 0;
    shown_flow(&shown, 0, SHOWN_OUT, &sender.flow, (unsigned)stats.frames);
    shown_free(&shown);
    sender_close(&sender);
}

static void a_limit_to_files(void)
{
    struct rlimit limit = { 700001, 700001 };

    signal(SIGXFSZ, SIG_DFL);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    until_it_is_full(scratch_path("limited.pcapng"), EFBIG);
}

static void a_full_disk(void)
{
    const char *disk = scratch_path("disk");

    CHECK(mkdir(disk, 0700) == 0);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) != 0
        || mount("tmpfs", disk, "tmpfs", 0, "size=700k") != 0)
        check_skip("no right to mount a small disk");
    until_it_is_full(scratch_path("disk/full.pcapng"), ENOSPC);
}

static void a_device_that_is_full(void)
{
    qnet_capture *capture = capture_to("/dev/full");
    struct sender sender;

    sender_open(&sender, &short_frame);
    capture_add(capture, sender.conn, NULL);
    EVENTUALLY(capture_stats_of(capture).error == ENOSPC);
    sender_send(&sender, 10);
    CHECK_INT(capture_stats_of(capture).frames, 0);
    CHECK_INT(capture_stats_of(capture).dropped, 10);
    capture_close(capture);
    sender_close(&sender);
}

/* ---- At full speed ---- */

/* Every frame is recorded or counted, both ways, and the file says where some are missing. */
static void recorded_or_counted(int64_t buffer)
{
    int64_t options[] = { QNET_OPT_CAPTURE_BYTES, buffer };
    const char *path = scratch_path("million.pcapng");
    qnet_capture *capture = capture_with(path, options, 1);
    unsigned count = (unsigned)rounds(500000) / 64 * 64, next[2] = { 0, 0 };
    struct cable cable = cable_plugged();
    struct flow flow = flow_of_one_size(&short_frame);
    struct raw_job writer, reader;
    uint64_t lost = 0, seen = 0;
    qnet_capture_stats stats;
    struct shown shown;
    size_t i;

    capture_add(capture, cable.a, "in");
    capture_add(capture, cable.b, "out");
    raw_start(&writer, raw_writing, cable.fa, flow, count);
    raw_start(&reader, raw_reading, cable.fb, flow, count);
    join_thread(writer.thread);
    join_thread(reader.thread);
    EVENTUALLY(has_had(capture, 2 * (uint64_t)count));
    stats = capture_stats_of(capture);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, stats.frames);
    CHECK_INT(shown.interfaces[0].received, count);
    CHECK_INT(shown.interfaces[1].received, count);
    CHECK_INT(shown.interfaces[0].dropped + shown.interfaces[1].dropped, stats.dropped);
    for (i = 0; i < shown.count; i++) {
        const struct shown_frame *frame = &shown.frames[i];
        unsigned *expected = &next[frame->interface];

        CHECK_INT(frame->way, frame->interface == 0 ? SHOWN_IN : SHOWN_OUT);
        CHECK_INT(frame_number(frame->data, frame->kept), *expected + frame->lost);
        *expected += (unsigned)frame->lost + 1;
        lost += frame->lost;
        seen++;
    }
    lost += 2 * (uint64_t)count - next[0] - next[1];
    CHECK_INT(lost, stats.dropped);
    CHECK_INT(seen + lost, 2 * (uint64_t)count);
    shown_free(&shown);
    cable_close(&cable);
}

static void a_million_frames(void)
{
    recorded_or_counted(4 << 20);
}

static void a_million_frames_and_a_small_buffer(void)
{
    recorded_or_counted(128 << 10);
}

/* ---- On a clock of the program's ---- */

/* Times are the clock's, and the file of a simulation is whole, however small the buffer. */
static void a_simulation(void)
{
    int64_t options[] = { QNET_OPT_CAPTURE_BYTES, 128 << 10 };
    const char *path = scratch_path("clock.pcapng");
    qnet_capture *capture = capture_with(path, options, 1);
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    struct flow flow = flow_of_one_size(&short_frame), in = flow, out = flow;
    struct raw_job reader;
    struct shown shown;
    unsigned n, count = 0;
    size_t i;

    capture_add(capture, cable.a, "a");
    capture_add(capture, cable.b, "b");
    impair(cable.a, QNET_IN, "delay 7ms");
    for (n = 0; n < 40; n++) {
        advance(clock, n * 10 * ms);
        raw_send_flow(cable.fa, &flow, 800, 0);
        raw_start(&reader, raw_reading, cable.fb, in, 800);
        in.next += 800;
        count += 800;
        advance(clock, n * 10 * ms);
        advance(clock, (n * 10 + 9) * ms);
        join_thread(reader.thread);
    }
    CHECK_INT(capture_stats_of(capture).dropped, 0);
    capture_close(capture);
    shown = shown_whole(path);
    CHECK_INT(shown.count, 2 * count);
    in.next = 0;
    shown_flow(&shown, 0, SHOWN_IN, &in, count);
    shown_flow(&shown, 1, SHOWN_OUT, &out, count);
    for (i = 0; i < shown.count; i++) {
        unsigned number = frame_number(shown.frames[i].data, shown.frames[i].kept);
        int64_t time = number / 800 * 10 * ms + (shown.frames[i].interface == 1 ? 7 * ms : 0);

        CHECK_INT(shown.frames[i].time, time);
    }
    shown_free(&shown);
    cable_close(&cable);
    clock_close(clock);
}

int main(void)
{
    scratch_make();
    RUN(a_file_that_is_there);
    RUN(soon);
    RUN(the_file_of_a_descriptor);
    RUN(all_files_are_kept);
    RUN(the_oldest_are_removed);
    RUN(a_program_that_goes_elsewhere);
    RUN(a_series_that_cannot_go_on);
    RUN(a_limit_to_files);
    RUN(a_full_disk);
    RUN(a_device_that_is_full);
    RUN(a_million_frames);
    RUN(a_million_frames_and_a_small_buffer);
    RUN(a_simulation);
    scratch_remove();
    return check_done();
}
