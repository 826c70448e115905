//! Sockets on which a message is a frame: datagrams, SEQPACKET, and the kernel's TAP interfaces.
//!
//! To the rest of the library they are streams: what is read lies in wire format, and what is written
//! comes in it.

pub mod remote;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::frame::{self, PREFIX, Walk};
use crate::net::messages::remote::{Name, Remote, Strangers};
use crate::net::socket::{self, Got, Lost, MESSAGE, Read, Written, datagram_socket};
use crate::net::socket_file::SocketFile;
use crate::net::tap;
use crate::runtime::lock::lock;
use crate::sys::mmsg::{
    self, FRONT, Inbox, MESSAGES, Message, Outbox, SEGMENTS, SLOT, Size, Wants,
};

/// How many messages one call sends to a Unix socket: as a rule its queue has 10 at most
/// (`net.unix.max_dgram_qlen`).
const UNIX_MESSAGES: usize = 16;

/// What vfkit sends before its first frame, to say who it is.
const VFKIT: &[u8] = b"VFKT";

/// The most bytes of a UDP datagram, less the headers.
const UDP_V4_MAX: usize = 65_535 - 20 - 8;
const UDP_V6_MAX: usize = 65_535 - 8;

/// How often a message is tried, or a read, that the error of another stands against.
const TRIES: u32 = 4;

/// How many messages of UDP are remembered before it is asked what became of them: more than one call
/// sends.
const RECENT: usize = 2 * MESSAGES;

/// By what way messages go.
pub enum Messages {
    /// A Unix datagram socket with a peer: one end of a pair.
    Paired,
    /// The same, whose peer's leaving is seen.
    Sequenced,
    Udp(Udp),
    Unix(UnixDgram),
    Multicast(Multicast),
    Tap(Tap),
}

/// A UDP socket.
pub struct Udp {
    is_v4: bool,
    peer: UdpPeer,
    /// Up to what length frames are left to the kernel to make datagrams of. Relaxed, as all here:
    /// one thread sends at a time.
    segment_max: AtomicUsize,
    sent: Mutex<Sent>,
}

/// Whom a UDP socket sends to and hears.
pub enum UdpPeer {
    /// To whom somebody else has connected it: the kernel keeps strangers' datagrams from it.
    Adopted,
    /// To whom it is connected, which is less work than a name with each message. What comes from
    /// others goes to a socket of theirs.
    Given(Strangers),
    /// Whoever sends; the socket is not connected.
    Sender(Box<Remote>),
}

/// What became of UDP messages after they were sent.
#[derive(Default)]
struct Sent {
    /// The last of those that nothing was heard of.
    recent: Vec<Size>,
    /// Those that the peer's host has refused.
    refused: Lost,
}

/// A Unix datagram socket at a name. It is not connected: it would stay with a
/// remote that has gone, and the next one of that name could not send to it. But its second socket
/// is, once there is much to send: the kernel looks up a path for as long as it sends a frame.
pub struct UnixDgram {
    remote: Box<Remote>,
    /// Connected to the remote, to learn when that has room again; and if `is_namesake`, to send from.
    out: OwnedFd,
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
    file: Option<SocketFile>,
}

/// A member of a group. It sends through a socket of its own, so that its echo can be told from what
/// others on this host send, whose source is the group's port as well.
pub struct Multicast {
    out: OwnedFd,
    source: SocketAddr,
}

/// One of the kernel's interfaces.
pub struct Tap {
    name: String,
    /// Whether its reads wait: an adopted one's O_NONBLOCK is left alone.
    waits: bool,
}

impl Udp {
    pub fn over(fd: BorrowedFd<'_>, is_v4: bool, peer: UdpPeer) -> Udp {
        // Without the ones refusals are not counted (a v6 socket may have a v4 peer), without the
        // other each datagram is a message.
        let _ = mmsg::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
        let _ = mmsg::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
        let _ = mmsg::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
        // A kernel before 4.18 would send what it is to cut as it is.
        let is_cut = mmsg::set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        Udp {
            is_v4,
            peer,
            segment_max: AtomicUsize::new(if is_cut { frame::MAX } else { 0 }),
            sent: Mutex::default(),
        }
    }

