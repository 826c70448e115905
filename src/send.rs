//! Sending: frames are taken whole or not at all, and what is taken is written in order.
//!
//! The socket may take a part of a frame. The rest of that one frame is kept, and whoever comes next
//! writes it first: its sender, which waits; another sender; or the library's own thread, once
//! nobody waits. So no lock is held while a thread waits, and threads never mix their bytes.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::conn::{Conn, qnet_stats};
use crate::cork;
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX};
use crate::handle::{Ref, Token};
use crate::options::{self, Options};
use crate::process::{lock, process};
use crate::socket::Socket;
use crate::wake::Deadline;

/// The most that one write gathers of small frames.
const GATHER: usize = 128 << 10;

/// How many gathering buffers are kept for later.
const KEPT: usize = 4;

/// The most bytes that are held back for others to join them.
const HOLD: usize = 64 << 10;

/// Up to this length a frame is copied behind its prefix, for one piece costs less to write than two.
const COPIED: usize = 2 << 10;

/// The sending part of a connection.
#[derive(Default)]
pub struct Tx {
    /// The token of the connection that it belongs to.
    pub token: Token,
    socket: Option<Arc<Socket>>,
    /// Why no more can be sent: the end as reported, or as a write met it.
    end: Option<Error>,
    backlog: Backlog,
    timeout_ms: i64,
    max_frame: usize,
    pad: bool,
    corks: bool,
    coalesce: Coalesce,
    frames: u64,
    bytes: u64,
    dropped: u64,
    writes: u64,
}

/// What was taken and is not yet written: the rest of a frame that the socket has taken a part of,
/// and frames held back for others to join them.
#[derive(Default)]
struct Backlog {
    /// Empty, or a gathering buffer, of which `len` bytes are used.
    buffer: Box<[u8]>,
    len: usize,
    written: usize,
    /// Where the first frame not yet counted as sent ends, and its length. A frame that was cut
    /// before it came here has no prefix any more.
    first_end: usize,
    first_len: usize,
    /// How many bytes have been written from here so far, over all: a sender knows by it whether its
    /// own are through.
    position: u64,
    /// Whether the socket did not take all that was last tried.
    is_stuck: bool,
}

impl Backlog {
    fn unwritten(&self) -> &[u8] {
        &self.buffer[self.written..self.len]
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it ends, as a position.
    fn end(&self) -> u64 {
        self.position + self.unwritten().len() as u64
    }

    /// Appends a frame, of which `sent` bytes are already in the socket.
    fn push(&mut self, wire: &Wire<'_>, sent: usize) {
        if self.is_empty() {
            self.first_end = wire.len() - sent;
            self.first_len = wire.frame_len();
            if self.buffer.is_empty() {
                self.buffer = process().gather.take();
            }
        }
        let end = self.len + wire.len();
        wire.copy_to(&mut self.buffer[self.len..end]);
        if sent > 0 {
            self.buffer.copy_within(self.len + sent..end, self.len);
        }
        self.len = end - sent;
    }

    /// Moves past `n` written bytes, calling `sent` for each frame that is through with its length.
    fn advance(&mut self, n: usize, mut sent: impl FnMut(usize)) {
        self.written += n;
        self.position += n as u64;
        while self.first_end <= self.written {
            sent(self.first_len);
            match frame::front(&self.buffer[self.first_end..self.len]) {
                frame::Front::Whole(next) => {
                    self.first_len = next.len();
                    self.first_end += PREFIX + next.len();
                }
                _ => break,
            }
        }
    }

    /// How many frames it holds, a cut one included.
    fn frames(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        1 + Packed(&self.buffer[self.first_end..self.len]).count() as u64
    }
}

/// Holding sends back for a time (`QNET_OPT_TX_USECS`).
#[derive(Default)]
struct Coalesce {
    time: Duration,
    /// When the last send was not held back: one that comes long after it is alone, and goes at once.
    last: Option<Instant>,
    /// When what is held is to be written.
    due: Option<Instant>,
    /// Whether the service thread has the connection in view.
    is_watched: bool,
}

/// A frame as it goes onto the wire: prefix, bytes, padding.
#[derive(Clone, Copy)]
struct Wire<'a> {
    prefix: [u8; PREFIX],
    frame: &'a [u8],
    padding: &'static [u8],
}

