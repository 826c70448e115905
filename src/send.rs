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
    bytes: Vec<u8>,
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
        &self.bytes[self.written..]
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
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
        }
        if sent == 0 {
            wire.append_to(&mut self.bytes);
        } else {
            self.bytes.extend_from_slice(&wire.bytes_from(sent));
        }
    }

    /// Moves past `n` written bytes, calling `sent` for each frame that is through with its length.
    fn advance(&mut self, n: usize, mut sent: impl FnMut(usize)) {
        self.written += n;
        self.position += n as u64;
        while !self.bytes.is_empty() && self.first_end <= self.written {
            sent(self.first_len);
            match frame::front(&self.bytes[self.first_end..]) {
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
        1 + packed(&self.bytes[self.first_end..]).count() as u64
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

    fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.prefix);
        bytes.extend_from_slice(self.frame);
        if !self.padding.is_empty() {
            bytes.extend_from_slice(self.padding);
        }
    }

    /// Its bytes from `at` on.
    fn bytes_from(&self, at: usize) -> Vec<u8> {
        self.parts().concat().split_off(at)
    }
}

/// Frames to send: each is given as bytes, or as the reason why it cannot be one.
pub trait Frames<'a>: Iterator<Item = Result<&'a [u8]>> + Clone {}

impl<'a, I: Iterator<Item = Result<&'a [u8]>> + Clone> Frames<'a> for I {}

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
        let bytes = std::mem::take(&mut self.backlog.bytes);
        self.backlog = Backlog { position: self.backlog.position, ..Backlog::default() };
        self.coalesce.due = None;
        process().gather.give_back(bytes);
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
        let corks = self.corks && (cork::is_open() || self.has_backlog() && cork::is_holding());
        if !corks && !self.coalesces() {
            return false;
        }
        if self.backlog.bytes.capacity() == 0 {
            self.backlog.bytes = process().gather.take();
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
        let first = self.wire(first?)?;
        let is_full = self.backlog.bytes.len() + first.len() > HOLD;
        if !is_full || self.make_way()? {
            if self.hold(&first) {
                frames.next();
                return Ok(1);
            }
            if self.make_way()? {
                return self.put_now(frames, &first, ahead.next().is_none());
            }
        }
        Ok(0)
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
        let written =
            if is_last { self.write_one(first) } else { self.write_gathered(frames.clone()) };
        let written = self.wrote(written)?;
        Ok(self.take(frames, written))
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

    fn write_gathered<'a>(&self, frames: impl Frames<'a>) -> rustix::io::Result<usize> {
        let mut gathered = process().gather.take();
        for frame in frames {
            let Ok(wire) = frame.and_then(|frame| self.wire(frame)) else {
                break;
            };
            if !gathered.is_empty() && gathered.len() + wire.len() > GATHER {
                break;
            }
            wire.append_to(&mut gathered);
        }
        let written = self.socket().write(&[IoSlice::new(&gathered)]);
        process().gather.give_back(gathered);
        written
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
            let wire = frames.next().and_then(|frame| self.wire(frame.ok()?).ok());
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

    #[inline]
    fn wire<'a>(&self, frame: &'a [u8]) -> Result<Wire<'a>> {
        if !(frame::MIN..=self.max_frame).contains(&frame.len()) {
            return Err(self.refuse(frame.len()));
        }
        static ZEROES: [u8; frame::PADDED] = [0; frame::PADDED];
        let missing = if self.pad { frame::PADDED.saturating_sub(frame.len()) } else { 0 };
        let prefix = frame::prefix(frame.len() + missing);
        Ok(Wire { prefix, frame, padding: &ZEROES[..missing] })
    }

    #[cold]
    fn refuse(&self, len: usize) -> Error {
        let (min, max) = (frame::MIN, self.max_frame);
        Error::FrameSize(format!("a frame of {len} bytes (it may have {min} to {max})"))
    }
}

/// Buffers to gather frames in, shared: as many as there are threads that send at one time.
#[derive(Default)]
pub struct Gather(Mutex<Vec<Vec<u8>>>);

impl Gather {
    fn take(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_else(|| Vec::with_capacity(GATHER))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = lock(&self.0);
        if buffer.capacity() >= GATHER && kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

/// Whether the frame at the front, which is cut short, would be no frame if it were whole.
fn has_odd_length(bytes: &[u8]) -> bool {
    let prefix = bytes.first_chunk::<PREFIX>();
    prefix.is_some_and(|prefix| (u32::from_be_bytes(*prefix) as usize) < frame::MIN)
}

/// The frames of a buffer in wire format, one after another.
pub fn packed(mut bytes: &[u8]) -> impl Frames<'_> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        Some(match frame::front(bytes) {
            frame::Front::Part(_) if has_odd_length(bytes) => {
                Err(Error::FrameSize(format!("a packed length below {}", frame::MIN)))
            }
            frame::Front::Whole(frame) => {
                bytes = &bytes[PREFIX + frame.len()..];
                Ok(frame)
            }
            frame::Front::Part(_) => Err(Error::invalid("the last packed frame is cut short")),
            frame::Front::TooLong => {
                Err(Error::FrameSize(format!("a packed length above {}", frame::MAX)))
            }
        })
    })
}

impl Ref<Conn> {
    pub fn send(self, frame: &[u8]) -> Result<()> {
        self.send_all(std::iter::once(Ok(frame))).map(|_| ())
    }

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
