//! The way in: large reads into one buffer, and frames used where they lie.

pub mod buffer;
pub mod counts;
#[allow(unsafe_code)]
mod packed;

use std::time::Instant;

use crate::error::Error;
use crate::frame::{self, Front, PREFIX};
use crate::net::io::{Got, Read};
use crate::net::socket::Socket;
use crate::rx::buffer::{Buffer, RESTING, SMALL, Sizes};
use crate::rx::counts::RxCounts;
use crate::sys::memory::as_room;

/// How many reads one call makes, at least, before it looks at its time and its signals again.
const READS: u32 = 16;

/// The receiving part of a connection's state.
#[derive(Default)]
pub struct Rx {
    /// When a read last gave more than a trickle: its peer may have been waiting for that.
    busy: Option<Instant>,
    buffer: Buffer,
    /// Whether bytes before the buffer's start are lent to a caller.
    lent: bool,
    /// A buffer that is lent while reading goes on in another: to a caller who polls meanwhile, and
    /// to a handler that pulls from its own connection. Boxed, since both are rare.
    kept: Option<Box<Buffer>>,
    set_aside: Option<Box<Buffer>>,
    found: Option<Found>,
    /// How much was ever read, what is not delivered included; as sockets count what they hold.
    total: u64,
}

/// How far one call reads on though nothing comes of it: past what its socket holds after [`READS`].
/// Who waits for edges is told of what comes later, and of nothing else.
#[derive(Default)]
pub struct Reading {
    reads: u32,
    /// The total to read past.
    until: Option<u64>,
}

impl Reading {
    /// Whether to read again.
    pub fn goes_on(&mut self, socket: &Socket, rx: &Rx) -> bool {
        self.reads += 1;
        // Past it by one read, which may be the end.
        self.reads <= READS
            || rx.total <= *self.until.get_or_insert_with(|| rx.total.saturating_add(socket.held()))
    }
}

/// What reading met behind the last byte.
enum Found {
    End,
    Failed(Error),
}

impl Rx {
    /// That of a connection which receives no more, for that reason.
    pub fn failed(reason: Error) -> Rx {
        Rx { found: Some(Found::Failed(reason)), ..Rx::default() }
    }

    /// The bytes received and not yet used: whole frames, then perhaps a part of one.
    pub fn unread(&self) -> &[u8] {
        self.buffer.unread()
    }

    /// The next frame, if it is here whole. Runts before it are skipped.
    pub fn front(&mut self, counts: &RxCounts) -> Option<&[u8]> {
        loop {
            match frame::front(self.buffer.unread()) {
                Front::Whole(frame) if frame.len() < frame::MIN => {
                    counts.runts.add(1);
                    self.buffer.start += PREFIX + frame.len();
                }
                Front::Whole(_) => break,
                Front::Part(_) => return None,
                Front::TooLong => {
                    self.found = Some(Found::Failed(Error::Protocol("a length above 69632")));
                    return None;
                }
            }
        }
        match frame::front(self.buffer.unread()) {
            Front::Whole(frame) => Some(frame),
            _ => None,
        }
    }

    /// Whether there is a frame to hand over. Runts before it are skipped.
    pub fn has_frame(&mut self, counts: &RxCounts) -> bool {
        self.front(counts).is_some()
    }

    /// Whether a frame, of any length, is here whole.
    fn has_whole(&self) -> bool {
        matches!(frame::front(self.unread()), Front::Whole(_))
    }

    /// Uses up the frame at the front.
    pub fn consume(&mut self, frame_len: usize, counts: &RxCounts) {
        counts.frame(frame_len);
        self.buffer.start += PREFIX + frame_len;
    }

    /// Reads once. Returns whether there is something new: bytes, or the end.
    pub fn fill(&mut self, socket: &Socket, counts: &RxCounts) -> bool {
        if self.found.is_some() {
            return false;
        }
        let goes_on = self.buffer.filled;
        self.make_room(Sizes::of(socket));
        let Buffer { memory, end, filled, is_stream, is_touched, .. } = &mut self.buffer;
        match socket.read(as_room(&mut memory[*end..])) {
            Ok(Read::Empty) => {
                *filled = false;
                return false;
            }
            Ok(Read::Bytes(got)) => {
                *end += got.bytes;
                *filled = got.is_full;
                *is_stream = goes_on || got.bytes > SMALL;
                *is_touched |= *is_stream;
                self.has_read(&got, counts);
            }
            Ok(Read::End) => self.found = Some(Found::End),
            Err(error) => self.found = Some(Found::Failed(error)),
        }
        true
    }

