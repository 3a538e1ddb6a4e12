//! Fields of the lists inside performatives. An absent field has its default.

use crate::amqp::{
    codec::DecodeError,
    value::{Symbol, Value},
};

/// Descriptor code and fields of a described list.
pub(super) fn described(
    value: Value,
) -> Result<Option<(u64, std::vec::IntoIter<Value>)>, DecodeError> {
    match value {
        Value::Null => Ok(None),
        Value::Described(parts) => match *parts {
            (Value::Ulong(code), Value::List(fields)) => Ok(Some((code, fields.into_iter()))),
            _ => Err(DecodeError::Type("described list")),
        },
        _ => Err(DecodeError::Type("described list")),
    }
}

pub(super) fn text(value: Option<Value>) -> Result<Option<String>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(DecodeError::Type("address")),
    }
}

pub(super) fn symbol(value: Option<Value>) -> Result<Option<Symbol>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Symbol(s)) => Ok(Some(s)),
        Some(_) => Err(DecodeError::Type("symbol")),
    }
}

pub(super) fn symbols(value: Option<Value>) -> Result<Vec<Symbol>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Symbol(s)) => Ok(vec![s]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|i| symbol(Some(i)).map(|s| s.unwrap_or("".into())))
            .collect(),
        Some(_) => Err(DecodeError::Type("symbols")),
    }
}

pub(super) fn number(value: Option<Value>) -> Result<u32, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Uint(n)) => Ok(n),
        Some(_) => Err(DecodeError::Type("uint")),
    }
}

pub(super) fn flag(value: Option<Value>) -> Result<bool, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(b),
        Some(_) => Err(DecodeError::Type("boolean")),
    }
}

pub(super) fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|v| *v != Value::Null)
}
