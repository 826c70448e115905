//! The library's own threads.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use crate::error::Result;

/// Signals that a fault raises in the very thread that made it; blocking them would kill the process.
const FAULTS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

struct Start<F> {
    name: &'static CStr,
    body: F,
}

/// Runs `body` on a thread of its own: detached, with the system's default stack, all signals but
/// faults blocked. `name` has at most 15 bytes, and begins with `qnet-`.
///
/// Made with `pthread_create`, not `std::thread`: the host may end the thread inside a callback
/// (`pthread_exit`), and that unwinding must find nothing on its way that aborts. So `body` must
/// not panic, and must hold nothing with a destructor while a callback runs.
pub fn spawn<F: FnOnce() + Send + 'static>(name: &'static CStr, body: F) -> Result<()> {
    let start = Box::into_raw(Box::new(Start { name, body }));
    // SAFETY: `entry` has the layout of what pthread_create calls; the ABI differs from "C" only in
    // that unwinding may pass, which glibc's and musl's callers allow.
    let entry = unsafe {
        std::mem::transmute::<
            extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            extern "C" fn(*mut c_void) -> *mut c_void,
        >(entry::<F>)
    };
    let mut thread = MaybeUninit::uninit();
    let restore = block_signals();
    // SAFETY: the out-pointer is valid, the attributes are the defaults, and `start` is the
    // thread's from here on.
    let failed =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), entry, start.cast()) };
    restore_signals(&restore);
    if failed != 0 {
        // SAFETY: no thread was made, so `start` is still ours alone.
        drop(unsafe { Box::from_raw(start) });
        return Err(Errno::from_raw_os_error(failed).into());
    }
    // SAFETY: pthread_create succeeded and wrote the thread; nobody joins it.
    unsafe { libc::pthread_detach(thread.assume_init()) };
    Ok(())
}

unsafe extern "C" {
    /// POSIX; not in the libc crate for Linux. 1 disables.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, `pthread_cancel` does not end this thread: its unwinding would find a panic
/// boundary, and abort. The library's own threads are never cancelled.
pub struct Uncancelled(Option<c_int>);

impl Uncancelled {
    #[inline]
    pub fn new() -> Uncancelled {
        Uncancelled((!IS_OURS.get()).then(|| set_cancel_state(1)))
    }
}

impl Drop for Uncancelled {
    #[inline]
    fn drop(&mut self) {
        if let Some(old) = self.0 {
            set_cancel_state(old);
        }
    }
}

fn set_cancel_state(state: c_int) -> c_int {
    let mut old = 0;
    // SAFETY: `old` may be written to, and a wrong state is refused.
    unsafe { pthread_setcancelstate(state, &mut old) };
    old
}

extern "C-unwind" fn entry<F: FnOnce()>(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it of a Box<Start<F>> and gave it to this thread alone.
    let Start { name, body } = *unsafe { Box::from_raw(start.cast::<Start<F>>()) };
    // SAFETY: the name ends with NUL; a failure leaves the old name.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
    set_cancel_state(1);
    IS_OURS.set(true);
    body();
    ptr::null_mut()
}

/// Blocks what library threads block; they inherit it.
fn block_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: sigfillset writes `set` before it is read, pthread_sigmask writes `old`; with valid
    // arguments none of them fails.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}

fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: `old` is the mask that block_signals() read.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, ptr::null_mut()) };
}
