//! The thread's record of its last failure.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};

use crate::error::Error;

/// A thread's last failure. It has no destructor, and so is there until the thread is gone.
struct LastError {
    text: [u8; 512],
    errno: c_int,
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { text: [0; 512], errno: 0 }) };
}

/// Records a failure of what was attempted.
pub fn record(attempt: &str, error: &Error) {
    let text = format!("{attempt}: {error}");
    let mut end = text.len().min(511);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    LAST_ERROR.with_borrow_mut(|last| {
        last.text[..end].copy_from_slice(&text.as_bytes()[..end]);
        last.text[end] = 0;
        last.errno = error.errno();
    });
}

/// What failed, and why, as a C string that lives until the thread's next failure.
pub fn text() -> *const c_char {
    LAST_ERROR.with_borrow(|last| last.text.as_ptr().cast())
}

/// The errno of that failure, or 0.
pub fn errno() -> c_int {
    LAST_ERROR.with_borrow(|last| last.errno)
}
