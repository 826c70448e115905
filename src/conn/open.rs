//! Making a connection.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::conn::background::{self, Background, dialler};
use crate::conn::dialled::{Down, Next, Redial, Reserve};
use crate::conn::impair::Texts;
use crate::conn::living::Living;
use crate::conn::{self, Conn, State, handler, redial, release, service};
use crate::error::Result;
use crate::net::address::Target;
use crate::net::messages::Messages;
use crate::net::socket::Socket;
use crate::net::{dial, open};
use crate::options::Options;
use crate::runtime::handle::{NONE, Ref, Token};
use crate::runtime::lock::Guard;
use crate::switch::cable::Cable;
use crate::sys::descriptor::{random, set_close_on_exec};
use crate::tx::Tx;

/// Says what the threads run that work in the background.
fn set_background() {
    let (handle, serve, dial) = (handler::run, service::turn, redial::turns);
    background::set(Background { handle, serve, dial });
}

/// Makes a connection of a socket.
pub fn open(socket: Socket) -> Result<Ref<Conn>> {
    let conn = conn::table().take()?;
    drop(open_in(conn, Arc::new(socket), Options::default()));
    Ok(conn)
}

/// Makes a connection of a socket that a listener has accepted, with what it starts with.
pub fn open_accepted(
    socket: Socket,
    options: Options,
    texts: &Texts,
    living: Living,
) -> Result<Ref<Conn>> {
    let (conn, cable) = (conn::table().take()?, texts.cable(&options));
    let mut state = open_in(conn, Arc::new(socket), options);
    (state.living, state.cable) = (Some(living), cable);
    state.vlan = texts.vlan.clone();
    drop(state);
    Ok(conn)
}

/// Makes a connection in a slot that was taken for it. Nobody reaches it before the state that is
/// returned is unlocked.
fn open_in(conn: Ref<Conn>, socket: Arc<Socket>, options: Options) -> Guard<'static, State> {
    set_background();
    let mut state = conn.slot.state_of_own();
    let mut tx = conn.slot.sender.lock();
    conn.slot.rx_counts.clear();
    *tx = Tx::new(conn.token, socket.clone(), &options, look_after_loss);
    state.token = conn.token;
    state.life.begin();
    state.socket = Some(socket);
    state.cable = Cable::is_asked_for(&options).then(|| Cable::new(&options));
    state.options = options;
    state.hwaddr = random_hwaddr();
    drop(tx);
    state
}

/// Has the service thread look at a connection of which a write has met the end, since there may be nobody
/// who reads.
fn look_after_loss(token: Token) {
    if let Ok(conn) = conn::table().get(token) {
        background::watch(conn);
    }
}

/// Locally administered and unicast: the second lowest bit of the first byte set, the lowest not.
fn random_hwaddr() -> [u8; 6] {
    let mut mac: [u8; 6] = random();
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}

/// Dials, with options that hold before the connection is made.
pub fn dial(network: &[u8], address: &[u8], options: Options) -> Result<Ref<Conn>> {
    let target = Target::parse(network, address)?;
    let dialled = dial::dial(&target, options.buffers(), options.dial_deadline());
    open_dialled(target, dialled, options)
}

/// Makes a connection of what dialling a target gave: one that is down, where the peer is not there yet and
/// is to be dialled again.
fn open_dialled(target: Target, dialled: Result<OwnedFd>, options: Options) -> Result<Ref<Conn>> {
    // The thread that dials may be needed before there is any connection.
    set_background();
    let peer = dial::address_of(&target);
    let mut redial = Box::new(Redial::of(target));
    if options.reconnects().is_some() {
        redial.reserve = Some(Reserve::new(peer, dialler().reserve()?)?);
    }
    let socket = match (dialled, &redial.reserve) {
        (Ok(fd), _) => Arc::new(Socket::tuned(fd, options.buffers())?),
        (Err(reason), Some(Reserve { absent, .. })) if dial::is_absence(&reason) => {
            redial.user = Some(dialler().join(NONE)?);
            redial.down = Some(Down { reason: dial::as_end(reason), since: Instant::now() });
            redial.next = Next::Dial;
            absent.clone()
        }
        (Err(error), _) => return Err(error),
    };
    let conn = conn::table().take()?;
    let mut state = open_in(conn, socket.clone(), options);
    if redial.down.is_some() {
        conn.slot.sender.lock().go_down(socket);
        dialler().look(conn.token);
    }
    state.redial = Some(redial);
    Ok(conn)
}

/// Two connections that are each other's peer.
pub fn pair() -> Result<(Ref<Conn>, Ref<Conn>)> {
    pair_with(|_, _| Ok(()))
}

/// Two connections that are each other's peer. `prepare` is called with the first before anybody can reach
/// it; if it fails there are none.
pub fn pair_with(
    prepare: impl FnOnce(Ref<Conn>, &mut State) -> Result<()>,
) -> Result<(Ref<Conn>, Ref<Conn>)> {
    let (one, other) = open::pair()?;
    let a = conn::table().take()?;
    let b = conn::table().take().inspect_err(|_| conn::table().give_back(a.token))?;
    let mut state = open_in(a, adopted(one), Options::default());
    state.twin = b.token;
    let prepared = prepare(a, &mut state);
    // Before the other is locked: two states are locked in the order of their slots, and by links alone.
    drop(state);
    if let Err(error) = prepared {
        release::discard(a);
        conn::table().give_back(b.token);
        return Err(error);
    }
    open_in(b, adopted(other), Options::default()).twin = a.token;
    Ok((a, b))
}

/// A connection, and the descriptor at its other end.
pub fn pair_with_fd() -> Result<(Ref<Conn>, OwnedFd)> {
    let (a, b) = open::pair()?;
    open::tune(&b);
    Ok((open(Socket::adopted(a))?, b))
}

fn adopted(fd: OwnedFd) -> Arc<Socket> {
    Arc::new(Socket::adopted(fd))
}

/// Makes a connection of a caller's descriptor, which is the caller's until `own` is called: that is when
/// nothing can fail any more.
pub fn from_fd(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<Ref<Conn>> {
    let messages = Messages::of(fd)?;
    conn::table().make(|conn| {
        set_close_on_exec(fd)?;
        drop(open_in(conn, Arc::new(Socket::of(own(), messages)), Options::default()));
        Ok(conn)
    })
}
