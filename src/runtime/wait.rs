//! How a call waits: it tries, waits for what it was told to wait for, and tries again.

use crate::error::{Error, Result};
use crate::sys::clock::Deadline;

/// What an attempt has come to.
pub enum Tried<R, P> {
    Done(R),
    /// Nothing yet: what to wait for. It was looked at before the attempt, so that no change is missed.
    Pending(P),
}

/// Makes attempts until one is done or fails, or until the time has passed, which `limit` fixes after
/// the first: then the call says AGAIN where it was not to wait, and TIMEOUT otherwise. A handle that
/// goes between two attempts has been closed, which is no mistake of this call's.
pub fn until<R, P, W>(
    mut attempt: impl FnMut() -> Result<Tried<R, P>>,
    limit: impl FnOnce(&P) -> Deadline,
    mut wait: impl FnMut(P, Deadline) -> Result<W>,
) -> Result<R> {
    let mut pending = match attempt()? {
        Tried::Done(result) => return Ok(result),
        Tried::Pending(pending) => pending,
    };
    let deadline = limit(&pending);
    while !deadline.passed() {
        wait(pending, deadline)?;
        pending = match attempt() {
            Ok(Tried::Done(result)) => return Ok(result),
            Ok(Tried::Pending(pending)) => pending,
            Err(Error::Handle) => return Err(Error::Closed),
            Err(error) => return Err(error),
        };
    }
    Err(deadline.error())
}
