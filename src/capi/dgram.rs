use std::ffi::{c_char, c_int};
use std::ptr;

use super::{OK, call, give_text, handle_of, on_conn, put, qnet_conn, shown, string};
use crate::conn;
use crate::net::{dgram, tap};

/// Makes a connection of datagrams, each of which is a frame: the other end of QEMU's
/// `-netdev dgram`, `socket,udp=` and `socket,mcast=`.
///
/// It is used like any connection, but that nothing tells of the remote's leaving: while nobody takes
/// frames there they are lost, and counted in tx_dropped, and it works when somebody does. A remote
/// that is there and does not read holds up a sender for 40 ms, then frames are lost until it reads; a
/// sender with QNET_OPT_SEND_TIMEOUT_MS 0 gets QNET_ERR_AGAIN until then, and of a Unix remote's room
/// the descriptor of qnet_fd() tells nothing: it tries again after a while.
/// What does not come from the remote is not delivered, and counted in rx_foreign; nor is a member's own
/// multicast delivered, nor the `VFKT` that vfkit begins with. Datagrams that are shorter or longer
/// than any frame count as rx_runts.
///
/// Without a remote it is whoever sends first, were it no frame: what is sent before is lost, and
/// counted in tx_dropped; qnet_peer_addr() tells "" until then, and who it is from then on. With
/// QNET_OPT_RELEARN 1 a later sender takes its place. (It is learned when what it has sent is
/// read: by a receive, a handler, a hub or a link.)
///
/// @param network  "udp", "udp4" or "udp6"; "unixgram"; or "mcast" (IPv4 multicast).
/// @param local    Where to receive. UDP: "host:port", "[v6]:port" or ":port" (every interface); port
///                 0 lets the system choose. Unix: a path, or "@name" in the abstract namespace; the
///                 file has mode 0600 and goes with the connection, and a dead one in its way is
///                 replaced, as by qnet_listen(). Multicast: the address of the interface, or NULL.
/// @param remote   Where to send. UDP: "host:port", "[v6]:port" or ":port" (this host); for "udp" v4
///                 where there is a choice, for QEMU has no v6. Unix: as above, as the remote gave it
///                 to the system; a relative path begins at the working directory of each
///                 send. NULL: whoever sends first. Multicast: the group, "230.0.0.1:1234".
/// @param out      The connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (another NULL, an unknown network, a malformed address),
///         QNET_ERR_BUSY (somebody, or a file that may not be replaced, is at that local address),
///         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// A UDP datagram carries frames of up to 65507 bytes (v6: 65527).
///
/// Blocks: yes, while a name is looked up; with digits or a path no.
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
        put(out, ptr::null_mut());
        call(
            || format!("open {} {} to {}", shown(network), shown(local), shown(remote)),
            || {
                let to = super::out(out, "out")?;
                let network = string(network, "network")?;
                let local = match network {
                    b"mcast" if local.is_null() => b"",
                    _ => string(local, "local")?,
                };
                let remote = match remote.is_null() {
                    true => None,
                    false => Some(string(remote, "remote")?),
                };
                put(to, handle_of(dgram::open(network, local, remote)?));
                Ok(OK)
            },
        )
    }
}

/// Makes a connection of a TAP interface: what it sends the kernel receives there, and the reverse.
/// So a hub reaches bridges, VXLAN, WireGuard, and whatever else the kernel has. The interface has to
/// be up (`ip link set NAME up`); while it is not, frames are lost and counted in tx_dropped.
///
/// @param name  The interface. One that is there, made for this user (`ip tuntap add`), is opened;
///              else one is made, which needs CAP_NET_ADMIN and is gone with the connection. NULL or
///              "": the system names it, or after a pattern, as "vm%d"; qnet_local_addr() tells.
/// @param out   The connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (out is NULL, a malformed name, or an interface that is no TAP),
///         QNET_ERR_OS (no right to, or somebody has it open), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_tap(name: *const c_char, out: *mut *mut qnet_conn) -> c_int {
    // SAFETY: C promises that the name is NULL or ends with NUL, and that `out` is NULL or may be
    // written to.
    unsafe {
        put(out, ptr::null_mut());
        call(
            || format!("open tap {}", shown(name)),
            || {
                let to = super::out(out, "out")?;
                let name = if name.is_null() { b"" } else { string(name, "name")? };
                put(to, handle_of(tap::open(name)?));
                Ok(OK)
            },
        )
    }
}

/// Tells the `-netdev` argument with which a QEMU joins a datagram connection. Where the remote is
/// whoever sends, and nobody has sent yet, that QEMU is on this host, with a port that its system chooses;
/// for Unix sockets there is no such argument.
///
/// @param conn          One of qnet_dgram().
/// @param id            The netdev's id: a letter, then letters, digits, '-', '.' and '_'.
/// @param qemu_version  The QEMU's: 702 is 7.2. From 4.2 on.
/// @param buf           Room for the argument, ended with NUL: NULL if cap is 0.
/// @param cap           How much.
/// @return The argument's length without the NUL, which may be more than there was room for;
///         QNET_ERR_HANDLE, QNET_ERR_INVALID (a NULL, a malformed id, no such version),
///         QNET_ERR_UNSUPPORTED (another kind of connection, or not for that QEMU: Unix sockets before
///         7.2; abstract names, v6, a Unix remote that is not known yet, and paths that are more than
///         107 bytes from the root on, for any), QNET_ERR_INTERNAL.
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
        unsafe { give_text(&conn::netdev(conn, string(id, "id")?, qemu_version)?, buf, cap) }
    })
}
