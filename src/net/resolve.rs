//! Resolves names on threads of their own, since the system's resolver cannot be interrupted. A name
//! is looked up once at a time, for all who ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::net::address::{EmptyHost, Family, Host};
use crate::net::open::pair;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::lock;
use crate::runtime::wait::{self, Tried};
use crate::runtime::wake::{PollFds, Wake};
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// The look-ups that are under way, by name.
static LOOKUPS: PerProcess<Mutex<BTreeMap<String, Arc<Lookup>>>> = PerProcess::new();

/// One look-up, which goes on even if nobody waits for it any more. Only those who joined it before
/// the answer came get the answer.
#[derive(Default)]
pub struct Lookup {
    progress: Mutex<Progress>,
    wake: Wake,
}

#[derive(Default)]
struct Progress {
    answer: Option<Result<Vec<IpAddr>>>,
    /// The tokens that get a turn on their loop when the answer comes.
    looks: BTreeMap<Token, &'static Loop>,
}

impl Lookup {
    /// Joins the look-up of `name` that is under way, or starts one.
    pub fn join(name: &str) -> Result<Arc<Lookup>> {
        let lookups = LOOKUPS.get();
        let mut all = lock(lookups);
        if let Some(lookup) = all.get(name) {
            return Ok(lookup.clone());
        }
        let lookup = Arc::new(Lookup::default());
        let (answered, asked) = (lookup.clone(), name.to_owned());
        thread::spawn(c"qnet-resolve", move || {
            let answer = ask(&asked);
            lock(lookups).remove(&asked);
            answered.finish(answer);
        })?;
        all.insert(name.to_owned(), lookup.clone());
        Ok(lookup)
    }

    /// Returns the answer, or `None` while there is none; then `runner` gives `token` a turn once
    /// there is.
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

    fn finish(&self, answer: Result<Vec<IpAddr>>) {
        let mut progress = lock(&self.progress);
        progress.answer = Some(answer);
        let looks = std::mem::take(&mut progress.looks);
        drop(progress);
        self.wake.raise();
        looks.iter().for_each(|(token, runner)| runner.look(*token));
    }
}

pub const NO_ADDRESS: &str = "the name has no address of this network";

/// The addresses of a host that `family` admits, those of a name in the resolver's order.
pub fn addresses(
    host: &Host,
    port: u16,
    family: Family,
    empty: EmptyHost,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>> {
    match host {
        Host::Name(name) => admitted(Lookup::join(name)?.wait(deadline)?, port, family),
        host => Ok(host.digits(family, port, empty)),
    }
}

/// Makes a socket at the first address that this host has a network for. Without any address,
/// `failed` is the error.
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

/// The addresses of a name that `family` admits; an error if it admits none.
pub fn admitted(ips: Vec<IpAddr>, port: u16, family: Family) -> Result<Vec<SocketAddr>> {
    let all = ips.into_iter().map(|ip| SocketAddr::from((ip, port)));
    let admitted: Vec<SocketAddr> = all.filter(|address| family.admits(address)).collect();
    if admitted.is_empty() {
        return Err(Error::Resolve(NO_ADDRESS.into()));
    }
    Ok(admitted)
}

/// Asks the system's resolver, and waits for it.
fn ask(name: &str) -> Result<Vec<IpAddr>> {
    let answer = (name, 0).to_socket_addrs();
    let addresses = answer.map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) => Error::Os(errno),
        // The resolver needs two descriptors. If it gets none, it says that there is no such name.
        None => pair().err().unwrap_or_else(|| Error::Resolve(error.to_string().into())),
    })?;
    Ok(addresses.map(|address| address.ip()).collect())
}
