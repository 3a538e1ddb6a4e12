//! `skupper listener` and `skupper connector`

use super::{
    Failure, Outcome, invalid,
    output::{self, Encoding, Format},
    place::Place,
    show,
    wait::Wait,
};
use crate::model::{
    API_VERSION, Kind, Observer, Selector, ServerHost, check_host, check_name, parse_port,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct New<F: Args> {
    /// Name
    name: String,
    /// Port
    #[arg(allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    fields: F,
}

#[derive(Debug, Args)]
pub(super) struct Change<F: Args> {
    /// Name
    pub(super) name: String,
    /// New port
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pub(super) fields: F,
}

/// What all of them have.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Host name or IP address; of a connector also unix: and the path of a socket
    #[arg(long)]
    host: Option<String>,
    /// Name of TLS credentials
    #[arg(long)]
    tls_credentials: Option<String>,
    /// Setting; an empty value takes it away
    #[arg(long = "setting", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl<F: Args> New<F> {
    pub(super) fn fields(&self) -> &F {
        &self.fields
    }
}

/// What only one kind has.
pub(super) trait Fields: Args {
    const KIND: Kind;

    /// Puts what is given into a spec; says what is wrong.
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>);

    /// Port 0 is for all of them.
    fn any_port(&self) -> bool {
        false
    }
}

