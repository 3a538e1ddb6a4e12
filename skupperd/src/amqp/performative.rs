//! The performatives and their types (OASIS AMQP 1.0 parts 2, 3 and 5).

use super::{
    codec::{DecodeError, Fields, List, Reader, ulong},
    value::{Symbol, Value},
};
use bytes::{BufMut, Bytes};

/// Descriptor codes.
pub mod code {
    #![expect(
        missing_docs,
        reason = "each is the descriptor of the type of that name"
    )]
    pub const OPEN: u64 = 0x10;
    pub const BEGIN: u64 = 0x11;
    pub const ATTACH: u64 = 0x12;
    pub const FLOW: u64 = 0x13;
    pub const TRANSFER: u64 = 0x14;
    pub const DISPOSITION: u64 = 0x15;
    pub const DETACH: u64 = 0x16;
    pub const END: u64 = 0x17;
    pub const CLOSE: u64 = 0x18;
    pub const ERROR: u64 = 0x1d;
    pub const RECEIVED: u64 = 0x23;
    pub const ACCEPTED: u64 = 0x24;
    pub const REJECTED: u64 = 0x25;
    pub const RELEASED: u64 = 0x26;
    pub const MODIFIED: u64 = 0x27;
    pub const SOURCE: u64 = 0x28;
    pub const TARGET: u64 = 0x29;
    pub const SASL_MECHANISMS: u64 = 0x40;
    pub const SASL_INIT: u64 = 0x41;
    pub const SASL_CHALLENGE: u64 = 0x42;
    pub const SASL_RESPONSE: u64 = 0x43;
    pub const SASL_OUTCOME: u64 = 0x44;
}

/// An error with its condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Symbolic condition, such as `amqp:not-found`.
    pub condition: Symbol,
    /// Text for people.
    pub description: Option<String>,
    /// Further data.
    pub info: Vec<(Value, Value)>,
}

impl Error {
    /// An error without further data.
    pub fn new(condition: &'static str, description: impl Into<String>) -> Self {
        Self {
            condition: condition.into(),
            description: Some(description.into()),
            info: Vec::new(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.condition.as_str())?;
        match &self.description {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// Which end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Sends deliveries.
    #[default]
    Sender,
    /// Receives deliveries.
    Receiver,
}

/// `open`
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
    /// Milliseconds of silence after which it gives up.
    pub idle_time_out: Option<u32>,
    /// Locales, not used.
    pub locales: [Vec<Symbol>; 2],
    /// Extensions it supports.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions it would like.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Vec<(Value, Value)>,
}

impl Open {
    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&Value> {
        self.properties
            .iter()
            .find(|(k, _)| k.as_str() == Some(name))
            .map(|(_, v)| v)
    }

    /// The peer offers this capability.
    pub fn offers(&self, name: &str) -> bool {
        self.offered_capabilities.iter().any(|c| c.as_str() == name)
    }
}

/// `begin`
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

/// Where messages of a link come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// Address.
    pub address: Option<String>,
    /// Durability.
    pub durable: u32,
    /// When the terminus goes away.
    pub expiry_policy: Option<Symbol>,
    /// Seconds until then.
    pub timeout: u32,
    /// The peer is to make the address up.
    pub dynamic: bool,
    /// Properties of such a node.
    pub dynamic_node_properties: Option<Value>,
    /// Distribution mode.
    pub distribution_mode: Option<Symbol>,
    /// Filters.
    pub filter: Option<Value>,
    /// Default outcome.
    pub default_outcome: Option<Value>,
    /// Outcomes.
    pub outcomes: Vec<Symbol>,
    /// Capabilities.
    pub capabilities: Vec<Symbol>,
}

/// Where messages of a link go to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Address.
    pub address: Option<String>,
    /// Durability.
    pub durable: u32,
    /// When the terminus goes away.
    pub expiry_policy: Option<Symbol>,
    /// Seconds until then.
    pub timeout: u32,
    /// The peer is to make the address up.
    pub dynamic: bool,
    /// Properties of such a node.
    pub dynamic_node_properties: Option<Value>,
    /// Capabilities.
    pub capabilities: Vec<Symbol>,
}

