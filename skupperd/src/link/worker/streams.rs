//! Where streams go: to an end on this host, on to the next router, or over to another worker.

use super::{Arrived, Command, RelayData, RelayId, Relayed, Senders, Worker};
use crate::{
    amqp::message::{self, MessageHead},
    link::{
        NATIVE_END,
        conn::{Conn, ConnKey, Current, End, InStream, Inner, OutStream, Outcome, StreamEnd},
        transit::Transit,
        upstream::Upstream,
        view::SiteView,
    },
    router::{Choice, Exclude, LocalCandidate, Routes, Target},
};
use bytes::{Bytes, BytesMut};
use std::{rc::Rc, sync::atomic::Ordering};

impl Worker {
    /// A stream has come in.
    pub(in crate::link) fn stream(
        self: &Rc<Self>,
        conn: &Rc<Conn>,
        inner: &mut Inner,
        stream: InStream,
        head: Box<MessageHead>,
        _first: &Bytes,
    ) -> Result<End, Outcome> {
        let up = Upstream::Conn(conn.clone(), stream);
        self.place(
            conn.site,
            conn.group,
            *head,
            up,
            Some(conn.clone()),
            Some(inner),
            true,
        )
        .map_err(|(_, outcome)| outcome)
    }

    /// Sends a stream that no connector of this host would take on to another router.
    pub fn pass_on(
        self: &Rc<Self>,
        site: u32,
        link: ConnKey,
        head: MessageHead,
        up: Upstream,
    ) -> Result<End, (Upstream, Outcome)> {
        self.place(site, link, head, up, None, None, false)
    }

