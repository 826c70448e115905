/*
 * faults.h - what can go wrong in a system call, and how the library may tell
 * its caller.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <dirent.h>
#include <netdb.h>

#include "shim.h"
#include "forwarding.h"

struct fault {
    const char *name;
    int what, times;
    int is_seen; /* whether the caller may be told */
    enum shim_call calls[40];
    size_t kinds;
};

#define OF(...) { __VA_ARGS__ }, sizeof((enum shim_call[]){ __VA_ARGS__ }) / sizeof(enum shim_call)
#define WRITES CALL_send, CALL_sendmsg, CALL_sendmmsg
#define READS CALL_recv, CALL_recvmmsg, CALL_recvmsg
#define INTERRUPTIBLE WRITES, READS, CALL_accept4, CALL_clock_nanosleep, CALL_close,           \
    CALL_connect, CALL_epoll_wait, CALL_flock, CALL_getrandom, CALL_open64, CALL_ppoll,        \
    CALL_read, CALL_write
#define OPENING CALL_accept4, CALL_epoll_create1, CALL_eventfd, CALL_getaddrinfo, CALL_open64, \
    CALL_socket, CALL_socketpair, CALL_timerfd_create

static const struct fault faults[] = {
    { "EINTR", EINTR, 1, 0, OF(INTERRUPTIBLE) },
    { "EINTR five times", EINTR, 5, 0, OF(INTERRUPTIBLE) },
    { "EAGAIN once", EAGAIN, 1, 0, OF(WRITES, READS, CALL_accept4) },
    { "one byte or message", DO_ONE, 1, 0, OF(WRITES, READS, CALL_write) },
    { "half of it", DO_HALF, 1, 0, OF(WRITES, READS, CALL_write) },
    { "all but one", DO_ALL_BUT_ONE, 1, 0, OF(WRITES, READS, CALL_write) },
    { "ECONNABORTED", ECONNABORTED, 1, 0, OF(CALL_accept4) },
    { "ENOMEM", ENOMEM, 1, 1,
      OF(WRITES, READS, OPENING, CALL_bind, CALL_chmod, CALL_connect, CALL_epoll_ctl,
         CALL_fchmod, CALL_fstatat64, CALL_getcwd, CALL_getpeername, CALL_getsockname,
         CALL_getsockopt, CALL_ioctl, CALL_listen, CALL_madvise, CALL_mmap64, CALL_ppoll,
         CALL_rename, CALL_renameat2, CALL_setsockopt, CALL_timerfd_settime, CALL_unlink) },
    { "ENOBUFS", ENOBUFS, 1, 1,
      OF(WRITES, READS, CALL_accept4, CALL_connect, CALL_getpeername, CALL_getsockname,
         CALL_setsockopt, CALL_socket, CALL_socketpair) },
    { "EMFILE", EMFILE, 1, 1, OF(OPENING) },
    { "ENFILE", ENFILE, 1, 1, OF(OPENING) },
    { "EAGAIN for a thread or port", EAGAIN, 1, 1, OF(CALL_connect, CALL_pthread_create) },
    { "EAGAIN for a lock", EAGAIN, 1, 1, OF(CALL_flock) },
    { "ECONNRESET", ECONNRESET, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "ECONNREFUSED", ECONNREFUSED, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "EPIPE", EPIPE, 1, 1, OF(WRITES) },
    { "EIO", EIO, 1, 1,
      OF(WRITES, READS, CALL_fstatat64, CALL_ftruncate64, CALL_open64, CALL_read, CALL_rename,
         CALL_unlink, CALL_write) },
    { "ETIMEDOUT", ETIMEDOUT, 1, 1, OF(WRITES, READS, CALL_connect) },
    { "EACCES", EACCES, 1, 1,
      OF(CALL_bind, CALL_chmod, CALL_connect, CALL_fchmod, CALL_fstatat64, CALL_getcwd,
         CALL_open64, CALL_rename, CALL_socket, CALL_unlink) },
    { "EPERM", EPERM, 1, 1,
      OF(CALL_accept4, CALL_chmod, CALL_fchmod, CALL_fcntl, CALL_getrandom, CALL_ioctl,
         CALL_madvise, CALL_sched_getaffinity, CALL_setsockopt, CALL_socketpair) },
    { "EADDRINUSE", EADDRINUSE, 1, 1, OF(CALL_bind, CALL_connect, CALL_listen) },
    { "ENOTCONN", ENOTCONN, 1, 1, OF(CALL_shutdown) },
    { "ENOSPC", ENOSPC, 1, 1, OF(CALL_epoll_ctl, CALL_write) },
    { "EAI_AGAIN", EAI_AGAIN, 1, 1, OF(CALL_getaddrinfo) },
    { "EAI_MEMORY", EAI_MEMORY, 1, 1, OF(CALL_getaddrinfo) },
};

