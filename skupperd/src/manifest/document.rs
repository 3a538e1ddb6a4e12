//! One document to one resource, or to what is wrong with it.

use super::{
    Located, MAX_DOCUMENT_SIZE, ManifestError, Places,
    convert::{Problem, convert},
    locate, secret,
    split::{Part, lines},
    value,
};
use crate::model::{Kind, Namespace};
use serde_json::Value;
use std::{path::Path, sync::Arc};

/// Characters shown of a name or path, and of a reason: a message is for people.
const MAX_SHOWN: usize = 256;
const MAX_REASON: usize = 1024;

/// What is known of a document before it is a resource.
struct Document<'a> {
    file: &'a Arc<Path>,
    text: &'a str,
    /// Line where the text begins.
    first: usize,
    kind: Option<String>,
    name: Option<String>,
}

pub(super) fn read(
    file: &Arc<Path>,
    bytes: &[u8],
    part: &Part,
    namespace: Option<&Namespace>,
) -> Result<Located, ManifestError> {
    let bytes = bytes.get(part.body.clone()).unwrap_or_default();
    let mut document = Document {
        file,
        text: "",
        first: part.line,
        kind: None,
        name: None,
    };
    if bytes.len() > MAX_DOCUMENT_SIZE {
        let text = format!("document is larger than {MAX_DOCUMENT_SIZE} bytes");
        return Err(document.error_at(part.line, None, text));
    }
    document.text = std::str::from_utf8(bytes).map_err(|e| {
        let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
        let line = part.line + lines(good);
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
    if value::is_too_deep(document.text) {
        return Err(document.error(None, "document is nested too deeply"));
    }
    let mut tree = match value::tree(document.text) {
        Ok(tree) => tree,
        Err(e) => {
            (document.kind, document.name) = value::identity(document.text);
            return Err(document.yaml_error(&e));
        }
    };
    let text_of = |path: &str| {
        tree.pointer(path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    document.name = text_of("/metadata/name").filter(|name| !name.is_empty());
    document.kind = text_of("/kind");
    if !tree.is_object() {
        return Err(document.error(None, "document is not a resource"));
    }
    let Some(kind) = document.kind.as_deref() else {
        return Err(document.error(Some("kind"), not_a_text(&tree, "kind")));
    };
    let Some(kind) = Kind::parse(kind) else {
        let text = format!("unknown kind {kind:?}");
        document.kind = None;
        return Err(document.error(Some("kind"), text));
    };
    match tree.get("apiVersion").and_then(Value::as_str) {
        Some(version) if version == kind.api_version() => {}
        Some(version) => {
            let text = format!("is {version:?}, but must be {:?}", kind.api_version());
            return Err(document.error(Some("apiVersion"), text));
        }
        None => return Err(document.error(Some("apiVersion"), not_a_text(&tree, "apiVersion"))),
    }
    let converted = convert(kind, document.text, namespace);
    if kind == Kind::Secret {
        secret::redact(&mut tree);
    }
    let resource = converted.map_err(|e| match e {
        Problem::Yaml(e) => document.yaml_error(&e),
        Problem::Field(field, reason) => document.error(Some(&field), reason),
    })?;
    let places = if kind == Kind::Secret {
        Places::Name(document.line_of("metadata.name"))
    } else {
        Places::Text(Arc::from(document.text))
    };
    Ok(Located {
        resource,
        document: Arc::new(tree),
        file: Arc::clone(file),
        line: document.begin(),
        span: part.span.clone(),
        body: part.body.clone(),
        first: part.line,
        places,
    })
}

/// What YAML allows (5.1 of its specification).
fn is_printable(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}'
            | '\u{10000}'..
    )
}

fn not_a_text(tree: &Value, field: &str) -> &'static str {
    match tree.get(field) {
        None | Some(Value::Null) => "is required",
        Some(_) => "is not a string",
    }
}

impl Document<'_> {
    /// Line of the first thing in the document.
    fn begin(&self) -> usize {
        self.first + locate::blank_lines(self.text)
    }

    fn line_of(&self, field: &str) -> usize {
        locate::line_of(self.text, field).map_or_else(|| self.begin(), |n| self.first + n)
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
            line,
            kind: self.kind.as_deref().map(|text| short(text, MAX_SHOWN)),
            name: self.name.as_deref().map(|text| short(text, MAX_SHOWN)),
            field: field.map(|text| short(text, MAX_SHOWN)),
            reason: short(&reason.into(), MAX_REASON),
        }
    }

    fn yaml_error(&self, error: &serde_yaml::Error) -> ManifestError {
        // What is wrong with a Secret may quote what is in it.
        let quote = self.kind.as_deref() != Some("Secret");
        let told = Told::of(&error.to_string(), quote);
        // The end of a text is told as the line after it.
        let last = self.text.lines().count().saturating_sub(1);
        let at = error
            .location()
            .map(|at| self.first + at.line().saturating_sub(1).min(last));
        let line = match (&told.field, at) {
            // Of a value below its key the parser tells the value's line.
            (Some(field), at) => locate::line_of(self.text, field)
                .map(|n| self.first + n)
                .or(at)
                .unwrap_or_else(|| self.begin()),
            (None, Some(at)) => at,
            (None, None) => self.begin(),
        };
        self.error_at(line, told.field.as_deref(), told.reason)
    }
}

