//! libqnet plugs QEMU virtual machines into a program's own network.
//!
//! QEMU's socket netdevs carry Ethernet frames over plain sockets; here is their other end. What a
//! C program sees is in [`capi`] and `include/qnet.h`; below it is a library that C has no part in.
//! `handle` and `process` hold the objects; `conn`, `listener` and `hub` are the objects; `send`,
//! `cork`, `receive`, `poll`, `handler`, `end`, `redial` and `carrier` are what is done with a
//! connection. `dialler` is the thread that dials again. `link` and `hub` make a `port` of a `switch`
//! of a connection, unless that closed a `ring`; its `table` learns, a loop of `forward` runs it, and
//! what that cannot send at once waits in an `inbox`. `dial` and `resolve` reach a peer.
//! `frame`, `buffer`, `memory`, `address`, `netdev`, `descriptor`, `socket`, `socket_file`, `wake` and `thread`
//! know of none of that.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("libqnet is for 64-bit Linux");

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
mod sys;
mod tx;
