//! The `skupper` command: one file for each noun, parsed by clap.
//!
//! A verb talks to a [`CommandTarget`]: the running daemon over D-Bus, or the files of a namespace
//! where no daemon is on the bus. Verbs do not know which. Kinds that have the verbs create, update,
//! delete, status and generate implement [`resource::CliKind`] and share their code.
//!
//! Exit codes: 0 done, 1 failed, 2 invalid usage, 3 statuses were shown and skupperd does not run.
//! Results go to standard output, errors to standard error.

mod access_grant;
mod archive;
mod attached_connector;
mod attached_connector_binding;
mod bundle;
mod certificate;
mod completion;
mod connector;
mod console;
mod daemon_http;
mod debug;
mod examples;
mod flags;
mod hints;
mod input_errors;
mod issuer;
mod kernel_state;
mod link;
mod listener;
mod multi_key_listener;
mod output;
mod overview;
mod resource;
mod router_access;
mod service;
mod show;
mod site;
mod system;
mod system_status;
mod target;
mod token;
mod traffic;
mod unit;
mod version;
mod view;
mod wait;

pub use completion::complete;
pub use hints::print_error;

use crate::{
    control::Bus,
    model::{DEFAULT_NAMESPACE, Namespace},
    operate::OperateError,
    store::Layout,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use examples::examples;
use std::{path::PathBuf, process::ExitCode};
use target::{CommandTarget, Scope};

#[derive(Debug)]
pub(crate) enum Failure {
    /// Invalid usage, one line for each error: exit code 2.
    Invalid(Vec<String>),
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Statuses were shown, and the daemon that they are of does not run: exit code 3, as of
    /// `systemctl status`.
    NotRunning,
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

pub(crate) type CommandResult = Result<(), Failure>;

fn invalid(text: impl Into<String>) -> Failure {
    Failure::Invalid(vec![text.into()])
}

/// Connect applications on different hosts over Skupper networks
#[derive(Debug, Parser)]
#[command(
    name = "skupper",
    version,
    after_help = examples(&[
        "# At the public site: accept links, and write a token for the other site",
        "skupper site create east --enable-link-access",
        "skupper token issue token.yaml",
        "# At the other site: link to it, and offer a local server",
        "skupper site create west",
        "skupper token redeem token.yaml",
        "skupper connector create backend 8080",
        "# Back at the public site: reach that server on port 8080 of this host",
        "skupper listener create backend 8080 --host 127.0.0.1",
    ]),
)]
pub struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

/// Heading of the options that every command has.
const GLOBAL_OPTIONS: &str = "Global options";

