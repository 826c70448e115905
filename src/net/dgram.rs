//! Datagram connections: a datagram is a frame (QEMU `net/dgram.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};

use crate::conn::{Conn, open};
use crate::error::{Error, Result};
use crate::net::address::{self, Address, Family, Host, UnixName};
use crate::net::messages::remote::{Name, Remote, Strangers};
use crate::net::messages::{Messages, Multicast, Udp, UdpPeer, UnixDgram};
use crate::net::resolve::resolve;
use crate::net::socket::{self, Socket, datagram_socket, family_of};
use crate::options::Options;
use crate::runtime::handle::Ref;
use crate::sys::clock::Deadline;
use crate::sys::mmsg::{set_option, take_nothing};

/// Makes a connection that takes datagrams at `local`, and sends them to `remote`, or to whoever sends
/// first.
pub fn open(network: &[u8], local: &[u8], remote: Option<&[u8]>) -> Result<Ref<Conn>> {
    let socket = match network {
        b"udp" => udp(Family::Any, local, remote)?,
        b"udp4" => udp(Family::V4, local, remote)?,
        b"udp6" => udp(Family::V6, local, remote)?,
        b"unixgram" => unixgram(UnixName::parse(local)?, remote.map(UnixName::parse).transpose()?)?,
        b"mcast" => {
            mcast(local, remote.ok_or_else(|| Error::invalid("remote, the group, is NULL"))?)?
        }
        _ => {
            let networks = "unknown network (they are udp, udp4, udp6, unixgram and mcast)";
            return Err(Error::invalid(networks));
        }
    };
    open::open(socket, Options::default(), None)
}

fn udp(family: Family, local: &[u8], remote: Option<&[u8]>) -> Result<Socket> {
    let (local, local_port) = address::parse_inet(family, local)?;
    let remote = remote.map(|remote| address::parse_inet(family, remote)).transpose()?;
    let any = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let mut failed = Error::invalid("one address is v4, the other v6");
    let Some((remote, remote_port)) = remote else {
        for local in v4_first(addresses(&local, local_port, family, any.0, any.1)?) {
            match udp_at(local, None) {
                Err(error) if is_not_here(&error) => failed = error,
                made => return made,
            }
        }
        return Err(failed);
    };
    if remote_port == 0 {
        return Err(Error::invalid("malformed address: a remote without a port"));
    }
    let remotes =
        addresses(&remote, remote_port, family, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)?;
    let locals = addresses(&local, local_port, family, any.0, any.1)?;
    for remote in v4_first(remotes) {
        let is_like = |local: &&SocketAddr| local.is_ipv4() == remote.is_ipv4();
        for local in locals.iter().filter(is_like) {
            match udp_at(*local, Some(remote)) {
                Err(error) if is_not_here(&error) => failed = error,
                made => return made,
            }
        }
    }
    Err(failed)
}

/// QEMU has no v6.
fn v4_first(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
}

/// Whether another address may do.
fn is_not_here(error: &Error) -> bool {
    matches!(error, Error::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::NETUNREACH))
}

fn udp_at(local: SocketAddr, remote: Option<SocketAddr>) -> Result<Socket> {
    let fd = datagram_socket(family_of(&local))?;
    let peer = match remote {
        Some(remote) => UdpPeer::Given(connect(&fd, local, remote)?),
        None => {
            if local.is_ipv6() {
                sockopt::set_ipv6_v6only(&fd, true)?;
            }
            rustix::net::bind(&fd, &local)?;
            UdpPeer::Sender(Box::new(Remote::new(None)))
        }
    };
    let messages = Messages::Udp(Udp::over(fd.as_fd(), local.is_ipv4(), peer));
    Ok(Socket::of(fd, messages.into()))
}

/// Connects a socket at `local`.
fn connect(fd: &OwnedFd, local: SocketAddr, remote: SocketAddr) -> Result<Strangers> {
    // What comes before it is connected may be a stranger's.
    take_nothing(fd.as_fd(), true)?;
    rustix::net::bind(fd, &local)?;
    let strangers = Strangers::beside(fd)?;
    rustix::net::connect(fd, &remote)?;
    take_nothing(fd.as_fd(), false)?;
    Ok(strangers)
}

