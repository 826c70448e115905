//! What forwards frames between ports: a hub, or a link, which is a switch of two ports that learns
//! nothing and loses nothing.
//!
//! A switch belongs to one loop. Locks are taken in this order: a connection's state, the switch, a
//! connection's sending part. So whoever has taken a connection out of a switch knows that nothing is
//! forwarded from it or to it any more. While the switch is locked, only the loop makes system calls, and
//! nobody waits for another lock that is held during one. (`altered` names one exception.)

pub mod altered;
pub mod cable;
mod forwarding;
pub mod outlet;
pub mod port;
mod recent;
mod ruled;
pub mod rules;
pub mod ruling;
pub mod sorter;
pub mod table;
pub mod vlan;

use std::sync::Arc;

use slab::Slab;

use crate::capture::interface::Probes;
use crate::error::{Error, Result};
use crate::runtime::event_loop::{Interest, Loop, READABLE, WRITABLE};
use crate::runtime::handle::Token;
use crate::runtime::lock::{Guard, Guarded, Lock};
use crate::rx::Rx;
use crate::switch::cable::Cable;
use crate::switch::outlet::Outlet;
use crate::switch::rules::HubRules;
use crate::switch::sorter::List;
use crate::switch::table::Table;

pub struct Switch {
    pub runner: &'static Loop,
    inside: Lock<Inside>,
}

/// What the loop works with, and others when they plug a connection in or out, or ask for counts.
pub struct Inside {
    pub runner: &'static Loop,
    ports: Slab<Outlet>,
    pub kind: Kind,
    pub counts: Counts,
    /// The number that the next frame takes which is held at a port.
    pub number: u64,
    /// Whether frames are judged: the hub has rules, or a port has.
    is_ruled: bool,
    /// Whether their tags are looked at: a port has VLANs.
    has_vlans: bool,
    rules: HubRules,
    /// The ports that get copies.
    mirrors: Vec<usize>,
    /// What records the frames that a hub takes in.
    pub probes: Probes,
}

pub enum Kind {
    /// What one port receives the other sends. A port is not read while the other one's socket is full,
    /// nor before there are two.
    Link {
        /// Whether there have been two.
        is_whole: bool,
    },
    Hub {
        table: Table,
        /// How many bytes may be queued for each port.
        queue: usize,
        is_closed: bool,
    },
}

/// What is left of a port that was taken out.
pub struct Removed {
    /// What it was read with, if it was read.
    pub rx: Option<Rx>,
    pub cable: Option<Box<Cable>>,
    /// The connection at the other side of a link.
    pub other: Option<Token>,
}

/// What became of frames.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    pub received: u64,
    pub forwarded: u64,
    pub flooded: u64,
    pub dropped: u64,
    /// In the order of [`ruling::Refused`].
    pub refused: [u64; 6],
    /// Copies for mirrors.
    pub mirrored: u64,
    /// How often a device was heard elsewhere than before.
    pub moves: u64,
}

impl Switch {
    pub fn new(kind: Kind, runner: &'static Loop) -> Arc<Switch> {
        let counts = Counts::default();
        let inside = Inside {
            runner,
            ports: Slab::new(),
            kind,
            counts,
            number: 0,
            is_ruled: false,
            has_vlans: false,
            rules: HubRules::NONE,
            mirrors: Vec::new(),
            probes: Probes::default(),
        };
        Arc::new(Switch { runner, inside: Lock::new(inside) })
    }

    pub fn lock(&self) -> Guard<'_, Inside> {
        self.inside.lock()
    }

    pub fn is_link(&self) -> bool {
        self.lock().is_link()
    }
}

impl Guarded for Inside {}

impl Inside {
    pub fn add(&mut self, outlet: impl FnOnce() -> Outlet) -> Result<usize> {
        if matches!(self.kind, Kind::Hub { is_closed: true, .. }) {
            return Err(Error::Handle);
        }
        let id = self.ports.insert(outlet());
        if self.ports[id].rules.is_some() {
            self.follow_rules();
        }
        if let Kind::Link { is_whole } = &mut self.kind {
            *is_whole |= self.ports.len() == 2;
        }
        Ok(id)
    }