#[derive(Debug, Args)]
struct Routed {
    /// Routing key that listeners and connectors meet by [default: the name]
    #[arg(short, long)]
    routing_key: Option<String>,
    /// Transport
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

impl Routed {
    fn apply(&self, noun: &str, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(key) = &self.routing_key {
            match check_name(key) {
                Ok(()) => spec["routingKey"] = json!(key),
                Err(e) => wrong.push(format!("routing key is not valid: {e}")),
            }
        }
        match self.kind.as_deref() {
            None => {}
            Some("tcp") => spec["type"] = json!("tcp"),
            Some(other) => wrong.push(format!(
                "{noun} type is not valid: value {other} not allowed. \
                 It should be one of this options: [tcp]"
            )),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ListenerFields {
    #[command(flatten)]
    routed: Routed,
    /// What is looked for in its traffic: auto, none, http1, http2
    #[arg(long)]
    observer: Option<String>,
}

impl Fields for ListenerFields {
    const KIND: Kind = Kind::Listener;

    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        self.routed.apply(noun(Self::KIND), spec, wrong);
        observer(self.observer.as_deref(), spec, wrong);
    }
}

/// Puts an observer into a spec.
pub(super) fn observer(given: Option<&str>, spec: &mut Value, wrong: &mut Vec<String>) {
    let Some(text) = given else { return };
    let all = Observer::ALL.map(Observer::as_str);
    if all.contains(&text) {
        spec["observer"] = json!(text);
    } else {
        wrong.push(format!(
            "observer is not valid: value {text} not allowed. It should be one of this options: [{}]",
            all.join(" ")
        ));
    }
}

#[derive(Debug, Args)]
pub(super) struct ConnectorFields {
    #[command(flatten)]
    routed: Routed,
    /// Servers of this host by what they are: unit=NAME, slice=NAME, user-unit=[UID:]NAME,
    /// cgroup=/PATH, exe=/PATH or uid=NUMBER; PORT 0 is every port they listen on
    #[arg(long, conflicts_with_all = ["host", "workload"])]
    selector: Option<String>,
    /// The same, written as KIND/NAME: unit/nginx.service
    #[arg(long, conflicts_with = "host")]
    workload: Option<String>,
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

    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        self.routed.apply(noun(Self::KIND), spec, wrong);
        for (field, given) in [
            ("useClientCert", self.use_client_cert),
            ("verifyHostname", self.verify_hostname),
            ("includeNotReadyPods", self.include_not_ready),
        ] {
            if let Some(given) = given {
                spec[field] = json!(given);
            }
        }
        for (noun, given) in [("selector", &self.selector), ("workload", &self.workload)] {
            match given.as_ref().map(|text| text.parse::<Selector>()) {
                None => {}
                Some(Ok(selector)) => {
                    spec["selector"] = json!(selector);
                    spec["host"] = Value::Null;
                }
                Some(Err(e)) => wrong.push(format!("{noun} is not valid: {e}")),
            }
        }
    }

    fn any_port(&self) -> bool {
        self.selector.is_some() || self.workload.is_some()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ListenerVerb {
    /// Create a listener
    Create {
        #[command(flatten)]
        create: New<ListenerFields>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a listener
    Update {
        #[command(flatten)]
        update: Change<ListenerFields>,
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
        create: New<ListenerFields>,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectorVerb {
    /// Create a connector
    Create {
        #[command(flatten)]
        create: New<ConnectorFields>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a connector
    Update {
        #[command(flatten)]
        update: Change<ConnectorFields>,
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
        create: New<ConnectorFields>,
        #[command(flatten)]
        format: Format,
    },
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "listener",
        Kind::MultiKeyListener => "multikeylistener",
        _ => "connector",
    }
}

/// Puts given fields into a resource; every one that is wrong is said.
pub(super) fn apply<F: Fields>(
    value: &mut Value,
    port: Option<&str>,
    common: &Common,
    fields: &F,
) -> Result<(), Failure> {
    let noun = noun(F::KIND);
    let mut wrong = Vec::new();
    let spec = &mut value["spec"];
    if let Some(port) = port {
        let parsed = port
            .parse::<i64>()
            .map_err(|_| format!("{port:?} is not a number"));
        match parsed.and_then(|port| match port {
            0 if fields.any_port() => Ok(0),
            port => parse_port(port).map_err(|e| e.to_string()),
        }) {
            Ok(port) => spec["port"] = json!(port),
            Err(e) => wrong.push(format!("{noun} port is not valid: {e}")),
        }
    }
    if let Some(host) = &common.host {
        let checked = match F::KIND {
            Kind::Connector => host.parse::<ServerHost>().map(drop),
            _ => check_host(host),
        };
        match checked {
            Ok(()) => {
                spec["host"] = json!(host);
                if F::KIND == Kind::Connector {
                    spec["selector"] = Value::Null;
                }
            }
            Err(e) => wrong.push(format!("host is not valid: {e}")),
        }
    }
    if let Some(name) = &common.tls_credentials {
        match check_name(name) {
            Ok(()) => spec["tlsCredentials"] = json!(name),
            Err(e) => wrong.push(format!("tlsCredentials value is not valid: {e}")),
        }
    }
    for setting in &common.settings {
        match setting.split_once('=').filter(|(key, _)| !key.is_empty()) {
            Some((key, "")) => spec["settings"][key] = Value::Null,
            Some((key, text)) => spec["settings"][key] = json!(text),
            None => wrong.push(format!(
                "setting is not valid: {setting:?} is not KEY=VALUE"
            )),
        }
    }
    fields.apply(spec, &mut wrong);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::Invalid(wrong))
    }
}

fn resource<F: Fields>(create: &New<F>) -> Result<Value, Failure> {
    let (kind, noun) = (F::KIND, noun(F::KIND));
    let spec = match kind {
        Kind::Connector => {
            json!({ "routingKey": create.name, "host": "localhost", "type": "tcp" })
        }
        Kind::Listener => json!({ "routingKey": create.name, "host": "0.0.0.0", "type": "tcp" }),
        _ => json!({ "host": "0.0.0.0" }),
    };
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": kind.as_str(),
        "metadata": { "name": create.name },
        "spec": spec,
    });
    let named = check_name(&create.name);
    let applied = apply(
        &mut value,
        Some(&create.port),
        &create.common,
        &create.fields,
    );
    // What is not there needs no taking away.
    for fields in ["/spec", "/spec/settings"] {
        let fields = value.pointer_mut(fields).and_then(Value::as_object_mut);
        if let Some(fields) = fields {
            fields.retain(|_, value| !value.is_null());
        }
    }
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

pub(super) fn create<F: Fields>(place: &Place, create: &New<F>, wait: &Wait) -> Outcome {
    let value = resource(create)?;
    let path = place.create(&value)?;
    output::print(&format!("File written to {path}"))?;
    wait.written(place, F::KIND, &create.name, &value, true)
}

pub(super) fn update<F: Fields>(place: &Place, update: &Change<F>, wait: &Wait) -> Outcome {
    change(place, update, json!({ "spec": {} }), wait)
}

/// Changes a resource: `change` is what is to be changed beside what the flags say.
pub(super) fn change<F: Fields>(
    place: &Place,
    update: &Change<F>,
    mut change: Value,
    wait: &Wait,
) -> Outcome {
    let (kind, noun, name) = (F::KIND, noun(F::KIND), &update.name);
    // Everything this command knows nothing of stays as it is.
    let (port, common) = (update.port.as_deref(), &update.common);
    let wrong = apply(&mut change, port, common, &update.fields);
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

pub(super) fn delete(place: &Place, kind: Kind, name: &str, wait: &Wait) -> Outcome {
    if place.delete(kind, name)?.is_empty() {
        return Err(invalid(format!("{} {name} does not exist", noun(kind))));
    }
    wait.deleted(place, kind, name)?;
    output::print(&format!("{kind} {name:?} is deleted"))
}

pub(super) fn generate<F: Fields>(create: &New<F>, format: &Format) -> Outcome {
    let value = resource(create)?;
    output::document(&value, format.encoding()?.unwrap_or(Encoding::Yaml))
}

pub(super) fn missing(place: &Place, kind: Kind, name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    format!(
        "{} {name} does not exist in namespace {}",
        noun(kind),
        place.name()
    )
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
    let notes = value["status"]["notes"].as_array();
    let notes = notes.into_iter().flatten();
    let notes: Vec<&str> = notes.filter_map(Value::as_str).collect();
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
        ("Note", notes.join("; ")),
    ];
    lines
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

pub(super) fn listener(place: &Place, verb: ListenerVerb) -> Outcome {
    let kind = Kind::Listener;
    match verb {
        ListenerVerb::Create { create: args, wait } => create(place, &args, &wait),
        ListenerVerb::Update { update: args, wait } => update(place, &args, &wait),
        ListenerVerb::Delete { name, wait } => delete(place, kind, &name, &wait),
        ListenerVerb::Generate { create, format } => generate(&create, &format),
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
                        ("Accelerated", accelerated(v)),
                        ("Message", message),
                    ]
                    .into_iter()
                    .chain(more(v))
                    .collect()
                },
            };
            show::show(place, name.as_deref(), &format, &show)
        }
    }
}

pub(super) fn connector(place: &Place, verb: ConnectorVerb) -> Outcome {
    let kind = Kind::Connector;
    match verb {
        ConnectorVerb::Create { create: args, wait } => create(place, &args, &wait),
        ConnectorVerb::Update { update: args, wait } => update(place, &args, &wait),
        ConnectorVerb::Delete { name, wait } => delete(place, kind, &name, &wait),
        ConnectorVerb::Generate { create, format } => generate(&create, &format),
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
                    .into_iter()
                    .chain(more(v))
                    .collect()
                },
            };
            show::show(place, name.as_deref(), &format, &show)
        }
    }
}

/// Whether a listener's connections are accelerated, and why not.
fn accelerated(value: &Value) -> String {
    match show::text(value, "/status/acceleration") {
        unasked if unasked.is_empty() => "off: neither it nor its site asks for it".to_owned(),
        said => said,
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
