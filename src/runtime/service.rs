//! The library's own thread: it finishes what no caller waits for. It starts with the first such
//! work and ends soon after the last.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::conn::Conn;
use crate::net::socket::Socket;
use crate::runtime::handle::Ref;
use crate::runtime::lock::{lock, try_lock};
use crate::runtime::wake::{Wake, poll_fd};
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// How long the thread stays when there is nothing to do: to start another costs more.
pub const IDLE: Duration = Duration::from_millis(20);

static SERVICE: PerProcess<Service> = PerProcess::new();

/// This process's.
pub fn service() -> &'static Service {
    SERVICE.get()
}

#[derive(Default)]
pub struct Service {
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    conns: Vec<Ref<Conn>>,
    /// What the thread waits on, while there is one.
    wake: Option<Arc<Wake>>,
}

/// What the thread uses again each turn.
#[derive(Default)]
struct Turn {
    conns: Vec<Ref<Conn>>,
    waits: Vec<(Arc<Socket>, PollFlags)>,
    is_idle: bool,
}

impl Watched {
    fn add(&mut self, conn: Ref<Conn>) {
        if self.conns.iter().all(|other| other.token != conn.token) {
            self.conns.push(conn);
        }
    }
}

impl Service {
    /// Takes care of a connection until nothing is left to write or drain for it. Returns whether
    /// there is a thread to do so; if not, the work waits for the next call on the connection.
    pub fn watch(&'static self, conn: Ref<Conn>) -> bool {
        self.watch_in(lock(&self.watched), conn)
    }

    /// The same for a loop, which does not wait while somebody starts the thread: `None` then.
    pub fn try_watch(&'static self, conn: Ref<Conn>) -> Option<bool> {
        try_lock(&self.watched).map(|watched| self.watch_in(watched, conn))
    }

    fn watch_in(&'static self, mut watched: MutexGuard<'_, Watched>, conn: Ref<Conn>) -> bool {
        watched.add(conn);
        if let Some(wake) = watched.wake.clone() {
            drop(watched);
            wake.raise();
            return true;
        }
        let wake = Arc::new(Wake::default());
        let threads = wake.clone();
        if thread::spawn(c"qnet-service", move || self.run(&threads)).is_ok() {
            watched.wake = Some(wake);
        }
        watched.wake.is_some()
    }

    /// Has the thread look again, if there is one: it may wait on what is to be closed.
    pub fn look(&self) {
        if let Some(wake) = &lock(&self.watched).wake {
            wake.raise();
        }
    }

    fn run(&self, wake: &Wake) {
        let guarded = std::panic::AssertUnwindSafe(|| {
            let mut turn = Turn::default();
            while self.turn(wake, &mut turn) {}
        });
        if std::panic::catch_unwind(guarded).is_err() {
            *lock(&self.watched) = Watched::default();
        }
    }

    /// One turn for every connection, then a wait for any. Returns whether there is more to do, or
    /// may soon be.
    fn turn(&self, wake: &Wake, turn: &mut Turn) -> bool {
        let epoch = wake.epoch();
        // Taken out for the turn: who watches one meanwhile puts it in again.
        std::mem::swap(&mut lock(&self.watched).conns, &mut turn.conns);
        turn.waits.clear();
        let mut until = Deadline::Never;
        for conn in turn.conns.drain(..) {
            if let Some((socket, events, deadline)) = crate::conn::service::service_turn(conn) {
                turn.waits.push((socket, events));
                until = until.sooner(deadline);
                lock(&self.watched).add(conn);
            }
        }
        let mut watched = lock(&self.watched);
        let was_idle = std::mem::replace(&mut turn.is_idle, watched.conns.is_empty());
        if turn.is_idle {
            if was_idle {
                watched.wake = None;
                return false;
            }
            until = Deadline::after(IDLE);
        }
        drop(watched);
        let fds = turn.waits.iter();
        let fds = fds.filter_map(|(socket, events)| poll_fd(socket.fd_for(*events), *events));
        // It fails for nothing that lasts.
        let _ = wake.wait_fds(epoch, fds.collect(), until);
        true
    }
}