#[derive(Debug, Args)]
struct Global {
    /// Namespace of the site
    #[arg(
        short,
        long,
        global = true,
        default_value = DEFAULT_NAMESPACE,
        add = completion::namespaces(),
        help_heading = GLOBAL_OPTIONS
    )]
    namespace: String,
    /// Platform of the site; only linux is supported
    #[arg(
        short,
        long,
        global = true,
        env = "SKUPPER_PLATFORM",
        default_value = "linux",
        help_heading = GLOBAL_OPTIONS
    )]
    platform: String,
    /// Use the sites of the host, below /etc/skupper and /var/lib/skupper [default for root]
    #[arg(long, global = true, conflicts_with_all = ["user", "root"], help_heading = GLOBAL_OPTIONS)]
    system: bool,
    /// Use your own sites, below ~/.local/share/skupper [default for other users]
    #[arg(long, global = true, conflicts_with = "root", help_heading = GLOBAL_OPTIONS)]
    user: bool,
    /// Use the sites below this directory
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SKUPPER_ROOT",
        help_heading = GLOBAL_OPTIONS
    )]
    root: Option<PathBuf>,
    /// Bus to reach skupperd on; none reads and writes files [default: the bus of the scope; none with
    /// --root]
    #[arg(
        long,
        global = true,
        value_enum,
        env = "SKUPPER_BUS",
        help_heading = GLOBAL_OPTIONS
    )]
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
    /// Manage sites: this host as a member of a Skupper network
    #[command(subcommand)]
    Site(site::Verb),
    /// Manage listeners: local addresses where clients reach remote services
    #[command(subcommand)]
    Listener(listener::Verb),
    /// Manage listeners with several routing keys, for failover or weighted shares
    #[command(name = "multikeylistener", alias = "multi-key-listener", subcommand)]
    MultiKeyListener(multi_key_listener::Verb),
    /// Manage connectors: local servers offered under a routing key
    #[command(subcommand)]
    Connector(connector::Verb),
    /// Manage attached connectors: local servers offered to the site of another namespace
    #[command(alias = "attachedconnector", subcommand)]
    AttachedConnector(resource::Verb<attached_connector::AttachedConnectors>),
    /// Manage bindings, by which a site accepts the attached connectors of other namespaces
    #[command(alias = "attachedconnectorbinding", subcommand)]
    AttachedConnectorBinding(resource::Verb<attached_connector_binding::Bindings>),
    /// Manage links to other sites
    #[command(subcommand)]
    Link(link::Verb),
    /// Manage router accesses: the ports that accept links from other sites
    #[command(alias = "routeraccess", subcommand)]
    RouterAccess(resource::Verb<router_access::RouterAccesses>),
    /// Manage access grants, which tokens are issued from
    #[command(alias = "accessgrant", subcommand)]
    AccessGrant(resource::Verb<access_grant::AccessGrants>),
    /// Issue and redeem tokens, which link two sites without copying keys
    #[command(subcommand)]
    Token(token::Verb),
    /// Show and rotate the CAs that sign the credentials of links
    #[command(subcommand)]
    Issuer(issuer::Verb),
    /// Manage certificates that the CAs of this site sign
    #[command(subcommand)]
    Certificate(resource::Verb<certificate::Certificates>),
    /// Run skupperd, apply resource files, and move sites between hosts
    #[command(subcommand)]
    System(system::Verb),
    /// Show the site of the namespace with its links, listeners and connectors
    #[command(after_help = examples(&[
        "skupper status",
        "# The namespace west, again whenever it changes",
        "skupper status --namespace west --watch",
    ]))]
    Status {
        #[command(flatten)]
        view: view::ViewArgs,
    },
    /// Show the network as this site sees it
    #[command(subcommand)]
    Network(overview::NetworkVerb),
    /// Show the newest connections of the namespace, with clients, servers, bytes and times
    #[command(after_help = examples(&[
        "skupper connections",
        "# The connections that are open now, at most 100, as JSON",
        "skupper connections --active --limit 100 -o json",
    ]))]
    Connections(traffic::Connections),
    /// Show the connections and bytes per second of each service; live on a terminal, else once
    #[command(after_help = examples(&[
        "skupper top",
        "skupper top --namespace west -o json",
    ]))]
    Top {
        #[command(flatten)]
        format: output::OutputArgs,
    },
    /// Serve a web page of the network on 127.0.0.1 until interrupted, and print its address
    #[command(after_help = examples(&[
        "skupper console",
        "# On a fixed port, for ssh -L 9466:127.0.0.1:9466",
        "skupper console --port 9466",
    ]))]
    Console(console::Console),
    /// Diagnose a site that does not work
    #[command(subcommand)]
    Debug(debug::Verb),
    /// Print the installed components, their versions, and whether skupperd runs
    #[command(after_help = examples(&["skupper manifest", "skupper manifest -o json"]))]
    Manifest {
        #[command(flatten)]
        output: output::OutputArgs,
    },
    /// Print the version
    #[command(after_help = examples(&["skupper version", "skupper version -o yaml"]))]
    Version {
        #[command(flatten)]
        output: output::OutputArgs,
    },
}

/// Runs a command and returns its exit code.
pub fn run(command: CommandLine) -> ExitCode {
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Invalid(lines)) => {
            for line in lines {
                output::error(&line);
            }
            ExitCode::from(2)
        }
        Err(Failure::NotRunning) => ExitCode::from(3),
        Err(Failure::Failed(error)) => {
            // A reader that stops early, such as head(1), is no failure.
            let pipe = error.downcast_ref::<std::io::Error>();
            if pipe.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: CommandLine) -> CommandResult {
    if let Noun::Version { output } = &command.noun {
        return version::print_version(output);
    }
    let target = command_target(&command.global)?;
    match command.noun {
        Noun::Site(verb) => site::run(&target, verb),
        Noun::Listener(verb) => resource::run(&target, verb),
        Noun::MultiKeyListener(verb) => resource::run(&target, verb),
        Noun::Connector(verb) => resource::run(&target, verb),
        Noun::AttachedConnector(verb) => resource::run(&target, verb),
        Noun::AttachedConnectorBinding(verb) => resource::run(&target, verb),
        Noun::RouterAccess(verb) => resource::run(&target, verb),
        Noun::AccessGrant(verb) => resource::run(&target, verb),
        Noun::Certificate(verb) => resource::run(&target, verb),
        Noun::Link(verb) => link::run(&target, verb),
        Noun::Token(verb) => token::run(&target, verb),
        Noun::Issuer(verb) => issuer::run(&target, verb),
        Noun::System(verb) => system::run(&target, verb),
        Noun::Status { view } => overview::status(&target, &view),
        Noun::Network(verb) => overview::network(&target, verb),
        Noun::Connections(args) => traffic::connections(&target, &args),
        Noun::Top { format } => traffic::top(&target, &format),
        Noun::Console(args) => console::run(&target, &args),
        Noun::Debug(verb) => debug::run(&target, verb),
        Noun::Manifest { output } => version::print_manifest(&target, &output),
        Noun::Version { .. } => Ok(()),
    }
}

fn command_target(global: &Global) -> Result<CommandTarget, Failure> {
    if global.platform != "linux" {
        let text = format!(
            "platform {:?} not supported\nThis command manages sites of the platform linux: leave out --platform and SKUPPER_PLATFORM",
            global.platform
        );
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
    Ok(CommandTarget::new(layout, scope, bus, &namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_valid() {
        CommandLine::command().debug_assert();
    }
}
