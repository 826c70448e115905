//! Options: which there are, what values they take, and on what.

use std::time::Duration;

use qnet_option::*;

use crate::error::{Error, Result};
use crate::frame;
use crate::net::socket::Buffers;
use crate::sys::clock::Deadline;

/// What qnet_set() and its kin set. The functions take int; the enumerators are its values.
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_option {
    /// How long a send waits for a peer that does not read, in ms: -1 (default) without an end, 0 not
    /// at all.
    QNET_OPT_SEND_TIMEOUT_MS = 1,
    /// How long a send may be held, or 64 KiB, for others to join it, in us: 0 (default, not at all)
    /// to 1000000. A send that comes alone goes at once.
    QNET_OPT_TX_USECS = 2,
    /// Whether sends on this connection that are made in handlers, while further frames wait for the
    /// handler, are held, for at most 1 ms or 64 KiB, and written together. Default 1.
    QNET_OPT_CORK = 3,
    /// The longest frame to send, in bytes: 14 to QNET_FRAME_MAX, default 65535 (passt, pktkit and
    /// others take no longer ones).
    QNET_OPT_MAX_FRAME = 4,
    /// 1: sent frames are padded to 60 bytes with zeroes. Default 0.
    QNET_OPT_PAD = 5,
    /// How long closing may take to write what was taken and drain what a peer is still writing, in
    /// ms. Default 1000. When it takes less: see qnet_close().
    QNET_OPT_LINGER_MS = 6,
    /// The socket's send buffer in bytes, as in socket(7). Chosen for speed until set.
    QNET_OPT_SNDBUF = 7,
    /// The socket's receive buffer in bytes, as in socket(7). Chosen for speed until set.
    QNET_OPT_RCVBUF = 8,
    /// Of a dialled connection: how long after its end it dials again, in ms, instead of ending; see
    /// qnet_set_state_handler(). Default 0: never.
    QNET_OPT_RECONNECT_MS = 9,
    /// For qnet_dial_with() alone: how long it may take in all, in ms. Default -1: without an end.
    /// With QNET_OPT_RECONNECT_MS each later attempt may take as long, or 10000 where it is -1.
    QNET_OPT_DIAL_TIMEOUT_MS = 10,
    /// Of a listener: how many of its connections there may be that are not yet closed with
    /// qnet_close(); further peers are hung up on. Default 1024.
    QNET_OPT_MAX_CONNS = 11,
    /// 0: no call waits for this connection's handlers. Default 1.
    QNET_OPT_WAIT = 12,
    /// Of a listener that made a socket file: the file's mode. Default 0600.
    QNET_OPT_UNIX_MODE = 13,
    /// Of a connection of qnet_dgram() without a remote: 1: whoever sends takes the place of the one
    /// who did before. Default 0: who sends first is the remote for good.
    QNET_OPT_RELEARN = 17,
    /// Of a hub: how long it knows behind which port a device is, after its last frame, in s: from 1.
    /// Default 300.
    QNET_OPT_MAC_AGE_S = 20,
    /// Of a hub: how many devices it knows at most: 1 to 1048576, default 8192.
    QNET_OPT_MAC_MAX = 21,
    /// Of a hub: how many bytes may wait for a port whose peer does not read, for each port. Beyond
    /// it frames for the port are dropped. Default 1048576.
    QNET_OPT_QUEUE_BYTES = 22,
}

