//! Networks and addresses: parsed from the caller's text, and printed as the caller would write them.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType};

use crate::error::{Error, Result};
use crate::net::open::datagram_socket;
use crate::sys::name::{Name, behind_family, path_in};

/// The longest path or abstract name of a Unix socket (`sun_path` less a NUL).
pub const UNIX_MAX: usize = 107;

/// Which internet addresses a network admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

/// Where to dial or listen.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Tcp {
        family: Family,
        host: Host,
        port: u16,
    },
    /// STREAM, or SEQPACKET, in which each message is a frame.
    Unix(SocketType, UnixName),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Host {
    Empty,
    Digits(IpAddr, /* scope of a v6 address */ u32),
    Name(String),
}

/// The addresses that an empty host stands for.
pub type EmptyHost = (Ipv6Addr, Ipv4Addr);

/// An empty host to listen on, or to receive datagrams at.
pub const EVERY_INTERFACE: EmptyHost = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);

/// An empty host to dial, or to send datagrams to.
pub const THIS_HOST: EmptyHost = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixName {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

impl Target {
    pub fn parse(network: &[u8], address: &[u8]) -> Result<Target> {
        let unix = |kind| Ok(Target::Unix(kind, UnixName::parse(address)?));
        let family = match network {
            b"unix" => return unix(SocketType::STREAM),
            b"unixpacket" => return unix(SocketType::SEQPACKET),
            b"tcp" => Family::Any,
            b"tcp4" => Family::V4,
            b"tcp6" => Family::V6,
            _ => {
                let networks = "unknown network (expected tcp, tcp4, tcp6, unix or unixpacket)";
                return Err(Error::invalid(networks));
            }
        };
        let (host, port) = parse_inet(family, address)?;
        Ok(Target::Tcp { family, host, port })
    }
}

/// Parses a host and its port.
pub fn parse_inet(family: Family, address: &[u8]) -> Result<(Host, u16)> {
    let address = str::from_utf8(address)
        .map_err(|_| Error::invalid("malformed address: it is not UTF-8"))?;
    let (host, port) = split_port(address)?;
    Ok((Host::parse(family, host)?, port))
}

fn malformed() -> Error {
    Error::invalid("malformed address (expected host:port, [v6]:port or :port)")
}

fn split_port(address: &str) -> Result<(&str, u16)> {
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let port = port.parse().map_err(|_| Error::invalid("malformed address: a port above 65535"))?;
    Ok((host, port))
}

impl Host {
    fn parse(family: Family, host: &str) -> Result<Host> {
        if host.is_empty() {
            return Ok(Host::Empty);
        }
        let (ip, scope) = match host.strip_prefix('[') {
            Some(rest) => parse_v6(rest.strip_suffix(']').ok_or_else(malformed)?)?,
            None => match host.parse::<Ipv4Addr>() {
                Ok(ip) => (ip.into(), 0),
                Err(_) => return Host::parse_name(host),
            },
        };
        if !family.admits(&SocketAddr::new(ip, 0)) {
            return Err(Error::invalid(
                "a v4 address on a v6 network, or a v6 one on a v4 network",
            ));
        }
        Ok(Host::Digits(ip, scope))
    }

    /// A name is resolved later. Here only what no name can contain is refused.
    fn parse_name(host: &str) -> Result<Host> {
        let odd = |c: char| c.is_control() || c.is_whitespace() || "[]:/@%".contains(c);
        if host.len() > 255 || host.contains(odd) {
            return Err(malformed());
        }
        Ok(Host::Name(host.to_owned()))
    }

    /// The addresses of a host that needs no name look-up; none for a name.
    pub fn digits(&self, family: Family, port: u16, empty: EmptyHost) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = match *self {
            Host::Empty => vec![(empty.0, port).into(), (empty.1, port).into()],
            Host::Digits(IpAddr::V6(ip), scope) => {
                vec![SocketAddrV6::new(ip, port, 0, scope).into()]
            }
            Host::Digits(ip, _) => vec![(ip, port).into()],
            Host::Name(_) => Vec::new(),
        };
        all.retain(|address| family.admits(address));
        all
    }
}

impl Family {
    pub fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

/// Parses a v6 address. A link-local one has the number or the name of its interface behind a `%`.
fn parse_v6(text: &str) -> Result<(IpAddr, u32)> {
    let (ip, scope) = match text.split_once('%') {
        Some((ip, scope)) => (ip, interface_index(scope)?),
        None => (text, 0),
    };
    Ok((IpAddr::V6(ip.parse().map_err(|_| malformed())?), scope))
}

fn interface_index(scope: &str) -> Result<u32> {
    let look_up = |_| Ok(name_to_index(datagram_socket(AddressFamily::INET6)?, scope)?);
    let failed = |_: Error| Error::invalid("malformed address: no such interface");
    scope.parse().or_else(look_up).map_err(failed)
}

/// Makes a path absolute, so that it stays valid when the working directory changes.
pub fn absolute(path: &[u8]) -> Vec<u8> {
    let absolute = std::path::absolute(OsStr::from_bytes(path));
    absolute.map_or(path.to_vec(), |path| path.into_os_string().into_vec())
}

impl UnixName {
    pub fn parse(address: &[u8]) -> Result<UnixName> {
        let name = match address.strip_prefix(b"@") {
            Some(name) => UnixName::Abstract(name.to_vec()),
            None => UnixName::Path(address.to_vec()),
        };
        match name.bytes().len() {
            0 => Err(Error::invalid("malformed address: an empty path or name")),
            1..=UNIX_MAX => Ok(name),
            _ => Err(Error::invalid("malformed address: a path or name longer than 107 bytes")),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            UnixName::Path(bytes) | UnixName::Abstract(bytes) => bytes,
        }
    }

