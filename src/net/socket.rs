//! What a connection is made of: a socket, or a TAP. No call here raises SIGPIPE or waits.

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

/// More than waits in a Unix socket for its reader, as a rule.
const UNIX_HELD: u64 = 64 << 20;

/// What a connection is made of, shared by all who use or wait on it; closed with the last of them.
pub struct Socket {
    /// By what way its messages go; none, where it is a stream. Boxed: most are streams. Before the
    /// descriptor, so that a socket file goes before its socket.
    messages: Option<Box<Messages>>,
    fd: OwnedFd,
    pub wake: Wake,
    pub local: Address,
    /// As it was when the socket was made.
    given_peer: Address,
    /// Tells that all of it is closed, its file gone.
    last: Last,
}

impl Socket {
    /// A socket that is new here, dialled or accepted: tuned, then with the buffers that the caller
    /// has chosen.
    pub fn tuned(fd: OwnedFd, buffers: Buffers) -> Result<Socket> {
        let is_sequenced = sockopt::socket_type(&fd)? == SocketType::SEQPACKET;
        let socket = Socket::of(fd, is_sequenced.then_some(Messages::Sequenced));
        socket.set_buffers(buffers)?;
        Ok(socket)
    }

    /// One of a stream without a choice, where nothing can fail.
    pub fn adopted(fd: OwnedFd) -> Socket {
        Socket::of(fd, None)
    }

    pub fn of(fd: OwnedFd, messages: Option<Messages>) -> Socket {
        tune(&fd);
        let name = |any| name(messages.as_ref(), any);
        let local = name(rustix::net::getsockname(&fd).ok());
        let given_peer = name(rustix::net::getpeername(&fd).ok().flatten());
        let (wake, last) = (Wake::default(), Last::default());
        Socket { messages: messages.map(Box::new), fd, wake, local, given_peer, last }
    }

    /// Stands for a socket while there is none: nothing ever comes, until it is shut down.
    pub fn absent(peer: Address) -> Result<Socket> {
        Ok(Socket::adopted(datagram_socket(AddressFamily::UNIX)?).towards(peer))
    }

    /// The same with a peer that the system does not know.
    pub fn towards(self, peer: Address) -> Socket {
        Socket { given_peer: peer, ..self }
    }

    /// Whom it sends to: nobody yet, where it is who sends first.
    pub fn peer(&self) -> Address {
        let learned = self.sender().and_then(Remote::learned);
        learned.unwrap_or_else(|| self.given_peer.clone())
    }

    /// The remote, where it is whoever sends.
    pub fn sender(&self) -> Option<&Remote> {
        self.messages().and_then(Messages::remote).filter(|remote| remote.is_sender())
    }

    /// How many messages from strangers the kernel has kept from it.
    pub fn kept_away(&self) -> u64 {
        self.messages().map_or(0, Messages::kept_away)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What to wait by, without holding it, until it is closed.
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

    /// The file that was made for it, and goes with it.
    pub fn file(&self) -> Option<&SocketFile> {
        self.messages().and_then(Messages::file)
    }

    /// The longest frame that fits.
    pub fn max_frame(&self) -> usize {
        self.messages().map_or(frame::MAX, Messages::max_frame)
    }

    /// What was refused after it had been sent.
    pub fn refused(&self) -> Lost {
        self.messages().map_or(Lost::default(), |messages| messages.refused(self.fd()))
    }

    /// The one that tells of room to write, where that is not the one that is read from.
    pub fn room_apart(&self) -> Option<BorrowedFd<'_>> {
        self.messages().and_then(|messages| messages.room(self.fd()))
    }

