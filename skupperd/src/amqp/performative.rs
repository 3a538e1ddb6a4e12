//! The performatives and their types (OASIS AMQP 1.0 parts 2, 3 and 5).
//!
//! Each type reads and writes its own list of fields (`decode`, `encode`). The descriptors, which tell
//! the lists apart, are in [`code`].

pub mod code;
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

#[derive(Clone, Debug, PartialEq)]
pub enum Performative {
    Open(Box<Open>),
    Begin(Begin),
    Attach(Box<Attach>),
    Flow(Flow),
    Transfer(Transfer),
    Disposition(Disposition),
    Detach(Detach),
    End(Option<Error>),
    Close(Option<Error>),
}

impl Performative {
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
