#!/usr/bin/env python3
"""Measures how long a link delays frames and how many it loses, beside what is asked of it, prints a table
and draws both as an SVG, on logarithmic scales.

Usage: emulation.py PROGRAMS OUTPUT
"""

import sys

from plot import COLOURS, WIDTH, Scale, line, measured_on, picture, text
from processes import Bench
from rows import Contender
from run import describe_machine

DELAYS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)  # us
LOSSES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # %
DELAYED, LOSABLE, SIZE = 2000, 4_000_000, 64  # frames of each measurement, and their bytes

TOP, BOTTOM, HEIGHT = 78, 330, 388
GREY, MEDIAN, P99 = "#52606d", COLOURS["libqnet"], COLOURS["QEMU hub"]


def measure_delay(bench, setting):
    """The median and the 99th percentile of lone frames through a link, in ms."""
    contender = Contender("link", "libqnet", "qnet lone", "qnet delay", f"qnet link{setting}")
    fields = bench.measure(contender, "unix", SIZE, DELAYED).fields
    return fields["median"] / 1e6, fields["p99"] / 1e6


def measure_loss(bench, percent):
    """How many of a hundred frames a link loses."""
    contender = Contender("link", "libqnet", "tuned send", "tuned receive",
                          f"qnet link loss={percent}")
    sample = bench.measure(contender, "unix", SIZE, LOSABLE)
    return 100 * (1 - sample.frames / sample.asked)


def dot(x, y, colour, fill):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{colour}" fill="{fill}"/>'


def draw_panel(left, right, title, unit, asked, measured):
    """The scales of a panel, with its axes, and a line for what is measured just as asked."""
    across, up = Scale(asked, left, right), Scale(measured, BOTTOM, TOP)
    parts = [text(left, TOP - 14, title, 13, weight="bold"),
             text((left + right) / 2, BOTTOM + 36, f"asked, {unit}", 12, "middle")]
    for tick in across.ticks():
        parts += [line(across(tick), TOP, across(tick), BOTTOM),
                  text(across(tick), BOTTOM + 17, f"{tick:g}", 11, "middle")]
    for tick in up.ticks():
        parts += [line(left, up(tick), right, up(tick)),
                  text(left - 7, up(tick) + 4, f"{tick:g}", 11, "end")]
    parts.append(line(across(min(asked)), up(min(asked)), across(max(asked)), up(max(asked)), GREY))
    return across, up, parts


def draw_key(x, y, colour, fill, content):
    return [dot(x, y - 4, colour, fill), text(x + 10, y, content, 12)]


def draw_delays(delays, without):
    asked = [us / 1000 for us in DELAYS]
    across, up, parts = draw_panel(56, 396, "Delay measured, ms", "ms", asked + [150],
                                   [without, 150])
    parts += [line(56, up(without), 396, up(without), MEDIAN, ' stroke-dasharray="4 3"'),
              text(390, up(without) - 6, f"without a delay, median: {without:.3f} ms", 11, "end")]
    for ms, (median, p99) in zip(asked, delays):
        parts += [dot(across(ms), up(p99), P99, "none"), dot(across(ms), up(median), MEDIAN, MEDIAN)]
    return [*parts, *draw_key(74, TOP + 20, MEDIAN, MEDIAN, "median"),
            *draw_key(74, TOP + 38, P99, "none", "99 of 100 frames take no longer")]


def draw_losses(losses):
    across, up, parts = draw_panel(464, WIDTH - 16, "Loss measured, %", "%", [*LOSSES, 100],
                                   [min(LOSSES), 100])
    for percent, measured in zip(LOSSES, losses):
        parts.append(dot(across(percent), up(measured), MEDIAN, MEDIAN))
    return parts


def main():
    programs, output = sys.argv[1:]
    bench, machine = Bench(programs), describe_machine()
    without = measure_delay(bench, "")[0]
    print(f"no delay: {without:.3f} ms")
    delays = [measure_delay(bench, f" delay={us}") for us in DELAYS]
    for us, (median, p99) in zip(DELAYS, delays):
        print(f"delay {us / 1000:g} ms: median {median:.3f}, 99 of 100 {p99:.3f}")
    losses = [measure_loss(bench, percent) for percent in LOSSES]
    for percent, measured in zip(LOSSES, losses):
        print(f"loss {percent}%: {measured:.3f}%")
    bench.close()
    parts = [text(56, 24, "What is measured, beside what is asked of a link", 16, weight="bold"),
             text(56, 42, f"{measured_on(machine)}; grey: as asked", 11, colour=GREY),
             *draw_delays(delays, without), *draw_losses(losses)]
    with open(output, "w", encoding="utf-8") as file:
        file.write(picture("Delay and loss of a link, measured and asked", HEIGHT, parts))


if __name__ == "__main__":
    main()
