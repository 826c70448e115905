/*
 * junk.c - crowds of hostile peers who send what is not of the stream, urgent
 * bytes and descriptors, and datagrams between which there is junk.
 */
#include "site.h"

/* ---- What is not of the stream ---- */

/* Writes a frame in two parts, and between them what `between` writes. */
static void say_around(int fd, struct word word, size_t first, void (*between)(int fd))
{
    uint8_t wire[RAW_PREFIX + MAC_FRAME];

    raw_put_length(wire, MAC_FRAME);
    word_make(wire + RAW_PREFIX, word);
    raw_write(fd, wire, first);
    between(fd);
    raw_write(fd, wire + first, sizeof wire - first);
}

static void say_urgently(int fd)
{
    if (send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL) < 0)
        CHECK(errno == EOPNOTSUPP); /* by Unix sockets of some systems */
}

/* Frames in the middle of which something else is written are heard whole. */
static void crowd_says_around(void (*between)(int fd))
{
    enum { SPEAKERS = 20 };
    struct word word;
    unsigned number;
    int i;

    crowd_comes(SPEAKERS);
    for (number = 0; number < 8; number++)
        for (i = 0; i < SPEAKERS; i++) {
            say_around(crowd.fds[i], crowd_word(i, number), number * 9, between);
            CHECK(hear_from(crowd_ear(i), FIRST_PEER + i, FIRST_PEER + i, &word));
            CHECK_INT(word.number, number);
        }
    pair_goes_on();
    check_held(SPEAKERS, 0);
    crowd_leaves();
}

static void urgent_ones(void)
{
    crowd_says_around(say_urgently);
}

static void urgent_bytes(void)
{
    storms(urgent_ones);
}

/* An urgent byte that waits to be read keeps nobody busy. */
static void an_urgent_byte_alone(void)
{
    site_listen();
    site_serve();
    crowd.fds[0] = site_connect();
    EVENTUALLY(guests_now() == 1);
    say_urgently(crowd.fds[0]);
    is_idle();
    CHECK_INT(guests_now(), 1);
    CHECK(close(crowd.fds[0]) == 0);
    site_close();
}

/*
 * Sends bytes, and with them a socket's descriptor several times. Returns the other end of
 * that socket.
 */
static int send_with_socket(int fd, const void *bytes, size_t len, const struct far *far)
{
    enum { TIMES = 3 };
    union {
        struct cmsghdr header; /* for its alignment */
        char room[CMSG_SPACE(TIMES * sizeof(int))];
    } control;
    struct iovec piece;
    struct msghdr message;
    int ends[2], passed[TIMES], i;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    for (i = 0; i < TIMES; i++)
        passed[i] = ends[0];
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    piece.iov_base = (void *)(intptr_t)bytes;
    piece.iov_len = len;
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    if (far && far->to_len > 0) {
        message.msg_name = (void *)(intptr_t)&far->to;
        message.msg_namelen = far->to_len;
    }
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(&control.header), passed, sizeof passed);
    CHECK_INT(sendmsg(fd, &message, MSG_NOSIGNAL), len);
    CHECK(close(ends[0]) == 0);
    return ends[1];
}

/* Nobody holds the other end of a socket. */
static void check_abandoned(int fd)
{
    CHECK(raw_readable(fd, patience_ms()));
    CHECK(raw_ended(fd));
    CHECK(close(fd) == 0);
}

/* Descriptors that peers send with a prefix, a body or a whole frame are closed. */
static void givers(void)
{
    enum { GIVERS = 20, WIRE = RAW_PREFIX + MAC_FRAME };
    static const size_t cuts[] = { 0, 2, RAW_PREFIX, 30, WIRE };
    int ends[5 * 2];
    struct word word;
    uint8_t wire[WIRE];
    int i, at, count;

    crowd_comes(GIVERS);
    raw_put_length(wire, MAC_FRAME);
    for (i = 0; i < GIVERS; i++) {
        for (at = count = 0; at < 5; at++) {
            word_make(wire + RAW_PREFIX, crowd_word(i, (unsigned)at));
            if (cuts[at] > 0)
                ends[count++] = send_with_socket(crowd.fds[i], wire, cuts[at], NULL);
            if (cuts[at] < WIRE)
                ends[count++] = send_with_socket(crowd.fds[i], wire + cuts[at], WIRE - cuts[at], NULL);
        }
        for (at = 0; at < 5; at++) {
            CHECK(hear_from(crowd_ear(i), FIRST_PEER + i, FIRST_PEER + i, &word));
            CHECK_INT(word.number, at);
        }
        while (count > 0)
            check_abandoned(ends[--count]);
    }
    pair_goes_on();
    check_held(GIVERS, 0);
    crowd_leaves();
}

static void descriptors_in_a_stream(void)
{
    storms(givers);
}

/* ---- Datagrams ---- */

static const uint8_t nothing[2 * QNET_FRAME_MAX];

/* What hears the datagrams of a peer: a handler, or a device on a hub with it. */
struct ear {
    qnet_hub *hub;
    struct device device;
    unsigned heard; /* how many frames came, in order and with nothing between them */
};

