//! Linux, wrapped.

pub mod clock;
pub mod descriptor;
pub mod file;
pub mod fork;
pub mod futex;
pub mod memory;
pub mod mmsg;
pub mod name;
pub mod sockopt;
pub mod tap;
pub mod thread;
