//! How much memory a flight takes, and whether it is given back.

use std::process::Command;
use std::{env, fs};

use crate::emulation::tests::{FOR_EVER, Lab, frame};

const MIB: u64 = 1 << 20;

/// How much memory this process has in use.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs the next test in a process of its own, whose memory is nobody else's.
#[test]
fn what_a_flight_takes_is_given_back() {
    let test = "emulation::tests::memory::a_million_frames";
    let mut alone = Command::new(env::current_exe().unwrap());
    let output = alone.args(["--ignored", "--exact", test]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Takes a million frames of 64 bytes, each with a time of its own.
#[test]
#[ignore = "another test runs it, alone"]
fn a_million_frames() {
    for text in [
        "delay 500s 1s reorder seed 1",
        "delay 500s 1s seed 1",
        "delay 500s",
        "rate 1kbit limit 2000000",
        "rate 1kbit limit 2000000 delay 100s reorder 50%",
    ] {
        let frame = frame(0, 64);
        let mut lab = Lab::new(text);
        let before = resident();
        for number in 0..1_000_000 {
            lab.enter_early(number, &frame);
        }
        let full = resident() - before;
        assert_eq!(lab.counts().held_bytes, 64_000_000, "{text}");
        assert!(full < 128 * MIB, "{text}: {full}");
        lab.set(1_000_000, "delay 1s reorder");
        let mut left = 0;
        let end = lab.direction.next().map(|_| FOR_EVER).unwrap();
        lab.direction.leave(super::until(end), false, |leaving| {
            left += leaving.frames;
            left < 999_990
        });
        let empty = resident().saturating_sub(before);
        println!("{text}: {} MiB full, {empty} bytes with 10 frames left", full / MIB);
        assert!(empty < 8 * MIB, "{text}: {empty}");
    }
}
