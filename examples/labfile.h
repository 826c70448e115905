/*
 * labfile.h - reads the file of a laboratory, one thing a line, as lab --help describes it.
 */
#ifndef LABFILE_H
#define LABFILE_H

#include "serve.h"

enum kind { SWITCH, PORT, CABLE, CAPTURE };
enum { MOST_WORDS = 64 }; /* in a line */

static const struct word capture_words[] = {
    {"snap", QNET_OPT_SNAPLEN, 0, NUMBER},     {"buffer", QNET_OPT_CAPTURE_BYTES, 4194304, NUMBER},
    {"bytes", QNET_OPT_FILE_BYTES, 0, NUMBER}, {"files", QNET_OPT_FILES, 0, NUMBER},
    {NULL, 0, 0, 0},
};

/* What there is of each kind. */
static const struct {
    const char *line; /* as it begins in the file */
    int own;          /* which word is of no other thing of that kind */
    int names;        /* while as many words are the same, it is the same thing */
} kinds[] = {
    {"switch NAME", 1, 2},
    {"port SWITCH NAME ADDRESS", 2, 4},
    {"cable ADDRESS ADDRESS", 1, 3},
    {"capture SWITCH FILE", 2, MOST_WORDS},
};

/* A line of the file, and what there is of it once it is open. */
struct thing {
    struct thing *next;
    enum kind kind;
    int line;
    char *text;                  /* all words, which others here point to */
    char *words[MOST_WORDS + 1]; /* NULL behind the last */
    struct thing *at;            /* the switch of a port or a capture */
    int64_t values[WORDS];       /* of a switch or a capture */
    struct entrance ends[2];     /* of a cable; a port has the first */
    qnet_hub *hub;
    qnet_capture *capture;
    qnet_conn **peers; /* who has come to a port */
    size_t peer_count;
};

/* What nothing is connected to: what is set there tells whether it can be set. */
static struct probe {
    qnet_conn *conn, *peer;
    qnet_hub *hub;
    struct port usual; /* what a connection starts with */
} probe;

static int line; /* the one that complain() is to name, or 0 */

/* Splits a line into words. Returns 0, or the exit status. */
static inline int split(char *text, char **words)
{
    static const char blanks[] = " \t\r\n";
    char *out = text;
    int count;

    for (count = 0;; count++) {
        int quoted = 0;

        text += strspn(text, blanks);
        words[count] = NULL;
        if (*text == '\0' || *text == '#')
            return 0;
        if (count == MOST_WORDS)
            return complain_of_word(text, "too many words");
        for (words[count] = out; *text != '\0' && (quoted || !strchr(blanks, *text)); text++)
            if (*text == '"')
                quoted = !quoted;
            else
                *out++ = *text;
        text += *text != '\0'; /* the end of the word may take its place */
        *out++ = '\0';
        if (quoted) {
            words[count][strcspn(words[count], "\n")] = '\0';
            return complain_of_word(words[count], "the closing quote is missing");
        }
    }
}

/* The thing of a kind that has this word there, or NULL. */
static inline struct thing *find(struct thing *things, enum kind kind, int place, const char *word)
{
    while (things != NULL && (things->kind != kind || strcmp(things->words[place], word) != 0))
        things = things->next;
    return things;
}

/* Whether two are the same thing, although other settings of it may differ. */
static inline int is_same(const struct thing *a, const struct thing *b)
{
    int i = 0, names = kinds[a->kind].names;

    while (i < names && a->words[i] && b->words[i] && strcmp(a->words[i], b->words[i]) == 0)
        i++;
    return i == names || (a->words[i] == NULL && b->words[i] == NULL);
}

/* Prints that a value is refused, and the reason that the library gives at the end of its own text. */
static inline int refuse(const char *word, const char *value)
{
    const char *text = qnet_last_error(), *at;
    char both[200];

    while ((at = strstr(text, ": ")) != NULL)
        text = at + 2;
    snprintf(both, sizeof both, "%s%s%s", word, value ? " " : "", value ? value : "");
    return complain_of_word(both, text);
}

/* Reads pairs of a word and a number. Returns 0, or the exit status. */
static inline int parse_numbers(const struct word *list, char *const *words, int64_t *values)
{
    set_usual(list, values);
    for (; words[0] != NULL; words += 2) {
        int found = find_word(list, words[0]), code;
        qnet_capture *none;
        int64_t pair[2];

        if (found < 0)
            return complain_of_word(words[0], "no such word here (see --help)");
        if (words[1] == NULL)
            return complain_of_word(words[0], "a number has to follow");
        if (parse_number(words[1], &values[found]) != 0)
            return 2;
        pair[0] = list[found].option;
        pair[1] = values[found];
        code = list == switch_words ? qnet_hub_set(probe.hub, list[found].option, values[found])
                                    : qnet_capture_open("", pair, 1, &none); /* no such file */
        if (code == QNET_ERR_INVALID)
            return refuse(words[0], words[1]);
    }
    return 0;
}

