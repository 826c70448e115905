//! What can be asked of a connection, and its options.

use std::os::fd::{AsRawFd, RawFd};

use rustix::io::Errno;

use crate::conn::background::dialler;
use crate::conn::dialled::{Given, Reserve};
use crate::conn::{Conn, State, down, end, impair, rules};
use crate::error::{Error, Result};
use crate::net::socket_file::SocketFile;
use crate::net::{dgram, netdev};
use crate::options::{self, Holder, Options};
use crate::runtime::handle::Ref;
use crate::sys::sockopt::peer_cred as peer_cred_of;

/// The counters of a connection since it was created; see qnet_get_stats().
///
/// Bytes are bytes of frames, without length prefixes. Reads and writes are system calls. Later
/// releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_stats {
    /// Frames received and given to the program, a hub or a link.
    pub rx_frames: u64,
    /// Bytes of the frames in rx_frames.
    pub rx_bytes: u64,
    /// Frames received that were shorter than 14 bytes and were skipped. On datagram connections
    /// also datagrams longer than any frame.
    pub rx_runts: u64,
    /// Reads that returned data.
    pub rx_reads: u64,
    /// Frames sent, that is, written to the socket as a whole. Every frame taken is counted either
    /// here or in tx_dropped.
    pub tx_frames: u64,
    /// Bytes of the frames in tx_frames, including padding.
    pub tx_bytes: u64,
    /// Frames that were lost instead of sent: the connection had ended or was down, nobody received
    /// a datagram, a hub's queue for the connection was full, or a hub or link had a frame for it
    /// that was longer than its QNET_OPT_MAX_FRAME, or for which its cable was pulled (QNET_OPT_LINK).
    pub tx_dropped: u64,
    /// Writes of which the socket accepted at least a part.
    pub tx_writes: u64,
    /// How many times the connection has come up by reconnecting.
    pub reconnects: u64,
    /// Datagrams that were skipped because they did not come from the remote of a qnet_dgram().
    /// (For an adopted socket the kernel filters them out, and they are not counted.)
    pub rx_foreign: u64,
    /// Of the frames in rx_frames, those that went nowhere on purpose: the cable was pulled
    /// (QNET_OPT_LINK), the connection linked to nothing (QNET_OPT_OUTLIVE), or a hub refused them
    /// (refused_vlan and so on of qnet_hub_stats).
    pub rx_refused: u64,
}

/// Who the peer of a connection over a Unix socket is; see qnet_peer_cred().
///
/// Later releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_cred {
    /// The number of its user.
    pub uid: i64,
    /// The number of its group.
    pub gid: i64,
    /// The number of its process; 0 if that is in a PID namespace which this process cannot see.
    pub pid: i64,
}

/// What the connection is connected to, for messages.
pub fn describe(conn: Ref<Conn>) -> String {
    conn.state().map_or_else(|_| "a connection".into(), |state| state.socket().peer().to_string())
}

pub fn hwaddr(conn: Ref<Conn>) -> Result<[u8; 6]> {
    Ok(conn.state()?.hwaddr)
}

pub fn set_hwaddr(conn: Ref<Conn>, mac: [u8; 6]) -> Result<()> {
    conn.state()?.hwaddr = mac;
    Ok(())
}

pub fn local_addr(conn: Ref<Conn>) -> Result<Vec<u8>> {
    Ok(conn.state()?.socket().local().to_bytes())
}

pub fn peer_addr(conn: Ref<Conn>) -> Result<Vec<u8>> {
    Ok(conn.state()?.socket().peer().to_bytes())
}

/// Who the peer is. While the connection is down, its placeholder of a socket has none.
pub fn peer_cred(conn: Ref<Conn>) -> Result<qnet_cred> {
    const NONE: Error = Error::Unsupported("the system does not know whose the other end is");
    let socket = conn.state()?.socket().clone();
    match peer_cred_of(socket.fd()) {
        Ok(cred) if cred.uid == u32::MAX => Err(NONE),
        Ok(cred) => {
            Ok(qnet_cred { uid: cred.uid.into(), gid: cred.gid.into(), pid: cred.pid.into() })
        }
        Err(Errno::NOTSOCK) => Err(NONE),
        Err(errno) => Err(errno.into()),
    }
}

/// The `-netdev` argument with which a QEMU of that version is the other end.
pub fn netdev(conn: Ref<Conn>, id: &[u8], version: i32) -> Result<Vec<u8>> {
    let socket = conn.state()?.socket().clone();
    let local = socket.file().map_or_else(|| dgram::local_towards(&socket), SocketFile::address);
    netdev::datagrams(&local, &socket.peer(), id, version)
}

