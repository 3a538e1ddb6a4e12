//! Upstream's records of a network (vanflow): what an event source says, as messages. Sans-I/O.
//!
//! A source has a name of five characters, here one for each site's router and start of the daemon. It
//! says that it is there on [`BEACONS`], and everything else on addresses with its name. A record is a
//! map of numbered attributes; what is said of it later has only what has changed, and one that is
//! over has an end time. Nothing is built unless somebody listens.

use crate::amqp::{
    message::{Body, Message, Properties},
    value::{Symbol, Value},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Where all sources say that they are there.
pub(super) const BEACONS: &str = "mc/sfe.all";
/// Upstream's intervals.
const BEACON: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Records in one message; upstream's.
const BATCH: usize = 50;
/// Messages with records at once: more waits, or is not told.
const BURST: usize = 20;
/// Records that wait.
const WAITING: usize = 8192;
/// Longest text in a record; upstream's.
const TEXT: usize = 300;

/// What a record is of, by upstream's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    Site = 0,
    Router = 1,
    Link = 2,
    Listener = 4,
    Connector = 5,
    Process = 7,
    RouterAccess = 15,
    Connection = 16,
    Request = 17,
}

/// An attribute of a record, by upstream's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attribute {
    Type = 0,
    Identity = 1,
    Parent = 2,
    StartTime = 3,
    EndTime = 4,
    Peer = 6,
    Process = 7,
    Platform = 11,
    Namespace = 12,
    Mode = 13,
    SourceHost = 14,
    DestinationHost = 15,
    Protocol = 16,
    SourcePort = 17,
    DestinationPort = 18,
    Address = 19,
    HostName = 22,
    Octets = 23,
    Latency = 24,
    Method = 27,
    Result = 28,
    Reason = 29,
    Name = 30,
    Trace = 31,
    BuildVersion = 32,
    LinkCost = 33,
    FlowCount = 40,
    Group = 46,
    Stream = 47,
    LinkCount = 52,
    Status = 53,
    Role = 54,
    UpTime = 55,
    DownCount = 57,
    OctetsReverse = 58,
    Connector = 60,
    ProcessLatency = 61,
    ProxyHost = 62,
    ProxyPort = 63,
    ListenerError = 64,
    ConnectorError = 65,
    HttpProxy = 67,
}

/// A record, or what has changed of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    kind: Type,
    identity: Arc<str>,
    attributes: BTreeMap<Attribute, Value>,
}

/// A time as records have it: microseconds since the epoch.
pub(super) fn micros(time: Timestamp) -> u64 {
    u64::try_from(time.as_microsecond()).unwrap_or(0)
}

impl Record {
    pub(super) fn new(kind: Type, identity: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            identity: identity.into(),
            attributes: BTreeMap::new(),
        }
    }

    /// With a text; an empty one is none.
    pub(super) fn text(mut self, attribute: Attribute, text: &str) -> Self {
        let end = text.floor_char_boundary(TEXT);
        if end > 0 {
            let text = Value::from(&text[..end]);
            self.attributes.insert(attribute, text);
        }
        self
    }

    /// With a number.
    pub(super) fn number(mut self, attribute: Attribute, n: u64) -> Self {
        self.attributes.insert(attribute, Value::Ulong(n));
        self
    }

    /// With a number that may not be known.
    pub(super) fn maybe(self, attribute: Attribute, n: Option<u64>) -> Self {
        match n {
            Some(n) => self.number(attribute, n),
            None => self,
        }
    }

    /// With a host and a port, which a Unix socket has none of.
    pub(super) fn address(self, [host, port]: [Attribute; 2], address: &str) -> Self {
        match address.parse::<std::net::SocketAddr>() {
            Ok(address) => self
                .text(host, &address.ip().to_string())
                .text(port, &address.port().to_string()),
            Err(_) => self.text(host, address),
        }
    }

    fn value(&self) -> Value {
        let number = |n: u32, value| (Value::Uint(n), value);
        let mut map = vec![
            number(0, Value::Uint(self.kind as u32)),
            number(1, Value::from(&*self.identity)),
        ];
        let attributes = self.attributes.iter();
        map.extend(attributes.map(|(a, value)| number(*a as u32, value.clone())));
        Value::Map(map)
    }
}

/// A message, and the address that it goes to.
pub(super) type Outgoing = (String, Message);

