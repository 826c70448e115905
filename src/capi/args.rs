//! Arguments from C, and what is written for it: strings, slices, out-parameters, text and structs.

use std::ffi::{CStr, c_char, c_int};

use crate::error::{Error, Result};
use crate::options::{Holder, Options};

/// The bytes of a C string.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that lives for the call.
pub unsafe fn string<'a>(text: *const c_char, name: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A text, which is empty if it is NULL.
///
/// # Safety
/// `spec` is NULL or a NUL-terminated string that lives for the call.
pub unsafe fn text<'a>(spec: *const c_char) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    if spec.is_null() { Ok(b"") } else { unsafe { string(spec, "spec") } }
}

/// A hardware address, if it is not NULL.
///
/// # Safety
/// `mac` is NULL or points to 6 bytes.
pub unsafe fn mac(mac: *const u8) -> Option<[u8; 6]> {
    // SAFETY: the caller's promise.
    (!mac.is_null()).then(|| unsafe { mac.cast::<[u8; 6]>().read() })
}

/// What a message says of a C string that may be NULL.
///
/// # Safety
/// As for [`string`].
pub unsafe fn shown(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { string(text, "") }.map_or("NULL".into(), |s| String::from_utf8_lossy(s).into_owned())
}

/// The `count` things at `at`, which may be NULL if there are none.
///
/// # Safety
/// `at` is NULL or points to `count` things that live, and do not change, for the call.
pub unsafe fn slice<'a, T>(at: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid(format!("{count} {name} are more than memory holds")));
    }
    // SAFETY: not null, not longer than memory can be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at, count) })
}

/// The options of what is about to be made.
///
/// # Safety
/// `options` is NULL or points to `pairs` pairs of an option and its value.
pub unsafe fn chosen(options: *const i64, pairs: usize, holder: Holder) -> Result<Options> {
    let mut chosen = Options::default();
    // SAFETY: the caller's promise.
    for &[option, value] in unsafe { slice(options.cast::<[i64; 2]>(), pairs, "options") }? {
        let option = i32::try_from(option)
            .map_err(|_| Error::invalid(format!("unknown option {option}")))?;
        chosen.set(option, value, holder)?;
    }
    Ok(chosen)
}

/// Refuses an out-parameter that is NULL.
pub fn out<T>(at: *mut T, name: &str) -> Result<*mut T> {
    if at.is_null() { Err(Error::invalid(format!("{name} is NULL"))) } else { Ok(at) }
}

/// Writes through an out-parameter, unless it is NULL.
///
/// # Safety
/// `at` is NULL or may be written to.
pub unsafe fn put<T>(at: *mut T, value: T) {
    if !at.is_null() {
        // SAFETY: the caller's promise.
        unsafe { at.write(value) };
    }
}

/// Writes text as snprintf(3) does. Returns the length needed, without the NUL.
///
/// # Safety
/// `buf` is NULL or has room for `cap` bytes.
pub unsafe fn give_text(text: &[u8], buf: *mut c_char, cap: usize) -> Result<c_int> {
    if cap > 0 {
        let buf: *mut u8 = out(buf, "buf")?.cast();
        let n = text.len().min(cap - 1);
        // SAFETY: n + 1 bytes are at most `cap`; the text is the library's own.
        unsafe {
            buf.copy_from_nonoverlapping(text.as_ptr(), n);
            buf.add(n).write(0);
        }
    }
    Ok(text.len() as c_int)
}

/// Writes a struct of counts as far as there is room, and zeros beyond it. Returns the struct's own size.
///
/// # Safety
/// `to` is NULL or has room for `size` bytes; `T` is plain integers.
pub unsafe fn give_struct<T>(
    counts: impl FnOnce() -> Result<T>,
    to: *mut T,
    size: usize,
) -> Result<c_int> {
    let to: *mut u8 = out(to, "out")?.cast();
    let counts = counts()?;
    let known = size_of::<T>();
    // SAFETY: the caller's promise.
    unsafe {
        to.copy_from_nonoverlapping((&raw const counts).cast(), known.min(size));
        if size > known {
            to.add(known).write_bytes(0, size - known);
        }
    }
    Ok(known as c_int)
}
