//! The learning table: at which port each device was last heard, a VLAN apart.
//!
//! It is bounded. When it is full, a new address takes the place of one that is not in use. Only a few
//! are looked at; if all of these are in use, the new address is not learned, and frames for it are flooded.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

/// A hardware address in a VLAN, as a number, since that is fast to compare and to hash. The address's first
/// byte is the lowest, and the VLAN is above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(u64);

const BITS: u32 = 48;

impl Mac {
    /// The broadcast address.
    pub const EVERYBODY: Mac = Mac((1 << BITS) - 1);

    /// That of the lowest 6 bytes of a number, in no VLAN.
    #[inline]
    pub fn new(bytes: u64) -> Mac {
        Mac(bytes & Mac::EVERYBODY.0)
    }

    pub fn of(bytes: [u8; 6]) -> Mac {
        let [a, b, c, d, e, f] = bytes;
        Mac(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    pub fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// One that is in no VLAN yet, in that.
    pub fn in_vlan(self, vlan: u16) -> Mac {
        Mac(self.0 | u64::from(vlan) << BITS)
    }

    pub fn vlan(self) -> u16 {
        (self.0 >> BITS) as u16
    }

    /// Whether it is that of a group, broadcast included: then the lowest bit of its first byte is set
    /// (IEEE 802.3).
    #[inline]
    pub fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

/// How many entries are looked at to find a place for a new address.
const CANDIDATES: usize = 16;

/// How long after its last frame a device counts as in use, if it was heard more than once and others want
/// its place.
const IN_USE: Duration = Duration::from_secs(10);

/// When static entries were heard: they are never too old.
const ALWAYS: u64 = u64::MAX;

/// How many static entries there may be in a table that learns nothing.
const MOST_STATIC: usize = 1 << 20;

pub struct Table {
    /// The hash has a random seed, because peers choose the addresses.
    entries: IndexMap<Mac, Entry, RandomState>,
    /// How many entries each port has.
    at_port: Vec<usize>,
    /// The index at which a place was last looked for.
    hand: usize,
    max: usize,
    /// In nanoseconds.
    age: u64,
    /// Before that no entry is too old.
    due: u64,
    /// Times are in nanoseconds from here on.
    begun: Instant,
}

/// What hearing a device has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    Nothing,
    /// It was not known.
    New,
    Moved,
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub port: usize,
    heard: u64,
    /// How often it has moved since it was learned.
    pub moves: u32,
    /// Whether it was heard again at that port: random addresses are not.
    is_known: bool,
}

impl Table {
    pub fn new(max: usize, age: Duration, begun: Instant) -> Table {
        let entries = IndexMap::default();
        let at_port = Vec::new();
        Table { entries, at_port, hand: 0, max, age: nanos(age), due: 0, begun }
    }

    pub fn configure(&mut self, max: usize, age: Duration) {
        (self.max, self.age, self.due) = (max, nanos(age), 0);
        let mut surplus = self.entries.len().saturating_sub(max);
        self.keep(|_, entry| {
            let stays = surplus == 0 || entry.is_static();
            surplus -= usize::from(!stays);
            stays
        });
    }

    /// The table's own time.
    pub fn time(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.begun))
    }

    /// Notes that a device was heard at `port`. Group addresses are ignored: no device has one, and static
    /// entries stay. Returns what may now be found elsewhere than before.
    pub fn learn(&mut self, mac: Mac, port: usize, now: u64) -> Learned {
        if mac.is_group() {
            return Learned::Nothing;
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            if entry.is_static() {
                return Learned::Nothing;
            }
            let was_found = entry.is_valid(now, self.age);
            let before = entry.port;
            entry.is_known = before == port;
            (entry.port, entry.heard) = (port, now);
            let learned = match (was_found, before == port) {
                (false, _) => Learned::New,
                (true, false) => Learned::Moved,
                (true, true) => return Learned::Nothing,
            };
            let moves = entry.moves.saturating_add(1);
            entry.moves = if learned == Learned::Moved { moves } else { 0 };
            self.count_in(port);
            self.count_out(before);
            return learned;
        }
        if !self.make_place(now, |_| false) {
            return Learned::Nothing;
        }
        self.put(mac, Entry { port, heard: now, moves: 0, is_known: false });
        Learned::New
    }

    /// The port at which a device is, if that is known.
    #[inline]
    pub fn find(&self, mac: Mac, now: u64) -> Option<usize> {
        if mac.is_group() {
            return None;
        }
        self.entry(mac, now).map(|entry| entry.port)
    }

    /// What is known of a device.
    #[inline]
    pub fn entry(&self, mac: Mac, now: u64) -> Option<Entry> {
        self.entries.get(&mac).copied().filter(|entry| entry.is_valid(now, self.age))
    }

    /// Whether a port may have one more entry, of at most so many; 0 is no limit.
    pub fn has_room_at(&mut self, port: usize, limit: usize, now: u64) -> bool {
        let is_full = |table: &Table| limit > 0 && table.count_at(port) >= limit;
        if is_full(self) && now >= self.due {
            self.len(now);
        }
        !is_full(self)
    }

