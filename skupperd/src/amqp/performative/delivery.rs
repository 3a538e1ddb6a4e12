//! Deliveries: transfer, disposition, and the delivery states that the peers exchange.

use super::{
    code,
    error::Error,
    fields::{described, flag, number, some},
    link::Role,
};
use crate::amqp::{
    codec::{DecodeError, List, ListFields, ulong},
    value::Value,
};
use bytes::{BufMut, Bytes};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    pub handle: u32,
    /// Delivery id; only the first frame of a delivery must have it.
    pub delivery_id: Option<u32>,
    pub delivery_tag: Option<Bytes>,
    pub message_format: Option<u32>,
    /// Settled by the sender.
    pub settled: bool,
    /// The delivery goes on.
    pub more: bool,
    /// Settle mode of this delivery.
    pub rcv_settle_mode: Option<u8>,
    /// State at the sender.
    pub state: Option<DeliveryState>,
    pub resume: bool,
    /// The sender gave the delivery up.
    pub aborted: bool,
    /// Hint for batched dispositions.
    pub batchable: bool,
}

impl Transfer {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
            delivery_id: f.u32()?,
            delivery_tag: f.binary()?,
            message_format: f.u32()?,
            settled: f.bool()?.unwrap_or(false),
            more: f.bool()?.unwrap_or(false),
            rcv_settle_mode: f.u8()?,
            state: DeliveryState::from_value(f.value()?)?,
            resume: f.bool()?.unwrap_or(false),
            aborted: f.bool()?.unwrap_or(false),
            batchable: f.bool()?.unwrap_or(false),
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        l.uint(self.handle).opt_uint(self.delivery_id);
        l.opt(self.delivery_tag.clone().map(Value::Binary))
            .opt_uint(self.message_format);
        l.flag(self.settled)
            .flag(self.more)
            .opt(self.rcv_settle_mode.map(Value::Ubyte));
        DeliveryState::encode(self.state.as_ref(), l);
        l.flag(self.resume).flag(self.aborted).flag(self.batchable);
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disposition {
    /// Role of the end that sends this performative.
    pub role: Role,
    pub first: u32,
    /// Last delivery; the first when absent.
    pub last: Option<u32>,
    pub settled: bool,
    pub state: Option<DeliveryState>,
    /// Hint for batching.
    pub batchable: bool,
}

impl Disposition {
    pub(super) fn decode(f: &mut ListFields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            role: Role::decode(f)?,
            first: f.u32()?.ok_or(DecodeError::Missing("first"))?,
            last: f.u32()?,
            settled: f.bool()?.unwrap_or(false),
            state: DeliveryState::from_value(f.value()?)?,
            batchable: f.bool()?.unwrap_or(false),
        })
    }

    pub(super) fn encode(&self, l: &mut List) {
        self.role.encode(l);
        l.uint(self.first).opt_uint(self.last);
        l.flag(self.settled);
        DeliveryState::encode(self.state.as_ref(), l);
        l.flag(self.batchable);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryState {
    Received {
        section_number: u32,
        /// Bytes within it. In streams of skupper-router: bytes written to the socket so far.
        section_offset: u64,
    },
    Accepted,
    /// Refused for good.
    Rejected(Option<Error>),
    /// Not taken; another may.
    Released,
    /// Not taken, with annotations.
    Modified {
        /// Counts as a failed attempt.
        delivery_failed: bool,
        /// Not to be sent here again.
        undeliverable_here: bool,
        /// Annotations to merge.
        annotations: Option<Value>,
    },
}

impl DeliveryState {
    fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
        let Some((code, mut f)) = described(value)? else {
            return Ok(None);
        };
        Ok(Some(match code {
            code::RECEIVED => Self::Received {
                section_number: number(f.next())?,
                section_offset: match f.next() {
                    None | Some(Value::Null) => 0,
                    Some(Value::Ulong(n)) => n,
                    Some(_) => return Err(DecodeError::Type("section-offset")),
                },
            },
            code::ACCEPTED => Self::Accepted,
            code::REJECTED => Self::Rejected(Error::from_value(f.next().unwrap_or(Value::Null))?),
            code::RELEASED => Self::Released,
            code::MODIFIED => Self::Modified {
                delivery_failed: flag(f.next())?,
                undeliverable_here: flag(f.next())?,
                annotations: some(f.next()),
            },
            _ => return Err(DecodeError::Type("delivery state")),
        }))
    }

    fn encode(state: Option<&Self>, l: &mut List) {
        let Some(state) = state else {
            l.null();
            return;
        };
        l.raw(|out| {
            let mut f = List::new();
            let code = match state {
                Self::Received {
                    section_number,
                    section_offset,
                } => {
                    f.uint(*section_number)
                        .value(&Value::Ulong(*section_offset));
                    code::RECEIVED
                }
                Self::Accepted => code::ACCEPTED,
                Self::Rejected(e) => {
                    f.opt(e.as_ref().map(Error::to_value));
                    code::REJECTED
                }
                Self::Released => code::RELEASED,
                Self::Modified {
                    delivery_failed,
                    undeliverable_here,
                    annotations,
                } => {
                    f.flag(*delivery_failed)
                        .flag(*undeliverable_here)
                        .opt(annotations.clone());
                    code::MODIFIED
                }
            };
            out.put_u8(0);
            ulong(code, out);
            f.finish(out);
        });
    }
}
