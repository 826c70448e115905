//! The way out.

pub mod inbox;
