//! Routes streams: to an end on this host, to the next router, or to another worker.

use crate::{
    amqp::message::{self, MessageHead},
    link::{
        conn::{
            ConnKey, DeliveryOutcome,
            stream_end::{End, StreamEffects, StreamEnd, StreamEvent, StreamReply, deliver},
        },
        driver::MAX_HEAD,
        names::NATIVE_END,
    },
    messages::{Command, RelayData, RelayId, Senders},
    router::{Choice, Exclusions, ParsedAddress, Routes},
    service::view::SiteView,
    worker::{IncomingStream, Worker, stream_source::StreamSource, transit::Transit},
};
use bytes::BytesMut;
use std::rc::Rc;

impl Worker {
    /// Routes a stream to an end on this host, the next router, or another worker. `here`: connectors of
    /// this host are candidates. An unroutable stream is returned as its source and the outcome.
    pub fn route_stream(
        self: &Rc<Self>,
        stream: IncomingStream,
        here: bool,
    ) -> Result<End, (StreamSource, DeliveryOutcome)> {
        let Some(view) = self.view(stream.site) else {
            return Err((stream.source, DeliveryOutcome::Released));
        };
        let Some(to) = stream.head.to().map(str::to_owned) else {
            return Err((stream.source, DeliveryOutcome::Rejected));
        };
        let own = &view.routes.self_id;
        let is_edge = view.routes.mesh.is_some();
        let next = match ParsedAddress::parse(&to) {
            ParsedAddress::Router { id, rest } | ParsedAddress::Edge { id, rest } if id == own => {
                let Some((worker, number)) = parse_reply_name(rest) else {
                    return Err((stream.source, DeliveryOutcome::Released));
                };
                if worker != self.index {
                    return self.relay_to(worker, stream);
                }
                return self.arrived(stream, Some(number));
            }
            ParsedAddress::Router { id, .. } => view.routes.link_towards(id),
            ParsedAddress::Edge { id, .. } => view.routes.link_towards_edge(id),
            ParsedAddress::Mobile(key) => {
                let edge = here.then(|| choose_edge(&view, key, stream.link)).flatten();
                if edge.is_none() && here && view.connectors.contains_key(key) {
                    return self.arrived(stream, None);
                }
                edge.or_else(|| {
                    let origin = origin(&stream.head).filter(|origin| origin != own);
                    let exclude = Exclusions {
                        links: vec![stream.link],
                        ..Exclusions::default()
                    };
                    let route = view.routes.addresses.get(key)?;
                    match route.choose(&[], origin.as_deref(), &exclude) {
                        Choice::Remote { link, .. } => Some(link),
                        _ => None,
                    }
                })
            }
            _ => None,
        };
        match next {
            // An edge passes nothing on.
            Some(next) if !is_edge => self.send_on(&view, next, stream),
            _ => Err((stream.source, DeliveryOutcome::Released)),
        }
    }

    /// Passes a stream on to the next router.
    fn send_on(
        self: &Rc<Self>,
        view: &SiteView,
        next: ConnKey,
        stream: IncomingStream,
    ) -> Result<End, (StreamSource, DeliveryOutcome)> {
        let me = format!("0/{}", view.routes.self_id);
        // Back where it came from would be a loop.
        if next == stream.link || stream.head.annotations.trace.contains(&me) {
            return Err((stream.source, DeliveryOutcome::Released));
        }
        let Some(conn) = self.trunk(next) else {
            let worker = view.worker_of(next).filter(|w| *w != self.index);
            return match worker {
                Some(worker) => self.relay_to(worker, stream),
                None => Err((stream.source, DeliveryOutcome::Released)),
            };
        };
        let IncomingStream {
            mut head, source, ..
        } = stream;
        // A stream of an edge enters the network here.
        let ingress = &mut head.annotations.ingress;
        ingress.get_or_insert_with(|| me.clone());
        head.annotations.trace.push(me);
        if !conn.native {
            // An extension ends at the first hop that does not have it.
            head.application_properties
                .retain(|(k, _)| k.as_str() != Some(NATIVE_END));
        }
        let mut bytes = BytesMut::with_capacity(256);
        message::encode_stream_head(&head, &mut bytes);
        if bytes.len() > MAX_HEAD {
            return Err((source, DeliveryOutcome::Rejected));
        }
        Ok(Transit::open(source, conn, bytes.freeze()))
    }

    fn arrived(
        self: &Rc<Self>,
        stream: IncomingStream,
        reply_number: Option<u64>,
    ) -> Result<End, (StreamSource, DeliveryOutcome)> {
        // The proxy settles streams that it accepts; the caller settles the others.
        let source = stream.source.clone();
        self.acceptor
            .stream(self, stream, reply_number)
            .map_err(|outcome| (source, outcome))
    }

