//! What enters and leaves at each kind of port, by tables; and the texts.

use super::*;

const MODES: [&str; 9] = [
    "access 10",
    "trunk",
    "trunk 10,20-29",
    "trunk 10 native 20",
    "trunk native 10",
    "tunnel 10",
    "",
    "access 10 tpid 88a8",
    "trunk 10 native 30 tpid 88a8",
];

/// The types and tags of frames, from the outermost on.
const FRAMES: [&[u16]; 10] = [
    &[0x0800],
    &[0x8100, 0xa000, 0x0800],
    &[0x8100, 0x700a, 0x0800],
    &[0x8100, 20, 0x0800],
    &[0x8100, 4095, 0x0800],
    &[0x88a8, 10, 0x0800],
    &[0x8100, 10, 0x8100, 20, 0x0800],
    &[0x88a8, 10, 0x8100, 20, 0x0800],
    &[0x8100, 0, 0x8100, 20, 0x0800],
    &[0x8100, 10],
];

/// Of which VLAN each frame is at each port, with `-` for what is refused, in the order of the above.
const ENTERS: [&str; 9] = [
    "10 10 - - - 10 - 10 10 -",
    "- - 10 20 - - 10 - - -",
    "- - 10 20 - - 10 - - -",
    "20 20 10 20 - 20 10 20 20 -",
    "10 10 10 20 - 10 10 10 10 -",
    "10 10 10 10 10 10 10 10 10 10",
    "0 0 10 20 - 0 10 0 0 -",
    "10 10 10 10 10 - 10 - 10 10",
    "30 30 30 30 30 10 30 10 30 30",
];

/// What each frame leaves with at each port that came in at a transparent one.
const LEAVES: [&str; 9] = [
    "- - 0800 - - - - - - -",
    "- - 8100.700a.0800 8100.0014.0800 - - 8100.000a.8100.0014.0800 - - -",
    "- - 8100.700a.0800 8100.0014.0800 - - 8100.000a.8100.0014.0800 - - -",
    "- - 8100.700a.0800 0800 - - 8100.000a.8100.0014.0800 - - -",
    "- - 0800 8100.0014.0800 - - - - - -",
    "- - 0800 - - - 8100.0014.0800 - - -",
    "0800 8100.a000.0800 8100.700a.0800 8100.0014.0800 - 88a8.000a.0800 \
     8100.000a.8100.0014.0800 88a8.000a.8100.0014.0800 8100.0000.8100.0014.0800 -",
    "- - 0800 - - - 8100.0014.0800 - - -",
    "- - 88a8.700a.0800 - - - 88a8.000a.8100.0014.0800 - - -",
];

/// What each leaves with that came in at the tunnel.
const LEAVES_TUNNEL: [&str; 9] = [
    "0800 - - - - 88a8.000a.0800 - 88a8.000a.8100.0014.0800 - -",
    "8100.000a.0800 8100.000a.8100.a000.0800 8100.000a.8100.700a.0800 8100.000a.8100.0014.0800 \
     8100.000a.8100.0fff.0800 8100.000a.88a8.000a.0800 8100.000a.8100.000a.8100.0014.0800 \
     8100.000a.88a8.000a.8100.0014.0800 8100.000a.8100.0000.8100.0014.0800 8100.000a.8100.000a",
    "8100.000a.0800 8100.000a.8100.a000.0800 8100.000a.8100.700a.0800 8100.000a.8100.0014.0800 \
     8100.000a.8100.0fff.0800 8100.000a.88a8.000a.0800 8100.000a.8100.000a.8100.0014.0800 \
     8100.000a.88a8.000a.8100.0014.0800 8100.000a.8100.0000.8100.0014.0800 8100.000a.8100.000a",
    "8100.000a.0800 8100.000a.8100.a000.0800 8100.000a.8100.700a.0800 8100.000a.8100.0014.0800 \
     8100.000a.8100.0fff.0800 8100.000a.88a8.000a.0800 8100.000a.8100.000a.8100.0014.0800 \
     8100.000a.88a8.000a.8100.0014.0800 8100.000a.8100.0000.8100.0014.0800 8100.000a.8100.000a",
    "0800 - - - - 88a8.000a.0800 - 88a8.000a.8100.0014.0800 - -",
    "0800 8100.a000.0800 8100.700a.0800 8100.0014.0800 8100.0fff.0800 88a8.000a.0800 \
     8100.000a.8100.0014.0800 88a8.000a.8100.0014.0800 8100.0000.8100.0014.0800 8100.000a",
    "8100.000a.0800 8100.000a.8100.a000.0800 8100.000a.8100.700a.0800 8100.000a.8100.0014.0800 \
     8100.000a.8100.0fff.0800 8100.000a.88a8.000a.0800 8100.000a.8100.000a.8100.0014.0800 \
     8100.000a.88a8.000a.8100.0014.0800 8100.000a.8100.0000.8100.0014.0800 8100.000a.8100.000a",
    "0800 8100.a000.0800 8100.700a.0800 8100.0014.0800 8100.0fff.0800 - \
     8100.000a.8100.0014.0800 - 8100.0000.8100.0014.0800 8100.000a",
    "88a8.000a.0800 88a8.000a.8100.a000.0800 88a8.000a.8100.700a.0800 88a8.000a.8100.0014.0800 \
     88a8.000a.8100.0fff.0800 88a8.000a.88a8.000a.0800 88a8.000a.8100.000a.8100.0014.0800 \
     88a8.000a.88a8.000a.8100.0014.0800 88a8.000a.8100.0000.8100.0014.0800 88a8.000a.8100.000a",
];

