/*
 * socket_file.c - the socket file of a Unix listener: who may connect, what it may
 * replace, and what is left there afterwards.
 */
#include "listening.h"

static unsigned mode_of(const char *path)
{
    struct stat status;

    CHECK(lstat(path, &status) == 0);
    return status.st_mode & 07777;
}

static ino_t inode_of(const char *path)
{
    struct stat status;

    CHECK(lstat(path, &status) == 0);
    return status.st_ino;
}

static void unix_mode(void)
{
    static const mode_t masks[] = { 0, 022, 0777 };
    const char *path = scratch_path("mode.sock");
    qnet_listener *listener;
    int64_t value = 0;
    size_t i;

    for (i = 0; i < sizeof masks / sizeof *masks; i++) {
        mode_t before = umask(masks[i]);

        listener = listen_on("unix", path);
        CHECK_INT(umask(before), masks[i]);
        CHECK_INT(mode_of(path), 0600);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0666), QNET_OK);
        CHECK_INT(mode_of(path), 0666);
        CHECK_INT(qnet_listener_get(listener, QNET_OPT_UNIX_MODE, &value), QNET_OK);
        CHECK_INT(value, 0666);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, -1), QNET_ERR_INVALID);
        CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0200000), QNET_ERR_INVALID);
        CHECK(strstr(qnet_last_error(), "QNET_OPT_UNIX_MODE, option 13, cannot be 0200000: it is "
                                        "from 0 to 0777") != NULL);
        CHECK_INT(mode_of(path), 0666);
        CHECK_INT(qnet_listener_close(listener), QNET_OK);
        CHECK(!exists(path));
    }
    listener = listen_on("tcp", "127.0.0.1:0");
    CHECK_INT(qnet_listener_set(listener, QNET_OPT_UNIX_MODE, 0666), QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

/* The longest path fills sun_path, and its NUL is no part of it. */
static void longest_path(void)
{
    enum { LONGEST = sizeof((struct sockaddr_un *)0)->sun_path - 1 };
    char path[LONGEST + 1], text[2 * LONGEST];
    qnet_listener *listener;
    qnet_conn *near = NULL, *far = NULL;

    CHECK(snprintf(path, sizeof path, "%s", scratch_path("")) < LONGEST);
    memset(path + strlen(path), 'p', LONGEST - strlen(path));
    path[LONGEST] = '\0';
    listener = listen_on("unix", path);
    CHECK_INT(qnet_dial("unix", path, &near), QNET_OK);
    CHECK_INT(qnet_accept(listener, -1, &far), QNET_OK);
    CHECK_INT(qnet_listener_addr(listener, text, sizeof text), LONGEST);
    CHECK(strcmp(text, path) == 0);
    CHECK_INT(qnet_peer_addr(near, text, sizeof text), LONGEST);
    CHECK(strcmp(text, path) == 0);
    CHECK_INT(qnet_local_addr(far, text, sizeof text), LONGEST);
    CHECK(strcmp(text, path) == 0);
    CHECK_INT(qnet_close(near), QNET_OK);
    CHECK_INT(qnet_close(far), QNET_OK);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(!exists(path));
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    CHECK(fd >= 0);
    CHECK(write(fd, "kept", 4) == 4);
    close(fd);
}

static void check_file(const char *path)
{
    char text[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK(read(fd, text, sizeof text) == 4);
    CHECK(memcmp(text, "kept", 4) == 0);
    close(fd);
}

/* A file that has replaced the socket file is not removed with the listener. */
static void replaced_file_stays(void)
{
    const char *path = scratch_path("replaced.sock");
    qnet_listener *listener = listen_on("unix", path);
    int fd;

    CHECK(unlink(path) == 0);
    make_file(path);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    check_file(path);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    CHECK(rename(path, scratch_path("aside.sock")) == 0);
    fd = raw_unix_listen(path);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(raw_unix_connect(path) >= 0);
    close(fd);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    CHECK(unlink(path) == 0);
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

static void stale_file_replaced(void)
{
    const char *path = scratch_path("stale.sock");
    qnet_listener *listener;

    close(raw_unix_listen(path));
    CHECK(exists(path));
    listener = listen_on("unix", path);
    CHECK_INT(mode_of(path), 0600);
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(!exists(path));
}

/* Where somebody listens already, nothing is changed, and that listener notices nothing. */
static void live_file_busy(void)
{
    const char *path = scratch_path("live.sock");
    int fd = raw_unix_listen(path);
    ino_t inode = inode_of(path);
    qnet_listener *listener;

    check_listen_fails("unix", path, QNET_ERR_BUSY);
    check_noticed_nothing(fd);
    CHECK_INT(inode_of(path), inode);
    close(fd);
    CHECK(unlink(path) == 0);

    listener = listen_on("unix", path);
    check_listen_fails("unix", path, QNET_ERR_BUSY);
    CHECK(!raw_readable(qnet_listener_fd(listener), 50));
    check_serves(listener, raw_unix_connect(path));
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
    CHECK(!exists(path));

    fd = raw_unix_listen(scratch_abstract("live"));
    check_listen_fails("unix", scratch_abstract("live"), QNET_ERR_BUSY);
    check_noticed_nothing(fd);
    close(fd);
}

static void other_files_left_alone(void)
{
    const char *file = scratch_path("file"), *directory = scratch_path("directory");
    const char *link = scratch_path("link"), *fifo = scratch_path("fifo");
    qnet_listener *listener = (qnet_listener *)1;

    make_file(file);
    CHECK(qnet_listen("unix", file, &listener) < 0);
    CHECK(listener == NULL);
    check_file(file);

    CHECK(mkdir(directory, 0700) == 0);
    CHECK(qnet_listen("unix", directory, &listener) < 0);
    CHECK(rmdir(directory) == 0);

    CHECK(symlink(file, link) == 0);
    CHECK(qnet_listen("unix", link, &listener) < 0);
    CHECK(strstr(qnet_last_error(), "a symbolic link is in the way") != NULL);
    CHECK(exists(link));
    check_file(file);

    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK(qnet_listen("unix", fifo, &listener) < 0);
    CHECK(strstr(qnet_last_error(), "a file that is no socket is in the way") != NULL);
    CHECK(exists(fifo));

    check_listen_fails("unix", scratch_path("no-directory/socket"), QNET_ERR_OS);
    CHECK_INT(qnet_last_errno(), ENOENT);
}

int main(void)
{
    scratch_make();
    RUN(unix_mode);
    RUN(longest_path);
    RUN(replaced_file_stays);
    RUN(stale_file_replaced);
    RUN(live_file_busy);
    RUN(other_files_left_alone);
    scratch_remove();
    return check_done();
}
