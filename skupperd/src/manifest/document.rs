//! Reads one document as a resource, or reports its error.

use super::{
    KnownLines, LocatedResource, MAX_DOCUMENT_SIZE, ManifestError,
    checks::Problem,
    convert::convert,
    field_error::FieldError,
    lines::FieldLines,
    node::{YamlNode, YamlValue},
    secret,
    split::{DocumentSpan, line_ends},
    tree::{self, TreeError},
};
use crate::model::{Kind, Namespace};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Characters shown of a name or path, and of a reason: messages are read by people.
const MAX_SHOWN: usize = 256;
const MAX_REASON: usize = 1024;

/// A document on its way to a resource.
struct Document<'a> {
    file: &'a Arc<Path>,
    text: &'a str,
    /// Line of the file where the text begins.
    first: usize,
    /// Empty until the text is a tree.
    lines: Option<FieldLines>,
    kind: Option<String>,
    name: Option<String>,
}

pub(super) fn read(
    file: &Arc<Path>,
    bytes: &[u8],
    part: &DocumentSpan,
    namespace: Option<&Namespace>,
) -> Result<LocatedResource, ManifestError> {
    let bytes = bytes.get(part.body.clone()).unwrap_or_default();
    let mut document = Document {
        file,
        text: "",
        first: part.line,
        lines: None,
        kind: None,
        name: None,
    };
    if bytes.len() > MAX_DOCUMENT_SIZE {
        let text = format!("document is larger than {MAX_DOCUMENT_SIZE} bytes");
        return Err(document.error_at(part.line, None, text));
    }
    document.text = std::str::from_utf8(bytes).map_err(|e| {
        let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
        let line = part.line + line_ends(good);
        document.error_at(line, None, "document is not UTF-8")
    })?;
    if let Some((at, c)) = document
        .text
        .char_indices()
        .find(|(_, c)| !is_printable(*c))
    {
        let line = part.line
            + document
                .text
                .get(..at)
                .map_or(0, |t| t.matches('\n').count());
        let text = format!("character U+{:04X} is not allowed", u32::from(c));
        return Err(document.error_at(line, None, text));
    }
    let root = tree::parse(document.text).map_err(|e| {
        let TreeError { error, kind, name } = *e;
        (document.kind, document.name) = (kind, name);
        document.field_error(&error)
    })?;
    document.lines = Some(FieldLines::of(&root));
    let text_of = |node: Option<&YamlNode>| node?.as_text().map(str::to_owned);
    let metadata = root.get("metadata");
    document.name = text_of(metadata.and_then(|metadata| metadata.get("name")));
    document.name = document.name.filter(|name| !name.is_empty());
    document.kind = text_of(root.get("kind"));
    if !matches!(root.value, YamlValue::Mapping(_)) {
        return Err(document.error(None, "document is not a resource"));
    }
    let Some(kind) = document.kind.as_deref() else {
        return Err(document.error(Some("kind"), not_a_text(&root, "kind")));
    };
    let Some(kind) = Kind::parse(kind) else {
        let text = format!("unknown kind {kind:?}");
        document.kind = None;
        let version = root.get("apiVersion").and_then(YamlNode::as_text);
        return Err(ManifestError {
            is_other_api: version.is_some_and(|version| !version.starts_with("skupper.io/")),
            ..document.error(Some("kind"), text)
        });
    };
    match root.get("apiVersion").and_then(YamlNode::as_text) {
        Some(version) if version == kind.api_version() => {}
        Some(version) => {
            let text = format!("is {version:?}, but must be {:?}", kind.api_version());
            return Err(document.error(Some("apiVersion"), text));
        }
        None => return Err(document.error(Some("apiVersion"), not_a_text(&root, "apiVersion"))),
    }
    let resource = convert(kind, &root, namespace).map_err(|e| match e {
        Problem::Raw(e) => document.field_error(&e),
        Problem::Field(field, reason) => document.error(Some(&field), reason),
    })?;
    let mut shown = root.to_json();
    if kind == Kind::Secret {
        secret::redact(&mut shown);
    } else if let Some(fields) = shown.as_object_mut() {
        // A Site may have no spec; readers of the document expect one.
        let spec = fields.entry("spec").or_insert(Value::Null);
        if spec.is_null() {
            *spec = json!({});
        }
    }
    let line = document.begin();
    let field_lines = match document.lines {
        Some(lines) if kind != Kind::Secret => KnownLines::Lines(Arc::new(lines)),
        _ => KnownLines::Name(document.line_of("metadata.name")),
    };
    Ok(LocatedResource {
        resource,
        document: Arc::new(shown),
        file: Arc::clone(file),
        line,
        span: part.span.clone(),
        body: part.body.clone(),
        first: part.line,
        field_lines,
    })
}

/// Characters that YAML allows (5.1 of its specification).
fn is_printable(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}'
            | '\u{10000}'..
    )
}

fn not_a_text(root: &YamlNode, field: &str) -> &'static str {
    match root.get(field).map(|node| &node.value) {
        None | Some(YamlValue::Null) => "is required",
        Some(_) => "is not a string",
    }
}

impl Document<'_> {
    /// Line of the file where the document's content begins.
    fn begin(&self) -> usize {
        self.first + blank_lines(self.text)
    }

    fn line_of(&self, field: &str) -> usize {
        let line = self.lines.as_ref().and_then(|lines| lines.line_of(field));
        line.map_or_else(|| self.begin(), |line| self.first + line)
    }

    fn error(&self, field: Option<&str>, reason: impl Into<String>) -> ManifestError {
        let line = field.map_or_else(|| self.begin(), |field| self.line_of(field));
        self.error_at(line, field, reason)
    }

    fn error_at(
        &self,
        line: usize,
        field: Option<&str>,
        reason: impl Into<String>,
    ) -> ManifestError {
        let short = |text: &str, max: usize| match text.char_indices().nth(max) {
            Some((at, _)) => format!("{}..", text.get(..at).unwrap_or_default()),
            None => text.to_owned(),
        };
        ManifestError {
            file: Arc::clone(self.file),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            kind: self.kind.as_deref().map(|text| short(text, MAX_SHOWN)),
            name: self.name.as_deref().map(|text| short(text, MAX_SHOWN)),
            field: field.map(|text| short(text, MAX_SHOWN)),
            reason: short(&reason.into(), MAX_REASON),
            is_other_api: false,
        }
    }

    fn field_error(&self, error: &FieldError) -> ManifestError {
        // A message about a Secret may not quote what is in it.
        let quotes = self.kind.as_deref() != Some("Secret");
        let field = Some(error.field.as_str()).filter(|field| !field.is_empty());
        let reason = error.reason(self.first, quotes);
        self.error_at(self.first + error.line(), field, reason)
    }
}

/// Lines before the first that has anything but a comment on it.
fn blank_lines(text: &str) -> usize {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    text.lines()
        .position(|line| !blank(line))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_begins_after_blank_lines_and_comments() {
        assert_eq!(blank_lines("\n# x\n\na: 1\n"), 3);
        assert_eq!(blank_lines("a: 1\n"), 0);
        assert_eq!(blank_lines("\n\n"), 0);
    }
}
