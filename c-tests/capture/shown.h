/*
 * shown.h - what tests of captures share: captures, and what stands in their files. The reader
 * takes nothing for granted, and fails at whatever a file may not have.
 */
#ifndef SHOWN_H
#define SHOWN_H

#include <time.h>

#include "../emulation/impairing.h"
#include "scratch.h"

enum { SHOWN_IN = 1, SHOWN_OUT = 2, INTERFACES_MOST = 64 };

/* ---- Captures ---- */

static inline qnet_capture *capture_with(const char *path, const int64_t *options, size_t pairs)
{
    qnet_capture *capture = NULL;

    CHECK_INT(qnet_capture_open(path, options, pairs, &capture), QNET_OK);
    CHECK(capture != NULL);
    return capture;
}

static inline qnet_capture *capture_to(const char *path)
{
    return capture_with(path, NULL, 0);
}

static inline void capture_add(qnet_capture *capture, qnet_conn *conn, const char *name)
{
    CHECK_INT(qnet_capture_add(capture, conn, name), QNET_OK);
}

static inline void capture_close(qnet_capture *capture)
{
    CHECK_INT(qnet_capture_close(capture), QNET_OK);
}

static inline qnet_capture_stats capture_stats_of(qnet_capture *capture)
{
    qnet_capture_stats stats;

    CHECK_INT(qnet_capture_get_stats(capture, &stats, sizeof stats), sizeof stats);
    return stats;
}

/* Whether so many frames were recorded or counted as dropped. */
static inline int has_had(qnet_capture *capture, uint64_t frames)
{
    qnet_capture_stats stats = capture_stats_of(capture);

    return stats.frames + stats.dropped == frames;
}

static inline uint64_t time_of_day(void)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* ---- Files ---- */

struct shown_frame {
    unsigned interface;
    uint64_t time;
    size_t len, kept;
    const uint8_t *data;
    int way;
    uint64_t lost;
    char comments[200]; /* as much as there is room for, each with a ';' behind it */
};

struct shown_interface {
    char name[256], description[256];
    unsigned snaplen;
    int is_counted;
    uint64_t received, dropped;
};

struct shown {
    uint8_t *bytes;
    size_t len;
    struct shown_interface interfaces[INTERFACES_MOST];
    unsigned interface_count;
    struct shown_frame *frames;
    size_t count;
};

static inline uint32_t shown_u32(const uint8_t *at)
{
    uint32_t number;

    memcpy(&number, at, sizeof number);
    return number;
}

static inline uint16_t shown_u16(const uint8_t *at)
{
    uint16_t number;

    memcpy(&number, at, sizeof number);
    return number;
}

static inline uint64_t shown_u64(const uint8_t *at)
{
    uint64_t number;

    memcpy(&number, at, sizeof number);
    return number;
}

/* Goes over options up to their end, which is the block's, and calls `each` with every one. */
static inline void shown_options(const uint8_t *at, const uint8_t *end, void *to,
                                 void (*each)(void *to, unsigned code, const uint8_t *value, size_t len))
{
    for (;;) {
        size_t len;

        CHECK(end - at >= 4);
        len = shown_u16(at + 2);
        if (shown_u16(at) == 0)
            break;
        CHECK((size_t)(end - at) >= 4 + (len + 3) / 4 * 4);
        each(to, shown_u16(at), at + 4, len);
        for (; len % 4 != 0; len++)
            CHECK_INT(at[4 + len], 0);
        at += 4 + len;
    }
    CHECK_INT(shown_u16(at + 2), 0);
    CHECK(at + 4 == end);
}

static inline void shown_section_option(void *to, unsigned code, const uint8_t *value, size_t len)
{
    (void)to;
    CHECK_INT(code, 4);
    CHECK(len > 8 && memcmp(value, "libqnet ", 8) == 0);
}

static inline void shown_text(char *to, const uint8_t *value, size_t len)
{
    CHECK(len < 256);
    memcpy(to, value, len);
    to[len] = '\0';
}

