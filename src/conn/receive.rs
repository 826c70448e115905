//! Receiving: large reads into one buffer, frames used where they lie; and the callers that pull.

use std::mem::MaybeUninit;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::conn::end;
use crate::conn::{Conn, RxCounts, State};
use crate::error::{Error, Result};
use crate::frame::{self, Front, PREFIX, Run};
use crate::net::socket::{Got, Read, Socket};
use crate::runtime::callback;
use crate::runtime::handle::Ref;
use crate::runtime::wake::{PollFds, Woken};
use crate::rx::buffer::{Buffer, LARGE, RESTING, SMALL, Sizes};
use crate::switch::port::PLUGGED;
use crate::sys::clock::Deadline;
use crate::sys::memory::as_room;

/// How long who waits for a connection that is quiet keeps a large buffer for it.
const QUIET: Duration = Duration::from_millis(100);

/// How many reads one call makes, at least, before it looks at its time and its signals again.
const READS: u32 = 16;

/// How often to look again before waiting, where a large read came last: a sender that is about to
/// write more is spared waking this thread, which costs it as much as the write. Some microseconds.
const LOOKS: u32 = 16;
const PAUSE: u32 = 16;

/// What counts as a large read.
const STREAM: usize = 32 << 10;

/// The receiving part of a connection's state.
#[derive(Default)]
pub struct Rx {
    /// How many looks are left.
    looks: u32,
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
struct Reading {
    reads: u32,
    /// The total to read past.
    until: Option<u64>,
}

impl Reading {
    /// Whether to read again, where `total` bytes have been.
    fn goes_on(&mut self, socket: &Socket, total: u64) -> bool {
        self.reads += 1;
        // Past it by one read, which may be the end.
        self.reads <= READS
            || total <= *self.until.get_or_insert_with(|| total.saturating_add(socket.held()))
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
    fn front(&mut self, counts: &RxCounts) -> Option<&[u8]> {
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
    fn consume(&mut self, frame_len: usize, counts: &RxCounts) {
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
        self.looks = if got.bytes >= STREAM { LOOKS } else { 0 };
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
        self.looks = 0;
    }

    /// Ends what was lent to callers.
    pub fn end_loans(&mut self) {
        self.lent = false;
        self.kept = None;
    }

    /// Gives memory back that is not needed while nothing comes: not what is lent, nor what is
    /// unread, which then may lie elsewhere. Returns whether it did.
    fn settle(&mut self, sizes: &Sizes) -> bool {
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

    fn is_large(&self, sizes: &Sizes) -> bool {
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
    fn set_aside(&mut self, delivered: usize, sizes: &Sizes) {
        if self.set_aside.is_none() {
            let rest = &self.unread()[delivered..];
            let next = Buffer::with_capacity(self.buffer.wanted(rest.len(), sizes), rest);
            self.set_aside = Some(Box::new(std::mem::replace(&mut self.buffer, next)));
        }
    }

    /// Looks, without taking anything, whether the stream has ended.
    fn peek_end(&mut self, socket: &Socket) {
        if self.found.is_none() {
            match socket.peek() {
                Ok(Read::End) => self.found = Some(Found::End),
                Ok(_) => {}
                Err(error) => self.found = Some(Found::Failed(error)),
            }
        }
    }
}

impl State {
    /// Why the connection cannot be received from by its callers, if so.
    pub fn refuses_receive(&self) -> Option<Error> {
        if let Some(end) = &self.ended {
            return Some(end.clone());
        }
        if self.port.is_some() {
            return Some(PLUGGED);
        }
        self.handler.map(|_| Error::Busy("the connection has a handler"))
    }

    /// Why it cannot be attached or linked, if so; it is the argument that has this name.
    pub fn refuses_plug(&self, argument: &str) -> Option<Error> {
        let why = self.refuses_receive()?;
        Some(Error::Argument(format!("{argument} ({})", self.socket().peer()), Box::new(why)))
    }

    /// Wakes others who wait, if more was read since there were `reads` than was taken: they cannot
    /// see it in the socket any more.
    fn share_since(&mut self, conn: &Conn, reads: u64) {
        // A length that no frame has is found here.
        let is_more = self.rx.has_frame(&conn.rx_counts) || self.rx.has_found_end();
        if is_more && conn.rx_counts.reads.get() != reads {
            conn.changed(self);
        }
    }
}

/// Whether a receive would give anything but AGAIN. Reads to know.
pub fn is_ready(conn: Ref<Conn>, state: &mut State) -> bool {
    if state.refuses_receive().is_some() {
        return true;
    }
    if !has_turn(conn, state) {
        return false;
    }
    let socket = state.socket().clone();
    let counts = &conn.slot.rx_counts;
    let reads = counts.reads.get();
    let mut reading = Reading::default();
    loop {
        if state.rx.front(counts).is_some() {
            state.share_since(conn.slot, reads);
            return true;
        }
        if let Some(end) = state.rx.end() {
            // Only a receive reports it.
            return !state.redials() || end::meet_end(conn, state, end).is_some();
        }
        if !reading.goes_on(&socket, state.rx.total) || !state.rx.fill(&socket, counts) {
            state.rx.settle(Sizes::of(&socket));
            return false;
        }
    }
}

/// The next frame's bytes into `buf`. With an empty one, its length alone, and it is kept.
pub fn recv(conn: Ref<Conn>, buf: &mut [MaybeUninit<u8>], timeout_ms: i32) -> Result<usize> {
    receive(conn, timeout_ms, |rx, _, counts| {
        let cap = buf.len();
        let Some(frame) = rx.front(counts) else {
            return Ok(None);
        };
        let len = frame.len();
        if cap == 0 {
            return Ok(Some(len));
        }
        let room = buf.get_mut(..len).ok_or_else(|| too_small(cap, len))?;
        room.write_copy_of_slice(frame);
        rx.consume(len, counts);
        Ok(Some(len))
    })
}

/// Lends up to `count` frames, which `lend` is called with; their bytes stay until the next
/// receive. Returns how many: fewer only if the socket has no more now.
pub fn recv_batch(
    conn: Ref<Conn>,
    count: usize,
    timeout_ms: i32,
    mut lend: impl FnMut(usize, &[u8]),
) -> Result<usize> {
    receive(conn, timeout_ms, |rx, socket, counts| {
        // Nothing is whole yet, or nothing ever will be.
        if rx.front(counts).is_none() {
            return Ok(None);
        }
        loop {
            let mut n = rx.lend(count, &mut lend);
            // Reading on moves what is here, and it is lent again from the start.
            if n.frames == count || !rx.buffer.filled || !rx.fill_behind(socket, counts) {
                // Who does not wait here may be long in coming back.
                if timeout_ms == 0 && n.frames < count && rx.settle(Sizes::of(socket)) {
                    n = rx.lend(count, &mut lend);
                }
                rx.take_lent(&n, counts);
                return Ok((n.frames > 0).then_some(n.frames));
            }
        }
    })
}

/// Whole frames in wire format, as many as fit. Returns their bytes.
pub fn recv_packed(conn: Ref<Conn>, buf: &mut [MaybeUninit<u8>], timeout_ms: i32) -> Result<usize> {
    receive(conn, timeout_ms, |rx, socket, counts| {
        let used = match !socket.has_messages() && rx.room_to_read(buf) {
            true => rx.read_packed(socket, buf, counts),
            false => rx.copy_packed(buf, counts)?,
        };
        Ok((used > 0).then_some(used))
    })
}

/// Every pull: waits for its turn and for bytes until `take` has what it wants.
fn receive<R>(
    conn: Ref<Conn>,
    timeout_ms: i32,
    mut take: impl FnMut(&mut Rx, &Socket, &RxCounts) -> Result<Option<R>>,
) -> Result<R> {
    let mut deadline = None;
    loop {
        let mut state = match conn.state() {
            // It went while this call was waiting: that is an end, not a mistake.
            Err(_) if deadline.is_some() => return Err(Error::Closed),
            state => state?,
        };
        let deadline = match deadline {
            Some(deadline) => deadline,
            None => *deadline.insert(Deadline::from_timeout(timeout_ms)?),
        };
        if let Some(refusal) = state.refuses_receive() {
            return Err(refusal);
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        let has_turn = has_turn(conn, &mut state);
        if has_turn {
            state.rx.end_loans();
            if let Some(taken) = pull(conn, &mut state, &socket, &mut take)? {
                return Ok(taken);
            }
        }
        if deadline.passed() {
            if has_turn {
                state.rx.settle(Sizes::of(&socket));
            }
            return Err(deadline.error());
        }
        wait_readable(conn, state, &socket, epoch, deadline)?;
    }
}

/// Whether the frames are this caller's to take: not while a handler that was taken away still
/// runs on another thread, whose frames come first.
fn has_turn(conn: Ref<Conn>, state: &mut State) -> bool {
    if is_behind_handler(conn, state) {
        return false;
    }
    if state.delivering {
        let sizes = Sizes::of(state.socket());
        state.rx.set_aside(conn.slot.delivered.load(Ordering::Relaxed), sizes);
    }
    true
}

pub fn is_behind_handler(conn: Ref<Conn>, state: &State) -> bool {
    state.delivering && !callback::delivers(conn.token)
}

/// Reads until `take` has what it wants, or nothing more is there now.
fn pull<R>(
    conn: Ref<Conn>,
    state: &mut State,
    socket: &Socket,
    take: &mut impl FnMut(&mut Rx, &Socket, &RxCounts) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let counts = &conn.slot.rx_counts;
    let reads = counts.reads.get();
    let mut reading = Reading::default();
    loop {
        if let Some(taken) = take(&mut state.rx, socket, counts)? {
            state.share_since(conn.slot, reads);
            return Ok(Some(taken));
        }
        if let Some(end) = state.rx.end() {
            return end::meet_end(conn, state, end).map_or(Ok(None), Err);
        }
        if !reading.goes_on(socket, state.rx.total) || !state.rx.fill(socket, counts) {
            return Ok(None);
        }
    }
}

/// Waits for bytes or a change after `epoch`, which was read before the socket was; a large
/// buffer is given back meanwhile if nothing comes.
pub fn wait_readable(
    conn: Ref<Conn>,
    mut state: MutexGuard<'_, State>,
    socket: &Socket,
    epoch: u32,
    deadline: Deadline,
) -> Result<()> {
    if is_behind_handler(conn, &state) {
        drop(state);
        return socket.wake.wait_fds(epoch, PollFds::new(), deadline).map(|_| ());
    }
    if state.rx.looks > 0 {
        state.rx.looks -= 1;
        drop(state);
        (0..PAUSE).for_each(|_| std::hint::spin_loop());
        return Ok(());
    }
    let sizes = Sizes::of(socket);
    let is_large = state.rx.is_large(sizes);
    drop(state);
    let soon = if is_large { Deadline::after(QUIET) } else { Deadline::Never };
    let until = deadline.sooner(soon);
    let woken = socket.wake.wait_fd(epoch, socket.fd(), PollFlags::IN, until)?;
    if woken == Woken::TimedOut && is_large {
        state = conn.slot.state_of_own();
        if state.is_of(conn.token) && !state.delivering {
            state.rx.settle(sizes);
        }
    }
    Ok(())
}

/// How it ended, or `None` while it is open: where frames are pulled, while any may wait.
pub fn close_reason(conn: Ref<Conn>) -> Result<Option<Error>> {
    let mut state = conn.state()?;
    look_for_end(conn, &mut state);
    Ok(state.ended.clone())
}

/// Reports the end, if the peer has left and nothing that it sent waits: for calls that tell of
/// the end without receiving, so that all calls after them agree.
pub fn look_for_end(conn: Ref<Conn>, state: &mut State) {
    if state.refuses_receive().is_some() || state.delivering {
        return;
    }
    if state.rx.front(&conn.slot.rx_counts).is_none() {
        let socket = state.socket().clone();
        state.rx.peek_end(&socket);
    }
    if let Some(end) = state.rx.end() {
        end::meet_end(conn, state, end);
    }
}

impl Rx {
    /// Lends the frames at the front.
    fn lend(&mut self, count: usize, lend: &mut impl FnMut(usize, &[u8])) -> Run {
        Run::over(self.buffer.unread(), count, lend)
    }

    fn take_lent(&mut self, run: &Run, counts: &RxCounts) {
        self.buffer.start += run.end;
        self.lent = run.frames > 0;
        counts.run(run);
    }

    /// Whether a caller's buffer is the place to read into: no frame is here whole, and it has room
    /// for more than what is here.
    fn room_to_read(&self, buf: &[MaybeUninit<u8>]) -> bool {
        matches!(frame::front(self.unread()), Front::Part(_))
            && buf.len() >= self.unread().len() + LARGE / 4
    }

    /// Reads into the caller's buffer, behind what is here, and keeps what is not whole. Returns the
    /// bytes of whole frames.
    fn read_packed(
        &mut self,
        socket: &Socket,
        buf: &mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> usize {
        self.read_behind(socket, buf, counts).map_or(0, |bytes| self.sort_packed(bytes, counts))
    }

    /// Copies what is here to `buf`, which has room for more, and reads once behind it. Returns all of
    /// that, of which the caller is to `keep` what it does not use; `None` where nothing came, and
    /// nothing has changed but for an end.
    pub fn read_behind<'b>(
        &mut self,
        socket: &Socket,
        buf: &'b mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> Option<&'b mut [u8]> {
        if self.found.is_some() {
            return None;
        }
        let (front, room) = buf.split_at_mut(self.unread().len());
        front.write_copy_of_slice(self.unread());
        match socket.read(room) {
            Ok(Read::Empty) => return None,
            Ok(Read::End) => self.found = Some(Found::End),
            Err(error) => self.found = Some(Found::Failed(error)),
            Ok(Read::Bytes(got)) => {
                self.has_read(&got, counts);
                let read = front.len() + got.bytes;
                // SAFETY: the front was copied, and the socket wrote as many bytes behind it.
                return Some(unsafe { buf[..read].assume_init_mut() });
            }
        }
        None
    }

    /// Keeps the front of a frame.
    pub fn keep(&mut self, rest: &[u8], counts: &RxCounts) {
        if rest.is_empty() {
            self.buffer = Buffer::default();
        } else {
            self.buffer.replace(rest);
        }
        // A length that no frame has is found here.
        self.has_frame(counts);
    }

    /// Uses up the first `n` bytes of what is unread.
    pub fn use_up(&mut self, n: usize) {
        self.buffer.start += n;
    }

    /// Leaves whole frames without runts in `bytes`, and keeps the rest.
    fn sort_packed(&mut self, bytes: &mut [u8], counts: &RxCounts) -> usize {
        let run = Run::over(bytes, usize::MAX, |_, _| {});
        self.buffer.replace(&bytes[run.end..]);
        counts.run(&run);
        // A length that no frame has is found here.
        self.has_frame(counts);
        if run.runts > 0 { drop_runts(&mut bytes[..run.end]) } else { run.end }
    }

    /// Copies whole frames, as many as fit.
    fn copy_packed(&mut self, buf: &mut [MaybeUninit<u8>], counts: &RxCounts) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = self.front(counts) {
            let len = frame.len();
            let Some(room) = buf.get_mut(used..used + PREFIX + len) else {
                if used == 0 {
                    return Err(too_small(buf.len(), PREFIX + len));
                }
                break;
            };
            room.write_copy_of_slice(&self.unread()[..PREFIX + len]);
            self.consume(len, counts);
            used += PREFIX + len;
        }
        Ok(used)
    }

    /// Reads behind what is here already, if there is room. Returns whether it tried: what is here may
    /// lie elsewhere then, though nothing came.
    fn fill_behind(&mut self, socket: &Socket, counts: &RxCounts) -> bool {
        let sizes = Sizes::of(socket);
        let has_room = self.unread().len() + frame::MAX + sizes.least <= sizes.large;
        let tries = has_room && self.found.is_none();
        if tries {
            self.fill(socket, counts);
        }
        tries
    }
}

/// Moves whole frames together where runts were among them. Returns their bytes.
fn drop_runts(bytes: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Front::Whole(frame) = frame::front(&bytes[from..]) {
        let end = from + PREFIX + frame.len();
        if frame.len() >= frame::MIN {
            bytes.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
    }
    to
}

fn too_small(cap: usize, len: usize) -> Error {
    Error::FrameSize(format!("a buffer of {cap} bytes for {len}"))
}
