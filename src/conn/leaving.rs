//! What a hub has to tell when a connection leaves it.

use crate::runtime::handle::Token;

/// A connection of which a hub's port handler has been told that it has come. While its state has this, its
/// handle is not given back.
pub struct Leaving {
    hub: Token,
    /// The number of the handler that was told.
    handler: u64,
    /// Has the hub's handler of that number told that a connection has left. Returns whether it will be.
    tell: fn(hub: Token, handler: u64, conn: Token) -> bool,
    is_told: bool,
}

impl Leaving {
    pub fn new(hub: Token, handler: u64, tell: fn(Token, u64, Token) -> bool) -> Leaving {
        Leaving { hub, handler, tell, is_told: false }
    }

    /// Has it told, the first time. Returns whether it is or was.
    pub fn tell(&mut self, conn: Token) -> bool {
        std::mem::replace(&mut self.is_told, true) || (self.tell)(self.hub, self.handler, conn)
    }
}
