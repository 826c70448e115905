//! Options: which ones exist, which values they take, and on which objects they can be set.

use std::ops::RangeInclusive;
use std::time::Duration;

use qnet_option::*;

use crate::error::{Error, Result};
use crate::frame;
use crate::sys::clock::Deadline;

/// The options that qnet_set(), qnet_listener_set(), qnet_hub_set() and qnet_dial_with() take.
/// Where a comment does not say otherwise, an option belongs to connections, and a listener passes
/// it on to the connections that it accepts.
///
/// Functions take int rather than this type, which only names the values.
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_option {
    /// How long a send waits for a peer that does not read, in milliseconds: -1 (the default) waits
    /// without limit, 0 does not wait.
    QNET_OPT_SEND_TIMEOUT_MS = 1,
    /// Coalescing: how long a send may be held back so that later sends can join it in one write,
    /// in microseconds: 0 (the default, not at all) to 1000000. Frames are held until the time has
    /// passed or 64 KiB have accumulated. A send that follows no other closely is written at once.
    QNET_OPT_TX_USECS = 2,
    /// 1 (the default): sends on this connection that are made inside a handler, while the handler
    /// has more frames to come, are held back and written together, after at most 1 ms or 64 KiB.
    /// 0: they are written at once.
    QNET_OPT_CORK = 3,
    /// The longest frame that may be sent, in bytes: 14 to QNET_FRAME_MAX. The default is 65535,
    /// which is the most that passt, pktkit and others accept.
    QNET_OPT_MAX_FRAME = 4,
    /// 1: frames shorter than 60 bytes are padded with zeroes to 60 when they are sent. The default
    /// is 0.
    QNET_OPT_PAD = 5,
    /// How long closing may take, in milliseconds, to write the frames that were taken and to drain
    /// what the peer is still writing. The default is 1000. Closing usually takes much less; see
    /// qnet_close().
    QNET_OPT_LINGER_MS = 6,
    /// The size of the socket's send buffer in bytes, as SO_SNDBUF in socket(7). The library
    /// chooses one for speed until this is set. Where each message is a frame, one that is longer
    /// than the buffer is lost, and counted in qnet_stats.tx_dropped.
    QNET_OPT_SNDBUF = 7,
    /// The size of the socket's receive buffer in bytes, as SO_RCVBUF in socket(7). The library
    /// chooses one for speed until this is set.
    QNET_OPT_RCVBUF = 8,
    /// For connections that were dialled: how long after losing its peer the connection dials again
    /// instead of ending, in milliseconds; see qnet_set_state_handler(). The default 0 disables
    /// reconnecting.
    QNET_OPT_RECONNECT_MS = 9,
    /// For qnet_dial_with() only: how long dialling may take in all, in milliseconds. The default
    /// -1 sets no limit. With QNET_OPT_RECONNECT_MS, each later attempt may take as long too, or
    /// 10000 ms if this is -1.
    QNET_OPT_DIAL_TIMEOUT_MS = 10,
    /// For listeners: how many accepted connections may exist that have not been closed with
    /// qnet_close(), or by the hub that serves the listener: that does so a little after their peers
    /// have left. Further peers are disconnected at once. The default is 1024.
    QNET_OPT_MAX_CONNS = 11,
    /// 0: qnet_set_handler(), qnet_close() and other functions do not wait for running handlers of
    /// this connection. The default is 1: they do, outside handlers.
    QNET_OPT_WAIT = 12,
    /// For listeners that created a socket file: the permissions of the file. The default is 0600
    /// (octal).
    QNET_OPT_UNIX_MODE = 13,
    /// 0: the cable is pulled, as long as the connection is linked or attached to a hub. What comes is
    /// read and dropped (rx_refused), what would be forwarded to it is dropped (tx_dropped), and what
    /// is in flight (see qnet_impair()) is discarded. A hub forgets the addresses behind it, and a TAP
    /// loses its carrier. The default is 1. What qnet_send() sends passes all the same.
    QNET_OPT_LINK = 14,
    /// How many bytes of frames may be in flight (see qnet_impair()), for each direction: from 131072
    /// on. When it has so many, its peer (QNET_IN), or the other side of a link (QNET_OUT), is not
    /// read; in a hub a frame that finds no room on its way out is dropped. The default is 67108864.
    QNET_OPT_FLIGHT_BYTES = 15,
    /// 1: when the other side of a link ends, this one does not. It stays linked to nothing, which is
    /// as a pulled cable (QNET_OPT_LINK), until it is linked to another or unlinked. The default is 0.
    QNET_OPT_OUTLIVE = 16,
    /// For connections of qnet_dgram() that have no remote. 0 (the default): the first sender
    /// becomes the remote for good. 1: each later sender becomes the remote in place of the one
    /// before.
    QNET_OPT_RELEARN = 17,
    /// For hubs: how long the hub remembers which port an address is behind, in seconds after the
    /// last frame from that address, at least 1. The default is 300.
    QNET_OPT_MAC_AGE_S = 20,
    /// For hubs: how many addresses the hub remembers at most, up to 1048576; in each VLAN an address
    /// counts anew. 0: nothing is learned, and all frames but those for static addresses
    /// (qnet_hub_fdb_add()) are flooded. The default is 8192.
    QNET_OPT_MAC_MAX = 21,
    /// For hubs: how many bytes may be queued for each port whose peer does not read. When the
    /// queue is full, further frames for that port are dropped. The default is 1048576.
    QNET_OPT_QUEUE_BYTES = 22,
    /// For hubs: which frames to groups that a switch of the standard keeps to itself are forwarded:
    /// bit n for the group 01-80-C2-00-00-0n. With 0, spanning tree (0), pause frames (1), LACP (2),
    /// EAPOL (3) and LLDP (E) do not pass. The default is 65535, all.
    QNET_OPT_GROUP_FWD_MASK = 23,
    /// For hubs: how long an address stays at its port after its last frame there, in milliseconds: a
    /// frame from it that comes sooner at another port is refused, so that a loop carries nothing.
    /// 200 is a good value. The default 0 lets addresses move at once, as VRRP and bonds need it.
    QNET_OPT_MOVE_MS = 24,
    /// 1: the port exchanges nothing with other isolated ports of its hub. The default is 0. This and
    /// the next six are in force while the connection is attached to a hub.
    QNET_OPT_ISOLATED = 30,
    /// What is flooded to the port, a sum: 1 for unknown destinations, 2 for multicast, 4 for
    /// broadcast. The default is 7, all.
    QNET_OPT_FLOOD = 31,
    /// How many addresses the hub learns behind the port, static ones and each VLAN's included; 0 (the
    /// default) sets no limit. Frames from further ones pass, and these are neither learned here nor
    /// moved here. A lower limit forgets nothing.
    QNET_OPT_MAC_LIMIT = 32,
    /// 1: frames from addresses that cannot be learned at the port are refused, and addresses known
    /// there do not move away until they age: other ports' frames from them are refused. The default
    /// is 0.
    QNET_OPT_SECURE = 33,
    /// How many frames a second from the port are flooded, of all classes: a bucket that holds a tenth
    /// of them (at least 1), is full at first and gets one more every 10^9 / value ns. Further ones
    /// are refused. The default 0 sets no limit.
    QNET_OPT_STORM_FPS = 34,
    /// 1: the port is a mirror. It gets a copy of all that is mirrored (QNET_OPT_MIRRORED), and nothing
    /// else, whatever its VLAN; what it sends is refused, and what was known behind it is forgotten.
    /// The default is 0.
    QNET_OPT_MIRROR = 35,
    /// What of the port goes to mirrors: 1 (the default) what comes in, as it was read and behind
    /// QNET_IN, refused frames too; 2 what goes out, as it is sent and before QNET_OUT; 3 both, in which
    /// case a frame to which both apply is copied twice; 0 nothing.
    QNET_OPT_MIRRORED = 36,
    /// For captures (qnet_capture_open()): how many bytes of each frame are recorded at most. The
    /// default 0 stands for all.
    QNET_OPT_SNAPLEN = 40,
    /// For captures: how many bytes of frames that were recorded may wait for being written, and about
    /// 48 bytes for each frame: from 131072 on. The default is 4194304.
    QNET_OPT_CAPTURE_BYTES = 41,
    /// For captures: how many bytes a file has when another begins, from 65536 on. The default 0
    /// stands for one file without limit.
    QNET_OPT_FILE_BYTES = 42,
    /// For captures with QNET_OPT_FILE_BYTES: how many files are kept; the oldest are removed. The
    /// default 0 stands for all.
    QNET_OPT_FILES = 43,
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
pub const LINK: i32 = qnet_option::QNET_OPT_LINK as i32;
pub const FLIGHT_BYTES: i32 = qnet_option::QNET_OPT_FLIGHT_BYTES as i32;
pub const OUTLIVE: i32 = qnet_option::QNET_OPT_OUTLIVE as i32;
pub const RELEARN: i32 = qnet_option::QNET_OPT_RELEARN as i32;
pub const MAC_AGE_S: i32 = qnet_option::QNET_OPT_MAC_AGE_S as i32;
pub const MAC_MAX: i32 = qnet_option::QNET_OPT_MAC_MAX as i32;
pub const QUEUE_BYTES: i32 = qnet_option::QNET_OPT_QUEUE_BYTES as i32;
pub const GROUP_FWD_MASK: i32 = qnet_option::QNET_OPT_GROUP_FWD_MASK as i32;
pub const MOVE_MS: i32 = qnet_option::QNET_OPT_MOVE_MS as i32;
pub const ISOLATED: i32 = qnet_option::QNET_OPT_ISOLATED as i32;
pub const FLOOD: i32 = qnet_option::QNET_OPT_FLOOD as i32;
pub const MAC_LIMIT: i32 = qnet_option::QNET_OPT_MAC_LIMIT as i32;
pub const SECURE: i32 = qnet_option::QNET_OPT_SECURE as i32;
pub const STORM_FPS: i32 = qnet_option::QNET_OPT_STORM_FPS as i32;
pub const MIRROR: i32 = qnet_option::QNET_OPT_MIRROR as i32;
pub const MIRRORED: i32 = qnet_option::QNET_OPT_MIRRORED as i32;
pub const SNAPLEN: i32 = qnet_option::QNET_OPT_SNAPLEN as i32;
pub const CAPTURE_BYTES: i32 = qnet_option::QNET_OPT_CAPTURE_BYTES as i32;
pub const FILE_BYTES: i32 = qnet_option::QNET_OPT_FILE_BYTES as i32;
pub const FILES: i32 = qnet_option::QNET_OPT_FILES as i32;

/// The kinds of objects on which options are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A connection that is none of the next three.
    Conn,
    /// A connection of datagrams that has no fixed remote, and sends to whoever sent to it.
    ToSender,
    /// A connection that was dialled.
    Dialled,
    /// A connection that is about to be dialled.
    Dial,
    Listener,
    Hub,
    Capture,
}

