//! The loop of every call that waits: it makes an attempt, waits for what that attempt lacked, and
//! tries again.

use crate::error::{Error, Result};
use crate::sys::clock::Deadline;

/// The outcome of an attempt that did not fail.
pub enum Tried<R, P> {
    Done(R),
    /// Nothing yet, and what to wait for. That was noted before the attempt, so that no change is
    /// missed.
    Pending(P),
    /// The same, and nothing has been asked yet: however late it is, that is waited for once.
    Unasked(P),
}

/// Makes attempts until one is done or fails, or until the deadline has passed, which `limit`
/// computes after the first attempt. Then the call fails with AGAIN if it was not to wait, and with
/// TIMEOUT otherwise. If the handle is no longer live after a wait, it was closed meanwhile, and
/// the call fails with CLOSED.
pub fn until<R, P, W>(
    mut attempt: impl FnMut() -> Result<Tried<R, P>>,
    limit: impl Fn(&P) -> Deadline,
    mut wait: impl FnMut(P, Deadline) -> Result<W>,
) -> Result<R> {
    let mut deadline = None;
    // One place for the attempt, so that it is compiled in line.
    loop {
        let (pending, is_asked) = match attempt() {
            Ok(Tried::Done(result)) => return Ok(result),
            Ok(Tried::Pending(pending)) => (pending, true),
            Ok(Tried::Unasked(pending)) => (pending, false),
            Err(Error::Handle) if deadline.is_some() => return Err(Error::Closed),
            Err(error) => return Err(error),
        };
        let deadline = *deadline.get_or_insert_with(|| limit(&pending));
        if is_asked && deadline.passed() {
            return Err(deadline.error());
        }
        wait(pending, deadline)?;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_is_late_asks_once() {
        let asked = Cell::new(0);
        let attempt = || {
            Ok(match asked.get() {
                0 => Tried::Unasked(()),
                1 => Tried::Done("there"),
                _ => Tried::Pending(()),
            })
        };
        let ask = |(), _| {
            asked.set(asked.get() + 1);
            Ok(())
        };
        assert_eq!(until(attempt, |_| Deadline::Now, ask), Ok("there"));
        asked.set(2);
        assert_eq!(until(attempt, |_| Deadline::Now, ask), Err(Error::Again));
        assert_eq!(asked.get(), 2);
    }
}
