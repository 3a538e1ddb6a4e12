//! `skupper multikeylistener`

use super::{
    edit::{self, Words},
    flags,
    service::{ChangedService, Fields, NewService, more, yes},
    show,
};
use crate::model::{Kind, check_name};
use clap::Args;
use serde_json::{Map, Value, json};

#[derive(Debug)]
pub(super) struct MultiKeyListeners;

pub(super) type Verb = edit::Verb<MultiKeyListeners>;

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
    const NOUN: &'static str = "multikeylistener";

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
        flags::told([("requireClientCert", self.require_client_cert)], spec);
        flags::observer(self.observer.as_deref(), spec, wrong);
    }

    fn missing(&self) -> Option<&'static str> {
        let none = self.priority.is_empty() && self.weighted.is_empty();
        none.then_some("either --priority or --weighted is required")
    }

    /// Keys that are not named any more.
    fn dropped(&self, value: &Value) -> Value {
        let mut change = json!({ "spec": {} });
        if self.weighted.is_empty() {
            return change;
        }
        let keys = value.pointer("/spec/strategy/weighted/routingKeys");
        let keys = keys.and_then(Value::as_object);
        for key in keys.into_iter().flat_map(Map::keys) {
            change["spec"]["strategy"]["weighted"]["routingKeys"][key] = Value::Null;
        }
        change
    }
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

impl Words for MultiKeyListeners {
    const KIND: Kind = MultiKeyFields::KIND;
    const NOUN: &'static str = MultiKeyFields::NOUN;
    const ONE: &'static str = "a listener with several routing keys";
    const MANY: &'static str = "listeners with several routing keys";
    const AND: (&'static str, &'static str) =
        ("; not the kind of its strategy", "; its connections end");
    const NONE: &'static str = "No multikeylisteners found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "STATUS",
        "STRATEGY",
        "ROUTING-KEYS",
        "HOST",
        "PORT",
        "HAS-DESTINATION",
        "MESSAGE",
    ];
    type New = NewService<MultiKeyFields>;
    type Change = ChangedService<MultiKeyFields>;

    fn spec(_: &str) -> Value {
        json!({ "host": "0.0.0.0" })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        vec![
            name,
            status,
            strategy(value),
            keys(value, "/spec", "routingKeys"),
            show::text(value, "/spec/host"),
            show::text(value, "/spec/port"),
            yes(value, "hasDestination"),
            message,
        ]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let mut lines = vec![
            ("Name", name),
            ("Status", status),
            ("Strategy", strategy(value)),
            ("Routing keys", keys(value, "/spec", "routingKeys")),
            ("Reachable", keys(value, "/status", "routingKeysReachable")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            ("Has Destination", yes(value, "hasDestination")),
            ("Message", message),
        ];
        lines.extend(more(value));
        lines
    }
}
