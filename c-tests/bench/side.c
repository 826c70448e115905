/*
 * side.c - main() of the programs that are one side of a measurement: reads the command
 * line and runs the role that it names.
 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 256 };

static void parse(struct work *work, char **arguments)
{
    char name[LINE];

    work->network = arguments[2];
    work->address = arguments[3];
    work->size = (size_t)strtoul(arguments[4], NULL, 10);
    work->frames = strtoull(arguments[5], NULL, 10);
    for (arguments += 6; *arguments; arguments++) {
        const char *value = strchr(*arguments, '=');

        if (!value || (size_t)(value - *arguments) >= sizeof name)
            work_fail(*arguments, "not name=value");
        snprintf(name, sizeof name, "%.*s", (int)(value++ - *arguments), *arguments);
        if (strcmp(name, "threads") == 0)
            work->threads = (unsigned)atoi(value);
        else if (strcmp(name, "ports") == 0)
            work->ports = (unsigned)atoi(value);
        else if (strcmp(name, "usecs") == 0)
            work->usecs = atol(value);
        else if (strcmp(name, "vlan") == 0)
            work->vlan = value;
        else if (strcmp(name, "loss") == 0)
            work->loss = value;
        else if (strcmp(name, "delay") == 0)
            work->delay = value;
        else if (strcmp(name, "to") == 0)
            work->to = value;
        else if (strcmp(name, "capture") == 0)
            work->capture = value;
        else
            work_fail(name, "no such setting");
    }
    if (work->threads < 1 || work->threads > WORK_MOST_THREADS || work->frames < 1)
        work_fail("threads, frames", "out of range");
}

int main(int count, char **arguments)
{
    struct work work = {.threads = 1, .ports = 2};
    const struct work_role *role = work_roles;

    if (count < 6)
        work_fail(arguments[0], "ROLE NETWORK ADDRESS SIZE FRAMES [name=value]...");
    parse(&work, arguments);
    while (role->name && strcmp(role->name, arguments[1]) != 0)
        role++;
    if (!role->name)
        work_fail(arguments[1], "no such role");
    role->run(&work);
    return 0;
}
