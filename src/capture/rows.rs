//! Frames on their way into the buffer, as many at a time as have one length and lie at equal distances.

use crate::frame::{self, PREFIX, Walk};

/// How many frames are looked at ahead, and get room together.
pub const TOGETHER: usize = 64;

/// Frames of one length: one that lies anywhere, or several in wire format.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// From the first byte of the first frame on.
    bytes: &'a [u8],
    pub len: usize,
    pub count: usize,
}

impl<'a> Row<'a> {
    #[inline]
    pub fn of(frame: &'a [u8]) -> Row<'a> {
        Row { bytes: frame, len: frame.len(), count: 1 }
    }

    /// The first `count` frames, and those behind them.
    #[inline]
    pub fn split(self, count: usize) -> (Row<'a>, Row<'a>) {
        let at = (count * (PREFIX + self.len)).min(self.bytes.len());
        let (front, behind) = self.bytes.split_at(at);
        let count = count.min(self.count);
        let row = |bytes, count| Row { bytes, count, ..self };
        (row(front, count), row(behind, self.count - count))
    }

    #[inline]
    pub fn frames(self) -> impl Iterator<Item = &'a [u8]> {
        let Row { bytes, len, count } = self;
        (0..count).filter_map(move |n| bytes.get(n * (PREFIX + len)..)?.get(..len))
    }
}

/// The whole frames that some bytes in wire format begin with, without runts.
#[derive(Clone)]
pub struct Rows<'a> {
    walk: Walk<'a>,
    left: usize,
}

impl<'a> Rows<'a> {
    /// Up to `most` of them.
    pub fn over(bytes: &'a [u8], most: usize) -> Rows<'a> {
        Rows { walk: Walk::over(bytes), left: most }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    #[inline]
    fn next(&mut self) -> Option<Row<'a>> {
        loop {
            let alike = self.walk.next_alike(self.left.min(TOGETHER))?;
            if alike.len >= frame::MIN {
                self.left -= alike.count;
                let bytes = alike.bytes.get(PREFIX..)?;
                return Some(Row { bytes, len: alike.len, count: alike.count });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of these lengths in wire format; of each the bytes are its number.
    fn wire(lengths: &[usize]) -> Vec<u8> {
        let frames = lengths.iter().zip(0..);
        frames.flat_map(|(&len, n)| [&frame::prefix(len)[..], &vec![n; len]].concat()).collect()
    }

    #[test]
    fn rows_have_all_frames_but_runts() {
        let lengths = [&[64; 70][..], &[13, 14, 14, 0, 1500], &[64; 3]].concat();
        let bytes = wire(&lengths);
        let rows: Vec<_> = Rows::over(&bytes, 1000).map(|row| (row.len, row.count)).collect();
        assert_eq!(rows, [(64, 64), (64, 6), (14, 2), (1500, 1), (64, 3)]);
        for most in 0..80 {
            let frames = Rows::over(&bytes, most).flat_map(Row::frames);
            let expected = Walk::over(&bytes).filter(|frame| frame.len() >= frame::MIN);
            assert!(frames.eq(expected.take(most)), "the first {most}");
        }
        let cut = Rows::over(&bytes[..bytes.len() - 1], 1000).map(|row| row.count).sum::<usize>();
        assert_eq!(cut, 75);
    }

    #[test]
    fn a_row_is_split_anywhere() {
        let bytes = wire(&[20; 5]);
        let row = Rows::over(&bytes, 5).next().unwrap();
        for count in 0..7 {
            let (front, behind) = row.split(count);
            assert_eq!((front.count, behind.count), (count.min(5), 5 - count.min(5)));
            assert!(front.frames().chain(behind.frames()).eq(row.frames()));
            assert_eq!(front.frames().count(), front.count);
        }
        assert!(Row::of(&[7; 30]).frames().eq([&[7; 30][..]]));
    }
}
