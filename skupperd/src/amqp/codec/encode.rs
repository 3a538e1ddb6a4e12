//! Encoding: each value in its smallest form.

use super::List;
use crate::amqp::value::Value;
use bytes::BufMut;

/// Writes a value in its smallest encoding.
pub fn encode(value: &Value, out: &mut impl BufMut) {
    match value {
        Value::Null => out.put_u8(0x40),
        Value::Bool(b) => out.put_u8(if *b { 0x41 } else { 0x42 }),
        Value::Ubyte(n) => out.put_slice(&[0x50, *n]),
        Value::Ushort(n) => {
            out.put_u8(0x60);
            out.put_u16(*n);
        }
        Value::Uint(n) => uint(*n, out),
        Value::Ulong(n) => ulong(*n, out),
        Value::Byte(n) => out.put_slice(&[0x51, *n as u8]),
        Value::Short(n) => {
            out.put_u8(0x61);
            out.put_i16(*n);
        }
        Value::Int(n) => match i8::try_from(*n) {
            Ok(small) => out.put_slice(&[0x54, small as u8]),
            Err(_) => {
                out.put_u8(0x71);
                out.put_i32(*n);
            }
        },
        Value::Long(n) => match i8::try_from(*n) {
            Ok(small) => out.put_slice(&[0x55, small as u8]),
            Err(_) => {
                out.put_u8(0x81);
                out.put_i64(*n);
            }
        },
        Value::Float(n) => {
            out.put_u8(0x72);
            out.put_f32(*n);
        }
        Value::Double(n) => {
            out.put_u8(0x82);
            out.put_f64(*n);
        }
        Value::Decimal(bytes) => {
            out.put_u8(match bytes.len() {
                4 => 0x74,
                8 => 0x84,
                _ => 0x94,
            });
            out.put_slice(bytes);
        }
        Value::Char(c) => {
            out.put_u8(0x73);
            out.put_u32(*c as u32);
        }
        Value::Timestamp(t) => {
            out.put_u8(0x83);
            out.put_i64(*t);
        }
        Value::Uuid(bytes) => {
            out.put_u8(0x98);
            out.put_slice(bytes);
        }
        Value::Binary(bytes) => variable(0xa0, bytes, out),
        Value::String(text) => string(text, out),
        Value::Symbol(s) => symbol(s.as_str(), out),
        Value::List(items) => {
            let mut list = List::new();
            for item in items {
                list.value(item);
            }
            list.finish_exact(out);
        }
        Value::Map(entries) => {
            let mut body = Vec::new();
            for (key, value) in entries {
                encode(key, &mut body);
                encode(value, &mut body);
            }
            compound(0xc1, entries.len() * 2, &body, out);
        }
        Value::Array(items) => array(items, out),
        Value::Described(parts) => {
            out.put_u8(0);
            encode(&parts.0, out);
            encode(&parts.1, out);
        }
    }
}

/// Writes a uint.
pub fn uint(n: u32, out: &mut impl BufMut) {
    match (n, u8::try_from(n)) {
        (0, _) => out.put_u8(0x43),
        (_, Ok(small)) => out.put_slice(&[0x52, small]),
        _ => {
            out.put_u8(0x70);
            out.put_u32(n);
        }
    }
}

/// Writes a ulong.
pub fn ulong(n: u64, out: &mut impl BufMut) {
    match (n, u8::try_from(n)) {
        (0, _) => out.put_u8(0x44),
        (_, Ok(small)) => out.put_slice(&[0x53, small]),
        _ => {
            out.put_u8(0x80);
            out.put_u64(n);
        }
    }
}

/// Writes a string.
pub fn string(text: &str, out: &mut impl BufMut) {
    variable(0xa1, text.as_bytes(), out);
}

/// Writes a symbol.
pub fn symbol(text: &str, out: &mut impl BufMut) {
    variable(0xa3, text.as_bytes(), out);
}

fn variable(code: u8, bytes: &[u8], out: &mut impl BufMut) {
    match u8::try_from(bytes.len()) {
        Ok(n) => out.put_slice(&[code, n]),
        Err(_) => {
            out.put_u8(code + 0x10);
            out.put_u32(bytes.len() as u32);
        }
    }
    out.put_slice(bytes);
}

