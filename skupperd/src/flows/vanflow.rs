//! Vanflow, Skupper's protocol for records of a network: the messages of an event source. Sans-I/O.
//!
//! A source has a name of five characters: one for each router of a site and start of the daemon. It
//! announces itself on [`BEACONS`], and sends everything else to addresses with its name. A record is a
//! map of numbered attributes; updates have only changed attributes, and a record that is over has an
//! end time. Records are made only while a receiver is attached.

mod record;

pub(crate) use record::{Attribute, Type, VanflowRecord, micros};

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

/// Address on which all sources announce themselves.
pub(crate) const BEACONS: &str = "mc/sfe.all";
/// Intervals of skupper-router.
const BEACON: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Records in one message, as in skupper-router.
const BATCH: usize = 50;
/// Messages with records in one poll: more waits, or is dropped.
const BURST: usize = 20;
/// Records that wait.
const WAITING: usize = 8192;

/// A message, and the address that it goes to.
pub(crate) type Outgoing = (String, Message);

/// Which addresses of the source have receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VanflowReceivers {
    pub(crate) beacons: bool,
    /// To records, and heartbeats.
    pub(crate) records: bool,
    /// To records of connections and requests.
    pub(crate) flows: bool,
}

/// The event source of a site.
#[derive(Debug)]
pub(crate) struct VanflowSource {
    id: Arc<str>,
    next_message: i64,
    beacon: Option<Instant>,
    heartbeat: Option<Instant>,
    /// The lasting records that were sent.
    sent: BTreeMap<String, VanflowRecord>,
    /// The next [`Self::set_lasting`] sends all of them again.
    flush: bool,
    records: VecDeque<VanflowRecord>,
    flows: VecDeque<VanflowRecord>,
    /// For listeners elsewhere whose clients are served here, by their sources.
    for_other_sources: BTreeMap<String, Vec<VanflowRecord>>,
    /// Number of records in `for_other_sources`.
    served: usize,
    /// Records dropped for lack of room.
    lost: u64,
}

