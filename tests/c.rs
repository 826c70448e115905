//! The tests in C: compiles the programs of `c-tests/`, and runs each as one test, named after it.
//!
//! `cargo test --test c conn` runs those with `conn` in their names; the long ones are run only with
//! `--ignored`, or with `--include-ignored` along with all others. A program prints which of its own tests it
//! skips, and why. It is linked with the shared library that cargo has built for this very profile: so
//! nothing is built twice, the debug assertions of the library are tested, and with `--release` it is the
//! library that is shipped. What needs a script or another build of the library is left to `make -C c-tests`.
//!
//! The folders, the long programs and the flags are those of `c-tests/Makefile`.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::slice::from_ref;
use std::time::SystemTime;

use libtest_mimic::{Arguments, Failed, Trial};

const MAKEFILE: &str = include_str!("../c-tests/Makefile");
const FLAGS: &str = include_str!("../c-tests/flags");
const SYMBOLS: &str = include_str!("../abi/symbols");

/// Programs that take long although they have nothing of which `make check` could run only a sample.
const LONG: [&str; 3] = ["coalesce", "faults", "wedge"];

/// What every program is compiled with.
struct Bench {
    /// `c-tests/`, where the compiler and the programs run.
    home: PathBuf,
    /// Where the libraries are, and the shared one by its soname.
    libraries: PathBuf,
    build: PathBuf,
    /// When a header was last changed.
    headers: SystemTime,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let bench: &Bench = Box::leak(Box::new(Bench::new()));
    let long = [words_of("LONG"), LONG.to_vec()].concat();
    let programs =
        words_of("HOUSES").into_iter().flat_map(|house| sources_in(&bench.home.join(house)));
    let trials = programs.map(|source| {
        let name = name_of(&source);
        let is_long = long.contains(&&*name);
        Trial::test(name, move || bench.test(&source)).with_ignored_flag(is_long)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The words of a variable of the Makefile, which are on one line.
fn words_of(variable: &str) -> Vec<&'static str> {
    let mut lines = MAKEFILE.lines().filter_map(|line| line.split_once(":="));
    let (_, words) = lines.find(|(name, _)| name.trim() == variable).expect("the Makefile has it");
    words.split_whitespace().collect()
}

fn name_of(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files in a directory that are programs, each of one file.
fn sources_in(directory: &Path) -> Vec<PathBuf> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "c" || end == "cc");
    let mut sources: Vec<_> = files_in(directory).into_iter().filter(is_source).collect();
    sources.sort();
    sources
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    entries.map(|entry| entry.expect("the directory can be read").path()).collect()
}

/// When a file was last changed; none if it is not there.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|about| about.modified()).ok()
}

