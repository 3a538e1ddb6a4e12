//! `skupper debug`: what to look at when something does not work.

mod check;
mod dump;
mod steer;

use super::{Outcome, output::Format, place::Place};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write an archive of all that is known of a namespace, for a report; no key and no code is in it
    Dump {
        /// Beginning of the archive's name; the namespace and the time follow
        #[arg(default_value = "skupper-dump")]
        file: PathBuf,
    },
    /// Look for what is wrong: at skupperd, its unit, the resources and what they lead to
    Check {
        #[command(flatten)]
        format: Format,
    },
    /// Show the addresses that the kernel steers to listeners, and the sockets they lead to
    Steer {
        #[command(flatten)]
        format: Format,
    },
    /// Remove what daemons that are gone have left in the kernel
    Sweep {
        #[command(flatten)]
        format: Format,
    },
}

pub(super) use steer::{accelerated, words};

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    match verb {
        Verb::Dump { file } => dump::run(place, &file),
        Verb::Check { format } => check::run(place, &format),
        Verb::Steer { format } => steer::run(place, &format),
        Verb::Sweep { format } => steer::sweep(&format),
    }
}
