//! `skupper listener` and `skupper connector`

use super::{
    Failure, Outcome, invalid,
    output::{self, Encoding, Format},
    place::Place,
    show,
    wait::Wait,
};
use crate::model::{API_VERSION, Kind, check_host, check_name, parse_port};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct New {
    /// Name
    name: String,
    /// Port
    #[arg(allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// Name
    name: String,
    /// New port
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, Args)]
struct Fields {
    /// Routing key that listeners and connectors meet by [default: the name]
    #[arg(short, long)]
    routing_key: Option<String>,
    /// Host name or IP address
    #[arg(long)]
    host: Option<String>,
    /// Name of TLS credentials
    #[arg(long)]
    tls_credentials: Option<String>,
    /// Transport
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ListenerVerb {
    /// Create a listener
    Create {
        #[command(flatten)]
        create: New,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a listener
    Update {
        #[command(flatten)]
        update: Change,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a listener; its connections end
    Delete {
        /// Name
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show listeners
    Status {
        /// Name [default: all]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Print a Listener resource and change nothing
    Generate {
        #[command(flatten)]
        create: New,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectorVerb {
    /// Create a connector
    Create {
        #[command(flatten)]
        create: New,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a connector
    Update {
        #[command(flatten)]
        update: Change,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a connector; its connections end
    Delete {
        /// Name
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show connectors
    Status {
        /// Name [default: all]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Print a Connector resource and change nothing
    Generate {
        #[command(flatten)]
        create: New,
        #[command(flatten)]
        format: Format,
    },
}

fn noun(kind: Kind) -> &'static str {
    if kind == Kind::Listener {
        "listener"
    } else {
        "connector"
    }
}

/// Puts given fields into a resource; every one that is wrong is said.
fn apply(
    kind: Kind,
    value: &mut Value,
    port: Option<&str>,
    fields: &Fields,
) -> Result<(), Failure> {
    let noun = noun(kind);
    let mut wrong = Vec::new();
    let spec = &mut value["spec"];
    if let Some(port) = port {
        let parsed = port
            .parse::<i64>()
            .map_err(|_| format!("{port:?} is not a number"));
        match parsed.and_then(|port| parse_port(port).map_err(|e| e.to_string())) {
            Ok(port) => spec["port"] = json!(port),
            Err(e) => wrong.push(format!("{noun} port is not valid: {e}")),
        }
    }
    if let Some(key) = &fields.routing_key {
        match check_name(key) {
            Ok(()) => spec["routingKey"] = json!(key),
            Err(e) => wrong.push(format!("routing key is not valid: {e}")),
        }
    }
    if let Some(host) = &fields.host {
        match check_host(host) {
            Ok(()) => spec["host"] = json!(host),
            Err(e) => wrong.push(format!("host is not valid: {e}")),
        }
    }
    if let Some(name) = &fields.tls_credentials {
        match check_name(name) {
            Ok(()) => spec["tlsCredentials"] = json!(name),
            Err(e) => wrong.push(format!("tlsCredentials value is not valid: {e}")),
        }
    }
    match fields.kind.as_deref() {
        None => {}
        Some("tcp") => spec["type"] = json!("tcp"),
        Some(other) => wrong.push(format!(
            "{noun} type is not valid: value {other} not allowed. \
             It should be one of this options: [tcp]"
        )),
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::Invalid(wrong))
    }
}

fn resource(kind: Kind, create: &New) -> Result<Value, Failure> {
    let noun = noun(kind);
    let host = if kind == Kind::Listener {
        "0.0.0.0"
    } else {
        "localhost"
    };
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": kind.as_str(),
        "metadata": { "name": create.name },
        "spec": { "routingKey": create.name, "host": host, "type": "tcp" },
    });
    let named = check_name(&create.name);
    let applied = apply(kind, &mut value, Some(&create.port), &create.fields);
    match (named, applied) {
        (Ok(()), applied) => applied.map(|()| value),
        (Err(e), applied) => {
            let mut wrong = vec![format!("{noun} name is not valid: {e}")];
            if let Err(Failure::Invalid(more)) = applied {
                wrong.extend(more);
            }
            Err(Failure::Invalid(wrong))
        }
    }
}

fn create(place: &Place, kind: Kind, create: &New, wait: &Wait) -> Outcome {
    let value = resource(kind, create)?;
    let path = place.create(&value)?;
    output::print(&format!("File written to {path}"))?;
    wait.written(place, kind, &create.name, &value, true)
}

fn update(place: &Place, kind: Kind, update: &Change, wait: &Wait) -> Outcome {
    let (noun, name) = (noun(kind), &update.name);
    // Everything this command knows nothing of stays as it is.
    let mut change = json!({ "spec": {} });
    let wrong = apply(kind, &mut change, update.port.as_deref(), &update.fields);
    let found = match wrong {
        Ok(()) => place.update(kind, name, &change)?,
        // That there is no such thing is said before what is wrong with its fields.
        Err(wrong) if exists(place, kind, name)? => return Err(wrong),
        Err(_) => None,
    };
    let path = found.ok_or_else(|| {
        let namespace = place.name();
        invalid(format!(
            "{noun} {name} must exist in namespace {namespace} to be updated"
        ))
    })?;
    output::print(&format!("File written to {path}"))?;
    wait.written(place, kind, name, &change, false)
}

fn exists(place: &Place, kind: Kind, name: &str) -> Result<bool, Failure> {
    let all = place.documents(kind)?;
    Ok(all.iter().any(|v| v["metadata"]["name"] == *name))
}

fn delete(place: &Place, kind: Kind, name: &str, wait: &Wait) -> Outcome {
    if place.delete(kind, name)?.is_empty() {
        return Err(invalid(format!("{} {name} does not exist", noun(kind))));
    }
    wait.deleted(place, kind, name)?;
    output::print(&format!("{kind} {name:?} is deleted"))
}

fn generate(kind: Kind, create: &New, format: &Format) -> Outcome {
    let value = resource(kind, create)?;
    output::document(&value, format.encoding()?.unwrap_or(Encoding::Yaml))
}

fn missing(place: &Place, kind: Kind, name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    format!(
        "{} {name} does not exist in namespace {}",
        noun(kind),
        place.name()
    )
}

fn yes(value: &Value, field: &str) -> String {
    let set = value["status"][field].as_bool().unwrap_or(false);
    set.to_string()
}

pub(super) fn listener(place: &Place, verb: ListenerVerb) -> Outcome {
    let kind = Kind::Listener;
    match verb {
        ListenerVerb::Create { create: args, wait } => create(place, kind, &args, &wait),
        ListenerVerb::Update { update: args, wait } => update(place, kind, &args, &wait),
        ListenerVerb::Delete { name, wait } => delete(place, kind, &name, &wait),
        ListenerVerb::Generate { create, format } => generate(kind, &create, &format),
        ListenerVerb::Status { name, format } => {
            let show = show::Show {
                kind,
                none: "No listeners found",
                missing: missing(place, kind, name.as_deref()),
                header: &[
                    "NAME",
                    "STATUS",
                    "ROUTING-KEY",
                    "HOST",
                    "PORT",
                    "MATCHING-CONNECTOR",
                    "MESSAGE",
                ],
                row: |v| {
                    let (name, status, message) = show::status(v);
                    let spec = |field: &str| show::text(v, &format!("/spec/{field}"));
                    let matched = yes(v, "hasMatchingConnector");
                    let (key, host, port) = (spec("routingKey"), spec("host"), spec("port"));
                    vec![name, status, key, host, port, matched, message]
                },
                details: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Routing key", show::text(v, "/spec/routingKey")),
                        ("Host", show::text(v, "/spec/host")),
                        ("Port", show::text(v, "/spec/port")),
                        ("Has Matching Connector", yes(v, "hasMatchingConnector")),
                        ("Reached", reached(v)),
                        ("Message", message),
                    ]
                },
            };
            show::show(place, name.as_deref(), &format, &show)
        }
    }
}

pub(super) fn connector(place: &Place, verb: ConnectorVerb) -> Outcome {
    let kind = Kind::Connector;
    match verb {
        ConnectorVerb::Create { create: args, wait } => create(place, kind, &args, &wait),
        ConnectorVerb::Update { update: args, wait } => update(place, kind, &args, &wait),
        ConnectorVerb::Delete { name, wait } => delete(place, kind, &name, &wait),
        ConnectorVerb::Generate { create, format } => generate(kind, &create, &format),
        ConnectorVerb::Status { name, format } => {
            let show = show::Show {
                kind,
                none: "No connectors found",
                missing: missing(place, kind, name.as_deref()),
                header: &[
                    "NAME",
                    "STATUS",
                    "ROUTING-KEY",
                    "SELECTOR",
                    "HOST",
                    "PORT",
                    "HAS MATCHING LISTENER",
                    "MESSAGE",
                ],
                row: |v| {
                    let (name, status, message) = show::status(v);
                    let spec = |field: &str| show::text(v, &format!("/spec/{field}"));
                    let matched = yes(v, "hasMatchingListener");
                    let (key, selector) = (spec("routingKey"), spec("selector"));
                    vec![
                        name,
                        status,
                        key,
                        selector,
                        spec("host"),
                        spec("port"),
                        matched,
                        message,
                    ]
                },
                details: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Routing key", show::text(v, "/spec/routingKey")),
                        ("Selector", show::text(v, "/spec/selector")),
                        ("Host", show::text(v, "/spec/host")),
                        ("Port", show::text(v, "/spec/port")),
                        ("Has Matching Listener", yes(v, "hasMatchingListener")),
                        ("Message", message),
                    ]
                },
            };
            show::show(place, name.as_deref(), &format, &show)
        }
    }
}

/// How clients come to a listener; in detail it is in the status.
fn reached(value: &Value) -> String {
    match show::text(value, "/status/reachedBy").as_str() {
        "steering" => "steered by the kernel".to_owned(),
        "socket" => "by a socket of its own".to_owned(),
        _ => "closed".to_owned(),
    }
}
