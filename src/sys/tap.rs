//! What is asked of the kernel's TUN driver (Linux `Documentation/networking/tuntap.rst`).

use std::ffi::{c_char, c_int, c_short, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io;

use crate::sys::sockopt::returned;

/// Room for an interface's name and a NUL (`IFNAMSIZ`).
pub const NAME: usize = libc::IFNAMSIZ;

/// As `struct ifreq` begins; the kernel copies all of its 40 bytes.
#[repr(C)]
struct Request {
    name: [c_char; NAME],
    flags: c_short,
    rest: [u8; 22],
}

/// Makes a descriptor of the driver's that of the TAP with a name of less than `NAME` bytes, which is
/// made if it is not there. Returns the name that it has.
pub fn attach(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<String> {
    let mut request = Request::of(name);
    request.flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
    control(fd, libc::TUNSETIFF, &mut request)?;
    Ok(request.name())
}

/// The name of the interface that a descriptor is, and its `IFF_` flags.
pub fn interface(fd: BorrowedFd<'_>) -> io::Result<(String, c_int)> {
    let mut request = Request::of(b"");
    control(fd, libc::TUNGETIFF, &mut request)?;
    Ok((request.name(), request.flags.into()))
}

/// Has the kernel do itself what another user of the interface had it leave to its reader: checksums,
/// and cutting what is too long.
pub fn offload_nothing(fd: BorrowedFd<'_>) {
    // SAFETY: the call has a number, and no pointer. It fails where nothing was left to the reader.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0 as c_ulong) };
}

impl Request {
    fn of(name: &[u8]) -> Request {
        let mut request = Request { name: [0; NAME], flags: 0, rest: [0; 22] };
        request.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from as c_char);
        request
    }

    fn name(&self) -> String {
        let bytes: Vec<u8> = self.name.iter().map(|&c| c as u8).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn control(fd: BorrowedFd<'_>, call: c_ulong, request: &mut Request) -> io::Result<()> {
    // SAFETY: both calls read and write an ifreq, and nothing else.
    returned(unsafe { libc::ioctl(fd.as_raw_fd(), call as _, request) }).map(|_| ())
}
