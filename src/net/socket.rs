//! Every system call on sockets but those of dialling. No call here raises SIGPIPE, waits, or leaves a
//! descriptor open across `exec`.

use std::ffi::c_int;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
    SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{Error, Result};
use crate::frame;
use crate::net::address::{Address, Family, UnixName};
use crate::net::messages::remote::Remote;
use crate::net::messages::{Messages, Tap};
use crate::net::socket_file::{SocketFile, take_name};
use crate::options::Options;
use crate::runtime::lock::lock;
use crate::runtime::wake::{Departure, Last, Wake};
use crate::sys::descriptor::above_standard;

/// Requests that may wait to be accepted; the system's own limit (`somaxconn`) is lower as a rule.
pub const BACKLOG: i32 = 4096;

/// The send buffer of a Unix socket: with the default one, the kernel's charge for each small write
/// (768 bytes) leaves room for too few frames.
const UNIX_SNDBUF: usize = 1 << 20;

/// The buffers of a UDP socket: what finds the receiver's full is lost.
const UDP_BUFFER: usize = 4 << 20;

/// Less than the kernel counts for any message against the buffer that holds it.
pub const MESSAGE: usize = 512;

/// More than waits in a Unix socket for its reader, as a rule.
const UNIX_HELD: u64 = 64 << 20;

/// Asks how much of what was written was not sent yet (Linux `include/uapi/linux/sockios.h`).
const SIOCOUTQNSD: Opcode = 0x894b;

pub const CLOEXEC: SocketFlags = SocketFlags::CLOEXEC;

/// What a connection is made of, shared by all who use or wait on it; closed with the last of them.
pub struct Socket {
    /// Before the descriptor, so that a socket file goes before its socket.
    medium: Medium,
    fd: OwnedFd,
    pub wake: Wake,
    pub local: Address,
    /// As it was when the socket was made.
    given_peer: Address,
    /// Tells that all of it is closed, its file gone.
    last: Last,
}

/// What frames are in: a stream of bytes, or messages of their own.
pub enum Medium {
    Stream,
    Messages(Box<Messages>),
}

impl Medium {
    /// That of somebody's descriptor: a connected socket's, or a TAP's.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Medium> {
        let kind = match type_of(fd) {
            Err(Error::Os(Errno::NOTSOCK)) => {
                return Ok(Tap::adopted(fd).map(Messages::Tap)?.into());
            }
            kind => kind?,
        };
        check_connected(fd)?;
        match kind {
            SocketType::STREAM => Ok(Medium::Stream),
            _ => Ok(Messages::of_connected(fd, kind)?.into()),
        }
    }

    /// An address of its sockets.
    fn address(&self, any: Option<SocketAddrAny>) -> Address {
        match self {
            Medium::Stream => any.map_or(Address::Unnamed, Address::from),
            Medium::Messages(messages) => match &**messages {
                Messages::Tap(tap) => Address::Tap(tap.name().to_owned()),
                _ => any.map_or(Address::Unnamed, Address::of_datagrams),
            },
        }
    }
}

impl From<Messages> for Medium {
    fn from(messages: Messages) -> Medium {
        Medium::Messages(Box::new(messages))
    }
}

/// What one read gave.
pub enum Read {
    Bytes(Got),
    /// Nothing now.
    Empty,
    /// The peer has left, or will send no more.
    End,
}

#[derive(Default, Clone, Copy)]
pub struct Got {
    pub bytes: usize,
    /// How many system calls it took.
    pub calls: u64,
    /// Whether there was no room for more.
    pub is_full: bool,
    /// How many messages there were from others than the remote.
    pub foreign: u64,
    /// How much was taken from what the socket holds, as `held` counts.
    pub taken: u64,
}

/// What one write did.
#[derive(Default, Clone, Copy)]
pub struct Written {
    /// How many bytes in wire format it took, those of lost frames among them.
    pub bytes: usize,
    /// How many system calls took something.
    pub calls: u64,
    pub lost: Lost,
    /// Whether a socket of datagrams had no room for the next one, which is lost if that lasts.
    pub is_full: bool,
    /// Whether it was the system that had no memory for it.
    pub is_short: bool,
}

/// Frames that were taken and that nobody will receive, and their bytes.
#[derive(Default, Clone, Copy)]
pub struct Lost {
    pub frames: u64,
    pub bytes: u64,
}

