//! Changing and reading the resources of a namespace.

use super::{
    Failure, Outcome, invalid,
    output::{self, Format},
};
use crate::{
    manifest::{Located, parse},
    model::{Key, Kind},
    store::{Namespace, PRIVATE, SHARED, lock, read_text, remove_file, write_file},
};
use anyhow::Context;
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Held while resources are looked at and changed: commands take turns.
pub(super) fn locked(namespace: &Namespace) -> Result<File, Failure> {
    let path = namespace.lock_file();
    Ok(lock(&path, true).with_context(|| format!("locking {}", path.display()))?)
}

/// Resources that are wanted, good ones only.
pub(super) fn wanted(namespace: &Namespace, kind: Kind) -> Result<Vec<Located>, Failure> {
    let loaded = namespace.load()?;
    Ok(loaded
        .resources
        .into_iter()
        .filter(|l| l.key().kind == kind)
        .collect())
}

/// One resource that is wanted.
pub(super) fn find(
    namespace: &Namespace,
    kind: Kind,
    name: &str,
) -> Result<Option<Located>, Failure> {
    Ok(wanted(namespace, kind)?
        .into_iter()
        .find(|l| l.key().name == name))
}

/// Resources of a kind with their status, by name: what the daemon wrote, or what is wanted where it
/// has not written anything yet.
pub(super) fn with_status(namespace: &Namespace, kind: Kind) -> Result<Vec<Value>, Failure> {
    let dir = namespace.resources();
    let mut found = std::collections::BTreeMap::new();
    for located in wanted(namespace, kind)? {
        let value = serde_json::to_value(&located.document).map_err(anyhow::Error::from)?;
        found.insert(located.key().name.clone(), value);
    }
    let prefix = format!("{kind}-");
    for entry in std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let file = entry.file_name();
        let name = file
            .to_str()
            .and_then(|f| f.strip_prefix(&prefix)?.strip_suffix(".yaml"));
        let Some(name) = name else { continue };
        let text = match read_text(&entry.path()) {
            Ok(text) => text,
            // Removed since the directory was read.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        let value: Value = serde_yaml::from_str(&text)
            .with_context(|| format!("reading {}", entry.path().display()))?;
        found.insert(name.to_owned(), value);
    }
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
    namespace: &Namespace,
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
pub(super) fn write(namespace: &Namespace, value: &Value) -> Result<PathBuf, Failure> {
    let (kind, name) = (text(value, "/kind"), text(value, "/metadata/name"));
    let path = namespace.resource_file(&kind, &name);
    let body = serde_yaml::to_string(value).map_err(anyhow::Error::from)?;
    let source = Path::new("-");
    for document in parse(source, &body, &namespace.name) {
        // What the daemon would refuse is not written.
        document.map_err(|e| invalid(e.to_string()))?;
    }
    let key = Kind::parse(&kind).map(|kind| Key { kind, name });
    if let Some(key) = key {
        let elsewhere = namespace
            .load()?
            .resources
            .into_iter()
            .find(|l| *l.key() == key);
        if let Some(located) = elsewhere.filter(|l| l.source != path) {
            remove_from(namespace, &located.source, &key)?;
        }
    }
    let mode = if kind == "Secret" { PRIVATE } else { SHARED };
    write_file(&path, body.as_bytes(), mode)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Removes a resource, from whatever file it is in. False: there is none.
pub(super) fn remove(namespace: &Namespace, key: &Key) -> Result<bool, Failure> {
    let found = namespace
        .load()?
        .resources
        .into_iter()
        .find(|l| l.key() == key);
    let source = match found {
        Some(located) => located.source,
        None => {
            // One that does not read can be removed by its file's name.
            let path = namespace.resource_file(key.kind.as_str(), &key.name);
            if !path.exists() {
                return Ok(false);
            }
            path
        }
    };
    remove_from(namespace, &source, key)?;
    Ok(true)
}

/// Takes one document out of a file; the others stay as they are, to the letter.
fn remove_from(namespace: &Namespace, path: &Path, key: &Key) -> Outcome {
    let body = read_text(path).with_context(|| format!("reading {}", path.display()))?;
    let mut parts: Vec<String> = vec![String::new()];
    for line in body.split_inclusive('\n') {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    let is_it = |part: &String| {
        parse(path, part, &namespace.name)
            .into_iter()
            .any(|d| d.is_ok_and(|located| located.key() == key))
    };
    let left: Vec<String> = parts.iter().filter(|p| !is_it(p)).cloned().collect();
    let rest: String = left.concat();
    let blank = rest
        .lines()
        .all(|l| l.trim().is_empty() || l.trim() == "---");
    let failed = || format!("changing {}", path.display());
    if left.len() == parts.len() || blank {
        remove_file(path).with_context(failed)?;
    } else {
        let secret = rest.contains("kind: Secret") || rest.contains("\"Secret\"");
        let mode = if secret { PRIVATE } else { SHARED };
        write_file(path, rest.as_bytes(), mode).with_context(failed)?;
    }
    Ok(())
}