pub const SEND_TIMEOUT_MS: i32 = qnet_option::QNET_OPT_SEND_TIMEOUT_MS as i32;
pub const TX_USECS: i32 = qnet_option::QNET_OPT_TX_USECS as i32;
pub const CORK: i32 = qnet_option::QNET_OPT_CORK as i32;
pub const MAX_FRAME: i32 = qnet_option::QNET_OPT_MAX_FRAME as i32;
pub const PAD: i32 = qnet_option::QNET_OPT_PAD as i32;
pub const LINGER_MS: i32 = qnet_option::QNET_OPT_LINGER_MS as i32;
pub const SNDBUF: i32 = qnet_option::QNET_OPT_SNDBUF as i32;
pub const RCVBUF: i32 = qnet_option::QNET_OPT_RCVBUF as i32;
pub const RECONNECT_MS: i32 = qnet_option::QNET_OPT_RECONNECT_MS as i32;
pub const DIAL_TIMEOUT_MS: i32 = qnet_option::QNET_OPT_DIAL_TIMEOUT_MS as i32;
pub const MAX_CONNS: i32 = qnet_option::QNET_OPT_MAX_CONNS as i32;
pub const WAIT: i32 = qnet_option::QNET_OPT_WAIT as i32;
pub const UNIX_MODE: i32 = qnet_option::QNET_OPT_UNIX_MODE as i32;
pub const RELEARN: i32 = qnet_option::QNET_OPT_RELEARN as i32;
pub const MAC_AGE_S: i32 = qnet_option::QNET_OPT_MAC_AGE_S as i32;
pub const MAC_MAX: i32 = qnet_option::QNET_OPT_MAC_MAX as i32;
pub const QUEUE_BYTES: i32 = qnet_option::QNET_OPT_QUEUE_BYTES as i32;

/// What options are set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Conn,
    /// A connection of datagrams whose remote is whoever sends.
    ToSender,
    /// A connection that was dialled, and
    Dialled,
    /// one that is about to be.
    Dial,
    Listener,
    Hub,
}

/// One option: its default, its range, and who has it.
struct Rule {
    option: qnet_option,
    default: i64,
    min: i64,
    max: i64,
    holders: &'static [Holder],
}

const FOREVER: i64 = i32::MAX as i64;
const EVERY: &[Holder] =
    &[Holder::Conn, Holder::ToSender, Holder::Dialled, Holder::Dial, Holder::Listener];
const TO_SENDER: &[Holder] = &[Holder::ToSender];
const DIALLED: &[Holder] = &[Holder::Dialled, Holder::Dial];
const DIAL: &[Holder] = &[Holder::Dial];
const LISTENER: &[Holder] = &[Holder::Listener];
const HUB: &[Holder] = &[Holder::Hub];

const fn rule(
    option: qnet_option,
    default: i64,
    min: i64,
    max: i64,
    holders: &'static [Holder],
) -> Rule {
    Rule { option, default, min, max, holders }
}

const RULES: [Rule; 17] = [
    rule(QNET_OPT_SEND_TIMEOUT_MS, -1, -1, FOREVER, EVERY),
    rule(QNET_OPT_TX_USECS, 0, 0, 1_000_000, EVERY),
    rule(QNET_OPT_CORK, 1, 0, 1, EVERY),
    rule(QNET_OPT_MAX_FRAME, 65_535, frame::MIN as i64, frame::MAX as i64, EVERY),
    rule(QNET_OPT_PAD, 0, 0, 1, EVERY),
    rule(QNET_OPT_LINGER_MS, 1000, 0, FOREVER, EVERY),
    // 0 is not to be set: it stands for the library's own choice.
    rule(QNET_OPT_SNDBUF, 0, 1, FOREVER, EVERY),
    rule(QNET_OPT_RCVBUF, 0, 1, FOREVER, EVERY),
    rule(QNET_OPT_RECONNECT_MS, 0, 0, FOREVER, DIALLED),
    rule(QNET_OPT_DIAL_TIMEOUT_MS, -1, -1, FOREVER, DIAL),
    rule(QNET_OPT_MAX_CONNS, 1024, 1, FOREVER, LISTENER),
    rule(QNET_OPT_WAIT, 1, 0, 1, EVERY),
    rule(QNET_OPT_UNIX_MODE, 0o600, 0, 0o777, LISTENER),
    rule(QNET_OPT_RELEARN, 0, 0, 1, TO_SENDER),
    rule(QNET_OPT_MAC_AGE_S, 300, 1, FOREVER, HUB),
    rule(QNET_OPT_MAC_MAX, 8192, 1, 1 << 20, HUB),
    rule(QNET_OPT_QUEUE_BYTES, 1 << 20, 0, FOREVER, HUB),
];

/// Where an option's rule and value are, if it has one.
fn index(option: i32) -> Option<usize> {
    RULES.iter().position(|rule| rule.option as i32 == option)
}

