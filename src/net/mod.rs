//! Sockets: opened, dialled, listened on, and read and written in one format, whether they carry a
//! stream or messages.

pub mod address;
pub(crate) mod dgram;
pub(crate) mod dial;
pub(crate) mod io;
pub(crate) mod listen;
pub(crate) mod messages;
pub(crate) mod netdev;
pub(crate) mod open;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod socket_file;
