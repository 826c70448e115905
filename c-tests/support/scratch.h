/*
 * scratch.h - the surroundings of a test program: a directory for its socket
 * files, which main makes before the first test and removes, with all that is
 * in it, after the last; abstract names; and whether it runs under valgrind.
 */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"

static char scratch_directory[80];

static inline void scratch_make(void)
{
    const char *parent = getenv("TMPDIR");

    if (!parent || strlen(parent) > 40)
        parent = "/tmp";
    snprintf(scratch_directory, sizeof scratch_directory, "%s/qnet-test.XXXXXX", parent);
    if (!mkdtemp(scratch_directory)) {
        perror(scratch_directory);
        exit(2);
    }
}

/* The path of `name` in the directory, in a buffer that is used again after eight calls. */
static inline const char *scratch_path(const char *name)
{
    static char paths[8][sizeof scratch_directory + 28];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", scratch_directory, name);
    return path;
}

/* An abstract name of this process, in a buffer that is used again after eight calls. */
static inline const char *scratch_abstract(const char *name)
{
    static char names[8][64];
    static unsigned next;
    char *abstract = names[next++ % 8];

    snprintf(abstract, sizeof names[0], "@qnet-test-%ld-%s", (long)getpid(), name);
    return abstract;
}

static inline void scratch_remove(void)
{
    DIR *directory = opendir(scratch_directory);
    struct dirent *entry;

    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] != '.' && unlinkat(dirfd(directory), entry->d_name, 0) != 0)
            unlinkat(dirfd(directory), entry->d_name, AT_REMOVEDIR);
    if (directory)
        closedir(directory);
    if (rmdir(scratch_directory) != 0)
        perror(scratch_directory);
}

static inline int is_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload && strstr(preload, "vgpreload");
}

#endif
