//! One write to the socket: what came of it, and when it is worth trying again.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::frame::PREFIX;
use crate::net::io::Written;
use crate::sys::clock::Deadline;
use crate::tx::Tx;

/// How long messages wait for room before they are lost: a netdev that does not read at all must not
/// hold up its senders, who cannot know.
const LOST_AFTER: Duration = Duration::from_millis(40);

/// How long to wait after the system had no memory for a write: no descriptor tells when it has.
const SHORTAGE: Duration = Duration::from_millis(5);

impl Tx {
    /// Every write but that of `Socket::write_each`. `wrote` must follow.
    #[inline]
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> rustix::io::Result<Written> {
        if self.has_lost_peer() {
            let bytes = pieces.iter().map(|piece| piece.len()).sum();
            return Ok(Written { bytes, ..Written::default() });
        }
        self.socket().write(pieces, self.gives_up())
    }

    /// Notes what came of a write of `len` bytes; an error that the connection does not survive ends
    /// sending. Returns how many bytes were taken.
    pub fn wrote(&mut self, written: rustix::io::Result<Written>, len: usize) -> Result<usize> {
        self.is_short = match &written {
            Ok(written) => written.is_short,
            Err(errno) => matches!(*errno, Errno::NOMEM | Errno::NOBUFS),
        };
        match written {
            Ok(Written { bytes, calls, lost, is_full, .. }) => {
                self.counts.writes += calls;
                self.unheard.add(lost);
                if calls > 0 || !is_full {
                    self.full_since = None;
                }
                if is_full {
                    self.full_since.get_or_insert_with(Instant::now);
                }
                Ok(bytes)
            }
            Err(errno) if self.is_short => Err(Error::Os(errno)),
            Err(errno) => {
                let end = if errno == Errno::PIPE { Error::Closed } else { Error::Os(errno) };
                self.fail(end).map(|()| len)
            }
        }
    }

    /// Nothing more can be written: sending ends, or the connection is dialled again.
    pub fn fail(&mut self, why: Error) -> Result<()> {
        if self.redials && self.end.is_none() {
            self.lose_peer(why);
            return Ok(());
        }
        Err((**self.end.get_or_insert_with(|| Box::new(why))).clone())
    }

    /// Counts frames that were written whole, which have `bytes` bytes with their prefixes.
    #[inline]
    pub fn count(&mut self, frames: usize, bytes: usize) {
        if self.has_lost_peer() {
            self.counts.dropped += frames as u64;
        } else {
            self.counts.frames += frames as u64;
            self.counts.bytes += (bytes - frames * PREFIX) as u64;
        }
    }

    /// Whether a message for which the socket has no room is lost, and not refused. A sender that never
    /// waits is always told.
    pub fn gives_up(&self) -> bool {
        self.loss_due().is_some_and(|due| Instant::now() >= due)
    }

    /// When messages that wait for room are lost, if any do.
    fn loss_due(&self) -> Option<Instant> {
        self.full_since.filter(|_| self.timeout_ms != 0).map(|since| since + LOST_AFTER)
    }

    /// What to wait for before the next write, and how long at most.
    pub fn until_room(&self) -> (PollFlags, Deadline) {
        match self.is_short {
            true => (PollFlags::empty(), Deadline::after(SHORTAGE)),
            false => (PollFlags::OUT, Deadline::Never),
        }
    }

    /// The same, but no longer than until what waits is lost.
    pub fn until_room_or_loss(&self) -> (PollFlags, Deadline) {
        let (events, until) = self.until_room();
        (events, self.loss_due().map_or(until, |due| until.sooner(Deadline::At(due))))
    }

    /// Whether the last write failed for want of memory: no descriptor tells when to try again.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Whether the next write is due at a time, though no descriptor may tell of room.
    pub fn waits_for_time(&self) -> bool {
        self.is_short || self.full_since.is_some()
    }
}
