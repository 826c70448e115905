//! Waiting for many connections at once.

use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};

use crate::conn::{Conn, State, receive};
use crate::error::Result;
use crate::net::socket::Socket;
use crate::runtime::handle::Ref;
use crate::runtime::wake::Wake;
use crate::sys::clock::Deadline;

/// One call of [`poll`] that waits. Its connections know it, and wake it.
struct Poller<'a> {
    conns: &'a [Result<Ref<Conn>>],
    wake: Arc<Wake>,
    /// Whether the connections know it.
    is_known: bool,
    /// The sockets to wait on.
    sockets: Vec<Arc<Socket>>,
    /// Whether something may have come, so that a read may not be in vain.
    must_read: bool,
}

impl<'a> Poller<'a> {
    fn of(conns: &'a [Result<Ref<Conn>>]) -> Poller<'a> {
        let (wake, sockets) = (Arc::default(), Vec::with_capacity(conns.len()));
        Poller { conns, wake, is_known: false, sockets, must_read: false }
    }

    /// Looks at every connection. From then on each that is not ready knows it, so that it misses no change.
    fn look(&mut self, ready: &mut [u8]) -> usize {
        self.sockets.clear();
        self.is_known = true;
        scan(self.conns, ready, self.must_read, |conn, state| {
            if !state.pollers.iter().any(|wake| Arc::ptr_eq(wake, &self.wake)) {
                state.pollers.push(self.wake.clone());
            }
            // While a handler that was taken away still runs, only its return matters.
            if !receive::is_behind_handler(conn, state) {
                self.sockets.push(state.socket().clone());
            }
        })
    }

    fn wait(&mut self, epoch: u32, deadline: Deadline) -> Result<()> {
        let fds = self.sockets.iter();
        let fds = fds.map(|socket| PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN));
        let woken = self.wake.wait_fds(epoch, fds.collect(), deadline);
        // Held until the next look, a socket that is replaced would not be closed.
        self.sockets.clear();
        self.must_read = true;
        woken.map(|_| ())
    }
}

impl Drop for Poller<'_> {
    fn drop(&mut self) {
        for conn in self.conns.iter().flatten().filter(|_| self.is_known) {
            // The slot may be another connection's, which does not know it.
            let mut state = conn.slot.state_of_own();
            state.pollers.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
        }
    }
}

/// Waits until one of `conns` has something to give, if only an error, as entries that are no live handles
/// have. Returns how many are ready, 0 when the time has passed.
pub fn poll(conns: &[Result<Ref<Conn>>], ready: &mut [u8], timeout_ms: i32) -> Result<usize> {
    let deadline = Deadline::from_timeout(timeout_ms)?;
    // Who may wait reads only where something may have come; but if anything is ready, everything is to be
    // told that is.
    let waits = deadline != Deadline::Now;
    if !waits || scan(conns, ready, false, |_, _| {}) > 0 {
        let found = scan(conns, ready, true, |_, _| {});
        if found > 0 || !waits {
            return Ok(found);
        }
    }
    let mut poller = Poller::of(conns);
    loop {
        let epoch = poller.wake.epoch();
        let mut found = poller.look(ready);
        if (found > 0 || deadline.passed()) && !poller.must_read {
            poller.must_read = true;
            found = poller.look(ready);
        }
        if found > 0 || deadline.passed() {
            return Ok(found);
        }
        poller.wait(epoch, deadline)?;
    }
}

/// Looks which connections are ready, and hands the others to `wait_for`. Returns how many are ready. Where a
/// read would be in vain, it is made only if the caller `must_read`.
fn scan(
    conns: &[Result<Ref<Conn>>],
    ready: &mut [u8],
    must_read: bool,
    mut wait_for: impl FnMut(Ref<Conn>, &mut State),
) -> usize {
    let mut is_ready = |conn: &Result<Ref<Conn>>| {
        let Ok(conn) = conn else {
            return true;
        };
        let Ok(mut state) = conn.state() else {
            return true;
        };
        let is_ready = receive::is_ready(*conn, &mut state, must_read);
        if !is_ready {
            wait_for(*conn, &mut state);
        }
        is_ready
    };
    for (conn, ready) in conns.iter().zip(ready.iter_mut()) {
        *ready = is_ready(conn).into();
    }
    ready.iter().filter(|&&ready| ready != 0).count()
}
