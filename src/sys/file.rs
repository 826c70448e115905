//! Files that the caller names.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, absolute};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// A path from the root on.
pub fn absolute_path(path: &[u8]) -> Result<Vec<u8>> {
    let path = absolute(Path::new(OsStr::from_bytes(path))).map_err(refusal)?;
    Ok(path.into_os_string().into_vec())
}

/// All of a regular file, of at most `most` bytes.
pub fn contents(path: &[u8], most: u64) -> Result<Vec<u8>> {
    // A FIFO, or a device, is not to be waited for.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(OsStr::from_bytes(path));
    let mut file = file.map_err(refusal)?;
    let about = file.metadata().map_err(refusal)?;
    if about.is_dir() {
        return Err(Error::Os(Errno::ISDIR));
    }
    if !about.is_file() {
        return Err(Error::Os(Errno::INVAL));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(refusal)?;
    if bytes.len() as u64 > most { Err(Error::Os(Errno::FBIG)) } else { Ok(bytes) }
}

fn refusal(error: std::io::Error) -> Error {
    Error::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
