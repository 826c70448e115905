/*
 * labopen.h - opens the things of a laboratory, closes them, and sets what has changed in its file.
 */
#ifndef LABOPEN_H
#define LABOPEN_H

#include "labfile.h"

enum { QEMU_VERSION = 702 }; /* for which arguments are printed; later ones take them too */

/* Defined by the program: the port handler of every switch, whose `user` is the hub. */
static void on_port(void *hub, qnet_conn *conn, int attached);

/* Prints how a QEMU joins at an address. Returns 0, or the exit status. */
static inline int print_netdev(const struct entrance *at, const char *label, const char *id)
{
    char argument[400];
    int code = at->listener ? qnet_listener_netdev(at->listener, id, QEMU_VERSION, argument, 400)
                            : qnet_netdev(at->conn, id, QEMU_VERSION, argument, 400);

    if (code == QNET_ERR_INVALID)
        return refuse(id, NULL);
    if (code >= 0 ? printf("%s: -netdev %s\n", label, argument) < 0
                  : printf("%s: %s\n", label, at->address.argument) < 0) /* of no QEMU's kind */
        return complain("cannot write to standard output", 1);
    return 0;
}

/* Listens, dials, or opens datagrams. Returns 0, or the exit status. */
static inline int open_end(struct entrance *at, const char *label, const char *id)
{
    struct options how = default_options; /* what is impaired is each connection */
    int status;

    how.mode = at->port.how.mode;
    if (at->address.how == LISTEN)
        status = open_listener(&at->address, &how, &at->listener);
    else if (at->address.how == DIAL)
        status = dial_again(&at->address, &how, &at->conn);
    else
        status = open_datagrams(&at->address, &how, &at->conn);
    if (status == 0 && at->conn != NULL)
        status = set_port(at->conn, NULL, &probe.usual, &at->port);
    return status == 0 ? print_netdev(at, label, id) : status;
}

/* Closes the ends of a port or a cable. */
static inline void close_ends(struct thing *thing)
{
    int i;

    for (i = 0; i < 2; i++) {
        (void)qnet_listener_close(thing->ends[i].listener); /* these do nothing with NULL */
        (void)qnet_close(thing->ends[i].conn);
        thing->ends[i].listener = NULL;
        thing->ends[i].conn = NULL;
    }
}

static inline int open_port(struct thing *port)
{
    struct entrance *at = &port->ends[0];
    qnet_hub *hub = port->at->hub;
    int status = open_end(at, port->words[2], port->words[2]);

    if (status == 0 && (at->listener ? qnet_hub_serve(hub, at->listener)
                                     : qnet_hub_attach(hub, at->conn)) != QNET_OK)
        status = complain(qnet_last_error(), 1);
    return status;
}

static inline int open_cable(struct thing *cable)
{
    int i, status = 0;

    for (i = 0; i < 2 && status == 0; i++) {
        status = open_end(&cable->ends[i], cable->words[1 + i], "n0");
        if (status == 0 && cable->ends[i].conn != NULL &&
            qnet_set(cable->ends[i].conn, QNET_OPT_OUTLIVE, 1) != QNET_OK)
            status = complain(qnet_last_error(), 1);
    }
    return status;
}

static inline int open_capture(struct thing *capture)
{
    int64_t options[2 * WORDS];
    size_t pairs;

    for (pairs = 0; capture_words[pairs].word != NULL; pairs++) {
        options[2 * pairs] = capture_words[pairs].option;
        options[2 * pairs + 1] = capture->values[pairs];
    }
    if (qnet_capture_open(capture->words[2], options, pairs, &capture->capture) != QNET_OK ||
        qnet_capture_add_hub(capture->capture, capture->at->hub, capture->words[1]) != QNET_OK)
        return complain(qnet_last_error(), 1);
    return 0;
}

/* Sets what a switch is told, where that differs. Returns 0, or the exit status. */
static inline int set_hub(struct thing *thing, const int64_t *before)
{
    size_t i;

    for (i = 0; switch_words[i].word != NULL; i++)
        if (thing->values[i] != before[i] &&
            qnet_hub_set(thing->hub, switch_words[i].option, thing->values[i]) != QNET_OK)
            return complain(qnet_last_error(), 1);
    return 0;
}

static inline int open_switch(struct thing *thing)
{
    int64_t usual[WORDS];

    set_usual(switch_words, usual);
    if (qnet_hub_new(&thing->hub) != QNET_OK ||
        qnet_hub_set_port_handler(thing->hub, on_port, thing->hub) != QNET_OK)
        return complain(qnet_last_error(), 1);
    return set_hub(thing, usual);
}

/* Opens what is not open. Returns 0, or the exit status; the thing is then closed again, and is tried
 * once more when the file is read again. */
static inline int open_thing(struct thing *thing)
{
    int status = 0;

    line = thing->line;
    if (thing->kind == SWITCH && thing->hub == NULL) {
        status = open_switch(thing);
    } else if (thing->kind == CAPTURE && thing->capture == NULL) {
        status = open_capture(thing);
        if (status != 0) {
            (void)qnet_capture_close(thing->capture);
            thing->capture = NULL;
        }
    } else if (thing->ends[0].listener == NULL && thing->ends[0].conn == NULL) {
        if (thing->kind == PORT)
            status = open_port(thing);
        else if (thing->kind == CABLE)
            status = open_cable(thing);
        if (status != 0)
            close_ends(thing);
    }
    line = 0;
    return status;
}

/* Takes over what there is of a thing, and sets what is to be otherwise. */
static inline void take_over(struct thing *thing, struct thing *before)
{
    const struct port *was = &before->ends[0].port, *now = &thing->ends[0].port;
    qnet_conn *conn = before->ends[0].conn;
    size_t i;

    for (i = 0; i < 2; i++) {
        thing->ends[i].listener = before->ends[i].listener;
        thing->ends[i].conn = before->ends[i].conn;
        before->ends[i].listener = NULL;
        before->ends[i].conn = NULL;
    }
    thing->hub = before->hub;
    thing->capture = before->capture;
    thing->peers = before->peers;
    thing->peer_count = before->peer_count;
    before->hub = NULL;
    before->capture = NULL;
    before->peers = NULL;
    before->peer_count = 0;
    line = thing->line;
    if (thing->kind == SWITCH)
        (void)set_hub(thing, before->values);
    if (now->how.mode != was->how.mode && thing->ends[0].listener != NULL &&
        qnet_listener_set(thing->ends[0].listener, QNET_OPT_UNIX_MODE, now->how.mode) != QNET_OK)
        (void)complain(qnet_last_error(), 1);
    for (i = 0; i < thing->peer_count; i++)
        if (qnet_close_reason(thing->peers[i]) == QNET_OK)
            (void)set_port(thing->peers[i], NULL, was, now);
    if (conn != NULL && qnet_close_reason(conn) == QNET_OK)
        (void)set_port(conn, NULL, was, now);
    line = 0;
}

/* Closes and frees things, which on_port() no longer finds. The lock is not held: a hub waits for it. */
static inline void close_all(struct thing *gone)
{
    while (gone != NULL) {
        struct thing *next = gone->next;
        size_t i;

        for (i = 0; i < gone->peer_count; i++)
            (void)qnet_close(gone->peers[i]); /* refused if it has left */
        close_ends(gone);
        (void)qnet_capture_close(gone->capture); /* these do nothing with NULL */
        (void)qnet_hub_close(gone->hub);
        free(gone->peers);
        free(gone->text);
        free(gone);
        gone = next;
    }
}

#endif
