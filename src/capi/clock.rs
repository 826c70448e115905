use std::ffi::c_int;

use crate::capi::args::put;
use crate::capi::boundary::{OK, give_new, on_clock, on_hub, run_call};
use crate::capi::handles::{of_clock, qnet_clock, qnet_conn, qnet_hub, token_of};
use crate::conn;
use crate::forward::advance::{self, Progress};
use crate::forward::{clock, hub, link};

/// Creates a clock that the program moves, for simulations, replays and tests. It begins at 0 ns and
/// stands still until qnet_clock_advance() is called.
///
/// On such a clock nothing is forwarded by itself: no library thread serves the links
/// (qnet_link_on()) and hubs (qnet_hub_set_clock()) on it. qnet_clock_advance() does all of their
/// work on the thread that calls it. Impairments (qnet_impair()) go by this clock there, to the
/// nanosecond, so that with given seeds and inputs each run has the same results.
///
/// Reconnecting, lingering and every timeout_ms stay on the system's clock. The child of a fork has
/// no clocks.
///
/// @param out  Receives the clock, to be closed with qnet_clock_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many clocks),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_clock_new(out: *mut *mut qnet_clock) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe { give_new(out, &|| "make a clock".into(), || clock::new().map(of_clock)) }
}

/// Advances a clock, and does what its links and hubs have to do until then:
///
/// 1. It takes in what the sockets of all their connections hold, at the present time, in the order
///    in which these were plugged in, each until it is empty. (Of a peer that keeps writing it takes
///    in QNET_OPT_FLIGHT_BYTES.) It also accepts from the listeners that such hubs serve.
/// 2. It goes through everything that is due until to_ns in the order of time. Frames that are due
///    at the same time leave in the order in which they began to wait. What is written to a
///    connection whose other end is on the same clock too (qnet_socketpair(), qnet_hub_port()) is
///    taken in there at that very time, so that the results do not depend on the steps. Of what
///    comes to such a connection at one instant, frames beyond QNET_OPT_FLIGHT_BYTES are dropped
///    and counted (rx_refused): a loop of hubs does not hold up the clock for ever.
/// 3. The clock shows to_ns.
///
/// If the socket is full to which a link has to write, the call waits for room, as long as the
/// QNET_OPT_SEND_TIMEOUT_MS of that connection says, and then fails with QNET_ERR_AGAIN or
/// QNET_ERR_TIMEOUT. The clock then shows when that was, nothing is lost, and the next advance goes
/// on from there. A simulation sets the option to 0; -1, the default, waits for ever for a peer
/// that does not read. For a hub, frames are queued (QNET_OPT_QUEUE_BYTES), and it is tried again in
/// the next advance at the latest.
///
/// Connections whose peers have left end in this call, and their close handlers run in it, on its
/// thread, while the clock shows the time at which the last of their frames has arrived. (When the
/// program itself ends a connection, qnet_close(), qnet_shutdown() or qnet_hub_close() runs it.) If
/// two threads advance a clock, one waits until the other is done or runs a handler. Port handlers
/// (qnet_hub_set_port_handler()) are called in the same way.
///
/// @param to_ns  The time to advance to, in nanoseconds. If that is the present, the call only takes
///               in what there is, and forwards what is due now.
/// @return How many frames were forwarded since the last call that did not fail, up to INT_MAX: a
///         frame counts once for each connection that it was sent to. QNET_ERR_HANDLE;
///         QNET_ERR_INVALID (to_ns is before the present), QNET_ERR_BUSY (inside a handler of any
///         kind), QNET_ERR_AGAIN or QNET_ERR_TIMEOUT (a socket is full), QNET_ERR_INTERRUPTED (a
///         signal handler ran while the call waited; the next call goes on), QNET_ERR_INTERNAL.
///
/// Blocks: yes, while a link's socket is full or another thread advances the clock.
/// Calls back: yes, close handlers and port handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_clock_advance(clock: *mut qnet_clock, to_ns: i64) -> c_int {
    let mut progress = Progress::to(to_ns);
    loop {
        let mut call = None;
        let code = on_clock(clock, "advance", |clock| {
            call = advance::advance(clock, &mut progress)?;
            Ok(progress.frames())
        });
        match call {
            Some(call) => run_call(call),
            None => return code,
        }
    }
}

/// Tells what time it is by a clock, and when something is due next. Frames that wait in sockets
/// count from when an advance has taken them in.
///
/// @param now_ns   Receives the present time, in nanoseconds. May be NULL.
/// @param next_ns  Receives when something is due, in nanoseconds: INT64_MAX if nothing is, and the
///                 present time if the last advance stopped before all was done. May be NULL.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_clock_next(
    clock: *mut qnet_clock,
    now_ns: *mut i64,
    next_ns: *mut i64,
) -> c_int {
    on_clock(clock, "tell the time of", |clock| {
        let (now, next) = clock::next(clock)?;
        // SAFETY: C promises that each is NULL or may be written to.
        unsafe {
            put(now_ns, now);
            put(next_ns, next);
        }
        Ok(OK)
    })
}

/// Closes a clock and invalidates its handle.
///
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (a hub or a link is on it, or it is being
///         advanced), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_clock_close(clock: *mut qnet_clock) -> c_int {
    on_clock(clock, "close", |clock| clock::close(clock).map(|()| OK))
}

/// Puts a hub on a clock of the program's: what is attached to it or served by it from then on is
/// forwarded by qnet_clock_advance() alone, and the ages of addresses (QNET_OPT_MAC_AGE_S) go by
/// that clock. The hub keeps its options and counts.
///
/// @param clock  The clock, which cannot be closed while the hub is on it; NULL for the system's.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (something is attached to the
///         hub, or it serves a listener, or its port handler is running or about to),
///         QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_set_clock(
    hub: *mut qnet_hub,
    clock: *mut qnet_clock,
) -> c_int {
    on_hub(hub, "set the clock", |hub| {
        let clock = (!clock.is_null()).then(|| clock::table().get(token_of(clock)));
        hub::set_clock(hub, clock.transpose()?).map(|()| OK)
    })
}

/// Connects two connections as qnet_link() does, on a clock of the program's: their frames are
/// forwarded by qnet_clock_advance() alone. qnet_unlink() removes the link.
///
/// @param clock  The clock, which cannot be closed while the link is on it.
/// @param a      One connection, as for qnet_link().
/// @param b      The other connection, likewise.
/// @return As qnet_link(); QNET_ERR_HANDLE also if the clock is not a live one.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_link_on(
    clock: *mut qnet_clock,
    a: *mut qnet_conn,
    b: *mut qnet_conn,
) -> c_int {
    on_clock(clock, "link on", |clock| {
        let (a, b) = (conn::table().get(token_of(a))?, conn::table().get(token_of(b))?);
        link::link_on(clock, a, b).map(|()| OK)
    })
}