impl Lost {
    pub fn add(&mut self, other: Lost) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

impl Socket {
    /// A socket that is new here, dialled or accepted: tuned, then with the buffers that the caller
    /// has chosen.
    pub fn tuned(fd: OwnedFd, buffers: Buffers) -> Result<Socket> {
        let medium = match sockopt::socket_type(&fd)? {
            SocketType::SEQPACKET => Messages::Sequenced.into(),
            _ => Medium::Stream,
        };
        let socket = Socket::of(fd, medium);
        socket.set_buffers(buffers)?;
        Ok(socket)
    }

    /// One of a stream without a choice, where nothing can fail.
    pub fn adopted(fd: OwnedFd) -> Socket {
        Socket::of(fd, Medium::Stream)
    }

    pub fn of(fd: OwnedFd, medium: Medium) -> Socket {
        tune(&fd);
        let local = rustix::net::getsockname(&fd).ok();
        let peer = rustix::net::getpeername(&fd).ok().flatten();
        let [local, peer] = [local, peer].map(|any| medium.address(any));
        let (wake, last) = (Wake::default(), Last::default());
        Socket { fd, medium, wake, local, given_peer: peer, last }
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
        match &self.medium {
            Medium::Stream => None,
            Medium::Messages(messages) => Some(messages),
        }
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

    /// The descriptor on which to wait for `events`.
    pub fn fd_for(&self, events: PollFlags) -> BorrowedFd<'_> {
        let apart = if events.contains(PollFlags::OUT) { self.room_apart() } else { None };
        apart.unwrap_or(self.fd())
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
        if let Medium::Messages(messages) = &self.medium {
            return messages.read(self.fd(), room);
        }
        self.receive(room, RecvFlags::DONTWAIT)
    }

    /// How many bytes there may be to read, at most, where each message counts for [`MESSAGE`] at
    /// least.
    pub fn held(&self) -> u64 {
        match self.medium {
            Medium::Stream => rustix::io::ioctl_fionread(&self.fd).unwrap_or(0),
            // Not known: its senders' buffers hold it.
            Medium::Messages(_) if self.is_unix() => UNIX_HELD,
            Medium::Messages(_) => sockopt::socket_recv_buffer_size(&self.fd).unwrap_or(0) as u64,
        }
    }

