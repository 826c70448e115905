//! A TAP interface: each read or write moves one frame.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::frame::{self, PREFIX};
use crate::net::io::{Got, MESSAGE, Read};
use crate::sys::descriptor::{above_standard, blocks, is_ready};
use crate::sys::memory;
use crate::sys::mmsg::MESSAGES;
use crate::sys::tap::{NAME, attach, interface, offload_nothing};

pub struct Tap {
    pub name: String,
    /// Whether reads may block: the O_NONBLOCK of an adopted descriptor is left alone.
    is_blocking: bool,
}

impl Tap {
    /// Opens an interface, or makes one that goes away with the descriptor. Without a name the system
    /// chooses one.
    pub fn open(name: &[u8]) -> Result<(OwnedFd, Tap)> {
        if name.len() >= NAME || name.contains(&b'/') {
            let malformed = "malformed interface name (it has at most 15 bytes, and no '/')";
            return Err(Error::invalid(malformed));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = above_standard(rustix::fs::open(c"/dev/net/tun", flags, Mode::empty())?)?;
        let name = attach(fd.as_fd(), name).map_err(|errno| match errno {
            Errno::INVAL => {
                Error::invalid("not a valid interface name, or that of an interface that is no TAP")
            }
            errno => errno.into(),
        })?;
        offload_nothing(fd.as_fd());
        Ok((fd, Tap { name, is_blocking: false }))
    }

    /// The interface of the caller's descriptor.
    pub fn adopted(fd: BorrowedFd<'_>) -> Result<Tap> {
        let (name, flags) = interface(fd).map_err(|errno| match errno {
            Errno::INTR => Error::Interrupted,
            _ => Error::invalid("the descriptor is neither a socket nor an open TAP"),
        })?;
        let has = |flag: c_int| flags & flag != 0;
        if !has(libc::IFF_TAP) {
            return Err(Error::Unsupported("the descriptor is a TUN, which carries no Ethernet"));
        }
        if has(libc::IFF_VNET_HDR) {
            return Err(Error::Unsupported(
                "the TAP has a header before each frame (IFF_VNET_HDR)",
            ));
        }
        Ok(Tap { name, is_blocking: blocks(fd)? })
    }

    /// Reads one frame after another, each straight to its place in wire format.
    pub fn read(&self, fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        let mut got = Got { is_full: true, ..Got::default() };
        while got.calls < MESSAGES as u64 {
            let Some(slot) = room.get_mut(got.bytes..got.bytes + PREFIX + frame::MAX) else {
                break;
            };
            let (prefix, slot) = slot.split_at_mut(PREFIX);
            let read = match !self.is_blocking || is_ready(fd, PollFlags::IN)? {
                true => rustix::io::read(fd, slot).map(|(read, _)| read.len()),
                false => Err(Errno::AGAIN),
            };
            let len = match read {
                Ok(len) => len,
                // The frames that were read are delivered first; the next read fails again.
                Err(errno) if errno == Errno::AGAIN || errno == Errno::INTR || got.calls > 0 => {
                    got.is_full = false;
                    break;
                }
                Err(errno) => return Err(Error::Os(errno)),
            };
            memory::write(prefix, &frame::prefix(len));
            got.bytes += PREFIX + len;
            got.taken += len.max(MESSAGE) as u64;
            got.calls += 1;
        }
        Ok(if got.calls > 0 { Read::Bytes(got) } else { Read::Empty })
    }
}