/// What a deserializer's message tells: `spec.port: invalid type: string "x", expected i64 at line 7
/// column 9`.
struct Told {
    field: Option<String>,
    reason: String,
}

impl Told {
    fn of(message: &str, quote: bool) -> Self {
        let text = &without_places(message);
        let starts = [
            "invalid ",
            "unknown field ",
            "duplicate field ",
            "missing field ",
            "aliases ",
            "tags ",
        ];
        let starts = starts.iter().filter_map(|start| {
            let at = text.find(start)?;
            let path = text.get(..at)?;
            (path.is_empty() || path.ends_with(": ")).then_some(at)
        });
        let Some(at) = starts.min() else {
            return Self {
                field: None,
                reason: syntax(text),
            };
        };
        let (path, reason) = text.split_at(at);
        let path = path.trim_end_matches(": ");
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        let named = |reason: &str| reason.split('`').nth(1).map(below);
        if let Some(rest) = reason.strip_prefix("unknown field ") {
            let known: Vec<&str> = rest.split('`').skip(3).step_by(2).collect();
            return Self {
                field: named(reason),
                reason: format!("unknown field (known ones: {})", known.join(", ")),
            };
        }
        if reason.starts_with("duplicate field ") {
            return Self {
                field: named(reason),
                reason: "is there twice".to_owned(),
            };
        }
        if reason.starts_with("missing field ") {
            return Self {
                field: named(reason),
                reason: "is required".to_owned(),
            };
        }
        let reason = if reason.starts_with("invalid ") {
            mismatch(reason, quote)
        } else {
            reason.to_owned()
        };
        Self {
            field: Some(path.to_owned()).filter(|p| !p.is_empty()),
            reason,
        }
    }
}

/// A message without ` at line 7 column 9`: these count from where the document begins.
fn without_places(message: &str) -> String {
    let mut parts = message.split(" at line ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest.strip_prefix(" column ").unwrap_or(rest);
        text.push_str(rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}

/// `invalid type: string "x", expected i64` in words for people.
fn mismatch(reason: &str, quote: bool) -> String {
    let Some((found, expected)) = reason
        .split_once(": ")
        .and_then(|(_, rest)| rest.rsplit_once(", expected "))
    else {
        return if quote {
            reason.to_owned()
        } else {
            "is not what it must be".to_owned()
        };
    };
    let found = match found {
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "nothing".to_owned(),
        other => {
            let (kind, value) = other.split_once(' ').unwrap_or((other, ""));
            if quote && value.chars().count() <= 80 {
                let value = value
                    .replace('`', "")
                    .replace(" as u128", "")
                    .replace(" as i128", "");
                format!("{kind} {value}").trim_end().to_owned()
            } else {
                kind.to_owned()
            }
        }
    };
    let expected = match expected {
        "i64" | "u64" => "an integer",
        "a map" => "a mapping",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a mapping",
        other => other,
    };
    if expected == "an integer" && found.starts_with("integer ") {
        return format!("{found} is out of range");
    }
    format!("expected {expected}, found {found}")
}

/// What the scanner says, without the places that it names inside its texts.
fn syntax(text: &str) -> String {
    match text {
        "recursion limit exceeded" => "document is nested too deeply".to_owned(),
        "repetition limit exceeded" => "aliases make the document too large".to_owned(),
        text => format!("not valid YAML: {text}"),
    }
}
