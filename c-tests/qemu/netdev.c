/*
 * netdev.c - the -netdev arguments with which QEMUs of all versions join a
 * listener, or a datagram connection.
 */
#include "ways.h"
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

/* Checks the arguments for a QEMU version: `format` is as in printf(3), and takes the port. */
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

/* A wildcard cannot be connected to: QEMU is told the loopback address instead. */
static void tcp_on_every_interface(void)
{
    qnet_listener *listener = listen_at("tcp4", ":0");

    check_text(listener, 701, "socket,id=n0,connect=127.0.0.1:%s", port_of(listener));
    check_text(listener, 702, INET, port_of(listener));
    close_listener(listener);
    listener = listen_at("tcp", ":0"); /* both IPv6 and IPv4, if there is IPv6 */
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

/* A relative path is made absolute, because QEMU's working directory may be another. */
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

/* ---- Datagram connections ---- */

static const int before_dgram[] = { 402, 500, 602, 701 };
static const int with_dgram[] = { 702, 800, 802, 900, 902, 1000, 1002, 1100 };
enum {
    BEFORE_DGRAM = sizeof before_dgram / sizeof *before_dgram,
    WITH_DGRAM = sizeof with_dgram / sizeof *with_dgram,
};

static qnet_conn *dgram_at(const char *network, const char *local, const char *remote)
{
    qnet_conn *conn;

    CHECK_INT(qnet_dgram(network, local, remote, &conn), QNET_OK);
    return conn;
}

/* The port of the connection's own socket. */
static const char *port_of_conn(qnet_conn *conn)
{
    static char address[TEXT];

    CHECK(qnet_local_addr(conn, address, sizeof address) > 0);
    return strrchr(address, ':') + 1;
}

static void check_conn_text(qnet_conn *conn, int version, const char *format, const char *port)
{
    char text[TEXT], want[TEXT];
    int len = qnet_netdev(conn, "n0", version, text, sizeof text);

    snprintf(want, sizeof want, format, port);
    if (len < 0 || strcmp(text, want) != 0)
        fprintf(stderr, "%d: %s\n", version, len < 0 ? qnet_last_error() : text);
    CHECK_INT(len, strlen(want));
    CHECK(strcmp(text, want) == 0);
}

static void check_conn_code(qnet_conn *conn, int version, int code)
{
    char text[TEXT] = "as before";

    CHECK_INT(qnet_netdev(conn, "n0", version, text, sizeof text), code);
    CHECK(strcmp(text, "as before") == 0);
}

static void check_every_version(qnet_conn *conn, const char *before, const char *with,
                                const char *port)
{
    int i;

    for (i = 0; i < BEFORE_DGRAM; i++)
        if (before)
            check_conn_text(conn, before_dgram[i], before, port);
        else
            check_conn_code(conn, before_dgram[i], QNET_ERR_UNSUPPORTED);
    for (i = 0; i < WITH_DGRAM; i++)
        if (with)
            check_conn_text(conn, with_dgram[i], with, port);
        else
            check_conn_code(conn, with_dgram[i], QNET_ERR_UNSUPPORTED);
}

static void close_conn(qnet_conn *conn)
{
    CHECK_INT(qnet_close(conn), QNET_OK);
}

/* The connection's remote address is QEMU's local one, and the other way round. */
static void udp(void)
{
    static const char *const locals[] = { "127.0.0.1:0", ":0", "0.0.0.0:0", "localhost:0" };
    size_t i;

    for (i = 0; i < 4; i++) {
        qnet_conn *conn = dgram_at("udp4", locals[i], "127.0.0.1:9");

        check_every_version(conn, "socket,id=n0,udp=127.0.0.1:%s,localaddr=127.0.0.1:9",
                            "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=9,"
                            "remote.type=inet,remote.host=127.0.0.1,remote.port=%s",
                            port_of_conn(conn));
        close_conn(conn);
    }
}

static void udp_v6(void)
{
    qnet_conn *conn;

    if (qnet_dgram("udp6", "[::1]:0", "[::1]:9", &conn) != QNET_OK)
        check_skip("this machine has no IPv6");
    check_every_version(conn, NULL, NULL, NULL);
    close_conn(conn);
}

/* The addresses of an adopted socket are used in the same way. */
static void udp_adopted(void)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    qnet_conn *conn;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(9);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK_INT(qnet_from_fd(fd, &conn), QNET_OK);
    check_conn_text(conn, 701, "socket,id=n0,udp=127.0.0.1:%s,localaddr=127.0.0.1:9",
                    port_of_conn(conn));
    close_conn(conn);
}

