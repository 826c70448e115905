use std::ffi::{c_char, c_int};

use crate::capi::args::{self, give_text, text};
use crate::capi::boundary::{OK, on_conn, on_hub, on_listener, to_conn, to_listener};
use crate::capi::handles::{of_conn, qnet_conn, qnet_hub, qnet_listener, token_of};
use crate::conn::{self, rules};
use crate::error::Error;
use crate::forward::fdb::{self, Known};
use crate::listener;

/// What a hub knows of an address; see qnet_hub_fdb().
///
/// Later releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct qnet_fdb_entry {
    /// The address.
    pub mac: [u8; 6],
    /// The VLAN in which it is known; 0 in a hub without VLANs.
    pub vlan: u16,
    /// A sum of enum qnet_fdb_flag.
    pub flags: u32,
    /// How many times it has moved from one port to another since it was learned.
    pub moves: u32,
    /// The connection that it is behind: of qnet_hub_port() the one that the program was given, else as
    /// qnet_hub_ports() names it.
    pub conn: *mut qnet_conn,
    /// How long ago its last frame came, in milliseconds; 0 for static ones.
    pub age_ms: u64,
}

/// Sets the VLANs of a connection, which are in force while it is attached to a hub:
///
///   access VID                        untagged frames, of VLAN VID; tagged ones are refused
///   trunk [LIST] [native VID]         tagged frames of the VLANs in LIST, such as 10,20-29; `all` by
///                                     default. Untagged ones are of the native VLAN, or refused
///   tunnel VID                        whatever comes is of VLAN VID, its tags left in place (QinQ)
///
/// each optionally with `tpid 88a8` behind it: the port's tags are of that kind, and others are payload.
/// The default is `tpid 8100`. VIDs are 1 to 4094. A tag of VLAN 0 only says a priority, and the frame
/// counts as untagged. A connection for which nothing was set is transparent: it takes and gets the
/// tagged frames of all VLANs, and those without a tag are of a VLAN 0 of their own.
///
/// Frames go out untagged at access ports, in a trunk's native VLAN, and at a tunnel, where only the
/// outer tag is taken off; tagged at other trunks. Priorities are kept. A frame that would leave
/// untagged and still begins with a tag of the port's kind is not sent there, but at a tunnel. Tags
/// that are cut short, and VID 4095, are refused.
///
/// A hub looks at tags once one of its ports has VLANs. From then on it learns addresses a VLAN apart,
/// and floods within one. Setting VLANs forgets what is known behind the port, static entries
/// included; the first port of a hub that has VLANs, and the last one that has them no more, have it
/// forget all that it has learned. On a connection of qnet_hub_port() they belong to the hub's end,
/// whichever of the two handles is given.
///
/// @param spec  The text, for example "trunk 10,20-29 native 1". NULL or "": the connection is
///              transparent.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a text that cannot be understood, in which case
///         qnet_last_error() says where and what was expected), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or
///         QNET_ERR_OS (the connection has ended), QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_vlan(conn: *mut qnet_conn, spec: *const c_char) -> c_int {
    to_conn(conn, "set the VLANs of", |conn| {
        // SAFETY: C promises NULL or a string.
        rules::set_vlan(conn, unsafe { text(spec) }?).map(|()| OK)
    })
}

/// Gets the VLANs of a connection, as a text that qnet_set_vlan() takes: in lower case, the VLANs of a
/// list in order, and without what is so by default.
///
/// @param buf  Receives the text as snprintf(3) would write it: truncated if necessary, always
///             NUL-terminated; empty for none. May be NULL if cap is 0.
/// @param cap  The size of buf in bytes.
/// @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
///         QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_vlan(
    conn: *mut qnet_conn,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the VLANs", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(rules::vlan(conn)?.as_bytes(), buf, cap) }
    })
}

/// Sets the VLANs with which the connections start that the listener accepts from now on; see
/// qnet_set_vlan(). They are in force before the first frame.
///
/// @param spec  The text. NULL or "": none.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a text that cannot be understood),
///         QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_set_vlan(
    listener: *mut qnet_listener,
    spec: *const c_char,
) -> c_int {
    to_listener(listener, "set the VLANs of", |listener| {
        // SAFETY: C promises NULL or a string.
        listener::set_vlan(listener, unsafe { text(spec) }?).map(|()| OK)
    })
}

