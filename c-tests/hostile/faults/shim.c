/* shim.c - see shim.h. */
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static struct shim_plan plan;
static atomic_int counts[SHIM_KINDS], fired, paused;
static atomic_long memory;
static uintptr_t library, library_end;

void shim_begin(const struct shim_plan *next)
{
    int call;

    for (call = 0; call < SHIM_KINDS; call++)
        counts[call] = 0;
    fired = 0;
    memset(&plan, 0, sizeof plan);
    if (next)
        plan = *next;
}

void shim_pause(int whether)
{
    paused = whether;
}

int shim_fired(void)
{
    return fired;
}

int shim_count(enum shim_call call)
{
    return counts[call];
}

long shim_memory(void)
{
    return memory;
}

const char *shim_name(enum shim_call call)
{
#define SHIM_STRING(name) #name,
    static const char *const names[] = { SHIM_CALLS(SHIM_STRING) };

    return names[call];
}

static int find_library(struct dl_phdr_info *object, size_t size, void *unused)
{
    int i;

    (void)size;
    (void)unused;
    if (!strstr(object->dlpi_name, "libqnet.so"))
        return 0;
    library = object->dlpi_addr;
    for (i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t end = object->dlpi_addr + part->p_vaddr + part->p_memsz;

        if (part->p_type == PT_LOAD && end > library_end)
            library_end = end;
    }
    return 1;
}

/* The library is loaded before this program's constructors run, and makes no call before. */
__attribute__((constructor)) static void find(void)
{
    dl_iterate_phdr(find_library, NULL);
}

static int is_library(const void *caller)
{
    return (uintptr_t)caller >= library && (uintptr_t)caller < library_end;
}

/* Whether a call may do less than all: with messages, and descriptors that count, there is no half. */
static int is_divisible(enum shim_call call, int fd)
{
    int type = 0;
    socklen_t len = sizeof type;
    struct stat about;

    if (call == CALL_sendmmsg || call == CALL_recvmmsg)
        return 1;
    if (call == CALL_write)
        return fstat(fd, &about) == 0 && (S_ISREG(about.st_mode) || S_ISFIFO(about.st_mode));
    return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           type == SOCK_STREAM;
}

/* A stream that has failed for another reason than memory does not work again. */
static void break_stream(enum shim_call call, int fd)
{
    int moves_bytes = call == CALL_send || call == CALL_sendmsg || call == CALL_recv;

    if (moves_bytes && plan.what > 0 && plan.what != EINTR && plan.what != EAGAIN &&
        plan.what != ENOMEM && plan.what != ENOBUFS && is_divisible(call, fd))
        syscall(SYS_shutdown, fd, SHUT_RDWR);
}

/* What this call is to suffer, or 0. */
static int suffers(enum shim_call call, int fd, const void *caller)
{
    int n;

    if (!is_library(caller) || paused)
        return 0;
    n = counts[call]++;
    if (plan.what == 0 || call != plan.call || n < plan.first || n >= plan.first + plan.times)
        return 0;
    if (plan.what <= DO_ONE && !is_divisible(call, fd))
        return 0;
    /* Raising an event cannot fail but for a signal; writing to files and pipes can. */
    if (call == CALL_write && plan.what != EINTR && !is_divisible(call, fd))
        return 0;
    fired++;
    break_stream(call, fd);
    return plan.what;
}

static size_t at_most(int suffered)
{
    return (size_t)(DO_AT_MOST - suffered);
}

/* How much of `all` that leaves. */
static size_t part_of(size_t all, int suffered)
{
    if (all < 2)
        return all;
    switch (suffered) {
    case DO_ONE:
        return 1;
    case DO_HALF:
        return all / 2;
    case DO_ALL_BUT_ONE:
        return all - 1;
    default:
        return suffered < DO_AT_MOST && all > at_most(suffered) ? at_most(suffered) : all;
    }
}

