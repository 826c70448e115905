/*
 * ring.c - links and attachments that would close a ring inside the process are
 * refused and change nothing; those that only look like a ring are not refused.
 */
#include <pthread.h>

#include "raw.h"

enum { PAIRS = 4, FRAME = 60, LONG_MS = 10000 };

static qnet_hub *new_hub(void)
{
    qnet_hub *hub = NULL;

    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    return hub;
}

static qnet_conn *port_of(qnet_hub *hub)
{
    qnet_conn *port = NULL;

    CHECK_INT(qnet_hub_port(hub, &port), QNET_OK);
    return port;
}

static void close_conn(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* Makes a row of connections, of which 0 and 1, 2 and 3 and so on are connected in pairs. */
static void make_pairs(qnet_conn **conns, int pairs)
{
    int i;

    for (i = 0; i < pairs; i++)
        CHECK_INT(qnet_socketpair(&conns[2 * i], &conns[2 * i + 1]), QNET_OK);
}

static void close_pairs(qnet_conn **conns, int pairs)
{
    int i;

    for (i = 0; i < 2 * pairs; i++)
        close_conn(conns[i]);
}

/* Links each pair to the next. */
static void link_in_a_row(qnet_conn **conns, int pairs)
{
    int i;

    for (i = 1; i < pairs; i++)
        CHECK_INT(qnet_link(conns[2 * i - 1], conns[2 * i]), QNET_OK);
}

static void check_said(int code)
{
    CHECK_INT(code, QNET_ERR_INVALID);
    CHECK(strstr(qnet_last_error(), "go round") != NULL);
}

/* Checks that one connection receives what the other sends. */
static void check_reaches(qnet_conn *from, qnet_conn *to)
{
    unsigned char frame[FRAME], got[FRAME];

    raw_fill(frame, sizeof frame, 3);
    frame[0] = frame[6] = 2;
    CHECK_INT(qnet_send(from, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_recv(to, got, sizeof got, LONG_MS), FRAME);
    CHECK(memcmp(frame, got, FRAME) == 0);
}

static void rings_of_pairs(void)
{
    qnet_conn *conns[2 * PAIRS];
    int pairs;

    for (pairs = 1; pairs <= PAIRS; pairs++) {
        qnet_conn *first, *last;

        make_pairs(conns, pairs);
        first = conns[0];
        last = conns[2 * pairs - 1];
        link_in_a_row(conns, pairs);
        check_said(qnet_link(first, last));
        check_said(qnet_link(last, first));
        check_reaches(first, last);
        check_reaches(last, first);
        if (pairs > 1) {
            CHECK_INT(qnet_unlink(conns[1]), QNET_OK);
            CHECK_INT(qnet_link(last, first), QNET_OK);
            check_said(qnet_link(conns[2], conns[1]));
        }
        close_pairs(conns, pairs);
    }
}

/* A row of links that ends outside the process is not a ring. */
static void rows_with_peers(void)
{
    qnet_conn *pair[2], *first, *last;
    unsigned char frame[FRAME], got[FRAME];
    int fds[2];

    first = raw_pair(&fds[0]);
    last = raw_pair(&fds[1]);
    make_pairs(pair, 1);
    CHECK_INT(qnet_link(first, pair[0]), QNET_OK);
    CHECK_INT(qnet_link(pair[1], last), QNET_OK);
    raw_fill(frame, sizeof frame, 5);
    raw_send(fds[0], frame, sizeof frame);
    CHECK_INT(raw_recv(fds[1], got, sizeof got), FRAME);
    close_conn(first);
    close_conn(last);
    close_pairs(pair, 1);
    close(fds[0]);
    close(fds[1]);
}

static void a_hubs_own_port(void)
{
    qnet_hub *hub = new_hub();
    qnet_conn *port = port_of(hub), *other = port_of(hub);

    check_said(qnet_hub_attach(hub, port));
    check_said(qnet_link(port, other));
    check_said(qnet_link(other, port));
    check_reaches(port, other);
    close_conn(port);
    close_conn(other);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/*
 * A row of pairs that leads from a hub to itself is a ring, whichever end is
 * attached or linked last.
 */
static void rows_from_a_hub_to_itself(void)
{
    qnet_hub *hub = new_hub();
    qnet_conn *port = port_of(hub), *second = port_of(hub), *conns[2 * PAIRS];
    int pairs;

    for (pairs = 1; pairs <= PAIRS; pairs++) {
        qnet_conn *last;

        make_pairs(conns, pairs);
        last = conns[2 * pairs - 1];
        link_in_a_row(conns, pairs);
        CHECK_INT(qnet_hub_attach(hub, conns[0]), QNET_OK);
        check_said(qnet_hub_attach(hub, last));
        check_said(qnet_link(last, port));
        CHECK_INT(qnet_hub_detach(hub, conns[0]), QNET_OK);
        CHECK_INT(qnet_link(port, conns[0]), QNET_OK);
        check_said(qnet_hub_attach(hub, last));
        check_said(qnet_link(last, second));
        check_reaches(last, second);
        CHECK_INT(qnet_unlink(port), QNET_OK);
        CHECK_INT(qnet_hub_attach(hub, last), QNET_OK);
        close_pairs(conns, pairs);
    }
    close_conn(port);
    close_conn(second);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/* Two hubs may be joined more than once, as two switches may. */
static void hubs_joined_twice(void)
{
    qnet_hub *one = new_hub(), *other = new_hub();
    qnet_conn *ports[4], *pair[2];

    ports[0] = port_of(one);
    ports[1] = port_of(other);
    ports[2] = port_of(one);
    ports[3] = port_of(other);
    CHECK_INT(qnet_hub_attach(other, ports[0]), QNET_OK);
    CHECK_INT(qnet_hub_attach(one, ports[1]), QNET_OK);
    CHECK_INT(qnet_link(ports[2], ports[3]), QNET_OK);
    make_pairs(pair, 1);
    CHECK_INT(qnet_hub_attach(one, pair[0]), QNET_OK);
    CHECK_INT(qnet_hub_attach(other, pair[1]), QNET_OK);
    close_pairs(ports, 2);
    close_pairs(pair, 1);
    CHECK_INT(qnet_hub_close(one), QNET_OK);
    CHECK_INT(qnet_hub_close(other), QNET_OK);
}

/* The hub's own end of a port no longer leads to the hub once it is detached. */
static void a_detached_end(void)
{
    qnet_hub *hub = new_hub();
    qnet_conn *port = port_of(hub), *own = NULL;

    CHECK_INT(qnet_hub_ports(hub, &own, 1), 1);
    CHECK_INT(qnet_hub_detach(hub, own), QNET_OK);
    check_said(qnet_link(own, port));
    CHECK_INT(qnet_hub_attach(hub, port), QNET_OK);
    check_said(qnet_hub_attach(hub, own));
    close_conn(own);
    close_conn(port);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

/* One of two calls that together would close a ring. */
struct half {
    pthread_barrier_t *barrier;
    qnet_hub *hub; /* or NULL: a link */
    qnet_conn *conn, *other;
    int code;
};

static void *close_half(void *argument)
{
    struct half *half = argument;

    pthread_barrier_wait(half->barrier);
    half->code = half->hub ? qnet_hub_attach(half->hub, half->conn)
                           : qnet_link(half->conn, half->other);
    return NULL;
}

/* Makes both calls at once: one of them succeeds and the other is refused. */
static void check_halves(struct half *halves)
{
    pthread_barrier_t barrier;
    pthread_t threads[2];
    int i;

    CHECK_INT(pthread_barrier_init(&barrier, NULL, 2), 0);
    for (i = 0; i < 2; i++) {
        halves[i].barrier = &barrier;
        CHECK_INT(pthread_create(&threads[i], NULL, close_half, &halves[i]), 0);
    }
    for (i = 0; i < 2; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&barrier);
    CHECK_INT(halves[0].code + halves[1].code, QNET_ERR_INVALID);
    CHECK(halves[0].code == QNET_OK || halves[1].code == QNET_OK);
}

static void halves_at_once(void)
{
    qnet_hub *hub = new_hub();
    int i;

    for (i = 0; i < rounds(2000); i++) {
        struct half links[2] = { { 0 } }, ends[2] = { { 0 } };
        qnet_conn *conns[4];

        make_pairs(conns, 2);
        links[0].conn = conns[1];
        links[0].other = conns[2];
        links[1].conn = conns[0];
        links[1].other = conns[3];
        check_halves(links);
        close_pairs(conns, 2);
        make_pairs(conns, 1);
        ends[0].hub = ends[1].hub = hub;
        ends[0].conn = conns[0];
        ends[1].conn = conns[1];
        check_halves(ends);
        close_pairs(conns, 1);
    }
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
}

int main(void)
{
    RUN(rings_of_pairs);
    RUN(rows_with_peers);
    RUN(a_hubs_own_port);
    RUN(rows_from_a_hub_to_itself);
    RUN(hubs_joined_twice);
    RUN(a_detached_end);
    RUN(halves_at_once);
    return check_done();
}
