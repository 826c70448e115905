//! Texts: what is read, what is printed, and what is wrong with others.

use crate::emulation::spec::Spec;
use crate::emulation::tests::{Lab, spec};

/// Texts, and how they are printed.
const PRINTED: [(&str, &str); 52] = [
    ("", ""),
    (" \t\n ", ""),
    ("delay 10ms", "delay 10ms"),
    ("DELAY 10MS 5Ms 25% Distribution NORMAL", "delay 10ms 5ms 25% distribution normal"),
    ("distribution uniform delay 1s 0", "delay 1s 0s distribution uniform"),
    ("delay 0", "delay 0s"),
    ("delay 0.5ms", "delay 500us"),
    ("delay 1.5us", "delay 1500ns"),
    ("delay 1000s", "delay 1000s"),
    ("delay 1000000000000ns", "delay 1000s"),
    ("delay 0.9999999999us", "delay 999ns"),
    ("delay 0.0000000001s", "delay 0s"),
    ("delay 60000ms", "delay 60s"),
    ("delay 1ms 2ms distribution pareto", "delay 1ms 2ms distribution pareto"),
    ("delay 1ms 2ms distribution paretonormal", "delay 1ms 2ms distribution paretonormal"),
    ("loss 1%", "loss 1%"),
    ("loss random 1.50% 25%", "loss 1.5% 25%"),
    ("loss 0", "loss 0%"),
    ("loss 100%", "loss 100%"),
    ("loss 0.0000000001%", "loss 0.0000000001%"),
    ("loss 33.3333333333% 0%", "loss 33.3333333333% 0%"),
    ("loss gemodel 1%", "loss gemodel 1%"),
    ("loss GEmodel 1% 10% 70% 0.1%", "loss gemodel 1% 10% 70% 0.1%"),
    ("loss state 1% 99%", "loss state 1% 99%"),
    ("loss state 50% 20% 80% 30% 50%", "loss state 50% 20% 80% 30% 50%"),
    ("loss every 5 ecn", "loss every 5 ecn"),
    ("ecn loss frames 3,7-9,11-11", "loss frames 3,7-9,11 ecn"),
    ("corrupt 1% 2% duplicate 3%", "duplicate 3% corrupt 1% 2%"),
    ("rate 20mbit", "rate 20mbit"),
    ("rate 1500kbit 24", "rate 1500kbit 24"),
    ("rate 1.5gbit -14 48 5", "rate 1500mbit -14 48 5"),
    ("rate 1.9bit -100 65535 1000", "rate 1bit -100 65535 1000"),
    ("rate 1tbit 0 0 -100", "rate 1tbit 0 0 -100"),
    ("rate 0.000001mbit", "rate 1bit"),
    ("limit 0", "limit 0"),
    ("limit 100", "limit 100"),
    ("limit 18446744073709551615", "limit 18446744073709551615"),
    ("limit 1.5kb", "limit 1536b"),
    ("limit 2048KB", "limit 2mb"),
    ("limit 0b", "limit 0mb"),
    ("limit 0.0001kb", "limit 0mb"),
    ("limit 20ms", "limit 20ms"),
    ("mark 5ms rate 1mbit", "rate 1mbit mark 5ms"),
    ("gap 5 reorder 25% 50% delay 1ms", "delay 1ms reorder 25% 50% gap 5"),
    ("reorder", "reorder"),
    ("trace /Tmp/A 1500 mark 0", "mark 0s trace /Tmp/A 1500"),
    ("trace up.trace seed 1", "trace up.trace seed 1"),
    ("seed 18446744073709551615", "seed 18446744073709551615"),
    ("match 1 6 0 0 1 loss 1%", "loss 1% match 1,6 0 0 1"),
    ("match 2,0 0 0 1,22 0 0 0, loss 1%", "loss 1% match 2,0 0 0 1,22 0 0 0"),
    ("MATCH 1,6,0 , 0 1", "match 1,6 0 0 1"),
    ("delay 1ms loss 2% rate 3mbit limit 4 seed 5", "delay 1ms loss 2% rate 3mbit limit 4 seed 5"),
];

#[test]
fn texts_are_printed_as_they_are_understood() {
    for (text, printed) in PRINTED {
        let once = spec(text);
        assert_eq!(String::from_utf8(once.print()).unwrap(), printed, "{text}");
        assert_eq!(spec(printed), once, "{text}");
    }
}

