//! The library's own threads.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::ptr;

use rustix::io::Errno;

use crate::error::Result;

/// Signals that a fault raises in the thread that made it. The kernel kills a process that blocks
/// them.
const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// What a new thread is given: its name, and what it runs.
type Start<F> = (&'static CStr, F);

/// Runs `body` on a new thread, which is detached, has the system's default stack size, and blocks
/// all signals except those of faults. `name` has at most 15 bytes, and begins with `qnet-`.
///
/// The thread is made with `pthread_create` rather than `std::thread`, because the host may end it
/// inside a callback (`pthread_exit`), and nothing that this unwinds may abort. For the same reason
/// `body` must not panic, and must hold nothing with a destructor while a callback runs.
pub fn spawn<F: FnOnce() + Send + 'static>(name: &'static CStr, body: F) -> Result<()> {
    let start = Box::into_raw(Box::new((name, body)));
    // SAFETY: "C-unwind" differs from "C" only in that unwinding may pass through, which the C
    // library allows for the function that it starts a thread with.
    let entry = unsafe {
        std::mem::transmute::<
            extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            extern "C" fn(*mut c_void) -> *mut c_void,
        >(entry::<F>)
    };
    let mut thread = MaybeUninit::uninit();
    let mask = block_signals();
    // SAFETY: `thread` can be written to, null stands for the default attributes, and `start`
    // belongs to the new thread from here on.
    let failed =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), entry, start.cast()) };
    // SAFETY: `mask` is an initialized mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
    if failed != 0 {
        // SAFETY: no thread was created, so nobody else has `start`, which `Box::into_raw` made.
        drop(unsafe { Box::from_raw(start) });
        return Err(Errno::from_raw_os_error(failed).into());
    }
    // SAFETY: pthread_create has written the thread, and nobody joins it.
    unsafe { libc::pthread_detach(thread.assume_init()) };
    Ok(())
}

/// Has waits of this thread end as soon after their time as the system can.
pub fn wait_exactly() {
    // It cannot fail; a sandbox that refuses it costs 50 microseconds a wait.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// How many processors this thread may run on; `None` where there are more than 1024. A control group's share of
/// their time does not count: reading it takes files, and 12 KB of code.
pub fn processors() -> Option<usize> {
    rustix::thread::sched_getaffinity(None).ok().map(|set| set.count() as usize)
}

/// A number that no other living thread of the process has; never 0. It is where the thread's control
/// block lies, which both ABIs keep in a register (System V ABI for x86-64, 3.4.6; for AArch64, 6.1.2).
#[inline(always)]
pub fn current() -> usize {
    let thread: usize;
    // SAFETY: reading the register changes nothing, and on x86-64 the block begins with its own address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) thread, options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // SAFETY: it has no conditions.
        thread = unsafe { libc::pthread_self() } as usize;
    }
    thread
}

unsafe extern "C" {
    /// Part of POSIX, and missing from the libc crate for Linux. A `state` of 1 disables
    /// cancellation.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// While this exists, `pthread_cancel` does not end the thread: its unwinding would meet a panic
/// boundary, and abort. The library's own threads cannot be cancelled at all.
pub struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    #[inline]
    pub fn new() -> Uncancelled {
        Uncancelled { before: set_cancel_state(1) }
    }
}

impl Drop for Uncancelled {
    #[inline]
    fn drop(&mut self) {
        set_cancel_state(self.before);
    }
}

#[inline]
fn set_cancel_state(state: c_int) -> c_int {
    let mut old = 0;
    // SAFETY: `old` can be written to, and an invalid state is refused.
    unsafe { pthread_setcancelstate(state, &mut old) };
    old
}

extern "C-unwind" fn entry<F: FnOnce()>(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made the pointer from a Box<Start<F>>, and gave it to this thread alone.
    let (name, body) = *unsafe { Box::from_raw(start.cast::<Start<F>>()) };
    // SAFETY: the name ends with NUL. If the call fails, the thread keeps its old name.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
    set_cancel_state(1);
    body();
    ptr::null_mut()
}

/// Blocks the signals that the library's threads block, which inherit that. Returns the mask
/// before.
fn block_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: sigfillset initializes `set`, and pthread_sigmask initializes `old`; with valid
    // arguments neither fails.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}
