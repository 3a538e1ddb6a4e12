//! Fields of performatives and sections, decoded one by one.

use super::decode::{DecodeError, Reader};
use crate::amqp::value::{Symbol, Value};
use bytes::Bytes;

impl<'a> Reader<'a> {
    /// Reads the head of a list.
    pub fn fields(&mut self) -> Result<ListFields<'a>, DecodeError> {
        let (body, count) = match self.u8()? {
            0x45 => (Reader::new(&[]), 0),
            0xc0 => self.compound(false)?,
            0xd0 => self.compound(true)?,
            _ => return Err(DecodeError::Type("list of fields")),
        };
        Ok(ListFields { body, left: count })
    }
}

/// The fields of a performative or section. Those absent at the end are null.
#[derive(Clone, Debug)]
pub struct ListFields<'a> {
    body: Reader<'a>,
    left: usize,
}

macro_rules! optional {
    ($name:ident, $type:ty, $what:literal, $pattern:pat => $result:expr) => {
        pub fn $name(&mut self) -> Result<Option<$type>, DecodeError> {
            match self.value()? {
                Value::Null => Ok(None),
                $pattern => Ok(Some($result)),
                _ => Err(DecodeError::Type($what)),
            }
        }
    };
}

/// Each method reads the next field. `None`: it is null or absent.
impl<'a> ListFields<'a> {
    pub fn value(&mut self) -> Result<Value, DecodeError> {
        match self.left.checked_sub(1) {
            None => Ok(Value::Null),
            Some(left) => {
                self.left = left;
                self.body.value()
            }
        }
    }

    /// The next field without decoding it into a [`Value`] when it is a small unsigned integer.
    fn uint_fast(&mut self) -> Result<Option<u32>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        match self.body.u8()? {
            0x40 => Ok(None),
            0x43 => Ok(Some(0)),
            0x52 => self.body.u8().map(|n| Some(n.into())),
            0x70 => self.body.u32().map(Some),
            _ => Err(DecodeError::Type("uint")),
        }
    }

    pub fn u32(&mut self) -> Result<Option<u32>, DecodeError> {
        self.uint_fast()
    }

    pub fn bool(&mut self) -> Result<Option<bool>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        match self.body.u8()? {
            0x40 => Ok(None),
            0x41 => Ok(Some(true)),
            0x42 => Ok(Some(false)),
            0x56 => self.body.u8().map(|n| Some(n != 0)),
            _ => Err(DecodeError::Type("boolean")),
        }
    }

    /// An optional binary, borrowed.
    pub fn binary_ref(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let n = match self.body.u8()? {
            0x40 => return Ok(None),
            0xa0 => self.body.len8()?,
            0xb0 => self.body.len32()?,
            _ => return Err(DecodeError::Type("binary")),
        };
        self.body.take(n).map(Some)
    }

    optional!(u8, u8, "ubyte", Value::Ubyte(n) => n);
    optional!(u16, u16, "ushort", Value::Ushort(n) => n);
    optional!(u64, u64, "ulong", Value::Ulong(n) => n);
    optional!(string, String, "string", Value::String(s) => s);
    optional!(symbol, Symbol, "symbol", Value::Symbol(s) => s);
    optional!(binary, Bytes, "binary", Value::Binary(b) => b);
    optional!(timestamp, i64, "timestamp", Value::Timestamp(t) => t);
    optional!(map, Vec<(Value, Value)>, "map", Value::Map(m) => m);

    /// None, one or several symbols (`multiple="true"` in the standard).
    pub fn symbols(&mut self) -> Result<Vec<Symbol>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(Vec::new()),
            Value::Symbol(s) => Ok(vec![s]),
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::Symbol(s) => Ok(s),
                    _ => Err(DecodeError::Type("symbol")),
                })
                .collect(),
            _ => Err(DecodeError::Type("symbols")),
        }
    }

    /// All fields not read yet.
    pub fn rest(&mut self) -> Result<Vec<Value>, DecodeError> {
        (0..self.left).map(|_| self.value()).collect()
    }
}
