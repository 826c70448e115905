use std::ffi::{c_char, c_int};

use crate::capi::args::{give_text, shown, string};
use crate::capi::boundary::{give_new, on_conn};
use crate::capi::handles::{of_conn, qnet_conn};
use crate::conn::{info, open};
use crate::net::dgram;

/// Creates a datagram connection, on which each datagram is one frame. It is the other end of
/// QEMU's `-netdev dgram`, `-netdev socket,udp=` and `-netdev socket,mcast=`.
///
/// It is used like any other connection, except that it does not notice when the remote leaves.
/// Frames that nobody receives are lost and counted in tx_dropped; once somebody receives again,
/// sending works again. If the remote exists but does not read, a send waits for up to 40 ms;
/// after that frames are dropped until the remote reads. With QNET_OPT_SEND_TIMEOUT_MS 0 a send
/// gives QNET_ERR_AGAIN instead. The descriptor of qnet_fd() does not show when a Unix remote has
/// room again, so the program has to try again after a while.
///
/// Datagrams from anyone but the remote are not delivered, and are counted in rx_foreign. A
/// multicast member's own frames and the `VFKT` with which vfkit begins are not delivered either.
/// Datagrams shorter or longer than any frame are counted in rx_runts.
///
/// If remote is NULL, the first sender becomes the remote, even if what it sends is no frame. Until
/// then frames sent are lost and counted in tx_dropped, and qnet_peer_addr() gives an empty string.
/// With QNET_OPT_RELEARN 1 each later sender takes its place. A sender is noticed when its datagram
/// is read: by a receive, a handler, a hub or a link.
///
/// @param network  "udp", "udp4", "udp6", "unixgram" or "mcast" (IPv4 multicast).
/// @param local    The address to receive at. For UDP, "host:port", "[v6]:port" or ":port" (every
///                 interface); with port 0 the system chooses one. For unixgram, a path, or "@name"
///                 in the abstract namespace. The socket file is created with mode 0600 and removed
///                 with the connection, and a dead socket file in its place is replaced, as by
///                 qnet_listen(). For mcast, the address of the interface, or NULL.
/// @param remote   The address to send to. For UDP, "host:port", "[v6]:port" or ":port" (this
///                 host); "udp" prefers IPv4 where a name has both, because QEMU has no IPv6
///                 datagrams. For unixgram, a path or "@name", exactly as the remote has bound it;
///                 a relative path is resolved against the working directory of each send. For
///                 mcast, the group, such as "230.0.0.1:1234". NULL (not for mcast): the first
///                 sender.
/// @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (another argument is NULL, an unknown network, a malformed
///         address), QNET_ERR_BUSY (the local address is in use, or a file that may not be replaced
///         is there), QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// A UDP datagram can carry a frame of up to 65507 bytes (65527 over IPv6).
///
/// Blocks: yes, while a host name is resolved; not for a numeric address or a path.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_dgram(
    network: *const c_char,
    local: *const c_char,
    remote: *const c_char,
    out: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: C promises that the strings are NULL or end with NUL, and that `out` is NULL or may be
    // written to.
    unsafe {
        give_new(
            out,
            &|| format!("open {} {} to {}", shown(network), shown(local), shown(remote)),
            || {
                let network = string(network, "network")?;
                let local = match network {
                    b"mcast" if local.is_null() => b"",
                    _ => string(local, "local")?,
                };
                let remote = match remote.is_null() {
                    true => None,
                    false => Some(string(remote, "remote")?),
                };
                let socket = dgram::open(network, local, remote)?;
                open::open(socket).map(of_conn)
            },
        )
    }
}

/// Creates a connection to a TAP interface: frames sent on the connection arrive at the interface,
/// and frames that the kernel sends through the interface are received. Attached to a hub, it
/// connects the hub to the kernel's bridges, VXLAN, WireGuard and so on. The interface has to be up
/// (`ip link set NAME up`); while it is down, frames sent are lost and counted in tx_dropped.
///
/// @param name  The interface's name. An existing TAP that belongs to this user (`ip tuntap add`)
///              is opened. Otherwise one is created, which needs CAP_NET_ADMIN, and is deleted with
///              the connection. With NULL or "" the system chooses the name, and with a pattern
///              such as "vm%d" the number; qnet_local_addr() gives the name.
/// @param out   Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (out is NULL, a malformed name, or an interface that is not a
///         TAP), QNET_ERR_OS (permission denied, or somebody else has it open), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_tap(name: *const c_char, out: *mut *mut qnet_conn) -> c_int {
    // SAFETY: C promises that the name is NULL or ends with NUL, and that `out` is NULL or may be
    // written to.
    unsafe {
        give_new(out, &|| format!("open tap {}", shown(name)), || {
            let name = if name.is_null() { b"" } else { string(name, "name")? };
            let socket = dgram::open_tap(name)?;
            open::open(socket).map(of_conn)
        })
    }
}

/// Writes the `-netdev` argument with which QEMU joins a datagram connection. If the connection has
/// no remote and nobody has sent yet, the argument is for a QEMU on this host, which lets its
/// system choose a port; for Unix sockets there is no such argument.
///
/// @param conn          A connection of qnet_dgram().
/// @param id            The id of the netdev: a letter, then letters, digits, '-', '.' and '_'.
/// @param qemu_version  The version of QEMU, 100 * major + minor: 702 is 7.2. At least 402.
/// @param buf           Receives the argument as snprintf(3) would write it: truncated if
///                      necessary, always NUL-terminated. May be NULL if cap is 0.
/// @param cap           The size of buf in bytes.
/// @return The length of the whole argument in bytes, without the NUL, even if buf is too small for
///         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (a NULL, a malformed id, not a version),
///         QNET_ERR_UNSUPPORTED (the connection is of another kind, or QEMU cannot join it: before
///         7.2 over Unix sockets; in any version over abstract names or IPv6, with a Unix remote
///         that is not known yet, or with an absolute path longer than 107 bytes),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_netdev(
    conn: *mut qnet_conn,
    id: *const c_char,
    qemu_version: c_int,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the netdev", |conn| {
        // SAFETY: C promises that the id is NULL or ends with NUL, and room for `cap` bytes.
        unsafe { give_text(&info::netdev(conn, string(id, "id")?, qemu_version)?, buf, cap) }
    })
}
