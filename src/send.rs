//! Sending: frames are taken whole or not at all, and what is taken is written in order.
//!
//! The socket may take a part of a frame. The rest of that one frame is kept, and whoever comes next
//! writes it first: its sender, which waits; another sender; or the library's own thread, once
//! nobody waits. So no lock is held while a thread waits, and threads never mix their bytes.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::conn::{Conn, qnet_stats};
use crate::error::{Error, Result};
use crate::frame::{self, PREFIX};
use crate::handle::{Ref, Token};
use crate::options::{self, Options};
use crate::process::{lock, process};
use crate::socket::Socket;
use crate::wake::Deadline;

/// The most that one write gathers of small frames.
const GATHER: usize = 128 << 10;

/// The sending part of a connection.
#[derive(Default)]
pub struct Tx {
    /// The token of the connection that it belongs to.
    pub token: Token,
    socket: Option<Arc<Socket>>,
    /// Why no more can be sent: the end as reported, or as a write met it.
    end: Option<Error>,
    rest: Rest,
    /// How many frames have been cut so far: tells a sender whether the rest is still its own.
    cuts: u64,
    timeout_ms: i64,
    max_frame: usize,
    pad: bool,
    frames: u64,
    bytes: u64,
    dropped: u64,
    writes: u64,
}

/// What is not yet written of a frame that the socket has taken a part of.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    written: usize,
    frame_len: usize,
}

impl Rest {
    fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    fn is_empty(&self) -> bool {
        self.unwritten().is_empty()
    }

    fn clear(&mut self) {
        // Its memory goes too: a frame is seldom cut, and an idle connection is to be small.
        *self = Rest::default();
    }
}

/// A frame as it goes onto the wire: prefix, bytes, padding.
#[derive(Clone, Copy)]
struct Wire<'a> {
    prefix: [u8; PREFIX],
    frame: &'a [u8],
    padding: &'static [u8],
}

impl<'a> Wire<'a> {
    fn parts(&self) -> [&[u8]; 3] {
        [&self.prefix, self.frame, self.padding]
    }

    fn frame_len(&self) -> usize {
        self.frame.len() + self.padding.len()
    }

    fn len(&self) -> usize {
        PREFIX + self.frame_len()
    }

    /// Its bytes from `at` on.
    fn bytes_from(&self, at: usize) -> Vec<u8> {
        self.parts().concat().split_off(at)
    }
}

/// Frames to send: each is given as bytes, or as the reason why it cannot be one.
pub trait Frames<'a>: Iterator<Item = Result<&'a [u8]>> + Clone {}

impl<'a, I: Iterator<Item = Result<&'a [u8]>> + Clone> Frames<'a> for I {}

impl Tx {
    pub fn new(token: Token, socket: Arc<Socket>, options: &Options) -> Tx {
        let mut tx = Tx { token, socket: Some(socket), ..Tx::default() };
        tx.configure(options);
        tx
    }

    pub fn configure(&mut self, options: &Options) {
        self.timeout_ms = options.get(options::SEND_TIMEOUT_MS);
        self.max_frame = options.max_frame();
        self.pad = options.pad();
    }

    pub fn add_to(&self, stats: &mut qnet_stats) {
        stats.tx_frames = self.frames;
        stats.tx_bytes = self.bytes;
        stats.tx_dropped = self.dropped;
        stats.tx_writes = self.writes;
    }

    /// No send is taken any more; what was taken is still written.
    pub fn end(&mut self, reason: Error) {
        self.end = Some(reason);
    }

    /// The socket of a live connection.
    fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// How reading the stream must take its end: a reset that a write met is no end in order.
    pub fn reset(&self) -> Option<Error> {
        self.end.clone().filter(|end| matches!(end, Error::Os(_)))
    }

    /// Gives up the rest of a cut frame.
    pub fn drop_rest(&mut self) {
        if self.has_rest() {
            self.dropped += 1;
            self.rest.clear();
        }
    }