fn frame(words: &[u16]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_be_bytes());
    (1..=TYPE_AT as u8).chain(words).collect()
}

fn vlan(text: &str) -> Vlan {
    Vlan::parse(text.as_bytes()).unwrap().unwrap_or_else(|| TRANSPARENT.clone())
}

/// What a frame leaves with, in words.
fn left_with(from: &Vlan, to: &Vlan, frame: &[u8]) -> String {
    let Some(how) = from.enter(Head::of(frame)).and_then(|inner| to.leave(inner)) else {
        return "-".into();
    };
    let (mut wire, mut out) = (frame::prefix(frame.len()).to_vec(), Vec::new());
    wire.extend_from_slice(frame);
    assert_eq!(change(how, &wire, &mut out), 0);
    let left = Walk::over(&out).next().unwrap();
    assert_eq!(left[..TYPE_AT], frame[..TYPE_AT]);
    let words = left[TYPE_AT..].chunks(2).map(|word| format!("{:02x}{:02x}", word[0], word[1]));
    words.collect::<Vec<_>>().join(".")
}

#[test]
fn frames_enter_as_the_table_says() {
    for (mode, row) in MODES.iter().zip(ENTERS) {
        assert_eq!(row.split(' ').count(), FRAMES.len());
        for (words, want) in FRAMES.iter().zip(row.split(' ')) {
            let inner = vlan(mode).enter(Head::of(&frame(words)));
            let got = inner.map_or("-".into(), |inner| inner.vlan.to_string());
            assert_eq!(got, want, "{words:x?} at {mode}");
        }
    }
}

#[test]
fn frames_leave_as_the_tables_say() {
    for (from, rows) in [("", LEAVES), ("tunnel 10", LEAVES_TUNNEL)] {
        for (mode, row) in MODES.iter().zip(rows) {
            let row: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(row.len(), FRAMES.len());
            for (words, want) in FRAMES.iter().zip(row) {
                let got = left_with(&vlan(from), &vlan(mode), &frame(words));
                assert_eq!(got, want, "{words:x?} from {from} to {mode}");
            }
        }
    }
}

#[test]
fn a_frame_does_not_grow_beyond_the_longest() {
    let mut wire = frame::prefix(frame::MAX).to_vec();
    wire.resize(frame::PREFIX + frame::MAX, 0);
    let mut out = Vec::new();
    assert_eq!(change(Change::Add([0; TAG]), &wire, &mut out), 1);
    assert!(out.is_empty());
    assert_eq!(change(Change::Remove, &wire, &mut out), 0);
    assert_eq!(out.len(), wire.len() - TAG);
}

#[test]
fn texts_are_printed_as_they_can_be_read() {
    for (text, want) in [
        ("", ""),
        (" \t", ""),
        ("ACCESS 0010", "access 10"),
        ("access 4094 tpid 8100", "access 4094"),
        ("access 1 TPID 88A8", "access 1 tpid 88a8"),
        ("tunnel 7", "tunnel 7"),
        ("trunk", "trunk"),
        ("trunk all", "trunk"),
        ("trunk ALL native 5", "trunk native 5"),
        ("trunk 20-29,10,11 native 10", "trunk 10-11,20-29 native 10"),
        ("trunk 1-4094 tpid 88a8", "trunk 1-4094 tpid 88a8"),
    ] {
        let read = Vlan::parse(text.as_bytes()).unwrap();
        let printed = read.as_ref().map_or(String::new(), Vlan::print);
        assert_eq!(printed, want);
        assert_eq!(Vlan::parse(want.as_bytes()).unwrap(), read);
    }
}

#[test]
fn wrong_texts_are_explained() {
    for (text, why) in [
        ("acces 1", "\"acces\" at 1: expected one of access, trunk, tunnel"),
        ("access", "\"access\" at 1: a VLAN from 1 to 4094 has to follow"),
        ("access 0", "\"0\" at 8: expected a VLAN from 1 to 4094"),
        ("access 4095", "\"4095\" at 8: expected a VLAN from 1 to 4094"),
        ("access +1", "\"+1\" at 8: expected a VLAN from 1 to 4094"),
        ("access 1 2", "\"2\" at 10: nothing like that can follow here"),
        ("access 10,20", "\"10,20\" at 8: expected a VLAN from 1 to 4094"),
        ("trunk 20-10", "\"20-10\" at 7: a range of VLANs ascends"),
        ("trunk 1,", "\"1,\" at 7: expected a VLAN from 1 to 4094"),
        ("trunk 1-2-3", "\"1-2-3\" at 7: expected a VLAN from 1 to 4094"),
        ("trunk native", "\"native\" at 7: a VLAN from 1 to 4094 has to follow"),
        ("trunk native 1 all", "\"all\" at 16: nothing like that can follow here"),
        ("tunnel 1 native 2", "\"native\" at 10: nothing like that can follow here"),
        ("trunk tpid 9100", "\"9100\" at 12: expected 8100 or 88a8"),
    ] {
        assert_eq!(Vlan::parse(text.as_bytes()), Err(Error::Invalid(why.into())));
    }
}
