//! The way in.

pub mod buffer;