    fn relay_to(
        self: &Rc<Self>,
        worker: usize,
        stream: IncomingStream,
    ) -> Result<End, (StreamSource, DeliveryOutcome)> {
        let IncomingStream {
            site,
            link,
            head,
            source,
            ..
        } = stream;
        // At most one hop between workers.
        if matches!(source, StreamSource::Relay { .. }) || worker >= self.senders.count() {
            return Err((source, DeliveryOutcome::Released));
        }
        let id = self.next_relay.get();
        self.next_relay.set(id + 1);
        self.senders.send(
            worker,
            Command::RelayOpen {
                from: self.index,
                id,
                site,
                link,
                head,
                budget: source.budget(),
            },
        );
        self.relays_out.borrow_mut().insert(id, (source, worker));
        Ok(Rc::new(RelayEnd {
            from: self.index,
            worker,
            id,
            senders: self.senders.clone(),
        }))
    }

    pub(super) fn relay(&self, from: usize, id: RelayId, data: RelayData) {
        let end = match &data {
            // An end is the last event.
            RelayData::End(_) => self.relays_in.borrow_mut().remove(&(from, id)),
            RelayData::Data(_) => self.relays_in.borrow().get(&(from, id)).cloned(),
        };
        let Some(end) = end else { return };
        match data {
            RelayData::Data(payload) => deliver(&*end, StreamEvent::Payload(payload)),
            RelayData::End(aborted) => deliver(&*end, StreamEvent::Ended { aborted }),
        }
        deliver(&*end, StreamEvent::BatchOver);
    }

    pub(super) fn relay_back(&self, id: RelayId, reply: StreamReply) {
        let relay = match reply {
            StreamReply::Ack(_) => self.relays_out.borrow().get(&id).cloned(),
            StreamReply::Outcome(_) => self.relays_out.borrow_mut().remove(&id),
        };
        let Some((source, worker)) = relay else {
            return;
        };
        source.reply_now(reply);
        if matches!(reply, StreamReply::Outcome(_)) {
            // The other worker drops the stream too, whether its end was sent or not.
            let end = RelayData::End(true);
            self.senders
                .send(worker, Command::Relay(self.index, id, end));
        }
    }
}

/// Chooses an edge over the connectors of this host, by load.
fn choose_edge(view: &SiteView, key: &str, from: ConnKey) -> Option<ConnKey> {
    let route = view.routes.addresses.get(key).filter(|r| r.has_edges())?;
    let exclude = Exclusions {
        links: vec![from],
        routers: true,
        ..Exclusions::default()
    };
    match route.choose(&view.local_candidates(key), None, &exclude) {
        Choice::Remote { link, .. } => Some(link),
        _ => None,
    }
}

/// Router where a stream entered the network.
fn origin(head: &MessageHead) -> Option<String> {
    let ingress = head.annotations.ingress.as_deref()?;
    Some(
        ingress
            .rsplit_once('/')
            .map_or(ingress, |(_, id)| id)
            .to_owned(),
    )
}

/// Name of a client's reply address: the worker and a number, as 15 characters.
pub fn temp_address(routes: &Routes, worker: usize, number: u64) -> String {
    format!("{}temp.{worker:02x}{number:015x}", routes.own_prefix())
}

fn parse_reply_name(rest: &str) -> Option<(usize, u64)> {
    let name = rest.strip_prefix("temp.")?;
    let (worker, number) = name.split_at_checked(2)?;
    Some((
        usize::from_str_radix(worker, 16).ok()?,
        u64::from_str_radix(number, 16).ok()?,
    ))
}

/// The end of a stream that continues at another worker.
struct RelayEnd {
    from: usize,
    worker: usize,
    id: RelayId,
    senders: Senders,
}

impl RelayEnd {
    fn send(&self, data: RelayData) {
        self.senders
            .send(self.worker, Command::Relay(self.from, self.id, data));
    }
}

impl StreamEnd for RelayEnd {
    fn event(&self, event: StreamEvent<'_>, _effects: &mut StreamEffects) {
        match event {
            StreamEvent::Payload(payload) => self.send(RelayData::Data(payload)),
            StreamEvent::Ended { aborted } => self.send(RelayData::End(aborted)),
            StreamEvent::Lost => self.send(RelayData::End(true)),
            // It has no outgoing stream, and nothing waits here.
            StreamEvent::BatchOver
            | StreamEvent::Opened(_)
            | StreamEvent::Acknowledged(_)
            | StreamEvent::Settled(_)
            | StreamEvent::Writable(_) => {}
        }
    }
}
