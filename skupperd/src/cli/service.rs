//! What `skupper listener`, `skupper multikeylistener` and `skupper connector` have in common: a host,
//! a port and credentials, and what a status says of them.

use super::{edit, flags, show};
use crate::model::{Kind, ServerHost, check_host, check_name};
use clap::Args;
use serde_json::{Value, json};

/// What only one of them has.
pub(super) trait Fields: Args + std::fmt::Debug {
    const KIND: Kind;
    /// In messages.
    const NOUN: &'static str;

    /// Puts what is given into a spec; says what is wrong.
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>);

    /// Port 0 is for all of them.
    fn any_port(&self) -> bool {
        false
    }

    /// Where these are not enough for a new one, what is missing.
    fn missing(&self) -> Option<&'static str> {
        None
    }

    /// What a change takes away, of the resource as it is.
    fn dropped(&self, _: &Value) -> Value {
        json!({ "spec": {} })
    }
}

#[derive(Debug, Args)]
pub(super) struct NewService<F: Fields> {
    /// Port
    #[arg(allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    fields: F,
}

#[derive(Debug, Args)]
pub(super) struct ChangedService<F: Fields> {
    /// New port
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    fields: F,
}

/// What all of them have.
#[derive(Debug, Args)]
struct Common {
    /// Host name or IP address; of a connector also unix: and the path of a socket
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    credentials: flags::Credentials,
    #[command(flatten)]
    settings: flags::Settings,
}

impl Common {
    fn apply(&self, kind: Kind, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(host) = &self.host {
            let checked = match kind {
                Kind::Connector => host.parse::<ServerHost>().map(drop),
                _ => check_host(host),
            };
            match checked {
                Ok(()) => {
                    spec["host"] = json!(host);
                    if kind == Kind::Connector {
                        spec["selector"] = Value::Null;
                    }
                }
                Err(e) => wrong.push(format!("host is not valid: {e}")),
            }
        }
        self.credentials.apply(spec, wrong);
        self.settings.apply(spec, wrong);
    }
}

impl<F: Fields> edit::Fields for NewService<F> {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        flags::port(&self.port, self.fields.any_port(), F::NOUN, spec, wrong);
        self.common.apply(F::KIND, spec, wrong);
        self.fields.apply(spec, wrong);
    }

    fn missing(&self) -> Option<&'static str> {
        self.fields.missing()
    }
}

impl<F: Fields> edit::Fields for ChangedService<F> {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(port) = &self.port {
            flags::port(port, self.fields.any_port(), F::NOUN, spec, wrong);
        }
        self.common.apply(F::KIND, spec, wrong);
        self.fields.apply(spec, wrong);
    }

    fn dropped(&self, value: &Value) -> Value {
        self.fields.dropped(value)
    }
}

/// How it is carried, and under which key.
#[derive(Debug, Args)]
pub(super) struct Routed {
    /// Routing key that listeners and connectors meet by [default: the name]
    #[arg(short, long)]
    routing_key: Option<String>,
    /// Transport
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

impl Routed {
    pub(super) fn apply(&self, noun: &str, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(key) = &self.routing_key {
            match check_name(key) {
                Ok(()) => spec["routingKey"] = json!(key),
                Err(e) => wrong.push(format!("routing key is not valid: {e}")),
            }
        }
        flags::transport(self.kind.as_deref(), noun, spec, wrong);
    }
}

pub(super) fn yes(value: &Value, field: &str) -> String {
    let set = value["status"][field].as_bool().unwrap_or(false);
    set.to_string()
}

/// What a selector has found.
fn servers(value: &Value) -> String {
    let servers = value["status"]["selectedPods"].as_array();
    let server = |server: &Value| {
        let text = |field: &str| show::text(server, &format!("/{field}"));
        let ip = text("ip");
        let ip = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip
        };
        format!("{} {ip}:{}", text("name"), text("port"))
    };
    let servers: Vec<String> = servers.into_iter().flatten().map(server).collect();
    servers.join(", ")
}

/// Lines that a status has where there is something to say.
pub(super) fn more(value: &Value) -> Vec<(&'static str, String)> {
    let text = |path: &str| show::text(value, path);
    let lines = [
        ("TLS credentials", text("/spec/tlsCredentials")),
        (
            "Certificate ends",
            text("/status/certificateExpirationTime"),
        ),
        ("Servers", servers(value)),
        ("Healthy", text("/status/health/ready")),
        ("Health", text("/status/health/message")),
        ("Last failure", text("/status/lastFailure")),
        ("TLS failures", text("/status/tlsHandshakeFailures")),
        ("Note", show::notes(value)),
    ];
    lines
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .collect()
}
