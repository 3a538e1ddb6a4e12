//! Programs installed with cargo, and components of the Rust toolchain.

use super::Step;
use crate::sh;
use anyhow::Result;
use std::path::PathBuf;

/// A program that cargo installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Package and version for `cargo install`.
    pub(super) package: String,
    /// Further arguments of `cargo install`.
    pub(super) args: Vec<String>,
    /// Environment of the build.
    pub(super) env: Vec<(String, String)>,
}

impl Program {
    pub(super) fn words(&self) -> String {
        format!("with cargo, which takes minutes: {}", self.package)
    }

    pub(super) fn install(&self) -> Result<()> {
        let mut command = sh::cargo(&["install", &self.package]);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        // The variable is for this workspace's build.
        command.env_remove("CARGO_TARGET_DIR");
        sh::run(&mut command)
    }
}

/// Programs with their package and further arguments of `cargo install`.
type Programs = &'static [(&'static str, &'static str, &'static [&'static str])];

pub(super) const TEST: Programs = &[
    ("cargo-nextest", "cargo-nextest@^0.9", &["--locked"]),
    ("cargo-deny", "cargo-deny@^0.20", &["--locked"]),
];

pub(super) const PACKAGE: Programs = &[
    ("cargo-deb", "cargo-deb@^3.8", &["--locked"]),
    (
        "cargo-generate-rpm",
        "cargo-generate-rpm@^0.21",
        &["--locked"],
    ),
];

pub(super) const FUZZ: Programs = &[("cargo-fuzz", "cargo-fuzz@^0.13", &["--locked"])];

pub(super) fn missing(programs: Programs) -> impl Iterator<Item = Step> {
    programs
        .iter()
        .filter(|(name, ..)| !sh::has(name))
        .map(|(_, package, args)| {
            Step::Cargo(Program {
                package: (*package).to_owned(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: Vec::new(),
            })
        })
}

/// Where rathole is; only the benchmark needs it.
pub(crate) fn rathole() -> PathBuf {
    sh::target().join("bench/rathole/bin/rathole")
}

pub(super) fn rathole_step() -> Option<Step> {
    let root = sh::target().join("bench/rathole");
    let step = Step::Cargo(Program {
        package: "rathole@^0.5".to_owned(),
        // Without `--locked`: its lock file does not build with current Rust.
        args: vec!["--root".to_owned(), root.display().to_string()],
        env: Vec::new(),
    });
    (!rathole().is_file()).then_some(step)
}

/// rustfmt and clippy, from rustup if it is in use, otherwise from the distribution.
pub(super) fn components() -> Option<Step> {
    let missing: Vec<_> = [
        ("fmt", "rustfmt", "rustfmt"),
        ("clippy", "clippy", "rust-clippy"),
    ]
    .into_iter()
    .filter(|(word, ..)| sh::output("cargo", &[word, "--version"]).is_none())
    .collect();
    if missing.is_empty() {
        return None;
    }
    let with_rustup = sh::output("rustup", &["show", "active-toolchain"]).is_some();
    Some(if with_rustup {
        Step::Rustup(missing.iter().map(|(_, component, _)| *component).collect())
    } else {
        Step::Packages(
            missing
                .iter()
                .map(|(.., package)| (*package).to_owned())
                .collect(),
        )
    })
}

pub(super) fn add_components(components: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new("rustup");
    sh::run(command.args(["component", "add"]).args(components))
}
