//! Writing arrays: all elements share one constructor, the narrowest that each of them fits.
//!
//! Written in a wider form than it was read in, an array grows up to eightfold: a frame that was short
//! enough for us would be too long for the next router.

use super::{compound, encode};
use crate::amqp::value::Value;
use bytes::BufMut;

/// An element that is a list, a map or an array: number of its values, and their bytes.
type Compound = (usize, Vec<u8>);

pub(super) fn array(items: &[Value], out: &mut impl BufMut) {
    let mut body = Vec::new();
    elements(items, &mut body);
    compound(0xe0, items.len(), &body, out);
}

/// The constructor that the elements share, with their descriptor if they have one, and the elements.
fn elements(items: &[Value], out: &mut Vec<u8>) {
    if let Some(Value::Described(parts)) = items.first() {
        out.put_u8(0);
        encode(&parts.0, out);
    }
    let plain = items.iter().map(|item| match item {
        Value::Described(parts) => &parts.1,
        plain => plain,
    });
    let plain: Vec<(&Value, Option<Compound>)> = plain.map(|v| (v, compound_body(v))).collect();
    let narrow = plain
        .iter()
        .all(|(value, body)| is_narrow(value, body.as_ref()));
    out.put_u8(plain.first().map_or(0x40, |(v, _)| constructor(v, narrow)));
    for (value, body) in &plain {
        element(value, body.as_ref(), narrow, out);
    }
}

fn compound_body(value: &Value) -> Option<Compound> {
    let mut body = Vec::new();
    let count = match value {
        Value::List(items) => {
            items.iter().for_each(|item| encode(item, &mut body));
            items.len()
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                encode(key, &mut body);
                encode(value, &mut body);
            }
            entries.len() * 2
        }
        Value::Array(items) => {
            elements(items, &mut body);
            items.len()
        }
        _ => return None,
    };
    Some((count, body))
}

/// The value fits its type's narrow form, or there is only one.
fn is_narrow(value: &Value, body: Option<&Compound>) -> bool {
    let is_byte = |n: usize| u8::try_from(n).is_ok();
    match (value, body) {
        (_, Some((count, body))) => is_byte(*count) && is_byte(body.len() + 1),
        (Value::Uint(n), _) => u8::try_from(*n).is_ok(),
        (Value::Ulong(n), _) => u8::try_from(*n).is_ok(),
        (Value::Int(n), _) => i8::try_from(*n).is_ok(),
        (Value::Long(n), _) => i8::try_from(*n).is_ok(),
        (Value::Binary(b), _) => is_byte(b.len()),
        (Value::String(_) | Value::Symbol(_), _) => {
            value.as_str().is_some_and(|s| is_byte(s.len()))
        }
        _ => true,
    }
}

fn constructor(value: &Value, narrow: bool) -> u8 {
    let either = |one: u8, other: u8| if narrow { one } else { other };
    match value {
        Value::Null | Value::Described(_) => 0x40,
        Value::Bool(_) => 0x56,
        Value::Ubyte(_) => 0x50,
        Value::Ushort(_) => 0x60,
        Value::Uint(_) => either(0x52, 0x70),
        Value::Ulong(_) => either(0x53, 0x80),
        Value::Byte(_) => 0x51,
        Value::Short(_) => 0x61,
        Value::Int(_) => either(0x54, 0x71),
        Value::Long(_) => either(0x55, 0x81),
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
        Value::Binary(_) => either(0xa0, 0xb0),
        Value::String(_) => either(0xa1, 0xb1),
        Value::Symbol(_) => either(0xa3, 0xb3),
        Value::List(_) => either(0xc0, 0xd0),
        Value::Map(_) => either(0xc1, 0xd1),
        Value::Array(_) => either(0xe0, 0xf0),
    }
}

/// An element, without its constructor.
fn element(value: &Value, body: Option<&Compound>, narrow: bool, out: &mut Vec<u8>) {
    if let Some((count, body)) = body {
        size(body.len() + if narrow { 1 } else { 4 }, narrow, out);
        size(*count, narrow, out);
        return out.put_slice(body);
    }
    match value {
        Value::Uint(n) if narrow => out.put_u8(*n as u8),
        Value::Ulong(n) if narrow => out.put_u8(*n as u8),
        Value::Int(n) if narrow => out.put_i8(*n as i8),
        Value::Long(n) if narrow => out.put_i8(*n as i8),
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
            size(b.len(), narrow, out);
            out.put_slice(b);
        }
        Value::String(_) | Value::Symbol(_) => {
            let text = value.as_str().unwrap_or_default();
            size(text.len(), narrow, out);
            out.put_slice(text.as_bytes());
        }
        // Of a described value of a described value, which no array can be read with, only this is left.
        Value::Null | Value::Described(_) => {}
        Value::List(_) | Value::Map(_) | Value::Array(_) => {}
    }
}

fn size(n: usize, narrow: bool, out: &mut Vec<u8>) {
    if narrow {
        out.put_u8(n as u8);
    } else {
        out.put_u32(n as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::Reader;

    fn written(items: Vec<Value>) -> Vec<u8> {
        let array = Value::Array(items);
        let mut bytes = Vec::new();
        encode(&array, &mut bytes);
        assert_eq!(Reader::new(&bytes).value(), Ok(array));
        bytes
    }

    #[test]
    fn an_array_is_as_narrow_as_its_widest_element() {
        let text = |n: usize| Value::String("x".repeat(n));
        for (small, large) in [
            (Value::Uint(255), Value::Uint(256)),
            (Value::Ulong(0), Value::Ulong(u64::MAX)),
            (Value::Int(-128), Value::Int(-129)),
            (Value::Long(127), Value::Long(128)),
            (text(255), text(256)),
            (
                Value::Symbol("s".into()),
                Value::Symbol("s".repeat(300).into()),
            ),
            (
                Value::Binary(vec![1].into()),
                Value::Binary(vec![1; 256].into()),
            ),
            (Value::List(vec![text(3)]), Value::List(vec![text(255)])),
            (
                Value::Map(vec![(text(1), text(2))]),
                Value::Map(vec![(text(1), text(300))]),
            ),
            (
                Value::Array(vec![Value::Uint(1)]),
                Value::Array(vec![Value::Uint(1); 255]),
            ),
        ] {
            let narrow = written(vec![small.clone(); 10]);
            let wide = written(vec![small.clone(), large.clone()]);
            let mut alone = Vec::new();
            encode(&small, &mut alone);
            assert!(
                narrow.len() <= 4 + 10 * alone.len(),
                "{small:?}: {narrow:?}"
            );
            assert!(wide.len() > narrow.len() / 5, "{large:?}");
        }
    }

    #[test]
    fn an_array_of_small_numbers_is_no_longer_than_it_was_read() {
        let mut read = vec![0xf0];
        read.put_u32(4 + 1 + 20_000);
        read.put_u32(20_000);
        read.put_u8(0x53);
        read.extend(vec![7; 20_000]);
        let value = Reader::new(&read).value().expect("an array");
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        assert_eq!(bytes, read);
    }

    #[test]
    fn described_elements_share_their_descriptor() {
        let described = |n| Value::Described(Box::new((Value::Ulong(7), Value::Uint(n))));
        let bytes = written(vec![described(1), described(2)]);
        assert_eq!(bytes, [0xe0, 7, 2, 0, 0x53, 7, 0x52, 1, 2]);
    }
}
