//! Descriptors that the library opens.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::Result;

/// Keeps what was opened away from 0 to 2: a host that has closed those, as daemons do, would print
/// its messages into a network, or read a wake-up away.
pub fn above_standard(opened: rustix::io::Result<OwnedFd>) -> Result<OwnedFd> {
    let fd = opened?;
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)?)
}
