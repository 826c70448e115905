//! Frames between connections.

pub mod advance;
pub mod capture;
pub mod clock;
pub mod fdb;
pub mod hub;
pub mod link;
pub mod ring;
pub mod thread;
pub mod turn;
