//! Building the list of a performative's fields.

use super::encode::{compound, encode, symbol, uint};
use crate::amqp::value::{Symbol, Value};
use bytes::BufMut;

/// Builds the list of a performative's fields; trailing nulls are left out.
#[derive(Debug, Default)]
pub struct List {
    body: Vec<u8>,
    count: usize,
    /// Length and count up to the last field that is not null.
    used: (usize, usize),
}

impl List {
    pub fn new() -> Self {
        Self::default()
    }

    fn field(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        write(&mut self.body);
        self.count += 1;
        self.used = (self.body.len(), self.count);
        self
    }

    /// A field that is absent.
    pub fn null(&mut self) -> &mut Self {
        self.body.put_u8(0x40);
        self.count += 1;
        self
    }

    pub fn value(&mut self, value: &Value) -> &mut Self {
        if *value == Value::Null {
            self.null()
        } else {
            self.field(|out| encode(value, out))
        }
    }

    pub fn opt(&mut self, value: Option<Value>) -> &mut Self {
        self.value(&value.unwrap_or(Value::Null))
    }

    pub fn uint(&mut self, n: u32) -> &mut Self {
        self.field(|out| uint(n, out))
    }

    pub fn opt_uint(&mut self, n: Option<u32>) -> &mut Self {
        match n {
            Some(n) => self.uint(n),
            None => self.null(),
        }
    }

    /// A boolean; false, the default of every field, is null.
    pub fn flag(&mut self, set: bool) -> &mut Self {
        if set {
            self.field(|out| out.put_u8(0x41))
        } else {
            self.null()
        }
    }

    /// Symbols as null, one symbol or an array.
    pub fn symbols(&mut self, symbols: &[Symbol]) -> &mut Self {
        match symbols {
            [] => self.null(),
            [one] => self.field(|out| symbol(one.as_str(), out)),
            many => {
                let array: Vec<Value> = many.iter().cloned().map(Value::Symbol).collect();
                self.value(&Value::Array(array))
            }
        }
    }

    /// Whatever `write` writes, as one field.
    pub fn raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.field(write)
    }

    /// Writes the list without trailing nulls.
    pub fn finish(&self, out: &mut impl BufMut) {
        let (len, count) = self.used;
        if count == 0 {
            out.put_u8(0x45);
        } else {
            compound(0xc0, count, &self.body[..len], out);
        }
    }
}
