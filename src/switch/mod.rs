//! What forwards frames between ports: a hub, or a link, which is a switch of two ports that learns
//! nothing and loses nothing.
//!
//! A switch belongs to one loop. Locks are taken in this order: a connection's state, the switch, a
//! connection's sending part; so whoever has taken a connection out of a switch knows that nothing
//! is forwarded from or to it any more. Nobody but the loop makes a system call, or waits for another
//! lock that is held during one, with the switch locked.

pub mod port;
pub mod table;

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use slab::Slab;

use crate::conn::Conn;
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX, Run, Walk};
use crate::net::socket::Socket;
use crate::runtime::event_loop::{self, ADDED, Interest, Loop, NOTHING, READABLE, WRITABLE};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::Fair;
use crate::rx::Rx;
use crate::rx::counts::RxCounts;
use crate::switch::table::{Mac, Table};
use crate::sys::memory::Memory;
use crate::tx::Tx;

/// A frame's destination and source: what decides where it goes.
type Addresses = [u8; 12];

fn destination_of(&[a, b, c, d, e, f, ..]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
}

fn source_of(&[.., a, b, c, d, e, f]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
}

/// From this length on a piece is sent where it lies, though others have the same destination:
/// copying it would cost more than a write.
const LONG: usize = 16 << 10;

/// Room to copy short pieces together.
const ROOM: usize = 128 << 10;

pub struct Switch {
    pub runner: &'static Loop,
    inside: Fair<Inside>,
}

/// What the loop works with; others, when they plug something in or out, or ask.
pub struct Inside {
    runner: &'static Loop,
    ports: Slab<Outlet>,
    pub kind: Kind,
    pub counts: Counts,
}

pub enum Kind {
    /// What one receives the other sends. When a socket is full the other is not read, nor before
    /// both sides have been there.
    Link { is_whole: bool },
    Hub {
        table: Table,
        /// How many bytes may wait for each port.
        queue: usize,
        is_closed: bool,
    },
}

/// Frames, by what became of them.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    pub forwarded: u64,
    pub flooded: u64,
    pub dropped: u64,
}

/// A port, as the switch knows it.
pub struct Outlet {
    conn: Ref<Conn>,
    pub socket: Arc<Socket>,
    /// What it is read with, while the loop may read.
    pub rx: Option<Rx>,
    /// Whether its sending part was held by somebody else when it was last needed. There will be a
    /// turn when it is free.
    is_held: bool,
    /// Whether it is memory that is waited for where it waits to write: nothing tells of that.
    is_short: bool,
    /// What it waits for; and what the loop's set has of that, of the socket and of its second
    /// descriptor.
    interest: Interest,
    watched: (Interest, Interest),
    /// The pieces that are to be sent here this turn: a list in the sorter.
    first: usize,
    last: usize,
}

const NO_PIECE: usize = usize::MAX;

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To where it came from, which is nowhere.
    Back,
    To(usize),
    Others,
}

/// Frames that lie one behind the other and go the same way.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    frames: usize,
    longest: usize,
    /// The next piece to the same port.
    next: usize,
}

impl Piece {
    fn at(start: usize) -> Piece {
        Piece { start, end: start, frames: 0, longest: 0, next: NO_PIECE }
    }

    #[inline]
    fn add(&mut self, frame_len: usize) {
        self.end += PREFIX + frame_len;
        self.frames += 1;
        self.longest = self.longest.max(frame_len);
    }
}

/// What came in during a turn, sorted by port.
pub struct Sorter {
    pieces: Vec<Piece>,
    /// Ports that have pieces.
    ports: Vec<usize>,
    /// To copy short pieces together.
    room: Memory,
}

impl Default for Sorter {
    fn default() -> Sorter {
        Sorter { pieces: Vec::new(), ports: Vec::new(), room: Memory::of(ROOM) }
    }
}

impl Switch {
    pub fn new(kind: Kind) -> Arc<Switch> {
        let runner = event_loop::loops().choose();
        let counts = Counts::default();
        let inside = Inside { runner, ports: Slab::new(), kind, counts };
        Arc::new(Switch { runner, inside: Fair::new(inside) })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    pub fn is_link(&self) -> bool {
        self.lock().is_link()
    }
}

impl Inside {
    pub fn add(&mut self, outlet: Outlet) -> Result<usize> {
        if matches!(self.kind, Kind::Hub { is_closed: true, .. }) {
            return Err(Error::Handle);
        }
        let id = self.ports.insert(outlet);
        if let Kind::Link { is_whole } = &mut self.kind {
            *is_whole |= self.ports.len() == 2;
        }
        Ok(id)
    }

