//! Going down and coming up: where the stream of a connection that is dialled again ends, the connection
//! gets a socket that nothing ever comes from, and what is sent is lost. So no other code has to know. The
//! state's lock is held.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::conn::background::dialler;
use crate::conn::dialled::{Down, Given, Next, Reserve};
use crate::conn::{Conn, State};
use crate::error::{Error, Result};
use crate::net::socket::Socket;
use crate::runtime::handle::{NONE, Ref};
use crate::sys::descriptor::above_standard;
use crate::tx::Tx;

/// The descriptor that follows the socket; `None` where the caller is to have the socket itself.
pub fn follow(state: &mut State) -> Result<Option<RawFd>> {
    let socket = state.socket().clone();
    let Some(redial) = &mut state.redial else {
        return Ok(None);
    };
    if let Given::Follow(follow) = &redial.given {
        return Ok(Some(follow.as_raw_fd()));
    }
    let reserve = redial.reserve.as_ref().filter(|_| state.options.reconnects().is_some());
    let Some(Reserve { absent, .. }) = reserve else {
        redial.given = Given::Socket;
        return Ok(None);
    };
    let follow = above_standard(epoll::create(CreateFlags::CLOEXEC)?)?;
    // It stays in the set: when it is shut down it tells of the end.
    add(&follow, absent)?;
    if !Arc::ptr_eq(absent, &socket) {
        add(&follow, &socket)?;
    }
    let fd = follow.as_raw_fd();
    redial.given = Given::Follow(follow);
    Ok(Some(fd))
}

fn add(follow: &OwnedFd, socket: &Socket) -> Result<()> {
    Ok(epoll::add(follow, socket.fd(), EventData::new_u64(NONE), EventFlags::IN)?)
}

/// Goes down instead of ending, if the connection is dialled again. Returns whether it is.
pub fn go_down(conn: Ref<Conn>, state: &mut State, reason: &Error) -> bool {
    if !state.redials() {
        return false;
    }
    let socket = state.socket().clone();
    let Some(redial) = &mut state.redial else {
        return false;
    };
    let Some(Reserve { absent, .. }) = &redial.reserve else {
        return false;
    };
    let Ok(user) = dialler().join(conn.token) else {
        return false;
    };
    let absent = absent.clone();
    redial.user = Some(user);
    dialler().look(conn.token);
    redial.down = Some(Down { reason: reason.clone(), since: Instant::now() });
    if let Given::Follow(follow) = &redial.given {
        // Taking a descriptor out of the set cannot fail.
        let _ = epoll::delete(follow, socket.fd());
    }
    // A failure does no harm: nothing ever goes into these buffers.
    let _ = absent.set_buffers(state.options.buffers());
    state.rx.start_over();
    exchange_socket(conn, state, absent, Tx::go_down);
    socket.shutdown();
    true
}

/// Goes on with a new peer.
pub fn come_up(conn: Ref<Conn>, state: &mut State, fd: OwnedFd) -> Result<()> {
    let socket = Arc::new(Socket::tuned(fd, state.options.buffers())?);
    let Some(redial) = &mut state.redial else {
        return Ok(());
    };
    if let Given::Follow(follow) = &redial.given {
        add(follow, &socket)?;
    }
    redial.down = None;
    redial.next = Next::TellUp;
    redial.reconnects += 1;
    exchange_socket(conn, state, socket, Tx::come_up);
    Ok(())
}

/// Gives the connection another socket, which its sending part takes by `exchange`. All who wait on the one
/// before look again.
fn exchange_socket(
    conn: Ref<Conn>,
    state: &mut State,
    socket: Arc<Socket>,
    exchange: fn(&mut Tx, Arc<Socket>),
) {
    let in_tx = || exchange(&mut conn.slot.sender.lock(), socket.clone());
    match &state.port {
        Some(port) => port.exchange_socket(conn.token, &socket, in_tx),
        None => in_tx(),
    }
    state.replace_socket(socket).wake.raise();
    conn.slot.changed(state);
}

/// Ends what the thread that dials does for a connection, which has ended.
pub fn stop_dialling(conn: Ref<Conn>, state: &mut State) {
    if let Some(redial) = &mut state.redial {
        // Its attempt is dropped in this last turn, for which the thread stays.
        dialler().look(conn.token);
        redial.user = None;
    }
}
