//! Decoding, bounded against hostile input.

use crate::amqp::value::{Symbol, Value};
use bytes::Bytes;

/// How deep values may nest. Upstream's deepest (MAU) nest four levels.
const MAX_DEPTH: usize = 16;
/// Values in one decoded value, nested ones included: an array of a million empty lists is nine bytes
/// on the wire.
const MAX_VALUES: usize = 1 << 17;
/// Elements of an array that take no bytes.
const MAX_EMPTY: usize = 16;

/// Why bytes are not an AMQP value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value goes on past the end of the bytes.
    #[error("value is cut short")]
    Truncated,
    /// No such constructor.
    #[error("unknown type constructor 0x{0:02x}")]
    Constructor(u8),
    /// Another type than the field may have.
    #[error("unexpected type for {0}")]
    Type(&'static str),
    /// Text that is not UTF-8, a char that is none, a symbol that is not ASCII.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Over a limit that bounds memory.
    #[error("{0} over the limit")]
    Limit(&'static str),
    /// A mandatory field is absent.
    #[error("mandatory field {0} is missing")]
    Missing(&'static str),
}

/// Reads values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the front of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Self {
            buf,
            values: MAX_VALUES,
        }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// Looks at the next byte.
    pub fn peek(&self) -> Option<u8> {
        self.buf.first().copied()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.buf.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.buf = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.buf.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.buf = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[b]| b)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        self.u8().map(usize::from)
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        self.u32().map(|n| n as usize)
    }

    /// Body of a compound and the number of its elements.
    fn compound(&mut self, wide: bool) -> Result<(Reader<'a>, usize), DecodeError> {
        let size = if wide { self.len32()? } else { self.len8()? };
        let mut body = Reader {
            buf: self.take(size)?,
            values: self.values,
        };
        let count = if wide { body.len32()? } else { body.len8()? };
        if count > self.values {
            return Err(DecodeError::Limit("number of values"));
        }
        Ok((body, count))
    }

    /// Reads any value.
    pub fn value(&mut self) -> Result<Value, DecodeError> {
        self.nested(MAX_DEPTH)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::Limit("nesting"))?;
        self.values = self
            .values
            .checked_sub(1)
            .ok_or(DecodeError::Limit("number of values"))?;
        let code = self.u8()?;
        if code == 0 {
            let descriptor = self.nested(depth)?;
            let value = self.nested(depth)?;
            return Ok(Value::Described(Box::new((descriptor, value))));
        }
        self.body(code, depth)
    }

    fn body(&mut self, code: u8, depth: usize) -> Result<Value, DecodeError> {
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x43 => Value::Uint(0),
            0x44 => Value::Ulong(0),
            0x45 => Value::List(Vec::new()),
            0x50 => Value::Ubyte(self.u8()?),
            0x51 => Value::Byte(self.u8()? as i8),
            0x52 => Value::Uint(self.u8()?.into()),
            0x53 => Value::Ulong(self.u8()?.into()),
            0x54 => Value::Int((self.u8()? as i8).into()),
            0x55 => Value::Long((self.u8()? as i8).into()),
            0x56 => Value::Bool(self.u8()? != 0),
            0x60 => Value::Ushort(u16::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x70 => Value::Uint(self.u32()?),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?)),
            0x73 => Value::Char(char::from_u32(self.u32()?).ok_or(DecodeError::Malformed("char"))?),
            0x74 => Value::Decimal(Bytes::copy_from_slice(self.take(4)?)),
            0x80 => Value::Ulong(u64::from_be_bytes(self.array()?)),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x82 => Value::Double(f64::from_be_bytes(self.array()?)),
            0x83 => Value::Timestamp(i64::from_be_bytes(self.array()?)),
            0x84 => Value::Decimal(Bytes::copy_from_slice(self.take(8)?)),
            0x94 => Value::Decimal(Bytes::copy_from_slice(self.take(16)?)),
            0x98 => Value::Uuid(self.array()?),
            0xa0 | 0xb0 => {
                let n = if code == 0xa0 {
                    self.len8()?
                } else {
                    self.len32()?
                };
                Value::Binary(Bytes::copy_from_slice(self.take(n)?))
            }
            0xa1 | 0xb1 => {
                let n = if code == 0xa1 {
                    self.len8()?
                } else {
                    self.len32()?
                };
                let text = std::str::from_utf8(self.take(n)?);
                Value::String(
                    text.map_err(|_| DecodeError::Malformed("string"))?
                        .to_owned(),
                )
            }
            0xa3 | 0xb3 => {
                let n = if code == 0xa3 {
                    self.len8()?
                } else {
                    self.len32()?
                };
                let text = std::str::from_utf8(self.take(n)?)
                    .ok()
                    .filter(|s| s.is_ascii());
                Value::Symbol(
                    text.ok_or(DecodeError::Malformed("symbol"))?
                        .to_owned()
                        .into(),
                )
            }
            0xc0 | 0xd0 => {
                let (mut body, count) = self.compound(code == 0xd0)?;
                let mut items = Vec::with_capacity(count.min(64));
                for _ in 0..count {
                    items.push(body.nested(depth)?);
                }
                self.values = body.values;
                Value::List(items)
            }
            0xc1 | 0xd1 => {
                let (mut body, count) = self.compound(code == 0xd1)?;
                if count % 2 != 0 {
                    return Err(DecodeError::Malformed("map"));
                }
                let mut entries = Vec::with_capacity((count / 2).min(64));
                for _ in 0..count / 2 {
                    entries.push((body.nested(depth)?, body.nested(depth)?));
                }
                self.values = body.values;
                Value::Map(entries)
            }
            0xe0 | 0xf0 => {
                let (mut body, count) = self.compound(code == 0xf0)?;
                let items = body.elements(count, depth)?;
                self.values = body.values;
                Value::Array(items)
            }
            other => return Err(DecodeError::Constructor(other)),
        })
    }

    fn elements(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::Limit("nesting"))?;
        self.values = self
            .values
            .checked_sub(count)
            .ok_or(DecodeError::Limit("number of values"))?;
        let mut code = self.u8()?;
        let mut descriptor = None;
        if code == 0 {
            let before = self.buf.len();
            descriptor = Some(self.nested(depth)?);
            // Each element gets a copy of it: paid for as if it were written out that often.
            let copies = (before - self.buf.len()).saturating_mul(count);
            self.values = self
                .values
                .checked_sub(copies)
                .ok_or(DecodeError::Limit("number of values"))?;
            code = self.u8()?;
        }
        // Some elements take no bytes: a few of them are an array, a million are a trap.
        if count > self.buf.len().max(MAX_EMPTY) {
            return Err(DecodeError::Limit("number of values"));
        }
        let mut items = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let value = self.body(code, depth)?;
            items.push(match &descriptor {
                Some(d) => Value::Described(Box::new((d.clone(), value))),
                None => value,
            });
        }
        Ok(items)
    }

    /// Skips a descriptor and gives its code. Symbolic descriptors are not used by any peer.
    pub fn descriptor(&mut self) -> Result<u64, DecodeError> {
        if self.u8()? != 0 {
            return Err(DecodeError::Type("descriptor"));
        }
        match self.value()? {
            Value::Ulong(code) => Ok(code),
            _ => Err(DecodeError::Type("descriptor")),
        }
    }

    /// Opens a list and gives its fields.
    pub fn fields(&mut self) -> Result<Fields<'a>, DecodeError> {
        let (body, count) = match self.u8()? {
            0x45 => (Reader::new(&[]), 0),
            0xc0 => self.compound(false)?,
            0xd0 => self.compound(true)?,
            _ => return Err(DecodeError::Type("list of fields")),
        };
        Ok(Fields { body, left: count })
    }
}

