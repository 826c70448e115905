//! A port from outside the switch: where a connection is plugged in, and how its socket is replaced there.

use std::sync::Arc;

use crate::net::socket::Socket;
use crate::runtime::event_loop::LoopUser;
use crate::runtime::handle::Token;
use crate::rx::Rx;
use crate::switch::{Inside, Removed, Switch};

/// Where a connection is plugged in.
pub struct Port {
    pub switch: Arc<Switch>,
    pub id: usize,
    /// While this exists, the switch's loop has a thread.
    pub _user: LoopUser,
}

impl Port {
    /// The connection at the other side of a link.
    pub fn other_side(&self) -> Option<Token> {
        self.switch.lock().conn_opposite(self.id)
    }

    /// Lets the loop read. What was read before comes first.
    pub fn begin_reading(&self, rx: Rx) {
        self.switch.lock().outlet(self.id).rx = Some(rx);
    }

    /// Replaces the port's socket, and begins with another stream. The old socket is out of the loop's
    /// set while `exchange` runs, which replaces that of the sending part.
    pub fn exchange_socket(&self, conn: Token, socket: &Arc<Socket>, exchange: impl FnOnce()) {
        self.change(exchange, |inside| {
            let outlet = inside.outlet(self.id);
            if let Some(rx) = &mut outlet.rx {
                rx.start_over();
            }
            outlet.begin_with(socket.clone());
        });
        // In its turn the loop begins to watch the new one.
        self.switch.runner.look(conn);
    }

    /// Takes the port out of the switch, and returns what is left of it.
    pub fn take_out(&self) -> Removed {
        self.change(|| (), |inside| inside.remove(self.id))
    }

    /// Changes a port whose socket the loop is to watch no more. Taking the socket out of the loop's set
    /// is a system call, which is not made under the switch's lock. It is made before the change, so that
    /// the loop is not told again and again of what it has no port for, and once more behind it: until
    /// the change, the loop may put the socket in again.
    fn change<R>(&self, meanwhile: impl FnOnce(), change: impl FnOnce(&mut Inside) -> R) -> R {
        let runner = self.switch.runner;
        let before = self.switch.lock().outlet(self.id).watched();
        before.end(runner);
        meanwhile();
        let mut inside = self.switch.lock();
        let after = inside.outlet(self.id).watched();
        let result = change(&mut inside);
        drop(inside);
        after.end(runner);
        result
    }
}
