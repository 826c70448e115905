//! A Unix datagram socket with a name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix};

use crate::error::Result;
use crate::net::address::UnixName;
use crate::net::messages::remote::Remote;
use crate::net::open::{datagram_socket, tune};
use crate::net::socket_file::{SocketFile, take_name};
use crate::options::Options;
use crate::sys::descriptor::is_ready;
use crate::sys::mmsg::Outbox;
use crate::sys::name::Name;

/// A Unix datagram socket. It is not connected: it would stay connected to a remote that is gone, and
/// the next socket of that name could not send to it. Its second socket is connected once there is much
/// to send, since the kernel takes as long to look up a path as to send a frame.
pub struct UnixDgram {
    pub remote: Box<Remote>,
    /// Connected to the remote to learn when that has room again; if `is_namesake`, also to send.
    pub out: OwnedFd,
    /// Whether `out` has the same name as the socket, so that the remote sees that name.
    is_namesake: bool,
    /// How often the remote had changed when a message was last sent. Relaxed, as the next two are:
    /// one thread sends at a time.
    changes: AtomicU32,
    /// Whether messages go through `out`.
    is_direct: AtomicBool,
    /// How many times in a row a message found no room.
    refusals: AtomicU32,
    /// Its own file, removed with it.
    pub file: Option<SocketFile>,
}

impl UnixDgram {
    /// Opens a socket at `local`. The file of a dead socket in the way is replaced.
    pub fn open(local: &UnixName, remote: Option<Name>) -> Result<(OwnedFd, UnixDgram)> {
        let fd = tuned()?;
        let mode = Options::default().unix_mode();
        let mut second = None;
        let file = take_name(&fd, local, mode, |address| {
            if let UnixName::Path(path) = local {
                second = namesake(path, address).ok();
            }
            Ok(rustix::net::bind(&fd, address)?)
        })?;
        let is_namesake = second.is_some();
        let out = second.map_or_else(|| datagram_socket(AddressFamily::UNIX), Ok)?;
        let remote = Box::new(Remote::new(remote));
        let (changes, is_direct, refusals) = Default::default();
        let unix = UnixDgram { remote, out, is_namesake, changes, is_direct, refusals, file };
        unix.start_over();
        Ok((fd, unix))
    }

    /// Forgets what was known of the remote's room.
    fn start_over(&self) {
        self.set_direct(false);
        self.refusals.store(1, Ordering::Relaxed);
    }

    pub fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    pub fn set_direct(&self, is_direct: bool) {
        self.is_direct.store(is_direct, Ordering::Relaxed);
    }

    /// Whether a writer waits for room at the remote, and not in the socket's own send buffer. That is
    /// rarely full, and is looked at only if the remote seemed to have room.
    pub fn waits_for_remote(&self, fd: BorrowedFd<'_>) -> bool {
        self.is_direct()
            || self.refusals.load(Ordering::Relaxed) == 1
            || is_ready(fd, PollFlags::OUT) == Ok(true)
    }

    /// Sends messages from the front of the outbox. Returns how many.
    pub fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        let (remote, changes) = self.remote.now();
        let remote = remote.ok_or(Errno::DESTADDRREQ)?;
        if self.changes.swap(changes, Ordering::Relaxed) != changes {
            self.start_over();
        }
        let count = match self.is_direct() {
            true => outbox.send(self.out.as_fd(), &[])?,
            false => outbox.send(fd, remote.bytes())?,
        };
        self.refusals.store(0, Ordering::Relaxed);
        Ok(count)
    }

    /// Makes the second socket report when the remote has room.
    pub fn watch_room(&self) {
        // The first time, the connection made earlier serves. If a message finds no room again, the
        // remote may be gone, or another socket may have its name.
        if self.refusals.fetch_add(1, Ordering::Relaxed) == 0 {
            return;
        }
        // It fails if the remote is gone, or takes messages from the first socket alone. Then only the
        // socket's own send buffer is waited for.
        if let (Some(remote), changes) = self.remote.now() {
            let connected = rustix::net::connect(&self.out, &remote);
            let is_same = changes == self.changes.load(Ordering::Relaxed);
            self.set_direct(self.is_namesake && connected.is_ok() && is_same);
        }
    }
}

/// Makes a socket that has a path as its name, with no file there any more.
fn namesake(path: &[u8], address: &SocketAddrUnix) -> Result<OwnedFd> {
    let fd = tuned()?;
    // Who finds the file during its short life is refused.
    rustix::net::shutdown(&fd, Shutdown::Read)?;
    rustix::fs::fchmod(&fd, Mode::empty())?;
    rustix::net::bind(&fd, address)?;
    drop(SocketFile::just_bound(path)?);
    Ok(fd)
}

fn tuned() -> Result<OwnedFd> {
    let fd = datagram_socket(AddressFamily::UNIX)?;
    tune(&fd);
    Ok(fd)
}
