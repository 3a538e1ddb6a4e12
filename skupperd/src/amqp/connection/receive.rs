//! Receiving: cuts the input into frames and acts on their performatives.
//!
//! A transfer's payload is passed on in slices of the input as it arrives. Only the start of a frame
//! whose performative is not complete is kept.

use super::{
    Connection,
    event::{ConnectionError, Event},
    parser::TransferPayload,
};
use crate::amqp::{
    codec::{DecodeError, Reader},
    frame::{self, Header},
    performative::{Open, Performative, code},
};
use bytes::{Buf, Bytes, BytesMut};
use std::time::Instant;

enum ParseStep {
    Event(Event),
    /// Something was read, and the caller need not know of it.
    Nothing,
    /// So many bytes of the frame are needed.
    Need(usize),
}

impl Connection {
    /// Consumes bytes from the start of `input` until an event results. `None`: more input is needed.
    ///
    /// # Errors
    /// The peer violates the protocol. The close that tells it why is in the output.
    pub fn receive(
        &mut self,
        input: &mut Bytes,
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        if !input.is_empty() {
            self.last_received = now;
        }
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let event = if let Some(transfer) = self.parser.transfer {
                let bytes = input.split_to(transfer.left.min(input.len()));
                Some(self.pass_payload(transfer, bytes))
            } else if self.parser.partial.is_empty() {
                self.parse_input(input)?
            } else {
                self.complete_partial(input)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Parses a frame at the start of the input. An incomplete frame is kept as the partial frame.
    fn parse_input(&mut self, input: &mut Bytes) -> Result<Option<Event>, ConnectionError> {
        match self.parse_frame(input)? {
            ParseStep::Event(event) => return Ok(Some(event)),
            ParseStep::Nothing => {}
            ParseStep::Need(need) => {
                self.parser.need = need;
                self.parser.partial.extend_from_slice(input);
                input.clear();
            }
        }
        Ok(None)
    }

    /// Adds to the partial frame what it needs, and parses it again.
    fn complete_partial(&mut self, input: &mut Bytes) -> Result<Option<Event>, ConnectionError> {
        let parser = &mut self.parser;
        let more = parser.need.saturating_sub(parser.partial.len()).max(1);
        let part = input.split_to(more.min(input.len()));
        parser.partial.extend_from_slice(&part);
        if parser.partial.len() < parser.need {
            return Ok(None);
        }
        let mut front = parser.partial.split().freeze();
        match self.parse_frame(&mut front)? {
            ParseStep::Event(event) => return Ok(Some(event)),
            ParseStep::Nothing => {}
            ParseStep::Need(need) => {
                self.parser.need = need;
                self.parser.partial = BytesMut::from(front);
                return Ok(None);
            }
        }
        // What is left is payload: a partial frame never has bytes of the next one.
        match self.parser.transfer {
            Some(transfer) if !front.is_empty() => Ok(Some(self.pass_payload(transfer, front))),
            _ => Ok(None),
        }
    }

    pub(super) fn pass_payload(&mut self, mut transfer: TransferPayload, bytes: Bytes) -> Event {
        transfer.left -= bytes.len();
        let first = std::mem::replace(&mut transfer.first, false);
        let done = transfer.left == 0;
        self.parser.transfer = (!done).then_some(transfer);
        Event::Transfer {
            link: transfer.link,
            delivery: transfer.delivery,
            first,
            // A delivery that began unsettled may be settled by its last frame.
            settled: transfer.settled && done,
            payload: bytes,
            more: !done || transfer.more,
            aborted: done && transfer.aborted,
        }
    }

    /// Passes the payload of a transfer on as it arrives. An event at once when there is none.
    pub(super) fn start_payload(&mut self, transfer: TransferPayload) -> Option<Event> {
        if transfer.left == 0 {
            return Some(self.pass_payload(transfer, Bytes::new()));
        }
        self.parser.transfer = Some(transfer);
        None
    }

    /// Parses the protocol header, one frame, or the part of a transfer frame before its payload.
    fn parse_frame(&mut self, input: &mut Bytes) -> Result<ParseStep, ConnectionError> {
        if !self.parser.header_seen {
            return self.parse_protocol_header(input);
        }
        let head = match Header::parse(input, self.max_in) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(ParseStep::Need(frame::HEADER)),
            Err(e) => return Err(self.violation("amqp:connection:framing-error", e.to_string())),
        };
        if head.kind != frame::AMQP {
            let text = "SASL frame after the SASL negotiation";
            return Err(self.violation("amqp:connection:framing-error", text));
        }
        let have = input.len().min(head.size);
        // An empty frame is a heartbeat (part 2.4.5).
        if head.body == head.size {
            if have < head.size {
                return Ok(ParseStep::Need(head.size));
            }
            input.advance(head.size);
            return Ok(ParseStep::Nothing);
        }
        let Some(body) = input.get(head.body..have) else {
            return Ok(ParseStep::Need(head.body + 3));
        };
        // `00 53 14` is how every peer writes the descriptor of a transfer.
        let is_transfer = match body {
            [0, 0x53, code, ..] => u64::from(*code) == code::TRANSFER,
            _ if body.len() < 3 && have < head.size => return Ok(ParseStep::Need(head.body + 3)),
            _ => false,
        };
        if !is_transfer {
            if head.size > self.limits.performative {
                let text = format!("performative of {} bytes is too long", head.size);
                return Err(self.violation("amqp:resource-limit-exceeded", text));
            }
            if have < head.size {
                return Ok(ParseStep::Need(head.size));
            }
        }
        let mut reader = Reader::new(body);
        let performative = match Performative::decode(&mut reader) {
            Err(DecodeError::Truncated) if have < head.size => {
                return Ok(ParseStep::Need(head.size.min(have.max(32) * 2)));
            }
            Err(e) => return Err(self.violation("amqp:decode-error", e.to_string())),
            Ok(performative) => performative,
        };
        let rest = reader.remaining();
        input.advance(have - rest);
        let payload = head.size - have + rest;
        let event = self.on_performative(&head, performative, payload)?;
        Ok(event.map_or(ParseStep::Nothing, ParseStep::Event))
    }

    fn parse_protocol_header(&mut self, input: &mut Bytes) -> Result<ParseStep, ConnectionError> {
        let expected = frame::AMQP_HEADER;
        let known = input.len().min(expected.len());
        if input[..known] != expected[..known] {
            let text = "the peer does not begin with the AMQP 1.0 protocol header";
            return Err(self.violation("amqp:connection:framing-error", text));
        }
        if known < expected.len() {
            return Ok(ParseStep::Need(expected.len()));
        }
        input.advance(expected.len());
        self.parser.header_seen = true;
        Ok(ParseStep::Nothing)
    }

    /// `payload`: bytes of the frame behind the performative.
    fn on_performative(
        &mut self,
        &Header { channel, size, .. }: &Header,
        performative: Performative,
        payload: usize,
    ) -> Result<Option<Event>, ConnectionError> {
        if self.remote.is_none() && !matches!(performative, Performative::Open(_)) {
            return Err(self.violation("amqp:not-allowed", "frame before open"));
        }
        match performative {
            Performative::Transfer(t) => self.on_transfer(channel, &t, payload),
            _ if payload > 0 => {
                // Without the performative: as text that could be longer than a frame.
                let text = format!("{payload} bytes of payload behind a performative without one");
                Err(self.violation("amqp:connection:framing-error", text))
            }
            Performative::Open(open) => self.on_open(open).map(Some),
            Performative::Begin(b) => self.on_begin(channel, &b),
            Performative::Attach(a) => self.on_attach(channel, a, size),
            Performative::Flow(f) => self.on_flow(channel, &f),
            Performative::Disposition(d) => self.on_disposition(channel, d),
            Performative::Detach(d) => self.on_detach(channel, d),
            Performative::End(e) => self.on_end(channel, e),
            Performative::Close(e) => Ok((!self.closed).then_some(Event::Close(e))),
        }
    }

    fn on_open(&mut self, open: Box<Open>) -> Result<Event, ConnectionError> {
        if self.remote.is_some() {
            return Err(self.violation("amqp:not-allowed", "second open"));
        }
        let max = open.max_frame_size.unwrap_or(u32::MAX) as usize;
        if max < frame::MIN_MAX_FRAME {
            let text = format!("max-frame-size {max} is below {}", frame::MIN_MAX_FRAME);
            return Err(self.violation("amqp:invalid-field", text));
        }
        // The caller composes frames in buffers of our own maximum: a larger one of the peer is not used.
        self.max_out = max.min(self.max_in).max(self.max_out);
        self.remote = Some(open.clone());
        Ok(Event::Open(open))
    }
}
