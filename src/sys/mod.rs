//! Linux, wrapped.

pub mod descriptor;
pub mod memory;
pub mod mmsg;
pub mod thread;
