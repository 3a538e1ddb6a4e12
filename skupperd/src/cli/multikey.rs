//! `skupper multikeylistener`

use super::{
    Failure, Outcome, invalid,
    output::Format,
    place::Place,
    service::{self, Change, Fields, New, missing, more, observer, yes},
    show,
    wait::Wait,
};
use crate::model::{Kind, check_name};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(super) struct MultiKeyFields {
    /// Routing keys in order: the first that is reachable gets all connections
    #[arg(
        long,
        value_name = "KEY,..",
        value_delimiter = ',',
        conflicts_with = "weighted"
    )]
    priority: Vec<String>,
    /// Routing keys with weights: those that are reachable share connections in proportion
    #[arg(long, value_name = "KEY=WEIGHT,..", value_delimiter = ',')]
    weighted: Vec<String>,
    /// Demand a certificate of clients
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    require_client_cert: Option<bool>,
    /// What is looked for in its traffic: auto, none, http1, http2
    #[arg(long)]
    observer: Option<String>,
}

impl Fields for MultiKeyFields {
    const KIND: Kind = Kind::MultiKeyListener;

    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        let weighted = self.weighted.iter();
        let weighted = weighted.map(|text| text.split_once('=').unwrap_or((text, "1")));
        let keys = weighted.clone().map(|(key, _)| key);
        for key in self.priority.iter().map(String::as_str).chain(keys) {
            if let Err(e) = check_name(key) {
                wrong.push(format!("routing key is not valid: {e}"));
            }
        }
        if !self.priority.is_empty() {
            spec["strategy"]["priority"]["routingKeys"] = json!(self.priority);
        }
        for (key, weight) in weighted {
            match weight.parse::<u32>() {
                Ok(weight @ 1..) => {
                    spec["strategy"]["weighted"]["routingKeys"][key] = json!(weight);
                }
                _ => wrong.push(format!(
                    "weight of {key} is not valid: {weight:?} is not a positive number"
                )),
            }
        }
        if let Some(require) = self.require_client_cert {
            spec["requireClientCert"] = json!(require);
        }
        observer(self.observer.as_deref(), spec, wrong);
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a listener with several routing keys
    Create {
        #[command(flatten)]
        create: New<MultiKeyFields>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a listener with several routing keys; not the kind of its strategy
    Update {
        #[command(flatten)]
        update: Change<MultiKeyFields>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a listener with several routing keys; its connections end
    Delete {
        /// Name
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show listeners with several routing keys
    Status {
        /// Name [default: all]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Print a MultiKeyListener resource and change nothing
    Generate {
        #[command(flatten)]
        create: New<MultiKeyFields>,
        #[command(flatten)]
        format: Format,
    },
}

/// Who creates one names its keys.
fn named(fields: &MultiKeyFields) -> Result<(), Failure> {
    if fields.priority.is_empty() && fields.weighted.is_empty() {
        return Err(invalid("either --priority or --weighted is required"));
    }
    Ok(())
}

/// Keys that are not named any more, as what takes them away.
fn dropped(place: &Place, update: &Change<MultiKeyFields>) -> Result<Value, Failure> {
    let mut change = json!({ "spec": {} });
    if update.fields.weighted.is_empty() {
        return Ok(change);
    }
    let all = place.documents(Kind::MultiKeyListener)?;
    let found = all.iter().find(|v| v["metadata"]["name"] == update.name);
    let keys = found.and_then(|v| v.pointer("/spec/strategy/weighted/routingKeys"));
    let keys = keys
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys);
    for key in keys {
        change["spec"]["strategy"]["weighted"]["routingKeys"][key] = Value::Null;
    }
    Ok(change)
}

/// Routing keys of a strategy at this place of a document, with their weights.
fn keys(value: &Value, at: &str, of: &str) -> String {
    let list = |kind: &str| value.pointer(&format!("{at}/strategy/{kind}/{of}"));
    if let Some(keys) = list("priority").and_then(Value::as_array) {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        return keys.join(",");
    }
    let weighted = list("weighted").and_then(Value::as_object);
    let weighted = weighted.into_iter().flatten();
    let weighted: Vec<String> = weighted.map(|(key, n)| format!("{key}={n}")).collect();
    weighted.join(",")
}

fn strategy(value: &Value) -> String {
    let kinds = ["priority", "weighted"];
    let set = |kind: &&str| value["spec"]["strategy"][*kind].is_object();
    kinds.into_iter().find(set).unwrap_or_default().to_owned()
}

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    let kind = Kind::MultiKeyListener;
    match verb {
        Verb::Create { create, wait } => {
            named(create.fields())?;
            service::create(place, &create, &wait)
        }
        Verb::Update { update, wait } => {
            let change = dropped(place, &update)?;
            service::change(place, &update, change, &wait)
        }
        Verb::Delete { name, wait } => service::delete(place, kind, &name, &wait),
        Verb::Generate { create, format } => {
            named(create.fields())?;
            service::generate(&create, &format)
        }
        Verb::Status { name, format } => {
            let show = show::Show {
                kind,
                none: "No multikeylisteners found",
                missing: missing(place, kind, name.as_deref()),
                header: &[
                    "NAME",
                    "STATUS",
                    "STRATEGY",
                    "ROUTING-KEYS",
                    "HOST",
                    "PORT",
                    "HAS-DESTINATION",
                    "MESSAGE",
                ],
                row: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        name,
                        status,
                        strategy(v),
                        keys(v, "/spec", "routingKeys"),
                        show::text(v, "/spec/host"),
                        show::text(v, "/spec/port"),
                        yes(v, "hasDestination"),
                        message,
                    ]
                },
                details: |v| {
                    let (name, status, message) = show::status(v);
                    let mut lines = vec![
                        ("Name", name),
                        ("Status", status),
                        ("Strategy", strategy(v)),
                        ("Routing keys", keys(v, "/spec", "routingKeys")),
                        ("Reachable", keys(v, "/status", "routingKeysReachable")),
                        ("Host", show::text(v, "/spec/host")),
                        ("Port", show::text(v, "/spec/port")),
                        ("Has Destination", yes(v, "hasDestination")),
                        ("Message", message),
                    ];
                    lines.extend(more(v));
                    lines
                },
            };
            show::show(place, name.as_deref(), &format, &show)
        }
    }
}