    fn has_read(&mut self, got: &Got, counts: &RxCounts) {
        counts.reads.add(got.calls);
        counts.foreign.add(got.foreign);
        self.total += got.taken;
        if got.bytes > SMALL {
            self.busy = Some(Instant::now());
        }
    }

    /// Makes room for a read, without moving what is lent.
    fn make_room(&mut self, sizes: &Sizes) {
        let missing = match frame::front(self.unread()) {
            Front::Part(missing) => missing,
            _ => 1,
        };
        let wanted = self.buffer.wanted(missing.max(sizes.least), sizes);
        let spare = self.buffer.capacity() - self.buffer.end;
        if self.lent {
            if spare < missing.max(sizes.least) {
                let next = Buffer::with_capacity(wanted, self.unread());
                self.kept = Some(Box::new(std::mem::replace(&mut self.buffer, next)));
                self.lent = false;
            }
        } else if self.buffer.capacity() < wanted {
            self.buffer = Buffer::with_capacity(wanted, self.unread());
        } else {
            self.buffer.compact();
        }
    }

    /// Begins with another stream: a part of a frame that ended the one before is nothing. What is
    /// lent stays.
    pub fn start_over(&mut self) {
        self.buffer.start = self.buffer.end;
        self.found = None;
    }

    /// Ends what was lent to callers.
    pub fn end_loans(&mut self) {
        self.lent = false;
        self.kept = None;
    }

    /// Gives memory back that is not needed while nothing comes: not what is lent, nor what is
    /// unread, which then may lie elsewhere. Returns whether it did.
    pub fn settle(&mut self, sizes: &Sizes) -> bool {
        let settles = !self.lent && self.unread().len() <= RESTING && self.is_large(sizes);
        if settles {
            let is_stream = self.buffer.is_stream;
            self.buffer = match self.unread() {
                [] => Buffer::default(),
                bytes => Buffer::with_capacity(bytes.len().max(SMALL), bytes),
            };
            self.buffer.is_stream = is_stream;
        }
        settles
    }

    pub fn is_large(&self, sizes: &Sizes) -> bool {
        self.buffer.capacity() > sizes.small || self.buffer.is_touched
    }

    /// How the stream ended, once every whole frame before that has been used.
    pub fn end(&self) -> Option<Error> {
        if self.has_whole() {
            return None;
        }
        match self.found.as_ref()? {
            Found::Failed(error) => Some(error.clone()),
            Found::End if self.unread().is_empty() => Some(Error::Closed),
            Found::End => Some(Error::Protocol("the stream ended inside a frame")),
        }
    }

    /// When the peer may last have been waiting for room.
    pub fn busy(&self) -> Option<Instant> {
        self.busy
    }

    /// Whether reading has met the end, though frames may still wait.
    pub fn has_found_end(&self) -> bool {
        self.found.is_some()
    }

    /// A delivery has handed over the first `delivered` bytes.
    pub fn end_delivery(&mut self, delivered: usize) {
        // Where the rest was set aside in the middle of it, the buffer is already the next one.
        if self.set_aside.take().is_none() {
            self.buffer.start += delivered;
        }
    }

    /// Goes on in another buffer, since a handler that is still running pulls from its own
    /// connection: what was handed over lives on for its call.
    pub fn set_aside(&mut self, delivered: usize, sizes: &Sizes) {
        if self.set_aside.is_none() {
            let rest = &self.unread()[delivered..];
            let next = Buffer::with_capacity(self.buffer.wanted(rest.len(), sizes), rest);
            self.set_aside = Some(Box::new(std::mem::replace(&mut self.buffer, next)));
        }
    }

    /// Looks, without taking anything, whether the stream has ended.
    pub fn peek_end(&mut self, socket: &Socket) {
        if self.found.is_none() {
            match socket.peek() {
                Ok(Read::End) => self.found = Some(Found::End),
                Ok(_) => {}
                Err(error) => self.found = Some(Found::Failed(error)),
            }
        }
    }
}
