//! Sending on a connection: waiting for room where a caller may, and leaving to others what nobody waits
//! for.

use crate::conn::{self, Conn, background};
use crate::error::{Error, Result};
use crate::runtime::cork::{self, Cork};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::service::Source;
use crate::sys::clock::Deadline;
use crate::tx::frames::Frames;
use crate::tx::sender::TxGuard;

/// Holds a frame back beside others, the short way: without a look at anything else. Returns
/// whether it did.
#[inline]
pub fn join(token: Token, frame: &[u8]) -> bool {
    match cork::with(|cork| cork.lists(token)) {
        true => conn::table().get(token).is_ok_and(|conn| join_in(conn, frame, true)),
        false => coalesce(token, frame),
    }
}

#[inline(never)]
fn coalesce(token: Token, frame: &[u8]) -> bool {
    let Ok(conn) = conn::table().get(token) else {
        return false;
    };
    // What may be corked has to be listed first.
    conn.slot.sender.coalesces() && !cork::with(Cork::is_open) && join_in(conn, frame, false)
}

/// The same, if the handle is live.
#[inline]
fn join_in(conn: Ref<Conn>, frame: &[u8], is_corked: bool) -> bool {
    let mut tx = conn.slot.sender.lock();
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
        let mut tx = match conn.slot.sender.lock_of(conn.token) {
            Ok(tx) => tx,
            Err(error) => break waiting.gone(error),
        };
        let epoch = tx.socket().wake.epoch();
        if tx.is_stuck() {
            tx.write_backlog();
        }
        own = own.filter(|emptied| *emptied == tx.emptied());
        if own.is_none() && frames.clone().next().is_none() {
            return Ok(taken);
        }
        if let Some(end) = tx.end_reason() {
            break end.clone();
        }
        if !tx.is_stuck() {
            match tx.put(&mut frames) {
                Err(error) => break error,
                Ok(0) => {}
                Ok(n) => {
                    taken += n;
                    own = tx.is_stuck().then_some(tx.emptied());
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

/// Has the service thread look when what is held is due.
#[inline]
fn have_watched(conn: Ref<Conn>, mut tx: TxGuard<'_>) {
    let wants_look = tx.wants_look();
    drop(tx);
    if wants_look
        && !background::watch(conn)
        && let Ok(mut tx) = conn.slot.sender.lock_of(conn.token)
    {
        tx.release();
    }
}

/// Waits, as a send would, until nothing taken is unwritten.
pub fn flush(conn: Ref<Conn>) -> Result<()> {
    let mut waiting = Waiting::default();
    let failed = loop {
        let mut tx = match conn.slot.sender.lock_of(conn.token) {
            Ok(tx) => tx,
            Err(error) => break waiting.gone(error),
        };
        let epoch = tx.socket().wake.epoch();
        let is_all = tx.write_backlog();
        if let Some(end) = tx.end_reason() {
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
pub fn uncork(token: Token) {
    if let Ok(conn) = conn::table().get(token)
        && conn.slot.sender.lock_of(token).is_ok_and(|mut tx| !tx.write_backlog())
    {
        background::watch(conn);
    }
}

/// Leaves what is unwritten to the library's own thread, since no further call is needed for it.
fn leave_backlog(conn: Ref<Conn>) {
    if conn.slot.sender.lock_of(conn.token).is_ok_and(|tx| tx.has_backlog()) {
        background::watch(conn);
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
    fn wait(&mut self, tx: TxGuard<'_>, epoch: u32) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| tx.deadline());
        if deadline.passed() {
            return Err(deadline.error());
        }
        let (events, until) = tx.wait_for_room();
        let (socket, until) = (tx.socket().clone(), until.sooner(deadline));
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
