//! How a jitter is spread.
//!
//! The tables hold the inverse distributions at every 4096th, from 0 to 1. `tables.py` makes them.

/// 1 in the tables.
pub const ONE_BITS: u32 = 20;

const STEPS: usize = 4096;

/// One table after another, each number in three bytes, the lowest first.
static TABLES: [u8; 3 * 3 * (STEPS + 1)] = *include_bytes!("tables.bin");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    Uniform,
    Normal,
    Pareto,
    ParetoNormal,
}

const NAMES: [(&str, Distribution); 4] = [
    ("uniform", Distribution::Uniform),
    ("normal", Distribution::Normal),
    ("pareto", Distribution::Pareto),
    ("paretonormal", Distribution::ParetoNormal),
];

impl Distribution {
    pub fn named(name: &str) -> Option<Distribution> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, distribution)| *distribution)
    }

    pub fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// The value that a random number stands for.
    pub fn quantile(self, random: u64) -> i64 {
        let step = (random >> 52) as usize;
        let part = i64::from((random >> 20) as u32);
        let (from, to) = (self.at(step), self.at(step + 1));
        from + (((to - from) * part) >> 32)
    }

    /// The least value.
    pub fn least(self) -> i64 {
        self.at(0)
    }

    fn at(self, step: usize) -> i64 {
        let table = match self {
            Distribution::Uniform => return (step as i64 - STEPS as i64 / 2) << (ONE_BITS - 11),
            Distribution::Normal => 0,
            Distribution::Pareto => 1,
            Distribution::ParetoNormal => 2,
        };
        let at = 3 * (table * (STEPS + 1) + step);
        let [low, middle, high] = [TABLES[at], TABLES[at + 1], TABLES[at + 2]];
        i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
    }
}
