//! Streams of the honest neighbour: its own to the service of the site, whose bytes have to come back,
//! and those of others to its connector.

use super::{CREDIT, ID, Report, SERVICE};
use bytes::{Bytes, BytesMut};
use skupperd::{
    amqp::{
        connection::{Connection, DeliveryId, Event, LinkId, MAX_TRANSFER_HEADER},
        message::{StreamParse, encode_stream_head, parse_stream_head},
        performative::{DeliveryState, Error, Role},
    },
    router::Router,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

/// Bytes of a stream, and of each piece of it.
const LENGTH: usize = 1024;
const PIECE: usize = 256;
/// Time between two pieces, and between two streams.
const PAUSE: Duration = Duration::from_millis(200);
const REST: Duration = Duration::from_secs(2);
/// Simulated time after which a stream is stuck. Without the hostile peer it takes a second.
const STUCK: Duration = Duration::from_secs(5);
/// Where the numbers of reply addresses begin: no program of the fuzzer knows them.
const REPLIES: u64 = 0x05d3_77a1_90c4_2b00;

/// The stream that is under way.
struct OwnStream {
    number: u64,
    delivery: DeliveryId,
    sent: usize,
    /// Bytes that have come back.
    echoed: usize,
    echo_ended: bool,
    accepted: bool,
    begun: Instant,
}

/// A delivery that comes in.
#[derive(Default)]
enum Incoming {
    /// Its head is not complete.
    #[default]
    Begun,
    /// The echo of our stream.
    Echo,
    /// Of others, for the connector.
    Served,
    /// Nobody's.
    Unknown,
}

pub(super) struct Streams {
    service: &'static str,
    report: Rc<RefCell<Report>>,
    link: Option<LinkId>,
    own: Option<OwnStream>,
    next_number: u64,
    /// When the next stream or the next piece is due.
    due: Option<Instant>,
    incoming: HashMap<LinkId, (Incoming, BytesMut)>,
}

/// The bytes of a stream.
fn byte(number: u64, at: usize) -> u8 {
    (number as usize * 31 + at * 7 + at / 256) as u8
}

fn reply_address(number: u64) -> String {
    format!("amqp:/_topo/0/{ID}/temp.{:017x}", REPLIES + number)
}

impl Streams {
    pub(super) fn new(service: &'static str, report: Rc<RefCell<Report>>) -> Self {
        Self {
            service,
            report,
            link: None,
            own: None,
            next_number: 0,
            due: None,
            incoming: HashMap::new(),
        }
    }

    /// The link that own streams leave on.
    pub(super) fn set_link(&mut self, link: LinkId) {
        self.link = Some(link);
    }

    fn fault(&self, text: String) {
        self.report.borrow_mut().faults.push(text);
    }

    /// Sends what is due.
    pub(super) fn drive(&mut self, amqp: &mut Connection, router: &RefCell<Router>, now: Instant) {
        let Some(link) = self
            .link
            .filter(|link| amqp.credit(*link) > 0 || self.own.is_some())
        else {
            return;
        };
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        let Some(own) = &mut self.own else {
            let routes = router.borrow().routes();
            let route = routes.addresses.get(self.service);
            if route.is_some_and(|route| !route.remotes.is_empty()) {
                self.begin(link, amqp, now);
            }
            return;
        };
        self.due = Some(now + PAUSE);
        if own.sent < LENGTH {
            let piece: Vec<u8> = (own.sent..own.sent + PIECE)
                .map(|at| byte(own.number, at))
                .collect();
            own.sent += PIECE;
            transfer(amqp, link, &piece, own.sent < LENGTH);
        }
        if now > own.begun + STUCK {
            let text = format!(
                "stream {} is stuck: {} bytes sent, {} came back, ended {}, accepted {}",
                own.number, own.sent, own.echoed, own.echo_ended, own.accepted
            );
            self.own = None;
            self.fault(text);
        }
    }

    fn begin(&mut self, link: LinkId, amqp: &mut Connection, now: Instant) {
        let number = self.next_number;
        let Ok(delivery) = amqp.start_delivery(link, false) else {
            return;
        };
        self.next_number += 1;
        self.due = Some(now + PAUSE);
        self.own = Some(OwnStream {
            number,
            delivery,
            sent: 0,
            echoed: 0,
            echo_ended: false,
            accepted: false,
            begun: now,
        });
        let mut head = crate::hostile_peer::stream_head(self.service, Vec::new());
        head.annotations.ingress = Some(format!("0/{ID}"));
        head.annotations.trace = vec![format!("0/{ID}")];
        head.properties.reply_to = Some(reply_address(number));
        let mut bytes = BytesMut::new();
        encode_stream_head(&head, &mut bytes);
        transfer(amqp, link, &bytes, true);
    }

    pub(super) fn event(&mut self, event: Event, amqp: &mut Connection) {
        match event {
            Event::Attach {
                link,
                remote_initiated: true,
                attach,
            } => {
                if attach.role == Role::Sender {
                    let source = attach.source.unwrap_or_default();
                    let target = attach.target.unwrap_or_default();
                    amqp.accept_attach(link, source, target, CREDIT);
                } else {
                    let error = Error::new("amqp:not-allowed", "nothing to receive here");
                    amqp.refuse_attach(link, error);
                }
            }
            Event::Transfer {
                link,
                delivery,
                first,
                payload,
                more,
                aborted,
                ..
            } => {
                if first {
                    self.incoming.remove(&link);
                }
                self.transferred((link, delivery), payload, !more, aborted, amqp);
            }
            Event::Disposition {
                delivery, state, ..
            } => self.disposed(delivery, state.as_deref()),
            Event::Detach { link, error, .. } => {
                if self.link == Some(link) {
                    self.fault(format!("link of streams detached: {error:?}"));
                }
                if let Some((Incoming::Echo, _)) = self.incoming.remove(&link) {
                    self.fault("link of an echo detached".to_owned());
                }
            }
            _ => {}
        }
    }

    fn transferred(
        &mut self,
        (link, delivery): (LinkId, DeliveryId),
        payload: Bytes,
        last: bool,
        aborted: bool,
        amqp: &mut Connection,
    ) {
        let (mut incoming, mut buffer) = self.incoming.remove(&link).unwrap_or_default();
        let mut payload = payload;
        if matches!(incoming, Incoming::Begun) {
            buffer.extend_from_slice(&payload);
            match parse_stream_head(&buffer) {
                Ok(StreamParse::Stream { head, raw_offset }) => {
                    payload = buffer.split().freeze().slice(raw_offset..);
                    incoming = self.classify(head.to().unwrap_or_default());
                }
                Ok(StreamParse::NeedMore) => payload = Bytes::new(),
                _ => {
                    // A message, or nothing that can be read.
                    (incoming, buffer) = (Incoming::Unknown, BytesMut::new());
                }
            }
        }
        if matches!(incoming, Incoming::Echo) {
            self.echoed(&payload, last, aborted);
        }
        if last {
            let state = match incoming {
                Incoming::Echo | Incoming::Served => DeliveryState::Accepted,
                Incoming::Begun | Incoming::Unknown => DeliveryState::Released,
            };
            amqp.disposition(delivery, Some(state), true);
            self.complete();
        } else {
            self.incoming.insert(link, (incoming, buffer));
        }
    }

    /// Whose stream it is.
    fn classify(&self, to: &str) -> Incoming {
        match &self.own {
            Some(own) if to == reply_address(own.number) => Incoming::Echo,
            _ if to == SERVICE => {
                self.report.borrow_mut().served += 1;
                Incoming::Served
            }
            _ => Incoming::Unknown,
        }
    }

    fn echoed(&mut self, payload: &[u8], last: bool, aborted: bool) {
        let Some(own) = &mut self.own else {
            return;
        };
        let expected = (own.echoed..).map(|at| byte(own.number, at));
        let is_right = payload.iter().copied().eq(expected.take(payload.len()));
        own.echoed += payload.len();
        own.echo_ended |= last;
        let (number, sent, echoed) = (own.number, own.sent, own.echoed);
        if !is_right {
            self.fault(format!("stream {number}: wrong bytes before {echoed}"));
        }
        if echoed > sent || aborted || (last && echoed != LENGTH) {
            self.fault(format!(
                "stream {number}: {echoed} of {sent} bytes came back, aborted {aborted}, last {last}"
            ));
        }
    }

    fn disposed(&mut self, delivery: DeliveryId, state: Option<&DeliveryState>) {
        let Some(own) = self.own.as_mut().filter(|own| own.delivery == delivery) else {
            return;
        };
        match state {
            Some(DeliveryState::Received { .. }) => return,
            Some(DeliveryState::Accepted) | None => own.accepted = true,
            Some(other) => {
                let text = format!("stream {}: {other:?}", own.number);
                self.own = None;
                self.fault(text);
                return;
            }
        }
        self.complete();
    }

    /// The next stream begins after a rest, if this one is over.
    fn complete(&mut self) {
        let is_over = |own: &&OwnStream| own.echo_ended && own.accepted && own.sent == LENGTH;
        if self.own.as_ref().filter(is_over).is_some() {
            self.own = None;
            // Counted from the last piece, which was due PAUSE before.
            self.due = self.due.map(|due| due + REST);
            self.report.borrow_mut().streams += 1;
        }
    }
}

/// Puts a transfer frame of the delivery that is under way on a link.
fn transfer(amqp: &mut Connection, link: LinkId, payload: &[u8], more: bool) {
    let mut header = [0; MAX_TRANSFER_HEADER];
    let n = amqp.transfer_header(link, more, false, &mut header);
    header[..4].copy_from_slice(&((n + payload.len()) as u32).to_be_bytes());
    amqp.output().extend_from_slice(&header[..n]);
    amqp.output().extend_from_slice(payload);
    amqp.transfer_sent(link, !more);
}