/* All members are told the group's address; their local one only names the interface. */
static void multicast(void)
{
    qnet_conn *conn = dgram_at("mcast", "127.0.0.1", "239.255.77.3:9999");

    check_every_version(conn, "socket,id=n0,mcast=239.255.77.3:9999,localaddr=127.0.0.1",
                        "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=%s,"
                        "remote.type=inet,remote.host=239.255.77.3,remote.port=9999",
                        port_of_conn(conn));
    close_conn(conn);
}

static void unixgram(void)
{
    char want[TEXT];
    qnet_conn *conn = dgram_at("unixgram", scratch_path("a,b=c,"), scratch_path(",far,,"));

    snprintf(want, sizeof want,
             "dgram,id=n0,local.type=unix,local.path=%s/,,far,,,,,"
             "remote.type=unix,remote.path=%s/a,,b=c,,",
             scratch_directory, scratch_directory);
    check_every_version(conn, NULL, want, "");
    close_conn(conn);
}

/* The remote is whoever sends: before anybody has sent, and afterwards. */
static void from_whoever_sends(void)
{
    static const char *const locals[] = { "127.0.0.1:0", "0.0.0.0:0" };
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len;
    size_t i;

    for (i = 0; i < 2; i++) {
        qnet_conn *conn = dgram_at("udp", locals[i], NULL);
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        char text[TEXT], before[TEXT], with[TEXT];
        uint8_t frame[60] = { 0 };

        check_every_version(conn, "socket,id=n0,udp=127.0.0.1:%s,localaddr=0.0.0.0:0",
                            "dgram,id=n0,local.type=inet,local.host=0.0.0.0,local.port=0,"
                            "remote.type=inet,remote.host=127.0.0.1,remote.port=%s",
                            port_of_conn(conn));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons((unsigned short)atoi(port_of_conn(conn)));
        CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
        CHECK(send(fd, frame, sizeof frame, 0) == sizeof frame);
        CHECK_INT(qnet_recv(conn, text, sizeof text, patience_ms()), sizeof frame);
        len = sizeof address;
        CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
        snprintf(before, sizeof before, "socket,id=n0,udp=127.0.0.1:%%s,localaddr=127.0.0.1:%d",
                 ntohs(address.sin_port));
        snprintf(with, sizeof with,
                 "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=%d,"
                 "remote.type=inet,remote.host=127.0.0.1,remote.port=%%s", ntohs(address.sin_port));
        check_every_version(conn, before, with, port_of_conn(conn));
        CHECK(close(fd) == 0);
        close_conn(conn);
    }
}

static void from_whoever_sends_to_a_path(void)
{
    char want[TEXT], text[TEXT];
    qnet_conn *conn = dgram_at("unixgram", scratch_path("near"), NULL);
    qnet_conn *far = dgram_at("unixgram", scratch_path("far"), scratch_path("near"));
    uint8_t frame[60] = { 0 };

    check_every_version(conn, NULL, NULL, NULL);
    CHECK_INT(qnet_send(far, frame, sizeof frame), QNET_OK);
    CHECK_INT(qnet_recv(conn, text, sizeof text, patience_ms()), sizeof frame);
    snprintf(want, sizeof want,
             "dgram,id=n0,local.type=unix,local.path=%s/far,remote.type=unix,remote.path=%s/near",
             scratch_directory, scratch_directory);
    check_every_version(conn, NULL, want, "");
    close_conn(conn);
    close_conn(far);
}

