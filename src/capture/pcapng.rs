//! The format of a capture, pcapng (draft-ietf-opsawg-pcapng): blocks, each with its length at both ends,
//! in the byte order of this machine. Pure.

use std::ops::Range;

use crate::sys::memory;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const FRAME: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

const COMMENT: u16 = 1;
const USER_APPLICATION: u16 = 4;
const NAME: u16 = 2;
const DESCRIPTION: u16 = 3;
const TIME_RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const DROPPED: u16 = 4;
const RECEIVED_BY_INTERFACE: u16 = 4;
const DROPPED_BY_INTERFACE: u16 = 5;

/// Times are in units of 10 to the power of minus this.
const NANOSECONDS: u8 = 9;

const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// How many bytes a text may have.
pub const LONGEST_TEXT: usize = u16::MAX as usize;

/// Appends a block: what `fill` appends, within the block's type and lengths.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, [kind, 0]);
    fill(out);
    end_block(out, start);
}

fn end_block(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start + 4) as u32;
    put(out, [len]);
    out[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
}

fn put<const N: usize>(out: &mut Vec<u8>, numbers: [u32; N]) {
    out.extend_from_slice(numbers.map(u32::to_ne_bytes).as_flattened());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&option_head(code, value.len() as u16));
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn end_of_options(out: &mut Vec<u8>) {
    put(out, [0]);
}

/// What a file begins with.
pub fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |out| {
        put(out, [BYTE_ORDER]);
        // Version 1.0.
        out.extend([1u16.to_ne_bytes(), 0u16.to_ne_bytes()].concat());
        // Its length is not told.
        put(out, [u32::MAX, u32::MAX]);
        option(out, USER_APPLICATION, concat!("libqnet ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(out);
    });
}

pub fn interface(out: &mut Vec<u8>, name: &[u8], description: &[u8], snaplen: u32) {
    block(out, INTERFACE, |out| {
        out.extend(ETHERNET.to_ne_bytes());
        out.extend([0; 2]);
        put(out, [snaplen]);
        option(out, NAME, name);
        if !description.is_empty() {
            option(out, DESCRIPTION, description);
        }
        option(out, TIME_RESOLUTION, &[NANOSECONDS]);
        end_of_options(out);
    });
}

/// What goes with a frame.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The length of the frame, of which less may have been kept.
    pub len: u32,
    pub interface: u32,
    pub is_out: bool,
    /// How many of the notes that wait go with it: fewer than 2^24.
    pub notes: u32,
    pub time: u64,
    /// How many frames of the interface before it were not recorded, where that is told.
    pub lost: Option<u64>,
}

/// How many bytes a frame's block has between its type and the frame, and up to the frame.
const HEAD: usize = 24;
pub const START: usize = 4 + HEAD;

/// How many it has behind the frame, and how many more where it tells how many frames before it were lost.
const TAIL: usize = 16;
pub const LOST: usize = 12;

/// How many bits of a type are the format's, see [`kind`].
const KIND_BITS: u32 = 8;

/// How long a frame's block is.
#[inline]
pub const fn frame_len(kept: usize, tells_lost: bool) -> usize {
    let tail = if tells_lost { TAIL + LOST } else { TAIL };
    START + kept.next_multiple_of(4) + tail
}

/// Fills blocks for frames of one length, from behind the first's type on. Their bytes were zeros before.
/// Of each frame `kept` bytes are kept, with zeros where it has fewer.
#[inline]
pub fn fill<'a>(
    blocks: &mut [u8],
    frames: impl Iterator<Item = &'a [u8]>,
    kept: usize,
    mark: &Mark,
) {
    let len = frame_len(kept, mark.lost.is_some());
    let [high, low] = halves(mark.time);
    let head: [u8; HEAD] = bytes_of([len as u32, mark.interface, high, low, kept as u32, mark.len]);
    let flags = if mark.is_out { OUTBOUND } else { INBOUND };
    // The options end with zeros.
    let tail: [u8; TAIL] =
        bytes_of([u32::from_ne_bytes(option_head(FLAGS, 4)), flags, 0, len as u32]);
    let lost = mark.lost.map(lost_option);
    for (block, frame) in blocks.chunks_mut(len).zip(frames) {
        let (front, rest) =
            block.split_first_chunk_mut().expect("room for what is before the frame");
        *front = head;
        let (room, mut rest) = rest.split_at_mut(kept.next_multiple_of(4));
        let bytes = &frame[..frame.len().min(kept)];
        memory::copy(&mut room[..bytes.len()], bytes);
        if let Some(lost) = &lost {
            let (option, behind) = rest.split_at_mut(LOST);
            option.copy_from_slice(lost);
            rest = behind;
        }
        let (back, next) = rest.split_first_chunk_mut().expect("room for what is behind the frame");
        *back = tail;
        if let Some(kind) = next.first_chunk_mut() {
            *kind = FRAME.to_ne_bytes();
        }
    }
}

fn lost_option(lost: u64) -> [u8; LOST] {
    let mut option = [0; LOST];
    option[..4].copy_from_slice(&option_head(DROPPED, 8));
    option[4..].copy_from_slice(&lost.to_ne_bytes());
    option
}

/// Numbers as they are written.
#[inline]
fn bytes_of<const N: usize, const BYTES: usize>(numbers: [u32; N]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes.copy_from_slice(numbers.map(u32::to_ne_bytes).as_flattened());
    bytes
}

