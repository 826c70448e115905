//! What the paths of frames share with the thread that writes a capture.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use crate::capture::ring::Ring;
use crate::error::{Error, Result};
use crate::runtime::lock::lock;
use crate::runtime::wake::Wake;
use crate::sys::clock::Deadline;

/// How long closing may take where a reader is slow.
const CLOSING: Duration = Duration::from_secs(1);

/// How many bytes the notes may have that wait for a frame, and how many they may be: empty ones take memory too.
const NOTES_BYTES: usize = 1 << 20;
const MOST_NOTES: usize = 1 << 16;

/// Nobody reads, and frames pass unrecorded.
const OFF: u8 = 0;
const ON: u8 = 1;
/// Writing has failed, and frames count as dropped.
const FAILED: u8 = 2;

/// The counters of a capture; see qnet_capture_get_stats().
///
/// Later releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_capture_stats {
    /// Frames recorded, each counted once for each connection and hub by which it was: those that
    /// wait in the buffer included, those that a FIFO's reader left behind not.
    pub frames: u64,
    /// Bytes of the frames in frames, whatever QNET_OPT_SNAPLEN is.
    pub bytes: u64,
    /// Frames that were not recorded, because the buffer was full or writing had failed.
    pub dropped: u64,
    /// Files begun.
    pub files: u64,
    /// Readers that came to a FIFO.
    pub readers: u64,
    /// The errno of the write that has ended the recording, or 0.
    pub error: u64,
}

/// An interface, as the file has it.
#[derive(Default)]
pub struct Entry {
    pub number: u32,
    pub name: Vec<u8>,
    pub description: Vec<u8>,
    /// The frames that it has had, and those of them that were not recorded: all, and since the last that
    /// was. Relaxed: they only count.
    pub received: AtomicU64,
    pub dropped: AtomicU64,
    pub lost: AtomicU64,
}

pub struct Shared {
    pub ring: Arc<Ring>,
    /// How many bytes of a frame are recorded at most; `usize::MAX` for all.
    pub snaplen: usize,
    /// Whether it goes to a file: then there is room soon, whoever reads.
    is_file: bool,
    mode: AtomicU8,
    /// Wakes the thread, which is woken once for each of its turns: whether it was.
    pub wake: Wake,
    is_woken: AtomicBool,
    pub interfaces: Mutex<Vec<Arc<Entry>>>,
    notes: Mutex<Notes>,
    /// How many notes wait for a frame. It grows under the lock of the notes.
    unclaimed: AtomicU32,
    /// The frames that were put in the ring, and of those the ones that were given up again.
    pub taken: Counts,
    withdrawn: Counts,
    pub dropped: AtomicU64,
    files: AtomicU64,
    readers: AtomicU64,
    error: AtomicI32,
    progress: Mutex<Progress>,
    has_progressed: Wake,
}

/// How many frames, and how many bytes. Relaxed: they only count.
#[derive(Default)]
pub struct Counts {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
}

impl Counts {
    pub fn add(&self, frames: u64, bytes: u64) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Notes {
    texts: VecDeque<String>,
    bytes: usize,
}

/// How far the thread is.
#[derive(Default)]
struct Progress {
    /// Until when it may go on, once the capture is being closed.
    closing: Option<Deadline>,
    is_over: bool,
}

impl Shared {
    pub fn new(ring: Arc<Ring>, snaplen: usize, is_file: bool, is_on: bool) -> Shared {
        Shared {
            ring,
            snaplen,
            is_file,
            mode: AtomicU8::new(if is_on { ON } else { OFF }),
            wake: Wake::default(),
            is_woken: AtomicBool::new(false),
            interfaces: Mutex::default(),
            notes: Mutex::default(),
            unclaimed: AtomicU32::new(0),
            taken: Counts::default(),
            withdrawn: Counts::default(),
            dropped: AtomicU64::new(0),
            files: AtomicU64::new(0),
            readers: AtomicU64::new(0),
            error: AtomicI32::new(0),
            progress: Mutex::default(),
            has_progressed: Wake::default(),
        }
    }

    /// Whether frames pass as if there were no capture.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.mode.load(Ordering::Acquire) == OFF
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.mode.load(Ordering::Acquire) == ON
    }

    pub fn has_failed(&self) -> bool {
        self.mode.load(Ordering::Acquire) == FAILED
    }

    /// A reader has come, or gone.
    pub fn turn(&self, on: bool) {
        if on {
            lock(&self.interfaces).iter().for_each(|entry| entry.lost.store(0, Ordering::Relaxed));
        }
        self.mode.store(if on { ON } else { OFF }, Ordering::Release);
    }

