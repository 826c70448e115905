//! Reads a text: words in any order, each once, with their arguments.

use crate::emulation::bpf::Program;
use crate::emulation::distribution::Distribution;
use crate::emulation::quantity::{self, Limit, Percent};
use crate::emulation::spec::{Chance, Delay, Jitter, Loss, Rate, Reorder, Spec, TraceFile};
use crate::emulation::words::{Word, Words};
use crate::error::{Error, Result};

/// The longest text, in bytes.
const LONGEST: usize = 128 << 10;

/// The longest seed, which is told with a text that has none.
const SEED: &str = " seed 18446744073709551615";

const A_WORD: &str = "expected one of delay, distribution, loss, ecn, duplicate, corrupt, rate, limit, mark, \
                      reorder, gap, trace, seed, match";
const A_DISTRIBUTION: &str = "expected uniform, normal, pareto or paretonormal";

/// What a text has said so far. Each word is there with what it said, until all are seen: which of them
/// need others is judged at the end, since they stand in any order.
#[derive(Default)]
struct Text<'a> {
    delay: Said<'a, TimeAndJitter>,
    distribution: Said<'a, Distribution>,
    loss: Said<'a, Loss>,
    ecn: Said<'a, ()>,
    duplicate: Said<'a, Chance>,
    corrupt: Said<'a, Chance>,
    rate: Said<'a, Rate>,
    limit: Said<'a, Limit>,
    mark: Said<'a, u64>,
    reorder: Said<'a, Option<Chance>>,
    gap: Said<'a, u64>,
    trace: Said<'a, TraceFile>,
    seed: Said<'a, u64>,
    program: Said<'a, Program>,
}

type Said<'a, T> = Option<(Word<'a>, T)>;

/// A delay's time, and its JITTER with the CORRELATION of that.
type TimeAndJitter = (u64, Option<(u64, Option<Percent>)>);

impl Spec {
    /// Reads a text. One without words asks for nothing.
    pub fn parse(text: &[u8]) -> Result<Spec> {
        if text.len() > LONGEST {
            return Err(Error::invalid("a text has at most 128 KiB"));
        }
        let mut words = Words::of(text);
        let mut said = Text::default();
        while let Some(word) = words.next() {
            said.read(word, &mut words)?;
        }
        said.judge()?;
        Ok(said.into_spec())
    }

    /// Whether what is told of it, its seed included, is a text that may be set again.
    pub fn is_short(&self) -> bool {
        let seed = if self.seed.is_none() { SEED.len() } else { 0 };
        self.print().len() + seed <= LONGEST
    }
}

impl<'a> Text<'a> {
    /// Reads a word and its arguments.
    fn read(&mut self, word: Word<'a>, words: &mut Words<'a>) -> Result<()> {
        let w = &word;
        match &*word.lower() {
            "delay" => put(&mut self.delay, word, delay(w, words)?),
            "distribution" => put(&mut self.distribution, word, distribution(w, words)?),
            "loss" => put(&mut self.loss, word, loss(w, words)?),
            "ecn" => put(&mut self.ecn, word, ()),
            "duplicate" => put(&mut self.duplicate, word, chance(w, words)?),
            "corrupt" => put(&mut self.corrupt, word, chance(w, words)?),
            "rate" => put(&mut self.rate, word, rate(w, words)?),
            "limit" => {
                put(&mut self.limit, word, Limit::read(&words.after(w, "how much may wait")?)?)
            }
            "mark" => put(&mut self.mark, word, quantity::time(&words.after(w, "a time")?)?),
            "reorder" => put(&mut self.reorder, word, optional_chance(words)?),
            "gap" => put(&mut self.gap, word, quantity::counted(&words.after(w, "a number")?)?),
            "trace" => put(&mut self.trace, word, trace(w, words)?),
            "seed" => put(&mut self.seed, word, quantity::whole(&words.after(w, "a number")?)?),
            "match" => put(&mut self.program, word, Program::read(w, words)?),
            _ => Err(word.error(A_WORD)),
        }
    }

