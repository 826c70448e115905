//! Which frames are lost.

use crate::emulation::quantity::Percent;
use crate::emulation::random::{Purpose, Streams};
use crate::emulation::spec::{Chance, Loss};

/// A loss with its defaults filled in. Probabilities are thresholds.
#[derive(PartialEq, Eq)]
enum Model {
    Random {
        below: u128,
        again: u128,
    },
    /// Gilbert-Elliott. Of each pair, the first is for the good state, the second for the bad one.
    Gemodel {
        lost: [u128; 2],
        leaves: [u128; 2],
    },
    /// The model of four states. A threshold for two transitions is the sum of both.
    State {
        p14: u128,
        p13_p14: u128,
        p23: u128,
        p32: u128,
        p31_p32: u128,
    },
    Every(u64),
    Frames(Vec<(u64, u64)>),
}

impl Model {
    fn of(loss: &Loss) -> Model {
        match loss {
            Loss::Random(Chance { percent, correlation }) => {
                let again = correlation.map_or(0, Percent::threshold);
                Model::Random { below: percent.threshold(), again }
            }
            Loss::Gemodel(given) => {
                let defaults = [given[0].rest(), Percent::HUNDRED, Percent::ZERO];
                let [p, r, h, k] = thresholds(given, defaults);
                Model::Gemodel { lost: [k, h], leaves: [p, r] }
            }
            Loss::State(given) => {
                let zero = Percent::ZERO;
                let defaults = [given[0].rest(), zero, Percent::HUNDRED, zero];
                let [p13, p31, p32, p23, p14] = thresholds(given, defaults);
                Model::State { p14, p13_p14: p13 + p14, p23, p32, p31_p32: p31 + p32 }
            }
            Loss::Every(number) => Model::Every(*number),
            Loss::Frames(ranges) => Model::Frames(ranges.clone()),
        }
    }
}

/// The thresholds of the percentages that were given, and of the defaults of all behind the first.
fn thresholds<const ALL: usize, const REST: usize>(
    given: &[Percent],
    defaults: [Percent; REST],
) -> [u128; ALL] {
    std::array::from_fn(|at| match given.get(at) {
        Some(percent) => percent.threshold(),
        None => defaults[at - 1].threshold(),
    })
}

/// A state of the model of four states.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    GoodInBurst,
    LostInBurst,
    LostAlone,
}

/// Loses frames, and remembers what the loss depends on.
pub struct Loser {
    model: Model,
    is_bad: bool,
    state: State,
    /// How many frames there were, where they are counted.
    number: u64,
}

impl Loser {
    pub fn new(loss: &Loss) -> Loser {
        Loser { model: Model::of(loss), is_bad: false, state: State::Good, number: 0 }
    }

    /// Whether it loses by the same rule as another, so that it may take the other's place.
    pub fn is_like(&self, other: &Loser) -> bool {
        self.model == other.model
    }

    /// Whether the next frame is lost.
    #[inline]
    pub fn loses(&mut self, streams: &mut Streams) -> bool {
        match self.model {
            Model::Random { below, again } => {
                u128::from(streams.of(Purpose::Loss).value(again)) < below
            }
            _ => self.loses_by_model(streams),
        }
    }

    fn loses_by_model(&mut self, streams: &mut Streams) -> bool {
        match &self.model {
            Model::Random { .. } => false,
            Model::Gemodel { lost, leaves } => {
                let state = usize::from(self.is_bad);
                let is_lost = u128::from(streams.of(Purpose::Loss).draw()) < lost[state];
                self.is_bad ^= u128::from(streams.of(Purpose::LossState).draw()) < leaves[state];
                is_lost
            }
            Model::State { p14, p13_p14, p23, p32, p31_p32 } => {
                let draw = u128::from(streams.of(Purpose::LossState).draw());
                self.state = match self.state {
                    State::Good if draw < *p14 => State::LostAlone,
                    State::Good if draw < *p13_p14 => State::LostInBurst,
                    State::GoodInBurst if draw < *p23 => State::LostInBurst,
                    State::LostInBurst if draw < *p32 => State::GoodInBurst,
                    State::LostInBurst if draw < *p31_p32 => State::Good,
                    State::LostAlone => State::Good,
                    state => state,
                };
                matches!(self.state, State::LostInBurst | State::LostAlone)
            }
            Model::Every(number) => {
                self.number += 1;
                self.number % *number == 0
            }
            Model::Frames(ranges) => {
                self.number += 1;
                let range = ranges.partition_point(|(_, last)| *last < self.number);
                ranges.get(range).is_some_and(|(first, _)| *first <= self.number)
            }
        }
    }
}
