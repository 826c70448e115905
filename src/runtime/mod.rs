//! What objects are built on: handles, locks, waiting, callbacks and background threads. It knows
//! objects only by their tokens.

#[allow(unsafe_code)]
pub mod callback;
pub mod cork;
pub mod event_loop;
pub mod handle;
#[allow(unsafe_code)]
pub mod lock;
#[allow(unsafe_code)]
pub mod onward;
pub mod poller;
pub mod pool;
pub mod service;
pub mod timers;
pub mod wait;
pub mod wake;
