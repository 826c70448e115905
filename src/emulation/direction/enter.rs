//! Frames come in.

use crate::emulation::direction::Direction;
use crate::emulation::distribution::{Distribution, ONE_BITS};
use crate::emulation::ecn;
use crate::emulation::flight::{Moment, Run};
use crate::emulation::pacer::{Exact, Waiting};
use crate::emulation::random::Purpose;
use crate::emulation::spec::{Chance, Delay, Jitter};
use crate::emulation::store::Place;
use crate::frame::{PREFIX, Walk};

/// What the caller does with a frame that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on at once, from where it lies.
    Passes,
    /// It is lost or dropped, or held and leaves later. What it leaves at once may be due now.
    Stays,
}

/// What is changed in a frame's bytes.
#[derive(Clone, Copy, Default)]
struct Alteration {
    is_marked: bool,
    /// Which bit is flipped, counted from the first behind the addresses.
    flipped: Option<usize>,
}

/// The length of a frame's two addresses, which are never corrupted.
const ADDRESSES: usize = 12;

impl Direction {
    /// A frame comes in. One that would make it hold more than `room` bytes is dropped. `number` is the next
    /// one; a frame takes it when it begins to wait or fly.
    ///
    /// What was due before has left.
    #[inline]
    pub fn enter(&mut self, now: u64, frame: &[u8], room: u64, number: &mut u64) -> Verdict {
        let now = self.begin(now);
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        if let Some(program) = &self.spec.program
            && program.run(frame) == 0
        {
            self.tally.bypassed += 1;
            return Verdict::Passes;
        }
        let mut is_marked = false;
        if let Some(loser) = &mut self.loser
            && loser.loses(&mut self.streams)
        {
            if !self.spec.is_ecn || !ecn::is_capable(frame) {
                self.tally.lost += 1;
                self.tally.gone = self.tally.gone.wrapping_add(frame.len() as u64);
                return Verdict::Stays;
            }
            self.tally.marked += 1;
            is_marked = true;
        }
        let is_doubled = self.decides(Purpose::Duplicate, self.spec.duplicate);
        let verdict = self.enter_one(now, frame, is_marked, room, number);
        if is_doubled {
            self.enter_copy(now, frame, is_marked, room, number);
        }
        verdict
    }

    /// Whether all frames are treated alike, so that they may enter together.
    pub fn treats_alike(&self) -> bool {
        let spec = &self.spec;
        let has_jitter = self.jitter().is_some();
        let may_skip = spec.reorder.as_ref().is_some_and(|reorder| reorder.chance.is_some());
        let is_random = spec.duplicate.is_some() || spec.corrupt.is_some() || self.loser.is_some();
        !(is_random || has_jitter || may_skip || spec.program.is_some() || self.pacer.is_on())
    }

    /// Frames in wire format come in, of which all are treated alike.
    pub fn enter_run(
        &mut self,
        now: u64,
        wire: &[u8],
        frames: usize,
        room: u64,
        number: &mut u64,
    ) -> Verdict {
        debug_assert!(self.treats_alike());
        let now = self.begin(now);
        let bytes = (wire.len() - PREFIX * frames) as u64;
        if self.held_bytes() + bytes > room {
            for frame in Walk::over(wire) {
                self.enter(now, frame, room, number);
            }
            return Verdict::Stays;
        }
        self.tally.frames += frames as u64;
        self.tally.bytes += bytes;
        let time = self.due(now);
        let (mut rest, mut left) = (wire, frames);
        if time <= now && self.is_empty() {
            *number += frames as u64;
            self.highest = *number;
            return Verdict::Passes;
        }
        while left > 0 {
            let (place, frames, len) = self.store.push_run(rest, left);
            let due = Moment { time, number: *number };
            self.flight.push(Run { due, place, len: len as u32, frames: frames as u32 });
            *number += frames as u64;
            (rest, left) = (&rest[len..], left - frames);
        }
        Verdict::Stays
    }

