//! Numbers with their units: read exactly, in integers, and printed in the largest unit in which they
//! are whole.

use std::fmt;

use crate::emulation::words::Word;
use crate::error::Result;

/// How many digits may stand behind a point, and the unit in which numbers are read: the last of them.
const DIGITS: usize = 10;
const ONE: u128 = 10_u128.pow(DIGITS as u32);

/// 1000 s.
const LONGEST: u128 = 1_000_000_000_000;
/// 1 tbit/s.
const FASTEST: u128 = 1_000_000_000_000;

type Unit = (&'static str, u64);

/// The units, the largest first.
const TIMES: [Unit; 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];
const RATES: [Unit; 5] = [
    ("tbit", 1_000_000_000_000),
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1000),
    ("bit", 1),
];
const SIZES: [Unit; 3] = [("mb", 1 << 20), ("kb", 1 << 10), ("b", 1)];

const NO_TIME: &str = "a time needs its unit: ns, us, ms or s";
const NO_RATE: &str = "a rate needs its unit: bit, kbit, mbit, gbit or tbit";
const NO_PERCENT: &str = "a percentage ends in %";
const NO_LIMIT: &str =
    "a limit is a number of frames, bytes with b, kb or mb, or a time with ns, us, ms or s";

/// A part of a hundred: as it was given, in units of the last digit that may stand behind the point,
/// and the threshold that it stands for. A draw below the threshold is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent {
    given: u64,
    threshold: u128,
}

impl Percent {
    pub const ZERO: Percent = Percent::of(0);
    pub const HUNDRED: Percent = Percent::of(100 * ONE as u64);

    const fn of(given: u64) -> Percent {
        Percent { given, threshold: ((given as u128) << 64) / (100 * ONE) }
    }

    pub fn read(word: &Word<'_>) -> Result<Percent> {
        let (number, unit) = split(word)?;
        match &*unit {
            "%" => {}
            "" if number == 0 => {}
            _ => return Err(word.error(NO_PERCENT)),
        }
        if number > 100 * ONE {
            return Err(word.error("a percentage is at most 100%"));
        }
        Ok(Percent::of(number as u64))
    }

    /// floor(p 2^64).
    pub fn threshold(self) -> u128 {
        self.threshold
    }

    /// What is missing to 100%.
    pub fn rest(self) -> Percent {
        Percent::of(Percent::HUNDRED.given - self.given)
    }

    /// Whether it and another are at most 100% together.
    pub fn fits_with(self, other: Percent) -> bool {
        self.given + other.given <= Percent::HUNDRED.given
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.given / ONE as u64, self.given % ONE as u64);
        let digits = format!("{part:010}");
        let digits = digits.trim_end_matches('0');
        write!(f, "{whole}{}{digits}%", if digits.is_empty() { "" } else { "." })
    }
}

/// How much may wait for a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Frames(u64),
    Bytes(u64),
    Time(u64),
}

impl Limit {
    pub fn read(word: &Word<'_>) -> Result<Limit> {
        let (number, unit) = split(word)?;
        if unit.is_empty() {
            return Ok(Limit::Frames(whole(word)?));
        }
        if unit_of(&unit, &TIMES).is_some() {
            return Ok(Limit::Time(time(word)?));
        }
        let scale = unit_of(&unit, &SIZES).ok_or_else(|| word.error(NO_LIMIT))?;
        let bytes = number.saturating_mul(scale) / ONE;
        let bytes = u64::try_from(bytes).map_err(|_| word.error("a limit is below 2^64 bytes"))?;
        Ok(Limit::Bytes(bytes))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Limit::Frames(frames) => write!(f, "{frames}"),
            Limit::Bytes(bytes) => print(f, bytes, &SIZES),
            Limit::Time(time) => print(f, time, &TIMES),
        }
    }
}

/// Nanoseconds, to be printed with a unit.
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &TIMES)
    }
}

/// Bits a second, to be printed with a unit.
pub struct Speed(pub u64);

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &RATES)
    }
}

/// Prints a number in the largest of its units in which it is whole.
fn print(f: &mut fmt::Formatter<'_>, number: u64, units: &[Unit]) -> fmt::Result {
    let fits = units.iter().find(|(_, scale)| number % *scale == 0);
    let (unit, scale) = fits.expect("the last unit is 1");
    write!(f, "{}{unit}", number / scale)
}

/// A time in whole nanoseconds.
pub fn time(word: &Word<'_>) -> Result<u64> {
    let (number, unit) = split(word)?;
    let scale = match unit_of(&unit, &TIMES) {
        Some(scale) => scale,
        None if unit.is_empty() && number == 0 => 1,
        None => return Err(word.error(NO_TIME)),
    };
    let scaled = number.saturating_mul(scale);
    if scaled > LONGEST * ONE {
        return Err(word.error("a time is at most 1000s"));
    }
    Ok((scaled / ONE) as u64)
}

/// A rate in whole bits a second.
pub fn rate(word: &Word<'_>) -> Result<u64> {
    let (number, unit) = split(word)?;
    let scale = match unit_of(&unit, &RATES) {
        Some(scale) => scale,
        None if unit.is_empty() && number == 0 => 1,
        None => return Err(word.error(NO_RATE)),
    };
    let scaled = number.saturating_mul(scale);
    if !(ONE..=FASTEST * ONE).contains(&scaled) {
        return Err(word.error("a rate is from 1bit to 1tbit"));
    }
    Ok((scaled / ONE) as u64)
}

/// A whole number that stands bare.
pub fn whole(word: &Word<'_>) -> Result<u64> {
    if !word.bytes.iter().all(u8::is_ascii_digit) {
        return Err(word.error("a whole number without a unit is expected here"));
    }
    word.lower().parse().map_err(|_| word.error("a whole number is below 2^64"))
}

/// The same, from 1.
pub fn counted(word: &Word<'_>) -> Result<u64> {
    match whole(word)? {
        0 => Err(word.error("a number from 1 is expected here")),
        number => Ok(number),
    }
}

/// A whole number in that range, which may be negative.
pub fn within(word: &Word<'_>, least: i64, most: i64) -> Result<i64> {
    let digits = word.bytes.strip_prefix(b"-").unwrap_or(word.bytes);
    let is_whole = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = word.lower().parse().ok().filter(|n| is_whole && (least..=most).contains(n));
    number.ok_or_else(|| {
        word.error(&format!(
            "a whole number from {least} to {most} is expected here, without a unit"
        ))
    })
}

fn unit_of(unit: &str, units: &[Unit]) -> Option<u128> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| (*scale).into())
}

/// The number that a word begins with, in units of its last possible digit, and the unit behind it. A
/// number that is too large for that is larger than any that is taken.
fn split(word: &Word<'_>) -> Result<(u128, String)> {
    let lower = word.lower();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.contains('.') {
        return Err(word.error("a decimal number is expected here"));
    }
    if part.len() > DIGITS {
        return Err(word.error("a number has at most ten digits behind its point"));
    }
    let digits = whole.bytes().chain(part.bytes()).chain((part.len()..DIGITS).map(|_| b'0'));
    let add = |sum: u128, digit| sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
    Ok((digits.fold(0, add), unit.to_owned()))
}
