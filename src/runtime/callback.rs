//! The caller's functions, and which of them run on this thread right now.
//!
//! A callback may end its thread (`pthread_exit`). So nothing with a destructor, no lock and no
//! panic boundary may enclose one; what has to be put right is put right by this thread's list of
//! running calls, when the thread's storage is destroyed.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};

use crate::runtime::cork;
use crate::runtime::handle::Token;
use crate::sys::fork::Stamp;

/// One Ethernet frame in memory. It starts with the destination address and contains neither a
/// length prefix nor a checksum.
///
/// The struct has the same layout as `struct iovec`.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct qnet_frame {
    /// The first byte of the frame.
    pub data: *const u8,
    /// The length of the frame in bytes.
    pub len: usize,
}

pub type FrameFn = unsafe extern "C-unwind" fn(*mut c_void, *const u8, usize);
pub type BatchFn = unsafe extern "C-unwind" fn(*mut c_void, *const qnet_frame, usize);
pub type IntFn = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// What the caller gave to be called with: an address or any other word, never looked at here.
#[derive(Debug, Clone, Copy)]
struct User(*mut c_void);

// SAFETY: it is handed back on the library's threads, which is what the caller gave it for.
unsafe impl Send for User {}

/// A function of the caller's, and what it is called with.
#[derive(Debug, Clone, Copy)]
pub struct Callback<F> {
    function: F,
    user: User,
}

impl<F> Callback<F> {
    /// # Safety
    /// Until another takes its place, `function` may be called with `user`, on any thread.
    pub unsafe fn new(function: F, user: *mut c_void) -> Callback<F> {
        Callback { function, user: User(user) }
    }
}

impl Callback<FrameFn> {
    #[inline]
    pub fn call(&self, frame: &[u8]) {
        // SAFETY: the promise made in `new`; the frame lives for the call.
        unsafe { (self.function)(self.user.0, frame.as_ptr(), frame.len()) };
    }
}

impl Callback<BatchFn> {
    /// With frames that live for the call.
    #[inline]
    pub fn call(&self, frames: &[qnet_frame]) {
        // SAFETY: the promise made in `new`.
        unsafe { (self.function)(self.user.0, frames.as_ptr(), frames.len()) };
    }
}

impl Callback<IntFn> {
    pub fn call(&self, with: c_int) {
        // SAFETY: the promise made in `new`.
        unsafe { (self.function)(self.user.0, with) };
    }
}

/// A frame handler.
#[derive(Debug, Clone, Copy)]
pub enum Handler {
    One(Callback<FrameFn>),
    Batch(Callback<BatchFn>),
}

/// A state handler, or a close handler.
pub type IntHandler = Callback<IntFn>;

/// What a thread does for a connection in a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Frames, on the connection's own thread.
    Frames,
    /// The state handler, on the thread that dials again.
    State,
    /// The close handler, on the connection's own thread.
    OwnClose,
    /// The close handler, on a thread of the caller's.
    CallersClose,
    /// The same inside `qnet_close`, which has yet to give the handle back.
    ClosersClose,
    /// A close handler that nobody waits for.
    LateClose,
}

#[derive(Clone, Copy)]
struct Running {
    conn: Token,
    process: Stamp,
    doing: Doing,
    died: Died,
}

/// What puts right what a callback of that connection has left undone, which has ended its thread.
pub type Died = fn(Token, Doing);

struct Calls(Vec<Running>);

thread_local! {
    static CALLS: RefCell<Calls> = const { RefCell::new(Calls(Vec::new())) };
    /// Whether there is anything in that list. To look there would have the system remember its
    /// destructor: too late on a thread whose own ones call the library.
    static IS_CALLED: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Calls {
    /// The thread ends; what still runs on it was ended from inside.
    fn drop(&mut self) {
        cork::close();
        IS_CALLED.set(false);
        while let Some(running) = self.0.pop() {
            if running.process.is_current() {
                (running.died)(running.conn, running.doing);
            }
        }
    }
}

/// Changes the list, unless this thread is so near its end that it is gone.
fn change(change: impl FnOnce(&mut Vec<Running>)) {
    let _ = CALLS.try_with(|calls| {
        let running = &mut calls.borrow_mut().0;
        change(running);
        IS_CALLED.set(!running.is_empty());
    });
}

/// Looks at the list, from the last call to the first.
fn any(is: impl FnMut(&Running) -> bool) -> bool {
    IS_CALLED.get() && CALLS.with(|calls| calls.borrow().0.iter().rev().any(is))
}

/// Every callback runs in here: `call` calls one function of the caller's, or the frame handler again
/// and again. It must hold nothing with a destructor. Where it ends its thread `died` is called. Returns whether this process is still the one
/// that it was: in a child forked inside, all that the library had is the parent's, memory and
/// descriptors, and nobody may touch it any more, be it to lock, to write or to tell somebody.
#[must_use]
pub fn run(conn: Token, doing: Doing, died: Died, call: impl FnOnce()) -> bool {
    let process = Stamp::now();
    change(|calls| calls.push(Running { conn, process, doing, died }));
    call();
    change(|calls| _ = calls.pop());
    let is_same = process.is_current();
    if !is_same {
        cork::close();
    }
    is_same
}

/// Whether this thread is inside a callback of any kind, where no call waits for another.
pub fn inside() -> bool {
    any(|running| running.process.is_current())
}

/// Whether this thread is inside a callback of `conn`.
pub fn inside_of(conn: Token) -> bool {
    any_of(conn, |_| true)
}

/// Whether this thread is the one that hands over the frames of `conn`.
pub fn delivers(conn: Token) -> bool {
    any_of(conn, |doing| doing == Doing::Frames)
}

/// Whether this thread is the one that tells of the state of `conn`.
pub fn tells(conn: Token) -> bool {
    any_of(conn, |doing| doing == Doing::State)
}

fn any_of(conn: Token, is: impl Fn(Doing) -> bool) -> bool {
    any(|running| running.conn == conn && is(running.doing) && running.process.is_current())
}