    /// Takes a port out. Returns what it was read with, if it was, and who is at the other side of the
    /// link.
    pub fn remove(&mut self, id: usize) -> (Option<Rx>, Option<Ref<Conn>>) {
        let outlet = self.ports.remove(id);
        if let Kind::Hub { table, .. } = &mut self.kind {
            table.forget(id);
        }
        (outlet.rx, self.conn_opposite(id))
    }

    /// Whether that is the port of `conn`.
    pub fn has(&self, id: usize, conn: Ref<Conn>) -> bool {
        self.ports.get(id).is_some_and(|outlet| outlet.conn.token == conn.token)
    }

    pub fn outlet(&mut self, id: usize) -> &mut Outlet {
        &mut self.ports[id]
    }

    /// Takes back what a turn that came to nothing has sorted.
    pub fn forget_pieces(&mut self) {
        self.ports.iter_mut().for_each(|(_, outlet)| outlet.first = NO_PIECE);
    }

    /// Takes nothing in any more. Returns what is still in there.
    pub fn close(&mut self) -> Vec<Ref<Conn>> {
        if let Kind::Hub { is_closed, .. } = &mut self.kind {
            *is_closed = true;
        }
        self.ports().collect()
    }

    pub fn ports(&self) -> impl ExactSizeIterator<Item = Ref<Conn>> {
        self.ports.iter().map(|(_, outlet)| outlet.conn)
    }

    fn is_link(&self) -> bool {
        matches!(self.kind, Kind::Link { .. })
    }

    /// Whether it is a link of which one side has ended.
    pub fn is_cut(&self) -> bool {
        self.ports.len() < 2 && matches!(self.kind, Kind::Link { is_whole: true })
    }

    /// The port at the other side of a link.
    fn other_side(&self, id: usize) -> Option<usize> {
        self.ports.iter().map(|(other, _)| other).find(|other| self.is_link() && *other != id)
    }

    /// The connection there.
    pub fn conn_opposite(&self, id: usize) -> Option<Ref<Conn>> {
        self.other_side(id).map(|other| self.ports[other].conn)
    }

    /// Waits for something at a port, or no more.
    pub fn wait_for(&mut self, id: usize, what: Interest, whether: bool) {
        let outlet = &mut self.ports[id];
        outlet.interest.set(what, whether);
        outlet.watch(self.runner);
    }

    /// Whether a port is to be read, and waits for that from now on.
    pub fn may_read(&mut self, id: usize) -> bool {
        let is_full = |other: usize| {
            let other = &self.ports[other];
            other.is_held || other.interest.contains(WRITABLE)
        };
        let is_open = self.ports[id].rx.as_ref().is_some_and(|rx| rx.end().is_none());
        let is_blocked = match self.other_side(id) {
            Some(other) => is_full(other),
            None => self.is_link(),
        };
        let may = is_open && !is_blocked;
        self.wait_for(id, READABLE, may);
        may
    }

    /// Writes what waits for a port.
    pub fn write_waiting(&mut self, id: usize) {
        if !self.wait_to_write(id) {
            return;
        }
        if let Some(other) = self.other_side(id) {
            // Its turn comes by itself, if there is something to read.
            self.wait_for(other, READABLE, true);
        }
    }

    /// Writes what waits for a port, or waits for room; or for its sending part, of which this port
    /// gets a turn once that is free. Returns whether all is written.
    pub fn wait_to_write(&mut self, id: usize) -> bool {
        let outlet = &mut self.ports[id];
        let Some(mut tx) = outlet.tx() else {
            self.wait_for(id, WRITABLE, false);
            return false;
        };
        let is_written = tx.write_backlog();
        outlet.wait_for_room(self.runner, tx, !is_written);
        is_written
    }

