use std::ffi::{c_char, c_int};

use crate::capi::args::{give_struct, give_text, text};
use crate::capi::boundary::{OK, on_conn, on_listener, to_conn, to_listener};
use crate::capi::handles::{qnet_conn, qnet_listener};
use crate::conn::impair::{self, qnet_impair_stats};
use crate::listener;

/// Impairs the frames of a connection: loses, delays, paces, doubles, corrupts and reorders them, as
/// a text asks. It replaces the impairment before, and is in force while the connection is linked or
/// attached to a hub; what is set stays set when it is unlinked or detached. What qnet_send() sends is
/// not impaired. On a connection of qnet_hub_port() it belongs to the hub's end, whichever of the two
/// handles is given: QNET_IN is from the program into the hub.
///
/// The language is that of `tc netem`. Its words stand in any order, each once:
///
///   delay TIME [JITTER [CORRELATION]]
///   distribution uniform|normal|pareto|paretonormal     how the JITTER is spread
///   loss [random] PERCENT [CORRELATION]
///   loss gemodel P [R [1-H [1-K]]]                      Gilbert-Elliott
///   loss state P13 [P31 [P32 [P23 [P14]]]]              four states
///   loss every N, loss frames LIST                      LIST as in 3,7-9
///   ecn                                                 mark instead of lose, where the frame allows
///   duplicate PERCENT [CORRELATION]
///   corrupt PERCENT [CORRELATION]                       one bit, behind the addresses
///   rate RATE [OVERHEAD [CELL [CELLOVERHEAD]]]
///   limit N|BYTES|TIME                                  how much may wait for the rate; 1000 frames
///   mark TIME                                           mark what waited longer for the rate
///   reorder [PERCENT [CORRELATION]] [gap N]             frames may overtake each other
///   trace PATH [BYTES]                                  a Mahimahi trace, in place of rate
///   seed N                                              of all that is random; chosen by default
///   match PROGRAM                                       for what a classic BPF program matches
///
/// TIME ends in ns, us, ms or s; RATE in bit, kbit, mbit, gbit or tbit; PERCENT and CORRELATION in %;
/// BYTES of limit in b, kb or mb. PROGRAM is what `tcpdump -y EN10MB -ddd` prints, its lines joined
/// by commas or blanks.
///
/// A new text is in force for the next frame. What is in flight keeps its time, and what waits for the
/// rate gets the new one. Nothing is lost by a change, and frames stay in order but for `reorder`. No
/// frame leaves before its time. Without `seed` a direction goes on with the one that it has.
///
/// @param direction  One of enum qnet_direction. QNET_BOTH sets both, with one seed, or neither.
/// @param spec       The text, for example "delay 40ms 5ms loss 1% rate 20mbit". NULL or "" removes
///                   the impairment: what waits is sent at once, behind what is in flight.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (not a direction, or a text that cannot be
///         understood, in which case qnet_last_error() says where and what was expected),
///         QNET_ERR_OS (a trace that cannot be read), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS
///         (the connection has ended), QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_impair(
    conn: *mut qnet_conn,
    direction: c_int,
    spec: *const c_char,
) -> c_int {
    to_conn(conn, "impair", |conn| {
        // SAFETY: C promises NULL or a string.
        impair::set(conn, direction, unsafe { text(spec) }?).map(|()| OK)
    })
}

/// Gets the impairment of one direction of a connection, as a text that qnet_impair() takes: its words
/// in lower case and in the order of its table, paths from the root on, and the seed.
///
/// @param direction  QNET_IN or QNET_OUT.
/// @param buf        Receives the text as snprintf(3) would write it: truncated if necessary, always
///                   NUL-terminated; empty where there is no impairment. May be NULL if cap is 0.
/// @param cap        The size of buf in bytes.
/// @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
///         QNET_ERR_HANDLE, QNET_ERR_INVALID (not one direction, or buf is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_impairment(
    conn: *mut qnet_conn,
    direction: c_int,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the impairment", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&impair::text(conn, direction)?, buf, cap) }
    })
}

/// Sets the impairment with which the connections start that the listener accepts from now on; see
/// qnet_impair(). With `seed` all of them have that seed, without one each has its own.
///
/// @param direction  One of enum qnet_direction. QNET_BOTH sets both or neither.
/// @param spec       The text. NULL or "": none.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (not a direction, or a text that cannot be
///         understood), QNET_ERR_OS (a trace that cannot be read), QNET_ERR_INTERNAL. On failure
///         nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_impair(
    listener: *mut qnet_listener,
    direction: c_int,
    spec: *const c_char,
) -> c_int {
    to_listener(listener, "impair", |listener| {
        // SAFETY: C promises NULL or a string.
        listener::impair(listener, direction, unsafe { text(spec) }?).map(|()| OK)
    })
}

/// Gets the impairment with which one direction of the listener's connections starts, as a text. It
/// has a seed only if one was given.
///
/// @param direction  QNET_IN or QNET_OUT.
/// @param buf        Receives the text as snprintf(3) would write it: truncated if necessary, always
///                   NUL-terminated; empty for none. May be NULL if cap is 0.
/// @param cap        The size of buf in bytes.
/// @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
///         QNET_ERR_HANDLE, QNET_ERR_INVALID (not one direction, or buf is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_impairment(
    listener: *mut qnet_listener,
    direction: c_int,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_listener(listener, "tell the impairment", |listener| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&listener::impairment(listener, direction)?, buf, cap) }
    })
}

/// Gets the counters of one direction of a connection.
///
/// @param direction  QNET_IN or QNET_OUT.
/// @param out        Receives the counters. Members that this release of the library does not know
///                   are set to zero.
/// @param size       The size of the struct in bytes: sizeof(qnet_impair_stats) as the caller was
///                   compiled.
/// @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (not one direction, or out is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_get_impair_stats(
    conn: *mut qnet_conn,
    direction: c_int,
    out: *mut qnet_impair_stats,
    size: usize,
) -> c_int {
    on_conn(conn, "tell the counts of the impairment", |conn| {
        impair::side(direction)?;
        // SAFETY: C promises room for `size` bytes; the struct is plain integers.
        unsafe { give_struct(|| impair::stats(conn, direction), out, size) }
    })
}
