//! Where calls from C come in: a panic does not leave the library, a handle is checked, and a failure is
//! recorded.

use std::any::Any;
use std::ffi::c_int;
use std::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::capi::args::{out, put};
use crate::capi::handles::{
    qnet_capture, qnet_clock, qnet_conn, qnet_hub, qnet_listener, token_of,
};
use crate::capi::last_error::record;
use crate::capture::{self, Capture};
use crate::conn::close_handler::{self, CloseCall};
use crate::conn::{self, Conn};
use crate::error::{Error, Result, qnet_error};
use crate::forward::clock::{self, Clock};
use crate::forward::hub::{self, Hub};
use crate::forward::served::Call;
use crate::listener::{self, Listener};
use crate::runtime::callback::Doing;
use crate::runtime::handle::{Object, Ref, Table, Token};
use crate::sys::thread::Uncancelled;

pub const OK: c_int = qnet_error::QNET_OK as c_int;

/// Runs `body` behind the panic boundary: no panic reaches C. No callback may run inside.
pub fn guard<T>(on_panic: impl FnOnce(Error) -> T, body: impl FnOnce() -> T) -> T {
    let _uncancelled = Uncancelled::new();
    let body = AssertUnwindSafe(|| {
        #[cfg(feature = "inject-panic")]
        if std::env::var_os("QNET_INJECT_PANIC").is_some() {
            panic!("injected by QNET_INJECT_PANIC");
        }
        body()
    });
    catch_unwind(body).unwrap_or_else(|panic| on_panic(internal(&*panic)))
}

#[cold]
#[inline(never)]
fn internal(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
    Error::Internal(text.to_owned().into())
}

/// What a call attempts, in words, which only a failure needs.
type Attempt<'a> = &'a dyn Fn() -> String;

/// Every function that can fail is one of these: `body` behind the panic boundary, and a failure recorded
/// as one of what was attempted.
pub fn call(attempt: Attempt<'_>, body: impl FnOnce() -> Result<c_int>) -> c_int {
    let mut body = Some(body);
    call_any(attempt, &mut || body.take().map_or(Ok(OK), |body| body()))
}

/// The boundary is compiled once, and not into each function.
#[inline(never)]
fn call_any(attempt: Attempt<'_>, body: &mut dyn FnMut() -> Result<c_int>) -> c_int {
    match guard(Err, body) {
        Ok(value) => value,
        Err(error) => {
            if error.is_recorded() {
                guard(|_| (), || record(&attempt(), &error));
            }
            error.code()
        }
    }
}

/// A [`call`] that makes an object, whose handle is written to `to`, or NULL if it fails.
///
/// # Safety
/// `to` is NULL or may be written to.
pub unsafe fn give_new<H>(
    to: *mut *mut H,
    attempt: Attempt<'_>,
    make: impl FnOnce() -> Result<*mut H>,
) -> c_int {
    // SAFETY: the caller's promise, for both uses.
    unsafe {
        put(to, ptr::null_mut());
        call(attempt, || {
            let to = out(to, "out")?;
            put(to, make()?);
            Ok(OK)
        })
    }
}

/// A [`call`] on an object, whose handle is judged before other arguments. A failure names what was
/// attempted, and then the object. Compiled once for each type of object, as [`call`] is.
#[inline(never)]
fn on<T: Object, const N: usize>(
    attempt: Arguments<'_>,
    token: Token,
    table: &'static Table<T, N>,
    describe: fn(Ref<T>) -> String,
    body: &mut dyn FnMut(Ref<T>) -> Result<c_int>,
) -> c_int {
    call_any(
        &|| {
            let on = table.get(token).map_or_else(|_| format!("handle {token:#x}"), describe);
            format!("{attempt} {on}")
        },
        &mut || {
            let this = table.get(token)?;
            body(this).or_else(|error| match error {
                // Arguments are looked at before the lock that judges the handle.
                Error::Invalid(_) | Error::FrameSize(_) => this.check().and(Err(error)),
                error => Err(error),
            })
        },
    )
}

pub fn on_conn(
    conn: *mut qnet_conn,
    attempt: &str,
    body: impl FnOnce(Ref<Conn>) -> Result<c_int>,
) -> c_int {
    with_conn(conn, format_args!("{attempt} on"), &mut once_of(body))
}

