/*
 * captures.h - one random call of each function for captures.
 */
#ifndef CAPTURES_H
#define CAPTURES_H

#include "plays.h"

static const char *any_text(void)
{
    static const char *const texts[] = { "", "a", "gr\xc3\xbc\xc3\x9f", "\xff", "\xc3", "a name, or a note" };

    return one_in(8) ? NULL : texts[below(sizeof texts / sizeof *texts)];
}

/* Some options, most of which captures have. Returns how many. */
static size_t any_capture_options(int64_t *options)
{
    size_t count = below(3), i;

    for (i = 0; i < count; i++) {
        int option = one_in(16) ? any_option() : 40 + (int)below(4);

        options[2 * i] = option;
        options[2 * i + 1] = one_in(2) ? any_value(option) : 65536 * (int64_t)below(4);
    }
    return count;
}

static int play_capture_open(void)
{
    static const char *const paths[] = { "c1", "c2.pcapng", "/dev/null", "/dev/full", "fifo", "", ".", "no/c" };
    int64_t options[4];
    size_t pairs = any_capture_options(options);
    OUT(qnet_capture, out);
    int result;

    result = qnet_capture_open(one_in(16) ? NULL : paths[below(sizeof paths / sizeof *paths)],
                               one_in(16) ? NULL : options, pairs, to_out);
    return MADE(CAPTURE, result, out);
}

/* The end of a pipe whose reader leaves at once or does not read, or any descriptor. */
static int any_capture_fd(void)
{
    int ends[2];

    if (one_in(2) || pipe2(ends, O_CLOEXEC) != 0)
        return any_fd();
    if (one_in(8))
        give_fd(ends[0]);
    else
        close(ends[0]);
    return ends[1];
}

static int play_capture_open_fd(void)
{
    int64_t options[4];
    size_t pairs = any_capture_options(options);
    int fd = any_capture_fd(), result;
    OUT(qnet_capture, out);

    result = qnet_capture_open_fd(fd, options, pairs, to_out);
    after_adoption(fd, result);
    return MADE(CAPTURE, result, out);
}

static int play_capture_add(void)
{
    return qnet_capture_add(any_handle(CAPTURE), any_handle(CONN), any_text());
}

static int play_capture_add_hub(void)
{
    return qnet_capture_add_hub(any_handle(CAPTURE), any_handle(HUB), any_text());
}

static int play_capture_remove(void)
{
    void *capture = any_handle(CAPTURE), *conn = any_handle(CONN);

    if (one_in(2))
        qnet_capture_add(capture, conn, "brief");
    return qnet_capture_remove(capture, conn);
}

static int play_capture_note(void)
{
    return qnet_capture_note(any_handle(CAPTURE), any_text());
}

static int play_capture_get_stats(void)
{
    size_t size = below(2 * sizeof(qnet_capture_stats));
    qnet_capture_stats *stats = one_in(16) ? NULL : allocate(size);
    int result = qnet_capture_get_stats(any_handle(CAPTURE), stats, size);

    free(stats);
    return result;
}

static int play_capture_close(void)
{
    return qnet_capture_close(any_handle(CAPTURE));
}

#endif