static void unixgram_relative_paths(void)
{
    char want[TEXT];
    qnet_conn *conn;

    CHECK(chdir(scratch_directory) == 0);
    conn = dgram_at("unixgram", "near", "far");
    snprintf(want, sizeof want,
             "dgram,id=n0,local.type=unix,local.path=%s/far,remote.type=unix,remote.path=%s/near",
             scratch_directory, scratch_directory);
    check_conn_text(conn, 702, want, "");
    close_conn(conn);
}

/* Makes a directory whose path has 136 bytes, and changes into it. */
static const char *enter_deep_directory(void)
{
    static char deep[137];
    size_t len = strlen(scratch_directory);

    snprintf(deep, sizeof deep, "%s/", scratch_directory);
    memset(deep + len + 1, 'd', sizeof deep - len - 2);
    CHECK(mkdir(deep, 0700) == 0);
    CHECK(chdir(deep) == 0);
    return deep;
}

static void check_told(int code, const char *path)
{
    CHECK_INT(code, QNET_ERR_UNSUPPORTED);
    CHECK(strstr(qnet_last_error(), path) != NULL);
    CHECK(strstr(qnet_last_error(), "107") != NULL);
}

/* A socket's absolute path may be too long for QEMU, however short the name it was made with. */
static void too_long_for_qemu(void)
{
    char near[TEXT], far[TEXT], text[TEXT];
    const char *deep = enter_deep_directory();
    qnet_listener *listener = listen_at("unix", "s.sock");
    qnet_conn *conn = dgram_at("unixgram", "near", "/far");

    snprintf(near, sizeof near, "%s/s.sock", deep);
    check_told(qnet_listener_netdev(listener, "n", 702, text, sizeof text), near);
    close_listener(listener);
    snprintf(near, sizeof near, "%s/near", deep);
    check_told(qnet_netdev(conn, "n", 702, text, sizeof text), near);
    close_conn(conn);
    conn = dgram_at("unixgram", scratch_path("near"), "far");
    snprintf(far, sizeof far, "%s/far", deep);
    check_told(qnet_netdev(conn, "n", 1100, text, sizeof text), far);
    close_conn(conn);
    CHECK_INT(qnet_listener_from_fd(raw_unix_listen("adopted"), &listener), QNET_OK);
    snprintf(near, sizeof near, "%s/adopted", deep);
    check_told(qnet_listener_netdev(listener, "n", 702, text, sizeof text), near);
    close_listener(listener);
    CHECK(unlink("adopted") == 0);
    CHECK(chdir("/") == 0);
    CHECK(rmdir(deep) == 0);
}

/* QEMU takes the longest path that a socket may have. */
static void longest_for_qemu(void)
{
    char path[108], text[TEXT];
    size_t len = strlen(scratch_directory);
    qnet_listener *listener;

    snprintf(path, sizeof path, "%s/", scratch_directory);
    memset(path + len + 1, 'x', sizeof path - len - 2);
    path[107] = '\0';
    listener = listen_at("unix", path);
    CHECK(qnet_listener_netdev(listener, "n", 702, text, sizeof text) > 0);
    CHECK(strstr(text, path) != NULL);
    close_listener(listener);
}

/* An adopted socket may have a name with a NUL inside, which no text can express. */
static void name_with_a_nul(void)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    qnet_listener *listener;

    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, "\0a\0b", 4);
    CHECK(bind(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 4) == 0);
    CHECK(listen(fd, 1) == 0);
    CHECK_INT(qnet_listener_from_fd(fd, &listener), QNET_OK);
    check_code(listener, 702, QNET_ERR_UNSUPPORTED);
    close_listener(listener);
}

/*
 * A relative path stands for the directory in which the socket was made, even
 * if the program has left that since.
 */
static void unixgram_elsewhere_since(void)
{
    char want[TEXT];
    qnet_conn *conn;

    CHECK(chdir(scratch_directory) == 0);
    conn = dgram_at("unixgram", "near", "/far");
    CHECK(chdir("/") == 0);
    snprintf(want, sizeof want,
             "dgram,id=n0,local.type=unix,local.path=/far,remote.type=unix,remote.path=%s/near",
             scratch_directory);
    check_conn_text(conn, 702, want, "");
    close_conn(conn);
}

