/*
 * faults.c - what the library makes of a system that fails, or does less than
 * it was asked, at any call. (SQLite is tested so.) Each of faults/scenarios.h
 * runs once undisturbed, with the library's system calls counted (faults/shim.c);
 * then again for every one of those calls and every fault that it can have,
 * each in a process of its own. Interrupted calls, short ones and ones that are
 * to be repeated are never seen by the caller. All others end in success or in
 * a clear error, lose no frame that is not counted or of a connection that has
 * ended, and leave nothing behind; and after that the same process can do the
 * same undisturbed.
 */
#include <dlfcn.h>
#include <limits.h>
#include <sys/mman.h>

#include "faults/scenarios.h"
#include "macs.h"

/*
 * How many processes run at once; and how many calls of each function are made to
 * fail, as a wait for a busy thread may be a thousand calls, all alike.
 */
enum { AT_ONCE = 8, MOST_SITES = 40 };

/* ---- Running them ---- */

static const struct scenario *scenario_now;
static const struct fault *fault_next;

/* How many calls of each function the undisturbed run made, in memory that all processes share. */
static int (*calls)[SHIM_KINDS];

static void play(const struct fault *fault, const struct shim_plan *plan)
{
    fault_now = fault;
    call_now = plan ? plan->call : SHIM_KINDS;
    shim_begin(plan);
    scenario_now->play();
    fault_now = NULL;
}

/* Plays the scenario with one fault and then without; how much memory is held afterwards. */
static long suffer(const struct shim_plan *plan, struct footprint before)
{
    play(fault_next, plan);
    play(NULL, NULL);
    footprint_again(before);
    return shim_memory();
}

/* Memory that grows each time is a leak; what grows once may be kept for later. */
static void suffer_often(const struct shim_plan *plan)
{
    struct footprint before = footprint_now();
    long memory = suffer(plan, before), now;
    int more;

    for (more = 0; more < 4; more++) {
        now = suffer(plan, before);
        if (now <= memory)
            return;
        memory = now;
    }
    CHECK(!"memory is lost each time");
}

static void undisturbed(void)
{
    play(NULL, NULL);
}

/* Counts the calls, in a process of its own. That the scenario goes well is seen by the next test. */
static void count_calls(void)
{
    pid_t pid;
    int call;

    memset(calls, 0, sizeof *calls);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm((unsigned)(CHECK_SECONDS * check_slow()));
        undisturbed();
        for (call = 0; call < SHIM_KINDS; call++)
            (*calls)[call] = shim_count((enum shim_call)call);
        exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* A process in which the fault of this test comes at one call. */
struct job {
    pid_t pid;
    struct shim_plan plan;
};

static void job_start(struct job *job, enum shim_call call, int n)
{
    struct shim_plan plan = { call, n, fault_next->times, fault_next->what };

    job->plan = plan;
    job->pid = fork();
    CHECK(job->pid >= 0);
    if (job->pid > 0)
        return;
    alarm((unsigned)(20 * check_slow()));
    suffer_often(&plan);
    exit(0);
}

/* Waits for one of the jobs, and takes it out of the array; whether it went well. */
static int job_end(struct job *jobs, int *running)
{
    int status, i = 0;
    pid_t pid = wait(&status);

    while (jobs[i].pid != pid)
        i++;
    if (status != 0)
        fprintf(stderr, "^ %s: %s at call %d of %s%s\n", scenario_now->name, fault_next->name,
                jobs[i].plan.first, shim_name(jobs[i].plan.call),
                !WIFSIGNALED(status) ? "" : WTERMSIG(status) == SIGALRM ? " (hung)" : " (crashed)");
    jobs[i] = jobs[--*running];
    return status == 0;
}

static void each_call_suffers(void)
{
    struct job jobs[AT_ONCE];
    int running = 0, failures = 0, n;
    size_t i;

    alarm(0); /* each job has its own */
    for (i = 0; i < fault_next->kinds; i++)
        for (n = 0; n < (*calls)[fault_next->calls[i]] && n < MOST_SITES; n++) {
            if (running == AT_ONCE)
                failures += !job_end(jobs, &running);
            job_start(&jobs[running++], fault_next->calls[i], n);
        }
    while (running > 0)
        failures += !job_end(jobs, &running);
    CHECK_INT(failures, 0);
}

/* ---- A few tests more ---- */

/*
 * For a while the system has no memory for any write, though sockets have room.
 * Whoever has to write waits that out without being busy.
 */
enum { SHORT_MS = 300, SHORT_MOST = 1000, LONG_ROW = 1000 };

static void shortage_begins(enum shim_call call)
{
    struct shim_plan plan = { call, 0, INT_MAX, ENOBUFS };

    shim_begin(&plan);
}

static void shortage_ends(enum shim_call call)
{
    int tried = shim_count(call);

    shim_begin(NULL);
    CHECK(tried > 0 && tried < SHORT_MOST);
}

/* A connection that has written a part of a frame, of which the peer has read what came. */
static qnet_conn *with_half_a_frame(int *fd, uint8_t *wire, size_t *begun)
{
    static uint8_t frame[60000];
    qnet_conn *conn = raw_pair(fd);
    ssize_t n;

    CHECK_INT(qnet_set(conn, QNET_OPT_SNDBUF, 10000), QNET_OK);
    frame_make(frame, sizeof frame, 1);
    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, 0), QNET_OK);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
    shortage_begins(CALL_send);
    for (*begun = 0; (n = recv(*fd, wire + *begun, 70000, MSG_DONTWAIT)) > 0;)
        *begun += (size_t)n;
    return conn;
}

