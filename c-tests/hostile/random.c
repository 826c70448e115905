/*
 * random.c - random calls of every function, with right and wrong arguments, on many threads and
 * in handlers, on handles that are live, stale, invented or of another type, against plain peers
 * that write anything. Every result is one that the function may give, nothing hangs, and in the
 * end nothing is held. Meant to be run under the sanitizers as well.
 *
 * Environment: RANDOM_CALLS=n makes so many calls; RANDOM_SEED=n seeds all of them (a failure tells
 * its own); RANDOM_TALLY=1 prints how often each function gave each code.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "alone.h"
#include "random/captures.h"
#include "random/plays.h"

enum {
    WORKERS = 12, CALLS = 2000000, CODES = 15, TICK_MS = 5, STALL_SECONDS = 40, DEEPEST = 4,
    CHILD_CALLS = 40
};

enum {
    FINE = MAY(QNET_OK), INVALID = MAY(QNET_ERR_INVALID), HANDLE = MAY(QNET_ERR_HANDLE),
    CLOSED = MAY(QNET_ERR_CLOSED), TIMEOUT = MAY(QNET_ERR_TIMEOUT), AGAIN = MAY(QNET_ERR_AGAIN),
    SIZE = MAY(QNET_ERR_FRAME_SIZE), PROTOCOL = MAY(QNET_ERR_PROTOCOL), SYSTEM = MAY(QNET_ERR_OS),
    BUSY = MAY(QNET_ERR_BUSY), SIGNAL = MAY(QNET_ERR_INTERRUPTED),
    UNSUPPORTED = MAY(QNET_ERR_UNSUPPORTED), REFUSED = MAY(QNET_ERR_REFUSED),
    RESOLVE = MAY(QNET_ERR_RESOLVE),
    WAITED = AGAIN | TIMEOUT | SIGNAL
};

static int calls_made, calls_wanted, playing, over;

/* How many calls this thread has made. */
static __thread unsigned plays;

/* ---- The table ---- */

/* A function and the results that it may have; abi.sh checks that all functions are here. */
#define PLAY(name, may) { "qnet_" #name, play_##name, may }

