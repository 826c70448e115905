//! Frames taken many at a time: lent, or put into a caller's buffer.

use std::mem::MaybeUninit;

use crate::error::{Error, Result};
use crate::frame::{self, Front, PREFIX, Run};
use crate::net::io::Read;
use crate::net::socket::Socket;
use crate::rx::buffer::{Buffer, LARGE, Sizes};
use crate::rx::counts::RxCounts;
use crate::rx::{Found, Rx};

impl Rx {
    /// Copies the next frame to `buf`, if it is here whole. With an empty one it stays. Returns its
    /// length.
    pub fn copy_one(
        &mut self,
        buf: &mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> Result<Option<usize>> {
        let cap = buf.len();
        let Some(frame) = self.front(counts) else {
            return Ok(None);
        };
        let len = frame.len();
        if cap > 0 {
            let room = buf.get_mut(..len).ok_or_else(|| too_small(cap, len))?;
            room.write_copy_of_slice(frame);
            self.consume(len, counts);
        }
        Ok(Some(len))
    }

    /// Lends up to `count` frames, reading on where fewer are here. Returns how many, or `None` for
    /// none.
    pub fn lend_batch(
        &mut self,
        socket: &Socket,
        count: usize,
        settles: bool,
        lend: &mut impl FnMut(usize, &[u8]),
        counts: &RxCounts,
    ) -> Option<usize> {
        // Nothing is whole yet, or nothing ever will be.
        self.front(counts)?;
        loop {
            let mut run = self.lend(count, lend);
            // Reading on moves what is here, and it is lent again from the start.
            if run.frames == count || !self.buffer.filled || !self.fill_behind(socket, counts) {
                if settles && run.frames < count && self.settle(Sizes::of(socket)) {
                    run = self.lend(count, lend);
                }
                self.take_lent(&run, counts);
                return (run.frames > 0).then_some(run.frames);
            }
        }
    }

    /// Puts whole frames in wire format into `buf`, as many as are here or one read gives. Returns
    /// their bytes, or `None` for none.
    pub fn pack(
        &mut self,
        socket: &Socket,
        buf: &mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> Result<Option<usize>> {
        let used = match !socket.has_messages() && self.room_to_read(buf) {
            true => self.read_packed(socket, buf, counts),
            false => self.copy_packed(buf, counts)?,
        };
        Ok((used > 0).then_some(used))
    }

    /// Lends the frames at the front.
    fn lend(&mut self, count: usize, lend: &mut impl FnMut(usize, &[u8])) -> Run {
        Run::over(self.buffer.unread(), count, lend)
    }

    fn take_lent(&mut self, run: &Run, counts: &RxCounts) {
        self.buffer.start += run.end;
        self.lent = run.frames > 0;
        counts.run(run);
    }

    /// Whether a caller's buffer is the place to read into: no frame is here whole, and it has room
    /// for more than what is here.
    fn room_to_read(&self, buf: &[MaybeUninit<u8>]) -> bool {
        matches!(frame::front(self.unread()), Front::Part(_))
            && buf.len() >= self.unread().len() + LARGE / 4
    }

    /// Reads into the caller's buffer, behind what is here, and keeps what is not whole. Returns the
    /// bytes of whole frames.
    fn read_packed(
        &mut self,
        socket: &Socket,
        buf: &mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> usize {
        self.read_behind(socket, buf, counts).map_or(0, |bytes| self.sort_packed(bytes, counts))
    }

    /// Copies what is here to `buf`, which has room for more, and reads once behind it. Returns all of
    /// that, of which the caller is to `keep` what it does not use; `None` where nothing came, and
    /// nothing has changed but for an end.
    pub fn read_behind<'b>(
        &mut self,
        socket: &Socket,
        buf: &'b mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> Option<&'b mut [u8]> {
        if self.found.is_some() {
            return None;
        }
        let (front, room) = buf.split_at_mut(self.unread().len());
        front.write_copy_of_slice(self.unread());
        match socket.read(room) {
            Ok(Read::Empty) => return None,
            Ok(Read::End) => self.found = Some(Found::End),
            Err(error) => self.found = Some(Found::Failed(error)),
            Ok(Read::Bytes(got)) => {
                self.has_read(&got, counts);
                let read = front.len() + got.bytes;
                // SAFETY: the front was copied, and the socket wrote as many bytes behind it.
                return Some(unsafe { buf[..read].assume_init_mut() });
            }
        }
        None
    }

    /// Keeps the front of a frame.
    pub fn keep(&mut self, rest: &[u8], counts: &RxCounts) {
        if rest.is_empty() {
            self.buffer = Buffer::default();
        } else {
            self.buffer.replace(rest);
        }
        // A length that no frame has is found here.
        self.has_frame(counts);
    }

    /// Uses up the first `n` bytes of what is unread.
    pub fn use_up(&mut self, n: usize) {
        self.buffer.start += n;
    }

    /// Leaves whole frames without runts in `bytes`, and keeps the rest.
    fn sort_packed(&mut self, bytes: &mut [u8], counts: &RxCounts) -> usize {
        let run = Run::over(bytes, usize::MAX, |_, _| {});
        self.buffer.replace(&bytes[run.end..]);
        counts.run(&run);
        // A length that no frame has is found here.
        self.has_frame(counts);
        if run.runts > 0 { drop_runts(&mut bytes[..run.end]) } else { run.end }
    }

    /// Copies whole frames, as many as fit.
    fn copy_packed(&mut self, buf: &mut [MaybeUninit<u8>], counts: &RxCounts) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = self.front(counts) {
            let len = frame.len();
            let Some(room) = buf.get_mut(used..used + PREFIX + len) else {
                if used == 0 {
                    return Err(too_small(buf.len(), PREFIX + len));
                }
                break;
            };
            room.write_copy_of_slice(&self.unread()[..PREFIX + len]);
            self.consume(len, counts);
            used += PREFIX + len;
        }
        Ok(used)
    }

    /// Reads behind what is here already, if there is room. Returns whether it tried: what is here may
    /// lie elsewhere then, though nothing came.
    fn fill_behind(&mut self, socket: &Socket, counts: &RxCounts) -> bool {
        let sizes = Sizes::of(socket);
        let has_room = self.unread().len() + frame::MAX + sizes.least <= sizes.large;
        let tries = has_room && self.found.is_none();
        if tries {
            self.fill(socket, counts);
        }
        tries
    }
}

/// Moves whole frames together where runts were among them. Returns their bytes.
fn drop_runts(bytes: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Front::Whole(frame) = frame::front(&bytes[from..]) {
        let end = from + PREFIX + frame.len();
        if frame.len() >= frame::MIN {
            bytes.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
    }
    to
}

fn too_small(cap: usize, len: usize) -> Error {
    Error::FrameSize(format!("a buffer of {cap} bytes for {len}"))
}
