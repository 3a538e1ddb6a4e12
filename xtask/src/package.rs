//! `cargo xtask deb`, `rpm` and `man`: builds packages and their generated files.
//!
//! `stage` creates the tree as it will be installed, `list` assigns files to packages, and
//! `manifest` generates the manifest for cargo-deb or cargo-generate-rpm from both. Builds are
//! reproducible.

mod licences;
mod list;
mod manifest;
mod stage;

use crate::{
    setup::{self, Group},
    sh,
};
use anyhow::{Context, Result, ensure};
use list::PACKAGES;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Profile that the programs are built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Package programs that were built before
    #[arg(long)]
    no_build: bool,
    /// Directory for the packages [default: package/<PROFILE> where cargo builds]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// A package format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Deb,
    Rpm,
}

/// Builds the packages; the tools print their paths.
pub(crate) fn run(args: &Args, format: Format) -> Result<()> {
    let group = [Group::Package, Group::Build];
    setup::ensure(if args.no_build { &group[..1] } else { &group })?;
    if !args.no_build {
        let words = ["build", "--package=skupperd", "--bins", "--locked"];
        sh::run(sh::cargo(&words).args(["--profile", &args.profile]))?;
    }
    let built = absolute(&sh::target().join(sh::profile_dir(&args.profile)))?;
    let work = absolute(&sh::target().join("package"))?.join(&args.profile);
    let epoch = epoch()?;
    let staged = stage::stage(&built, &work.join(format.name()), format, epoch)?;
    let output = args.output.as_ref().unwrap_or(&work);
    fs::create_dir_all(output).with_context(|| output.display().to_string())?;
    for package in &PACKAGES {
        let dir = work.join(format.name()).join(package.name);
        let file = absolute(output)?.join(manifest::file_name(package, format)?);
        manifest::write(package, &staged, format, &dir)?;
        let mut tool = match format {
            Format::Deb => {
                let mut tool = sh::cargo(&["deb", "--no-build", "--no-strip", "--quiet"]);
                tool.arg("--manifest-path").arg(dir.join("Cargo.toml"));
                if args.profile == "dev" {
                    // For tests: compress fast.
                    tool.arg("--fast");
                }
                tool
            }
            Format::Rpm => {
                let mut tool = sh::cargo(&["generate-rpm"]);
                tool.current_dir(&dir);
                tool.arg("--source-date").arg(epoch.to_string());
                tool
            }
        };
        tool.arg("--output").arg(&file);
        // The tools look into cargo's target directory for their own programs.
        tool.env("CARGO_TARGET_DIR", dir.join("target"));
        sh::run(tool.env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    }
    Ok(())
}

/// Generates the manual pages and completions, checks the pages, and prints their path.
pub(crate) fn man() -> Result<()> {
    setup::ensure(&[Group::Build, Group::Test])?;
    let dir = absolute(&sh::target().join("package/reference"))?;
    stage::reference(&dir, epoch()?)?;
    lint_pages(&dir, "warning")?;
    sh::say(&dir.display().to_string());
    lint()
}

/// Checks the manual pages that are written by hand.
pub(crate) fn lint() -> Result<()> {
    lint_pages(&sh::root().join(stage::PAGES), "warning")
}

/// `least`: the lowest severity that counts as a failure.
fn lint_pages(dir: &Path, least: &str) -> Result<()> {
    let pages: Vec<_> = stage::files(dir)?
        .into_iter()
        .filter(|page| stage::section(page).is_some())
        .map(|page| dir.join(page))
        .collect();
    ensure!(!pages.is_empty(), "no pages in {}", dir.display());
    let stop = format!("{least},stop");
    sh::run(
        sh::program("mandoc")
            .args(["-T", "lint", "-W", &stop])
            .args(pages),
    )
}

/// The timestamp of all files in a package: that of the sources.
fn epoch() -> Result<u64> {
    let text = env::var("SOURCE_DATE_EPOCH").ok().or_else(|| {
        let root = sh::root().to_string_lossy();
        sh::output("git", &["-C", &root, "log", "-1", "--format=%ct"])
    });
    let text = text.context("no git history to take the time from: set SOURCE_DATE_EPOCH")?;
    let text = text.trim();
    text.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds: {text:?}"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }
}
