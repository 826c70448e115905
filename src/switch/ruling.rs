//! What becomes of a frame in a hub that has rules, and what decides that.

use crate::switch::recent::{Addresses, Key};
use crate::switch::vlan::{Change, Head, Inner};

/// Why a frame goes nowhere, on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Vlan,
    Group,
    Storm,
    Secure,
    Move,
    Isolated,
}

/// What decides what becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub addresses: Addresses,
    pub head: Head,
}

impl Key for Mark {
    const NONE: Mark = Mark { addresses: Addresses::OF_GROUPS, head: Head::NONE };

    #[inline]
    fn mixed(self) -> u64 {
        self.addresses.mixed() ^ self.head.bits().rotate_left(16)
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It goes nowhere, for that reason.
    Refused(Refused),
    /// Its destination is where it came from.
    Back,
    To(usize, Change),
    /// It goes to all others that take frames of that class.
    Flood(Inner, u8),
}

/// The last frame's ruling, and what led to it.
pub struct Ruled {
    pub mark: Mark,
    pub ruling: Ruling,
}

impl Ruled {
    pub const NOTHING: Ruled = Ruled { mark: Mark::NONE, ruling: Ruling::Back };
}
