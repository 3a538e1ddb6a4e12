//! What a site tells of itself on the network, for upstream's observers and ours.
//!
//! Once a quarter of a second the core asks whether anybody listens; that is all it costs when nobody
//! does.

use super::{Core, Site, clients::encode};
use crate::{
    amqp::message::Message,
    link::{
        ledger::{Ending, News, Record as Connection, RequestRecord, Seen, Side},
        vanflow::{Attribute as A, BEACONS, Heard, Record, Source, Type, micros},
    },
    router::Exclude,
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// The end of a connection is told this much later: its connector elsewhere has the word before it.
/// Upstream's routers wait for 5 s.
const LATER: Duration = Duration::from_secs(1);
/// Ends that wait for that.
const WAITING: usize = 8192;
/// Least time between two looks at what lasts.
const LOOK: Duration = Duration::from_secs(1);
/// Open connections whose bytes are told as they pass. What is more is told of when it ends.
const OPEN: usize = 10_000;

/// The way of a connection that has passed no router, as upstream's have it; an edge is none.
const LOCAL: &str = "Local";

/// An open connection that was told of.
struct Open {
    seen: Seen,
    bytes: (u64, u64),
}

/// What a site tells.
pub(super) struct Telling {
    source: Source,
    /// Numbers of what has a record, and since when.
    numbers: BTreeMap<String, (u64, Timestamp)>,
    listening: bool,
    looked: Option<Instant>,
    open: BTreeMap<String, Open>,
    ending: VecDeque<(Instant, Record)>,
    /// Servers of connectors, by name.
    servers: BTreeMap<String, Vec<String>>,
    /// When the site began.
    since: Timestamp,
}

impl Telling {
    pub(super) fn new(source: Arc<str>) -> Self {
        Self {
            source: Source::new(source),
            numbers: BTreeMap::new(),
            listening: false,
            looked: None,
            open: BTreeMap::new(),
            ending: VecDeque::new(),
            servers: BTreeMap::new(),
            since: Timestamp::now(),
        }
    }

    /// Addresses that are for this source alone.
    pub(super) fn addresses(&self) -> [String; 2] {
        [self.source.direct(), self.source.served()]
    }

    /// Addresses that it sends to when somebody listens.
    pub(super) fn sends_to(&self) -> [String; 3] {
        let source = &self.source;
        [BEACONS.to_owned(), source.address(), source.flow_address()]
    }

    /// Takes a message that is for the source. False: it is for somebody else.
    pub(super) fn take(&mut self, address: &str, message: &Message) -> bool {
        if address == self.source.direct() {
            let subject = message
                .properties
                .as_ref()
                .and_then(|p| p.subject.as_deref());
            if subject == Some("FLUSH") {
                self.source.flush();
            }
            return true;
        }
        let served = address == self.source.served();
        if served && self.listening {
            self.source.take_served(message);
        }
        served
    }

    fn number(&mut self, core: &Core, what: &str) -> (u64, Timestamp) {
        let fresh = || (core.ledger.new_number(), Timestamp::now());
        *self.numbers.entry(what.to_owned()).or_insert_with(fresh)
    }

    /// Identity of something that has a record.
    pub(super) fn identity(&mut self, core: &Core, what: &str) -> String {
        let (n, _) = self.number(core, what);
        self.source.identity(n)
    }

    /// A record of something that lasts, below the router.
    pub(super) fn lasting(&mut self, core: &Core, kind: Type, what: &str) -> Record {
        let (n, since) = self.number(core, what);
        Record::new(kind, self.source.identity(n))
            .text(A::Parent, &self.source.identity(0))
            .number(A::StartTime, micros(since))
    }

    /// Identity of the connector that has taken a connection to this server.
    fn connector(&mut self, core: &Core, name: &str, server: &str) -> String {
        let known = self.servers.get(name).and_then(|servers| {
            let host = host_of(server);
            // One that is known by a name of its own has one server.
            servers
                .iter()
                .find(|s| **s == server || **s == host)
                .or(servers.first())
        });
        let what = connector(name, known.map_or(server, |known| known));
        self.identity(core, &what)
    }

    /// Tells of a connection of a listener here.
    fn connection(&mut self, core: &Core, connection: &Connection) -> Record {
        let what = listener(&connection.entity, &connection.routing_key);
        let client = connection.client.map(|c| c.to_string());
        let served = &connection.served;
        let passed = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut record = Record::new(Type::Connection, &*connection.id)
            .text(A::Parent, &self.identity(core, &what))
            .number(A::StartTime, micros(connection.start))
            .number(A::Octets, connection.sent)
            .number(A::OctetsReverse, connection.received)
            .maybe(A::Latency, connection.answered.map(passed))
            .maybe(A::EndTime, connection.end.map(micros))
            .address([A::SourceHost, A::SourcePort], &client.unwrap_or_default());
        // A connector elsewhere tells this source how it serves it.
        if !served.connector.is_empty() && served.site.id == connection.site.id {
            let here = self.connector(core, &served.connector, &served.server);
            record = record
                .text(A::Connector, &here)
                .text(A::Trace, LOCAL)
                .address([A::ProxyHost, A::ProxyPort], &served.proxy);
        }
        match connection.ending {
            None | Some(Ending::Closed) => record,
            Some(ending) => record.text(A::ListenerError, ending.as_str()),
        }
    }

    /// Tells the source of a client's listener how it is served here.
    fn serves(&mut self, core: &Core, connection: &Connection) {
        let served = &connection.served;
        let Some((source, _)) = connection.peer_id.split_once(':') else {
            return;
        };
        let here = self.connector(core, &served.connector, &served.server);
        let latency = connection.answered.zip(connection.opened);
        let latency = latency.map(|(answered, opened)| answered.saturating_sub(opened));
        let trace: Vec<String> = served.trace.iter().map(|id| format!("0/{id}")).collect();
        let trace = match &trace[..] {
            [] => LOCAL.to_owned(),
            trace => trace.join("|"),
        };
        let record = Record::new(Type::Connection, &*connection.peer_id)
            .text(A::Trace, &trace)
            .text(A::Connector, &here)
            .maybe(A::ProcessLatency, latency.map(|l| l.as_micros() as u64))
            .address([A::ProxyHost, A::ProxyPort], &served.proxy);
        let record = match connection.ending {
            Some(ending @ (Ending::ResetByServer | Ending::Removed)) => {
                record.text(A::ConnectorError, ending.as_str())
            }
            _ => record,
        };
        self.source.serves(source, record);
    }

    fn heard_of(&mut self, core: &Core, seen: Seen, flows: bool, now: Instant) {
        let record = seen.record();
        if record.side == Side::Connector {
            if !record.served.connector.is_empty() {
                self.serves(core, &record);
            }
            return;
        }
        if !flows {
            return;
        }
        let told = self.connection(core, &record);
        if record.end.is_some() {
            self.open.remove(&record.id);
            self.ending.push_back((now, told));
            return;
        }
        self.source.flow(told);
        if self.open.len() < OPEN {
            let bytes = (record.sent, record.received);
            self.open.insert(record.id, Open { seen, bytes });
        }
    }

    /// Tells of what has ended a while ago.
    fn tell_ended(&mut self, now: Instant) {
        let due = |at: Instant| now.saturating_duration_since(at) >= LATER;
        while self.ending.len() > WAITING || self.ending.front().is_some_and(|(at, _)| due(*at)) {
            if let Some((_, record)) = self.ending.pop_front() {
                self.source.flow(record);
            }
        }
    }

    /// Tells of what has passed on open connections; of all of them when everything is asked for.
    fn look_at_open(&mut self, core: &Core) {
        let all = self.source.is_flushed();
        let mut news = Vec::new();
        for open in self.open.values_mut() {
            let record = open.seen.record();
            let bytes = (record.sent, record.received);
            if std::mem::replace(&mut open.bytes, bytes) != bytes || all {
                news.push(record);
            }
        }
        for record in news {
            let told = self.connection(core, &record);
            self.source.flow(told);
        }
    }
}

fn request(record: &RequestRecord) -> Record {
    let seen = &record.exchange;
    let micros_of = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let stream = (seen.stream != 0).then_some(u64::from(seen.stream));
    let status = seen.status.map(|status| status.to_string());
    Record::new(Type::Request, &*record.id)
        .text(A::Parent, &record.connection.id)
        .number(A::StartTime, micros(record.start))
        .number(A::EndTime, micros(record.end))
        .text(A::Protocol, seen.protocol.as_str())
        .text(A::Method, seen.method)
        .text(A::Result, &status.unwrap_or_default())
        .number(A::Octets, seen.sent)
        .number(A::OctetsReverse, seen.received)
        .maybe(A::Latency, seen.latency.map(micros_of))
        .maybe(A::Stream, stream)
}

/// The host of an address; of a Unix socket its path.
fn host_of(address: &str) -> &str {
    match address.parse::<SocketAddr>() {
        Ok(_) => address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host.trim_matches(['[', ']'])),
        Err(_) => address,
    }
}

