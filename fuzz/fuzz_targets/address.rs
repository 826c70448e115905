//! Networks and addresses of every kind. Nothing is dialled or looked up: the C functions are given what
//! is malformed, which they refuse, and those well-formed addresses that stay on this host.
//!
//! An input is three lines: the network, an address, and the remote's address for datagrams, which are
//! opened without a remote as well.

#![no_main]

use std::ffi::{CStr, CString, c_char, c_int};
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use libfuzzer_sys::fuzz_target;
use qnet::capi::{conn, dgram, end, info, listener};
use qnet::net::address::{
    Address, EVERY_INTERFACE, Family, Host, THIS_HOST, Target, UnixName, parse_inet,
};
use qnet_fuzz::{INVALID, OK};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let [network, address, remote] = [(); 3].map(|()| c_string(lines.next().unwrap_or_default()));
    match Target::parse(network.to_bytes(), address.to_bytes()) {
        Ok(Target::Tcp { family, host, port }) => {
            check_host(family, &host, port, &address);
            if is_here(family, &host) && port == 0 {
                listen(&network, &address);
            }
        }
        Ok(Target::Unix(_, name)) => {
            check_name(&name, &address);
            if let UnixName::Abstract(_) = name {
                listen(&network, &address);
            }
        }
        Err(_) => refuse(&network, &address),
    }
    check_datagrams(&network, &address, &remote);
});

/// The bytes up to the first NUL, as in a C string.
fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).expect("no NUL")
}

/// Checks that a numeric host prints, with its port, as a text that is parsed to the same again, and
/// that the standard library's parser agrees.
fn check_host(family: Family, host: &Host, port: u16, text: &CStr) {
    for at in host.digits(family, port, EVERY_INTERFACE) {
        assert!(at.port() == port && family.admits(&at));
        let printed = Address::Tcp(at).to_bytes();
        let (again, port) = parse_inet(family, &printed).expect("it was printed");
        assert_eq!(again.digits(family, port, EVERY_INTERFACE), [at]);
    }
    let standard = text.to_str().ok().and_then(|text| text.parse::<SocketAddr>().ok());
    if let Some(at) = standard {
        assert_eq!(host.digits(family, port, EVERY_INTERFACE), [at]);
    }
}

/// Checks that the system takes a name, and that it prints as it was written.
fn check_name(name: &UnixName, text: &CStr) {
    assert!(name.to_socket_address().is_ok());
    assert_eq!(Address::Unix(name.clone()).to_bytes(), text.to_bytes());
}

/// Whether others see nothing of listening at a host or of sending to it.
fn is_here(family: Family, host: &Host) -> bool {
    let all = host.digits(family, 0, THIS_HOST);
    !all.is_empty() && all.iter().all(|at| at.ip().is_loopback()) && *host != Host::Empty
}

/// Checks that the C functions refuse an address.
fn refuse(network: &CStr, address: &CStr) {
    let (mut conn, mut listener) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the strings end with NUL, and the handles may be written to.
    unsafe {
        let code = listener::qnet_listen(network.as_ptr(), address.as_ptr(), &mut listener);
        assert_eq!(code, INVALID);
        let code = conn::qnet_dial(network.as_ptr(), address.as_ptr(), &mut conn);
        assert_eq!(code, INVALID);
        assert!(conn.is_null() && listener.is_null());
        let error = CStr::from_ptr(info::qnet_last_error()).to_str().expect("UTF-8");
        assert!(error.starts_with("dial "));
    }
}

/// Listens at an address, and checks the address that the listener tells.
fn listen(network: &CStr, address: &CStr) {
    let mut made = ptr::null_mut();
    // SAFETY: the strings end with NUL, and there is room for a handle.
    let code = unsafe { listener::qnet_listen(network.as_ptr(), address.as_ptr(), &mut made) };
    if code != OK {
        assert_ne!(code, INVALID); // the address is in use, or not this host's
        return;
    }
    // SAFETY: there is as much room as is told.
    let told = text(|buf, cap| unsafe { listener::qnet_listener_addr(made, buf, cap) });
    check_told(network, address, &told);
    // SAFETY: the library checks handles itself.
    assert_eq!(unsafe { listener::qnet_listener_close(made) }, OK);
}