#define SUFFERS(name, fd) suffers(CALL_##name, fd, __builtin_return_address(0))
#define FAIL_IF_TOLD(name, fd)                                                                 \
    int suffered_ = SUFFERS(name, fd);                                                         \
    if (suffered_ > 0) {                                                                       \
        errno = suffered_;                                                                     \
        return -1;                                                                             \
    }

/* `next`: the C library's own. */
#define NEXT(name)                                                                             \
    static __typeof__(&name) next;                                                             \
    if (!next)                                                                                 \
        *(void **)&next = real(#name);

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found)
        abort();
    return found;
}

/* A function with these parameters that fails when told, and is the real one otherwise. */
#define PASS(type, name, fd, parameters, arguments)                                            \
    type name parameters                                                                       \
    {                                                                                          \
        FAIL_IF_TOLD(name, fd)                                                                 \
        NEXT(name)                                                                             \
        return next arguments;                                                                 \
    }

PASS(int, accept4, fd,
     (int fd, __SOCKADDR_ARG to, socklen_t *restrict len, int flags),
     (fd, to, len, flags))
PASS(int, bind, fd, (int fd, __CONST_SOCKADDR_ARG to, socklen_t len), (fd, to, len))
PASS(int, chmod, -1, (const char *path, mode_t mode), (path, mode))
PASS(int, connect, fd, (int fd, __CONST_SOCKADDR_ARG to, socklen_t len), (fd, to, len))
PASS(int, epoll_create1, -1, (int flags), (flags))
PASS(int, epoll_wait, fd, (int fd, struct epoll_event *events, int most, int ms),
     (fd, events, most, ms))
PASS(int, flock, fd, (int fd, int how), (fd, how))
PASS(int, fstatat64, -1,
     (int fd, const char *restrict path, struct stat64 *restrict to, int flags),
     (fd, path, to, flags))
PASS(int, ftruncate64, fd, (int fd, off64_t len), (fd, len))
PASS(int, getpeername, fd, (int fd, __SOCKADDR_ARG to, socklen_t *restrict len),
     (fd, to, len))
PASS(int, getsockname, fd, (int fd, __SOCKADDR_ARG to, socklen_t *restrict len),
     (fd, to, len))
PASS(int, getsockopt, fd,
     (int fd, int level, int name, void *restrict value, socklen_t *restrict len),
     (fd, level, name, value, len))
PASS(int, link, -1, (const char *from, const char *to), (from, to))
PASS(int, listen, fd, (int fd, int most), (fd, most))
PASS(int, madvise, -1, (void *at, size_t len, int advice), (at, len, advice))
PASS(int, ppoll, -1,
     (struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask),
     (fds, count, time, mask))
PASS(ssize_t, read, fd, (int fd, void *to, size_t len), (fd, to, len))
PASS(int, rename, -1, (const char *from, const char *to), (from, to))
PASS(int, renameat2, -1,
     (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
     (from_fd, from, to_fd, to, flags))
PASS(int, sched_getaffinity, -1, (pid_t of, size_t size, cpu_set_t *set), (of, size, set))
PASS(int, setsockopt, fd, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len))
PASS(int, socket, -1, (int domain, int type, int protocol), (domain, type, protocol))
PASS(int, socketpair, -1, (int domain, int type, int protocol, int pair[2]),
     (domain, type, protocol, pair))
PASS(int, timerfd_create, -1, (clockid_t clock, int flags), (clock, flags))
PASS(int, timerfd_settime, fd,
     (int fd, int flags, const struct itimerspec *value, struct itimerspec *before),
     (fd, flags, value, before))
PASS(int, unlink, -1, (const char *path), (path))

/* The same where a call may do a part of what it was asked; `less` says which. */
#define PASS_LESS(type, name, fd, parameters, all, arguments)                                  \
    type name parameters                                                                       \
    {                                                                                          \
        FAIL_IF_TOLD(name, fd)                                                                 \
        all = (__typeof__(all))part_of((size_t)(all), suffered_);                              \
        NEXT(name)                                                                             \
        return next arguments;                                                                 \
    }

