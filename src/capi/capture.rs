use std::ffi::{c_char, c_int};

use crate::capi::args::{chosen, give_struct, shown, string};
use crate::capi::boundary::{OK, give_new, on_capture};
use crate::capi::conn::adopted;
use crate::capi::handles::{of_capture, qnet_capture, qnet_conn, qnet_hub, token_of};
use crate::capture::shared::qnet_capture_stats;
use crate::capture::{self, Capture};
use crate::conn;
use crate::error::{Error, Result};
use crate::forward::{self, hub};
use crate::options::{Holder, Options};
use crate::runtime::handle::Ref;

/// Opens a capture, which records the frames of connections and hubs (qnet_capture_add(),
/// qnet_capture_add_hub()) in a file that Wireshark, tshark and tcpdump read (pcapng).
///
/// Each connection or hub in it is an interface with a name. Each frame has its time, to the
/// nanosecond, its direction as seen from this side, and the number of frames before it on that
/// interface that could not be recorded. Every connection can be captured, whatever receives its
/// frames. Frames are recorded as they are at the socket: before the impairment QNET_IN, and behind
/// QNET_OUT (see qnet_impair()). Where the program receives or sends, they are recorded when they are
/// handed over or taken.
///
/// A capture never holds up frames. They are copied into its buffer (QNET_OPT_CAPTURE_BYTES), and a
/// thread of the library's writes them within 50 ms. Frames that find the buffer full are not
/// recorded, and counted (qnet_capture_stats.dropped). But qnet_clock_advance() waits for room if the
/// capture goes to a file. Times are those of the system's clock, or of the clock that a link or hub
/// is on (qnet_clock_new()), as time since 1970.
///
/// If the path is that of a FIFO, readers may come and go, one at a time: `mkfifo /tmp/f`, then
/// `wireshark -k -i /tmp/f`. Each gets a whole file that begins with the first frame after it came.
/// While there is none, nothing is recorded, and nothing counts as dropped. (A reader that comes
/// before the library has noticed that the last one left may get the rest of that one's file.)
///
/// If writing fails, because the disk is full for example, frames pass all the same. They then count
/// as dropped, and qnet_capture_stats.error tells why. Of a block that was cut, nothing stays in a
/// file. A forked child has no captures.
///
/// @param path     A file, which is made with the mode 0600, or emptied if it is there; or a FIFO
///                 that is there. With QNET_OPT_FILE_BYTES, files are made one after another:
///                 `lab_00001.pcapng`, `lab_00002.pcapng` and so on for `lab.pcapng`. Each of them
///                 stands alone.
/// @param options  An array of pairs, each an option (QNET_OPT_SNAPLEN, QNET_OPT_CAPTURE_BYTES,
///                 QNET_OPT_FILE_BYTES or QNET_OPT_FILES) followed by its value. May be NULL if
///                 pairs is 0.
/// @param pairs    The number of pairs.
/// @param out      Receives the capture, to be closed with qnet_capture_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, an option of other objects, or a value out of range),
///         QNET_ERR_UNSUPPORTED (QNET_OPT_FILE_BYTES with a FIFO), QNET_ERR_OS (the path, memory, a
///         thread, or too many captures), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_open(
    path: *const c_char,
    options: *const i64,
    pairs: usize,
    out: *mut *mut qnet_capture,
) -> c_int {
    // SAFETY: C promises a string, as many pairs, and that `out` is NULL or may be written to.
    unsafe {
        give_new(out, &|| format!("capture to {}", shown(path)), || {
            let path = string(path, "path")?;
            capture::open(path, &options_of(options, pairs)?).map(of_capture)
        })
    }
}

/// Opens a capture that goes to a descriptor: a pipe, a socket or a file. When the reader of a pipe or
/// a socket has left, recording has failed, and qnet_capture_stats.error is EPIPE.
///
/// @param fd       The descriptor. On success it is the library's. Should a pipe or a terminal not be
///                 opened again by way of /proc, it is set to O_NONBLOCK.
/// @param options  As for qnet_capture_open().
/// @param pairs    The number of pairs.
/// @param out      Receives the capture, to be closed with qnet_capture_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (also if fd is negative), QNET_ERR_UNSUPPORTED
///         (QNET_OPT_FILE_BYTES), QNET_ERR_OS (also if fd is not open, or not for writing),
///         QNET_ERR_INTERNAL. On failure the descriptor is still the caller's.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_open_fd(
    fd: c_int,
    options: *const i64,
    pairs: usize,
    out: *mut *mut qnet_capture,
) -> c_int {
    let make = || {
        // SAFETY: C promises as many pairs.
        let options = unsafe { options_of(options, pairs) }?;
        let (fd, own) = adopted(fd)?;
        capture::open_fd(fd, &options, own).map(of_capture)
    };
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe { give_new(out, &|| format!("capture to descriptor {fd}"), make) }
}

