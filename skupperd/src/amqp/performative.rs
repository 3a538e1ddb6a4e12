//! The performatives and their types (OASIS AMQP 1.0 parts 2, 3 and 5).
//!
//! Each type reads and writes its own list of fields (`decode`, `encode`); which list it is, the
//! descriptor, is known here.

mod delivery;
mod endpoint;
mod error;
mod fields;
mod link;
mod terminus;

use super::codec::{DecodeError, List, Reader, ulong};
use bytes::BufMut;
pub use delivery::{DeliveryState, Disposition, Transfer};
pub use endpoint::{Begin, Open};
pub use error::Error;
pub use link::{Attach, Detach, Flow, Role};
pub use terminus::{Source, Target};

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
            code::OPEN => Self::Open(Box::new(Open::decode(&mut f)?)),
            code::BEGIN => Self::Begin(Begin::decode(&mut f)?),
            code::ATTACH => Self::Attach(Box::new(Attach::decode(&mut f)?)),
            code::FLOW => Self::Flow(Flow::decode(&mut f)?),
            code::TRANSFER => Self::Transfer(Transfer::decode(&mut f)?),
            code::DISPOSITION => Self::Disposition(Disposition::decode(&mut f)?),
            code::DETACH => Self::Detach(Detach::decode(&mut f)?),
            code::END => Self::End(Error::from_value(f.value()?)?),
            code::CLOSE => Self::Close(Error::from_value(f.value()?)?),
            _ => return Err(DecodeError::Type("performative")),
        })
    }

    /// Encodes the performative.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut l = List::new();
        let code = match self {
            Self::Open(o) => {
                o.encode(&mut l);
                code::OPEN
            }
            Self::Begin(b) => {
                b.encode(&mut l);
                code::BEGIN
            }
            Self::Attach(a) => {
                a.encode(&mut l);
                code::ATTACH
            }
            Self::Flow(w) => {
                w.encode(&mut l);
                code::FLOW
            }
            Self::Transfer(t) => {
                t.encode(&mut l);
                code::TRANSFER
            }
            Self::Disposition(d) => {
                d.encode(&mut l);
                code::DISPOSITION
            }
            Self::Detach(d) => {
                d.encode(&mut l);
                code::DETACH
            }
            Self::End(e) => {
                l.opt(e.as_ref().map(Error::to_value));
                code::END
            }
            Self::Close(e) => {
                l.opt(e.as_ref().map(Error::to_value));
                code::CLOSE
            }
        };
        out.put_u8(0);
        ulong(code, out);
        l.finish(out);
    }
}
