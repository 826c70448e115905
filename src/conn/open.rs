//! Making a connection.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::conn::background::{self, Background};
use crate::conn::living::Living;
use crate::conn::redial::{Redial, Reserve};
use crate::conn::{self, Conn, dialling, down, handler, release, service};
use crate::error::Result;
use crate::net::address::Target;
use crate::net::messages::Messages;
use crate::net::socket::Socket;
use crate::net::{dial, open};
use crate::options::Options;
use crate::runtime::handle::{Ref, Token};
use crate::sys::descriptor::{random, set_close_on_exec};
use crate::tx::Tx;

/// Says what the threads run that work in the background.
fn set_background() {
    let (handle, serve, dial) = (handler::run, service::turn, dialling::turns);
    background::set(Background { handle, serve, dial });
}

/// Makes a connection of a socket.
pub fn open(socket: Socket, options: Options, living: Option<Living>) -> Result<Ref<Conn>> {
    Ok(open_in(conn::table().take()?, socket, options, living))
}

fn open_in(conn: Ref<Conn>, socket: Socket, options: Options, living: Option<Living>) -> Ref<Conn> {
    set_background();
    let socket = Arc::new(socket);
    let mut state = conn.slot.state_of_own();
    let mut tx = conn.slot.sender.lock();
    conn.slot.rx_counts.clear();
    *tx = Tx::new(conn.token, socket.clone(), &options, look_after_loss);
    conn.slot.sender.hint(&options);
    state.token = conn.token;
    state.life.begin();
    state.socket = Some(socket);
    state.options = options;
    state.living = living;
    state.hwaddr = random_hwaddr();
    conn
}

/// A write has met the end of a connection that nobody may be reading: the service thread looks.
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

/// Makes a connection of what dialling a target gave.
fn open_dialled(target: Target, dialled: Result<OwnedFd>, options: Options) -> Result<Ref<Conn>> {
    // The thread that dials may be needed before there is any connection.
    set_background();
    let redials = options.reconnects().is_some();
    let peer = dial::address_of(&target);
    let mut redial = Box::new(Redial::of(target));
    match dialled {
        Ok(fd) => {
            if redials {
                redial.reserve = Some(Reserve::new(peer, background::dialler().reserve()?)?);
            }
            let conn = open(Socket::tuned(fd, options.buffers())?, options, None)?;
            conn.slot.state_of_own().redial = Some(redial);
            Ok(conn)
        }
        Err(reason) if redials && dial::is_absence(&reason) => {
            let conn = open(Socket::absent(peer)?, options, None)?;
            down::begin_down(conn, redial, dial::as_end(reason))
                .inspect_err(|_| release::discard(conn))?;
            Ok(conn)
        }
        Err(error) => Err(error),
    }
}

/// Two connections that are each other's peer.
pub fn pair() -> Result<(Ref<Conn>, Ref<Conn>)> {
    let (a, b) = open::pair()?;
    let a = adopt(a)?;
    let b = adopt(b).inspect_err(|_| release::discard(a))?;
    a.state()?.twin = Some(b);
    b.state()?.twin = Some(a);
    Ok((a, b))
}

/// A connection, and the descriptor at its other end.
pub fn pair_with_fd() -> Result<(Ref<Conn>, OwnedFd)> {
    let (a, b) = open::pair()?;
    open::tune(&b);
    Ok((adopt(a)?, b))
}

fn adopt(fd: OwnedFd) -> Result<Ref<Conn>> {
    open(Socket::adopted(fd), Options::default(), None)
}

/// Makes a connection of somebody's descriptor, which is theirs until `own` is called: that is when
/// nothing can fail any more.
pub fn from_fd(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<Ref<Conn>> {
    let messages = Messages::of(fd)?;
    let conn = conn::table().take()?;
    if let Err(error) = set_close_on_exec(fd) {
        conn::table().give_back(conn.token);
        return Err(error);
    }
    Ok(open_in(conn, Socket::of(own(), messages), Options::default(), None))
}
