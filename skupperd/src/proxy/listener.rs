//! The client's side: from an accepted connection to a stream towards a connector.

mod carry;

use super::{
    Disconnect, Proxy,
    flow::{self, FlowGuard},
    head,
    local::CutSignal,
    policy,
    stream::Stream,
    tcp::TcpEnd,
    tls,
};
use crate::{
    amqp::{message::Properties, value::Value},
    flows::Ending,
    link::{conn::ConnKey, flow_window::SendPhase},
    messages::{AcceptedClient, Command},
    router::{Choice, Exclusions, OutstandingDelivery},
    service::{
        origin::{ALPN, ORIGIN, Origin},
        policy::ListenerPolicy,
        view::SiteView,
    },
    sys,
    telemetry::Failures,
    worker::{Worker, temp_address},
};
use bytes::Bytes;
use carry::Carrier;
use std::{
    io,
    net::TcpStream,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

static NOT_REGISTERED: Failures = Failures::new();

impl Proxy {
    pub(super) fn accept(
        &self,
        worker: &Rc<Worker>,
        mut client: AcceptedClient,
    ) -> Option<AcceptedClient> {
        // With a policy another worker has chosen the key.
        if client.policy.is_none()
            && let Some(policy) = self.listener_policies.get(client.listener)
        {
            let Some(key) = pick_routing_key(worker, client.site, &policy, &[]) else {
                return Some(client);
            };
            if !policy::admit(&policy, &key, &client.socket) {
                return None;
            }
            client.routing_key = key;
            client.policy = Some(policy);
        }
        let key = &client.routing_key;
        let choice = self.choose(worker, client.site, key, &Exclusions::default());
        if matches!(choice, Choice::None) {
            return Some(client);
        }
        if let Choice::Remote { link, .. } = &choice {
            // A worker without a connection towards the server hands the client over, once.
            if worker.trunk(*link).is_none() {
                let view = worker.view(client.site);
                let other = view
                    .and_then(|v| v.worker_of(*link))
                    .filter(|w| *w != worker.index);
                if let Some(other) = other {
                    let client = Command::Client(Box::new(client));
                    worker.senders.send(other, client);
                    return None;
                }
            }
        }
        let proxy = self.this.upgrade()?;
        let flow = self.client_flow(worker, &client);
        let AcceptedClient {
            site,
            listener,
            routing_key,
            policy,
            socket,
        } = client;
        let client = Client {
            flow,
            worker: worker.clone(),
            site,
            listener,
            routing_key,
            policy,
            tried: Vec::new(),
            protocol: None,
            proxy,
        };
        if client
            .policy
            .as_ref()
            .is_some_and(|policy| policy.tls.is_some())
        {
            tokio::task::spawn_local(client.secure(socket));
            return None;
        }
        match sys::watch(socket) {
            Ok(socket) => {
                let stream = Stream::plain(&self.acceleration, socket);
                client.start(Rc::new(stream), choice);
            }
            Err(error) => {
                if let Some(suppressed) = NOT_REGISTERED.count_and_report(Instant::now()) {
                    tracing::warn!(%error, suppressed, "cannot register client socket");
                }
            }
        }
        None
    }

    fn choose(&self, worker: &Worker, site: u32, key: &str, exclude: &Exclusions) -> Choice {
        let Some(view) = worker.view(site) else {
            return Choice::None;
        };
        let locals = view.local_candidates(key);
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
fn pick_routing_key(
    worker: &Worker,
    site: u32,
    policy: &ListenerPolicy,
    tried: &[Arc<str>],
) -> Option<Arc<str>> {
    let view = worker.view(site)?;
    let tried = |key: &str| tried.iter().any(|t| **t == *key);
    policy.keys.next(|key| !tried(key) && view.reaches(key))
}

struct Client {
    flow: FlowGuard,
    worker: Rc<Worker>,
    site: u32,
    listener: u64,
    routing_key: Arc<str>,
    policy: Option<Arc<ListenerPolicy>>,
    /// Routing keys without another connector.
    tried: Vec<Arc<str>>,
    /// Application protocol (ALPN) that its TLS handshake has negotiated.
    protocol: Option<String>,
    proxy: Rc<Proxy>,
}

impl Client {
    /// Completes the TLS handshake, then carries the client.
    async fn secure(mut self, socket: TcpStream) {
        let _open = self.proxy.count_open();
        let Some(tls) = self.policy.as_ref().and_then(|policy| policy.tls.clone()) else {
            return;
        };
        let peer = socket.peer_addr();
        let cut_signal = Rc::new(CutSignal::default());
        self.proxy.register(
            self.listener,
            Rc::downgrade(&cut_signal) as Weak<dyn Disconnect>,
        );
        let secured = async { tls::accept(sys::watch(socket)?, &tls).await };
        let stream = match cut_signal.unless_cut(Box::pin(secured)).await {
            Some(Ok(secured)) => Stream::Tls(Box::new(secured)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                return self.flow.end(Ending::Handshake);
            }
            Some(Err(error)) => {
                self.flow.end(Ending::Handshake);
                if let Some(suppressed) = tls.failures.count_and_report(Instant::now()) {
                    let (keys, peer) = (&*self.routing_key, peer.map(|p| p.to_string()));
                    let peer = peer.unwrap_or_default();
                    tracing::warn!(routing_key = keys, peer, %error, suppressed, "TLS handshake failed");
                    self.worker.notify_changed();
                }
                return;
            }
            None => return self.flow.end(Ending::Removed),
        };
        self.protocol = stream.protocol();
        // What could be reached may have changed in the meantime.
        let choice = self.choose_connector(&mut Exclusions::default());
        self.start(Rc::new(stream), choice);
    }

    fn start(self, stream: Rc<Stream>, choice: Choice) {
        match choice {
            Choice::Local(target) => {
                let local = Carrier::Local(stream, target, Bytes::new());
                tokio::task::spawn_local(self.carry(local, Exclusions::default()));
            }
            Choice::Remote {
                link, outstanding, ..
            } => {
                let remote = self.send_over_link(stream, link, outstanding, Bytes::new());
                tokio::task::spawn_local(self.carry(remote, Exclusions::default()));
            }
            // The listener is about to close.
            Choice::None => tracing::debug!(
                routing_key = &*self.routing_key,
                "closing client: no connector is reachable"
            ),
        }
    }

    /// Sends the client over a link.
    fn send_over_link(
        &self,
        stream: Rc<Stream>,
        link: ConnKey,
        outstanding: OutstandingDelivery,
        replay: Bytes,
    ) -> Carrier {
        let end = TcpEnd::new(
            Some(stream.clone()),
            self.proxy.count_open(),
            self.flow.recorder(),
        );
        self.proxy
            .register(self.listener, Rc::downgrade(&end) as Weak<dyn Disconnect>);
        let reply_number = self.open_stream(&end, stream.socket(), link, replay);
        Carrier::Remote {
            end,
            link,
            reply_number,
            outstanding,
        }
    }

    /// Chooses a connector; without one for the routing key, one of the next key of the policy.
    fn choose_connector(&mut self, exclude: &mut Exclusions) -> Choice {
        loop {
            let key = &self.routing_key;
            match self.proxy.choose(&self.worker, self.site, key, exclude) {
                Choice::None => {}
                choice => return choice,
            }
            let Some(policy) = &self.policy else {
                return Choice::None;
            };
            self.tried.push(key.clone());
            match pick_routing_key(&self.worker, self.site, policy, &self.tried) {
                Some(key) => self.routing_key = key,
                None => return Choice::None,
            }
            *exclude = Exclusions::default();
        }
    }

    /// Properties of the stream's head for the connector.
    fn flow_fields(&self, view: &SiteView, socket: &TcpStream) -> Vec<(&'static str, String)> {
        let mut flow_fields = Vec::new();
        if let Some(protocol) = &self.protocol {
            flow_fields.push((ALPN, protocol.clone()));
        }
        if view.origins.contains(&*self.routing_key)
            && let Some(origin) = Origin::of(socket)
        {
            flow_fields.push((ORIGIN, origin.to_string()));
        }
        flow_fields
    }

    /// Opens the stream towards a connector; `replay` is what a refused one had been sent. Returns the
    /// number of the reply address.
    fn open_stream(
        &self,
        end: &Rc<TcpEnd>,
        socket: &TcpStream,
        link: ConnKey,
        replay: Bytes,
    ) -> Option<u64> {
        let conn = self.worker.trunk(link)?;
        let view = self.worker.view(self.site)?;
        let routes = &view.routes;
        let reply_number = self.proxy.reply_number()?;
        self.flow.set_routing_key(&self.routing_key);
        let properties = Properties {
            to: Some(self.routing_key.to_string()),
            reply_to: Some(temp_address(routes, self.worker.index, reply_number)),
            correlation_id: Some(Value::from(self.flow.id())),
            ..Properties::default()
        };
        let mut flow_fields = self.flow_fields(&view, socket);
        flow_fields.extend(conn.native.then(|| flow::end_field(&view, None)));
        let head = head::encode(routes, properties, conn.native, flow_fields);
        // A router of our own kind takes data at once; others wait for the stream of the answers.
        let phase = if conn.native {
            // The server's end may be of our kind too. Its answers need not come by a path that tells.
            end.acknowledge_often();
            SendPhase::Early
        } else {
            SendPhase::Held
        };
        end.open_stream(&conn, head, phase, replay);
        self.proxy
            .clients
            .borrow_mut()
            .insert(reply_number, end.clone());
        Some(reply_number)
    }
}
