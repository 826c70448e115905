//! Callbacks: the caller's functions, and which of them are running on this thread.
//!
//! A callback may end its thread (`pthread_exit`). So no lock, no panic boundary and nothing with a
//! destructor may enclose one. Each thread has a list of its running callbacks instead, whose
//! destructor calls [`Died`] for each, when the thread's storage is destroyed.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr;

use crate::frame::{Alike, PREFIX};
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

impl qnet_frame {
    /// Where each of some frames lies.
    #[inline]
    pub fn all(alike: &Alike<'_>) -> impl Iterator<Item = qnet_frame> + use<> {
        let (first, len) = (alike.bytes.as_ptr().wrapping_add(PREFIX), alike.len);
        (0..alike.count)
            .map(move |i| qnet_frame { data: first.wrapping_add(i * (PREFIX + len)), len })
    }
}

pub type FrameFn = unsafe extern "C-unwind" fn(*mut c_void, *const u8, usize);
pub type BatchFn = unsafe extern "C-unwind" fn(*mut c_void, *const qnet_frame, usize);
pub type IntFn = unsafe extern "C-unwind" fn(*mut c_void, c_int);
/// The second argument is a handle.
pub type PortFn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int);

/// The pointer that the caller wants passed to a function: an address or any other word, which the
/// library never dereferences.
#[derive(Debug, Clone, Copy)]
struct User(*mut c_void);

// SAFETY: the library only passes it back, and the caller gave it for calls on any thread.
unsafe impl Send for User {}

/// A function of the caller's, and the pointer that is passed to it.
#[derive(Debug, Clone, Copy)]
pub struct Callback<F> {
    function: F,
    user: User,
}

impl<F> Callback<F> {
    /// # Safety
    /// Until the callback is replaced, it must be sound to call `function` with `user`, on any
    /// thread.
    pub unsafe fn new(function: F, user: *mut c_void) -> Callback<F> {
        Callback { function, user: User(user) }
    }
}

impl Callback<FrameFn> {
    /// # Safety
    /// The frame's bytes must live during the call.
    #[inline]
    pub unsafe fn call(&self, frame: qnet_frame) {
        // SAFETY: the caller of `new` has promised it, and the caller of this one.
        unsafe { (self.function)(self.user.0, frame.data, frame.len) };
    }
}

impl Callback<BatchFn> {
    /// Passes `frames`, whose bytes must live during the call.
    #[inline]
    pub fn call(&self, frames: &[qnet_frame]) {
        // SAFETY: the caller of `new` has promised it.
        unsafe { (self.function)(self.user.0, frames.as_ptr(), frames.len()) };
    }
}

impl Callback<IntFn> {
    pub fn call(&self, value: c_int) {
        // SAFETY: the caller of `new` has promised it.
        unsafe { (self.function)(self.user.0, value) };
    }
}

impl Callback<PortFn> {
    pub fn call(&self, conn: Token, is_attached: bool) {
        let conn = ptr::without_provenance_mut(conn as usize);
        // SAFETY: the caller of `new` has promised it.
        unsafe { (self.function)(self.user.0, conn, is_attached.into()) };
    }
}

/// A frame handler, for one frame a call or for several.
#[derive(Debug, Clone, Copy)]
pub enum Handler {
    One(Callback<FrameFn>),
    Batch(Callback<BatchFn>),
}

/// A state handler, or a close handler.
pub type IntHandler = Callback<IntFn>;

/// A hub's port handler.
pub type PortHandler = Callback<PortFn>;

/// Which callback of a connection, or of a hub, a thread is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// The frame handler, on the connection's own thread.
    Frames,
    /// The state handler, on a thread started for this call.
    State,
    /// The close handler, on the connection's own thread.
    OwnClose,
    /// The close handler, on a thread of the caller's.
    CallersClose,
    /// The close handler, inside `qnet_close`, which has not given the handle back yet.
    ClosersClose,
    /// A close handler that was set after the end had been dealt with, and that nobody waits for.
    LateClose,
    /// The port handler of a hub, whose token stands in a connection's place.
    Port,
}

#[derive(Clone, Copy)]
struct Running {
    conn: Token,
    process: Stamp,
    doing: Doing,
    died: Died,
}

/// Does what remains to be done after a callback of this connection that has ended its thread.
pub type Died = fn(Token, Doing);

/// The callbacks that are running on a thread, the innermost last.
struct Calls(Vec<Running>);

thread_local! {
    static CALLS: RefCell<Calls> = const { RefCell::new(Calls(Vec::new())) };
    /// Whether the list is not empty. Looking at the list itself would register its destructor,
    /// which is too late where a thread's own destructors call the library.
    static IS_CALLED: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Calls {
    /// The thread is ending: whichever callbacks are still in the list have ended it.
    fn drop(&mut self) {
        // First, since nothing may look at a list that is being destroyed.
        IS_CALLED.set(false);
        cork::close();
        while let Some(running) = self.0.pop() {
            if running.process.is_current() {
                (running.died)(running.conn, running.doing);
            }
        }
    }
}

/// Changes the list, unless the thread is ending and has destroyed it.
fn change(change: impl FnOnce(&mut Vec<Running>)) {
    let _ = CALLS.try_with(|calls| {
        let running = &mut calls.borrow_mut().0;
        change(running);
        IS_CALLED.set(!running.is_empty());
    });
}

/// Whether the list has a callback that `is` what is asked for.
fn any(is: impl FnMut(&Running) -> bool) -> bool {
    IS_CALLED.get() && CALLS.with(|calls| calls.borrow().0.iter().any(is))
}

/// Runs a callback, of whatever kind: `call` calls a function of the caller's, the frame handler
/// perhaps many times. It must hold nothing with a destructor. If it ends its thread, `died` is
/// called.
///
/// Returns whether this is still the same process. If not, this is a child that was forked inside
/// the callback: all that the library had is the parent's, both memory and descriptors, and this
/// thread must not lock, write or wake anything of it any more.
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

/// Whether this thread is inside any callback, where no call waits for other handlers.
pub fn inside() -> bool {
    any(|running| running.process.is_current())
}

/// Whether this thread is inside a callback of `conn`.
pub fn inside_of(conn: Token) -> bool {
    any_of(conn, |_| true)
}

/// Whether this thread is inside the frame handler of `conn`.
pub fn delivers(conn: Token) -> bool {
    any_of(conn, |doing| doing == Doing::Frames)
}

/// Whether this thread is inside the state handler of `conn`.
pub fn tells(conn: Token) -> bool {
    any_of(conn, |doing| doing == Doing::State)
}

fn any_of(conn: Token, is: impl Fn(Doing) -> bool) -> bool {
    any(|running| running.conn == conn && is(running.doing) && running.process.is_current())
}
