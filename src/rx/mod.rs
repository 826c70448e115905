//! The way in: large reads into one buffer, and frames used where they lie.

pub mod buffer;
pub mod counts;
#[allow(unsafe_code)]
mod packed;

use std::time::Instant;

use crate::error::{Error, Result};
use crate::frame::{self, Front, PREFIX};
use crate::net::io::{Got, Read};
use crate::net::socket::Socket;
use crate::runtime::wake;
use crate::rx::buffer::{Buffer, RESTING, SMALL, Sizes};
use crate::rx::counts::RxCounts;
use crate::sys::memory::as_room;

/// How many reads one call makes, at least, before it looks at its time and its signals again.
const READS: u32 = 16;

/// The receiving part of a connection's state.
#[derive(Default)]
pub struct Rx {
    buffer: Buffer,
    loan: Loan,
    /// The buffer that a running handler has frames of, if it has pulled from its own connection:
    /// reading goes on in another. Boxed, since that is rare.
    in_hand: Option<Box<Buffer>>,
    /// Boxed, like all that most connections have only once, at their end.
    found: Option<Box<Found>>,
    /// Whether the last read left nothing in the socket, and little was there. Who may wait then asks the
    /// socket before reading again.
    is_drained: bool,
    /// When a read last gave more than a trickle: the peer may have been waiting for room.
    busy: Option<Instant>,
    /// How much was ever read, frames that still wait included, in bytes as sockets count what they
    /// hold.
    total: u64,
}

/// Where the frames lie that are lent to a caller.
#[derive(Default)]
enum Loan {
    #[default]
    None,
    /// In the buffer, before its start.
    InBuffer,
    /// In this buffer: what was read since had no room behind them.
    In(#[expect(dead_code, reason = "it only keeps the memory")] Box<Buffer>),
}

/// What reading met behind the last byte.
enum Found {
    End,
    Failed(Error),
}

/// Bounds the reads of one call that find no frame. After [`READS`] reads it only goes on until it has
/// read past what the socket holds by then: a caller that waits for edges is told of what comes later,
/// and of nothing else.
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
        // Past it by one read, which may find the end.
        self.reads <= READS
            || rx.total <= *self.until.get_or_insert_with(|| rx.total.saturating_add(socket.held()))
    }
}

impl Rx {
    /// The receiving part of a connection that receives no more, for that reason.
    pub fn failed(reason: Error) -> Rx {
        Rx { found: Some(Box::new(Found::Failed(reason))), ..Rx::default() }
    }

    /// Reads once, where no whole frame is: behind those there may be no room. Returns whether there is something new:
    /// bytes, or the end.
    pub fn fill(&mut self, socket: &Socket, counts: &RxCounts) -> bool {
        if self.found.is_some() {
            return false;
        }
        let was_filled = self.buffer.is_filled;
        self.make_room(Sizes::of(socket));
        let Buffer { memory, end, .. } = &mut self.buffer;
        let read = socket.read(as_room(&mut memory[*end..]));
        let got = self.note(read, counts);
        let buffer = &mut self.buffer;
        buffer.is_filled = got.is_some_and(|got| got.is_full);
        if let Some(got) = got {
            buffer.end += got.bytes;
            buffer.is_stream = was_filled || got.bytes > SMALL;
            buffer.is_touched |= buffer.is_stream;
        }
        got.is_some() || self.found.is_some()
    }

    /// Makes room for a read, without moving what is lent.
    fn make_room(&mut self, sizes: &Sizes) {
        let missing = match frame::front(self.unread()) {
            Front::Part(missing) => missing,
            _ => 1,
        };
        let least = missing.max(sizes.least);
        let wanted = self.buffer.wanted(least, sizes);
        if let Loan::InBuffer = self.loan {
            if self.buffer.capacity() - self.buffer.end < least {
                let next = Buffer::with_capacity(wanted, self.unread());
                self.loan = Loan::In(Box::new(std::mem::replace(&mut self.buffer, next)));
            }
        } else if self.buffer.capacity() < wanted {
            self.buffer = Buffer::with_capacity(wanted, self.unread());
        } else {
            self.buffer.compact();
        }
    }

    /// Notes what came of a read. Returns what it gave, if it gave bytes.
    fn note(&mut self, read: Result<Read>, counts: &RxCounts) -> Option<Got> {
        match read {
            Ok(Read::Bytes(got)) => {
                counts.reads.add(got.calls);
                counts.foreign.add(got.foreign);
                self.total += got.taken;
                // What streams in goes on, as a rule, while the frames before it are used.
                self.is_drained = !got.is_full && got.bytes <= SMALL;
                if got.bytes > SMALL {
                    self.busy = Some(Instant::now());
                }
                return Some(got);
            }
            other => {
                self.is_drained = matches!(other, Ok(Read::Empty));
                self.note_end(other);
            }
        }
        None
    }

