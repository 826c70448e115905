use std::ffi::{c_int, c_void};
use std::mem::{ManuallyDrop, transmute};
use std::ptr;

use crate::capi::args::{self, give_struct, out, put};
use crate::capi::boundary::{OK, give_new, guard, on_hub, run_call};
use crate::capi::handles::{of_conn, of_hub, qnet_conn, qnet_hub, qnet_listener, token_of};
use crate::conn;
use crate::forward::closing::{self, Closing};
use crate::forward::hub::{self, qnet_hub_stats};
use crate::forward::served;
use crate::listener;
use crate::runtime::callback::{PortFn, PortHandler};

/// Creates a hub, a learning switch that forwards frames between the connections attached to it.
///
/// The hub learns which source addresses are behind which connection (see QNET_OPT_MAC_AGE_S and
/// QNET_OPT_MAC_MAX). It sends a frame for a known address to that connection only and all other
/// frames to every connection, and never sends a frame back to where it came from. It never waits
/// for a connection: if more than QNET_OPT_QUEUE_BYTES are queued for one, further frames for it
/// are dropped and counted in its tx_dropped. At most 4 library threads do the forwarding for all
/// links and hubs; a hub without connections needs none.
///
/// @param out  Receives the hub, to be closed with qnet_hub_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many hubs), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_new(out: *mut *mut qnet_hub) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe { give_new(out, &|| "make a hub".into(), || hub::new().map(of_hub)) }
}

/// Attaches a connection to a hub: the hub receives its frames, and sends it those of the other
/// connections. While attached, the connection cannot be received from in another way
/// (QNET_ERR_BUSY). A send on it goes to its peer, past the hub.
///
/// @param conn  The connection. It stays the caller's, to be closed with qnet_close() whether it is
///              still attached or not. When it ends it is detached, and its close handler is called
///              on a library thread.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (frames would circulate,
///         because the connection already leads to this hub: it is one of its qnet_hub_port(), or
///         its qnet_socketpair() peer is attached to the hub or linked to something that leads
///         there; see qnet_link()), QNET_ERR_BUSY (the connection has a handler, or is attached or
///         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (the connection has ended;
///         QNET_ERR_OS also if no thread can be started or no descriptor is left for it, EMFILE),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_attach(hub: *mut qnet_hub, conn: *mut qnet_conn) -> c_int {
    on_hub(hub, "attach", |hub| hub::attach(hub, conn::table().get(token_of(conn))?).map(|()| OK))
}

/// Detaches a connection from a hub. The connection is as it was before qnet_hub_attach(): the hub
/// forwards nothing from or to it any more and forgets the addresses behind it, and frames that
/// were not received yet wait in it. Frames already queued for it are still written, and those in
/// flight (see qnet_impair()) are discarded. If the connection was accepted by qnet_hub_serve(), or is the hub's own end of a qnet_hub_port(), the
/// caller has to close it from now on.
///
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (the connection is not
///         attached to this hub), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_detach(hub: *mut qnet_hub, conn: *mut qnet_conn) -> c_int {
    on_hub(hub, "detach", |hub| hub::detach(hub, conn::table().get(token_of(conn))?).map(|()| OK))
}

/// Creates a connection whose other end is attached to the hub. With it the program has a device of
/// its own on the hub, and uses it like any other connection.
///
/// @param out  Receives the connection, to be closed with qnet_close(); NULL on failure. It ends
///             when the hub is closed, unless the hub's own end was detached before.
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
            let to = args::out(out, "out")?;
            put(to, of_conn(hub::port(hub)?));
            Ok(OK)
        })
    }
}

/// Accepts the peers of a listener in the background and attaches them to the hub. When such a peer
/// leaves, the library detaches and closes its connection, so that its handle, if the program got
/// it from qnet_hub_ports(), becomes stale. If no descriptor is left for a peer, accepting pauses
/// and is tried again later; if none is left for the thread that accepts, this function fails.
///
/// @param listener  The listener. It stays the caller's until qnet_hub_close(), which closes it.
///                  Closing it earlier stops the accepting; the peers stay attached. The peers
///                  start with the options of the listener, and their number is limited by its
///                  QNET_OPT_MAX_CONNS.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (a hub already serves the
///         listener), QNET_ERR_OS (no thread can be started, or no descriptor is left for it,
///         EMFILE), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_serve(
    hub: *mut qnet_hub,
    listener: *mut qnet_listener,
) -> c_int {
    on_hub(hub, "serve", |hub| {
        served::serve(hub, listener::table().get(token_of(listener))?).map(|()| OK)
    })
}

/// Called when a peer that a listener of a hub has accepted is to be attached, and again when it has
/// left; see qnet_hub_set_port_handler(). It must not throw an exception or longjmp out. It may end
/// its thread (pthread_exit): the hub then has no port handler, and the peer is attached.
///
/// @param user      The pointer that was given to qnet_hub_set_port_handler().
/// @param conn      The peer's connection. It is the hub's, as after qnet_hub_serve().
/// @param attached  1 before it is attached, 0 after it has left.
pub type qnet_port_handler =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, conn: *mut qnet_conn, attached: c_int)>;