/// Where the remote of a connection, or one on this host that there may be, finds it.
pub fn local_towards(socket: &Socket) -> Address {
    let Address::Udp(SocketAddr::V4(mut local)) = socket.local else {
        return socket.local.clone();
    };
    if local.ip().is_unspecified() {
        let source = match socket.peer() {
            Address::Udp(peer) => source_towards(peer).ok(),
            _ => None,
        };
        local.set_ip(source.unwrap_or(Ipv4Addr::LOCALHOST));
    }
    Address::Udp(local.into())
}

/// By which of its addresses this host sends there.
fn source_towards(remote: SocketAddr) -> Result<Ipv4Addr> {
    let probe = datagram_socket(AddressFamily::INET)?;
    rustix::net::connect(&probe, &remote)?;
    Ok(*SocketAddrV4::try_from(rustix::net::getsockname(&probe)?)?.ip())
}

fn addresses(
    host: &Host,
    port: u16,
    family: Family,
    empty_v6: Ipv6Addr,
    empty_v4: Ipv4Addr,
) -> Result<Vec<SocketAddr>> {
    match host {
        Host::Name(name) => resolve(name, port, family, Deadline::Never),
        host => Ok(host.digits(family, port, empty_v6, empty_v4)),
    }
}

fn unixgram(local: UnixName, remote: Option<UnixName>) -> Result<Socket> {
    if Some(&local) == remote.as_ref() {
        return Err(Error::invalid("local and remote are the same"));
    }
    let given = match &remote {
        Some(remote) => Name::of_address(&remote.to_socket_address()?),
        None => None,
    };
    let (fd, namesake, file) = socket::unixgram_at(&local)?;
    let messages = Messages::Unix(UnixDgram::new(Box::new(Remote::new(given)), namesake, file)?);
    Ok(Socket::of(fd, messages.into()).towards(remote.map_or(Address::Unnamed, Address::Unix)))
}

/// Joins a group, at the interface that has the address `local`, or where the system chooses.
fn mcast(local: &[u8], group: &[u8]) -> Result<Socket> {
    let (host, port) = address::parse_inet(Family::V4, group)?;
    let group = match host {
        Host::Digits(IpAddr::V4(ip), _) if ip.is_multicast() && port > 0 => {
            SocketAddrV4::new(ip, port)
        }
        _ => return Err(Error::invalid("malformed address (a group is 224.0.0.0:1 or above)")),
    };
    let interface = interface(local)?;
    let fd = member(group, interface)?;
    let out = datagram_socket(AddressFamily::INET)?;
    sockopt::set_ip_multicast_if(&out, &interface)?;
    // Others on this host are to hear it as well.
    sockopt::set_ip_multicast_loop(&out, true)?;
    rustix::net::connect(&out, &group)?;
    let source = SocketAddr::try_from(rustix::net::getsockname(&out)?)?;
    let messages = Messages::Multicast(Multicast::new(out, source));
    let mut socket = Socket::of(fd, messages.into());
    socket.local = Address::Udp(source);
    Ok(socket.towards(Address::Udp(group.into())))
}

fn interface(address: &[u8]) -> Result<Ipv4Addr> {
    if address.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED);
    }
    let digits = str::from_utf8(address).ok().and_then(|text| text.parse().ok());
    digits.ok_or_else(|| Error::invalid("malformed address (an interface's is v4, without a port)"))
}

/// A socket that takes what is sent to a group.
fn member(group: SocketAddrV4, interface: Ipv4Addr) -> Result<OwnedFd> {
    let fd = datagram_socket(AddressFamily::INET)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    // Not what others on this host have joined the group for, at other interfaces.
    set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)?;
    rustix::net::bind(&fd, &group)?;
    sockopt::set_ip_add_membership(&fd, group.ip(), &interface)?;
    Ok(fd)
}
