#!/usr/bin/env python3
"""Compares the library with the model, to the nanosecond and to the bit: random texts, which change at
random times, with random arrivals.

    src/emulation/tests/compare.py [SCRIPTS [ARRIVALS [SEED]]]
"""
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import zlib

sys.dont_write_bytecode = True  # The tree may be read-only, and Cargo watches it.
import model  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NAMES = "frames", "lost", "duplicated", "corrupted", "dropped", "passed", "reordered"
END = 1 << 61


def percent(rnd, most=100):
    digits = rnd.randrange(0, 5)
    return f"{rnd.choice([0, most, rnd.uniform(0, most), rnd.uniform(0, most / 10)]):.{digits}f}%"


def chance(rnd, most=100):
    return percent(rnd, most) + (" " + percent(rnd) if rnd.random() < 0.5 else "")


def time(rnd, most_ns):
    unit, scale = rnd.choice([("ns", 1), ("us", 1000), ("ms", 10**6), ("s", 10**9)])
    number = rnd.uniform(0, most_ns / scale)
    return f"{number:.{rnd.randrange(0, 10)}f}{unit}"


def loss(rnd):
    kind = rnd.randrange(6)
    if kind == 0:
        return "loss " + chance(rnd, 30)
    if kind == 1:
        return "loss random " + chance(rnd, 100)
    if kind == 2:
        return "loss gemodel " + " ".join(percent(rnd) for _ in range(rnd.randint(1, 4)))
    if kind == 3:
        return "loss state " + " ".join(percent(rnd, 50) for _ in range(rnd.randint(1, 5)))
    if kind == 4:
        return f"loss every {rnd.randint(1, 20)}"
    numbers, ranges = sorted(rnd.sample(range(1, 500), 10)), []
    for a, b in zip(numbers[::2], numbers[1::2]):
        ranges.append(rnd.choice([f"{a}", f"{a}-{b}"]))
    return "loss frames " + ",".join(ranges)


def rate(rnd):
    unit, scale = rnd.choice([("bit", 1), ("kbit", 1000), ("mbit", 10**6), ("gbit", 10**9)])
    bits = 10 ** rnd.uniform(5, 10)
    text = f"rate {max(1, bits / scale):.{rnd.randrange(0, 4)}f}{unit}"
    if rnd.random() < 0.5:
        text += f" {rnd.randint(-100, 100)}"
        if rnd.random() < 0.5:
            text += f" {rnd.choice([0, 1, 48, 64, 1000])}"
            if rnd.random() < 0.7:
                text += f" {rnd.randint(-50, 50)}"
    return text


def limit(rnd):
    kinds = f"{rnd.randint(0, 50)}", f"{rnd.randint(0, 20000)}b", f"{rnd.randint(0, 40)}kb", time(rnd, 10**7)
    return "limit " + rnd.choice(kinds)


def a_text(rnd):
    words = []
    has_delay = rnd.random() < 0.7
    if has_delay:
        words.append("delay " + rnd.choice(["0", time(rnd, 5 * 10**6)]))
        if rnd.random() < 0.7:
            words[-1] += " " + rnd.choice(["0", time(rnd, 3 * 10**6)])
            if rnd.random() < 0.5:
                words[-1] += " " + percent(rnd)
            if rnd.random() < 0.6:
                words.append("distribution " + rnd.choice(["uniform", "normal", "pareto", "paretonormal"]))
    if rnd.random() < 0.5:
        words.append(loss(rnd))
    if rnd.random() < 0.3:
        words.append("duplicate " + chance(rnd))
    if rnd.random() < 0.3:
        words.append("corrupt " + chance(rnd))
    if rnd.random() < 0.5:
        words.append(rate(rnd))
    if rnd.random() < 0.5:
        words.append(limit(rnd))
    if rnd.random() < 0.4:
        words.append("reorder")
        if has_delay and rnd.random() < 0.6:
            words[-1] += " " + chance(rnd)
            if rnd.random() < 0.5:
                words[-1] += f" gap {rnd.randint(1, 10)}"
    rnd.shuffle(words)
    return " ".join(words)


def a_script(rnd, arrivals):
    """Lines for the library, and what the model says."""
    side = rnd.choice([model.IN, model.OUT])
    text = f"{a_text(rnd)} seed {rnd.getrandbits(64)}".strip()
    lines, other, now = [f"direction {side} {text}"], model.Direction(text, side), 0
    scale, is_lazy = 10 ** rnd.uniform(1, 6.5), rnd.random() < 0.5
    for number in range(arrivals):
        now += rnd.choice([0, 0, 0, int(rnd.expovariate(1 / scale)), int(rnd.expovariate(0.1 / scale))])
        if rnd.random() < 0.004:
            text = rnd.choice(["", *3 * [a_text(rnd)]])
            if rnd.random() < 0.2:
                text = f"{text} seed {rnd.getrandbits(64)}".strip()
            lines.append(f"set {now} {text}")
            other.change(now, text)
        length = rnd.choice([60, 60, 64, 1514, rnd.randint(18, 200), rnd.randint(18, 1514)])
        word = "enter_early" if is_lazy and rnd.random() < 0.98 else "enter"
        lines.append(f"{word} {now} {number} {length}")
        other.enter(now, model.frame(number, length), number)
    lines.append(f"end {END}")
    other.run(END)
    expected = [f"{due} {zlib.crc32(frame)}" for due, _, frame in other.out]
    return lines, expected + [str([other.c[name] for name in NAMES])]


def main():
    scripts, arrivals, seed = (list(map(int, sys.argv[1:])) + [300, 2000, 1][len(sys.argv) - 1:])[:3]
    rnd = random.Random(seed)
    played = [a_script(rnd, arrivals) for _ in range(scripts)]
    with tempfile.TemporaryDirectory() as folder:
        script, result = pathlib.Path(folder, "script"), pathlib.Path(folder, "result")
        script.write_text("".join(line + "\n" for lines, _ in played for line in lines))
        environment = dict(os.environ, EMULATION_SCRIPT=str(script), EMULATION_RESULT=str(result))
        test = "emulation::tests::model::plays_a_script"
        command = ["cargo", "test", "--quiet", "--locked", "--release", "--lib", "--", "--ignored", "--exact", test]
        subprocess.run(command, cwd=HERE, env=environment, check=True, stdout=subprocess.DEVNULL)
        got = iter(result.read_text().splitlines())
    for number, (lines, expected) in enumerate(played):
        for at, line in enumerate(expected):
            found = next(got, "nothing")
            if found != line:
                texts = [line for line in lines if not line.startswith("enter")]
                sys.exit(f"script {number}, line {at}: {found} instead of {line}\n" + "\n".join(texts))
    print(f"{scripts} scripts of {arrivals} arrivals: the library and the model agree")


main()
