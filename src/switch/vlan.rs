//! A port's VLANs: which one a frame is of that comes in, and what becomes of its tag where it goes out.
//! Everything here is pure.

use crate::emulation::words::{Word, Words};
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX, Walk};

/// Where a frame's type is: behind its two addresses. A tag (IEEE 802.1Q) stands there, before the type: two
/// bytes of its own type (TPID), and two of priority and VLAN.
const TYPE_AT: usize = 12;

/// The size of a tag, in bytes.
pub const TAG: usize = 4;

/// The types of tags: of VLANs, and of those around them (802.1ad).
const TPIDS: [(&str, [u8; 2]); 2] = [("8100", [0x81, 0x00]), ("88a8", [0x88, 0xa8])];

/// Whether a type, its first byte the lowest, is that of a tag.
#[inline]
fn is_tag(kind: u16) -> bool {
    const VLAN: u16 = u16::from_le_bytes(TPIDS[0].1);
    const AROUND: u16 = u16::from_le_bytes(TPIDS[1].1);
    matches!(kind, VLAN | AROUND)
}

/// The highest VLAN. The number above it is reserved.
pub const LAST: u16 = 4094;

const VLANS: usize = 4096;

/// What a port does with VLANs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    mode: Mode,
    tpid: [u8; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Access(u16),
    Trunk {
        list: Option<Box<Set>>,
        native: Option<u16>,
    },
    Tunnel(u16),
    /// That of a port for which nothing was set: all VLANs, and 0 for what has no tag.
    Transparent,
}

static TRANSPARENT: Vlan = Vlan { mode: Mode::Transparent, tpid: TPIDS[0].1 };

/// A set of VLANs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set([u64; VLANS / 64]);

impl Set {
    fn has(&self, vlan: u16) -> bool {
        let vlan = usize::from(vlan);
        self.0[vlan / 64] >> (vlan % 64) & 1 != 0
    }

    fn add(&mut self, vlan: u16) {
        let vlan = usize::from(vlan);
        self.0[vlan / 64] |= 1 << (vlan % 64);
    }

    fn print(&self) -> String {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for vlan in (1..=LAST).filter(|vlan| self.has(*vlan)) {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == vlan => *end = vlan,
                _ => ranges.push((vlan, vlan)),
            }
        }
        let shown = ranges.into_iter().map(|(start, end)| match start == end {
            true => start.to_string(),
            false => format!("{start}-{end}"),
        });
        shown.collect::<Vec<_>>().join(",")
    }
}

/// What a switch sees of a frame beside its addresses: 6 bytes from its type on, of which the last 4 count
/// only behind a tag's type. Types that are none of tags are 0, since nothing depends on which they are:
/// so frames of all protocols between two devices are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(u64);

impl Head {
    /// That of no frame.
    pub const NONE: Head = Head(u64::MAX);
    /// That of a frame without a tag, or whose tag is not looked at.
    pub const UNTAGGED: Head = Head(0);
    const CUT_SHORT: u64 = 1 << 63;
    /// How far behind the first type the one behind the tag is, in bits.
    const BEHIND: u32 = 8 * TAG as u32;

    #[inline]
    pub fn of(frame: &[u8]) -> Head {
        let Some(start) = frame.first_chunk::<{ TYPE_AT + 2 + TAG }>() else {
            return Head::of_short(frame);
        };
        let Some(bytes) = start.last_chunk() else {
            return Head::NONE;
        };
        let head = u64::from_le_bytes(*bytes) >> 16;
        if !is_tag(head as u16) {
            return Head::UNTAGGED;
        }
        let is_tagged_twice = is_tag((head >> Head::BEHIND) as u16);
        Head(if is_tagged_twice { head } else { head & ((1 << Head::BEHIND) - 1) })
    }

    /// That of a frame in which no tag has room.
    fn of_short(frame: &[u8]) -> Head {
        let Some(bytes) = frame.get(TYPE_AT..).and_then(|rest| rest.first_chunk::<2>()) else {
            return Head::NONE;
        };
        let kind = u16::from_le_bytes(*bytes);
        if is_tag(kind) { Head(Head::CUT_SHORT | u64::from(kind)) } else { Head::UNTAGGED }
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    fn kind(self) -> [u8; 2] {
        (self.0 as u16).to_le_bytes()
    }

    /// The frame's first tag, and the type behind it, if it is whole.
    fn tag(self) -> Option<([u8; TAG], [u8; 2])> {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        (self.0 & Head::CUT_SHORT == 0).then_some(([a, b, c, d], [e, f]))
    }
}

/// A frame inside the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    pub vlan: u16,
    /// The tag with which it came, where that said which VLAN, or which priority.
    tag: Option<[u8; TAG]>,
    /// The type that it has but for that, if it is a tag's.
    kind: [u8; 2],
}

