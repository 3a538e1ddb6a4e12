//! `skupper listener`

use super::{
    flags,
    resource::{self, CliKind, VerbExamples},
    service::{
        CreateServiceArgs, RoutingArgs, ServiceArgs, UpdateServiceArgs, bool_text, optional_details,
    },
    show,
};
use crate::model::Kind;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Listeners;

pub(super) type Verb = resource::Verb<Listeners>;

#[derive(Debug, Args)]
pub(super) struct ListenerArgs {
    #[command(flatten)]
    routing: RoutingArgs,
    /// Requests to count in the traffic: auto, none, http1 or http2 [default: auto]
    #[arg(long, value_name = "PROTOCOL")]
    observer: Option<String>,
}

impl ServiceArgs for ListenerArgs {
    const KIND: Kind = Kind::Listener;
    const NOUN: &'static str = "listener";
    const PORT_HELP: &'static str = "Port that clients connect to";
    const HOST_HELP: &'static str =
        "Address to listen on [default: 0.0.0.0, every IPv4 address of this host]";

    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        self.routing.apply(Self::NOUN, spec, errors);
        flags::set_observer(self.observer.as_deref(), spec, errors);
    }
}

impl CliKind for Listeners {
    const KIND: Kind = ListenerArgs::KIND;
    const NOUN: &'static str = ListenerArgs::NOUN;
    const SINGULAR: &'static str = "a listener";
    const PLURAL: &'static str = "listeners";
    const EFFECTS: (&'static str, &'static str) = ("", "; its connections end");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Reach the connectors of routing key backend on 127.0.0.1:8080",
            "skupper listener create backend 8080 --host 127.0.0.1",
            "# For other hosts too, under another name, and with TLS",
            "skupper listener create web 443 --routing-key backend --tls-credentials web",
        ],
        update: &[
            "skupper listener update backend --port 8081",
            "skupper listener update backend --host 0.0.0.0 --setting acceleration=auto",
        ],
        delete: &["skupper listener delete backend"],
        status: &[
            "skupper listener status",
            "# One listener in detail",
            "skupper listener status backend",
        ],
        generate: &["skupper listener generate backend 8080 > backend.yaml"],
    };
    const EMPTY: &'static str = "No listeners found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "STATUS",
        "ROUTING-KEY",
        "HOST",
        "PORT",
        "MATCHING-CONNECTOR",
        "MESSAGE",
    ];
    type CreateArgs = CreateServiceArgs<ListenerArgs>;
    type UpdateArgs = UpdateServiceArgs<ListenerArgs>;

    fn spec(name: &str) -> Value {
        json!({ "routingKey": name, "host": "0.0.0.0", "type": "tcp" })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let matched = bool_text(value, "hasMatchingConnector");
        let (key, host, port) = (spec("routingKey"), spec("host"), spec("port"));
        vec![name, status, key, host, port, matched, message]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            (
                "Has Matching Connector",
                bool_text(value, "hasMatchingConnector"),
            ),
            ("Reached", reached(value)),
            ("Accelerated", accelerated(value)),
        ]
    }

    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        optional_details(value)
    }
}

/// Whether connections are accelerated, and if not, why.
fn accelerated(value: &Value) -> String {
    match show::text(value, "/status/acceleration") {
        state if state.is_empty() => "off: neither the listener nor its site has it set".to_owned(),
        state => state,
    }
}

/// How clients reach the listener.
fn reached(value: &Value) -> String {
    match show::text(value, "/status/reachedBy").as_str() {
        "steering" => "steered by the kernel".to_owned(),
        "socket" => "by a socket of its own".to_owned(),
        _ => "closed".to_owned(),
    }
}
