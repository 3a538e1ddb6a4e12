//! Links: attach, flow and detach.

use super::{
    code,
    error::Error,
    terminus::{Source, Target},
};
use crate::amqp::{
    codec::{DecodeError, List, ListFields},
    value::Value,
};

/// The role of one end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Sender,
    Receiver,
}

impl Role {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        match f.bool()? {
            Some(true) => Ok(Self::Receiver),
            Some(false) => Ok(Self::Sender),
            None => Err(DecodeError::Missing("role")),
        }
    }

    pub(super) fn encode(self, l: &mut List) {
        l.value(&Value::Bool(self == Self::Receiver));
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attach {
    pub name: String,
    pub handle: u32,
    /// Role of the end that sends this performative.
    pub role: Role,
    /// Sender settle mode: 0 unsettled, 1 settled, 2 mixed.
    pub snd_settle_mode: Option<u8>,
    /// Receiver settle mode: 0 first, 1 second.
    pub rcv_settle_mode: Option<u8>,
    /// Source; absent when refused.
    pub source: Option<Source>,
    /// Target; absent when refused.
    pub target: Option<Target>,
    /// The target is a coordinator: transactions, which routers do not support.
    pub coordinator: bool,
    /// Unsettled deliveries of a link that is resumed, which routers do not support.
    pub unsettled: Option<Value>,
    /// Whether that list is incomplete.
    pub incomplete_unsettled: bool,
    /// Delivery count of the sender.
    pub initial_delivery_count: Option<u32>,
    pub max_message_size: Option<u64>,
    /// Capabilities and properties, kept as they are.
    pub rest: Vec<Value>,
}

impl Attach {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        let mut a = Self {
            name: f.string()?.ok_or(DecodeError::Missing("name"))?,
            handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
            role: Role::decode(f)?,
            snd_settle_mode: f.u8()?,
            rcv_settle_mode: f.u8()?,
            source: Source::from_value(f.value()?)?,
            ..Self::default()
        };
        match f.value()? {
            Value::Described(parts) if parts.0 == Value::Ulong(code::COORDINATOR) => {
                a.coordinator = true;
            }
            value => a.target = Target::from_value(value)?,
        }
        a.unsettled = Some(f.value()?).filter(|v| *v != Value::Null);
        a.incomplete_unsettled = f.bool()?.unwrap_or(false);
        a.initial_delivery_count = f.u32()?;
        a.max_message_size = f.u64()?;
        a.rest = f.rest()?;
        Ok(a)
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.value(&Value::String(self.name.clone())).uint(self.handle);
        self.role.encode(l);
        l.opt(self.snd_settle_mode.map(Value::Ubyte))
            .opt(self.rcv_settle_mode.map(Value::Ubyte));
        match &self.source {
            Some(s) => l.raw(|out| s.encode(out)),
            None => l.null(),
        };
        match &self.target {
            Some(t) => l.raw(|out| t.encode(out)),
            None => l.null(),
        };
        l.opt(self.unsettled.clone())
            .flag(self.incomplete_unsettled);
        l.opt_uint(self.initial_delivery_count)
            .opt(self.max_message_size.map(Value::Ulong));
        for v in &self.rest {
            l.value(v);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// Next transfer id expected.
    pub next_incoming_id: Option<u32>,
    /// Frames taken from there on.
    pub incoming_window: u32,
    /// Transfer id of the next transfer.
    pub next_outgoing_id: u32,
    /// Frames it may send.
    pub outgoing_window: u32,
    /// Link this is about.
    pub handle: Option<u32>,
    pub delivery_count: Option<u32>,
    pub link_credit: Option<u32>,
    /// Deliveries waiting.
    pub available: Option<u32>,
    /// Use the credit up or give it back.
    pub drain: bool,
    /// Answer with a flow.
    pub echo: bool,
    /// Properties, kept as they are.
    pub rest: Vec<Value>,
}

impl Flow {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            next_incoming_id: f.u32()?,
            incoming_window: f.u32()?.ok_or(DecodeError::Missing("incoming-window"))?,
            next_outgoing_id: f.u32()?.ok_or(DecodeError::Missing("next-outgoing-id"))?,
            outgoing_window: f.u32()?.ok_or(DecodeError::Missing("outgoing-window"))?,
            handle: f.u32()?,
            delivery_count: f.u32()?,
            link_credit: f.u32()?,
            available: f.u32()?,
            drain: f.bool()?.unwrap_or(false),
            echo: f.bool()?.unwrap_or(false),
            rest: f.rest()?,
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.opt_uint(self.next_incoming_id).uint(self.incoming_window);
        l.uint(self.next_outgoing_id)
            .uint(self.outgoing_window)
            .opt_uint(self.handle);
        l.opt_uint(self.delivery_count)
            .opt_uint(self.link_credit)
            .opt_uint(self.available);
        // skupper-router writes this default out: the same bytes, frame for frame.
        l.value(&Value::Bool(self.drain)).flag(self.echo);
        for v in &self.rest {
            l.value(v);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detach {
    pub handle: u32,
    /// For good.
    pub closed: bool,
    pub error: Option<Error>,
}

impl Detach {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
            closed: f.bool()?.unwrap_or(false),
            error: Error::from_value(f.value()?)?,
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.uint(self.handle).flag(self.closed);
        l.opt(self.error.as_ref().map(Error::to_value));
    }
}
