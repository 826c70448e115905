//! The C layer, thin: one file a section of the header, every export through `call` or `guard`.
//!
//! A symbol is found in the file of its section, and what it does in the library's file of the same
//! name. Comments on the functions here are the header's.

// What C must promise is each function's own comment, which is the header's and not rustdoc's.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

pub mod conn;
pub mod dgram;
pub mod end;
pub mod hub;
pub mod info;
pub mod link;
pub mod listener;
pub mod receive;
pub mod redial;
pub mod send;

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::conn::Conn;
use crate::conn::close_handler::{self, CloseCall};
use crate::error::{Error, Result, qnet_error};
use crate::forward::hub::Hub;
use crate::listener::Listener;
use crate::runtime::handle::{Object, Ref, Table, Token};
use crate::sys::thread::Uncancelled;

/// A connection to a layer-2 device: frames are sent to it and received from it.
///
/// The pointer is a handle, not an address. Using a stale or invented one gives QNET_ERR_HANDLE.
pub struct qnet_conn {
    _token: u8,
}

/// A listener, to which peers connect. The pointer is a handle, as for qnet_conn.
pub struct qnet_listener {
    _token: u8,
}

/// A hub, which is a learning switch. The pointer is a handle, as for qnet_conn.
pub struct qnet_hub {
    _token: u8,
}

const OK: c_int = qnet_error::QNET_OK as c_int;

/// Runs `body` behind the panic boundary: no panic reaches C. No callback may run inside.
fn guard<T>(on_panic: impl FnOnce(Error) -> T, body: impl FnOnce() -> T) -> T {
    let _uncancelled = Uncancelled::new();
    let body = AssertUnwindSafe(|| {
        #[cfg(feature = "inject-panic")]
        if std::env::var_os("QNET_INJECT_PANIC").is_some() {
            panic!("injected by QNET_INJECT_PANIC");
        }
        body()
    });
    catch_unwind(body).unwrap_or_else(|panic| on_panic(Error::Internal(text_of(&*panic))))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
}

/// What every function that can fail is made of: the panic boundary, and the record of a failure
/// under the name of what was `attempt`ed.
fn call(attempt: impl FnOnce() -> String, body: impl FnOnce() -> Result<c_int>) -> c_int {
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

/// The same for the functions of an object, whose handle is judged before other arguments.
fn on<T: Object>(
    attempt: &str,
    token: Token,
    table: &'static Table<T>,
    describe: impl FnOnce(Ref<T>) -> String,
    body: impl FnOnce(Ref<T>) -> Result<c_int>,
) -> c_int {
    call(
        || {
            let on = table.get(token).map_or_else(|_| format!("handle {token:#x}"), describe);
            format!("{attempt} on {on}")
        },
        || {
            let this = table.get(token)?;
            body(this).or_else(|error| match error {
                // Arguments are looked at before the lock that judges the handle.
                Error::Invalid(_) | Error::FrameSize(_) => this.check().and(Err(error)),
                error => Err(error),
            })
        },
    )
}

fn on_conn(
    conn: *mut qnet_conn,
    attempt: &str,
    body: impl FnOnce(Ref<Conn>) -> Result<c_int>,
) -> c_int {
    let table = crate::conn::table();
    on(attempt, conn.addr() as Token, table, crate::conn::info::describe, body)
}

fn on_listener(
    listener: *mut qnet_listener,
    attempt: &str,
    body: impl FnOnce(Ref<Listener>) -> Result<c_int>,
) -> c_int {
    let table = crate::listener::table();
    on(attempt, listener.addr() as Token, table, crate::listener::describe, body)
}

fn on_hub(
    hub: *mut qnet_hub,
    attempt: &str,
    body: impl FnOnce(Ref<Hub>) -> Result<c_int>,
) -> c_int {
    let describe = |hub: Ref<Hub>| format!("hub {:#x}", hub.token);
    on(attempt, hub.addr() as Token, crate::forward::hub::table(), describe, body)
}

/// The same for functions that may report the connection's end, and then run its close handler.
fn on_conn_to_its_end(
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

fn run_due_close_call(conn: *mut qnet_conn) {
    let due = || {
        let conn = crate::conn::table().get(conn.addr() as Token).ok()?;
        close_handler::due(conn, &mut *conn.state().ok()?)
    };
    if let Some(call) = guard(|_| None, due) {
        run_close_call(call);
    }
}

/// Calls a close handler on this thread, outside every panic boundary.
fn run_close_call(call: CloseCall) {
    if call.run() {
        guard(|_| (), || call.returned());
    }
}

/// The thread's last failure. No destructor, so that it is there to the thread's last moment.
struct LastError {
    text: [u8; 512],
    errno: c_int,
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { text: [0; 512], errno: 0 }) };
}