    /// Judges which words need others, or exclude them.
    fn judge(&self) -> Result<()> {
        let has_jitter = self.delay.as_ref().is_some_and(|(_, (_, jitter))| jitter.is_some());
        let has_percent = self.reorder.as_ref().is_some_and(|(_, chance)| chance.is_some());
        needs(&self.distribution, has_jitter, "it needs a delay with a JITTER")?;
        needs(&self.ecn, self.loss.is_some(), "it needs a loss")?;
        needs(
            &self.mark,
            self.rate.is_some() || self.trace.is_some(),
            "it needs a rate or a trace",
        )?;
        let has_cause = !has_percent || self.delay.is_some();
        needs(&self.reorder, has_cause, "with a percentage it needs a delay")?;
        needs(&self.gap, has_percent, "it needs a reorder with a percentage")?;
        needs(&self.trace, self.rate.is_none(), "it stands in place of a rate, not beside one")
    }

    fn into_spec(self) -> Spec {
        let distribution = value(self.distribution);
        let delay = value(self.delay).map(|(time, jitter)| {
            let jitter =
                jitter.map(|(time, correlation)| Jitter { time, correlation, distribution });
            Delay { time, jitter }
        });
        let gap = value(self.gap);
        Spec {
            delay,
            loss: value(self.loss),
            is_ecn: self.ecn.is_some(),
            duplicate: value(self.duplicate),
            corrupt: value(self.corrupt),
            rate: value(self.rate),
            limit: value(self.limit),
            mark: value(self.mark),
            reorder: value(self.reorder).map(|chance| Reorder { chance, gap }),
            trace: value(self.trace),
            seed: value(self.seed),
            program: value(self.program),
        }
    }
}

fn value<T>(said: Said<'_, T>) -> Option<T> {
    said.map(|(_, value)| value)
}

fn put<'a, T>(said: &mut Said<'a, T>, word: Word<'a>, value: T) -> Result<()> {
    if said.is_some() {
        return Err(word.error("this word was there before"));
    }
    *said = Some((word, value));
    Ok(())
}

fn needs<T>(said: &Said<'_, T>, has_it: bool, what: &str) -> Result<()> {
    match said {
        Some((word, _)) if !has_it => Err(word.error(what)),
        _ => Ok(()),
    }
}

fn delay(word: &Word<'_>, words: &mut Words<'_>) -> Result<TimeAndJitter> {
    let time = quantity::time(&words.after(word, "a time")?)?;
    let Some(jitter) = words.argument() else {
        return Ok((time, None));
    };
    let jitter = quantity::time(&jitter)?;
    Ok((time, Some((jitter, optional_percent(words)?))))
}

fn distribution(word: &Word<'_>, words: &mut Words<'_>) -> Result<Distribution> {
    let name = words.after(word, "the name of a distribution")?;
    Distribution::named(&name.lower()).ok_or_else(|| name.error(A_DISTRIBUTION))
}

fn chance(word: &Word<'_>, words: &mut Words<'_>) -> Result<Chance> {
    let percent = Percent::read(&words.after(word, "a percentage")?)?;
    Ok(Chance { percent, correlation: optional_percent(words)? })
}

fn optional_percent(words: &mut Words<'_>) -> Result<Option<Percent>> {
    words.argument().map(|word| Percent::read(&word)).transpose()
}

fn optional_chance(words: &mut Words<'_>) -> Result<Option<Chance>> {
    let Some(percent) = optional_percent(words)? else {
        return Ok(None);
    };
    Ok(Some(Chance { percent, correlation: optional_percent(words)? }))
}