    pub fn to_socket_address(&self) -> Result<SocketAddrUnix> {
        Ok(match self {
            UnixName::Path(path) => SocketAddrUnix::new(&path[..])?,
            UnixName::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }
}

/// One end of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket that was never bound, or an address of no family that we know.
    Unnamed,
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(UnixName),
    /// A TAP interface's name.
    Tap(String),
}

impl From<SocketAddrAny> for Address {
    fn from(any: SocketAddrAny) -> Address {
        if let Ok(tcp) = SocketAddr::try_from(any.clone()) {
            return Address::Tcp(tcp);
        }
        // Not by rustix's SocketAddrUnix, which panics at the longest path.
        let name = Name::of_address(&any);
        let name = name.as_ref().map_or(&[][..], Name::bytes);
        if let Some(path) = path_in(name) {
            return Address::Unix(UnixName::Path(path.to_vec()));
        }
        match behind_family(name) {
            Some([0, name @ ..]) if !name.is_empty() => {
                Address::Unix(UnixName::Abstract(name.to_vec()))
            }
            _ => Address::Unnamed,
        }
    }
}

impl Address {
    /// The address of a datagram socket.
    pub fn of_datagrams(any: SocketAddrAny) -> Address {
        match Address::from(any) {
            Address::Tcp(address) => Address::Udp(address),
            address => address,
        }
    }

    /// The address as the caller writes it: `host:port`, `[v6]:port`, a path or `@name`; empty when
    /// unnamed. These are bytes, since a path need not be UTF-8.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Address::Unnamed => Vec::new(),
            Address::Tcp(address) | Address::Udp(address) => address.to_string().into_bytes(),
            Address::Tap(name) => name.clone().into_bytes(),
            Address::Unix(UnixName::Path(path)) => path.clone(),
            Address::Unix(UnixName::Abstract(name)) => [b"@", &name[..]].concat(),
        }
    }
}

/// For messages: `unix /run/vm.sock`, `tcp 127.0.0.1:7000`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = match self {
            Address::Unnamed => return f.write_str("an unnamed socket"),
            Address::Tcp(_) => "tcp",
            Address::Udp(_) => "udp",
            Address::Tap(_) => "tap",
            Address::Unix(_) => "unix",
        };
        write!(f, "{network} {}", String::from_utf8_lossy(&self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(network: &str, address: &str) -> Result<Target> {
        Target::parse(network.as_bytes(), address.as_bytes())
    }

    #[test]
    fn tcp_addresses() {
        let host = |address| match tcp("tcp", address).unwrap() {
            Target::Tcp { host, port, .. } => (host, port),
            unix => panic!("{unix:?}"),
        };
        assert_eq!(host("127.0.0.1:7"), (Host::Digits([127, 0, 0, 1].into(), 0), 7));
        assert_eq!(host("[::1]:65535"), (Host::Digits(Ipv6Addr::LOCALHOST.into(), 0), 65535));
        assert_eq!(host("[fe80::1%7]:1").0, Host::Digits("fe80::1".parse().unwrap(), 7));
        assert_eq!(host("[fe80::1%lo]:1").0, Host::Digits("fe80::1".parse().unwrap(), 1));
        assert_eq!(host(":0"), (Host::Empty, 0));
        assert_eq!(host("vm.example:80"), (Host::Name("vm.example".into()), 80));
    }

    #[test]
    fn malformed_addresses() {
        for bad in [
            "",
            ":",
            "host",
            "host:",
            "host:x",
            "host:+1",
            "host:65536",
            "::1:80",
            "[::1]",
            "[::1:80",
            "[]:80",
            "[1.2.3.4]:80",
            "a b:1",
            "[fe80::1%nosuchif]:1",
        ] {
            assert!(matches!(tcp("tcp", bad), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(tcp("tcp4", "[::1]:1").is_err());
        assert!(tcp("tcp6", "127.0.0.1:1").is_err());
        assert!(tcp("udp", "127.0.0.1:1").is_err());
    }

    #[test]
    fn unix_names() {
        let unix = |address: &[u8]| Target::parse(b"unix", address);
        let (path, name) = (UnixName::Path(b"/x".to_vec()), UnixName::Abstract(b"x".to_vec()));
        assert_eq!(unix(b"/x"), Ok(Target::Unix(SocketType::STREAM, path.clone())));
        assert_eq!(unix(b"@x"), Ok(Target::Unix(SocketType::STREAM, name)));
        let packet = Target::parse(b"unixpacket", b"/x");
        assert_eq!(packet, Ok(Target::Unix(SocketType::SEQPACKET, path)));
        assert!(unix(&[b'x'; 107]).is_ok());
        for bad in [&b""[..], b"@", &[b'x'; 108]] {
            assert!(matches!(unix(bad), Err(Error::Invalid(_))));
        }
    }
}
