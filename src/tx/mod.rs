//! The way out: frames are taken whole or not at all, and what is taken is written in order.
//!
//! The socket may take a part of a frame. That one frame is kept, and whoever comes next writes the
//! rest first: its sender, which waits; another sender; or the library's own thread, once nobody
//! waits. So no lock is held while a thread waits, and threads never mix their bytes.
//!
//! A frame that is held back for others to join it waits in the same place, as one does that was
//! forwarded to a full socket: whatever was taken and is not written lies in one queue.

pub mod chunk;
pub mod frames;
pub mod hold;
pub mod inbox;
mod pass;
pub mod sender;
mod take;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::frame::{self, PREFIX};
use crate::net::io::{Lost, Written};
use crate::net::socket::Socket;
use crate::options::{self, Options};
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::pool::BUFFER;
use crate::sys::clock::Deadline;
use crate::tx::chunk::Chunk;
use crate::tx::frames::Wire;
use crate::tx::hold::Hold;
use rustix::event::PollFlags;
use rustix::io::Errno;

/// The most that one write to a Unix socket gathers, found by measuring: the kernel makes one buffer
/// of 32 KiB and the rest of a page for it. Smaller writes were slower, and most larger ones.
const PIECE: usize = 36_400;

/// The most that one write to a TCP socket gathers: there fewer writes are better.
const TCP_PIECE: usize = BUFFER;

/// How long messages wait for room before they are lost: a netdev that does not read at all must not
/// hold up its senders, who cannot know.
const PATIENCE: Duration = Duration::from_millis(40);

/// How long to wait where the system had no memory for a write: no descriptor tells when it has.
const SHORTAGE: Duration = Duration::from_millis(5);

/// The sending part of a connection.
#[derive(Default)]
pub struct Tx {
    /// The token of the connection that it belongs to.
    pub token: Token,
    /// Told where a write has met the peer's leaving and no loop reads.
    on_loss: Option<fn(Token)>,
    socket: Option<Arc<Socket>>,
    /// The loop that sends, while the connection is plugged in.
    pub runner: Option<&'static Loop>,
    /// Why no more can be sent: the end as reported, or as a write met it.
    end: Option<Error>,
    /// Whether a write that fails is no end, since the connection is dialled again.
    redials: bool,
    /// Why what is written goes nowhere, until the connection has been: the peer has left.
    lost: Option<Error>,
    /// What was taken and is not written. No chunk is empty.
    queue: VecDeque<Chunk>,
    /// Whether the socket did not take all that was last tried.
    is_stuck: bool,
    /// Whether frames are messages of their own; and of datagrams, since when the socket has taken
    /// none.
    has_messages: bool,
    full_since: Option<Instant>,
    /// Whether it was memory that the last write lacked.
    is_short: bool,
    /// How often nothing taken was left unwritten: a sender knows by it whether its own is through.
    emptied: u64,
    timeout_ms: i64,
    max_frame: usize,
    /// The most that one write gathers, in bytes.
    piece: usize,
    /// Up to what length frames are padded: 0 for not at all.
    padded: usize,
    corks: bool,
    hold: Hold,
    frames: u64,
    bytes: u64,
    dropped: u64,
    writes: u64,
    /// Of `frames` and `bytes`: what nobody has received, of messages.
    unheard: Lost,
}

/// Frames sent, their bytes, those lost, and system calls that took something.
pub struct Counts {
    pub frames: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub writes: u64,
}

/// The most that one write gathers there.
fn piece_of(socket: &Socket) -> usize {
    if socket.is_unix() { PIECE } else { TCP_PIECE }
}

impl Tx {
    pub fn new(token: Token, socket: Arc<Socket>, options: &Options, on_loss: fn(Token)) -> Tx {
        let mut tx = Tx { token, on_loss: Some(on_loss), ..Tx::default() };
        tx.use_socket(socket);
        tx.configure(options);
        tx
    }