/// `attach`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attach {
    /// Name of the link.
    pub name: String,
    /// Handle.
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
    /// Target is a coordinator: transactions, which no router has.
    pub coordinator: bool,
    /// Unsettled deliveries of a link that is resumed.
    pub unsettled: Option<Value>,
    /// Whether that list is incomplete.
    pub incomplete_unsettled: bool,
    /// Delivery count of the sender.
    pub initial_delivery_count: Option<u32>,
    /// Largest message.
    pub max_message_size: Option<u64>,
    /// Capabilities and properties, kept as they are.
    pub rest: Vec<Value>,
}

/// `flow`
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
    /// Delivery count of the link.
    pub delivery_count: Option<u32>,
    /// Credit.
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

/// `transfer`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Link.
    pub handle: u32,
    /// Delivery id; only the first frame of a delivery must have it.
    pub delivery_id: Option<u32>,
    /// Delivery tag.
    pub delivery_tag: Option<Bytes>,
    /// Message format.
    pub message_format: Option<u32>,
    /// Settled by the sender.
    pub settled: bool,
    /// The delivery goes on.
    pub more: bool,
    /// Settle mode of this delivery.
    pub rcv_settle_mode: Option<u8>,
    /// State at the sender.
    pub state: Option<DeliveryState>,
    /// Resumption.
    pub resume: bool,
    /// The sender gave the delivery up.
    pub aborted: bool,
    /// Hint for batched dispositions.
    pub batchable: bool,
}

/// `disposition`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disposition {
    /// Role of the end that sends this performative.
    pub role: Role,
    /// First delivery.
    pub first: u32,
    /// Last delivery; the first when absent.
    pub last: Option<u32>,
    /// Settled.
    pub settled: bool,
    /// State.
    pub state: Option<DeliveryState>,
    /// Hint for batching.
    pub batchable: bool,
}

/// `detach`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detach {
    /// Link.
    pub handle: u32,
    /// For good.
    pub closed: bool,
    /// Reason.
    pub error: Option<Error>,
}

/// State of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryState {
    /// Received so far.
    Received {
        /// Section.
        section_number: u32,
        /// Bytes within it. On streams: bytes passed on in all.
        section_offset: u64,
    },
    /// Taken.
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

/// Any performative of an AMQP frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Performative {
    /// open
    Open(Box<Open>),
    /// begin
    Begin(Begin),
    /// attach
    Attach(Box<Attach>),
    /// flow
    Flow(Flow),
    /// transfer
    Transfer(Transfer),
    /// disposition
    Disposition(Disposition),
    /// detach
    Detach(Detach),
    /// end
    End(Option<Error>),
    /// close
    Close(Option<Error>),
}