impl<'a> Wire<'a> {
    fn parts(&self) -> [&[u8]; 3] {
        [&self.prefix, self.frame, self.padding]
    }

    fn frame_len(&self) -> usize {
        self.frame.len() + self.padding.len()
    }

    fn len(&self) -> usize {
        PREFIX + self.frame_len()
    }

    /// Copies it to `room`, which has its length.
    #[inline]
    fn copy_to(&self, room: &mut [u8]) {
        let (prefix, room) = room.split_at_mut(PREFIX);
        prefix.copy_from_slice(&self.prefix);
        let (frame, padding) = room.split_at_mut(self.frame.len());
        frame.copy_from_slice(self.frame);
        padding.copy_from_slice(self.padding);
    }
}

/// Why some bytes cannot be a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Null,
    /// Packed, and the end of the buffer comes first.
    Cut,
    /// Of a length that no frame has here.
    Length(usize),
}

/// Frames to send, in order; a copy of it goes over them again.
pub trait Frames<'a>: Iterator<Item = Result<&'a [u8], Bad>> + Clone {
    /// All that is left, if it lies in wire format.
    fn packed(&self) -> Option<&'a [u8]> {
        None
    }
}

/// Frames here and there in memory.
#[derive(Clone)]
pub struct Scattered<I>(pub I);

impl<'a, I: Iterator<Item = Result<&'a [u8], Bad>>> Iterator for Scattered<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }
}

impl<'a, I: Iterator<Item = Result<&'a [u8], Bad>> + Clone> Frames<'a> for Scattered<I> {}

/// Frames in wire format, one after another.
#[derive(Clone)]
pub struct Packed<'a>(pub &'a [u8]);

impl<'a> Iterator for Packed<'a> {
    type Item = Result<&'a [u8], Bad>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match frame::front(self.0) {
            frame::Front::Whole(frame) => {
                self.0 = &self.0[PREFIX + frame.len()..];
                Some(Ok(frame))
            }
            _ if self.0.is_empty() => None,
            _ => Some(Err(self.bad())),
        }
    }
}

impl<'a> Packed<'a> {
    /// What is wrong with the frame at the front: its length comes first.
    #[cold]
    fn bad(&self) -> Bad {
        match self.0.first_chunk::<PREFIX>().map(|prefix| u32::from_be_bytes(*prefix) as usize) {
            Some(len) if !(frame::MIN..=frame::MAX).contains(&len) => Bad::Length(len),
            _ => Bad::Cut,
        }
    }
}

impl<'a> Frames<'a> for Packed<'a> {
    fn packed(&self) -> Option<&'a [u8]> {
        Some(self.0)
    }
}

impl Tx {
    pub fn new(token: Token, socket: Arc<Socket>, options: &Options) -> Tx {
        let mut tx = Tx { token, socket: Some(socket), ..Tx::default() };
        tx.configure(options);
        tx
    }

    pub fn configure(&mut self, options: &Options) {
        self.timeout_ms = options.get(options::SEND_TIMEOUT_MS);
        self.max_frame = options.max_frame();
        self.pad = options.pad();
        self.corks = options.cork();
        self.coalesce.time = options.tx_time();
    }

    pub fn add_to(&self, stats: &mut qnet_stats) {
        stats.tx_frames = self.frames;
        stats.tx_bytes = self.bytes;
        stats.tx_dropped = self.dropped;
        stats.tx_writes = self.writes;
    }

    /// The socket of a live connection.
    fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    /// No send is taken any more; what was taken is still written.
    pub fn end(&mut self, reason: Error) {
        self.end = Some(reason);
    }

    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Until when what is held may stay held, if it may.
    pub fn due(&self) -> Option<Instant> {
        self.coalesce.due.filter(|_| !self.backlog.is_stuck)
    }

    /// How reading the stream must take its end: a reset that a write met is no end in order.
    pub fn reset(&self) -> Option<Error> {
        self.end.clone().filter(|end| matches!(end, Error::Os(_)))
    }

