//! One direction of a connection: frames and the time go in, and frames come out when they are due.
//!
//! Whoever calls says what time it is, and the number that the next frame takes: a counter that all
//! directions share whose frames may be due at one time, so that these leave in the order in which they
//! came in.

mod change;
mod delay;
pub mod enter;
pub mod leave;

use crate::emulation::flight::{Flight, Moment};
use crate::emulation::loss::Loser;
use crate::emulation::pacer::Pacer;
use crate::emulation::random::{Side, Streams};
use crate::emulation::spec::Spec;
use crate::emulation::store::Store;
use crate::frame::PREFIX;

pub struct Direction {
    side: Side,
    seed: u64,
    streams: Streams,
    /// What the text in force asks for, with its seed; nothing where there is none.
    spec: Spec,
    /// Whether the text asks for nothing behind the loss. Every frame asks this first.
    only_loses: bool,
    loser: Option<Loser>,
    pacer: Pacer,
    /// How many frames have not skipped the delay since the last one that did.
    since_early: u64,
    flight: Flight,
    store: Store,
    /// When the last frame leaves that took the delay.
    last: u64,
    /// When the last frame entered.
    entered: u64,
    /// One more than the highest number of a frame that has left.
    highest: u64,
    tally: Tally,
}

/// What has been counted. How many frames and bytes have passed follows from the rest.
#[derive(Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    bypassed: u64,
    lost: u64,
    marked: u64,
    duplicated: u64,
    corrupted: u64,
    dropped: u64,
    reordered: u64,
    discarded: u64,
    /// The bytes of the frames that were lost, dropped and discarded, less those of the copies made.
    gone: u64,
}

/// What became of the frames of a direction, and what is held now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: u64,
    pub bytes: u64,
    pub bypassed: u64,
    pub lost: u64,
    pub marked: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub dropped: u64,
    pub reordered: u64,
    pub discarded: u64,
    pub passed: u64,
    pub passed_bytes: u64,
    pub waiting: u64,
    pub flying: u64,
    pub held_bytes: u64,
}

impl Direction {
    /// A direction without a text. A text that gives no seed gets this one.
    pub fn new(side: Side, seed: u64) -> Direction {
        Direction {
            side,
            seed,
            streams: Streams::new(seed, side),
            spec: Spec::default(),
            only_loses: true,
            loser: None,
            pacer: Pacer::default(),
            since_early: 0,
            flight: Flight::default(),
            store: Store::default(),
            last: 0,
            entered: 0,
            highest: 0,
            tally: Tally::default(),
        }
    }

    /// The text in force, its seed included; empty if there is none.
    pub fn text(&self) -> Vec<u8> {
        self.spec.print()
    }

    /// Whether there is no text in force and nothing is held: frames may go past it.
    pub fn is_idle(&self) -> bool {
        self.spec.is_none() && self.is_empty()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.store.held() == 0
    }

    /// How many bytes of frames are held.
    #[inline]
    pub fn held_bytes(&self) -> u64 {
        self.store.held() - PREFIX as u64 * (self.pacer.frames() + self.flight.frames())
    }

    /// The counts, when it is `now`.
    pub fn counts(&mut self, now: u64) -> Counts {
        self.advance(now);
        let Tally { frames, bytes, lost, duplicated, dropped, discarded, gone, .. } = self.tally;
        let (waiting, flying) = (self.pacer.frames(), self.flight.frames());
        let held_bytes = self.held_bytes();
        Counts {
            frames,
            bytes,
            bypassed: self.tally.bypassed,
            lost,
            marked: self.tally.marked,
            duplicated,
            corrupted: self.tally.corrupted,
            dropped,
            reordered: self.tally.reordered,
            discarded,
            passed: frames + duplicated - lost - dropped - discarded - waiting - flying,
            passed_bytes: bytes.wrapping_sub(gone).wrapping_sub(held_bytes),
            waiting,
            flying,
            held_bytes,
        }
    }

    /// Discards all that is held. What comes later has nothing to wait for or to stay behind, whatever
    /// clock and numbers it goes by.
    pub fn discard(&mut self) {
        self.tally.discarded += self.pacer.frames() + self.flight.frames();
        self.tally.gone = self.tally.gone.wrapping_add(self.held_bytes());
        self.pacer.clear();
        self.flight.clear();
        self.store.clear();
        (self.last, self.entered, self.highest) = (0, 0, 0);
    }

    /// When something happens next that nobody has to be there for earlier: a frame leaves, or might.
    pub fn next(&self) -> Option<Moment> {
        let waiting = self
            .pacer
            .next()
            .map(|(first, sent)| Moment { time: self.soonest(sent), number: first.came.number });
        self.flight.next().into_iter().chain(waiting).min()
    }
}
