//! Control messages between routers, as bytes: HELLO, RA, LSR and LSU for the topology, MAR and MAU for
//! mobile addresses.
//!
//! In skupper-router HELLO to LSU are written by its Python part and MAR and MAU by its C part: keys and
//! numbers of the two have different types on the wire.

mod decode;
mod encode;

pub use decode::{is_address, is_id};

use crate::amqp::codec::DecodeError;
use std::collections::BTreeMap;

/// Protocol version of HELLO, RA, LSR and LSU (`data.py` of skupper-router).
const VERSION: i64 = 1;
/// Protocol version of MAR and MAU (its `mobile.c`).
const MOBILE_VERSION: i64 = 2;
/// The only routing area there is.
pub(super) const AREA: &str = "0";

/// The content of a control message. `id` is the router that it is from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Control {
    Hello {
        id: String,
        instance: i64,
        /// Routers that it hears.
        seen: Vec<String>,
    },
    /// Router advertisement: the numbers of its last link state and of its last address update.
    Ra {
        id: String,
        instance: i64,
        ls_seq: i64,
        mobile_seq: i64,
    },
    /// Link state request.
    Lsr { id: String },
    /// Link state update: its neighbours with costs.
    Lsu {
        id: String,
        instance: i64,
        ls_seq: i64,
        peers: BTreeMap<String, u32>,
    },
    /// Mobile address request.
    Mar { id: String, have_seq: i64 },
    /// Mobile address update: what has changed since the one before.
    MauDelta {
        id: String,
        seq: i64,
        add: Vec<Address>,
        del: Vec<String>,
    },
    /// Mobile address update: everything.
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

/// Why a control message was ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The bytes are not a message.
    #[error("cannot decode control message")]
    Decode(#[from] DecodeError),
    /// A field is missing or has another type.
    #[error("control message {opcode}: field {field} is missing or malformed")]
    Field { opcode: String, field: &'static str },
    /// The peer uses a newer protocol.
    #[error("control message {opcode} has unknown protocol version {version}")]
    Version { opcode: String, version: i64 },
    #[error("control message has unknown opcode {0:?}")]
    Opcode(String),
}

impl Control {
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
