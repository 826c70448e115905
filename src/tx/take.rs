//! Taking frames from callers: to hold them back, or to write them at once.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::error::{Error, Result};
use crate::frame;
use crate::net::io::Written;
use crate::runtime::cork::{self, Cork};
use crate::runtime::pool::{self, BUFFER};
use crate::sys::clock::Deadline;
use crate::sys::memory;
use crate::tx::frames::{Bad, Frames, Wire};
use crate::tx::hold::Held;
use crate::tx::{PIECE, Tx};

/// The most bytes that are held back for others to join them.
pub const HOLD: usize = PIECE;

/// How long a handler's sends are held at most: a little less than the millisecond promised, for the
/// service thread has to wake up.
const CORKED: Duration = Duration::from_micros(900);

/// Up to this length a frame is copied behind its prefix, for one piece costs less to write than two.
const COPIED: usize = 2 << 10;

impl Tx {
    /// Holds a frame back for others to join it, if this is the time for it.
    fn hold(&mut self, wire: &Wire<'_>) -> Result<Held> {
        if wire.len() > HOLD {
            return Ok(Held::Not);
        }
        let time = if self.corks_for() {
            CORKED
        } else if self.coalesces() {
            self.hold.time
        } else {
            return Ok(Held::Not);
        };
        if !self.has_room_to_hold(wire.len()) && !self.make_way()? {
            return Ok(Held::Full);
        }
        self.hold.begin(time);
        self.push(wire);
        Ok(Held::Taken)
    }

    /// Whether a send of this thread is held back until its handler's frames are used up: then the
    /// thread has the connection in its list. Where no more frames are to come it may join others.
    fn corks_for(&self) -> bool {
        let is_held = self.hold.due.is_some();
        let corks = |cork: &Cork| {
            cork.is_open() && cork.list(self.token) || is_held && cork.lists(self.token)
        };
        self.corks && cork::with(corks)
    }

    /// Whether so much may join what is held; nothing else is in the queue.
    #[inline]
    fn has_room_to_hold(&self, wire_len: usize) -> bool {
        self.queue.back().is_none_or(|chunk| chunk.len + wire_len <= HOLD)
    }

    /// Whether a send now is one of many: another came, or was held, less than the time ago.
    fn coalesces(&mut self) -> bool {
        if self.hold.time.is_zero() {
            return false;
        }
        if self.hold.due.is_some() {
            return true;
        }
        let now = Instant::now();
        let before = self.hold.last.replace(now);
        before.is_some_and(|last| now - last < self.hold.time)
    }

    /// Holds a frame back beside others that are, if nothing but a copy is needed.
    #[inline]
    pub fn join(&mut self, frame: &[u8], is_corked: bool) -> bool {
        let time = if is_corked { CORKED } else { self.hold.time };
        let may_join = self.hold.is_joined(time) && (self.corks || !is_corked);
        if !may_join || self.is_stuck || self.end.is_some() || !self.fits(frame) {
            return false;
        }
        let wire = self.wrap(frame);
        // There is a chunk, since something is held.
        let chunk = self.queue.back_mut().filter(|chunk| chunk.len + wire.len() <= HOLD);
        chunk.map(|chunk| chunk.push(&wire)).is_some()
    }

