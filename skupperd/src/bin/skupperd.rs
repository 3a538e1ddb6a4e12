//! The daemon's command line: parse, configure, run.

use clap::Parser;
use skupperd::{
    daemon::{self, Options},
    store::Layout,
    telemetry,
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Skupper sites on this host.
#[derive(Parser)]
#[command(name = "skupperd", version)]
struct Args {
    /// Use the system's directories: /etc/skupper and /var/lib/skupper
    #[arg(long, conflicts_with_all = ["user", "root"])]
    system: bool,
    /// Use this user's directory: ~/.local/share/skupper
    #[arg(long, conflicts_with = "root")]
    user: bool,
    /// Keep everything below this directory
    #[arg(long, value_name = "DIR", env = "SKUPPER_ROOT")]
    root: Option<PathBuf>,
    /// Worker threads [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Seconds that open connections have to end after SIGTERM
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Serve metrics on this address too, for example 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "SKUPPER_METRICS")]
    metrics: Option<SocketAddr>,
}

/// Bad configuration (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init();
    let layout = match (&args.root, args.system, args.user) {
        (Some(root), ..) => Ok(Layout::root(root)),
        (None, true, _) => Ok(Layout::system()),
        (None, _, true) => Layout::user(),
        (None, false, false) if nix::unistd::geteuid().is_root() => Ok(Layout::system()),
        _ => Layout::user(),
    };
    let layout = match layout {
        Ok(layout) => layout,
        Err(error) => {
            tracing::error!("{error}; name a directory with --root");
            return ExitCode::from(USAGE);
        }
    };
    let workers = args
        .workers
        .map_or_else(daemon::default_workers, usize::from);
    let drain = args.drain.map(Duration::from_secs);
    match daemon::run(Options {
        layout,
        workers,
        drain,
        metrics: args.metrics,
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
