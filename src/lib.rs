//! libqnet plugs QEMU virtual machines into a program's own network.
//!
//! QEMU's socket netdevs carry Ethernet frames over plain sockets, and this library is their other
//! end. C programs call the functions in [`capi`], which are declared in `include/qnet.h`.
//! Everything else is ordinary Rust.
//!
//! The folders and files stand on floors. A file imports only files of its own folder and of the
//! floors below, and imports form no circle. `.ci/floors` checks that:
//!
//! | floor | what is there |
//! |---|---|
//! | `capi` | the C functions: handles, arguments, panics, the last error; one file for each section of the header |
//! | `forward` | hubs and links, which forward frames between connections on threads of the library |
//! | `listener` | listeners, which make a connection of each peer that connects |
//! | `conn` | connections: their state and its changes, and one file for each thing that is done with one |
//! | `switch` | where a hub or a link sends each frame: ports, and the table of addresses |
//! | `tx`, `rx` | sending and receiving, which do not know each other |
//! | `capture` | what records frames, and writes them for Wireshark |
//! | `emulation` | what a port does to frames: loss, delay and the like, without system calls |
//! | `net` | sockets of streams and of messages behind one interface; addresses, dialling, listening |
//! | `runtime` | handles, locks, waiting, callbacks, event loops, timers, the service thread; it knows only tokens |
//! | `options` | the options, their ranges, and the objects that have them |
//! | `sys` | wrappers of Linux system calls and of the C library |
//! | `error`, `frame` | errors and their codes; the framing of streams |
//!
//! A lower floor calls a higher one only through these functions, each of which it is given from
//! above: what a thread does before it waits (`runtime::wake`), what is done after a callback has
//! ended its thread (`runtime::callback`), what writes the frames that a handler has corked
//! (`runtime::cork`), the turns of an event loop (`runtime::event_loop`) and of the service thread
//! (`runtime::service`), what is done when a write finds the peer gone (`tx`), what a connection's
//! threads run (`conn::background`), and what attaches a listener's connections to a hub
//! (`listener`).
//!
//! `unsafe` is allowed only in `capi`, `sys`, `runtime::callback` (calling C), `runtime::lock` (what a
//! lock guards), `runtime::onward` (frames that are sent on from where they lie), `conn::handler` (frames
//! that a handler has been given), `rx::packed` (a caller's uninitialized buffer) and `capture::ring`
//! (bytes that threads hand over to each other).

#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("libqnet is for 64-bit Linux");

#[allow(unsafe_code)]
pub mod capi;
mod capture;
mod conn;
#[cfg(not(fuzzing))]
mod emulation;
#[cfg(fuzzing)] // The fuzz target that impairs calls it.
pub mod emulation;
mod error;
mod forward;
mod frame;
mod listener;
#[cfg(not(fuzzing))]
mod net;
#[cfg(fuzzing)] // The fuzz target that parses addresses calls it.
pub mod net;
mod options;
mod runtime;
mod rx;
mod switch;
#[allow(unsafe_code)]
mod sys;
mod tx;
