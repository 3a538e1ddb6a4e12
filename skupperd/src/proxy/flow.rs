//! What the proxy writes into the records of connections: how each begins, who serves it, and the
//! bytes that a bridge moves.

use super::{Proxy, stream::Stream};
use crate::{
    amqp::{message::MessageHead, value::Value},
    flows::{ConnectionSide, Ending, FlowStart, FlowWriter, ServerInfo, SiteName, site_name},
    http_observer::{ExpectedProtocol, HttpObserver, MessageSender},
    messages::AcceptedClient,
    model,
    router::ParsedAddress,
    service::{
        origin::{ORIGIN, Origin},
        view::SiteView,
    },
    worker::Worker,
};
use std::{
    cell::RefCell,
    io::{self, IoSlice, IoSliceMut},
    ops::Deref,
    rc::Rc,
    time::Instant,
};

/// Application property of a stream's head, between ends of our own kind: `ID/NAME` of the site where
/// the stream begins; on the way back behind it, apart by blanks, the connector's name, the address it
/// uses for its server, and the server's address.
pub(super) const END: &str = "io.skupper.end";
/// In place of a missing address.
const NONE: &str = "-";

/// The record of a connection, and the observer of its requests.
pub(super) struct FlowRecorder {
    entry: FlowWriter,
    observer: RefCell<Option<Box<HttpObserver>>>,
}

impl FlowRecorder {
    fn new(entry: FlowWriter, expected: Option<ExpectedProtocol>) -> Rc<Self> {
        let observer = RefCell::new(expected.map(|expected| Box::new(HttpObserver::new(expected))));
        Rc::new(Self { entry, observer })
    }

    /// Shows bytes that have passed to the observer.
    pub(super) fn observe(&self, from: MessageSender, bytes: &[u8]) {
        let mut watching = self.observer.borrow_mut();
        let Some(observer) = &mut *watching else {
            return;
        };
        let now = Instant::now();
        let on_exchange = &mut |exchange| self.entry.exchanged(exchange);
        if let Err(over) = observer.observe(from, bytes, now, on_exchange) {
            observer.finish(now, on_exchange);
            over.inspect(|reason| self.entry.count_unobserved(*reason));
            *watching = None;
        }
    }

    /// Shows `n` bytes that were read into these pieces; 0 is the end of the direction.
    pub(super) fn observe_read(
        &self,
        from: MessageSender,
        pieces: &[IoSliceMut<'_>],
        mut n: usize,
    ) {
        if self.observer.borrow().is_none() {
            return;
        }
        if n == 0 {
            return self.observe_end(from);
        }
        for piece in pieces {
            let part = n.min(piece.len());
            self.observe(from, &piece[..part]);
            n -= part;
            if n == 0 {
                return;
            }
        }
    }

    /// A direction has ended without an error.
    pub(super) fn observe_end(&self, from: MessageSender) {
        if let Some(observer) = &mut *self.observer.borrow_mut() {
            observer.end(from, Instant::now(), &mut |e| self.entry.exchanged(e));
        }
    }

    fn finish(&self) {
        if let Some(mut observer) = self.observer.take() {
            observer.finish(Instant::now(), &mut |e| self.entry.exchanged(e));
        }
        self.entry.finish();
    }
}

impl Deref for FlowRecorder {
    type Target = FlowWriter;

    fn deref(&self) -> &FlowWriter {
        &self.entry
    }
}

/// The record of a connection, finished when its owner has no more to do with it.
pub(super) struct FlowGuard(Rc<FlowRecorder>);

impl FlowGuard {
    /// For the others that have a part in the connection.
    pub(super) fn recorder(&self) -> Rc<FlowRecorder> {
        self.0.clone()
    }
}

impl Deref for FlowGuard {
    type Target = FlowRecorder;

