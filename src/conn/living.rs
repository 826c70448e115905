//! Counting a listener's living connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts one connection of a listener, as long as that lives.
pub struct Living(Arc<AtomicUsize>);

impl Living {
    /// Counts one more connection, or gives `None` at the limit. Relaxed: the number alone matters.
    pub fn begin(living: &Arc<AtomicUsize>, max: usize) -> Option<Living> {
        let one_more = |living| (living < max).then_some(living + 1);
        living.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Living(living.clone()))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
