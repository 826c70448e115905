//! Writes frames, each as a message.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use crate::frame::Walk;
use crate::net::io::Written;
use crate::net::messages::{Messages, TRIES};
use crate::sys::mmsg::{MESSAGES, Outbox, Size};

/// How many messages one call sends to a Unix socket, whose queue usually holds 10 at most
/// (`net.unix.max_dgram_qlen`).
const UNIX_MESSAGES: usize = 16;

/// Sends the frames of `pieces`, which are frames in wire format, or a prefix and its frame. Frames
/// that there is no room for are not taken; if the writer `gives_up` they are lost.
pub fn write(
    messages: &Messages,
    fd: BorrowedFd<'_>,
    pieces: &[IoSlice<'_>],
    gives_up: bool,
) -> rustix::io::Result<Written> {
    match pieces {
        [bytes] => send(messages, fd, Walk::over(bytes), gives_up),
        [_prefix, frame] => send(messages, fd, std::iter::once(&**frame), gives_up),
        _ => Err(Errno::INVAL),
    }
}

/// Sends `frames`, which lie anywhere in memory, as `write` does.
pub fn send<'a>(
    messages: &Messages,
    fd: BorrowedFd<'_>,
    mut frames: impl Iterator<Item = &'a [u8]> + Clone,
    gives_up: bool,
) -> rustix::io::Result<Written> {
    let mut written = Written::default();
    let mut outbox = Outbox::new();
    let mut tries = 0;
    loop {
        let before = frames.clone();
        let (most, segment_max) = limits(messages);
        outbox.fill(&mut frames, most, segment_max);
        if outbox.is_empty() {
            return Ok(written);
        }
        while !outbox.is_empty() {
            let failed = match transmit(messages, fd, &outbox) {
                Ok(sent) => {
                    written.calls += 1;
                    written.sent(outbox.take(sent));
                    tries = 0;
                    continue;
                }
                Err(errno) => errno,
            };
            tries += 1;
            match judge(messages, failed, &outbox, tries) {
                Verdict::Full => {
                    written.is_full = !messages.ends();
                    written.is_short = failed != Errno::AGAIN;
                    // A socket that has just taken something is worth waiting for.
                    let is_hopeless = gives_up && written.calls == 0;
                    return Ok(if is_hopeless {
                        lose_all(written, outbox, frames)
                    } else {
                        written
                    });
                }
                Verdict::Again => {}
                Verdict::OneLost => written.lost(outbox.take(1)),
                Verdict::AllLost => return Ok(lose_all(written, outbox, frames)),
                // The frames that were sent are counted first; the next write fails again.
                Verdict::Ended if written.bytes > 0 => return Ok(written),
                Verdict::Ended => return Err(failed),
                Verdict::Unsegmented => {
                    frames = before.clone();
                    (0..outbox.done).for_each(|_| _ = frames.next());
                    outbox.take(outbox.len());
                }
            }
        }
    }
}

/// How many messages one call sends, and up to which length frames share a message that the kernel cuts.
fn limits(messages: &Messages) -> (usize, usize) {
    match messages {
        Messages::Paired | Messages::Sequenced | Messages::Unix(_) => (UNIX_MESSAGES, 0),
        Messages::Udp(udp) => (MESSAGES, udp.segment_max.load(Ordering::Relaxed)),
        _ => (MESSAGES, 0),
    }
}

/// Counts the frames that are left as lost.
fn lose_all<'a>(
    mut written: Written,
    mut outbox: Outbox<'_>,
    frames: impl Iterator<Item = &'a [u8]>,
) -> Written {
    written.lost(outbox.take(outbox.len()));
    frames.for_each(|frame| written.lost(Size { frames: 1, bytes: frame.len() }));
    written
}

/// Sends messages from the front of the outbox. Returns how many.
fn transmit(
    messages: &Messages,
    fd: BorrowedFd<'_>,
    outbox: &Outbox<'_>,
) -> rustix::io::Result<usize> {
    match messages {
        Messages::Tap(_) => rustix::io::write(fd, outbox.front()).map(|_| 1),
        Messages::Multicast(group) => outbox.send(group.out.as_fd(), &[]),
        Messages::Unix(unix) => unix.send(fd, outbox),
        Messages::Udp(udp) => udp.send(fd, outbox),
        _ => outbox.send(fd, &[]),
    }
}

/// What to do about the messages that are left after an error.
fn judge(messages: &Messages, errno: Errno, outbox: &Outbox<'_>, tries: u32) -> Verdict {
    match (messages, errno) {
        (Messages::Unix(unix), Errno::AGAIN) => {
            unix.watch_room();
            Verdict::Full
        }
        (_, Errno::AGAIN) => Verdict::Full,
        (_, Errno::INTR) => Verdict::Again,
        // Nobody has sent yet who could be the remote.
        (_, Errno::DESTADDRREQ) => Verdict::AllLost,
        // Another socket may have the remote's name now.
        (Messages::Unix(unix), _) if unix.is_direct() => {
            unix.set_direct(false);
            Verdict::Again
        }
        (Messages::Udp(udp), Errno::INVAL | Errno::MSGSIZE | Errno::IO | Errno::OPNOTSUPP)
            if outbox.sizes().next().is_some_and(|size| size.frames > 1) =>
        {
            udp.segment_max.store(outbox.front().len() - 1, Ordering::Relaxed);
            Verdict::Unsegmented
        }
        (_, Errno::MSGSIZE | Errno::INVAL) => Verdict::OneLost,
        (Messages::Sequenced, _) => Verdict::Ended,
        // The system is short of memory, and nothing was taken.
        (_, Errno::NOBUFS | Errno::NOMEM) => Verdict::Full,
        // The error is that of an earlier message.
        (Messages::Udp(_), _) if tries < TRIES => Verdict::Again,
        // The interface was removed. One that is only down gives EIO.
        (Messages::Tap(_), Errno::BADFD | Errno::BADF | Errno::NODEV) => Verdict::Ended,
        _ => Verdict::AllLost,
    }
}

/// What to do after an error.
enum Verdict {
    /// Wait for room, or for memory.
    Full,
    Again,
    /// Send the same frames again, each as a message of its own.
    Unsegmented,
    OneLost,
    /// The remote is not there, or cannot be reached.
    AllLost,
    Ended,
}