    fn deref(&self) -> &FlowRecorder {
        &self.0
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Proxy {
    pub(super) fn client_flow(&self, worker: &Worker, accepted: &AcceptedClient) -> FlowGuard {
        let view = worker.view(accepted.site);
        let listener = view
            .as_ref()
            .and_then(|v| v.listeners.get(&accepted.listener));
        let expected = listener.and_then(|listener| expected_protocol(listener.observer));
        let client = accepted.socket.peer_addr().ok();
        let begin = FlowStart {
            side: ConnectionSide::Listener,
            source: view.as_ref().map(|v| v.source.clone()).unwrap_or_default(),
            site: view.as_ref().map(|v| v.site.clone()).unwrap_or_default(),
            entity: listener.map(|l| l.name.clone()).unwrap_or_default(),
            routing_key: accepted.routing_key.clone(),
            client: client.map(|c| (c.ip().to_canonical(), c.port()).into()),
            peer_id: String::new(),
        };
        FlowGuard(FlowRecorder::new(
            self.flow_log.begin(worker.index, begin),
            expected,
        ))
    }

    pub(super) fn server_flow(&self, worker: &Worker, site: u32, head: &MessageHead) -> FlowGuard {
        let key = match head.to().map(ParsedAddress::parse) {
            Some(ParsedAddress::Mobile(key)) => key,
            _ => "",
        };
        let peer = head.properties.correlation_id.as_ref();
        let view = worker.view(site);
        let begin = FlowStart {
            side: ConnectionSide::Connector,
            source: view.as_ref().map(|v| v.source.clone()).unwrap_or_default(),
            site: view.map(|v| v.site.clone()).unwrap_or_default(),
            entity: "".into(),
            routing_key: key.into(),
            client: text(head, ORIGIN)
                .and_then(Origin::parse)
                .map(|origin| origin.client),
            peer_id: peer.and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        // The site of the client reports requests.
        FlowGuard(FlowRecorder::new(
            self.flow_log.begin(worker.index, begin),
            None,
        ))
    }
}

fn expected_protocol(observer: model::ObserverMode) -> Option<ExpectedProtocol> {
    match observer {
        model::ObserverMode::None => None,
        model::ObserverMode::Auto => Some(ExpectedProtocol::Auto),
        model::ObserverMode::Http1 => Some(ExpectedProtocol::Http1),
        model::ObserverMode::Http2 => Some(ExpectedProtocol::Http2),
    }
}

fn text<'a>(head: &'a MessageHead, name: &str) -> Option<&'a str> {
    head.application_property(name).and_then(Value::as_str)
}

/// Property of a stream's head with the site of this end and, at a connector, its server.
pub(super) fn end_field(view: &SiteView, server: Option<&ServerInfo>) -> (&'static str, String) {
    let mut end = format!("{}/{}", view.site.id, view.site.name);
    if let Some(ServerInfo {
        connector,
        proxy,
        server,
        ..
    }) = server
    {
        let proxy = if proxy.is_empty() { NONE } else { proxy };
        end.push_str(&format!(" {connector} {proxy} {server}"));
    }
    (END, end)
}

/// Reads the other end from the head of its stream.
pub(super) fn remote_side(head: &MessageHead) -> ServerInfo {
    let trace = head.annotations.trace.iter();
    let trace = trace.map(|id| router(id).to_owned());
    let mut served = ServerInfo {
        trace: trace.collect(),
        ..ServerInfo::default()
    };
    match text(head, END) {
        Some(end) => {
            let mut parts = end.splitn(4, ' ').map(str::to_owned);
            let site = parts.next().unwrap_or_default();
            let (id, name) = site.split_once('/').unwrap_or((&site, ""));
            id.clone_into(&mut served.site.id);
            name.clone_into(&mut served.site.name);
            served.connector = parts.next().unwrap_or_default();
            served.proxy = parts.next().filter(|p| p != NONE).unwrap_or_default();
            served.server = parts.next().unwrap_or_default();
        }
        None => {
            let ingress = head.annotations.ingress.as_deref();
            served.site =
                ingress.map_or_else(SiteName::default, |id| SiteName::of_router(router(id)));
        }
    }
    served
}

/// The name of the site where a stream begins, as its router reports it on behalf of its clients.
pub(super) fn client_site(head: &MessageHead) -> Option<String> {
    let annotations = &head.annotations;
    let first = annotations.ingress.as_ref().or(annotations.trace.first())?;
    Some(site_name(router(first)).to_owned())
}

/// The id of a router, without its area.
fn router(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, id)| id)
}