/// The fields of a performative or section: absent ones at the end are null.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    body: Reader<'a>,
    left: usize,
}

macro_rules! optional {
    ($(#[$doc:meta])* $name:ident, $type:ty, $what:literal, $pattern:pat => $result:expr) => {
        $(#[$doc])*
        pub fn $name(&mut self) -> Result<Option<$type>, DecodeError> {
            match self.value()? {
                Value::Null => Ok(None),
                $pattern => Ok(Some($result)),
                _ => Err(DecodeError::Type($what)),
            }
        }
    };
}

impl<'a> Fields<'a> {
    /// The next field.
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

    /// An optional uint.
    pub fn u32(&mut self) -> Result<Option<u32>, DecodeError> {
        self.uint_fast()
    }

    /// An optional boolean.
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

    optional!(/** An optional ubyte. */ u8, u8, "ubyte", Value::Ubyte(n) => n);
    optional!(/** An optional ushort. */ u16, u16, "ushort", Value::Ushort(n) => n);
    optional!(/** An optional ulong. */ u64, u64, "ulong", Value::Ulong(n) => n);
    optional!(/** An optional string. */ string, String, "string", Value::String(s) => s);
    optional!(/** An optional symbol. */ symbol, Symbol, "symbol", Value::Symbol(s) => s);
    optional!(/** An optional binary. */ binary, Bytes, "binary", Value::Binary(b) => b);
    optional!(/** An optional timestamp. */ timestamp, i64, "timestamp", Value::Timestamp(t) => t);
    optional!(/** An optional map. */ map, Vec<(Value, Value)>, "map", Value::Map(m) => m);

    /// Zero, one or several symbols.
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

    /// Fields not read yet.
    pub fn rest(&mut self) -> Result<Vec<Value>, DecodeError> {
        (0..self.left).map(|_| self.value()).collect()
    }
}
