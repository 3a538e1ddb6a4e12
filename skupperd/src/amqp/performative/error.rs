//! Errors: why a link, a session or a connection ends, or a delivery is refused.

use super::{code, fields::described};
use crate::amqp::{
    codec::DecodeError,
    value::{Symbol, Value},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Symbolic condition, such as `amqp:not-found`.
    pub condition: Symbol,
    /// Text for people.
    pub description: Option<String>,
    /// Further data.
    pub info: Vec<(Value, Value)>,
}

impl Error {
    /// An error without further data.
    pub fn new(condition: &'static str, description: impl Into<String>) -> Self {
        Self {
            condition: condition.into(),
            description: Some(description.into()),
            info: Vec::new(),
        }
    }

    pub(super) fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
        let Some((code, mut f)) = described(value)? else {
            return Ok(None);
        };
        if code != code::ERROR {
            return Err(DecodeError::Type("error"));
        }
        let Some(Value::Symbol(condition)) = f.next() else {
            return Err(DecodeError::Missing("condition"));
        };
        let description = match f.next() {
            Some(Value::String(text)) => Some(text),
            Some(Value::Null) | None => None,
            Some(_) => return Err(DecodeError::Type("description")),
        };
        let info = match f.next() {
            Some(Value::Map(info)) => info,
            _ => Vec::new(),
        };
        Ok(Some(Self {
            condition,
            description,
            info,
        }))
    }

    pub(super) fn to_value(&self) -> Value {
        let mut fields = vec![Value::Symbol(self.condition.clone())];
        if self.description.is_some() || !self.info.is_empty() {
            fields.push(self.description.clone().map_or(Value::Null, Value::String));
        }
        if !self.info.is_empty() {
            fields.push(Value::Map(self.info.clone()));
        }
        Value::Described(Box::new((Value::Ulong(code::ERROR), Value::List(fields))))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.condition.as_str())?;
        match &self.description {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}
