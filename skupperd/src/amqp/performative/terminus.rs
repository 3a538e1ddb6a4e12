//! The two ends of a link: source and target.

use super::{
    code,
    fields::{described, flag, number, some, symbol, symbols, text},
};
use crate::amqp::{
    codec::{DecodeError, List, ulong},
    value::{Symbol, Value},
};
use bytes::BufMut;

/// Where messages of a link come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    pub address: Option<String>,
    pub durable: u32,
    /// When the terminus goes away.
    pub expiry_policy: Option<Symbol>,
    /// Seconds until then.
    pub timeout: u32,
    /// The peer chooses the address.
    pub dynamic: bool,
    pub dynamic_node_properties: Option<Value>,
    pub distribution_mode: Option<Symbol>,
    pub filter: Option<Value>,
    pub default_outcome: Option<Value>,
    pub outcomes: Vec<Symbol>,
    pub capabilities: Vec<Symbol>,
}

impl Source {
    pub(super) fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
        let Some((code, mut f)) = described(value)? else {
            return Ok(None);
        };
        if code != code::SOURCE {
            return Err(DecodeError::Type("source"));
        }
        Ok(Some(Self {
            address: text(f.next())?,
            durable: number(f.next())?,
            expiry_policy: symbol(f.next())?,
            timeout: number(f.next())?,
            dynamic: flag(f.next())?,
            dynamic_node_properties: some(f.next()),
            distribution_mode: symbol(f.next())?,
            filter: some(f.next()),
            default_outcome: some(f.next()),
            outcomes: symbols(f.next())?,
            capabilities: symbols(f.next())?,
        }))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut l = List::new();
        l.opt(self.address.clone().map(Value::String))
            .uint(self.durable);
        l.opt(self.expiry_policy.clone().map(Value::Symbol));
        l.uint(self.timeout).value(&Value::Bool(self.dynamic));
        l.opt(self.dynamic_node_properties.clone());
        l.opt(self.distribution_mode.clone().map(Value::Symbol))
            .opt(self.filter.clone());
        l.opt(self.default_outcome.clone())
            .symbols(&self.outcomes)
            .symbols(&self.capabilities);
        out.put_u8(0);
        ulong(code::SOURCE, out);
        l.finish(out);
    }
}

/// Where messages of a link go to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub address: Option<String>,
    pub durable: u32,
    /// When the terminus goes away.
    pub expiry_policy: Option<Symbol>,
    /// Seconds until then.
    pub timeout: u32,
    /// The peer chooses the address.
    pub dynamic: bool,
    pub dynamic_node_properties: Option<Value>,
    pub capabilities: Vec<Symbol>,
}

impl Target {
    pub(super) fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
        let Some((code, mut f)) = described(value)? else {
            return Ok(None);
        };
        if code != code::TARGET {
            return Err(DecodeError::Type("target"));
        }
        Ok(Some(Self {
            address: text(f.next())?,
            durable: number(f.next())?,
            expiry_policy: symbol(f.next())?,
            timeout: number(f.next())?,
            dynamic: flag(f.next())?,
            dynamic_node_properties: some(f.next()),
            capabilities: symbols(f.next())?,
        }))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut l = List::new();
        l.opt(self.address.clone().map(Value::String))
            .uint(self.durable);
        l.opt(self.expiry_policy.clone().map(Value::Symbol));
        l.uint(self.timeout).value(&Value::Bool(self.dynamic));
        l.opt(self.dynamic_node_properties.clone())
            .symbols(&self.capabilities);
        out.put_u8(0);
        ulong(code::TARGET, out);
        l.finish(out);
    }
}