    /// Takes a port out, and returns what is left of it.
    pub fn remove(&mut self, id: usize) -> Removed {
        let mut outlet = self.ports.remove(id);
        outlet.set_alarm(self.runner, None);
        self.forget(id);
        if outlet.rules.is_some() {
            self.follow_rules();
        }
        Removed { rx: outlet.rx, cable: outlet.cable, other: self.conn_opposite(id) }
    }

    /// Whether that is the port of `conn`.
    pub fn has(&self, id: usize, conn: Token) -> bool {
        self.ports.get(id).is_some_and(|outlet| outlet.conn == conn)
    }

    pub fn outlet(&mut self, id: usize) -> &mut Outlet {
        &mut self.ports[id]
    }

    /// Empties the lists of pieces, after a turn that panicked.
    pub fn forget_pieces(&mut self) {
        self.ports.iter_mut().for_each(|(_, outlet)| outlet.pieces = List::EMPTY);
    }

    /// Takes no more ports. Returns the connections that are still in there.
    pub fn close(&mut self) -> Vec<Token> {
        if let Kind::Hub { is_closed, .. } = &mut self.kind {
            *is_closed = true;
        }
        self.ports().collect()
    }

    /// The connections of all ports.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = Token> {
        self.ports.iter().map(|(_, outlet)| outlet.conn)
    }

    pub fn is_link(&self) -> bool {
        matches!(self.kind, Kind::Link { .. })
    }

    /// Whether it is a link of which one side has ended, and the port is to end, too.
    pub fn is_cut(&self, id: usize) -> bool {
        self.ports.len() < 2
            && matches!(self.kind, Kind::Link { is_whole: true })
            && !self.is_loose(id)
    }

    /// The port at the other side of a link.
    pub fn other_side(&self, id: usize) -> Option<usize> {
        self.ports.iter().map(|(other, _)| other).find(|other| self.is_link() && *other != id)
    }

    /// The connection at the other side of a link.
    pub fn conn_opposite(&self, id: usize) -> Option<Token> {
        self.other_side(id).map(|other| self.ports[other].conn)
    }

    /// Has the loop watch for something at a port, or no more.
    pub fn watch(&mut self, id: usize, what: Interest, whether: bool) {
        self.ports[id].watch(self.runner, what, whether);
    }

    /// Writes what is queued for a port. When all is written, the other side of a link is read again.
    pub fn write_and_resume(&mut self, id: usize) {
        if self.write_queued(id) {
            if let Some(other) = self.other_side(id) {
                self.resume(other);
            }
        }
    }

    /// Writes what is queued for a port, and has the loop watch for room if the socket is full. If
    /// somebody else holds the sending part, the port gets a turn when that is free. Returns whether all
    /// is written.
    pub fn write_queued(&mut self, id: usize) -> bool {
        let outlet = &mut self.ports[id];
        let Some(mut tx) = outlet.lock_tx() else {
            self.watch(id, WRITABLE, false);
            return false;
        };
        let is_written = tx.write_backlog();
        outlet.let_go(self.runner, tx, !is_written);
        is_written
    }

    /// Has the loop watch for frames at a port, if it is to be read now. Returns whether it is.
    pub fn watch_to_read(&mut self, id: usize) -> bool {
        let is_open = self.ports[id].rx.as_ref().is_some_and(|rx| rx.end().is_none());
        let is_blocked = match self.other_side(id) {
            Some(other) => self.is_out_full(other),
            None => self.is_link() && !self.is_loose(id),
        };
        let is_to_be_read = is_open && !is_blocked && !self.is_in_full(id);
        self.watch(id, READABLE, is_to_be_read);
        is_to_be_read
    }

    /// How many bytes may be queued for a port.
    fn limit(&self) -> usize {
        match &self.kind {
            Kind::Link { .. } => usize::MAX,
            Kind::Hub { queue, .. } => *queue,
        }
    }
}
