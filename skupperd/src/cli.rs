//! The `skupper` command: words that Skupper users know. It asks the running daemon over D-Bus; where
//! none is, it works on files, which the daemon reads when it runs ([`place`]).

mod access;
mod archive;
mod ask;
mod attached;
mod bundle;
mod certificate;
mod connector;
mod console;
mod debug;
mod edit;
mod flags;
mod issuer;
mod link;
mod listener;
mod multikey;
mod names;
mod output;
mod overview;
mod place;
mod service;
mod show;
mod site;
mod status;
mod system;
mod token;
mod traffic;
mod unit;
mod view;
mod wait;

pub use names::complete;

use crate::{
    control::Bus,
    model::{DEFAULT_NAMESPACE, Namespace},
    operate::OperateError,
    store::Layout,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use place::{Place, Scope};
use std::{path::PathBuf, process::ExitCode};

/// What a command can fail with; each has its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The words do not make sense: 2, one line for each thing that is wrong.
    Invalid(Vec<String>),
    /// It could not be done: 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::Failed(e)
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(e: crate::store::StoreError) -> Self {
        Self::Failed(e.into())
    }
}

impl From<OperateError> for Failure {
    fn from(e: OperateError) -> Self {
        match e {
            OperateError::Invalid(lines) => Self::Invalid(lines),
            OperateError::Failed(text) => Self::Failed(anyhow::anyhow!(text)),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Failed(e.into())
    }
}

pub(crate) type Outcome = Result<(), Failure>;

fn invalid(text: impl Into<String>) -> Failure {
    Failure::Invalid(vec![text.into()])
}

/// Connect applications on different hosts over Skupper networks.
#[derive(Debug, Parser)]
#[command(name = "skupper", version, disable_help_subcommand = true)]
pub struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Args)]
struct Global {
    /// Namespace of the site
    #[arg(short, long, global = true, default_value = DEFAULT_NAMESPACE, add = names::namespaces())]
    namespace: String,
    /// Platform; this program serves linux
    #[arg(
        short,
        long,
        global = true,
        env = "SKUPPER_PLATFORM",
        default_value = "linux"
    )]
    platform: String,
    /// The system's sites [default for root]
    #[arg(long, global = true, conflicts_with_all = ["user", "root"])]
    system: bool,
    /// This user's sites [default for others]
    #[arg(long, global = true, conflicts_with = "root")]
    user: bool,
    /// Keep everything below this directory
    #[arg(long, global = true, value_name = "DIR", env = "SKUPPER_ROOT")]
    root: Option<PathBuf>,
    /// Bus that skupperd is on; none works on files [default: that of the scope; none with --root]
    #[arg(long, global = true, value_enum, env = "SKUPPER_BUS")]
    bus: Option<BusName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BusName {
    System,
    Session,
    None,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Sites: places on the network where workloads run
    #[command(subcommand)]
    Site(site::Verb),
    /// Listeners: local endpoints that clients connect to
    #[command(subcommand)]
    Listener(listener::Verb),
    /// Listeners with several routing keys: failover and shares
    #[command(name = "multikeylistener", alias = "multi-key-listener", subcommand)]
    MultiKeyListener(multikey::Verb),
    /// Connectors: local servers for a routing key
    #[command(subcommand)]
    Connector(connector::Verb),
    /// Attached connectors: servers of this namespace for the site of another
    #[command(alias = "attachedconnector", subcommand)]
    AttachedConnector(edit::Verb<attached::AttachedConnectors>),
    /// Bindings, by which this namespace's site takes the servers of another
    #[command(alias = "attachedconnectorbinding", subcommand)]
    AttachedConnectorBinding(edit::Verb<attached::Bindings>),
    /// Links to other sites
    #[command(subcommand)]
    Link(link::Verb),
    /// Router accesses: where links come in, in full
    #[command(alias = "routeraccess", subcommand)]
    RouterAccess(edit::Verb<access::RouterAccesses>),
    /// Access grants: what tokens are issued from
    #[command(alias = "accessgrant", subcommand)]
    AccessGrant(edit::Verb<access::AccessGrants>),
    /// Tokens: link sites without copying keys
    #[command(subcommand)]
    Token(token::Verb),
    /// Issuers: the CAs that sign the credentials of links
    #[command(subcommand)]
    Issuer(issuer::Verb),
    /// Certificates: credentials that this site's issuers sign
    #[command(subcommand)]
    Certificate(edit::Verb<certificate::Certificates>),
    /// This host: resources from files, skupperd and its unit
    #[command(subcommand)]
    System(system::Verb),
    /// Show the site of the namespace with its links, listeners and connectors on one screen
    Status {
        #[command(flatten)]
        view: view::View,
    },
    /// The network: all sites as seen from here
    #[command(subcommand)]
    Network(overview::NetworkVerb),
    /// Show who talks with whom: the newest connections of the namespace, with clients and servers
    Connections(traffic::Connections),
    /// Show what services carry at the moment: on a terminal until interrupted, else once
    Top {
        #[command(flatten)]
        format: output::Format,
    },
    /// Show the network in a browser of this host: prints an address, until interrupted
    Console(console::Console),
    /// Find out why something does not work
    #[command(subcommand)]
    Debug(debug::Verb),
    /// Print what is installed, and what of it runs
    Manifest {
        #[command(flatten)]
        output: output::Format,
    },
    /// Print the version
    Version {
        #[command(flatten)]
        output: output::Format,
    },
}