static void the_rest_comes(int fd, uint8_t *wire, size_t begun)
{
    CHECK(recv(fd, wire + begun, RAW_PREFIX + 60000 - begun, MSG_WAITALL) ==
          (ssize_t)(RAW_PREFIX + 60000 - begun));
    CHECK_INT(frame_number(wire + RAW_PREFIX, 60000), 1);
}

static void short_of_memory_to_flush(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    CHECK_INT(qnet_set(conn, QNET_OPT_SEND_TIMEOUT_MS, SHORT_MS), QNET_OK);
    CHECK_INT(qnet_flush(conn), QNET_ERR_TIMEOUT);
    shortage_ends(CALL_send);
    the_rest_comes(fd, wire, begun);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

/* The library's own thread, which writes the rest, is not busy either. */
static void short_of_memory_afterwards(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    raw_sleep_ms(SHORT_MS);
    shortage_ends(CALL_send);
    the_rest_comes(fd, wire, begun);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

static void short_of_memory_to_close(void)
{
    static uint8_t wire[70000 + RAW_PREFIX];
    size_t begun;
    int fd;
    qnet_conn *conn = with_half_a_frame(&fd, wire, &begun);

    CHECK_INT(qnet_set(conn, QNET_OPT_LINGER_MS, SHORT_MS), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    shortage_ends(CALL_send);
    CHECK(close(fd) == 0);
}

/* On a hub and with a link the loop waits. */
static void short_of_memory_to_forward(void)
{
    struct device a, b;
    qnet_hub *hub;
    int round;

    for (round = 0; round < 2; round++) {
        device_open(&a, 1);
        device_open(&b, 2);
        if (round == 0) {
            CHECK_INT(qnet_hub_new(&hub), QNET_OK);
            CHECK_INT(qnet_hub_attach(hub, a.conn), QNET_OK);
            CHECK_INT(qnet_hub_attach(hub, b.conn), QNET_OK);
        } else {
            CHECK_INT(qnet_link(a.conn, b.conn), QNET_OK);
        }
        shortage_begins(CALL_send);
        device_says(&a, EVERYBODY, 600);
        raw_sleep_ms(SHORT_MS);
        CHECK(shim_count(CALL_epoll_wait) < SHORT_MOST);
        shortage_ends(CALL_send);
        device_hears(&b, &a, EVERYBODY);
        if (round == 0)
            CHECK_INT(qnet_hub_close(hub), QNET_OK);
        device_close(&a);
        device_close(&b);
    }
}

/*
 * For a while a side of a link that is to be read again cannot be put back into the loop's
 * epoll set.
 */
static void short_of_memory_to_read_on(void)
{
    static const size_t size = 9000;
    struct flow flow = flow_of_one_size(&size), received = flow;
    struct device a, b;
    struct raw_job writer;

    device_open(&a, 1);
    device_open(&b, 2);
    CHECK_INT(qnet_link(a.conn, b.conn), QNET_OK);
    raw_start(&writer, raw_writing, a.fd, flow, LONG_ROW);
    EVENTUALLY(raw_is_held(a.fd));
    shortage_begins(CALL_epoll_ctl);
    while (raw_readable(b.fd, SHORT_MS))
        raw_take(b.fd, &received);
    CHECK(shim_count(CALL_epoll_wait) < SHORT_MOST);
    CHECK(shim_fired() > 0);
    shortage_ends(CALL_epoll_ctl);
    raw_take_until(b.fd, &received, LONG_ROW);
    join_thread(writer.thread);
    device_close(&a);
    device_close(&b);
}

/* A datagram is lost where that lasts, and counted; a SEQPACKET send fails and takes nothing. */
static void short_of_memory_for_a_message(void)
{
    static const int types[] = { SOCK_DGRAM, SOCK_SEQPACKET };
    uint8_t frame[60] = { 0 };
    qnet_conn *conn;
    int plain[2], i;

    for (i = 0; i < 2; i++) {
        CHECK(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, plain) == 0);
        CHECK_INT(qnet_from_fd(plain[0], &conn), QNET_OK);
        shortage_begins(CALL_sendmmsg);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), i == 0 ? QNET_OK : QNET_ERR_OS);
        shortage_ends(CALL_sendmmsg);
        CHECK_INT(stats_of(conn).tx_dropped, i == 0);
        CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_OK);
        CHECK_INT(recv(plain[1], frame, sizeof frame, 0), sizeof frame);
        CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK(close(plain[1]) == 0);
    }
}

