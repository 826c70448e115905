//! Random numbers: a stream for each purpose and direction, so that none disturbs another.

/// What SplitMix64 adds for each output.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 by Sebastiano Vigna: turns its counter into an output.
#[inline]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The two directions of a connection, by the numbers that they have in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    In = 1,
    Out = 2,
}

/// What the random numbers of a stream decide.
#[derive(Clone, Copy)]
pub enum Purpose {
    Loss,
    LossState,
    Duplicate,
    Corrupt,
    Bit,
    Jitter,
    Reorder,
}

const PURPOSES: usize = Purpose::Reorder as usize + 1;

/// All streams of a direction.
pub struct Streams([Stream; PURPOSES]);

impl Streams {
    pub fn new(seed: u64, side: Side) -> Streams {
        let number = |purpose: usize| 16 * side as u64 + purpose as u64 + 1;
        let base = |purpose| mix(seed.wrapping_add(number(purpose).wrapping_mul(GAMMA)));
        let streams = std::array::from_fn(|purpose| Stream { counter: base(purpose), last: None });
        Streams(streams)
    }

    #[inline]
    pub fn of(&mut self, purpose: Purpose) -> &mut Stream {
        &mut self.0[purpose as usize]
    }
}

pub struct Stream {
    counter: u64,
    /// The value by which the last decision was taken.
    last: Option<u64>,
}

impl Stream {
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(GAMMA);
        mix(self.counter)
    }

    /// A value to decide by, which is the one of the last decision if a draw is below `again`. It takes two
    /// draws, of which the first is not computed where nothing depends on it.
    #[inline]
    pub fn value(&mut self, again: u128) -> u64 {
        if again > 0 {
            return self.correlated(again);
        }
        self.counter = self.counter.wrapping_add(GAMMA);
        let value = self.draw();
        self.last = Some(value);
        value
    }

    fn correlated(&mut self, again: u128) -> u64 {
        let (first, second) = (self.draw(), self.draw());
        let value = self.last.filter(|_| u128::from(first) < again).unwrap_or(second);
        self.last = Some(value);
        value
    }
}
