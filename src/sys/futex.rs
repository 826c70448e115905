//! Sleeping until a word in memory changes (futex(2)).

use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::thread::futex::{self, Flags};

/// The half of a word that holds its lower bits.
fn low(word: &AtomicU64) -> &AtomicU32 {
    let halves = std::ptr::from_ref(word).cast::<[AtomicU32; 2]>();
    // SAFETY: the layout is the same, and both live as long. The kernel alone looks at the half.
    unsafe { &(*halves)[usize::from(cfg!(target_endian = "big"))] }
}

/// Sleeps while the lower bits of `word` are `value`. It may return sooner.
pub fn wait(word: &AtomicU64, value: u32) {
    // It fails if the word has changed, or a signal came: either way the caller looks again.
    let _ = futex::wait(low(word), Flags::PRIVATE, value, None);
}

/// Wakes one thread that sleeps, if any does.
pub fn wake_one(word: &AtomicU64) {
    // It fails for words that are no memory alone.
    let _ = futex::wake(low(word), Flags::PRIVATE, 1);
}
