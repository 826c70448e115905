//! The outcomes of reading and writing a socket once.

use crate::frame::PREFIX;
use crate::sys::mmsg::Size;

/// Less than the kernel charges for any message against the buffer that holds it.
pub const MESSAGE: usize = 512;

/// The outcome of one read.
pub enum Read {
    Bytes(Got),
    /// There is nothing now.
    Empty,
    /// The peer has left, or will send no more.
    End,
}

#[derive(Default, Clone, Copy)]
pub struct Got {
    pub bytes: usize,
    /// The number of system calls made.
    pub calls: u64,
    /// Whether the room was used up, so that there may be more.
    pub is_full: bool,
    /// The number of frames from others than the remote, which are not among the bytes.
    pub foreign: u64,
    /// How much less the socket holds now, as `Socket::held` counts.
    pub taken: u64,
}

/// The outcome of one write.
#[derive(Default, Clone, Copy)]
pub struct Written {
    /// The number of bytes taken, in wire format, including those of lost frames.
    pub bytes: usize,
    /// How many frames these are, where each is a message.
    pub frames: usize,
    /// The number of system calls that took something.
    pub calls: u64,
    pub lost: Lost,
    /// Whether a datagram socket had no room for the next frame, which is lost if that lasts.
    pub is_full: bool,
    /// Whether there was no room because the system was short of memory.
    pub is_short: bool,
}

/// Frames that were taken but that nobody will receive, and their bytes.
#[derive(Default, Clone, Copy)]
pub struct Lost {
    pub frames: u64,
    pub bytes: u64,
}

impl Lost {
    pub fn add(&mut self, other: Lost) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

impl From<Size> for Lost {
    fn from(size: Size) -> Lost {
        Lost { frames: size.frames as u64, bytes: size.bytes as u64 }
    }
}

impl Written {
    /// Counts frames that were sent.
    pub fn sent(&mut self, size: Size) {
        self.frames += size.frames;
        self.bytes += size.bytes + size.frames * PREFIX;
    }

    /// Counts frames that were taken, and are lost.
    pub fn lost(&mut self, size: Size) {
        self.sent(size);
        self.lost.add(size.into());
    }
}