    /// Takes what it can of `frames` at once, which then begins with the first frame not taken.
    /// Returns how many were. There is no backlog but what may be joined.
    pub fn put<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut ahead = frames.clone();
        let Some(first) = ahead.next() else {
            return Ok(0);
        };
        let first = self.wire(first)?;
        // Many go together as they are.
        let is_alone = ahead.next().is_none();
        match if is_alone { self.hold(&first)? } else { Held::Not } {
            Held::Taken => {
                frames.next();
                Ok(1)
            }
            Held::Not if self.make_way()? => self.put_now(frames, &first, is_alone),
            _ => Ok(0),
        }
    }

    fn put_now<'a>(
        &mut self,
        frames: &mut impl Frames<'a>,
        first: &Wire<'_>,
        is_last: bool,
    ) -> Result<usize> {
        if self.has_messages && self.padded == 0 && !self.is_lost() {
            let written = self.socket().write_each(self.fitting(frames), self.gives_up());
            let written = self.wrote(written, 0)?;
            if !self.is_lost() {
                return Ok(self.take(frames, written));
            }
        }
        if is_last || first.len() > self.piece {
            let written = self.write_one(first);
            let written = self.wrote(written, first.len())?;
            return Ok(self.take(frames, written));
        }
        let many = self.gather(frames);
        let written = self.wrote(many.written, many.len)?;
        if written < many.len {
            return Ok(self.take(frames, written));
        }
        *frames = many.behind;
        self.count(many.count, many.len);
        Ok(many.count)
    }

    fn write_one(&self, wire: &Wire<'_>) -> rustix::io::Result<Written> {
        let prefix = frame::prefix(wire.padded_len);
        if wire.len() <= COPIED {
            let mut room = [const { MaybeUninit::uninit() }; COPIED];
            let padding = &[0; frame::PADDED][..wire.padded_len - wire.frame.len()];
            let bytes = memory::join(&mut room, [&prefix, wire.frame, padding]);
            return self.write(&[IoSlice::new(bytes)]);
        }
        self.write(&[IoSlice::new(&prefix), IoSlice::new(wire.frame)])
    }

    /// Writes as many of `frames` as one write is good for: copied together, or where they lie if
    /// that is in wire format already.
    fn gather<'a, F: Frames<'a>>(&self, frames: &F) -> Gathered<F> {
        let mut behind = frames.clone();
        if let Some(bytes) = frames.packed().filter(|_| self.padded == 0) {
            let mut room = self.piece;
            let count = self.go_over(&mut behind, |wire| {
                let fits = wire.len() <= room;
                if fits {
                    room -= wire.len();
                }
                fits
            });
            let len = self.piece - room;
            let written = self.write(&[IoSlice::new(&bytes[..len])]);
            return Gathered { written, len, count, behind };
        }
        let mut buffer = pool::take(BUFFER);
        let mut room = &mut buffer[..self.piece];
        let count = self.go_over(&mut behind, |wire| {
            let fits = wire.len() <= room.len();
            if fits {
                let (here, rest) = std::mem::take(&mut room).split_at_mut(wire.len());
                wire.copy_to(here);
                room = rest;
            }
            fits
        });
        let len = self.piece - room.len();
        let written = self.write(&[IoSlice::new(&buffer[..len])]);
        pool::give_back(buffer);
        Gathered { written, len, count, behind }
    }

    /// The frames at the front that can be sent.
    fn fitting<'a, F: Frames<'a>>(&self, frames: &F) -> impl Iterator<Item = &'a [u8]> + Clone {
        let max = self.max_frame;
        let fits = move |frame: &&[u8]| (frame::MIN..=max).contains(&frame.len());
        frames.clone().map_while(move |frame| frame.ok().filter(fits))
    }

    /// Moves past frames that can be sent, as long as `take` takes them. Returns how many it took.
    #[inline]
    fn go_over<'a, F: Frames<'a>>(
        &self,
        frames: &mut F,
        mut take: impl FnMut(&Wire<'a>) -> bool,
    ) -> usize {
        let mut count = 0;
        let mut ahead = frames.clone();
        while let Some(Ok(frame)) = ahead.next()
            && self.fits(frame)
            && take(&self.wrap(frame))
        {
            *frames = ahead.clone();
            count += 1;
        }
        count
    }

    /// Moves past the frames that the socket has taken `written` bytes of, and keeps the rest of
    /// one that was cut.
    fn take<'a>(&mut self, frames: &mut impl Frames<'a>, mut written: usize) -> usize {
        let mut taken = 0;
        while written > 0 {
            let wire = frames.next().and_then(|frame| self.wire(frame).ok());
            let wire = wire.expect("as many frames as were written");
            taken += 1;
            if written < wire.len() {
                self.push(&wire);
                self.queue[0].progress.written = written;
                self.is_stuck = true;
                break;
            }
            written -= wire.len();
            self.count(1, wire.len());
        }
        taken
    }

    fn wire<'a>(&self, frame: Result<&'a [u8], Bad>) -> Result<Wire<'a>> {
        match frame {
            Ok(frame) if self.fits(frame) => Ok(self.wrap(frame)),
            Ok(frame) => Err(self.refuse(Bad::Length(frame.len()))),
            Err(bad) => Err(self.refuse(bad)),
        }
    }

    #[inline]
    pub fn fits(&self, frame: &[u8]) -> bool {
        (frame::MIN..=self.max_frame).contains(&frame.len())
    }

    /// A frame that fits as it goes onto the wire.
    #[inline]
    pub fn wrap<'a>(&self, frame: &'a [u8]) -> Wire<'a> {
        Wire::of(frame, self.padded)
    }

    #[cold]
    fn refuse(&self, bad: Bad) -> Error {
        let (min, max) = (frame::MIN, self.max_frame);
        match bad {
            Bad::Null => Error::invalid("a frame is NULL"),
            Bad::Cut => Error::invalid("the last packed frame is cut short"),
            Bad::Length(len) => {
                Error::FrameSize(format!("a frame of {len} bytes (it may have {min} to {max})"))
            }
        }
    }
}

/// What the service thread has to do with what is held.
impl Tx {
    /// Whether the service thread has to be told, now, to look when what is held is due.
    #[inline]
    pub fn wants_look(&mut self) -> bool {
        let Some(due) = self.hold.due.filter(|_| !self.is_stuck) else {
            return false;
        };
        let is_new = self.hold.look.is_none_or(|look| look > due);
        if is_new {
            self.hold.look = Some(due);
        }
        is_new
    }

    /// There is no service thread to look, so nothing is held any more.
    pub fn release(&mut self) {
        self.hold.look = None;
        self.write_backlog();
    }

    /// The service thread's turn: what it is to wait for, if anything.
    pub fn write_due(&mut self) -> Option<(PollFlags, Deadline)> {
        let now = Instant::now();
        let is_early = !self.is_stuck && self.hold.due.is_some_and(|due| due > now);
        if !is_early && !self.write_backlog() {
            self.hold.look = None;
            return Some(self.wait_for_room());
        }
        self.hold.next_look(now).map(|look| (PollFlags::empty(), Deadline::At(look)))
    }
}

/// What one write of many frames did.
struct Gathered<F> {
    written: rustix::io::Result<Written>,
    /// What there was to write: bytes, and frames.
    len: usize,
    count: usize,
    /// The frames behind them.
    behind: F,
}
