//! `cargo xtask fuzz`: fuzzes each decoder of remote input, and a site under a hostile peer, for a while.

use crate::{
    setup::{self, Group},
    sh,
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One target; without it all of them, one after the other
    target: Option<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Maximum size of an input: more than the largest seed, so that seeds can grow.
const MAX_INPUT: usize = 16 * 1024;
/// Units that each crate is compiled in. With one, which is the default of cargo-fuzz, the instrumented
/// daemon takes eight minutes of processor time and five GB of memory, on one processor.
const CODEGEN_UNITS: &str = "16";
/// Seconds after which an input counts as a finding. Normal inputs take less than 0.1 s.
const TIMEOUT: u32 = 20;

pub(crate) fn run(args: &Args) -> Result<()> {
    let home = sh::root().join("fuzz");
    let all = targets(&home.join("fuzz_targets"))?;
    let chosen = match &args.target {
        None => all,
        Some(target) if all.contains(target) => vec![target.clone()],
        Some(target) => bail!("no target {target:?}: there are {}", all.join(", ")),
    };
    setup::ensure(&[Group::Fuzz])?;
    // Use the dependency versions of the workspace, plus those that only fuzzing needs.
    let (from, to) = (sh::root().join("Cargo.lock"), home.join("Cargo.lock"));
    fs::copy(&from, &to).with_context(|| to.display().to_string())?;
    let mut failed = Vec::new();
    for target in &chosen {
        let path = |dir: &str| home.join(dir).join(target);
        fs::create_dir_all(path("corpus")).with_context(|| target.clone())?;
        // cargo-fuzz builds the target. libFuzzer writes new inputs to the first directory.
        let mut command = cargo_fuzz(&["run", "--codegen-units", CODEGEN_UNITS, target]);
        command
            .args([path("corpus"), path("seeds")])
            .arg("--")
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-max_len={MAX_INPUT}"))
            .arg(format!("-timeout={TIMEOUT}"));
        // Run all targets, even after a finding.
        if let Err(e) = sh::run(&mut command) {
            eprintln!("fuzz: {e:#}");
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} failed; the inputs are in fuzz/artifacts",
            failed.join(", ")
        );
    }
    Ok(())
}

fn cargo_fuzz(words: &[&str]) -> Command {
    let mut command = sh::cargo(&["fuzz"]);
    command.args(words);
    // The flags of libFuzzer and the sanitizer need a nightly compiler, or this variable.
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Names of the targets, sorted.
fn targets(dir: &Path) -> Result<Vec<String>> {
    let at = || dir.display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(at)? {
        let path = entry.with_context(at)?.path();
        let stem = path.file_stem().unwrap_or_default();
        names.push(stem.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
