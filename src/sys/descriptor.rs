//! Descriptors: those that the library opens for itself, and calls that work on any descriptor.

use std::ffi::c_long;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Result;

/// Moves a descriptor above those of the standard streams (0 to 2). If the host has closed them, as
/// daemons do, it would otherwise print its messages into a network, or read what is meant to wake
/// a thread.
pub fn above_standard(fd: OwnedFd) -> rustix::io::Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)
}

/// An event descriptor, which is readable while the event is raised.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> Result<Event> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Event(above_standard(fd)?))
    }

    /// Raises the event. Returns whether that worked: it fails only if the counter is full.
    pub fn raise(&self) -> bool {
        retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())).is_ok()
    }

    /// Lowers the event, if it is raised.
    pub fn lower(&self) {
        // It fails only where the event is not raised.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether one of `events`, an error or a hang-up is pending. Does not wait.
pub fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool> {
    let (mut fds, now) = ([PollFd::from_borrowed_fd(fd, events)], Timespec::default());
    // A signal interrupts even a poll that does not wait.
    Ok(retry_on_intr(|| poll(&mut fds, Some(&now)))? > 0)
}

pub fn set_close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// Whether reads and writes of the descriptor may block.
pub fn blocks(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// The number of fchmodat2(2), which the libc crate knows for some architectures only. Calls as young as this
/// have the same number on all that Rust knows but MIPS and x32, where nothing has that one, and the call fails.
const FCHMODAT2: c_long = 452;

/// Changes the mode of a file whose descriptor was opened with O_PATH, which fchmod(2) refuses.
pub fn change_mode(file: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    let (fd, empty) = (file.as_raw_fd(), c"".as_ptr());
    // SAFETY: the descriptor is open and the string ends with NUL; the call reads nothing else.
    let done = unsafe { libc::syscall(FCHMODAT2, fd, empty, mode, libc::AT_EMPTY_PATH) };
    match done {
        0 => Ok(()),
        // The kernel is older than 6.6, or a sandbox refuses calls that it does not know.
        _ => rustix::fs::chmod(format!("/proc/self/fd/{fd}"), Mode::from_raw_mode(mode)),
    }
}

/// Random bytes, for names and hardware addresses.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Once the system has started, getrandom(2) does not fail for up to 256 bytes.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    bytes
}
