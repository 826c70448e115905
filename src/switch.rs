//! What forwards frames between ports: a hub, or a link, which is a switch of two ports that learns
//! nothing and loses nothing.
//!
//! A switch belongs to one loop. Locks are taken in this order: a connection's state, the switch, a
//! connection's sending part; so whoever has taken a connection out of a switch knows that nothing
//! is forwarded from or to it any more.

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use slab::Slab;

use crate::conn::{Conn, RxCounts, State};
use crate::error::{Error, Result};
use crate::forward::{Interest, Loop, NOTHING, READABLE, WRITABLE, Work};
use crate::frame::{self, PREFIX, Run, Walk};
use crate::handle::Ref;
use crate::memory::Memory;
use crate::process::{Fair, process};
use crate::receive::loop_room;
use crate::table::{Mac, Table};

/// Why an attached or linked connection cannot be received from.
pub const PLUGGED: Error = Error::Busy("the connection is attached or linked");

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

/// Where a connection is plugged in, as it knows it.
pub struct Port {
    pub switch: Arc<Switch>,
    id: usize,
}

impl Port {
    /// The connection at the other side of a link.
    pub fn other_side(&self) -> Option<Ref<Conn>> {
        let inside = self.switch.lock();
        inside.other_side(self.id).map(|id| inside.ports[id].conn)
    }

    /// Its connection gets another socket, by `exchange`.
    pub fn exchange_socket(&self, exchange: impl FnOnce()) {
        let mut inside = self.switch.lock();
        let outlet = &mut inside.ports[self.id];
        // Taking a descriptor out of the set cannot fail.
        let _ = outlet.watch(self.switch.runner, NOTHING);
        exchange();
        // In its turn it waits for what it has to of the new one.
        self.switch.runner.look(outlet.conn.token);
    }
}

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
    /// What one receives the other sends. When a socket is full the other is not read.
    Link,
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
struct Outlet {
    conn: Ref<Conn>,
    /// What the loop waits for, and of that, what of the socket's second descriptor.
    interest: Interest,
    second: Interest,
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
        let runner = process().loops.choose();
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

/// Plugging in and out. The state's lock is held.
impl Ref<Conn> {
    pub fn plug(self, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
        switch.runner.join()?;
        // A handler that was taken away may still have frames in hand: they come first.
        let interest = if state.delivering { NOTHING } else { READABLE };
        let added = switch.lock().add(self, interest);
        let id = added.inspect_err(|_| switch.runner.leave())?;
        state.rx.end_loans();
        state.port = Some(Port { switch: switch.clone(), id });
        switch.runner.look(self.token);
        self.slot.changed(state);
        Ok(())
    }

    /// Takes it out of `switch`.
    pub fn unplug_from(self, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
        if !state.port.as_ref().is_some_and(|port| Arc::ptr_eq(&port.switch, switch)) {
            return Err(Error::invalid("the connection is not in there"));
        }
        self.unplug(state);
        Ok(())
    }

    /// Takes it out of where it is plugged in. Returns whose turns it had there.
    pub fn unplug(self, state: &mut State) -> Option<&'static Loop> {
        let Port { switch, id } = state.port.take()?;
        let mut inside = switch.lock();
        inside.remove(id);
        if let Some(other) = inside.other_side(id) {
            switch.runner.look(inside.ports[other].conn.token);
        }
        drop(inside);
        switch.runner.leave();
        self.leave_unwritten(switch.runner);
        self.slot.changed(state);
        Some(switch.runner)
    }

    /// Leaves what is unwritten to the service thread. Where there can be none now, `runner` tries
    /// again.
    fn leave_unwritten(self, runner: &Loop) {
        if self.slot.tx_of_own().has_backlog() && !process().service.watch(self) {
            runner.rest(self.token);
        }
    }
}

/// The loop's own part.
impl Ref<Conn> {
    /// One turn: writes what waits for it, then reads once and sends that on.
    pub fn forward_turn(self, runner: &Loop, events: EventFlags, work: &mut Work) {
        let Ok(mut guard) = self.state() else {
            return;
        };
        let state = &mut *guard;
        let Some(Port { switch, id }) = &state.port else {
            // For want of a thread something was left to do.
            if state.lacks_thread() {
                self.have_close_handler_run(state, runner);
            }
            self.leave_unwritten(runner);
            return;
        };
        if !std::ptr::eq(switch.runner, runner) {
            return; // an event from before it was plugged in there
        }
        let (switch, id) = (switch.clone(), *id);
        let mut inside = switch.lock();
        if events != READABLE {
            inside.write_waiting(id);
        }
        if inside.is_cut() {
            let is_written = inside.wait_to_write(id);
            inside.wait_for(id, READABLE, false);
            drop(inside);
            if is_written {
                self.end_locally(state);
            }
        } else if inside.may_read(id, state.delivering) {
            self.read_and_forward(state, &mut inside, id, work);
            inside.may_read(id, false);
            drop(inside);
            if let Some(end) = state.rx.end() {
                self.meet_end(state, end);
            }
        } else {
            return;
        }
        let is_ended = state.ended.is_some();
        drop(guard);
        if is_ended {
            self.give_back_if_over();
        }
    }

    /// A panic in its turn ends the connection, not the process.
    pub fn forwarding_panicked(self) {
        if let Ok(mut state) = self.state() {
            if let Some(port) = &state.port {
                port.switch.lock().forget_pieces();
            }
            self.end(&mut state, Error::Internal("a panic while forwarding".into()));
        }
    }

