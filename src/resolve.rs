//! Names to addresses, on a thread of their own: the system's resolver cannot be woken.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::address::Family;
use crate::error::{Error, Result};
use crate::process::lock;
use crate::socket;
use crate::thread;
use crate::wake::{Deadline, PollFds, Wake, Woken};

#[derive(Default)]
struct Lookup {
    answer: Mutex<Option<std::io::Result<Vec<IpAddr>>>>,
    wake: Wake,
}

/// The addresses of `name` that `family` admits, in the resolver's order.
pub fn resolve(
    name: &str,
    port: u16,
    family: Family,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>> {
    let lookup = Arc::new(Lookup::default());
    start(lookup.clone(), name.to_owned())?;
    let answer = loop {
        let epoch = lookup.wake.epoch();
        if let Some(answer) = lock(&lookup.answer).take() {
            break answer;
        }
        if deadline.passed()
            || lookup.wake.wait_fds(epoch, PollFds::new(), deadline)? == Woken::TimedOut
        {
            return Err(deadline.error());
        }
    };
    let addresses = answer.map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) => Error::Os(errno),
        // Without a descriptor the resolver says that there is no such name.
        None => match socket::check_descriptors() {
            Err(error) => error,
            Ok(()) => Error::Resolve(error.to_string()),
        },
    })?;
    let mut addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|ip| (ip, port).into()).collect();
    addresses.retain(|address| family.admits(address));
    if addresses.is_empty() {
        return Err(Error::Resolve("the name has no address of this network".into()));
    }
    Ok(addresses)
}

fn start(lookup: Arc<Lookup>, name: String) -> Result<()> {
    thread::spawn(c"qnet-resolve", move || {
        let answer = (name.as_str(), 0).to_socket_addrs();
        *lock(&lookup.answer) = Some(answer.map(|all| all.map(|address| address.ip()).collect()));
        lookup.wake.raise();
    })
}
