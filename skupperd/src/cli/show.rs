//! Showing the resources of a namespace.

use super::{Outcome, invalid, output, place::Place, view::View};
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
pub(super) fn show(place: &Place, name: Option<&str>, view: &View, show: &Show<'_>) -> Outcome {
    let look = || {
        let mut all = place.documents(show.kind)?;
        let Some(name) = name else {
            return Ok(Value::Array(all));
        };
        let one = all.iter().position(|v| v["metadata"]["name"] == name);
        let one = one.ok_or_else(|| invalid(&*show.missing))?;
        Ok(all.swap_remove(one))
    };
    view.show(look, |value| match value.as_array() {
        None => output::lines(&(show.details)(value)),
        Some(all) if all.is_empty() => show.none.to_owned(),
        Some(all) => {
            let rows: Vec<Vec<String>> = all.iter().map(show.row).collect();
            output::columns(show.header, &rows)
        }
    })
}

/// What was accepted and has no effect.
pub(super) fn notes(value: &Value) -> String {
    let notes = value["status"]["notes"].as_array();
    let notes = notes.into_iter().flatten();
    let notes: Vec<&str> = notes.filter_map(Value::as_str).collect();
    notes.join("; ")
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
