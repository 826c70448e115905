/*
 * impair_calls.c - the functions that impair: what they accept and refuse and how they say
 * so, the text that they give back, and whose it is.
 */
#include <limits.h>
#include <sys/stat.h>

#include "../forward/cable.h"
#include "impairing.h"
#include "macs.h"
#include "scratch.h"

enum { DIRECTIONS = 2 };

static const int directions[DIRECTIONS] = { QNET_IN, QNET_OUT };

/* ---- Texts ---- */

static void a_text_is_given_back(void)
{
    static const char *const texts[][2] = {
        { "delay 40ms seed 1", "delay 40ms seed 1" },
        { "SEED 1 Delay 0.04s", "delay 40ms seed 1" },
        { " loss  1.5%  seed 2 delay 1000us 500ns ", "delay 1ms 500ns loss 1.5% seed 2" },
        { "rate 20mbit 24 48 5 limit 100 seed 3", "rate 20mbit 24 48 5 limit 100 seed 3" },
        { "rate 1000kbit limit 10kb mark 5ms seed 3", "rate 1mbit limit 10kb mark 5ms seed 3" },
        { "loss gemodel 1% 25% ecn seed 18446744073709551615",
          "loss gemodel 1% 25% ecn seed 18446744073709551615" },
        { "loss frames 3,7-9 seed 0", "loss frames 3,7-9 seed 0" },
        { "seed 4 match 4,40 0 0 12,21 0 1 2048,6 0 0 1,6 0 0 0",
          "seed 4 match 4,40 0 0 12,21 0 1 2048,6 0 0 1,6 0 0 0" },
    };
    struct cable cable = cable_unplugged();
    size_t i;
    int d, linked;

    for (linked = 0; linked < 2; linked++) {
        for (i = 0; i < sizeof texts / sizeof *texts; i++)
            for (d = 0; d < DIRECTIONS; d++) {
                impair(cable.a, directions[d], texts[i][0]);
                check_text(cable.a, directions[d], texts[i][1]);
                impair(cable.a, directions[d], texts[i][1]);
                check_text(cable.a, directions[d], texts[i][1]);
                check_text(cable.b, directions[d], "");
            }
        for (d = 0; d < DIRECTIONS; d++) {
            impair(cable.a, directions[d], d ? "" : NULL);
            check_text(cable.a, directions[d], "");
        }
        check_text(cable.a, QNET_IN, "");
        if (!linked)
            CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    }
    passes(cable.fa, cable.fb);
    cable_close(&cable);
}

/* Without a seed a direction has one of its own, and keeps it. */
static void seeds_are_chosen_once(void)
{
    struct cable cable = cable_unplugged();
    unsigned long long seed;

    impair(cable.a, QNET_BOTH, "loss 1%");
    seed = seed_of(cable.a, QNET_IN);
    CHECK(seed_of(cable.a, QNET_OUT) == seed);
    impair(cable.a, QNET_IN, "");
    impair(cable.a, QNET_IN, "delay 1ms");
    CHECK(seed_of(cable.a, QNET_IN) == seed);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    CHECK(seed_of(cable.a, QNET_IN) == seed);
    impair(cable.a, QNET_OUT, "delay 1ms seed 77");
    impair(cable.a, QNET_OUT, "delay 2ms");
    CHECK(seed_of(cable.a, QNET_OUT) == 77);
    CHECK(seed_of(cable.a, QNET_IN) == seed);
    impair(cable.b, QNET_BOTH, "loss 1%");
    CHECK(seed_of(cable.b, QNET_IN) != seed);
    cable_close(&cable);
}

/* Text goes out as by snprintf(3). */
static void a_text_is_cut(void)
{
    struct cable cable = cable_unplugged();
    char buf[8] = "xxxxxxx";

    impair(cable.a, QNET_IN, "delay 1ms seed 1");
    CHECK_INT(qnet_impairment(cable.a, QNET_IN, NULL, 0), 16);
    CHECK_INT(qnet_impairment(cable.a, QNET_IN, buf, 0), 16);
    CHECK(buf[0] == 'x');
    CHECK_INT(qnet_impairment(cable.a, QNET_IN, buf, 6), 16);
    CHECK(strcmp(buf, "delay") == 0 && buf[6] == 'x');
    CHECK_INT(qnet_impairment(cable.a, QNET_IN, NULL, 6), QNET_ERR_INVALID);
    CHECK_INT(qnet_impairment(cable.a, QNET_OUT, buf, sizeof buf), 0);
    CHECK(buf[0] == '\0');
    cable_close(&cable);
}

