//! Locks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks, ignoring poison: the panic was already reported, and the state is as consistent as after any
/// error.
///
/// `std`'s mutex, since it is a futex and no more: nothing of it outlives a fork in a bad state, as
/// a table of parked threads would.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same if nobody holds it. (After a panic `std` calls that an error, which holds the lock.)
#[inline]
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A mutex for what one thread locks again and again: `std`'s may go to the same thread for ever,
/// while others sleep for it. Here, where somebody sleeps, who comes next goes to sleep behind.
#[derive(Default)]
pub struct Fair<T> {
    mutex: Mutex<T>,
    /// Held by the one of those who sleep that sleeps for the mutex itself.
    door: Mutex<()>,
    /// How many sleep. Relaxed: it is a hint, which costs time alone where it is not seen.
    sleeping: AtomicU32,
}

impl<T> Fair<T> {
    pub fn new(value: T) -> Fair<T> {
        Fair { mutex: Mutex::new(value), door: Mutex::new(()), sleeping: AtomicU32::new(0) }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        let is_free = self.sleeping.load(Ordering::Relaxed) == 0;
        is_free.then(|| self.try_lock()).flatten().unwrap_or_else(|| self.sleep())
    }

    /// The same if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        try_lock(&self.mutex)
    }

    #[cold]
    fn sleep(&self) -> MutexGuard<'_, T> {
        self.sleeping.fetch_add(1, Ordering::Relaxed);
        let _door = lock(&self.door);
        let guard = lock(&self.mutex);
        self.sleeping.fetch_sub(1, Ordering::Relaxed);
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a thread panic while it holds the lock.
    fn poison<'a, T: Send + 'a>(lock: impl FnOnce() -> MutexGuard<'a, T> + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _guard = lock();
                panic!("a panic under a lock");
            });
            assert!(thread.join().is_err());
        });
    }

    #[test]
    fn locks_outlive_a_panic() {
        let mutex = Mutex::new(1);
        poison(|| lock(&mutex));
        assert_eq!(try_lock(&mutex).as_deref(), Some(&1));
        assert_eq!(*lock(&mutex), 1);
        let fair = Fair::new(2);
        poison(|| fair.lock());
        assert_eq!(*fair.lock(), 2);
    }
}
