//! `skupper listener`

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
pub(super) struct Listeners;

pub(super) type Verb = edit::Verb<Listeners>;

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
    const NOUN: &'static str = "listener";

    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        self.routed.apply(Self::NOUN, spec, wrong);
        flags::observer(self.observer.as_deref(), spec, wrong);
    }
}

impl Words for Listeners {
    const KIND: Kind = ListenerFields::KIND;
    const NOUN: &'static str = ListenerFields::NOUN;
    const ONE: &'static str = "a listener";
    const MANY: &'static str = "listeners";
    const AND: (&'static str, &'static str) = ("", "; its connections end");
    const NONE: &'static str = "No listeners found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "STATUS",
        "ROUTING-KEY",
        "HOST",
        "PORT",
        "MATCHING-CONNECTOR",
        "MESSAGE",
    ];
    type New = NewService<ListenerFields>;
    type Change = ChangedService<ListenerFields>;

    fn spec(name: &str) -> Value {
        json!({ "routingKey": name, "host": "0.0.0.0", "type": "tcp" })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let matched = yes(value, "hasMatchingConnector");
        let (key, host, port) = (spec("routingKey"), spec("host"), spec("port"));
        vec![name, status, key, host, port, matched, message]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let mut lines = vec![
            ("Name", name),
            ("Status", status),
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Host", show::text(value, "/spec/host")),
            ("Port", show::text(value, "/spec/port")),
            ("Has Matching Connector", yes(value, "hasMatchingConnector")),
            ("Reached", reached(value)),
            ("Accelerated", accelerated(value)),
            ("Message", message),
        ];
        lines.extend(more(value));
        lines
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
