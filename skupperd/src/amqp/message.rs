//! The contents of deliveries: messages (OASIS AMQP 1.0 part 3.2) with the router annotations that
//! skupper-router puts before them, and the heads of TCP streams.

mod head;

use super::{
    codec::{DecodeError, ListFields, Reader, encode, ulong},
    value::Value,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Descriptor of the router annotations section: "SKPR--RA" (`router-annotations.adoc` of
/// skupper-router, which also has the flags below).
pub const ROUTER_ANNOTATIONS: u64 = 0x534B_5052_2D2D_5241;
/// Content type of a TCP stream's delivery (`tcp_adaptor.c` of skupper-router).
pub const STREAM_CONTENT_TYPE: &str = "application/octet-stream";

/// Annotation flag: the delivery is a stream.
pub const FLAG_STREAMING: u32 = 1;
/// Annotation flag: a released delivery may be sent to another consumer.
pub const FLAG_RESEND_RELEASED: u32 = 2;
/// Annotation flag: the router does not hold the sender back when its queue is full (Q2).
pub const FLAG_DISABLE_Q2: u32 = 4;

const HEADER: u64 = 0x70;
const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

/// Routers that a message may have passed: more than any network has.
const MAX_TRACE: usize = 512;

/// The section that every message between routers begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouterAnnotations {
    /// Flags; unknown bits are passed on unchanged.
    pub flags: u32,
    /// Address that overrides `to`.
    pub to_override: Option<String>,
    /// Router where the message entered the network, as `<area>/<id>`.
    pub ingress: Option<String>,
    /// Routers passed so far.
    pub trace: Vec<String>,
    /// Mesh of the edge where it entered.
    pub ingress_mesh: Option<String>,
    /// Further elements, passed on unchanged.
    pub extra: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub message_id: Option<Value>,
    pub user_id: Option<Bytes>,
    /// Address the message goes to.
    pub to: Option<String>,
    pub subject: Option<String>,
    /// Address that answers go to.
    pub reply_to: Option<String>,
    pub correlation_id: Option<Value>,
    /// A symbol by the standard, a string in the streams of skupper-router.
    pub content_type: Option<Value>,
    /// The remaining fields, kept as they are.
    pub rest: Vec<Value>,
}

/// The head of a stream: its sections before the first payload byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageHead {
    pub annotations: RouterAnnotations,
    pub properties: Properties,
    pub application_properties: Vec<(Value, Value)>,
}

impl MessageHead {
    /// Destination address.
    pub fn to(&self) -> Option<&str> {
        self.annotations
            .to_override
            .as_deref()
            .or(self.properties.to.as_deref())
    }

    pub fn application_property(&self, name: &str) -> Option<&Value> {
        self.application_properties
            .iter()
            .find(|(k, _)| k.as_str() == Some(name))
            .map(|(_, v)| v)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    #[default]
    Empty,
    Value(Value),
    Data(Vec<Bytes>),
    Sequence(Vec<Value>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Router annotations; absent from clients.
    pub annotations: Option<RouterAnnotations>,
    /// Header, kept as it is.
    pub header: Option<Value>,
    pub delivery_annotations: Option<Value>,
    pub message_annotations: Option<Value>,
    pub properties: Option<Properties>,
    pub application_properties: Vec<(Value, Value)>,
    pub body: Body,
    pub footer: Option<Value>,
}

/// Kind of a delivery, recognised by its first bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamParse {
    /// The head is not complete yet.
    NeedMore,
    /// A stream; its bytes begin at `raw_offset`.
    Stream {
        head: Box<MessageHead>,
        /// Where raw bytes begin.
        raw_offset: usize,
    },
    NotStream,
}

pub fn parse_stream_head(buf: &[u8]) -> Result<StreamParse, DecodeError> {
    if !head::is_complete(buf)? {
        return Ok(StreamParse::NeedMore);
    }
    stream_head(buf)
}

fn stream_head(buf: &[u8]) -> Result<StreamParse, DecodeError> {
    let mut r = Reader::new(buf);
    let mut head = MessageHead::default();
    loop {
        match r.descriptor()? {
            ROUTER_ANNOTATIONS => head.annotations = annotations(&mut r.fields()?)?,
            PROPERTIES => head.properties = properties(&mut r.fields()?)?,
            APPLICATION_PROPERTIES => head.application_properties = map(r.value()?)?,
            HEADER | DELIVERY_ANNOTATIONS | MESSAGE_ANNOTATIONS => drop(r.value()?),
            VALUE => {
                let stream = head
                    .properties
                    .content_type
                    .as_ref()
                    .and_then(Value::as_str)
                    == Some(STREAM_CONTENT_TYPE);
                // A null body marks a stream. With another body of that content type it is a message.
                return match r.peek() {
                    None => Err(DecodeError::Truncated),
                    Some(0x40) if stream => Ok(StreamParse::Stream {
                        head: Box::new(head),
                        raw_offset: buf.len() - r.remaining() + 1,
                    }),
                    Some(_) => Ok(StreamParse::NotStream),
                };
            }
            DATA | SEQUENCE | FOOTER => return Ok(StreamParse::NotStream),
            _ => return Err(DecodeError::Type("message section")),
        }
    }
}

fn map(value: Value) -> Result<Vec<(Value, Value)>, DecodeError> {
    match value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(Vec::new()),
        _ => Err(DecodeError::Type("application-properties")),
    }
}

