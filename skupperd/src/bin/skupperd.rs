//! The daemon: parses its command line and runs it.

use clap::Parser;
use skupperd::{
    control::Bus,
    daemon::{self, DaemonOptions},
    observe::ServeAddresses,
    steer::netns,
    store::Layout,
    sys::InheritedDescriptors,
    telemetry,
};
use std::{net::SocketAddr, os::fd::AsFd, path::PathBuf, process::ExitCode, time::Duration};

/// Run the Skupper sites of this host
#[derive(Parser)]
#[command(
    name = "skupperd",
    version,
    after_help = "Examples:\n  # The sites of the host, as the systemd unit runs them\n  skupperd --system\n  \
                  # Sites below a directory, with metrics on a port\n  \
                  skupperd --root /tmp/sites --metrics 127.0.0.1:9464"
)]
struct Args {
    /// Run the sites of the host, below /etc/skupper and /var/lib/skupper [default for root]
    #[arg(long, conflicts_with_all = ["user", "root"])]
    system: bool,
    /// Run your own sites, below ~/.local/share/skupper [default for other users]
    #[arg(long, conflicts_with = "root")]
    user: bool,
    /// Run the sites below this directory
    #[arg(long, value_name = "DIR", env = "SKUPPER_ROOT")]
    root: Option<PathBuf>,
    /// Number of worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Time in seconds for open connections to end after SIGTERM
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Bus to serve D-Bus on [default: the bus of the scope; none with --root]
    #[arg(long, value_enum)]
    bus: Option<BusName>,
    /// Also serve metrics on this address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "SKUPPER_METRICS")]
    metrics: Option<SocketAddr>,
    /// Serve the console on this loopback address, such as 127.0.0.1:9465
    #[arg(long, value_name = "ADDRESS", env = "SKUPPER_CONSOLE", value_parser = parse_loopback)]
    console: Option<SocketAddr>,
    /// Let the kernel steer connections to listeners where it can (auto), or never (off)
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = true,
        default_value_t,
        env = "SKUPPER_STEERING"
    )]
    steering: KernelSupport,
    /// Let the kernel shorten local paths of listeners and connectors that ask for it where it can
    /// (auto), or never (off)
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = true,
        default_value_t,
        env = "SKUPPER_ACCELERATION"
    )]
    acceleration: KernelSupport,
    /// Open sockets in another network namespace as standard input asks for, and end. Run by
    /// skupperd-netns@.service
    #[arg(long, hide = true)]
    open_namespace: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum KernelSupport {
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

/// Parses the address of the console, which must not be reachable from the network.
fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|e| format!("{e}"))?;
    match addr.ip().is_loopback() {
        true => Ok(addr),
        false => Err(
            "not a loopback address; to reach it from elsewhere, forward a port with ssh -L"
                .to_owned(),
        ),
    }
}

/// Invalid usage (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    let logging = telemetry::init();
    if args.open_namespace {
        return match netns::serve(std::io::stdin().as_fd()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "cannot serve the request for sockets");
                ExitCode::FAILURE
            }
        };
    }
    // Before other threads start. The daemon also works without passed descriptors.
    let descriptors = InheritedDescriptors::receive().unwrap_or_else(|error| {
        tracing::error!(%error, "cannot take the descriptors that systemd passed");
        InheritedDescriptors::default()
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
            tracing::error!(%error, "no directory to serve; name one with --root");
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
    // Set by systemd for LoadCredential= and similar settings.
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match daemon::run(DaemonOptions {
        layout: layout.with_credentials(credentials),
        descriptors,
        workers,
        drain,
        bus,
        observe: ServeAddresses {
            metrics: args.metrics,
            console: args.console,
        },
        steering: args.steering == KernelSupport::Auto,
        acceleration: args.acceleration == KernelSupport::Auto,
        logging,
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "skupperd failed");
            ExitCode::FAILURE
        }
    }
}
