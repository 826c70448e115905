//! Locks: `std`'s mutexes, whose poison is ignored, and [`Lock`], for what is locked with every frame.
//!
//! All of them are futexes and nothing else. A table of parked threads would be inherited by a forked
//! child in whatever state it was.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::sys::futex;

/// Locks, ignoring poison: the panic was already reported, and the state is as consistent as after
/// any error.
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

/// What a [`Lock`] guards.
pub trait Guarded {
    /// The key that opens the lock from now on, or [`NO_KEY`]. A key is odd, and not one of the numbers
    /// that begin at [`NO_KEY`]. Who opens the lock with its key knows by that alone what the key stands
    /// for, and need not look.
    fn key(&self) -> u64 {
        NO_KEY
    }
}

/// The lock is free, and there is no key. As a token this and the numbers below would have the index of a
/// slot that is never used, so nobody tries to open a lock with them.
pub const NO_KEY: u64 = 0x1f_fff8;

/// Somebody holds the lock, and nobody sleeps for it.
const HELD: u64 = NO_KEY + 1;

/// Somebody holds the lock, and one thread sleeps for it. Even, so that its lower half is no key's.
const AWAITED: u64 = NO_KEY + 2;

/// As before, and the thread has been woken in vain.
const CLAIMED: u64 = NO_KEY + 4;

/// The lock is free for the thread that sleeps for it, and for nobody else.
const HANDED: u64 = NO_KEY + 6;

/// A mutex that can be opened with a key in one step: the key says that nothing special is the case.
///
/// While the lock is free its word is the key that the value gave when it was let go. So a fast path,
/// which knows from a token what the key must be, learns with one exchange that the lock is free, that
/// the object is the one of that token, and that it is in the state that the fast path is for.
///
/// It is fair: a thread that locks it again and again takes it from one that sleeps for it once, and
/// then it is handed over.
pub struct Lock<T> {
    word: AtomicU64,
    /// Held by the one thread that sleeps on the word; all others sleep on this.
    door: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: as for `std`'s mutex. One thread at a time has a guard, which alone reaches the value.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T: Guarded + Default> Default for Lock<T> {
    fn default() -> Lock<T> {
        Lock::new(T::default())
    }
}

impl<T: Guarded> Lock<T> {
    pub fn new(value: T) -> Lock<T> {
        let word = AtomicU64::new(value.key());
        Lock { word, door: Mutex::new(()), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.try_lock().unwrap_or_else(|| self.sleep())
    }

    /// Locks if nobody holds the lock, or is about to get it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if matches!(word, HELD | AWAITED | CLAIMED | HANDED) {
                return None;
            }
            if self.take(word) {
                return Some(Guard { lock: self, thread: PhantomData });
            }
        }
    }

    /// Locks if nobody holds the lock and `key` opens it.
    #[inline(always)]
    pub fn open(&self, key: u64) -> Option<Guard<'_, T>> {
        debug_assert!(!(NO_KEY..=HANDED).contains(&key));
        // Not `then_some`: one that is made and dropped would unlock.
        self.take(key).then(|| Guard { lock: self, thread: PhantomData })
    }

    /// Locks, if the word is still that of a free lock. Acquire: what was done under the lock before is
    /// seen.
    #[inline]
    fn take(&self, free: u64) -> bool {
        self.word.compare_exchange(free, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Unlocks, unless somebody has to be woken. Release: what was done under the lock is seen by who
    /// locks it next.
    #[inline(always)]
    fn give(&self, key: u64) -> bool {
        self.word.compare_exchange(HELD, key, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn sleep(&self) -> Guard<'_, T> {
        let _door = lock(&self.door);
        let mut mark = AWAITED;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if !matches!(word, HELD | AWAITED | CLAIMED) {
                if self.take(word) {
                    return Guard { lock: self, thread: PhantomData };
                }
            } else if word == mark {
                futex::wait(&self.word, mark as u32);
                mark = CLAIMED;
            } else {
                // If the lock has been let go meanwhile, it is tried again.
                let relaxed = Ordering::Relaxed;
                let _ = self.word.compare_exchange(word, mark, relaxed, relaxed);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_with<R>(&self, key: u64, result: R) -> R {
        self.wake(key);
        result
    }

    /// Unlocks, and wakes the thread that sleeps.
    #[cold]
    fn wake(&self, key: u64) {
        let is_claimed = self.word.load(Ordering::Relaxed) == CLAIMED;
        self.word.store(if is_claimed { HANDED } else { key }, Ordering::Release);
        futex::wake_one(&self.word);
    }
}

/// The value of a lock that is held. When it is let go, the value is asked for its key.
pub struct Guard<'a, T: Guarded> {
    lock: &'a Lock<T>,
    /// It stays on its thread, like that of any mutex.
    thread: PhantomData<*mut ()>,
}

impl<T: Guarded> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so nobody else reaches the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: Guarded> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: Guarded> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let key = self.key();
        if !self.lock.give(key) {
            self.lock.wake(key);
        }
    }
}

impl<T: Guarded> Guard<'_, T> {
    /// Unlocks, and returns `result`. The key has to be the one that the value would give. Where this is
    /// the last thing that a function does, the function needs no registers for the case that somebody
    /// has to be woken.
    #[inline(always)]
    pub fn close<R>(this: Self, key: u64, result: R) -> R {
        debug_assert_eq!(key, this.key());
        let lock = this.lock;
        std::mem::forget(this);
        if lock.give(key) { result } else { lock.wake_with(key, result) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const KEY: u64 = 1 << 21 | 1;

    #[derive(Default)]
    struct Number(u64);

    impl Guarded for Number {
        fn key(&self) -> u64 {
            if self.0 % 2 == 0 { KEY } else { NO_KEY }
        }
    }

    /// Makes a thread panic while it holds the lock.
    fn poison<G>(lock: impl FnOnce() -> G + Send) {
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
        let keyed = Lock::new(Number(2));
        poison(|| keyed.lock());
        assert_eq!(keyed.lock().0, 2);
    }

    #[test]
    fn the_key_is_what_the_value_says() {
        let lock = Lock::new(Number(0));
        assert!(lock.open(KEY + 2).is_none() && lock.open(0).is_none());
        let opened = lock.open(KEY).unwrap();
        assert!(lock.open(KEY).is_none() && lock.try_lock().is_none());
        assert!(Guard::close(opened, KEY, true));
        lock.lock().0 = 1;
        assert!(lock.open(KEY).is_none());
        lock.try_lock().unwrap().0 = 2;
        lock.open(KEY).unwrap().0 = 3;
        assert!(lock.open(KEY).is_none());
    }

    #[test]
    fn one_thread_at_a_time() {
        const EACH: u64 = 20_000;
        let lock = Lock::new(Number(0));
        let add = |n: u64| {
            for i in 0..EACH {
                match lock.open(KEY) {
                    Some(mut opened) if i % 3 == n => {
                        opened.0 += 2;
                        Guard::close(opened, KEY, ());
                    }
                    Some(mut opened) => opened.0 += 2,
                    None => lock.lock().0 += 2,
                }
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|n| _ = scope.spawn(move || add(n))));
        assert_eq!(lock.lock().0, 6 * EACH);
    }

    #[test]
    fn a_thread_that_locks_again_and_again_keeps_nobody_out() {
        let (lock, is_over) = (Lock::new(Number(0)), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        lock.lock().0 += 1;
                    }
                });
            }
            for _ in 0..200 {
                drop(lock.lock());
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
