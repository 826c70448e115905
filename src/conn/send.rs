//! Sending: frames are taken whole or not at all, and what is taken is written in order.
//!
//! The socket may take a part of a frame. That one frame is kept, and whoever comes next writes the
//! rest first: its sender, which waits; another sender; or the library's own thread, once nobody
//! waits. So no lock is held while a thread waits, and threads never mix their bytes.
//!
//! A frame that is held back for others to join it waits in the same place, as one does that was
//! forwarded to a full socket: whatever was taken and is not written lies in one queue.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::conn::{self, Conn, qnet_stats};
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX, Walk};
use crate::net::socket::{Lost, Socket, Written};
use crate::options::{self, Options};
use crate::runtime::cork::{self, Cork};
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::pool::{self, BUFFER};
use crate::runtime::service;
use crate::sys::clock::Deadline;
use crate::sys::memory::Memory;
use crate::tx::inbox::{Fit, TxGuard};

/// The most that one write to a Unix socket gathers, found by measuring: the kernel makes one buffer
/// of 32 KiB and the rest of a page for it. Smaller writes were slower, and most larger ones.
const PIECE: usize = 36_400;

/// The most bytes that are held back for others to join them.
pub const HOLD: usize = PIECE;

/// The most that one write to a TCP socket gathers: there fewer writes are better.
const TCP_PIECE: usize = BUFFER;

/// How long a handler's sends are held at most: a little less than the millisecond promised, for the
/// service thread has to wake up.
const CORKED: Duration = Duration::from_micros(900);

/// Up to this length a frame is copied behind its prefix, for one piece costs less to write than two.
const COPIED: usize = 2 << 10;

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

/// Frames in wire format, one behind another.
struct Chunk {
    /// A gathering buffer, of which `len` bytes are used.
    buffer: Memory,
    len: usize,
    frames: usize,
    progress: Progress,
}

impl Chunk {
    fn new() -> Chunk {
        let buffer = pool::take(BUFFER);
        Chunk { buffer, len: 0, frames: 0, progress: Progress::default() }
    }

    fn give_back(self) {
        pool::give_back(self.buffer);
    }

    /// Appends a frame for which there is room.
    #[inline]
    fn push(&mut self, wire: &Wire<'_>) {
        let end = self.len + wire.len();
        wire.copy_to(&mut self.buffer[self.len..end]);
        self.len = end;
        self.frames += 1;
    }
}

/// How far frames that lie in wire format are written.
#[derive(Default)]
struct Progress {
    written: usize,
    /// Of that, whole frames: their bytes on the wire, and their number.
    whole: usize,
    frames: usize,
}

impl Progress {
    /// Moves past `n` bytes of `bytes`, which hold `frames` frames.
    fn advance(&mut self, bytes: &[u8], frames: usize, n: usize) {
        self.written += n;
        if self.written == bytes.len() {
            (self.whole, self.frames) = (bytes.len(), frames);
            return;
        }
        for frame in Walk::over(&bytes[self.whole..self.written]) {
            self.whole += PREFIX + frame.len();
            self.frames += 1;
        }
    }
}

/// Holding sends back for a time.
#[derive(Default)]
struct Hold {
    /// How long others may join (`QNET_OPT_TX_USECS`).
    time: Duration,
    /// When the last send came that began to be held, or was alone: one that comes long after it is
    /// alone, and goes at once.
    last: Option<Instant>,
    /// When what is held is to be written by the service thread, if nobody does it before.
    due: Option<Instant>,
    /// The shortest time that a frame of what is held may be, and so the longest that `due` is away.
    within: Duration,
    /// When the service thread looks next, if it does; and whether anything was held since it did.
    look: Option<Instant>,
    was_used: bool,
}

impl Hold {
    /// Whether a frame that may be held for `time` may join what is held, and changes nothing.
    #[inline]
    fn is_joined(&self, time: Duration) -> bool {
        self.due.is_some() && self.within <= time
    }

