//! A Unix datagram socket at a name.

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

/// It is not connected: it would stay with a remote that has gone, and the next one of that name could
/// not send to it. But its second socket is, once there is much to send: the kernel looks up a path for
/// as long as it sends a frame.
pub struct UnixDgram {
    pub remote: Box<Remote>,
    /// Connected to the remote, to learn when that has room again; and if `is_namesake`, to send from.
    pub out: OwnedFd,
    /// Whether `out` has the same name, which the remote is to see.
    is_namesake: bool,
    /// How often the remote had changed when a message was last sent. Relaxed, as what follows: one
    /// thread sends at a time.
    turn: AtomicU32,
    /// Whether messages go through `out`.
    is_direct: AtomicBool,
    /// How often in a row a message found no room.
    refusals: AtomicU32,
    /// Its own, removed with it.
    pub file: Option<SocketFile>,
}

impl UnixDgram {
    /// Opens one at `local`. A dead socket's file in the way is replaced. Returns its descriptor too.
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
        let (turn, is_direct, refusals) = Default::default();
        let unix = UnixDgram { remote, out, is_namesake, turn, is_direct, refusals, file };
        unix.start_over();
        Ok((fd, unix))
    }

    /// Nothing is known of the remote's room.
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

    /// Whether it has to wait for the remote's room, rather than for its own alone: that is rarely
    /// full, and looked at where the remote seemed to have room.
    pub fn waits_for_remote(&self, fd: BorrowedFd<'_>) -> bool {
        self.is_direct()
            || self.refusals.load(Ordering::Relaxed) == 1
            || is_ready(fd, PollFlags::OUT) == Ok(true)
    }

    /// Sends messages from the front. Returns how many were.
    pub fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        let (remote, turn) = self.remote.now();
        let remote = remote.ok_or(Errno::DESTADDRREQ)?;
        if self.turn.swap(turn, Ordering::Relaxed) != turn {
            self.start_over();
        }
        let count = match self.is_direct() {
            true => outbox.send(self.out.as_fd(), &[])?,
            false => outbox.send(fd, remote.bytes())?,
        };
        self.refusals.store(0, Ordering::Relaxed);
        Ok(count)
    }

    /// Has its second socket tell when the remote has room.
    pub fn watch_room(&self) {
        // Not each time: had the remote gone, or another its name, the socket would say that there is
        // room, or nothing, and again there would be none.
        if self.refusals.fetch_add(1, Ordering::Relaxed) == 0 {
            return;
        }
        // It fails where the remote has gone, or takes from the first socket alone: then only what
        // this one has sent stands against more.
        if let (Some(remote), turn) = self.remote.now() {
            let connected = rustix::net::connect(&self.out, &remote);
            let is_it = turn == self.turn.load(Ordering::Relaxed);
            self.set_direct(self.is_namesake && connected.is_ok() && is_it);
        }
    }
}

/// A socket that has a path as its name, at which there is no file any more.
fn namesake(path: &[u8], address: &SocketAddrUnix) -> Result<OwnedFd> {
    let fd = tuned()?;
    // Whoever finds the file in its short life is to be refused.
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