    /// Writes what it can of the rest of a cut frame. An error is the end of sending.
    pub fn write_rest(&mut self) {
        if self.rest.is_empty() {
            return;
        }
        let written = self.socket().write(&[IoSlice::new(self.rest.unwritten())]);
        match self.wrote(written) {
            Ok(n) => self.rest.written += n,
            // Short of memory for now: the rest stays.
            Err(Error::Os(Errno::NOMEM | Errno::NOBUFS)) => {}
            Err(_) => self.drop_rest(),
        }
        if !self.rest.bytes.is_empty() && self.rest.is_empty() {
            self.frames += 1;
            self.bytes += self.rest.frame_len as u64;
            self.rest.clear();
        }
    }

    /// Writes what the socket takes at once of `frames`, which then begins with the first frame
    /// not taken. Returns how many were.
    fn write<'a>(&mut self, frames: &mut impl Frames<'a>) -> Result<usize> {
        let mut ahead = frames.clone();
        let Some(first) = ahead.next() else {
            return Ok(0);
        };
        let first = self.wire(first?)?;
        let written = match ahead.next() {
            None => self.write_one(&first),
            Some(_) => self.write_gathered(frames.clone()),
        };
        let written = self.wrote(written)?;
        Ok(self.take(frames, written))
    }

    fn write_one(&self, wire: &Wire<'_>) -> rustix::io::Result<usize> {
        let parts = wire.parts().map(IoSlice::new);
        let used = if wire.padding.is_empty() { 2 } else { 3 };
        self.socket().write(&parts[..used])
    }

    fn write_gathered<'a>(&self, frames: impl Frames<'a>) -> rustix::io::Result<usize> {
        let mut gathered = process().gather.take();
        for frame in frames {
            let Ok(wire) = frame.and_then(|frame| self.wire(frame)) else {
                break;
            };
            if !gathered.is_empty() && gathered.len() + wire.len() > GATHER {
                break;
            }
            for part in wire.parts() {
                gathered.extend_from_slice(part);
            }
        }
        let written = self.socket().write(&[IoSlice::new(&gathered)]);
        process().gather.give_back(gathered);
        written
    }

    /// Counts a write; an error that the connection does not survive ends sending.
    fn wrote(&mut self, written: rustix::io::Result<usize>) -> Result<usize> {
        match written {
            Ok(n) => {
                self.writes += u64::from(n > 0);
                Ok(n)
            }
            Err(errno @ (Errno::NOMEM | Errno::NOBUFS)) => Err(Error::Os(errno)),
            Err(errno) => {
                let end = if errno == Errno::PIPE { Error::Closed } else { Error::Os(errno) };
                Err(self.end.get_or_insert(end).clone())
            }
        }
    }

    /// Moves past the frames that the socket has taken `written` bytes of, and keeps the rest of
    /// one that was cut.
    fn take<'a>(&mut self, frames: &mut impl Frames<'a>, mut written: usize) -> usize {
        let mut taken = 0;
        while written > 0 {
            let wire = frames.next().and_then(|frame| self.wire(frame.ok()?).ok());
            let wire = wire.expect("as many frames as were written");
            taken += 1;
            if written < wire.len() {
                let bytes = wire.bytes_from(written);
                self.rest = Rest { bytes, written: 0, frame_len: wire.frame_len() };
                self.cuts += 1;
                break;
            }
            written -= wire.len();
            self.frames += 1;
            self.bytes += wire.frame_len() as u64;
        }
        taken
    }

    fn wire<'a>(&self, frame: &'a [u8]) -> Result<Wire<'a>> {
        if !(frame::MIN..=self.max_frame).contains(&frame.len()) {
            let (len, max) = (frame.len(), self.max_frame);
            let why = format!("a frame of {len} bytes (it may have {} to {max})", frame::MIN);
            return Err(Error::FrameSize(why));
        }
        static ZEROES: [u8; frame::PADDED] = [0; frame::PADDED];
        let missing = if self.pad { frame::PADDED.saturating_sub(frame.len()) } else { 0 };
        let prefix = frame::prefix(frame.len() + missing);
        Ok(Wire { prefix, frame, padding: &ZEROES[..missing] })
    }
}

/// Buffers to gather frames in, shared: as many as there are threads that send at one time.
#[derive(Default)]
pub struct Gather(Mutex<Vec<Vec<u8>>>);

impl Gather {
    fn take(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_else(|| Vec::with_capacity(GATHER))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        lock(&self.0).push(buffer);
    }
}

