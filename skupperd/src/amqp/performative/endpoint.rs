//! The connection and its sessions: open and begin. Their ends carry nothing but an error.

use crate::amqp::{
    codec::{DecodeError, List, ListFields},
    value::{Symbol, Value},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    /// Identity of the peer; a router's id.
    pub container_id: String,
    /// Name of the host that was dialled.
    pub hostname: Option<String>,
    /// Largest frame the sender of this performative takes.
    pub max_frame_size: Option<u32>,
    /// Highest channel it takes.
    pub channel_max: Option<u16>,
    /// Milliseconds of silence after which it ends the connection.
    pub idle_time_out: Option<u32>,
    /// Locales, not used.
    pub locales: [Vec<Symbol>; 2],
    /// Extensions it supports.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions it would like.
    pub desired_capabilities: Vec<Symbol>,
    pub properties: Vec<(Value, Value)>,
}

impl Open {
    pub fn property(&self, name: &str) -> Option<&Value> {
        self.properties
            .iter()
            .find(|(k, _)| k.as_str() == Some(name))
            .map(|(_, v)| v)
    }

    pub fn offers(&self, name: &str) -> bool {
        self.offered_capabilities.iter().any(|c| c.as_str() == name)
    }

    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            container_id: f.string()?.ok_or(DecodeError::Missing("container-id"))?,
            hostname: f.string()?,
            max_frame_size: f.u32()?,
            channel_max: f.u16()?,
            idle_time_out: f.u32()?,
            locales: [f.symbols()?, f.symbols()?],
            offered_capabilities: f.symbols()?,
            desired_capabilities: f.symbols()?,
            properties: f.map()?.unwrap_or_default(),
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.value(&Value::String(self.container_id.clone()));
        l.opt(self.hostname.clone().map(Value::String))
            .opt_uint(self.max_frame_size);
        l.opt(self.channel_max.map(Value::Ushort))
            .opt_uint(self.idle_time_out);
        l.symbols(&self.locales[0]).symbols(&self.locales[1]);
        l.symbols(&self.offered_capabilities)
            .symbols(&self.desired_capabilities);
        l.opt((!self.properties.is_empty()).then(|| Value::Map(self.properties.clone())));
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begin {
    /// Channel of the session this answers.
    pub remote_channel: Option<u16>,
    /// Transfer id of the next transfer.
    pub next_outgoing_id: u32,
    /// Frames it takes before a flow.
    pub incoming_window: u32,
    /// Frames it may send.
    pub outgoing_window: u32,
    /// Highest handle it takes.
    pub handle_max: Option<u32>,
    /// Capabilities and properties, kept as they are.
    pub rest: Vec<Value>,
}

impl Begin {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            remote_channel: f.u16()?,
            next_outgoing_id: f.u32()?.ok_or(DecodeError::Missing("next-outgoing-id"))?,
            incoming_window: f.u32()?.ok_or(DecodeError::Missing("incoming-window"))?,
            outgoing_window: f.u32()?.ok_or(DecodeError::Missing("outgoing-window"))?,
            handle_max: f.u32()?,
            rest: f.rest()?,
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.opt(self.remote_channel.map(Value::Ushort))
            .uint(self.next_outgoing_id);
        l.uint(self.incoming_window)
            .uint(self.outgoing_window)
            .opt_uint(self.handle_max);
        for v in &self.rest {
            l.value(v);
        }
    }
}
