//! Marks: on which frames, and what becomes of their checksums.

use crate::emulation::ecn;
use crate::emulation::tests::packets::{ethernet, ipv4, ipv6, sum};
use crate::emulation::tests::{Lab, MS};

#[test]
fn checksums_stay_as_right_or_wrong_as_they_were() {
    for id in 0..=u16::MAX {
        for tos in [1, 2, 0xfd, 0xfe] {
            let mut frame = ethernet(&[], 0x0800, &ipv4(tos, 64, 6, id, &[]));
            ecn::mark(&mut frame);
            assert_eq!((frame[15], sum(&frame[14..34])), (tos | 3, 0xffff));
        }
    }
    let mut wrong = ethernet(&[], 0x0800, &ipv4(1, 64, 6, 7, &[]));
    wrong[25] ^= 0x10;
    let before = sum(&wrong[14..34]);
    ecn::mark(&mut wrong);
    assert_eq!(sum(&wrong[14..34]), before);
}

#[test]
fn capable_frames() {
    let (tag, service) = ((0x8100, 5), (0x88a8, 6));
    for (tags, at) in [(vec![], 14), (vec![tag], 18), (vec![service], 18), (vec![service, tag], 22)]
    {
        for bits in 0..4 {
            let four = ethernet(&tags, 0x0800, &ipv4(0xb8 | bits, 64, 6, 1, &[]));
            let six = ethernet(&tags, 0x86dd, &ipv6(0xb8 | bits, 6, &[]));
            assert_eq!((ecn::is_capable(&four), ecn::is_capable(&six)), (bits > 0, bits > 0));
            if bits > 0 {
                let marked = |frame: &[u8]| {
                    let mut frame = frame.to_vec();
                    ecn::mark(&mut frame);
                    frame
                };
                assert_eq!(marked(&four), ethernet(&tags, 0x0800, &ipv4(0xbb, 64, 6, 1, &[])));
                assert_eq!(marked(&six), ethernet(&tags, 0x86dd, &ipv6(0xbb, 6, &[])));
                assert_eq!(marked(&six)[at + 1], 0xb0);
            }
        }
    }
}

#[test]
fn frames_that_are_left() {
    let packet = ipv4(1, 64, 6, 1, &[]);
    let three = ethernet(&[(0x8100, 1), (0x8100, 2), (0x8100, 3)], 0x0800, &packet);
    let wrong_version = ethernet(&[], 0x86dd, &packet);
    let foreign = ethernet(&[], 0x88b5, &packet);
    let other_tag = ethernet(&[(0x9100, 1)], 0x0800, &packet);
    for frame in [three, wrong_version, foreign, other_tag] {
        let mut marked = frame.clone();
        ecn::mark(&mut marked);
        assert!(!ecn::is_capable(&frame) && marked == frame);
    }
    // A header that is cut short is none.
    let whole = ethernet(&[(0x8100, 1)], 0x86dd, &ipv6(1, 6, &[]));
    for len in 0..58 {
        assert!(!ecn::is_capable(&whole[..len]), "{len}");
    }
    assert!(ecn::is_capable(&whole[..58]));
}

#[test]
fn marked_in_place_of_lost() {
    let mut lab = Lab::new("loss 100% ecn duplicate 100%");
    let [not, ect, ce] = [0, 2, 3].map(|tos| ethernet(&[], 0x0800, &ipv4(tos, 64, 6, 1, &[])));
    for frame in [&not, &ect, &ce] {
        lab.enter(5, frame);
    }
    lab.run(5);
    let left: Vec<_> = lab.left.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(left, [ce.clone(), ce.clone(), ce.clone(), ce]);
    let counts = lab.counts();
    assert_eq!((counts.lost, counts.marked, counts.duplicated, counts.passed), (1, 2, 2, 4));
}

#[test]
fn marked_after_waiting() {
    // A frame of 125 bytes takes 1 ms. The third has waited 2 ms, which is no longer than that.
    let mut lab = Lab::new("rate 1mbit mark 2ms");
    let ect = ethernet(&[], 0x0800, &ipv4(1, 64, 6, 1, &[0; 91]));
    let plain = ethernet(&[], 0x0800, &ipv4(0, 64, 6, 1, &[0; 91]));
    for frame in [&ect, &ect, &ect, &ect, &plain] {
        lab.enter(0, frame);
    }
    lab.run(10 * MS);
    let bits: Vec<_> = lab.left.iter().map(|(time, frame)| (*time, frame[15])).collect();
    assert_eq!(bits, [(MS, 1), (2 * MS, 1), (3 * MS, 1), (4 * MS, 3), (5 * MS, 0)]);
    assert_eq!(lab.counts().marked, 1);
    // The fourth is longer under way by less than a nanosecond.
    let mut lab = Lab::new("rate 3mbit mark 1ms");
    (0..4).for_each(|_| lab.enter(0, &ect));
    lab.run(10 * MS);
    assert_eq!(lab.counts().marked, 0);
    let mut lab = Lab::new("rate 2999999bit mark 1ms");
    (0..4).for_each(|_| lab.enter(0, &ect));
    lab.run(10 * MS);
    assert_eq!(lab.counts().marked, 1);
}