    /// Gives up what was taken and is not written.
    pub fn drop_backlog(&mut self) {
        self.dropped += self.backlog.frames();
        self.clear_backlog();
    }

    fn clear_backlog(&mut self) {
        let buffer = std::mem::take(&mut self.backlog.buffer);
        self.backlog = Backlog { position: self.backlog.position, ..Backlog::default() };
        self.coalesce.due = None;
        if !buffer.is_empty() {
            process().gather.give_back(buffer);
        }
    }

    /// Writes what it can of the backlog. An error is the end of sending.
    pub fn write_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let unwritten = self.backlog.unwritten();
        let tried = unwritten.len();
        let written = self.socket().write(&[IoSlice::new(unwritten)]);
        match self.wrote(written) {
            Ok(n) => {
                let Tx { backlog, frames, bytes, .. } = self;
                backlog.advance(n, |len| {
                    *frames += 1;
                    *bytes += len as u64;
                });
                backlog.is_stuck = n < tried;
                if n == tried {
                    self.clear_backlog();
                }
            }
            // Short of memory for now: what was taken stays.
            Err(Error::Os(Errno::NOMEM | Errno::NOBUFS)) => self.backlog.is_stuck = true,
            Err(_) => self.drop_backlog(),
        }
    }

    /// Holds a frame back for others to join it, if this is the time for it.
    fn hold(&mut self, wire: &Wire<'_>) -> bool {
        let corks = self.corks && cork::with(|cork| cork.holds(self.has_backlog()));
        if !corks && !self.coalesces() {
            return false;
        }
        self.backlog.push(wire, 0);
        true
    }

    /// Whether a send now is one of many: another came, or was held, less than the time ago.
    fn coalesces(&mut self) -> bool {
        if self.coalesce.time.is_zero() {
            return false;
        }
        if self.coalesce.due.is_some() && !self.backlog.is_empty() {
            return true;
        }
        let now = Instant::now();
        let before = self.coalesce.last.replace(now);
        let is_soon = before.is_some_and(|last| now - last < self.coalesce.time);
        if is_soon {
            self.coalesce.due = Some(now + self.coalesce.time);
        }
        is_soon
    }

    /// Takes what it can of `frames` at once, which then begins with the first frame not taken.
    /// Returns how many were. There is no backlog but what may be joined.
    fn put<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut ahead = frames.clone();
        let Some(first) = ahead.next() else {
            return Ok(0);
        };
        let first = self.wire(first)?;
        let is_alone = ahead.next().is_none();
        let is_full = self.backlog.len + first.len() > HOLD;
        if is_full && !self.make_way()? {
            return Ok(0);
        }
        // Many go together as they are.
        if is_alone && self.hold(&first) {
            frames.next();
            return Ok(1);
        }
        if self.make_way()? { self.put_now(frames, &first, is_alone) } else { Ok(0) }
    }

    /// Writes the backlog. Returns whether nothing of it is left.
    fn make_way(&mut self) -> Result<bool> {
        self.write_backlog();
        match &self.end {
            Some(end) => Err(end.clone()),
            None => Ok(self.backlog.is_empty()),
        }
    }

    fn put_now<'a>(
        &mut self,
        frames: &mut impl Frames<'a>,
        first: &Wire<'_>,
        is_last: bool,
    ) -> Result<usize> {
        if is_last {
            let written = self.write_one(first);
            let written = self.wrote(written)?;
            return Ok(self.take(frames, written));
        }
        let many = self.gather(frames);
        let written = self.wrote(many.written)?;
        if written < many.len {
            return Ok(self.take(frames, written));
        }
        *frames = many.behind;
        self.frames += many.count as u64;
        self.bytes += (many.len - many.count * PREFIX) as u64;
        Ok(many.count)
    }

    fn write_one(&self, wire: &Wire<'_>) -> rustix::io::Result<usize> {
        if wire.len() <= COPIED {
            let mut bytes: ArrayVec<u8, COPIED> = ArrayVec::new();
            for part in wire.parts() {
                bytes.try_extend_from_slice(part).expect("it was measured");
            }
            return self.socket().write(&[IoSlice::new(&bytes)]);
        }
        let parts = wire.parts().map(IoSlice::new);
        self.socket().write(&parts[..if wire.padding.is_empty() { 2 } else { 3 }])
    }

    /// Writes as many of `frames` as one write is good for: copied together, or where they lie if
    /// that is in wire format already.
    fn gather<'a, F: Frames<'a>>(&self, frames: &F) -> Gathered<F> {
        let packed = frames.packed().filter(|_| !self.pad);
        let mut buffer = if packed.is_some() { None } else { Some(process().gather.take()) };
        let mut behind = frames.clone();
        let (mut len, mut count) = (0, 0);
        loop {
            let next = behind.clone();
            let wire = match behind.next() {
                Some(Ok(frame)) if self.fits(frame) => self.wrap(frame),
                _ => {
                    behind = next;
                    break;
                }
            };
            let end = len + wire.len();
            if end > GATHER {
                behind = next;
                break;
            }
            if let Some(buffer) = &mut buffer {
                wire.copy_to(&mut buffer[len..end]);
            }
            len = end;
            count += 1;
        }
        let bytes = packed.or(buffer.as_deref()).map_or(&[][..], |bytes| &bytes[..len]);
        let written = self.socket().write(&[IoSlice::new(bytes)]);
        if let Some(buffer) = buffer {
            process().gather.give_back(buffer);
        }
        Gathered { written, len, count, behind }
    }

    /// Counts a write; an error that the connection does not survive ends sending.
    fn wrote(&mut self, written: rustix::io::Result<usize>) -> Result<usize> {
        match written {
            Ok(n) => {
                self.writes += u64::from(n > 0);
                Ok(n)
            }
            Err(errno @ (Errno::NOMEM | Errno::NOBUFS)) => Err(Error::Os(errno)),
            Err(errno) => {
                let end = if errno == Errno::PIPE { Error::Closed } else { Error::Os(errno) };
                Err(self.end.get_or_insert(end).clone())
            }
        }
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
                self.backlog.push(&wire, written);
                self.backlog.is_stuck = true;
                break;
            }
            written -= wire.len();
            self.frames += 1;
            self.bytes += wire.frame_len() as u64;
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
    fn fits(&self, frame: &[u8]) -> bool {
        (frame::MIN..=self.max_frame).contains(&frame.len())
    }

    /// A frame that fits as it goes onto the wire.
    #[inline]
    fn wrap<'a>(&self, frame: &'a [u8]) -> Wire<'a> {
        static ZEROES: [u8; frame::PADDED] = [0; frame::PADDED];
        let missing = if self.pad { frame::PADDED.saturating_sub(frame.len()) } else { 0 };
        let prefix = frame::prefix(frame.len() + missing);
        Wire { prefix, frame, padding: &ZEROES[..missing] }
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

