//! Showing the resources of a namespace.

use super::{
    Outcome, invalid,
    output::{self, Format},
    place::Place,
};
use crate::model::Kind;
use serde_json::Value;

/// The status of a kind: one by name, or all as a table.
pub(super) struct Show<'a> {
    pub(super) kind: Kind,
    pub(super) none: &'a str,
    pub(super) missing: String,
    pub(super) header: &'a [&'a str],
    pub(super) row: fn(&Value) -> Vec<String>,
    pub(super) details: fn(&Value) -> Vec<(&'static str, String)>,
}

/// Prints a status.
pub(super) fn show(place: &Place, name: Option<&str>, format: &Format, show: &Show<'_>) -> Outcome {
    let encoding = format.encoding()?;
    let all = place.documents(show.kind)?;
    if let Some(name) = name {
        let one = all.iter().find(|v| v["metadata"]["name"] == name);
        let one = one.ok_or_else(|| invalid(&*show.missing))?;
        return match encoding {
            Some(encoding) => output::document(one, encoding),
            None => output::details(&(show.details)(one)),
        };
    }
    match encoding {
        Some(encoding) => output::document(&Value::Array(all), encoding),
        None if all.is_empty() => output::print(show.none),
        None => {
            let rows: Vec<Vec<String>> = all.iter().map(show.row).collect();
            output::table(show.header, &rows)
        }
    }
}

/// Text of a field, empty when absent.
pub(super) fn text(value: &Value, path: &str) -> String {
    match value.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The three cells every table has: name, status, message.
pub(super) fn status(value: &Value) -> (String, String, String) {
    let pending = |s: String, or: &str| if s.is_empty() { or.to_owned() } else { s };
    (
        text(value, "/metadata/name"),
        pending(text(value, "/status/status"), "Pending"),
        pending(text(value, "/status/message"), "Not initialized yet"),
    )
}
