//! Reads messages into wire format.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::net::io::{Got, MESSAGE, Read};
use crate::net::messages::remote::Remote;
use crate::net::messages::{Messages, TRIES};
use crate::sys::descriptor::is_ready;
use crate::sys::mmsg::{Inbox, Message, Wants};

/// What vfkit sends before its first frame, to introduce itself.
const VFKIT: &[u8] = b"VFKT";

/// Reads the messages that are there, as many as `room` has slots for, into wire format.
pub fn read(messages: &Messages, fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
    if let Messages::Tap(tap) = messages {
        return tap.read(fd, room);
    }
    let mut inbox = Inbox::over(room);
    let Some(count) = receive(messages, fd, &mut inbox)? else {
        return Ok(Read::Empty);
    };
    let mut got = Got { calls: 1, ..Got::default() };
    let mut hearing = messages.remote().map(Remote::hearing);
    for at in 0..count {
        let message = inbox.message(at);
        got.taken += message.bytes.len().max(MESSAGE) as u64;
        let is_last = || (at..count).all(|at| inbox.message(at).bytes.is_empty());
        if message.bytes.is_empty() && messages.ends() && is_last() && has_ended(fd) {
            return Ok(if got.bytes == 0 { Read::End } else { Read::Bytes(got) });
        }
        if hearing.as_mut().is_some_and(|hearing| !hearing.admits(message.sender)) {
            got.foreign += message.frames() as u64;
        } else if is_for_us(messages, &message) {
            got.bytes = inbox.unpack(at, got.bytes);
        }
    }
    got.is_full = count == inbox.slots() && got.bytes > 0;
    Ok(Read::Bytes(got))
}

/// Fills the inbox. Returns the number of messages, or `None` if there are none now.
fn receive(
    messages: &Messages,
    fd: BorrowedFd<'_>,
    inbox: &mut Inbox<'_>,
) -> Result<Option<usize>> {
    let wants = Wants {
        names: messages.remote().is_some() || matches!(messages, Messages::Multicast(_)),
        segments: matches!(messages, Messages::Udp(_)),
    };
    let mut tries = 0;
    loop {
        match inbox.receive(fd, wants) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            // The messages that wait are behind the error.
            Err(errno) if tries < TRIES && survives(messages, fd, errno) => tries += 1,
            Err(errno) if messages.ends() => return Err(Error::Os(errno)),
            Err(_) => return Ok(None),
        }
    }
}

/// Whether to read again after an error: on datagrams it concerns some that were sent, and a reset
/// says that the peer left without reading all frames.
fn survives(messages: &Messages, fd: BorrowedFd<'_>, errno: Errno) -> bool {
    // This counts the refused frames on UDP.
    let _ = messages.refused(fd);
    !messages.ends() || errno == Errno::CONNRESET
}

/// Whether a message is to be delivered.
fn is_for_us(messages: &Messages, message: &Message<'_>) -> bool {
    match messages {
        Messages::Multicast(group) => !group.is_own(message.sender),
        Messages::Unix(_) | Messages::Paired => message.bytes != VFKIT,
        _ => true,
    }
}

/// Whether an empty message is the end: the peer has left, and no message with bytes waits.
pub fn has_ended(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::RDHUP) == Ok(true) && rustix::io::ioctl_fionread(fd) == Ok(0)
}
