//! The files of Unix sockets: made when a socket takes a path as its name, and removed with it.
//!
//! In a directory that others can write to, another file may take the place of one that was just
//! inspected. So a file is changed only through a descriptor of its own, and removed only after it was
//! renamed to a name that nobody else uses, and inspected again there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix};
use rustix::process::geteuid;

use crate::error::{Error, Result};
use crate::net::address::{Address, UnixName, absolute};
use crate::net::open::datagram_socket;
use crate::sys::descriptor::{above_standard, change_mode, random};

/// Tells a file from all others that exist at the same time: its device and inode.
type Identity = (u64, u64);

/// Gives a socket its name by calling `bind`. The file of a dead socket in the way is replaced.
pub fn take_name(
    fd: &OwnedFd,
    name: &UnixName,
    mode: u32,
    mut bind: impl FnMut(&SocketAddrUnix) -> Result<()>,
) -> Result<Option<SocketFile>> {
    let address = name.to_socket_address()?;
    let UnixName::Path(path) = name else {
        return bind(&address).map(|()| None);
    };
    // Even for a moment the file does not permit more than asked: bind(2) gives it the socket's mode,
    // less the umask.
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    if let Err(error) = bind(&address) {
        if !matches!(error, Error::Busy(_)) {
            return Err(error);
        }
        remove_dead(path, &address)?;
        bind(&address)?;
    }
    let file = SocketFile::just_bound(path)?;
    file.set_mode(mode)?;
    Ok(Some(file))
}

/// Removes the file at `path` if it is a dead socket's.
fn remove_dead(path: &[u8], address: &SocketAddrUnix) -> Result<()> {
    let Some((_, dead)) = dead_socket(path, address)? else {
        return Ok(());
    };
    let _turn = Turn::take(path, dead)?;
    // Another process may have replaced the file before this one's turn. A socket that is still being
    // bound looks dead too, but making the turn's file in the same directory has waited for its bind.
    match dead_socket(path, address)? {
        Some((_open, now)) if now == dead => Ok(remove(path, dead)?),
        _ => Ok(()),
    }
}

/// The identity of the socket file at `path`, if nobody has its socket any more. While the descriptor
/// that is returned too is open, no other file can have that identity.
fn dead_socket(path: &[u8], address: &SocketAddrUnix) -> Result<Option<(OwnedFd, Identity)>> {
    let file = match open_path(path) {
        Err(Errno::NOENT) => return Ok(None),
        file => file?,
    };
    let stat = stat_of(file.as_fd())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => {}
        FileType::Symlink => return Err(Error::Busy("a symbolic link is in the way")),
        _ => return Err(Error::Busy("a file that is no socket is in the way")),
    }
    // A probe of another type than the socket at the path is refused and disturbs nobody. A stream
    // would be accepted, and take the one place of a QEMU that listens.
    let probe = datagram_socket(AddressFamily::UNIX)?;
    if retry_on_intr(|| rustix::net::connect(&probe, address)) != Err(Errno::CONNREFUSED) {
        return Ok(None);
    }
    if !may_touch(path, &stat) {
        return Err(Error::Busy(
            "another user's dead socket file is in the way, in a directory where others can make files",
        ));
    }
    let identity = identity_of(&stat);
    Ok(Some((above_standard(file)?, identity)))
}

/// Whether this process may change or remove a file: it belongs to this user, or is in a directory
/// where nobody else can make files.
fn may_touch(path: &[u8], stat: &Stat) -> bool {
    let user = geteuid().as_raw();
    let is_others =
        |directory: Stat| directory.st_mode & 0o022 != 0 || ![0, user].contains(&directory.st_uid);
    stat.st_uid == user || !rustix::fs::stat(&beside(path, ".")[..]).map_or(true, is_others)
}

/// The turn to replace a dead socket's file, which one process has at a time: of two that find the same
/// dead file, the second would replace the live file of the first. It is a lock on a file that only
/// this user can open.
struct Turn {
    _lock: OwnedFd,
    path: Vec<u8>,
    identity: Identity,
}

