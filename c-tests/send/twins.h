/*
 * twins.h - two connections that are sent the same frames, of which one takes short paths
 * where it can, and the other pads, which rules these out. For frames of 60 bytes or more
 * padding does nothing. So all that can be observed has to be the same on both, and what
 * is expected of either.
 */
#ifndef TWINS_H
#define TWINS_H

#include "receiving.h"
#include "sending.h"

enum { SHORT_PATH, GENERAL_PATH, TWINS, PADDED = 60 };

/* One of the two, and the bytes that must arrive at its plain socket. */
struct twin {
    qnet_conn *conn;
    int fd;
    uint8_t *wire;
    size_t room, owed, seen;
    unsigned frames;       /* taken */
    uint64_t frame_bytes;  /* of these, with their padding */
};

struct twins {
    struct twin of[TWINS];
    size_t max;           /* the longest frame that they send */
    int are_held;         /* whether frames may have been held back at any time */
    int told_by_address;  /* whether errors name an address, which is different for each */
};

static inline void twins_set(struct twins *twins, int option, int64_t value)
{
    int i;

    for (i = 0; i < TWINS; i++)
        CHECK_INT(qnet_set(twins->of[i].conn, option, value), QNET_OK);
}

static inline void twins_open(struct twins *twins, qnet_conn *(*open)(int *fd))
{
    int i;

    memset(twins, 0, sizeof *twins);
    twins->max = 65535;
    for (i = 0; i < TWINS; i++)
        twins->of[i].conn = open(&twins->of[i].fd);
    CHECK_INT(qnet_set(twins->of[GENERAL_PATH].conn, QNET_OPT_PAD, 1), QNET_OK);
}

/* Notes that a frame was taken, and so has to arrive. */
static inline void twin_owes(struct twin *twin, int pads, const uint8_t *frame, size_t len)
{
    size_t padded = pads && len < PADDED ? PADDED : len;

    if (twin->owed + RAW_PREFIX + padded > twin->room) {
        twin->room = 2 * twin->room + RAW_PREFIX + padded;
        twin->wire = realloc(twin->wire, twin->room);
        CHECK(twin->wire != NULL);
    }
    raw_put_length(twin->wire + twin->owed, padded);
    memset(twin->wire + twin->owed + RAW_PREFIX, 0, padded);
    memcpy(twin->wire + twin->owed + RAW_PREFIX, frame, len);
    twin->owed += RAW_PREFIX + padded;
    twin->frames++;
    twin->frame_bytes += padded;
}

static inline void twins_owe(struct twins *twins, const uint8_t *frame, size_t len)
{
    int i;

    for (i = 0; i < TWINS; i++)
        twin_owes(&twins->of[i], i == GENERAL_PATH, frame, len);
}

/* Reads the next `len` of the bytes that must arrive. */
static inline void twin_hears(struct twin *twin, size_t len)
{
    uint8_t *bytes = allocate(len);

    CHECK(len <= twin->owed - twin->seen);
    CHECK_INT(raw_read(twin->fd, bytes, len), 0);
    CHECK(memcmp(bytes, twin->wire + twin->seen, len) == 0);
    twin->seen += len;
    free(bytes);
}

/* Has everything written that was taken, and checks that it and nothing else arrives, and is counted. */
static inline void twins_settle(struct twins *twins)
{
    qnet_stats stats[TWINS];
    int i;

    for (i = 0; i < TWINS; i++) {
        struct twin *twin = &twins->of[i];

        CHECK_INT(qnet_flush(twin->conn), QNET_OK);
        twin_hears(twin, twin->owed - twin->seen);
        CHECK_INT(bytes_waiting(twin->fd), 0);
        stats[i] = stats_of(twin->conn);
        CHECK_INT(stats[i].tx_frames, twin->frames);
        CHECK_INT(stats[i].tx_bytes, twin->frame_bytes);
        CHECK_INT(stats[i].tx_dropped, 0);
    }
    /* When frames that are held back are written is a matter of time, too. */
    if (!twins->are_held)
        CHECK_INT(stats[SHORT_PATH].tx_writes, stats[GENERAL_PATH].tx_writes);
}

static inline void twins_close(struct twins *twins)
{
    int i;

    for (i = 0; i < TWINS; i++) {
        CHECK_INT(qnet_close(twins->of[i].conn), QNET_OK);
        close(twins->of[i].fd);
        free(twins->of[i].wire);
    }
}

/* ---- Calls on both ---- */

/* What a call on each returned, and what the library had to say of it. */
struct answers {
    int result[TWINS];
    int os_error[TWINS];
    char words[TWINS][300];
};

static inline void note_answer(struct answers *answers, int which, int result)
{
    answers->result[which] = result;
    answers->os_error[which] = result < 0 ? qnet_last_errno() : 0;
    snprintf(answers->words[which], sizeof answers->words[which], "%s",
             result < 0 ? qnet_last_error() : "");
}

/* Checks that both say the same. Returns the result. */
static inline int same_answer(const struct twins *twins, const struct answers *answers)
{
    CHECK_INT(answers->result[SHORT_PATH], answers->result[GENERAL_PATH]);
    CHECK_INT(answers->os_error[SHORT_PATH], answers->os_error[GENERAL_PATH]);
    if (!twins->told_by_address && strcmp(answers->words[SHORT_PATH], answers->words[GENERAL_PATH]) != 0)
        check_fail(__FILE__, __LINE__, answers->words[SHORT_PATH]);
    return answers->result[SHORT_PATH];
}

static inline int twins_send(struct twins *twins, const void *frame, size_t len)
{
    struct answers answers;
    int i;

    for (i = 0; i < TWINS; i++)
        note_answer(&answers, i, qnet_send(twins->of[i].conn, frame, len));
    return same_answer(twins, &answers);
}

static inline int twins_send_batch(struct twins *twins, const qnet_frame *frames, size_t count)
{
    struct answers answers;
    int i;

    for (i = 0; i < TWINS; i++)
        note_answer(&answers, i, qnet_send_batch(twins->of[i].conn, frames, count));
    return same_answer(twins, &answers);
}

#endif
