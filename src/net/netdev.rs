//! The `-netdev` argument with which a QEMU joins: how it is written changed from version to version
//! (QEMU `qapi/net.json`; `docs/about/removed-features.rst`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::error::{Error, Result};
use crate::net::address::{Address, UNIX_MAX, UnixName, absolute};

/// Versions as numbers: 702 is 7.2.
const OLDEST: i32 = 402;
/// The first with `stream`, whose addresses are of every kind.
const STREAM: i32 = 702;
/// The first in which `stream` connects again, after so many seconds; and after milliseconds.
const RECONNECT: i32 = 800;
const RECONNECT_MS: i32 = 902;

/// How long a QEMU waits before it connects again: a second.
const AGAIN: &str = ",reconnect=1";
const AGAIN_MS: &str = ",reconnect-ms=1000";

/// For a QEMU that connects to a listener. `takes_v4` is whether a listener at the v6 wildcard takes
/// v4 peers too.
pub fn connecting(at: &Address, takes_v4: bool, id: &[u8], version: i32) -> Result<Vec<u8>> {
    check_id(id)?;
    check_version(version)?;
    let name = match at {
        Address::Tcp(address) => return tcp(reachable(*address, takes_v4), id, version),
        Address::Unix(name) if version >= STREAM => name,
        Address::Unix(_) => {
            return Err(Error::Unsupported("a QEMU before 7.2 connects to no Unix socket"));
        }
        _ => return Err(Error::Unsupported("the listener has no address")),
    };
    let (path, kind) = match name {
        UnixName::Path(path) => (path_value(path)?, ""),
        UnixName::Abstract(name) if name.contains(&0) => {
            return Err(Error::Unsupported("QEMU takes no abstract name that has a NUL in it"));
        }
        UnixName::Abstract(name) => (quoted(name), ",addr.abstract=on"),
    };
    let address = [b"addr.type=unix,addr.path=", &path[..], kind.as_bytes()].concat();
    Ok(stream(id, &address, version))
}

/// For a QEMU at the other end of a datagram connection, whose addresses are the other way round
/// there.
pub fn datagrams(local: &Address, remote: &Address, id: &[u8], version: i32) -> Result<Vec<u8>> {
    check_id(id)?;
    check_version(version)?;
    match (local, remote) {
        (Address::Udp(SocketAddr::V4(local)), Address::Udp(SocketAddr::V4(remote))) => {
            Ok(inet_datagrams(*local, *remote, id, version))
        }
        // Not told yet from where it sends: from a port that its system chooses.
        (Address::Udp(SocketAddr::V4(local)), Address::Unnamed) => {
            let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            Ok(inet_datagrams(*local, anywhere, id, version))
        }
        (Address::Udp(_), _) => Err(Error::Unsupported("QEMU has no datagrams over v6")),
        (Address::Unix(UnixName::Path(_)), Address::Unix(UnixName::Path(_)))
            if version < STREAM =>
        {
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
        _ => Err(Error::Unsupported("the connection has no two addresses of datagrams")),
    }
}

fn inet_datagrams(here: SocketAddrV4, there: SocketAddrV4, id: &[u8], version: i32) -> Vec<u8> {
    let id = String::from_utf8_lossy(id);
    let is_group = there.ip().is_multicast();
    let text = match version {
        // A member has only an interface of its own.
        STREAM.. if is_group => {
            format!("dgram,id={id},{},{}", inet("local", here), inet("remote", there))
        }
        STREAM.. => format!("dgram,id={id},{},{}", inet("local", there), inet("remote", here)),
        _ if is_group => format!("socket,id={id},mcast={there},localaddr={}", here.ip()),
        _ => format!("socket,id={id},udp={here},localaddr={there}"),
    };
    text.into_bytes()
}

fn inet(which: &str, at: SocketAddrV4) -> String {
    format!("{which}.type=inet,{which}.host={},{which}.port={}", at.ip(), at.port())
}

fn tcp(at: SocketAddr, id: &[u8], version: i32) -> Result<Vec<u8>> {
    if version >= STREAM {
        let address = format!("addr.type=inet,addr.host={},addr.port={}", host(at), at.port());
        return Ok(stream(id, address.as_bytes(), version));
    }
    if at.is_ipv6() {
        return Err(Error::Unsupported("a QEMU before 7.2 connects to no v6 address"));
    }
    Ok([b"socket,id=", id, b",connect=", at.to_string().as_bytes()].concat())
}

fn stream(id: &[u8], address: &[u8], version: i32) -> Vec<u8> {
    let again = match version {
        RECONNECT_MS.. => AGAIN_MS,
        RECONNECT.. => AGAIN,
        _ => "",
    };
    [b"stream,id=", id, b",server=off,", address, again.as_bytes()].concat()
}

/// Where a peer on this host finds a listener: a wildcard is no address to connect to.
fn reachable(mut at: SocketAddr, takes_v4: bool) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() && takes_v4 => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => at.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    at
}

/// A v6 address with its interface, where it has one.
fn host(at: SocketAddr) -> String {
    match at {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        at => at.ip().to_string(),
    }
}

/// A path as QEMU takes it, whose working directory may be another.
fn path_value(path: &[u8]) -> Result<Vec<u8>> {
    let path = absolute(path);
    if path.len() > UNIX_MAX {
        return Err(Error::LongPath { path, max: UNIX_MAX });
    }
    Ok(quoted(&path))
}

/// A comma ends a value, unless it is doubled.
fn quoted(value: &[u8]) -> Vec<u8> {
    value.split(|&b| b == b',').collect::<Vec<_>>().join(&b",,"[..])
}

/// QEMU's rule for an id: a letter, then letters, digits, `-`, `.` and `_` (`id_wellformed`).
fn check_id(id: &[u8]) -> Result<()> {
    let is_first = id.first().is_some_and(u8::is_ascii_alphabetic);
    if is_first && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)) {
        return Ok(());
    }
    Err(Error::invalid("an id is a letter, then letters, digits, '-', '.' and '_'"))
}

fn check_version(version: i32) -> Result<()> {
    if version < 100 {
        return Err(Error::invalid(format!("{version} is no version of QEMU (702 is 7.2)")));
    }
    if version < OLDEST {
        return Err(Error::Unsupported("a QEMU before 4.2"));
    }
    Ok(())
}
