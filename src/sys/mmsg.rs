//! Receiving and sending many messages with one system call: recvmmsg(2) and sendmmsg(2).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use smallvec::SmallVec;

use crate::frame::{self, PREFIX};
use crate::sys::memory;
use crate::sys::name::LONGEST;
use crate::sys::sockopt::returned;

/// The most messages that one call moves.
pub const MESSAGES: usize = 64;

/// The most datagrams that the kernel merges into one message on receiving (`UDP_MAX_SEGMENTS`).
const SEGMENTS: usize = 128;

/// The most datagrams into which every kernel splits one message on sending.
const SEGMENTS_SENT: usize = 64;

/// The most bytes of a message that the kernel splits: those of an IPv4 datagram without headers.
const SEGMENTED: usize = 65_535 - 20 - 8;

/// The room for reading one message, which begins with [`FRONT`] bytes that are left free.
pub const SLOT: usize = FRONT + frame::MAX;

/// Room for the prefixes of all frames that may be in one message.
const FRONT: usize = SEGMENTS * PREFIX;

/// The most frames in one call of sendmmsg(2).
const PIECES: usize = 512;

/// A number of frames, and of their bytes.
#[derive(Default, Clone, Copy)]
pub struct Size {
    pub frames: usize,
    pub bytes: usize,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Room for a control message of UDP, whose data is at most an int.
type Control = [u64; 3];

/// A header without name, buffers or control message.
// SAFETY: the struct consists of numbers and pointers, which may all be zero.
const NO_MESSAGE: libc::mmsghdr = unsafe { std::mem::zeroed() };

/// What recvmmsg(2) writes to: a buffer of slots, one for each message, and what belongs to each.
pub struct Inbox<'a> {
    room: &'a mut [MaybeUninit<u8>],
    headers: SmallVec<[libc::mmsghdr; MESSAGES]>,
    names: [MaybeUninit<libc::sockaddr_storage>; MESSAGES],
    controls: [MaybeUninit<Control>; MESSAGES],
}

impl<'a> Inbox<'a> {
    pub fn over(room: &'a mut [MaybeUninit<u8>]) -> Inbox<'a> {
        Inbox {
            room,
            headers: SmallVec::new(),
            names: [const { MaybeUninit::uninit() }; MESSAGES],
            controls: [const { MaybeUninit::uninit() }; MESSAGES],
        }
    }

    /// How many messages there is room for.
    pub fn slots(&self) -> usize {
        (self.room.len() / SLOT).min(MESSAGES)
    }

    /// Receives up to one message for each slot, without waiting. Returns how many.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, wants: Wants) -> rustix::io::Result<usize> {
        self.headers.clear();
        let mut pieces: SmallVec<[libc::iovec; MESSAGES]> = SmallVec::new();
        for slot in self.room.chunks_exact_mut(SLOT).take(MESSAGES) {
            let (iov_base, iov_len) = (slot[FRONT..].as_mut_ptr().cast(), SLOT - FRONT);
            pieces.push(libc::iovec { iov_base, iov_len });
        }
        for (at, piece) in pieces.iter_mut().enumerate() {
            let mut header = NO_MESSAGE;
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            if wants.names {
                header.msg_hdr.msg_name = self.names[at].as_mut_ptr().cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            }
            if wants.segments {
                header.msg_hdr.msg_control = self.controls[at].as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = size_of::<Control>() as _;
            }
            self.headers.push(header);
        }
        let (first, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the headers point to buffers, names and control messages that live during the
        // call.
        let received = returned(unsafe {
            libc::recvmmsg(fd.as_raw_fd(), first, count, flags, ptr::null_mut())
        });
        // Only these have been written by the kernel.
        self.headers.truncate(received.unwrap_or(0));
        received
    }

    /// One of the messages that were received. Of the pointers in its header it only matters
    /// whether they are null, since the inbox may have been moved.
    pub fn message(&self, at: usize) -> Message<'_> {
        let libc::mmsghdr { mut msg_hdr, msg_len } = self.headers[at];
        if !msg_hdr.msg_control.is_null() {
            msg_hdr.msg_control = self.controls[at].as_ptr().cast_mut().cast();
        }
        let has_name = !msg_hdr.msg_name.is_null();
        let name_len = if has_name { msg_hdr.msg_namelen as usize } else { 0 };
        let bytes = &self.room[at * SLOT + FRONT..][..msg_len as usize];
        Message {
            // SAFETY: the kernel has written these bytes, and `unpack` writes only initialized
            // ones.
            bytes: unsafe { memory::written(bytes) },
            is_cut: msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            segment: segment_of(&msg_hdr),
            sender: bytes_of(&self.names[at], name_len.min(LONGEST)),
        }
    }

