//! Control messages between interior routers, as bytes.

use crate::amqp::{
    codec::DecodeError,
    message::{Body, Message, Properties, RouterAnnotations, not_durable},
    value::{Symbol, Value},
};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Protocol version of HELLO, RA, LSR and LSU.
const VERSION: i64 = 1;
/// Protocol version of MAR and MAU.
const MOBILE_VERSION: i64 = 2;
/// The only routing area there is.
pub(super) const AREA: &str = "0";
/// Longest router id or address taken from a peer.
const MAX_NAME: usize = 512;
/// Neighbours in one link state: more than any router can have.
const MAX_PEERS: usize = 4096;

/// A control message's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Control {
    Hello {
        id: String,
        instance: i64,
        seen: Vec<String>,
    },
    Ra {
        id: String,
        instance: i64,
        ls_seq: i64,
        mobile_seq: i64,
    },
    Lsr {
        id: String,
    },
    Lsu {
        id: String,
        instance: i64,
        ls_seq: i64,
        peers: BTreeMap<String, u32>,
    },
    Mar {
        id: String,
        have_seq: i64,
    },
    MauDelta {
        id: String,
        seq: i64,
        add: Vec<Address>,
        del: Vec<String>,
    },
    MauFull {
        id: String,
        seq: i64,
        exist: Vec<Address>,
    },
}

/// An address as MAU describes it: hash key (`M` + address) and treatment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    pub(super) key: String,
    pub(super) treatment: i64,
}

/// Why a control message was not acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The bytes are not a message.
    #[error("control message does not decode")]
    Decode(#[from] DecodeError),
    /// A field is missing or of another type.
    #[error("control message {opcode}: field {field} is missing or malformed")]
    Field {
        /// Operation.
        opcode: String,
        /// Field.
        field: &'static str,
    },
    /// Newer than we know.
    #[error("control message {opcode} has protocol version {version}")]
    Version {
        /// Operation.
        opcode: String,
        /// Version it has.
        version: i64,
    },
    /// No such operation.
    #[error("unknown control message {0:?}")]
    Opcode(String),
}

