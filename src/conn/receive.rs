//! Receiving from a connection, for callers that pull.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use crate::conn::{self, Conn, PLUGGED, State, end};
use crate::error::{Error, Result};
use crate::frame::{Alike, PREFIX};
use crate::net::socket::Socket;
use crate::runtime::callback;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::Guard;
use crate::runtime::wait::{self, Tried};
use crate::runtime::wake::{PollFds, Woken};
use crate::rx::buffer::Sizes;
use crate::rx::counts::RxCounts;
use crate::rx::{Reading, Rx};
use crate::sys::clock::Deadline;
use crate::sys::memory::{self, copy_short};

/// How long a connection that is quiet keeps a large buffer for a thread that waits.
const QUIET: Duration = Duration::from_millis(100);

impl State {
    /// Why the connection cannot be received from by its callers, if so.
    pub fn refuses_receive(&self) -> Option<Error> {
        if let Some(end) = self.life.end_reason() {
            return Some(end.clone());
        }
        if self.port.is_some() {
            return Some(PLUGGED);
        }
        self.handler.map(|_| Error::Busy("the connection has a handler"))
    }

    /// Why the connection, which is the argument of that name, cannot be attached or linked, if so.
    pub fn refuses_plug(&self, argument: &str) -> Option<Error> {
        let why = self.refuses_receive()?;
        let argument = format!("{argument} ({})", self.socket().peer());
        Some(Error::Argument(Box::new((argument, why))))
    }

    /// Wakes other threads that wait, if something was read since there were `reads` and is left: they
    /// cannot see it in the socket any more.
    fn share_since(&mut self, conn: &Conn, reads: u64) {
        // Looking for a frame also finds a length that no frame has.
        let is_more = self.rx.has_frame(&conn.rx_counts) || self.rx.has_found_end();
        if is_more && conn.rx_counts.reads.get() != reads {
            conn.changed(self);
        }
    }
}

/// Whether a receive would give anything but AGAIN. Reads to know; where a read would be in vain, only if the
/// caller `must_read`.
pub fn is_ready(conn: Ref<Conn>, state: &mut State, must_read: bool) -> bool {
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
            // Only a receive reports the end.
            return !state.redials() || end::meet_end(conn, state, end).is_some();
        }
        let is_in_vain = !must_read && state.rx.is_drained();
        if is_in_vain || !reading.goes_on(&socket, &state.rx) || !state.rx.fill(&socket, counts) {
            state.rx.settle(Sizes::of(&socket));
            return false;
        }
    }
}

/// A connection whose frames are pulled, and which was found as the fast path of [`recv`] needs it.
pub struct Pulled {
    conn: &'static Conn,
    state: Guard<'static, State>,
}

impl Pulled {
    #[inline(always)]
    pub fn find(token: Token) -> Option<Pulled> {
        let conn = conn::table().slot(token)?;
        Some(Pulled { conn, state: conn.pulled(token)? })
    }

    /// Fast path of [`recv`], for a short frame that has been read already: it is copied to the room of its
    /// length that `room_of` gives. Returns its length, or what `otherwise` returns.
    #[inline(always)]
    pub fn recv_short<'b>(
        mut self,
        token: Token,
        room_of: impl FnOnce(usize) -> Option<&'b mut [MaybeUninit<u8>]>,
        otherwise: impl FnOnce(Pulled) -> i32,
    ) -> i32 {
        let copy = |frame: &[u8]| copy_short(room_of(frame.len())?, frame).then_some(frame.len());
        match self.state.rx.front_at_hand().and_then(copy) {
            Some(len) => {
                self.state.rx.use_up(PREFIX + len);
                self.conn.rx_counts.frame(len);
                Guard::close(self.state, token, len as i32)
            }
            None => otherwise(self),
        }
    }

    /// The same for a frame that is not short.
    pub fn recv_long(&mut self, buf: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let frame = self.state.rx.front_at_hand()?;
        let len = frame.len();
        memory::write(buf.get_mut(..len)?, frame);
        self.state.rx.use_up(PREFIX + len);
        self.conn.rx_counts.frame(len);
        Some(len)
    }

    /// Whether the last read left nothing, neither here nor in the socket.
    pub fn is_drained(&self) -> bool {
        let rx = &self.state.rx;
        rx.unread().is_empty() && rx.is_drained() && !rx.is_large(Sizes::of(self.state.socket()))
    }

    /// Fast path of [`recv`] for a connection that is drained, and a caller that waits: waits, reads once, and
    /// copies the next frame to `buf`. Returns its length, or `None` where that was not enough.
    pub fn await_next(
        self,
        token: Token,
        buf: &mut [MaybeUninit<u8>],
        deadline: Deadline,
    ) -> Result<Option<usize>> {
        let socket = self.state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(self);
        let woken = socket.wake.wait_fd(epoch, socket.fd(), PollFlags::IN, deadline)?;
        let pulled = Pulled::find(token).filter(|_| woken == Woken::Something);
        Ok(pulled.and_then(|mut pulled| pulled.read_next(&socket, buf)))
    }

    /// Reads once, unless another thread has read meanwhile or another socket has taken the place of this one, and
    /// copies the next frame.
    fn read_next(&mut self, socket: &Arc<Socket>, buf: &mut [MaybeUninit<u8>]) -> Option<usize> {
        if !Arc::ptr_eq(self.state.socket(), socket) {
            return None;
        }
        let counts = &self.conn.rx_counts;
        let reads = counts.reads.get();
        // What another thread has left comes first, and may leave no room to read.
        if self.state.rx.unread().is_empty() {
            self.state.rx.fill(socket, counts);
        }
        let len = self.recv_long(buf);
        self.state.share_since(self.conn, reads);
        len
    }
}