pub(super) fn local_server(connector: &str, target: String, server: &Stream) -> ServerInfo {
    let address = |addr: io::Result<std::net::SocketAddr>| addr.map(|a| a.to_string());
    let socket = server.socket();
    ServerInfo {
        connector: connector.to_owned(),
        // A Unix socket has no such addresses.
        server: address(socket.peer_addr()).unwrap_or(target),
        proxy: address(socket.local_addr()).unwrap_or_default(),
        ..ServerInfo::default()
    }
}

/// One side of a bridge. Bytes of the client's side are counted, and the side that fails first is recorded.
pub(super) struct CountedStream<'a> {
    stream: &'a Stream,
    flow: &'a FlowRecorder,
    client: bool,
}

impl<'a> CountedStream<'a> {
    /// The client's side, and the server's.
    pub(super) fn pair(
        client: &'a Stream,
        server: &'a Stream,
        flow: &'a FlowRecorder,
    ) -> [Self; 2] {
        [(client, true), (server, false)].map(|(stream, client)| Self {
            stream,
            flow,
            client,
        })
    }

    pub(super) fn read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let read = self.stream.read(pieces);
        if let Ok(n) = read {
            let from = match self.client {
                true => MessageSender::Client,
                false => MessageSender::Server,
            };
            self.flow.observe_read(from, pieces, n);
        }
        self.count(read, FlowWriter::add_read)
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.write(pieces);
        self.count(written, FlowWriter::add_written)
    }

    fn count(&self, moved: io::Result<usize>, add: fn(&FlowWriter, usize)) -> io::Result<usize> {
        match &moved {
            Ok(n) if self.client => add(self.flow, *n),
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.flow.end(match self.client {
                true => Ending::ResetByClient,
                false => Ending::ResetByServer,
            }),
        }
        moved
    }
}

impl Deref for CountedStream<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::message::RouterAnnotations;
    use std::sync::Arc;

    fn head(end: Option<String>) -> MessageHead {
        let property = end.map(|end| (Value::from(END), Value::from(end)));
        MessageHead {
            annotations: RouterAnnotations {
                ingress: Some("0/west-1700000000-12".to_owned()),
                trace: vec!["0/west-1700000000-12".to_owned(), "0/hub".to_owned()],
                ..RouterAnnotations::default()
            },
            application_properties: property.into_iter().collect(),
            ..MessageHead::default()
        }
    }

    #[test]
    fn native_ends_exchange_sites_and_servers() {
        let view = SiteView {
            site: Arc::new(SiteName {
                namespace: "default".to_owned(),
                id: "4-2".to_owned(),
                name: "west".to_owned(),
            }),
            ..SiteView::default()
        };
        let server = ServerInfo {
            connector: "db".to_owned(),
            server: "unix:/run/with blank/s".to_owned(),
            ..ServerInfo::default()
        };
        for served in [None, Some(server)] {
            let (_, end) = end_field(&view, served.as_ref());
            let read = remote_side(&head(Some(end)));
            assert_eq!(
                (&*read.site.id, &*read.site.name, &*read.site.namespace),
                ("4-2", "west", "")
            );
            assert_eq!(read.trace, ["west-1700000000-12", "hub"]);
            let expected = served.unwrap_or_default();
            assert_eq!(
                (read.connector, read.server, read.proxy),
                (expected.connector, expected.server, expected.proxy)
            );
        }
    }

    #[test]
    fn the_site_name_of_a_foreign_router_is_derived() {
        let read = remote_side(&head(None));
        assert_eq!(
            (&*read.site.id, &*read.site.name),
            ("west-1700000000-12", "west")
        );
        for hostile in ["", " ", "/", "a b c d e f", "a/b/c  "] {
            remote_side(&head(Some(hostile.to_owned())));
        }
    }
}
