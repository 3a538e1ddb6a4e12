//! Status of the resources of a namespace: one in detail, or a table of all.

use super::{CommandResult, Failure, invalid, output, target::CommandTarget, view::ViewArgs};
use crate::model::Kind;
use serde_json::Value;
use std::{cell::Cell, net::Ipv6Addr};

/// How the status of a kind is shown.
pub(super) struct StatusView<'a> {
    pub(super) kind: Kind,
    pub(super) noun: &'a str,
    /// Printed where there are none.
    pub(super) empty: &'a str,
    pub(super) header: &'a [&'a str],
    pub(super) row: fn(&Value) -> Vec<String>,
    pub(super) details: fn(&Value) -> Vec<(&'static str, String)>,
}

/// Prints the resource of a name in detail, or a table of all.
pub(super) fn print(
    target: &CommandTarget,
    name: Option<&str>,
    view: &ViewArgs,
    status: &StatusView<'_>,
) -> CommandResult {
    let any = Cell::new(false);
    let load = || {
        let mut all = target.documents(status.kind)?;
        any.set(!all.is_empty());
        let Some(name) = name else {
            return Ok(Value::Array(all));
        };
        let position = all.iter().position(|v| v["metadata"]["name"] == name);
        let position = position.ok_or_else(|| not_found(target, status.noun, name))?;
        Ok(all.swap_remove(position))
    };
    view.show(load, |value| match value.as_array() {
        None => output::lines(&(status.details)(value)),
        Some(all) if all.is_empty() => status.empty.to_owned(),
        Some(all) => {
            let rows: Vec<Vec<String>> = all.iter().map(status.row).collect();
            output::columns(status.header, &rows)
        }
    })?;
    match any.get() {
        true => target.ensure_running(),
        false => Ok(()),
    }
}

/// The error for a name that no resource has. Links have a text of their own in Skupper.
pub(super) fn not_found(target: &CommandTarget, noun: &str, name: &str) -> Failure {
    invalid(match noun {
        "link" => format!("There is no link resource in the namespace with the name {name:?}"),
        _ => format!(
            "{noun} {name} does not exist in namespace {}",
            target.name()
        ),
    })
}

/// Fields that were accepted and have no effect.
pub(super) fn notes(value: &Value) -> String {
    let notes = value["status"]["notes"].as_array();
    let notes = notes.into_iter().flatten();
    let notes: Vec<&str> = notes.filter_map(Value::as_str).collect();
    notes.join("; ")
}

/// Host and port; an IPv6 address in brackets (RFC 3986).
pub(super) fn address(host: &str, port: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Text of a field; empty where it is absent.
pub(super) fn text(value: &Value, path: &str) -> String {
    match value.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The cells that every table has: name, status, message.
pub(super) fn status(value: &Value) -> (String, String, String) {
    let or = |text: String, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text
        }
    };
    (
        text(value, "/metadata/name"),
        or(text(value, "/status/status"), "Pending"),
        or(text(value, "/status/message"), "Not initialized yet"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_in_brackets() {
        assert_eq!(address("::1", "9002"), "[::1]:9002");
        assert_eq!(address("::", "9003"), "[::]:9003");
        assert_eq!(address("127.0.0.1", "80"), "127.0.0.1:80");
        assert_eq!(address("web.example", "80"), "web.example:80");
    }
}
