//! Decoding, with bounds on what hostile input can cost.

use crate::amqp::value::Value;
use bytes::Bytes;

/// How deep values may nest. The deepest of skupper-router (MAU) has four levels.
const MAX_DEPTH: usize = 16;
/// Values in one decoded value, nested ones included: an array of a million empty lists takes nine
/// bytes on the wire.
const MAX_VALUES: usize = 1 << 17;
/// Elements of an array that take no bytes.
const MAX_EMPTY: usize = 16;

/// Why bytes are not an AMQP value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes are needed.
    #[error("value is truncated")]
    Truncated,
    /// No such constructor.
    #[error("unknown type constructor 0x{0:02x}")]
    Constructor(u8),
    /// A type that the field may not have.
    #[error("unexpected type for {0}")]
    Type(&'static str),
    /// Invalid UTF-8 in a string, a char that is not one, a symbol that is not ASCII.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Over a limit that bounds memory and time.
    #[error("{0} exceeds the limit")]
    Limit(&'static str),
    #[error("mandatory field {0} is missing")]
    Missing(&'static str),
}

/// Reads values from the start of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `buf`.
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

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn len8(&mut self) -> Result<usize, DecodeError> {
        self.u8().map(usize::from)
    }

    pub(super) fn len32(&mut self) -> Result<usize, DecodeError> {
        self.u32().map(|n| n as usize)
    }

    /// Body of a compound and the number of its elements.
    pub(super) fn compound(&mut self, wide: bool) -> Result<(Reader<'a>, usize), DecodeError> {
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
            // Each element gets a copy of it: counted as if it were written out that often.
            let copies = (before - self.buf.len()).saturating_mul(count);
            self.values = self
                .values
                .checked_sub(copies)
                .ok_or(DecodeError::Limit("number of values"))?;
            code = self.u8()?;
        }
        // Some elements take no bytes: a few are an array, a million are an attack.
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

    /// Reads a descriptor. Symbolic descriptors, which no peer uses, are an error.
    pub fn descriptor(&mut self) -> Result<u64, DecodeError> {
        if self.u8()? != 0 {
            return Err(DecodeError::Type("descriptor"));
        }
        match self.value()? {
            Value::Ulong(code) => Ok(code),
            _ => Err(DecodeError::Type("descriptor")),
        }
    }

    /// Reads a descriptor in the forms that routers and clients write it in.
    pub fn short_descriptor(&mut self) -> Result<u64, DecodeError> {
        match (self.u8()?, self.u8()?) {
            (0, 0x44) => Ok(0),
            (0, 0x53) => self.u8().map(u64::from),
            (0, 0x80) => self.array().map(u64::from_be_bytes),
            _ => Err(DecodeError::Type("descriptor")),
        }
    }

    /// Skips a value without a look into it.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        // The upper half of a constructor says the width (part 1.2.1).
        let size = match self.u8()? >> 4 {
            4 => 0,
            5 => 1,
            6 => 2,
            7 => 4,
            8 => 8,
            9 => 16,
            0xa | 0xc | 0xe => self.len8()?,
            0xb | 0xd | 0xf => self.len32()?,
            other => return Err(DecodeError::Constructor(other << 4)),
        };
        self.take(size).map(drop)
    }
}
