//! What the model prints, compared line by line.

use std::fmt::Write;

use crate::emulation::direction::Counts;
use crate::emulation::distribution::Distribution;
use crate::emulation::quantity::Percent;
use crate::emulation::random::{Purpose, Side, Stream, Streams};
use crate::emulation::tests::{FOR_EVER, Lab, MS, frame};
use crate::emulation::words::Words;

const VECTORS: &str = include_str!("vectors.txt");

/// What stands behind `beginning` in its line.
fn vector(beginning: &str) -> &'static str {
    let line = VECTORS.lines().find_map(|line| line.strip_prefix(beginning));
    line.unwrap_or_else(|| panic!("no line begins with {beginning}"))
}

fn joined<T>(items: impl IntoIterator<Item = T>, mut each: impl FnMut(T) -> String) -> String {
    items.into_iter().map(|item| format!(" {}", each(item))).collect()
}

fn hex(number: impl std::fmt::LowerHex) -> String {
    format!("{number:#x}")
}

#[test]
fn streams() {
    let purposes = [
        Purpose::Loss,
        Purpose::LossState,
        Purpose::Duplicate,
        Purpose::Corrupt,
        Purpose::Bit,
        Purpose::Jitter,
        Purpose::Reorder,
    ];
    let mut out = Streams::new(42, Side::Out);
    let draws = |stream: &mut Stream| joined([stream.draw(), stream.draw()], hex);
    for (number, purpose) in purposes.into_iter().enumerate() {
        let expected = vector(&format!("# seed 42, out, stream {number}: first draws"));
        assert_eq!(draws(out.of(purpose)), expected);
    }
    let draw = Streams::new(42, Side::In).of(Purpose::Loss).draw();
    assert_eq!(format!(" {draw:#x}"), vector("# seed 42, in, stream 0: first draw"));
}

#[test]
fn tables() {
    let steps = [0, 1, 41, 1024, 2048, 3072, 4055, 4095, 4096];
    for name in ["normal", "pareto", "paretonormal"] {
        let distribution = Distribution::named(name).unwrap();
        // The last value is met by no random number. Its neighbour and the slope to it tell it.
        let at = |step: u64| match step {
            4096 => 4 << 20,
            _ => distribution.quantile(step << 52),
        };
        let sum: i64 = (0..=4096).map(at).sum();
        let values = joined(steps, |step| at(step).to_string());
        let line = format!("{values} sum {sum}");
        let beginning = format!("# table {name} at 0, 1, 41, 1024, 2048, 3072, 4055, 4095, 4096:");
        assert_eq!(line, vector(&beginning));
        let last = at(4095) + ((((4 << 20) - at(4095)) * i64::from(u32::MAX)) >> 32);
        assert_eq!(distribution.quantile(u64::MAX), last);
    }
    let uniform = Distribution::Uniform;
    assert_eq!((uniform.quantile(0), uniform.quantile(1 << 63)), (-1 << 20, 0));
    assert_eq!(uniform.quantile(u64::MAX), (1 << 20) - 1);
}

#[test]
fn thresholds() {
    let texts = ["1%", "0.1%", "33.3333%", "100%"];
    let threshold = |text: &str| {
        let word = Words::of(text.as_bytes()).next().unwrap();
        hex(Percent::read(&word).unwrap().threshold())
    };
    assert_eq!(joined(texts, threshold), vector("# thresholds 1%, 0.1%, 33.3333%, 100%:"));
}

#[test]
fn losses() {
    let texts = [
        "loss 10% seed 42",
        "loss 10% 50% seed 42",
        "loss gemodel 10% 30% seed 42",
        "loss state 10% 30% 20% 40% 5% seed 42",
    ];
    for text in texts {
        let mut lab = Lab::new(text);
        (0..64).for_each(|number| lab.enter(0, &frame(number, 60)));
        let passed = lab.numbers();
        let lost = (0..64).filter(|number| !passed.contains(number));
        let expected = vector(&format!("{text}: lost of the first 64:"));
        assert_eq!(joined(lost, |number| number.to_string()), expected);
    }
    for text in ["loss every 5 seed 42", "loss frames 2,7-9 seed 42"] {
        let mut lab = Lab::new(text);
        (0..16).for_each(|number| lab.enter(number.into(), &frame(number, 60)));
        let passed = joined(lab.numbers(), |number| number.to_string());
        assert_eq!(passed, vector(&format!("{text} ; 16 frames, passed:")));
    }
}

/// Every text for which the arrivals are given, and below that when each frame leaves and the counts.
#[test]
fn schedules() {
    let mut lines = VECTORS.lines();
    let mut played = 0;
    while let Some(line) = lines.next() {
        let Some((text, rest)) = line.split_once(" ; frames of ") else {
            continue;
        };
        let (len, rest) = rest.split_once(" bytes at [").unwrap();
        let arrivals = rest.trim_end_matches(']').split(", ").map(|time| time.parse().unwrap());
        let mut lab = Lab::new(text);
        for (number, time) in arrivals.enumerate() {
            lab.enter(time, &frame(number as u32, len.parse().unwrap()));
        }
        lab.run(FOR_EVER);
        let expected = lines.next().unwrap().strip_prefix("   leave (frame@ns):").unwrap();
        assert_eq!(leaves(&lab), expected, "{text}");
        assert_eq!(counted(&lab.counts()), lines.next().unwrap().trim(), "{text}");
        played += 1;
    }
    assert_eq!(played, 10);
}

fn leaves(lab: &Lab) -> String {
    joined(lab.times(), |(number, time)| format!("{number}@{time}"))
}

fn counted(counts: &Counts) -> String {
    let Counts { frames, lost, duplicated, corrupted, dropped, passed, reordered, .. } = counts;
    format!(
        "{{'frames': {frames}, 'lost': {lost}, 'duplicated': {duplicated}, 'corrupted': {corrupted}, \
         'dropped': {dropped}, 'passed': {passed}, 'reordered': {reordered}}}"
    )
}

#[test]
fn texts_that_change() {
    let slow = "rate 1kbit delay 1ms seed 42";
    for (text, frames, len, time, then) in [
        (slow, 4, 125, 500 * MS, "rate 1mbit delay 2ms"),
        (slow, 4, 125, 500 * MS, "delay 2ms"),
        ("rate 999999999999bit seed 42", 2, 100, 0, "rate 1bit"),
    ] {
        let mut lab = Lab::new(text);
        (0..frames).for_each(|number| lab.enter(0, &frame(number, len)));
        lab.set(time, then);
        lab.run(FOR_EVER);
        let beginning =
            format!("{text}, {frames} frames of {len} bytes at 0; changed at {time} to {then}:");
        assert_eq!(leaves(&lab), vector(&beginning));
    }
}

#[test]
fn corrupted_bits() {
    let mut lab = Lab::new("corrupt 50% seed 42");
    let whole = frame(0, 60);
    (0..8).for_each(|time| lab.enter(time, &whole));
    lab.run(9);
    let mut line = String::new();
    for (number, (_, frame)) in lab.left.iter().enumerate() {
        let pairs = frame.iter().zip(&whole).enumerate();
        let flips = pairs.filter(|(_, (a, b))| a != b);
        let flips: Vec<_> = flips.map(|(at, (a, b))| format!("{at}^{:02x}", a ^ b)).collect();
        let flips = if flips.is_empty() { "-".into() } else { flips.join(",") };
        write!(line, " {number}:{flips}").unwrap();
    }
    assert_eq!(line, vector("corrupt 50% seed 42; the same 60 bytes 8 times: byte^mask"));
}