pub fn fd(conn: Ref<Conn>) -> Result<RawFd> {
    let mut state = conn.state()?;
    match down::follow(&mut state)? {
        Some(follow) => Ok(follow),
        None => Ok(state.socket().fd().as_raw_fd()),
    }
}

pub fn stats(conn: Ref<Conn>) -> Result<qnet_stats> {
    let state = conn.state()?;
    let rx = &conn.slot.rx_counts;
    // A system call, before the lock that a loop waits for.
    let kept_away = state.socket().kept_away();
    // A loop in its turn has yet to count what it has forwarded.
    let turn = state.port.as_ref().map(|port| port.switch.lock());
    let mut stats = qnet_stats {
        rx_frames: rx.frames.get(),
        rx_bytes: rx.bytes.get(),
        rx_runts: rx.runts.get(),
        rx_reads: rx.reads.get(),
        rx_foreign: rx.foreign.get() + kept_away,
        rx_refused: rx.refused.get(),
        reconnects: state.redial.as_ref().map_or(0, |redial| redial.reconnects),
        ..qnet_stats::default()
    };
    drop(turn);
    let tx = conn.slot.sender.lock().counts();
    stats.tx_frames = tx.frames;
    stats.tx_bytes = tx.bytes;
    stats.tx_dropped = tx.dropped;
    stats.tx_writes = tx.writes;
    Ok(stats)
}

/// The connection of which it is an option.
fn holder(conn: Ref<Conn>, option: i32) -> Result<Ref<Conn>> {
    match option {
        options::LINK | options::FLIGHT_BYTES | options::OUTLIVE => impair::plugged_end(conn),
        _ if rules::has(option) => impair::plugged_end(conn),
        _ => Ok(conn),
    }
}

pub fn set(conn: Ref<Conn>, option: i32, value: i64) -> Result<()> {
    let conn = holder(conn, option)?;
    let mut state = conn.state()?;
    let mut changed = state.options.clone();
    changed.set(option, value, holder_of(&state))?;
    if option == options::RECONNECT_MS {
        set_redialling(conn, &mut state, &changed)?;
    }
    match option {
        options::LINK | options::FLIGHT_BYTES | options::OUTLIVE => {
            impair::configure(conn, &mut state, &changed);
        }
        _ if rules::has(option) => rules::configure(&state, &changed),
        options::SNDBUF => state.socket().set_send_buffer(value as usize)?,
        options::RCVBUF => state.socket().set_receive_buffer(value as usize)?,
        options::RELEARN => {
            let remote = state.socket().sender();
            remote.expect("it has the option").set_relearning(value != 0);
        }
        _ => {
            conn.slot.sender.configure(&changed);
        }
    }
    state.options = changed;
    Ok(())
}

pub fn get(conn: Ref<Conn>, option: i32) -> Result<i64> {
    let state = holder(conn, option)?.state()?;
    options::check_known(option, holder_of(&state))?;
    let (socket, value) = (state.socket().clone(), state.options.get(option));
    // No system call is made under the lock: a program that asks again and again would keep others from
    // it.
    drop(state);
    match option {
        options::SNDBUF => Ok(socket.send_buffer()? as i64),
        options::RCVBUF => Ok(socket.receive_buffer()? as i64),
        _ => Ok(value),
    }
}

/// As what kind of object the connection has options.
fn holder_of(state: &State) -> Holder {
    match &state.socket {
        _ if state.redial.is_some() => Holder::Dialled,
        Some(socket) if socket.sender().is_some() => Holder::ToSender,
        _ => Holder::Conn,
    }
}

/// Prepares for options by which the connection is dialled again, or is not. In the latter case it ends, if
/// it is down.
fn set_redialling(conn: Ref<Conn>, state: &mut State, options: &Options) -> Result<()> {
    let peer = state.socket().peer();
    let is_open = !state.life.has_ended();
    let Some(redial) = &mut state.redial else {
        return Ok(());
    };
    if options.reconnects().is_none() {
        if let Some(down) = redial.down.as_ref().filter(|_| is_open) {
            let reason = down.reason.clone();
            end::end_as_found(conn, state, reason);
        }
        return Ok(());
    }
    if matches!(redial.given, Given::Socket) {
        return Err(Error::Busy("qnet_fd() has given out the socket itself"));
    }
    if redial.reserve.is_none() {
        redial.reserve = Some(Reserve::new(peer, dialler().reserve()?)?);
    }
    // The thread may be waiting for another time.
    dialler().look(conn.token);
    Ok(())
}