    /// The one that it can be.
    pub fn second_fd(&self) -> Option<BorrowedFd<'_>> {
        self.messages().and_then(Messages::second_fd)
    }

    /// Reads what there is, up to the length of `room`, into memory that may hold nothing yet.
    pub fn read(&self, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        match self.messages() {
            Some(messages) => read::read(messages, self.fd(), room),
            None => self.receive(room, RecvFlags::DONTWAIT),
        }
    }

    /// How many bytes there may be to read, at most, where each message counts for `io::MESSAGE` at
    /// least.
    pub fn held(&self) -> u64 {
        match self.messages() {
            None => rustix::io::ioctl_fionread(&self.fd).unwrap_or(0),
            // Not known: its senders' buffers hold it.
            Some(_) if self.is_unix() => UNIX_HELD,
            Some(_) => sockopt::socket_recv_buffer_size(&self.fd).unwrap_or(0) as u64,
        }
    }

    /// How many bytes of what was written the system has not sent yet: the other host has no room for
    /// them. Only TCP keeps any.
    pub fn unsent(&self) -> usize {
        if self.has_messages() { 0 } else { unsent(self.fd()) }
    }

    /// What a read would give, which it takes nothing of; where it might be the end.
    pub fn peek(&self) -> Result<Read> {
        if !self.ends() {
            return Ok(Read::Empty);
        }
        let mut peeked = self.peek_once();
        if matches!(peeked, Err(Error::Os(Errno::CONNRESET))) && self.has_messages() {
            // As in reading them: what the peer has sent comes behind that.
            peeked = self.peek_once();
        }
        match (peeked, self.messages()) {
            (Ok(Read::End), Some(_)) if !read::has_ended(self.fd()) => Ok(Read::Empty),
            (peeked, _) => peeked,
        }
    }

    fn peek_once(&self) -> Result<Read> {
        self.receive(&mut [MaybeUninit::uninit()], RecvFlags::DONTWAIT | RecvFlags::PEEK)
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

    /// Whether the peer has left, or will send no more: known past what is unread.
    pub fn peer_has_left(&self) -> bool {
        self.ends() && is_ready(self.fd(), PollFlags::RDHUP).unwrap_or(false)
    }

    /// Whether the peer's leaving is seen.
    pub fn ends(&self) -> bool {
        self.messages().is_none_or(Messages::ends)
    }

    /// Writes what the socket takes of `pieces`, which are frames in wire format, or a prefix and its
    /// frame: nothing when it is full. What a socket of messages has no room for is lost if the writer
    /// `gives_up`.
    pub fn write(&self, pieces: &[IoSlice<'_>], gives_up: bool) -> rustix::io::Result<Written> {
        if let Some(messages) = self.messages() {
            return write::write(messages, self.fd(), pieces, gives_up);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let written = match pieces {
            [piece] => rustix::net::send(&self.fd, piece, flags),
            _ => rustix::net::sendmsg(&self.fd, pieces, &mut SendAncillaryBuffer::default(), flags),
        };
        match written {
            Ok(bytes) => Ok(Written { bytes, calls: 1, ..Written::default() }),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Written::default()),
            Err(errno) => Err(errno),
        }
    }

    /// The same for frames here and there in memory, on a socket of messages.
    pub fn write_each<'a>(
        &self,
        frames: impl Iterator<Item = &'a [u8]> + Clone,
        gives_up: bool,
    ) -> rustix::io::Result<Written> {
        let messages = self.messages().ok_or(Errno::INVAL)?;
        write::send(messages, self.fd(), frames, gives_up)
    }

    /// Makes the writes of a Unix peer fail. What it has written can still be read. Returns whether
    /// that was done.
    pub fn stop_peer(&self) -> bool {
        rustix::net::shutdown(&self.fd, Shutdown::Read).is_ok()
    }

    /// Whether neither side can write any more.
    pub fn has_hung_up(&self) -> bool {
        is_ready(self.fd(), PollFlags::empty()).unwrap_or(true)
    }

    /// Lets the peer see the end.
    pub fn shutdown(&self) {
        // It fails only where the end has been seen.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Sets what the caller has chosen.
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

    /// As set: the kernel doubles it for its own bookkeeping (socket(7)), and tells the double.
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

/// A socket's address, of which the system has told `any`.
fn name(messages: Option<&Messages>, any: Option<SocketAddrAny>) -> Address {
    match (messages, any) {
        (Some(Messages::Tap(tap)), _) => Address::Tap(tap.name().to_owned()),
        (_, None) => Address::Unnamed,
        (Some(_), Some(any)) => Address::of_datagrams(any),
        (None, Some(any)) => any.into(),
    }
}
