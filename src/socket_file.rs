//! The files of Unix sockets: made where a socket takes a path as its name, and removed with it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix};

use crate::address::{Address, UnixName};
use crate::error::{Error, Result};
use crate::socket::datagram_socket;

/// How long a socket waits for its turn at a directory, which somebody may have locked for long.
const TURN_TRIES: u32 = 100;
const TURN_PAUSE: Duration = Duration::from_millis(5);

/// Has `bind` give a socket its name. The file of a dead socket in the way is replaced.
pub fn take_name(
    fd: &OwnedFd,
    name: &UnixName,
    mode: u32,
    bind: impl FnOnce(&SocketAddrUnix) -> Result<()>,
) -> Result<Option<SocketFile>> {
    let address = name.to_socket_address()?;
    let UnixName::Path(path) = name else {
        return bind(&address).map(|()| None);
    };
    // So that two who find the same dead file do not each replace the other's live one.
    let _turn = lock_directory_of(path);
    if is_dead_socket(path, name)? {
        rustix::fs::unlink(&path[..])?;
    }
    // The file is never more open than asked: bind(2) takes the socket's mode, less the umask.
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    let made = bind(&address).and_then(|()| SocketFile::of(path)).and_then(|file| {
        file.set_mode(mode)?;
        Ok(Some(file))
    });
    if made.is_err() && has_name(fd) {
        // Bound, and then refused something else.
        let _ = rustix::fs::unlink(&path[..]);
    }
    made
}

fn has_name(fd: &OwnedFd) -> bool {
    rustix::net::getsockname(fd).is_ok_and(|any| !matches!(any.into(), Address::Unnamed))
}

fn lock_directory_of(path: &[u8]) -> Option<OwnedFd> {
    let directory = match path.iter().rposition(|&b| b == b'/') {
        Some(0) => &path[..1],
        Some(end) => &path[..end],
        None => b".",
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Without the right to read it there is no turn to take.
    let directory = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    for _ in 0..TURN_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(TURN_PAUSE),
            _ => break,
        }
    }
    Some(directory)
}

/// Whether the file at `path` is a socket that nobody listens on.
fn is_dead_socket(path: &[u8], name: &UnixName) -> Result<bool> {
    let Ok(stat) = stat(path) else {
        return Ok(false);
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::Busy("a file that is no socket is in the way"));
    }
    // Of another type than what it asks for, it disturbs nobody: a stream's connect would be
    // accepted, and take a QEMU's only place.
    let probe = datagram_socket(AddressFamily::UNIX)?;
    Ok(rustix::net::connect(&probe, &name.to_socket_address()?) == Err(Errno::CONNREFUSED))
}

/// What tells a file from all others that there are now.
pub fn identity(path: &[u8]) -> rustix::io::Result<(u64, u64)> {
    stat(path).map(|stat| (stat.st_dev, stat.st_ino))
}

/// A path whatever the working directory will be.
pub fn absolute(path: &[u8]) -> Vec<u8> {
    let absolute = std::path::absolute(OsStr::from_bytes(path));
    absolute.map_or(path.to_vec(), |path| path.into_os_string().into_vec())
}

fn stat(path: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// A Unix socket's file, removed with it if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    /// Absolute, since the working directory may change.
    path: Vec<u8>,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &[u8]) -> Result<SocketFile> {
        Ok(SocketFile { path: absolute(path), identity: identity(path)? })
    }

    pub fn path(&self) -> &[u8] {
        &self.path
    }

    pub fn set_mode(&self, mode: u32) -> Result<()> {
        if identity(&self.path)? != self.identity {
            return Err(Error::Os(Errno::NOENT));
        }
        Ok(rustix::fs::chmod(&self.path[..], Mode::from_raw_mode(mode))?)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Ok(self.identity) {
            // Nobody is left to tell when the directory refuses.
            let _ = rustix::fs::unlink(&self.path[..]);
        }
    }
}
