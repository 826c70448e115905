//! libqnet plugs QEMU virtual machines into a program's own network.
//!
//! QEMU's socket netdevs carry Ethernet frames over plain sockets; here is their other end. A C program sees
//! [`capi`], as `include/qnet.h`; everything below it is ordinary Rust that C has no part in.
//!
//! The house has floors. A file imports files of its own folder and of the floors below it, in no circle, and
//! `.ci/floors` fails where one does not:
//!
//! | floor | what it knows |
//! |---|---|
//! | `capi` | C: handles, arguments, panics, the last error; one file for each section of the header |
//! | `forward` | frames between connections without the caller: hubs, links, the loops and their turns |
//! | `listener` | peers connect, and each becomes a connection |
//! | `conn` | a connection: what it is, its life, and what is done with it, one file for each thing |
//! | `switch` | where each frame goes: ports, the learning table |
//! | `tx`, `rx` | the way out and the way in, which do not know each other |
//! | `net` | sockets: streams and messages in one format, addresses, dialling, listening |
//! | `runtime` | tokens, and no objects: handles, waiting, callbacks, loops, timers, the service thread |
//! | `options` | what can be set, and to what |
//! | `sys` | Linux, wrapped |
//! | `error`, `frame` | what can go wrong; the framing, pure |
//!
//! Upwards lead these seams alone, each a function that is given by who calls from above:
//! what a thread does before it waits (`runtime::wake`), what puts right a callback that ended its thread
//! (`runtime::callback`), what writes what a handler has corked (`runtime::cork`), the turns of a loop
//! (`runtime::event_loop`) and of the service thread (`runtime::service`), whom a lost peer concerns (`tx`), what
//! a connection's threads run (`conn::background`), and the hub that a listener's connections go to (`listener`).
//!
//! `unsafe` is allowed in `capi`, `sys`, `runtime::callback` (calling C), `conn::handler` (frames that a handler
//! has in hand) and `rx::packed` (a caller's uninitialized buffer), and nowhere else.

#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("libqnet is for 64-bit Linux");

#[allow(unsafe_code)]
pub mod capi;
mod conn;
mod error;
mod forward;
mod frame;
mod listener;
#[cfg(not(fuzzing))]
mod net;
#[cfg(fuzzing)] // parsing addresses alone, for fuzz/
pub mod net;
mod options;
mod runtime;
mod rx;
mod switch;
#[allow(unsafe_code)]
mod sys;
mod tx;