/// The same, for what is done to the connection itself.
pub fn to_conn(
    conn: *mut qnet_conn,
    attempt: &str,
    body: impl FnOnce(Ref<Conn>) -> Result<c_int>,
) -> c_int {
    with_conn(conn, format_args!("{attempt}"), &mut once_of(body))
}

fn with_conn(
    conn: *mut qnet_conn,
    attempt: Arguments<'_>,
    body: &mut dyn FnMut(Ref<Conn>) -> Result<c_int>,
) -> c_int {
    on(attempt, token_of(conn), conn::table(), conn::info::describe, body)
}

pub fn on_listener(
    listener: *mut qnet_listener,
    attempt: &str,
    body: impl FnOnce(Ref<Listener>) -> Result<c_int>,
) -> c_int {
    with_listener(listener, format_args!("{attempt} on"), &mut once_of(body))
}

/// The same, for what is done to the listener itself.
pub fn to_listener(
    listener: *mut qnet_listener,
    attempt: &str,
    body: impl FnOnce(Ref<Listener>) -> Result<c_int>,
) -> c_int {
    with_listener(listener, format_args!("{attempt}"), &mut once_of(body))
}

fn with_listener(
    listener: *mut qnet_listener,
    attempt: Arguments<'_>,
    body: &mut dyn FnMut(Ref<Listener>) -> Result<c_int>,
) -> c_int {
    on(attempt, token_of(listener), listener::table(), listener::describe, body)
}

pub fn on_hub(
    hub: *mut qnet_hub,
    attempt: &str,
    body: impl FnOnce(Ref<Hub>) -> Result<c_int>,
) -> c_int {
    let describe = |hub: Ref<Hub>| format!("hub {:#x}", hub.token);
    on(format_args!("{attempt} on"), token_of(hub), hub::table(), describe, &mut once_of(body))
}

pub fn on_clock(
    clock: *mut qnet_clock,
    attempt: &str,
    body: impl FnOnce(Ref<Clock>) -> Result<c_int>,
) -> c_int {
    let describe = |clock: Ref<Clock>| format!("clock {:#x}", clock.token);
    on(format_args!("{attempt}"), token_of(clock), clock::table(), describe, &mut once_of(body))
}

pub fn on_capture(
    capture: *mut qnet_capture,
    attempt: &str,
    body: impl FnOnce(Ref<Capture>) -> Result<c_int>,
) -> c_int {
    let describe = |capture: Ref<Capture>| format!("capture {:#x}", capture.token);
    let table = capture::table();
    on(format_args!("{attempt}"), token_of(capture), table, describe, &mut once_of(body))
}

/// A closure that the boundary calls once at most, as one that it can be lent: so it needs no code for each.
fn once_of<T: Object>(
    body: impl FnOnce(Ref<T>) -> Result<c_int>,
) -> impl FnMut(Ref<T>) -> Result<c_int> {
    let mut body = Some(body);
    move |this| body.take().map_or(Ok(OK), |body| body(this))
}

/// A call on a connection that may report its end, and then runs its close handler.
pub fn on_conn_to_its_end(
    conn: *mut qnet_conn,
    attempt: &str,
    body: impl FnOnce(Ref<Conn>) -> Result<c_int>,
) -> c_int {
    let code = on_conn(conn, attempt, body);
    if code < 0 {
        run_due_close_call(conn);
    }
    code
}

pub fn run_due_close_call(conn: *mut qnet_conn) {
    let due = || {
        let conn = conn::table().get(token_of(conn)).ok()?;
        close_handler::due(conn, &mut *conn.state().ok()?, Doing::CallersClose)
    };
    if let Some(call) = guard(|_| None, due) {
        run_close_call(call);
    }
}

/// The same for either kind of handler.
pub fn run_call(call: Call) {
    match call {
        Call::Close(call) => run_close_call(call),
        Call::Port(mut call) => {
            while call.run() {
                match guard(|_| None, || call.returned()) {
                    Some(next) => call = next,
                    None => return,
                }
            }
        }
    }
}

/// Calls a close handler on this thread, outside every panic boundary.
pub fn run_close_call(call: CloseCall) {
    if call.run() {
        guard(|_| (), || call.returned());
    }
}
