//! What is set on a socket and asked of it that rustix has no call for.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{self, Errno};
use rustix::ioctl::{Getter, Opcode, ioctl};

/// Asks how much of what was written was not sent yet (Linux `include/uapi/linux/sockios.h`).
const SIOCOUTQNSD: Opcode = 0x894b;

/// What a system call of the C library has returned.
pub fn returned(n: c_int) -> io::Result<usize> {
    let errno = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    usize::try_from(n).map_err(|_| errno())
}

/// Sets an option of a socket that has an int.
pub fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set(fd, level, name, &value)
}

fn set<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let (value, len) = ((&raw const *value).cast::<c_void>(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the value lives for the call, which reads no more than its size.
    returned(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) }).map(|_| ())
}

/// Has a socket take no message, which the kernel then counts; or take them again.
pub fn take_nothing(fd: BorrowedFd<'_>, whether: bool) -> io::Result<()> {
    if !whether {
        return set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
    }
    // Of each message, keep 0 bytes.
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// How many messages a socket did not take.
pub fn not_taken(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // `SK_MEMINFO_DROPS`, of linux/sock_diag.h.
    const DROPS: usize = 8;
    let mut counts = [0u32; DROPS + 1];
    let mut len = size_of_val(&counts) as libc::socklen_t;
    let (level, name, room) = (libc::SOL_SOCKET, libc::SO_MEMINFO, counts.as_mut_ptr());
    // SAFETY: there is room for as many bytes as is told.
    returned(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, room.cast(), &raw mut len) })?;
    Ok(counts[DROPS])
}

/// How many bytes of what was written to a TCP socket the system has not sent yet; of others none.
pub fn unsent(fd: BorrowedFd<'_>) -> usize {
    // SAFETY: the call has that number, and writes an int. Other sockets do not know it.
    let unsent = unsafe { ioctl(fd, Getter::<SIOCOUTQNSD, c_int>::new()) };
    unsent.map_or(0, |bytes| bytes as usize)
}
