/*
 * allocations.h - how often this process has asked for memory: every call of
 * malloc and its kin, and every mmap, by whatever library made it.
 */
#ifndef ALLOCATIONS_H
#define ALLOCATIONS_H

#include <stdint.h>

uint64_t allocations(void);

#endif