pub(super) fn compound(code: u8, count: usize, body: &[u8], out: &mut impl BufMut) {
    match (u8::try_from(body.len() + 1), u8::try_from(count)) {
        (Ok(size), Ok(count)) => out.put_slice(&[code, size, count]),
        _ => {
            out.put_u8(code + 0x10);
            out.put_u32(body.len() as u32 + 4);
            out.put_u32(count as u32);
        }
    }
    out.put_slice(body);
}

/// An array's elements share one constructor, so each is written in its type's widest encoding.
pub(super) fn array(items: &[Value], out: &mut impl BufMut) {
    let mut body = Vec::new();
    match items.first() {
        Some(Value::Symbol(_))
            if items
                .iter()
                .all(|i| i.as_str().is_some_and(|s| s.len() < 256)) =>
        {
            body.put_u8(0xa3);
            for item in items {
                let text = item.as_str().unwrap_or_default();
                body.put_u8(text.len() as u8);
                body.put_slice(text.as_bytes());
            }
        }
        _ => elements(items, &mut body),
    }
    compound(0xe0, items.len(), &body, out);
}

/// The constructor that an array's elements share, with their descriptor if they have one, and the
/// elements.
fn elements(items: &[Value], out: &mut Vec<u8>) {
    let mut first = items.first();
    if let Some(Value::Described(parts)) = first {
        out.put_u8(0);
        encode(&parts.0, out);
        first = Some(&parts.1);
    }
    out.put_u8(first.map_or(0x40, wide));
    for item in items {
        wide_body(item, out);
    }
}

fn wide(value: &Value) -> u8 {
    match value {
        Value::Null => 0x40,
        Value::Bool(_) => 0x56,
        Value::Ubyte(_) => 0x50,
        Value::Ushort(_) => 0x60,
        Value::Uint(_) => 0x70,
        Value::Ulong(_) => 0x80,
        Value::Byte(_) => 0x51,
        Value::Short(_) => 0x61,
        Value::Int(_) => 0x71,
        Value::Long(_) => 0x81,
        Value::Float(_) => 0x72,
        Value::Double(_) => 0x82,
        Value::Decimal(b) => match b.len() {
            4 => 0x74,
            8 => 0x84,
            _ => 0x94,
        },
        Value::Char(_) => 0x73,
        Value::Timestamp(_) => 0x83,
        Value::Uuid(_) => 0x98,
        Value::Binary(_) => 0xb0,
        Value::String(_) => 0xb1,
        Value::Symbol(_) => 0xb3,
        Value::List(_) => 0xd0,
        Value::Map(_) => 0xd1,
        Value::Array(_) => 0xf0,
        Value::Described(_) => 0x40,
    }
}

fn wide_body(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::Described(parts) => wide_body(&parts.1, out),
        Value::Bool(b) => out.put_u8(u8::from(*b)),
        Value::Ubyte(n) => out.put_u8(*n),
        Value::Ushort(n) => out.put_u16(*n),
        Value::Uint(n) => out.put_u32(*n),
        Value::Ulong(n) => out.put_u64(*n),
        Value::Byte(n) => out.put_i8(*n),
        Value::Short(n) => out.put_i16(*n),
        Value::Int(n) => out.put_i32(*n),
        Value::Long(n) | Value::Timestamp(n) => out.put_i64(*n),
        Value::Float(n) => out.put_f32(*n),
        Value::Double(n) => out.put_f64(*n),
        Value::Decimal(b) => out.put_slice(b),
        Value::Char(c) => out.put_u32(*c as u32),
        Value::Uuid(b) => out.put_slice(b),
        Value::Binary(b) => {
            out.put_u32(b.len() as u32);
            out.put_slice(b);
        }
        Value::String(_) | Value::Symbol(_) => {
            let text = value.as_str().unwrap_or_default();
            out.put_u32(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
        Value::List(items) => {
            let mut body = Vec::new();
            items.iter().for_each(|item| encode(item, &mut body));
            out.put_u32(body.len() as u32 + 4);
            out.put_u32(items.len() as u32);
            out.put_slice(&body);
        }
        Value::Map(entries) => {
            let mut body = Vec::new();
            for (key, value) in entries {
                encode(key, &mut body);
                encode(value, &mut body);
            }
            out.put_u32(body.len() as u32 + 4);
            out.put_u32(entries.len() as u32 * 2);
            out.put_slice(&body);
        }
        Value::Array(items) => {
            let mut body = Vec::new();
            elements(items, &mut body);
            out.put_u32(body.len() as u32 + 4);
            out.put_u32(items.len() as u32);
            out.put_slice(&body);
        }
    }
}