const NO_TIME: &str = "a time needs its unit: ns, us, ms or s";
const NO_RATE: &str = "a rate needs its unit: bit, kbit, mbit, gbit or tbit";
const NO_PERCENT: &str = "a percentage ends in %";
const WHOLE: &str = "a whole number without a unit is expected here";
const ASCEND: &str = "a list's numbers ascend, from 1";
const OVERHEAD: &str = "a whole number from -100 to 1000 is expected here, without a unit";
const MORE: &str = "expected one of delay, distribution, loss, ecn, duplicate, corrupt, rate, limit, mark, \
                    reorder, gap, trace, seed, match";

/// Texts, and what is wrong with them: the word, where it is, and what was expected.
const WRONG: [(&str, &str, usize, &str); 73] = [
    ("delay 10", "10", 7, NO_TIME),
    ("  delay\t10m", "10m", 9, NO_TIME),
    ("delay 10%", "10%", 7, NO_TIME),
    ("delay -1ms", "-1ms", 7, "a decimal number is expected here"),
    ("delay .5ms", ".5ms", 7, "a decimal number is expected here"),
    ("delay 5.ms", "5.ms", 7, "a decimal number is expected here"),
    ("delay 1.2.3ms", "1.2.3ms", 7, "a decimal number is expected here"),
    ("delay 1e3ms", "1e3ms", 7, NO_TIME),
    ("delay loss", "loss", 7, "a decimal number is expected here"),
    (
        "delay 0.12345678901s",
        "0.12345678901s",
        7,
        "a number has at most ten digits behind its point",
    ),
    ("delay 1001s", "1001s", 7, "a time is at most 1000s"),
    ("delay 1000.0000000001s", "1000.0000000001s", 7, "a time is at most 1000s"),
    (
        "delay 99999999999999999999999999999999s",
        "99999999999999999999999999999999s",
        7,
        "a time is at most 1000s",
    ),
    ("delay", "delay", 1, "a time has to follow"),
    ("delay 1ms 5", "5", 11, NO_TIME),
    ("delay 1ms 5%", "5%", 11, NO_TIME),
    ("delay 1ms 2ms 3ms", "3ms", 15, NO_PERCENT),
    ("delay 1ms 2ms 3% 4", "4", 18, MORE),
    ("delay 1ms delay 2ms", "delay", 11, "this word was there before"),
    ("ecn loss 1% ECN", "ECN", 13, "this word was there before"),
    ("dely 1ms", "dely", 1, MORE),
    ("distribution normal", "distribution", 1, "it needs a delay with a JITTER"),
    ("distribution normal delay 1ms", "distribution", 1, "it needs a delay with a JITTER"),
    (
        "delay 1ms 1ms distribution gauss",
        "gauss",
        28,
        "expected uniform, normal, pareto or paretonormal",
    ),
    ("delay 1ms 1ms distribution", "distribution", 15, "the name of a distribution has to follow"),
    ("loss 1", "1", 6, NO_PERCENT),
    ("loss 0.02", "0.02", 6, NO_PERCENT),
    ("loss 101%", "101%", 6, "a percentage is at most 100%"),
    ("loss 100.0000000001%", "100.0000000001%", 6, "a percentage is at most 100%"),
    ("loss -1%", "-1%", 6, "a decimal number is expected here"),
    ("loss 1% 2", "2", 9, NO_PERCENT),
    (
        "loss bursty 1%",
        "bursty",
        6,
        "expected a percentage, random, gemodel, state, every or frames",
    ),
    ("loss", "loss", 1, "a percentage has to follow"),
    ("loss random", "random", 6, "a percentage has to follow"),
    ("loss gemodel", "gemodel", 6, "a percentage has to follow"),
    ("loss gemodel 1% 2% 3% 4% 5%", "5%", 26, MORE),
    ("loss state 60% 1% 0% 0% 41%", "state", 6, "P13 and P14 are at most 100% together"),
    ("loss state 60% 60% 41%", "state", 6, "P31 and P32 are at most 100% together"),
    ("loss every 0", "0", 12, "a number from 1 is expected here"),
    ("loss every 1%", "1%", 12, WHOLE),
    ("loss frames 0", "0", 13, ASCEND),
    ("loss frames 3,2", "2", 15, ASCEND),
    ("loss frames 3,3", "3", 15, ASCEND),
    ("loss frames 5-4", "5-4", 13, ASCEND),
    ("loss frames 1-3,3", "3", 17, ASCEND),
    ("loss frames 1,,2", "1,,2", 13, "expected numbers and ranges such as 3,7-9"),
    ("loss frames 1-", "1-", 13, "expected numbers and ranges such as 3,7-9"),
    ("loss frames 1-2-3", "2-3", 15, WHOLE),
    (
        "loss frames 99999999999999999999",
        "99999999999999999999",
        13,
        "a whole number is below 2^64",
    ),
    ("ecn", "ecn", 1, "it needs a loss"),
    ("rate 10", "10", 6, NO_RATE),
    ("rate 10mb", "10mb", 6, NO_RATE),
    ("rate 0", "0", 6, "a rate is from 1bit to 1tbit"),
    ("rate 0.9bit", "0.9bit", 6, "a rate is from 1bit to 1tbit"),
    ("rate 1.1tbit", "1.1tbit", 6, "a rate is from 1bit to 1tbit"),
    ("rate 1mbit 24b", "24b", 12, OVERHEAD),
    ("rate 1mbit -101", "-101", 12, OVERHEAD),
    (
        "rate 1mbit 0 -1",
        "-1",
        14,
        "a whole number from 0 to 65535 is expected here, without a unit",
    ),
    ("rate 1mbit 0 48 1001", "1001", 17, OVERHEAD),
    ("rate 1mbit 0 48 5 6", "6", 19, MORE),
    ("rate 1mbit +5", "+5", 12, OVERHEAD),
    ("limit 1.5", "1.5", 7, WHOLE),
    (
        "limit 10gb",
        "10gb",
        7,
        "a limit is a number of frames, bytes with b, kb or mb, or a time with ns, us, ms or s",
    ),
    ("limit 99999999999999999999mb", "99999999999999999999mb", 7, "a limit is below 2^64 bytes"),
    ("mark 5ms", "mark", 1, "it needs a rate or a trace"),
    ("reorder 25%", "reorder", 1, "with a percentage it needs a delay"),
    ("delay 1ms reorder gap 2", "gap", 19, "it needs a reorder with a percentage"),
    ("delay 1ms reorder 1% gap 0", "0", 26, "a number from 1 is expected here"),
    ("rate 1mbit trace /tmp/a", "trace", 12, "it stands in place of a rate, not beside one"),
    ("trace /tmp/a 0", "0", 14, "a number from 1 is expected here"),
    ("trace", "trace", 1, "a path has to follow"),
    ("seed -1", "-1", 6, WHOLE),
    ("seed 18446744073709551616", "18446744073709551616", 6, "a whole number is below 2^64"),
];