/* Reads and writes each do at most so many bytes, whatever was asked, for every small number. */
static void short_of_every_size(void)
{
    static const enum shim_call moving[] = { CALL_recv, CALL_send };
    static const struct scenario short_frames = SCENARIO(adopted_unix);
    static const struct fault fault = { .name = "short" };
    struct footprint before = footprint_now();
    int most;
    size_t i;

    scenario_now = &short_frames;
    for (most = 1; most <= rounds(200); most++)
        for (i = 0; i < sizeof moving / sizeof *moving; i++) {
            struct shim_plan plan = { moving[i], 0, INT_MAX, DO_AT_MOST - most };

            play(&fault, &plan);
            CHECK(shim_fired() > 0);
        }
    footprint_again(before);
}

/*
 * Functions that cannot fail, or whose failure is of no consequence: those of
 * memory and text, of the thread itself and of the time, those that Rust calls
 * only to print where it panicked, and those that glibc's headers make of the end
 * of a name lookup.
 */
static const char *const harmless[] = {
    "_ITM_", "_Unwind_", "__cxa_", "__errno_location", "__gmon_start__", "__res_init",
    "__tls_get_addr", "__xpg_strerror_r", "abort", "bcmp", "clock_gettime", "dl_iterate_phdr",
    "dlsym", "freeaddrinfo", "fstat64", "gai_strerror", "getenv", "geteuid", "gettid",
    "gnu_get_libc_version", "lseek64", "memcmp", "memcpy", "memmove", "memset", "posix_madvise",
    "prctl", "pthread_detach", "pthread_key_", "pthread_self", "pthread_set", "pthread_sigmask",
    "readlink", "realpath", "sched_yield", "sigdelset", "sigfillset", "stat64", "statx", "strlen", "sysconf",
    "writev",
};

static int is_harmless(const char *name)
{
    size_t i;

    for (i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strncmp(name, harmless[i], strlen(harmless[i])) == 0)
            return 1;
    return 0;
}

/* Whether this program defines the function itself. */
static int is_ours(const char *name)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    Dl_info here, there;

    CHECK(dladdr(scenarios, &here) != 0);
    return found && dladdr(found, &there) != 0 && there.dli_fbase == here.dli_fbase;
}

/* Every function that the library uses is one that can be made to fail, or harmless. */
static void every_import_is_known(void)
{
    char command[300], name[100];
    int imports = 0, unknown = 0;
    FILE *nm;

    snprintf(command, sizeof command, "nm -D --undefined-only '%s'", QNET_LIBRARY);
    nm = popen(command, "r");
    CHECK(nm != NULL);
    while (fscanf(nm, " %*c %99[^@\n]%*[^\n]", name) == 1) {
        imports++;
        if (!is_ours(name) && !is_harmless(name)) {
            fprintf(stderr, "neither in shim.c nor harmless: %s\n", name);
            unknown++;
        }
    }
    CHECK_INT(pclose(nm), 0);
    CHECK(imports > 50);
    CHECK_INT(unknown, 0);
}

int main(void)
{
    size_t i, kind;
    int sites;

    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED)
        return 2;
    for (i = 0; i < SCENARIOS; i++) {
        char name[80];

        scenario_now = &scenarios[i];
        count_calls();
        run(scenario_now->name, undisturbed);
        for (fault_next = faults; fault_next < faults + KINDS; fault_next++) {
            for (sites = 0, kind = 0; kind < fault_next->kinds; kind++)
                sites += (*calls)[fault_next->calls[kind]];
            snprintf(name, sizeof name, "%s: %s", scenario_now->name, fault_next->name);
            if (sites > 0)
                run(name, each_call_suffers);
        }
    }
    RUN(short_of_memory_to_flush);
    RUN(short_of_memory_afterwards);
    RUN(short_of_memory_to_close);
    RUN(short_of_memory_to_forward);
    RUN(short_of_memory_to_read_on);
    RUN(short_of_memory_for_a_message);
    RUN(short_of_every_size);
    RUN(every_import_is_known);
    return check_done();
}
