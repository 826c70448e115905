//! Ending: what was taken is written, what a peer is still writing is drained, then the peer sees
//! the end.
//!
//! Draining is for QEMU: a `stream` netdev whose peer leaves while its write is blocked never
//! receives from the next one. And for TCP, which answers what comes to a socket that is closed by a
//! reset, and then forgets what it had still to send.

use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::conn;
use crate::conn::close_handler::{self, CloseCall};
use crate::conn::life::Call;
use crate::conn::plug;
use crate::conn::receive;
use crate::conn::redial;
use crate::conn::{Conn, State};
use crate::error::{Error, Result};
use crate::frame::{MAX, PREFIX, Skimmer};
use crate::net::io::Read;
use crate::net::socket::Socket;
use crate::runtime::callback;
use crate::runtime::handle::Ref;
use crate::runtime::service;
use crate::runtime::wake::PollFds;
use crate::rx::Rx;
use crate::sys::clock::Deadline;
use crate::sys::memory::as_room;

/// How long a peer that was writing must be silent to have finished.
const SILENCE: Duration = Duration::from_millis(20);

/// How long a peer that never falls silent is read from: by then it has finished any write that was
/// blocked when this side ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// One frame fills no socket.
const LONGEST: usize = PREFIX + MAX;

/// How long to wait before looking again whether TCP has sent all: no descriptor tells.
const SENDING: Duration = Duration::from_millis(5);

/// How many reads one turn of draining makes.
const READS: usize = 16;
const SCRATCH: usize = 16 << 10;

/// What ending left to do.
pub struct Finish {
    deadline: Deadline,
    /// The stream's position, while what the peer writes still matters.
    draining: Option<Skimmer>,
    /// When the peer last wrote something.
    heard: Option<Instant>,
    begun: Instant,
    /// How many bytes were read since the socket was empty.
    burst: usize,
    /// Whether the peer can write no more: what it still tries fails, and does not block.
    is_stopped: bool,
}

/// What one turn of finishing left.
pub enum Turn {
    Done,
    Wait(PollFlags, Deadline),
}

impl Finish {
    /// For an end by this side. Messages are written whole, and need no draining.
    fn local(linger: Duration, socket: &Socket, rx: &Rx) -> Finish {
        let draining = (!socket.has_messages()).then(|| {
            let mut position = Skimmer::default();
            position.skim(rx.unread());
            position
        });
        Finish { draining, heard: rx.busy(), ..Finish::remote(linger) }
    }

    /// For an end that the peer made: there is only writing left.
    fn remote(linger: Duration) -> Finish {
        Finish {
            deadline: Deadline::after(linger),
            draining: None,
            heard: None,
            begun: Instant::now(),
            burst: 0,
            is_stopped: false,
        }
    }

    /// Throws away what the peer has written. Returns whether it may be in the middle of more.
    fn drain(&mut self, socket: &Socket, is_writing: bool) -> bool {
        let Some(position) = &mut self.draining else {
            return false;
        };
        let mut scratch = [0; SCRATCH];
        let mut is_caught_up = false;
        for _ in 0..READS {
            match socket.read(as_room(&mut scratch)) {
                Ok(Read::Bytes(got)) => {
                    position.skim(&scratch[..got.bytes]);
                    self.heard = Some(Instant::now());
                    self.burst += got.bytes;
                }
                Ok(Read::End) if self.is_stopped && !socket.has_hung_up() => break,
                Ok(Read::Empty) => {
                    // Nothing at all may be a peer that has not yet seen that there is room.
                    is_caught_up = (1..=LONGEST).contains(&std::mem::take(&mut self.burst));
                    break;
                }
                Ok(Read::End) | Err(_) => {
                    self.draining = None;
                    return false;
                }
            }
        }
        if position.is_broken() {
            self.draining = None;
            return false;
        }
        let is_silent = self.heard.is_none_or(|heard| heard.elapsed() >= SILENCE);
        if self.is_stopped || is_silent && !position.inside_frame() {
            return !is_silent;
        }
        let is_between_frames = is_caught_up && !position.inside_frame();
        if is_between_frames && !is_writing && self.begun.elapsed() >= PATIENCE {
            // Over TCP nothing stops it, and this is the best moment that there is.
            self.is_stopped = socket.is_unix() && socket.stop_peer();
            return self.is_stopped;
        }
        true
    }