/// When a header, or the flags, below a directory were last changed.
fn headers_changed(directory: &Path) -> SystemTime {
    let times = files_in(directory).into_iter().filter_map(|path| match path.is_dir() {
        true => Some(headers_changed(&path)),
        false if path.extension() == Some(OsStr::new("c")) => None,
        false => changed(&path),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Bench {
    fn new() -> Bench {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let program = env::current_exe().expect("the system tells");
        let libraries = program.parent().expect("a program is in a directory").to_owned();
        let profile = libraries.parent().and_then(Path::file_name).unwrap_or_default();
        let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c").join(profile);
        fs::create_dir_all(&build).expect("cargo's directory can be written to");
        let soname = format!("libqnet.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
        match symlink("libqnet.so", libraries.join(soname)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("no link: {error}"),
            _ => {}
        }
        let home = top.join("c-tests");
        let headers = headers_changed(&home).max(headers_changed(&top.join("include")));
        Bench { home, libraries, build, headers }
    }

    /// Compiles a program and runs it.
    fn test(&self, source: &Path) -> Result<(), Failed> {
        let name = name_of(source);
        if name == "panic" && !cfg!(feature = "inject-panic") {
            println!("panic: skipped: it needs --features inject-panic");
            return Ok(());
        }
        let mut parts = vec![source.to_owned()];
        let own = source.with_extension("");
        if own.join("shim.c").exists() {
            parts.push(own.join("shim.c"));
        }
        self.compile_plugins(&own)?;
        let program = self.build.join(&name);
        self.compile(&parts, &program, &["-rdynamic"], true)?;
        let mut run = Command::new(&program);
        if cfg!(debug_assertions) && env::var_os("CHECK_SLOW").is_none() {
            // As under the sanitizers: the library is not optimized.
            run.env("CHECK_SLOW", "5");
        }
        if name == "panic" {
            run.args(SYMBOLS.lines().filter_map(|symbol| symbol.split("@@").next()));
        }
        // A file, since a pipe would stay open for as long as some process that a failed test has left behind.
        let log = program.with_extension("log");
        let output = File::create(&log)?;
        run.current_dir(&self.home).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let status = run.status()?;
        let said = fs::read(&log)?;
        let said = String::from_utf8_lossy(&said);
        if !status.success() {
            return Err(format!("{said}{name} ended by {status}").into());
        }
        let skipped = said.lines().filter(|line| line.starts_with("skipped"));
        skipped.for_each(|line| println!("{name}: {line}"));
        Ok(())
    }

    /// Compiles what a program loads, from the directory that has its name.
    fn compile_plugins(&self, own: &Path) -> Result<(), Failed> {
        let plugin = |name: &str| self.build.join(format!("plugin-{name}.so"));
        let (c, cc) = (own.join("plugin.c"), own.join("plugin.cc"));
        if c.exists() {
            self.compile(from_ref(&c), &plugin("shared"), &["-shared", "-fPIC"], true)?;
            let parts = [c, self.libraries.join("libqnet.a")];
            let flags = ["-shared", "-fPIC", "-Wl,-z,nodelete", "-lm", "-ldl"];
            self.compile(&parts, &plugin("static"), &flags, false)?;
        }
        if cc.exists() {
            let flags = ["-shared", "-fPIC", "-fvisibility=hidden"];
            self.compile(&[cc], &plugin("hpp"), &flags, false)?;
        }
        Ok(())
    }

    /// Compiles sources, and links libraries, into one program or library, unless that is newer than they are.
    fn compile(
        &self,
        parts: &[PathBuf],
        to: &Path,
        flags: &[&str],
        is_linked: bool,
    ) -> Result<(), Failed> {
        let newest = parts.iter().filter_map(|part| changed(part)).max();
        if changed(to) > newest.max(Some(self.headers)) {
            return Ok(());
        }
        let is_cpp = parts[0].extension() == Some(OsStr::new("cc"));
        let mut compiler = compiler(is_cpp)?.to_command();
        compiler.current_dir(&self.home).args(self.flags(is_cpp, &name_of(&parts[0])));
        compiler.args(parts).arg("-o").arg(to).args(flags);
        if is_linked {
            // The run path of old, as it comes before LD_LIBRARY_PATH: there cargo puts first a directory that may
            // have an older library.
            let [search, run_path] = ["-L", "-Wl,--disable-new-dtags,-rpath,"]
                .map(|flag| flag.to_owned() + &self.libraries.to_string_lossy());
            compiler.args(["-Wl,--as-needed", &search, &run_path, "-lqnet", "-ldl", "-lm"]);
        }
        let output = compiler.output()?;
        if !output.status.success() {
            return Err(format!("{compiler:?}\n{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(())
    }

    fn flags(&self, is_cpp: bool, name: &str) -> Vec<String> {
        let version = env!("CARGO_PKG_VERSION");
        let plugin = |name| format!("{}/plugin-{name}.so", self.build.display());
        let defined = [
            ("CARGO_VERSION", version.to_owned()),
            ("HEADER_VERSION", version.to_owned()),
            ("QNET_LIBRARY", format!("{}/libqnet.so", self.libraries.display())),
            ("SHARED_PLUGIN", plugin("shared")),
            ("STATIC_PLUGIN", plugin("static")),
            ("HPP_PLUGIN", plugin("hpp")),
        ];
        let is_of_language = |flag: &&str| !is_cpp || !flag.starts_with("-std=");
        let mut flags: Vec<String> =
            FLAGS.split_whitespace().filter(is_of_language).map(str::to_owned).collect();
        flags.push("-I../include".to_owned());
        flags.extend(defined.map(|(name, value)| format!("-D{name}=\"{value}\"")));
        if is_cpp {
            flags.push("-std=c++17".to_owned());
        }
        if name == "hpp_codes" {
            flags.push("-fno-exceptions".to_owned());
        }
        flags
    }
}

/// The compiler that the `cc` crate finds: `CC` and `CXX` choose another.
fn compiler(is_cpp: bool) -> Result<cc::Tool, Failed> {
    // Cargo tells only build scripts.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cc::Build::new();
    build.cpp(is_cpp).no_default_flags(true).host(&triple).target(&triple).opt_level(1);
    Ok(build.cargo_metadata(false).try_get_compiler()?)
}