/* A program's header may be older or newer than the library. */
static void stats_fill_what_fits(void)
{
    struct { qnet_impair_stats stats; uint64_t more[2]; } large;
    uint64_t small[3] = { 77, 77, 77 };
    struct cable cable = cable_unplugged();

    memset(&large, 0xff, sizeof large);
    CHECK_INT(qnet_get_impair_stats(cable.a, QNET_IN, &large.stats, sizeof large),
              sizeof(qnet_impair_stats));
    CHECK_INT(large.stats.frames, 0);
    CHECK_INT(large.more[0] + large.more[1], 0);
    CHECK_INT(qnet_get_impair_stats(cable.a, QNET_OUT, (qnet_impair_stats *)small, 16),
              sizeof(qnet_impair_stats));
    CHECK(small[0] == 0 && small[1] == 0 && small[2] == 77);
    CHECK_INT(qnet_get_impair_stats(cable.a, QNET_IN, NULL, 16), QNET_ERR_INVALID);
    cable_close(&cable);
}

/* However long a text is: where it is taken, what is told of it, with the seed, can be set again. */
static void long_texts_are_set_again(void)
{
    enum { LONGEST = 128 << 10 };
    static char text[LONGEST + 100], told[LONGEST + 100];
    struct cable cable = cable_unplugged();
    int frames = 1, taken = 0, refused = 0;
    size_t len = (size_t)sprintf(text, "loss frames 1");

    while (len < LONGEST + 10) {
        len += (size_t)sprintf(text + len, ",%d", frames += 2);
        if (len < LONGEST - 60)
            continue;
        if (qnet_impair(cable.a, QNET_IN, text) != QNET_OK) {
            CHECK_INT(qnet_impair(cable.a, QNET_IN, text), QNET_ERR_INVALID);
            refused++;
            continue;
        }
        taken++;
        CHECK(qnet_impairment(cable.a, QNET_IN, told, sizeof told) > (int)len);
        impair(cable.a, QNET_IN, told);
    }
    CHECK(taken > 2 && refused > 2);
    cable_close(&cable);
}

/* ---- Refusals ---- */

static void a_wrong_text_is_explained(void)
{
    static const char *const texts[][2] = {
        { "delay 10", "\"10\" at 7: a time needs its unit" },
        { "delya 10ms", "\"delya\" at 1: expected one of delay," },
        { "delay 10ms delay 10ms", "at 12" },
        { "loss 101%", "\"101%\" at 6" },
        { "gap 3", "gap" },
        { "rate 0bit", "\"0bit\" at 6" },
        { "rate 1mbit trace /x", "trace" },
        { "loss", "loss" },
    };
    struct cable cable = cable_unplugged();
    size_t i;
    int d;

    impair(cable.a, QNET_BOTH, "delay 1ms seed 1");
    for (i = 0; i < sizeof texts / sizeof *texts; i++)
        for (d = QNET_IN; d <= QNET_BOTH; d++) {
            CHECK_INT(qnet_impair(cable.a, d, texts[i][0]), QNET_ERR_INVALID);
            CHECK(strncmp(qnet_last_error(), "impair ", 7) == 0);
            CHECK(strstr(qnet_last_error(), texts[i][1]) != NULL);
            CHECK_INT(qnet_last_errno(), 0);
        }
    check_text(cable.a, QNET_IN, "delay 1ms seed 1");
    check_text(cable.a, QNET_OUT, "delay 1ms seed 1");
    cable_close(&cable);
}

