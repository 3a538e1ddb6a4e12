//! The client's side: from an accepted connection to a stream towards a connector.

use super::{
    Cut, Proxy, candidates, head, local,
    tcp::{Finished, Sending, TcpEnd},
};
use crate::{
    amqp::{message::Properties, value::Value},
    link::{
        conn::{ConnKey, End},
        worker::{Command, Worker, temp_address},
    },
    router::{Choice, Exclude, Outstanding},
    sys,
};
use bytes::Bytes;
use std::{
    net::TcpStream,
    rc::{Rc, Weak},
    sync::Arc,
};

impl Proxy {
    pub(super) fn accept(
        &self,
        worker: &Rc<Worker>,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        socket: TcpStream,
    ) -> Option<TcpStream> {
        let choice = self.choose(worker, site, routing_key, &Exclude::default());
        if matches!(choice, Choice::None) {
            return Some(socket);
        }
        if let Choice::Remote { link, .. } = &choice {
            // A worker without a connection towards the server hands the client over, once.
            if worker.trunk(*link).is_none() {
                let view = worker.view(site);
                let other = view
                    .and_then(|v| v.worker_of(*link))
                    .filter(|w| *w != worker.index);
                if let Some(other) = other {
                    let routing_key = routing_key.clone();
                    let client = Command::Client {
                        site,
                        listener,
                        routing_key,
                        socket,
                    };
                    worker.senders.send(other, client);
                    return None;
                }
            }
        }
        let socket = match sys::watch(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "registering a client failed");
                return None;
            }
        };
        let proxy = self.this.upgrade()?;
        let client = Client {
            worker: worker.clone(),
            site,
            listener,
            routing_key: routing_key.clone(),
            proxy,
        };
        match choice {
            Choice::Local(target) => {
                let here = Carrier::Here(socket.into_inner(), target, Bytes::new());
                tokio::task::spawn_local(client.carry(here, Exclude::default()));
            }
            Choice::Remote {
                link, outstanding, ..
            } => {
                let end = TcpEnd::new(Some(socket), self.count());
                self.own(listener, Rc::downgrade(&end) as Weak<dyn Cut>);
                let temp = client.open(&end, link, Bytes::new());
                let there = Carrier::There {
                    end,
                    link,
                    temp,
                    outstanding,
                };
                tokio::task::spawn_local(client.carry(there, Exclude::default()));
            }
            Choice::None => {}
        }
        None
    }

    fn choose(&self, worker: &Worker, site: u32, key: &str, exclude: &Exclude) -> Choice {
        let Some(view) = worker.view(site) else {
            return Choice::None;
        };
        let locals = candidates(worker, site, key);
        match view.routes.addresses.get(key) {
            Some(route) => route.choose(&locals, None, exclude),
            None => locals
                .iter()
                .find(|l| !exclude.locals.contains(&l.id))
                .map_or(Choice::None, |l| Choice::Local(l.id)),
        }
    }
}

/// What a client's task needs to know.
struct Client {
    worker: Rc<Worker>,
    site: u32,
    listener: u64,
    routing_key: Arc<str>,
    proxy: Rc<Proxy>,
}

impl Client {
    /// Opens the stream towards a connector; `again` is what a refused one had been sent. Gives the
    /// number of the reply address.
    fn open(&self, end: &Rc<TcpEnd>, link: ConnKey, again: Bytes) -> Option<u64> {
        let conn = self.worker.trunk(link)?;
        let view = self.worker.view(self.site)?;
        let router = &view.routes.self_id;
        let temp = self.proxy.next_temp();
        let properties = Properties {
            to: Some(self.routing_key.to_string()),
            reply_to: Some(temp_address(router, self.worker.index, temp)),
            correlation_id: Some(Value::from(format!("{:x}:{temp:x}", self.worker.index))),
            ..Properties::default()
        };
        let head = head::encode(router, properties, conn.native);
        {
            let mut st = end.st.borrow_mut();
            st.next = Some(conn.clone());
            // A router of our own kind takes data at once; others wait for the reverse stream.
            st.sending = if conn.native {
                Sending::Early
            } else {
                Sending::Held
            };
            st.again = again;
        }
        let shared: End = end.clone();
        let out = conn.borrow().open(head, &shared);
        end.st.borrow_mut().out = out;
        self.proxy.temps.borrow_mut().insert(temp, end.clone());
        Some(temp)
    }

    /// Carries a client to a connector, and tries others for as long as connectors refuse.
    async fn carry(self, mut carrier: Carrier, mut exclude: Exclude) {
        loop {
            let (end, socket, again) = match carrier {
                Carrier::Here(socket, target, again) => {
                    match local::connect(&self.worker, self.site, &self.routing_key, target).await {
                        Ok((server, in_use)) => {
                            let open = self.proxy.count();
                            let again = again.as_ref();
                            local::bridge(&self.proxy, self.listener, socket, server, again).await;
                            drop((in_use, open));
                            return;
                        }
                        Err(error) => {
                            let key = &*self.routing_key;
                            tracing::debug!(routing_key = key, %error, "connector refused");
                            exclude.locals.push(target);
                            (None, Some(socket), again)
                        }
                    }
                }
                Carrier::There {
                    end,
                    link,
                    temp,
                    outstanding,
                } => {
                    let refused = match temp {
                        Some(temp) => {
                            let finished = end.run().await;
                            self.proxy.temps.borrow_mut().remove(&temp);
                            matches!(finished, Finished::Refused(_))
                        }
                        None => true,
                    };
                    drop(outstanding);
                    if !refused {
                        return;
                    }
                    tracing::debug!(routing_key = &*self.routing_key, "stream refused");
                    exclude.links.push(link);
                    let again = end.retry();
                    (Some(end), None, again)
                }
            };
            let choice = self
                .proxy
                .choose(&self.worker, self.site, &self.routing_key, &exclude);
            carrier = match (choice, end, socket) {
                (
                    Choice::Remote {
                        link, outstanding, ..
                    },
                    Some(end),
                    _,
                ) => {
                    let temp = self.open(&end, link, again);
                    Carrier::There {
                        end,
                        link,
                        temp,
                        outstanding,
                    }
                }
                (
                    Choice::Remote {
                        link, outstanding, ..
                    },
                    None,
                    Some(socket),
                ) => {
                    let Ok(socket) = sys::watch(socket) else {
                        return;
                    };
                    let end = TcpEnd::new(Some(socket), self.proxy.count());
                    self.proxy
                        .own(self.listener, Rc::downgrade(&end) as Weak<dyn Cut>);
                    let temp = self.open(&end, link, again);
                    Carrier::There {
                        end,
                        link,
                        temp,
                        outstanding,
                    }
                }
                (Choice::Local(target), Some(end), _) => match end.socket_again() {
                    Ok(socket) => Carrier::Here(socket, target, again),
                    Err(error) => {
                        tracing::warn!(%error, "duplicating a client's socket failed");
                        return end.close(true);
                    }
                },
                (Choice::Local(target), None, Some(socket)) => Carrier::Here(socket, target, again),
                (Choice::None, Some(end), _) => return end.close(false),
                // The client sees its connection closed.
                _ => return,
            };
        }
    }
}

/// How a client is being served.
enum Carrier {
    /// By a connector of this site; with what a refused one had been sent.
    Here(TcpStream, u64, Bytes),
    /// Over a link.
    There {
        end: Rc<TcpEnd>,
        link: ConnKey,
        temp: Option<u64>,
        outstanding: Outstanding,
    },
}
