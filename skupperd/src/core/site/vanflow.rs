//! The vanflow source of a site: its records for observers on the network.
//!
//! Once a quarter of a second the core checks for receivers; without any, nothing else is done.

mod records;

use crate::{
    amqp::message::Message,
    flows::{
        ConnectionRecord, ConnectionSide, Ending, FlowLog, FlowUpdate, ObservedFlow, RequestRecord,
        vanflow::{
            Attribute as A, BEACONS, Outgoing, Type, VanflowReceivers, VanflowRecord,
            VanflowSource, micros,
        },
    },
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Delay of the record of a connection's end: its connector elsewhere reports before it. Routers of
/// Skupper wait for 5 s.
const END_DELAY: Duration = Duration::from_secs(1);
/// Most ends that wait for that.
const MAX_WAITING: usize = 8192;
/// Least time between two scans of what lasts.
const RESCAN: Duration = Duration::from_secs(1);
/// Open connections whose bytes are reported as they pass. Further ones are reported when they end.
const MAX_OPEN: usize = 10_000;

/// Trace of a connection that has passed no router, as Skupper writes it; an edge is none.
const LOCAL: &str = "Local";

/// The last report of an open connection.
struct OpenReport {
    flow: ObservedFlow,
    bytes: (u64, u64),
}

pub(in crate::core) struct VanflowEmitter {
    source: VanflowSource,
    /// The name of the source, as records of connections have it.
    name: Arc<str>,
    flow_log: FlowLog,
    /// Numbers of what has a record, and since when.
    numbers: BTreeMap<String, (u64, Timestamp)>,
    listening: bool,
    scanned: Option<Instant>,
    open: BTreeMap<String, OpenReport>,
    ending: VecDeque<(Instant, VanflowRecord)>,
    /// Servers of connectors, by name.
    servers: BTreeMap<String, Vec<String>>,
    /// When the site began.
    since: Timestamp,
}

impl VanflowEmitter {
    pub(in crate::core) fn new(name: Arc<str>, flow_log: FlowLog) -> Self {
        Self {
            source: VanflowSource::new(name.clone()),
            name,
            flow_log,
            numbers: BTreeMap::new(),
            listening: false,
            scanned: None,
            open: BTreeMap::new(),
            ending: VecDeque::new(),
            servers: BTreeMap::new(),
            since: Timestamp::now(),
        }
    }

    /// Addresses that are for this source alone.
    pub(in crate::core) fn addresses(&self) -> [String; 2] {
        [self.source.direct(), self.source.service_address()]
    }

    /// Addresses of its messages.
    pub(in crate::core) fn sends_to(&self) -> [String; 3] {
        let source = &self.source;
        [BEACONS.to_owned(), source.address(), source.flow_address()]
    }

    /// Takes a message that is for the source. Returns false if it is for another address.
    pub(in crate::core) fn take(&mut self, address: &str, message: &Message) -> bool {
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
        let served = address == self.source.service_address();
        if served && self.listening {
            self.source.take_served(message);
        }
        served
    }

    /// Starts or stops to follow connections. True: records of what lasts are due.
    pub(in crate::core) fn set_receivers(
        &mut self,
        receivers: VanflowReceivers,
        now: Instant,
    ) -> bool {
        let listening = receivers != VanflowReceivers::default();
        if std::mem::replace(&mut self.listening, listening) != listening {
            let open = self.flow_log.listen(&self.name, listening);
            self.scanned = None;
            self.open.clear();
            for flow in open {
                self.add_connection(flow, receivers.flows, now);
            }
        }
        if !listening {
            self.ending.clear();
            self.source.forget();
            return false;
        }
        let due = |at: Instant| now.saturating_duration_since(at) >= RESCAN;
        if !self.scanned.is_none_or(due) {
            return false;
        }
        self.scanned = Some(now);
        true
    }

    /// Takes the servers of connectors, by name: host and port of each.
    pub(in crate::core) fn set_servers(
        &mut self,
        servers: impl IntoIterator<Item = (String, [String; 2])>,
    ) {
        self.servers.clear();
        for (name, [host, port]) in servers {
            let servers = self.servers.entry(name).or_default();
            servers.push(server(&host, &port));
        }
    }

    /// Replaces the records of what lasts.
    pub(in crate::core) fn set_lasting(&mut self, all: BTreeMap<String, VanflowRecord>) {
        self.numbers.retain(|what, _| all.contains_key(what));
        self.source.set_lasting(all, Timestamp::now());
    }

    /// Adds what happened to connections since the last call.
    pub(in crate::core) fn collect(&mut self, receivers: VanflowReceivers, now: Instant) {
        if !self.listening {
            return;
        }
        for news in self.flow_log.take_updates(&self.name) {
            match news {
                FlowUpdate::Connection(flow) => self.add_connection(flow, receivers.flows, now),
                FlowUpdate::Request(record) if receivers.flows => {
                    self.source.push_flow(request(&record));
                }
                FlowUpdate::Request(_) => {}
            }
        }
        self.end_due(now);
    }

    /// The messages that are due.
    pub(in crate::core) fn poll(
        &mut self,
        receivers: VanflowReceivers,
        now: Instant,
    ) -> Vec<Outgoing> {
        self.source.poll(receivers, now, Timestamp::now())
    }

    /// The site is gone: nothing more is kept for it.
    pub(in crate::core) fn stop(&self) {
        drop(self.flow_log.listen(&self.name, false));
    }

    fn number_of(&mut self, what: &str) -> (u64, Timestamp) {
        let flow_log = &self.flow_log;
        let fresh = || (flow_log.new_number(), Timestamp::now());
        *self.numbers.entry(what.to_owned()).or_insert_with(fresh)
    }

    /// The identity of something that has a record.
    pub(in crate::core) fn identity(&mut self, what: &str) -> String {
        let (n, _) = self.number_of(what);
        self.source.identity(n)
    }

    /// A record of something that lasts, below the router.
    fn lasting_record(&mut self, kind: Type, what: &str) -> VanflowRecord {
        let (n, since) = self.number_of(what);
        VanflowRecord::new(kind, self.source.identity(n))
            .text(A::Parent, &self.source.identity(0))
            .number(A::StartTime, micros(since))
    }

    /// Identity of the connector that has taken a connection to this server.
    fn connector(&mut self, name: &str, server: &str) -> String {
        let known = self.servers.get(name).and_then(|servers| {
            let host = host_of(server);
            // A single server may be recorded under another name.
            servers
                .iter()
                .find(|s| **s == server || **s == host)
                .or(servers.first())
        });
        let what = connector(name, known.map_or(server, |known| known));
        self.identity(&what)
    }

    /// The record of a connection of a listener here.
    fn connection(&mut self, connection: &ConnectionRecord) -> VanflowRecord {
        let what = listener(&connection.entity, &connection.routing_key);
        let client = connection.client.map(|c| c.to_string());
        let served = &connection.server;
        let passed = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut record = VanflowRecord::new(Type::Connection, &*connection.id)
            .text(A::Parent, &self.identity(&what))
            .number(A::StartTime, micros(connection.start))
            .number(A::Octets, connection.sent)
            .number(A::OctetsReverse, connection.received)
            .maybe(A::Latency, connection.answered.map(passed))
            .maybe(A::EndTime, connection.end.map(micros))
            .address([A::SourceHost, A::SourcePort], &client.unwrap_or_default());
        // A connector elsewhere tells this source how it serves it.
        if !served.connector.is_empty() && served.site.id == connection.site.id {
            let here = self.connector(&served.connector, &served.server);
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

    /// Reports to the source of a client's listener how it is served here.
    fn report_served(&mut self, connection: &ConnectionRecord) {
        let served = &connection.server;
        let Some((source, _)) = connection.peer_id.split_once(':') else {
            return;
        };
        let here = self.connector(&served.connector, &served.server);
        let latency = connection.answered.zip(connection.opened);
        let latency = latency.map(|(answered, opened)| answered.saturating_sub(opened));
        let trace: Vec<String> = served.trace.iter().map(|id| format!("0/{id}")).collect();
        let trace = match &trace[..] {
            [] => LOCAL.to_owned(),
            trace => trace.join("|"),
        };
        let record = VanflowRecord::new(Type::Connection, &*connection.peer_id)
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
        self.source.report_served(source, record);
    }

    fn add_connection(&mut self, flow: ObservedFlow, flows: bool, now: Instant) {
        let record = flow.record();
        if record.side == ConnectionSide::Connector {
            if !record.server.connector.is_empty() {
                self.report_served(&record);
            }
            return;
        }
        if !flows {
            return;
        }
        let report = self.connection(&record);
        if record.end.is_some() {
            self.open.remove(&record.id);
            self.ending.push_back((now, report));
            return;
        }
        self.source.push_flow(report);
        if self.open.len() < MAX_OPEN {
            let bytes = (record.sent, record.received);
            self.open.insert(record.id, OpenReport { flow, bytes });
        }
    }

    /// Reports ends whose delay is over.
    fn end_due(&mut self, now: Instant) {
        let due = |at: Instant| now.saturating_duration_since(at) >= END_DELAY;
        while self.ending.len() > MAX_WAITING || self.ending.front().is_some_and(|(at, _)| due(*at))
        {
            if let Some((_, record)) = self.ending.pop_front() {
                self.source.push_flow(record);
            }
        }
    }

    /// Reports what has passed on open connections; on all of them after a request for everything.
    pub(in crate::core) fn update_open(&mut self) {
        let all = self.source.is_flushed();
        let mut news = Vec::new();
        for open in self.open.values_mut() {
            let record = open.flow.record();
            let bytes = (record.sent, record.received);
            if std::mem::replace(&mut open.bytes, bytes) != bytes || all {
                news.push(record);
            }
        }
        for record in news {
            let report = self.connection(&record);
            self.source.push_flow(report);
        }
    }
}

fn request(record: &RequestRecord) -> VanflowRecord {
    let exchange = &record.exchange;
    let micros_of = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let stream = (exchange.stream != 0).then_some(u64::from(exchange.stream));
    let status = exchange.status.map(|status| status.to_string());
    VanflowRecord::new(Type::Request, &*record.id)
        .text(A::Parent, &record.connection.id)
        .number(A::StartTime, micros(record.start))
        .number(A::EndTime, micros(record.end))
        .text(A::Protocol, exchange.protocol.as_str())
        .text(A::Method, exchange.method)
        .text(A::Result, &status.unwrap_or_default())
        .number(A::Octets, exchange.sent)
        .number(A::OctetsReverse, exchange.received)
        .maybe(A::Latency, exchange.latency.map(micros_of))
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

/// What listeners, connectors and ports for links are called in [`VanflowEmitter::numbers`].
fn listener(name: &str, key: &str) -> String {
    format!("listener {name} {key}")
}

fn connector(name: &str, server: &str) -> String {
    format!("connector {name} {server}")
}

pub(in crate::core) fn access(name: &str, role: &str) -> String {
    format!("access {name} {role}")
}

#[cfg(test)]
mod tests;
