/*
 * capture_shark.c - what tshark and capinfos show of captures: that their readers take the files,
 * and see the names, times, directions, comments and losses. Without these programs a test is
 * skipped, or fails if QNET_REQUIRE_TSHARK=1.
 */
#include "../forward/clocks.h"
#include "shown.h"

enum { SHOWN_TEXT = 1 << 16 };

static void needs(const char *program)
{
    const char *require = getenv("QNET_REQUIRE_TSHARK");
    char command[80];

    snprintf(command, sizeof command, "%s --version >/dev/null 2>&1", program);
    if (system(command) == 0)
        return;
    if (require && strcmp(require, "1") == 0)
        check_fail(__FILE__, __LINE__, command);
    check_skip(program);
}

/* What a command prints, which must succeed. `file` is put in place of its %s. */
static const char *printed(const char *form, const char *file)
{
    static char text[SHOWN_TEXT];
    char command[600];
    size_t len;
    FILE *out;

    snprintf(command, sizeof command, form, file);
    out = popen(command, "r");
    CHECK(out != NULL);
    len = fread(text, 1, sizeof text - 1, out);
    text[len] = '\0';
    if (pclose(out) != 0)
        check_fail(__FILE__, __LINE__, command);
    return text;
}

static void prints(const char *form, const char *file, const char *want)
{
    const char *text = printed(form, file);

    if (strcmp(text, want) != 0)
        fprintf(stderr, "it prints:\n%s\nand not:\n%s\n", text, want);
    CHECK(strcmp(text, want) == 0);
}

/* A broadcast frame of ARP's, which every one of the programs knows. */
static void say_arp(int fd)
{
    static const uint8_t arp[60] = { 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4,
                                     0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2 };

    raw_send(fd, arp, sizeof arp);
}

/* Makes a file with two interfaces: a frame at 5 ms and one at 1.000000009 s in, each out 7 ns later. */
static const char *a_file(const char *name)
{
    const char *path = scratch_path(name);
    qnet_capture *capture = capture_to(path);
    qnet_clock *clock = clock_open();
    struct cable cable = cable_on(clock);
    uint8_t frame[100];

    capture_add(capture, cable.a, "left");
    capture_add(capture, cable.b, "the right");
    impair(cable.a, QNET_IN, "delay 7ns");
    advance(clock, 5 * ms);
    CHECK_INT(qnet_capture_note(capture, "who has it"), QNET_OK);
    say_arp(cable.fa);
    advance(clock, 1000000009);
    say_arp(cable.fa);
    advance(clock, 2000000000);
    CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), 60);
    CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), 60);
    capture_close(capture);
    cable_close(&cable);
    clock_close(clock);
    return path;
}

static void what_tshark_shows(void)
{
    needs("tshark");
    prints("TZ=UTC tshark -r %s -T fields -E separator=/s -e frame.time_epoch -e frame.interface_name -e "
           "frame.packet_flags_direction -e frame.len -e arp.dst.proto_ipv4 -e frame.comment 2>&1 | "
           "sed 's/0x0*1 /in /; s/0x0*2 /out /; s/Running as.*//; /^$/d; s/ *$//'",
           a_file("shark.pcapng"),
           "0.005000000 left in 60 10.0.0.2 who has it\n"
           "0.005000007 the right out 60 10.0.0.2\n"
           "1.000000009 left in 60 10.0.0.2\n"
           "1.000000016 the right out 60 10.0.0.2\n");
}

static void what_capinfos_shows(void)
{
    const char *path = a_file("infos.pcapng"), *text;

    needs("capinfos");
    text = printed("LC_ALL=C capinfos %s", path);
    CHECK(strstr(text, "File type:           Wireshark/... - pcapng"));
    CHECK(strstr(text, "Number of packets:   4"));
    CHECK(strstr(text, "File encapsulation:  Ethernet"));
    CHECK(strstr(text, "nanoseconds (9)"));
    CHECK(strstr(text, "Strict time order:   True"));
    CHECK(strstr(text, "Capture application: libqnet"));
    CHECK(strstr(text, "Number of interfaces in file: 2"));
    CHECK(strstr(text, "Name = left"));
    CHECK(strstr(text, "Name = the right"));
    CHECK(strstr(text, "Number of packets = 2"));
    CHECK(strstr(text, "Number of stat entries = 1"));
}

