//! Counts, limits, and what is discarded.

use crate::emulation::direction::Counts;
use crate::emulation::direction::enter::Verdict;
use crate::emulation::flight::Moment;
use crate::emulation::tests::{FOR_EVER, Lab, MS, frame, until};
use crate::frame::{PREFIX, Walk, prefix};

#[test]
fn every_frame_counts_once() {
    let mut lab = Lab::new(
        "delay 3ms 2ms loss 5% duplicate 10% corrupt 5% rate 20mbit limit 20 reorder 10% seed 1",
    );
    for number in 0..5000_u32 {
        lab.enter(u64::from(number) * 50_000, &frame(number, 60 + number as usize % 100));
        if number % 1700 == 1699 {
            lab.direction.discard();
        }
        let counts = lab.counts();
        let passed = lab.left.len() as u64;
        let bytes = lab.left.iter().map(|(_, frame)| frame.len() as u64);
        assert_eq!(counts.passed, passed);
        assert!(number % 100 > 0 || counts.passed_bytes == bytes.sum());
        assert_eq!(
            counts.frames + counts.duplicated,
            counts.lost
                + counts.dropped
                + counts.discarded
                + passed
                + counts.waiting
                + counts.flying
        );
    }
    let Counts { lost, dropped, discarded, reordered, corrupted, waiting, flying, .. } =
        lab.counts();
    assert!(
        [lost, dropped, discarded, reordered, corrupted, waiting, flying].iter().all(|n| *n > 0)
    );
    lab.run(FOR_EVER);
    let counts = lab.counts();
    assert_eq!((counts.waiting, counts.flying, counts.held_bytes), (0, 0, 0));
    assert_eq!(counts.passed, lab.left.len() as u64);
    assert_eq!(counts.bytes, (0..5000).map(|number| 60 + number % 100).sum());
}

#[test]
fn what_was_discarded_holds_up_nothing() {
    let mut lab = Lab::new("rate 1kbit delay 100s");
    (0..3).for_each(|number| lab.enter(5 * MS, &frame(number, 125)));
    lab.direction.discard();
    assert_eq!(lab.direction.next(), None);
    let counts = lab.counts();
    assert_eq!((counts.discarded, counts.held_bytes), (3, 0));
    // Another clock may be earlier.
    lab.set(0, "rate 1mbit");
    lab.enter(0, &frame(3, 125));
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(3, MS)]);
}

#[test]
fn limits() {
    let taken = |text: &str| {
        let mut lab = Lab::new(text);
        (0..10).for_each(|number| lab.enter(0, &frame(number, 125)));
        let counts = lab.counts();
        assert_eq!(counts.waiting + counts.flying + counts.dropped, 10);
        counts.waiting
    };
    // One is being sent besides those that wait, for 1 ms.
    assert_eq!(taken("rate 1mbit"), 9);
    assert_eq!(taken("rate 1mbit limit 4"), 4);
    assert_eq!(taken("rate 1mbit limit 0"), 0);
    assert_eq!(taken("rate 1mbit limit 499b"), 3);
    assert_eq!(taken("rate 1mbit limit 500b"), 4);
    assert_eq!(taken("rate 1mbit limit 3ms"), 3);
    assert_eq!(taken("rate 1mbit limit 2999999ns"), 2);
    assert_eq!(taken("rate 1mbit limit 0ms"), 0);
    // Without a rate nothing waits.
    let mut lab = Lab::new("limit 0 delay 1ms");
    (0..10).for_each(|number| lab.enter(0, &frame(number, 125)));
    assert_eq!((lab.counts().flying, lab.counts().dropped), (10, 0));
}

#[test]
fn the_default_limit() {
    let mut lab = Lab::new("rate 1mbit");
    (0..1100).for_each(|number| lab.enter(0, &frame(number, 125)));
    assert_eq!((lab.counts().waiting, lab.counts().dropped), (1000, 99));
}