/// Who listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// To beacons.
    pub(super) beacons: bool,
    /// To records, and heartbeats.
    pub(super) records: bool,
    /// To records of connections and requests.
    pub(super) flows: bool,
}

/// What tells of a site.
#[derive(Debug)]
pub(super) struct Source {
    id: Arc<str>,
    next_message: i64,
    beacon: Option<Instant>,
    heartbeat: Option<Instant>,
    /// What was told of things that last, by what they are here.
    told: BTreeMap<String, Record>,
    /// All of them are to be told again.
    flush: bool,
    records: VecDeque<Record>,
    flows: VecDeque<Record>,
    /// For listeners elsewhere whose clients are served here, by their sources.
    elsewhere: BTreeMap<String, Vec<Record>>,
    /// How many those are.
    served: usize,
    /// Records that there was no room for.
    lost: u64,
}

impl Source {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            next_message: 0,
            beacon: None,
            heartbeat: None,
            told: BTreeMap::new(),
            flush: false,
            records: VecDeque::new(),
            flows: VecDeque::new(),
            elsewhere: BTreeMap::new(),
            served: 0,
            lost: 0,
        }
    }

    /// Identity of a record of this source.
    pub(super) fn identity(&self, n: u64) -> String {
        format!("{}:{n}", self.id)
    }

    /// Where it is told to tell everything again.
    pub(super) fn direct(&self) -> String {
        format!("sfe.{}:0", self.id)
    }

    /// Where other sources tell how they serve its clients.
    pub(super) fn served(&self) -> String {
        format!("vfcr.{}:0", self.id)
    }

    /// Where its records go.
    pub(super) fn address(&self) -> String {
        format!("mc/sfe.{}:0", self.id)
    }

    /// Where its records of connections go.
    pub(super) fn flow_address(&self) -> String {
        format!("mc/sfe.{}:0.flows", self.id)
    }

    /// Everything is to be told again.
    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether somebody has asked for that since the last time.
    pub(super) fn is_flushed(&self) -> bool {
        self.flush
    }

    /// All things that last, by what they are here. What has changed is told, and what is gone.
    pub(super) fn set(&mut self, all: BTreeMap<String, Record>, now: Timestamp) {
        let again = std::mem::take(&mut self.flush);
        for (what, record) in &all {
            let before = self.told.get(what).filter(|_| !again);
            let before = before.filter(|before| before.identity == record.identity);
            match before {
                None => self.push(record.clone(), false),
                Some(before) => {
                    let mut news = record.clone();
                    news.attributes
                        .retain(|a, value| before.attributes.get(a) != Some(value));
                    if !news.attributes.is_empty() {
                        self.push(news, false);
                    }
                }
            }
        }
        let told = std::mem::take(&mut self.told);
        let gone = told
            .into_iter()
            .filter(|(what, record)| all.get(what).is_none_or(|r| r.identity != record.identity));
        for (_, record) in gone {
            let over = Record::new(record.kind, record.identity);
            self.push(over.number(Attribute::EndTime, micros(now)), false);
        }
        self.told = all;
    }

    /// Nobody listens: what is told next is told to somebody else.
    pub(super) fn forget(&mut self) {
        self.told.clear();
        self.records.clear();
        self.flows.clear();
        self.flush = false;
    }

    /// Tells of a connection or a request.
    pub(super) fn flow(&mut self, record: Record) {
        self.push(record, true);
    }

    fn push(&mut self, record: Record, flow: bool) {
        let queue = match flow {
            true => &mut self.flows,
            false => &mut self.records,
        };
        match queue.len() < WAITING {
            true => queue.push_back(record),
            false => self.lost += 1,
        }
    }

    /// Tells the source of a client elsewhere how it is served here.
    pub(super) fn serves(&mut self, source: &str, record: Record) {
        if self.served < WAITING && is_name(source) {
            self.served += 1;
            let waiting = self.elsewhere.entry(source.to_owned());
            waiting.or_default().push(record);
        }
    }

    /// Takes what others say of how they serve this site's clients. What is not of that kind is left.
    pub(super) fn take_served(&mut self, message: &Message) {
        use Attribute::{Connector, ProcessLatency, ProxyHost, ProxyPort, Trace};
        let Body::Value(Value::List(records)) = &message.body else {
            return;
        };
        for record in records.iter().take(BATCH) {
            let Value::Map(map) = record else { continue };
            let get = |attribute: Attribute| {
                let number = attribute as u32;
                map.iter()
                    .find(|(k, _)| k.as_u32() == Some(number))
                    .map(|(_, value)| value)
            };
            let kind = get(Attribute::Type).and_then(Value::as_u32);
            let identity = get(Attribute::Identity).and_then(Value::as_str);
            let own = |id: &&str| {
                let n = id.strip_prefix(&*self.id).and_then(|n| n.strip_prefix(':'));
                n.is_some_and(|n| n.parse::<u64>().is_ok())
            };
            let Some(identity) = identity.filter(own) else {
                continue;
            };
            if kind != Some(Type::Connection as u32) {
                continue;
            }
            let mut news = Record::new(Type::Connection, identity);
            for attribute in [
                Trace,
                Connector,
                ProxyHost,
                ProxyPort,
                Attribute::ConnectorError,
            ] {
                let text = get(attribute).and_then(Value::as_str);
                news = news.text(attribute, text.unwrap_or_default());
            }
            let latency = get(ProcessLatency).and_then(Value::as_u64);
            self.push(news.maybe(ProcessLatency, latency), true);
        }
    }

    /// What is to be sent now.
    pub(super) fn poll(&mut self, heard: Heard, now: Instant, at: Timestamp) -> Vec<Outgoing> {
        let due = |last: &mut Option<Instant>, every, heard| {
            let due = heard && last.is_none_or(|last| now.saturating_duration_since(last) >= every);
            match (heard, due) {
                // Whoever comes next does not wait.
                (false, _) => *last = None,
                (true, true) => *last = Some(now),
                (true, false) => {}
            }
            due
        };
        let mut out = Vec::new();
        let router = self.identity(0);
        let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
        if due(&mut self.beacon, BEACON, heard.beacons) {
            let properties = vec![
                (symbol("v"), Value::Uint(1)),
                (symbol("sourceType"), Value::from("ROUTER")),
                (symbol("id"), Value::from(&*router)),
                (symbol("address"), Value::from(&*self.address())),
                (symbol("direct"), Value::from(&*self.direct())),
            ];
            let null = Body::Value(Value::Null);
            out.push(self.message(BEACONS.to_owned(), "BEACON", properties, null));
        }
        if due(&mut self.heartbeat, HEARTBEAT, heard.records) {
            let properties = vec![
                (symbol("v"), Value::Uint(1)),
                (symbol("now"), Value::Ulong(micros(at))),
                (symbol("id"), Value::from(&*router)),
            ];
            let null = Body::Value(Value::Null);
            out.push(self.message(self.address(), "HEARTBEAT", properties, null));
        }
        let mut burst = BURST;
        while burst > 0 && !self.records.is_empty() {
            let part = self.records.len().min(BATCH);
            let records: Vec<Record> = self.records.drain(..part).collect();
            out.push(self.batch(self.address(), &records));
            burst -= 1;
        }
        while burst > 0 && !self.flows.is_empty() {
            let part = self.flows.len().min(BATCH);
            let records: Vec<Record> = self.flows.drain(..part).collect();
            out.push(self.batch(self.flow_address(), &records));
            burst -= 1;
        }
        self.served = 0;
        for (source, records) in std::mem::take(&mut self.elsewhere) {
            for part in records.chunks(BATCH) {
                out.push(self.batch(format!("vfcr.{source}:0"), part));
            }
        }
        if std::mem::take(&mut self.lost) > 0 {
            tracing::debug!("more happens than is told on the network");
        }
        out
    }

    fn batch(&mut self, to: String, records: &[Record]) -> Outgoing {
        let list = records.iter().map(Record::value).collect();
        let body = Body::Value(Value::List(list));
        self.message(to, "RECORD", Vec::new(), body)
    }

    fn message(
        &mut self,
        to: String,
        subject: &str,
        application_properties: Vec<(Value, Value)>,
        body: Body,
    ) -> Outgoing {
        let message_id = Some(Value::Long(self.next_message));
        self.next_message += 1;
        let message = Message {
            properties: Some(Properties {
                message_id,
                to: Some(to.clone()),
                subject: Some(subject.to_owned()),
                ..Properties::default()
            }),
            application_properties,
            body,
            ..Message::default()
        };
        (to, message)
    }
}

/// What can be the name of a source.
fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

#[cfg(test)]
mod tests;