static void the_failure_names_the_connection(void)
{
    const char *path = scratch_path("named.sock");
    qnet_listener *listener;
    qnet_conn *conn;
    char want[300];

    CHECK_INT(qnet_listen("unix", path, &listener), QNET_OK);
    CHECK_INT(qnet_dial("unix", path, &conn), QNET_OK);
    CHECK_INT(qnet_impair(conn, QNET_IN, "delay 10"), QNET_ERR_INVALID);
    snprintf(want, sizeof want, "impair unix %s: \"10\" at 7: ", path);
    CHECK(strstr(qnet_last_error(), want) == qnet_last_error());
    CHECK_INT(qnet_listener_impair(listener, QNET_IN, "delay 10"), QNET_ERR_INVALID);
    CHECK(strstr(qnet_last_error(), want) == qnet_last_error());
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* Handles are judged first, then the direction, then the text. */
static void arguments_are_judged_in_order(void)
{
    static const int wrong[] = { 0, -1, 4, INT_MAX, INT_MIN };
    struct cable cable = cable_unplugged();
    struct wrong_handles bad[WRONG_HANDLES];
    qnet_impair_stats stats;
    qnet_listener *listener;
    char buf[10];
    size_t i;

    CHECK_INT(qnet_listen("unix", scratch_abstract("judged"), &listener), QNET_OK);
    wrong_handles_make(bad, cable.a, listener);
    for (i = 0; i < WRONG_HANDLES; i++) {
        CHECK_INT(qnet_impair(bad[i].conn, 0, "nonsense"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_impairment(bad[i].conn, 0, NULL, 1), QNET_ERR_HANDLE);
        CHECK_INT(qnet_get_impair_stats(bad[i].conn, 0, NULL, 0), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_impair(bad[i].listener, 0, "nonsense"), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_impairment(bad[i].listener, 0, NULL, 1), QNET_ERR_HANDLE);
    }
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_INT(qnet_impair(cable.a, wrong[i], "nonsense"), QNET_ERR_INVALID);
        CHECK(strstr(qnet_last_error(), "direction") != NULL);
        CHECK_INT(qnet_listener_impair(listener, wrong[i], "nonsense"), QNET_ERR_INVALID);
        CHECK(strstr(qnet_last_error(), "direction") != NULL);
        CHECK_INT(qnet_impairment(cable.a, wrong[i], buf, sizeof buf), QNET_ERR_INVALID);
        CHECK_INT(qnet_listener_impairment(listener, wrong[i], buf, sizeof buf),
                  QNET_ERR_INVALID);
        CHECK_INT(qnet_get_impair_stats(cable.a, wrong[i], &stats, sizeof stats),
                  QNET_ERR_INVALID);
    }
    CHECK_INT(qnet_impairment(cable.a, QNET_BOTH, buf, sizeof buf), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_impairment(listener, QNET_BOTH, buf, sizeof buf), QNET_ERR_INVALID);
    CHECK_INT(qnet_get_impair_stats(cable.a, QNET_BOTH, &stats, sizeof stats), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    cable_close(&cable);
}

/* A connection that has ended keeps its texts and counts, and takes no new ones. */
static void an_ended_connection_is_not_impaired(void)
{
    struct cable cable = cable_unplugged(), broken = cable_unplugged();

    impair(cable.a, QNET_IN, "delay 1ms seed 3");
    CHECK_INT(qnet_shutdown(cable.a), QNET_OK);
    CHECK_INT(qnet_impair(cable.a, QNET_IN, "delay 2ms"), QNET_ERR_CLOSED);
    CHECK_INT(qnet_impair(cable.a, QNET_IN, "delay 2"), QNET_ERR_INVALID);
    check_text(cable.a, QNET_IN, "delay 1ms seed 3");
    check_counts(cable.a, QNET_IN);
    raw_write(broken.fa, "\377\377\377\377", 4);
    CHECK_INT(make_recv(broken.a), QNET_ERR_PROTOCOL);
    CHECK_INT(qnet_impair(broken.a, QNET_BOTH, ""), QNET_ERR_PROTOCOL);
    cable_close(&cable);
    cable_close(&broken);
}

/* ---- Traces ---- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void a_trace_is_read_in_the_call(void)
{
    const char *path = scratch_path("trace");
    char text[400], want[400], directory[300];
    struct cable cable = cable_unplugged();

    snprintf(text, sizeof text, "trace %s 1000 seed 5", path);
    CHECK_INT(qnet_impair(cable.a, QNET_IN, text), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOENT);
    write_text(path, "1\n2\n2\n");
    impair(cable.a, QNET_IN, text);
    check_text(cable.a, QNET_IN, text);
    /* Relative ones are made absolute, and the file is needed no more. */
    snprintf(directory, sizeof directory, "%s", path);
    *strrchr(directory, '/') = '\0';
    CHECK(chdir(directory) == 0);
    impair(cable.a, QNET_OUT, "trace trace seed 5");
    snprintf(want, sizeof want, "trace %s seed 5", path);
    check_text(cable.a, QNET_OUT, want);
    CHECK(unlink(path) == 0 && chdir("/") == 0);
    CHECK_INT(qnet_link(cable.a, cable.b), QNET_OK);
    passes(cable.fa, cable.fb);
    passes(cable.fb, cable.fa);
    cable_close(&cable);
}

static void a_trace_that_cannot_be_used(void)
{
    const char *path = scratch_path("bad");
    struct cable cable = cable_unplugged();
    char text[400];

    snprintf(text, sizeof text, "trace %s", path);
    write_text(path, "3\n2\n");
    CHECK_INT(qnet_impair(cable.a, QNET_IN, text), QNET_ERR_INVALID);
    CHECK(strstr(qnet_last_error(), "line 2") != NULL);
    write_text(path, "");
    CHECK_INT(qnet_impair(cable.a, QNET_IN, text), QNET_ERR_INVALID);
    CHECK(truncate(path, (16 << 20) + 1) == 0);
    CHECK_INT(qnet_impair(cable.a, QNET_IN, text), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EFBIG);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    CHECK_INT(qnet_impair(cable.a, QNET_BOTH, text), QNET_ERR_OS);
    CHECK(unlink(path) == 0);
    CHECK_INT(qnet_impair(cable.a, QNET_BOTH, "trace /"), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), EISDIR);
    check_text(cable.a, QNET_IN, "");
    cable_close(&cable);
}

