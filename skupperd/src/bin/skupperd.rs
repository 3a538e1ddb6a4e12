//! The daemon's command line: parse, configure, run.

use clap::Parser;
use skupperd::{
    control::Bus,
    daemon::{self, Options},
    observe::Doors,
    steer::netns,
    store::Layout,
    sys::Descriptors,
    telemetry,
};
use std::{net::SocketAddr, os::fd::AsFd, path::PathBuf, process::ExitCode, time::Duration};

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
    /// Bus to serve D-Bus on [default: that of the scope; none with --root]
    #[arg(long, value_enum)]
    bus: Option<BusName>,
    /// Serve metrics on this address too, for example 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "SKUPPER_METRICS")]
    metrics: Option<SocketAddr>,
    /// Serve the console on this address of loopback, for example 127.0.0.1:9465
    #[arg(long, value_name = "ADDRESS", env = "SKUPPER_CONSOLE", value_parser = on_loopback)]
    console: Option<SocketAddr>,
    /// Have the kernel steer connections to listeners: where it can, or never
    #[arg(long, value_enum, default_value_t, env = "SKUPPER_STEERING")]
    steering: Where,
    /// Have the kernel shorten the way between programs of this host and listeners and connectors
    /// that ask for it: where it can, or never
    #[arg(long, value_enum, default_value_t, env = "SKUPPER_ACCELERATION")]
    acceleration: Where,
    /// Make sockets in another network namespace, as asked for on standard input, and end: this is
    /// what skupperd-netns@.service runs
    #[arg(long, hide = true)]
    open_namespace: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    #[default]
    Auto,
    Off,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum BusName {
    System,
    Session,
    None,
}

/// The console is for this host: what it shows is not for the network.
fn on_loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|e| format!("{e}"))?;
    match addr.ip().is_loopback() {
        true => Ok(addr),
        false => Err("not an address of loopback; forward one to it, as ssh -L does".to_owned()),
    }
}

/// Bad configuration (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    let logging = telemetry::init();
    if args.open_namespace {
        return match netns::serve(std::io::stdin().as_fd()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "answering");
                ExitCode::FAILURE
            }
        };
    }
    // First of all, while there is one thread. A daemon without them works.
    let descriptors = Descriptors::receive().unwrap_or_else(|error| {
        tracing::error!(%error, "descriptors of the service manager");
        Descriptors::default()
    });
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
    let bus = match (args.bus, &args.root) {
        (Some(BusName::System), _) => Some(Bus::System),
        (Some(BusName::Session), _) => Some(Bus::Session),
        (Some(BusName::None), _) | (None, Some(_)) => None,
        (None, None) if layout == Layout::system() => Some(Bus::System),
        (None, None) => Some(Bus::Session),
    };
    let workers = args
        .workers
        .map_or_else(daemon::default_workers, usize::from);
    let drain = args.drain.map(Duration::from_secs);
    // What the service manager has loaded for this service: LoadCredential= and its like.
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match daemon::run(Options {
        layout: layout.with_credentials(credentials),
        descriptors,
        workers,
        drain,
        bus,
        watched: Doors {
            metrics: args.metrics,
            console: args.console,
        },
        steering: args.steering == Where::Auto,
        acceleration: args.acceleration == Where::Auto,
        logging,
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
