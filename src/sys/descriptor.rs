//! Descriptors: those that the library opens for itself, and what is done with any.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Result;

/// Keeps what was opened away from 0 to 2: a host that has closed those, as daemons do, would print
/// its messages into a network, or read a wake-up away.
pub fn above_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)?)
}

/// What is readable while it is raised.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> Result<Event> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Event(above_standard(fd)?))
    }

    /// Returns whether it was raised: it is not only where it is raised beyond measure.
    pub fn raise(&self) -> bool {
        retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())).is_ok()
    }

    /// Returns whether it was raised until now.
    pub fn lower(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether one of `events`, or an error, is there now.
pub fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&now))? > 0)
}

pub fn set_close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// Whether reads and writes of it wait.
pub fn blocks(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Changes a file's mode as fchmod(2) does, which refuses descriptors that only stand for a file.
pub fn change_mode(file: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    let (fd, empty) = (file.as_raw_fd(), c"".as_ptr());
    // SAFETY: the descriptor is open and the string ends with NUL; nothing else is read.
    let done = unsafe { libc::syscall(libc::SYS_fchmodat2, fd, empty, mode, libc::AT_EMPTY_PATH) };
    match done {
        0 => Ok(()),
        // A kernel before 6.6, or a sandbox that knows no newer one.
        _ => rustix::fs::chmod(format!("/proc/self/fd/{fd}"), Mode::from_raw_mode(mode)),
    }
}

/// Random bytes, for names and hardware addresses.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // getrandom(2) gives up to 256 bytes whole, once the system has started.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    bytes
}
