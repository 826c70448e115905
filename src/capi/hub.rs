use std::ffi::c_int;
use std::ptr;

use super::{
    OK, call, give_struct, handle_of, on_hub, out, put, qnet_conn, qnet_hub, qnet_listener,
};
use crate::conn;
use crate::forward::hub::{self, qnet_hub_stats};
use crate::listener;

/// Makes a hub: a learning switch, between connections that are attached to it.
///
/// It learns which addresses are behind which connection (QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX),
/// sends frames for one of them there alone, all others to everybody, and never sends one back where
/// it came from. It never waits for a connection: where more waits than QNET_OPT_QUEUE_BYTES,
/// frames are dropped, and counted in that connection's tx_dropped. The work is done by threads of
/// the library's, at most 4, which all links and hubs share; without connections there are none.
///
/// @param out  The hub, to be closed with qnet_hub_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many hubs), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_new(out: *mut *mut qnet_hub) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        call(
            || "make a hub".into(),
            || {
                let to = super::out(out, "out")?;
                put(to, ptr::without_provenance_mut(hub::new()?.token as usize));
                Ok(OK)
            },
        )
    }
}

/// Attaches a connection: the hub receives its frames and sends it others'. Other ways to receive
/// give QNET_ERR_BUSY; sends go to the connection's own peer, past the hub.
///
/// @param conn  The connection, which stays the caller's, to be closed with qnet_close(), attached or
///              not. When it ends it is detached, and its close handler is called on a thread of the
///              library's.
/// @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_INVALID (it leads to this hub: it is one of
///         its qnet_hub_port(), or the other end of its qnet_socketpair() is attached, or linked to
///         what leads here; see qnet_link()), QNET_ERR_BUSY (it has a handler, or is attached or
///         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (it has ended, or there is no
///         thread to be had, or no descriptor for one: EMFILE), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_attach(hub: *mut qnet_hub, conn: *mut qnet_conn) -> c_int {
    on_hub(hub, "attach", |hub| {
        hub::attach(hub, conn::table().get(conn.addr() as u64)?).map(|()| OK)
    })
}

/// Detaches a connection, which is as before qnet_hub_attach(): nothing is forwarded from or to it
/// any more, its addresses are forgotten, and frames not yet received wait in it. What was to be sent
/// to it is still written. One that was served, or is the hub's own end of a qnet_hub_port(), is the
/// caller's to close from now on.
///
/// @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_INVALID (it is not attached to this hub),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_detach(hub: *mut qnet_hub, conn: *mut qnet_conn) -> c_int {
    on_hub(hub, "detach", |hub| {
        hub::detach(hub, conn::table().get(conn.addr() as u64)?).map(|()| OK)
    })
}

/// Makes a connection whose other end is attached: the program's own device on the hub, used like
/// any connection.
///
/// @param out  The connection, to be closed with qnet_close(); NULL on failure. It ends with the hub,
///             unless the hub's own end of it was detached.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL), QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_port(
    hub: *mut qnet_hub,
    out: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        on_hub(hub, "make a port", |hub| {
            hub.check()?;
            let to = super::out(out, "out")?;
            put(to, handle_of(hub::port(hub)?));
            Ok(OK)
        })
    }
}

/// Accepts a listener's peers in the background, and attaches them. A peer that leaves is detached
/// and its connection given back by the library: its handle, from qnet_hub_ports(), is stale then.
/// Without a descriptor for a peer accepting waits, and goes on; without one for the thread that
/// accepts, this function fails.
///
/// @param listener  It stays the caller's until qnet_hub_close(), which closes it; closing it before
///                  ends the accepting, and the peers stay. Its options are those of the peers, of
///                  whom there are not more than its QNET_OPT_MAX_CONNS.
/// @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_BUSY (a hub serves it already),
///         QNET_ERR_OS (there is no thread to be had, or no descriptor for one: EMFILE),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_serve(
    hub: *mut qnet_hub,
    listener: *mut qnet_listener,
) -> c_int {
    on_hub(hub, "serve", |hub| {
        hub::serve(hub, listener::table().get(listener.addr() as u64)?).map(|()| OK)
    })
}

/// Tells what is attached, in no order: served connections too, and the hub's own ends of
/// qnet_hub_port().
///
/// @param conns  Filled with handles as far as it reaches. May be NULL if cap is 0.
/// @param cap    How many it has room for.
/// @return How many there are; QNET_ERR_HANDLE, QNET_ERR_INVALID (conns is NULL),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_ports(
    hub: *mut qnet_hub,
    conns: *mut *mut qnet_conn,
    cap: usize,
) -> c_int {
    on_hub(hub, "tell the ports", |hub| {
        let to = if cap > 0 { out(conns, "conns")? } else { conns };
        let ports = hub::ports(hub)?;
        for (at, conn) in ports.iter().take(cap).enumerate() {
            // SAFETY: C promises room for `cap` handles.
            unsafe { to.add(at).write(handle_of(*conn)) };
        }
        Ok(ports.len() as c_int)
    })
}

/// Sets an option of a hub.
///
/// @param option  QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX or QNET_OPT_QUEUE_BYTES.
/// @param value   Its value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
///         QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL. On failure nothing has
///         changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_set(
    hub: *mut qnet_hub,
    option: c_int,
    value: i64,
) -> c_int {
    on_hub(hub, "set an option", |hub| hub::set(hub, option, value).map(|()| OK))
}

/// Tells an option's value.
///
/// @param option  As for qnet_hub_set().
/// @param value   Where to.
/// @return As qnet_hub_set(); QNET_ERR_INVALID where value is NULL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_get(
    hub: *mut qnet_hub,
    option: c_int,
    value: *mut i64,
) -> c_int {
    on_hub(hub, "get an option", |hub| {
        let to = out(value, "value")?;
        // SAFETY: C promises that it may be written to.
        unsafe { put(to, hub::get(hub, option)?) };
        Ok(OK)
    })
}

/// Tells the hub's counts.
///
/// @param out   Filled as far as it reaches; what the library does not know is zeroed.
/// @param size  Its size in bytes: sizeof(qnet_hub_stats) of the caller's header.
/// @return The bytes that the library knows; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_get_stats(
    hub: *mut qnet_hub,
    out: *mut qnet_hub_stats,
    size: usize,
) -> c_int {
    on_hub(hub, "tell the counts", |hub| {
        // SAFETY: C promises room for `size` bytes; the struct is plain integers.
        unsafe { give_struct(|| hub::stats(hub), out, size) }
    })
}

/// Closes a hub and gives its handle back: detaches all, closes the listeners and connections that
/// it served, and ends what qnet_hub_port() made. Handles given out by that, and attached by the
/// caller, stay the caller's to close.
///
/// Served connections are closed as by qnet_close(), all at a time; inside a handler of any kind, or
/// where they have QNET_OPT_WAIT 0, without waiting for their close handlers, in which their handles
/// are stale then. When it returns the descriptors of all that it closed are closed.
///
/// What the hub has not read yet is lost, whether a peer sent it or the program, into a
/// qnet_hub_port(): as with any peer that leaves without reading. To be sure, wait for its arrival, or
/// the answer to it, before.
///
/// @return QNET_OK; QNET_ERR_HANDLE (of two closes at once the second gets it immediately),
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, as qnet_close() does, for the connections that it closes.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_close(hub: *mut qnet_hub) -> c_int {
    on_hub(hub, "close", |hub| hub::close(hub).map(|()| OK))
}
