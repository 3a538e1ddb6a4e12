//! `cargo xtask bench`: skupperd beside other TCP tunnels.
//!
//! The benchmark driver is not part of the project: it is in `shared/bench` beside the checkout.

use crate::{
    setup::{self, Group},
    sh,
};
use anyhow::{Result, bail};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Words for the driver, such as --quick or --peers naive,skupperd
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    driver: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let driver = sh::root().join("../shared/bench/bench");
    if !driver.is_file() {
        bail!(
            "the benchmark's driver is not at {}: put the project's shared/bench directory there, \
             beside the checkout",
            driver.display()
        );
    }
    setup::ensure(&[Group::Build, Group::Bench])?;
    sh::run(&mut sh::cargo(&[
        "build",
        "--release",
        "--package",
        "skupperd",
        "--bins",
    ]))?;
    sh::run(
        sh::program(&driver)
            .args(&args.driver)
            .env(
                "BENCH_SKUPPERD_START",
                sh::root().join("tests/bench/skupperd-start"),
            )
            .env("SKUPPERD_BIN", sh::target().join("release")),
    )
}
