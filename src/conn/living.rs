//! Counting a listener's living connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One of a listener's connections, as long as it lives.
pub struct Living(Arc<AtomicUsize>);

impl Living {
    /// One more, unless there are `max`. Relaxed: the number alone matters.
    pub fn one_of(count: &Arc<AtomicUsize>, max: usize) -> Option<Living> {
        let one_more = |living| (living < max).then_some(living + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Living(count.clone()))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