/// An option, its default, its range, and the objects that have it.
struct Rule(qnet_option, i64, RangeInclusive<i64>, &'static [Holder]);

const FOREVER: i64 = i32::MAX as i64;
const EVERY: &[Holder] =
    &[Holder::Conn, Holder::ToSender, Holder::Dialled, Holder::Dial, Holder::Listener];
const TO_SENDER: &[Holder] = &[Holder::ToSender];
const DIALLED: &[Holder] = &[Holder::Dialled, Holder::Dial];
const DIAL: &[Holder] = &[Holder::Dial];
const LISTENER: &[Holder] = &[Holder::Listener];
const HUB: &[Holder] = &[Holder::Hub];
const CAPTURE: &[Holder] = &[Holder::Capture];

static RULES: [Rule; 33] = [
    Rule(QNET_OPT_SEND_TIMEOUT_MS, -1, -1..=FOREVER, EVERY),
    Rule(QNET_OPT_TX_USECS, 0, 0..=1_000_000, EVERY),
    Rule(QNET_OPT_CORK, 1, 0..=1, EVERY),
    Rule(QNET_OPT_MAX_FRAME, 65_535, frame::MIN as i64..=frame::MAX as i64, EVERY),
    Rule(QNET_OPT_PAD, 0, 0..=1, EVERY),
    Rule(QNET_OPT_LINGER_MS, 1000, 0..=FOREVER, EVERY),
    // 0 cannot be set: it stands for the size that the library chooses.
    Rule(QNET_OPT_SNDBUF, 0, 1..=FOREVER, EVERY),
    Rule(QNET_OPT_RCVBUF, 0, 1..=FOREVER, EVERY),
    Rule(QNET_OPT_RECONNECT_MS, 0, 0..=FOREVER, DIALLED),
    Rule(QNET_OPT_DIAL_TIMEOUT_MS, -1, -1..=FOREVER, DIAL),
    Rule(QNET_OPT_MAX_CONNS, 1024, 1..=FOREVER, LISTENER),
    Rule(QNET_OPT_WAIT, 1, 0..=1, EVERY),
    Rule(QNET_OPT_UNIX_MODE, 0o600, 0..=0o777, LISTENER),
    Rule(QNET_OPT_LINK, 1, 0..=1, EVERY),
    Rule(QNET_OPT_FLIGHT_BYTES, 64 << 20, 128 << 10..=FOREVER, EVERY),
    Rule(QNET_OPT_OUTLIVE, 0, 0..=1, EVERY),
    Rule(QNET_OPT_RELEARN, 0, 0..=1, TO_SENDER),
    Rule(QNET_OPT_MAC_AGE_S, 300, 1..=FOREVER, HUB),
    Rule(QNET_OPT_MAC_MAX, 8192, 0..=1 << 20, HUB),
    Rule(QNET_OPT_QUEUE_BYTES, 1 << 20, 0..=FOREVER, HUB),
    Rule(QNET_OPT_GROUP_FWD_MASK, 0xffff, 0..=0xffff, HUB),
    Rule(QNET_OPT_MOVE_MS, 0, 0..=FOREVER, HUB),
    Rule(QNET_OPT_ISOLATED, 0, 0..=1, EVERY),
    Rule(QNET_OPT_FLOOD, 7, 0..=7, EVERY),
    Rule(QNET_OPT_MAC_LIMIT, 0, 0..=FOREVER, EVERY),
    Rule(QNET_OPT_SECURE, 0, 0..=1, EVERY),
    Rule(QNET_OPT_STORM_FPS, 0, 0..=FOREVER, EVERY),
    Rule(QNET_OPT_MIRROR, 0, 0..=1, EVERY),
    Rule(QNET_OPT_MIRRORED, 1, 0..=3, EVERY),
    Rule(QNET_OPT_SNAPLEN, 0, 0..=FOREVER, CAPTURE),
    Rule(QNET_OPT_CAPTURE_BYTES, 4 << 20, 128 << 10..=FOREVER, CAPTURE),
    // 0, its default, can be set too.
    Rule(QNET_OPT_FILE_BYTES, 0, 64 << 10..=FOREVER, CAPTURE),
    Rule(QNET_OPT_FILES, 0, 0..=FOREVER, CAPTURE),
];

/// An option's rule, if the option exists.
fn rule(option: i32) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.0 as i32 == option)
}