/// Runs a command and says how it went.
pub fn run(command: Command) -> ExitCode {
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Invalid(lines)) => {
            for line in lines {
                output::error(&line);
            }
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            // A reader that has seen enough is no failure.
            let pipe = error.downcast_ref::<std::io::Error>();
            if pipe.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    if let Noun::Version { output } = &command.noun {
        return output::version(output);
    }
    let place = place(&command.global)?;
    match command.noun {
        Noun::Site(verb) => site::run(&place, verb),
        Noun::Listener(verb) => edit::run(&place, verb),
        Noun::MultiKeyListener(verb) => edit::run(&place, verb),
        Noun::Connector(verb) => edit::run(&place, verb),
        Noun::AttachedConnector(verb) => edit::run(&place, verb),
        Noun::AttachedConnectorBinding(verb) => edit::run(&place, verb),
        Noun::RouterAccess(verb) => edit::run(&place, verb),
        Noun::AccessGrant(verb) => edit::run(&place, verb),
        Noun::Certificate(verb) => edit::run(&place, verb),
        Noun::Link(verb) => link::run(&place, verb),
        Noun::Token(verb) => token::run(&place, verb),
        Noun::Issuer(verb) => issuer::run(&place, verb),
        Noun::System(verb) => system::run(&place, verb),
        Noun::Status { view } => overview::status(&place, &view),
        Noun::Network(verb) => overview::network(&place, verb),
        Noun::Connections(args) => traffic::connections(&place, &args),
        Noun::Top { format } => traffic::top(&place, &format),
        Noun::Console(args) => console::run(&place, &args),
        Noun::Debug(verb) => debug::run(&place, verb),
        Noun::Manifest { output } => output::manifest(&place, &output),
        Noun::Version { .. } => Ok(()),
    }
}

fn place(global: &Global) -> Result<Place, Failure> {
    if global.platform != "linux" {
        let text = format!("platform {:?} not supported", global.platform);
        return Err(Failure::Failed(anyhow::anyhow!(text)));
    }
    let (layout, scope) = match (&global.root, global.system, global.user) {
        (Some(root), ..) => (Ok(Layout::root(root)), Scope::Root),
        (None, true, _) => (Ok(Layout::system()), Scope::System),
        (None, false, false) if nix::unistd::geteuid().is_root() => {
            (Ok(Layout::system()), Scope::System)
        }
        _ => (Layout::user(), Scope::User),
    };
    let layout = layout.map_err(|e| invalid(format!("{e}; name a directory with --root")))?;
    let namespace = Namespace::new(&*global.namespace)
        .map_err(|e| invalid(format!("namespace is not valid: {e}")))?;
    let bus = match (global.bus, scope) {
        (Some(BusName::System), _) | (None, Scope::System) => Some(Bus::System),
        (Some(BusName::Session), _) | (None, Scope::User) => Some(Bus::Session),
        (Some(BusName::None), _) | (None, Scope::Root) => None,
    };
    Ok(Place::new(layout, scope, bus, &namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Command::command().debug_assert();
    }
}