/// Sets the handler that is told of the peers of the listeners that the hub serves
/// (qnet_hub_serve()).
///
/// It is called with 1 for each peer that has been accepted, before anything is read from it. In
/// this call the program can look at the peer (qnet_peer_cred(), qnet_peer_addr()), set options,
/// impairments and a close handler, or refuse it with qnet_close(). When the call has returned, the
/// connection is attached; until then nothing is sent to it, qnet_hub_ports() leaves it out, and it
/// counts for QNET_OPT_MAX_CONNS. It is not attached if the call has ended it; nor if the call has
/// given it a handler, linked it or attached it elsewhere: then it is the program's to close.
///
/// For each of these calls there is one with 0 when the connection has left the hub, for whatever
/// reason; unless the handler has closed it in the first call. If the peer has left, the handle stays
/// valid during the call. If the program has closed or detached it, or has closed the hub, the
/// handle may be stale. This call and the connection's close handler are in no particular order.
///
/// A handler is told nothing of peers that were attached before it was set. Peers that wait for
/// their call when there is no handler any more are attached without one.
///
/// There is one call at a time for a hub, in order, on a library thread of the hub's own, so that a
/// slow handler delays neither frames nor other hubs; peers wait for it. On a clock of the program's
/// (qnet_hub_set_clock()) the calls are made in qnet_clock_advance(), and those for peers that
/// qnet_hub_close() ends in that. The handler may call any function of the library.
///
/// Outside a handler of any kind, this function returns only when the handler that it replaces is
/// not running and never will again, so that its `user` can be freed, as does qnet_hub_close(). Hold
/// no lock that the old handler takes. Inside a handler neither waits.
///
/// @param handler  The handler, or NULL for none.
/// @param user     A pointer that is passed to the handler.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the previous handler has returned; not inside a handler of any kind.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_set_port_handler(
    hub: *mut qnet_hub,
    handler: qnet_port_handler,
    user: *mut c_void,
) -> c_int {
    on_hub(hub, "set a port handler", |hub| {
        let handler = handler.map(|call| {
            // SAFETY: the two types differ in what a pointer points to, which is a handle and not an
            // address.
            let call = unsafe {
                transmute::<unsafe extern "C-unwind" fn(_, *mut qnet_conn, _), PortFn>(call)
            };
            // SAFETY: C promises that the handler may be called with `user` until another takes its place.
            unsafe { PortHandler::new(call, user) }
        });
        served::set_handler(hub, handler).map(|()| OK)
    })
}

/// Lists the connections that are attached to a hub, in no particular order. Those accepted by
/// qnet_hub_serve() and the hub's own ends of qnet_hub_port() are included.
///
/// @param conns  Receives as many handles as there is room for. May be NULL if cap is 0.
/// @param cap    How many handles the array has room for.
/// @return How many connections are attached, even if there was room for fewer; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (conns is NULL), QNET_ERR_INTERNAL.
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
            unsafe { to.add(at).write(of_conn(*conn)) };
        }
        Ok(ports.len() as c_int)
    })
}

/// Sets an option of a hub.
///
/// @param option  QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX, QNET_OPT_QUEUE_BYTES, QNET_OPT_GROUP_FWD_MASK or
///                QNET_OPT_MOVE_MS.
/// @param value   The new value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
///         range), QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL. On failure
///         nothing has changed.
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

/// Gets the value of an option of a hub.
///
/// @param option  One of the options that qnet_hub_set() takes.
/// @param value   Receives the value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
///         QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL.
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

/// Gets the counters of a hub.
///
/// @param out   Receives the counters. Members that this release of the library does not know are
///              set to zero.
/// @param size  The size of the struct in bytes: sizeof(qnet_hub_stats) as the caller was compiled.
/// @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (out is NULL), QNET_ERR_INTERNAL.
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

/// Closes a hub and invalidates its handle. All connections are detached. The listeners that the
/// hub served and the connections accepted from them are closed, and connections of qnet_hub_port()
/// end. Connections that the caller attached, and those that qnet_hub_port() returned, still have
/// to be closed by the caller.
///
/// The connections accepted from listeners are closed as by qnet_close(), all at the same time.
/// Inside a handler of any kind, or for connections with QNET_OPT_WAIT 0, the call does not wait
/// for their close handlers, in which their handles are then stale. When the call returns, the
/// descriptors of everything that it closed are closed.
///
/// Frames that the hub has not read yet are lost, both those of peers and those that the program
/// sent on a qnet_hub_port(). A program that needs to be certain first waits until they have
/// arrived or been answered.
///
/// @return QNET_OK; QNET_ERR_HANDLE (if two threads close a hub at the same time, the second gets
///         this immediately), QNET_ERR_INTERNAL.
///
/// Blocks: yes, as qnet_close() does, for the connections that it closes; and until the port handler
/// has been told of all that left.
/// Calls back: yes, on a clock of the program's (qnet_hub_set_clock()): the port handler, and the
/// close handlers of the connections that it closes. Otherwise no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_close(hub: *mut qnet_hub) -> c_int {
    let mut left = ManuallyDrop::new(Closing::default());
    let code = on_hub(hub, "close", |hub| {
        *left = closing::close(hub)?;
        Ok(OK)
    });
    // A close handler may end this thread: what is left is then never dropped.
    while let Some(call) = guard(|_| None, || left.next_call()) {
        run_call(call);
    }
    guard(|_| (), || ManuallyDrop::into_inner(left).finish());
    code
}
