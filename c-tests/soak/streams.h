/*
 * streams.h - lives of stream connections: with both sides sending, and ended by either
 * in every manner; with a handler that sends everything back; linked in pairs; and
 * dialled again and again.
 */
#ifndef STREAMS_H
#define STREAMS_H

#include "soak.h"

static inline const struct link_kind *any_kind(void)
{
    const struct link_kind *kind;

    do
        kind = &link_kinds[pick(LINK_KINDS)];
    while (kind->family == AF_INET6 && !ipv6_here());
    return kind;
}

static inline qnet_conn *open_any(int *fd)
{
    const struct link_kind *kind = any_kind();
    qnet_conn *conn = NULL;

    pthread_mutex_lock(&opening);
    *fd = kind->open(kind, &conn);
    pthread_mutex_unlock(&opening);
    set_any_options(conn);
    return conn;
}

/* Writes half a frame or half a length prefix, for a peer that leaves in the middle. */
static inline void write_half_a_frame(int fd)
{
    uint8_t bytes[40] = { 0, 0, 0, 60 };
    int stop = 0;

    plain_write(fd, &stop, bytes, pick(2) ? sizeof bytes : 2);
}

/* ---- Both sides send ---- */

struct stream {
    qnet_conn *conn;
    struct plain plain;
    struct receiver receiver;
    int taken;
    qnet_stats stats; /* all zero if the handle was closed before the end */
};

/* Ends the stream, by one side or the other, after all frames have arrived. None is missing. */
static inline void end_in_order(struct stream *stream)
{
    int manner = (int)pick(4);

    while (get(&stream->plain.in.came) < stream->taken ||
           get(&stream->receiver.in.came) < stream->plain.goal)
        raw_sleep_ms(1);
    if (manner == 0)
        CHECK_INT(qnet_shutdown(stream->conn), QNET_OK);
    if (manner == 1)
        write_half_a_frame(stream->plain.fd);
    plain_join(&stream->plain, manner != 0);
    CHECK(close(stream->plain.fd) == 0);
    join_thread(stream->receiver.thread);
    CHECK_INT(qnet_close_reason(stream->conn), manner == 1 ? QNET_ERR_PROTOCOL : QNET_ERR_CLOSED);
    stream->stats = stats_at_the_end(stream->conn, stream->taken);
    CHECK_INT(stream->stats.tx_dropped, 0);
    taker_close(&stream->receiver.taker);
    CHECK_INT(stream->plain.in.came, stream->taken);
    CHECK_INT(stream->receiver.in.came, stream->plain.wrote);
}

/* Ends the stream while both sides send. What has come is the beginning of what was sent. */
static inline void end_in_the_midst(struct stream *stream)
{
    int manner = (int)pick(3), is_closed = manner == 0;

    if (is_closed)
        taker_close(&stream->receiver.taker);
    if (manner == 1)
        CHECK_INT(qnet_shutdown(stream->conn), QNET_OK);
    plain_join(&stream->plain, manner == 2);
    reset_and_close(stream->plain.fd);
    join_thread(stream->receiver.thread);
    if (is_closed)
        return;
    stream->stats = stats_at_the_end(stream->conn, stream->taken);
    CHECK_INT(stream->stats.rx_frames, stream->receiver.in.came);
    taker_close(&stream->receiver.taker);
}

static void stream_lives(struct sort *sort)
{
    struct flow flow = flow_of_soak();
    int goal = (int)pick(4000), is_cut_short = pick(3) == 0, fd;
    struct stream stream;

    memset(&stream, 0, sizeof stream);
    stream.conn = open_any(&fd);
    receiver_start(&stream.receiver, stream.conn, 0);
    plain_start(&stream.plain, fd, 0, (int)pick(4000));
    stream.taken = send_any_way(stream.conn, &flow, goal);
    if (is_cut_short)
        end_in_the_midst(&stream);
    else
        end_in_order(&stream);
    add_up(sort, stream.taken + stream.plain.wrote,
           stream.plain.in.came + stream.receiver.in.came, (long long)stream.stats.tx_dropped);
}

/* ---- A handler sends all of it back ---- */

static void send_back(void *user, const uint8_t *frame, size_t len)
{
    int code;

    do
        code = qnet_send(user, frame, len);
    while (not_now(code));
}

