//! Traces: their files, and when frames leave by them.

use crate::emulation::tests::{FOR_EVER, Lab, MS, frame};
use crate::emulation::trace::Trace;

#[test]
fn files() {
    for file in ["1", "1\n", "0\n0\n5\n5\n9\n", "1\r\n2\r\n", "0\n1000000000000\n"] {
        assert!(Trace::parse(file.as_bytes()).is_ok(), "{file:?}");
    }
    let number = "is no whole number of milliseconds up to 10^12";
    for (file, why) in [
        ("", format!("line 1 of the trace {number}")),
        ("1\n\n2\n", format!("line 2 of the trace {number}")),
        ("1\n2\n\n", format!("line 3 of the trace {number}")),
        ("1\n-2\n", format!("line 2 of the trace {number}")),
        ("1\n2.5\n", format!("line 2 of the trace {number}")),
        ("1000000000001\n", format!("line 1 of the trace {number}")),
        ("1\n3\n2\n", "line 3 of the trace is less than the one before".into()),
        ("0\n", "the last line of a trace is above 0".into()),
    ] {
        assert_eq!(Trace::parse(file.as_bytes()).unwrap_err().to_string(), why, "{file:?}");
    }
    let longest = "1\n".repeat(8 << 20);
    assert!(Trace::parse(longest.as_bytes()).is_ok());
    assert!(Trace::parse(format!("{longest}1\n").as_bytes()).is_err());
}

/// When frames of these lengths leave that come at these times, in ms.
fn leaves(text: &str, lines: &str, frames: &[(u64, usize)]) -> Vec<u64> {
    let mut lab = Lab::tracing(text, lines);
    for (number, (time, len)) in frames.iter().enumerate() {
        lab.enter(*time, &frame(number as u32, *len));
    }
    lab.run(100_000 * MS);
    assert_eq!(lab.times().len(), frames.len());
    lab.times().iter().map(|(_, time)| time.div_ceil(MS)).collect()
}

#[test]
fn lines_come_round_again() {
    let frames = [(0, 1514); 7];
    assert_eq!(leaves("trace t", "1\n3\n3\n", &frames), [1, 3, 3, 4, 6, 6, 7]);
    // At the end of a round its last line and the next round's line 0 are at one time.
    assert_eq!(leaves("trace t", "0\n2\n", &frames[..5]), [2, 2, 4, 4, 6]);
    // Long afterwards.
    let late = [(1000 * MS, 60), (5000 * MS + 1, 60)];
    assert_eq!(leaves("trace t", "1\n3\n7\n", &late), [1001, 5001]);
}

#[test]
fn a_frame_that_comes_at_a_line_is_too_late_for_it() {
    let came = [(5 * MS - 1, 60), (10 * MS, 60), (15 * MS + 1, 60)];
    assert_eq!(leaves("trace t", "5\n", &came), [5, 15, 20]);
}

#[test]
fn bytes_are_shared_by_those_that_wait() {
    // Two and a half frames a line: the third begins at the first line and ends at the second.
    let frames = [(0, 60); 6];
    assert_eq!(leaves("trace t 150", "1\n2\n3\n4\n", &frames), [1, 1, 2, 2, 2, 3]);
    // What is left is lost where nobody waits, and for whoever comes at the line.
    let frames = [(0, 60), (MS, 60), (MS + 1, 60), (5 * MS, 60)];
    assert_eq!(leaves("trace t 150", "1\n2\n3\n", &frames), [1, 2, 2, 6]);
    // A frame may take many lines.
    let frames = [(0, 1000), (0, 100)];
    assert_eq!(leaves("trace t 100", "1\n", &frames), [10, 11]);
    assert_eq!(leaves("trace t 99", "1\n", &frames), [11, 12]);
    assert_eq!(leaves("trace t 1", "1\n1\n", &[(0, 60), (0, 61)]), [30, 61]);
}

#[test]
fn delay_and_limits() {
    assert_eq!(leaves("trace t delay 5ms", "1\n", &[(0, 60), (0, 1514)]), [6, 7]);
    let waiting = |text: &str| {
        let mut lab = Lab::tracing(text, "10\n20\n");
        (0..10).for_each(|number| lab.enter(0, &frame(number, 1514)));
        lab.counts().waiting
    };
    // Nothing is sent before the first line, so that the first waits, too. It is always taken.
    assert_eq!(waiting("trace t limit 4"), 4);
    assert_eq!(waiting("trace t limit 0"), 1);
    assert_eq!(waiting("trace t limit 4542b"), 3);
    assert_eq!(waiting("trace t limit 30ms"), 3);
    assert_eq!(waiting("trace t limit 29ms"), 2);
    assert_eq!(waiting("trace t 3028 limit 20ms"), 4);
}

#[test]
fn another_text_begins_a_trace_anew() {
    let mut lab = Lab::tracing("trace t", "10\n");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 1514)));
    lab.trace(15 * MS, "trace t delay 1ms", "10\n");
    lab.run(30 * MS);
    assert_eq!(lab.times(), [(0, 10 * MS), (1, 26 * MS)]);
    lab.direction.plug_in(32 * MS);
    lab.run(FOR_EVER);
    assert_eq!(lab.times()[2], (2, 43 * MS));
}

#[test]
fn between_a_trace_and_a_rate() {
    let mut lab = Lab::tracing("trace t 100", "10\n");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 125)));
    // The first takes two lines, and ends at the second.
    lab.run(10 * MS);
    lab.set(11 * MS, "rate 1mbit");
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(0, 20 * MS), (1, 21 * MS), (2, 22 * MS)]);
    // What waited for a line is not sent earlier than the text came.
    let mut lab = Lab::tracing("trace t", "10\n");
    (0..2).for_each(|number| lab.enter(0, &frame(number, 125)));
    lab.set(5 * MS, "rate 1mbit");
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(0, 6 * MS), (1, 7 * MS)]);
    // The frame that is sent ends at the old rate, and the next takes a line behind it.
    let mut lab = Lab::new("rate 100kbit");
    (0..2).for_each(|number| lab.enter(0, &frame(number, 125)));
    lab.trace(5 * MS, "trace t", "2\n");
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(0, 10 * MS), (1, 11 * MS)]);
    // None lets go of all.
    let mut lab = Lab::tracing("trace t", "10\n");
    (0..2).for_each(|number| lab.enter(0, &frame(number, 125)));
    lab.set(5 * MS, "");
    lab.run(5 * MS);
    assert_eq!(lab.times(), [(0, 5 * MS), (1, 5 * MS)]);
}

#[test]
fn traces_without_end() {
    // Times that no clock reaches do not overflow.
    let mut lab = Lab::tracing("trace t 1", "1000000000000\n");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 60_000)));
    lab.run(FOR_EVER);
    assert_eq!(lab.left.len(), 0);
    lab.direction.discard();
    assert_eq!(lab.counts().discarded, 3);
}
