/*
 * address.h - parses an address given as one argument, and opens connections and listeners there.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "options.h"
#include "qnet.h"

#define ADDRESS_USAGE                                                                               \
    "An ADDRESS is unix:PATH, unixpacket:PATH or tcp:HOST:PORT; for port 0 the system chooses a\n"  \
    "port, which is printed. For datagrams with one frame each, received at LOCAL and sent to\n"    \
    "REMOTE, it is unixgram:LOCAL,REMOTE or udp:LOCAL,REMOTE. Without REMOTE, datagrams are sent\n" \
    "to the latest sender.\n"

enum how { LISTEN, DIAL, DATAGRAMS };

struct address {
    const char *argument; /* the whole argument */
    enum how how;
    char network[12];
    char local[256];    /* the local address of datagrams; otherwise the only address */
    const char *remote; /* of datagrams; NULL for the latest sender */
};

/* Copies what is before a character. Returns what is behind it, or NULL if there is no such
 * character or there is too much before it. */
static inline const char *copy_until(const char *text, char end, char *out, size_t cap)
{
    const char *found = strchr(text, end);
    size_t len = found ? (size_t)(found - text) : cap;

    if (len >= cap)
        return NULL;
    memcpy(out, text, len);
    out[len] = '\0';
    return found + 1;
}

/* Reads [listen=|dial=]ADDRESS; without either it is opened as `how`. Returns 0, or the exit status. */
static inline int parse_address(const char *argument, enum how how, struct address *out)
{
    const char *rest = argument;

    if (strncmp(argument, "listen=", 7) == 0) {
        how = LISTEN;
        rest += 7;
    } else if (strncmp(argument, "dial=", 5) == 0) {
        how = DIAL;
        rest += 5;
    }
    out->argument = argument;
    out->how = how;
    out->remote = NULL;
    rest = copy_until(rest, ':', out->network, sizeof out->network);
    if (rest == NULL)
        return complain_of(argument, "an address is NETWORK:WHERE, as in unix:PATH (see --help)", 2);
    if (strcmp(out->network, "unixgram") == 0 || strcmp(out->network, "udp") == 0) {
        if (argument[0] != 'u')
            return complain_of(argument, "listen= and dial= do not apply to datagrams", 2);
        out->how = DATAGRAMS;
        out->remote = copy_until(rest, ',', out->local, sizeof out->local);
        if (out->remote != NULL)
            return 0;
    }
    if ((size_t)snprintf(out->local, sizeof out->local, "%s", rest) >= sizeof out->local)
        return complain_of(argument, "too long", 2);
    return 0;
}

/* Listens. Returns 0, or the exit status. */
static inline int open_listener(const struct address *address, const struct options *how,
                            qnet_listener **out)
{
    int status, code = qnet_listen(address->network, address->local, out);

    if (code != QNET_OK)
        return failed(code);
    status = impair(NULL, *out, how);
    if (status != 0)
        return status;
    if (strncmp(address->network, "unix", 4) == 0 && address->local[0] != '@')
        code = qnet_listener_set(*out, QNET_OPT_UNIX_MODE, how->mode);
    return code == QNET_OK ? 0 : failed(code);
}

/* Listens, and prints where. Returns 0, or the exit status. */
static inline int listen_at(const struct address *address, const struct options *how,
                            qnet_listener **out)
{
    char where[256]; /* with the port that the system chose, if the port was 0 */
    int status = open_listener(address, how, out);

    if (status != 0)
        return status;
    if (qnet_listener_addr(*out, where, sizeof where) < 0)
        return failed(QNET_ERR_OS);
    if (printf("listening at %s:%s\n", address->network, where) < 0 || fflush(stdout) != 0)
        return complain("cannot write to standard output", 1);
    return 0;
}

/* Opens a datagram connection. Returns 0, or the exit status. */
static inline int open_datagrams(const struct address *address, const struct options *how,
                                 qnet_conn **out)
{
    int code = qnet_dgram(address->network, address->local, address->remote, out);

    if (code == QNET_OK && address->remote == NULL)
        code = qnet_set(*out, QNET_OPT_RELEARN, 1);
    if (code != QNET_OK)
        return failed(code);
    if (strcmp(address->network, "unixgram") == 0 && address->local[0] != '@' &&
        chmod(address->local, (mode_t)how->mode) != 0)
        return complain_of(address->local, "cannot change the mode of that file", 1);
    return impair(*out, NULL, how);
}

/* Dials, once. Returns 0, or the exit status. */
static inline int dial(const struct address *address, const struct options *how, qnet_conn **out)
{
    int code = qnet_dial(address->network, address->local, out);

    return code == QNET_OK ? impair(*out, NULL, how) : failed(code);
}

/* Called when a connection of dial_again() has gone down, and when it is up again. */
static void on_state(void *argument, int up)
{
    (void)complain_of(argument, up ? "up" : "down", 0);
}

/* Dials, and dials again whenever the peer is gone. Returns 0, or the exit status. */
static inline int dial_again(const struct address *address, const struct options *how,
                             qnet_conn **out)
{
    static const int64_t options[] = {
        QNET_OPT_DIAL_TIMEOUT_MS, 3000, /* for each attempt */
        QNET_OPT_RECONNECT_MS, 1000,    /* between attempts */
    };
    int code = qnet_dial_with(address->network, address->local, options, 1, out);

    if (code == QNET_OK) {
        code = qnet_set(*out, options[2], options[3]);
    } else if (code != QNET_ERR_INVALID && code != QNET_ERR_INTERRUPTED) {
        (void)complain(why(code), 1); /* this once with the reason; later only on_state() reports */
        code = qnet_dial_with(address->network, address->local, options, 2, out);
    }
    if (code == QNET_OK)
        code = qnet_set_state_handler(*out, on_state, (void *)address->argument);
    return code == QNET_OK ? impair(*out, NULL, how) : failed(code);
}

#endif