fn find(option: i32, holder: Holder) -> Result<&'static Rule> {
    let rule = rule(option).ok_or_else(|| Error::invalid(format!("unknown option {option}")))?;
    match rule.3.contains(&holder) {
        true => Ok(rule),
        false => Err(Error::Misplaced(format!("{:?}", rule.0).into(), option)),
    }
}

impl Rule {
    fn refusal(&self, value: i64) -> Error {
        let Rule(option, _, range, _) = self;
        // A mode is shown in octal, as C writes it.
        let shown = |value: i64| match option {
            QNET_OPT_UNIX_MODE if value > 0 => format!("0{value:o}"),
            _ => value.to_string(),
        };
        let [value, min, max] = [value, *range.start(), *range.end()].map(shown);
        let number = *option as i32;
        Error::invalid(format!(
            "{option:?}, option {number}, cannot be {value}: it is from {min} to {max}"
        ))
    }
}

/// Checks that an option exists, and that such an object has it.
pub fn check_known(option: i32, holder: Holder) -> Result<()> {
    find(option, holder).map(|_| ())
}

/// The sizes that the caller has chosen for the buffers of a new socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffers {
    pub send: Option<usize>,
    pub receive: Option<usize>,
}

/// The values of all options.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// The options that were set, each with its value, which no rule admits if it does not fit. All others
    /// have their defaults: most objects have no more than a few set.
    set: Box<[(i32, i32)]>,
}

