//! What a reader is handed: one frame copied, many lent, or many packed into its buffer.

use std::mem::MaybeUninit;

use crate::error::{Error, Result};
use crate::frame::{self, Alike, Front, PREFIX, Run};
use crate::net::socket::Socket;
use crate::rx::buffer::{Buffer, LARGE, Sizes};
use crate::rx::counts::RxCounts;
use crate::rx::{Loan, Rx};
use crate::sys::memory;

impl Rx {
    /// Copies the next frame to `buf`, if all of it is here. If `buf` is empty the frame stays. Returns
    /// its length.
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
            memory::write(room, frame);
            counts.probes.record_one(frame);
            counts.frame(len);
            self.use_up(PREFIX + len);
        }
        Ok(Some(len))
    }

    /// Fast path of [`Rx::front`], for a frame that is no runt. It cannot panic.
    #[inline(always)]
    pub fn front_at_hand(&self) -> Option<&[u8]> {
        let Buffer { memory, start, end, .. } = &self.buffer;
        let unread = memory.get(..*end)?.get(*start..)?;
        let (prefix, rest) = unread.split_first_chunk()?;
        // It may be longer than any frame: the caller has no room for that.
        let len = u32::from_be_bytes(*prefix) as usize;
        rest.get(..len).filter(|frame| frame.len() >= frame::MIN)
    }

    /// Lends up to `count` frames, reading on if fewer are here. Where there are fewer even so, and
    /// `settles` is set, they are moved to little memory first. Returns how many were lent, or `None`
    /// for none.
    pub fn lend_batch(
        &mut self,
        socket: &Socket,
        count: usize,
        settles: bool,
        lend: &mut impl FnMut(usize, &Alike<'_>),
        counts: &RxCounts,
    ) -> Option<usize> {
        // Without a whole frame there is nothing to lend yet, or never will be.
        self.front(counts)?;
        // Reading on and settling move what is here, and it is lent again from the start.
        let mut run = Run::over(self.unread(), count, &mut *lend);
        while run.frames < count && self.buffer.is_filled && self.fill_behind(socket, counts) {
            run = Run::over(self.unread(), count, &mut *lend);
        }
        if settles && run.frames < count && self.settle(Sizes::of(socket)) {
            run = Run::over(self.unread(), count, lend);
        }
        counts.probes.record_run(&self.unread()[..run.end]);
        self.use_up(run.end);
        self.loan = Loan::InBuffer;
        counts.run(&run);
        Some(run.frames)
    }

    /// Reads behind what is here already, if there is room. Returns whether it tried: what is here may
    /// have moved then, even if nothing came.
    fn fill_behind(&mut self, socket: &Socket, counts: &RxCounts) -> bool {
        let sizes = Sizes::of(socket);
        let has_room = self.unread().len() + frame::MAX + sizes.least <= sizes.large;
        let tries = has_room && self.found.is_none();
        if tries {
            self.fill(socket, counts);
        }
        tries
    }

    /// Puts whole frames in wire format into `buf`: as many as are here, or as one read gives. Returns
    /// how many bytes they have, or `None` for none.
    pub fn pack(
        &mut self,
        socket: &Socket,
        buf: &mut [MaybeUninit<u8>],
        counts: &RxCounts,
    ) -> Result<Option<usize>> {
        let used = if !socket.has_messages() && self.is_better_read_into(buf) {
            self.read_behind(socket, buf, counts).map_or(0, |bytes| self.sort(bytes, counts))
        } else {
            self.copy_packed(buf, counts)?
        };
        Ok((used > 0).then_some(used))
    }

    /// Whether reading straight into a caller's buffer saves a copy: no whole frame is here, and the
    /// buffer has room for much more than what is here.
    fn is_better_read_into(&self, buf: &[MaybeUninit<u8>]) -> bool {
        matches!(frame::front(self.unread()), Front::Part(_))
            && buf.len() >= self.unread().len() + LARGE / 4
    }

    /// Copies what is here to `buf`, which has room for more, and reads once behind it. Returns all of
    /// that; the caller must `keep` what it does not use. Returns `None` if nothing came: nothing has
    /// changed then, except that the end may have been found.
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
        memory::write(front, self.unread());
        let read = front.len() + self.note(socket.read(room), counts)?.bytes;
        // SAFETY: the front was copied, and the socket wrote that many bytes behind it.
        Some(unsafe { &mut *(std::ptr::from_mut(&mut buf[..read]) as *mut [u8]) })
    }

    /// Leaves whole frames without runts at the front of `bytes`, and keeps the rest. Returns how many
    /// bytes these frames have.
    fn sort(&mut self, bytes: &mut [u8], counts: &RxCounts) -> usize {
        let run = Run::over(bytes, usize::MAX, |_, _| {});
        counts.probes.record_run(&bytes[..run.end]);
        counts.run(&run);
        self.buffer.replace(&bytes[run.end..]);
        // This finds a length that no frame has.
        self.has_frame(counts);
        if run.runts > 0 { drop_runts(&mut bytes[..run.end]) } else { run.end }
    }

    /// Keeps the front of a frame, in place of what is here.
    pub fn keep(&mut self, rest: &[u8], counts: &RxCounts) {
        if rest.is_empty() {
            self.buffer = Buffer::default();
        } else {
            self.buffer.replace(rest);
        }
        // This finds a length that no frame has.
        self.has_frame(counts);
    }

    /// Copies whole frames to `buf`, as many as fit. Returns how many bytes they have.
    fn copy_packed(&mut self, buf: &mut [MaybeUninit<u8>], counts: &RxCounts) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = self.front(counts) {
            let (frame_len, len) = (frame.len(), PREFIX + frame.len());
            let Some(room) = buf.get_mut(used..used + len) else {
                if used == 0 {
                    return Err(too_small(buf.len(), len));
                }
                break;
            };
            memory::write(room, &self.unread()[..len]);
            counts.probes.record_one(&self.unread()[PREFIX..len]);
            counts.frame(frame_len);
            self.use_up(len);
            used += len;
        }
        Ok(used)
    }
}

/// Moves whole frames together, over the runts among them. Returns how many bytes they have.
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
    Error::FrameSize(format!("a buffer of {cap} bytes for {len}").into())
}
