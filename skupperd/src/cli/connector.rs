//! `skupper connector`

use super::{
    edit::{self, Words},
    flags,
    service::{ChangedService, Fields, NewService, Routed, more, yes},
    show,
};
use crate::model::Kind;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Connectors;

pub(super) type Verb = edit::Verb<Connectors>;

#[derive(Debug, Args)]
pub(super) struct ConnectorFields {
    #[command(flatten)]
    routed: Routed,
    #[command(flatten)]
    servers: flags::Servers,
    /// Show the client certificate of the TLS credentials to the server
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    use_client_cert: Option<bool>,
    /// Verify the host name in the server's certificate
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    verify_hostname: Option<bool>,
    /// Offer servers even while their health check fails or their unit is not active
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    include_not_ready: Option<bool>,
}

impl Fields for ConnectorFields {
    const KIND: Kind = Kind::Connector;
    const NOUN: &'static str = "connector";

    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        self.routed.apply(Self::NOUN, spec, wrong);
        let given = [
            ("useClientCert", self.use_client_cert),
            ("verifyHostname", self.verify_hostname),
            ("includeNotReadyPods", self.include_not_ready),
        ];
        flags::told(given, spec);
        if !self.servers.given() {
            return;
        }
        // Where a host is given it has taken the selector away.
        if spec.get("selector").is_some() {
            wrong.push("host, selector and workload exclude each other".to_owned());
        }
        self.servers.apply(spec, wrong);
        spec["host"] = Value::Null;
    }

    fn any_port(&self) -> bool {
        self.servers.given()
    }
}

impl Words for Connectors {
    const KIND: Kind = ConnectorFields::KIND;
    const NOUN: &'static str = ConnectorFields::NOUN;
    const ONE: &'static str = "a connector";
    const MANY: &'static str = "connectors";
    const AND: (&'static str, &'static str) = ("", "; its connections end");
    const NONE: &'static str = "No connectors found";
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
    type New = NewService<ConnectorFields>;
    type Change = ChangedService<ConnectorFields>;

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
            yes(value, "hasMatchingListener"),
            message,
        ]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let mut lines = vec![
            ("Name", name),
            ("Status", status),
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Selector", show::text(value, "/spec/selector")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            ("Has Matching Listener", yes(value, "hasMatchingListener")),
            ("Message", message),
        ];
        lines.extend(more(value));
        lines
    }
}
