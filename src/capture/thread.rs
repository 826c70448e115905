//! The thread that writes a capture: the blocks of frames as they lie in the buffer, and its own between them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::capture::output::Output;
use crate::capture::pcapng;
use crate::capture::ring::Taker;
use crate::capture::shared::Shared;
use crate::runtime::lock::lock;
use crate::runtime::wake::{PollFds, poll_fd};
use crate::sys::clock::Deadline;

/// How long frames wait in the buffer, and a FIFO's readers for the first byte.
const TICK: Duration = Duration::from_millis(40);

/// How many bytes are written at most before their room in the buffer is given back, unless one block has more, and less
/// of a small buffer. A pipe takes 64 KiB at a time, and a few bytes more would be a write of their own.
const CHUNK: usize = 128 << 10;

/// Frames on their way out of the buffer.
struct Writer {
    shared: Arc<Shared>,
    taker: Taker,
    output: Output,
    /// What is being written: blocks of the thread's own, and behind them so many bytes of the buffer. So many
    /// bytes are written, and so many of this file were before.
    out: Vec<u8>,
    run: usize,
    sent: usize,
    written: u64,
    /// Whether this file has been begun, and how many interfaces it has.
    is_begun: bool,
    described: usize,
    /// The time of the last frame.
    time: u64,
    /// Whether the last block of all is there.
    is_finished: bool,
}

/// Runs the thread until the capture is closed.
pub fn run(shared: &Arc<Shared>, taker: Taker, output: Output) {
    let mut writer = Writer {
        shared: shared.clone(),
        taker,
        output,
        out: Vec::new(),
        run: 0,
        sent: 0,
        written: 0,
        is_begun: false,
        described: 0,
        time: 0,
        is_finished: false,
    };
    if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
        shared.fail(Errno::IO);
    }
    drop(writer);
    shared.end();
}

impl Writer {
    fn run(&mut self) {
        loop {
            let epoch = self.shared.wake.epoch();
            let closing = self.shared.begin_turn();
            let is_all = self.turn(closing.is_some()).unwrap_or_else(|errno| self.give_up(errno));
            self.shared.end_turn();
            if closing.is_some_and(|until| is_all || until.passed()) {
                return;
            }
            self.wait(epoch, is_all, closing.unwrap_or(Deadline::Never));
        }
    }

    /// Waits for what the next turn is for: time, room, a reader's leaving or somebody who wakes the thread.
    fn wait(&self, epoch: u32, is_all: bool, closing: Deadline) {
        let until = if is_all { Deadline::after(TICK) } else { Deadline::Never };
        let events = if is_all { PollFlags::ERR } else { PollFlags::OUT };
        // A file is always ready. Whether the reader has left, the next turn looks for a FIFO alone.
        let is_polled = if is_all { self.output.is_fifo() } else { !self.output.is_file() };
        let fd = self.output.fd().filter(|_| is_polled);
        let fds: PollFds<'_> = fd.and_then(|fd| poll_fd(fd, events)).into_iter().collect();
        // An error means that memory is short, which does not last.
        let _ = self.shared.wake.wait_fds(epoch, fds, until.sooner(closing));
    }

    /// Writes what there is. Returns whether that is all, and not only as much as there is room for.
    fn turn(&mut self, is_last: bool) -> Result<bool, Errno> {
        if self.shared.has_failed() || !self.meet_reader()? {
            self.withdraw();
            return Ok(true);
        }
        if !self.is_begun {
            self.output.begin()?;
            self.begin_file();
        }
        loop {
            if !self.write_out()? {
                return Ok(false);
            }
            if self.gather()? {
                continue;
            }
            if !is_last || std::mem::replace(&mut self.is_finished, true) {
                return Ok(true);
            }
            self.finish_file();
        }
    }

    /// Whether there is somebody to write for.
    fn meet_reader(&mut self) -> Result<bool, Errno> {
        if self.output.fd().is_some() {
            // Seen here too, so that the next reader gets a file of its own although nothing was written meanwhile.
            return if self.output.has_been_left() { Err(Errno::PIPE) } else { Ok(true) };
        }
        let has_come = self.output.open_to_reader()?;
        if has_come {
            self.withdraw();
            self.shared.turn(true);
            self.shared.note_reader();
        }
        Ok(has_come)
    }

