//! What everything else runs on: it knows tokens, and no objects.

#[allow(unsafe_code)]
pub mod callback;
pub mod cork;
pub mod event_loop;
pub mod handle;
pub mod lock;
pub mod poller;
pub mod pool;
pub mod service;
pub mod timers;
pub mod wait;
pub mod wake;
