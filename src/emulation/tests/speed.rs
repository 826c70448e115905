//! How much a frame costs, by a loop such as a switch's.

use std::env;
use std::hint::black_box;
use std::time::Instant;

use crate::emulation::direction::Direction;
use crate::emulation::direction::enter::Verdict;
use crate::emulation::random::Side;
use crate::emulation::tests::{frame, spec, until};
use crate::frame::{PREFIX, Walk, prefix};

/// How many frames a read gives, and how many reads are made, one each microsecond.
const READ: usize = 1900;
const READS: u64 = 10_000;

/// Prints how long a frame takes. `EMULATION_TEXT` is played alone, so that a profiler sees nothing else.
#[test]
#[ignore = "it measures, and proves nothing"]
fn how_long_a_frame_takes() {
    let texts = match env::var("EMULATION_TEXT") {
        Ok(text) => vec![text],
        Err(_) => [
            "",
            "loss 1%",
            "loss 1% 25%",
            "loss gemodel 1% 25%",
            "delay 0",
            "delay 100us",
            "delay 100us 10us",
            "delay 100us 10us reorder",
            "rate 1tbit",
            "loss 1% duplicate 1% corrupt 1%",
            "loss 1% delay 100us",
        ]
        .map(String::from)
        .to_vec(),
    };
    for text in texts {
        for together in [false, true] {
            play(&text, together);
        }
    }
}

fn play(text: &str, together: bool) {
    let frame = frame(0, 64);
    let wire = [&prefix(64)[..], &frame].concat().repeat(READ);
    let mut direction = Direction::new(Side::In, 1);
    direction.set(0, spec(text), None);
    if together && !direction.treats_alike() {
        return;
    }
    let (mut number, mut passed, mut left, mut calls) = (0, 0, 0, 0);
    let begin = Instant::now();
    for read in 0..READS {
        let now = read * 1000;
        if together {
            let verdict = direction.enter_run(now, black_box(&wire), READ, u64::MAX, &mut number);
            passed += if verdict == Verdict::Passes { READ } else { 0 };
        } else {
            let (mut start, mut end) = (0, 0);
            for frame in Walk::over(black_box(&wire)) {
                if direction.enter(now, frame, u64::MAX, &mut number) == Verdict::Stays {
                    passed += black_box(&wire[start..end]).len() / (PREFIX + 64);
                    start = end + PREFIX + frame.len();
                }
                end += PREFIX + frame.len();
            }
            passed += black_box(&wire[start..end]).len() / (PREFIX + 64);
        }
        direction.leave(until(now), true, |leaving| {
            calls += 1;
            left += leaving.frames;
            black_box(leaving.wire);
            true
        });
    }
    let frames = READ as u64 * READS;
    let ns = begin.elapsed().as_nanos() as f64 / frames as f64;
    let how = if together { "together" } else { "one by one" };
    println!(
        "{ns:6.1} ns a frame, {how}: \"{text}\" ({passed} passed, {left} left in {calls} calls)"
    );
}
