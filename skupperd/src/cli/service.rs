//! Arguments and status lines that `skupper listener`, `skupper multikeylistener` and
//! `skupper connector` share: host, port, credentials.

use super::{flags, resource, show};
use crate::model::{Kind, ServerHost, check_host, check_name};
use clap::Args;
use serde_json::{Value, json};

/// Arguments that only one of these kinds has.
pub(super) trait ServiceArgs: Args + std::fmt::Debug {
    const KIND: Kind;
    const NOUN: &'static str;
    /// Help of `PORT` and of `--host`.
    const PORT_HELP: &'static str;
    const HOST_HELP: &'static str;

    /// As [`resource::SpecArgs::apply`].
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>);

    /// Port 0 is valid and means every port of the servers.
    fn any_port(&self) -> bool {
        false
    }

    /// As [`resource::SpecArgs::missing_argument`].
    fn missing_argument(&self) -> Option<&'static str> {
        None
    }

    /// As [`resource::SpecArgs::removed_fields`].
    fn removed_fields(&self, _: &Value) -> Value {
        json!({ "spec": {} })
    }
}

#[derive(Debug, Args)]
#[command(
    mut_arg("host", |arg| arg.help(F::HOST_HELP)),
    mut_arg("settings", |arg| flags::setting_arg(arg, F::KIND))
)]
pub(super) struct CreateServiceArgs<F: ServiceArgs> {
    #[arg(help = F::PORT_HELP, allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    common: CommonServiceArgs,
    #[command(flatten)]
    fields: F,
}

#[derive(Debug, Args)]
#[command(
    mut_arg("host", |arg| arg.help(F::HOST_HELP)),
    mut_arg("settings", |arg| flags::setting_arg(arg, F::KIND))
)]
pub(super) struct UpdateServiceArgs<F: ServiceArgs> {
    #[arg(long, help = F::PORT_HELP, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    common: CommonServiceArgs,
    #[command(flatten)]
    fields: F,
}

#[derive(Debug, Args)]
struct CommonServiceArgs {
    /// Host name or IP address
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    credentials: flags::CredentialArgs,
    #[command(flatten)]
    settings: flags::SettingArgs,
}

impl CommonServiceArgs {
    fn apply(&self, kind: Kind, spec: &mut Value, errors: &mut Vec<String>) {
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
                Err(e) => errors.push(format!("host is not valid: {e}")),
            }
        }
        self.credentials.apply(spec, errors);
        self.settings.apply(spec, errors);
    }
}

impl<F: ServiceArgs> resource::SpecArgs for CreateServiceArgs<F> {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        flags::set_port(&self.port, self.fields.any_port(), F::NOUN, spec, errors);
        self.common.apply(F::KIND, spec, errors);
        self.fields.apply(spec, errors);
    }

    fn missing_argument(&self) -> Option<&'static str> {
        self.fields.missing_argument()
    }
}

impl<F: ServiceArgs> resource::SpecArgs for UpdateServiceArgs<F> {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        if let Some(port) = &self.port {
            flags::set_port(port, self.fields.any_port(), F::NOUN, spec, errors);
        }
        self.common.apply(F::KIND, spec, errors);
        self.fields.apply(spec, errors);
    }

    fn removed_fields(&self, value: &Value) -> Value {
        self.fields.removed_fields(value)
    }
}

#[derive(Debug, Args)]
pub(super) struct RoutingArgs {
    /// Routing key: a listener reaches the connectors that have the same one [default: NAME]
    #[arg(short, long, value_name = "KEY")]
    routing_key: Option<String>,
    /// Protocol of the service; only tcp is supported
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

impl RoutingArgs {
    pub(super) fn apply(&self, noun: &str, spec: &mut Value, errors: &mut Vec<String>) {
        if let Some(key) = &self.routing_key {
            match check_name(key) {
                Ok(()) => spec["routingKey"] = json!(key),
                Err(e) => errors.push(format!("routing key is not valid: {e}")),
            }
        }
        flags::set_transport(self.kind.as_deref(), noun, spec, errors);
    }
}

pub(super) fn bool_text(value: &Value, field: &str) -> String {
    let set = value["status"][field].as_bool().unwrap_or(false);
    set.to_string()
}

/// Servers that a selector has found.
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

/// Lines that the status has only where the field is set.
pub(super) fn optional_details(value: &Value) -> Vec<(&'static str, String)> {
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