fn annotations(f: &mut ListFields<'_>) -> Result<RouterAnnotations, DecodeError> {
    let flags = f.u32()?.unwrap_or(0);
    let to_override = f.string()?;
    let ingress = f.string()?;
    let trace = match f.value()? {
        Value::Null => Vec::new(),
        Value::List(items) if items.len() <= MAX_TRACE => items
            .into_iter()
            .map(|item| match item {
                Value::String(s) => Ok(s),
                _ => Err(DecodeError::Type("trace")),
            })
            .collect::<Result<_, _>>()?,
        Value::List(_) => return Err(DecodeError::Limit("trace")),
        _ => return Err(DecodeError::Type("trace")),
    };
    Ok(RouterAnnotations {
        flags,
        to_override,
        ingress,
        trace,
        ingress_mesh: f.string()?,
        extra: f.rest()?,
    })
}

fn properties(f: &mut ListFields<'_>) -> Result<Properties, DecodeError> {
    let some = |v: Value| Some(v).filter(|v| *v != Value::Null);
    Ok(Properties {
        message_id: some(f.value()?),
        user_id: f.binary()?,
        to: f.string()?,
        subject: f.string()?,
        reply_to: f.string()?,
        correlation_id: some(f.value()?),
        content_type: some(f.value()?),
        rest: f.rest()?,
    })
}

/// Writes a list or map in its wide form, as skupper-router does, which expects the size at a fixed
/// offset.
fn wide(code: u8, count: usize, body: &[u8], out: &mut impl BufMut) {
    if code == 0xd0 && count == 0 {
        return out.put_u8(0x45);
    }
    out.put_u8(code);
    out.put_u32(body.len() as u32 + 4);
    out.put_u32(count as u32);
    out.put_slice(body);
}

fn encode_annotations(a: &RouterAnnotations, out: &mut impl BufMut) {
    out.put_u8(0);
    out.put_u8(0x80);
    out.put_u64(ROUTER_ANNOTATIONS);
    let opt = |s: &Option<String>| s.clone().map_or(Value::Null, Value::String);
    let mut body = Vec::with_capacity(64);
    encode(&Value::Uint(a.flags), &mut body);
    encode(&opt(&a.to_override), &mut body);
    encode(&opt(&a.ingress), &mut body);
    let mut trace = Vec::with_capacity(32);
    a.trace
        .iter()
        .for_each(|id| super::codec::string(id, &mut trace));
    wide(0xd0, a.trace.len(), &trace, &mut body);
    let mut count = 4;
    if a.ingress_mesh.is_some() || !a.extra.is_empty() {
        encode(&opt(&a.ingress_mesh), &mut body);
        a.extra.iter().for_each(|v| encode(v, &mut body));
        count += 1 + a.extra.len();
    }
    wide(0xd0, count, &body, out);
}

