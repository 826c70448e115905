//! The way out: frames are taken whole or not at all, and what is taken is written in order.
//!
//! The socket may take a part of a frame. The rest of it is kept, and whoever comes next writes that
//! first: its sender, which waits; another sender; or the service thread, once nobody waits. So no lock
//! is held while a thread waits, and threads never mix their bytes.
//!
//! Frames that are held back for others to join them lie in the same queue, and so do those that were
//! forwarded to a full socket: whatever was taken and is not written is in one place.

mod backlog;
pub mod frames;
mod hold;
pub mod inbox;
mod join;
mod onward;
mod pass;
mod queue;
pub mod sender;
mod take;
mod write;

use std::sync::Arc;
use std::time::Instant;

use crate::capture::interface::Probes;
use crate::error::Error;
use crate::frame;
use crate::net::io::Lost;
use crate::net::socket::Socket;
use crate::options::{self, Options};
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::{Guarded, NO_KEY};
use crate::runtime::onward::Piece;
use crate::sys::clock::Deadline;
use crate::tx::frames::Fit;
use crate::tx::hold::Hold;
use crate::tx::queue::Queue;

/// The sending part of a connection.
#[derive(Default)]
pub struct Tx {
    /// The connection that it belongs to.
    pub token: Token,
    /// Called when a write finds that the peer has left, and no loop reads.
    on_loss: Option<fn(Token)>,
    socket: Option<Arc<Socket>>,
    /// The loop that sends, while the connection is plugged in.
    pub runner: Option<&'static Loop>,
    /// Why no more can be sent: the end as it was reported, or as a write met it. Boxed, since most connections
    /// have none, as for `peer_loss`.
    end: Option<Box<Error>>,
    /// Whether the connection is dialled again, so that a write that fails does not end it.
    redials: bool,
    /// Why whatever is written is lost, until the connection is up again: the peer has left.
    peer_loss: Option<Box<Error>>,
    /// What was taken and is not written.
    queue: Queue,
    /// What a handler sends on behind that, from where it lies.
    onward: Option<Piece>,
    /// Until when the queue is held back. A queue that is not is one that the socket had no room for.
    hold: Hold,
    /// Since when a socket of datagrams has had no room.
    full_since: Option<Instant>,
    /// Whether the last write failed for want of memory.
    is_short: bool,
    /// How many times the whole queue was written: a sender tells by it whether its own frame was.
    emptied: u64,
    timeout_ms: i64,
    fit: Fit,
    /// Whether sends may be corked (`QNET_OPT_CORK`).
    may_cork: bool,
    counts: Counts,
    /// What records the frames that are taken.
    pub probes: Probes,
    /// Those of the frames in `counts` that were messages, and that nobody has received.
    unheard: Lost,
}

/// Frames sent, their bytes, frames lost, and system calls that wrote something.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    pub frames: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub writes: u64,
}

impl Guarded for Tx {
    fn key(&self) -> u64 {
        let is_whole = self.end.is_none() && self.peer_loss.is_none() && self.socket.is_some();
        let is_plain = self.runner.is_none() && self.fit.padded == 0 && self.probes.is_empty();
        if is_whole && is_plain && self.onward.is_none() { self.token } else { NO_KEY }
    }
}

impl Tx {
    pub fn new(token: Token, socket: Arc<Socket>, options: &Options, on_loss: fn(Token)) -> Tx {
        let mut tx = Tx { token, on_loss: Some(on_loss), socket: Some(socket), ..Tx::default() };
        tx.configure(options);
        tx
    }

    pub fn configure(&mut self, options: &Options) {
        self.timeout_ms = options.get(options::SEND_TIMEOUT_MS);
        self.fit.max = options.max_frame().min(self.socket().max_frame()) as u32;
        self.fit.padded = if options.pad() { frame::PADDED } else { 0 };
        self.may_cork = options.cork();
        if !self.may_cork {
            self.hold.corker = 0;
        }
        self.hold.time = options.tx_time().as_nanos() as u64;
        self.redials = options.reconnects().is_some();
        if !self.redials {
            self.end = self.end.take().or_else(|| self.peer_loss.clone());
        }
    }

    pub fn counts(&self) -> Counts {
        let mut lost = self.unheard;
        lost.add(self.socket().refused());
        Counts {
            frames: self.counts.frames - lost.frames,
            bytes: self.counts.bytes - lost.bytes,
            dropped: self.counts.dropped + lost.frames,
            writes: self.counts.writes,
        }
    }

    /// The socket of a live connection.
    pub fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    /// The deadline of a send that begins to wait now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after_ms(self.timeout_ms)
    }

    /// Takes no more sends. What was taken is still written.
    pub fn end(&mut self, reason: Error) {
        self.end = Some(Box::new(reason));
    }

    /// Why no more sends are taken, if so.
    pub fn end_reason(&self) -> Option<&Error> {
        self.end.as_deref()
    }

    /// The error that a write has met, if that was a reset: reading then must not report the end of the
    /// stream as one in order.
    pub fn reset(&self) -> Option<Error> {
        let met = self.end.as_deref().or(self.peer_loss.as_deref());
        met.filter(|error| matches!(error, Error::Os(_))).cloned()
    }

    /// Whether the peer has left and the connection is to be dialled again: what is written is lost.
    pub fn has_lost_peer(&self) -> bool {
        self.peer_loss.is_some()
    }

    /// A write has found that the peer has left. Reading is to find the end too, behind the frames that
    /// still wait; where nobody reads, the service thread looks.
    fn lose_peer(&mut self, why: Error) {
        self.peer_loss = Some(Box::new(why));
        self.socket().shutdown();
        if let Some(on_loss) = self.on_loss.filter(|_| self.runner.is_none()) {
            on_loss(self.token);
        }
    }

    /// Goes on without a peer: what was taken and is not written is lost, and so is all that follows.
    pub fn go_down(&mut self, absent: Arc<Socket>) {
        self.end = None;
        self.peer_loss = Some(Box::new(Error::Closed));
        self.write_backlog();
        self.socket = Some(absent);
    }

    /// Goes on with another peer.
    pub fn come_up(&mut self, socket: Arc<Socket>) {
        self.peer_loss = None;
        self.socket = Some(socket);
    }
}
