//! Taking frames from callers, to hold them back or to write them at once.

use std::io::IoSlice;
use std::mem::MaybeUninit;

use crate::capture::interface::{Occasion, Way};
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX};
use crate::net::io::Written;
use crate::net::socket::Socket;
use crate::runtime::cork;
use crate::runtime::pool::{self, BUFFER};
use crate::sys::memory;
use crate::tx::Tx;
use crate::tx::frames::{Bad, Fit, Frames, Wire};

/// Up to this length a frame is copied behind its prefix, because one piece costs less to write than two.
const COPIED: usize = 2 << 10;

/// Longer frames are written from where they lie, if they are the next: to copy one costs more than a system call.
const GATHERED: usize = 32 << 10;

/// What frames are padded with.
static PADDING: [u8; frame::PADDED] = [0; frame::PADDED];

impl Tx {
    /// Takes as many of `frames` as it can at once, and moves past them. Returns how many it took. The
    /// queue has nothing but what is held back.
    pub fn put<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        if self.probes.is_empty() {
            return self.put_unseen(frames);
        }
        let (occasion, before) = (Occasion::of_sending(self.runner), frames.clone());
        let put = self.put_unseen(frames)?;
        if !self.has_lost_peer() {
            let taken = before.take(put).filter_map(Result::ok);
            self.probes.record(occasion, Way::Out, taken, self.fit.padded);
        }
        Ok(put)
    }

    /// The same, unrecorded.
    fn put_unseen<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut ahead = frames.clone();
        let Some(first) = ahead.next() else {
            return Ok(0);
        };
        let first = self.wire(first)?;
        // Many frames of one call are written together anyway.
        let is_alone = ahead.next().is_none();
        let hold = if is_alone { self.hold_time(first.len()) } else { None };
        if let Some((time, corker)) = hold {
            if !self.has_room_to_hold(first.len()) && !self.make_way()? {
                return Ok(0);
            }
            if corker == 0 || !self.begin_onward(&first) {
                self.queue.push(&first);
            }
            self.hold.begin(time, corker);
            frames.next();
            return Ok(1);
        }
        if self.make_way()? { self.put_now(frames, &first, is_alone) } else { Ok(0) }
    }

    /// Fast path of `put`, for one frame that is written at once: nothing is unwritten, nothing is held back
    /// for later frames, and the socket is a stream. Or it is short and coalesced, while other threads run
    /// handlers. Returns how many bytes were taken, or `None` where the general path has to be taken.
    #[inline]
    pub fn put_alone(&mut self, frame: &[u8]) -> Option<Result<usize>> {
        let is_coalesced = self.hold.is_joined(self.hold.time) && !cork::may_be_open();
        if is_coalesced && self.fit.takes(frame.len()) && self.join_short(frame) {
            return Some(Ok(PREFIX + frame.len()));
        }
        let is_plain = self.queue.is_empty() && self.hold.time == 0 && self.fit.takes(frame.len());
        let socket = self.socket.as_deref().filter(|_| is_plain && frame.len() <= COPIED)?;
        if cork::may_be_open() || socket.has_messages() {
            return None;
        }
        let prefix = frame::prefix(frame.len());
        let mut room = [const { MaybeUninit::uninit() }; PREFIX + COPIED];
        let bytes = memory::join(&mut room, [&prefix, frame])?;
        let sent = socket.send(bytes);
        if sent == Ok(bytes.len()) {
            self.is_short = false;
            self.counts.writes += 1;
            self.counts.frames += 1;
            self.counts.bytes += frame.len() as u64;
            return Some(sent.map_err(Error::Os));
        }
        let wire = self.fit.wire(frame)?;
        Some(self.wrote_one(&wire, Socket::written(sent)))
    }

    /// Writes one frame. Returns how many bytes the socket has taken; the rest of a frame that was cut is
    /// queued.
    fn put_one(&mut self, wire: &Wire<'_>) -> Result<usize> {
        let written = self.write_one(wire);
        self.wrote_one(wire, written)
    }

    /// Notes what came of writing one frame, as `put_one` does.
    fn wrote_one(
        &mut self,
        wire: &Wire<'_>,
        written: rustix::io::Result<Written>,
    ) -> Result<usize> {
        let written = self.wrote(written, wire.len())?;
        if written == wire.len() {
            self.count(1, written);
        } else if written > 0 {
            self.queue.push_cut(wire, written);
        }
        Ok(written)
    }

    /// Writes frames of which `first` is the first, and perhaps the last.
    fn put_now<'a>(
        &mut self,
        frames: &mut impl Frames<'a>,
        first: &Wire<'_>,
        is_last: bool,
    ) -> Result<usize> {
        if self.socket().has_messages() && self.fit.padded == 0 && !self.has_lost_peer() {
            let written = self.socket().write_each(self.fitting(frames), self.gives_up());
            let count = written.as_ref().map_or(0, |written| written.frames);
            let bytes = self.wrote(written, 0)?;
            if !self.has_lost_peer() {
                self.count(count, bytes);
                pass_over(frames, count);
                return Ok(count);
            }
        }
        let is_packed = frames.packed().is_some();
        if is_last || !is_packed && first.len() > GATHERED {
            let is_taken = self.put_one(first)? > 0;
            pass_over(frames, is_taken.into());
            return Ok(is_taken.into());
        }
        self.put_many(frames)
    }

    /// The frames up to the first that does not fit.
    fn fitting<'a, F: Frames<'a>>(&self, frames: &F) -> impl Iterator<Item = &'a [u8]> + Clone {
        let fit = self.fit;
        frames.clone().map_while(move |frame| frame.ok().filter(|frame| fit.takes(frame.len())))
    }

    /// Writes a frame behind its prefix.
    #[inline]
    fn write_one(&self, wire: &Wire<'_>) -> rustix::io::Result<Written> {
        let prefix = frame::prefix(wire.padded_len);
        if wire.len() <= COPIED {
            let mut room = [const { MaybeUninit::uninit() }; PREFIX + COPIED];
            let padding = &PADDING[..wire.padded_len - wire.frame.len()];
            if let Some(bytes) = memory::join(&mut room, [&prefix, wire.frame, padding]) {
                return self.write(&[IoSlice::new(bytes)]);
            }
        }
        self.write(&[IoSlice::new(&prefix), IoSlice::new(wire.frame)])
    }

    /// Writes as many of `frames` as one write is good for: copied together, or from where they lie if they
    /// are in wire format already. Moves past those that were taken, and returns how many.
    fn put_many<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut behind = frames.clone();
        if let Some(bytes) = frames.packed().filter(|_| self.fit.padded == 0) {
            let (count, len) = go_over(&mut behind, self.fit, BUFFER, |_, _| {});
            return self.write_many(&bytes[..len], count, frames, behind);
        }
        let mut buffer = pool::take(BUFFER);
        let room: &mut [u8] = &mut buffer;
        let (count, len) = if self.fit.padded == 0 {
            copy_over(&mut behind, self.fit, room)
        } else {
            go_over(&mut behind, self.fit, room.len(), |at, wire| {
                wire.copy_to(&mut room[at..at + wire.len()]);
            })
        };
        let put = self.write_many(&room[..len], count, frames, behind);
        pool::give_back(buffer);
        put
    }

    /// Writes `bytes`, in which the first `count` of `frames` lie in wire format. Where one is cut, its rest is
    /// taken from there: a program that changes frames meanwhile, of which there is a copy, tears no stream by that.
    fn write_many<'a, F: Frames<'a>>(
        &mut self,
        bytes: &[u8],
        count: usize,
        frames: &mut F,
        behind: F,
    ) -> Result<usize> {
        let written = self.write(&[IoSlice::new(bytes)]);
        let written = self.wrote(written, bytes.len())?;
        if written == bytes.len() {
            self.count(count, written);
            *frames = behind;
            return Ok(count);
        }
        let taken = self.take_part(bytes, count, written, 0);
        pass_over(frames, taken);
        match &self.end {
            Some(end) if taken == 0 => Err((**end).clone()),
            _ => Ok(taken),
        }
    }

    /// A frame as it goes onto the wire, or why it is refused.
    fn wire<'a>(&self, frame: Result<&'a [u8], Bad>) -> Result<Wire<'a>> {
        let wire = frame.and_then(|frame| self.fit.wire(frame).ok_or(Bad::Length(frame.len())));
        wire.map_err(|bad| self.refuse(bad))
    }

    #[cold]
    fn refuse(&self, bad: Bad) -> Error {
        let (min, max) = (frame::MIN, self.fit.max);
        match bad {
            Bad::Null => Error::invalid("a frame is NULL"),
            Bad::Cut => Error::invalid("the last packed frame is cut short"),
            Bad::Length(len) => Error::FrameSize(
                format!("a frame of {len} bytes (it may have {min} to {max})").into(),
            ),
        }
    }
}