/*
 * The fault of this run, and the function that has it. Only where there is one anything
 * may go wrong.
 */
static const struct fault *fault_now;
static enum shim_call call_now;

static int may_fail(void)
{
    return fault_now && fault_now->is_seen && shim_fired() > 0;
}

/* Whether the function that fails is one of those that look at socket files and remove them. */
static int is_of_files(void)
{
    return call_now == CALL_flock || call_now == CALL_fstatat64 || call_now == CALL_rename ||
           call_now == CALL_renameat2 || call_now == CALL_unlink;
}

/* Whether a signal ended a wait, which the caller is to repeat then. */
static int was_interrupted(int result)
{
    return result == QNET_ERR_INTERRUPTED && fault_now && fault_now->what == EINTR &&
           shim_fired() > 0;
}

/* Whether a call went well. If not, it has to say so clearly, in a text that begins with `attempt`. */
static int went(int result, const char *attempt)
{
    const char *text = qnet_last_error();

    if (result >= 0)
        return 1;
    CHECK(may_fail());
    check_among(result, MAY(QNET_ERR_OS) | MAY(QNET_ERR_CLOSED) | MAY(QNET_ERR_PROTOCOL)
                            | MAY(QNET_ERR_BUSY) | MAY(QNET_ERR_REFUSED)
                            | MAY(QNET_ERR_RESOLVE) | MAY(QNET_ERR_UNSUPPORTED));
    if (strncmp(text, attempt, strlen(attempt)) != 0 || !strstr(text, ": "))
        check_fail(__FILE__, __LINE__, attempt);
    if (result == QNET_ERR_BUSY)
        CHECK(fault_now->what == EADDRINUSE || call_now == CALL_connect || is_of_files());
    if (result == QNET_ERR_RESOLVE)
        CHECK(fault_now->what < 0);
    if (result == QNET_ERR_OS || result == QNET_ERR_REFUSED) {
        /* What closes with bytes unread resets its peer. */
        if (qnet_last_errno() != ECONNRESET)
            CHECK_INT(qnet_last_errno(), fault_now->what);
        CHECK(strstr(text, strerror(qnet_last_errno())) != NULL);
    } else {
        CHECK_INT(qnet_last_errno(), 0);
    }
    return 0;
}

#define TRY(result, call)                                                                      \
    do                                                                                         \
        (result) = (call);                                                                     \
    while (was_interrupted(result))

/* The same for a call that makes something, which is NULL if and only if the call fails. */
static int made(int result, const void *handle, const char *attempt)
{
    CHECK((handle != NULL) == (result == QNET_OK));
    return went(result, attempt);
}

/* Removes a place, with what the library made there and could not remove. */
static void place_leave(const struct place *place)
{
    DIR *directory = may_fail() && is_of_files() ? opendir(place->directory) : NULL;
    struct dirent *entry;

    while (directory && (entry = readdir(directory)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            CHECK(unlinkat(dirfd(directory), entry->d_name, 0) == 0);
    if (directory)
        closedir(directory);
    place_remove(place);
}

#endif
