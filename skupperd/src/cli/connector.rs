//! `skupper connector`

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
pub(super) struct Connectors;

pub(super) type Verb = resource::Verb<Connectors>;

#[derive(Debug, Args)]
pub(super) struct ConnectorArgs {
    #[command(flatten)]
    routing: RoutingArgs,
    #[command(flatten)]
    servers: flags::ServerArgs,
    /// Present the client certificate of the TLS credentials to the server
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    use_client_cert: Option<bool>,
    /// Require a certificate for the server's host name; without it, any certificate of the CA is accepted
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    verify_hostname: Option<bool>,
    /// Offer servers while their health check fails or their unit is not active
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    include_not_ready: Option<bool>,
}

impl ServiceArgs for ConnectorArgs {
    const KIND: Kind = Kind::Connector;
    const NOUN: &'static str = "connector";
    const PORT_HELP: &'static str =
        "Port of the server; 0 with --selector: every port that the servers listen on";
    const HOST_HELP: &'static str =
        "Host of the server: name, IP address, or unix:/PATH of a socket [default: localhost]";

    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        self.routing.apply(Self::NOUN, spec, errors);
        let given = [
            ("useClientCert", self.use_client_cert),
            ("verifyHostname", self.verify_hostname),
            ("includeNotReadyPods", self.include_not_ready),
        ];
        flags::set_bools(given, spec);
        if !self.servers.is_set() {
            return;
        }
        // `--host` has set it to null.
        if spec.get("selector").is_some() {
            errors.push("host, selector and workload exclude each other".to_owned());
        }
        self.servers.apply(spec, errors);
        spec["host"] = Value::Null;
    }

    fn any_port(&self) -> bool {
        self.servers.is_set()
    }
}

impl CliKind for Connectors {
    const KIND: Kind = ConnectorArgs::KIND;
    const NOUN: &'static str = ConnectorArgs::NOUN;
    const SINGULAR: &'static str = "a connector";
    const PLURAL: &'static str = "connectors";
    const EFFECTS: (&'static str, &'static str) = ("", "; its connections end");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Offer the server on port 8080 of this host under routing key backend",
            "skupper connector create backend 8080",
            "# A server of another host, and whatever a systemd unit listens on",
            "skupper connector create db 5432 --host db.example.com",
            "skupper connector create web 0 --selector unit=nginx.service",
        ],
        update: &[
            "skupper connector update backend --port 8081",
            "skupper connector update backend --routing-key api",
        ],
        delete: &["skupper connector delete backend"],
        status: &[
            "skupper connector status",
            "# One connector in detail",
            "skupper connector status backend",
        ],
        generate: &["skupper connector generate backend 8080 > backend.yaml"],
    };
    const EMPTY: &'static str = "No connectors found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "STATUS",
        "ROUTING-KEY",
        "SELECTOR",
        "HOST",
        "PORT",
        "HAS MATCHING LISTENER",
        "MESSAGE",
    ];
    type CreateArgs = CreateServiceArgs<ConnectorArgs>;
    type UpdateArgs = UpdateServiceArgs<ConnectorArgs>;

    fn spec(name: &str) -> Value {
        json!({ "routingKey": name, "host": "localhost", "type": "tcp" })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        vec![
            name,
            status,
            spec("routingKey"),
            spec("selector"),
            spec("host"),
            spec("port"),
            bool_text(value, "hasMatchingListener"),
            message,
        ]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Selector", show::text(value, "/spec/selector")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            (
                "Has Matching Listener",
                bool_text(value, "hasMatchingListener"),
            ),
        ]
    }

    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        optional_details(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest, model::Spec};
    use std::path::Path;

    #[test]
    fn the_help_of_verify_hostname_agrees_with_the_default_of_the_field() {
        let yaml = "apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: c}\n\
            spec: {routingKey: c, host: h, port: 1}\n";
        let mut read = manifest::parse(Path::new("c.yaml"), yaml.as_bytes(), None);
        let located = read.pop().expect("a document").expect("valid");
        let Spec::Connector(connector) = located.resource.spec else {
            panic!("no connector");
        };
        assert!(!connector.verify_hostname);
        let command = ConnectorArgs::augment_args(clap::Command::new("c"));
        let flag = command
            .get_arguments()
            .find(|arg| arg.get_id() == "verify_hostname");
        let help = flag.and_then(|flag| flag.get_help()).expect("a help text");
        assert!(!help.to_string().contains("[default: true]"), "{help}");
    }
}