    /// Whether the next read will probably be in vain until the socket tells of more.
    pub fn is_drained(&self) -> bool {
        self.is_drained && !wake::is_blind()
    }

    /// Notes the end, where that is what came of a read.
    fn note_end(&mut self, read: Result<Read>) {
        match read {
            Ok(Read::End) => self.found = Some(Box::new(Found::End)),
            Err(error) => self.found = Some(Box::new(Found::Failed(error))),
            Ok(_) => {}
        }
    }

    /// Looks, without taking anything, whether the stream has ended.
    pub fn peek_end(&mut self, socket: &Socket) {
        if self.found.is_none() {
            self.note_end(socket.peek());
        }
    }

    /// The bytes received and not yet used: whole frames, then perhaps a part of one.
    pub fn unread(&self) -> &[u8] {
        self.buffer.unread()
    }

    /// The next frame, if all of it is here. Runts before it are skipped, and a length that no frame has
    /// is found to be the end.
    pub fn front(&mut self, counts: &RxCounts) -> Option<&[u8]> {
        let len = loop {
            match frame::front(self.buffer.unread()) {
                Front::Whole(frame) if frame.len() >= frame::MIN => break frame.len(),
                Front::Whole(runt) => {
                    counts.runts.add(1);
                    self.buffer.start += PREFIX + runt.len();
                }
                Front::Part(_) => return None,
                Front::TooLong => {
                    let error = Error::Protocol("a length above 69632");
                    self.found = Some(Box::new(Found::Failed(error)));
                    return None;
                }
            }
        };
        Some(&self.unread()[PREFIX..PREFIX + len])
    }

    /// Whether there is a next frame, as `front` finds it.
    pub fn has_frame(&mut self, counts: &RxCounts) -> bool {
        self.front(counts).is_some()
    }

    /// Uses up the first `n` bytes of what is unread.
    #[inline]
    pub fn use_up(&mut self, n: usize) {
        self.buffer.start += n;
    }

    /// How the stream ended, once every whole frame before the end has been used.
    pub fn end(&self) -> Option<Error> {
        let found = self.found.as_deref()?;
        if matches!(frame::front(self.unread()), Front::Whole(_)) {
            return None;
        }
        Some(match found {
            Found::Failed(error) => error.clone(),
            Found::End if self.unread().is_empty() => Error::Closed,
            Found::End => Error::Protocol("the stream ended inside a frame"),
        })
    }

    /// Whether reading has met the end, though frames may still wait.
    pub fn has_found_end(&self) -> bool {
        self.found.is_some()
    }

    /// When the peer may last have been waiting for room.
    pub fn busy(&self) -> Option<Instant> {
        self.busy
    }

    /// Begins with another stream. A part of a frame at the end of the one before is dropped; what is
    /// lent stays.
    pub fn start_over(&mut self) {
        self.buffer.start = self.buffer.end;
        self.found = None;
        self.is_drained = false;
    }

    /// Whether frames are lent to a caller.
    pub fn lends(&self) -> bool {
        !matches!(self.loan, Loan::None)
    }

    /// Ends what is lent to callers.
    pub fn end_loans(&mut self) {
        self.loan = Loan::None;
    }

    /// Lets a handler that is running pull from its own connection: the frames that it was given, the
    /// first `delivered` bytes, stay where they are until it returns, and reading goes on in another
    /// buffer.
    pub fn set_aside(&mut self, delivered: usize, sizes: &Sizes) {
        if self.in_hand.is_none() {
            let rest = &self.unread()[delivered..];
            let next = Buffer::with_capacity(self.buffer.wanted(rest.len(), sizes), rest);
            self.in_hand = Some(Box::new(std::mem::replace(&mut self.buffer, next)));
        }
    }

    /// Ends a delivery to a handler, which was given the first `delivered` bytes.
    pub fn end_delivery(&mut self, delivered: usize) {
        // If these were set aside, the buffer is already the one behind them.
        if self.in_hand.take().is_none() {
            self.use_up(delivered);
        }
    }

    /// Gives back memory that is not needed while nothing comes. Loans stay where they are; what is
    /// unread may move. Returns whether it did.
    pub fn settle(&mut self, sizes: &Sizes) -> bool {
        let may_move = !matches!(self.loan, Loan::InBuffer) && self.unread().len() <= RESTING;
        let settles = may_move && self.is_large(sizes);
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

    /// Whether there is memory that `settle` might give back.
    pub fn is_large(&self, sizes: &Sizes) -> bool {
        self.buffer.capacity() > sizes.small || self.buffer.is_touched
    }
}
