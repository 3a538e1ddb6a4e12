//! `skupper attached-connector`, servers for the site of another namespace, and
//! `skupper attached-connector-binding`, by which that site takes them.

use super::{
    edit::{Fields, Words},
    flags,
    service::{more, yes},
    show,
};
use crate::model::{Kind, Namespace};
use clap::Args;
use serde_json::{Value, json};

/// Puts another namespace's name into a field of a spec.
fn namespace(given: Option<&str>, field: &str, spec: &mut Value, wrong: &mut Vec<String>) {
    match given.map(Namespace::new) {
        None => {}
        Some(Ok(name)) => spec[field] = json!(name),
        Some(Err(e)) => wrong.push(format!("namespace is not valid: {e}")),
    }
}

#[derive(Debug)]
pub(super) struct AttachedConnectors;

#[derive(Debug, Args)]
pub(super) struct AttachedFields {
    /// Namespace of the site
    #[arg(long, value_name = "NAMESPACE")]
    site_namespace: Option<String>,
    #[command(flatten)]
    servers: flags::Servers,
    #[command(flatten)]
    credentials: flags::Credentials,
    /// Show the client certificate of the TLS credentials to the server
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    use_client_cert: Option<bool>,
    /// Offer servers even while their unit is not active
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    include_not_ready: Option<bool>,
    /// Transport
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[command(flatten)]
    settings: flags::Settings,
}

impl AttachedFields {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        let of = self.site_namespace.as_deref();
        namespace(of, "siteNamespace", spec, wrong);
        self.servers.apply(spec, wrong);
        self.credentials.apply(spec, wrong);
        let given = [
            ("useClientCert", self.use_client_cert),
            ("includeNotReadyPods", self.include_not_ready),
        ];
        flags::told(given, spec);
        flags::transport(self.kind.as_deref(), AttachedConnectors::NOUN, spec, wrong);
        self.settings.apply(spec, wrong);
    }
}

#[derive(Debug, Args)]
pub(super) struct NewAttached {
    /// Port; 0 for every port that the servers listen on
    #[arg(allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    fields: AttachedFields,
}

impl Fields for NewAttached {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        flags::port(&self.port, true, AttachedConnectors::NOUN, spec, wrong);
        self.fields.apply(spec, wrong);
    }

    fn missing(&self) -> Option<&'static str> {
        if self.fields.site_namespace.is_none() {
            return Some("--site-namespace is required");
        }
        let none = !self.fields.servers.given();
        none.then_some("either --selector or --workload is required")
    }
}

#[derive(Debug, Args)]
pub(super) struct ChangeAttached {
    /// New port
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    fields: AttachedFields,
}

impl Fields for ChangeAttached {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(port) = &self.port {
            flags::port(port, true, AttachedConnectors::NOUN, spec, wrong);
        }
        self.fields.apply(spec, wrong);
    }
}

impl Words for AttachedConnectors {
    const KIND: Kind = Kind::AttachedConnector;
    const NOUN: &'static str = "attached-connector";
    const ONE: &'static str = "an attached connector";
    const MANY: &'static str = "attached connectors";
    const AND: (&'static str, &'static str) = ("", "; its connections end");
    const NONE: &'static str = "No attached-connectors found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "PORT",
        "SELECTOR",
        "SITE-NAMESPACE",
        "STATUS",
        "MESSAGE",
    ];
    type New = NewAttached;
    type Change = ChangeAttached;

    fn spec(_: &str) -> Value {
        json!({})
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let (port, selector) = (spec("port"), spec("selector"));
        vec![name, port, selector, spec("siteNamespace"), status, message]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let mut lines = vec![
            ("Name", name),
            ("Status", status),
            ("Port", show::text(value, "/spec/port")),
            ("Selector", show::text(value, "/spec/selector")),
            ("Site Namespace", show::text(value, "/spec/siteNamespace")),
            ("Message", message),
        ];
        lines.extend(more(value));
        lines
    }
}

#[derive(Debug)]
pub(super) struct Bindings;

#[derive(Debug, Args)]
pub(super) struct BindingFields {
    /// Namespace of the attached connector
    #[arg(long, value_name = "NAMESPACE")]
    connector_namespace: Option<String>,
    /// Routing key [default: the name]
    #[arg(short, long)]
    routing_key: Option<String>,
    #[command(flatten)]
    settings: flags::Settings,
}

impl Fields for BindingFields {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        let of = self.connector_namespace.as_deref();
        namespace(of, "connectorNamespace", spec, wrong);
        let key = self.routing_key.as_deref();
        flags::named(key, "routingKey", "routing key", spec, wrong);
        self.settings.apply(spec, wrong);
    }

    fn missing(&self) -> Option<&'static str> {
        let none = self.connector_namespace.is_none();
        none.then_some("--connector-namespace is required")
    }
}

impl Words for Bindings {
    const KIND: Kind = Kind::AttachedConnectorBinding;
    const NOUN: &'static str = "attached-connector-binding";
    const ONE: &'static str = "a binding of an attached connector";
    const MANY: &'static str = "bindings of attached connectors";
    const AND: (&'static str, &'static str) = ("", "; its connections end");
    const NONE: &'static str = "No attached-connector-bindings found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "ROUTING-KEY",
        "CONNECTOR-NAMESPACE",
        "STATUS",
        "HAS MATCHING LISTENER",
        "MESSAGE",
    ];
    type New = BindingFields;
    type Change = BindingFields;

    fn spec(name: &str) -> Value {
        json!({ "routingKey": name })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let matched = yes(value, "hasMatchingListener");
        let (key, of) = (spec("routingKey"), spec("connectorNamespace"));
        vec![name, key, of, status, matched, message]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let of = show::text(value, "/spec/connectorNamespace");
        let mut lines = vec![
            ("Name", name),
            ("Status", status),
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Connector Namespace", of),
            ("Has Matching Listener", yes(value, "hasMatchingListener")),
            ("Message", message),
        ];
        lines.extend(more(value));
        lines
    }
}
