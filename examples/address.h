/*
 * address.h - an address in one argument: unix:PATH or tcp:HOST:PORT.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stddef.h>
#include <string.h>

enum { NETWORK_LEN = 8 }; /* room for the longest network's name */

/* Copies what is before the first colon; returns what is behind it, or NULL if that is no use. */
static inline const char *split_address(const char *argument, char network[NETWORK_LEN])
{
    const char *colon = strchr(argument, ':');
    size_t len = colon ? (size_t)(colon - argument) : NETWORK_LEN;

    if (len >= NETWORK_LEN)
        return NULL;
    memcpy(network, argument, len);
    network[len] = '\0';
    return colon + 1;
}

#endif