impl Turn {
    /// Takes the turn. `None` if the system refuses the file, or another user's is there.
    fn take(path: &[u8], dead: Identity) -> Result<Option<Turn>> {
        let path = beside(path, &format!(".qnet-turn-{:x}", dead.1));
        // NONBLOCK: to open a FIFO that somebody put there would block.
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(lock) = rustix::fs::open(&path[..], flags, Mode::RUSR | Mode::WUSR) else {
            return Ok(None);
        };
        let lock = above_standard(lock)?;
        let stat = stat_of(lock.as_fd())?;
        if stat.st_uid != geteuid().as_raw() {
            return Ok(None);
        }
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                Err(Error::Busy("another process is replacing the dead socket file"))
            }
            _ => Ok(Some(Turn { _lock: lock, path, identity: identity_of(&stat) })),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // If that fails, the file is used again.
        let _ = remove(&self.path, self.identity);
    }
}

/// Removes the file at `path` if it is the given one; any other is put back.
fn remove(path: &[u8], file: Identity) -> rustix::io::Result<()> {
    let aside = beside(path, &format!(".qnet-{:016x}", u64::from_ne_bytes(random())));
    rustix::fs::rename(path, &aside[..])?;
    let removed = match identity(&aside) {
        Ok(moved) if moved == file => rustix::fs::unlink(&aside[..]),
        Ok(_) => Err(Errno::NOENT),
        Err(errno) => Err(errno),
    };
    if removed.is_err() {
        put_back(&aside, path);
    }
    removed
}

/// Gives a file its name back. If another file has that name by now, it keeps the new one.
fn put_back(aside: &[u8], path: &[u8]) {
    let moved = rustix::fs::renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE);
    // Not every file system supports NOREPLACE.
    if moved == Err(Errno::INVAL) && rustix::fs::link(aside, path).is_ok() {
        let _ = rustix::fs::unlink(aside);
    }
}

/// The path of `name` in the directory of the file at `path`.
fn beside(path: &[u8], name: &str) -> Vec<u8> {
    let directory = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    [&path[..directory], name.as_bytes()].concat()
}

/// Opens a descriptor that only identifies the file at `path`, which may be a symbolic link.
fn open_path(path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn stat_of(file: BorrowedFd<'_>) -> rustix::io::Result<Stat> {
    rustix::fs::statat(file, c"", AtFlags::EMPTY_PATH)
}

fn stat(path: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

fn identity_of(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

pub fn identity(path: &[u8]) -> rustix::io::Result<Identity> {
    stat(path).map(|stat| identity_of(&stat))
}

/// A Unix socket's file. Dropping it removes the file if it is still the one that was made. It must be
/// dropped before the socket is closed: until then no other file can have its identity.
#[derive(Debug)]
pub struct SocketFile {
    /// Absolute, since the working directory may change.
    path: Vec<u8>,
    identity: Identity,
}

impl SocketFile {
    /// The file of a socket that has just taken `path` as its name.
    pub fn just_bound(path: &[u8]) -> Result<SocketFile> {
        let stat = stat(path)?;
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if !is_socket || !may_touch(path, &stat) {
            return Err(Error::Busy("another file has taken the place of the socket's own"));
        }
        Ok(SocketFile { path: absolute(path), identity: identity_of(&stat) })
    }

    /// The socket's name, with an absolute path.
    pub fn address(&self) -> Address {
        Address::Unix(UnixName::Path(self.path.clone()))
    }

    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let file = open_path(&self.path)?;
        let stat = stat_of(file.as_fd())?;
        if identity_of(&stat) != self.identity {
            return Err(Error::Os(Errno::NOENT));
        }
        match stat.st_mode & 0o7777 == mode {
            true => Ok(()),
            false => Ok(change_mode(file.as_fd(), mode)?),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Ok(self.identity) {
            // Nobody is left to report a failure to.
            let _ = remove(&self.path, self.identity);
        }
    }
}