/// Gets the VLANs with which the listener's connections start, as qnet_vlan() does.
///
/// @param buf  Receives the text as snprintf(3) would write it: truncated if necessary, always
///             NUL-terminated; empty for none. May be NULL if cap is 0.
/// @param cap  The size of buf in bytes.
/// @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
///         QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_vlan(
    listener: *mut qnet_listener,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_listener(listener, "tell the VLANs", |listener| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(listener::vlan(listener)?.as_bytes(), buf, cap) }
    })
}

/// Lists the addresses that a hub knows, in no particular order: those that it has learned, and those
/// that were added.
///
/// @param entries  Receives as many entries as there is room for, `size` bytes apart. May be NULL if cap
///                 is 0.
/// @param size     The size of an entry in bytes: sizeof(qnet_fdb_entry) as the caller was compiled.
///                 Members that this release of the library does not know are set to zero.
/// @param cap      How many entries the array has room for.
/// @return How many addresses are known, even if there was room for fewer; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (entries is NULL, or size is below 32), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_fdb(
    hub: *mut qnet_hub,
    entries: *mut qnet_fdb_entry,
    size: usize,
    cap: usize,
) -> c_int {
    on_hub(hub, "tell the addresses", |hub| {
        if size < size_of::<qnet_fdb_entry>() {
            return Err(Error::invalid(format!("an entry has more than {size} bytes")));
        }
        let to = if cap > 0 { args::out(entries, "entries")? } else { entries };
        let known = fdb::list(hub)?;
        for (at, known) in known.iter().take(cap).enumerate() {
            // SAFETY: C promises room for `cap` entries of `size` bytes; the struct is plain integers.
            unsafe {
                let entry = to.cast::<u8>().add(at * size).cast();
                args::give_struct(|| Ok(entry_of(known)), entry, size)?;
            }
        }
        Ok(known.len() as c_int)
    })
}

fn entry_of(known: &Known) -> qnet_fdb_entry {
    let Known { mac, vlan, flags, moves, conn, age_ms } = *known;
    qnet_fdb_entry { mac, vlan, flags, moves, conn: of_conn(conn), age_ms }
}

/// Adds a static address to a hub's table: frames for it go to that connection from now on, and it
/// neither ages nor moves. It replaces what was learned, or added before. It goes with its port: when
/// that is detached, mirrors (QNET_OPT_MIRROR), has its cable pulled (QNET_OPT_LINK) or gets other
/// VLANs. Frames that come from the address at another port pass, unless its own port is secure
/// (QNET_OPT_SECURE).
///
/// @param mac   The 6 bytes of the address.
/// @param vlan  The VLAN, 1 to 4094; 0 for frames without a tag at transparent ports, and in a hub
///              without VLANs (see qnet_set_vlan()).
/// @param conn  The connection, which has to be attached to the hub. Of a qnet_hub_port() either end
///              is taken.
/// @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (mac is NULL or a group's, not
///         a VLAN, or the connection is not attached to this hub), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL
///         or QNET_ERR_OS (the connection has ended), QNET_ERR_OS (ENOSPC: QNET_OPT_MAC_MAX addresses
///         are static), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_fdb_add(
    hub: *mut qnet_hub,
    mac: *const u8,
    vlan: c_int,
    conn: *mut qnet_conn,
) -> c_int {
    on_hub(hub, "add an address", |hub| {
        let conn = conn::table().get(token_of(conn))?;
        conn.check()?;
        // SAFETY: C promises NULL or 6 bytes.
        let mac = unsafe { args::mac(mac) };
        let mac = mac.ok_or_else(|| Error::invalid("mac is NULL"))?;
        fdb::add(hub, mac, vlan, conn).map(|()| OK)
    })
}

/// Removes addresses from a hub's table.
///
/// @param mac   The 6 bytes of an address, static or not. NULL: all that were learned.
/// @param vlan  The VLAN, 0 to 4094. -1: every one.
/// @return How many entries were removed; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is a group's, or not
///         a VLAN), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hub_fdb_remove(
    hub: *mut qnet_hub,
    mac: *const u8,
    vlan: c_int,
) -> c_int {
    on_hub(hub, "remove addresses", |hub| {
        // SAFETY: C promises NULL or 6 bytes.
        let mac = unsafe { args::mac(mac) };
        fdb::remove(hub, mac, vlan).map(|removed| removed as c_int)
    })
}