impl Performative {
    /// Decodes a performative from the front of a frame's body.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = r.descriptor()?;
        let mut f = r.fields()?;
        Ok(match code {
            code::OPEN => Self::Open(Box::new(open(&mut f)?)),
            code::BEGIN => Self::Begin(begin(&mut f)?),
            code::ATTACH => Self::Attach(Box::new(attach(&mut f)?)),
            code::FLOW => Self::Flow(flow(&mut f)?),
            code::TRANSFER => Self::Transfer(transfer(&mut f)?),
            code::DISPOSITION => Self::Disposition(disposition(&mut f)?),
            code::DETACH => Self::Detach(Detach {
                handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
                closed: f.bool()?.unwrap_or(false),
                error: error(f.value()?)?,
            }),
            code::END => Self::End(error(f.value()?)?),
            code::CLOSE => Self::Close(error(f.value()?)?),
            _ => return Err(DecodeError::Type("performative")),
        })
    }

    /// Encodes the performative.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut l = List::new();
        let code = match self {
            Self::Open(o) => {
                l.value(&Value::String(o.container_id.clone()));
                l.opt(o.hostname.clone().map(Value::String))
                    .opt_uint(o.max_frame_size);
                l.opt(o.channel_max.map(Value::Ushort))
                    .opt_uint(o.idle_time_out);
                l.symbols(&o.locales[0]).symbols(&o.locales[1]);
                l.symbols(&o.offered_capabilities)
                    .symbols(&o.desired_capabilities);
                l.opt((!o.properties.is_empty()).then(|| Value::Map(o.properties.clone())));
                code::OPEN
            }
            Self::Begin(b) => {
                l.opt(b.remote_channel.map(Value::Ushort))
                    .uint(b.next_outgoing_id);
                l.uint(b.incoming_window)
                    .uint(b.outgoing_window)
                    .opt_uint(b.handle_max);
                for v in &b.rest {
                    l.value(v);
                }
                code::BEGIN
            }
            Self::Attach(a) => {
                l.value(&Value::String(a.name.clone())).uint(a.handle);
                l.value(&Value::Bool(a.role == Role::Receiver));
                l.opt(a.snd_settle_mode.map(Value::Ubyte))
                    .opt(a.rcv_settle_mode.map(Value::Ubyte));
                match &a.source {
                    Some(s) => l.raw(|out| encode_source(s, out)),
                    None => l.null(),
                };
                match &a.target {
                    Some(t) => l.raw(|out| encode_target(t, out)),
                    None => l.null(),
                };
                l.opt(a.unsettled.clone()).flag(a.incomplete_unsettled);
                l.opt_uint(a.initial_delivery_count)
                    .opt(a.max_message_size.map(Value::Ulong));
                for v in &a.rest {
                    l.value(v);
                }
                code::ATTACH
            }
            Self::Flow(w) => {
                l.opt_uint(w.next_incoming_id).uint(w.incoming_window);
                l.uint(w.next_outgoing_id)
                    .uint(w.outgoing_window)
                    .opt_uint(w.handle);
                l.opt_uint(w.delivery_count)
                    .opt_uint(w.link_credit)
                    .opt_uint(w.available);
                // Upstream writes this default out; so do we, frame for frame.
                l.value(&Value::Bool(w.drain)).flag(w.echo);
                for v in &w.rest {
                    l.value(v);
                }
                code::FLOW
            }
            Self::Transfer(t) => {
                l.uint(t.handle).opt_uint(t.delivery_id);
                l.opt(t.delivery_tag.clone().map(Value::Binary))
                    .opt_uint(t.message_format);
                l.flag(t.settled)
                    .flag(t.more)
                    .opt(t.rcv_settle_mode.map(Value::Ubyte));
                encode_state(t.state.as_ref(), &mut l);
                l.flag(t.resume).flag(t.aborted).flag(t.batchable);
                code::TRANSFER
            }
            Self::Disposition(d) => {
                l.value(&Value::Bool(d.role == Role::Receiver))
                    .uint(d.first)
                    .opt_uint(d.last);
                l.flag(d.settled);
                encode_state(d.state.as_ref(), &mut l);
                l.flag(d.batchable);
                code::DISPOSITION
            }
            Self::Detach(d) => {
                l.uint(d.handle).flag(d.closed);
                l.opt(d.error.as_ref().map(error_value));
                code::DETACH
            }
            Self::End(e) => {
                l.opt(e.as_ref().map(error_value));
                code::END
            }
            Self::Close(e) => {
                l.opt(e.as_ref().map(error_value));
                code::CLOSE
            }
        };
        out.put_u8(0);
        ulong(code, out);
        l.finish(out);
    }
}

