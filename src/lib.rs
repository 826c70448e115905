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

#[cfg(not(fuzzing))]
mod address;
#[cfg(fuzzing)] // parsing alone, for fuzz/
pub mod address;
mod buffer;
mod callback;
pub mod capi;
mod carrier;
mod conn;
mod cork;
mod descriptor;
mod dgram;
mod dial;
mod dialler;
mod end;
mod error;
mod forward;
mod frame;
mod handle;
mod handler;
mod hub;
mod inbox;
mod link;
mod listener;
mod memory;
mod message;
mod mmsg;
mod netdev;
mod options;
mod poll;
mod port;
mod process;
mod receive;
mod redial;
mod remote;
mod resolve;
mod ring;
mod send;
mod service;
mod socket;
mod socket_file;
mod switch;
mod table;
mod tap;
mod thread;
mod wake;