fn loss(word: &Word<'_>, words: &mut Words<'_>) -> Result<Loss> {
    let kind = words.clone().next().filter(|kind| kind.bytes[0].is_ascii_alphabetic());
    let Some(kind) = kind else {
        return Ok(Loss::Random(chance(word, words)?));
    };
    words.go_behind(&kind);
    match &*kind.lower() {
        "random" => Ok(Loss::Random(chance(&kind, words)?)),
        "gemodel" => Ok(Loss::Gemodel(percents(&kind, words, 4)?)),
        "state" => state(&kind, words),
        "every" => Ok(Loss::Every(quantity::counted(&words.after(&kind, "a number")?)?)),
        "frames" => Ok(Loss::Frames(ranges(&words.after(&kind, "a list of numbers")?)?)),
        _ => Err(kind.error("expected a percentage, random, gemodel, state, every or frames")),
    }
}

/// The percentages of a model: one at least, `most` at most.
fn percents(kind: &Word<'_>, words: &mut Words<'_>, most: usize) -> Result<Vec<Percent>> {
    let mut percents = vec![Percent::read(&words.after(kind, "a percentage")?)?];
    while percents.len() < most {
        let Some(percent) = optional_percent(words)? else {
            break;
        };
        percents.push(percent);
    }
    Ok(percents)
}

fn state(kind: &Word<'_>, words: &mut Words<'_>) -> Result<Loss> {
    let percents = percents(kind, words, 5)?;
    let at_most =
        |one: usize, other: usize, names: &str| match (percents.get(one), percents.get(other)) {
            (Some(one), Some(other)) if !one.fits_with(*other) => {
                Err(kind.error(&format!("{names} are at most 100% together")))
            }
            _ => Ok(()),
        };
    at_most(0, 4, "P13 and P14")?;
    at_most(1, 2, "P31 and P32")?;
    Ok(Loss::State(percents))
}

fn ranges(list: &Word<'_>) -> Result<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut at = list.at;
    for bytes in list.bytes.split(|byte| *byte == b',') {
        let item = Word { bytes, at };
        at += bytes.len() + 1;
        let (first, last) = range(list, &item)?;
        let before = ranges.last().map_or(0, |(_, last)| *last);
        if first <= before || last < first {
            return Err(item.error("a list's numbers ascend, from 1"));
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

/// A number, or two with a hyphen between them.
fn range(list: &Word<'_>, item: &Word<'_>) -> Result<(u64, u64)> {
    let hyphen = item.bytes.iter().position(|byte| *byte == b'-');
    let (first, last) = match hyphen {
        Some(hyphen) => (&item.bytes[..hyphen], &item.bytes[hyphen + 1..]),
        None => (item.bytes, item.bytes),
    };
    if first.is_empty() || last.is_empty() {
        return Err(list.error("expected numbers and ranges such as 3,7-9"));
    }
    let first = Word { bytes: first, at: item.at };
    let last = Word { bytes: last, at: item.at + hyphen.map_or(0, |hyphen| hyphen + 1) };
    Ok((quantity::whole(&first)?, quantity::whole(&last)?))
}

fn rate(word: &Word<'_>, words: &mut Words<'_>) -> Result<Rate> {
    let bits_per_second = quantity::rate(&words.after(word, "a rate")?)?;
    let mut extra = |least, most| {
        let word = words.argument();
        word.map(|word| quantity::within(&word, least, most)).transpose()
    };
    let overhead = extra(-100, 1000)?;
    let cell = extra(0, 65535)?.map(i64::unsigned_abs);
    let cell_overhead = extra(-100, 1000)?;
    Ok(Rate { bits_per_second, overhead, cell, cell_overhead })
}

fn trace(word: &Word<'_>, words: &mut Words<'_>) -> Result<TraceFile> {
    let path = words.after(word, "a path")?.bytes.to_vec();
    let bytes = words.clone().next().filter(|next| next.bytes[0].is_ascii_digit());
    let bytes = bytes.inspect(|next| words.go_behind(next));
    let bytes = bytes.map(|bytes| quantity::counted(&bytes)).transpose()?;
    Ok(TraceFile { path, bytes })
}
