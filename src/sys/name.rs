//! The name of a socket as the system has it: the bytes of its `struct sockaddr`.

use rustix::net::SocketAddrAny;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// The longest name of a socket here, a Unix one's.
const LONGEST: usize = size_of::<libc::sockaddr_un>();

/// Where in a name the address begins.
const BEHIND_FAMILY: usize = size_of::<libc::sa_family_t>();

#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Name {
    /// One that the kernel has written. None is too long; one that is only a family is no name.
    pub fn of(bytes: &[u8]) -> Option<Name> {
        let mut name = Name { bytes: [0; LONGEST], len: bytes.len() };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (bytes.len() > BEHIND_FAMILY).then_some(name)
    }

    pub fn of_address(address: &impl SocketAddrArg) -> Option<Name> {
        // SAFETY: that many bytes are there, for the call.
        unsafe {
            address.with_sockaddr(|at, len| {
                Name::of(std::slice::from_raw_parts(at.cast(), len as usize))
            })
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn address(&self) -> SocketAddrAny {
        // SAFETY: these are the bytes of an address, more than its family, and their number.
        unsafe { SocketAddrAny::read(self.bytes.as_ptr().cast(), self.len as SocketAddrLen) }
    }
}

// SAFETY: the bytes are those of a `struct sockaddr`, for as long as the call takes.
unsafe impl SocketAddrArg for Name {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(self.bytes.as_ptr().cast(), self.len as SocketAddrLen)
    }
}

/// What `sun_path` holds in the bytes of a Unix socket's name.
pub fn unix_path(name: &[u8]) -> Option<&[u8]> {
    let (family, path) = name.split_first_chunk()?;
    (libc::sa_family_t::from_ne_bytes(*family) == libc::AF_UNIX as libc::sa_family_t)
        .then_some(path)
}
