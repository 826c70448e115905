//! Names to addresses, on threads of their own: the system's resolver cannot be woken. A name is
//! looked up once at a time, for all who want it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::net::address::{Family, Host};
use crate::net::open::check_descriptors;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::lock;
use crate::runtime::wait::{self, Tried};
use crate::runtime::wake::{PollFds, Wake};
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

static LOOKUPS: PerProcess<Lookups> = PerProcess::new();

/// This process's.
pub fn lookups() -> &'static Lookups {
    LOOKUPS.get()
}

/// The look-ups that are under way, by name.
#[derive(Default)]
pub struct Lookups(Mutex<BTreeMap<String, Arc<Lookup>>>);

/// One look-up, which goes on though nobody waits for it any more. Its answer is for those who came
/// before it was there.
#[derive(Default)]
pub struct Lookup {
    progress: Mutex<Progress>,
    wake: Wake,
}

#[derive(Default)]
struct Progress {
    answer: Option<Result<Vec<IpAddr>>>,
    /// Whom a loop is to look at then.
    looks: BTreeMap<Token, &'static Loop>,
}

impl Lookups {
    /// The look-up of `name` that is under way, or a new one.
    pub fn join(&'static self, name: &str) -> Result<Arc<Lookup>> {
        let mut all = lock(&self.0);
        if let Some(lookup) = all.get(name) {
            return Ok(lookup.clone());
        }
        let lookup = Arc::new(Lookup::default());
        let (threads, asked) = (lookup.clone(), name.to_owned());
        thread::spawn(c"qnet-resolve", move || {
            let answer = ask(&asked);
            lock(&self.0).remove(&asked);
            threads.give(answer);
        })?;
        all.insert(name.to_owned(), lookup.clone());
        Ok(lookup)
    }
}

impl Lookup {
    /// The answer. Where there is none yet, `runner` looks at `token` when there is.
    pub fn answer_or_look(
        &self,
        token: Token,
        runner: &'static Loop,
    ) -> Option<Result<Vec<IpAddr>>> {
        let mut progress = lock(&self.progress);
        if progress.answer.is_none() {
            progress.looks.insert(token, runner);
        }
        progress.answer.clone()
    }

    fn wait(&self, deadline: Deadline) -> Result<Vec<IpAddr>> {
        let look = || {
            let epoch = self.wake.epoch();
            let answer = lock(&self.progress).answer.clone();
            answer.map_or(Ok(Tried::Pending(epoch)), |answer| answer.map(Tried::Done))
        };
        let wait = |epoch, until| self.wake.wait_fds(epoch, PollFds::new(), until);
        wait::until(look, |_| deadline, wait)
    }

    fn give(&self, answer: Result<Vec<IpAddr>>) {
        let mut progress = lock(&self.progress);
        progress.answer = Some(answer);
        let looks = std::mem::take(&mut progress.looks);
        drop(progress);
        self.wake.raise();
        looks.iter().for_each(|(token, runner)| runner.look(*token));
    }
}

/// What an empty host stands for: to listen, or where there is no remote; and to dial.
pub const EVERY_INTERFACE: (Ipv6Addr, Ipv4Addr) = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
pub const THIS_HOST: (Ipv6Addr, Ipv4Addr) = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);

pub const NO_ADDRESS: &str = "the name has no address of this network";

/// The addresses of a host that `family` admits, those of a name in the resolver's order.
pub fn addresses(
    host: &Host,
    port: u16,
    family: Family,
    empty: (Ipv6Addr, Ipv4Addr),
    deadline: Deadline,
) -> Result<Vec<SocketAddr>> {
    match host {
        Host::Name(name) => admitted(lookups().join(name)?.wait(deadline)?, port, family),
        host => Ok(host.digits(family, port, empty.0, empty.1)),
    }
}

/// Makes a socket at the first address that this host has a network for. Without any address,
/// `failed` says why.
pub fn first<A, T>(
    addresses: impl IntoIterator<Item = A>,
    mut failed: Error,
    make: impl Fn(A) -> Result<T>,
) -> Result<T> {
    for address in addresses {
        match make(address) {
            Err(
                error @ Error::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::NETUNREACH),
            ) => failed = error,
            made => return made,
        }
    }
    Err(failed)
}

/// Those of a name's addresses that `family` admits.
pub fn admitted(addresses: Vec<IpAddr>, port: u16, family: Family) -> Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|ip| (ip, port).into()).collect();
    addresses.retain(|address| family.admits(address));
    if addresses.is_empty() {
        return Err(Error::Resolve(NO_ADDRESS.into()));
    }
    Ok(addresses)
}

/// Asks the system's resolver, and waits for it.
fn ask(name: &str) -> Result<Vec<IpAddr>> {
    let answer = (name, 0).to_socket_addrs();
    let addresses = answer.map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) => Error::Os(errno),
        // Without a descriptor the resolver says that there is no such name.
        None => match check_descriptors() {
            Err(error) => error,
            Ok(()) => Error::Resolve(error.to_string()),
        },
    })?;
    Ok(addresses.map(|address| address.ip()).collect())
}