impl Inner {
    /// Any frame in a switch without VLANs.
    pub const PLAIN: Inner = Inner { vlan: 0, tag: None, kind: [0; 2] };
}

/// What becomes of a frame on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Add([u8; TAG]),
    Replace([u8; TAG]),
    Remove,
}

fn vlan_of(tag: [u8; TAG]) -> u16 {
    u16::from_be_bytes([tag[2], tag[3]]) & 0xfff
}

impl Vlan {
    /// What a port does for which that was set, or nothing.
    pub fn or_transparent(of: Option<&Vlan>) -> &Vlan {
        of.unwrap_or(&TRANSPARENT)
    }

    /// Which VLAN a frame is of that comes in; `None` for one that is refused.
    pub fn enter(&self, head: Head) -> Option<Inner> {
        let untagged = |vlan| Inner { vlan, tag: None, kind: head.kind() };
        if let Mode::Tunnel(vlan) = self.mode {
            return Some(untagged(vlan));
        }
        let tag = match head.kind() == self.tpid {
            true => Some(head.tag()?),
            false => None,
        };
        // A tag of VLAN 0 says a priority and nothing else.
        let named = tag.map_or(0, |(tag, _)| vlan_of(tag));
        let vlan = match (&self.mode, named) {
            _ if named > LAST => None,
            (Mode::Access(vlan), 0) => Some(*vlan),
            (Mode::Access(_), _) => None,
            (Mode::Trunk { native, .. }, 0) => *native,
            (Mode::Trunk { .. }, _) => self.carries(named).then_some(named),
            (Mode::Tunnel(_) | Mode::Transparent, _) => Some(named),
        }?;
        Some(match tag {
            Some((tag, kind)) => Inner { vlan, tag: Some(tag), kind },
            None => untagged(vlan),
        })
    }

    /// Whether frames of a VLAN go out.
    fn carries(&self, vlan: u16) -> bool {
        match &self.mode {
            Mode::Access(own) | Mode::Tunnel(own) => *own == vlan,
            Mode::Trunk { list, native } => {
                *native == Some(vlan)
                    || vlan != 0 && list.as_ref().is_none_or(|list| list.has(vlan))
            }
            Mode::Transparent => true,
        }
    }

    /// What becomes of a frame that goes out; `None` for one that may not.
    pub fn leave(&self, inner: Inner) -> Option<Change> {
        if !self.carries(inner.vlan) {
            return None;
        }
        let is_tagged = match &self.mode {
            Mode::Access(_) | Mode::Tunnel(_) => false,
            Mode::Trunk { native, .. } => *native != Some(inner.vlan),
            // What is of no VLAN leaves as it came.
            Mode::Transparent if inner.vlan == 0 => return Some(Change::None),
            Mode::Transparent => true,
        };
        if is_tagged {
            let priority = inner.tag.map_or(0, |tag| tag[2] & 0xf0);
            let [high, low] = inner.vlan.to_be_bytes();
            let tag = [self.tpid[0], self.tpid[1], priority | high, low];
            return Some(match inner.tag {
                None => Change::Add(tag),
                Some(before) if before == tag => Change::None,
                Some(_) => Change::Replace(tag),
            });
        }
        let is_tagged_twice = inner.kind == self.tpid && !matches!(self.mode, Mode::Tunnel(_));
        match inner.tag {
            _ if is_tagged_twice => None,
            None => Some(Change::None),
            Some(_) => Some(Change::Remove),
        }
    }

