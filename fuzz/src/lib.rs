//! What the targets share: inputs, which they read as programs; peers; and the reference decoder that
//! the library is compared with.

// Handles are tokens, not pointers: the library checks them.
#![allow(clippy::not_unsafe_ptr_arg_deref)]

use std::ffi::c_int;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use qnet::capi::handles::qnet_conn;
use qnet::capi::{conn, end, info};

pub const OK: c_int = 0;
pub const INVALID: c_int = -1;
pub const HANDLE: c_int = -2;
pub const CLOSED: c_int = -3;
pub const AGAIN: c_int = -5;
pub const FRAME_SIZE: c_int = -6;
pub const PROTOCOL: c_int = -7;
pub const INTERRUPTED: c_int = -10;

pub const FRAME_MIN: usize = 14;
pub const FRAME_MAX: usize = 69_632;

/// The bytes of a stream, as the reference understands them.
pub struct Decoded<'a> {
    /// Whole frames, runts included.
    pub frames: Vec<&'a [u8]>,
    /// The bytes after the frames: a part of a frame, or a length that no frame has.
    pub rest: &'a [u8],
    pub is_broken: bool,
}

/// The reference decoder.
pub fn decode(mut rest: &[u8]) -> Decoded<'_> {
    let mut frames = Vec::new();
    let mut is_broken = false;
    while rest.len() >= 4 {
        let len = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        is_broken = len > FRAME_MAX;
        if is_broken || rest.len() < 4 + len {
            break;
        }
        frames.push(&rest[4..4 + len]);
        rest = &rest[4 + len..];
    }
    Decoded { frames, rest, is_broken }
}

impl Decoded<'_> {
    /// The reason for which a connection ends whose stream ends here.
    pub fn end(&self) -> c_int {
        if self.rest.is_empty() { CLOSED } else { PROTOCOL }
    }
}

/// The rest of an input: operations of one byte each, followed by their operands.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// An operation, and the number that is in its upper bits.
    pub fn operation(&mut self) -> Option<(u8, usize)> {
        self.byte().map(|byte| (byte & 7, usize::from(byte >> 3)))
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> usize {
        self.bytes(2).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    /// The next `count` bytes, or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Appends a frame whose bytes tell its length and `tag`.
pub fn push_frame(stream: &mut Vec<u8>, header: &[u8], len: usize, tag: usize) {
    stream.extend_from_slice(&(len as u32).to_be_bytes());
    let body = (0..len).map(|at| (at ^ tag ^ len >> 3) as u8);
    let start = stream.len();
    stream.extend(body);
    let header = &header[..header.len().min(len)];
    stream[start..start + header.len()].copy_from_slice(header);
}

/// A connection, and the descriptor at its other end.
pub fn pair() -> (*mut qnet_conn, OwnedFd) {
    let (mut made, mut fd) = (ptr::null_mut(), -1);
    // SAFETY: both places may be written to.
    let code = unsafe { conn::qnet_socketpair_fd(&mut made, &mut fd) };
    assert_eq!(code, OK, "no socket pair");
    // SAFETY: the library has given the descriptor away.
    (made, unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for a connection's end, again if libFuzzer's alarm signal interrupts that.
pub fn wait(conn: *mut qnet_conn) -> c_int {
    loop {
        // SAFETY: the library checks handles itself.
        let code = unsafe { end::qnet_wait(conn, -1) };
        if code != INTERRUPTED {
            return code;
        }
    }
}

/// Writes as much as the socket takes, and returns that: 0 when it is full, `None` when nobody reads.
pub fn send(fd: &OwnedFd, bytes: &[u8]) -> Option<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is valid for its length.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    match (usize::try_from(sent), Error::last_os_error().raw_os_error()) {
        (Ok(sent), _) => Some(sent),
        (_, Some(libc::EAGAIN)) => Some(0),
        (_, Some(libc::EPIPE | libc::ECONNRESET)) => None,
        (_, error) => panic!("send: {error:?}"),
    }
}

/// Writes all bytes, unless nobody reads any more.
pub fn send_all(fd: &OwnedFd, mut bytes: &[u8]) {
    while let Some(sent) = send(fd, bytes)
        && sent < bytes.len()
    {
        bytes = &bytes[sent..];
        std::thread::yield_now();
    }
}

/// Ends what is sent on a socket.
pub fn shut(fd: &OwnedFd) {
    // SAFETY: the call touches no memory.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Reads everything that is there, without waiting.
pub fn receive_all(fd: &OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut room = [0u8; 16 << 10];
        let at = room.as_mut_ptr().cast();
        // SAFETY: `room` is valid for its length.
        let got = unsafe { libc::recv(fd.as_raw_fd(), at, room.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(1..) => all.extend_from_slice(&room[..got as usize]),
            _ => return all,
        }
    }
}

/// The counts of what a connection has received.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub frames: usize,
    pub bytes: usize,
    pub runts: usize,
}

pub fn received(conn: *mut qnet_conn) -> Received {
    let mut counts = [0u64; 3];
    // SAFETY: the struct begins with these three counts, and is filled as far as there is room.
    let known =
        unsafe { info::qnet_get_stats(conn, counts.as_mut_ptr().cast(), size_of_val(&counts)) };
    assert!(known > 0, "no counts: {known}");
    let [frames, bytes, runts] = counts.map(|count| count as usize);
    Received { frames, bytes, runts }
}
