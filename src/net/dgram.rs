//! Opens sockets whose messages are frames: datagram sockets (QEMU `net/dgram.c`) and TAPs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::str;

use rustix::net::{AddressFamily, sockopt};

use crate::error::{Error, Result};
use crate::net::address::{
    Address, EVERY_INTERFACE, Family, Host, THIS_HOST, UnixName, parse_inet,
};
use crate::net::messages::Messages;
use crate::net::messages::multicast::Multicast;
use crate::net::messages::remote::Remote;
use crate::net::messages::tap::Tap;
use crate::net::messages::udp::{Peer, Strangers, Udp};
use crate::net::messages::unix::UnixDgram;
use crate::net::open::{datagram_socket, family_of};
use crate::net::resolve::{addresses, first};
use crate::net::socket::Socket;
use crate::sys::clock::Deadline;
use crate::sys::name::Name;
use crate::sys::sockopt::set_option;

/// Makes a socket that receives datagrams at `local`, and sends them to `remote`, or without one to
/// whoever sends first.
pub fn open(network: &[u8], local: &[u8], remote: Option<&[u8]>) -> Result<Socket> {
    match network {
        b"udp" => udp(Family::Any, local, remote),
        b"udp4" => udp(Family::V4, local, remote),
        b"udp6" => udp(Family::V6, local, remote),
        b"unixgram" => unixgram(UnixName::parse(local)?, remote.map(UnixName::parse).transpose()?),
        b"mcast" => mcast(
            local,
            remote.ok_or_else(|| Error::invalid("remote is NULL, and must be the group"))?,
        ),
        _ => {
            let networks = "unknown network (expected udp, udp4, udp6, unixgram or mcast)";
            Err(Error::invalid(networks))
        }
    }
}

/// Opens a TAP interface, or makes one that goes away with the socket.
pub fn open_tap(name: &[u8]) -> Result<Socket> {
    let (fd, tap) = Tap::open(name)?;
    Ok(Socket::of(fd, Some(Messages::Tap(tap))))
}

fn udp(family: Family, local: &[u8], remote: Option<&[u8]>) -> Result<Socket> {
    let (local, local_port) = parse_inet(family, local)?;
    let remote = remote.map(|remote| parse_inet(family, remote)).transpose()?;
    if let Some((_, 0)) = remote {
        return Err(Error::invalid("malformed address: a remote without a port"));
    }
    let remotes = match &remote {
        Some((host, port)) => addresses(host, *port, family, THIS_HOST, Deadline::Never)?
            .into_iter()
            .map(Some)
            .collect(),
        None => vec![None],
    };
    let locals = addresses(&local, local_port, family, EVERY_INTERFACE, Deadline::Never)?;
    let all = remotes.iter().flat_map(|remote| locals.iter().map(move |local| (*local, *remote)));
    let is_of_one_family = |(local, remote): &(SocketAddr, Option<SocketAddr>)| {
        remote.is_none_or(|remote| local.is_ipv4() == remote.is_ipv4())
    };
    let mut pairs: Vec<_> = all.filter(is_of_one_family).collect();
    // QEMU has no datagrams over v6, so v4 is tried first.
    pairs.sort_by_key(|(local, _)| local.is_ipv6());
    let mixed = Error::invalid("one address is v4, the other v6");
    first(pairs, mixed, |(local, remote)| udp_at(local, remote))
}

fn udp_at(local: SocketAddr, remote: Option<SocketAddr>) -> Result<Socket> {
    let fd = datagram_socket(family_of(&local))?;
    let peer = match remote {
        Some(remote) => Peer::Given(Strangers::connect(&fd, local, remote)?),
        None => {
            if local.is_ipv6() {
                sockopt::set_ipv6_v6only(&fd, true)?;
            }
            rustix::net::bind(&fd, &local)?;
            Peer::Sender(Box::new(Remote::new(None)))
        }
    };
    let messages = Messages::Udp(Udp::over(fd.as_fd(), local.is_ipv4(), peer));
    Ok(Socket::of(fd, Some(messages)))
}

/// The address at which a socket's remote reaches it, or anybody on this host while there is no remote.
pub fn local_towards(socket: &Socket) -> Address {
    let mut local = match socket.local() {
        Address::Udp(SocketAddr::V4(local)) => local,
        local => return local,
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

/// The address of this host from which it sends to `remote`.
fn source_towards(remote: SocketAddr) -> Result<Ipv4Addr> {
    let probe = datagram_socket(AddressFamily::INET)?;
    rustix::net::connect(&probe, &remote)?;
    Ok(*SocketAddrV4::try_from(rustix::net::getsockname(&probe)?)?.ip())
}

fn unixgram(local: UnixName, remote: Option<UnixName>) -> Result<Socket> {
    if Some(&local) == remote.as_ref() {
        return Err(Error::invalid("local and remote are the same"));
    }
    let given = remote.as_ref().map(UnixName::to_socket_address).transpose()?;
    let given = given.and_then(|address| Name::of_address(&address));
    let (fd, unix) = UnixDgram::open(&local, given)?;
    let socket = Socket::of(fd, Some(Messages::Unix(unix)));
    Ok(socket.towards(remote.map_or(Address::Unnamed, Address::Unix)))
}

/// Joins a group at the interface that has the address `local`, or at one that the system chooses.
fn mcast(local: &[u8], group: &[u8]) -> Result<Socket> {
    let (host, port) = parse_inet(Family::V4, group)?;
    let group = match host {
        Host::Digits(IpAddr::V4(ip), _) if ip.is_multicast() && port > 0 => {
            SocketAddrV4::new(ip, port)
        }
        _ => {
            return Err(Error::invalid(
                "malformed address (expected a group, such as 230.0.0.1:1234)",
            ));
        }
    };
    let interface = interface(local)?;
    let fd = member(group, interface)?;
    let out = datagram_socket(AddressFamily::INET)?;
    sockopt::set_ip_multicast_if(&out, &interface)?;
    // Other members on this host receive the frames as well.
    sockopt::set_ip_multicast_loop(&out, true)?;
    rustix::net::connect(&out, &group)?;
    let source = rustix::net::getsockname(&out)?;
    let messages = Messages::Multicast(Multicast::new(out, &source));
    let socket = Socket::of(fd, Some(messages)).seen_at(Address::of_datagrams(source));
    Ok(socket.towards(Address::Udp(group.into())))
}

/// Parses the address of an interface; an empty one leaves the choice to the system.
fn interface(address: &[u8]) -> Result<Ipv4Addr> {
    if address.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED);
    }
    let digits = str::from_utf8(address).ok().and_then(|text| text.parse().ok());
    digits.ok_or_else(|| {
        Error::invalid("malformed address (expected an interface's v4 address, without a port)")
    })
}

/// Makes a socket that receives what is sent to a group.
fn member(group: SocketAddrV4, interface: Ipv4Addr) -> Result<OwnedFd> {
    let fd = datagram_socket(AddressFamily::INET)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    // Not what comes in at other interfaces, where others on this host have joined the group.
    set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)?;
    rustix::net::bind(&fd, &group)?;
    sockopt::set_ip_add_membership(&fd, group.ip(), &interface)?;
    Ok(fd)
}
