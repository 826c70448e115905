//! The socket, or TAP, of a connection. No call here blocks or raises SIGPIPE.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketType,
    sockopt,
};

use crate::error::{Error, Result};
use crate::frame;
use crate::net::address::Address;
use crate::net::io::{Got, Lost, Read, Written};
use crate::net::messages::remote::Remote;
use crate::net::messages::{Messages, read, write};
use crate::net::open::{datagram_socket, is_unix, set_buffers, tune};
use crate::net::socket_file::SocketFile;
use crate::options::Buffers;
use crate::runtime::service::Source;
use crate::runtime::wake::{Departure, Last, Wake};
use crate::sys::descriptor::is_ready;
use crate::sys::sockopt::unsent;
use crate::sys::tap;

/// How every write is made: it does not wait, and raises no SIGPIPE.
const AT_ONCE: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// More bytes than a Unix socket usually holds for its reader.
const UNIX_HELD: u64 = 64 << 20;

/// The socket of a connection, shared by all who use it or wait on it, and closed by the last of them.
pub struct Socket {
    /// `None` for a stream. Boxed, since most sockets are streams. Declared before the descriptor, so
    /// that a socket file is removed before its socket is closed.
    messages: Option<Box<Messages>>,
    fd: OwnedFd,
    pub wake: Wake,
    /// The local address; `None` for an unnamed one. Boxed, as the next one is, since many are unnamed.
    local: Option<Box<Address>>,
    /// The peer when the socket was made.
    given_peer: Option<Box<Address>>,
    /// Dropped last, it tells that the socket is closed and its file removed.
    last: Last,
}

impl Socket {
    /// Makes one of a socket that was dialled or accepted, with the buffers that the caller has chosen.
    pub fn tuned(fd: OwnedFd, buffers: Buffers) -> Result<Socket> {
        let is_sequenced = sockopt::socket_type(&fd)? == SocketType::SEQPACKET;
        let socket = Socket::of(fd, is_sequenced.then_some(Messages::Sequenced));
        socket.set_buffers(buffers)?;
        Ok(socket)
    }

    /// Makes one of a stream with the default buffers, which cannot fail.
    pub fn adopted(fd: OwnedFd) -> Socket {
        Socket::of(fd, None)
    }

    /// Makes one of a descriptor whose messages are of the given kind; `None` for a stream.
    pub fn of(fd: OwnedFd, messages: Option<Messages>) -> Socket {
        tune(&fd);
        let own = rustix::net::getsockname(&fd).ok();
        let local = boxed(address_of(messages.as_ref(), own));
        let peer = rustix::net::getpeername(&fd).ok().flatten();
        let given_peer = boxed(address_of(messages.as_ref(), peer));
        let (wake, last) = (Wake::default(), Last::default());
        Socket { messages: messages.map(Box::new), fd, wake, local, given_peer, last }
    }

    /// A placeholder for a connection without a peer: nothing ever comes, until it is shut down.
    pub fn absent(peer: Address) -> Result<Socket> {
        Ok(Socket::adopted(datagram_socket(AddressFamily::UNIX)?).towards(peer))
    }

    /// The same socket with a peer that the system does not know.
    pub fn towards(self, peer: Address) -> Socket {
        Socket { given_peer: boxed(peer), ..self }
    }

    /// The same socket with a local address that is not its own.
    pub fn seen_at(self, local: Address) -> Socket {
        Socket { local: boxed(local), ..self }
    }

    pub fn local(&self) -> Address {
        unboxed(&self.local)
    }

    /// The address it sends to. If the remote is whoever sends, it is unnamed until somebody has sent.
    pub fn peer(&self) -> Address {
        let learned = self.sender().and_then(Remote::learned);
        learned.unwrap_or_else(|| unboxed(&self.given_peer))
    }

    /// The remote, if that is whoever sends.
    pub fn sender(&self) -> Option<&Remote> {
        self.messages().and_then(Messages::remote).filter(|remote| remote.is_sender())
    }