/* ---- Listeners and hubs ---- */

static qnet_conn *visit(qnet_listener *listener, const char *place, int *fd)
{
    qnet_conn *conn;

    *fd = raw_unix_connect(place);
    CHECK(*fd >= 0);
    CHECK_INT(qnet_accept(listener, patience_ms(), &conn), QNET_OK);
    return conn;
}

static void connections_start_with_their_listeners_text(void)
{
    const char *place = scratch_abstract("texts");
    qnet_listener *listener;
    qnet_conn *conns[4];
    char text[100];
    int fds[4], i;

    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    conns[0] = visit(listener, place, &fds[0]);
    CHECK_INT(qnet_listener_impair(listener, QNET_BOTH, "delay 1ms"), QNET_OK);
    CHECK_INT(qnet_listener_impair(listener, QNET_BOTH, "delay 1"), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_impairment(listener, QNET_IN, text, sizeof text), 9);
    CHECK(strcmp(text, "delay 1ms") == 0);
    conns[1] = visit(listener, place, &fds[1]);
    conns[2] = visit(listener, place, &fds[2]);
    CHECK_INT(qnet_listener_impair(listener, QNET_OUT, "loss 0% seed 9"), QNET_OK);
    CHECK_INT(qnet_listener_impair(listener, QNET_IN, NULL), QNET_OK);
    conns[3] = visit(listener, place, &fds[3]);
    check_text(conns[0], QNET_IN, "");
    CHECK(seed_of(conns[1], QNET_IN) == seed_of(conns[1], QNET_OUT));
    CHECK(seed_of(conns[1], QNET_IN) != seed_of(conns[2], QNET_IN));
    check_text(conns[3], QNET_IN, "");
    check_text(conns[3], QNET_OUT, "loss 0% seed 9");
    CHECK_INT(qnet_link(conns[1], conns[3]), QNET_OK);
    passes(fds[1], fds[3]);
    CHECK_INT(check_counts(conns[1], QNET_IN).passed, 1);
    CHECK_INT(check_counts(conns[3], QNET_OUT).passed, 1);
    for (i = 0; i < 4; i++) {
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        CHECK(close(fds[i]) == 0);
    }
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK_INT(qnet_listener_impair(listener, QNET_IN, ""), QNET_ERR_HANDLE);
}