    /// Moves the frames of a message to `to`, each after its prefix. `to` must be at or before the
    /// message's slot. Returns where the last frame ends.
    pub fn unpack(&mut self, at: usize, mut to: usize) -> usize {
        let from = at * SLOT + FRONT;
        let message = self.message(at);
        let step = message.step();
        // A message longer than any frame becomes an empty frame, and is counted as a runt.
        let is_odd = message.is_cut || message.frames() > SEGMENTS;
        let len = if is_odd { 0 } else { message.bytes.len() };
        let mut done = 0;
        loop {
            let frame_len = step.min(len - done);
            memory::write(&mut self.room[to..to + PREFIX], &frame::prefix(frame_len));
            self.room.copy_within(from + done..from + done + frame_len, to + PREFIX);
            to += PREFIX + frame_len;
            done += frame_len;
            if done == len {
                return to;
            }
        }
    }
}

/// What is to be received with each message, beside its bytes.
#[derive(Clone, Copy)]
pub struct Wants {
    /// The name of its sender.
    pub names: bool,
    /// The length of the datagrams that the kernel has merged into it.
    pub segments: bool,
}

/// One message that was received.
pub struct Message<'a> {
    pub bytes: &'a [u8],
    /// Whether it was longer than its slot.
    is_cut: bool,
    /// If it is several frames, the length of each but the last.
    segment: Option<usize>,
    /// The bytes of its sender's `struct sockaddr`. Empty if the sender has no name, or if that was
    /// not asked for.
    pub sender: &'a [u8],
}

impl Message<'_> {
    /// The length of each frame in it, but the last.
    fn step(&self) -> usize {
        self.segment.unwrap_or(self.bytes.len()).max(1)
    }

    /// How many frames are in it. An empty message is one empty frame.
    pub fn frames(&self) -> usize {
        self.bytes.len().div_ceil(self.step()).max(1)
    }
}

/// The first `len` bytes of a name, which the kernel must have written.
fn bytes_of(name: &MaybeUninit<libc::sockaddr_storage>, len: usize) -> &[u8] {
    let len = len.min(size_of::<libc::sockaddr_storage>());
    // SAFETY: the kernel has written that many bytes, and `name` is not shorter.
    unsafe { std::slice::from_raw_parts(name.as_ptr().cast(), len) }
}

/// The length of the merged datagrams, if the message's control message tells one.
fn segment_of(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has written the header, and the control message that it points to.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header).as_ref()?;
        let is_segment = control.cmsg_level == libc::SOL_UDP && control.cmsg_type == libc::UDP_GRO;
        let segment = libc::CMSG_DATA(control).cast::<libc::c_int>();
        is_segment.then(|| segment.read_unaligned() as usize)
    }
}

/// Has the kernel split a message into datagrams of `len` bytes.
fn write_segment(header: &mut libc::msghdr, control: &mut MaybeUninit<Control>, len: usize) {
    let data = len as u16;
    header.msg_control = control.write([0; 3]).as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the header points to a control message that has
    // room for two bytes of data.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of_val(&data) as u32) as _;
        let control = &mut *libc::CMSG_FIRSTHDR(header);
        control.cmsg_level = libc::SOL_UDP;
        control.cmsg_type = libc::UDP_SEGMENT;
        control.cmsg_len = libc::CMSG_LEN(size_of_val(&data) as u32) as _;
        libc::CMSG_DATA(control).cast::<u16>().write_unaligned(data);
    }
}

/// Takes an error out of a socket's error queue (ip(7), `IP_RECVERR`). Returns whether it was
/// reported by ICMP, that is by another host, or by this one as the receiver; or `None` if the
/// queue is empty.
pub fn next_error(fd: BorrowedFd<'_>) -> Option<bool> {
    let mut control = [0u64; 16];
    let mut header = NO_MESSAGE.msg_hdr;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header points to room for control messages, which lives during the call.
    returned(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) } as _).ok()?;
    // SAFETY: the kernel has written the header, and the control message that it points to.
    unsafe {
        let Some(control) = libc::CMSG_FIRSTHDR(&raw const header).as_ref() else {
            return Some(false);
        };
        let is_error = matches!(
            (control.cmsg_level, control.cmsg_type),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
        );
        let error = libc::CMSG_DATA(control).cast::<libc::sock_extended_err>();
        let is_told = |origin| matches!(origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
        Some(is_error && is_told(error.read_unaligned().ee_origin))
    }
}