fn open(f: &mut Fields<'_>) -> Result<Open, DecodeError> {
    Ok(Open {
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

fn begin(f: &mut Fields<'_>) -> Result<Begin, DecodeError> {
    Ok(Begin {
        remote_channel: f.u16()?,
        next_outgoing_id: f.u32()?.ok_or(DecodeError::Missing("next-outgoing-id"))?,
        incoming_window: f.u32()?.ok_or(DecodeError::Missing("incoming-window"))?,
        outgoing_window: f.u32()?.ok_or(DecodeError::Missing("outgoing-window"))?,
        handle_max: f.u32()?,
        rest: f.rest()?,
    })
}

fn attach(f: &mut Fields<'_>) -> Result<Attach, DecodeError> {
    let mut a = Attach {
        name: f.string()?.ok_or(DecodeError::Missing("name"))?,
        handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
        role: role(f.bool()?)?,
        snd_settle_mode: f.u8()?,
        rcv_settle_mode: f.u8()?,
        source: source(f.value()?)?,
        ..Attach::default()
    };
    match f.value()? {
        Value::Described(parts) if parts.0 == Value::Ulong(0x30) => a.coordinator = true,
        value => a.target = target(value)?,
    }
    a.unsettled = Some(f.value()?).filter(|v| *v != Value::Null);
    a.incomplete_unsettled = f.bool()?.unwrap_or(false);
    a.initial_delivery_count = f.u32()?;
    a.max_message_size = f.u64()?;
    a.rest = f.rest()?;
    Ok(a)
}

fn flow(f: &mut Fields<'_>) -> Result<Flow, DecodeError> {
    Ok(Flow {
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

fn transfer(f: &mut Fields<'_>) -> Result<Transfer, DecodeError> {
    Ok(Transfer {
        handle: f.u32()?.ok_or(DecodeError::Missing("handle"))?,
        delivery_id: f.u32()?,
        delivery_tag: f.binary()?,
        message_format: f.u32()?,
        settled: f.bool()?.unwrap_or(false),
        more: f.bool()?.unwrap_or(false),
        rcv_settle_mode: f.u8()?,
        state: state(f.value()?)?,
        resume: f.bool()?.unwrap_or(false),
        aborted: f.bool()?.unwrap_or(false),
        batchable: f.bool()?.unwrap_or(false),
    })
}

fn disposition(f: &mut Fields<'_>) -> Result<Disposition, DecodeError> {
    Ok(Disposition {
        role: role(f.bool()?)?,
        first: f.u32()?.ok_or(DecodeError::Missing("first"))?,
        last: f.u32()?,
        settled: f.bool()?.unwrap_or(false),
        state: state(f.value()?)?,
        batchable: f.bool()?.unwrap_or(false),
    })
}

fn role(receiver: Option<bool>) -> Result<Role, DecodeError> {
    match receiver {
        Some(true) => Ok(Role::Receiver),
        Some(false) => Ok(Role::Sender),
        None => Err(DecodeError::Missing("role")),
    }
}

/// Code and fields of a described list.
fn described(value: Value) -> Result<Option<(u64, std::vec::IntoIter<Value>)>, DecodeError> {
    match value {
        Value::Null => Ok(None),
        Value::Described(parts) => match *parts {
            (Value::Ulong(code), Value::List(fields)) => Ok(Some((code, fields.into_iter()))),
            _ => Err(DecodeError::Type("described list")),
        },
        _ => Err(DecodeError::Type("described list")),
    }
}

fn error(value: Value) -> Result<Option<Error>, DecodeError> {
    let Some((code, mut f)) = described(value)? else {
        return Ok(None);
    };
    if code != code::ERROR {
        return Err(DecodeError::Type("error"));
    }
    let Some(Value::Symbol(condition)) = f.next() else {
        return Err(DecodeError::Missing("condition"));
    };
    let description = match f.next() {
        Some(Value::String(text)) => Some(text),
        Some(Value::Null) | None => None,
        Some(_) => return Err(DecodeError::Type("description")),
    };
    let info = match f.next() {
        Some(Value::Map(info)) => info,
        _ => Vec::new(),
    };
    Ok(Some(Error {
        condition,
        description,
        info,
    }))
}

fn error_value(e: &Error) -> Value {
    let mut fields = vec![Value::Symbol(e.condition.clone())];
    if e.description.is_some() || !e.info.is_empty() {
        fields.push(e.description.clone().map_or(Value::Null, Value::String));
    }
    if !e.info.is_empty() {
        fields.push(Value::Map(e.info.clone()));
    }
    Value::Described(Box::new((Value::Ulong(code::ERROR), Value::List(fields))))
}

fn text(value: Option<Value>) -> Result<Option<String>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(DecodeError::Type("address")),
    }
}

fn symbol(value: Option<Value>) -> Result<Option<Symbol>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Symbol(s)) => Ok(Some(s)),
        Some(_) => Err(DecodeError::Type("symbol")),
    }
}

fn symbols(value: Option<Value>) -> Result<Vec<Symbol>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Symbol(s)) => Ok(vec![s]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|i| symbol(Some(i)).map(|s| s.unwrap_or("".into())))
            .collect(),
        Some(_) => Err(DecodeError::Type("symbols")),
    }
}

