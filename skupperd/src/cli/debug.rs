//! `skupper debug`

mod check;
mod dump;
mod steer;

use super::{CommandResult, examples::examples, output::OutputArgs, target::CommandTarget};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write an archive for a bug report: resources, statuses, log and counters, without keys and codes
    #[command(after_help = examples(&[
        "skupper debug dump",
        "skupper debug dump /tmp/report --namespace west",
    ]))]
    Dump {
        /// Start of the file name; namespace, time and .tar.gz follow
        #[arg(default_value = "skupper-dump")]
        file: PathBuf,
    },
    /// Check skupperd, its unit, the resources, and whether their servers and endpoints accept
    #[command(after_help = examples(&["skupper debug check", "skupper debug check -o json"]))]
    Check {
        #[command(flatten)]
        format: OutputArgs,
    },
    /// Show the addresses that the kernel steers to listeners, and the sockets behind them
    #[command(after_help = examples(&["skupper debug steer", "skupper debug steer -o json"]))]
    Steer {
        #[command(flatten)]
        format: OutputArgs,
    },
    /// Remove eBPF objects that daemons which no longer run left in the kernel
    #[command(after_help = examples(&["skupper debug sweep"]))]
    Sweep {
        #[command(flatten)]
        format: OutputArgs,
    },
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Dump { file } => dump::run(target, &file),
        Verb::Check { format } => check::run(target, &format),
        Verb::Steer { format } => steer::run(target, &format),
        Verb::Sweep { format } => steer::sweep(&format),
    }
}
