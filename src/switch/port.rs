//! A port from outside: where a connection is plugged in, and how its socket is exchanged there.

use std::sync::Arc;

use crate::net::socket::Socket;
use crate::runtime::event_loop::LoopUser;
use crate::runtime::handle::Token;
use crate::rx::Rx;
use crate::switch::{Inside, Switch};

/// Where a connection is plugged in.
pub struct Port {
    pub switch: Arc<Switch>,
    pub id: usize,
    /// The switch's loop has a thread for as long as this is there.
    pub _user: LoopUser,
}

impl Port {
    /// The connection at the other side of a link.
    pub fn other_side(&self) -> Option<Token> {
        self.switch.lock().conn_opposite(self.id)
    }

    /// Has the loop read, with what was read before.
    pub fn begin_reading(&self, rx: Rx) {
        self.switch.lock().outlet(self.id).rx = Some(rx);
    }

    /// Its connection gets another socket, which its sending part does by `exchange`, and begins with
    /// another stream.
    pub fn exchange_socket(&self, conn: Token, socket: &Arc<Socket>, exchange: impl FnOnce()) {
        self.change(exchange, |inside| {
            let outlet = inside.outlet(self.id);
            if let Some(rx) = &mut outlet.rx {
                rx.start_over();
            }
            outlet.begin_with(socket.clone());
        });
        // In its turn it waits for what it has to of the new one.
        self.switch.runner.look(conn);
    }

    /// Takes it out of the switch. Returns what it was read with, if it was, and who is at the other
    /// side of a link.
    pub fn take_out(&self) -> (Option<Rx>, Option<Token>) {
        self.change(|| (), |inside| inside.remove(self.id))
    }

    /// Changes a port whose socket is not to be waited for any more. Taking that out of the loop's set
    /// is a system call, and not made under the switch's lock. It comes first, so that the loop is not
    /// told again and again of what it has no port for; and once more behind the change, since until
    /// that the loop may have put the socket in again, whether or not it had taken it out itself.
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