fn encode_properties(p: &Properties, out: &mut impl BufMut) {
    out.put_slice(&[0, 0x53, 0x73]);
    let text = |s: &Option<String>| s.clone().map_or(Value::Null, Value::String);
    let fields = [
        p.message_id.clone().unwrap_or(Value::Null),
        p.user_id.clone().map_or(Value::Null, Value::Binary),
        text(&p.to),
        text(&p.subject),
        text(&p.reply_to),
        p.correlation_id.clone().unwrap_or(Value::Null),
        p.content_type.clone().unwrap_or(Value::Null),
    ];
    let all: Vec<&Value> = fields.iter().chain(&p.rest).collect();
    let count = all
        .iter()
        .rposition(|v| **v != Value::Null)
        .map_or(0, |last| last + 1);
    let mut body = Vec::with_capacity(96);
    all[..count].iter().for_each(|v| encode(v, &mut body));
    wide(0xd0, count, &body, out);
}

fn encode_map(descriptor: u8, entries: &[(Value, Value)], out: &mut impl BufMut) {
    out.put_slice(&[0, 0x53, descriptor]);
    let mut body = Vec::with_capacity(32);
    for (key, value) in entries {
        encode(key, &mut body);
        encode(value, &mut body);
    }
    wide(0xd1, entries.len() * 2, &body, out);
}

/// Writes the head of a stream up to the marker after which its bytes begin.
pub fn encode_stream_head(head: &MessageHead, out: &mut impl BufMut) {
    encode_annotations(&head.annotations, out);
    encode_properties(&head.properties, out);
    encode_map(0x74, &head.application_properties, out);
    out.put_slice(&[0, 0x53, 0x77, 0x40]);
}

impl Message {
    pub fn decode(buf: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(buf);
        let mut m = Self::default();
        while r.remaining() > 0 {
            match r.descriptor()? {
                ROUTER_ANNOTATIONS => m.annotations = Some(annotations(&mut r.fields()?)?),
                HEADER => m.header = Some(r.value()?),
                DELIVERY_ANNOTATIONS => m.delivery_annotations = Some(r.value()?),
                MESSAGE_ANNOTATIONS => m.message_annotations = Some(r.value()?),
                PROPERTIES => m.properties = Some(properties(&mut r.fields()?)?),
                APPLICATION_PROPERTIES => m.application_properties = map(r.value()?)?,
                VALUE => m.body = Body::Value(r.value()?),
                DATA => match (r.value()?, &mut m.body) {
                    (Value::Binary(bytes), Body::Data(parts)) => parts.push(bytes),
                    (Value::Binary(bytes), body) => *body = Body::Data(vec![bytes]),
                    _ => return Err(DecodeError::Type("data")),
                },
                SEQUENCE => match (r.value()?, &mut m.body) {
                    (list, Body::Sequence(parts)) => parts.push(list),
                    (list, body) => *body = Body::Sequence(vec![list]),
                },
                FOOTER => m.footer = Some(r.value()?),
                _ => return Err(DecodeError::Type("message section")),
            }
        }
        Ok(m)
    }

    pub fn encode(&self, out: &mut BytesMut) {
        if let Some(a) = &self.annotations {
            encode_annotations(a, out);
        }
        let section = |descriptor: u64, value: &Value, out: &mut BytesMut| {
            out.put_u8(0);
            ulong(descriptor, out);
            encode(value, out);
        };
        if let Some(value) = &self.header {
            section(HEADER, value, out);
        }
        if let Some(value) = &self.delivery_annotations {
            section(DELIVERY_ANNOTATIONS, value, out);
        }
        if let Some(value) = &self.message_annotations {
            section(MESSAGE_ANNOTATIONS, value, out);
        }
        if let Some(p) = &self.properties {
            encode_properties(p, out);
        }
        if !self.application_properties.is_empty() {
            encode_map(0x74, &self.application_properties, out);
        }
        match &self.body {
            Body::Empty => {}
            Body::Value(value) => section(VALUE, value, out),
            Body::Data(parts) => {
                parts
                    .iter()
                    .for_each(|p| section(DATA, &Value::Binary(p.clone()), out));
            }
            Body::Sequence(parts) => parts.iter().for_each(|p| section(SEQUENCE, p, out)),
        }
        if let Some(value) = &self.footer {
            section(FOOTER, value, out);
        }
    }

    /// Destination address.
    pub fn to(&self) -> Option<&str> {
        let annotated = self
            .annotations
            .as_ref()
            .and_then(|a| a.to_override.as_deref());
        annotated.or(self.properties.as_ref().and_then(|p| p.to.as_deref()))
    }
}

/// The header section that skupper-router's control messages carry: durable = false.
pub fn not_durable() -> Value {
    Value::List(vec![Value::Bool(false)])
}
