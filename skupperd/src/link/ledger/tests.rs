//! What is remembered of connections, and what is told of them.

use super::*;
use std::time::{Duration, Instant};

fn begin(side: Side) -> Begin {
    Begin {
        side,
        source: "Ab1xY".into(),
        site: Arc::new(SiteName {
            namespace: "default".to_owned(),
            id: "1".to_owned(),
            name: "east".to_owned(),
        }),
        entity: "web".into(),
        routing_key: "web".into(),
        client: None,
        peer_id: String::new(),
    }
}

fn served(site: &str) -> Served {
    Served {
        site: SiteName {
            name: site.to_owned(),
            ..SiteName::default()
        },
        ..Served::default()
    }
}

fn records(ledger: &Ledger, which: Which, limit: usize) -> Vec<Record> {
    ledger.records(&Query {
        which,
        limit,
        namespace: None,
    })
}

fn total(ledger: &Ledger) -> Totals {
    let services = ledger.services();
    let mut sum = Totals::default();
    for totals in services.values() {
        sum.opened += totals.opened;
        sum.closed += totals.closed;
        sum.sent += totals.sent;
        sum.received += totals.received;
    }
    sum
}

#[test]
fn bytes_before_a_server_is_known_are_counted_with_it() {
    let ledger = Ledger::new(2);
    let entry = ledger.begin(1, begin(Side::Listener));
    entry.read(3);
    assert_eq!(total(&ledger), Totals::default());
    entry.served(served("west"));
    entry.read(4);
    entry.wrote(5);
    let counted = Totals {
        opened: 1,
        closed: 0,
        sent: 7,
        received: 5,
        requests: BTreeMap::new(),
    };
    assert_eq!(total(&ledger), counted);
    let key = ledger.services().into_keys().next().unwrap();
    assert_eq!(key.there.name, "west");
    entry.end(Ending::Closed);
    entry.finish();
    entry.finish();
    drop(entry);
    assert_eq!(
        total(&ledger),
        Totals {
            closed: 1,
            ..counted
        }
    );
}

#[test]
fn o10_a_record_says_what_became_of_a_connection() {
    let ledger = Ledger::new(1);
    let first = ledger.begin(0, begin(Side::Listener));
    drop(ledger.begin(0, begin(Side::Listener)));
    let of_connector = ledger.begin(0, begin(Side::Connector));
    of_connector.read(10);
    of_connector.wrote(1);
    let all = records(&ledger, Which::All, 10);
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].sent, all[0].received), (1, 10));
    assert_eq!(all[0].ending, None);
    assert_eq!(all[1].ending, Some(Ending::Refused));
    let elsewhere = Query {
        namespace: Some("east".to_owned()),
        limit: 10,
        which: Which::All,
    };
    assert!(ledger.records(&elsewhere).is_empty());
    first.here();
    first.there();
    assert_eq!(records(&ledger, Which::Active, 10).len(), 2);
    first.finish();
    // By when they began, however they are limited: the first has ended last.
    let ended = records(&ledger, Which::Terminated, 10);
    let endings = [ended[0].ending, ended[1].ending];
    assert_eq!(
        endings,
        [Some(Ending::Refused), Some(Ending::ResetByClient)]
    );
    assert!(ended[1].end.is_some());
    let newest = records(&ledger, Which::Terminated, 1);
    assert_eq!(newest[0].ending, Some(Ending::Refused));
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_counted_is_not_lost() {
    let ledger = Ledger::new(1);
    let n = REMEMBERED as u64 + MAX_SERVICES as u64 + 10;
    for i in 0..n {
        let entry = ledger.begin(0, begin(Side::Listener));
        entry.tries(&format!("key{i}").into());
        entry.served(served("west"));
        entry.read(1);
    }
    assert_eq!(records(&ledger, Which::All, usize::MAX).len(), REMEMBERED);
    let services = ledger.services();
    assert_eq!(services.len(), MAX_SERVICES + 1);
    let all = total(&ledger);
    assert_eq!((all.opened, all.closed, all.sent), (n, n, n));
}

fn exchange(method: &'static str, status: Option<u16>) -> Exchange {
    Exchange {
        protocol: Protocol::Http11,
        stream: 0,
        method,
        status,
        start: Instant::now(),
        latency: status.map(|_| Duration::from_micros(5)),
        duration: Duration::from_micros(9),
        sent: 1,
        received: 2,
    }
}

fn everything() -> Query {
    Query {
        limit: usize::MAX,
        ..Query::default()
    }
}

#[test]
fn requests_are_counted_by_method_and_class_and_the_newest_remembered() {
    let ledger = Ledger::new(2);
    let entry = ledger.begin(1, begin(Side::Listener));
    entry.served(served("west"));
    for n in 0..1500 {
        entry.exchanged(exchange("GET", Some(200 + n % 4)));
    }
    entry.exchanged(exchange("POST", Some(503)));
    entry.exchanged(exchange("POST", None));
    let requests = ledger.requests(&everything());
    assert_eq!(requests.len(), 1000);
    assert_eq!(requests[0].exchange.status, None);
    assert_eq!(requests[1].exchange.status, Some(503));
    assert_eq!(requests[1].connection.id, entry.id());
    let took = requests[1].end.duration_since(requests[1].start);
    assert_eq!(took.as_micros(), 9);
    let ids: std::collections::HashSet<&str> = requests.iter().map(|r| &*r.id).collect();
    assert_eq!(ids.len(), 1000);
    let services = ledger.services();
    let counts = &services.values().next().unwrap().requests;
    let count = |method, class| counts.get(&("HTTP/1.1", method, class)).copied();
    assert_eq!(count("GET", 2), Some(1500));
    assert_eq!((count("POST", 5), count("POST", 0)), (Some(1), Some(1)));
    assert_eq!(records(&ledger, Which::All, 9)[0].requests, 1502);
    // Those of connections that are open, or have ended, and of a namespace.
    let of = |which, namespace: &str| {
        let namespace = Some(namespace.to_owned());
        let query = Query {
            which,
            namespace,
            limit: 5,
        };
        ledger.requests(&query).len()
    };
    assert_eq!(
        (
            of(Which::Active, "default"),
            of(Which::Terminated, "default")
        ),
        (5, 0)
    );
    drop(entry);
    assert_eq!(
        (
            of(Which::Active, "default"),
            of(Which::Terminated, "default")
        ),
        (0, 5)
    );
    assert_eq!(of(Which::All, "other"), 0);
}

#[test]
fn news_are_kept_for_who_listens_and_only_so_many() {
    let ledger = Ledger::new(1);
    let source: Arc<str> = "Ab1xY".into();
    let before = ledger.begin(0, begin(Side::Listener));
    assert!(ledger.news(&source).is_empty());
    let open = ledger.listen(&source, true);
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].record().id, before.id());
    let entry = ledger.begin(0, begin(Side::Listener));
    entry.served(served("west"));
    entry.exchanged(exchange("GET", Some(200)));
    drop(entry);
    let kinds: Vec<_> = ledger
        .news(&source)
        .iter()
        .map(|n| matches!(n, News::Request(_)))
        .collect();
    assert_eq!(kinds, [false, false, true, false]);
    assert!(ledger.news(&source).is_empty());
    assert!(ledger.news("other").is_empty());
    for _ in 0..10_000 {
        drop(ledger.begin(0, begin(Side::Listener)));
    }
    assert_eq!(ledger.news(&source).len(), 8192);
    assert!(ledger.listen(&source, false).is_empty());
    drop(before);
    assert!(ledger.news(&source).is_empty());
}
