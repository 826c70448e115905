//! Captures: the frames of connections and hubs, written in the format of Wireshark.
//!
//! A connection or hub that is captured has an interface (`interface`) for each of its captures. Who receives
//! or sends a frame puts a copy of it in the capture's buffer (`ring`), as the file is to have it (`pcapng`), and
//! waits for nothing but for room where the program moves the clock; a thread of the capture's own (`thread`)
//! writes what is in the buffer (`output`).

pub mod interface;
mod output;
mod pcapng;
#[allow(unsafe_code)]
mod ring;
mod rows;
pub mod shared;
mod thread;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::str;
use std::sync::Arc;

use crate::capture::interface::Interface;
use crate::capture::output::Output;
use crate::capture::ring::Ring;
use crate::capture::shared::{Shared, qnet_capture_stats};
use crate::error::{Error, Result};
use crate::options::{self, Options};
use crate::runtime::handle::{NONE, Object, Ref, Table, Token};
use crate::runtime::lock::{Guard, Guarded, Lock};
use crate::sys::thread::spawn;

/// How many captures a process may have.
const MOST: usize = 1 << 12;

/// How many bytes a name may have.
const LONGEST_NAME: usize = 255;

static CAPTURES: Table<Capture, MOST> = Table::new();

/// This process's captures.
pub fn table() -> &'static Table<Capture, MOST> {
    &CAPTURES
}

#[derive(Default)]
pub struct Capture {
    state: Lock<State>,
}

#[derive(Default)]
pub struct State {
    token: Token,
    /// Present while the handle is live.
    shared: Option<Arc<Shared>>,
    /// The connections and hubs that are in it, some of which may be gone.
    members: BTreeMap<Token, Interface>,
    /// How many of them were named by their number: connections, and hubs.
    numbered: [u32; 2],
}

impl Guarded for State {}

impl Object for Capture {
    const KIND: u64 = 4;
    type State = State;

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.token == token
    }
}

/// Opens a capture to a file or a FIFO.
pub fn open(path: &[u8], options: &Options) -> Result<Ref<Capture>> {
    begin(options, || Output::open(path, options))
}

/// Opens a capture to a descriptor, which is the caller's until `own` is called: that is when nothing can
/// fail any more.
pub fn open_fd(
    fd: BorrowedFd<'_>,
    options: &Options,
    own: impl FnOnce() -> OwnedFd,
) -> Result<Ref<Capture>> {
    let capture = begin(options, || Output::of(fd, options))?;
    // It has a copy.
    drop(own());
    Ok(capture)
}

fn begin(options: &Options, output: impl FnOnce() -> Result<Output>) -> Result<Ref<Capture>> {
    table().make(|capture| {
        let (ring, taker) = Ring::of(options.get(options::CAPTURE_BYTES) as usize)?;
        let snaplen = match options.get(options::SNAPLEN) as usize {
            0 => usize::MAX,
            snaplen => snaplen,
        };
        let output = output()?;
        let is_on = output.fd().is_some();
        let shared = Arc::new(Shared::new(ring, snaplen, output.is_file(), is_on));
        if is_on && output.is_fifo() {
            shared.note_reader();
        }
        let threads = shared.clone();
        spawn(c"qnet-capture", move || thread::run(&threads, taker, output))?;
        let token = capture.token;
        *capture.slot.state.lock() = State { token, shared: Some(shared), ..State::default() };
        Ok(capture)
    })
}

/// What names an interface that was given no name.
#[derive(Clone, Copy)]
pub enum Numbered {
    Conn,
    Hub,
}

/// Adds a note to the next frame.
pub fn note(capture: Ref<Capture>, text: &[u8]) -> Result<()> {
    if text.len() > pcapng::LONGEST_TEXT {
        return Err(Error::invalid(format!("a note of {} bytes", text.len())));
    }
    let text = str::from_utf8(text).map_err(|_| Error::invalid("the note is not UTF-8"))?;
    capture.state()?.shared().note(text.to_owned())
}

pub fn stats(capture: Ref<Capture>) -> Result<qnet_capture_stats> {
    Ok(capture.state()?.shared().stats())
}

/// Refuses what cannot name an interface.
pub fn check_name(name: Option<&[u8]>) -> Result<()> {
    match name {
        Some(name) if name.len() > LONGEST_NAME => {
            Err(Error::invalid(format!("a name of {} bytes", name.len())))
        }
        Some(name) if str::from_utf8(name).is_err() => Err(Error::invalid("the name is not UTF-8")),
        _ => Ok(()),
    }
}

/// What is left of a capture that is closed: to be taken out of its members, and then to be closed.
pub struct Closing {
    pub members: BTreeMap<Token, Interface>,
    shared: Arc<Shared>,
}

impl Closing {
    /// Has what was recorded written.
    pub fn finish(self) {
        self.shared.close();
    }
}

/// Ends the handle.
pub fn close(capture: Ref<Capture>) -> Result<Closing> {
    let mut state = capture.state()?;
    let State { shared, members, .. } = std::mem::take(&mut *state);
    state.token = NONE;
    drop(state);
    table().give_back(capture.token);
    Ok(Closing { members, shared: shared.expect("a live capture has that") })
}

impl State {
    fn shared(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("a live capture has that")
    }

    /// Puts a connection or hub in, under a name, that which `numbered` gives it, or its description.
    pub fn add(
        &mut self,
        member: Token,
        name: Option<&[u8]>,
        description: Vec<u8>,
        numbered: Numbered,
    ) -> Result<Interface> {
        if self.members.contains_key(&member) {
            return Err(Error::Busy("it is in the capture already"));
        }
        let name = match name {
            Some(name) => name.to_vec(),
            None if !description.is_empty() => description.clone(),
            None => {
                let number = &mut self.numbered[numbered as usize];
                *number += 1;
                let word = ["conn", "hub"][numbered as usize];
                format!("{word}{number}").into_bytes()
            }
        };
        let interface = Interface::add(self.shared(), name, description);
        self.members.insert(member, interface.clone());
        Ok(interface)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, member: Token) -> Result<Interface> {
        let removed = self.members.remove(&member);
        removed.ok_or_else(|| Error::invalid("the connection is not in the capture"))
    }
}
