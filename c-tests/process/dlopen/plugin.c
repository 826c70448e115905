/*
 * plugin.c - a plugin whose host knows nothing of libqnet: a device that sends
 * every frame back. It is built twice, with the static library and with the
 * shared one.
 */
#include "qnet.h"

static qnet_conn *device;

static void send_back(void *user, const uint8_t *frame, size_t len)
{
    (void)user;
    qnet_send(device, frame, len);
}

/* Starts the device; the other end of its cable is the caller's. */
int plugin_start(int *fd)
{
    int code = qnet_socketpair_fd(&device, fd);

    return code == QNET_OK ? qnet_set_handler(device, send_back, NULL) : code;
}

int plugin_stop(void)
{
    return qnet_close(device);
}

const char *plugin_error(void)
{
    return qnet_last_error();
}
