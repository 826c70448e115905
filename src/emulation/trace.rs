//! Mahimahi traces: each line is the millisecond at which so many bytes may leave, over and over.

use std::str;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The largest file, in bytes.
const LARGEST: usize = 16 << 20;
/// How many bytes may leave at a line, unless a text says otherwise.
const BYTES: u64 = 1514;
/// The latest line, about 31 years, so that a trace's length has room in nanoseconds.
const LATEST: u64 = 1_000_000_000_000;

const NS: u64 = 1_000_000;

/// The lines of a file. They do not fall, and the last is above 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Trace(Vec<u64>);

impl Trace {
    pub fn parse(file: &[u8]) -> Result<Trace> {
        if file.len() > LARGEST {
            return Err(Error::invalid("a trace has at most 16 MiB"));
        }
        let mut lines: Vec<u64> = Vec::new();
        for line in file.strip_suffix(b"\n").unwrap_or(file).split(|byte| *byte == b'\n') {
            let number = line.trim_ascii();
            let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            let text = str::from_utf8(number).ok().filter(|_| is_number);
            let ms = text.and_then(|text| text.parse().ok()).filter(|ms| *ms <= LATEST);
            let wrong = |what: &str| {
                Error::invalid(format!("line {} of the trace {what}", lines.len() + 1))
            };
            let ms = ms.ok_or_else(|| wrong("is no whole number of milliseconds up to 10^12"))?;
            if lines.last().is_some_and(|before| *before > ms) {
                return Err(wrong("is less than the one before"));
            }
            lines.push(ms);
        }
        match lines.last() {
            None | Some(0) => Err(Error::invalid("the last line of a trace is above 0")),
            Some(_) => Ok(Trace(lines)),
        }
    }
}

/// A place in a trace that has begun: a line, counted over all rounds, and what is left of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: u64,
    left: u64,
}

/// A trace that is being followed. Whatever lies ahead of its place has not been used.
pub struct Course {
    trace: Arc<Trace>,
    bytes: u64,
    /// The time of its millisecond 0.
    start: u64,
    place: Place,
}

impl Course {
    pub fn begin(trace: Arc<Trace>, bytes: Option<u64>, start: u64) -> Course {
        let bytes = bytes.unwrap_or(BYTES);
        Course { trace, bytes, start, place: Place { line: 0, left: bytes } }
    }

    /// Begins anew.
    pub fn restart(&mut self, start: u64) {
        (self.start, self.place) = (start, Place { line: 0, left: self.bytes });
    }

    /// When the sending of a frame begins that came at `came`, while nothing is sent until `free`.
    pub fn start_of(&self, came: u64, free: u64) -> u64 {
        self.time(self.first(came, free).line)
    }

    /// When the sending of a frame would begin for which `ahead` bytes wait first, of which the first came
    /// at `came`.
    pub fn start_behind(&self, ahead: u64, came: u64, free: u64) -> u64 {
        self.time(self.behind(self.first(came, free), ahead).line)
    }

    /// When the last byte leaves of a frame of `len` bytes.
    pub fn end_of(&self, len: u64, came: u64, free: u64) -> u64 {
        self.start_behind(len.saturating_sub(1), came, free)
    }

    /// Uses up the bytes of such a frame.
    pub fn send(&mut self, len: u64, came: u64, free: u64) {
        let Place { line, left } = self.behind(self.first(came, free), len.saturating_sub(1));
        self.place = Place { line, left: left - 1 };
    }

    /// The place of the first byte that a frame may have: at a line behind the time when it came.
    fn first(&self, came: u64, free: u64) -> Place {
        let earliest = free.max(came.saturating_add(1));
        let Place { line, left } = self.place;
        if left > 0 && self.time(line) >= earliest {
            return self.place;
        }
        let next = if left < self.bytes { line + 1 } else { line };
        Place { line: next.max(self.line_from(earliest)), left: self.bytes }
    }

    /// The place behind `bytes` more, with at least one byte left.
    fn behind(&self, place: Place, bytes: u64) -> Place {
        let Some(beyond) = bytes.checked_sub(place.left) else {
            return Place { line: place.line, left: place.left - bytes };
        };
        let line = place.line + 1 + beyond / self.bytes;
        Place { line, left: self.bytes - beyond % self.bytes }
    }

    /// The first line that is not before that time.
    fn line_from(&self, time: u64) -> u64 {
        let ms = time.saturating_sub(self.start).div_ceil(NS);
        let round = ms.saturating_sub(1) / self.length();
        let lines = &self.trace.0;
        let line = lines.partition_point(|line| round * self.length() + line < ms);
        round * lines.len() as u64 + line as u64
    }

    fn time(&self, line: u64) -> u64 {
        let lines = &self.trace.0;
        let (round, line) = (line / lines.len() as u64, line % lines.len() as u64);
        let ms = round.saturating_mul(self.length()).saturating_add(lines[line as usize]);
        ms.saturating_mul(NS).saturating_add(self.start)
    }

    /// How long a round takes, in milliseconds.
    fn length(&self) -> u64 {
        self.trace.0.last().copied().unwrap_or(1)
    }
}
