//! The framing of QEMU's stream sockets: a 4-byte big-endian length, then that many bytes of
//! Ethernet frame (QEMU `net/net.c`, `net_fill_rstate`). Everything here works on bytes in memory,
//! without system calls.

/// The size of the length before each frame, in bytes.
pub const PREFIX: usize = 4;

/// The shortest and the longest frame, in bytes.
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_limit {
    /// The length of an Ethernet header. Shorter frames are neither sent nor delivered.
    QNET_FRAME_MIN = 14,
    /// The longest frame that QEMU can send or receive (its NET_BUFSIZE, 4096 + 65536). A buffer of
    /// this size holds any frame; one frame in packed format needs 4 bytes more.
    QNET_FRAME_MAX = 69632,
}

pub const MIN: usize = qnet_limit::QNET_FRAME_MIN as usize;
pub const MAX: usize = qnet_limit::QNET_FRAME_MAX as usize;
/// The length to which short frames are padded: that of the shortest frame on a real cable, without
/// its checksum.
pub const PADDED: usize = 60;

/// What some bytes of the stream begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// A whole frame, which may be a runt (shorter than [`MIN`]).
    Whole(&'a [u8]),
    /// A part of a frame, and how many more bytes it takes at least to complete the frame.
    Part(usize),
    /// A length above [`MAX`]: whatever follows cannot be told apart into frames.
    TooLong,
}

/// Tells what `bytes` begin with.
#[inline]
pub fn front(bytes: &[u8]) -> Front<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Front::Part(PREFIX - bytes.len());
    };
    let len = u32::from_be_bytes(*prefix) as usize;
    if len > MAX {
        return Front::TooLong;
    }
    match rest.get(..len) {
        Some(frame) => Front::Whole(frame),
        None => Front::Part(len - rest.len()),
    }
}

/// An iterator over the whole frames that some bytes of the stream begin with.
///
/// Frames mostly have the length of the one before. So that length is used without waiting for the
/// next prefix to be read and converted, which only confirms it.
#[derive(Clone)]
pub struct Walk<'a> {
    rest: &'a [u8],
    /// The prefix of the last frame, and the same as a number.
    prefix: [u8; PREFIX],
    len: usize,
}

impl<'a> Walk<'a> {
    #[inline]
    pub fn over(bytes: &'a [u8]) -> Walk<'a> {
        Walk { rest: bytes, prefix: prefix(0), len: 0 }
    }

    /// Up to `most` frames that have the length of the next one and lie one behind another. Frames mostly
    /// have the length of the one before.
    #[inline]
    pub fn next_alike(&mut self, most: usize) -> Option<Alike<'a>> {
        let (prefix, _) = self.rest.split_first_chunk::<PREFIX>()?;
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX {
            return None;
        }
        let step = PREFIX + len;
        let within = &self.rest[..self.rest.len().min(most.saturating_mul(step))];
        let mut rest = within;
        while let Some((frame, behind)) = rest.split_at_checked(step) {
            if frame.first_chunk() != Some(prefix) {
                break;
            }
            rest = behind;
        }
        let (bytes, rest) = self.rest.split_at(within.len() - rest.len());
        self.rest = rest;
        (!bytes.is_empty()).then_some(Alike { bytes, len, count: bytes.len() / step })
    }

    /// What follows the frames that were returned so far.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.rest.split_first_chunk::<PREFIX>()?;
        if *prefix != self.prefix {
            let len = u32::from_be_bytes(*prefix) as usize;
            if len > MAX {
                return None;
            }
            (self.prefix, self.len) = (*prefix, len);
        }
        let (frame, rest) = rest.split_at_checked(self.len)?;
        self.rest = rest;
        Some(frame)
    }
}

/// Frames of one length that lie one behind another.
pub struct Alike<'a> {
    /// The frames with their prefixes.
    pub bytes: &'a [u8],
    /// The length of each, without the prefix.
    pub len: usize,
    pub count: usize,
}

impl<'a> Alike<'a> {
    /// All but the last frame, and that.
    #[inline]
    pub fn split_last(self) -> (Alike<'a>, Alike<'a>) {
        let Alike { bytes, len, count } = self;
        let (others, last) = bytes.split_at(bytes.len() - (PREFIX + len));
        (Alike { bytes: others, len, count: count - 1 }, Alike { bytes: last, len, count: 1 })
    }

    #[inline]
    pub fn frames(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (mut bytes, len) = (self.bytes, self.len);
        std::iter::from_fn(move || {
            let (_, behind) = bytes.split_first_chunk::<PREFIX>()?;
            let (frame, rest) = behind.split_at_checked(len)?;
            bytes = rest;
            Some(frame)
        })
    }
}