impl VanflowSource {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            next_message: 0,
            beacon: None,
            heartbeat: None,
            sent: BTreeMap::new(),
            flush: false,
            records: VecDeque::new(),
            flows: VecDeque::new(),
            for_other_sources: BTreeMap::new(),
            served: 0,
            lost: 0,
        }
    }

    /// Identity of a record of this source.
    pub(crate) fn identity(&self, n: u64) -> String {
        format!("{}:{n}", self.id)
    }

    /// Address of requests to send all records again.
    pub(crate) fn direct(&self) -> String {
        format!("sfe.{}:0", self.id)
    }

    /// Address on which other sources report how they serve its clients.
    pub(crate) fn service_address(&self) -> String {
        format!("vfcr.{}:0", self.id)
    }

    /// Where its records go.
    pub(crate) fn address(&self) -> String {
        format!("mc/sfe.{}:0", self.id)
    }

    /// Where its records of connections go.
    pub(crate) fn flow_address(&self) -> String {
        format!("mc/sfe.{}:0.flows", self.id)
    }

    /// Makes the next [`Self::set_lasting`] send all records again.
    pub(crate) fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether [`Self::flush`] was called since the last [`Self::set_lasting`].
    pub(crate) fn is_flushed(&self) -> bool {
        self.flush
    }

    /// Sets all lasting records. Queues those that have changed or are gone.
    pub(crate) fn set_lasting(&mut self, all: BTreeMap<String, VanflowRecord>, now: Timestamp) {
        let resend_all = std::mem::take(&mut self.flush);
        for (what, record) in &all {
            let before = self.sent.get(what).filter(|_| !resend_all);
            let before = before.filter(|before| before.identity == record.identity);
            match before {
                None => self.push(record.clone(), false),
                Some(before) => {
                    let mut changed = record.clone();
                    changed
                        .attributes
                        .retain(|a, value| before.attributes.get(a) != Some(value));
                    if !changed.attributes.is_empty() {
                        self.push(changed, false);
                    }
                }
            }
        }
        let sent = std::mem::take(&mut self.sent);
        let gone = sent
            .into_iter()
            .filter(|(what, record)| all.get(what).is_none_or(|r| r.identity != record.identity));
        for (_, record) in gone {
            let over = VanflowRecord::new(record.kind, record.identity);
            self.push(over.number(Attribute::EndTime, micros(now)), false);
        }
        self.sent = all;
    }

    /// Drops all state: the next listener gets all records.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
        self.records.clear();
        self.flows.clear();
        self.flush = false;
    }

    /// Queues the record of a connection or a request.
    pub(crate) fn push_flow(&mut self, record: VanflowRecord) {
        self.push(record, true);
    }

    fn push(&mut self, record: VanflowRecord, flow: bool) {
        let queue = match flow {
            true => &mut self.flows,
            false => &mut self.records,
        };
        match queue.len() < WAITING {
            true => queue.push_back(record),
            false => self.lost += 1,
        }
    }

    /// Queues a record for the source of a client that is served here.
    pub(crate) fn report_served(&mut self, source: &str, record: VanflowRecord) {
        if self.served < WAITING && is_name(source) {
            self.served += 1;
            let waiting = self.for_other_sources.entry(source.to_owned());
            waiting.or_default().push(record);
        }
    }

    /// Reads how other sites serve this site's clients. Ignores other records.
    pub(crate) fn take_served(&mut self, message: &Message) {
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
            let mut update = VanflowRecord::new(Type::Connection, identity);
            for attribute in [
                Trace,
                Connector,
                ProxyHost,
                ProxyPort,
                Attribute::ConnectorError,
            ] {
                let text = get(attribute).and_then(Value::as_str);
                update = update.text(attribute, text.unwrap_or_default());
            }
            let latency = get(ProcessLatency).and_then(Value::as_u64);
            self.push(update.maybe(ProcessLatency, latency), true);
        }
    }

    /// Messages to send now.
    pub(crate) fn poll(
        &mut self,
        receivers: VanflowReceivers,
        now: Instant,
        at: Timestamp,
    ) -> Vec<Outgoing> {
        let due = |last: &mut Option<Instant>, every, has_receiver| {
            let due = has_receiver
                && last.is_none_or(|last| now.saturating_duration_since(last) >= every);
            match (has_receiver, due) {
                // The next listener gets one at once.
                (false, _) => *last = None,
                (true, true) => *last = Some(now),
                (true, false) => {}
            }
            due
        };
        let mut out = Vec::new();
        let router = self.identity(0);
        let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
        if due(&mut self.beacon, BEACON, receivers.beacons) {
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
        if due(&mut self.heartbeat, HEARTBEAT, receivers.records) {
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
            let records: Vec<VanflowRecord> = self.records.drain(..part).collect();
            out.push(self.batch(self.address(), &records));
            burst -= 1;
        }
        while burst > 0 && !self.flows.is_empty() {
            let part = self.flows.len().min(BATCH);
            let records: Vec<VanflowRecord> = self.flows.drain(..part).collect();
            out.push(self.batch(self.flow_address(), &records));
            burst -= 1;
        }
        self.served = 0;
        for (source, records) in std::mem::take(&mut self.for_other_sources) {
            for part in records.chunks(BATCH) {
                out.push(self.batch(format!("vfcr.{source}:0"), part));
            }
        }
        if std::mem::take(&mut self.lost) > 0 {
            tracing::debug!("dropping vanflow records: too many changes");
        }
        out
    }

    fn batch(&mut self, to: String, records: &[VanflowRecord]) -> Outgoing {
        let list = records.iter().map(VanflowRecord::value).collect();
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

/// Whether this is a valid name of a source.
fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

#[cfg(test)]
mod tests;