    /// Reads a text; `None` for one without words.
    pub fn parse(text: &[u8]) -> Result<Option<Vlan>> {
        let mut words = Words::of(text);
        let Some(first) = words.next() else {
            return Ok(None);
        };
        let mode = match &*first.lower() {
            "access" => Mode::Access(vid_after(&first, &mut words)?),
            "tunnel" => Mode::Tunnel(vid_after(&first, &mut words)?),
            "trunk" => trunk(&mut words)?,
            _ => return Err(first.error("expected one of access, trunk, tunnel")),
        };
        let mut tpid = TPIDS[0].1;
        if let Some(word) = next_if(&mut words, "tpid") {
            let kind = words.after(&word, "8100 or 88a8")?;
            let known = TPIDS.iter().find(|(name, _)| *name == kind.lower());
            tpid = known.ok_or_else(|| kind.error("expected 8100 or 88a8"))?.1;
        }
        match words.next() {
            Some(word) => Err(word.error("nothing like that can follow here")),
            None => Ok(Some(Vlan { mode, tpid })),
        }
    }

    /// The text again, as short as it can be.
    pub fn print(&self) -> String {
        let mut text = match &self.mode {
            Mode::Access(vlan) => format!("access {vlan}"),
            Mode::Tunnel(vlan) => format!("tunnel {vlan}"),
            Mode::Trunk { list, native } => {
                let list = list.as_ref().map_or(String::new(), |list| format!(" {}", list.print()));
                let native = native.map_or(String::new(), |vlan| format!(" native {vlan}"));
                format!("trunk{list}{native}")
            }
            Mode::Transparent => String::new(),
        };
        if let Some((name, _)) = TPIDS[1..].iter().find(|(_, tpid)| *tpid == self.tpid) {
            text = format!("{text} tpid {name}");
        }
        text
    }
}

/// The next word, if it is that one.
fn next_if<'a>(words: &mut Words<'a>, wanted: &str) -> Option<Word<'a>> {
    words.clone().next().filter(|word| word.lower() == wanted).inspect(|word| words.go_behind(word))
}

fn vid_after(word: &Word<'_>, words: &mut Words<'_>) -> Result<u16> {
    let next = words.after(word, "a VLAN from 1 to 4094")?;
    vid(&next, &next.lower())
}

fn vid(word: &Word<'_>, text: &str) -> Result<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|vlan| is_number && (1..=LAST).contains(vlan));
    number.ok_or_else(|| word.error("expected a VLAN from 1 to 4094"))
}

/// What follows `trunk`.
fn trunk(words: &mut Words<'_>) -> Result<Mode> {
    let list = match words.argument() {
        Some(word) => Some(list(&word)?),
        None => {
            next_if(words, "all");
            None
        }
    };
    let native = next_if(words, "native").map(|word| vid_after(&word, words)).transpose()?;
    Ok(Mode::Trunk { list, native })
}

fn list(word: &Word<'_>) -> Result<Box<Set>, Error> {
    let mut set = Box::new(Set([0; VLANS / 64]));
    for part in word.lower().split(',') {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        let (start, end) = (vid(word, start)?, vid(word, end)?);
        if start > end {
            return Err(word.error("a range of VLANs ascends"));
        }
        (start..=end).for_each(|vlan| set.add(vlan));
    }
    Ok(set)
}

/// Puts frames in wire format behind `to`, changed. One that would be longer than any frame is left out.
/// Returns how many are.
pub fn change(change: Change, wire: &[u8], to: &mut Vec<u8>) -> usize {
    let mut left_out = 0;
    let (tag, skipped) = match change {
        Change::None => (None, 0),
        Change::Add(tag) => (Some(tag), 0),
        Change::Replace(tag) => (Some(tag), TAG),
        Change::Remove => (None, TAG),
    };
    to.reserve(wire.len() + wire.len() / (PREFIX + frame::MIN) * TAG);
    for frame in Walk::over(wire) {
        let Some((addresses, rest)) = frame.split_first_chunk::<TYPE_AT>() else {
            continue;
        };
        let rest = &rest[skipped..];
        let len = TYPE_AT + tag.map_or(0, |tag| tag.len()) + rest.len();
        if len > frame::MAX {
            left_out += 1;
            continue;
        }
        let mut head = [0; PREFIX + TYPE_AT + TAG];
        head[..PREFIX].copy_from_slice(&frame::prefix(len));
        head[PREFIX..PREFIX + TYPE_AT].copy_from_slice(addresses);
        match tag {
            Some(tag) => {
                head[PREFIX + TYPE_AT..].copy_from_slice(&tag);
                to.extend_from_slice(&head);
            }
            None => to.extend_from_slice(&head[..PREFIX + TYPE_AT]),
        }
        to.extend_from_slice(rest);
    }
    left_out
}

#[cfg(test)]
mod tests;