/* Served peers have it before their first frame. */
static void served_peers_start_with_it(void)
{
    const char *place = scratch_abstract("served");
    struct flow flow = flow_of_one_size(&short_frame);
    struct device own;
    qnet_listener *listener;
    qnet_hub *hub;
    int fd, i;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_listen("unix", place, &listener), QNET_OK);
    CHECK_INT(qnet_listener_impair(listener, QNET_IN, "loss frames 1,3"), QNET_OK);
    CHECK_INT(qnet_hub_serve(hub, listener), QNET_OK);
    device_open(&own, 1);
    CHECK_INT(qnet_hub_attach(hub, own.conn), QNET_OK);
    fd = raw_unix_connect(place);
    raw_send_flow(fd, &flow, 4, 0);
    for (i = 1; i < 4; i += 2) {
        flow.next = (unsigned)i;
        raw_take(own.fd, &flow);
    }
    check_silent(own.fd);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK(close(fd) == 0);
    device_close(&own);
}

/* The program's own device on a hub is impaired where it is plugged in, by either handle. */
static void both_handles_of_a_hubs_port(void)
{
    qnet_conn *port, *inner[2];
    struct device other;
    uint8_t frame[60] = { 2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8 };
    int64_t value;
    qnet_hub *hub;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &port), QNET_OK);
    CHECK_INT(qnet_hub_ports(hub, inner, 2), 1);
    impair(port, QNET_IN, "loss every 2 seed 4");
    check_text(inner[0], QNET_IN, "loss every 2 seed 4");
    impair(inner[0], QNET_OUT, "delay 1ms seed 5");
    check_text(port, QNET_OUT, "delay 1ms seed 5");
    device_open(&other, 1);
    CHECK_INT(qnet_hub_attach(hub, other.conn), QNET_OK);
    CHECK_INT(qnet_send(port, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_send(port, frame, sizeof frame), QNET_OK);
    CHECK_INT(raw_recv(other.fd, frame, sizeof frame), sizeof frame);
    check_silent(other.fd);
    CHECK_INT(check_counts(port, QNET_IN).lost, 1);
    CHECK_INT(check_counts(inner[0], QNET_IN).passed, 1);
    raw_send(other.fd, frame, sizeof frame);
    CHECK_INT(qnet_recv(port, frame, sizeof frame, patience_ms()), sizeof frame);
    CHECK_INT(check_counts(port, QNET_OUT).passed, 1);
    CHECK_INT(qnet_set(port, QNET_OPT_FLIGHT_BYTES, 200000), QNET_OK);
    CHECK_INT(qnet_get(inner[0], QNET_OPT_FLIGHT_BYTES, &value), QNET_OK);
    CHECK_INT(value, 200000);
    CHECK_INT(qnet_set(port, QNET_OPT_LINK, 0), QNET_OK);
    CHECK_INT(qnet_send(port, frame, sizeof frame), QNET_OK);
    EVENTUALLY(stats_of(inner[0]).rx_refused == 1);
    check_silent(other.fd);
    /* What is not attached any more has its own. */
    CHECK_INT(qnet_hub_detach(hub, inner[0]), QNET_OK);
    check_text(port, QNET_IN, "");
    check_text(inner[0], QNET_IN, "loss every 2 seed 4");
    CHECK_INT(qnet_close(inner[0]), QNET_OK);
    CHECK_INT(qnet_close(port), QNET_OK);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    device_close(&other);
}

int main(void)
{
    scratch_make();
    RUN(a_text_is_given_back);
    RUN(seeds_are_chosen_once);
    RUN(a_text_is_cut);
    RUN(stats_fill_what_fits);
    RUN(long_texts_are_set_again);
    RUN(a_wrong_text_is_explained);
    RUN(the_failure_names_the_connection);
    RUN(arguments_are_judged_in_order);
    RUN(an_ended_connection_is_not_impaired);
    RUN(a_trace_is_read_in_the_call);
    RUN(a_trace_that_cannot_be_used);
    RUN(connections_start_with_their_listeners_text);
    RUN(served_peers_start_with_it);
    RUN(both_handles_of_a_hubs_port);
    scratch_remove();
    return check_done();
}
