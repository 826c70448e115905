//! What a fork does: a child has none of its parent's objects, and starts afresh.
//!
//! Everything global is reached through one page that the kernel zeroes in a forked child
//! (MADV_WIPEONFORK, Linux 4.14): all of it is gone there at once, without a look at anything else.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// How many pointers the page holds; and the two places that belong to no [`PerProcess`].
const PLACES: usize = 512;
const STAMP: usize = 0;
const NOWHERE: usize = 1;

/// The page. A pointer in it is null until its value has been built by this process.
type Page = [AtomicPtr<c_void>; PLACES];

static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// The next place to be given away. Relaxed: the number alone matters.
static NEXT: AtomicUsize = AtomicUsize::new(NOWHERE + 1);

/// How many processes there have been, as far as this one knows: it and its ancestors.
static PROCESSES: AtomicUsize = AtomicUsize::new(0);

/// The page, if it is mapped. Acquire: it is seen as it was made.
#[inline]
fn mapped() -> Option<&'static Page> {
    // SAFETY: null, or a page that is mapped for good; zeroed, it holds null pointers.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// The page, mapped if it is not yet; of two threads that meet here one leaves its own unused.
#[cold]
fn map() -> &'static Page {
    if let Some(page) = mapped() {
        return page;
    }
    let size = rustix::param::page_size().max(size_of::<Page>());
    // SAFETY: a new private mapping at a place that the kernel chooses, or memory of the heap, of the
    // page's size. It stays for good.
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

/// Where no mapping can be had, the allocator may still have a page.
fn page_of_heap(size: usize) -> *mut c_void {
    let layout = Layout::from_size_align(size, size).expect("a page's size is a power of two");
    // SAFETY: the size is not zero.
    let page = unsafe { alloc_zeroed(layout) };
    if page.is_null() {
        handle_alloc_error(layout);
    }
    page.cast()
}

/// Tells one process from those that it was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(usize);

impl Stamp {
    /// That of this process.
    #[inline]
    pub fn now() -> Stamp {
        match mapped().map_or(0, stamp_in) {
            0 => Stamp::draw(),
            stamp => Stamp(stamp),
        }
    }

    #[cold]
    fn draw() -> Stamp {
        let own = PROCESSES.fetch_add(1, Ordering::Relaxed) + 1;
        let (none, stamp) = (ptr::null_mut(), ptr::without_provenance_mut(own));
        let drawn =
            map()[STAMP].compare_exchange(none, stamp, Ordering::Relaxed, Ordering::Relaxed);
        Stamp(drawn.map_or_else(|other| other.addr(), |_| own))
    }

    /// Whether it is this process's: not so in a child forked inside a callback.
    #[inline]
    pub fn is_current(self) -> bool {
        // In a child the place is null, or has another number.
        mapped().map_or(0, stamp_in) == self.0
    }
}

/// The number in a page that tells its process from others, or 0 where none has been drawn. Relaxed: it
/// stands alone.
#[inline]
fn stamp_in(page: &Page) -> usize {
    page[STAMP].load(Ordering::Relaxed).addr()
}

/// A value that each process has of its own, built when it is first asked for. Never freed, so
/// `&'static`.
pub struct PerProcess<T: 'static> {
    /// Where in the page the pointer to it is: [`NOWHERE`], which stays null, until it has a place.
    place: AtomicUsize,
    /// What was built last, which in a forked child is the parent's.
    last: AtomicPtr<Entry<T>>,
}

struct Entry<T: 'static> {
    value: T,
    /// The parent's, kept where a leak checker finds it.
    _parent: Option<&'static Entry<T>>,
}

impl<T: Default + Sync> PerProcess<T> {
    pub const fn new() -> PerProcess<T> {
        let place = AtomicUsize::new(NOWHERE);
        PerProcess { place, last: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub fn get(&'static self) -> &'static T {
        let entry = mapped().and_then(|page| self.built(page));
        entry.map_or_else(|| self.build(), |entry| &entry.value)
    }

    /// This process's, if there is one. Acquire: what was built before the pointer was set is seen by
    /// who reads it.
    #[inline]
    fn built(&self, page: &Page) -> Option<&'static Entry<T>> {
        let place = &page[self.place.load(Ordering::Relaxed) % PLACES];
        // SAFETY: null, or an Entry of this type, since the place is this value's; never freed.
        unsafe { place.load(Ordering::Acquire).cast::<Entry<T>>().as_ref() }
    }

    /// Builds it; of two threads that meet here one drops its own.
    #[cold]
    fn build(&'static self) -> &'static T {
        let place = &map()[self.take_place()];
        // SAFETY: null, or an Entry of the parent, never freed.
        let parent = unsafe { self.last.load(Ordering::Acquire).as_ref() };
        let own = Box::into_raw(Box::new(Entry { value: T::default(), _parent: parent }));
        let (none, success) = (ptr::null_mut(), Ordering::AcqRel);
        match place.compare_exchange(none, own.cast(), success, Ordering::Acquire) {
            Ok(_) => {
                self.last.store(own, Ordering::Release);
                // SAFETY: it stays for good.
                unsafe { &(*own).value }
            }
            Err(other) => {
                // SAFETY: nobody else knows it.
                drop(unsafe { Box::from_raw(own) });
                // SAFETY: as in `built`.
                unsafe { &(*other.cast::<Entry<T>>()).value }
            }
        }
    }

    fn take_place(&self) -> usize {
        let place = self.place.load(Ordering::Relaxed);
        if place != NOWHERE {
            return place;
        }
        let own = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(own < PLACES, "a page has room for every PerProcess");
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