#[test]
fn a_hub_drops_what_has_no_room() {
    for text in ["delay 1ms", "rate 1mbit", "delay 1ms 1ms seed 1", "delay 1ms reorder 100%"] {
        let mut lab = Lab::new(text);
        lab.room = 1000;
        (0..10).for_each(|number| lab.enter_early(0, &frame(number, 300)));
        let counts = lab.counts();
        if text.ends_with("100%") {
            // These pass at once, and are not held.
            assert_eq!((counts.passed, counts.dropped), (10, 0));
            continue;
        }
        assert_eq!((counts.held_bytes, counts.dropped), (900, 7), "{text}");
        assert_eq!(lab.direction.held_bytes(), 900);
        lab.run(FOR_EVER);
        lab.enter(FOR_EVER, &frame(11, 300));
        assert_eq!(lab.counts().held_bytes, 300);
    }
}

/// Frames that enter together leave as those that enter one by one.
#[test]
fn runs_of_frames() {
    for (text, room) in [
        ("delay 1ms", u64::MAX),
        ("delay 0", u64::MAX),
        ("delay 1ms reorder", u64::MAX),
        ("delay 1ms", 300_000),
        ("delay 0", 131_072),
    ] {
        let (mut apart, mut together) = (Lab::new(text), Lab::new(text));
        (apart.room, together.room) = (room, room);
        for batch in 0..50_u32 {
            let now = u64::from(batch) * 200_000;
            let frames: Vec<_> = (0..batch * 7 % 300)
                .map(|number| frame(batch * 1000 + number, 60 + (number * batch) as usize % 900))
                .collect();
            apart.run(now);
            together.run(now);
            frames.iter().for_each(|frame| apart.enter_early(now, frame));
            enter_together(&mut together, now, &frames);
        }
        apart.run(FOR_EVER);
        together.run(FOR_EVER);
        assert!(apart.left == together.left, "{text}");
        assert_eq!(apart.counts(), together.counts());
        assert_eq!(apart.number, together.number);
    }
}

fn enter_together(lab: &mut Lab, now: u64, frames: &[Vec<u8>]) {
    assert!(lab.direction.treats_alike());
    let wire: Vec<u8> = frames.iter().flat_map(|f| [&prefix(f.len())[..], f].concat()).collect();
    let (count, room) = (frames.len(), lab.room);
    if lab.direction.enter_run(now, &wire, count, room, &mut lab.number) == Verdict::Passes {
        lab.left.extend(frames.iter().map(|frame| (now, frame.clone())));
    }
}

#[test]
fn frames_that_lie_together_leave_together() {
    let mut lab = Lab::new("delay 1ms");
    for number in 0..1000_u32 {
        lab.enter_early((number / 10).into(), &frame(number, 60));
    }
    let (mut calls, mut numbers) = (0, Vec::new());
    lab.direction.leave(until(FOR_EVER), true, |leaving| {
        calls += 1;
        assert_eq!(leaving.wire.len(), leaving.frames * (PREFIX + 60));
        let number = |frame: &[u8]| u32::from_be_bytes(*frame[14..].first_chunk().unwrap());
        numbers.extend(Walk::over(leaving.wire).map(number));
        true
    });
    assert_eq!(calls, 1);
    assert!(numbers.into_iter().eq(0..1000));
    // Apart, those of one time do.
    for number in 0..1000_u32 {
        lab.enter_early(FOR_EVER + u64::from(number / 10), &frame(number, 60));
    }
    let mut calls = 0;
    lab.direction.leave(until(2 * FOR_EVER), false, |leaving| {
        assert_eq!((leaving.frames, leaving.due.time), (10, FOR_EVER + MS + calls));
        calls += 1;
        true
    });
    assert_eq!(calls, 100);
}

#[test]
fn leaving_stops_where_it_is_told_to() {
    let mut lab = Lab::new("delay 1ms");
    for number in 0..10 {
        lab.enter_early(number.into(), &frame(number, 60));
    }
    let mut frames = 0;
    lab.direction.leave(until(MS + 5), false, |leaving| {
        frames += leaving.frames;
        leaving.due.time < MS + 2
    });
    assert_eq!((frames, lab.counts().flying), (3, 7));
    let next = Moment { time: MS + 3, number: 3 };
    assert_eq!(lab.direction.next(), Some(next));
    // What happens at one time happens in the order of the numbers, and the end is not part of it.
    lab.direction.leave(next, true, |_| panic!("it is not yet due"));
    lab.direction.leave(Moment { number: 4, ..next }, true, |leaving| leaving.frames == 1);
    assert_eq!(lab.counts().flying, 6);
}