/// A server by its host and port.
fn server(host: &str, port: &str) -> String {
    match (host.parse::<IpAddr>(), port.parse()) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => host.to_owned(),
    }
}

/// What listeners, connectors and ports for links are called in [`Telling::numbers`].
fn listener(name: &str, key: &str) -> String {
    format!("listener {name} {key}")
}

fn connector(name: &str, server: &str) -> String {
    format!("connector {name} {server}")
}

pub(super) fn access(name: &str, role: &str) -> String {
    format!("access {name} {role}")
}

impl Site {
    /// Somebody receives from an address, here or elsewhere.
    fn is_heard(&self, address: &str) -> bool {
        let routes = self.router.routes();
        let route = routes.addresses.get(address);
        route.is_some_and(|r| !r.spread(None, &Exclude::default()).is_empty())
            || self.clients.receives(address)
    }

    /// Tells whoever listens.
    pub(super) fn tell_network(&mut self, core: &Core, now: Instant) {
        let [beacons, records, flows] = self.telling.sends_to().map(|a| self.is_heard(&a));
        let heard = Heard {
            beacons,
            records,
            flows,
        };
        let mut telling = std::mem::replace(&mut self.telling, Telling::new("".into()));
        self.tell_of(core, &mut telling, heard, now);
        let messages = telling.source.poll(heard, now, Timestamp::now());
        self.telling = telling;
        let own = self.router.id().to_owned();
        for (address, mut message) in messages {
            // No connection has this key: it comes from here.
            let sent = self.annotate(&mut message, &own, &address)
                && self.spread(core, (0, 0), &address, &message);
            // An edge knows few addresses. Its interior router knows the others.
            if let Some(link) = self.router.routes().uplink.filter(|_| !sent) {
                self.uplink.send(core, link, &address, encode(&message));
            }
        }
    }

