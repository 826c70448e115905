//! What a text asks for, and how it is printed: in the order of the language's table, only what was
//! given.

mod parse;

use std::fmt::{self, Display};
use std::io::Write;

use crate::emulation::bpf::Program;
use crate::emulation::distribution::Distribution;
use crate::emulation::quantity::{Limit, Percent, Speed, Time};
use crate::emulation::random::Stream;

/// What a text asks for. Times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    pub delay: Option<Delay>,
    pub loss: Option<Loss>,
    pub is_ecn: bool,
    pub duplicate: Option<Chance>,
    pub corrupt: Option<Chance>,
    pub rate: Option<Rate>,
    pub limit: Option<Limit>,
    pub mark: Option<u64>,
    pub reorder: Option<Reorder>,
    pub trace: Option<TraceFile>,
    pub seed: Option<u64>,
    pub program: Option<Program>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    pub time: u64,
    pub jitter: Option<Jitter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jitter {
    pub time: u64,
    pub correlation: Option<Percent>,
    pub distribution: Option<Distribution>,
}

/// A probability, and how much a decision resembles the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    pub percent: Percent,
    pub correlation: Option<Percent>,
}

/// Which frames are lost. The percentages of a model are those that were given, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    Random(Chance),
    Gemodel(Vec<Percent>),
    State(Vec<Percent>),
    Every(u64),
    /// The first and last number of each range.
    Frames(Vec<(u64, u64)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub bits_per_second: u64,
    pub overhead: Option<i64>,
    pub cell: Option<u64>,
    pub cell_overhead: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reorder {
    pub chance: Option<Chance>,
    pub gap: Option<u64>,
}

/// A trace by its file. Whoever sets a text reads the file, and makes the path absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFile {
    pub path: Vec<u8>,
    pub bytes: Option<u64>,
}

impl Spec {
    /// Whether it asks for nothing.
    pub fn is_none(&self) -> bool {
        *self == Spec::default()
    }

    /// Whether nothing becomes of a frame but that it may be lost, marked in place of that, or left alone.
    pub fn only_loses(&self) -> bool {
        let is_altered = self.duplicate.is_some() || self.corrupt.is_some();
        let is_late = self.delay.is_some() || self.rate.is_some() || self.trace.is_some();
        !(is_altered || is_late)
    }

    /// The text of it. A path may hold any bytes.
    pub fn print(&self) -> Vec<u8> {
        let mut text = Line(Vec::new());
        if let Some(delay) = &self.delay {
            delay.print(&mut text);
        }
        if let Some(loss) = &self.loss {
            loss.print(&mut text);
        }
        if self.is_ecn {
            text.word("ecn");
        }
        let chances = [("duplicate", &self.duplicate), ("corrupt", &self.corrupt)];
        for (name, chance) in chances {
            if let Some(chance) = chance {
                text.word(name);
                text.word(chance);
            }
        }
        if let Some(rate) = &self.rate {
            text.named("rate", Some(Speed(rate.bits_per_second)));
            text.words(rate.overhead);
            text.words(rate.cell);
            text.words(rate.cell_overhead);
        }
        text.named("limit", self.limit);
        text.named("mark", self.mark.map(Time));
        if let Some(reorder) = &self.reorder {
            text.word("reorder");
            text.words(reorder.chance);
            text.named("gap", reorder.gap);
        }
        if let Some(trace) = &self.trace {
            text.word("trace ");
            text.0.extend(&trace.path);
            text.words(trace.bytes);
        }
        text.named("seed", self.seed);
        text.named("match", self.program.as_ref());
        text.0
    }
}

/// A text that is being printed.
struct Line(Vec<u8>);

impl Line {
    fn word(&mut self, word: impl Display) {
        let between = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{between}{word}").expect("memory takes every write");
    }

    fn words<T: Display>(&mut self, words: impl IntoIterator<Item = T>) {
        words.into_iter().for_each(|word| self.word(word));
    }

    /// A word and its argument, if that was given.
    fn named(&mut self, name: &str, argument: Option<impl Display>) {
        self.words(argument.map(|argument| format!("{name} {argument}")));
    }
}

impl Delay {
    fn print(&self, text: &mut Line) {
        text.named("delay", Some(Time(self.time)));
        if let Some(jitter) = &self.jitter {
            text.word(Time(jitter.time));
            text.words(jitter.correlation);
            text.named("distribution", jitter.distribution.map(Distribution::name));
        }
    }
}

impl Loss {
    fn print(&self, text: &mut Line) {
        text.word("loss");
        match self {
            Loss::Random(chance) => text.word(chance),
            Loss::Gemodel(percents) => {
                text.word("gemodel");
                text.words(percents);
            }
            Loss::State(percents) => {
                text.word("state");
                text.words(percents);
            }
            Loss::Every(number) => text.named("every", Some(number)),
            Loss::Frames(ranges) => {
                let range = |(first, last): &(u64, u64)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                };
                let list: Vec<_> = ranges.iter().map(range).collect();
                text.named("frames", Some(list.join(",")));
            }
        }
    }
}

impl Chance {
    /// Whether what has this chance happens this time.
    #[inline]
    pub fn falls(&self, stream: &mut Stream) -> bool {
        let again = self.correlation.as_ref().map_or(0, |correlation| correlation.threshold());
        u128::from(stream.value(again)) < self.percent.threshold()
    }
}

impl Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.percent)?;
        self.correlation.iter().try_for_each(|correlation| write!(f, " {correlation}"))
    }
}

impl Rate {
    /// How many bits the rate takes for a frame of `len` bytes, with overhead and cells.
    pub fn bits(&self, len: usize) -> u64 {
        let bytes = len.saturating_add_signed(self.overhead.unwrap_or(0) as isize) as u64;
        let bytes = match self.cell {
            None | Some(0) => bytes,
            Some(cell) => {
                let sent = cell.saturating_add_signed(self.cell_overhead.unwrap_or(0));
                bytes.div_ceil(cell) * sent
            }
        };
        8 * bytes
    }
}
