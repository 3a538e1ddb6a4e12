//! The client's side: from an accepted connection to a stream towards a connector.

use super::{
    Cut, Proxy, candidates,
    flow::{self, Flow},
    head,
    local::{self, About, Gate, InUse},
    policy,
    stream::Stream,
    tcp::{Finished, Sending, TcpEnd},
    tls,
};
use crate::{
    amqp::{message::Properties, value::Value},
    link::{
        conn::{ConnKey, End},
        ends::Front,
        ledger::{Ending, Served, SiteName},
        origin::{ALPN, ORIGIN, Origin},
        view::SiteView,
        worker::{Command, Worker, temp_address},
    },
    router::{Choice, Exclude, Outstanding},
    sys,
};
use bytes::Bytes;
use std::{
    io,
    net::TcpStream,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

impl Proxy {
    pub(super) fn accept(
        &self,
        worker: &Rc<Worker>,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        front: Option<Arc<Front>>,
        socket: TcpStream,
    ) -> Option<TcpStream> {
        let (routing_key, front) = match (front, self.fronts.get(listener)) {
            // Another worker has chosen the key.
            (Some(front), _) => (routing_key.clone(), Some(front)),
            (None, Some(front)) => match key_of(worker, site, &front, &[]) {
                Some(key) if policy::lets_in(&front, &key, &socket) => (key, Some(front)),
                Some(_) => return None,
                None => return Some(socket),
            },
            (None, None) => (routing_key.clone(), None),
        };
        let choice = self.choose(worker, site, &routing_key, &Exclude::default());
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
                    let client = Command::Client {
                        site,
                        listener,
                        routing_key,
                        front,
                        socket,
                    };
                    worker.senders.send(other, client);
                    return None;
                }
            }
        }
        let proxy = self.this.upgrade()?;
        let flow = self.client_flow(worker, site, listener, &routing_key, &socket);
        let client = Client {
            flow,
            worker: worker.clone(),
            site,
            listener,
            routing_key,
            front,
            tried: Vec::new(),
            protocol: None,
            proxy,
        };
        if client.front.as_ref().is_some_and(|f| f.tls.is_some()) {
            tokio::task::spawn_local(client.secure(socket));
            return None;
        }
        match sys::watch(socket) {
            Ok(socket) => {
                let stream = Stream::plain(&self.acceleration, socket);
                client.start(Rc::new(stream), choice);
            }
            Err(error) => tracing::warn!(%error, "registering a client failed"),
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

/// The routing key of a client: of those with a connector, less those that were tried.
fn key_of(worker: &Worker, site: u32, front: &Front, tried: &[Arc<str>]) -> Option<Arc<str>> {
    let view = worker.view(site)?;
    let tried = |key: &str| tried.iter().any(|t| **t == *key);
    front.keys.next(|key| !tried(key) && view.reaches(key))
}

/// What a client's task needs to know.
struct Client {
    flow: Flow,
    worker: Rc<Worker>,
    site: u32,
    listener: u64,
    routing_key: Arc<str>,
    front: Option<Arc<Front>>,
    /// Routing keys that nobody takes it for.
    tried: Vec<Arc<str>>,
    /// What was agreed on in its TLS handshake.
    protocol: Option<String>,
    proxy: Rc<Proxy>,
}

impl Client {
    /// Speaks TLS with the client, then carries it.
    async fn secure(mut self, socket: TcpStream) {
        let _open = self.proxy.count();
        let Some(tls) = self.front.as_ref().and_then(|f| f.tls.clone()) else {
            return;
        };
        let peer = socket.peer_addr();
        let gate = Rc::new(Gate::default());
        self.proxy
            .own(self.listener, Rc::downgrade(&gate) as Weak<dyn Cut>);
        let secured = async { tls::accept(sys::watch(socket)?, &tls).await };
        let stream = match gate.unless_cut(Box::pin(secured)).await {
            Some(Ok(secured)) => Stream::Tls(Box::new(secured)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                return self.flow.end(Ending::Handshake);
            }
            Some(Err(error)) => {
                self.flow.end(Ending::Handshake);
                if let Some(unsaid) = tls.failures.note(Instant::now()) {
                    let (keys, peer) = (&*self.routing_key, peer.map(|p| p.to_string()));
                    let peer = peer.unwrap_or_default();
                    tracing::warn!(routing_key = keys, peer, %error, unsaid, "TLS handshake failed");
                    self.worker.tell_changed();
                }
                return;
            }
            None => return self.flow.end(Ending::Removed),
        };
        self.protocol = stream.protocol();
        // What could be reached may have changed in the meantime.
        let choice = self.choice(&mut Exclude::default());
        self.start(Rc::new(stream), choice);
    }

    /// Begins to carry the client the way that was chosen.
    fn start(self, stream: Rc<Stream>, choice: Choice) {
        match choice {
            Choice::Local(target) => {
                let here = Carrier::Here(stream, target, Bytes::new());
                tokio::task::spawn_local(self.carry(here, Exclude::default()));
            }
            Choice::Remote {
                link, outstanding, ..
            } => {
                let there = self.leave(stream, link, outstanding, Bytes::new());
                tokio::task::spawn_local(self.carry(there, Exclude::default()));
            }
            // Nobody is reachable any more: the listener is about to close.
            Choice::None => tracing::debug!(routing_key = &*self.routing_key, "no connector"),
        }
    }

    /// Sends the client over a link.
    fn leave(
        &self,
        stream: Rc<Stream>,
        link: ConnKey,
        outstanding: Outstanding,
        again: Bytes,
    ) -> Carrier {
        let end = TcpEnd::new(Some(stream.clone()), self.proxy.count(), self.flow.share());
        self.proxy
            .own(self.listener, Rc::downgrade(&end) as Weak<dyn Cut>);
        let temp = self.open(&end, stream.socket(), link, again);
        Carrier::There {
            end,
            link,
            temp,
            outstanding,
        }
    }

    /// Who is to serve the client; once nobody is left for its routing key, one of the next.
    fn choice(&mut self, exclude: &mut Exclude) -> Choice {
        loop {
            let key = &self.routing_key;
            match self.proxy.choose(&self.worker, self.site, key, exclude) {
                Choice::None => {}
                choice => return choice,
            }
            let Some(front) = &self.front else {
                return Choice::None;
            };
            self.tried.push(key.clone());
            match key_of(&self.worker, self.site, front, &self.tried) {
                Some(key) => self.routing_key = key,
                None => return Choice::None,
            }
            *exclude = Exclude::default();
        }
    }

    /// What connectors on other sites are told of the client.
    fn about(&self, view: &SiteView, socket: &TcpStream) -> Vec<(&'static str, String)> {
        let mut about = Vec::new();
        if let Some(protocol) = &self.protocol {
            about.push((ALPN, protocol.clone()));
        }
        if view.origins.contains(&*self.routing_key)
            && let Some(origin) = Origin::of(socket)
        {
            about.push((ORIGIN, origin.to_string()));
        }
        about
    }

    /// Opens the stream towards a connector; `again` is what a refused one had been sent. Gives the
    /// number of the reply address.
    fn open(
        &self,
        end: &Rc<TcpEnd>,
        socket: &TcpStream,
        link: ConnKey,
        again: Bytes,
    ) -> Option<u64> {
        let conn = self.worker.trunk(link)?;
        let view = self.worker.view(self.site)?;
        let routes = &view.routes;
        let temp = self.proxy.next_temp();
        self.flow.tries(&self.routing_key);
        let properties = Properties {
            to: Some(self.routing_key.to_string()),
            reply_to: Some(temp_address(routes, self.worker.index, temp)),
            correlation_id: Some(Value::from(self.flow.id())),
            ..Properties::default()
        };
        let mut about = self.about(&view, socket);
        about.extend(conn.native.then(|| flow::about(&view, None)));
        let head = head::encode(routes, properties, conn.native, about);
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

    /// Connects to a connector of this site.
    async fn connect(&self, client: &Stream, target: u64) -> io::Result<(Stream, InUse)> {
        let key = &self.routing_key;
        let mut about = About {
            origin: None,
            protocol: self.protocol.clone(),
            site: None,
        };
        let view = self.worker.view(self.site);
        about.site = view.as_ref().map(|v| v.site.name.clone());
        if view.is_some_and(|v| v.origins.contains(&**key)) {
            about.origin = Origin::of(client.socket());
        }
        let near = &self.proxy.acceleration;
        local::connect(near, &self.worker, self.site, key, target, &about).await
    }

    /// A connector of this site has taken the client.
    fn served_here(&self, served: Served) {
        let site = self.worker.view(self.site).map(|v| v.site.clone());
        self.flow.tries(&self.routing_key);
        self.flow.served(Served {
            site: site.map_or_else(SiteName::default, |site| SiteName {
                // The other end's, which is known of no other site.
                namespace: String::new(),
                ..(*site).clone()
            }),
            ..served
        });
    }

    /// Carries a client to a connector, and tries others for as long as connectors refuse.
    async fn carry(mut self, mut carrier: Carrier, mut exclude: Exclude) {
        loop {
            let (end, stream, again) = match carrier {
                Carrier::Here(stream, target, again) => match self.connect(&stream, target).await {
                    Ok((server, in_use)) => {
                        let open = self.proxy.count();
                        let again = again.as_ref();
                        self.served_here(in_use.served(&server));
                        let (owners, flow) = ([self.listener, target], &*self.flow);
                        local::bridge(&self.proxy, owners, &stream, &server, again, flow).await;
                        drop((in_use, open));
                        return;
                    }
                    Err(error) => {
                        let key = &*self.routing_key;
                        tracing::debug!(routing_key = key, %error, "connector refused");
                        exclude.locals.push(target);
                        (None, Some(stream), again)
                    }
                },
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
                    let (again, stream) = (end.retry(), end.socket_again());
                    (Some(end), stream, again)
                }
            };
            let choice = self.choice(&mut exclude);
            let Some(stream) = stream else { return };
            carrier = match (choice, end) {
                (
                    Choice::Remote {
                        link, outstanding, ..
                    },
                    Some(end),
                ) => {
                    let temp = self.open(&end, stream.socket(), link, again);
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
                ) => self.leave(stream, link, outstanding, again),
                (Choice::Local(target), _) => Carrier::Here(stream, target, again),
                (Choice::None, Some(end)) => return end.close(false),
                // The client sees its connection closed.
                (Choice::None, None) => return,
            };
        }
    }
}

/// How a client is being served.
enum Carrier {
    /// By a connector of this site; with what a refused one had been sent.
    Here(Rc<Stream>, u64, Bytes),
    /// Over a link.
    There {
        end: Rc<TcpEnd>,
        link: ConnKey,
        temp: Option<u64>,
        outstanding: Outstanding,
    },
}
