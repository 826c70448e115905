//! Errors, and the codes that stand for them in C.

use std::ffi::{CStr, c_int};

use rustix::io::Errno;

/// The codes that functions return for failure. They are negative; zero or more is success.
///
/// Functions return int rather than this type, which only names the values.
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_error {
    /// Success.
    QNET_OK = 0,
    /// An argument cannot be valid: a NULL, an unknown network, a malformed address, or an option's
    /// value out of range.
    QNET_ERR_INVALID = -1,
    /// The handle is not a live one of the expected type: it was closed, is of another type, was
    /// invented, or belongs to the process from which this one was forked.
    QNET_ERR_HANDLE = -2,
    /// The connection or listener has ended in an orderly way; either side may have ended it.
    QNET_ERR_CLOSED = -3,
    /// The time-out has passed.
    QNET_ERR_TIMEOUT = -4,
    /// The call would have to wait, and was told not to.
    QNET_ERR_AGAIN = -5,
    /// A frame is shorter than 14 bytes or longer than the limit, or a receive buffer is too small.
    QNET_ERR_FRAME_SIZE = -6,
    /// The peer broke the framing: it sent a length above QNET_FRAME_MAX, or left in the middle of
    /// a frame.
    QNET_ERR_PROTOCOL = -7,
    /// The operating system reported an error, such as a reset by the peer; see qnet_last_errno().
    QNET_ERR_OS = -8,
    /// The connection is being received from in another way, the address is in use, or the call
    /// would wait for itself.
    QNET_ERR_BUSY = -9,
    /// A signal handler ran during the wait.
    QNET_ERR_INTERRUPTED = -10,
    /// This system, this kind of object or this release of the library does not support it.
    QNET_ERR_UNSUPPORTED = -11,
    /// The call failed because of a bug in the library. The process can continue.
    QNET_ERR_INTERNAL = -12,
    /// Nobody is listening at that address, or not yet.
    QNET_ERR_REFUSED = -13,
    /// The host name could not be resolved to an address.
    QNET_ERR_RESOLVE = -14,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Its text is only the reason; the boundary to C adds what was attempted.
///
/// Each connection has room for four of them, so they are small.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Invalid(Box<str>),
    #[error(
        "not a live handle of that type (closed, of another type, or of the process before a fork)"
    )]
    Handle,
    #[error("the connection has ended")]
    Closed,
    #[error("the time given passed")]
    Timeout,
    #[error("it would have to wait, and was told not to")]
    Again,
    #[error("{0}")]
    FrameSize(Box<str>),
    #[error("the peer broke the framing: {0}")]
    Protocol(&'static str),
    #[error("{}", std::io::Error::from(*.0))]
    Os(Errno),
    #[error("{0}")]
    Busy(&'static str),
    #[error("interrupted by a signal")]
    Interrupted,
    #[error("{0}")]
    Unsupported(&'static str),
    /// An option, by name and number, was set on an object that does not have it.
    #[error("{0}, option {1}, is not for this object")]
    Misplaced(Box<str>, c_int),
    /// One of several arguments, by name, is wrong.
    #[error("{}: {}", .0.0, .0.1)]
    Argument(Box<(String, Error)>),
    #[error("QEMU takes a path of at most {max} bytes, and this one has {}: {}", .path.len(), String::from_utf8_lossy(.path))]
    LongPath { path: Box<[u8]>, max: u32 },
    #[error("a bug in libqnet: {0}")]
    Internal(Box<str>),
    #[error("{}", std::io::Error::from(*.0))]
    Refused(Errno),
    #[error("{0}")]
    Resolve(Box<str>),
}

impl Error {
    pub fn invalid(why: impl Into<Box<str>>) -> Error {
        Error::Invalid(why.into())
    }

    /// The code that stands for it in C.
    pub fn code(&self) -> c_int {
        let code = match self {
            Error::Invalid(_) => qnet_error::QNET_ERR_INVALID,
            Error::Handle => qnet_error::QNET_ERR_HANDLE,
            Error::Closed => qnet_error::QNET_ERR_CLOSED,
            Error::Timeout => qnet_error::QNET_ERR_TIMEOUT,
            Error::Again => qnet_error::QNET_ERR_AGAIN,
            Error::FrameSize(_) => qnet_error::QNET_ERR_FRAME_SIZE,
            Error::Protocol(_) => qnet_error::QNET_ERR_PROTOCOL,
            Error::Os(_) => qnet_error::QNET_ERR_OS,
            Error::Busy(_) => qnet_error::QNET_ERR_BUSY,
            Error::Interrupted => qnet_error::QNET_ERR_INTERRUPTED,
            Error::Unsupported(_) | Error::Misplaced(..) | Error::LongPath { .. } => {
                qnet_error::QNET_ERR_UNSUPPORTED
            }
            Error::Argument(argument) => return argument.1.code(),
            Error::Internal(_) => qnet_error::QNET_ERR_INTERNAL,
            Error::Refused(_) => qnet_error::QNET_ERR_REFUSED,
            Error::Resolve(_) => qnet_error::QNET_ERR_RESOLVE,
        };
        code as c_int
    }

    /// The `errno` of the system call that failed, or 0.
    pub fn errno(&self) -> c_int {
        match self {
            Error::Os(errno) | Error::Refused(errno) => errno.raw_os_error(),
            Error::Argument(argument) => argument.1.errno(),
            _ => 0,
        }
    }

    /// Whether it is recorded as the thread's last error. Outcomes that a polling caller expects
    /// are not.
    pub fn is_recorded(&self) -> bool {
        !matches!(self, Error::Again | Error::Timeout | Error::Interrupted)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        match errno {
            Errno::INTR => Error::Interrupted,
            Errno::ADDRINUSE => Error::Busy("the address is in use"),
            errno => Error::Os(errno),
        }
    }
}

/// A short English description of a code. Every integer has one.
pub fn describe(code: c_int) -> &'static CStr {
    match code {
        0 => c"success",
        -1 => c"invalid argument",
        -2 => c"not a live handle of that type",
        -3 => c"the connection or listener has ended",
        -4 => c"the time given passed",
        -5 => c"would have to wait, and was told not to",
        -6 => c"frame too short or too long, or buffer too small",
        -7 => c"the peer broke the framing",
        -8 => c"the system refused",
        -9 => c"busy",
        -10 => c"interrupted by a signal",
        -11 => c"not supported on this system or this kind of connection",
        -12 => c"internal error in libqnet",
        -13 => c"nobody listens at that address",
        -14 => c"the name has no address",
        _ => c"unknown code",
    }
}