fn record(attempt: &str, error: &Error) {
    let text = format!("{attempt}: {error}");
    let mut end = text.len().min(511);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    LAST_ERROR.with_borrow_mut(|last| {
        last.text[..end].copy_from_slice(&text.as_bytes()[..end]);
        last.text[end] = 0;
        last.errno = error.errno();
    });
}

/// The bytes of a C string.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that lives for the call.
unsafe fn string<'a>(text: *const c_char, name: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// What a message says of a C string that may be NULL.
///
/// # Safety
/// As for [`string`].
unsafe fn shown(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { string(text, "") }.map_or("NULL".into(), |s| String::from_utf8_lossy(s).into_owned())
}

/// The `count` things at `at`, which may be NULL if there are none.
///
/// # Safety
/// `at` is NULL or points to `count` things that live, and do not change, for the call.
unsafe fn slice<'a, T>(at: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid(format!("{count} {name} are more than memory holds")));
    }
    // SAFETY: not null, not longer than memory can be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at, count) })
}

/// Checks an out-parameter.
fn out<T>(at: *mut T, name: &str) -> Result<*mut T> {
    if at.is_null() { Err(Error::invalid(format!("{name} is NULL"))) } else { Ok(at) }
}

/// Writes through an out-parameter, unless it is NULL.
///
/// # Safety
/// `at` is NULL or may be written to.
unsafe fn put<T>(at: *mut T, value: T) {
    if !at.is_null() {
        // SAFETY: the caller's promise.
        unsafe { at.write(value) };
    }
}

/// The handle of a connection.
fn handle_of(conn: Ref<Conn>) -> *mut qnet_conn {
    ptr::without_provenance_mut(conn.token as usize)
}

/// Gives text as snprintf(3) does. Returns the length needed, without the NUL.
///
/// # Safety
/// `buf` is NULL or has room for `cap` bytes.
unsafe fn give_text(text: &[u8], buf: *mut c_char, cap: usize) -> Result<c_int> {
    if cap > 0 {
        let buf: *mut u8 = out(buf, "buf")?.cast();
        let n = text.len().min(cap - 1);
        // SAFETY: n + 1 bytes are at most `cap`; the text is the library's own.
        unsafe {
            buf.copy_from_nonoverlapping(text.as_ptr(), n);
            buf.add(n).write(0);
        }
    }
    Ok(text.len() as c_int)
}

/// Gives a struct of counts as far as there is room, and zeroes beyond it. Returns the bytes known.
///
/// # Safety
/// `to` is NULL or has room for `size` bytes; `T` is plain integers.
unsafe fn give_struct<T>(
    counts: impl FnOnce() -> Result<T>,
    to: *mut T,
    size: usize,
) -> Result<c_int> {
    let to: *mut u8 = out(to, "out")?.cast();
    let counts = counts()?;
    let known = size_of::<T>();
    // SAFETY: the caller's promise.
    unsafe {
        to.copy_from_nonoverlapping((&raw const counts).cast(), known.min(size));
        if size > known {
            to.add(known).write_bytes(0, size - known);
        }
    }
    Ok(known as c_int)
}

/// What a callback is called with.
fn user(user: *mut c_void) -> crate::runtime::callback::User {
    crate::runtime::callback::User(user)
}
