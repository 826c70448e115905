//! Locks that ignore poison, and a fair one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks, ignoring poison: the panic was already reported, and the state is as consistent as after
/// any error.
///
/// All locks are `std`'s mutexes, because such a mutex is a futex and nothing else. A table of
/// parked threads would be inherited by a forked child in whatever state it was.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody holds the lock, ignoring poison like [`lock`].
#[inline]
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A mutex that a thread which locks it again and again cannot keep from the others. `std`'s mutex
/// goes to whoever is awake, so it could. Here, a thread that finds others asleep queues behind
/// them.
#[derive(Default)]
pub struct Fair<T> {
    mutex: Mutex<T>,
    /// Held by the one thread that sleeps on the mutex itself; all other sleepers sleep on this.
    door: Mutex<()>,
    /// How many threads sleep. Relaxed: it is a hint, and a thread that misses it is only less
    /// fair.
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

    /// Locks if nobody holds the lock.
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

    /// Makes a thread panic while it holds the lock.
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