static void without_a_netdev(void)
{
    qnet_conn *conn = dgram_at("unixgram", scratch_abstract("near"), scratch_abstract("far"));
    qnet_conn *other;
    int pair[2];

    check_every_version(conn, NULL, NULL, NULL);
    close_conn(conn);
    conn = dgram_at("unixgram", scratch_path("near"), scratch_abstract("far"));
    check_conn_code(conn, 702, QNET_ERR_UNSUPPORTED);
    close_conn(conn);
    CHECK_INT(qnet_socketpair(&conn, &other), QNET_OK);
    check_every_version(conn, NULL, NULL, NULL);
    close_conn(conn);
    close_conn(other);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK_INT(qnet_from_fd(pair[0], &conn), QNET_OK);
    check_every_version(conn, NULL, NULL, NULL);
    close_conn(conn);
    close(pair[1]);
}

/* A TCP connection has addresses, but no datagrams that a netdev could exchange. */
static void streams_have_no_dgram_netdev(void)
{
    qnet_listener *listener = listen_at("tcp", "127.0.0.1:0");
    char address[TEXT];
    qnet_conn *conn;

    CHECK(qnet_listener_addr(listener, address, sizeof address) > 0);
    CHECK_INT(qnet_dial("tcp", address, &conn), QNET_OK);
    check_every_version(conn, NULL, NULL, NULL);
    close_conn(conn);
    close_listener(listener);
}

static void bad_arguments_of_datagrams(void)
{
    static const char *const ids[] = { "", "0", "-n", "n,x", "n=x", "n x", "n\xc3\xa4" };
    qnet_conn *conn = dgram_at("udp4", "127.0.0.1:0", "127.0.0.1:9");
    qnet_listener *listener = listen_at("tcp", "127.0.0.1:0");
    char text[TEXT], cut[6];
    int len;
    size_t i;

    for (i = 0; i < sizeof ids / sizeof *ids; i++)
        CHECK_INT(qnet_netdev(conn, ids[i], 702, text, sizeof text), QNET_ERR_INVALID);
    CHECK_INT(qnet_netdev(conn, NULL, 702, text, sizeof text), QNET_ERR_INVALID);
    CHECK_INT(qnet_netdev(conn, "n0", 702, NULL, 1), QNET_ERR_INVALID);
    CHECK_INT(qnet_netdev(NULL, NULL, 0, NULL, 1), QNET_ERR_HANDLE);
    CHECK_INT(qnet_netdev((qnet_conn *)listener, "n0", 702, text, sizeof text), QNET_ERR_HANDLE);
    check_conn_code(conn, 0, QNET_ERR_INVALID);
    check_conn_code(conn, -702, QNET_ERR_INVALID);
    check_conn_code(conn, 7, QNET_ERR_INVALID);
    check_conn_code(conn, 401, QNET_ERR_UNSUPPORTED);
    len = qnet_netdev(conn, "N-0._x", 702, text, sizeof text);
    CHECK_INT(qnet_netdev(conn, "N-0._x", 702, NULL, 0), len);
    memset(cut, 'x', sizeof cut);
    CHECK_INT(qnet_netdev(conn, "N-0._x", 702, cut, 5), len);
    CHECK(memcmp(cut, "dgra\0x", 6) == 0);
    close_listener(listener);
    close_conn(conn);
    CHECK_INT(qnet_netdev(conn, "n0", 702, text, sizeof text), QNET_ERR_HANDLE);
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
    RUN(udp);
    RUN(udp_v6);
    RUN(udp_adopted);
    RUN(multicast);
    RUN(unixgram);
    RUN(from_whoever_sends);
    RUN(from_whoever_sends_to_a_path);
    RUN(unixgram_relative_paths);
    RUN(unixgram_elsewhere_since);
    RUN(too_long_for_qemu);
    RUN(longest_for_qemu);
    RUN(name_with_a_nul);
    RUN(without_a_netdev);
    RUN(streams_have_no_dgram_netdev);
    RUN(bad_arguments_of_datagrams);
    scratch_remove();
    return check_done();
}