    /// Sends messages from the front. Returns how many were.
    fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        let to = match &self.peer {
            UdpPeer::Sender(remote) => Some(remote.now().0.ok_or(Errno::DESTADDRREQ)?),
            _ => None,
        };
        // Meanwhile nobody else counts: what is refused at once is not yet among the recent ones.
        let mut sent = lock(&self.sent);
        let count = outbox.send(fd, to.as_ref().map_or(&[], Name::bytes));
        sent.recent.extend(outbox.sizes().take(count.unwrap_or(0)));
        if count != Ok(outbox.len()) || sent.recent.len() > RECENT {
            // It stopped at an error that it may not have told.
            sent.look_for_refusals(fd);
            sent.forget();
        }
        count
    }
}

impl Sent {
    /// Counts what the peer's host has refused. The kernel tells of it once a message, whatever
    /// datagrams it made of it, and soon: so it is one of the last.
    fn look_for_refusals(&mut self, fd: BorrowedFd<'_>) {
        while let Some(is_refusal) = mmsg::next_error(fd) {
            if let Some(Size { frames, bytes }) = self.recent.pop_if(|_| is_refusal) {
                self.refused.add(Lost { frames: frames as u64, bytes: bytes as u64 });
            }
        }
    }

    fn forget(&mut self) {
        self.recent.drain(..self.recent.len().saturating_sub(MESSAGES));
    }
}

impl UnixDgram {
    pub fn new(
        remote: Box<Remote>,
        namesake: Option<OwnedFd>,
        file: Option<SocketFile>,
    ) -> Result<UnixDgram> {
        let is_namesake = namesake.is_some();
        let out = namesake.map_or_else(|| datagram_socket(AddressFamily::UNIX), Ok)?;
        let (turn, is_direct, refusals) = Default::default();
        let unix = UnixDgram { remote, out, is_namesake, turn, is_direct, refusals, file };
        unix.start_over();
        Ok(unix)
    }

    /// Nothing is known of the remote's room.
    fn start_over(&self) {
        self.set_direct(false);
        self.refusals.store(1, Ordering::Relaxed);
    }

    fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    fn set_direct(&self, is_direct: bool) {
        self.is_direct.store(is_direct, Ordering::Relaxed);
    }

    /// Whether it has to wait for the remote's room, rather than for its own alone: that is rarely
    /// full, and looked at where the remote seemed to have room.
    fn waits_for_remote(&self, fd: BorrowedFd<'_>) -> bool {
        self.is_direct()
            || self.refusals.load(Ordering::Relaxed) == 1
            || socket::is_ready(fd, PollFlags::OUT) == Ok(true)
    }

