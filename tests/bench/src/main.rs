//! Measures skupperd beside other TCP tunnels. `cargo xtask bench` builds it and runs it.
//!
//! Each peer is two processes with one TLS hop between them on loopback. The load ([`load`]) and the
//! servers behind the peer ([`target`]) are threads of this process. [`round`] starts the peers one
//! after the other, [`measure`] takes the figures, and [`report`] prints them.

mod certificates;
mod floor;
mod load;
mod measure;
mod options;
mod peer;
mod process;
mod report;
mod round;
mod samples;
mod target;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::{
    io::{self, Write},
    process::ExitCode,
};

#[derive(Parser)]
#[command(name = "skupper-bench", about = "Measures TCP tunnels on loopback")]
struct Cli {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Measure skupperd and its peers
    Compare(round::Args),
    /// One side of the simplest tunnel: a TLS connection for each client
    Floor(floor::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().word {
        Word::Compare(args) => round::run(&args),
        Word::Floor(args) => floor::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            progress(&format!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for the person who waits. Ignores a closed pipe: processes are to be stopped.
fn progress(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Prints a result.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