/// Receives a frame into `buf`. With an empty `buf` the frame is kept. Returns its length. If the caller
/// `has_waited`, the socket is read at once.
pub fn recv(
    conn: Ref<Conn>,
    buf: &mut [MaybeUninit<u8>],
    deadline: Deadline,
    has_waited: bool,
) -> Result<usize> {
    let received = receive(conn, deadline, has_waited, |rx, _, counts| rx.copy_one(buf, counts));
    received.map_err(|error| match error {
        // It was closed meanwhile.
        Error::Handle if has_waited => Error::Closed,
        error => error,
    })
}

/// Lends up to `count` frames, which `lend` is called with; their bytes stay until the next receive.
/// Returns how many: fewer only if the socket has no more now.
pub fn recv_batch(
    conn: Ref<Conn>,
    count: usize,
    timeout_ms: i32,
    mut lend: impl FnMut(usize, &Alike<'_>),
) -> Result<usize> {
    // A caller that does not wait may not come back soon.
    let settles = timeout_ms == 0;
    receive(conn, Deadline::from_timeout(timeout_ms)?, false, |rx, socket, counts| {
        Ok(rx.lend_batch(socket, count, settles, &mut lend, counts))
    })
}

/// Receives whole frames in wire format, as many as fit. Returns how many bytes they are.
pub fn recv_packed(conn: Ref<Conn>, buf: &mut [MaybeUninit<u8>], timeout_ms: i32) -> Result<usize> {
    let deadline = Deadline::from_timeout(timeout_ms)?;
    receive(conn, deadline, false, |rx, socket, counts| rx.pack(socket, buf, counts))
}

/// Waits, as every receive does, for the caller's turn and for bytes, until `take` has what it wants. Where
/// the caller `must_read`, that is done before the first wait too.
fn receive<R>(
    conn: Ref<Conn>,
    deadline: Deadline,
    must_read: bool,
    mut take: impl FnMut(&mut Rx, &Socket, &RxCounts) -> Result<Option<R>>,
) -> Result<R> {
    // A call that does not wait reads until nothing is left.
    let reads_always = deadline == Deadline::Now;
    let must_read = Cell::new(must_read || reads_always);
    let attempt = || {
        let mut state = conn.state()?;
        if let Some(refusal) = state.refuses_receive() {
            return Err(refusal);
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        let must_read = must_read.replace(reads_always);
        let mut is_asked = true;
        if has_turn(conn, &mut state) {
            state.rx.end_loans();
            if let Some(taken) = pull(conn, &mut state, &socket, must_read, &mut take)? {
                return Ok(Tried::Done(taken));
            }
            is_asked = must_read || !state.rx.is_drained();
            if deadline.passed() {
                state.rx.settle(Sizes::of(&socket));
            }
        }
        let pending = (state, socket, epoch);
        Ok(if is_asked { Tried::Pending(pending) } else { Tried::Unasked(pending) })
    };
    wait::until(
        attempt,
        |_| deadline,
        |(state, socket, epoch), until| {
            must_read.set(true);
            wait_readable(conn, state, &socket, epoch, until)
        },
    )
}

/// Whether the frames are this caller's to take: not while a handler that was taken away still
/// runs on another thread, whose frames come first.
fn has_turn(conn: Ref<Conn>, state: &mut State) -> bool {
    if is_behind_handler(conn, state) {
        return false;
    }
    if state.delivering {
        let sizes = Sizes::of(state.socket());
        state.rx.set_aside(conn.slot.delivered.get() as usize, sizes);
    }
    true
}

/// Whether a handler that was taken away still runs on another thread.
pub fn is_behind_handler(conn: Ref<Conn>, state: &State) -> bool {
    state.delivering && !callback::delivers(conn.token)
}

/// Reads until `take` has what it wants, or nothing more is there now. Where a read would be in vain, it is
/// made only if the caller `must_read`.
fn pull<R>(
    conn: Ref<Conn>,
    state: &mut State,
    socket: &Socket,
    must_read: bool,
    take: &mut impl FnMut(&mut Rx, &Socket, &RxCounts) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let counts = &conn.slot.rx_counts;
    let reads = counts.reads.get();
    let mut reading = Reading::default();
    loop {
        let is_in_vain = !must_read && state.rx.is_drained() && !state.rx.has_frame(counts);
        if !is_in_vain {
            let taken = take(&mut state.rx, socket, counts);
            if !matches!(taken, Ok(None)) {
                // Also where the caller had no room for what was read.
                state.share_since(conn.slot, reads);
                return taken;
            }
        }
        if let Some(end) = state.rx.end() {
            return end::meet_end(conn, state, end).map_or(Ok(None), Err);
        }
        if is_in_vain || !reading.goes_on(socket, &state.rx) || !state.rx.fill(socket, counts) {
            return Ok(None);
        }
    }
}

/// Waits for bytes, or for a change after `epoch`, which was read before the socket was. A large buffer is
/// given back meanwhile, if nothing comes.
pub fn wait_readable(
    conn: Ref<Conn>,
    mut state: Guard<'_, State>,
    socket: &Socket,
    epoch: u32,
    deadline: Deadline,
) -> Result<()> {
    if is_behind_handler(conn, &state) {
        drop(state);
        return socket.wake.wait_fds(epoch, PollFds::new(), deadline).map(|_| ());
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

/// How the connection ended, or `None` while it is open, as it is while frames wait for callers that pull.
pub fn close_reason(conn: Ref<Conn>) -> Result<Option<Error>> {
    let mut state = conn.state()?;
    look_for_end(conn, &mut state);
    Ok(state.life.end_reason().cloned())
}

/// Ends the connection, if the peer has left and nothing that it sent waits. Calls that tell of the end
/// without receiving begin with it, so that all later calls agree.
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
