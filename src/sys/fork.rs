//! Global state that a forked child does not share: it has none of its parent's objects, and starts
//! afresh.
//!
//! Every global is reached through pointers in pages that the kernel zeroes in a forked child
//! (MADV_WIPEONFORK, Linux 4.14). So the child loses all of them at once, without a fork
//! handler (pthread_atfork).

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, madvise};

/// A static that a forked child finds zeroed. It begins and ends with a page, since whole pages are
/// wiped; a loader may not align anything to more than one. Where pages may be of several sizes, as on
/// 64-bit Arm (4, 16 and 64 KiB), it begins and ends with the largest, and so with one of each size.
#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
pub struct Wiped<T>(T);

impl<T> Wiped<T> {
    /// Has it zeroed in children that are forked from now on.
    pub fn wipe_on_fork(&'static self) {
        let at = (&raw const *self).cast_mut().cast();
        // SAFETY: the pages are this static's alone, and every kind that can be made may be zero. Before
        // Linux 4.14 this fails, and a forked child must not use the library.
        let _ = unsafe { madvise(at, size_of_val(self), Advice::LinuxWipeOnFork) };
    }
}

/// Flags.
impl<const N: usize> Wiped<[AtomicBool; N]> {
    pub const fn flags() -> Self {
        Wiped([const { AtomicBool::new(false) }; N])
    }

    #[inline]
    pub fn flag(&'static self, number: usize) -> &'static AtomicBool {
        &self.0[number % N]
    }
}

/// Pointers to what lives for ever.
impl<T: Sync, const N: usize> Wiped<[AtomicPtr<T>; N]> {
    pub const fn pointers() -> Self {
        Wiped([const { AtomicPtr::new(ptr::null_mut()) }; N])
    }

    /// What the pointer with this number leads to. Acquire: who sees the pointer also sees that.
    #[inline]
    pub fn get(&'static self, number: usize) -> Option<&'static T> {
        // SAFETY: null, or what `set` was given, which lives for ever.
        unsafe { self.0[number % N].load(Ordering::Acquire).as_ref() }
    }

    pub fn set(&'static self, number: usize, to: &'static T) {
        self.0[number % N].store(ptr::from_ref(to).cast_mut(), Ordering::Release);
    }
}

/// How many pointers the page of all [`PerProcess`] holds.
const PLACES: usize = 512;

/// A place that stays null: that of every [`PerProcess`] that has not been given its own.
const NOWHERE: usize = 0;

/// A pointer is null until this process has built the value that belongs there.
static PAGE: Wiped<[AtomicPtr<c_void>; PLACES]> = Wiped::pointers();

/// The next place that nobody has been given. Relaxed: only the number matters.
static NEXT: AtomicUsize = AtomicUsize::new(NOWHERE + 1);

static PROCESS: PerProcess<()> = PerProcess::new();

/// Tells a process from the ones that it was forked from: something that each has of its own, at an
/// address that none of the others has.
#[derive(Clone, Copy)]
pub struct Stamp(&'static Entry<()>);

impl Stamp {
    /// The stamp of this process.
    #[inline]
    pub fn now() -> Stamp {
        Stamp(PROCESS.entry())
    }

    /// Whether this process made it, and not one that it was forked from.
    #[inline]
    pub fn is_current(self) -> bool {
        PROCESS.built().is_some_and(|own| ptr::eq(own, self.0))
    }
}

/// A global value of which each process has its own, built when it is first used. It is never
/// freed, which is why it can be borrowed for `'static`.
pub struct PerProcess<T: 'static> {
    /// The index of its pointer in the page, or [`NOWHERE`] until it has been given one.
    place: AtomicUsize,
    /// The value that was built last. In a forked child that is the parent's, until the child
    /// builds its own.
    last: AtomicPtr<Entry<T>>,
}

struct Entry<T: 'static> {
    value: T,
    /// The value of the process that this one was forked from, kept where a leak checker finds it.
    _parent: Option<&'static Entry<T>>,
}

impl<T: Default + Sync> PerProcess<T> {
    pub const fn new() -> PerProcess<T> {
        let place = AtomicUsize::new(NOWHERE);
        PerProcess { place, last: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub fn get(&'static self) -> &'static T {
        &self.entry().value
    }

    #[inline]
    fn entry(&self) -> &'static Entry<T> {
        self.built().unwrap_or_else(|| self.build())
    }

    /// This process's value, if it has been built. Acquire: who sees the pointer also sees the
    /// value.
    #[inline]
    fn built(&self) -> Option<&'static Entry<T>> {
        let place = &PAGE.0[self.place.load(Ordering::Relaxed) % PLACES];
        // SAFETY: the pointer is null, or that of an Entry of this type, since only `build` stores
        // to this place; an Entry is never freed.
        unsafe { place.load(Ordering::Acquire).cast::<Entry<T>>().as_ref() }
    }

    /// Builds this process's value. If two threads do so at once, one drops its own.
    #[cold]
    fn build(&self) -> &'static Entry<T> {
        PAGE.wipe_on_fork();
        let place = &PAGE.0[self.take_place()];
        // SAFETY: the pointer is null, or that of an Entry, which is never freed.
        let parent = unsafe { self.last.load(Ordering::Acquire).as_ref() };
        let own = Box::into_raw(Box::new(Entry { value: T::default(), _parent: parent }));
        let (none, success) = (ptr::null_mut(), Ordering::AcqRel);
        match place.compare_exchange(none, own.cast(), success, Ordering::Acquire) {
            Ok(_) => {
                self.last.store(own, Ordering::Release);
                // SAFETY: the Entry is never freed.
                unsafe { &*own }
            }
            Err(other) => {
                // SAFETY: it was made by `Box::into_raw`, and nobody else has the pointer.
                drop(unsafe { Box::from_raw(own) });
                // SAFETY: what another thread has stored here is such an Entry, too; it is never
                // freed.
                unsafe { &*other.cast() }
            }
        }
    }

    /// The index of the pointer in the page, which is the same in every process. If two threads
    /// take one at once, one of the two is not used.
    fn take_place(&self) -> usize {
        let place = self.place.load(Ordering::Relaxed);
        if place != NOWHERE {
            return place;
        }
        let own = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(own < PLACES, "the page has a place for every PerProcess");
        let taken = self.place.compare_exchange(NOWHERE, own, Ordering::Relaxed, Ordering::Relaxed);
        taken.map_or_else(|other| other, |_| own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_built_once_and_has_a_place_of_its_own() {
        static ONE: PerProcess<AtomicUsize> = PerProcess::new();
        static OTHER: PerProcess<AtomicUsize> = PerProcess::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| ONE.get().fetch_add(1, Ordering::Relaxed));
            }
        });
        assert_eq!(ONE.get().load(Ordering::Relaxed), 8);
        assert_eq!(OTHER.get().load(Ordering::Relaxed), 0);
        assert!(Stamp::now().is_current());
    }
}
