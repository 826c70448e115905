/*
 * options.h - the options that link, switch and tap_bridge share: the mode of their socket files,
 * and what impairs the frames from and to each peer.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "qnet.h"

#define OPTIONS_USAGE                                                                               \
    "An option holds for the ADDRESSes behind it. Socket files have mode 0600, which admits the\n"  \
    "same user only, unless --mode gives another, such as 0660. Frames from each peer go through\n" \
    "the impairment --in, and frames to each peer through --out; '' is none. A TEXT is as in\n"     \
    "`tc netem`; qnet_impair() in qnet.h has all its words:\n\n"                                    \
    "    --in 'rate 2mbit delay 20ms' --out 'rate 20mbit delay 20ms 2ms loss 0.1%'\n\n"             \
    "--seed N makes all that is random in them the same each time: a TEXT without a seed gets\n"    \
    "`seed N`.\n"

struct options {
    int mode;                       /* of socket files */
    const char *in, *out;           /* what frames from and to each peer go through; NULL: nothing */
    const char *seed;               /* for those of the two that have none; NULL: any */
};

static const struct options default_options = {0600, NULL, NULL, NULL};

/* Defined by each program: prints what is wrong. Returns the exit status. */
static int complain(const char *what, int status);

/* The reason for a failure, in full if there is such a text. */
static inline const char *why(int code)
{
    return code == QNET_ERR_TIMEOUT || code == QNET_ERR_INTERRUPTED ? qnet_strerror(code)
                                                                    : qnet_last_error();
}

/* Prints what is wrong with an argument. Returns the exit status. */
static inline int complain_of(const char *argument, const char *what, int status)
{
    char line[400];

    snprintf(line, sizeof line, "%.200s: %s", argument, what);
    return complain(line, status);
}

static inline int failed(int code)
{
    return complain(why(code), code == QNET_ERR_INVALID ? 2 : 1);
}

/* Reads the mode of socket files, as chmod does. Returns 0, or the exit status. */
static inline int parse_mode(const char *text, int *mode)
{
    char *end;
    long value = strtol(text, &end, 8);

    if (end == text || *end != '\0' || value < 0 || value > 0777)
        return complain_of(text, "a mode is octal, as in 0660", 2);
    *mode = (int)value;
    return 0;
}

/* Reads an option and its argument, and steps over both. Returns 0, or the exit status. */
static inline int parse_option(char ***arguments, struct options *out)
{
    const char *name = **arguments, *argument = (*arguments)[1];

    if (strcmp(name, "--mode") != 0 && strcmp(name, "--in") != 0 && strcmp(name, "--out") != 0 &&
        strcmp(name, "--seed") != 0)
        return complain_of(name, "no such option (see --help)", 2);
    if (argument == NULL)
        return complain_of(name, "an argument has to follow (see --help)", 2);
    *arguments += 2;
    if (strcmp(name, "--mode") == 0)
        return parse_mode(argument, &out->mode);
    if (strcmp(name, "--in") == 0)
        out->in = argument;
    else if (strcmp(name, "--out") == 0)
        out->out = argument;
    else
        out->seed = argument;
    return 0;
}

/* Whether a text has the word `seed`, in any case. (A trace of that name is written ./seed.) */
static inline int has_seed(const char *text)
{
    static const char blanks[] = " \t\n\f\r";

    for (text += strspn(text, blanks); *text != '\0'; text += strspn(text, blanks)) {
        size_t len = strcspn(text, blanks);

        if (len == 4 && strncasecmp(text, "seed", 4) == 0)
            return 1;
        text += len;
    }
    return 0;
}

/* Has one direction of a connection go through a text, or of all that a listener will accept. */
static inline int impair_one(qnet_conn *conn, qnet_listener *listener, int direction,
                             const char *text, const char *seed)
{
    size_t size = strlen(text) + (seed ? strlen(seed) : 0) + sizeof "  seed ";
    char *whole = malloc(size);
    int status, code;

    if (whole == NULL)
        return complain("no memory", 1);
    /* At the end, so that errors say where they are in the text as it was given. */
    if (seed != NULL && text[0] != '\0' && !has_seed(text))
        snprintf(whole, size, "%s seed %s", text, seed);
    else
        snprintf(whole, size, "%s", text);
    code = listener ? qnet_listener_impair(listener, direction, whole)
                    : qnet_impair(conn, direction, whole);
    status = code == QNET_OK ? 0 : failed(code);
    free(whole);
    return status;
}

/*
 * Impairs a connection, or those that a listener will accept, before a frame of theirs is read.
 * Returns 0, or the exit status.
 */
static inline int impair(qnet_conn *conn, qnet_listener *listener, const struct options *how)
{
    int status = 0;

    if (how->in != NULL)
        status = impair_one(conn, listener, QNET_IN, how->in, how->seed);
    if (how->out != NULL && status == 0)
        status = impair_one(conn, listener, QNET_OUT, how->out, how->seed);
    return status;
}

#endif