    /// Whether something is still to be sent by the system, to a peer that may yet write.
    fn is_sending(&self, socket: &Socket) -> bool {
        self.draining.is_some() && socket.unsent() > 0
    }

    /// What the next turn waits for: `room` to write, the end of the peer's frame, or its silence.
    fn wait(&self, room: Option<(PollFlags, Deadline)>) -> Turn {
        let is_writing = room.is_some();
        let (mut events, again) = room.unwrap_or((PollFlags::empty(), Deadline::Never));
        let mut until = self.deadline.sooner(again);
        if let Some(position) = &self.draining {
            // One that can write no more may still leave.
            events |= if self.is_stopped { PollFlags::HUP } else { PollFlags::IN };
            if let Some(heard) = self.heard
                && !is_writing
                && (self.is_stopped || !position.inside_frame())
            {
                until = until.sooner(Deadline::At(heard + SILENCE));
            }
        }
        Turn::Wait(events, until)
    }
}

/// Marks the connection as ended, for every call from now on. The state's lock is held.
pub fn end(conn: Ref<Conn>, state: &mut State, reason: Error) {
    state.life.end(reason.clone());
    redial::stop_dialling(conn, state);
    // What its loop has for it comes first.
    plug::unplug(conn, state);
    conn.slot.sender.lock().end(reason);
    conn.slot.interrupt.store(true, std::sync::atomic::Ordering::Release);
    conn.slot.changed(state);
}

/// Reading has met the end and used up what was before it. Returns how the connection ended, or
/// `None` where it is dialled again: then it is down now, with another socket.
pub fn meet_end(conn: Ref<Conn>, state: &mut State, found: Error) -> Option<Error> {
    let reason = with_reset(conn, found);
    if redial::go_down(conn, state, &reason) {
        return None;
    }
    end_as_found(conn, state, reason.clone());
    Some(reason)
}

/// Ends the connection for what its peer did.
pub fn end_as_found(conn: Ref<Conn>, state: &mut State, reason: Error) {
    end(conn, state, reason);
    finish(conn, state, Finish::remote(state.options.linger()));
}

/// A reset that a write met left nothing for reading but an end.
fn with_reset(conn: Ref<Conn>, reason: Error) -> Error {
    let reset = conn.slot.sender.lock().reset();
    if reason == Error::Closed { reset.unwrap_or(reason) } else { reason }
}

pub fn end_locally(conn: Ref<Conn>, state: &mut State) {
    if !state.life.has_ended() {
        end(conn, state, with_reset(conn, Error::Closed));
        let left = Finish::local(state.options.linger(), state.socket(), &state.rx);
        finish(conn, state, left);
    }
}

/// Finishes at once if it can, or leaves it to who takes the next turn.
fn finish(conn: Ref<Conn>, state: &mut State, finish: Finish) {
    state.finish = Some(Box::new(finish));
    if let Some(Turn::Wait(..)) = finish_turn(conn, state)
        // Who closes takes the turns himself.
        && !state.life.is_closing()
        && !service::service().watch(conn)
        && let Some(finish) = &mut state.finish
    {
        // Without a thread nobody would: the peer is to see the end all the same.
        finish.deadline = Deadline::Now;
        finish_turn(conn, state);
    }
}

/// One turn of finishing, or `None` if there is nothing to finish.
pub fn finish_turn(conn: Ref<Conn>, state: &mut State) -> Option<Turn> {
    let socket = state.socket().clone();
    let finish = state.finish.as_mut()?;
    let mut tx = conn.slot.sender.lock();
    tx.write_backlog();
    let is_writing = tx.has_backlog();
    let is_draining = finish.drain(&socket, is_writing);
    if !finish.deadline.passed() {
        if is_writing || is_draining {
            return Some(finish.wait(is_writing.then(|| tx.room())));
        }
        if finish.is_sending(&socket) {
            let until = finish.deadline.sooner(Deadline::after(SENDING));
            return Some(Turn::Wait(PollFlags::IN, until));
        }
    }
    tx.drop_backlog();
    drop(tx);
    socket.shutdown();
    state.finish = None;
    conn.slot.changed(state);
    Some(Turn::Done)
}

