//! A small cache in front of the learning table: the ways of the frames that came in lately, by their
//! addresses. It is valid during one turn of one port, and only until the table changes. To the table all
//! frames of a pair that it has the way of are one.

use crate::switch::table::Mac;

/// A frame's destination and source address, which decide where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The first 8 of their 12 bytes, and the last 8. The first byte is the lowest.
    head: u64,
    tail: u64,
}

impl Addresses {
    /// Those of groups alone: nobody is learned from them, and the frame goes to all others.
    pub const OF_GROUPS: Addresses = Addresses { head: u64::MAX, tail: u64::MAX };

    /// Those of a frame, if it has any.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<Addresses> {
        let both = frame.first_chunk::<12>()?;
        let (head, tail) = (both.first_chunk()?, both.last_chunk()?);
        Some(Addresses { head: u64::from_le_bytes(*head), tail: u64::from_le_bytes(*tail) })
    }

    pub fn destination(self) -> Mac {
        Mac::new(self.head)
    }

    pub fn source(self) -> Mac {
        Mac::new(self.tail >> 16)
    }

    #[inline]
    fn place(self) -> usize {
        let mixed = (self.head ^ self.tail.rotate_left(32)).wrapping_mul(SPREAD);
        (mixed >> 32) as usize % PLACES
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the port that it came from: it is dropped.
    Back,
    To(usize),
    Others,
}

/// How many pairs of addresses are kept.
const PLACES: usize = 256;

/// Spreads the bits of addresses. Peers may choose addresses that share a place: their ways are then found
/// in the table, as without the cache.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

pub struct Recent {
    places: Box<[Entry; PLACES]>,
    /// That of the entries that are valid.
    turn: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    addresses: Addresses,
    way: Way,
    turn: u64,
}

impl Default for Recent {
    fn default() -> Recent {
        let entry = Entry { addresses: Addresses::OF_GROUPS, way: Way::Others, turn: 0 };
        Recent { places: Box::new([entry; PLACES]), turn: 1 }
    }
}

impl Recent {
    /// Forgets everything.
    #[inline]
    pub fn clear(&mut self) {
        self.turn += 1;
    }

    #[inline]
    pub fn find(&self, addresses: Addresses) -> Option<Way> {
        let entry = &self.places[addresses.place()];
        (entry.turn == self.turn && entry.addresses == addresses).then_some(entry.way)
    }

    pub fn keep(&mut self, addresses: Addresses, way: Way) {
        self.places[addresses.place()] = Entry { addresses, way, turn: self.turn };
    }
}
