//! Changing and reading the resources of a namespace.

use super::{
    Failure, Outcome, invalid,
    output::{self, Format},
};
use crate::{
    manifest::{Located, to_yaml},
    model::{Key, Kind, Name},
    store::{Editor, NamespaceDir, StoreError},
};
use serde_json::Value;
use std::path::PathBuf;

/// Resources that are wanted, good ones only.
pub(super) fn wanted(namespace: &NamespaceDir, kind: Kind) -> Result<Vec<Located>, Failure> {
    let loaded = namespace.load()?;
    Ok(loaded
        .resources
        .into_iter()
        .filter(|l| l.resource.kind() == kind)
        .collect())
}

/// One resource that is wanted.
pub(super) fn find(
    namespace: &NamespaceDir,
    kind: Kind,
    name: &str,
) -> Result<Option<Located>, Failure> {
    Ok(wanted(namespace, kind)?
        .into_iter()
        .find(|l| *l.resource.name() == *name))
}

/// Resources of a kind with their status, by name: what the daemon wrote, or what is wanted where it
/// has not written anything yet.
pub(super) fn with_status(namespace: &NamespaceDir, kind: Kind) -> Result<Vec<Value>, Failure> {
    let mut found: std::collections::BTreeMap<Name, Value> = wanted(namespace, kind)?
        .into_iter()
        .map(|located| (located.resource.name().clone(), (*located.document).clone()))
        .collect();
    found.extend(namespace.statuses(kind)?);
    Ok(found.into_values().collect())
}

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
pub(super) fn show(
    namespace: &NamespaceDir,
    name: Option<&str>,
    format: &Format,
    show: &Show<'_>,
) -> Outcome {
    let encoding = format.encoding()?;
    let all = with_status(namespace, show.kind)?;
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

/// Writes a resource to the file that it is in, or to its own.
pub(super) fn write(editor: &mut Editor, value: &Value) -> Result<PathBuf, Failure> {
    let text = to_yaml(value).map_err(anyhow::Error::from)?;
    editor.write_resource(&text).map_err(|e| match e {
        // What the daemon would refuse is not written.
        StoreError::Refused(error) => invalid(error.to_string()),
        other => other.into(),
    })
}

/// Removes a resource, from whatever file it is in. False: there is none.
pub(super) fn remove(editor: &mut Editor, kind: Kind, name: &str) -> Result<bool, Failure> {
    // A name that can not be is nobody's.
    let Ok(name) = Name::new(name) else {
        return Ok(false);
    };
    Ok(!editor.remove_resource(&Key { kind, name })?.is_empty())
}
