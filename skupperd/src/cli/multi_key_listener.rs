//! `skupper multikeylistener`

use super::{
    flags,
    resource::{self, CliKind, VerbExamples},
    service::{CreateServiceArgs, ServiceArgs, UpdateServiceArgs, bool_text, optional_details},
    show,
};
use crate::model::{Kind, check_name};
use clap::Args;
use serde_json::{Map, Value, json};

#[derive(Debug)]
pub(super) struct MultiKeyListeners;

pub(super) type Verb = resource::Verb<MultiKeyListeners>;

#[derive(Debug, Args)]
pub(super) struct MultiKeyListenerArgs {
    /// Failover: routing keys in order; the first that is reachable gets all connections
    #[arg(
        long,
        value_name = "KEY,..",
        value_delimiter = ',',
        conflicts_with = "weighted"
    )]
    priority: Vec<String>,
    /// Shares: routing keys with weights; the reachable ones share connections in proportion
    #[arg(long, value_name = "KEY=WEIGHT,..", value_delimiter = ',')]
    weighted: Vec<String>,
    /// Require clients to present a certificate
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    require_client_cert: Option<bool>,
    /// Requests to count in the traffic: auto, none, http1 or http2 [default: auto]
    #[arg(long, value_name = "PROTOCOL")]
    observer: Option<String>,
}

impl ServiceArgs for MultiKeyListenerArgs {
    const KIND: Kind = Kind::MultiKeyListener;
    const NOUN: &'static str = "multikeylistener";
    const PORT_HELP: &'static str = "Port that clients connect to";
    const HOST_HELP: &'static str =
        "Address to listen on [default: 0.0.0.0, every IPv4 address of this host]";

    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        let weighted = self.weighted.iter();
        let weighted = weighted.map(|text| text.split_once('=').unwrap_or((text, "1")));
        let keys = weighted.clone().map(|(key, _)| key);
        for key in self.priority.iter().map(String::as_str).chain(keys) {
            if let Err(e) = check_name(key) {
                errors.push(format!("routing key is not valid: {e}"));
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
                _ => errors.push(format!(
                    "weight of {key} is not valid: {weight:?} is not a positive number"
                )),
            }
        }
        flags::set_bools([("requireClientCert", self.require_client_cert)], spec);
        flags::set_observer(self.observer.as_deref(), spec, errors);
    }

    fn missing_argument(&self) -> Option<&'static str> {
        let none = self.priority.is_empty() && self.weighted.is_empty();
        none.then_some("either --priority or --weighted is required")
    }

    /// Keys that `--weighted` no longer names.
    fn removed_fields(&self, value: &Value) -> Value {
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

/// Routing keys of the strategy at `at` of a document, with their weights.
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

impl CliKind for MultiKeyListeners {
    const KIND: Kind = MultiKeyListenerArgs::KIND;
    const NOUN: &'static str = MultiKeyListenerArgs::NOUN;
    const SINGULAR: &'static str = "a listener with several routing keys";
    const PLURAL: &'static str = "listeners with several routing keys";
    const EFFECTS: (&'static str, &'static str) = (
        ". The strategy cannot change between --priority and --weighted",
        "; its connections end",
    );
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Failover: db-east while it is reachable, else db-west",
            "skupper multikeylistener create db 5432 --priority db-east,db-west",
            "# Three of four connections to web-a, the others to web-b",
            "skupper multikeylistener create web 8080 --weighted web-a=3,web-b=1",
        ],
        update: &["skupper multikeylistener update db --priority db-west,db-east"],
        delete: &["skupper multikeylistener delete db"],
        status: &[
            "skupper multikeylistener status",
            "skupper multikeylistener status db",
        ],
        generate: &[
            "skupper multikeylistener generate db 5432 --priority db-east,db-west > db.yaml",
        ],
    };
    const EMPTY: &'static str = "No multikeylisteners found";
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
    type CreateArgs = CreateServiceArgs<MultiKeyListenerArgs>;
    type UpdateArgs = UpdateServiceArgs<MultiKeyListenerArgs>;

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
            bool_text(value, "hasDestination"),
            message,
        ]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("Strategy", strategy(value)),
            ("Routing keys", keys(value, "/spec", "routingKeys")),
            ("Reachable", keys(value, "/status", "routingKeysReachable")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            ("Has Destination", bool_text(value, "hasDestination")),
        ]
    }

    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        optional_details(value)
    }
}
