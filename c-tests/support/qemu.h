/*
 * qemu.h - a real QEMU without a machine, whose netdevs are joined by a hub: what goes
 * into one comes out of the others. If there is no QEMU a test is skipped, or fails if
 * QNET_REQUIRE_QEMU=1. QNET_QEMU=path chooses another than the installed one.
 */
#ifndef QEMU_H
#define QEMU_H

#include <sys/prctl.h>

#include "ways.h"
#include "scratch.h"

enum { MOST_ARGUMENTS = 24, TEXT = 256 };

static char netdev_types[4096];
static int qemu_version; /* 702 is 7.2 */

static inline const char *qemu_program(void)
{
    const char *chosen = getenv("QNET_QEMU");
    return chosen ? chosen : "qemu-system-x86_64";
}

/* Ends this test if there is no QEMU, or if it has no netdev of that type. */
static inline void need(const char *type)
{
    const char *require = getenv("QNET_REQUIRE_QEMU");
    char line[64];
    int none = netdev_types[0] == '\0';

    snprintf(line, sizeof line, "\n%s\n", type);
    if (strstr(netdev_types, line))
        return;
    fprintf(stderr, "no %s%s (apt-get install qemu-system-x86, 7.2 or later)\n",
            none ? qemu_program() : "-netdev ", none ? "" : type);
    if (require && strcmp(require, "1") == 0)
        check_fail(__FILE__, __LINE__, "QEMU is here, as QNET_REQUIRE_QEMU=1 wants");
    check_skip(type);
}

/* What QEMU prints when it is called with `options`: nothing if it is not installed. */
static inline void qemu_says(const char *options, char *text, size_t cap)
{
    char command[TEXT];
    FILE *said;
    size_t len;

    snprintf(command, sizeof command, "%s %s 2>/dev/null", qemu_program(), options);
    said = popen(command, "r");
    len = said ? fread(text, 1, cap - 1, said) : 0;
    text[len] = '\0';
    if (said)
        pclose(said);
}

/* Asks QEMU for its version and its types of netdev. */
static inline void learn_about_qemu(void)
{
    char text[TEXT];
    int major, minor;

    qemu_says("-netdev help", netdev_types, sizeof netdev_types);
    qemu_says("--version", text, sizeof text);
    if (sscanf(text, "QEMU emulator version %d.%d", &major, &minor) == 2)
        qemu_version = 100 * major + minor;
}

/* ---- A QEMU ---- */

struct qemu {
    pid_t pid;
    int arguments;
    int ports;
    char *argument[MOST_ARGUMENTS + 1];
};

static inline void qemu_argument(struct qemu *qemu, const char *text)
{
    CHECK(qemu->arguments < MOST_ARGUMENTS);
    qemu->argument[qemu->arguments] = strdup(text);
    CHECK(qemu->argument[qemu->arguments] != NULL);
    qemu->arguments++;
}

static inline void qemu_init(struct qemu *qemu)
{
    memset(qemu, 0, sizeof *qemu);
    qemu_argument(qemu, qemu_program());
    qemu_argument(qemu, "-M");
    qemu_argument(qemu, "none");
    qemu_argument(qemu, "-nodefaults");
    qemu_argument(qemu, "-display");
    qemu_argument(qemu, "none");
}

/* Adds a netdev and joins it to the hub. Its id has to be n and the number of the port. */
static inline void qemu_port(struct qemu *qemu, const char *netdev)
{
    char text[TEXT];

    qemu_argument(qemu, "-netdev");
    qemu_argument(qemu, netdev);
    qemu_argument(qemu, "-netdev");
    snprintf(text, sizeof text, "hubport,id=h%d,hubid=0,netdev=n%d", qemu->ports, qemu->ports);
    qemu_argument(qemu, text);
    qemu->ports++;
}

/* Adds a netdev given as `type,options`, without an id. */
static inline void qemu_netdev(struct qemu *qemu, const char *netdev)
{
    const char *comma = strchr(netdev, ',');
    int type = comma ? (int)(comma - netdev) : (int)strlen(netdev);
    char text[TEXT];

    snprintf(text, sizeof text, "%.*s,id=n%d%s", type, netdev, qemu->ports, netdev + type);
    qemu_port(qemu, text);
}

/* Adds the netdev that qnet_listener_netdev() gives for a version of QEMU. */
static inline void qemu_netdev_of(struct qemu *qemu, qnet_listener *listener, int version)
{
    char id[16], text[TEXT];
    int len;

    snprintf(id, sizeof id, "n%d", qemu->ports);
    len = qnet_listener_netdev(listener, id, version, text, sizeof text);
    CHECK(len > 0 && len < TEXT);
    qemu_port(qemu, text);
}

/* Adds the netdev that qnet_netdev() gives for a version of QEMU. */
static inline void qemu_netdev_of_conn(struct qemu *qemu, qnet_conn *conn, int version)
{
    char id[16], text[TEXT];
    int len;

    snprintf(id, sizeof id, "n%d", qemu->ports);
    len = qnet_netdev(conn, id, version, text, sizeof text);
    CHECK(len > 0 && len < TEXT);
    qemu_port(qemu, text);
}

/* Makes a child process into QEMU, which writes its messages to a file and ends with the test. */
static inline void qemu_become(struct qemu *qemu, pid_t parent, const char *log)
{
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent || fd < 0)
        _exit(126);
    alarm(0);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execvp(qemu_program(), qemu->argument);
    _exit(127);
}

/* Starts QEMU. Its arguments are kept, so that it can be started once more. */
static inline void qemu_run(struct qemu *qemu)
{
    pid_t parent = getpid();

    qemu->argument[qemu->arguments] = NULL;
    qemu->pid = fork();
    CHECK(qemu->pid >= 0);
    if (qemu->pid == 0)
        qemu_become(qemu, parent, scratch_path("qemu.log"));
}

static inline void qemu_forget_arguments(struct qemu *qemu)
{
    int i;

    for (i = 0; i < qemu->arguments; i++)
        free(qemu->argument[i]);
    qemu->arguments = 0;
}

static inline void qemu_start(struct qemu *qemu)
{
    qemu_run(qemu);
    qemu_forget_arguments(qemu);
}

/* Fails, printing QEMU's messages, if it does not run any more. */
static inline void qemu_runs(struct qemu *qemu)
{
    int status, c;
    FILE *log;

    if (waitpid(qemu->pid, &status, WNOHANG) == 0)
        return;
    log = fopen(scratch_path("qemu.log"), "r");
    while (log && (c = fgetc(log)) != EOF)
        fputc(c, stderr);
    check_fail(__FILE__, __LINE__, "QEMU runs");
}

static inline void qemu_end(struct qemu *qemu, int signal)
{
    int status;

    CHECK(kill(qemu->pid, signal) == 0);
    CHECK(waitpid(qemu->pid, &status, 0) == qemu->pid);
}

/*
 * A free port of 127.0.0.1, as QEMU cannot say which one it has chosen. It is outside of
 * the range that the system assigns from: a socket that was assigned it meanwhile would
 * take part in the test, or be connected to itself.
 */
static inline void free_address(int type, char *address, size_t cap)
{
    static int tried;
    struct sockaddr_in any;
    int fd, port, is_free;

    memset(&any, 0, sizeof any);
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    do {
        port = 10000 + ((int)getpid() * 8 + tried++) % 20000;
        any.sin_port = htons((uint16_t)port);
        fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && tried < 1000);
        is_free = bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
        close(fd);
    } while (!is_free);
    snprintf(address, cap, "127.0.0.1:%d", port);
}

#endif
