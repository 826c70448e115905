//! The learning table: at which port each device was last heard.
//!
//! It is bounded. When it is full, a new address takes the place of one that is not in use. Only a few
//! are looked at; if all of these are in use, the new address is not learned, and frames for it are flooded.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

/// A hardware address, as a number, since that is fast to compare and to hash. Its first byte is the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(u64);

impl Mac {
    /// That of the lowest 6 bytes of a number.
    #[inline]
    pub fn new(bytes: u64) -> Mac {
        Mac(bytes & 0xffff_ffff_ffff)
    }

    /// Whether it is that of a group, broadcast included: then the lowest bit of its first byte is set
    /// (IEEE 802.3).
    #[inline]
    fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

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
    /// In nanoseconds.
    age: u64,
    /// Times are in nanoseconds from here on.
    begun: Instant,
}

struct Entry {
    port: usize,
    heard: u64,
    /// Whether it was heard again at that port: random addresses are not.
    is_known: bool,
}

impl Table {
    pub fn new(max: usize, age: Duration, begun: Instant) -> Table {
        let entries = IndexMap::default();
        Table { entries, hand: 0, max, age: nanos(age), begun }
    }

    pub fn configure(&mut self, max: usize, age: Duration) {
        (self.max, self.age) = (max, nanos(age));
        self.entries.truncate(max);
    }

    /// The table's own time.
    pub fn time(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.begun))
    }

    /// Notes that a device was heard at `port`. Group addresses are ignored: no device has one. Returns
    /// whether a device may now be found elsewhere than before.
    pub fn learn(&mut self, mac: Mac, port: usize, now: u64) -> bool {
        if mac.is_group() {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            let was_found = entry.is_valid(now, self.age);
            entry.is_known = entry.port == port;
            (entry.port, entry.heard) = (port, now);
            return !entry.is_known || !was_found;
        }
        let has_place = self.make_place(now);
        if has_place {
            self.entries.insert(mac, Entry { port, heard: now, is_known: false });
        }
        has_place
    }

    /// The port at which a device is, if that is known.
    #[inline]
    pub fn find(&self, mac: Mac, now: u64) -> Option<usize> {
        if mac.is_group() {
            return None;
        }
        let entry = self.entries.get(&mac)?;
        entry.is_valid(now, self.age).then_some(entry.port)
    }

    /// Makes room for one more entry. Returns whether there is.
    fn make_place(&mut self, now: u64) -> bool {
        if self.entries.len() < self.max {
            return true;
        }
        let in_use = nanos(IN_USE).min(self.age);
        for _ in 0..CANDIDATES.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &self.entries[self.hand];
            if !entry.is_known || !entry.is_valid(now, in_use) {
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
    pub fn len(&mut self, now: u64) -> usize {
        let age = self.age;
        self.entries.retain(|_, entry| entry.is_valid(now, age));
        self.entries.len()
    }
}

impl Entry {
    /// Whether the device was heard less than `age` ago.
    #[inline]
    fn is_valid(&self, now: u64, age: u64) -> bool {
        now.saturating_sub(self.heard) < age
    }
}

/// A time in nanoseconds, which last for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac::new(u64::from_le_bytes([2, 0, a, b, c, d, 0, 0]))
    }

    #[test]
    fn ages_by_traffic() {
        let (mut table, start) = (Table::new(8, AGE, Instant::now()), 0);
        table.learn(mac(1), 4, start);
        table.learn(mac(2), 5, start);
        table.learn(mac(1), 4, start + nanos(AGE) / 2);
        let later = start + nanos(AGE);
        assert_eq!(table.find(mac(1), later), Some(4));
        assert_eq!(table.find(mac(2), later), None);
        assert_eq!(table.len(later), 1);
    }

    #[test]
    fn a_device_that_moves_is_found_where_it_was_heard_last() {
        let (mut table, now) = (Table::new(8, AGE, Instant::now()), 0);
        table.learn(mac(1), 4, now);
        table.learn(mac(1), 5, now);
        assert_eq!(table.find(mac(1), now), Some(5));
        table.forget(4);
        assert_eq!(table.len(now), 1);
        table.forget(5);
        assert_eq!(table.find(mac(1), now), None);
    }

    #[test]
    fn groups_are_nobody() {
        let (mut table, now) = (Table::new(8, AGE, Instant::now()), 0);
        for group in [u64::MAX, 0x0100_0000_3333, 0x0100_005e_0001].map(Mac::new) {
            table.learn(group, 1, now);
            assert_eq!(table.find(group, now), None);
        }
        assert_eq!(table.len(now), 0);
    }

    #[test]
    fn a_flood_of_addresses_displaces_nobody_who_talks() {
        const MAX: usize = 64;
        let (mut table, now) = (Table::new(MAX, AGE, Instant::now()), 0);
        for n in 0..32 {
            table.learn(mac(n), 1, now);
            table.learn(mac(n), 1, now);
        }
        for n in 1000..100_000 {
            table.learn(mac(n), 2, now);
        }
        assert!((0..32).all(|n| table.find(mac(n), now) == Some(1)));
        assert_eq!(table.len(now), MAX);
        // When they have been quiet for a while, others take their places.
        let later = now + nanos(IN_USE);
        for n in 0..MAX as u32 {
            table.learn(mac(200_000 + n), 3, later);
            table.learn(mac(200_000 + n), 3, later);
        }
        assert!((0..MAX as u32).all(|n| table.find(mac(200_000 + n), later) == Some(3)));
    }
}