/// Moves past so many frames.
fn pass_over<'a>(frames: &mut impl Frames<'a>, count: usize) {
    (0..count).for_each(|_| _ = frames.next());
}

/// Moves past the frames that fit, as many as have `most` bytes, and gives `each` the place in these where a
/// frame begins. Returns how many frames they are, and how many bytes.
fn go_over<'a, F: Frames<'a>>(
    frames: &mut F,
    fit: Fit,
    most: usize,
    mut each: impl FnMut(usize, &Wire<'a>),
) -> (usize, usize) {
    let (mut count, mut len) = (0, 0);
    let mut ahead = frames.clone();
    let mut behind = frames.clone();
    while let Some(Ok(frame)) = ahead.next() {
        let Some(wire) = fit.wire(frame).filter(|wire| len + wire.len() <= most) else {
            break;
        };
        each(len, &wire);
        behind = ahead.clone();
        count += 1;
        len += wire.len();
    }
    *frames = behind;
    (count, len)
}

/// Fast path of [`go_over`] for frames that are copied to `room`, as many as it has room for, and not padded.
/// Not in line, so that all that the loop needs is in registers.
#[inline(never)]
fn copy_over<'a, F: Frames<'a>>(frames: &mut F, fit: Fit, room: &mut [u8]) -> (usize, usize) {
    let (mut count, most) = (0, room.len());
    let mut left = most;
    let (mut ahead, mut behind) = (frames.clone(), frames.clone());
    let mut rest = room;
    while let Some(Ok(frame)) = ahead.next() {
        if !fit.takes(frame.len()) {
            break;
        }
        let Some((prefix, room)) = std::mem::take(&mut rest).split_first_chunk_mut() else {
            break;
        };
        let Some((room, further)) = room.split_at_mut_checked(frame.len()) else {
            break;
        };
        *prefix = frame::prefix(frame.len());
        memory::copy(room, frame);
        left = further.len();
        rest = further;
        behind = ahead.clone();
        count += 1;
    }
    *frames = behind;
    (count, most - left)
}