    /// Makes room for a device, by forgetting none of those that are to stay. Returns whether there is.
    pub fn has_place_for(&mut self, mac: Mac, now: u64, stays: impl Fn(&Entry) -> bool) -> bool {
        self.entries.contains_key(&mac) || self.make_place(now, stays)
    }

    /// Makes room for one more entry. Returns whether there is.
    fn make_place(&mut self, now: u64, stays: impl Fn(&Entry) -> bool) -> bool {
        if self.entries.len() < self.max {
            return true;
        }
        let in_use = nanos(IN_USE).min(self.age);
        for _ in 0..CANDIDATES.min(self.entries.len()).min(self.max) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &self.entries[self.hand];
            let is_in_use = entry.is_known && entry.is_valid(now, in_use);
            let is_old = !entry.is_valid(now, self.age);
            if is_old || !is_in_use && !stays(entry) {
                let port = entry.port;
                self.entries.swap_remove_index(self.hand);
                self.count_out(port);
                return true;
            }
        }
        false
    }

    /// Forgets the devices at a port, static ones too.
    pub fn forget(&mut self, port: usize) {
        if self.count_at(port) > 0 {
            self.keep(|_, entry| entry.port != port);
        }
    }

    /// Forgets all that was learned.
    pub fn forget_learned(&mut self) {
        self.keep(|_, entry| entry.is_static());
    }

    /// Has a device be at a port for as long as the port is there. Returns whether there is room for it.
    pub fn fix(&mut self, mac: Mac, port: usize) -> bool {
        let has_place = self.entries.contains_key(&mac) || self.make_static_place();
        if has_place {
            self.put(mac, Entry { port, heard: ALWAYS, moves: 0, is_known: true });
        }
        has_place
    }

    /// Makes room for a static entry, in place of the one that was heard the longest ago if need be.
    fn make_static_place(&mut self) -> bool {
        let most = if self.max == 0 { MOST_STATIC } else { self.max };
        if self.entries.len() < most {
            return true;
        }
        let learned = self.entries.values().enumerate().filter(|(_, entry)| !entry.is_static());
        let oldest =
            learned.min_by_key(|(_, entry)| entry.heard).map(|(at, entry)| (at, entry.port));
        if let Some((at, port)) = oldest {
            self.entries.swap_remove_index(at);
            self.count_out(port);
        }
        oldest.is_some()
    }

    /// Removes one address, static or not, or all that were learned, from one VLAN or every one. Returns how
    /// many entries that were.
    pub fn remove(&mut self, mac: Option<Mac>, vlan: Option<u16>) -> usize {
        let before = self.entries.len();
        self.keep(|of, entry| {
            let is_meant = match mac {
                Some(mac) => mac.bytes() == of.bytes(),
                None => !entry.is_static(),
            };
            !is_meant || vlan.is_some_and(|vlan| vlan != of.vlan())
        });
        before - self.entries.len()
    }

    /// Forgets the devices that were not heard for too long. Returns how many are known.
    pub fn len(&mut self, now: u64) -> usize {
        let age = self.age;
        let mut oldest = now;
        self.keep(|_, entry| {
            let stays = entry.is_valid(now, age);
            if stays {
                oldest = oldest.min(entry.heard);
            }
            stays
        });
        self.due = oldest.saturating_add(age);
        self.entries.len()
    }

    pub fn entries(&self) -> impl Iterator<Item = (Mac, &Entry)> {
        self.entries.iter().map(|(mac, entry)| (*mac, entry))
    }

    fn put(&mut self, mac: Mac, entry: Entry) {
        self.count_in(entry.port);
        if let Some(before) = self.entries.insert(mac, entry) {
            self.count_out(before.port);
        }
    }

    fn keep(&mut self, mut keeps: impl FnMut(Mac, &Entry) -> bool) {
        let Table { entries, at_port, .. } = self;
        entries.retain(|mac, entry| {
            let stays = keeps(*mac, entry);
            at_port[entry.port] -= usize::from(!stays);
            stays
        });
    }

    fn count_at(&self, port: usize) -> usize {
        self.at_port.get(port).copied().unwrap_or(0)
    }

    fn count_in(&mut self, port: usize) {
        if self.at_port.len() <= port {
            self.at_port.resize(port + 1, 0);
        }
        self.at_port[port] += 1;
    }

    fn count_out(&mut self, port: usize) {
        self.at_port[port] -= 1;
    }
}

impl Entry {
    /// Whether the device was heard less than `age` ago.
    #[inline]
    fn is_valid(&self, now: u64, age: u64) -> bool {
        self.quiet_for(now) < age
    }

    /// How long ago it was heard, in nanoseconds; 0 for static ones.
    #[inline]
    pub fn quiet_for(&self, now: u64) -> u64 {
        now.saturating_sub(self.heard)
    }

    pub fn is_static(&self) -> bool {
        self.heard == ALWAYS
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