    /// The time at which a frame comes in, which is no sooner than the one before it. What waits has begun
    /// until then.
    #[inline]
    fn begin(&mut self, now: u64) -> u64 {
        self.entered = self.entered.max(now);
        self.advance(self.entered);
        self.entered
    }

    /// Begins the sending of what waits, until `now`.
    #[inline]
    pub(super) fn advance(&mut self, now: u64) {
        while let Some((waiting, start, end)) = self.pacer.begin(now) {
            self.fly(&waiting, start, end);
        }
    }

    #[inline]
    fn decides(&mut self, purpose: Purpose, chance: Option<Chance>) -> bool {
        let Some(Chance { percent, correlation }) = chance else {
            return false;
        };
        u128::from(self.streams.of(purpose).value(correlation)) < percent.threshold()
    }

    /// The steps behind the duplicating, for a frame that goes on from where it lies if it can.
    #[inline]
    fn enter_one(
        &mut self,
        now: u64,
        frame: &[u8],
        is_marked: bool,
        room: u64,
        number: &mut u64,
    ) -> Verdict {
        let flipped = self.flips(frame);
        if self.is_refused(now, frame.len(), room) {
            return Verdict::Stays;
        }
        let alteration = Alteration { is_marked, flipped };
        if self.pacer.is_on() {
            self.wait(now, frame, alteration, number);
            return Verdict::Stays;
        }
        let due = self.due(now);
        if due > now || !self.is_empty() || is_marked || flipped.is_some() {
            self.hold(due, frame, alteration, number);
            return Verdict::Stays;
        }
        *number += 1;
        self.highest = *number;
        Verdict::Passes
    }

    /// The same for a copy, which does not lie anywhere.
    fn enter_copy(&mut self, now: u64, frame: &[u8], is_marked: bool, room: u64, number: &mut u64) {
        self.tally.duplicated += 1;
        self.tally.gone = self.tally.gone.wrapping_sub(frame.len() as u64);
        let alteration = Alteration { is_marked, flipped: self.flips(frame) };
        if self.is_refused(now, frame.len(), room) {
            return;
        }
        if self.pacer.is_on() {
            self.wait(now, frame, alteration, number);
        } else {
            let due = self.due(now);
            self.hold(due, frame, alteration, number);
        }
    }

    /// Which bit of a frame is to be flipped, if one is.
    #[inline]
    fn flips(&mut self, frame: &[u8]) -> Option<usize> {
        if !self.decides(Purpose::Corrupt, self.spec.corrupt) {
            return None;
        }
        self.tally.corrupted += 1;
        let bits = 8 * frame.len().saturating_sub(ADDRESSES) as u128;
        Some(((u128::from(self.streams.of(Purpose::Bit).draw()) * bits) >> 64) as usize)
    }

    /// Whether there is no room for a frame. It is counted then.
    #[inline]
    fn is_refused(&mut self, now: u64, len: usize, room: u64) -> bool {
        let len_u64 = len as u64;
        let has_room = self.held_bytes() + len_u64 <= room;
        let is_refused = !has_room || self.pacer.is_on() && !self.pacer.fits(now, len);
        if is_refused {
            self.tally.dropped += 1;
            self.tally.gone = self.tally.gone.wrapping_add(len_u64);
        }
        is_refused
    }

    /// Has a frame wait for the rate.
    fn wait(&mut self, now: u64, frame: &[u8], alteration: Alteration, number: &mut u64) {
        let came = Moment { time: now, number: *number };
        let place = self.keep(frame, alteration, number);
        self.pacer.push(Waiting { came, place, len: frame.len() as u32 });
        self.advance(now);
    }

    /// Holds a frame until it is due.
    #[inline]
    fn hold(&mut self, time: u64, frame: &[u8], alteration: Alteration, number: &mut u64) {
        let due = Moment { time, number: *number };
        let place = self.keep(frame, alteration, number);
        let len = (PREFIX + frame.len()) as u32;
        self.flight.push(Run { due, place, len, frames: 1 });
    }