/// Whole frames that a buffer begins with.
#[derive(Default)]
pub struct Run {
    /// How many frames there are, runts not included.
    pub frames: usize,
    /// How many runts (frames shorter than [`MIN`]) there are.
    pub runts: usize,
    /// The length of all `frames`, without their prefixes.
    pub bytes: usize,
    /// Where in the buffer the last frame or runt ends.
    pub end: usize,
}

impl Run {
    /// Goes over the whole frames that `bytes` begin with, until `count` of them are no runts.
    /// Calls `each` with these, many at a time, and the number of the first.
    #[inline]
    pub fn over(bytes: &[u8], count: usize, mut each: impl FnMut(usize, &Alike<'_>)) -> Run {
        let mut run = Run::default();
        let mut walk = Walk::over(bytes);
        while run.frames < count {
            let Some(alike) = walk.next_alike(count - run.frames) else {
                break;
            };
            if alike.len < MIN {
                run.runts += alike.count;
                continue;
            }
            each(run.frames, &alike);
            run.frames += alike.count;
            run.bytes += alike.count * alike.len;
        }
        run.end = bytes.len() - walk.rest().len();
        run
    }
}

/// The prefix of a frame of `len` bytes.
#[inline]
pub fn prefix(len: usize) -> [u8; PREFIX] {
    debug_assert!(len <= MAX);
    (len as u32).to_be_bytes()
}

/// Follows a stream whose bytes are discarded, in order to know whether it is between two frames.
#[derive(Debug, Default)]
pub struct Skimmer {
    /// The first `prefix_len` bytes of the next prefix.
    prefix: [u8; PREFIX],
    prefix_len: usize,
    /// How many bytes of the current frame are still to come.
    body_left: usize,
    is_broken: bool,
}

impl Skimmer {
    pub fn skim(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_broken {
            if self.body_left > 0 {
                let n = self.body_left.min(bytes.len());
                self.body_left -= n;
                bytes = &bytes[n..];
                continue;
            }
            self.prefix[self.prefix_len] = bytes[0];
            self.prefix_len += 1;
            bytes = &bytes[1..];
            if self.prefix_len == PREFIX {
                self.prefix_len = 0;
                self.body_left = u32::from_be_bytes(self.prefix) as usize;
                self.is_broken = self.body_left > MAX;
            }
        }
    }

    /// Whether a frame has begun and is not complete.
    pub fn inside_frame(&self) -> bool {
        !self.is_broken && (self.prefix_len > 0 || self.body_left > 0)
    }

    /// Whether there was a length above [`MAX`], so that the bytes cannot be told apart into
    /// frames.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frames: &[&[u8]]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&prefix(f.len())[..], f].concat()).collect()
    }

    #[test]
    fn front_at_every_cut() {
        let bytes = wire(&[&[7; 20]]);
        for cut in 0..bytes.len() {
            let missing = if cut < PREFIX { PREFIX - cut } else { bytes.len() - cut };
            assert_eq!(front(&bytes[..cut]), Front::Part(missing));
        }
        assert_eq!(front(&bytes), Front::Whole(&[7; 20]));
    }

    #[test]
    fn lengths_at_the_limit() {
        assert_eq!(front(&prefix(0)), Front::Whole(&[]));
        assert_eq!(front(&prefix(MAX)), Front::Part(MAX));
        assert_eq!(front(&(MAX as u32 + 1).to_be_bytes()), Front::TooLong);
        assert_eq!(front(&[0xff; 4]), Front::TooLong);
    }

    #[test]
    fn walk_over_frames_of_all_lengths() {
        let frames: [&[u8]; 7] = [&[1; 14], &[2; 14], &[], &[], &[3; 300], &[4; 14], &[5; MAX]];
        let bytes = wire(&frames);
        assert!(Walk::over(&bytes).eq(frames));
        let whole = bytes.len() - PREFIX - MAX;
        for cut in whole..bytes.len() {
            let mut walk = Walk::over(&bytes[..cut]);
            assert_eq!((walk.by_ref().count(), walk.rest().len()), (6, cut - whole));
        }
        let broken = [wire(&frames[..2]), prefix(MAX).map(|byte| byte | 1).to_vec()].concat();
        assert_eq!(Walk::over(&broken).count(), 2);
    }

    #[test]
    fn skimmer_at_every_cut() {
        let bytes = wire(&[&[1; 14], &[], &[2; 300]]);
        let ends = [18, 22, bytes.len()];
        for cut in 0..=bytes.len() {
            let mut skimmer = Skimmer::default();
            skimmer.skim(&bytes[..cut]);
            assert_eq!(skimmer.inside_frame(), cut != 0 && !ends.contains(&cut), "cut at {cut}");
        }
        let mut skimmer = Skimmer::default();
        skimmer.skim(&[0xff; 9]);
        assert!(skimmer.is_broken() && !skimmer.inside_frame());
    }
}
