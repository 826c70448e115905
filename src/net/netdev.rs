//! The `-netdev` argument with which a QEMU joins. Its syntax changed from version to version (QEMU
//! `qapi/net.json`; `docs/about/removed-features.rst`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::error::{Error, Result};
use crate::net::address::{Address, UNIX_MAX, UnixName, absolute};

/// The oldest version supported. Versions are numbers: 402 is 4.2.
const OLDEST: i32 = 402;
/// The first version with `stream` and `dgram`, whose addresses are of every kind.
const SINCE_STREAM: i32 = 702;
/// The first version whose `stream` reconnects, after a number of seconds.
const SINCE_RECONNECT: i32 = 800;
/// The first version in which that number is of milliseconds.
const SINCE_RECONNECT_MS: i32 = 902;

/// The argument for a QEMU that connects to a listener. `takes_v4` is whether a listener at the v6
/// wildcard takes v4 peers too.
pub fn connecting(at: &Address, takes_v4: bool, id: &[u8], version: i32) -> Result<Vec<u8>> {
    check(id, version)?;
    let name = match at {
        Address::Tcp(address) => return tcp(reachable(*address, takes_v4), id, version),
        Address::Unix(name) if version >= SINCE_STREAM => name,
        Address::Unix(_) => {
            return Err(Error::Unsupported("a QEMU before 7.2 cannot connect to a Unix socket"));
        }
        _ => return Err(Error::Unsupported("the listener has no address")),
    };
    let (path, kind) = match name {
        UnixName::Path(path) => (path_value(path)?, ""),
        UnixName::Abstract(name) if name.contains(&0) => {
            return Err(Error::Unsupported("QEMU takes no abstract name that contains a NUL"));
        }
        UnixName::Abstract(name) => (quoted(name), ",addr.abstract=on"),
    };
    let address = [b"addr.type=unix,addr.path=", &path[..], kind.as_bytes()].concat();
    Ok(stream(id, &address, version))
}

/// The argument for a QEMU at the other end of a datagram connection: what is local here is remote
/// there.
pub fn datagrams(local: &Address, remote: &Address, id: &[u8], version: i32) -> Result<Vec<u8>> {
    check(id, version)?;
    match (local, remote) {
        (Address::Udp(SocketAddr::V4(local)), Address::Udp(SocketAddr::V4(remote))) => {
            Ok(inet_datagrams(*local, *remote, id, version))
        }
        // The remote is not known yet: QEMU may send from any port.
        (Address::Udp(SocketAddr::V4(local)), Address::Unnamed) => {
            let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            Ok(inet_datagrams(*local, anywhere, id, version))
        }
        (Address::Udp(_), _) => Err(Error::Unsupported("QEMU has no datagrams over v6")),
        (Address::Unix(_), Address::Unix(_)) if version < SINCE_STREAM => {
            Err(Error::Unsupported("a QEMU before 7.2 has no datagrams over Unix sockets"))
        }
        (Address::Unix(UnixName::Path(local)), Address::Unix(UnixName::Path(remote))) => {
            let (here, there) = (path_value(local)?, path_value(remote)?);
            let (own, other) =
                (&b",local.type=unix,local.path="[..], b",remote.type=unix,remote.path=");
            Ok([b"dgram,id=", id, own, &there, other, &here].concat())
        }
        (Address::Unix(_), Address::Unix(_)) => {
            Err(Error::Unsupported("QEMU has no datagrams over abstract names"))
        }
        _ => {
            Err(Error::Unsupported("it is not a datagram connection with an address at both ends"))
        }
    }
}

fn inet_datagrams(here: SocketAddrV4, there: SocketAddrV4, id: &[u8], version: i32) -> Vec<u8> {
    let id = String::from_utf8_lossy(id);
    let is_group = there.ip().is_multicast();
    let text = match version {
        // For a member of a group, the local address is that of its interface.
        SINCE_STREAM.. if is_group => {
            format!("dgram,id={id},{},{}", inet("local", here), inet("remote", there))
        }
        SINCE_STREAM.. => {
            format!("dgram,id={id},{},{}", inet("local", there), inet("remote", here))
        }
        _ if is_group => format!("socket,id={id},mcast={there},localaddr={}", here.ip()),
        _ => format!("socket,id={id},udp={here},localaddr={there}"),
    };
    text.into_bytes()
}

fn inet(which: &str, at: SocketAddrV4) -> String {
    format!("{which}.type=inet,{which}.host={},{which}.port={}", at.ip(), at.port())
}

fn tcp(at: SocketAddr, id: &[u8], version: i32) -> Result<Vec<u8>> {
    if version >= SINCE_STREAM {
        let address = format!("addr.type=inet,addr.host={},addr.port={}", host(at), at.port());
        return Ok(stream(id, address.as_bytes(), version));
    }
    if at.is_ipv6() {
        return Err(Error::Unsupported("a QEMU before 7.2 cannot connect to a v6 address"));
    }
    Ok([b"socket,id=", id, b",connect=", at.to_string().as_bytes()].concat())
}

fn stream(id: &[u8], address: &[u8], version: i32) -> Vec<u8> {
    // QEMU waits one second before it connects again.
    let reconnect = match version {
        SINCE_RECONNECT_MS.. => ",reconnect-ms=1000",
        SINCE_RECONNECT.. => ",reconnect=1",
        _ => "",
    };
    [b"stream,id=", id, b",server=off,", address, reconnect.as_bytes()].concat()
}

/// The address at which a peer on this host reaches a listener: nobody can connect to a wildcard.
fn reachable(mut at: SocketAddr, takes_v4: bool) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() && takes_v4 => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => at.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    at
}

/// The text of an address, a v6 one with its interface if it has one.
fn host(at: SocketAddr) -> String {
    match at {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        at => at.ip().to_string(),
    }
}

/// A path as QEMU takes it: absolute, since QEMU may run in another working directory.
fn path_value(path: &[u8]) -> Result<Vec<u8>> {
    let path = absolute(path);
    if path.len() > UNIX_MAX {
        return Err(Error::LongPath { path: path.into(), max: UNIX_MAX as u32 });
    }
    Ok(quoted(&path))
}

/// Doubles the commas, since a single one ends a value.
fn quoted(value: &[u8]) -> Vec<u8> {
    value.split(|&b| b == b',').collect::<Vec<_>>().join(&b",,"[..])
}

fn check(id: &[u8], version: i32) -> Result<()> {
    // QEMU's rule for an id (`id_wellformed`).
    let is_first = id.first().is_some_and(u8::is_ascii_alphabetic);
    if !is_first || !id.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)) {
        return Err(Error::invalid("an id is a letter, then letters, digits, '-', '.' and '_'"));
    }
    match version {
        OLDEST.. => Ok(()),
        100.. => Err(Error::Unsupported("a QEMU before 4.2")),
        _ => Err(Error::invalid(format!("{version} is not a version of QEMU (write 702 for 7.2)"))),
    }
}
