//! What one read or write of a socket did.

use crate::frame::PREFIX;
use crate::sys::mmsg::Size;

/// Less than the kernel counts for any message against the buffer that holds it.
pub const MESSAGE: usize = 512;

/// What one read gave.
pub enum Read {
    Bytes(Got),
    /// Nothing now.
    Empty,
    /// The peer has left, or will send no more.
    End,
}

#[derive(Default, Clone, Copy)]
pub struct Got {
    pub bytes: usize,
    /// How many system calls it took.
    pub calls: u64,
    /// Whether there was no room for more.
    pub is_full: bool,
    /// How many messages there were from others than the remote.
    pub foreign: u64,
    /// How much was taken from what the socket holds, as `Socket::held` counts.
    pub taken: u64,
}

/// What one write did.
#[derive(Default, Clone, Copy)]
pub struct Written {
    /// How many bytes in wire format it took, those of lost frames among them.
    pub bytes: usize,
    /// How many system calls took something.
    pub calls: u64,
    pub lost: Lost,
    /// Whether a socket of datagrams had no room for the next one, which is lost if that lasts.
    pub is_full: bool,
    /// Whether it was the system that had no memory for it.
    pub is_short: bool,
}

/// Frames that were taken and that nobody will receive, and their bytes.
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
    /// Frames were sent.
    pub fn sent(&mut self, size: Size) {
        self.bytes += size.bytes + size.frames * PREFIX;
    }

    /// Frames were taken, and are lost.
    pub fn lost(&mut self, size: Size) {
        self.sent(size);
        self.lost.add(size.into());
    }
}