    fn read_and_forward(self, state: &mut State, inside: &mut Inside, id: usize, work: &mut Work) {
        let counts = &self.slot.rx_counts;
        let Work { buffer, sorter, now } = work;
        // From before it was plugged in: a length that no frame has is found here, too.
        while state.rx.has_frame(counts) {
            let used = inside.forward(id, state.rx.unread(), counts, sorter, *now);
            state.rx.use_up(used);
        }
        let socket = state.socket().clone();
        let room = &mut buffer[..loop_room(&socket)];
        if let Some(bytes) = state.rx.read_behind(&socket, room, counts) {
            let used = inside.forward(id, bytes, counts, sorter, *now);
            state.rx.keep(&bytes[used..], counts);
        }
    }
}

impl Inside {
    fn add(&mut self, conn: Ref<Conn>, interest: Interest) -> Result<usize> {
        if matches!(self.kind, Kind::Hub { is_closed: true, .. }) {
            return Err(Error::Handle);
        }
        let (first, last) = (NO_PIECE, NO_PIECE);
        let outlet = Outlet { conn, interest: NOTHING, second: NOTHING, first, last };
        let id = self.ports.insert(outlet);
        let watched = self.ports[id].watch(self.runner, interest);
        if watched.is_err() {
            self.ports.remove(id);
        }
        watched.map(|()| id)
    }

    fn remove(&mut self, id: usize) {
        // Taking a descriptor out of the set cannot fail.
        let _ = self.ports[id].watch(self.runner, NOTHING);
        self.ports.remove(id);
        if let Kind::Hub { table, .. } = &mut self.kind {
            table.forget(id);
        }
    }

    /// Takes back what a turn that came to nothing has sorted.
    fn forget_pieces(&mut self) {
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
        matches!(self.kind, Kind::Link)
    }

    /// Whether it is a link of which one side has ended.
    fn is_cut(&self) -> bool {
        self.is_link() && self.ports.len() < 2
    }

    /// The port at the other side of a link.
    fn other_side(&self, id: usize) -> Option<usize> {
        self.ports.iter().map(|(other, _)| other).find(|other| self.is_link() && *other != id)
    }

    /// Waits for something at a port, or no more.
    fn wait_for(&mut self, id: usize, what: Interest, whether: bool) {
        let outlet = &mut self.ports[id];
        let mut interest = outlet.interest;
        interest.set(what, whether);
        // Only the system's lack of memory stands against it; the next turn tries again.
        let _ = outlet.watch(self.runner, interest);
    }

    /// Whether a port is to be read, and waits for that from now on.
    fn may_read(&mut self, id: usize, is_delivering: bool) -> bool {
        let is_full = |other| self.ports[other].interest.contains(WRITABLE);
        let may = !is_delivering && !self.other_side(id).is_some_and(is_full);
        self.wait_for(id, READABLE, may);
        may
    }

    /// Writes what waits for a port.
    fn write_waiting(&mut self, id: usize) {
        if !self.wait_to_write(id) {
            return;
        }
        if let Some(other) = self.other_side(id) {
            // Its turn comes by itself, if there is something to read.
            self.wait_for(other, READABLE, true);
        }
    }

    /// Writes what waits for a port, or waits for room. Returns whether all is written.
    fn wait_to_write(&mut self, id: usize) -> bool {
        let is_written = self.ports[id].conn.tx().is_ok_and(|mut tx| tx.write_backlog());
        self.wait_for(id, WRITABLE, !is_written);
        is_written
    }

    /// Sends on the whole frames at the front of `bytes`, which came in at port `from`. Returns how far
    /// they reach.
    fn forward(
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
            Kind::Link => usize::MAX,
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

impl Outlet {
    /// Waits for something else, from now on.
    fn watch(&mut self, runner: &Loop, interest: Interest) -> Result<()> {
        let tx = self.conn.tx()?;
        let socket = tx.socket();
        if interest.contains(WRITABLE) && socket.has_messages() {
            // What finds no room for long is lost, and nothing else may happen until then.
            runner.rest(self.conn.token);
        }
        let Some(fd) = socket.second_fd() else {
            if self.interest != interest {
                runner.watch(socket.fd(), self.conn.token, self.interest, interest)?;
                self.interest = interest;
            }
            return Ok(());
        };
        // Which of the two tells of room may have changed since.
        let is_apart = interest.contains(WRITABLE) && socket.room_apart().is_some();
        let second = if is_apart { WRITABLE } else { NOTHING };
        let (before, after) = (self.interest - self.second, interest - second);
        if before != after {
            runner.watch(socket.fd(), self.conn.token, before, after)?;
        }
        if self.second != second {
            runner.watch(fd, self.conn.token, self.second, second)?;
        }
        (self.interest, self.second) = (interest, second);
        Ok(())
    }

    /// Sends pieces of `bytes`, in order. Returns how many frames were dropped.
    fn send(
        &mut self,
        runner: &Loop,
        bytes: &[u8],
        pieces: impl IntoIterator<Item = Piece, IntoIter: Clone>,
        room: &mut [u8],
        limit: usize,
    ) -> usize {
        let pieces = pieces.into_iter();
        let Ok(mut tx) = self.conn.tx() else {
            return pieces.map(|piece| piece.frames).sum(); // it is about to be unplugged
        };
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
        let is_full = tx.is_stuck();
        drop(tx);
        if is_full {
            // Failing, what waits goes with what comes next.
            let _ = self.watch(runner, self.interest | WRITABLE);
        }
        dropped
    }
}