fn find(option: i32, holder: Holder) -> Result<&'static Rule> {
    let index = index(option).ok_or_else(|| Error::invalid(format!("unknown option {option}")))?;
    let rule = &RULES[index];
    if rule.holders.contains(&holder) { Ok(rule) } else { Err(Error::Misplaced(rule.option)) }
}

impl Rule {
    fn refusal(&self, value: i64) -> Error {
        // A mode is read in octal, as C writes it.
        let shown = |value: i64| match self.option {
            QNET_OPT_UNIX_MODE if value > 0 => format!("0{value:o}"),
            _ => value.to_string(),
        };
        let (option, number) = (self.option, self.option as i32);
        let [value, min, max] = [value, self.min, self.max].map(shown);
        Error::Invalid(format!(
            "{option:?}, option {number}, cannot be {value}: it is from {min} to {max}"
        ))
    }
}

/// Checks what a caller gave as an option.
pub fn check_known(option: i32, holder: Holder) -> Result<()> {
    find(option, holder).map(|_| ())
}

/// The values of all options, in the order of the rules. Every one fits: no rule goes beyond it.
#[derive(Debug, Clone)]
pub struct Options {
    values: [i32; RULES.len()],
}

impl Default for Options {
    fn default() -> Options {
        Options { values: std::array::from_fn(|index| RULES[index].default as i32) }
    }
}

impl Options {
    pub fn set(&mut self, option: i32, value: i64, holder: Holder) -> Result<()> {
        let rule = find(option, holder)?;
        if !(rule.min..=rule.max).contains(&value) {
            return Err(rule.refusal(value));
        }
        self.values[index(option).expect("it has a rule")] = value as i32;
        Ok(())
    }

    /// The value of an option known to exist.
    pub fn get(&self, option: i32) -> i64 {
        self.values[index(option).expect("every option has a rule")].into()
    }

    pub fn max_frame(&self) -> usize {
        self.get(MAX_FRAME) as usize
    }

    pub fn pad(&self) -> bool {
        self.get(PAD) != 0
    }

    pub fn cork(&self) -> bool {
        self.get(CORK) != 0
    }

    pub fn tx_time(&self) -> Duration {
        Duration::from_micros(self.get(TX_USECS) as u64)
    }

    pub fn wait(&self) -> bool {
        self.get(WAIT) != 0
    }

    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.get(LINGER_MS) as u64)
    }

    pub fn unix_mode(&self) -> u32 {
        self.get(UNIX_MODE) as u32
    }

    pub fn mac_age(&self) -> Duration {
        Duration::from_secs(self.get(MAC_AGE_S) as u64)
    }

    pub fn mac_max(&self) -> usize {
        self.get(MAC_MAX) as usize
    }

    pub fn queue_bytes(&self) -> usize {
        self.get(QUEUE_BYTES) as usize
    }

    /// How long after its end a connection dials again, where it does.
    pub fn reconnects(&self) -> Option<Duration> {
        let ms = self.get(RECONNECT_MS) as u64;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    pub fn dial_deadline(&self) -> Deadline {
        Deadline::after_ms(self.get(DIAL_TIMEOUT_MS))
    }

    pub fn buffers(&self) -> Buffers {
        let chosen = |option| (self.get(option) > 0).then(|| self.get(option) as usize);
        Buffers { send: chosen(SNDBUF), receive: chosen(RCVBUF) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_changes_nothing() {
        let mut options = Options::default();
        assert!(options.set(MAX_FRAME, 13, Holder::Conn).is_err());
        assert_eq!(options.max_frame(), 65_535);
        options.set(MAX_FRAME, 69_632, Holder::Conn).unwrap();
        assert_eq!(options.max_frame(), 69_632);
    }

    #[test]
    fn unknown_and_misplaced() {
        let mut options = Options::default();
        for unknown in [i32::MIN, -1, 0, 14, 19, 23, i32::MAX] {
            assert!(matches!(options.set(unknown, 1, Holder::Conn), Err(Error::Invalid(_))));
        }
        for misplaced in [RECONNECT_MS, DIAL_TIMEOUT_MS, MAX_CONNS, UNIX_MODE, RELEARN, 20, 21, 22]
        {
            let set = options.set(misplaced, 1, Holder::Conn);
            assert!(matches!(set, Err(Error::Misplaced(_))));
        }
    }
}
