//! A port, as the switch knows it: what it sends by and reads with, and what the loop waits for there.

use std::sync::{Arc, MutexGuard};

use crate::error::{Error, Result};
use crate::net::socket::Socket;
use crate::runtime::event_loop::{ADDED, Interest, Loop, NOTHING, WRITABLE};
use crate::runtime::handle::Token;
use crate::rx::Rx;
use crate::switch::sorter::{List, Piece, pass_pieces};
use crate::tx::Tx;
use crate::tx::sender::Sender;

/// A port, as the switch knows it.
pub struct Outlet {
    pub conn: Token,
    sender: &'static Sender,
    pub socket: Arc<Socket>,
    /// What it is read with, while the loop may read.
    pub rx: Option<Rx>,
    /// Whether its sending part was held by somebody else when it was last needed. There will be a
    /// turn when it is free.
    pub is_held: bool,
    /// Whether it is memory that is waited for where it waits to write: nothing tells of that.
    is_short: bool,
    /// What it waits for; and what the loop's set has of that, of the socket and of its second
    /// descriptor.
    pub interest: Interest,
    watched: (Interest, Interest),
    /// What is to be sent here this turn.
    pub pieces: List,
}

/// What a loop waits for at a port.
pub struct Watched {
    token: Token,
    socket: Arc<Socket>,
    /// Of the socket, and of its second descriptor.
    watched: (Interest, Interest),
}

impl Watched {
    /// Waits for none of it any more.
    pub fn end(&self, runner: &Loop) {
        // Taking a descriptor out of the set cannot fail.
        let _ = runner.watch(self.socket.fd(), self.token, self.watched.0, NOTHING);
        if let Some(fd) = self.socket.second_fd() {
            let _ = runner.watch(fd, self.token, self.watched.1, NOTHING);
        }
    }
}

impl Outlet {
    /// Of a connection whose socket was `ADDED` to the loop's set.
    pub fn new(conn: Token, sender: &'static Sender, socket: Arc<Socket>) -> Outlet {
        Outlet {
            conn,
            sender,
            socket,
            rx: None,
            is_held: false,
            is_short: false,
            interest: NOTHING,
            watched: (ADDED, NOTHING),
            pieces: List::EMPTY,
        }
    }

    /// Goes on with another socket, of which nothing is waited for yet.
    pub fn begin_with(&mut self, socket: Arc<Socket>) {
        self.socket = socket;
        (self.interest, self.watched) = (NOTHING, (NOTHING, NOTHING));
    }

    pub fn watched(&self) -> Watched {
        Watched { token: self.conn, socket: self.socket.clone(), watched: self.watched }
    }

    /// How what is read here ended, once all before that has been forwarded.
    pub fn end(&self) -> Option<Error> {
        self.rx.as_ref().and_then(Rx::end)
    }

    /// The sending part, with what was left for it taken over, if nobody else holds it.
    pub fn tx(&mut self) -> Option<MutexGuard<'static, Tx>> {
        let tx = self.sender.try_lock();
        self.have_turn(tx)
    }

    /// If it is not to be had, there will be a turn once it is.
    fn have_turn(
        &mut self,
        tx: Option<MutexGuard<'static, Tx>>,
    ) -> Option<MutexGuard<'static, Tx>> {
        let sender = self.sender;
        let tx = tx.or_else(|| {
            sender.inbox.want();
            sender.try_lock()
        });
        self.is_held = tx.is_none();
        tx.map(|mut tx| {
            sender.inbox.empty_into(&mut tx);
            tx
        })
    }

    /// Has the loop watch for what is waited for, from now on. Only the system's lack of memory, or of
    /// room in the sets of all its processes, stands against that; nothing tells when it is over.
    pub fn watch(&mut self, runner: &Loop) {
        if self.try_watch(runner).is_err() {
            runner.rest(self.conn);
        }
    }

    fn try_watch(&mut self, runner: &Loop) -> Result<()> {
        let watched = if self.is_short { self.interest - WRITABLE } else { self.interest };
        // Which of the two tells of room may have changed since.
        let is_apart = watched.contains(WRITABLE) && self.socket.room_apart().is_some();
        let second = if is_apart { WRITABLE } else { NOTHING };
        let first = watched - second;
        if self.watched.0 != first {
            runner.watch(self.socket.fd(), self.conn, self.watched.0, first)?;
            self.watched.0 = first;
        }
        if let Some(fd) = self.socket.second_fd().filter(|_| self.watched.1 != second) {
            runner.watch(fd, self.conn, self.watched.1, second)?;
            self.watched.1 = second;
        }
        Ok(())
    }

    /// Lets the sending part go, and waits for what it needs to go on: for nothing where all is
    /// written.
    pub fn wait_for_room(&mut self, runner: &Loop, tx: MutexGuard<'static, Tx>, is_waiting: bool) {
        self.sender.inbox.tell_unwritten(tx.queued());
        self.is_short = tx.is_short();
        if is_waiting && tx.waits_for_time() {
            // What finds no room for long is lost, and nothing else may happen until then.
            runner.rest(self.conn);
        }
        drop(tx);
        self.interest.set(WRITABLE, is_waiting);
        self.watch(runner);
    }

    /// Sends pieces of `bytes`, in order, or leaves them to who holds the sending part. Returns how
    /// many frames were dropped.
    pub fn send(
        &mut self,
        runner: &Loop,
        bytes: &[u8],
        pieces: impl IntoIterator<Item = Piece, IntoIter: Clone>,
        room: &mut [u8],
        limit: usize,
    ) -> usize {
        let (sender, pieces) = (self.sender, pieces.into_iter());
        let tx = sender.try_lock();
        let is_left = tx.is_none();
        let mut dropped = 0;
        if is_left {
            let leave = |piece: Piece| sender.inbox.leave(&bytes[piece.start..piece.end], limit);
            dropped = pieces.clone().map(leave).sum();
        }
        if let Some(mut tx) = self.have_turn(tx) {
            if !is_left {
                dropped = pass_pieces(&mut tx, bytes, pieces, room, limit);
            }
            let is_waiting = tx.is_stuck() || self.interest.contains(WRITABLE);
            self.wait_for_room(runner, tx, is_waiting);
        }
        dropped
    }
}
