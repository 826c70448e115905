//! The thread that dials again: one for all connections that are down. It waits for every attempt
//! under way and for the time of the next one at once, and does nothing that could block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::conn::{self, redial};
use crate::error::Result;
use crate::net::dial::Attempt;
use crate::runtime::handle::{NONE, Token};
use crate::runtime::lock::lock;
use crate::runtime::poller::Poller;
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// How many attempts get their turn after one wait.
const EVENTS: usize = 64;

static DIALLER: PerProcess<Dialler> = PerProcess::new();

/// This process's.
pub fn dialler() -> &'static Dialler {
    DIALLER.get()
}

#[derive(Default)]
pub struct Dialler {
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What the thread waits on: kept by the connections that may need it, and by the thread.
    poller: Weak<Poller>,
    is_running: bool,
    /// Which connections to look at.
    looks: Vec<Token>,
}

impl Shared {
    fn look(&mut self, conn: Token) {
        self.looks.push(conn);
        if let Some(poller) = self.poller.upgrade() {
            poller.wake();
        }
    }
}

impl Dialler {
    /// What the thread waits on. Who keeps it needs no descriptor for the thread to start.
    pub fn poller(&self) -> Result<Arc<Poller>> {
        let mut shared = lock(&self.shared);
        if let Some(poller) = shared.poller.upgrade() {
            return Ok(poller);
        }
        let poller = Arc::new(Poller::new()?);
        shared.poller = Arc::downgrade(&poller);
        Ok(poller)
    }

    /// Takes care of a connection that is down, until it is up again or has ended.
    pub fn watch(&'static self, conn: Token, poller: &Arc<Poller>) -> Result<()> {
        let mut shared = lock(&self.shared);
        if !shared.is_running {
            let poller = poller.clone();
            thread::spawn(c"qnet-redial", move || self.run(&poller))?;
            shared.is_running = true;
        }
        shared.look(conn);
        Ok(())
    }

    /// Has a connection looked at that may be taken care of: something about it is new.
    pub fn look(&self, conn: Token) {
        let mut shared = lock(&self.shared);
        if shared.is_running {
            shared.look(conn);
        }
    }

    /// The thread.
    fn run(&self, poller: &Arc<Poller>) {
        let mut queue = Queue::default();
        let mut turns = Vec::new();
        let mut events = Vec::with_capacity(EVENTS);
        while self.goes_on(&queue, &mut turns) {
            queue.add_due(&mut turns);
            for conn in turns.drain(..) {
                queue.turn(conn, poller);
            }
            events.clear();
            let time = queue.next().timespec();
            // A signal, or a lack of memory, only makes it look again.
            let _ = epoll::wait(&poller.epoll, spare_capacity(&mut events), time.as_ref());
            for event in &events {
                match event.data.u64() {
                    NONE => _ = poller.event.lower(),
                    conn => turns.push(conn),
                }
            }
        }
    }

    /// Takes what there is to look at, after the event was lowered. Returns whether the thread goes on:
    /// it ends with the last connection.
    fn goes_on(&self, queue: &Queue, turns: &mut Vec<Token>) -> bool {
        let mut shared = lock(&self.shared);
        turns.append(&mut shared.looks);
        shared.is_running = !(turns.is_empty() && queue.entries.is_empty());
        shared.is_running
    }
}

/// The connections that the thread takes care of.
#[derive(Default)]
struct Queue {
    entries: BTreeMap<Token, Entry>,
    /// Those that want a turn at some time, in that order.
    times: BTreeSet<(Instant, Token)>,
}

#[derive(Default)]
struct Entry {
    attempt: Option<Attempt>,
    time: Option<Instant>,
}

impl Queue {
    /// Gives a connection its turn, after which it stays or goes.
    fn turn(&mut self, token: Token, poller: &Arc<Poller>) {
        let mut entry = self.entries.remove(&token).unwrap_or_default();
        if let Some(time) = entry.time {
            self.times.remove(&(time, token));
        }
        let Ok(conn) = conn::table().get(token) else {
            return;
        };
        let Some(until) = redial::redial_turn(conn, &mut entry.attempt, poller) else {
            return;
        };
        entry.time = match until {
            Deadline::Never => None,
            Deadline::Now => Some(Instant::now()),
            Deadline::At(time) => Some(time),
        };
        self.times.extend(entry.time.map(|time| (time, token)));
        self.entries.insert(token, entry);
    }

    fn add_due(&self, turns: &mut Vec<Token>) {
        let now = Instant::now();
        let due = self.times.iter().take_while(|(time, _)| *time <= now);
        turns.extend(due.map(|(_, conn)| conn));
    }

    /// Until when to wait.
    fn next(&self) -> Deadline {
        if self.entries.is_empty() {
            return Deadline::Now;
        }
        self.times.first().map_or(Deadline::Never, |(time, _)| Deadline::At(*time))
    }
}
