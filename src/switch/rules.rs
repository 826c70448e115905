//! What is set for a port of a hub: its VLANs, and which frames it takes and sends.

use std::sync::Arc;

use crate::options::{self, Options};
use crate::switch::vlan::Vlan;

/// The classes of frames that are flooded, as bits of an option.
pub const UNKNOWN: u8 = 1;
pub const MULTICAST: u8 = 2;
pub const BROADCAST: u8 = 4;
const ALL: u8 = UNKNOWN | MULTICAST | BROADCAST;

/// What of a port goes to mirrors, as bits of an option.
pub const COMING: u8 = 1;
pub const GOING: u8 = 2;

/// What is set for a port. Most have nothing of it, and no rules.
pub struct Rules {
    pub vlan: Option<Arc<Vlan>>,
    pub is_isolated: bool,
    /// The classes that are flooded to it.
    pub flood: u8,
    /// How many addresses are learned behind it; 0 is no limit.
    pub limit: usize,
    pub is_secure: bool,
    pub storm: Bucket,
    pub is_mirror: bool,
    /// What of it goes to mirrors.
    pub mirrored: u8,
}

impl Rules {
    /// What options and a text of VLANs ask for, if that is anything.
    pub fn of(options: &Options, vlan: Option<&Arc<Vlan>>) -> Option<Box<Rules>> {
        let bits = |option| options.get(option) as u8;
        let rules = Rules {
            vlan: vlan.cloned(),
            is_isolated: options.get(options::ISOLATED) != 0,
            flood: bits(options::FLOOD),
            limit: options.get(options::MAC_LIMIT) as usize,
            is_secure: options.get(options::SECURE) != 0,
            storm: Bucket::of(options.get(options::STORM_FPS) as u64),
            is_mirror: options.get(options::MIRROR) != 0,
            mirrored: bits(options::MIRRORED),
        };
        let is_plain = rules.vlan.is_none()
            && !(rules.is_isolated || rules.is_secure || rules.is_mirror)
            && rules.flood == ALL
            && rules.limit == 0
            && rules.storm.rate == 0
            && rules.mirrored == COMING;
        (!is_plain).then(|| Box::new(rules))
    }
}

/// What a hub has to follow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HubRules {
    /// Which groups of 01-80-C2-00-00-0n are forwarded, a bit for each.
    pub groups: u16,
    /// How long a device stays where it was heard, in nanoseconds.
    pub move_time: u64,
}

impl HubRules {
    pub const NONE: HubRules = HubRules { groups: u16::MAX, move_time: 0 };

    pub fn of(options: &Options) -> HubRules {
        let move_time = options.move_time().as_nanos() as u64;
        HubRules { groups: options.group_mask(), move_time }
    }
}

/// How many frames a port may have flooded: so many a second, and a tenth of that at once.
pub struct Bucket {
    /// Frames a second; 0 is no limit.
    rate: u64,
    /// What is in there, in billionths of a frame: each nanosecond brings as many as the rate is.
    level: u64,
    /// When that was so.
    at: u64,
}

const FRAME: u64 = 1_000_000_000;

impl Bucket {
    fn of(rate: u64) -> Bucket {
        Bucket { rate, level: Bucket::room(rate), at: 0 }
    }

    fn room(rate: u64) -> u64 {
        (rate / 10).max(1) * FRAME
    }

    /// Goes on where a bucket of the same rate is.
    pub fn go_on_from(&mut self, before: &Bucket) {
        if self.rate == before.rate {
            (self.level, self.at) = (before.level, before.at);
        }
    }

    /// Takes up to so many frames out. Returns how many.
    pub fn take(&mut self, now: u64, frames: usize) -> usize {
        if self.rate == 0 {
            return frames;
        }
        let come = now.saturating_sub(self.at).saturating_mul(self.rate);
        self.level = self.level.saturating_add(come).min(Bucket::room(self.rate));
        self.at = self.at.max(now);
        let taken = frames.min((self.level / FRAME) as usize);
        self.level -= taken as u64 * FRAME;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_full_at_first_and_fills_by_time() {
        let mut bucket = Bucket::of(30);
        assert_eq!(bucket.take(5, 4), 3);
        // A thirtieth of a second is no whole number of nanoseconds.
        assert_eq!(bucket.take(5 + 33_333_333, 1), 0);
        assert_eq!(bucket.take(5 + 33_333_334, 2), 1);
        assert_eq!(bucket.take(5 + 100_000_000, 9), 2);
        assert_eq!(bucket.take(u64::MAX, 9), 3);
    }

    #[test]
    fn a_slow_bucket_has_one() {
        let mut bucket = Bucket::of(1);
        assert_eq!((bucket.take(0, 2), bucket.take(999_999_999, 1)), (1, 0));
        assert_eq!(bucket.take(1_000_000_000, 2), 1);
        assert_eq!(Bucket::of(0).take(0, 1000), 1000);
    }
}
