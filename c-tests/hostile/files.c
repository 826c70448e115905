/*
 * files.c - the files of Unix sockets, in directories where others make and
 * remove files as well: after every step of the library, another user's file
 * takes the place of the one that it has just looked at, or somebody else
 * listens there. The functions of the C library that make those steps are
 * defined here, where libqnet.so finds them first.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "raw.h"
#include "scratch.h"

enum { STRANGER = 65534, MOST_STEPS = 100 };

/* ---- What happens after a step ---- */

/* Called once, after `steps_left` more steps. */
static void (*between)(void);
static int steps_left;
static int naps;

static void stepped(void)
{
    void (*happens)(void) = between;

    if (!happens || --steps_left > 0)
        return;
    between = NULL;
    happens();
}

static void after_step(int n, void (*happens)(void))
{
    steps_left = n;
    between = happens;
}

/* Whether there were too few steps for `between` to be called; it is not called any more then. */
static int is_past_the_last(void)
{
    int is_past = between != NULL;

    between = NULL;
    return is_past;
}

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found)
        abort();
    return found;
}

/* Defines a function of the C library: it calls the real one, and then something may happen. */
#define STEP(name, parameters, arguments)                                                      \
    int name parameters                                                                        \
    {                                                                                          \
        static __typeof__(&name) next;                                                         \
        int result, error;                                                                     \
                                                                                               \
        if (!next)                                                                             \
            *(void **)&next = real(#name);                                                     \
        result = next arguments;                                                               \
        error = errno;                                                                         \
        stepped();                                                                             \
        errno = error;                                                                         \
        return result;                                                                         \
    }

STEP(bind, (int fd, __CONST_SOCKADDR_ARG to, socklen_t len), (fd, to, len))
STEP(chmod, (const char *path, mode_t mode), (path, mode))
STEP(connect, (int fd, __CONST_SOCKADDR_ARG to, socklen_t len), (fd, to, len))
STEP(flock, (int fd, int how), (fd, how))
STEP(fstatat64, (int fd, const char *restrict path, struct stat64 *restrict to, int flags),
     (fd, path, to, flags))
STEP(listen, (int fd, int most), (fd, most))
STEP(open64, (const char *path, int flags, ...), (path, flags, 0600))
STEP(rename, (const char *from, const char *to), (from, to))
STEP(unlink, (const char *path), (path))

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left)
{
    static __typeof__(&clock_nanosleep) next;

    if (!next)
        *(void **)&next = real("clock_nanosleep");
    naps++;
    return next(clock, flags, time, left);
}

/* ---- Directories and what is in them ---- */

static char directory[128], path[140];

static void make_directory(mode_t mode)
{
    snprintf(directory, sizeof directory, "%s", scratch_path("shared.XXXXXX"));
    CHECK(mkdtemp(directory) != NULL);
    CHECK(chmod(directory, mode) == 0);
    snprintf(path, sizeof path, "%s/socket", directory);
}

/* How many files the directory has, and whether one of them is that inode. */
static int count_files(ino_t inode, int *is_there)
{
    DIR *open = opendir(directory);
    struct dirent *entry;
    int count = 0;

    *is_there = 0;
    CHECK(open != NULL);
    while ((entry = readdir(open))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        *is_there |= entry->d_ino == inode;
    }
    closedir(open);
    return count;
}

static void check_empty(void)
{
    int is_there;

    CHECK_INT(count_files(0, &is_there), 0);
}

static void empty_directory(void)
{
    DIR *open = opendir(directory);
    struct dirent *entry;

    CHECK(open != NULL);
    while ((entry = readdir(open)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            CHECK(unlinkat(dirfd(open), entry->d_name, 0) == 0);
    closedir(open);
}

static void remove_directory(void)
{
    check_empty();
    CHECK(rmdir(directory) == 0);
}

/* Leaves a dead socket's file, with a mode that lets everybody find out that it is dead. */
static void leave_dead_file(void)
{
    mode_t mask = umask(0);

    close(raw_unix_listen(path));
    umask(mask);
}

static struct stat status_of(const char *at)
{
    struct stat status;

    CHECK(fstatat(AT_FDCWD, at, &status, AT_SYMLINK_NOFOLLOW) == 0);
    return status;
}

/* ---- A file that takes the place of another ---- */

static char precious[140];
static struct stat placed, precious_before;
static void (*place)(void);
static int stranger_listens = -1;

static void place_file(void)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

    CHECK(fd >= 0);
    close(fd);
}

static void place_link(void)
{
    CHECK(symlink(precious, path) == 0);
}

static void place_dead_socket(void)
{
    leave_dead_file();
}

static void place_live_socket(void)
{
    stranger_listens = raw_unix_listen(path);
}

static void swap(void)
{
    mode_t mask = umask(022);

    unlink(path);
    place();
    umask(mask);
    if (geteuid() == 0)
        CHECK(lchown(path, STRANGER, STRANGER) == 0);
    placed = status_of(path);
}

static int is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_mode == b->st_mode && a->st_uid == b->st_uid;
}