static const struct {
    const char *name;
    int (*play)(void);
    unsigned may;
} functions[] = {
    PLAY(dial, FINE | INVALID | REFUSED | RESOLVE | SIGNAL | SYSTEM),
    PLAY(dial_with, FINE | INVALID | REFUSED | RESOLVE | WAITED | SYSTEM | UNSUPPORTED),
    PLAY(socketpair, FINE | INVALID | SYSTEM),
    PLAY(socketpair_fd, FINE | INVALID | SYSTEM),
    PLAY(from_fd, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(dgram, FINE | INVALID | BUSY | RESOLVE | SIGNAL | SYSTEM),
    PLAY(tap, FINE | INVALID | SYSTEM),
    PLAY(netdev, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(listen, FINE | INVALID | BUSY | RESOLVE | SIGNAL | SYSTEM),
    PLAY(accept, FINE | HANDLE | INVALID | WAITED | CLOSED | SYSTEM),
    PLAY(listener_from_fd, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(listener_addr, FINE | HANDLE | INVALID),
    PLAY(listener_netdev, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(listener_fd, FINE | HANDLE),
    PLAY(listener_close, FINE | HANDLE),
    PLAY(listener_set, FINE | HANDLE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(listener_get, FINE | HANDLE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(send, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(send_batch, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(send_packed, FINE | HANDLE | INVALID | SIZE | WAITED | ENDED),
    PLAY(flush, FINE | HANDLE | WAITED | ENDED),
    PLAY(set_handler, FINE | HANDLE | BUSY | ENDED),
    PLAY(set_batch_handler, FINE | HANDLE | BUSY | ENDED),
    PLAY(set_close_handler, FINE | HANDLE),
    PLAY(recv, FINE | HANDLE | INVALID | SIZE | WAITED | BUSY | ENDED),
    PLAY(recv_batch, FINE | HANDLE | INVALID | WAITED | BUSY | ENDED),
    PLAY(recv_packed, FINE | HANDLE | INVALID | SIZE | WAITED | BUSY | ENDED),
    PLAY(poll, FINE | INVALID | SIGNAL | SYSTEM),
    PLAY(fd, FINE | HANDLE | SYSTEM),
    PLAY(wait, FINE | HANDLE | INVALID | WAITED | BUSY | SYSTEM),
    PLAY(close_reason, FINE | HANDLE | ENDED),
    PLAY(shutdown, FINE | HANDLE),
    PLAY(close, FINE | HANDLE),
    PLAY(set_state_handler, FINE | HANDLE | UNSUPPORTED),
    PLAY(hwaddr, FINE | HANDLE | INVALID),
    PLAY(set_hwaddr, FINE | HANDLE | INVALID),
    PLAY(local_addr, FINE | HANDLE | INVALID),
    PLAY(peer_addr, FINE | HANDLE | INVALID),
    PLAY(peer_cred, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(get_stats, FINE | HANDLE | INVALID),
    PLAY(set, FINE | HANDLE | INVALID | UNSUPPORTED | BUSY | SYSTEM),
    PLAY(get, FINE | HANDLE | INVALID | UNSUPPORTED | BUSY | SYSTEM),
    PLAY(impair, FINE | HANDLE | INVALID | ENDED),
    PLAY(impairment, FINE | HANDLE | INVALID),
    PLAY(listener_impair, FINE | HANDLE | INVALID | SYSTEM),
    PLAY(listener_impairment, FINE | HANDLE | INVALID),
    PLAY(get_impair_stats, FINE | HANDLE | INVALID),
    PLAY(version, FINE),
    PLAY(abi_version, FINE),
    PLAY(strerror, FINE),
    PLAY(last_error, FINE),
    PLAY(last_errno, FINE),
    PLAY(link, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(unlink, FINE | HANDLE | INVALID),
    PLAY(hub_new, FINE | INVALID | SYSTEM),
    PLAY(hub_attach, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(hub_detach, FINE | HANDLE | INVALID),
    PLAY(hub_port, FINE | HANDLE | INVALID | SYSTEM),
    PLAY(hub_serve, FINE | HANDLE | BUSY | SYSTEM),
    PLAY(hub_set_port_handler, FINE | HANDLE),
    PLAY(hub_ports, FINE | HANDLE | INVALID),
    PLAY(hub_set, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(hub_get, FINE | HANDLE | INVALID | UNSUPPORTED),
    PLAY(hub_get_stats, FINE | HANDLE | INVALID),
    PLAY(set_vlan, FINE | HANDLE | INVALID | ENDED),
    PLAY(vlan, FINE | HANDLE | INVALID),
    PLAY(listener_set_vlan, FINE | HANDLE | INVALID),
    PLAY(listener_vlan, FINE | HANDLE | INVALID),
    PLAY(hub_fdb, FINE | HANDLE | INVALID),
    PLAY(hub_fdb_add, FINE | HANDLE | INVALID | SYSTEM | ENDED),
    PLAY(hub_fdb_remove, FINE | HANDLE | INVALID),
    PLAY(hub_close, FINE | HANDLE),
    PLAY(clock_new, FINE | INVALID | SYSTEM),
    PLAY(clock_advance, FINE | HANDLE | INVALID | BUSY | WAITED),
    PLAY(clock_next, FINE | HANDLE),
    PLAY(clock_close, FINE | HANDLE | BUSY),
    PLAY(hub_set_clock, FINE | HANDLE | BUSY),
    PLAY(link_on, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(capture_open, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(capture_open_fd, FINE | INVALID | UNSUPPORTED | SYSTEM),
    PLAY(capture_add, FINE | HANDLE | INVALID | BUSY | ENDED),
    PLAY(capture_add_hub, FINE | HANDLE | INVALID | BUSY),
    PLAY(capture_remove, FINE | HANDLE | INVALID),
    PLAY(capture_note, FINE | HANDLE | INVALID | SYSTEM),
    PLAY(capture_get_stats, FINE | HANDLE | INVALID),
    PLAY(capture_close, FINE | HANDLE),
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static int tally[FUNCTIONS][CODES];

/* In which function each thread is, by its number, from 1 on; 0: in none. */
enum { THREADS = 1 << 12 };
static int doing[THREADS];

static int *what_i_do(void)
{
    return &doing[syscall(SYS_gettid) % THREADS];
}

/* Says which thread is in which function, and ends the test. */
static void hung(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    char path[300], name[32];

    while (tasks && (task = readdir(tasks))) {
        int at = get(&doing[atoi(task->d_name) % THREADS]), fd;
        ssize_t len;

        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        len = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
        name[len > 0 ? len - 1 : 0] = '\0';
        close(fd);
        fprintf(stderr, "thread %s (%s): %s\n", task->d_name, name,
                at > 0 ? functions[at - 1].name : "nothing");
    }
    fprintf(stderr, "nothing moves after %d calls; process %d\n", get(&calls_made), (int)getpid());
    abort();
}

/* ---- Playing ---- */

static void check_result(int which, int result)
{
    unsigned code = MAY(result > 0 ? QNET_OK : result);

    if (result <= -CODES || !(code & functions[which].may)) {
        fprintf(stderr, "%s gave %d: %s\n", functions[which].name, result, qnet_last_error());
        CHECK(!"a result that it may give");
    }
    count_up(&tally[which][result > 0 ? 0 : -result]);
}

/* The record of a failure has a text, and an errno where the system was the reason. */
static void check_record(int result)
{
    if (result >= 0 || MAY(result) & WAITED)
        return;
    CHECK(qnet_last_error()[0] != '\0');
    CHECK_INT(qnet_last_errno() != 0, result == QNET_ERR_OS || result == QNET_ERR_REFUSED);
}

/* The record is not checked where handlers made calls meanwhile, nor where the code is an answer. */
static void play_one(void)
{
    int which = (int)below(FUNCTIONS), *mine = what_i_do(), before = get(mine), result;
    unsigned so_far = ++plays;

    put(mine, which + 1);
    result = functions[which].play();
    check_result(which, result);
    if (plays == so_far && functions[which].play != play_close_reason)
        check_record(result);
    put(mine, before);
    count_up(&calls_made);
}

static void play_some(unsigned most)
{
    unsigned count = below(most + 1);

    if (depth == DEEPEST)
        return;
    count_up(&playing);
    for (depth++; count > 0 && !get(&over); count--)
        play_one();
    depth--;
    __atomic_sub_fetch(&playing, 1, __ATOMIC_SEQ_CST);
}

/* ---- Plain peers ---- */

static void connect_plainly(void)
{
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in in;
    } address;
    char text[128] = "";
    int local = one_in(2), fd;
    socklen_t len = sizeof address.in;

    memset(&address, 0, sizeof address);
    if (local) {
        len = raw_unix_address(places[below(2 * PLACES)], &address.local);
    } else {
        if (qnet_listener_addr(pooled(LISTENER), text, sizeof text) <= 0 || !strchr(text, ':'))
            return;
        address.in.sin_family = AF_INET;
        address.in.sin_port = htons((unsigned short)atoi(strrchr(text, ':') + 1));
        address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, &address.any, len) != 0 && errno != EINPROGRESS)
        close(fd);
    else if (fd >= 0)
        give_fd(fd);
}

static void write_something(int fd)
{
    uint8_t wire[8000];
    size_t len = one_in(8) ? below(sizeof wire) : fill_packed(wire, sizeof wire);

    if (one_in(64))
        memset(wire, (int)below(256), sizeof wire);
    send(fd, wire, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A peer with a plain socket reads, writes, or leaves in one of several ways. */
static void play_peer(void)
{
    static const struct linger reset = { 1, 0 };
    uint8_t buffer[8000];
    int fd = take_fd(), i;

    if (fd < 0) {
        connect_plainly();
        return;
    }
    for (i = (int)below(20); i > 0; i--)
        recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    for (i = (int)below(3); i > 0; i--)
        write_something(fd);
    if (one_in(8))
        shutdown(fd, (int)below(3));
    if (one_in(32))
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (one_in(16))
        close(fd);
    else
        give_fd(fd);
}

/* ---- What keeps it moving ---- */

static pthread_t workers[WORKERS];
static int finished;

/* Ends everything that an endless wait could be for. */
static void end_everything(void)
{
    qnet_conn *ports[MOST_PORTS];
    int i, j, fd;

    for (i = 0; i < SLOTS; i++) {
        qnet_shutdown(__atomic_load_n(&handles[CONN][i], __ATOMIC_SEQ_CST));
        qnet_listener_close(__atomic_load_n(&handles[LISTENER][i], __ATOMIC_SEQ_CST));
        j = qnet_hub_ports(__atomic_load_n(&handles[HUB][i], __ATOMIC_SEQ_CST), ports, MOST_PORTS);
        for (j = j < MOST_PORTS ? j : MOST_PORTS; j > 0; j--)
            qnet_shutdown(ports[j - 1]);
        fd = __atomic_exchange_n(&fds[i], -1, __ATOMIC_SEQ_CST);
        if (fd >= 0)
            close(fd);
    }
}

/*
 * Waits until *done is `until`. Ends a connection now and then, everything where nothing moves, and the
 * test where that does not help.
 */
static void keep_moving(int *done, int until)
{
    int calls = -1, now;
    long long since_ms = 0;

    depth = DEEPEST; /* close handlers that run here play nothing, and do not wait */
    while (get(done) != until) {
        raw_sleep_ms(TICK_MS);
        now = get(&calls_made);
        if (now != calls) {
            calls = now;
            since_ms = raw_now_ms();
            qnet_shutdown(pooled(CONN));
        } else {
            end_everything();
            if (raw_now_ms() - since_ms > STALL_SECONDS * 1000LL * check_slow())
                hung();
        }
        if (!is_child && one_in(8) && get(&finished) == 0)
            pthread_kill(workers[below(WORKERS)], SIGUSR1);
    }
}

static void *keep_child_moving(void *argument)
{
    (void)argument;
    keep_moving(&over, 1);
    return NULL;
}

/* ---- A child ---- */

/* In a child the parent's handles are none, and its own library works. */
static void be_child(void)
{
    pthread_t mover;
    int i, j;

    is_child = 1;
    for (i = 0; i < SLOTS; i++) {
        CHECK_INT(qnet_flush(handles[CONN][i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_listener_fd(handles[LISTENER][i]), QNET_ERR_HANDLE);
        CHECK_INT(qnet_hub_ports(handles[HUB][i], NULL, 0), QNET_ERR_HANDLE);
        fds[i] = -1;
        for (j = 0; j < KINDS; j++)
            if (one_in(2))
                handles[j][i] = NULL;
    }
    start_thread(&mover, keep_child_moving, NULL);
    for (i = 0; i < CHILD_CALLS; i++)
        play_one();
    _exit(0);
}

static void play_child(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        be_child();
    while (pid > 0 && waitpid(pid, &status, 0) != pid)
        CHECK_INT(errno, EINTR);
    CHECK(pid < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

/* ---- All of it ---- */

static void *work(void *number)
{
    state = seed * 1000u + 500u + (unsigned)(uintptr_t)number;
    depth = 1;
    while (get(&calls_made) < calls_wanted) {
        play_one();
        if (one_in(8))
            play_peer();
        if (one_in(20000))
            play_child();
    }
    count_up(&finished);
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
}

static void prepare(void)
{
    struct sigaction action;
    uint8_t *filled = allocate(BYTES);
    char name[8];
    FILE *trace;
    int i;

    seed = (unsigned)check_number("RANDOM_SEED", 1);
    calls_wanted = check_number("RANDOM_CALLS", rounds(CALLS));
    CHECK(chdir(scratch_directory) == 0); /* any address is a Unix socket's path, too */
    fprintf(stderr, "RANDOM_SEED=%u RANDOM_CALLS=%d\n", seed, calls_wanted);
    trace = fopen("trace", "w"); /* some impair with it */
    CHECK(trace && fputs("1\n2\n2\n5\n", trace) >= 0 && fclose(trace) == 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    for (i = 0; i < SLOTS; i++)
        fds[i] = -1;
    for (i = 0; i < PLACES; i++) {
        snprintf(name, sizeof name, "p%d", i);
        strcpy(places[2 * i], scratch_path(name));
        strcpy(places[2 * i + 1], scratch_abstract(name));
    }
    CHECK_INT(mkfifo("fifo", 0600), 0);
    raw_fill(filled, BYTES, 0);
    bytes = filled;
    zeroes = mmap(NULL, huge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(zeroes != MAP_FAILED);
}

static void close_everything(void)
{
    int kind, i;

    for (i = 0; i < SLOTS; i++) {
        for (kind = 0; kind < KINDS; kind++)
            if (handles[kind][i])
                close_handle((enum kind)kind, handles[kind][i]);
        if (fds[i] >= 0)
            close(fds[i]);
    }
    for (i = 0; i < get(&busy_count); i++)
        qnet_clock_close(busy_clocks[i]);
}

/* Every function that can succeed here has succeeded at least once. */
static void check_tally(void)
{
    int which, code;

    for (which = 0; which < FUNCTIONS; which++) {
        if (getenv("RANDOM_TALLY")) {
            fprintf(stderr, "%-22s", functions[which].name);
            for (code = 0; code < CODES; code++)
                fprintf(stderr, " %d", tally[which][code]);
            fprintf(stderr, "\n");
        }
        if (calls_wanted >= CALLS / 10 && functions[which].play != play_tap)
            CHECK(tally[which][0] > 0);
    }
    fprintf(stderr, "%d calls\n", calls_made);
}

static void random_calls(void)
{
    struct footprint before;
    uintptr_t i;

    alarm(0); /* keep_moving() sees whether it hangs */
    prepare();
    namespaced = be_alone(); /* TAPs and ports are nobody else's then */
    before = footprint_now();
    for (i = 0; i < WORKERS; i++)
        start_thread(&workers[i], work, (void *)i);
    keep_moving(&finished, WORKERS);
    for (i = 0; i < WORKERS; i++)
        join_thread(workers[i]);
    put(&over, 1);
    keep_moving(&playing, 0);
    close_everything();
    footprint_again(before);
    check_tally();
    free((void *)(uintptr_t)bytes);
}

int main(void)
{
    scratch_make();
    RUN(random_calls);
    scratch_remove();
    return check_done();
}