    /// A frame is held that may be for `time`.
    fn begin(&mut self, time: Duration) {
        if self.is_joined(time) {
            return;
        }
        let due = Instant::now() + time;
        self.within = self.due.map_or(time, |_| time.min(self.within));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.was_used = true;
    }

    /// The service thread has looked: when it does so next. A steady sender will soon have something
    /// held, and to wake the thread costs it more than the thread's looking.
    fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let was_used = std::mem::take(&mut self.was_used);
        self.look = self.due.or(was_used.then(|| now + self.within));
        self.look
    }
}

/// What became of a frame that might be held back.
enum Held {
    Taken,
    /// It is to be sent at once.
    Not,
    /// The socket does not even take what came before it.
    Full,
}

/// A frame as it goes onto the wire: behind a prefix, perhaps padded.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    frame: &'a [u8],
    padded_len: usize,
}

impl<'a> Wire<'a> {
    /// Of a frame that may be sent.
    pub fn of(frame: &'a [u8], padded: usize) -> Wire<'a> {
        Wire { frame, padded_len: frame.len().max(padded) }
    }

    /// With its prefix.
    #[inline]
    pub fn len(&self) -> usize {
        PREFIX + self.padded_len
    }

    /// Copies it to `room`, which has its length.
    #[inline]
    pub fn copy_to(&self, room: &mut [u8]) {
        let (front, padding) = room.split_at_mut(PREFIX + self.frame.len());
        frame::copy_to(front, frame::prefix(self.padded_len), self.frame);
        if !padding.is_empty() {
            padding.fill(0);
        }
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
pub struct Packed<'a>(pub Walk<'a>);

impl<'a> Iterator for Packed<'a> {
    type Item = Result<&'a [u8], Bad>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next() {
            Some(frame) => Some(Ok(frame)),
            None if self.0.rest().is_empty() => None,
            None => Some(Err(self.bad())),
        }
    }
}

impl<'a> Packed<'a> {
    /// What is wrong with the frame at the front: its length comes first.
    #[cold]
    fn bad(&self) -> Bad {
        let prefix = self.0.rest().first_chunk::<PREFIX>();
        match prefix.map(|prefix| u32::from_be_bytes(*prefix) as usize) {
            Some(len) if !(frame::MIN..=frame::MAX).contains(&len) => Bad::Length(len),
            _ => Bad::Cut,
        }
    }
}

impl<'a> Frames<'a> for Packed<'a> {
    fn packed(&self) -> Option<&'a [u8]> {
        Some(self.0.rest())
    }
}

/// The most that one write gathers there.
fn piece_of(socket: &Socket) -> usize {
    if socket.is_unix() { PIECE } else { TCP_PIECE }
}