/*
 * Checks that the file that was put there is unchanged and alone, and that the
 * symbolic link's target is unchanged, too.
 */
static void check_left_alone(void)
{
    struct stat now = status_of(path), linked = status_of(precious);
    int is_there, count = count_files(placed.st_ino, &is_there);

    CHECK(is_there);
    CHECK_INT(count, 1);
    CHECK(is_same(&now, &placed));
    CHECK(is_same(&linked, &precious_before));
    if (stranger_listens >= 0) {
        int fd = raw_unix_connect(path);

        CHECK(fd >= 0);
        close(fd);
        close(stranger_listens);
        stranger_listens = -1;
    }
    empty_directory();
}

static void listens_and_closes(void)
{
    qnet_listener *listener = NULL;

    if (qnet_listen("unix", path, &listener) == QNET_OK) {
        qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0666);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
}

static void opens_and_closes(void)
{
    qnet_conn *conn = NULL;

    if (qnet_dgram("unixgram", path, "@nobody", &conn) == QNET_OK)
        CHECK_INT(qnet_close(conn), QNET_OK);
}

/*
 * Puts another's file at the path after each step, where at first there is
 * nothing, or a dead socket's file.
 */
static void sweep(void (*uses)(void), void (*another)(void))
{
    int is_dead, n, swapped = 0;

    place = another;
    for (is_dead = 0; is_dead < 2; is_dead++)
        for (n = 1;; n++) {
            CHECK(n < MOST_STEPS);
            if (is_dead)
                leave_dead_file();
            after_step(n, swap);
            uses();
            if (is_past_the_last())
                break;
            check_left_alone();
            swapped++;
        }
    CHECK(swapped > 10);
    check_empty();
}

