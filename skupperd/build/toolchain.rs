//! Finds what builds the BPF programs. Shared by the build script and `cargo xtask setup`, so that
//! what one calls complete the other can use.
//!
//! The target has no ready-made standard library: a compiler is usable when the sources of its
//! own one lie beside it. `RUSTC_BOOTSTRAP` lets a stable compiler build them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names a rustup toolchain (or a compiler's directory) to use instead of the first that fits.
pub(crate) const OVERRIDE: &str = "SKUPPER_EBPF_TOOLCHAIN";

/// A compiler with the sources of its own standard library.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler's directory: it has `bin` and `lib/rustlib`.
    pub(crate) sysroot: PathBuf,
    cargo: PathBuf,
}

impl Toolchain {
    /// The first usable compiler: a rustup nightly, the distribution's, any other of rustup.
    pub(crate) fn find() -> Result<Self, String> {
        let rustup = rustup_toolchains();
        if let Some(name) = env::var_os(OVERRIDE) {
            let named = PathBuf::from(&name);
            let given = rustup.iter().filter(|dir| is_named(dir, &named));
            return given
                .chain([&named])
                .find_map(|dir| Self::at(dir))
                .ok_or_else(|| {
                    format!(
                        "{OVERRIDE}={} is no compiler with its rust-src",
                        named.display()
                    )
                });
        }
        let (nightly, other): (Vec<_>, Vec<_>) = rustup
            .into_iter()
            .partition(|dir| is_named(dir, Path::new("nightly")));
        nightly
            .into_iter()
            .chain(distribution())
            .chain(other)
            .find_map(|dir| Self::at(&dir))
            .ok_or_else(|| "no Rust compiler here has its rust-src".to_owned())
    }

    fn at(sysroot: &Path) -> Option<Self> {
        let source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        let bin = sysroot.join("bin");
        // Ubuntu has /usr/lib/rust-1.N, and a cargo of that version may be in /usr/bin only.
        let version = sysroot
            .file_name()
            .and_then(|n| n.to_str()?.strip_prefix("rust-"));
        let elsewhere = version.map(|v| PathBuf::from(format!("/usr/bin/cargo-{v}")));
        let cargo = [Some(bin.join("cargo")), elsewhere]
            .into_iter()
            .flatten()
            .find(|p| p.exists());
        (source.exists() && bin.join("rustc").exists()).then(|| {
            Some(Self {
                sysroot: sysroot.to_owned(),
                cargo: cargo?,
            })
        })?
    }

    /// This toolchain's cargo, free of what an outer cargo or rustup said about theirs.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .env("RUSTC", self.sysroot.join("bin/rustc"))
            .env("RUSTC_BOOTSTRAP", "1");
        for name in [
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// The major version of LLVM in the compiler; a linker must have the same.
    pub(crate) fn llvm(&self) -> Option<u32> {
        let output = Command::new(self.sysroot.join("bin/rustc"))
            .arg("-vV")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.parse().ok()
    }
}

/// The linker of BPF programs, in the search path or where cargo installs.
pub(crate) fn linker() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
        .ok_or_else(|| "bpf-linker is missing".to_owned())
}

/// Where cargo keeps what it installs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn home(variable: &str, folder: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).map(PathBuf::from);
    given.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(folder)))
}

fn rustup_toolchains() -> Vec<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
        .map(|dir| list(&dir.join("toolchains"), ""))
        .unwrap_or_default()
}

/// Newest first: Ubuntu has several versions side by side.
fn distribution() -> Vec<PathBuf> {
    let mut versions = list(Path::new("/usr/lib"), "rust-");
    let minor = |dir: &PathBuf| -> Option<u32> { dir.to_str()?.rsplit('.').next()?.parse().ok() };
    versions.sort_by_key(|dir| std::cmp::Reverse(minor(dir)));
    versions.push(PathBuf::from("/usr"));
    versions
}

fn list(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    // No such directory: nothing of that kind is installed.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// `nightly` names `nightly` and `nightly-<host>`, as for rustup; dated ones come with them.
fn is_named(dir: &Path, name: &Path) -> bool {
    let (Some(dir), Some(name)) = (dir.file_name(), name.to_str()) else {
        return false;
    };
    let dir = dir.to_string_lossy();
    dir.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
