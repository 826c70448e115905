//! What belongs to this process: its handles and its service thread. A forked child has none of its
//! parent's; it starts afresh.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::buffer::Rooms;
use crate::conn::Conn;
use crate::dialler::Dialler;
use crate::forward::Loops;
use crate::handle::Table;
use crate::hub::Hub;
use crate::listener::Listener;
use crate::resolve::Lookups;
use crate::send::Gather;
use crate::service::Service;

/// Everything global. Never freed, so `&'static`.
#[derive(Default)]
pub struct Process {
    pub conns: Table<Conn>,
    pub listeners: Table<Listener>,
    pub hubs: Table<Hub>,
    pub service: Service,
    pub dialler: Dialler,
    pub lookups: Lookups,
    pub loops: Loops,
    pub gather: Gather,
    pub rooms: Rooms,
    /// See `ring::Plugging`.
    pub plugging: Mutex<()>,
    number: u32,
    /// The parent's, kept where a leak checker finds it.
    #[allow(dead_code)]
    parent: Option<&'static Process>,
}

/// The stamp of a process that has no `Process` yet, or was just forked.
const FRESH: u32 = 0;
const STARTING: u32 = 1;
/// From here on a stamp is the number of the `Process` that is ready.
const FIRST: u32 = 2;

/// The number of the next one: a forked child's is not its parent's.
static NEXT: AtomicU32 = AtomicU32::new(FIRST);

/// A page that the kernel zeroes in a forked child (MADV_WIPEONFORK, Linux 4.14); it holds the stamp.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// This process's state. Acquire: what was built before the stamp was set is seen by who reads it.
#[inline]
pub fn process() -> &'static Process {
    if stamp().is_some_and(|stamp| stamp.load(Ordering::Acquire) >= FIRST) {
        // SAFETY: the stamp is set only after PROCESS was, and a Process is never freed.
        return unsafe { &*PROCESS.load(Ordering::Relaxed) };
    }
    start()
}

impl Process {
    /// Whether it is still this process's: not so in a child forked inside a callback.
    #[inline]
    pub fn is_current(&self) -> bool {
        stamp().is_some_and(|stamp| stamp.load(Ordering::Relaxed) == self.number)
    }
}

#[inline]
fn stamp() -> Option<&'static AtomicU32> {
    // SAFETY: null, or a page that is mapped for good and zeroed, which is a valid AtomicU32.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

#[cold]
fn start() -> &'static Process {
    let stamp = stamp().unwrap_or_else(map_page);
    loop {
        match stamp.compare_exchange(FRESH, STARTING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: null, or a Process of the parent, never freed.
                let parent = unsafe { PROCESS.load(Ordering::Relaxed).as_ref() };
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let process = Box::new(Process { number, parent, ..Process::default() });
                PROCESS.store(Box::into_raw(process), Ordering::Relaxed);
                stamp.store(number, Ordering::Release);
            }
            // Another thread is about to finish; a fork in between zeroes the stamp in the child.
            Err(STARTING) => std::thread::yield_now(),
            Err(_) => return process(),
        }
    }
}

/// Maps the page; of two threads that meet here one leaves its own unused.
fn map_page() -> &'static AtomicU32 {
    let size = rustix::param::page_size();
    // SAFETY: a new private mapping at a place that the kernel chooses, or a page of the heap. It
    // stays for good.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let page = mmap_anonymous(ptr::null_mut(), size, access, MapFlags::PRIVATE)
            .unwrap_or_else(|_| page_of_heap(size));
        // On a kernel before 4.14 a forked child shares the parent's handles, which it must not use.
        let _ = madvise(page, size, Advice::LinuxWipeOnFork);
        let stamp = page.cast();
        match PAGE.compare_exchange(ptr::null_mut(), stamp, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => &*stamp,
            Err(other) => &*other,
        }
    }
}

/// Where the system maps no more (`vm.max_map_count`), the allocator may still have a page.
fn page_of_heap(size: usize) -> *mut c_void {
    let layout = Layout::from_size_align(size, size).expect("a page's size is a power of two");
    // SAFETY: the size is not zero.
    let page = unsafe { alloc_zeroed(layout) };
    if page.is_null() {
        handle_alloc_error(layout);
    }
    page.cast()
}

/// Locks; a panic elsewhere was reported by its own call and leaves the state as whole as any error.
///
/// `std`'s mutex, since it is a futex and no more: nothing of it outlives a fork in a bad state, as
/// a table of parked threads would.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same if nobody holds it. (After a panic `std` calls that an error, which holds the lock.)
#[inline]
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A mutex for what one thread locks again and again: `std`'s may go to the same thread for ever,
/// while others sleep for it.
#[derive(Default)]
pub struct Fair<T> {
    mutex: Mutex<T>,
    /// How many sleep. Relaxed: it is a hint, which costs time alone where it is not seen.
    sleeping: AtomicU32,
}

/// How often to let others run who sleep for a lock: long enough for one of them to wake up.
const COURTESY: u32 = 500;

impl<T> Fair<T> {
    pub fn new(value: T) -> Fair<T> {
        Fair { mutex: Mutex::new(value), sleeping: AtomicU32::new(0) }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        for _ in 0..COURTESY {
            if self.sleeping.load(Ordering::Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        try_lock(&self.mutex).unwrap_or_else(|| self.sleep())
    }

    #[cold]
    fn sleep(&self) -> MutexGuard<'_, T> {
        self.sleeping.fetch_add(1, Ordering::Relaxed);
        let guard = lock(&self.mutex);
        self.sleeping.fetch_sub(1, Ordering::Relaxed);
        guard
    }
}

/// Things to use again, at most `KEPT` of them.
pub struct Pool<T, const KEPT: usize>(Mutex<Vec<T>>);

impl<T, const KEPT: usize> Default for Pool<T, KEPT> {
    fn default() -> Self {
        Pool(Mutex::new(Vec::new()))
    }
}

impl<T, const KEPT: usize> Pool<T, KEPT> {
    pub fn take(&self) -> Option<T> {
        lock(&self.0).pop()
    }

    pub fn give_back(&self, thing: T) {
        let mut kept = lock(&self.0);
        if kept.len() < KEPT {
            kept.push(thing);
        }
    }
}

/// How often to try, before sleeping, and how often of that without letting another thread run.
const TRIES: u32 = 50;
const SPINS: u32 = 10;

/// Locks what nobody holds for much longer than a system call takes: to be put to sleep and woken
/// costs more than that.
#[inline]
pub fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    try_lock(mutex).unwrap_or_else(|| lock_later(mutex))
}

#[cold]
fn lock_later<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for turn in 0..TRIES {
        if let Some(guard) = try_lock(mutex) {
            return guard;
        }
        if turn < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    lock(mutex)
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
        assert_eq!(*lock_soon(&mutex), 1);
        assert_eq!(*lock(&mutex), 1);
        let fair = Fair::new(2);
        poison(|| fair.lock());
        assert_eq!(*fair.lock(), 2);
    }
}