impl Control {
    pub(super) fn decode(m: &Message) -> Result<Self, ControlError> {
        let opcode = m
            .application_properties
            .iter()
            .find(|(k, _)| k.as_str() == Some("opcode"))
            .and_then(|(_, v)| v.as_str())
            .unwrap_or_default();
        let Body::Value(body) = &m.body else {
            return Err(field(opcode, "body"));
        };
        let mobile = matches!(opcode, "MAR" | "MAU");
        if !mobile && !matches!(opcode, "HELLO" | "RA" | "LSR" | "LSU") {
            return Err(ControlError::Opcode(opcode.chars().take(64).collect()));
        }
        let version = body
            .get("pv")
            .and_then(Value::as_i64)
            .ok_or(field(opcode, "pv"))?;
        if version > if mobile { MOBILE_VERSION } else { VERSION } {
            return Err(ControlError::Version {
                opcode: opcode.to_owned(),
                version,
            });
        }
        let int = |name: &'static str| {
            body.get(name)
                .and_then(Value::as_i64)
                .ok_or_else(|| field(opcode, name))
        };
        let id = body
            .get("id")
            .and_then(name)
            .ok_or_else(|| field(opcode, "id"))?;
        Ok(match opcode {
            "HELLO" => {
                let seen = body.get("seen").and_then(Value::as_list);
                let seen = seen
                    .ok_or_else(|| field(opcode, "seen"))?
                    .iter()
                    .filter_map(name);
                Self::Hello {
                    id,
                    instance: int("instance")?,
                    seen: seen.take(MAX_PEERS).collect(),
                }
            }
            "RA" => Self::Ra {
                id,
                instance: int("instance")?,
                ls_seq: int("ls_seq")?,
                mobile_seq: int("mobile_seq")?,
            },
            "LSR" => Self::Lsr { id },
            "LSU" => {
                let state = body
                    .get("ls")
                    .and_then(|ls| ls.get("peers"))
                    .and_then(Value::as_map);
                let peers = state.ok_or_else(|| field(opcode, "ls.peers"))?;
                let peer = |(id, cost): &(Value, Value)| {
                    let cost = cost.as_i64().filter(|c| *c > 0)?;
                    Some((name(id)?, u32::try_from(cost).ok()?))
                };
                Self::Lsu {
                    id,
                    instance: int("instance")?,
                    ls_seq: int("ls_seq")?,
                    peers: peers.iter().take(MAX_PEERS).filter_map(peer).collect(),
                }
            }
            "MAR" => Self::Mar {
                id,
                have_seq: int("have_seq")?,
            },
            _ => {
                let seq = int("mobile_seq")?;
                if let Some(exist) = body.get("exist").and_then(Value::as_list) {
                    Self::MauFull {
                        id,
                        seq,
                        exist: exist.iter().filter_map(address).collect(),
                    }
                } else {
                    let list = |key| body.get(key).and_then(Value::as_list).unwrap_or_default();
                    Self::MauDelta {
                        id,
                        seq,
                        add: list("add").iter().filter_map(address).collect(),
                        del: list("del").iter().filter_map(deleted).collect(),
                    }
                }
            }
        })
    }

    /// Encodes the message, as coming from `from` and going to `to`.
    #[expect(clippy::too_many_lines, reason = "one arm for each message")]
    pub(super) fn encode(&self, from: &str, to: String) -> Bytes {
        let text = |s: &str| Value::String(s.to_owned());
        // The two halves of upstream write keys and numbers of different types.
        let (opcode, mobile) = match self {
            Self::Hello { .. } => ("HELLO", false),
            Self::Ra { .. } => ("RA", false),
            Self::Lsr { .. } => ("LSR", false),
            Self::Lsu { .. } => ("LSU", false),
            Self::Mar { .. } => ("MAR", true),
            Self::MauDelta { .. } | Self::MauFull { .. } => ("MAU", true),
        };
        let key = |name: &'static str| match mobile {
            true => Value::Symbol(Symbol::from(name)),
            false => text(name),
        };
        let int = |n: i64| match i32::try_from(n) {
            Ok(small) if !mobile => Value::Int(small),
            _ => Value::Long(n),
        };
        let version = if mobile { MOBILE_VERSION } else { VERSION };
        let mut body = vec![
            (key("id"), text(self.id())),
            (key("pv"), int(version)),
            (key("area"), text(AREA)),
        ];
        let addresses = |list: &[Address]| {
            let describe = |a: &Address| {
                let treatment = i32::try_from(a.treatment).unwrap_or(0);
                Value::List(vec![text(&a.key), Value::Int(treatment), Value::Int(0)])
            };
            Value::List(list.iter().map(describe).collect())
        };
        match self {
            Self::Hello { instance, seen, .. } => {
                body.push((key("instance"), int(*instance)));
                body.push((
                    key("seen"),
                    Value::List(seen.iter().map(|s| text(s)).collect()),
                ));
            }
            Self::Ra {
                instance,
                ls_seq,
                mobile_seq,
                ..
            } => {
                body.push((key("instance"), int(*instance)));
                body.push((key("ls_seq"), int(*ls_seq)));
                body.push((key("mobile_seq"), int(*mobile_seq)));
            }
            Self::Lsr { .. } => {}
            Self::Lsu {
                id,
                instance,
                ls_seq,
                peers,
            } => {
                body.push((key("instance"), int(*instance)));
                body.push((key("ls_seq"), int(*ls_seq)));
                let peers = peers
                    .iter()
                    .map(|(id, cost)| (text(id), int((*cost).into())));
                body.push((
                    key("ls"),
                    Value::Map(vec![
                        (key("id"), text(id)),
                        (key("area"), text(AREA)),
                        (key("ls_seq"), int(*ls_seq)),
                        (key("peers"), Value::Map(peers.collect())),
                    ]),
                ));
            }
            Self::Mar { have_seq, .. } => body.push((key("have_seq"), int(*have_seq))),
            Self::MauDelta { seq, add, del, .. } => {
                body.push((key("mobile_seq"), int(*seq)));
                body.push((key("add"), addresses(add)));
                body.push((
                    key("del"),
                    Value::List(del.iter().map(|k| Value::List(vec![text(k)])).collect()),
                ));
            }
            Self::MauFull { seq, exist, .. } => {
                body.push((key("mobile_seq"), int(*seq)));
                body.push((key("exist"), addresses(exist)));
            }
        }
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
            application_properties: vec![(key("opcode"), text(opcode))],
            body: Body::Value(Value::Map(body)),
            ..Message::default()
        };
        let mut out = BytesMut::with_capacity(256);
        message.encode(&mut out);
        out.freeze()
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Hello { id, .. }
            | Self::Ra { id, .. }
            | Self::Lsr { id }
            | Self::Lsu { id, .. }
            | Self::Mar { id, .. }
            | Self::MauDelta { id, .. }
            | Self::MauFull { id, .. } => id,
        }
    }
}

fn field(opcode: &str, field: &'static str) -> ControlError {
    ControlError::Field {
        opcode: opcode.to_owned(),
        field,
    }
}

fn name(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|s| !s.is_empty() && s.len() <= MAX_NAME)
        .map(str::to_owned)
}

/// A deleted address: upstream writes each as a list of one, like an added one
/// without its treatment; a bare string says the same.
fn deleted(value: &Value) -> Option<String> {
    match value.as_list() {
        Some(parts) => name(parts.first()?),
        None => name(value),
    }
}

fn address(value: &Value) -> Option<Address> {
    let parts = value.as_list()?;
    let treatment = parts.get(1).and_then(Value::as_i64).unwrap_or(2);
    Some(Address {
        key: name(parts.first()?)?,
        treatment,
    })
}
