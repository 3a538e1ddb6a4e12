//! Records of connections, and news of them.

use super::*;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

fn begin(side: ConnectionSide) -> FlowStart {
    FlowStart {
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

fn server_side(site: &str) -> ServerInfo {
    ServerInfo {
        site: SiteName {
            name: site.to_owned(),
            ..SiteName::default()
        },
        ..ServerInfo::default()
    }
}

fn records(flow_log: &FlowLog, filter: FlowFilter, limit: usize) -> Vec<ConnectionRecord> {
    flow_log.records(&Query {
        filter,
        limit,
        namespace: None,
    })
}

fn total(flow_log: &FlowLog) -> ServiceTotals {
    let services = flow_log.services();
    let mut sum = ServiceTotals::default();
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
    let flow_log = FlowLog::new(2);
    let entry = flow_log.begin(1, begin(ConnectionSide::Listener));
    entry.add_read(3);
    assert_eq!(total(&flow_log), ServiceTotals::default());
    entry.set_server(server_side("west"));
    entry.add_read(4);
    entry.add_written(5);
    let counted = ServiceTotals {
        opened: 1,
        closed: 0,
        sent: 7,
        received: 5,
        requests: BTreeMap::new(),
    };
    assert_eq!(total(&flow_log), counted);
    let key = flow_log.services().into_keys().next().unwrap();
    assert_eq!(key.there.name, "west");
    entry.end(Ending::Closed);
    entry.finish();
    entry.finish();
    drop(entry);
    assert_eq!(
        total(&flow_log),
        ServiceTotals {
            closed: 1,
            ..counted
        }
    );
}

#[test]
fn a_record_has_the_outcome_of_its_connection() {
    let flow_log = FlowLog::new(1);
    let first = flow_log.begin(0, begin(ConnectionSide::Listener));
    drop(flow_log.begin(0, begin(ConnectionSide::Listener)));
    let of_connector = flow_log.begin(0, begin(ConnectionSide::Connector));
    of_connector.add_read(10);
    of_connector.add_written(1);
    let all = records(&flow_log, FlowFilter::All, 10);
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].sent, all[0].received), (1, 10));
    assert_eq!(all[0].ending, None);
    assert_eq!(all[1].ending, Some(Ending::Refused));
    let elsewhere = Query {
        namespace: Some("east".to_owned()),
        limit: 10,
        filter: FlowFilter::All,
    };
    assert!(flow_log.records(&elsewhere).is_empty());
    first.reset_here();
    first.reset_there();
    assert_eq!(records(&flow_log, FlowFilter::Active, 10).len(), 2);
    first.finish();
    // By when they began, however they are limited: the first has ended last.
    let ended = records(&flow_log, FlowFilter::Terminated, 10);
    let endings = [ended[0].ending, ended[1].ending];
    assert_eq!(
        endings,
        [Some(Ending::Refused), Some(Ending::ResetByClient)]
    );
    assert!(ended[1].end.is_some());
    let newest = records(&flow_log, FlowFilter::Terminated, 1);
    assert_eq!(newest[0].ending, Some(Ending::Refused));
}

#[test]
fn records_are_bounded_and_counters_are_not_lost() {
    let flow_log = FlowLog::new(1);
    let n = REMEMBERED as u64 + MAX_SERVICES as u64 + 10;
    for i in 0..n {
        let entry = flow_log.begin(0, begin(ConnectionSide::Listener));
        entry.set_routing_key(&format!("key{i}").into());
        entry.set_server(server_side("west"));
        entry.add_read(1);
    }
    assert_eq!(
        records(&flow_log, FlowFilter::All, usize::MAX).len(),
        REMEMBERED
    );
    let services = flow_log.services();
    assert_eq!(services.len(), MAX_SERVICES + 1);
    let all = total(&flow_log);
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
    let flow_log = FlowLog::new(2);
    let entry = flow_log.begin(1, begin(ConnectionSide::Listener));
    entry.set_server(server_side("west"));
    for n in 0..1500 {
        entry.exchanged(exchange("GET", Some(200 + n % 4)));
    }
    entry.exchanged(exchange("POST", Some(503)));
    entry.exchanged(exchange("POST", None));
    let requests = flow_log.requests(&everything());
    assert_eq!(requests.len(), 1000);
    assert_eq!(requests[0].exchange.status, None);
    assert_eq!(requests[1].exchange.status, Some(503));
    assert_eq!(requests[1].connection.id, entry.id());
    let took = requests[1].end.duration_since(requests[1].start);
    assert_eq!(took.as_micros(), 9);
    let ids: std::collections::HashSet<&str> = requests.iter().map(|r| &*r.id).collect();
    assert_eq!(ids.len(), 1000);
    let services = flow_log.services();
    let counts = &services.values().next().unwrap().requests;
    let count = |method, class| counts.get(&("HTTP/1.1", method, class)).copied();
    assert_eq!(count("GET", 2), Some(1500));
    assert_eq!((count("POST", 5), count("POST", 0)), (Some(1), Some(1)));
    assert_eq!(records(&flow_log, FlowFilter::All, 9)[0].requests, 1502);
    // Those of connections that are open, or have ended, and of a namespace.
    let of = |filter, namespace: &str| {
        let namespace = Some(namespace.to_owned());
        let query = Query {
            filter,
            namespace,
            limit: 5,
        };
        flow_log.requests(&query).len()
    };
    assert_eq!(
        (
            of(FlowFilter::Active, "default"),
            of(FlowFilter::Terminated, "default")
        ),
        (5, 0)
    );
    drop(entry);
    assert_eq!(
        (
            of(FlowFilter::Active, "default"),
            of(FlowFilter::Terminated, "default")
        ),
        (0, 5)
    );
    assert_eq!(of(FlowFilter::All, "other"), 0);
}

#[test]
fn news_are_queued_while_listening_up_to_a_limit() {
    let flow_log = FlowLog::new(1);
    let source: Arc<str> = "Ab1xY".into();
    let before = flow_log.begin(0, begin(ConnectionSide::Listener));
    assert!(flow_log.take_updates(&source).is_empty());
    let open = flow_log.listen(&source, true);
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].record().id, before.id());
    let entry = flow_log.begin(0, begin(ConnectionSide::Listener));
    entry.set_server(server_side("west"));
    entry.exchanged(exchange("GET", Some(200)));
    drop(entry);
    let kinds: Vec<_> = flow_log
        .take_updates(&source)
        .iter()
        .map(|n| matches!(n, FlowUpdate::Request(_)))
        .collect();
    assert_eq!(kinds, [false, false, true, false]);
    assert!(flow_log.take_updates(&source).is_empty());
    assert!(flow_log.take_updates("other").is_empty());
    for _ in 0..10_000 {
        drop(flow_log.begin(0, begin(ConnectionSide::Listener)));
    }
    assert_eq!(flow_log.take_updates(&source).len(), 8192);
    assert!(flow_log.listen(&source, false).is_empty());
    drop(before);
    assert!(flow_log.take_updates(&source).is_empty());
}
