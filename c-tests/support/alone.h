/*
 * alone.h - a network of a test's own: a namespace with a loopback interface
 * and nothing else.
 */
#ifndef ALONE_H
#define ALONE_H

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

/* Moves this process into such a namespace. Returns 0 if it has no right to. */
static inline int be_alone(void)
{
    struct ifreq request;
    int fd;

    if (unshare(CLONE_NEWNET) != 0)
        return 0;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    close(fd);
    return 1;
}

#endif
