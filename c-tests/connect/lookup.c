/*
 * lookup.c - look-ups of names whose server is slow: each name is looked up once at a
 * time, and all callers that wait for it get the answer. The name server is part of this
 * test, which has namespaces of its own.
 */
#include <sys/mount.h>
#include <sys/prctl.h>

#include "alone.h"
#include "forwarding.h"
#include "scratch.h"

enum { CALLERS = 8, SOON_MS = 5, A = 1, QUERIES = 1000 };

/* ---- The name server ---- */

/* A question that the server has received. */
struct query {
    uint8_t bytes[512];
    size_t len;
    struct sockaddr_in from;
};

/*
 * The name server, to which every name is 127.0.0.1. While `is_held` it answers only for
 * names that begin with `f`.
 */
static struct {
    pthread_mutex_t lock;
    int fd, is_held;
    struct query waiting[QUERIES];
    int waits, asked; /* questions that wait; and how often an A record was asked for in all */
} server = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int type_of(const struct query *query)
{
    CHECK(query->len > 12 + 5);
    return query->bytes[12 + strlen((const char *)query->bytes + 12) + 2];
}

/* Answers with 127.0.0.1 if an A record is asked for, and otherwise with no record. */
static void answer(struct query *query)
{
    static const uint8_t record[] = { 0xc0, 12, 0, A, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1 };
    int has_one = type_of(query) == A;
    size_t end = 12 + strlen((const char *)query->bytes + 12) + 5;

    query->bytes[2] = 0x81; /* a response */
    query->bytes[3] = 0x80;
    memset(query->bytes + 6, 0, 6);
    query->bytes[7] = (uint8_t)has_one;
    if (has_one)
        memcpy(query->bytes + end, record, sizeof record);
    CHECK(sendto(server.fd, query->bytes, end + (has_one ? sizeof record : 0), 0,
                 (struct sockaddr *)&query->from, sizeof query->from) > 0);
}

static void *serving(void *unused)
{
    for (;;) {
        struct query query;
        socklen_t size = sizeof query.from;
        ssize_t len = recvfrom(server.fd, query.bytes, sizeof query.bytes - 16, 0,
                               (struct sockaddr *)&query.from, &size);

        CHECK(len > 0);
        query.bytes[len] = '\0';
        query.len = (size_t)len;
        pthread_mutex_lock(&server.lock);
        server.asked += type_of(&query) == A;
        if (server.is_held && query.bytes[13] != 'f') {
            CHECK(server.waits < QUERIES);
            server.waiting[server.waits++] = query;
        } else {
            answer(&query);
        }
        pthread_mutex_unlock(&server.lock);
    }
    return unused;
}

static void server_holds(void)
{
    pthread_mutex_lock(&server.lock);
    server.is_held = 1;
    pthread_mutex_unlock(&server.lock);
}

static void server_answers(void)
{
    pthread_mutex_lock(&server.lock);
    server.is_held = 0;
    while (server.waits > 0)
        answer(&server.waiting[--server.waits]);
    pthread_mutex_unlock(&server.lock);
}

static int asked(void)
{
    int count;

    pthread_mutex_lock(&server.lock);
    count = server.asked;
    pthread_mutex_unlock(&server.lock);
    return count;
}

/* Puts another file in the place of one of the system's, in this namespace. */
static void replace_file(const char *path, const char *text)
{
    const char *mine = scratch_path(strrchr(path, '/') + 1);
    FILE *file = fopen(mine, "w");

    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    if (access(path, F_OK) == 0)
        CHECK(mount(mine, path, NULL, MS_BIND, NULL) == 0);
}

