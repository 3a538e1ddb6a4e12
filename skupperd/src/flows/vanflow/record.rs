//! Records of vanflow: typed maps of numbered attributes.

use crate::amqp::value::Value;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// Longest text in a record, as in skupper-router.
pub(super) const TEXT: usize = 300;

/// What a record is of, by skupper-router's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
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

/// An attribute of a record, by skupper-router's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
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
pub(crate) struct VanflowRecord {
    pub(super) kind: Type,
    pub(super) identity: Arc<str>,
    pub(super) attributes: BTreeMap<Attribute, Value>,
}

/// A time as records have it: microseconds since the epoch.
pub(crate) fn micros(time: Timestamp) -> u64 {
    u64::try_from(time.as_microsecond()).unwrap_or(0)
}

impl VanflowRecord {
    pub(crate) fn new(kind: Type, identity: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            identity: identity.into(),
            attributes: BTreeMap::new(),
        }
    }

    /// With a text; an empty one is none.
    pub(crate) fn text(mut self, attribute: Attribute, text: &str) -> Self {
        let end = text.floor_char_boundary(TEXT);
        if end > 0 {
            let text = Value::from(&text[..end]);
            self.attributes.insert(attribute, text);
        }
        self
    }

    pub(crate) fn number(mut self, attribute: Attribute, n: u64) -> Self {
        self.attributes.insert(attribute, Value::Ulong(n));
        self
    }

    /// With a number that may not be known.
    pub(crate) fn maybe(self, attribute: Attribute, n: Option<u64>) -> Self {
        match n {
            Some(n) => self.number(attribute, n),
            None => self,
        }
    }

    /// With a host and a port, which a Unix socket has none of.
    pub(crate) fn address(self, [host, port]: [Attribute; 2], address: &str) -> Self {
        match address.parse::<std::net::SocketAddr>() {
            Ok(address) => self
                .text(host, &address.ip().to_string())
                .text(port, &address.port().to_string()),
            Err(_) => self.text(host, address),
        }
    }

    pub(super) fn value(&self) -> Value {
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