/// What one write of many frames did.
struct Gathered<F> {
    written: rustix::io::Result<usize>,
    /// What there was to write: bytes, and frames.
    len: usize,
    count: usize,
    /// The frames behind them.
    behind: F,
}

/// Buffers to gather frames in, shared: as many as there are threads that send at one time.
#[derive(Default)]
pub struct Gather(Mutex<Vec<Box<[u8]>>>);

impl Gather {
    fn take(&self) -> Box<[u8]> {
        // Zeroed memory of this size comes untouched from the system.
        lock(&self.0).pop().unwrap_or_else(|| vec![0; GATHER].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut kept = lock(&self.0);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

impl Ref<Conn> {
    /// Sends frames in order, each waiting as one alone would. Returns how many were taken; an
    /// error only if the first was not.
    pub fn send_all<'a>(self, mut frames: impl Frames<'a>) -> Result<usize> {
        let mut taken = 0;
        // Where the last of ours ends that the socket has taken only a part of, until it is through.
        let mut own_end = None;
        let mut waiting = Waiting::default();
        let failed = loop {
            let mut tx = match self.tx() {
                Ok(tx) => tx,
                Err(error) => break waiting.gone(error),
            };
            let epoch = tx.socket().wake.epoch();
            if tx.backlog.is_stuck {
                tx.write_backlog();
            }
            if tx.backlog.is_empty() || own_end.is_some_and(|end| end <= tx.backlog.position) {
                own_end = None;
            }
            if own_end.is_none() && frames.clone().next().is_none() {
                return Ok(taken);
            }
            if let Some(end) = &tx.end {
                break end.clone();
            }
            if !tx.backlog.is_stuck {
                match tx.put(&mut frames) {
                    Err(error) => break error,
                    Ok(0) => {}
                    Ok(n) => {
                        taken += n;
                        own_end = tx.backlog.is_stuck.then(|| tx.backlog.end());
                        waiting = Waiting::default();
                        let is_done = own_end.is_none() && frames.clone().next().is_none();
                        self.note_held(tx);
                        if is_done {
                            return Ok(taken);
                        }
                        continue;
                    }
                }
            }
            if let Err(error) = waiting.wait(tx, epoch) {
                break error;
            }
        };
        self.leave_backlog();
        if taken > 0 { Ok(taken) } else { Err(failed) }
    }

    /// Sees to it that what is held is written in time: by this thread's handler, when it returns,
    /// or by the service thread.
    fn note_held(self, mut tx: MutexGuard<'_, Tx>) {
        if tx.backlog.is_empty() || tx.backlog.is_stuck {
            return;
        }
        if tx.coalesce.due.is_none() {
            drop(tx);
            cork::holds(self);
        } else if !tx.coalesce.is_watched {
            tx.coalesce.is_watched = true;
            drop(tx);
            process().service.watch(self);
        }
    }

    /// Waits, as a send would, until nothing taken is unwritten.
    pub fn flush(self) -> Result<()> {
        let mut waiting = Waiting::default();
        let failed = loop {
            let mut tx = match self.tx() {
                Ok(tx) => tx,
                Err(error) => break waiting.gone(error),
            };
            let epoch = tx.socket().wake.epoch();
            tx.write_backlog();
            if let Some(end) = &tx.end {
                break end.clone();
            }
            if tx.backlog.is_empty() {
                return Ok(());
            }
            if let Err(error) = waiting.wait(tx, epoch) {
                break error;
            }
        };
        self.leave_backlog();
        Err(failed)
    }

    /// Writes what was held back for it; what the socket does not take is the service thread's.
    pub fn uncork(self) {
        if let Ok(mut tx) = self.tx() {
            tx.write_backlog();
        }
        self.leave_backlog();
    }

    /// Leaves what is unwritten to the library's own thread, since no further call is needed for it.
    fn leave_backlog(self) {
        if self.tx().is_ok_and(|tx| tx.has_backlog()) {
            process().service.watch(self);
        }
    }

    /// The service thread's turn at sending: what it is to wait for, if anything.
    pub fn write_due(self, tx: &mut Tx) -> Option<(PollFlags, Deadline)> {
        let now = Instant::now();
        match tx.due() {
            Some(due) if due > now => return Some((PollFlags::empty(), Deadline::At(due))),
            _ => tx.write_backlog(),
        }
        if tx.has_backlog() {
            return Some((PollFlags::OUT, Deadline::Never));
        }
        // A steady sender would have it watched again at once.
        let is_steady = tx.coalesce.last.is_some_and(|last| now - last < tx.coalesce.time);
        if is_steady {
            return Some((PollFlags::empty(), Deadline::At(now + tx.coalesce.time)));
        }
        tx.coalesce.is_watched = false;
        None
    }
}

/// One call's waiting for a socket that takes nothing.
#[derive(Default)]
struct Waiting {
    /// Fixed when the wait begins.
    deadline: Option<Deadline>,
}

impl Waiting {
    /// Waits for room, or a change after `epoch`, which was read before the socket was tried.
    fn wait(&mut self, tx: MutexGuard<'_, Tx>, epoch: u32) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Deadline::after_ms(tx.timeout_ms));
        if deadline.passed() {
            return Err(deadline.error());
        }
        let socket = tx.socket().clone();
        drop(tx);
        // After a time-out the socket is tried once more: it may have room for a frame long before
        // it says so.
        socket.wake.wait_fd(epoch, socket.fd(), PollFlags::OUT, deadline).map(|_| ())
    }

    /// The handle went while this call was waiting: that is an end, not a mistake.
    fn gone(&self, error: Error) -> Error {
        if self.deadline.is_some() { Error::Closed } else { error }
    }
}