    /// Sends on the whole frames at the front of `bytes`, which came in at port `from`. Returns how far
    /// they reach.
    pub fn forward(
        &mut self,
        from: usize,
        bytes: &[u8],
        counts: &RxCounts,
        sorter: &mut Sorter,
        now: Instant,
    ) -> usize {
        let learns = !self.is_link();
        let mut total = Run::default();
        let mut way = Way::Others;
        let mut addresses = None;
        let mut piece = Piece::at(0);
        for frame in Walk::over(bytes) {
            let start = total.end;
            total.end += PREFIX + frame.len();
            let Some(header) = frame.first_chunk().filter(|_| frame.len() >= frame::MIN) else {
                total.runts += 1;
                self.dispatch(from, way, piece, bytes, sorter);
                piece = Piece::at(total.end);
                continue;
            };
            if learns && addresses != Some(*header) {
                let next = self.way_of(from, header, addresses.as_ref(), now);
                addresses = Some(*header);
                if next != way {
                    self.dispatch(from, way, piece, bytes, sorter);
                    (way, piece) = (next, Piece::at(start));
                }
            }
            total.frames += 1;
            total.bytes += frame.len();
            piece.add(frame.len());
        }
        self.dispatch(from, way, piece, bytes, sorter);
        self.send_sorted(bytes, sorter);
        counts.run(&total);
        total.end
    }

    /// Where a frame with these addresses goes, which came behind one with those `before`. Its source
    /// is learned.
    fn way_of(
        &mut self,
        from: usize,
        addresses: &Addresses,
        before: Option<&Addresses>,
        now: Instant,
    ) -> Way {
        let Kind::Hub { table, .. } = &mut self.kind else {
            return Way::Others;
        };
        let source = source_of(addresses);
        if before.map(source_of) != Some(source) {
            table.learn(source, from, now);
        }
        match table.find(&destination_of(addresses), now) {
            Some(port) if port == from => Way::Back,
            Some(port) => Way::To(port),
            None => Way::Others,
        }
    }

    /// Frames for one port wait for more of them; those for many come behind what waits.
    fn dispatch(&mut self, from: usize, way: Way, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        if piece.frames == 0 {
            return;
        }
        match way {
            Way::Back => self.counts.dropped += piece.frames as u64,
            Way::To(port) => sorter.add(port, &mut self.ports[port], piece),
            Way::Others => {
                self.send_sorted(bytes, sorter);
                self.flood(from, piece, bytes, sorter);
            }
        }
    }

    fn flood(&mut self, from: usize, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let others = self.ports.iter_mut().filter(|(id, _)| *id != from);
        for (_, outlet) in others {
            let dropped = outlet.send(self.runner, bytes, [piece], &mut sorter.room, limit);
            self.counts.dropped += dropped as u64;
        }
        self.counts.flooded += piece.frames as u64;
    }

    fn send_sorted(&mut self, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let Sorter { pieces, ports, room } = sorter;
        for id in ports.drain(..) {
            let outlet = &mut self.ports[id];
            let first = std::mem::replace(&mut outlet.first, NO_PIECE);
            let next = |piece: &Piece| pieces.get(piece.next).copied();
            let list = std::iter::successors(pieces.get(first).copied(), next);
            let frames: usize = list.clone().map(|piece| piece.frames).sum();
            let dropped = outlet.send(self.runner, bytes, list, room, limit);
            self.counts.forwarded += (frames - dropped) as u64;
            self.counts.dropped += dropped as u64;
        }
        pieces.clear();
    }

    /// How many bytes may wait for a port.
    fn limit(&self) -> usize {
        match &self.kind {
            Kind::Link { .. } => usize::MAX,
            Kind::Hub { queue, .. } => *queue,
        }
    }
}

impl Sorter {
    /// Puts a piece at the end of a port's list.
    fn add(&mut self, id: usize, outlet: &mut Outlet, piece: Piece) {
        let at = self.pieces.len();
        self.pieces.push(piece);
        if outlet.first == NO_PIECE {
            outlet.first = at;
            self.ports.push(id);
        } else {
            self.pieces[outlet.last].next = at;
        }
        outlet.last = at;
    }
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
    pub fn new(conn: Ref<Conn>, socket: Arc<Socket>) -> Outlet {
        Outlet {
            conn,
            socket,
            rx: None,
            is_held: false,
            is_short: false,
            interest: NOTHING,
            watched: (ADDED, NOTHING),
            first: NO_PIECE,
            last: NO_PIECE,
        }
    }

    /// Goes on with another socket, of which nothing is waited for yet.
    pub fn begin_with(&mut self, socket: Arc<Socket>) {
        self.socket = socket;
        (self.interest, self.watched) = (NOTHING, (NOTHING, NOTHING));
    }

    pub fn watched(&self) -> Watched {
        Watched { token: self.conn.token, socket: self.socket.clone(), watched: self.watched }
    }

    /// How what is read here ended, once all before that has been forwarded.
    pub fn end(&self) -> Option<Error> {
        self.rx.as_ref().and_then(Rx::end)
    }

