//! What is wrong with a field of a document: its path, its line and why.

use serde::de::{self, Expected, Unexpected};
use std::fmt;

/// Longest value that a message quotes, in characters.
const MAX_QUOTED: usize = 80;

/// What is wrong with a field of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldError {
    /// Path such as `spec.roles[1].name`; empty for the document as a whole.
    pub(super) field: String,
    /// From 0, in the document; `None` until the field is known.
    line: Option<usize>,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq)]
enum Reason {
    Text(String),
    /// The key is there already, at this line of the document.
    Duplicate(usize),
    Mismatch {
        /// Type of what was found.
        found: &'static str,
        /// The value, where one can be quoted.
        value: Option<String>,
        expected: String,
    },
}

impl FieldError {
    /// An error of the document, not of a field.
    pub(super) fn at_line(line: usize, reason: impl Into<String>) -> Self {
        Self::at_field(String::new(), line, reason)
    }

    pub(super) fn at_field(field: String, line: usize, reason: impl Into<String>) -> Self {
        Self {
            field,
            line: Some(line),
            reason: Reason::Text(reason.into()),
        }
    }

    /// The field was there before, at line `first`.
    pub(super) fn duplicate_of(self, first: usize) -> Self {
        Self {
            reason: Reason::Duplicate(first),
            ..self
        }
    }

    /// An integer beyond 64 bits, which no type takes.
    pub(super) fn huge(integer: &str, expected: &dyn Expected) -> Self {
        Self::without_position(Reason::Mismatch {
            found: "integer",
            value: Some(integer.to_owned()),
            expected: expected.to_string(),
        })
    }

    fn without_position(reason: Reason) -> Self {
        Self {
            field: String::new(),
            line: None,
            reason,
        }
    }

    pub(super) fn mismatch(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (found, value) = match found {
            Unexpected::Bool(value) => ("boolean", Some(value.to_string())),
            Unexpected::Unsigned(value) => ("integer", Some(value.to_string())),
            Unexpected::Signed(value) => ("integer", Some(value.to_string())),
            Unexpected::Float(value) => ("floating point", Some(format!("{value:?}"))),
            Unexpected::Str(text) => ("string", Some(format!("{text:?}"))),
            Unexpected::Seq => ("a list", None),
            Unexpected::Map => ("a mapping", None),
            Unexpected::Unit | Unexpected::Option => ("nothing", None),
            _ => ("a value of another type", None),
        };
        Self::without_position(Reason::Mismatch {
            found,
            value: value.filter(|value| value.chars().count() <= MAX_QUOTED),
            expected: expected.to_string(),
        })
    }

    /// Gives the error a place unless it has one from further inside.
    pub(super) fn with_position(mut self, path: &FieldPath<'_>, line: usize) -> Self {
        if self.line.is_none() {
            let mut field = path.to_string();
            if !self.field.is_empty() {
                FieldPath::push_key(&mut field, &self.field);
            }
            self.field = field;
            self.line = Some(line);
        }
        self
    }

    /// Line of the field in the document, from 0.
    pub(super) fn line(&self) -> usize {
        self.line.unwrap_or_default()
    }

    /// What is wrong. `first` is the line of the file where the document begins; values are quoted
    /// unless they may be secret.
    pub(super) fn reason(&self, first: usize, quote: bool) -> String {
        let (found, value, expected) = match &self.reason {
            Reason::Text(text) => return text.clone(),
            Reason::Duplicate(line) => {
                return format!("duplicate field, first set on line {}", first + line);
            }
            Reason::Mismatch {
                found,
                value,
                expected,
            } => (*found, value.as_deref().filter(|_| quote), expected),
        };
        let expected = match expected.as_str() {
            "i64" | "u64" | "u32" | "u16" => "an integer",
            "a map" => "a mapping",
            "a sequence" => "a list",
            other if other.starts_with("struct ") => "a mapping",
            other => other,
        };
        let found = match value {
            Some(value) => format!("{found} {value}"),
            None => found.to_owned(),
        };
        if expected == "an integer" && found.starts_with("integer") {
            return format!("{found} is out of range");
        }
        format!("expected {expected}, found {found}")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason(1, false))
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::without_position(Reason::Text(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch(found, expected)
    }

    /// Has its field from where the key is read.
    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.join(", ");
        Self::custom(format_args!("unknown field (known ones: {known})"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            field: field.to_owned(),
            ..Self::custom("is required")
        }
    }
}

/// The way from the root of a document to a field.
#[derive(Clone, Copy)]
pub(super) enum FieldPath<'a> {
    Root,
    Key(&'a FieldPath<'a>, &'a str),
    Index(&'a FieldPath<'a>, usize),
}

impl FieldPath<'_> {
    pub(super) fn push_key(path: &mut String, key: &str) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    }

    pub(super) fn push_index(path: &mut String, index: usize) {
        path.push_str(&format!("[{index}]"));
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
