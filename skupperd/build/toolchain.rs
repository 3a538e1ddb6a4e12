//! Finds the toolchain for BPF programs. Shared by the build script and `cargo xtask setup`, so
//! that both have the same requirements.
//!
//! No precompiled standard library exists for the target, so a compiler needs the sources of its
//! own one. `RUSTC_BOOTSTRAP` lets a stable compiler build them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Environment variable with a rustup toolchain, or a compiler's directory, to use instead of the
/// first suitable one.
pub(crate) const OVERRIDE: &str = "SKUPPER_EBPF_TOOLCHAIN";

/// Minor version of the oldest Rust whose LLVM bpf-linker supports.
pub(crate) const OLDEST_RUST: u32 = 91;

/// A compiler with the sources of its own standard library.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler's directory: it has `bin` and `lib/rustlib`.
    pub(crate) sysroot: PathBuf,
    cargo: PathBuf,
    /// The major version of LLVM in the compiler; a linker must have the same.
    pub(crate) llvm: u32,
}

impl Toolchain {
    /// The first usable compiler: a rustup nightly, the distribution's, any other of rustup.
    pub(crate) fn find() -> Result<Self, String> {
        let named = env::var_os(OVERRIDE).map(PathBuf::from);
        Self::choose(named.as_deref(), rustup_toolchains(), distribution())
    }

    fn choose(
        named: Option<&Path>,
        rustup: Vec<PathBuf>,
        distribution: Vec<PathBuf>,
    ) -> Result<Self, String> {
        if let Some(named) = named {
            let given = rustup.iter().filter(|dir| is_named(dir, named));
            return given
                .map(PathBuf::as_path)
                .chain([named])
                .find_map(Self::at)
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
        [nightly, distribution, other]
            .iter()
            .flatten()
            .find_map(|dir| Self::at(dir))
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
            .find(|p| p.exists())?;
        if !source.exists() {
            return None;
        }
        let output = Command::new(bin.join("rustc")).arg("-vV").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
        let minor: u32 = value("release: 1.")?.split('.').next()?.parse().ok()?;
        let llvm = value("LLVM version: ")?.split('.').next()?.parse().ok()?;
        (minor >= OLDEST_RUST).then(|| Self {
            sysroot: sysroot.to_owned(),
            cargo,
            llvm,
        })
    }

    /// This toolchain's cargo, without the variables that an outer cargo or rustup set.
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

/// Directory of cargo's installed programs.
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

/// Newest first: Ubuntu installs several versions side by side.
fn distribution() -> Vec<PathBuf> {
    let mut versions = list(Path::new("/usr/lib"), "rust-");
    let minor = |dir: &PathBuf| -> Option<u32> { dir.to_str()?.rsplit('.').next()?.parse().ok() };
    versions.sort_by_key(|dir| std::cmp::Reverse(minor(dir)));
    versions.push(PathBuf::from("/usr"));
    versions
}

fn list(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    // A missing directory means that no such toolchain is installed.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// `nightly` matches `nightly`, `nightly-<host>` and dated nightlies.
fn is_named(dir: &Path, name: &Path) -> bool {
    let (Some(dir), Some(name)) = (dir.file_name(), name.to_str()) else {
        return false;
    };
    let dir = dir.to_string_lossy();
    dir.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::fs::OpenOptionsExt};

    /// Creates a compiler's directory, with or without the sources.
    fn compiler(dir: &Path, name: &str, source: bool) -> PathBuf {
        of_version(dir, name, source, "1.96.0-nightly")
    }

    fn of_version(dir: &Path, name: &str, source: bool, version: &str) -> PathBuf {
        let sysroot = dir.join(name);
        let library = sysroot.join("lib/rustlib/src/rust/library/core/src");
        fs::create_dir_all(sysroot.join("bin")).unwrap();
        let says = format!("#!/bin/sh\nprintf 'release: {version}\\nLLVM version: 22.1.8\\n'\n");
        for file in ["bin/rustc", "bin/cargo"] {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .create(true)
                .write(true)
                .mode(0o755)
                .open(sysroot.join(file));
            file.as_mut().unwrap().write_all(says.as_bytes()).unwrap();
        }
        if source {
            fs::create_dir_all(&library).unwrap();
            fs::write(library.join("lib.rs"), "").unwrap();
        }
        sysroot
    }

    #[test]
    fn the_first_with_sources_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name, source| compiler(dir.path(), name, source);
        let (bare, nightly) = (make("nightly-bare", false), make("nightly-host", true));
        let (debian, stable) = (make("usr", true), make("stable-host", true));
        let chosen = |rustup: &[&PathBuf], distribution: &[&PathBuf]| {
            let own = |dirs: &[&PathBuf]| dirs.iter().map(|dir| (*dir).clone()).collect();
            Toolchain::choose(None, own(rustup), own(distribution)).map(|t| t.sysroot)
        };
        assert_eq!(chosen(&[&stable, &bare, &nightly], &[&debian]), Ok(nightly));
        assert_eq!(chosen(&[&stable, &bare], &[&debian]), Ok(debian));
        assert_eq!(chosen(&[&bare, &stable], &[]), Ok(stable));
        assert!(chosen(&[&bare], &[&dir.path().join("none")]).is_err());
        let old = of_version(dir.path(), "old", true, "1.85.1");
        assert!(chosen(&[], &[&old]).is_err());
    }

    #[test]
    fn a_named_one_is_taken_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let nightly = compiler(dir.path(), "nightly-host", true);
        let own = compiler(dir.path(), "own-host", true);
        let chosen = |name: &Path| {
            let rustup = vec![nightly.clone(), own.clone()];
            Toolchain::choose(Some(name), rustup, Vec::new()).map(|t| t.sysroot)
        };
        assert_eq!(chosen(Path::new("own")), Ok(own.clone()));
        assert_eq!(chosen(&own), Ok(own.clone()));
        assert!(chosen(Path::new("ow")).is_err());
    }
}
