//! `cargo xtask lint`: all static checks.

use crate::{
    layers, names, package,
    setup::{self, Group},
    sh,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Directories to skip; the last two belong to the fuzzer.
const NOT_OURS: [&str; 4] = ["target", ".git", "corpus", "artifacts"];

type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 7] = [
    ("format", format),
    ("layers", layers::run),
    ("names", names::lint),
    ("clippy", clippy),
    ("dependencies", dependencies),
    ("scripts", scripts),
    ("manual pages", package::lint),
];

pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Group::Build, Group::Test])?;
    // Run all checks, even after a finding.
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(e) = check() {
            eprintln!("lint: {name}: {e:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))?;
    // A separate workspace, which `--all` does not include.
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    sh::run(&mut sh::cargo(&fuzz))
}

fn clippy() -> Result<()> {
    let words = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    sh::run(&mut sh::cargo(&words))?;
    // The build without an eBPF toolchain.
    let plain = ["--no-default-features", "--features", "daemon,cli"];
    let mut command = sh::cargo(&["clippy", "--package", "skupperd", "--locked"]);
    sh::run(command.args(plain).args(["--", "-D", "warnings"]))
}

fn dependencies() -> Result<()> {
    sh::run(&mut sh::cargo(&["fetch", "--locked", "--quiet"]))?;
    sh::run(&mut sh::cargo(&[
        "deny",
        "--offline",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

fn scripts() -> Result<()> {
    let mut found = Vec::new();
    find_scripts(sh::root(), &mut found)?;
    if found.is_empty() {
        return Ok(());
    }
    found.sort();
    sh::run(sh::program("shellcheck").args(&found))
}

/// Finds files with the shebang of a shell.
fn find_scripts(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let at = || dir.display().to_string();
    for entry in fs::read_dir(dir).with_context(at)? {
        let entry = entry.with_context(at)?;
        let kind = entry.file_type().with_context(at)?;
        if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            find_scripts(&entry.path(), found)?;
        } else if kind.is_file() && is_script(&entry.path())? {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn is_script(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(64)
        .read_to_end(&mut start)
        .with_context(|| path.display().to_string())?;
    let first = start.split(|b| *b == b'\n').next().unwrap_or_default();
    let shells = ["/sh", "/bash", " sh", " bash"].map(str::as_bytes);
    Ok(first.starts_with(b"#!") && shells.iter().any(|shell| first.ends_with(shell)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_their_first_line() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let inner = dir.path().join("inner");
        fs::create_dir_all(inner.join("target"))?;
        for (name, text) in [
            ("run", "#!/bin/bash\ntrue\n"),
            ("inner/env", "#!/usr/bin/env sh\n"),
            ("inner/target/built", "#!/bin/sh\n"),
            ("python", "#!/usr/bin/python3\n"),
            ("text.sh.md", "run /bin/bash\n"),
            ("empty", ""),
        ] {
            fs::write(dir.path().join(name), text)?;
        }
        let mut found = Vec::new();
        find_scripts(dir.path(), &mut found)?;
        found.sort();
        assert_eq!(found, [inner.join("env"), dir.path().join("run")]);
        Ok(())
    }
}
