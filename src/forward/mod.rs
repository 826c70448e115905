//! Frames between connections.

pub mod advance;
pub mod capture;
pub mod clock;
pub mod closing;
pub mod fdb;
pub mod hub;
pub mod joining;
pub mod link;
pub mod ring;
pub mod served;
pub mod thread;
pub mod turn;
