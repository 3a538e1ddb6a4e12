//! Tasks of the project: `cargo xtask TASK`.

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
mod names;
mod package;
#[path = "../../skupperd/build/programs.rs"]
mod programs;
mod setup;
mod sh;
mod test;
#[path = "../../skupperd/build/toolchain.rs"]
mod toolchain;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the skupperd project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the dependencies of builds and tests, after listing them
    Setup(setup::Args),
    /// Start two linked sites on this machine, and a web server that is reached through them
    Demo(demo::Args),
    /// Set up, lint, and run all tests that this machine can run
    Test(test::Args),
    /// Compare the performance of skupperd with other TCP tunnels
    Bench(bench::Args),
    /// Fuzz the decoders of remote input
    Fuzz(fuzz::Args),
    /// Check format, clippy, layers, names, dependencies and scripts
    Lint,
    /// Build Debian packages
    Deb(package::Args),
    /// Build RPM packages
    Rpm(package::Args),
    /// Generate manual pages and completions, and check the pages
    Man,
    /// Check that modules use only lower layers and the crates they may use
    Layers,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Demo(args) => demo::run(&args),
        // Prints counts instead of an error.
        Task::Test(args) => return test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Lint => lint::run(),
        Task::Deb(args) => package::run(&args, package::Format::Deb),
        Task::Rpm(args) => package::run(&args, package::Format::Rpm),
        Task::Man => package::man(),
        Task::Layers => layers::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
