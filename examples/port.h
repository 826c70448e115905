/*
 * port.h - what can be set for a switch and for each of its ports, in words: isolated, storm=100.
 */
#ifndef PORT_H
#define PORT_H

#include <ctype.h>
#include <errno.h>

#include "options.h"
#include "qnet.h"

#define PORT_USAGE                                                                                  \
    "Words behind an ADDRESS are for it alone: each of its peers is a port of the switch with\n\n"  \
    "    name=NAME      what it is called; further peers there are NAME-2, NAME-3, ...\n" PORT_WORDS

#define PORT_WORDS                                                                                  \
    "    vlan=TEXT      its VLANs: 'access 10', 'trunk 10,20-29 native 1', 'tunnel 100'\n"          \
    "    in=TEXT        as --in, and out=TEXT as --out; mode=MODE as --mode\n"                      \
    "    isolated       exchanges nothing with other isolated ports\n"                              \
    "    flood=N        what is flooded to it, a sum: 1 unknown, 2 multicast, 4 broadcast (7)\n"    \
    "    macs=N         at most so many addresses are learned there (0: no limit)\n"                \
    "    secure         frames from further addresses are refused, and those known do not move\n"   \
    "    storm=N        so many of its frames may be flooded each second (0: no limit)\n"           \
    "    mirror         gets copies of what other ports send and get, and nothing else\n"           \
    "    mirrored=N     what of it is copied: 1 what it sends, 2 what it gets, 3, 0 (1)\n"          \
    "    link=0         its cable is pulled\n"

#define SWITCH_USAGE                                                                                \
    "    move N         an address stays at a port for N ms after its last frame (0); with 200, a\n" \
    "                   loop of cables carries nothing\n"                                           \
    "    age N          it is forgotten after N seconds (300)\n"                                    \
    "    table N        so many addresses are remembered (8192; with 0 all is flooded)\n"           \
    "    queue N        so many bytes wait for each port (1048576)\n"                               \
    "    groups MASK    which of the groups 01-80-C2-00-00-0n pass: bit n (0xffff)\n"

enum { NUMBER = -1, WORDS = 8 }; /* WORDS: how many a list has at most */

/* A word that sets an option to a number, or, if it stands alone, to a value of its own. */
struct word {
    const char *word;
    int option;
    int64_t usual; /* without the word */
    int64_t alone; /* with the word, where that stands alone; NUMBER where a number follows */
};

static const struct word port_words[] = {
    {"isolated", QNET_OPT_ISOLATED, 0, 1},       {"flood", QNET_OPT_FLOOD, 7, NUMBER},
    {"macs", QNET_OPT_MAC_LIMIT, 0, NUMBER},      {"secure", QNET_OPT_SECURE, 0, 1},
    {"storm", QNET_OPT_STORM_FPS, 0, NUMBER},     {"mirror", QNET_OPT_MIRROR, 0, 1},
    {"mirrored", QNET_OPT_MIRRORED, 1, NUMBER},   {"link", QNET_OPT_LINK, 1, NUMBER},
    {NULL, 0, 0, 0},
};

static const struct word switch_words[] = {
    {"move", QNET_OPT_MOVE_MS, 0, NUMBER},        {"age", QNET_OPT_MAC_AGE_S, 300, NUMBER},
    {"table", QNET_OPT_MAC_MAX, 8192, NUMBER},    {"queue", QNET_OPT_QUEUE_BYTES, 1048576, NUMBER},
    {"groups", QNET_OPT_GROUP_FWD_MASK, 65535, NUMBER},
    {NULL, 0, 0, 0},
};

/* What is set for a port. The texts are the program's arguments, or in a file that it has read. */
struct port {
    const char *name; /* NULL: none */
    const char *vlan; /* NULL: transparent */
    struct options how;
    int64_t values[WORDS]; /* of port_words */
};