    fn tell_of(&self, core: &Core, telling: &mut Telling, heard: Heard, now: Instant) {
        let source = &self.source;
        let listening = heard != Heard::default();
        if std::mem::replace(&mut telling.listening, listening) != listening {
            let open = core.ledger.listen(source, listening);
            telling.looked = None;
            telling.open.clear();
            for seen in open {
                telling.heard_of(core, seen, heard.flows, now);
            }
        }
        if !listening {
            telling.ending.clear();
            return telling.source.forget();
        }
        let due = |at: Instant| now.saturating_duration_since(at) >= LOOK;
        if telling.looked.is_none_or(due) {
            telling.looked = Some(now);
            telling.servers.clear();
            for (name, _, [host, port], _) in self.services.serving() {
                let servers = telling.servers.entry(name).or_default();
                servers.push(server(&host, &port));
            }
            telling.look_at_open(core);
            if heard.records {
                let all = self.lasting(core, telling);
                telling.numbers.retain(|what, _| all.contains_key(what));
                telling.source.set(all, Timestamp::now());
            }
        }
        for news in core.ledger.news(source) {
            match news {
                News::Connection(seen) => telling.heard_of(core, seen, heard.flows, now),
                News::Request(record) if heard.flows => telling.source.flow(request(&record)),
                News::Request(_) => {}
            }
        }
        telling.tell_ended(now);
    }

    /// Records of all that lasts.
    fn lasting(&self, core: &Core, telling: &mut Telling) -> BTreeMap<String, Record> {
        let mut all = BTreeMap::new();
        let site = &self.spec.site;
        let version = env!("CARGO_PKG_VERSION");
        let since = micros(telling.since);
        let record = Record::new(Type::Site, &*site.id)
            .number(A::StartTime, since)
            .text(A::Name, &site.name)
            .text(A::Platform, "linux")
            .text(A::Namespace, &site.namespace)
            .text(A::BuildVersion, version);
        all.insert("site".to_owned(), record);
        let mode = if self.spec.edge { "edge" } else { "interior" };
        let record = Record::new(Type::Router, telling.source.identity(0))
            .text(A::Parent, &site.id)
            .number(A::StartTime, since)
            .text(A::Name, &format!("0/{}", self.spec.router_id))
            .text(A::Namespace, &site.namespace)
            .text(A::Mode, mode)
            .text(A::HostName, &self.spec.host)
            .text(A::BuildVersion, &format!("skupperd {version}"));
        all.insert("router".to_owned(), record);
        self.tell_links(core, telling, &mut all);
        for (name, role) in self.access_roles() {
            let what = access(&name, role);
            let came = self.peers.values().filter(|p| {
                p.access.as_deref() == Some(&*name) && p.edge == (role == "edge") && p.neighbour
            });
            let record = telling
                .lasting(core, Type::RouterAccess, &what)
                .text(A::Name, &name)
                .text(A::Role, role)
                .number(A::LinkCount, came.count() as u64);
            all.insert(what, record);
        }
        for (name, key, place) in self.services.listening() {
            let what = listener(&name, &key);
            let record = telling
                .lasting(core, Type::Listener, &what)
                .text(A::Name, &name)
                .text(A::Protocol, "tcp")
                .text(A::Address, &key)
                .address([A::DestinationHost, A::DestinationPort], &place);
            all.insert(what, record);
        }
        for (name, key, [host, port], opened) in self.services.serving() {
            let server = server(&host, &port);
            let what = connector(&name, &server);
            let process = format!("process {name} {server}");
            let record = telling
                .lasting(core, Type::Connector, &what)
                .text(A::Name, &name)
                .text(A::Protocol, "tcp")
                .text(A::Address, &key)
                .text(A::Process, &telling.identity(core, &process))
                .text(A::DestinationHost, &host)
                .text(A::DestinationPort, &port)
                .number(A::FlowCount, opened);
            all.insert(what, record);
            let (n, since) = telling.number(core, &process);
            let record = Record::new(Type::Process, telling.source.identity(n))
                .text(A::Parent, &site.id)
                .number(A::StartTime, micros(since))
                .text(A::Name, &name)
                .text(A::Group, &name)
                .text(A::Mode, "internal")
                .text(A::HostName, &self.spec.host)
                .text(A::SourceHost, &host);
            all.insert(process, record);
        }
        all
    }
}
