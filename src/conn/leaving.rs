//! What a hub has to tell when a connection leaves it.

use crate::runtime::handle::Token;

/// Returns whether the handler will be told, or `None` where it is too early: it is still being told that the
/// connection has come.
type Tell = fn(hub: Token, handler: u64, conn: Token) -> Option<bool>;

/// A connection of which a hub's port handler has been told that it has come. While its state has this, its
/// handle is not given back.
pub struct Leaving {
    hub: Token,
    /// The number of the handler that was told.
    handler: u64,
    /// Has the hub's handler of that number told that a connection has left.
    tell: Tell,
    is_told: bool,
}

impl Leaving {
    pub fn new(hub: Token, handler: u64, tell: Tell) -> Leaving {
        Leaving { hub, handler, tell, is_told: false }
    }

    /// Has it told, the first time that it is not too early. Returns whether it is or was, or may be later.
    pub fn tell(&mut self, conn: Token) -> bool {
        if self.is_told {
            return true;
        }
        let told = (self.tell)(self.hub, self.handler, conn);
        self.is_told = told.is_some();
        told.unwrap_or(true)
    }
}