static void ear_frame(void *user, const uint8_t *frame, size_t len)
{
    struct ear *ear = user;

    CHECK_INT(word_of(frame, len).number, ear->heard);
    __atomic_add_fetch(&ear->heard, 1, __ATOMIC_SEQ_CST);
}

static void ear_open(struct ear *ear, qnet_conn *conn, int is_hub)
{
    memset(ear, 0, sizeof *ear);
    if (is_hub) {
        CHECK_INT(qnet_hub_new(&ear->hub), QNET_OK);
        device_open(&ear->device, NEAR);
        CHECK_INT(qnet_hub_attach(ear->hub, ear->device.conn), QNET_OK);
        CHECK_INT(qnet_hub_attach(ear->hub, conn), QNET_OK);
    } else {
        CHECK_INT(qnet_set_handler(conn, ear_frame, ear), QNET_OK);
    }
}

static void ear_close(const struct ear *ear)
{
    if (ear->hub) {
        CHECK_INT(qnet_hub_close(ear->hub), QNET_OK);
        device_close(&ear->device);
    }
}

/* The next frame is heard. */
static void ear_hears(struct ear *ear, unsigned number)
{
    struct word word;

    if (ear->hub) {
        CHECK(hear_from(ear->device.fd, FAR, FAR, &word));
        CHECK_INT(word.number, number);
    } else {
        EVENTUALLY(__atomic_load_n(&ear->heard, __ATOMIC_SEQ_CST) == number + 1);
    }
}

static struct {
    const struct far *far;
    int is_over;
} strangers;

/* Sends frames, and messages that are none, to where only another may send. */
static void *being_strange(void *unused)
{
    static const size_t lengths[] = { 60, 0, 1, 4, 1514, 13, 9000 };
    struct sockaddr_storage to = strangers.far->to;
    int fd = far_socket(to.ss_family);
    unsigned i;

    (void)unused;
    for (i = 0; !get(&strangers.is_over); i++)
        sendto(fd, nothing, lengths[i % 7], MSG_NOSIGNAL, (struct sockaddr *)&to, strangers.far->to_len);
    close(fd);
    return NULL;
}

/* A peer's frames arrive between all kinds of junk, while strangers send as fast as they can. */
static void check_junk(int is_hub)
{
    enum { STRANGERS = 2, BUFFERS = 16 << 20 };
    static const size_t lengths[] = { 0, 1, 13, QNET_FRAME_MAX + 1, 2 * QNET_FRAME_MAX };
    unsigned count = (unsigned)rounds(300), runts = 0, i;
    pthread_t threads[STRANGERS];
    long before = resident_bytes();
    struct far far;
    struct ear ear;
    qnet_conn *conn = far_open(&far);
    size_t at;

    ear_open(&ear, conn, is_hub);
    strangers.far = &far;
    for (i = 0; i < STRANGERS; i++)
        start_thread(&threads[i], being_strange, NULL);
    for (i = 0; i < count; i++) {
        struct word word = { NEAR, FAR, 0, 1514 };

        word.number = i;
        for (at = 0; at < 5; at++)
            if (lengths[at] <= QNET_FRAME_MAX || far_now->set & OF_UNIX) {
                far_send(&far, nothing, lengths[at]);
                runts++;
            }
        far_says(&far, word);
        ear_hears(&ear, i);
    }
    CHECK_INT(stats_of(conn).rx_frames, count);
    CHECK_INT(stats_of(conn).rx_runts, runts);
    CHECK(!HAS_ROOM_FOR_ITSELF || resident_bytes() <= before + BUFFERS);
    put(&strangers.is_over, 1);
    far_close(conn, &far);
    for (i = 0; i < STRANGERS; i++)
        join_thread(threads[i]);
    ear_close(&ear);
}

static void junk_between_datagrams(void)
{
    struct footprint before = footprint_now();

    check_junk(0);
    put(&strangers.is_over, 0);
    check_junk(1);
    footprint_again(before);
}

static void check_descriptors_by_message(int is_hub)
{
    struct word word = { NEAR, FAR, 0, MAC_FRAME };
    uint8_t frame[MAC_FRAME];
    struct far far;
    struct ear ear;
    qnet_conn *conn = far_open(&far);

    ear_open(&ear, conn, is_hub);
    for (; word.number < 20; word.number++) {
        int runt, end;

        word_make(frame, word);
        runt = send_with_socket(far.out, frame, word.number % QNET_FRAME_MIN, &far);
        end = send_with_socket(far.out, frame, sizeof frame, &far);
        ear_hears(&ear, word.number);
        check_abandoned(runt);
        check_abandoned(end);
    }
    far_close(conn, &far);
    ear_close(&ear);
}

static void descriptors_with_messages(void)
{
    struct footprint before = footprint_now();

    check_descriptors_by_message(0);
    check_descriptors_by_message(1);
    footprint_again(before);
}

int main(void)
{
    site_prepare();
    RUN_SITES(urgent_bytes);
    RUN_SITES(an_urgent_byte_alone);
    RUN_UNIX_SITES(descriptors_in_a_stream);
    RUN_KINDS(junk_between_datagrams, UDP | NAMED);
    RUN_KINDS(descriptors_with_messages, OF_UNIX);
    scratch_remove();
    return check_done();
}
