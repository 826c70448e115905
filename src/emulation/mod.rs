//! What a port does to frames: it loses, doubles, corrupts, paces and delays them, as a text asks.
//!
//! Nothing here makes a system call, looks at a clock or takes a lock: frames and the time go in, and
//! frames come out.

mod bpf;
pub mod direction;
mod distribution;
mod ecn;
pub mod flight;
mod loss;
mod pacer;
pub mod quantity;
pub mod random;
pub mod spec;
mod store;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod words;