impl Options {
    pub fn set(&mut self, option: i32, value: i64, holder: Holder) -> Result<()> {
        let rule = find(option, holder)?;
        let is_none = value == 0 && option == FILE_BYTES;
        if !rule.2.contains(&value) && !is_none {
            return Err(rule.refusal(value));
        }
        let others = self.set.iter().copied().filter(|(other, _)| *other != option);
        self.set = others.chain([(option, value as i32)]).collect();
        Ok(())
    }

    /// The value of an option, which must exist. Not in line: it is asked for at many places, and by no frame.
    #[inline(never)]
    pub fn get(&self, option: i32) -> i64 {
        let set = self.set.iter().find(|(other, _)| *other == option);
        set.map_or_else(|| rule(option).expect("it exists").1, |(_, value)| (*value).into())
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

    /// Whether the cable is pulled.
    pub fn is_pulled(&self) -> bool {
        self.get(LINK) == 0
    }

    pub fn flight_bytes(&self) -> u64 {
        self.get(FLIGHT_BYTES) as u64
    }

    /// Whether a link's end at the other side does not end the connection.
    pub fn outlives(&self) -> bool {
        self.get(OUTLIVE) != 0
    }

    pub fn mac_age(&self) -> Duration {
        Duration::from_secs(self.get(MAC_AGE_S) as u64)
    }

    pub fn group_mask(&self) -> u16 {
        self.get(GROUP_FWD_MASK) as u16
    }

    pub fn move_time(&self) -> Duration {
        Duration::from_millis(self.get(MOVE_MS) as u64)
    }

    pub fn mac_max(&self) -> usize {
        self.get(MAC_MAX) as usize
    }

    pub fn queue_bytes(&self) -> usize {
        self.get(QUEUE_BYTES) as usize
    }

    /// How long after losing its peer a connection dials again, if it does.
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
        for unknown in [i32::MIN, -1, 0, 18, 19, 25, 29, 37, i32::MAX] {
            assert!(matches!(options.set(unknown, 1, Holder::Conn), Err(Error::Invalid(_))));
        }
        for misplaced in
            [RECONNECT_MS, DIAL_TIMEOUT_MS, MAX_CONNS, UNIX_MODE, RELEARN, 20, 21, 22, 23]
        {
            let set = options.set(misplaced, 1, Holder::Conn);
            assert!(matches!(set, Err(Error::Misplaced(..))));
        }
    }
}
