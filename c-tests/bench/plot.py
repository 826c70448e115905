#!/usr/bin/env python3
"""Draws bench.json, in frames a second, as an SVG: grouped bars on a logarithmic scale.

Usage: plot.py INPUT OUTPUT
"""

import json
import math
import sys
from html import escape

COLOURS = {  # in the order of the bars
    "plain C": "#9aa5b1",
    "tuned C": "#52606d",
    "pktkit": "#e0a458",
    "QEMU hub": "#c8553d",
    "libqnet": "#1f7a8c",
}
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 820, 170, 70, 84, 44
BAR, GAP, BETWEEN = 15, 2, 16
INK, FAINT = "#1f2933", "#d9dee4"


def groups_of(rows):
    """The works to plot: a map from each label to {kind: frames a second}."""
    groups = {}
    for row in rows:
        if not row["plot"]:
            continue
        notes = [note.removeprefix("missing_").upper() for note in row["libqnet"]["notes"]]
        label = (row["plot"], "".join(f"without {note}" for note in notes))
        bars = groups.setdefault(label, {"libqnet": row["libqnet"]["frames_per_s"]})
        bars[row["kind"]] = row["other"]["frames_per_s"]
    return groups


class Scale:
    """Maps values to coordinates from start to end. The axis begins at a power of ten."""

    def __init__(self, values, start=LEFT, end=WIDTH - RIGHT):
        self.start, self.end = start, end
        self.low = math.floor(math.log10(min(values)))
        self.high = math.log10(max(values))

    def __call__(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        return [10 ** power for power in range(self.low, math.floor(self.high) + 1)]


def short(value):
    """Frames a second as text with three digits and a unit: 0.982 M, 72.3 M, 130 M."""
    millions = value / 1e6
    return f"{millions:.{max(0, 2 - max(0, math.floor(math.log10(millions))))}f} M"


def power(value):
    return f"{value // 10**6} M" if value >= 10**6 else f"{value // 1000} k"


def text(x, y, content, size=12, anchor="start", weight="normal", colour=INK):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
            f' font-weight="{weight}" fill="{colour}">{escape(content)}</text>')


def rectangle(x, y, width, height, colour):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}"'
            f' fill="{colour}"/>')


def line(x1, y1, x2, y2, colour=FAINT, more=""):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            f' stroke="{colour}"{more}/>')


def measured_on(machine):
    return (f"{machine['cores']} x {machine['processor']}, Linux"
            f" {machine['kernel'].split('-')[0]}, {machine['date'][:10]}")


def picture(title, height, parts):
    """A whole SVG on a white ground."""
    begin = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
             f' width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" role="img">')
    ground = rectangle(0, 0, WIDTH, height, "#ffffff")
    return "\n".join([begin, f"<title>{title}</title>", ground, *parts, "</svg>"]) + "\n"


def draw_legend(kinds):
    parts, x = [], LEFT
    for kind in kinds:
        parts.append(rectangle(x, 48, 12, 12, COLOURS[kind]))
        parts.append(text(x + 17, 58.5, kind))
        x += 36 + 7.5 * len(kind)
    return parts


def draw_grid(scale, bottom):
    parts = []
    for tick in scale.ticks():
        x = scale(tick)
        parts.append(line(x, TOP - 8, x, bottom))
        parts.append(text(x, bottom + 16, power(tick), 11, "middle"))
    return parts


def draw_group(label, bars, scale, y):
    """The bars of one work, and where the next group begins."""
    kinds = [kind for kind in COLOURS if kind in bars]
    middle = y + len(kinds) * (BAR + GAP) / 2
    name, note = label
    parts = [text(LEFT - 12, middle + (0 if note else 4), name, 13, "end", "bold")]
    if note:
        parts.append(text(LEFT - 12, middle + 14, note, 11, "end"))
    for kind in kinds:
        x = scale(bars[kind])
        parts.append(rectangle(LEFT, y, x - LEFT, BAR, COLOURS[kind]))
        weight = "bold" if kind == "libqnet" else "normal"
        parts.append(text(x + 5, y + BAR - 3.5, short(bars[kind]), 11, weight=weight))
        y += BAR + GAP
    return parts, y + BETWEEN


def draw(result):
    groups = groups_of(result["rows"])
    if not groups:
        sys.exit("nothing to plot: measure all rows first")
    scale = Scale([value for bars in groups.values() for value in bars.values()])
    shown = [kind for kind in COLOURS if any(kind in bars for bars in groups.values())]
    y, bodies = TOP, []
    for label, bars in groups.items():
        parts, y = draw_group(label, bars, scale, y)
        bodies += parts
    bottom = y - BETWEEN + 4
    subject = f"{measured_on(result['machine'])}, medians of {result['rounds']} runs"
    return picture("Frames a second, libqnet and others", bottom + BOTTOM, [
        text(LEFT, 22, "Frames a second (logarithmic)", 16, weight="bold"),
        text(LEFT, 39, subject, 11, colour="#52606d"),
        *draw_legend(shown), *draw_grid(scale, bottom), *bodies,
    ])


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        result = json.load(file)
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw(result))


if __name__ == "__main__":
    main()