PASS_LESS(ssize_t, recv, fd, (int fd, void *to, size_t len, int flags), len,
          (fd, to, len, flags))
PASS_LESS(ssize_t, send, fd, (int fd, const void *from, size_t len, int flags), len,
          (fd, from, len, flags))
PASS_LESS(ssize_t, write, fd, (int fd, const void *from, size_t len), len, (fd, from, len))
PASS_LESS(int, recvmmsg, fd,
          (int fd, struct mmsghdr *to, unsigned count, int flags, struct timespec *time), count,
          (fd, to, count, flags, time))
PASS_LESS(int, sendmmsg, fd, (int fd, struct mmsghdr *from, unsigned count, int flags), count,
          (fd, from, count, flags))

enum { MOST_PIECES = 8 };

/* The front of a message's pieces, as much of it as is left, in `pieces`. */
static struct msghdr shortened(const struct msghdr *message, struct iovec *pieces, int suffered)
{
    struct msghdr front = *message;
    size_t all = 0, i;

    if (message->msg_iovlen > MOST_PIECES || suffered == 0)
        return front;
    for (i = 0; i < message->msg_iovlen; i++)
        all += message->msg_iov[i].iov_len;
    all = part_of(all, suffered);
    for (i = 0; i < message->msg_iovlen && all > 0; i++) {
        pieces[i] = message->msg_iov[i];
        if (pieces[i].iov_len > all)
            pieces[i].iov_len = all;
        all -= pieces[i].iov_len;
    }
    front.msg_iov = pieces;
    front.msg_iovlen = i;
    return front;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec pieces[MOST_PIECES];
    struct msghdr front;
    FAIL_IF_TOLD(sendmsg, fd)

    front = shortened(message, pieces, suffered_);
    NEXT(sendmsg)
    return next(fd, &front, flags);
}

/* With it the library reads the error queue alone, which has no halves. */
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    FAIL_IF_TOLD(recvmsg, -1)
    NEXT(recvmsg)
    return next(fd, message, flags);
}

/* What fails has been done all the same: the other side had ended already, or the wait was cut. */
int shutdown(int fd, int how)
{
    int suffered = SUFFERS(shutdown, fd);
    NEXT(shutdown)
    int done = next(fd, how);

    if (suffered <= 0)
        return done;
    errno = suffered;
    return -1;
}

int close(int fd)
{
    int suffered = SUFFERS(close, fd);
    NEXT(close)
    int closed = next(fd);

    if (suffered <= 0)
        return closed;
    errno = suffered;
    return -1;
}

/* Putting into a set is what the kernel needs memory for. */
int epoll_ctl(int set, int what, int fd, struct epoll_event *event)
{
    if (what == EPOLL_CTL_ADD) {
        FAIL_IF_TOLD(epoll_ctl, fd)
    }
    NEXT(epoll_ctl)
    return next(set, what, fd, event);
}

char *getcwd(char *to, size_t len)
{
    int suffered = SUFFERS(getcwd, -1);

    if (suffered > 0) {
        errno = suffered;
        return NULL;
    }
    NEXT(getcwd)
    return next(to, len);
}

/* These two return the error. */
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                    struct timespec *left)
{
    int suffered = SUFFERS(clock_nanosleep, -1);

    NEXT(clock_nanosleep)
    if (suffered <= 0)
        return next(clock, flags, time, left);
    if (left)
        *left = *time;
    return suffered;
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*body)(void *), void *restrict argument)
{
    int suffered = SUFFERS(pthread_create, -1);

    NEXT(pthread_create)
    return suffered > 0 ? suffered : next(thread, attributes, body, argument);
}