    /// How many messages from others than the remote the kernel has kept away.
    pub fn kept_away(&self) -> u64 {
        self.messages().map_or(0, Messages::kept_away)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A way to wait until the socket is closed, without keeping it open.
    pub fn departure(&self) -> Departure {
        self.last.departure()
    }

    pub fn is_unix(&self) -> bool {
        is_unix(&self.fd)
    }

    fn messages(&self) -> Option<&Messages> {
        self.messages.as_deref()
    }

    pub fn has_messages(&self) -> bool {
        self.messages().is_some()
    }

    /// The file that was made with the socket, and is removed with it.
    pub fn file(&self) -> Option<&SocketFile> {
        self.messages().and_then(Messages::file)
    }

    /// The longest frame that can be sent.
    pub fn max_frame(&self) -> usize {
        self.messages().map_or(frame::MAX, Messages::max_frame)
    }

    /// The frames that were refused after they had been sent.
    pub fn refused(&self) -> Lost {
        self.messages().map_or(Lost::default(), |messages| messages.refused(self.fd()))
    }

    /// The descriptor that tells of room to write, if it is not the one that is read from.
    pub fn room_apart(&self) -> Option<BorrowedFd<'_>> {
        self.messages().and_then(|messages| messages.room(self.fd()))
    }

    /// The second socket, which some kinds write to.
    pub fn second_fd(&self) -> Option<BorrowedFd<'_>> {
        self.messages().and_then(Messages::second_fd)
    }

    /// Reads what there is into `room`, which may be uninitialized.
    pub fn read(&self, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        match self.messages() {
            Some(messages) => read::read(messages, self.fd(), room),
            None => self.receive(room, RecvFlags::DONTWAIT),
        }
    }

    /// How many bytes there are to read at most. Each message counts as `io::MESSAGE` at least.
    pub fn held(&self) -> u64 {
        match self.messages() {
            None => rustix::io::ioctl_fionread(&self.fd).unwrap_or(0),
            // The messages are in their senders' buffers, so their size is not known.
            Some(_) if self.is_unix() => UNIX_HELD,
            Some(_) => sockopt::socket_recv_buffer_size(&self.fd).unwrap_or(0) as u64,
        }
    }

    /// How many bytes that were written the system has not sent yet, since the other host has no room
    /// for them. Only TCP keeps any.
    pub fn unsent(&self) -> usize {
        if self.has_messages() { 0 } else { unsent(self.fd()) }
    }

    /// What a read would return, without taking it. Always `Empty` where the peer's leaving is not seen.
    pub fn peek(&self) -> Result<Read> {
        if !self.ends() {
            return Ok(Read::Empty);
        }
        let peek_once =
            || self.receive(&mut [MaybeUninit::uninit()], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        let mut peeked = peek_once();
        if matches!(peeked, Err(Error::Os(Errno::CONNRESET))) && self.has_messages() {
            // As when reading: what the peer has sent is behind the reset.
            peeked = peek_once();
        }
        match (peeked, self.messages()) {
            (Ok(Read::End), Some(_)) if !read::has_ended(self.fd()) => Ok(Read::Empty),
            (peeked, _) => peeked,
        }
    }

    fn receive(&self, room: &mut [MaybeUninit<u8>], flags: RecvFlags) -> Result<Read> {
        let most = room.len();
        match rustix::net::recv(&self.fd, room, flags).map(|(_, bytes)| bytes) {
            Ok(0) => Ok(Read::End),
            Ok(bytes) => {
                let (is_full, taken) = (bytes == most, bytes as u64);
                Ok(Read::Bytes(Got { bytes, calls: 1, is_full, foreign: 0, taken }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Read::Empty),
            Err(errno) => Err(Error::Os(errno)),
        }
    }

    /// Whether the peer has left, or will send no more, though some of what it sent may be unread.
    pub fn peer_has_left(&self) -> bool {
        self.ends() && is_ready(self.fd(), PollFlags::RDHUP).unwrap_or(false)
    }

    /// Whether it shows when the peer leaves.
    pub fn ends(&self) -> bool {
        self.messages().is_none_or(Messages::ends)
    }

    /// Writes what the socket takes of `pieces`, which are frames in wire format, or a prefix and its
    /// frame; nothing when it is full. If the writer `gives_up`, frames that a socket of messages has no
    /// room for are lost.
    pub fn write(&self, pieces: &[IoSlice<'_>], gives_up: bool) -> rustix::io::Result<Written> {
        if let Some(messages) = self.messages() {
            return write::write(messages, self.fd(), pieces, gives_up);
        }
        Socket::written(match pieces {
            [piece] => self.send(piece),
            _ => {
                rustix::net::sendmsg(&self.fd, pieces, &mut SendAncillaryBuffer::default(), AT_ONCE)
            }
        })
    }

    /// Writes what a stream takes of `bytes`.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        rustix::net::send(&self.fd, bytes, AT_ONCE)
    }

    /// What came of writing to a stream.
    pub fn written(sent: rustix::io::Result<usize>) -> rustix::io::Result<Written> {
        match sent {
            Ok(bytes) => Ok(Written { bytes, calls: 1, ..Written::default() }),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Written::default()),
            Err(errno) => Err(errno),
        }
    }

    /// Writes frames that lie anywhere in memory to a socket of messages, as `write` does.
    pub fn write_each<'a>(
        &self,
        frames: impl Iterator<Item = &'a [u8]> + Clone,
        gives_up: bool,
    ) -> rustix::io::Result<Written> {
        let messages = self.messages().ok_or(Errno::INVAL)?;
        write::send(messages, self.fd(), frames, gives_up)
    }

    /// Makes a Unix peer's writes fail from now on; what it has written can still be read. Returns
    /// whether that succeeded.
    pub fn stop_peer(&self) -> bool {
        rustix::net::shutdown(&self.fd, Shutdown::Read).is_ok()
    }

    /// Whether neither side can write any more.
    pub fn has_hung_up(&self) -> bool {
        is_ready(self.fd(), PollFlags::empty()).unwrap_or(true)
    }

    /// Shows the peer the end.
    pub fn shutdown(&self) {
        // It fails only if the peer has seen the end already.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Shows a TAP's system that the cable is plugged in, or not.
    pub fn set_carrier(&self, has_carrier: bool) {
        if self.messages().is_some_and(Messages::is_tap) {
            tap::set_carrier(self.fd(), has_carrier);
        }
    }

    /// Sets the buffers that the caller has chosen.
    pub fn set_buffers(&self, buffers: Buffers) -> Result<()> {
        set_buffers(&self.fd, buffers)
    }

    pub fn set_send_buffer(&self, bytes: usize) -> Result<()> {
        for fd in [Some(self.fd()), self.second_fd()].into_iter().flatten() {
            sockopt::set_socket_send_buffer_size(fd, bytes).map_err(no_buffer)?;
        }
        Ok(())
    }

    pub fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        sockopt::set_socket_recv_buffer_size(&self.fd, bytes).map_err(no_buffer)
    }

    /// The size as it was set. The kernel doubles it for its own bookkeeping, and reports the double
    /// (socket(7)).
    pub fn send_buffer(&self) -> Result<usize> {
        sockopt::socket_send_buffer_size(&self.fd).map(|twice| twice / 2).map_err(no_buffer)
    }

    pub fn receive_buffer(&self) -> Result<usize> {
        sockopt::socket_recv_buffer_size(&self.fd).map(|twice| twice / 2).map_err(no_buffer)
    }
}

impl Source for Socket {
    fn fd_for(&self, events: PollFlags) -> BorrowedFd<'_> {
        let apart = if events.contains(PollFlags::OUT) { self.room_apart() } else { None };
        apart.unwrap_or(self.fd())
    }
}

fn no_buffer(errno: Errno) -> Error {
    match errno {
        Errno::NOTSOCK => Error::Unsupported("a TAP has no buffers of a socket"),
        errno => errno.into(),
    }
}

fn boxed(address: Address) -> Option<Box<Address>> {
    (!matches!(address, Address::Unnamed)).then(|| Box::new(address))
}

fn unboxed(address: &Option<Box<Address>>) -> Address {
    address.as_deref().cloned().unwrap_or(Address::Unnamed)
}

/// The address of a socket for which the system reports `any`.
fn address_of(messages: Option<&Messages>, any: Option<SocketAddrAny>) -> Address {
    match (messages, any) {
        (Some(Messages::Tap(tap)), _) => Address::Tap(tap.name.clone()),
        (_, None) => Address::Unnamed,
        (Some(_), Some(any)) => Address::of_datagrams(any),
        (None, Some(any)) => any.into(),
    }
}