#[test]
fn errors_say_which_word_where_and_what_was_expected() {
    for (text, word, at, why) in WRONG {
        let error = Spec::parse(text.as_bytes()).expect_err(text).to_string();
        assert_eq!(error, format!("\"{word}\" at {at}: {why}"), "{text}");
    }
}

#[test]
fn long_texts() {
    let text = |len: usize| [b"seed 1".as_slice(), &vec![b' '; len - 6]].concat();
    assert!(Spec::parse(&text(128 << 10)).is_ok());
    assert!(Spec::parse(&text((128 << 10) + 1)).is_err());
    // An error shows the front of a long word.
    let error = Spec::parse(&[b'x'; 100]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("\"{}...\" at 1: ", "x".repeat(40))), "{error}");
}

#[test]
fn bytes_that_are_no_text() {
    let spec = Spec::parse(b"trace /\xff\xfe 3").unwrap();
    assert_eq!(spec.print(), b"trace /\xff\xfe 3");
    assert!(Spec::parse(b"delay \xff").is_err());
    assert!(Spec::parse(b"\0").is_err());
    // Every byte at every place of a text that has most words is read or refused.
    let text = b"delay 1ms 2ms 3% loss state 1% ecn rate 1mbit -1 48 limit 1kb reorder 1% gap 2 match 1,6 0 0 1";
    for at in 0..text.len() {
        for byte in 0..=255 {
            let mut text = text.to_vec();
            text[at] = byte;
            let _ = Spec::parse(&text);
        }
        let _ = Spec::parse(&text[..at]);
    }
}

#[test]
fn the_text_in_force_has_its_seed() {
    let mut lab = Lab::new("");
    assert_eq!(lab.direction.text(), b"");
    lab.set(0, "loss 1%");
    assert_eq!(lab.direction.text(), b"loss 1% seed 0");
    lab.set(0, "seed 7 delay 1ms");
    assert_eq!(lab.direction.text(), b"delay 1ms seed 7");
    lab.set(0, "");
    assert_eq!(lab.direction.text(), b"");
    lab.set(0, "loss 2%");
    assert_eq!(lab.direction.text(), b"loss 2% seed 7");
}
