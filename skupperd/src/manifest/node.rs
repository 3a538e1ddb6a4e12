//! Nodes of a YAML document, each with its line.
//!
//! Built by [`super::tree`]. A collection is shared between an anchor and its aliases.

use serde_json::{Map, Number, Value};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// A value and the line where it begins, from 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct YamlNode {
    pub(super) line: usize,
    pub(super) value: YamlValue,
}

#[derive(Clone, PartialEq)]
pub(super) enum YamlValue {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// An integer beyond 64 bits.
    Huge(Zeroizing<String>),
    Float(f64),
    Text(Zeroizing<String>),
    List(Arc<Vec<YamlNode>>),
    Mapping(Arc<Vec<YamlField>>),
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct YamlField {
    pub(super) key: String,
    /// Line of the key, from 0.
    pub(super) line: usize,
    pub(super) node: YamlNode,
}

/// Names the type only: what is in a Secret is not for logs.
impl fmt::Debug for YamlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Unsigned(_) | Self::Signed(_) | Self::Huge(_) => "integer",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Mapping(_) => "mapping",
        })
    }
}

impl YamlNode {
    /// The value of a field; `None` when it is missing or this is no mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            YamlValue::Mapping(fields) => fields
                .iter()
                .find(|field| field.key == key)
                .map(|field| &field.node),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            YamlValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON. Integers beyond 64 bits become strings; infinities, which no field takes,
    /// become null.
    pub(super) fn to_json(&self) -> Value {
        match &self.value {
            YamlValue::Null => Value::Null,
            YamlValue::Bool(value) => Value::Bool(*value),
            YamlValue::Unsigned(value) => Value::from(*value),
            YamlValue::Signed(value) => Value::from(*value),
            YamlValue::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            YamlValue::Huge(text) | YamlValue::Text(text) => Value::String(text.to_string()),
            YamlValue::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            YamlValue::Mapping(fields) => {
                let fields = fields.iter();
                let fields: Map<_, _> = fields
                    .map(|field| (field.key.clone(), field.node.to_json()))
                    .collect();
                Value::Object(fields)
            }
        }
    }
}
