//! What ending leaves to do: what was taken is written, and what a peer is still writing is drained.
//!
//! Draining is for QEMU: a `stream` netdev whose peer leaves while its write is blocked never
//! receives from the next one. And for TCP, which answers what comes to a socket that is closed by a
//! reset, and then forgets what it had still to send.

use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::frame::{MAX, PREFIX, Skimmer};
use crate::net::io::Read;
use crate::net::socket::Socket;
use crate::rx::Rx;
use crate::sys::clock::Deadline;
use crate::sys::memory::as_room;

/// How long a peer that was writing must be silent to have finished.
const SILENCE: Duration = Duration::from_millis(20);

/// How long a peer is read from that never falls silent: by then it has finished any write that was
/// blocked when this side ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// The longest frame with its prefix. A peer that has written no more than that since the socket was
/// empty was not blocked.
const LONGEST: usize = PREFIX + MAX;

/// How long to wait before looking again whether TCP has sent everything, which no descriptor tells.
pub const SENDING: Duration = Duration::from_millis(5);

/// How many reads one turn of draining makes.
const READS: usize = 16;
const SCRATCH: usize = 16 << 10;

/// What ending left to do.
pub struct Finish {
    pub deadline: Deadline,
    /// The stream's position, while what the peer writes still matters.
    draining: Option<Skimmer>,
    /// When the peer last wrote something.
    heard: Option<Instant>,
    begun: Instant,
    /// How many bytes were read since the socket was empty.
    burst: usize,
    /// Whether the peer can write no more: what it still tries fails, and does not block.
    is_stopped: bool,
}

impl Finish {
    /// For an end by this side. Messages are written whole, and need no draining.
    pub fn local(linger: Duration, socket: &Socket, rx: &Rx) -> Finish {
        let draining = (!socket.has_messages()).then(|| {
            let mut position = Skimmer::default();
            position.skim(rx.unread());
            position
        });
        Finish { draining, heard: rx.busy(), ..Finish::remote(linger) }
    }

    /// For an end that the peer made: there is only writing left.
    pub fn remote(linger: Duration) -> Finish {
        Finish {
            deadline: Deadline::after(linger),
            draining: None,
            heard: None,
            begun: Instant::now(),
            burst: 0,
            is_stopped: false,
        }
    }

    /// Throws away what the peer has written. Returns whether it may be in the middle of more.
    pub fn drain(&mut self, socket: &Socket, is_writing: bool) -> bool {
        let Some(position) = &mut self.draining else {
            return false;
        };
        let mut scratch = [0; SCRATCH];
        let mut is_caught_up = false;
        for _ in 0..READS {
            match socket.read(as_room(&mut scratch)) {
                Ok(Read::Bytes(got)) => {
                    position.skim(&scratch[..got.bytes]);
                    self.heard = Some(Instant::now());
                    self.burst += got.bytes;
                }
                Ok(Read::End) if self.is_stopped && !socket.has_hung_up() => break,
                Ok(Read::Empty) => {
                    // A peer of which nothing came at all may not have seen yet that there is room.
                    is_caught_up = (1..=LONGEST).contains(&std::mem::take(&mut self.burst));
                    break;
                }
                Ok(Read::End) | Err(_) => {
                    self.draining = None;
                    return false;
                }
            }
        }
        if position.is_broken() {
            self.draining = None;
            return false;
        }
        let is_silent = self.heard.is_none_or(|heard| heard.elapsed() >= SILENCE);
        if self.is_stopped || is_silent && !position.inside_frame() {
            return !is_silent;
        }
        let is_between_frames = is_caught_up && !position.inside_frame();
        if is_between_frames && !is_writing && self.begun.elapsed() >= PATIENCE {
            // Over TCP nothing stops the peer, and there is no better moment to stop reading.
            self.is_stopped = socket.is_unix() && socket.stop_peer();
            return self.is_stopped;
        }
        true
    }

    /// Whether something is still to be sent by the system, to a peer that may yet write.
    pub fn is_sending(&self, socket: &Socket) -> bool {
        self.draining.is_some() && socket.unsent() > 0
    }

    /// What the next turn waits for: `room` to write, the end of the peer's frame, or its silence.
    pub fn wait(&self, room: Option<(PollFlags, Deadline)>) -> (PollFlags, Deadline) {
        let is_writing = room.is_some();
        let (mut events, again) = room.unwrap_or((PollFlags::empty(), Deadline::Never));
        let mut until = self.deadline.sooner(again);
        if let Some(position) = &self.draining {
            // A peer that can write no more may still leave.
            events |= if self.is_stopped { PollFlags::HUP } else { PollFlags::IN };
            let may_end = !is_writing && (self.is_stopped || !position.inside_frame());
            if let Some(heard) = self.heard.filter(|_| may_end) {
                until = until.sooner(Deadline::At(heard + SILENCE));
            }
        }
        (events, until)
    }
}
