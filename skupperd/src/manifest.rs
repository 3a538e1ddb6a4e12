//! Manifests: YAML or JSON documents to validated resources.
//!
//! Three stages: text to raw fields (all optional, nothing unknown), raw fields to [`crate::model`],
//! and a look at all resources of a namespace together ([`check_set`]). Every error names file,
//! line, resource and field.

mod convert;
mod locate;
mod raw;
mod set;

pub use set::check_set;

use crate::model::{Key, Kind, Resource};
use serde_yaml::Value;
use std::path::{Path, PathBuf};

/// Longest manifest read: a thousand Secrets.
pub const MAX_SIZE: u64 = 8 * 1024 * 1024;

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// File, or `-` for standard input.
    pub source: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Kind and name, as far as known.
    pub kind: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Path of the field, such as `spec.roles[1].name`.
    pub field: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl std::error::Error for ManifestError {}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: ", self.source.display(), self.line)?;
        match (&self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, "{kind} {name}: ")?,
            (Some(kind), None) => write!(f, "{kind}: ")?,
            _ => {}
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// A resource and the document it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The resource.
    pub resource: Resource,
    /// The document as it was.
    pub document: Value,
    /// File.
    pub source: PathBuf,
    /// Line where the document begins.
    pub line: usize,
}

impl Located {
    /// Kind and name.
    pub fn key(&self) -> &Key {
        &self.resource.key
    }
}

/// Reads all documents of a manifest; a bad one does not keep the others back. Resources must be of
/// `namespace`, or say nothing about it.
pub fn parse(
    source: &Path,
    text: &str,
    namespace: &str,
) -> Vec<Result<Located, Box<ManifestError>>> {
    let parts = documents(text);
    parts
        .into_iter()
        .filter(|(_, text)| !is_blank(text))
        .map(|(line, text)| document(source, line, text, namespace))
        .collect()
}

/// Documents with the line each begins on.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") || bare == "..." {
            parts.push((first, &text[start..at]));
            start = at + line.len();
            first = n + 2;
        }
        at += line.len();
    }
    parts.push((first, &text[start..]));
    parts
}

fn is_blank(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn document(
    source: &Path,
    first: usize,
    text: &str,
    namespace: &str,
) -> Result<Located, Box<ManifestError>> {
    let error = |line, kind: Option<&str>, name: Option<&str>, field, reason: String| {
        Box::new(ManifestError {
            source: source.to_owned(),
            line,
            kind: kind.map(str::to_owned),
            name: name.map(str::to_owned),
            field,
            reason,
        })
    };
    let yaml_error = |e: &serde_yaml::Error, kind: Option<&str>, name: Option<&str>| {
        let line = e
            .location()
            .map_or(first, |at| first + at.line().saturating_sub(1));
        let (field, reason) = locate::split_yaml_error(&e.to_string());
        error(line, kind, name, field, reason)
    };
    let value: Value = serde_yaml::from_str(text).map_err(|e| yaml_error(&e, None, None))?;
    let begin = first + text.lines().position(|l| !is_blank(l)).unwrap_or(0);
    let text_of = |key: &str| value.get(key).and_then(Value::as_str);
    if !value.is_mapping() {
        return Err(error(
            begin,
            None,
            None,
            None,
            "document is not a resource".to_owned(),
        ));
    }
    let name = value
        .get("metadata")
        .and_then(|m| m.get("name"))
        .and_then(Value::as_str);
    let at = |field: &str| locate::line_of(text, field).map_or(begin, |n| first + n);
    let Some(kind_text) = text_of("kind") else {
        let field = Some("kind".to_owned());
        return Err(error(
            begin,
            None,
            name,
            field,
            "is missing or not a string".to_owned(),
        ));
    };
    let Some(kind) = Kind::parse(kind_text) else {
        let reason = format!("unknown kind {kind_text:?}");
        return Err(error(
            at("kind"),
            None,
            name,
            Some("kind".to_owned()),
            reason,
        ));
    };
    if text_of("apiVersion") != Some(kind.api_version()) {
        let reason = format!("must be {}", kind.api_version());
        let field = Some("apiVersion".to_owned());
        return Err(error(
            at("apiVersion"),
            Some(kind_text),
            name,
            field,
            reason,
        ));
    }
    let resource = convert::convert(kind, text, namespace).map_err(|e| match e {
        convert::Problem::Yaml(e) => yaml_error(&e, Some(kind_text), name),
        convert::Problem::Field(field, reason) => {
            error(at(&field), Some(kind_text), name, Some(field), reason)
        }
    })?;
    Ok(Located {
        resource,
        document: value,
        source: source.to_owned(),
        line: begin,
    })
}