/// # Safety
/// There are `pairs` pairs.
unsafe fn options_of(options: *const i64, pairs: usize) -> Result<Options> {
    // SAFETY: the caller's promise.
    unsafe { chosen(options, pairs, Holder::Capture) }.map_err(|error| match error {
        Error::Misplaced(..) => Error::invalid(error.to_string()),
        error => error,
    })
}

/// Records the frames of a connection from now on, in both directions. A connection may be in many
/// captures.
///
/// The connection's interface stays in the file when the connection ends. Of a connection of
/// qnet_hub_port() it is the program's own end that is captured.
///
/// @param name  The name of the interface, in UTF-8, of at most 255 bytes. NULL for the address of
///              the peer or, if that has none, conn1, conn2 and so on.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (the connection is in the capture
///         already), QNET_ERR_INVALID (the name), the reason if the connection has ended,
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_add(
    capture: *mut qnet_capture,
    conn: *mut qnet_conn,
    name: *const c_char,
) -> c_int {
    on_capture(capture, "add a connection to", |capture| {
        let conn = of(capture, || conn::table().get(token_of(conn)))?;
        // SAFETY: C promises a string, or NULL.
        let name = unsafe { name_of(name) };
        conn::capture::add(capture, conn, name).map(|()| OK)
    })
}

/// Records every frame that a hub takes in from its ports, once, from now on. A hub may be in many
/// captures.
///
/// @param name  The name of the interface, as for qnet_capture_add(). NULL for hub1, hub2 and so on.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (the hub is in the capture
///         already), QNET_ERR_INVALID (the name), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_add_hub(
    capture: *mut qnet_capture,
    hub: *mut qnet_hub,
    name: *const c_char,
) -> c_int {
    on_capture(capture, "add a hub to", |capture| {
        let hub = of(capture, || hub::table().get(token_of(hub)))?;
        // SAFETY: C promises a string, or NULL.
        let name = unsafe { name_of(name) };
        forward::capture::add_hub(capture, hub, name).map(|()| OK)
    })
}

/// Records the frames of a connection no more.
///
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (the connection is not in the
///         capture), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_remove(
    capture: *mut qnet_capture,
    conn: *mut qnet_conn,
) -> c_int {
    on_capture(capture, "remove a connection from", |capture| {
        let conn = of(capture, || conn::table().get(token_of(conn)))?;
        conn::capture::remove(capture, conn).map(|()| OK)
    })
}

/// Adds a comment to the next frame that is recorded, which Wireshark shows with it. A frame may have
/// many.
///
/// @param text  The comment, in UTF-8, of at most 65535 bytes.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (text is NULL, too long or not UTF-8),
///         QNET_ERR_OS (1 MiB of comments wait for a frame, or 65536 of them), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_note(
    capture: *mut qnet_capture,
    text: *const c_char,
) -> c_int {
    on_capture(capture, "note something in", |capture| {
        // SAFETY: C promises a string, or NULL.
        capture::note(capture, unsafe { string(text, "text") }?).map(|()| OK)
    })
}

/// Copies the capture's counters.
///
/// @param out   Receives the counters. On failure it is left unchanged.
/// @param size  sizeof(qnet_capture_stats). Members that this release does not know are set to zero.
/// @return The size of the library's own struct, in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is
///         NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_get_stats(
    capture: *mut qnet_capture,
    out: *mut qnet_capture_stats,
    size: usize,
) -> c_int {
    on_capture(capture, "get the counters of", |capture| {
        // SAFETY: C promises room for `size` bytes.
        unsafe { give_struct(|| capture::stats(capture), out, size) }
    })
}

/// Closes a capture and invalidates its handle. What is in the buffer is written first, which takes
/// at most a second if the reader of a FIFO, a pipe or a socket is slow; and then how many frames
/// each interface has had, and how many of them were not recorded.
///
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: yes, until that is written.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_capture_close(capture: *mut qnet_capture) -> c_int {
    on_capture(capture, "close", |capture| forward::capture::close(capture).map(|()| OK))
}

/// What another argument names, which is judged behind the capture.
fn of<T>(capture: Ref<Capture>, named: impl FnOnce() -> Result<T>) -> Result<T> {
    capture.check()?;
    named()
}

/// # Safety
/// `name` is NULL, or a string that lives for the call.
unsafe fn name_of<'a>(name: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { string(name, "name") }.ok()
}
