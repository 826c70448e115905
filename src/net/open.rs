//! Opens sockets, tunes them for frames, and tells what kind they are. All are closed on `exec`.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::options::Buffers;
use crate::sys::descriptor::above_standard;

/// The send buffer of a Unix socket. The kernel charges at least 768 bytes for each write, so the
/// default buffer holds too few small frames.
const UNIX_SNDBUF: usize = 1 << 20;

/// The buffers of a UDP socket. A datagram that finds the receiver's buffer full is lost.
const UDP_BUFFER: usize = 4 << 20;

pub const CLOEXEC: SocketFlags = SocketFlags::CLOEXEC;

pub fn open(family: AddressFamily, kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    Ok(above_standard(rustix::net::socket_with(family, kind, CLOEXEC | flags, None)?)?)
}

pub fn datagram_socket(family: AddressFamily) -> Result<OwnedFd> {
    open(family, SocketType::DGRAM, SocketFlags::empty())
}

pub fn nonblocking_socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd> {
    open(family, kind, SocketFlags::NONBLOCK)
}

/// A pair of connected stream sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, CLOEXEC, None)?;
    Ok((above_standard(a)?, above_standard(b)?))
}

pub fn family_of(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// The type of the caller's descriptor; the error is `ENOTSOCK` if it is no socket.
pub fn type_of(fd: BorrowedFd<'_>) -> Result<SocketType> {
    match sockopt::socket_type(fd) {
        Err(Errno::BADF) => Err(Error::invalid("the descriptor is not open")),
        kind => Ok(kind?),
    }
}

pub fn is_unix(fd: impl AsFd) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
}

/// Tunes a socket for frames: large buffers, and no Nagle delay (which QEMU turns off on its own side
/// only as a client). Failures are ignored: the connection works without, and an adopted socket may be
/// of any family.
pub fn tune(fd: &OwnedFd) {
    if is_unix(fd) {
        enlarge_send_buffer(fd, UNIX_SNDBUF);
    } else if sockopt::socket_type(fd) == Ok(SocketType::DGRAM) {
        enlarge_send_buffer(fd, UDP_BUFFER);
        let _ = sockopt::set_socket_recv_buffer_size_force(fd, UDP_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, UDP_BUFFER));
    } else {
        let _ = sockopt::set_tcp_nodelay(fd, true);
    }
}

/// Sets the size, beyond the system's limit if this process has the privilege.
fn enlarge_send_buffer(fd: &OwnedFd, bytes: usize) {
    let _ = sockopt::set_socket_send_buffer_size_force(fd, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, bytes));
}

/// Sets the buffers that the caller has chosen.
pub fn set_buffers(fd: &OwnedFd, buffers: Buffers) -> Result<()> {
    if let Some(bytes) = buffers.send {
        sockopt::set_socket_send_buffer_size(fd, bytes)?;
    }
    if let Some(bytes) = buffers.receive {
        sockopt::set_socket_recv_buffer_size(fd, bytes)?;
    }
    Ok(())
}
