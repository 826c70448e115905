//! Requests to the kernel's TUN driver (Linux `Documentation/networking/tuntap.rst`).

use std::ffi::{c_char, c_int, c_short, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io;

use crate::sys::sockopt::returned;

/// The size of an interface's name with its NUL (`IFNAMSIZ`).
pub const NAME: usize = libc::IFNAMSIZ;

/// The front of `struct ifreq`, padded to its 40 bytes, all of which the kernel copies.
#[repr(C)]
struct Request {
    name: [c_char; NAME],
    flags: c_short,
    rest: [u8; 22],
}

/// Attaches a descriptor of `/dev/net/tun` to the TAP of this name, which has less than [`NAME`]
/// bytes; a TAP that does not exist is created. Returns the name that the TAP has.
pub fn attach(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<String> {
    let mut request = Request::of(name);
    request.flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
    control(fd, libc::TUNSETIFF, &mut request)?;
    Ok(request.name())
}

/// The name and the `IFF_` flags of the interface that a descriptor is attached to.
pub fn interface(fd: BorrowedFd<'_>) -> io::Result<(String, c_int)> {
    let mut request = Request::of(b"");
    control(fd, libc::TUNGETIFF, &mut request)?;
    Ok((request.name(), request.flags.into()))
}

/// Has the kernel compute checksums and split long packets itself, which a previous user of the
/// interface may have offloaded to its reader.
pub fn offload_nothing(fd: BorrowedFd<'_>) {
    // SAFETY: the argument is a number, not a pointer. Failing means that nothing was offloaded.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0 as c_ulong) };
}

/// Shows the system a carrier of the interface, or none.
pub fn set_carrier(fd: BorrowedFd<'_>, has_carrier: bool) {
    let carrier = c_int::from(has_carrier);
    // SAFETY: the call reads an int. It fails on kernels older than 5.0 alone, where the interface keeps
    // its carrier.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETCARRIER as _, &raw const carrier) };
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
    // SAFETY: both requests read and write a `struct ifreq`, and nothing else.
    returned(unsafe { libc::ioctl(fd.as_raw_fd(), call as _, request) }).map(|_| ())
}