static inline void shown_interface_option(void *to, unsigned code, const uint8_t *value, size_t len)
{
    struct shown_interface *interface = to;

    if (code == 2) {
        shown_text(interface->name, value, len);
    } else if (code == 3) {
        shown_text(interface->description, value, len);
    } else {
        CHECK_INT(code, 9);
        CHECK_INT(len, 1);
        CHECK_INT(value[0], 9);
    }
}

static inline void shown_frame_option(void *to, unsigned code, const uint8_t *value, size_t len)
{
    struct shown_frame *frame = to;
    size_t used = strlen(frame->comments);

    if (code == 1) {
        if (len > sizeof frame->comments / 4)
            len = sizeof frame->comments / 4;
        if (used + len + 2 > sizeof frame->comments)
            return;
        memcpy(frame->comments + used, value, len);
        strcpy(frame->comments + used + len, ";");
    } else if (code == 2) {
        CHECK_INT(len, 4);
        frame->way = (int)shown_u32(value);
    } else {
        CHECK_INT(code, 4);
        CHECK_INT(len, 8);
        frame->lost = shown_u64(value);
        CHECK(frame->lost > 0);
    }
}

static inline void shown_count_option(void *to, unsigned code, const uint8_t *value, size_t len)
{
    struct shown_interface *interface = to;

    CHECK_INT(len, 8);
    if (code == 4) {
        interface->received = shown_u64(value);
    } else {
        CHECK_INT(code, 5);
        interface->dropped = shown_u64(value);
    }
}

static inline void shown_frame_block(struct shown *shown, const uint8_t *at, const uint8_t *end)
{
    struct shown_frame frame;

    memset(&frame, 0, sizeof frame);
    CHECK(end - at >= 20);
    frame.interface = shown_u32(at);
    CHECK(frame.interface < shown->interface_count);
    frame.time = (uint64_t)shown_u32(at + 4) << 32 | shown_u32(at + 8);
    frame.kept = shown_u32(at + 12);
    frame.len = shown_u32(at + 16);
    frame.data = at + 20;
    CHECK(frame.kept <= frame.len && (size_t)(end - at) >= 20 + (frame.kept + 3) / 4 * 4);
    shown_options(at + 20 + (frame.kept + 3) / 4 * 4, end, &frame, shown_frame_option);
    CHECK(frame.way == SHOWN_IN || frame.way == SHOWN_OUT);
    if ((shown->count & (shown->count + 1)) == 0) {
        shown->frames = realloc(shown->frames, 2 * (shown->count + 1) * sizeof *shown->frames);
        CHECK(shown->frames != NULL);
    }
    shown->frames[shown->count++] = frame;
}

/* Takes what is between the lengths of a block. */
static inline void shown_block(struct shown *shown, uint32_t kind, const uint8_t *at, const uint8_t *end)
{
    struct shown_interface *interface = &shown->interfaces[shown->interface_count];

    switch (kind) {
    case 0x0a0d0d0a:
        CHECK(at == shown->bytes + 8 && end - at > 16);
        CHECK_INT(shown_u32(at), 0x1a2b3c4d);
        CHECK_INT(shown_u16(at + 4), 1);
        CHECK_INT(shown_u16(at + 6), 0);
        CHECK(shown_u64(at + 8) == UINT64_MAX);
        shown_options(at + 16, end, NULL, shown_section_option);
        break;
    case 1:
        CHECK(shown->interface_count < INTERFACES_MOST && end - at > 8);
        CHECK_INT(shown_u16(at), 1);
        interface->snaplen = shown_u32(at + 4);
        shown_options(at + 8, end, interface, shown_interface_option);
        shown->interface_count++;
        break;
    case 6:
        shown_frame_block(shown, at, end);
        break;
    default:
        CHECK_INT(kind, 5);
        CHECK(end - at > 12 && shown_u32(at) < shown->interface_count);
        interface = &shown->interfaces[shown_u32(at)];
        CHECK(!interface->is_counted);
        interface->is_counted = 1;
        shown_options(at + 12, end, interface, shown_count_option);
    }
}