/* Sets the values to what they are without any word. */
static inline void set_usual(const struct word *words, int64_t *values)
{
    size_t i;

    for (i = 0; words[i].word != NULL; i++)
        values[i] = words[i].usual;
}

/* Which of the words this is, or -1. */
static inline int find_word(const struct word *words, const char *word)
{
    int i;

    for (i = 0; words[i].word != NULL; i++)
        if (strcmp(words[i].word, word) == 0)
            return i;
    return -1;
}

/* Prints what is wrong with a word. Returns the exit status. */
static inline int complain_of_word(const char *word, const char *what)
{
    char line[400];

    snprintf(line, sizeof line, "\"%.200s\": %s", word, what);
    return complain(line, 2);
}

/* Reads a number, decimal or behind 0x. What it may be is the library's to say. */
static inline int parse_number(const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0)
        return complain_of_word(text, "a number was expected");
    return 0;
}

/* Whether a value has to follow a word: 0 or 1; or -1 if there is no such word for ports. */
static inline int takes_value(const char *word)
{
    static const char *const texts[] = {"vlan", "in", "out", "mode"};
    size_t i;
    int found = find_word(port_words, word);

    for (i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(word, texts[i]) == 0)
            return 1;
    return found < 0 ? -1 : port_words[found].alone == NUMBER;
}

/* Notes what a word says, and the value, if it takes one. Returns 0, or the exit status. */
static inline int parse_port_word(const char *word, const char *value, struct port *out)
{
    int found = find_word(port_words, word);

    if (strcmp(word, "mode") == 0)
        return parse_mode(value, &out->how.mode);
    if (strcmp(word, "vlan") == 0)
        out->vlan = value;
    else if (strcmp(word, "in") == 0)
        out->how.in = value;
    else if (strcmp(word, "out") == 0)
        out->how.out = value;
    else if (port_words[found].alone == NUMBER)
        return parse_number(value, &out->values[found]);
    else
        out->values[found] = port_words[found].alone;
    return 0;
}

/* Whether two texts differ, where NULL is none. */
static inline int differ(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

/*
 * Sets for a connection, or for those that a listener will accept, what differs from `before`: what
 * is said again may have an effect, since a VLAN forgets addresses and a seed begins anew. Returns 0,
 * or the exit status.
 */
static inline int set_port(qnet_conn *conn, qnet_listener *listener, const struct port *before,
                           const struct port *now)
{
    int i, code = QNET_OK;
    struct options how = {now->how.mode, NULL, NULL, now->how.seed};

    for (i = 0; port_words[i].word != NULL && code == QNET_OK; i++)
        if (now->values[i] != before->values[i])
            code = listener ? qnet_listener_set(listener, port_words[i].option, now->values[i])
                            : qnet_set(conn, port_words[i].option, now->values[i]);
    if (code == QNET_OK && differ(now->vlan, before->vlan))
        code = listener ? qnet_listener_set_vlan(listener, now->vlan)
                        : qnet_set_vlan(conn, now->vlan);
    if (code != QNET_OK)
        return failed(code);
    if (differ(now->how.in, before->how.in))
        how.in = now->how.in ? now->how.in : "";
    if (differ(now->how.out, before->how.out))
        how.out = now->how.out ? now->how.out : "";
    return impair(conn, listener, &how);
}

/*
 * How surely a connection was accepted from a listener: 2 if its own address is the listener's; 1 if
 * only the TCP port is, as where the listener is at every address of the host.
 */
static inline int came_by(qnet_conn *conn, qnet_listener *listener)
{
    char here[300], there[300];
    const char *port, *other;

    if (qnet_local_addr(conn, here, sizeof here) <= 0 ||
        qnet_listener_addr(listener, there, sizeof there) <= 0)
        return 0;
    if (strcmp(here, there) == 0)
        return 2;
    port = strrchr(here, ':');
    other = strrchr(there, ':');
    return port != NULL && other != NULL && here[0] != '/' && strcmp(port, other) == 0;
}

#endif
