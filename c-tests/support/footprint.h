/*
 * footprint.h - counts this process's open descriptors and the library's threads, to
 * check that neither is left behind at the end; and its memory.
 */
#ifndef FOOTPRINT_H
#define FOOTPRINT_H

#include <dirent.h>

#include "ways.h"

struct footprint {
    int descriptors;
    int threads;
};

/*
 * Whether a descriptor is counted. Files and pipes are not, as a sanitizer opens some to
 * report.
 */
static inline int is_descriptor(const char *number)
{
    char path[300], target[64] = "";

    snprintf(path, sizeof path, "/proc/self/fd/%s", number);
    return readlink(path, target, sizeof target - 1) > 0 && target[0] != '/' &&
           strncmp(target, "pipe:", 5) != 0;
}

/* Whether a thread's name begins with `prefix`. */
static inline int is_thread_named(const char *number, const char *prefix)
{
    char path[300], name[32] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", number);
    file = fopen(path, "r");
    if (!file)
        return 0; /* the thread has just ended */
    if (!fgets(name, sizeof name, file))
        name[0] = '\0';
    fclose(file);
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static inline int is_dialling_thread(const char *number)
{
    return is_thread_named(number, "qnet-redial");
}

static inline int is_resolving_thread(const char *number)
{
    return is_thread_named(number, "qnet-resolve");
}

static inline int is_telling_thread(const char *number)
{
    return is_thread_named(number, "qnet-state");
}

/* The names of all threads of the library begin like this. */
static inline int is_library_thread(const char *number)
{
    return is_thread_named(number, "qnet-");
}

static inline int count_entries(const char *path, int (*counts)(const char *name))
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int count = 0;

    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL)
        count += entry->d_name[0] != '.' && counts(entry->d_name);
    closedir(directory);
    return count;
}

static inline int count_threads_that(int (*count)(const char *number))
{
    return count_entries("/proc/self/task", count);
}

static inline struct footprint footprint_now(void)
{
    struct footprint now;

    now.descriptors = count_entries("/proc/self/fd", is_descriptor);
    now.threads = count_threads_that(is_library_thread);
    return now;
}

/* Waits until there are as many descriptors and threads as before. */
static inline void footprint_again(struct footprint before)
{
    long long until_ms = raw_now_ms() + patience_ms();
    struct footprint now = footprint_now();

    while ((now.descriptors != before.descriptors || now.threads != before.threads) &&
           raw_now_ms() < until_ms) {
        raw_sleep_ms(1);
        now = footprint_now();
    }
    CHECK_INT(now.descriptors, before.descriptors);
    CHECK_INT(now.threads, before.threads);
}

/* Whether the process's memory can be judged. A sanitizer uses memory of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HAS_ROOM_FOR_ITSELF = 0 };
#else
enum { HAS_ROOM_FOR_ITSELF = 1 };
#endif

/* How much memory this process has in use. */
static inline long resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long pages;

    CHECK(file && fscanf(file, "%*d %ld", &pages) == 1);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

#endif
