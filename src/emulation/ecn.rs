//! Congestion Experienced: what a frame's sender has said it understands, and how it is told.

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// Where a frame's type stands, how long a tag is, and how many of them are looked behind.
const TYPE: usize = 12;
const TAG: usize = 4;
const MOST_TAGS: usize = 2;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where an IPv4 header has its checksum.
const CHECKSUM: usize = 10;

/// The two bits of congestion, in the place where each protocol's second byte has them.
const BITS: u8 = 3;
const IPV6_SHIFT: u32 = 4;

/// Whether a frame's sender understands marks. One that is marked already counts, too.
pub fn is_capable(frame: &[u8]) -> bool {
    find(frame).is_some_and(|(at, shift, _)| frame[at + 1] >> shift & BITS != 0)
}

/// Marks a frame that is capable. A checksum is updated rather than computed, so that a wrong one stays
/// wrong (RFC 1624).
pub fn mark(frame: &mut [u8]) {
    let Some((at, shift, has_checksum)) = find(frame) else {
        return;
    };
    let before = u16::from(frame[at + 1]);
    frame[at + 1] |= BITS << shift;
    // Both have the byte before in the upper half, which cancels out.
    let change = u32::from(!before) + u32::from(frame[at + 1]);
    if has_checksum && change != u32::from(u16::MAX) {
        let at = at + CHECKSUM;
        let sum = u32::from(!u16::from_be_bytes([frame[at], frame[at + 1]])) + change;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

/// Where a frame's IP header begins, how far its bits are shifted in its second byte, and whether it has a
/// checksum.
fn find(frame: &[u8]) -> Option<(usize, u32, bool)> {
    let mut at = TYPE;
    let kind = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    for _ in 0..MOST_TAGS {
        if TAGS.contains(&kind(at)?) {
            at += TAG;
        }
    }
    let (kind, at) = (kind(at)?, at + 2);
    let header = frame.get(at..)?;
    match (kind, header.first()?) {
        (IPV4, 0x45..=0x4f) if header.len() >= IPV4_HEADER => Some((at, 0, true)),
        (IPV6, 0x60..=0x6f) if header.len() >= IPV6_HEADER => Some((at, IPV6_SHIFT, false)),
        _ => None,
    }
}
