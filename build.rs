//! Generates `include/qnet.h` from the sources, and gives the linker the shared library's name, its
//! symbols' versions and its properties.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use cbindgen::{Builder, Config, ItemType};

/// The files with types that are part of the header.
const TYPES: [&str; 14] = [
    "error.rs",
    "frame.rs",
    "options.rs",
    "runtime/callback.rs",
    "conn/info.rs",
    "conn/impair.rs",
    "forward/hub.rs",
    "forward/fdb.rs",
    "capture/shared.rs",
    "capi/mod.rs",
    "capi/receive.rs",
    "capi/redial.rs",
    "capi/hub.rs",
    "capi/ports.rs",
];

/// The header's sections of functions: the file in `src/capi/`, and the title.
const SECTIONS: [(&str, &str); 14] = [
    ("conn", "Connecting"),
    ("dgram", "Datagrams and TAPs"),
    ("listener", "Listening"),
    ("send", "Sending"),
    ("receive", "Receiving"),
    ("end", "Ending"),
    ("redial", "Reconnecting"),
    ("info", "Knowing"),
    ("link", "Forwarding: links"),
    ("hub", "Forwarding: hubs"),
    ("ports", "A switch's ports"),
    ("impair", "Impairing"),
    ("clock", "Clocks"),
    ("capture", "Capturing"),
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    for watched in ["src", "build.rs", "cbindgen.toml", "abi/symbols", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    write_header(&root);
    link(&root);
}

/// Writes the header into the source tree if it differs. If it cannot be written, cargo shows a
/// warning.
fn write_header(root: &Path) {
    let header = header(root);
    let path = root.join("include/qnet.h");
    if fs::read_to_string(&path).is_ok_and(|old| old == header) {
        return;
    }
    if let Err(error) = fs::write(&path, header) {
        println!("cargo:warning=include/qnet.h is out of date, and cannot be written: {error}");
    }
}

fn header(root: &Path) -> String {
    let types = [ItemType::Enums, ItemType::Structs, ItemType::OpaqueItems, ItemType::Typedefs];
    let mut parts = vec![BEGIN.to_owned(), version(), generate(root, &TYPES, types.to_vec())];
    for (file, title) in SECTIONS {
        let line = "-".repeat(74 - title.len() - file.len());
        parts.push(format!("/* ---- {title} ({file}) {line} */\n"));
        parts.push(generate(root, &[&format!("capi/{file}.rs")], vec![ItemType::Functions]));
    }
    parts.push(END.to_owned());
    parts.join("\n")
}

/// The C declarations that cbindgen generates for items of some kinds in some files of `src/`.
fn generate(root: &Path, files: &[&str], kinds: Vec<ItemType>) -> String {
    let mut config = Config::from_root_or_default(root);
    config.export.item_types = kinds;
    let sources = files.iter().map(|file| root.join("src").join(file));
    let builder = sources.fold(Builder::new().with_config(config), Builder::with_src);
    let mut text = Vec::new();
    builder.generate().expect("the sources can be parsed").write(&mut text);
    String::from_utf8(text).expect("cbindgen writes UTF-8")
}

const BEGIN: &str = "\
/*
 * qnet.h - libqnet, for programs that plug QEMU virtual machines into their own network.
 *
 * Generated from the library's sources; do not edit.
 *
 * Unless a comment says otherwise, a function returns zero or a positive number for success and a
 * negative code of qnet_error for failure. Every function may be called from any thread at any time,
 * except from a signal handler. None raises SIGPIPE. Handles are tokens, not addresses: a stale one
 * gives QNET_ERR_HANDLE and never crashes.
 *
 * A connection is received from in one way at a time: by a handler, which the library calls with
 * each frame (qnet_set_handler()); by calls of the program (qnet_recv() and the like); or by a hub or
 * a link, which forwards the frames to other connections (qnet_hub_attach(), qnet_link()). Until one
 * of these begins, nothing is read, and frames wait in the socket.
 *
 * A frame is \"taken\" when a call that sends has accepted it. The library then writes it without
 * further calls. It is lost only if the connection ends or is down, or if nobody receives a datagram,
 * and then it is counted (qnet_stats.tx_dropped).
 *
 * Each function's comment ends with two lines that a script can search for:
 *   \"Blocks: yes\" or \"Blocks: no\" says whether the call may wait for a peer, for time to pass or
 *   for a handler on another thread. A lock that is held during a system call does not count.
 *   \"Calls back: yes\" or \"Calls back: no\" says whether the call may run one of the program's
 *   handlers on the calling thread before it returns. It then takes as long as that handler.
 * A language binding should release its interpreter's lock around calls that block or call back.
 */

#ifndef QNET_H
#define QNET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern \"C\" {
#endif
";

fn version() -> String {
    let [major, minor, patch] = ["MAJOR", "MINOR", "PATCH"].map(|part| {
        let text = env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets it");
        text.parse::<u32>().expect("a part of a version is a number")
    });
    assert!(minor < 100 && patch < 100, "QNET_VERSION has two digits for each");
    let number = major * 10_000 + minor * 100 + patch;
    format!(
        "\
/**
 * The version of this header, for use in #if. QNET_VERSION is a single number that can be compared:
 * 10000 * major + 100 * minor + patch, so that 10203 is version 1.2.3.
 */
#define QNET_VERSION_MAJOR {major}
#define QNET_VERSION_MINOR {minor}
#define QNET_VERSION_PATCH {patch}
#define QNET_VERSION {number}
"
    )
}

const END: &str = "\
#ifdef __cplusplus
}
#endif

