//! Options and counters of sockets that rustix has no call for.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{self, Errno};
use rustix::ioctl::{Getter, Opcode, ioctl};

/// Returns how many of the bytes that were written have not been sent (Linux
/// `include/uapi/linux/sockios.h`).
const SIOCOUTQNSD: Opcode = 0x894b;

/// Turns what a call of the C library returned into a result, with `errno` for a negative number.
pub fn returned(n: c_int) -> io::Result<usize> {
    let errno = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    usize::try_from(n).map_err(|_| errno())
}

/// Sets a socket option whose value is an int.
pub fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set(fd, level, name, &value)
}

fn set<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let (value, len) = ((&raw const *value).cast::<c_void>(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the value lives during the call, which reads only as many bytes as it has.
    returned(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) }).map(|_| ())
}

/// Makes a socket drop every message that arrives, which the kernel counts; or accept messages
/// again.
pub fn take_nothing(fd: BorrowedFd<'_>, whether: bool) -> io::Result<()> {
    if !whether {
        return set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
    }
    // The filter's only instruction keeps 0 bytes of each message.
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// How many messages the kernel has dropped for a socket.
pub fn not_taken(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // `SK_MEMINFO_DROPS`, of linux/sock_diag.h.
    const DROPS: usize = 8;
    let mut counts = [0u32; DROPS + 1];
    let mut len = size_of_val(&counts) as libc::socklen_t;
    let (level, name, room) = (libc::SOL_SOCKET, libc::SO_MEMINFO, counts.as_mut_ptr());
    // SAFETY: `counts` has `len` bytes, and both live during the call.
    returned(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, room.cast(), &raw mut len) })?;
    Ok(counts[DROPS])
}

/// Who was at the other end of a socket when it was connected. Where the system does not know, the numbers
/// of user and group are the highest, which nobody has.
pub fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&cred) as libc::socklen_t;
    let (level, name, room) = (libc::SOL_SOCKET, libc::SO_PEERCRED, &raw mut cred);
    // SAFETY: `cred` has `len` bytes, and both live during the call.
    returned(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, room.cast(), &raw mut len) })?;
    Ok(cred)
}

/// How many of the bytes that were written to a TCP socket have not been sent; 0 for other sockets.
pub fn unsent(fd: BorrowedFd<'_>) -> usize {
    // SAFETY: the request has this number, and writes an int. Other sockets refuse it.
    let unsent = unsafe { ioctl(fd, Getter::<SIOCOUTQNSD, c_int>::new()) };
    unsent.map_or(0, |bytes| bytes as usize)
}
