//! A small cache in front of the learning table: the ways of the frames that came in lately, by their
//! addresses and what else decides. It is valid during one turn of one port, and only until the table changes.
//! To the table all frames of a pair that it has the way of are one.

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
}

/// By what frames are told apart that do not go the same way.
pub trait Key: Copy + PartialEq {
    /// That of no frame which is looked for.
    const NONE: Self;

    /// All of it, mixed.
    fn mixed(self) -> u64;
}

impl Key for Addresses {
    const NONE: Addresses = Addresses::OF_GROUPS;

    #[inline]
    fn mixed(self) -> u64 {
        self.head ^ self.tail.rotate_left(32)
    }
}

#[inline]
fn place(key: impl Key) -> usize {
    // The highest bits of the product are those that every bit has a part in.
    (key.mixed().wrapping_mul(SPREAD) >> 56) as usize % PLACES
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

pub struct Recent<K, W> {
    places: Box<[Entry<K, W>; PLACES]>,
    /// That of the entries that are valid.
    turn: u64,
}

#[derive(Clone, Copy)]
struct Entry<K, W> {
    key: K,
    way: W,
    turn: u64,
}

impl<K: Key, W: Copy> Recent<K, W> {
    /// With nothing in it; `way` may be any.
    pub fn new(way: W) -> Recent<K, W> {
        let entry = Entry { key: K::NONE, way, turn: 0 };
        Recent { places: Box::new([entry; PLACES]), turn: 1 }
    }

    /// Forgets everything.
    #[inline]
    pub fn clear(&mut self) {
        self.turn += 1;
    }

    #[inline]
    pub fn find(&self, key: K) -> Option<W> {
        let entry = &self.places[place(key)];
        (entry.turn == self.turn && entry.key == key).then_some(entry.way)
    }

    pub fn keep(&mut self, key: K, way: W) {
        self.places[place(key)] = Entry { key, way, turn: self.turn };
    }
}