/// The type of a frame's block, to be stored once the rest is there. Above the format's own bits it has how many
/// notes go with the frame: then it is not to be written as it is, but by [`commented`].
#[inline]
pub fn kind(mark: &Mark) -> u32 {
    FRAME | mark.notes << KIND_BITS
}

/// What a frame's block tells.
pub struct Block {
    pub len: usize,
    pub notes: u32,
    pub interface: u32,
    /// The time of the frame, and its length, of which less may have been kept.
    pub time: u64,
    pub frame_len: u32,
}

impl Block {
    /// Reads what a frame's block begins with.
    #[inline]
    pub fn read(start: &[u8; START]) -> Block {
        let mut numbers = [0; START / 4];
        for (number, bytes) in numbers.iter_mut().zip(start.chunks_exact(4)) {
            *number = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let [kind, len, interface, high, low, _, frame_len] = numbers;
        Block {
            len: len as usize,
            notes: kind >> KIND_BITS,
            interface,
            time: u64::from(high) << 32 | u64::from(low),
            frame_len,
        }
    }
}

fn option_head(code: u16, len: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (code.to_ne_bytes(), len.to_ne_bytes());
    [a, b, c, d]
}

/// Appends a frame's block, and gives it comments.
pub fn commented(out: &mut Vec<u8>, block: &[u8], notes: &[String]) {
    let start = out.len();
    let kept = number(block, 20).map_or(0, |kept| kept as usize);
    let options = START + kept.next_multiple_of(4);
    put(out, [FRAME]);
    out.extend_from_slice(&block[4..options]);
    notes.iter().for_each(|note| option(out, COMMENT, note.as_bytes()));
    out.extend_from_slice(&block[options..block.len() - 4]);
    end_block(out, start);
}

/// How many frames an interface has had, and how many of those were not recorded, by that time.
pub fn statistics(out: &mut Vec<u8>, interface: u32, time: u64, received: u64, dropped: u64) {
    block(out, STATISTICS, |out| {
        let [high, low] = halves(time);
        put(out, [interface, high, low]);
        option(out, RECEIVED_BY_INTERFACE, &received.to_ne_bytes());
        option(out, DROPPED_BY_INTERFACE, &dropped.to_ne_bytes());
        end_of_options(out);
    });
}

fn halves(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

/// The blocks of what was appended above.
fn blocks(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let len = number(bytes.get(at..)?, 4)? as usize;
        let place = at..at + len;
        at += len;
        Some((place.clone(), bytes.get(place)?))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// How many of the first `n` bytes are those of whole blocks.
pub fn whole(bytes: &[u8], n: usize) -> usize {
    blocks(bytes).map(|(place, _)| place.end).take_while(|end| *end <= n).last().unwrap_or(0)
}

/// How many frames there are, and how long they were, all together.
pub fn count_frames(bytes: &[u8]) -> (u64, u64) {
    let frames = blocks(bytes).filter(|(_, block)| number(block, 0) == Some(FRAME));
    let lens = frames.filter_map(|(_, block)| number(block, 24));
    lens.fold((0, 0), |(frames, bytes), len| (frames + 1, bytes + u64::from(len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(out: &mut Vec<u8>, mark: &Mark, kept: &[u8]) {
        let start = out.len();
        put(out, [FRAME]);
        out.resize(start + frame_len(kept.len(), mark.lost.is_some()), 0);
        fill(&mut out[start + 4..], [kept].into_iter(), kept.len(), mark);
    }

    #[test]
    fn blocks_are_found_again() {
        let mark =
            Mark { len: 70, interface: 0, is_out: true, notes: 1, time: 1 << 40, lost: Some(3) };
        let (mut out, mut block) = (Vec::new(), Vec::new());
        section(&mut out);
        interface(&mut out, b"a", b"", 0);
        let before = out.len();
        frame(&mut block, &mark, &[1; 33]);
        commented(&mut out, &block, &["why".to_owned(), "because".to_owned()]);
        let middle = out.len();
        assert_eq!(middle - before, block.len() + 8 + 12);
        frame(&mut out, &Mark { len: 30, lost: None, ..mark }, &[1; 30]);
        statistics(&mut out, 0, 5, 2, 3);
        assert_eq!(out.len() % 4, 0);
        assert_eq!(blocks(&out).count(), 5);
        assert_eq!(count_frames(&out), (2, 100));
        assert_eq!(count_frames(&out[middle..]), (1, 30));
        for n in 0..=out.len() {
            let end = whole(&out, n);
            assert!(end <= n && (n < before || end >= before));
            assert_eq!(count_frames(&out[..end]).0 >= 1, n >= middle);
        }
    }

    #[test]
    fn a_block_with_comments_is_the_block_and_these() {
        let mark =
            Mark { len: 9, interface: 7, is_out: false, notes: 1, time: 5, lost: Some(1 << 33) };
        let (mut out, mut block) = (Vec::new(), Vec::new());
        frame(&mut block, &mark, &[8; 9]);
        commented(&mut out, &block, &[]);
        assert_eq!(out, block);
        out.clear();
        commented(&mut out, &block, &["x".to_owned()]);
        let (options, end) = (28 + 12, block.len() - 4);
        assert_eq!(out[8..options], block[8..options]);
        assert_eq!(out[options..options + 8], [&option_head(COMMENT, 1)[..], b"x\0\0\0"].concat());
        assert_eq!(out[options + 8..end + 8], block[options..end]);
    }
}
