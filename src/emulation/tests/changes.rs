//! Texts that change while frames wait and fly.

use crate::emulation::flight::Moment;
use crate::emulation::tests::{FOR_EVER, Lab, MS, frame};

#[test]
fn what_flies_keeps_its_time_and_nothing_overtakes_it() {
    let mut lab = Lab::new("delay 10ms");
    lab.enter(0, &frame(0, 60));
    lab.set(MS, "delay 1ms");
    lab.enter(MS, &frame(1, 60));
    lab.set(2 * MS, "");
    lab.enter(2 * MS, &frame(2, 60));
    assert!(!lab.direction.is_idle());
    lab.enter(10 * MS, &frame(3, 60));
    assert_eq!(lab.times(), [(0, 10 * MS), (1, 10 * MS), (2, 10 * MS), (3, 10 * MS)]);
    assert!(lab.direction.is_idle());
}

#[test]
fn a_text_with_reorder_lets_frames_overtake() {
    let mut lab = Lab::new("delay 10ms");
    lab.enter(0, &frame(0, 60));
    lab.set(MS, "delay 1ms reorder");
    lab.enter(MS, &frame(1, 60));
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(1, 2 * MS), (0, 10 * MS)]);
    assert_eq!(lab.counts().reordered, 1);
}

#[test]
fn a_removed_rate_lets_go_of_what_waits() {
    let mut lab = Lab::new("rate 1mbit delay 5ms");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 125)));
    lab.set(MS / 2, "");
    assert_eq!(lab.counts().waiting, 0);
    lab.run(FOR_EVER);
    // All leave behind the one that was being sent.
    assert_eq!(lab.times(), [(0, 6 * MS), (1, 6 * MS), (2, 6 * MS)]);
}

#[test]
fn the_frame_that_is_sent_ends_at_the_old_rate() {
    let mut lab = Lab::new("rate 3mbit");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 100)));
    // The first ends at 266666 2/3 ns, and the second begins at a whole nanosecond.
    lab.set(100, "rate 1mbit");
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(0, 266_667), (1, 1_066_667), (2, 1_866_667)]);
    // The same rate in other words is no change: it goes on exactly.
    let mut lab = Lab::new("rate 3mbit");
    (0..3).for_each(|number| lab.enter(0, &frame(number, 100)));
    lab.set(100, "rate 3000kbit delay 0");
    lab.run(FOR_EVER);
    assert_eq!(lab.times(), [(0, 266_667), (1, 533_334), (2, 800_000)]);
}

#[test]
fn streams_go_on_through_texts_and_through_none() {
    let passed = |mut lab: Lab, changes: &[(u32, &str)]| {
        for number in 0..300 {
            if let Some((_, text)) = changes.iter().find(|(at, _)| *at == number) {
                lab.set(0, text);
            }
            lab.enter(0, &frame(number, 60));
        }
        lab.numbers()
    };
    let whole = passed(Lab::new("loss 20% 50% seed 9"), &[]);
    let changed = [(100, "loss 20% 50% delay 0"), (200, "loss 20.0% 50%")];
    assert_eq!(passed(Lab::new("loss 20% 50% seed 9"), &changed), whole);
    // Through none, what comes meanwhile takes no draws.
    let paused = passed(Lab::new("loss 20% 50% seed 9"), &[(100, ""), (150, "loss 20% 50%")]);
    let before = whole.iter().copied().filter(|number| *number < 100);
    let moved = whole.iter().filter(|number| **number >= 100).map(|number| number + 50);
    let expected = before.chain(100..150).chain(moved).filter(|number| *number < 300);
    let expected: Vec<u32> = expected.collect();
    assert_eq!(paused, expected);
    // A seed begins anew.
    let anew = passed(Lab::new("loss 20% 50% seed 9"), &[(100, "loss 20% 50% seed 9")]);
    let front: Vec<u32> = whole.iter().filter(|number| **number < 200).map(|n| n + 100).collect();
    assert_eq!(anew.iter().copied().filter(|number| *number >= 100).collect::<Vec<_>>(), front);
}

#[test]
fn a_loss_begins_anew_where_it_differs() {
    let lost_after = |then: &str| {
        let mut lab = Lab::new("loss every 3 seed 1");
        (0..2).for_each(|number| lab.enter(0, &frame(number, 60)));
        lab.set(0, then);
        (2..8).for_each(|number| lab.enter(0, &frame(number, 60)));
        let passed = lab.numbers();
        (0..8).filter(|number| !passed.contains(number)).collect::<Vec<_>>()
    };
    assert_eq!(lost_after("loss every 3 duplicate 0%"), [2, 5]);
    assert_eq!(lost_after("loss every 3 seed 1"), [4, 7]);
    assert_eq!(lost_after("loss every 4"), [5]);
    assert_eq!(lost_after("loss frames 1-2"), [2, 3]);
    assert_eq!(lost_after(""), [0; 0]);
}

#[test]
fn the_next_event() {
    let mut lab = Lab::new("rate 1mbit delay 5ms");
    assert_eq!(lab.direction.next(), None);
    (0..2).for_each(|number| lab.enter(0, &frame(number, 125)));
    assert_eq!(lab.direction.next(), Some(Moment { time: 6 * MS, number: 0 }));
    lab.run(6 * MS);
    assert_eq!(lab.direction.next(), Some(Moment { time: 7 * MS, number: 1 }));
    lab.run(7 * MS);
    assert_eq!(lab.direction.next(), None);
}

/// Frames leave when an event loop wakes for them, at the same times as if it were always awake. Where
/// nothing is random, it never wakes for nothing.
#[test]
fn waking_at_the_next_event_alone() {
    for (text, is_random) in [
        ("rate 1mbit delay 5ms seed 3", false),
        ("rate 1mbit delay 5ms 3ms distribution normal seed 3", true),
        ("rate 1mbit delay 5ms 3ms reorder seed 3", true),
        ("rate 3mbit delay 2ms reorder 30% gap 2 duplicate 10% seed 3", true),
        ("delay 2ms 2ms reorder seed 3", true),
    ] {
        let mut awake = Lab::new(text);
        let mut asleep = Lab::new(text);
        for number in 0..100 {
            let now = u64::from(number) * MS * 9 / 10;
            awake.enter(now, &frame(number, 125));
            while let Some(next) = asleep.direction.next().filter(|next| next.time <= now) {
                let before = asleep.left.len();
                asleep.run(next.time);
                assert!(is_random || asleep.left.len() > before, "{text}");
                assert!(asleep.left[before..].iter().all(|(time, _)| *time == next.time), "{text}");
            }
            asleep.enter_early(now, &frame(number, 125));
        }
        awake.run(FOR_EVER);
        asleep.run(FOR_EVER);
        assert_eq!(awake.times(), asleep.times());
    }
}
