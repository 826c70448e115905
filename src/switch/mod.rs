//! What forwards frames between ports: a hub, or a link, which is a switch of two ports that learns
//! nothing and loses nothing.
//!
//! A switch belongs to one loop. Locks are taken in this order: a connection's state, the switch, a
//! connection's sending part; so whoever has taken a connection out of a switch knows that nothing
//! is forwarded from or to it any more. Nobody but the loop makes a system call, or waits for another
//! lock that is held during one, with the switch locked.

pub mod outlet;
pub mod port;
pub mod sorter;
pub mod table;

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use slab::Slab;

use crate::error::{Error, Result};
use crate::frame::{self, PREFIX, Run, Walk};
use crate::runtime::event_loop::{Interest, Loop, READABLE, WRITABLE};
use crate::runtime::handle::Token;
use crate::runtime::lock::Fair;
use crate::rx::Rx;
use crate::rx::counts::RxCounts;
use crate::switch::outlet::Outlet;
use crate::switch::sorter::{List, Piece, Sorter};
use crate::switch::table::{Mac, Table};

/// A frame's destination and source: what decides where it goes.
type Addresses = [u8; 12];

fn destination_of(&[a, b, c, d, e, f, ..]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
}

fn source_of(&[.., a, b, c, d, e, f]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
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

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To where it came from, which is nowhere.
    Back,
    To(usize),
    Others,
}

impl Switch {
    pub fn new(kind: Kind, runner: &'static Loop) -> Arc<Switch> {
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
    pub fn remove(&mut self, id: usize) -> (Option<Rx>, Option<Token>) {
        let outlet = self.ports.remove(id);
        if let Kind::Hub { table, .. } = &mut self.kind {
            table.forget(id);
        }
        (outlet.rx, self.conn_opposite(id))
    }

    /// Whether that is the port of `conn`.
    pub fn has(&self, id: usize, conn: Token) -> bool {
        self.ports.get(id).is_some_and(|outlet| outlet.conn == conn)
    }

    pub fn outlet(&mut self, id: usize) -> &mut Outlet {
        &mut self.ports[id]
    }

    /// Takes back what a turn that came to nothing has sorted.
    pub fn forget_pieces(&mut self) {
        self.ports.iter_mut().for_each(|(_, outlet)| outlet.pieces = List::EMPTY);
    }

    /// Takes nothing in any more. Returns what is still in there.
    pub fn close(&mut self) -> Vec<Token> {
        if let Kind::Hub { is_closed, .. } = &mut self.kind {
            *is_closed = true;
        }
        self.ports().collect()
    }

    pub fn ports(&self) -> impl ExactSizeIterator<Item = Token> {
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
    pub fn conn_opposite(&self, id: usize) -> Option<Token> {
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
            Way::To(port) => sorter.add(port, &mut self.ports[port].pieces, piece),
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
            let list = std::mem::replace(&mut outlet.pieces, List::EMPTY).over(pieces);
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
