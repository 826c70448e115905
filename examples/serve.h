/*
 * serve.h - attaches a hub to the addresses in a program's arguments.
 */
#ifndef SERVE_H
#define SERVE_H

#include "address.h"
#include "port.h"

/* An address, and what is set for its peers. */
struct entrance {
    struct address address; /* its argument is NULL if this is none */
    struct port port;
    qnet_listener *listener; /* the hub's, which closes it */
    qnet_conn *conn;         /* where there is no listener: to be closed after the hub */
};

/*
 * Has a hub serve those who connect to an address; or dials it or opens a datagram connection, and
 * attaches that. Returns 0, or the exit status.
 */
static inline int join(qnet_hub *hub, struct entrance *at)
{
    struct port usual = {NULL, NULL, at->port.how, {0}}; /* listening and dialling impair already */
    int status;

    set_usual(port_words, usual.values);
    if (at->address.how == LISTEN)
        status = listen_at(&at->address, &at->port.how, &at->listener);
    else if (at->address.how == DIAL)
        status = dial_again(&at->address, &at->port.how, &at->conn);
    else
        status = open_datagrams(&at->address, &at->port.how, &at->conn);
    if (status == 0)
        status = set_port(at->conn, at->listener, &usual, &at->port);
    if (status == 0 && (at->listener ? qnet_hub_serve(hub, at->listener)
                                     : qnet_hub_attach(hub, at->conn)) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    if (status != 0) {
        (void)qnet_listener_close(at->listener); /* does nothing if it is NULL */
        at->listener = NULL;
    }
    return status;
}

/* Reads a word that may stand behind an address, and steps over it. Returns 0, or the exit status;
 * or -1 if it is none. */
static inline int parse_word(char ***arguments, struct port *out)
{
    const char *argument = **arguments, *value = strchr(argument, '=');
    char word[16];
    size_t len = value ? (size_t)(value - argument) : strlen(argument);
    int takes;

    if (len >= sizeof word)
        return -1;
    memcpy(word, argument, len);
    word[len] = '\0';
    if (value != NULL && strcmp(word, "name") == 0) {
        out->name = value + 1;
        ++*arguments;
        return 0;
    }
    takes = takes_value(word);
    if (takes < 0)
        return -1;
    if (takes != (value != NULL))
        return complain_of_word(argument, takes ? "= and a value have to follow (see --help)"
                                                : "stands alone (see --help)");
    ++*arguments;
    return parse_port_word(word, value ? value + 1 : NULL, out);
}

/* Reads an address and the words behind it, and steps over them. Returns 0, or the exit status. */
static inline int parse_entrance(char ***arguments, const struct options *how, struct entrance *out)
{
    int status = parse_address(*(*arguments)++, LISTEN, &out->address);

    out->port.how = *how;
    set_usual(port_words, out->port.values);
    while (status == 0 && **arguments != NULL)
        status = parse_word(arguments, &out->port);
    return status < 0 ? 0 : status;
}

/*
 * Attaches a hub to addresses; each may be preceded by options. The caller closes the connections in
 * out[], after the hub. Returns 0, or the exit status.
 */
static inline int join_all(qnet_hub *hub, char **arguments, struct entrance *out)
{
    struct options how = default_options;
    int addresses = 0, status = 0;

    while (status == 0 && *arguments != NULL) {
        if (strncmp(*arguments, "--", 2) == 0) {
            status = parse_option(&arguments, &how);
            continue;
        }
        status = parse_entrance(&arguments, &how, &out[addresses]);
        if (status == 0)
            status = join(hub, &out[addresses++]);
    }
    if (status == 0 && addresses == 0)
        return complain("no ADDRESS (see --help)", 2);
    return status;
}

#endif