/* Enters namespaces and starts the name server in them, which holds back its answers. */
static void server_start(void)
{
    struct sockaddr_in here = { .sin_family = AF_INET };
    pthread_t thread;

    if (access("/etc/resolv.conf", F_OK) != 0 || !be_alone() || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        check_skip("no right to have a name server");
    replace_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n");
    replace_file("/etc/nsswitch.conf", "hosts: files dns\n");
    here.sin_port = htons(53);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(bind(server.fd, (struct sockaddr *)&here, sizeof here) == 0);
    server_holds();
    start_thread(&thread, serving, NULL);
    CHECK_INT(pthread_detach(thread), 0);
}

/* ---- Callers ---- */

static char name_and_port[40];

/* Listens at a port that is dialled as `slow.test`. */
static int peer_listens(void)
{
    int port, listener = raw_tcp_listen(&port);

    CHECK(listen(listener, 100) == 0);
    snprintf(name_and_port, sizeof name_and_port, "slow.test:%d", port);
    return listener;
}

static int look_ups(void)
{
    return count_threads_that(is_resolving_thread);
}

/* Checks, for a while, that there is exactly one look-up. */
static void one_look_up(void)
{
    int i;

    EVENTUALLY(asked() == 1);
    for (i = 0; i < 30; i++) {
        CHECK_INT(look_ups(), 1);
        raw_sleep_ms(10);
    }
    CHECK_INT(asked(), 1);
}

static void *dialling(void *unused)
{
    qnet_conn *conn;

    CHECK_INT(qnet_dial("tcp4", name_and_port, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    return unused;
}

static void *listening(void *unused)
{
    qnet_listener *listener;

    CHECK_INT(qnet_listen("tcp", "slow.test:0", &listener), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    return unused;
}

static void *opening_datagrams(void *unused)
{
    qnet_conn *conn;

    CHECK_INT(qnet_dgram("udp4", "127.0.0.1:0", "slow.test:9", &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    return unused;
}

/*
 * Every attempt to connect gives up before there is an answer, and the next one joins its
 * look-up.
 */
static void attempts_share_a_look_up(void)
{
    static const int64_t options[] = { QNET_OPT_RECONNECT_MS, SOON_MS,
                                       QNET_OPT_DIAL_TIMEOUT_MS, 4 * SOON_MS };
    qnet_conn *conns[CALLERS];
    struct footprint before;
    int listener, i;

    server_start();
    before = footprint_now();
    listener = peer_listens();
    for (i = 0; i < CALLERS; i++)
        CHECK_INT(qnet_dial_with("tcp4", name_and_port, options, 2, &conns[i]), QNET_OK);
    one_look_up();
    CHECK_INT(count_threads_that(is_library_thread), 2); /* that one, and the one that dials */
    server_answers();
    for (i = 0; i < CALLERS; i++)
        EVENTUALLY(stats_of(conns[i]).reconnects == 1);
    for (i = 0; i < CALLERS; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    close(listener);
    footprint_again(before);
}

/* Each connection makes one attempt, which never gives up, and every one gets the same answer. */
static void every_attempt_gets_the_answer(void)
{
    const int64_t options[] = { QNET_OPT_RECONNECT_MS, 1, QNET_OPT_DIAL_TIMEOUT_MS, 1000000 };
    int listener, fds[CALLERS], first, i;
    qnet_conn *conns[CALLERS];

    server_start();
    server_answers();
    listener = peer_listens();
    for (i = 0; i < CALLERS; i++) {
        CHECK_INT(qnet_dial_with("tcp4", name_and_port, options, 2, &conns[i]), QNET_OK);
        fds[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    server_holds();
    first = asked();
    for (i = 0; i < CALLERS; i++) {
        close(fds[i]);
        CHECK_INT(recv_now(conns[i]), QNET_ERR_AGAIN);
    }
    EVENTUALLY(asked() == first + 1);
    raw_sleep_ms(200);
    CHECK_INT(look_ups(), 1);
    server_answers();
    for (i = 0; i < CALLERS; i++)
        EVENTUALLY(stats_of(conns[i]).reconnects == 1);
    CHECK_INT(asked(), first + 1);
    for (i = 0; i < CALLERS; i++)
        CHECK_INT(qnet_close(conns[i]), QNET_OK);
    close(listener);
}

/* Callers of every kind wait for the same look-up and get its answer. */
static void callers_share_a_look_up(void)
{
    static void *(*const calls[])(void *) = { dialling, listening, opening_datagrams };
    pthread_t threads[CALLERS];
    int listener, i;

    server_start();
    listener = peer_listens();
    for (i = 0; i < CALLERS; i++)
        start_thread(&threads[i], calls[i % 3], NULL);
    one_look_up();
    server_answers();
    for (i = 0; i < CALLERS; i++)
        join_thread(threads[i]);
    CHECK(asked() < CALLERS);
    close(listener);
    EVENTUALLY(look_ups() == 0);
}

static void gives_up(void)
{
    static const int64_t options[] = { QNET_OPT_DIAL_TIMEOUT_MS, 20 };
    qnet_conn *conn;

    CHECK_INT(qnet_dial_with("tcp4", name_and_port, options, 1, &conn), QNET_ERR_TIMEOUT);
}

/* A look-up outlives the callers that gave up, and no later caller gets its answer. */
static void given_up(void)
{
    int listener;

    server_start();
    listener = peer_listens();
    gives_up();
    gives_up();
    one_look_up();
    server_answers();
    EVENTUALLY(look_ups() == 0);
    CHECK_INT(asked(), 1);
    dialling(NULL);
    CHECK_INT(asked(), 2);
    dialling(NULL);
    CHECK_INT(asked(), 3);
    close(listener);
}

/* The look-up of one name does not wait for that of another. */
static void names_do_not_wait_for_each_other(void)
{
    int listener, i;

    server_start();
    listener = peer_listens();
    gives_up();
    memcpy(name_and_port, "fast", 4);
    for (i = 0; i < 3; i++)
        dialling(NULL);
    EVENTUALLY(look_ups() == 1);
    CHECK_INT(asked(), 1 + 3);
    close(listener);
}

/*
 * A child that is forked during a look-up makes one of its own. It is killed before there
 * is an answer: its thread would find the socket of its parent's resolver in glibc, and
 * read from it.
 */
static void forked_meanwhile(void)
{
    int listener, status;
    pid_t pid;

    server_start();
    listener = peer_listens();
    gives_up();
    one_look_up();
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dialling(NULL);
        _exit(0);
    }
    EVENTUALLY(asked() == 2);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    server_answers();
    EVENTUALLY(look_ups() == 0);
    close(listener);
}

int main(void)
{
    scratch_make();
    RUN(attempts_share_a_look_up);
    RUN(every_attempt_gets_the_answer);
    RUN(callers_share_a_look_up);
    RUN(given_up);
    RUN(names_do_not_wait_for_each_other);
    RUN(forked_meanwhile);
    scratch_remove();
    return check_done();
}