    /// The sending part, with what was left for it taken over, if nobody else holds it.
    fn tx(&mut self) -> Option<MutexGuard<'static, Tx>> {
        let tx = self.conn.slot.sender.try_lock();
        self.have_turn(tx)
    }

    /// If it is not to be had, there will be a turn once it is.
    fn have_turn(
        &mut self,
        tx: Option<MutexGuard<'static, Tx>>,
    ) -> Option<MutexGuard<'static, Tx>> {
        let slot = self.conn.slot;
        let tx = tx.or_else(|| {
            slot.sender.inbox.want();
            slot.sender.try_lock()
        });
        self.is_held = tx.is_none();
        tx.map(|mut tx| {
            slot.sender.inbox.empty_into(&mut tx);
            tx
        })
    }

    /// Has the loop watch for what is waited for, from now on. Only the system's lack of memory, or of
    /// room in the sets of all its processes, stands against that; nothing tells when it is over.
    fn watch(&mut self, runner: &Loop) {
        if self.try_watch(runner).is_err() {
            runner.rest(self.conn.token);
        }
    }

    fn try_watch(&mut self, runner: &Loop) -> Result<()> {
        let watched = if self.is_short { self.interest - WRITABLE } else { self.interest };
        // Which of the two tells of room may have changed since.
        let is_apart = watched.contains(WRITABLE) && self.socket.room_apart().is_some();
        let second = if is_apart { WRITABLE } else { NOTHING };
        let first = watched - second;
        if self.watched.0 != first {
            runner.watch(self.socket.fd(), self.conn.token, self.watched.0, first)?;
            self.watched.0 = first;
        }
        if let Some(fd) = self.socket.second_fd().filter(|_| self.watched.1 != second) {
            runner.watch(fd, self.conn.token, self.watched.1, second)?;
            self.watched.1 = second;
        }
        Ok(())
    }

    /// Lets the sending part go, and waits for what it needs to go on: for nothing where all is
    /// written.
    fn wait_for_room(&mut self, runner: &Loop, tx: MutexGuard<'static, Tx>, is_waiting: bool) {
        self.conn.slot.sender.inbox.tell_unwritten(tx.queued());
        self.is_short = tx.is_short();
        if is_waiting && tx.waits_for_time() {
            // What finds no room for long is lost, and nothing else may happen until then.
            runner.rest(self.conn.token);
        }
        drop(tx);
        self.interest.set(WRITABLE, is_waiting);
        self.watch(runner);
    }

    /// Sends pieces of `bytes`, in order, or leaves them to who holds the sending part. Returns how
    /// many frames were dropped.
    fn send(
        &mut self,
        runner: &Loop,
        bytes: &[u8],
        pieces: impl IntoIterator<Item = Piece, IntoIter: Clone>,
        room: &mut [u8],
        limit: usize,
    ) -> usize {
        let (slot, pieces) = (self.conn.slot, pieces.into_iter());
        let tx = slot.sender.try_lock();
        let is_left = tx.is_none();
        let mut dropped = 0;
        if is_left {
            let leave =
                |piece: Piece| slot.sender.inbox.leave(&bytes[piece.start..piece.end], limit);
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

/// Sends pieces of `bytes`, in order, short ones together. Returns how many frames were dropped.
fn pass_pieces(
    tx: &mut Tx,
    bytes: &[u8],
    pieces: impl Iterator<Item = Piece> + Clone,
    room: &mut [u8],
    limit: usize,
) -> usize {
    let mut dropped = 0;
    let is_alone = pieces.clone().nth(1).is_none();
    let (mut len, mut frames) = (0, 0);
    for piece in pieces {
        let part = &bytes[piece.start..piece.end];
        let joins = !is_alone && part.len() < LONG && tx.passes_as_is(piece.longest);
        if len > 0 && (!joins || len + part.len() > room.len()) {
            dropped += tx.pass(&room[..len], frames, limit);
            (len, frames) = (0, 0);
        }
        if joins {
            room[len..len + part.len()].copy_from_slice(part);
            len += part.len();
            frames += piece.frames;
        } else if tx.passes_as_is(piece.longest) {
            dropped += tx.pass(part, piece.frames, limit);
        } else {
            dropped += tx.pass_fitted(part, room, limit);
        }
    }
    if len > 0 {
        dropped += tx.pass(&room[..len], frames, limit);
    }
    dropped
}