/// Checks that a socket tells the address that was written, except for a port that the system chose.
fn check_told(network: &CStr, address: &CStr, told: &[u8]) {
    match network.to_bytes() {
        b"unix" | b"unixpacket" | b"unixgram" => assert_eq!(told, address.to_bytes()),
        _ => {
            let ip = |text: &[u8]| parse_inet(Family::Any, text).map(|(host, _)| host);
            let (told, written) = (ip(told).expect("an address"), ip(address.to_bytes()));
            assert!(without_scope(told) == without_scope(written.expect("parsed before")));
        }
    }
}

/// A host without its scope: addresses of the loopback have none, whatever was written.
fn without_scope(host: Host) -> Option<IpAddr> {
    match host {
        Host::Digits(ip, _) => Some(ip),
        _ => None,
    }
}

fn check_datagrams(network: &CStr, local: &CStr, remote: &CStr) {
    let family = match network.to_bytes() {
        b"udp" => Family::Any,
        b"udp4" => Family::V4,
        b"udp6" => Family::V6,
        b"unixgram" => return check_unixgram(local, remote),
        // A group is left out, because the library would join it.
        b"mcast" => match parse_inet(Family::V4, remote.to_bytes()) {
            Ok((Host::Digits(IpAddr::V4(ip), _), 1..)) if ip.is_multicast() => return,
            _ => return check_refused(network, local, remote),
        },
        _ => return check_refused(network, local, remote),
    };
    let Ok((host, port)) = parse_inet(family, local.to_bytes()) else {
        return check_refused(network, local, remote);
    };
    check_host(family, &host, port, local);
    let may_open = is_here(family, &host) && port == 0;
    if may_open {
        open(network, local, None);
    }
    match parse_inet(family, remote.to_bytes()) {
        Ok((to, to_port)) => {
            check_host(family, &to, to_port, remote);
            if may_open && is_here(family, &to) {
                open(network, local, Some(remote));
            }
        }
        Err(_) => assert_eq!(open(network, local, Some(remote)), INVALID),
    }
}

/// Checks that a datagram connection is refused with the remote and without one.
fn check_refused(network: &CStr, local: &CStr, remote: &CStr) {
    assert_eq!(open(network, local, Some(remote)), INVALID);
    assert_eq!(open(network, local, None), INVALID);
}

fn check_unixgram(local: &CStr, remote: &CStr) {
    let Ok(here) = UnixName::parse(local.to_bytes()) else {
        return check_refused(c"unixgram", local, remote);
    };
    check_name(&here, local);
    let may_open = matches!(here, UnixName::Abstract(_));
    if may_open {
        open(c"unixgram", local, None);
    }
    match UnixName::parse(remote.to_bytes()) {
        Ok(there) if here != there => {
            check_name(&there, remote);
            if may_open {
                open(c"unixgram", local, Some(remote));
            }
        }
        _ => assert_eq!(open(c"unixgram", local, Some(remote)), INVALID),
    }
}

/// Opens a datagram connection, and checks the addresses that it tells. Returns the code.
fn open(network: &CStr, local: &CStr, remote: Option<&CStr>) -> c_int {
    let mut made = ptr::null_mut();
    let [network_at, local_at] = [network, local].map(CStr::as_ptr);
    let remote_at = remote.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the strings end with NUL, or are NULL, and there is room for a handle.
    let code = unsafe { dgram::qnet_dgram(network_at, local_at, remote_at, &mut made) };
    assert_eq!(code == OK, !made.is_null());
    if code == OK {
        // SAFETY: there is as much room as is told.
        unsafe {
            check_told(network, local, &text(|buf, cap| info::qnet_local_addr(made, buf, cap)));
            let peer = text(|buf, cap| info::qnet_peer_addr(made, buf, cap));
            match remote {
                Some(remote) => check_told(network, remote, &peer),
                None => assert!(peer.is_empty()),
            }
            assert_eq!(end::qnet_close(made), OK);
        }
    }
    code
}

/// The text that a function writes as snprintf(3) does.
fn text(give: impl Fn(*mut c_char, usize) -> c_int) -> Vec<u8> {
    let len = usize::try_from(give(ptr::null_mut(), 0)).expect("a length");
    let mut text = vec![0; len + 1];
    assert_eq!(give(text.as_mut_ptr().cast(), text.len()), len as c_int);
    assert_eq!(text.pop(), Some(0));
    text
}
