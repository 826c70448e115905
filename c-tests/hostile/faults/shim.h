/*
 * shim.h - between the library and the system: shim.c defines the functions of
 * the C library that libqnet.so calls the system with, counts those calls and
 * has one of them fail or do less than it was asked. The program exports them,
 * so that the library finds them first; calls from anywhere else go through.
 */
#ifndef SHIM_H
#define SHIM_H

#include <stdatomic.h>

/* Every function that can be made to fail; getrandom's and eventfd's calls come by syscall(). */
#define SHIM_CALLS(X)                                                                          \
    X(accept4) X(bind) X(chmod) X(clock_nanosleep) X(close) X(connect) X(epoll_create1)        \
    X(epoll_ctl) X(epoll_wait) X(eventfd) X(fchmod) X(fcntl) X(flock) X(fstatat64)             \
    X(ftruncate64) X(getaddrinfo) X(getcwd) X(getpeername) X(getrandom) X(getsockname) X(getsockopt) X(ioctl) \
    X(link) X(listen) X(madvise) X(mmap64) X(open64) X(ppoll) X(pthread_create) X(read)        \
    X(recv) X(recvmmsg) X(recvmsg) X(rename) X(renameat2) X(sched_getaffinity) X(send)         \
    X(sendmmsg) X(sendmsg) X(setsockopt) X(shutdown) X(socket) X(socketpair)          \
    X(timerfd_create) X(timerfd_settime) X(unlink) X(write)

#define SHIM_NUMBER(name) CALL_##name,
enum shim_call { SHIM_CALLS(SHIM_NUMBER) SHIM_KINDS };

/* What a call does instead of what was asked, unless that is an errno (or getaddrinfo's answer). */
enum { DO_ONE = -1001, DO_HALF = -1002, DO_ALL_BUT_ONE = -1003, DO_AT_MOST = -2000 /* less n */ };

/* Which calls are to suffer it: `times` of a function, from the `first` on. */
struct shim_plan {
    enum shim_call call;
    int first, times, what;
};

/* Counts from 0 again, and has the plan's calls suffer; NULL: none. */
void shim_begin(const struct shim_plan *plan);

/* Whether calls go through uncounted for now. */
void shim_pause(int whether);

/* How many calls suffered since. */
int shim_fired(void);

/* How many calls of a function the library has made since. */
int shim_count(enum shim_call call);

/* How many pieces of memory the process holds. */
long shim_memory(void);

const char *shim_name(enum shim_call call);

#endif