#endif
";

fn link(root: &Path) {
    let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
    let arg = |arg: &str| println!("cargo:rustc-cdylib-link-arg=-Wl,{arg}");
    arg(&format!("-soname,libqnet.so.{major}"));
    // The code stays mapped after dlclose, since the library's threads may still be running.
    arg("-z,nodelete");
    version_symbols(root, arg);
    link_soname(&major);
}

/// Gives each symbol of the shared library the version in `abi/symbols`, where the linker can. Those of
/// the static library have none, because versioned symbols could not be linked into another shared object.
///
/// rustc passes a version script of its own, without versions. Only lld gives versions by a second script
/// beside it, and only by one that names no symbols. So this one names only the versions, and each
/// symbol gets its version from an option `-u name@@VERSION`, which asks lld to look for the symbol
/// by that name. GNU ld refuses the second script; gold and mold give no versions. `make` links the
/// shared library that is installed without rustc, by any of them.
fn version_symbols(root: &Path, arg: impl Fn(&str)) {
    let list = fs::read_to_string(root.join("abi/symbols")).expect("abi/symbols can be read");
    let version_of = |symbol: &str| symbol.split_once("@@").expect("name@@VERSION").1.to_owned();
    let versions: BTreeSet<_> = list.lines().map(version_of).collect();
    let nodes: String = versions.iter().map(|version| format!("{version} {{ }};\n")).collect();
    let script = out_dir().join("versions.map");
    fs::write(&script, nodes).expect("cargo's directory can be written to");
    let script = format!("--version-script={}", script.display());
    if is_taken(&script) {
        list.lines().for_each(|symbol| arg(&format!("-u,{symbol}")));
        arg(&script);
    }
}

/// Whether the linker takes an argument. Nothing tells which linker rustc calls, so it is tried with an
/// empty library.
fn is_taken(arg: &str) -> bool {
    let source = out_dir().join("empty.rs");
    fs::write(&source, "").expect("cargo's directory can be written to");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").expect("cargo sets it");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(["--target", &env::var("TARGET").expect("cargo sets it")]);
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    // Set only if cargo was told of one.
    rustc.args(env::var("RUSTC_LINKER").map(|linker| format!("-Clinker={linker}")));
    rustc.args(["--crate-type", "cdylib", &format!("-Clink-arg=-Wl,{arg}"), "-o"]);
    rustc.arg(source.with_extension("so")).arg(source);
    rustc.output().is_ok_and(|output| output.status.success())
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"))
}

/// Makes a link named like the soname beside the library that cargo builds: programs look for that
/// name.
fn link_soname(major: &str) {
    let out = out_dir();
    // OUT_DIR is PROFILE/build/qnet-HASH/out.
    let profile = out.ancestors().nth(3).expect("cargo's directories");
    // This fails if the link exists, which is fine, or if the directory cannot be written to.
    // Programs then need a link of their own.
    let _ = std::os::unix::fs::symlink("libqnet.so", profile.join(format!("libqnet.so.{major}")));
}
