//! Datagram connections: a datagram is a frame (QEMU `net/dgram.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, sockopt};

use crate::address::{self, Address, Family, Host, UnixName};
use crate::conn::{self, Conn};
use crate::error::{Error, Result};
use crate::handle::Ref;
use crate::message::{Messages, Multicast, Udp, UnixDgram};
use crate::mmsg::set_option;
use crate::options::Options;
use crate::resolve::resolve;
use crate::socket::{self, Socket, datagram_socket, family_of};
use crate::wake::Deadline;

/// More datagrams than a new socket's buffer holds.
const QUEUED: u32 = 4096;

/// Makes a connection that takes datagrams at `local`, and sends them to `remote`.
pub fn open(network: &[u8], local: &[u8], remote: &[u8]) -> Result<Ref<Conn>> {
    let socket = match network {
        b"udp" => udp(Family::Any, local, remote)?,
        b"udp4" => udp(Family::V4, local, remote)?,
        b"udp6" => udp(Family::V6, local, remote)?,
        b"unixgram" => unixgram(UnixName::parse(local)?, UnixName::parse(remote)?)?,
        b"mcast" => mcast(local, remote)?,
        _ => {
            let networks = "unknown network (they are udp, udp4, udp6, unixgram and mcast)";
            return Err(Error::invalid(networks));
        }
    };
    conn::open(socket, Options::default(), None)
}

fn udp(family: Family, local: &[u8], remote: &[u8]) -> Result<Socket> {
    let (local, local_port) = address::parse_inet(family, local)?;
    let (remote, remote_port) = address::parse_inet(family, remote)?;
    if remote_port == 0 {
        return Err(Error::invalid("malformed address: a remote without a port"));
    }
    let mut remotes =
        addresses(&remote, remote_port, family, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)?;
    // QEMU has no v6.
    remotes.sort_by_key(SocketAddr::is_ipv6);
    let any = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let locals = addresses(&local, local_port, family, any.0, any.1)?;
    let mut failed = Error::invalid("one address is v4, the other v6");
    for remote in remotes {
        let is_like = |local: &&SocketAddr| local.is_ipv4() == remote.is_ipv4();
        for local in locals.iter().filter(is_like) {
            match udp_between(*local, remote) {
                Err(
                    error @ Error::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::NETUNREACH),
                ) => failed = error,
                made => return made,
            }
        }
    }
    Err(failed)
}

fn udp_between(local: SocketAddr, remote: SocketAddr) -> Result<Socket> {
    let fd = datagram_socket(family_of(&local))?;
    rustix::net::bind(&fd, &local)?;
    rustix::net::connect(&fd, &remote)?;
    drop_what_came_before(&fd);
    let messages = Messages::Udp(Udp::over(fd.as_fd(), remote.is_ipv4()));
    Ok(Socket::of(fd, messages.into()))
}

/// What came before the socket was connected may be a stranger's.
fn drop_what_came_before(fd: &OwnedFd) {
    let drop_one = |_: &u32| rustix::net::recv(fd, &mut [0u8; 1], RecvFlags::DONTWAIT).is_ok();
    (0..QUEUED).take_while(drop_one).for_each(drop);
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

fn unixgram(local: UnixName, remote: UnixName) -> Result<Socket> {
    if local == remote {
        return Err(Error::invalid("local and remote are the same"));
    }
    let (fd, namesake, file) = socket::unixgram_at(&local)?;
    let messages = Messages::Unix(UnixDgram::new(remote.clone(), namesake, file)?);
    let mut socket = Socket::of(fd, messages.into());
    socket.peer = Address::Unix(remote);
    Ok(socket)
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
    (socket.local, socket.peer) = (Address::Udp(source), Address::Udp(group.into()));
    Ok(socket)
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