/// Messages to send, in order. Each is one frame, or several into which the kernel splits it.
pub struct Outbox<'a> {
    pieces: SmallVec<[IoSlice<'a>; PIECES]>,
    messages: SmallVec<[Segments; MESSAGES]>,
    /// How many messages were taken out.
    taken: usize,
    /// How many frames were taken out with them.
    pub done: usize,
}

/// The frames of one message. They have the same length, but the last may be shorter.
#[derive(Clone, Copy)]
struct Segments {
    /// The index of its first piece.
    first: usize,
    size: Size,
    /// The length of the first frame.
    len: usize,
    /// The length of the last frame.
    last: usize,
}

impl Segments {
    /// Whether a frame of this length may join, if only frames of at most `longest` bytes share a
    /// message.
    fn admits(&self, len: usize, longest: usize) -> bool {
        len <= self.len
            && self.last == self.len
            && self.len <= longest
            && self.size.frames < SEGMENTS_SENT
            && self.size.bytes + len <= SEGMENTED
    }

    fn add(&mut self, len: usize) {
        self.size.add(Size { frames: 1, bytes: len });
        self.last = len;
    }
}

impl<'a> Outbox<'a> {
    pub fn new() -> Outbox<'a> {
        Outbox { pieces: SmallVec::new(), messages: SmallVec::new(), taken: 0, done: 0 }
    }

    /// Takes frames for at most `most` messages, after all earlier messages were taken out. Frames
    /// of at most `longest` bytes may share a message.
    pub fn fill(
        &mut self,
        frames: &mut (impl Iterator<Item = &'a [u8]> + Clone),
        most: usize,
        longest: usize,
    ) {
        self.pieces.clear();
        self.messages.clear();
        (self.taken, self.done) = (0, 0);
        let mut ahead = frames.clone();
        while self.pieces.len() < PIECES {
            let Some(frame) = ahead.next() else {
                break;
            };
            let (first, len) = (self.pieces.len(), frame.len());
            let count = self.messages.len();
            match self.messages.last_mut().filter(|last| last.admits(len, longest)) {
                Some(last) => last.add(len),
                None if count == most => break,
                None => {
                    let size = Size { frames: 1, bytes: len };
                    self.messages.push(Segments { first, size, len, last: len });
                }
            }
            self.pieces.push(IoSlice::new(frame));
            *frames = ahead.clone();
        }
    }

    fn left(&self) -> &[Segments] {
        &self.messages[self.taken..]
    }

    /// How many messages have not been taken out.
    pub fn len(&self) -> usize {
        self.left().len()
    }

    pub fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    /// The sizes of the messages that have not been taken out.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        self.left().iter().map(|message| message.size)
    }

    /// The first frame that has not been taken out.
    pub fn front(&self) -> &IoSlice<'a> {
        &self.pieces[self.left()[0].first]
    }

    /// Takes out the first `count` messages. Returns their size.
    pub fn take(&mut self, count: usize) -> Size {
        let mut size = Size::default();
        self.sizes().take(count).for_each(|message| size.add(message));
        self.taken += count;
        self.done += size.frames;
        size
    }

    /// Sends as many messages as the socket takes, without waiting: to the `struct sockaddr` in
    /// `to`, or to the socket's peer if that is empty. Returns how many.
    pub fn send(&self, fd: BorrowedFd<'_>, to: &[u8]) -> rustix::io::Result<usize> {
        let mut controls: [MaybeUninit<Control>; MESSAGES] = [MaybeUninit::uninit(); MESSAGES];
        let mut headers: SmallVec<[libc::mmsghdr; MESSAGES]> = SmallVec::new();
        for (message, control) in self.left().iter().zip(&mut controls) {
            let pieces = &self.pieces[message.first..][..message.size.frames];
            let mut header = NO_MESSAGE;
            // An IoSlice has the layout of `struct iovec`. The kernel only reads these.
            header.msg_hdr.msg_iov = pieces.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = pieces.len() as _;
            if !to.is_empty() {
                header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_namelen = to.len() as _;
            }
            if pieces.len() > 1 {
                write_segment(&mut header.msg_hdr, control, message.len);
            }
            headers.push(header);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (first, count) = (headers.as_mut_ptr(), headers.len() as u32);
        // SAFETY: the headers point to frames, an address and control messages that live during the
        // call.
        returned(unsafe { libc::sendmmsg(fd.as_raw_fd(), first, count, flags) })
    }
}
