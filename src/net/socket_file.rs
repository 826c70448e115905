//! The files of Unix sockets: made where a socket takes a path as its name, and removed with it.
//!
//! In a directory that others can write to, another's file may take the place of one that was just
//! looked at. So nothing is changed but by a descriptor of the very file, and nothing is removed but
//! under a name that nobody else uses, where it can be looked at again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix};
use rustix::process::geteuid;

use crate::error::{Error, Result};
use crate::net::address::{Address, UnixName, absolute};
use crate::net::open::datagram_socket;
use crate::sys::descriptor::{above_standard, change_mode, random};

/// What tells a file from all others that there are now.
pub type Identity = (u64, u64);

/// Has `bind` give a socket its name. The file of a dead socket in the way is replaced.
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
    // The file is never more open than asked: bind(2) takes the socket's mode, less the umask.
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

/// Removes the file at `path` if it is a socket's that is no more.
fn remove_dead(path: &[u8], address: &SocketAddrUnix) -> Result<()> {
    let Some((_, dead)) = dead_socket(path, address)? else {
        return Ok(());
    };
    let _turn = Turn::take(path, dead)?;
    // Somebody's turn may just have been over. And what is still being bound passes for dead: making
    // the turn's file in the same directory has waited for that.
    match dead_socket(path, address)? {
        Some((_pinned, now)) if now == dead => Ok(remove(path, dead)?),
        _ => Ok(()),
    }
}

/// The socket file at `path`, if nobody has that socket any more; with a descriptor of it, as long as
/// which there is, no other file is taken for it.
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
    // Of another type than what it asks for, it disturbs nobody: a stream's connect would be
    // accepted, and take a QEMU's only place.
    let probe = datagram_socket(AddressFamily::UNIX)?;
    if retry_on_intr(|| rustix::net::connect(&probe, address)) != Err(Errno::CONNREFUSED) {
        return Ok(None);
    }
    if !may_touch(path, &stat) {
        return Err(Error::Busy(
            "another user's dead socket file is in the way, where others can make files",
        ));
    }
    let identity = identity_of(&stat);
    Ok(Some((above_standard(file)?, identity)))
}

/// Whether a file is this process's to change or remove: its user's, or in a directory where nobody
/// else makes any.
fn may_touch(path: &[u8], stat: &Stat) -> bool {
    let user = geteuid().as_raw();
    let is_others =
        |directory: Stat| directory.st_mode & 0o022 != 0 || ![0, user].contains(&directory.st_uid);
    stat.st_uid == user || !rustix::fs::stat(&beside(path, ".")[..]).map_or(true, is_others)
}

/// One's turn at replacing a dead socket's file: two who find the same one would each replace the
/// other's live one. It is a lock on a file that nobody but this user can open.
struct Turn {
    _lock: OwnedFd,
    path: Vec<u8>,
    identity: Identity,
}

impl Turn {
    /// `None` where the system or a stranger's file stands against it.
    fn take(path: &[u8], dead: Identity) -> Result<Option<Turn>> {
        let path = beside(path, &format!(".qnet-turn-{:x}", dead.1));
        // A FIFO that somebody put there would wait.
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
        // Left behind, it is used again.
        let _ = remove(&self.path, self.identity);
    }
}

/// Removes the file at `path` if it is that one; any other is there as before.
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

/// Gives a file its name back, unless another has that by now: then it keeps the new one.
fn put_back(aside: &[u8], path: &[u8]) {
    let moved = rustix::fs::renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE);
    // Not every file system can do that.
    if moved == Err(Errno::INVAL) && rustix::fs::link(aside, path).is_ok() {
        let _ = rustix::fs::unlink(aside);
    }
}

/// The path of `name` in the directory of the file at `path`.
fn beside(path: &[u8], name: &str) -> Vec<u8> {
    let directory = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    [&path[..directory], name.as_bytes()].concat()
}

/// A descriptor of the file itself, be it a symbolic link, which only stands for it.
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

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn identity_of(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

pub fn identity(path: &[u8]) -> rustix::io::Result<Identity> {
    stat(path).map(|stat| identity_of(&stat))
}

/// A Unix socket's file, removed with it if it is still the one that was made: so it has to be dropped
/// before the socket, as long as which is open no other file has the identity of its own.
#[derive(Debug)]
pub struct SocketFile {
    /// Absolute, since the working directory may change.
    path: Vec<u8>,
    identity: Identity,
}

impl SocketFile {
    /// That of a socket which has just taken `path` as its name.
    pub fn just_bound(path: &[u8]) -> Result<SocketFile> {
        let stat = stat(path)?;
        if !is_socket(&stat) || !may_touch(path, &stat) {
            return Err(Error::Busy("another's file has taken the place of the socket's"));
        }
        Ok(SocketFile { path: absolute(path), identity: identity_of(&stat) })
    }

    /// The name whatever the working directory is now.
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
            // Nobody is left to tell when the directory refuses.
            let _ = remove(&self.path, self.identity);
        }
    }
}