    /// Sends messages from the front. Returns how many were.
    fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
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
    fn watch_room(&self) {
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

impl Multicast {
    pub fn new(out: OwnedFd, source: SocketAddr) -> Multicast {
        socket::tune(&out);
        Multicast { out, source }
    }

    fn is_own(&self, sender: &[u8]) -> bool {
        if sender.is_empty() {
            return false;
        }
        // SAFETY: these are the bytes of an address that the kernel has written, and their number.
        let sender = unsafe { SocketAddrAny::read(sender.as_ptr().cast(), sender.len() as _) };
        SocketAddr::try_from(sender) == Ok(self.source)
    }
}

impl Tap {
    pub fn new(name: String) -> Tap {
        Tap { name, waits: false }
    }

    /// That of somebody's descriptor.
    pub fn adopted(fd: BorrowedFd<'_>) -> Result<Tap> {
        let name = tap::name_of(fd)?;
        Ok(Tap { name, waits: !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one frame after another, each to where it is to lie.
    fn read(&self, fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        let mut got = Got { is_full: true, ..Got::default() };
        while got.calls < MESSAGES as u64
            && let Some(slot) = room.get_mut(got.bytes..got.bytes + PREFIX + frame::MAX)
        {
            let (prefix, slot) = slot.split_at_mut(PREFIX);
            let read = match !self.waits || socket::is_ready(fd, PollFlags::IN)? {
                true => rustix::io::read(fd, slot).map(|(read, _)| read.len()),
                false => Err(Errno::AGAIN),
            };
            let len = match read {
                Ok(len) => len,
                // What came before is delivered first; then it fails again.
                Err(errno) if errno == Errno::AGAIN || errno == Errno::INTR || got.calls > 0 => {
                    got.is_full = false;
                    break;
                }
                Err(errno) => return Err(Error::Os(errno)),
            };
            prefix.write_copy_of_slice(&frame::prefix(len));
            got.bytes += PREFIX + len;
            got.taken += len.max(MESSAGE) as u64;
            got.calls += 1;
        }
        Ok(if got.calls > 0 { Read::Bytes(got) } else { Read::Empty })
    }
}

impl Messages {
    /// Those of a socket that has a peer.
    pub fn of_connected(fd: BorrowedFd<'_>, kind: SocketType) -> Result<Messages> {
        match (sockopt::socket_domain(fd)?, kind) {
            (AddressFamily::UNIX, SocketType::DGRAM) => Ok(Messages::Paired),
            (AddressFamily::UNIX, SocketType::SEQPACKET) => Ok(Messages::Sequenced),
            (AddressFamily::INET, SocketType::DGRAM) => {
                Ok(Messages::Udp(Udp::over(fd, true, UdpPeer::Adopted)))
            }
            (AddressFamily::INET6, SocketType::DGRAM) => {
                Ok(Messages::Udp(Udp::over(fd, false, UdpPeer::Adopted)))
            }
            _ => Err(Error::Unsupported("the descriptor is a socket of another kind")),
        }
    }

    /// The longest frame that fits a message.
    pub fn max_frame(&self) -> usize {
        match self {
            Messages::Udp(Udp { is_v4: true, .. }) | Messages::Multicast(_) => UDP_V4_MAX,
            Messages::Udp(_) => UDP_V6_MAX,
            _ => frame::MAX,
        }
    }

    /// The file that was made for the socket.
    pub fn file(&self) -> Option<&SocketFile> {
        match self {
            Messages::Unix(unix) => unix.file.as_ref(),
            _ => None,
        }
    }

    /// Whether the peer's leaving is seen. Then one that does not read is waited for, as on a stream.
    pub fn ends(&self) -> bool {
        matches!(self, Messages::Sequenced)
    }

    /// Whom it sends to and hears, where the kernel does not know.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            Messages::Udp(Udp { peer: UdpPeer::Sender(remote), .. }) => Some(remote),
            Messages::Unix(unix) => Some(&unix.remote),
            _ => None,
        }
    }

    /// How many messages from strangers the kernel has kept from it.
    pub fn kept_away(&self) -> u64 {
        match self {
            Messages::Udp(Udp { peer: UdpPeer::Given(strangers), .. }) => strangers.count(),
            _ => 0,
        }
    }

    /// What was refused after it had been sent.
    pub fn refused(&self, fd: BorrowedFd<'_>) -> Lost {
        let Messages::Udp(udp) = self else {
            return Lost::default();
        };
        let mut sent = lock(&udp.sent);
        sent.look_for_refusals(fd);
        sent.refused
    }

    /// The descriptor to wait on for room, where it is not `fd`.
    pub fn room(&self, fd: BorrowedFd<'_>) -> Option<BorrowedFd<'_>> {
        match self {
            Messages::Multicast(group) => Some(group.out.as_fd()),
            Messages::Unix(unix) if unix.waits_for_remote(fd) => Some(unix.out.as_fd()),
            _ => None,
        }
    }

    /// The descriptor that it can be.
    pub fn second_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Messages::Multicast(group) => Some(group.out.as_fd()),
            Messages::Unix(unix) => Some(unix.out.as_fd()),
            _ => None,
        }
    }

    fn wants(&self) -> Wants {
        Wants {
            names: self.remote().is_some() || matches!(self, Messages::Multicast(_)),
            segments: matches!(self, Messages::Udp(_)),
        }
    }

    /// How many messages one call is to send.
    fn most(&self) -> usize {
        match self {
            Messages::Paired | Messages::Sequenced | Messages::Unix(_) => UNIX_MESSAGES,
            _ => MESSAGES,
        }
    }
}

/// Reading.
impl Messages {
    /// Reads as many messages as there are, and slots for in `room`, into wire format.
    pub fn read(&self, fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        match self {
            Messages::Tap(tap) => tap.read(fd, room),
            _ => self.receive(fd, room),
        }
    }

    fn receive(&self, fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Result<Read> {
        let slots = (room.len() / SLOT).min(MESSAGES);
        let mut inbox = Inbox::new();
        let mut tries = 0;
        let count = loop {
            match inbox.receive(fd, &mut room[..slots * SLOT], self.wants()) {
                Ok(count) => break count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Read::Empty),
                // What waits comes behind that.
                Err(errno) if tries < TRIES && self.survives(fd, errno) => tries += 1,
                Err(errno) if self.ends() => return Err(Error::Os(errno)),
                Err(_) => return Ok(Read::Empty),
            }
        };
        let mut got = Got { calls: 1, ..Got::default() };
        let mut hearing = self.remote().map(Remote::hearing);
        for at in 0..count {
            let message = inbox.message(at);
            let start = at * SLOT + FRONT;
            got.taken += message.len.max(MESSAGE) as u64;
            let is_last = || (at..count).all(|at| inbox.message(at).len == 0);
            if message.len == 0 && self.ends() && is_last() && self.has_ended(fd) {
                return Ok(if got.bytes == 0 { Read::End } else { Read::Bytes(got) });
            }
            if hearing.as_mut().is_some_and(|hearing| !hearing.admits(message.sender)) {
                got.foreign += message.len.div_ceil(message.step()).max(1) as u64;
            } else if self.takes(&message, &room[start..start + message.len]) {
                got.bytes = unpack(room, start, &message, got.bytes);
            }
        }
        got.is_full = count == slots && got.bytes > 0;
        Ok(Read::Bytes(got))
    }

    /// Whether an error that a read met stands for itself alone: one of datagrams is of some that were
    /// sent, and a reset says that the peer left with frames unread.
    fn survives(&self, fd: BorrowedFd<'_>, errno: Errno) -> bool {
        match self {
            Messages::Sequenced => errno == Errno::CONNRESET,
            Messages::Udp(udp) => {
                lock(&udp.sent).look_for_refusals(fd);
                true
            }
            _ => true,
        }
    }

    /// Whether a message is to be delivered.
    fn takes(&self, message: &Message<'_>, bytes: &[MaybeUninit<u8>]) -> bool {
        match self {
            Messages::Multicast(group) => !group.is_own(message.sender),
            Messages::Unix(_) | Messages::Paired => !is_vfkits(bytes),
            _ => true,
        }
    }

    /// Whether an empty message is the end: the peer has left, and nothing with bytes in it waits.
    pub fn has_ended(&self, fd: BorrowedFd<'_>) -> bool {
        socket::is_ready(fd, PollFlags::RDHUP) == Ok(true)
            && rustix::io::ioctl_fionread(fd) == Ok(0)
    }
}

fn is_vfkits(bytes: &[MaybeUninit<u8>]) -> bool {
    // SAFETY: the kernel wrote the message.
    bytes.len() == VFKIT.len() && unsafe { bytes.assume_init_ref() } == VFKIT
}

/// Moves the frames of a message, which lie at `from`, behind their prefixes to `to`, which is before
/// that. Returns where they end.
fn unpack(
    room: &mut [MaybeUninit<u8>],
    from: usize,
    message: &Message<'_>,
    mut to: usize,
) -> usize {
    let step = message.step();
    // One that is longer than any frame counts as a runt does.
    let is_odd = message.is_cut || message.len.div_ceil(step) > SEGMENTS;
    let len = if is_odd { 0 } else { message.len };
    let mut at = 0;
    loop {
        let frame_len = step.min(len - at);
        room[to..to + PREFIX].write_copy_of_slice(&frame::prefix(frame_len));
        room.copy_within(from + at..from + at + frame_len, to + PREFIX);
        to += PREFIX + frame_len;
        at += frame_len;
        if at == len {
            return to;
        }
    }
}

/// Writing.
impl Messages {
    /// Sends the frames of `pieces`: some in wire format, or a prefix and its frame. What there is no
    /// room for is not taken, or lost if the writer `gives_up`.
    pub fn write(
        &self,
        fd: BorrowedFd<'_>,
        pieces: &[IoSlice<'_>],
        gives_up: bool,
    ) -> rustix::io::Result<Written> {
        match pieces {
            [bytes] => self.send(fd, Walk::over(bytes), gives_up),
            [_prefix, frame] => self.send(fd, std::iter::once(&**frame), gives_up),
            _ => Err(Errno::INVAL),
        }
    }

    pub fn send<'a>(
        &self,
        fd: BorrowedFd<'_>,
        mut frames: impl Iterator<Item = &'a [u8]> + Clone,
        gives_up: bool,
    ) -> rustix::io::Result<Written> {
        let mut written = Written::default();
        let mut outbox = Outbox::new();
        let mut tries = 0;
        loop {
            let before = frames.clone();
            outbox.fill(&mut frames, self.most(), self.segment_max());
            if outbox.is_empty() {
                return Ok(written);
            }
            while !outbox.is_empty() {
                let failed = match self.transmit(fd, &outbox) {
                    Ok(sent) => {
                        written.calls += 1;
                        written.sent(outbox.take(sent));
                        tries = 0;
                        continue;
                    }
                    Err(errno) => errno,
                };
                tries += 1;
                match self.judge(failed, &outbox, tries) {
                    Verdict::Full => {
                        written.is_full = !self.ends();
                        written.is_short = failed != Errno::AGAIN;
                        // What has just taken something is worth waiting for.
                        let is_hopeless = gives_up && written.calls == 0;
                        let lost = |written: Written| written.lose_all(outbox, frames);
                        return Ok(if is_hopeless { lost(written) } else { written });
                    }
                    Verdict::Again => {}
                    Verdict::OneLost => written.lost(outbox.take(1)),
                    Verdict::AllLost => return Ok(written.lose_all(outbox, frames)),
                    // What was sent before is counted first; then it fails again.
                    Verdict::Ended if written.bytes > 0 => return Ok(written),
                    Verdict::Ended => return Err(failed),
                    Verdict::Unsegmented => {
                        frames = before.clone();
                        (0..outbox.done).for_each(|_| _ = frames.next());
                        outbox.take(outbox.len());
                    }
                }
            }
        }
    }

    /// Up to what length frames are left to the kernel to cut into datagrams.
    fn segment_max(&self) -> usize {
        match self {
            Messages::Udp(udp) => udp.segment_max.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Sends messages from the front. Returns how many were.
    fn transmit(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        match self {
            Messages::Tap(_) => rustix::io::write(fd, outbox.front()).map(|_| 1),
            Messages::Multicast(group) => outbox.send(group.out.as_fd(), &[]),
            Messages::Unix(unix) => unix.send(fd, outbox),
            Messages::Udp(udp) => udp.send(fd, outbox),
            _ => outbox.send(fd, &[]),
        }
    }

    /// What an error means for the messages that are left.
    fn judge(&self, errno: Errno, outbox: &Outbox<'_>, tries: u32) -> Verdict {
        match (self, errno) {
            (Messages::Unix(unix), Errno::AGAIN) => {
                unix.watch_room();
                Verdict::Full
            }
            (_, Errno::AGAIN) => Verdict::Full,
            (_, Errno::INTR) => Verdict::Again,
            // Nobody has sent yet who could be the remote.
            (_, Errno::DESTADDRREQ) => Verdict::AllLost,
            // Another may have the remote's name now.
            (Messages::Unix(unix), _) if unix.is_direct() => {
                unix.set_direct(false);
                Verdict::Again
            }
            (Messages::Udp(udp), Errno::INVAL | Errno::MSGSIZE | Errno::IO | Errno::OPNOTSUPP)
                if outbox.sizes().next().is_some_and(|size| size.frames > 1) =>
            {
                udp.segment_max.store(outbox.front().len() - 1, Ordering::Relaxed);
                Verdict::Unsegmented
            }
            (_, Errno::MSGSIZE | Errno::INVAL) => Verdict::OneLost,
            // Short of memory is no end of it: nothing was taken.
            (Messages::Sequenced, _) => Verdict::Ended,
            (_, Errno::NOBUFS | Errno::NOMEM) => Verdict::Full,
            // That of a message before.
            (Messages::Udp(_), _) if tries < TRIES => Verdict::Again,
            // Taken away; one that is only down gives EIO.
            (Messages::Tap(_), Errno::BADFD | Errno::BADF | Errno::NODEV) => Verdict::Ended,
            _ => Verdict::AllLost,
        }
    }
}

/// What is to be done after an error.
enum Verdict {
    /// Wait for room, or for memory.
    Full,
    Again,
    /// The same in datagrams of one frame.
    Unsegmented,
    OneLost,
    /// The remote is not there, or not to be reached.
    AllLost,
    Ended,
}

impl Written {
    fn sent(&mut self, size: Size) {
        self.bytes += size.bytes + size.frames * PREFIX;
    }

    fn lost(&mut self, size: Size) {
        self.sent(size);
        self.lost.frames += size.frames as u64;
        self.lost.bytes += size.bytes as u64;
    }

    fn lose_all<'a>(
        mut self,
        mut outbox: Outbox<'_>,
        frames: impl Iterator<Item = &'a [u8]>,
    ) -> Written {
        self.lost(outbox.take(outbox.len()));
        frames.for_each(|frame| self.lost(Size { frames: 1, bytes: frame.len() }));
        self
    }
}