/* Reads what stands in some bytes, which become the result's. With `is_cut` the last block may be a part. */
static inline struct shown shown_of(uint8_t *bytes, size_t len, int is_cut)
{
    struct shown shown;
    size_t at = 0;

    memset(&shown, 0, sizeof shown);
    shown.bytes = bytes;
    shown.len = len;
    while (at < len) {
        uint32_t block;

        if (is_cut && (len - at < 8 || shown_u32(bytes + at + 4) > len - at))
            break;
        CHECK(len - at >= 12);
        block = shown_u32(bytes + at + 4);
        CHECK(block >= 12 && block % 4 == 0 && block <= len - at);
        CHECK_INT(shown_u32(bytes + at + block - 4), block);
        CHECK(at > 0 || shown_u32(bytes) == 0x0a0d0d0a);
        shown_block(&shown, shown_u32(bytes + at), bytes + at + 8, bytes + at + block - 4);
        at += block;
    }
    return shown;
}

/* Reads all of a descriptor, until its end. */
static inline struct shown shown_from(int fd, int is_cut)
{
    size_t len = 0, cap = 1 << 16;
    uint8_t *bytes = allocate(cap);
    ssize_t n;

    while ((n = read(fd, bytes + len, cap - len)) > 0) {
        len += (size_t)n;
        if (len == cap) {
            bytes = realloc(bytes, cap *= 2);
            CHECK(bytes != NULL);
        }
    }
    CHECK(n == 0);
    return shown_of(bytes, len, is_cut);
}

static inline struct shown shown_at(const char *path, int is_cut)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct shown shown;

    CHECK(fd >= 0);
    shown = shown_from(fd, is_cut);
    CHECK(close(fd) == 0);
    return shown;
}

/* What stands in a file that is being written. */
static inline struct shown shown_in(const char *path)
{
    return shown_at(path, 1);
}

/* What stands in a file that was given up, which has whole blocks only. */
static inline struct shown shown_uncut(const char *path)
{
    return shown_at(path, 0);
}

/* What stands in the file of a capture that is closed, whole and with its counts. */
static inline struct shown shown_whole(const char *path)
{
    struct shown shown = shown_uncut(path);
    unsigned i;

    CHECK(shown.len > 0);
    for (i = 0; i < shown.interface_count; i++)
        CHECK(shown.interfaces[i].is_counted);
    return shown;
}

static inline void shown_free(struct shown *shown)
{
    free(shown->bytes);
    free(shown->frames);
}

/* How many frames stand in a file now. */
static inline size_t shown_count(const char *path)
{
    struct shown shown = shown_in(path);
    size_t count = shown.count;

    shown_free(&shown);
    return count;
}

static inline unsigned shown_interfaces(const char *path)
{
    struct shown shown = shown_in(path);
    unsigned count = shown.interface_count;

    shown_free(&shown);
    return count;
}

/* Checks that the frames of an interface that went one way are the next ones of a flow, whole and in order. */
static inline void shown_flow(const struct shown *shown, unsigned interface, int way, struct flow *flow,
                              unsigned count)
{
    unsigned end = flow->next + count;
    size_t i;

    for (i = 0; i < shown->count; i++) {
        const struct shown_frame *frame = &shown->frames[i];

        if (frame->interface != interface || frame->way != way)
            continue;
        CHECK_INT(frame->kept, frame->len);
        CHECK_INT(frame->lost, 0);
        flow_take(flow, frame->data, frame->kept);
    }
    CHECK_INT(flow->next, end);
}

/* Checks an interface's name, and how many frames it has had. */
static inline void shown_name(const struct shown *shown, unsigned interface, const char *name, uint64_t received)
{
    CHECK(interface < shown->interface_count);
    if (strcmp(shown->interfaces[interface].name, name) != 0)
        fprintf(stderr, "it is \"%s\", not \"%s\"\n", shown->interfaces[interface].name, name);
    CHECK(strcmp(shown->interfaces[interface].name, name) == 0);
    CHECK_INT(shown->interfaces[interface].received, received);
    CHECK_INT(shown->interfaces[interface].dropped, 0);
}

#endif
