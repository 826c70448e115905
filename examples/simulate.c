/*
 * simulate.c - two programs that talk over a bad line, in a time of their own: ten seconds
 * of it pass in a fraction of one, and each run gives the same result.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qnet.h"

static const char usage[] =
    "usage: simulate [SPEC]\n\n"
    "A client asks a server a question every 2 ms, for ten seconds of a clock that this program moves,\n"
    "over a line with the impairment SPEC (as for tc netem: \"delay 40ms 5ms loss 1%\"), and prints how\n"
    "many answers came, how long they took, and a hash of when each came. The same text gives the\n"
    "same result, on every machine.\n";

static const int64_t ms = 1000000;
static const uint8_t client_mac[6] = { 2, 0, 0, 0, 0, 1 }, server_mac[6] = { 2, 0, 0, 0, 0, 2 };

enum { LEN = 200, NUMBER = 14, TIME = 22 };

/* What the client has counted. */
struct result {
    uint64_t asked, answered, hash;
    int64_t longest, sum;
};

static int failed(void)
{
    fprintf(stderr, "simulate: %s\n", qnet_last_error());
    return 1;
}

/* The server sends each frame back. Returns 0, or the exit status. */
static int serve(qnet_conn *server)
{
    uint8_t frame[LEN];
    int len;

    while ((len = qnet_recv(server, frame, sizeof frame, 0)) > 0) {
        memcpy(frame, client_mac, 6);
        memcpy(frame + 6, server_mac, 6);
        if (qnet_send(server, frame, (size_t)len) != QNET_OK)
            return failed();
    }
    return len == QNET_ERR_AGAIN ? 0 : failed();
}

/* The client notes when each answer came. Returns 0, or the exit status. */
static int hear(qnet_conn *client, int64_t now, struct result *result)
{
    uint8_t frame[LEN];
    int len;

    while ((len = qnet_recv(client, frame, sizeof frame, 0)) > 0) {
        uint64_t number;
        int64_t asked;

        memcpy(&number, frame + NUMBER, sizeof number);
        memcpy(&asked, frame + TIME, sizeof asked);
        result->answered++;
        result->sum += now - asked;
        if (now - asked > result->longest)
            result->longest = now - asked;
        result->hash = (result->hash ^ number ^ (uint64_t)now) * 1099511628211u;
    }
    return len == QNET_ERR_AGAIN ? 0 : failed();
}

static int ask(qnet_conn *client, int64_t now, struct result *result)
{
    uint8_t frame[LEN] = { 0 };

    memcpy(frame, server_mac, 6);
    memcpy(frame + 6, client_mac, 6);
    frame[12] = 0x88, frame[13] = 0xb5; /* for experiments (IEEE 802) */
    memcpy(frame + NUMBER, &result->asked, sizeof result->asked);
    memcpy(frame + TIME, &now, sizeof now);
    result->asked++;
    return qnet_send(client, frame, sizeof frame) == QNET_OK ? 0 : failed();
}

/* Lets both do what they have to do, moves on to whatever happens next, and so on. */
static int simulate(qnet_clock *clock, qnet_conn *client, qnet_conn *server, struct result *result)
{
    int64_t now = 0, next, question = 0;
    int status = 0;

    while (status == 0 && now < 10000 * ms) {
        status = serve(server);
        if (status == 0)
            status = hear(client, now, result);
        if (status == 0 && now == question) {
            status = ask(client, now, result);
            question += 2 * ms;
        }
        /* First what they have said is taken in: it may be what happens next. */
        if (status == 0 && (qnet_clock_advance(clock, now) < 0 ||
                            qnet_clock_next(clock, NULL, &next) != QNET_OK))
            status = failed();
        if (status == 0) {
            now = next < question ? next : question;
            status = qnet_clock_advance(clock, now) < 0 ? failed() : 0;
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *spec = argc > 1 ? argv[1] : "delay 20ms 4ms distribution normal loss gemodel 1% 30% rate 2mbit seed 1";
    struct result result = { 0, 0, 14695981039346656037u, 0, 0 };
    qnet_clock *clock = NULL;
    qnet_hub *hub = NULL;
    qnet_conn *client = NULL, *server = NULL;
    int status;

    if (argc > 2 || strcmp(spec, "--help") == 0) {
        fputs(usage, argc > 2 ? stderr : stdout);
        return argc > 2 ? 2 : 0;
    }
    if (qnet_clock_new(&clock) != QNET_OK || qnet_hub_new(&hub) != QNET_OK ||
        qnet_hub_set_clock(hub, clock) != QNET_OK || qnet_hub_port(hub, &client) != QNET_OK ||
        qnet_hub_port(hub, &server) != QNET_OK ||
        qnet_impair(server, QNET_BOTH, spec) != QNET_OK)
        status = failed();
    else
        status = simulate(clock, client, server, &result);
    if (status == 0)
        printf("%" PRIu64 " of %" PRIu64 " answered, %" PRId64 " us on average, at most %" PRId64
               " us; hash %016" PRIx64 "\n",
               result.answered, result.asked,
               result.sum / 1000 / (int64_t)(result.answered ? result.answered : 1),
               result.longest / 1000, result.hash);
    qnet_close(client);
    qnet_close(server);
    qnet_hub_close(hub);
    qnet_clock_close(clock);
    return status;
}
