//! The threads that work for connections in the background. What they run stands above the code that
//! starts them: `open`, which knows both, sets it here.

use std::sync::OnceLock;

use crate::conn::Conn;
use crate::error::Result;
use crate::runtime::event_loop::{Loop, Turns};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::service::{self, Wait};
use crate::sys::fork::PerProcess;
use crate::sys::thread;

pub struct Background {
    /// The connection's own thread, which calls its handlers.
    pub handle: fn(Ref<Conn>),
    /// A turn of the service thread.
    pub serve: fn(Token) -> Option<Wait>,
    /// The turns of the thread that dials.
    pub dial: fn() -> Turns,
}

static BACKGROUND: PerProcess<OnceLock<Background>> = PerProcess::new();

/// Sets what the threads of this process run. Every call sets the same.
pub fn set(background: Background) {
    BACKGROUND.get().get_or_init(|| background);
}

fn get() -> &'static Background {
    BACKGROUND.get().get().expect("a connection has been opened")
}

/// Has the service thread take care of a connection until nothing is left to write or drain for it.
/// Returns whether there is a thread to do so; if not, the work waits for the next call on it.
pub fn watch(conn: Ref<Conn>) -> bool {
    service::watch(conn.token, get().serve)
}

/// The same for a loop, which does not wait while another thread starts the service thread: it gets `None`
/// then.
pub fn try_watch(conn: Ref<Conn>) -> Option<bool> {
    service::try_watch(conn.token, get().serve)
}

/// Starts the connection's own thread.
pub fn start_thread(conn: Ref<Conn>) -> Result<()> {
    let handle = get().handle;
    thread::spawn(c"qnet-handler", move || handle(conn))
}

static DIALLER: PerProcess<Dialler> = PerProcess::new();

struct Dialler(Loop);

impl Default for Dialler {
    fn default() -> Dialler {
        Dialler(Loop::new(c"qnet-redial", get().dial))
    }
}

/// The loop of this process's thread that dials, which all connections that are down share. It waits for
/// every attempt under way, and for the time of the next one, at once, and does nothing that could block.
pub fn dialler() -> &'static Loop {
    &DIALLER.get().0
}
