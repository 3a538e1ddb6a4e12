//! Writing control messages, in the types that skupper-router writes.

use super::{AREA, Address, Control, MOBILE_VERSION, VERSION};
use crate::amqp::{
    message::{Body, Message, Properties, RouterAnnotations, not_durable},
    value::{Symbol, Value},
};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// How keys and numbers of a message are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Keys are strings, numbers ints where they fit.
    Python,
    /// Keys are symbols, numbers longs.
    C,
}

impl Style {
    fn key(self, name: &'static str) -> Value {
        match self {
            Self::Python => text(name),
            Self::C => Value::Symbol(Symbol::from(name)),
        }
    }

    fn int(self, n: i64) -> Value {
        match i32::try_from(n) {
            Ok(small) if self == Self::Python => Value::Int(small),
            _ => Value::Long(n),
        }
    }

    fn number(self, name: &'static str, n: i64) -> (Value, Value) {
        (self.key(name), self.int(n))
    }

    /// An entry with any other value.
    fn entry(self, name: &'static str, value: Value) -> (Value, Value) {
        (self.key(name), value)
    }

    fn link_state(self, id: &str, seq: i64, peers: &BTreeMap<String, u32>) -> Value {
        let peers = peers
            .iter()
            .map(|(id, cost)| (text(id), self.int((*cost).into())));
        Value::Map(vec![
            self.entry("id", text(id)),
            self.entry("area", text(AREA)),
            self.number("ls_seq", seq),
            self.entry("peers", Value::Map(peers.collect())),
        ])
    }
}

impl Control {
    /// Encodes the message, as coming from `from` and going to `to`.
    pub(in crate::router) fn encode(&self, from: &str, to: String) -> Bytes {
        let (opcode, style) = self.opcode();
        let own = format!("{AREA}/{from}");
        let message = Message {
            annotations: Some(RouterAnnotations {
                ingress: Some(own.clone()),
                trace: vec![own],
                ..RouterAnnotations::default()
            }),
            header: Some(not_durable()),
            properties: Some(Properties {
                to: Some(to),
                ..Properties::default()
            }),
            application_properties: vec![style.entry("opcode", text(opcode))],
            body: Body::Value(Value::Map(self.body(style))),
            ..Message::default()
        };
        let mut out = BytesMut::with_capacity(256);
        message.encode(&mut out);
        out.freeze()
    }

    fn opcode(&self) -> (&'static str, Style) {
        match self {
            Self::Hello { .. } => ("HELLO", Style::Python),
            Self::Ra { .. } => ("RA", Style::Python),
            Self::Lsr { .. } => ("LSR", Style::Python),
            Self::Lsu { .. } => ("LSU", Style::Python),
            Self::Mar { .. } => ("MAR", Style::C),
            Self::MauDelta { .. } | Self::MauFull { .. } => ("MAU", Style::C),
        }
    }

    fn body(&self, style: Style) -> Vec<(Value, Value)> {
        let version = match style {
            Style::Python => VERSION,
            Style::C => MOBILE_VERSION,
        };
        let mut body = vec![
            style.entry("id", text(self.id())),
            style.number("pv", version),
            style.entry("area", text(AREA)),
        ];
        match self {
            Self::Hello { instance, seen, .. } => body.extend([
                style.number("instance", *instance),
                style.entry("seen", Value::List(seen.iter().map(|s| text(s)).collect())),
            ]),
            Self::Ra {
                instance,
                ls_seq,
                mobile_seq,
                ..
            } => body.extend([
                style.number("instance", *instance),
                style.number("ls_seq", *ls_seq),
                style.number("mobile_seq", *mobile_seq),
            ]),
            Self::Lsr { .. } => {}
            Self::Lsu {
                id,
                instance,
                ls_seq,
                peers,
            } => body.extend([
                style.number("instance", *instance),
                style.number("ls_seq", *ls_seq),
                style.entry("ls", style.link_state(id, *ls_seq, peers)),
            ]),
            Self::Mar { have_seq, .. } => body.push(style.number("have_seq", *have_seq)),
            Self::MauDelta { seq, add, del, .. } => {
                let del = del.iter().map(|key| Value::List(vec![text(key)]));
                body.extend([
                    style.number("mobile_seq", *seq),
                    style.entry("add", addresses(add)),
                    style.entry("del", Value::List(del.collect())),
                ]);
            }
            Self::MauFull { seq, exist, .. } => body.extend([
                style.number("mobile_seq", *seq),
                style.entry("exist", addresses(exist)),
            ]),
        }
        body
    }
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

/// Each address as key, treatment and number of in-links, which receivers ignore.
fn addresses(list: &[Address]) -> Value {
    let describe = |a: &Address| {
        let treatment = i32::try_from(a.treatment).unwrap_or(0);
        Value::List(vec![text(&a.key), Value::Int(treatment), Value::Int(0)])
    };
    Value::List(list.iter().map(describe).collect())
}