static void echo_lives(struct sort *sort)
{
    struct plain plain;
    qnet_conn *conn;
    int fd;

    conn = open_any(&fd);
    CHECK_INT(qnet_set_handler(conn, send_back, conn), QNET_OK);
    plain_start(&plain, fd, 0, (int)pick(4000));
    while (get(&plain.in.came) < plain.goal)
        raw_sleep_ms(1);
    plain_join(&plain, 1);
    CHECK(close(fd) == 0);
    CHECK_INT(qnet_wait(conn, patience_ms()), QNET_OK);
    CHECK_INT(stats_of(conn).tx_frames, plain.goal);
    CHECK_INT(qnet_close(conn), QNET_OK);
    add_up(sort, plain.goal, plain.in.came, 0);
}

/* ---- Two that are linked ---- */

/* One side leaves, which ends the other as well. */
static void link_lives(struct sort *sort)
{
    struct plain sides[2];
    qnet_conn *conns[2];
    int is_cut_short = pick(3) == 0, i, fd;

    for (i = 0; i < 2; i++) {
        conns[i] = open_any(&fd);
        plain_start(&sides[i], fd, 0, (int)pick(4000));
    }
    CHECK_INT(qnet_link(conns[0], conns[1]), QNET_OK);
    for (i = 0; i < 2; i++)
        while (!is_cut_short && get(&sides[i].in.came) < sides[!i].goal)
            raw_sleep_ms(1);
    if (is_cut_short)
        raw_sleep_ms(pick(20));
    plain_join(&sides[0], 1);
    if (is_cut_short)
        reset_and_close(sides[0].fd);
    else
        CHECK(close(sides[0].fd) == 0);
    plain_join(&sides[1], 0);
    CHECK(close(sides[1].fd) == 0);
    for (i = 0; i < 2; i++) {
        CHECK_INT(qnet_wait(conns[i], patience_ms()), QNET_OK);
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
        if (!is_cut_short)
            CHECK_INT(sides[i].in.came, sides[!i].wrote);
        add_up(sort, sides[!i].wrote, sides[i].in.came, 0);
    }
}

/* ---- Dialled again and again ---- */

struct server {
    int listener, visits, accepted, stop;
    struct row in; /* of all visits */
    unsigned chance;
    pthread_t thread;
};

static void *serving(void *argument)
{
    static __thread uint8_t frame[QNET_FRAME_MAX];
    struct server *server = argument;
    size_t len = 1;
    int left, is_last, fd;

    chance = server->chance;
    while (get(&server->accepted) < server->visits) {
        fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0);
        set_plain_patience(fd);
        is_last = count_up(&server->accepted) == server->visits;
        left = (int)pick(300);
        while ((is_last || left-- > 0) &&
               (len = plain_frame(fd, &server->stop, frame)) > 0)
            row_take(&server->in, frame, len);
        if (pick(3) == 0)
            write_half_a_frame(fd);
        if (pick(2) == 0)
            reset_and_close(fd);
        else
            CHECK(close(fd) == 0);
    }
    return NULL;
}

static void redial_lives(struct sort *sort)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1 };
    const struct link_kind *kind;
    struct flow flow = flow_of_soak();
    struct server server;
    struct place place;
    qnet_stats stats;
    qnet_conn *conn;

    do
        kind = any_kind();
    while (kind->open != open_dialled);
    memset(&server, 0, sizeof server);
    server.in = row_new(1);
    server.visits = 2 + (int)pick(8);
    server.chance = pick(1 << 20);
    pthread_mutex_lock(&opening);
    place_make(&place, kind);
    pthread_mutex_unlock(&opening);
    server.listener = place_listen(&place);
    start_thread(&server.thread, serving, &server);
    CHECK_INT(qnet_dial_with(kind->network, place.text, options, 1, &conn), QNET_OK);
    while (get(&server.accepted) < server.visits) {
        send_any_way(conn, &flow, 20);
        raw_sleep_ms(pick(2));
    }
    send_any_way(conn, &flow, 20);
    CHECK_INT(qnet_shutdown(conn), QNET_OK);
    stats = stats_at_the_end(conn, (int)flow.next);
    join_thread(server.thread);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(server.listener) == 0);
    if (place.directory[0])
        CHECK(unlink(place.text) == 0);
    place_remove(&place);
    add_up(sort, flow.next, server.in.came, (long long)stats.tx_dropped);
}

#endif