    /// How many bytes of what was written the system has not sent yet: the other host has no room for
    /// them. Only TCP keeps any.
    pub fn unsent(&self) -> usize {
        if self.has_messages() {
            return 0;
        }
        // SAFETY: the call has that number, and writes an int. Other sockets do not know it.
        let unsent = unsafe { ioctl(&self.fd, Getter::<SIOCOUTQNSD, c_int>::new()) };
        unsent.map_or(0, |bytes| bytes as usize)
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
            (Ok(Read::End), Some(messages)) if !messages.has_ended(self.fd()) => Ok(Read::Empty),
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
        if let Medium::Messages(messages) = &self.medium {
            return messages.write(self.fd(), pieces, gives_up);
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
        match &self.medium {
            Medium::Stream => Err(Errno::INVAL),
            Medium::Messages(messages) => messages.send(self.fd(), frames, gives_up),
        }
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
        buffers.apply(&self.fd)
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

fn no_buffer(errno: Errno) -> Error {
    match errno {
        Errno::NOTSOCK => Error::Unsupported("a TAP has no buffers of a socket"),
        errno => errno.into(),
    }
}

fn is_unix(fd: &OwnedFd) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
}

/// Sets what suits frames: no Nagle delay (QEMU sets its own side only as a client), large buffers.
pub fn tune(fd: &OwnedFd) {
    // None of it is needed for a connection to work, and an adopted socket may be of any family.
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

/// Beyond the system's limit, where there is the right to.
fn enlarge_send_buffer(fd: &OwnedFd, bytes: usize) {
    let _ = sockopt::set_socket_send_buffer_size_force(fd, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, bytes));
}

/// What of a new socket the caller has chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffers {
    pub send: Option<usize>,
    pub receive: Option<usize>,
}

impl Buffers {
    pub fn apply(self, fd: &OwnedFd) -> Result<()> {
        if let Some(bytes) = self.send {
            sockopt::set_socket_send_buffer_size(fd, bytes)?;
        }
        if let Some(bytes) = self.receive {
            sockopt::set_socket_recv_buffer_size(fd, bytes)?;
        }
        Ok(())
    }
}

pub fn family_of(address: &std::net::SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

pub fn datagram_socket(family: AddressFamily) -> Result<OwnedFd> {
    open_socket(family, SocketType::DGRAM, CLOEXEC)
}

/// One that does not block.
pub fn nonblocking_socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd> {
    open_socket(family, kind, CLOEXEC | SocketFlags::NONBLOCK)
}

pub fn open_socket(family: AddressFamily, kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    above_standard(rustix::net::socket_with(family, kind, flags, None)?)
}

pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, CLOEXEC, None)?;
    Ok((above_standard(a)?, above_standard(b)?))
}

fn check_connected(fd: BorrowedFd<'_>) -> Result<()> {
    if sockopt::socket_acceptconn(fd)? {
        return Err(Error::invalid("the descriptor is a listening socket"));
    }
    match rustix::net::getpeername(fd) {
        Err(Errno::NOTCONN) => Err(Error::invalid("the descriptor is a socket without a peer")),
        Err(Errno::OPNOTSUPP) => {
            Err(Error::Unsupported("the descriptor is a socket of another kind"))
        }
        named => named.map(|_| ()).map_err(Error::from),
    }
}

fn check_listening(fd: BorrowedFd<'_>) -> Result<()> {
    match type_of(fd) {
        Ok(SocketType::STREAM | SocketType::SEQPACKET) => {}
        Err(Error::Os(Errno::NOTSOCK)) => {
            return Err(Error::invalid("the descriptor is no socket"));
        }
        kind => {
            kind?;
            return Err(Error::Unsupported("the descriptor is no stream or SEQPACKET socket"));
        }
    }
    if !sockopt::socket_acceptconn(fd)? {
        return Err(Error::invalid("the descriptor is a socket that does not listen"));
    }
    Ok(())
}

fn type_of(fd: BorrowedFd<'_>) -> Result<SocketType> {
    match sockopt::socket_type(fd) {
        Err(Errno::BADF) => Err(Error::invalid("the descriptor is not open")),
        kind => Ok(kind?),
    }
}

/// Whether descriptors are to be had; the resolver wants two.
pub fn check_descriptors() -> Result<()> {
    pair().map(|_| ())
}

pub fn set_close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

pub fn interface_index(name: &str) -> Result<u32> {
    let any = rustix::net::socket_with(AddressFamily::INET6, SocketType::DGRAM, CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(any, name)?)
}

pub fn random(bytes: &mut [u8]) {
    // getrandom(2) gives up to 256 bytes whole, once the system has started.
    let _ = rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty());
}

/// A listening socket.
#[derive(Debug)]
pub struct ListenSocket {
    fd: OwnedFd,
    pub address: Address,
    /// An adopted socket may be one that waits (its O_NONBLOCK is left alone); then only one thread
    /// at a time looks whether a connection is there and takes it.
    waits: Option<Mutex<()>>,
    is_adopted: bool,
}

impl ListenSocket {
    fn new(fd: OwnedFd, address: Address) -> ListenSocket {
        ListenSocket { fd, address, waits: None, is_adopted: false }
    }

    /// Makes one of somebody's descriptor, which is theirs until `own` is called: that is when
    /// nothing can fail any more.
    pub fn adopt(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<ListenSocket> {
        check_listening(fd)?;
        let address = rustix::net::getsockname(fd)?.into();
        let waits = !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK);
        set_close_on_exec(fd)?;
        if waits {
            // Where another process takes the connection first, ours is back within a tick.
            let tick = Some(Duration::from_micros(1));
            sockopt::set_socket_timeout(fd, sockopt::Timeout::Recv, tick)?;
        }
        let waits = waits.then(Mutex::default);
        Ok(ListenSocket { fd: own(), address, waits, is_adopted: true })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether its peers send messages, each of which is a frame.
    pub fn has_messages(&self) -> bool {
        type_of(self.fd()) == Ok(SocketType::SEQPACKET)
    }

    /// Whether v4 peers reach it though its address is a v6 one.
    pub fn takes_v4(&self) -> bool {
        sockopt::ipv6_v6only(&self.fd) == Ok(false)
    }

    /// Refuses all peers from now on. An adopted socket may be others' too, and is only closed.
    pub fn refuse(&self) {
        if !self.is_adopted {
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        }
    }

    /// A connection, or `None` when none is waiting.
    pub fn accept(&self) -> Result<Option<OwnedFd>> {
        let _turn = self.waits.as_ref().map(lock);
        loop {
            if self.waits.is_some() && !is_ready(self.fd(), PollFlags::IN)? {
                return Ok(None);
            }
            match rustix::net::accept_with(&self.fd, CLOEXEC) {
                Ok(fd) => return above_standard(fd).map(Some),
                Err(Errno::AGAIN) => return Ok(None),
                // A client that has gone, or a network error of its own: accept(2) says go on.
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::NETDOWN
                    | Errno::PROTO
                    | Errno::NOPROTOOPT
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::HOSTUNREACH
                    | Errno::OPNOTSUPP
                    | Errno::NETUNREACH
                    | Errno::TIMEDOUT,
                ) => {}
                Err(errno) => return Err(Error::Os(errno)),
            }
        }
    }
}

