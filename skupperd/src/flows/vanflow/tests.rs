use crate::flows::vanflow::{record::TEXT, *};
use bytes::BytesMut;

fn all(records: &[(&str, VanflowRecord)]) -> BTreeMap<String, VanflowRecord> {
    let named = records
        .iter()
        .map(|(name, r)| ((*name).to_owned(), r.clone()));
    named.collect()
}

/// The records of a message, as a receiver reads them.
fn records(out: &[Outgoing]) -> Vec<(String, Vec<Value>)> {
    let read = |(to, message): &Outgoing| {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        let message = Message::decode(&bytes.freeze()).unwrap();
        match message.body {
            Body::Value(Value::List(records)) => (to.clone(), records),
            _ => (to.clone(), Vec::new()),
        }
    };
    out.iter().map(read).collect()
}

fn attribute(record: &Value, attribute: Attribute) -> Option<&Value> {
    let Value::Map(map) = record else { return None };
    let found = map
        .iter()
        .find(|(k, _)| *k == Value::Uint(attribute as u32));
    found.map(|(_, value)| value)
}

const EVERYTHING: VanflowReceivers = VanflowReceivers {
    beacons: true,
    records: true,
    flows: true,
};

fn router(name: &str) -> VanflowRecord {
    VanflowRecord::new(Type::Router, "Ab1xY:0").text(Attribute::Name, name)
}

#[test]
fn beacons_and_heartbeats_equal_those_of_skupper_router() {
    let mut source = VanflowSource::new("W7QJK".into());
    let (start, at) = (
        Instant::now(),
        Timestamp::from_microsecond(1_795_220_976_506_594).unwrap(),
    );
    let mut sent = Vec::new();
    for seconds in 0..21 {
        let now = start + Duration::from_secs(seconds);
        sent.extend(source.poll(EVERYTHING, now, at));
    }
    let to = |address: &str| sent.iter().filter(|(to, _)| to == address).count();
    assert_eq!((to(BEACONS), to("mc/sfe.W7QJK:0")), (3, 11));
    // As in a capture of skupper-router, but for the size of list and map headers.
    let text = |name: &str| Value::Symbol(Symbol::from(name.to_owned()));
    assert_eq!(
        sent[0].1.application_properties,
        [
            (text("v"), Value::Uint(1)),
            (text("sourceType"), Value::from("ROUTER")),
            (text("id"), Value::from("W7QJK:0")),
            (text("address"), Value::from("mc/sfe.W7QJK:0")),
            (text("direct"), Value::from("sfe.W7QJK:0")),
        ]
    );
    assert_eq!(
        sent[1].1.application_properties,
        [
            (text("v"), Value::Uint(1)),
            (text("now"), Value::Ulong(1_795_220_976_506_594)),
            (text("id"), Value::from("W7QJK:0")),
        ]
    );
    // Without receivers nothing is sent, and a new receiver does not wait.
    let now = start + Duration::from_secs(100);
    assert!(source.poll(VanflowReceivers::default(), now, at).is_empty());
    assert_eq!(source.poll(EVERYTHING, now, at).len(), 2);
}

#[test]
fn only_changes_are_sent_until_all_records_are_requested() {
    let mut source = VanflowSource::new("Ab1xY".into());
    let (now, at) = (
        Instant::now(),
        Timestamp::UNIX_EPOCH + Duration::from_secs(5),
    );
    drop(source.poll(EVERYTHING, now, at));
    let link = VanflowRecord::new(Type::Link, "Ab1xY:7").number(Attribute::LinkCost, 1);
    source.set_lasting(all(&[("router", router("a")), ("link", link.clone())]), at);
    let told = records(&source.poll(EVERYTHING, now, at));
    assert_eq!((told.len(), told[0].1.len()), (1, 2));
    // The same again.
    source.set_lasting(all(&[("router", router("a")), ("link", link.clone())]), at);
    assert!(source.poll(EVERYTHING, now, at).is_empty());
    // One attribute, and one that is gone.
    source.set_lasting(all(&[("router", router("b"))]), at);
    let told = records(&source.poll(EVERYTHING, now, at));
    let [news, over] = &told[0].1[..] else {
        panic!("{told:?}")
    };
    assert_eq!(attribute(news, Attribute::Name), Some(&Value::from("b")));
    assert_eq!(
        attribute(over, Attribute::Identity),
        Some(&Value::from("Ab1xY:7"))
    );
    assert_eq!(
        attribute(over, Attribute::EndTime),
        Some(&Value::Ulong(5_000_000))
    );
    source.flush();
    source.set_lasting(all(&[("router", router("b"))]), at);
    assert_eq!(records(&source.poll(EVERYTHING, now, at))[0].1.len(), 1);
}

#[test]
fn queue_and_burst_are_bounded() {
    let mut source = VanflowSource::new("Ab1xY".into());
    let (now, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
    drop(source.poll(EVERYTHING, now, at));
    for n in 0..20_000 {
        source.push_flow(VanflowRecord::new(Type::Connection, source.identity(n)));
        source.report_served(
            &format!("s{n}"),
            VanflowRecord::new(Type::Connection, "x:1"),
        );
    }
    assert_eq!(
        (source.flows.len(), source.for_other_sources.len()),
        (WAITING, WAITING)
    );
    let out = source.poll(EVERYTHING, now, at);
    let flows = out.iter().filter(|(to, _)| *to == source.flow_address());
    assert_eq!(flows.count(), BURST);
    // Names that are none are not sent to.
    for name in ["", "a:b", "a b", &"x".repeat(40)] {
        source.report_served(name, VanflowRecord::new(Type::Connection, "x:1"));
    }
    assert!(source.for_other_sources.is_empty());
}

#[test]
fn only_reports_about_own_clients_are_passed_on() {
    let mut source = VanflowSource::new("Ab1xY".into());
    let (now, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
    drop(source.poll(EVERYTHING, now, at));
    let good = VanflowRecord::new(Type::Connection, "Ab1xY:9")
        .text(Attribute::Connector, "other:3")
        .text(Attribute::ProxyHost, &"long ".repeat(1000))
        .number(Attribute::ProcessLatency, 12);
    let mut strange = good.clone();
    strange.identity = "Cd2zZ:9".into();
    let router = VanflowRecord::new(Type::Router, "Ab1xY:0").text(Attribute::Name, "mine");
    let mut list: Vec<Value> = [&good, &strange, &router]
        .map(VanflowRecord::value)
        .to_vec();
    list.extend([Value::Null, Value::Map(vec![]), Value::from("x")]);
    let message = |body| Message {
        body,
        ..Message::default()
    };
    source.take_served(&message(Body::Value(Value::List(list))));
    for body in [Body::Empty, Body::Value(Value::Null), Body::Data(vec![])] {
        source.take_served(&message(body));
    }
    let told = records(&source.poll(EVERYTHING, now, at));
    assert_eq!((told.len(), told[0].1.len()), (1, 1));
    let record = &told[0].1[0];
    assert_eq!(told[0].0, "mc/sfe.Ab1xY:0.flows");
    assert_eq!(
        attribute(record, Attribute::Connector),
        Some(&Value::from("other:3"))
    );
    assert_eq!(
        attribute(record, Attribute::ProcessLatency),
        Some(&Value::Ulong(12))
    );
    let host = attribute(record, Attribute::ProxyHost).and_then(Value::as_str);
    assert_eq!(host.map(str::len), Some(TEXT));
}