    /// Ends the recording.
    pub fn fail(&self, errno: Errno) {
        self.error.store(errno.raw_os_error(), Ordering::Relaxed);
        self.mode.store(FAILED, Ordering::Release);
    }

    pub fn note_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reader who has come. Release, and Acquire in `stats`: who sees that a reader is there finds frames
    /// recorded.
    pub fn note_reader(&self) {
        self.readers.fetch_add(1, Ordering::Release);
    }

    /// Frames that were taken are given up. After a failure they count as dropped.
    pub fn withdraw(&self, frames: u64, bytes: u64) {
        self.withdrawn.add(frames, bytes);
        if self.has_failed() {
            self.dropped.fetch_add(frames, Ordering::Relaxed);
        }
    }

    pub fn stats(&self) -> qnet_capture_stats {
        let readers = self.readers.load(Ordering::Acquire);
        let [frames, bytes, lost, lost_bytes, dropped, files] = [
            &self.taken.frames,
            &self.taken.bytes,
            &self.withdrawn.frames,
            &self.withdrawn.bytes,
            &self.dropped,
            &self.files,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        qnet_capture_stats {
            // A frame may be given up before it is counted as taken.
            frames: frames.saturating_sub(lost),
            bytes: bytes.saturating_sub(lost_bytes),
            dropped,
            files,
            readers,
            error: self.error.load(Ordering::Relaxed) as u64,
        }
    }

    /// Wakes the thread, unless that was done since its last turn began.
    #[inline]
    pub fn wake_if_half_full(&self) {
        if self.ring.is_half_full()
            && !self.is_woken.load(Ordering::Relaxed)
            && !self.is_woken.swap(true, Ordering::Relaxed)
        {
            self.wake.raise();
        }
    }

    /// Waits for a turn of the thread, where that makes room, or for its end. Returns whether there was one.
    #[cold]
    pub fn wait_for_room(&self) -> bool {
        if !self.is_file || !self.is_on() {
            return false;
        }
        let epoch = self.has_progressed.epoch();
        self.wake.raise();
        if !lock(&self.progress).is_over {
            self.has_progressed.wait_change(epoch);
        }
        true
    }
}

/// Notes.
impl Shared {
    pub fn note(&self, text: String) -> Result<()> {
        let mut notes = lock(&self.notes);
        if notes.bytes + text.len() > NOTES_BYTES || notes.texts.len() == MOST_NOTES {
            return Err(Error::Os(Errno::NOBUFS));
        }
        notes.bytes += text.len();
        notes.texts.push_back(text);
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many notes go with the next frame. They are no one else's then.
    #[inline]
    pub fn claim_notes(&self) -> u32 {
        let waiting = self.unclaimed.load(Ordering::Relaxed);
        if waiting > 0 { self.unclaimed.swap(0, Ordering::Relaxed) } else { 0 }
    }

    pub fn give_notes_back(&self, count: u32) {
        self.unclaimed.fetch_add(count, Ordering::Relaxed);
    }

    /// The notes that were claimed first.
    pub fn take_notes(&self, count: u32) -> Vec<String> {
        if count == 0 {
            return Vec::new();
        }
        let mut notes = lock(&self.notes);
        let count = notes.texts.len().min(count as usize);
        let taken: Vec<String> = notes.texts.drain(..count).collect();
        notes.bytes -= taken.iter().map(String::len).sum::<usize>();
        taken
    }
}

/// The thread's life.
impl Shared {
    /// Begins a turn of the thread. Returns until when it may go on, if the capture is being closed.
    pub fn begin_turn(&self) -> Option<Deadline> {
        self.is_woken.store(false, Ordering::Relaxed);
        lock(&self.progress).closing
    }

    pub fn end_turn(&self) {
        self.has_progressed.raise();
    }

    /// The thread has ended.
    pub fn end(&self) {
        // What has failed goes on counting.
        let _ = self.mode.compare_exchange(ON, OFF, Ordering::Release, Ordering::Relaxed);
        lock(&self.progress).is_over = true;
        self.has_progressed.raise();
    }

    /// Has the thread write what is left, and waits until it has ended.
    pub fn close(&self) {
        lock(&self.progress).closing = Some(Deadline::after(CLOSING));
        self.wake.raise();
        loop {
            let epoch = self.has_progressed.epoch();
            if lock(&self.progress).is_over {
                return;
            }
            self.has_progressed.wait_change(epoch);
        }
    }
}
