//! SASL negotiation (OASIS AMQP 1.0 part 5.3): EXTERNAL on links, ANONYMOUS for local AMQP clients.

use super::{
    codec::{self, DecodeError, List, Reader, ulong},
    frame::{self, FrameError},
    performative::code,
    value::{Symbol, Value},
};
use bytes::{BufMut, BytesMut};

/// A SASL frame is never longer (part 5.3.1).
const MAX_FRAME: usize = 512;
/// Codes of `sasl-outcome` (part 5.3.3.6): success, and failed authentication.
const OK: u8 = 0;
const AUTH: u8 = 1;

/// The TLS certificate identifies the peer.
pub const EXTERNAL: &str = "EXTERNAL";
/// The peer is not identified.
pub const ANONYMOUS: &str = "ANONYMOUS";

/// Why the negotiation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The peer sent no AMQP SASL header or frame.
    #[error("expected an AMQP SASL header or frame")]
    Header,
    #[error("invalid SASL frame")]
    Frame(#[from] FrameError),
    #[error("cannot decode SASL frame")]
    Decode(#[from] DecodeError),
    /// No mechanism in common.
    #[error("no common SASL mechanism; the peer offers {0}")]
    Mechanism(String),
    #[error("the peer refused authentication with code {0}")]
    Refused(u8),
    /// A frame that is not allowed in this state.
    #[error("unexpected SASL frame 0x{0:02x}")]
    Unexpected(u64),
}

#[derive(Debug, PartialEq, Eq)]
enum SaslState {
    Header,
    Mechanisms,
    Init,
    Outcome,
    Done,
}

/// One side of the negotiation.
#[derive(Debug)]
pub struct Sasl {
    state: SaslState,
    server: bool,
    mechanisms: &'static [&'static str],
    /// Bytes to send.
    pub output: BytesMut,
}

impl Sasl {
    /// The connecting side, with this mechanism.
    pub fn client(mechanism: &'static [&'static str; 1]) -> Self {
        Self::new(false, mechanism)
    }

    /// The accepting side, offering these mechanisms.
    pub fn server(mechanisms: &'static [&'static str]) -> Self {
        Self::new(true, mechanisms)
    }

    fn new(server: bool, mechanisms: &'static [&'static str]) -> Self {
        let mut output = BytesMut::new();
        if !server {
            output.put_slice(&frame::SASL_HEADER);
        }
        Self {
            state: SaslState::Header,
            server,
            mechanisms,
            output,
        }
    }

    /// True after success; the bytes that follow are AMQP.
    pub fn is_done(&self) -> bool {
        self.state == SaslState::Done
    }

    /// Consumes the peer's bytes from the start of `input`. Bytes after the negotiation are left.
    pub fn feed(&mut self, input: &mut BytesMut) -> Result<(), SaslError> {
        while self.state != SaslState::Done {
            if self.state == SaslState::Header {
                let known = input.len().min(8);
                if input[..known] != frame::SASL_HEADER[..known] {
                    return Err(SaslError::Header);
                }
                if known < 8 {
                    return Ok(());
                }
                drop(input.split_to(8));
                if self.server {
                    self.output.put_slice(&frame::SASL_HEADER);
                    let offered: Vec<Symbol> =
                        self.mechanisms.iter().map(|m| (*m).into()).collect();
                    let array = offered.into_iter().map(Value::Symbol).collect();
                    let mut list = List::new();
                    list.value(&Value::Array(array));
                    self.send(code::SASL_MECHANISMS, &list);
                    self.state = SaslState::Init;
                } else {
                    self.state = SaslState::Mechanisms;
                }
                continue;
            }
            let Some(head) = frame::Header::parse(input, MAX_FRAME)? else {
                return Ok(());
            };
            if input.len() < head.size {
                return Ok(());
            }
            let whole = input.split_to(head.size);
            let body = whole.get(head.body..).ok_or(DecodeError::Truncated)?;
            if head.kind != frame::SASL {
                return Err(SaslError::Header);
            }
            self.frame(&mut Reader::new(body))?;
        }
        Ok(())
    }

    fn frame(&mut self, r: &mut Reader<'_>) -> Result<(), SaslError> {
        let code = r.descriptor()?;
        let mut fields = r.fields()?;
        match (&self.state, code) {
            (SaslState::Mechanisms, code::SASL_MECHANISMS) => {
                let offered = fields.symbols()?;
                let ours = self.mechanisms.first().copied().unwrap_or(EXTERNAL);
                if !offered.iter().any(|m| m.as_str() == ours) {
                    let names: Vec<&str> = offered.iter().map(Symbol::as_str).collect();
                    return Err(SaslError::Mechanism(names.join(" ")));
                }
                let mut list = List::new();
                list.raw(|out| codec::symbol(ours, out));
                // An empty identity: the one of the certificate.
                let response: &[u8] = if ours == ANONYMOUS { b"anonymous" } else { b"" };
                list.value(&Value::Binary(response.into()));
                self.send(code::SASL_INIT, &list);
                self.state = SaslState::Outcome;
            }
            (SaslState::Init, code::SASL_INIT) => {
                let chosen = fields.symbol()?.ok_or(DecodeError::Missing("mechanism"))?;
                let known = self.mechanisms.contains(&chosen.as_str());
                let mut list = List::new();
                list.value(&Value::Ubyte(if known { OK } else { AUTH }));
                self.send(code::SASL_OUTCOME, &list);
                if !known {
                    return Err(SaslError::Mechanism(chosen.to_string()));
                }
                self.state = SaslState::Done;
            }
            (SaslState::Outcome, code::SASL_OUTCOME) => match fields.u8()? {
                Some(OK) => self.state = SaslState::Done,
                other => return Err(SaslError::Refused(other.unwrap_or(AUTH))),
            },
            (_, other) => return Err(SaslError::Unexpected(other)),
        }
        Ok(())
    }

    fn send(&mut self, code: u64, list: &List) {
        let mut body = BytesMut::new();
        body.put_u8(0);
        ulong(code, &mut body);
        list.finish(&mut body);
        frame::put(frame::SASL, 0, &body, &mut self.output);
    }
}
