/*
 * netdev.c - the -netdev arguments with which QEMUs of all versions join a
 * listener.
 */
#include "scratch.h"

enum { TEXT = 512 };

static qnet_listener *listen_at(const char *network, const char *address)
{
    qnet_listener *listener;

    CHECK_INT(qnet_listen(network, address, &listener), QNET_OK);
    return listener;
}

/* The port that the system chose. */
static const char *port_of(qnet_listener *listener)
{
    static char address[TEXT];

    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    return strrchr(address, ':') + 1;
}

/* What a version is told, which is as in printf(3) with a port. */
static void check_text(qnet_listener *listener, int version, const char *format, const char *port)
{
    char text[TEXT], want[TEXT];
    int len = qnet_listener_netdev(listener, "n0", version, text, sizeof text);

    snprintf(want, sizeof want, format, port);
    if (len < 0 || strcmp(text, want) != 0)
        fprintf(stderr, "%d: %s\n", version, len < 0 ? qnet_last_error() : text);
    CHECK_INT(len, strlen(want));
    CHECK(strcmp(text, want) == 0);
}

static void check_code(qnet_listener *listener, int version, int code)
{
    char text[TEXT] = "as before";

    CHECK_INT(qnet_listener_netdev(listener, "n0", version, text, sizeof text), code);
    CHECK(strcmp(text, "as before") == 0);
}

static void close_listener(qnet_listener *listener)
{
    CHECK_INT(qnet_listener_close(listener), QNET_OK);
}

#define INET "stream,id=n0,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=%s"

static void tcp_by_version(void)
{
    static const int of_socket[] = { 402, 500, 602, 701 };
    static const int once[] = { 702 };
    static const int seconds[] = { 800, 802, 900, 901 };
    static const int milliseconds[] = { 902, 1000, 1002, 1100 };
    qnet_listener *listener = listen_at("tcp", "127.0.0.1:0");
    const char *port = port_of(listener);
    size_t i;

    for (i = 0; i < sizeof of_socket / sizeof *of_socket; i++)
        check_text(listener, of_socket[i], "socket,id=n0,connect=127.0.0.1:%s", port);
    for (i = 0; i < sizeof once / sizeof *once; i++)
        check_text(listener, once[i], INET, port);
    for (i = 0; i < sizeof seconds / sizeof *seconds; i++)
        check_text(listener, seconds[i], INET ",reconnect=1", port);
    for (i = 0; i < sizeof milliseconds / sizeof *milliseconds; i++)
        check_text(listener, milliseconds[i], INET ",reconnect-ms=1000", port);
    close_listener(listener);
}

/* A wildcard is no address to connect to. */
static void tcp_on_every_interface(void)
{
    qnet_listener *listener = listen_at("tcp4", ":0");

    check_text(listener, 701, "socket,id=n0,connect=127.0.0.1:%s", port_of(listener));
    check_text(listener, 702, INET, port_of(listener));
    close_listener(listener);
    listener = listen_at("tcp", ":0"); /* v6 and v4, where there is v6 */
    check_text(listener, 702, INET, port_of(listener));
    close_listener(listener);
}

static void tcp_v6(void)
{
    qnet_listener *listener;

    if (qnet_listen("tcp6", "[::1]:0", &listener) != QNET_OK)
        check_skip("this machine has no IPv6");
    check_text(listener, 702, "stream,id=n0,server=off,addr.type=inet,addr.host=::1,addr.port=%s",
               port_of(listener));
    check_code(listener, 701, QNET_ERR_UNSUPPORTED);
    close_listener(listener);
    listener = listen_at("tcp6", ":0");
    check_text(listener, 702, "stream,id=n0,server=off,addr.type=inet,addr.host=::1,addr.port=%s",
               port_of(listener));
    close_listener(listener);
}

static void unix_paths(void)
{
    char want[TEXT];
    qnet_listener *listener = listen_at("unix", scratch_path("a,b=c,.sock"));

    snprintf(want, sizeof want, "stream,id=n0,server=off,addr.type=unix,addr.path=%s/a,,b=c,,.sock",
             scratch_directory);
    check_text(listener, 702, want, "");
    check_code(listener, 701, QNET_ERR_UNSUPPORTED);
    close_listener(listener);
}

/* QEMU's working directory may be another. */
static void unix_relative_path(void)
{
    char want[TEXT];
    qnet_listener *listener;

    CHECK(chdir(scratch_directory) == 0);
    listener = listen_at("unix", "relative.sock");
    snprintf(want, sizeof want,
             "stream,id=n0,server=off,addr.type=unix,addr.path=%s/relative.sock,reconnect=1",
             scratch_directory);
    check_text(listener, 900, want, "");
    close_listener(listener);
}

static void unix_abstract(void)
{
    const char *name = scratch_abstract("netdev");
    qnet_listener *listener = listen_at("unix", name);

    check_text(listener, 702, "stream,id=n0,server=off,addr.type=unix,addr.path=%s,addr.abstract=on",
               name + 1);
    close_listener(listener);
}

static void bad_arguments(void)
{
    static const char *const ids[] = { "", "0", "-n", "n,x", "n=x", "n x", "n\xc3\xa4" };
    qnet_listener *listener = listen_at("tcp", "127.0.0.1:0");
    char text[TEXT];
    size_t i;

    for (i = 0; i < sizeof ids / sizeof *ids; i++)
        CHECK_INT(qnet_listener_netdev(listener, ids[i], 702, text, sizeof text), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_netdev(listener, NULL, 702, text, sizeof text), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_netdev(listener, "n0", 702, NULL, 1), QNET_ERR_INVALID);
    CHECK_INT(qnet_listener_netdev(NULL, NULL, 0, NULL, 1), QNET_ERR_HANDLE);
    check_code(listener, 0, QNET_ERR_INVALID);
    check_code(listener, -702, QNET_ERR_INVALID);
    check_code(listener, 7, QNET_ERR_INVALID);
    check_code(listener, 401, QNET_ERR_UNSUPPORTED);
    CHECK_INT(qnet_listener_netdev(listener, "N-0._x", 702, NULL, 0),
              qnet_listener_netdev(listener, "N-0._x", 702, text, sizeof text));
    close_listener(listener);
    CHECK_INT(qnet_listener_netdev(listener, "n0", 702, text, sizeof text), QNET_ERR_HANDLE);
}

int main(void)
{
    scratch_make();
    RUN(tcp_by_version);
    RUN(tcp_on_every_interface);
    RUN(tcp_v6);
    RUN(unix_paths);
    RUN(unix_relative_path);
    RUN(unix_abstract);
    RUN(bad_arguments);
    scratch_remove();
    return check_done();
}