/* Copies what comes from one descriptor to another. */
static void *copying(void *argument)
{
    int *fds = argument;
    char bytes[4096];
    ssize_t n;

    while ((n = read(fds[0], bytes, sizeof bytes)) > 0)
        CHECK(write(fds[1], bytes, (size_t)n) == n);
    CHECK(n == 0);
    return NULL;
}

/* Frames that found no room, which stand at the next one. */
static void losses_are_shown(void)
{
    int64_t options[] = { QNET_OPT_CAPTURE_BYTES, 128 << 10 };
    const char *path = scratch_path("loss"), *copy = scratch_path("loss.pcapng");
    struct flow flow = flow_of_one_size(&long_frame), came = flow;
    qnet_capture *capture;
    pthread_t copier;
    qnet_conn *conn;
    char lost[60];
    int fd, fds[2];

    needs("tshark");
    CHECK(mkfifo(path, 0600) == 0);
    fds[0] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    fds[1] = open(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fds[0] >= 0 && fds[1] >= 0 && fcntl(fds[0], F_SETFL, 0) == 0);
    CHECK(fcntl(fds[0], F_SETPIPE_SZ, 4096) == 4096);
    capture = capture_with(path, options, 1);
    conn = raw_pair(&fd);
    capture_add(capture, conn, "lossy");
    while (capture_stats_of(capture).dropped < 10) {
        CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
        raw_take(fd, &came);
    }
    start_thread(&copier, copying, fds);
    EVENTUALLY(shown_count(copy) == capture_stats_of(capture).frames);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    CHECK_INT(flow_send(&flow, conn, 0, 1), 1);
    raw_take_until(fd, &came, flow.next);
    snprintf(lost, sizeof lost, "%llu\n", (unsigned long long)capture_stats_of(capture).dropped);
    capture_close(capture);
    join_thread(copier);
    /* A frame may have found room between two that were lost. */
    prints("tshark -r %s -Y frame.drop_count -T fields -e frame.drop_count 2>/dev/null |"
           " awk '{ sum += $1 } END { print sum }'",
           copy, lost);
    CHECK(close(fds[0]) == 0);
    CHECK(close(fds[1]) == 0);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* tshark as a FIFO's reader, which sees frames as they come and leaves when it has had enough. */
static void live(void)
{
    const char *path = scratch_path("live");
    qnet_capture *capture;
    struct cable cable = cable_plugged();
    uint8_t frame[60];
    char command[200], line[100];
    FILE *shark;
    int i;

    needs("tshark");
    CHECK(mkfifo(path, 0600) == 0);
    capture = capture_to(path);
    capture_add(capture, cable.a, "a");
    snprintf(command, sizeof command, "tshark -l -c 3 -i %s -T fields -e arp.src.proto_ipv4 2>/dev/null", path);
    shark = popen(command, "r");
    CHECK(shark != NULL);
    EVENTUALLY(capture_stats_of(capture).readers == 1);
    for (i = 0; i < 3; i++) {
        say_arp(cable.fa);
        CHECK_INT(raw_recv(cable.fb, frame, sizeof frame), 60);
        CHECK(fgets(line, sizeof line, shark) != NULL);
        CHECK(strcmp(line, "10.0.0.1\n") == 0);
    }
    CHECK_INT(pclose(shark), 0);
    capture_close(capture);
    cable_close(&cable);
}

int main(void)
{
    scratch_make();
    RUN(what_tshark_shows);
    RUN(what_capinfos_shows);
    RUN(losses_are_shown);
    RUN(live);
    scratch_remove();
    return check_done();
}