    pub fn configure(&mut self, options: &Options) {
        self.timeout_ms = options.get(options::SEND_TIMEOUT_MS);
        self.max_frame = options.max_frame().min(self.socket().max_frame());
        self.padded = if options.pad() { frame::PADDED } else { 0 };
        self.corks = options.cork();
        self.hold.time = options.tx_time();
        self.redials = options.reconnects().is_some();
        if !self.redials {
            self.end = self.end.take().or_else(|| self.lost.clone());
        }
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        let mut lost = self.unheard;
        lost.add(self.socket().refused());
        Counts {
            frames: self.frames - lost.frames,
            bytes: self.bytes - lost.bytes,
            dropped: self.dropped + lost.frames,
            writes: self.writes,
        }
    }

    /// The socket of a live connection.
    pub fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    /// No send is taken any more; what was taken is still written.
    pub fn end(&mut self, reason: Error) {
        self.end = Some(reason);
    }

    /// Why no send is taken any more, if so.
    pub fn end_reason(&self) -> Option<&Error> {
        self.end.as_ref()
    }

    /// How often nothing taken was left unwritten.
    pub fn emptied(&self) -> u64 {
        self.emptied
    }

    /// Until when a send that begins to wait now does so.
    pub fn deadline(&self) -> Deadline {
        Deadline::after_ms(self.timeout_ms)
    }

    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How reading the stream must take its end: a reset that a write met is no end in order.
    pub fn reset(&self) -> Option<Error> {
        self.end.as_ref().or(self.lost.as_ref()).filter(|end| matches!(end, Error::Os(_))).cloned()
    }

    /// Whether what is written goes nowhere.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// A write has met the peer's leaving. Reading is to meet it too, behind what waits; where nobody
    /// reads, the service thread looks.
    fn lose(&mut self, why: Error) {
        self.lost = Some(why);
        self.socket().shutdown();
        if self.runner.is_none()
            && let Some(on_loss) = self.on_loss
        {
            on_loss(self.token);
        }
    }

    /// Goes on without a peer: what was taken and is not written is lost, and so is all that follows.
    pub fn go_down(&mut self, absent: Arc<Socket>) {
        self.end = None;
        self.lost = Some(Error::Closed);
        self.write_backlog();
        self.use_socket(absent);
    }

    /// Goes on with another peer.
    pub fn come_up(&mut self, socket: Arc<Socket>) {
        self.lost = None;
        self.use_socket(socket);
    }

    fn use_socket(&mut self, socket: Arc<Socket>) {
        self.piece = piece_of(&socket);
        self.has_messages = socket.has_messages();
        self.socket = Some(socket);
    }

    /// Gives up what is not written.
    pub fn drop_backlog(&mut self) {
        for chunk in std::mem::take(&mut self.queue) {
            self.dropped += (chunk.frames - chunk.progress.frames) as u64;
            chunk.give_back();
        }
        self.is_stuck = false;
        self.hold.due = None;
    }

    /// Writes what it can of what is not written. Returns whether that was all. An error is the end
    /// of sending.
    pub fn write_backlog(&mut self) -> bool {
        match self.try_backlog() {
            Ok(is_all) => is_all,
            Err(_) => {
                self.drop_backlog();
                true
            }
        }
    }

    fn try_backlog(&mut self) -> Result<bool> {
        while let Some(mut chunk) = self.queue.pop_front() {
            let is_all = self.write_chunk(&mut chunk);
            if !matches!(is_all, Ok(true)) {
                self.queue.push_front(chunk);
                return is_all;
            }
            chunk.give_back();
        }
        self.hold.due = None;
        self.emptied += 1;
        Ok(true)
    }

    /// Writes on in a chunk. Returns whether all of it is written.
    fn write_chunk(&mut self, chunk: &mut Chunk) -> Result<bool> {
        let Chunk { buffer, len, frames, progress } = chunk;
        let bytes = &buffer[..*len];
        let unwritten = &bytes[progress.written..];
        let written = self.write(&[IoSlice::new(unwritten)]);
        let n = match self.wrote(written, unwritten.len()) {
            // Short of memory for now: what was taken stays.
            Err(Error::Os(Errno::NOMEM | Errno::NOBUFS)) => 0,
            written => written?,
        };
        let (whole, before) = (progress.whole, progress.frames);
        progress.advance(bytes, *frames, n);
        self.count(progress.frames - before, progress.whole - whole);
        self.is_stuck = n < unwritten.len();
        Ok(!self.is_stuck)
    }