/// Whether the frame at the front, which is cut short, would be no frame if it were whole.
fn has_odd_length(bytes: &[u8]) -> bool {
    let prefix = bytes.first_chunk::<PREFIX>();
    prefix.is_some_and(|prefix| (u32::from_be_bytes(*prefix) as usize) < frame::MIN)
}

/// The frames of a buffer in wire format, one after another.
pub fn packed(mut bytes: &[u8]) -> impl Frames<'_> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        Some(match frame::front(bytes) {
            frame::Front::Part(_) if has_odd_length(bytes) => {
                Err(Error::FrameSize(format!("a packed length below {}", frame::MIN)))
            }
            frame::Front::Whole(frame) => {
                bytes = &bytes[PREFIX + frame.len()..];
                Ok(frame)
            }
            frame::Front::Part(_) => Err(Error::invalid("the last packed frame is cut short")),
            frame::Front::TooLong => {
                Err(Error::FrameSize(format!("a packed length above {}", frame::MAX)))
            }
        })
    })
}

impl Ref<Conn> {
    pub fn send(self, frame: &[u8]) -> Result<()> {
        self.send_all(std::iter::once(Ok(frame))).map(|_| ())
    }

    /// Sends frames in order, each waiting as one alone would. Returns how many were taken; an
    /// error only if the first was not.
    pub fn send_all<'a>(self, mut frames: impl Frames<'a>) -> Result<usize> {
        let mut taken = 0;
        // The cut frame that is ours, until it is through.
        let mut own_cut = None;
        let mut waiting = Waiting::default();
        let failed = loop {
            let mut tx = match self.tx() {
                Ok(tx) => tx,
                Err(error) => break waiting.gone(error),
            };
            let epoch = tx.socket().wake.epoch();
            tx.write_rest();
            if tx.rest.is_empty() || own_cut != Some(tx.cuts) {
                own_cut = None;
            }
            if own_cut.is_none() && frames.clone().next().is_none() {
                return Ok(taken);
            }
            if let Some(end) = &tx.end {
                break end.clone();
            }
            if tx.rest.is_empty() {
                match tx.write(&mut frames) {
                    Err(error) => break error,
                    Ok(0) => {}
                    Ok(n) => {
                        taken += n;
                        own_cut = tx.has_rest().then_some(tx.cuts);
                        waiting = Waiting::default();
                        continue;
                    }
                }
            }
            if let Err(error) = waiting.wait(tx, epoch) {
                break error;
            }
        };
        self.leave_rest();
        if taken > 0 { Ok(taken) } else { Err(failed) }
    }

    /// Waits, as a send would, until nothing taken is unwritten.
    pub fn flush(self) -> Result<()> {
        let mut waiting = Waiting::default();
        let failed = loop {
            let mut tx = match self.tx() {
                Ok(tx) => tx,
                Err(error) => break waiting.gone(error),
            };
            let epoch = tx.socket().wake.epoch();
            tx.write_rest();
            if let Some(end) = &tx.end {
                break end.clone();
            }
            if tx.rest.is_empty() {
                return Ok(());
            }
            if let Err(error) = waiting.wait(tx, epoch) {
                break error;
            }
        };
        self.leave_rest();
        Err(failed)
    }

    /// Leaves a cut frame to the library's own thread, since no further call is needed for it.
    fn leave_rest(self) {
        if self.tx().is_ok_and(|tx| tx.has_rest()) {
            process().service.watch(self);
        }
    }
}

/// One call's waiting for a socket that takes nothing.
#[derive(Default)]
struct Waiting {
    /// Fixed when the wait begins.
    deadline: Option<Deadline>,
}

impl Waiting {
    /// Waits for room, or a change after `epoch`, which was read before the socket was tried.
    fn wait(&mut self, tx: MutexGuard<'_, Tx>, epoch: u32) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Deadline::after_ms(tx.timeout_ms));
        if deadline.passed() {
            return Err(deadline.error());
        }
        let socket = tx.socket().clone();
        drop(tx);
        // After a time-out the socket is tried once more: it may have room for a frame long before
        // it says so.
        socket.wake.wait_fd(epoch, socket.fd(), PollFlags::OUT, deadline).map(|_| ())
    }

    /// The handle went while this call was waiting: that is an end, not a mistake.
    fn gone(&self, error: Error) -> Error {
        if self.deadline.is_some() { Error::Closed } else { error }
    }
}