/// Whether one of `events`, or an error, is there now.
pub fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool> {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, events)];
    Ok(rustix::event::poll(&mut fds, Some(&now))? > 0)
}

/// Listens on the first of `addresses` that this system knows the family of.
pub fn listen_tcp(addresses: &[std::net::SocketAddr], family: Family) -> Result<ListenSocket> {
    let mut failed = Error::Resolve("the name has no address of this network".into());
    for address in addresses {
        match listen_tcp_one(address, family) {
            Err(error @ Error::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => failed = error,
            listening => return listening,
        }
    }
    Err(failed)
}

fn listen_tcp_one(address: &std::net::SocketAddr, family: Family) -> Result<ListenSocket> {
    let fd = nonblocking_socket(family_of(address), SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        // The v6 wildcard of network `tcp` takes v4 as well.
        sockopt::set_ipv6_v6only(&fd, family == Family::V6 || !address.ip().is_unspecified())?;
    }
    let address = bind_and_listen(&fd, address)?;
    Ok(ListenSocket::new(fd, address.into()))
}

fn bind_and_listen(fd: &OwnedFd, address: &impl SocketAddrArg) -> Result<SocketAddrAny> {
    rustix::net::bind(fd, address)?;
    rustix::net::listen(fd, BACKLOG)?;
    Ok(rustix::net::getsockname(fd)?)
}

/// Listens on a Unix address. For a path, the file's owner comes along; a dead socket's file in the
/// way is replaced.
pub fn listen_unix(
    name: &UnixName,
    kind: SocketType,
    mode: u32,
) -> Result<(ListenSocket, Option<SocketFile>)> {
    let fd = nonblocking_socket(AddressFamily::UNIX, kind)?;
    let file = take_name(&fd, name, mode, |address| Ok(rustix::net::bind(&fd, address)?))?;
    rustix::net::listen(&fd, BACKLOG)?;
    let address = rustix::net::getsockname(&fd)?.into();
    Ok((ListenSocket::new(fd, address), file))
}

/// A datagram socket at a Unix address, with its file as above; and where that is a path, another
/// that has the same name and that nobody reaches, to send from.
pub fn unixgram_at(name: &UnixName) -> Result<(OwnedFd, Option<OwnedFd>, Option<SocketFile>)> {
    let fd = datagram_socket(AddressFamily::UNIX)?;
    tune(&fd);
    let mode = Options::default().unix_mode();
    let mut second = None;
    let file = take_name(&fd, name, mode, |address| {
        if let UnixName::Path(path) = name {
            second = namesake(path, address).ok();
        }
        Ok(rustix::net::bind(&fd, address)?)
    })?;
    Ok((fd, second, file))
}

/// A datagram socket that has a path as its name, at which there is no file any more.
fn namesake(path: &[u8], address: &SocketAddrUnix) -> Result<OwnedFd> {
    let fd = datagram_socket(AddressFamily::UNIX)?;
    tune(&fd);
    // Whoever finds the file in its short life is to be refused.
    rustix::net::shutdown(&fd, Shutdown::Read)?;
    rustix::fs::fchmod(&fd, Mode::empty())?;
    rustix::net::bind(&fd, address)?;
    drop(SocketFile::just_bound(path)?);
    Ok(fd)
}