/* Reads what is set for a port. Returns 0, or the exit status. */
static inline int parse_port(char *const *words, struct port *out)
{
    int status = 0;

    while (words[0] != NULL && status == 0) {
        const char *word = *words++;
        int takes = takes_value(word), found = find_word(port_words, word);

        if (takes < 0)
            return complain_of_word(word, "no such word here (see --help)");
        if (takes && words[0] == NULL)
            return complain_of_word(word, "a value has to follow");
        status = parse_port_word(word, words[0], out);
        if (status == 0 && found >= 0 &&
            qnet_set(probe.conn, port_words[found].option, out->values[found]) != QNET_OK)
            return refuse(word, takes ? words[0] : NULL);
        words += takes;
    }
    return status;
}

/* Reads what is behind the first words of a thing, and tries what it says. Returns 0, or the exit
 * status. */
static inline int parse_rest(struct thing *thing)
{
    char **words = thing->words + kinds[thing->kind].names;
    struct port *port = &thing->ends[0].port;
    int status = 0, i;

    if (thing->kind == SWITCH)
        return parse_numbers(switch_words, words, thing->values);
    if (thing->kind == CAPTURE)
        return parse_numbers(capture_words, thing->words + 3, thing->values);
    if (thing->kind == PORT) {
        status = parse_port(words, port);
    } else if (words[0] != NULL) {
        for (i = 1; words[i] != NULL; i++)
            words[i][-1] = ' '; /* the rest of the line is one text, for both directions */
        words[1] = NULL;
        port->how.in = port->how.out = words[0];
    }
    return status == 0 ? set_port(probe.conn, NULL, &probe.usual, port) : status;
}

/* Reads the words of a line, behind the things of those before. Returns 0, or the exit status. */
static inline int parse_words(struct thing *things, struct thing *out)
{
    char **words = out->words;
    size_t kind = 0;
    int i, count = 0, status = 0;

    while (kind < sizeof kinds / sizeof *kinds &&
           (strncmp(kinds[kind].line, words[0], strlen(words[0])) != 0 ||
            kinds[kind].line[strlen(words[0])] != ' '))
        kind++;
    if (kind == sizeof kinds / sizeof *kinds)
        return complain_of_word(words[0], "expected one of switch, port, cable, capture");
    out->kind = (enum kind)kind;
    while (words[count] != NULL)
        count++;
    if (count < (kind == CAPTURE ? 3 : kinds[kind].names))
        return complain_of_word(words[0], kinds[kind].line);
    if (find(things, out->kind, kinds[kind].own, words[kinds[kind].own]) != NULL)
        return complain_of_word(words[kinds[kind].own], "there is one already");
    out->at = find(things, SWITCH, 1, words[1]);
    if (out->at == NULL && (kind == PORT || kind == CAPTURE))
        return complain_of_word(words[1], "no such switch in the lines before");
    for (i = 0; i < 2 && status == 0 && (kind == CABLE || (kind == PORT && i == 0)); i++) {
        out->ends[i].port = probe.usual;
        status = parse_address(words[kind == PORT ? 3 : 1 + i], LISTEN, &out->ends[i].address);
    }
    return status == 0 ? parse_rest(out) : status;
}

/* Reads a file, into things that the caller frees in any case. Returns 0, or the exit status. */
static inline int parse_file(const char *path, struct thing **out)
{
    FILE *stream = fopen(path, "r");
    struct thing **end = out;
    char *text = NULL;
    size_t size = 0;
    int status = 0;

    if (stream == NULL)
        return complain_of(path, strerror(errno), 1);
    for (line = 1; status == 0 && getline(&text, &size, stream) >= 0; line++) {
        struct thing *thing = calloc(1, sizeof *thing);

        if (thing == NULL) {
            status = complain("no memory", 1);
            break;
        }
        thing->text = text;
        thing->line = line;
        text = NULL;
        size = 0;
        status = split(thing->text, thing->words);
        if (status == 0 && thing->words[0] != NULL)
            status = parse_words(*out, thing);
        if (thing->words[0] == NULL || status != 0) {
            free(thing->text);
            free(thing);
            continue;
        }
        *end = thing;
        end = &thing->next;
    }
    line = 0;
    if (status == 0 && ferror(stream))
        status = complain_of(path, "cannot be read", 1);
    free(text);
    return fclose(stream) == 0 ? status : complain_of(path, "cannot be read", 1);
}

#endif
