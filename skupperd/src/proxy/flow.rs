//! Records of connections, where the proxy has what is to be said in them: how each begins, who
//! serves it, and what a bridge moves.

use super::{
    Proxy,
    http::{self, Look, Observer},
    stream::Stream,
};
use crate::{
    amqp::{message::MessageHead, value::Value},
    link::{
        ledger::{Begin, Ending, Entry, Served, Side, SiteName},
        origin::{ORIGIN, Origin},
        view::SiteView,
        worker::Worker,
    },
    model,
    router::Target,
};
use std::{
    cell::RefCell,
    io::{self, IoSlice, IoSliceMut},
    net::TcpStream,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

/// Application property of a stream's head, between ends of our own kind: `ID/NAME` of the site where
/// the stream begins; on the way back behind it, apart by blanks, the connector's name, the address it
/// speaks with its server from, and the server's address.
pub(super) const END: &str = "io.skupper.end";
/// Stands for an address that there is none of.
const NONE: &str = "-";

/// The record of a connection, and who looks for requests on it.
pub(super) struct Watched {
    entry: Entry,
    observer: RefCell<Option<Box<Observer>>>,
}

impl Watched {
    fn new(entry: Entry, look: Option<Look>) -> Rc<Self> {
        let observer = RefCell::new(look.map(|look| Box::new(Observer::new(look))));
        Rc::new(Self { entry, observer })
    }

    /// These bytes have passed.
    pub(super) fn saw(&self, from: http::Speaker, bytes: &[u8]) {
        let mut watching = self.observer.borrow_mut();
        let Some(observer) = &mut *watching else {
            return;
        };
        let now = Instant::now();
        let tell = &mut |exchange| self.entry.exchanged(exchange);
        if let Err(over) = observer.see(from, bytes, now, tell) {
            observer.finish(now, tell);
            over.inspect(|why| self.entry.unseen(*why));
            *watching = None;
        }
    }

    /// So many bytes were read into these pieces; none when the way has ended.
    pub(super) fn has_read(&self, from: http::Speaker, pieces: &[IoSliceMut<'_>], mut n: usize) {
        if self.observer.borrow().is_none() {
            return;
        }
        if n == 0 {
            return self.saw_end(from);
        }
        for piece in pieces {
            let part = n.min(piece.len());
            self.saw(from, &piece[..part]);
            n -= part;
            if n == 0 {
                return;
            }
        }
    }

    /// One way has ended in order.
    pub(super) fn saw_end(&self, from: http::Speaker) {
        if let Some(observer) = &mut *self.observer.borrow_mut() {
            observer.end(from, Instant::now(), &mut |e| self.entry.exchanged(e));
        }
    }

    /// It is over.
    fn over(&self) {
        if let Some(mut observer) = self.observer.take() {
            observer.finish(Instant::now(), &mut |e| self.entry.exchanged(e));
        }
        self.entry.finish();
    }
}

impl Deref for Watched {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// The record of a connection, finished when its owner has no more to do with it.
pub(super) struct Flow(Rc<Watched>);

impl Flow {
    /// For the others that have a part in the connection.
    pub(super) fn share(&self) -> Rc<Watched> {
        self.0.clone()
    }
}

impl Deref for Flow {
    type Target = Watched;

    fn deref(&self) -> &Watched {
        &self.0
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.0.over();
    }
}

impl Proxy {
    /// A client was accepted.
    pub(super) fn client_flow(
        &self,
        worker: &Worker,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        client: &TcpStream,
    ) -> Flow {
        let view = worker.view(site);
        let listener = view.as_ref().and_then(|v| v.listeners.get(&listener));
        let look = listener.and_then(|listener| look(listener.observer));
        let client = client.peer_addr().ok();
        let begin = Begin {
            side: Side::Listener,
            source: view.as_ref().map(|v| v.source.clone()).unwrap_or_default(),
            site: view.as_ref().map(|v| v.site.clone()).unwrap_or_default(),
            entity: listener.map(|l| l.name.clone()).unwrap_or_default(),
            routing_key: routing_key.clone(),
            client: client.map(|c| (c.ip().to_canonical(), c.port()).into()),
            peer_id: String::new(),
        };
        Flow(Watched::new(self.ledger.begin(worker.index, begin), look))
    }

    /// A client's stream has come in for a connector.
    pub(super) fn server_flow(&self, worker: &Worker, site: u32, head: &MessageHead) -> Flow {
        let key = match head.to().map(Target::parse) {
            Some(Target::Mobile(key)) => key,
            _ => "",
        };
        let peer = head.properties.correlation_id.as_ref();
        let view = worker.view(site);
        let begin = Begin {
            side: Side::Connector,
            source: view.as_ref().map(|v| v.source.clone()).unwrap_or_default(),
            site: view.map(|v| v.site.clone()).unwrap_or_default(),
            entity: "".into(),
            routing_key: key.into(),
            client: text(head, ORIGIN)
                .and_then(Origin::parse)
                .map(|origin| origin.client),
            peer_id: peer.and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        // Requests are told of where their clients are.
        Flow(Watched::new(self.ledger.begin(worker.index, begin), None))
    }
}

fn look(observer: model::Observer) -> Option<Look> {
    match observer {
        model::Observer::None => None,
        model::Observer::Auto => Some(Look::Auto),
        model::Observer::Http1 => Some(Look::Http1),
        model::Observer::Http2 => Some(Look::Http2),
    }
}

fn text<'a>(head: &'a MessageHead, name: &str) -> Option<&'a str> {
    head.application_property(name).and_then(Value::as_str)
}

/// What the other end is told of this one: the site and, at the connector's, its server.
pub(super) fn about(view: &SiteView, server: Option<&Served>) -> (&'static str, String) {
    let mut end = format!("{}/{}", view.site.id, view.site.name);
    if let Some(Served {
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

/// What the head of the other end's stream says of that end.
pub(super) fn other_end(head: &MessageHead) -> Served {
    let router = |id: &str| id.split_once('/').map_or(id, |(_, id)| id).to_owned();
    let trace = head.annotations.trace.iter().map(|id| router(id));
    let mut served = Served {
        trace: trace.collect(),
        ..Served::default()
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
            let ingress = head.annotations.ingress.as_deref().map(router);
            served.site = ingress.map_or_else(SiteName::default, |id| SiteName::of_router(&id));
        }
    }
    served
}

/// The name of the site where a stream begins: as its router says, which stands for its clients.
pub(super) fn origin(head: &MessageHead) -> Option<String> {
    let annotations = &head.annotations;
    let first = annotations.ingress.as_ref().or(annotations.trace.first())?;
    let id = first.split_once('/').map_or(&**first, |(_, id)| id);
    Some(SiteName::of_router(id).name)
}

/// A connector of this site and its server.
pub(super) fn here(connector: &str, target: String, server: &Stream) -> Served {
    let address = |addr: io::Result<std::net::SocketAddr>| addr.map(|a| a.to_string());
    let socket = server.socket();
    Served {
        connector: connector.to_owned(),
        // A Unix socket has no such addresses.
        server: address(socket.peer_addr()).unwrap_or(target),
        proxy: address(socket.local_addr()).unwrap_or_default(),
        ..Served::default()
    }
}

/// One side of a bridge: what is moved at the client's is counted, and who fails first is noted.
pub(super) struct Counted<'a> {
    stream: &'a Stream,
    flow: &'a Watched,
    client: bool,
}

impl<'a> Counted<'a> {
    /// The client's side, and the server's.
    pub(super) fn both(client: &'a Stream, server: &'a Stream, flow: &'a Watched) -> [Self; 2] {
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
                true => http::Speaker::Client,
                false => http::Speaker::Server,
            };
            self.flow.has_read(from, pieces, n);
        }
        self.note(read, Entry::read)
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.write(pieces);
        self.note(written, Entry::wrote)
    }

    fn note(&self, moved: io::Result<usize>, count: fn(&Entry, usize)) -> io::Result<usize> {
        match &moved {
            Ok(n) if self.client => count(self.flow, *n),
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

impl Deref for Counted<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::message::RouterAnnotations;

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
    fn ends_of_our_own_kind_tell_each_other_what_they_are() {
        let view = SiteView {
            site: Arc::new(SiteName {
                namespace: "default".to_owned(),
                id: "4-2".to_owned(),
                name: "west".to_owned(),
            }),
            ..SiteView::default()
        };
        let server = Served {
            connector: "db".to_owned(),
            server: "unix:/run/with blank/s".to_owned(),
            ..Served::default()
        };
        for served in [None, Some(server)] {
            let (_, end) = about(&view, served.as_ref());
            let read = other_end(&head(Some(end)));
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
    fn of_another_kind_of_router_the_name_of_its_site_is_known() {
        let read = other_end(&head(None));
        assert_eq!(
            (&*read.site.id, &*read.site.name),
            ("west-1700000000-12", "west")
        );
        for hostile in ["", " ", "/", "a b c d e f", "a/b/c  "] {
            other_end(&head(Some(hostile.to_owned())));
        }
    }
}
