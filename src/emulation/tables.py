#!/usr/bin/env python3
"""Prints tables.bin: the inverse normal, Pareto and Pareto-normal distributions at i / 4096 for i from 0 to
4096, in units of 2^-20, rounded, cut at 4 and -4, each number in three bytes, the lowest first.

    src/emulation/tables.py > src/emulation/tables.bin
"""
import math
import statistics
import sys

STEPS, ONE = 4096, 1 << 20


def cut(x):
    return max(-4.0, min(4.0, x))


def normal(i):
    return -4.0 if i == 0 else 4.0 if i == STEPS else cut(statistics.NormalDist().inv_cdf(i / STEPS))


def pareto(i):
    return 4.0 if i == STEPS else cut(4 / 3 * ((1 - i / STEPS) ** (-1 / 3) - 1.5))


def paretonormal(i):
    return cut(0.25 * normal(i) + 0.75 * pareto(i))


for curve in normal, pareto, paretonormal:
    for i in range(STEPS + 1):
        sys.stdout.buffer.write(math.floor(curve(i) * ONE + 0.5).to_bytes(3, "little", signed=True))