    fn begin_file(&mut self) {
        (self.is_begun, self.described, self.written) = (true, 0, 0);
        pcapng::section(&mut self.out);
        if self.output.is_file() {
            self.shared.note_file();
        }
        self.describe();
    }

    /// Describes the interfaces that are new.
    fn describe(&mut self) {
        let snaplen = u32::try_from(self.shared.snaplen).unwrap_or(0);
        for entry in &lock(&self.shared.interfaces)[self.described..] {
            pcapng::interface(&mut self.out, &entry.name, &entry.description, snaplen);
            self.described += 1;
        }
    }

    /// Gathers what is to be written next, some of it. Returns whether there is anything.
    fn gather(&mut self) -> Result<bool, Errno> {
        let first = self.taker.first();
        // An interface is there before its first frame.
        self.describe();
        let Some(first) = first else {
            return Ok(!self.out.is_empty());
        };
        if self.output.is_full(self.written + self.out.len() as u64) {
            self.begin_next_file()?;
        }
        if first.notes > 0 {
            self.time = first.time;
            let notes = self.shared.take_notes(first.notes);
            pcapng::commented(&mut self.out, self.taker.bytes(), &notes);
            self.taker.release();
            return Ok(true);
        }
        let before = self.written + self.out.len() as u64;
        let most = CHUNK.min(self.shared.ring.size() / 4);
        self.run = self.taker.run(|len, block| {
            let is_described = (block.interface as usize) < self.described;
            let fits = len + block.len <= most && !self.output.is_full(before + len as u64);
            // There is at least one, however much a file begins with.
            let takes = is_described && (fits || len == 0);
            if takes {
                self.time = block.time;
            }
            takes
        });
        Ok(true)
    }

    fn begin_next_file(&mut self) -> Result<(), Errno> {
        self.finish_file();
        self.write_out()?;
        self.output.open_next()?;
        self.output.begin()?;
        self.begin_file();
        Ok(())
    }

    /// Writes how many frames each interface has had.
    fn finish_file(&mut self) {
        for entry in lock(&self.shared.interfaces).iter().take(self.described) {
            let counts = [&entry.received, &entry.dropped];
            let [received, dropped] = counts.map(|count| count.load(Ordering::Relaxed));
            pcapng::statistics(&mut self.out, entry.number, self.time, received, dropped);
        }
    }

    /// Writes what is gathered. Returns whether that is all of it.
    fn write_out(&mut self) -> Result<bool, Errno> {
        let own = self.out.len();
        while self.sent < own + self.run {
            let unsent = match self.sent.checked_sub(own) {
                None => &self.out[self.sent..],
                Some(sent) => &self.taker.bytes()[sent..],
            };
            match self.output.write(unsent) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        self.written += self.sent as u64;
        if self.run > 0 {
            self.taker.release();
        }
        self.out.clear();
        (self.run, self.sent) = (0, 0);
        Ok(true)
    }

    /// A write has failed: a FIFO's reader has left, or it is the end. Returns that nothing is left.
    fn give_up(&mut self, errno: Errno) -> bool {
        let has_left = errno == Errno::PIPE && self.output.is_fifo();
        if has_left {
            self.shared.turn(false);
        } else {
            self.shared.fail(errno);
        }
        // Blocks that are written whole stay.
        let (own, sent) = (self.out.len(), self.sent);
        let whole = pcapng::whole(&self.out, sent);
        let whole_of_run =
            self.taker.run(|len, block| own + len + block.len <= sent && len < self.run);
        self.taker.release();
        self.output.cut(sent - whole - whole_of_run);
        let (frames, bytes) = pcapng::count_frames(&self.out[whole..]);
        self.shared.withdraw(frames, bytes);
        self.out.clear();
        (self.run, self.sent, self.is_begun) = (0, 0, false);
        self.output.close();
        self.withdraw();
        true
    }

    /// Gives up what is in the buffer.
    fn withdraw(&mut self) {
        while let Some(block) = self.taker.first() {
            self.shared.take_notes(block.notes);
            self.shared.withdraw(1, block.frame_len.into());
            self.taker.release();
        }
    }
}
