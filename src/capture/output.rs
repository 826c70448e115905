//! Where a capture goes: a file, one file after another, a FIFO whose readers come and go, or a descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::fs::{
    FileType, Mode, OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, fstat, ftruncate, open, seek,
    unlink,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{SendFlags, send};

use crate::error::{Error, Result};
use crate::options::{self, Options};
use crate::sys::descriptor::{above_standard, is_ready};
use crate::sys::file::absolute_path;

pub struct Output {
    /// `None` for a FIFO that nobody reads, and once writing has failed.
    fd: Option<OwnedFd>,
    kind: Kind,
    /// Whether it is a file that was opened here, and has what it had before.
    is_emptied: bool,
}

enum Kind {
    File,
    Series(Series),
    Fifo(Vec<u8>),
    Socket,
    Other,
}

/// Files one after another.
struct Series {
    path: Vec<u8>,
    /// How many bytes one has, when another begins.
    most: u64,
    /// How many are kept; 0 for all.
    kept: u64,
    number: u64,
}

/// The flags of every descriptor that is opened here. Opening does not wait for a reader.
const FLAGS: OFlags =
    OFlags::WRONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn open_to_write(path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    above_standard(retry_on_intr(|| open(path, FLAGS | flags, Mode::RUSR | Mode::WUSR))?)
}

fn kind_of(fd: BorrowedFd<'_>) -> rustix::io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

fn is_fifo(path: &[u8]) -> bool {
    rustix::fs::stat(path)
        .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Fifo)
}

fn copy(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)
}

/// Opens a pipe or a terminal once more, so that only the capture's own writes do not block. Where that cannot
/// be, nobody's do.
fn open_again(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open_to_write(path.as_bytes(), OFlags::empty()).or_else(|_| {
        let again = copy(fd)?;
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        Ok(again)
    })
}

impl Output {
    /// Opens a file, which is made where there is none, or a FIFO. What a file has stays until `begin`.
    pub fn open(path: &[u8], options: &Options) -> Result<Output> {
        if path.is_empty() {
            return Err(Error::Os(Errno::NOENT));
        }
        let path = absolute_path(path)?;
        let most = options.get(options::FILE_BYTES) as u64;
        if most > 0 {
            if is_fifo(&path) {
                return Err(Error::Unsupported(
                    "QNET_OPT_FILE_BYTES is for files, and this is a FIFO",
                ));
            }
            let kept = options.get(options::FILES) as u64;
            let mut series = Series { path, most, kept, number: 0 };
            let fd = Some(series.open_next()?);
            return Ok(Output { fd, kind: Kind::Series(series), is_emptied: true });
        }
        let fd = match open_to_write(&path, OFlags::CREATE) {
            // Nobody reads it yet.
            Err(Errno::NXIO) if is_fifo(&path) => {
                return Ok(Output { fd: None, kind: Kind::Fifo(path), is_emptied: false });
            }
            opened => opened?,
        };
        let kind = match kind_of(fd.as_fd())? {
            FileType::Fifo => Kind::Fifo(path),
            FileType::RegularFile => Kind::File,
            _ => Kind::Other,
        };
        let is_emptied = matches!(kind, Kind::File);
        Ok(Output { fd: Some(fd), kind, is_emptied })
    }

    /// Uses a copy of a caller's descriptor.
    pub fn of(fd: BorrowedFd<'_>, options: &Options) -> Result<Output> {
        if options.get(options::FILE_BYTES) > 0 {
            return Err(Error::Unsupported(
                "QNET_OPT_FILE_BYTES is for paths, not for descriptors",
            ));
        }
        if !fcntl_getfl(fd)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(Error::Os(Errno::BADF));
        }
        let (kind, may_block) = match kind_of(fd)? {
            FileType::Socket => (Kind::Socket, false),
            FileType::RegularFile => (Kind::File, false),
            kind => (Kind::Other, matches!(kind, FileType::Fifo | FileType::CharacterDevice)),
        };
        let fd = if may_block { open_again(fd)? } else { copy(fd)? };
        Ok(Output { fd: Some(fd), kind, is_emptied: false })
    }

    /// Whether it is a regular file, or many.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File | Kind::Series(_))
    }

    pub fn is_fifo(&self) -> bool {
        matches!(self.kind, Kind::Fifo(_))
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether it is a FIFO that nobody reads any more.
    pub fn has_been_left(&self) -> bool {
        let fd = self.fd().filter(|_| self.is_fifo());
        // An error means that memory is short; a write will tell.
        fd.is_some_and(|fd| is_ready(fd, PollFlags::ERR).unwrap_or(false))
    }

    pub fn close(&mut self) {
        self.fd = None;
    }

    /// Prepares for what a file begins with: one that was there is emptied.
    pub fn begin(&self) -> rustix::io::Result<()> {
        match &self.fd {
            Some(fd) if self.is_emptied => ftruncate(fd, 0),
            _ => Ok(()),
        }
    }

    /// Writes what there is room for.
    pub fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let fd = self.fd().ok_or(Errno::BADF)?;
        retry_on_intr(|| match self.kind {
            Kind::Socket => send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            _ => rustix::io::write(fd, bytes),
        })
    }

    /// Takes back the last `n` bytes, where that can be.
    pub fn cut(&self, n: usize) {
        let Some(fd) = self.fd().filter(|_| self.is_file() && n > 0) else {
            return;
        };
        if let Ok(end) = seek(fd, SeekFrom::Current(0)) {
            let _ = ftruncate(fd, end.saturating_sub(n as u64));
        }
    }

    /// Whether another file is to begin behind so many bytes.
    pub fn is_full(&self, bytes: u64) -> bool {
        matches!(&self.kind, Kind::Series(series) if bytes >= series.most)
    }

    /// Goes on with another file.
    pub fn open_next(&mut self) -> rustix::io::Result<()> {
        if let Kind::Series(series) = &mut self.kind {
            self.fd = Some(series.open_next()?);
        }
        Ok(())
    }

    /// Goes on with another reader of a FIFO, if there is one.
    pub fn open_to_reader(&mut self) -> rustix::io::Result<bool> {
        let Kind::Fifo(path) = &self.kind else {
            return Ok(false);
        };
        match open_to_write(path, OFlags::empty()) {
            Ok(fd) if kind_of(fd.as_fd())? == FileType::Fifo => self.fd = Some(fd),
            Ok(_) => return Err(Errno::NXIO),
            // The last three pass.
            Err(Errno::NXIO | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {}
            Err(errno) => return Err(errno),
        }
        Ok(self.fd.is_some())
    }
}

impl Series {
    fn open_next(&mut self) -> rustix::io::Result<OwnedFd> {
        let next = self.number + 1;
        let fd = open_to_write(&self.name(next), OFlags::CREATE)?;
        self.number = next;
        if self.kept > 0 && next > self.kept {
            match unlink(self.name(next - self.kept)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(fd)
    }

    /// `/tmp/lab_00001.pcapng` for `/tmp/lab.pcapng`.
    fn name(&self, number: u64) -> Vec<u8> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("_{number:05}"));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        path.with_file_name(name).into_os_string().into_vec()
    }
}
