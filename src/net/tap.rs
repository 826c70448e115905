//! TAP interfaces: the kernel's own network, one frame a read or write (Linux
//! `Documentation/networking/tuntap.rst`).

use std::ffi::{c_char, c_int, c_short, c_ulong};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::conn::{Conn, open};
use crate::error::{Error, Result};
use crate::net::messages::{Messages, Tap};
use crate::net::socket::Socket;
use crate::options::Options;
use crate::runtime::handle::Ref;
use crate::sys::descriptor::above_standard;

/// Room for an interface's name and a NUL (`IFNAMSIZ`).
const NAME: usize = libc::IFNAMSIZ;

/// As `struct ifreq` begins; the kernel copies all of its 40 bytes.
#[repr(C)]
struct Request {
    name: [c_char; NAME],
    flags: c_short,
    rest: [u8; 22],
}

/// Opens an interface, or makes one that is gone with the connection. Without a name the system gives
/// it one.
pub fn open(name: &[u8]) -> Result<Ref<Conn>> {
    let mut request = Request::of(name)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = above_standard(rustix::fs::open(c"/dev/net/tun", flags, Mode::empty())?)?;
    request.flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
    control(fd.as_fd(), libc::TUNSETIFF, &mut request).map_err(|error| match error {
        Error::Os(Errno::INVAL) => Error::invalid("no name of an interface, or not of a TAP"),
        error => error,
    })?;
    do_all_of_it(fd.as_fd());
    let messages = Messages::Tap(Tap::new(request.name()));
    open::open(Socket::of(fd, messages.into()), Options::default(), None)
}

/// The name of the TAP that a descriptor is, if it is one.
pub fn name_of(fd: BorrowedFd<'_>) -> Result<String> {
    let mut request = Request::of(b"")?;
    control(fd, libc::TUNGETIFF, &mut request).map_err(|error| match error {
        Error::Os(_) => Error::invalid("the descriptor is neither a socket nor an open TAP"),
        error => error,
    })?;
    let flags = c_int::from(request.flags);
    if flags & libc::IFF_TAP == 0 {
        return Err(Error::Unsupported("the descriptor is a TUN, which carries no Ethernet"));
    }
    if flags & libc::IFF_VNET_HDR != 0 {
        return Err(Error::Unsupported("the TAP has a header before each frame (IFF_VNET_HDR)"));
    }
    Ok(request.name())
}

/// Has the kernel do itself what another user of the interface had it leave to its reader: checksums,
/// and cutting what is too long.
fn do_all_of_it(fd: BorrowedFd<'_>) {
    // SAFETY: the call has a number, and no pointer. It fails for what was not left.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0 as c_ulong) };
}

impl Request {
    fn of(name: &[u8]) -> Result<Request> {
        if name.len() >= NAME || name.contains(&b'/') {
            return Err(Error::invalid(
                "malformed name (an interface's has up to 15 bytes, no '/')",
            ));
        }
        let mut request = Request { name: [0; NAME], flags: 0, rest: [0; 22] };
        request.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from as c_char);
        Ok(request)
    }

    fn name(&self) -> String {
        let bytes: Vec<u8> = self.name.iter().map(|&c| c as u8).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn control(fd: BorrowedFd<'_>, call: c_ulong, request: &mut Request) -> Result<()> {
    // SAFETY: both calls read and write an ifreq, and nothing else.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), call as _, request) };
    match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(errno) if done < 0 => Err(errno.into()),
        _ => Ok(()),
    }
}
