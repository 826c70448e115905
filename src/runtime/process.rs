//! What belongs to this process: its handles and its service thread. A forked child has none of its
//! parent's; it starts afresh.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::conn::Conn;
use crate::conn::send::Gather;
use crate::forward::hub::Hub;
use crate::listener::Listener;
use crate::net::resolve::Lookups;
use crate::runtime::dialler::Dialler;
use crate::runtime::event_loop::Loops;
use crate::runtime::handle::Table;
use crate::runtime::service::Service;
use crate::rx::buffer::Rooms;

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
    /// The parent's, kept where a leak checker finds it.
    #[allow(dead_code)]
    parent: Option<&'static Process>,
}

/// A page that the kernel zeroes in a forked child (MADV_WIPEONFORK, Linux 4.14); it holds the pointer
/// to this process's state.
static PAGE: AtomicPtr<AtomicPtr<Process>> = AtomicPtr::new(ptr::null_mut());
/// The same, which a forked child finds: its parent's.
static LAST: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// This process's state. Acquire: what was built before the pointer was set is seen by who reads it.
#[inline]
pub fn process() -> &'static Process {
    current().unwrap_or_else(start)
}

impl Process {
    /// Whether it is still this process's: not so in a child forked inside a callback.
    #[inline]
    pub fn is_current(&self) -> bool {
        current().is_some_and(|current| ptr::eq(current, self))
    }
}

#[inline]
fn current() -> Option<&'static Process> {
    // SAFETY: null, or a page that is mapped for good; it was zeroed, which is a null pointer.
    let page = unsafe { PAGE.load(Ordering::Acquire).as_ref() }?;
    // SAFETY: null, or a Process, which is never freed once it is there.
    unsafe { page.load(Ordering::Acquire).as_ref() }
}

/// Builds this process's state; of two threads that meet here one drops its own.
#[cold]
fn start() -> &'static Process {
    let page = map_page();
    // SAFETY: null, or a Process of the parent, never freed.
    let parent = unsafe { LAST.load(Ordering::Acquire).as_ref() };
    let own = Box::into_raw(Box::new(Process { parent, ..Process::default() }));
    match page.compare_exchange(ptr::null_mut(), own, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            LAST.store(own, Ordering::Release);
            // SAFETY: it stays for good.
            unsafe { &*own }
        }
        Err(other) => {
            // SAFETY: nobody else knows it.
            drop(unsafe { Box::from_raw(own) });
            // SAFETY: as in `current`.
            unsafe { &*other }
        }
    }
}

/// The page, mapped if it is not yet; of two threads that meet here one leaves its own unused.
fn map_page() -> &'static AtomicPtr<Process> {
    // SAFETY: as in `current`.
    if let Some(page) = unsafe { PAGE.load(Ordering::Acquire).as_ref() } {
        return page;
    }
    let size = rustix::param::page_size();
    // SAFETY: a new private mapping at a place that the kernel chooses, or a page of the heap. It
    // stays for good.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let page = mmap_anonymous(ptr::null_mut(), size, access, MapFlags::PRIVATE)
            .unwrap_or_else(|_| page_of_heap(size));
        // On a kernel before 4.14 a forked child shares the parent's handles, which it must not use.
        let _ = madvise(page, size, Advice::LinuxWipeOnFork);
        let page = page.cast();
        match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => &*page,
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
