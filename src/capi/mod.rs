//! The C layer, which is thin: one file for each section of the header. Every function goes through `call`
//! or `guard` of `boundary`; what several sections need is in `handles`, `args` and `last_error`.
//!
//! A symbol is found in the file of its section, and what it does in the library's file of the same
//! name. Comments on the functions here are the header's.

// What C must promise is each function's own comment, which is the header's and not rustdoc's.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

pub mod args;
pub mod boundary;
pub mod capture;
pub mod clock;
pub mod conn;
pub mod dgram;
pub mod end;
pub mod handles;
pub mod hub;
pub mod impair;
pub mod info;
pub mod last_error;
pub mod link;
pub mod listener;
pub mod ports;
pub mod receive;
pub mod redial;
pub mod send;
