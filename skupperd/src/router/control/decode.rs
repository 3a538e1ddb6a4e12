//! Reading control messages, with bounds on what a peer can make us keep.

use super::{Address, Control, ControlError, MOBILE_VERSION, VERSION};
use crate::amqp::{
    message::{Body, Message},
    value::Value,
};
use std::collections::BTreeMap;

/// Longest router id and longest address taken from a peer, in bytes.
const MAX_ID: usize = 255;
const MAX_NAME: usize = 512;
/// First character of the key of an edge.
const EDGE: char = 'H';
/// Characters of an unknown opcode that an error shows.
const MAX_OPCODE: usize = 64;

/// The map in the body of a control message.
struct MapFields<'a> {
    opcode: &'a str,
    body: &'a Value,
}

impl MapFields<'_> {
    fn missing(&self, field: &'static str) -> ControlError {
        ControlError::Field {
            opcode: self.opcode.to_owned(),
            field,
        }
    }

    fn int(&self, field: &'static str) -> Result<i64, ControlError> {
        let value = self.body.get(field).and_then(Value::as_i64);
        value.ok_or_else(|| self.missing(field))
    }

    fn id(&self, field: &'static str) -> Result<String, ControlError> {
        let value = self.body.get(field).and_then(id);
        value.ok_or_else(|| self.missing(field))
    }

    fn list(&self, field: &'static str) -> Option<&[Value]> {
        self.body.get(field).and_then(Value::as_list)
    }

    fn seen_routers(&self) -> Result<Vec<String>, ControlError> {
        let seen = self.list("seen").ok_or_else(|| self.missing("seen"))?;
        Ok(seen.iter().filter_map(id).collect())
    }

    fn peers(&self) -> Result<BTreeMap<String, u32>, ControlError> {
        let peers = self.body.get("ls").and_then(|ls| ls.get("peers"));
        let peers = peers.and_then(Value::as_map);
        let peers = peers.ok_or_else(|| self.missing("ls.peers"))?;
        let peer = |(peer, cost): &(Value, Value)| {
            let cost = cost.as_i64().filter(|c| *c > 0)?;
            Some((id(peer)?, u32::try_from(cost).ok()?))
        };
        Ok(peers.iter().filter_map(peer).collect())
    }
}

impl Control {
    pub(in crate::router) fn decode(message: &Message) -> Result<Self, ControlError> {
        let opcode = message
            .application_properties
            .iter()
            .find(|(k, _)| k.as_str() == Some("opcode"))
            .and_then(|(_, v)| v.as_str())
            .unwrap_or_default();
        let Body::Value(body) = &message.body else {
            return Err(ControlError::Field {
                opcode: opcode.to_owned(),
                field: "body",
            });
        };
        let known_version = match opcode {
            "HELLO" | "RA" | "LSR" | "LSU" => VERSION,
            "MAR" | "MAU" => MOBILE_VERSION,
            _ => {
                let opcode = opcode.chars().take(MAX_OPCODE).collect();
                return Err(ControlError::Opcode(opcode));
            }
        };
        let fields = MapFields { opcode, body };
        let version = fields.int("pv")?;
        if version > known_version {
            return Err(ControlError::Version {
                opcode: opcode.to_owned(),
                version,
            });
        }
        let id = fields.id("id")?;
        Ok(match opcode {
            "HELLO" => Self::Hello {
                id,
                seen: fields.seen_routers()?,
                instance: fields.int("instance")?,
            },
            "RA" => Self::Ra {
                id,
                instance: fields.int("instance")?,
                ls_seq: fields.int("ls_seq")?,
                mobile_seq: fields.int("mobile_seq")?,
            },
            "LSR" => Self::Lsr { id },
            "LSU" => Self::Lsu {
                id,
                peers: fields.peers()?,
                instance: fields.int("instance")?,
                ls_seq: fields.int("ls_seq")?,
            },
            "MAR" => Self::Mar {
                id,
                have_seq: fields.int("have_seq")?,
            },
            _ => Self::address_update(id, &fields)?,
        })
    }

    fn address_update(id: String, fields: &MapFields<'_>) -> Result<Self, ControlError> {
        let seq = fields.int("mobile_seq")?;
        if let Some(exist) = fields.list("exist") {
            let exist = exist.iter().filter_map(address).collect();
            return Ok(Self::MauFull { id, seq, exist });
        }
        let list = |field| fields.list(field).unwrap_or_default().iter();
        Ok(Self::MauDelta {
            id,
            seq,
            add: list("add").filter_map(address).collect(),
            del: list("del").filter_map(deleted).collect(),
        })
    }
}

/// Whether this can be the id of a router or an edge: hosts, pods and our own ids have these characters.
/// What is shown and logged later has no others.
pub fn is_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:@+~".contains(c);
    !text.is_empty() && text.len() <= MAX_ID && text.chars().all(allowed)
}

/// Whether this can be an address: a routing key, or the key of an update.
pub fn is_address(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

fn id(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| is_id(text));
    text.map(str::to_owned)
}

/// The key of an address or an edge.
fn name(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| is_address(text))?;
    let is_valid = text.strip_prefix(EDGE).is_none_or(is_id);
    is_valid.then(|| text.to_owned())
}

/// A deleted address: skupper-router writes each as a list of one, like an added one without its
/// treatment. A bare string is accepted too.
fn deleted(value: &Value) -> Option<String> {
    match value.as_list() {
        Some(parts) => name(parts.first()?),
        None => name(value),
    }
}

fn address(value: &Value) -> Option<Address> {
    let parts = value.as_list()?;
    // Closest, for one without a treatment.
    let treatment = parts.get(1).and_then(Value::as_i64).unwrap_or(2);
    Some(Address {
        key: name(parts.first()?)?,
        treatment,
    })
}