fn number(value: Option<Value>) -> Result<u32, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Uint(n)) => Ok(n),
        Some(_) => Err(DecodeError::Type("uint")),
    }
}

fn flag(value: Option<Value>) -> Result<bool, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(b),
        Some(_) => Err(DecodeError::Type("boolean")),
    }
}

fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|v| *v != Value::Null)
}

fn source(value: Value) -> Result<Option<Source>, DecodeError> {
    let Some((code, mut f)) = described(value)? else {
        return Ok(None);
    };
    if code != code::SOURCE {
        return Err(DecodeError::Type("source"));
    }
    Ok(Some(Source {
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

fn target(value: Value) -> Result<Option<Target>, DecodeError> {
    let Some((code, mut f)) = described(value)? else {
        return Ok(None);
    };
    if code != code::TARGET {
        return Err(DecodeError::Type("target"));
    }
    Ok(Some(Target {
        address: text(f.next())?,
        durable: number(f.next())?,
        expiry_policy: symbol(f.next())?,
        timeout: number(f.next())?,
        dynamic: flag(f.next())?,
        dynamic_node_properties: some(f.next()),
        capabilities: symbols(f.next())?,
    }))
}

fn encode_source(s: &Source, out: &mut Vec<u8>) {
    let mut l = List::new();
    l.opt(s.address.clone().map(Value::String)).uint(s.durable);
    l.opt(s.expiry_policy.clone().map(Value::Symbol));
    l.uint(s.timeout).value(&Value::Bool(s.dynamic));
    l.opt(s.dynamic_node_properties.clone());
    l.opt(s.distribution_mode.clone().map(Value::Symbol))
        .opt(s.filter.clone());
    l.opt(s.default_outcome.clone())
        .symbols(&s.outcomes)
        .symbols(&s.capabilities);
    out.put_u8(0);
    ulong(code::SOURCE, out);
    l.finish(out);
}

fn encode_target(t: &Target, out: &mut Vec<u8>) {
    let mut l = List::new();
    l.opt(t.address.clone().map(Value::String)).uint(t.durable);
    l.opt(t.expiry_policy.clone().map(Value::Symbol));
    l.uint(t.timeout).value(&Value::Bool(t.dynamic));
    l.opt(t.dynamic_node_properties.clone())
        .symbols(&t.capabilities);
    out.put_u8(0);
    ulong(code::TARGET, out);
    l.finish(out);
}

fn state(value: Value) -> Result<Option<DeliveryState>, DecodeError> {
    let Some((code, mut f)) = described(value)? else {
        return Ok(None);
    };
    Ok(Some(match code {
        code::RECEIVED => DeliveryState::Received {
            section_number: number(f.next())?,
            section_offset: match f.next() {
                None | Some(Value::Null) => 0,
                Some(Value::Ulong(n)) => n,
                Some(_) => return Err(DecodeError::Type("section-offset")),
            },
        },
        code::ACCEPTED => DeliveryState::Accepted,
        code::REJECTED => DeliveryState::Rejected(error(f.next().unwrap_or(Value::Null))?),
        code::RELEASED => DeliveryState::Released,
        code::MODIFIED => DeliveryState::Modified {
            delivery_failed: flag(f.next())?,
            undeliverable_here: flag(f.next())?,
            annotations: some(f.next()),
        },
        _ => return Err(DecodeError::Type("delivery state")),
    }))
}

fn encode_state(state: Option<&DeliveryState>, l: &mut List) {
    let Some(state) = state else {
        l.null();
        return;
    };
    l.raw(|out| {
        let mut f = List::new();
        let code = match state {
            DeliveryState::Received {
                section_number,
                section_offset,
            } => {
                f.uint(*section_number)
                    .value(&Value::Ulong(*section_offset));
                code::RECEIVED
            }
            DeliveryState::Accepted => code::ACCEPTED,
            DeliveryState::Rejected(e) => {
                f.opt(e.as_ref().map(error_value));
                code::REJECTED
            }
            DeliveryState::Released => code::RELEASED,
            DeliveryState::Modified {
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