impl Tx {
    pub fn new(token: Token, socket: Arc<Socket>, options: &Options) -> Tx {
        let mut tx = Tx { token, ..Tx::default() };
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

    pub fn add_to(&self, stats: &mut qnet_stats) {
        let mut lost = self.unheard;
        lost.add(self.socket().refused());
        stats.tx_frames = self.frames - lost.frames;
        stats.tx_bytes = self.bytes - lost.bytes;
        stats.tx_dropped = self.dropped + lost.frames;
        stats.tx_writes = self.writes;
    }

    /// The socket of a live connection.
    pub fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    /// No send is taken any more; what was taken is still written.
    pub fn end(&mut self, reason: Error) {
        self.end = Some(reason);
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
            && let Ok(conn) = conn::table().get(self.token)
        {
            service::service().watch(conn);
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

    /// Holds a frame back for others to join it, if this is the time for it.
    fn hold(&mut self, conn: Ref<Conn>, wire: &Wire<'_>) -> Result<Held> {
        if wire.len() > HOLD {
            return Ok(Held::Not);
        }
        let time = if self.corks_for(conn) {
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
    fn corks_for(&self, conn: Ref<Conn>) -> bool {
        let is_held = self.hold.due.is_some();
        let corks = |cork: &Cork| {
            cork.is_open() && cork.list(conn) || is_held && cork.find(conn.token).is_some()
        };
        self.corks && cork::with(corks)
    }

    /// Whether so much may join what is held; nothing else is in the queue.
    #[inline]
    fn has_room_to_hold(&self, wire_len: usize) -> bool {
        self.queue.back().is_none_or(|chunk| chunk.len + wire_len <= HOLD)
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
    fn join(&mut self, frame: &[u8], is_corked: bool) -> bool {
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
    fn put<'a>(&mut self, conn: Ref<Conn>, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut ahead = frames.clone();
        let Some(first) = ahead.next() else {
            return Ok(0);
        };
        let first = self.wire(first)?;
        // Many go together as they are.
        let is_alone = ahead.next().is_none();
        match if is_alone { self.hold(conn, &first)? } else { Held::Not } {
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
        if wire.len() <= COPIED {
            let mut room = [const { MaybeUninit::uninit() }; COPIED];
            let (prefix, behind) = room.split_at_mut(PREFIX);
            let (frame, padding) = behind.split_at_mut(wire.frame.len());
            prefix.write_copy_of_slice(&frame::prefix(wire.padded_len));
            frame.write_copy_of_slice(wire.frame);
            padding[..wire.padded_len - wire.frame.len()].fill(MaybeUninit::new(0));
            // SAFETY: the three parts of it, all of which were just written.
            let bytes = unsafe { room[..wire.len()].assume_init_ref() };
            return self.write(&[IoSlice::new(bytes)]);
        }
        let prefix = frame::prefix(wire.padded_len);
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
    fn fits(&self, frame: &[u8]) -> bool {
        (frame::MIN..=self.max_frame).contains(&frame.len())
    }

    /// A frame that fits as it goes onto the wire.
    #[inline]
    fn wrap<'a>(&self, frame: &'a [u8]) -> Wire<'a> {
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

/// Sending on what was received elsewhere: never waits.
impl Tx {
    /// Whether the socket is full: what is passed on is queued.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// What frames are sent, and how.
    pub fn fit(&self) -> Fit {
        Fit { max: self.max_frame, padded: self.padded }
    }

    /// Counts frames that were lost before they came here.
    pub fn add_dropped(&mut self, frames: u64) {
        self.dropped += frames;
    }

    /// Whether frames up to that length go out as they come in.
    pub fn passes_as_is(&self, longest: usize) -> bool {
        self.padded == 0 && longest <= self.max_frame
    }

    /// Sends on frames that lie in wire format and go out as they are. What the socket does not take
    /// is queued, until `limit` bytes are. Returns how many frames were dropped.
    pub fn pass(&mut self, bytes: &[u8], frames: usize, limit: usize) -> usize {
        // Even where the socket was full: it has room long before it says so.
        self.write_backlog();
        let written = self.pass_now(bytes);
        if self.is_lost() {
            self.dropped += frames as u64;
            return frames;
        }
        if written == bytes.len() {
            self.count(frames, bytes.len());
            return 0;
        }
        let mut sent = Progress::default();
        sent.advance(bytes, frames, written);
        self.count(sent.frames, sent.whole);
        let taken = sent.frames + self.enqueue(&bytes[sent.whole..], written - sent.whole, limit);
        self.dropped += (frames - taken) as u64;
        frames - taken
    }

    /// Writes what the socket takes, in one piece: smaller ones, as for gathered frames, wake the
    /// reader more often. Returns how many bytes it took.
    fn pass_now(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.is_stuck || self.end.is_some() {
            return 0;
        }
        let written = self.write(&[IoSlice::new(bytes)]);
        // Short of memory is like being full; another failure has set `end` or `lost`.
        self.wrote(written, bytes.len()).unwrap_or(0)
    }

    /// Queues what the socket has taken `cut` bytes of, since it is full. Returns how many frames.
    fn enqueue(&mut self, bytes: &[u8], cut: usize, limit: usize) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let count = self.push_all(bytes, cut, limit);
        self.is_stuck = self.has_backlog();
        count
    }

    /// Appends frames in wire format, until `limit` bytes are unwritten; `cut` bytes of the first
    /// are written. Returns how many.
    fn push_all(&mut self, bytes: &[u8], cut: usize, limit: usize) -> usize {
        let mut queued = self.queued();
        let mut count = 0;
        for frame in Walk::over(bytes) {
            let wire = Wire { frame, padded_len: frame.len() };
            // The rest of a frame that has begun must follow.
            if queued + wire.len() > limit && (cut == 0 || count > 0) {
                break;
            }
            queued += wire.len();
            count += 1;
            self.push(&wire);
        }
        if cut > 0 {
            self.queue[0].progress.written = cut;
        }
        count
    }

    /// Bytes that are not written.
    pub fn queued(&self) -> usize {
        self.queue.iter().map(|chunk| chunk.len - chunk.progress.written).sum()
    }

    /// The same as `pass` for frames that may be too long for this connection, or have to be padded:
    /// they are copied to `room` first, which has room for any.
    pub fn pass_fitted(&mut self, bytes: &[u8], room: &mut [u8], limit: usize) -> usize {
        let (mut len, mut frames, mut dropped) = (0, 0, 0);
        for frame in Walk::over(bytes) {
            if !self.fits(frame) {
                self.dropped += 1;
                dropped += 1;
                continue;
            }
            let wire = self.wrap(frame);
            if len + wire.len() > room.len() {
                dropped += self.pass(&room[..len], frames, limit);
                (len, frames) = (0, 0);
            }
            wire.copy_to(&mut room[len..len + wire.len()]);
            len += wire.len();
            frames += 1;
        }
        dropped + self.pass(&room[..len], frames, limit)
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

/// Holds a frame back beside others, the short way: without a look at anything else. Returns
/// whether it did.
#[inline]
pub fn join(token: Token, frame: &[u8]) -> bool {
    match cork::with(|cork| cork.find(token)) {
        Some(conn) => join_in(conn, frame, true),
        None => coalesce(token, frame),
    }
}

#[inline(never)]
fn coalesce(token: Token, frame: &[u8]) -> bool {
    let Ok(conn) = conn::table().get(token) else {
        return false;
    };
    // What may be corked has to be listed first.
    conn.slot.coalesces.load(Ordering::Relaxed)
        && !cork::with(Cork::is_open)
        && join_in(conn, frame, false)
}

/// The same, if the handle is live.
#[inline]
fn join_in(conn: Ref<Conn>, frame: &[u8], is_corked: bool) -> bool {
    let mut tx = conn.slot.tx_of_own();
    tx.token == conn.token && tx.join(frame, is_corked)
}

/// Sends frames in order, each waiting as one alone would. Returns how many were taken; an
/// error only if the first was not.
pub fn send_all<'a>(conn: Ref<Conn>, mut frames: impl Frames<'a>) -> Result<usize> {
    let mut taken = 0;
    // What `emptied` was when the socket took a part of ours, until that is through.
    let mut own = None;
    let mut waiting = Waiting::default();
    let failed = loop {
        let mut tx = match conn.tx() {
            Ok(tx) => tx,
            Err(error) => break waiting.gone(error),
        };
        let epoch = tx.socket().wake.epoch();
        if tx.is_stuck {
            tx.write_backlog();
        }
        own = own.filter(|emptied| *emptied == tx.emptied);
        if own.is_none() && frames.clone().next().is_none() {
            return Ok(taken);
        }
        if let Some(end) = &tx.end {
            break end.clone();
        }
        if !tx.is_stuck {
            match tx.put(conn, &mut frames) {
                Err(error) => break error,
                Ok(0) => {}
                Ok(n) => {
                    taken += n;
                    own = tx.is_stuck.then_some(tx.emptied);
                    waiting = Waiting::default();
                    let is_done = own.is_none() && frames.clone().next().is_none();
                    have_watched(conn, tx);
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
    leave_backlog(conn);
    if taken > 0 { Ok(taken) } else { Err(failed) }
}

/// Sees to it that the service thread looks when what is held is due. Returns whether there is
/// that thread; if not, nothing is held any more.
#[inline]
fn have_watched(conn: Ref<Conn>, mut tx: TxGuard<'_>) -> bool {
    let Some(due) = tx.hold.due.filter(|_| !tx.is_stuck) else {
        return true;
    };
    if tx.hold.look.is_some_and(|look| look <= due) {
        return true;
    }
    tx.hold.look = Some(due);
    drop(tx);
    let is_watched = service::service().watch(conn);
    if !is_watched && let Ok(mut tx) = conn.tx() {
        tx.hold.look = None;
        tx.write_backlog();
    }
    is_watched
}

/// Waits, as a send would, until nothing taken is unwritten.
pub fn flush(conn: Ref<Conn>) -> Result<()> {
    let mut waiting = Waiting::default();
    let failed = loop {
        let mut tx = match conn.tx() {
            Ok(tx) => tx,
            Err(error) => break waiting.gone(error),
        };
        let epoch = tx.socket().wake.epoch();
        let is_all = tx.write_backlog();
        if let Some(end) = &tx.end {
            break end.clone();
        }
        if is_all {
            return Ok(());
        }
        if let Err(error) = waiting.wait(tx, epoch) {
            break error;
        }
    };
    leave_backlog(conn);
    Err(failed)
}

/// Writes what is held. What the socket does not take is the service thread's.
pub fn uncork(conn: Ref<Conn>) {
    if conn.tx().is_ok_and(|mut tx| !tx.write_backlog()) {
        service::service().watch(conn);
    }
}

/// Leaves what is unwritten to the library's own thread, since no further call is needed for it.
fn leave_backlog(conn: Ref<Conn>) {
    if conn.tx().is_ok_and(|tx| tx.has_backlog()) {
        service::service().watch(conn);
    }
}

/// The service thread's turn at sending: what it is to wait for, if anything.
pub fn write_due(tx: &mut Tx) -> Option<(PollFlags, Deadline)> {
    let now = Instant::now();
    let is_early = !tx.is_stuck && tx.hold.due.is_some_and(|due| due > now);
    if !is_early && !tx.write_backlog() {
        tx.hold.look = None;
        let (events, until) = tx.room();
        return Some((events, until.sooner(tx.patience())));
    }
    tx.hold.next_look(now).map(|look| (PollFlags::empty(), Deadline::At(look)))
}

/// One call's waiting for a socket that takes nothing.
#[derive(Default)]
struct Waiting {
    /// Fixed when the wait begins.
    deadline: Option<Deadline>,
}

impl Waiting {
    /// Waits for room, or a change after `epoch`, which was read before the socket was tried.
    fn wait(&mut self, tx: TxGuard<'_>, epoch: u32) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Deadline::after_ms(tx.timeout_ms));
        if deadline.passed() {
            return Err(deadline.error());
        }
        let (events, until) = tx.room();
        let (socket, until) = (tx.socket().clone(), until.sooner(deadline).sooner(tx.patience()));
        drop(tx);
        // After a time-out the socket is tried once more: it may have room for a frame long before
        // it says so.
        socket.wake.wait_fd(epoch, socket.fd_for(events), events, until).map(|_| ())
    }

    /// The handle went while this call was waiting: that is an end, not a mistake.
    fn gone(&self, error: Error) -> Error {
        if self.deadline.is_some() { Error::Closed } else { error }
    }
}
