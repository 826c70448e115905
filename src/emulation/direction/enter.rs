//! Frames come in.

use crate::emulation::direction::Direction;
use crate::emulation::ecn;
use crate::emulation::flight::{Moment, Run};
use crate::emulation::pacer::{Exact, Waiting};
use crate::emulation::random::Purpose;
use crate::emulation::spec::Spec;
use crate::emulation::store::Place;
use crate::frame::{PREFIX, Walk};

/// What the caller does with a frame that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on at once, from where it lies.
    Passes,
    /// It is lost or dropped, or held until it is due, which may be at once.
    Stays,
}

/// What is changed in a frame's bytes.
#[derive(Clone, Copy)]
struct Alteration {
    is_marked: bool,
    /// Which bit is flipped, counted from the first behind the addresses.
    flipped: Option<usize>,
}

/// The length of a frame's two addresses, which are never corrupted.
const ADDRESSES: usize = 12;

/// A frame that was not lost, the time when it came, and how many bytes may be held.
struct Arrival<'a> {
    frame: &'a [u8],
    now: u64,
    room: u64,
    is_marked: bool,
}

impl Alteration {
    #[inline]
    fn is_some(self) -> bool {
        self.is_marked || self.flipped.is_some()
    }

    fn apply(self, frame: &mut [u8]) {
        if self.is_marked {
            ecn::mark(frame);
        }
        let flipped = self.flipped.and_then(|bit| Some((frame.get_mut(ADDRESSES + bit / 8)?, bit)));
        if let Some((byte, bit)) = flipped {
            *byte ^= 0x80 >> (bit % 8);
        }
    }
}

impl Direction {
    /// A frame comes in. One that would make it hold more than `room` bytes is dropped. `number` is the next
    /// one; a frame takes it when it begins to wait or fly.
    ///
    /// What is due by then leaves before it, even if it has not left yet.
    #[inline]
    pub fn enter(&mut self, now: u64, frame: &[u8], room: u64, number: &mut u64) -> Verdict {
        let now = self.begin(now);
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        if self.spec.program.as_ref().is_some_and(|program| program.run(frame) == 0) {
            self.tally.bypassed += 1;
            return Verdict::Passes;
        }
        let mut is_marked = false;
        if self.loser.as_mut().is_some_and(|loser| loser.loses(&mut self.streams)) {
            if !self.spec.is_ecn || !ecn::is_capable(frame) {
                self.tally.lost += 1;
                self.tally.gone = self.tally.gone.wrapping_add(frame.len() as u64);
                return Verdict::Stays;
            }
            self.tally.marked += 1;
            is_marked = true;
        }
        if self.only_loses && !is_marked && self.is_empty() && self.last <= now {
            *number += 1;
            self.highest = *number;
            return Verdict::Passes;
        }
        let doubles = self.streams.of(Purpose::Duplicate);
        let is_doubled =
            self.spec.duplicate.as_ref().is_some_and(|duplicate| duplicate.falls(doubles));
        let arrival = Arrival { frame, now, room, is_marked };
        let verdict = self.pass_on(&arrival, false, number);
        if is_doubled {
            self.tally.duplicated += 1;
            self.tally.gone = self.tally.gone.wrapping_sub(frame.len() as u64);
            self.pass_on(&arrival, true, number);
        }
        verdict
    }

    /// Whether all frames are treated alike, so that they may enter together.
    pub fn treats_alike(&self) -> bool {
        let Spec { duplicate, corrupt, reorder, program, .. } = &self.spec;
        let may_skip = reorder.as_ref().is_some_and(|reorder| reorder.chance.is_some());
        let is_altered = duplicate.is_some() || corrupt.is_some() || self.loser.is_some();
        let is_late = self.pacer.is_on() || self.jitter().is_some();
        !(may_skip || is_altered || is_late || program.is_some())
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
        let time = self.due(now);
        let passes = time <= now && self.is_empty();
        if !passes && self.held_bytes() + bytes > room {
            for frame in Walk::over(wire) {
                self.enter(now, frame, room, number);
            }
            return Verdict::Stays;
        }
        self.tally.frames += frames as u64;
        self.tally.bytes += bytes;
        if passes {
            *number += frames as u64;
            self.highest = *number;
            return Verdict::Passes;
        }
        let (mut rest, mut left) = (wire, frames);
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
        if self.pacer.frames() > 0 {
            self.begin_waiting(now);
        }
    }

    fn begin_waiting(&mut self, now: u64) {
        while let Some((waiting, start, end)) = self.pacer.begin(now) {
            self.fly(&waiting, start, end);
        }
    }

    /// The steps behind the duplicating. A copy lies nowhere that it could go on from.
    #[inline]
    fn pass_on(&mut self, arrival: &Arrival<'_>, is_copy: bool, number: &mut u64) -> Verdict {
        let Arrival { frame, now, room, is_marked } = *arrival;
        let alteration = Alteration { is_marked, flipped: self.flips(frame) };
        let has_room = self.held_bytes() + frame.len() as u64 <= room;
        if !has_room || self.pacer.is_on() && !self.pacer.fits(now, frame.len()) {
            self.tally.dropped += 1;
            self.tally.gone = self.tally.gone.wrapping_add(frame.len() as u64);
            return Verdict::Stays;
        }
        if self.pacer.is_on() {
            self.wait(now, frame, alteration, number);
            return Verdict::Stays;
        }
        let time = self.due(now);
        if time > now || is_copy || alteration.is_some() || !self.is_empty() {
            let due = Moment { time, number: *number };
            let place = self.keep(frame, alteration, number);
            let len = (PREFIX + frame.len()) as u32;
            self.flight.push(Run { due, place, len, frames: 1 });
            return Verdict::Stays;
        }
        *number += 1;
        self.highest = *number;
        Verdict::Passes
    }

    /// Which bit of a frame is to be flipped, if one is.
    #[inline]
    fn flips(&mut self, frame: &[u8]) -> Option<usize> {
        let corrupt = self.spec.corrupt.as_ref()?;
        if !corrupt.falls(self.streams.of(Purpose::Corrupt)) {
            return None;
        }
        self.tally.corrupted += 1;
        let bits = 8 * frame.len().saturating_sub(ADDRESSES) as u128;
        Some(((u128::from(self.streams.of(Purpose::Bit).draw()) * bits) >> 64) as usize)
    }

    /// Has a frame wait for the rate.
    fn wait(&mut self, now: u64, frame: &[u8], alteration: Alteration, number: &mut u64) {
        let came = Moment { time: now, number: *number };
        let place = self.keep(frame, alteration, number);
        self.pacer.push(Waiting { came, place, len: frame.len() as u32 });
        self.advance(now);
    }

    /// Copies a frame, and alters the copy.
    #[inline]
    fn keep(&mut self, frame: &[u8], alteration: Alteration, number: &mut u64) -> Place {
        *number += 1;
        let place = self.store.push(frame);
        if alteration.is_some() {
            alteration.apply(self.store.frame_mut(place, (PREFIX + frame.len()) as u32));
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
}
