//! The name of a socket in the system's form: the bytes of its `struct sockaddr`.

use rustix::net::SocketAddrAny;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// The length of the longest name: that of a Unix socket. Where its path has no NUL, since there is no room for
/// one, the kernel counts one all the same (`unix_mkname_bsd`), so that it may tell of one byte more.
pub const LONGEST: usize = size_of::<libc::sockaddr_un>();

/// The length of the family, with which each name begins.
const FAMILY: usize = size_of::<libc::sa_family_t>();

#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Name {
    /// A name that the kernel has written, or `None` if that is only a family.
    pub fn of(bytes: &[u8]) -> Option<Name> {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let mut name = Name { bytes: [0; LONGEST], len: bytes.len() };
        name.bytes[..bytes.len()].copy_from_slice(bytes);
        (bytes.len() > FAMILY).then_some(name)
    }

    pub fn of_address(address: &impl SocketAddrArg) -> Option<Name> {
        // SAFETY: `with_sockaddr` passes a pointer to `len` bytes, which are valid during the call.
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
        // SAFETY: the bytes are those of a `struct sockaddr`, of this length, and not only a
        // family.
        unsafe { SocketAddrAny::read(self.bytes.as_ptr().cast(), self.len as SocketAddrLen) }
    }
}

// SAFETY: the pointer is that of a `struct sockaddr` of this length, which lives during the call.
unsafe impl SocketAddrArg for Name {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(self.bytes.as_ptr().cast(), self.len as SocketAddrLen)
    }
}

/// What follows the family in a Unix socket's name. `None` for other families.
pub fn behind_family(name: &[u8]) -> Option<&[u8]> {
    let (family, path) = name.split_first_chunk()?;
    (libc::sa_family_t::from_ne_bytes(*family) == libc::AF_UNIX as libc::sa_family_t)
        .then_some(path)
}

/// The path in the name of a Unix socket; none in an abstract name, which begins with a NUL.
pub fn path_in(name: &[u8]) -> Option<&[u8]> {
    behind_family(name)?.split(|&b| b == 0).next().filter(|path| !path.is_empty())
}