    /// Copies a frame, and alters the copy.
    #[inline]
    fn keep(&mut self, frame: &[u8], alteration: Alteration, number: &mut u64) -> Place {
        *number += 1;
        let place = self.store.push(frame);
        let Alteration { is_marked, flipped } = alteration;
        if is_marked {
            ecn::mark(self.store.frame_mut(place, (PREFIX + frame.len()) as u32));
        }
        if let Some(bit) = flipped {
            let copy = self.store.frame_mut(place, (PREFIX + frame.len()) as u32);
            if let Some(byte) = copy.get_mut(ADDRESSES + bit / 8) {
                *byte ^= 0x80 >> (bit % 8);
            }
        }
        place
    }

    /// The sending of a frame that waited has begun: from its end on it takes the delay.
    pub(super) fn fly(&mut self, waiting: &Waiting, start: Exact, end: u64) {
        let len = waiting.len + PREFIX as u32;
        let waited_until = self.spec.mark.map(|mark| Exact::at(waiting.came.time + mark));
        if waited_until.is_some_and(|until| start > until) {
            let frame = self.store.frame_mut(waiting.place, len);
            if ecn::is_capable(frame) {
                self.tally.marked += 1;
                ecn::mark(frame);
            }
        }
        let due = Moment { time: self.due(end), number: waiting.came.number };
        self.flight.push(Run { due, place: waiting.place, len, frames: 1 });
    }

    /// When a frame leaves of which the last bit is sent at `sent`.
    #[inline]
    fn due(&mut self, sent: u64) -> u64 {
        let is_early = self.skips_delay();
        let delay = if is_early { 0 } else { self.delay() };
        let due = sent.saturating_add(delay);
        let due = if self.spec.reorder.is_none() { due.max(self.last) } else { due };
        if !is_early {
            self.last = self.last.max(due);
        }
        due
    }

    /// Whether the next frame is chosen to skip the delay.
    #[inline]
    fn skips_delay(&mut self) -> bool {
        let Some(reorder) = self.spec.reorder.as_ref().filter(|reorder| reorder.chance.is_some())
        else {
            return false;
        };
        let (chance, gap) = (reorder.chance, reorder.gap.unwrap_or(1));
        let is_early = self.since_early >= gap - 1 && self.decides(Purpose::Reorder, chance);
        self.since_early = if is_early { 0 } else { self.since_early + 1 };
        is_early
    }

    /// How long the next frame is delayed.
    #[inline]
    fn delay(&mut self) -> u64 {
        let Some(Delay { time, jitter }) = &self.spec.delay else {
            return 0;
        };
        let Some(Jitter { time: jitter, correlation, distribution }) =
            jitter.as_ref().filter(|jitter| jitter.time > 0)
        else {
            return *time;
        };
        let random = self.streams.of(Purpose::Jitter).value(*correlation);
        let distribution = distribution.unwrap_or(Distribution::Uniform);
        spread(*time, *jitter, distribution.quantile(random))
    }

    fn jitter(&self) -> Option<&Jitter> {
        self.spec.delay.as_ref()?.jitter.as_ref().filter(|jitter| jitter.time > 0)
    }

    /// The soonest that a frame may leave of which the last bit is sent at `sent`.
    pub(super) fn soonest(&self, sent: u64) -> u64 {
        let Some(reorder) = &self.spec.reorder else {
            return sent.saturating_add(self.least_delay()).max(self.last);
        };
        if reorder.chance.is_some() { sent } else { sent.saturating_add(self.least_delay()) }
    }

    fn least_delay(&self) -> u64 {
        let time = self.spec.delay.as_ref().map_or(0, |delay| delay.time);
        self.jitter().map_or(time, |jitter| {
            let distribution = jitter.distribution.unwrap_or(Distribution::Uniform);
            spread(time, jitter.time, distribution.least())
        })
    }
}

/// A delay with its random part, never less than 0.
fn spread(time: u64, jitter: u64, quantile: i64) -> u64 {
    time.saturating_add_signed((jitter as i64 * quantile) >> ONE_BITS)
}
