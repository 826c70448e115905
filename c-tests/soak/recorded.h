/*
 * recorded.h - captures of what lives: into a file, a FIFO whose readers come and go, or what fails.
 */
#ifndef RECORDED_H
#define RECORDED_H

#include "../capture/shown.h"
#include "soak.h"

enum { ADDED_MOST = 40 };

struct recorded {
    qnet_capture *capture; /* NULL: none */
    char path[120];
    int is_fifo, is_file, reader, added;
};

static inline void recorded_open(struct recorded *recorded)
{
    static const char *const devices[] = { "/dev/null", "/dev/full" };
    static int names;
    unsigned kind = pick(6);
    char name[20];

    memset(recorded, 0, sizeof *recorded);
    recorded->reader = -1;
    if (kind >= 4)
        return;
    recorded->is_fifo = kind == 0;
    recorded->is_file = kind == 1;
    snprintf(name, sizeof name, "recorded%d", count_up(&names));
    pthread_mutex_lock(&opening);
    snprintf(recorded->path, sizeof recorded->path, "%s", kind < 2 ? scratch_path(name) : devices[kind - 2]);
    pthread_mutex_unlock(&opening);
    if (recorded->is_fifo)
        CHECK(mkfifo(recorded->path, 0600) == 0);
    recorded->capture = capture_to(recorded->path);
}

static inline void recorded_add_hub(struct recorded *recorded, qnet_hub *hub)
{
    if (recorded->capture)
        CHECK_INT(qnet_capture_add_hub(recorded->capture, hub, NULL), QNET_OK);
}

/* A connection is recorded from now on or no more, a note is made, or a reader comes, reads on or leaves. */
static inline void recorded_change(struct recorded *recorded, qnet_conn *conn)
{
    char bytes[8000];

    if (!recorded->capture)
        return;
    if (pick(20) == 0 && recorded->added++ < ADDED_MOST)
        check_among(qnet_capture_add(recorded->capture, conn, NULL), MAY(QNET_OK) | MAY(QNET_ERR_BUSY));
    if (pick(40) == 0)
        check_among(qnet_capture_remove(recorded->capture, conn), MAY(QNET_OK) | MAY(QNET_ERR_INVALID));
    if (pick(40) == 0)
        CHECK_INT(qnet_capture_note(recorded->capture, "a note"), QNET_OK);
    if (!recorded->is_fifo)
        return;
    if (recorded->reader < 0)
        recorded->reader = open(recorded->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(recorded->reader >= 0);
    while (pick(8) > 0 && read(recorded->reader, bytes, sizeof bytes) > 0)
        continue;
    if (pick(10) > 0)
        return;
    CHECK(close(recorded->reader) == 0);
    recorded->reader = -1;
}

/* Each frame of an interface is in the file or counted as missing there, and of a hub all that it has taken in. */
static inline void check_recorded(const struct recorded *recorded, const uint64_t *taken_in)
{
    struct shown shown = shown_at(recorded->path, 0);
    uint64_t received = 0, dropped = 0;
    unsigned i;

    for (i = 0; i < shown.interface_count; i++) {
        CHECK(shown.interfaces[i].is_counted);
        received += shown.interfaces[i].received;
        dropped += shown.interfaces[i].dropped;
    }
    CHECK_INT(received, shown.count + dropped);
    CHECK(!taken_in || shown.interfaces[0].received == *taken_in);
    shown_free(&shown);
}

/* Closes the capture of connections that are closed, and perhaps a hub, which has taken in so many frames. */
static inline void recorded_close(struct recorded *recorded, const uint64_t *taken_in)
{
    if (!recorded->capture)
        return;
    capture_close(recorded->capture);
    if (recorded->reader >= 0)
        CHECK(close(recorded->reader) == 0);
    if (recorded->is_file)
        check_recorded(recorded, taken_in);
    if (recorded->is_file || recorded->is_fifo)
        CHECK(unlink(recorded->path) == 0);
}

#endif