    /// Finds where a stream goes: an end on this host, the next router, or another worker.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is known of a stream that has come in"
    )]
    pub(super) fn place(
        self: &Rc<Self>,
        site: u32,
        link: ConnKey,
        mut head: MessageHead,
        up: Upstream,
        back: Option<Rc<Conn>>,
        cur: Current<'_>,
        local: bool,
    ) -> Result<End, (Upstream, Outcome)> {
        let Some(view) = self.view(site) else {
            return Err((up, Outcome::Released));
        };
        let Some(to) = head.to().map(str::to_owned) else {
            return Err((up, Outcome::Rejected));
        };
        let own = &view.routes.self_id;
        let edge = view.routes.mesh.is_some();
        let next = match Target::parse(&to) {
            Target::Router { id, rest } | Target::Edge { id, rest } if id == own => {
                let Some((worker, temp)) = temp_name(rest) else {
                    return Err((up, Outcome::Released));
                };
                if worker != self.index {
                    return self.relay_to(worker, site, link, head, up);
                }
                let arrived = Arrived {
                    site,
                    head: Box::new(head),
                    up,
                    back,
                    link,
                    temp: Some(temp),
                };
                return self.arrived(cur, arrived);
            }
            Target::Router { id, .. } => view.routes.towards(id),
            Target::Edge { id, .. } => view.routes.towards_edge(id),
            Target::Mobile(key) => {
                let origin = origin(&head).filter(|origin| origin != own);
                let other = if local {
                    self.edge_instead(&view, key, link)
                } else {
                    None
                };
                if other.is_none() && local && view.connectors.contains_key(key) {
                    let arrived = Arrived {
                        site,
                        head: Box::new(head),
                        up,
                        back,
                        link,
                        temp: None,
                    };
                    return self.arrived(cur, arrived);
                }
                let exclude = Exclude {
                    links: vec![link],
                    ..Exclude::default()
                };
                let route = view.routes.addresses.get(key);
                match route.map(|r| r.choose(&[], origin.as_deref(), &exclude)) {
                    _ if other.is_some() => other,
                    Some(Choice::Remote { link, .. }) => Some(link),
                    _ => None,
                }
            }
            _ => None,
        };
        // Back where it came from would be a loop; and through an edge goes no way.
        let Some(next) = next.filter(|next| *next != link && !edge) else {
            return Err((up, Outcome::Released));
        };
        let me = format!("0/{own}");
        if head.annotations.trace.contains(&me) {
            return Err((up, Outcome::Released));
        }
        let Some(conn) = self.trunk(next) else {
            let Some(worker) = view.worker_of(next).filter(|w| *w != self.index) else {
                return Err((up, Outcome::Released));
            };
            return self.relay_to(worker, site, link, head, up);
        };
        // What comes from an edge enters the network here.
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
        Ok(Transit::open(up, conn, bytes.freeze(), cur))
    }

    /// An edge that takes a stream in place of the connectors of this host, by load.
    fn edge_instead(&self, view: &SiteView, key: &str, from: ConnKey) -> Option<ConnKey> {
        let route = view.routes.addresses.get(key).filter(|r| r.has_edges())?;
        let targets = view.connectors.get(key).into_iter().flatten();
        let locals: Vec<LocalCandidate> = targets
            .map(|target| LocalCandidate {
                id: target.id,
                in_use: target.in_use.load(Ordering::Relaxed),
            })
            .collect();
        let exclude = Exclude {
            links: vec![from],
            routers: true,
            ..Exclude::default()
        };
        match route.choose(&locals, None, &exclude) {
            Choice::Remote { link, .. } => Some(link),
            _ => None,
        }
    }

    fn arrived(
        self: &Rc<Self>,
        cur: Current<'_>,
        arrived: Arrived,
    ) -> Result<End, (Upstream, Outcome)> {
        // The proxy settles what it takes; what it does not take is settled by the caller, who needs
        // a way back for that.
        let again = match &arrived.up {
            Upstream::Conn(conn, stream) => Upstream::Conn(conn.clone(), *stream),
            Upstream::Relay {
                senders,
                worker,
                id,
            } => Upstream::Relay {
                senders: senders.clone(),
                worker: *worker,
                id: *id,
            },
        };
        self.acceptor
            .stream(self, cur, arrived)
            .map_err(|outcome| (again, outcome))
    }

    fn relay_to(
        self: &Rc<Self>,
        worker: usize,
        site: u32,
        link: ConnKey,
        head: MessageHead,
        up: Upstream,
    ) -> Result<End, (Upstream, Outcome)> {
        // One hop between workers: a stream that came from one goes to no third.
        if matches!(up, Upstream::Relay { .. }) || worker >= self.senders.count() {
            return Err((up, Outcome::Released));
        }
        let id = self.next_relay.get();
        self.next_relay.set(id + 1);
        let head = Box::new(head);
        self.senders.send(
            worker,
            Command::RelayOpen {
                from: self.index,
                id,
                site,
                link,
                head,
            },
        );
        self.relays_out.borrow_mut().insert(id, (up, worker));
        Ok(Rc::new(RelayEnd {
            from: self.index,
            worker,
            id,
            senders: self.senders.clone(),
        }))
    }

    pub(super) fn relay(&self, from: usize, id: RelayId, data: RelayData) {
        let end = match &data {
            // Nothing follows an end.
            RelayData::End(_) => self.relays_in.borrow_mut().remove(&(from, id)),
            RelayData::Data(_) => self.relays_in.borrow().get(&(from, id)).cloned(),
        };
        let Some(end) = end else { return };
        match data {
            RelayData::Data(payload) => end.data(None, payload),
            RelayData::End(aborted) => end.end(None, aborted),
        }
        end.flush(None);
    }

    pub(super) fn relay_back(&self, id: RelayId, back: Relayed) {
        match back {
            Relayed::Ack(offset) => {
                let relays = self.relays_out.borrow();
                if let Some((up, _)) = relays.get(&id) {
                    up.ack(None, offset);
                }
            }
            Relayed::Outcome(outcome) => {
                let up = self.relays_out.borrow_mut().remove(&id);
                if let Some((up, worker)) = up {
                    up.settle(None, outcome);
                    // The other worker forgets the stream too, whether its end was sent or not.
                    let end = RelayData::End(true);
                    self.senders
                        .send(worker, Command::Relay(self.index, id, end));
                }
            }
        }
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
    format!("{}temp.{worker:02x}{number:013x}", routes.own_prefix())
}

fn temp_name(rest: &str) -> Option<(usize, u64)> {
    let name = rest.strip_prefix("temp.")?;
    let (worker, number) = name.split_at_checked(2)?;
    Some((
        usize::from_str_radix(worker, 16).ok()?,
        u64::from_str_radix(number, 16).ok()?,
    ))
}

/// The end of a stream that goes on at another worker.
struct RelayEnd {
    from: usize,
    worker: usize,
    id: RelayId,
    senders: Senders,
}

impl StreamEnd for RelayEnd {
    fn data(&self, _cur: Current<'_>, payload: Bytes) {
        // The stream's window bounds what is on its way.
        self.senders.send(
            self.worker,
            Command::Relay(self.from, self.id, RelayData::Data(payload)),
        );
    }

    fn end(&self, _cur: Current<'_>, aborted: bool) {
        self.senders.send(
            self.worker,
            Command::Relay(self.from, self.id, RelayData::End(aborted)),
        );
    }

    fn flush(&self, _cur: Current<'_>) {}
    fn opened(&self, _conn: &mut Inner, _out: OutStream) {}
    fn acked(&self, _conn: &mut Inner, _offset: u64) {}
    fn outcome(&self, _conn: &mut Inner, _outcome: Outcome) {}
    fn writable(&self, _conn: &mut Inner) {}

    fn lost(&self) {
        self.end(None, true);
    }
}