static void anothers_files_are_left_alone(void)
{
    void (*const uses[])(void) = { listens_and_closes, opens_and_closes };
    void (*const others[])(void) = { place_file, place_link, place_dead_socket, place_live_socket };
    size_t i, j;

    make_directory(0777);
    snprintf(precious, sizeof precious, "%s", scratch_path("precious"));
    close(open(precious, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    precious_before = status_of(precious);
    /* With this mask, the library has to change the modes of its own files. */
    umask(0777);
    for (i = 0; i < 2; i++)
        /* Without root, the sockets would belong to the same user and not to another. */
        for (j = 0; j < (geteuid() == 0 ? 4 : 2); j++)
            sweep(uses[i], others[j]);
    remove_directory();
}

/* ---- Two at the same place ---- */

static qnet_listener *second;
static int second_code;

static void listen_as_well(void)
{
    second_code = qnet_listen("unix", path, &second);
}

static void check_reachable(qnet_listener *listener)
{
    int fd = raw_unix_connect(path);
    qnet_conn *conn = NULL;

    CHECK(fd >= 0);
    CHECK_INT(qnet_accept(listener, 0, &conn), QNET_OK);
    CHECK_INT(qnet_close(conn), QNET_OK);
    close(fd);
}

/* After each step of a call that replaces a dead file, another one does so: one of them gets it. */
static void another_listens_meanwhile(void)
{
    int n;

    make_directory(0700);
    for (n = 1;; n++) {
        qnet_listener *first = NULL;
        int code;

        CHECK(n < MOST_STEPS);
        leave_dead_file();
        after_step(n, listen_as_well);
        code = qnet_listen("unix", path, &first);
        if (is_past_the_last()) {
            CHECK_INT(code, QNET_OK);
            CHECK_INT(qnet_listener_close(first), QNET_OK);
            break;
        }
        CHECK(code == QNET_OK || code == QNET_ERR_BUSY);
        CHECK_INT(second_code, code == QNET_OK ? QNET_ERR_BUSY : QNET_OK);
        check_reachable(code == QNET_OK ? first : second);
        CHECK_INT(qnet_listener_close(code == QNET_OK ? first : second), QNET_OK);
        check_empty();
    }
    CHECK(n > 5);
    remove_directory();
}

enum { RIVALS = 3 };

/* Listens once told to, and tells the result; when told to end, tells whether it was reached. */
static void rival(int told, int tells)
{
    qnet_listener *listener = NULL;
    qnet_conn *conn = NULL;
    int code;
    char byte;

    CHECK(read(told, &byte, 1) == 1);
    code = qnet_listen("unix", path, &listener);
    CHECK(write(tells, &code, sizeof code) == sizeof code);
    CHECK(read(told, &byte, 1) == 1);
    if (code == QNET_OK) {
        code = qnet_accept(listener, 0, &conn);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
    }
    CHECK(write(tells, &code, sizeof code) == sizeof code);
    _exit(0);
}

static void race_once(void)
{
    int orders[RIVALS][2], answers[RIVALS][2], winner = -1, i, fd, code;
    pid_t pids[RIVALS];

    leave_dead_file();
    for (i = 0; i < RIVALS; i++) {
        CHECK(pipe(orders[i]) == 0);
        CHECK(pipe(answers[i]) == 0);
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0)
            rival(orders[i][0], answers[i][1]);
    }
    for (i = 0; i < RIVALS; i++)
        CHECK(write(orders[i][1], "", 1) == 1);
    for (i = 0; i < RIVALS; i++) {
        CHECK(read(answers[i][0], &code, sizeof code) == sizeof code);
        CHECK(code == QNET_ERR_BUSY || (code == QNET_OK && winner < 0));
        if (code == QNET_OK)
            winner = i;
    }
    CHECK(winner >= 0);
    fd = raw_unix_connect(path);
    CHECK(fd >= 0);
    for (i = 0; i < RIVALS; i++) {
        int status;

        CHECK(write(orders[i][1], "", 1) == 1);
        CHECK(read(answers[i][0], &code, sizeof code) == sizeof code);
        CHECK_INT(code, i == winner ? QNET_OK : QNET_ERR_BUSY);
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK_INT(status, 0);
        close(orders[i][0]);
        close(orders[i][1]);
        close(answers[i][0]);
        close(answers[i][1]);
    }
    close(fd);
    check_empty();
}

static void processes_race_for_a_dead_file(void)
{
    int i;

    make_directory(0700);
    for (i = 0; i < rounds(200); i++)
        race_once();
    remove_directory();
}

/* ---- Strangers in the directory ---- */

static void need_root(void)
{
    if (geteuid() != 0)
        check_skip("only root can be a stranger to itself");
}

static void become(uid_t user)
{
    CHECK(seteuid(user) == 0);
}

/* Locks a file or directory as a stranger would. */
static void strangers_lock(const char *at, int flags)
{
    int fd;

    become(STRANGER);
    fd = open(at, flags | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
    become(0);
}

static void replaces_dead_file(void)
{
    qnet_listener *listener = NULL;

    CHECK_INT(qnet_listen("unix", path, &listener), QNET_OK);
    check_reachable(listener);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* The library waits for no lock that a stranger holds. */
static void strangers_locks(void)
{
    char turn[200];
    int before = naps;

    need_root();
    make_directory(01777);
    CHECK(chmod(scratch_directory, 0711) == 0);
    strangers_lock(directory, O_RDONLY | O_DIRECTORY);
    leave_dead_file();
    replaces_dead_file();
    leave_dead_file();
    snprintf(turn, sizeof turn, "%s/.qnet-turn-%lx", directory,
             (unsigned long)status_of(path).st_ino);
    strangers_lock(turn, O_RDWR | O_CREAT | O_EXCL);
    replaces_dead_file();
    CHECK_INT(naps, before);
    CHECK(unlink(turn) == 0);
    remove_directory();
}

/* In a directory that others can write to, only the user's own dead file is replaced. */
static void whose_dead_file_it_is(void)
{
    static const struct {
        mode_t mode;
        uid_t directory, file, user;
        int code;
    } cases[] = {
        { 01777, 0, 0, 0, QNET_OK },
        { 01777, 0, STRANGER, 0, QNET_ERR_BUSY },
        { 0770, 0, STRANGER, 0, QNET_ERR_BUSY },
        { 0755, STRANGER, STRANGER, 0, QNET_ERR_BUSY },
        { 0755, 0, STRANGER, 0, QNET_OK },
        { 01777, 0, STRANGER, STRANGER, QNET_OK },
        { 0700, STRANGER, STRANGER, STRANGER, QNET_OK },
        { 01777, 0, 0, STRANGER, QNET_ERR_BUSY },
    };
    size_t i;

    need_root();
    CHECK(chmod(scratch_directory, 0711) == 0);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        qnet_listener *listener = NULL;
        qnet_conn *conn = NULL;
        struct stat before, after;

        make_directory(cases[i].mode);
        leave_dead_file();
        CHECK(chmod(path, 0666) == 0);
        CHECK(chown(path, cases[i].file, (gid_t)-1) == 0);
        CHECK(chown(directory, cases[i].directory, (gid_t)-1) == 0);
        before = status_of(path);
        become(cases[i].user);
        CHECK_INT(qnet_dgram("unixgram", path, "@nobody", &conn), cases[i].code);
        if (cases[i].code == QNET_OK)
            CHECK_INT(qnet_close(conn), QNET_OK);
        CHECK_INT(qnet_listen("unix", path, &listener), cases[i].code);
        if (cases[i].code == QNET_OK) {
            check_reachable(listener);
            CHECK_INT(qnet_listener_close(listener), QNET_OK);
        } else {
            CHECK(strstr(qnet_last_error(), "another user's dead socket file") != NULL);
            after = status_of(path);
            CHECK(is_same(&before, &after));
        }
        become(0);
        empty_directory();
        remove_directory();
    }
}

int main(void)
{
    scratch_make();
    RUN(anothers_files_are_left_alone);
    RUN(another_listens_meanwhile);
    RUN(processes_race_for_a_dead_file);
    RUN(strangers_locks);
    RUN(whose_dead_file_it_is);
    scratch_remove();
    return check_done();
}
