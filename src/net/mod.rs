//! Sockets.

pub mod address;
pub mod dgram;
pub mod dial;
pub mod messages;
pub mod netdev;
pub mod resolve;
pub mod socket;
pub mod socket_file;
pub mod tap;
