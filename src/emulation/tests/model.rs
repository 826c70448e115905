//! Plays scripts that `compare.py` writes, which runs them on the model too and compares.

use std::fmt::Write;
use std::{env, fs, str};

use crate::emulation::random::Side;
use crate::emulation::tests::{Lab, frame, spec};

/// Plays the script in the file `EMULATION_SCRIPT` names, and writes what leaves into `EMULATION_RESULT`.
#[test]
#[ignore = "compare.py runs it"]
fn plays_a_script() {
    let file = |name| env::var_os(name).unwrap_or_else(|| panic!("{name} names no file"));
    let script = fs::read_to_string(file("EMULATION_SCRIPT")).unwrap();
    let mut result = String::new();
    let mut lab = None;
    for line in script.lines() {
        let (word, rest) = line.split_once(' ').unwrap();
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let number: u64 = number.parse().unwrap();
        if word == "direction" {
            let side = if number == 1 { Side::In } else { Side::Out };
            lab = Some(Lab::of(side, rest));
            continue;
        }
        let lab = lab.as_mut().unwrap();
        match word {
            "set" => set_as_printed(lab, number, rest),
            // Whether what is due leaves before or after the next comes in makes no difference.
            "enter" => lab.enter(number, &content(rest)),
            "enter_early" => lab.enter_early(number, &content(rest)),
            "run" => lab.run(number),
            "end" => end(lab, number, &mut result),
            word => panic!("{word}"),
        }
    }
    fs::write(file("EMULATION_RESULT"), result).unwrap();
}

fn content(numbers: &str) -> Vec<u8> {
    let (number, len) = numbers.split_once(' ').unwrap();
    frame(number.parse().unwrap(), len.parse().unwrap())
}

/// Sets a text as it is printed, which means the same.
fn set_as_printed(lab: &mut Lab, now: u64, text: &str) {
    lab.set(now, str::from_utf8(&spec(text).print()).unwrap());
}

fn end(lab: &mut Lab, now: u64, result: &mut String) {
    lab.run(now);
    for (time, frame) in &lab.left {
        writeln!(result, "{time} {}", hash(frame)).unwrap();
    }
    let counts = lab.counts();
    let numbers = [
        counts.frames,
        counts.lost,
        counts.duplicated,
        counts.corrupted,
        counts.dropped,
        counts.passed,
        counts.reordered,
    ];
    writeln!(result, "{numbers:?}").unwrap();
    assert_eq!(counts.passed, lab.left.len() as u64);
    assert_eq!(counts.passed_bytes, lab.left.iter().map(|(_, frame)| frame.len() as u64).sum());
}

/// The CRC-32 of a frame, bit by bit.
fn hash(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
