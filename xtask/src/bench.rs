//! `cargo xtask bench`: skupperd beside other TCP tunnels, and beside an older commit of itself.
//! Builds what is measured, then runs `tests/bench`.

#[path = "../../tests/bench/src/options.rs"]
mod options;
mod revision;

use crate::{
    setup::{self, Group},
    sh,
};
use anyhow::Result;
use options::{Options, PeerKind};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Build this commit and compare with it
    #[arg(long, value_name = "REV")]
    against: Option<String>,
    /// Profile that programs are built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Measure programs that were built before
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let peers = args.options.chosen_peers(args.against.is_some());
    let mut groups = vec![Group::Build];
    groups.extend(peers.iter().filter_map(|peer| match peer {
        PeerKind::Direct | PeerKind::Floor => None,
        PeerKind::Haproxy => Some(Group::Haproxy),
        PeerKind::Rathole => Some(Group::Rathole),
    }));
    setup::ensure(&groups)?;
    if !args.no_build {
        // One after the other, as packages are built: together they would share features of
        // dependencies.
        for package in ["skupperd", "skupper-bench"] {
            let words = ["build", "--bins", "--locked", "--package", package];
            sh::run(sh::cargo(&words).args(["--profile", &args.profile]))?;
        }
    }
    let built = sh::target().join(sh::profile_dir(&args.profile));
    let mut programs = vec![("skupperd".to_owned(), built.clone())];
    if let Some(revision) = &args.against {
        programs.push(revision::build(revision, &args.profile)?);
    }
    let mut driver = sh::program(built.join("skupper-bench"));
    driver.arg("compare").args(args.options.words());
    driver.arg("--dir").arg(dir().join("run"));
    driver.arg("--rathole").arg(setup::rathole());
    for (label, programs) in programs {
        let programs = format!("{label}={}", programs.display());
        driver.args(["--programs", &programs]);
    }
    sh::run(&mut driver)
}

/// Where the benchmark keeps what it builds beside the workspace.
fn dir() -> PathBuf {
    sh::target().join("bench")
}
