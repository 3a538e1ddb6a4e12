//! The habits of the project, one word each: `cargo xtask WORD`.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "for people at a terminal"
)]

mod bench;
mod demo;
mod fuzz;
mod layers;
mod lint;
mod package;
mod setup;
mod sh;
mod test;
#[expect(dead_code, reason = "the build script of skupperd uses the rest")]
#[path = "../../skupperd/build/toolchain.rs"]
mod toolchain;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The habits of the project, one word each"
)]
struct Cli {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Install what building and testing need, after saying what
    Setup(setup::Args),
    /// Two linked sites on this machine, and a web server reached from one through the other
    Demo(demo::Args),
    /// Everything this machine can run: set-up, lint, tests of all levels
    Test(test::Args),
    /// Measure skupperd beside other TCP tunnels
    Bench(bench::Args),
    /// Feed the decoders of what others send, to find what breaks them
    Fuzz(fuzz::Args),
    /// Format, clippy, layers, dependencies, scripts
    Lint,
    /// Make Debian packages
    Deb(package::Args),
    /// Make RPM packages
    Rpm(package::Args),
    /// Make the manual pages and the completions, and check the pages
    Man,
    /// Check that modules use only lower layers, and crates stay where they belong
    Layers,
}

fn main() -> ExitCode {
    let done = match Cli::parse().word {
        Word::Setup(args) => setup::run(&args),
        Word::Demo(args) => demo::run(&args),
        // Ends with its counts, not with an error.
        Word::Test(args) => return test::run(&args),
        Word::Bench(args) => bench::run(&args),
        Word::Fuzz(args) => fuzz::run(&args),
        Word::Lint => lint::run(),
        Word::Deb(args) => package::run(&args, package::Format::Deb),
        Word::Rpm(args) => package::run(&args, package::Format::Rpm),
        Word::Man => package::man(),
        Word::Layers => layers::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
