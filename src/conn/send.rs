//! Sending on a connection: waiting for room where a caller may, and leaving to the service thread what
//! nobody waits for.

use crate::conn::{self, Conn, background};
use crate::error::Result;
use crate::runtime::cork::{self, Cork};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::service::Source;
use crate::runtime::wait::{self, Tried};
use crate::tx::frames::Frames;
use crate::tx::sender::TxGuard;

/// Fast path: the frame joins a batch that is already held, and nothing else is touched. Returns whether it
/// did.
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
    // A frame that may be corked has to be listed first, which is not for the fast path.
    conn.slot.sender.coalesces() && !cork::with(Cork::is_open) && join_in(conn, frame, false)
}

/// Joins the batch of a connection whose handle is live.
#[inline]
fn join_in(conn: Ref<Conn>, frame: &[u8], is_corked: bool) -> bool {
    let mut tx = conn.slot.sender.lock();
    tx.token == conn.token && tx.join(frame, is_corked)
}

/// Sends frames in order, each waiting as a single one would. Returns how many were taken, or an error if
/// not even the first was.
pub fn send_all<'a>(conn: Ref<Conn>, mut frames: impl Frames<'a>) -> Result<usize> {
    let mut taken = 0;
    // What `emptied` was when the socket took only a part of these frames, until the rest is written.
    let mut own = None;
    loop {
        let put = with_room(conn, |mut tx| {
            if tx.is_stuck() {
                tx.write_backlog();
            }
            own = own.filter(|emptied| *emptied == tx.emptied());
            if own.is_none() && frames.clone().next().is_none() {
                return Ok(Tried::Done(0));
            }
            if let Some(end) = tx.end_reason() {
                return Err(end.clone());
            }
            let put = if tx.is_stuck() { 0 } else { tx.put(&mut frames)? };
            if put == 0 {
                return Ok(Tried::Pending(tx));
            }
            own = tx.is_stuck().then_some(tx.emptied());
            watch_held(conn, tx);
            Ok(Tried::Done(put))
        });
        match put {
            Err(error) if taken == 0 => return Err(error),
            Err(_) => return Ok(taken),
            Ok(put) => taken += put,
        }
        if own.is_none() && frames.clone().next().is_none() {
            return Ok(taken);
        }
    }
}

/// Has the service thread look when what is held is due.
#[inline]
fn watch_held(conn: Ref<Conn>, mut tx: TxGuard<'_>) {
    let wants_look = tx.wants_look();
    drop(tx);
    if wants_look
        && !background::watch(conn)
        && let Ok(mut tx) = conn.slot.sender.lock_of(conn.token)
    {
        tx.stop_holding();
    }
}

/// Waits, as a send would, until everything that was taken is written.
pub fn flush(conn: Ref<Conn>) -> Result<()> {
    with_room(conn, |mut tx| {
        Ok(match tx.make_way()? {
            true => Tried::Done(()),
            false => Tried::Pending(tx),
        })
    })
}

/// Makes attempts with the sending part, until one is done or the time has passed, and waits for room between
/// them. What is unwritten where that fails needs no further call.
#[inline]
fn with_room<R>(
    conn: Ref<Conn>,
    mut attempt: impl FnMut(TxGuard<'static>) -> Result<Tried<R, TxGuard<'static>>>,
) -> Result<R> {
    let attempt = || {
        let tx = conn.slot.sender.lock_of(conn.token)?;
        // Read before the socket is tried.
        let epoch = tx.socket().wake.epoch();
        Ok(match attempt(tx)? {
            Tried::Done(result) => Tried::Done(result),
            Tried::Pending(tx) => Tried::Pending((tx, epoch)),
        })
    };
    let done = wait::until(
        attempt,
        |(tx, _)| tx.deadline(),
        |(tx, epoch), deadline| {
            let (events, until) = tx.until_room_or_loss();
            let (socket, until) = (tx.socket().clone(), until.sooner(deadline));
            drop(tx);
            // After a time-out the socket is tried once more: it may have room for a frame long before
            // it says so.
            socket.wake.wait_fd(epoch, socket.fd_for(events), events, until)
        },
    );
    done.inspect_err(|_| leave_backlog(conn))
}

/// Writes what is held. What the socket does not take is left to the service thread.
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
