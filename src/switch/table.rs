//! The learning table: at which port each device was last heard.
//!
//! It is bounded. When it is full, a new address takes the place of one that is not in use. Only a few
//! are looked at; if all of these are in use, the new address is not learned, and frames for it are flooded.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

/// A hardware address.
pub type Mac = [u8; 6];

/// How many entries are looked at to find a place for a new address.
const CANDIDATES: usize = 16;

/// How long after its last frame a device counts as in use, if it was heard more than once and others want
/// its place.
const IN_USE: Duration = Duration::from_secs(10);

pub struct Table {
    /// The hash has a random seed, because peers choose the addresses.
    entries: IndexMap<Mac, Entry, RandomState>,
    /// The index at which a place was last looked for.
    hand: usize,
    max: usize,
    age: Duration,
}

struct Entry {
    port: usize,
    heard: Instant,
    /// Whether it was heard again at that port: random addresses are not.
    is_known: bool,
}

impl Table {
    pub fn new(max: usize, age: Duration) -> Table {
        Table { entries: IndexMap::default(), hand: 0, max, age }
    }

    pub fn configure(&mut self, max: usize, age: Duration) {
        (self.max, self.age) = (max, age);
        self.entries.truncate(max);
    }

    /// Notes that a device was heard at `port`. Group addresses are ignored: no device has one.
    pub fn learn(&mut self, mac: Mac, port: usize, now: Instant) {
        if is_group(&mac) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            let is_known = entry.port == port;
            *entry = Entry { port, heard: now, is_known };
        } else if self.make_place(now) {
            self.entries.insert(mac, Entry { port, heard: now, is_known: false });
        }
    }

    /// The port at which a device is, if that is known.
    pub fn find(&self, mac: &Mac, now: Instant) -> Option<usize> {
        if is_group(mac) {
            return None;
        }
        let entry = self.entries.get(mac)?;
        (now - entry.heard < self.age).then_some(entry.port)
    }

    /// Makes room for one more entry. Returns whether there is.
    fn make_place(&mut self, now: Instant) -> bool {
        if self.entries.len() < self.max {
            return true;
        }
        for _ in 0..CANDIDATES.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &self.entries[self.hand];
            let quiet = now - entry.heard;
            if !entry.is_known || quiet >= IN_USE.min(self.age) {
                self.entries.swap_remove_index(self.hand);
                return true;
            }
        }
        false
    }

    /// Forgets the devices at a port.
    pub fn forget(&mut self, port: usize) {
        self.entries.retain(|_, entry| entry.port != port);
    }

    /// Forgets the devices that were not heard for too long. Returns how many are known.
    pub fn len(&mut self, now: Instant) -> usize {
        let age = self.age;
        self.entries.retain(|_, entry| now - entry.heard < age);
        self.entries.len()
    }
}

/// Whether an address is that of a group, broadcast included: then the lowest bit of its first byte is set
/// (IEEE 802.3).
fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    #[test]
    fn ages_by_traffic() {
        let (mut table, start) = (Table::new(8, AGE), Instant::now());
        table.learn(mac(1), 4, start);
        table.learn(mac(2), 5, start);
        table.learn(mac(1), 4, start + AGE / 2);
        let later = start + AGE;
        assert_eq!(table.find(&mac(1), later), Some(4));
        assert_eq!(table.find(&mac(2), later), None);
        assert_eq!(table.len(later), 1);
    }

    #[test]
    fn a_device_that_moves_is_found_where_it_was_heard_last() {
        let (mut table, now) = (Table::new(8, AGE), Instant::now());
        table.learn(mac(1), 4, now);
        table.learn(mac(1), 5, now);
        assert_eq!(table.find(&mac(1), now), Some(5));
        table.forget(4);
        assert_eq!(table.len(now), 1);
        table.forget(5);
        assert_eq!(table.find(&mac(1), now), None);
    }

    #[test]
    fn groups_are_nobody() {
        let (mut table, now) = (Table::new(8, AGE), Instant::now());
        for group in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
            table.learn(group, 1, now);
            assert_eq!(table.find(&group, now), None);
        }
        assert_eq!(table.len(now), 0);
    }

    #[test]
    fn a_flood_of_addresses_displaces_nobody_who_talks() {
        const MAX: usize = 64;
        let (mut table, now) = (Table::new(MAX, AGE), Instant::now());
        for n in 0..32 {
            table.learn(mac(n), 1, now);
            table.learn(mac(n), 1, now);
        }
        for n in 1000..100_000 {
            table.learn(mac(n), 2, now);
        }
        assert!((0..32).all(|n| table.find(&mac(n), now) == Some(1)));
        assert_eq!(table.len(now), MAX);
        // When they have been quiet for a while, others take their places.
        let later = now + IN_USE;
        for n in 0..MAX as u32 {
            table.learn(mac(200_000 + n), 3, later);
            table.learn(mac(200_000 + n), 3, later);
        }
        assert!((0..MAX as u32).all(|n| table.find(&mac(200_000 + n), later) == Some(3)));
    }
}
