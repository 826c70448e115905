#!/usr/bin/env python3
"""Measures libqnet beside its references, prints a table and writes the figures as JSON.

Usage: run.py PROGRAMS OUTPUT

All contenders of a work run one after another, ROUNDS times (7) over, each time in the reverse
order; a row's ratio is the median of the rounds' ratios. ROWS=word measures only rows whose name
contains word.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from statistics import median

from processes import QEMU, Bench, Failed
from rows import ALLOCATION_SIZES, ALLOCATIONS, MEMORY, WORKS

COUNTED = (100_000, 400_000)  # frames over which allocations are counted
SLACK = 4  # how many more allocations the longer run may have

COLUMNS = "{:<40} {:>5} {:<28} {:>9} {:>9} {:>8} {:>8} {:>7} {:>7} {:>8} {:>6} {}"


failures = []


def attempt(measure, *arguments):
    """Returns the rows of one part, or none if it fails, so that the others go on."""
    try:
        return measure(*arguments)
    except Failed as failure:
        failures.append(str(failure))
        print(f"failed: {failure}", flush=True)
        return []


class Names:
    """Which rows are wanted, by name."""

    def __init__(self, word):
        self.word = word.lower()

    def wants(self, *parts):
        return self.word in " ".join(str(part) for part in parts).lower()


# ---- Throughput and latency ----

def calibrate(bench, contender, work):
    """How many frames a contender moves in the time that a run should take."""
    frames = 500
    while True:
        sample = bench.measure(contender, work.network, work.size, frames, work.pinned)
        factor = min(work.seconds / sample.seconds, 50)
        if factor < 3:
            return max(int(frames * factor), 100)
        frames = int(frames * factor)


def measure_rounds(bench, work, contenders, rounds):
    """Returns a list of samples for every contender, with one sample for each round."""
    frames = [calibrate(bench, contender, work) for contender in contenders]
    samples = [[] for _ in contenders]
    order = list(range(len(contenders)))
    for _ in range(rounds):
        for i in order:
            samples[i].append(bench.measure(
                contenders[i], work.network, work.size, frames[i], work.pinned))
        order.reverse()
    return samples


def share(part, rest, samples):
    """How much of two numbers together, which some samples may have, the first one is."""
    parts, rests = (sum(sample.fields.get(name, 0) for sample in samples) for name in (part, rest))
    return parts / max(parts + rests, 1)


def summary(samples, work):
    """The figures of one contender, from its samples."""
    asked = sum(sample.asked for sample in samples)
    per_frame = median(sample.per_frame(work.latency) for sample in samples)
    rate = median(sample.frames / sample.seconds for sample in samples)
    return {
        "frames_per_s": rate,
        "bytes_per_s": rate * work.size,
        "cpu_s_per_million": median(sample.cpu / sample.frames for sample in samples) * 1e6,
        "latency_us": per_frame * 1e6 if work.latency else None,
        "lost": 1 - sum(sample.frames for sample in samples) / asked,
        "uncaptured": share("uncaptured", "captured", samples),
        "notes": sorted({name for sample in samples for name in sample.fields
                         if name.startswith("missing_")}),
    }


def judge(ratio, limit, latency):
    if limit is None:
        return ""
    if latency:
        return "ok" if ratio <= limit else "above"
    return "ok" if ratio >= limit else "below"


def make_row(work, reference, ours, theirs):
    """Makes a row from two lists of samples, which are paired by round."""
    pairs = [(a.per_frame(work.latency), b.per_frame(work.latency)) for a, b in zip(ours, theirs)]
    ratios = [a / b if work.latency else b / a for a, b in pairs]
    ratio = median(ratios)
    return {
        "work": work.name, "size": work.size, "network": work.network,
        "plot": work.plot, "latency": work.latency,
        "reference": reference.contender.name, "kind": reference.contender.kind,
        "libqnet": summary(ours, work), "other": summary(theirs, work),
        "ratio": ratio, "ratios": ratios, "limit": reference.limit,
        "verdict": judge(ratio, reference.limit, work.latency),
    }


def figure(value, latency):
    """A figure as text: millions of frames a second, or microseconds of latency."""
    return f"{latency:.1f} us" if latency is not None else f"{value / 1e6:.3f} M"


def print_row(row):
    ours, other = row["libqnet"], row["other"]
    limit = row["limit"]
    asked = "" if limit is None else f"{'<=' if row['latency'] else '>='} {limit:.2f}"
    notes = ["without " + note.removeprefix("missing_").upper() for note in ours["notes"]]
    if ours["lost"] > 0:
        notes.append(f"libqnet lost {ours['lost'] * 100:.1f} %")
    if ours["uncaptured"] > 0:
        notes.append(f"{ours['uncaptured'] * 100:.1f} % did not fit the capture's buffer")
    if other["lost"] > 0:
        notes.append(f"the other lost {other['lost'] * 100:.1f} %")
    print(COLUMNS.format(
        row["work"], row["size"], row["reference"],
        *(figure(side["frames_per_s"], side["latency_us"]) for side in (ours, other)),
        *(f"{side['bytes_per_s'] / 1e6:.0f}" for side in (ours, other)),
        *(f"{side['cpu_s_per_million']:.3f}" for side in (ours, other)),
        f"{row['ratio']:.2f}", asked, ", ".join(filter(None, [row["verdict"], *notes]))),
        flush=True)


def run_work(bench, work, references, rounds):
    """Measures one work. Returns its rows."""
    contenders = [work.ours] + [reference.contender for reference in references]
    ours, *others = measure_rounds(bench, work, contenders, rounds)
    return [make_row(work, reference, ours, theirs)
            for reference, theirs in zip(references, others)]


def run_works(bench, names, rounds):
    print(COLUMNS.format("work", "size", "against", "libqnet/s", "other/s", "MB/s", "other",
                         "cpu s/M", "other", "ratio", "asked", ""))
    rows = []
    for work in WORKS:
        references = [reference for reference in work.references
                      if names.wants(work.name, work.size, "B", reference.contender.name)
                      and not bench.lacks(reference.contender, work.network)]
        for row in attempt(run_work, bench, work, references, rounds) if references else []:
            rows.append(row)
            print_row(row)
    return rows


def print_skipped(bench):
    skipped = {reference.contender.name: why for work in WORKS for reference in work.references
               if (why := bench.lacks(reference.contender, work.network))}
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")


# ---- Memory and allocations ----

def run_memory(bench, names):
    wanted = [entry for entry in MEMORY if names.wants("memory", *entry)]
    if not wanted:
        return []
    print("\nuser memory of a connection, of so many (resident, bytes)")
    used = {count: bench.memory(count, *(["attached"] if name == "attached" else []))
            for name, count, *_ in wanted}
    rows = []
    for name, count, state, limit in wanted:
        bytes_each = used[count][name]
        rows.append({"state": state, "connections": count, "bytes": bytes_each, "limit": limit,
                     "verdict": judge(bytes_each, limit, True)})
        print(f"{count:>5} {state:<44} {bytes_each:>7} <= {limit:>6} {rows[-1]['verdict']}",
              flush=True)
    return rows


def run_allocations(bench, names):
    few, many = COUNTED
    rows = []
    for name, contender, *networks in ALLOCATIONS:
        network = networks[0] if networks else "unix"
        for size in ALLOCATION_SIZES:
            if not names.wants("allocations", name, size, "B") or bench.lacks(contender, network):
                continue
            # A quarter of the frames goes through before counting begins.
            counts = [bench.measure(contender, network, size, frames * 4 // 3).fields["allocations"]
                      for frames in COUNTED]
            rows.append({"path": name, "size": size, "frames": COUNTED, "allocations": counts,
                         "verdict": "ok" if counts[1] <= counts[0] + SLACK else "grows"})
    if rows:
        print(f"\nheap allocations and mappings over {few} and over {many} frames")
    for row in rows:
        print(f"{row['path']:<20} {row['size']:>5} {row['allocations'][0]:>9}"
              f" {row['allocations'][1]:>9} {row['verdict']}")
    return rows


# ---- The machine ----

def processor_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return models[0] if models else platform.machine()


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True,
                              timeout=10).stdout.partition("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None


def describe_machine():
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "compiler": first_line(os.environ.get("CC") or "cc", "--version"),
        "qemu": first_line(QEMU, "--version"),
        "load": os.getloadavg(),
    }


def main():
    programs, output = sys.argv[1:]
    bench = Bench(programs)
    names = Names(os.environ.get("ROWS") or "")
    rounds = int(os.environ.get("ROUNDS") or 7)
    machine = describe_machine()
    print(f"{machine['cores']} x {machine['processor']}, Linux {machine['kernel']},"
          f" load {machine['load'][0]:.2f}, {rounds} rounds\n")
    print_skipped(bench)
    result = {"machine": machine, "rounds": rounds}
    result["rows"] = run_works(bench, names, rounds)
    result["memory"] = attempt(run_memory, bench, names)
    result["allocations"] = attempt(run_allocations, bench, names)
    bench.close()
    machine["load_after"] = os.getloadavg()
    with open(output, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"\n{output}; load {machine['load_after'][0]:.2f}")
    sys.exit(f"failed: {len(failures)}" if failures else 0)


if __name__ == "__main__":
    main()