/// Ends the connection without waiting.
pub fn shutdown(conn: Ref<Conn>) -> Result<()> {
    end_locally(conn, &mut *conn.state()?);
    conn::give_back_if_over(conn);
    Ok(())
}

/// Closes a connection that the library gives back, and which has ended: waits, as closing would,
/// for what still runs of it, and until its descriptor is closed.
pub fn close_own(conn: Ref<Conn>) {
    let departure = match conn.state() {
        Ok(state) if state.is_hubs => state.socket().departure(),
        _ => return,
    };
    if wait_until_given_back(conn) {
        departure.wait();
    }
}

/// Returns whether it is: not where that is left to others.
fn wait_until_given_back(conn: Ref<Conn>) -> bool {
    loop {
        conn::give_back_if_over(conn);
        let Ok(mut state) = conn.state() else {
            return true;
        };
        let waits = state.options.wait() && !callback::inside();
        // Where nobody is to call the close handler, who closes the connection does.
        let is_called =
            !state.life.call().is_none_or(|call| matches!(call, Call::Waiting | Call::Done));
        if !state.is_hubs || state.finish.is_none() && !is_called {
            return false;
        }
        if state.finish.is_none() && !waits {
            // The thread that calls it goes on without the handle, once there is one.
            let is_ours = !state.lacks_thread() && state.life.begin_closing();
            drop(state);
            if is_ours {
                conn::discard(conn);
            }
            return is_ours;
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(state);
        socket.wake.wait_change(epoch);
    }
}

/// The first half of closing: ends the connection, writes and drains, and waits for what still
/// runs. The caller runs what is returned, and then calls `discard`.
pub fn close(conn: Ref<Conn>) -> Result<Option<CloseCall>> {
    let mut state = conn.state()?;
    if !state.life.begin_closing() {
        return Err(Error::Handle);
    }
    end_locally(conn, &mut state);
    while let Some(Turn::Wait(events, until)) = finish_turn(conn, &mut state) {
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(state);
        // A signal does not end a close.
        let _ = socket.wake.wait_fd(epoch, socket.fd_for(events), events, until);
        state = conn.state()?;
    }
    let waits = state.options.wait() && !callback::inside();
    loop {
        let call = close_handler::due(conn, &mut state);
        if call.is_some()
            || !waits
            || (state.life.call() == Some(Call::Done) && !state.delivering && !state.is_telling())
        {
            return Ok(call);
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(state);
        socket.wake.wait_change(epoch);
        state = conn.state()?;
    }
}

/// Waits until the connection has ended and, where it has a handler, its close handler has
/// returned.
pub fn wait(conn: Ref<Conn>, timeout_ms: i32) -> Result<()> {
    let mut deadline = None;
    loop {
        let mut state = match conn.state() {
            // It went while this call was waiting, so it has ended.
            Err(_) if deadline.is_some() => return Ok(()),
            state => state?,
        };
        let deadline = match deadline {
            Some(deadline) => deadline,
            None => *deadline.insert(Deadline::from_timeout(timeout_ms)?),
        };
        if callback::inside_of(conn.token) {
            return Err(Error::Busy("the call would wait for its own handler"));
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        let is_handled = state.handler.is_some() || state.port.is_some();
        match state.life.call() {
            Some(Call::Done) => return Ok(()),
            Some(Call::Waiting | Call::OnCallers) if !is_handled => return Ok(()),
            _ => {}
        }
        let is_ended = state.life.has_ended();
        let mut is_left = false;
        if !is_handled && !is_ended && (state.rx.has_found_end() || socket.peer_has_left()) {
            if !state.redials() {
                receive::look_for_end(conn, &mut state);
                return Ok(());
            }
            // It is down with this, or will be when the frames that wait have been received.
            receive::is_ready(conn, &mut state);
            is_left = true;
        }
        drop(state);
        if deadline.passed() {
            return Err(deadline.error());
        }
        if is_handled || is_ended || is_left || !socket.ends() {
            socket.wake.wait_fds(epoch, PollFds::new(), deadline)?;
        } else {
            socket.wake.wait_fd(epoch, socket.fd(), PollFlags::RDHUP, deadline)?;
        }
    }
}
