//! Encoding: each value in its smallest encoding.

mod array;

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
            let mut body = Vec::new();
            items.iter().for_each(|item| encode(item, &mut body));
            match items.len() {
                0 => out.put_u8(0x45),
                count => compound(0xc0, count, &body, out),
            }
        }
        Value::Map(entries) => {
            let mut body = Vec::new();
            for (key, value) in entries {
                encode(key, &mut body);
                encode(value, &mut body);
            }
            compound(0xc1, entries.len() * 2, &body, out);
        }
        Value::Array(items) => array::array(items, out),
        Value::Described(parts) => {
            out.put_u8(0);
            encode(&parts.0, out);
            encode(&parts.1, out);
        }
    }
}

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

pub fn string(text: &str, out: &mut impl BufMut) {
    variable(0xa1, text.as_bytes(), out);
}

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
