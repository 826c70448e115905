//! Sending on a connection: waiting for room where a caller may, and leaving to the service thread what
//! nobody waits for.

use std::time::Duration;

use crate::conn::{self, Conn, background};
use crate::error::Result;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::Guard;
use crate::runtime::service::Source;
use crate::runtime::wait::{self, Tried};
use crate::sys::clock::Deadline;
use crate::tx::Tx;
use crate::tx::frames::{Bad, Frames, Scattered, once};
use crate::tx::sender::{Sender, TxGuard};

/// How long a sender waits for room until it tries again: a write tells that a Unix peer has stopped reading for good, but
/// no descriptor does while its socket is full (Linux, `unix_poll`).
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What sends for a connection, for the fast paths of sending.
#[inline(always)]
pub fn sender(token: Token) -> Option<&'static Sender> {
    conn::table().slot(token).map(|slot| &slot.sender)
}

/// Goes on as [`send_all`] does, where [`Tx::put_alone`] has not written the whole frame.
pub fn go_on(
    conn: Ref<Conn>,
    frame: Result<&[u8], Bad>,
    tx: Guard<'_, Tx>,
    put: Option<Result<usize>>,
) -> Result<()> {
    let emptied = tx.emptied();
    drop(tx);
    match put {
        Some(Err(error)) => Err(error),
        Some(Ok(1..)) => {
            send_rest(conn, Scattered(std::iter::empty()), 1, Some(emptied)).map(|_| ())
        }
        Some(Ok(0)) | None => send_all(conn, once(frame)).map(|_| ()),
    }
}

/// Sends frames in order, each waiting as a single one would. Returns how many were taken, or an error if
/// not even the first was.
pub fn send_all<'a>(conn: Ref<Conn>, frames: impl Frames<'a>) -> Result<usize> {
    send_rest(conn, frames, 0, None)
}

/// Goes on sending, when some were taken. Where the socket took only a part of them, `own` is what `emptied`
/// was, until the rest is written.
fn send_rest<'a>(
    conn: Ref<Conn>,
    mut frames: impl Frames<'a>,
    mut taken: usize,
    mut own: Option<u64>,
) -> Result<usize> {
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
    if wants_look && !background::watch(conn) {
        if let Ok(mut tx) = conn.slot.sender.lock_of(conn.token) {
            tx.stop_holding();
        }
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
            Tried::Pending(tx) | Tried::Unasked(tx) => Tried::Pending((tx, epoch)),
        })
    };
    let done = wait::until(
        attempt,
        |(tx, _)| tx.deadline(),
        |(tx, epoch), deadline| {
            let (events, until) = tx.until_room_or_loss();
            let until = until.sooner(Deadline::after(LOOK_AGAIN)).sooner(deadline);
            let socket = tx.socket().clone();
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
    let Ok(conn) = conn::table().get(token) else {
        return;
    };
    if !conn.slot.sender.uncork(token) {
        background::watch(conn);
    }
}

/// Leaves what is unwritten to the library's own thread, since no further call is needed for it.
fn leave_backlog(conn: Ref<Conn>) {
    if conn.slot.sender.lock_of(conn.token).is_ok_and(|tx| tx.has_backlog()) {
        background::watch(conn);
    }
}