    /// Writes the backlog. Returns whether nothing of it is left.
    fn make_way(&mut self) -> Result<bool> {
        let is_all = self.write_backlog();
        match &self.end {
            Some(end) => Err(end.clone()),
            None => Ok(is_all),
        }
    }

    /// Appends a frame to what is not written.
    #[inline]
    fn push(&mut self, wire: &Wire<'_>) {
        match self.queue.back_mut() {
            Some(chunk) if chunk.len + wire.len() <= BUFFER => chunk.push(wire),
            _ => {
                let mut chunk = Chunk::new();
                chunk.push(wire);
                self.queue.push_back(chunk);
            }
        }
    }

    /// Every write.
    #[inline]
    fn write(&self, pieces: &[IoSlice<'_>]) -> rustix::io::Result<Written> {
        match self.lost {
            None => self.socket().write(pieces, self.gives_up()),
            Some(_) => {
                let bytes = pieces.iter().map(|piece| piece.len()).sum();
                Ok(Written { bytes, ..Written::default() })
            }
        }
    }

    /// Whether what the socket has no room for is lost, rather than refused: not for a sender that
    /// never waits.
    fn gives_up(&self) -> bool {
        self.timeout_ms != 0 && self.full_since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Until when there is reason to wait for room.
    fn patience(&self) -> Deadline {
        let since = self.full_since.filter(|_| self.timeout_ms != 0);
        since.map_or(Deadline::Never, |since| Deadline::At(since + PATIENCE))
    }

    /// What to wait for before the next write, and how long at most.
    pub fn room(&self) -> (PollFlags, Deadline) {
        match self.is_short {
            true => (PollFlags::empty(), Deadline::after(SHORTAGE)),
            false => (PollFlags::OUT, Deadline::Never),
        }
    }

    /// The same where what has waited for long is lost.
    pub fn wait_for_room(&self) -> (PollFlags, Deadline) {
        let (events, until) = self.room();
        (events, until.sooner(self.patience()))
    }

    /// Whether it is memory that the last write lacked, of which nothing tells when it is there again.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Whether the next write is due after a time, with nothing to tell of it.
    pub fn waits_for_time(&self) -> bool {
        self.is_short || self.full_since.is_some()
    }

    /// Counts a write of `len` bytes; an error that the connection does not survive ends sending.
    /// Returns how many bytes it took.
    fn wrote(&mut self, written: rustix::io::Result<Written>, len: usize) -> Result<usize> {
        self.is_short = match &written {
            Ok(written) => written.is_short,
            Err(errno) => matches!(*errno, Errno::NOMEM | Errno::NOBUFS),
        };
        match written {
            Ok(Written { bytes, calls, lost, is_full, .. }) => {
                self.writes += calls;
                self.unheard.add(lost);
                if calls > 0 || !is_full {
                    self.full_since = None;
                }
                if is_full {
                    self.full_since.get_or_insert_with(Instant::now);
                }
                Ok(bytes)
            }
            Err(errno) if self.is_short => Err(Error::Os(errno)),
            Err(errno) => {
                let end = if errno == Errno::PIPE { Error::Closed } else { Error::Os(errno) };
                if self.redials && self.end.is_none() {
                    self.lose(end);
                    return Ok(len);
                }
                Err(self.end.get_or_insert(end).clone())
            }
        }
    }

    /// Counts frames that were written whole, with their prefixes `bytes`.
    #[inline]
    fn count(&mut self, frames: usize, bytes: usize) {
        if self.is_lost() {
            self.dropped += frames as u64;
        } else {
            self.frames += frames as u64;
            self.bytes += (bytes - frames * PREFIX) as u64;
        }
    }
}
