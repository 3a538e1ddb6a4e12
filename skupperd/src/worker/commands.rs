//! Commands of the core and of other workers.

use super::{IncomingStream, Worker, stream_source::StreamSource};
use crate::{
    amqp::performative::DeliveryState, link::conn::stream_end::StreamReply, messages::Command, sys,
};
use std::rc::Rc;

impl Worker {
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub(crate) fn command(self: &Rc<Self>, command: Command) {
        match command {
            Command::Connection(new) => self.connection(*new),
            Command::EventHandled(permit) => drop(permit),
            Command::View(site, view) => self.set_view(site, view),
            Command::SiteGone(site) => drop(self.views.borrow_mut().remove(&site)),
            Command::Listen {
                site,
                listener,
                routing_key,
                socket,
            } => {
                self.listen(site, listener, routing_key, socket);
            }
            Command::AcceptSteered {
                key,
                table,
                sockets,
            } => self.accept_steered(key, &table, sockets),
            Command::KeepClientsWaiting(hold) => {
                let waiting = self.waiting_clients.replace(hold.then(Vec::new));
                for client in waiting.into_iter().flatten() {
                    sys::reset_on_close((&client.socket).into());
                }
            }
            Command::Unlisten { listener, cut } => {
                if let Some(waiting) = &mut *self.waiting_clients.borrow_mut() {
                    for client in waiting.extract_if(.., |client| client.listener == listener) {
                        sys::reset_on_close((&client.socket).into());
                    }
                }
                for task in self
                    .listeners
                    .borrow_mut()
                    .remove(&listener)
                    .iter()
                    .flatten()
                {
                    task.abort();
                }
                if cut {
                    self.acceptor.cut(listener);
                }
            }
            Command::Client(client) => self.client(*client),
            Command::RelayOpen {
                from,
                id,
                site,
                link,
                head,
                budget,
            } => {
                let source = StreamSource::Relay {
                    senders: self.senders.clone(),
                    worker: from,
                    id,
                    budget,
                };
                let stream = IncomingStream {
                    site,
                    head,
                    source,
                    reply_conn: None,
                    link,
                };
                match self.route_stream(stream, true) {
                    Ok(end) => drop(self.relays_in.borrow_mut().insert((from, id), end)),
                    Err((source, outcome)) => source.reply_now(StreamReply::Outcome(outcome)),
                }
            }
            Command::Relay(from, id, data) => self.relay(from, id, data),
            Command::RelayBack(id, back) => self.relay_back(id, back),
            Command::CarryStreams(key) => {
                let conn = self.conns.borrow().get(&key).cloned();
                if let Some(conn) = conn {
                    conn.borrow().carry_streams();
                    self.trunks
                        .borrow_mut()
                        .entry(conn.group)
                        .or_default()
                        .push(conn);
                }
            }
            Command::Control(key, message) => {
                self.on_conn(key, |conn| {
                    if let Some(link) = conn.fixed.control {
                        conn.send_message(link, message);
                    }
                });
            }
            Command::Message(key, priority, message) => {
                self.on_conn(key, |conn| {
                    let slot = usize::from(priority).min(conn.fixed.data.len() - 1);
                    if let Some(link) = conn.fixed.data[slot] {
                        conn.send_message(link, message);
                    }
                });
            }
            Command::ClientMessage(key, link, message) => {
                self.on_conn(key, |conn| conn.send_message(link, message));
            }
            Command::ClientSettle(key, delivery, accepted) => {
                self.on_conn(key, |conn| {
                    let state = if accepted {
                        DeliveryState::Accepted
                    } else {
                        DeliveryState::Released
                    };
                    conn.amqp.disposition(delivery, Some(state), true);
                    conn.send_control();
                });
            }
            Command::Attach(key, tag, args) => self.attach(key, tag, *args),
            Command::Detach(key, link, error) => {
                self.on_conn(key, |conn| conn.detach_own(link, error));
            }
            Command::Close(key, reason) => self.on_conn(key, |conn| {
                conn.fail(reason.condition(), &reason.to_string());
            }),
            Command::Retire(key) => self.on_conn(key, |conn| {
                conn.retire = true;
                conn.wake_driver();
            }),
            Command::Ping(answer) => {
                let _ = answer.send(self.acceptor.open_connections());
            }
            Command::Drain(_) => {}
        }
    }
}