/* Its failures are numbers of its own, less than 0, or EAI_SYSTEM with an errno. */
int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict found)
{
    int suffered = SUFFERS(getaddrinfo, -1);

    NEXT(getaddrinfo)
    if (suffered == 0)
        return next(name, service, hints, found);
    if (suffered < 0)
        return suffered;
    errno = suffered;
    return EAI_SYSTEM;
}

/* ---- Functions with any number of arguments ---- */

static long argument_of(va_list *arguments)
{
    return va_arg(*arguments, long);
}

int fcntl(int fd, int what, ...)
{
    va_list arguments;
    long argument;
    FAIL_IF_TOLD(fcntl, fd)

    va_start(arguments, what);
    argument = argument_of(&arguments);
    va_end(arguments);
    NEXT(fcntl)
    return next(fd, what, argument);
}

int ioctl(int fd, unsigned long what, ...)
{
    va_list arguments;
    long argument;
    FAIL_IF_TOLD(ioctl, fd)

    va_start(arguments, what);
    argument = argument_of(&arguments);
    va_end(arguments);
    NEXT(ioctl)
    return next(fd, what, argument);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    long mode;
    FAIL_IF_TOLD(open64, -1)

    va_start(arguments, flags);
    mode = argument_of(&arguments);
    va_end(arguments);
    NEXT(open64)
    return next(path, flags, mode);
}

/* What the library calls by number. Any other fails the test rather than be forgotten. */
long syscall(long number, ...)
{
    const void *caller = __builtin_return_address(0);
    long argument[6];
    va_list arguments;
    int suffered = 0, i;

    va_start(arguments, number);
    for (i = 0; i < 6; i++)
        argument[i] = argument_of(&arguments);
    va_end(arguments);
    switch (number) {
    case SYS_eventfd2:
        suffered = suffers(CALL_eventfd, -1, caller);
        break;
    case SYS_fchmodat2:
        suffered = suffers(CALL_chmod, -1, caller);
        break;
    case SYS_fchmod:
        suffered = suffers(CALL_fchmod, -1, caller);
        break;
    case SYS_getrandom:
        suffered = suffers(CALL_getrandom, -1, caller);
        break;
    case SYS_futex: /* waiting for a lock may end at any time, and is begun again */
        break;
    default:
        if (is_library(caller)) {
            fprintf(stderr, "the library makes a system call that shim.c does not know: %ld\n",
                    number);
            abort();
        }
    }
    if (suffered > 0) {
        errno = suffered;
        return -1;
    }
    NEXT(syscall)
    return next(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                         argument[5]);
}

ssize_t getrandom(void *to, size_t len, unsigned flags)
{
    FAIL_IF_TOLD(getrandom, -1)
    NEXT(syscall)
    return next(SYS_getrandom, to, len, flags);
}

/* ---- Memory, which is counted: where it lacks, Rust ends the process by itself ---- */

/* Everybody's: what the library does last in a function returns elsewhere. */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t len)
{
    memory++;
    return __libc_malloc(len);
}

void *calloc(size_t count, size_t len)
{
    memory++;
    return __libc_calloc(count, len);
}

void *realloc(void *before, size_t len)
{
    memory += before == NULL;
    return __libc_realloc(before, len);
}

int posix_memalign(void **to, size_t alignment, size_t len)
{
    memory++;
    *to = __libc_memalign(alignment, len);
    return *to ? 0 : ENOMEM;
}

void free(void *at)
{
    memory -= at != NULL;
    __libc_free(at);
}

void *mmap64(void *at, size_t len, int protection, int flags, int fd, off64_t offset)
{
    int suffered = SUFFERS(mmap64, -1);

    if (suffered > 0) {
        errno = suffered;
        return MAP_FAILED;
    }
    memory++;
    NEXT(mmap64)
    return next(at, len, protection, flags, fd, offset);
}

int munmap(void *at, size_t len)
{
    memory--;
    NEXT(munmap)
    return next(at, len);
}
